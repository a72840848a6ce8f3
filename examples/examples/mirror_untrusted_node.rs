//! A second node, trusted by nobody, keeps a complete copy of an account that it cannot read; the first node is
//! destroyed, and everything comes back from the copy, byte for byte.
//!
//! cargo run -p examples --example mirror_untrusted_node

use std::process::ExitCode;

use anyhow::ensure;
use examples::{Stage, film, say, tells_nothing};

fn main() -> ExitCode {
    examples::main(story)
}

const PASSWORD: &str = "seven words that nobody else would think of";

fn story(stage: &Stage) -> anyhow::Result<()> {
    say(
        "1. Three nodes: N gives out names, A is Alice's home, C belongs to somebody she does not trust.",
    );
    let n = stage.node("n", &[]);
    let network = stage
        .operator("n", &n)?
        .asks(&["names", "status"], "network")?;
    let network = format!("name_authority={}", network.as_str().unwrap_or_default());
    let a = stage.node(
        "a",
        &[
            network.clone(),
            format!("p2p.peers={}", n.peers().join(",")),
        ],
    );
    let knows = format!("p2p.peers={},{}", n.peers().join(","), a.peers().join(","));
    // Copied when the story says so, not once a minute.
    let settings = [network, knows, "mirror.is_automatic=false".to_owned()];
    let c = stage.node("c", &settings);

    say("2. Alice signs up at A, which asks N for her name, and uploads two files.");
    let alice = stage.person("alice", "laptop", &a, PASSWORD)?;
    alice.types(&["signup", "--no-session"])?;
    let diary = "Dear diary, nobody but me can read this.\n".repeat(1000);
    let film = film(12 << 20);
    alice.writes("diary.txt", diary.as_bytes())?;
    alice.writes("film.mkv", &film)?;
    alice.types(&["mkdir", "/alice/private"])?;
    alice.types(&["put", "diary.txt", "film.mkv", "/alice/private/"])?;

    say("3. The operator of C makes room for a copy of alice; Alice permits it. C gets no key.");
    let operator = stage.operator("c", &c)?;
    operator.types(&["names", "status", "--sync"])?;
    operator.types(&["mirror", "add", "alice", "--quota", "1G"])?;
    alice.types(&["mirror", "allow", c.url()])?;
    operator.types(&["mirror", "run"])?;

    say("4. She changes a line. C fetches what changed, and nothing else.");
    let diary = format!("{diary}Today I made a mirror.\n");
    alice.writes("diary.txt", diary.as_bytes())?;
    alice.types(&["put", "--force", "diary.txt", "/alice/private/"])?;
    let bytes = operator.asks(&["mirror", "run"], "bytes")?;
    ensure!(
        bytes.as_u64().is_some_and(|bytes| bytes < 1 << 20),
        "the copy reads again what it has"
    );
    operator.types(&["mirror", "status"])?;

    say("5. C's folder holds ciphertext: neither a name nor a line of the diary is found in it.");
    ensure!(c.stop(), "the node did not end well");
    let words = [
        "diary.txt",
        "film.mkv",
        "private",
        "nobody but me",
        "made a mirror",
    ];
    tells_nothing(&stage.path("c"), &words)?;

    say("6. A burns down, with everything in it.");
    a.kill();
    std::fs::remove_dir_all(stage.path("a"))?;

    say("7. At C, Alice logs in with name and passphrase, and signs that this is her home now.");
    let c = stage.node("c", &settings);
    let alice = stage.person("alice", "phone", &c, PASSWORD)?;
    alice.types(&["move", "--lost"])?;

    say("8. Everything is there, byte for byte, and she goes on writing.");
    alice.types(&["ls", "-l", "/alice/private"])?;
    alice.types(&["get", "/alice/private/diary.txt", "."])?;
    alice.types(&["get", "/alice/private/film.mkv", "."])?;
    alice.holds("diary.txt", diary.as_bytes())?;
    alice.holds("film.mkv", &film)?;
    alice.writes("new.txt", b"from my new home")?;
    alice.types(&["put", "new.txt", "/alice/private/"])?;
    ensure!(c.stop() && n.stop(), "a node did not end well");
    Ok(())
}
