//! Challenges that security keys have yet to answer: single use, short-lived, in memory (Spec: 08 §4.1), or in the
//! store when other processes share it: the answer may come to another one than the question.
//!
//! Several are open at once, so nobody who can ask for one disturbs a log-in that is under way (LOG-3).

use std::collections::HashMap;

use parking_lot::Mutex;
use pki::username::Username;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{
    error::Refusal,
    random::random,
    store::{Batch, MetaStore, tables},
    webauthn::Challenge,
};

/// Challenges of one user that may be open at once.
const MAX_CHALLENGES: usize = 5;
/// Users whose challenges are kept.
const MAX_CHALLENGED: usize = 20_000;
/// How long a challenge is good for.
const CHALLENGE_MILLIS: i64 = 600_000;

/// Open challenges by user.
#[derive(Debug, Default)]
pub(crate) struct Challenges(Mutex<HashMap<Username, Vec<OpenChallenge>>>);

#[derive(Debug)]
struct OpenChallenge {
    challenge: Challenge,
    made_millis: i64,
}

impl OpenChallenge {
    const fn is_fresh(&self, now_millis: i64) -> bool {
        now_millis.saturating_sub(self.made_millis) < CHALLENGE_MILLIS
    }
}

impl Challenges {
    /// Opens a challenge where all processes of `store` find it.
    pub(crate) async fn start(
        &self,
        store: &dyn MetaStore,
        name: &Username,
        now_millis: i64,
    ) -> Result<Challenge, Refusal> {
        if !store.is_shared() {
            return Ok(self.open(name, now_millis));
        }
        let challenge = Challenge(random());
        let prefix = shared_prefix(name);
        let mut open = store.scan(tables::CHALLENGES, &prefix, None, 100).await?;
        open.sort_by(|(_, a), (_, b)| a.cmp(b));
        let newest = open.last().map_or(0, |(_, row)| order(row));
        let mut batch = Batch::new();
        let spare = (open.len() + 1).saturating_sub(MAX_CHALLENGES);
        for (at, (key, made)) in open.into_iter().enumerate() {
            if at < spare || !is_shared_fresh(&made, now_millis) {
                batch = batch.remove(tables::CHALLENGES, key);
            }
        }
        let batch = batch.put(
            tables::CHALLENGES,
            shared_key(name, &challenge),
            [now_millis.to_be_bytes(), (newest + 1).to_be_bytes()].concat(),
        );
        let _ = store.commit(batch).await?;
        Ok(challenge)
    }

    /// Closes an open challenge and returns it, whichever process of `store` opened it.
    pub(crate) async fn finish(
        &self,
        store: &dyn MetaStore,
        name: &Username,
        presented: &Challenge,
        now_millis: i64,
    ) -> Result<Option<Challenge>, Refusal> {
        if !store.is_shared() {
            return Ok(self.take(name, presented, now_millis));
        }
        let key = shared_key(name, presented);
        let Some(made) = store.get(tables::CHALLENGES, &key).await? else {
            return Ok(None);
        };
        let is_fresh = is_shared_fresh(&made, now_millis);
        let batch = Batch::new()
            .expect(tables::CHALLENGES, key.clone(), Some(made))
            .remove(tables::CHALLENGES, key);
        let is_first = store.commit(batch).await?.is_committed();
        Ok((is_first && is_fresh).then_some(*presented))
    }

    /// Opens a challenge; the oldest one of the user goes when there are too many.
    fn open(&self, name: &Username, now_millis: i64) -> Challenge {
        let challenge = Challenge(random());
        let mut users = self.0.lock();
        if users.len() >= MAX_CHALLENGED && !users.contains_key(name) {
            users.retain(|_, open| open.iter().any(|open| open.is_fresh(now_millis)));
            if users.len() >= MAX_CHALLENGED {
                users.clear();
            }
        }
        let open = users.entry(name.clone()).or_default();
        open.retain(|open| open.is_fresh(now_millis));
        if open.len() >= MAX_CHALLENGES {
            open.remove(0);
        }
        open.push(OpenChallenge {
            challenge,
            made_millis: now_millis,
        });
        challenge
    }

    /// Closes an open challenge and returns it; `None` for one that was not given to this user, was used or is too old.
    fn take(&self, name: &Username, presented: &Challenge, now_millis: i64) -> Option<Challenge> {
        let mut users = self.0.lock();
        let open = users.get_mut(name)?;
        open.retain(|open| open.is_fresh(now_millis));
        let found = open.iter().fold(None, |found, open| {
            let is_it = bool::from(open.challenge.0.ct_eq(&presented.0));
            if is_it { Some(open.challenge) } else { found }
        });
        open.retain(|open| Some(open.challenge) != found);
        if open.is_empty() {
            users.remove(name);
        }
        found
    }
}

