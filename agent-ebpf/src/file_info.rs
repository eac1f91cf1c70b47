//! The file part of a record: identity, place, path.

use muster_common::{FileInfo, PATH_BUF, file_flag};

use crate::layout::*;
use crate::path::{self, Path, Walked};

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
/// `MNT_NS_INTERNAL`, `ERR_PTR(-EINVAL)`: the kernel's own mounts.
pub const MNT_NS_INTERNAL: u64 = -22_i64 as u64;

const S_IFMT: u32 = 0o170_000;
/// A regular file.
pub const S_IFREG: u32 = 0o100_000;
/// A symbolic link.
pub const S_IFLNK: u32 = 0o120_000;
/// A socket.
pub const S_IFSOCK: u32 = 0o140_000;

/// No file.
pub const NONE: FileInfo = FileInfo {
    ino: 0,
    size: 0,
    ctime_ns: 0,
    i_version: 0,
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

/// The content may change beneath the inode, whose times and version stay as they are: by a FUSE server, or by whoever mounted an
/// overlay over directories of their own. (Only root can change the layers of the other overlays.)
#[inline(always)]
fn changes_beneath(sb: u64, magic: u64) -> bool {
    let foreign = magic == OVERLAYFS && u64::from(read::<u32>(sb, &OFF_SB_IFLAGS)) & NODEV != 0;
    is_served(magic) || foreign
}

/// `i_writecount`: opens for write, or below zero while something forbids them.
#[inline(always)]
pub fn writers(inode: u64) -> i32 {
    read(inode, &OFF_INODE_WRITECOUNT)
}

/// The inode of the upper layer that holds the content of an inode of overlayfs; 0 when it is in a lower layer.
///
/// ovl_mmap() moves the mapping from the overlay's file to that of the layer, and with it what counts as a writer: when the
/// descriptor is closed the overlay's inode has none left.
#[inline(always)]
fn upper(inode: u64) -> u64 {
    // struct ovl_inode: `struct inode vfs_inode; struct dentry *__upperdentry;`
    let dentry: u64 = read_at(inode + off(&SIZE_INODE));
    // Of nothing the walk reads zero.
    pointer(dentry, &OFF_DENTRY_INODE)
}

/// A file of overlayfs that is mapped shared and writable, by whomever. With other file systems the mapping holds the file that was
/// opened.
#[inline(always)]
pub fn is_mapped_beneath(inode: u64) -> bool {
    // Behind another file system's inode is no pointer: reading through what is there would fault, at each close.
    magic(inode) == OVERLAYFS && is_mapped_writable(upper(inode))
}

/// Somebody has it mapped shared and writable.
#[inline(always)]
fn is_mapped_writable(inode: u64) -> bool {
    read::<i32>(pointer(inode, &OFF_INODE_MAPPING), &OFF_MAPPING_WRITABLE) > 0
}

/// The kernel's own file systems hold settings and not content: nothing there is a change of a file.
#[inline(always)]
pub fn is_pseudo(magic: u64) -> bool {
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

/// Fills in what the inode says. The path members are left for [`set_path`]. A function of its own: a program has 512 bytes of stack.
///
/// # Safety
/// `out` is valid for writes.
#[inline(never)]
pub unsafe fn fill(inode: u64, mnt: u64, out: *mut FileInfo) {
    let sb = pointer(inode, &OFF_INODE_SB);
    let magic: u64 = read(sb, &OFF_SB_MAGIC);
    let mut flags = file_flag::PRESENT;
    let mut writing = writers(inode) > 0;
    if magic == OVERLAYFS {
        let upper = upper(inode);
        flags |= if upper != 0 { file_flag::OVERLAY_UPPER } else { file_flag::OVERLAY_LOWER };
        // Before 5.15 each mapping of the running program takes one from the layer's writers (__vma_link_file(), VM_DENYWRITE), so
        // that a writer does not show in their number.
        writing |= writers(upper) > 0 || is_mapped_writable(upper);
    }
    if magic == TMPFS || magic == RAMFS || magic == HUGETLBFS {
        flags |= file_flag::TMPFS;
        let mount = mnt.wrapping_sub(off(&OFF_MOUNT_MNT));
        // overlayfs has internal mounts of its layers too, but a memfd never had a name.
        let unnamed = read::<u32>(inode, &OFF_INODE_NLINK) == 0;
        if unnamed && mnt != 0 && pointer(mount, &OFF_MOUNT_NS) == MNT_NS_INTERNAL {
            flags |= file_flag::MEMFD;
        }
    }
    if writing {
        flags |= file_flag::WRITERS;
    }
    if changes_beneath(sb, magic) {
        flags |= file_flag::BENEATH;
    }
    // SAFETY: the caller's promise.
    unsafe {
        (*out).ino = read(inode, &OFF_INODE_INO);
        (*out).size = read(inode, &OFF_INODE_SIZE);
        (*out).ctime_ns = ctime_ns(inode);
        (*out).i_version = read(inode, &OFF_INODE_VERSION);
        (*out).dev = read(sb, &OFF_SB_DEV);
        (*out).generation = generation(inode, magic);
        (*out).mode = u32::from(read::<u16>(inode, &OFF_INODE_MODE));
        (*out).nlink = read(inode, &OFF_INODE_NLINK);
        (*out).uid = read(inode, &OFF_INODE_UID);
        (*out).flags = opaque(flags);
        (*out).fs_magic = magic as u32;
        (*out).path_len = 0;
        (*out).path_flags = 0;
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
