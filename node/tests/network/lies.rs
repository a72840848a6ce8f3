//! Homes that lie to a mirror, and users whose trees are traps (Spec: 12, 40 INT-15, P2P-10).

use bytes::Bytes;
use champ::{Block, Cid, Codec, Multihash, access::Bat};
use node::{
    operator::mirror::MirrorNode,
    store::{BlockStore as _, Partition},
};
use pki::{
    keys::SecretSigningKey,
    pointer::{PointerUpdate, SignedPointer},
    wire::block_group::BlockFormat,
};

use super::world::{Net, Twist, contents, message};
use crate::conformance::account::{Account, cbor_block, update};

/// A lie about what is below a path, told by every answer.
fn about(path: &'static str, lie: impl Fn(&Bytes) -> Bytes + Send + Sync + 'static) -> Twist {
    Box::new(move |target, body| match target.contains(path) {
        true => lie(&body),
        false => body,
    })
}

/// Each lie is told during a whole pass: nothing of it stays, what was copied before is complete and in force, and the next
/// pass without it is as if it had not been.
#[tokio::test]
async fn int_15_p2p_10_each_lie_of_a_home_is_noticed_and_leaves_the_copy_as_it_was() {
    let net = Net::new();
    let home = net.authority().await;
    let mirror = net.join(&home).await;
    let alice = Account::sign_up(&home.node, "alice", 1).await;
    let writer = alice.home.writer();
    let oldest = alice.pointer(&home.node, &writer).await;
    let first = alice.write(&home.node, &contents(1, 6, 6)).await.unwrap();
    mirror.sync().await;
    mirror.keep(&alice, &home).await;
    assert_eq!(mirror.mirror().await.in_step, 1);
    let kept = alice.pointer(&home.node, &writer).await;
    let second = alice.write(&home.node, &contents(2, 6, 6)).await.unwrap();

    // By alice's own key: the same sequence as the copy, with another target.
    let twin = PointerUpdate::try_new(None, Some(second.root.clone()), Some(first.sequence));
    let twin = SignedPointer::sign(twin.unwrap(), alice.home.secret()).into_bytes();
    // Newer than everything, by somebody else's key.
    let newer = PointerUpdate::try_new(
        Some(first.root.clone()),
        Some(second.root.clone()),
        Some(second.sequence + 5),
    );
    let forged = SignedPointer::sign(newer.unwrap(), &SecretSigningKey::from_seed(&[66; 32]));
    let forged = forged.into_bytes();
    const BLOCK: &str = "block/get";
    const POINTER: &str = "mutable/getPointer";
    let at_home_writer = move |lie: Bytes| -> Twist {
        let of_writer = format!("writer={writer}");
        Box::new(move |target, body| {
            match target.contains(POINTER) && target.contains(&of_writer) {
                true => lie.clone(),
                false => body,
            }
        })
    };
    let other = cbor_block("another block", &[]).bytes().clone();
    let lies: Vec<(&str, Twist, &str)> = vec![
        (
            "a changed byte",
            about(BLOCK, |body| {
                let mut bytes = body.to_vec();
                let last = bytes.last_mut().unwrap();
                *last ^= 1;
                bytes.into()
            }),
            "wrong block",
        ),
        (
            "another block",
            about(BLOCK, move |_| other.clone()),
            "wrong block",
        ),
        (
            "a block that goes on and on",
            about(BLOCK, |body| [&body[..], &vec![0; 3 << 20]].concat().into()),
            "does not give the data",
        ),
        ("no block", about(BLOCK, |_| Bytes::new()), "missing"),
        (
            "the pointer of before",
            at_home_writer(oldest.into()),
            "back",
        ),
        ("a second history", at_home_writer(twin), "sequence"),
        ("a forged pointer", at_home_writer(forged), "not signed"),
        ("no pointer any more", at_home_writer(Bytes::new()), "back"),
        (
            "bytes that are no pointer",
            at_home_writer(vec![7; 120].into()),
            "not signed",
        ),
        (
            "a pointer that goes on and on",
            at_home_writer(vec![7; 1 << 20].into()),
            "does not give the data",
        ),
    ];
    for (name, lie, expected) in lies {
        net.links.twist(Some(lie));
        let run = mirror.mirror().await;
        assert_eq!((run.in_step, run.failed), (0, 1), "{name}");
        let shown = mirror.keep_shown("alice").await.error.unwrap();
        assert!(shown.contains(expected), "{name}: {shown}");
        // The copy is what it was, and can be read.
        net.links.twist(None);
        net.kill(&home);
        assert!(alice.is_complete(&mirror, &first).await, "{name}");
        assert!(!alice.is_complete(&mirror, &second).await, "{name}");
        let here = alice.pointer(&mirror.node, &alice.home.writer()).await;
        assert_eq!(here, kept, "{name}");
        net.revive(&home);
    }
    assert_eq!(mirror.mirror().await.in_step, 1);
    assert!(alice.is_complete(&mirror, &second).await);
}

