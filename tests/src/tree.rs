//! Folders of test files, and their comparison.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Writes a file, with the folders above it.
///
/// # Panics
///
/// When the file system refuses.
pub fn write(path: &Path, content: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("folder");
    std::fs::write(path, content).expect("file");
}

/// Returns how many bytes all files below a folder have; a folder or file that is not there, or not any more, has none.
#[must_use]
pub fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

/// Makes a folder with everything that is awkward: names in several scripts, an empty file and folder, sizes around
/// every boundary of the format, deep nesting, a hidden file, and one file of `large_bytes`.
pub fn mixed_folder(root: &Path, large_bytes: usize) {
    const CHUNK: usize = 5 << 20;
    let mut seed = 1;
    let mut content = |bytes: usize| {
        seed += 1;
        noise(seed, bytes)
    };
    for (name, bytes) in [
        ("empty", 0),
        ("one byte", 1),
        ("inline-1", 4095),
        ("inline", 4096),
        ("inline+1", 4097),
        ("fragment-1", (1 << 20) - 1),
        ("fragment", 1 << 20),
        ("fragment+1", (1 << 20) + 1),
        ("chunk-1", CHUNK - 1),
        ("chunk", CHUNK),
        ("chunk+1", CHUNK + 1),
        ("large file with findable-name.bin", large_bytes),
        (".hidden", 10),
        ("\u{65e5}\u{672c}\u{8a9e}.txt", 20),
        (
            "\u{440}\u{443}\u{441}\u{441}\u{43a}\u{438}\u{439}/\u{444}\u{430}\u{439}\u{43b}",
            30,
        ),
        ("\u{627}\u{644}\u{639}\u{631}\u{628}\u{64a}\u{629}", 40),
        ("emoji \u{1f600}\u{1f468}\u{200d}\u{1f469}", 50),
        ("e\u{301} combining, \u{e9} composed", 60),
        ("back\\slash & 'quotes' \"double\" %20 + ? #", 70),
        ("trailing blank ", 80),
        ("a/b/c/d/e/f/g/h/i/j/deep", 90),
        ("-starts-with-dash", 100),
    ] {
        write(&root.join(name), &content(bytes));
    }
    write(
        &root.join("text/plain.txt"),
        "a sentence that can be found: xyzzy-plugh-content\n"
            .repeat(40)
            .as_bytes(),
    );
    std::fs::create_dir_all(root.join("empty folder")).expect("folder");
    for i in 0..60 {
        write(&root.join(format!("many/{i:03}.txt")), &content(i * 37));
    }
}

/// Compares two folders: names, kinds and every byte.
///
/// # Panics
///
/// With the first difference.
#[track_caller]
pub fn assert_same(left: &Path, right: &Path) {
    let (a, b) = (listing(left), listing(right));
    let names = |map: &BTreeMap<PathBuf, bool>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&a), names(&b), "different names");
    for (path, is_folder) in a {
        assert_eq!(Some(&is_folder), b.get(&path), "{}", path.display());
        if !is_folder {
            let same = std::fs::read(left.join(&path)).expect("readable")
                == std::fs::read(right.join(&path)).expect("readable");
            assert!(same, "{} differs", path.display());
        }
    }
}

fn listing(root: &Path) -> BTreeMap<PathBuf, bool> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.expect("entry").path();
            let is_folder = path.is_dir();
            found.insert(
                path.strip_prefix(root)
                    .expect("below the root")
                    .to_path_buf(),
                is_folder,
            );
            if is_folder {
                folders.push(path);
            }
        }
    }
    found
}

/// Returns bytes that do not compress and differ by seed.
pub(crate) fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(bytes + 8);
    while out.len() < bytes {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(bytes);
    out
}
