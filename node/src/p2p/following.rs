//! Requests to a node under an id that it no longer has (Spec: 11 §2.4, §5 step 4).
//!
//! People's claims, settings and rows name nodes by id and stay as they are when a node takes a new identity. So everybody
//! in this node who asks another one does it through [`Following`]: when nobody can be reached under an id, its signed
//! record is looked for, and when that says that the node has moved on, the request goes to where it says.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use parking_lot::Mutex;

use super::{Body, PeerError, PeerId, Peers, body::lend, successor};
use crate::clock::Clock;

/// Most ids that are remembered, of those that moved on and of those that were looked for in vain (Spec: 11 §5).
const MAX_REMEMBERED: usize = 100;
/// Time in which an id that was looked for in vain is not looked for again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// The way to other nodes, whatever identity they have taken meanwhile.
#[derive(Debug)]
pub(crate) struct Following {
    peers: Arc<dyn Peers>,
    clock: Arc<dyn Clock>,
    /// Ids that moved on, by a verified record, which is never taken back; and where to.
    moved: Mutex<HashMap<PeerId, PeerId>>,
    /// When ids were looked for in vain.
    looked: Mutex<HashMap<PeerId, Instant>>,
}

impl Following {
    pub(crate) fn new(peers: Arc<dyn Peers>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            peers,
            clock,
            moved: Mutex::default(),
            looked: Mutex::default(),
        })
    }

    /// Returns the newest id that is known of a peer.
    fn newest(&self, peer: &PeerId) -> PeerId {
        let moved = self.moved.lock();
        let mut newest = *peer;
        // Each step was verified, so there is no circle; whatever happens, this ends.
        for _ in 0..moved.len() {
            match moved.get(&newest) {
                Some(next) => newest = *next,
                None => break,
            }
        }
        newest
    }

    /// Looks for the identity that follows an id nobody is reached under.
    async fn look(&self, peer: &PeerId) -> Option<PeerId> {
        let now = Instant::now();
        {
            let mut looked = self.looked.lock();
            looked.retain(|_, when| now.duration_since(*when) < LOOK_AGAIN);
            if looked.contains_key(peer) {
                return None;
            }
            // Noted before, so that requests side by side do not all look.
            if looked.len() < MAX_REMEMBERED {
                looked.insert(*peer, now);
            }
        }
        let next = successor(&*self.peers, peer, self.clock.now_seconds()).await?;
        self.looked.lock().remove(peer);
        let mut moved = self.moved.lock();
        if moved.len() >= MAX_REMEMBERED {
            moved.clear();
        }
        moved.insert(*peer, next);
        tracing::info!(%peer, %next, "a node has a new identity");
        Some(next)
    }
}

#[async_trait]
impl Peers for Following {
    async fn call(
        &self,
        peer: &PeerId,
        request: Request<Body>,
    ) -> Result<Response<Body>, PeerError> {
        let newest = self.newest(peer);
        let (parts, body) = request.into_parts();
        let (body, loan) = lend(body);
        let first = Request::from_parts(parts.clone(), body);
        let error = match self.peers.call(&newest, first).await {
            Err(error @ PeerError::Unreachable { .. }) => error,
            outcome => return outcome,
        };
        // Nothing was sent. Another request may have found out meanwhile.
        let next = match self.newest(&newest) {
            next if next != newest => Some(next),
            _ => self.look(&newest).await,
        };
        match (next, loan.back()) {
            (Some(next), Some(body)) => {
                let again = Request::from_parts(parts, body);
                self.peers.call(&next, again).await
            }
            _ => Err(error),
        }
    }

