//! Second factors: enrolment and answers (Spec: 08 §4).
//!
//! All factors of a user are one row, so every change is one compare-and-swap: codes, steps and counters are used
//! up in the same step in which they are accepted. What an answer is checked with is decided by what is stored
//! under its credential id, never by the answer (PRG-012).

mod code;
mod factor;
mod seal;

use bytes::Bytes;
use champ::cbor::{Record, RecordError, Value};
use pki::{
    username::Username,
    wire::{
        refusal::text,
        second_factor::{
            BackupCodes, FactorAnswer, FactorName, MethodKind, MultiFactorMethod,
            MultiFactorMethods, MultiFactorResponse, TotpKey, backup_code_hash, match_backup_code,
            normalize_backup_code,
        },
    },
};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use self::{
    code::matching_step,
    factor::{Factor, Secret},
};
pub use seal::FactorKeyError;
pub(crate) use seal::{FactorKey, key_in_memory, needs_key, unlock};

use crate::{
    error::Refusal,
    random::OsRandom,
    state::State,
    store::{Batch, tables},
    webauthn::{
        Assertion, Challenge, Registered, Registration, Rejection, RelyingParty,
        presented_challenge, verify_assertion, verify_registration,
    },
};

/// Most factors of one user.
const MAX_FACTORS: usize = 10;
/// Attempts at a change that other changes overtake.
const MAX_ATTEMPTS: usize = 20;
const SECONDS_PER_DAY: i64 = 86_400;

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

/// Opens a challenge for a new security key, unless there are too many factors already.
pub(crate) async fn start_webauthn(state: &State, name: &Username) -> Result<Challenge, Refusal> {
    let (_, factors) = load(state, name).await?;
    if factors.len() >= MAX_FACTORS {
        return Err(too_many());
    }
    let now = state.limit_millis();
    state.challenges.start(&*state.store, name, now).await
}

/// Adds a security key, enabled at once.
pub(crate) async fn complete_webauthn(
    state: &State,
    name: &Username,
    factor_name: FactorName,
    answer: &MultiFactorResponse,
    rp: &RelyingParty,
) -> Result<(), Refusal> {
    let FactorAnswer::WebAuthn {
        authenticator_data: attestation_object,
        client_data,
        ..
    } = &answer.answer
    else {
        return Err(Refusal::malformed("Not a webauthn credential!"));
    };
    let registration = Registration {
        credential_id: &answer.credential_id,
        attestation_object,
        client_data,
    };
    let Registered {
        credential_id,
        credential,
    } = use_challenge(state, name, client_data)
        .await?
        .and_then(|challenge| verify_registration(&registration, &challenge, rp))
        .map_err(rejected)?;
    let factor = Factor {
        credential_id: credential_id.into_bytes(),
        name: factor_name,
        is_enabled: true,
        created_epoch_day: state.clock.now_seconds().div_euclid(SECONDS_PER_DAY),
        secret: Secret::WebAuthn(credential),
    };
    change(state, name, |factors| {
        if factors.len() >= MAX_FACTORS {
            return Err(too_many());
        }
        if is_taken(factors, &factor.credential_id) {
            return Err(taken());
        }
        factors.push(factor.clone());
        Ok(())
    })
    .await
}

/// Uses up the open challenge that this client data answers, whatever else is wrong with the answer.
async fn use_challenge(
    state: &State,
    name: &Username,
    client_data: &[u8],
) -> Result<Result<Challenge, Rejection>, Refusal> {
    let presented = match presented_challenge(client_data) {
        Ok(presented) => presented,
        Err(rejection) => return Ok(Err(rejection)),
    };
    let found = state
        .challenges
        .finish(&*state.store, name, &presented, state.limit_millis())
        .await?;
    Ok(found.ok_or(Rejection::Challenge))
}

fn rejected(rejection: Rejection) -> Refusal {
    Refusal::rule(format!("Security key refused: {rejection}"))
}

fn is_taken(factors: &[Factor], credential_id: &[u8]) -> bool {
    factors
        .iter()
        .any(|factor| factor.credential_id == credential_id)
}

