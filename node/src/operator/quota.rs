//! Space: of one account, and of those that will sign up (Spec: 12 §3.4).

use champ::cbor::{RecordError, Value, decode};
use pki::username::Username;
use serde::{Deserialize, Serialize};

use super::{
    Failed, FailedKind, Operation, Report,
    users::{claimed, known_name, new_name},
};
use crate::{
    directory::Removal,
    error::Refusal,
    node::Node,
    state::State,
    store::{Batch, tables},
    usage::{quota_row, stored_quota},
};

/// Largest quota in bytes: what every number format of the network holds exactly (Spec: 09 §1.1).
pub const MAX_QUOTA_BYTES: u64 = 1 << 53;
/// Row of the operator's default quota.
const DEFAULT_QUOTA: &[u8] = b"default quota";
/// Attempts at a change that other changes overtake.
const MAX_ATTEMPTS: usize = 20;

/// Shows the space of one account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ShowQuota {
    /// User name.
    pub name: String,
}

/// Sets the space of one account; with its next write it is in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetQuota {
    /// User name; a name without owner is let in when somebody signs up with it.
    pub name: String,
    /// Space in bytes, at most [`MAX_QUOTA_BYTES`].
    pub bytes: u64,
}

/// The space of one account.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Quota {
    /// User name.
    pub name: String,
    /// Space in bytes; `None` without any.
    pub quota_bytes: Option<u64>,
    /// What it was before, for a change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_bytes: Option<u64>,
    /// Confirmed bytes.
    pub used_bytes: u64,
    /// False for a name that nobody has claimed yet.
    pub is_claimed: bool,
}

/// Shows what new accounts get.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ShowDefaultQuota {}

/// Sets what new accounts get; `None` goes back to the configuration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetDefaultQuota {
    /// Space in bytes, at most [`MAX_QUOTA_BYTES`].
    pub bytes: Option<u64>,
}

/// What new accounts get.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DefaultQuota {
    /// Space in bytes.
    pub quota_bytes: u64,
    /// What the configuration says.
    pub configured_bytes: u64,
    /// True when an operator's command set it, which counts more than the configuration.
    pub is_set: bool,
}

/// Counts the bytes of an account from nothing and compares with what is recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Recount {
    /// User name.
    pub name: String,
    /// Put the record right.
    pub is_applied: bool,
}

/// What a count found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recounted {
    /// User name.
    pub name: String,
    /// Bytes that were recorded.
    pub recorded_bytes: u64,
    /// Bytes that are reachable from the account's pointers.
    pub counted_bytes: u64,
    /// Signing keys whose share was recorded wrongly.
    pub wrong_writers: u64,
    /// True when the record was put right, or was right.
    pub is_right_now: bool,
}

impl Operation for Recount {
    const NAME: &'static str = "quota-recount";
    type Outcome = Recounted;

    async fn run(self, node: &Node, _: &Report) -> Result<Recounted, Failed> {
        let state = node.state();
        let name = known_name(state, &self.name).await?;
        let user = claimed(state, &name)
            .await?
            .ok_or_else(|| Failed::no_user(name.as_str()))?;
        let found = state.usage.recount(state, &user, self.is_applied).await?;
        let was_right = found.before == found.total && found.wrong_writers == 0;
        Ok(Recounted {
            name: self.name,
            recorded_bytes: found.before,
            counted_bytes: found.total,
            wrong_writers: found.wrong_writers,
            is_right_now: self.is_applied || was_right,
        })
    }
}

impl Operation for ShowQuota {
    const NAME: &'static str = "quota-show";
    type Outcome = Quota;

    async fn run(self, node: &Node, _: &Report) -> Result<Quota, Failed> {
        let name = known_name(node.state(), &self.name).await?;
        quota(node.state(), &name, None).await
    }
}

impl Operation for SetQuota {
    const NAME: &'static str = "quota-set";
    type Outcome = Quota;

    async fn run(self, node: &Node, _: &Report) -> Result<Quota, Failed> {
        let state = node.state();
        let bytes = checked(self.bytes)?;
        let name = match known_name(state, &self.name).await {
            Ok(name) => name,
            Err(_) => new_name(&self.name)?,
        };
        let before = set(state, &name, bytes, Batch::new()).await?;
        quota(state, &name, before).await
    }
}

impl Operation for ShowDefaultQuota {
    const NAME: &'static str = "quota-default-show";
    type Outcome = DefaultQuota;

    async fn run(self, node: &Node, _: &Report) -> Result<DefaultQuota, Failed> {
        default_quota(node.state()).await
    }
}

impl Operation for SetDefaultQuota {
    const NAME: &'static str = "quota-default-set";
    type Outcome = DefaultQuota;

