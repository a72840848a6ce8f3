//! Every error text of names, chains and bodies, read once by a person.
//!
//! Texts with a capital letter and an exclamation mark are those of official servers: clients show or
//! compare them.

use champ::{cbor::RecordError, data_stream::DataStreamError};
use pki::{
    chain::{InvalidChain, Kept, MergeError, NotTrusted, RegistrationError},
    claim::{InvalidClaim, NotADate},
    keys::SignatureError,
    username::{Username, UsernameError},
    wire::{WireError, link::LabelError, query::QueryError, second_factor::FactorNameTooLong},
};

#[test]
fn texts() {
    let name = Username::parse("alice").unwrap();
    let errors: &[&dyn std::error::Error] = &[
        &UsernameError::Empty,
        &UsernameError::TooLong,
        &UsernameError::WhiteSpace,
        &UsernameError::NotRegistrable,
        &NotADate,
        &InvalidClaim::OtherName,
        &InvalidClaim::TooManyProviders(2),
        &InvalidClaim::Signature(SignatureError),
        &InvalidClaim::Payload(DataStreamError::Truncated),
        &InvalidClaim::Mismatch,
        &InvalidChain::Empty,
        &InvalidChain::Providers {
            index: 1,
            actual: 2,
        },
        &InvalidChain::UnknownKey,
        &InvalidChain::Claim(InvalidClaim::Mismatch),
        &InvalidChain::NoKeyChange,
        &InvalidChain::KeyChange(SignatureError),
        &InvalidChain::OtherSuccessor,
        &MergeError::FirstChainLength(2),
        &MergeError::InvalidFirstClaim(InvalidChain::Empty),
        &MergeError::NothingNew,
        &MergeError::EarlierExpiry,
        &MergeError::OtherKey,
        &MergeError::OtherKeys,
        &MergeError::ReusedKey,
        &MergeError::InvalidResult(InvalidChain::Empty),
        &MergeError::TooLong,
        &Kept::Removed,
        &Kept::NotAnExtension(MergeError::OtherKey),
        &Kept::OtherResult,
        &NotTrusted::Invalid {
            name: name.clone(),
            source: InvalidChain::Empty,
        },
        &NotTrusted::Unsigned {
            name: name.clone(),
            source: MergeError::OtherKey,
        },
        &NotTrusted::NotTheOwner { name },
        &RegistrationError::Username(UsernameError::NotRegistrable),
        &RegistrationError::Merge(MergeError::OtherKey),
        &RegistrationError::KeyBound,
        &RegistrationError::Reserved,
        &RegistrationError::PlaceholderProvider,
        &QueryError::TooLong,
        &QueryError::TooManyParameters,
        &QueryError::MissingEquals,
        &QueryError::PercentEncoding,
        &QueryError::Repeated,
        &QueryError::Missing("owner"),
        &QueryError::Malformed("owner"),
        &WireError::TooLarge { max: 4096 },
        &WireError::TooManyValues { max: 9 },
        &WireError::TooMany {
            what: "blocks",
            actual: 3,
            max: 2,
        },
        &WireError::UnequalGroup {
            blocks: 2,
            signatures: 1,
        },
        &WireError::TooManyCaps(21),
        &WireError::TooManyReads,
        &WireError::TooManyWrites,
        &WireError::BlockSize(-1),
        &WireError::Record(RecordError::Missing("b")),
        &WireError::Stream(DataStreamError::Truncated),
        &WireError::Text("caps"),
        &LabelError::NotPositive,
        &LabelError::Malformed,
        &FactorNameTooLong,
    ];
    let rendered: Vec<_> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(rendered.join("\n"), EXPECTED.trim());
}

const EXPECTED: &str = "
user name is empty
user name is longer than 64 bytes
user name contains white space
Invalid username
not an iso date
claim is for another name
claim has 2 storage providers
claim signature does not verify
claim payload is malformed
claim payload differs from the claim
claim chain is empty
claim 1 of the chain has 2 storage providers
claim owner's key is unknown
claim chain holds an invalid claim
claim chain lacks a key change
key change signature does not verify
key change is for another key
First claim chain must have exactly one link!
Invalid first claim!
Claim chain update without new links!
New claim chain expiry before existing!
User already exists: Invalid key change attempt!
Different keys in merge chains intersection!
You cannot reuse a previous password!
Invalid key chain merge!
Claim chain too long!
the name was removed from the table
the new chain does not extend the old one
the new chain is not the result of its merge
the claim chain of alice is not valid
the key of alice changed in a way that alice did not sign
the key does not belong to alice
Invalid username
User already exists: Invalid key change attempt!
Identity key already has a username!
Username already reserved!
Claim names no server!
query string is too long
too many query parameters
query part without `=`
invalid percent encoding in query
repeated query parameter
missing parameter `owner`
malformed parameter `owner`
Input exceeds maximum size of 4096 bytes
body holds more than 9 values
3 blocks are more than 2
Different number of of blocks and signatures! 2 != 1
Too many caps in bulk champ get call! 21
Too many reads to auth!
Too many writes to auth!
Invalid block size: -1
malformed body
malformed body
malformed caps
Link labels must be positive!
malformed link label
Second factor names must be smaller than 33 characters
";
