//! Proofs of work: what a stranger pays for a new name (Spec: 02 §9, 10 §5).
//!
//! The test looks at the **low** bits of the byte after the zero bytes, not at its leading ones; that is
//! deliberate and what the network does.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use champ::cbor::{Fields, Map, Record, RecordError, Value};
use sha2::{Digest, Sha256};

/// Multihash code of SHA-256, the only proof there is.
const SHA2_256: i64 = 0x12;
/// Length of the prefixes that are written.
pub const PREFIX_BYTES: usize = 8;
/// Longest encoded record an endpoint reads.
pub const MAX_ENCODED_BYTES: usize = 100;
/// Hardest proof a client is willing to compute: about 2^30 hashes.
pub const MAX_CLIENT_DIFFICULTY: Difficulty = Difficulty(30);

/// How many bits of a hash must be zero, 0 to 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Difficulty(u16);

impl Difficulty {
    /// Always satisfied.
    pub const NONE: Self = Self(0);
    /// Never satisfied in practice: no new names.
    pub const IMPOSSIBLE: Self = Self(256);

    /// Checks the range.
    ///
    /// # Errors
    /// [`RecordError::OutOfRange`] outside 0 to 256.
    pub fn try_new(difficulty: i64) -> Result<Self, RecordError> {
        u16::try_from(difficulty)
            .ok()
            .map(Self)
            .filter(|difficulty| *difficulty <= Self::IMPOSSIBLE)
            .ok_or(RecordError::OutOfRange {
                field: "difficulty",
            })
    }

    /// Returns the number of bits.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Returns true when `hash` is good enough.
    pub fn is_met_by(self, hash: &[u8; 32]) -> bool {
        let (whole, rest) = (usize::from(self.0 / 8), self.0 % 8);
        let zeros = hash.iter().take(whole).all(|byte| *byte == 0);
        let low_bits = (1u8 << rest) - 1;
        zeros && hash.get(whole).is_none_or(|byte| byte & low_bits == 0)
    }
}

/// A prefix that makes the hash of some data small: `{"type": 18, "prefix": bytes}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofOfWork {
    prefix: Bytes,
}

impl ProofOfWork {
    /// Returns the empty proof, good for difficulty 0.
    pub const fn empty() -> Self {
        Self {
            prefix: Bytes::new(),
        }
    }

    /// Returns the prefix.
    pub const fn prefix(&self) -> &Bytes {
        &self.prefix
    }

    /// Checks the proof over `data`, the exact bytes received: one hash, whatever the difficulty.
    pub fn is_valid(&self, data: &[u8], difficulty: Difficulty) -> bool {
        difficulty.is_met_by(&hash(&self.prefix, data))
    }
}

impl Record for ProofOfWork {
    fn to_value(&self) -> Value {
        Value::Map(Map::from_iter([
            ("type", Value::Int(SHA2_256)),
            ("prefix", Value::from(self.prefix.clone())),
        ]))
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "proof of work")?;
        if fields.required("type")?.into_int("type")? != SHA2_256 {
            return Err(RecordError::OutOfRange { field: "type" });
        }
        let prefix = fields.required("prefix")?.into_bytes("prefix")?;
        if prefix.len() > MAX_ENCODED_BYTES {
            return Err(RecordError::WrongLength {
                field: "prefix",
                actual: prefix.len(),
            });
        }
        Ok(Self { prefix })
    }
}

/// A search for a proof, in steps, so that whoever runs it can show progress and stop.
#[derive(Debug, Clone)]
pub struct Search {
    data: Vec<u8>,
    difficulty: Difficulty,
    counter: Option<u64>,
}

/// A server asked for more work than [`MAX_CLIENT_DIFFICULTY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server asks for a proof of difficulty {}", .0.bits())]
pub struct TooDifficult(pub Difficulty);

impl Search {
    /// Prepares a search over `data`.
    ///
    /// # Errors
    /// [`TooDifficult`] above [`MAX_CLIENT_DIFFICULTY`]; a server that takes no signups asks for 256.
    pub fn new(data: impl Into<Vec<u8>>, difficulty: Difficulty) -> Result<Self, TooDifficult> {
        if difficulty > MAX_CLIENT_DIFFICULTY {
            return Err(TooDifficult(difficulty));
        }
        Ok(Self {
            data: data.into(),
            difficulty,
            counter: Some(0),
        })
    }

