//! The rings, and the one way into them.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use core::arch::asm;
use core::mem::size_of;
use muster_common::{Header, Task, kind};

use crate::layout::{FLAVOUR, global};
use crate::task;

/// Exec, fork, exit, executable mappings. The agent may override the size of each ring at load.
#[map]
static RING_EXEC: RingBuf = RingBuf::with_byte_size(8 << 20, 0);
/// File changes.
#[map]
static RING_FILE: RingBuf = RingBuf::with_byte_size(8 << 20, 0);
/// Connects.
#[map]
static RING_NET: RingBuf = RingBuf::with_byte_size(1 << 20, 0);
/// Records that found no room, and those whose call found none in a map on the way, by kind.
#[map]
static LOST: PerCpuArray<u64> = PerCpuArray::with_max_entries(kind::COUNT, 0);
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
    LibraryRecord LIBRARY RING_EXEC;
    FileRecord FILE RING_FILE;
    ConnectRecord CONNECT RING_NET;
    ForkRecord FORK RING_EXEC;
    ExitRecord EXIT RING_EXEC;
}

/// Reserves a record, writes its header and task (of the `task_struct` at `task`), lets `fill` write the rest in
/// place, and submits it. Nothing may wait between reserve and submit: the ring is read in order, so one record
/// that is not finished holds up all that come after it. `false`: there was no room, which is counted.
#[inline(always)]
pub fn emit<R: Record>(task: u64, fill: impl FnOnce(*mut R)) -> bool {
    let Some(mut entry) = R::ring().reserve::<R>(0) else {
        lost(R::KIND);
        return false;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the entry is `size_of::<R>()` bytes; every record starts with a `Header` and a `Task` (`repr(C)`,
    // asserted in agent-common).
    unsafe {
        let header: *mut Header = record.cast();
        (*header).size = size_of::<R>() as u32;
        (*header).kind = R::KIND;
        (*header).hook = global(&FLAVOUR) as u8;
        (*header).reserved = 0;
        (*header).time_ns = bpf_ktime_get_boot_ns();
        task::fill(task, header.add(1).cast::<Task>());
    }
    fill(record);
    entry.submit(0);
    count(&SENT, R::KIND);
    true
}

/// A record of this [`kind`] will never be made.
#[inline(always)]
pub fn lost(kind: u16) {
    count(&LOST, kind);
}

#[inline(always)]
fn count(counters: &PerCpuArray<u64>, kind: u16) {
    if let Some(counter) = counters.get_ptr_mut(u32::from(kind)) {
        // A program can be preempted by another on the same CPU, so even a per-CPU counter wants an atomic add. The
        // target has the instruction, but no `AtomicU64::fetch_add`.
        // SAFETY: the pointer is a map value: aligned, and valid as long as the program runs.
        unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) 1_u64) };
    }
}
