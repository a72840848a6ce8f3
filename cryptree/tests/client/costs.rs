//! What operations cost: calls, blocks, and that neither grows with the account.

use champ::access::Bat;
use cryptree::{
    chunk_chain::ChunkPlace, client::Detail, directory::ItemKeys, file::NewChunk, node::ParentPart,
};
use futures_util::io::Cursor;

use super::{
    alice,
    files::{content, put},
    machine,
    surgery::replace_nodes,
};
use crate::fake::FakeNode;

#[tokio::test]
async fn small_files_cost_about_one_block_each_however_many_there_are() {
    let (node, session) = alice().await;
    node.state.lock().unwrap().unchecked = true;
    session.make_folder("/alice/many").await.unwrap();
    let mut per_file = Vec::new();
    for round in 0..4 {
        let before = session.usage();
        let mut bulk = session.bulk("/alice/many").await.unwrap();
        for n in 0..1000 {
            let bytes = content(4000, n);
            let size = Some(bytes.len() as u64);
            let name = format!("{round} {n}");
            bulk.file(&name, &mut Cursor::new(&bytes), size, None)
                .await
                .unwrap();
        }
        assert_eq!(bulk.finish().await.unwrap(), 1000);
        let cost = session.usage().since(before);
        assert_eq!(cost.commits, 1, "round {round}");
        // Pages are read once per batch; nothing is read per file.
        assert!(cost.calls < 60, "round {round}: {cost:?}");
        per_file.push(cost.blocks_written as f64 / 1000.0);
    }
    // One node per file, and the tree nodes on the way to random places, shared between files the more the
    // fewer there are: never more than the last two levels.
    assert!(
        per_file.iter().all(|blocks| *blocks < 2.0),
        "{per_file:?} blocks per file"
    );
}

#[tokio::test]
async fn one_small_file_is_four_blocks_and_six_calls() {
    let (_, session) = alice().await;
    session.make_folder("/alice/f").await.unwrap();
    put(&session, "/alice/f/warm", b"x").await.unwrap();
    let before = session.usage();
    put(&session, "/alice/f/x", b"x").await.unwrap();
    let cost = session.usage().since(before);
    assert_eq!((cost.blocks_written, cost.commits), (4, 1), "{cost:?}");
    assert!(cost.calls <= 6, "{cost:?}");
}

#[tokio::test]
async fn reading_a_tree_looks_up_20_entries_at_once_and_no_path() {
    let (node, session) = alice().await;
    let mut bulk = session.bulk("/alice").await.unwrap();
    bulk.folder("tree").await.unwrap();
    for n in 0..4 {
        bulk.folder(&format!("tree/{n}")).await.unwrap();
    }
    for n in 0..200 {
        let bytes = content(100, n);
        let name = format!("tree/{}/{n}", n % 4);
        bulk.file(&name, &mut Cursor::new(&bytes), Some(100), None)
            .await
            .unwrap();
    }
    bulk.finish().await.unwrap();
    let again = machine(&node, 2).await;
    let before = again.usage();
    let mut top = again
        .read_folder("/alice/tree", Detail::Full)
        .await
        .unwrap();
    let mut seen = 0;
    while let Some(page) = top.next_found().await.unwrap() {
        for folder in page.entries {
            let name = folder.entry.name.clone();
            assert!(matches!(
                again.open_found(&folder, "/alice/tree/?"),
                Err(cryptree::ClientError::IsADirectory { .. })
            ));
            let mut reader = again.read_found(folder).unwrap();
            while let Some(page) = reader.next_found().await.unwrap() {
                assert!(page.damaged.is_empty());
                for found in page.entries {
                    let path = format!("/alice/tree/{name}/{}", found.entry.name);
                    let file = again.open_found(&found, &path).unwrap();
                    let n: u64 = found.entry.name.parse().unwrap();
                    assert_eq!(
                        &file.read_at(0, 1000).await.unwrap()[..],
                        &content(100, n)[..]
                    );
                    let mut chunks = file.chunks(0);
                    assert_eq!(chunks.next().await.unwrap().unwrap().len(), 100);
                    assert!(chunks.next().await.unwrap().is_none());
                    assert!(again.read_found(found).is_err());
                    seen += 1;
                }
            }
        }
    }
    assert_eq!(seen, 200);
    let cost = again.usage().since(before);
    // Four folders of 50 entries are three look-ups each and one for the page that is not there.
    assert!(cost.calls <= 30, "{cost:?}");
}

#[tokio::test]
async fn the_end_of_a_100_gib_file_is_one_lookup_away() {
    const SIZE: u64 = (100 << 30) + 10;
    let (node, session) = alice().await;
    put(&session, "/alice/sparse", b"first").await.unwrap();
    make_sparse(&node, &session, SIZE, b"0123456789").await;
    let again = machine(&node, 2).await;
    let file = again.open_file("/alice/sparse").await.unwrap();
    assert_eq!(file.size(), SIZE);
    let before = again.usage();
    assert_eq!(&file.read_at(SIZE - 1, 1).await.unwrap()[..], b"9");
    let cost = again.usage().since(before);
    assert!(cost.calls + cost.blocks_read <= 3, "{cost:?}");
    // A chunk that should be there and is not is damage, not emptiness; and nothing is allocated for the size.
    let error = file.read_at(50 << 30, 1).await.unwrap_err();
    assert!(matches!(error, cryptree::ClientError::CannotRead { .. }));
}

/// Gives `/alice/sparse` a size and a last chunk without those in between.
async fn make_sparse(node: &FakeNode, session: &cryptree::Session, size: u64, last: &[u8]) {
    replace_nodes(node, session, "/alice/sparse", |file, first, rng| {
        let mut properties = first.properties().clone();
        properties.size_bytes = size;
        let secret = properties.stream_secret.clone().unwrap();
        let parent = ParentPart {
            parent: first.parent_link().cloned(),
            properties: properties.clone(),
        };
        let grown = first.with_parent(&parent, rng).to_block().unwrap();
        let index = cryptree::chunk_chain::chunk_count(size) - 1;
        let place = ChunkPlace::first(file).advance(&secret, index).unwrap();
        let mut keys = ItemKeys::random(rng);
        keys.r_base = file.r_base.clone();
        keys.bat = place.bat.clone().unwrap_or_else(|| Bat::random(rng));
        let chunk = NewChunk {
            keys: &keys,
            stream_secret: &secret,
            place: &place,
            properties,
            parent: None,
            signer: None,
            mirror: None,
        };
        let chunk = chunk.seal(last, rng).unwrap().block().unwrap();
        vec![(file.map_key, grown), (place.map_key, chunk)]
    })
    .await;
}
