//! A long line: what goes in comes out later, in both directions, at any rate.
//!
//! On loopback a round trip costs nothing, so that one too many is not seen. Through this it is.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

/// Longest piece that is carried as one.
const PIECE_BYTES: usize = 64 << 10;
/// Most pieces under way in one direction of a connection.
const MAX_PIECES: usize = 1024;

type Piece = (Instant, Vec<u8>);

/// Starts a line to `far`; returns the address of its near end. Each direction takes `delay`. It lasts as long as the process.
///
/// # Errors
///
/// When no port can be had.
pub fn start(far: SocketAddr, delay: Duration) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let near = listener.local_addr()?;
    thread::spawn(move || {
        for connection in listener.incoming() {
            // A connection that fails is closed, which its ends see.
            let _ = connection.and_then(|connection| carry(&connection, far, delay));
        }
    });
    Ok(near)
}

fn carry(near: &TcpStream, far: SocketAddr, delay: Duration) -> io::Result<()> {
    let far = TcpStream::connect(far)?;
    for stream in [near, &far] {
        stream.set_nodelay(true)?;
    }
    for (from, to) in [(near, &far), (&far, near)] {
        let (from, to) = (from.try_clone()?, to.try_clone()?);
        let (sender, receiver) = sync_channel(MAX_PIECES);
        thread::spawn(move || take(from, &sender, delay));
        thread::spawn(move || give(to, &receiver));
    }
    Ok(())
}

fn take(mut from: TcpStream, sender: &SyncSender<Piece>, delay: Duration) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        let bytes = piece.get(..length).unwrap_or_default().to_vec();
        if sender.send((Instant::now() + delay, bytes)).is_err() {
            return;
        }
    }
}

fn give(mut to: TcpStream, receiver: &Receiver<Piece>) {
    for (due, bytes) in receiver {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    // The other end has closed, or this one is broken.
    let _ = to.shutdown(Shutdown::Both);
}
