//! The swarm: listens, keeps connections, knows addresses, opens streams (Spec: 11 §3, §4.3, §8).
//!
//! One task owns it. Others send it [`Command`]s, none of which waits: a dead peer holds up nobody but those who
//! asked for it. What fails at the start (a busy port, no IPv6, a bootstrap node that is gone) is logged, and the
//! node serves its own users all the same.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::{ConnectedPoint, upgrade::Version},
    identify,
    identity::Keypair,
    kad,
    multiaddr::Protocol,
    ping,
    swarm::{
        self, DialError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use super::{
    addresses::{AddressBook, Gate, MAX_ADDRESSES, peer_of},
    behaviour::{Behaviour, BehaviourEvent, KADEMLIA},
    listeners::{Listeners, is_at_relay},
    reachability::Reachability,
    relaying::{self, Places},
    status::PeerStatus,
    streams::{Arrived, NotOpened, Reply, Streams},
    transport, words,
};
use crate::{
    clock::Clock,
    state::State,
    store::{Batch, tables},
    workers::{Run, WorkerError},
};

mod lookups;
mod relays;

/// How long a connection without streams is kept.
const IDLE: Duration = Duration::from_secs(300);
/// Inbound streams of one connection that are negotiated at a time.
const MAX_NEGOTIATING: usize = 128;
/// How often changed addresses are written down.
const SAVE: Duration = Duration::from_secs(60);
/// Most requests that wait for a connection with one peer.
const MAX_WAITING: usize = 256;
/// Key of the row with known addresses.
const ADDRESSES_ROW: &[u8] = b"peer addresses";

/// An order to the task that owns the swarm.
pub(super) enum Command {
    /// Opens a stream to a peer, wherever it is.
    Open(PeerId, Reply),
    /// Takes an address of a peer that was found by other means.
    Know(PeerId, Multiaddr),
    /// Puts a record into the network.
    Publish(Bytes, Bytes),
    /// Looks for records in the network; those found come one by one.
    Find(Bytes, mpsc::Sender<Bytes>),
}

/// Requests that wait for a connection.
#[derive(Default)]
struct Waiting {
    replies: Vec<Reply>,
    /// The network was asked for addresses already.
    has_asked: bool,
}

/// The swarm and what goes with it.
pub(super) struct Host {
    swarm: Swarm<Behaviour>,
    gate: Arc<Gate>,
    book: AddressBook,
    waiting: HashMap<PeerId, Waiting>,
    /// Look-ups of peers under way.
    searches: HashMap<kad::QueryId, PeerId>,
    /// Look-ups of records under way.
    finds: HashMap<kad::QueryId, mpsc::Sender<Bytes>>,
    listeners: Listeners,
    /// Direct connections by peer.
    direct: HashMap<PeerId, u32>,
    places: Places,
    reachability: Reachability,
    /// May be a relay for others.
    is_relay: bool,
    status: watch::Sender<PeerStatus>,
    clock: Arc<dyn Clock>,
}

impl Host {
    /// Makes the swarm and begins to listen. Returns the queue of streams that peers open.
    pub(super) fn new(
        key: &Keypair,
        state: &State,
        known: Option<&[u8]>,
        status: watch::Sender<PeerStatus>,
    ) -> Result<(Self, mpsc::Receiver<Arrived>), WorkerError> {
        let config = &state.config.p2p;
        let configured: Vec<&Multiaddr> = config.bootstrap.iter().chain(&config.known).collect();
        // Relays to listen at are dialed, too.
        let relays = config.listen.iter().filter(|place| is_at_relay(place));
        let dialed = configured.iter().copied().chain(relays);
        let gate = Arc::new(Gate::new(config.dials, dialed));
        let (transport, relay) = transport::build(key, &gate)?;
        let (http, arrived) = Streams::new();
        let (relaying, places) = relaying::relay(key.public().to_peer_id());
        let behaviour = Behaviour::new(key, config.dials, relay, relaying, http);
        let settings = swarm::Config::with_tokio_executor()
            .with_idle_connection_timeout(IDLE)
            .with_max_negotiating_inbound_streams(MAX_NEGOTIATING)
            // What a stream is for, and the request, leave together: one round trip to a home far away, not two.
            .with_substream_upgrade_protocol_override(Version::V1Lazy);
        let id = key.public().to_peer_id();
        let mut book = AddressBook::default();
        book.restore(known.unwrap_or_default());
        for address in configured {
            book.configure(address);
        }
        let mut host = Self {
            swarm: Swarm::new(transport, behaviour, id, settings),
            gate,
            book,
            waiting: HashMap::new(),
            searches: HashMap::new(),
            finds: HashMap::new(),
            listeners: Listeners::new(&config.listen, Instant::now()),
            direct: HashMap::new(),
            places,
            reachability: Reachability::new(&config.announce),
            is_relay: config.is_relay,
            status,
            clock: Arc::clone(&state.clock),
        };
        host.status.send_replace(PeerStatus::default());
        for address in &config.announce {
            host.swarm.add_external_address(address.clone());
        }
        host.advance();
        host.settle_relays();
        let leading: Vec<_> = config.bootstrap.iter().chain(&config.known).collect();
        host.bootstrap(&leading);
        Ok((host, arrived))
    }

    /// Listens where it is time to try.
    fn advance(&mut self) {
        self.listeners.advance(&mut self.swarm, Instant::now());
        self.show();
    }

    /// Goes to the nodes that the settings name: they tell where others are, and tell others where this node is. So
    /// nodes that know only one node in common find each other.
    fn bootstrap(&mut self, addresses: &[&Multiaddr]) {
        for &address in addresses {
            match peer_of(address) {
                Some(peer) => {
                    let kademlia = &mut self.swarm.behaviour_mut().kademlia;
                    kademlia.add_address(&peer, address.clone());
                }
                None => tracing::warn!(%address, "address of a node without /p2p/ and an id"),
            }
        }
        if !addresses.is_empty() {
            // Fails only when there is nobody, which was said above.
            let _ = self.swarm.behaviour_mut().kademlia.bootstrap();
        }
    }

    /// Runs until it is told to stop.
    pub(super) async fn run(
        mut self,
        state: &State,
        commands: &mut mpsc::Receiver<Command>,
        run: &Run,
    ) -> Result<(), WorkerError> {
        let mut save = tokio::time::interval(SAVE);
        save.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let stopped = run.stopping();
        tokio::pin!(stopped);
        loop {
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                command = commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return Ok(()),
                },
                _ = save.tick() => self.save(state).await,
                () = until(self.listeners.due()) => self.advance(),
                () = &mut stopped => {
                    self.save(state).await;
                    return Ok(());
                }
            }
        }
    }

    async fn save(&mut self, state: &State) {
        let Some(row) = self.book.take_changes() else {
            return;
        };
        let batch = Batch::new().put(tables::NODE, ADDRESSES_ROW.to_vec(), row);
        if let Err(error) = state.store.commit(batch).await {
            tracing::debug!(%error, "addresses of peers were not written down");
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Open(peer, reply) => self.open(peer, reply),
            Command::Know(peer, address) => self.know(peer, address),
            Command::Publish(key, value) => {
                let record = kad::Record::new(key.to_vec(), value.to_vec());
                let kademlia = &mut self.swarm.behaviour_mut().kademlia;
                if let Err(error) = kademlia.put_record(record, kad::Quorum::One) {
                    tracing::debug!(%error, "a record was not published");
                }
            }
            Command::Find(key, found) => {
                let kademlia = &mut self.swarm.behaviour_mut().kademlia;
                let query = kademlia.get_record(kad::RecordKey::new(&key));
                self.finds.insert(query, found);
            }
        }
    }

    fn open(&mut self, peer: PeerId, reply: Reply) {
        let Err(reply) = self.swarm.behaviour_mut().http.open(peer, reply) else {
            return;
        };
        let waiting = self.waiting.entry(peer).or_default();
        waiting.replies.retain(|reply| !reply.is_closed());
        if waiting.replies.len() >= MAX_WAITING {
            let full = NotOpened::NotConnected("too many requests wait for it".to_owned());
            drop(reply.send(Err(full)));
            return;
        }
        waiting.replies.push(reply);
        if waiting.replies.len() > 1 {
            // Somebody is dialing already.
            return;
        }
        waiting.has_asked = false;
        self.dial(peer, self.book.of(&peer));
    }

    /// Dials a peer at these addresses and those the routing table has, or asks the network when there are none.
    fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let options = DialOpts::peer_id(peer)
            .addresses(addresses)
            .extend_addresses_through_behaviour()
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .build();
        match self.swarm.dial(options) {
            // Whoever dials already will tell.
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => self.search(peer, &error),
        }
    }

    /// Asks the network where a peer is, once; gives up after that.
    fn search(&mut self, peer: PeerId, error: &DialError) {
        let Some(waiting) = self.waiting.get_mut(&peer) else {
            return;
        };
        let kademlia = &mut self.swarm.behaviour_mut().kademlia;
        let has_table = kademlia.kbuckets().any(|bucket| bucket.num_entries() > 0);
        if has_table && !std::mem::replace(&mut waiting.has_asked, true) {
            let query = kademlia.get_closest_peers(peer);
            self.searches.insert(query, peer);
            return;
        }
        self.give_up(peer, &words::not_dialed(error));
    }

    fn give_up(&mut self, peer: PeerId, why: &str) {
        for reply in self.waiting.remove(&peer).unwrap_or_default().replies {
            drop(reply.send(Err(NotOpened::NotConnected(why.to_owned()))));
        }
    }

    /// Takes an address that somebody told.
    fn know(&mut self, peer: PeerId, address: Multiaddr) {
        if peer != *self.swarm.local_peer_id() && self.gate.lets_pass(&address) {
            self.book.insert(peer, address);
        }
    }

    fn on_event(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::NewListenAddr {
                listener_id,
                address,
            } => {
                tracing::debug!(%address, "listening for peers");
                self.listeners.opened(listener_id, address, Instant::now());
                self.show();
            }
            SwarmEvent::ExpiredListenAddr {
                listener_id,
                address,
            } => {
                self.listeners.expired(listener_id, &address);
                self.show();
            }
            SwarmEvent::ListenerClosed {
                listener_id,
                reason,
                ..
            } => {
                self.listeners.closed(listener_id, reason, Instant::now());
                self.settle_relays();
            }
            SwarmEvent::ConnectionEstablished {
                peer_id, endpoint, ..
            } => self.on_connected(peer_id, &endpoint),
            SwarmEvent::ConnectionClosed {
                peer_id, endpoint, ..
            } => {
                if !endpoint.is_relayed()
                    && let Some(count) = self.direct.get_mut(&peer_id)
                {
                    *count = count.saturating_sub(1);
                    if *count == 0 {
                        self.direct.remove(&peer_id);
                    }
                }
                if !self.swarm.is_connected(&peer_id) {
                    self.on_gone(&peer_id);
                }
                self.count();
            }
            SwarmEvent::OutgoingConnectionError {
                peer_id: Some(peer),
                error,
                ..
            } => {
                tracing::debug!(%peer, %error, "a peer could not be dialed");
                if let DialError::WrongPeerId { obtained, address } = &error {
                    self.on_other(*obtained, address.clone());
                }
                if !self.swarm.is_connected(&peer) {
                    self.listeners
                        .unreachable(&peer, &words::not_dialed(&error));
                    self.search(peer, &error);
                }
            }
            SwarmEvent::ExternalAddrConfirmed { address } => self.on_confirmed(&address),
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            _ => {}
        }
    }

    /// Another node answers where one was dialed; perhaps the same one with a new identity. It is the first to ask for
    /// the record that says so.
    fn on_other(&mut self, obtained: PeerId, mut address: Multiaddr) {
        if matches!(address.iter().last(), Some(Protocol::P2p(_))) {
            address.pop();
        }
        let is_direct = address.iter().all(|part| part != Protocol::P2pCircuit);
        if is_direct && obtained != *self.swarm.local_peer_id() && self.gate.lets_pass(&address) {
            self.book.insert(obtained, address.clone());
            let kademlia = &mut self.swarm.behaviour_mut().kademlia;
            kademlia.add_address(&obtained, address);
        }
    }

    fn on_connected(&mut self, peer: PeerId, endpoint: &ConnectedPoint) {
        if !endpoint.is_relayed() {
            *self.direct.entry(peer).or_default() += 1;
        }
        self.count();
        if let ConnectedPoint::Dialer { address, .. } = endpoint
            && !endpoint.is_relayed()
        {
            // It has just worked.
            self.book.insert(peer, address.clone());
        }
        if !endpoint.is_relayed() {
            let now = Instant::now();
            self.listeners.connected(&peer, &mut self.swarm, now);
        }
        for reply in self.waiting.remove(&peer).unwrap_or_default().replies {
            if let Err(reply) = self.swarm.behaviour_mut().http.open(peer, reply) {
                drop(reply.send(Err(NotOpened::Closed)));
            }
        }
    }

    fn count(&self) {
        let connected = self.swarm.connected_peers().count();
        let relayed = connected.saturating_sub(self.direct.len());
        self.status.send_modify(|status| {
            status.connected = connected;
            status.relayed = relayed;
        });
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.on_identified(peer_id, info);
            }
            BehaviourEvent::Kademlia(event) => self.on_kademlia(event),
            BehaviourEvent::Verdict(event) => self.on_verdict(event),
            // A cable was pulled, or the peer lost power: nothing else tells that a connection is dead.
            BehaviourEvent::Ping(ping::Event {
                peer,
                connection,
                result: Err(ping::Failure::Timeout),
            }) => {
                tracing::debug!(%peer, "a connection is dead");
                self.swarm.close_connection(connection);
            }
            BehaviourEvent::HolePunching(event) => {
                tracing::debug!(peer = %event.remote_peer_id, is_direct = event.result.is_ok(), "hole punching");
            }
            _ => {}
        }
    }

    fn on_identified(&mut self, peer: PeerId, info: identify::Info) {
        self.on_offer(peer, &info);
        let is_server = info.protocols.contains(&KADEMLIA);
        for address in info.listen_addrs.into_iter().take(MAX_ADDRESSES) {
            if !self.gate.lets_pass(&address) {
                continue;
            }
            self.book.insert(peer, address.clone());
            if is_server {
                let kademlia = &mut self.swarm.behaviour_mut().kademlia;
                kademlia.add_address(&peer, address);
            }
        }
    }
}

/// Waits for a moment, or for ever.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Reads the addresses of before.
pub(super) async fn known_addresses(state: &State) -> Option<Bytes> {
    state.store.get(tables::NODE, ADDRESSES_ROW).await.ok()?
}
