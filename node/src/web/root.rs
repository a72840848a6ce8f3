//! The folder of a web application: indexed and hashed at start, served by exact name (Spec: 13 §3, 40 PRG-002).
//!
//! Invariant: only bytes whose hash was taken at start are ever served. A request never makes a path, it only
//! picks a name from the index, and a file that has changed since is missing until the next start. So what is
//! served is the bundle whose hash the operator was told, whole, and no link leads out of the folder.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, fs, io,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Weak},
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

/// Longest file that is served.
pub const MAX_FILE_BYTES: u64 = 64 << 20;
/// Most files of a folder.
pub const MAX_FILES: usize = 20_000;
/// Deepest folder.
const MAX_FOLDER_DEPTH: usize = 16;
/// Bytes of bodies that are kept at hand.
const MAX_CACHED_BYTES: usize = 8 << 20;
/// Piece in which files are hashed at start.
const HASH_PIECE_BYTES: usize = 64 << 10;
/// What no gzip makes smaller.
const COMPRESSED_ENDINGS: [&str; 5] = ["png", "jpg", "jpeg", "woff", "woff2"];

/// A web application's files.
pub struct WebRoot {
    files: BTreeMap<String, WebFile>,
    hash: [u8; 32],
    recent: Mutex<Recent>,
}

/// Why a folder cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootError {
    /// The folder, or something in it, cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// What cannot be read.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More files than a web application has.
    #[error("{} has more than {MAX_FILES} files", path.display())]
    TooManyFiles {
        /// The folder.
        path: PathBuf,
    },
}

/// One file, as it was at start.
struct WebFile {
    /// Canonical path.
    path: PathBuf,
    length: u64,
    hash: [u8; 32],
    plain: Held,
    gzip: Held,
}

/// The body while anybody uses it: every form of a file is in memory once at most.
type Held = tokio::sync::Mutex<Weak<Body>>;

/// Bytes as they are sent, and their tag.
#[derive(Debug)]
pub(super) struct Body {
    bytes: Vec<u8>,
    /// Quoted, half of the bytes' hash (Spec: 13 §3).
    pub(super) tag: String,
    pub(super) is_gzip: bool,
}

impl Body {
    /// Returns the bytes without copying them.
    pub(super) fn shared(self: &Arc<Self>) -> Bytes {
        struct Shared(Arc<Body>);
        impl AsRef<[u8]> for Shared {
            fn as_ref(&self) -> &[u8] {
                &self.0.bytes
            }
        }
        Bytes::from_owner(Shared(Arc::clone(self)))
    }

    /// Wraps bytes of this program.
    pub(super) fn new(bytes: Vec<u8>, is_gzip: bool) -> Self {
        let hash = Sha256::digest(&bytes);
        let tag = format!(
            "\"{}\"",
            champ::text::to_hex(hash.get(..8).unwrap_or_default())
        );
        Self {
            bytes,
            tag,
            is_gzip,
        }
    }
}

