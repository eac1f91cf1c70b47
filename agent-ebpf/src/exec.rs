//! Exec: one record per program that runs.
//!
//! `bprm_check_security` comes first, once for the file that was asked for and once more for each interpreter, before
//! it is known whether the exec will succeed; `sched_process_exec` confirms and emits. Between the two, what was
//! found of the first file waits in `PENDING`, because by then a script's file is closed. The tracepoint flavour has
//! only the second: it knows a script by the name that was asked for.
//!
//! An interpreter may itself be a script, five deep. The exec has the first file and the last; each one between is reported as
//! code that came to the process, before it is known whether the exec will succeed.

use core::ffi::c_void;

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use muster_common::{Digest, ExecRecord, FileInfo, LibraryRecord, PATH_BUF, file_flag, hook};

use crate::digest;
use crate::draft::Draft;
use crate::emit::emit_with_paths;
use crate::file;
use crate::file_info;
use crate::layout::*;
use crate::path::{self, Path, Spelling};
use crate::task;

/// A file that `bprm_check_security` was asked about.
#[repr(C)]
#[derive(Clone, Copy)]
struct Checked {
    /// Address of its inode; compared while the file is open only. 0: no file.
    inode: u64,
    info: FileInfo,
    digest: Digest,
    path: [u8; PATH_BUF],
}

/// What `bprm_check_security` found for one thread.
#[repr(C)]
#[derive(Clone, Copy)]
struct Pending {
    /// Address of the memory map that the task had, which it keeps when the exec fails.
    mm: u64,
    /// The file that was asked for.
    first: Checked,
    /// The last interpreter.
    last: Checked,
}

const NOT_CHECKED: Checked =
    Checked { inode: 0, info: file_info::NONE, digest: digest::NONE, path: [0; PATH_BUF] };
/// Lies in `.rodata`: too large for the stack, and a new entry has to come from somewhere.
static EMPTY: Pending = Pending { mm: 0, first: NOT_CHECKED, last: NOT_CHECKED };

/// Execs under way, by `tgid << 32 | tid`. Allocated before use, as sleepable programs of 6.1 demand. No LRU map: before 6.16 one of this
/// size forgets entries that are in use on machines with more than 8 processors (`LOCAL_FREE_TARGET` elements wait on each). An exec
/// that fails takes its entry along ([`abandoned`]). When the map is full, an exec falls back to what `sched_process_exec` alone can
/// say. The agent makes it larger where there are many processors.
#[map]
static PENDING: HashMap<u64, Pending> = HashMap::with_max_entries(1024, 0);

/// A script, or a file that `binfmt_misc` gives to an interpreter: each loader replaces `interp`, nothing else does.
#[inline(always)]
fn is_interpreted(bprm: u64) -> bool {
    pointer(bprm, &OFF_BPRM_INTERP) != pointer(bprm, &OFF_BPRM_FILENAME)
}

/// `bprm_check_security`.
///
/// # Safety
/// `bprm` is the hook's argument; the program is sleepable.
#[inline(always)]
pub unsafe fn check(bprm: *const u8) {
    // A direct load keeps the type, which `bpf_ima_file_hash` asks for.
    // SAFETY: the verifier checks the offset against the structure.
    let file: *mut c_void =
        unsafe { bprm.add(off(&OFF_BPRM_FILE) as usize).cast::<*mut c_void>().read_volatile() };
    if file.is_null() {
        return;
    }
    let inode = file_info::inode(file as u64);
    let path = Path::of_file(file as u64);
    let mut info = file_info::NONE;
    let mut found = digest::NONE;
    // SAFETY: `info` is ours; `file` is typed.
    unsafe {
        file_info::fill(inode, path.mnt, &raw mut info);
        digest::of(file, inode, &info, &mut found);
    }
    // Only now: hashing sleeps, and meanwhile the entry could go and its memory become another thread's.
    let id = task::current_id();
    let first = !is_interpreted(bprm as u64);
    if first && PENDING.insert(id, &EMPTY, u64::from(BPF_ANY)).is_err() {
        // What an exec before it left is not this one's.
        let _ = PENDING.remove(id);
        return;
    }
    let Some(pending) = PENDING.get_ptr_mut(id) else { return };
    let task = task::current();
    // SAFETY: a map value of this thread alone; `info` is ours.
    unsafe {
        let checked = if first { &raw mut (*pending).first } else { &raw mut (*pending).last };
        if first {
            (*pending).mm = pointer(task, &OFF_TASK_MM);
        } else if (*checked).inode != 0 {
            between(task, checked);
        }
        let buffer = &raw mut (*checked).path;
        file_info::set_path(&raw mut info, path::of(task, path, buffer.cast()));
        (*checked).inode = inode;
        (*checked).info = info;
        (*checked).digest = found;
    }
}

