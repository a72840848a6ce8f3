//! A peer made by hand: what a node sends before it has heard anything (Spec: 11 §3, §4.1).

use std::future::poll_fn;

use futures_util::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _, StreamExt as _};
use libp2p::{
    Transport as _,
    core::{
        muxing::{StreamMuxerBox, StreamMuxerExt as _, SubstreamBox},
        transport::{ListenerId, TransportEvent},
        upgrade::Version,
    },
    identity::Keypair,
    noise, tcp, yamux,
};
use node::p2p::{Multiaddr, PeerError, ask};
use tokio::{task::JoinHandle, time::timeout};

use super::network::{Networked, PATIENCE};

/// The messages that agree on a protocol.
fn negotiation(answer: &str) -> Vec<u8> {
    ["/multistream/1.0.0", answer]
        .map(|text| {
            let length = u8::try_from(text.len() + 1).unwrap();
            [&[length], text.as_bytes(), b"\n"].concat()
        })
        .concat()
}

/// Listens; on each stream it reads a whole request before it says a word, then answers `protocol` to what the stream is
/// for, and `answer`. Streams for anything but requests wait.
async fn silent_peer(protocol: &'static str, answer: &'static str) -> (Multiaddr, JoinHandle<()>) {
    let key = Keypair::generate_ed25519();
    let mut transport = tcp::tokio::Transport::new(tcp::Config::new())
        .upgrade(Version::V1)
        .authenticate(noise::Config::new(&key).unwrap())
        .multiplex(yamux::Config::default())
        .map(|(_, muxer), _| StreamMuxerBox::new(muxer))
        .boxed();
    let any = "/ip4/127.0.0.1/tcp/0".parse().unwrap();
    transport.listen_on(ListenerId::next(), any).unwrap();
    let Some(TransportEvent::NewAddress { listen_addr, .. }) = transport.next().await else {
        panic!("it does not listen");
    };
    let address = listen_addr.with_p2p(key.public().to_peer_id()).unwrap();
    let task = tokio::spawn(async move {
        let upgrade = loop {
            if let Some(TransportEvent::Incoming { upgrade, .. }) = transport.next().await {
                break upgrade;
            }
        };
        let accept = async {
            tokio::pin!(upgrade);
            loop {
                tokio::select! {
                    muxer = &mut upgrade => break muxer.unwrap(),
                    _ = transport.next() => {}
                }
            }
        };
        let mut muxer = accept.await;
        loop {
            let stream = poll_fn(|context| {
                if let std::task::Poll::Ready(Err(_)) = muxer.poll_unpin(context) {
                    return std::task::Poll::Ready(None);
                }
                muxer.poll_inbound_unpin(context).map(Result::ok)
            });
            let Some(stream) = stream.await else { return };
            tokio::spawn(serve(stream, protocol, answer).map(drop));
        }
    });
    (address, task)
}

async fn serve(mut stream: SubstreamBox, protocol: &str, answer: &str) -> std::io::Result<()> {
    let mut received = Vec::new();
    let mut piece = [0; 1024];
    while !received.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece).await? {
            0 => return Ok(()),
            length => received.extend_from_slice(&piece[..length]),
        }
    }
    assert!(received.starts_with(&negotiation("/http")));
    stream.write_all(&negotiation(protocol)).await?;
    stream.write_all(answer.as_bytes()).await?;
    stream.flush().await?;
    stream.close().await
}

async fn id_of_silent_peer(protocol: &'static str) -> Result<bytes::Bytes, PeerError> {
    let (address, task) = silent_peer(
        protocol,
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    )
    .await;
    let id = address.to_string();
    let id = id.rsplit('/').next().unwrap().parse().unwrap();
    let node = Networked::open(|config| config.p2p.known = vec![address]).await;
    let asked = ask(node.peers(), &id, "/api/v0/id", "", 1000);
    let answer = timeout(PATIENCE, asked).await.unwrap();
    node.close().await;
    task.abort();
    answer
}

#[tokio::test]
async fn a_request_takes_one_round_trip() {
    assert_eq!(id_of_silent_peer("/http").await.unwrap(), "hello");
}

#[tokio::test]
async fn a_peer_without_http_is_told_as_such() {
    let error = id_of_silent_peer("na").await.unwrap_err();
    let message = error.to_string();
    assert!(
        message.ends_with("cannot be reached: the peer does not speak /http"),
        "{message}"
    );
}
