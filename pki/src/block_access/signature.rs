//! Block request signatures: proof of a token between nodes (Spec: 06 §6.3).
//!
//! AWS Signature version 4, header style, unsigned payload. The signature covers the block, the
//! requesting node and the time; **not** the validity and not the token's id, so both are bounded here
//! whatever the request says.

use std::time::{Duration, SystemTime};

use champ::{
    Cid,
    access::{Bat, BatId, BatWithId},
    cbor::{Fields, Map, Record, RecordError, Value},
    text,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use time::{Date, Month, OffsetDateTime, Time};
use zeroize::Zeroizing;

use super::Refused;

/// Validity that is written.
pub const VALIDITY: Duration = Duration::from_secs(300);
/// Longest validity that is accepted.
pub const MAX_VALIDITY: Duration = Duration::from_secs(3600);
/// Furthest a signature may be dated ahead of this node's clock.
pub const MAX_FUTURE: Duration = Duration::from_secs(300);
/// Oldest signature that is accepted, whatever its validity.
pub const MAX_AGE: Duration = Duration::from_secs(3600);

const REGION: &str = "eu-central-1";
const SERVICE: &str = "s3";

/// A signed request for one block: `{"b", "e", "s", "t"}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockAuth {
    bat_id: BatId,
    validity_seconds: i64,
    signature: [u8; 32],
    time: PackedTime,
}

impl BlockAuth {
    /// Signs a request for `block` by the node `source`, the one that asks.
    ///
    /// # Errors
    /// [`RecordError::OutOfRange`] for a clock outside the years 2000 to 9999 or an inline token id.
    pub fn sign(
        token: &BatWithId,
        block: &Cid,
        source: &Cid,
        now: SystemTime,
    ) -> Result<Self, RecordError> {
        if token.id.is_inline() {
            return Err(RecordError::OutOfRange { field: "b" });
        }
        let time = PackedTime::at(now)?;
        Ok(Self {
            bat_id: token.id.clone(),
            validity_seconds: i64::try_from(VALIDITY.as_secs()).unwrap_or_default(),
            signature: signature(&token.bat, block, source, &time),
            time,
        })
    }

    /// Returns the id of the token it was made with.
    pub const fn bat_id(&self) -> &BatId {
        &self.bat_id
    }

    /// Returns the claimed validity in seconds.
    pub const fn validity_seconds(&self) -> i64 {
        self.validity_seconds
    }

    /// Returns the signature.
    pub const fn signature(&self) -> &[u8; 32] {
        &self.signature
    }

    /// Returns when it was made.
    pub const fn time(&self) -> &PackedTime {
        &self.time
    }

    /// Verifies that the node `source`, as the connection authenticates it, asks for `block` with `bat`.
    ///
    /// # Errors
    /// [`Refused`] for another secret, block or node, and for a time or validity out of bounds.
    pub fn verify(
        &self,
        bat: &Bat,
        block: &Cid,
        source: &Cid,
        now: SystemTime,
    ) -> Result<(), Refused> {
        self.check_time(now)?;
        let expected = signature(bat, block, source, &self.time);
        if expected.ct_eq(&self.signature).into() {
            Ok(())
        } else {
            Err(Refused)
        }
    }

    fn check_time(&self, now: SystemTime) -> Result<(), Refused> {
        let seconds = |limit: Duration| i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
        let age = epoch_seconds(now).saturating_sub(self.time.0.unix_timestamp());
        let fits = (0..=seconds(MAX_VALIDITY)).contains(&self.validity_seconds)
            && age <= self.validity_seconds
            && age <= seconds(MAX_AGE)
            && age >= -seconds(MAX_FUTURE);
        if fits { Ok(()) } else { Err(Refused) }
    }

    /// Returns the text form: hex of the record.
    pub fn to_text(&self) -> String {
        text::to_hex(&self.encode())
    }

    /// Parses the text form.
    ///
    /// # Errors
    /// Any [`RecordError`].
    pub fn parse(text: &str) -> Result<Self, RecordError> {
        let bytes = text::from_hex(text).map_err(|_| RecordError::OutOfRange { field: "auth" })?;
        Self::decode(&bytes)
    }
}

impl Record for BlockAuth {
    fn to_value(&self) -> Value {
        Value::Map(Map::from_iter([
            ("b", self.bat_id.to_value()),
            ("e", Value::Int(self.validity_seconds)),
            ("s", Value::from(&self.signature)),
            ("t", Value::Int(self.time.packed())),
        ]))
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "block request signature")?;
        let bat_id = BatId::from_value(fields.required("b")?)?;
        if bat_id.is_inline() {
            return Err(RecordError::OutOfRange { field: "b" });
        }
        Ok(Self {
            bat_id,
            validity_seconds: fields.required("e")?.into_int("e")?,
            signature: fields.required("s")?.into_array("s")?,
            time: PackedTime::unpack(fields.required("t")?.into_int("t")?)?,
        })
    }
}

