//! What holds for the repository as a whole: the checklist's tests exist, and unsafe code stays where it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The only crates that may hold unsafe code, each of which holds nothing else.
const UNSAFE_CRATES: [&str; 2] = ["cli/memory", "cryptree/sodium"];
/// Folders of a build or of other people's code.
const NOT_OURS: [&str; 4] = ["target", "node_modules", ".git", "corpus"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// Files below a folder whose names end so.
fn files(folder: &Path, end: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let name = entry.file_name().into_string().unwrap_or_default();
        match entry.file_type().unwrap().is_dir() {
            true if NOT_OURS.contains(&name.as_str()) => {}
            true => files(&path, end, found),
            false if name.ends_with(end) => found.push(path),
            false => {}
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    files(&root(), ".rs", &mut found);
    assert!(found.len() > 200, "{}", found.len());
    let read = |path: PathBuf| {
        let text = read(&path);
        (path, text)
    };
    found.into_iter().map(read).collect()
}

/// Names of all functions.
fn functions(sources: &[(PathBuf, String)]) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let all = sources
        .iter()
        .flat_map(|(_, text)| text.split("fn ").skip(1));
    all.map(|rest| rest.chars().take_while(|c| is_part(*c)).collect())
        .collect()
}

/// True when a name holds the id as whole words: `wr_5` is in `wr_5_and_wr_6_...`, and not in `wr_50`.
fn names_row(function: &str, row: &str) -> bool {
    let words = format!("_{function}_");
    words.contains(&format!("_{}_", row.to_ascii_lowercase().replace('-', "_")))
}

#[test]
fn fw_2_every_green_row_of_the_checklist_has_a_test_of_its_name() {
    let functions = functions(&sources());
    let has_test = |row: &str| functions.iter().any(|name| names_row(name, row));
    let table = read(&root().join("docs/security-rows.md"));
    let mut rows = BTreeMap::new();
    for line in table.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 5, "{line}");
        let (row, about, state) = (cells[1], cells[2], cells[3]);
        if row == "row" || row == "---" {
            continue;
        }
        assert!(!about.is_empty(), "{line}");
        assert_eq!(rows.insert(row, state), None, "{row} is there twice");
    }
    assert!(rows.len() >= 187, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for (row, state) in &rows {
        let word = state.split([' ', ':']).next().unwrap();
        let is_right = match (word, state.strip_prefix("green as ")) {
            (_, Some(others)) => others
                .split(", ")
                .all(|other| rows.contains_key(other) && has_test(other)),
            ("green", None) => *state == "green" && has_test(row),
            ("yellow" | "red" | "later", None) => state.contains(": "),
            ("browser", None) => true,
            _ => false,
        };
        if !is_right {
            wrong.push((row, state));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(names_row("wr_5_x", "WR-5") && names_row("a_and_wr_5", "WR-5"));
    assert!(!names_row("wr_50_x", "WR-5") && !names_row("bwr_5", "WR-5"));
}

#[test]
fn sc_8_unsafe_code_is_forbidden_in_every_crate_but_the_listed_ones() {
    let root = root();
    let workspace = read(&root.join("Cargo.toml"));
    assert!(workspace.contains("\n[workspace.lints.rust]\nunsafe_code = \"forbid\"\n"));
    let mut manifests = Vec::new();
    files(&root, "Cargo.toml", &mut manifests);
    let mut members = 0;
    for manifest in manifests {
        let text = read(&manifest);
        let folder = manifest.parent().unwrap();
        let name = folder.strip_prefix(&root).unwrap().to_str().unwrap();
        let is_member = text.contains(".workspace = true");
        if name.is_empty() || !is_member {
            continue;
        }
        members += 1;
        let is_listed = UNSAFE_CRATES.contains(&name);
        let obeys = text.contains("\n[lints]\nworkspace = true\n");
        assert_eq!(obeys, !is_listed, "{name}");
        // Denied there, so that the one exception is seen, and every use gives its reason.
        let explains = text.contains("\nunsafe_code = \"deny\"\n")
            && text.contains("\nundocumented_unsafe_blocks = \"deny\"\n");
        assert_eq!(explains, is_listed, "{name}");
    }
    assert!(members >= 11, "{members}");
    // What is no member of the workspace says so in its sources.
    for (path, text) in sources() {
        let path = path.strip_prefix(&root).unwrap().to_str().unwrap();
        if path == "tests/tests/repository.rs"
            || UNSAFE_CRATES.iter().any(|known| path.starts_with(known))
        {
            continue;
        }
        let mut code = text
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default());
        assert!(
            code.all(|line| !line.contains("unsafe {") && !line.contains("unsafe_code")),
            "{path}"
        );
    }
}
