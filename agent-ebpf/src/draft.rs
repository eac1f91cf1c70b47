//! Where a record is written whose length shows only at its end.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use core::mem::size_of;
use muster_common::{ExecRecord, Header, PATH_BUF, WithPaths};

use crate::atomic::add;
use crate::layout::opaque;

/// Drafts of one processor. One program can take the processor from another that is writing, on kernels that can be preempted.
const DRAFTS_PER_CPU: u32 = 16;
/// Those that are for execs alone: whatever else is done as often as it can be takes none of these.
const FOR_EXECS: u32 = 4;

/// A record, and room for what follows it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Draft<R> {
    /// The record itself.
    pub head: R,
    /// The first path.
    pub path: [u8; PATH_BUF],
    /// Its names up to the root of its file system. Room of their own, as who mounts chooses how long the path is.
    pub origin: [u8; PATH_BUF],
    /// The second path.
    pub second_path: [u8; PATH_BUF],
    /// Its names.
    pub second_origin: [u8; PATH_BUF],
}

impl<R: WithPaths> Draft<R> {
    /// Moves each part to where the one before it ends, and states the size. The bytes of the whole record.
    ///
    /// # Safety
    /// `draft` is valid, a map value, and all of the record is written.
    #[inline(always)]
    pub unsafe fn finish<'a>(draft: *mut Self) -> &'a [u8] {
        // SAFETY: the caller's promise.
        unsafe {
            let [path, origin, second, second_origin] = (*draft).head.path_lens();
            let mut end = bounded(path);
            end += Self::part(draft, end, &raw const (*draft).origin, origin);
            end += Self::part(draft, end, &raw const (*draft).second_path, second);
            end += Self::part(draft, end, &raw const (*draft).second_origin, second_origin);
            let size = size_of::<R>() + end;
            (*draft.cast::<Header>()).size = size as u32;
            core::slice::from_raw_parts(draft.cast(), size)
        }
    }

    /// Moves a part to so many bytes after the record. Its length.
    ///
    /// # Safety
    /// As for [`Self::finish`]; `from` is a part of the draft, not before there.
    #[inline(always)]
    unsafe fn part(draft: *mut Self, at: usize, from: *const [u8; PATH_BUF], len: u16) -> usize {
        let len = bounded(len);
        if len > 0 {
            // SAFETY: the caller's promise. The helper copies forwards.
            unsafe {
                let to = (&raw mut (*draft).path).cast::<u8>().add(at);
                bpf_probe_read_kernel(to.cast(), len as u32, from.cast());
            }
        }
        len
    }
}

/// What no path is longer than, said so that the verifier understands.
#[inline(always)]
fn bounded(len: u16) -> usize {
    let len = opaque(u32::from(len)) as usize;
    if len > PATH_BUF { 0 } else { len }
}

/// The largest draft.
#[repr(C)]
struct Slot {
    /// Programs that have claimed it and not released it. The one that finds itself to be the only one has it.
    claims: u64,
    draft: Draft<ExecRecord>,
}

#[map]
static DRAFTS: PerCpuArray<Slot> = PerCpuArray::with_max_entries(DRAFTS_PER_CPU, 0);

/// A draft that is this program's alone, until it releases it.
#[derive(Clone, Copy)]
pub struct Claimed(*mut Slot);

impl Claimed {
    /// None, when all of this processor are taken.
    #[inline(always)]
    pub fn new(is_exec: bool) -> Option<Self> {
        let first = if is_exec { 0 } else { FOR_EXECS };
        DRAFTS.get_ptr_mut(opaque(free_draft(first))).map(Self)
    }

    /// Where to write.
    #[inline(always)]
    pub fn draft<R>(&self) -> *mut Draft<R> {
        const { assert!(size_of::<Draft<R>>() <= size_of::<Draft<ExecRecord>>()) };
        // SAFETY: a map value.
        unsafe { (&raw mut (*self.0).draft).cast() }
    }

    /// Another may have it.
    #[inline(always)]
    pub fn release(self) {
        // SAFETY: a map value.
        add(unsafe { &raw mut (*self.0).claims }, -1);
    }
}

/// Claims a draft, this one or one after it: its index, or one that none has. While a program has it, each other that comes finds at
/// least two claims. Adding and reading are two steps, for an addition that tells its result needs kernel 5.12: two may each find the
/// other's claim, and then both go on to the next. A function of its own: a program has 512 bytes of stack.
#[inline(never)]
fn free_draft(first: u32) -> u32 {
    for index in first..DRAFTS_PER_CPU {
        let Some(slot) = DRAFTS.get_ptr_mut(index) else { break };
        // SAFETY: a map value.
        let claims = unsafe { &raw mut (*slot).claims };
        add(claims, 1);
        // SAFETY: as before.
        if unsafe { claims.read_volatile() } == 1 {
            return index;
        }
        add(claims, -1);
    }
    DRAFTS_PER_CPU
}
