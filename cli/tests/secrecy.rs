//! What lies on the node's disk tells nothing.

use std::path::Path;

use tests::{mixed_folder, write};

use crate::World;

#[test]
fn neither_names_nor_contents_are_on_the_nodes_disk() {
    let mut world = World::new();
    let person = world.signed_up("alice", "laptop");
    let folder = world.path("laptop/confidential-folder-name");
    mixed_folder(&folder, 2 << 20);
    write(
        &folder.join("quarterly-report.txt"),
        b"the-merger-is-on-tuesday",
    );
    person.ok(&["put", "confidential-folder-name", "/alice/"]);
    person.ok(&["mkdir", "/alice/another-telling-name"]);
    assert!(world.node.take().unwrap().stop());

    let needles = [
        "confidential-folder-name",
        "quarterly-report",
        "the-merger-is-on-tuesday",
        "findable-name",
        "xyzzy-plugh-content",
        "another-telling-name",
        "\u{65e5}\u{672c}\u{8a9e}",
        "the password of alice",
        "text/plain",
    ];
    let mut searched = 0;
    search(&world.data(), &mut |path, bytes| {
        searched += bytes.len();
        for needle in needles {
            let found = bytes
                .windows(needle.len())
                .any(|window| window == needle.as_bytes());
            assert!(!found, "{needle} in {}", path.display());
        }
    });
    assert!(searched > 20 << 20, "the data was searched: {searched}");
    // The name of the account is public, and is the proof that the search can find.
    let mut found = false;
    search(&world.data(), &mut |_, bytes| {
        found |= bytes.windows(5).any(|window| window == b"alice");
    });
    assert!(found);
}

fn search(folder: &Path, look: &mut dyn FnMut(&Path, &[u8])) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            search(&path, look);
        } else {
            look(&path, &std::fs::read(&path).unwrap());
        }
    }
}
