//! A load generator for HTTP/1.1: each connection is a thread that sends one request after the other.
//!
//! Small on purpose, because on a small machine it shares the processors with the node: requests are prepared
//! before the clock starts, replies are only framed, not parsed. Bounded in count and time.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

/// What a run of the generator measured.
#[derive(Debug, Clone)]
pub struct Load {
    /// Requests answered with status 200.
    pub answered: usize,
    /// Requests answered otherwise.
    pub refused: usize,
    /// Body bytes received.
    pub body_bytes: u64,
    /// From the first request to the last answer.
    pub took: Duration,
    /// Time of each answer, ascending.
    pub latencies: Vec<Duration>,
}

impl Load {
    /// Returns answers per second.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "counts are small")]
        let answered = self.answered as f64;
        answered / self.took.as_secs_f64().max(1e-9)
    }

    /// Returns the latency that `percent` of the answers did not exceed.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let index = self.latencies.len() * percent / 100;
        self.latencies
            .get(index.min(last))
            .copied()
            .unwrap_or_default()
    }
}

/// Prepares a request as the client sends it: POST, empty body. `target` has no leading slash.
#[must_use]
pub fn request(authority: &str, target: &str) -> Vec<u8> {
    format!("POST /{target} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 0\r\n\r\n")
        .into_bytes()
}

/// Sends `requests` in turn over `connections` for `duration`.
///
/// # Errors
///
/// When a connection breaks.
pub fn run(
    address: SocketAddr,
    requests: &Arc<Vec<Vec<u8>>>,
    connections: usize,
    duration: Duration,
) -> io::Result<Load> {
    if requests.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no requests"));
    }
    let begin = Instant::now();
    let workers: Vec<_> = (0..connections)
        .map(|number| {
            let requests = Arc::clone(requests);
            std::thread::spawn(move || {
                worker(address, &requests, number, connections, begin + duration)
            })
        })
        .collect();
    let mut total = Load {
        answered: 0,
        refused: 0,
        body_bytes: 0,
        took: Duration::ZERO,
        latencies: Vec::new(),
    };
    for worker in workers {
        let part = worker
            .join()
            .map_err(|_| io::Error::other("a connection's thread panicked"))??;
        total.answered += part.answered;
        total.refused += part.refused;
        total.body_bytes += part.body_bytes;
        total.latencies.extend(part.latencies);
    }
    total.took = begin.elapsed();
    total.latencies.sort_unstable();
    Ok(total)
}

fn worker(
    address: SocketAddr,
    requests: &[Vec<u8>],
    number: usize,
    step: usize,
    deadline: Instant,
) -> io::Result<Load> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(MAX_WAIT))?;
    let mut load = Load {
        answered: 0,
        refused: 0,
        body_bytes: 0,
        took: Duration::ZERO,
        latencies: Vec::with_capacity(1 << 16),
    };
    let mut reader = Reader::default();
    let mut next = number;
    loop {
        let sent = Instant::now();
        if sent >= deadline {
            return Ok(load);
        }
        let request = requests
            .get(next % requests.len())
            .map_or(&[][..], Vec::as_slice);
        next += step;
        stream.write_all(request)?;
        let (status, body_bytes) = reader.reply(&mut stream)?;
        load.latencies.push(sent.elapsed());
        load.body_bytes += body_bytes;
        if status == 200 {
            load.answered += 1;
        } else {
            load.refused += 1;
        }
    }
}

/// Frames replies.
#[derive(Debug)]
struct Reader {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Default for Reader {
    fn default() -> Self {
        Self {
            buffer: vec![0; 256 << 10],
            start: 0,
            end: 0,
        }
    }
}

impl Reader {
    /// Reads one reply and returns its status and body length.
    fn reply(&mut self, stream: &mut TcpStream) -> io::Result<(u16, u64)> {
        let head_len = loop {
            let pending = self.buffer.get(self.start..self.end).unwrap_or_default();
            if let Some(at) = find(pending, b"\r\n\r\n") {
                break at + 4;
            }
            self.fill(stream)?;
        };
        let head = self
            .buffer
            .get(self.start..self.start + head_len)
            .unwrap_or_default();
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "malformed reply");
        let status = head
            .get(9..12)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse().ok())
            .ok_or_else(malformed)?;
        let length = content_length(head).ok_or_else(malformed)?;
        self.start += head_len;
        let mut left = length;
        while left > 0 {
            if self.start == self.end {
                self.fill(stream)?;
            }
            let here = (self.end - self.start).min(usize::try_from(left).unwrap_or(usize::MAX));
            self.start += here;
            left -= here as u64;
        }
        Ok((status, length))
    }

    fn fill(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let space = self.buffer.get_mut(self.end..).unwrap_or_default();
        let read = stream.read(space)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.end += read;
        Ok(())
    }
}

fn content_length(head: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(head).ok()?;
    text.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    })
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// Longest wait for an answer.
const MAX_WAIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn replies_are_counted_whatever_way_they_arrive() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 1024];
            let mut number = 0;
            while stream.read(&mut buffer).is_ok_and(|read| read > 0) {
                number += 1;
                let status = if number % 2 == 0 { 400 } else { 200 };
                let reply = format!("HTTP/1.1 {status} X\r\ncontent-length: 5\r\n\r\nhello");
                for byte in reply.as_bytes().chunks(7) {
                    stream.write_all(byte).unwrap();
                }
            }
        });
        let requests = Arc::new(vec![request("localhost", "x")]);
        let load = run(address, &requests, 1, Duration::from_millis(50)).unwrap();
        assert!(load.answered >= load.refused && load.answered - load.refused <= 1);
        assert_eq!(load.body_bytes, 5 * load.latencies.len() as u64);
        server.join().unwrap();
    }
}
