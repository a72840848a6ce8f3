//! Transfers between clients and an object store, past the node (Spec: 06 §9, 40 PRV-11, WR-11).

use std::sync::Arc;

use bytes::Bytes;
use champ::{
    Cid,
    access::{Bat, BatId, BatWithId, split_raw},
    cbor::Value,
};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use node::{
    BlockPlace, Config, Node,
    clock::{Clock as _, ManualClock, SystemClock},
};
use pki::{
    keys::SecretKeyWithHash,
    wire::{
        Body as _,
        block_group::BlockFormat,
        direct_store::{
            BlockReadCap, BlockStoreProperties, BlockWriteAuth, PresignedRequest,
            PresignedRequests, ReadAuthRequest, WriteAuthRequest,
        },
    },
};

use super::{
    account::{Account, key, private_raw, sign_block},
    harness::{Answer, NOW, TestNode, config},
};
use crate::servers::s3::{S3Server, server};

/// A node over a bucket that clients may use, at the present: signatures are checked against a real clock.
struct Setting {
    node: TestNode,
    alice: Account,
    prefix: String,
    server: &'static S3Server,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// What the store said to a client.
#[derive(Debug)]
struct Said {
    status: u16,
    body: Bytes,
}

impl Setting {
    async fn new() -> Option<Self> {
        Self::with(config()).await
    }

    async fn with(mut config: Config) -> Option<Self> {
        let server = server()?;
        let prefix = S3Server::fresh_prefix();
        let mut options = server.options(&prefix);
        options.direct_access = true;
        config.blocks = BlockPlace::S3(Box::new(options));
        // Accounts are made at the time of the vectors.
        let clock = Arc::new(ManualClock::at(NOW));
        config.clock = clock.clone();
        let node = TestNode::of(Node::open(config).await.unwrap(), clock);
        let alice = Account::sign_up(&node, "alice", 7).await;
        node.clock.set(SystemClock.now_millis());
        Some(Self {
            node,
            alice,
            prefix,
            server,
            client: Client::builder(TokioExecutor::new()).build_http(),
        })
    }

    /// Confirmed and pending bytes, asked at the time of the vectors.
    async fn usage(&self) -> i64 {
        self.node.clock.set(NOW);
        let bytes = self.alice.usage(&self.node, "&local=true").await;
        self.node.clock.set(SystemClock.now_millis());
        bytes
    }

    async fn authorise(&self, target: &str, blocks: Vec<BlockWriteAuth>) -> Answer {
        let body = WriteAuthRequest::new(blocks).unwrap().to_body();
        self.node.post(target, body).await
    }

    fn target(&self, raw: &str) -> String {
        format!(
            "api/v0/blockstore/auth?owner={}&writer={}&transaction=t1{raw}",
            self.alice.owner(),
            self.alice.home.writer()
        )
    }

    async fn permit(&self, block: &Bytes) -> PresignedRequest {
        let announced = announced(&self.alice.home, block);
        let answer = self
            .authorise(&self.target("&raw=true"), vec![announced])
            .await;
        one(&answer)
    }

    fn read_target(&self) -> String {
        format!("api/v0/blockstore/auth-reads?owner={}", self.alice.owner())
    }

    async fn read_permits(&self, caps: Vec<BlockReadCap>) -> Answer {
        let body = ReadAuthRequest::new(caps).unwrap().to_body();
        self.node.post(&self.read_target(), body).await
    }

    /// Does what a permit says, as a client would: without `Host` and `Content-Length`, which the library sets.
    async fn send(&self, method: Method, permit: &PresignedRequest, body: &Bytes) -> Said {
        self.send_to(method, &permit.url, permit, body).await
    }

