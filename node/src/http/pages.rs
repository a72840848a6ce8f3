//! Pages: a web application's files, or a few words about what this is (Spec: 13 §2 to §5, 05 §9.1).

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::Full;
use sha2::{Digest as _, Sha256};

use super::{Hosts, Reach};
use crate::error::Refusal;

/// Longest file that is served.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// What `/` answers when no web application is configured.
const WELCOME: &str = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>Kastro</title>\n</head>\n<body>\n<h1>Kastro</h1>\n<p>This is a storage node. It keeps encrypted files for its users and cannot read them.</p>\n<p>Use it with the <code>kastro</code> command or any client that speaks the same protocol:</p>\n<pre>kastro --server http://SITE signup NAME</pre>\n</body>\n</html>\n";

/// The pages of a node.
#[derive(Debug)]
pub(crate) struct Pages {
    /// Canonical path of the folder.
    root: Option<PathBuf>,
}

impl Pages {
    /// Serves `root`, or the built-in page.
    pub(crate) fn new(root: Option<&Path>) -> std::io::Result<Self> {
        Ok(Self {
            root: root.map(Path::canonicalize).transpose()?,
        })
    }

    /// Answers a request for anything that is not an API path.
    pub(super) fn answer(
        &self,
        parts: &http::request::Parts,
        path: &str,
        hosts: &Hosts,
        reach: Reach,
        is_public: bool,
    ) -> Result<Response<Full<Bytes>>, Refusal> {
        let is_sandbox = reach == Reach::Sandbox;
        let (file, body) = self.find(path, hosts, is_sandbox)?;
        // After the look-up: what does not exist is 404 for every method.
        if parts.method != Method::GET && parts.method != Method::HEAD {
            return Err(Refusal::Method);
        }
        let tag = format!(
            "\"{}\"",
            champ::text::to_hex(Sha256::digest(&body).get(..8).unwrap_or_default())
        );
        let has_tag = !matches!(path, "" | "/");
        let is_known = has_tag
            && parts
                .headers
                .get_all(header::IF_NONE_MATCH)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .any(|value| names_tag(value, &tag));
        let mut response = Response::new(Full::new(Bytes::new()));
        let headers = response.headers_mut();
        page_headers(headers, hosts.site(), is_public, is_sandbox);
        if has_tag {
            headers.insert(
                header::CACHE_CONTROL,
                HeaderValue::from_static("public, max-age=600"),
            );
            if let Ok(tag) = HeaderValue::from_str(&tag) {
                headers.insert(header::ETAG, tag);
            }
        }
        if let Some(kind) = content_type(&file) {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        } else {
            // For HEAD the HTTP library sends the length and leaves the body out.
            *response.body_mut() = Full::new(body);
        }
        Ok(response)
    }

    fn find(
        &self,
        path: &str,
        hosts: &Hosts,
        is_sandbox: bool,
    ) -> Result<(String, Bytes), Refusal> {
        let mut wanted = path.strip_prefix('/').unwrap_or(path).replace("//", "/");
        if wanted.is_empty() {
            wanted.push_str("index.html");
        }
        if wanted.starts_with("secret/") {
            wanted = "secret.html".to_owned();
        }
        if is_sandbox {
            wanted.insert_str(0, "apps/sandbox/");
        } else if wanted.starts_with("apps/sandbox/") {
            return Err(Refusal::NotFound);
        }
        let Some(root) = &self.root else {
            return match wanted.as_str() {
                "index.html" if path.trim_start_matches('/').is_empty() => {
                    Ok((wanted, Bytes::from(WELCOME.replace("SITE", hosts.site()))))
                }
                _ => Err(Refusal::NotFound),
            };
        };
        let body = read_below(root, &wanted).ok_or(Refusal::NotFound)?;
        Ok((wanted, body))
    }
}

