//! Pointers: which update may replace which, and storing updates together (Spec: 07).
//!
//! Validation reads the state before the update; the commit is conditional on that state, so of any number of
//! updates that were validated against the same pointer exactly one is stored.

use std::sync::Arc;

use bytes::Bytes;
use champ::{
    BlockSource, Cid, SourceError,
    cbor::{Record as _, decode},
};
use pki::{
    keys::{PublicSigningKey, SIGNATURE_BYTES, Writer},
    pointer::{
        OFFICIAL_MAX_SIGNED_BYTES, PointerCas, PointerError, PointerUpdate, SignedPointer,
        check_successor,
    },
    username::Username,
    wire::pointer_batch::PointerWrite,
    writer_data::{RootError, WriterData},
};

use crate::{
    blocks::source_refusal,
    directory::User,
    error::Refusal,
    gc, migration,
    state::State,
    store::{Batch, CommitOutcome, tables},
    usage,
    writers::{self, WriterRow},
};

/// Most writers one user may register (Spec: 07, security check 8).
const MAX_WRITERS_PER_USER: usize = 10_000;

/// Returns the stored bytes of a writer's latest update.
pub(crate) async fn stored(state: &State, writer: &Writer) -> Result<Option<Bytes>, Refusal> {
    Ok(state
        .store
        .get(tables::POINTERS, &writer.cid().to_bytes())
        .await?)
}

/// Returns a writer's latest update.
pub(crate) async fn stored_update(
    state: &State,
    writer: &Writer,
) -> Result<Option<PointerUpdate>, Refusal> {
    stored(state, writer)
        .await?
        .map(|bytes| read_update(&bytes))
        .transpose()
}

/// Reads an update that was verified before it was stored.
pub(crate) fn read_update(signed: &[u8]) -> Result<PointerUpdate, Refusal> {
    let message = signed.get(SIGNATURE_BYTES..).unwrap_or_default();
    let value = decode(message).map_err(Refusal::internal)?;
    PointerUpdate::from_value(value).map_err(Refusal::internal)
}

/// An update that passed every check against the state before it.
#[derive(Debug)]
pub(crate) struct Planned {
    writer: Writer,
    signed: SignedPointer,
    /// The stored bytes it replaces.
    before: Option<Bytes>,
    replaced: Option<PointerUpdate>,
}

impl Planned {
    /// Takes over an update that was verified at another node, as the next state of a copy: nothing but the stored
    /// bytes it replaces is a condition.
    ///
    /// # Errors
    /// When the stored bytes cannot be read.
    pub(crate) fn copied(
        writer: &Writer,
        signed: &SignedPointer,
        before: Option<Bytes>,
    ) -> Result<Self, Refusal> {
        Ok(Self {
            writer: writer.clone(),
            signed: signed.clone(),
            replaced: before.as_deref().map(read_update).transpose()?,
            before,
        })
    }

    /// Returns where the pointer will lead.
    pub(crate) fn target(&self) -> Option<&Cid> {
        self.signed.update().updated()
    }

    /// Returns what the update adds; nothing for a deletion.
    fn step(&self) -> Option<gc::Step<'_>> {
        Some(gc::Step {
            from: self.replaced.as_ref().and_then(PointerUpdate::updated),
            to: self.target()?,
        })
    }
}

/// Why an update is not planned.
#[derive(Debug)]
pub(crate) enum NotPlanned {
    /// Not signed by the writer: `00` to a single update.
    Signature,
    /// The root block belongs to another writer: `00` to a single update.
    Controller,
    /// Everything else.
    Refused(Refusal),
}

