//! The record itself.

use bytes::Bytes;
use champ::cbor::{Fields, Map, Record, RecordError, Value};

use super::FileName;
use crate::{chunk_chain::StreamSecret, hash_tree::HashBranch};

/// Largest thumbnail, in bytes.
pub const MAX_THUMBNAIL_BYTES: usize = 102_400;
/// Name of the second and further pages of a directory.
const CONTINUATION_PAGE: &str = ".subsequent-dir-chunk";

/// Properties of a file or directory.
///
/// Only those of an item's first node count; copies on later nodes are stale as a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProperties {
    /// Name.
    pub name: FileName,
    /// Is a directory.
    pub is_directory: bool,
    /// Is a link node: stands in for a target in another writing space.
    pub is_link: bool,
    /// Mime type, empty for directories.
    pub mime_type: String,
    /// Size of the whole file in bytes, as claimed by whoever may write it; 0 for directories.
    pub size_bytes: u64,
    /// Last change of content.
    pub modified: Timestamp,
    /// Creation.
    pub created: Timestamp,
    /// System item.
    pub is_hidden: bool,
    /// Preview image.
    pub thumbnail: Option<Thumbnail>,
    /// From which the places of later chunks derive; absent for directories and legacy files.
    pub stream_secret: Option<StreamSecret>,
    /// Part of the content hash tree that concerns this chunk.
    pub tree_hash: Option<HashBranch>,
    /// Keys of later versions, kept on rewriting.
    pub unknown: Map,
}

/// Seconds since 1970 UTC, possibly before, and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

impl Timestamp {
    /// Makes a time; `None` when `nanos` is not below 1,000,000,000.
    pub const fn new(epoch_seconds: i64, nanos: u32) -> Option<Self> {
        if nanos < NANOS_PER_SECOND {
            Some(Self {
                seconds: epoch_seconds,
                nanos,
            })
        } else {
            None
        }
    }

    /// Makes a time of whole seconds.
    pub const fn from_epoch_seconds(seconds: i64) -> Self {
        Self { seconds, nanos: 0 }
    }

    /// Returns the seconds since 1970 UTC. Any value is legal on the wire; clamp it for display.
    pub const fn epoch_seconds(self) -> i64 {
        self.seconds
    }

    /// Returns the nanoseconds, 0 to 999,999,999.
    pub const fn nanos(self) -> u32 {
        self.nanos
    }
}

/// A preview image, never larger than [`MAX_THUMBNAIL_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thumbnail {
    mime_type: String,
    image: Bytes,
}

impl Thumbnail {
    /// Makes a thumbnail; `None` when the image is too large.
    pub fn new(mime_type: impl Into<String>, image: impl Into<Bytes>) -> Option<Self> {
        let image = image.into();
        (image.len() <= MAX_THUMBNAIL_BYTES).then(|| Self {
            mime_type: mime_type.into(),
            image,
        })
    }

    /// Returns the mime type: `image/webp`, `image/jpeg` or `image/png`, as claimed.
    pub fn mime_type(&self) -> &str {
        &self.mime_type
    }

    /// Returns the image data. Decode it in a sandbox.
    pub const fn image(&self) -> &Bytes {
        &self.image
    }
}

impl FileProperties {
    /// Describes a new directory.
    pub fn directory(name: FileName, now: Timestamp, is_hidden: bool) -> Self {
        Self {
            name,
            is_directory: true,
            is_link: false,
            mime_type: String::new(),
            size_bytes: 0,
            modified: now,
            created: now,
            is_hidden,
            thumbnail: None,
            stream_secret: None,
            tree_hash: None,
            unknown: Map::new(),
        }
    }

    /// Describes a new file.
    pub fn file(
        name: FileName,
        mime_type: impl Into<String>,
        size_bytes: u64,
        now: Timestamp,
        stream_secret: StreamSecret,
    ) -> Self {
        Self {
            is_directory: false,
            mime_type: mime_type.into(),
            size_bytes,
            stream_secret: Some(stream_secret),
            ..Self::directory(name, now, false)
        }
    }

    /// Describes a continuation page of a directory; readers ignore it.
    pub fn continuation_page() -> Self {
        // What the network's other clients write: the smallest date of their library.
        let smallest = Timestamp::from_epoch_seconds(-31_557_014_135_596_800);
        Self::directory(FileName::continuation_page(), smallest, false)
    }
}

impl FileName {
    fn continuation_page() -> Self {
        #[expect(clippy::expect_used, reason = "the constant is a legal name")]
        Self::parse(CONTINUATION_PAGE).expect("a legal name")
    }
}

