//! A PostgreSQL server of the machine's own package, without network, gone when the test process is.

use std::{
    fs,
    io::Write as _,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use node::store::PostgresOptions;
use tempfile::TempDir;

/// A server and its data.
pub(crate) struct Server {
    folder: TempDir,
    bin: PathBuf,
    /// A shell that ends the server when its input ends, also when this process is killed.
    guardian: Option<Child>,
}

impl Server {
    /// Starts a server; `None` when PostgreSQL is not installed. It does not flush, so it may forget when the machine
    /// goes down, but not when it is killed itself.
    pub(crate) fn start() -> Option<Self> {
        let Some(bin) = binaries() else {
            assert!(
                !super::are_required(),
                "PostgreSQL is not installed (Debian: apt-get install postgresql)"
            );
            eprintln!("SKIPPED: PostgreSQL is not installed (Debian: apt-get install postgresql)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        if let Some((uid, gid)) = other_user() {
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let mut server = Self {
            folder,
            bin,
            guardian: None,
        };
        let mut initdb = server.command("initdb");
        initdb
            .args(["-U", "kastro", "-A", "trust", "--no-sync"])
            .args(["--locale=C", "--encoding=UTF8", "-D"])
            .arg(server.data());
        let made = initdb.output().unwrap();
        assert!(made.status.success(), "{made:?}");
        server.resume();
        Some(server)
    }

    /// Starts the server again.
    pub(crate) fn resume(&mut self) {
        let socket = self.folder.path().to_str().unwrap().to_owned();
        let script = format!(
            "'{bin}/postgres' -D '{data}' -k '{socket}' -c listen_addresses= -c fsync=off \
             -c full_page_writes=off -c max_connections=300 -c shared_buffers=32MB -c log_min_messages=fatal \
             -c deadlock_timeout=200ms >'{socket}/log' 2>&1 & server=$!\n\
             read -r _; kill -QUIT $server; wait $server",
            bin = self.bin.display(),
            data = self.data().display(),
        );
        let mut shell = self.as_user("sh");
        let child = shell
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.guardian = Some(child);
        self.wait();
    }

    fn wait(&self) {
        let since = Instant::now();
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            let log = || fs::read_to_string(self.folder.path().join("log"));
            assert!(since.elapsed() < Duration::from_secs(60), "{:?}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the server as `pg_ctl -m immediate` does: it writes nothing more, and recovers at its next start.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.guardian.take() {
            let _ = child.stdin.take().map(|mut input| input.write_all(b"\n"));
            child.wait().unwrap();
        }
    }

    /// The server's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join(".s.PGSQL.5432")
    }

    /// How to reach a new, empty data set.
    pub(crate) fn new_data_set(&self) -> PostgresOptions {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        self.data_set(&format!("t{number}"))
    }

    /// How to reach a data set.
    pub(crate) fn data_set(&self, name: &str) -> PostgresOptions {
        data_set(self.folder(), name)
    }

    /// Where other processes find the server.
    pub(crate) fn folder(&self) -> &str {
        self.folder.path().to_str().unwrap()
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, name: &str) -> Command {
        self.as_user(self.bin.join(name))
    }

    /// PostgreSQL refuses to run as root.
    fn as_user(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.folder.path()).env("LC_ALL", "C");
        if let Some((uid, gid)) = other_user() {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// How to reach a data set of the server in this folder.
pub(crate) fn data_set(folder: &str, name: &str) -> PostgresOptions {
    let address = format!("host={folder} user=kastro dbname=postgres");
    let mut options = PostgresOptions::new(&address)
        .unwrap()
        .schema(name)
        .unwrap();
    options.require_fsync = false;
    options.connections = 4;
    options
}

/// The server that tests share, each with a data set of its own.
pub(crate) fn shared() -> Option<&'static Server> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(Server::start).as_ref()
}

/// Returns the folder of the newest installed server.
fn binaries() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("KASTRO_POSTGRES_BIN") {
        return Some(folder.into());
    }
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
        .filter(|bin| is_complete(bin))
        .collect();
    versions.sort_by_key(|bin| {
        let version = bin.parent().and_then(Path::file_name);
        version
            .and_then(|name| name.to_str()?.parse::<u32>().ok())
            .unwrap_or(0)
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = || std::env::split_paths(&path).find(|bin| is_complete(bin));
    versions.pop().or_else(on_path)
}

fn is_complete(bin: &Path) -> bool {
    bin.join("postgres").exists() && bin.join("initdb").exists()
}

/// Returns whom to become when this process is root.
fn other_user() -> Option<(u32, u32)> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt as _;
        own.uid() == 0
    });
    if !is_root {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    ["postgres", "nobody"].iter().find_map(|name| {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map(str::parse);
        Some((fields.next()?.ok()?, fields.next()?.ok()?))
    })
}
