//! The node's own name: a libp2p peer id (Spec: 01 §3.4).
//!
//! The key is made on first start, is on stable storage before it is used, and is never replaced silently.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use champ::Cid;
use pki::{
    keys::{PublicSigningKey, SecretSigningKey},
    node_identity::id_of_key,
};
use zeroize::Zeroizing;

use crate::random::random;

/// The server ids of a node.
#[derive(Debug, Clone)]
pub struct NodeIdentity {
    /// Oldest first, the current one last; never empty.
    ids: Vec<Cid>,
    current: Cid,
}

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// The file cannot be read or written.
    #[error("cannot use key file {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is gone, and stored data belongs to its key.
    #[error("key file {} is missing, and this data belongs to its key", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file holds another key than the one that stored data belongs to.
    #[error("key file {} holds another key than the one this data belongs to", path.display())]
    Exchanged {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner can read or write the file.
    #[error("key file {} can be read or changed by others", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The file does not hold 32 bytes.
    #[error("key file {} is damaged: it does not hold 32 bytes", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

impl NodeIdentity {
    /// Uses these ids; the last one is current. `None` for an empty list.
    pub fn from_ids(ids: Vec<Cid>) -> Option<Self> {
        let current = ids.last()?.clone();
        Some(Self { ids, current })
    }

    /// Uses the id of one key.
    pub fn of_key(key: &PublicSigningKey) -> Self {
        let current = id_of_key(key);
        Self {
            ids: vec![current.clone()],
            current,
        }
    }

    /// Returns the current id.
    pub const fn current(&self) -> &Cid {
        &self.current
    }

    /// Returns all ids, oldest first.
    pub fn all(&self) -> &[Cid] {
        &self.ids
    }

    /// Returns true when `id` names this node now or did so before; only the multihash counts.
    pub fn is_own(&self, id: &Cid) -> bool {
        self.ids.iter().any(|own| own.hash() == id.hash())
    }
}

/// Reads a signing key from `folder`, or makes it there.
pub(crate) fn load_or_create_key(
    folder: &Path,
    file: &str,
) -> Result<SecretSigningKey, KeyFileError> {
    load_or_create_secret(folder, file).map(|seed| SecretSigningKey::from_seed(&seed))
}

/// Reads 32 secret bytes from a file in `folder`, or makes them there.
pub(crate) fn load_or_create_secret(
    folder: &Path,
    file: &str,
) -> Result<Zeroizing<[u8; 32]>, KeyFileError> {
    let path = folder.join(file);
    let io = |source| KeyFileError::Io {
        path: path.clone(),
        source,
    };
    match fs::read(&path).map(Zeroizing::new) {
        Ok(bytes) => {
            if is_exposed(&path).map_err(io)? {
                return Err(KeyFileError::Exposed { path });
            }
            let secret = <&[u8; 32]>::try_from(bytes.as_slice())
                .map_err(|_| KeyFileError::Damaged { path: path.clone() })?;
            Ok(Zeroizing::new(*secret))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let secret = Zeroizing::new(random::<32>());
            write_durably(folder, file, secret.as_slice()).map_err(io)?;
            Ok(secret)
        }
        Err(error) => Err(io(error)),
    }
}

/// Returns true when others than its owner can read or write a file.
pub(crate) fn is_exposed(path: &Path) -> io::Result<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        Ok(fs::metadata(path)?.permissions().mode() & 0o077 != 0)
    }
    #[cfg(not(unix))]
    fs::metadata(path).map(|_| false)
}

/// Writes a new file readable by its owner only, and its folder entry, to stable storage.
pub(crate) fn write_durably(folder: &Path, file: &str, content: &[u8]) -> io::Result<()> {
    let temporary = folder.join(format!(".{file}.new"));
    // One that an earlier attempt left would keep the permissions that it has.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut out = options.open(&temporary)?;
    out.write_all(content)?;
    out.sync_all()?;
    fs::rename(&temporary, folder.join(file))?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_and_a_damaged_one_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let first = load_or_create_key(folder.path(), "node.key").unwrap();
        let again = load_or_create_key(folder.path(), "node.key").unwrap();
        assert_eq!(first.public(), again.public());
        let file = folder.path().join("node.key");
        fs::OpenOptions::new()
            .write(true)
            .open(file)
            .and_then(|file| file.set_len(5))
            .unwrap();
        assert!(matches!(
            load_or_create_key(folder.path(), "node.key"),
            Err(KeyFileError::Damaged { .. })
        ));
    }

    #[cfg(unix)]
    #[test]
    fn key_files_are_readable_by_their_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        load_or_create_key(folder.path(), "node.key").unwrap();
        let mode = fs::metadata(folder.path().join("node.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0);
    }

    #[test]
    fn peer_ids_have_the_usual_text_form() {
        let key = SecretSigningKey::from_seed(&[7; 32]).public();
        let id = id_of_key(&key);
        assert!(id.bare_multihash_text().starts_with("12D3KooW"));
        assert_eq!(Cid::parse_peer_id(&id.bare_multihash_text()).unwrap(), id);
    }
}
