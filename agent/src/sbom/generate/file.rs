//! One file: whether it can run, and its digests.

use std::cell::RefCell;
use std::fs::{Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::Ordering;

use aws_lc_rs::digest;
use nix::fcntl::OFlag;

use super::Progress;
use crate::finding::Sha256;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Elf,
    Script,
    /// No program by its content; it has an execute bit, or every file was asked for.
    Other,
}

/// A file for the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Looked {
    pub(super) class: Class,
    pub(super) sha256: Sha256,
    pub(super) sha1: [u8; 20],
}

/// How often a file that changes while it is read is read again.
const ATTEMPTS: u32 = 3;
const BUFFER_BYTES: usize = 256 << 10;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; BUFFER_BYTES]);
}

/// `None`: not to be listed (it cannot run, or it is gone).
pub(super) fn look(path: &Path, all: bool, progress: &Progress) -> io::Result<Option<Looked>> {
    for _ in 0..ATTEMPTS {
        // A path may have become something else since the walk: never follow a link, never wait for a pipe.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // A link by now, which is not listed.
            Err(error) if error.raw_os_error() == Some(nix::libc::ELOOP) => return Ok(None),
            Err(error) => return Err(error),
        };
        let before = file.metadata()?;
        if !before.is_file() {
            return Ok(None);
        }
        let looked = hash(&file, before.mode(), all, progress)?;
        if looked.is_none() || same(&before, &file.metadata()?) {
            return Ok(looked);
        }
    }
    Err(io::Error::other(format!(
        "it changed while it was read, {ATTEMPTS} times; try when nothing writes to it"
    )))
}

fn same(a: &Metadata, b: &Metadata) -> bool {
    let key = |m: &Metadata| (m.len(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
    key(a) == key(b)
}

/// Looks at a regular file's content. `None`: it cannot run, and not `all` are wanted; then it is not read to its end.
pub(super) fn hash(
    mut file: impl io::Read,
    mode: u32,
    all: bool,
    progress: &Progress,
) -> io::Result<Option<Looked>> {
    BUFFER.with_borrow_mut(|buffer| {
        // What cannot run is told by its first bytes. A pipe may give fewer at once than it has.
        let mut length = 0;
        while length < 4 {
            match file.read(&mut buffer[length..4096])? {
                0 => break,
                read => length += read,
            }
        }
        let class = match &buffer[..length] {
            [0x7f, b'E', b'L', b'F', ..] => Class::Elf,
            [b'#', b'!', ..] => Class::Script,
            _ => Class::Other,
        };
        if !all && class == Class::Other && mode & 0o111 == 0 {
            return Ok(None);
        }
        let mut sha256 = digest::Context::new(&digest::SHA256);
        let mut sha1 = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        while length > 0 {
            sha256.update(&buffer[..length]);
            sha1.update(&buffer[..length]);
            progress.bytes.fetch_add(u64::try_from(length).unwrap_or(0), Ordering::Relaxed);
            length = file.read(buffer)?;
        }
        let (sha256, sha1) = (sha256.finish(), sha1.finish());
        Ok(Some(Looked {
            class,
            sha256: Sha256(sha256.as_ref().try_into().expect("a SHA-256 has 32 bytes")),
            sha1: sha1.as_ref().try_into().expect("a SHA-1 has 20 bytes"),
        }))
    })
}
