//! Query strings (Spec: 05 §4).
//!
//! Split first, then percent-decode; `+` is a literal plus; a part without `=` is an error; only `arg` may
//! repeat. Parameters nobody asks for are ignored.

use std::borrow::Cow;

use champ::{
    Cid,
    access::BatWithId,
    cbor::Record,
    text::{self, from_hex},
};

/// Longest query string that is parsed, in bytes. Official requests stay below 16 KiB.
pub const MAX_QUERY_BYTES: usize = 64 << 10;
/// Most parameters in one query string. Official requests have at most 8.
pub const MAX_PARAMETERS: usize = 32;

/// The one parameter that may be repeated.
const POSITIONAL: &str = "arg";

/// The decoded parameters of one request, in order of appearance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query<'a> {
    parameters: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

/// Why a query string or one of its values is refused. No variant carries a value: many are secrets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// More than [`MAX_QUERY_BYTES`].
    #[error("query string is too long")]
    TooLong,
    /// More than [`MAX_PARAMETERS`].
    #[error("too many query parameters")]
    TooManyParameters,
    /// A part without `=`.
    #[error("query part without `=`")]
    MissingEquals,
    /// `%` without two hex digits, or bytes that are not UTF-8.
    #[error("invalid percent encoding in query")]
    PercentEncoding,
    /// A parameter other than `arg` that occurs twice.
    #[error("repeated query parameter")]
    Repeated,
    /// A required parameter is missing.
    #[error("missing parameter `{0}`")]
    Missing(&'static str),
    /// A value that is not of the parameter's kind.
    #[error("malformed parameter `{0}`")]
    Malformed(&'static str),
}

impl<'a> Query<'a> {
    /// Parses what stands after `?`; nothing at all is no parameters.
    ///
    /// # Errors
    /// [`QueryError`], all but [`QueryError::Missing`] and [`QueryError::Malformed`].
    pub fn parse(raw: &'a str) -> Result<Self, QueryError> {
        if raw.is_empty() {
            return Ok(Self::default());
        }
        if raw.len() > MAX_QUERY_BYTES {
            return Err(QueryError::TooLong);
        }
        let mut parameters: Vec<(Cow<'a, str>, Cow<'a, str>)> = Vec::new();
        for part in raw.split('&') {
            if parameters.len() == MAX_PARAMETERS {
                return Err(QueryError::TooManyParameters);
            }
            let (name, value) = part.split_once('=').ok_or(QueryError::MissingEquals)?;
            let name = percent_decode(name).ok_or(QueryError::PercentEncoding)?;
            let value = percent_decode(value).ok_or(QueryError::PercentEncoding)?;
            if name != POSITIONAL && parameters.iter().any(|(n, _)| *n == name) {
                return Err(QueryError::Repeated);
            }
            parameters.push((name, value));
        }
        Ok(Self { parameters })
    }

    /// Returns a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_ref())
    }

    /// Returns a parameter that must be there.
    ///
    /// # Errors
    /// [`QueryError::Missing`].
    pub fn required(&self, name: &'static str) -> Result<&str, QueryError> {
        self.get(name).ok_or(QueryError::Missing(name))
    }

    /// Returns the values of `arg` in order.
    pub fn positional(&self) -> impl Iterator<Item = &str> {
        self.parameters
            .iter()
            .filter(|(name, _)| name == POSITIONAL)
            .map(|(_, value)| value.as_ref())
    }

    /// Returns a required value in whatever kind `T` parses; public key hashes, CIDs, user names.
    ///
    /// # Errors
    /// [`QueryError::Missing`], [`QueryError::Malformed`].
    pub fn parsed<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, QueryError> {
        self.required(name)?
            .parse()
            .map_err(|_| QueryError::Malformed(name))
    }

    /// Returns a required CID.
    ///
    /// # Errors
    /// [`QueryError::Missing`], [`QueryError::Malformed`].
    pub fn cid(&self, name: &'static str) -> Result<Cid, QueryError> {
        self.parsed(name)
    }

    /// Returns a required value in hex.
    ///
    /// # Errors
    /// [`QueryError::Missing`], [`QueryError::Malformed`] (odd lengths included).
    pub fn hex(&self, name: &'static str) -> Result<Vec<u8>, QueryError> {
        from_hex(self.required(name)?).map_err(|_| QueryError::Malformed(name))
    }

    /// Returns a record sent as hex of its CBOR.
    ///
    /// # Errors
    /// [`QueryError::Missing`], [`QueryError::Malformed`].
    pub fn hex_record<R: Record>(&self, name: &'static str) -> Result<R, QueryError> {
        R::decode(&self.hex(name)?).map_err(|_| QueryError::Malformed(name))
    }

    /// Returns a required decimal integer.
    ///
    /// # Errors
    /// [`QueryError::Missing`], [`QueryError::Malformed`].
    pub fn integer(&self, name: &'static str) -> Result<i64, QueryError> {
        self.parsed(name)
    }

    /// Returns true for `true` in any letter case, false for everything else and for absence.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Returns the `bat` parameter when it is there.
    ///
    /// # Errors
    /// [`QueryError::Malformed`].
    pub fn token(&self) -> Result<Option<BatWithId>, QueryError> {
        self.get("bat")
            .map(|value| BatWithId::parse(value).map_err(|_| QueryError::Malformed("bat")))
            .transpose()
    }

    /// Returns the bytes of a multibase value.
    ///
    /// # Errors
    /// [`QueryError::Missing`], [`QueryError::Malformed`].
    pub fn multibase(&self, name: &'static str) -> Result<Vec<u8>, QueryError> {
        text::from_multibase(self.required(name)?).map_err(|_| QueryError::Malformed(name))
    }

    /// Visits all parameters in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.parameters
            .iter()
            .map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// Writes the parameters as a client does.
    pub fn to_text(&self) -> String {
        encode_query(self.iter())
    }
}

