//! Several nodes, each a process of its own, that know of each other an id and an address and nothing else.

mod around;
mod foreign;
mod identity;
mod mirrors;
mod moves;
mod names;
#[cfg(target_os = "linux")]
mod namespaces;
#[cfg(target_os = "linux")]
mod routers;

use std::{
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use cli::{environment::TokioEnvironment, transport::HttpTransport};
use cryptree::client::Client;
use pki::published::PublishedPath;
use serde_json::Value;
use tempfile::TempDir;
use tests::{Finished, Kastro, NodeProcess, bytes_below};

use crate::{json_lines, program};

/// Longest wait for a fact, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(120);

/// Nodes that were told of the first one.
struct Net {
    folder: TempDir,
    /// `KEY@NODE` of the first node.
    names: String,
    /// Its address.
    known: String,
}

/// A node that can be killed and started again at the address it had.
struct Member {
    data: PathBuf,
    options: Vec<String>,
    /// What the present process was started with besides.
    extra: Vec<String>,
    process: Option<NodeProcess>,
    /// Where other nodes reach it, with its id.
    address: String,
}

impl Net {
    /// Starts the node that gives out names.
    fn new() -> (Self, Member) {
        let folder = TempDir::new().unwrap();
        let first = Member::start(&folder.path().join("first"), Vec::new());
        let shown = first.json(&["names", "status"]);
        let net = Self {
            names: shown["network"].as_str().unwrap().to_owned(),
            known: first.address.clone(),
            folder,
        };
        (net, first)
    }

    /// Starts a node that is told of the first one.
    fn join(&self, name: &str) -> Member {
        let options = vec![
            format!("name_authority={}", self.names),
            format!("p2p.peers={}", self.known),
        ];
        Member::start(&self.folder.path().join(name), options)
    }

    /// A person at a machine that knows nothing, who reaches `member`.
    fn person(&self, name: &str, member: &Member) -> Kastro {
        let home = self.path(&format!("home of {name}"));
        std::fs::create_dir_all(&home).unwrap();
        Kastro::new(program(), &home)
            .with("KASTRO_SERVER", member.url())
            .with("KASTRO_USER", name)
            .with("KASTRO_PASSWORD", &format!("the password of {name}"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Member {
    fn start(data: &Path, options: Vec<String>) -> Self {
        // Of the addresses of this machine one for each node, so that nobody takes its port while it is down.
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let process = std::process::id();
        let (a, b) = (1 + (process >> 8) % 254, 1 + process % 254);
        let c = 1 + NEXT.fetch_add(1, Ordering::SeqCst) % 254;
        let mut member = Self {
            data: data.to_path_buf(),
            options,
            extra: Vec::new(),
            process: None,
            address: format!("/ip4/127.{a}.{b}.{c}/tcp/0"),
        };
        member.run();
        member.address = member.node().peers()[0].clone();
        member
    }

    fn run(&mut self) {
        let listen = self.address.split("/p2p/").next().unwrap();
        let fixed = [
            format!("p2p.listen={listen}"),
            // Others of this machine are dialed also when a third one tells of them.
            "p2p.dial=any".to_owned(),
            // Rounds are run by hand, so that it is known what each of them does.
            "mirror.is_automatic=false".to_owned(),
        ];
        let settings = fixed.iter().chain(&self.options).chain(&self.extra);
        let arguments: Vec<&str> = settings
            .flat_map(|setting| ["--set", setting.as_str()])
            .collect();
        self.process = Some(NodeProcess::start(program(), &self.data, &arguments));
    }

    fn node(&self) -> &NodeProcess {
        self.process.as_ref().unwrap()
    }

    fn url(&self) -> &str {
        self.node().url()
    }

    fn id(&self) -> &str {
        self.address.split("/p2p/").nth(1).unwrap()
    }

    /// Ends the process as a power cut would.
    fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    /// Starts the process again, with these settings besides.
    fn restart_with(&mut self, extra: &[&str]) {
        let before = self.address.clone();
        self.restart_as_another(extra);
        assert_eq!(self.address, before);
    }

    /// Starts the process again, at the same place, under whatever id it has now.
    fn restart_as_another(&mut self, extra: &[&str]) {
        if self.process.is_some() {
            self.kill();
        }
        self.extra = extra.iter().map(|text| (*text).to_owned()).collect();
        self.run();
        self.address = self.node().peers()[0].clone();
    }

    fn restart(&mut self) {
        self.restart_with(&[]);
    }

    fn operator(&self) -> Kastro {
        Kastro::new(program(), self.data.parent().unwrap())
            .with("KASTRO_DATA", self.data.to_str().unwrap())
    }

    /// Runs an operator's command.
    fn operate(&self, arguments: &[&str]) -> Finished {
        self.operator().run(arguments)
    }

    /// Runs an operator's command that must succeed, and returns the first line of its result.
    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let arguments = [&["--json", "--quiet"], arguments].concat();
        json_lines(&self.operator().ok(&arguments)).remove(0)
    }

    /// One round over the table of names.
    #[track_caller]
    fn sync(&self) -> Value {
        self.json(&["names", "status", "--sync"])
    }

    /// Makes room for a copy of somebody, who permits it.
    #[track_caller]
    fn keep(&self, person: &Kastro, user: &str, from: &Self) {
        self.operator()
            .ok(&["mirror", "add", user, "--from", from.id()]);
        person.ok(&["mirror", "allow", self.url()]);
    }

    /// Bytes of all files with blocks.
    fn block_bytes(&self) -> u64 {
        bytes_below(&self.data.join("store/blocks"))
    }
}

/// A command that goes on for a while, in the middle of which something is going to happen. Killed on drop.
struct Under {
    person: Kastro,
    arguments: Vec<String>,
    process: Child,
}

impl Under {
    fn way(person: &Kastro, arguments: &[&str]) -> Self {
        Self {
            person: person.clone(),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            process: begin(person, arguments),
        }
    }

    /// Waits until `fact` holds, or the command has done its work. A command that fails is begun again: a node that was just
    /// started may not have found the others yet.
    #[track_caller]
    fn until(&mut self, what: &str, mut fact: impl FnMut() -> bool) {
        until(what, || {
            let ended = self.process.try_wait().unwrap();
            if ended.is_some_and(|ended| !ended.success()) {
                let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
                self.process = begin(&self.person, &arguments);
            }
            fact() || ended.is_some_and(|ended| ended.success())
        });
    }

    /// Waits until it has ended, whichever way.
    fn wait(mut self) {
        let _ = self.process.wait();
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn begin(person: &Kastro, arguments: &[&str]) -> Child {
    let mut command = person.command(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// How often an account moves in a test: three times, or `KASTRO_MOVE_ROUNDS`.
fn move_rounds() -> u64 {
    let rounds = std::env::var("KASTRO_MOVE_ROUNDS");
    rounds.ok().and_then(|text| text.parse().ok()).unwrap_or(3)
}

/// Whether alice lives at a node, as its operator is shown it.
fn is_home(member: &Member) -> Option<bool> {
    let lines = member
        .operator()
        .ok(&["--json", "--quiet", "users", "list"]);
    let lines = json_lines(&lines);
    let alice = lines.iter().find(|line| line["name"] == "alice")?;
    Some(alice["home"] == "here")
}

/// Reads what alice has published as `/alice/poster`, without an account; `None` when the node cannot get it now.
fn published(member: &Member) -> Option<Vec<u8>> {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let transport = HttpTransport::new(member.url()).unwrap();
        let client = Client::new(Arc::new(transport), Arc::new(TokioEnvironment));
        let files = client.published("alice").await.ok()?;
        let path: PublishedPath = PublishedPath::parse("/alice/poster").unwrap();
        let item = files.open(&path).await.ok()??;
        let file = item.file().await.ok()?;
        Some(file.read_at(0, 100).await.ok()?.to_vec())
    })
}

/// Waits until `fact` holds.
#[track_caller]
fn until(what: &str, mut fact: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !fact() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Writes a file of bytes that do not compress and repeat nowhere; returns its content.
fn fill(path: &Path, bytes: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut content = Vec::with_capacity(bytes + 8);
    while content.len() < bytes {
        content.extend_from_slice(&dice.next().to_le_bytes());
    }
    content.truncate(bytes);
    tests::write(path, &content);
    content
}

/// Numbers that look random and are the same in each run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
