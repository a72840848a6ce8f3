//! The state of one writing space as a verified pointer names it (Spec: 04 §3, 21 §2.1).

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use champ::{Block, Cid, cbor::Value, map::Champ};
use pki::{
    keys::{Owner, PublicSigningKey, Writer},
    owned::{OwnerProof, owned_key_label},
    pointer::{HistoryError, PointerMemory, PointerUpdate, SignedPointer},
    writer_data::{RootError, WriterData},
};

use super::blocks::OwnerBlocks;
use crate::error::{ClientError, Misbehavior};

/// Depth to which writers owning writers are followed.
const MAX_OWNERSHIP_DEPTH: usize = 32;

/// One owner's spaces as seen through their node.
#[derive(Debug, Clone)]
pub(crate) struct OwnerView {
    pub(crate) blocks: OwnerBlocks,
    pub(crate) memory: Arc<Mutex<PointerMemory>>,
    pub(crate) offline: Arc<Offline>,
}

/// Whether remembered pointers may stand in for a node that cannot be reached.
#[derive(Debug, Default)]
pub(crate) struct Offline {
    is_allowed: AtomicBool,
    was_used: AtomicBool,
}

impl Offline {
    pub(crate) fn allow(&self, is_allowed: bool) {
        self.is_allowed.store(is_allowed, Ordering::Relaxed);
        self.was_used.store(false, Ordering::Relaxed);
    }

    pub(crate) fn was_used(&self) -> bool {
        self.was_used.load(Ordering::Relaxed)
    }
}

/// What a writer's pointer and root block say: one consistent state.
#[derive(Debug, Clone)]
pub(crate) struct SpaceState {
    pub(crate) writer: Writer,
    /// The pointer update that names `root`.
    pub(crate) pointer: PointerUpdate,
    /// The root block.
    pub(crate) root: Cid,
    /// Its content.
    pub(crate) data: WriterData,
}

impl SpaceState {
    /// Returns the root of the tree of nodes.
    ///
    /// # Errors
    /// [`ClientError::NotFound`] when the space has none.
    pub(crate) fn tree(&self) -> Result<&Cid, ClientError> {
        self.data
            .tree
            .as_ref()
            .ok_or_else(|| ClientError::not_found("the folder tree"))
    }
}

impl OwnerView {
    pub(crate) const fn owner(&self) -> &Owner {
        &self.blocks.owner
    }

    /// Reads the pointer of `writer`, verifies it, and compares it with what was seen before.
    ///
    /// `None`: the writer never had a pointer.
    ///
    /// # Errors
    /// [`Misbehavior::ForgedPointer`], [`Misbehavior::Rollback`], [`Misbehavior::Equivocation`].
    pub(crate) async fn pointer(
        &self,
        writer: &Writer,
    ) -> Result<Option<PointerUpdate>, ClientError> {
        let key = self.key_of(writer).await?;
        let answer = match self.blocks.api.pointer(self.owner(), writer).await {
            Err(error) if error.is_network() => {
                let remembered = self.remembered(writer);
                return remembered.map(Some).ok_or(error);
            }
            answer => answer?,
        };
        let Some(signed) = answer else {
            self.observe(writer, None)?;
            return Ok(None);
        };
        let signed =
            SignedPointer::verify(&key, signed).map_err(|_| Misbehavior::ForgedPointer {
                writer: writer.cid().clone(),
            })?;
        self.observe(writer, Some(signed.update()))?;
        Ok(Some(signed.update().clone()))
    }

    /// Returns the last pointer seen, when it may stand in for that of a node out of reach.
    fn remembered(&self, writer: &Writer) -> Option<PointerUpdate> {
        if !self.offline.is_allowed.load(Ordering::Relaxed) {
            return None;
        }
        let latest = self.memory().latest(writer).cloned()?;
        self.offline.was_used.store(true, Ordering::Relaxed);
        Some(latest)
    }

    /// Reads the state of a writing space; `None` when it was never made or was deleted.
    ///
    /// # Errors
    /// As [`OwnerView::pointer`], and [`Misbehavior::ControllerMismatch`].
    pub(crate) async fn space(&self, writer: &Writer) -> Result<Option<SpaceState>, ClientError> {
        let Some(pointer) = self.pointer(writer).await? else {
            return Ok(None);
        };
        let Some(root) = pointer.updated().cloned() else {
            return Ok(None);
        };
        let block = self.blocks.required(&root, None).await?;
        Ok(Some(SpaceState {
            writer: writer.clone(),
            data: self.writer_data(&block, writer)?,
            pointer,
            root,
        }))
    }