    async fn run(self, node: &Node, _: &Report) -> Result<DefaultQuota, Failed> {
        let state = node.state();
        let batch = match self.bytes {
            Some(bytes) => {
                Batch::new().put(tables::NODE, DEFAULT_QUOTA, quota_row(checked(bytes)?))
            }
            None => Batch::new().remove(tables::NODE, DEFAULT_QUOTA),
        };
        // Without conditions it cannot fail to apply.
        let _ = state.store.commit(batch).await?;
        let now = default_quota(state).await?;
        tracing::info!(quota_bytes = now.quota_bytes, "default quota changed");
        Ok(now)
    }
}

/// Returns the bytes a new account gets: what an operator's command set, else what is configured.
pub(crate) async fn default_bytes(state: &State) -> Result<u64, Refusal> {
    let Some(row) = state.store.get(tables::NODE, DEFAULT_QUOTA).await? else {
        return Ok(state.config.default_quota_bytes);
    };
    let bytes = decode(&row)
        .map_err(RecordError::from)
        .and_then(|value: Value| value.into_int("default quota"))
        .map_err(Refusal::internal)?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

/// Sets a quota together with `and`, and puts it into force. Returns what it was.
pub(super) async fn set(
    state: &State,
    name: &Username,
    bytes: u64,
    and: Batch,
) -> Result<Option<u64>, Failed> {
    let key = name.as_str().as_bytes().to_vec();
    for _ in 0..MAX_ATTEMPTS {
        let row = state.store.get(tables::QUOTAS, &key).await?;
        let before = stored_quota(state, name).await?;
        let mut batch = Batch::new()
            .expect(tables::QUOTAS, key.clone(), row.clone())
            .put(tables::QUOTAS, key.clone(), quota_row(bytes));
        let conditions = batch.conditions().len();
        batch.append(and.clone());
        // Whoever is given space again is welcome again, with an empty account.
        let removal = state.directory.removal(name).await?;
        if removal == Some(Removal::Going) {
            return Err(
                Failed::new(FailedKind::Refused, format!("{name} is being removed"))
                    .help("finish that first: `kastro users remove`"),
            );
        }
        if removal.is_some() {
            batch = batch.remove(tables::REMOVED, key.clone());
        }
        match state.store.commit(batch).await? {
            crate::store::CommitOutcome::Committed => {}
            crate::store::CommitOutcome::ConditionFailed { index, .. } if index < conditions => {
                continue;
            }
            crate::store::CommitOutcome::ConditionFailed { .. } => {
                return Err(changed_meanwhile());
            }
        }
        if row.is_none() {
            state.users.added();
        }
        if removal.is_some() {
            let chain = state.directory.chain(name.as_str()).await?;
            state.directory.forget(&chain);
        }
        tracing::info!(
            user = name.as_str(),
            quota_bytes = bytes,
            "quota changed by the operator"
        );
        if let Some(user) = claimed(state, name).await? {
            state.usage.quota_changed(state, &user, bytes).await?;
        }
        return Ok(before);
    }
    Err(changed_meanwhile())
}

pub(super) fn changed_meanwhile() -> Failed {
    Failed::new(FailedKind::Conflict, "it was changed at the same time").help("try again")
}

pub(super) fn checked(bytes: u64) -> Result<u64, Failed> {
    if bytes <= MAX_QUOTA_BYTES {
        return Ok(bytes);
    }
    Err(Failed::new(
        FailedKind::NotAllowed,
        format!("a quota is at most {MAX_QUOTA_BYTES} bytes (8192 T)"),
    ))
}

async fn quota(state: &State, name: &Username, before: Option<u64>) -> Result<Quota, Failed> {
    let user = claimed(state, name).await?;
    let used_bytes = match &user {
        Some(user) => state.usage.present(state, user).await?.0,
        None => 0,
    };
    Ok(Quota {
        name: name.as_str().to_owned(),
        quota_bytes: stored_quota(state, name).await?,
        before_bytes: before,
        used_bytes,
        is_claimed: user.is_some(),
    })
}

/// Returns true when an operator's command set the default quota.
pub(super) async fn is_default_set(state: &State) -> Result<bool, Failed> {
    Ok(state
        .store
        .get(tables::NODE, DEFAULT_QUOTA)
        .await?
        .is_some())
}

async fn default_quota(state: &State) -> Result<DefaultQuota, Failed> {
    let is_set = is_default_set(state).await?;
    Ok(DefaultQuota {
        quota_bytes: default_bytes(state).await?,
        configured_bytes: state.config.default_quota_bytes,
        is_set,
    })
}
