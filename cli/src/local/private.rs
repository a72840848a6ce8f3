//! Files for the eyes of one person.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    path::Path,
};

/// Replaces a file in one step; not flushed to the disk, because losing it costs no more than logging in again. File mode 0600, in a folder of mode 0700 that is made when missing.
///
/// # Errors
///
/// Of the file system.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path
        .parent()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no folder"))?;
    make_folder(folder)?;
    let mut hidden = path.as_os_str().to_owned();
    hidden.push(format!(".{}.new", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let _ = fs::remove_file(&hidden);
    let mut file = options.open(&hidden)?;
    let written = file
        .write_all(content)
        .and_then(|()| fs::rename(&hidden, path));
    if written.is_err() {
        let _ = fs::remove_file(&hidden);
    }
    written
}

/// Makes a folder of mode 0700, and those above it, unless they are there.
///
/// # Errors
///
/// Of the file system.
pub fn make_folder(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}
