//! Login data: storing it, changing the password, handing it out (Spec: 08 §2, §3).

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use champ::{
    MemoryBlocks, Overlay,
    cbor::{Record, RecordError, Value},
};
use pki::{
    keys::PublicSigningKey,
    username::Username,
    wire::{
        block_group::BlockFormat,
        login_data::{LoginData, LoginResponse, OpaqueCipherText, RootChange},
        refusal::text,
        second_factor::{MethodKind, MultiFactorMethods, MultiFactorRequest, MultiFactorResponse},
    },
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{
    auth::{Window, signed_time},
    blocks::{self, AuthorisedBlocks},
    directory::User,
    error::Refusal,
    http::Origin,
    migration, pointers,
    random::uuid,
    second_factors,
    state::State,
    store::{Batch, TransactionId, tables},
    usage::stored_quota,
    webauthn::RelyingParty,
};

/// What is stored of a user's login data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoginRow {
    /// The record, which only the user can open.
    pub(crate) record: OpaqueCipherText,
    /// The login key that the record is given to.
    pub(crate) reader: PublicSigningKey,
}

impl Record for LoginRow {
    fn to_value(&self) -> Value {
        Value::List(vec![self.record.to_value(), self.reader.to_value()])
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut items = value.into_list("login")?.into_iter();
        let mut next = || items.next().ok_or(RecordError::Missing("login"));
        Ok(Self {
            record: OpaqueCipherText::from_value(next()?)?,
            reader: PublicSigningKey::from_value(next()?)?,
        })
    }
}

/// Stores login data; `signature` is the identity's signature over the body (Spec: 08 §2).
///
/// # Errors
/// As the spec lists them; nothing is changed then.
pub(crate) async fn set_login(
    state: &Arc<State>,
    data: LoginData,
    signature: &[u8],
    is_replica: bool,
) -> Result<bool, Refusal> {
    let user = state.directory.named(data.username.as_str()).await?;
    state
        .identity_key(&user)
        .await?
        .verify_detached(&data.encode(), signature)
        .map_err(|_| Refusal::Signature)?;
    if is_replica && !user.is_local {
        // A replica is kept only for users who have space here.
        if stored_quota(state, &user.name).await?.is_none() {
            return Err(Refusal::NotHome);
        }
    } else if !user.is_local {
        return Err(Refusal::NotHome);
    }
    if !state
        .guards
        .login_writes
        .record(
            &*state.store,
            &user.name.as_str().to_owned(),
            state.limit_seconds(),
        )
        .await?
    {
        return Err(Refusal::RateLimit("Too many changes of login data"));
    }
    let row = LoginRow {
        record: data.record,
        reader: data.reader,
    };
    let mut batch = replace_login(state, &user, &row, data.root_change.is_some()).await?;
    if user.is_local && data.root_change.is_none() {
        batch = migration::guard(state, &user, batch).await?;
    }
    match data.root_change {
        None => {
            if !state.store.commit(batch).await?.is_committed() {
                return Err(Refusal::rule("Login data was changed by somebody else"));
            }
        }
        Some(change) => change_password(state, &user, change, batch).await?,
    }
    Ok(true)
}

/// Prepares the replacement of a login row; an old login key does not come back on its own.
async fn replace_login(
    state: &State,
    user: &User,
    row: &LoginRow,
    changes_root: bool,
) -> Result<Batch, Refusal> {
    let key = user.name.as_str().as_bytes().to_vec();
    let before = state.store.get(tables::LOGINS, &key).await?;
    let mut batch = Batch::new()
        .expect(tables::LOGINS, key.clone(), before.clone())
        .put(tables::LOGINS, key, row.encode());
    let past = past_login(&user.name, &row.reader);
    let was_replaced = state.store.get(tables::PAST_LOGINS, &past).await?.is_some();
    if was_replaced && !changes_root {
        tracing::warn!(user = user.name.as_str(), "replayed login data was refused");
        return Err(Refusal::rule("You cannot reuse a previous password!"));
    }
    if was_replaced {
        batch = batch.remove(tables::PAST_LOGINS, past);
    }
    if let Some(before) = before {
        let before = LoginRow::decode(&before).map_err(Refusal::internal)?;
        if before.reader != row.reader {
            batch = batch.put(
                tables::PAST_LOGINS,
                past_login(&user.name, &before.reader),
                Bytes::new(),
            );
        }
    }
    Ok(batch)
}

fn past_login(name: &Username, reader: &PublicSigningKey) -> Vec<u8> {
    let mut key = name.as_str().as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(&Sha256::digest(reader.encode()));
    key
}

/// Puts the new root block, the pointer to it and the new login data in force together (Spec: 08 §2.2).
async fn change_password(
    state: &Arc<State>,
    user: &Arc<User>,
    change: RootChange,
    login: Batch,
) -> Result<(), Refusal> {
    let identity = user.identity.as_writer();
    let invalid = || Refusal::rule("Invalid password change!");
    if change.block.writer != identity
        || change.pointer.writer != identity
        || change.block.format != BlockFormat::DagCbor
    {
        return Err(invalid());
    }
    let key = state.identity_key(user).await?;
    let block = blocks::verified(
        &key,
        change.block.format,
        &change.block.block,
        &change.block.signature,
    )?;
    let mut new = MemoryBlocks::new();
    new.insert(block.clone());
    let source = Overlay::new(new, AuthorisedBlocks { state, user });
    let plan = pointers::plan(state, user, &change.pointer, &source)
        .await
        .map_err(|error| error.into_refusal(&identity))?;
    if plan.target() != Some(block.cid()) {
        return Err(invalid());
    }
    let transaction = TransactionId::new(&uuid()).map_err(Refusal::internal)?;
    state
        .store
        .put_blocks(&user.partition, vec![block], Some(&transaction))
        .await?;
    let outcome = pointers::commit(state, user, vec![plan], login).await;
    // Committed or not, the block needs no protection of its own any more.
    if let Err(error) = state
        .store
        .close_transaction(&user.partition, &transaction)
        .await
    {
        tracing::warn!(%error, "cannot close the transaction of a password change");
    }
    outcome
}

