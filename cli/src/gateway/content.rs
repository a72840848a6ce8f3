//! Types and policies of what owners write: checked before they become headers (Spec: 13 §9.1 step 5, §9.2).

use http::HeaderValue;

/// Files below this are kept in memory whole.
pub(super) const SMALL_FILE_BYTES: u64 = 200 << 10;
/// Longest `headers.json`.
pub(super) const MAX_POLICY_BYTES: u64 = 1024;
/// The policy of a site that has none of its own.
const DEFAULT_POLICY: HeaderValue = HeaderValue::from_static("default-src 'self'");
/// Begin of a page without an extension.
const PAGE_START: &[u8] = b"<!DOCTYPE html>";

/// How a file is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContentType {
    pub(super) value: HeaderValue,
    /// Browsers save it instead of showing it.
    pub(super) is_attachment: bool,
}

impl ContentType {
    /// Chooses by the file's name, else by what a small file begins with, else by what its owner says.
    pub(super) fn of(name: &str, claimed: &str, small: Option<&[u8]>) -> Self {
        let by_name = name
            .rsplit_once('.')
            .and_then(|(_, ending)| type_of_ending(ending));
        if let Some(known) = by_name {
            return Self::shown(known);
        }
        if small.is_some_and(|body| body.len() > 15 && body.starts_with(PAGE_START)) {
            return Self::shown("text/html");
        }
        let value = is_media_type(claimed)
            .then(|| HeaderValue::from_str(claimed).ok())
            .flatten()
            .unwrap_or(HeaderValue::from_static("application/octet-stream"));
        Self {
            is_attachment: !is_shown(value.to_str().unwrap_or_default()),
            value,
        }
    }

    const fn shown(value: &'static str) -> Self {
        Self {
            value: HeaderValue::from_static(value),
            is_attachment: false,
        }
    }

    /// Returns the type of a page.
    pub(super) const fn page() -> Self {
        Self::shown("text/html")
    }
}

fn type_of_ending(ending: &str) -> Option<&'static str> {
    Some(match ending {
        "js" => "text/javascript",
        "html" => "text/html",
        "css" => "text/css",
        "json" => "application/json",
        "png" => "image/png",
        "woff" => "application/font-woff",
        "svg" => "image/svg+xml",
        "wasm" => "application/wasm",
        "xml" => "application/xml",
        _ => return None,
    })
}

/// Returns true for `type/subtype` of token characters.
fn is_media_type(text: &str) -> bool {
    let is_token = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    text.len() <= 127
        && text
            .split_once('/')
            .is_some_and(|(kind, sub)| is_token(kind) && is_token(sub))
}

fn is_shown(kind: &str) -> bool {
    const FAMILIES: [&str; 5] = ["image/", "audio/", "video/", "font/", "text/"];
    const SINGLE: [&str; 5] = [
        "application/json",
        "application/font-woff",
        "application/wasm",
        "application/xml",
        "application/pdf",
    ];
    let kind = kind.to_ascii_lowercase();
    FAMILIES.iter().any(|family| kind.starts_with(family)) || SINGLE.contains(&kind.as_str())
}

/// Returns the policy in `headers.json`, or the default one when there is none that can be a header.
pub(super) fn policy(headers_json: Option<&[u8]>) -> HeaderValue {
    headers_json
        .filter(|json| json.len() as u64 <= MAX_POLICY_BYTES)
        .and_then(|json| serde_json::from_slice::<serde_json::Value>(json).ok())
        .and_then(|json| {
            let policy = json.get("content-security-policy")?.as_str()?;
            let is_plain = policy.bytes().all(|b| matches!(b, b' '..=b'~'));
            is_plain.then(|| HeaderValue::from_str(policy).ok())?
        })
        .unwrap_or(DEFAULT_POLICY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn web_9_only_safe_types_are_shown() {
        for (name, claimed, small, expected, attachment) in [
            ("a.js", "text/html", None, "text/javascript", false),
            ("a.svg", "", None, "image/svg+xml", false),
            ("a.xml", "", None, "application/xml", false),
            ("a.mjs", "text/javascript", None, "text/javascript", false),
            ("page", "x/y", Some("<!DOCTYPE html>x"), "text/html", false),
            ("page", "x/y", Some("<!DOCTYPE html>"), "x/y", true),
            ("page", "x/y", Some("<!doctype html>x"), "x/y", true),
            ("a.pdf", "application/pdf", None, "application/pdf", false),
            ("a", "video/mp4", None, "video/mp4", false),
            ("a", "application/zip", None, "application/zip", true),
            ("a", "", None, "application/octet-stream", true),
            ("a", "text", None, "application/octet-stream", true),
            (
                "a",
                "text/html; x=y",
                None,
                "application/octet-stream",
                true,
            ),
            ("a", "text/a/b", None, "application/octet-stream", true),
            (
                "a",
                "text/h\r\nX: y",
                None,
                "application/octet-stream",
                true,
            ),
        ] {
            let found = ContentType::of(name, claimed, small.map(str::as_bytes));
            assert_eq!(found.value, expected, "{name} {claimed}");
            assert_eq!(found.is_attachment, attachment, "{name} {claimed}");
        }
        let long = format!("text/{}", "a".repeat(200));
        assert_eq!(
            ContentType::of("a", &long, None).value,
            "application/octet-stream"
        );
    }

    #[test]
    fn a_policy_that_cannot_be_a_header_is_the_default_one() {
        let json = |policy: &str| format!(r#"{{"other":1,"content-security-policy":{policy}}}"#);
        let own = json(r#""default-src 'none'""#);
        assert_eq!(policy(Some(own.as_bytes())), "default-src 'none'");
        let long = json(&format!("\"{}\"", "a".repeat(1024)));
        for bad in [
            json(r#""a\r\nX-Evil: 1""#),
            json(r#""a\u0000""#),
            json(r#""\u00e4""#),
            json("1"),
            json("null"),
            long,
            "{}".to_owned(),
            "[]".to_owned(),
            "{".to_owned(),
            String::new(),
        ] {
            assert_eq!(policy(Some(bad.as_bytes())), DEFAULT_POLICY, "{bad}");
        }
        assert_eq!(policy(None), DEFAULT_POLICY);
    }
}
