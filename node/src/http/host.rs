//! The Host check: the defence against DNS rebinding (Spec: 05 §5.1, 13 §2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use champ::Cid;

use crate::webauthn::{InvalidHost, RelyingParty};

/// Which requests a listener answers at all.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    /// Host name and port as browsers send them.
    site: String,
    /// Further names that are the main host.
    names: Vec<String>,
    port: u16,
    any_ipv4: bool,
    any_ipv6: bool,
    relying_party: RelyingParty,
}

/// What a `Host` header reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The API and the pages.
    Main,
    /// Sandbox pages only.
    Sandbox,
    /// Nothing.
    Nothing,
}

impl Hosts {
    /// Derives the accepted hosts of a listener.
    ///
    /// # Errors
    /// [`InvalidHost`] for a public host that is not a name or address with an optional port.
    pub(crate) fn new(
        listen: SocketAddr,
        public_host: Option<&str>,
        peer_ids: &[Cid],
    ) -> Result<Self, InvalidHost> {
        let port = listen.port();
        let site = public_host.map_or_else(
            || {
                if listen.ip().is_loopback() || listen.ip().is_unspecified() {
                    format!("localhost:{port}")
                } else {
                    listen.to_string()
                }
            },
            str::to_owned,
        );
        let mut names = vec![format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
        if listen.ip().is_loopback() || listen.ip().is_unspecified() {
            names.push(format!("localhost:{port}"));
        }
        for id in peer_ids {
            names.push(id.bare_multihash_text());
            names.push(champ::text::to_base58(&id.to_bytes()));
        }
        Ok(Self {
            site,
            names,
            port,
            any_ipv4: listen.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            any_ipv6: listen.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            relying_party: RelyingParty::new(public_host, port)?,
        })
    }

    /// Returns what this node is to security keys.
    pub(crate) const fn relying_party(&self) -> &RelyingParty {
        &self.relying_party
    }

    /// Returns the host name and port that links of this node carry.
    pub(crate) fn site(&self) -> &str {
        &self.site
    }

    /// Decides what `host` reaches; the comparison of main hosts is exact and case sensitive.
    pub(crate) fn reach(&self, host: &str) -> Reach {
        if host == self.site || self.names.iter().any(|name| name == host) {
            return Reach::Main;
        }
        if let Some((address, port)) = host.rsplit_once(':')
            && port == self.port.to_string()
        {
            let v4 = self.any_ipv4 && address.parse::<Ipv4Addr>().is_ok();
            let v6 = self.any_ipv6
                && address
                    .strip_prefix('[')
                    .and_then(|rest| rest.strip_suffix(']'))
                    .is_some_and(|rest| rest.parse::<Ipv6Addr>().is_ok());
            if v4 || v6 {
                return Reach::Main;
            }
        }
        if self.is_sandbox(host) {
            return Reach::Sandbox;
        }
        Reach::Nothing
    }

    /// One label of `a-z 0-9 -`, a dot, then the site host, ASCII case-insensitively.
    fn is_sandbox(&self, host: &str) -> bool {
        let lower = host.to_ascii_lowercase();
        let Some(label) = lower
            .strip_suffix(&self.site.to_ascii_lowercase())
            .and_then(|rest| rest.strip_suffix('.'))
        else {
            return false;
        };
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Hosts {
        Hosts::new("127.0.0.1:9700".parse().unwrap(), None, &[]).unwrap()
    }

    #[test]
    fn web_3_only_listed_hosts_reach_a_local_listener() {
        let hosts = local();
        for good in ["localhost:9700", "127.0.0.1:9700"] {
            assert_eq!(hosts.reach(good), Reach::Main, "{good}");
        }
        for bad in [
            "evil.example",
            "attacker.example:9700",
            "LOCALHOST:9700",
            "localhost",
            "localhost:9701",
            "localhost:9700.",
            "192.168.1.2:9700",
            "evillocalhost:9700",
            "a.b.localhost:9700",
            "",
        ] {
            assert_eq!(hosts.reach(bad), Reach::Nothing, "{bad}");
        }
        assert_eq!(hosts.reach("foo.localhost:9700"), Reach::Sandbox);
    }

    #[test]
    fn web_2_a_public_host_needs_a_dot_boundary() {
        let hosts =
            Hosts::new("127.0.0.1:8000".parse().unwrap(), Some("example.org"), &[]).unwrap();
        assert_eq!(hosts.reach("example.org"), Reach::Main);
        for bad in [
            "evilexample.org",
            "example.org.evil.org",
            "x.example.org:81",
        ] {
            assert_eq!(hosts.reach(bad), Reach::Nothing, "{bad}");
        }
        assert_eq!(hosts.reach("X.example.org"), Reach::Sandbox);
    }

    #[test]
    fn wildcard_listeners_accept_addresses_with_the_right_port() {
        let hosts = Hosts::new("0.0.0.0:8000".parse().unwrap(), None, &[]).unwrap();
        assert_eq!(hosts.reach("192.168.1.2:8000"), Reach::Main);
        assert_eq!(hosts.reach("192.168.1.2:8001"), Reach::Nothing);
        assert_eq!(hosts.reach("[::1]:8000"), Reach::Main);
    }

    #[test]
    fn peers_may_name_the_server_id_without_multibase_prefix() {
        let id =
            Cid::parse_peer_id("12D3KooWEnCzE4uSeniFaCGXQuV1UnYkvqvbQJnYC363S2abgknr").unwrap();
        let hosts = Hosts::new(
            "127.0.0.1:9701".parse().unwrap(),
            None,
            std::slice::from_ref(&id),
        )
        .unwrap();
        let bare = "12D3KooWEnCzE4uSeniFaCGXQuV1UnYkvqvbQJnYC363S2abgknr";
        assert_eq!(hosts.reach(bare), Reach::Main);
        assert_eq!(hosts.reach(&id.to_string()[1..]), Reach::Main);
        assert_eq!(hosts.reach(&id.to_string()), Reach::Nothing);
    }
}
