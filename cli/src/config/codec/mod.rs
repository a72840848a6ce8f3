//! The forms of values: how each is read from text or TOML, and written back.

mod lists;
mod numbers;
mod places;

use std::{marker::PhantomData, path::PathBuf, str::FromStr};

use champ::access::Bat;
use node::p2p::{DialScope, NotAScope};

use crate::args::LogFormat;

pub(super) use lists::{Each, Ids, Names, Texts};
pub(super) use numbers::{Count, Flag, Floor, Size, SizeInMemory, Span};
pub(super) use places::{Address, Blocks, Folder, Metadata};

/// A value as it was given.
#[derive(Debug, Clone)]
pub(super) struct Given {
    pub(super) raw: Raw,
    /// Relative paths start here; at the working folder when absent.
    pub(super) base: Option<PathBuf>,
}

/// A value before its form is known.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Raw {
    Text(String),
    Integer(i64),
    Bool(bool),
    List(Vec<String>),
    /// Something no setting is.
    Other(&'static str),
}

impl Given {
    pub(super) fn text(text: &str) -> Self {
        Self {
            raw: Raw::Text(text.trim().to_owned()),
            base: None,
        }
    }
}

/// A form of values.
pub(super) trait Codec {
    /// What it is in the program.
    type Value;
    /// What people are told, for example `size`.
    const FORM: &'static str;

    /// Reads a value, or says what one looks like.
    fn read(given: &Given) -> Result<Self::Value, String>;

    /// Writes a value as TOML; `None` for one that is not set.
    fn show(value: &Self::Value) -> Option<String>;
}

fn wrong<T>(what: &str) -> Result<T, String> {
    Err(format!("expected {what}"))
}

/// Returns a TOML string.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

pub(super) struct Text;

impl Codec for Text {
    type Value = String;
    const FORM: &'static str = "text";

    fn read(given: &Given) -> Result<String, String> {
        match &given.raw {
            Raw::Text(text) if !text.is_empty() => Ok(text.clone()),
            _ => wrong("a text"),
        }
    }

    fn show(value: &String) -> Option<String> {
        Some(quoted(value))
    }
}

/// A value that may be absent: empty text means so.
pub(super) struct Maybe<C>(PhantomData<C>);

impl<C: Codec> Codec for Maybe<C> {
    type Value = Option<C::Value>;
    const FORM: &'static str = C::FORM;

    fn read(given: &Given) -> Result<Self::Value, String> {
        if matches!(&given.raw, Raw::Text(text) if text.is_empty()) {
            return Ok(None);
        }
        C::read(given).map(Some)
    }

    fn show(value: &Self::Value) -> Option<String> {
        value.as_ref().and_then(C::show)
    }
}

/// A text that its type reads.
pub(super) struct Parsed<T>(PhantomData<T>);

impl<T: FromStr<Err: ToString> + ToString> Codec for Parsed<T> {
    type Value = T;
    const FORM: &'static str = "text";

    fn read(given: &Given) -> Result<T, String> {
        match &given.raw {
            Raw::Text(text) => text.parse().map_err(|error: T::Err| error.to_string()),
            _ => wrong("a text"),
        }
    }

    fn show(value: &T) -> Option<String> {
        Some(quoted(&value.to_string()))
    }
}

pub(super) struct Token;

impl Codec for Token {
    type Value = Bat;
    const FORM: &'static str = "block access token";

    fn read(given: &Given) -> Result<Bat, String> {
        match &given.raw {
            // What was given stays out of the message: it is a secret.
            Raw::Text(text) => Bat::parse(text).or_else(|_| wrong("a block access token as text")),
            _ => wrong("a block access token as text"),
        }
    }

    fn show(_: &Bat) -> Option<String> {
        Some(quoted("set"))
    }
}

/// How far the node goes to reach others.
pub(super) struct Scope;

impl Codec for Scope {
    type Value = DialScope;
    const FORM: &'static str = "\"public\", \"private\" or \"any\"";

    fn read(given: &Given) -> Result<DialScope, String> {
        match &given.raw {
            Raw::Text(text) => text.parse().map_err(|error: NotAScope| error.to_string()),
            _ => Err(NotAScope.to_string()),
        }
    }

    fn show(value: &DialScope) -> Option<String> {
        Some(quoted(&value.to_string()))
    }
}

pub(super) struct Format;

impl Codec for Format {
    type Value = LogFormat;
    const FORM: &'static str = "\"text\" or \"json\"";

    fn read(given: &Given) -> Result<LogFormat, String> {
        match &given.raw {
            Raw::Text(text) if text == "text" => Ok(LogFormat::Text),
            Raw::Text(text) if text == "json" => Ok(LogFormat::Json),
            _ => wrong("\"text\" or \"json\""),
        }
    }

    fn show(value: &LogFormat) -> Option<String> {
        Some(quoted(match value {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_shown_or_repeated() {
        let refused = Token::read(&Given::text("a-secret-typed-wrong")).unwrap_err();
        assert!(!refused.contains("a-secret"), "{refused}");
        let bat = Bat::from_secret([3; 32]);
        assert_eq!(Token::show(&bat).unwrap(), "\"set\"");
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(quoted("a\"b\\c\n\u{1b}"), "\"a\\\"b\\\\c\\n\\u001B\"");
    }
}
