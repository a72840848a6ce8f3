//! The legacy multipart block upload (Spec: 05 §10): accepted, never sent by current clients.

use bytes::Bytes;
use http::{HeaderMap, header};

use crate::error::Refusal;

/// Longest header line of a part, in bytes.
const MAX_LINE_BYTES: usize = 1024;
/// Most parts of one body.
const MAX_PARTS: usize = 1000;
/// Longest boundary, in bytes.
const MAX_BOUNDARY_BYTES: usize = 70;

/// Returns the boundary: what follows the first `=` of a content type that names one.
pub(crate) fn boundary(headers: &HeaderMap) -> Result<String, Refusal> {
    let missing = || Refusal::malformed("No multipart boundary in Content-Type");
    let value = headers
        .get_all(header::CONTENT_TYPE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find(|value| value.contains("boundary="))
        .ok_or_else(missing)?;
    let (_, boundary) = value.split_once('=').ok_or_else(missing)?;
    if boundary.is_empty() || boundary.len() > MAX_BOUNDARY_BYTES {
        return Err(missing());
    }
    Ok(boundary.to_owned())
}

/// Splits a body into the contents of its parts, sharing its memory.
pub(crate) fn parts(body: &Bytes, boundary: &str) -> Result<Vec<Bytes>, Refusal> {
    let ends_early = || Refusal::malformed("Multipart body ends early");
    let (first, mut at) = line(body, 0).ok_or_else(ends_early)?;
    let wanted = format!("--{boundary}");
    if first != wanted.as_bytes() {
        let found = String::from_utf8_lossy(first.get(2..).unwrap_or_default())
            .chars()
            .filter(|c| c.is_ascii_graphic())
            .take(MAX_BOUNDARY_BYTES)
            .collect::<String>();
        return Err(Refusal::malformed(format!(
            "Incorrect boundary! {boundary} != {found}"
        )));
    }
    let separator = format!("\r\n{wanted}").into_bytes();
    let mut parts = Vec::new();
    loop {
        // Header lines, up to an empty one; what they say does not matter.
        loop {
            let (header, next) = line(body, at).ok_or_else(ends_early)?;
            at = next;
            if header.is_empty() {
                break;
            }
        }
        let rest = body.get(at..).unwrap_or_default();
        let length = find(rest, &separator).ok_or_else(ends_early)?;
        if parts.len() == MAX_PARTS {
            return Err(Refusal::malformed("Too many parts"));
        }
        parts.push(body.slice(at..at + length));
        at += length + separator.len();
        let after = body.get(at..).unwrap_or_default();
        match line(body, at) {
            Some((tail, next)) if !tail.is_empty() && tail != b"--" => at = next,
            Some((b"", next)) if next < body.len() => at = next,
            _ if after.starts_with(b"--") || after.is_empty() || after == b"\r\n" => {
                return Ok(parts);
            }
            _ => return Ok(parts),
        }
    }
}

/// Returns the line at `at` without its end, and where the next one begins.
fn line(body: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let rest = body.get(at..)?;
    let window = rest.get(..rest.len().min(MAX_LINE_BYTES + 2))?;
    let length = find(window, b"\r\n")?;
    Some((rest.get(..length)?, at + length + 2))
}

/// Finds `wanted` by its first byte: linear for every input, since boundaries are short.
fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(body: &[u8]) -> Result<Vec<Bytes>, Refusal> {
        parts(&Bytes::copy_from_slice(body), "b")
    }

    #[test]
    fn parts_are_split_whatever_their_headers_say() {
        let body = b"--b\r\nA: 1\r\n\r\none\r\n--b\r\n\r\ntw\r\no\r\n--b--\r\n";
        assert_eq!(split(body).unwrap(), [&b"one"[..], &b"tw\r\no"[..]]);
        assert_eq!(split(b"--b\r\n\r\none\r\n--b--").unwrap(), [&b"one"[..]]);
    }

    #[test]
    fn a_wrong_boundary_is_named() {
        let error = split(b"--other\r\n\r\none\r\n--other--").unwrap_err();
        assert_eq!(error.to_string(), "Incorrect boundary! b != other");
    }

    #[test]
    fn truncated_bodies_are_refused() {
        for bad in [
            &b""[..],
            b"--b",
            b"--b\r\n",
            b"--b\r\n\r\none",
            b"--b\r\nA: 1\r\none",
        ] {
            assert!(split(bad).is_err());
        }
    }

    #[test]
    fn dos_8_a_body_of_near_boundaries_takes_linear_time() {
        let mut body = b"--boundary\r\n\r\n".to_vec();
        body.extend(b"\r\n--bounda".repeat(100_000));
        assert!(parts(&Bytes::from(body), "boundary").is_err());
    }
}
