//! The node's own name authority (Spec: 10 §8).
//!
//! The table is public data of the user `peergos`, laid out as every node of a network expects it: chain blocks
//! below a CHAMP below the root block of the PKI writer. One lock makes this process a single writer, other processes
//! on the same store are found out by the pointer of the table, on which every change depends, and what a
//! registration changes is committed together with the account it belongs to.

use champ::{
    Block, Cid,
    cbor::{Record as _, Value},
    map::{Champ, KeyHash},
};
use pki::{
    chain::{ClaimChain, ClaimLink, OwnerKeys, Registration, Ruling},
    claim::{Date, placeholder_provider},
    keys::{Owner, PublicKeyHash, SecretKeyWithHash},
    owned::OwnerProof,
    pointer::{PointerUpdate, SignedPointer},
    proof_of_work::{DifficultyPolicy, ProofOfWork},
    username::{PKI_OWNER, Username},
    wire::signup::UpdateChainRequest,
    writer_data::{PKI_NAME, WriterData},
};
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    blocks::StoredBlocks,
    directory::{User, partition_of},
    error::Refusal,
    gc,
    names::{self, Registered},
    pointers::{stored, stored_update},
    random::uuid,
    state::State,
    store::{Batch, TransactionId, tables},
    writers::{self, WriterRow},
};

/// Row of the new names that all processes on a shared store have counted.
const COUNTED_ROW: &[u8] = b"counted new names";
/// Attempts at a change of the table that those of other processes overtake.
pub(crate) const MAX_TURNS: usize = 30;

/// The name authority of a node.
pub(crate) struct Registrar {
    identity: SecretKeyWithHash,
    writer: SecretKeyWithHash,
    /// How hard new names are; holding it is the right to change the table.
    policy: Mutex<DifficultyPolicy>,
}

impl std::fmt::Debug for Registrar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registrar")
            .field("identity", self.identity.hash())
            .finish_non_exhaustive()
    }
}

/// The right to change the table.
pub(crate) struct Turn<'a> {
    policy: MutexGuard<'a, DifficultyPolicy>,
    /// What all processes on this store have counted, as it was stored when this turn last decided.
    counted: Option<bytes::Bytes>,
}

/// An update of the table, ready to be committed.
pub(crate) struct Prepared {
    /// Conditions and writes of the table.
    pub(crate) batch: Batch,
    existing: ClaimChain,
    chain: ClaimChain,
    transaction: TransactionId,
}

/// What the registrar says to an update.
pub(crate) enum Decision {
    /// Commit this.
    Change(Box<Prepared>),
    /// The update is what is stored.
    Unchanged,
    /// Not enough work.
    MoreWork(u16),
}

impl Registrar {
    pub(crate) fn new(
        identity: SecretKeyWithHash,
        writer: SecretKeyWithHash,
        policy: DifficultyPolicy,
    ) -> Self {
        Self {
            identity,
            writer,
            policy: Mutex::new(policy),
        }
    }

    /// Returns the owner of the table.
    pub(crate) fn owner(&self) -> Owner {
        Owner(self.identity.hash().clone())
    }

    /// Returns the keys of the table: owner, writer.
    pub(crate) const fn keys(&self) -> (&SecretKeyWithHash, &SecretKeyWithHash) {
        (&self.identity, &self.writer)
    }

