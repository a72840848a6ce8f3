//! The session that `login` keeps between commands.
//!
//! Two files. `session` in the configuration folder names node and user and holds the session encrypted; its key
//! lies in the memory-backed folder of the login session (`$XDG_RUNTIME_DIR`) where there is one, else beside
//! it. Both have mode 0600 in folders of mode 0700. Invariant: neither file alone opens anything, and no
//! password is ever written.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    exit::{Class, Failure},
    local::private,
};

/// Key that seals a kept session.
pub type SessionKey = Zeroizing<[u8; 32]>;

/// Where the node of a session is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Behind an address.
    Server(String),
    /// In a data folder on this machine.
    Local(PathBuf),
}

/// A kept session as read from disk.
#[derive(Debug)]
pub struct Kept {
    /// Where the node is.
    pub place: Place,
    /// Who is logged in.
    pub user: String,
    /// The encrypted session.
    pub sealed: Vec<u8>,
    /// Opens it.
    pub key: KeptKey,
}

/// A session key that is not shown.
#[derive(Clone)]
pub struct KeptKey(pub SessionKey);

impl std::fmt::Debug for KeptKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeptKey(..)")
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    #[serde(flatten)]
    place: Place,
    user: String,
    sealed: String,
}

/// The files of the kept session.
#[derive(Debug, Clone)]
pub struct SessionFiles {
    session: PathBuf,
    key: PathBuf,
}

impl SessionFiles {
    /// Finds the files: in `config` if given, else in `~/.config/kastro`.
    ///
    /// # Errors
    ///
    /// When there is no home folder either.
    pub fn find(config: Option<&Path>) -> Result<Self, Failure> {
        let folder = config_folder(config)?;
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        Ok(Self::at(
            &folder,
            runtime.as_deref().filter(|dir| dir.is_dir()),
        ))
    }

    fn at(folder: &Path, runtime: Option<&Path>) -> Self {
        let key = match runtime {
            Some(runtime) => {
                let digest = Sha256::digest(folder.as_os_str().as_encoded_bytes());
                let name = data_encoding::HEXLOWER.encode(digest.get(..8).unwrap_or_default());
                runtime.join("kastro").join(format!("session-{name}.key"))
            }
            None => folder.join("session.key"),
        };
        Self {
            session: folder.join("session"),
            key,
        }
    }

    /// Reads the kept session, `None` if nobody is logged in.
    ///
    /// # Errors
    ///
    /// When the files are there and cannot be read or understood.
    pub fn load(&self) -> Result<Option<Kept>, Failure> {
        let Some(text) = read(&self.session)? else {
            return Ok(None);
        };
        let unusable = || {
            Failure::new(
                Class::NoSession,
                format!("the session in {} cannot be used", self.session.display()),
            )
            .help("run `kastro login` again")
        };
        let record: Record = serde_json::from_slice(&text).map_err(|_| unusable())?;
        if record.version != VERSION {
            return Err(unusable());
        }
        let sealed = data_encoding::BASE64
            .decode(record.sealed.as_bytes())
            .map_err(|_| unusable())?;
        let Some(key) = read(&self.key)? else {
            return Err(Failure::new(
                Class::NoSession,
                "the session has ended with the last restart",
            )
            .help("run `kastro login` again"));
        };
        let mut bytes = Zeroizing::new([0; 32]);
        data_encoding::HEXLOWER
            .decode_mut(key.trim_ascii_end(), bytes.as_mut_slice())
            .map_err(|_| unusable())?;
        Ok(Some(Kept {
            place: record.place,
            user: record.user,
            sealed,
            key: KeptKey(bytes),
        }))
    }

    /// Keeps a session, in place of the one before.
    ///
    /// # Errors
    ///
    /// When the files cannot be written.
    pub fn save(&self, kept: &Kept) -> Result<(), Failure> {
        let record = Record {
            version: VERSION,
            place: kept.place.clone(),
            user: kept.user.clone(),
            sealed: data_encoding::BASE64.encode(&kept.sealed),
        };
        let text = serde_json::to_vec(&record)
            .map_err(|error| Failure::new(Class::Other, format!("cannot write JSON: {error}")))?;
        let key = Zeroizing::new(data_encoding::HEXLOWER.encode(kept.key.0.as_slice()));
        private::write(&self.key, key.as_bytes())
            .map_err(|error| Failure::local("write", &self.key, &error))?;
        private::write(&self.session, &text)
            .map_err(|error| Failure::local("write", &self.session, &error))
    }

