//! Who writes to inodes, as far as the hooks see it.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use muster_common::{FileInfo, hook};

use crate::layout::{FLAVOUR, global};
use crate::task;

/// A device's inode number. Without a generation, on purpose: whether anything was written under the number is what is asked,
/// and a number that was given away again was written under.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Number {
    ino: u64,
    dev: u64,
}

impl Number {
    /// Of the file itself.
    #[inline(always)]
    fn of(info: &FileInfo) -> Self {
        Self { ino: info.ino, dev: u64::from(info.dev) }
    }

    /// Of the inode that has its content.
    #[inline(always)]
    fn real(info: &FileInfo) -> Self {
        Self { ino: info.real_ino, dev: u64::from(info.real_dev) }
    }
}

/// What is known of writing under a number. The agent reads it: see `agent/src/sensor/changes.rs`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Writer {
    /// Last open, truncate, writable mapping or last close, nanoseconds since boot.
    at_ns: u64,
    /// Who opened it when that was reported last, and 0 once the last writer has closed it ([`opener`]). No hook of the tracepoint
    /// flavour sees a file closed by an exit or an exec, so this alone does not say that a writer has it open.
    opener: u64,
    /// Generation of the inode that was mapped shared and writable, and one bit above it; 0: none was.
    mapped: u64,
}

#[map]
static WRITERS: LruHashMap<Number, Writer> = LruHashMap::with_max_entries(16_384, 0);

/// Who opens a file, as far as it matters: the `lsm` flavour sees every last close, whoever's it is. The tracepoint flavour takes
/// the exit of a process for its closes, so each process's opening has to be reported.
#[inline(always)]
fn opener() -> u64 {
    if global(&FLAVOUR) == u32::from(hook::LSM) { 1 } else { task::current_id() >> 32 }
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}

#[inline(always)]
fn mark(info: &FileInfo) -> u64 {
    1 << 32 | u64::from(info.real_generation)
}

/// The entry, made if it is not there. `None` when there is no room.
#[inline(always)]
fn entry(number: &Number) -> Option<*mut Writer> {
    if let Some(writer) = WRITERS.get_ptr_mut(number) {
        return Some(writer);
    }
    let _ = WRITERS.insert(number, &Writer { at_ns: 0, opener: 0, mapped: 0 }, u64::from(BPF_ANY));
    WRITERS.get_ptr_mut(number)
}

/// Opened for write. Whether this opening of the inode was reported before; the writer itself is among the inode's `writers` already.
#[inline(always)]
pub fn opened(info: &FileInfo, writers: i32) -> bool {
    touched(&Number::real(info));
    let Some(writer) = entry(&Number::of(info)) else { return false };
    // SAFETY: a map value.
    unsafe {
        (*writer).at_ns = now();
        core::mem::replace(&mut (*writer).opener, opener()) == opener() && writers > 1
    }
}

/// The content is set, or about to be, without an open for write of its own.
#[inline(always)]
pub fn changed(info: &FileInfo) {
    touched(&Number::real(info));
    touched(&Number::of(info));
}

#[inline(always)]
fn touched(number: &Number) {
    if let Some(writer) = entry(number) {
        // SAFETY: a map value.
        unsafe { (*writer).at_ns = now() };
    }
}

/// Mapped shared and writable.
#[inline(always)]
pub fn mapped(info: &FileInfo) {
    touched(&Number::of(info));
    if let Some(writer) = entry(&Number::real(info)) {
        // SAFETY: a map value.
        unsafe {
            (*writer).at_ns = now();
            (*writer).mapped = mark(info);
        }
    }
}

/// The inode with the content was mapped so, as far as is remembered.
#[inline(always)]
pub fn was_mapped(info: &FileInfo) -> bool {
    match WRITERS.get_ptr(Number::real(info)) {
        // SAFETY: a map value.
        Some(writer) => unsafe { (*writer).mapped == mark(info) },
        None => false,
    }
}

/// The inode was opened for write, and its last writer has not closed it.
#[inline(always)]
pub fn is_open(info: &FileInfo) -> bool {
    match WRITERS.get_ptr(Number::of(info)) {
        // SAFETY: a map value.
        Some(writer) => unsafe { (*writer).opener != 0 },
        None => false,
    }
}

/// The last writer closed the file: the next open is reported again.
#[inline(always)]
pub fn closed(info: &FileInfo) {
    touched(&Number::real(info));
    if let Some(writer) = WRITERS.get_ptr_mut(Number::of(info)) {
        // SAFETY: a map value.
        unsafe {
            (*writer).at_ns = now();
            (*writer).opener = 0;
        }
    }
}

/// The content may have changed since that time.
#[inline(always)]
pub fn written_since(info: &FileInfo, began: u64) -> bool {
    was_touched(&Number::of(info), began) || was_touched(&Number::real(info), began)
}

#[inline(always)]
fn was_touched(number: &Number, began: u64) -> bool {
    match WRITERS.get_ptr(number) {
        // SAFETY: a map value.
        Some(writer) => unsafe { (*writer).at_ns >= began },
        None => false,
    }
}
