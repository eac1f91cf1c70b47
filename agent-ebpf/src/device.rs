//! Block devices that were opened for write. Whoever writes to the device beneath a file system changes files without any inode
//! showing it, and what the page cache has of them may stay for long: no digest of such a file is kept from then on.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use muster_common::FileInfo;

/// By device number: when it was last opened for write, nanoseconds since boot. The agent takes out what holds no file system, and
/// puts in what lies on a device that is in here (a partition of a disk, a volume). When it is full a device is not
/// remembered here, but the agent is told of it as of every other.
#[map]
static DEVICES: HashMap<u32, u64> = HashMap::with_max_entries(4096, 0);

/// A device is opened for write.
#[inline(always)]
pub fn opened(device: u32) {
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    let _ = DEVICES.insert(device, now, u64::from(BPF_ANY));
}

/// The device that the file's content lies on was opened for write.
#[inline(always)]
pub fn was_written(info: &FileInfo) -> bool {
    DEVICES.get_ptr(info.real_dev).is_some()
}
