//! A whole node at work is killed: at random, at every durable step, and by a power cut (REL-1, REL-2; Spec: 40
//! §12.2, M1, M2, M4).
//!
//! The victim is a child process with a mixed load: sign-ups, uploads, pointer updates, login data, deletions. It says on
//! standard output what was acknowledged to its clients. After each death a node starts on what is left:
//! everything acknowledged is there, every multi-step change happened as a whole or not at all, and a check of
//! everything finds nothing.
//!
//! `KASTRO_KILL_ROUNDS=2000 cargo test --release -p node --test main upkeep::kill -- --nocapture` runs the long version,
//! `KASTRO_CUT_ROUNDS=500 cargo test --release -p node --test main power_cut -- --ignored --nocapture` the power cuts, as root.

use std::{
    ffi::OsString,
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    time::{Duration, Instant},
};

use champ::Cid;
use node::store::{
    Store,
    disk::{Disk, Locked, Space, SystemDisk},
};
use redb::StorageBackend;
use tempfile::TempDir;

use super::{
    disk_trouble::Mount,
    world::{Files, World, space},
};
use crate::store::model_disk::Dice;

/// Folder of the victim: the one that holds `data`.
const FOLDER: &str = "KASTRO_NODE_VICTIM";
/// Durable step before which the victim aborts, and how many versions it stores then.
const ABORT_AT: &str = "KASTRO_NODE_ABORT_AT";
/// Set when the victim's disk flushes nothing.
const SKIP_FLUSHES: &str = "KASTRO_NODE_SKIP_FLUSHES";
const ROUNDS: &str = "KASTRO_KILL_ROUNDS";
const CUTS: &str = "KASTRO_CUT_ROUNDS";
const USERS: [(&str, u8); 3] = [("alice", 7), ("bob", 8), ("carol", 9)];
/// Versions each user stores in a run that ends by itself.
const SCRIPTED: i64 = 3;

/// One user's session: versions one after the other, each acknowledged, the version before deleted.
async fn work(world: Arc<World>, name: &'static str, seed: u8, versions: Option<i64>) {
    let mut files = match Files::resume(&world, name, seed).await {
        Some(files) => files,
        None => {
            let files = world.user(name, seed, 2).await;
            acknowledge(name, files.version());
            files
        }
    };
    let end = versions.map(|more| files.version() + more);
    while end.is_none_or(|end| files.version() < end) {
        let old: Vec<_> = files.fragments.iter().map(|b| b.cid().clone()).collect();
        files.save(&world, 1 + (files.version() % 3) as u8).await;
        acknowledge(name, files.version());
        let content = files.version() as u8;
        let data = files.account.login_data(&files.account.login, content);
        let _ = files.account.set_login(&world.node, &data).await;
        delete(&*world.store, name, &old).await;
    }
}

/// Deletes what a version has replaced.
pub(super) async fn delete(store: &dyn Store, name: &str, old: &[Cid]) {
    let space = space(name);
    let listed = store.list_blocks(&space, None, 1_000).await.unwrap();
    let garbage = listed.into_iter().filter(|info| old.contains(&info.cid));
    let garbage = garbage.map(|info| (info.cid, info.generation)).collect();
    store.delete_blocks(&space, garbage).await.unwrap();
}

/// Says to the process that kills this one what was acknowledged.
pub(super) fn acknowledge(name: &str, version: i64) {
    let line = format!("acknowledged {name} {version}\n");
    let mut out = io::stdout().lock();
    out.write_all(line.as_bytes()).unwrap();
    out.flush().unwrap();
}

/// The victim; runs until it is killed, or until its script is done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_victim() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let abort_at = std::env::var(ABORT_AT).ok().map(|n| n.parse().unwrap());
    let skips_flushes = std::env::var_os(SKIP_FLUSHES).is_some();
    let disk: Arc<dyn Disk> = match abort_at {
        _ if skips_flushes => Arc::new(AbortingDisk::new(u64::MAX, true)),
        Some(at) => Arc::new(AbortingDisk::new(at, false)),
        None => Arc::new(SystemDisk),
    };
    // Never removed by the victim: the parent owns it.
    let folder = PathBuf::from(folder);
    let world = Arc::new(World::on(&folder, disk).await);
    let versions = abort_at.map(|_| SCRIPTED);
    let mut tasks = tokio::task::JoinSet::new();
    for (name, seed) in USERS {
        tasks.spawn(work(world.clone(), name, seed, versions));
    }
    tasks.join_all().await;
    println!("done");
}