/// Writes parameters as a query string, without the `?`.
///
/// Percent-encodes everything but letters, digits and `-._~*,:@`: what official clients send unencoded
/// (lists of numbers, mail addresses) looks the same. A blank is `%20`, a plus is `%2B`, since servers
/// disagree about a bare one.
pub fn encode_query<'a>(parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut out = String::new();
    for (name, value) in parameters {
        if !out.is_empty() {
            out.push('&');
        }
        percent_encode(name, &mut out);
        out.push('=');
        percent_encode(value, &mut out);
    }
    out
}

fn percent_encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => out.push(char::from(byte)),
            b'-' | b'.' | b'_' | b'~' | b'*' | b',' | b':' | b'@' => out.push(char::from(byte)),
            other => push_percent(other, out),
        }
    }
}

/// Appends `%XX` in upper case.
pub(super) fn push_percent(byte: u8, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    for nibble in [byte >> 4, byte & 15] {
        out.extend(DIGITS.get(usize::from(nibble)).copied().map(char::from));
    }
}

/// Decodes `%XX`; none when an escape is malformed or the result is not UTF-8.
pub fn percent_decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let (pair, after) = after.split_first_chunk::<2>()?;
            out.push(hex_pair(*pair)?);
            rest = after;
        } else {
            out.push(byte);
            rest = after;
        }
    }
    String::from_utf8(out).ok().map(Cow::Owned)
}

