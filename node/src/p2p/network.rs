//! The way to other nodes over libp2p: limits, deadlines and retries around one exchange (Spec: 11 §4.3).

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use libp2p::{Multiaddr, Stream, identity::Keypair};
use parking_lot::Mutex;
use pki::node_identity::Resolution;
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};
use tokio_util::compat::FuturesAsyncReadCompatExt as _;

use super::{
    Body, PeerError, PeerId, Peers,
    exchange::{exchange, exchange_time, prepare},
    host::{Command, Host, known_addresses},
    records,
    respond::respond,
    status::PeerStatus,
    streams::{Arrived, NotOpened},
};
use crate::{
    http::Hosts,
    state::State,
    store::{Batch, tables},
    workers::{Run, WorkerError},
};

/// Orders that wait for the task that owns the swarm.
const MAX_ORDERS: usize = 1024;
/// Exchanges with one peer that this node begins and that are at work.
const MAX_AT_ONCE: usize = 50;
/// Longest time to connect to a peer and open a stream.
const CONNECT: Duration = Duration::from_secs(10);
/// Exchanges in a row that end by the clock before a peer is left alone for a while.
const MAX_TIMEOUTS: u32 = 3;
/// How long it is left alone.
const COOL_DOWN: Duration = Duration::from_secs(30);
/// Peers that are remembered for this.
const MAX_REMEMBERED: usize = 1024;
/// How often identity records are published.
const PUBLISH: Duration = Duration::from_secs(6 * 3600);
/// Wait before they are published for the second time: at the first one the routing table was empty, and only this node
/// has them.
const SECOND_PUBLISH: Duration = Duration::from_secs(60);
/// Longest search for the identity record of another node.
const FIND: Duration = Duration::from_secs(10);
/// Most copies of a record that are looked at.
const MAX_COPIES: usize = 32;

/// A handle to the network.
pub(crate) struct Network {
    commands: mpsc::Sender<Command>,
    own: Vec<PeerId>,
    peers: Mutex<HashMap<PeerId, Arc<Peer>>>,
    status: watch::Receiver<PeerStatus>,
    id: PeerId,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What is known of how a peer does.
struct Peer {
    seats: Arc<Semaphore>,
    timeouts: AtomicU32,
    rests_until: Mutex<Option<Instant>>,
}

impl Peer {
    fn new() -> Self {
        Self {
            seats: Arc::new(Semaphore::new(MAX_AT_ONCE)),
            timeouts: AtomicU32::new(0),
            rests_until: Mutex::new(None),
        }
    }

    fn rests(&self) -> bool {
        self.rests_until
            .lock()
            .is_some_and(|until| Instant::now() < until)
    }

    fn note<T>(&self, outcome: &Result<T, PeerError>) {
        match outcome {
            Err(PeerError::TimedOut(_)) => {
                if self.timeouts.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_TIMEOUTS {
                    self.timeouts.store(0, Ordering::Relaxed);
                    *self.rests_until.lock() = Some(Instant::now() + COOL_DOWN);
                }
            }
            Ok(_) => self.timeouts.store(0, Ordering::Relaxed),
            Err(_) => {}
        }
    }
}

/// Starts to take part in the network: one worker that owns the swarm, one that publishes who this node is, and who it
/// was before, by the keys of identities that it has no more.
pub(crate) fn start(
    state: &Arc<State>,
    hosts: &Arc<Hosts>,
    key: Keypair,
    before: Vec<Keypair>,
) -> Arc<Network> {
    let (commands, orders) = mpsc::channel(MAX_ORDERS);
    let (status, seen) = watch::channel(PeerStatus::default());
    let own = state.identity.all().iter();
    let network = Arc::new(Network {
        commands,
        own: own.filter_map(|id| PeerId::from_cid(id).ok()).collect(),
        peers: Mutex::default(),
        status: seen,
        id: key.public().to_peer_id().into(),
    });
    let orders = Arc::new(tokio::sync::Mutex::new(orders));
    let (shared, hosts) = (Arc::clone(state), Arc::clone(hosts));
    let signing: Arc<[Keypair]> = [key.clone()].into_iter().chain(before).collect();
    state.workers.spawn("p2p", move |run| {
        let (state, hosts) = (Arc::clone(&shared), Arc::clone(&hosts));
        let (key, status, orders) = (key.clone(), status.clone(), Arc::clone(&orders));
        async move {
            let known = known_addresses(&state).await;
            let (host, arrived) = Host::new(&key, &state, known.as_deref(), status)?;
            let mut orders = orders.lock().await;
            let serving = tokio::spawn(serve(Arc::clone(&state), hosts, arrived));
            let outcome = host.run(&state, &mut orders, &run).await;
            serving.abort();
            outcome
        }
    });
    let (shared, publisher) = (Arc::clone(state), Arc::clone(&network));
    state.workers.spawn("p2p records", move |run| {
        let (state, network, keys) = (
            Arc::clone(&shared),
            Arc::clone(&publisher),
            Arc::clone(&signing),
        );
        async move { publish(&state, &network, &keys, &run).await }
    });
    network
}

/// Answers whatever arrives.
async fn serve(state: Arc<State>, hosts: Arc<Hosts>, mut arrived: mpsc::Receiver<Arrived>) {
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let Arrived {
            peer,
            stream,
            place,
        } = tokio::select! {
            next = arrived.recv() => match next {
                Some(next) => next,
                None => return,
            },
            Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
        };
        let (state, hosts) = (Arc::clone(&state), Arc::clone(&hosts));
        tasks.spawn(async move {
            let stream = stream.compat();
            if let Err(error) = respond(&state, &hosts, peer.into(), stream).await {
                tracing::debug!(%error, "a request of a peer was not answered");
            }
            drop(place);
        });
    }
}

