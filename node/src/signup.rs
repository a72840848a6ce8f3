//! Sign-up: a whole account in one request, applied as one transaction or not at all (Spec: 10 §7.3).

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use champ::{Cid, MemoryBlocks, SourceError, cbor::Record as _};
use pki::{
    chain::{ClaimChain, MergeError},
    claim::Claim,
    keys::{PublicSigningKey, Writer},
    owned::{PointerSource, WalkLimits, owned_by_user},
    pointer::{PointerUpdate, SignedPointer, check_successor},
    username::Username,
    wire::{
        op_log::{BlockWrite, NewLogin, NewMirrorBat, Op, OpLog},
        pointer_batch::PointerWrite,
        refusal::text,
        signup::{SentLinks, SignupRequest, UpdateChainRequest},
    },
};
use sha2::{Digest as _, Sha256};

use crate::{
    accounts::LoginRow,
    auth::{Window, signed_request},
    bats, blocks,
    directory::{User, partition_of},
    error::Refusal,
    gc,
    names::{self, Registered},
    operator, pointers,
    random::uuid,
    registrar::{Decision, MAX_TURNS, Registrar, Turn, check_expiry},
    state::State,
    store::{Batch, TransactionId, tables},
    usage::{mark_unsettled, quota_row, stored_quota},
    writers::{self, WriterRow},
};

/// How a sign-up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The account exists.
    Done,
    /// A proof of this difficulty is wanted.
    MoreWork(u16),
}

/// An op log that passed every check.
#[derive(Clone)]
struct Checked {
    blocks: Vec<champ::Block>,
    pointers: Vec<(Writer, SignedPointer)>,
    writers: BTreeSet<Writer>,
    login: Option<NewLogin>,
    mirror_bat: Option<NewMirrorBat>,
}

/// Creates an account.
pub(crate) async fn sign_up(
    state: &Arc<State>,
    request: SignupRequest,
) -> Result<Outcome, Refusal> {
    let link = request.link.get();
    check_provider(state, &link.claim)?;
    let name = Username::parse_new(&request.username).map_err(|e| Refusal::rule(e.to_string()))?;
    let chain = ClaimChain::single(link.clone());
    check_expiry(state, &chain)?;
    let user = Arc::new(User {
        partition: partition_of(&name)?,
        identity: link.owner.clone(),
        home: state.identity.current().clone(),
        is_local: true,
        name,
    });
    let Some(registrar) = &state.registrar else {
        return elsewhere(state, &user, request).await;
    };
    let mut turn = registrar.turn().await;
    let (_, quota) = admit(state, &user.name, &request.token).await?;
    let size = request.ops.block_bytes() as u64;
    let applicant = Applicant {
        chain,
        proof: &request.proof,
        proof_data: &request.link.proof_data(),
        token: &request.token,
        checked: check(state, &user, request.ops).await?,
    };
    if size > quota {
        return Err(Refusal::QuotaReached {
            used: 0,
            quota,
            size,
        });
    }
    for _ in 0..MAX_TURNS {
        if let Some(outcome) = apply(state, registrar, &user, &mut turn, &applicant).await? {
            return Ok(outcome);
        }
    }
    Err(Refusal::rule(
        "Sign-up collides with another one. Please try again",
    ))
}

/// A sign-up that passed every check of its own.
struct Applicant<'a> {
    chain: ClaimChain,
    proof: &'a [u8],
    proof_data: &'a [u8],
    token: &'a str,
    checked: Checked,
}

/// Tries to make an account; `None` when another process changed the name table meanwhile.
async fn apply(
    state: &Arc<State>,
    registrar: &Registrar,
    user: &Arc<User>,
    turn: &mut Turn<'_>,
    applicant: &Applicant<'_>,
) -> Result<Option<Outcome>, Refusal> {
    let decision = registrar
        .decide(
            turn,
            state,
            user.name.as_str(),
            &applicant.chain,
            applicant.proof,
            applicant.proof_data,
        )
        .await?;
    let prepared = match decision {
        Decision::MoreWork(difficulty) => return Ok(Some(Outcome::MoreWork(difficulty))),
        // The answer to an earlier attempt was lost: the account was made with the claim.
        Decision::Unchanged => return Ok(Some(Outcome::Done)),
        Decision::Change(prepared) => prepared,
    };
    // Counted after the table was read: whoever signs up meanwhile changes it, and this attempt fails.
    let (admission, _) = admit(state, &user.name, applicant.token).await?;
    let checked = applicant.checked.clone();
    let transaction = TransactionId::new(&uuid()).map_err(Refusal::internal)?;
    let stored: Vec<_> = checked.blocks.clone();
    if !stored.is_empty() {
        state
            .store
            .put_blocks(&user.partition, stored, Some(&transaction))
            .await?;
    }
    let mut batch = prepared.batch.clone();
    batch.append(admission);
    let writers: Vec<_> = checked.writers.iter().cloned().collect();
    let batch = account_rows(batch, user, checked);
    if !state.store.commit(batch).await?.is_committed() {
        registrar.abandoned(state, *prepared).await?;
        state
            .store
            .close_transaction(&user.partition, &transaction)
            .await?;
        return Ok(None);
    }
    registrar.committed(turn, state, *prepared).await?;
    state.users.added();
    tracing::info!(user = user.name.as_str(), "signed up");
    // The account exists whatever happens from here on.
    if let Err(error) = state
        .store
        .close_transaction(&user.partition, &transaction)
        .await
    {
        tracing::warn!(%error, "cannot close the transaction of a sign-up");
    }
    state.usage.committed(state, user, writers).await;
    Ok(Some(Outcome::Done))
}

