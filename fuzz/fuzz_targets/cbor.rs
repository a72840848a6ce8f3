#![no_main]

#[path = "../bodies/cbor.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
