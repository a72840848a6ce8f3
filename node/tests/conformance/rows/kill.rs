//! LOG-7, LNK-1, WR-7, PKI-8: a node that is killed in the middle leaves the old state or the new one, and everything
//! it acknowledged.
//!
//! A child process runs a node and drives it with sign-ups, password changes, second factors, commits of two
//! pointers and uses of a secret link; each acknowledgement is a line of its output. It is killed at a random moment;
//! then the folder is opened here and looked at through the calls that a client has.
//!
//! `KASTRO_KILL_ROUNDS=100 cargo test --release -p node --test main rows::kill -- --nocapture` runs more rounds.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use champ::{
    Block, Cid,
    cbor::{Record as _, Value},
    map::Champ,
    text::to_hex,
};
use pki::{
    keys::SecretSigningKey,
    pointer::PointerUpdate,
    wire::{
        Body as _,
        block_group::BlockFormat,
        link::{EncryptedCapability, LinkCounts, LinkLabel, SecretLinkTarget},
        login_data::{LoginData, OpaqueCipherText, RootChange},
        op_log::BlockWrite,
        second_factor::{MultiFactorMethods, TotpKey},
    },
    writer_data::WriterData,
};

use super::on_disk;
use crate::{
    conformance::{
        account::{Account, Root, owning, sign_block, unique_millis, update},
        accounts::code,
        harness::{NOW, TestNode},
    },
    store::model_disk::Dice,
};

const FOLDER: &str = "KASTRO_KILL_NODE_FOLDER";
const ROUND: &str = "KASTRO_KILL_NODE_ROUND";
const ROUNDS: &str = "KASTRO_KILL_ROUNDS";
/// The clock of each victim starts later: signatures over equal times are equal, and work once.
const ROUND_MILLIS: i64 = 10_000;
/// Sign-ups, passwords, factors, commits, uses of a link.
const TASKS: [&str; 5] = ["signup", "password", "factor", "commit", "link"];
const LABEL: u32 = 77;

fn acknowledge(task: &str, step: u64) {
    let line = format!("acknowledged {task} {step}\n");
    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
}

fn named(n: u64) -> Account {
    Account::new(&format!("new-{n}"), 100 + (n % 100) as u8)
}

fn changer() -> Account {
    Account::new("changer", 1)
}

fn enroller() -> Account {
    Account::new("enroller", 2)
}

fn committer() -> Account {
    Account::new("committer", 3)
}

fn linker() -> Account {
    Account::new("linker", 4)
}

/// The login key of the n-th password.
fn password(n: u64) -> SecretSigningKey {
    let mut seed = [77; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    SecretSigningKey::from_seed(&seed)
}

/// The identity's root block that goes with the n-th password: it names the number.
async fn root_of(n: u64) -> Root {
    let mut root = changer().identity_root().await;
    if n > 0 {
        root.data.public = Some(Cid::of_cbor(&n.to_be_bytes()));
    }
    root
}

async fn signs_up(node: &TestNode, who: &Account) -> bool {
    let request = who.request(node).await;
    node.post("peergos/v0/core/signup", request.to_body())
        .await
        .status
        == 200
}

/// One key of each kind in turn, until the process dies.
async fn sign_up_task(node: &TestNode, mut n: u64) {
    // More names than seeds would need keys that are taken.
    while n < 100 {
        if signs_up(node, &named(n)).await {
            acknowledge("signup", n + 1);
        }
        n += 1;
    }
    std::future::pending().await
}

async fn password_task(node: &TestNode, mut n: u64) {
    let who = changer();
    loop {
        let (before, after) = (root_of(n).await, root_of(n + 1).await);
        let block = after.data.to_block().unwrap();
        let mut data: LoginData = who.login_data(&password(n + 1), (n + 1) as u8);
        data.root_change = Some(RootChange {
            block: BlockWrite {
                block: block.bytes().clone(),
                format: BlockFormat::DagCbor,
                signature: sign_block(&who.identity, block.cid()),
                writer: who.identity.writer(),
            },
            pointer: update(
                &who.identity,
                Some(&before.cid()),
                Some(block.cid()),
                Some(n as i64 + 2),
            ),
        });
        let answer = who.set_login(node, &data).await;
        // Twenty an hour are allowed.
        if answer.status == 429 {
            return std::future::pending().await;
        }
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (200, &[1][..]),
            "{}",
            answer.message()
        );
        n += 1;
        acknowledge("password", n);
    }
}

