//! `signup_account*.json`: from name and password to every file, with nothing but the blocks.

use champ::{
    Block, MemoryBlocks,
    cbor::{Record, Value},
    map::Champ,
};
use cryptree::{
    capability::{AbsoluteCapability, MapKey},
    chunk_chain::{ChunkPlace, chunk_count, fit_chunk},
    crypto::SecretBoxingKey,
    directory::ChildList,
    login::{LoginKeys, UserStaticData},
    node::{CryptreeNode, OpenNode},
};
use futures_util::FutureExt;
use pki::{
    algorithm::LoginAlgorithm,
    keys::{PublicKeyHash, Writer},
    pointer::SignedPointer,
    writer_data::WriterData,
};

use crate::{
    properties_vectors::compare_properties,
    replay::Replay,
    support::{Case, for_each_case, sha256},
};

#[test]
fn account_of_the_official_rust_client() {
    for_each_case("signup_account.json", account);
}

#[test]
fn account_of_the_official_java_client() {
    for_each_case("signup_account_java.json", account);
}

#[test]
fn legacy_account() {
    for_each_case("signup_account_legacy.json", account);
}

fn account(case: &Case) {
    let server = Server::of(case);
    let identity: Writer = case.text("identity").parse().unwrap();
    let root = server.root(&identity);
    let algorithm = root.algorithm.clone().unwrap();
    assert_eq!(algorithm.encode(), case.hex("algorithmCbor"));
    let LoginAlgorithm::Scrypt(cost) = &algorithm else {
        panic!("scrypt");
    };
    assert_eq!(cost.extra_salt(), case.text("extraSalt"));

    let (name, password) = (case.text("username"), case.text("password"));
    let keys = LoginKeys::derive(name, password, &algorithm).unwrap();
    assert_eq!(keys.root.bytes().to_vec(), case.hex("rootKey"));
    assert_eq!(
        keys.signing.public().encode(),
        case.hex("loginPublicKeyCbor")
    );

    let sealed = UserStaticData::decode(&case.base64("userStaticData")).unwrap();
    let in_root = root.entry_points.clone().map(UserStaticData::from);
    assert_eq!(in_root.is_some(), case.flag("staticDataInWriterData"));
    assert_eq!(in_root.as_ref().unwrap_or(&sealed), &sealed);
    let entries = sealed.open(&keys.root).unwrap();
    assert_eq!(entries.encode(), case.base64("entryPointsCbor"));
    let mut random = Replay::of([sealed.encode()[3..27].to_vec()]);
    let again = UserStaticData::seal(&keys.root, &entries, &mut random);
    assert_eq!(again.encode(), case.base64("userStaticData"));
    let wrong = LoginKeys::derive(name, "another password", &algorithm).unwrap();
    assert!(sealed.open(&wrong.root).is_err());

    // Identity and inbox key: stored in current accounts, derived in legacy ones.
    assert_eq!(
        entries.identity.is_some(),
        case.flag("entryPointsHasIdentity")
    );
    assert_eq!(entries.boxing.is_some(), case.flag("entryPointsHasBoxer"));
    let signing = match &entries.identity {
        Some(pair) => pair.public(),
        None => keys.signing.public(),
    };
    assert_eq!(PublicKeyHash::of(&signing), identity.0);
    let boxing = match &entries.boxing {
        Some(pair) => pair.public().clone(),
        None => {
            let derived = keys.legacy_boxing.clone().unwrap();
            SecretBoxingKey::Curve25519(derived).public().unwrap()
        }
    };
    assert_eq!(root.inbound, Some(boxing.hash()));
    assert_eq!(
        boxing.hash().to_string(),
        case.text("followRequestReceiver")
    );

    let home = entries.home(name).unwrap();
    let expected = case.part("entryPoint");
    assert_eq!(home.owner_name, expected.text("ownerName"));
    assert_eq!(home.capability.to_link_text(), expected.text("capability"));
    walk(case, &server, &home.capability);
}

/// Visits the whole tree and compares it with the expected one, both ways.
fn walk(case: &Case, server: &Server, home: &AbsoluteCapability) {
    let expected = case.list("expectedTree");
    let mut seen = 0;
    let mut pending = vec![(String::new(), home.clone())];
    while let Some((parent_path, capability)) = pending.pop() {
        let open = server.open(&capability).unwrap();
        let path = format!("{parent_path}/{}", open.properties().name);
        let entry = expected
            .iter()
            .find(|entry| entry.text("path") == path)
            .unwrap_or_else(|| panic!("{path} is not expected"));
        seen += 1;
        assert_eq!(capability.to_link_text(), entry.text("capability"));
        compare_entry(&open, entry);
        if parent_path.is_empty() {
            let signer = open.signer(&capability).unwrap().unwrap();
            assert_eq!(signer.writer(), capability.writer);
            assert!(open.parent_link().is_none());
        } else {
            let up = open.parent_link().unwrap().resolve(&capability).unwrap();
            let parent = server.open(&up).unwrap();
            assert_eq!(
                parent.properties().name,
                parent_path.rsplit('/').next().map(name).unwrap()
            );
            // A parent link tells the path, not the siblings.
            assert!(parent.children(&[]).is_err());
        }
        if open.properties().is_directory {
            for page in server.pages(&capability, open) {
                for child in page.entries() {
                    let target = child.capability.resolve(&capability).unwrap();
                    pending.push((path.clone(), target));
                }
            }
        } else {
            let content = server.content(&capability, &open);
            assert_eq!(sha256(&content), entry.hex("sha256"));
            if let Some(expected) = entry.optional_hex("contentHex") {
                assert_eq!(content, expected);
            }
        }
    }
    assert_eq!(seen, expected.len());
}

