//! Names that a client which checks nothing has put into an account (Spec: 40 FS-1).

use champ::{
    Block,
    cbor::{Record, RecordError, Value},
};
use cryptree::{
    capability::MapKey,
    ciphertext::PaddedCipherText,
    client::Detail,
    directory::ChildList,
    node::{CryptreeNode, OpenNode},
};
use rand_chacha::ChaCha20Rng;

use super::{alice, files::put, machine, surgery::replace_nodes};

/// What must never become part of a local path, on any system.
const HOSTILE: [&str; 8] = [
    "..",
    ".",
    "",
    "/",
    "../../x",
    "/abs",
    "a/../../b",
    "dir/file",
];

/// Whatever stands in it, unchecked.
struct Unchecked(Value);

impl Record for Unchecked {
    fn to_value(&self) -> Value {
        self.0.clone()
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        Ok(Self(value))
    }
}

fn rename(value: &mut Value, name: &str) {
    let Value::Map(map) = value else {
        panic!("no map")
    };
    map.insert("n", name);
}

/// A node whose own properties say another name.
fn renamed(node: &OpenNode, name: &str, rng: &mut ChaCha20Rng) -> Block {
    let Value::Map(mut parent) = node.parent_part().to_value() else {
        panic!("no map")
    };
    let mut properties = node.properties().to_value();
    rename(&mut properties, name);
    parent.insert("s", properties);
    let parent = Unchecked(Value::Map(parent));
    let sealed = PaddedCipherText::seal(node.parent_key(), &parent, 16, rng);
    let Value::Map(mut whole) = node.node().to_value() else {
        panic!("no map")
    };
    whole.insert("p", sealed.to_value());
    let node = CryptreeNode::from_value(Value::Map(whole)).unwrap();
    node.to_block().unwrap()
}

/// A folder whose list of children says other names for those called `f0`, `f1` and so on.
fn relisted(folder: &OpenNode, rng: &mut ChaCha20Rng) -> Block {
    let Value::List(mut list) = folder.children(&[]).unwrap().to_value() else {
        panic!("no list")
    };
    for child in &mut list {
        let Value::Map(map) = &*child else {
            panic!("no map")
        };
        let found = map.get("n").cloned();
        for (i, hostile) in HOSTILE.iter().enumerate() {
            if found == Some(Value::from(format!("f{i}"))) {
                rename(child, hostile);
            }
        }
    }
    let list = ChildList::from_value(Value::List(list)).unwrap();
    let sealed = folder.with_children(&list, rng).unwrap();
    assert!(sealed.fragments.is_empty());
    sealed.node.to_block().unwrap()
}

#[tokio::test]
async fn fs_1_names_that_lead_away_are_told_as_damage_and_never_handed_out() {
    // In the folder's list; in the item itself, where the list tells no names to who reads properties; in both.
    for (in_list, in_node) in [(true, false), (false, true), (true, true)] {
        let (node, session) = alice().await;
        session.make_folder("/alice/d").await.unwrap();
        put(&session, "/alice/d/fine", b"fine").await.unwrap();
        for (i, hostile) in HOSTILE.iter().enumerate() {
            let path = format!("/alice/d/f{i}");
            put(&session, &path, b"x").await.unwrap();
            if in_node {
                let make = |at: &cryptree::capability::AbsoluteCapability,
                            file: &OpenNode,
                            rng: &mut ChaCha20Rng|
                 -> Vec<(MapKey, Block)> {
                    vec![(at.map_key, renamed(file, hostile, rng))]
                };
                replace_nodes(&node, &session, &path, make).await;
            }
        }
        if in_list {
            replace_nodes(&node, &session, "/alice/d", |at, folder, rng| {
                vec![(at.map_key, relisted(folder, rng))]
            })
            .await;
        }
        let victim = machine(&node, 2).await;
        for detail in [Detail::Quick, Detail::Full] {
            let listing = victim.list("/alice/d", detail).await.unwrap();
            let mut names: Vec<&str> = listing.entries.iter().map(|e| e.name.as_str()).collect();
            names.retain(|name| !name.starts_with('f'));
            assert!(names.is_empty(), "{names:?}");
            assert!(listing.entries.iter().any(|entry| entry.name == "fine"));
            if in_list || matches!(detail, Detail::Full) {
                let (found, told) = (listing.entries.len(), listing.damaged.len());
                assert_eq!((found, told), (1, HOSTILE.len()), "{in_list} {in_node}");
            }
        }
        let mut walk = victim.walk("/alice/d").await.unwrap();
        while let Some(page) = walk.next().await.unwrap() {
            for found in page.entries {
                assert_eq!(found.entry.name, "fine");
            }
        }
    }
}
