//! Nodes are killed and links cut at random, from a seed: no acknowledged write is lost, no name given twice, and
//! what is healed converges.
//!
//! More seeds: `KASTRO_NET_SEEDS=500 cargo test -p node --test main network::simulation`

use std::collections::HashMap;

use pki::wire::{
    Body as _,
    mirror::{FROM_THE_BEGINNING, MigrateRequest},
};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

use super::world::{Fault, Member, Net, Version, contents};
use crate::conformance::account::Account;

const NODES: usize = 4;
const STEPS: u64 = 40;

struct Run {
    net: Net,
    members: Vec<Member>,
    /// By name: the account, and the newest version that was acknowledged.
    people: HashMap<String, (Account, Version)>,
    rng: ChaCha8Rng,
    seed: u64,
}

impl Run {
    async fn new(seed: u64) -> Self {
        let net = Net::new();
        let authority = net.authority().await;
        let mut members = vec![authority];
        for _ in 1..NODES {
            members.push(net.join(&members[0]).await);
        }
        Self {
            net,
            members,
            people: HashMap::new(),
            rng: ChaCha8Rng::seed_from_u64(seed),
            seed,
        }
    }

    fn below(&mut self, end: usize) -> usize {
        (self.rng.next_u64() % end as u64) as usize
    }

    fn someone(&mut self) -> Option<String> {
        let mut names: Vec<_> = self.people.keys().cloned().collect();
        names.sort();
        let count = names.len();
        (count > 0).then(|| names.swap_remove(self.below(count)))
    }

    async fn step(&mut self, step: u64) {
        let at = self.below(NODES);
        match self.below(10) {
            0 | 1 => {
                // Few names, so that two want the same one.
                let name = format!("user{}", self.below(6));
                let account =
                    Account::new(&name, (step as u8).wrapping_mul(7).wrapping_add(at as u8));
                let body = account.request(&self.members[at].node).await.to_body();
                let answer = self.members[at]
                    .node
                    .post("peergos/v0/core/signup", body)
                    .await;
                if answer.status == 200 && answer.body == [1] {
                    let holder = self.people.get(&name);
                    let is_same = holder.is_none_or(|(known, _)| known.owner() == account.owner());
                    assert!(
                        is_same,
                        "{name} was given twice, seed {} step {step}",
                        self.seed
                    );
                    let first = account.current(&self.members[at].node).await.unwrap();
                    let version = Version {
                        root: first.updated().unwrap().clone(),
                        sequence: 1,
                        parts: Vec::new(),
                    };
                    self.people.entry(name).or_insert((account, version));
                }
            }
            2..=4 => {
                let Some(name) = self.someone() else { return };
                let (account, last) = self.people.get_mut(&name).unwrap();
                let written = account
                    .write(&self.members[at].node, &contents(step, 4, 2))
                    .await;
                if let Ok(version) = written {
                    assert!(
                        version.sequence >= last.sequence,
                        "a write was lost, seed {} step {step}",
                        self.seed
                    );
                    *last = version;
                }
            }
            5 => {
                let Some(name) = self.someone() else { return };
                let known = self.members[at].chain(&name).await;
                let is_home = known.home() == Some(self.members[at].node.node.id());
                if !known.is_empty() && !is_home {
                    let (account, _) = &self.people[&name];
                    self.members[at].keep(account, &self.members[0]).await;
                }
            }
            6 => {
                let Some(name) = self.someone() else { return };
                let source = self.below(NODES);
                let (account, _) = &self.people[&name];
                let (target, source) = (&self.members[at], &self.members[source]);
                let known = target.chain(&name).await;
                if known.home() == Some(source.node.node.id()) && source.id != target.id {
                    let request = MigrateRequest {
                        username: name,
                        chain: account.moved_to(target, target).await,
                        current_server: source.node.node.id().clone(),
                        bat: Some(account.mirror_with_id()),
                        after_epoch_seconds: FROM_THE_BEGINNING,
                        usage_bytes: 0,
                        commit: true,
                    };
                    let path = "peergos/v0/core/migrateUser";
                    target.node.post(path, request.to_body()).await;
                }
            }
            7 => {
                let other = self.below(NODES);
                if at == other {
                    self.net.links.heal();
                } else {
                    self.net.links.cut(&self.members[at], &self.members[other]);
                }
            }
            8 => {
                let number = self.below(20) as u64;
                let fault = if self.below(2) == 0 {
                    Fault::Request(number)
                } else {
                    Fault::Answer(number)
                };
                self.net.links.reset(Some(fault));
            }
            _ => {
                let member = &mut self.members[at];
                self.net.restart(member).await;
            }
        }
        let looker = self.below(NODES);
        let member = &self.members[looker];
        let _ = member
            .run(node::operator::names::ShowNames { sync: true })
            .await;
        let _ = member.mirror().await;
    }

    async fn settle(&mut self) {
        self.net.links.heal();
        self.net.links.reset(None);
        // One that nobody answered waits some seconds before it asks again whether another has taken over; one that has just
        // started asks at once.
        self.net.restart(&mut self.members[0]).await;
        for _ in 0..4 {
            for member in &self.members {
                let _ = member
                    .run(node::operator::names::ShowNames { sync: true })
                    .await;
                let _ = member.mirror().await;
            }
        }
    }

    async fn check(&self) {
        let seed = self.seed;
        for (name, (account, version)) in &self.people {
            let chain = self.members[0].chain(name).await;
            assert_eq!(chain.identity(), Some(&account.owner()), "{name} {seed}");
            let mut homes = 0;
            for member in &self.members {
                assert_eq!(member.chain(name).await, chain, "{name} {seed}");
                let is_home = chain.home() == Some(member.node.node.id());
                homes += usize::from(is_home);
                let current = account.current(&member.node).await.unwrap();
                // Whoever is asked gives the newest state: its own, or the home's.
                assert!(
                    current.sequence() >= Some(version.sequence),
                    "{name} {seed}"
                );
                if is_home && current.sequence() == Some(version.sequence) {
                    assert_eq!(current.updated(), Some(&version.root), "{name} {seed}");
                    assert!(account.is_complete(member, version).await, "{name} {seed}");
                }
            }
            assert_eq!(homes, 1, "{name} {seed}");
        }
        for member in &self.members {
            let shown = member.names().await;
            assert_eq!(shown.status.alarm, None, "{seed}");
            assert_eq!(shown.status.refused, [], "{seed}");
            assert_eq!(shown.waiting_signups, 0, "{seed}");
            let run = member.mirror().await;
            assert_eq!((run.failed, run.moving), (0, 0), "{seed}");
        }
    }
}

#[test]
fn p2p_9_rel_25_random_kills_and_cuts_lose_nothing() {
    let seeds = std::env::var("KASTRO_NET_SEEDS");
    let seeds: u64 = seeds.ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    // Several nodes in one future, in a debug build: more than the two megabytes of a test's thread.
    let thread = std::thread::Builder::new().stack_size(64 << 20);
    let run = thread.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            for seed in 0..seeds {
                let mut run = Run::new(seed).await;
                for step in 0..STEPS {
                    run.step(step + 1).await;
                }
                run.settle().await;
                run.check().await;
            }
        });
    });
    run.unwrap().join().unwrap();
}
