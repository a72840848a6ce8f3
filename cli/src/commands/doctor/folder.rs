//! What can be seen from the disk: permissions, space, clock, web folder, limits.

use std::{
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use node::operator::overview::Overview;

use super::Finding;
use crate::{config::Effective, human};

/// Length of a key file in bytes.
const KEY_BYTES: u64 = 32;
/// A clock that is further off makes signed times of clients stale.
const MAX_CLOCK_ERROR: Duration = Duration::from_secs(120);
/// No honest clock shows an earlier time: 2026-01-01.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);
/// Files and sockets a node needs besides its connections.
const OTHER_FILES: u64 = 256;
/// Free files of a file system below which somebody should look.
const FEW_INODES: u64 = 10_000;

/// Who can enter the folder and read the keys.
pub(super) fn permissions(effective: &Effective) -> Vec<Finding> {
    let data = effective.data();
    let mut findings = vec![match is_open(data) {
        Err(error) => Finding::fail(
            "data folder",
            format!("{}: {error}", data.display()),
            "run this as the user that runs the node",
        ),
        Ok(true) => Finding::warn(
            "data folder",
            format!("others can enter {}", data.display()),
            format!("chmod 700 {}", data.display()),
        ),
        Ok(false) => Finding::ok(
            "data folder",
            format!("{}, for its owner alone", data.display()),
        ),
    }];
    findings.extend(keys(data));
    let has_secrets = crate::config::KEYS.iter().any(|key| {
        key.is_secret && matches!(effective.origin(key.name), crate::config::Origin::File(_))
    });
    if has_secrets && is_open(&effective.file).unwrap_or(false) {
        findings.push(Finding::warn(
            "configuration",
            format!(
                "{} holds secrets and others can read it",
                effective.file.display()
            ),
            format!("chmod 600 {}", effective.file.display()),
        ));
    }
    findings
}

fn keys(data: &Path) -> Vec<Finding> {
    let Ok(entries) = fs::read_dir(data) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let mut sound = 0;
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|end| end != "key") {
            continue;
        }
        let shown = path.display();
        let is_whole = fs::metadata(&path).is_ok_and(|metadata| metadata.len() == KEY_BYTES);
        match is_open(&path) {
            Ok(true) => findings.push(Finding::fail(
                "keys",
                format!("others can read or change {shown}"),
                format!("if nobody else has seen it: chmod 600 {shown}"),
            )),
            Ok(false) if is_whole => sound += 1,
            _ => findings.push(Finding::fail(
                "keys",
                format!("{shown} is damaged"),
                "put it back from a backup",
            )),
        }
    }
    if sound > 0 {
        findings.push(Finding::ok(
            "keys",
            format!("{sound}, for their owner alone"),
        ));
    }
    findings
}

/// Returns true when group or others may do anything.
fn is_open(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(fs::metadata(path)?.permissions().mode() & 0o077 != 0)
}

/// Space and files that the file system has left.
pub(super) fn space(effective: &Effective) -> Vec<Finding> {
    let data = effective.data();
    let found = match rustix::fs::statvfs(data) {
        Ok(found) => found,
        Err(error) => {
            return vec![Finding::fail(
                "free space",
                format!("cannot ask the file system: {error}"),
                "is the disk still there?",
            )];
        }
    };
    let total = found.f_blocks.saturating_mul(found.f_frsize);
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let floor = effective.settings.node.free_floor.bytes(total);
    let mut findings = vec![space_finding(free, total, floor)];
    if found.f_files > 0 && found.f_favail < FEW_INODES {
        findings.push(Finding::warn(
            "free space",
            format!("only {} more files fit on the file system", found.f_favail),
            "each block of 64 KiB and more is a file: use a file system with more inodes",
        ));
    }
    findings
}

fn space_finding(free: u64, total: u64, floor: u64) -> Finding {
    let message = format!(
        "{} of {}, {} are kept free",
        human::size(free),
        human::size(total),
        human::size(floor)
    );
    if free <= floor {
        return Finding::fail(
            "free space",
            message,
            "uploads are refused: make room, or lower free_floor",
        );
    }
    if free < floor.saturating_mul(2) {
        return Finding::warn(
            "free space",
            message,
            "make room before uploads are refused",
        );
    }
    Finding::ok("free space", message)
}

/// The clock against the newest file of the folder, and against the node's.
pub(super) fn clock(effective: &Effective, overview: &Overview) -> Vec<Finding> {
    let now = SystemTime::now();
    let newest = newest(effective.data());
    let node = u64::try_from(overview.now_epoch_millis).unwrap_or(0);
    let node = SystemTime::UNIX_EPOCH + Duration::from_millis(node);
    vec![clock_finding(now, newest, node)]
}

