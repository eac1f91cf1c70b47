//! What the kernel hashes while a task waits, and what is left to the agent.
//!
//! `bpf_ima_file_hash` reads the whole file, and the task waits in `execve` or `mmap` meanwhile. A hole costs nobody a byte of disk, so
//! without a limit any user could make the kernel read for hours. What is refused here is never silent: the digest carries the
//! reason, and the agent reads the file or says that it could not.

use muster_common::{FileInfo, digest_error, file_flag};

use crate::layout::{KERNEL_HASH_BYTES, global};

/// Largest file in memory. shmem_file_read_iter() does not look for fatal signals, nor does ima_calc_file_hash_tfm(): a task
/// that hashes such a file cannot be killed before its end. So it is a part of what a disk's file may be.
const MEMORY_BYTES: u64 = 64 << 20;
/// In a file system in memory.
const IN_MEMORY: u32 = file_flag::TMPFS | file_flag::MEMFD;

/// `NFS_SUPER_MAGIC`, and so on, of include/uapi/linux/magic.h.
const NFS: u32 = 0x6969;
const SMB: u32 = 0x517b;
const CIFS: u32 = 0xff53_4d42;
const SMB2: u32 = 0xfe53_4d42;
const CEPH: u32 = 0x00c3_6400;
const V9FS: u32 = 0x0102_1997;
/// `AFS_SUPER_MAGIC` of OpenAFS, `AFS_FS_MAGIC` of the kernel's own.
const AFS: u32 = 0x5346_414f;
const KAFS: u32 = 0x6b41_4653;
const CODA: u32 = 0x7375_7245;

/// A server that does not answer would hold up the task, and whoever waits for it.
#[inline(always)]
fn is_remote(magic: u32) -> bool {
    matches!(magic, NFS | SMB | CIFS | SMB2 | CEPH | V9FS | AFS | KAFS | CODA)
}

/// Why the kernel does not hash the file: one of [`digest_error`]; 0 if it may.
#[inline(always)]
pub fn refused(info: &FileInfo) -> i32 {
    let limit = u64::from(global(&KERNEL_HASH_BYTES));
    if info.size > limit || info.flags & IN_MEMORY != 0 && info.size > MEMORY_BYTES {
        return digest_error::TOO_LARGE;
    }
    if is_remote(info.fs_magic) {
        return digest_error::REMOTE;
    }
    0
}
