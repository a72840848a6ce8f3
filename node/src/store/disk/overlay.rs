//! A file that can be read although it cannot be written: what is written stays in memory.
//!
//! redb repairs a database while it opens it, which writes a few pages; on a disk that takes no writes the repaired
//! state is still good for reading.

use std::{collections::HashMap, io};

use parking_lot::Mutex;
use redb::StorageBackend;

/// Granularity of what is kept.
const PAGE: usize = 4096;
/// Most pages kept: a repair needs far fewer.
const MAX_PAGES: usize = 64 << 10;

/// The file and what was written on top of it.
#[derive(Debug)]
pub(super) struct Overlay {
    file: Box<dyn StorageBackend>,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    pages: HashMap<u64, Box<[u8]>>,
    /// Length, if it was changed.
    len: Option<u64>,
}

impl Overlay {
    pub(super) fn new(file: Box<dyn StorageBackend>) -> Self {
        Self {
            file,
            written: Mutex::default(),
        }
    }

    /// Reads from the file; what is behind its end is zero.
    fn read_file(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.fill(0);
        let left = self.file.len()?.saturating_sub(offset);
        let inside = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match out.get_mut(..inside) {
            Some(inside) if !inside.is_empty() => self.file.read(offset, inside),
            _ => Ok(()),
        }
    }
}

/// Splits a span of the file into page number, start inside of the page, and start and length in the span.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let at = offset + done as u64;
        let start = usize::try_from(at % PAGE as u64).unwrap_or(0);
        let count = (PAGE - start).min(len - done);
        let piece = (at / PAGE as u64, start, done, count);
        done += count;
        Some(piece)
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        match self.written.lock().len {
            Some(len) => Ok(len),
            None => self.file.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_file(offset, out)?;
        let written = self.written.lock();
        for (page, start, at, count) in pieces(offset, out.len()) {
            if let Some(page) = written.pages.get(&page)
                && let (Some(from), Some(to)) =
                    (page.get(start..start + count), out.get_mut(at..at + count))
            {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.written.lock().len = Some(len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock();
        for (number, start, at, count) in pieces(offset, data.len()) {
            if !written.pages.contains_key(&number) {
                if written.pages.len() >= MAX_PAGES {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let mut page = vec![0; PAGE].into_boxed_slice();
                self.read_file(number * PAGE as u64, &mut page)?;
                written.pages.insert(number, page);
            }
            if let Some(page) = written.pages.get_mut(&number)
                && let (Some(to), Some(from)) =
                    (page.get_mut(start..start + count), data.get(at..at + count))
            {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use redb::backends::InMemoryBackend;

    use super::*;

    #[test]
    fn writes_are_seen_and_the_file_stays_as_it_was() {
        let file = InMemoryBackend::new();
        file.set_len(10_000).unwrap();
        file.write(0, &[1; 10_000]).unwrap();
        let overlay = Overlay::new(Box::new(file));
        overlay.write(4_000, &[2; 200]).unwrap();
        overlay.set_len(20_000).unwrap();
        overlay.write(15_000, &[3; 10]).unwrap();
        let mut all = vec![9; 20_000];
        overlay.read(0, &mut all).unwrap();
        let mut expected = vec![1; 10_000];
        expected[4_000..4_200].fill(2);
        expected.resize(20_000, 0);
        expected[15_000..15_010].fill(3);
        assert_eq!(all, expected);
        assert_eq!(overlay.len().unwrap(), 20_000);
        let mut below = vec![0; 10_000];
        overlay.file.read(0, &mut below).unwrap();
        assert_eq!(below, vec![1; 10_000]);
    }
}
