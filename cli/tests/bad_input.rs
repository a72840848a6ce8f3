//! Every way to go wrong has one clear sentence and its own exit code, and loses nothing.

use std::{
    io::{Read, Write},
    net::TcpListener,
};

use tests::{Kastro, NodeProcess, write};

use crate::{World, json_lines, program, text};

#[test]
fn each_mistake_has_its_code() {
    let world = World::new();
    let alice = world.signed_up("alice", "laptop");
    write(&world.path("laptop/f"), b"1");
    alice.ok(&["put", "f", "/alice/f"]);
    alice.ok(&["mkdir", "/alice/d"]);

    let wrong = alice.clone().with("KASTRO_PASSWORD", "wrong");
    assert!(
        wrong
            .fails(4, &["ls"])
            .contains("wrong user name or password")
    );
    wrong.fails(4, &["login"]);

    assert!(alice.fails(5, &["signup"]).contains("taken"));
    for name in ["Alice", "a b", "-x", "a--b", "", "a/b", &"x".repeat(33)] {
        let person = alice.clone().with("KASTRO_USER", "ignored");
        let finished = person.run(&["signup", "--no-session", "--", name]);
        assert_eq!(finished.code, Some(6), "{name}: {}", finished.stderr);
    }

    alice.fails(7, &["ls", "/alice/none"]);
    alice.fails(7, &["cat", "/alice/none"]);
    alice.fails(7, &["get", "/alice/none/deeper"]);
    alice.fails(7, &["put", "f", "/alice/none/deeper"]);
    alice.fails(7, &["mv", "/alice/none", "/alice/x"]);
    alice.fails(7, &["mkdir", "/alice/none/deeper"]);
    let nobody = alice.clone().with("KASTRO_USER", "nobody");
    nobody.fails(7, &["ls"]);

    alice.fails(8, &["mkdir", "/alice/d"]);
    alice.ok(&["mkdir", "-p", "/alice/d"]);
    alice.fails(8, &["mkdir", "-p", "/alice/f/x"]);
    alice.fails(8, &["mv", "/alice/d", "/alice/f"]);
    alice.fails(8, &["cat", "/alice/d"]);

    alice.fails(2, &["ls", "/alice/../bob"]);
    alice.fails(2, &["frobnicate"]);
    alice.fails(6, &["mkdir", &format!("/alice/{}", "n".repeat(300))]);
    alice.fails(6, &["rm", "-r", "/alice"]);
    alice.fails(16, &["put", "no-such-file", "/alice/"]);
    alice.fails(16, &["get", "/alice/f", "no/such/folder/f"]);
    assert_eq!(alice.ok(&["cat", "/alice/f"]), "1", "nothing was lost");
}

#[test]
fn errors_are_json_for_scripts() {
    let world = World::new();
    let alice = world.signed_up("alice", "laptop");
    let error = &json_lines(&alice.fails(7, &["--json", "ls", "/alice/none"]))[0]["error"];
    assert_eq!(
        (&error["code"], &error["class"]),
        (&7.into(), &"not-found".into())
    );
    assert!(error["message"].as_str().unwrap().contains("/alice/none"));
}

#[test]
fn nobody_at_the_address_and_somebody_else_at_the_address() {
    let folder = tempfile::tempdir().unwrap();
    let person = Kastro::new(program(), folder.path())
        .with("KASTRO_USER", "alice")
        .with("KASTRO_PASSWORD", "x");
    // A port that no test is given: one that was free a moment ago may be another test's by now.
    let address = "127.0.0.1:1";
    let message = person.fails(10, &["ls", "--server", address]);
    assert!(message.contains("kastro serve"), "{message}");
    // What is wrong is the address of the other node, not of one's own.
    let message = person.fails(10, &["mirror", "allow", address]);
    assert!(message.contains(address), "{message}");
    assert!(
        message.contains("node that is to keep the copy"),
        "{message}"
    );
    assert!(!message.contains("--server"), "{message}");
    person.fails(2, &["ls", "--server", "ftp://x"]);

    // Some other web server.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in other.incoming().flatten() {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>",
                );
            });
        }
    });
    person.fails(11, &["ls", "--server", &address]);
    let message = person.fails(11, &["mirror", "allow", &address]);
    assert!(
        message.contains("node that is to keep the copy"),
        "{message}"
    );
    assert!(!message.contains("--server"), "{message}");
}

#[test]
fn the_quota_ends_an_upload_and_nothing_else() {
    let world = World::with_options(&["--quota", "8M"]);
    let alice = world.signed_up("alice", "laptop");
    write(&world.path("laptop/small"), b"fits");
    // Little more than the quota: after a refusal the node forgets what was pending, and of a larger file the next
    // pieces would use up the day's upload allowance, which is another refusal than the one meant here.
    write(&world.path("laptop/large"), &vec![1; 9 << 20]);
    alice.ok(&["put", "small", "/alice/"]);
    let message = alice.fails(9, &["put", "large", "/alice/"]);
    assert!(message.contains("kastro space"), "{message}");
    assert_eq!(alice.ok(&["cat", "/alice/small"]), "fits");
    assert_eq!(alice.ok(&["ls"]), "small\n");
}

#[test]
fn a_second_node_does_not_disturb_the_first() {
    let world = World::new();
    let alice = world.signed_up("alice", "laptop");
    let second = Kastro::new(program(), &world.path("laptop"));
    let data = world.data();
    second.fails(
        20,
        &["serve", "--listen", "127.0.0.1:0", "--data", text(&data)],
    );
    let other = world.path("other");
    second.fails(
        20,
        &[
            "serve",
            "--listen",
            world.node().authority(),
            "--data",
            text(&other),
        ],
    );
    second.fails(2, &["serve", "--listen", "nonsense"]);
    alice.ok(&["ls"]);
}

#[test]
fn a_damaged_block_is_reported_and_never_served() {
    let mut world = World::new();
    let alice = world.signed_up("alice", "laptop");
    let content: Vec<u8> = (0..3_u32 << 20).map(|i| (i % 249) as u8).collect();
    write(&world.path("laptop/f"), &content);
    write(&world.path("laptop/other"), b"unharmed");
    alice.ok(&["put", "f", "other", "/alice/"]);
    assert!(world.node.take().unwrap().stop());
    let damaged = flip_one_large_block(&world.data());
    assert!(damaged, "a block file was found");
    world.node = Some(NodeProcess::start(program(), &world.data(), &[]));
    let alice = world.person("alice", "laptop");
    let finished = alice.run(&["get", "/alice/f", "out"]);
    assert_eq!(finished.code, Some(12), "{}", finished.stderr);
    assert!(!world.path("laptop/out").exists());
    let left: Vec<_> = std::fs::read_dir(world.path("laptop"))
        .unwrap()
        .flatten()
        .collect();
    assert!(
        left.iter()
            .all(|entry| !entry.file_name().to_string_lossy().contains("part"))
    );
    assert_eq!(alice.ok(&["cat", "/alice/other"]), "unharmed");
}

/// Changes one byte in the middle of a block file.
fn flip_one_large_block(folder: &std::path::Path) -> bool {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if flip_one_large_block(&path) {
                return true;
            }
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        // Block files hold one fragment; the database is recognized by its name.
        let is_database = path.extension().is_some();
        if !is_database && bytes.len() > 900_000 {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            return true;
        }
    }
    false
}
