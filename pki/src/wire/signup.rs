//! Sign-up, chain updates and paid sign-up: data streams of the name API (Spec: 10 §6, §7).

use bytes::Bytes;
use champ::{
    cbor::{Record, decode_shared},
    data_stream::{MAX_STRING_BYTES, Writer},
};

use super::{
    Body, WireError,
    op_log::{MAX_OP_LOG_BYTES, OpLog},
    payment::PaymentProperties,
    stream::{limited, stream_body},
};
use crate::chain::{ClaimChain, ClaimLink, MAX_LINKS};

/// Longest claim or chain item, in bytes.
pub const MAX_LINKS_BYTES: usize = 4 << 20;
/// Most CBOR values in a chain: per link a map with 3 keys, a claim of 4 elements and its providers.
pub(super) const MAX_LINKS_VALUES: usize = 32 * MAX_LINKS;
/// Longest proof of work item, in bytes.
pub const MAX_PROOF_BYTES: usize = 100;
/// Longest signed space request item, in bytes.
pub const MAX_SPACE_REQUEST_BYTES: usize = 64 << 10;

/// The sum of the item limits of the largest request, with room for ignored bytes at the end.
const MAX_REQUEST_BYTES: usize =
    MAX_LINKS_BYTES + MAX_OP_LOG_BYTES + MAX_SPACE_REQUEST_BYTES + (8 << 10);

/// Links with the bytes they came in: proofs of work cover exactly these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentLinks<L> {
    links: L,
    bytes: Bytes,
}

impl<L: Record> SentLinks<L> {
    /// Encodes links to be sent.
    pub fn new(links: L) -> Self {
        let bytes = links.encode().into();
        Self { links, bytes }
    }

    /// Keeps the bytes that links were read from.
    pub(super) const fn as_received(links: L, bytes: Bytes) -> Self {
        Self { links, bytes }
    }

    /// Returns the links as they were sent or are to be sent.
    pub(super) const fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Returns the links.
    pub const fn get(&self) -> &L {
        &self.links
    }

    /// Takes the links.
    pub fn into_inner(self) -> L {
        self.links
    }
}

impl SentLinks<ClaimLink> {
    /// Returns the data a proof of work covers: the list with this single link.
    pub fn proof_data(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(self.bytes.len() + 1);
        data.push(0x81);
        data.extend_from_slice(&self.bytes);
        data
    }
}

impl SentLinks<ClaimChain> {
    /// Returns the data a proof of work covers: the list as sent.
    pub const fn proof_data(&self) -> &Bytes {
        &self.bytes
    }
}

/// The body of `signup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignupRequest {
    /// The name, as sent.
    pub username: String,
    /// Its first claim.
    pub link: SentLinks<ClaimLink>,
    /// Everything the new account writes.
    pub ops: OpLog,
    /// Proof of work record, forwarded unchanged.
    pub proof: Bytes,
    /// Sign-up token, or empty.
    pub token: String,
}

/// The body of `updateChain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpdateChainRequest {
    /// The name, as sent.
    pub username: String,
    /// The full new chain, or its changed tail.
    pub chain: SentLinks<ClaimChain>,
    /// Proof of work record, forwarded unchanged.
    pub proof: Bytes,
    /// Sign-up token, or empty.
    pub token: String,
}

/// The body of `startPaidSignup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartPaidSignup {
    /// The name, as sent.
    pub username: String,
    /// Its first claim.
    pub link: SentLinks<ClaimLink>,
    /// Proof of work record, forwarded unchanged.
    pub proof: Bytes,
}

/// The body of `completePaidSignup`. The proof stands before the space request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletePaidSignup {
    /// The name, as sent.
    pub username: String,
    /// Its first claim.
    pub link: SentLinks<ClaimLink>,
    /// Everything the new account writes; empty towards the registrar.
    pub ops: OpLog,
    /// Proof of work record, forwarded unchanged.
    pub proof: Bytes,
    /// Space request signed by the new identity; empty towards the registrar.
    pub space_request: Bytes,
}

/// The reply of `signup` and `updateChain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignupReply {
    /// Done.
    Accepted,
    /// Not done: repeat with a proof of this difficulty.
    MoreWork(i32),
}

impl Body for SignupReply {
    const MAX_BYTES: usize = 1 << 10;

    fn to_body(&self) -> Vec<u8> {
        match self {
            Self::Accepted => Writer::new().boolean(true),
            Self::MoreWork(difficulty) => Writer::new().boolean(false).int(*difficulty),
        }
        .finish()
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        let mut reader = limited(body, Self::MAX_BYTES)?;
        Ok(match reader.boolean()? {
            true => Self::Accepted,
            false => Self::MoreWork(reader.int()?),
        })
    }
}

/// The reply of `startPaidSignup` and `startPaidMirror`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartPaidReply {
    /// Pay here.
    Payable(PaymentProperties),
    /// Repeat with a proof of this difficulty; 256 means never.
    MoreWork(i32),
}

impl StartPaidReply {
    /// The answer of a server that sells nothing.
    pub const NEVER: Self = Self::MoreWork(256);
}

impl Body for StartPaidReply {
    const MAX_BYTES: usize = super::payment::MAX_PAYMENT_PROPERTIES_BYTES + 5;

    fn to_body(&self) -> Vec<u8> {
        match self {
            Self::Payable(properties) => Writer::new().boolean(true).bytes(&properties.encode()),
            Self::MoreWork(difficulty) => Writer::new().boolean(false).int(*difficulty),
        }
        .finish()
    }

