//! The head of an HTTP/1 request, read strictly before the HTTP library sees it (Spec: 05 §5, §8, 40 §9, DOS-9).
//!
//! Where two programs disagree on where a request ends, one of them can be made to see a request that the other
//! did not. So whatever a proxy in front of this node might read in another way is refused here: two lengths, a
//! length and a coding, codings other than `chunked`, signs, folded lines, bare CR or LF, blanks around names.
//! Limits are checked here too, because refusals of the HTTP library carry neither message nor headers.

use http::{StatusCode, Uri};

use crate::metrics::Limit;

/// Longest request line: bulk lookups put up to 20 tokens into the query.
pub(super) const MAX_LINE_BYTES: usize = 32 << 10;
/// Longest request head, request line and final empty line included.
pub(super) const MAX_HEAD_BYTES: usize = 64 << 10;
/// Most header lines.
pub(super) const MAX_HEADERS: usize = 64;
/// Longest method.
const MAX_METHOD_BYTES: usize = 32;
/// Most digits of a body length: any such number fits 64 bits.
const MAX_LENGTH_DIGITS: usize = 18;

/// Where the body after a head ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After this many bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
}

/// A head that was found good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    /// Where its body ends.
    pub(crate) framing: Framing,
    /// True for HTTP/1.0.
    pub(crate) is_old: bool,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadRefusal {
    /// The request line is longer than [`MAX_LINE_BYTES`].
    #[error("Request line exceeds {MAX_LINE_BYTES} bytes")]
    LineTooLong,
    /// The head is longer than [`MAX_HEAD_BYTES`] or has more than [`MAX_HEADERS`] lines.
    #[error("Request headers exceed {MAX_HEADERS} lines or {MAX_HEAD_BYTES} bytes")]
    TooLarge,
    /// The head did not arrive in time.
    #[error("Request headers were not received in time")]
    TooSlow,
    /// The request line is none.
    #[error("Invalid request line")]
    RequestLine,
    /// A version other than 1.0 and 1.1.
    #[error("Unsupported protocol version")]
    Version,
    /// A header line is none.
    #[error("Invalid request header")]
    Header,
    /// The length of the body is ambiguous or none.
    #[error("Invalid length of the request body")]
    Length,
    /// The body comes in a coding other than `chunked`, or with a length besides.
    #[error("Invalid transfer coding of the request body")]
    Coding,
}

impl HeadRefusal {
    /// Returns the status code.
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            Self::LineTooLong => StatusCode::URI_TOO_LONG,
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Returns the limit it ran into.
    pub(super) const fn limit(self) -> Limit {
        match self {
            Self::LineTooLong => Limit::Line,
            Self::TooLarge => Limit::Headers,
            Self::TooSlow => Limit::HeaderTime,
            _ => Limit::Malformed,
        }
    }
}

/// Finds the end of a head while it arrives.
#[derive(Debug, Default)]
pub(super) struct HeadScanner {
    /// Bytes that were looked at.
    scanned: usize,
    /// Where the current line begins.
    line: usize,
    /// Lines that are complete.
    lines: usize,
}

impl HeadScanner {
    /// Looks at `bytes`, the head so far with what may follow it; returns its length once it is complete.
    ///
    /// Refuses as early as can be: a line that is too long is never waited for.
    pub(super) fn find_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, HeadRefusal> {
        while let Some(offset) = bytes
            .get(self.scanned..)
            .and_then(|rest| rest.iter().position(|byte| *byte == b'\n'))
        {
            let end = self.scanned + offset;
            let line = bytes.get(self.line..end).unwrap_or_default();
            let Some(line) = line.strip_suffix(b"\r") else {
                return Err(self.malformed());
            };
            if self.lines == 0 && line.len() > MAX_LINE_BYTES {
                return Err(HeadRefusal::LineTooLong);
            }
            if end >= MAX_HEAD_BYTES || self.lines > MAX_HEADERS + 1 {
                return Err(HeadRefusal::TooLarge);
            }
            self.scanned = end + 1;
            self.line = self.scanned;
            if line.is_empty() && self.lines > 0 {
                return Ok(Some(self.scanned));
            }
            self.lines += 1;
        }
        self.scanned = bytes.len();
        if self.lines == 0 && bytes.len() > MAX_LINE_BYTES + 1 {
            return Err(HeadRefusal::LineTooLong);
        }
        if bytes.len() > MAX_HEAD_BYTES {
            return Err(HeadRefusal::TooLarge);
        }
        Ok(None)
    }

