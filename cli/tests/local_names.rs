//! Names that others chose, on the local disk and on the terminal (Spec: 40 §8, rows FS-*).

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::World;

/// Everything in a folder but what is below `except`.
fn snapshot(folder: &Path, except: &Path) -> BTreeSet<(PathBuf, Vec<u8>)> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path == except {
                continue;
            }
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(path.clone());
            }
            let content = match kind.is_file() {
                true => fs::read(&path).unwrap(),
                false => Vec::new(),
            };
            found.insert((path, content));
        }
    }
    found
}

#[test]
fn fs_1_nothing_is_written_outside_of_the_target() {
    let world = World::new();
    let alice = world.signed_up("alice", "laptop");
    let names = [
        "..\\..\\x",
        "C:\\x",
        "\\\\srv\\s",
        "a\\..\\b",
        "...",
        "..x",
        "~",
        "-rf",
        "$(touch x)",
    ];
    let source = world.path("laptop").join("tree");
    fs::create_dir_all(source.join("dir")).unwrap();
    fs::write(source.join("dir/file"), "from the account").unwrap();
    for name in names {
        fs::write(source.join(name), name).unwrap();
    }
    alice.ok(&["put", "tree", "/alice/"]);
    let place = world.path("elsewhere");
    let outside = place.join("outside");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("file"), "untouched").unwrap();
    let other = world.person("alice", "elsewhere");
    for (command, target) in [("get", "got"), ("sync", "synced")] {
        let target = place.join(target);
        fs::create_dir_all(&target).unwrap();
        // Where the account has a folder, the disk has a link that leads out.
        let inner = match command {
            "get" => target.join("tree"),
            _ => target.clone(),
        };
        fs::create_dir_all(&inner).unwrap();
        std::os::unix::fs::symlink(&outside, inner.join("dir")).unwrap();
        let config = place.join(".config");
        let before: BTreeSet<_> = snapshot(&place, &target)
            .into_iter()
            .filter(|(path, _)| !path.starts_with(&config))
            .collect();
        let name = target.file_name().unwrap().to_str().unwrap();
        let run = match command {
            "get" => other.run(&["get", "--force", "/alice/tree", name]),
            _ => other.run(&["sync", "--down", name, "/alice/tree"]),
        };
        let after: BTreeSet<_> = snapshot(&place, &target)
            .into_iter()
            .filter(|(path, _)| !path.starts_with(&config))
            .collect();
        assert_eq!(before, after, "{command}: {}", run.stderr);
        for name in names {
            let found = fs::read(inner.join(name)).unwrap_or_default();
            assert_eq!(found, name.as_bytes(), "{command}: {name}: {}", run.stderr);
        }
    }
}

#[test]
fn fs_2_names_that_other_systems_confuse_stay_apart() {
    let world = World::new();
    let alice = world.signed_up("alice", "laptop");
    let names = [
        "A", "a", "\u{e9}", "e\u{301}", "x.", "x", "con", "con.txt", "x ",
    ];
    let source = world.path("laptop").join("tree");
    fs::create_dir_all(&source).unwrap();
    for name in names {
        fs::write(source.join(name), name).unwrap();
    }
    alice.ok(&["put", "tree", "/alice/"]);
    alice.ok(&["get", "/alice/tree", "back"]);
    tests::assert_same(&source, &world.path("laptop").join("back"));
    // None took the place of another.
    for name in names {
        let path = format!("/alice/tree/{name}");
        assert_eq!(alice.ok(&["cat", &path]), name);
    }
}

#[test]
fn fs_4_a_remote_file_cannot_stand_in_for_a_download() {
    let world = World::new();
    let alice = world.signed_up("alice", "laptop");
    let source = world.path("laptop").join("tree");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("a.txt"), "right").unwrap();
    alice.ok(&["put", "tree", "/alice/"]);
    // The hidden name of a download is known to whoever knows the program.
    for name in [
        ".kastro-part-0123456789abcdef",
        ".kastro-part-",
        ".kastro-part-x",
    ] {
        let path = format!("/alice/tree/{name}");
        let run = alice.run_with_input(&["put", "-", &path], b"planted");
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
    let run = alice.run(&["get", "/alice/tree", "back"]);
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    assert!(run.stderr.matches(".kastro-part-").count() >= 3);
    let back = world.path("laptop").join("back");
    let found: Vec<_> = fs::read_dir(&back).unwrap().flatten().collect();
    assert_eq!(found.len(), 1);
    assert_eq!(fs::read_to_string(back.join("a.txt")).unwrap(), "right");
}

#[test]
fn fs_11_names_cannot_speak_to_the_terminal() {
    let world = World::new();
    let alice = world.signed_up("alice", "laptop");
    let names = [
        "\u{1b}]0;x\u{7}title",
        "\u{1b}[2Jgone",
        "two\nlines",
        "\u{202e}gpj.exe",
        "carriage\rreturn",
        "tab\tbed",
        "<embed name=\"getElementById\">",
    ];
    alice.ok(&["mkdir", "/alice/f"]);
    for name in names {
        let path = format!("/alice/f/{name}");
        let run = alice.run_with_input(&["put", "-", &path], b"x");
        // What is no legal name at all is refused, and told without being printed raw.
        assert!(
            matches!(run.code, Some(0 | 2 | 6)),
            "{:?} {}",
            run.code,
            run.stderr
        );
        assert!(!run.stderr.contains(['\u{1b}', '\u{202e}', '\u{7}']));
    }
    let entries = crate::json_lines(&alice.ok(&["ls", "--json", "/alice/f"]));
    assert!(entries.len() >= 2, "{entries:?}");
    for options in [
        &["ls", "/alice/f"][..],
        &["ls", "-l", "/alice/f"],
        &["find", "/alice/f"],
    ] {
        let printed = alice.ok(options);
        assert!(
            printed.lines().count() <= entries.len() + 1,
            "one line per entry: {printed}"
        );
        let is_raw =
            |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!printed.contains(is_raw), "{printed:?}");
    }
    alice.ok(&["rm", "-r", "/alice/f"]);
}
