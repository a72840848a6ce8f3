//! Second factors: enrolment and answers (Spec: 08 §4).
//!
//! All factors of a user are one row, so every change is one compare-and-swap: codes and steps are used up
//! in the same step in which they are accepted.

use bytes::Bytes;
use champ::cbor::{Fields, Map, Record, RecordError, Value};
use hmac::{Hmac, KeyInit as _, Mac as _};
use pki::{
    username::Username,
    wire::second_factor::{
        BackupCodes, FactorAnswer, FactorName, MethodKind, MultiFactorMethod, MultiFactorMethods,
        MultiFactorResponse, TotpKey, backup_code_hash, match_backup_code, normalize_backup_code,
    },
};
use sha1::Sha1;
use subtle::ConstantTimeEq as _;
use zeroize::ZeroizeOnDrop;

use crate::{
    error::Refusal,
    random::OsRandom,
    state::State,
    store::{Batch, tables},
};

/// Most factors of one user.
const MAX_FACTORS: usize = 10;
/// Seconds of one step of a time based code.
const STEP_SECONDS: i64 = 30;
/// Attempts at a change that other changes overtake.
const MAX_ATTEMPTS: usize = 20;
const SECONDS_PER_DAY: i64 = 86_400;

/// A factor as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Factor {
    credential_id: Bytes,
    name: FactorName,
    is_enabled: bool,
    created_epoch_day: i64,
    secret: Secret,
}

/// What a factor is checked with.
#[derive(Clone, PartialEq, Eq, ZeroizeOnDrop)]
enum Secret {
    /// Key and the last step that was used.
    Totp {
        key: [u8; 32],
        #[zeroize(skip)]
        last_step: Option<i64>,
    },
    /// As a time based code, for a device that keeps its own key.
    Mount {
        key: [u8; 32],
        #[zeroize(skip)]
        last_step: Option<i64>,
    },
    /// Digests of unused codes.
    BackupCodes(Vec<[u8; 32]>),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Factor {
    const fn kind(&self) -> MethodKind {
        match self.secret {
            Secret::Totp { .. } => MethodKind::Totp,
            Secret::Mount { .. } => MethodKind::Mount,
            Secret::BackupCodes(_) => MethodKind::BackupCodes,
        }
    }

    fn method(&self) -> MultiFactorMethod {
        let name = match &self.secret {
            Secret::BackupCodes(codes) => {
                FactorName::parse(&codes.len().to_string()).unwrap_or_default()
            }
            _ => self.name.clone(),
        };
        MultiFactorMethod {
            created_epoch_day: self.created_epoch_day,
            is_enabled: self.is_enabled,
            credential_id: self.credential_id.clone(),
            name,
            kind: self.kind(),
        }
    }

    fn is_listed(&self) -> bool {
        match &self.secret {
            Secret::BackupCodes(codes) => !codes.is_empty(),
            _ => self.is_enabled,
        }
    }
}

impl Record for Factor {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("c", self.created_epoch_day);
        map.insert("e", self.is_enabled);
        map.insert("i", self.credential_id.clone());
        map.insert("n", self.name.as_str());
        map.insert("t", i64::from(self.kind().code()));
        match &self.secret {
            Secret::Totp { key, last_step } | Secret::Mount { key, last_step } => {
                map.insert("k", key);
                map.insert_some("l", *last_step);
            }
            Secret::BackupCodes(codes) => {
                map.insert("h", codes.iter().map(Value::from).collect::<Vec<_>>());
            }
        }
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "factor")?;
        let name = fields.required("n")?.into_text("n")?;
        let kind = fields.required("t")?.into_int("t")?;
        let mut key = || -> Result<([u8; 32], Option<i64>), RecordError> {
            let key = fields.required("k")?.into_array("k")?;
            let step = fields.optional("l").map(|v| v.into_int("l")).transpose()?;
            Ok((key, step))
        };
        let secret = match MethodKind::from_code(kind) {
            Some(MethodKind::Totp) => {
                let (key, last_step) = key()?;
                Secret::Totp { key, last_step }
            }
            Some(MethodKind::Mount) => {
                let (key, last_step) = key()?;
                Secret::Mount { key, last_step }
            }
            Some(MethodKind::BackupCodes) => Secret::BackupCodes(
                fields
                    .required("h")?
                    .into_list("h")?
                    .into_iter()
                    .map(|hash| hash.into_array("h"))
                    .collect::<Result<_, _>>()?,
            ),
            _ => return Err(RecordError::OutOfRange { field: "t" }),
        };
        Ok(Self {
            credential_id: fields.required("i")?.into_bytes("i")?,
            name: FactorName::parse(&name).map_err(|_| RecordError::OutOfRange { field: "n" })?,
            is_enabled: fields.required("e")?.into_bool("e")?,
            created_epoch_day: fields.required("c")?.into_int("c")?,
            secret,
        })
    }
}

