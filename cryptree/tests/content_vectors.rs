//! `chunk_chain.json` and `filehash.json`.

use champ::{access::Bat, cbor::Record};
use cryptree::{
    capability::MapKey,
    chunk_chain::{CHUNK_BYTES, ChunkPlace, StreamSecret, chunk_count, chunk_index, chunk_length},
    hash_tree::{HashBranch, HashTree, HashTreeBuilder},
};

use crate::support::{Case, file_pattern, for_each_case, sha256};

#[test]
fn chunk_chains() {
    let mut ran = 0;
    for_each_case("chunk_chain.json", |case| {
        ran += 1;
        match case.text("name") {
            "with-bat" | "legacy-without-bat" => chain(case),
            "offset-to-chunk" => {
                assert_eq!(case.int("chunkSize").unsigned_abs(), CHUNK_BYTES);
                for offset in case.list("offsets") {
                    let index = chunk_index(offset.int("offset").unsigned_abs());
                    assert_eq!(index, offset.int("chunkIndex").unsigned_abs());
                    let within = offset.int("offset").unsigned_abs() - index * CHUNK_BYTES;
                    assert_eq!(within, offset.int("offsetInChunk").unsigned_abs());
                }
            }
            "size-to-chunk-count" => {
                for size in case.list("sizes") {
                    let bytes = size.int("size").unsigned_abs();
                    let count = chunk_count(bytes);
                    assert_eq!(count, size.int("chunks").unsigned_abs());
                    if count < 10 {
                        let total: u64 = (0..count).map(|i| chunk_length(bytes, i)).sum();
                        assert_eq!(total, bytes);
                    }
                    assert_eq!(chunk_length(bytes, count), 0);
                }
            }
            other => panic!("unknown case {other}"),
        }
    });
    assert_eq!(ran, 4);
}

fn chain(case: &Case) {
    let secret = StreamSecret::from_bytes(case.array("streamSecret"));
    let place = |map_key, bat: Option<[u8; 32]>| ChunkPlace {
        map_key: MapKey::from_bytes(map_key),
        bat: bat.map(Bat::from_secret),
    };
    let bat = |case: &Case, field: &str| case.has(field).then(|| case.array(field));
    let first = place(case.array("firstMapKey"), bat(case, "firstBat"));
    for chunk in case.list("chunks") {
        let expected = place(chunk.array("mapKey"), bat(&chunk, "bat"));
        let index = chunk.int("chunk").unsigned_abs();
        assert_eq!(first.advance(&secret, index), Some(expected));
    }
}

#[test]
fn file_hashes() {
    let mut ran = 0;
    for_each_case("filehash.json", |case| {
        ran += 1;
        let tree = if case.has("size") {
            real_file(case)
        } else {
            let mut builder = HashTreeBuilder::new();
            for i in 0..case.size("chunkCount") {
                let hash = sha256(format!("chunk {i}").as_bytes());
                builder.push_hash(&hash.try_into().unwrap());
            }
            builder.finish()
        };
        assert_eq!(tree.root().to_vec(), case.hex("root"));
        let levels: Vec<u64> = (1..=3)
            .map(|level| tree.level(level).len() as u64)
            .collect();
        let expected = case.0["levels"].as_array().unwrap();
        let expected: Vec<u64> = expected.iter().map(|n| n.as_u64().unwrap()).collect();
        assert_eq!(levels, expected);
        let mut branches = 0;
        for (field, _) in case.0.as_object().unwrap() {
            if let Some(index) = field.strip_prefix("branch") {
                branch(&tree, index.parse().unwrap(), &case.part(field));
                branches += 1;
            }
        }
        assert!(branches > 0);
        let encoded = tree.encode();
        assert_eq!(HashTree::decode(&encoded).unwrap(), tree);
        if let Some(cbor) = case.optional_hex("treeCbor") {
            assert_eq!(encoded, cbor);
        }
        if let Some(hash) = case.optional_hex("treeCborSha256") {
            assert_eq!(sha256(&encoded), hash);
        }
    });
    assert!(ran >= 17);
}

fn real_file(case: &Case) -> HashTree {
    let size = case.size("size");
    let content = file_pattern(0, size);
    let mut builder = HashTreeBuilder::new();
    let expected = case.0["chunkHashes"].as_array().unwrap();
    let chunk_bytes = usize::try_from(CHUNK_BYTES).unwrap();
    let mut chunks: Vec<&[u8]> = content.chunks(chunk_bytes).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    assert_eq!(chunks.len(), expected.len());
    for (chunk, expected) in chunks.into_iter().zip(expected) {
        let hash = builder.push_chunk(chunk);
        assert_eq!(champ::text::to_hex(&hash), expected.as_str().unwrap());
    }
    let tree = builder.finish();
    for (i, expected) in expected.iter().enumerate() {
        let hash = tree.chunk_hash(i).unwrap();
        assert_eq!(champ::text::to_hex(&hash), expected.as_str().unwrap());
    }
    tree
}

fn branch(tree: &HashTree, index: usize, expected: &Case) {
    let branch = tree.branch(index);
    let encoded = branch.encode();
    assert_eq!(encoded.len(), expected.size("cborLength"));
    assert_eq!(sha256(&encoded), expected.hex("cborSha256"));
    if let Some(cbor) = expected.optional_hex("cbor") {
        assert_eq!(encoded, cbor);
    }
    for (level, field) in [
        (1, "level1Length"),
        (2, "level2Length"),
        (3, "level3Length"),
    ] {
        let length = branch.level(level).map(|list| list.bytes().len());
        assert_eq!(length, expected.has(field).then(|| expected.size(field)));
    }
    assert_eq!(HashBranch::decode(&encoded).unwrap(), branch);
}
