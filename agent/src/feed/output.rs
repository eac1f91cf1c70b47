//! Whole lines or nothing: an append-only file (or standard output) in which a failed write leaves no half line.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Where lines go.
#[derive(Debug)]
pub(super) struct Output {
    file: File,
    /// `None`: standard output, which others may write to as well.
    path: Option<PathBuf>,
    /// What is there ends within a line, so the next line starts with a line feed.
    ragged: bool,
}

impl Output {
    /// Opens the file for appending, mode 0600 if it is made; `-` is standard output.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if path.as_os_str() == "-" {
            let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
            return Ok(Self { file, path: None, ragged: false });
        }
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let ragged = ends_within_line(&file);
        Ok(Self { file, path: Some(path.to_owned()), ragged })
    }

    /// Opens the file of the same name, which may be another one by now; keeps the old one if that fails.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            *self = Self::open(path)?;
        }
        Ok(())
    }

    /// Writes one line, which ends in a line feed; after an error nothing of it stays, or the next line will start on
    /// a line of its own.
    pub(super) fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let bytes = if self.ragged { Cow::from([b"\n", line].concat()) } else { Cow::from(line) };
        let mut done = 0;
        while done < bytes.len() {
            match self.file.write(&bytes[done..]) {
                Ok(0) => return Err(self.undo(done, ErrorKind::WriteZero.into())),
                Ok(n) => done += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.undo(done, error)),
            }
        }
        self.ragged = false;
        Ok(())
    }

    /// Takes the last `written` bytes back.
    fn undo(&mut self, written: usize, error: io::Error) -> io::Error {
        if written > 0 {
            let taken_back = self.path.is_some() && take_back(&self.file, written).unwrap_or(false);
            self.ragged |= !taken_back;
        }
        error
    }
}

fn take_back(file: &File, written: usize) -> io::Result<bool> {
    let metadata = file.metadata()?;
    let written = u64::try_from(written).expect("a length is below 2^64");
    let Some(before) = metadata.len().checked_sub(written).filter(|_| metadata.is_file()) else {
        return Ok(false);
    };
    file.set_len(before)?;
    Ok(true)
}

fn ends_within_line(file: &File) -> bool {
    let Ok(metadata) = file.metadata() else { return true };
    if !metadata.is_file() || metadata.len() == 0 {
        return false;
    }
    let mut last = [0];
    !(file.read_exact_at(&mut last, metadata.len() - 1).is_ok() && last == *b"\n")
}
