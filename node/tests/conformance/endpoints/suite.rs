//! Asks every row rightly and in every wrong way.

use champ::{cbor::Record as _, text::to_hex};
use pki::signed::{SignedRequest, SignedTime};

use super::{
    Asked, Auth, Endpoint, Kind, Reply, Takes, Text, blocks, login, names, people, pointers,
    uploads,
    world::{World, world},
};
use crate::conformance::{
    account::Account,
    harness::{Answer, NOW},
};

const STALE: &str = "Stale auth time, is your clock accurate?";
const NOT_HOME: &str = "This server is not the home of the user and does not forward requests";
const CANARY: &str = "zzCANARYzz";

/// Everything about one family of calls.
async fn check(rows: &[Endpoint]) {
    for row in rows {
        let world = world(false).await;
        let before = world.everything().await;
        Row { row, world: &world }.refuse_everything().await;
        let after = world.everything().await;
        for (key, value) in &after {
            assert_eq!(
                before.get(key),
                Some(value),
                "{} changed {}",
                row.call.path(),
                String::from_utf8_lossy(key)
            );
        }
        assert_eq!(before.len(), after.len(), "{}", row.call.path());
        Row { row, world: &world }.succeed().await;
        on_a_public_node(row).await;
    }
}

#[tokio::test]
async fn calls_about_blocks() {
    check(blocks::ROWS).await;
}

#[tokio::test]
async fn calls_that_upload() {
    check(uploads::ROWS).await;
}

#[tokio::test]
async fn calls_about_pointers() {
    check(pointers::ROWS).await;
}

/// Failed log-ins are held back, which costs no time here.
#[tokio::test(start_paused = true)]
async fn calls_about_login() {
    check(login::ROWS).await;
}

#[tokio::test]
async fn calls_about_people() {
    check(people::ROWS).await;
}

#[tokio::test]
async fn calls_about_names() {
    check(names::ROWS).await;
}

/// Over a socket: exactly these headers and no other.
#[tokio::test]
async fn answers_have_exactly_their_headers() {
    for row in super::rows() {
        let mut world = world(false).await;
        let served = world.node.serve().await;
        world.origin = format!("http://{}", served.host());
        let right = Row { row, world: &world }.good(&world.alice, 0);
        let headers: Vec<String> = right
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let target = format!("/{}", right.target(row.call));
        let answer = served.request("POST", &target, &headers, &right.body).await;
        let path = row.call.path();
        let mut names: Vec<&str> = answer
            .headers
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        names.sort_unstable();
        let mut expected = vec![
            "cache-control",
            "connection",
            "content-length",
            "content-type",
            "date",
            "x-content-type-options",
        ];
        match row.reply {
            Reply::Ok { hash: Some(_), .. } => expected.push("etag"),
            Reply::Ok { .. } => {}
            Reply::Refused(_) => expected.push("trailer"),
        }
        if path.ends_with("getUsernamesGzip") {
            expected.push("content-encoding");
        }
        expected.sort_unstable();
        assert_eq!(names, expected, "{path}");
        let length = answer.header("content-length").unwrap();
        assert_eq!(length, answer.body.len().to_string(), "{path}");
        served.stop().await;
    }
}

struct Row<'a> {
    row: &'a Endpoint,
    world: &'a World,
}