    const fn malformed(&self) -> HeadRefusal {
        if self.lines == 0 {
            HeadRefusal::RequestLine
        } else {
            HeadRefusal::Header
        }
    }
}

/// Checks a complete head, its final empty line included.
pub(crate) fn check(head: &[u8]) -> Result<Head, HeadRefusal> {
    let text = head
        .strip_suffix(b"\r\n\r\n")
        .ok_or(HeadRefusal::RequestLine)?;
    let mut lines = lines(text);
    let is_old = request_line(lines.next().unwrap_or_default())?;
    let mut length = None;
    let mut is_chunked = false;
    let mut count = 0;
    for line in lines {
        count += 1;
        if count > MAX_HEADERS {
            return Err(HeadRefusal::TooLarge);
        }
        let (name, value) = header(line)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.replace(content_length(value)?).is_some() {
                return Err(HeadRefusal::Length);
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if is_chunked || is_old || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadRefusal::Coding);
            }
            is_chunked = true;
        }
    }
    let framing = match (length, is_chunked) {
        (Some(_), true) => return Err(HeadRefusal::Coding),
        (None, true) => Framing::Chunked,
        (length, false) => Framing::Length(length.unwrap_or(0)),
    };
    Ok(Head { framing, is_old })
}

/// Splits at CR LF; a CR or LF that stands alone stays in its line, where it is no legal character.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        match text.windows(2).position(|pair| pair == b"\r\n") {
            Some(at) => {
                rest = text.get(at + 2..);
                text.get(..at)
            }
            None => rest.take(),
        }
    })
}

/// Checks `METHOD target HTTP/1.x` with single blanks; returns true for HTTP/1.0.
fn request_line(line: &[u8]) -> Result<bool, HeadRefusal> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(HeadRefusal::RequestLine);
    };
    if method.len() > MAX_METHOD_BYTES || !is_token(method) {
        return Err(HeadRefusal::RequestLine);
    }
    let is_visible = target.iter().all(u8::is_ascii_graphic);
    if !is_visible || Uri::try_from(target).is_err() {
        return Err(HeadRefusal::RequestLine);
    }
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        _ => Err(HeadRefusal::Version),
    }
}

/// Splits a header line; the value is without the blanks around it.
fn header(line: &[u8]) -> Result<(&[u8], &[u8]), HeadRefusal> {
    // A blank at the start of a line is the old way to continue the line before; it is no token either.
    let colon = line
        .iter()
        .position(|byte| *byte == b':')
        .ok_or(HeadRefusal::Header)?;
    let (name, value) = (line.get(..colon), line.get(colon + 1..));
    let (Some(name), Some(value)) = (name, value) else {
        return Err(HeadRefusal::Header);
    };
    let is_text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    if !is_token(name) || !value.iter().all(is_text) {
        return Err(HeadRefusal::Header);
    }
    Ok((name, trim(value)))
}

fn content_length(value: &[u8]) -> Result<u64, HeadRefusal> {
    let is_number =
        (1..=MAX_LENGTH_DIGITS).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    is_number
        .then(|| {
            value
                .iter()
                .fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'))
        })
        .ok_or(HeadRefusal::Length)
}

