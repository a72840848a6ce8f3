//! Files and folders, up and down.

use tests::{assert_same, mixed_folder, write};

use crate::{World, json_lines, text};

const LARGE: usize = 12 << 20;

#[test]
fn a_folder_comes_back_byte_for_byte_on_an_empty_machine() {
    let mut world = World::new();
    let person = world.signed_up("alice", "laptop");
    let source = world.path("laptop/Things");
    mixed_folder(&source, LARGE);
    person.ok(&["mkdir", "-p", "/alice/deep/er"]);
    person.ok(&["put", "Things", "/alice/deep/er/"]);

    // The node stops as an operator stops it, and another machine looks.
    assert!(world.node.take().unwrap().stop());
    world.node = Some(tests::NodeProcess::start(
        crate::program(),
        &world.data(),
        &[],
    ));
    let elsewhere = world.person("alice", "phone");
    let copy = world.path("phone/copy");
    elsewhere.ok(&["get", "/alice/deep/er/Things", text(&copy)]);
    assert_same(&source, &copy);

    // Again: everything is there already, on both sides.
    let person = world.person("alice", "laptop");
    let again = json_lines(&elsewhere.ok(&[
        "get",
        "--json",
        "/alice/deep/er/Things",
        text(&world.path("phone")),
    ]));
    assert!(
        again[0]["files"].as_u64().unwrap() > 70,
        "a new folder of that name"
    );
    let third = json_lines(&elsewhere.ok(&[
        "get",
        "--json",
        "/alice/deep/er/Things",
        text(&world.path("phone")),
    ]));
    assert_eq!(
        (&third[0]["files"], &third[0]["bytes"]),
        (&0.into(), &0.into())
    );
    let up = json_lines(&person.ok(&["put", "--json", "Things", "/alice/deep/er/"]));
    assert_eq!((&up[0]["files"], &up[0]["bytes"]), (&0.into(), &0.into()));
}

#[test]
fn listings_tell_names_kinds_sizes_and_times() {
    let world = World::new();
    let person = world.signed_up("alice", "laptop");
    let home = world.path("laptop");
    write(&home.join("d/b.txt"), b"12345");
    write(&home.join("d/\u{e9}t\u{e9}/x"), b"1");
    person.ok(&["put", "d", "/alice/"]);
    assert_eq!(person.ok(&["ls", "/alice/d"]), "b.txt\n\u{e9}t\u{e9}/\n");
    assert_eq!(
        person.ok(&["ls", "d"]),
        "b.txt\n\u{e9}t\u{e9}/\n",
        "own folder is implied"
    );
    let long = person.ok(&["ls", "-l", "/alice/d"]);
    assert!(long.contains("5 B") && long.contains("b.txt"), "{long}");
    let rows = json_lines(&person.ok(&["ls", "-R", "--json", "/alice/d"]));
    let names: Vec<_> = rows
        .iter()
        .map(|row| row["path"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "/alice/d/b.txt",
            "/alice/d/\u{e9}t\u{e9}",
            "/alice/d/\u{e9}t\u{e9}/x"
        ]
    );
    let stat = &json_lines(&person.ok(&["stat", "--json", "/alice/d/b.txt"]))[0];
    assert_eq!((&stat["size"], &stat["type"]), (&5.into(), &"file".into()));
    assert!(stat["modified"].as_str().unwrap().starts_with("20"));
    assert!(person.ok(&["stat", "/alice/d"]).contains("folder"));
    // The account's own machinery is hidden, not gone.
    assert!(!person.ok(&["ls"]).contains(".transactions"));
    assert!(person.ok(&["ls", "-a"]).contains(".transactions/"));
}

#[test]
fn parts_of_files_are_printed() {
    let world = World::new();
    let person = world.signed_up("alice", "laptop");
    let content: Vec<u8> = (0..11_u32 << 20).map(|i| (i % 251) as u8).collect();
    write(&world.path("laptop/f"), &content);
    person.ok(&["put", "f", "/alice/f"]);
    assert_eq!(person.run(&["cat", "/alice/f"]).stdout, content);
    let chunk = 5 << 20;
    for (offset, length) in [
        (0, 1),
        (chunk - 2, 4),
        (2 * chunk - 1, 1 << 20),
        (100, 6 << 20),
    ] {
        let part = person.run(&[
            "cat",
            "/alice/f",
            "--offset",
            &offset.to_string(),
            "--length",
            &length.to_string(),
        ]);
        let end = (offset + length).min(content.len());
        assert!(part.stdout == content[offset..end], "{offset} {length}");
    }
    let tail = person.run(&["cat", "/alice/f", "--offset=-3"]);
    assert_eq!(tail.stdout, content[content.len() - 3..]);
    assert!(
        person
            .run(&["cat", "/alice/f", "--offset", "999999999"])
            .stdout
            .is_empty()
    );
}

