//! The forms of values: how each is read from text or TOML, and written back.

use std::{
    collections::BTreeSet,
    marker::PhantomData,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use champ::{Cid, access::Bat};
use node::{
    BlockPlace, MetadataPlace,
    p2p::{DialScope, NotAScope},
    store::{FreeFloor, PostgresOptions, s3::S3Options},
};
use pki::username::Username;

use crate::{args::LogFormat, human};

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

pub(super) struct Flag;

impl Codec for Flag {
    type Value = bool;
    const FORM: &'static str = "true or false";

    fn read(given: &Given) -> Result<bool, String> {
        match &given.raw {
            Raw::Bool(value) => Ok(*value),
            Raw::Text(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" => Ok(true),
                "false" | "no" | "0" => Ok(false),
                _ => wrong("true or false"),
            },
            _ => wrong("true or false"),
        }
    }

    fn show(value: &bool) -> Option<String> {
        Some(value.to_string())
    }
}

/// A whole number of type `T`.
pub(super) struct Count<T>(PhantomData<T>);

impl<T: TryFrom<i64> + Copy + std::fmt::Display> Codec for Count<T> {
    type Value = T;
    const FORM: &'static str = "number";

    fn read(given: &Given) -> Result<T, String> {
        let number = match &given.raw {
            Raw::Integer(number) => Some(*number),
            Raw::Text(text) => text.replace('_', "").parse().ok(),
            _ => None,
        };
        number
            .and_then(|number| T::try_from(number).ok())
            .map_or_else(|| wrong("a whole number that is not negative"), Ok)
    }

    fn show(value: &T) -> Option<String> {
        Some(value.to_string())
    }
}

pub(super) struct Size;

impl Codec for Size {
    type Value = u64;
    const FORM: &'static str = "size";

    fn read(given: &Given) -> Result<u64, String> {
        let what = "a size such as \"10 GiB\" (units K, M, G, T are powers of 1024)";
        match &given.raw {
            Raw::Integer(bytes) => u64::try_from(*bytes).or_else(|_| wrong(what)),
            Raw::Text(text) => human::parse_size(text).or_else(|_| wrong(what)),
            _ => wrong(what),
        }
    }

    fn show(value: &u64) -> Option<String> {
        Some(quoted(&exact_size(*value)))
    }
}

/// A size of something that is held in memory.
pub(super) struct SizeInMemory;

impl Codec for SizeInMemory {
    type Value = usize;
    const FORM: &'static str = Size::FORM;

    fn read(given: &Given) -> Result<usize, String> {
        usize::try_from(Size::read(given)?).or_else(|_| wrong("a size that fits into memory"))
    }

    fn show(value: &usize) -> Option<String> {
        Size::show(&u64::try_from(*value).unwrap_or(u64::MAX))
    }
}

/// Returns a size that reads back as the same number.
pub(super) fn exact_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        let unit_bytes = 1_u64 << shift;
        if bytes >= unit_bytes && bytes.is_multiple_of(unit_bytes) {
            return format!("{} {unit}", bytes / unit_bytes);
        }
    }
    format!("{bytes} B")
}

pub(super) struct Span;

impl Codec for Span {
    type Value = Duration;
    const FORM: &'static str = "duration";

    fn read(given: &Given) -> Result<Duration, String> {
        let what = "a duration with a unit, such as \"30 s\" (units ms, s, min, h, d)";
        match &given.raw {
            Raw::Text(text) => parse_duration(text).map_or_else(|| wrong(what), Ok),
            _ => wrong(what),
        }
    }

    fn show(value: &Duration) -> Option<String> {
        Some(quoted(&exact_duration(*value)))
    }
}

const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("min", 60_000),
    ("s", 1000),
    ("ms", 1),
];

fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let digits = text.get(..text.len() - unit.len())?;
    let unit = match unit.trim() {
        "m" => "min",
        "sec" => "s",
        "day" | "days" => "d",
        unit => unit,
    };
    let (_, millis) = DURATION_UNITS.iter().find(|(name, _)| *name == unit)?;
    let count: u64 = digits.parse().ok()?;
    Some(Duration::from_millis(count.checked_mul(*millis)?))
}

/// Returns a duration that reads back as the same milliseconds.
pub(super) fn exact_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    for (unit, size) in DURATION_UNITS {
        if millis >= size && millis.is_multiple_of(size) {
            return format!("{} {unit}", millis / size);
        }
    }
    "0 s".to_owned()
}

pub(super) struct Folder;

impl Codec for Folder {
    type Value = PathBuf;
    const FORM: &'static str = "path";

    fn read(given: &Given) -> Result<PathBuf, String> {
        match &given.raw {
            Raw::Text(text) if !text.is_empty() => Ok(match &given.base {
                Some(base) => base.join(text),
                None => Path::new(text).to_path_buf(),
            }),
            _ => wrong("a path"),
        }
    }

    fn show(value: &PathBuf) -> Option<String> {
        Some(quoted(&value.display().to_string()))
    }
}