impl WebRoot {
    /// Indexes the plain files below `folder` and takes their hashes.
    ///
    /// Left out are hidden files (a name that begins with a dot, other than `.well-known`), names that no request
    /// can ask for, files above [`MAX_FILE_BYTES`], and links that lead out of the folder.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn open(folder: &Path) -> Result<Self, RootError> {
        let root = folder.canonicalize().map_err(unreadable(folder))?;
        let mut index = Index {
            root: &root,
            open: Vec::new(),
            files: BTreeMap::new(),
        };
        index.folder(&root, "")?;
        let files = index.files;
        let mut all = Sha256::new();
        for (name, file) in &files {
            all.update(listing_line(name, &file.hash));
        }
        Ok(Self {
            files,
            hash: all.finalize().into(),
            recent: Mutex::default(),
        })
    }

    /// Returns the hash of the whole: SHA-256 of one line per file, in byte order of the names, each as
    /// `sha256sum` prints it (hex hash, two blanks, name, line feed).
    pub const fn hash(&self) -> &[u8; 32] {
        &self.hash
    }

    /// Returns the names of the files and their hashes, in byte order of the names.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8; 32])> {
        self.files
            .iter()
            .map(|(name, file)| (name.as_str(), &file.hash))
    }

    /// Returns the body of a file, compressed if that is wanted and of use; `None` for what is not there, or no
    /// longer what it was.
    pub(super) async fn body(&self, name: &str, gzip: bool) -> Option<Arc<Body>> {
        let file = self.files.get(name)?;
        let gzip = gzip && is_compressible(name);
        // Whoever comes second waits for the first one's result instead of reading too.
        let mut held = if gzip { &file.gzip } else { &file.plain }.lock().await;
        if let Some(body) = held.upgrade() {
            self.recent.lock().use_again(&body);
            return Some(body);
        }
        let (path, length, hash) = (file.path.clone(), file.length, file.hash);
        let read = tokio::task::spawn_blocking(move || {
            let bytes = read_unchanged(&path, length, &hash)?;
            if !gzip {
                return Ok(Body::new(bytes, false));
            }
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&bytes)?;
            Ok(Body::new(encoder.finish()?, true))
        });
        let body = match read.await.map_err(io::Error::other).and_then(|read| read) {
            Ok(body) => Arc::new(body),
            Err(error) => {
                tracing::warn!(
                    file = name,
                    %error,
                    "a file of the web application cannot be served; restart the node after changing the folder"
                );
                return None;
            }
        };
        *held = Arc::downgrade(&body);
        self.recent.lock().add(&body);
        Some(body)
    }
}

impl fmt::Debug for WebRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebRoot")
            .field("files", &self.files.len())
            .finish_non_exhaustive()
    }
}

/// Returns whether the form of a file's body depends on what the request offers.
pub(super) fn is_compressible(name: &str) -> bool {
    name.rsplit_once('.')
        .is_none_or(|(_, ending)| !COMPRESSED_ENDINGS.contains(&ending))
}

/// Returns the line of one file in the text whose hash is the bundle's.
pub fn listing_line(name: &str, hash: &[u8; 32]) -> String {
    format!("{}  {name}\n", champ::text::to_hex(hash))
}

/// Bodies that stay in memory although nobody asks for them just now; the one unused longest goes first.
#[derive(Default)]
struct Recent {
    bodies: VecDeque<Arc<Body>>,
    bytes: usize,
}

impl Recent {
    fn add(&mut self, body: &Arc<Body>) {
        if body.bytes.len() > MAX_CACHED_BYTES / 2 {
            return;
        }
        self.bytes += body.bytes.len();
        self.bodies.push_back(Arc::clone(body));
        while self.bytes > MAX_CACHED_BYTES {
            let Some(oldest) = self.bodies.pop_front() else {
                return;
            };
            self.bytes -= oldest.bytes.len();
        }
    }

    fn use_again(&mut self, body: &Arc<Body>) {
        let at = self.bodies.iter().position(|held| Arc::ptr_eq(held, body));
        match at.and_then(|at| self.bodies.remove(at)) {
            Some(body) => self.bodies.push_back(body),
            // It was dropped from here while a connection still sent it.
            None => self.add(body),
        }
    }
}

struct Index<'a> {
    root: &'a Path,
    /// The folders on the way to where the walk is: a link back to one of them would never end.
    open: Vec<PathBuf>,
    files: BTreeMap<String, WebFile>,
}

