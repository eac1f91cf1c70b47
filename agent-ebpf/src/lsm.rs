//! Hooks of the `lsm` flavour. Each is a thin shell around a body that other flavours share. A program of this
//! flavour attaches and never fires when `bpf` is not in `/sys/kernel/security/lsm`. The hooks come before what they
//! announce, which can still fail; the exec, and what is done to names and modes, is confirmed by another.

use aya_ebpf::macros::{fentry, fexit, lsm};
use aya_ebpf::programs::{FEntryContext, FExitContext, LsmContext};

use muster_common::file_op;

use crate::connect::Address;
use crate::layout::{OFF_RENAME_FLAGS, OFF_RENAME_NEW, OFF_RENAME_OLD, pointer, read};
use crate::path::Path;
use crate::{connect, exec, file, library};

/// security_bprm_check(), in each round of exec_binprm(). Sleepable since 5.11. Cannot see: code that is mapped and
/// jumped to without an exec (see [`library_map`]).
#[lsm(hook = "bprm_check_security", sleepable)]
pub fn exec_check(ctx: LsmContext) -> i32 {
    // SAFETY: the hook's argument; sleepable.
    unsafe { exec::check(ctx.arg(0)) };
    0
}

/// abort_creds(), in free_bprm() when an exec has failed, since 2.6.29 (begin_new_exec() takes the credentials of one that has not);
/// elsewhere when credentials are not to be had.
#[fentry(function = "abort_creds")]
pub fn exec_abandoned(_ctx: FEntryContext) -> i32 {
    exec::abandoned();
    0
}

/// security_mmap_file(), in vm_mmap_pgoff() before the memory map is locked, and so for the ELF loader too; without
/// a file for anonymous memory. Sleepable since 5.11. Cannot see: where the mapping will be.
#[lsm(hook = "mmap_file", sleepable)]
pub fn library_map(ctx: LsmContext) -> i32 {
    // `prot` and not `reqprot`: a personality can make every readable mapping executable.
    // SAFETY: the hook's argument, typed; sleepable.
    unsafe { library::mapping(ctx.arg(0), ctx.arg(2), ctx.arg(3)) };
    0
}

/// security_file_mprotect(), in do_mprotect_pkey() for each mapping touched, with the memory map locked. Cannot see:
/// a digest that is not kept yet.
#[lsm(hook = "file_mprotect")]
pub fn library_protect(ctx: LsmContext) -> i32 {
    let vma: *const u8 = ctx.arg(0);
    library::protecting(vma as u64, ctx.arg(2));
    0
}

/// security_file_open(), in do_dentry_open(), whoever opens: system calls, io_uring, the kernel. Cannot see: writes
/// to block devices under a file system.
#[lsm(hook = "file_open")]
pub fn file_open(ctx: LsmContext) -> i32 {
    let file: *const u8 = ctx.arg(0);
    file::opened(file as u64);
    0
}

/// locks_remove_file(), in __fput() on every version: the last reference to an open file goes, by close, exec, exit or
/// munmap; of a mapping through overlayfs it is the layer's file. The LSM has no hook there before 6.10. Cannot see: which of two last writers that close at the same moment
/// is the last.
#[fentry(function = "locks_remove_file")]
pub fn file_close(ctx: FEntryContext) -> i32 {
    let file: *const u8 = ctx.arg(0);
    file::closing(file as u64);
    0
}

/// security_path_rename(), in do_renameat2(); needs CONFIG_SECURITY_PATH. Cannot see: renames inside the kernel (nfsd,
/// overlayfs in its upper layer).
#[lsm(hook = "path_rename")]
pub fn file_rename(ctx: LsmContext) -> i32 {
    let (old_dir, new_dir): (*const u8, *const u8) = (ctx.arg(0), ctx.arg(2));
    let (old, new): (*const u8, *const u8) = (ctx.arg(1), ctx.arg(3));
    file::renaming(in_dir(old_dir, old), in_dir(new_dir, new));
    0
}

/// security_path_link(), in do_linkat(). Cannot see: links made inside the kernel.
#[lsm(hook = "path_link")]
pub fn file_link(ctx: LsmContext) -> i32 {
    let (old, new_dir, new): (*const u8, *const u8, *const u8) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    // The old name is on the same mount: link() refuses any other with EXDEV.
    file::linking(in_dir(new_dir, old), in_dir(new_dir, new));
    0
}

/// security_path_unlink(), in do_unlinkat(). Cannot see: a name that is removed by a rename over it (the rename says
/// so), names removed inside the kernel.
#[lsm(hook = "path_unlink")]
pub fn file_unlink(ctx: LsmContext) -> i32 {
    let (dir, name): (*const u8, *const u8) = (ctx.arg(0), ctx.arg(1));
    file::unlinking(in_dir(dir, name));
    0
}

/// security_path_symlink(), in do_symlinkat(). Cannot see: links made inside the kernel.
#[lsm(hook = "path_symlink")]
pub fn file_symlink(ctx: LsmContext) -> i32 {
    let (dir, name): (*const u8, *const u8) = (ctx.arg(0), ctx.arg(1));
    file::symlinking(in_dir(dir, name));
    0
}

/// vfs_symlink() returns, in do_symlinkat(). Its third argument is the name since 5.12.
#[fexit(function = "vfs_symlink")]
pub fn file_symlinked(ctx: FExitContext) -> i32 {
    let name: *const u8 = ctx.arg(2);
    file::symlinked(name as u64);
    0
}

