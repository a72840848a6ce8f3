//! Signed times and signed requests: how a call proves who makes it (Spec: 02 §3.2, 09 head).
//!
//! Order of checks: signature, record, age, path. Hex and the user come before, in the calls.

use bytes::Bytes;
use champ::cbor::{Fields, Value, decode};
use pki::keys::PublicSigningKey;
use sha2::{Digest as _, Sha256};

use crate::{
    error::Refusal,
    state::State,
    store::{Batch, tables},
};

/// Expired authorisations that one new one makes the node forget.
const MAX_FORGOTTEN: usize = 16;

/// How far a signed time may lie from now, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    past: i64,
    future: i64,
}

impl Window {
    /// Five minutes either way.
    pub(crate) const MINUTES_5: Self = Self::both(300_000);
    /// Ten minutes either way.
    pub(crate) const MINUTES_10: Self = Self::both(600_000);
    /// One minute either way.
    pub(crate) const MINUTE: Self = Self::both(60_000);
    /// One hour either way.
    pub(crate) const HOUR: Self = Self::both(3_600_000);
    /// One hour back, five minutes ahead: calls that change an account (Spec: 08 §4).
    pub(crate) const CHANGE: Self = Self {
        past: 3_600_000,
        future: 300_000,
    };
    /// One day either way.
    pub(crate) const DAY: Self = Self::both(86_400_000);

    /// Whenever: for what was checked in time when it came.
    pub(crate) const ANY: Self = Self::both(i64::MAX);

    const fn both(millis: i64) -> Self {
        Self {
            past: millis,
            future: millis,
        }
    }

    /// Checks a time against the clock.
    pub(crate) fn check(self, millis: i64, now_millis: i64) -> Result<(), Refusal> {
        let age = now_millis.saturating_sub(millis);
        if age <= self.past && age >= -self.future {
            Ok(())
        } else {
            Err(Refusal::Stale)
        }
    }
}

/// Verifies a signed time and returns it, in milliseconds since 1970 UTC.
pub(crate) fn signed_time(
    key: &PublicSigningKey,
    signed: &[u8],
    now_millis: i64,
    window: Window,
) -> Result<i64, Refusal> {
    let message = key
        .verify_attached(signed)
        .map_err(|_| Refusal::Signature)?;
    let Ok(Value::Int(millis)) = decode(message) else {
        return Err(Refusal::AuthorisationRecord);
    };
    window.check(millis, now_millis)?;
    Ok(millis)
}

/// Verifies a signed request for exactly `path` and returns its time, in milliseconds since 1970 UTC.
pub(crate) fn signed_request(
    key: &PublicSigningKey,
    signed: &[u8],
    path: &str,
    now_millis: i64,
    window: Window,
) -> Result<i64, Refusal> {
    let message = key
        .verify_attached(signed)
        .map_err(|_| Refusal::Signature)?;
    let (signed_path, millis) = request_record(message).ok_or(Refusal::AuthorisationRecord)?;
    window.check(millis, now_millis)?;
    if signed_path != path {
        return Err(Refusal::AuthorisationPath(printable(&signed_path)));
    }
    Ok(millis)
}

/// Uses up an authorisation that was verified for [`Window::CHANGE`]: nobody who saw it can use it again for
/// other arguments of the same call (Spec: 08 §4). Kept on stable storage until its window has passed.
///
/// # Errors
/// [`Refusal::Rule`] for the second use.
pub(crate) async fn use_once(state: &State, signed: &[u8], millis: i64) -> Result<(), Refusal> {
    let expiry = millis.saturating_add(Window::CHANGE.past);
    let mut row = expiry.to_be_bytes().to_vec();
    row.extend_from_slice(&Sha256::digest(signed));
    let mut batch = Batch::new()
        .expect_absent(tables::USED_AUTHORISATIONS, row.clone())
        .put(tables::USED_AUTHORISATIONS, row, Bytes::new());
    let oldest = state
        .store
        .scan(tables::USED_AUTHORISATIONS, b"", None, MAX_FORGOTTEN)
        .await?;
    let now = state.clock.now_millis().to_be_bytes();
    for (old, _) in oldest {
        if old.first_chunk::<8>() < Some(&now) {
            batch = batch.remove(tables::USED_AUTHORISATIONS, old);
        }
    }
    if state.store.commit(batch).await?.is_committed() {
        Ok(())
    } else {
        Err(Refusal::rule("This authorisation was used before"))
    }
}

/// Reads `{"p": path, "t": time}` and nothing else.
fn request_record(message: &[u8]) -> Option<(String, i64)> {
    let mut fields = Fields::of(decode(message).ok()?, "signed request").ok()?;
    let path = fields.required("p").ok()?.into_text("p").ok()?;
    let millis = fields.required("t").ok()?.into_int("t").ok()?;
    fields.rest().is_empty().then_some((path, millis))
}

/// Cuts what a stranger signed to what may be shown.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use champ::cbor::Map;
    use pki::keys::SecretSigningKey;

    use super::*;

    const NOW: i64 = 1_700_000_000_000;
    const PATH: &str = "peergos/v0/bats/getUserBats";

    fn key() -> SecretSigningKey {
        SecretSigningKey::from_seed(&[1; 32])
    }

    fn time(millis: i64) -> Vec<u8> {
        key().sign_attached(&Value::Int(millis).encode())
    }

    fn request(path: &str, millis: i64) -> Vec<u8> {
        let mut map = Map::new();
        map.insert("p", path);
        map.insert("t", millis);
        key().sign_attached(&Value::Map(map).encode())
    }

    #[test]
    fn times_at_the_edge_of_the_window_pass_and_beyond_are_stale() {
        let check = |millis| signed_time(&key().public(), &time(millis), NOW, Window::MINUTES_5);
        for good in [NOW, NOW - 300_000, NOW + 300_000] {
            assert!(check(good).is_ok());
        }
        for bad in [NOW - 300_001, NOW + 300_001, i64::MIN, i64::MAX] {
            assert!(matches!(check(bad), Err(Refusal::Stale)));
        }
    }

    #[test]
    fn a_request_is_not_a_time_and_a_time_is_no_request() {
        let public = key().public();
        assert!(matches!(
            signed_time(&public, &request(PATH, NOW), NOW, Window::DAY),
            Err(Refusal::AuthorisationRecord)
        ));
        assert!(matches!(
            signed_request(&public, &time(NOW), PATH, NOW, Window::DAY),
            Err(Refusal::AuthorisationRecord)
        ));
    }

    #[test]
    fn bat_8_path_and_signer_are_bound() {
        let public = key().public();
        let check = |signed: &[u8]| signed_request(&public, signed, PATH, NOW, Window::MINUTES_5);
        assert!(check(&request(PATH, NOW)).is_ok());
        assert!(matches!(
            check(&request("peergos/v0/bats/addBat", NOW)),
            Err(Refusal::AuthorisationPath(path)) if path == "peergos/v0/bats/addBat"
        ));
        let other = SecretSigningKey::from_seed(&[2; 32]);
        let forged = other.sign_attached(&request(PATH, NOW)[64..]);
        assert!(matches!(check(&forged), Err(Refusal::Signature)));
        assert!(matches!(check(b"short"), Err(Refusal::Signature)));
    }
}
