//! A sweep once a week over what a crash may have left in a bucket: objects that no row names.
//!
//! The data folder of one machine needs none, because its start removes leftovers. A node waits for a day after its start:
//! who puts back an older database notices that first.

use std::{sync::Arc, time::Duration};

use crate::{
    state::State,
    store::{Batch, Orphans, Store, StoreError, tables},
};

/// Row of the node's own table: when the last sweep began, seconds since 1970. Nodes of one data set share it.
const ROW: &[u8] = b"strays";
/// Time from one sweep to the next, in seconds.
const PERIOD_SECONDS: i64 = 7 * 86_400;
/// Time from the start of the node to its first look, and between two looks.
const WAIT: Duration = Duration::from_secs(86_400);

/// Starts the worker that sweeps.
pub(crate) fn start(state: &Arc<State>) {
    if state.store.upkeep().is_some() {
        return;
    }
    let state = Arc::clone(state);
    let workers = state.workers.clone();
    workers.spawn("strays", move |run| {
        let state = Arc::clone(&state);
        async move {
            while run.pause(WAIT).await {
                if let Some(swept) = step(&*state.store, state.clock.now_seconds()).await? {
                    let (count, bytes) = (swept.removed, swept.found.bytes);
                    run.note(format!("{count} objects of {bytes} bytes removed"));
                }
            }
            Ok(())
        }
    });
}

/// Sweeps if it is time and no other node does it.
async fn step(store: &dyn Store, now: i64) -> Result<Option<Orphans>, StoreError> {
    let before = store.get(tables::NODE, ROW).await?;
    let last = before.as_deref().and_then(|row| row.try_into().ok());
    let passed = now.saturating_sub(last.map_or(0, i64::from_be_bytes));
    if (0..PERIOD_SECONDS).contains(&passed) {
        return Ok(None);
    }
    let batch = Batch::new().expect(tables::NODE, ROW, before).put(
        tables::NODE,
        ROW,
        now.to_be_bytes().to_vec(),
    );
    if !store.commit(batch).await?.is_committed() {
        return Ok(None);
    }
    store.strays(true).await.map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn one_node_sweeps_once_a_week_also_after_the_clock_was_set_back() {
        let store = MemoryStore::new();
        let mut swept = Vec::new();
        for day in [0, 1, 6, 7, 8, 13, 14, 3, 4, 10] {
            let now = 1_800_000_000 + day * 86_400;
            if step(&store, now).await.unwrap().is_some() {
                swept.push(day);
            }
        }
        assert_eq!(swept, [0, 7, 14, 3, 10]);
    }
}
