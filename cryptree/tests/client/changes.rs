//! Changing the content of a file in place (Spec: 21 §10).

use cryptree::{
    ClientError, Session, chunk_chain::ChunkPlace, client::Detail, directory::ItemKeys,
    file::NewChunk,
};
use rand_chacha::ChaCha20Rng;
use rand_core::{Rng as _, SeedableRng};

use super::{
    alice,
    files::{content, get, put},
    machine,
    surgery::replace_nodes,
    tree_entries,
};

const MIB: usize = 1 << 20;
const CHUNK: usize = 5 * MIB;
const PATH: &str = "/alice/file";

async fn size(session: &Session) -> u64 {
    session.stat(PATH).await.unwrap().size_bytes.unwrap()
}

#[tokio::test]
async fn random_changes_agree_with_a_vector() {
    let (node, session) = alice().await;
    let mut rng = ChaCha20Rng::seed_from_u64(5);
    let mut model = content(3 * MIB, 1);
    put(&session, PATH, &model).await.unwrap();
    let link = session.capability_link(PATH).await.unwrap();
    let others = tree_entries(&node).await - 1;
    for round in 0..24 {
        // Around the borders of chunks, where mistakes are made.
        let near = |rng: &mut ChaCha20Rng| {
            let chunk = (rng.next_u32() % 3) as usize * CHUNK;
            (chunk + (rng.next_u32() % 7) as usize).saturating_sub(3)
        };
        match rng.next_u32() % 4 {
            0 => {
                let at = near(&mut rng);
                let bytes = content((rng.next_u32() % 9) as usize, round);
                session.write_at(PATH, at as u64, &bytes).await.unwrap();
                // Nothing written is nothing changed, also beyond the end.
                if !bytes.is_empty() {
                    let end = at + bytes.len();
                    model.resize(end.max(model.len()), 0);
                    model[at..end].copy_from_slice(&bytes);
                }
            }
            1 => {
                let to = near(&mut rng);
                session.set_size(PATH, to as u64).await.unwrap();
                model.resize(to, 0);
            }
            2 => {
                let bytes = content((rng.next_u32() as usize) % (6 * MIB), round);
                let expected = (round % 2 == 0).then_some(model.len() as u64);
                let end = session.append(PATH, &bytes, expected).await.unwrap();
                model.extend_from_slice(&bytes);
                assert_eq!(end, model.len() as u64);
            }
            _ => {
                let bytes = content(2 * CHUNK + 17, round);
                session.write_at(PATH, 3, &bytes).await.unwrap();
                model.resize(model.len().max(3 + bytes.len()), 0);
                model[3..3 + bytes.len()].copy_from_slice(&bytes);
            }
        }
        if model.len() > 20 * MIB {
            session.set_size(PATH, 7).await.unwrap();
            model.truncate(7);
        }
        let found = get(&machine(&node, 100 + round).await, PATH).await;
        assert_eq!(found.len(), model.len(), "round {round}");
        assert!(found == model, "round {round}");
        // No chunk is left over or missing.
        let chunks = model.len().div_ceil(CHUNK).max(1) as u64;
        assert_eq!(tree_entries(&node).await - others, chunks, "round {round}");
    }
    // Whoever had the file has it still.
    assert_eq!(session.capability_link(PATH).await.unwrap(), link);
}

#[tokio::test]
async fn only_the_chunks_concerned_are_read_and_written() {
    let (_, session) = alice().await;
    put(&session, PATH, &content(4 * CHUNK, 1)).await.unwrap();
    let before = session.usage();
    session
        .write_at(PATH, 2 * CHUNK as u64 + 9, b"four")
        .await
        .unwrap();
    let cost = session.usage().since(before);
    assert_eq!(cost.commits, 1);
    // The five fragments of chunk 2, twice, its node and that of chunk 0, trie nodes and the root.
    assert_eq!(cost.blocks_read, 5, "{cost:?}");
    assert!(cost.blocks_written <= 5 + 2 + 5, "{cost:?}");
    // A chunk that is written whole need not be read.
    let before = session.usage();
    session
        .write_at(PATH, CHUNK as u64, &content(CHUNK, 3))
        .await
        .unwrap();
    assert_eq!(session.usage().since(before).blocks_read, 0);
}

#[tokio::test]
async fn hashes_that_are_no_longer_true_are_taken_back() {
    let (node, session) = alice().await;
    put(&session, PATH, &content(CHUNK + 10, 1)).await.unwrap();
    let hash = async |seed| {
        let file = machine(&node, seed).await.open_file(PATH).await.unwrap();
        file.properties().tree_hash.clone()
    };
    assert!(hash(2).await.is_some());
    session
        .write_at(PATH, CHUNK as u64 + 1, b"x")
        .await
        .unwrap();
    assert!(hash(3).await.is_none());
    // Content that is known whole gets its hash: the same as an upload of the same bytes.
    let whole = content(CHUNK + 20, 2);
    session.write_at(PATH, 0, &whole).await.unwrap();
    let changed = hash(4).await.unwrap();
    put(&session, "/alice/same", &whole).await.unwrap();
    let same = session.open_file("/alice/same").await.unwrap();
    assert_eq!(Some(changed), same.properties().tree_hash);
    session.set_size(PATH, 10).await.unwrap();
    assert!(hash(5).await.is_none());
}