/// Returns the factors that `listMfa` shows, in order of creation.
pub(crate) async fn list(state: &State, name: &Username) -> Result<MultiFactorMethods, Refusal> {
    let (_, factors) = load(state, name).await?;
    Ok(MultiFactorMethods(
        factors
            .iter()
            .filter(|factor| factor.is_listed())
            .map(Factor::method)
            .collect(),
    ))
}

/// Returns the enabled factors.
pub(crate) async fn enabled(
    state: &State,
    name: &Username,
) -> Result<Vec<MultiFactorMethod>, Refusal> {
    Ok(list(state, name)
        .await?
        .0
        .into_iter()
        .filter(|method| method.is_enabled)
        .collect())
}

/// Adds a disabled code based factor and returns its key.
pub(crate) async fn add(
    state: &State,
    name: &Username,
    factor_name: FactorName,
    is_mount: bool,
) -> Result<TotpKey, Refusal> {
    let totp = TotpKey::random(&mut OsRandom);
    let today = state.clock.now_seconds().div_euclid(SECONDS_PER_DAY);
    change(state, name, |factors| {
        if !is_mount {
            factors.retain(|factor| factor.is_enabled || factor.kind() != MethodKind::Totp);
        }
        if factors.len() >= MAX_FACTORS {
            return Err(too_many());
        }
        let (key, last_step) = (totp.key, None);
        factors.push(Factor {
            credential_id: Bytes::copy_from_slice(&totp.credential_id),
            name: factor_name.clone(),
            is_enabled: false,
            created_epoch_day: today,
            secret: match is_mount {
                true => Secret::Mount { key, last_step },
                false => Secret::Totp { key, last_step },
            },
        });
        Ok(())
    })
    .await?;
    Ok(totp)
}

/// Refuses another factor when there are too many already.
pub(crate) async fn check_room(state: &State, name: &Username) -> Result<(), Refusal> {
    let (_, factors) = load(state, name).await?;
    if factors.len() > MAX_FACTORS {
        return Err(too_many());
    }
    Ok(())
}

fn too_many() -> Refusal {
    Refusal::rule("Too many multi factor auth methods. Please delete some.")
}

/// Enables a code based factor with a code made with its key.
pub(crate) async fn enable(
    state: &State,
    name: &Username,
    credential_id: &[u8],
    code: &str,
    kind: MethodKind,
) -> Result<(), Refusal> {
    let now = state.clock.now_seconds();
    state.guards.admit_code(name.as_str(), now)?;
    let outcome = change(state, name, |factors| {
        let factor = factors
            .iter_mut()
            .find(|factor| factor.credential_id == credential_id)
            .ok_or_else(|| unknown(name))?;
        if factor.kind() != kind {
            let wanted = match kind {
                MethodKind::Mount => "MOUNT",
                _ => "TOTP",
            };
            return Err(Refusal::rule(format!(
                "Second factor {} is not a {wanted}!",
                champ::text::to_hex(credential_id)
            )));
        }
        let (Secret::Totp { key, .. } | Secret::Mount { key, .. }) = &factor.secret else {
            return Err(unknown(name));
        };
        matching_step(key, code, now).ok_or_else(|| wrong_code(credential_id))?;
        factor.is_enabled = true;
        if kind == MethodKind::Totp {
            factors.retain(|factor| {
                factor.kind() != kind || !factor.is_enabled || factor.credential_id == credential_id
            });
        }
        Ok(())
    })
    .await;
    if let Err(Refusal::Rule(text)) = &outcome
        && text.starts_with("Invalid TOTP code")
    {
        state.guards.wrong_code(name.as_str(), now);
    }
    outcome
}