/// Creates an account on a node that gives out no names: the name authority is asked once everything else is checked,
/// and from then on the sign-up is kept until the account is made or the name is known to be somebody else's.
async fn elsewhere(
    state: &Arc<State>,
    user: &Arc<User>,
    request: SignupRequest,
) -> Result<Outcome, Refusal> {
    let chain = ClaimChain::single(request.link.get().clone());
    let known = state.directory.chain(user.name.as_str()).await?;
    if !known.is_empty() && known != chain {
        return Err(Refusal::rule(MergeError::OtherKey.to_string()));
    }
    let row = user.name.as_str().as_bytes();
    let has_account = stored_quota(state, &user.name).await?.is_some()
        && state.store.get(tables::LOGINS, row).await?.is_some();
    if known == chain && has_account {
        // The answer to an earlier attempt was lost.
        return Ok(Outcome::Done);
    }
    let (_, quota) = admit(state, &user.name, &request.token).await?;
    let size = request.ops.block_bytes() as u64;
    if size > quota {
        return Err(Refusal::QuotaReached {
            used: 0,
            quota,
            size,
        });
    }
    check(state, user, request.ops.clone()).await?;
    names::keep_pending(state, &request).await?;
    let update = UpdateChainRequest {
        username: request.username.clone(),
        chain: SentLinks::new(chain),
        proof: request.proof.clone(),
        token: request.token.clone(),
    };
    match names::forward(state, &update).await {
        Ok(Registered::Done) => complete(state, request).await.map(|()| Outcome::Done),
        Ok(Registered::MoreWork(difficulty)) => {
            names::forget_pending(state, user.name.as_str()).await?;
            let difficulty = u16::try_from(difficulty).map_err(Refusal::internal)?;
            Ok(Outcome::MoreWork(difficulty))
        }
        // Whether the name is taken is not known: the sign-up waits.
        Err(refusal @ (Refusal::AuthorityUnreachable | Refusal::Internal(_))) => Err(refusal),
        Err(refusal) => {
            names::forget_pending(state, user.name.as_str()).await?;
            Err(refusal)
        }
    }
}

/// Makes the account of a name that the authority has given to this claim. Can be repeated.
pub(crate) async fn complete(state: &Arc<State>, request: SignupRequest) -> Result<(), Refusal> {
    let link = request.link.get().clone();
    let name = Username::parse(&request.username).map_err(|e| Refusal::rule(e.to_string()))?;
    let home = state.identity.current().clone();
    let user = Arc::new(User {
        partition: partition_of(&name)?,
        identity: link.owner.clone(),
        is_local: true,
        home,
        name,
    });
    // The signed times in it were checked when it came.
    let checked = check_at(state, &user, request.ops, Window::ANY).await?;
    let transaction = TransactionId::new(&uuid()).map_err(Refusal::internal)?;
    let existing = state.directory.chain(user.name.as_str()).await?;
    let chain = ClaimChain::single(link);
    let mut batch = Batch::new();
    if existing.is_empty() {
        batch = state
            .directory
            .write_chain(batch, &user.name, &existing, &chain)?;
    }
    let (admission, _) = admit(state, &user.name, &request.token).await?;
    batch.append(admission);
    let row = user.name.as_str().as_bytes().to_vec();
    batch = batch.remove(tables::PENDING_SIGNUPS, row);
    let blocks = checked.blocks.clone();
    if !blocks.is_empty() {
        state
            .store
            .put_blocks(&user.partition, blocks, Some(&transaction))
            .await?;
    }
    let writers: Vec<_> = checked.writers.iter().cloned().collect();
    let batch = gc::note_change(account_rows(batch, &user, checked), user.name.as_str());
    let outcome = state.store.commit(batch).await?;
    state.directory.forget(&chain);
    state
        .store
        .close_transaction(&user.partition, &transaction)
        .await?;
    if !outcome.is_committed() {
        return Err(Refusal::rule(
            "Sign-up collides with another one. Please try again",
        ));
    }
    state.users.added();
    tracing::info!(user = user.name.as_str(), "signed up");
    state.usage.committed(state, &user, writers).await;
    Ok(())
}