impl From<Refusal> for NotPlanned {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl NotPlanned {
    /// Turns the failure into a refusal, for calls that do not answer `00`.
    pub(crate) fn into_refusal(self, writer: &Writer) -> Refusal {
        match self {
            Self::Signature => Refusal::Signature,
            Self::Controller => {
                Refusal::rule(format!("WriterData controller mismatch for {writer}"))
            }
            Self::Refused(refusal) => refusal,
        }
    }
}

/// Checks one update in the order of Spec: 07 §3, steps 5 to 14.
pub(crate) async fn plan(
    state: &State,
    user: &User,
    write: &PointerWrite,
    blocks: &dyn BlockSource,
) -> Result<Planned, NotPlanned> {
    let writer = &write.writer;
    if write.signed.len() > OFFICIAL_MAX_SIGNED_BYTES {
        return Err(too_big(write.signed.len()).into());
    }
    let key = signing_key(writer, blocks).await?;
    let signed = verify(&key, &write.signed)?;
    let before = stored(state, writer).await?;
    let replaced = before.as_deref().map(read_update).transpose()?;
    check_successor(replaced.as_ref(), signed.update()).map_err(Refusal::from)?;
    if let Some(target) = signed.update().updated() {
        check_root(target, writer, blocks).await?;
    }
    let is_known_deletion =
        signed.update().is_deletion() && state.writers.is_known(state, user, writer).await?;
    if !is_known_deletion {
        state.writers.ensure(state, user, writer).await?;
    }
    Ok(Planned {
        writer: writer.clone(),
        signed,
        before,
        replaced,
    })
}

fn too_big(actual: usize) -> Refusal {
    Refusal::rule(PointerError::TooBig { actual }.wire_text())
}

/// Returns the key that a writer hash names.
pub(crate) async fn signing_key(
    writer: &Writer,
    blocks: &dyn BlockSource,
) -> Result<PublicSigningKey, Refusal> {
    writer.hash().resolve(blocks).await.map_err(|error| {
        tracing::debug!(%error, "writer key cannot be resolved");
        Refusal::rule(format!(
            "Couldn't retrieve writer key from ipfs with hash {writer}"
        ))
    })
}

/// Verifies the signature and reads the update.
pub(crate) fn verify(key: &PublicSigningKey, signed: &Bytes) -> Result<SignedPointer, NotPlanned> {
    SignedPointer::verify(key, signed.clone()).map_err(|error| match error {
        PointerError::Signature(_) => NotPlanned::Signature,
        other => NotPlanned::Refused(Refusal::rule(other.wire_text())),
    })
}

/// Checks that a target is a root block of the writer, readable without token.
pub(crate) async fn check_root(
    target: &Cid,
    writer: &Writer,
    blocks: &dyn BlockSource,
) -> Result<WriterData, NotPlanned> {
    let absent = || Refusal::rule(format!("Couldn't retrieve WriterData from dht! {target}"));
    let block = match blocks.block(target, None).await {
        Ok(Some(block)) => block,
        Ok(None) | Err(SourceError::Rejected { .. }) => return Err(absent().into()),
        Err(error) => return Err(source_refusal(error).into()),
    };
    WriterData::in_block(&block, writer).map_err(|error| match error {
        RootError::Controller { .. } => NotPlanned::Controller,
        RootError::Codec(_) => absent().into(),
        other => Refusal::malformed(format!("Cbor for WriterData should be a map! {other}")).into(),
    })
}

/// Stores planned updates and whatever else `batch` holds, all or nothing, and what follows from them
/// (Spec: 07 §6). When this returns, the client's next request may use newly owned keys.
///
/// # Errors
/// [`Refusal::Pointer`] of the first writer whose pointer changed meanwhile, [`Refusal::Moving`]; nothing is stored
/// then.
pub(crate) async fn commit(
    state: &Arc<State>,
    user: &Arc<User>,
    plans: Vec<Planned>,
    batch: Batch,
) -> Result<(), Refusal> {
    let mut guarded = migration::guard(state, user, Batch::new()).await?;
    guarded.append(batch);
    commit_guarded(state, user, plans, guarded, true).await
}

/// As [`commit`], for the copy of a user whose data changes elsewhere.
///
/// # Errors
/// As [`commit`].
pub(crate) async fn commit_copy(
    state: &Arc<State>,
    user: &Arc<User>,
    plans: Vec<Planned>,
    batch: Batch,
) -> Result<(), Refusal> {
    commit_guarded(state, user, plans, batch, false).await
}

async fn commit_guarded(
    state: &Arc<State>,
    user: &Arc<User>,
    plans: Vec<Planned>,
    batch: Batch,
    has_guard: bool,
) -> Result<(), Refusal> {
    // The conditions of the pointers come first, so that a failed one is found by its position, then those of
    // the caller.
    let mut guarded = Batch::new();
    for plan in &plans {
        let key = plan.writer.cid().to_bytes();
        guarded = guarded.expect(tables::POINTERS, key, plan.before.clone());
    }
    let callers = batch.conditions().len();
    guarded.append(batch);
    guarded = gc::note_change(guarded, user.name.as_str());
    for plan in &plans {
        let signed = plan.signed.bytes();
        let key = plan.writer.cid().to_bytes();
        guarded = guarded.put(tables::POINTERS, key, signed.clone());
        guarded = usage::mark_unsettled(guarded, &plan.writer, signed);
    }
    let _turn = state.collector.turn(&user.name).await;
    let steps: Vec<_> = plans.iter().filter_map(Planned::step).collect();
    let owned = loop {
        let admission = gc::admit(state, user, &steps).await?;
        let owned = new_writers(state, user, &plans).await;
        let mut whole = admission.guard(guarded.clone());
        for (writer, row) in &owned {
            whole = writers::register(whole, writer, row);
        }
        match state.store.commit(whole).await? {
            CommitOutcome::Committed => break owned,
            CommitOutcome::ConditionFailed { index, actual } => {
                if let Some(plan) = plans.get(index) {
                    return Err(lost_race(plan, actual.as_deref())?);
                }
                if has_guard && index == plans.len() {
                    return Err(Refusal::Moving);
                }
                if index < plans.len() + callers {
                    return Err(Refusal::rule(
                        "Mutable pointer update failed! Concurrent Modification.",
                    ));
                }
                // A collection gave up blocks, or somebody registered one of the owned keys meanwhile: look again.
            }
        }
    };
    if !owned.is_empty() {
        state.writers.ownership_changed(user);
    }
    let writers: Vec<_> = plans.into_iter().map(|plan| plan.writer).collect();
    state.usage.committed(state, user, writers).await;
    Ok(())
}

fn lost_race(plan: &Planned, actual: Option<&[u8]>) -> Result<Refusal, Refusal> {
    let current = actual.map(read_update).transpose()?;
    Ok(Refusal::Pointer(
        PointerCas {
            current: current
                .as_ref()
                .and_then(|update| update.updated().cloned()),
            sequence: current.as_ref().and_then(PointerUpdate::sequence),
            claimed: plan.signed.update().original().cloned(),
        }
        .into(),
    ))
}

/// Returns the keys that the new roots own and that are not registered yet. A failure is logged and registers
/// nothing: the keys are found by a search when they first write.
async fn new_writers(state: &State, user: &User, plans: &[Planned]) -> Vec<(Writer, WriterRow)> {
    let mut owned = Vec::new();
    for plan in plans {
        let old = plan.replaced.as_ref().and_then(|update| update.updated());
        let new = plan.signed.update().updated();
        if new.is_none() {
            continue;
        }
        match writers::owned_change(state, user, &plan.writer, old, new).await {
            Ok((_, added)) => {
                for writer in added {
                    let is_new = matches!(writers::read_row(state, &writer).await, Ok(None))
                        && !owned.iter().any(|(known, _)| *known == writer);
                    if is_new {
                        let parent = Some(plan.writer.clone());
                        owned.push((writer, WriterRow::new(user.name.clone(), parent)));
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "owned keys of an update cannot be registered"),
        }
    }
    if !owned.is_empty() && too_many_writers(state, &user.name, owned.len()).await {
        tracing::warn!(user = user.name.as_str(), "user has too many writers");
        return Vec::new();
    }
    owned
}

async fn too_many_writers(state: &State, name: &Username, more: usize) -> bool {
    let mut prefix = name.as_str().as_bytes().to_vec();
    prefix.push(0);
    let rows = state
        .store
        .scan(tables::USER_WRITERS, &prefix, None, MAX_WRITERS_PER_USER)
        .await;
    rows.map_or(true, |rows| rows.len() + more > MAX_WRITERS_PER_USER)
}
