//! Secret links at the command line, against a real node.

use std::fs;

use tests::{assert_same, mixed_folder};

use crate::{World, json_lines};

#[test]
fn a_link_is_made_opened_by_a_stranger_counted_and_taken_back() {
    let world = World::new();
    let alice = world.signed_up("alice", "laptop");
    mixed_folder(&world.path("laptop").join("docs"), 6 << 20);
    alice.ok(&["put", "docs", "/alice/"]);
    let link = alice.ok(&["link", "create", "/alice/docs", "--uses", "2"]);
    let link = link.trim();
    assert!(link.starts_with(world.node().url()), "{link}");
    // A stranger has neither account nor password.
    let home = world.path("stranger");
    fs::create_dir_all(&home).unwrap();
    let stranger = tests::Kastro::new(crate::program(), &home);
    stranger.ok(&["link", "get", link]);
    assert_same(&world.path("laptop").join("docs"), &home.join("docs"));
    let listed = json_lines(&alice.ok(&["link", "list", "--json"]));
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["path"], "/alice/docs");
    assert_eq!(
        (&listed[0]["used"], &listed[0]["uses"]),
        (&1.into(), &2.into())
    );
    assert_eq!(listed[0]["link"], link);
    // The second time through standard input, the third time it is used up.
    let again = stranger.run_with_input(&["link", "get", "-", "again"], link.as_bytes());
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    let message = stranger.fails(18, &["link", "get", link, "third"]);
    assert!(message.contains("exceed"), "{message}");
    assert!(!home.join("third").exists());
    let label = listed[0]["label"].to_string();
    alice.ok(&["link", "rm", &label]);
    assert_eq!(alice.ok(&["link", "list"]), "");
    alice.fails(7, &["link", "rm", &label]);
    stranger.fails(18, &["link", "get", link, "fourth"]);
}

#[test]
fn a_password_and_an_end_belong_to_a_link() {
    let world = World::new();
    let alice = world.signed_up("alice", "laptop");
    fs::write(world.path("laptop").join("a.txt"), "hello").unwrap();
    alice.ok(&["put", "a.txt", "/alice/"]);
    let secret = alice
        .clone()
        .with("KASTRO_LINK_PASSWORD", "correct horse battery");
    let link = secret.ok(&["link", "create", "a.txt", "--expires", "7d"]);
    let link = link.trim();
    let home = world.path("stranger");
    fs::create_dir_all(&home).unwrap();
    let stranger = tests::Kastro::new(crate::program(), &home);
    let wrong = stranger.clone().with("KASTRO_LINK_PASSWORD", "wrong");
    let run = wrong.run(&["link", "get", link]);
    assert_ne!(run.code, Some(0));
    assert!(run.stderr.contains("does not open"), "{}", run.stderr);
    assert!(!run.stderr.contains("wrong horse") && !home.join("a.txt").exists());
    let right = stranger.with("KASTRO_LINK_PASSWORD", "correct horse battery");
    right.ok(&["link", "get", link]);
    assert_eq!(fs::read_to_string(home.join("a.txt")).unwrap(), "hello");
    // What is there is not replaced unless that is asked for.
    let run = right.run(&["link", "get", link]);
    assert_ne!(run.code, Some(0));
    right.ok(&["link", "get", "--force", link]);
    let listed = json_lines(&alice.ok(&["link", "list", "--json"]));
    assert_eq!(listed[0]["password"], true);
    assert!(listed[0]["expires"].is_string());
    // A link that is cut off is told apart without being repeated.
    let cut = link.split('#').next().unwrap();
    let run = right.run(&["link", "get", cut]);
    assert_ne!(run.code, Some(0));
    assert!(run.stderr.contains("not a secret link"), "{}", run.stderr);
    let other = format!("{cut}#canary8x1");
    let run = right.run(&["link", "get", &other]);
    assert!(!run.stderr.contains("canary8x1"), "{}", run.stderr);
}