    /// Tries up to `attempts` prefixes, counting up from where the last step stopped.
    pub fn step(&mut self, attempts: u32) -> Option<ProofOfWork> {
        for _ in 0..attempts {
            let counter = self.counter?;
            let prefix = counter.to_le_bytes();
            if self.difficulty.is_met_by(&hash(&prefix, &self.data)) {
                return Some(ProofOfWork {
                    prefix: Bytes::copy_from_slice(&prefix),
                });
            }
            self.counter = counter.checked_add(1);
        }
        None
    }

    /// Returns how many prefixes have been tried.
    pub fn attempts(&self) -> u64 {
        self.counter.unwrap_or(u64::MAX)
    }
}

fn hash(prefix: &[u8], data: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(prefix)
        .chain_update(data)
        .finalize()
        .into()
}

/// Age classes of the rate: bucket i holds the events of 2^i to 2^(i+1) tenths of a second ago.
const BUCKETS: usize = 20;
/// After this many steps every event has left the last bucket.
const FORGOTTEN_AFTER_STEPS: u64 = 1 << (BUCKETS + 1);
const STEP: Duration = Duration::from_millis(100);
/// Steps in a day.
const STEPS_PER_DAY: f64 = 864_000.0;

/// Chooses the difficulty from the recent rate of requests, as official servers do (Spec: 02 §9, 10 §5).
///
/// With an allowance of 0 everything is refused, also when there were no requests lately (the official
/// formula forgets that).
#[derive(Debug, Clone)]
pub struct DifficultyPolicy {
    max_per_day: u32,
    counts: [u32; BUCKETS],
    start: SystemTime,
    step: u64,
}

impl DifficultyPolicy {
    /// Allows about `max_per_day` requests a day before work is asked for.
    pub const fn new(max_per_day: u32, now: SystemTime) -> Self {
        Self {
            max_per_day,
            counts: [0; BUCKETS],
            start: now,
            step: 0,
        }
    }

