//! Who this server is to browsers and authenticators (Spec: 08 §4.4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use sha2::{Digest as _, Sha256};

/// Longest host name that is accepted, in bytes (RFC 1035).
const MAX_HOST_BYTES: usize = 253;

/// A server as authenticators know it: a host name, and the origin of the pages that may ask them.
///
/// Keys are bound to it: they stay with the site they were made for and do not answer another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelyingParty {
    id: String,
    id_hash: [u8; 32],
    origin: Origin,
}

/// A public host that is not `host` or `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("public host {0:?} is not a host name with an optional port")]
pub struct InvalidHost(String);

impl RelyingParty {
    /// Derives the server's identity: the public host (with its port unless that is the default one), or
    /// `localhost` with the port of the listener.
    ///
    /// Pages come over https from a public host, over http from the machine itself and from private addresses.
    ///
    /// # Errors
    /// [`InvalidHost`] for anything else than a host name or address with an optional port.
    pub fn new(public_host: Option<&str>, listen_port: u16) -> Result<Self, InvalidHost> {
        let origin = match public_host {
            None => Origin::new(Scheme::Http, "localhost".to_owned(), Some(listen_port)),
            Some(text) => {
                let (host, port) = parse_host(text)
                    .ok_or_else(|| InvalidHost(text.chars().take(300).collect()))?;
                let scheme = if is_private(&host) {
                    Scheme::Http
                } else {
                    Scheme::Https
                };
                Origin::new(scheme, host, port)
            }
        };
        let id = origin.host.clone();
        Ok(Self {
            id_hash: Sha256::digest(&id).into(),
            id,
            origin,
        })
    }

    /// Returns the host name that keys are bound to.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the digest of the id, which authenticators sign.
    pub(super) const fn id_hash(&self) -> &[u8; 32] {
        &self.id_hash
    }

    /// Returns true for the origin of this server: scheme, host and port are equal, a default port is none.
    pub fn is_origin(&self, text: &str) -> bool {
        Origin::parse(text).is_some_and(|origin| origin == self.origin)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
}

/// Scheme, host and port of a page; nothing that is not a web page has one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: Scheme,
    /// Lower case.
    host: String,
    /// `None` for the scheme's default.
    port: Option<u16>,
}

impl Origin {
    fn new(scheme: Scheme, host: String, port: Option<u16>) -> Self {
        let default = match scheme {
            Scheme::Http => 80,
            Scheme::Https => 443,
        };
        Self {
            scheme,
            host,
            port: port.filter(|port| *port != default),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let (host, port) = parse_host(authority)?;
        Some(Self::new(scheme, host, port))
    }
}

/// Reads `host`, `host:port`, `[v6]` or `[v6]:port`; the host is returned in lower case.
fn parse_host(text: &str) -> Option<(String, Option<u16>)> {
    let (host, rest) = match text.find(']') {
        Some(end) => text.split_at_checked(end + 1)?,
        None => text.split_at_checked(text.find(':').unwrap_or(text.len()))?,
    };
    let is_host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => (1..=MAX_HOST_BYTES).contains(&host.len()) && host.bytes().all(is_name_byte),
    };
    let port = match rest.strip_prefix(':') {
        // `parse` alone would take a sign.
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => Some(digits.parse().ok()?),
        Some(_) => return None,
        None if rest.is_empty() => None,
        None => return None,
    };
    is_host.then(|| (host.to_ascii_lowercase(), port))
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_')
}

/// Returns true for hosts to which no certificate belongs: this machine and addresses of a private network.
fn is_private(host: &str) -> bool {
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    match address.parse() {
        Ok(IpAddr::V4(v4)) => is_private_v4(v4),
        Ok(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(v4) => is_private_v4(v4),
            None => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
        },
        Err(_) => host == "localhost",
    }
}

const fn is_private_v4(address: Ipv4Addr) -> bool {
    address.is_private() || address.is_loopback() || address.is_link_local()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn public(host: &str) -> RelyingParty {
        RelyingParty::new(Some(host), 8000).unwrap()
    }

    #[test]
    fn a_public_host_is_reached_over_https() {
        let rp = public("Peergos.Example.com");
        assert_eq!(rp.id(), "peergos.example.com");
        for good in [
            "https://peergos.example.com",
            "https://peergos.example.com:443",
            "https://PEERGOS.example.com",
        ] {
            assert!(rp.is_origin(good), "{good}");
        }
        for bad in [
            "",
            "null",
            "http://peergos.example.com",
            "http://peergos.example.com:443",
            "https://peergos.example.com:80",
            "https://peergos.example.com:8000",
            "https://peergos.example.com/",
            "https://peergos.example.com.",
            "https://peergos.example.com:",
            "https://peergos.example.com:+443",
            "https://peergos.example.com:65979",
            "https://peergos.example.com@evil.example.com",
            "https://evil.example.com#peergos.example.com",
            "https://sub.peergos.example.com",
            "https://evilpeergos.example.com",
            "https://example.com",
            " https://peergos.example.com",
            "android:apk-key-hash:peergos.example.com",
        ] {
            assert!(!rp.is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn the_port_of_a_public_host_is_part_of_the_origin_only() {
        let rp = public("example.org:8443");
        assert_eq!(rp.id(), "example.org");
        assert!(rp.is_origin("https://example.org:8443"));
        assert!(!rp.is_origin("https://example.org"));
        assert!(public("example.org:443").is_origin("https://example.org"));
    }

    #[test]
    fn private_addresses_are_reached_over_http() {
        for host in [
            "192.168.1.2",
            "10.0.0.1",
            "172.16.5.5",
            "169.254.1.1",
            "127.0.0.1",
            "[fd00::1]",
            "[fe80::1]",
            "[::1]",
            "[::ffff:192.168.1.2]",
            "localhost",
        ] {
            let rp = public(&format!("{host}:8000"));
            assert_eq!(rp.id(), host);
            assert!(rp.is_origin(&format!("http://{host}:8000")), "{host}");
            assert!(!rp.is_origin(&format!("https://{host}:8000")), "{host}");
        }
        for host in [
            "8.8.8.8",
            "172.32.0.1",
            "[2001:db8::1]",
            "10.0.0.1.example.org",
        ] {
            assert!(public(host).is_origin(&format!("https://{host}")), "{host}");
        }
    }

    #[test]
    fn without_a_public_host_it_is_this_machine() {
        let rp = RelyingParty::new(None, 8000).unwrap();
        assert_eq!(rp.id(), "localhost");
        assert!(rp.is_origin("http://localhost:8000"));
        for bad in [
            "http://localhost",
            "https://localhost:8000",
            "http://127.0.0.1:8000",
            "http://foo.localhost:8000",
        ] {
            assert!(!rp.is_origin(bad), "{bad}");
        }
        let rp = RelyingParty::new(None, 80).unwrap();
        assert!(rp.is_origin("http://localhost"));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        let long = "a".repeat(MAX_HOST_BYTES + 1);
        for bad in [
            "",
            ":80",
            "a:b",
            "a:70000",
            "a:1:2",
            "https://a",
            "a/b",
            "a b",
            "ü.example",
            "[::1",
            "[::1]80",
            "[a]",
            "::1",
            &long,
        ] {
            assert!(RelyingParty::new(Some(bad), 8000).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_origin_or_not(text: String) {
            prop_assert!(!public("example.org").is_origin(&text));
        }
    }
}