    /// Waits for the right to change the table.
    pub(crate) async fn turn(&self) -> Turn<'_> {
        Turn {
            policy: self.policy.lock().await,
            counted: None,
        }
    }

    /// Makes the table on the first start of a node: identity, PKI writer, and the entry of `peergos` itself.
    pub(crate) async fn found(&self, state: &State) -> Result<(), Refusal> {
        let owner = Owner(self.identity.hash().clone());
        if stored(state, &owner.as_writer()).await?.is_some() {
            return self.name_home(state).await;
        }
        // Another process on the same store may be founding it as well.
        let key = owner.as_writer();
        match self.found_new(state).await {
            Err(_) if stored(state, &key).await?.is_some() => Ok(()),
            outcome => outcome,
        }
    }

    /// Says in the table that this node gives it out, after it took over from another one.
    async fn name_home(&self, state: &State) -> Result<(), Refusal> {
        let existing = state.directory.chain(PKI_OWNER).await?;
        let is_named = existing
            .home()
            .is_none_or(|home| state.identity.is_own(home));
        if is_named {
            return Ok(());
        }
        let _turn = self.turn().await;
        let name = Username::parse(PKI_OWNER).map_err(Refusal::internal)?;
        let here = state.identity.current().clone();
        let chain = existing
            .with_last_claim(&name, Date::NEVER, here, self.identity.secret())
            .map_err(Refusal::internal)?;
        let prepared = self
            .prepare_change(state, &name, existing, chain, transaction()?)
            .await?;
        if !state
            .store
            .commit(prepared.batch.clone())
            .await?
            .is_committed()
        {
            return Err(Refusal::internal("the name table was changed meanwhile"));
        }
        self.finish(state, *prepared).await
    }

    async fn found_new(&self, state: &State) -> Result<(), Refusal> {
        let _turn = self.turn().await;
        let name = Username::parse(PKI_OWNER).map_err(Refusal::internal)?;
        let user = state.directory.table_user();
        let mut root = WriterData::new_writer(self.identity.writer());
        root.named.insert(
            PKI_NAME.to_owned(),
            OwnerProof::make(&self.writer, self.identity.hash()),
        );
        let root = root.to_block().map_err(Refusal::internal)?;
        let (_, empty) = Champ::empty().finish().map_err(Refusal::internal)?;
        let transaction = transaction()?;
        let mut blocks = vec![root.clone()];
        blocks.extend(empty);
        state
            .store
            .put_blocks(&user.partition, blocks, Some(&transaction))
            .await?;
        let signed = first_pointer(&self.identity, root.cid())?;
        let key = self.identity.writer().cid().to_bytes();
        let mut batch = Batch::new()
            .expect_absent(tables::POINTERS, key.clone())
            .put(tables::POINTERS, key, signed.into_bytes());
        for (writer, parent) in [
            (self.identity.writer(), None),
            (self.writer.writer(), Some(self.identity.writer())),
        ] {
            batch = writers::register(batch, &writer, &WriterRow::new(name.clone(), parent));
        }
        let provider = state.identity.current().clone();
        let link = ClaimLink::sign(&name, Date::NEVER, provider, self.identity.secret())
            .map_err(Refusal::internal)?;
        let chain = ClaimChain::single(link);
        let existing = ClaimChain::default();
        let prepared = self
            .prepare_change(state, &name, existing, chain, transaction)
            .await?;
        batch.append(prepared.batch.clone());
        if !state.store.commit(batch).await?.is_committed() {
            return Err(Refusal::internal("the name table was made twice"));
        }
        self.finish(state, *prepared).await
    }

    /// Decides about an update and prepares the change (Spec: 10 §8.5).
    ///
    /// `proof_data` is what the proof of work is over.
    pub(crate) async fn decide(
        &self,
        turn: &mut Turn<'_>,
        state: &State,
        name: &str,
        update: &ClaimChain,
        proof: &[u8],
        proof_data: &[u8],
    ) -> Result<Decision, Refusal> {
        if state.store.is_shared() {
            turn.counted = state.store.get(tables::NODE, COUNTED_ROW).await?;
            if let Some(counted) = &turn.counted
                && !turn.policy.go_on_from(counted)
            {
                tracing::warn!("the counts of new names cannot be read");
            }
        }
        names::check_fence(state, &self.writer.writer()).await?;
        let existing = state.directory.chain(name).await?;
        let bound = match update.identity() {
            Some(identity) => state.directory.name_of(identity).await?,
            None => None,
        };
        let proof = ProofOfWork::decode(proof)
            .map_err(|error| Refusal::malformed(format!("Invalid proof of work: {error}")))?;
        let now = now(state);
        let missing_work = || {
            let difficulty = turn.policy.difficulty(now);
            (!proof.is_valid(proof_data, difficulty)).then(|| difficulty.bits())
        };
        let bound_to = |key: &PublicKeyHash| {
            let is_asked = update
                .identity()
                .is_some_and(|identity| identity.hash() == key);
            bound.as_ref().filter(|_| is_asked)
        };
        let registration = Registration {
            name,
            update,
            existing: &existing,
            reserved_for: None,
            allows_placeholder: state.identity.is_own(&placeholder_provider()),
        };
        let ruling = registration
            .decide(&OwnerKeys::inline_only(), missing_work, bound_to)
            .map_err(|error| Refusal::rule(error.to_string()))?;
        Ok(match ruling {
            Ruling::Unchanged => Decision::Unchanged,
            Ruling::MoreWork(difficulty) => Decision::MoreWork(difficulty),
            Ruling::Store(chain) => {
                let name = Username::parse(name).map_err(|e| Refusal::rule(e.to_string()))?;
                let mut prepared = self
                    .prepare_change(state, &name, existing, chain, transaction()?)
                    .await?;
                if state.store.is_shared() && prepared.existing.is_empty() {
                    let mut policy = turn.policy.clone();
                    policy.record(now);
                    prepared.batch = prepared
                        .batch
                        .expect(tables::NODE, COUNTED_ROW, turn.counted.clone())
                        .put(tables::NODE, COUNTED_ROW, policy.counted());
                }
                Decision::Change(prepared)
            }
        })
    }

    /// Notes that a prepared change was committed.
    pub(crate) async fn committed(
        &self,
        turn: &mut Turn<'_>,
        state: &State,
        prepared: Prepared,
    ) -> Result<(), Refusal> {
        if prepared.existing.is_empty() && !state.store.is_shared() {
            turn.policy.record(now(state));
        }
        self.finish(state, prepared).await
    }

    /// Lets go of a prepared change that somebody else was faster than.
    pub(crate) async fn abandoned(&self, state: &State, prepared: Prepared) -> Result<(), Refusal> {
        self.finish(state, prepared).await
    }

    async fn finish(&self, state: &State, prepared: Prepared) -> Result<(), Refusal> {
        state.directory.forget(&prepared.existing);
        state.directory.forget(&prepared.chain);
        let name = Username::parse(PKI_OWNER).map_err(Refusal::internal)?;
        state
            .store
            .close_transaction(&partition_of(&name)?, &prepared.transaction)
            .await?;
        Ok(())
    }

    /// Writes the blocks of the new table and lists what has to be committed with them.
    async fn prepare_change(
        &self,
        state: &State,
        name: &Username,
        existing: ClaimChain,
        chain: ClaimChain,
        transaction: TransactionId,
    ) -> Result<Box<Prepared>, Refusal> {
        let user = state.directory.table_user();
        let source = StoredBlocks { state, user: &user };
        let writer = self.writer.writer();
        let before = stored(state, &writer).await?;
        let replaced = stored_update(state, &writer).await?;
        let mut root = self.root(state, &user, replaced.as_ref()).await?;
        let mut names = root
            .tree
            .clone()
            .map_or_else(Champ::empty, Champ::at)
            .hashed_by(KeyHash::Blake2b512);
        let entry = Block::cbor(chain.encode()).map_err(Refusal::internal)?;
        let key = bytes::Bytes::copy_from_slice(name.as_str().as_bytes());
        let listed = names.get(&key, &source).await.map_err(Refusal::internal)?;
        names
            .put(key, listed.as_ref(), Value::from(entry.cid()), &source)
            .await
            .map_err(Refusal::internal)?;
        let (tree, mut blocks) = names.finish().map_err(Refusal::internal)?;
        root.tree = Some(tree);
        let root = root.to_block().map_err(Refusal::internal)?;
        let next = PointerUpdate::next(replaced.as_ref(), Some(root.cid().clone()))
            .map_err(Refusal::internal)?;
        let signed = SignedPointer::sign(next, self.writer.secret());
        blocks.push(entry);
        blocks.push(root);
        state
            .store
            .put_blocks(&user.partition, blocks, Some(&transaction))
            .await?;
        let key = writer.cid().to_bytes();
        let batch = Batch::new()
            .expect(tables::POINTERS, key.clone(), before)
            .put(tables::POINTERS, key, signed.into_bytes());
        let batch = gc::note_change(batch, PKI_OWNER);
        let batch = state
            .directory
            .write_chain(batch, name, &existing, &chain)?;
        Ok(Box::new(Prepared {
            batch,
            existing,
            chain,
            transaction,
        }))
    }

    async fn root(
        &self,
        state: &State,
        user: &User,
        update: Option<&PointerUpdate>,
    ) -> Result<WriterData, Refusal> {
        let writer = self.writer.writer();
        let Some(target) = update.and_then(PointerUpdate::updated) else {
            return Ok(WriterData::new_writer(writer));
        };
        let block = state
            .store
            .block(&user.partition, target)
            .await?
            .ok_or_else(|| Refusal::internal("the root of the name table is missing"))?;
        WriterData::in_block(&block, &writer).map_err(Refusal::internal)
    }
}