/// A disk that ends the process before its n-th durable step, or that does not flush: a broken engine that the power
/// cuts must find out.
#[derive(Debug)]
struct AbortingDisk {
    steps: Arc<AtomicU64>,
    at: u64,
    skips_flushes: bool,
}

impl AbortingDisk {
    fn new(at: u64, skips_flushes: bool) -> Self {
        Self {
            steps: Arc::default(),
            at,
            skips_flushes,
        }
    }

    fn step(&self, name: &str) {
        step(&self.steps, self.at, name);
    }
}

fn step(steps: &AtomicU64, at: u64, name: &str) {
    if steps.fetch_add(1, Ordering::SeqCst) + 1 == at {
        println!("step {name}");
        let _ = io::stdout().lock().flush();
        std::process::abort();
    }
}

impl Disk for AbortingDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        self.step("create_folder");
        SystemDisk.create_folder(path)
    }

    fn sync_folder(&self, path: &Path) -> io::Result<()> {
        self.step("sync_folder");
        if self.skips_flushes {
            return Ok(());
        }
        SystemDisk.sync_folder(path)
    }

    fn write_new(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step("write_new");
        if self.steps.load(Ordering::SeqCst) + 1 == self.at {
            // Torn: half of it, not flushed.
            fs::write(path, &bytes[..bytes.len() / 2])?;
        }
        self.step("write_new, torn");
        if self.skips_flushes {
            return fs::write(path, bytes);
        }
        SystemDisk.write_new(path, bytes)
    }

    fn read(&self, path: &Path, max_bytes: usize) -> io::Result<Vec<u8>> {
        SystemDisk.read(path, max_bytes)
    }

    fn size(&self, path: &Path) -> io::Result<u64> {
        SystemDisk.size(path)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step("remove");
        SystemDisk.remove(path)
    }

    fn remove_folder(&self, path: &Path) -> io::Result<()> {
        self.step("remove_folder");
        SystemDisk.remove_folder(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step("rename");
        SystemDisk.rename(from, to)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<OsString>> {
        SystemDisk.list(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        SystemDisk.space(path)
    }

    fn database(&self, path: &Path) -> io::Result<Box<dyn StorageBackend>> {
        Ok(Box::new(AbortingFile {
            file: SystemDisk.database(path)?,
            steps: self.steps.clone(),
            at: self.at,
            skips_flushes: self.skips_flushes,
        }))
    }

    fn lock(&self, path: &Path) -> io::Result<Locked> {
        SystemDisk.lock(path)
    }
}

#[derive(Debug)]
struct AbortingFile {
    file: Box<dyn StorageBackend>,
    steps: Arc<AtomicU64>,
    at: u64,
    skips_flushes: bool,
}

impl StorageBackend for AbortingFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        step(&self.steps, self.at, "database set_len");
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        step(&self.steps, self.at, "database sync");
        if !self.skips_flushes {
            self.file.sync_data()?;
        }
        step(&self.steps, self.at, "database synced");
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        step(&self.steps, self.at, "database write");
        self.file.write(offset, data)
    }
}

/// A running victim.
struct Victim {
    child: std::process::Child,
    lines: Receiver<String>,
    acknowledged: [i64; USERS.len()],
    last_step: Option<String>,
    is_done: bool,
}

impl Victim {
    fn start(folder: &Path, abort_at: Option<u64>) -> Self {
        Self::start_with(folder, abort_at, false)
    }

