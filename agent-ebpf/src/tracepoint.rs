//! Hooks of the `tracepoint` flavour: system calls at their exit, and the socket state tracepoint.
//!
//! Arguments are kept at the entry, in `CALLS`, and used at the exit when the call has succeeded. What a descriptor
//! names is taken from the kernel's objects; a name that a call is given is user memory, which another thread can
//! change between the call and the look. None of these see: io_uring, 32-bit system calls, the kernel's own work.
//! The points of the category `syscalls` need tracefs.

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::macros::{btf_tracepoint, map, tracepoint};
use aya_ebpf::maps::LruHashMap;
use aya_ebpf::programs::{BtfTracePointContext, TracePointContext};
use muster_common::{cause, file_op, kind, protocol};

use crate::connect::{self, Address, read_user};
use crate::emit::lost;
use crate::file::{self, Named};
use crate::file_info::{self, S_IFSOCK};
use crate::layout::*;
use crate::library::{self, PROT_EXEC};
use crate::path::{self, AT_FDCWD, Path};
use crate::task;

/// Arguments of the call that each thread is in, by `tgid << 32 | tid`. When it is full the call that is under way for longest is
/// forgotten, so that nobody keeps others out by calls that wait. The agent makes it larger where there are many processors.
#[map]
static CALLS: LruHashMap<u64, Named> = LruHashMap::with_max_entries(16_384, 0);

/// Messages of one `sendmmsg` that are looked at.
const MESSAGES: u64 = 8;
/// Size of the user's `struct mmsghdr`, 64-bit.
const MMSGHDR: u64 = 64;

/// Argument `n` of a system call, at its entry.
#[inline(always)]
fn arg(ctx: &TracePointContext, n: usize) -> u64 {
    // SAFETY: `struct trace_event_raw_sys_enter`: 8 bytes common, the number, six arguments.
    unsafe { ctx.as_ptr().cast::<u64>().add(2 + n).read_volatile() }
}

/// Result of a system call, at its exit.
#[inline(always)]
fn result(ctx: &TracePointContext) -> i64 {
    // SAFETY: `struct trace_event_raw_sys_exit`: 8 bytes common, the number, the result.
    unsafe { ctx.as_ptr().cast::<i64>().add(2).read_volatile() }
}

/// `kind`: one of [`kind`], of the record that the call will give.
#[inline(always)]
fn enter(kind: u16, call: &Named) -> u32 {
    if CALLS.insert(task::current_id(), call, u64::from(BPF_ANY)).is_err() {
        lost(task::current(), kind, cause::MAP);
    }
    0
}

/// The call that this thread comes back from.
#[inline(always)]
fn leave() -> Option<Named> {
    let id = task::current_id();
    // SAFETY: a map value of this thread alone.
    let call = unsafe { *CALLS.get_ptr(id)? };
    let _ = CALLS.remove(id);
    Some(call)
}

