//! The commands that look after a node, on a node that runs and on one that does not.

use std::{fs, path::Path};

use tests::{NodeProcess, assert_same, mixed_folder, write};

use crate::{World, json_lines, program, text};

fn block_files(data: &Path) -> Vec<std::path::PathBuf> {
    let runs = fs::read_dir(data.join("store/blocks")).unwrap();
    let files = runs.flat_map(|run| fs::read_dir(run.unwrap().path()).unwrap());
    files.map(|file| file.unwrap().path()).collect()
}

#[test]
fn rel_12_a_node_is_backed_up_while_it_runs_and_restored_elsewhere() {
    let mut world = World::new();
    let alice = world.signed_up("alice", "laptop");
    let folder = world.path("laptop/Things");
    mixed_folder(&folder, 6 << 20);
    alice.ok(&["put", "Things", "/alice/"]);
    let data = world.data();
    let operator = world
        .person("nobody", "server")
        .with("KASTRO_DATA", text(&data));
    let backup = world.path("backup");
    let made = json_lines(&operator.ok(&["backup", "--json", "--quiet", text(&backup)]));
    assert!(made[0]["copied_blocks"].as_u64().unwrap() > 10);
    write(&world.path("laptop/later"), b"not in the first one");
    alice.ok(&["put", "later", "/alice/"]);
    let again = json_lines(&operator.ok(&["backup", "--json", "--quiet", text(&backup)]));
    assert!(
        again[0]["copied_bytes"].as_u64().unwrap() < 100_000,
        "{again:?}"
    );
    let verified = operator.ok(&["backup", "--verify", text(&backup)]);
    assert!(verified.starts_with("2 snapshots"), "{verified}");
    let checked = operator.ok(&["check"]);
    assert!(checked.ends_with("all is well\n"), "{checked}");
    assert!(
        operator
            .fails(6, &["restore", text(&backup)])
            .contains("not empty")
    );

    // The machine burns down.
    world.node.take().unwrap().kill();
    let new = world.path("new");
    let said = operator.ok(&["restore", text(&backup), "--data", text(&new)]);
    assert!(said.contains("not in it"), "{said}");
    world.node = Some(NodeProcess::start(program(), &new, &[]));
    let alice = world.person("alice", "phone");
    let copy = world.path("phone/copy");
    alice.ok(&["get", "/alice/Things", text(&copy)]);
    assert_same(&folder, &copy);
    assert_eq!(alice.ok(&["cat", "/alice/later"]), "not in the first one");
}

#[test]
fn rel_6_damage_is_found_told_and_repaired_from_a_backup() {
    let mut world = World::new();
    let alice = world.signed_up("alice", "laptop");
    write(&world.path("laptop/big"), &vec![7; 3 << 20]);
    alice.ok(&["put", "big", "/alice/"]);
    let data = world.data();
    let operator = world
        .person("nobody", "server")
        .with("KASTRO_DATA", text(&data));
    let backup = world.path("backup");
    operator.ok(&["backup", text(&backup)]);
    let file = block_files(&data).remove(0);
    let mut bytes = fs::read(&file).unwrap();
    bytes[1_000] ^= 4;
    fs::write(&file, bytes).unwrap();
    operator.fails(12, &["check"]);
    let found = operator.run(&["check", "--json", "--quiet"]);
    assert_eq!(found.code, Some(12));
    let report = &json_lines(&found.text())[0];
    assert_eq!(report["affected"][0]["user"], "alice");
    assert_eq!(report["counts"]["damaged-block"], 1);

    // Also with the node down: the command opens the folder itself.
    world.node.take().unwrap().kill();
    let from = ["repair", "--from-backup", text(&backup)];
    let would = operator.ok(&from);
    assert!(
        would.contains("1 blocks would have a good copy again"),
        "{would}"
    );
    operator.fails(12, &["check"]);
    let done = operator.ok(&[&from[..], &["--apply"]].concat());
    assert!(done.contains("1 blocks have a good copy again"), "{done}");
    operator.ok(&["check"]);
    assert_eq!(
        fs::read_dir(data.join("store/quarantine")).unwrap().count(),
        1
    );
    world.node = Some(NodeProcess::start(program(), &data, &[]));
    let phone = world.person("alice", "phone");
    phone.ok(&["get", "/alice/big", "big"]);
    assert_eq!(fs::read(world.path("phone/big")).unwrap(), vec![7; 3 << 20]);
    let scrub = operator.ok(&["scrub", "--now"]);
    assert!(scrub.contains("every 30 days"), "{scrub}");
}

#[test]
fn rel_7_a_data_folder_without_its_database_is_refused_with_advice() {
    let mut world = World::new();
    let alice = world.signed_up("alice", "laptop");
    write(&world.path("laptop/big"), &vec![7; 1 << 20]);
    alice.ok(&["put", "big", "/alice/"]);
    let data = world.data();
    let operator = world
        .person("nobody", "server")
        .with("KASTRO_DATA", text(&data));
    world.node.take().unwrap().kill();
    fs::rename(data.join("store/meta.redb"), world.path("meta.redb")).unwrap();
    for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["check"]] {
        let said = operator.fails(16, command);
        assert!(said.contains("meta.redb is missing"), "{said}");
        assert!(said.contains("kastro restore"), "{said}");
    }
    assert!(!data.join("store/meta.redb").exists());
    fs::rename(world.path("meta.redb"), data.join("store/meta.redb")).unwrap();
    operator.ok(&["check"]);
}
