//! Reading a file and hashing it.

use std::fs::File;
use std::io::Read;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use md5::{Digest as _, Md5};
use nix::sys::stat::{FileStat, fstat};

use super::holes::is_hollow;
use super::open::{ctime_ns, mtime_ns, size};
use crate::event::Unread;
use crate::event::WeakDigests;
use crate::finding::Sha256;
use crate::metrics::Metrics;

/// Largest file that is read. Reading holds up the events behind it: this is about two seconds.
pub const MAX_FILE_BYTES: u64 = 1 << 30;
/// Bytes read at once.
pub(super) const BUFFER: usize = 256 << 10;

/// Hashes the whole file. `before` is its state before; a state that differs afterwards, or another number of bytes
/// than its size, is [`Unread::ChangedWhileRead`]. The content of a program that `runs` is guarded by the kernel, so its ctime
/// may move (it is unlinked, or linked) if its mtime does not.
pub(super) fn hash(
    mut file: &File,
    before: &FileStat,
    buffer: &mut [u8],
    weak: bool,
    runs: bool,
    metrics: &Metrics,
) -> Result<(Sha256, Option<WeakDigests>), Unread> {
    if size(before) > MAX_FILE_BYTES {
        return Err(Unread::TooLarge);
    }
    if is_hollow(file, before) {
        return Err(Unread::TooLarge);
    }
    let mut sha256 = Context::new(&SHA256);
    let mut others = weak.then(|| (Context::new(&SHA1_FOR_LEGACY_USE_ONLY), Md5::new()));
    let mut left = size(before);
    loop {
        let read = match file.read(buffer) {
            Ok(read) => read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(Unread::from(&e)),
        };
        let bytes = &buffer[..read];
        metrics.digest_read(read);
        match u64::try_from(read).ok().and_then(|read| left.checked_sub(read)) {
            Some(rest) => left = rest,
            None => return Err(Unread::ChangedWhileRead),
        }
        if read == 0 {
            break;
        }
        sha256.update(bytes);
        if let Some((sha1, md5)) = &mut others {
            sha1.update(bytes);
            md5.update(bytes);
        }
    }
    let after = fstat(file).map_err(|e| Unread::from(&e.into()))?;
    let touched = match runs {
        true => mtime_ns(&after) != mtime_ns(before),
        false => ctime_ns(&after) != ctime_ns(before),
    };
    if left != 0 || size(&after) != size(before) || touched {
        return Err(Unread::ChangedWhileRead);
    }
    let mut out = Sha256::default();
    out.0.copy_from_slice(sha256.finish().as_ref());
    let weak = others.map(|(sha1, md5)| {
        let mut weak = WeakDigests { sha1: [0; 20], md5: md5.finalize().into() };
        weak.sha1.copy_from_slice(sha1.finish().as_ref());
        weak
    });
    Ok((out, weak))
}
