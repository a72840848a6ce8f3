//! Where one HTTP/1 request ends and the next begins (Spec: 40 DOS-9).
//!
//! [`Heads`] and [`Body`] are fed the bytes of a connection in any pieces and say how many of them belong to whole, checked
//! heads and to well-formed bodies. They decode nothing: the HTTP library does that, and because it sees only what
//! passed here the two cannot disagree.

use super::head::{Framing, Head, HeadRefusal, HeadScanner, check, is_token};

/// Longest line with the size of a chunk, extensions included.
const MAX_CHUNK_LINE_BYTES: usize = 256;
/// Most hex digits of the size of a chunk: any such number fits 60 bits.
const MAX_CHUNK_DIGITS: usize = 15;
/// Longest trailer section of a chunked body.
const MAX_TRAILER_BYTES: usize = 8 << 10;

/// A chunked body that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunked body")]
pub(super) struct BadChunk;

/// The body of a request while it passes.
#[derive(Debug)]
pub(super) enum Body {
    /// Bytes that are left of a body of known length.
    Length(u64),
    /// A chunked body.
    Chunked(Chunks),
}

impl Body {
    pub(super) const fn new(framing: Framing) -> Self {
        match framing {
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Chunks {
                part: Part::Size,
                line: Vec::new(),
                trailer_bytes: 0,
            }),
        }
    }

    /// Returns true once all of it has passed.
    pub(super) const fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => matches!(chunks.part, Part::Over),
        }
    }

    /// Takes the bytes at the front of `bytes` that belong to this body and returns how many they are.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        match self {
            Self::Length(left) => {
                let count = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                *left -= count as u64;
                Ok(count)
            }
            Self::Chunked(chunks) => chunks.pass(bytes),
        }
    }
}

/// A chunked body.
#[derive(Debug)]
pub(super) struct Chunks {
    part: Part,
    /// The line that is being read.
    line: Vec<u8>,
    trailer_bytes: usize,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    /// The line with the size.
    Size,
    /// The bytes of a chunk that are left.
    Data(u64),
    /// The line end after the bytes.
    DataEnd,
    /// The lines after the last chunk.
    Trailer,
    /// The end.
    Over,
}

impl Chunks {
    fn pass(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let taken = match self.part {
                Part::Over => break,
                Part::Data(left) => {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    let left = left - count as u64;
                    self.part = if left == 0 {
                        Part::DataEnd
                    } else {
                        Part::Data(left)
                    };
                    count
                }
                Part::Size | Part::DataEnd | Part::Trailer => self.pass_line(rest)?,
            };
            rest = rest.get(taken..).unwrap_or_default();
        }
        Ok(bytes.len() - rest.len())
    }

    /// Takes bytes up to the end of the line, if it is there.
    fn pass_line(&mut self, bytes: &[u8]) -> Result<usize, BadChunk> {
        let max = match self.part {
            Part::DataEnd => 2,
            Part::Trailer => MAX_TRAILER_BYTES,
            _ => MAX_CHUNK_LINE_BYTES,
        };
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(bytes.len(), |at| at + 1);
        if self.line.len() + taken > max {
            return Err(BadChunk);
        }
        self.line
            .extend_from_slice(bytes.get(..taken).unwrap_or_default());
        if end.is_some() {
            let line = std::mem::take(&mut self.line);
            let text = line.strip_suffix(b"\r\n").ok_or(BadChunk)?;
            self.end_line(text)?;
            // The buffer is kept for the next line.
            self.line = line;
            self.line.clear();
        }
        Ok(taken)
    }

    fn end_line(&mut self, line: &[u8]) -> Result<(), BadChunk> {
        self.part = match self.part {
            Part::Size => match chunk_size(line)? {
                0 => Part::Trailer,
                size => Part::Data(size),
            },
            Part::DataEnd if line.is_empty() => Part::Size,
            Part::Trailer if line.is_empty() => Part::Over,
            Part::Trailer => {
                self.trailer_bytes += line.len() + 2;
                let colon = line.iter().position(|byte| *byte == b':').ok_or(BadChunk)?;
                let is_field = line.get(..colon).is_some_and(is_token)
                    && line.iter().all(|byte| *byte == b'\t' || *byte >= b' ');
                if !is_field || self.trailer_bytes > MAX_TRAILER_BYTES {
                    return Err(BadChunk);
                }
                Part::Trailer
            }
            _ => return Err(BadChunk),
        };
        Ok(())
    }
}

