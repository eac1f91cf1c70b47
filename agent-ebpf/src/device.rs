//! Block devices that were opened for write. Whoever writes to the device beneath a file system changes files without any inode
//! showing it, and what the page cache has of them may stay for long: no digest of such a file is kept from then on.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;
use muster_common::{FileInfo, hook};

use crate::atomic;
use crate::layout::*;
use crate::task;

/// By device number: when it was last opened for write, nanoseconds since boot. The agent takes out what nobody has open and holds no
/// file system, and puts in what lies on a device that is in here (a partition of a disk, a volume). When it is full a device is not
/// remembered here, but the agent is told of it as of every other.
#[map]
static DEVICES: HashMap<u32, u64> = HashMap::with_max_entries(4096, 0);

/// Who has a device open for write. Nobody takes an entry out: that could not be done at once with looking whether it is 0.
/// The agent reads it: see `agent/src/sensor/changes.rs`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Writers {
    /// Opened files. More than there are if an open failed or a close was not seen, never less.
    open: u64,
    /// When one of them was closed last while others had claimed the device, as each file system and each volume does that lies on it,
    /// nanoseconds since boot.
    claimed_ns: u64,
}

/// By device number. A device that finds no room counts as open.
#[map]
static DEVICE_WRITERS: HashMap<u32, Writers> = HashMap::with_max_entries(4096, 0);

/// Device numbers by the address of the opened file that is counted: what was not seen to be opened is not counted when it is
/// closed. A file that finds no room stays counted.
#[map]
static DEVICE_FILES: HashMap<u64, u32> = HashMap::with_max_entries(4096, 0);

/// A device is opened for write. It is counted before it is marked: the agent looks at the count after it takes a mark away.
#[inline(always)]
pub fn opened(file: u64, device: u32) {
    // An open that failed, or a close that nobody saw: the address was given away again.
    uncount(file);
    if let Some(writers) = entry(device) {
        // SAFETY: a map value.
        atomic::add(unsafe { &raw mut (*writers).open }, 1);
        let _ = DEVICE_FILES.insert(file, device, u64::from(BPF_ANY));
    }
    let _ = DEVICES.insert(device, now(), u64::from(BPF_ANY));
}

/// The entry, made if it is not there. `None` when there is no room.
#[inline(always)]
fn entry(device: u32) -> Option<*mut Writers> {
    if let Some(writers) = DEVICE_WRITERS.get_ptr_mut(device) {
        return Some(writers);
    }
    // Another may do the same meanwhile.
    let _ = DEVICE_WRITERS.insert(device, Writers { open: 0, claimed_ns: 0 }, u64::from(BPF_NOEXIST));
    DEVICE_WRITERS.get_ptr_mut(device)
}

/// The last reference to a device that was opened for write goes. The tracepoint flavour looks before the call is done: if another
/// thread has the same table of descriptors it may make a second one of it yet.
#[inline(always)]
pub fn closed(file: u64) {
    if global(&FLAVOUR) != u32::from(hook::LSM) && shares_descriptors() {
        return;
    }
    if is_claimed(file)
        && let Some(device) = DEVICE_FILES.get_ptr(file)
        // SAFETY: a map value.
        && let Some(writers) = DEVICE_WRITERS.get_ptr_mut(unsafe { *device })
    {
        // SAFETY: a map value.
        unsafe { (*writers).claimed_ns = now() };
    }
    uncount(file);
}

/// Takes away what was counted for the file.
#[inline(always)]
fn uncount(file: u64) {
    let Some(device) = DEVICE_FILES.get_ptr(file) else { return };
    // SAFETY: a map value.
    let device = unsafe { *device };
    if DEVICE_FILES.remove(file).is_ok()
        && let Some(writers) = DEVICE_WRITERS.get_ptr_mut(device)
    {
        // SAFETY: a map value.
        atomic::add(unsafe { &raw mut (*writers).open }, -1);
    }
}

/// `files_struct.count`: tasks that share it.
#[inline(always)]
fn shares_descriptors() -> bool {
    let files = pointer(task::current(), &OFF_TASK_FILES);
    read::<u32>(files, &OFF_FILES_COUNT) != 1
}

/// Somebody other than the file has claimed the device, or a partition of it (`bd_prepare_to_claim()`): whoever opens it with
/// `O_EXCL` does, as a file or, since it is mounted or a part of a volume, as something else.
#[inline(always)]
fn is_claimed(file: u64) -> bool {
    if !has(&OFF_BDEV_INODE) || !has(&OFF_BDEV_HOLDER) {
        return true;
    }
    // The inode of the file system of block devices lies behind the device itself.
    let inode = pointer(pointer(file, &OFF_FILE_MAPPING), &OFF_MAPPING_HOST);
    let holder = pointer(inode.wrapping_sub(off(&OFF_BDEV_INODE)), &OFF_BDEV_HOLDER);
    holder != 0 && holder != file
}

/// The device that the file's content lies on was opened for write.
#[inline(always)]
pub fn was_written(info: &FileInfo) -> bool {
    DEVICES.get_ptr(info.real_dev).is_some()
}

#[inline(always)]
fn now() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_ktime_get_boot_ns() }
}
