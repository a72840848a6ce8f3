//! The protocols a node speaks, and their limits (Spec: 11 §3).
//!
//! libp2p has no limits of its own: connections, streams, records and addresses are all bounded here or where they
//! are kept.

use std::{num::NonZeroUsize, time::Duration};

use libp2p::{
    PeerId, StreamProtocol, autonat, connection_limits, dcutr, identify,
    identity::Keypair,
    kad::{self, store::MemoryStore},
    ping, relay,
    swarm::NetworkBehaviour,
};
use pki::node_identity::MAX_RECORD_BYTES;

use super::{
    addresses::DialScope, doorman::Doorman, reachability, relaying::Relaying, streams::Streams,
};

/// Protocol of the routing table.
pub(super) const KADEMLIA: StreamProtocol = StreamProtocol::new("/ipfs/kad/1.0.0");
/// Protocol version told to others.
const IDENTIFY: &str = "ipfs/0.1.0";
/// Longest message of the routing table.
const MAX_MESSAGE_BYTES: usize = 1 << 20;
/// Most records kept for others.
const MAX_RECORDS: usize = 1024;
/// Nodes asked at a time.
const PARALLEL: NonZeroUsize = NonZeroUsize::new(3).unwrap();
/// Longest look-up.
const LOOKUP: Duration = Duration::from_secs(10);
/// Look-ups of random keys and of the own id.
const REFRESH: Duration = Duration::from_secs(300);
/// Connections that others made.
const MAX_INCOMING: u32 = 512;
/// Connections of this node's making.
const MAX_OUTGOING: u32 = 256;
/// Connections with one peer.
const MAX_PER_PEER: u32 = 8;
/// Handshakes of others under way; one address has a share of them.
const MAX_PENDING_INCOMING: u32 = 1024;
/// Handshakes of this node's making under way.
const MAX_PENDING_OUTGOING: u32 = 64;

/// All protocols.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    doorman: Doorman,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub(super) kademlia: kad::Behaviour<MemoryStore>,
    relay: relay::client::Behaviour,
    pub(super) relaying: Relaying,
    hole_punching: dcutr::Behaviour,
    verdict: autonat::v1::Behaviour,
    reachability: autonat::v2::client::Behaviour,
    dial_back: autonat::v2::server::Behaviour,
    pub(super) http: Streams,
}

impl Behaviour {
    pub(super) fn new(
        key: &Keypair,
        scope: DialScope,
        relay: relay::client::Behaviour,
        relaying: Relaying,
        http: Streams,
    ) -> Self {
        let id = key.public().to_peer_id();
        let limits = connection_limits::ConnectionLimits::default()
            .with_max_pending_incoming(Some(MAX_PENDING_INCOMING))
            .with_max_pending_outgoing(Some(MAX_PENDING_OUTGOING))
            .with_max_established_incoming(Some(MAX_INCOMING))
            .with_max_established_outgoing(Some(MAX_OUTGOING))
            .with_max_established_per_peer(Some(MAX_PER_PEER));
        let identify = identify::Config::new(IDENTIFY.to_owned(), key.public())
            .with_agent_version(concat!("kastro/", env!("CARGO_PKG_VERSION")).to_owned())
            .with_push_listen_addr_updates(true)
            .with_cache_size(0);
        Self {
            limits: connection_limits::Behaviour::new(limits),
            doorman: Doorman::default(),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::new(ping::Config::new()),
            kademlia: kademlia(id),
            relay,
            relaying,
            hole_punching: dcutr::Behaviour::new(id),
            verdict: reachability::verdict(id, scope),
            reachability: autonat::v2::client::Behaviour::default(),
            dial_back: autonat::v2::server::Behaviour::default(),
            http,
        }
    }
}

fn kademlia(id: PeerId) -> kad::Behaviour<MemoryStore> {
    let mut config = kad::Config::new(KADEMLIA);
    config
        .set_parallelism(PARALLEL)
        .set_query_timeout(LOOKUP)
        .set_max_packet_size(MAX_MESSAGE_BYTES)
        .set_periodic_bootstrap_interval(Some(REFRESH))
        // Who is in the table, and what is kept, is decided with the addresses and records at hand.
        .set_kbucket_inserts(kad::BucketInserts::Manual)
        .set_record_filtering(kad::StoreInserts::FilterBoth)
        .set_caching(kad::Caching::Disabled)
        // Records are published again by who signed them.
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None);
    let store = kad::store::MemoryStoreConfig {
        max_records: MAX_RECORDS,
        max_value_bytes: MAX_RECORD_BYTES,
        max_providers_per_key: 0,
        max_provided_keys: 0,
    };
    let store = MemoryStore::with_config(id, store);
    let mut kademlia = kad::Behaviour::with_config(id, store, config);
    kademlia.set_mode(Some(kad::Mode::Server));
    kademlia
}
