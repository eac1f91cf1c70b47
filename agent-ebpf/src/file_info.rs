//! The file part of a record: identity, place, path.

use muster_common::{FileInfo, PATH_BUF, file_flag};

use crate::device;
use crate::layout::*;
use crate::overlay;
use crate::path::{self, Path, Walked};
use crate::writers;

const OVERLAYFS: u64 = 0x794c_7630;
const TMPFS: u64 = 0x0102_1994;
const RAMFS: u64 = 0x8584_58f6;
const HUGETLBFS: u64 = 0x9584_58f6;
const FUSE: u64 = 0x6573_5546;
const BTRFS: u64 = 0x9123_683e;
const BCACHEFS: u64 = 0xca45_1a4e;
/// 2^32 divided by the golden ratio, odd: multiplying by it spreads what differs over all bits.
const SPREAD: u64 = 0x9e37_79b9;
/// `SB_I_NODEV`: alloc_super() sets it for what is mounted from a user namespace; of the file systems that have it for another
/// reason, none is an overlay.
const NODEV: u64 = 4;
/// `SB_I_NOEXEC`.
const NOEXEC: u64 = 2;
/// `SB_NOUSER`.
const NOUSER: u64 = 1 << 31;
/// `MNT_NS_INTERNAL`, `ERR_PTR(-EINVAL)`: the kernel's own mounts.
pub const MNT_NS_INTERNAL: u64 = -22_i64 as u64;

const S_IFMT: u32 = 0o170_000;
/// A regular file.
pub const S_IFREG: u32 = 0o100_000;
/// A symbolic link.
pub const S_IFLNK: u32 = 0o120_000;
/// A block device.
pub const S_IFBLK: u32 = 0o060_000;
/// A socket.
pub const S_IFSOCK: u32 = 0o140_000;

/// No file.
pub const NONE: FileInfo = FileInfo {
    ino: 0,
    size: 0,
    ctime_ns: 0,
    i_version: 0,
    real_ino: 0,
    real_dev: 0,
    real_generation: 0,
    dev: 0,
    generation: 0,
    mode: 0,
    nlink: 0,
    uid: 0,
    flags: 0,
    fs_magic: 0,
    path_len: 0,
    path_flags: 0,
};

/// The inode of a `struct file`.
#[inline(always)]
pub fn inode(file: u64) -> u64 {
    pointer(file, &OFF_FILE_INODE)
}

/// `super_block.s_magic` of an inode.
#[inline(always)]
pub fn magic(inode: u64) -> u64 {
    read(pointer(inode, &OFF_INODE_SB), &OFF_SB_MAGIC)
}

/// Type of the file: `S_IF*`.
#[inline(always)]
pub fn kind(inode: u64) -> u32 {
    u32::from(read::<u16>(inode, &OFF_INODE_MODE)) & S_IFMT
}

/// The content is what some program says at each read, and may say otherwise at the next.
#[inline(always)]
pub fn is_served(magic: u64) -> bool {
    magic == FUSE
}

/// An overlay that was mounted from a user namespace: whoever did it may change the layers beneath it. (Only root can change those of
/// the other overlays.)
#[inline(always)]
fn is_foreign(sb: u64, magic: u64) -> bool {
    magic == OVERLAYFS && u64::from(read::<u32>(sb, &OFF_SB_IFLAGS)) & NODEV != 0
}

/// In a file system in memory stores through a mapping leave no sign.
#[inline(always)]
fn is_in_memory(magic: u64) -> bool {
    magic == TMPFS || magic == RAMFS || magic == HUGETLBFS
}

/// `i_writecount`: opens for write, or below zero while something forbids them.
#[inline(always)]
pub fn writers(inode: u64) -> i32 {
    read(inode, &OFF_INODE_WRITECOUNT)
}

/// A file of overlayfs that is mapped shared and writable, by whomever. With other file systems the mapping holds the file that was
/// opened. ovl_mmap() moves the mapping from the overlay's file to that of the layer, and with it what counts as a writer: when the
/// descriptor is closed the overlay's inode has none left.
#[inline(always)]
pub fn is_mapped_beneath(inode: u64) -> bool {
    // Behind another file system's inode is no pointer: reading through what is there would fault, at each close.
    magic(inode) == OVERLAYFS && is_mapped_writable(overlay::upper(inode))
}

/// Somebody has it mapped shared and writable.
#[inline(always)]
fn is_mapped_writable(inode: u64) -> bool {
    read::<i32>(pointer(inode, &OFF_INODE_MAPPING), &OFF_MAPPING_WRITABLE) > 0
}

