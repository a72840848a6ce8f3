//! What people meet around a move: a client that dies in it, links and copies that were there before it.
//!
//! More rounds: `KASTRO_MOVE_ROUNDS=40 cargo test -p cli --test main nodes::around`

use std::{thread, time::Duration};

use tests::{Kastro, write};

use super::{Dice, Member, Net, Under, fill, is_home, move_rounds, published, until};
use crate::{json_lines, text};

/// Whatever a client had done when it died: nothing is lost, the account can be written to, and the command, said again, ends
/// with one home.
#[test]
fn a_move_whose_client_is_killed_goes_on_when_it_is_run_again() {
    let (net, first) = Net::new();
    let (mut home, mut other) = (net.join("one"), net.join("two"));
    let alice = net.person("alice", &home);
    alice.ok(&["signup", "--no-session"]);
    let place = net.path("home of alice");
    let film = fill(&place.join("film"), 6 << 20, 11);
    alice.ok(&["put", "film", "/alice/"]);
    alice.ok(&["mkdir", "/alice/notes"]);
    other.sync();
    let mut dice = Dice(12);
    let mut notes = Vec::new();
    for round in 0..move_rounds() {
        let is_slow = round % 3 == 1;
        other.restart_with(if is_slow {
            &["mirror.bytes_per_second=2M"]
        } else {
            &[]
        });
        let target = net.person("alice", &other);
        let empty = other.block_bytes();
        let mut moving = Under::way(&target, &["move"]);
        match is_slow {
            // Among the blocks, if there are any that the node does not have from before.
            true => moving.until("blocks arrive", || other.block_bytes() > empty),
            // At any step; it may also have done its work, or not have begun.
            false => thread::sleep(Duration::from_millis(dice.below(600))),
        }
        drop(moving);
        // Somebody at a third node; while writes are stopped it is told to come again.
        let elsewhere = net.person("alice", &first);
        let note = format!("note-{round}");
        until("the account can be written to", || {
            let _ = other.operate(&["mirror", "run"]);
            let put = ["put", "-", &format!("/alice/notes/{note}"), "--force"];
            elsewhere.run_with_input(&put, note.as_bytes()).code == Some(0)
        });
        notes.push(note);
        until("the account arrives", || {
            let done = target.run(&["move"]);
            if done.code == Some(0) {
                let said = done.text();
                assert!(said.contains("alice lives at this node"), "{said}");
            }
            done.code == Some(0)
        });
        assert!(target.ok(&["move"]).contains("already"));
        assert_eq!(is_home(&other), Some(true), "round {round}");
        home.sync();
        assert_ne!(is_home(&home), Some(true), "round {round}");
        for note in &notes {
            assert_eq!(target.ok(&["cat", &format!("/alice/notes/{note}")]), *note);
        }
        std::mem::swap(&mut home, &mut other);
    }
    let copy = place.join("copy");
    let alice = net.person("alice", &first);
    alice.ok(&["get", "/alice/film", text(&copy)]);
    assert!(std::fs::read(&copy).unwrap() == film);
    for member in [&first, &home, &other] {
        let whole = member.json(&["check"]);
        assert_eq!(whole["problems"].as_u64().unwrap_or(0), 0, "{whole}");
    }
}