#[tokio::test]
async fn emptied_content_is_gone_from_the_chunk() {
    let (node, session) = alice().await;
    put(&session, PATH, b"must not stay").await.unwrap();
    session.set_size(PATH, 0).await.unwrap();
    assert_eq!(size(&session).await, 0);
    // Growing shows zeros, not what was there.
    session.set_size(PATH, 13).await.unwrap();
    assert_eq!(get(&machine(&node, 2).await, PATH).await, [0; 13]);
}

#[tokio::test]
async fn two_devices_that_append_at_once_both_succeed() {
    let (node, first) = alice().await;
    put(&first, PATH, b"").await.unwrap();
    let second = machine(&node, 2).await;
    let append = async |session: &Session, bytes: &[u8]| {
        for _ in 0..10 {
            session.append(PATH, bytes, None).await.unwrap();
        }
    };
    futures_util::join!(append(&first, b"aa"), append(&second, b"bb"));
    let found = get(&machine(&node, 3).await, PATH).await;
    assert_eq!(found.len(), 40);
    let pairs = found.chunks(2).collect::<Vec<_>>();
    assert_eq!(pairs.iter().filter(|pair| **pair == b"aa").count(), 10);
    assert_eq!(pairs.iter().filter(|pair| **pair == b"bb").count(), 10);
}

#[tokio::test]
async fn an_unexpected_size_is_refused_and_nothing_is_written() {
    let (node, session) = alice().await;
    put(&session, PATH, b"12345").await.unwrap();
    for expected in [0, 4, 6] {
        for bytes in [&b"6"[..], b""] {
            let error = session
                .append(PATH, bytes, Some(expected))
                .await
                .unwrap_err();
            assert!(
                matches!(error, ClientError::SourceChanged { .. }),
                "{error}"
            );
        }
    }
    assert_eq!(session.append(PATH, b"6", Some(5)).await.unwrap(), 6);
    assert_eq!(get(&machine(&node, 2).await, PATH).await, b"123456");
}

#[tokio::test]
async fn what_cannot_be_changed_is_refused() {
    let (_, session) = alice().await;
    session.make_folder("/alice/folder").await.unwrap();
    let error = session
        .write_at("/alice/folder", 0, b"x")
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::IsADirectory { .. }));
    let error = session.set_size("/alice/nothing", 1).await.unwrap_err();
    assert!(matches!(error, ClientError::NotFound { .. }));
    put(&session, PATH, b"x").await.unwrap();
    for offset in [u64::MAX, u64::MAX - 1, 1 << 53] {
        let error = session.write_at(PATH, offset, b"x").await.unwrap_err();
        assert!(matches!(error, ClientError::TooLarge { .. }), "{error}");
        let error = session.set_size(PATH, offset).await.unwrap_err();
        assert!(matches!(error, ClientError::TooLarge { .. }), "{error}");
    }
    assert_eq!(size(&session).await, 1);
}

/// A file whose data key somebody knows who lost access is sealed anew before it is written (Spec: 20 §9).
#[tokio::test]
async fn nothing_new_is_sealed_under_a_dirty_data_key() {
    let (node, session) = alice().await;
    put(&session, PATH, b"old").await.unwrap();
    let mut dirty_key = None;
    replace_nodes(&node, &session, PATH, |file, first, rng| {
        let mut keys = ItemKeys::random(rng);
        keys.r_base = file.r_base.clone();
        keys.second_key = first.base_part().unwrap().second_key.as_dirty();
        dirty_key = Some(keys.second_key.clone());
        let chunk = NewChunk {
            keys: &keys,
            stream_secret: &first.properties().stream_secret.clone().unwrap(),
            place: &ChunkPlace::first(file),
            properties: first.properties().clone(),
            parent: first.parent_link().cloned(),
            signer: None,
            mirror: None,
        };
        let block = chunk.seal(b"old", rng).unwrap().block().unwrap();
        vec![(file.map_key, block)]
    })
    .await;
    let link = session.capability_link(PATH).await.unwrap();
    session.append(PATH, b" and new", None).await.unwrap();
    assert_eq!(get(&machine(&node, 2).await, PATH).await, b"old and new");
    assert_eq!(session.capability_link(PATH).await.unwrap(), link);
    replace_nodes(&node, &session, PATH, |_, first, _| {
        let key = &first.base_part().unwrap().second_key;
        assert!(!key.is_dirty());
        assert_ne!(key.as_dirty(), dirty_key.unwrap());
        Vec::new()
    })
    .await;
    let entries = session.list("/alice", Detail::Full).await.unwrap().entries;
    assert_eq!(
        entries.iter().filter(|entry| entry.name == "file").count(),
        1
    );
}
