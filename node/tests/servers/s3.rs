//! The S3 server of the tests: `tests/s3-server` as a process of its own.
//!
//! Where it has not been built, these tests print SKIP; `KASTRO_REQUIRE_SERVERS=1` makes that a failure.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use node::store::s3::{S3Credentials, S3Key, S3Options};

pub(crate) const BUCKET: &str = "blocks";
pub(crate) const KEY_ID: &str = "AKIDKASTRO";
pub(crate) const SECRET: &str = "kastro-test-secret";

/// Names another server to use, as `host:port`; it has a bucket `blocks`. Tests that look at the files behind
/// objects cannot pass there.
pub(crate) const OTHER_SERVER: &str = "KASTRO_S3_TEST_SERVER";
/// Key for that server, as `id:secret`, if it is another than the one below.
const OTHER_KEY: &str = "KASTRO_S3_TEST_KEY";

/// A running server; it ends with this process, because its standard input does.
pub(crate) struct S3Server {
    pub(crate) address: SocketAddr,
    /// What it keeps.
    folder: PathBuf,
    _process: Option<Child>,
}

/// Returns the server that all tests of this process share; `None` after saying why there is none.
pub(crate) fn server() -> Option<&'static S3Server> {
    static SERVER: OnceLock<Option<S3Server>> = OnceLock::new();
    let server = SERVER.get_or_init(start).as_ref();
    if server.is_none() {
        assert!(
            !super::are_required(),
            "the S3 server is missing: cargo build --manifest-path tests/s3-server/Cargo.toml --target-dir target"
        );
        println!(
            "SKIP: no S3 server; cargo build --manifest-path tests/s3-server/Cargo.toml --target-dir target"
        );
    }
    server
}

fn start() -> Option<S3Server> {
    if let Ok(address) = std::env::var(OTHER_SERVER) {
        return Some(S3Server {
            address: address.parse().unwrap(),
            folder: PathBuf::new(),
            _process: None,
        });
    }
    // Beside the folder of the test programs.
    let program = std::env::current_exe().ok()?;
    let program = program.parent()?.parent()?.join("s3-server");
    if !program.exists() {
        return None;
    }
    // The server removes it.
    let folder = tempfile::tempdir().unwrap().keep();
    std::fs::create_dir(folder.join(BUCKET)).unwrap();
    let mut process = Command::new(program)
        .arg(&folder)
        .args([KEY_ID, SECRET])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    Some(S3Server {
        address: line.trim().parse().unwrap(),
        folder,
        _process: Some(process),
    })
}

impl S3Server {
    /// A prefix that nobody has used.
    pub(crate) fn fresh_prefix() -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        format!("t{}-{number}", std::process::id())
    }

    /// Settings for a prefix, through this address or the one of something in between.
    pub(crate) fn options_at(&self, address: SocketAddr, prefix: &str) -> S3Options {
        let mut options = S3Options::new(BUCKET);
        options.prefix = prefix.to_owned();
        options.endpoint = Some(format!("http://{address}"));
        let other = std::env::var(OTHER_KEY).ok();
        let other = other.as_deref().and_then(|key| key.split_once(':'));
        let (id, secret) = other.unwrap_or((KEY_ID, SECRET));
        options.credentials = S3Credentials::Key(S3Key {
            id: id.to_owned(),
            secret: secret.to_owned(),
            session: None,
        });
        options.first_retry_delay = Duration::from_millis(5);
        options.request_timeout = Duration::from_secs(20);
        options
    }

    pub(crate) fn options(&self, prefix: &str) -> S3Options {
        self.options_at(self.address, prefix)
    }

    /// The file behind an object.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(BUCKET).join(name)
    }
}
