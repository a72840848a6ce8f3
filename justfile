# Shortcuts. `just` alone lists them.

default:
    @just --list

# What CI runs.
check:
    .ci/run

# A node with nothing configured.
serve *ARGS:
    cargo run --release -- serve {{ARGS}}

test:
    cargo test --workspace

lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# The measured numbers of the README.
bench *ARGS:
    cargo build --release -p cli
    cargo run --release -p benches --bin transfer -- {{ARGS}}

wasm:
    .ci/wasm
