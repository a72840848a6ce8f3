//! Names: given out by one node, known to all, and never to two people, whoever is killed.
//!
//! Another order of events: `KASTRO_NAMES_SEED=7 cargo test -p cli --test main nodes::names`

use std::{
    collections::BTreeSet,
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use tests::Kastro;

use super::{Dice, Member, Net, until};
use crate::program;

const SIGN_UP: [&str; 2] = ["signup", "--no-session"];

/// Somebody who wants a name, with a password of their own.
struct Attempt {
    name: String,
    password: String,
    is_acknowledged: bool,
}

#[test]
fn names_are_given_once_through_kills_and_a_take_over() {
    let seed = std::env::var("KASTRO_NAMES_SEED");
    let seed = seed.ok().and_then(|text| text.parse().ok()).unwrap_or(6);
    let mut dice = Dice(seed);
    let (net, mut authority) = Net::new();
    let (mut heir, home) = (net.join("heir"), net.join("home"));
    let keys = net.path("names.keys");
    authority
        .operator()
        .ok(&["names", "export", keys.to_str().unwrap()]);
    let mut attempts = Vec::new();

    // Two people want each name at two nodes, and the authority is killed meanwhile.
    let mut running = Vec::new();
    for number in 0..2 {
        for (at, member) in [&heir, &home].into_iter().enumerate() {
            running.push(Running::start(&net, member, &format!("user{number}"), at));
        }
    }
    thread::sleep(Duration::from_millis(dice.below(3000)));
    authority.kill();
    authority.restart();
    attempts.extend(running.into_iter().map(Running::end));
    heir.sync();
    home.sync();
    check(&net, &attempts, &[&authority, &heir, &home]);

    // The authority is gone for good: everything but new names goes on.
    authority.kill();
    if let Some(known) = attempts.iter().find(|attempt| attempt.is_acknowledged) {
        let person = person(&net, &home, &known.name, &known.password);
        until("a home other than the authority answers", || {
            person.run(&["ls"]).code == Some(0)
        });
        person.ok(&["mkdir", &format!("/{}/goes-on", known.name)]);
    }
    let refused = person(&net, &home, "newcomer", "some password of a newcomer");
    // The name may come later, so the passphrase is told now.
    let refused = refused.run(&["signup", "--no-session", "--generate"]);
    let passphrase = refused.text().trim().to_owned();
    assert_eq!(passphrase.split('-').count(), 7, "{passphrase}");
    assert!(refused.stderr.contains("kastro login newcomer"));
    assert_ne!(refused.code, Some(0));
    assert!(
        refused.stderr.contains("name authority"),
        "{}",
        refused.stderr
    );
    assert_ne!(home.operate(&["names", "status", "--sync"]).code, Some(0));
    assert_eq!(home.operate(&["names", "status"]).code, Some(0));

    // Another node takes over from its own copy of the table.
    let names = heir.json(&["names", "status"])["names"].as_u64();
    let taken = heir.json(&["names", "take-over", keys.to_str().unwrap()]);
    assert_eq!(taken["names"].as_u64(), names);
    heir.restart();
    assert_eq!(heir.json(&["names", "status"])["is_authority"], true);
    let own = home.operate(&["names", "follow", home.id()]);
    assert!(own.stderr.contains("this node"), "{}", own.stderr);
    home.json(&["names", "follow", heir.id()]);
    home.sync();
    // Old names are taken, new ones are given once, wherever they are asked for.
    let running = ["user0", "user9"].into_iter().flat_map(|name| {
        let members = [&heir, &home].into_iter().enumerate();
        let start = |(at, member)| Running::start(&net, member, name, 10 + at);
        members.map(start).collect::<Vec<_>>()
    });
    let running: Vec<_> = running.collect();
    let late: Vec<_> = running.into_iter().map(Running::end).collect();
    let told = |name: &str| {
        late.iter()
            .filter(|a| a.name == name && a.is_acknowledged)
            .count()
    };
    assert_eq!(told("user9"), 1);
    attempts.extend(late);
    home.sync();
    // A name whose sign-ups all came to nothing while the authority was down was free until now.
    let held = check(&net, &attempts, &[&heir, &home]);
    assert!(held.contains("user0") && held.contains("user9"), "{held:?}");
    // So does the sign-up that waited.
    let newcomer = person(&net, &home, "newcomer", &passphrase);
    newcomer.ok(&["ls"]);

    // The old authority comes back, and gives out nothing.
    authority.restart();
    until("the old authority notices", || {
        let late = person(
            &net,
            &authority,
            "latecomer",
            "some password of a latecomer",
        );
        let late = late.run(&["signup", "--no-session"]);
        assert_ne!(late.code, Some(0), "the old authority gave out a name");
        late.stderr.contains("gives out no names")
    });
}

/// Exactly those who were told so have their names, at every node; returns the names that somebody has.
fn check(net: &Net, attempts: &[Attempt], members: &[&Member]) -> BTreeSet<String> {
    let names: BTreeSet<&str> = attempts.iter().map(|a| a.name.as_str()).collect();
    let mut held = BTreeSet::new();
    for name in names {
        let wanted: Vec<_> = attempts.iter().filter(|a| a.name == name).collect();
        let told = wanted.iter().filter(|a| a.is_acknowledged).count();
        assert!(told <= 1, "{name} was given twice");
        for (at, member) in members.iter().enumerate() {
            let holders: Vec<_> = wanted
                .iter()
                // Who was told nothing is looked for at one node; the others answer from the same table.
                .filter(|attempt| attempt.is_acknowledged || at == 0)
                .filter(|attempt| {
                    let person = person(net, member, name, &attempt.password);
                    person.run(&["ls"]).code == Some(0)
                })
                .collect();
            assert!(holders.len() <= 1, "{name} has two holders");
            // Of those whose answer was lost one may have it.
            let is_theirs = holders.iter().all(|a| a.is_acknowledged || told == 0);
            assert!(is_theirs && holders.len() >= told, "{name} was taken away");
            if !holders.is_empty() {
                held.insert(name.to_owned());
            }
        }
    }
    held
}

fn person(net: &Net, member: &Member, name: &str, password: &str) -> Kastro {
    let home = net.path("a home");
    std::fs::create_dir_all(&home).unwrap();
    Kastro::new(program(), &home)
        .with("KASTRO_SERVER", member.url())
        .with("KASTRO_USER", name)
        .with("KASTRO_PASSWORD", password)
}

/// A sign-up under way.
struct Running {
    attempt: Attempt,
    person: Kastro,
    child: Child,
}

impl Running {
    fn start(net: &Net, member: &Member, name: &str, number: usize) -> Self {
        let password = format!("password {number} of {name}");
        let person = person(net, member, name, &password);
        let child = person
            .command(&SIGN_UP)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            attempt: Attempt {
                name: name.to_owned(),
                password,
                is_acknowledged: false,
            },
            person,
            child,
        }
    }

    fn end(mut self) -> Attempt {
        let done = self.child.wait_with_output().unwrap();
        self.attempt.is_acknowledged = done.status.success();
        let mut said = String::from_utf8(done.stderr).unwrap();
        // Names that were given meanwhile made the next ones dearer: the program says to ask again.
        while said.contains("limiting requests") {
            let again = self.person.run(&SIGN_UP);
            self.attempt.is_acknowledged = again.code == Some(0);
            said = again.stderr;
        }
        self.attempt
    }
}