fn signed(node: &TestNode, who: &Account, call: &str, more: &str) -> String {
    let now = node::clock::Clock::now_millis(node.clock.as_ref());
    let path = format!("peergos/v0/login/{call}");
    format!("{}{more}", who.signed(&path, unique_millis(now)))
}

/// Adds a factor, enables it, deletes it: step 3n+1 is the enabled one.
async fn factor_task(node: &TestNode, mut step: u64) {
    let who = enroller();
    loop {
        let listed = listed(node, &who).await;
        if let Some(id) = listed.first() {
            let more = format!("&credid={}", to_hex(id));
            node.ok(&signed(node, &who, "deleteMfa", &more), "").await;
        } else {
            let text = node.ok(&signed(node, &who, "addTotp", ""), "").await;
            let key: TotpKey = String::from_utf8(text).unwrap().parse().unwrap();
            let now = node::clock::Clock::now_millis(node.clock.as_ref());
            let more = format!(
                "&credid={}&code={}",
                to_hex(&key.credential_id),
                code(&key, now)
            );
            let answer = node
                .post(&signed(node, &who, "enableTotp", &more), "")
                .await;
            // The clock may have moved to another step between making the code and using it.
            if answer.status != 200 {
                continue;
            }
        }
        step += 1;
        acknowledge("factor", step);
    }
}

async fn listed(node: &TestNode, who: &Account) -> Vec<bytes::Bytes> {
    let body = node.ok(&signed(node, who, "listMfa", ""), "").await;
    let methods = MultiFactorMethods::decode(&body).unwrap().0;
    methods
        .into_iter()
        .map(|method| method.credential_id)
        .collect()
}

/// Both writers of the committer at one step: roots whose trees name it.
async fn roots_of(n: u64) -> [(pki::keys::SecretKeyWithHash, Root); 2] {
    let who = committer();
    let of = async |key: pki::keys::SecretKeyWithHash, base: Root| {
        let mut root = base;
        root.data.public = Some(Cid::of_cbor(&n.to_be_bytes()));
        (key, root)
    };
    let identity = of(
        who.identity.clone(),
        owning(&who.identity, &[&who.home]).await,
    )
    .await;
    let home = of(who.home.clone(), owning(&who.home, &[]).await).await;
    [identity, home]
}

async fn commit_task(node: &TestNode, mut n: u64) {
    let who = committer();
    loop {
        let mut writes = Vec::new();
        for (key, root) in roots_of(n + 1).await {
            who.put_root(node, &key, &root).await;
            let signed = who.pointer(node, &key.writer()).await;
            let current = PointerUpdate::decode(&signed[64..]).unwrap();
            let sequence = current.sequence().unwrap() + 1;
            writes.push(update(
                &key,
                current.updated(),
                Some(&root.cid()),
                Some(sequence),
            ));
        }
        let answer = who.set_all(node, writes).await;
        assert_eq!(answer.body, [1], "{}", answer.message());
        n += 1;
        acknowledge("commit", n);
    }
}

async fn link_task(node: &TestNode, mut n: u64) {
    let target = format!("api/v0/link/get?label={LABEL}&owner={}", linker().owner());
    loop {
        node.ok(&target, "").await;
        n += 1;
        acknowledge("link", n);
    }
}

