//! A new security key (W3C Web Authentication level 2, §7.1).

use super::{
    Challenge, CredentialId, Rejection, RelyingParty, StoredCredential,
    authenticator_data::AuthenticatorData,
    cbor::{Item, Malformed, Reader, once},
    check_length,
    client_data::{Ceremony, check_client_data},
};

/// What an authenticator answers to the request for a new key.
#[derive(Debug, Clone, Copy)]
pub struct Registration<'a> {
    /// The id as the client tells it.
    pub credential_id: &'a [u8],
    /// CBOR map of `fmt`, `attStmt` and `authData`.
    pub attestation_object: &'a [u8],
    /// JSON as the browser wrote it.
    pub client_data: &'a [u8],
}

/// A key that may be stored, under an id that has yet to be found unused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// The attested id.
    pub credential_id: CredentialId,
    /// Key and first counter.
    pub credential: StoredCredential,
}

/// Verifies the answer to `challenge`.
///
/// # Errors
/// The [`Rejection`] of the first thing that is wrong. Signatures of attestation statements are not among them:
/// statements are not looked at, whatever their format.
pub fn verify_registration(
    answer: &Registration<'_>,
    challenge: &Challenge,
    rp: &RelyingParty,
) -> Result<Registered, Rejection> {
    check_client_data(answer.client_data, Ceremony::Registration, challenge, rp)?;
    check_length(answer.attestation_object)?;
    let bytes = authenticator_data(answer.attestation_object)
        .map_err(|Malformed| Rejection::AttestationObject)?;
    let data = AuthenticatorData::decode(bytes)?;
    data.check(rp)?;
    let (credential_id, key) = data.credential.ok_or(Rejection::CredentialMissing)?;
    if credential_id.as_bytes() != answer.credential_id {
        return Err(Rejection::CredentialIdMismatch);
    }
    Ok(Registered {
        credential_id,
        credential: StoredCredential {
            key,
            counter: data.counter,
        },
    })
}

/// Finds the authenticator data in an attestation object.
fn authenticator_data(object: &[u8]) -> Result<&[u8], Malformed> {
    let mut reader = Reader::new(object);
    let (mut format, mut statement, mut data) = (None, None, None);
    for _ in 0..reader.map()? {
        let Item::Text(label) = reader.item()? else {
            return Err(Malformed);
        };
        match label {
            "fmt" => {
                let Item::Text(text) = reader.item()? else {
                    return Err(Malformed);
                };
                once(&mut format, text)?;
            }
            "attStmt" => once(&mut statement, reader.skip()?)?,
            "authData" => once(&mut data, reader.byte_string()?)?,
            _ => reader.skip()?,
        }
    }
    if format.is_none() || statement.is_none() || !reader.rest().is_empty() {
        return Err(Malformed);
    }
    data.ok_or(Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![0xa0 + u8::try_from(parts.len()).unwrap()];
        parts.iter().for_each(|part| bytes.extend(*part));
        bytes
    }

    const FORMAT: &[u8] = b"\x63fmt\x64none";
    const STATEMENT: &[u8] = b"\x67attStmt\xa0";
    const DATA: &[u8] = b"\x68authData\x43abc";

    #[test]
    fn an_attestation_object_has_each_member_once() {
        for good in [
            object(&[FORMAT, STATEMENT, DATA]),
            object(&[DATA, FORMAT, STATEMENT]),
            object(&[DATA, FORMAT, b"\x65epAtt\xf5", STATEMENT]),
            object(&[b"\x63fmt\x63tpm", b"\x67attStmt\xa1\x63x5c\x81\x41a", DATA]),
        ] {
            assert_eq!(authenticator_data(&good), Ok(&b"abc"[..]));
        }
        let trailing = [object(&[FORMAT, STATEMENT, DATA]), vec![0]].concat();
        for bad in [
            object(&[FORMAT, STATEMENT]),
            object(&[FORMAT, DATA]),
            object(&[STATEMENT, DATA]),
            object(&[FORMAT, STATEMENT, DATA, DATA]),
            object(&[FORMAT, FORMAT, STATEMENT, DATA]),
            object(&[FORMAT, STATEMENT, STATEMENT, DATA]),
            object(&[FORMAT, STATEMENT, DATA, b"\x01\x02"]),
            object(&[b"\x63fmt\x00", STATEMENT, DATA]),
            object(&[FORMAT, STATEMENT, b"\x68authData\x63abc"]),
            object(&[FORMAT, b"\x67attStmt\x9f\xff", DATA]),
            trailing,
            Vec::new(),
        ] {
            assert_eq!(authenticator_data(&bad), Err(Malformed));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = authenticator_data(&bytes);
        }
    }
}
