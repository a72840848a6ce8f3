//! Thousands of histories by dice: clients that keep the rules and some that do not, and collections cut into
//! pieces by them. After every collection each block that a pointer reaches is readable; honest clients are never
//! refused; when all is quiet, nothing is left that no pointer reaches.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use champ::{Block, Cid};
use futures_util::FutureExt as _;
use node::gc::{CollectOptions, Outcome};
use parking_lot::Mutex;

use super::{
    hooked::Hook,
    recount::recount,
    world::{GRACE, Uploader, World, of},
};
use crate::{
    conformance::{account::cbor_block, harness::TestNode},
    store::model_disk::Dice,
};

/// Histories of one run; `KASTRO_GC_SEEDS` asks for more.
const SEEDS: u64 = 60;
const STEPS: u64 = 25;

/// What one user's client knows.
struct Client {
    user: Uploader,
    dice: Dice,
    /// Every block it ever made, with its children.
    made: BTreeMap<Cid, (Block, Vec<Cid>)>,
    /// Trees that were committed; the last one is current.
    trees: Vec<Cid>,
    /// Uploaded under an open transaction, not committed: transaction, tree, what was current then.
    prepared: Option<(String, Cid, usize)>,
    number: u64,
    /// Updates of rule breakers that were refused.
    refused: u64,
}

impl Client {
    fn below(&self, tree: &Cid) -> BTreeSet<Cid> {
        let mut found = BTreeSet::new();
        let mut open = vec![tree.clone()];
        while let Some(cid) = open.pop() {
            if found.insert(cid.clone()) {
                open.extend(self.made[&cid].1.iter().cloned());
            }
        }
        found
    }

    fn pick(&mut self, from: &BTreeSet<Cid>) -> Option<Cid> {
        if from.is_empty() {
            return None;
        }
        let at = self.dice.roll(from.len() as u64) as usize;
        from.iter().nth(at).cloned()
    }

    fn make(&mut self, is_raw: bool, links: Vec<Cid>) -> Block {
        self.number += 1;
        let name = format!("{} {}", self.user.name(), self.number);
        let block = match is_raw {
            true => Block::raw(name.into_bytes()).unwrap(),
            false => cbor_block(&name, &links),
        };
        self.made
            .insert(block.cid().clone(), (block.clone(), links));
        block
    }

    /// Makes a tree of new blocks, kept ones and old ones, and says what has to be uploaded for it.
    fn compose(&mut self, is_honest: bool) -> (Cid, Vec<Block>) {
        let current = self.trees.last().map(|t| self.below(t)).unwrap_or_default();
        let all: BTreeSet<Cid> = self.made.keys().cloned().collect();
        let mut upload = BTreeMap::new();
        let mut links = BTreeSet::new();
        for _ in 0..=self.dice.roll(3) {
            match self.dice.roll(4) {
                0 => links.extend(self.pick(&current)),
                1 => {
                    if let Some(old) = self.pick(&all) {
                        for cid in self.below(&old) {
                            // The honest put again whatever is not current.
                            if is_honest && !current.contains(&cid) {
                                upload.insert(cid.clone(), self.made[&cid].0.clone());
                            }
                        }
                        links.insert(old);
                    }
                }
                _ => {
                    let is_raw = self.dice.roll(3) > 0;
                    let leaf = self.make(is_raw, Vec::new());
                    links.insert(leaf.cid().clone());
                    upload.insert(leaf.cid().clone(), leaf);
                }
            }
        }
        let top = self.make(false, links.into_iter().collect());
        upload.insert(top.cid().clone(), top.clone());
        (top.cid().clone(), upload.into_values().collect())
    }

    /// Does one thing that a client may do.
    async fn act(&mut self, node: &TestNode) {
        match self.dice.roll(10) {
            0..=3 => {
                let (tree, blocks) = self.compose(true);
                let answer = self.user.commit(node, &tree, &blocks).await;
                assert_eq!(answer.body, [1], "an honest client: {}", answer.message());
                self.trees.push(tree);
            }
            4 | 5 => {
                let (tree, blocks) = self.compose(true);
                let root = self.user.root(&tree).await;
                let transaction = format!("prepared-{}", self.number);
                self.user.put(node, &transaction, &blocks).await;
                self.user.put(node, &transaction, &root.all_blocks()).await;
                if let Some((old, ..)) =
                    self.prepared.replace((transaction, tree, self.trees.len()))
                {
                    self.user.close(node, &old).await;
                }
            }
            6 => self.finish(node).await,
            7 => {
                // Back to an old root, with nothing put again.
                let trees: BTreeSet<Cid> = self.trees.iter().cloned().collect();
                if let Some(tree) = self.pick(&trees)
                    && self.trees.last() != Some(&tree)
                {
                    let root = self.user.root(&tree).await.cid();
                    self.dishonest(node, &root, tree).await;
                }
            }
            8 => {
                let (tree, blocks) = self.compose(false);
                let root = self.user.root(&tree).await;
                self.user.put(node, "sloppy", &blocks).await;
                self.user.put(node, "sloppy", &root.all_blocks()).await;
                if self.dice.roll(2) == 0 {
                    self.user.close(node, "sloppy").await;
                }
                self.dishonest(node, &root.cid(), tree).await;
                self.user.close(node, "sloppy").await;
            }
            _ => {
                // Uploaded and abandoned.
                let (_, blocks) = self.compose(true);
                self.user.put(node, "abandoned", &blocks).await;
                if self.dice.roll(2) == 0 {
                    self.user.close(node, "abandoned").await;
                }
            }
        }
    }

