//! File changes: one body for each thing that can be done to a file.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use muster_common::{FileInfo, FileRecord, PATH_BUF, cause, file_flag, file_op, hook, kind, path_flag};

use crate::device;
use crate::digest;
use crate::draft::Draft;
use crate::emit::{emit_with_paths, lost};
use crate::file_info::{self, S_IFBLK, S_IFLNK, S_IFREG};
use crate::layout::*;
use crate::path::{self, Path, Spelling};
use crate::task;
use crate::writers;

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
/// `RENAME_EXCHANGE`
pub const RENAME_EXCHANGE: u32 = 2;
/// `O_ACCMODE`: the bits that say for what a file is opened.
const ACCMODE: u32 = 3;
/// `O_TRUNC`
const TRUNC: u32 = 0o1000;

/// A content that can be judged: a regular file outside the kernel's own file systems.
#[inline(always)]
fn is_content(inode: u64) -> bool {
    file_info::kind(inode) == S_IFREG && !file_info::is_pseudo(inode)
}

/// A name that matters, whatever has it: a FIFO in a file's place is a change, too.
#[inline(always)]
fn is_name(inode: u64) -> bool {
    !file_info::is_pseudo(inode)
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
    emit_with_paths::<FileRecord>(task, |draft| {
        // SAFETY: the draft is this program's alone.
        unsafe { fill(draft, task, info, path, op, arg, open_flags) };
    });
}

/// # Safety
/// `draft` is valid for writes.
#[inline(always)]
unsafe fn fill(
    draft: *mut Draft<FileRecord>,
    task: u64,
    info: &FileInfo,
    path: Path,
    op: u8,
    arg: u32,
    open_flags: u32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let record = &raw mut (*draft).head;
        (*record).file = *info;
        set_op(record, op, arg, open_flags);
        let buffer = &raw mut (*draft).path;
        let walked = path::of(task, path, buffer.cast());
        file_info::set_path(&raw mut (*record).file, walked);
        (*record).origin_len = path::origin(task, path, (&raw mut (*draft).origin).cast());
        set_root(task, record);
    }
}

/// A task's paths are those of its root directory: if that is in another mount namespace, its own says nothing of them.
///
/// # Safety
/// `record` is valid for writes.
#[inline(always)]
unsafe fn set_root(task: u64, record: *mut FileRecord) {
    // SAFETY: the caller's promise.
    unsafe {
        if (*record).origin_len != 0 && path::has_other_root(task) {
            (*record).task.mnt_ns = 0;
        }
    }
}

/// What is done, and all else that is no name: without a second one, and with no names up to the root of the file system.
///
/// # Safety
/// `record` is valid for writes.
#[inline(always)]
unsafe fn set_op(record: *mut FileRecord, op: u8, arg: u32, open_flags: u32) {
    const AT: usize = core::mem::offset_of!(FileRecord, op);
    const { assert!(AT.is_multiple_of(4) && core::mem::offset_of!(FileRecord, reserved) == AT + 1) };
    // SAFETY: the caller's promise.
    unsafe {
        // The zeroes behind it in the same store: three bytes alone would be a call of `memset`, and so a stack frame.
        (&raw mut (*record).op).cast::<u32>().write(u32::from(op));
        (*record).arg = arg;
        (*record).target_len = 0;
        (*record).target_flags = 0;
        (*record).open_flags = open_flags;
        (*record).origin_len = 0;
        (*record).target_origin_len = 0;
        (*record).reserved_too = 0;
    }
}

/// Something that is about to be done to a name.
#[repr(C)]
#[derive(Clone, Copy)]
struct Deed {
    /// Overlayfs does the same to names of its layers meanwhile.
    dentry: u64,
    /// One of [`file_op`].
    op: u64,
    draft: Draft<FileRecord>,
}

/// Lies in `.rodata`, as a new entry has to come from somewhere.
// SAFETY: the record is integers.
static NO_DEED: Deed = unsafe { core::mem::zeroed() };

/// What the `path_*` hooks of the lsm flavour found, by `tgid << 32 | tid`: they come before the kernel asks whether the task may do it
/// at all. A thread is in one such call at a time; what it leaves is [`unconfirmed`]. No LRU map, as for `PENDING` (`exec.rs`): what finds no
/// room is counted. The agent makes it larger where there are many processors.
#[map]
static DEEDS: HashMap<u64, Deed> = HashMap::with_max_entries(1024, 0);

