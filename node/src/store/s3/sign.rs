//! AWS signature version 4 for requests that clients make themselves (Spec: 06 §9.4).
//!
//! `object_store` signs URLs, but with its own set of headers and only for now; the protocol fixes both forms
//! below to the byte, and vectors with a given time prove them.

use std::{fmt, fmt::Write as _, time::SystemTime};

use champ::text::to_hex;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::store::SignedRequest;

/// How long a permit to read is valid, in seconds (Spec: 06 §9.2).
pub(super) const READ_SECONDS: u32 = 600;
const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const CONTENT_TYPE: &str = "application/octet-stream";

/// What requests are signed with.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) secret: String,
    /// Goes with credentials that are lent for a while.
    pub(super) session: Option<String>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Where a request goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    /// `https` or `http`.
    pub(super) scheme: &'a str,
    /// Host, with port unless it is the default one.
    pub(super) host: &'a str,
    /// Path with leading slash, not quoted.
    pub(super) path: &'a str,
    pub(super) region: &'a str,
}

/// Signs a request to read.
pub(super) fn presigned_get(key: &Key, target: Target<'_>, at: SystemTime) -> SignedRequest {
    let time = Time::of(at);
    let scope = scope(&time, target.region);
    let expires = READ_SECONDS.to_string();
    let credential = format!("{}/{scope}", key.id);
    let mut parameters = vec![
        ("X-Amz-Algorithm", ALGORITHM),
        ("X-Amz-Credential", credential.as_str()),
        ("X-Amz-Date", time.full.as_str()),
        ("X-Amz-Expires", expires.as_str()),
    ];
    if let Some(session) = &key.session {
        parameters.push(("X-Amz-Security-Token", session));
    }
    parameters.push(("X-Amz-SignedHeaders", "host"));
    let canonical = canonical_request(
        "GET",
        target.path,
        &query(&parameters),
        &[("host", target.host)],
        "UNSIGNED-PAYLOAD",
    );
    let signature = signature(key, &time, target.region, &canonical);
    // In the URL, too, parameters stand in the order of their names.
    parameters.insert(parameters.len() - 1, ("X-Amz-Signature", &signature));
    SignedRequest {
        url: format!(
            "{}://{}{}?{}",
            target.scheme,
            target.host,
            target.path,
            query(&parameters)
        ),
        headers: vec![("Host".to_owned(), target.host.to_owned())],
    }
}

/// Signs a request to write exactly the bytes with this digest and length.
pub(super) fn presigned_put(
    key: &Key,
    target: Target<'_>,
    digest: &[u8; 32],
    size_bytes: u32,
    at: SystemTime,
) -> SignedRequest {
    let time = Time::of(at);
    let digest = to_hex(digest);
    let length = size_bytes.to_string();
    let mut signed = vec![
        ("content-length", length.as_str()),
        ("content-type", CONTENT_TYPE),
        ("host", target.host),
        ("x-amz-content-sha256", digest.as_str()),
        ("x-amz-date", time.full.as_str()),
    ];
    if let Some(session) = &key.session {
        signed.push(("x-amz-security-token", session));
    }
    let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
    let canonical = canonical_request("PUT", target.path, "", &signed, &digest);
    let signature = signature(key, &time, target.region, &canonical);
    let authorization = format!(
        "{ALGORITHM} Credential={}/{},SignedHeaders={},Signature={signature}",
        key.id,
        scope(&time, target.region),
        names.join(";"),
    );
    let mut headers = vec![
        ("Authorization".to_owned(), authorization),
        ("Content-Length".to_owned(), length.clone()),
        ("Content-Type".to_owned(), CONTENT_TYPE.to_owned()),
        ("Host".to_owned(), target.host.to_owned()),
        ("x-amz-content-sha256".to_owned(), digest.clone()),
        ("x-amz-date".to_owned(), time.full.clone()),
    ];
    if let Some(session) = &key.session {
        headers.push(("x-amz-security-token".to_owned(), session.clone()));
    }
    SignedRequest {
        url: format!("{}://{}{}", target.scheme, target.host, target.path),
        headers,
    }
}

/// A moment in the two forms that signatures use.
struct Time {
    /// `YYYYMMDDThhmmssZ`
    full: String,
    /// `YYYYMMDD`
    date: String,
}

impl Time {
    fn of(at: SystemTime) -> Self {
        let at = time::OffsetDateTime::from(at);
        let date = format!("{:04}{:02}{:02}", at.year(), u8::from(at.month()), at.day());
        Self {
            full: format!(
                "{date}T{:02}{:02}{:02}Z",
                at.hour(),
                at.minute(),
                at.second()
            ),
            date,
        }
    }
}

fn scope(time: &Time, region: &str) -> String {
    format!("{}/{region}/s3/aws4_request", time.date)
}

/// Headers are lower case and sorted, values trimmed; the path is used as it is.
fn canonical_request(
    method: &str,
    path: &str,
    query: &str,
    headers: &[(&str, &str)],
    payload: &str,
) -> String {
    let mut out = format!("{method}\n{path}\n{query}\n");
    for (name, value) in headers {
        let _ = writeln!(out, "{name}:{}", value.trim());
    }
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let _ = write!(out, "\n{}\n{payload}", names.join(";"));
    out
}