    async fn send_to(
        &self,
        method: Method,
        url: &str,
        permit: &PresignedRequest,
        body: &Bytes,
    ) -> Said {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in &permit.headers {
            if !["host", "content-length"].contains(&name.to_ascii_lowercase().as_str()) {
                request = request.header(name, value);
            }
        }
        let request = request.body(Full::new(body.clone())).unwrap();
        let response = self.client.request(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Said { status, body }
    }

    async fn get(&self, cid: &Cid, token: Option<&BatWithId>) -> Answer {
        let mut target = self.alice.get_target(cid);
        if let Some(token) = token {
            target.push_str(&format!("&bat={}", token.to_text()));
        }
        self.node.post(&target, "").await
    }
}

fn announced(writer: &SecretKeyWithHash, block: &Bytes) -> BlockWriteAuth {
    BlockWriteAuth {
        size_bytes: block.len() as u32,
        signature: sign_block(writer, &Cid::of_raw(block)),
        bat_ids: split_raw(block).unwrap().0,
    }
}

fn one(answer: &Answer) -> PresignedRequest {
    assert_eq!(answer.status, 200, "{}", answer.message());
    let requests = PresignedRequests::from_body(&answer.body.clone().into()).unwrap();
    assert_eq!(requests.0.len(), 1);
    requests.0[0].clone()
}

fn bat(n: u8) -> Bat {
    Bat::from_secret([n; 32])
}

/// A private block and the token that opens it.
fn private(n: u8, len: usize) -> (Bytes, BatWithId) {
    let content = vec![n; len];
    (
        private_raw(&bat(n), None, &content),
        bat(n).with_calculated_id(),
    )
}

#[tokio::test]
async fn a_client_writes_and_reads_past_the_node() {
    let Some(s) = Setting::new().await else {
        return;
    };
    let props = s.node.post("api/v0/blockstore/props", "").await;
    let props = BlockStoreProperties::from_body(&props.body.into()).unwrap();
    assert!(props.direct_writes && props.authorized_reads && !props.public_reads);
    assert_eq!(props.public_read_url, None);
    let base = format!("http://{}/blocks/", s.server.address);
    assert_eq!(props.authorized_url.as_deref(), Some(base.as_str()));

    let (block, token) = private(1, 200_000);
    let cid = Cid::of_raw(&block);
    let permit = s.permit(&block).await;
    let name = format!("{}/alice/{}", s.prefix, cid.storage_key());
    assert_eq!(permit.url, format!("{base}{name}"));
    // Until it is written it is not there.
    assert!(s.get(&cid, Some(&token)).await.body.is_empty());
    let said = s.send(Method::PUT, &permit, &block).await;
    assert_eq!(said.status, 200, "{said:?}");
    assert_eq!(std::fs::read(s.server.file(&name)).unwrap(), block);
    // Now it is a block like any other: by token only.
    assert_eq!(s.get(&cid, Some(&token)).await.body, block);
    assert_eq!(s.get(&cid, None).await.message(), "Unauthorised!");

    let cap = BlockReadCap {
        cid: cid.clone(),
        bat: Some(token),
    };
    let permit = one(&s.read_permits(vec![cap]).await);
    let said = s.send(Method::GET, &permit, &Bytes::new()).await;
    assert_eq!((said.status, said.body), (200, block));
}

#[tokio::test]
async fn prv_11_a_permit_is_for_one_object_one_method_and_a_short_time() {
    let Some(s) = Setting::new().await else {
        return;
    };
    let ((one_block, token), (other, _)) = (private(1, 500), private(2, 500));
    let cid = Cid::of_raw(&one_block);
    let permit = s.permit(&one_block).await;
    let refused = async |method: Method, url: &str, permit: &PresignedRequest, body: &Bytes| {
        let said = s.send_to(method.clone(), url, permit, body).await;
        // Which refusal it is depends on how far the store has read.
        assert!(said.status >= 400, "{method} {url}: {said:?}");
        // What the store says to strangers names no secret.
        assert!(!String::from_utf8_lossy(&said.body).contains(crate::servers::s3::SECRET));
    };
    let other_url = permit
        .url
        .replace(&cid.storage_key(), &Cid::of_raw(&other).storage_key());
    refused(Method::PUT, &other_url, &permit, &one_block).await;
    refused(Method::PUT, &permit.url, &permit, &other).await;
    refused(Method::PUT, &permit.url, &permit, &one_block.slice(1..)).await;
    refused(Method::DELETE, &permit.url, &permit, &Bytes::new()).await;
    refused(Method::GET, &permit.url, &permit, &Bytes::new()).await;
    let list = permit.url.split("/alice/").next().unwrap();
    refused(Method::GET, list, &permit, &Bytes::new()).await;
    for changed in ["x-amz-date", "x-amz-content-sha256"] {
        let mut forged = permit.clone();
        for (name, value) in &mut forged.headers {
            if name == changed {
                *value = value.replace('0', "1");
            }
        }
        refused(Method::PUT, &forged.url, &forged, &one_block).await;
    }
    assert!(s.get(&cid, Some(&token)).await.body.is_empty());
    assert_eq!(s.send(Method::PUT, &permit, &one_block).await.status, 200);

    let cap = BlockReadCap {
        cid: cid.clone(),
        bat: Some(token),
    };
    let read = one(&s.read_permits(vec![cap.clone()]).await);
    let empty = Bytes::new();
    for method in [Method::PUT, Method::DELETE, Method::POST] {
        refused(method, &read.url, &read, &empty).await;
    }
    let other_url = read
        .url
        .replace(&cid.storage_key(), &Cid::of_raw(&other).storage_key());
    refused(Method::GET, &other_url, &read, &empty).await;
    let longer = read.url.replace("X-Amz-Expires=600", "X-Amz-Expires=6000");
    refused(Method::GET, &longer, &read, &empty).await;

    // Permits of a moment that has passed.
    s.node.clock.advance(-700_000);
    let late = one(&s.read_permits(vec![cap]).await);
    refused(Method::GET, &late.url, &late, &empty).await;
    s.node.clock.advance(-700_000);
    let (third, _) = private(3, 500);
    let late = s.permit(&third).await;
    refused(Method::PUT, &late.url, &late, &third).await;
    // The permits carry the name of the key, never the key.
    for permit in [&permit, &read, &late] {
        let shown = format!("{} {:?}", permit.url, permit.headers);
        assert!(!shown.contains(crate::servers::s3::SECRET));
    }
}

#[tokio::test]
async fn requests_to_write_are_checked_like_writes() {
    let mut limited = config();
    limited.default_quota_bytes = 100_000;
    let Some(s) = Setting::with(limited).await else {
        return;
    };
    let (block, _) = private(1, 500);
    let target = s.target("&raw=true");
    let good = announced(&s.alice.home, &block);
    let refused = async |target: &str, announced: BlockWriteAuth| {
        let answer = s.authorise(target, vec![announced]).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        answer.message()
    };
    assert_eq!(
        refused(&s.target(""), good.clone()).await,
        "Only raw blocks can be pre-authed for writes"
    );
    let too_big = BlockWriteAuth {
        size_bytes: 1_048_677,
        ..good.clone()
    };
    assert_eq!(refused(&target, too_big).await, "Block too big!");
    let huge = BlockWriteAuth {
        size_bytes: i32::MAX as u32,
        ..good.clone()
    };
    for _ in 0..3 {
        assert_eq!(refused(&target, huge.clone()).await, "Block too big!");
    }
    let empty = BlockWriteAuth {
        size_bytes: 0,
        ..good.clone()
    };
    assert_eq!(refused(&target, empty).await, "Empty block!");
    let mut signature = good.signature.to_vec();
    signature[3] ^= 1;
    let forged = BlockWriteAuth {
        signature: signature.into(),
        ..good.clone()
    };
    assert_eq!(refused(&target, forged).await, "Invalid signature");
    let stranger = key(9, 9);
    let foreign = announced(&stranger, &block);
    assert_eq!(refused(&target, foreign.clone()).await, "Invalid signature");
    let as_stranger = target.replace(
        &s.alice.home.writer().to_string(),
        &stranger.writer().to_string(),
    );
    let text = refused(&as_stranger, foreign).await;
    assert!(
        text.starts_with("Writer not present on this server"),
        "{text}"
    );
    let above = BlockWriteAuth {
        size_bytes: 200_000,
        ..good.clone()
    };
    let text = refused(&target, above).await;
    assert!(text.starts_with("Storage quota reached!"), "{text}");
    let sizes = Value::Map(champ::cbor::Map::from_iter([
        ("b", vec![Value::List(Vec::new())]),
        ("l", vec![Value::Int(-1)]),
        ("s", vec![Value::Bytes(good.signature.clone())]),
    ]));
    assert_eq!(
        s.node.refused(&target, sizes.encode()).await,
        "Invalid block size: -1"
    );
    let answer = s.authorise(&target, Vec::new()).await;
    assert_eq!((answer.status, answer.body), (200, vec![0x80]));
}

#[tokio::test]
async fn wr_11_what_is_announced_counts_at_once_and_is_checked_when_it_is_there() {
    let mut limited = config();
    limited.default_quota_bytes = 1 << 20;
    let Some(s) = Setting::with(limited).await else {
        return;
    };
    let before = s.usage().await;
    let (block, token) = private(1, 300_000);
    let cid = Cid::of_raw(&block);
    // Smaller than it is: the store refuses the bytes, because the permit names their length.
    let mut small = announced(&s.alice.home, &block);
    small.size_bytes = 10;
    let permit = one(&s.authorise(&s.target("&raw=true"), vec![small]).await);
    let said = s.send(Method::PUT, &permit, &block).await;
    assert!((400..=403).contains(&said.status), "{said:?}");
    // Were the store to take them nevertheless, they would not be used.
    let file = s
        .server
        .file(&format!("{}/alice/{}", s.prefix, cid.storage_key()));
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, &block).unwrap();
    assert!(s.get(&cid, Some(&token)).await.body.is_empty());
    std::fs::remove_file(&file).unwrap();