fn taken() -> Refusal {
    Refusal::rule("This security key is already registered")
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
    state
        .guards
        .admit_code(&*state.store, name.as_str(), state.limit_seconds())
        .await?;
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
    if let Err(Refusal::Rule(reason)) = &outcome
        && reason.starts_with(text::BAD_TOTP)
    {
        state
            .guards
            .wrong_code(&*state.store, name.as_str(), state.limit_seconds())
            .await?;
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
///
/// Only codes can be guessed, so only they are counted: a security key still opens an account whose codes
/// somebody is guessing.
pub(crate) async fn check_answer(
    state: &State,
    name: &Username,
    answer: &MultiFactorResponse,
    rp: &RelyingParty,
) -> Result<(), Refusal> {
    match &answer.answer {
        FactorAnswer::Code(code) => {
            let now = state.clock.now_seconds();
            state
                .guards
                .admit_code(&*state.store, name.as_str(), state.limit_seconds())
                .await?;
            let id = &answer.credential_id;
            let outcome = change(state, name, |factors| {
                check_code(enabled_factor(factors, name, id)?, code, now)
            })
            .await;
            if matches!(outcome, Err(Refusal::Rule(_))) {
                state
                    .guards
                    .wrong_code(&*state.store, name.as_str(), state.limit_seconds())
                    .await?;
            }
            outcome
        }
        FactorAnswer::WebAuthn {
            authenticator_data,
            client_data,
            signature,
        } => {
            let assertion = Assertion {
                authenticator_data,
                client_data,
                signature,
            };
            let challenge = use_challenge(state, name, client_data).await?;
            change(state, name, |factors| {
                let factor = enabled_factor(factors, name, &answer.credential_id)?;
                let Secret::WebAuthn(stored) = &mut factor.secret else {
                    return Err(Refusal::rule("Not a webauthn credential!"));
                };
                stored.counter = challenge
                    .and_then(|challenge| verify_assertion(stored, &assertion, &challenge, rp))
                    .map_err(rejected)?;
                Ok(())
            })
            .await
        }
    }
}

fn enabled_factor<'a>(
    factors: &'a mut [Factor],
    name: &Username,
    credential_id: &[u8],
) -> Result<&'a mut Factor, Refusal> {
    factors
        .iter_mut()
        .find(|factor| factor.credential_id == credential_id && factor.is_enabled)
        .ok_or_else(|| unknown(name))
}

/// Checks a code and uses it up.
fn check_code(factor: &mut Factor, code: &str, now_seconds: i64) -> Result<(), Refusal> {
    let id = &factor.credential_id;
    match &mut factor.secret {
        Secret::Totp { key, last_step } | Secret::Mount { key, last_step } => {
            let step = matching_step(key, code, now_seconds)
                .filter(|step| last_step.is_none_or(|last| *step > last))
                .ok_or_else(|| wrong_code(id))?;
            *last_step = Some(step);
        }
        Secret::BackupCodes(codes) => {
            let used = match_backup_code(code, codes).ok_or_else(|| {
                let id = champ::text::to_hex(id);
                Refusal::rule(format!("{}{id}", text::BAD_BACKUP_CODE))
            })?;
            codes.remove(used);
        }
        Secret::WebAuthn(_) => return Err(Refusal::rule("Not a code based credential!")),
    }
    Ok(())
}

/// Returns true for a factor that makes the server ask for one.
fn asks_for_factor(factor: &Factor) -> bool {
    factor.is_enabled && matches!(factor.kind(), MethodKind::Totp | MethodKind::WebAuthn)
}

fn unknown(name: &Username) -> Refusal {
    Refusal::rule(format!(
        "{} for user {}",
        text::UNKNOWN_CREDENTIAL,
        name.as_str()
    ))
}

fn wrong_code(credential_id: &[u8]) -> Refusal {
    let id = champ::text::to_hex(credential_id);
    Refusal::rule(format!("{}{id}", text::BAD_TOTP))
}

async fn load(state: &State, name: &Username) -> Result<(Option<Bytes>, Vec<Factor>), Refusal> {
    let row = state
        .store
        .get(tables::SECOND_FACTORS, name.as_str().as_bytes())
        .await?;
    let factors = match &row {
        None => Vec::new(),
        Some(row) => {
            let row = state.factor_key.open(name.as_str().as_bytes(), row)?;
            champ::cbor::decode(&row)
                .map_err(RecordError::from)
                .and_then(|value| value.into_list("factors"))
                .and_then(|list| list.into_iter().map(Factor::from_value).collect())
                .map_err(Refusal::internal)?
        }
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
        let had = security_keys(&factors);
        edit(&mut factors)?;
        let row = Value::List(factors.iter().map(Record::to_value).collect()).encode();
        let row = state.factor_key.seal(&key, &Zeroizing::new(row))?;
        let mut batch = Batch::new()
            .expect(tables::SECOND_FACTORS, key.clone(), before)
            .put(tables::SECOND_FACTORS, key.clone(), row);
        let after = security_keys(&factors);
        for id in had.iter().filter(|id| !after.contains(id)) {
            batch = batch.remove(tables::SECURITY_KEYS, id.to_vec());
        }
        for id in after.iter().filter(|id| !had.contains(id)) {
            if state.store.get(tables::SECURITY_KEYS, id).await?.is_some() {
                return Err(taken());
            }
            batch = batch.expect_absent(tables::SECURITY_KEYS, id.to_vec()).put(
                tables::SECURITY_KEYS,
                id.to_vec(),
                key.clone(),
            );
        }
        if state.store.commit(batch).await?.is_committed() {
            return Ok(());
        }
    }
    Err(Refusal::RateLimit("Too many changes of second factors"))
}

/// Returns the digests of the credential ids that authenticators chose: no two users may have the same.
fn security_keys(factors: &[Factor]) -> Vec<[u8; 32]> {
    factors
        .iter()
        .filter(|factor| factor.kind() == MethodKind::WebAuthn)
        .map(|factor| Sha256::digest(&factor.credential_id).into())
        .collect()
}