/// Renewal, change of server, change of key; new names only for those who may bring them.
///
/// # Errors
/// What the rules refuse; nothing is changed then.
pub(crate) async fn update(
    state: &State,
    request: &UpdateChainRequest,
    allows_new: bool,
) -> Result<Registered, Refusal> {
    let registrar = state.registrar()?;
    let mut turn = registrar.turn().await;
    for _ in 0..MAX_TURNS {
        if let Some(done) = try_update(state, registrar, &mut turn, request, allows_new).await? {
            return Ok(done);
        }
    }
    Err(Refusal::rule("The chain was changed by somebody else"))
}

/// Tries to update a chain; `None` when another process changed the table meanwhile.
async fn try_update(
    state: &State,
    registrar: &Registrar,
    turn: &mut Turn<'_>,
    request: &UpdateChainRequest,
    allows_new: bool,
) -> Result<Option<Registered>, Refusal> {
    let chain = request.chain.get();
    if state.directory.chain(&request.username).await?.is_empty() {
        if !allows_new {
            return Err(Refusal::rule("Unknown user, please sign up"));
        }
        check_expiry(state, chain)?;
    }
    let decision = registrar
        .decide(
            turn,
            state,
            &request.username,
            chain,
            &request.proof,
            request.chain.proof_data(),
        )
        .await?;
    let prepared = match decision {
        Decision::Unchanged => return Ok(Some(Registered::Done)),
        Decision::MoreWork(difficulty) => {
            return Ok(Some(Registered::MoreWork(difficulty.into())));
        }
        Decision::Change(prepared) => prepared,
    };
    if !state
        .store
        .commit(prepared.batch.clone())
        .await?
        .is_committed()
    {
        registrar.abandoned(state, *prepared).await?;
        return Ok(None);
    }
    registrar.committed(turn, state, *prepared).await?;
    Ok(Some(Registered::Done))
}