/// Makes a new set of backup codes in place of any old one.
pub(crate) async fn make_backup_codes(
    state: &State,
    name: &Username,
) -> Result<BackupCodes, Refusal> {
    let codes = BackupCodes::random(&mut OsRandom);
    let today = state.clock.now_seconds().div_euclid(SECONDS_PER_DAY);
    change(state, name, |factors| {
        if !factors.iter().any(asks_for_factor) {
            return Err(Refusal::rule(
                "Please set up an authenticator app or security key before generating backup codes.",
            ));
        }
        factors.retain(|factor| factor.kind() != MethodKind::BackupCodes);
        factors.push(Factor {
            credential_id: Bytes::copy_from_slice(&codes.credential_id),
            name: FactorName::default(),
            is_enabled: true,
            created_epoch_day: today,
            secret: Secret::BackupCodes(
                codes
                    .codes
                    .iter()
                    .map(|code| backup_code_hash(&normalize_backup_code(code)))
                    .collect(),
            ),
        });
        Ok(())
    })
    .await?;
    Ok(codes)
}

/// Deletes a factor; backup codes go with the last factor that makes the server ask for one.
pub(crate) async fn delete(
    state: &State,
    name: &Username,
    credential_id: &[u8],
) -> Result<(), Refusal> {
    change(state, name, |factors| {
        factors.retain(|factor| factor.credential_id != credential_id);
        if !factors.iter().any(asks_for_factor) {
            factors.retain(|factor| factor.kind() != MethodKind::BackupCodes);
        }
        Ok(())
    })
    .await
}

/// Checks the answer to a second factor request and uses it up (Spec: 08 §4.2 to §4.4).
pub(crate) async fn check_answer(
    state: &State,
    name: &Username,
    answer: &MultiFactorResponse,
) -> Result<(), Refusal> {
    let now = state.clock.now_seconds();
    state.guards.admit_code(name.as_str(), now)?;
    let id = &answer.credential_id;
    let outcome = change(state, name, |factors| {
        let factor = factors
            .iter_mut()
            .find(|factor| factor.credential_id == *id && factor.is_enabled)
            .ok_or_else(|| unknown(name))?;
        let FactorAnswer::Code(code) = &answer.answer else {
            return Err(Refusal::rule("Not a webauthn credential!"));
        };
        match &mut factor.secret {
            Secret::Totp { key, last_step } | Secret::Mount { key, last_step } => {
                let step = matching_step(key, code, now)
                    .filter(|step| last_step.is_none_or(|last| *step > last))
                    .ok_or_else(|| wrong_code(id))?;
                *last_step = Some(step);
            }
            Secret::BackupCodes(codes) => {
                let used = match_backup_code(code, codes).ok_or_else(|| {
                    Refusal::rule(format!(
                        "Invalid backup code for credId {}",
                        champ::text::to_hex(id)
                    ))
                })?;
                codes.remove(used);
            }
        }
        Ok(())
    })
    .await;
    if matches!(outcome, Err(Refusal::Rule(_))) {
        state.guards.wrong_code(name.as_str(), now);
    }
    outcome
}

/// Returns true for a factor that makes the server ask for one.
fn asks_for_factor(factor: &Factor) -> bool {
    factor.is_enabled && matches!(factor.kind(), MethodKind::Totp | MethodKind::WebAuthn)
}

fn unknown(name: &Username) -> Refusal {
    Refusal::rule(format!("Unknown credential id for user {}", name.as_str()))
}

fn wrong_code(credential_id: &[u8]) -> Refusal {
    Refusal::rule(format!(
        "Invalid TOTP code for credId {}",
        champ::text::to_hex(credential_id)
    ))
}

