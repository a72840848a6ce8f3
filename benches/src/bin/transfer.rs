//! End to end, as a person would measure it: a node and a client in processes of their own, on loopback.
//!
//! ```text
//! cargo build --release -p cli && cargo run --release -p benches --bin transfer [-- quick | files | MIB]
//! ```
//!
//! Prints a table of what was measured beside the goals, and beside the same bytes put to and got from a static file server
//! over HTTP and, where they are installed, restic, rustic and `rclone crypt` on a local folder. `quick` uses a tenth of
//! the data, a number is the size of the large file in MiB, `files` leaves out the requests per second.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use benches::{
    baseline, file_server,
    load::{self, Load},
    program::{self, done, fill},
    record::Recorder,
    table::{Table, mb_per_second, megabytes},
};
use cli::{environment::TokioEnvironment, transport::HttpTransport};
use cryptree::client::{Client, Detail};
use tests::{Kastro, NodeProcess};

/// Sizes of a run.
struct Scale {
    large_bytes: u64,
    small_files: u64,
    load_time: Duration,
}

const FULL: Scale = Scale {
    large_bytes: 1 << 30,
    small_files: 10_000,
    load_time: Duration::from_secs(5),
};
const QUICK: Scale = Scale {
    large_bytes: 100 << 20,
    small_files: 1_000,
    load_time: Duration::from_secs(2),
};
const SMALL_BYTES: u64 = 4096;

fn main() -> anyhow::Result<()> {
    let mut scale = FULL;
    let mut with_requests = true;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "quick" => scale = QUICK,
            "files" => with_requests = false,
            size => scale.large_bytes = size.parse::<u64>().context("a size in MiB")? << 20,
        }
    }
    let kastro = program::kastro()?;
    let folder = tempfile::tempdir()?;
    let mut table = Table::default();
    let node = NodeProcess::start(&kastro, &folder.path().join("data"), &["--log", "warn"]);
    table.row(
        "node: start to listening, empty",
        millis(node.started_in()),
        "-",
    );
    table.row(
        "node: resident at rest",
        megabytes(node.memory().map(|m| m.0)),
        "<= 25 MB",
    );

    let home = folder.path().join("home");
    std::fs::create_dir(&home)?;
    let person = Kastro::new(&kastro, &home)
        .with("KASTRO_SERVER", node.url())
        .with("KASTRO_USER", "alice")
        .with("KASTRO_PASSWORD", "benchmark password");
    let signup = done(person.run(&["signup"]))?;
    table.row("sign-up, scrypt included", millis(signup.took), "-");
    // From here on the kept session is used: no scrypt in the figures.
    let person = Kastro::new(&kastro, &home);
    let ls = done(person.run(&["ls"]))?;
    table.row("`kastro ls` with a kept session", millis(ls.took), "-");

    large(&mut table, &scale, &person, &node, &home)?;
    small(&mut table, &scale, &person, &node, &home)?;

    let data = node.data().to_path_buf();
    if !node.stop() {
        bail!("the node did not stop cleanly");
    }
    let node = NodeProcess::start(&kastro, &data, &["--log", "warn"]);
    table.row(
        format!(
            "node: start to listening, {} files stored",
            scale.small_files + 1
        ),
        millis(node.started_in()),
        "<= 50 ms with 1,000,000 blocks",
    );
    if with_requests {
        requests(&mut table, &scale, &node, &home)?;
    }
    table.print();
    Ok(())
}

