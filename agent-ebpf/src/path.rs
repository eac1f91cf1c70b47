//! Paths: one walker for every hook.
//!
//! `bpf_d_path` may be called from few hooks and not at all from some of the flavours' (see the kernel notes), so the
//! names are taken from the dentries themselves, leaf first, up to the root of the task, through mounts. The walk is
//! not locked: a rename while it runs can give a path that is part old and part new, as `d_path` without its retry
//! would.

use core::arch::asm;
use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel_str, bpf_probe_read_user_str};
use muster_common::{NAME_CAP, ORIGIN_CUT, PATH_CAP, path_flag};

use crate::file::NOACCOUNT;
use crate::file_info::MNT_NS_INTERNAL;
use crate::layout::*;

/// Names and mounts that one walk passes at most: the verifier follows each step, and older ones take long. A longer walk is
/// marked truncated.
const STEPS: u32 = 48;
/// The same of the names up to the root of a file system.
const ORIGIN_STEPS: u32 = 32;
/// The working directory, where a descriptor of a directory is expected.
pub const AT_FDCWD: i32 = -100;

/// A `struct path`: a mount and a name under it.
#[derive(Clone, Copy)]
pub struct Path {
    /// `struct vfsmount *`
    pub mnt: u64,
    /// `struct dentry *`
    pub dentry: u64,
}

impl Path {
    /// Reads the `struct path` at `address`.
    #[inline(always)]
    pub fn read(address: u64) -> Self {
        Self { mnt: pointer(address, &OFF_PATH_MNT), dentry: pointer(address, &OFF_PATH_DENTRY) }
    }

    /// Of a `struct file`.
    #[inline(always)]
    pub fn of_file(file: u64) -> Self {
        // A mapping of a file of overlayfs holds the file of the layer, a `struct backing_file` since 6.5. Before 6.7 its path is
        // the name that the program used; since then that is `user_path`. FMODE_BACKING, which says that there is one, is
        // another bit on 6.14, where its old one is on every memfd (FMODE_NONOTIFY). But alloc_empty_backing_file() sets
        // FMODE_NOACCOUNT too, and the other files that have it (kernel_file_open()) are neither mapped by programs nor behind
        // their descriptors.
        let mode: u32 = read(file, &OFF_FILE_MODE);
        let backing = has(&OFF_BACKING_USER_PATH) && mode & NOACCOUNT != 0;
        Self::read(file.wrapping_add(off(if backing { &OFF_BACKING_USER_PATH } else { &OFF_FILE_PATH })))
    }

    /// The task's root.
    #[inline(always)]
    fn root(task: u64) -> Self {
        Self::read(pointer(task, &OFF_TASK_FS) + off(&OFF_FS_ROOT))
    }

    /// The task's working directory.
    #[inline(always)]
    pub fn cwd(task: u64) -> Self {
        Self::read(pointer(task, &OFF_TASK_FS) + off(&OFF_FS_PWD))
    }

    /// The directory that a system call's `dirfd` means.
    #[inline(always)]
    pub fn of_dirfd(task: u64, dirfd: i32) -> Self {
        if dirfd == AT_FDCWD { Self::cwd(task) } else { Self::of_file(file_of_fd(task, dirfd)) }
    }
}

/// The `struct file` behind a descriptor of the task, 0 without one.
#[inline(always)]
pub fn file_of_fd(task: u64, fd: i32) -> u64 {
    let table = pointer(pointer(task, &OFF_TASK_FILES), &OFF_FILES_FDT);
    if fd < 0 || fd as u32 >= read::<u32>(table, &OFF_FDTABLE_MAX) {
        return 0;
    }
    read_at(pointer(table, &OFF_FDTABLE_FD).wrapping_add(fd as u64 * 8))
}

/// What the walk found.
#[derive(Clone, Copy)]
pub struct Walked {
    /// Bytes used.
    pub len: u16,
    /// Bits of [`path_flag`].
    pub flags: u16,
}

/// Writes the path of a file in the root of `task` to `buffer`.
///
/// # Safety
/// `buffer` has room for `PATH_BUF` bytes.
#[inline(always)]
pub unsafe fn of(task: u64, path: Path, buffer: *mut u8) -> Walked {
    // SAFETY: the caller's promise.
    let walked = unsafe { walk(task, path, buffer, 0) };
    let parent = pointer(path.dentry, &OFF_DENTRY_PARENT);
    // d_unlinked(): the root of a pseudo file system is never hashed and yet not deleted.
    let unhashed = pointer(path.dentry, &OFF_DENTRY_HASH_PPREV) == 0 && parent != path.dentry;
    Walked { flags: walked.flags | if unhashed { path_flag::DELETED } else { 0 }, ..walked }
}

