//! Memory that is free goes back to the system.

use std::time::Duration;

/// How often it is looked at whether memory has grown.
const LOOK: Duration = Duration::from_secs(10);
/// Growth after which what is free is given back, bytes.
const GROWTH: u64 = 4 << 20;

/// Allocations of this many bytes and more have pages of their own, which go back when they are freed.
#[cfg(target_env = "gnu")]
const OWN_PAGES: i32 = 128 << 10;
/// Arenas that the threads share.
#[cfg(target_env = "gnu")]
const ARENAS: i32 = 2;

/// Keeps free memory from piling up. To be called before there are threads.
///
/// Left alone, glibc takes each large block that was freed as a sign to keep larger ones (up to 32 MiB), so that after a burst of events
/// the batches lie between what is kept for long; and each thread gets an arena of its own, of which another has no use.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "no safe crate has mallopt(3)")]
pub(crate) fn thrift() {
    // SAFETY: takes two numbers; no other thread is there yet.
    let set = unsafe {
        nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, OWN_PAGES) == 1
            && nix::libc::mallopt(nix::libc::M_ARENA_MAX, ARENAS) == 1
    };
    if !set {
        tracing::debug!("the C library keeps its own ways with memory");
    }
}

/// Other allocators are left as they are.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn thrift() {}

/// Gives back what is free. Reading an SBOM, or the kernel's BTF, takes for a moment many times the memory of what is kept of
/// it, and glibc keeps most of that for later.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "no safe crate has malloc_trim(3)")]
pub(crate) fn give_back() {
    // SAFETY: takes a number and touches only what is free; any thread may call it at any time (MT-Safe).
    unsafe { nix::libc::malloc_trim(0) };
}

/// Bytes of this process's memory that are in use; 0 where they cannot be read.
pub(crate) fn resident() -> u64 {
    let stat = procfs::process::Process::myself().and_then(|me| me.stat());
    stat.map_or(0, |stat| stat.rss * procfs::page_size())
}

/// Other allocators give back by themselves.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}

/// Gives back what is free whenever memory has grown by [`GROWTH`], as after a burst of events. Never ends.
pub(crate) async fn tend() {
    let mut timer = tokio::time::interval(LOOK);
    timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut settled = resident();
    loop {
        timer.tick().await;
        let now = resident();
        if now > settled.saturating_add(GROWTH) {
            // It goes through all that is free, which may take milliseconds.
            let _ended = tokio::task::spawn_blocking(give_back).await;
            settled = resident();
        } else {
            settled = settled.min(now);
        }
    }
}
