//! Rows about nodes that lie: tables of names that break the rules or fork, tokens that others guess, requests for
//! nobody.

use std::collections::BTreeSet;

use champ::{
    Block, Cid,
    cbor::{Record as _, Value},
    map::{Champ, KeyHash},
};
use http::{Request, header};
use node::{
    operator::names::{ExportNames, ShowNames},
    p2p::{PeerId, empty, full},
    store::{Batch, BlockStore as _, MemoryStore, MetaStore as _, Partition, tables},
};
use pki::{
    chain::{ClaimChain, ClaimLink},
    claim::{Date, default_expiry},
    keys::{SecretKeyWithHash, SecretSigningKey},
    pointer::{PointerUpdate, SignedPointer},
    wire::{Body as _, block_group::BlockFormat},
    writer_data::WriterData,
};

use super::world::{Member, Net};
use crate::conformance::{
    account::{Account, private_raw},
    harness::NOW,
};

/// An authority whose keys somebody else has too, and uses to change its table behind its back.
struct Forger<'a> {
    authority: &'a Member,
    writer: SecretKeyWithHash,
}

impl<'a> Forger<'a> {
    async fn of(authority: &'a Member) -> Self {
        let file = authority.folder.path().join("names.keys");
        let export = ExportNames { file: file.clone() };
        authority.run(export).await.unwrap();
        let text = std::fs::read_to_string(file).unwrap();
        let seed = champ::text::from_hex(text.lines().nth(2).unwrap()).unwrap();
        let key = SecretSigningKey::from_seed(&seed.try_into().unwrap());
        Self {
            authority,
            writer: SecretKeyWithHash::new(key),
        }
    }

    fn row(&self) -> Vec<u8> {
        self.writer.writer().cid().to_bytes()
    }

    /// The signed pointer as it is.
    async fn signed(&self) -> bytes::Bytes {
        let key = self.row();
        let row = self.authority.store.get(tables::POINTERS, &key).await;
        row.unwrap().unwrap()
    }

    async fn put(&self, signed: bytes::Bytes) {
        let batch = Batch::new().put(tables::POINTERS, self.row(), signed);
        assert!(
            self.authority
                .store
                .commit(batch)
                .await
                .unwrap()
                .is_committed()
        );
    }

    /// Signs a table with these chains changed, under `sequence`.
    async fn write(&self, changes: &[(String, ClaimChain)], sequence: i64) {
        let signed = self.signed().await;
        let key = self.writer.secret().public();
        let before = SignedPointer::verify(&key, signed).unwrap();
        let before = before.update().updated().cloned();
        let source = Blocks(&self.authority.store);
        let block = source.get(before.as_ref().unwrap()).await;
        let mut root = WriterData::in_block(&block, &self.writer.writer()).unwrap();
        let mut table = Champ::at(root.tree.clone().unwrap()).hashed_by(KeyHash::Blake2b512);
        let mut blocks = Vec::new();
        for (name, chain) in changes {
            let entry = Block::cbor(chain.encode()).unwrap();
            let name = bytes::Bytes::copy_from_slice(name.as_bytes());
            let listed = table.get(&name, &source).await.unwrap();
            let value = Value::from(entry.cid());
            table
                .put(name, listed.as_ref(), value, &source)
                .await
                .unwrap();
            blocks.push(entry);
        }
        let (tree, nodes) = table.finish().unwrap();
        blocks.extend(nodes);
        root.tree = Some(tree);
        let root = root.to_block().unwrap();
        let update = PointerUpdate::try_new(before, Some(root.cid().clone()), Some(sequence));
        blocks.push(root);
        let store = &self.authority.store;
        store
            .put_blocks(&table_space(), blocks, None)
            .await
            .unwrap();
        let signed = SignedPointer::sign(update.unwrap(), self.writer.secret());
        self.put(signed.into_bytes()).await;
    }