/// The kernel's own file systems hold settings and objects, and no content: nothing there is a change of a file.
///
/// Most say so by themselves. `SB_NOUSER`: no user can mount it (init_pseudo(): pipes, sockets, pidfs, nsfs, secretmem and all that
/// has no mount of its own); the kernel's own mount of tmpfs and of hugetlbfs has memfds and is none. `SB_I_NOEXEC`: nothing there
/// can be run or mapped executable, whoever mounts it (proc, sysfs, mqueue, and since 6.7 binfmt_misc). The rest is a list.
#[inline(always)]
pub fn is_pseudo(inode: u64) -> bool {
    let sb = pointer(inode, &OFF_INODE_SB);
    let magic: u64 = read(sb, &OFF_SB_MAGIC);
    if is_in_memory(magic) {
        return false;
    }
    let internal = read::<u64>(sb, &OFF_SB_FLAGS) & NOUSER != 0;
    internal || u64::from(read::<u32>(sb, &OFF_SB_IFLAGS)) & NOEXEC != 0 || is_listed(magic)
}

#[inline(always)]
fn is_listed(magic: u64) -> bool {
    matches!(
        magic as u32,
        0x9fa0 // proc
            | 0x6265_6572 // sysfs
            | 0x0027_e0eb // cgroup
            | 0x6367_7270 // cgroup2
            | 0x1cd1 // devpts
            | 0x5049_5045 // pipefs
            | 0x534f_434b // sockfs
            | 0x6462_6720 // debugfs
            | 0x7472_6163 // tracefs
            | 0xcafe_4a11 // bpf
            | 0x7363_6673 // securityfs
            | 0x6265_6570 // configfs
            | 0x0904_1934 // anon_inode
            | 0x6165_676c // pstore
            | 0xde5e_81e4 // efivarfs
            | 0x1980_0202 // mqueue
            | 0x4249_4e4d // binfmt_misc
            | 0x6573_5543 // fusectl
            | 0xf97c_ff8c // selinuxfs
            | 0x4341_5d53 // smackfs
            | 0x5a3c_69f0 // apparmorfs
            | 0x6e73_6673 // nsfs
            | 0x5049_4446 // pidfs, which has SB_NOUSER as well
            | 0x5345_434d // secretmem
            | 0x0765_5821 // resctrl
            | 0x6759_6969 // rpc_pipefs
            | 0x6e66_7364 // nfsd
            | 0xabba_1974 // xenfs
            | 0x0a64_7361 // functionfs
    )
}

/// Change time, nanoseconds since 1970. Three layouts so far: `i_ctime`, `__i_ctime` (6.6), two members (6.11).
#[inline(always)]
fn ctime_ns(inode: u64) -> u64 {
    let (sec, nsec): (u64, u32) = if has(&OFF_INODE_CTIME_SEC) {
        // Bit 31 is I_CTIME_QUERIED (6.13, multigrain time stamps): set by `stat`, no part of the time.
        let nsec: u32 = read(inode, &OFF_INODE_CTIME_NSEC);
        (read(inode, &OFF_INODE_CTIME_SEC), nsec & !(1 << 31))
    } else {
        let at =
            inode + off(if has(&OFF_INODE_CTIME_SPLIT) { &OFF_INODE_CTIME_SPLIT } else { &OFF_INODE_CTIME });
        (read_at(at), read_at(at + 8))
    };
    sec.wrapping_mul(1_000_000_000).wrapping_add(u64::from(nsec))
}

/// `i_generation`. All subvolumes of btrfs and bcachefs have one `s_dev`, and a snapshot repeats inode numbers and generations, so
/// theirs is mixed with where the inode is in memory. It stays there while it is open or mapped; read in again it is another file
/// to whoever remembers it, which costs a digest and proves nothing wrongly.
#[inline(always)]
fn generation(inode: u64, magic: u64) -> u32 {
    let generation: u32 = read(inode, &OFF_INODE_GENERATION);
    let place = if magic == BTRFS || magic == BCACHEFS { inode.wrapping_mul(SPREAD) >> 32 } else { 0 };
    opaque(generation ^ place as u32)
}

/// The inodes that make up a file.
#[derive(Clone, Copy)]
struct Real {
    /// Has the content.
    data: u64,
    /// Has the attributes that `stat` shows.
    shown: u64,
    /// Stays the same when the file is copied up.
    first: u64,
    /// Of the upper layer.
    upper: u64,
    /// One of them, or of the layers beneath, is open for write.
    writing: bool,
}

/// An overlay's layer may be one of another overlay, and no deeper (`FILESYSTEM_MAX_STACK_DEPTH`).
#[inline(always)]
fn real(inode: u64, magic: u64) -> Real {
    let own = Real { data: inode, shown: inode, first: inode, upper: 0, writing: writers(inode) > 0 };
    if magic != OVERLAYFS {
        return own;
    }
    let outer = beneath(own);
    if outer.data == 0 || self::magic(outer.data) != OVERLAYFS {
        return outer;
    }
    let inner = beneath(Real { data: outer.data, ..own });
    let shown = if outer.shown == outer.data { inner.shown } else { outer.shown };
    Real { shown, first: outer.first, upper: outer.upper, writing: outer.writing || inner.writing, ..inner }
}