fn name(text: &str) -> cryptree::properties::FileName {
    cryptree::properties::FileName::parse(text).unwrap()
}

fn compare_entry(open: &OpenNode, entry: &Case) {
    // The tree lists a part of the properties; the rest is taken as read.
    let properties = open.properties();
    let mut fields = entry.0.clone();
    fields["isLink"] = properties.is_link.into();
    let hex = |bytes: &[u8]| champ::text::to_hex(bytes);
    let secret = properties.stream_secret.as_ref().map(|s| hex(s.bytes()));
    fields["streamSecret"] = secret.into();
    let level1 = properties.tree_hash.as_ref().and_then(|h| h.chunk_hashes());
    fields["treeHashLevel1"] = level1.map(|l| hex(l.bytes())).into();
    compare_properties(properties, &Case(fields));
}

/// The blocks and pointers of an account.
struct Server {
    blocks: MemoryBlocks,
    pointers: Vec<(Writer, SignedPointer)>,
}

impl Server {
    fn of(case: &Case) -> Self {
        let mut blocks = MemoryBlocks::new();
        blocks.extend(case.blocks("blocks"));
        let pointers = case.list("pointers").into_iter().map(|pointer| {
            let writer: Writer = pointer.text("writer").parse().unwrap();
            let key = writer.hash().inline_key().unwrap();
            let signed = SignedPointer::verify(&key, pointer.base64("signed")).unwrap();
            (writer, signed)
        });
        Self {
            pointers: pointers.collect(),
            blocks,
        }
    }

    fn root(&self, writer: &Writer) -> WriterData {
        let (_, pointer) = self.pointers.iter().find(|(w, _)| w == writer).unwrap();
        let cid = pointer.update().updated().unwrap();
        WriterData::in_block(self.blocks.get(cid).unwrap(), writer).unwrap()
    }

    /// Looks a map key up in the writer's tree.
    fn node(&self, writer: &Writer, map_key: &MapKey) -> Option<CryptreeNode> {
        let tree = Champ::at(self.root(writer).tree.unwrap());
        let found = tree.get(map_key.bytes(), &self.blocks).now_or_never();
        let Value::Link(cid) = found.unwrap().unwrap()? else {
            panic!("link");
        };
        Some(CryptreeNode::of_block(self.blocks.get(&cid).unwrap()).unwrap())
    }

    fn open(&self, capability: &AbsoluteCapability) -> Option<OpenNode> {
        let node = self.node(&capability.writer, &capability.map_key)?;
        let own = capability.bat.as_ref().unwrap().inline_id();
        assert_eq!(node.bats().first(), Some(&own));
        Some(node.open(&capability.r_base).unwrap())
    }

    fn fragments(&self, open: &OpenNode) -> Vec<Block> {
        let fragments = open.node().data().fragments().iter();
        fragments
            .map(|fragment| self.blocks.get(&fragment.cid).unwrap().clone())
            .collect()
    }

    fn pages(&self, capability: &AbsoluteCapability, first: OpenNode) -> Vec<ChildList> {
        let mut pages = Vec::new();
        let mut next = Some(first);
        while let Some(page) = next {
            pages.push(page.children(&self.fragments(&page)).unwrap());
            let link = &page.base_part().unwrap().next;
            next = self.open(&capability.at(link.map_key, link.bat.clone()));
        }
        pages
    }

    fn content(&self, capability: &AbsoluteCapability, first: &OpenNode) -> Vec<u8> {
        let properties = first.properties();
        let secret = properties.stream_secret.as_ref().unwrap();
        let mut content = Vec::new();
        for index in 0..chunk_count(properties.size_bytes) {
            let place = ChunkPlace::first(capability)
                .advance(secret, index)
                .unwrap();
            let chunk = self.open(&capability.at(place.map_key, place.bat)).unwrap();
            let data = chunk.file_data(&self.fragments(&chunk)).unwrap();
            content.extend_from_slice(&fit_chunk(data, properties.size_bytes, index));
        }
        content
    }
}
