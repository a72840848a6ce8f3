//! Power cuts: the node is killed while somebody uploads.

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use tests::{assert_same, mixed_folder, write};

use crate::{World, json_lines, text};

#[test]
fn a_killed_node_loses_nothing_acknowledged_and_the_upload_goes_on() {
    let mut world = World::new();
    let person = world.signed_up("alice", "laptop");
    write(&world.path("laptop/before"), b"acknowledged");
    person.ok(&["put", "before", "/alice/"]);
    let folder = world.path("laptop/Things");
    mixed_folder(&folder, 24 << 20);

    let mut upload = person
        .command(&["put", "Things", "/alice/"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Killed as soon as something of it is there.
    let size_before = size_of(&world.data());
    let deadline = Instant::now() + Duration::from_secs(60);
    while size_of(&world.data()) < size_before + (8 << 20) && upload.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "nothing arrives");
        std::thread::sleep(Duration::from_millis(5));
    }
    world.restart_after_kill();
    // The client tries on its own for a while, at an address where nobody listens any more.
    let _ = upload.kill();
    let _ = upload.wait();

    let person = world.person("alice", "laptop");
    assert_eq!(person.ok(&["cat", "/alice/before"]), "acknowledged");
    let rest = json_lines(&person.ok(&["put", "--json", "Things", "/alice/"]));
    assert_eq!(rest[0]["problems"], 0);
    let elsewhere = world.person("alice", "phone");
    let copy = world.path("phone/copy");
    elsewhere.ok(&["get", "/alice/Things", text(&copy)]);
    assert_same(&folder, &copy);
}

fn size_of(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}
