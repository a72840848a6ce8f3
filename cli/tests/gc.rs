//! Giving back the space of what was deleted, on a node that runs and on one that does not.

use tests::{NodeProcess, write};

use crate::{World, json_lines, program, text};

#[test]
fn rel_9_the_space_of_deleted_files_is_given_back() {
    let mut world = World::new();
    let alice = world.signed_up("alice", "laptop");
    write(&world.path("laptop/big"), &vec![7; 3 << 20]);
    write(&world.path("laptop/small"), b"stays");
    alice.ok(&["put", "big", "small", "/alice/"]);
    let data = world.data();
    let operator = world
        .person("nobody", "server")
        .with("KASTRO_DATA", text(&data));
    operator.ok(&["gc", "--now"]);
    alice.ok(&["rm", "/alice/big"]);
    let would = operator.ok(&["gc", "--now", "--dry-run"]);
    assert!(would.contains("would be deleted"), "{would}");
    // Right after the last collection nothing is old enough.
    let waits = operator.ok(&["gc", "--user", "alice"]);
    assert!(waits.contains("next collection possible in"), "{waits}");
    let done = operator.run(&["gc", "--now", "--json", "--quiet"]);
    let report = &json_lines(&done.text())[0];
    assert!(
        report["deleted"]["bytes"].as_u64().unwrap() > 3 << 20,
        "{report}"
    );
    assert_eq!(report["alarms"], 0);
    assert_eq!(alice.ok(&["cat", "/alice/small"]), "stays");
    assert!(operator.ok(&["check"]).ends_with("all is well\n"));
    let counted = operator.ok(&["quota", "recount", "alice"]);
    assert!(counted.contains("recorded"), "{counted}");
    operator.fails(7, &["gc", "--user", "nobody-there"]);

    // With the node down the command opens the folder itself.
    world.node.take().unwrap().kill();
    let again = operator.ok(&["gc"]);
    assert!(again.contains("0 blocks (0 B) deleted"), "{again}");
    operator.ok(&["quota", "recount", "alice"]);
    world.node = Some(NodeProcess::start(program(), &data, &[]));
    let phone = world.person("alice", "phone");
    assert_eq!(phone.ok(&["cat", "/alice/small"]), "stays");
}
