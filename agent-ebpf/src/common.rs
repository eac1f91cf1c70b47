//! Hooks that every flavour has: BTF-typed raw tracepoints of the scheduler.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;

use crate::{exec, process};

/// trace_sched_process_exec() in exec_binprm(), after the new image is in place; since 3.4. Cannot see: the digest, and
/// a script's file, which is closed by now.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn process_exec(ctx: BtfTracePointContext) -> i32 {
    exec::ran(ctx.arg(0), ctx.arg(1), ctx.arg(2));
    0
}

/// trace_sched_process_fork() in kernel_clone(); since 2.6.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn process_fork(ctx: BtfTracePointContext) -> i32 {
    process::forked(ctx.arg(1));
    0
}

/// trace_sched_process_exit() in do_exit(); since 2.6. Cannot see: the status that a group exit sets for the process,
/// when the last thread to end has another.
#[btf_tracepoint(function = "sched_process_exit")]
pub fn process_exit(_ctx: BtfTracePointContext) -> i32 {
    process::exited();
    0
}