/// Latest expiry of a first claim: ten years ahead.
const MAX_CLAIM_DAYS: i64 = 3660;

/// Refuses a first claim that has expired or runs longer than anybody's (Spec: 40 PKI-2).
pub(crate) fn check_expiry(state: &State, chain: &ClaimChain) -> Result<(), Refusal> {
    let today = Date::from_unix_seconds(state.clock.now_seconds()).to_days();
    let expiry = chain.last().map(|link| link.claim.expiry.to_days());
    if expiry.is_some_and(|day| (today..=today + MAX_CLAIM_DAYS).contains(&day)) {
        Ok(())
    } else {
        Err(Refusal::rule("Invalid claim expiry!"))
    }
}

fn transaction() -> Result<TransactionId, Refusal> {
    TransactionId::new(&uuid()).map_err(Refusal::internal)
}

fn first_pointer(key: &SecretKeyWithHash, root: &Cid) -> Result<SignedPointer, Refusal> {
    let update = PointerUpdate::next(None, Some(root.clone())).map_err(Refusal::internal)?;
    Ok(SignedPointer::sign(update, key.secret()))
}

/// The time with which sign-ups are counted.
fn now(state: &State) -> std::time::SystemTime {
    let millis = u64::try_from(state.limit_millis()).unwrap_or(0);
    std::time::UNIX_EPOCH + std::time::Duration::from_millis(millis)
}
