//! Settings of a process's memory that only the C library knows, behind safe functions (Spec: 40 SC-5).
//!
//! Keys lie in the memory of whoever is logged in, and of a node. They must not end up in the core dump of a crash, in the
//! debugger of another program of the same person, or on the disk that memory is swapped to.

#![expect(
    unsafe_code,
    reason = "calls of the C library; this crate holds nothing else"
)]

/// Makes all threads allocate from one heap. Does nothing where the C library is not glibc.
///
/// glibc gives each thread a heap of its own and keeps what was freed there. A transfer frees chunks of 5 MiB on
/// several threads, and each heap keeps its share: 115 MB for an upload of 1 GiB that needs 50. With one heap for
/// all threads what one frees the next takes. A node with 1,000,000 blocks keeps 31 MB after a collection instead of 243,
/// and needs at most 128 instead of 587 (`cargo run --release -p collect` with and without `MALLOC_ARENA_MAX=1`).
pub fn share_one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: mallopt takes two integers, is safe to call from any thread, and with M_ARENA_MAX changes only how
    // many heaps are made later. It returns 0 when it refuses; then nothing has changed, and nothing depends on it.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Makes this process keep the memory that a chunk needs instead of giving it back and asking for it anew.
///
/// For clients: a transfer allocates and frees buffers of up to 5 MiB all the time, and glibc maps and unmaps each, so
/// that every page of it is faulted in again. Kept in the heap they cost nothing, and the highest resident size stays
/// the same: a download of 1 GiB needs 0.55 s of system time instead of 1.1 to 1.8 (with and without
/// `MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=67108864`). Does nothing where the C library is not glibc.
pub fn keep_large_buffers() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // The largest threshold that glibc allows for memory that is mapped block by block.
        const MAPPED_ABOVE_BYTES: libc::c_int = 32 << 20;
        // Free memory at the end of the heap above which some is given back.
        const KEPT_FREE_BYTES: libc::c_int = 64 << 20;
        // SAFETY: as for `share_one_heap`; the thresholds only decide when memory goes back to the system.
        unsafe {
            libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_ABOVE_BYTES);
            libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_FREE_BYTES);
        }
    }
}

/// Keeps the memory of this process out of core dumps, and on Linux away from debuggers and from readers of
/// `/proc/PID/mem` and `/proc/PID/environ` who are not root. Best effort.
///
/// Call it first: it holds for what is in memory already. It does not survive the start of another program.
pub fn keep_private() {
    #[cfg(unix)]
    {
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: setrlimit reads the structure that it is handed, which lives until it returns. A limit of a process may
        // always be lowered.
        unsafe {
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
        }
    }
    #[cfg(target_os = "linux")]
    {
        let never: libc::c_ulong = 0;
        // SAFETY: with PR_SET_DUMPABLE, prctl takes one integer and touches no memory of ours.
        unsafe {
            libc::prctl(libc::PR_SET_DUMPABLE, never);
        }
    }
}

/// Keeps the memory of this process, now and later, out of swap; false where that is not allowed without a limit.
///
/// Where there is a limit nothing is locked: memory that exceeds it could not be had at all. For processes that are small and
/// hold the keys of a person; a node's caches may be swapped.
pub fn keep_out_of_swap() -> bool {
    lock_all()
}

#[cfg(target_os = "linux")]
fn lock_all() -> bool {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit writes the structure that it is handed, which lives until it returns.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    if known != 0 || limit.rlim_cur != libc::RLIM_INFINITY {
        return false;
    }
    let all = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: mlockall takes one integer, and changes for no address what can be read there.
    unsafe { libc::mlockall(all) == 0 }
}

#[cfg(not(target_os = "linux"))]
const fn lock_all() -> bool {
    false
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::Command;

    use super::*;

    const ALONE: &str = "KASTRO_MEMORY_ALONE";

    /// Runs in a process of its own, which it changes.
    #[test]
    fn settings_alone() {
        if std::env::var_os(ALONE).is_none() {
            return;
        }
        // SAFETY: with PR_GET_DUMPABLE, prctl takes nothing and touches no memory of ours.
        let dumpable = || unsafe { libc::prctl(libc::PR_GET_DUMPABLE) };
        assert_eq!(dumpable(), 1, "the test shows nothing");
        keep_private();
        assert_eq!(dumpable(), 0);
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core"));
        let words: Vec<_> = core.unwrap().split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{core:?}");
        let is_locked = keep_out_of_swap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let locked = status.lines().find(|line| line.starts_with("VmLck:"));
        let locked = locked.unwrap().split_whitespace().nth(1).unwrap();
        assert_eq!(locked != "0", is_locked, "{locked} kB");
        // What is allocated later can be had all the same.
        assert_eq!(
            vec![1_u8; 64 << 20].iter().filter(|b| **b == 1).count(),
            64 << 20
        );
    }

    #[test]
    fn sc_5_memory_is_dumped_nowhere() {
        let alone = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::settings_alone", "--nocapture"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        assert!(
            alone.status.success(),
            "{}",
            String::from_utf8_lossy(&alone.stderr)
        );
    }
}