#[inline(always)]
fn beneath(of: Real) -> Real {
    let layers = overlay::layers(of.data);
    let shown = if layers.upper != 0 { layers.upper } else { layers.lower };
    let first = if layers.lower != 0 { layers.lower } else { layers.upper };
    // Before 5.15 each mapping of the running program takes one from the layer's writers (__vma_link_file(), VM_DENYWRITE), so that a
    // writer does not show in their number.
    let is_written = |inode| writers(inode) > 0 || is_mapped_writable(inode);
    let writing = of.writing || is_written(layers.data) || is_written(layers.upper);
    Real { data: layers.data, shown, first, upper: layers.upper, writing }
}

/// Fills in what the inode says. The path members are left for [`set_path`].
///
/// A function of its own, as the verifier then forgets on return by which of its many ways it came. Else older ones follow what comes
/// after it once for each.
///
/// # Safety
/// `out` is valid for writes.
#[inline(never)]
pub unsafe fn fill(inode: u64, mnt: u64, out: *mut FileInfo) {
    let sb = pointer(inode, &OFF_INODE_SB);
    let own_magic: u64 = read(sb, &OFF_SB_MAGIC);
    let mut flags = file_flag::PRESENT;
    // Of directories overlayfs has other members.
    let is_file = kind(inode) == S_IFREG;
    let real = real(inode, if is_file { own_magic } else { 0 });
    if own_magic == OVERLAYFS {
        flags |= if real.upper != 0 || !is_file && overlay::upper(inode) != 0 {
            file_flag::OVERLAY_UPPER
        } else {
            file_flag::OVERLAY_LOWER
        };
    }
    let known = real.data != 0;
    if !known {
        flags |= file_flag::LAYER_UNKNOWN;
    }
    let (data, shown) = if known { (real.data, real.shown) } else { (inode, inode) };
    let first = if known { real.first } else { inode };
    let data_sb = pointer(data, &OFF_INODE_SB);
    let magic: u64 = read(data_sb, &OFF_SB_MAGIC);
    if is_in_memory(own_magic) {
        flags |= file_flag::TMPFS;
        let mount = mnt.wrapping_sub(off(&OFF_MOUNT_MNT));
        // overlayfs has internal mounts of its layers too, but a memfd never had a name.
        let unnamed = read::<u32>(inode, &OFF_INODE_NLINK) == 0;
        if unnamed && mnt != 0 && pointer(mount, &OFF_MOUNT_NS) == MNT_NS_INTERNAL {
            flags |= file_flag::MEMFD;
        }
    }
    if is_in_memory(magic) {
        flags |= file_flag::IN_MEMORY;
    }
    if real.writing {
        flags |= file_flag::WRITERS;
    }
    if is_foreign(sb, own_magic) || is_served(magic) {
        flags |= file_flag::BENEATH;
    }
    let mut version: u64 = read(data, &OFF_INODE_VERSION);
    if data != shown {
        // The lowest bit is not part of a version.
        version ^= ctime_ns(data) << 1;
    }
    // SAFETY: the caller's promise.
    unsafe {
        (*out).ino = read(inode, &OFF_INODE_INO);
        (*out).size = read(data, &OFF_INODE_SIZE);
        (*out).ctime_ns = ctime_ns(shown);
        (*out).i_version = version;
        (*out).real_ino = read(data, &OFF_INODE_INO);
        (*out).real_dev = read(data_sb, &OFF_SB_DEV);
        (*out).real_generation = generation(data, magic);
        (*out).dev = read(sb, &OFF_SB_DEV);
        (*out).generation = generation(first, self::magic(first));
        (*out).mode = u32::from(read::<u16>(inode, &OFF_INODE_MODE));
        (*out).nlink = read(inode, &OFF_INODE_NLINK);
        (*out).uid = read(inode, &OFF_INODE_UID);
        (*out).fs_magic = magic as u32;
        (*out).path_len = 0;
        (*out).path_flags = 0;
        if writers::was_mapped(&*out) {
            flags |= file_flag::MAPPED;
        }
        if device::was_written(&*out) {
            flags |= file_flag::DEVICE_WRITTEN;
        }
        (*out).flags = opaque(flags);
    }
}

/// A part of a record without a file.
///
/// # Safety
/// `out` is valid for writes.
#[inline(always)]
pub unsafe fn none(out: *mut FileInfo) {
    // SAFETY: the caller's promise; `FileInfo` is integers.
    unsafe { out.write_bytes(0, 1) };
}

/// Sets what the walk found.
///
/// # Safety
/// `out` is valid for writes.
#[inline(always)]
pub unsafe fn set_path(out: *mut FileInfo, walked: Walked) {
    // SAFETY: the caller's promise.
    unsafe {
        (*out).path_len = walked.len;
        (*out).path_flags = walked.flags;
    }
}

/// Fills in `out` and `buffer` from a `struct file`.
///
/// # Safety
/// `out` and `buffer` are valid for writes.
#[inline(always)]
pub unsafe fn of_file(task: u64, file: u64, out: *mut FileInfo, buffer: *mut [u8; PATH_BUF]) {
    let path = Path::of_file(file);
    // SAFETY: the caller's promise.
    unsafe {
        fill(inode(file), path.mnt, out);
        set_path(out, path::of(task, path, buffer.cast()));
    }
}
