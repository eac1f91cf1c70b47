//! Executable mappings of files.

use core::ffi::c_void;

use muster_common::{Digest, FileInfo, LibraryRecord, file_flag, kind};

use crate::digest;
use crate::draft::Claimed;
use crate::emit::{Submitted, emit_by, now, submit};
use crate::exec;
use crate::file;
use crate::file_info::{self, S_IFREG};
use crate::layout::*;
use crate::mapped::{self, Mapped};
use crate::path::{self, Path};
use crate::task;

/// `PROT_EXEC`
pub const PROT_EXEC: u64 = 4;
/// `VM_WRITE`, `VM_EXEC`, `VM_SHARED`
const VM_WRITE: u64 = 2;
const VM_EXEC: u64 = 4;
const VM_SHARED: u64 = 8;

/// A file that is mapped, and how. One structure, as each that is handed on takes room on the stack.
#[derive(Clone, Copy)]
struct Mapping {
    path: Path,
    digest: Digest,
    prot: u64,
    mprotect: bool,
    address: u64,
    /// When it was begun to find out what the file holds, nanoseconds since boot.
    began: u64,
}

#[inline(always)]
fn report(info: &FileInfo, how: &Mapping) {
    emit_by(task::current(), kind::LIBRARY, |claimed| submitted(info, how, claimed));
}

/// A function of its own that calls no other: a program has 512 bytes of stack, and this path needs all.
#[inline(never)]
fn submitted(info: &FileInfo, how: &Mapping, claimed: Claimed) -> Submitted {
    let path = how.path;
    let mapped = Mapped::of(path, info);
    if mapped::is_exact(opaque(info.flags)) && mapped.is_known(info) {
        return Submitted::Yes;
    }
    let task = task::current();
    let submitted = submit::<LibraryRecord>(task, claimed, |draft| {
        // SAFETY: the draft is this program's alone.
        unsafe {
            let record = &raw mut (*draft).head;
            (*record).file = *info;
            (*record).digest = how.digest;
            (*record).prot = how.prot as u32;
            (*record).mprotect = u32::from(how.mprotect);
            (*record).address = how.address;
            let buffer = &raw mut (*draft).path;
            file_info::set_path(&raw mut (*record).file, path::of(task, path, buffer.cast()));
        }
    });
    if submitted == Submitted::Yes && mapped::is_exact(opaque(info.flags)) {
        mapped.note(&how.began);
    }
    submitted
}

/// A private mapping that is writable and executable at once: a page that is stored to is the process's own, and runs.
#[inline(always)]
fn altered(shared: bool, prot: u64) -> u32 {
    if !shared && prot & file::PROT_WRITE != 0 { file_flag::ALTERED } else { 0 }
}

/// The hook before a mapping is made.
///
/// # Safety
/// `file` is a `struct file *` that the verifier knows as such, and the program is sleepable.
#[inline(always)]
pub unsafe fn mapping(file: *mut c_void, prot: u64, flags: u64) {
    if file.is_null() {
        return;
    }
    if prot & file::PROT_WRITE != 0 && flags & file::MAP_SHARED != 0 {
        file::mapped_writable(file as u64);
    }
    let inode = file_info::inode(file as u64);
    if prot & PROT_EXEC == 0 || task::is_own() || file_info::kind(inode) != S_IFREG || exec::is_loading(inode)
    {
        return;
    }
    let path = Path::of_file(file as u64);
    let mut info = file_info::NONE;
    let mut how = Mapping { path, digest: digest::NONE, prot, mprotect: false, address: 0, began: now() };
    // SAFETY: `info` is ours; the caller's promise. The digest comes before a draft is claimed: it waits.
    unsafe {
        file_info::fill(inode, path.mnt, &raw mut info);
        info.flags |= altered(flags & file::MAP_SHARED != 0, prot);
        digest::of(file, inode, &info, &mut how.digest);
    }
    report(&info, &how);
}

/// A mapping was made by `mmap`.
#[inline(always)]
pub fn mapped(file: u64, prot: u64, flags: u64, address: u64) {
    if prot & file::PROT_WRITE != 0 && flags & file::MAP_SHARED != 0 {
        file::mapped_writable(file);
    }
    if prot & PROT_EXEC != 0 {
        let altered = opaque(altered(flags & file::MAP_SHARED != 0, prot));
        let path = Path::of_file(file);
        executable(
            Mapping { path, digest: digest::NONE, prot, mprotect: false, address, began: now() },
            altered,
        );
    }
}

/// The protection of a mapping is about to change. The digest can only be one that is kept: the memory map is locked
/// here, and reading the file may need it.
#[inline(always)]
pub fn protecting(vma: u64, prot: u64) {
    let file = pointer(vma, &OFF_VMA_FILE);
    if file == 0 {
        return;
    }
    let flags: u64 = read(vma, &OFF_VMA_FLAGS);
    if prot & file::PROT_WRITE != 0 && flags & VM_SHARED != 0 && flags & VM_WRITE == 0 {
        file::mapped_writable(file);
    }
    if prot & PROT_EXEC == 0 {
        return;
    }
    // Since 2.6 a private mapping has an `anon_vma` from the first page that is not the file's any more (do_cow_fault(),
    // wp_page_copy()), and keeps it.
    let stored = pointer(vma, &OFF_VMA_ANON) != 0;
    let altered = opaque(if stored { file_flag::ALTERED } else { altered(flags & VM_SHARED != 0, prot) });
    let becomes_writable = altered != 0 && prot & file::PROT_WRITE != 0 && flags & VM_WRITE == 0;
    if flags & VM_EXEC == 0 || becomes_writable {
        let address = read(vma, &OFF_VMA_START);
        let path = Path::of_file(file);
        executable(
            Mapping { path, digest: digest::NONE, prot, mprotect: true, address, began: now() },
            altered,
        );
    }
}

#[inline(always)]
fn executable(mut how: Mapping, altered: u32) {
    // The name's inode and not the file's: they differ for a mapping of a file of overlayfs.
    let inode = pointer(how.path.dentry, &OFF_DENTRY_INODE);
    if task::is_own() || file_info::kind(inode) != S_IFREG {
        return;
    }
    let mut info = file_info::NONE;
    // SAFETY: ours.
    unsafe { file_info::fill(inode, how.path.mnt, &raw mut info) };
    info.flags |= altered;
    digest::cached(&info, &mut how.digest);
    report(&info, &how);
}
