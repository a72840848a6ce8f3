//! What is kept of an upload until it is finished: enough to resume or to clean up (Spec: 21 §9.4, §9.5).
//!
//! Holds a writer's secret signing key: never leaves the hidden directory that is not shared.

use champ::{
    Cid,
    access::Bat,
    cbor::{Fields, Map, Record, RecordError, Value},
};
use pki::keys::{Owner, SecretKeyWithHash};

use crate::{
    capability::{AbsoluteCapability, MapKey},
    chunk_chain::{ChunkPlace, StreamSecret},
    crypto::SymmetricKey,
    directory::ItemKeys,
    hash_tree::HashTree,
    properties::FileProperties,
};

/// An upload in progress.
#[derive(Debug, Clone)]
pub struct UploadRecord {
    /// Full path without leading slash: user name, directories, file name.
    pub path: String,
    /// When it was started, in milliseconds since 1970 UTC.
    pub started_epoch_millis: i64,
    /// Whose space the file goes to.
    pub owner: Owner,
    /// The writing space, with its secret key.
    pub writer: SecretKeyWithHash,
    /// Place of chunk 0.
    pub map_key: MapKey,
    /// Token of chunk 0; absent in legacy records.
    pub first_bat: Option<Bat>,
    /// Size of the file in bytes.
    pub size_bytes: u64,
    /// From which the places of the other chunks derive.
    pub stream_secret: StreamSecret,
    /// The keys and properties; absent in legacy records, which can only be cleaned up.
    pub resume: Option<ResumeKeys>,
    /// Hash of the content, if it was known.
    pub hash: Option<HashTree>,
    unknown: Map,
}

/// What resuming needs beyond the places of the chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeKeys {
    /// Read base key.
    pub r_base: SymmetricKey,
    /// Data key.
    pub data_key: SymmetricKey,
    /// Write base key.
    pub w_base: SymmetricKey,
    /// Properties of the file.
    pub properties: FileProperties,
}

impl UploadRecord {
    /// Records an upload that is about to start.
    pub fn new(
        path: impl Into<String>,
        started_epoch_millis: i64,
        owner: Owner,
        writer: SecretKeyWithHash,
        keys: &ItemKeys,
        stream_secret: StreamSecret,
        properties: FileProperties,
    ) -> Self {
        Self {
            path: path.into(),
            started_epoch_millis,
            owner,
            writer,
            map_key: keys.map_key,
            first_bat: Some(keys.bat.clone()),
            size_bytes: properties.size_bytes,
            stream_secret,
            resume: Some(ResumeKeys {
                r_base: keys.r_base.clone(),
                data_key: keys.second_key.clone(),
                w_base: keys.w_base.clone(),
                properties,
            }),
            hash: None,
            unknown: Map::new(),
        }
    }

    /// Returns the name of the record's file: a CID text over the path.
    pub fn file_name(&self) -> String {
        Cid::of_raw(self.path.as_bytes()).to_string()
    }

    /// Returns the place of chunk 0.
    pub fn first_chunk(&self) -> ChunkPlace {
        ChunkPlace {
            map_key: self.map_key,
            bat: self.first_bat.clone(),
        }
    }

    /// Returns the writable capability of the file; none for legacy records.
    pub fn capability(&self) -> Option<AbsoluteCapability> {
        let keys = self.resume.as_ref()?;
        Some(AbsoluteCapability {
            owner: self.owner.clone(),
            writer: self.writer.writer(),
            map_key: self.map_key,
            bat: self.first_bat.clone(),
            r_base: keys.r_base.clone(),
            w_base: Some(keys.w_base.clone()),
        })
    }
}

