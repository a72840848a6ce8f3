//! Secret links, made by one and opened by another (Spec: 23 §9).

use std::sync::{Arc, Mutex};

use champ::{
    Cid, MemoryBlocks,
    access::BatWithId,
    cbor::{Map, Record as _, Value},
    map::Champ,
};
use cryptree::{
    ClientError, Session,
    capability::{AbsoluteCapability, ChildEntry, RelativeCapability},
    client::LinkOptions,
    directory::{ChildList, ItemKeys, NewPage},
    link_node::{link_as_parent, link_children, link_properties, link_target},
    node::NodeError,
    properties::{FileName, FileProperties, Timestamp},
    secret_link::SecretLink,
};
use data_encoding::HEXLOWER;
use pki::{
    keys::{Owner, SecretKeyWithHash, SecretSigningKey},
    pointer::{PointerUpdate, SignedPointer},
    wire::link::{LinkLabel, SecretLinkTarget},
    writer_data::WriterData,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use zeroize::Zeroizing;

use super::{
    alice, client,
    files::{content, get, names, put},
    machine,
};
use crate::fake::{FakeNode, Fault, node::ok};

/// Returns what the label leads to at the node, and the number of labels there.
async fn target(node: &FakeNode, link: &SecretLink) -> (Option<SecretLinkTarget>, u64) {
    let (root, token, blocks) = {
        let state = node.state.lock().unwrap();
        let space = &state.blocks[&link.owner];
        let mut blocks = MemoryBlocks::new();
        blocks.extend(space.values().cloned());
        let pointer = state.current(&link.owner.as_writer()).unwrap();
        let root = space[pointer.updated().unwrap()].bytes();
        let data = WriterData::decode(root).unwrap();
        let token: BatWithId = state.bats["alice"].last().cloned().unwrap();
        (data.links.unwrap(), token, blocks)
    };
    let links = Champ::at(root).with_root_token(token.clone());
    assert_eq!(
        links.mirror_bat(&blocks).await.unwrap(),
        Some(token.id),
        "outsiders cannot list the links"
    );
    let label = LinkLabel::new(u32::try_from(link.label).unwrap()).unwrap();
    let count = links.count(&blocks).await.unwrap();
    match links.get(&label.champ_key(), &blocks).await.unwrap() {
        Some(Value::Link(cid)) => {
            let block = blocks.get(&cid).unwrap();
            (
                Some(SecretLinkTarget::decode(block.bytes()).unwrap()),
                count,
            )
        }
        _ => (None, count),
    }
}

/// Makes the node hand out the link, and keeps every byte that leaves clients from then on.
async fn hand_out(node: &FakeNode, link: &SecretLink) -> Arc<Mutex<Vec<u8>>> {
    let sealed = target(node, link).await.0.unwrap().capability;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let recorder = Arc::clone(&seen);
    node.lie(move |request| {
        let mut seen = recorder.lock().unwrap();
        seen.extend_from_slice(request.target().as_bytes());
        seen.extend_from_slice(request.body.as_deref().unwrap_or_default());
        match request.path == "api/v0/link/get" {
            true => Fault::Instead(ok(sealed.encode())),
            false => Fault::Honest,
        }
    });
    seen
}

async fn prepared() -> (Arc<FakeNode>, Session) {
    let (node, session) = alice().await;
    session.make_folders("/alice/docs/inner").await.unwrap();
    put(&session, "/alice/docs/inner/a.txt", b"hello")
        .await
        .unwrap();
    put(&session, "/alice/docs/large", &content(6 << 20, 1))
        .await
        .unwrap();
    put(&session, "/alice/private", b"private").await.unwrap();
    (node, session)
}

#[tokio::test]
async fn a_link_leads_to_its_item_and_what_is_below_and_nothing_else() {
    let (node, session) = prepared().await;
    let options = LinkOptions::default();
    let link = session.create_link("/alice/docs", &options).await.unwrap();
    let text = link.to_text();
    assert_eq!(text.parse::<SecretLink>().unwrap(), link);
    hand_out(&node, &link).await;
    // Somebody without an account.
    let visitor = client(&node, 7);
    let retrieved = visitor.retrieve_link(&link).await.unwrap();
    assert!(!retrieved.needs_password());
    let item = retrieved.open("").await.unwrap();
    assert_eq!(item.path(), "/alice/docs");
    let mut listed: Vec<String> = item
        .list()
        .await
        .unwrap()
        .entries
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    listed.sort();
    assert_eq!(listed, ["inner", "large"]);
    let inner = item.below(&["inner", "a.txt"]).await.unwrap();
    let file = inner.file().await.unwrap();
    assert_eq!(&file.read_at(0, 100).await.unwrap()[..], b"hello");
    let large = item.below(&["large"]).await.unwrap().file().await.unwrap();
    let end = large.read_at((6 << 20) - 3, 100).await.unwrap();
    assert_eq!(end[..], content(6 << 20, 1)[(6 << 20) - 3..]);
    assert!(matches!(
        item.below(&[".."]).await,
        Err(ClientError::NotFound { .. })
    ));
    assert!(matches!(
        item.below(&["private"]).await,
        Err(ClientError::NotFound { .. })
    ));
}

#[tokio::test]
async fn links_are_listed_with_their_terms_and_taken_back() {
    let (node, session) = prepared().await;
    let terms = LinkOptions {
        user_password: Zeroizing::new("swordfish 12".to_owned()),
        expiry_epoch_seconds: Some(1_900_000_000),
        max_retrievals: Some(3),
        opens_file: true,
    };
    let plain = LinkOptions::default();
    assert!(session.links().await.unwrap().is_empty());
    let a = session
        .create_link("/alice/docs/large", &terms)
        .await
        .unwrap();
    let b = session
        .create_link("/alice/docs/large", &plain)
        .await
        .unwrap();
    let c = session.create_link("/alice/docs", &plain).await.unwrap();
    let found = target(&node, &a).await;
    let (target_of_a, count) = (found.0.unwrap(), found.1);
    assert_eq!(count, 3);
    assert_eq!(target_of_a.max_retrievals, Some(3));
    assert_eq!(target_of_a.expiry_epoch_seconds, Some(1_900_000_000));
    assert!(target_of_a.capability.needs_password);
    // Another device knows them too.
    let again = machine(&node, 3).await;
    let mut links = again.links().await.unwrap();
    links.sort_by_key(|known| (known.path.clone(), known.link != a));
    let paths: Vec<&str> = links.iter().map(|known| known.path.as_str()).collect();
    assert_eq!(
        paths,
        ["/alice/docs", "/alice/docs/large", "/alice/docs/large"]
    );
    assert_eq!(
        [&links[0].link, &links[1].link, &links[2].link],
        [&c, &a, &b]
    );
    assert_eq!(*links[1].properties.user_password, "swordfish 12");
    assert_eq!(links[1].properties.max_retrievals, Some(3));
    again.remove_link(a.label).await.unwrap();
    assert_eq!(target(&node, &a).await.0, None);
    assert!(target(&node, &b).await.0.is_some());
    assert_eq!(session.links().await.unwrap().len(), 2);
    let error = session.remove_link(a.label).await.unwrap_err();
    assert!(matches!(error, ClientError::NotFound { .. }), "{error:?}");
    for path in ["/alice", "/alice/none"] {
        assert!(session.create_link(path, &plain).await.is_err(), "{path}");
    }
    assert_eq!(session.links().await.unwrap().len(), 2);
    assert_eq!(names(&session, "/alice/docs").await, ["inner", "large"]);
}

#[tokio::test]
async fn prv_8_the_secrets_of_a_link_never_leave_the_client() {
    let (node, session) = prepared().await;
    let password = "canary-5d1f of the visitor";
    let options = LinkOptions {
        user_password: Zeroizing::new(password.to_owned()),
        ..LinkOptions::default()
    };
    let before = Arc::new(Mutex::new(Vec::new()));
    let recorder = Arc::clone(&before);
    node.lie(move |request| {
        let mut seen = recorder.lock().unwrap();
        seen.extend_from_slice(request.target().as_bytes());
        seen.extend_from_slice(request.body.as_deref().unwrap_or_default());
        Fault::Honest
    });
    let link = session.create_link("/alice/docs", &options).await.unwrap();
    let mut secrets = vec![password.as_bytes().to_vec()];
    secrets.push(link.password.as_str().as_bytes().to_vec());
    for encoded in [password, link.password.as_str()] {
        secrets.push(HEXLOWER.encode(encoded.as_bytes()).into_bytes());
    }
    secrets.push(link.key(password).unwrap().bytes().to_vec());
    let during = hand_out(&node, &link).await;
    let visitor = client(&node, 7);
    let retrieved = visitor.retrieve_link(&link).await.unwrap();
    assert!(retrieved.needs_password());
    for wrong in ["", "canary", password.trim_end_matches('r')] {
        let error = retrieved.open(wrong).await.unwrap_err();
        assert!(matches!(error, ClientError::WrongCredentials), "{error:?}");
    }
    let item = retrieved.open(password).await.unwrap();
    item.list().await.unwrap();
    let file = item.below(&["large"]).await.unwrap().file().await.unwrap();
    file.read_at(0, 1).await.unwrap();
    for (what, seen) in [("making", &before), ("opening", &during)] {
        let seen = seen.lock().unwrap();
        for secret in &secrets {
            let is_hit = seen.windows(secret.len()).any(|window| window == secret);
            assert!(!is_hit, "{what} a link sent a secret");
        }
    }
    // One retrieval, however often the password was tried.
    let during = String::from_utf8_lossy(&during.lock().unwrap())
        .matches("api/v0/link/get")
        .count();
    assert_eq!(during, 1);
}

#[tokio::test]
async fn lnk_4_a_link_gives_nothing_to_write_with() {
    let (node, session) = prepared().await;
    let options = LinkOptions::default();
    let link = session.create_link("/alice/docs", &options).await.unwrap();
    let sealed = target(&node, &link).await.0.unwrap().capability;
    let capability = link.open(&sealed, "").unwrap();
    assert_eq!(capability.w_base, None, "no key to write");
    let own = session.capability_link("/alice/docs").await.unwrap();
    let own: AbsoluteCapability = own.parse().unwrap();
    assert_eq!(capability, own.read_only());
    assert_eq!(get(&session, "/alice/docs/inner/a.txt").await, b"hello");
}

/// What the holder of a writable link can open and sign: nothing but the space that it leads to.
#[test]
fn lnk_4_a_writable_link_opens_the_key_of_one_space_and_no_other() {
    let rng = &mut ChaCha20Rng::seed_from_u64(4);
    let key = |byte| SecretKeyWithHash::new(SecretSigningKey::from_seed(&[byte; 32]));
    let (identity, above, below) = (key(1), key(2), key(3));
    let owner = Owner(identity.hash().clone());
    let [home, link, sibling, docs] = [(); 4].map(|()| ItemKeys::random(rng));
    let at =
        |keys: &ItemKeys, space: &SecretKeyWithHash| keys.capability(owner.clone(), space.writer());
    let (home_at, link_at) = (at(&home, &above), at(&link, &above));
    let (sibling_at, docs_at) = (at(&sibling, &above), at(&docs, &below));
    let properties = |name: &str| {
        let name = FileName::parse(name).unwrap();
        FileProperties::directory(name, Timestamp::from_epoch_seconds(1), false)
    };
    let mut entries = Vec::new();
    for (name, child) in [("docs", &link_at), ("private", &sibling_at)] {
        entries.push(ChildEntry {
            name: FileName::parse(name).unwrap(),
            is_directory: Some(true),
            mime_type: None,
            created_epoch_seconds: None,
            capability: RelativeCapability::between(&home_at, child, rng).unwrap(),
            unknown: Map::new(),
        });
    }
    let mut seal = |keys, properties, parent, signer, children: &ChildList| {
        let page = NewPage {
            keys,
            properties,
            parent,
            signer,
            mirror: None,
        };
        page.seal(children, rng).unwrap().node
    };
    let children: ChildList = entries.into_iter().collect();
    let home_node = seal(&home, properties("alice"), None, Some(&above), &children);
    let up = Some(home.as_parent_link());
    let nothing = ChildList::new();
    let sibling_node = seal(&sibling, properties("private"), up.clone(), None, &nothing);
    let door = link_as_parent(&link.as_parent_link(), above.writer());
    let docs_node = seal(
        &docs,
        properties("docs"),
        Some(door),
        Some(&below),
        &nothing,
    );
    let target = {
        let rng = &mut ChaCha20Rng::seed_from_u64(5);
        link_children(&link_at, &docs_at, &properties("docs"), rng).unwrap()
    };
    let shown = link_properties(&properties("docs"));
    let link_node = seal(&link, shown, up, None, &target);

    // The owner sees it all.
    let opened = home_node.clone().open(&home_at.r_base).unwrap();
    let signer = opened.signer(&home_at).unwrap().unwrap();
    assert_eq!(signer.writer(), above.writer());
    assert_eq!(opened.children(&[]).unwrap().len(), 2);

    // The link goes out and comes back with the key to write.
    let rng = &mut ChaCha20Rng::seed_from_u64(6);
    let text = SecretLink::random(owner.clone(), rng);
    let held = text
        .open(&text.seal(&link_at, "", rng).unwrap(), "")
        .unwrap();
    assert!(held.is_writable());
    let at_link = link_node.open(&held.r_base).unwrap();
    let list = at_link.children(&[]).unwrap();
    let found = link_target(&held, &list).unwrap();
    assert_eq!(found, docs_at);
    let at_docs = docs_node.open(&found.r_base).unwrap();
    let signer = at_docs.signer(&found).unwrap().unwrap();
    assert_eq!(signer.writer(), below.writer());

    // The door itself holds no signing key: its name and place are the owner's.
    assert!(at_link.signer(&held).unwrap().is_none());
    // Up there is a name and nothing else, whatever write key is tried.
    let folder = at_link.parent_link().unwrap().resolve(&held).unwrap();
    assert_eq!((&folder.writer, &folder.w_base), (&above.writer(), &None));
    let from_below = home_node.clone().open(&folder.r_base).unwrap();
    assert_eq!(from_below.properties().name.as_str(), "alice");
    assert!(matches!(from_below.children(&[]), Err(NodeError::PathOnly)));
    assert!(from_below.base_part().is_err());
    let keys = [&held, &found].map(|capability| capability.w_base.clone());
    for w_base in keys.iter().cloned().chain([None]) {
        let tried = AbsoluteCapability {
            w_base: w_base.clone(),
            ..folder.clone()
        };
        assert!(from_below.signer(&tried).is_err());
        // Nor for somebody who may also read the folder above: a friend of the owner.
        let tried = AbsoluteCapability {
            w_base,
            ..home_at.clone()
        };
        assert!(opened.signer(&tried).is_err());
        let list = opened.children(&[]).unwrap();
        for child in list.iter().filter_map(|child| child.capability()) {
            assert!(child.resolve(&tried).is_err() || tried.w_base.is_none());
        }
    }
    // The sibling opens with none of the keys that are in reach.
    for key in [&held.r_base, &found.r_base, &folder.r_base] {
        assert!(sibling_node.clone().open(key).is_err());
    }
    // And what the key signs is nobody's but its own space's.
    let update = PointerUpdate::next(None, Some(Cid::of_raw(b"root"))).unwrap();
    let signed = SignedPointer::sign(update, signer.secret()).into_bytes();
    for (space, is_good) in [(&below, true), (&above, false), (&identity, false)] {
        let verified = SignedPointer::verify(&space.secret().public(), signed.clone());
        assert_eq!(verified.is_ok(), is_good);
    }
}
