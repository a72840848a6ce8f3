//! REL-10: a pointer is one register with compare-and-set, whatever eight clients do to it at once.
//!
//! Histories are recorded with calls that overlap, calls that were given up (nobody knows whether they happened)
//! and restarts of the node in between; a search then looks for an order of all operations that one register could
//! have answered like that. The search is Wing and Gong's with memory of the states that led nowhere.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use champ::Cid;
use pki::{
    pointer::{PointerUpdate, SignedPointer},
    wire::pointer_batch::PointerWrite,
};
use tokio::sync::Mutex;

use super::on_disk;
use crate::{
    conformance::{
        account::{Account, cbor_block, update},
        harness::TestNode,
    },
    store::model_disk::Dice,
};

/// What was asked and answered, in positions of the list of roots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    /// A read, and what it returned.
    Get(usize),
    /// A change from one root to another that was acknowledged.
    Set(usize, usize),
    /// One that was refused because another root was current.
    Lost(usize, usize),
    /// One that nobody waited for.
    Unknown(usize, usize),
}

/// One operation: `begin` and `end` are ticks of one counter that all clients share.
#[derive(Debug, Clone, Copy)]
struct Event {
    op: Op,
    begin: u64,
    end: u64,
}

/// Returns true when one register, first holding root 0, could have answered like this.
fn is_linearizable(history: &[Event]) -> bool {
    assert!(history.len() <= 128);
    search(history, 0, 0, &mut HashSet::new())
}

fn search(
    history: &[Event],
    done: u128,
    current: usize,
    dead_ends: &mut HashSet<(u128, usize)>,
) -> bool {
    let is_open = |n: usize| done & (1 << n) == 0;
    let must_happen = |n: usize| !matches!(history[n].op, Op::Unknown(..));
    if (0..history.len()).all(|n| !is_open(n) || !must_happen(n)) {
        return true;
    }
    if dead_ends.contains(&(done, current)) {
        return false;
    }
    // Whatever ended before another one began comes before it.
    let first_end = (0..history.len())
        .filter(|n| is_open(*n) && must_happen(*n))
        .map(|n| history[n].end)
        .min()
        .unwrap_or(u64::MAX);
    for (n, event) in history.iter().enumerate() {
        if !is_open(n) || event.begin > first_end {
            continue;
        }
        let next = match event.op {
            Op::Get(seen) => (seen == current).then_some(current),
            Op::Set(from, to) => (from == current).then_some(to),
            Op::Lost(from, now) => (from != current && now == current).then_some(current),
            Op::Unknown(from, to) => (from == current).then_some(to),
        };
        if let Some(next) = next
            && search(history, done | 1 << n, next, dead_ends)
        {
            return true;
        }
    }
    dead_ends.insert((done, current));
    false
}

/// The checker itself: histories that no register gives are told.
#[test]
fn rel_10_the_checker_refuses_what_no_register_answers() {
    let event = |op, begin, end| Event { op, begin, end };
    let stale_read = [event(Op::Set(0, 1), 0, 1), event(Op::Get(0), 2, 3)];
    assert!(!is_linearizable(&stale_read));
    let overlapping = [event(Op::Set(0, 1), 0, 3), event(Op::Get(0), 1, 2)];
    assert!(is_linearizable(&overlapping));
    let two_winners = [event(Op::Set(0, 1), 0, 3), event(Op::Set(0, 2), 1, 2)];
    assert!(!is_linearizable(&two_winners));
    let lost_update = [
        event(Op::Set(0, 1), 0, 1),
        event(Op::Set(1, 2), 2, 3),
        event(Op::Get(1), 4, 5),
    ];
    assert!(!is_linearizable(&lost_update));
    let given_up = [
        event(Op::Unknown(0, 1), 0, u64::MAX),
        event(Op::Get(0), 2, 3),
        event(Op::Get(1), 4, 5),
    ];
    assert!(is_linearizable(&given_up));
    let back_and_forth = [
        event(Op::Unknown(0, 1), 0, u64::MAX),
        event(Op::Get(1), 2, 3),
        event(Op::Get(0), 4, 5),
    ];
    assert!(!is_linearizable(&back_and_forth));
}

struct Register {
    node: TestNode,
    alice: Account,
    roots: Vec<Cid>,
    clock: AtomicU64,
    history: Mutex<Vec<Event>>,
}