/// Refuses a claim that names another server as the home.
pub(crate) fn check_provider(state: &State, claim: &Claim) -> Result<(), Refusal> {
    match claim.providers.as_slice() {
        [provider] if provider.hash() == state.identity.current().hash() => Ok(()),
        [provider, ..] => Err(Refusal::rule(format!("{}{provider}", text::WRONG_HOST))),
        [] => Err(Refusal::rule(text::WRONG_HOST)),
    }
}

/// Decides whether a name may have space here; returns what to commit for it, and the quota.
async fn admit(state: &State, name: &Username, token: &str) -> Result<(Batch, u64), Refusal> {
    let row = name.as_str().as_bytes().to_vec();
    let quota = stored_quota(state, name).await?;
    let default = operator::quota::default_bytes(state).await?;
    let grant = |batch: Batch| match quota {
        Some(_) => batch,
        None => batch.expect_absent(tables::QUOTAS, row.clone()).put(
            tables::QUOTAS,
            row.clone(),
            quota_row(default),
        ),
    };
    let granted = quota.unwrap_or(default);
    let token_key = token_key(token);
    let known_token = match token {
        "" => None,
        _ => state.store.get(tables::SIGNUP_TOKENS, &token_key).await?,
    };
    if let Some(row) = known_token {
        let used = Batch::new()
            .expect(tables::SIGNUP_TOKENS, token_key.clone(), Some(row))
            .remove(tables::SIGNUP_TOKENS, token_key);
        return Ok((grant(used), granted));
    }
    if quota.is_some() || state.users.count(state).await? < state.config.max_users {
        return Ok((grant(Batch::new()), granted));
    }
    Err(Refusal::rule(if token.is_empty() {
        text::SIGNUPS_CLOSED
    } else {
        text::BAD_SIGNUP_TOKEN
    }))
}

/// Returns the row of a token: its digest, so that neither time nor a stolen database tells tokens.
pub(crate) fn token_key(token: &str) -> Vec<u8> {
    Sha256::digest(token.as_bytes()).to_vec()
}

/// Checks a whole op log before anything is stored.
async fn check(state: &State, user: &User, log: OpLog) -> Result<Checked, Refusal> {
    check_at(state, user, log, Window::HOUR).await
}

/// As [`check`], with the window that signed requests in it must lie in.
async fn check_at(
    state: &State,
    user: &User,
    log: OpLog,
    window: Window,
) -> Result<Checked, Refusal> {
    let identity = user
        .identity
        .hash()
        .inline_key()
        .ok_or_else(|| Refusal::rule("Invalid signup data!"))?;
    let mut new = MemoryBlocks::new();
    let mut blocks = Vec::new();
    let mut used = BTreeSet::from([user.identity.as_writer()]);
    let mut pointer_writes = Vec::new();
    for op in log.ops {
        match op {
            Op::Block(write) => {
                let block = check_block(&write, &new).await?;
                new.insert(block.clone());
                blocks.push(block);
                used.insert(write.writer);
            }
            Op::Pointer(write) => {
                used.insert(write.writer.clone());
                pointer_writes.push(write);
            }
        }
    }
    let pointers = check_pointers(pointer_writes, &new).await?;
    let roots = Roots(
        pointers
            .iter()
            .map(|(writer, signed)| (writer.clone(), signed.update().updated().cloned()))
            .collect(),
    );
    let owned = owned_by_user(&user.identity, &roots, &new, WalkLimits::default())
        .await
        .map_err(|error| Refusal::malformed(error.to_string()))?;
    if let Some(stranger) = used.iter().find(|writer| !owned.writers.contains(writer)) {
        return Err(Refusal::UnknownWriter(stranger.cid().clone()));
    }
    if let Some(login) = &log.login {
        check_login(user, &identity, login)?;
    }
    if let Some(mirror) = &log.mirror_bat {
        bats::check_id(&mirror.bat)?;
        signed_request(
            &identity,
            &mirror.auth,
            "peergos/v0/bats/addBat",
            state.clock.now_millis(),
            window,
        )?;
    }
    Ok(Checked {
        blocks,
        pointers,
        writers: used,
        login: log.login,
        mirror_bat: log.mirror_bat,
    })
}

async fn check_block(write: &BlockWrite, new: &MemoryBlocks) -> Result<champ::Block, Refusal> {
    let key = pointers::signing_key(&write.writer, new).await?;
    blocks::verified(&key, write.format, &write.block, &write.signature)
}

