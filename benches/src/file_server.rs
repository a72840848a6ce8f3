//! The same bytes without us: a static file server over HTTP, and what people use today (measured in the same run).
//!
//! The server keeps what is put under one folder and gives it back. It checks nothing, encrypts nothing and flushes once,
//! at the end of a file: what is measured beside it is what encryption, verification and durability cost.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// Size of one read and write.
const PIECE_BYTES: usize = 256 << 10;
/// Longest line of a head that is read.
const MAX_LINE_BYTES: u64 = 8 << 10;

/// Starts a server of the files in `folder`, on a thread for each connection.
///
/// # Errors
///
/// When it cannot listen.
pub fn start(folder: PathBuf) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            std::thread::spawn(move || {
                let _ = serve(&stream, &folder);
            });
        }
    });
    Ok(address)
}

fn serve(stream: &TcpStream, folder: &Path) -> io::Result<()> {
    let mut input = BufReader::with_capacity(PIECE_BYTES, stream);
    let (request, length) = head(&mut input)?;
    let mut words = request.split(' ');
    let (method, target) = (words.next(), words.next());
    let name = target.and_then(|target| target.strip_prefix('/'));
    // One folder without folders in it; nothing else has a name here.
    let name = name.filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric()));
    let path = folder.join(name.unwrap_or("none"));
    let mut output = stream;
    match method {
        Some("PUT") => {
            let mut file = File::create(path)?;
            copy(&mut input.take(length), &mut file)?;
            file.sync_all()?;
            output.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        }
        Some("GET") => {
            let mut file = File::open(path)?;
            let length = file.metadata()?.len();
            write!(
                output,
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            )?;
            copy(&mut file, &mut output).map(|_| ())
        }
        _ => output.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"),
    }
}

/// Reads a head; returns its first line and the length of what follows.
fn head(input: &mut impl BufRead) -> io::Result<(String, u64)> {
    let mut first = String::new();
    input.by_ref().take(MAX_LINE_BYTES).read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if input.by_ref().take(MAX_LINE_BYTES).read_line(&mut line)? == 0 || line.trim().is_empty()
        {
            return Ok((first, length));
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<u64> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut total = 0;
    loop {
        let read = from.read(&mut piece)?;
        let Some(piece) = piece.get(..read).filter(|piece| !piece.is_empty()) else {
            return Ok(total);
        };
        to.write_all(piece)?;
        total += read as u64;
    }
}

/// Puts a local file and returns how long that took.
///
/// # Errors
///
/// Of sockets and files, and when the server refuses.
pub fn put(server: SocketAddr, file: &Path, name: &str) -> io::Result<Duration> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(server)?;
    let mut file = File::open(file)?;
    let length = file.metadata()?.len();
    write!(
        stream,
        "PUT /{name} HTTP/1.1\r\nHost: {server}\r\nContent-Length: {length}\r\n\r\n"
    )?;
    copy(&mut file, &mut stream)?;
    let (answer, _) = head(&mut BufReader::new(&stream))?;
    match answer.contains(" 201 ") {
        true => Ok(begin.elapsed()),
        false => Err(io::Error::other(answer)),
    }
}

/// Gets a file into a local one and returns how long that took.
///
/// # Errors
///
/// Of sockets and files, and when the server refuses.
pub fn get(server: SocketAddr, name: &str, file: &Path) -> io::Result<Duration> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(server)?;
    write!(stream, "GET /{name} HTTP/1.1\r\nHost: {server}\r\n\r\n")?;
    let mut input = BufReader::with_capacity(PIECE_BYTES, &stream);
    let (answer, length) = head(&mut input)?;
    if !answer.contains(" 200 ") {
        return Err(io::Error::other(answer));
    }
    let mut file = File::create(file)?;
    let copied = copy(&mut input.take(length), &mut file)?;
    match copied == length {
        true => Ok(begin.elapsed()),
        false => Err(io::Error::other("the answer is too short")),
    }
}