    /// Writes down what has been counted, so that another process can go on from it.
    pub fn counted(&self) -> Vec<u8> {
        let start = self
            .start
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let start = u64::try_from(start.as_millis()).unwrap_or(u64::MAX);
        let mut bytes = start.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.step.to_be_bytes());
        for count in self.counts {
            bytes.extend_from_slice(&count.to_be_bytes());
        }
        bytes
    }

    /// Goes on from what [`Self::counted`] wrote; the allowance stays. False, and nothing changes, for anything else.
    #[must_use]
    pub fn go_on_from(&mut self, counted: &[u8]) -> bool {
        let Some((start, rest)) = counted.split_first_chunk() else {
            return false;
        };
        let Some((step, rest)) = rest.split_first_chunk() else {
            return false;
        };
        let (counts, extra) = rest.as_chunks::<4>();
        let Ok(counts) = <&[[u8; 4]; BUCKETS]>::try_from(counts) else {
            return false;
        };
        let start = Duration::from_millis(u64::from_be_bytes(*start));
        let Some(start) = SystemTime::UNIX_EPOCH.checked_add(start) else {
            return false;
        };
        if !extra.is_empty() {
            return false;
        }
        self.start = start;
        self.step = u64::from_be_bytes(*step);
        self.counts = counts.map(u32::from_be_bytes);
        true
    }

    /// Counts a request that was served.
    pub fn record(&mut self, now: SystemTime) {
        self.advance(now);
        let [newest, ..] = &mut self.counts;
        *newest = newest.saturating_add(1);
    }

    /// Returns what the next request must show.
    pub fn difficulty(&mut self, now: SystemTime) -> Difficulty {
        self.advance(now);
        if self.max_per_day == 0 {
            return Difficulty::IMPOSSIBLE;
        }
        let mut allowance = f64::from(self.max_per_day) / STEPS_PER_DAY;
        let mut excess = 0.0;
        let mut exceeded = false;
        for count in self.counts.map(f64::from) {
            if count > allowance {
                exceeded = true;
                excess += (2.0 * count / allowance).ln();
            }
            allowance *= 2.0;
        }
        if !exceeded {
            return Difficulty::NONE;
        }
        let bits = excess.mul_add(2.0, 11.0).clamp(0.0, 256.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to 0..=256, and rounding down is the rule"
        )]
        Difficulty(bits as u16)
    }

    /// Ages the counts; a clock that went back changes nothing.
    fn advance(&mut self, now: SystemTime) {
        let elapsed = now.duration_since(self.start).unwrap_or_default();
        let target = u64::try_from(elapsed.as_millis() / STEP.as_millis()).unwrap_or(u64::MAX);
        if target.saturating_sub(self.step) >= FORGOTTEN_AFTER_STEPS {
            self.counts = [0; BUCKETS];
            self.step = target;
        }
        while self.step < target {
            self.step += 1;
            // Bucket i empties into the next one every 2^i steps, the oldest first.
            let step = self.step;
            for i in (0..BUCKETS).rev().filter(|i| step.is_multiple_of(1 << i)) {
                let count = self.counts.get_mut(i).map(std::mem::take).unwrap_or(0);
                if let Some(older) = self.counts.get_mut(i + 1) {
                    *older = older.saturating_add(count);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_is_bounded_and_resumes() {
        let refused = Search::new(*b"x", Difficulty(31)).map(|_| ());
        assert_eq!(refused, Err(TooDifficult(Difficulty(31))));
        assert!(Search::new(*b"x", Difficulty::IMPOSSIBLE).is_err());

        let mut whole = Search::new(*b"x", Difficulty(12)).unwrap();
        let found = whole.step(u32::MAX).unwrap();
        let mut stepped = Search::new(*b"x", Difficulty(12)).unwrap();
        let same = loop {
            if let Some(proof) = stepped.step(7) {
                break proof;
            }
        };
        assert_eq!(found, same);
        assert_eq!(whole.attempts(), stepped.attempts());
        assert!(found.is_valid(b"x", Difficulty(12)));
        assert!(!found.is_valid(b"y", Difficulty(12)));
        let mut none = Search::new(*b"x", Difficulty(30)).unwrap();
        assert_eq!(none.step(10), None);
        assert_eq!(none.attempts(), 10);
    }

    #[test]
    fn difficulty_is_in_range() {
        assert!(Difficulty::try_new(-1).is_err());
        assert!(Difficulty::try_new(257).is_err());
        assert_eq!(Difficulty::try_new(256), Ok(Difficulty::IMPOSSIBLE));
        assert!(Difficulty::NONE.is_met_by(&[0xff; 32]));
        assert!(Difficulty::IMPOSSIBLE.is_met_by(&[0; 32]));
        let mut last = [0; 32];
        last[31] = 0x80;
        assert!(!Difficulty::IMPOSSIBLE.is_met_by(&last));
        assert!(Difficulty(255).is_met_by(&last));
    }

    #[test]
    fn other_codes_and_overlong_prefixes_are_refused() {
        let record = |code: i64, prefix: usize| {
            ProofOfWork::from_value(Value::Map(Map::from_iter([
                ("type", Value::Int(code)),
                ("prefix", Value::from(vec![0; prefix])),
            ])))
        };
        assert!(record(18, 0).is_ok());
        assert!(record(18, 83).is_ok());
        assert!(record(18, 101).is_err());
        assert!(record(0x1e, 8).is_err());
        assert!(record(19, 8).is_err());
    }

    #[test]
    fn nothing_is_allowed_when_the_allowance_is_zero() {
        let start = SystemTime::UNIX_EPOCH;
        let mut policy = DifficultyPolicy::new(0, start);
        assert_eq!(policy.difficulty(start), Difficulty::IMPOSSIBLE);
        let later = start + Duration::from_secs(200_000);
        assert_eq!(policy.difficulty(later), Difficulty::IMPOSSIBLE);
    }

    #[test]
    fn more_requests_never_make_it_easier() {
        let start = SystemTime::UNIX_EPOCH;
        let mut policy = DifficultyPolicy::new(1_000, start);
        let mut last = Difficulty::NONE;
        for _ in 0..200 {
            policy.record(start);
            let next = policy.difficulty(start);
            assert!(next >= last);
            last = next;
        }
        assert!(last > Difficulty(11));
        // A clock set back neither panics nor forgets.
        let before = start - Duration::from_secs(5);
        assert_eq!(policy.difficulty(before), last);
        let forgotten = start + Duration::from_secs(300_000);
        assert_eq!(policy.difficulty(forgotten), Difficulty::NONE);
    }
}