/// `$name($ctx) = op, dirfd, name, target dirfd, target, arg;`
macro_rules! by_name {
    ($($(#[$doc:meta])* $name:ident = $op:ident, $dirfd:expr, $path:expr, $target_dirfd:expr, $target:expr, $arg:expr;)*) => {
        $($(#[$doc])*
        #[tracepoint]
        pub fn $name(ctx: TracePointContext) -> u32 {
            let argument = |n: Option<usize>| n.map_or(0, |n| arg(&ctx, n));
            let directory = |n: Option<usize>| n.map_or(AT_FDCWD, |n| arg(&ctx, n) as i32);
            enter(kind::FILE, &Named {
                op: u32::from(file_op::$op),
                arg: argument($arg) as u32 & 0o7777,
                dirfd: directory($dirfd),
                target_dirfd: directory($target_dirfd),
                name: argument($path),
                target: argument($target),
            })
        })*
    };
}

by_name! {
    /// rename(2).
    rename_enter = RENAME, None, Some(0), None, Some(1), None;
    /// renameat(2).
    renameat_enter = RENAME, Some(0), Some(1), Some(2), Some(3), None;
    /// renameat2(2), which has flags.
    renameat2_enter = RENAME, Some(0), Some(1), Some(2), Some(3), Some(4);
    /// link(2).
    link_enter = LINK, None, Some(0), None, Some(1), None;
    /// linkat(2).
    linkat_enter = LINK, Some(0), Some(1), Some(2), Some(3), None;
    /// symlink(2): the link is what is made, its text is not followed.
    symlink_enter = CREATE, None, Some(1), None, None, None;
    /// symlinkat(2).
    symlinkat_enter = CREATE, Some(1), Some(2), None, None, None;
    /// unlink(2).
    unlink_enter = UNLINK, None, Some(0), None, None, None;
    /// unlinkat(2).
    unlinkat_enter = UNLINK, Some(0), Some(1), None, None, None;
    /// chmod(2).
    chmod_enter = CHMOD, None, Some(0), None, None, Some(1);
    /// fchmodat(2), fchmodat2(2).
    fchmodat_enter = CHMOD, Some(0), Some(1), None, None, Some(2);
    /// truncate(2).
    truncate_enter = TRUNCATE, None, Some(0), None, None, None;
}

/// Entry of setxattr(2) and lsetxattr(2).
#[tracepoint]
pub fn setxattr_enter(ctx: TracePointContext) -> u32 {
    attribute(arg(&ctx, 1), AT_FDCWD, arg(&ctx, 0))
}

/// Entry of setxattrat(2).
#[tracepoint]
pub fn setxattrat_enter(ctx: TracePointContext) -> u32 {
    attribute(arg(&ctx, 3), arg(&ctx, 0) as i32, arg(&ctx, 1))
}

/// Entry of fsetxattr(2).
#[tracepoint]
pub fn fsetxattr_enter(ctx: TracePointContext) -> u32 {
    attribute(arg(&ctx, 1), arg(&ctx, 0) as i32, 0)
}

/// An attribute, known by its name in user memory, is about to be set. Other attributes than capabilities take part as a call without
/// a name, so that none of before is taken for it.
#[inline(always)]
fn attribute(attribute: u64, dirfd: i32, name: u64) -> u32 {
    let op = if file::is_capability(read_user(attribute)) { file_op::CAPABILITY } else { 0 };
    enter(kind::FILE, &Named { op: u32::from(op), arg: 0, dirfd, target_dirfd: AT_FDCWD, name, target: 0 })
}

/// Exit of each call above.
#[tracepoint]
pub fn name_exit(ctx: TracePointContext) -> u32 {
    let Some(mut call) = leave() else { return 0 };
    let dull = call.op == u32::from(file_op::CHMOD) && file::is_dull_mode(call.arg);
    // One record for both names: the agent looks at each.
    if call.op == u32::from(file_op::RENAME) && call.arg & file::RENAME_EXCHANGE != 0 {
        call.op = u32::from(file_op::EXCHANGE);
    }
    if result(&ctx) == 0 && !dull && call.op != 0 {
        call.op = opaque(call.op);
        file::named(&call);
    }
    0
}

/// [`Named::op`] of an open that empties the file that it is not to write.
const EMPTYING: u32 = 0x100;

/// Keeps an open that empties a file: do_dentry_open() takes `O_TRUNC` out of the flags of the file.
#[inline(always)]
fn opening(flags: u32) -> u32 {
    if !file::is_emptying(flags) {
        return 0;
    }
    enter(kind::FILE, &Named { op: EMPTYING, arg: 0, dirfd: 0, target_dirfd: 0, name: 0, target: 0 })
}

/// Entry of open(2).
#[tracepoint]
pub fn open_enter(ctx: TracePointContext) -> u32 {
    opening(arg(&ctx, 1) as u32)
}

/// Entry of openat(2).
#[tracepoint]
pub fn openat_enter(ctx: TracePointContext) -> u32 {
    opening(arg(&ctx, 2) as u32)
}

/// Entry of openat2(2): the flags are the first member of the user's `struct open_how`.
#[tracepoint]
pub fn openat2_enter(ctx: TracePointContext) -> u32 {
    opening(read_user::<u64>(arg(&ctx, 2)) as u32)
}

/// Exit of open(2), openat(2), openat2(2) and creat(2): the descriptor leads to the file. Cannot see: a descriptor that
/// another thread closed already.
#[tracepoint]
pub fn open_exit(ctx: TracePointContext) -> u32 {
    let fd = result(&ctx);
    if fd < 0 {
        return 0;
    }
    let file = path::file_of_fd(task::current(), fd as i32);
    if file == 0 {
        return 0;
    }
    file::opened(file);
    // Few files are empty: the other opens need not ask.
    if read::<u64>(file_info::inode(file), &OFF_INODE_SIZE) == 0
        && leave().is_some_and(|call| call.op == EMPTYING)
    {
        file::was_emptied(file);
    }
    0
}

/// Entry of close(2). Cannot see: files that an exit, an exec, close_range(2) or munmap(2) closes; the agent takes the
/// end of a process as the close of what it had open for write.
#[tracepoint]
pub fn close_enter(ctx: TracePointContext) -> u32 {
    file::closing_fd(arg(&ctx, 0) as i32);
    0
}

/// Entry of dup2(2) and dup3(2), which close what the new descriptor named before: how a shell ends a redirection.
#[tracepoint]
pub fn dup_enter(ctx: TracePointContext) -> u32 {
    if arg(&ctx, 0) as i32 != arg(&ctx, 1) as i32 {
        file::closing_fd(arg(&ctx, 1) as i32);
    }
    0
}

/// Entry of fchmod(2).
#[tracepoint]
pub fn fchmod_enter(ctx: TracePointContext) -> u32 {
    by_descriptor(file_op::CHMOD, arg(&ctx, 0), arg(&ctx, 1))
}

/// Entry of ftruncate(2).
#[tracepoint]
pub fn ftruncate_enter(ctx: TracePointContext) -> u32 {
    by_descriptor(file_op::TRUNCATE, arg(&ctx, 0), 0)
}

#[inline(always)]
fn by_descriptor(op: u8, fd: u64, arg: u64) -> u32 {
    enter(
        kind::FILE,
        &Named {
            op: u32::from(op),
            arg: arg as u32,
            dirfd: fd as i32,
            target_dirfd: AT_FDCWD,
            name: 0,
            target: 0,
        },
    )
}

/// Exit of fchmod(2), ftruncate(2) and fsetxattr(2).
#[tracepoint]
pub fn fd_exit(ctx: TracePointContext) -> u32 {
    let Some(call) = leave() else { return 0 };
    let file = path::file_of_fd(task::current(), call.dirfd);
    if result(&ctx) != 0 || file == 0 {
        return 0;
    }
    let path = Path::of_file(file);
    if call.op == u32::from(file_op::CHMOD) {
        file::mode_set(path, call.arg);
    } else if call.op == u32::from(file_op::TRUNCATE) {
        file::truncated(path);
    } else if call.op == u32::from(file_op::CAPABILITY) {
        file::capability_set(path);
    }
    0
}

/// Entry of mmap(2) of a file, executable or shared and writable.
#[tracepoint]
pub fn mmap_enter(ctx: TracePointContext) -> u32 {
    let (prot, flags, fd) = (arg(&ctx, 2), arg(&ctx, 3), arg(&ctx, 4) as i32);
    let writable = prot & file::PROT_WRITE != 0 && flags & file::MAP_SHARED != 0;
    if fd < 0 || prot & PROT_EXEC == 0 && !writable {
        return 0;
    }
    let kind = if prot & PROT_EXEC != 0 { kind::LIBRARY } else { kind::FILE };
    enter(kind, &Named { op: 0, arg: prot as u32, dirfd: fd, target_dirfd: 0, name: flags, target: 0 })
}

/// Exit of mmap(2). Cannot see: mappings that the ELF loader makes (the program, which is the exec's, and its dynamic
/// loader), mprotect(2), and a descriptor that another thread closed already.
#[tracepoint]
pub fn mmap_exit(ctx: TracePointContext) -> u32 {
    let Some(call) = leave() else { return 0 };
    let address = result(&ctx);
    let file = path::file_of_fd(task::current(), call.dirfd);
    // IS_ERR_VALUE()
    if !(-4095..0).contains(&address) && file != 0 && call.op == 0 {
        library::mapped(file, u64::from(call.arg), call.name, address as u64);
    }
    0
}

/// trace_inet_sock_set_state(), since 4.16, when tcp_v4_connect() or tcp_v6_connect() sets SYN_SENT: the destination is in
/// the socket, the source port only if it was bound. What a kernel thread connects (the client of a network file system) no program does.
/// Cannot see: whose socket it is when the kernel connects it.
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn tcp_state(ctx: BtfTracePointContext) -> i32 {
    const SYN_SENT: i32 = 2;
    let sk: *const u8 = ctx.arg(0);
    if ctx.arg::<i32>(2) == SYN_SENT && task::has_memory() {
        connect::connected(sk as u64, protocol::TCP);
    }
    0
}

/// Entry of connect(2), sendto(2) with an address, sendmsg(2), sendmmsg(2): `op` says which.
#[inline(always)]
fn on_socket(op: u32, fd: u64, address: u64, arg: u64) -> u32 {
    enter(
        kind::CONNECT,
        &Named { op, arg: arg as u32, dirfd: fd as i32, target_dirfd: 0, name: address, target: 0 },
    )
}

const CONNECT: u32 = 1;
const SENDTO: u32 = 2;
const SENDMSG: u32 = 3;
const SENDMMSG: u32 = 4;

/// Entry of connect(2), for datagram sockets.
#[tracepoint]
pub fn connect_enter(ctx: TracePointContext) -> u32 {
    on_socket(CONNECT, arg(&ctx, 0), 0, 0)
}

/// Entry of sendto(2).
#[tracepoint]
pub fn sendto_enter(ctx: TracePointContext) -> u32 {
    if arg(&ctx, 4) == 0 {
        return 0;
    }
    on_socket(SENDTO, arg(&ctx, 0), arg(&ctx, 4), arg(&ctx, 5))
}

/// Entry of sendmsg(2).
#[tracepoint]
pub fn sendmsg_enter(ctx: TracePointContext) -> u32 {
    on_socket(SENDMSG, arg(&ctx, 0), arg(&ctx, 1), 0)
}

/// Entry of sendmmsg(2).
#[tracepoint]
pub fn sendmmsg_enter(ctx: TracePointContext) -> u32 {
    on_socket(SENDMMSG, arg(&ctx, 0), arg(&ctx, 1), 0)
}

/// Exit of each socket call above. Cannot see: messages of a sendmmsg(2) after the eighth.
#[tracepoint]
pub fn socket_exit(ctx: TracePointContext) -> u32 {
    let Some(call) = leave() else { return 0 };
    let count = result(&ctx);
    if count < 0 {
        return 0;
    }
    let file = path::file_of_fd(task::current(), call.dirfd);
    if file == 0 || file_info::kind(file_info::inode(file)) != S_IFSOCK {
        return 0;
    }
    let sk = pointer(pointer(file, &OFF_FILE_PRIVATE), &OFF_SOCKET_SK);
    match call.op {
        CONNECT => connect::connected(sk, protocol::UDP),
        SENDTO => connect::sent(sk, Address::User(call.name), call.arg, false),
        SENDMSG => message(sk, call.name),
        SENDMMSG => {
            for n in 0..MESSAGES {
                if n >= count as u64 {
                    break;
                }
                message(sk, call.name + n * MMSGHDR);
            }
        }
        _ => {}
    }
    0
}

/// One `struct user_msghdr`: `void *msg_name; int msg_namelen;`.
#[inline(always)]
fn message(sk: u64, header: u64) {
    let name: u64 = read_user(header);
    if name != 0 {
        connect::sent(sk, Address::User(name), read_user(header + 8), false);
    }
}
