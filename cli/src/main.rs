//! The kastro binary.
fn main() {}