    fn start_with(folder: &Path, abort_at: Option<u64>, skips_flushes: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "upkeep::kill::node_victim", "--nocapture"])
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(at) = abort_at {
            command.env(ABORT_AT, at.to_string());
        }
        if skips_flushes {
            command.env(SKIP_FLUSHES, "1");
        }
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = sync_channel(1 << 16);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Self {
            child,
            lines,
            acknowledged: [0; USERS.len()],
            last_step: None,
            is_done: false,
        }
    }

    fn note(&mut self, line: &str) {
        // The test harness may print in front of a line.
        if let Some(at) = line.find("acknowledged ") {
            let mut words = line[at..].split(' ').skip(1);
            let name = words.next().unwrap();
            let user = USERS.iter().position(|(user, _)| *user == name).unwrap();
            self.acknowledged[user] = words.next().unwrap().parse().unwrap();
        } else if let Some(at) = line.find("step ") {
            self.last_step = Some(line[at + 5..].to_owned());
        }
        self.is_done |= line == "done";
    }

    /// Lets it work for a while after its first acknowledgement.
    fn work_for(&mut self, time: Duration) {
        let mut end: Option<Instant> = None;
        loop {
            let left = end.map_or(Duration::from_secs(120), |end| {
                end.saturating_duration_since(Instant::now())
            });
            let Ok(line) = self.lines.recv_timeout(left) else {
                return;
            };
            self.note(&line);
            if end.is_none() && self.acknowledged.iter().any(|version| *version > 0) {
                end = Some(Instant::now() + time);
            }
        }
    }

    /// Returns what has been acknowledged until now.
    fn so_far(&mut self) -> [i64; USERS.len()] {
        while let Ok(line) = self.lines.try_recv() {
            self.note(&line);
        }
        self.acknowledged
    }

    /// Waits for its end, killing it first if asked to.
    fn end(mut self, kill: bool) -> Self {
        if kill {
            self.child.kill().unwrap();
        }
        self.child.wait().unwrap();
        while let Ok(line) = self.lines.recv() {
            self.note(&line);
        }
        self
    }
}

/// Starts a node on what is left and looks at everything.
async fn verify(folder: &Path, acknowledged: &[i64], context: &str) {
    let begun = Instant::now();
    let world = World::on(folder, Arc::new(SystemDisk)).await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{context}");
    for ((name, seed), least) in USERS.into_iter().zip(acknowledged) {
        let Some(files) = Files::resume(&world, name, seed).await else {
            assert_eq!(*least, 0, "{context}: {name} was signed up");
            continue;
        };
        let version = files.version();
        assert!(
            version >= *least,
            "{context}: {name} is at {version}, {least} was acknowledged"
        );
        if version > 1 {
            files.assert_readable(&world).await;
        }
    }
    // Usage of updates that were cut off is worked out behind the start.
    for (name, seed) in USERS {
        if let Some(files) = Files::resume(&world, name, seed).await {
            files.account.usage(&world.node, "").await;
        }
    }
    let report = world.check().await;
    assert_eq!(report.findings, [], "{context}");
    world.node.node.close().await.unwrap();
}

fn is_victim() -> bool {
    std::env::var_os(FOLDER).is_some()
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_1_a_node_killed_at_random_loses_nothing_acknowledged() {
    if is_victim() {
        return;
    }
    let rounds = number(ROUNDS, 3);
    let mut dice = Dice(u64::from(std::process::id()));
    let mut folder = tempfile::tempdir().unwrap();
    let mut total = 0;
    for round in 0..rounds {
        if round % 50 == 49 {
            // Sign-up is part of the load.
            folder = tempfile::tempdir().unwrap();
        }
        let mut victim = Victim::start(folder.path(), None);
        victim.work_for(Duration::from_millis(dice.roll(300)));
        let victim = victim.end(true);
        verify(
            folder.path(),
            &victim.acknowledged,
            &format!("round {round}"),
        )
        .await;
        total += victim.acknowledged.iter().sum::<i64>();
        if round % 100 == 99 {
            println!("{} kills, nothing lost", round + 1);
        }
    }
    assert!(total > 0);
    println!("{rounds} kills of a node at work, nothing acknowledged was lost");
}

/// Aborts before every durable step of a scripted load; the short version takes some of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rel_1_a_node_that_aborts_at_any_durable_step_loses_nothing_acknowledged() {
    if is_victim() {
        return;
    }
    let stride = if number(ROUNDS, 3) >= 1_000 { 1 } else { 29 };
    let mut seen = std::collections::BTreeSet::new();
    let mut at = 1;
    loop {
        let folder = tempfile::tempdir().unwrap();
        let victim = Victim::start(folder.path(), Some(at)).end(false);
        let context = format!("step {at}: {:?}", victim.last_step);
        verify(folder.path(), &victim.acknowledged, &context).await;
        if victim.is_done {
            break;
        }
        seen.extend(victim.last_step);
        at += stride;
    }
    println!("aborted at steps up to {at}: {seen:?}");
    assert!(at > 100, "{at} steps are too few for this load");
    assert!(seen.len() >= 3, "{seen:?}");
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{program}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}

