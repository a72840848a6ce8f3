//! Records of large uploads: listing them, and taking back what an abandoned one left (Spec: 21 §9.4 to §9.7).

mod upload;

use std::{collections::HashSet, sync::Arc};

use champ::cbor::Record as _;

use super::{Session, draft::Draft, list::Detail, path::RemotePath, session::Account};
use crate::{
    capability::MapKey, chunk_chain::chunk_count, error::ClientError, properties::FileName,
    upload_record::UploadRecord,
};

/// Folder of the records, in the home folder.
const RECORDS: &str = ".transactions";
/// Largest record that is read: the hash tree of a 5 TiB file is 33 MB, which is not kept.
const MAX_RECORD_BYTES: u64 = 4 << 20;
/// Places probed at once when looking for the first missing chunk.
const PROBES: u64 = 8;

/// Returns where the file of a record goes: its own name tells it better than the record's path, which is another one
/// when two devices upload to one path.
fn target_path(record: &UploadRecord) -> String {
    let path = record.path.trim_start_matches('/');
    match (&record.resume, path.rsplit_once('/')) {
        (Some(resume), Some((folder, _))) => format!("/{folder}/{}", resume.properties.name),
        _ => format!("/{path}"),
    }
}

/// An upload that was begun and not finished.
#[derive(Debug, Clone)]
pub struct UnfinishedUpload {
    /// Where the file was going.
    pub path: String,
    /// When it was begun, in milliseconds since 1970.
    pub started_epoch_millis: i64,
    /// Size of the whole file in bytes.
    pub size_bytes: u64,
    file_name: FileName,
}

impl UnfinishedUpload {
    /// Returns what tells it from the others: the name of its record. It says nothing about the file.
    pub fn id(&self) -> &str {
        self.file_name.as_str()
    }
}

impl Session {
    /// Lists uploads that were begun and not finished, by any client of the account.
    ///
    /// # Errors
    /// Whatever keeps the records from being read; a missing folder of records means none.
    pub async fn unfinished_uploads(&self) -> Result<Vec<UnfinishedUpload>, ClientError> {
        let folder = self.account.records_path()?;
        let listing = match self.list(&folder.to_string(), Detail::Quick).await {
            Err(ClientError::NotFound { .. }) => return Ok(Vec::new()),
            listing => listing?,
        };
        let mut uploads = Vec::new();
        for entry in listing.entries {
            let Ok(file_name) = FileName::parse(entry.name) else {
                continue;
            };
            // Files that are no upload records belong to other clients.
            if let Ok(Some(record)) = self.account.read_record(&file_name).await {
                uploads.push(UnfinishedUpload {
                    path: target_path(&record),
                    started_epoch_millis: record.started_epoch_millis,
                    size_bytes: record.size_bytes,
                    file_name,
                });
            }
        }
        Ok(uploads)
    }

    /// Removes the chunks and the record of an unfinished upload.
    ///
    /// # Errors
    /// Whatever keeps them from being removed. An upload that was finished in the meantime is left alone.
    pub async fn discard_upload(&self, upload: &UnfinishedUpload) -> Result<(), ClientError> {
        match self.account.read_record(&upload.file_name).await? {
            Some(record) => self.account.discard(&upload.file_name, &record).await,
            None => Ok(()),
        }
    }
}

impl Account {
    pub(super) fn records_path(&self) -> Result<RemotePath, ClientError> {
        let name = FileName::parse(RECORDS)
            .map_err(|_| ClientError::Internal("a folder name is illegal"))?;
        Ok(RemotePath::home(self.name.as_str()).join(name))
    }

    async fn read_record(
        self: &Arc<Self>,
        name: &FileName,
    ) -> Result<Option<UploadRecord>, ClientError> {
        let path = self.records_path()?.join(name.clone());
        let session = Session {
            account: Arc::clone(self),
        };
        let content = match session.read(&path.to_string(), MAX_RECORD_BYTES).await {
            Err(ClientError::NotFound { .. }) => return Ok(None),
            content => content?,
        };
        // Another type of record, or damaged: not ours to touch.
        Ok(UploadRecord::decode(&content).ok())
    }

    /// Removes the chunks of a record from the tree of its writer, then the record (Spec: 21 §9.6).
    async fn discard(
        self: &Arc<Self>,
        name: &FileName,
        record: &UploadRecord,
    ) -> Result<(), ClientError> {
        let mut runs = self.runs();
        loop {
            match self.discard_once(record).await {
                Err(error) => runs.again_after(error).await?,
                done => break done?,
            }
        }
        let session = Session {
            account: Arc::clone(self),
        };
        let path = self.records_path()?.join(name.clone());
        // The record is a file of its own: this does not touch what it describes.
        session.delete(&path.to_string()).await
    }

    async fn discard_once(&self, record: &UploadRecord) -> Result<(), ClientError> {
        let signer = Arc::new(record.writer.clone());
        let lock = self.locks.of(&signer.writer());
        let _writing = lock.lock().await;
        let Some(space) = self.view.space(&signer.writer()).await? else {
            return Ok(());
        };
        let mut keys = Vec::new();
        let mut place = record.first_chunk();
        let count = chunk_count(record.size_bytes);
        let mut index = 0;
        // The size in a record is not trusted more than any other: end where nothing is left.
        while index < count {
            let mut group = Vec::new();
            while index < count && group.len() < 160 {
                group.push(place.map_key);
                place = place.next(&record.stream_secret);
                index += 1;
            }
            let present = self.present(&space, &group).await?;
            let is_over = present.is_empty();
            keys.extend(present);
            if is_over {
                break;
            }
        }
        let mut draft = Draft::new(self.view.clone(), signer, space)?;
        draft.remove_all(&keys).await?;
        draft.commit().await.map(|_| ())
    }

    /// Returns the index of the first chunk that is not in the tree; chunks are committed in order.
    async fn first_missing(&self, record: &UploadRecord) -> Result<u64, ClientError> {
        let writer = record.writer.writer();
        let Some(space) = self.view.space(&writer).await? else {
            return Ok(0);
        };
        let (mut present, mut missing) = (0, chunk_count(record.size_bytes));
        let places = |index: u64| {
            record
                .first_chunk()
                .advance(&record.stream_secret, index)
                .map(|place| place.map_key)
        };
        // Everything below `present` is there; `missing` is not, or is the end.
        while present < missing {
            let step = (missing - present).div_ceil(PROBES).max(1);
            let probes: Vec<u64> = (0..PROBES)
                .map(|i| present + i * step)
                .filter(|index| *index < missing)
                .collect();
            let keys: Vec<MapKey> = probes.iter().filter_map(|index| places(*index)).collect();
            let found: HashSet<MapKey> = self.present(&space, &keys).await?.into_iter().collect();
            let mut next = (present, missing);
            for (index, key) in probes.iter().zip(&keys) {
                if found.contains(key) {
                    next.0 = index + 1;
                } else {
                    next.1 = *index;
                    break;
                }
            }
            if next == (present, missing) {
                break;
            }
            (present, missing) = next;
        }
        Ok(present)
    }
}
