//! What the kernel hashes while a task waits, and what is left to the agent.
//!
//! `bpf_ima_file_hash` reads the whole file, and the task waits in `execve` or `mmap` meanwhile. A hole costs nobody a byte of disk, so
//! without a limit any user could make the kernel read for hours. What is refused here is never silent: the digest carries the
//! reason, and the agent reads the file or says that it could not.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated::{bpf_get_current_cgroup_id, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use muster_common::{FileInfo, digest_error, file_flag};

use crate::layout::{KERNEL_HASH_BYTES, global};

/// Largest file in memory. shmem_file_read_iter() does not look for fatal signals, nor does ima_calc_file_hash_tfm(): a task
/// that hashes such a file cannot be killed before its end. So it is a part of what a disk's file may be.
const MEMORY_BYTES: u64 = 64 << 20;
/// What one cgroup may have hashed in a second: 2^28 bytes.
const BYTES_PER_SECOND_LOG2: u32 = 28;
/// What a file costs at least, bytes: opening it for IMA and setting up the hash.
const LEAST: u64 = 4096;
const SECOND: u64 = 1_000_000_000;

/// Network file systems: include/uapi/linux/magic.h.
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

/// By cgroup: when all that was hashed for it is paid for, nanoseconds since boot. A cgroup that was forgotten begins anew.
#[map]
static HASHED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(16_384, 0);

/// A server that does not answer would hold up the task, and whoever waits for it.
#[inline(always)]
pub fn is_remote(magic: u32) -> bool {
    matches!(magic, NFS | SMB | CIFS | SMB2 | CEPH | V9FS | AFS | KAFS | CODA)
}

/// Why the kernel does not hash the file: one of [`digest_error`]; 0 if it may.
#[inline(always)]
pub fn refused(info: &FileInfo) -> i32 {
    let limit = u64::from(global(&KERNEL_HASH_BYTES));
    let in_memory = info.flags & file_flag::IN_MEMORY != 0;
    if info.size > limit || in_memory && info.size > MEMORY_BYTES {
        return digest_error::TOO_LARGE;
    }
    if is_remote(info.fs_magic) {
        return digest_error::REMOTE;
    }
    if !take(info.size) {
        return digest_error::OVER_BUDGET;
    }
    0
}

/// Whether the current cgroup may have so many bytes hashed now. It may as long as it is not in debt, so the file that
/// brings it there is still hashed. Two at once may both pass: the debt is at most the larger one's then.
#[inline(always)]
fn take(bytes: u64) -> bool {
    // SAFETY: no arguments.
    let (cgroup, now) = unsafe { (bpf_get_current_cgroup_id(), bpf_ktime_get_boot_ns()) };
    let bytes = if bytes < LEAST { LEAST } else { bytes };
    // No file that passes the limit above is larger than 2^30 bytes: this is below 2^60.
    let cost = (bytes * SECOND) >> BYTES_PER_SECOND_LOG2;
    let earliest = now.saturating_sub(SECOND);
    let Some(paid) = HASHED.get_ptr_mut(cgroup) else {
        let _ = HASHED.insert(cgroup, earliest + cost, u64::from(BPF_ANY));
        return true;
    };
    // SAFETY: a map value.
    let until = unsafe { *paid };
    if until > now {
        return false;
    }
    let from = if until < earliest { earliest } else { until };
    // SAFETY: a map value.
    unsafe { *paid = from + cost };
    true
}
