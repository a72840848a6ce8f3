//! Logging in at somebody else's node: everything reaches the home, and the node between keeps nothing.

use std::{process::Stdio, time::Duration};

use tests::write;

use super::{Net, fill, until};
use crate::text;

#[test]
fn a_person_works_through_a_node_that_is_not_her_home() {
    let (net, mut home) = Net::new();
    let mut friend = net.join("friend");
    let alice = net.person("alice", &home);
    alice.ok(&["signup", "--no-session"]);
    let place = net.path("home of alice");
    write(&place.join("letter"), b"written at home");
    alice.ok(&["put", "letter", "/alice/"]);
    friend.sync();
    let before = friend.block_bytes();

    let away = net.person("alice", &friend);
    until("the friend's node finds the home", || {
        away.run(&["ls", "/alice"]).code == Some(0)
    });
    assert_eq!(away.ok(&["cat", "/alice/letter"]), "written at home");
    let photo = fill(&place.join("photo"), 6 << 20, 1);
    away.ok(&["put", "photo", "/alice/"]);
    away.ok(&["mkdir", "/alice/trip"]);
    away.ok(&["mv", "/alice/photo", "/alice/trip/"]);
    assert_eq!(away.ok(&["ls", "/alice"]).trim_end(), "letter\ntrip/");
    let copy = place.join("copy");
    away.ok(&["get", "/alice/trip/photo", text(&copy)]);
    assert!(std::fs::read(&copy).unwrap() == photo);
    assert!(home.block_bytes() > 6 << 20);
    assert_eq!(
        friend.block_bytes(),
        before,
        "the node between keeps nothing"
    );

    // The home is gone in the middle of an upload; it goes on when the home is back.
    fill(&place.join("film"), 24 << 20, 2);
    let grown = home.block_bytes() + (4 << 20);
    let mut upload = away
        .command(&["put", "film", "/alice/"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the upload arrives", || home.block_bytes() > grown);
    home.kill();
    let refused = away.run(&["ls", "/alice"]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("home"), "{}", refused.stderr);
    home.restart();
    let _ = upload.kill();
    let _ = upload.wait();
    // The node between as well.
    friend.restart();
    let away = net.person("alice", &friend);
    until("the friend's node finds the home again", || {
        away.run(&["ls", "/alice"]).code == Some(0)
    });
    away.ok(&["put", "film", "/alice/"]);
    let alice = net.person("alice", &home);
    let again = place.join("again");
    alice.ok(&["get", "/alice/film", text(&again)]);
    assert!(std::fs::read(&again).unwrap() == std::fs::read(place.join("film")).unwrap());
    assert!(away.run(&["ls", "/alice"]).took < Duration::from_secs(60));
}

/// Two nodes that were told of a third one only find each other.
#[test]
fn nodes_find_each_other_by_id_through_a_third_one() {
    let (net, first) = Net::new();
    let (home, friend) = (net.join("home"), net.join("friend"));
    let bob = net.person("bob", &home);
    bob.ok(&["signup", "--no-session"]);
    friend.sync();
    let away = net.person("bob", &friend);
    write(&net.path("home of bob/note"), b"found");
    // Each of the two comes to the first one by itself, which takes a moment.
    until("the friend's node finds the home", || {
        away.run(&["ls", "/bob"]).code == Some(0)
    });
    away.ok(&["put", "note", "/bob/"]);
    assert_eq!(bob.ok(&["cat", "/bob/note"]), "found");
    drop(first);
}
