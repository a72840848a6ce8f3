//! What comes of the routing table: addresses of peers, records (Spec: 11 §3.1).

use bytes::Bytes;
use libp2p::kad;

use super::Host;
use crate::p2p::{addresses::MAX_ADDRESSES, records};

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
        use kad::store::RecordStore as _;
        let store = self.swarm.behaviour_mut().kademlia.store_mut();
        let before = store.get(&record.key).map(|record| record.value.clone());
        let before = before.as_deref();
        let now = self.clock.now_seconds();
        if records::may_replace(record.key.as_ref(), &record.value, before, now) {
            // A full store keeps what it has.
            let _ = store.put(record);
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
