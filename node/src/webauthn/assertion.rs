//! A log-in with a security key (W3C Web Authentication level 2, §7.2).

use sha2::{Digest as _, Sha256};

use super::{
    Challenge, Rejection, RelyingParty, StoredCredential,
    authenticator_data::AuthenticatorData,
    check_length,
    client_data::{Ceremony, check_client_data},
};

/// What an authenticator answers at log-in.
#[derive(Debug, Clone, Copy)]
pub struct Assertion<'a> {
    /// What the authenticator says about itself.
    pub authenticator_data: &'a [u8],
    /// JSON as the browser wrote it.
    pub client_data: &'a [u8],
    /// Over the authenticator data and the digest of the client data.
    pub signature: &'a [u8],
}

/// Verifies the answer to `challenge` and returns the counter to store.
///
/// # Errors
/// The [`Rejection`] of the first thing that is wrong; the stored counter stays as it is then.
pub fn verify_assertion(
    stored: &StoredCredential,
    answer: &Assertion<'_>,
    challenge: &Challenge,
    rp: &RelyingParty,
) -> Result<u32, Rejection> {
    check_client_data(answer.client_data, Ceremony::Login, challenge, rp)?;
    let data = AuthenticatorData::decode(answer.authenticator_data)?;
    if data.credential.is_some() {
        return Err(Rejection::CredentialUnexpected);
    }
    data.check(rp)?;
    check_length(answer.signature)?;
    let mut signed = answer.authenticator_data.to_vec();
    signed.extend_from_slice(&Sha256::digest(answer.client_data));
    stored.key.verify(&signed, answer.signature)?;
    // Some authenticators do not count.
    let does_not_count = stored.counter == 0 && data.counter == 0;
    if data.counter <= stored.counter && !does_not_count {
        return Err(Rejection::Counter {
            stored: stored.counter,
            presented: data.counter,
        });
    }
    Ok(data.counter)
}