/// A program that people use today to keep encrypted copies.
#[derive(Debug, Clone, Copy)]
pub struct Other {
    /// Its name, which is that of its binary.
    pub name: &'static str,
    /// How it is installed.
    pub install: &'static str,
    prepare: &'static [&'static str],
    up: &'static [&'static str],
    down: &'static [&'static str],
}

/// What is looked for. `REPOSITORY`, `FILE` and `BACK` stand for paths.
pub const OTHERS: [Other; 3] = [
    Other {
        name: "restic",
        install: "apt-get install restic",
        prepare: &["init", "-q", "-r", "REPOSITORY"],
        up: &["backup", "-q", "-r", "REPOSITORY", "FILE"],
        down: &[
            "restore",
            "-q",
            "-r",
            "REPOSITORY",
            "latest",
            "--target",
            "BACK",
        ],
    },
    Other {
        name: "rustic",
        install: "cargo install rustic-rs --locked",
        prepare: &["init", "-r", "REPOSITORY"],
        up: &["backup", "--no-progress", "-r", "REPOSITORY", "FILE"],
        down: &[
            "restore",
            "--no-progress",
            "-r",
            "REPOSITORY",
            "latest",
            "BACK",
        ],
    },
    Other {
        name: "rclone",
        install: "apt-get install rclone",
        prepare: &["version"],
        up: &["copy", "FILE", ":crypt:"],
        down: &["copy", ":crypt:", "BACK"],
    },
];

impl Other {
    /// Copies `file` there and back, and returns how long each took; `None` when the program is not on this machine.
    ///
    /// # Errors
    ///
    /// When it is there and fails.
    pub fn measure(self, folder: &Path, file: &Path) -> io::Result<Option<(Duration, Duration)>> {
        let (repository, back) = (folder.join("repository"), folder.join("back"));
        std::fs::create_dir_all(&repository)?;
        std::fs::create_dir_all(&back)?;
        match self.run(self.prepare, &repository, file, &back) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            prepared => prepared?,
        };
        let up = self.run(self.up, &repository, file, &back)?;
        let down = self.run(self.down, &repository, file, &back)?;
        Ok(Some((up, down)))
    }

    fn run(
        self,
        arguments: &[&str],
        repository: &Path,
        file: &Path,
        back: &Path,
    ) -> io::Result<Duration> {
        // Reversible, as rclone wants it; what it hides is the password of a benchmark.
        const OBSCURED: &str = "wmwEbV4VGf7E8d6ZgXvxjFJjjmA9ffXI-g";
        let mut command = Command::new(self.name);
        for argument in arguments {
            match *argument {
                "REPOSITORY" => command.arg(repository),
                "FILE" => command.arg(file),
                "BACK" => command.arg(back),
                other => command.arg(other),
            };
        }
        for password in ["RESTIC_PASSWORD", "RUSTIC_PASSWORD"] {
            command.env(password, "benchmark password");
        }
        command
            .env("RCLONE_CRYPT_REMOTE", repository)
            .env("RCLONE_CRYPT_PASSWORD", OBSCURED)
            .env("RCLONE_CONFIG", "/dev/null")
            .env("RESTIC_CACHE_DIR", repository.with_file_name("cache"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let begin = Instant::now();
        let output = command.stderr(Stdio::piped()).output()?;
        match output.status.success() {
            true => Ok(begin.elapsed()),
            false => Err(io::Error::other(format!(
                "{} failed: {}",
                self.name,
                String::from_utf8_lossy(&output.stderr)
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_got() {
        let folder = tempfile::tempdir().unwrap();
        let server = start(folder.path().join("served")).unwrap();
        std::fs::create_dir(folder.path().join("served")).unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, vec![7; 1_000_003]).unwrap();
        put(server, &file, "x").unwrap();
        let back = folder.path().join("back");
        get(server, "x", &back).unwrap();
        assert!(std::fs::read(&file).unwrap() == std::fs::read(&back).unwrap());
        assert!(get(server, "none", &back).is_err());
    }
}
