//! The rings, and the one way into them.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray, RingBuf};
use core::mem::size_of;
use muster_common::{Header, LostKey, LostValue, Task, WithPaths, cause, kind};

use crate::atomic::add;
use crate::draft::{Claimed, Draft};
use crate::layout::{FLAVOUR, OFF_TASK_TGID, global, read};
use crate::task;

/// Exec, fork, exit. The agent may override the size of each ring at load.
#[map]
static RING_EXEC: RingBuf = RingBuf::with_byte_size(2 << 20, 0);
/// Executable mappings, which anybody can make faster than they are judged: they crowd nothing out but each other.
#[map]
static RING_LIBRARY: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
/// File changes.
#[map]
static RING_FILE: RingBuf = RingBuf::with_byte_size(4 << 20, 0);
/// Connects.
#[map]
static RING_NET: RingBuf = RingBuf::with_byte_size(512 << 10, 0);
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

/// Reserves a record of fixed size, writes its header and task (of the `task_struct` at `task`), lets `fill` write the rest in
/// place, and submits it. Nothing may wait between reserve and submit: the ring is read in order, so one record
/// that is not finished holds up all that come after it. `false`: there was no room, which is counted, or the agent ends.
///
/// The clock is read before: what was submitted before that time lies before this record, whatever the ring, and the agent merges the
/// rings by it (`agent/src/sensor/merge.rs`).
#[inline(always)]
pub fn emit<R: Record>(task: u64, fill: impl FnOnce(*mut R)) -> bool {
    let time_ns = now();
    if is_closed() {
        return false;
    }
    let Some(mut entry) = R::ring().reserve::<R>(0) else {
        lost(task, R::KIND, cause::RING);
        return false;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is `size_of::<R>()` bytes.
    unsafe { begin(task, time_ns, record) };
    fill(record);
    entry.submit(0);
    count(&SENT, u32::from(R::KIND));
    true
}

/// What became of a record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// It is in its ring.
    Yes,
    /// The agent ends.
    Closed,
    /// Its ring is full.
    NoRoom,
}

/// Like [`emit`], for a record that ends in paths: how long it is shows only when they are there, so it is written beside the ring,
/// and then copied.
#[inline(always)]
pub fn emit_with_paths<R: Record + WithPaths>(task: u64, fill: impl FnOnce(*mut Draft<R>)) {
    emit_by(task, R::KIND, |claimed| submit(task, claimed, fill));
}

/// Lets `submit` have a draft, and counts what never came into its ring.
#[inline(always)]
pub fn emit_by(task: u64, of: u16, submit: impl FnOnce(Claimed) -> Submitted) {
    let Some(claimed) = Claimed::new(of == kind::EXEC) else {
        lost(task, of, cause::MAP);
        return;
    };
    let submitted = submit(claimed);
    claimed.release();
    if submitted == Submitted::NoRoom {
        lost(task, of, cause::RING);
    }
}

/// Writes a record in a draft and copies it into its ring. The caller counts.
#[inline(always)]
pub fn submit<R: Record + WithPaths>(
    task: u64,
    claimed: Claimed,
    fill: impl FnOnce(*mut Draft<R>),
) -> Submitted {
    let time_ns = now();
    if is_closed() {
        return Submitted::Closed;
    }
    let draft = claimed.draft::<R>();
    // SAFETY: the draft is this program's alone.
    let bytes = unsafe {
        begin(task, time_ns, &raw mut (*draft).head);
        fill(draft);
        Draft::finish(draft)
    };
    if R::ring().output::<[u8]>(bytes, 0).is_err() {
        return Submitted::NoRoom;
    }
    count(&SENT, u32::from(R::KIND));
    Submitted::Yes
}

/// Nanoseconds since boot, suspend included.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

#[inline(always)]
fn is_closed() -> bool {
    // It is there always: only the verifier does not know.
    let Some(closed) = CLOSED.get_ptr(0) else { return true };
    // SAFETY: a map value.
    unsafe { closed.read_volatile() != 0 }
}

/// Writes header and task.
///
/// # Safety
/// `record` is valid for writes. Every record starts with a `Header` and a `Task` (`repr(C)`, asserted in agent-common).
#[inline(always)]
unsafe fn begin<R: Record>(task: u64, time_ns: u64, record: *mut R) {
    // SAFETY: the caller's promise.
    unsafe {
        let header: *mut Header = record.cast();
        (*header).size = size_of::<R>() as u32;
        (*header).kind = R::KIND;
        (*header).hook = global(&FLAVOUR) as u8;
        (*header).reserved = 0;
        (*header).time_ns = time_ns;
        task::fill(task, header.add(1).cast::<Task>());
    }
}

/// A record of this [`kind`], of the `task_struct` at `task`, will never be made. `LOST_OF` first: the agent reads it after `LOST`, and
/// so finds there whatever is counted. A function of its own: a program has 512 bytes of stack.
#[inline(never)]
pub fn lost(task: u64, kind: u16, cause: u32) {
    let key: LostKey = [task::cgroup_id(task), u64::from(kind) << 32 | u64::from(cause)];
    if let Some(value) = LOST_OF.get_ptr_mut(&key) {
        add(value.cast(), 1);
    } else {
        let tgid = u64::from(read::<u32>(task, &OFF_TASK_TGID));
        let value: LostValue = [1, task::start_ns(task), tgid];
        // Another processor may have been quicker.
        if LOST_OF.insert(&key, &value, u64::from(BPF_NOEXIST)).is_err()
            && let Some(value) = LOST_OF.get_ptr_mut(&key)
        {
            add(value.cast(), 1);
        }
    }
    count(&LOST, cause * kind::COUNT + u32::from(kind));
}

#[inline(always)]
fn count(counters: &PerCpuArray<u64>, index: u32) {
    if let Some(counter) = counters.get_ptr_mut(index) {
        add(counter, 1);
    }
}
