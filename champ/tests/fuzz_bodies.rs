//! The bodies of the fuzz targets on what an ordinary test run can afford: all vectors, and random edits.

use proptest::{collection::vec, prelude::*, sample::Index};
use serde_json::Value as Json;

#[path = "../../fuzz/bodies/cbor.rs"]
mod cbor;
#[path = "../../fuzz/bodies/champ_node.rs"]
mod champ_node;
#[path = "../../fuzz/bodies/cid.rs"]
mod cid;

fn run_all(data: &[u8]) {
    cbor::run(data);
    cid::run(data);
    champ_node::run(data);
    champ_node::run(&[b"\0\0", data].concat());
}

/// Every string of the vectors, as it is and, where it is hex, as bytes.
fn seeds() -> Vec<Vec<u8>> {
    fn collect(json: &Json, seeds: &mut Vec<Vec<u8>>) {
        match json {
            Json::String(text) => {
                seeds.push(text.as_bytes().to_vec());
                seeds.extend(champ::text::from_hex(text).ok());
            }
            Json::Array(items) => items.iter().for_each(|item| collect(item, seeds)),
            Json::Object(fields) => fields.values().for_each(|field| collect(field, seeds)),
            _ => {}
        }
    }
    let mut seeds = Vec::new();
    for file in ["cbor.json", "cids.json", "raw_bats.json", "champ.json"] {
        let cases = crate::support::cases(file);
        cases.iter().for_each(|case| collect(case, &mut seeds));
    }
    seeds
}

#[test]
fn all_vectors_pass_the_fuzz_targets() {
    let seeds = seeds();
    assert!(seeds.len() > 500);
    seeds.iter().for_each(|seed| run_all(seed));
}

proptest! {
    #[test]
    fn edited_vectors_pass_the_fuzz_targets(
        which in any::<Index>(),
        edits in vec((any::<Index>(), any::<u8>(), 0u8..3), 1..5),
    ) {
        thread_local!(static SEEDS: Vec<Vec<u8>> = seeds());
        let mut data = SEEDS.with(|seeds| which.get(seeds).clone());
        for (at, byte, how) in edits {
            let at = at.index(data.len() + 1);
            match how {
                0 => data.insert(at, byte),
                1 if at < data.len() => data[at] = byte,
                _ => data.truncate(at),
            }
        }
        run_all(&data);
    }
}
