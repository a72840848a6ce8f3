//! What the machine can do without us, measured in the same run.

use std::{
    convert::Infallible,
    fs::File,
    io::{self, Write},
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;

/// Writes `bytes` to one file with a flush to the disk every 5 MiB.
///
/// # Errors
///
/// Of the file system.
pub fn plain_write(folder: &Path, bytes: u64) -> io::Result<Duration> {
    let path = folder.join("plain-write");
    let mut state = 1_u64;
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    while chunk.len() < CHUNK_BYTES {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        chunk.extend_from_slice(&state.to_le_bytes());
    }
    let begin = Instant::now();
    let mut file = File::create(&path)?;
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK_BYTES);
        file.write_all(chunk.get(..part).unwrap_or_default())?;
        file.sync_data()?;
        left -= part as u64;
    }
    let took = begin.elapsed();
    std::fs::remove_file(path)?;
    Ok(took)
}

/// Starts an HTTP server in this process that answers everything with the same `body`, and returns its address.
///
/// # Errors
///
/// When it cannot listen.
pub fn static_http(body: Vec<u8>) -> io::Result<SocketAddr> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    let body = Bytes::from(body);
    std::thread::spawn(move || {
        runtime.block_on(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let body = body.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |_: Request<Incoming>| {
                        let body = body.clone();
                        async move { Ok::<_, Infallible>(Response::new(Full::new(body))) }
                    });
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
    });
    Ok(address)
}

const CHUNK_BYTES: usize = 5 << 20;