/// What a log-in asks with.
#[derive(Debug)]
pub(crate) struct LoginAttempt<'a> {
    pub(crate) username: &'a str,
    pub(crate) author: PublicSigningKey,
    pub(crate) auth: &'a [u8],
    pub(crate) kinds: Vec<MethodKind>,
    pub(crate) answer: Option<MultiFactorResponse>,
    pub(crate) is_proxied: bool,
    pub(crate) origin: Origin,
    pub(crate) relying_party: &'a RelyingParty,
}

/// Hands out login data (Spec: 08 §3.1): key and time come before anything about second factors.
///
/// Who has an account is public; all the same an unknown name costs what a wrong key costs, in work and in waiting, and
/// is told from it only where the answer is made (Spec: 40 LOG-8, SC-4).
///
/// # Errors
/// [`Refusal::Login`] alike for a wrong key and a missing record; answers to failures are held back.
pub(crate) async fn login(
    state: &State,
    attempt: LoginAttempt<'_>,
) -> Result<LoginResponse, Refusal> {
    let now_seconds = state.limit_seconds();
    state
        .guards
        .admit_login(&*state.store, attempt.origin.address(), now_seconds)
        .await?;
    let user = match state.directory.named(attempt.username).await {
        Err(Refusal::UnknownName) => None,
        found => Some(found?),
    };
    // Nobody has a name that is none.
    let name = match &user {
        Some(user) => user.name.clone(),
        None => Username::parse(attempt.username).map_err(|_| Refusal::UnknownName)?,
    };
    admit_user(state, &name, user.as_deref(), attempt.is_proxied).await?;
    let row = admit_key(state, &name, &attempt).await;
    match (user, row) {
        (Some(user), Ok(row)) => {
            let done = pass_second_factor(state, &user, &attempt).await?;
            state
                .guards
                .login_succeeded(&*state.store, user.name.as_str())
                .await?;
            Ok(done.unwrap_or(LoginResponse::Record(row.record)))
        }
        (user, Err(error @ (Refusal::Login | Refusal::Signature))) => {
            let address = attempt.origin.address();
            let pause = state
                .guards
                .login_failed(&*state.store, name.as_str(), address, now_seconds)
                .await?;
            tokio::time::sleep(Duration::from_secs(pause)).await;
            Err(match (user, error) {
                (None, Refusal::Login) => Refusal::UnknownName,
                (_, error) => error,
            })
        }
        (_, Err(error)) => Err(error),
        (None, Ok(_)) => Err(Refusal::UnknownName),
    }
}

/// Refuses users of other servers (Spec: 08 §3.2); for nobody, only does the same work.
async fn admit_user(
    state: &State,
    name: &Username,
    user: Option<&User>,
    is_proxied: bool,
) -> Result<(), Refusal> {
    let has_space = stored_quota(state, name).await?.is_some();
    let Some(user) = user else { return Ok(()) };
    if has_space || (user.is_local && (is_proxied || !state.config.is_public)) {
        return Ok(());
    }
    Err(Refusal::rule(if user.is_local {
        text::SUBSCRIPTION_EXPIRED
    } else {
        text::WRONG_SERVER
    }))
}

async fn admit_key(
    state: &State,
    name: &Username,
    attempt: &LoginAttempt<'_>,
) -> Result<LoginRow, Refusal> {
    signed_time(
        &attempt.author,
        attempt.auth,
        state.clock.now_millis(),
        Window::DAY,
    )?;
    let row = state
        .store
        .get(tables::LOGINS, name.as_str().as_bytes())
        .await?
        .map(|row| LoginRow::decode_shared(&row))
        .transpose()
        .map_err(Refusal::internal)?;
    // The same comparison with and without a record.
    let expected = row.as_ref().map_or([0; 32], |row| *row.reader.as_bytes());
    let is_reader = bool::from(expected.ct_eq(attempt.author.as_bytes()));
    row.filter(|_| is_reader).ok_or(Refusal::Login)
}

/// Returns what to answer instead of the record, if a second factor is still wanted.
async fn pass_second_factor(
    state: &State,
    user: &User,
    attempt: &LoginAttempt<'_>,
) -> Result<Option<LoginResponse>, Refusal> {
    let methods = second_factors::enabled(state, &user.name).await?;
    let is_asked = methods
        .iter()
        .any(|method| matches!(method.kind, MethodKind::Totp | MethodKind::WebAuthn));
    if !is_asked {
        return Ok(None);
    }
    if let Some(answer) = &attempt.answer {
        second_factors::check_answer(state, &user.name, answer, attempt.relying_party).await?;
        return Ok(None);
    }
    let offered = methods
        .into_iter()
        .filter(|method| method.kind != MethodKind::Mount && attempt.kinds.contains(&method.kind))
        .collect();
    Ok(Some(LoginResponse::SecondFactor(MultiFactorRequest {
        challenge: state
            .challenges
            .start(&*state.store, &user.name, state.limit_millis())
            .await?
            .0,
        methods: MultiFactorMethods(offered),
    })))
}