fn signature(key: &Key, time: &Time, region: &str, canonical: &str) -> String {
    let to_sign = format!(
        "{ALGORITHM}\n{}\n{}\n{}",
        time.full,
        scope(time, region),
        to_hex(&Sha256::digest(canonical))
    );
    let mut first = format!("AWS4{}", key.secret);
    let mut derived = mac(first.as_bytes(), time.date.as_bytes());
    first.zeroize();
    for part in [region, "s3", "aws4_request"] {
        derived = mac(&derived, part.as_bytes());
    }
    let signature = to_hex(&mac(&derived, to_sign.as_bytes()));
    derived.zeroize();
    signature
}

fn mac(key: &[u8], message: &[u8]) -> [u8; 32] {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mut mac = <Hmac<Sha256>>::new_from_slice(key).expect("any key length is legal");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

/// Joins parameters, which are in the order of their names, form-encoded.
fn query(parameters: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{}={}", quoted(name), quoted(value)))
        .collect();
    pairs.join("&")
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use champ::Cid;
    use serde_json::Value;

    use super::*;

    const VECTORS: &str = include_str!("../../../tests/vectors/s3.json");

    /// 2022-04-19 08:05:34 UTC.
    fn moment() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_650_355_534)
    }

    fn check(case: &Value) {
        let text = |field: &str| case[field].as_str().unwrap();
        let key = Key {
            id: text("access_key").into(),
            secret: text("secret_key").into(),
            session: None,
        };
        let path = format!("/{}", text("path"));
        let target = Target {
            scheme: "https",
            host: text("host"),
            path: &path,
            region: text("region"),
        };
        assert_eq!(text("datetime"), Time::of(moment()).full);
        let request = match text("name") {
            "presign-get" => {
                assert_eq!(case["expires_seconds"], READ_SECONDS);
                presigned_get(&key, target, moment())
            }
            _ => {
                let cid: Cid = text("cid").parse().unwrap();
                let digest = cid.hash().sha2_256_digest().unwrap();
                assert_eq!(to_hex(digest), text("content_sha256"));
                let size = u32::try_from(case["size"].as_u64().unwrap()).unwrap();
                presigned_put(&key, target, digest, size, moment())
            }
        };
        assert_eq!(request.url, text("url"));
        let expected: Vec<(String, String)> = case["headers"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect();
        let mut made = request.headers.clone();
        made.sort();
        assert_eq!(made, expected);
        let record = pki::wire::direct_store::PresignedRequest {
            url: request.url,
            headers: request.headers,
        };
        assert_eq!(
            to_hex(&champ::cbor::Record::to_value(&record).encode()),
            text("cbor_hex")
        );
    }

    #[test]
    fn requests_are_signed_as_in_the_vectors() {
        let vectors: Value = serde_json::from_str(VECTORS).unwrap();
        let mut seen = [0; 3];
        for case in vectors["cases"].as_array().unwrap() {
            match case["name"].as_str().unwrap() {
                "presign-put" => {
                    seen[0] += 1;
                    check(case);
                }
                "presign-get" => {
                    seen[1] += 1;
                    check(case);
                }
                "s3-key" => {
                    seen[2] += 1;
                    let cid: Cid = case["cid"].as_str().unwrap().parse().unwrap();
                    assert_eq!(cid.storage_key(), case["key"].as_str().unwrap());
                }
                unknown => panic!("unknown case {unknown}"),
            }
        }
        assert_eq!(seen, [1, 1, 2]);
    }

    /// The example of a signed GET in the service's own documentation ("Authenticating Requests: Using Query
    /// Parameters"), which has other lifetime and path than ours: checked one level below.
    #[test]
    fn the_published_example_comes_out() {
        let key = Key {
            id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            session: None,
        };
        let time = Time::of(UNIX_EPOCH + Duration::from_secs(1_369_353_600));
        assert_eq!(time.full, "20130524T000000Z");
        let parameters = query(&[
            ("X-Amz-Algorithm", ALGORITHM),
            (
                "X-Amz-Credential",
                "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request",
            ),
            ("X-Amz-Date", "20130524T000000Z"),
            ("X-Amz-Expires", "86400"),
            ("X-Amz-SignedHeaders", "host"),
        ]);
        let canonical = canonical_request(
            "GET",
            "/test.txt",
            &parameters,
            &[("host", "examplebucket.s3.amazonaws.com")],
            "UNSIGNED-PAYLOAD",
        );
        assert_eq!(
            signature(&key, &time, "us-east-1", &canonical),
            "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }

    #[test]
    fn lent_credentials_bring_their_session() {
        let key = Key {
            session: Some("a/b+c".into()),
            id: "AKIDEXAMPLE".into(),
            secret: "SECRETEXAMPLE".into(),
        };
        let target = Target {
            scheme: "https",
            host: "h",
            path: "/p",
            region: "r",
        };
        let get = presigned_get(&key, target, moment());
        assert!(
            get.url
                .contains("&X-Amz-Security-Token=a%2Fb%2Bc&X-Amz-Signature=")
        );
        let put = presigned_put(&key, target, &[0; 32], 1, moment());
        assert!(
            put.headers
                .contains(&("x-amz-security-token".into(), "a/b+c".into()))
        );
        assert!(
            put.headers[0]
                .1
                .contains("x-amz-date;x-amz-security-token,")
        );
        assert_eq!(format!("{key:?} {put:?}"), "Key(..) SignedRequest(..)");
    }
}