async fn publish(node: &TestNode) {
    let who = linker();
    let target = SecretLinkTarget {
        capability: EncryptedCapability {
            cipher_text: OpaqueCipherText {
                nonce: [1; 24],
                cipher: vec![2; 50].into(),
            },
            needs_password: false,
        },
        expiry_epoch_seconds: None,
        max_retrievals: Some(1_000_000),
    };
    let block = Block::cbor(target.encode()).unwrap();
    let mut links = Champ::empty_private(who.mirror.secret_hash_id());
    let label = LinkLabel::new(LABEL).unwrap();
    let link = Value::from(block.cid());
    let none = champ::MemoryBlocks::new();
    links
        .put(label.champ_key().to_vec(), None, link, &none)
        .await
        .unwrap();
    let (links, nodes) = links.finish().unwrap();
    let mut root = who.identity_root().await;
    let before = root.cid();
    root.data.links = Some(links);
    root.blocks.extend(nodes);
    root.blocks.push(block);
    who.put_root(node, &who.identity, &root).await;
    let write = update(&who.identity, Some(&before), Some(&root.cid()), Some(2));
    assert_eq!(who.set(node, &write).await.body, [1]);
}

/// What the folder says, found with the calls of a client; every account must be whole.
async fn look(node: &TestNode) -> HashMap<&'static str, u64> {
    let mut found = HashMap::new();
    // Sign-ups: each name is whole or free, and those that are there come first.
    let mut names = 0;
    for n in 0..100 {
        let who = named(n);
        let body = champ::data_stream::Writer::new().string(&who.name).finish();
        let chain = node.ok("peergos/v0/core/getChain", body).await;
        if chain == [0x80] {
            continue;
        }
        names = n + 1;
        assert_eq!(
            who.get_login(node, &who.login, NOW, "").await.status,
            200,
            "{}",
            who.name
        );
        for (key, root) in [
            (&who.identity, who.identity_root().await),
            (&who.home, who.home_root().await),
        ] {
            let pointer = who.pointer(node, &key.writer()).await;
            let update = PointerUpdate::decode(&pointer[64..]).unwrap();
            assert_eq!(update.updated(), Some(&root.cid()));
            for block in root.all_blocks() {
                let served = node.ok(&who.get_target(block.cid()), "").await;
                assert_eq!(served, *block.bytes());
            }
        }
        let bats = node
            .ok(&who.signed("peergos/v0/bats/getUserBats", NOW), "")
            .await;
        assert_eq!(
            bats,
            Value::List(vec![who.mirror_with_id().to_value()]).encode()
        );
    }
    found.insert("signup", names);
    // The password: exactly the one that goes with the published root block opens the account.
    let who = changer();
    let pointer = who.pointer(node, &who.identity.writer()).await;
    let update = PointerUpdate::decode(&pointer[64..]).unwrap();
    let number = update.sequence().unwrap() as u64 - 1;
    assert_eq!(update.updated(), Some(&root_of(number).await.cid()));
    for n in number.saturating_sub(2)..number + 3 {
        let key = if n == 0 {
            who.login.clone()
        } else {
            password(n)
        };
        let answer = who.get_login(node, &key, NOW, "").await;
        assert_eq!(
            answer.status == 200,
            n == number,
            "password {n} at {number}: {}",
            answer.message()
        );
    }
    let block = node
        .ok(&who.get_target(update.updated().unwrap()), "")
        .await;
    assert!(WriterData::decode(&block).is_ok());
    found.insert("password", number);
    // Factors: readable, at most one enabled, and asked for exactly then.
    let who = enroller();
    let enabled = listed(node, &who).await.len();
    assert!(enabled <= 1);
    let login = who.get_login(node, &who.login, NOW, "").await;
    assert_eq!(login.status, 200);
    assert_eq!(login.body[3] == 0xf4, enabled == 1);
    found.insert("factor", enabled as u64);
    // Both pointers of a commit, or none.
    let who = committer();
    let mut at = Vec::new();
    for key in [&who.identity, &who.home] {
        let pointer = who.pointer(node, &key.writer()).await;
        let update = PointerUpdate::decode(&pointer[64..]).unwrap();
        assert!(
            !node
                .ok(&who.get_target(update.updated().unwrap()), "")
                .await
                .is_empty()
        );
        at.push(update.sequence().unwrap() as u64 - 1);
    }
    assert_eq!(at[0], at[1], "one of two pointers moved");
    found.insert("commit", at[0]);
    let target = format!(
        "api/v0/link/counts?after=0&bat={}&owner=linker",
        linker().mirror_with_id().to_text()
    );
    let counts = LinkCounts::decode(&node.ok(&target, "").await).unwrap().0;
    found.insert("link", counts.first().map_or(0, |count| count.count as u64));
    found
}

