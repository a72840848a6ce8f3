//! Signing up and in, sessions, passwords.

use std::os::unix::fs::PermissionsExt;

use crate::{World, json_lines};

#[test]
fn a_session_goes_on_without_the_password_until_logout() {
    let world = World::new();
    let with_password = world.person("alice", "laptop");
    with_password.ok(&["signup"]);
    let home = world.path("laptop");
    let session = home.join(".config/kastro/session");
    let mode = std::fs::metadata(&session).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    // Nothing but the home folder is left: no server, no name, no password.
    let bare = tests::Kastro::new(crate::program(), &home);
    bare.ok(&["mkdir", "docs"]);
    assert_eq!(bare.ok(&["ls"]), "docs/\n");
    bare.ok(&["logout"]);
    assert!(!session.exists());
    let message = bare.fails(17, &["ls"]);
    assert!(message.contains("nobody is logged in"), "{message}");
    assert!(message.contains("kastro login"), "{message}");

    with_password.ok(&["login"]);
    assert_eq!(bare.ok(&["ls"]), "docs/\n");
}

#[test]
fn a_generated_passphrase_logs_in_from_an_empty_machine() {
    let world = World::new();
    let person = world.person("bob", "first");
    let signed_up = json_lines(&person.ok(&["signup", "--generate", "--json"]));
    let passphrase = signed_up[0]["passphrase"].as_str().unwrap();
    assert!(passphrase.split('-').count() >= 7, "{passphrase}");
    let elsewhere = world.person("bob", "second");
    elsewhere.fails(4, &["ls"]);
    let elsewhere = elsewhere.with("KASTRO_PASSWORD", passphrase);
    elsewhere.ok(&["ls"]);
}

#[test]
fn the_password_can_be_read_from_a_file_and_is_never_an_argument() {
    let world = World::new();
    world.signed_up("carol", "laptop");
    let file = world.path("password");
    std::fs::write(&file, "the password of carol\n").unwrap();
    let person = tests::Kastro::new(crate::program(), &world.path("laptop"))
        .with("KASTRO_SERVER", world.node().url());
    person.ok(&[
        "ls",
        "--user",
        "carol",
        "--password-file",
        file.to_str().unwrap(),
    ]);
    person.fails(2, &["ls", "--user", "carol", "--password", "x"]);
    // Nobody to ask and nothing given.
    person.fails(17, &["ls", "--user", "carol"]);
}

#[test]
fn a_changed_password_works_everywhere_and_the_old_one_nowhere() {
    let world = World::new();
    let old = world.signed_up("dave", "laptop");
    std::fs::write(world.path("laptop/a.txt"), "kept").unwrap();
    old.ok(&["put", "a.txt", "/dave/"]);
    old.clone()
        .with("KASTRO_NEW_PASSWORD", "a better one")
        .ok(&["passwd"]);
    old.fails(4, &["ls"]);
    let new = world
        .person("dave", "phone")
        .with("KASTRO_PASSWORD", "a better one");
    assert_eq!(new.ok(&["cat", "/dave/a.txt"]), "kept");
}

#[test]
fn one_person_cannot_read_what_another_keeps() {
    let world = World::new();
    let alice = world.signed_up("alice", "laptop");
    let bob = world.signed_up("bob", "phone");
    std::fs::write(world.path("laptop/secret"), "only hers").unwrap();
    alice.ok(&["put", "secret", "/alice/secret"]);
    for command in [
        ["ls", "/alice"],
        ["cat", "/alice/secret"],
        ["stat", "/alice/secret"],
    ] {
        let finished = bob.run(&command);
        assert_ne!(finished.code, Some(0));
        assert!(!finished.text().contains("only hers"));
    }
    assert_ne!(bob.run(&["rm", "/alice/secret"]).code, Some(0));
    assert_eq!(alice.ok(&["cat", "/alice/secret"]), "only hers");
}

#[test]
fn space_is_told_in_bytes() {
    let world = World::with_options(&["--quota", "50M"]);
    let person = world.signed_up("erin", "laptop");
    let space = json_lines(&person.ok(&["space", "--json"]));
    assert_eq!(space[0]["quota_bytes"], 50 << 20);
    assert!(space[0]["used_bytes"].as_u64().unwrap() > 0);
    assert!(person.ok(&["space"]).contains("of 50 MiB"));
}
