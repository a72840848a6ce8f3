//! What is stored about mirroring: which users, how far, and which whole nodes.

use serde::{Deserialize, Serialize};

use crate::{
    error::Refusal,
    state::State,
    store::{Batch, tables},
};

/// Row of the node's table of a node that is mirrored as a whole.
const NODE_ROW: &[u8] = b"mirrored node";

/// The copy of one user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserRow {
    /// Node to copy from instead of the user's home, as text.
    pub(crate) from: Option<String>,
    /// When the last pass that left nothing out ended, seconds since 1970.
    pub(crate) in_step_seconds: Option<i64>,
    /// When the next pass is due.
    pub(crate) due_seconds: i64,
    /// Passes that failed in a row.
    pub(crate) failures: u32,
    /// Why the last one failed.
    pub(crate) error: Option<String>,
    /// Blocks fetched since the copy was begun.
    pub(crate) blocks: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
}

/// A node that is mirrored as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeRow {
    /// The node, as text.
    pub(crate) from: String,
    /// Its instance token, as text.
    pub(crate) token: String,
    /// Space each of its users gets here, in bytes.
    pub(crate) quota_bytes: u64,
    /// When the last run without failures ended, seconds since 1970.
    pub(crate) in_step_seconds: Option<i64>,
    /// When the next run is due.
    pub(crate) due_seconds: i64,
    /// Users copied in the last run.
    pub(crate) users: u64,
    /// Users that failed in it.
    pub(crate) failed: u64,
    /// Why the last run failed.
    pub(crate) error: Option<String>,
}

/// The rows of mirroring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mirroring<'a>(pub(crate) &'a State);

impl Mirroring<'_> {
    /// Returns what is stored of a user's copy.
    pub(crate) async fn user(self, name: &str) -> Result<Option<UserRow>, Refusal> {
        let row = self.0.store.get(tables::MIRRORS, name.as_bytes()).await?;
        row.map(|row| serde_json::from_slice(&row).map_err(Refusal::internal))
            .transpose()
    }

    /// Stores it.
    pub(crate) async fn set_user(self, name: &str, row: &UserRow) -> Result<(), Refusal> {
        let bytes = serde_json::to_vec(row).map_err(Refusal::internal)?;
        let batch = Batch::new().put(tables::MIRRORS, name.as_bytes().to_vec(), bytes);
        let _ = self.0.store.commit(batch).await?;
        Ok(())
    }

    /// Returns the node that is mirrored as a whole.
    pub(crate) async fn node(self) -> Result<Option<NodeRow>, Refusal> {
        let row = self.0.store.get(tables::NODE, NODE_ROW).await?;
        row.map(|row| serde_json::from_slice(&row).map_err(Refusal::internal))
            .transpose()
    }

    /// Stores it; `None` for none any more.
    pub(crate) async fn set_node(self, row: Option<&NodeRow>) -> Result<(), Refusal> {
        let batch = match row {
            None => Batch::new().remove(tables::NODE, NODE_ROW),
            Some(row) => {
                let bytes = serde_json::to_vec(row).map_err(Refusal::internal)?;
                Batch::new().put(tables::NODE, NODE_ROW, bytes)
            }
        };
        let _ = self.0.store.commit(batch).await?;
        Ok(())
    }
}
