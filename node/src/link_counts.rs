//! How often each secret link was opened, and when last (Spec: 06 §7, 12 §1).

use champ::cbor::{Record, RecordError, Value};
use pki::{
    username::Username,
    wire::{
        link::{LinkCount, LinkCounts, LinkLabel},
        mirror::FROM_THE_BEGINNING,
    },
};

use crate::{
    error::Refusal,
    state::State,
    store::{Batch, tables},
};

/// Attempts at counting a use that other uses overtake.
const MAX_ATTEMPTS: usize = 1000;
/// Rows read, and rows written, at once.
const PAGE: usize = 1000;
/// How far back changes are asked for again.
const OVERLAP_SECONDS: i64 = 3600;

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

fn prefix(name: &Username) -> Vec<u8> {
    let mut key = name.as_str().as_bytes().to_vec();
    key.push(0);
    key
}

fn row_key(name: &Username, label: u32) -> Vec<u8> {
    let mut key = prefix(name);
    key.extend_from_slice(&label.to_be_bytes());
    key
}

/// Counts one more use on stable storage, unless the link is used up.
pub(crate) async fn count_use(
    state: &State,
    name: &Username,
    label: LinkLabel,
    max: Option<i64>,
    now_seconds: i64,
) -> Result<(), Refusal> {
    let key = row_key(name, label.get());
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

/// Returns the counts that changed after a moment, in seconds since 1970.
pub(crate) async fn changed_after(
    state: &State,
    name: &Username,
    after_seconds: i64,
) -> Result<LinkCounts, Refusal> {
    let prefix = prefix(name);
    let mut counts = Vec::new();
    let mut after: Option<bytes::Bytes> = None;
    loop {
        let page = state
            .store
            .scan(tables::LINK_COUNTS, &prefix, after.as_deref(), PAGE)
            .await?;
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        for (key, row) in page {
            let uses = Uses::decode(&row).map_err(Refusal::internal)?;
            let label = key.last_chunk::<4>().map_or(0, |n| u32::from_be_bytes(*n));
            if uses.modified_epoch_seconds > after_seconds {
                counts.push(LinkCount {
                    label: label.into(),
                    count: uses.count,
                    modified_epoch_seconds: uses.modified_epoch_seconds,
                });
            }
        }
    }
    Ok(LinkCounts(counts))
}

/// Returns the moment after which changes are asked for at another node.
///
/// Some time before the latest change that is here: another one may have come in the same second, and the two nodes' clocks
/// differ. What comes twice does no harm.
pub(crate) async fn ask_after(state: &State, name: &Username) -> Result<i64, Refusal> {
    let all = changed_after(state, name, i64::MIN).await?;
    let latest = all.0.iter().map(|count| count.modified_epoch_seconds).max();
    Ok(latest.map_or(FROM_THE_BEGINNING, |latest| {
        latest.saturating_sub(OVERLAP_SECONDS)
    }))
}

/// Stores counts that another node has kept. Lower ones than are here change nothing.
pub(crate) async fn store(
    state: &State,
    name: &Username,
    counts: &LinkCounts,
) -> Result<(), Refusal> {
    for _ in 0..MAX_ATTEMPTS {
        if store_once(state, name, counts).await? {
            return Ok(());
        }
    }
    Err(Refusal::Busy)
}

/// False when a link was used meanwhile.
async fn store_once(state: &State, name: &Username, counts: &LinkCounts) -> Result<bool, Refusal> {
    for some in counts.0.chunks(PAGE) {
        let mut batch = Batch::new();
        for count in some {
            let Ok(label) = u32::try_from(count.label) else {
                continue;
            };
            let key = row_key(name, label);
            let before = state.store.get(tables::LINK_COUNTS, &key).await?;
            let here = before.as_deref().map(Uses::decode).transpose();
            let here = here
                .map_err(Refusal::internal)?
                .map_or(0, |uses| uses.count);
            if count.count > here {
                batch = batch.expect(tables::LINK_COUNTS, key.clone(), before);
                let uses = Uses {
                    count: count.count,
                    modified_epoch_seconds: count.modified_epoch_seconds,
                };
                batch = batch.put(tables::LINK_COUNTS, key, uses.encode());
            }
        }
        if !batch.is_empty() && !state.store.commit(batch).await?.is_committed() {
            return Ok(false);
        }
    }
    Ok(true)
}
