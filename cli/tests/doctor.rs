//! `kastro doctor`: a healthy node passes, and every ailment is named with what to do.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt};

use serde_json::Value;
use tests::{Kastro, NodeProcess};

use crate::{json_lines, program, text};

struct Patient {
    _folder: tempfile::TempDir,
    data: std::path::PathBuf,
    doctor: Kastro,
}

impl Patient {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        // The disk of the machine that runs the test may be nearly full.
        let doctor = Kastro::new(program(), folder.path())
            .with("KASTRO_DATA", text(&data))
            .with("KASTRO_LISTEN", "127.0.0.1:0")
            .with("KASTRO_FREE_FLOOR", "0");
        Self {
            _folder: folder,
            data,
            doctor,
        }
    }

    fn grown() -> Self {
        let patient = Self::new();
        assert!(NodeProcess::start(program(), &patient.data, &[]).stop());
        patient
    }
}

/// Runs a doctor that must end with `code`, and returns the findings and the counts.
fn examine(doctor: &Kastro, code: i32) -> (Vec<Value>, Value) {
    let finished = doctor.run(&["doctor", "--json"]);
    assert_eq!(
        finished.code,
        Some(code),
        "{}{}",
        finished.text(),
        finished.stderr
    );
    let mut lines = json_lines(&finished.text());
    let counts = lines.pop().unwrap();
    (lines, counts)
}

fn finding<'a>(findings: &'a [Value], check: &str, level: &str) -> &'a Value {
    findings
        .iter()
        .find(|finding| finding["check"] == check && finding["level"] == level)
        .unwrap_or_else(|| panic!("{check} {level}: {findings:?}"))
}

#[test]
fn a_node_in_good_order_passes_running_or_not() {
    let patient = Patient::grown();
    let (findings, counts) = examine(&patient.doctor, 0);
    assert_eq!(counts["failures"], 0, "{findings:?}");
    finding(&findings, "store", "ok");
    finding(&findings, "keys", "ok");
    let node = NodeProcess::start(program(), &patient.data, &[]);
    let (findings, _) = examine(&patient.doctor, 0);
    let running = finding(&findings, "node", "ok")["message"]
        .as_str()
        .unwrap();
    assert!(running.contains("is running as process"), "{running}");
    let address = finding(&findings, "address", "ok")["message"]
        .as_str()
        .unwrap();
    assert!(address.contains(node.authority()), "{address}");
    let printed = patient.doctor.ok(&["doctor"]);
    assert!(
        printed.lines().all(|line| line.starts_with("OK")
            || line.starts_with("WARN")
            || line.starts_with(' '))
    );
}

#[test]
fn ailments_are_named_with_what_to_do() {
    let patient = Patient::new();
    let (findings, _) = examine(&patient.doctor, 3);
    finding(&findings, "data folder", "fail");
    assert!(!patient.data.exists(), "looking makes nothing");

    let patient = Patient::grown();
    let key = patient.data.join("node.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let (findings, counts) = examine(&patient.doctor, 3);
    let help = finding(&findings, "keys", "fail")["help"].as_str().unwrap();
    assert!(help.contains("chmod 600"), "{help}");
    assert!(
        counts["failures"].as_u64().unwrap() >= 2,
        "the node would not start either"
    );
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (findings, _) = examine(&patient.doctor.clone().with("KASTRO_LISTEN", &address), 3);
    finding(&findings, "address", "fail");

    let without_web = patient.doctor.clone().with("KASTRO_WEB", "/no/such/folder");
    let (findings, _) = examine(&without_web, 3);
    finding(&findings, "web folder", "fail");

    let mistyped = patient.doctor.clone().with("KASTRO_MAX_USERS", "many");
    let (findings, _) = examine(&mistyped, 3);
    finding(&findings, "configuration", "fail");
}

#[test]
fn what_deserves_a_look_is_no_failure() {
    let patient = Patient::grown();
    let doctor = patient
        .doctor
        .clone()
        .with("KASTRO_LISTN", "x")
        .with("KASTRO_ADMINS", "nobody")
        .with("KASTRO_PUBLIC", "true")
        .with("KASTRO_LISTEN", "0.0.0.0:0");
    let (findings, counts) = examine(&doctor, 0);
    let unknown = finding(&findings, "configuration", "warn")["message"]
        .as_str()
        .unwrap();
    assert!(unknown.contains("KASTRO_LISTN"), "{unknown}");
    let admins = finding(&findings, "administrators", "warn")["message"]
        .as_str()
        .unwrap();
    assert!(admins.contains("nobody"), "{admins}");
    finding(&findings, "exposure", "warn");
    assert!(counts["warnings"].as_u64().unwrap() >= 4);
    fs::set_permissions(&patient.data, fs::Permissions::from_mode(0o750)).unwrap();
    let (findings, _) = examine(&patient.doctor, 0);
    finding(&findings, "data folder", "warn");
}
