//! Who is behind a reverse proxy (Spec: 05 §1, 40 §9).
//!
//! `X-Forwarded-*` and `Forwarded` are ordinary request headers, which anybody can send. They are believed only on
//! connections from addresses the operator named, and of a list of addresses only the part that trusted proxies
//! added: from the right, up to the first address that is not one of them.

use std::{fmt, net::IpAddr, str::FromStr};

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Most hops of a list that are looked at.
const MAX_HOPS: usize = 32;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A range of addresses: `192.0.2.7`, `10.0.0.0/8`, `fd00::/8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Text that is no range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address or a network such as 10.0.0.0/8")]
pub struct NotANetwork(String);

impl Network {
    /// Returns true when `address` is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(other)) => {
                let mask = u32::MAX
                    .checked_shl(u32::from(32 - self.prefix))
                    .unwrap_or(0);
                (net.to_bits() ^ other.to_bits()) & mask == 0
            }
            (IpAddr::V6(net), IpAddr::V6(other)) => {
                let mask = u128::MAX
                    .checked_shl(u32::from(128 - self.prefix))
                    .unwrap_or(0);
                (net.to_bits() ^ other.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NotANetwork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NotANetwork(text.chars().take(64).collect());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let max = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(max), |prefix| prefix.trim().parse().map_err(|_| wrong()))?;
        if prefix > max {
            return Err(wrong());
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The client of a request, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    /// Its address.
    pub(super) address: IpAddr,
    /// The host it asked for, if that is not in `Host`.
    pub(super) host: Option<HeaderValue>,
    /// True when it is known to have come over TLS.
    pub(super) is_secure: bool,
}

/// Finds the client of a request that arrived from `peer`.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[Network]) -> Client {
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = Client {
        address: peer,
        host: None,
        is_secure: false,
    };
    if trusted.is_empty() || !is_trusted(peer) {
        return client;
    }
    for hop in hops(headers) {
        // An entry that is no address was not written by a proxy that knows its client.
        let Some(address) = hop else { break };
        client.address = address;
        if !is_trusted(address) {
            break;
        }
    }
    client.host = single(headers, &HOST).cloned();
    client.is_secure = single(headers, &PROTO).is_some_and(|value| value == "https");
    client
}

/// The addresses that proxies added, nearest first.
fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let lines = |name: &HeaderName| -> Vec<String> {
        let values = headers.get_all(name).iter();
        values
            .filter_map(|value| value.to_str().ok().map(str::to_owned))
            .collect()
    };
    let (lines, is_standard) = match lines(&FOR) {
        lines if lines.is_empty() => (lines_of_standard(headers), true),
        lines => (lines, false),
    };
    let all = lines.iter().flat_map(|line| line.split(','));
    let all: Vec<_> = all.collect();
    all.into_iter()
        .rev()
        .take(MAX_HOPS)
        .map(|entry| {
            let text = if is_standard {
                standard_for(entry)?
            } else {
                entry
            };
            parse_address(text)
        })
        .collect()
}

fn lines_of_standard(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(header::FORWARDED).iter();
    values
        .filter_map(|value| value.to_str().ok().map(str::to_owned))
        .collect()
}

/// The `for` of one element of `Forwarded` (RFC 7239).
fn standard_for(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then_some(value)
    })
}

/// Reads an address, with or without port, quotes and brackets.
fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Ok(address) = text.parse::<std::net::SocketAddr>() {
        return Some(address.ip().to_canonical());
    }
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    inner
        .parse::<IpAddr>()
        .ok()
        .map(|address| address.to_canonical())
}

/// The value of a header that is there once and is no list.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if !value.as_bytes().contains(&b',') => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(peer: &str, trusted: &[&str], headers: &[(&'static str, &str)]) -> Client {
        let trusted: Vec<Network> = trusted.iter().map(|text| text.parse().unwrap()).collect();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        client(peer.parse().unwrap(), &map, &trusted)
    }

    #[test]
    fn nobody_is_believed_unless_named() {
        let headers = [
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
        ];
        for trusted in [&[][..], &["10.0.0.0/8"]] {
            let client = find("127.0.0.1", trusted, &headers);
            assert_eq!(client.address.to_string(), "127.0.0.1");
            assert_eq!((client.host, client.is_secure), (None, false));
        }
    }

    #[test]
    fn the_client_is_the_first_stranger_from_the_right() {
        let trusted = &["127.0.0.1", "10.0.0.0/8", "fd00::/8"];
        for (line, expected) in [
            ("1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4", "1.2.3.4"),
            ("6.6.6.6, 1.2.3.4, 10.1.2.3", "1.2.3.4"),
            ("1.2.3.4:5678", "1.2.3.4"),
            ("[2001:db8::1]:80, fd00::7", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("10.0.0.1, 10.0.0.2", "10.0.0.1"),
            ("1.2.3.4, unknown", "127.0.0.1"),
            ("garbage", "127.0.0.1"),
            ("", "127.0.0.1"),
        ] {
            let client = find("127.0.0.1", trusted, &[("x-forwarded-for", line)]);
            assert_eq!(client.address.to_string(), expected, "{line}");
        }
        let two_lines = [
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-for", "1.2.3.4"),
        ];
        assert_eq!(
            find("::ffff:127.0.0.1", trusted, &two_lines)
                .address
                .to_string(),
            "1.2.3.4"
        );
        let standard = [(
            "forwarded",
            "for=6.6.6.6, For=\"[2001:db8::9]:4711\";proto=https;by=10.0.0.1",
        )];
        assert_eq!(
            find("10.9.9.9", trusted, &standard).address.to_string(),
            "2001:db8::9"
        );
    }

    #[test]
    fn host_and_scheme_are_taken_when_they_are_plain() {
        let of = |headers: &[(&'static str, &str)]| {
            let client = find("127.0.0.1", &["127.0.0.1"], headers);
            (
                client.host.map(|host| host.to_str().unwrap().to_owned()),
                client.is_secure,
            )
        };
        let both = [
            ("x-forwarded-host", "example.org"),
            ("x-forwarded-proto", "https"),
        ];
        assert_eq!(of(&both), (Some("example.org".to_owned()), true));
        assert_eq!(
            of(&[("x-forwarded-host", "a, b"), ("x-forwarded-proto", "http")]),
            (None, false)
        );
        assert_eq!(
            of(&[("x-forwarded-host", "a"), ("x-forwarded-host", "b")]),
            (None, false)
        );
    }

    #[test]
    fn networks_are_parsed_and_printed() {
        let net = |text: &str| text.parse::<Network>();
        assert!(
            net("0.0.0.0/0")
                .unwrap()
                .contains("8.8.8.8".parse().unwrap())
        );
        assert!(!net("0.0.0.0/0").unwrap().contains("::1".parse().unwrap()));
        assert!(net("::/0").unwrap().contains("::1".parse().unwrap()));
        assert!(
            !net("10.0.0.0/8")
                .unwrap()
                .contains("11.0.0.0".parse().unwrap())
        );
        assert_eq!(net("fd00::/8").unwrap().to_string(), "fd00::/8");
        for wrong in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "::/129",
            "x",
            "1.2.3.4/",
            "1.2.3.4/-1",
        ] {
            assert!(net(wrong).is_err(), "{wrong}");
        }
    }
}