/// Keeps the records of all own ids signed, and publishes them.
async fn publish(
    state: &State,
    network: &Network,
    keys: &[Keypair],
    run: &Run,
) -> Result<(), WorkerError> {
    let mut wait = SECOND_PUBLISH;
    loop {
        for key in keys {
            let id = PeerId::from(key.public().to_peer_id());
            let record = own_record(state, id, key).await?;
            network.publish(&id, record).await;
        }
        if !run.pause(wait).await {
            return Ok(());
        }
        wait = PUBLISH;
    }
}

/// Returns the stored record of an own id, signed anew when it is missing or ageing.
async fn own_record(state: &State, id: PeerId, key: &Keypair) -> Result<Bytes, WorkerError> {
    let now = state.clock.now_seconds();
    let row = record_row(&id);
    let stored = state.store.get(tables::NODE, &row).await?;
    let before = stored
        .as_ref()
        .and_then(|record| records::IdentityRecord::of_own(&id, record));
    if let (Some(stored), Some(before)) = (&stored, &before)
        && !before.is_ageing(now)
    {
        return Ok(stored.clone());
    }
    let resolution = match before {
        Some(before) => before.resolution.renewed(),
        None => Resolution::first(),
    };
    let record =
        records::sign(key, &resolution, now).ok_or("the identity record was not signed")?;
    let record = Bytes::from(record);
    let batch = Batch::new().expect(tables::NODE, row.clone(), stored).put(
        tables::NODE,
        row,
        record.clone(),
    );
    // Whoever was faster has signed one as good.
    let _ = state.store.commit(batch).await?;
    Ok(record)
}

/// Returns the row that holds the identity record of an own id.
pub(crate) fn record_row(id: &PeerId) -> Vec<u8> {
    [b"identity record ".as_slice(), &id.to_bytes()].concat()
}

/// Returns the stored identity record of an own id.
pub(crate) async fn stored_record(
    state: &State,
    id: &PeerId,
) -> Result<Option<records::IdentityRecord>, crate::error::Refusal> {
    let now = state.clock.now_seconds();
    let stored = state.store.get(tables::NODE, &record_row(id)).await?;
    Ok(stored.and_then(|record| records::IdentityRecord::check(id, &record, now).ok()))
}

impl Network {
    /// Returns the addresses that others can dial, each with the node's id, once listening has begun.
    pub(crate) async fn addresses(&self) -> Vec<Multiaddr> {
        let status = self.when(|status| status.is_up).await.unwrap_or_default();
        let id = libp2p::PeerId::from_bytes(&self.id.to_bytes());
        let open = status.places.into_iter().flat_map(|place| place.open);
        open.map(|address| match &id {
            // One behind a relay ends in it already.
            Ok(id) => address.with_p2p(*id).unwrap_or_else(|address| address),
            Err(_) => address,
        })
        .collect()
    }

    /// Returns how it stands with the network.
    pub(crate) fn status(&self) -> PeerStatus {
        self.status.borrow().clone()
    }

    /// Waits until something is so; `None` when the node has stopped before.
    pub(crate) async fn when(
        &self,
        is_so: impl FnMut(&PeerStatus) -> bool + Send,
    ) -> Option<PeerStatus> {
        let mut status = self.status.clone();
        let found = status.wait_for(is_so).await.ok()?;
        Some(found.clone())
    }

