//! Placeholder front page; see Cargo.toml.