/// None of the other nodes is told of the move but by those it asks.
#[test]
fn links_publications_and_copies_go_on_after_a_move() {
    let (net, first) = Net::new();
    let (mut home, new) = (net.join("home"), net.join("new"));
    let alice = net.person("alice", &home);
    alice.ok(&["signup", "--no-session"]);
    let place = net.path("home of alice");
    write(&place.join("docs/letter"), b"to whom it may concern");
    write(&place.join("poster"), b"for everybody");
    alice.ok(&["put", "docs", "poster", "/alice/"]);
    alice.ok(&["publish", "/alice/poster"]);
    let link = |person: &Kastro, options: &[&str]| {
        let made = person.ok(&[&["link", "create", "/alice/docs/letter"], options].concat());
        Link::of(&made)
    };
    let plain = link(&alice, &[]);
    let few = link(&alice, &["--uses", "3", "--expires", "7d"]);
    let word = "correct horse battery";
    let locked = link(&alice.clone().with("KASTRO_LINK_PASSWORD", word), &[]);
    first.keep(&alice, "alice", &home);
    assert_eq!(first.json(&["mirror", "run"])["in_step"], 1);
    let stranger = Stranger::new(&net);
    assert_eq!(stranger.opens(&few, &home, ""), Ok(()));

    new.sync();
    let alice = net.person("alice", &new);
    let refused = alice.fails(18, &["move", "--lost"]);
    assert!(refused.contains("is not lost"), "{refused}");
    assert_eq!(is_home(&home), Some(true));
    alice.ok(&["move"]);

    // Wherever they are opened, first of all where they say.
    for node in [&home, &new, &first] {
        assert_eq!(stranger.opens(&plain, node, ""), Ok(()));
    }
    assert_eq!(stranger.opens(&locked, &home, word), Ok(()));
    let wrong = stranger.opens(&locked, &home, "wrong");
    assert!(wrong.unwrap_err().contains("does not open"));
    // How often it was used has moved along.
    assert_eq!(stranger.opens(&few, &home, ""), Ok(()));
    assert_eq!(stranger.opens(&few, &first, ""), Ok(()));
    for node in [&new, &home] {
        let used_up = stranger.opens(&few, node, "").unwrap_err();
        assert!(used_up.contains("exceed"), "{used_up}");
    }
    let listed = json_lines(&alice.ok(&["link", "list", "--json"]));
    assert_eq!(listed.len(), 3);
    let shown = |link: &Link| {
        let found = listed
            .iter()
            .find(|shown| link.0.ends_with(Link::of(text_of(shown)).0.as_str()));
        found.unwrap().clone()
    };
    assert_eq!(
        (&shown(&few)["used"], &shown(&few)["uses"]),
        (&3.into(), &3.into())
    );
    assert!(text_of(&shown(&few)).starts_with(new.url()));
    assert_eq!(
        published(&first).as_deref(),
        Some(b"for everybody".as_slice())
    );

    // What is made and taken back afterwards.
    let later = link(&alice, &[]);
    assert_eq!(stranger.opens(&later, &home, ""), Ok(()));
    assert_eq!(stranger.opens(&later, &first, ""), Ok(()));
    let label = shown(&plain)["label"].to_string();
    alice.ok(&["link", "rm", &label]);
    for node in [&home, &new, &first] {
        assert!(stranger.opens(&plain, node, "").is_err());
    }

    // The copy follows, also when the old home is gone.
    home.kill();
    write(&place.join("note"), b"from the new home");
    alice.ok(&["put", "note", "/alice/"]);
    let run = first.json(&["mirror", "run"]);
    assert_eq!(
        (&run["in_step"], &run["failed"]),
        (&1.into(), &0.into()),
        "{run}"
    );
    assert!(run["blocks"].as_u64().unwrap() > 0, "{run}");
    assert_eq!(stranger.opens(&later, &first, ""), Ok(()));
    let at_first = net.person("alice", &first);
    assert_eq!(at_first.ok(&["cat", "/alice/note"]), "from the new home");
}

fn text_of(shown: &serde_json::Value) -> &str {
    shown["link"].as_str().unwrap()
}

/// A link without the address in front of it.
struct Link(String);

impl Link {
    fn of(text: &str) -> Self {
        let at = text.find("secret/").unwrap();
        Self(text[at..].trim().to_owned())
    }
}

/// Somebody without an account.
struct Stranger(Kastro, std::path::PathBuf);

impl Stranger {
    fn new(net: &Net) -> Self {
        let home = net.path("home of a stranger");
        std::fs::create_dir_all(&home).unwrap();
        Self(Kastro::new(crate::program(), &home), home)
    }

    /// Opens a link of the letter; what went wrong otherwise.
    fn opens(&self, link: &Link, at: &Member, password: &str) -> Result<(), String> {
        let _ = std::fs::remove_file(self.1.join("letter"));
        let address = format!("{}/{}", at.url(), link.0);
        let person = self.0.clone().with("KASTRO_LINK_PASSWORD", password);
        let done = person.run(&["link", "get", &address]);
        if done.code != Some(0) {
            return Err(done.stderr);
        }
        let letter = std::fs::read(self.1.join("letter")).unwrap();
        assert_eq!(letter, b"to whom it may concern");
        Ok(())
    }
}
