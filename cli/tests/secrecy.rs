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

#[test]
fn prv_7_a_machine_that_has_logged_out_keeps_no_keys_names_or_contents() {
    let world = World::new();
    world.signed_up("alice", "laptop");
    let folder = world.path("phone/confidential-folder-name");
    write(
        &folder.join("quarterly-report.txt"),
        b"the-merger-is-on-tuesday",
    );
    let home = world.path("phone");
    let person = world.person("alice", "phone");
    person.ok(&["login", "alice"]);
    person.ok(&["put", "confidential-folder-name", "/alice/"]);
    person.ok(&["ls", "-laR", "/alice"]);
    person.ok(&[
        "cat",
        "/alice/confidential-folder-name/quarterly-report.txt",
    ]);
    std::fs::remove_dir_all(&folder).unwrap();
    // What the session was kept with, as far as it is on the disk.
    let mut session = Vec::new();
    search(&home, &mut |path, bytes| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("session") {
            session.push(bytes.to_vec());
        }
    });
    assert!(!session.is_empty(), "a session is kept");
    person.ok(&["logout"]);
    let mut needles: Vec<Vec<u8>> = [
        "confidential-folder-name",
        "quarterly-report",
        "the-merger-is-on-tuesday",
        "the password of alice",
    ]
    .map(|needle| needle.as_bytes().to_vec())
    .to_vec();
    for bytes in session {
        needles.extend(bytes.chunks_exact(32).take(100).map(<[u8]>::to_vec));
    }
    let forms = |needle: &Vec<u8>| {
        let base64 = data_encoding::BASE64_NOPAD.encode(needle).into_bytes();
        let hex = data_encoding::HEXLOWER.encode(needle).into_bytes();
        [needle.clone(), base64, hex]
    };
    let needles: Vec<Vec<u8>> = needles.iter().flat_map(forms).collect();
    let mut files = 0;
    search(&home, &mut |path, bytes| {
        files += 1;
        for needle in &needles {
            let found = bytes.windows(needle.len()).any(|window| window == needle);
            assert!(!found, "something is left in {}", path.display());
        }
    });
    assert!(files > 0, "the cache was searched");
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
