//! What an operator may say about the pages: built-in apps and additions to the content policy (Spec: 13 §2, §5).
//!
//! Everything here gets into a response header, so it is checked when it is read, and nothing in it ever comes
//! from a user, a peer or a reply of the block store.

use std::{collections::BTreeSet, fmt, str::FromStr};

use data_encoding::BASE64;

use super::Label;

/// Apps that have a host of their own unless the operator says otherwise.
const DEFAULT_APPS: [&str; 5] = ["markup-viewer", "email", "calendar", "code-editor", "pdf"];
/// Longest host name with its port.
const MAX_SOURCE_BYTES: usize = 261;

/// Settings of the pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageSettings {
    /// Apps of the web application that are served on `<app>.<site host>`.
    pub apps: BTreeSet<Label>,
    /// Inline scripts that sandbox pages may run; they belong to one version of the web application.
    pub inline_scripts: Vec<ScriptHash>,
    /// Sites whose payment pages may be framed.
    pub frame_sources: Vec<FrameSource>,
    /// Hosts from which browsers read blocks, or to which they write them, without the node between.
    pub block_hosts: Vec<BlockHost>,
}

impl Default for PageSettings {
    fn default() -> Self {
        Self {
            apps: DEFAULT_APPS
                .iter()
                .filter_map(|app| app.parse().ok())
                .collect(),
            inline_scripts: Vec::new(),
            frame_sources: Vec::new(),
            block_hosts: Vec::new(),
        }
    }
}

/// SHA-256 of an inline script, as it stands in a content policy: base64 of 32 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptHash(String);

/// A site that may be framed: `pay.example`, `*.pay.example`, `https://pay.example:8443`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameSource(String);

/// A host with an optional port: `bucket.s3.example`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockHost(String);

/// A setting that must not get into a content policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSource {
    /// Not base64 of 32 bytes.
    #[error("not the base64 text of a sha-256 hash")]
    ScriptHash,
    /// Not a host name with an optional port.
    #[error("not a host name with an optional port")]
    Host,
}

impl FromStr for ScriptHash {
    type Err = InvalidSource;

    /// Accepts the bare hash and the form of a policy, `sha256-...`.
    fn from_str(text: &str) -> Result<Self, InvalidSource> {
        let text = text.strip_prefix("sha256-").unwrap_or(text);
        match BASE64.decode(text.as_bytes()) {
            Ok(hash) if hash.len() == 32 => Ok(Self(text.to_owned())),
            _ => Err(InvalidSource::ScriptHash),
        }
    }
}

impl FromStr for FrameSource {
    type Err = InvalidSource;

    fn from_str(text: &str) -> Result<Self, InvalidSource> {
        let host = text.strip_prefix("https://").unwrap_or(text);
        check_host(host.strip_prefix("*.").unwrap_or(host))?;
        Ok(Self(text.to_owned()))
    }
}

impl FromStr for BlockHost {
    type Err = InvalidSource;

    fn from_str(text: &str) -> Result<Self, InvalidSource> {
        check_host(text)?;
        Ok(Self(text.to_owned()))
    }
}

fn check_host(text: &str) -> Result<(), InvalidSource> {
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let is_name = !name.is_empty()
        && text.len() <= MAX_SOURCE_BYTES
        && name.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        });
    let is_port = port.is_none_or(|port| {
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if is_name && is_port {
        Ok(())
    } else {
        Err(InvalidSource::Host)
    }
}

macro_rules! shown {
    ($($kind:ty),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

shown!(ScriptHash, FrameSource, BlockHost);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_could_end_a_directive_is_a_source() {
        for bad in [
            "",
            "a b",
            "a;script-src *",
            "a,b",
            "'self'",
            "a\r\nX: y",
            "a/path",
            "http://a",
            "https://",
            "a..b",
            ".a",
            "*",
            "a:",
            "a:0",
            "a:70000",
            "a:+80",
            "\u{e4}.example",
        ] {
            assert!(bad.parse::<BlockHost>().is_err(), "{bad}");
            assert!(bad.parse::<FrameSource>().is_err(), "{bad}");
        }
        assert!("*.a".parse::<BlockHost>().is_err());
        for good in ["pay.example", "*.pay.example", "https://pay.example:8443"] {
            assert_eq!(good.parse::<FrameSource>().unwrap().to_string(), good);
        }
        assert!("localhost:9000".parse::<BlockHost>().is_ok());
    }

    #[test]
    fn script_hashes_are_base64_of_32_bytes() {
        let hash = BASE64.encode(&[7; 32]);
        assert_eq!(hash.parse::<ScriptHash>().unwrap().to_string(), hash);
        let long = format!("sha256-{hash}");
        assert_eq!(long.parse::<ScriptHash>().unwrap().to_string(), hash);
        for bad in ["", "sha256-", &hash[1..], &BASE64.encode(&[7; 31]), "'"] {
            assert!(bad.parse::<ScriptHash>().is_err(), "{bad}");
        }
    }

    #[test]
    fn five_apps_are_built_in() {
        assert_eq!(PageSettings::default().apps.len(), DEFAULT_APPS.len());
    }
}
