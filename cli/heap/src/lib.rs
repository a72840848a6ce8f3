//! One setting of the C library's allocator.
//!
//! glibc gives each thread a heap of its own and keeps what was freed there. A transfer frees chunks of 5 MiB on
//! several threads, and each heap keeps its share: 115 MB for an upload of 1 GiB that needs 50. With one heap for
//! all threads what one frees the next takes. A node with 1,000,000 blocks keeps 31 MB after a collection instead of 243,
//! and needs at most 128 instead of 587 (`cargo run --release -p collect` with and without `MALLOC_ARENA_MAX=1`).

#![expect(
    unsafe_code,
    reason = "a call of the C library; this crate holds nothing else"
)]

/// Makes all threads allocate from one heap. Does nothing where the C library is not glibc.
pub fn share_one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes two integers, is safe to call from any thread, and with M_ARENA_MAX changes only how
    // many heaps are made later. It returns 0 when it refuses; then nothing has changed, and nothing depends on it.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