/// One large file up and down.
fn large(
    table: &mut Table,
    scale: &Scale,
    person: &Kastro,
    node: &NodeProcess,
    home: &Path,
) -> anyhow::Result<()> {
    let bytes = scale.large_bytes;
    fill(&home.join("large"), bytes)?;
    let plain = baseline::plain_write(home, bytes)?;
    let plain_rate = mb_per_second(bytes, plain);
    let up = done(person.run(&["put", "large", "/alice/large"]))?;
    let up_rate = mb_per_second(bytes, up.took);
    table.row(
        format!("{} MiB up, whole command", bytes >> 20),
        format!("{up_rate:.0} MB/s ({:.0} % of a plain write with a flush per 5 MiB: {plain_rate:.0} MB/s)", 100.0 * up_rate / plain_rate),
        ">= 250 MB/s",
    );
    table.row(
        "client: highest resident, upload",
        megabytes(up.peak_memory),
        "<= 64 MiB",
    );
    let down = done(person.run(&["get", "/alice/large", "copy"]))?;
    table.row(
        format!("{} MiB down, whole command", bytes >> 20),
        format!("{:.0} MB/s", mb_per_second(bytes, down.took)),
        ">= 400 MB/s",
    );
    table.row(
        "client: highest resident, download",
        megabytes(down.peak_memory),
        "<= 64 MiB",
    );
    let memory = node.memory();
    table.row(
        "node: resident after that traffic (highest)",
        format!(
            "{} ({})",
            megabytes(memory.map(|m| m.0)),
            megabytes(memory.map(|m| m.1))
        ),
        "<= 80 MB",
    );
    if std::fs::read(home.join("large"))? != std::fs::read(home.join("copy"))? {
        bail!("the download differs");
    }
    std::fs::remove_file(home.join("copy"))?;
    beside(table, home, bytes, [up.took, down.took])?;
    std::fs::remove_file(home.join("large"))?;
    let last_byte = (bytes - 1).to_string();
    let seek = done(person.run(&["cat", "/alice/large", "--offset", &last_byte]))?;
    table.row("`kastro cat` of its last byte", millis(seek.took), "-");
    self::seek(table, node, bytes)
}