    pub(crate) fn writer_data(
        &self,
        block: &Block,
        writer: &Writer,
    ) -> Result<WriterData, ClientError> {
        WriterData::in_block(block, writer).map_err(|error| match error {
            RootError::Controller { .. } => Misbehavior::ControllerMismatch {
                writer: writer.cid().clone(),
            }
            .into(),
            _ => ClientError::bad_record("root block"),
        })
    }

    /// Checks that `parent` authorised `child` and that `child` agreed (Spec: 04 §5.2).
    pub(crate) async fn owns_directly(
        &self,
        parent: &SpaceState,
        child: &Writer,
    ) -> Result<bool, ClientError> {
        let Some(owned) = &parent.data.owned else {
            return Ok(false);
        };
        let value = Champ::at(owned.clone())
            .get(&owned_key_label(&child.0), &self.blocks)
            .await?;
        let Some(Value::Link(proof)) = value else {
            return Ok(false);
        };
        let block = self.blocks.required(&proof, None).await?;
        let Ok(proof) = <OwnerProof as champ::cbor::Record>::decode_shared(block.bytes()) else {
            return Ok(false);
        };
        Ok(*proof.owned() == child.0 && proof.verify(&parent.writer.0, &self.blocks).await.is_ok())
    }

    /// Checks that `writer` belongs to the owner: directly under `nearest`, or anywhere below the identity.
    ///
    /// # Errors
    /// [`Misbehavior::UnownedWriter`].
    pub(crate) async fn check_owned(
        &self,
        nearest: Option<&SpaceState>,
        writer: &Writer,
    ) -> Result<(), ClientError> {
        if *writer == self.owner().as_writer() {
            return Ok(());
        }
        if let Some(nearest) = nearest
            && self.owns_directly(nearest, writer).await?
        {
            return Ok(());
        }
        // Breadth first from the identity; a key is visited once, so cycles end.
        let mut level = vec![self.owner().as_writer()];
        let mut visited = std::collections::HashSet::new();
        for _ in 0..MAX_OWNERSHIP_DEPTH {
            let mut next = Vec::new();
            for parent in level {
                if !visited.insert(parent.clone()) {
                    continue;
                }
                let Some(state) = self.space(&parent).await? else {
                    continue;
                };
                if self.owns_directly(&state, writer).await? {
                    return Ok(());
                }
                next.extend(self.owned_writers(&state).await?);
            }
            if next.is_empty() {
                break;
            }
            level = next;
        }
        Err(Misbehavior::UnownedWriter {
            writer: writer.cid().clone(),
        }
        .into())
    }

    async fn owned_writers(&self, parent: &SpaceState) -> Result<Vec<Writer>, ClientError> {
        let mut writers = Vec::new();
        let Some(owned) = &parent.data.owned else {
            return Ok(writers);
        };
        let mut entries = Champ::at(owned.clone()).entries();
        while let Some((_, value)) = entries.next(&self.blocks).await? {
            let Value::Link(proof) = value else { continue };
            let block = self.blocks.required(&proof, None).await?;
            let Ok(proof) = <OwnerProof as champ::cbor::Record>::decode_shared(block.bytes())
            else {
                continue;
            };
            if proof.verify(&parent.writer.0, &self.blocks).await.is_ok() {
                writers.push(Writer(proof.owned().clone()));
            }
        }
        Ok(writers)
    }

    async fn key_of(&self, writer: &Writer) -> Result<PublicSigningKey, ClientError> {
        if let Some(key) = writer.0.inline_key() {
            return Ok(key);
        }
        writer
            .0
            .resolve(&self.blocks)
            .await
            .map_err(|_| ClientError::bad_record("writer key"))
    }

    fn observe(&self, writer: &Writer, update: Option<&PointerUpdate>) -> Result<(), Misbehavior> {
        self.memory()
            .observe(writer, update)
            .map_err(|error| match error {
                HistoryError::Fork { sequence, .. } => Misbehavior::Equivocation {
                    writer: writer.cid().clone(),
                    sequence,
                },
                HistoryError::Rollback { seen, offered, .. } => Misbehavior::Rollback {
                    writer: writer.cid().clone(),
                    seen: seen.unwrap_or(-1),
                    served: offered.unwrap_or(-1),
                },
                _ => Misbehavior::ForgedPointer {
                    writer: writer.cid().clone(),
                },
            })
    }

    pub(crate) fn memory(&self) -> std::sync::MutexGuard<'_, PointerMemory> {
        // The memory is two maps of whole records; no panic leaves them half written.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