/// Trees that are legal to store, and traps for whoever walks them by their paths: millions of paths over a few blocks, a
/// chain of a thousand, a block full of links to nothing that can be fetched.
#[tokio::test]
async fn p2p_10_dos_3_trees_that_are_traps_cost_what_their_blocks_cost() {
    let net = Net::new();
    let home = net.authority().await;
    let mirror = net.join(&home).await;
    let alice = Account::sign_up(&home.node, "alice", 1).await;
    mirror.sync().await;
    mirror.keep(&alice, &home).await;
    assert_eq!(mirror.mirror().await.in_step, 1);

    let mut blocks = vec![cbor_block("leaf", &[])];
    for level in 0..7 {
        let below = vec![blocks.last().unwrap().cid().clone(); 8];
        blocks.push(cbor_block(&format!("level {level}"), &below));
    }
    let wide = blocks.last().unwrap().cid().clone();
    for depth in 0..1000 {
        let below = [blocks.last().unwrap().cid().clone()];
        blocks.push(cbor_block(&format!("depth {depth}"), &below));
    }
    let deep = blocks.last().unwrap().cid().clone();
    let inline: Vec<Cid> = (0..500_u32)
        .map(|number| Multihash::identity(&number.to_be_bytes()).unwrap())
        .map(|hash| Cid::v1(Codec::DagCbor, hash))
        .collect();
    blocks.push(cbor_block("inline", &inline));
    let inline = blocks.last().unwrap().cid().clone();
    blocks.push(cbor_block("top", &[wide, deep, inline]));
    let mut root = alice.home_root().await;
    let before = root.cid();
    root.data.tree = Some(blocks.last().unwrap().cid().clone());
    blocks.push(root.data.to_block().unwrap());
    for some in blocks.chunks(40) {
        let some: Vec<_> = some.iter().map(|block| block.bytes().clone()).collect();
        let put = alice.put(&home.node, &alice.home, BlockFormat::DagCbor, &some);
        let put = put.await;
        assert_eq!(put.status, 200, "{}", message(&put));
    }
    let write = update(&alice.home, Some(&before), Some(&root.cid()), Some(2));
    assert_eq!(alice.set(&home.node, &write).await.body, [1]);

    net.links.reset(None);
    let run = mirror.mirror().await;
    assert_eq!((run.in_step, run.failed), (1, 0));
    let asked = usize::try_from(net.links.blocks()).unwrap();
    assert!((1000..=blocks.len() + 10).contains(&asked), "{asked}");
    let pointer = alice.pointer(&mirror.node, &alice.home.writer()).await;
    assert_eq!(pointer, write.signed);
}

/// Keys in another order than anybody would write them, which a node takes from no client; this home has it all the same.
/// A copy is the same bytes, not what they mean.
#[tokio::test]
async fn int_15_a_copy_is_the_bytes_that_are_there() {
    let net = Net::new();
    let home = net.authority().await;
    let mirror = net.join(&home).await;
    let alice = Account::sign_up(&home.node, "alice", 1).await;
    mirror.sync().await;
    mirror.keep(&alice, &home).await;
    let odd = Block::cbor(b"\xa2\x61b\x01\x61a\x02".to_vec()).unwrap();
    let partition = Partition::new("u-alice").unwrap();
    let at_home = home.store.put_blocks(&partition, vec![odd.clone()], None);
    at_home.await.unwrap();
    let tree = cbor_block("tree", &[odd.cid().clone()]);
    let mut root = alice.home_root().await;
    let before = root.cid();
    root.data.tree = Some(tree.cid().clone());
    root.blocks.push(tree);
    alice.put_root(&home.node, &alice.home, &root).await;
    let write = update(&alice.home, Some(&before), Some(&root.cid()), Some(2));
    assert_eq!(alice.set(&home.node, &write).await.body, [1]);
    let run = mirror.mirror().await;
    assert_eq!((run.in_step, run.failed), (1, 0));
    net.kill(&home);
    let copied = mirror.node.ok(&alice.get_target(odd.cid()), "").await;
    assert_eq!(copied, odd.bytes()[..]);
}

/// One user's owned keys are in a block that does not exist: of this user there is no copy, of all others there is.
#[tokio::test]
async fn p2p_10_what_one_user_breaks_keeps_nobody_else_from_being_copied() {
    let net = Net::new();
    let token = Bat::from_secret([9; 32]);
    let of_node = token.clone();
    let home = net
        .add(None, move |config| config.instance_bat = Some(of_node))
        .await;
    let mirror = net.join(&home).await;
    let mut others = Vec::new();
    for (name, seed) in [("alice", 1), ("zoe", 2)] {
        let account = Account::sign_up(&home.node, name, seed).await;
        let version = account.write(&home.node, &contents(1, 2, 2)).await;
        others.push((account, version.unwrap()));
    }
    let mallory = Account::sign_up(&home.node, "mallory", 3).await;
    let mut root = mallory.home_root().await;
    let before = root.cid();
    root.data.owned = Some(cbor_block("nowhere", &[]).cid().clone());
    let block = root.data.to_block().unwrap();
    let bytes = [block.bytes().clone()];
    let put = mallory.put(&home.node, &mallory.home, BlockFormat::DagCbor, &bytes);
    assert_eq!(put.await.status, 200);
    let write = update(&mallory.home, Some(&before), Some(block.cid()), Some(2));
    assert_eq!(mallory.set(&home.node, &write).await.body, [1]);

    mirror.sync().await;
    let whole = MirrorNode {
        from: Some(home.id.to_string()),
        token: token.to_text(),
        quota_bytes: Some(1 << 30),
    };
    mirror.run(whole).await.unwrap();
    mirror.mirror().await;
    for (account, version) in &others {
        assert!(
            account.is_complete(&mirror, version).await,
            "{}",
            account.name
        );
    }
}
