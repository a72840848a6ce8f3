//! What comes of the routing table: addresses of peers, records (Spec: 11 §3.1).

use std::time::{Duration, Instant};

use bytes::Bytes;
use libp2p::kad::{
    self,
    store::{MemoryStore, RecordStore as _},
};

use super::Host;
use crate::p2p::{addresses::MAX_ADDRESSES, records};

/// How long a record is kept for others, who publish theirs every six hours.
const KEPT: Duration = Duration::from_secs(24 * 3600);

impl Host {
    pub(super) fn on_kademlia(&mut self, event: kad::Event) {
        match event {
            kad::Event::InboundRequest {
                request:
                    kad::InboundRequest::PutRecord {
                        record: Some(record),
                        ..
                    },
            } => self.keep(record),
            kad::Event::OutboundQueryProgressed {
                id, result, step, ..
            } => {
                match result {
                    kad::QueryResult::GetClosestPeers(found) => self.on_found(id, found, step.last),
                    kad::QueryResult::GetRecord(Ok(kad::GetRecordOk::FoundRecord(found))) => {
                        if let Some(finder) = self.finds.get(&id) {
                            let _ = finder.try_send(Bytes::from(found.record.value));
                        }
                    }
                    _ => {}
                }
                if step.last {
                    self.finds.remove(&id);
                }
            }
            _ => {}
        }
    }

    /// Keeps a record for others: of identities, valid, and not older than what is there.
    fn keep(&mut self, record: kad::Record) {
        let store = self.swarm.behaviour_mut().kademlia.store_mut();
        let before = store.get(&record.key).map(|record| record.value.clone());
        let before = before.as_deref();
        let now = self.clock.now_seconds();
        if records::may_replace(record.key.as_ref(), &record.value, before, now) {
            keep_in(store, record, Instant::now());
        }
    }

    fn on_found(&mut self, query: kad::QueryId, found: kad::GetClosestPeersResult, is_last: bool) {
        let Some(peer) = self.searches.get(&query).copied() else {
            return;
        };
        let peers = match found {
            Ok(found) => found.peers,
            Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
        };
        let addresses: Vec<_> = peers
            .into_iter()
            .filter(|found| found.peer_id == peer)
            .flat_map(|found| found.addrs)
            .filter(|address| self.gate.lets_pass(address))
            .take(MAX_ADDRESSES)
            .collect();
        if !is_last && addresses.is_empty() {
            return;
        }
        self.searches.remove(&query);
        if addresses.is_empty() {
            self.give_up(peer, "nobody knows its address");
        } else {
            self.dial(peer, addresses);
        }
    }
}

/// Puts a record into the store. A full one keeps what it has as long as that is published again: records cost nothing to
/// make, and whoever fills the store with them has to go on.
fn keep_in(store: &mut MemoryStore, mut record: kad::Record, now: Instant) {
    let until = now + KEPT;
    record.expires = Some(record.expires.map_or(until, |expires| expires.min(until)));
    if let Err(kad::store::Error::MaxRecords) = store.put(record.clone()) {
        store.retain(|_, kept| !kept.is_expired(now));
        let _ = store.put(record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p2p_7_a_store_that_was_filled_once_is_not_full_for_ever() {
        let config = kad::store::MemoryStoreConfig {
            max_records: 10,
            ..kad::store::MemoryStoreConfig::default()
        };
        let mut store = MemoryStore::with_config(libp2p::PeerId::random(), config);
        let record = |number: u8| kad::Record::new(vec![number], vec![number]);
        let now = Instant::now();
        for number in 0..20 {
            keep_in(&mut store, record(number), now);
        }
        assert_eq!(store.records().count(), 10);
        // Some are published again, and stay.
        let later = now + KEPT / 2;
        for number in 0..5 {
            keep_in(&mut store, record(number), later);
        }
        keep_in(&mut store, record(20), later);
        assert!(store.get(&record(20).key).is_none());
        keep_in(&mut store, record(20), now + KEPT);
        assert!(store.get(&record(20).key).is_some());
        assert_eq!(store.records().count(), 6);
        assert!((0..5).all(|number| store.get(&record(number).key).is_some()));
    }
}
