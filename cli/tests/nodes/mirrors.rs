//! A copy at a node that nobody trusts: killed, cut off, and in the end all that is left.

use tests::{Kastro, write};

use super::{Member, Net, Under, fill, until};
use crate::text;

const BYTES: usize = 32 << 20;
/// So slow that the middle of a round is easy to hit.
const SLOW: &str = "mirror.bytes_per_second=4M";

#[test]
fn rel_25_a_copy_survives_kills_of_both_sides_and_becomes_the_home() {
    let (net, first) = Net::new();
    let (mut home, mut mirror) = (net.join("home"), net.join("mirror"));
    let alice = net.person("alice", &home);
    alice.ok(&["signup", "--no-session"]);
    let place = net.path("home of alice");
    let film = fill(&place.join("film"), BYTES, 3);
    alice.ok(&["put", "film", "/alice/"]);
    mirror.sync();
    mirror.restart_with(&[SLOW]);
    wrong_uses(&mirror, &home, &alice);
    mirror.keep(&alice, "alice", &home);

    // The mirror is killed in the middle of its round.
    let mut round = Under::way(&mirror.operator(), &["mirror", "run"]);
    // They are stored some at a time: the first ones are safe when the next ones come.
    round.until("blocks arrive", || mirror.block_bytes() > 10 << 20);
    mirror.kill();
    round.wait();
    mirror.restart_with(&[SLOW]);
    let kept = mirror.block_bytes();
    assert!(kept >= 8 << 20, "{kept}");

    // Then the home.
    let mut round = Under::way(&mirror.operator(), &["mirror", "run"]);
    round.until("more blocks arrive", || mirror.block_bytes() > kept);
    home.kill();
    round.wait();
    assert_ne!(mirror.operate(&["mirror", "run"]).code, Some(0));
    let failed = mirror.operate(&["mirror", "status"]);
    assert_ne!(failed.code, Some(0));
    assert!(failed.text().contains("failing"), "{}", failed.text());
    assert_eq!(failed.text().lines().count(), 1, "{}", failed.text());

    // With both back the rest comes, and nothing that is there.
    home.restart();
    mirror.restart();
    let kept = mirror.block_bytes();
    assert!(kept >= 8 << 20, "{kept}");
    let run = in_step(&mirror);
    let shown = mirror.json(&["mirror", "status"]);
    assert!(shown["error"].is_null(), "{shown}");
    assert!(shown["can_log_in"] == true && shown["in_step_seconds"].is_number());
    let used = shown["used_bytes"].as_u64().unwrap();
    let fetched = run["bytes"].as_u64().unwrap();
    assert!(fetched + kept <= used, "{fetched} {kept} {used}");
    // Nothing changed: nothing is read.
    assert_eq!(mirror.json(&["mirror", "run"])["blocks"], 0);
    // Little changed: little is read.
    write(&place.join("note"), b"the last word");
    net.person("alice", &home).ok(&["put", "note", "/alice/"]);
    let run = in_step(&mirror);
    assert!(run["bytes"].as_u64().unwrap() < 1 << 20, "{run}");
    let whole = mirror.json(&["check"]);
    assert_eq!(whole["problems"].as_u64().unwrap_or(0), 0, "{whole}");

    // The home is gone for good. The copy can be read at once, and written to as soon as it is the home.
    home.kill();
    std::fs::remove_dir_all(&home.data).unwrap();
    let alice = net.person("alice", &mirror);
    assert_eq!(alice.ok(&["cat", "/alice/note"]), "the last word");
    assert_ne!(alice.run(&["mkdir", "/alice/new"]).code, Some(0));
    alice.ok(&["move", "--lost"]);
    alice.ok(&["mkdir", "/alice/new"]);
    let copy = place.join("copy");
    alice.ok(&["get", "/alice/film", text(&copy)]);
    assert!(std::fs::read(&copy).unwrap() == film);
    // Also through a node that only hears of it by the table of names.
    first.sync();
    let elsewhere = net.person("alice", &first);
    assert_eq!(elsewhere.ok(&["cat", "/alice/note"]), "the last word");
    assert_eq!(
        elsewhere.ok(&["ls", "/alice"]).trim_end(),
        "film\nnew/\nnote"
    );
}

