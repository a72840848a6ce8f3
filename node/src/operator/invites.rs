//! Sign-up tokens: each admits one user, also when sign-ups are closed (Spec: 09 §3).
//!
//! A token is shown once, when it is made. Stored is its digest, so neither a copy of the database nor a list
//! tells one; the first digits of the digest serve as its id.

use std::fmt;

use bytes::Bytes;
use champ::{
    cbor::{Value, decode},
    text::to_hex,
};
use rand_core::Rng as _;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Failed, FailedKind, Operation, Report};
use crate::{
    node::Node,
    random::OsRandom,
    signup::token_key,
    state::State,
    store::{Batch, tables},
};

/// Bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Most tokens made at once.
pub const MAX_COUNT: u32 = 1000;
/// Bytes of the digest that make the id.
const ID_BYTES: usize = 8;
/// Fewest digits of an id that select a token.
const MIN_ID_DIGITS: usize = 6;
/// Rows read at once.
const PAGE: usize = 1000;

/// Makes tokens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewInvites {
    /// How many: 1 to [`MAX_COUNT`].
    pub count: u32,
}

/// Tokens that were made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvitesMade {
    /// The tokens; they are never told again.
    pub invites: Vec<NewInvite>,
}

/// A token that was just made.
#[derive(Clone, Serialize, Deserialize)]
pub struct NewInvite {
    /// Its id, which is no secret.
    pub id: String,
    /// The token.
    pub token: String,
}

impl fmt::Debug for NewInvite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewInvite")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Drop for NewInvite {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.token);
    }
}

impl Operation for NewInvites {
    const NAME: &'static str = "invite-new";
    type Outcome = InvitesMade;

    async fn run(self, node: &Node, _: &Report) -> Result<InvitesMade, Failed> {
        if !(1..=MAX_COUNT).contains(&self.count) {
            return Err(Failed::new(
                FailedKind::NotAllowed,
                format!("1 to {MAX_COUNT} tokens can be made at once"),
            ));
        }
        let state = node.state();
        let made = Bytes::from(Value::Int(state.clock.now_millis()).encode());
        let mut batch = Batch::new();
        let mut invites = Vec::new();
        for _ in 0..self.count {
            let mut bytes = Zeroizing::new([0; TOKEN_BYTES]);
            OsRandom.fill_bytes(bytes.as_mut_slice());
            let token = to_hex(bytes.as_slice());
            let key = token_key(&token);
            invites.push(NewInvite {
                id: id_of(&key),
                token,
            });
            batch = batch.expect_absent(tables::SIGNUP_TOKENS, key.clone()).put(
                tables::SIGNUP_TOKENS,
                key,
                made.clone(),
            );
        }
        if !state.store.commit(batch).await?.is_committed() {
            return Err(Failed::new(
                FailedKind::Internal,
                "the same token was made twice",
            ));
        }
        tracing::info!(count = self.count, "sign-up tokens made");
        Ok(InvitesMade { invites })
    }
}

/// Lists the tokens that have not been used. Items: [`Invite`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListInvites {}

/// How many tokens there are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InvitesListed {
    /// Number of unused tokens.
    pub invites: u64,
}

/// An unused token.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Invite {
    /// Its id.
    pub id: String,
    /// When it was made, in UTC milliseconds since 1970; `None` for one of the configuration.
    pub made_epoch_millis: Option<i64>,
}

impl Operation for ListInvites {
    const NAME: &'static str = "invite-list";
    type Outcome = InvitesListed;

    async fn run(self, node: &Node, report: &Report) -> Result<InvitesListed, Failed> {
        let mut invites = 0;
        let mut after: Option<Bytes> = None;
        loop {
            let page = page(node.state(), b"", after.as_deref()).await?;
            let Some((last, _)) = page.last() else {
                return Ok(InvitesListed { invites });
            };
            after = Some(last.clone());
            for (key, row) in page {
                let made_epoch_millis = match decode(&row) {
                    Ok(Value::Int(millis)) => Some(millis),
                    _ => None,
                };
                let id = id_of(&key);
                report
                    .item(&Invite {
                        id,
                        made_epoch_millis,
                    })
                    .await;
                invites += 1;
            }
        }
    }
}

/// Makes a token worthless.
#[derive(Clone, Serialize, Deserialize)]
pub struct RevokeInvite {
    /// The token, or at least six digits of its id.
    pub which: String,
}

impl fmt::Debug for RevokeInvite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RevokeInvite").finish_non_exhaustive()
    }
}

/// The token that was revoked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InviteRevoked {
    /// Its id.
    pub id: String,
}

impl Operation for RevokeInvite {
    const NAME: &'static str = "invite-revoke";
    type Outcome = InviteRevoked;

    async fn run(self, node: &Node, _: &Report) -> Result<InviteRevoked, Failed> {
        let state = node.state();
        let key = find(state, &self.which).await?;
        let batch = Batch::new().remove(tables::SIGNUP_TOKENS, key.clone());
        let _ = state.store.commit(batch).await?;
        let id = id_of(&key);
        tracing::info!(id, "sign-up token revoked");
        Ok(InviteRevoked { id })
    }
}

async fn find(state: &State, which: &str) -> Result<Vec<u8>, Failed> {
    let none = || {
        Failed::new(FailedKind::NotFound, "there is no such unused token")
            .help("`kastro invite list` shows the ids of those there are")
    };
    let key = token_key(which);
    if state
        .store
        .get(tables::SIGNUP_TOKENS, &key)
        .await?
        .is_some()
    {
        return Ok(key);
    }
    let digits = which.to_ascii_lowercase();
    let is_id = digits.len() >= MIN_ID_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if !is_id {
        return Err(none());
    }
    let mut found = None;
    let mut after: Option<Bytes> = None;
    loop {
        let page = page(state, b"", after.as_deref()).await?;
        let Some((last, _)) = page.last() else {
            return found.ok_or_else(none);
        };
        after = Some(last.clone());
        for (key, _) in page {
            if to_hex(&key).starts_with(&digits) && found.replace(key.to_vec()).is_some() {
                return Err(Failed::new(
                    FailedKind::NotFound,
                    "more than one token has an id that starts so",
                )
                .help("give more digits"));
            }
        }
    }
}

async fn page(
    state: &State,
    prefix: &[u8],
    after: Option<&[u8]>,
) -> Result<Vec<(Bytes, Bytes)>, Failed> {
    let table = tables::SIGNUP_TOKENS;
    Ok(state.store.scan(table, prefix, after, PAGE).await?)
}

fn id_of(key: &[u8]) -> String {
    to_hex(key.get(..ID_BYTES).unwrap_or(key))
}
