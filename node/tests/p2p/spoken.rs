//! What nodes say they speak.

use futures_util::StreamExt as _;
use libp2p::{SwarmBuilder, identify, multiaddr::Protocol, noise, swarm::SwarmEvent, tcp, yamux};
use node::p2p::PeerId;
use tokio::{sync::oneshot, time::timeout};

use super::network::{Networked, PATIENCE};

/// This network's nodes do not exchange blocks by bitswap (Spec: 11 §3): with the protocol not offered, there are no want
/// lists to fill, no blocks to push and nothing to store for strangers. Blocks come with `block/get`, each asked for.
#[tokio::test]
async fn p2p_6_bitswap_is_not_offered() {
    // A program of its own, which nodes go to as to any other and tell what they speak.
    let mut swarm = SwarmBuilder::with_new_identity()
        .with_tokio()
        .with_tcp(
            tcp::Config::new(),
            noise::Config::new,
            yamux::Config::default,
        )
        .unwrap()
        .with_behaviour(|key| {
            let config = identify::Config::new("ipfs/0.1.0".to_owned(), key.public());
            identify::Behaviour::new(config)
        })
        .unwrap()
        .with_swarm_config(|config| config.with_idle_connection_timeout(PATIENCE))
        .build();
    swarm
        .listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap())
        .unwrap();
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address.with(Protocol::P2p(*swarm.local_peer_id()));
        }
    };
    let (tell, told) = oneshot::channel();
    let listening = tokio::spawn(async move {
        let mut tell = Some(tell);
        loop {
            let event = swarm.select_next_some().await;
            if let SwarmEvent::Behaviour(identify::Event::Received { peer_id, info, .. }) = event
                && let Some(tell) = tell.take()
            {
                let _ = tell.send((PeerId::from(peer_id), info.protocols));
            }
        }
    });
    let node = Networked::open(|config| config.p2p.bootstrap = vec![address]).await;
    let (peer, protocols) = timeout(PATIENCE, told).await.unwrap().unwrap();
    assert_eq!(peer, node.id);
    let protocols: Vec<String> = protocols.iter().map(ToString::to_string).collect();
    for spoken in ["/http", "/ipfs/kad/1.0.0", "/ipfs/id/1.0.0"] {
        assert!(protocols.iter().any(|known| known == spoken), "{spoken}");
    }
    for protocol in &protocols {
        assert!(!protocol.contains("bitswap"), "{protocol}");
    }
    node.close().await;
    listening.abort();
}
