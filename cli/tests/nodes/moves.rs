//! Moving house between processes that are killed while it goes on.
//!
//! More rounds: `KASTRO_MOVE_ROUNDS=40 cargo test -p cli --test main nodes::moves`

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tests::{Kastro, write};

use super::{Dice, Net, Under, fill, is_home, move_rounds, published, until};
use crate::text;

#[test]
fn an_account_moves_through_kills_and_loses_nothing_acknowledged() {
    let (net, first) = Net::new();
    let (mut home, mut other) = (net.join("one"), net.join("two"));
    let alice = net.person("alice", &home);
    alice.ok(&["signup", "--no-session"]);
    let place = net.path("home of alice");
    let film = fill(&place.join("film"), 12 << 20, 4);
    write(&place.join("poster"), b"for everybody");
    alice.ok(&["put", "film", "poster", "/alice/"]);
    alice.ok(&["publish", "/alice/poster"]);
    alice.ok(&["mkdir", "/alice/notes"]);
    other.sync();

    let mut dice = Dice(5);
    let mut notes: Vec<String> = Vec::new();
    for round in 0..move_rounds() {
        // The first two rounds hit the copying itself, each at another side; later ones any moment.
        let slow = ["mirror.bytes_per_second=4M"];
        other.restart_with(if round < 2 { &slow } else { &[] });
        let empty = other.block_bytes();
        // Somebody goes on writing, at a node that is neither.
        let writer = Writer::start(net.person("alice", &first), round);
        if round == 0 {
            until("somebody writes", || writer.acknowledged() > 0);
        }
        let target = net.person("alice", &other);
        let mut moving = Under::way(&target, &["move"]);
        if round == 0 {
            moving.until("blocks arrive", || other.block_bytes() > empty + (4 << 20));
        } else {
            thread::sleep(Duration::from_millis(100 + dice.below(1500)));
        }
        let kills_home = dice.below(2) == 0 || round == 1;
        if kills_home && round != 0 {
            home.kill();
            home.restart();
        } else {
            other.kill();
            other.restart();
        }
        // It would go on trying for a while, where nobody listens any more.
        drop(moving);
        let target = net.person("alice", &other);
        until("the account arrives", || {
            let _ = other.operate(&["mirror", "run"]);
            let _ = home.operate(&["mirror", "run"]);
            target.run(&["move"]).code == Some(0)
        });
        notes.extend(writer.stop());
        assert_eq!(is_home(&other), Some(true), "round {round}");
        assert_ne!(is_home(&home), Some(true), "round {round}");
        let copies = place.join(format!("notes after {round}"));
        target.ok(&["get", "/alice/notes", text(&copies)]);
        for note in &notes {
            assert_eq!(std::fs::read_to_string(copies.join(note)).unwrap(), *note);
        }
        until("what is published can be read", || {
            published(&first).is_some_and(|poster| poster == b"for everybody")
        });
        std::mem::swap(&mut home, &mut other);
    }
    let everywhere = [&first, &home];
    for member in everywhere {
        let copy = place.join("copy");
        net.person("alice", member)
            .ok(&["get", "/alice/film", text(&copy)]);
        assert!(std::fs::read(&copy).unwrap() == film);
        std::fs::remove_file(copy).unwrap();
    }
    assert!(!notes.is_empty(), "somebody wrote meanwhile");
}

/// Whoever knows the old home only, because the news has not come yet, is led to the new one.
#[test]
fn a_node_that_has_not_heard_of_a_move_still_reaches_the_person() {
    let (net, first) = Net::new();
    let (home, friend) = (net.join("home"), net.join("friend"));
    let carol = net.person("carol", &home);
    carol.ok(&["signup", "--no-session"]);
    friend.sync();
    let away = net.person("carol", &friend);
    until("the friend's node finds the home", || {
        away.run(&["ls", "/carol"]).code == Some(0)
    });
    net.person("carol", &first).ok(&["move"]);
    write(&net.path("home of carol/note"), b"after the move");
    away.ok(&["put", "note", "/carol/"]);
    let at_home = net.person("carol", &first);
    assert_eq!(at_home.ok(&["cat", "/carol/note"]), "after the move");
}

/// Somebody who puts one note after the other.
struct Writer {
    is_over: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
    thread: thread::JoinHandle<Vec<String>>,
}

impl Writer {
    fn start(person: Kastro, round: u64) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let count = Arc::new(AtomicU64::new(0));
        let (over, counted) = (Arc::clone(&is_over), Arc::clone(&count));
        let thread = thread::spawn(move || {
            let mut acknowledged = Vec::new();
            for number in 0.. {
                if over.load(Ordering::SeqCst) {
                    break;
                }
                let name = format!("note-{round}-{number}");
                let put = person.run_with_input(
                    &["put", "-", &format!("/alice/notes/{name}")],
                    name.as_bytes(),
                );
                if put.code == Some(0) {
                    acknowledged.push(name);
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            }
            acknowledged
        });
        Self {
            is_over,
            count,
            thread,
        }
    }

    /// How many were so far.
    fn acknowledged(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Returns what was acknowledged.
    fn stop(self) -> Vec<String> {
        self.is_over.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}