pub(super) struct Address;

impl Codec for Address {
    type Value = SocketAddr;
    const FORM: &'static str = "address:port";

    fn read(given: &Given) -> Result<SocketAddr, String> {
        let what = "ADDRESS:PORT, for example 127.0.0.1:8000 or 0.0.0.0:8000";
        let Raw::Text(text) = &given.raw else {
            return wrong(what);
        };
        let first = text.to_socket_addrs().ok().and_then(|mut all| all.next());
        first.map_or_else(|| wrong(what), Ok)
    }

    fn show(value: &SocketAddr) -> Option<String> {
        Some(quoted(&value.to_string()))
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

/// Returns the items of a list; on the command line and in the environment they are separated by commas.
fn list(given: &Given) -> Result<Vec<String>, String> {
    match &given.raw {
        Raw::List(items) => Ok(items.clone()),
        Raw::Text(text) => Ok(text
            .split(',')
            .map(|item| item.trim().to_owned())
            .filter(|item| !item.is_empty())
            .collect()),
        _ => wrong("a list of texts"),
    }
}

fn show_list<T: ToString>(items: impl IntoIterator<Item = T>) -> Option<String> {
    let items: Vec<_> = items
        .into_iter()
        .map(|item| quoted(&item.to_string()))
        .collect();
    Some(format!("[{}]", items.join(", ")))
}

pub(super) struct Texts;

impl Codec for Texts {
    type Value = Vec<String>;
    const FORM: &'static str = "list";

    fn read(given: &Given) -> Result<Vec<String>, String> {
        list(given)
    }

    fn show(value: &Vec<String>) -> Option<String> {
        show_list(value)
    }
}

pub(super) struct Names;

impl Codec for Names {
    type Value = BTreeSet<String>;
    const FORM: &'static str = "list of user names";

    fn read(given: &Given) -> Result<BTreeSet<String>, String> {
        let names = list(given)?;
        match names.iter().find(|name| Username::parse(name).is_err()) {
            Some(name) => Err(format!("`{name}` is not a user name")),
            None => Ok(names.into_iter().collect()),
        }
    }

    fn show(value: &BTreeSet<String>) -> Option<String> {
        show_list(value)
    }
}

/// A list of what the program reads from text by itself, in the collection `L`.
pub(super) struct Each<L>(PhantomData<L>);

impl<L, T> Codec for Each<L>
where
    L: IntoIterator<Item = T> + FromIterator<T>,
    for<'a> &'a L: IntoIterator<Item = &'a T>,
    T: FromStr<Err: ToString> + ToString + 'static,
{
    type Value = L;
    const FORM: &'static str = "list";

    fn read(given: &Given) -> Result<L, String> {
        list(given)?
            .iter()
            .map(|item| {
                item.parse()
                    .map_err(|error: T::Err| format!("`{item}`: {}", error.to_string()))
            })
            .collect()
    }

    fn show(value: &L) -> Option<String> {
        show_list(value.into_iter().map(ToString::to_string))
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

pub(super) struct Ids;

impl Codec for Ids {
    type Value = Vec<Cid>;
    const FORM: &'static str = "list of server ids";

    fn read(given: &Given) -> Result<Vec<Cid>, String> {
        let ids = list(given)?;
        ids.iter()
            .map(|id| Cid::parse_peer_id(id).map_err(|_| format!("`{id}` is not a server id")))
            .collect()
    }

    fn show(value: &Vec<Cid>) -> Option<String> {
        show_list(value)
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

pub(super) struct Floor;

impl Codec for Floor {
    type Value = FreeFloor;
    const FORM: &'static str = "size or \"default\"";

    fn read(given: &Given) -> Result<FreeFloor, String> {
        match &given.raw {
            Raw::Text(text) if text == "default" => Ok(FreeFloor::Default),
            _ => Size::read(given).map(FreeFloor::Bytes),
        }
    }

    fn show(value: &FreeFloor) -> Option<String> {
        match value {
            FreeFloor::Bytes(bytes) => Size::show(bytes),
            _ => Some(quoted("default")),
        }
    }
}

/// Where metadata is kept: `folder`, or the address of a database.
pub(super) struct Metadata;

impl Codec for Metadata {
    type Value = MetadataPlace;
    const FORM: &'static str = "\"folder\" or postgres://...";

    fn read(given: &Given) -> Result<MetadataPlace, String> {
        match &given.raw {
            Raw::Text(text) if text == "folder" => Ok(MetadataPlace::Data),
            Raw::Text(text) => match PostgresOptions::parse(text) {
                Ok(options) => Ok(MetadataPlace::Postgres(Box::new(options))),
                Err(error) => Err(format!("expected \"folder\" or a database: {error}")),
            },
            _ => wrong("\"folder\" or postgres://USER@HOST/DATABASE"),
        }
    }

    fn show(value: &MetadataPlace) -> Option<String> {
        // There may be a password in an address.
        Some(quoted(match value {
            MetadataPlace::Postgres(_) => "set",
            _ => "folder",
        }))
    }
}

/// Where blocks are kept: `folder`, or the line of a bucket.
pub(super) struct Blocks;

impl Codec for Blocks {
    type Value = BlockPlace;
    const FORM: &'static str = "\"folder\" or s3://...";

    fn read(given: &Given) -> Result<BlockPlace, String> {
        match &given.raw {
            Raw::Text(text) if text == "folder" => Ok(BlockPlace::WithMetadata),
            Raw::Text(text) => match S3Options::parse(text) {
                Ok(options) => Ok(BlockPlace::S3(Box::new(options))),
                Err(error) => Err(format!("expected \"folder\" or a bucket: {error}")),
            },
            _ => wrong("\"folder\" or s3://BUCKET"),
        }
    }

    fn show(value: &BlockPlace) -> Option<String> {
        let BlockPlace::S3(options) = value else {
            return Some(quoted("folder"));
        };
        let mut line = format!("s3://{}", options.bucket);
        if !options.prefix.is_empty() {
            line.push_str(&format!("/{}", options.prefix));
        }
        let style = options.path_style.map(|is_path| match is_path {
            true => "path".to_owned(),
            false => "host".to_owned(),
        });
        let yes = |is: bool| is.then(|| "yes".to_owned());
        let cache = (options.cache_bytes > 0).then(|| options.cache_bytes.to_string());
        let parameters = [
            ("region", options.region.clone()),
            ("endpoint", options.endpoint.clone()),
            ("style", style),
            ("direct", yes(options.direct_access)),
            ("allow-http", yes(options.allow_http)),
            ("cache", cache),
        ];
        let given = parameters
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name}={}", value?)));
        let given: Vec<String> = given.collect();
        if !given.is_empty() {
            line.push_str(&format!("?{}", given.join("&")));
        }
        Some(quoted(&line))
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
    fn durations_have_units_and_read_back() {
        for (text, millis) in [
            ("30 s", 30_000),
            ("30s", 30_000),
            ("500 ms", 500),
            ("5 min", 300_000),
            ("5m", 300_000),
            ("24 h", 86_400_000),
            ("2 days", 172_800_000),
            ("0 s", 0),
        ] {
            let read = parse_duration(text).unwrap();
            assert_eq!(read, Duration::from_millis(millis), "{text}");
            assert_eq!(parse_duration(&exact_duration(read)), Some(read));
        }
        for wrong in [
            "",
            "30",
            "s",
            "-1 s",
            "1.5 h",
            "30 parsecs",
            "99999999999999999 d",
        ] {
            assert!(parse_duration(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn sizes_read_back_exactly() {
        for bytes in [0, 1, 1023, 1024, 1025, 3 << 29, 10 << 30, 1 << 40, u64::MAX] {
            assert_eq!(human::parse_size(&exact_size(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn lists_come_from_arrays_and_from_commas() {
        let commas = Given::text(" alice , bob,");
        assert_eq!(list(&commas).unwrap(), ["alice", "bob"]);
        assert_eq!(Names::read(&commas).unwrap().len(), 2);
        assert!(Names::read(&Given::text(&format!("alice,{}", "x".repeat(100)))).is_err());
    }

    #[test]
    fn secrets_are_never_shown_or_repeated() {
        let refused = Token::read(&Given::text("a-secret-typed-wrong")).unwrap_err();
        assert!(!refused.contains("a-secret"), "{refused}");
        let bat = Bat::from_secret([3; 32]);
        assert_eq!(Token::show(&bat).unwrap(), "\"set\"");
    }

    #[test]
    fn the_address_of_a_database_is_never_shown() {
        let line = "postgres://u:hunter2@db.example/d?connections=3";
        let place = Metadata::read(&Given::text(line)).unwrap();
        assert_eq!(Metadata::show(&place).unwrap(), "\"set\"");
        assert!(!format!("{place:?}").contains("hunter"));
        let refused = Metadata::read(&Given::text("postgres://u:hunter2@h/d?x=1")).unwrap_err();
        assert!(!refused.contains("hunter"), "{refused}");
        let folder = Metadata::read(&Given::text("folder")).unwrap();
        assert_eq!(Metadata::show(&folder).unwrap(), "\"folder\"");
    }

    #[test]
    fn a_bucket_reads_back_as_the_same_line() {
        for line in [
            "folder",
            "s3://bucket",
            "s3://bucket/a/b?region=eu-1&endpoint=http://127.0.0.1:9000&style=path&direct=yes&cache=4096",
        ] {
            let place = Blocks::read(&Given::text(line)).unwrap();
            assert_eq!(Blocks::show(&place), Some(quoted(line)));
        }
        for wrong in ["", "http://x", "s3://", "s3://bucket?colour=blue"] {
            assert!(Blocks::read(&Given::text(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(quoted("a\"b\\c\n\u{1b}"), "\"a\\\"b\\\\c\\n\\u001B\"");
    }
}
