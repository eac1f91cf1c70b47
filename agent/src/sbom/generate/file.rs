//! One file: whether it can run, and its digests.

use std::cell::RefCell;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
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
        let looked = BUFFER.with_borrow_mut(|buffer| hash(&file, &before, all, progress, buffer))?;
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

fn hash(
    mut file: &File,
    metadata: &Metadata,
    all: bool,
    progress: &Progress,
    buffer: &mut [u8],
) -> io::Result<Option<Looked>> {
    // What cannot run is told by its first bytes; the rest of it need not be read.
    let mut length = file.read(&mut buffer[..4096])?;
    let class = match &buffer[..length] {
        [0x7f, b'E', b'L', b'F', ..] => Class::Elf,
        [b'#', b'!', ..] => Class::Script,
        _ => Class::Other,
    };
    if !all && class == Class::Other && metadata.mode() & 0o111 == 0 {
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
}
