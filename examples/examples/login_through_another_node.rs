//! Somebody sits at a friend's machine and logs in there. Every request reaches the node at home through an encrypted
//! stream between the two nodes, which know each other by id alone; the friend's disk gets none of it.
//!
//! cargo run -p examples --example login_through_another_node

use std::process::ExitCode;

use anyhow::ensure;
use examples::{Stage, bytes_of_blocks, film, say};

fn main() -> ExitCode {
    examples::main(story)
}

const PASSWORD: &str = "seven words that nobody else would think of";

fn story(stage: &Stage) -> anyhow::Result<()> {
    say("1. Alice's node starts at home. It also gives out the names of this little network.");
    let home = stage.node("home", &[]);
    let network = stage
        .operator("home", &home)?
        .asks(&["names", "status"], "network")?;
    let network = network.as_str().unwrap_or_default();

    say(
        "2. A friend's node starts. It is told the id of the first node and where to look for it, nothing else.",
    );
    let friend = stage.node(
        "friend",
        &[
            format!("name_authority={network}"),
            format!("p2p.peers={}", home.peers().join(",")),
        ],
    );

    say("3. Alice signs up at home and uploads a letter.");
    let alice = stage.person("alice", "desk", &home, PASSWORD)?;
    alice.types(&["signup", "--no-session"])?;
    let letter = "Dear Bob, I wrote this at home.\n".repeat(1000);
    alice.writes("letter.txt", letter.as_bytes())?;
    alice.types(&["put", "letter.txt", "/alice/"])?;

    say(
        "4. The friend's node fetches the names of the network and checks every signature in them.",
    );
    let operator = stage.operator("friend", &friend)?;
    operator.types(&["names", "status", "--sync"])?;

    say("5. Alice visits, and logs in on the friend's machine with her name and passphrase.");
    let visiting = stage.person("alice", "sofa", &friend, PASSWORD)?;
    visiting.types(&["get", "/alice/letter.txt", "."])?;
    visiting.holds("letter.txt", letter.as_bytes())?;

    say("6. From there she uploads eight MiB of photographs.");
    let before = bytes_of_blocks(home.data())?;
    let photo = film(8 << 20);
    visiting.writes("photo.raw", &photo)?;
    visiting.types(&["put", "photo.raw", "/alice/"])?;
    let here = bytes_of_blocks(home.data())? - before;
    let there = bytes_of_blocks(friend.data())?;
    say(&format!(
        "   the home node grew by {here} bytes; the friend's node has {there} bytes in all"
    ));
    // Small pieces lie elsewhere.
    ensure!(
        here + (256 << 10) > photo.len() as u64,
        "the photographs are not at home"
    );
    ensure!(
        there < photo.len() as u64,
        "the photographs are at the friend's"
    );

    say("7. Back home, what she uploaded at the friend's is there.");
    alice.types(&["get", "/alice/photo.raw", "."])?;
    alice.holds("photo.raw", &photo)?;

    say("8. The node at home is switched off. The friend's node says so in words.");
    ensure!(home.stop(), "the node did not end well");
    visiting.is_refused(&["ls"])?;
    ensure!(friend.stop(), "the node did not end well");
    Ok(())
}
