//! Time tells nothing about a token (Spec: 40 SC-3).
//!
//! What is wrong in its first byte must not be refused sooner than what is wrong in its last one. The two are called in
//! turns, so that whatever else the machine does hits both alike; then Welch's t says whether the means differ. Noise can
//! pass the bound once in a while, a comparison that stops early passes it every time and by far: only a difference seen
//! three times over counts.

use std::{
    hint::black_box,
    time::{Duration, Instant, UNIX_EPOCH},
};

use champ::{Cid, Codec, access::Bat};
use pki::block_access::{BlockAuth, Held, Protection, Tokens};

const CALLS: usize = 100_000;
const BOUND: f64 = 4.5;
const TRIES: usize = 3;

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
    let (first, last) = (wrong_at(0), wrong_at(31));
    takes_the_same_time(|is_first| {
        let given = if is_first { &first } else { &last };
        assert!(given.verify(&token.bat, &block, &source, now).is_err());
    });
}

#[test]
fn sc_3_a_token_is_compared_in_constant_time() {
    let wrong_at = |byte: usize| {
        let mut secret = [7; 32];
        secret[byte] ^= 0x55;
        Bat::from_secret(secret).with_calculated_id()
    };
    let (first, last) = (wrong_at(0), wrong_at(31));
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
    takes_the_same_time(|is_first| {
        let given = if is_first { &first } else { &last };
        assert!(rule.check(Some(given), &tokens).is_err());
    });
}

/// Fails if the two kinds of call take different times, three times in a row.
fn takes_the_same_time(mut call: impl FnMut(bool)) {
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let t = welch(&mut call);
        if t.abs() < BOUND {
            return;
        }
        seen.push(t);
    }
    panic!("the time tells where the difference is: Welch's t {seen:?}");
}

fn welch(call: &mut impl FnMut(bool)) -> f64 {
    let mut times = [Vec::with_capacity(CALLS), Vec::with_capacity(CALLS)];
    for round in 0..CALLS {
        // First and second in turns, each pair in the other order than the one before.
        for half in [round % 2, (round + 1) % 2] {
            let begun = Instant::now();
            call(black_box(half == 0));
            times[half].push(begun.elapsed().as_nanos() as f64);
        }
    }
    let [a, b] = times.map(calm);
    (a.mean - b.mean) / (a.variance / a.count + b.variance / b.count).sqrt()
}

struct Calm {
    mean: f64,
    variance: f64,
    count: f64,
}

/// Leaves out the slowest tenth: interrupts and other programs, not the comparison.
fn calm(mut times: Vec<f64>) -> Calm {
    times.sort_by(f64::total_cmp);
    times.truncate(times.len() * 9 / 10);
    let count = times.len() as f64;
    let mean = times.iter().sum::<f64>() / count;
    let variance = times.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / (count - 1.0);
    Calm {
        mean,
        variance,
        count,
    }
}
