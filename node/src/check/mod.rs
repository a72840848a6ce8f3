//! Checks everything that a store holds: every block against its name, every file against the index, every
//! signed pointer and every block it leads to, and what is counted for each user.
//!
//! Reads only, and never deletes. It runs beside a serving node: what is written or collected meanwhile is never
//! reported as damage, because each suspicion is looked at a second time.
//!
//! Spec: 40 REL-6, REL-7, REL-14, 12 §3.1.

mod blocks;
mod graph;
mod repair;
mod report;
mod scrub;
mod strays;

pub use blocks::Position;
pub use repair::{BlockSupply, RepairOptions, Repaired, SupplyError, repair};
pub use report::{Affected, Finding, Kind, MAX_FINDINGS, Report, Severity};
pub(crate) use scrub::start as start_scrub;
pub use scrub::{Next, Scrub, ScrubOptions, ScrubResult, ScrubState};
pub(crate) use strays::start as start_sweep;

use pki::username::Username;

use crate::{
    directory::partition_of,
    store::{Partition, Store, StoreError},
};

/// What to check.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// Only the data of this user.
    pub user: Option<Username>,
    /// Do not read the blocks: only look whether their copies are there, and follow pointers over the blocks
    /// that hold links.
    pub is_quick: bool,
    /// Where an earlier check stopped.
    pub resume: Option<Progress>,
}

/// How far a check has come; can be kept and handed in again.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    /// The last block that was looked at.
    pub position: Position,
    /// What was found until there.
    pub report: Report,
    /// Blocks that are stored in all, for an estimate.
    pub expected_blocks: u64,
    /// Their bytes.
    pub expected_bytes: u64,
}

/// Checks a store. `progress` is told after each page of blocks and after each pointer; when it returns false, the
/// check ends early with `None`, and the last progress resumes it.
///
/// # Errors
/// Failures of the disk that are not those of a single block.
pub async fn check(
    store: &dyn Store,
    options: &CheckOptions,
    progress: &mut (dyn FnMut(&Progress) -> bool + Send),
) -> Result<Option<Report>, StoreError> {
    let only = options.user.as_ref().map(partition_of).transpose();
    let only = only.map_err(|_| StoreError::DamagedRow { row: "user" })?;
    let mut state = options.resume.clone().unwrap_or_default();
    state.report.is_hashed = !options.is_quick;
    blocks::expect(store, only.as_ref(), &mut state).await?;
    let depth = if options.is_quick {
        blocks::Depth::Copies
    } else {
        blocks::Depth::Bytes
    };
    if !blocks::walk(store, only.as_ref(), depth, &mut state, progress).await? {
        return Ok(None);
    }
    if let Some(upkeep) = store.upkeep() {
        blocks::tidy(store, upkeep, only.as_ref(), &mut state.report).await?;
    }
    if only.is_none() {
        blocks::strays(store, &mut state.report).await?;
    }
    if !graph::check(store, options, &mut state, progress).await? {
        return Ok(None);
    }
    Ok(Some(state.report))
}

/// Returns the user of a block space, or the name of the space in brackets when it is of no user.
pub(crate) fn user_of(partition: &Partition) -> String {
    let text = partition.as_str();
    let spelled = |code: &str| {
        let bytes = champ::text::from_base32_upper(&code.to_ascii_uppercase()).ok()?;
        String::from_utf8(bytes).ok()
    };
    let user = match (text.strip_prefix("u-"), text.strip_prefix("x-")) {
        (Some(user), _) => Some(user.to_owned()),
        (None, Some(code)) => spelled(code),
        (None, None) => None,
    };
    user.unwrap_or_else(|| format!("[{text}]"))
}

/// Returns the block space that [`user_of`] speaks of.
pub(crate) fn space_of(user: &str) -> Option<Partition> {
    if let Some(name) = user.strip_prefix('[') {
        return Partition::new(name.strip_suffix(']')?).ok();
    }
    partition_of(&Username::parse(user).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_their_spaces_lead_to_each_other() {
        for user in ["alice", "x-abc", "A_b", "../x"] {
            let space = partition_of(&Username::parse(user).unwrap()).unwrap();
            assert_eq!(user_of(&space), user);
            assert_eq!(space_of(user), Some(space));
        }
        let foreign = Partition::new("w1").unwrap();
        assert_eq!(user_of(&foreign), "[w1]");
        assert_eq!(space_of("[w1]"), Some(foreign));
        assert_eq!(space_of("[w1"), None);
    }
}
