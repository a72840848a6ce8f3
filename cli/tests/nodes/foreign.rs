//! Logging in at somebody else's node: everything reaches the home, and the node between keeps nothing.

use tests::write;

use super::{Net, until};

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
