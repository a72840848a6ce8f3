//! The Host check: the defence against DNS rebinding (Spec: 05 §5.1, 13 §2).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use champ::Cid;

use crate::{
    web::{Label, Site},
    webauthn::{InvalidHost, RelyingParty},
};

/// Which requests a listener answers at all, and as what.
#[derive(Debug, Clone)]
pub(crate) struct Hosts {
    /// Host name and port as browsers send them.
    site: String,
    /// Further names that are the main host.
    names: Vec<String>,
    port: u16,
    any_ipv4: bool,
    any_ipv6: bool,
    /// The site is reached over TLS, whoever ends it.
    is_secure: bool,
    /// This listener ends TLS itself.
    ends_tls: bool,
    relying_party: RelyingParty,
}

/// What a `Host` header reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The API and the pages.
    Main,
    /// The pages of one sandbox only.
    Sandbox(Label),
    /// Nothing.
    Nothing,
}

impl Hosts {
    /// Derives the accepted hosts of a plain listener of a node that is not public.
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
            is_secure: false,
            ends_tls: false,
            relying_party: RelyingParty::new(public_host, port)?,
        })
    }

    /// Makes it the listener of a public node: browsers come over TLS, which ends here or in front of it.
    pub(crate) const fn public(mut self, is_public: bool) -> Self {
        self.is_secure |= is_public;
        self
    }

    /// Makes it a listener that ends TLS: every answer then tells browsers to stay with TLS.
    pub(crate) const fn ending_tls(mut self) -> Self {
        self.is_secure = true;
        self.ends_tls = true;
        self
    }

    /// Returns true when TLS ends at this listener.
    pub(crate) const fn ends_tls(&self) -> bool {
        self.ends_tls
    }

    /// Returns what this node is to security keys.
    pub(crate) const fn relying_party(&self) -> &RelyingParty {
        &self.relying_party
    }

    /// Returns the host name and port that links of this node carry.
    pub(crate) fn site(&self) -> &str {
        &self.site
    }

    /// Returns the parts of the site's origin (Spec: 13 §1).
    pub(crate) fn origin(&self) -> Site<'_> {
        Site {
            scheme: if self.is_secure { "https:" } else { "http:" },
            host: &self.site,
        }
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
        self.sandbox(host).map_or(Reach::Nothing, Reach::Sandbox)
    }

    /// Returns the label of a sandbox: one label, a dot, then the site host, ASCII case-insensitively.
    fn sandbox(&self, host: &str) -> Option<Label> {
        // No name is below an address.
        if self.site.parse::<SocketAddr>().is_ok() || self.site.parse::<IpAddr>().is_ok() {
            return None;
        }
        let lower = host.to_ascii_lowercase();
        lower
            .strip_suffix(&self.site.to_ascii_lowercase())
            .and_then(|rest| rest.strip_suffix('.'))?
            .parse()
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Hosts {
        Hosts::new("127.0.0.1:9700".parse().unwrap(), None, &[]).unwrap()
    }

    fn sandbox(label: &str) -> Reach {
        Reach::Sandbox(label.parse().unwrap())
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
        assert_eq!(hosts.reach("foo.localhost:9700"), sandbox("foo"));
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
            "example.org.",
            "EXAMPLE.ORG",
            ".example.org",
            "a.b.example.org",
            "a_b.example.org",
            "a/b.example.org",
            "a;b.example.org",
            "\u{e4}.example.org",
        ] {
            assert_eq!(hosts.reach(bad), Reach::Nothing, "{bad}");
        }
        assert_eq!(hosts.reach("X.EXAMPLE.org"), sandbox("x"));
    }

    #[test]
    fn wildcard_listeners_accept_addresses_with_the_right_port() {
        let hosts = Hosts::new("0.0.0.0:8000".parse().unwrap(), None, &[]).unwrap();
        assert_eq!(hosts.reach("192.168.1.2:8000"), Reach::Main);
        assert_eq!(hosts.reach("192.168.1.2:8001"), Reach::Nothing);
        assert_eq!(hosts.reach("[::1]:8000"), Reach::Main);
        assert_eq!(hosts.reach("x.192.168.1.2:8000"), Reach::Nothing);
        assert_eq!(hosts.reach("x.localhost:8000"), sandbox("x"));
        let hosts = Hosts::new("[::]:8000".parse().unwrap(), None, &[]).unwrap();
        assert_eq!(hosts.reach("[fe80::1]:8000"), Reach::Main);
        assert_eq!(hosts.reach("[fe80::1]:8001"), Reach::Nothing);
    }

    #[test]
    fn nothing_is_below_an_address() {
        for listen in ["192.168.1.2:8000", "[fe80::1]:8000"] {
            let hosts = Hosts::new(listen.parse().unwrap(), None, &[]).unwrap();
            assert_eq!(hosts.reach(listen), Reach::Main);
            assert_eq!(hosts.reach(&format!("x.{listen}")), Reach::Nothing);
        }
    }

    #[test]
    fn the_scheme_tells_who_ends_tls() {
        let hosts = || Hosts::new("127.0.0.1:8000".parse().unwrap(), Some("a.org"), &[]).unwrap();
        assert_eq!(hosts().origin().scheme, "http:");
        assert_eq!(hosts().public(true).origin().scheme, "https:");
        assert!(!hosts().public(true).ends_tls());
        assert_eq!(hosts().ending_tls().origin().scheme, "https:");
        assert!(hosts().ending_tls().ends_tls());
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

    /// Every `host_match` case of the recorded ones.
    #[test]
    fn web_2_recorded_hosts_are_told_apart() {
        let json: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/gateway.json")).unwrap();
        let mut compared = 0;
        for case in json["cases"].as_array().unwrap() {
            if case["kind"] != "host_match" {
                continue;
            }
            let (scheme, site) = case["site"].as_str().unwrap().split_once("://").unwrap();
            let listen = site.parse().unwrap_or("127.0.0.1:8000".parse().unwrap());
            let public = (scheme == "https").then_some(site);
            let hosts = Hosts::new(listen, public, &[]).unwrap();
            let host = case["request_host"].as_str().unwrap();
            let reach = hosts.reach(host);
            if case["conform"] == false {
                // The recorded behavior takes addresses for sandboxes.
                assert!(!matches!(reach, Reach::Sandbox(_)), "{case}");
                let is_address = host.parse::<SocketAddr>().is_ok();
                assert_eq!(reach == Reach::Main, is_address, "{case}");
            } else if case["is_subdomain"] == true {
                assert_eq!(
                    reach,
                    sandbox(case["subdomain"].as_str().unwrap()),
                    "{case}"
                );
            } else {
                assert!(!matches!(reach, Reach::Sandbox(_)), "{case}");
            }
            compared += 1;
        }
        assert_eq!(compared, 36);
    }
}