impl Index<'_> {
    fn folder(&mut self, folder: &Path, prefix: &str) -> Result<(), RootError> {
        self.open.push(folder.to_owned());
        for entry in fs::read_dir(folder).map_err(unreadable(folder))? {
            let entry = entry.map_err(unreadable(folder))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_servable(name)) else {
                continue;
            };
            // A link that leads nowhere, or out, is as if it were not there.
            let Ok(path) = entry.path().canonicalize() else {
                continue;
            };
            if !path.starts_with(self.root) {
                tracing::warn!(link = %entry.path().display(), "the link leads out of the web folder and is left out");
                continue;
            }
            let about = fs::metadata(&path).map_err(unreadable(&path))?;
            let name = format!("{prefix}{name}");
            if about.is_dir() && self.open.len() < MAX_FOLDER_DEPTH && !self.open.contains(&path) {
                self.folder(&path, &format!("{name}/"))?;
            } else if about.is_file() && about.len() <= MAX_FILE_BYTES {
                self.file(name, path)?;
            } else {
                tracing::warn!(path = %path.display(), "left out: too long, too deep, a link back, or no plain file");
            }
        }
        self.open.pop();
        Ok(())
    }

    fn file(&mut self, name: String, path: PathBuf) -> Result<(), RootError> {
        if self.files.len() == MAX_FILES {
            return Err(RootError::TooManyFiles {
                path: self.root.to_owned(),
            });
        }
        let (length, hash) = hash_file(&path).map_err(unreadable(&path))?;
        self.files.insert(
            name,
            WebFile {
                path,
                length,
                hash,
                plain: Held::default(),
                gzip: Held::default(),
            },
        );
        Ok(())
    }
}

/// Returns true for names that a request can ask for and that are meant to be seen.
fn is_servable(name: &str) -> bool {
    (!name.starts_with('.') || name == ".well-known")
        && !name.contains(['\\', ':'])
        && !name.contains(char::is_control)
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> RootError + use<> {
    let path = path.to_owned();
    |source| RootError::Unreadable { path, source }
}

fn hash_file(path: &Path) -> io::Result<(u64, [u8; 32])> {
    let mut file = fs::File::open(path)?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; HASH_PIECE_BYTES];
    let mut length = 0;
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok((length, hash.finalize().into()));
        }
        length += read as u64;
        hash.update(piece.get(..read).unwrap_or_default());
    }
}

