//! File changes: one body for each thing that can be done to a file.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use muster_common::{FileInfo, FileRecord, cause, file_flag, file_op, hook, kind};

use crate::digest;
use crate::emit::{emit, lost};
use crate::file_info::{self, S_IFDIR, S_IFLNK, S_IFREG};
use crate::layout::*;
use crate::path::{self, Path, Spelling};
use crate::task;

/// `FMODE_WRITE`
const WRITE: u32 = 1 << 1;
/// `FMODE_CREATED`: this open made the file.
const CREATED: u32 = 1 << 20;
/// `FMODE_NOACCOUNT`: a file of the kernel's own, as overlayfs keeps for the layer below. The file that the program
/// opened has its own event.
pub const NOACCOUNT: u32 = 1 << 29;
/// `PROT_WRITE`
pub const PROT_WRITE: u64 = 2;
/// `MAP_SHARED`; `MAP_SHARED_VALIDATE` has the bit too, `MAP_PRIVATE` has not.
pub const MAP_SHARED: u64 = 1;
/// Executable by anyone.
const X: u32 = 0o111;

/// A content that can be judged: a regular file outside the kernel's own file systems.
#[inline(always)]
fn is_content(inode: u64) -> bool {
    file_info::kind(inode) == S_IFREG && !file_info::is_pseudo(file_info::magic(inode))
}

/// A name that matters: of a file, a directory or a symbolic link.
#[inline(always)]
fn is_name(inode: u64) -> bool {
    let kind = file_info::kind(inode);
    (kind == S_IFREG || kind == S_IFDIR || kind == S_IFLNK) && !file_info::is_pseudo(file_info::magic(inode))
}

#[inline(always)]
fn info(inode: u64, mnt: u64) -> FileInfo {
    let mut info = file_info::NONE;
    // SAFETY: ours.
    unsafe { file_info::fill(inode, mnt, &raw mut info) };
    info
}

#[inline(always)]
fn report(info: &FileInfo, path: Path, op: u8, arg: u32, open_flags: u32) {
    if task::is_own() {
        return;
    }
    let task = task::current();
    emit::<FileRecord>(task, |record| {
        // SAFETY: the record is reserved.
        unsafe { fill(record, task, info, path, op, arg, open_flags) };
    });
}

/// # Safety
/// `record` is valid for writes.
#[inline(always)]
unsafe fn fill(
    record: *mut FileRecord,
    task: u64,
    info: &FileInfo,
    path: Path,
    op: u8,
    arg: u32,
    open_flags: u32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        (*record).file = *info;
        (*record).op = op;
        (*record).reserved = [0; 3];
        (*record).arg = arg;
        (*record).target_len = 0;
        (*record).target_flags = 0;
        (*record).open_flags = open_flags;
        let buffer = &raw mut (*record).path;
        file_info::set_path(&raw mut (*record).file, path::of(task, path, buffer.cast()));
    }
}

/// Something that is about to be done to a name, by which thread. Overlayfs does the same to names of its layers meanwhile.
#[repr(C)]
#[derive(Clone, Copy)]
struct Deed {
    thread: u64,
    dentry: u64,
    /// One of [`file_op`].
    op: u64,
}

/// Lies in `.rodata`, as a new entry has to come from somewhere.
// SAFETY: the record is integers.
static NO_DEED: FileRecord = unsafe { core::mem::zeroed() };

/// What the `path_*` hooks of the lsm flavour found: they come before the kernel asks whether the task may do it at all. When it is
/// full the oldest goes; few threads are between the two at once.
#[map]
static DEEDS: LruHashMap<Deed, FileRecord> = LruHashMap::with_max_entries(1024, 0);

/// Keeps a record until it is [`done`].
#[inline(always)]
fn announce(dentry: u64, op: u8, fill: impl FnOnce(u64, *mut FileRecord)) {
    let deed = Deed { thread: task::current_id(), dentry, op: u64::from(op) };
    let _ = DEEDS.insert(&deed, &NO_DEED, u64::from(BPF_ANY));
    match DEEDS.get_ptr_mut(&deed) {
        Some(record) => fill(task::current(), record),
        None => lost(task::current(), kind::FILE, cause::MAP),
    }
}

/// The kernel did it, or did not.
#[inline(always)]
pub fn done(dentry: u64, op: u8, result: i32) {
    let deed = Deed { thread: task::current_id(), dentry, op: u64::from(op) };
    let Some(kept) = DEEDS.get_ptr(&deed) else { return };
    if result == 0 {
        const HEAD: usize = core::mem::offset_of!(FileRecord, file);
        emit::<FileRecord>(task::current(), |record| {
            // SAFETY: the record is reserved, and `kept` a map value, of the same size.
            unsafe {
                let (to, from) = (record.cast::<u8>().add(HEAD), kept.cast::<u8>().add(HEAD));
                bpf_probe_read_kernel(to.cast(), (size_of::<FileRecord>() - HEAD) as u32, from.cast());
            }
        });
    }
    let _ = DEEDS.remove(&deed);
}

