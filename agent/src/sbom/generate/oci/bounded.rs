//! What the headers of an archive may cost.

use std::cell::Cell;
use std::io::{self, Read, Seek, SeekFrom};

/// Bytes of all headers of one entry: its long name, its extended header. As Go's `archive/tar` has it, and so every engine that is
/// written in Go.
pub(super) const MAX_HEADERS: u64 = 1 << 20;

/// A reader of an archive for the `tar` crate, which keeps such headers in memory whatever size they claim to have.
pub(super) struct Bounded<'a, R> {
    pub(super) inner: R,
    /// Bytes that may still be read.
    pub(super) left: &'a Cell<u64>,
    /// Bytes read.
    pub(super) position: &'a Cell<u64>,
}

impl<R: Read> Read for Bounded<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let count = u64::try_from(read).unwrap_or(u64::MAX);
        self.position.set(self.position.get().saturating_add(count));
        let Some(left) = self.left.get().checked_sub(count) else {
            return Err(io::Error::other(format!(
                "the headers of an entry have more than {MAX_HEADERS} bytes, which no image needs"
            )));
        };
        self.left.set(left);
        Ok(read)
    }
}

impl<R: Seek> Seek for Bounded<'_, R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}