fn clock_finding(now: SystemTime, newest: Option<SystemTime>, node: SystemTime) -> Finding {
    const CHECK: &str = "clock";
    const HELP: &str = "set the clock (NTP): clients and node must agree to a minute or two";
    let shown = human::time(now);
    if now < SystemTime::UNIX_EPOCH + EARLIEST {
        return Finding::fail(CHECK, format!("{shown} UTC is in the past"), HELP);
    }
    let ahead = |of: SystemTime| of.duration_since(now).unwrap_or_default();
    if newest.is_some_and(|newest| ahead(newest) > MAX_CLOCK_ERROR) {
        return Finding::fail(
            CHECK,
            format!("{shown} UTC is earlier than what is on the disk"),
            HELP,
        );
    }
    let apart = ahead(node).max(now.duration_since(node).unwrap_or_default());
    if apart > MAX_CLOCK_ERROR {
        return Finding::fail(
            CHECK,
            format!("the node's is {} s away from {shown} UTC", apart.as_secs()),
            "restart the node, and set the clock (NTP)",
        );
    }
    Finding::ok(CHECK, format!("{shown} UTC, not before any file"))
}

/// Returns the latest time of change in the folder and one level below.
fn newest(data: &Path) -> Option<SystemTime> {
    let times = |folder: &Path| -> Vec<(SystemTime, Option<std::path::PathBuf>)> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let metadata = entry.metadata().ok()?;
                let folder = metadata.is_dir().then(|| entry.path());
                Some((metadata.modified().ok()?, folder))
            })
            .collect()
    };
    let top = times(data);
    let below = top
        .iter()
        .filter_map(|(_, folder)| folder.as_deref())
        .flat_map(times)
        .map(|(time, _)| time);
    top.iter().map(|(time, _)| *time).chain(below).max()
}

/// The web application.
pub(super) fn web(effective: &Effective) -> Vec<Finding> {
    let Some(folder) = &effective.settings.node.web else {
        return Vec::new();
    };
    let shown = folder.display();
    vec![if !folder.is_dir() {
        Finding::fail(
            "web folder",
            format!("there is none at {shown}"),
            "correct `web`, or remove it",
        )
    } else if !folder.join("index.html").is_file() {
        Finding::warn(
            "web folder",
            format!("{shown} has no index.html"),
            "put a web application there",
        )
    } else {
        Finding::ok("web folder", shown.to_string())
    }]
}

/// How many files the node, or what is started from here, may have open.
pub(super) fn open_files(effective: &Effective, process: Option<u32>) -> Vec<Finding> {
    let path = match process {
        Some(process) => format!("/proc/{process}/limits"),
        None => "/proc/self/limits".to_owned(),
    };
    let Some(limit) = fs::read_to_string(path)
        .ok()
        .and_then(|text| soft_limit(&text))
    else {
        return Vec::new();
    };
    let connections = effective.settings.node.limits.connections as u64;
    let wanted = connections.saturating_add(OTHER_FILES);
    vec![if limit < wanted {
        Finding::warn(
            "open files",
            format!("{limit} are allowed, {connections} connections may need {wanted}"),
            format!(
                "`ulimit -n {wanted}` before the start (systemd: LimitNOFILE={wanted}), or lower limits.connections"
            ),
        )
    } else {
        Finding::ok("open files", format!("{limit} are allowed"))
    }]
}

fn soft_limit(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.starts_with("Max open files"))?;
    match line.split_whitespace().nth(3)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn space_is_judged_by_the_floor() {
        let level = |free| space_finding(free, 1000, 100).level;
        assert_eq!(level(100), Level::Fail);
        assert_eq!(level(101), Level::Warn);
        assert_eq!(level(200), Level::Ok);
    }

    #[test]
    fn a_clock_that_is_behind_or_away_is_noticed() {
        let now = SystemTime::UNIX_EPOCH + EARLIEST + Duration::from_secs(1000);
        let after = |seconds| now + Duration::from_secs(seconds);
        let level = |now, newest, node| clock_finding(now, newest, node).level;
        assert_eq!(level(now, Some(now), now), Level::Ok);
        assert_eq!(level(now, Some(after(60)), after(60)), Level::Ok);
        assert_eq!(level(now, Some(after(300)), now), Level::Fail);
        assert_eq!(level(now, None, after(300)), Level::Fail);
        assert_eq!(level(after(300), None, now), Level::Fail);
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        assert_eq!(level(long_ago, None, long_ago), Level::Fail);
    }

    #[test]
    fn the_limit_of_open_files_is_read() {
        let text = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        assert_eq!(soft_limit(text), Some(1024));
        assert_eq!(
            soft_limit("Max open files unlimited unlimited files"),
            Some(u64::MAX)
        );
        assert_eq!(soft_limit(""), None);
    }
}