#[inline(always)]
fn announce_pair(old: Path, new: Path, op: u8) {
    let inode = pointer(old.dentry, &OFF_DENTRY_INODE);
    if task::is_own() || !is_name(inode) {
        return;
    }
    announce(old.dentry, op, |task, record| {
        // SAFETY: a map value of this thread alone.
        unsafe {
            file_info::fill(inode, old.mnt, &raw mut (*record).file);
            (*record).op = op;
            let buffer = &raw mut (*record).path;
            file_info::set_path(&raw mut (*record).file, path::of_name(task, old, buffer.cast()));
            let target = &raw mut (*record).target_path;
            let walked = path::of_name(task, new, target.cast());
            (*record).target_len = walked.len;
            (*record).target_flags = walked.flags;
        }
    });
}

/// What a system call names, where no kernel object is to be had.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Named {
    /// One of [`file_op`].
    pub op: u32,
    /// As [`FileRecord::arg`].
    pub arg: u32,
    /// Directory that `name` is relative to, or `AT_FDCWD`.
    pub dirfd: i32,
    /// The same for `target`.
    pub target_dirfd: i32,
    /// Address of the name, user memory.
    pub name: u64,
    /// Address of the second name; 0 without one.
    pub target: u64,
}

/// Something was done by name.
#[inline(always)]
pub fn named(call: &Named) {
    if task::is_own() {
        return;
    }
    let task = task::current();
    emit::<FileRecord>(task, |record| {
        // SAFETY: the record is reserved.
        unsafe {
            file_info::none(&raw mut (*record).file);
            (*record).file.flags = file_flag::PRESENT;
            (*record).op = call.op as u8;
            (*record).reserved = [0; 3];
            (*record).arg = call.arg;
            (*record).target_len = 0;
            (*record).target_flags = 0;
            (*record).open_flags = 0;
            let buffer = &raw mut (*record).path;
            let base = Path::of_dirfd(task, call.dirfd);
            let walked = path::of_spelling(task, base, Spelling::User(call.name), buffer.cast());
            file_info::set_path(&raw mut (*record).file, walked);
            if call.target != 0 {
                let target = &raw mut (*record).target_path;
                let base = Path::of_dirfd(task, call.target_dirfd);
                let walked = path::of_spelling(task, base, Spelling::User(call.target), target.cast());
                (*record).target_len = walked.len;
                (*record).target_flags = walked.flags;
            }
        }
    });
}

/// A file was opened. Reported when this open made it, or is the first for write since its last writer closed it.
#[inline(always)]
pub fn opened(file: u64) {
    let mode: u32 = read(file, &OFF_FILE_MODE);
    if mode & (WRITE | CREATED) == 0 || mode & NOACCOUNT != 0 {
        return;
    }
    let inode = file_info::inode(file);
    if !is_content(inode) {
        return;
    }
    let path = Path::of_file(file);
    let info = info(inode, path.mnt);
    let known = mode & WRITE != 0 && digest::opened_for_write(&info, file_info::writers(inode));
    let created = mode & CREATED != 0;
    if opaque(u32::from(known && !created)) != 0 {
        return;
    }
    let op = if created { file_op::CREATE } else { file_op::OPEN_WRITE };
    report(&info, path, op, 0, read(file, &OFF_FILE_FLAGS));
}

/// The last reference to a file goes. Reported when it is the inode's last writer. A mapping of a file of overlayfs outlives the
/// file that was opened: then it is the mapping's, the layer's file, whose last reference counts, as with any other file
/// system.
#[inline(always)]
pub fn closing(file: u64) {
    let mode: u32 = read(file, &OFF_FILE_MODE);
    let of_layer = mode & NOACCOUNT != 0;
    // Only the lsm flavour comes by the files of layers.
    if mode & WRITE == 0 || of_layer && global(&FLAVOUR) != u32::from(hook::LSM) {
        return;
    }
    if file_info::writers(file_info::inode(file)) != 1 {
        return;
    }
    let path = Path::of_file(file);
    // The name's inode: for the layer's file it is that of the overlay.
    let inode = pointer(path.dentry, &OFF_DENTRY_INODE);
    if !is_content(inode) || file_info::is_mapped_beneath(inode) {
        return;
    }
    let mut info = info(inode, path.mnt);
    if of_layer && (file_info::writers(inode) > 0 || !digest::is_open(&info)) {
        return;
    }
    // The writer that is counted is the one that goes.
    info.flags &= !file_flag::WRITERS;
    digest::closed(&info);
    report(&info, path, file_op::CLOSE_WRITE, 0, read(file, &OFF_FILE_FLAGS));
}

