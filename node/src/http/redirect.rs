//! The plain listener beside a TLS listener: sends browsers to the other one (Spec: 13 §4, 40 WEB-10).
//!
//! The place to go to is made of what the operator configured and, at most, of a path of harmless characters. What
//! a certificate authority asks for is answered, everything else is a redirection.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use super::{Reply, finish};
use crate::tls::{Challenges, is_token};

/// Longest path that is kept.
const MAX_PATH_BYTES: usize = 2048;
/// RFC 8555 §8.3.
const CHALLENGE_PATH: &str = "/.well-known/acme-challenge/";

/// Answers a request for this path.
pub(super) fn answer(
    site: &str,
    path: &str,
    challenges: Option<&Challenges>,
) -> Response<Full<Bytes>> {
    let token = path
        .strip_prefix(CHALLENGE_PATH)
        .filter(|token| is_token(token));
    let answer = token.and_then(|token| challenges?.answer(token));
    let mut response = match answer {
        Some(answer) => Reply::bytes(answer).into_response(),
        None => redirection(site, path),
    };
    finish(&mut response);
    response
}

fn redirection(site: &str, path: &str) -> Response<Full<Bytes>> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte);
    let is_kept = path.len() <= MAX_PATH_BYTES
        && path.starts_with('/')
        && !path.starts_with("//")
        && path.bytes().all(is_plain);
    let place = format!("https://{site}{}", if is_kept { path } else { "/" });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if let Ok(place) = HeaderValue::from_str(&place) {
        headers.insert(header::LOCATION, place);
    }
    response
}

/// Returns the host and port of a TLS listener, the port always written.
pub(crate) fn secure_site(site: &str, port: u16) -> String {
    let has_port = site.rsplit_once(':').is_some_and(|(_, port)| {
        !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
    });
    if has_port {
        site.to_owned()
    } else {
        format!("{site}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str) -> String {
        let response = answer("example.org:443", path, None);
        assert_eq!(response.status(), 301);
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        response.headers()["location"].to_str().unwrap().to_owned()
    }

    #[test]
    fn web_10_the_redirection_stays_on_our_host() {
        assert_eq!(place("/"), "https://example.org:443/");
        assert_eq!(
            place("/secret/zabc/123"),
            "https://example.org:443/secret/zabc/123"
        );
        for odd in [
            "//evil.com/",
            "/a\r\nX: y",
            "/@evil.com",
            "*",
            "",
            "evil.com",
            "/a\\b",
            "/<script>",
        ] {
            assert_eq!(place(odd), "https://example.org:443/", "{odd:?}");
        }
        assert_eq!(
            place(&format!("/{}", "a".repeat(3000))),
            "https://example.org:443/"
        );
    }

    #[test]
    fn the_port_is_always_written() {
        assert_eq!(secure_site("example.org", 443), "example.org:443");
        assert_eq!(secure_site("example.org:8443", 443), "example.org:8443");
        assert_eq!(secure_site("[::1]:8443", 443), "[::1]:8443");
    }
}
