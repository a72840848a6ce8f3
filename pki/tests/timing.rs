//! Time tells nothing about a token (Spec: 40 SC-3).
//!
//! What is wrong in its first byte must not be refused sooner than what is wrong in its last one. Where a value lies in
//! memory changes the time of a call too, so every kind is made many times over, in random order; the calls go through
//! all of them in turns, so that whatever else the machine does hits all alike; and Welch's t compares the two kinds
//! with each value's own mean as one measurement. Noise passes the bound once in a very long while, a comparison that
//! stops early passes it every time (the last test shows it): only a difference seen three times over counts.

use std::{
    hint::black_box,
    time::{Duration, Instant, UNIX_EPOCH},
};

use champ::{Cid, Codec, access::Bat};
use pki::block_access::{BlockAuth, Held, Protection, Tokens};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng as _, SeedableRng as _},
};

/// Values of each kind; times `ROUNDS`, 2 x 10^5 calls in all.
const VALUES: usize = 100;
const ROUNDS: usize = 1_000;
const BOUND: f64 = 4.5;
const TRIES: u64 = 3;

#[test]
fn sc_3_a_signature_is_compared_in_constant_time() {
    let token = Bat::from_secret([7; 32]).with_calculated_id();
    let (block, source) = (Cid::of_raw(b"block"), Cid::of_raw(b"source"));
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let right = BlockAuth::sign(&token, &block, &source, now).unwrap();
    assert!(right.verify(&token.bat, &block, &source, now).is_ok());
    let wrong_at = |byte: usize| {
        let signature = champ::text::to_hex(right.signature());
        let mut other = *right.signature();
        other[byte] ^= 0x55;
        let text = right
            .to_text()
            .replace(&signature, &champ::text::to_hex(&other));
        BlockAuth::parse(&text).unwrap()
    };
    takes_the_same_time(wrong_at, |given| {
        assert!(given.verify(&token.bat, &block, &source, now).is_err());
    });
}

#[test]
fn sc_3_a_token_is_compared_in_constant_time() {
    let inline = Bat::from_secret([7; 32]);
    let rule = Protection::new(Codec::DagCbor, vec![inline.inline_id()]);
    let stored = Bat::from_secret([7; 32]);
    let tokens = Tokens {
        stored: Some(&stored),
        instance: Some(&stored),
        held: Held::Locally,
    };
    let right = inline.with_calculated_id();
    assert!(rule.check(Some(&right), &tokens).is_ok());
    let wrong_at = |byte| Bat::from_secret(wrong_secret(byte)).with_calculated_id();
    takes_the_same_time(wrong_at, |given| {
        assert!(rule.check(Some(given), &tokens).is_err());
    });
}

#[test]
fn sc_3_a_comparison_that_stops_early_is_found_out() {
    let known = [7; 32];
    let compare = |given: &[u8; 32]| {
        let differs = |(a, b): (&u8, &u8)| black_box(a) != black_box(b);
        assert!(given.iter().zip(&known).any(differs));
    };
    let mut wrong_at = wrong_secret;
    for seed in 0..TRIES {
        let t = welch(seed, &mut wrong_at, &compare);
        assert!(t.abs() > BOUND, "{t}");
    }
}

fn wrong_secret(byte: usize) -> [u8; 32] {
    let mut secret = [7; 32];
    secret[byte] ^= 0x55;
    secret
}

/// Fails if calls about values that are wrong in the first or in the last byte take different times, three times in a
/// row.
fn takes_the_same_time<T>(mut wrong_at: impl FnMut(usize) -> T, call: impl Fn(&T)) {
    let mut seen = Vec::new();
    for seed in 0..TRIES {
        let t = welch(seed, &mut wrong_at, &call);
        if t.abs() < BOUND {
            return;
        }
        seen.push(t);
    }
    panic!("the time tells where the difference is: Welch's t {seen:?}");
}

fn welch<T>(seed: u64, wrong_at: &mut impl FnMut(usize) -> T, call: &impl Fn(&T)) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut kinds = [0, 31].repeat(VALUES);
    for at in (1..kinds.len()).rev() {
        kinds.swap(at, rng.next_u32() as usize % (at + 1));
    }
    let values: Vec<T> = kinds.iter().map(|&byte| wrong_at(byte)).collect();
    let mut times = vec![Vec::with_capacity(ROUNDS); values.len()];
    for _ in 0..ROUNDS {
        for (value, times) in values.iter().zip(&mut times) {
            let begun = Instant::now();
            call(black_box(value));
            times.push(begun.elapsed().as_nanos() as f64);
        }
    }
    let means_of = |kind: usize| -> Vec<f64> {
        let of_kind = kinds.iter().zip(&times).filter(|(k, _)| **k == kind);
        of_kind.map(|(_, times)| calm_mean(times)).collect()
    };
    let (first, last) = (spread(&means_of(0)), spread(&means_of(31)));
    (first.0 - last.0) / (first.1 / VALUES as f64 + last.1 / VALUES as f64).sqrt()
}

/// Leaves out the slowest tenth: interrupts and other programs, not the comparison.
fn calm_mean(times: &[f64]) -> f64 {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    times.truncate(times.len() * 9 / 10);
    times.iter().sum::<f64>() / times.len() as f64
}

/// Mean and variance.
fn spread(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let squares = values.iter().map(|value| (value - mean).powi(2));
    (mean, squares.sum::<f64>() / (values.len() as f64 - 1.0))
}
