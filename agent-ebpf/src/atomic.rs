//! Adding in one instruction.

use core::arch::asm;

/// Adds to a counter in a map value. A program can be preempted by another on the same CPU, so even a per-CPU counter wants an atomic
/// add. The target has the instruction, but no `AtomicU64::fetch_add`.
#[inline(always)]
pub fn add(counter: *mut u64, what: i64) {
    // SAFETY: a map value: aligned, and valid as long as the program runs.
    unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) counter, in(reg) what) };
}
