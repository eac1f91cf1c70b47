//! Executable mappings that were reported: the same file mapped again by the same program says nothing new.
//!
//! Only where that is exact: the content must be what was reported, by the rules by which a digest is kept (`digest.rs`), and not lie
//! in memory, where stores leave no sign; and the path must come out the same.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use muster_common::{FileInfo, file_flag};

use crate::digest::{self, ContentKey};
use crate::layout::{OFF_CRED_EUID, OFF_TASK_CRED, OFF_TASK_EXEC_ID, pointer, read};
use crate::path::Path;
use crate::task;
use crate::writers;

/// A program that has a file mapped. Another exec is another program; and who it runs as is part of what is said of it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Mapped {
    start_ns: u64,
    /// The name: its addresses.
    mnt: u64,
    dentry: u64,
    content: ContentKey,
    tgid: u32,
    euid: u32,
    /// The low half: no process execs as often as it takes to see one again.
    exec_id: u32,
    flags: u32,
}

/// When it was reported last, nanoseconds since boot. The agent makes it larger where there are many processors.
#[map]
static MAPPED: LruHashMap<Mapped, u64> = LruHashMap::with_max_entries(4096, 0);

/// Otherwise each mapping of this file is reported.
#[inline(always)]
pub fn is_exact(flags: u32) -> bool {
    flags & file_flag::IN_MEMORY == 0 && digest::is_steady(flags)
}

impl Mapped {
    /// Of the current task.
    #[inline(always)]
    pub fn of(path: Path, info: &FileInfo) -> Self {
        let task = task::current();
        Self {
            start_ns: task::start_ns(task),
            mnt: path.mnt,
            dentry: path.dentry,
            content: ContentKey::of(info),
            tgid: (task::current_id() >> 32) as u32,
            euid: read(pointer(task, &OFF_TASK_CRED), &OFF_CRED_EUID),
            exec_id: read::<u64>(task, &OFF_TASK_EXEC_ID) as u32,
            flags: info.flags,
        }
    }

    /// It was reported, and nothing was written to the file since.
    #[inline(always)]
    pub fn is_known(&self, info: &FileInfo) -> bool {
        match MAPPED.get_ptr(self) {
            // SAFETY: a map value.
            Some(at_ns) => !writers::written_since(info, unsafe { *at_ns }),
            None => false,
        }
    }

    /// It is reported, as found at this time.
    #[inline(always)]
    pub fn note(&self, at_ns: &u64) {
        let _ = MAPPED.insert(self, at_ns, u64::from(BPF_ANY));
    }
}
