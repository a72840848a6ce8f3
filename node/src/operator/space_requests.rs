//! Requests for more space: whoever has the data folder decides without an administrator's signature
//! (Spec: 09 §1.1, §2.1).

use bytes::Bytes;
use pki::{username::Username, wire::payment::SpaceRequest};
use serde::{Deserialize, Serialize};

use super::{
    Failed, FailedKind, Operation, Report,
    quota::{self, changed_meanwhile, checked},
    users::claimed,
};
use crate::{
    node::Node,
    space,
    state::State,
    store::{Batch, tables},
    usage::stored_quota,
};

/// Rows read at once.
const PAGE: usize = 1000;

/// Lists the requests that wait. Items: [`PendingRequest`], in order of names.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ListSpaceRequests {}

/// How many requests wait.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SpaceRequestsListed {
    /// Number of requests.
    pub requests: u64,
}

/// A request that waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PendingRequest {
    /// Who asks.
    pub name: String,
    /// The space asked for in bytes.
    pub wanted_bytes: u64,
    /// The space there is.
    pub quota_bytes: Option<u64>,
    /// Confirmed bytes.
    pub used_bytes: u64,
    /// When it was signed, in UTC milliseconds since 1970.
    pub asked_epoch_millis: i64,
    /// False when the signature is not by the present holder of the name: decline it.
    pub is_genuine: bool,
}

impl Operation for ListSpaceRequests {
    const NAME: &'static str = "space-requests-list";
    type Outcome = SpaceRequestsListed;

    async fn run(self, node: &Node, report: &Report) -> Result<SpaceRequestsListed, Failed> {
        let state = node.state();
        let mut requests = 0;
        let mut after: Option<Bytes> = None;
        loop {
            let table = tables::SPACE_REQUESTS;
            let page = state.store.scan(table, b"", after.as_deref(), PAGE).await?;
            let Some((last, _)) = page.last() else {
                return Ok(SpaceRequestsListed { requests });
            };
            after = Some(last.clone());
            for (name, signed) in page {
                let name = std::str::from_utf8(&name).ok();
                let Some(name) = name.and_then(|name| Username::parse(name).ok()) else {
                    continue;
                };
                report.item(&pending(state, &name, &signed).await?).await;
                requests += 1;
            }
        }
    }
}

async fn pending(state: &State, name: &Username, signed: &[u8]) -> Result<PendingRequest, Failed> {
    let user = claimed(state, name).await?;
    let used_bytes = match &user {
        Some(user) => state.usage.present(state, user).await?.0,
        None => 0,
    };
    let genuine = genuine(state, name, signed).await;
    let request = space::read_signed(signed).ok();
    let wanted = request.as_ref().map_or(0, |request| request.quota_bytes);
    Ok(PendingRequest {
        name: name.as_str().to_owned(),
        wanted_bytes: u64::try_from(wanted).unwrap_or(0),
        quota_bytes: stored_quota(state, name).await?,
        used_bytes,
        asked_epoch_millis: request.map_or(0, |request| request.epoch_millis),
        is_genuine: genuine.is_ok(),
    })
}

/// Reads a request and checks that the present holder of the name signed it for itself.
async fn genuine(state: &State, name: &Username, signed: &[u8]) -> Result<SpaceRequest, Failed> {
    let user = state.directory.named_local(name.as_str()).await?;
    let key = state.identity_key(&user).await?;
    let refused = |why: &str| Failed::new(FailedKind::Refused, why.to_owned());
    key.verify_attached(signed)
        .map_err(|_| refused("the request is not signed by the user"))?;
    let request = space::read_signed(signed)?;
    if request.username != *name {
        return Err(refused("the request is for another user"));
    }
    Ok(request)
}

/// Grants a request that waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApproveSpaceRequest {
    /// Who asked.
    pub name: String,
    /// Grant this many bytes instead of those asked for.
    #[serde(default)]
    pub bytes: Option<u64>,
}

/// Removes a request that waits; nothing else changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeclineSpaceRequest {
    /// Who asked.
    pub name: String,
}

/// What was decided.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SpaceRequestDecided {
    /// Who asked.
    pub name: String,
    /// The space now.
    pub quota_bytes: Option<u64>,
    /// The space before.
    pub before_bytes: Option<u64>,
}

impl Operation for ApproveSpaceRequest {
    const NAME: &'static str = "space-requests-approve";
    type Outcome = SpaceRequestDecided;

    async fn run(self, node: &Node, _: &Report) -> Result<SpaceRequestDecided, Failed> {
        let state = node.state();
        let (name, signed) = waiting(state, &self.name).await?;
        let request = genuine(state, &name, &signed).await?;
        let wanted = u64::try_from(request.quota_bytes).unwrap_or(0);
        let bytes = checked(self.bytes.unwrap_or(wanted))?;
        let before_bytes = quota::set(state, &name, bytes, taken(&name, signed)).await?;
        Ok(SpaceRequestDecided {
            name: self.name,
            quota_bytes: Some(bytes),
            before_bytes,
        })
    }
}

impl Operation for DeclineSpaceRequest {
    const NAME: &'static str = "space-requests-decline";
    type Outcome = SpaceRequestDecided;

    async fn run(self, node: &Node, _: &Report) -> Result<SpaceRequestDecided, Failed> {
        let state = node.state();
        let (name, signed) = waiting(state, &self.name).await?;
        if !state
            .store
            .commit(taken(&name, signed))
            .await?
            .is_committed()
        {
            return Err(changed_meanwhile());
        }
        tracing::info!(
            user = name.as_str(),
            "space request declined by the operator"
        );
        let quota_bytes = stored_quota(state, &name).await?;
        Ok(SpaceRequestDecided {
            name: self.name,
            quota_bytes,
            before_bytes: quota_bytes,
        })
    }
}

async fn waiting(state: &State, name: &str) -> Result<(Username, Bytes), Failed> {
    let none = || {
        Failed::new(FailedKind::NotFound, format!("no request of {name} waits"))
            .help("`kastro space-requests list` shows those that do")
    };
    let name = Username::parse(name).map_err(|_| none())?;
    let key = name.as_str().as_bytes();
    let signed = state.store.get(tables::SPACE_REQUESTS, key).await?;
    Ok((name.clone(), signed.ok_or_else(none)?))
}

/// Takes exactly this request off the list.
fn taken(name: &Username, signed: Bytes) -> Batch {
    let key = name.as_str().as_bytes().to_vec();
    Batch::new()
        .expect(tables::SPACE_REQUESTS, key.clone(), Some(signed))
        .remove(tables::SPACE_REQUESTS, key)
}
