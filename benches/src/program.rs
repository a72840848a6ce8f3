//! What the end-to-end benchmarks do with the program: find it, believe only what succeeded, and make files to send.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use tests::Finished;

/// Returns the program that was built beside this one, or the one that `KASTRO` in the environment names.
///
/// # Errors
/// When it has not been built.
pub fn kastro() -> anyhow::Result<PathBuf> {
    if let Some(named) = std::env::var_os("KASTRO") {
        return Ok(named.into());
    }
    let here = std::env::current_exe()?;
    let kastro = here
        .parent()
        .context("no folder")?
        .join(format!("kastro{}", std::env::consts::EXE_SUFFIX));
    if !kastro.exists() {
        bail!("build the program first: cargo build --release -p cli");
    }
    Ok(kastro)
}

/// Returns a run that succeeded.
///
/// # Errors
/// With what it said when it did not.
pub fn done(finished: Finished) -> anyhow::Result<Finished> {
    if finished.code != Some(0) {
        bail!("kastro failed: {}", finished.stderr);
    }
    Ok(finished)
}

/// Writes a file of bytes that do not compress, others for other sizes and lengths of the path, and flushes it: otherwise
/// the node's flushes would wait for this file as well.
///
/// # Errors
/// Failures of the disk.
pub fn fill(path: &Path, bytes: u64) -> anyhow::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut state = bytes ^ 0x9e37_79b9_7f4a_7c15 ^ path.as_os_str().len() as u64;
    let mut left = bytes;
    while left > 0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let word = state.to_le_bytes();
        let part = usize::try_from(left.min(8))?;
        file.write_all(word.get(..part).unwrap_or_default())?;
        left -= part as u64;
    }
    file.into_inner()?.sync_all()?;
    Ok(())
}
