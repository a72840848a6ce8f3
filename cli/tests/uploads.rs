//! Uploads that were begun and not finished: seen from any machine, gone on with, given up.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use tests::{Kastro, write};

use crate::{World, json_lines};

/// Begins to upload a file so slowly that it will not end, and kills the client when the node knows of it.
fn begin(person: &Kastro, name: &str, known: usize) -> serde_json::Value {
    let path = format!("/alice/{name}");
    let mut upload = person
        .command(&["put", "--limit", "64K", name, &path])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    let row = loop {
        assert!(Instant::now() < deadline, "no record appears");
        let rows = json_lines(&person.ok(&["uploads", "--json"]));
        if let Some(row) = rows.iter().find(|row| row["path"] == path.as_str()) {
            assert_eq!(rows.len(), known + 1);
            break row.clone();
        }
    };
    upload.kill().unwrap();
    upload.wait().unwrap();
    row
}

#[test]
fn unfinished_uploads_are_listed_resumed_and_given_up() {
    let world = World::new();
    let alice = world.signed_up("alice", "laptop");
    assert_eq!(alice.ok(&["uploads"]), "");
    for (name, byte) in [("a", 1), ("b", 2), ("c", 3)] {
        write(&world.path("laptop").join(name), &vec![byte; 6 << 20]);
    }
    let a = begin(&alice, "a", 0);
    assert_eq!(a["size"], 6 << 20);
    begin(&alice, "b", 1);
    let c = begin(&alice, "c", 2);
    // From another machine too, as a person reads it.
    let phone = world.person("alice", "phone");
    let shown = phone.ok(&["uploads"]);
    let (id, _) = c["id"].as_str().unwrap().split_at(16);
    assert_eq!(shown.lines().count(), 3);
    assert!(
        shown
            .lines()
            .any(|line| line.starts_with(id) && line.ends_with("/alice/c")),
        "{shown}"
    );
    // The same file again ends one.
    alice.ok(&["put", "b", "/alice/b"]);
    assert_eq!(json_lines(&alice.ok(&["uploads", "--json"])).len(), 2);
    // What may still be running is not swept away.
    assert_eq!(phone.ok(&["uploads", "--discard-all"]), "");
    phone.fails(7, &["uploads", "--discard", "/alice/b"]);
    phone.fails(7, &["uploads", "--discard", "z"]);
    let gone = json_lines(&phone.ok(&["uploads", "--json", "--discard", id]));
    assert_eq!((gone.len(), &gone[0]["discarded"]), (1, &true.into()));
    let gone = phone.ok(&["uploads", "--discard-all", "--older-than", "0"]);
    assert!(gone.contains("/alice/a"), "{gone}");
    assert_eq!(phone.ok(&["uploads"]), "");
    assert_eq!(alice.ok(&["ls", "/alice"]), "b\n");
    // Given up is not forbidden.
    alice.ok(&["put", "a", "/alice/a"]);
    assert_eq!(alice.ok(&["ls", "/alice"]), "a\nb\n");
}