/// The victim; runs until it is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn victim() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let node = TestNode::with(on_disk(folder.as_ref())).await;
    let round: i64 = std::env::var(ROUND).unwrap().parse().unwrap();
    node.clock.advance((round + 1) * ROUND_MILLIS);
    let at = look(&node).await;
    let (sign_ups, passwords, commits, links) =
        (at["signup"], at["password"], at["commit"], at["link"]);
    let factors = at["factor"];
    tokio::join!(
        sign_up_task(&node, sign_ups),
        password_task(&node, passwords),
        factor_task(&node, factors),
        commit_task(&node, commits),
        link_task(&node, links),
    );
}

/// Runs the victim for a while after its first acknowledgement; returns the last step each task acknowledged.
fn run_and_kill(folder: &Path, round: u64, run: Duration) -> HashMap<String, u64> {
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "conformance::rows::kill::victim",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(FOLDER, folder)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(victim.stdout.take().unwrap());
    let (lines, received) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if lines.send(line).is_err() {
                break;
            }
        }
    });
    let mut acknowledged = HashMap::new();
    let mut note = |line: &str| {
        // The runner's own text may stand in front of the first line.
        let Some((_, rest)) = line.split_once("acknowledged ") else {
            return false;
        };
        let (task, step) = rest.split_once(' ').unwrap();
        acknowledged.insert(task.to_owned(), step.parse().unwrap());
        true
    };
    let mut end: Option<Instant> = None;
    loop {
        let left = end.map_or(Duration::from_secs(120), |end| {
            end.saturating_duration_since(Instant::now())
        });
        let Ok(line) = received.recv_timeout(left) else {
            break;
        };
        if note(&line) && end.is_none() {
            end = Some(Instant::now() + run);
        }
    }
    victim.kill().unwrap();
    // It was killed; it did not fail on its own.
    assert_eq!(victim.wait().unwrap().code(), None);
    for line in received {
        note(&line);
    }
    reader.join().unwrap();
    acknowledged
}

#[tokio::test]
async fn log_7_a_killed_node_leaves_the_old_state_or_the_new_one() {
    if std::env::var_os(FOLDER).is_some() {
        return;
    }
    let rounds = std::env::var(ROUNDS).map_or(4, |rounds| rounds.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::with(on_disk(folder.path())).await;
    for who in [changer(), enroller(), committer(), linker()] {
        assert!(signs_up(&node, &who).await);
    }
    publish(&node).await;
    node.node.close().await.unwrap();
    drop(node);
    let mut dice = Dice(u64::from(std::process::id()));
    let mut seen = HashMap::new();
    for round in 0..rounds {
        let acknowledged =
            run_and_kill(folder.path(), round, Duration::from_millis(dice.roll(300)));
        let node = TestNode::with(on_disk(folder.path())).await;
        let found = look(&node).await;
        node.node.close().await.unwrap();
        for (task, step) in &acknowledged {
            *seen.entry(task.clone()).or_insert(0) += 1;
            // What a factor task acknowledges last says how many are enabled, give or take the one in flight.
            if task != "factor" {
                let at = found[task.as_str()];
                assert!(
                    at >= *step,
                    "round {round}: {task} is at {at}, {step} was acknowledged"
                );
                let bound = if task == "signup" { 100 } else { *step + 1 };
                assert!(at <= bound, "round {round}: {task} is at {at} after {step}");
            }
        }
    }
    assert!(
        TASKS.iter().all(|task| seen.contains_key(*task)),
        "{seen:?}"
    );
}
