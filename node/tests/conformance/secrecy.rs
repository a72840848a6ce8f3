//! The log knows no secrets (Spec: 05 security check 8, 13 security check 6, 40 PRV-6).

use std::{
    fmt::Write as _,
    sync::{Arc, Mutex},
};

use champ::{cbor::Record as _, text::to_hex};
use pki::{keys::SecretSigningKey, wire::call::Call};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

use super::{
    account::Account,
    harness::{NOW, TestNode},
};

/// What no log line may hold.
const CANARY: &str = "c4na4yc4na4y";

/// Keeps every event and span of every level and target.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<String>>);

struct Line<'a>(&'a mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = self.0.lock().unwrap();
        text.push_str(span.metadata().name());
        span.record(&mut Line(&mut text));
        text.push('\n');
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Line(&mut self.0.lock().unwrap()));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = self.0.lock().unwrap();
        let metadata = event.metadata();
        let _ = write!(text, "{} {}", metadata.level(), metadata.target());
        event.record(&mut Line(&mut text));
        text.push('\n');
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn prv_6_no_parameter_header_or_body_reaches_the_log() {
    let recorder = Recorder::default();
    // As long as there is one subscriber in a process, the library asks the thread that first comes by a log line whether
    // anybody wants it, for all threads and for good; that may be the thread of another test. Of two it asks both.
    let _second = tracing::Dispatch::new(Recorder::default());
    let _guard = tracing::subscriber::set_default(recorder.clone());
    let node = TestNode::new().await;
    let served = node.serve().await;
    let alice = Account::sign_up(&node, "alice", 7).await;
    let hex = to_hex(CANARY.as_bytes());
    let parameters = [
        "auth",
        "mfa",
        "bat",
        "caps",
        "signatures",
        "req",
        "token",
        "label",
        "code",
        "author",
        "credid",
        "new-client-secret",
        "batid",
        "raw",
        "transaction",
        "keyname",
        "email",
    ];
    for call in Call::ALL {
        for value in [CANARY, &hex, &format!("z{hex}")] {
            let all: Vec<_> = parameters
                .iter()
                .map(|name| format!("{name}={value}"))
                .collect();
            let target = format!(
                "/{}?owner={}&writer={}&username=alice&admin=alice&arg={value}&{}",
                call.path(),
                alice.owner(),
                alice.home.writer(),
                all.join("&")
            );
            let headers = [
                format!("Cookie: s={CANARY}"),
                format!("Authorization: Basic {CANARY}"),
                format!("User-Agent: {CANARY}"),
            ];
            let headers: Vec<_> = headers.iter().map(String::as_str).collect();
            served
                .request("POST", &target, &headers, CANARY.as_bytes())
                .await;
            // Paths that are made up, and methods.
            served.request(CANARY, &target, &headers, b"").await;
        }
    }
    for path in [
        format!("/secret/{CANARY}/{CANARY}"),
        format!("/public/{CANARY}/{CANARY}"),
        format!("/peergos/v0/login/{CANARY}"),
        format!("/peergos/v0/core/getUsernamesGzip/{CANARY}"),
        format!("/api/v0/{CANARY}"),
        format!("/api/v0/id/{CANARY}?{CANARY}"),
    ] {
        served.request("POST", &path, &[], b"").await;
        served.request("GET", &path, &[], b"").await;
    }
    // Broken heads.
    for text in [
        format!("POST /{CANARY} HTTP/9\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{CANARY} : {CANARY}\r\n\r\n"),
        format!("{CANARY}\r\n\r\n"),
    ] {
        served.raw(text.as_bytes()).await;
    }
    // What succeeds: the authorisations themselves are the canaries.
    let login = SecretSigningKey::from_seed(&[7 ^ 0x55; 32]);
    let good = alice.get_login(&node, &login, NOW, "").await;
    assert_eq!(good.status, 200);
    assert!(alice.usage(&node, "").await > 0);
    let bats = alice.signed("peergos/v0/bats/getUserBats", NOW);
    node.ok(&bats, "").await;
    let secrets = [
        CANARY.to_owned(),
        hex.clone(),
        alice.time(NOW),
        to_hex(&alice.request_auth("peergos/v0/bats/getUserBats", NOW)),
        to_hex(&login.public().encode()),
    ];
    served.stop().await;
    drop(_guard);
    let log = recorder.0.lock().unwrap().clone();
    // The recorder works, and each request has its line.
    assert!(
        log.matches(" access ").count() > 300,
        "{}",
        log.lines().count()
    );
    assert!(log.contains("/api/v0/block/get"));
    for line in log.lines() {
        // The HTTP library is kept below its chattier levels by the program that sets up the log.
        let is_ours = ["node", "pki", "champ", "access"].iter().any(|target| {
            line.split(' ')
                .nth(1)
                .is_some_and(|found| found.starts_with(target))
        });
        for secret in &secrets {
            assert!(!is_ours || !line.contains(secret.as_str()), "{line}");
        }
    }
    let others: Vec<_> = log
        .lines()
        .filter(|line| secrets.iter().any(|secret| line.contains(secret.as_str())))
        .collect();
    assert!(others.is_empty(), "{others:#?}");
}
