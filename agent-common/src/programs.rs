//! The one table of the kernel programs: what each is called, where it attaches, and in which flavours.
//!
//! The agent walks it: a program of the chosen flavour is loaded and attached at its points; a point that may be
//! missing is marked so, and everything else must succeed.

use crate::hook;

/// Where a program attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// An LSM hook. `sleepable` is part of the object's section name already; it is here for `muster probe`.
    Lsm {
        /// Name of the hook, without `bpf_lsm_`.
        hook: &'static str,
        /// Loaded as sleepable.
        sleepable: bool,
    },
    /// A BTF-typed raw tracepoint.
    TpBtf {
        /// Name of the tracepoint.
        tracepoint: &'static str,
    },
    /// Entry of a kernel function, by trampoline.
    Fentry {
        /// Name of the function.
        function: &'static str,
    },
    /// Return of a kernel function, by trampoline.
    Fexit {
        /// Name of the function.
        function: &'static str,
    },
    /// Classic tracepoints (they need tracefs); one program, attached to each point.
    Tracepoint {
        /// Category of all points.
        category: &'static str,
        /// The points.
        points: &'static [Point],
    },
}

/// One classic tracepoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its name.
    pub name: &'static str,
    /// The kernel (an older one, or another architecture) may lack it.
    pub optional: bool,
}

/// A kernel program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its name in the object; the first 15 bytes are what the kernel shows.
    pub name: &'static str,
    /// Where it attaches.
    pub attach: Attach,
    /// Flavours it belongs to: [`hook::LSM`], [`hook::TRACEPOINT`].
    pub flavours: &'static [u8],
    /// A kernel may lack the hook: the rest goes on without, and `muster probe` says what is lost.
    pub optional: bool,
    /// What it gives, as `muster probe` shows it.
    pub sees: &'static str,
}

impl Program {
    /// The program belongs to the flavour `hook` (one of [`hook`]).
    pub fn is_of(&self, flavour: u8) -> bool {
        self.flavours.contains(&flavour)
    }
}

const fn all(name: &'static str) -> Point {
    Point { name, optional: false }
}

const fn some(name: &'static str) -> Point {
    Point { name, optional: true }
}

const fn tp_btf(
    name: &'static str,
    tracepoint: &'static str,
    flavours: &'static [u8],
    sees: &'static str,
) -> Program {
    Program { name, attach: Attach::TpBtf { tracepoint }, flavours, optional: false, sees }
}

const fn lsm(name: &'static str, hook: &'static str, sees: &'static str) -> Program {
    Program { name, attach: Attach::Lsm { hook, sleepable: false }, flavours: LSM, optional: false, sees }
}

const fn sleepable(name: &'static str, hook: &'static str, sees: &'static str) -> Program {
    Program { attach: Attach::Lsm { hook, sleepable: true }, ..lsm(name, hook, sees) }
}

const fn fexit(name: &'static str, function: &'static str, sees: &'static str) -> Program {
    Program { name, attach: Attach::Fexit { function }, flavours: LSM, optional: false, sees }
}

const fn syscall(name: &'static str, points: &'static [Point], sees: &'static str) -> Program {
    let attach = Attach::Tracepoint { category: "syscalls", points };
    Program { name, attach, flavours: TRACEPOINT, optional: false, sees }
}

const LSM: &[u8] = &[hook::LSM];
const TRACEPOINT: &[u8] = &[hook::TRACEPOINT];
const BOTH: &[u8] = &[hook::LSM, hook::TRACEPOINT];