    /// Signs a table whose tree is this block, whatever it holds.
    async fn write_tree(&self, tree: &Block, others: Vec<Block>) {
        let signed = self.signed().await;
        let key = self.writer.secret().public();
        let before = SignedPointer::verify(&key, signed).unwrap();
        let next = before.update().sequence().unwrap() + 1;
        let before = before.update().updated().cloned();
        let mut root = WriterData::new_writer(self.writer.writer());
        root.tree = Some(tree.cid().clone());
        let root = root.to_block().unwrap();
        let update = PointerUpdate::try_new(before, Some(root.cid().clone()), Some(next));
        let blocks = [others, vec![tree.clone(), root]].concat();
        let store = &self.authority.store;
        store
            .put_blocks(&table_space(), blocks, None)
            .await
            .unwrap();
        let signed = SignedPointer::sign(update.unwrap(), self.writer.secret());
        self.put(signed.into_bytes()).await;
    }

    async fn sequence(&self) -> i64 {
        let key = self.writer.secret().public();
        let signed = SignedPointer::verify(&key, self.signed().await).unwrap();
        signed.update().sequence().unwrap()
    }
}

fn table_space() -> Partition {
    Partition::new("u-peergos").unwrap()
}

/// The blocks of the table in a store.
struct Blocks<'a>(&'a MemoryStore);

impl Blocks<'_> {
    async fn get(&self, cid: &Cid) -> Block {
        self.0.block(&table_space(), cid).await.unwrap().unwrap()
    }
}

#[async_trait::async_trait]
impl champ::BlockSource for Blocks<'_> {
    async fn block(
        &self,
        cid: &Cid,
        _token: Option<&champ::access::BatWithId>,
    ) -> Result<Option<Block>, champ::SourceError> {
        Ok(self.0.block(&table_space(), cid).await.unwrap())
    }
}

