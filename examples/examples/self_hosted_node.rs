//! One person, one node: start it, sign up, upload, restart the node, log in from an empty machine, and find
//! everything byte for byte, while the disk of the node shows none of it.
//!
//! cargo run -p examples --example self_hosted_node

use std::process::ExitCode;

use anyhow::ensure;
use examples::{Stage, film, say, tells_nothing};

fn main() -> ExitCode {
    examples::main(story)
}

fn story(stage: &Stage) -> anyhow::Result<()> {
    say("1. A node starts on an empty folder. Nothing is configured.");
    let node = stage.node("node", &[]);

    say("2. Alice signs up. Her passphrase is made of random words; the node never sees it.");
    let nobody = stage.person("alice", "laptop", &node, "")?;
    let passphrase = nobody.asks(&["signup", "--generate", "--no-session"], "passphrase")?;
    let passphrase = passphrase.as_str().unwrap_or_default().to_owned();
    let alice = stage.person("alice", "laptop", &node, &passphrase)?;

    say("3. She uploads a folder. It is encrypted before it leaves her machine.");
    let diary = "Dear diary, nobody but me can read this.\n".repeat(1000);
    let film = film(12 << 20);
    alice.writes("diary.txt", diary.as_bytes())?;
    alice.writes("film.mkv", &film)?;
    alice.types(&["mkdir", "/alice/private"])?;
    alice.types(&["put", "diary.txt", "film.mkv", "/alice/private/"])?;
    alice.types(&["ls", "-l", "/alice/private"])?;

    say(
        "4. The node stops. Its folder holds ciphertext: neither a name nor a line of the diary is found in it.",
    );
    ensure!(node.stop(), "the node did not end well");
    let words = ["diary.txt", "film.mkv", "private", "nobody but me"];
    tells_nothing(&stage.path("node"), &words)?;

    say(
        "5. The node starts again. From a machine that knows only her name and passphrase, Alice logs in.",
    );
    let node = stage.node("node", &[]);
    let elsewhere = stage.person("alice", "phone", &node, &passphrase)?;
    elsewhere.types(&["get", "/alice/private/diary.txt", "."])?;
    elsewhere.types(&["get", "/alice/private/film.mkv", "."])?;
    elsewhere.holds("diary.txt", diary.as_bytes())?;
    elsewhere.holds("film.mkv", &film)?;

    say("6. A wrong passphrase opens nothing.");
    stage
        .person("alice", "cafe", &node, "a guess")?
        .is_refused(&["ls"])?;
    ensure!(node.stop(), "the node did not end well");
    Ok(())
}
