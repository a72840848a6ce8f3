//! Somebody sits at a friend's machine and logs in there. Every request reaches the node at home through an encrypted
//! stream between the two nodes, which know each other by id alone; the friend's disk gets none of it.
//!
//! cargo run -p examples --example login_through_another_node

use std::{path::Path, sync::Arc};

use anyhow::{Context as _, ensure};
use cli::{environment::TokioEnvironment, transport::HttpTransport};
use cryptree::{
    Environment as _,
    client::{Client, Session, UploadOptions},
    login::passphrase,
};
use futures_util::io::Cursor;
use node::{
    Config, Node,
    operator::{Operation as _, Report, names::ShowNames},
    p2p::P2pConfig,
};
use tokio::{net::TcpListener, sync::oneshot, task::JoinHandle};

/// A node with a listener for clients and one for nodes, until it is stopped.
struct Running {
    node: Node,
    url: String,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (at_home, at_friends) = (folder.path().join("home"), folder.path().join("friend"));

    say("1. Alice's node starts at home. It also gives out the names of this little network.");
    let home = start(&at_home, |_| {}).await?;
    let id = home.node.id().bare_multihash_text();
    say(&format!("   clients    {}\n   other nodes {id}", home.url));
    let names = ShowNames { sync: false };
    let network = names.run(&home.node, &Report::silent()).await;
    let network = network
        .map_err(|error| anyhow::anyhow!("{error:?}"))?
        .network;

    say(
        "2. A friend's node starts. It is told the id of the first node and where to look for it, nothing else.",
    );
    let addresses = home.node.peer_addresses().await;
    let network = network.parse()?;
    let friend = start(&at_friends, |config| {
        config.name_authority = Some(network);
        config.p2p.known = addresses;
    })
    .await?;
    say(&format!("   clients    {}", friend.url));

    say("3. Alice signs up at home and uploads a letter.");
    let password = passphrase(&mut *TokioEnvironment.random());
    let session = client(&home.url)?.sign_up("alice", &password, "").await?;
    let letter = "Dear Bob, I wrote this at home.\n".repeat(1000);
    upload(&session, "/alice/letter.txt", letter.as_bytes()).await?;
    drop(session);

    say(
        "4. The friend's node fetches the names of the network and checks every signature in them.",
    );
    let names = ShowNames { sync: true };
    let shown = names.run(&friend.node, &Report::silent()).await;
    shown.map_err(|error| anyhow::anyhow!("{error:?}"))?;

    say("5. Alice visits, and logs in on the friend's machine with her name and passphrase.");
    let session = client(&friend.url)?
        .sign_in("alice", &password)
        .await?
        .done()?;
    let read = session.read("/alice/letter.txt", 1 << 20).await?;
    ensure!(read == letter.as_bytes(), "the letter differs");
    say("   the letter is there, byte for byte");

    say("6. From there she uploads eight MiB of photographs.");
    let before = bytes_in(&at_home)?;
    let photo: Vec<u8> = (0..8_u32 << 20)
        .flat_map(|i| {
            i.wrapping_mul(2_654_435_761)
                .to_be_bytes()
                .into_iter()
                .take(1)
        })
        .collect();
    upload(&session, "/alice/photo.raw", &photo).await?;
    let (here, there) = (bytes_in(&at_home)? - before, bytes_in(&at_friends)?);
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
    drop(session);

    say("7. Back home, what she uploaded at the friend's is there.");
    let session = client(&home.url)?
        .sign_in("alice", &password)
        .await?
        .done()?;
    let read = session.read("/alice/photo.raw", 1 << 30).await?;
    ensure!(read == photo, "the photographs differ");
    drop(session);

    say("8. The node at home is switched off. The friend's node says so in words.");
    stop(home).await?;
    let refused = client(&friend.url)?.sign_in("alice", &password).await;
    say(&format!(
        "   {}",
        refused.err().context("somebody else logged her in")?
    ));

    stop(friend).await?;
    say("Done.");
    Ok(())
}

async fn start(data: &Path, change: impl FnOnce(&mut Config)) -> anyhow::Result<Running> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut config = Config {
        data: Some(data.to_path_buf()),
        listen: address,
        p2p: P2pConfig {
            is_enabled: true,
            listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
            ..P2pConfig::default()
        },
        ..Config::default()
    };
    change(&mut config);
    let node = Node::open(config).await?;
    node.join();
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

/// Returns the bytes of all block files below a data folder: what is written beside them does not grow with uploads.
fn bytes_in(folder: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let is_folder = entry.file_type()?.is_dir();
        if is_folder {
            bytes += bytes_in(&entry.path())?;
        } else if entry
            .path()
            .components()
            .any(|part| part.as_os_str() == "blocks")
        {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes)
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
fn say(line: &str) {
    println!("{line}");
}