/// A descriptor goes: [`closing`], if it is the file's last reference.
#[inline(always)]
pub fn closing_fd(fd: i32) {
    let file = path::file_of_fd(task::current(), fd);
    if file == 0 || read::<u32>(file, &OFF_FILE_MODE) & WRITE == 0 {
        return;
    }
    // `f_count` holds the number of references; `f_ref`, since 6.13, one less.
    let last = if has(&OFF_FILE_COUNT) {
        read::<i64>(file, &OFF_FILE_COUNT) == 1
    } else {
        read::<i64>(file, &OFF_FILE_REF) == 0
    };
    if last {
        closing(file);
    }
}

/// A file is mapped shared and writable.
#[inline(always)]
pub fn mapped_writable(file: u64) {
    let inode = file_info::inode(file);
    // A mapping of a file that was opened for reading is shared in name only.
    if read::<u32>(file, &OFF_FILE_MODE) & WRITE == 0 || !is_content(inode) {
        return;
    }
    let path = Path::of_file(file);
    let info = info(inode, path.mnt);
    digest::changed(&info);
    report(&info, path, file_op::MAP_WRITE, 0, read(file, &OFF_FILE_FLAGS));
}

/// The size is about to be set: no digest of before is good any more.
#[inline(always)]
pub fn truncating(path: Path) {
    let inode = pointer(path.dentry, &OFF_DENTRY_INODE);
    if is_content(inode) {
        digest::changed(&info(inode, path.mnt));
    }
}

/// The size was set. With an open writer it says nothing that the writer's close will not.
#[inline(always)]
pub fn truncated(path: Path) {
    let inode = pointer(path.dentry, &OFF_DENTRY_INODE);
    if !is_content(inode) {
        return;
    }
    let info = now(inode, path.mnt);
    digest::changed(&info);
    if file_info::writers(inode) <= 0 {
        report(&info, path, file_op::TRUNCATE, 0, 0);
    }
}

/// A file that is judged now, unless a writer has it open, whose close will be.
#[inline(always)]
fn now(inode: u64, mnt: u64) -> FileInfo {
    let mut info = info(inode, mnt);
    let settled = if file_info::writers(inode) <= 0 { file_flag::WRITERS } else { 0 };
    info.flags = opaque(info.flags & !settled);
    info
}

/// The mode is set. Only a file that becomes executable matters.
#[inline(always)]
pub fn mode_set(path: Path, mode: u32) {
    let inode = pointer(path.dentry, &OFF_DENTRY_INODE);
    if mode & X == 0 || !is_content(inode) {
        return;
    }
    report(&now(inode, path.mnt), path, file_op::CHMOD, mode & 0o7777, 0);
}

/// The mode is about to be set.
#[inline(always)]
pub fn setting_mode(path: Path, mode: u32) {
    let inode = pointer(path.dentry, &OFF_DENTRY_INODE);
    if mode & X == 0 || !is_content(inode) || task::is_own() {
        return;
    }
    let info = now(inode, path.mnt);
    announce(path.dentry, file_op::CHMOD, |task, record| {
        // SAFETY: a map value of this thread alone.
        unsafe { fill(record, task, &info, path, file_op::CHMOD, mode & 0o7777, 0) };
    });
}

/// A name is about to be moved.
#[inline(always)]
pub fn renaming(old: Path, new: Path) {
    announce_pair(old, new, file_op::RENAME);
}

/// A file is about to get a further name.
#[inline(always)]
pub fn linking(old: Path, new: Path) {
    announce_pair(old, new, file_op::LINK);
}

/// A name is about to be removed.
#[inline(always)]
pub fn unlinking(path: Path) {
    let inode = pointer(path.dentry, &OFF_DENTRY_INODE);
    if !is_name(inode) || task::is_own() {
        return;
    }
    let info = info(inode, path.mnt);
    announce(path.dentry, file_op::UNLINK, |task, record| {
        // SAFETY: a map value of this thread alone.
        unsafe { fill(record, task, &info, path, file_op::UNLINK, 0, 0) };
    });
}

/// A symbolic link is made. It has no inode yet.
#[inline(always)]
pub fn symlinked(path: Path) {
    let mut link = file_info::NONE;
    link.flags = file_flag::PRESENT;
    link.mode = S_IFLNK | 0o777;
    report(&link, path, file_op::CREATE, 0, 0);
}

/// `chmod(2)` to a mode that nobody can execute by.
#[inline(always)]
pub fn is_dull_mode(mode: u32) -> bool {
    mode & X == 0
}