/// Keeps a record until it is [`done`].
#[inline(always)]
fn announce(dentry: u64, op: u8, fill: impl FnOnce(u64, *mut Draft<FileRecord>)) {
    let id = task::current_id();
    unconfirmed(id);
    let _ = DEEDS.insert(id, &NO_DEED, u64::from(BPF_ANY));
    let Some(deed) = DEEDS.get_ptr_mut(id) else {
        lost(task::current(), kind::FILE, cause::MAP);
        return;
    };
    // SAFETY: a map value of this thread alone.
    unsafe {
        (*deed).dentry = dentry;
        (*deed).op = u64::from(op);
        fill(task::current(), &raw mut (*deed).draft);
    }
}

/// What this thread was about to do, if it was this.
#[inline(always)]
fn announced(dentry: u64, op: u8) -> Option<*const Draft<FileRecord>> {
    let deed = DEEDS.get_ptr(task::current_id())?;
    // SAFETY: a map value of this thread alone.
    unsafe { ((*deed).dentry == dentry && (*deed).op == u64::from(op)).then_some(&raw const (*deed).draft) }
}

/// Emits the pending record if the operation succeeded.
#[inline(always)]
pub fn done(dentry: u64, op: u8, result: i32) {
    let Some(kept) = announced(dentry, op) else { return };
    if result == 0 {
        copy(kept, dentry, op);
    }
    let _ = DEEDS.remove(task::current_id());
}

/// What the thread of this id, the current one, was about to do was never [`done`] for all that is known.
#[inline(always)]
fn unconfirmed(id: u64) {
    if DEEDS.get_ptr(id).is_some() {
        lost(task::current(), kind::FILE, cause::UNCONFIRMED);
    }
}

/// The current thread is gone, or has this id no more.
#[inline(always)]
pub fn forget(id: u64) {
    if global(&FLAVOUR) == u32::from(hook::LSM) {
        unconfirmed(id);
        let _ = DEEDS.remove(id);
    }
}

/// Sends what was kept of a deed that has this dentry.
#[inline(always)]
fn copy(kept: *const Draft<FileRecord>, dentry: u64, op: u8) {
    const HEAD: usize = core::mem::offset_of!(FileRecord, file);
    emit_with_paths::<FileRecord>(task::current(), |draft| {
        // SAFETY: the draft is this program's alone, and `kept` a map value, of the same size.
        unsafe {
            let (to, from) = (draft.cast::<u8>().add(HEAD), kept.cast::<u8>().add(HEAD));
            bpf_probe_read_kernel(to.cast(), (size_of::<Draft<FileRecord>>() - HEAD) as u32, from.cast());
            let record = &raw mut (*draft).head;
            (*record).op = op;
            now_is(dentry, op, &raw mut (*record).file);
            set_root(task::current(), record);
        }
    });
}

/// Emits the pending record if vfs_rename() succeeded. With `RENAME_EXCHANGE` each of the two has its record. security_path_rename()
/// calls its hook for both until 5.18, the second from the other's side.
#[inline(always)]
pub fn renamed(old: u64, new: u64, flags: u32, result: i32) {
    if flags & RENAME_EXCHANGE == 0 {
        done(old, file_op::RENAME, result);
        return;
    }
    let (kept, dentry, other) = match announced(old, file_op::RENAME) {
        Some(kept) => (kept, old, new),
        None => match announced(new, file_op::RENAME) {
            Some(kept) => (kept, new, old),
            None => return,
        },
    };
    if result == 0 {
        copy(kept, dentry, file_op::EXCHANGE);
        // Each dentry has kept its inode, and taken the other's name.
        swap(kept, pointer(other, &OFF_DENTRY_INODE));
    }
    let _ = DEEDS.remove(task::current_id());
}

/// Sends what was kept of an exchange from the side of the other.
#[inline(always)]
fn swap(kept: *const Draft<FileRecord>, inode: u64) {
    emit_with_paths::<FileRecord>(task::current(), |draft| {
        // SAFETY: the draft is this program's alone, and `kept` a map value.
        unsafe {
            let (record, was) = (&raw mut (*draft).head, &raw const (*kept).head);
            file_info::fill(inode, 0, &raw mut (*record).file);
            set_op(record, file_op::EXCHANGE, 0, 0);
            (*record).file.path_len = (*was).target_len;
            (*record).file.path_flags = (*was).target_flags;
            (*record).target_len = (*was).file.path_len;
            (*record).target_flags = (*was).file.path_flags;
            (*record).origin_len = (*was).target_origin_len;
            (*record).target_origin_len = (*was).origin_len;
            let (path, second) = (&raw mut (*draft).path, &raw mut (*draft).second_path);
            let (old, new) = (&raw const (*kept).path, &raw const (*kept).second_path);
            bpf_probe_read_kernel(path.cast(), PATH_BUF as u32, new.cast());
            bpf_probe_read_kernel(second.cast(), PATH_BUF as u32, old.cast());
            let (origin, second) = (&raw mut (*draft).origin, &raw mut (*draft).second_origin);
            let (old, new) = (&raw const (*kept).origin, &raw const (*kept).second_origin);
            bpf_probe_read_kernel(origin.cast(), PATH_BUF as u32, new.cast());
            bpf_probe_read_kernel(second.cast(), PATH_BUF as u32, old.cast());
            set_root(task::current(), record);
        }
    });
}

