//! Query parameters as the calls want them (Spec: 05 §4); splitting and decoding are
//! [`pki::wire::query`]'s.

use std::str::FromStr;

use champ::{Cid, access::BatWithId, text};
use pki::{
    keys::{Owner, PublicKeyHash, Writer},
    wire::query::{self, QueryError},
};

use crate::error::Refusal;

/// The decoded parameters of one request.
#[derive(Debug, Default)]
pub(crate) struct Query<'a>(query::Query<'a>);

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::Missing(name) => Self::MissingParameter(name),
            other => Self::malformed(other.to_string()),
        }
    }
}

impl<'a> Query<'a> {
    /// Splits and decodes a query string.
    pub(crate) fn parse(query: Option<&'a str>) -> Result<Self, Refusal> {
        Ok(Self(query::Query::parse(query.unwrap_or_default())?))
    }

    /// Returns the parameters without the node's own rules.
    pub(crate) const fn wire(&self) -> &query::Query<'a> {
        &self.0
    }

    /// Returns a parameter that may be absent.
    pub(crate) fn optional(&self, name: &str) -> Option<&str> {
        self.0.get(name)
    }

    /// Returns a parameter that must be there.
    pub(crate) fn required(&self, name: &'static str) -> Result<&str, Refusal> {
        Ok(self.0.required(name)?)
    }

    /// Returns the n-th `arg`.
    pub(crate) fn argument(&self, index: usize) -> Option<&str> {
        self.0.positional().nth(index)
    }

    /// Returns the first `arg` as a CID.
    pub(crate) fn cid_argument(&self) -> Result<Cid, Refusal> {
        let text = self.argument(0).ok_or(Refusal::MissingParameter("arg"))?;
        Cid::from_str(text).map_err(|error| Refusal::malformed(format!("Invalid cid: {error}")))
    }

    /// Returns `owner` as an identity key hash.
    pub(crate) fn owner(&self) -> Result<Owner, Refusal> {
        // The reference text for a missing owner; some clients show it.
        let text = self.optional("owner").ok_or(Refusal::UnknownName)?;
        parse_key_hash(text).map(Owner)
    }

    /// Returns `writer` as a signing key hash.
    pub(crate) fn writer(&self) -> Result<Writer, Refusal> {
        parse_key_hash(self.required("writer")?).map(Writer)
    }

    /// Returns a boolean: `true` in any letter case, everything else is false.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0.flag(name)
    }

    /// Returns hex bytes.
    pub(crate) fn hex(&self, name: &'static str) -> Result<Vec<u8>, Refusal> {
        text::from_hex(self.required(name)?)
            .map_err(|_| Refusal::malformed(format!("Invalid hex in parameter {name}")))
    }

    /// Returns the optional `bat`.
    pub(crate) fn bat(&self) -> Result<Option<BatWithId>, Refusal> {
        self.optional("bat").map(parse_bat).transpose()
    }
}

/// Parses an access token in its string form.
fn parse_bat(text: &str) -> Result<BatWithId, Refusal> {
    // The decoding error names a field at most, never the token.
    BatWithId::parse(text)
        .map_err(|error| Refusal::malformed(format!("Incorrect cbor for Bat: {error}")))
}

/// Parses the text of a public key hash.
pub(crate) fn parse_key_hash(text: &str) -> Result<PublicKeyHash, Refusal> {
    PublicKeyHash::from_str(text)
        .map_err(|error| Refusal::malformed(format!("Invalid public key hash: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_without_equals_bad_escapes_and_repetitions_are_refused() {
        for bad in [
            "foo",
            "a=1&&b=2",
            "a=%",
            "a=%4",
            "a=%zz",
            "a=%ff",
            "owner=a&owner=b",
        ] {
            assert!(
                matches!(Query::parse(Some(bad)), Err(Refusal::Malformed(_))),
                "{bad}"
            );
        }
        assert!(Query::parse(None).is_ok());
        assert!(Query::parse(Some("")).is_ok());
    }

    #[test]
    fn missing_parameters_are_named_and_the_owner_in_the_reference_words() {
        let query = Query::parse(Some("arg=a&arg=b")).unwrap();
        assert_eq!(query.argument(1), Some("b"));
        assert_eq!(
            query.required("auth").unwrap_err().to_string(),
            "Missing parameter: auth"
        );
        assert_eq!(query.owner().unwrap_err().to_string(), "No value present");
    }
}