#[test]
fn streams_go_up_from_standard_input() {
    let world = World::new();
    let person = world.signed_up("alice", "laptop");
    for bytes in [0, 10, 6 << 20] {
        let content = vec![7; bytes];
        let name = format!("/alice/stream-{bytes}");
        let put = person.run_with_input(&["put", "-", &name], &content);
        assert_eq!(put.code, Some(0), "{}", put.stderr);
        assert!(person.run(&["get", &name, "-"]).stdout == content);
    }
    person.fails(2, &["put", "-", "/alice/"]);
}

#[test]
fn moving_copying_and_deleting() {
    let world = World::new();
    let person = world.signed_up("alice", "laptop");
    write(&world.path("laptop/d/a"), b"aaa");
    write(&world.path("laptop/d/sub/b"), &vec![1; 6 << 20]);
    person.ok(&["put", "d", "/alice/"]);
    person.ok(&["mv", "/alice/d/a", "/alice/d/c"]);
    person.ok(&["mv", "/alice/d/c", "/alice/d/sub"]);
    assert_eq!(person.ok(&["cat", "/alice/d/sub/c"]), "aaa");
    person.fails(8, &["cp", "/alice/d", "/alice/e"]);
    person.ok(&["cp", "-r", "/alice/d", "/alice/e"]);
    person.fails(8, &["rm", "/alice/d"]);
    person.ok(&["rm", "-r", "/alice/d"]);
    person.fails(7, &["ls", "/alice/d"]);
    assert_eq!(person.ok(&["cat", "/alice/e/sub/c"]), "aaa");
    assert_eq!(
        person.run(&["cat", "/alice/e/sub/b"]).stdout,
        vec![1; 6 << 20]
    );
    person.fails(7, &["rm", "/alice/none"]);
    person.ok(&["rm", "-f", "/alice/none"]);
    person.fails(8, &["mv", "/alice/e", "/alice/e/sub"]);
}

#[test]
fn existing_files_are_left_alone_unless_told() {
    let world = World::new();
    let person = world.signed_up("alice", "laptop");
    let file = world.path("laptop/a");
    write(&file, b"first");
    person.ok(&["put", "a", "/alice/a"]);
    write(&file, b"second version");
    let message = person.fails(8, &["put", "a", "/alice/a"]);
    assert!(message.contains("--force"), "{message}");
    assert_eq!(person.ok(&["cat", "/alice/a"]), "first");
    let message = person.fails(8, &["get", "/alice/a", text(&file)]);
    assert!(message.contains("--force"), "{message}");
    assert_eq!(std::fs::read(&file).unwrap(), b"second version");
    person.ok(&["put", "--force", "a", "/alice/a"]);
    assert_eq!(person.ok(&["cat", "/alice/a"]), "second version");
    write(&file, b"local change");
    person.ok(&["get", "-f", "/alice/a", text(&file)]);
    assert_eq!(std::fs::read(&file).unwrap(), b"second version");
}

#[test]
fn what_cannot_be_read_is_reported_and_the_rest_goes_up() {
    let world = World::new();
    let person = world.signed_up("alice", "laptop");
    let folder = world.path("laptop/d");
    write(&folder.join("good"), b"g");
    write(&world.path("laptop/outside"), b"o");
    std::os::unix::fs::symlink("good", folder.join("inside-link")).unwrap();
    std::os::unix::fs::symlink("../outside", folder.join("outside-link")).unwrap();
    let put = person.run(&["put", "d", "/alice/"]);
    assert_eq!(put.code, Some(3), "{}", put.stderr);
    assert!(
        put.stderr.contains("outside-link") && put.stderr.contains("--links"),
        "{}",
        put.stderr
    );
    assert_eq!(person.ok(&["ls", "/alice/d"]), "good\ninside-link\n");
    person.ok(&["put", "--links", "follow", "d", "/alice/"]);
    assert_eq!(person.ok(&["cat", "/alice/d/outside-link"]), "o");
}

#[test]
fn a_data_folder_works_without_a_node() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let person = tests::Kastro::new(crate::program(), folder.path())
        .with("KASTRO_LOCAL", text(&data))
        .with("KASTRO_USER", "alice")
        .with("KASTRO_PASSWORD", "a password");
    person.fails(16, &["ls"]);
    person.ok(&["signup", "--no-session"]);
    write(&folder.path().join("a"), b"content");
    person.ok(&["put", "a", "/alice/"]);
    assert_eq!(person.ok(&["cat", "a"]), "content");
    // A node on the same folder serves the same files, and keeps others out meanwhile.
    let node = tests::NodeProcess::start(crate::program(), &data, &[]);
    let message = person.fails(20, &["ls"]);
    assert!(message.contains("in use"), "{message}");
    let remote = tests::Kastro::new(crate::program(), folder.path())
        .with("KASTRO_SERVER", node.url())
        .with("KASTRO_USER", "alice")
        .with("KASTRO_PASSWORD", "a password");
    assert_eq!(remote.ok(&["cat", "a"]), "content");
}

