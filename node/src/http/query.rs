//! Query parameters (Spec: 05 §4).
//!
//! Names and values are split before they are percent-decoded, `+` is a literal plus, and a repeated
//! parameter is refused except `arg`, whose values are positional.

use std::{borrow::Cow, str::FromStr};

use champ::{Cid, access::BatWithId, text};
use pki::keys::{Owner, PublicKeyHash, Writer};

use crate::error::Refusal;

/// Most parameters of one request.
const MAX_PARAMETERS: usize = 64;

/// The decoded parameters of one request.
#[derive(Debug, Default)]
pub(crate) struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> Query<'a> {
    /// Splits and decodes a query string.
    pub(crate) fn parse(query: Option<&'a str>) -> Result<Self, Refusal> {
        let mut pairs: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for part in query.unwrap_or_default().split('&') {
            if part.is_empty() && query.is_none_or(str::is_empty) {
                break;
            }
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| Refusal::malformed("Query parameter without ="))?;
            let (name, value) = (percent_decode(name)?, percent_decode(value)?);
            if pairs.len() == MAX_PARAMETERS {
                return Err(Refusal::malformed("Too many query parameters"));
            }
            if name != "arg" && pairs.iter().any(|(known, _)| *known == name) {
                return Err(Refusal::malformed("Repeated query parameter"));
            }
            pairs.push((name, value));
        }
        Ok(Self { pairs })
    }

    /// Returns a parameter that may be absent.
    pub(crate) fn optional(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_ref())
    }

    /// Returns a parameter that must be there.
    pub(crate) fn required(&self, name: &'static str) -> Result<&str, Refusal> {
        self.optional(name).ok_or(Refusal::MissingParameter(name))
    }

    /// Returns the n-th `arg`.
    pub(crate) fn argument(&self, index: usize) -> Option<&str> {
        self.pairs
            .iter()
            .filter(|(name, _)| name == "arg")
            .nth(index)
            .map(|(_, value)| value.as_ref())
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
        self.optional(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
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
pub(crate) fn parse_bat(text: &str) -> Result<BatWithId, Refusal> {
    // The decoding error names a field at most, never the token.
    BatWithId::parse(text)
        .map_err(|error| Refusal::malformed(format!("Incorrect cbor for Bat: {error}")))
}

/// Parses the text of a public key hash.
pub(crate) fn parse_key_hash(text: &str) -> Result<PublicKeyHash, Refusal> {
    PublicKeyHash::from_str(text)
        .map_err(|error| Refusal::malformed(format!("Invalid public key hash: {error}")))
}

/// Percent-decodes UTF-8; `+` stays a plus.
pub(crate) fn percent_decode(text: &str) -> Result<Cow<'_, str>, Refusal> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'%' {
            out.push(byte);
            rest = tail;
            continue;
        }
        let decoded = match tail {
            [high, low, ..] => hex_digit(*high).zip(hex_digit(*low)),
            _ => None,
        };
        let (high, low) = decoded.ok_or_else(|| Refusal::malformed("Invalid percent encoding"))?;
        out.push(high << 4 | low);
        rest = tail.get(2..).unwrap_or_default();
    }
    String::from_utf8(out)
        .map(Cow::Owned)
        .map_err(|_| Refusal::malformed("Invalid percent encoding"))
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plus_is_a_literal_plus_and_percent_twenty_a_blank() {
        let query = Query::parse(Some("email=c+d@example.com&name=my%20laptop")).unwrap();
        assert_eq!(query.required("email").unwrap(), "c+d@example.com");
        assert_eq!(query.required("name").unwrap(), "my laptop");
    }

    #[test]
    fn an_encoded_ampersand_does_not_split() {
        let query = Query::parse(Some("name=a%26owner=b")).unwrap();
        assert_eq!(query.required("name").unwrap(), "a&owner=b");
    }

    #[test]
    fn parts_without_equals_and_bad_escapes_are_refused() {
        for bad in ["foo", "a=1&&b=2", "a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert!(Query::parse(Some(bad)).is_err(), "{bad}");
        }
        assert!(Query::parse(None).is_ok());
        assert!(Query::parse(Some("")).is_ok());
    }

    #[test]
    fn only_arg_may_be_repeated() {
        assert!(Query::parse(Some("owner=a&owner=b")).is_err());
        let query = Query::parse(Some("arg=a&arg=b")).unwrap();
        assert_eq!(query.argument(1), Some("b"));
    }

    #[test]
    fn dos_8_many_parameters_are_refused_in_linear_time() {
        let many = "a=1&".repeat(100_000);
        assert!(Query::parse(Some(&many)).is_err());
    }
}
