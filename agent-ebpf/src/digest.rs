//! SHA-256 of a file, by the kernel, computed once per unchanged file.
//!
//! `bpf_ima_file_hash` keeps nothing without an IMA policy: it reads the whole file at every call. So digests are kept
//! here by the identity of the content. Three things keep an entry honest: the inode that has the content (on overlayfs that of
//! a layer, so containers that share a layer share its digests), with its generation, ctime, size and `i_version`, is the
//! key; every open for write, truncate and writable mapping that the hooks see drops the entry and leaves the time
//! in `writers.rs` (ctime alone has the grain of a timer tick); and a file that some writer has open, or whose content can
//! change without its inode ([`UNSTEADY`]), is neither looked up nor kept.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated::{bpf_ima_file_hash, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use muster_common::{Digest, FileInfo, SHA256_LEN, digest_origin, file_flag};

use crate::device;
use crate::file_info;
use crate::hash_limit;
use crate::layout::{HAS_IMA_FILE_HASH, global};
use crate::writers;

/// Identity of a content.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ContentKey {
    ino: u64,
    dev: u32,
    generation: u32,
    size: u64,
    ctime_ns: u64,
    i_version: u64,
}

impl ContentKey {
    /// Of a file that is filled in.
    #[inline(always)]
    pub fn of(info: &FileInfo) -> Self {
        Self {
            ino: info.real_ino,
            dev: info.real_dev,
            generation: info.real_generation,
            size: info.size,
            ctime_ns: info.ctime_ns,
            // The lowest bit says that someone asked for the version, not that the content changed.
            i_version: info.i_version >> 1,
        }
    }
}

/// Digests by content.
#[map]
static DIGESTS: LruHashMap<ContentKey, [u8; SHA256_LEN]> = LruHashMap::with_max_entries(16_384, 0);
/// No digest.
pub const NONE: Digest =
    Digest { sha256: [0; SHA256_LEN], origin: digest_origin::NONE, reserved: [0; 3], error: 0 };

/// What keeps an inode's identity from meaning its content.
const UNSTEADY: u32 = file_flag::WRITERS
    | file_flag::BENEATH
    | file_flag::LAYER_UNKNOWN
    | file_flag::MAPPED
    | file_flag::DEVICE_WRITTEN;

/// `-EOPNOTSUPP`: the helper hashed with another algorithm.
const OTHER_ALGORITHM: i32 = -95;
/// `HASH_ALGO_SHA256`
const SHA256: i64 = 4;

/// With these flags the inode's identity means its content.
#[inline(always)]
pub fn is_steady(flags: u32) -> bool {
    flags & UNSTEADY == 0
}

/// The digest that is kept for this content, if it can be trusted now.
#[inline(always)]
pub fn cached(info: &FileInfo, out: &mut Digest) -> bool {
    // Where the kernel computes none, none is kept.
    if global(&HAS_IMA_FILE_HASH) == 0 || info.flags & UNSTEADY != 0 {
        return false;
    }
    let Some(known) = DIGESTS.get_ptr(ContentKey::of(info)) else { return false };
    // SAFETY: a map value; entries are replaced and not changed.
    out.sha256 = unsafe { *known };
    out.origin = digest_origin::CACHE;
    true
}

/// The digest of the file, from what is kept or by reading all of it. Only for sleepable programs.
///
/// # Safety
/// `file` is a `struct file *` that the verifier knows as such; `inode` is its inode.
#[inline(always)]
pub unsafe fn of(file: *mut c_void, inode: u64, info: &FileInfo, out: &mut Digest) {
    let unknowable = file_info::is_served(u64::from(info.fs_magic));
    if cached(info, out) || global(&HAS_IMA_FILE_HASH) == 0 || unknowable {
        return;
    }
    let refused = hash_limit::refused(info);
    if refused != 0 {
        out.error = refused;
        return;
    }
    // SAFETY: no arguments.
    let began = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: the caller's promise; `sha256` is 32 bytes.
    let algorithm =
        unsafe { bpf_ima_file_hash(file.cast(), out.sha256.as_mut_ptr().cast(), SHA256_LEN as u32) };
    if algorithm != SHA256 {
        out.sha256 = [0; SHA256_LEN];
        out.error = if algorithm < 0 { algorithm as i32 } else { OTHER_ALGORITHM };
        return;
    }
    out.origin = digest_origin::IMA;
    let unwritten = info.flags & UNSTEADY == 0 && file_info::writers(inode) <= 0;
    if unwritten && !writers::written_since(info, began) && !device::was_written(info) {
        let _ = DIGESTS.insert(ContentKey::of(info), &out.sha256, u64::from(BPF_ANY));
    }
}

/// The content is about to change: forgets its digest, and says whether this opening of the inode was reported before. The writer
/// itself is among the inode's `writers` already.
#[inline(always)]
pub fn opened_for_write(info: &FileInfo, writers: i32) -> bool {
    let _ = DIGESTS.remove(ContentKey::of(info));
    writers::opened(info, writers)
}

/// The content is set, or about to be, without an open for write of its own.
#[inline(always)]
pub fn changed(info: &FileInfo) {
    let _ = DIGESTS.remove(ContentKey::of(info));
    writers::changed(info);
}

/// The file is mapped shared and writable.
#[inline(always)]
pub fn mapped(info: &FileInfo) {
    let _ = DIGESTS.remove(ContentKey::of(info));
    writers::mapped(info);
}

/// The last writer closed the file: the next open is reported again.
#[inline(always)]
pub fn closed(info: &FileInfo) {
    let _ = DIGESTS.remove(ContentKey::of(info));
    writers::closed(info);
}
