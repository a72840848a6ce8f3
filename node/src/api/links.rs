//! Secret links, under `/api/v0/link/` (Spec: 06 §7).

use champ::{
    BlockSource as _,
    cbor::{Record, RecordError, Value},
    map::Champ,
};
use pki::{
    username::Username,
    wire::link::{LabelError, LinkCount, LinkCounts, LinkCountsQuery, LinkLabel, SecretLinkTarget},
    writer_data::WriterData,
};
use subtle::ConstantTimeEq as _;

use crate::{
    bats,
    blocks::{AuthorisedBlocks, StoredBlocks, source_refusal},
    directory::User,
    error::Refusal,
    http::{Call, Reply},
    pointers::stored_update,
    state::State,
    store::{Batch, tables},
};

/// Attempts at counting a use that other uses overtake.
const MAX_ATTEMPTS: usize = 1000;

pub(super) async fn get(call: &Call<'_>) -> Result<Reply, Refusal> {
    let label =
        call.query
            .required("label")?
            .parse::<LinkLabel>()
            .map_err(|error| match error {
                LabelError::NotPositive => Refusal::rule(error.to_string()),
                _ => Refusal::malformed(error.to_string()),
            })?;
    let owner = call.query.owner()?;
    let state = call.state;
    let user = state.directory.user(&owner).await?;
    if !user.is_local {
        return Err(Refusal::ForeignLink);
    }
    let now = state.clock.now_seconds();
    let source = user.name.as_str().to_owned();
    let is_exhausted = state
        .guards
        .link_misses
        .is_exhausted(&*state.store, &source, now)
        .await?;
    if is_exhausted {
        return Err(Refusal::RateLimit("Too many wrong links"));
    }
    let Some(target) = find(state, &user, label).await? else {
        state
            .guards
            .link_misses
            .record(&*state.store, &source, now)
            .await?;
        return Err(Refusal::rule("No secret link present!"));
    };
    // Expiry is written in UTC whatever the time zone of anybody.
    if target
        .expiry_epoch_seconds
        .is_some_and(|expiry| expiry < now)
    {
        return Err(Refusal::rule("Secret link expired!"));
    }
    count_use(state, &user.name, label, target.max_retrievals, now).await?;
    Ok(Reply::record(&target.capability))
}

async fn find(
    state: &State,
    user: &User,
    label: LinkLabel,
) -> Result<Option<SecretLinkTarget>, Refusal> {
    let none_published = || Refusal::rule("No secret link published!");
    let identity = user.identity.as_writer();
    let update = stored_update(state, &identity).await?;
    let root = update
        .as_ref()
        .and_then(|update| update.updated())
        .ok_or_else(none_published)?;
    let stored = StoredBlocks { state, user };
    let block = stored
        .block(root, None)
        .await
        .map_err(source_refusal)?
        .ok_or_else(|| Refusal::internal("the root block of a local user is missing"))?;
    let data = WriterData::in_block(&block, &identity).map_err(Refusal::internal)?;
    let mut links = Champ::at(data.links.ok_or_else(none_published)?);
    if let Some(bat) = bats::newest(state, &user.name).await? {
        links = links.with_root_token(bat);
    }
    let authorised = AuthorisedBlocks { state, user };
    let value = links
        .get(&label.champ_key(), &authorised)
        .await
        .map_err(|_| Refusal::Unauthorised)?;
    let Some(Value::Link(target)) = value else {
        return Ok(None);
    };
    let block = authorised
        .block(&target, None)
        .await
        .map_err(source_refusal)?;
    Ok(block.and_then(|block| SecretLinkTarget::decode_shared(block.bytes()).ok()))
}

/// Uses of one link, as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Uses {
    count: i64,
    modified_epoch_seconds: i64,
}

impl Record for Uses {
    fn to_value(&self) -> Value {
        Value::List(vec![
            Value::Int(self.count),
            Value::Int(self.modified_epoch_seconds),
        ])
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut items = value.into_list("uses")?.into_iter();
        let mut next = || items.next().ok_or(RecordError::Missing("uses"));
        Ok(Self {
            count: next()?.into_int("uses")?,
            modified_epoch_seconds: next()?.into_int("uses")?,
        })
    }
}

/// Counts one more use on stable storage, unless the link is used up.
async fn count_use(
    state: &State,
    name: &Username,
    label: LinkLabel,
    max: Option<i64>,
    now_seconds: i64,
) -> Result<(), Refusal> {
    let mut key = prefix(name);
    key.extend_from_slice(&label.get().to_be_bytes());
    for _ in 0..MAX_ATTEMPTS {
        let before = state.store.get(tables::LINK_COUNTS, &key).await?;
        let uses = before
            .as_deref()
            .map(Uses::decode)
            .transpose()
            .map_err(Refusal::internal)?
            .map_or(0, |uses| uses.count);
        if max.is_some_and(|max| uses >= max) {
            return Err(Refusal::rule("Maximum link retrievals exceed!"));
        }
        let after = Uses {
            count: uses.saturating_add(1),
            modified_epoch_seconds: now_seconds,
        };
        let batch = Batch::new()
            .expect(tables::LINK_COUNTS, key.clone(), before)
            .put(tables::LINK_COUNTS, key.clone(), after.encode());
        if state.store.commit(batch).await?.is_committed() {
            return Ok(());
        }
    }
    Err(Refusal::RateLimit("Too many uses at once"))
}

fn prefix(name: &Username) -> Vec<u8> {
    let mut key = name.as_str().as_bytes().to_vec();
    key.push(0);
    key
}

pub(super) async fn counts(call: &Call<'_>) -> Result<Reply, Refusal> {
    let asked = LinkCountsQuery::from_query(call.query.wire())?;
    let state = call.state;
    let user = state.directory.named_local(&asked.owner).await?;
    let newest = bats::newest(state, &user.name)
        .await?
        .ok_or(Refusal::MirrorToken)?;
    let is_same = newest.bat.secret().ct_eq(asked.bat.bat.secret());
    if !bool::from(is_same) || newest.id != asked.bat.id {
        return Err(Refusal::MirrorToken);
    }
    let prefix = prefix(&user.name);
    let mut counts = Vec::new();
    let mut after: Option<bytes::Bytes> = None;
    loop {
        let page = state
            .store
            .scan(tables::LINK_COUNTS, &prefix, after.as_deref(), 1000)
            .await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (key, row) in page {
            let uses = Uses::decode(&row).map_err(Refusal::internal)?;
            let label = key.last_chunk::<4>().map_or(0, |n| u32::from_be_bytes(*n));
            if uses.modified_epoch_seconds > asked.after_epoch_seconds {
                counts.push(LinkCount {
                    label: label.into(),
                    count: uses.count,
                    modified_epoch_seconds: uses.modified_epoch_seconds,
                });
            }
        }
    }
    Ok(Reply::record(&LinkCounts(counts)))
}
