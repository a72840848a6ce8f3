//! One person, one node: start it, sign up, upload, restart the node, log in from an empty machine, and find
//! everything byte for byte, while the disk of the node shows none of it.
//!
//! cargo run -p examples --example self_hosted_node

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, ensure};
use cli::{environment::TokioEnvironment, transport::HttpTransport};
use cryptree::{
    Environment as _,
    client::{Client, Detail, Session, UploadOptions},
    login::passphrase,
};
use futures_util::io::Cursor;
use node::{Config, Node};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

/// A node with a listener of its own, until it is stopped.
struct Running {
    node: Node,
    url: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("node");

    say("1. A node starts on an empty folder. Nothing is configured.");
    let running = start(&data).await?;
    say(&format!("   It listens at {}", running.url));

    say("2. Alice signs up. Her passphrase is made of random words; the node never sees it.");
    let password = passphrase(&mut *TokioEnvironment.random());
    let session = client(&running.url)?
        .sign_up("alice", &password, "")
        .await?;
    say(&format!("   passphrase: {}", password.as_str()));

    say(
        "3. She makes a folder and uploads two files. They are encrypted before they leave this program.",
    );
    let diary = "Dear diary, nobody but me can read this.\n".repeat(1000);
    let film: Vec<u8> = (0..12_u32 << 20)
        .flat_map(|i| (i / 7).to_le_bytes().into_iter().take(1))
        .collect();
    session.make_folder("/alice/private").await?;
    upload(&session, "/alice/private/diary.txt", diary.as_bytes()).await?;
    upload(&session, "/alice/private/film.mkv", &film).await?;
    for entry in session.list("/alice/private", Detail::Full).await?.entries {
        say(&format!(
            "   /alice/private/{}  {} bytes",
            entry.name,
            entry.size_bytes.unwrap_or(0)
        ));
    }
    drop(session);

    say(
        "4. The node stops. Its folder holds ciphertext: neither a name nor a line of the diary is found in it.",
    );
    stop(running).await?;
    for needle in ["diary.txt", "film.mkv", "private", "nobody but me"] {
        ensure!(
            !holds(&data, needle.as_bytes())?,
            "`{needle}` is readable on the node's disk"
        );
    }
    say(&format!("   searched {} files", files(&data)?.len()));

    say(
        "5. The node starts again. From a machine that knows only her name and passphrase, Alice logs in.",
    );
    let running = start(&data).await?;
    let session = client(&running.url)?
        .sign_in("alice", &password)
        .await?
        .done()?;

    say("6. Everything is there, byte for byte.");
    let read = session.read("/alice/private/diary.txt", 1 << 20).await?;
    ensure!(read == diary.as_bytes(), "the diary differs");
    let read = session.read("/alice/private/film.mkv", 1 << 30).await?;
    ensure!(read == film, "the film differs");

    say("7. A wrong passphrase opens nothing.");
    let refused = client(&running.url)?.sign_in("alice", "guess").await;
    ensure!(refused.is_err(), "a guess logged in");
    say(&format!("   {}", refused.err().context("no reason")?));

    drop(session);
    stop(running).await?;
    say("Done.");
    Ok(())
}

async fn start(data: &Path) -> anyhow::Result<Running> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let node = Node::open(Config {
        data: Some(data.to_path_buf()),
        listen: address,
        ..Config::default()
    })
    .await?;
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn({
        let node = node.clone();
        async move {
            let stopped = async {
                let _ = stopped.await;
            };
            node.serve(listener, stopped).await
        }
    });
    Ok(Running {
        node,
        url: format!("http://{address}"),
        stop,
        serving,
    })
}

async fn stop(running: Running) -> anyhow::Result<()> {
    let _ = running.stop.send(());
    running.serving.await??;
    running.node.close().await?;
    Ok(())
}

fn client(url: &str) -> anyhow::Result<Client> {
    let transport = Arc::new(HttpTransport::new(url)?);
    Ok(Client::new(transport, Arc::new(TokioEnvironment)))
}

async fn upload(session: &Session, path: &str, content: &[u8]) -> anyhow::Result<()> {
    let mut source = Cursor::new(content);
    let size = Some(content.len() as u64);
    session
        .upload(
            path,
            &mut source,
            size,
            &UploadOptions::default(),
            &mut |_, _| {},
        )
        .await?;
    Ok(())
}

/// Returns whether any file below `folder` holds `needle`, in its name or its bytes.
fn holds(folder: &Path, needle: &[u8]) -> anyhow::Result<bool> {
    for path in files(folder)? {
        let bytes = std::fs::read(&path)?;
        let name = path.as_os_str().as_encoded_bytes();
        let inside = |text: &[u8]| text.windows(needle.len()).any(|window| window == needle);
        if inside(&bytes) || inside(name.get(folder.as_os_str().len()..).unwrap_or_default()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn files(folder: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn say(line: &str) {
    println!("{line}");
}