/// security_path_chmod(), in chmod_common() for chmod, fchmod and fchmodat. Cannot see: a mode that comes with the
/// file's creation (the creation says so), ACLs.
#[lsm(hook = "path_chmod")]
pub fn file_chmod(ctx: LsmContext) -> i32 {
    let path: *const u8 = ctx.arg(0);
    let mode: u32 = ctx.arg(1);
    file::setting_mode(Path::read(path as u64), mode);
    0
}

/// vfs_rename() returns, in do_renameat2(); the kernel has asked for permission by then. One argument since 5.12.
#[fexit(function = "vfs_rename")]
pub fn file_renamed(ctx: FExitContext) -> i32 {
    let data: *const u8 = ctx.arg(0);
    let (old, new) = (pointer(data as u64, &OFF_RENAME_OLD), pointer(data as u64, &OFF_RENAME_NEW));
    file::renamed(old, new, read(data as u64, &OFF_RENAME_FLAGS), ctx.arg(1));
    0
}

/// vfs_link() returns, in do_linkat(). Five arguments since 5.12.
#[fexit(function = "vfs_link")]
pub fn file_linked(ctx: FExitContext) -> i32 {
    let old: *const u8 = ctx.arg(0);
    file::done(old as u64, file_op::LINK, ctx.arg(5));
    0
}

/// vfs_unlink() returns, in do_unlinkat(). Four arguments since 5.12.
#[fexit(function = "vfs_unlink")]
pub fn file_unlinked(ctx: FExitContext) -> i32 {
    let name: *const u8 = ctx.arg(2);
    file::done(name as u64, file_op::UNLINK, ctx.arg(4));
    0
}

/// notify_change() returns, in chmod_common(). Four arguments since 5.12.
#[fexit(function = "notify_change")]
pub fn file_chmoded(ctx: FExitContext) -> i32 {
    let name: *const u8 = ctx.arg(1);
    file::done(name as u64, file_op::CHMOD, ctx.arg(4));
    0
}

/// security_inode_post_setxattr(), in __vfs_setxattr_noperm() when it is done. Cannot see: by which mount; files whose file system
/// keeps its attributes elsewhere.
#[lsm(hook = "inode_post_setxattr")]
pub fn file_capability(ctx: LsmContext) -> i32 {
    let (name, attribute): (*const u8, *const u8) = (ctx.arg(0), ctx.arg(1));
    file::attribute_set(name as u64, attribute as u64);
    0
}

/// security_path_truncate(), in truncate() on every version, in ftruncate() and open(O_TRUNC) before 6.2.
#[lsm(hook = "path_truncate")]
pub fn file_truncate(ctx: LsmContext) -> i32 {
    let path: *const u8 = ctx.arg(0);
    file::truncating(Path::read(path as u64));
    0
}

/// vfs_truncate() returns, from truncate() on every version. The LSM hook comes before the size changes, too early to judge
/// the content. Cannot see: ftruncate() and open(O_TRUNC), whose writer is judged when it closes (without one: [`file_emptied`]).
#[fexit(function = "vfs_truncate")]
pub fn file_truncated(ctx: FExitContext) -> i32 {
    let path: *const u8 = ctx.arg(0);
    // After the two arguments comes what the function returned.
    let result: i32 = ctx.arg(2);
    if result == 0 {
        file::truncated(Path::read(path as u64));
    }
    0
}

/// do_truncate() returns, in handle_truncate() for open(O_TRUNC); the others that call it may have it inlined. Five arguments since
/// 5.12.
#[fexit(function = "do_truncate")]
pub fn file_emptied(ctx: FExitContext) -> i32 {
    let file: *const u8 = ctx.arg(4);
    let result: i32 = ctx.arg(5);
    if result == 0 {
        file::emptied(file as u64);
    }
    0
}

/// security_file_truncate(), since 6.2 in ftruncate() and open(O_TRUNC).
#[lsm(hook = "file_truncate")]
pub fn file_ftruncate(ctx: LsmContext) -> i32 {
    let file: *const u8 = ctx.arg(0);
    file::truncating(Path::of_file(file as u64));
    0
}

/// security_socket_connect(), in __sys_connect_file(), io_uring included; the address is the kernel's copy. Cannot
/// see: connects of the kernel's own sockets.
#[lsm(hook = "socket_connect")]
pub fn net_connect(ctx: LsmContext) -> i32 {
    let (socket, address): (*const u8, *const u8) = (ctx.arg(0), ctx.arg(1));
    connect::connecting(socket as u64, Address::Kernel(address as u64), ctx.arg(2));
    0
}

/// security_socket_sendmsg(), in sock_sendmsg(); the address is the kernel's copy. Cannot see: the second and later
/// messages of a sendmmsg() to the same address, which are not checked again.
#[lsm(hook = "socket_sendmsg")]
pub fn net_send(ctx: LsmContext) -> i32 {
    let (socket, msg): (*const u8, *const u8) = (ctx.arg(0), ctx.arg(1));
    connect::sending(socket as u64, msg as u64);
    0
}

/// A name in a directory: the mount of `dir` (`struct path *`) with the `dentry`.
#[inline(always)]
fn in_dir(dir: *const u8, dentry: *const u8) -> Path {
    Path { dentry: dentry as u64, ..Path::read(dir as u64) }
}