/// The same for a name that is not there yet, or no longer.
///
/// # Safety
/// `buffer` has room for `PATH_BUF` bytes.
#[inline(always)]
pub unsafe fn of_name(task: u64, path: Path, buffer: *mut u8) -> Walked {
    // SAFETY: the caller's promise.
    unsafe { walk(task, path, buffer, 0) }
}

/// Writes a name as the caller spelt it, and, when it is relative, the names of the directory it starts at.
///
/// # Safety
/// `buffer` has room for `PATH_BUF` bytes.
#[inline(always)]
pub unsafe fn of_spelling(task: u64, base: Path, name: Spelling, buffer: *mut u8) -> Walked {
    // SAFETY: the helpers write at most `PATH_CAP` bytes; the caller's promise.
    let (len, first) = unsafe {
        let len = match name {
            Spelling::User(at) => {
                bpf_probe_read_user_str(buffer.cast(), PATH_CAP as u32, at as *const c_void)
            }
            Spelling::Kernel(at) => {
                bpf_probe_read_kernel_str(buffer.cast(), PATH_CAP as u32, at as *const c_void)
            }
        };
        (len, *buffer)
    };
    let flags = path_flag::BY_NAME;
    if len < 1 {
        return Walked { len: 0, flags: flags | path_flag::TRUNCATED };
    }
    if len == 1 {
        // AT_EMPTY_PATH: the descriptor is the file, and the kernel knows its name.
        // SAFETY: the caller's promise.
        return unsafe { walk(task, base, buffer, 0) };
    }
    let len = len as usize;
    if len >= PATH_CAP {
        return Walked { len: PATH_CAP as u16, flags: flags | path_flag::TRUNCATED };
    }
    if first == b'/' {
        return Walked { len: len as u16, flags };
    }
    // SAFETY: the caller's promise.
    let walked = unsafe { walk(task, base, buffer, len) };
    Walked { flags: walked.flags | flags, ..walked }
}

/// The mount is attached in a mount namespace: neither internal to the kernel nor taken away.
#[inline(always)]
fn is_in_namespace(mnt: u64) -> bool {
    let namespace = pointer(mnt.wrapping_sub(off(&OFF_MOUNT_MNT)), &OFF_MOUNT_NS);
    namespace != 0 && namespace != MNT_NS_INTERNAL
}

/// The path may not be the file's only one by what is mounted: it leads through another mount than that of the task's root, or the
/// root is only a part of its file system, or another than that of the mounts the task sees (`chroot` to a file system that is mounted
/// somewhere, or to the root of another mount namespace).
#[inline(always)]
fn is_one_of_several(task: u64, path: Path) -> bool {
    let root = Path::root(task);
    let whole = pointer(path.mnt, &OFF_VFSMOUNT_ROOT);
    path.mnt != root.mnt
        || root.dentry != whole
        || pointer(whole, &OFF_DENTRY_PARENT) != whole
        || !is_lowest(root.mnt)
        || has_other_root(task)
}

/// The mount is the lowest of its namespace, or lies on the root of that, as what an initramfs or pivot_root() leaves. One on the root of
/// another still hides what others see there.
#[inline(always)]
fn is_lowest(mnt: u64) -> bool {
    let mount = mnt.wrapping_sub(off(&OFF_MOUNT_MNT));
    let parent = pointer(mount, &OFF_MOUNT_PARENT);
    let below = pointer(parent + off(&OFF_MOUNT_MNT), &OFF_VFSMOUNT_ROOT);
    parent == mount
        || pointer(mount, &OFF_MOUNT_MOUNTPOINT) == below && pointer(parent, &OFF_MOUNT_PARENT) == parent
}

/// The task's root directory is in another mount namespace than its own, by `chroot` to `/proc/PID/root`.
#[inline(always)]
pub fn has_other_root(task: u64) -> bool {
    let mount = Path::root(task).mnt.wrapping_sub(off(&OFF_MOUNT_MNT));
    pointer(mount, &OFF_MOUNT_NS) != pointer(pointer(task, &OFF_TASK_NSPROXY), &OFF_NSPROXY_MNT)
}

/// Writes the names from a file to the root of its file system to `buffer`, if they say more than its path; returns how many bytes
/// these are.
///
/// # Safety
/// `buffer` has room for `PATH_BUF` bytes.
#[inline(always)]
pub unsafe fn origin(task: u64, path: Path, buffer: *mut u8) -> u16 {
    if !is_one_of_several(task, path) {
        return 0;
    }
    // SAFETY: the caller's promise.
    unsafe { within(path.dentry, buffer) }
}