/// Reads the size of a chunk: hex digits, then nothing or an extension, which means nothing to us.
fn chunk_size(line: &[u8]) -> Result<u64, BadChunk> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let extension = line.get(digits..).unwrap_or_default();
    let is_plain = extension.is_empty()
        || (extension.starts_with(b";")
            && extension.iter().all(|byte| (b' '..0x7f).contains(byte)));
    if !(1..=MAX_CHUNK_DIGITS).contains(&digits) || !is_plain {
        return Err(BadChunk);
    }
    let text = line
        .get(..digits)
        .and_then(|digits| std::str::from_utf8(digits).ok());
    text.and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or(BadChunk)
}

/// The heads of a connection, one after the other.
#[derive(Debug, Default)]
pub(super) struct Heads(HeadScanner);

impl Heads {
    /// Looks for a whole head at the front of `bytes`; returns it with its length when it is there and good.
    pub(super) fn next(&mut self, bytes: &[u8]) -> Result<Option<(Head, usize)>, HeadRefusal> {
        let Some(length) = self.0.find_end(bytes)? else {
            return Ok(None);
        };
        self.0 = HeadScanner::default();
        let head = check(bytes.get(..length).unwrap_or_default())?;
        Ok(Some((head, length)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunked(text: &str) -> Result<(usize, bool), BadChunk> {
        let mut body = Body::new(Framing::Chunked);
        let passed = body.pass(text.as_bytes())?;
        Ok((passed, body.is_over()))
    }

    #[test]
    fn chunked_bodies_end_where_they_end() {
        for body in [
            "0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
            "5;a=b\r\nhello\r\n000\r\n\r\n",
            "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\nX: y\r\nZ:\r\n\r\n",
        ] {
            let more = format!("{body}POST / HTTP/1.1");
            assert_eq!(chunked(&more), Ok((body.len(), true)), "{body:?}");
            assert_eq!(
                chunked(&body[..body.len() - 1]),
                Ok((body.len() - 1, false))
            );
        }
    }

    #[test]
    fn dos_9_malformed_chunks_are_refused() {
        for body in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x5\r\nhello\r\n",
            " 5\r\nhello\r\n",
            "5 \r\nhello\r\n",
            "5\nhello\r\n",
            "5;a\rb\r\nhello\r\n",
            "5;a\nb",
            "5\r\nhello0\r\n",
            "5\r\nhello\n0\r\n",
            "5\r\nhello!\r\n",
            "ffffffffffffffff\r\n",
            "10000000000000000\r\n",
            "00000000000000000005\r\n",
            "0\r\nX y\r\n",
            "0\r\nX : y\r\n",
            "0\r\n X: y\r\n",
            "0\r\nX: y\n",
            "0\r\nX: \0\r\n",
        ] {
            assert_eq!(chunked(body), Err(BadChunk), "{body:?}");
        }
        assert_eq!(
            chunked(&format!("5;{}", "a".repeat(MAX_CHUNK_LINE_BYTES))),
            Err(BadChunk)
        );
        assert_eq!(
            chunked(&format!("0\r\n{}", "X: y\r\n".repeat(2000))),
            Err(BadChunk)
        );
        assert_eq!(
            chunked(&format!("0\r\nX: {}", "a".repeat(9000))),
            Err(BadChunk)
        );
    }

    proptest! {
        /// The end of a body does not depend on how its bytes arrive, and nothing panics.
        #[test]
        fn pieces_do_not_matter(text in "[0-9a-f;x\r\n: ]{0,64}", cuts in prop::collection::vec(1usize..9, 0..64)) {
            let whole = chunked(&text);
            let mut body = Body::new(Framing::Chunked);
            let mut rest = text.as_bytes();
            let mut passed = Ok(0);
            for cut in cuts.into_iter().chain(std::iter::repeat(7)) {
                if rest.is_empty() || body.is_over() {
                    break;
                }
                let piece = &rest[..cut.min(rest.len())];
                match body.pass(piece) {
                    Ok(count) => {
                        passed = passed.map(|sum: usize| sum + count);
                        rest = &rest[count..];
                    }
                    Err(bad) => {
                        passed = Err(bad);
                        break;
                    }
                }
            }
            prop_assert_eq!(whole, passed.map(|count| (count, body.is_over())));
        }
    }
}