/// The first claim of a name whose key nobody else has.
fn claim(name: &str, number: u32, home: &Member) -> ClaimChain {
    let mut seed = [0xc1; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let key = SecretSigningKey::from_seed(&seed);
    let expiry = default_expiry(NOW / 1000);
    let home = home.node.node.id().clone();
    ClaimChain::single(ClaimLink::sign(&name.parse().unwrap(), expiry, home, &key).unwrap())
}

#[tokio::test]
async fn pki_4_of_a_thousand_changes_one_is_illegal_and_the_others_are_taken() {
    let net = Net::new();
    let authority = net.authority().await;
    let follower = net.join(&authority).await;
    let alice = Account::sign_up(&authority.node, "alice", 1).await;
    follower.sync().await;
    let forger = Forger::of(&authority).await;
    let old = forger.signed().await;

    let mut changes: Vec<_> = (0..999)
        .map(|n| format!("user{n:03}"))
        .zip(0..)
        .map(|(name, n)| (name.clone(), claim(&name, n, &authority)))
        .collect();
    // Alice's name, for a key that she never signed for.
    changes.push(("alice".to_owned(), claim("alice", 5000, &authority)));
    let next = forger.sequence().await + 1;
    forger.write(&changes, next).await;
    let shown = follower.sync().await;
    assert_eq!(
        follower.chain("alice").await.identity(),
        Some(&alice.owner())
    );
    for (name, chain) in &changes[..999] {
        assert_eq!(follower.chain(name).await, *chain, "{name}");
    }
    // With `peergos` and alice.
    assert_eq!(shown.names, 1001);
    assert_eq!(shown.status.sequence, Some(next));
    let refused: Vec<_> = shown.status.refused.iter().map(|(name, _)| name).collect();
    assert_eq!(refused, ["alice"]);

    // A lower sequence: nothing of it is taken, and it is said so until it is over.
    let newest = forger.signed().await;
    forger.put(old).await;
    let refused = follower.run(ShowNames { sync: true }).await.unwrap_err();
    assert!(refused.message.contains("not taken over"), "{refused:?}");
    let shown = follower.names().await;
    assert!(shown.status.alarm.is_some());
    assert_eq!((shown.names, shown.status.sequence), (1001, Some(next)));
    forger.put(newest).await;
    assert_eq!(follower.sync().await.status.alarm, None);
}

/// Tables that are traps: one node in all places of the levels above it, so that a few blocks hold more paths than anybody
/// can walk; one deeper than any; one that is no table. Nothing of them is taken, and it goes on when they are gone.
#[tokio::test]
async fn pki_4_dos_3_tables_that_are_traps_are_left_alone() {
    let net = Net::new();
    let authority = net.authority().await;
    let follower = net.join(&authority).await;
    let alice = Account::sign_up(&authority.node, "alice", 1).await;
    follower.sync().await;
    let forger = Forger::of(&authority).await;
    let honest = forger.signed().await;
    let carol = Block::cbor(claim("carol", 1, &authority).encode()).unwrap();
    let bytes = |bytes: &[u8]| Value::from(bytes);
    let node = |buckets: &[u8], children: &[u8], contents: Vec<Value>| {
        let parts = vec![bytes(buckets), bytes(children), Value::List(contents)];
        Block::cbor(Value::List(parts).encode()).unwrap()
    };
    let bucket = |key: &[u8], value: Value| Value::List(vec![bytes(key), value]);
    let leaf = || node(&[1], &[], vec![bucket(b"carol", Value::from(carol.cid()))]);
    let tower = |lowest: Block, levels: usize, places: &[u8]| {
        let mut blocks = vec![lowest];
        for _ in 0..levels {
            let below = Value::from(blocks.last().unwrap().cid());
            let count = places.iter().map(|byte| byte.count_ones() as usize).sum();
            blocks.push(node(&[], places, vec![below; count]));
        }
        let top = blocks.pop().unwrap();
        (top, blocks)
    };
    let no_table = Block::cbor(Value::from("no table").encode()).unwrap();
    let long = node(&[1], &[], vec![bucket(&vec![b'x'; 900_000], Value::Int(1))]);
    for (name, (top, mut below)) in [
        ("many places", tower(leaf(), 30, &[0xff])),
        (
            "many places of nothing",
            tower(node(&[], &[], Vec::new()), 30, &[0xff]),
        ),
        ("too deep", tower(leaf(), 40, &[1])),
        ("no table", (no_table, Vec::new())),
    ] {
        below.push(carol.clone());
        forger.write_tree(&top, below).await;
        let refused = follower.run(ShowNames { sync: true }).await;
        assert!(refused.is_err(), "{name}");
        let shown = follower.names().await;
        assert!(shown.status.error.is_some(), "{name}");
        assert_eq!(
            follower.chain("alice").await.identity(),
            Some(&alice.owner()),
            "{name}"
        );
        assert!(follower.chain("carol").await.is_empty(), "{name}");
        forger.put(honest.clone()).await;
    }
    // A key that is no name, as long as a block can hold, is one refused entry; and whom the table leaves out stays.
    forger.write_tree(&long, Vec::new()).await;
    let shown = follower.sync().await;
    let refused = &shown.status.refused;
    let mut odd = refused.iter().filter(|(_, reason)| reason == "not a name");
    assert!(odd.next().unwrap().0.len() <= 80);
    assert!(
        refused.iter().any(|(name, _)| name == "alice"),
        "{refused:?}"
    );
    assert_eq!(
        follower.chain("alice").await.identity(),
        Some(&alice.owner())
    );
}

/// Chains that the network's own rules forbid, each in a table that is otherwise right (Spec: 10 §8.3, §8.4): a key that has
/// a name gets no second one, a first claim that is none blocks its name, a claim that has run out counts as any other.
#[tokio::test]
async fn pki_4_each_illegal_entry_of_a_table_is_kept_out_by_itself() {
    let net = Net::new();
    let authority = net.authority().await;
    let follower = net.join(&authority).await;
    let alice = Account::sign_up(&authority.node, "alice", 1).await;
    follower.sync().await;
    let before = follower.chain("alice").await;
    let forger = Forger::of(&authority).await;
    let home = authority.node.node.id().clone();
    let past = Date::new(2020, 1, 1).unwrap();
    let renewed = |name: &str, key: &SecretSigningKey, expiry: Date| {
        ClaimLink::sign(&name.parse().unwrap(), expiry, home.clone(), key).unwrap()
    };
    let key = alice.identity.secret();
    let of_alice = |link| ClaimChain::single(link);
    // By her key, for another name of hers; by somebody else's, under her hash; for another name than the entry's.
    let second = of_alice(renewed("alice-too", key, Date::NEVER));
    let mut forged = renewed(
        "forged",
        &SecretSigningKey::from_seed(&[66; 32]),
        Date::NEVER,
    );
    forged.owner = alice.owner();
    let misnamed = claim("somebody", 7, &authority);
    let expired = of_alice(renewed(
        "expired",
        &SecretSigningKey::from_seed(&[5; 32]),
        past,
    ));
    let changes = vec![
        // Rolled back: her own claim, of an earlier day.
        ("alice".to_owned(), of_alice(renewed("alice", key, past))),
        ("alice-too".to_owned(), second),
        ("forged".to_owned(), ClaimChain::single(forged)),
        ("misnamed".to_owned(), misnamed),
        ("expired".to_owned(), expired.clone()),
        ("honest".to_owned(), claim("honest", 8, &authority)),
    ];
    forger.write(&changes, forger.sequence().await + 1).await;
    let shown = follower.sync().await;
    let refused: BTreeSet<_> = shown
        .status
        .refused
        .iter()
        .map(|(name, _)| &name[..])
        .collect();
    assert_eq!(
        refused,
        BTreeSet::from(["alice", "alice-too", "forged", "misnamed"])
    );
    assert_eq!(follower.chain("alice").await, before);
    for name in ["forged", "misnamed"] {
        assert!(follower.chain(name).await.is_empty(), "{name}");
    }
    assert_eq!(follower.chain("expired").await, expired);
    assert_eq!(follower.chain("honest").await, changes[5].1);
    // Her key leads to her first name.
    let body = pki::wire::directory::KeyRequest(alice.owner().hash().clone());
    let name = follower
        .node
        .ok("peergos/v0/core/getUsername", body.to_body());
    assert!(name.await.ends_with(b"alice"));

    // Blocked names become valid by a claim that is.
    let right = claim("forged", 9, &authority);
    let changes = [("forged".to_owned(), right.clone())];
    forger.write(&changes, forger.sequence().await + 1).await;
    follower.sync().await;
    assert_eq!(follower.chain("forged").await, right);
}

#[tokio::test]
async fn int_10_a_forked_table_of_names_is_noticed() {
    let net = Net::new();
    let authority = net.authority().await;
    let (one, two) = (net.join(&authority).await, net.join(&authority).await);
    let forger = Forger::of(&authority).await;
    let before = forger.signed().await;
    let next = forger.sequence().await + 1;
    // Two histories of the same length, one for each node.
    let (first, second) = (claim("carol", 1, &authority), claim("carol", 2, &authority));
    forger
        .write(&[("carol".to_owned(), first.clone())], next)
        .await;
    let first_history = forger.signed().await;
    one.sync().await;
    forger.put(before).await;
    forger
        .write(&[("carol".to_owned(), second.clone())], next)
        .await;
    two.sync().await;
    assert_eq!(one.chain("carol").await, first);
    assert_eq!(two.chain("carol").await, second);

    // Whoever is shown the other one refuses it and says so; also after a restart, and when it has grown.
    for sequence in [next, next + 1] {
        if sequence > next {
            let other = claim("dave", 3, &authority);
            forger.put(first_history.clone()).await;
            forger.write(&[("dave".to_owned(), other)], sequence).await;
        }
        let (misled, holds) = match sequence == next {
            true => (&one, &first),
            false => (&two, &second),
        };
        let outcome = misled.run(ShowNames { sync: true }).await;
        let shown = misled.names().await;
        let is_alarmed = shown.status.alarm.is_some() && outcome.is_err();
        // Longer, it could have come from what was seen: the name that it changes is refused then.
        let is_refused = shown.status.refused.iter().any(|(name, _)| name == "carol");
        assert!(is_alarmed || is_refused, "{:?}", shown.status);
        assert_eq!(misled.chain("carol").await, *holds);
    }
}

/// There is no memory of refusals that somebody else could fill: each request is judged for itself.
#[tokio::test]
async fn bat_4_refusals_of_one_peer_are_not_those_of_another() {
    let net = Net::new();
    let home = net.authority().await;
    let (honest, hostile) = (net.join(&home).await, net.join(&home).await);
    let alice = Account::sign_up(&home.node, "alice", 1).await;
    let bat = champ::access::Bat::from_secret([7; 32]);
    let raw = private_raw(&bat, Some(&alice.mirror), b"for those with the token");
    let put = alice
        .put(
            &home.node,
            &alice.home,
            BlockFormat::Raw,
            std::slice::from_ref(&raw),
        )
        .await;
    assert_eq!(put.status, 200);
    let token = bat.with_calculated_id().to_text();
    let wrong = champ::access::Bat::from_secret([8; 32]);
    let wrong = wrong.with_calculated_id().to_text();
    let ask = async |from: PeerId, token: &str| {
        let target = alice.get_target(&Cid::of_raw(&raw));
        let request = Request::post(format!("/{target}&bat={token}"))
            .header(header::HOST, home.id.to_string())
            .body(empty())
            .unwrap();
        let answer = home.node.node.answer_peer(from, request).await;
        let status = answer.status().as_u16();
        let body = node::p2p::collect(answer.into_body(), 1 << 20).await;
        (status, body.unwrap())
    };
    for _ in 0..200 {
        assert_eq!(ask(hostile.id, &wrong).await.0, 400);
    }
    // The same peer with the right token, and another one before and after being refused itself.
    assert_eq!(ask(honest.id, &token).await, (200, raw.clone()));
    assert_eq!(ask(honest.id, &wrong).await.0, 400);
    assert_eq!(ask(honest.id, &token).await, (200, raw.clone()));
    assert_eq!(ask(hostile.id, &token).await, (200, raw));
}

#[tokio::test]
async fn soc_5_requests_are_kept_for_people_who_live_here_and_passed_on_once() {
    let net = Net::new();
    let home = net.authority().await;
    let (near, far) = (net.join(&home).await, net.join(&home).await);
    let alice = Account::sign_up(&home.node, "alice", 1).await;
    let stranger = Account::new("nobody", 9);
    near.sync().await;
    far.sync().await;
    let sealed = {
        let mut map = champ::cbor::Map::new();
        map.insert("f", vec![7_u8; 64]);
        map.insert("k", vec![Value::Int(1), Value::from(&[9_u8; 32])]);
        Value::Map(map).encode()
    };
    let rows = async |member: &Member| {
        let rows = member.store.scan(tables::FOLLOW_REQUESTS, b"", None, 10);
        rows.await.unwrap().len()
    };
    let target =
        |owner: &dyn std::fmt::Display| format!("peergos/v0/social/followRequest?owner={owner}");
    // Nobody's key: refused wherever it is asked, by clients and by peers, and nothing is kept.
    for member in [&home, &near] {
        let target = target(&stranger.owner());
        let refused = member.node.refused(&target, sealed.clone()).await;
        assert!(refused.contains("Unknown identity key"));
    }
    let from_peer = async |member: &Member, owner: &dyn std::fmt::Display| {
        let request = Request::post(format!("/{}", target(owner)))
            .header(header::HOST, member.id.to_string())
            .body(full(sealed.clone()))
            .unwrap();
        let answer = member.node.node.answer_peer(far.id, request).await;
        answer.status().as_u16()
    };
    assert_eq!(from_peer(&home, &stranger.owner()).await, 400);
    // Somebody who lives elsewhere: a client's request is passed on, a peer's is not.
    net.links.reset(None);
    assert_eq!(from_peer(&near, &alice.owner()).await, 400);
    let passed_on = |path: &String| path.ends_with("social/followRequest");
    assert!(!net.links.paths.lock().iter().any(passed_on));
    assert_eq!((rows(&home).await, rows(&near).await), (0, 0));
    let sent = near.node.ok(&target(&alice.owner()), sealed.clone()).await;
    assert_eq!(sent, [1]);
    assert_eq!(
        net.links
            .paths
            .lock()
            .iter()
            .filter(|p| passed_on(p))
            .count(),
        1
    );
    assert_eq!((rows(&home).await, rows(&near).await), (1, 0));
}