/// The same file by other ways, in the same minute on the same disk.
fn beside(table: &mut Table, home: &Path, bytes: u64, ours: [Duration; 2]) -> anyhow::Result<()> {
    let folder = home.join("beside");
    std::fs::create_dir(&folder)?;
    let large = home.join("large");
    let server = file_server::start(folder.clone())?;
    let put = file_server::put(server, &large, "served")?;
    let get = file_server::get(server, "served", &folder.join("got"))?;
    let mut row = |what: &str, up: Duration, down: Duration| {
        let measured = [(up, ours[0]), (down, ours[1])].map(|(theirs, ours)| {
            let (rate, own) = (mb_per_second(bytes, theirs), mb_per_second(bytes, ours));
            format!("{rate:.0} MB/s (kastro: {:.2} times that)", own / rate)
        });
        let [up, down] = measured;
        table.row(what, format!("up {up}, down {down}"), "-");
    };
    row(
        "the same bytes, plain HTTP PUT and GET, one flush",
        put,
        get,
    );
    std::fs::remove_dir_all(&folder)?;
    for other in file_server::OTHERS {
        let folder = home.join(other.name);
        std::fs::create_dir(&folder)?;
        match other.measure(&folder, &large) {
            Ok(Some((up, down))) => {
                row(
                    &format!("the same bytes, `{}`, local folder", other.name),
                    up,
                    down,
                );
            }
            Ok(None) => eprintln!("{} is not installed: {}", other.name, other.install),
            Err(error) => eprintln!("{error}"),
        }
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

/// The last MiB of the large file, through the library: time, and what is read for it.
fn seek(table: &mut Table, node: &NodeProcess, bytes: u64) -> anyhow::Result<()> {
    const TAIL: u64 = 1 << 20;
    let runtime = tokio::runtime::Runtime::new()?;
    let (took, read) = runtime.block_on(async {
        let transport = Arc::new(HttpTransport::new(node.url())?);
        let client = Client::new(transport, Arc::new(TokioEnvironment));
        let session = client
            .sign_in("alice", "benchmark password")
            .await?
            .done()?;
        let file = session.open_file("/alice/large").await?;
        let before = session.usage();
        let begin = std::time::Instant::now();
        let mut at = bytes.saturating_sub(TAIL);
        while at < bytes {
            at += file.read_at(at, usize::try_from(TAIL)?).await?.len() as u64;
        }
        anyhow::Ok((begin.elapsed(), session.usage().since(before)))
    })?;
    table.row(
        format!("last MiB of a file of {} MiB, once it is open", bytes >> 20),
        format!(
            "{}; {} block(s) and {} request(s)",
            millis(took),
            read.blocks_read,
            read.calls
        ),
        "<= 3 block reads for one byte",
    );
    Ok(())
}

/// Many small files up and down.
fn small(
    table: &mut Table,
    scale: &Scale,
    person: &Kastro,
    node: &NodeProcess,
    home: &Path,
) -> anyhow::Result<()> {
    let folder = home.join("small");
    for i in 0..scale.small_files {
        let path = folder.join(format!("{:03}/{i:06}", i / 100));
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        fill(&path, SMALL_BYTES)?;
    }
    let count = scale.small_files;
    let up = done(person.run(&["put", "small", "/alice/"]))?;
    table.row(
        format!("{count} files of 4 KiB up"),
        per_second(count, up.took, "files"),
        ">= 400 files/s",
    );
    let again = done(person.run(&["put", "small", "/alice/"]))?;
    table.row(
        "the same again (all there already)",
        per_second(count, again.took, "files"),
        "-",
    );
    let down = done(person.run(&["get", "/alice/small", "small-copy"]))?;
    table.row(
        format!("{count} files of 4 KiB down"),
        per_second(count, down.took, "files"),
        "-",
    );
    tests::assert_same(&folder, &home.join("small-copy"));
    table.row(
        "client: highest resident, small files up / down",
        format!(
            "{} / {}",
            megabytes(up.peak_memory),
            megabytes(down.peak_memory)
        ),
        "<= 64 MiB",
    );
    table.row(
        "node: resident afterwards",
        megabytes(node.memory().map(|m| m.0)),
        "<= 80 MB",
    );
    Ok(())
}

/// Requests per second, on real requests recorded from a client.
fn requests(
    table: &mut Table,
    scale: &Scale,
    node: &NodeProcess,
    home: &Path,
) -> anyhow::Result<()> {
    let recorder = Arc::new(Recorder::new(HttpTransport::new(node.url())?));
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let client = Client::new(Arc::clone(&recorder) as _, Arc::new(TokioEnvironment));
        let session = client
            .sign_in("alice", "benchmark password")
            .await?
            .done()?;
        for folder in 0..10 {
            session
                .list(&format!("/alice/small/{folder:03}"), Detail::Full)
                .await?;
        }
        // A hundred MiB of fragments.
        let file = session.open_file("/alice/large").await?;
        let mut chunks = file.chunks(0);
        let mut left = 20;
        while left > 0 && chunks.next().await?.is_some() {
            left -= 1;
        }
        anyhow::Ok(())
    })?;
    drop(runtime);
    let address: SocketAddr = node.authority().parse()?;
    let kinds = [
        (
            "pointer get",
            "peergos/v0/mutable/getPointer",
            "13,500/s official; >= 5x",
        ),
        ("champ lookup (bulk)", "api/v0/champ/get/bulk", "-"),
        (
            "block get, fragments",
            "api/v0/block/get",
            "1,420/s official (1 MiB); >= 5x",
        ),
    ];
    for (what, path, goal) in kinds {
        let targets = recorder.targets(path);
        if targets.is_empty() {
            continue;
        }
        let distinct = targets.len();
        let prepared = Arc::new(
            targets
                .iter()
                .map(|target| load::request(node.authority(), target))
                .collect::<Vec<_>>(),
        );
        for connections in [1, 16] {
            let measured = load::run(address, &prepared, connections, scale.load_time)?;
            let body = measured.body_bytes / measured.latencies.len().max(1) as u64;
            let plain = plain_http(usize::try_from(body)?, connections, scale.load_time)?;
            table.row(
                format!("{what}, {connections} connection(s), {distinct} distinct, {body} B"),
                shown(&measured, &plain),
                goal,
            );
            if measured.refused > 0 {
                bail!("{} of these were refused", measured.refused);
            }
        }
    }
    let memory = node.memory();
    table.row(
        "node: resident after the load",
        megabytes(memory.map(|m| m.0)),
        "<= 80 MB",
    );
    let _ = home;
    Ok(())
}

/// The same load on a server that answers from memory and does nothing else.
fn plain_http(body: usize, connections: usize, time: Duration) -> anyhow::Result<Load> {
    let address = baseline::static_http(vec![7; body])?;
    let prepared = Arc::new(vec![load::request(&address.to_string(), "x")]);
    Ok(load::run(address, &prepared, connections, time)?)
}

fn shown(measured: &Load, plain: &Load) -> String {
    format!(
        "{:.0}/s, p50 {:.2} ms, p99 {:.2} ms ({:.0} % of plain hyper)",
        measured.per_second(),
        measured.percentile(50).as_secs_f64() * 1e3,
        measured.percentile(99).as_secs_f64() * 1e3,
        100.0 * measured.per_second() / plain.per_second(),
    )
}

fn millis(duration: Duration) -> String {
    format!("{:.0} ms", duration.as_secs_f64() * 1e3)
}

fn per_second(count: u64, took: Duration, what: &str) -> String {
    #[expect(clippy::cast_precision_loss, reason = "counts are small")]
    let count = count as f64;
    format!("{:.0} {what}/s", count / took.as_secs_f64())
}
