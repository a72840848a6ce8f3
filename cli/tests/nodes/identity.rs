//! A node with a new identity: people's claims, settings and copies name the one before, and go on.

use tests::{Kastro, write};

use super::{Net, until};

#[test]
fn p2p_8_a_node_with_a_new_identity_is_found_by_the_old_one() {
    let (net, mut first) = Net::new();
    let (mut home, mut friend) = (net.join("home"), net.join("friend"));
    let alice = net.person("alice", &home);
    alice.ok(&["signup", "--no-session"]);
    let place = net.path("home of alice");
    write(&place.join("letter"), b"written before");
    alice.ok(&["put", "letter", "/alice/"]);
    friend.sync();
    friend.keep(&alice, "alice", &home);
    let away = net.person("alice", &friend);
    until("the friend's node finds the home", || {
        away.run(&["ls", "/alice"]).code == Some(0)
    });

    let old = home.id().to_owned();
    assert_eq!(home.json(&["node", "status"])["id"], *old);
    let done = home.json(&["node", "rotate"]);
    assert_eq!(
        (&done["from"], &done["identities"]),
        (&old.clone().into(), &2.into())
    );
    let new = done["to"].as_str().unwrap().to_owned();
    assert_ne!(old, new);
    // It goes by the old one until it is started again, and does not take two at once.
    let refused = home.operate(&["node", "rotate"]);
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("restart"), "{}", refused.stderr);
    assert_eq!(away.ok(&["cat", "/alice/letter"]), "written before");

    home.restart_as_another(&[]);
    assert_eq!(home.id(), new);
    let shown = home.json(&["node", "status"]);
    assert_eq!(shown["id"], *new);
    assert_eq!(shown["before"][0]["id"], *old);
    assert_eq!(shown["before"][0]["next"], *new);
    // Alice's claim names the old id: so the friend's node goes to the new one.
    until("the friend's node follows", || {
        away.run(&["ls", "/alice"]).code == Some(0)
    });
    write(&place.join("answer"), b"written after");
    away.ok(&["put", "answer", "/alice/"]);
    let alice = net.person("alice", &home);
    assert_eq!(alice.ok(&["cat", "/alice/answer"]), "written after");
    // Logging in at a node that is not the home changes nothing about the claim; logging in at the home renews it, once.
    let told = "Your node has a new identity";
    let log_in = |person: &Kastro| {
        let done = person.run(&["login"]);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        done.stderr.contains(told)
    };
    assert!(!log_in(&net.person("alice", &friend)));
    assert!(log_in(&alice));
    assert!(!log_in(&alice));
    friend.sync();
    assert!(!log_in(&net.person("alice", &friend)));
    // So does the copy.
    let run = friend.json(&["mirror", "run"]);
    assert_eq!((&run["in_step"], &run["failed"]), (&1.into(), &0.into()));

    // Whoever comes now has a claim that names the new id.
    let bob = net.person("bob", &home);
    bob.ok(&["signup", "--no-session"]);
    write(&net.path("home of bob/note"), b"a new neighbour");
    bob.ok(&["put", "note", "/bob/"]);
    friend.sync();
    let away = net.person("bob", &friend);
    assert_eq!(away.ok(&["cat", "/bob/note"]), "a new neighbour");

    // The node that gives out the names, while it is down; the others were told of its old id by settings and table.
    first.kill();
    let done = first.json(&["node", "rotate"]);
    first.restart_as_another(&[]);
    assert_eq!(done["to"], *first.id());
    until("the table is followed", || {
        friend.operate(&["names", "status", "--sync"]).code == Some(0)
    });
    // Not told of its network again, the friend's node is in it all the same.
    friend.kill();
    let shown = friend.json(&["names", "status"]);
    assert_eq!(shown["is_authority"], false);
}