/// Plays the pointer updates through, in order, and returns the last one of each writer.
async fn check_pointers(
    writes: Vec<PointerWrite>,
    new: &MemoryBlocks,
) -> Result<Vec<(Writer, SignedPointer)>, Refusal> {
    let mut latest: Vec<(Writer, SignedPointer)> = Vec::new();
    for write in writes {
        let writer = write.writer;
        if write.signed.len() > pki::pointer::OFFICIAL_MAX_SIGNED_BYTES {
            return Err(Refusal::rule(format!(
                "Pointer update too big! {}",
                write.signed.len()
            )));
        }
        let key = pointers::signing_key(&writer, new).await?;
        let signed =
            pointers::verify(&key, &write.signed).map_err(|error| error.into_refusal(&writer))?;
        let before: Option<&PointerUpdate> = latest
            .iter()
            .find(|(known, _)| *known == writer)
            .map(|(_, signed)| signed.update());
        check_successor(before, signed.update())?;
        if let Some(target) = signed.update().updated() {
            pointers::check_root(target, &writer, new)
                .await
                .map_err(|error| error.into_refusal(&writer))?;
        }
        match latest.iter_mut().find(|(known, _)| *known == writer) {
            Some(entry) => entry.1 = signed,
            None => latest.push((writer, signed)),
        }
    }
    Ok(latest)
}

fn check_login(user: &User, identity: &PublicSigningKey, login: &NewLogin) -> Result<(), Refusal> {
    if login.data.username != user.name || login.data.root_change.is_some() {
        return Err(Refusal::rule("Invalid signup data!"));
    }
    identity
        .verify_detached(&login.data.encode(), &login.auth)
        .map_err(|_| Refusal::Signature)
}

/// Adds the rows of a new account.
fn account_rows(mut batch: Batch, user: &User, checked: Checked) -> Batch {
    for writer in &checked.writers {
        batch = writers::register(batch, writer, &WriterRow::new(user.name.clone(), None));
    }
    for (writer, signed) in checked.pointers {
        let key = writer.cid().to_bytes();
        let bytes = signed.into_bytes();
        batch = batch.expect_absent(tables::POINTERS, key.clone()).put(
            tables::POINTERS,
            key,
            bytes.clone(),
        );
        batch = mark_unsettled(batch, &writer, &bytes);
    }
    let row = user.name.as_str().as_bytes().to_vec();
    if let Some(login) = checked.login {
        let login_row = LoginRow {
            record: login.data.record,
            reader: login.data.reader,
        };
        batch = batch.expect_absent(tables::LOGINS, row.clone()).put(
            tables::LOGINS,
            row,
            login_row.encode(),
        );
    }
    if let Some(mirror) = checked.mirror_bat {
        batch = bats::first_rows(batch, &user.name, &mirror.bat);
    }
    batch
}

/// The pointers of an account that does not exist yet.
struct Roots(HashMap<Writer, Option<Cid>>);

#[async_trait::async_trait]
impl PointerSource for Roots {
    async fn root(&self, writer: &Writer) -> Result<Option<Cid>, SourceError> {
        Ok(self.0.get(writer).cloned().flatten())
    }
}

/// Counts the users with space, which decides whether anybody may sign up.
#[derive(Debug, Default)]
pub(crate) struct UserCount(tokio::sync::OnceCell<std::sync::atomic::AtomicU64>);

impl UserCount {
    /// Returns the number of users with a quota.
    pub(crate) async fn count(&self, state: &State) -> Result<u64, Refusal> {
        if state.store.is_shared() {
            return counted(state).await;
        }
        let counted = self
            .0
            .get_or_try_init(|| async { counted(state).await.map(Into::into) });
        Ok(counted.await?.load(std::sync::atomic::Ordering::Relaxed))
    }

    /// Counts a user whose space was just taken away.
    pub(crate) fn removed(&self) {
        use std::sync::atomic::Ordering::Relaxed;
        if let Some(count) = self.0.get() {
            let _ = count.fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1));
        }
    }

    /// Counts a user who was just given space.
    pub(crate) fn added(&self) {
        if let Some(count) = self.0.get() {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

async fn counted(state: &State) -> Result<u64, Refusal> {
    let mut count: u64 = 0;
    let mut after: Option<bytes::Bytes> = None;
    loop {
        let page = state
            .store
            .scan(tables::QUOTAS, b"", after.as_deref(), 10_000)
            .await?;
        let Some((last, _)) = page.last() else {
            return Ok(count);
        };
        after = Some(last.clone());
        count = count.saturating_add(page.len() as u64);
    }
}
