//! Published folders as web sites, through the program's own gateway.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Stdio},
};

use tests::Kastro;

use crate::{World, text};

const SUFFIX: &str = ".sites.test";

/// A gateway process.
struct Sites {
    child: Child,
    address: String,
}

impl Drop for Sites {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(": ")?;
            known.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

impl Sites {
    fn start(world: &World) -> Self {
        let person = world.person("nobody", "gateway");
        let mut child = person
            .command(&[
                "gateway",
                "--json",
                "--listen",
                "127.0.0.1:0",
                "--domain-suffix",
                SUFFIX,
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let started: serde_json::Value = serde_json::from_str(&line).unwrap();
        let url = started["url"].as_str().unwrap();
        Self {
            child,
            address: url.strip_prefix("http://").unwrap().to_owned(),
        }
    }

    fn ask(&self, method: &str, host: &str, path: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut out = Vec::new();
        stream.read_to_end(&mut out).unwrap();
        let end = out
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .expect("a header block");
        let head = String::from_utf8(out[..end].to_vec()).unwrap();
        Answer {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body: out[end + 4..].to_vec(),
        }
    }

    fn get(&self, user: &str, path: &str) -> Answer {
        self.ask("GET", &format!("{user}{SUFFIX}"), path)
    }
}

/// Uploads content under a name.
fn put(world: &World, person: &Kastro, remote: &str, content: &[u8]) {
    let local = world.path("upload");
    fs::create_dir_all(&local).unwrap();
    let name = Path::new(remote).file_name().unwrap();
    let file = local.join(name);
    fs::write(&file, content).unwrap();
    person.ok(&["put", "--quiet", text(&file), remote]);
}

/// A user with a site at `/alice/website` and a file that is nobody's business.
fn site(world: &World) -> Kastro {
    let alice = world.signed_up("alice", "alice");
    alice.ok(&["mkdir", "-p", "/alice/website/docs", "/alice/.profile"]);
    for (name, content) in [
        ("website/index.html", &b"<p>home</p>"[..]),
        ("website/style.css", b"p {}"),
        ("website/docs/index.html", b"<p>docs</p>"),
        ("website/404.html", b"<p>lost</p>"),
        ("website/page", b"<!DOCTYPE html><p>page"),
        ("website/data.zip", b"PK\x03\x04 and more"),
        (
            "website/headers.json",
            br#"{"content-security-policy":"default-src 'none'"}"#,
        ),
        ("website/large.txt", &[b'x'; 300 << 10]),
        ("private.txt", b"private"),
        (".profile/webroot", b"/alice/website\n"),
    ] {
        put(world, &alice, &format!("/alice/{name}"), content);
    }
    alice.ok(&["publish", "/alice/website"]);
    alice.ok(&["publish", "/alice/.profile/webroot"]);
    alice
}

#[test]
fn a_published_folder_is_a_web_site() {
    let world = World::new();
    site(&world);
    let sites = Sites::start(&world);
    for (path, kind, body, attachment) in [
        ("/", "text/html", "<p>home</p>", false),
        ("/index.html", "text/html", "<p>home</p>", false),
        ("/style.css?x=1", "text/css", "p {}", false),
        ("/docs", "text/html", "<p>docs</p>", false),
        ("/docs/", "text/html", "<p>docs</p>", false),
        ("/page", "text/html", "<!DOCTYPE html><p>page", false),
        (
            "/data.zip",
            "application/zip",
            "PK\u{3}\u{4} and more",
            true,
        ),
    ] {
        // The second answer comes from memory.
        for _ in 0..2 {
            let answer = sites.get("alice", path);
            assert_eq!(answer.status, 200, "{path}: {answer:?}");
            assert_eq!(answer.header("content-type"), Some(kind), "{path}");
            assert_eq!(answer.body, body.as_bytes(), "{path}");
            assert_eq!(
                answer.header("content-disposition"),
                attachment.then_some("attachment"),
                "{path}"
            );
            for (name, value) in [
                ("content-security-policy", "default-src 'none'"),
                ("x-content-type-options", "nosniff"),
                ("x-frame-options", "sameorigin"),
                ("referrer-policy", "no-referrer"),
            ] {
                assert_eq!(answer.header(name), Some(value), "{name} of {path}");
            }
            for absent in [
                "strict-transport-security",
                "access-control-allow-origin",
                "set-cookie",
            ] {
                assert_eq!(answer.header(absent), None, "{absent}");
            }
        }
        let head = sites.ask("HEAD", &format!("alice{SUFFIX}"), path);
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-type"), Some(kind));
        let length = body.len().to_string();
        assert_eq!(head.header("content-length"), Some(length.as_str()));
    }
    let large = sites.get("alice", "/large.txt");
    assert_eq!(large.body, vec![b'x'; 300 << 10]);
    assert_eq!(large.header("content-length"), Some("307200"));
    assert_eq!(large.header("content-type"), Some("text/plain"));
    for path in [
        "/nosuch",
        "/docs/nosuch",
        "/style.css/x",
        "/../private.txt",
        "/%2e%2e/private.txt",
        "/..%2fprivate.txt",
        "/docs/../../private.txt",
        "/%5c..%5cprivate.txt",
        "/a%0d%0aX-Evil:1",
    ] {
        let answer = sites.get("alice", path);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.body, b"<p>lost</p>", "{path}");
        assert_eq!(answer.header("content-type"), Some("text/html"));
        assert_eq!(answer.header("x-evil"), None);
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = sites.ask(method, &format!("alice{SUFFIX}"), "/");
        assert_eq!((answer.status, answer.body.len()), (405, 0), "{method}");
    }
}

#[test]
fn hosts_that_are_nobodys_site_are_refused_with_the_reason() {
    let world = World::new();
    let bob = world.signed_up("bob", "bob");
    let sites = Sites::start(&world);
    for host in [
        "alice.other.test",
        "a.b.sites.test",
        ".sites.test",
        "sites.test",
        "evilsites.test",
        "Bob.sites.test",
        "bob.sites.test:9000",
    ] {
        let answer = sites.ask("GET", host, "/");
        assert_eq!(answer.status, 400, "{host}");
        assert!(
            answer
                .header("trailer")
                .unwrap()
                .starts_with("Incorrect+domain%21")
        );
    }
    let refused = |user: &str, message: &str| {
        let answer = sites.get(user, "/");
        assert_eq!((answer.status, answer.body.len()), (404, 0), "{user}");
        assert_eq!(answer.header("trailer"), Some(message), "{user}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    };
    refused(
        "nobody",
        "Owner+doesn%27t+exist+for+path+%2Fnobody%2F.profile%2Fwebroot",
    );
    let no_profile = "User+bob+has+not+published+a+file+at+%2Fbob%2F.profile%2Fwebroot";
    refused("bob", no_profile);
    // A profile that is not published, one that names another's folder, one that names a folder not published.
    bob.ok(&["mkdir", "-p", "/bob/.profile", "/bob/website"]);
    put(&world, &bob, "/bob/.profile/webroot", b"/alice/website");
    refused("bob", no_profile);
    bob.ok(&["publish", "/bob/.profile/webroot"]);
    refused("bob", "User+bob+has+no+folder+of+their+own+as+web+root");
    bob.ok(&["rm", "/bob/.profile/webroot"]);
    bob.ok(&["unpublish", "/bob/.profile/webroot"]);
    put(&world, &bob, "/bob/.profile/webroot", b"/bob/website");
    bob.ok(&["publish", "/bob/.profile/webroot"]);
    refused(
        "bob",
        "User+bob+has+not+published+a+file+at+%2Fbob%2Fwebsite",
    );
}

#[test]
fn changes_and_withdrawals_are_seen_at_once() {
    let world = World::new();
    let alice = site(&world);
    let sites = Sites::start(&world);
    assert_eq!(sites.get("alice", "/").body, b"<p>home</p>");
    assert_eq!(sites.get("alice", "/new.css").status, 404);
    alice.ok(&["rm", "/alice/website/index.html"]);
    put(&world, &alice, "/alice/website/index.html", b"<p>new</p>");
    put(&world, &alice, "/alice/website/new.css", b"q {}");
    assert_eq!(sites.get("alice", "/").body, b"<p>new</p>");
    assert_eq!(sites.get("alice", "/new.css").body, b"q {}");
    alice.ok(&["unpublish", "/alice/website"]);
    let answer = sites.get("alice", "/");
    assert_eq!((answer.status, answer.body.len()), (404, 0));
    assert_eq!(sites.get("alice", "/style.css").body, b"");
    alice.ok(&["publish", "/alice/website"]);
    assert_eq!(sites.get("alice", "/").body, b"<p>new</p>");
}

/// A folder above the web root may be what is published: the rest of the path is walked.
#[test]
fn a_web_root_below_a_published_folder_is_found() {
    let world = World::new();
    let alice = world.signed_up("alice", "alice");
    alice.ok(&["mkdir", "-p", "/alice/pub/web", "/alice/.profile"]);
    put(&world, &alice, "/alice/pub/secret.txt", b"beside");
    put(&world, &alice, "/alice/pub/web/index.html", b"below");
    put(&world, &alice, "/alice/.profile/webroot", b"/alice/pub/web");
    alice.ok(&["publish", "/alice/pub"]);
    alice.ok(&["publish", "/alice/.profile/webroot"]);
    let sites = Sites::start(&world);
    let answer = sites.get("alice", "/");
    assert_eq!(answer.body, b"below");
    assert_eq!(
        answer.header("content-security-policy"),
        Some("default-src 'self'")
    );
    let missing = sites.get("alice", "/secret.txt");
    assert_eq!((missing.status, missing.body.len()), (404, 0));
    assert_eq!(missing.header("content-type"), Some("text/plain"));
}

#[test]
fn a_server_that_is_away_is_an_error_and_no_wait() {
    let mut world = World::new();
    site(&world);
    let sites = Sites::start(&world);
    assert_eq!(sites.get("alice", "/").status, 200);
    world.node.take().unwrap().kill();
    let begin = std::time::Instant::now();
    for path in ["/", "/style.css"] {
        let answer = sites.get("alice", path);
        assert_eq!((answer.status, answer.body.len()), (502, 0), "{path}");
    }
    assert!(begin.elapsed() < std::time::Duration::from_secs(10));
}

#[test]
fn what_is_published_has_a_link_at_its_node() {
    let world = World::new();
    let alice = site(&world);
    let host = world.node().authority();
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(host).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut out = String::new();
        stream.read_to_string(&mut out).unwrap();
        out
    };
    let answer = ask("/public/alice/website/index.html?open=true");
    assert!(answer.starts_with("HTTP/1.1 302 "), "{answer}");
    let link = answer.split("\"link\":\"").nth(1).unwrap();
    let link = link.split('"').next().unwrap();
    let capability: cryptree::capability::AbsoluteCapability = link.parse().unwrap();
    assert!(!capability.is_writable());
    assert_eq!(capability.to_link_text(), link);
    assert!(ask("/public/alice/private.txt").starts_with("HTTP/1.1 400 "));
    // The home folder cannot be published, nor what is covered already.
    alice.fails(6, &["publish", "/alice"]);
    let error = alice.run(&["publish", "/alice/website/docs"]);
    assert_ne!(error.code, Some(0));
    let error = alice.run(&["unpublish", "/alice/private.txt"]);
    assert_ne!(error.code, Some(0));
}

#[test]
fn a_public_gateway_never_shares_a_domain_with_a_node() {
    let world = World::new();
    let person = world.person("nobody", "gateway");
    let server = format!(
        "http://localhost:{}",
        world.node().authority().rsplit(':').next().unwrap()
    );
    for suffix in [".localhost:9000", ".sites.localhost:9000"] {
        let error = person.fails(
            2,
            &[
                "gateway",
                "--public",
                "--server",
                &server,
                "--domain-suffix",
                suffix,
            ],
        );
        assert!(error.contains("share a domain"), "{error}");
    }
    person.fails(2, &["gateway", "--domain-suffix", "no-dot.test"]);
}
