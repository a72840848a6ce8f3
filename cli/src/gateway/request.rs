//! From a request to an owner and a path (Spec: 13 §9.1 steps 1 and 2).

use http::{HeaderMap, Uri, header};
use pki::{username::Username, wire::query::percent_decode};

/// Longest path that is looked at.
const MAX_PATH_BYTES: usize = 2048;
/// Most names of a path.
const MAX_NAMES: usize = 64;

/// What the host names of all sites end with: a dot, a domain, and a port if it is not a default one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainSuffix(String);

/// Text that is no domain suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a domain suffix is a dot, a domain and an optional port, for example .sites.example.org")]
pub struct InvalidSuffix;

impl std::str::FromStr for DomainSuffix {
    type Err = InvalidSuffix;

    fn from_str(text: &str) -> Result<Self, InvalidSuffix> {
        let host = text.strip_prefix('.').ok_or(InvalidSuffix)?;
        let (domain, port) = match host.split_once(':') {
            Some((domain, port)) => (domain, Some(port)),
            None => (host, None),
        };
        let is_label = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
        if domain.split('.').all(is_label) && is_port {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(InvalidSuffix)
        }
    }
}

impl std::fmt::Display for DomainSuffix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl DomainSuffix {
    /// Returns true when sites would share a domain with `host`, whose pages handle keys.
    pub fn overlaps(&self, host: &str) -> bool {
        let name = |host: &str| {
            let host = host.to_ascii_lowercase();
            host.rsplit_once(':')
                .map_or(host.clone(), |(name, _)| name.to_owned())
        };
        let (ours, theirs) = (name(self.0.trim_start_matches('.')), name(host));
        ours == theirs
            || ours.ends_with(&format!(".{theirs}"))
            || theirs.ends_with(&format!(".{ours}"))
    }

    /// Returns whose site a request is for: exactly one label before the suffix, and a user name.
    pub(super) fn owner(&self, headers: &HeaderMap, uri: &Uri) -> Option<Username> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return None;
        };
        let host = host.to_str().ok()?;
        if uri
            .authority()
            .is_some_and(|target| target.as_str() != host)
        {
            return None;
        }
        let at = host.len().checked_sub(self.0.len())?;
        let (owner, suffix) = host.split_at_checked(at)?;
        if !suffix.eq_ignore_ascii_case(&self.0) {
            return None;
        }
        // No other character was ever in a name that a browser can send as a label.
        let is_label = owner
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'));
        Username::parse(owner).ok().filter(|_| is_label)
    }
}

/// Returns the names on the way from the web root; none at all is the web root itself.
///
/// `None` for what no path may hold: `.`, `..`, empty names, backslashes, control characters, drive letters.
pub(super) fn names(uri: &Uri) -> Option<Vec<String>> {
    let path = uri.path();
    if path.len() > MAX_PATH_BYTES {
        return None;
    }
    let path = percent_decode(path)?;
    let path = path.strip_prefix('/').unwrap_or(&path).replace("//", "/");
    let path = path.strip_suffix('/').unwrap_or(&path);
    if path.is_empty() {
        return Some(Vec::new());
    }
    let names: Vec<String> = path.split('/').map(str::to_owned).collect();
    let is_name = |name: &String| {
        !matches!(name.as_str(), "" | "." | "..")
            && !name.contains('\\')
            && !name.contains(char::is_control)
            && name.as_bytes().get(1) != Some(&b':')
    };
    (names.len() <= MAX_NAMES && names.iter().all(is_name)).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(suffix: &str, hosts: &[&str]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(header::HOST, host.parse().unwrap());
        }
        let suffix: DomainSuffix = suffix.parse().unwrap();
        suffix
            .owner(&headers, &Uri::from_static("/"))
            .map(|name| name.to_string())
    }

    #[test]
    fn the_owner_is_exactly_one_label() {
        let suffix = ".peergos.localhost:9000";
        for (host, expected) in [
            ("alice.peergos.localhost:9000", Some("alice")),
            ("a_b.Peergos.Localhost:9000", Some("a_b")),
            ("a-1.peergos.localhost:9000", Some("a-1")),
            ("peergos.localhost:9000", None),
            (".peergos.localhost:9000", None),
            ("a.b.peergos.localhost:9000", None),
            ("alice.peergos.localhost", None),
            ("alice.peergos.localhost:9001", None),
            ("alicepeergos.localhost:9000", None),
            ("alice.peergos.localhost:9000.evil.org", None),
            ("Alice.peergos.localhost:9000", None),
            ("al/ice.peergos.localhost:9000", None),
            ("al%2eice.peergos.localhost:9000", None),
            ("", None),
        ] {
            assert_eq!(owner(suffix, &[host]).as_deref(), expected, "{host}");
        }
        let good = "alice.peergos.localhost:9000";
        assert_eq!(owner(suffix, &[]), None);
        assert_eq!(owner(suffix, &[good, good]), None);
        let long = format!("{}.peergos.localhost:9000", "a".repeat(65));
        assert_eq!(owner(suffix, &[&long]), None);
    }

    #[test]
    fn a_suffix_is_a_dot_and_a_domain() {
        for good in [".a", ".a.b:9000", ".peergos.me"] {
            assert!(good.parse::<DomainSuffix>().is_ok(), "{good}");
        }
        for bad in [
            "", ".", "a", ".a:", ".a:x", "..a", ".a.", ".a/b", ".a b", ".a\r\n",
        ] {
            assert!(bad.parse::<DomainSuffix>().is_err(), "{bad}");
        }
        let suffix: DomainSuffix = ".sites.example.org:9000".parse().unwrap();
        for bad in [
            "sites.example.org",
            "example.org:443",
            "a.sites.example.org",
            "ORG",
        ] {
            assert!(suffix.overlaps(bad), "{bad}");
        }
        for good in ["example.net", "site.example.org", "127.0.0.1:8000"] {
            assert!(!suffix.overlaps(good), "{good}");
        }
    }

    #[test]
    fn paths_are_names_and_nothing_else() {
        let names = |path: &str| names(&path.parse().unwrap());
        assert_eq!(names("/"), Some(vec![]));
        assert_eq!(names("/a%20b//c/"), Some(vec!["a b".into(), "c".into()]));
        for bad in [
            "/..",
            "/%2e%2e/x",
            "/a/../b",
            "/a/./b",
            "/a%2f..%2fb",
            "/a%5cb",
            "/a%00",
            "/a%0d%0a",
            "/C:/x",
            "/a///b",
            "/%c0%ae",
            "/%zz",
        ] {
            assert_eq!(names(bad), None, "{bad}");
        }
        assert_eq!(names(&"/a".repeat(MAX_NAMES + 1)), None);
    }
}