/// A UTC time of whole seconds from the year 2000 on, packed into one integer.
///
/// Official packing overflows 32 bits from 2032 on; a negative number is therefore read by adding 2^32.
/// What is written here never overflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedTime(OffsetDateTime);

impl PackedTime {
    /// Takes the time from a clock, dropping fractions of a second.
    ///
    /// # Errors
    /// [`RecordError::OutOfRange`] outside the years 2000 to 9999.
    pub fn at(now: SystemTime) -> Result<Self, RecordError> {
        OffsetDateTime::from_unix_timestamp(epoch_seconds(now))
            .ok()
            .filter(|time| time.year() >= FIRST_YEAR)
            .map(Self)
            .ok_or(RecordError::OutOfRange { field: "t" })
    }

    /// Reads the packed form.
    ///
    /// # Errors
    /// [`RecordError::OutOfRange`] for a number that is no time.
    pub fn unpack(packed: i64) -> Result<Self, RecordError> {
        let out_of_range = RecordError::OutOfRange { field: "t" };
        let packed = if packed < 0 {
            packed.checked_add(1 << 32)
        } else {
            Some(packed)
        };
        let packed = packed
            .and_then(|packed| u64::try_from(packed).ok())
            .ok_or(out_of_range.clone())?;
        let field = |shift: u32, bits: u32| {
            let masked = (packed >> shift) & ((1 << bits) - 1);
            u8::try_from(masked).unwrap_or(u8::MAX)
        };
        let date_time = || {
            let year = FIRST_YEAR.checked_add(i32::try_from(packed >> 26).ok()?)?;
            let month = Month::try_from(field(22, 4)).ok()?;
            let date = Date::from_calendar_date(year, month, field(17, 5)).ok()?;
            let time = Time::from_hms(field(12, 5), field(6, 6), field(0, 6)).ok()?;
            Some(Self(date.with_time(time).assume_utc()))
        };
        date_time().ok_or(out_of_range)
    }

    /// Returns the packed form.
    pub fn packed(&self) -> i64 {
        let time = self.0;
        i64::from(time.second())
            | i64::from(time.minute()) << 6
            | i64::from(time.hour()) << 12
            | i64::from(time.day()) << 17
            | i64::from(u8::from(time.month())) << 22
            | i64::from(time.year() - FIRST_YEAR) << 26
    }

    /// Returns `YYYYMMDDThhmmssZ`.
    pub fn to_text(&self) -> String {
        let (date, time) = (self.date_text(), self.0);
        let (hour, minute, second) = (time.hour(), time.minute(), time.second());
        format!("{date}T{hour:02}{minute:02}{second:02}Z")
    }

    fn date_text(&self) -> String {
        let month = u8::from(self.0.month());
        format!("{:04}{month:02}{:02}", self.0.year(), self.0.day())
    }
}

const FIRST_YEAR: i32 = 2000;

/// Whole seconds since 1970 UTC; earlier clocks count as 0, and none overflows.
fn epoch_seconds(now: SystemTime) -> i64 {
    let since = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The request as Signature version 4 sees it.
fn canonical_request(block: &Cid, source: &Cid, time: &PackedTime) -> String {
    // The path holds `?arg=` literally, and the query line is empty: deliberate.
    format!(
        "GET\n/api/v0/block/get?arg={}\n\nhost:{}\nx-amz-content-sha256:UNSIGNED-PAYLOAD\n\
         x-amz-date:{}\n\nhost;x-amz-content-sha256;x-amz-date\nUNSIGNED-PAYLOAD",
        text::to_base58(&block.to_bytes()),
        source.bare_multihash_text(),
        time.to_text(),
    )
}

fn string_to_sign(canonical_request: &str, time: &PackedTime) -> String {
    format!(
        "AWS4-HMAC-SHA256\n{}\n{}/{REGION}/{SERVICE}/aws4_request\n{}",
        time.to_text(),
        time.date_text(),
        text::to_hex(&Sha256::digest(canonical_request.as_bytes())),
    )
}

fn signature(bat: &Bat, block: &Cid, source: &Cid, time: &PackedTime) -> [u8; 32] {
    let message = string_to_sign(&canonical_request(block, source, time), time);
    let secret = Zeroizing::new(format!("AWS4{}", *Zeroizing::new(bat.to_text())));
    let date = time.date_text();
    let key = [date.as_str(), REGION, SERVICE, "aws4_request"]
        .iter()
        .fold(Zeroizing::new(secret.as_bytes().to_vec()), |key, part| {
            Zeroizing::new(hmac(&key, part.as_bytes()).to_vec())
        });
    hmac(&key, message.as_bytes())
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    Hmac::<Sha256>::new_from_slice(key)
        .expect("HMAC takes keys of any length")
        .chain_update(message)
        .finalize()
        .into_bytes()
        .into()
}