/// Returns the step, the current or the previous one, whose code this is.
fn matching_step(key: &[u8], code: &str, now_seconds: i64) -> Option<i64> {
    let current = now_seconds.div_euclid(STEP_SECONDS);
    let mut found = None;
    for step in [current - 1, current] {
        if bool::from(totp_code(key, step).as_bytes().ct_eq(code.as_bytes())) {
            found = Some(step);
        }
    }
    found
}

/// Returns the six digits of a step (RFC 6238 with HMAC-SHA1).
fn totp_code(key: &[u8], step: i64) -> String {
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(key) else {
        return String::new();
    };
    mac.update(&step.to_be_bytes());
    let digest = mac.finalize().into_bytes();
    let offset = usize::from(digest.last().copied().unwrap_or(0) & 15);
    let word = digest
        .get(offset..offset + 4)
        .and_then(|word| <[u8; 4]>::try_from(word).ok())
        .map_or(0, u32::from_be_bytes);
    format!("{:06}", (word & 0x7fff_ffff) % 1_000_000)
}

async fn load(state: &State, name: &Username) -> Result<(Option<Bytes>, Vec<Factor>), Refusal> {
    let row = state
        .store
        .get(tables::SECOND_FACTORS, name.as_str().as_bytes())
        .await?;
    let factors = match &row {
        None => Vec::new(),
        Some(row) => champ::cbor::decode(row)
            .map_err(RecordError::from)
            .and_then(|value| value.into_list("factors"))
            .and_then(|list| list.into_iter().map(Factor::from_value).collect())
            .map_err(Refusal::internal)?,
    };
    Ok((row, factors))
}

/// Applies a change to the factors of a user; it is tried again on the new state when another one was faster.
async fn change(
    state: &State,
    name: &Username,
    mut edit: impl FnMut(&mut Vec<Factor>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let key = name.as_str().as_bytes().to_vec();
    for _ in 0..MAX_ATTEMPTS {
        let (before, mut factors) = load(state, name).await?;
        edit(&mut factors)?;
        let row = Value::List(factors.iter().map(Record::to_value).collect()).encode();
        let batch = Batch::new()
            .expect(tables::SECOND_FACTORS, key.clone(), before)
            .put(tables::SECOND_FACTORS, key.clone(), row);
        if state.store.commit(batch).await?.is_committed() {
            return Ok(());
        }
    }
    Err(Refusal::RateLimit("Too many changes of second factors"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_match_the_published_ones() {
        let ascii = b"12345678901234567890";
        for (seconds, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (2_000_000_000, "279037"),
        ] {
            assert_eq!(totp_code(ascii, seconds / 30), code);
        }
    }

    #[test]
    fn log_4_current_and_previous_step_match_and_nothing_else() {
        let key = [7; 32];
        let now = 1_700_000_010;
        let at = |step: i64| totp_code(&key, now / 30 + step);
        assert_eq!(matching_step(&key, &at(0), now), Some(now / 30));
        assert_eq!(matching_step(&key, &at(-1), now), Some(now / 30 - 1));
        assert_eq!(matching_step(&key, &at(1), now), None);
        assert_eq!(matching_step(&key, &at(-2), now), None);
        for bad in ["", "12345", "1234567", "abcdef", "١٢٣٤٥٦"] {
            assert_eq!(matching_step(&key, bad, now), None, "{bad}");
        }
    }

    #[test]
    fn factors_survive_encoding_and_show_no_secret() {
        let factor = |secret| Factor {
            credential_id: Bytes::from_static(&[1; 32]),
            name: FactorName::parse("laptop").unwrap(),
            is_enabled: true,
            created_epoch_day: 20_000,
            secret,
        };
        for secret in [
            Secret::Totp {
                key: [9; 32],
                last_step: Some(3),
            },
            Secret::Mount {
                key: [9; 32],
                last_step: None,
            },
            Secret::BackupCodes(vec![[1; 32], [2; 32]]),
        ] {
            let factor = factor(secret);
            assert_eq!(Factor::decode(&factor.encode()).unwrap(), factor);
            assert!(!format!("{factor:?}").contains("9, 9"));
        }
    }
}