impl Record for FileProperties {
    fn to_value(&self) -> Value {
        let mut map = self.unknown.clone();
        map.insert("c", self.created.seconds);
        map.insert("d", self.is_directory);
        map.insert("h", self.is_hidden);
        map.insert("l", self.is_link);
        map.insert("m", self.mime_type.as_str());
        map.insert("n", self.name.as_str());
        // Decoding and the constructors' callers keep sizes within the signed range.
        map.insert("s", i64::try_from(self.size_bytes).unwrap_or(i64::MAX));
        map.insert("t", self.modified.seconds);
        map.insert("cn", self.created.nanos);
        map.insert("tn", self.modified.nanos);
        if let Some(thumbnail) = &self.thumbnail {
            map.insert("i", thumbnail.image.clone());
            map.insert("im", thumbnail.mime_type.as_str());
        }
        map.insert_some("p", self.stream_secret.as_ref().map(Record::to_value));
        map.insert_some("th", self.tree_hash.as_ref().map(Record::to_value));
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "file properties")?;
        let is_directory = fields.flag("d")?;
        let stream_secret = fields
            .optional("p")
            .map(StreamSecret::from_value)
            .transpose()?;
        if is_directory && stream_secret.is_some() {
            return Err(RecordError::OutOfRange { field: "p" });
        }
        let modified = fields.required("t")?.into_int("t")?;
        let modified = timestamp(modified, fields.optional("tn"), "tn")?;
        let created = fields
            .optional("c")
            .map_or(Ok(modified.seconds), |v| v.into_int("c"))?;
        let created = timestamp(created, fields.optional("cn"), "cn")?;
        let size = fields.required("s")?.into_int("s")?;
        Ok(Self {
            name: FileName::from_value(fields.required("n")?)?,
            is_directory,
            is_link: fields.flag("l")?,
            mime_type: fields.required("m")?.into_text("m")?,
            size_bytes: u64::try_from(size).map_err(|_| RecordError::OutOfRange { field: "s" })?,
            modified,
            created,
            is_hidden: fields.flag("h")?,
            thumbnail: thumbnail(&mut fields)?,
            stream_secret,
            tree_hash: fields
                .optional("th")
                .map(HashBranch::from_value)
                .transpose()?,
            unknown: fields.rest(),
        })
    }
}

fn timestamp(
    seconds: i64,
    nanos: Option<Value>,
    field: &'static str,
) -> Result<Timestamp, RecordError> {
    let nanos = nanos.map_or(Ok(0), |v| v.into_int(field))?;
    u32::try_from(nanos)
        .ok()
        .and_then(|nanos| Timestamp::new(seconds, nanos))
        .ok_or(RecordError::OutOfRange { field })
}

fn thumbnail(fields: &mut Fields) -> Result<Option<Thumbnail>, RecordError> {
    let mime_type = fields
        .optional("im")
        .map_or(Ok("image/png".to_owned()), |v| v.into_text("im"))?;
    let Some(image) = fields.optional("i") else {
        return Ok(None);
    };
    Thumbnail::new(mime_type, image.into_bytes("i")?)
        .map(Some)
        .ok_or(RecordError::OutOfRange { field: "i" })
}

const NANOS_PER_SECOND: u32 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn properties() -> FileProperties {
        let now = Timestamp::new(5, 6).unwrap();
        FileProperties::directory(FileName::parse("a").unwrap(), now, false)
    }

    fn with(key: &str, value: impl Into<Value>) -> Result<FileProperties, RecordError> {
        let Value::Map(mut map) = properties().to_value() else {
            unreachable!()
        };
        map.insert(key, value);
        FileProperties::from_value(Value::Map(map))
    }

    #[test]
    fn unknown_keys_and_nanoseconds_survive() {
        let read = with("zz", 7i64).unwrap();
        assert_eq!(read.unknown.len(), 1);
        assert_eq!(FileProperties::decode(&read.encode()).unwrap(), read);
        assert_eq!(read.modified.nanos(), 6);
    }

    #[test]
    fn what_readers_must_reject() {
        for (key, value) in [
            ("n", Value::from("")),
            ("n", Value::from("a/b")),
            ("n", Value::from("..")),
            ("n", Value::from("x".repeat(256))),
            ("n", Value::Int(1)),
            ("p", Value::from(&[0u8; 32])),
            ("tn", Value::Int(1_000_000_000)),
            ("cn", Value::Int(-1)),
            ("s", Value::Int(-1)),
            ("i", Value::from(vec![0u8; MAX_THUMBNAIL_BYTES + 1])),
            ("d", Value::Int(1)),
            ("h", Value::from("true")),
            ("m", Value::Null),
            ("t", Value::Bool(true)),
            ("th", Value::Null),
            ("im", Value::Null),
        ] {
            assert!(with(key, value).is_err(), "{key}");
        }
    }

    #[test]
    fn stream_secrets_have_32_bytes() {
        let mut file = properties();
        file.is_directory = false;
        let Value::Map(mut map) = file.to_value() else {
            unreachable!()
        };
        map.insert("p", vec![0u8; 31]);
        assert!(FileProperties::from_value(Value::Map(map)).is_err());
    }

    #[test]
    fn absurd_sizes_and_times_are_legal_input() {
        assert_eq!(with("s", 1i64 << 62).unwrap().size_bytes, 1 << 62);
        assert_eq!(
            with("t", i64::MIN).unwrap().modified.epoch_seconds(),
            i64::MIN
        );
    }
}