fn trim(value: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value
        .iter()
        .position(|byte| !is_blank(byte))
        .unwrap_or(value.len());
    let end = value
        .iter()
        .rposition(|byte| !is_blank(byte))
        .map_or(start, |at| at + 1);
    value.get(start..end).unwrap_or_default()
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(
                    byte,
                    b'!' | b'#'
                        | b'$'
                        | b'%'
                        | b'&'
                        | b'\''
                        | b'*'
                        | b'+'
                        | b'-'
                        | b'.'
                        | b'^'
                        | b'_'
                        | b'`'
                        | b'|'
                        | b'~'
                )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(headers: &str) -> Result<Head, HeadRefusal> {
        check(format!("POST /api/v0/id HTTP/1.1\r\nHost: x\r\n{headers}\r\n").as_bytes())
    }

    #[test]
    fn honest_heads_pass() {
        let framing = |headers: &str| with(headers).unwrap().framing;
        assert_eq!(framing(""), Framing::Length(0));
        assert_eq!(framing("Content-Length: 17\r\n"), Framing::Length(17));
        assert_eq!(framing("content-length:\t0017 \r\n"), Framing::Length(17));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Framing::Chunked);
        assert_eq!(
            framing("Empty:\r\nLatin: caf\u{e9}\r\nTab: a\tb\r\n"),
            Framing::Length(0)
        );
        assert_eq!(
            framing("Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"),
            Framing::Length(0)
        );
        let old = check(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        assert!(old.is_old);
        for target in [
            "*",
            "http://localhost:8000/x?y=%zz",
            "//x",
            "/{}|^`\"<>[]",
            "/a?b=c+d",
        ] {
            let head = format!("POST {target} HTTP/1.1\r\n\r\n");
            let is_good = check(head.as_bytes()).is_ok();
            // The HTTP library decides what a target is; what matters is that it never sees another one.
            assert_eq!(is_good, Uri::try_from(target).is_ok(), "{target}");
        }
    }

    #[test]
    fn dos_9_ambiguous_heads_are_refused() {
        for (headers, refusal) in [
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                HeadRefusal::Coding,
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
                HeadRefusal::Coding,
            ),
            ("Transfer-Encoding: gzip, chunked\r\n", HeadRefusal::Coding),
            (
                "Transfer-Encoding: chunked, identity\r\n",
                HeadRefusal::Coding,
            ),
            ("Transfer-Encoding: identity\r\n", HeadRefusal::Coding),
            ("Transfer-Encoding: xchunked\r\n", HeadRefusal::Coding),
            ("Transfer-Encoding: \"chunked\"\r\n", HeadRefusal::Coding),
            ("Transfer-Encoding: \x0bchunked\r\n", HeadRefusal::Header),
            ("Transfer-Encoding:\r\n", HeadRefusal::Coding),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                HeadRefusal::Coding,
            ),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow\r\n",
                HeadRefusal::Coding,
            ),
            ("Transfer-Encoding : chunked\r\n", HeadRefusal::Header),
            ("Transfer-Encoding\t: chunked\r\n", HeadRefusal::Header),
            (" Transfer-Encoding: chunked\r\n", HeadRefusal::Header),
            (
                "X: y\r\n Transfer-Encoding: chunked\r\n",
                HeadRefusal::Header,
            ),
            ("X: y\r\n\tfolded\r\n", HeadRefusal::Header),
            (
                "Content-Length: 5\r\nContent-Length: 5\r\n",
                HeadRefusal::Length,
            ),
            (
                "Content-Length: 5\r\nContent-Length: 6\r\n",
                HeadRefusal::Length,
            ),
            ("Content-Length: 5, 5\r\n", HeadRefusal::Length),
            ("Content-Length: +5\r\n", HeadRefusal::Length),
            ("Content-Length: -5\r\n", HeadRefusal::Length),
            ("Content-Length: 0x5\r\n", HeadRefusal::Length),
            ("Content-Length: 5 5\r\n", HeadRefusal::Length),
            ("Content-Length:\r\n", HeadRefusal::Length),
            (
                "Content-Length: 18446744073709551621\r\n",
                HeadRefusal::Length,
            ),
            (
                "Content-Length: 99999999999999999999999999\r\n",
                HeadRefusal::Length,
            ),
            ("X: a\rContent-Length: 5\r\n", HeadRefusal::Header),
            ("X: a\nContent-Length: 5\r\n", HeadRefusal::Header),
            ("X: a\0b\r\n", HeadRefusal::Header),
            ("X\r\n", HeadRefusal::Header),
            (": y\r\n", HeadRefusal::Header),
            ("X(y): z\r\n", HeadRefusal::Header),
            ("X\u{e9}: z\r\n", HeadRefusal::Header),
        ] {
            assert_eq!(with(headers), Err(refusal), "{headers:?}");
        }
        for (line, refusal) in [
            ("GET  / HTTP/1.1", HeadRefusal::RequestLine),
            ("GET\t/ HTTP/1.1", HeadRefusal::RequestLine),
            ("GET / HTTP/1.1 ", HeadRefusal::RequestLine),
            (" GET / HTTP/1.1", HeadRefusal::RequestLine),
            ("GET /\rx HTTP/1.1", HeadRefusal::RequestLine),
            ("GET /", HeadRefusal::RequestLine),
            ("G(T / HTTP/1.1", HeadRefusal::RequestLine),
            ("GET /\u{e9} HTTP/1.1", HeadRefusal::RequestLine),
            ("PRI * HTTP/2.0", HeadRefusal::Version),
            ("GET / HTTP/1.2", HeadRefusal::Version),
            ("GET / http/1.1", HeadRefusal::Version),
            ("GET / HTTP/01.1", HeadRefusal::Version),
        ] {
            let head = format!("{line}\r\nHost: x\r\n\r\n");
            assert_eq!(check(head.as_bytes()), Err(refusal), "{line:?}");
        }
        let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(check(old), Err(HeadRefusal::Coding));
    }

    #[test]
    fn the_end_is_found_whatever_the_pieces() {
        let head = b"POST /x HTTP/1.1\r\nHost: y\r\nA: b\r\n\r\n";
        let all = [head.as_slice(), b"body"].concat();
        for cut in 0..all.len() {
            let mut scanner = HeadScanner::default();
            let first = scanner.find_end(&all[..cut]).unwrap();
            assert_eq!(first, (cut >= head.len()).then_some(head.len()));
            if first.is_none() {
                assert_eq!(scanner.find_end(&all), Ok(Some(head.len())));
            }
        }
        let bare = HeadScanner::default().find_end(b"GET / HTTP/1.1\nHost: x\n\n");
        assert_eq!(bare, Err(HeadRefusal::RequestLine));
        let bare = HeadScanner::default().find_end(b"GET / HTTP/1.1\r\nHost: x\n\n");
        assert_eq!(bare, Err(HeadRefusal::Header));
    }

    #[test]
    fn heads_are_cut_at_their_limits() {
        let end = |head: &str| HeadScanner::default().find_end(head.as_bytes());
        let line = |length: usize| format!("GET /{} HTTP/1.1\r\n", "a".repeat(length - 14));
        assert_eq!(
            end(&format!("{}\r\n", line(MAX_LINE_BYTES))),
            Ok(Some(MAX_LINE_BYTES + 4))
        );
        assert_eq!(
            end(&line(MAX_LINE_BYTES + 1)),
            Err(HeadRefusal::LineTooLong)
        );
        assert_eq!(
            end(&"a".repeat(MAX_LINE_BYTES + 2)),
            Err(HeadRefusal::LineTooLong)
        );
        let filler = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(MAX_HEAD_BYTES));
        assert_eq!(end(&filler), Err(HeadRefusal::TooLarge));
        let fits = format!(
            "GET / HTTP/1.1\r\nX: {}\r\n\r\n",
            "a".repeat(MAX_HEAD_BYTES - 23)
        );
        assert_eq!(fits.len(), MAX_HEAD_BYTES);
        assert_eq!(end(&fits), Ok(Some(MAX_HEAD_BYTES)));
        let many = |count: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(count));
        assert!(check(many(MAX_HEADERS).as_bytes()).is_ok());
        assert_eq!(
            check(many(MAX_HEADERS + 1).as_bytes()),
            Err(HeadRefusal::TooLarge)
        );
        assert_eq!(end(&many(5000)), Err(HeadRefusal::TooLarge));
    }
}
