//! The rings, and the one way into them.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};
use core::arch::asm;
use core::mem::size_of;
use muster_common::{Header, LostKey, LostValue, Task, cause, kind};

use crate::layout::{FLAVOUR, OFF_TASK_TGID, global, read};
use crate::task;

/// Exec, fork, exit. The agent may override the size of each ring at load.
#[map]
static RING_EXEC: RingBuf = RingBuf::with_byte_size(8 << 20, 0);
/// Executable mappings, which anybody can make faster than they are judged: they crowd nothing out but each other.
#[map]
static RING_LIBRARY: RingBuf = RingBuf::with_byte_size(4 << 20, 0);
/// File changes.
#[map]
static RING_FILE: RingBuf = RingBuf::with_byte_size(8 << 20, 0);
/// Connects.
#[map]
static RING_NET: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
/// Records that never came into a ring, by cause and kind.
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(cause::COUNT * kind::COUNT, 0);
/// Of which workload they were. The agent empties it; what finds no room in it is in `LOST` all the same.
#[map]
static LOST_OF: HashMap<LostKey, LostValue> = HashMap::with_max_entries(512, 0);
/// The agent ends: no more records. Quicker than detaching the programs, which takes the kernel seconds.
#[map]
static CLOSED: Array<u32> = Array::with_max_entries(1, 0);
/// Records submitted, by kind.
#[map]
static SENT: PerCpuArray<u64> = PerCpuArray::with_max_entries(kind::COUNT, 0);

/// A record: its kind and its ring.
pub trait Record: 'static {
    /// One of [`kind`].
    const KIND: u16;
    /// Its ring.
    fn ring() -> &'static RingBuf;
}

macro_rules! records {
    ($($record:ident $kind:ident $ring:ident;)*) => {
        $(impl Record for muster_common::$record {
            const KIND: u16 = kind::$kind;
            #[inline(always)]
            fn ring() -> &'static RingBuf {
                &$ring
            }
        })*
    };
}
records! {
    ExecRecord EXEC RING_EXEC;
    LibraryRecord LIBRARY RING_LIBRARY;
    FileRecord FILE RING_FILE;
    ConnectRecord CONNECT RING_NET;
    ForkRecord FORK RING_EXEC;
    ExitRecord EXIT RING_EXEC;
}

/// Reserves a record, writes its header and task (of the `task_struct` at `task`), lets `fill` write the rest in
/// place, and submits it. Nothing may wait between reserve and submit: the ring is read in order, so one record
/// that is not finished holds up all that come after it. `false`: there was no room, which is counted.
///
/// The clock is read before: what was submitted before that time lies before this record, whatever the ring, and the agent merges the
/// rings by it (`agent/src/sensor/merge.rs`).
#[inline(always)]
pub fn emit<R: Record>(task: u64, fill: impl FnOnce(*mut R)) -> bool {
    let submitted = submit(task, fill);
    if submitted == Submitted::NoRoom {
        lost(task, R::KIND, cause::RING);
    }
    submitted == Submitted::Yes
}

/// What became of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// It is in its ring.
    Yes,
    /// The agent ends.
    Closed,
    /// Its ring is full, which the caller must count ([`lost`]).
    NoRoom,
}

/// Like [`emit`], for a caller that counts for itself.
#[inline(always)]
pub fn submit<R: Record>(task: u64, fill: impl FnOnce(*mut R)) -> Submitted {
    // SAFETY: no arguments.
    let time_ns = unsafe { bpf_ktime_get_boot_ns() };
    // It is there always: only the verifier does not know.
    let Some(closed) = CLOSED.get_ptr(0) else { return Submitted::Closed };
    // SAFETY: a map value.
    if unsafe { closed.read_volatile() } != 0 {
        return Submitted::Closed;
    }
    let Some(mut entry) = R::ring().reserve::<R>(0) else { return Submitted::NoRoom };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is `size_of::<R>()` bytes; every record starts with a `Header` and a `Task` (`repr(C)`,
    // asserted in agent-common).
    unsafe {
        let header: *mut Header = record.cast();
        (*header).size = size_of::<R>() as u32;
        (*header).kind = R::KIND;
        (*header).hook = global(&FLAVOUR) as u8;
        (*header).reserved = 0;
        (*header).time_ns = time_ns;
        task::fill(task, header.add(1).cast::<Task>());
    }
    fill(record);
    entry.submit(0);
    count(&SENT, u32::from(R::KIND));
    Submitted::Yes
}

/// A record of this [`kind`], of the `task_struct` at `task`, will never be made. `LOST_OF` first: the agent reads it after `LOST`, and
/// so finds there whatever is counted. A function of its own: a program has 512 bytes of stack.
#[inline(never)]
pub fn lost(task: u64, kind: u16, cause: u32) {
    let key: LostKey = [task::cgroup_id(task), u64::from(kind) << 32 | u64::from(cause)];
    if let Some(value) = LOST_OF.get_ptr_mut(&key) {
        add_one(value.cast());
    } else {
        let tgid = u64::from(read::<u32>(task, &OFF_TASK_TGID));
        let value: LostValue = [1, task::start_ns(task), tgid];
        // Another processor may have been quicker.
        if LOST_OF.insert(&key, &value, u64::from(BPF_NOEXIST)).is_err()
            && let Some(value) = LOST_OF.get_ptr_mut(&key)
        {
            add_one(value.cast());
        }
    }
    count(&LOST, cause * kind::COUNT + u32::from(kind));
}

#[inline(always)]
fn count(counters: &PerCpuArray<u64>, index: u32) {
    if let Some(counter) = counters.get_ptr_mut(index) {
        add_one(counter);
    }
}

/// A program can be preempted by another on the same CPU, so even a per-CPU counter wants an atomic add. The target has the
/// instruction, but no `AtomicU64::fetch_add`. `counter` is in a map value.
#[inline(always)]
fn add_one(counter: *mut u64) {
    // SAFETY: a map value: aligned, and valid as long as the program runs.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1_u64) };
}