/// Reads two hex digits of either case.
pub(super) fn hex_pair([high, low]: [u8; 2]) -> Option<u8> {
    let digit = |c: u8| char::from(c).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn splitting_comes_before_decoding() {
        let query = Query::parse("a=1%262&b=%3D%3d&c+d=e+f").unwrap();
        assert_eq!(query.get("a"), Some("1&2"));
        assert_eq!(query.get("b"), Some("=="));
        assert_eq!(query.get("c+d"), Some("e+f"), "plus is literal");
        assert_eq!(Query::parse("a=b=c").unwrap().get("a"), Some("b=c"));
        assert_eq!(Query::parse("a=").unwrap().get("a"), Some(""));
        assert_eq!(Query::parse("").unwrap().iter().len(), 0);
    }

    #[test]
    fn malformed_queries_are_refused() {
        for (raw, error) in [
            ("foo", QueryError::MissingEquals),
            ("a=1&foo", QueryError::MissingEquals),
            ("a=1&&b=2", QueryError::MissingEquals),
            ("a=1&", QueryError::MissingEquals),
            ("a=%", QueryError::PercentEncoding),
            ("a=%4", QueryError::PercentEncoding),
            ("a=%zz", QueryError::PercentEncoding),
            ("a=%+1", QueryError::PercentEncoding),
            ("a=%ff", QueryError::PercentEncoding),
            ("%ff=a", QueryError::PercentEncoding),
            ("a=1&a=1", QueryError::Repeated),
            ("a=1&%61=2", QueryError::Repeated),
        ] {
            assert_eq!(Query::parse(raw), Err(error), "{raw}");
        }
    }

    #[test]
    fn arg_is_positional() {
        let query = Query::parse("arg=x&owner=o&arg=y").unwrap();
        assert_eq!(query.positional().collect::<Vec<_>>(), ["x", "y"]);
        assert_eq!(query.get("arg"), Some("x"));
    }

    #[test]
    fn length_and_count_are_bounded() {
        let long = format!("a={}", "x".repeat(MAX_QUERY_BYTES));
        assert_eq!(Query::parse(&long), Err(QueryError::TooLong));
        let parts: Vec<_> = (0..=MAX_PARAMETERS).map(|i| format!("a{i}=")).collect();
        assert_eq!(
            Query::parse(&parts.join("&")),
            Err(QueryError::TooManyParameters)
        );
        assert!(Query::parse(&parts[1..].join("&")).is_ok());
    }

    #[test]
    fn values_have_kinds() {
        let query = Query::parse("x=0aFf&odd=abc&t=TrUe&f=yes&n=-12&bad=zz").unwrap();
        assert_eq!(query.hex("x"), Ok(vec![0x0a, 0xff]));
        assert_eq!(query.hex("odd"), Err(QueryError::Malformed("odd")));
        assert_eq!(query.hex("bad"), Err(QueryError::Malformed("bad")));
        assert_eq!(query.hex("none"), Err(QueryError::Missing("none")));
        assert!(query.flag("t") && !query.flag("f") && !query.flag("none"));
        assert_eq!(query.integer("n"), Ok(-12));
        assert_eq!(query.integer("x"), Err(QueryError::Malformed("x")));
        assert_eq!(query.cid("bad"), Err(QueryError::Malformed("bad")));
        assert_eq!(query.token(), Ok(None));
        assert!(Query::parse("bat=z11").unwrap().token().is_err());
    }

    #[test]
    fn clients_encode_what_matters() {
        let text = encode_query([("name", "my laptop"), ("email", "a+b@c.de"), ("x", "ü&=%")]);
        assert_eq!(text, "name=my%20laptop&email=a%2Bb@c.de&x=%C3%BC%26%3D%25");
        assert_eq!(Query::parse(&text).unwrap().to_text(), text);
    }

    proptest! {
        #[test]
        fn any_parameters_round_trip(pairs in prop::collection::btree_map(".{0,9}", ".{0,40}", 0..8)) {
            let text = encode_query(pairs.iter().map(|(k, v)| (k.as_str(), v.as_str())));
            let query = Query::parse(&text).unwrap();
            prop_assert_eq!(query.iter().map(|(k, v)| (k.to_owned(), v.to_owned()))
                .collect::<std::collections::BTreeMap<_, _>>(), pairs);
        }

        #[test]
        fn any_text_is_parsed_or_refused(raw in "\\PC{0,60}") {
            let _ = Query::parse(&raw);
        }
    }
}