    /// Puts the signed record of an own id into the network. It is at hand here at once; others get it as far as they can be
    /// reached.
    pub(crate) async fn publish(&self, id: &PeerId, record: Bytes) {
        let order = Command::Publish(records::key_of(id).into(), record);
        let _ = self.commands.send(order).await;
    }

    /// Takes an address of a peer, as if the network had told it.
    pub(crate) async fn know(&self, peer: &PeerId, address: Multiaddr) {
        let order = Command::Know(*peer.as_libp2p(), address);
        let _ = self.commands.send(order).await;
    }

    fn peer(&self, peer: &PeerId) -> Arc<Peer> {
        let mut peers = self.peers.lock();
        if peers.len() >= MAX_REMEMBERED && !peers.contains_key(peer) {
            peers.retain(|_, peer| Arc::strong_count(peer) > 1 || peer.rests());
        }
        Arc::clone(peers.entry(*peer).or_insert_with(|| Arc::new(Peer::new())))
    }

    /// Opens a stream; once more when a connection turned out to be closed.
    async fn open(&self, peer: &PeerId, deadline: Instant) -> Result<Stream, PeerError> {
        let mut tries = 2;
        loop {
            tries -= 1;
            let (reply, opened) = oneshot::channel();
            let order = Command::Open(*peer.as_libp2p(), reply);
            self.commands
                .send(order)
                .await
                .map_err(|_| PeerError::Off)?;
            let opened = timeout_at(deadline, opened)
                .await
                .map_err(|_| PeerError::TimedOut(*peer))?;
            return match opened {
                Ok(Ok(stream)) => Ok(stream),
                Ok(Err(NotOpened::Closed)) | Err(_) if tries > 0 => continue,
                Ok(Err(NotOpened::TimedOut)) => Err(PeerError::TimedOut(*peer)),
                Ok(Err(error)) => Err(PeerError::Unreachable {
                    peer: *peer,
                    reason: error.to_string(),
                }),
                Err(_) => Err(PeerError::Unreachable {
                    peer: *peer,
                    reason: NotOpened::Closed.to_string(),
                }),
            };
        }
    }
}

#[async_trait]
impl Peers for Network {
    async fn call(
        &self,
        peer: &PeerId,
        request: Request<Body>,
    ) -> Result<Response<Body>, PeerError> {
        if self.own.contains(peer) {
            return Err(PeerError::Own(*peer));
        }
        let (request, path) = prepare(peer, request)?;
        let known = self.peer(peer);
        if known.rests() {
            // As if it were asked and did not answer, only sooner: whoever has a copy of what it has may answer.
            return Err(PeerError::TimedOut(*peer));
        }
        let deadline = Instant::now() + exchange_time(&path);
        let seat = timeout_at(deadline, Arc::clone(&known.seats).acquire_owned()).await;
        let Ok(Ok(seat)) = seat else {
            return Err(PeerError::Busy(*peer));
        };
        let connected_by = deadline.min(Instant::now() + CONNECT);
        let stream = match self.open(peer, connected_by).await {
            Ok(stream) => stream.compat(),
            Err(error) => {
                let outcome = Err(error);
                known.note(&outcome);
                return outcome.map_err(|error| match error {
                    // Nothing was sent: it may be reached under another id.
                    PeerError::TimedOut(peer) => PeerError::Unreachable {
                        peer,
                        reason: "it did not answer in time".to_owned(),
                    },
                    error => error,
                });
            }
        };
        let outcome = exchange(stream, *peer, request, deadline, seat).await;
        known.note(&outcome);
        outcome
    }

    async fn identity_record(&self, peer: &PeerId) -> Vec<Bytes> {
        let (found, mut copies) = mpsc::channel(MAX_COPIES);
        let order = Command::Find(records::key_of(peer).into(), found);
        if self.commands.send(order).await.is_err() {
            return Vec::new();
        }
        let mut all = Vec::new();
        let until = Instant::now() + FIND;
        while all.len() < MAX_COPIES {
            match timeout_at(until, copies.recv()).await {
                Ok(Some(copy)) => all.push(copy),
                Ok(None) | Err(_) => break,
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_answers_in_time_is_left_alone_for_a_while() {
        let peer = Peer::new();
        let id = libp2p::PeerId::random().into();
        let late = || Err::<(), _>(PeerError::TimedOut(id));
        peer.note(&late());
        peer.note(&late());
        peer.note(&Ok(()));
        peer.note(&late());
        peer.note(&late());
        assert!(!peer.rests());
        peer.note(&late());
        assert!(peer.rests());
        tokio::time::advance(COOL_DOWN).await;
        assert!(!peer.rests());
    }
}