/// The same of a name whose mount is not known.
///
/// # Safety
/// `buffer` has room for `PATH_BUF` bytes.
#[inline(always)]
pub unsafe fn within(mut dentry: u64, buffer: *mut u8) -> u16 {
    let mut cut = 1;
    // As in `walk`.
    let mut len = opaque(0) as usize & (2 * PATH_CAP - 1);
    for _ in 0..ORIGIN_STEPS {
        let parent = pointer(dentry, &OFF_DENTRY_PARENT);
        if parent == dentry {
            cut = 0;
            break;
        }
        if len >= PATH_CAP {
            break;
        }
        let mut at = len;
        // SAFETY: plain arithmetic; no memory, no stack.
        unsafe { asm!("{0} &= {1}", inout(reg) at, const PATH_CAP - 1, options(pure, nomem, nostack)) };
        let name = pointer(dentry, &OFF_DENTRY_NAME);
        // SAFETY: `at` < PATH_CAP, and PATH_BUF has NAME_CAP more.
        let wrote = unsafe {
            bpf_probe_read_kernel_str(buffer.add(at).cast(), NAME_CAP as u32, name as *const c_void)
        };
        if wrote as u64 > NAME_CAP as u64 {
            break;
        }
        len = at + wrote as usize;
        dentry = parent;
    }
    if opaque(cut) == 0 { opaque(len as u32) as u16 } else { ORIGIN_CUT }
}

/// Where a spelling lies.
#[derive(Clone, Copy)]
pub enum Spelling {
    /// User memory.
    User(u64),
    /// Kernel memory.
    Kernel(u64),
}

#[inline(always)]
unsafe fn walk(task: u64, path: Path, buffer: *mut u8, start: usize) -> Walked {
    let root = Path::root(task);
    let Path { mut mnt, mut dentry } = path;
    let mut flags = path_flag::TRUNCATED;
    // Known to lie in the buffer and nothing more: with a known start, older verifiers follow each number of names
    // apart, a hundred times the work. The same goes for the results.
    let mut len = opaque(start as u32) as usize & (2 * PATH_CAP - 1);
    for _ in 0..STEPS {
        if dentry == root.dentry && mnt == root.mnt {
            flags = 0;
            break;
        }
        if dentry == pointer(mnt, &OFF_VFSMOUNT_ROOT) {
            let mount = mnt.wrapping_sub(off(&OFF_MOUNT_MNT));
            let parent = pointer(mount, &OFF_MOUNT_PARENT);
            if parent != mount {
                dentry = pointer(mount, &OFF_MOUNT_MOUNTPOINT);
                mnt = parent + off(&OFF_MOUNT_MNT);
                continue;
            }
        }
        let parent = pointer(dentry, &OFF_DENTRY_PARENT);
        let is_root = parent == dentry;
        let name = pointer(dentry, &OFF_DENTRY_NAME);
        // The root of a file system is called "/" and adds nothing; the root of a memfd is its name.
        if is_root && read_at::<u8>(name) == b'/' {
            flags = path_flag::UNREACHABLE;
            break;
        }
        if len >= PATH_CAP {
            break;
        }
        // The compiler knows that `len` < PATH_CAP here and drops a mask; older verifiers know it of another copy of
        // `len` than the one that is used. So the mask is written where the compiler does not look.
        let mut at = len;
        // SAFETY: plain arithmetic; no memory, no stack.
        unsafe { asm!("{0} &= {1}", inout(reg) at, const PATH_CAP - 1, options(pure, nomem, nostack)) };
        // SAFETY: `at` < PATH_CAP, and PATH_BUF has NAME_CAP more.
        let wrote = unsafe {
            bpf_probe_read_kernel_str(buffer.add(at).cast(), NAME_CAP as u32, name as *const c_void)
        };
        // One comparison, unsigned, for failure too: a lower bound that the verifier learnt here would make each
        // number of names before this one a state of its own.
        if wrote as u64 > NAME_CAP as u64 {
            break;
        }
        len = at + wrote as usize;
        if is_root {
            flags = path_flag::UNREACHABLE;
            break;
        }
        dentry = parent;
    }
    // What an exit closes is closed after the task has left its root (exit_fs() and exit_task_work() in do_exit()): then the root
    // of the mount's namespace is as good.
    if flags == path_flag::UNREACHABLE && root.dentry == 0 && is_in_namespace(mnt) {
        flags = 0;
    }
    Walked { len: opaque(len as u32) as u16, flags: opaque(u32::from(flags)) as u16 }
}
