//! Memory that is free goes back to the system.

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