/// An interpreter that has one of its own.
///
/// # Safety
/// `checked` is a map value.
#[inline(always)]
unsafe fn between(task: u64, checked: *const Checked) {
    if task::is_own() {
        return;
    }
    emit_with_paths::<LibraryRecord>(task, |draft| {
        // SAFETY: the draft is this program's alone; the caller's promise.
        unsafe {
            let record = &raw mut (*draft).head;
            (*record).file = (*checked).info;
            (*record).digest = (*checked).digest;
            (*record).prot = 0;
            (*record).mprotect = 0;
            (*record).address = 0;
            copy_path(&raw mut (*draft).path, &raw const (*checked).path);
        }
    });
}

/// # Safety
/// Both are valid.
#[inline(always)]
unsafe fn copy_path(to: *mut [u8; PATH_BUF], from: *const [u8; PATH_BUF]) {
    // SAFETY: the caller's promise.
    unsafe { bpf_probe_read_kernel(to.cast(), PATH_BUF as u32, from.cast()) };
}

/// `sched_process_exec(task, old_pid, bprm)`.
#[inline(always)]
pub fn ran(task: u64, old_pid: u32, bprm: u64) {
    // A thread that is not the leader takes the leader's id in exec; the entry is under its old one.
    let id = task::current_id() >> 32 << 32 | u64::from(old_pid);
    if !task::is_own() {
        let pending = if global(&FLAVOUR) == u32::from(hook::LSM) { PENDING.get_ptr(id) } else { None };
        emit_with_paths::<ExecRecord>(task, |draft| {
            // SAFETY: the draft is this program's alone.
            unsafe { fill(task, bprm, pending, draft) };
        });
    }
    if global(&FLAVOUR) == u32::from(hook::LSM) {
        let _ = PENDING.remove(id);
    }
    // The old id is nobody's any more.
    file::forget(id);
}

#[inline(always)]
unsafe fn fill(task: u64, bprm: u64, pending: Option<*const Pending>, draft: *mut Draft<ExecRecord>) {
    let file = pointer(bprm, &OFF_BPRM_FILE);
    let inode = file_info::inode(file);
    // SAFETY: the caller's promise; `pending` is a map value.
    unsafe {
        let record = &raw mut (*draft).head;
        file_info::of_file(task, file, &raw mut (*record).exe, &raw mut (*draft).path);
        (*record).exe_digest = digest::NONE;
        (*record).script_digest = digest::NONE;
        file_info::none(&raw mut (*record).script);
        if !is_interpreted(bprm) {
            if let Some(pending) = pending
                && (*pending).first.inode == inode
            {
                (*record).exe_digest = (*pending).first.digest;
            }
            return;
        }
        if let Some(pending) = pending {
            (*record).script = (*pending).first.info;
            (*record).script_digest = (*pending).first.digest;
            copy_path(&raw mut (*draft).second_path, &raw const (*pending).first.path);
            if (*pending).last.inode == inode {
                (*record).exe_digest = (*pending).last.digest;
            }
            return;
        }
        let name = Spelling::Kernel(pointer(bprm, &OFF_BPRM_FILENAME));
        let buffer = &raw mut (*draft).second_path;
        let walked = path::of_spelling(task, Path::cwd(task), name, buffer.cast());
        (*record).script.flags = file_flag::PRESENT;
        file_info::set_path(&raw mut (*record).script, walked);
    }
}

/// The ELF loader maps the file that is being run: the exec says it all. The loader maps after exec_mmap() gave the task
/// its new memory map, from which there is no way back. With the old one it is the program that maps, after an exec that
/// failed and left its entry.
#[inline(always)]
pub fn is_loading(inode: u64) -> bool {
    let Some(pending) = PENDING.get_ptr(task::current_id()) else { return false };
    // SAFETY: a map value of this thread alone.
    let (mm, first, last) = unsafe { ((*pending).mm, (*pending).first.inode, (*pending).last.inode) };
    (first == inode || last == inode) && pointer(task::current(), &OFF_TASK_MM) != mm
}

/// The exec of this thread failed, if it was in one.
#[inline(always)]
pub fn abandoned() {
    let _ = PENDING.remove(task::current_id());
}

/// The thread is gone.
#[inline(always)]
pub fn forget() {
    if global(&FLAVOUR) == u32::from(hook::LSM) {
        let _ = PENDING.remove(task::current_id());
    }
    file::forget(task::current_id());
}
