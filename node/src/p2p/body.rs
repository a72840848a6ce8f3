//! Bodies of requests and answers between nodes: streams of bytes with a known or bounded length.

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty, Full, combinators::UnsyncBoxBody};

use super::PeerError;

/// A body that arrives or is sent piece by piece.
pub type Body = UnsyncBoxBody<Bytes, PeerError>;

/// Returns a body of these bytes.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Returns a body of no bytes.
pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// Reads a whole body of at most `max` bytes; more is refused before it is kept.
///
/// # Errors
/// [`PeerError::TooLarge`], and whatever ends the body early.
pub async fn collect(mut body: Body, max: usize) -> Result<Bytes, PeerError> {
    let declared = body.size_hint().exact();
    if declared.is_some_and(|length| length > max as u64) {
        return Err(PeerError::TooLarge { max });
    }
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        if first.len() + all.len() + data.len() > max {
            return Err(PeerError::TooLarge { max });
        }
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            let expected = declared.and_then(|length| usize::try_from(length).ok());
            all.reserve(expected.unwrap_or(0).max(first.len() + data.len()));
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    #[tokio::test]
    async fn bodies_are_read_whole_or_not_at_all() {
        assert_eq!(collect(empty(), 0).await.unwrap(), Bytes::new());
        assert_eq!(collect(full("abc"), 3).await.unwrap(), "abc");
        assert!(matches!(
            collect(full("abc"), 2).await,
            Err(PeerError::TooLarge { max: 2 })
        ));
        let pieces = || {
            let pieces = ["ab", "cd", "e"].map(|piece| Ok(Frame::data(Bytes::from(piece))));
            StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync()
        };
        assert_eq!(collect(pieces(), 5).await.unwrap(), "abcde");
        assert!(collect(pieces(), 4).await.is_err());
    }
}
