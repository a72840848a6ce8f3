//! Every error text, read once by a person: lower case, no full stop, nothing of the cause repeated, and
//! no secret.

use champ::{Cid, SourceError, cbor::RecordError, map::ChampError};
use pki::{
    algorithm::WorkError,
    block_access::Refused,
    keys::{PublicKeyHash, ResolveError, SignatureError},
    owned::{OwnedError, ProofError},
    pointer::{HistoryError, ParseCasError, PointerCas, PointerError, PointerRejection},
    proof_of_work::{Difficulty, TooDifficult},
    signed::AuthorizationError,
    writer_data::RootError,
};

use crate::support::key;

#[test]
fn texts() {
    let writer = key(1).writer();
    let hash = PublicKeyHash::placeholder();
    let cid = Cid::of_cbor(b"x");
    let record = RecordError::Missing("controller");
    let source = SourceError::Rejected {
        cid: cid.clone(),
        reason: "no".to_owned(),
    };
    let cas = PointerCas {
        current: None,
        sequence: Some(9),
        claimed: Some(cid.clone()),
    };
    let rendered: Vec<String> = [
        &SignatureError as &dyn std::error::Error,
        &ResolveError::Placeholder,
        &ResolveError::NotFound(hash.clone()),
        &ResolveError::Malformed {
            hash: hash.clone(),
            source: record.clone(),
        },
        &ResolveError::Source {
            hash,
            source: source.clone(),
        },
        &AuthorizationError::Signature(SignatureError),
        &AuthorizationError::Malformed,
        &AuthorizationError::Stale { age_millis: 7 },
        &AuthorizationError::Path {
            path: "a/b".to_owned(),
        },
        &PointerError::TooBig { actual: 151 },
        &PointerError::Signature(SignatureError),
        &PointerError::Unchanged,
        &PointerError::Malformed(record.clone()),
        &PointerError::SequenceExhausted,
        &PointerRejection::Cas(cas),
        &PointerRejection::Sequence {
            current: Some(9),
            new: None,
        },
        &PointerRejection::SequenceLeap {
            current: None,
            new: Some(1 << 40),
        },
        &ParseCasError,
        &HistoryError::Rollback {
            writer: writer.clone(),
            seen: Some(7),
            offered: None,
        },
        &HistoryError::Fork {
            writer: writer.clone(),
            sequence: 7,
        },
        &WorkError::NotDerived,
        &WorkError::TooWeak,
        &WorkError::TooDear,
        &TooDifficult(Difficulty::IMPOSSIBLE),
        &Refused,
        &RootError::Codec(cid.clone()),
        &RootError::Malformed(record),
        &RootError::Controller { found: writer },
        &ProofError::Invalid,
        &ProofError::Key(ResolveError::Placeholder),
        &OwnedError::Source(source),
        &OwnedError::TooManyWriters { max: 3 },
        &OwnedError::TooManyBlocks { max: 3 },
        &OwnedError::Missing(cid),
        &OwnedError::Champ(ChampError::CompareAndSwap),
        &OwnedError::Root(RootError::Malformed(RecordError::Missing("controller"))),
    ]
    .iter()
    .map(ToString::to_string)
    .collect();
    let key = "z59vuwzfFDovHb5G9Rven4mJAZLiFq4aoP9EPFu7qMKRMVP3MNtE4Gs";
    let null = "zdpuAkRSUvViiQekop72wNirH9DVVm7CfFiz96XKxYgpF3uyq";
    let block = Cid::of_cbor(b"x");
    let expected = [
        "signature does not verify".to_owned(),
        "the placeholder key hash authorizes nothing".to_owned(),
        format!("key {null} is not stored"),
        format!("key {null} is malformed"),
        format!("key {null} could not be read"),
        "authorization is not signed by the expected key".to_owned(),
        "authorization holds another record".to_owned(),
        "authorization is 7 ms old".to_owned(),
        "authorization is for `a/b`".to_owned(),
        "pointer update of 151 bytes is too big".to_owned(),
        "pointer update is not signed by its writer".to_owned(),
        "pointer update changes nothing".to_owned(),
        "pointer update is malformed".to_owned(),
        "pointer sequence is exhausted".to_owned(),
        // The next three are wire texts, exact to the letter.
        format!("PointerCAS:EMPTY,9,{block}"),
        "Invalid sequence number update in mutable pointer: Optional[9] => Optional.empty".to_owned(),
        "Invalid sequence number update in mutable pointer: Optional.empty => Optional[1099511627776]"
            .to_owned(),
        "not a compare-and-swap failure".to_owned(),
        format!("pointer of {key} went back from sequence 7 to no sequence"),
        format!("pointer of {key} forked at sequence 7"),
        "the account does not log in with a password".to_owned(),
        "password hashing parameters are too weak".to_owned(),
        "password hashing parameters ask for too much work".to_owned(),
        "the server asks for a proof of difficulty 256".to_owned(),
        "block access is not authorized".to_owned(),
        format!("root block {block} is not dag-cbor"),
        "root block is malformed".to_owned(),
        format!("root block belongs to {key}"),
        "owner proof does not verify".to_owned(),
        "owner proof names a key that cannot be read".to_owned(),
        "ownership could not be read".to_owned(),
        "more than 3 owned writers".to_owned(),
        "more than 3 blocks of ownership".to_owned(),
        format!("block {block} of an ownership record is missing"),
        "owned key champ is damaged".to_owned(),
        "root block cannot be used".to_owned(),
    ];
    assert_eq!(rendered, expected);
}