    async fn identity_record(&self, peer: &PeerId) -> Vec<Bytes> {
        self.peers.identity_record(peer).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use libp2p::identity::Keypair;

    use super::*;
    use crate::{
        clock::ManualClock,
        p2p::{ask, collect, full, rotated},
    };

    const NOW: i64 = 1_795_305_600;

    /// One node is reached, and records are known.
    #[derive(Debug, Default)]
    struct World {
        reached: Option<PeerId>,
        records: HashMap<PeerId, Bytes>,
        asked: Mutex<Vec<PeerId>>,
        looked: AtomicUsize,
        is_refusing: bool,
    }

    #[async_trait]
    impl Peers for World {
        async fn call(
            &self,
            peer: &PeerId,
            request: Request<Body>,
        ) -> Result<Response<Body>, PeerError> {
            self.asked.lock().push(*peer);
            if Some(*peer) == self.reached {
                // The whole body arrives, also the second time it is sent.
                let body = collect(request.into_body(), 100).await?;
                return Ok(Response::new(full(body)));
            }
            if self.is_refusing {
                return Err(PeerError::TimedOut(*peer));
            }
            let reason = "nobody is there".to_owned();
            Err(PeerError::Unreachable {
                peer: *peer,
                reason,
            })
        }

        async fn identity_record(&self, peer: &PeerId) -> Vec<Bytes> {
            self.looked.fetch_add(1, Ordering::SeqCst);
            self.records.get(peer).cloned().into_iter().collect()
        }
    }

    fn keys<const N: usize>() -> ([Keypair; N], [PeerId; N]) {
        let keys = std::array::from_fn(|_| Keypair::generate_ed25519());
        let ids = std::array::from_fn(|at: usize| {
            let key: &Keypair = &keys[at];
            PeerId::from(key.public().to_peer_id())
        });
        (keys, ids)
    }

    fn moved(key: &Keypair, next: PeerId) -> Bytes {
        rotated(key, None, next, NOW).unwrap().into()
    }

    fn following(world: World) -> (Arc<World>, Arc<Following>) {
        let world = Arc::new(world);
        let clock = Arc::new(ManualClock::at(NOW * 1000));
        let following = Following::new(Arc::clone(&world) as _, clock);
        (world, following)
    }

    #[tokio::test]
    async fn a_node_is_asked_under_its_new_identity_and_looked_for_once() {
        let (keys, [old, middle, new]) = keys();
        let (world, following) = following(World {
            reached: Some(new),
            records: HashMap::from([
                (old, moved(&keys[0], middle)),
                (middle, moved(&keys[1], new)),
            ]),
            ..World::default()
        });
        for _ in 0..3 {
            let answer = ask(&*following, &old, "/x", "a body", 100).await.unwrap();
            assert_eq!(answer, "a body");
        }
        assert_eq!(*world.asked.lock(), [old, new, new, new]);
        assert_eq!(world.looked.load(Ordering::SeqCst), 3);
        // Under the id it has now as well.
        ask(&*following, &new, "/x", "", 100).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_is_away_and_has_not_moved_is_not_looked_for_all_the_time() {
        let (_, [away]) = keys::<1>();
        let (world, following) = following(World::default());
        for _ in 0..5 {
            let error = ask(&*following, &away, "/x", "", 100).await.unwrap_err();
            assert!(matches!(error, PeerError::Unreachable { .. }), "{error}");
        }
        assert_eq!(world.looked.load(Ordering::SeqCst), 1);
        assert_eq!(*world.asked.lock(), [away; 5]);
    }

    #[tokio::test]
    async fn what_may_have_been_sent_is_not_sent_again() {
        let (keys, [old, new]) = keys();
        let (world, following) = following(World {
            reached: Some(new),
            records: HashMap::from([(old, moved(&keys[0], new))]),
            is_refusing: true,
            ..World::default()
        });
        let error = ask(&*following, &old, "/x", "", 100).await.unwrap_err();
        assert!(matches!(error, PeerError::TimedOut(_)), "{error}");
        assert_eq!(*world.asked.lock(), [old]);
    }

    #[tokio::test]
    async fn p2p_8_a_record_of_somebody_else_leads_nowhere() {
        let (keys, [old, new]) = keys();
        let (world, following) = following(World {
            reached: Some(new),
            records: HashMap::from([(old, moved(&keys[1], new))]),
            ..World::default()
        });
        assert!(ask(&*following, &old, "/x", "", 100).await.is_err());
        assert_eq!(*world.asked.lock(), [old]);
    }
}
