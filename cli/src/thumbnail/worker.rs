//! The process in which pictures are decoded.
//!
//! It gives up, before it reads the first byte, whatever it could do beyond computing: open a file or a socket, write a
//! file, take much memory or time. Per picture: 8 bytes of length (little endian) and the picture come in on standard
//! input, 4 bytes of length and the thumbnail go out; a length of 0 means none.

use std::{
    io::{self, Read, Write},
    process::ExitCode,
};

use rlimit::Resource;

use super::{MAX_PICTURE_BYTES, picture};

/// The one argument of such a process. No command has this name.
pub(super) const ARGUMENT: &str = "--make-thumbnails";

/// Memory for data, in bytes: a decoded picture of [`picture::MAX_DECODED_BYTES`], its file, and what a decoder needs.
const MAX_DATA_BYTES: u64 = 640 << 20;
/// Address space, in bytes, with the program itself; for systems that do not count data.
const MAX_ADDRESS_BYTES: u64 = 4 << 30;
/// Processor time of all its pictures.
const MAX_CPU_SECONDS: u64 = 300;
/// Standard input, output and error; nothing more can be opened.
const OPEN_FILES: u64 = 3;

/// Returns true when this process was started as such a worker.
pub(crate) fn is_asked_for() -> bool {
    let mut arguments = std::env::args_os().skip(1);
    arguments.next().is_some_and(|first| first == ARGUMENT) && arguments.next().is_none()
}

/// Makes thumbnails until standard input ends.
pub(crate) fn run() -> ExitCode {
    if limit().is_err() {
        // A system on which the limits cannot be set gets no thumbnails.
        return ExitCode::FAILURE;
    }
    match serve(&mut io::stdin().lock(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn limit() -> io::Result<()> {
    let limits = [
        (Resource::CORE, 0),
        (Resource::FSIZE, 0),
        (Resource::NOFILE, OPEN_FILES),
        (Resource::CPU, MAX_CPU_SECONDS),
        (Resource::DATA, MAX_DATA_BYTES),
        (Resource::AS, MAX_ADDRESS_BYTES),
    ];
    for (resource, most) in limits {
        let (_, hard) = resource.get()?;
        let most = most.min(hard);
        resource.set(most, most)?;
    }
    Ok(())
}

fn serve(input: &mut dyn Read, output: &mut dyn Write) -> io::Result<()> {
    loop {
        let mut length = [0; 8];
        match input.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            read => read?,
        }
        let length = u64::from_le_bytes(length);
        if length > MAX_PICTURE_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut picture = Vec::new();
        input.take(length).read_to_end(&mut picture)?;
        if picture.len() as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let made = picture::thumbnail(&picture).unwrap_or_default();
        let length = u32::try_from(made.len()).unwrap_or_default();
        output.write_all(&length.to_le_bytes())?;
        output.write_all(&made)?;
        output.flush()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(input: &[u8]) -> (Vec<u8>, io::Result<()>) {
        let mut output = Vec::new();
        let done = serve(&mut io::Cursor::new(input), &mut output);
        (output, done)
    }

    #[test]
    fn what_is_no_picture_gets_an_empty_answer_and_the_next_is_taken() {
        let mut input = Vec::new();
        for rubbish in [&b"rubbish"[..], b"\xff\xd8\xff\xe0 cut off", b""] {
            input.extend((rubbish.len() as u64).to_le_bytes());
            input.extend(rubbish);
        }
        let (output, done) = answered(&input);
        done.unwrap();
        assert_eq!(output, [0; 12]);
    }

    #[test]
    fn a_length_beyond_the_limit_ends_it_before_anything_is_read() {
        let (output, done) = answered(&(MAX_PICTURE_BYTES + 1).to_le_bytes());
        assert_eq!(done.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(output.is_empty());
        let (_, done) = answered(&[&5u64.to_le_bytes()[..], b"1234"].concat());
        assert_eq!(done.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
