//! One log line per request, off unless asked for (Spec: 05 security check 8, 13 security check 6, 40 PRV-6).
//!
//! Target `access`, level `debug`; the address of the client only at level `trace`. A line never holds the query,
//! a header or a body: they carry tokens and signatures. Of the path it holds what the node itself has a name for:
//! owner and label of a secret link, the path of a public file and whatever follows a call's name are left out.

use std::{borrow::Cow, net::IpAddr, time::Duration};

use http::{Method, StatusCode};
use pki::wire::{
    call::{Call, Target},
    query::percent_decode,
};

/// Longest path that is written.
const MAX_PATH_BYTES: usize = 64;

/// One answered request.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) method: &'a Method,
    pub(super) path: &'a str,
    pub(super) client: Option<IpAddr>,
    pub(super) status: StatusCode,
    pub(super) bytes: u64,
    pub(super) time: Duration,
}

impl Line<'_> {
    /// Writes the line.
    pub(super) fn write(&self) {
        if !tracing::enabled!(target: "access", tracing::Level::DEBUG) {
            return;
        }
        let method = known_method(self.method);
        let path = shown(self.path);
        let status = self.status.as_u16();
        let micros = u64::try_from(self.time.as_micros()).unwrap_or(u64::MAX);
        if tracing::enabled!(target: "access", tracing::Level::TRACE) {
            let client = self.client.map(tracing::field::display);
            tracing::trace!(target: "access", client, method, %path, status, bytes = self.bytes, micros);
        } else {
            tracing::debug!(target: "access", method, %path, status, bytes = self.bytes, micros);
        }
    }
}

/// A method is free text.
fn known_method(method: &Method) -> &str {
    match *method {
        Method::GET
        | Method::POST
        | Method::HEAD
        | Method::PUT
        | Method::DELETE
        | Method::OPTIONS => method.as_str(),
        _ => "other",
    }
}

/// Returns the part of a path that may be written down.
fn shown(path: &str) -> Cow<'_, str> {
    if let Some(decoded) = percent_decode(path)
        && let Target::Call(call, _) = Call::at_path(&decoded)
    {
        return Cow::Owned(format!("/{}", call.path()));
    }
    for hidden in ["/secret/", "/public/", "/peergos/v0/", "/api/v0/"] {
        if path.starts_with(hidden) {
            return Cow::Owned(format!("{hidden}?"));
        }
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/.-_".contains(&byte);
    let is_file = path.len() <= MAX_PATH_BYTES && path.bytes().all(is_plain);
    Cow::Borrowed(if is_file { path } else { "?" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prv_6_paths_are_cut_where_they_could_tell_something() {
        for (path, expected) in [
            ("/api/v0/block/get", "/api/v0/block/get"),
            (
                "/peergos/v0/core/getUsernamesGzip/alice",
                "/peergos/v0/core/getUsernamesGzip",
            ),
            ("/peergos/v0/login/canary%20canary", "/peergos/v0/?"),
            ("/api/v0/zQ12345", "/api/v0/?"),
            ("/api/v0/%69d", "/api/v0/id"),
            ("/secret/z59vuw/123456", "/secret/?"),
            ("/public/alice/diary", "/public/?"),
            ("/", "/"),
            ("/js/app.js", "/js/app.js"),
            ("/%0d%0aX", "?"),
            ("/a\u{1b}[2J", "?"),
        ] {
            assert_eq!(shown(path), expected);
        }
        assert_eq!(shown(&"/a".repeat(100)), "?");
    }
}