    fn from_body(body: &Bytes) -> Result<Self, WireError> {
        let mut reader = limited(body, Self::MAX_BYTES)?;
        Ok(match reader.boolean()? {
            true => Self::Payable(PaymentProperties::from_value(decode_shared(
                &body.slice_ref(reader.bytes(Self::MAX_BYTES)?),
            )?)?),
            false => Self::MoreWork(reader.int()?),
        })
    }
}

stream_body! {
    SignupRequest: MAX_REQUEST_BYTES, {
        username: MAX_STRING_BYTES,
        link: MAX_LINKS_BYTES,
        ops: MAX_OP_LOG_BYTES,
        proof: MAX_PROOF_BYTES,
        token: MAX_STRING_BYTES,
    }
    UpdateChainRequest: MAX_REQUEST_BYTES, {
        username: MAX_STRING_BYTES,
        chain: MAX_LINKS_BYTES,
        proof: MAX_PROOF_BYTES,
        token: MAX_STRING_BYTES,
    }
    StartPaidSignup: MAX_REQUEST_BYTES, {
        username: MAX_STRING_BYTES,
        link: MAX_LINKS_BYTES,
        proof: MAX_PROOF_BYTES,
    }
    CompletePaidSignup: MAX_REQUEST_BYTES, {
        username: MAX_STRING_BYTES,
        link: MAX_LINKS_BYTES,
        ops: MAX_OP_LOG_BYTES,
        proof: MAX_PROOF_BYTES,
        space_request: MAX_SPACE_REQUEST_BYTES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{claim::placeholder_provider, keys::SecretSigningKey, username::Username};

    fn link() -> ClaimLink {
        ClaimLink::sign(
            &Username::parse("alice").unwrap(),
            crate::claim::Date::NEVER,
            placeholder_provider(),
            &SecretSigningKey::from_seed(&[1; 32]),
        )
        .unwrap()
    }

    fn request() -> SignupRequest {
        SignupRequest {
            username: "alice".into(),
            link: SentLinks::new(link()),
            ops: OpLog::default(),
            proof: Bytes::from_static(b"proof"),
            token: "token".into(),
        }
    }

    fn read(body: Vec<u8>) -> Result<SignupRequest, WireError> {
        SignupRequest::from_body(&body.into())
    }

    #[test]
    fn work_covers_the_bytes_received() {
        let canonical = link().encode();
        // `a2` and `b8 02` are the same map: readers accept both, but hash what was sent.
        let mut other = vec![0xb8, 0x02];
        other.extend_from_slice(&canonical[1..]);
        let body = Writer::new()
            .string("alice")
            .bytes(&other)
            .bytes(&OpLog::default().encode())
            .bytes(b"proof")
            .string("token")
            .finish();
        let sent = read(body.clone()).unwrap();
        assert_eq!(*sent.link.get(), link());
        assert_eq!(sent.link.proof_data(), [&[0x81][..], &other].concat());
        assert_eq!(sent.to_body(), body, "forwarded unchanged");
        let own = request().link.proof_data();
        assert_eq!(own, ClaimChain::single(link()).encode());
    }

    #[test]
    fn every_item_is_limited() {
        assert_eq!(read(request().to_body()), Ok(request()));
        let long = SignupRequest {
            username: "x".repeat(MAX_STRING_BYTES + 1),
            ..request()
        };
        let proof = SignupRequest {
            proof: vec![0; MAX_PROOF_BYTES + 1].into(),
            ..request()
        };
        let token = SignupRequest {
            token: "x".repeat(MAX_STRING_BYTES + 1),
            ..request()
        };
        for body in [long, proof, token] {
            assert!(matches!(read(body.to_body()), Err(WireError::Stream(_))));
        }
        let ops = Writer::new()
            .string("alice")
            .bytes(&link().encode())
            .bytes(&vec![0; MAX_OP_LOG_BYTES + 1]);
        assert!(matches!(read(ops.finish()), Err(WireError::Stream(_))));
        assert!(matches!(
            read(vec![0; SignupRequest::MAX_BYTES + 1]),
            Err(WireError::TooLarge { .. })
        ));
        let body = request().to_body();
        for end in 0..body.len() {
            assert!(read(body[..end].to_vec()).is_err(), "{end}");
        }
        let longer = [&body[..], b"ignored"].concat();
        assert_eq!(read(longer), Ok(request()));
    }

    #[test]
    fn chains_of_tiny_values_are_refused_before_they_are_built() {
        let mut bomb = vec![0x9a, 0x00, 0x3f, 0xff, 0x00];
        bomb.resize(MAX_LINKS_BYTES, 0x80);
        let body = Writer::new().string("alice").bytes(&bomb).finish();
        let error = UpdateChainRequest::from_body(&body.into()).unwrap_err();
        assert!(matches!(error, WireError::TooManyValues { .. }));
    }

    #[test]
    fn replies_carry_a_difficulty_only_when_they_refuse() {
        for (reply, bytes) in [
            (SignupReply::Accepted, &[1][..]),
            (SignupReply::MoreWork(11), &[0, 0, 0, 0, 11]),
        ] {
            assert_eq!(reply.to_body(), bytes);
            assert_eq!(
                SignupReply::from_body(&Bytes::copy_from_slice(bytes)),
                Ok(reply)
            );
        }
        assert!(SignupReply::from_body(&Bytes::from_static(&[0])).is_err());
        assert_eq!(StartPaidReply::NEVER.to_body(), [0, 0, 0, 1, 0]);
    }
}
