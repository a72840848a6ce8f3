//! What a check found, as data: the command prints it, scripts read it as JSON.

use std::collections::BTreeMap;

use champ::Cid;
use serde::{Deserialize, Serialize};

/// Most findings that are kept one by one; later ones are only counted.
pub const MAX_FINDINGS: usize = 10_000;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Severity {
    /// Nothing is lost, and a repair puts it right.
    Untidy,
    /// Data is damaged or missing.
    Damage,
}

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// The stored bytes of a block do not match its name.
    DamagedBlock,
    /// The copy of a block is not where the index says.
    MissingCopy,
    /// The copy of a block has another length than was stored.
    WrongLength,
    /// The copy of a block cannot be read: the disk reports an error.
    UnreadableBlock,
    /// A pointer leads, directly or over other blocks, to a block that is not stored.
    MissingBlock,
    /// A pointer leads, directly or over other blocks, to a damaged block.
    DamagedLink,
    /// A pointer is not signed by its writer, or cannot be understood.
    BadPointer,
    /// A pointer belongs to no registered writer.
    UnknownWriter,
    /// A row of metadata cannot be understood.
    BadRow,
    /// Files that no row names.
    OrphanFiles,
    /// The number of blocks or bytes of a user's space is off.
    WrongCounts,
    /// The bytes that count against a quota are off.
    WrongUsage,
}

impl Kind {
    /// Returns how bad it is.
    pub const fn severity(self) -> Severity {
        match self {
            Self::OrphanFiles | Self::WrongCounts | Self::WrongUsage | Self::UnknownWriter => {
                Severity::Untidy
            }
            _ => Severity::Damage,
        }
    }

    /// Returns a few words for people.
    pub const fn words(self) -> &'static str {
        match self {
            Self::DamagedBlock => "damaged block",
            Self::MissingCopy => "block whose copy is gone",
            Self::WrongLength => "block of the wrong length",
            Self::UnreadableBlock => "block that the disk cannot read",
            Self::MissingBlock => "missing block",
            Self::DamagedLink => "damaged block in use",
            Self::BadPointer => "bad pointer",
            Self::UnknownWriter => "pointer of no known writer",
            Self::BadRow => "damaged row",
            Self::OrphanFiles => "files that belong to nothing",
            Self::WrongCounts => "block count that is off",
            Self::WrongUsage => "usage that is off",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What.
    pub kind: Kind,
    /// The user or, where the node knows no user, the block space.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub user: Option<String>,
    /// The writer whose pointer leads there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub writer: Option<String>,
    /// The block.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cid: Option<String>,
    /// The block that links to it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub parent: Option<String>,
    /// More, for people.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub note: String,
}

impl Finding {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            user: None,
            writer: None,
            cid: None,
            parent: None,
            note: String::new(),
        }
    }

    pub(crate) fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    pub(crate) fn writer(mut self, writer: &Cid) -> Self {
        self.writer = Some(writer.to_string());
        self
    }

    pub(crate) fn cid(mut self, cid: &Cid) -> Self {
        self.cid = Some(cid.to_string());
        self
    }

    pub(crate) fn parent(mut self, parent: Option<&Cid>) -> Self {
        self.parent = parent.map(Cid::to_string);
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// What is lost below one pointer: a writer's part of a user's files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Affected {
    /// User.
    pub user: String,
    /// Writer: the key that signs this part.
    pub writer: String,
    /// The root that the pointer leads to.
    pub root: String,
    /// True when the root itself is lost: nothing of this part can be read.
    pub is_root_lost: bool,
    /// Blocks that are not stored.
    pub missing: u64,
    /// Blocks that are damaged.
    pub damaged: u64,
}

/// The result of a check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Block spaces looked at.
    pub partitions: u64,
    /// Blocks looked at.
    pub blocks: u64,
    /// Bytes of these blocks.
    pub bytes: u64,
    /// True when every block was read and hashed.
    pub is_hashed: bool,
    /// Pointers whose signature was verified.
    pub pointers: u64,
    /// Blocks that pointers lead to, counted for each pointer.
    pub reachable: u64,
    /// Blocks in quarantine that have not been stored again.
    pub quarantined: u64,
    /// How many of each kind were found.
    pub counts: BTreeMap<Kind, u64>,
    /// What was found, at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// Whose data is affected.
    pub affected: Vec<Affected>,
}

impl Report {
    /// Adds a finding.
    pub(crate) fn add(&mut self, finding: Finding) {
        *self.counts.entry(finding.kind).or_default() += 1;
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        }
    }

    /// Returns how bad the worst finding is; `None` when all is well.
    pub fn worst(&self) -> Option<Severity> {
        self.counts.keys().map(|kind| kind.severity()).max()
    }

    /// Returns the number of findings.
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_json_and_is_bounded() {
        let mut report = Report::default();
        assert_eq!(report.worst(), None);
        report.add(Finding::new(Kind::OrphanFiles));
        assert_eq!(report.worst(), Some(Severity::Untidy));
        for _ in 0..MAX_FINDINGS + 5 {
            report.add(Finding::new(Kind::DamagedBlock).user("alice").note("x"));
        }
        assert_eq!(report.worst(), Some(Severity::Damage));
        assert_eq!(report.findings.len(), MAX_FINDINGS);
        assert_eq!(report.total(), MAX_FINDINGS as u64 + 6);
        let text = serde_json::to_string(&report).unwrap();
        assert!(text.contains(r#""kind":"damaged-block","user":"alice","note":"x""#));
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report);
    }
}