fn read_unchanged(path: &Path, length: u64, hash: &[u8; 32]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    fs::File::open(path)?
        .take(length + 1)
        .read_to_end(&mut bytes)?;
    if Sha256::digest(&bytes).as_slice() != hash {
        return Err(io::Error::other("the file has changed since the start"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join("web").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    fn names(root: &WebRoot) -> Vec<&str> {
        root.files().map(|(name, _)| name).collect()
    }

    #[test]
    fn prg_002_only_plain_files_inside_the_folder_are_indexed() {
        let outside = folder(&[
            ("sub/a.js", b"1"),
            ("index.html", b"2"),
            (".git/config", b"3"),
            (".well-known/x", b"4"),
            ("a\\b", b"5"),
            ("c:x", b"6"),
            ("line\nfeed", b"7"),
        ]);
        let web = outside.path().join("web");
        fs::write(outside.path().join("secret"), b"8").unwrap();
        let link =
            |to: PathBuf, name: &str| std::os::unix::fs::symlink(to, web.join(name)).unwrap();
        link(outside.path().join("secret"), "out");
        link(outside.path().to_owned(), "out-folder");
        link(web.join("nowhere"), "dangling");
        link(web.join("index.html"), "same.html");
        link(web.join("sub"), "again");
        link(web.clone(), "sub/loop");
        let root = WebRoot::open(&web).unwrap();
        let found = names(&root);
        for name in [
            ".well-known/x",
            "again/a.js",
            "index.html",
            "same.html",
            "sub/a.js",
        ] {
            assert!(found.contains(&name), "{name}");
        }
        for part in [
            "out", "secret", "dangling", ".git", "config", "a\\b", "c:x", "\n",
        ] {
            assert!(!found.iter().any(|name| name.contains(part)), "{part}");
        }
        assert_eq!(found.len(), 5, "{found:?}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let error = WebRoot::open(Path::new("/nonexistent/web")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/web"));
    }

    /// The same as `sha256sum` of the files in byte order, hashed once more.
    #[test]
    fn pgs_01_010_the_hash_covers_names_and_content() {
        let bundle = folder(&[("index.html", b"main"), ("js/a.js", b"1")]);
        let web = bundle.path().join("web");
        let root = WebRoot::open(&web).unwrap();
        let expected = Sha256::digest(format!(
            "{}  index.html\n{}  js/a.js\n",
            champ::text::to_hex(&Sha256::digest(b"main")),
            champ::text::to_hex(&Sha256::digest(b"1")),
        ));
        assert_eq!(root.hash().as_slice(), expected.as_slice());
        fs::write(web.join("js/a.js"), b"2").unwrap();
        assert_ne!(WebRoot::open(&web).unwrap().hash(), root.hash());
        fs::rename(web.join("js/a.js"), web.join("js/b.js")).unwrap();
        assert_ne!(WebRoot::open(&web).unwrap().hash(), root.hash());
    }

    #[tokio::test]
    async fn pgs_01_010_a_file_that_changed_is_not_served() {
        let bundle = folder(&[("a.js", b"good"), ("b.js", b"fine")]);
        let web = bundle.path().join("web");
        let root = WebRoot::open(&web).unwrap();
        assert_eq!(root.body("b.js", false).await.unwrap().shared(), "fine");
        fs::write(web.join("a.js"), b"evil").unwrap();
        assert!(root.body("a.js", false).await.is_none());
        fs::write(web.join("a.js"), b"good and more").unwrap();
        assert!(root.body("a.js", false).await.is_none());
        fs::remove_file(web.join("a.js")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", web.join("a.js")).unwrap();
        assert!(root.body("a.js", true).await.is_none());
        assert!(root.body("nothing", false).await.is_none());
    }

    #[tokio::test]
    async fn a_body_is_in_memory_once_and_the_cache_is_bounded() {
        let bundle = folder(&[]);
        let web = bundle.path().join("web");
        fs::create_dir_all(&web).unwrap();
        let piece = MAX_CACHED_BYTES / 3;
        for n in 0..5 {
            fs::write(web.join(n.to_string()), vec![n; piece]).unwrap();
        }
        fs::write(web.join("large"), vec![9; MAX_CACHED_BYTES]).unwrap();
        let root = WebRoot::open(&web).unwrap();
        let large = root.body("large", false).await.unwrap();
        let again = root.body("large", false).await.unwrap();
        assert!(Arc::ptr_eq(&large, &again));
        for n in 0..5 {
            let body = root.body(&n.to_string(), false).await.unwrap();
            assert_eq!(body.shared().len(), piece);
        }
        {
            let recent = root.recent.lock();
            let held: usize = recent.bodies.iter().map(|body| body.bytes.len()).sum();
            assert_eq!(recent.bytes, held);
            assert!(recent.bytes <= MAX_CACHED_BYTES);
        }
        let held = root.files.get("0").unwrap().plain.lock().await.clone();
        assert!(held.upgrade().is_none(), "the oldest is gone");
    }

    #[tokio::test]
    async fn gzip_makes_another_body_with_another_tag() {
        let text = b"kastro ".repeat(1000);
        let bundle = folder(&[("a.js", &text), ("a.png", &text)]);
        let root = WebRoot::open(&bundle.path().join("web")).unwrap();
        let plain = root.body("a.js", false).await.unwrap();
        let gzip = root.body("a.js", true).await.unwrap();
        assert!(gzip.is_gzip && gzip.shared().len() < plain.shared().len());
        assert_ne!(plain.tag, gzip.tag);
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&*gzip.shared())
            .read_to_end(&mut unpacked)
            .unwrap();
        assert_eq!(unpacked, text);
        assert!(!root.body("a.png", true).await.unwrap().is_gzip);
    }
}