#[test]
fn rel_6_what_the_scrub_finds_damaged_is_healed_by_mirror_and_home() {
    let (net, mut home) = Net::new();
    let mut mirror = net.join("mirror");
    let alice = net.person("alice", &home);
    alice.ok(&["signup", "--no-session"]);
    let place = net.path("home of alice");
    let film = fill(&place.join("film"), 3 << 20, 9);
    alice.ok(&["put", "film", "/alice/"]);
    mirror.sync();
    mirror.keep(&alice, "alice", &home);
    in_step(&mirror);

    // At the home: nobody who has a copy is known at first, then the mirror shows its token.
    damage_a_block(&mut home);
    let found = || scrubbed(&home, "damaged") == 1;
    until("the damage is found", found);
    in_step(&mirror);
    until("the mirror heals the home", || {
        scrubbed(&home, "healed") == 1
    });
    assert_eq!(home.operate(&["check"]).code, Some(0));

    damage_a_block(&mut mirror);
    until("the home heals the mirror", || {
        scrubbed(&mirror, "healed") == 1
    });
    assert_eq!(mirror.operate(&["check"]).code, Some(0));
    home.kill();
    let copy = place.join("copy");
    net.person("alice", &mirror)
        .ok(&["get", "/alice/film", text(&copy)]);
    assert!(std::fs::read(&copy).unwrap() == film);
}

/// Runs rounds until one leaves nothing out: nodes that were just started have to find each other first.
#[track_caller]
fn in_step(mirror: &Member) -> serde_json::Value {
    let mut run = serde_json::Value::Null;
    until("the copy is in step", || {
        let done = mirror.operate(&["--json", "--quiet", "mirror", "run"]);
        run = crate::json_lines(&done.text()).swap_remove(0);
        done.code == Some(0)
    });
    assert_eq!((&run["in_step"], &run["failed"]), (&1.into(), &0.into()));
    run
}

/// Flips a bit in the file of a block, while the node is down, and has the node look at all of them.
fn damage_a_block(member: &mut Member) {
    member.kill();
    let runs = std::fs::read_dir(member.data.join("store/blocks")).unwrap();
    let files = runs.flat_map(|run| std::fs::read_dir(run.unwrap().path()).unwrap());
    let files = files.map(|file| file.unwrap().path());
    let file = files.max_by_key(|file| std::fs::metadata(file).unwrap().len());
    let file = file.unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[5_000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    member.restart();
    member.operate(&["scrub", "--now"]);
}

/// What the scrub under way, or the last one, has counted.
fn scrubbed(member: &Member, what: &str) -> u64 {
    let shown = member.operate(&["--json", "scrub"]).text();
    let shown = crate::json_lines(shown.lines().next().unwrap());
    let state = &shown[0]["state"];
    let count = |value: &serde_json::Value| value[what].as_u64().unwrap_or(0);
    count(state).max(count(&state["last"]))
}

/// What is said to an operator, and to alice, who mistake one node for another.
fn wrong_uses(mirror: &Member, home: &Member, alice: &Kastro) {
    let refused = |member: &Member, arguments: &[&str], reason: &str| {
        let done = member.operate(arguments);
        assert_ne!(done.code, Some(0), "{arguments:?}");
        assert!(done.stderr.contains(reason), "{}", done.stderr);
    };
    refused(home, &["mirror", "add", "alice"], "the home of alice");
    let from = |id| ["mirror", "add", "alice", "--from", id];
    refused(mirror, &from("12D3KooWrong"), "not a node id");
    refused(mirror, &from(mirror.id()), "the id of this node");
    refused(mirror, &["mirror", "rm", "alice"], "no copy of alice");
    refused(mirror, &["mirror", "rm", "nobody"], "no user nobody");
    let early = alice.fails(9, &["mirror", "allow", mirror.url()]);
    assert!(early.contains("kastro mirror add"), "{early}");
    let own = alice.fails(18, &["mirror", "allow", home.url()]);
    assert!(own.contains("the home of the account"), "{own}");
}
