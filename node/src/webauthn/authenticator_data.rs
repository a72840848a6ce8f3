//! What the authenticator signs about itself (W3C Web Authentication level 2, §6.1).

use super::{
    CoseKey, CredentialId, Rejection, RelyingParty,
    cbor::{Malformed, Reader},
    check_length,
};

/// Bit 0 of the flags: somebody touched the authenticator.
const USER_PRESENT: u8 = 1;
/// Bit 6: a credential id and its key follow.
const ATTESTED_CREDENTIAL: u8 = 1 << 6;
/// Bit 7: a map of extensions follows.
const EXTENSIONS: u8 = 1 << 7;
/// Length of the model identifier before a credential id.
const MODEL_ID_BYTES: usize = 16;

/// Authenticator data, taken apart; whether it is true is for the signature to say.
#[derive(Debug)]
pub(super) struct AuthenticatorData {
    rp_id_hash: [u8; 32],
    flags: u8,
    pub(super) counter: u32,
    /// The credential that was made, at registration.
    pub(super) credential: Option<(CredentialId, CoseKey)>,
}

impl AuthenticatorData {
    /// Takes authenticator data apart: digest of the relying party's id (32 bytes), flags (1), counter (4, big endian), then
    /// what the flags announce, and nothing more.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Rejection> {
        check_length(bytes)?;
        let mut rest = bytes;
        let rp_id_hash = take(&mut rest)?;
        let [flags] = take(&mut rest)?;
        let counter = u32::from_be_bytes(take(&mut rest)?);
        let credential = if flags & ATTESTED_CREDENTIAL == 0 {
            None
        } else {
            Some(credential(&mut rest)?)
        };
        if flags & EXTENSIONS != 0 {
            let mut reader = Reader::new(rest);
            skip_map(&mut reader).map_err(|Malformed| Rejection::AuthenticatorData)?;
            rest = reader.rest();
        }
        if !rest.is_empty() {
            return Err(Rejection::AuthenticatorData);
        }
        Ok(Self {
            rp_id_hash,
            flags,
            counter,
            credential,
        })
    }

    /// Checks that the authenticator was asked for this server, and by somebody who is there.
    pub(super) fn check(&self, rp: &RelyingParty) -> Result<(), Rejection> {
        if self.rp_id_hash != *rp.id_hash() {
            return Err(Rejection::RelyingParty);
        }
        if self.flags & USER_PRESENT == 0 {
            return Err(Rejection::UserAbsent);
        }
        Ok(())
    }
}

/// Reads model (16 bytes), length of the id (2, big endian), id and key.
fn credential(rest: &mut &[u8]) -> Result<(CredentialId, CoseKey), Rejection> {
    let _: [u8; MODEL_ID_BYTES] = take(rest)?;
    let length = u16::from_be_bytes(take(rest)?);
    let (id, after) = rest
        .split_at_checked(usize::from(length))
        .ok_or(Rejection::AuthenticatorData)?;
    let id = CredentialId::try_new(id)?;
    let (key, after) = CoseKey::decode_prefix(after)?;
    *rest = after;
    Ok((id, key))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Rejection> {
    let (taken, after) = rest
        .split_first_chunk()
        .ok_or(Rejection::AuthenticatorData)?;
    *rest = after;
    Ok(*taken)
}

fn skip_map(reader: &mut Reader<'_>) -> Result<(), Malformed> {
    for _ in 0..reader.map()? * 2 {
        reader.skip()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An Ed25519 key, which is well-formed whatever its 32 bytes are.
    fn key() -> Vec<u8> {
        let mut key = vec![0xa4, 1, 1, 3, 0x27, 0x20, 6, 0x21, 0x58, 0x20];
        key.extend([9; 32]);
        key
    }

    fn data(flags: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![3; 32];
        bytes.push(flags);
        bytes.extend(7u32.to_be_bytes());
        parts.iter().for_each(|part| bytes.extend(*part));
        bytes
    }

    fn attested(id: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; MODEL_ID_BYTES];
        bytes.extend(u16::try_from(id.len()).unwrap().to_be_bytes());
        bytes.extend(id);
        bytes.extend(key());
        bytes
    }

    #[test]
    fn parts_are_those_the_flags_announce() {
        let plain = AuthenticatorData::decode(&data(1, &[])).unwrap();
        assert_eq!((plain.counter, plain.credential), (7, None));
        let full =
            AuthenticatorData::decode(&data(0xc1, &[&attested(b"id"), &[0xa1, 1, 2]])).unwrap();
        assert_eq!(full.credential.unwrap().0.as_bytes(), b"id");
        for bad in [
            data(1, &[&[0]]),
            data(0x81, &[]),
            data(0x81, &[&[0x80]]),
            data(0x81, &[&[0xa0, 0]]),
            data(0x81, &[&[0xa1, 1]]),
            data(0x41, &[]),
            data(0x41, &[&attested(b"id"), &[0xa0]]),
            data(0x01, &[&attested(b"id")]),
            data(1, &[])[..36].to_vec(),
            Vec::new(),
        ] {
            assert_eq!(
                AuthenticatorData::decode(&bad).unwrap_err(),
                Rejection::AuthenticatorData
            );
        }
        assert_eq!(
            AuthenticatorData::decode(&data(1, &[&[0; 2048]])).unwrap_err(),
            Rejection::TooLong(2085)
        );
    }

    #[test]
    fn credential_ids_have_1_to_1023_bytes() {
        let decode =
            |length| AuthenticatorData::decode(&data(0x41, &[&attested(&vec![5; length])]));
        for good in [1, 1023] {
            assert!(decode(good).is_ok(), "{good}");
        }
        for bad in [0, 1024] {
            assert_eq!(decode(bad).unwrap_err(), Rejection::CredentialIdLength(bad));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_apart_or_refused(flags: u8, rest: Vec<u8>) {
            let _ = AuthenticatorData::decode(&rest);
            let _ = AuthenticatorData::decode(&data(flags, &[&rest]));
            let _ = AuthenticatorData::decode(&data(flags, &[&attested(b"id"), &rest]));
        }

        #[test]
        fn whatever_is_cut_short_is_refused(cut in 0..120usize) {
            let whole = data(0xc1, &[&attested(b"some id"), &[0xa0]]);
            if let Some(short) = whole.get(..cut).filter(|short| short.len() < whole.len()) {
                prop_assert!(AuthenticatorData::decode(short).is_err());
            }
        }
    }
}
