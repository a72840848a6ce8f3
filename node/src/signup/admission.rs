//! Who may have space here: tokens, the number of users, the quota of a new account.

use pki::{username::Username, wire::refusal::text};
use sha2::{Digest as _, Sha256};

use crate::{
    error::Refusal,
    operator,
    state::State,
    store::{Batch, tables},
    usage::{quota_row, stored_quota},
};

/// Decides whether a name may have space here; returns what to commit for it, and the quota.
pub(super) async fn admit(
    state: &State,
    name: &Username,
    token: &str,
) -> Result<(Batch, u64), Refusal> {
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
