//! Sealing, splitting and hashing a file chunk, against the same cipher and hash called by hand.
//!
//! `cargo bench -p benches --bench seal`. The goal is a ratio of at least 0.85 on one core: machines differ,
//! so both sides are measured alternately in one run. By hand means libsodium in place over one buffer and
//! SHA-256 over its five parts: no tokens, no record, no new memory.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing
)]

use std::{
    hint::black_box,
    sync::LazyLock,
    time::{Duration, Instant},
};

use champ::{Block, access::Bat};
use cryptree::{
    ciphertext::{FragmentedPaddedCipherText, SealedFragments},
    crypto::SymmetricKey,
};
use divan::{Bencher, counter::BytesCount};
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use sha2::{Digest, Sha256};

const CHUNK_BYTES: usize = 5 << 20;
const FRAGMENT_BYTES: usize = 1 << 20;
const TURNS: u32 = 20;
const CHUNKS_PER_TURN: u32 = 20;

fn main() {
    divan::main();
    if std::env::args().any(|argument| argument == "--bench") {
        ratio("seal + split + hash", seal_by_hand(), seal());
        ratio("verify + open", open_by_hand(), open());
    }
}

/// Compares two pieces of work on one chunk, in short turns, by the processor time they took: on a machine
/// that does other things too, elapsed time measures those.
fn ratio(what: &str, mut by_hand: impl FnMut(), mut ours: impl FnMut()) {
    let mut times = [Duration::ZERO; 2];
    for _ in 0..TURNS {
        for (work, time) in [&mut by_hand as &mut dyn FnMut(), &mut ours]
            .into_iter()
            .zip(&mut times)
        {
            let start = processor_time();
            for _ in 0..CHUNKS_PER_TURN {
                work();
            }
            *time += processor_time().saturating_sub(start);
        }
    }
    let [by_hand, ours] = times.map(|time| time / (TURNS * CHUNKS_PER_TURN));
    println!(
        "{what}, 5 MiB: by hand {}, kastro {}, ratio {:.2}",
        speed(by_hand),
        speed(ours),
        by_hand.as_secs_f64() / ours.as_secs_f64()
    );
}

/// Returns the time this thread has run; where the system does not tell, the time that has passed.
fn processor_time() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|times| times.split(' ').next()?.parse().ok())
        .map_or_else(|| START.elapsed(), Duration::from_nanos)
}

fn speed(time: Duration) -> String {
    let mib = CHUNK_BYTES as f64 / f64::from(1 << 20);
    format!("{:.0} MiB/s", mib / time.as_secs_f64())
}

fn seal_by_hand() -> impl FnMut() {
    let mut buffer = vec![7; CHUNK_BYTES];
    move || {
        let tag = sodium::seal_detached(&[1; 32], &[2; 24], &mut buffer);
        black_box(tag);
        for part in buffer.chunks(FRAGMENT_BYTES) {
            black_box(Sha256::digest(part));
        }
    }
}

fn seal() -> impl FnMut() {
    let content = vec![7; CHUNK_BYTES];
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    move || {
        black_box(seal_chunk(&content, &mut rng));
    }
}

/// Blocks are shared, so opening by hand needs one copy: into a buffer that is there already.
fn open_by_hand() -> impl FnMut() {
    let mut cipher = vec![7; CHUNK_BYTES];
    let tag = sodium::seal_detached(&[1; 32], &[2; 24], &mut cipher);
    let mut buffer = vec![0; CHUNK_BYTES];
    move || {
        for part in cipher.chunks(FRAGMENT_BYTES) {
            black_box(Sha256::digest(part));
        }
        buffer.copy_from_slice(&cipher);
        sodium::open_detached(&[1; 32], &[2; 24], &tag, &mut buffer).unwrap();
    }
}

fn open() -> impl FnMut() {
    let sealed = seal_chunk(&vec![7; CHUNK_BYTES], &mut ChaCha20Rng::seed_from_u64(1));
    move || {
        black_box(open_chunk(&sealed));
    }
}

fn key() -> SymmetricKey {
    SymmetricKey::from_bytes([1; 32])
}

fn seal_chunk(content: &[u8], rng: &mut ChaCha20Rng) -> SealedFragments {
    let mirror = Bat::from_secret([3; 32]).secret_hash_id();
    FragmentedPaddedCipherText::seal_bytes(&key(), content, Some(&mirror), rng).unwrap()
}

fn open_chunk(sealed: &SealedFragments) -> usize {
    let blocks: Vec<Block> = sealed
        .blocks
        .iter()
        .map(|b| Block::verified(b.cid().clone(), b.bytes().clone()).unwrap())
        .collect();
    sealed.record.open_bytes(&key(), &blocks).unwrap().len()
}

#[divan::bench]
fn seal_one_chunk(bencher: Bencher<'_, '_>) {
    let work = seal();
    bencher
        .counter(BytesCount::new(CHUNK_BYTES))
        .bench_local(work);
}

#[divan::bench]
fn seal_one_chunk_by_hand(bencher: Bencher<'_, '_>) {
    let work = seal_by_hand();
    bencher
        .counter(BytesCount::new(CHUNK_BYTES))
        .bench_local(work);
}

#[divan::bench]
fn open_one_chunk(bencher: Bencher<'_, '_>) {
    let work = open();
    bencher
        .counter(BytesCount::new(CHUNK_BYTES))
        .bench_local(work);
}

#[divan::bench]
fn open_one_chunk_by_hand(bencher: Bencher<'_, '_>) {
    let work = open_by_hand();
    bencher
        .counter(BytesCount::new(CHUNK_BYTES))
        .bench_local(work);
}