    let permit = s.permit(&block).await;
    let pending = s.usage().await - before;
    assert_eq!(pending, 10 + block.len() as i64);
    assert_eq!(s.send(Method::PUT, &permit, &block).await.status, 200);
    assert_eq!(s.get(&cid, Some(&token)).await.body, block);
}

#[tokio::test]
async fn claimed_tokens_never_decide_a_read() {
    let Some(s) = Setting::new().await else {
        return;
    };
    let (block, token) = private(1, 500);
    let cid = Cid::of_raw(&block);
    let thief = bat(9).with_calculated_id();
    for claim in [Vec::<BatId>::new(), vec![bat(9).inline_id()]] {
        let mut announced = announced(&s.alice.home, &block);
        announced.bat_ids = claim;
        let permit = one(&s.authorise(&s.target("&raw=true"), vec![announced]).await);
        assert_eq!(s.send(Method::PUT, &permit, &block).await.status, 200);
        // Neither by claim nor by truth: what was announced is not what is there.
        for token in [None, Some(thief.clone()), Some(token.clone())] {
            let cap = BlockReadCap {
                cid: cid.clone(),
                bat: token.clone(),
            };
            assert_eq!(s.read_permits(vec![cap]).await.status, 400);
            assert!(s.get(&cid, token.as_ref()).await.body.is_empty());
        }
    }
    // The owner announces it right.
    s.permit(&block).await;
    assert_eq!(s.get(&cid, Some(&token)).await.body, block);
}

#[tokio::test]
async fn requests_to_read_are_checked_like_reads() {
    let Some(s) = Setting::new().await else {
        return;
    };
    let (block, token) = private(1, 500);
    let cid = Cid::of_raw(&block);
    let stored = s
        .alice
        .put(
            &s.node,
            &s.alice.home,
            BlockFormat::Raw,
            std::slice::from_ref(&block),
        )
        .await;
    assert_eq!(stored.status, 200);
    let cap = |cid: &Cid, bat: Option<&BatWithId>| BlockReadCap {
        cid: cid.clone(),
        bat: bat.cloned(),
    };
    let refused = async |caps| {
        let answer = s.read_permits(caps).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        answer.message()
    };
    let good = cap(&cid, Some(&token));
    assert_eq!(refused(vec![cap(&cid, None)]).await, "Unauthorised!");
    let wrong = bat(2).with_calculated_id();
    // One that is not allowed spoils the whole call.
    let mixed = vec![good.clone(), cap(&cid, Some(&wrong))];
    assert_eq!(refused(mixed).await, "Unauthorised!");
    let cbor = cap(&Cid::of_cbor(&block), Some(&token));
    assert_eq!(
        refused(vec![cbor]).await,
        "Can only auth read for raw blocks, not cbor!"
    );
    let absent = cap(&Cid::of_raw(b"absent"), None);
    assert_eq!(refused(vec![absent]).await, "Block not present!");
    let many = Value::List(vec![champ::cbor::Record::to_value(&good); 51]);
    assert_eq!(
        s.node.refused(&s.read_target(), many.encode()).await,
        "Too many reads to auth!"
    );
    let answer = s.read_permits(vec![good.clone(), good]).await;
    let permits = PresignedRequests::from_body(&answer.body.into()).unwrap();
    assert_eq!(permits.0.len(), 2);
    let said = s.send(Method::GET, &permits.0[1], &Bytes::new()).await;
    assert_eq!(said.body, block);
}
