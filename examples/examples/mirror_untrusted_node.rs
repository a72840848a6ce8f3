//! A second node, trusted by nobody, keeps a complete copy of an account that it cannot read; the first node is
//! destroyed, and everything comes back from the copy, byte for byte.
//!
//! cargo run -p examples --example mirror_untrusted_node

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, ensure};
use cli::{environment::TokioEnvironment, transport::HttpTransport};
use cryptree::{
    Environment as _,
    client::{Client, Detail, Session, UploadOptions},
    login::passphrase,
};
use futures_util::io::Cursor;
use http::{Request, Response, header};
use node::{
    Config, Node,
    operator::{
        Operation as _, Report,
        mirror::{AddMirror, RunMirrors},
        names::ShowNames,
    },
    p2p::{Body, P2pConfig, PeerError, PeerId, Peers},
};
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
    let street = Street::default();

    say(
        "1. Three nodes: N gives out names, A is Alice's home, C belongs to somebody she does not trust.",
    );
    let n = start(&folder.path().join("n"), &street, None).await?;
    let network = ShowNames::default()
        .run(&n.node, &Report::silent())
        .await?
        .network;
    let home = folder.path().join("a");
    let a = start(&home, &street, Some(&network)).await?;
    let copy = folder.path().join("c");
    let c = start(&copy, &street, Some(&network)).await?;
    say(&format!("   the network is {network}"));

    say("2. Alice signs up at A, which asks N for her name, and uploads two files.");
    let password = passphrase(&mut *TokioEnvironment.random());
    let session = client(&a.url)?.sign_up("alice", &password, "").await?;
    let diary = "Dear diary, nobody but me can read this.\n".repeat(1000);
    let film: Vec<u8> = (0..12_u32 << 20)
        .flat_map(|i| (i / 7).to_le_bytes().into_iter().take(1))
        .collect();
    session.make_folder("/alice/private").await?;
    upload(&session, "/alice/private/diary.txt", diary.as_bytes()).await?;
    upload(&session, "/alice/private/film.mkv", &film).await?;

    say("3. The operator of C makes room for a copy of alice; Alice permits it. C gets no key.");
    sync(&c).await?;
    let add = AddMirror {
        user: "alice".to_owned(),
        from: None,
        quota_bytes: Some(1 << 30),
        token: None,
    };
    add.run(&c.node, &Report::silent()).await?;
    session.allow_mirror(&client(&c.url)?, &password).await?;
    let run = mirror(&c).await?;
    say(&format!(
        "   C fetched {} blocks with {} bytes",
        run.blocks, run.bytes
    ));
    ensure!(run.failed == 0 && run.in_step == 1, "the copy failed");

    say("4. She changes a line. C fetches what changed, and nothing else.");
    let diary = format!("{diary}Today I made a mirror.\n");
    session.delete("/alice/private/diary.txt").await?;
    upload(&session, "/alice/private/diary.txt", diary.as_bytes()).await?;
    let run = mirror(&c).await?;
    say(&format!(
        "   C fetched {} blocks with {} bytes",
        run.blocks, run.bytes
    ));
    ensure!(
        run.failed == 0 && run.bytes < 1 << 20,
        "the copy reads again what it has"
    );
    drop(session);

    say("5. C's folder holds ciphertext: neither a name nor a line of the diary is found in it.");
    stop(c).await?;
    for needle in [
        "diary.txt",
        "film.mkv",
        "private",
        "nobody but me",
        "made a mirror",
    ] {
        ensure!(
            !holds(&copy, needle.as_bytes())?,
            "`{needle}` is readable on the mirror's disk"
        );
    }
    say(&format!("   searched {} files", files(&copy)?.len()));

    say("6. A burns down, with everything in it.");
    street.remove(&a.node);
    stop(a).await?;
    std::fs::remove_dir_all(&home)?;

    say("7. At C, Alice logs in with name and passphrase, and signs that this is her home now.");
    let c = start(&copy, &street, Some(&network)).await?;
    let session = client(&c.url)?.sign_in("alice", &password).await?.done()?;
    session.restore_here().await?;

    say("8. Everything is there, byte for byte, and she goes on writing.");
    for entry in session.list("/alice/private", Detail::Full).await?.entries {
        say(&format!(
            "   /alice/private/{}  {} bytes",
            entry.name,
            entry.size_bytes.unwrap_or(0)
        ));
    }
    let read = session.read("/alice/private/diary.txt", 1 << 20).await?;
    ensure!(read == diary.as_bytes(), "the diary differs");
    let read = session.read("/alice/private/film.mkv", 1 << 30).await?;
    ensure!(read == film, "the film differs");
    upload(&session, "/alice/private/new.txt", b"from my new home").await?;

    drop(session);
    stop(c).await?;
    stop(n).await?;
    say("Done.");
    Ok(())
}

/// The nodes by id: who is in it can be reached.
#[derive(Debug, Clone, Default)]
struct Street(Arc<Mutex<HashMap<PeerId, Node>>>);

impl Street {
    fn remove(&self, node: &Node) {
        if let Ok(id) = PeerId::from_cid(node.id()) {
            self.nodes().remove(&id);
        }
    }

    fn nodes(&self) -> std::sync::MutexGuard<'_, HashMap<PeerId, Node>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way of one node to the others.
#[derive(Debug)]
struct Door {
    own: PeerId,
    street: Street,
}

#[async_trait::async_trait]
impl Peers for Door {
    async fn call(
        &self,
        peer: &PeerId,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, PeerError> {
        let node = self.street.nodes().get(peer).cloned();
        let node = node.ok_or_else(|| PeerError::Unreachable {
            peer: *peer,
            reason: "nobody is there".to_owned(),
        })?;
        let host = peer.to_string().parse();
        let host = host.map_err(|_| PeerError::Unsendable("the id is no host"))?;
        request.headers_mut().insert(header::HOST, host);
        Ok(node.answer_peer(self.own, request).await)
    }
}

async fn start(data: &Path, street: &Street, network: Option<&str>) -> anyhow::Result<Running> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut config = Config {
        data: Some(data.to_path_buf()),
        listen: address,
        name_authority: network.map(str::parse).transpose()?,
        ..Config::default()
    };
    config.mirror.is_automatic = false;
    // A node's id is that of its key, which the first start makes.
    let made = Node::open(config.clone()).await?;
    let own = PeerId::from_cid(made.id())?;
    made.close().await?;
    drop(made);
    config.p2p = P2pConfig {
        peers: Some(Arc::new(Door {
            own,
            street: street.clone(),
        })),
        ..P2pConfig::default()
    };
    let node = Node::open(config).await?;
    street.nodes().insert(own, node.clone());
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

async fn sync(running: &Running) -> anyhow::Result<()> {
    let operation = ShowNames { sync: true };
    operation.run(&running.node, &Report::silent()).await?;
    Ok(())
}

async fn mirror(running: &Running) -> anyhow::Result<node::operator::mirror::MirrorsRun> {
    let operation = RunMirrors::default();
    let run = operation.run(&running.node, &Report::silent()).await;
    run.context("the mirror cannot run")
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
