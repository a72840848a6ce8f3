//! The web server: hosts, paths, headers, policy, caching (Spec: 13 §2 to §6).

use std::{fs, path::Path};

use bytes::Bytes;
use http::Request;
use node::{Config, web::PageSettings};
use serde_json::Value as Json;

use super::harness::{Answer, Served, TestNode, config};

const PAGE_HEADERS: [(&str, &str); 10] = [
    ("cross-origin-embedder-policy", "require-corp"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("origin-agent-cluster", "?1"),
    ("x-frame-options", "sameorigin"),
    ("x-xss-protection", "1; mode=block"),
    ("x-dns-prefetch-control", "off"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    (
        "permissions-policy",
        "interest-cohort=(), geolocation=(), gyroscope=(), magnetometer=(), accelerometer=(), microphone=(), camera=(self), fullscreen=(self)",
    ),
];

fn write(folder: &Path, name: &str, content: &str) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// The web root of the recorded cases, with a secret beside it and links that lead there.
fn web_root() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let web = folder.path().join("web");
    for name in [
        "index.html",
        "secret.html",
        "js/app.js",
        "apps/sandbox/sandbox.html",
        "apps/calendar/index.html",
        "apps/calendar/x.css",
        "apps/notes/index.html",
        "images/a.png",
        "m.mjs",
        "w.wasm",
        "f.bin",
    ] {
        write(&web, name, &format!("content of {name}"));
    }
    write(folder.path(), "outside", "outside");
    for link in ["link", "apps/sandbox/link", "apps/calendar/link"] {
        std::os::unix::fs::symlink(folder.path().join("outside"), web.join(link)).unwrap();
        std::os::unix::fs::symlink(folder.path(), web.join(format!("{link}-folder"))).unwrap();
    }
    folder
}

fn settings(json: &Json) -> PageSettings {
    // The hashes belong to the web application, so they are taken from a recorded policy.
    let policies = json["cases"].as_array().unwrap().iter();
    let policy = policies
        .filter_map(|case| case["headers"]["content-security-policy"].as_str())
        .find(|policy| policy.contains("sha256-"))
        .unwrap();
    let hashes: Vec<_> = policy
        .split('\'')
        .filter(|part| part.starts_with("sha256-"))
        .map(|hash| hash.parse().unwrap())
        .collect();
    assert_eq!(hashes.len(), 15);
    PageSettings {
        apps: ["calendar", "pdf"]
            .iter()
            .map(|app| app.parse().unwrap())
            .collect(),
        inline_scripts: hashes,
        frame_sources: vec!["pay.example".parse().unwrap()],
        block_hosts: vec!["bucket.s3.example".parse().unwrap()],
    }
}

async fn node_with(web: &Path, settings: PageSettings) -> TestNode {
    TestNode::with(Config {
        web: Some(web.to_owned()),
        pages: settings,
        ..config()
    })
    .await
}

async fn call(node: &TestNode, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = node.node.call(request.body(Bytes::new()).unwrap()).await;
    let headers = response
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    Answer {
        status: response.status().as_u16(),
        headers,
        body: response.body().to_vec(),
    }
}

/// Every `static` case of the recorded ones: the site is `localhost:8000`, which is the default.
#[tokio::test]
async fn recorded_pages_are_served_with_their_exact_headers() {
    let json: Json = serde_json::from_str(include_str!("../vectors/gateway.json")).unwrap();
    let folder = web_root();
    let node = node_with(&folder.path().join("web"), settings(&json)).await;
    let mut compared = 0;
    for case in json["cases"].as_array().unwrap() {
        match case["kind"].as_str().unwrap() {
            "static" => {}
            // Compared where hosts are told apart, and where labels are made.
            "host_match" | "app_subdomain" | "app_subdomain_anon" => continue,
            other => panic!("unknown kind {other}"),
        }
        compared += 1;
        let path = case["path"].as_str().unwrap();
        let method = case["method"].as_str().unwrap();
        let host = case["host"].as_str().unwrap();
        // The recorded server compresses whatever the request offers.
        let mut headers = vec![("host", host), ("accept-encoding", "gzip")];
        let known = call(&node, "GET", path, &headers).await;
        let tag = known.header("etag").unwrap_or_default().to_owned();
        if case["request_headers"]
            .as_str()
            .unwrap()
            .starts_with("If-None-Match: ")
        {
            headers.push(("if-none-match", &tag));
        }
        let answer = call(&node, method, path, &headers).await;
        if case["conform"] == false {
            // A host that only ends with the site's.
            assert_eq!(answer.status, 404, "{case}");
            assert!(answer.body.is_empty());
            continue;
        }
        assert_eq!(Json::from(answer.status), case["status"], "{case}");
        if case["check_headers"] == false {
            assert!(answer.body.is_empty(), "{case}");
            continue;
        }
        let expected = case["headers"].as_object().unwrap();
        for (name, value) in expected {
            let found = answer
                .header(name)
                .unwrap_or_else(|| panic!("{name} of {case}"));
            match name.as_str() {
                // They depend on the content, which is not recorded.
                "etag" => assert_eq!((found.len(), value.as_str().unwrap().len()), (18, 16)),
                "content-length" if method == "HEAD" => {
                    assert_eq!(found, known.body.len().to_string());
                }
                "content-length" => assert_eq!(found, answer.body.len().to_string()),
                _ => assert_eq!(Json::from(found), *value, "{name} of {case}"),
            }
        }
        if method == "HEAD" {
            continue;
        }
        let mut names: Vec<_> = answer.headers.iter().map(|(name, _)| name).collect();
        names.retain(|name| *name != "vary" && !expected.contains_key(*name));
        assert!(names.is_empty(), "{names:?} besides {case}");
    }
    assert_eq!(compared, 20);
}

/// WEB-1: what every resource class carries, refusals included.
#[tokio::test]
async fn web_1_every_page_carries_every_header() {
    let folder = web_root();
    let node = node_with(&folder.path().join("web"), PageSettings::default()).await;
    let main = [("host", "localhost:8000")];
    for (method, path, status) in [
        ("GET", "/", 200),
        ("HEAD", "/", 200),
        ("GET", "/secret/zowner/1", 200),
        ("GET", "/js/app.js", 200),
        ("GET", "/f.bin", 200),
        ("GET", "/nosuch", 404),
        ("POST", "/nosuch", 404),
        ("POST", "/js/app.js", 405),
        ("DELETE", "/", 405),
        ("GET", "/%zz", 404),
    ] {
        let answer = call(&node, method, path, &main).await;
        assert_eq!(answer.status, status, "{method} {path}");
        for (name, value) in PAGE_HEADERS {
            assert_eq!(
                answer.header(name),
                Some(value),
                "{name} of {method} {path}"
            );
        }
        let policy = answer.header("content-security-policy").unwrap();
        for part in [
            "default-src 'self' http://localhost:8000;",
            "script-src 'self' http://localhost:8000;",
            "frame-ancestors 'self' http://localhost:8000;",
            "object-src 'none';",
        ] {
            assert!(policy.contains(part), "{part} in {policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for absent in [
            "access-control-allow-origin",
            "set-cookie",
            "strict-transport-security",
        ] {
            assert_eq!(answer.header(absent), None, "{absent} of {method} {path}");
        }
        if status != 200 {
            assert!(answer.body.is_empty());
        }
    }
    let sandbox = call(
        &node,
        "GET",
        "/sandbox.html",
        &[("host", "abc.localhost:8000")],
    )
    .await;
    assert_eq!(sandbox.status, 200);
    assert_eq!(sandbox.header("x-frame-options"), None);
    assert_eq!(
        sandbox.header("cross-origin-resource-policy"),
        Some("cross-origin")
    );
    let policy = sandbox.header("content-security-policy").unwrap();
    assert!(policy.contains(";sandbox allow-same-origin allow-scripts allow-forms allow-modals;"));
    assert!(policy.contains("'unsafe-inline' https://abc.localhost:8000;"));
    assert!(!policy.contains("top-navigation"));
}

/// WEB-2: exactly the listed hosts, each with its own files and nothing of the others'.
#[tokio::test]
async fn web_2_hosts_are_told_apart_on_a_listener() {
    let folder = web_root();
    let node = node_with(&folder.path().join("web"), PageSettings::default()).await;
    let served = node.serve().await;
    let site = served.host();
    let port = served.address.port();
    let mut table: Vec<(String, &str, u16)> = Vec::new();
    for (host, path, status) in [
        (site.clone(), "/js/app.js", 200),
        (format!("127.0.0.1:{port}"), "/js/app.js", 200),
        (format!("[::1]:{port}"), "/js/app.js", 200),
        (site.clone(), "/apps/calendar/index.html", 200),
        (site.clone(), "/apps/sandbox/sandbox.html", 404),
        (site.clone(), "/apps%2fsandbox%2fsandbox.html", 404),
        (site.clone(), "//apps/sandbox/sandbox.html", 404),
        (format!("calendar.{site}"), "/apps/calendar/index.html", 200),
        (format!("CALENDAR.{site}"), "/apps/calendar/index.html", 200),
        (format!("calendar.{site}"), "/apps/notes/index.html", 404),
        (format!("calendar.{site}"), "/index.html", 404),
        (format!("calendar.{site}"), "/sandbox.html", 404),
        (format!("notes.{site}"), "/apps/notes/index.html", 404),
        (format!("notes.{site}"), "/sandbox.html", 200),
        (format!("x.{site}"), "/sandbox.html", 200),
        (format!("x.{}", site.to_uppercase()), "/sandbox.html", 200),
        (format!("x.{site}"), "/", 404),
        (format!("x.{site}"), "/js/app.js", 404),
        (format!("x.{site}"), "/api/v0/id", 404),
        (format!("x.{site}"), "/peergos/v0/admin/version", 404),
        (format!("x.{site}"), "/public/alice/x", 404),
        (format!("x.{site}"), "/%70ublic/alice/x", 404),
    ] {
        table.push((host, path, status));
    }
    for host in [
        format!("a.b.{site}"),
        format!(".{site}"),
        format!("x_y.{site}"),
        format!("evil{site}"),
        format!("{site}.evil.org"),
        format!("{site}."),
        format!("x.{site}."),
        site.to_uppercase(),
        "localhost".to_owned(),
        format!("localhost:{}", port ^ 1),
        format!("x.127.0.0.1:{port}"),
        format!("192.168.1.2:{port}"),
        format!("{}.{site}", "a".repeat(64)),
        "evil.example".to_owned(),
        String::new(),
    ] {
        for path in ["/", "/js/app.js", "/sandbox.html", "/public/alice/x"] {
            table.push((host.clone(), path, 404));
        }
    }
    for (host, path, status) in table {
        let line = format!("Host: {host}");
        let answer = served.request("GET", path, &[&line], b"").await;
        assert_eq!(answer.status, status, "{host} {path}");
        if status == 404 {
            assert!(answer.body.is_empty());
            assert!(answer.header("trailer").is_none());
        }
        let policy = answer.header("content-security-policy").unwrap();
        assert!(!policy.contains("evil"), "{policy}");
    }
    let two = format!("Host: {site}\r\nHost: {site}");
    assert_eq!(served.request("GET", "/", &[&two], b"").await.status, 404);
    served.stop().await;
}

async fn get(served: &Served, host: &str, path: &str) -> Answer {
    let host = format!("Host: {host}");
    served.request("GET", path, &[&host], b"").await
}

/// PRG-002: no path leads out of the folder, whatever its encoding and whatever the host.
#[tokio::test]
async fn prg_002_no_path_leaves_the_web_root() {
    let folder = web_root();
    let node = node_with(&folder.path().join("web"), PageSettings::default()).await;
    let served = node.serve().await;
    let site = served.host();
    for prefix in ["", "/apps/calendar", "/js"] {
        for path in [
            "/../../../../etc/passwd",
            "/../outside",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/%2e%2e/outside",
            "/..%2f..%2fetc/passwd",
            "/..%2foutside",
            "/%252e%252e/etc/passwd",
            "/..%5c..%5cx",
            "/..%5coutside",
            "//etc/passwd",
            "/%2fetc/passwd",
            "/./../x",
            "/./js/app.js",
            "/a/../../x",
            "/js/../js/app.js",
            "/%00/../etc/passwd",
            "/js/app.js%00",
            "/%c0%ae%c0%ae/etc/passwd",
            "/%c0%af",
            "/c:/x",
            "/C:%5Cx",
            "/js//",
            "/js/",
            "/js",
            "/link",
            "/link-folder/outside",
            "/link-folder/web/index.html",
            "/index.html/x",
            "/.git/config",
        ] {
            let path = format!("{prefix}{path}");
            for host in [
                site.clone(),
                format!("calendar.{site}"),
                format!("x.{site}"),
            ] {
                let answer = get(&served, &host, &path).await;
                assert_eq!(answer.status, 404, "{host} {path}");
                assert!(answer.body.is_empty(), "{host} {path}");
            }
        }
    }
    // No listing either.
    for path in ["/apps/calendar/", "/apps/calendar", "/images/"] {
        assert_eq!(get(&served, &site, path).await.status, 404, "{path}");
    }
    served.stop().await;
}

#[tokio::test]
async fn caching_and_compression_follow_the_request() {
    let folder = web_root();
    let web = folder.path().join("web");
    write(&web, "big.js", &"function a() {}\n".repeat(1000));
    let node = node_with(&web, PageSettings::default()).await;
    let served = node.serve().await;
    let get = async |path: &str, headers: &[&str]| served.request("GET", path, headers, b"").await;
    let plain = get("/big.js", &[]).await;
    assert_eq!(plain.body.len(), 16_000);
    assert_eq!(plain.header("content-encoding"), None);
    assert_eq!(plain.header("vary"), Some("Accept-Encoding"));
    assert_eq!(plain.header("cache-control"), Some("public, max-age=600"));
    let gzip = get("/big.js", &["Accept-Encoding: br, gzip"]).await;
    assert_eq!(gzip.header("content-encoding"), Some("gzip"));
    assert!(gzip.body.len() < 1000);
    assert_ne!(gzip.header("etag"), plain.header("etag"));
    let tag = plain.header("etag").unwrap();
    for line in [
        format!("If-None-Match: {tag}"),
        format!("If-None-Match: W/{tag}"),
        format!("If-None-Match: \"x\", {tag}"),
        "If-None-Match: *".to_owned(),
    ] {
        let answer = get("/big.js", &[&line]).await;
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{line}");
        assert_eq!(answer.header("etag"), Some(tag));
        for (name, value) in PAGE_HEADERS {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
    }
    // The tag of the other form does not count.
    let line = format!("If-None-Match: {tag}");
    let answer = get("/big.js", &["Accept-Encoding: gzip", &line]).await;
    assert_eq!(answer.status, 200);
    // The first page is never kept.
    for path in ["/", ""] {
        let target = format!("http://{}{path}", served.host());
        let answer = get(&target, &["If-None-Match: *"]).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("etag"), None);
        assert_eq!(answer.header("cache-control"), None);
        assert_eq!(answer.body, b"content of index.html");
    }
    let head = served
        .request("HEAD", "/big.js", &["Accept-Encoding: gzip"], b"")
        .await;
    assert_eq!(head.status, 200);
    assert!(head.body.is_empty());
    assert_eq!(
        head.header("content-length"),
        Some(gzip.body.len().to_string().as_str())
    );
    assert_eq!(head.header("etag"), gzip.header("etag"));
    served.stop().await;
}

/// The same page for every link, found or not: nobody learns from it whether a link exists.
#[tokio::test]
async fn the_page_of_secret_links_is_the_same_for_all() {
    let folder = web_root();
    let node = node_with(&folder.path().join("web"), PageSettings::default()).await;
    let served = node.serve().await;
    let site = served.host();
    let first = get(&served, &site, "/secret/zowner/1").await;
    assert_eq!(first.body, b"content of secret.html");
    for path in [
        "/secret/",
        "/secret/x",
        "/secret/zother/99999999999",
        "/secret/../../etc/passwd",
        "/secret/%0d%0aX-Evil:1",
    ] {
        let mut other = get(&served, &site, path).await;
        other.headers.retain(|(name, _)| name != "date");
        let mut same = first.clone();
        same.headers.retain(|(name, _)| name != "date");
        assert_eq!(other, same, "{path}");
    }
    served.stop().await;
}

#[tokio::test]
async fn without_a_web_application_the_first_page_says_what_this_is() {
    let node = TestNode::new().await;
    let served = node.serve().await;
    let answer = served.request("GET", "/", &[], b"").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/html"));
    assert!(String::from_utf8_lossy(&answer.body).contains(&served.host()));
    let head = served.request("HEAD", "/", &[], b"").await;
    assert_eq!(
        head.header("content-length"),
        Some(answer.body.len().to_string().as_str())
    );
    assert!(head.body.is_empty());
    for missing in [
        "/nosuch",
        "/index.htm",
        "/index.html",
        "/secret/z/1",
        "/../etc/passwd",
        "//api/v0/id",
        "/apps/sandbox/x",
    ] {
        let answer = served.request("GET", missing, &[], b"").await;
        assert_eq!(answer.status, 404, "{missing}");
    }
    let sandbox = get(&served, &format!("x.{}", served.host()), "/").await;
    assert_eq!(sandbox.status, 404);
    served.stop().await;
}

#[tokio::test]
async fn a_public_node_names_its_origin_with_https() {
    let folder = web_root();
    let node = TestNode::with(Config {
        web: Some(folder.path().join("web")),
        is_public: true,
        public_host: Some("example.org".to_owned()),
        ..config()
    })
    .await;
    let served = node.serve().await;
    let answer = get(&served, "example.org", "/").await;
    let policy = answer.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'self' https://example.org;"));
    assert!(policy.contains(" https://*.example.org;"));
    // The proxy in front ends TLS, so the header is the proxy's.
    assert_eq!(answer.header("strict-transport-security"), None);
    let sandbox = get(&served, "X.Example.Org", "/sandbox.html").await;
    assert_eq!(sandbox.status, 200);
    let policy = sandbox.header("content-security-policy").unwrap();
    assert!(policy.contains("https://x.example.org;"), "{policy}");
    served.stop().await;
}

/// WEB-5 for pages: nothing but GET and HEAD is ever answered with content.
#[tokio::test]
async fn web_5_pages_are_only_read() {
    let folder = web_root();
    let node = node_with(&folder.path().join("web"), PageSettings::default()).await;
    let served = node.serve().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"] {
        for path in ["/", "/js/app.js", "/secret/z/1", "/public/alice/x"] {
            let answer = served.request(method, path, &[], b"").await;
            assert_eq!(
                (answer.status, answer.body.len()),
                (405, 0),
                "{method} {path}"
            );
        }
    }
    served.stop().await;
}

#[tokio::test]
async fn a_web_folder_that_is_not_there_keeps_the_node_from_starting() {
    let missing = Config {
        web: Some("/nonexistent/web".into()),
        ..config()
    };
    let error = node::Node::open(missing).await.unwrap_err();
    assert!(matches!(error, node::OpenError::Web(_)));
}
