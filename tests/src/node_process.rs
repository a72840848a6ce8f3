//! A node in its own process.

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A running `kastro serve`. Killed on drop.
#[derive(Debug)]
pub struct NodeProcess {
    child: Child,
    url: String,
    peers: Vec<String>,
    data: PathBuf,
    started_in: Duration,
}

impl NodeProcess {
    /// Starts a node on `data` and a free port, and waits until it listens.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[must_use]
    pub fn start(kastro: &Path, data: &Path, options: &[&str]) -> Self {
        let begin = Instant::now();
        let log = std::fs::File::create(data.with_extension("log")).expect("log file");
        let mut child = Command::new(kastro)
            .args(["serve", "--json", "--listen", "127.0.0.1:0"])
            .args(["--set", "p2p.listen=/ip4/127.0.0.1/tcp/0", "--data"])
            .arg(data)
            .args(options)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the node's program starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("the node prints where it listens");
        let started_in = begin.elapsed();
        let announced: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
        let Some(url) = announced.get("url").and_then(text) else {
            let _ = child.kill();
            let _ = child.wait();
            let log = std::fs::read_to_string(data.with_extension("log")).unwrap_or_default();
            panic!("the node did not start: {line}{log}");
        };
        Self {
            child,
            url,
            peers: announced
                .get("peers")
                .and_then(serde_json::Value::as_array)
                .map(|peers| peers.iter().filter_map(text).collect())
                .unwrap_or_default(),
            data: data.to_path_buf(),
            started_in,
        }
    }

    /// Returns the address of the node: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the addresses at which other nodes reach it.
    #[must_use]
    pub fn peers(&self) -> &[String] {
        &self.peers
    }

    /// Returns `127.0.0.1:PORT`.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Returns the data folder.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// Returns what the node has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.with_extension("log")).unwrap_or_default()
    }

    /// Returns the time from the start of the process until it listened.
    #[must_use]
    pub const fn started_in(&self) -> Duration {
        self.started_in
    }

    /// Returns the process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns present and highest resident memory in bytes, where the system tells (Linux).
    #[must_use]
    pub fn memory(&self) -> Option<(u64, u64)> {
        memory_of(self.child.id())
    }

    /// Kills the process without warning, as a power cut would.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks the process to stop (SIGTERM) and returns whether it ended with success.
    ///
    /// # Panics
    ///
    /// When it does not end within 20 seconds.
    #[must_use]
    pub fn stop(mut self) -> bool {
        let sent = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "kill works");
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().expect("the process can be asked") {
                return status.success();
            }
            assert!(Instant::now() < deadline, "the node does not stop");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for NodeProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns present and highest resident memory of a process in bytes.
pub(crate) fn memory_of(process: u32) -> Option<(u64, u64)> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kib * 1024)
    };
    Some((field("VmRSS:")?, field("VmHWM:")?))
}