/// File systems for power cuts: an outer one that can clone files, and in a file on it the one that is cut.
struct Rig {
    inner_mount: Option<Mount>,
    _outer_mount: Mount,
    outer: PathBuf,
    folder: TempDir,
    victim: TempDir,
}

impl Rig {
    fn new(options: &str) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let victim = tempfile::tempdir().unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let image = text(&folder.path().join("outer.img"));
        run("truncate", &["-s", "1G", &image])?;
        run("mkfs.xfs", &["-q", "-m", "reflink=1", &image])?;
        let outer = folder.path().join("outer");
        let skip = || "loop mounts are not possible here".to_owned();
        let outer_mount =
            Mount::new("power_cut", &outer, &["-o", "loop", &image]).ok_or_else(skip)?;
        let inner = text(&outer.join("inner.img"));
        run("truncate", &["-s", "256M", &inner])?;
        run("mkfs.ext4", &["-q", "-F", &inner])?;
        let loop_options = format!("loop,{options}");
        let data = victim.path().join("data");
        let mounted = Mount::new("power_cut", &data, &["-o", &loop_options, &inner]);
        Ok(Self {
            inner_mount: Some(mounted.ok_or_else(skip)?),
            _outer_mount: outer_mount,
            outer,
            folder,
            victim,
        })
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Before the file system that its image is on.
        drop(self.inner_mount.take());
    }
}

/// REL-2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, loop devices and mkfs.xfs; the command is at the top of the file"]
async fn rel_2_power_cut() {
    if is_victim() {
        return;
    }
    let rounds = number(CUTS, 20);
    let mut dice = Dice(u64::from(std::process::id()));
    let mut cuts = 0;
    for options in ["data=ordered", "data=writeback"] {
        let rig = match Rig::new(options) {
            Ok(rig) => rig,
            Err(why) => {
                println!("SKIP rel_2_power_cut: {why}");
                return;
            }
        };
        let mut victim = Victim::start(rig.victim.path(), None);
        for round in 0..rounds / 2 {
            victim.work_for(Duration::from_millis(100 + dice.roll(400)));
            cut(&rig, &mut victim, format!("{options}, cut {round}")).await;
            cuts += 1;
        }
        victim.end(true);
    }
    println!("{cuts} power cuts, nothing acknowledged was lost");
}

/// Copies the disk as it is this moment and looks at what a machine that lost power would find.
async fn cut(rig: &Rig, victim: &mut Victim, context: String) {
    let acknowledged = victim.so_far();
    assert!(acknowledged.iter().any(|n| *n > 0), "the victim works");
    let text = |name: &str| rig.outer.join(name).to_str().unwrap().to_owned();
    let (from, to) = (text("inner.img"), text("cut.img"));
    run("cp", &["--reflink=always", &from, &to]).unwrap();
    let cut = tempfile::tempdir_in(rig.folder.path()).unwrap();
    {
        let mount = Mount::new("power_cut", &cut.path().join("data"), &["-o", "loop", &to]);
        let _mount = mount.unwrap();
        verify(cut.path(), &acknowledged, &context).await;
    }
    fs::remove_file(to).unwrap();
}

/// Negative control of REL-2: the same cuts find out an engine that acknowledges before it flushes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, loop devices and mkfs.xfs; the command is at the top of the file"]
async fn rel_2_power_cut_finds_out_an_engine_that_does_not_flush() {
    if is_victim() {
        return;
    }
    let rig = match Rig::new("data=writeback") {
        Ok(rig) => rig,
        Err(why) => {
            println!("SKIP rel_2_power_cut: {why}");
            return;
        }
    };
    let mut victim = Victim::start_with(rig.victim.path(), None, true);
    let mut cuts = 0;
    let found = loop {
        victim.work_for(Duration::from_millis(300));
        cuts += 1;
        let look = std::panic::AssertUnwindSafe(cut(&rig, &mut victim, format!("cut {cuts}")));
        if futures_util::FutureExt::catch_unwind(look).await.is_err() {
            break true;
        }
        if cuts >= 20 {
            break false;
        }
    };
    victim.end(true);
    assert!(found, "{cuts} cuts of a disk without flushes found nothing");
    println!("found out at cut {cuts}");
}
