//! What the person who runs a node does, with the node running and without.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use tests::{Kastro, NodeProcess};

use crate::{World, json_lines, program, text};

/// The operator of a world's node, with an empty machine but for the data folder.
fn operator(world: &World) -> Kastro {
    let home = world.path("operator");
    std::fs::create_dir_all(&home).unwrap();
    Kastro::new(program(), &home).with("KASTRO_DATA", text(&world.data()))
}

#[test]
fn accounts_are_listed_with_the_node_running_and_without() {
    let mut world = World::with_options(&["--quota", "50M"]);
    world.signed_up("alice", "laptop");
    world.signed_up("bob", "phone");
    let operator = operator(&world);
    let running = operator.ok(&["users", "list"]);
    assert!(running.contains("  alice\n"), "{running}");
    let listed = json_lines(&operator.ok(&["users", "list", "--json"]));
    assert_eq!(listed.len(), 2, "{listed:?}");
    assert_eq!(listed[0]["name"], "alice");
    assert_eq!(listed[0]["home"], "here");
    assert_eq!(listed[0]["quota_bytes"], 50 << 20);
    assert!(listed[0]["used_bytes"].as_u64().unwrap() > 0);
    let shown = operator.ok(&["users", "show", "bob"]);
    assert!(shown.contains("login data       yes"), "{shown}");
    operator.fails(7, &["users", "show", "nobody"]);
    operator.fails(7, &["users", "show", "a/../b"]);
    operator.fails(6, &["quota", "set", "a/../b", "1G"]);

    assert!(world.node.take().unwrap().stop());
    assert!(!world.data().join("admin.sock").exists());
    assert_eq!(operator.ok(&["users", "list"]), running);
    assert_eq!(
        operator.ok(&["users", "show", "bob"]),
        shown,
        "the same operation in process"
    );
}

#[test]
fn a_quota_is_in_force_at_once_and_for_new_accounts_too() {
    let mut world = World::with_options(&["--quota", "50M"]);
    let alice = world.signed_up("alice", "laptop");
    let operator = operator(&world);
    assert!(
        operator
            .ok(&["quota", "set", "alice", "8 MiB"])
            .contains("(was 50 MiB)")
    );
    tests::write(&world.path("laptop/large"), &vec![1; 12 << 20]);
    alice.fails(9, &["put", "large", "/alice/"]);
    operator.ok(&["quota", "set", "alice", "100M"]);
    alice.ok(&["put", "large", "/alice/"]);

    operator.ok(&["quota", "default", "3G"]);
    let bob = world.signed_up("bob", "phone");
    assert!(bob.ok(&["space"]).contains("of 3.0 GiB"));
    world.restart_after_kill();
    let shown = json_lines(&operator.ok(&["quota", "show", "--json"]));
    assert_eq!(shown[0]["quota_bytes"], 3_u64 << 30);
    assert_eq!(shown[0]["is_set"], true);
    operator.ok(&["quota", "default", "--reset"]);
    let shown = json_lines(&operator.ok(&["quota", "show", "--json"]));
    assert_eq!(shown[0]["is_set"], false);

    operator.fails(2, &["quota", "set", "alice", "many"]);
    operator.fails(6, &["quota", "set", "alice", "9000T"]);
    operator.fails(7, &["quota", "show", "nobody"]);
}

#[test]
fn sc_7_the_operators_socket_is_for_its_owner_and_replaced_after_a_crash() {
    let mut world = World::new();
    let socket = world.data().join("admin.sock");
    let check = || {
        let metadata = std::fs::symlink_metadata(&socket).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    };
    check();
    let operator = operator(&world);
    operator.ok(&["users", "list"]);
    world.node.take().unwrap().kill();
    assert!(socket.exists(), "a crash leaves it behind");
    operator.ok(&["users", "list"]);
    world.node = Some(NodeProcess::start(program(), &world.data(), &[]));
    check();
    operator.ok(&["users", "list"]);
}

#[test]
fn a_missing_folder_is_not_made_by_looking() {
    let folder = tempfile::tempdir().unwrap();
    let operator = Kastro::new(program(), folder.path());
    let message = operator.fails(16, &["users", "list"]);
    assert!(message.contains("there is no data folder"), "{message}");
    assert!(!folder.path().join(".kastro").exists());
}
