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

#[test]
fn an_account_is_removed_with_the_node_running_or_not() {
    let mut world = World::new();
    let alice = world.signed_up("alice", "laptop");
    let bob = world.signed_up("bob", "phone");
    tests::write(&world.path("laptop/large"), &vec![7; 6 << 20]);
    alice.ok(&["put", "large", "/alice/"]);
    let operator = operator(&world);
    let message = operator.fails(18, &["users", "remove", "alice"]);
    assert!(message.contains("--force"), "{message}");
    let removed =
        json_lines(&operator.ok(&["users", "remove", "alice", "--force", "--json", "-q"]));
    assert!(removed[0]["bytes"].as_u64().unwrap() > 6 << 20);
    assert_ne!(alice.run(&["ls"]).code, Some(0));
    alice.fails(5, &["signup"]);
    bob.ok(&["ls"]);
    let left = size_of(&world.data().join("store/blocks"));
    assert!(left < 6 << 20, "the space is free again: {left}");
    assert_eq!(
        json_lines(&operator.ok(&["users", "list", "--json"])).len(),
        1
    );

    assert!(world.node.take().unwrap().stop());
    operator.ok(&["users", "remove", "bob", "--force"]);
    assert_eq!(operator.ok(&["users", "list", "--json"]), "");
    operator.fails(7, &["users", "remove", "carol", "--force"]);
}

fn size_of(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[test]
fn invites_let_people_in_one_by_one() {
    let world = World::with_options(&["--set", "max_users=0"]);
    let operator = operator(&world);
    let alice = world.person("alice", "laptop");
    alice.fails(18, &["signup", "--no-session"]);
    let printed = operator.ok(&["invite", "new", "--count", "2"]);
    let tokens: Vec<_> = printed.lines().collect();
    assert_eq!(tokens.len(), 2);
    let listed = json_lines(&operator.ok(&["invite", "list", "--json"]));
    assert_eq!(listed.len(), 2);
    assert!(!operator.ok(&["invite", "list"]).contains(tokens[0]));
    let alice = alice.with("KASTRO_SIGNUP_TOKEN", tokens[0]);
    alice.ok(&["signup", "--no-session"]);
    let id = json_lines(&operator.ok(&["invite", "list", "--json"]))[0]["id"].clone();
    operator.ok(&["invite", "revoke", id.as_str().unwrap()]);
    let bob = world
        .person("bob", "phone")
        .with("KASTRO_SIGNUP_TOKEN", tokens[1]);
    bob.fails(18, &["signup", "--no-session"]);
    operator.fails(7, &["invite", "revoke", id.as_str().unwrap()]);
    operator.fails(2, &["invite", "new", "--count", "0"]);
}

#[test]
fn messages_are_written_from_the_command_line_and_standard_input() {
    let world = World::new();
    world.signed_up("alice", "laptop");
    let operator = operator(&world);
    operator.ok(&["messages", "send", "alice", "hello"]);
    let sent = operator.run_with_input(&["messages", "send", "alice", "-"], b"two\x1b[2J\n");
    assert_eq!(sent.code, Some(0), "{}", sent.stderr);
    let listed = operator.ok(&["messages", "list", "alice"]);
    assert!(
        listed.contains("you: hello") && listed.contains("you: two\\u{1b}[2J"),
        "{listed}"
    );
    operator.fails(7, &["messages", "send", "nobody", "hello"]);
}

#[test]
fn settings_come_from_flag_environment_and_file_in_this_order() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    tests::write(
        &data.join("config.toml"),
        b"quota = \"1G\"\nmax_users = 5\n[limits]\nconnections = 9\n",
    );
    let operator = Kastro::new(program(), folder.path())
        .with("KASTRO_DATA", text(&data))
        .with("KASTRO_MAX_USERS", "6")
        .with("KASTRO_LIMITS_CONNECTIONS", "8");
    let arguments = ["config", "--json", "--set", "limits.connections=7"];
    let settings = &json_lines(&operator.ok(&arguments))[0]["settings"];
    for (key, value, from) in [
        ("quota", serde_json::json!("1 GiB"), "file, line 1"),
        ("max_users", 6.into(), "KASTRO_MAX_USERS"),
        ("limits.connections", 7.into(), "--set limits.connections"),
        ("log", "info".into(), "default"),
        ("data", text(&data).into(), "KASTRO_DATA"),
    ] {
        assert_eq!(settings[key]["value"], value, "{key}");
        assert_eq!(settings[key]["from"], from, "{key}");
    }
    let tokens = operator.clone().with("KASTRO_SIGNUP_TOKENS", "one,two");
    let shown = tokens.ok(&["config"]);
    assert!(shown.contains("# signup_tokens is set"), "{shown}");
    assert!(!shown.contains("one"), "{shown}");
    let template = operator.ok(&["config", "--default"]);
    assert!(
        template.contains("# [limits]") || template.contains("[limits]"),
        "{template}"
    );

    tests::write(
        &data.join("config.toml"),
        b"quota = \"1G\"\n\nmax_usres = 5\n",
    );
    for command in [["config"].as_slice(), &["serve"], &["users", "list"]] {
        let message = operator.fails(2, command);
        assert!(
            message.contains("config.toml:3:1: unknown key max_usres"),
            "{message}"
        );
        assert!(message.contains("did you mean max_users?"), "{message}");
    }
}

#[test]
fn a_node_is_told_its_settings_by_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    tests::write(&file, b"quota = \"77M\"\nmonitoring = \"127.0.0.1:0\"\n");
    let data = folder.path().join("data");
    let _node = NodeProcess::start(program(), &data, &["--config", text(&file)]);
    let operator = Kastro::new(program(), folder.path()).with("KASTRO_DATA", text(&data));
    let quota = json_lines(&operator.ok(&["quota", "show", "--json"]));
    assert_eq!(quota[0]["quota_bytes"], 77 << 20);
    assert!(data.join("admin.token").exists());
}
