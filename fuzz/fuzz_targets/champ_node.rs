#![no_main]

#[path = "../bodies/champ_node.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|data: &[u8]| body::run(data));
