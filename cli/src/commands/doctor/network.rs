//! What can be seen from the network: the address, the exposure, somebody else's clock.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::{Duration, SystemTime},
};

use cryptree::{Transport as _, transport::ApiRequest};
use node::operator::overview::Overview;
use time::{
    OffsetDateTime, PrimitiveDateTime, format_description::FormatItem, macros::format_description,
};

use super::Finding;
use crate::{commands::serve::reachable, config::Effective, transport::HttpTransport};

/// A clock that is further off makes signed times of clients stale.
const MAX_CLOCK_ERROR: Duration = Duration::from_secs(60);
/// A certificate that expires in fewer days should have been renewed.
const SOON_DAYS: i64 = 14;
/// Longest answer to who is there.
const MAX_ID_BYTES: usize = 1024;

/// The address of the node: answered by it, or free for it.
pub(super) async fn address(
    effective: &Effective,
    overview: &Overview,
    is_running: bool,
) -> Vec<Finding> {
    vec![if is_running {
        answered(overview.listen, &overview.id).await
    } else {
        free(effective.settings.node.listen)
    }]
}

async fn answered(listen: SocketAddr, id: &str) -> Finding {
    const CHECK: &str = "address";
    let url = format!("http://{}", reachable(listen));
    let reply = match HttpTransport::new(&url) {
        Ok(transport) => {
            transport
                .call(ApiRequest::new("api/v0/id", MAX_ID_BYTES))
                .await
        }
        Err(failure) => return Finding::of(CHECK, &failure),
    };
    match reply {
        Ok(reply) if String::from_utf8_lossy(&reply.body).contains(id) => {
            Finding::ok(CHECK, format!("{url} answers"))
        }
        Ok(_) => Finding::fail(
            CHECK,
            format!("somebody else answers at {url}"),
            "two programs share the port: look with `ss -ltnp`",
        ),
        Err(error) => Finding::fail(
            CHECK,
            format!("nobody answers at {url}: {error}"),
            "look at the node's log",
        ),
    }
}

fn free(listen: SocketAddr) -> Finding {
    const CHECK: &str = "address";
    match TcpListener::bind(listen) {
        Ok(_) => Finding::ok(CHECK, format!("{listen} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Finding::fail(
            CHECK,
            format!("{listen} belongs to another program"),
            "stop it, or choose another address with `listen`",
        ),
        Err(error) => Finding::fail(
            CHECK,
            format!("cannot listen on {listen}: {error}"),
            "ports below 1024 need privileges; the address must be one of this machine",
        ),
    }
}

/// The certificate of the TLS listener.
pub(super) fn certificate(overview: &Overview, is_running: bool) -> Vec<Finding> {
    if !overview.has_tls {
        return Vec::new();
    }
    let now = OffsetDateTime::now_utc().unix_timestamp();
    vec![match overview.certificate_until {
        Some(until) => certificate_finding(until.saturating_sub(now)),
        None => Finding::warn(
            "certificate",
            match is_running {
                true => "there is none yet",
                false => "there is none in a file; the node asks for one when it runs",
            },
            "the node's log says how asking the certificate authority went",
        ),
    }]
}

fn certificate_finding(seconds_left: i64) -> Finding {
    const CHECK: &str = "certificate";
    let days = seconds_left.div_euclid(86_400);
    if seconds_left <= 0 {
        return Finding::fail(
            CHECK,
            "has expired",
            "put a new one into its file, or see in the node's log why it is not renewed",
        );
    }
    if days < SOON_DAYS {
        return Finding::warn(
            CHECK,
            format!("expires in {days} days"),
            "put a new one into its file, or see in the node's log why it is not renewed",
        );
    }
    Finding::ok(CHECK, format!("good for {days} days"))
}

/// Settings that let others reach what they should not, or not reach what they should.
pub(super) fn exposure(effective: &Effective, listen: SocketAddr) -> Vec<Finding> {
    const CHECK: &str = "exposure";
    let node = &effective.settings.node;
    let mut findings = Vec::new();
    if !listen.ip().is_loopback() {
        findings.push(Finding::warn(
            CHECK,
            format!("{listen} is reached by other machines without TLS"),
            "listen on 127.0.0.1, with `tls.listen` or a reverse proxy for others, unless the network is yours alone",
        ));
    }
    if node.is_public && node.public_host.is_none() {
        findings.push(Finding::warn(
            CHECK,
            "public is set without public_host",
            "set public_host: links and security keys need the name, and other names are refused",
        ));
    }
    if node.monitoring_is_open
        && node
            .monitoring
            .is_some_and(|address| !address.ip().is_loopback())
    {
        findings.push(Finding::warn(
            CHECK,
            "monitoring is reached by other machines, and its token crosses the network unencrypted",
            "let the monitoring program run here, or forward a port through ssh",
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            match &node.public_host {
                Some(host) => {
                    format!("this machine alone reaches {listen}; others go through {host}")
                }
                None => format!("this machine alone reaches {listen}"),
            },
        ));
    }
    findings
}

/// The clock of somebody who should know.
pub(super) async fn time(source: &str) -> Finding {
    const CHECK: &str = "clock";
    let date = match HttpTransport::new(source) {
        Ok(transport) => transport.date().await,
        Err(failure) => return Finding::of(CHECK, &failure),
    };
    let date = match date {
        Ok(date) => date,
        Err(failure) => return Finding::of(CHECK, &failure),
    };
    match http_date(&date) {
        Some(theirs) => compared(source, SystemTime::now(), theirs),
        None => Finding::warn(CHECK, format!("{source} tells no time"), "ask another one"),
    }
}

fn compared(source: &str, ours: SystemTime, theirs: SystemTime) -> Finding {
    let apart = ours
        .duration_since(theirs)
        .unwrap_or_else(|error| error.duration());
    let message = format!("{} s away from {source}", apart.as_secs());
    if apart > MAX_CLOCK_ERROR {
        return Finding::fail("clock", message, "set the clock (NTP)");
    }
    Finding::ok("clock", message)
}

fn http_date(text: &str) -> Option<SystemTime> {
    const FORM: &[FormatItem<'_>] = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let time: OffsetDateTime = PrimitiveDateTime::parse(text, FORM).ok()?.assume_utc();
    Some(time.into())
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn the_date_of_an_answer_is_compared() {
        let theirs = http_date("Sat, 21 Nov 2026 18:04:32 GMT").unwrap();
        assert_eq!(
            theirs,
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_284_272)
        );
        assert!(http_date("yesterday").is_none());
        let level = |seconds| compared("x", theirs + Duration::from_secs(seconds), theirs).level;
        assert_eq!(
            (level(0), level(60), level(61)),
            (Level::Ok, Level::Ok, Level::Fail)
        );
        let behind = compared("x", theirs - Duration::from_secs(100), theirs);
        assert_eq!(behind.level, Level::Fail);
    }

    #[test]
    fn a_certificate_is_looked_at_in_time() {
        let level = |days: i64| certificate_finding(days * 86_400).level;
        assert_eq!((level(0), level(-3)), (Level::Fail, Level::Fail));
        assert_eq!((level(13), level(14)), (Level::Warn, Level::Ok));
    }

    #[test]
    fn an_address_in_use_is_told() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(free(taken.local_addr().unwrap()).level, Level::Fail);
        assert_eq!(free("127.0.0.1:0".parse().unwrap()).level, Level::Ok);
    }
}