    /// Forgets the session. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// When a file cannot be removed.
    pub fn remove(&self) -> Result<bool, Failure> {
        let mut was_there = false;
        for path in [&self.key, &self.session] {
            match fs::remove_file(path) {
                Ok(()) => was_there = true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Failure::local("remove", path, &error)),
            }
        }
        Ok(was_there)
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_SESSION_BYTES => Err(Failure::new(
            Class::NoSession,
            format!("{} is no session", path.display()),
        )),
        Ok(_) => fs::read(path)
            .map(Some)
            .map_err(|error| Failure::local("read", path, &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::local("read", path, &error)),
    }
}

/// Returns the folder of what the client keeps on this machine: `config` if given, else `~/.config/kastro`.
///
/// # Errors
///
/// When there is no home folder either.
pub fn config_folder(config: Option<&Path>) -> Result<PathBuf, Failure> {
    match config {
        Some(folder) => Ok(folder.to_path_buf()),
        None => default_config(),
    }
}

fn default_config() -> Result<PathBuf, Failure> {
    if let Some(config) = std::env::var_os("XDG_CONFIG_HOME").filter(|dir| !dir.is_empty()) {
        return Ok(Path::new(&config).join("kastro"));
    }
    home().map(|home| home.join(".config/kastro"))
}

/// Returns the home folder of the person who runs this.
///
/// # Errors
///
/// When the environment does not say.
pub fn home() -> Result<PathBuf, Failure> {
    std::env::home_dir()
        .filter(|home| !home.as_os_str().is_empty())
        .ok_or_else(|| {
            Failure::new(Class::Local, "there is no home folder")
                .help("set HOME, or name the folder: --data for a node, --config for a session")
        })
}

const VERSION: u32 = 1;
/// Largest session file read.
const MAX_SESSION_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        Kept {
            place: Place::Server("http://127.0.0.1:8000".into()),
            user: "alice".into(),
            sealed: vec![1, 2, 3],
            key: KeptKey(Zeroizing::new([7; 32])),
        }
    }

    #[test]
    fn a_session_comes_back_and_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let files = SessionFiles::at(&folder.path().join("config/kastro"), None);
        assert!(files.load().unwrap().is_none());
        files.save(&kept()).unwrap();
        let back = files.load().unwrap().unwrap();
        assert_eq!(
            (back.place, back.user, back.sealed, *back.key.0),
            (kept().place, kept().user, kept().sealed, *kept().key.0)
        );
        assert!(files.remove().unwrap());
        assert!(!files.remove().unwrap());
        assert!(files.load().unwrap().is_none());
    }

    #[test]
    fn without_its_key_a_session_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tempfile::tempdir().unwrap();
        let files = SessionFiles::at(folder.path(), Some(runtime.path()));
        files.save(&kept()).unwrap();
        assert!(!folder.path().join("session.key").exists());
        fs::remove_dir_all(runtime.path().join("kastro")).unwrap();
        assert_eq!(files.load().unwrap_err().class, Class::NoSession);
    }

    #[test]
    fn damaged_and_foreign_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let files = SessionFiles::at(folder.path(), None);
        for text in [
            "",
            "{}",
            "not json",
            r#"{"version":2,"server":"x","user":"a","sealed":""}"#,
        ] {
            fs::write(folder.path().join("session"), text).unwrap();
            assert_eq!(files.load().unwrap_err().class, Class::NoSession, "{text}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn others_cannot_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("kastro");
        let files = SessionFiles::at(&config, None);
        files.save(&kept()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&config), 0o700);
        assert_eq!(mode(&config.join("session")), 0o600);
        assert_eq!(mode(&config.join("session.key")), 0o600);
        let shown = format!("{:?}", kept());
        assert!(!shown.contains("7, 7"), "{shown}");
    }
}