    /// Commits what was prepared, if what it builds on is still current.
    async fn finish(&mut self, node: &TestNode) {
        let Some((transaction, tree, at)) = self.prepared.take() else {
            return;
        };
        if at == self.trees.len() {
            let root = self.user.root(&tree).await.cid();
            let answer = self.user.point(node, &root).await;
            assert_eq!(answer.body, [1], "an honest client: {}", answer.message());
            self.trees.push(tree);
        }
        self.user.close(node, &transaction).await;
    }

    async fn dishonest(&mut self, node: &TestNode, root: &Cid, tree: Cid) {
        let answer = self.user.point(node, root).await;
        match answer.status {
            200 => {
                assert_eq!(answer.body, [1]);
                self.trees.push(tree);
            }
            _ => self.refused += 1,
        }
    }
}

type Shared = Arc<tokio::sync::Mutex<Vec<Client>>>;

/// Lets a client act at some points of a collection.
fn meddling(clients: Shared, node: TestNode, seed: u64) -> Hook {
    let dice = Arc::new(Mutex::new(Dice(seed)));
    let node = Arc::new(node);
    Arc::new(move |_| {
        let (clients, node, dice) = (clients.clone(), node.clone(), dice.clone());
        async move {
            let (acts, who) = {
                let mut dice = dice.lock();
                (dice.roll(3), dice.roll(2) as usize)
            };
            for _ in 1..acts {
                clients.lock().await[who].act(&node).await;
            }
        }
        .boxed()
    })
}

async fn check(world: &World, clients: &Shared) {
    for client in clients.lock().await.iter() {
        let roots = client.user.roots().await;
        world.reachable(client.user.name(), &roots).await;
    }
}

async fn history(seed: u64) -> (u64, u64) {
    let world = World::new().await;
    let mut dice = Dice(seed);
    let mut clients = Vec::new();
    for (name, n) in [("alice", 1), ("bob", 2)] {
        clients.push(Client {
            user: Uploader::sign_up(&world.server, name, n).await,
            dice: Dice(seed.wrapping_mul(31).wrapping_add(n.into())),
            made: BTreeMap::new(),
            trees: Vec::new(),
            prepared: None,
            number: 0,
            refused: 0,
        });
    }
    let clients: Shared = Arc::new(tokio::sync::Mutex::new(clients));
    let mut deleted = 0;
    for step in 0..STEPS {
        let who = dice.roll(2) as usize;
        match dice.roll(6) {
            0 | 1 => {
                let hook = meddling(clients.clone(), world.client(), seed * 1000 + step);
                world.set_hook(Some(hook));
                let options = CollectOptions {
                    now: dice.roll(2) == 0,
                    all: dice.roll(4) == 0,
                    ..CollectOptions::default()
                };
                let report = world.collect_with(options).await;
                world.set_hook(None);
                deleted += report.deleted.blocks;
                assert_eq!(report.alarms, 0, "seed {seed} step {step}: {report:?}");
                check(&world, &clients).await;
            }
            2 => {
                let minutes = [1, 30, 90, 25 * 60][dice.roll(4) as usize];
                if minutes > 24 * 60 {
                    // An upload that takes a day loses its protection; only then may its commit be refused.
                    clients.lock().await[0].finish(&world.server).await;
                    clients.lock().await[1].finish(&world.server).await;
                }
                world.wait(Duration::from_secs(minutes * 60)).await;
            }
            _ => clients.lock().await[who].act(&world.server).await,
        }
    }
    // Quiet: open transactions run out, and two collections later nothing is left over.
    for client in clients.lock().await.iter_mut() {
        client.finish(&world.server).await;
    }
    for _ in 0..25 {
        world.wait(Duration::from_secs(3600)).await;
        // What runs out of the machine's timer and of the clock is the same.
        let dry_run = CollectOptions {
            dry_run: true,
            ..CollectOptions::default()
        };
        world.collect_with(dry_run).await;
    }
    world.settle().await;
    for _ in 0..2 {
        world.wait(GRACE).await;
        let report = world.collect().await;
        assert_eq!(report.alarms, 0, "seed {seed}: {report:?}");
    }
    let mut refused = 0;
    for client in clients.lock().await.iter() {
        let roots = client.user.roots().await;
        let name = client.user.name();
        let needed = world.reachable(name, &roots).await;
        assert_eq!(
            world.stored(name).await,
            needed,
            "seed {seed}: {name} has garbage left"
        );
        refused += client.refused;
    }
    for name in ["alice", "bob"] {
        let counted = recount(&world, name, false).await;
        assert!(counted.is_right_now, "seed {seed}: {counted:?}");
    }
    let report = world.collect().await;
    assert_eq!(
        of(&report, "alice").outcome,
        Outcome::Unchanged,
        "seed {seed}"
    );
    (deleted, refused)
}

#[tokio::test(start_paused = true)]
async fn rel_8_random_histories_lose_nothing_and_rel_9_leave_nothing() {
    let seeds = std::env::var("KASTRO_GC_SEEDS").ok();
    let seeds = seeds.map_or(SEEDS, |n| n.parse().expect("a number of seeds"));
    let (mut deleted, mut refused) = (0, 0);
    for seed in 0..seeds {
        let (some, more) = history(seed).await;
        deleted += some;
        refused += more;
    }
    assert!(
        deleted > seeds && refused > 0,
        "{deleted} deleted, {refused} refused"
    );
}