fn shared_prefix(name: &Username) -> Vec<u8> {
    [name.as_str().as_bytes(), &[0]].concat()
}

/// Returns the row of a challenge: its digest, so that the time of a look-up tells nothing about others.
fn shared_key(name: &Username, challenge: &Challenge) -> Vec<u8> {
    let mut key = shared_prefix(name);
    key.extend_from_slice(&Sha256::digest(challenge.0));
    key
}

fn is_shared_fresh(made: &[u8], now_millis: i64) -> bool {
    made.first_chunk().is_some_and(|made| {
        let age = now_millis.saturating_sub(i64::from_be_bytes(*made));
        // One of the future was made before the clock was set back.
        age.saturating_abs() < CHALLENGE_MILLIS
    })
}

/// Returns what tells the order of challenges of the same moment.
fn order(row: &[u8]) -> i64 {
    let order = row.get(8..).and_then(|rest| rest.first_chunk());
    order.map_or(0, |order| i64::from_be_bytes(*order))
}

/// Returns true for a stored challenge that nobody can answer any more.
pub(crate) fn is_stored_stale(made: &[u8], now_millis: i64) -> bool {
    !is_shared_fresh(made, now_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Username {
        text.parse().unwrap()
    }

    #[test]
    fn log_3_a_challenge_works_once_for_its_user_within_ten_minutes() {
        let challenges = Challenges::default();
        let (alice, bob) = (name("alice"), name("bob"));
        let first = challenges.open(&alice, 0);
        let second = challenges.open(&alice, 1);
        assert_ne!(first, second);
        assert_eq!(challenges.take(&bob, &first, 2), None);
        assert_eq!(challenges.take(&alice, &Challenge([0; 32]), 2), None);
        assert_eq!(challenges.take(&alice, &first, 2), Some(first));
        assert_eq!(challenges.take(&alice, &first, 2), None);
        assert_eq!(challenges.take(&alice, &second, CHALLENGE_MILLIS + 1), None);
        let third = challenges.open(&alice, 0);
        assert_eq!(
            challenges.take(&alice, &third, CHALLENGE_MILLIS - 1),
            Some(third)
        );
        assert!(challenges.0.lock().is_empty());
    }

    #[tokio::test]
    async fn log_3_a_challenge_of_one_process_is_answered_at_another_once() {
        let store = crate::store::SharedMemory::default();
        let (one, other) = (Challenges::default(), Challenges::default());
        let (alice, bob) = (name("alice"), name("bob"));
        let first = one.start(&store, &alice, 0).await.unwrap();
        let finish = async |at: &Challenges, name: &Username, challenge: &Challenge, now| {
            at.finish(&store, name, challenge, now).await.unwrap()
        };
        assert_eq!(finish(&other, &bob, &first, 1).await, None);
        assert_eq!(finish(&other, &alice, &first, 1).await, Some(first));
        assert_eq!(finish(&one, &alice, &first, 1).await, None);
        let old = one.start(&store, &alice, 0).await.unwrap();
        assert_eq!(finish(&other, &alice, &old, CHALLENGE_MILLIS).await, None);
        // The sixth displaces the first, also within one moment.
        let mut open = Vec::new();
        for n in 0..6 {
            let at = if n % 2 == 0 { &one } else { &other };
            open.push(at.start(&store, &alice, 7).await.unwrap());
        }
        for (n, challenge) in open.iter().enumerate() {
            let found = finish(&other, &alice, challenge, 8).await;
            assert_eq!(found.is_some(), n > 0, "{n}");
        }
    }

    #[test]
    fn dos_12_open_challenges_are_bounded() {
        let challenges = Challenges::default();
        let alice = name("alice");
        let made: Vec<_> = (0..7).map(|_| challenges.open(&alice, 0)).collect();
        for (n, challenge) in made.iter().enumerate() {
            assert_eq!(challenges.take(&alice, challenge, 0).is_some(), n >= 2);
        }
        for n in 0..=MAX_CHALLENGED {
            challenges.open(&name(&format!("user{n}")), 0);
        }
        assert!(challenges.0.lock().len() <= MAX_CHALLENGED);
    }
}