/// Reads a plain file below `root`; `None` for everything else, links that lead out of it included.
fn read_below(root: &Path, wanted: &str) -> Option<Bytes> {
    if wanted.contains(['\\', '\0', ':']) {
        return None;
    }
    let relative = Path::new(wanted);
    if !relative
        .components()
        .all(|part| matches!(part, Component::Normal(_)))
    {
        return None;
    }
    let full = root.join(relative).canonicalize().ok()?;
    let about = fs::metadata(&full).ok()?;
    if !full.starts_with(root) || !about.is_file() || about.len() > MAX_FILE_BYTES {
        return None;
    }
    fs::read(full).ok().map(Bytes::from)
}

fn names_tag(value: &str, tag: &str) -> bool {
    value.split(',').map(str::trim).any(|candidate| {
        candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == tag
    })
}

fn content_type(file: &str) -> Option<&'static str> {
    Some(match file.rsplit_once('.')?.1 {
        "js" | "mjs" => "text/javascript",
        "html" => "text/html",
        "css" => "text/css",
        "json" => "application/json",
        "png" => "image/png",
        "woff" => "application/font-woff",
        "svg" => "image/svg+xml",
        "wasm" => "application/wasm",
        _ => return None,
    })
}

/// Adds the headers of every page (Spec: 13 §4).
fn page_headers(headers: &mut HeaderMap, site: &str, is_public: bool, is_sandbox: bool) {
    let fixed = [
        ("cross-origin-embedder-policy", "require-corp"),
        (
            "cross-origin-resource-policy",
            if is_sandbox {
                "cross-origin"
            } else {
                "same-origin"
            },
        ),
        ("cross-origin-opener-policy", "same-origin"),
        ("origin-agent-cluster", "?1"),
        ("x-xss-protection", "1; mode=block"),
        ("x-dns-prefetch-control", "off"),
        ("referrer-policy", "no-referrer"),
        (
            "permissions-policy",
            "interest-cohort=(), geolocation=(), gyroscope=(), magnetometer=(), accelerometer=(), microphone=(), camera=(self), fullscreen=(self)",
        ),
    ];
    for (name, value) in fixed {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    if !is_sandbox {
        headers.insert(
            HeaderName::from_static("x-frame-options"),
            HeaderValue::from_static("sameorigin"),
        );
    }
    let policy = content_security_policy(site, is_public, is_sandbox);
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
}

/// Returns the policy of Spec: 13 §5, without payment pages and direct block stores.
fn content_security_policy(site: &str, is_public: bool, is_sandbox: bool) -> String {
    let scheme = if is_public { "https:" } else { "http:" };
    let origin = format!("{scheme}//{site}");
    let style = if is_sandbox { " 'unsafe-inline'" } else { "" };
    let sandbox = if is_sandbox {
        "sandbox allow-same-origin allow-scripts allow-forms allow-modals;"
    } else {
        ""
    };
    let frames = if is_sandbox {
        "frame-src 'self';".to_owned()
    } else {
        format!("frame-src 'self' {scheme}//*.{site};")
    };
    format!(
        "default-src 'self' {origin};script-src 'self' {origin};style-src 'self' {origin}{style};{sandbox}{frames}\
         frame-ancestors 'self' {origin};connect-src 'self' {origin} peergos-drop:;media-src 'self' {origin} blob:;\
         img-src 'self' {origin} data: blob:;object-src 'none';"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_files_below_the_folder_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("web");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("sub/a.js"), b"1").unwrap();
        fs::write(folder.path().join("secret"), b"2").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path().join("secret"), root.join("link")).unwrap();
        let root = root.canonicalize().unwrap();
        assert!(read_below(&root, "sub/a.js").is_some());
        for bad in [
            "../secret",
            "sub/../../secret",
            "sub",
            "link",
            "a\\b",
            "/etc/passwd",
            "./sub/a.js",
            "c:x",
        ] {
            assert!(read_below(&root, bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn tags_are_compared_as_lists() {
        assert!(names_tag("\"a\", W/\"b\"", "\"b\""));
        assert!(names_tag("*", "\"b\""));
        assert!(!names_tag("b", "\"b\""));
    }
}