impl Row<'_> {
    /// The right request, as this account would make it; `skew` shifts the time that it signs.
    fn good(&self, who: &Account, skew: i64) -> Asked {
        let mut asked = (self.row.good)(self.world);
        if let Some(auth) = self.auth(who, NOW + skew, self.row.call.path()) {
            asked.set("auth", to_hex(&auth));
        }
        asked
    }

    fn auth(&self, who: &Account, millis: i64, path: &str) -> Option<Vec<u8>> {
        let time = SignedTime {
            epoch_millis: millis,
        };
        match self.row.auth {
            Auth::Own => None,
            Auth::Time(_) => Some(time.sign(who.identity.secret())),
            Auth::Request(_) | Auth::OnceRequest => Some(
                SignedRequest {
                    path: path.to_owned(),
                    time,
                }
                .sign(who.identity.secret()),
            ),
        }
    }

    async fn ask(&self, asked: &Asked) -> Answer {
        let target = asked.target(self.row.call);
        let (headers, body) = (&asked.headers, &asked.body);
        self.world.call("POST", &target, headers, body).await
    }

    /// Expects 400, `text` in the header and nothing anywhere else.
    async fn refused(&self, what: &str, asked: &Asked, text: Text) {
        let answer = self.ask(asked).await;
        self.is_refused(what, &answer, 400, text);
    }

    fn is_refused(&self, what: &str, answer: &Answer, status: u16, text: Text) {
        let what = format!("{}: {what}", self.row.call.path());
        assert_eq!(answer.status, status, "{what}: {answer:?}");
        assert!(answer.body.is_empty(), "{what}");
        assert_eq!(answer.header("content-type"), Some("text/plain"), "{what}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{what}");
        let sniff = answer.header("x-content-type-options");
        assert_eq!(sniff, Some("nosniff"), "{what}");
        let names: Vec<_> = answer.headers.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 4, "{what}: {names:?}");
        let message = answer.message();
        match text {
            Text::Is(text) => assert_eq!(message, text, "{what}"),
            Text::Of(text) => assert_eq!(message, text(self.world), "{what}"),
            Text::Begins(text) => assert!(message.starts_with(text), "{what}: {message}"),
        }
        assert!(!message.is_empty(), "{what}");
        let shown = answer.header("trailer").unwrap();
        assert_eq!(
            shown,
            pki::wire::trailer::encode_trailer(&message),
            "{what}"
        );
        assert!(!message.contains(CANARY), "{what}: {message}");
    }

    async fn refuse_everything(&self) {
        self.wrong_queries().await;
        self.wrong_methods(false).await;
        self.wrong_paths().await;
        self.wrong_bodies().await;
        self.wrong_authorisations().await;
        self.wrong_users().await;
        for (n, case) in self.row.cases.iter().enumerate() {
            let mut asked = self.good(&self.world.alice, -500 - n as i64);
            (case.spoil)(self.world, &mut asked);
            let answer = self.ask(&asked).await;
            self.is_refused(case.name, &answer, case.status, case.text);
        }
        for (n, variant) in self.row.variants.iter().enumerate() {
            let mut asked = self.good(&self.world.alice, -600 - n as i64);
            (variant.change)(self.world, &mut asked);
            let answer = self.ask(&asked).await;
            let what = format!("{}: {}", self.row.call.path(), variant.name);
            assert_eq!(answer.status, 200, "{what}: {}", answer.message());
            assert!(
                (variant.body)(self.world, &answer.body),
                "{what}: {answer:?}"
            );
        }
    }

    /// Every parameter missing, repeated, ill-formed; parts that are none.
    async fn wrong_queries(&self) {
        let is_checked = matches!(self.row.reply, Reply::Ok { .. });
        for (n, param) in self.row.params.iter().enumerate() {
            let good = self.good(&self.world.alice, -100 - 3 * n as i64);
            let what = format!("{} missing", param.name);
            let mut missing = good.clone();
            missing.unset(param.name);
            // The name in the body of `setLogin` is the one that counts.
            let is_ignored = self.row.call.path().ends_with("setLogin") && param.name == "username";
            if !param.is_optional && is_checked && !is_ignored {
                let text = match param.name {
                    "owner" if param.kind == Kind::Owner => "No value present",
                    "arg" => "Missing parameter: arg",
                    _ => "",
                };
                self.refused(&what, &missing, Text::Begins(text)).await;
            }
            if param.name != "arg" {
                let mut twice = good.clone();
                let value = twice.query.iter().find(|(name, _)| *name == param.name);
                let value = value.map_or_else(|| "x".to_owned(), |(_, value)| value.clone());
                twice.set(param.name, &value);
                twice.query.push((param.name, value));
                let what = format!("{} twice", param.name);
                let text = Text::Is("repeated query parameter");
                self.refused(&what, &twice, text).await;
            }
            let ill_formed: &[&str] = match param.kind {
                Kind::Owner | Kind::Key | Kind::Cid | Kind::Peer | Kind::Encoded => {
                    &[CANARY, "", "Qm", "z", "zdpu0"]
                }
                Kind::Hex => &[CANARY, "0", "0g"],
                Kind::Integer => &[CANARY, "", "1x", "99999999999999999999"],
                Kind::User | Kind::Text => &[],
            };
            for bad in ill_formed.iter().filter(|_| is_checked) {
                let mut asked = self.good(&self.world.alice, -101 - 3 * n as i64);
                asked.set(param.name, bad);
                let what = format!("{}={bad}", param.name);
                self.refused(&what, &asked, Text::Begins("")).await;
            }
        }
        let target = self.good(&self.world.alice, -99).target(self.row.call);
        let joint = if target.contains('?') { '&' } else { '?' };
        for (odd, text) in [
            ("foo", "query part without `=`"),
            ("a=%", "invalid percent encoding in query"),
            ("a=%zz", "invalid percent encoding in query"),
            ("a=%ff", "invalid percent encoding in query"),
            ("a=1&a=1", "repeated query parameter"),
        ] {
            let target = format!("{target}{joint}{odd}");
            let answer = self.world.call("POST", &target, &[], b"").await;
            assert_eq!(answer.message(), text, "{target}");
            assert_eq!(answer.status, 400);
        }
    }

    /// Every method but those of Spec: 05 §3.
    async fn wrong_methods(&self, is_public: bool) {
        let asked = self.good(&self.world.alice, -98);
        let target = asked.target(self.row.call);
        let takes_get = is_public && self.row.takes == Takes::Nothing;
        for method in [
            "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "post",
        ] {
            if method == "GET" && takes_get {
                continue;
            }
            let answer = self
                .world
                .call(method, &target, &asked.headers, &asked.body)
                .await;
            let what = format!("{method} {}", self.row.call.path());
            assert_eq!(answer.status, 405, "{what}");
            assert!(answer.body.is_empty(), "{what}");
            assert_eq!(answer.header("trailer"), None, "{what}");
            assert_eq!(answer.header("access-control-allow-origin"), None);
        }
    }

    /// Names match exactly below `/api/v0/`; elsewhere further segments are ignored, and no other spelling is.
    async fn wrong_paths(&self) {
        let path = self.row.call.path();
        let is_block_call = path.starts_with("api/v0/");
        for other in [
            format!("{path}x"),
            format!("{path}%00"),
            path.to_ascii_uppercase(),
            format!("/{path}"),
        ] {
            let answer = self.world.call("POST", &other, &[], b"").await;
            assert!([400, 404].contains(&answer.status), "{other}: {answer:?}");
            assert!(answer.body.is_empty());
        }
        if is_block_call {
            let answer = self.world.call("POST", &format!("{path}/"), &[], b"").await;
            assert_eq!(answer.status, 404);
        }
    }

    async fn wrong_bodies(&self) {
        let good = self.good(&self.world.alice, -97);
        let Takes::AtMost(max) = self.row.takes else {
            return;
        };
        let too_long = Asked {
            body: vec![0; max + 1],
            ..good.clone()
        };
        let text = format!("Input exceeds maximum size of {max} bytes");
        let answer = self.ask(&too_long).await;
        assert_eq!(answer.message(), text, "{}", self.row.call.path());
        self.is_refused("body too long", &answer, 400, Text::Begins("Input exceeds"));
        // Random bytes, which are neither a record nor a stream nor signed.
        for bad in [
            &b"\xff"[..],
            b"\xff\xff\xff\xff",
            b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            let asked = Asked {
                body: bad.to_vec(),
                ..self.good(&self.world.alice, -96 - bad.len() as i64)
            };
            let answer = self.ask(&asked).await;
            // Signed bodies that do not verify are 200 and `00` to the calls of Spec: 07 §3.2.
            let is_zero = answer.status == 200 && answer.body == [0];
            assert!(
                is_zero || answer.status == 400,
                "{} {bad:?} {answer:?}",
                self.row.call.path()
            );
        }
    }

    async fn wrong_authorisations(&self) {
        let (past, future) = match self.row.auth {
            Auth::Own => return,
            Auth::Time(seconds) | Auth::Request(seconds) => (seconds, seconds),
            Auth::OnceRequest => (3600, 300),
        };
        let world = self.world;
        let path = self.row.call.path();
        for skew in [
            -past * 1000 - 1,
            future * 1000 + 1,
            i64::MAX - NOW,
            -NOW - 1,
        ] {
            let asked = self.good(&world.alice, skew);
            let what = format!("signed {skew} ms away");
            self.refused(&what, &asked, Text::Is(STALE)).await;
        }
        let other = self.good(&world.bob, -90);
        self.refused(
            "signed by another user",
            &other,
            Text::Is("Invalid signature"),
        )
        .await;
        let with = |auth: Vec<u8>| {
            let mut asked = self.good(&world.alice, -91);
            asked.set("auth", to_hex(&auth));
            asked
        };
        let auth = self.auth(&world.alice, NOW - 92, path).unwrap();
        let mut damaged = auth.clone();
        damaged[70] ^= 1;
        for bad in [
            damaged,
            auth[..63].to_vec(),
            Vec::new(),
            auth[..auth.len() - 1].to_vec(),
        ] {
            let asked = with(bad);
            self.refused("damaged", &asked, Text::Is("Invalid signature"))
                .await;
        }
        let secret = world.alice.identity.secret();
        let time = SignedTime { epoch_millis: NOW };
        let record = "Invalid cbor for time in authorisation!";
        let wrong_record = match self.row.auth {
            Auth::Time(_) => world.alice.request_auth(path, NOW),
            _ => time.sign(secret),
        };
        let longer = [&time.encode()[..], &[0]].concat();
        for bad in [
            wrong_record,
            secret.sign_attached(&longer),
            secret.sign_attached(b""),
        ] {
            let asked = with(bad);
            self.refused("another record", &asked, Text::Is(record))
                .await;
        }
        if !matches!(self.row.auth, Auth::Time(_)) {
            for other in ["peergos/v0/login/getLogin", &format!("/{path}"), ""] {
                let auth = self.auth(&world.alice, NOW - 93, other).unwrap();
                let answer = self.ask(&with(auth)).await;
                let text = format!("Illegal path for signed request: {other}");
                assert_eq!(answer.message(), text, "{path}");
            }
        }
        let mut missing = self.good(&world.alice, -94);
        missing.unset("auth");
        let text = Text::Is("Missing parameter: auth");
        // The user is looked at first by calls that route by `owner`.
        self.refused("auth missing", &missing, text).await;
    }

    async fn wrong_users(&self) {
        let world = self.world;
        let Some(param) = self
            .row
            .params
            .iter()
            .find(|param| matches!(param.kind, Kind::Owner | Kind::User))
        else {
            return;
        };
        if matches!(self.row.reply, Reply::Refused(_)) {
            return;
        }
        let as_user = |who: &Account| {
            let mut asked = self.good(who, -95);
            match param.kind {
                Kind::Owner => asked.set(param.name, who.owner()),
                _ => asked.set(param.name, &who.name),
            }
            asked
        };
        let unknown = match param.kind {
            Kind::Owner => {
                Text::Of(|world| format!("Unknown identity key: {}", world.stranger().owner()))
            }
            _ => Text::Is("No value present"),
        };
        // The name in the body of `setLogin` is the one that counts.
        if self.row.call.path().ends_with("setLogin") {
            return;
        }
        self.refused("unknown user", &as_user(&world.stranger()), unknown)
            .await;
        if self.row.is_for_local_users {
            let text = match self.row.call.path() {
                "api/v0/link/get" => "Please use the link owner's server",
                "peergos/v0/login/getLogin" => "Incorrect username or password",
                _ => NOT_HOME,
            };
            self.refused("foreign user", &as_user(&world.carol), Text::Is(text))
                .await;
        }
    }

    /// The right request, with ignored oddities; then once more where an authorisation is used up.
    async fn succeed(&self) {
        let path = self.row.call.path();
        let mut asked = self.good(&self.world.alice, 0);
        for (name, value) in [("letmein", "1"), ("xyz", "%2F+")] {
            asked.query.push((name, value.to_owned()));
        }
        if self.row.takes == Takes::Nothing {
            asked.body = b"ignored".to_vec();
        }
        let answer = self.ask(&asked).await;
        self.is_reply(&answer);
        if self.row.auth == Auth::OnceRequest {
            let text = Text::Is("This authorisation was used before");
            self.refused("used twice", &asked, text).await;
        }
        assert_eq!(path, self.row.call.path());
    }

    fn is_reply(&self, answer: &Answer) {
        let path = self.row.call.path();
        match self.row.reply {
            Reply::Refused(text) => self.is_refused("as always", answer, 400, Text::Is(text)),
            Reply::Ok { kind, hash, body } => {
                assert_eq!(answer.status, 200, "{path}: {}", answer.message());
                assert_eq!(answer.header("content-type"), Some(kind), "{path}");
                let sniff = answer.header("x-content-type-options");
                assert_eq!(sniff, Some("nosniff"), "{path}");
                assert_eq!(answer.header("trailer"), None, "{path}");
                assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
                let (cache, tag) = match hash {
                    Some(hash) => (
                        "public, max-age=31622400 immutable",
                        Some(format!("\"{}\"", hash(self.world))),
                    ),
                    None => ("no-store", None),
                };
                assert_eq!(answer.header("cache-control"), Some(cache), "{path}");
                assert_eq!(answer.header("etag"), tag.as_deref(), "{path}");
                assert!(body(self.world, &answer.body), "{path}: {answer:?}");
            }
        }
    }
}

/// A public node takes GET for calls without body, and otherwise refuses the same methods.
async fn on_a_public_node(row: &Endpoint) {
    let world = world(true).await;
    let here = Row { row, world: &world };
    here.wrong_methods(true).await;
    if row.takes == Takes::Nothing {
        let asked = here.good(&world.alice, 0);
        let target = asked.target(row.call);
        let answer = world.call("GET", &target, &asked.headers, b"").await;
        let path = row.call.path();
        match row.reply {
            Reply::Ok { .. } => assert_eq!(answer.status, 200, "{path}: {}", answer.message()),
            Reply::Refused(_) => assert_eq!(answer.status, 400, "{path}"),
        }
    }
}
