//! Two nodes, each behind a router that lets nobody in, and a relay that everybody reaches. Each has a network of its
//! own. Needs root, `ip netns` and `nft`, and says SKIP without.
//!
//! `cargo test -p cli --test main -- routers --include-ignored --nocapture`

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
};

use serde_json::Value;
use tests::{Kastro, NodeProcess};

use super::{fill, namespaces::ip, until};
use crate::{program, text};

/// Whatever comes from outside unasked is dropped; what leaves does so under the router's address.
const RULES: &str = "
table ip nat {
  chain after { type nat hook postrouting priority 100; oifname \"wan\" masquerade; }
}
table ip guard {
  chain in { type filter hook input priority 0; iifname \"wan\" drop; }
  chain through {
    type filter hook forward priority 0;
    iifname \"wan\" ct state established,related accept;
    iifname \"wan\" drop;
  }
}
";

/// Networks of one test, gone when this is dropped.
struct World {
    prefix: String,
    folder: tempfile::TempDir,
    networks: Vec<String>,
}

impl World {
    /// `None` where that is not permitted.
    fn new() -> Option<Self> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let mut world = Self {
            prefix: format!("kastro{}w{number}", std::process::id()),
            folder: tempfile::TempDir::new().unwrap(),
            networks: Vec::new(),
        };
        let outside = world.add("out")?;
        let switch = ["link", "add", "switch", "type", "bridge"];
        let is_there = in_network(&outside, &switch)
            && in_network(&outside, &["link", "set", "switch", "up"])
            && run(&outside, &["nft", "list", "ruleset"]);
        is_there.then_some(world)
    }

    fn add(&mut self, name: &str) -> Option<String> {
        let name = format!("{}{name}", self.prefix);
        let is_there =
            ip(&["netns", "add", &name]) && in_network(&name, &["link", "set", "lo", "up"]);
        self.networks.push(name.clone());
        is_there.then_some(name)
    }

    /// Adds a network with an address in the outside world.
    fn outside(&mut self, name: &str, address: &str) -> String {
        let (hub, network) = (self.networks[0].clone(), self.add(name).unwrap());
        let port = format!("p{name}");
        cable((&network, "wan"), (&hub, &port));
        assert!(in_network(
            &hub,
            &["link", "set", &port, "master", "switch"]
        ));
        assert!(in_network(
            &network,
            &["addr", "add", address, "dev", "wan"]
        ));
        network
    }

    /// Adds a network behind a router that has this address outside.
    fn inside(&mut self, name: &str, outside: &str, prefix: &str) -> Option<String> {
        let router = self.outside(&format!("r{name}"), outside);
        let network = self.add(name).unwrap();
        cable((&network, "lan"), (&router, "lan"));
        let (of_router, own) = (format!("{prefix}.1"), format!("{prefix}.2/24"));
        let routed = format!("{of_router}/24");
        assert!(in_network(&router, &["addr", "add", &routed, "dev", "lan"]));
        assert!(in_network(&network, &["addr", "add", &own, "dev", "lan"]));
        let route = ["route", "add", "default", "via", &of_router];
        assert!(in_network(&network, &route));
        let rules = self.folder.path().join("rules");
        tests::write(&rules, RULES.as_bytes());
        let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
        let is_router =
            run(&router, &["sh", "-c", forward]) && run(&router, &["nft", "-f", text(&rules)]);
        is_router.then_some(network)
    }

    /// Makes a program that runs ours in a network.
    fn program(&self, network: &str) -> PathBuf {
        let path = self.folder.path().join(format!("kastro-in-{network}"));
        let lines = format!(
            "#!/bin/sh\nPATH=/usr/sbin:/sbin:/usr/bin:/bin exec ip netns exec {network} '{}' \"$@\"\n",
            program().display()
        );
        tests::write(&path, lines.as_bytes());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn start(&self, network: &str, settings: &[String]) -> Placed {
        let program = self.program(network);
        let data = self.folder.path().join(format!("data-{network}"));
        let fixed = [
            // As without any setting; there is no IPv6 on machines behind routers here.
            "p2p.listen=/ip4/0.0.0.0/tcp/4001,/ip4/0.0.0.0/udp/4001/quic-v1,/ip6/::/tcp/4001,/ip6/::/udp/4001/quic-v1"
                .to_owned(),
            "p2p.dial=any".to_owned(),
            "mirror.is_automatic=false".to_owned(),
        ];
        let settings = fixed.iter().chain(settings);
        let options: Vec<&str> = settings.flat_map(|one| ["--set", one.as_str()]).collect();
        Placed {
            node: NodeProcess::start(&program, &data, &options),
            program,
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for network in &self.networks {
            let _ = ip(&["netns", "del", network]);
        }
    }
}

fn in_network(network: &str, arguments: &[&str]) -> bool {
    ip(&[&["-n", network], arguments].concat())
}

/// Runs a program in a network.
fn run(network: &str, command: &[&str]) -> bool {
    let done = Command::new("ip")
        .args(["netns", "exec", network])
        .args(command)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    done.is_ok_and(|status| status.success())
}

/// Lays a cable from a network to another one, with the names that its ends have there.
fn cable(one: (&str, &str), other: (&str, &str)) {
    let ends = [
        "link", "add", one.1, "type", "veth", "peer", "name", other.1, "netns", other.0,
    ];
    assert!(in_network(one.0, &ends));
    for (network, end) in [one, other] {
        assert!(in_network(network, &["link", "set", end, "up"]));
    }
}

/// A node in a network of its own.
struct Placed {
    program: PathBuf,
    node: NodeProcess,
}

impl Placed {
    fn operator(&self) -> Kastro {
        Kastro::new(&self.program, self.node.data().parent().unwrap())
            .with("KASTRO_DATA", text(self.node.data()))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let shown = self.operator().ok(&[&["--json"], arguments].concat());
        serde_json::from_str(&shown).unwrap()
    }

    fn status(&self) -> Value {
        self.json(&["node", "status"])
    }

    /// The address that a relay makes for it.
    fn relayed_address(&self) -> Option<String> {
        let status = self.status();
        let addresses = status["addresses"].as_array()?.iter();
        let mut addresses = addresses.filter_map(Value::as_str);
        addresses
            .find(|address| address.contains("/p2p-circuit/"))
            .map(str::to_owned)
    }

    fn alice(&self, home: &Path) -> Kastro {
        Kastro::new(&self.program, home)
            .with("KASTRO_SERVER", self.node.url())
            .with("KASTRO_USER", "alice")
            .with("KASTRO_PASSWORD", "a password of some length")
    }
}

#[test]
#[ignore = "takes more than a minute"]
fn two_nodes_behind_routers_meet_at_a_relay_and_go_on_without_it() {
    let Some(mut world) = World::new() else {
        eprintln!(
            "SKIP: needs root (CAP_NET_ADMIN), iproute2 and nftables: `ip netns add` or `nft` failed"
        );
        return;
    };
    let outside = world.outside("relay", "10.77.0.1/24");
    let Some((one, two)) = world
        .inside("one", "10.77.0.11/24", "192.168.1")
        .zip(world.inside("two", "10.77.0.12/24", "192.168.2"))
    else {
        eprintln!("SKIP: the kernel has no address translation for networks of its own");
        return;
    };
    let announce = "p2p.announce=/ip4/10.77.0.1/tcp/4001".to_owned();
    let relay = world.start(&outside, &[announce]);
    let names = relay.json(&["names", "status"])["network"].clone();
    let names = format!("name_authority={}", names.as_str().unwrap());
    let id = relay.status()["id"].as_str().unwrap().to_owned();
    let known = format!("p2p.peers=/ip4/10.77.0.1/tcp/4001/p2p/{id}");

    // Nobody told the home of relays: it is told that it cannot be dialed, and takes a place.
    let home = world.start(&one, &[names.clone(), known.clone()]);
    until("the home has a place at the relay", || {
        home.relayed_address().is_some()
    });
    assert_eq!(home.status()["reach"], "private");
    let address = home.relayed_address().unwrap();
    let place = world.folder.path().join("alice");
    std::fs::create_dir(&place).unwrap();
    home.alice(&place).ok(&["signup", "--no-session"]);

    let friend = world.start(&two, &[names, format!("{known},{address}")]);
    friend.operator().ok(&["names", "status", "--sync"]);
    let away = friend.alice(&place);
    until("alice is at home through the relay", || {
        away.run(&["ls", "/alice"]).code == Some(0)
    });
    until("the two nodes talk without the relay", || {
        away.run(&["ls", "/alice"]).code == Some(0) && friend.status()["relayed"] == 0
    });
    // More than a relay carries.
    let film = fill(&place.join("film"), 6 << 20, 7);
    away.ok(&["put", "film", "/alice/"]);
    let copy = place.join("copy");
    home.alice(&place).ok(&["get", "/alice/film", text(&copy)]);
    assert!(std::fs::read(&copy).unwrap() == film);
}

#[test]
fn addresses_that_come_and_go_are_followed() {
    let Some(mut world) = World::new() else {
        eprintln!("SKIP: needs root (CAP_NET_ADMIN), iproute2 and nftables");
        return;
    };
    let network = world.outside("node", "10.77.0.1/24");
    // Everywhere, and at an address that the machine does not have yet.
    let listen = "p2p.listen=/ip4/0.0.0.0/tcp/4001,/ip4/10.77.0.3/tcp/4002".to_owned();
    let placed = world.start(&network, &[listen]);
    let has = |part: &str| placed.status()["addresses"].to_string().contains(part);
    assert!(has("/ip4/10.77.0.1/tcp/4001"));
    let status = placed.status();
    let late = &status["places"][1];
    assert_eq!(late["address"], "/ip4/10.77.0.3/tcp/4002");
    assert_eq!(late["is_open"], false);
    assert!(late["trouble"].is_string(), "{status}");
    let shown = placed.operator().ok(&["node", "status"]);
    assert!(
        shown.contains("closed   /ip4/10.77.0.3/tcp/4002"),
        "{shown}"
    );

    for (address, part) in [
        ("10.77.0.2/24", "/ip4/10.77.0.2/tcp/4001"),
        ("10.77.0.3/24", "/ip4/10.77.0.3/tcp/4002"),
    ] {
        assert!(in_network(
            &network,
            &["addr", "add", address, "dev", "wan"]
        ));
        until("the new address is listened at", || has(part));
    }
    let gone = ["addr", "del", "10.77.0.2/24", "dev", "wan"];
    assert!(in_network(&network, &gone));
    until("the old address is not told any more", || {
        !has("/ip4/10.77.0.2/")
    });
    assert!(has("/ip4/10.77.0.1/tcp/4001"));
}
