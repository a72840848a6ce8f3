//! An authenticator and the browser in front of it, for tests.

use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;
use pki::{
    keys::{PublicSigningKey, SecretSigningKey},
    wire::second_factor::{FactorAnswer, MultiFactorResponse},
};
use ring::{
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use sha2::{Digest as _, Sha256};

/// A key for tests and nothing else.
const RSA_2048: &[u8] = include_bytes!("../keys/rsa_2048.pk8");

/// The algorithms clients offer.
pub(crate) const ALGORITHMS: [Algorithm; 3] =
    [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    EdDsa,
    Es256,
    Rs256,
}

enum Secret {
    EdDsa(SecretSigningKey),
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
}

/// One key on an authenticator; tests bend whatever they like.
pub(crate) struct Authenticator {
    secret: Secret,
    pub(crate) credential_id: Vec<u8>,
    pub(crate) rp_id: String,
    pub(crate) origin: String,
    /// User present, user verified.
    pub(crate) flags: u8,
    /// The counter of the last answer; counts up with each.
    pub(crate) counter: u32,
    /// An authenticator that always says 0.
    pub(crate) is_counting: bool,
}

impl Authenticator {
    pub(crate) fn new(algorithm: Algorithm, id: u8, rp_id: &str, origin: &str) -> Self {
        let secret = match algorithm {
            Algorithm::EdDsa => Secret::EdDsa(SecretSigningKey::from_seed(&[id; 32])),
            Algorithm::Es256 => {
                let random = SystemRandom::new();
                let kind = &ECDSA_P256_SHA256_ASN1_SIGNING;
                let key = EcdsaKeyPair::generate_pkcs8(kind, &random).unwrap();
                Secret::Es256(EcdsaKeyPair::from_pkcs8(kind, key.as_ref(), &random).unwrap())
            }
            Algorithm::Rs256 => Secret::Rs256(RsaKeyPair::from_pkcs8(RSA_2048).unwrap()),
        };
        Self {
            secret,
            credential_id: vec![id; 20],
            rp_id: rp_id.to_owned(),
            origin: origin.to_owned(),
            flags: 0b101,
            counter: 0,
            is_counting: true,
        }
    }

    /// The COSE key, written out by hand.
    pub(crate) fn cose_key(&self) -> Vec<u8> {
        match &self.secret {
            Secret::EdDsa(key) => {
                let public: PublicSigningKey = key.public();
                let mut cose = vec![0xa4, 1, 1, 3, 0x27, 0x20, 6, 0x21, 0x58, 32];
                cose.extend(public.as_bytes());
                cose
            }
            Secret::Es256(key) => {
                let point = key.public_key().as_ref();
                let mut cose = vec![0xa5, 1, 2, 3, 0x26, 0x20, 1, 0x21, 0x58, 32];
                cose.extend(&point[1..33]);
                cose.extend([0x22, 0x58, 32]);
                cose.extend(&point[33..]);
                cose
            }
            Secret::Rs256(key) => {
                let public = rsa::PublicKeyComponents::<Vec<u8>>::from(key.public());
                let mut cose = vec![0xa4, 1, 3, 3, 0x39, 1, 0, 0x20, 0x59, 1, 0];
                assert_eq!(public.n.len(), 256);
                cose.extend(&public.n);
                cose.extend([0x21, 0x40 + public.e.len() as u8]);
                cose.extend(&public.e);
                cose
            }
        }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match &self.secret {
            Secret::EdDsa(key) => key.sign_detached(message).to_vec(),
            Secret::Es256(key) => key
                .sign(&SystemRandom::new(), message)
                .unwrap()
                .as_ref()
                .to_vec(),
            Secret::Rs256(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(
                    &RSA_PKCS1_SHA256,
                    &SystemRandom::new(),
                    message,
                    &mut signature,
                )
                .unwrap();
                signature
            }
        }
    }

    pub(crate) fn client_data(&self, kind: &str, challenge: &[u8]) -> Vec<u8> {
        format!(
            r#"{{"type":"{kind}","challenge":"{}","origin":"{}","crossOrigin":false}}"#,
            BASE64URL_NOPAD.encode(challenge),
            self.origin
        )
        .into_bytes()
    }

    fn head(&self, flags: u8) -> Vec<u8> {
        let mut data = Sha256::digest(&self.rp_id).to_vec();
        data.push(flags);
        data.extend(self.counter.to_be_bytes());
        data
    }

    /// Answers the request for a new key, without attestation.
    pub(crate) fn register(&self, challenge: &[u8]) -> MultiFactorResponse {
        let mut data = self.head(self.flags | 0x40);
        data.extend([0; 16]);
        data.extend((self.credential_id.len() as u16).to_be_bytes());
        data.extend(&self.credential_id);
        data.extend(self.cose_key());
        let mut object = b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData\x59".to_vec();
        object.extend((data.len() as u16).to_be_bytes());
        object.extend(data);
        self.response(
            object,
            self.client_data("webauthn.create", challenge),
            Vec::new(),
        )
    }

    /// Answers the request to log in.
    pub(crate) fn assert(&mut self, challenge: &[u8]) -> MultiFactorResponse {
        if self.is_counting {
            self.counter = self.counter.wrapping_add(1);
        }
        let data = self.head(self.flags);
        let client_data = self.client_data("webauthn.get", challenge);
        let signed = [data.as_slice(), &Sha256::digest(&client_data)].concat();
        let signature = self.sign(&signed);
        self.response(data, client_data, signature)
    }

    fn response(
        &self,
        authenticator_data: Vec<u8>,
        client_data: Vec<u8>,
        signature: Vec<u8>,
    ) -> MultiFactorResponse {
        MultiFactorResponse {
            credential_id: Bytes::from(self.credential_id.clone()),
            answer: FactorAnswer::WebAuthn {
                authenticator_data: authenticator_data.into(),
                client_data: client_data.into(),
                signature: signature.into(),
            },
        }
    }
}
