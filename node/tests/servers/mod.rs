//! Real servers that tests start by themselves, on sockets in temporary folders.

pub(crate) mod postgres;
pub(crate) mod s3;

/// Returns true when a test whose server is not installed has to fail instead of being skipped.
pub(crate) fn are_required() -> bool {
    std::env::var("KASTRO_REQUIRE_SERVERS").is_ok_and(|value| value != "0")
}
