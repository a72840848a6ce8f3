//! The shell from a pipe, looking at whole trees, and working without the node.

use std::{fs, path::Path};

use tests::{Kastro, write};

use crate::{World, json_lines, text};

#[test]
fn a_script_has_a_current_folder_and_stops_at_a_failure() {
    let world = World::new();
    let person = world.signed_up("alice", "laptop");
    write(&world.path("laptop/my notes.txt"), b"some notes");
    let script = b"\
        # a comment\n\
        mkdir -p 'docs/new folder'\n\
        cd docs/new\\ folder\n\
        put 'my notes.txt' .\n\
        pwd\n\
        ls\n\
        cat 'my notes.txt'\n\
        cd ..\n\
        mv 'new folder' renamed\n\
        ls /alice/docs\n\
        find -n '*.txt'\n\
        lcd /\n\
        lpwd\n\
        exit\n\
        rm -r /alice/docs\n";
    let run = person.run_with_input(&["shell"], script);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert_eq!(
        run.text(),
        "/alice/docs/new folder\nmy notes.txt\nsome notesrenamed/\n/alice/docs/renamed/my notes.txt\n/\n"
    );
    let run = person.run_with_input(&["shell"], b"cd nowhere\nrm -r docs\n");
    assert_eq!(run.code, Some(7), "{}", run.stderr);
    let run = person.run_with_input(&["shell", "-k"], b"cd nowhere\nserve\n'open\npwd\n");
    assert_eq!(
        (run.code, run.text().as_str()),
        (Some(3), "/alice\n"),
        "{}",
        run.stderr
    );
    let run = person.run_with_input(&["shell"], b"help\nhelp put\n");
    assert!(
        run.text().contains("lcd") && run.text().contains("--force"),
        "{}",
        run.stderr
    );
    assert_eq!(person.ok(&["ls", "docs"]), "renamed/\n");
}

#[test]
fn trees_are_summed_searched_and_drawn() {
    let world = World::new();
    let person = world.signed_up("alice", "laptop");
    for (name, bytes) in [
        ("d/a.txt", 10),
        ("d/B.TXT", 2000),
        ("d/sub/c.jpg", 300),
        ("d/sub/deep/x", 0),
    ] {
        write(&world.path("laptop").join(name), &vec![1; bytes]);
    }
    person.ok(&["put", "d", "/alice/"]);
    let sums = json_lines(&person.ok(&["du", "--json", "d"]));
    assert_eq!(sums[0]["path"], "/alice/d/sub");
    assert_eq!(
        (&sums[0]["bytes"], &sums[1]["bytes"], &sums[1]["files"]),
        (&300.into(), &2310.into(), &4.into())
    );
    let find = |options: &[&str]| {
        let mut arguments = vec!["find"];
        arguments.extend(options);
        arguments.push("d");
        let found = person.ok(&arguments);
        let mut lines: Vec<String> = found
            .lines()
            .map(|line| line.replace("/alice/d/", ""))
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(find(&["--name", "*.txt"]), ["a.txt"]);
    assert_eq!(find(&["--iname", "*.txt"]), ["B.TXT", "a.txt"]);
    assert_eq!(find(&["-t", "folder"]), ["sub/", "sub/deep/"]);
    assert_eq!(find(&["--larger", "100", "--smaller", "1K"]), ["sub/c.jpg"]);
    assert_eq!(find(&["-t", "file", "--newer", "1d"]).len(), 4);
    assert!(find(&["--older", "1d"]).is_empty());
    person.fails(2, &["find", "--newer", "tomorrow", "d"]);
    person.fails(2, &["find", "--name", "[z-a]", "d"]);
    let tree = person.ok(&["tree", "d"]);
    assert_eq!(
        tree,
        "/alice/d\n\u{251c}\u{2500}\u{2500} B.TXT\n\u{251c}\u{2500}\u{2500} a.txt\n\u{2514}\u{2500}\u{2500} sub/\n    \
         \u{251c}\u{2500}\u{2500} c.jpg\n    \u{2514}\u{2500}\u{2500} deep/\n        \u{2514}\u{2500}\u{2500} x\n"
    );
    assert_eq!(person.ok(&["tree", "-d", "1", "d"]).lines().count(), 4);
}

/// A person who stays logged in, without a password in the environment.
fn logged_in(world: &World) -> Kastro {
    world.person("alice", "laptop").ok(&["signup"]);
    Kastro::new(crate::program(), &world.path("laptop"))
}

#[test]
fn what_was_read_can_be_read_without_the_node() {
    let mut world = World::new();
    let person = logged_in(&world);
    for name in ["seen", "unseen"] {
        write(
            &world.path("laptop/d").join(name),
            name.repeat(2000).as_bytes(),
        );
    }
    person.ok(&["put", "d", "/alice/"]);
    let listed = person.ok(&["ls", "-l", "d"]);
    let content = person.ok(&["cat", "d/seen"]);
    world.node.take().unwrap().kill();
    person.fails(10, &["ls", "d"]);
    assert_eq!(person.ok(&["ls", "-l", "--offline", "d"]), listed);
    assert_eq!(person.ok(&["cat", "--offline", "d/seen"]), content);
    let message = person.fails(10, &["cat", "--offline", "d/unseen"]);
    assert!(message.contains("--offline asks no node"), "{message}");
    person.fails(10, &["rm", "--offline", "d/seen"]);
    // Encrypted, as the node had it.
    let cache = world.path("laptop/.config/kastro/cache");
    assert!(!holds(&cache, b"seenseen"), "the cache tells what was read");
    let stranger = Kastro::new(crate::program(), &world.path("laptop/d"));
    stranger.fails(17, &["ls", "--offline"]);
}

fn holds(folder: &Path, needle: &[u8]) -> bool {
    fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds(&path, needle);
        }
        let content = fs::read(&path).unwrap();
        content.windows(needle.len()).any(|window| window == needle)
    })
}

#[test]
fn a_node_that_went_back_in_time_is_noticed_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let at_data = Kastro::new(crate::program(), folder.path()).with("KASTRO_LOCAL", text(&data));
    at_data
        .clone()
        .with("KASTRO_PASSWORD", "a password")
        .ok(&["signup", "alice"]);
    write(&folder.path().join("a"), b"1");
    at_data.ok(&["put", "a", "/alice/"]);
    let copied = std::process::Command::new("cp")
        .args(["-a", text(&data), text(&folder.path().join("old"))])
        .status();
    assert!(copied.unwrap().success());
    at_data.ok(&["put", "a", "/alice/b"]);
    assert_eq!(at_data.ok(&["ls"]), "a\nb\n");
    fs::remove_dir_all(&data).unwrap();
    fs::rename(folder.path().join("old"), &data).unwrap();
    at_data.fails(13, &["ls"]);
}

#[test]
fn a_limit_makes_transfers_slow() {
    let world = World::new();
    let person = world.signed_up("alice", "laptop");
    write(&world.path("laptop/f"), &vec![1; 200_000]);
    let run = person.run(&["put", "--limit", "100K", "f", "/alice/"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(run.took.as_millis() >= 1900, "{:?}", run.took);
}
