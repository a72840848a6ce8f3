//! What it costs to be at home elsewhere: the same person on the node at home and through another node, all
//! processes on loopback.
//!
//! ```text
//! cargo build --release -p cli && cargo run --release -p benches --bin foreign [-- quick]
//! ```
//!
//! Prints a table. `quick` uses a tenth of the data.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use benches::{
    line,
    load::{self, Load},
    program::{self, done, fill},
    record::Recorder,
    table::{Table, mb_per_second, megabytes},
};
use cli::{environment::TokioEnvironment, transport::HttpTransport};
use cryptree::client::{Client, Detail};
use tests::{Kastro, NodeProcess};

/// Bytes of the upload.
const LARGE_BYTES: u64 = 256 << 20;
const QUICK_BYTES: u64 = 26 << 20;
/// Time of each load.
const LOAD_TIME: Duration = Duration::from_secs(5);
/// How long what is sent to a home far away is under way.
const DELAY: Duration = Duration::from_millis(25);
const PASSWORD: &str = "benchmark password";

fn main() -> anyhow::Result<()> {
    let is_quick = std::env::args().any(|argument| argument == "quick");
    let bytes = if is_quick { QUICK_BYTES } else { LARGE_BYTES };
    let kastro = program::kastro()?;
    let folder = tempfile::tempdir()?;
    let mut table = Table::default();
    let home = NodeProcess::start(&kastro, &folder.path().join("home"), &["--log", "warn"]);
    let network = network(&kastro, &home)?;
    let address = home
        .peers()
        .first()
        .context("the node listens for others")?;
    let friend = guest(&kastro, &folder.path().join("friend"), &network, address);
    table.row(
        "nodes: resident at rest",
        format!(
            "{}, {}",
            megabytes(home.memory().map(|m| m.0)),
            megabytes(friend.memory().map(|m| m.0))
        ),
        "<= 25 MB",
    );
    let place = folder.path().join("alice");
    std::fs::create_dir(&place)?;
    let at = |node: &NodeProcess| {
        Kastro::new(&kastro, &place)
            .with("KASTRO_SERVER", node.url())
            .with("KASTRO_USER", "alice")
            .with("KASTRO_PASSWORD", PASSWORD)
    };
    done(at(&home).run(&["signup"]))?;
    operate(&kastro, &friend, &["names", "status", "--sync"])?;
    fill(&place.join("large"), bytes)?;

    // In turn, so that whatever else the machine does meets both.
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for round in 0..3 {
        for (node, times) in [(&home, &mut direct), (&friend, &mut through)] {
            let name = format!("/alice/large-{}", node.authority().replace(':', "-"));
            let name = format!("{name}-{round}");
            times.push(done(at(node).run(&["put", "large", &name]))?.took);
        }
    }
    let rate = |times: &[Duration]| {
        times
            .iter()
            .min()
            .map_or(0.0, |best| mb_per_second(bytes, *best))
    };
    let (direct, through) = (rate(&direct), rate(&through));
    table.row(
        format!("{} MiB up, whole command, best of 3", bytes >> 20),
        format!(
            "at home {direct:.0} MB/s, through the other node {through:.0} MB/s ({:.0} %)",
            100.0 * through / direct
        ),
        ">= 60 %",
    );
    for (what, node) in [("home", &home), ("other node", &friend)] {
        let memory = node.memory();
        table.row(
            format!("{what}: resident after that traffic (highest)"),
            format!(
                "{} ({})",
                megabytes(memory.map(|m| m.0)),
                megabytes(memory.map(|m| m.1))
            ),
            "<= 80 MB",
        );
    }
    let targets = targets(&home)?;
    for connections in [1, 16] {
        let direct = get_pointers(&home, &targets, connections)?;
        let through = get_pointers(&friend, &targets, connections)?;
        table.row(
            format!("pointer get, {connections} connection(s)"),
            format!(
                "at home {}; through the other node {}",
                shown(&direct),
                shown(&through)
            ),
            "-",
        );
    }
    let far = far_away(&kastro, &folder.path().join("far"), &network, address)?;
    let measured = get_pointers(&far, &targets, 1)?;
    let round_trip = 2.0 * DELAY.as_secs_f64();
    table.row(
        format!("pointer get, the home {} ms away", (2 * DELAY).as_millis()),
        format!(
            "{}; {:.1} round trips",
            shown(&measured),
            measured.percentile(50).as_secs_f64() / round_trip
        ),
        "1 round trip",
    );
    let took = done(at(&far).run(&["ls", "/alice"]))?.took;
    table.row(
        "login and a folder from there, whole command",
        format!("{:.2} s", took.as_secs_f64()),
        "-",
    );
    let took = done(at(&far).run(&["put", "large", "/alice/large-far"]))?.took;
    table.row(
        format!("{} MiB up from there, whole command", bytes >> 20),
        format!("{:.0} MB/s", mb_per_second(bytes, took)),
        "-",
    );
    table.print();
    Ok(())
}

