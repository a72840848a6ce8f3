//! The same with a network of its own for each node, whose links are cut and healed. Needs root, and says SKIP without.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use tests::{Kastro, NodeProcess, bytes_below};

use super::{Under, fill, until};
use crate::{program, text};

/// Networks of this process: one with a switch, the others with a cable to it. Gone when this is dropped.
struct Cables {
    prefix: String,
    count: u8,
}

impl Cables {
    /// `None` where that is not permitted.
    fn new() -> Option<Self> {
        let cables = Self {
            prefix: format!("kastro{}", std::process::id()),
            count: 0,
        };
        let hub = cables.name(0);
        let steps: [&[&str]; 3] = [
            &["netns", "add", &hub],
            &["-n", &hub, "link", "add", "switch", "type", "bridge"],
            &["-n", &hub, "link", "set", "switch", "up"],
        ];
        match steps.iter().all(|step| ip(step)) {
            true => Some(cables),
            false => None,
        }
    }

    fn name(&self, number: u8) -> String {
        format!("{}n{number}", self.prefix)
    }

    /// Adds a network; returns its number.
    fn add(&mut self) -> u8 {
        self.count += 1;
        let (number, hub) = (self.count, self.name(0));
        let (name, port) = (self.name(number), format!("port{number}"));
        let address = format!("10.77.0.{number}/24");
        let steps: [&[&str]; 7] = [
            &["netns", "add", &name],
            &["-n", &name, "link", "set", "lo", "up"],
            &[
                "-n", &name, "link", "add", "cable", "type", "veth", "peer", "name", &port,
                "netns", &hub,
            ],
            &["-n", &name, "addr", "add", &address, "dev", "cable"],
            &["-n", &name, "link", "set", "cable", "up"],
            &["-n", &hub, "link", "set", &port, "master", "switch"],
            &["-n", &hub, "link", "set", &port, "up"],
        ];
        for step in steps {
            assert!(ip(step), "ip {}", step.join(" "));
        }
        number
    }

    /// Pulls a network's cable out of the switch, or plugs it in again.
    fn plug(&self, number: u8, state: &str) {
        let port = format!("port{number}");
        assert!(ip(&["-n", &self.name(0), "link", "set", &port, state]));
    }

    /// Makes a program that runs ours in a network.
    fn program(&self, number: u8, folder: &Path) -> PathBuf {
        let path = folder.join(format!("kastro-in-{number}"));
        let name = self.name(number);
        let lines = format!(
            "#!/bin/sh\nPATH=/usr/sbin:/sbin:/usr/bin:/bin exec ip netns exec {name} '{}' \"$@\"\n",
            program().display()
        );
        tests::write(&path, lines.as_bytes());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }
}

impl Drop for Cables {
    fn drop(&mut self) {
        for number in 0..=self.count {
            let _ = ip(&["netns", "del", &self.name(number)]);
        }
    }
}

pub(super) fn ip(arguments: &[&str]) -> bool {
    let done = Command::new("ip")
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    done.is_ok_and(|status| status.success())
}

/// A node in a network of its own.
struct Placed {
    number: u8,
    program: PathBuf,
    node: NodeProcess,
}

impl Placed {
    fn start(cables: &mut Cables, folder: &Path, more: &[String]) -> Self {
        let number = cables.add();
        let program = cables.program(number, folder);
        let fixed = [
            format!("p2p.listen=/ip4/10.77.0.{number}/tcp/4001"),
            "p2p.dial=any".to_owned(),
            "mirror.is_automatic=false".to_owned(),
        ];
        let settings = fixed.iter().chain(more);
        let options: Vec<&str> = settings.flat_map(|one| ["--set", one.as_str()]).collect();
        let data = folder.join(format!("data{number}"));
        let node = NodeProcess::start(&program, &data, &options);
        Self {
            number,
            program,
            node,
        }
    }

    fn operator(&self) -> Kastro {
        Kastro::new(&self.program, self.node.data().parent().unwrap())
            .with("KASTRO_DATA", text(self.node.data()))
    }

    fn alice(&self, home: &Path) -> Kastro {
        Kastro::new(&self.program, home)
            .with("KASTRO_SERVER", self.node.url())
            .with("KASTRO_USER", "alice")
            .with("KASTRO_PASSWORD", "a password of some length")
    }

    fn blocks(&self) -> u64 {
        bytes_below(&self.node.data().join("store/blocks"))
    }
}

#[test]
fn p2p_9_cut_cables_lose_nothing_and_what_is_healed_converges() {
    let Some(mut cables) = Cables::new() else {
        eprintln!(
            "SKIP: `ip netns add` is not permitted here; needs root (CAP_NET_ADMIN) and iproute2"
        );
        return;
    };
    let folder = tempfile::TempDir::new().unwrap();
    let home = Placed::start(&mut cables, folder.path(), &[]);
    let shown = home.operator().ok(&["--json", "names", "status"]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    let joins = [
        format!("name_authority={}", shown["network"].as_str().unwrap()),
        format!("p2p.peers={}", home.node.peers()[0]),
    ];
    let friend = Placed::start(&mut cables, folder.path(), &joins);
    let slow = [&joins[..], &["mirror.bytes_per_second=4M".to_owned()]].concat();
    let mirror = Placed::start(&mut cables, folder.path(), &slow);

    let place = folder.path().join("alice");
    std::fs::create_dir(&place).unwrap();
    let at_home = home.alice(&place);
    at_home.ok(&["signup", "--no-session"]);
    let film = fill(&place.join("film"), 10 << 20, 7);
    at_home.ok(&["put", "film", "/alice/"]);
    friend.operator().ok(&["names", "status", "--sync"]);
    mirror.operator().ok(&["names", "status", "--sync"]);
    mirror.operator().ok(&["mirror", "add", "alice"]);
    // From the home's network the mirror's web address is out of reach: alice goes through her own machine there.
    mirror
        .alice(&place)
        .ok(&["mirror", "allow", mirror.node.url()]);

    // A copy and an upload are under way when the home's cable is pulled.
    fill(&place.join("more"), 10 << 20, 8);
    let away = friend.alice(&place);
    let mut upload = away
        .command(&["put", "more", "/alice/"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut round = Under::way(&mirror.operator(), &["mirror", "run"]);
    round.until("the copy is under way", || mirror.blocks() > 2 << 20);
    cables.plug(home.number, "down");
    thread::sleep(Duration::from_secs(2));
    cables.plug(home.number, "up");
    // Each ends in its own way; what did not get through is tried again.
    round.wait();
    let _ = upload.wait();
    until("the upload goes on", || {
        away.run(&["put", "more", "/alice/"]).code == Some(0)
    });
    until("the copy is in step", || {
        mirror.operator().run(&["mirror", "run"]).code == Some(0)
    });
    for (name, seed) in [("film", 7), ("more", 8)] {
        let copy = place.join(format!("{name}-copy"));
        at_home.ok(&["get", &format!("/alice/{name}"), text(&copy)]);
        let expected = fill(&place.join("expected"), 10 << 20, seed);
        assert!(std::fs::read(&copy).unwrap() == expected, "{name}");
    }

    // The home is cut off for good: the copy goes on.
    cables.plug(home.number, "down");
    let at_mirror = mirror.alice(&place);
    until("the copy is read", || {
        at_mirror.run(&["ls", "/alice"]).code == Some(0)
    });
    let copy = place.join("from-the-mirror");
    at_mirror.ok(&["get", "/alice/film", text(&copy)]);
    assert!(std::fs::read(&copy).unwrap() == film);
    cables.plug(home.number, "up");
}
