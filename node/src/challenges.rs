//! Challenges that security keys have yet to answer: single use, short-lived, in memory (Spec: 08 §4.1).
//!
//! Several are open at once, so nobody who can ask for one disturbs a log-in that is under way (LOG-3).

use std::collections::HashMap;

use parking_lot::Mutex;
use pki::username::Username;
use subtle::ConstantTimeEq as _;

use crate::{random::random, webauthn::Challenge};

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
    /// Opens a challenge; the oldest one of the user goes when there are too many.
    pub(crate) fn open(&self, name: &Username, now_millis: i64) -> Challenge {
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
    pub(crate) fn take(
        &self,
        name: &Username,
        presented: &Challenge,
        now_millis: i64,
    ) -> Option<Challenge> {
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
