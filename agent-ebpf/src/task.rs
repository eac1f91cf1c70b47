//! The task part of a record.

use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_current_task};
use muster_common::{COMM_LEN, Task};

use crate::layout::*;

/// The current `task_struct`.
#[inline(always)]
pub fn current() -> u64 {
    // SAFETY: no arguments, no failure.
    unsafe { bpf_get_current_task() }
}

/// Key of the current thread: `tgid << 32 | tid`.
#[inline(always)]
pub fn current_id() -> u64 {
    // SAFETY: no arguments, no failure.
    unsafe { bpf_get_current_pid_tgid() }
}

/// The current task is the agent itself.
#[inline(always)]
pub fn is_own() -> bool {
    (current_id() >> 32) as u32 == global(&OWN_TGID)
}

/// The current task runs for a program: kernel threads have no memory of their own, those that work for a program have its.
#[inline(always)]
pub fn has_memory() -> bool {
    pointer(current(), &OFF_TASK_MM) != 0
}

/// `start_boottime` of the task's thread group leader.
#[inline(always)]
pub fn start_ns(task: u64) -> u64 {
    read(pointer(task, &OFF_TASK_GROUP_LEADER), &OFF_TASK_START_BOOTTIME)
}

/// Id of the task's cgroup: task_dfl_cgroup(), what bpf_get_current_cgroup_id gives, for any task and in every kind of program.
#[inline(always)]
pub fn cgroup_id(task: u64) -> u64 {
    let cgroup = pointer(pointer(task, &OFF_TASK_CGROUPS), &OFF_CSS_SET_DFL);
    read(pointer(cgroup, &OFF_CGROUP_KN), &OFF_KERNFS_ID)
}

/// Fills in `out` from the `task_struct` at `task`.
///
/// # Safety
/// `out` is valid for writes.
#[inline(always)]
pub unsafe fn fill(task: u64, out: *mut Task) {
    let cred = pointer(task, &OFF_TASK_CRED);
    let mnt_ns = pointer(pointer(task, &OFF_TASK_NSPROXY), &OFF_NSPROXY_MNT);
    let parent = pointer(task, &OFF_TASK_REAL_PARENT);
    // SAFETY: the caller's promise.
    unsafe {
        (*out).start_ns = start_ns(task);
        (*out).cgroup_id = cgroup_id(task);
        (*out).pid = read(task, &OFF_TASK_PID);
        (*out).tgid = read(task, &OFF_TASK_TGID);
        (*out).ppid = read(parent, &OFF_TASK_TGID);
        (*out).uid = read(cred, &OFF_CRED_UID);
        (*out).gid = read(cred, &OFF_CRED_GID);
        (*out).mnt_ns = read(mnt_ns, &OFF_MNTNS_INUM);
        (*out).pid_ns = pid_ns(task);
        (*out).euid = read(cred, &OFF_CRED_EUID);
        (*out).comm = read::<[u8; COMM_LEN]>(task, &OFF_TASK_COMM);
    }
}

/// task_active_pid_ns(): the namespace of the task's own pid, not the one its children will get.
#[inline(always)]
fn pid_ns(task: u64) -> u32 {
    let pid = pointer(task, &OFF_TASK_THREAD_PID);
    let level: u32 = read(pid, &OFF_PID_LEVEL);
    let upid = pid + off(&OFF_PID_NUMBERS) + u64::from(level) * off(&SIZE_UPID);
    read(pointer(upid, &OFF_UPID_NS), &OFF_PIDNS_INUM)
}