impl Record for UploadRecord {
    fn to_value(&self) -> Value {
        let mut map = self.unknown.clone();
        map.insert("type", FILE_UPLOAD);
        map.insert("path", self.path.as_str());
        map.insert("startTimeEpochMs", self.started_epoch_millis);
        map.insert("owner", self.owner.to_value());
        map.insert("writer", self.writer.to_value());
        map.insert("mapKey", self.map_key.to_value());
        map.insert_some("firstBat", self.first_bat.as_ref().map(Record::to_value));
        map.insert("size", i64::try_from(self.size_bytes).unwrap_or(i64::MAX));
        map.insert("streamSecret", self.stream_secret.to_value());
        map.insert_some("hash", self.hash.as_ref().map(Record::to_value));
        if let Some(keys) = &self.resume {
            map.insert("baseKey", keys.r_base.to_value());
            map.insert("dataKey", keys.data_key.to_value());
            map.insert("writeKey", keys.w_base.to_value());
            map.insert("props", keys.properties.to_value());
        }
        Value::Map(map)
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "upload record")?;
        if fields.required("type")?.into_text("type")? != FILE_UPLOAD {
            return Err(RecordError::OutOfRange { field: "type" });
        }
        let size = fields.required("size")?.into_int("size")?;
        let size_bytes =
            u64::try_from(size).map_err(|_| RecordError::OutOfRange { field: "size" })?;
        let mut key = |field| {
            fields
                .optional(field)
                .map(SymmetricKey::from_value)
                .transpose()
        };
        let keys = (key("baseKey")?, key("dataKey")?, key("writeKey")?);
        let properties = fields
            .optional("props")
            .map(FileProperties::from_value)
            .transpose()?;
        let resume = match (keys, properties) {
            ((Some(r_base), Some(data_key), Some(w_base)), Some(properties)) => Some(ResumeKeys {
                r_base,
                data_key,
                w_base,
                properties,
            }),
            _ => None,
        };
        Ok(Self {
            path: fields.required("path")?.into_text("path")?,
            started_epoch_millis: fields
                .required("startTimeEpochMs")?
                .into_int("startTimeEpochMs")?,
            owner: Owner::from_value(fields.required("owner")?)?,
            writer: SecretKeyWithHash::from_value(fields.required("writer")?)?,
            map_key: MapKey::from_value(fields.required("mapKey")?)?,
            first_bat: fields
                .optional("firstBat")
                .map(Bat::from_value)
                .transpose()?,
            size_bytes,
            stream_secret: StreamSecret::from_value(fields.required("streamSecret")?)?,
            resume,
            hash: fields
                .optional("hash")
                .map(HashTree::from_value)
                .transpose()?,
            unknown: fields.rest(),
        })
    }
}

/// The keys of an upload as a sync client keeps them on its own disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumeRecord {
    /// Place of chunk 0.
    pub map_key: MapKey,
    /// Token of chunk 0.
    pub first_bat: Bat,
    /// Read base key.
    pub r_base: SymmetricKey,
    /// Data key.
    pub data_key: SymmetricKey,
    /// Write base key.
    pub w_base: SymmetricKey,
    /// From which the places of the other chunks derive.
    pub stream_secret: StreamSecret,
}

impl Record for ResumeRecord {
    fn to_value(&self) -> Value {
        Value::Map(Map::from_iter([
            ("b", self.r_base.to_value()),
            ("d", self.data_key.to_value()),
            ("m", self.map_key.to_value()),
            ("s", self.stream_secret.to_value()),
            ("w", self.w_base.to_value()),
            ("ib", self.first_bat.to_value()),
        ]))
    }

    fn from_value(value: Value) -> Result<Self, RecordError> {
        let mut fields = Fields::of(value, "resume record")?;
        Ok(Self {
            r_base: SymmetricKey::from_value(fields.required("b")?)?,
            data_key: SymmetricKey::from_value(fields.required("d")?)?,
            map_key: MapKey::from_value(fields.required("m")?)?,
            stream_secret: StreamSecret::from_value(fields.required("s")?)?,
            w_base: SymmetricKey::from_value(fields.required("w")?)?,
            first_bat: Bat::from_value(fields.required("ib")?)?,
        })
    }
}

const FILE_UPLOAD: &str = "FILE_UPLOAD";