/// Starts a node that knows only where the home is.
fn guest(kastro: &Path, data: &Path, network: &str, home: &str) -> NodeProcess {
    let settings = [
        format!("name_authority={network}"),
        format!("p2p.peers={home}"),
        // The line there is of TCP only.
        "p2p.listen=/ip4/127.0.0.1/tcp/0".to_owned(),
    ];
    let options: Vec<&str> = ["--log", "warn"]
        .into_iter()
        .chain(settings.iter().flat_map(|setting| ["--set", setting]))
        .collect();
    NodeProcess::start(kastro, data, &options)
}

/// Starts a node from which the way home, at this address, is long.
fn far_away(kastro: &Path, data: &Path, network: &str, home: &str) -> anyhow::Result<NodeProcess> {
    let parts: Vec<&str> = home.split('/').collect();
    let ["", "ip4", host, "tcp", port, "p2p", id] = parts[..] else {
        bail!("{home} is no address of TCP");
    };
    let near = line::start(format!("{host}:{port}").parse()?, DELAY)?;
    let address = format!("/ip4/{}/tcp/{}/p2p/{id}", near.ip(), near.port());
    let node = guest(kastro, data, network, &address);
    operate(kastro, &node, &["names", "status", "--sync"])?;
    Ok(node)
}

/// Asks a node which network its names are of.
fn network(kastro: &Path, node: &NodeProcess) -> anyhow::Result<String> {
    let shown = operate(kastro, node, &["--json", "names", "status"])?;
    let shown: serde_json::Value = serde_json::from_str(shown.trim())?;
    let network = shown.get("network").and_then(serde_json::Value::as_str);
    Ok(network.context("the node names no network")?.to_owned())
}

/// Runs an operator's command on a running node.
fn operate(kastro: &Path, node: &NodeProcess, arguments: &[&str]) -> anyhow::Result<String> {
    let data = node.data().display().to_string();
    let arguments = [arguments, &["--data", &data]].concat();
    let finished = Kastro::new(kastro, node.data()).run(&arguments);
    Ok(String::from_utf8(done(finished)?.stdout)?)
}

/// Records the pointer reads of a client that lists its folders.
fn targets(node: &NodeProcess) -> anyhow::Result<Vec<String>> {
    let recorder = Arc::new(Recorder::new(HttpTransport::new(node.url())?));
    tokio::runtime::Runtime::new()?.block_on(async {
        let client = Client::new(Arc::clone(&recorder) as _, Arc::new(TokioEnvironment));
        let session = client.sign_in("alice", PASSWORD).await?.done()?;
        session.list("/alice", Detail::Full).await?;
        anyhow::Ok(())
    })?;
    Ok(recorder.targets("peergos/v0/mutable/getPointer"))
}

/// Asks a node for them for a while.
fn get_pointers(
    node: &NodeProcess,
    targets: &[String],
    connections: usize,
) -> anyhow::Result<Load> {
    let prepared: Vec<_> = targets
        .iter()
        .map(|target| load::request(node.authority(), target))
        .collect();
    let address = node.authority().parse()?;
    let measured = load::run(address, &Arc::new(prepared), connections, LOAD_TIME)?;
    if measured.refused > 0 {
        bail!("{} requests were refused", measured.refused);
    }
    Ok(measured)
}

fn shown(measured: &Load) -> String {
    format!(
        "{:.0}/s, p50 {:.2} ms, p99 {:.2} ms",
        measured.per_second(),
        measured.percentile(50).as_secs_f64() * 1e3,
        measured.percentile(99).as_secs_f64() * 1e3,
    )
}
