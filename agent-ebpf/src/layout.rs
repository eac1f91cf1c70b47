//! The one file that reads kernel fields by offset.
//!
//! Each line of [`muster_common::layout`] is a `.rodata` global here; the agent patches it before the load, so the
//! verifier knows its value. Kernel pointers are plain `u64`: every read goes through `bpf_probe_read_kernel`, which
//! takes any address and leaves zero where there is nothing to read, so no walk needs a check of its own.

use core::ffi::c_void;
use core::mem::{MaybeUninit, size_of};

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use muster_common::layout::ABSENT;

macro_rules! globals {
    ($($symbol:ident, $structure:literal, $member:literal, $ask:ident, $optional:literal;)*) => {
        $(#[unsafe(no_mangle)] pub static $symbol: u32 = 0;)*
    };
}
muster_common::with_kernel_fields!(globals);

/// The agent's own thread group: see `muster_common::global`.
#[unsafe(no_mangle)]
pub static OWN_TGID: u32 = 0;
/// `bpf_ima_file_hash` may be called.
#[unsafe(no_mangle)]
pub static HAS_IMA_FILE_HASH: u32 = 0;
/// Largest file that the kernel hashes while a task waits, bytes.
#[unsafe(no_mangle)]
pub static KERNEL_HASH_BYTES: u32 = 0;
/// The flavour that is loaded, one of `muster_common::hook`.
#[unsafe(no_mangle)]
pub static FLAVOUR: u32 = 0;

/// Value of a global. Volatile, or the compiler would take the zero of the source for it.
#[inline(always)]
pub fn global(symbol: &'static u32) -> u32 {
    // SAFETY: a reference is valid to read.
    unsafe { core::ptr::read_volatile(symbol) }
}

/// An offset of the table.
#[inline(always)]
pub fn off(symbol: &'static u32) -> u64 {
    u64::from(global(symbol))
}

/// The kernel has the member.
#[inline(always)]
pub fn has(symbol: &'static u32) -> bool {
    global(symbol) != ABSENT
}

/// Reads a `T` of kernel memory; all zero where there is nothing to read.
#[inline(always)]
pub fn read_at<T: Copy>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper fills `value` wholly, with zeroes if it fails; every `T` here is made of integers.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address as *const c_void);
        value.assume_init()
    }
}

/// Reads the member `symbol` of the structure at `base`.
#[inline(always)]
pub fn read<T: Copy>(base: u64, symbol: &'static u32) -> T {
    read_at(base.wrapping_add(off(symbol)))
}

/// The value, of which the verifier then knows nothing: states that differ in it alone become one.
#[inline(always)]
pub fn opaque(value: u32) -> u32 {
    read_at(&raw const value as u64)
}

/// Reads a pointer member.
#[inline(always)]
pub fn pointer(base: u64, symbol: &'static u32) -> u64 {
    read(base, symbol)
}
