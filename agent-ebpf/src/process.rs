//! Fork and exit, for the tree of processes.

use muster_common::{ExitRecord, ForkRecord};

use crate::emit::emit;
use crate::exec;
use crate::layout::*;
use crate::task;

/// `sched_process_fork(parent, child)`. A thread's start is not reported.
#[inline(always)]
pub fn forked(child: u64) {
    if read::<u32>(child, &OFF_TASK_PID) != read::<u32>(child, &OFF_TASK_TGID) {
        return;
    }
    let parent = pointer(child, &OFF_TASK_REAL_PARENT);
    emit::<ForkRecord>(child, |record| {
        // SAFETY: the record is reserved.
        unsafe { (*record).parent_start_ns = task::start_ns(parent) };
    });
}

/// `sched_process_exit`, in each thread that ends; the process ends with the last.
#[inline(always)]
pub fn exited() {
    let task = task::current();
    exec::forget();
    let live: i32 = read(pointer(task, &OFF_TASK_SIGNAL), &OFF_SIGNAL_LIVE);
    if live != 0 || task::is_own() {
        return;
    }
    emit::<ExitRecord>(task, |record| {
        // SAFETY: the record is reserved.
        unsafe {
            (*record).exit_code = read(task, &OFF_TASK_EXIT_CODE);
            (*record).reserved = 0;
        }
    });
}
