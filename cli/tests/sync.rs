//! Two machines and one account, kept the same.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tests::{Kastro, assert_same, mixed_folder, write};

use crate::{World, json_lines, text};

const REMOTE: &str = "/alice/docs";

/// A machine with a folder `docs`.
struct Machine {
    person: Kastro,
    docs: PathBuf,
}

impl Machine {
    fn new(world: &World, name: &str) -> Self {
        let person = world.person("alice", name);
        let docs = world.path(name).join("docs");
        fs::create_dir_all(&docs).unwrap();
        Self { person, docs }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.docs.join(path)
    }

    fn write(&self, path: &str, content: &str) {
        write(&self.at(path), content.as_bytes());
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    fn arguments<'a>(&self, options: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = vec!["sync", "--json", "--device", "machine"];
        arguments.extend(options);
        arguments.extend(["docs", REMOTE]);
        arguments
    }

    /// Synchronizes and returns the summary.
    #[track_caller]
    fn sync(&self, options: &[&str]) -> serde_json::Value {
        let printed = self.person.ok(&self.arguments(options));
        json_lines(&printed).pop().unwrap()
    }

    #[track_caller]
    fn idle(&self) {
        let summary = self.sync(&[]);
        for count in [
            "uploaded",
            "downloaded",
            "moved",
            "deleted_here",
            "deleted_there",
        ] {
            assert_eq!(summary[count], 0, "{summary}");
        }
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.docs).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn world() -> (World, Machine, Machine) {
    let world = World::new();
    world.signed_up("alice", "laptop");
    let laptop = Machine::new(&world, "laptop");
    let desktop = Machine::new(&world, "desktop");
    (world, laptop, desktop)
}

#[test]
fn everything_goes_there_and_comes_back_the_same() {
    let (_world, laptop, desktop) = world();
    mixed_folder(&laptop.docs, 12 << 20);
    let dry = laptop.person.ok(&["sync", "-n", "docs", REMOTE]);
    assert!(dry.contains("upload       text/plain.txt"), "{dry}");
    laptop.person.fails(7, &["ls", REMOTE]);
    let up = laptop.sync(&[]);
    assert!(up["uploaded"].as_u64().unwrap() > 70, "{up}");
    laptop.idle();
    let down = desktop.sync(&[]);
    assert_eq!(down["downloaded"], up["uploaded"]);
    assert_same(&laptop.docs, &desktop.docs);
    let time = |machine: &Machine| {
        fs::metadata(machine.at("chunk+1"))
            .unwrap()
            .modified()
            .unwrap()
    };
    assert_eq!(time(&laptop), time(&desktop));
    desktop.idle();
    laptop.idle();
}

#[test]
fn changes_deletions_and_renames_travel_both_ways() {
    let (_world, laptop, desktop) = world();
    for name in ["a", "b", "c", "old/one", "old/two", "gone/x", "gone/y/z"] {
        laptop.write(name, &format!("content of {name}"));
    }
    laptop.sync(&[]);
    desktop.sync(&[]);
    laptop.sync(&[]);

    laptop.write("a", "changed on the laptop");
    fs::rename(laptop.at("old"), laptop.at("new")).unwrap();
    fs::rename(laptop.at("b"), laptop.at("new/b")).unwrap();
    fs::remove_dir_all(laptop.at("gone")).unwrap();
    desktop.write("c", "changed on the desktop");
    desktop.write("fresh", "made on the desktop");

    let here = laptop.sync(&[]);
    assert_eq!(
        (&here["moved"], &here["uploaded"]),
        (&2.into(), &1.into()),
        "{here}"
    );
    let there = desktop.sync(&[]);
    assert_eq!(there["moved"], 2, "{there}");
    assert_eq!(
        (&there["downloaded"], &there["uploaded"]),
        (&1.into(), &2.into()),
        "{there}"
    );
    laptop.sync(&[]);
    assert_same(&laptop.docs, &desktop.docs);
    assert_eq!(laptop.names(), ["a", "c", "fresh", "new"]);
    assert_eq!(laptop.read("c"), "changed on the desktop");
    assert_eq!(desktop.read("new/b"), "content of b");
    laptop.idle();
    desktop.idle();
}

#[test]
fn what_changed_on_both_sides_is_kept_twice() {
    let (_world, laptop, desktop) = world();
    for name in ["both.txt", "deleted here", "deleted there", "same"] {
        laptop.write(name, "first");
    }
    laptop.sync(&[]);
    desktop.sync(&[]);

    laptop.write("both.txt", "by the laptop");
    laptop.write("deleted there", "changed by the laptop");
    fs::remove_file(laptop.at("deleted here")).unwrap();
    desktop.write("both.txt", "by the desktop!");
    desktop.write("deleted here", "changed by the desktop");
    fs::remove_file(desktop.at("deleted there")).unwrap();
    for machine in [&laptop, &desktop] {
        machine.write("same", "the same on both");
    }

    laptop.sync(&[]);
    let second = desktop.sync(&[]);
    assert_eq!(second["conflicts"], 1, "{second}");
    laptop.sync(&[]);
    assert_same(&laptop.docs, &desktop.docs);
    let names = laptop.names();
    assert_eq!(names.len(), 5, "{names:?}");
    let copy = &names[0];
    assert!(
        copy.starts_with("both (conflict 20") && copy.ends_with(" machine).txt"),
        "{copy}"
    );
    assert_eq!(laptop.read(copy), "by the desktop!");
    assert_eq!(laptop.read("both.txt"), "by the laptop");
    assert_eq!(desktop.read("deleted here"), "changed by the desktop");
    assert_eq!(desktop.read("deleted there"), "changed by the laptop");
    laptop.idle();
    desktop.idle();
}

#[test]
fn fs_10_an_empty_or_missing_folder_deletes_nothing() {
    let (_world, laptop, desktop) = world();
    for name in ["a", "b/c"] {
        laptop.write(name, name);
    }
    laptop.sync(&[]);
    desktop.sync(&[]);
    // As an unmounted disk looks.
    let aside = laptop.docs.with_file_name("aside");
    fs::rename(&laptop.docs, &aside).unwrap();
    let message = laptop.person.fails(16, &laptop.arguments(&[]));
    assert!(message.contains("mounted"), "{message}");
    fs::create_dir(&laptop.docs).unwrap();
    let message = laptop.person.fails(21, &laptop.arguments(&[]));
    assert!(message.contains("--allow-delete-all"), "{message}");
    assert_eq!(laptop.person.ok(&["ls", REMOTE]), "a\nb/\n");
    fs::remove_dir(&laptop.docs).unwrap();
    fs::rename(&aside, &laptop.docs).unwrap();
    laptop.idle();
    // And the other way round.
    laptop.person.ok(&["rm", "-r", REMOTE]);
    desktop.person.fails(21, &desktop.arguments(&[]));
    assert_eq!(desktop.read("b/c"), "b/c");
    // Meant.
    let summary = desktop.sync(&["--allow-delete-all"]);
    assert_eq!(summary["deleted_here"], 3, "{summary}");
    assert!(desktop.names().is_empty());
}

#[test]
fn one_way_leaves_the_other_side_alone() {
    let (_world, laptop, desktop) = world();
    for name in ["a", "b", "c"] {
        laptop.write(name, "first");
    }
    laptop.sync(&["--up"]);
    desktop.sync(&["--down"]);
    desktop.write("a", "desktop");
    desktop.write("only here", "desktop");
    fs::remove_file(desktop.at("b")).unwrap();
    laptop.write("c", "laptop");
    laptop.sync(&["--up"]);
    let summary = desktop.sync(&["--down"]);
    assert_eq!(
        (&summary["downloaded"], &summary["uploaded"]),
        (&1.into(), &0.into()),
        "{summary}"
    );
    assert_eq!(laptop.person.ok(&["ls", REMOTE]), "a\nb\nc\n");
    assert_eq!(laptop.person.ok(&["cat", "/alice/docs/a"]), "first");
    // What waited goes when it may.
    desktop.sync(&[]);
    assert_eq!(laptop.person.ok(&["ls", REMOTE]), "a\nc\nonly here\n");
    let summary = laptop.sync(&["--up"]);
    assert_eq!(summary["downloaded"], 0, "{summary}");
    assert_eq!(laptop.read("a"), "first");
    laptop.sync(&[]);
    assert_same(&laptop.docs, &desktop.docs);
}

#[test]
fn fs_5_what_is_ignored_or_no_file_takes_no_part() {
    let (_world, laptop, desktop) = world();
    // A link out of the folder, one in a circle, a pipe that nobody reads, and a socket.
    let outside = laptop.docs.with_file_name("outside");
    fs::create_dir_all(&outside).unwrap();
    write(&outside.join("secret"), b"secret");
    fs::create_dir_all(laptop.at("special")).unwrap();
    std::os::unix::fs::symlink(&outside, laptop.at("special/out")).unwrap();
    std::os::unix::fs::symlink("..", laptop.at("special/circle")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        laptop.at("special/pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(laptop.at("special/socket")).unwrap();
    laptop.write(".kastroignore", "*.tmp\nbuild/\n");
    laptop.write("a.tmp", "1");
    laptop.write("build/x", "1");
    laptop.write("kept/a.txt", "1");
    laptop.write("kept/a.tmp", "1");
    std::os::unix::fs::symlink("kept", laptop.at("link")).unwrap();
    let run = laptop.person.run(&["sync", "docs", REMOTE]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(
        run.stderr.contains("link: left out: it is a symbolic link"),
        "{}",
        run.stderr
    );
    for name in ["out", "circle", "pipe", "socket"] {
        let told = format!("special/{name}: left out");
        assert!(run.stderr.contains(&told), "{told}: {}", run.stderr);
    }
    desktop.sync(&[]);
    assert_eq!(desktop.names(), [".kastroignore", "kept", "special"]);
    assert_eq!(fs::read_dir(desktop.at("special")).unwrap().count(), 0);
    // A folder that somebody deletes elsewhere stays where it holds something of its own.
    fs::remove_dir_all(desktop.at("kept")).unwrap();
    desktop.sync(&[]);
    laptop.sync(&[]);
    assert_eq!(fs::read_dir(laptop.at("kept")).unwrap().count(), 1);
    laptop.idle();
    desktop.idle();
    // A link in place of a file is not a deletion.
    laptop.write("file", "precious");
    laptop.sync(&[]);
    fs::remove_file(laptop.at("file")).unwrap();
    std::os::unix::fs::symlink("nowhere", laptop.at("file")).unwrap();
    laptop.idle();
    assert_eq!(laptop.person.ok(&["cat", "/alice/docs/file"]), "precious");
}

#[test]
fn a_killed_run_goes_on() {
    let (world, laptop, desktop) = world();
    mixed_folder(&laptop.docs, 24 << 20);
    let before = size_of(&world.data());
    let mut run = laptop
        .person
        .command(&laptop.arguments(&[]))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while size_of(&world.data()) < before + (8 << 20) && run.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "nothing arrives");
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = run.kill();
    let _ = run.wait();
    let summary = laptop.sync(&[]);
    assert_eq!(
        (&summary["conflicts"], &summary["problems"]),
        (&0.into(), &0.into()),
        "{summary}"
    );
    desktop.sync(&[]);
    assert_same(&laptop.docs, &desktop.docs);
    // Without the state everything is compared, and nothing kept twice.
    fs::remove_dir_all(world.path("desktop/.config/kastro/sync")).unwrap();
    let summary = desktop.sync(&[]);
    assert_eq!(
        (
            &summary["downloaded"],
            &summary["uploaded"],
            &summary["conflicts"]
        ),
        (&0.into(), &0.into(), &0.into()),
        "{summary}"
    );
}

#[test]
fn the_disk_keeps_what_is_to_stay_free() {
    let (_world, laptop, desktop) = world();
    laptop.write("a", "content");
    laptop.sync(&[]);
    let run = desktop
        .person
        .run(&desktop.arguments(&["--keep-free", "4000000T"]));
    assert_eq!(run.code, Some(3), "{}", run.stderr);
    assert!(run.stderr.contains("not downloaded"), "{}", run.stderr);
    assert!(desktop.names().is_empty());
    desktop.sync(&["--keep-free", "1"]);
    assert_eq!(desktop.read("a"), "content");
}

#[test]
fn two_watching_machines_follow_each_other() {
    let (_world, laptop, desktop) = world();
    laptop.write("first", "1");
    let watching: Vec<_> = [&laptop, &desktop]
        .iter()
        .map(|machine| {
            let mut command = machine
                .person
                .command(&machine.arguments(&["--watch", "--poll", "1"]));
            Running(
                command
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap(),
            )
        })
        .collect();
    wait_for("the first file", || desktop.at("first").exists());
    desktop.write("new folder/second", "2");
    wait_for("the second file", || {
        fs::read(laptop.at("new folder/second")).is_ok_and(|content| content == b"2")
    });
    laptop.write("new folder/third", "3");
    fs::remove_file(laptop.at("first")).unwrap();
    wait_for("what follows", || {
        !desktop.at("first").exists() && desktop.at("new folder/third").exists()
    });
    drop(watching);
}

struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !is_so() {
        assert!(Instant::now() < deadline, "{what} does not arrive");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => size_of(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0,
        })
        .sum()
}

#[test]
fn a_data_folder_without_a_node_is_synchronized_too() {
    let folder = tempfile::tempdir().unwrap();
    let person = Kastro::new(crate::program(), folder.path())
        .with("KASTRO_LOCAL", text(&folder.path().join("data")))
        .with("KASTRO_USER", "alice")
        .with("KASTRO_PASSWORD", "a password");
    person.ok(&["signup", "--no-session"]);
    write(&folder.path().join("docs/a/b"), b"content");
    person.ok(&["sync", "docs", REMOTE]);
    assert_eq!(person.ok(&["cat", "docs/a/b"]), "content");
    person.ok(&["sync", "copy", REMOTE]);
    assert_same(&folder.path().join("docs"), &folder.path().join("copy"));
}

#[test]
fn fs_6_a_home_folder_is_not_synchronized_by_mistake() {
    let (world, laptop, desktop) = world();
    laptop.write(".bashrc", "echo from the laptop");
    laptop.write("desktop.ini", "ordinary");
    laptop.sync(&[]);
    let home = world.path("desktop");
    fs::create_dir_all(home.join("below")).unwrap();
    for folder in [".", "..", "below/.."] {
        let message = desktop.person.fails(21, &["sync", folder, REMOTE]);
        assert!(message.contains("--allow-home"), "{folder}: {message}");
    }
    assert!(!home.join(".bashrc").exists());
    // Elsewhere such names are names like others, and what is made runs nothing and belongs to its owner.
    desktop.sync(&[]);
    assert_eq!(desktop.read(".bashrc"), "echo from the laptop");
    use std::os::unix::fs::PermissionsExt as _;
    for name in [".bashrc", "desktop.ini"] {
        let mode = fs::metadata(desktop.at(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7133, 0, "{name}: {mode:o}");
    }
}

#[test]
fn fs_3_folders_that_lie_too_deep_are_told_and_the_rest_goes_on() {
    let (_world, laptop, _desktop) = world();
    laptop.write("a", "a");
    laptop.sync(&[]);
    // Few characters, many bytes: the account takes it, no path of this system does.
    let deep = vec!["\u{65e5}".repeat(80); 30].join("/");
    laptop
        .person
        .ok(&["mkdir", "-p", &format!("/alice/docs/{deep}")]);
    laptop.write("b", "b");
    let run = laptop.person.run(&["sync", "docs", REMOTE]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    assert!(
        run.stderr.contains("too long for this machine"),
        "{}",
        run.stderr
    );
    assert_eq!(laptop.person.ok(&["cat", "/alice/docs/b"]), "b");
    laptop.idle();
}

#[test]
fn fs_10_a_clock_that_jumps_ten_years_deletes_and_doubles_nothing() {
    let (_world, laptop, desktop) = world();
    for name in ["a", "b", "c/d"] {
        laptop.write(name, name);
    }
    laptop.sync(&[]);
    desktop.sync(&[]);
    let ten_years = Duration::from_secs(10 * 365 * 86_400);
    let now = std::time::SystemTime::now();
    for time in [now + ten_years, now - ten_years] {
        for name in ["a", "b", "c/d"] {
            let file = fs::File::options().write(true).open(laptop.at(name));
            file.unwrap().set_modified(time).unwrap();
        }
        let summary = laptop.sync(&[]);
        for count in ["deleted_here", "deleted_there", "conflicts", "problems"] {
            assert_eq!(summary[count], 0, "{count}: {summary}");
        }
        desktop.sync(&[]);
        for name in ["a", "b", "c/d"] {
            assert_eq!(
                (laptop.read(name), desktop.read(name)),
                (name.into(), name.into())
            );
        }
        // An edit on the other machine, whose clock is right, is still the newer one.
        desktop.write("a", "a");
        desktop.sync(&[]);
        laptop.sync(&[]);
    }
    assert_same(&laptop.docs, &desktop.docs);
}

#[test]
fn fs_3_names_that_are_too_long_for_the_disk_are_shortened_here_and_kept_there() {
    let (_world, laptop, desktop) = world();
    // 255 characters of 3 bytes: more than any file system takes.
    let long = |end: &str| "\u{65e5}".repeat(255 - end.len()) + end;
    let names = [long("1.txt"), long("2.txt"), long("")];
    laptop.person.ok(&["mkdir", REMOTE]);
    for name in &names {
        let path = format!("/alice/docs/{name}");
        let run = laptop
            .person
            .run_with_input(&["put", "-", &path], name.as_bytes());
        assert_eq!(run.code, Some(0), "{}", run.stderr);
    }
    let folder = format!("/alice/docs/{}", long("d"));
    laptop.person.ok(&["mkdir", &folder]);
    let run = laptop
        .person
        .run_with_input(&["put", "-", &format!("{folder}/inner")], b"inner");
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let listed = laptop.person.ok(&["ls", REMOTE]);
    let summary = laptop.sync(&[]);
    assert_eq!(summary["downloaded"], 4, "{summary}");
    assert_eq!(summary["problems"], 0, "{summary}");
    let locals = laptop.names();
    assert_eq!(locals.len(), 4, "{locals:?}");
    for name in &names {
        let found = locals
            .iter()
            .find(|local| laptop.at(local).is_file() && laptop.read(local) == *name);
        let local = found.unwrap_or_else(|| panic!("{locals:?}"));
        assert!(
            local.len() <= 255 && local.starts_with("\u{65e5}"),
            "{local}"
        );
    }
    laptop.idle();
    // A change of either side finds its way, and the name stays what it was.
    let local = locals.iter().find(|local| local.ends_with(".txt")).unwrap();
    laptop.write(local, "changed");
    let summary = laptop.sync(&[]);
    assert_eq!(summary["uploaded"], 1, "{summary}");
    assert_eq!(laptop.person.ok(&["ls", REMOTE]), listed);
    desktop.sync(&[]);
    assert_same(&laptop.docs, &desktop.docs);
    // Without the state, too: nothing is doubled.
    let state = laptop.docs.with_file_name(".config").join("kastro/sync");
    fs::remove_dir_all(&state).unwrap();
    let summary = laptop.sync(&[]);
    assert_eq!(
        (
            &summary["uploaded"],
            &summary["conflicts"],
            &summary["deleted_there"]
        ),
        (&0.into(), &0.into(), &0.into()),
        "{summary}"
    );
    assert_eq!(laptop.person.ok(&["ls", REMOTE]), listed);
    // Deleted here, deleted there.
    fs::remove_file(laptop.at(local)).unwrap();
    laptop.sync(&[]);
    assert_eq!(laptop.person.ok(&["ls", REMOTE]).lines().count(), 3);
    desktop.sync(&[]);
    assert_same(&laptop.docs, &desktop.docs);
}

#[test]
fn fs_10_what_the_node_has_lost_is_deleted_nowhere() {
    let (world, laptop, desktop) = world();
    let content: Vec<u8> = (0..(1_u32 << 20)).map(|i| (i % 241) as u8).collect();
    for name in ["large", "kept/large too"] {
        write(&laptop.at(name), &content);
    }
    laptop.write("small", "small");
    laptop.sync(&[]);
    // Every block that is a file of its own: the content of the large ones.
    let lost = remove_blocks(&world.data());
    assert!(lost >= 2, "{lost} blocks");
    let run = desktop.person.run(&desktop.arguments(&[]));
    assert_ne!(run.code, Some(0), "{}", run.stderr);
    assert!(!run.stderr.is_empty());
    assert_eq!(desktop.read("small"), "small");
    assert!(
        !desktop.at("large").exists(),
        "nothing instead of what is missing"
    );
    // Neither did that delete anything in the account or where it still is.
    let listed = laptop.person.ok(&["ls", "-R", "--json", REMOTE]);
    assert_eq!(json_lines(&listed).len(), 4, "{listed}");
    let summary = laptop.sync(&[]);
    for count in ["deleted_here", "deleted_there", "uploaded"] {
        assert_eq!(summary[count], 0, "{summary}");
    }
    assert!(fs::read(laptop.at("large")).unwrap() == content);
    // Sent again it is whole again.
    for name in ["large", "kept/large too"] {
        let changed = [&content[..], b"!"].concat();
        write(&laptop.at(name), &changed);
    }
    laptop.sync(&[]);
    desktop.sync(&[]);
    assert_same(&laptop.docs, &desktop.docs);
}

/// Removes the files in which a node keeps large blocks, and returns how many there were.
fn remove_blocks(data: &Path) -> usize {
    let mut removed = 0;
    let mut folders = vec![data.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.components().any(|part| part.as_os_str() == "blocks")
                && path.metadata().unwrap().len() > 64 << 10
            {
                fs::remove_file(&path).unwrap();
                removed += 1;
            }
        }
    }
    removed
}