impl Register {
    fn position(&self, cid: &Cid) -> usize {
        self.roots.iter().position(|root| root == cid).unwrap()
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    async fn note(&self, op: Op, begin: u64, end: u64) {
        self.history.lock().await.push(Event { op, begin, end });
    }

    /// Reads the pointer, and returns what it says.
    async fn get(&self) -> (usize, i64) {
        let begin = self.tick();
        let signed = self
            .alice
            .pointer(&self.node, &self.alice.home.writer())
            .await;
        let end = self.tick();
        let key = self.alice.home.secret().public();
        let signed = SignedPointer::verify(&key, bytes::Bytes::from(signed)).unwrap();
        let update: &PointerUpdate = signed.update();
        let seen = self.position(update.updated().unwrap());
        self.note(Op::Get(seen), begin, end).await;
        (seen, update.sequence().unwrap())
    }

    /// Moves the pointer; `polls` is after how many steps the client gives up.
    async fn set(&self, from: usize, to: usize, sequence: i64, polls: Option<u64>) {
        let (original, updated) = (&self.roots[from], &self.roots[to]);
        let home = &self.alice.home;
        let write: PointerWrite = update(home, Some(original), Some(updated), Some(sequence + 1));
        let begin = self.tick();
        let call = self.alice.set(&self.node, &write);
        let answer = match polls {
            None => Some(call.await),
            Some(polls) => {
                let mut call = Box::pin(call);
                let mut left = polls;
                // Dropped after some wake-ups: like a client whose connection breaks.
                std::future::poll_fn(|context| match call.as_mut().poll(context) {
                    std::task::Poll::Ready(answer) => std::task::Poll::Ready(Some(answer)),
                    std::task::Poll::Pending if left == 0 => std::task::Poll::Ready(None),
                    std::task::Poll::Pending => {
                        left -= 1;
                        std::task::Poll::Pending
                    }
                })
                .await
            }
        };
        let end = self.tick();
        let Some(answer) = answer else {
            self.note(Op::Unknown(from, to), begin, u64::MAX).await;
            return;
        };
        if answer.status == 200 && answer.body == [1] {
            self.note(Op::Set(from, to), begin, end).await;
            return;
        }
        let message = answer.message();
        let current = message
            .strip_prefix("PointerCAS:")
            .and_then(|rest| rest.split(',').next())
            .unwrap_or_else(|| panic!("{message}"));
        let current = self.position(&current.parse().unwrap());
        self.note(Op::Lost(from, current), begin, end).await;
    }
}

/// A node on a folder, with alice's first root and 32 more to move to.
async fn register(folder: &std::path::Path) -> Register {
    let node = TestNode::with(on_disk(folder)).await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let mut roots = vec![alice.home_root().await.cid()];
    for n in 0..32 {
        let mut root = alice.home_root().await;
        let tree = cbor_block(&format!("tree {n}"), &[]);
        root.data.tree = Some(tree.cid().clone());
        root.blocks.push(tree);
        alice.put_root(&node, &alice.home, &root).await;
        roots.push(root.cid());
    }
    Register {
        node,
        alice,
        roots,
        clock: AtomicU64::new(0),
        history: Mutex::default(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_10_pointers_are_linearizable_also_when_answers_are_lost() {
    let mut kinds = [0; 4];
    for round in 0..8u64 {
        let folder = tempfile::tempdir().unwrap();
        let mut register = register(folder.path()).await;
        for phase in 0..2u64 {
            let shared = Arc::new(register);
            let mut clients = tokio::task::JoinSet::new();
            for client in 0..8u64 {
                let shared = Arc::clone(&shared);
                clients.spawn(async move {
                    let mut dice = Dice(round << 16 | phase << 8 | client);
                    for turn in 0..2 {
                        let (seen, sequence) = shared.get().await;
                        // Every change leads to a root of its own.
                        let to = 1 + (phase * 16 + client * 2 + turn) as usize;
                        let polls = (dice.roll(4) == 0).then(|| dice.roll(4));
                        shared.set(seen, to, sequence, polls).await;
                    }
                    shared.get().await;
                });
            }
            clients.join_all().await;
            register = Arc::into_inner(shared).unwrap();
            // A restart: what was acknowledged is there, what was given up may be.
            register.node.node.close().await.unwrap();
            register.node = TestNode::with(on_disk(folder.path())).await;
        }
        register.get().await;
        let history = register.history.into_inner();
        for event in &history {
            kinds[match event.op {
                Op::Get(_) => 0,
                Op::Set(..) => 1,
                Op::Lost(..) => 2,
                Op::Unknown(..) => 3,
            }] += 1;
        }
        assert!(is_linearizable(&history), "round {round}: {history:#?}");
        register.node.node.close().await.unwrap();
    }
    // Nothing was left out.
    assert!(kinds.iter().all(|count| *count > 0), "{kinds:?}");
}
