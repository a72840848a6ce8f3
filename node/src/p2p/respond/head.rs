//! The head of a request: bounded while it is read, and checked before anything of it is believed.

use std::io;

use bytes::BytesMut;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::super::{MAX_BODY_BYTES, MAX_REQUEST_LINE_BYTES};
use crate::{
    error::Refusal,
    http::{Framing, check_head},
};

/// Most bytes of all header lines together.
const MAX_HEADER_BYTES: usize = 8192;

/// Most bytes of a head, the line ends between its parts included.
const MAX_HEAD_BYTES: usize = MAX_REQUEST_LINE_BYTES + MAX_HEADER_BYTES + 6;

/// Reads until the head is complete; returns its length, or why it is refused.
pub(super) async fn read_head(
    read: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<Result<usize, Refusal>> {
    let mut scanned = 0;
    loop {
        let from = scanned.max(3) - 3;
        let rest = buffer.get(from..).unwrap_or_default();
        if let Some(at) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
            return Ok(
                limits(buffer.get(..from + at + 4).unwrap_or_default()).map(|()| from + at + 4)
            );
        }
        scanned = buffer.len();
        if let Err(refusal) = limits(buffer) {
            return Ok(Err(refusal));
        }
        let room = MAX_HEAD_BYTES + 1 - buffer.len().min(MAX_HEAD_BYTES);
        buffer.reserve(room.min(4096));
        if read.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Checks the limits of a head, complete or not.
fn limits(head: &[u8]) -> Result<(), Refusal> {
    let line = head.windows(2).position(|two| two == b"\r\n");
    if line.unwrap_or(head.len()) > MAX_REQUEST_LINE_BYTES {
        return Err(Refusal::Head {
            status: StatusCode::URI_TOO_LONG,
            text: format!("Request line exceeds {MAX_REQUEST_LINE_BYTES} bytes"),
        });
    }
    let headers = line.map_or(0, |line| head.len() - line - 2);
    if headers > MAX_HEADER_BYTES + 2 {
        return Err(Refusal::Head {
            status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            text: format!("Request headers exceed {MAX_HEADER_BYTES} bytes"),
        });
    }
    Ok(())
}

/// Makes a request of a complete head; returns the length of the body too.
pub(super) fn parse(bytes: &[u8]) -> Result<(Request<()>, u64), Refusal> {
    let refuse = |status, text: &str| Refusal::Head {
        status,
        text: text.to_owned(),
    };
    let invalid = || refuse(StatusCode::BAD_REQUEST, "Invalid request");
    let head = check_head(bytes).map_err(|error| refuse(error.status(), &error.to_string()))?;
    let Framing::Length(length) = head.framing else {
        return Err(refuse(
            StatusCode::LENGTH_REQUIRED,
            "Request without content-length",
        ));
    };
    if length > MAX_BODY_BYTES as u64 {
        return Err(refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("Input exceeds maximum size of {MAX_BODY_BYTES} bytes"),
        ));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| invalid())?;
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let method = first.next().unwrap_or_default();
    let target = first.next().unwrap_or_default();
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).map_err(|_| invalid())?;
    *request.uri_mut() = target.parse::<Uri>().map_err(|_| invalid())?;
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(invalid)?;
        // Nothing else of what a peer says about a request is believed or needed.
        for kept in [header::HOST, header::CONTENT_TYPE] {
            if name.eq_ignore_ascii_case(kept.as_str()) {
                let value = HeaderValue::from_str(value.trim_matches([' ', '\t']))
                    .map_err(|_| invalid())?;
                request.headers_mut().append(kept, value);
            }
        }
    }
    Ok((request, length))
}
