//! `pow.json`, and the rate formula in `pki.json`.

use std::time::{Duration, SystemTime};

use champ::cbor::Record;
use pki::proof_of_work::{Difficulty, DifficultyPolicy, ProofOfWork, Search};

use crate::support::each;

fn difficulty(bits: i64) -> Difficulty {
    Difficulty::try_new(bits).unwrap()
}

#[test]
fn proofs() {
    each(
        "pow.json",
        "kind",
        &[],
        vec![
            ("difficulty", &mut |case| {
                let hash = case.array("hash");
                let met = |bits| difficulty(bits).is_met_by(&hash);
                if let Some(list) = case.raw("satisfied_difficulties_in_0_to_24").as_array() {
                    let expected: Vec<i64> = list.iter().map(|n| n.as_i64().unwrap()).collect();
                    let found: Vec<i64> = (0..=24).filter(|bits| met(*bits)).collect();
                    assert_eq!(found, expected, "{}", case.str("hash"));
                } else {
                    assert!(met(case.int("satisfied_difficulty")));
                }
            }),
            ("proof", &mut |case| {
                let (data, wanted) = (case.hex("data"), difficulty(case.int("difficulty")));
                let mut search = Search::new(data.clone(), wanted).unwrap();
                let proof = search.step(u32::MAX).unwrap();
                assert_eq!(proof.prefix(), &case.hex("prefix"));
                assert_eq!(proof.encode(), case.hex("cbor"));
                let read = ProofOfWork::decode(&case.hex("cbor")).unwrap();
                assert!(read.is_valid(&data, wanted));
            }),
            ("proof_empty", &mut |case| {
                let empty = ProofOfWork::empty();
                assert_eq!(empty.encode(), case.hex("cbor"));
                assert_eq!(ProofOfWork::decode(&case.hex("cbor")), Ok(empty.clone()));
                assert!(empty.is_valid(b"anything", Difficulty::NONE));
            }),
        ],
    );
}

#[test]
fn rate_formula() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/pki.json");
    let whole: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let mut ran = 0;
    for case in whole["cases"].as_array().unwrap() {
        if case["kind"] != "difficulty_generator" {
            continue;
        }
        ran += 1;
        let millis = case["start_millis"].as_u64().unwrap();
        let mut now = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let allowance = u32::try_from(case["max_per_day"].as_u64().unwrap()).unwrap();
        let mut policy = DifficultyPolicy::new(allowance, now);
        for step in case["steps"].as_array().unwrap() {
            let action = step["action"].as_str().unwrap();
            let pause = match action {
                "read" => 0,
                "event, then 1 s later update" => {
                    policy.record(now);
                    1_000
                }
                "60 s later update" => 60_000,
                "1 h later update" => 3_600_000,
                "55.5 h later update" => 199_800_000,
                other => panic!("unknown action {other}"),
            };
            now += Duration::from_millis(pause);
            // The official formula lets everybody in again when nothing was asked for two days, even with
            // an allowance of zero; that must not be copied (Spec: 10 §5).
            let expected = if allowance == 0 {
                256
            } else {
                step["difficulty"].as_i64().unwrap()
            };
            assert_eq!(
                policy.difficulty(now),
                difficulty(expected),
                "{allowance} {action}"
            );
        }
    }
    assert!(ran > 0);
}