/// Every kernel program.
pub const PROGRAMS: &[Program] = &[
    tp_btf("process_exec", "sched_process_exec", BOTH, "exec"),
    tp_btf("process_fork", "sched_process_fork", BOTH, "fork"),
    tp_btf("process_exit", "sched_process_exit", BOTH, "exit"),
    sleepable("exec_check", "bprm_check_security", "exec: script and program with digest, before they run"),
    Program {
        name: "exec_abandoned",
        attach: Attach::Fentry { function: "abort_creds" },
        flavours: LSM,
        optional: false,
        sees: "exec: what is known of one that failed is forgotten",
    },
    sleepable(
        "library_map",
        "mmap_file",
        "library: executable mapping with digest; file: shared writable mapping",
    ),
    lsm("library_protect", "file_mprotect", "library: mapping made executable; file: mapping made writable"),
    lsm("file_open", "file_open", "file: open for write, create"),
    Program {
        name: "file_close",
        attach: Attach::Fentry { function: "locks_remove_file" },
        flavours: LSM,
        optional: false,
        sees: "file: close by the last writer",
    },
    lsm("file_rename", "path_rename", "file: rename is about to come"),
    fexit("file_renamed", "vfs_rename", "file: rename"),
    lsm("file_link", "path_link", "file: link is about to come"),
    fexit("file_linked", "vfs_link", "file: link"),
    lsm("file_unlink", "path_unlink", "file: unlink is about to come"),
    fexit("file_unlinked", "vfs_unlink", "file: unlink"),
    lsm("file_symlink", "path_symlink", "file: symlink is about to come"),
    fexit("file_symlinked", "vfs_symlink", "file: symlink"),
    lsm("file_chmod", "path_chmod", "file: chmod to executable is about to come"),
    fexit("file_chmoded", "notify_change", "file: chmod to executable"),
    lsm("file_capability", "inode_post_setxattr", "file: capabilities set"),
    lsm("file_truncate", "path_truncate", "file: truncate is about to come; its digest is forgotten"),
    fexit("file_truncated", "vfs_truncate", "file: truncate"),
    fexit("file_emptied", "do_truncate", "file: emptied by an open that is not for write"),
    Program {
        // Until 6.2 `path_truncate` is called for descriptors too.
        optional: true,
        ..lsm(
            "file_ftruncate",
            "file_truncate",
            "file: ftruncate is about to come (from 6.2; before it, path_truncate)",
        )
    },
    lsm("net_connect", "socket_connect", "connect"),
    lsm("net_send", "socket_sendmsg", "connect: unconnected datagrams"),
    syscall(
        "open_exit",
        &[some("sys_exit_open"), all("sys_exit_openat"), all("sys_exit_openat2"), some("sys_exit_creat")],
        "file: open for write, create",
    ),
    syscall("open_enter", &[some("sys_enter_open")], "file: emptied by an open that is not for write"),
    syscall("openat_enter", &[all("sys_enter_openat")], "file: emptied by an open that is not for write"),
    syscall("openat2_enter", &[all("sys_enter_openat2")], "file: emptied by an open that is not for write"),
    syscall("close_enter", &[all("sys_enter_close")], "file: close by the last writer"),
    syscall("dup_enter", &[some("sys_enter_dup2"), all("sys_enter_dup3")], "file: close by dup2, dup3"),
    syscall("rename_enter", &[some("sys_enter_rename")], "file: rename"),
    syscall("renameat_enter", &[some("sys_enter_renameat")], "file: rename"),
    syscall("renameat2_enter", &[all("sys_enter_renameat2")], "file: rename, exchange"),
    syscall("link_enter", &[some("sys_enter_link")], "file: link"),
    syscall("linkat_enter", &[all("sys_enter_linkat")], "file: link"),
    syscall("symlink_enter", &[some("sys_enter_symlink")], "file: symlink"),
    syscall("symlinkat_enter", &[all("sys_enter_symlinkat")], "file: symlink"),
    syscall("unlink_enter", &[some("sys_enter_unlink")], "file: unlink"),
    syscall("unlinkat_enter", &[all("sys_enter_unlinkat")], "file: unlink"),
    syscall("chmod_enter", &[some("sys_enter_chmod")], "file: chmod to executable"),
    // fchmodat2 came with 6.6.
    syscall(
        "fchmodat_enter",
        &[all("sys_enter_fchmodat"), some("sys_enter_fchmodat2")],
        "file: chmod to executable",
    ),
    syscall(
        "setxattr_enter",
        &[all("sys_enter_setxattr"), all("sys_enter_lsetxattr")],
        "file: capabilities set",
    ),
    syscall("fsetxattr_enter", &[all("sys_enter_fsetxattr")], "file: capabilities set"),
    // setxattrat came with 6.13.
    syscall("setxattrat_enter", &[some("sys_enter_setxattrat")], "file: capabilities set"),
    syscall("truncate_enter", &[all("sys_enter_truncate")], "file: truncate"),
    syscall(
        "name_exit",
        &[
            some("sys_exit_rename"),
            some("sys_exit_renameat"),
            all("sys_exit_renameat2"),
            some("sys_exit_link"),
            all("sys_exit_linkat"),
            some("sys_exit_symlink"),
            all("sys_exit_symlinkat"),
            some("sys_exit_unlink"),
            all("sys_exit_unlinkat"),
            some("sys_exit_chmod"),
            all("sys_exit_setxattr"),
            all("sys_exit_lsetxattr"),
            some("sys_exit_setxattrat"),
            all("sys_exit_fchmodat"),
            some("sys_exit_fchmodat2"),
            all("sys_exit_truncate"),
        ],
        "file: what was done by name",
    ),
    syscall("fchmod_enter", &[all("sys_enter_fchmod")], "file: chmod to executable"),
    syscall("ftruncate_enter", &[all("sys_enter_ftruncate")], "file: truncate"),
    syscall(
        "fd_exit",
        &[all("sys_exit_fchmod"), all("sys_exit_ftruncate"), all("sys_exit_fsetxattr")],
        "file: what was done by descriptor",
    ),
    syscall("mmap_enter", &[all("sys_enter_mmap")], "library; file: shared writable mapping"),
    syscall("mmap_exit", &[all("sys_exit_mmap")], "library; file: shared writable mapping"),
    tp_btf("tcp_state", "inet_sock_set_state", TRACEPOINT, "connect: TCP"),
    syscall("connect_enter", &[all("sys_enter_connect")], "connect: UDP"),
    syscall("sendto_enter", &[all("sys_enter_sendto")], "connect: unconnected datagrams"),
    syscall("sendmsg_enter", &[all("sys_enter_sendmsg")], "connect: unconnected datagrams"),
    syscall("sendmmsg_enter", &[all("sys_enter_sendmmsg")], "connect: unconnected datagrams"),
    syscall(
        "socket_exit",
        &[all("sys_exit_connect"), all("sys_exit_sendto"), all("sys_exit_sendmsg"), all("sys_exit_sendmmsg")],
        "connect: UDP",
    ),
];