#[test]
fn a_file_is_changed_in_place() {
    let world = World::new();
    let person = world.signed_up("alice", "laptop");
    let home = world.path("laptop");
    let mut expected = vec![7; 6 << 20];
    write(&home.join("disk"), &expected);
    person.ok(&["put", "disk", "/alice/"]);
    let file = "/alice/disk";
    let change = |arguments: &[&str], input: &[u8]| {
        let finished = person.run_with_input(arguments, input);
        assert_eq!(finished.code, Some(0), "{}", finished.stderr);
    };
    change(&["write", "--offset", "3", file], b"abc");
    expected[3..6].copy_from_slice(b"abc");
    change(&["write", "--append", file], b"the end");
    expected.extend_from_slice(b"the end");
    let end = expected.len();
    change(&["write", "--offset", &(end + 4).to_string(), file], b"!");
    expected.extend_from_slice(b"\0\0\0\0!");
    change(&["write", "-a", file, "-"], b"");
    let copy = home.join("copy");
    person.ok(&["get", file, text(&copy)]);
    assert!(std::fs::read(&copy).unwrap() == expected);
    // From a file of more than one step.
    let large = vec![9; (10 << 20) + 1];
    write(&home.join("large"), &large);
    person.ok(&["truncate", "--size", "1K", file]);
    person.ok(&["write", "--append", file, "large"]);
    expected.truncate(1024);
    expected.extend_from_slice(&large);
    person.ok(&["get", "--force", file, text(&copy)]);
    assert!(std::fs::read(&copy).unwrap() == expected);
    person.fails(2, &["write", file]);
    person.fails(2, &["write", "--append", "--offset", "1", file]);
    person.fails(7, &["truncate", "--size", "0", "/alice/nothing"]);
    person.fails(8, &["truncate", "--size", "0", "/alice"]);
}

#[test]
fn a_killed_download_goes_on_within_the_file() {
    let world = World::new();
    let person = world.signed_up("alice", "laptop");
    let content: Vec<u8> = (0..(22_u32 << 20)).map(|i| (i % 249) as u8).collect();
    write(&world.path("laptop/film"), &content);
    person.ok(&["put", "film", "/alice/film"]);
    let phone = world.person("alice", "phone");
    let copy = world.path("phone/film");
    let part = || {
        let entries = std::fs::read_dir(world.path("phone")).unwrap().flatten();
        let mut parts = entries.filter(|e| e.file_name().to_string_lossy().contains("kastro-part"));
        parts.next().map(|entry| entry.path())
    };
    let mut get = phone
        .command(&["get", "--limit", "6M", "/alice/film"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while part().is_none_or(|part| part.metadata().is_ok_and(|found| found.len() < 10 << 20)) {
        assert!(std::time::Instant::now() < deadline, "nothing arrives");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    get.kill().unwrap();
    get.wait().unwrap();
    assert!(!copy.exists());
    // A bit that fell over meanwhile is noticed.
    let part = part().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&part.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "fs-4: nobody else reads along");
    let mut found = std::fs::read(&part).unwrap();
    found[6 << 20] ^= 1;
    std::fs::write(&part, &found).unwrap();
    phone.ok(&["get", "/alice/film"]);
    assert!(std::fs::read(&copy).unwrap() == content);
    let left = std::fs::read_dir(world.path("phone")).unwrap().flatten();
    assert!(
        !left
            .into_iter()
            .any(|e| e.file_name().to_string_lossy().contains("kastro-part"))
    );
}

#[test]
fn an_upload_goes_on_from_another_machine() {
    let world = World::new();
    let person = world.signed_up("alice", "laptop");
    let content: Vec<u8> = (0..(64_u32 << 20)).map(|i| (i % 247) as u8).collect();
    for machine in ["laptop", "phone"] {
        let film = world.path(machine).join("film");
        write(&film, &content);
        let time =
            std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        std::fs::File::options()
            .write(true)
            .open(&film)
            .unwrap()
            .set_modified(time)
            .unwrap();
    }
    std::fs::create_dir_all(world.path("watcher")).unwrap();
    let watcher = tests::Kastro::new(crate::program(), &world.path("watcher"));
    watcher
        .clone()
        .with("KASTRO_SERVER", world.node().url())
        .with("KASTRO_PASSWORD", "the password of alice")
        .ok(&["login", "alice"]);
    let mut put = person
        .command(&["put", "--limit", "12M", "film", "/alice/film"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // The first group of eight chunks is there, and the second under way.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while space_used(&watcher) < 40 << 20 {
        assert!(std::time::Instant::now() < deadline && put.try_wait().unwrap().is_none());
    }
    put.kill().unwrap();
    put.wait().unwrap();
    person.fails(7, &["stat", "/alice/film"]);
    let phone = world.person("alice", "phone");
    let before = space_used(&phone);
    phone.ok(&["put", "film", "/alice/film"]);
    // What was there was not stored again.
    assert!(space_used(&phone) < before + (40 << 20), "sent again");
    assert!(phone.run(&["get", "/alice/film", "-"]).stdout == content);
}

fn space_used(person: &tests::Kastro) -> u64 {
    json_lines(&person.ok(&["space", "--json"]))[0]["used_bytes"]
        .as_u64()
        .unwrap()
}
