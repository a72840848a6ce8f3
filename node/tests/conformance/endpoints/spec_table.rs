//! The spec's table against ours, and both against the table the node routes by.

use std::collections::BTreeMap;

use pki::wire::call::{Call, Home};

use super::{Auth, Kind, Takes, rows};

/// One row of the spec.
struct Row {
    changes: bool,
    params: Vec<(String, bool)>,
    body: String,
    auth: String,
    home: String,
}

/// Reads the table of Spec: 05 §12.
fn spec() -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::new();
    let mut prefix = String::new();
    for line in include_str!("../../vectors/endpoint_table.md")
        .lines()
        .skip(2)
    {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        if let Some(rest) = cells[0].strip_prefix("**/") {
            prefix = rest.split("**").next().unwrap().to_owned();
            continue;
        }
        let params = cells[1]
            .split(" (")
            .next()
            .unwrap()
            .split(',')
            .map(str::trim)
            .filter(|param| !param.is_empty())
            .map(|param| {
                let name = param.trim_end_matches('?');
                let name = name.split('=').next().unwrap();
                (name.to_owned(), param.ends_with('?'))
            })
            .collect::<Vec<_>>();
        let mut names = cells[0].split('`').skip(1);
        while let (Some(name), after) = (names.next(), names.next()) {
            let name = name.trim_end_matches("/<prefix>");
            let changes = after.is_some_and(|after| after.starts_with(" W"));
            let row = Row {
                changes,
                params: params.clone(),
                body: cells[2].to_owned(),
                auth: cells[4].to_owned(),
                home: cells[5].to_owned(),
            };
            assert!(rows.insert(format!("{prefix}{name}"), row).is_none());
        }
    }
    rows
}

#[test]
fn every_row_of_the_spec_is_ours_and_every_route_is_a_row() {
    let spec = spec();
    let ours: BTreeMap<&str, _> = rows()
        .into_iter()
        .map(|row| (row.call.path(), row))
        .collect();
    assert_eq!(ours.len(), rows().len(), "an endpoint has two rows");
    let routed: Vec<&str> = Call::ALL.iter().map(|call| call.path()).collect();
    for path in &routed {
        assert!(ours.contains_key(path), "{path} is routed and has no row");
        assert!(spec.contains_key(*path), "{path} is not in the spec");
    }
    assert_eq!(spec.len(), routed.len());
    for (path, wanted) in &spec {
        let row = ours
            .get(path.as_str())
            .unwrap_or_else(|| panic!("{path} has no row"));
        // Names with a long description are in the chapter that the row points to.
        if path.starts_with("peergos/v0/core/") {
            assert!(row.params.is_empty() || path.ends_with("getUsernamesGzip"));
        } else {
            let mut named: Vec<(String, bool)> = row
                .params
                .iter()
                .map(|param| (param.name.to_owned(), param.is_optional))
                .collect();
            match row.auth {
                Auth::Own => {}
                _ => named.push(("auth".to_owned(), false)),
            }
            let mut expected = wanted.params.clone();
            named.sort();
            expected.sort();
            assert_eq!(named, expected, "{path}");
        }
        let seconds = match row.auth {
            Auth::Own => None,
            Auth::Time(seconds) => Some(format!("sT({seconds})")),
            Auth::Request(86_400) | Auth::OnceRequest => Some("sR(24 h)".to_owned()),
            Auth::Request(seconds) => Some(format!("sR({seconds})")),
        };
        match seconds {
            Some(seconds) => assert!(wanted.auth.contains(&seconds), "{path} {}", wanted.auth),
            None => assert!(
                !wanted.auth.starts_with("sT(") && !wanted.auth.starts_with("sR("),
                "{path}"
            ),
        }
        let has_body = !wanted.body.starts_with('-');
        assert_eq!(row.takes != Takes::Nothing, has_body, "{path}");
        assert_eq!(row.call.max_body_bytes().is_some(), has_body, "{path}");
        let limit = wanted.body.split(", ").filter_map(|part| match part {
            "1 MiB" => Some(1 << 20),
            number => number.parse().ok(),
        });
        for limit in limit {
            // A request of the full length must be removable, so its signature comes on top.
            let signature = if path.ends_with("removeFollowRequest") {
                64
            } else {
                0
            };
            assert_eq!(row.takes, Takes::AtMost(limit + signature), "{path}");
        }
        // Moving several pointers changes state, and so does a look at a link.
        assert_eq!(row.call.changes_state(), wanted.changes, "{path}");
        let is_forwarded = wanted.home.starts_with("yes");
        let forwards = row.call.home() == Home::Forwarded;
        assert_eq!(forwards, is_forwarded, "{path}");
        let is_about_a_user = row
            .params
            .iter()
            .any(|param| matches!(param.kind, Kind::Owner | Kind::User));
        assert!(is_about_a_user || !is_forwarded, "{path}");
    }
}