/// What was done sets the change time, and on overlayfs it may have copied the file up: whoever reads it must find what the record has.
///
/// # Safety
/// `file` is valid for writes.
#[inline(always)]
unsafe fn now_is(dentry: u64, op: u8, file: *mut FileInfo) {
    let inode = pointer(dentry, &OFF_DENTRY_INODE);
    // A name that was removed may have none any more.
    if op == file_op::UNLINK || inode == 0 {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let (len, flags, mode) = ((*file).path_len, (*file).path_flags, (*file).flags & file_flag::MEMFD);
        let settled = (*file).flags & file_flag::WRITERS;
        file_info::fill(inode, 0, file);
        (*file).flags = (*file).flags & !file_flag::WRITERS | settled | mode;
        (*file).path_len = len;
        (*file).path_flags = flags;
    }
}

#[inline(always)]
fn announce_pair(old: Path, new: Path, op: u8) {
    let inode = pointer(old.dentry, &OFF_DENTRY_INODE);
    if task::is_own() || !is_name(inode) {
        return;
    }
    announce(old.dentry, op, |task, draft| {
        // SAFETY: a map value of this thread alone.
        unsafe {
            let record = &raw mut (*draft).head;
            file_info::fill(inode, old.mnt, &raw mut (*record).file);
            (*record).op = op;
            let buffer = &raw mut (*draft).path;
            let walked = path::of_name(task, old, buffer.cast());
            (*record).origin_len = path::origin(task, old, (&raw mut (*draft).origin).cast());
            let target = &raw mut (*draft).second_path;
            let there = path::of_name(task, new, target.cast());
            (*record).target_origin_len = path::origin(task, new, (&raw mut (*draft).second_origin).cast());
            file_info::set_path(&raw mut (*record).file, walked);
            (*record).target_len = there.len;
            (*record).target_flags = there.flags;
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
    emit_with_paths::<FileRecord>(task, |draft| {
        // SAFETY: the draft is this program's alone.
        unsafe {
            let record = &raw mut (*draft).head;
            file_info::none(&raw mut (*record).file);
            (*record).file.flags = file_flag::PRESENT;
            set_op(record, call.op as u8, call.arg, 0);
            let buffer = &raw mut (*draft).path;
            let base = Path::of_dirfd(task, call.dirfd);
            let walked = path::of_spelling(task, base, Spelling::User(call.name), buffer.cast());
            file_info::set_path(&raw mut (*record).file, walked);
            if call.target != 0 {
                let target = &raw mut (*draft).second_path;
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
    if mode & WRITE != 0 && file_info::kind(inode) == S_IFBLK {
        device_opened(file, inode);
        return;
    }
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

/// A block device was opened for write. The agent knows whether a file system lies on it.
#[inline(always)]
fn device_opened(file: u64, inode: u64) {
    let (path, flags): (Path, u32) = (Path::of_file(file), read(file, &OFF_FILE_FLAGS));
    let number: u32 = read(inode, &OFF_INODE_RDEV);
    device::opened(file, number);
    report(&info(inode, path.mnt), path, file_op::BLOCK_WRITE, number, flags);
}

/// The last reference to a file goes. Reported with [`file_flag::WRITERS`] when others have the inode open for write still: they may
/// never close it. A mapping of a file of overlayfs outlives the
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
    let inode = file_info::inode(file);
    let writers = file_info::writers(inode);
    // What is no file is not counted among the writers of its inode.
    if writers < 1 && !of_layer && file_info::kind(inode) == S_IFBLK {
        device::closed(file);
        return;
    }
    if writers < 1 || of_layer && writers != 1 {
        return;
    }
    let path = Path::of_file(file);
    // The name's inode: for the layer's file it is that of the overlay.
    let inode = pointer(path.dentry, &OFF_DENTRY_INODE);
    if !is_content(inode) || file_info::is_mapped_beneath(inode) {
        return;
    }
    let mut info = info(inode, path.mnt);
    if of_layer && (file_info::writers(inode) > 0 || !writers::is_open(&info)) {
        return;
    }
    if writers == 1 {
        // The writer that is counted is the one that goes.
        info.flags &= !file_flag::WRITERS;
        digest::closed(&info);
    }
    info.flags = opaque(info.flags);
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
    digest::mapped(&info);
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

/// An open for reading that empties the file: Linux asks only for permission to write.
#[inline(always)]
pub fn is_emptying(open_flags: u32) -> bool {
    open_flags & ACCMODE == 0 && open_flags & TRUNC != 0
}

/// do_truncate() has set the size of an opened file. A file that is open for write is judged when that closes it. Of the others
/// handle_truncate() comes here, for open(O_RDONLY | O_TRUNC), and has counted itself as a writer.
#[inline(always)]
pub fn emptied(file: u64) {
    if file == 0 || read::<u32>(file, &OFF_FILE_MODE) & WRITE != 0 {
        return;
    }
    emptied_beside(file, 1);
}

/// The same once the open is done.
#[inline(always)]
pub fn was_emptied(file: u64) {
    emptied_beside(file, 0);
}

/// `counted`: writers that are none.
#[inline(always)]
fn emptied_beside(file: u64, counted: i32) {
    let inode = file_info::inode(file);
    if !is_content(inode) {
        return;
    }
    let path = Path::of_file(file);
    let mut info = info(inode, path.mnt);
    digest::changed(&info);
    if file_info::writers(inode) <= counted {
        info.flags = opaque(info.flags & !file_flag::WRITERS);
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
    announce(path.dentry, file_op::CHMOD, |task, draft| {
        // SAFETY: a map value of this thread alone.
        unsafe { fill(draft, task, &info, path, file_op::CHMOD, mode & 0o7777, 0) };
    });
}

/// `security.capability` and its NUL.
const CAPABILITY: [u8; 20] = *b"security.capability\0";

/// The name of an extended attribute is that of capabilities.
#[inline(always)]
pub fn is_capability(name: [u8; 20]) -> bool {
    name == CAPABILITY
}

/// An extended attribute was set, of a name whose mount is not known.
#[inline(always)]
pub fn attribute_set(dentry: u64, attribute: u64) {
    let inode = pointer(dentry, &OFF_DENTRY_INODE);
    if !is_capability(read_at(attribute)) || !is_content(inode) || task::is_own() {
        return;
    }
    let info = now(inode, 0);
    emit_with_paths::<FileRecord>(task::current(), |draft| {
        // SAFETY: the draft is this program's alone.
        unsafe {
            let record = &raw mut (*draft).head;
            (*record).file = info;
            (*record).file.path_flags = path_flag::UNREACHABLE;
            set_op(record, file_op::CAPABILITY, 0, 0);
            (*record).origin_len = path::within(dentry, (&raw mut (*draft).origin).cast());
        }
    });
}

/// The same of an opened file.
#[inline(always)]
pub fn capability_set(path: Path) {
    let inode = pointer(path.dentry, &OFF_DENTRY_INODE);
    if is_content(inode) {
        report(&now(inode, path.mnt), path, file_op::CAPABILITY, 0, 0);
    }
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
    announce(path.dentry, file_op::UNLINK, |task, draft| {
        // SAFETY: a map value of this thread alone.
        unsafe { fill(draft, task, &info, path, file_op::UNLINK, 0, 0) };
    });
}

/// A symbolic link is about to be made. It has no inode yet.
#[inline(always)]
pub fn symlinking(path: Path) {
    if task::is_own() {
        return;
    }
    let mut link = file_info::NONE;
    link.flags = file_flag::PRESENT;
    link.mode = S_IFLNK | 0o777;
    announce(path.dentry, file_op::CREATE, |task, draft| {
        // SAFETY: a map value of this thread alone.
        unsafe { fill(draft, task, &link, path, file_op::CREATE, 0, 0) };
    });
}

/// vfs_symlink() returns. Its arguments differ between versions; a name that has an inode was made.
#[inline(always)]
pub fn symlinked(dentry: u64) {
    let failed = pointer(dentry, &OFF_DENTRY_INODE) == 0;
    done(dentry, file_op::CREATE, -i32::from(failed));
}

/// `chmod(2)` to a mode that nobody can execute by.
#[inline(always)]
pub fn is_dull_mode(mode: u32) -> bool {
    mode & X == 0
}
