//! Sign-up: a whole account in one request, applied as one transaction or not at all (Spec: 10 §7.3).
//!
//! * [`admission`][]: who may have space here;
//! * [`check`][]: every check of the op log before anything is stored.

mod admission;
mod check;

use std::sync::Arc;

use champ::cbor::Record as _;
use pki::{
    chain::{ClaimChain, MergeError},
    claim::Claim,
    username::Username,
    wire::{
        refusal::text,
        signup::{SentLinks, SignupRequest, UpdateChainRequest},
    },
};

use crate::{
    accounts::LoginRow,
    auth::Window,
    bats,
    directory::{User, partition_of},
    error::Refusal,
    gc,
    names::{self, Registered},
    random::uuid,
    registrar::{Decision, MAX_TURNS, Registrar, Turn, check_expiry},
    state::State,
    store::{Batch, TransactionId, tables},
    usage::{mark_unsettled, stored_quota},
    writers::{self, WriterRow},
};

use admission::admit;
use check::{Checked, check, check_at};

pub(crate) use admission::{UserCount, token_key};

/// How a sign-up ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The account exists.
    Done,
    /// A proof of this difficulty is wanted.
    MoreWork(u16),
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
    let replaced = names::keep_pending(state, &request).await?;
    let update = UpdateChainRequest {
        username: request.username.clone(),
        chain: SentLinks::new(chain),
        proof: request.proof.clone(),
        token: request.token.clone(),
    };
    match names::forward(state, &update).await {
        Ok(Registered::Done) => complete(state, request).await.map(|()| Outcome::Done),
        Ok(Registered::MoreWork(difficulty)) => {
            names::withdraw_pending(state, user.name.as_str(), replaced).await?;
            let difficulty = u16::try_from(difficulty).map_err(Refusal::internal)?;
            Ok(Outcome::MoreWork(difficulty))
        }
        // Whether the name is taken is not known: the sign-up waits.
        Err(refusal @ (Refusal::AuthorityUnreachable | Refusal::Internal(_))) => Err(refusal),
        Err(refusal) => {
            names::withdraw_pending(state, user.name.as_str(), replaced).await?;
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
