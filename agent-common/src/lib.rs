//! Types that cross the boundary between the kernel programs and the agent.
//!
//! Everything here is plain old data: integers and byte arrays with fixed offsets, no padding, no Rust enum (an
//! enum made from kernel bytes is undefined behaviour for an unknown value). The kernel programs write these
//! records into ring buffers; the agent reads them with [`zerocopy`] and trusts nothing in them.
//! All integers are in the machine's byte order; all times are nanoseconds.

#![no_std]
#![forbid(unsafe_code)]

pub mod layout;
pub mod programs;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a path that a record can hold, NUL of the last name included. A longer path is cut and carries
/// [`path_flag::TRUNCATED`].
pub const PATH_CAP: usize = 1024;
/// Longest name in a directory (`NAME_MAX`), and the NUL.
pub const NAME_CAP: usize = 256;
/// Size of a path buffer: a name that starts at the last byte of [`PATH_CAP`] still fits, which is what the verifier
/// wants to see.
pub const PATH_BUF: usize = PATH_CAP + NAME_CAP;
/// [`FileRecord::origin_len`] of names that did not fit into their buffer, or were too many.
pub const ORIGIN_CUT: u16 = u16::MAX;
/// Length of a task's command name (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;
/// Length of a SHA-256.
pub const SHA256_LEN: usize = 32;

/// Names of the maps, as both sides spell them.
pub mod map {
    /// Ring for exec, fork and exit.
    pub const RING_EXEC: &str = "RING_EXEC";
    /// Ring for executable mappings.
    pub const RING_LIBRARY: &str = "RING_LIBRARY";
    /// Ring for file changes.
    pub const RING_FILE: &str = "RING_FILE";
    /// Ring for network connects.
    pub const RING_NET: &str = "RING_NET";
    /// Per-CPU array, indexed by [`cause`](crate::cause) and record kind: records that never came into a ring (`u64` each).
    pub const LOST: &str = "LOST";
    /// Hash: of which workload they were, as far as it has room: [`LostKey`](crate::LostKey) to [`LostValue`](crate::LostValue).
    pub const LOST_OF: &str = "LOST_OF";
    /// Array of one `u32`: not 0 when the agent takes no more records.
    pub const CLOSED: &str = "CLOSED";
    /// Per-CPU array, indexed by record kind: records that were submitted (`u64` each).
    pub const SENT: &str = "SENT";
    /// LRU hash: digest of a file by its identity; see `agent-ebpf/src/digest.rs`.
    pub const DIGESTS: &str = "DIGESTS";
    /// Hash: execs under way; see `agent-ebpf/src/exec.rs`.
    pub const PENDING: &str = "PENDING";
    /// Hash: what is about to be done to names; see `agent-ebpf/src/file.rs`.
    pub const DEEDS: &str = "DEEDS";
    /// LRU hash: arguments of system calls under way; see `agent-ebpf/src/tracepoint.rs`.
    pub const CALLS: &str = "CALLS";
    /// LRU hash: senders of datagrams that were reported; see `agent-ebpf/src/connect.rs`.
    pub const SENDERS: &str = "SENDERS";
    /// LRU hash: executable mappings that were reported; see `agent-ebpf/src/mapped.rs`.
    pub const MAPPED: &str = "MAPPED";
    /// LRU hash: when anything was last written under an inode's number; see `agent-ebpf/src/writers.rs`.
    pub const WRITERS: &str = "WRITERS";
    /// Array of one [`OverlayLayout`](crate::OverlayLayout), which the agent fills in as soon as it is known.
    pub const OVERLAY: &str = "OVERLAY";
    /// Hash: block devices that were opened for write; see `agent-ebpf/src/device.rs`.
    pub const DEVICES: &str = "DEVICES";
    /// Hash: who has block devices open for write; see `agent-ebpf/src/device.rs`.
    pub const DEVICE_WRITERS: &str = "DEVICE_WRITERS";
}

/// `.rodata` globals that the agent sets before it loads the programs, beside the offsets of [`layout`].
pub mod global {
    /// `u32`: the agent's own thread group; its events are not emitted.
    pub const OWN_TGID: &str = "OWN_TGID";
    /// `u32`, 0 or 1: `bpf_ima_file_hash` exists (≥ 5.18) and may be called.
    pub const HAS_IMA_FILE_HASH: &str = "HAS_IMA_FILE_HASH";
    /// `u32`: largest file that the kernel hashes while a task waits, bytes.
    pub const KERNEL_HASH_BYTES: &str = "KERNEL_HASH_BYTES";
    /// `u32`: which [`hook`](crate::hook) flavour is loaded.
    pub const FLAVOUR: &str = "FLAVOUR";
}

/// Kinds of records: [`Header::kind`]. Also the index into the maps `LOST` and `SENT`.
pub mod kind {
    /// A program replaced a process's image: [`ExecRecord`](crate::ExecRecord).
    pub const EXEC: u16 = 1;
    /// A file was mapped executable, or is an interpreter with one of its own: [`LibraryRecord`](crate::LibraryRecord).
    pub const LIBRARY: u16 = 2;
    /// A file was changed, or is about to be: [`FileRecord`](crate::FileRecord).
    pub const FILE: u16 = 3;
    /// A socket was connected: [`ConnectRecord`](crate::ConnectRecord).
    pub const CONNECT: u16 = 4;
    /// A process was made: [`ForkRecord`](crate::ForkRecord).
    pub const FORK: u16 = 5;
    /// A process ended: [`ExitRecord`](crate::ExitRecord).
    pub const EXIT: u16 = 6;
    /// One more than the largest kind; the length of the per-kind counters.
    pub const COUNT: u32 = 7;
}

/// Why a record never came into its ring. Row of the map `LOST`, each [`kind::COUNT`] long.
pub mod cause {
    /// Its ring was full.
    pub const RING: u32 = 0;
    /// A map was full: the one that keeps what its call was given until that has succeeded, or the one in which records are written.
    pub const MAP: u32 = 1;
    /// The end of its call was not seen. The kernel runs no program at a function's end twice at once on a processor, and what takes the
    /// processor from it does the same; or another security module refused the call, and nothing is lost.
    pub const UNCONFIRMED: u32 = 2;
    /// One more than the largest cause.
    pub const COUNT: u32 = 3;
}

/// Key of the map `LOST_OF`: cgroup id; `kind << 32 | cause`.
pub type LostKey = [u64; 2];
/// Value of the map `LOST_OF`: number of records; start of the process that was the first to lose one; its id.
pub type LostValue = [u64; 3];

/// Which hooks carried a record: [`Header::hook`].
pub mod hook {
    /// LSM programs.
    pub const LSM: u8 = 1;
    /// fentry/fexit programs (to come).
    pub const FENTRY: u8 = 2;
    /// Tracepoints and raw tracepoints.
    pub const TRACEPOINT: u8 = 3;
}

/// Bits of [`FileInfo::path_flags`].
pub mod path_flag {
    /// The path is longer than what is here: its root-most names are missing.
    pub const TRUNCATED: u16 = 1;
    /// The name was unhashed (unlinked) when the record was made.
    pub const DELETED: u16 = 2;
    /// The bytes are the name as the caller passed it, root first, ended by NUL; if it is relative, the names of the
    /// directory that it starts at follow, as without this bit (none when that is the task's root). Without this bit they
    /// are the names from the leaf to the task's root, each ended by NUL: `bash\0bin\0usr\0`.
    pub const BY_NAME: u16 = 4;
    /// The walk did not end at the task's root: the file is outside it (another mount namespace, a detached mount).
    pub const UNREACHABLE: u16 = 8;
}

/// Bits of [`FileInfo::flags`].
pub mod file_flag {
    /// This part of the record is filled in.
    pub const PRESENT: u32 = 1;
    /// Overlayfs, and the file is in the upper layer: changed or made since the container started.
    pub const OVERLAY_UPPER: u32 = 2;
    /// Overlayfs, and the file is in a lower (image) layer.
    pub const OVERLAY_LOWER: u32 = 4;
    /// tmpfs, ramfs or hugetlbfs.
    pub const TMPFS: u32 = 8;
    /// A memfd: tmpfs on the kernel's internal mount.
    pub const MEMFD: u32 = 16;
    /// Some writer has it open, or mapped shared and writable (`i_writecount` > 0).
    pub const WRITERS: u32 = 32;
    /// Its content may change without its inode showing it: it lies on FUSE, or on an overlay that was mounted from a user namespace.
    pub const BENEATH: u32 = 64;
    /// Of a mapping: its pages may be the process's own and not the file's, for it is or was private and writable.
    pub const ALTERED: u32 = 1 << 16;
    /// Overlayfs, and which inode of which layer has the content is not known, so nothing says whether that changed.
    pub const LAYER_UNKNOWN: u32 = 128;
    /// The content lies in memory, whatever is mounted over it.
    pub const IN_MEMORY: u32 = 256;
    /// It was mapped shared and writable since the agent started: pages that were pinned then may be stored into at any time.
    pub const MAPPED: u32 = 512;
    /// The block device that its file system lies on was opened for write since the agent started.
    pub const DEVICE_WRITTEN: u32 = 1024;
}

/// Values of [`Digest::origin`].
pub mod digest_origin {
    /// No digest here.
    pub const NONE: u8 = 0;
    /// `bpf_ima_file_hash` computed it for this event.
    pub const IMA: u8 = 1;
    /// From the kernel-side cache of digests; the file is unchanged since.
    pub const CACHE: u8 = 2;
}

/// Values of [`Digest::error`] for a file that the kernel programs do not hash, so that the agent has to.
pub mod digest_error {
    /// `-EFBIG`: larger than what is read while a task waits.
    pub const TOO_LARGE: i32 = -27;
    /// `-EREMOTE`: it lies on a network file system, whose server may never answer.
    pub const REMOTE: i32 = -66;
    /// `-EDQUOT`: the workload had more hashed in the last second than it may.
    pub const OVER_BUDGET: i32 = -122;
}

/// Values of [`FileRecord::op`].
pub mod file_op {
    /// Opened for write (reported once per inode until the last writer closes it).
    pub const OPEN_WRITE: u8 = 1;
    /// A name was made: create, mknod or symlink.
    pub const CREATE: u8 = 2;
    /// `file` (old name) was renamed to `target`.
    pub const RENAME: u8 = 3;
    /// `file` got a further name `target`.
    pub const LINK: u8 = 4;
    /// The name was removed.
    pub const UNLINK: u8 = 5;
    /// The mode was changed; `arg` is the new mode.
    pub const CHMOD: u8 = 6;
    /// The size was set by path or descriptor.
    pub const TRUNCATE: u8 = 7;
    /// A writer closed the file. If it was the last one, its content can be judged; else [`file_flag`](crate::file_flag) has `WRITERS`.
    pub const CLOSE_WRITE: u8 = 8;
    /// Mapped shared and writable: content can change without a further write call.
    pub const MAP_WRITE: u8 = 9;
    /// A block device was opened for write; `arg` is its number, in the kernel's encoding.
    pub const BLOCK_WRITE: u8 = 10;
    /// As `RENAME`, and what was at `target` has the old name now (`RENAME_EXCHANGE`): it has a record of its own, unless these names
    /// are the caller's ([`path_flag::BY_NAME`](crate::path_flag::BY_NAME)).
    pub const EXCHANGE: u8 = 11;
    /// The file was given capabilities (`security.capability`). Its path is empty where the hook knows no mount: then there are the names
    /// up to the root of the file system ([`FileRecord::origin_len`](crate::FileRecord::origin_len)).
    pub const CAPABILITY: u8 = 12;
}

/// Values of [`ConnectRecord::protocol`], as in `IPPROTO_*`.
pub mod protocol {
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
}

/// First bytes of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// Bytes of the whole record, this header included.
    pub size: u32,
    /// One of [`kind`].
    pub kind: u16,
    /// One of [`hook`].
    pub hook: u8,
    /// Zero.
    pub reserved: u8,
    /// `bpf_ktime_get_boot_ns` (since boot, suspend included) when the record was made.
    pub time_ns: u64,
}

/// The task that did it.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Task {
    /// `task_struct.start_boottime` of the thread group's leader; with `tgid` it names a process for as long as the
    /// machine runs.
    pub start_ns: u64,
    /// Id of the cgroup in the default (v2) hierarchy: `bpf_get_current_cgroup_id`.
    pub cgroup_id: u64,
    /// Thread id in the initial pid namespace.
    pub pid: u32,
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Process id of the parent (`real_parent`).
    pub ppid: u32,
    /// Real user id, initial user namespace.
    pub uid: u32,
    /// Real group id, initial user namespace.
    pub gid: u32,
    /// Inode of the mount namespace; 0 of a task that is exiting, and of one that changed a file in a root directory of another mount
    /// namespace.
    pub mnt_ns: u32,
    /// Inode of the pid namespace.
    pub pid_ns: u32,
    /// Effective user id (a set-uid program differs here).
    pub euid: u32,
    /// Command name, NUL padded.
    pub comm: [u8; COMM_LEN],
}

/// The identity of a file's content, and how its name was found.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FileInfo {
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Change time, nanoseconds since 1970; on overlayfs that of the layer's inode that `stat` shows.
    pub ctime_ns: u64,
    /// `inode.i_version` (raw; its lowest bit is the "queried" mark) of the inode that has the content; where `ctime_ns` is another
    /// inode's, mixed with the change time of this one.
    pub i_version: u64,
    /// Number of the inode that has the content: on overlayfs one of a layer, else `ino`.
    pub real_ino: u64,
    /// Its device.
    pub real_dev: u32,
    /// Its generation.
    pub real_generation: u32,
    /// Device of the superblock in the kernel's encoding: `major << 20 | minor`.
    pub dev: u32,
    /// Inode generation; on file systems with subvolumes mixed with what tells these apart; on overlayfs that of the first layer's inode.
    pub generation: u32,
    /// Type and permissions (`S_IF*`, `S_I*`).
    pub mode: u32,
    /// Hard links.
    pub nlink: u32,
    /// Owner, initial user namespace.
    pub uid: u32,
    /// Bits of [`file_flag`].
    pub flags: u32,
    /// `super_block.s_magic`, lower 32 bits, of the file system that has the content: on overlayfs a layer's.
    pub fs_magic: u32,
    /// Bytes of the path that belongs to this file.
    pub path_len: u16,
    /// Bits of [`path_flag`].
    pub path_flags: u16,
}

/// Where overlayfs keeps what it knows of a file: byte offsets, from the type information of its module, which may be loaded
/// after the kernel programs. A member that this kernel lacks is [`layout::ABSENT`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct OverlayLayout {
    /// 1 when the rest is filled in.
    pub known: u32,
    /// `ovl_inode.vfs_inode`
    pub vfs_inode: u32,
    /// `ovl_inode.__upperdentry`
    pub upper: u32,
    /// `ovl_inode.flags`
    pub flags: u32,
    /// `ovl_inode.lower`, `struct inode *`: up to 5.19.
    pub lower: u32,
    /// `ovl_inode.lowerpath.dentry`: 6.0 to 6.4.
    pub lower_dentry: u32,
    /// `ovl_inode.lowerdata`, `struct inode *`, of regular files: up to 6.4.
    pub lower_data: u32,
    /// `ovl_inode.oe`, `struct ovl_entry *`: since 6.5.
    pub entry: u32,
    /// `ovl_entry.__numlower`
    pub count: u32,
    /// `ovl_entry.__lowerstack`
    pub stack: u32,
    /// Size of `struct ovl_path`.
    pub path_size: u32,
    /// `ovl_path.dentry`
    pub path_dentry: u32,
}

/// A content digest that the kernel found.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Digest {
    /// SHA-256 of the whole file; zero without one.
    pub sha256: [u8; SHA256_LEN],
    /// One of [`digest_origin`].
    pub origin: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// What the helper returned when it failed (negative errno), or one of [`digest_error`]; else 0.
    pub error: i32,
}

/// A record that one or two paths follow, each with the names up to the root of its file system behind it, all as long as they are.
pub trait WithPaths {
    /// How many bytes they have: the first path, its names, the second path, its names. A record of the kernel programs never states
    /// more than [`PATH_BUF`].
    fn path_lens(&self) -> [u16; 4];
}

/// The bytes of names up to the root of a file system.
#[inline(always)]
fn origin_bytes(len: u16) -> u16 {
    if len == ORIGIN_CUT { 0 } else { len }
}

impl WithPaths for ExecRecord {
    #[inline(always)]
    fn path_lens(&self) -> [u16; 4] {
        [self.exe.path_len, 0, self.script.path_len, 0]
    }
}

impl WithPaths for LibraryRecord {
    #[inline(always)]
    fn path_lens(&self) -> [u16; 4] {
        [self.file.path_len, 0, 0, 0]
    }
}

impl WithPaths for FileRecord {
    #[inline(always)]
    fn path_lens(&self) -> [u16; 4] {
        let (origin, target_origin) = (origin_bytes(self.origin_len), origin_bytes(self.target_origin_len));
        [self.file.path_len, origin, self.target_len, target_origin]
    }
}

/// A program replaced a process's image. The path of `exe` follows, then that of `script`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ExecRecord {
    /// Header, `kind` = [`kind::EXEC`].
    pub header: Header,
    /// The process, after the exec.
    pub task: Task,
    /// The binary that runs: for a script, its interpreter.
    pub exe: FileInfo,
    /// The script, if there is one ([`file_flag::PRESENT`]).
    pub script: FileInfo,
    /// Digest of `exe`.
    pub exe_digest: Digest,
    /// Digest of `script`.
    pub script_digest: Digest,
}

/// A file was mapped executable, or a mapping of a file was made executable. Or it is an interpreter, of a script, that is itself a
/// script: the exec says only what is first and what is last. The path of `file` follows.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LibraryRecord {
    /// Header, `kind` = [`kind::LIBRARY`].
    pub header: Header,
    /// The process.
    pub task: Task,
    /// The file.
    pub file: FileInfo,
    /// Its digest.
    pub digest: Digest,
    /// Protection asked for (`PROT_*`).
    pub prot: u32,
    /// 1 when `mprotect` did it, 0 for `mmap`.
    pub mprotect: u32,
    /// Start of the mapping where it is known (`mprotect`, tracepoint `mmap`), else 0.
    pub address: u64,
}

/// A file was changed, or is about to be. Its path follows (for `RENAME`, `EXCHANGE` and `LINK` the old name), then the new name, for
/// the same operations.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FileRecord {
    /// Header, `kind` = [`kind::FILE`].
    pub header: Header,
    /// The process.
    pub task: Task,
    /// The file, after the operation where the hook runs after it.
    pub file: FileInfo,
    /// One of [`file_op`].
    pub op: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Depends on `op`: the new mode for `CHMOD`, else 0.
    pub arg: u32,
    /// Bytes of the new name.
    pub target_len: u16,
    /// Bits of [`path_flag`] for the new name.
    pub target_flags: u16,
    /// Open flags (`O_*`) where there are any.
    pub open_flags: u32,
    /// Bytes after those of the path: the names from the leaf to the root of the file's own file system, where the path
    /// may not be the file's only one by what is mounted; 0 where it is, [`ORIGIN_CUT`] where they did not fit.
    pub origin_len: u16,
    /// The same for the new name.
    pub target_origin_len: u16,
    /// Zero.
    pub reserved_too: u32,
}

/// A socket was connected, or an unconnected one sent to an address.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ConnectRecord {
    /// Header, `kind` = [`kind::CONNECT`].
    pub header: Header,
    /// The process.
    pub task: Task,
    /// `AF_INET` (2) or `AF_INET6` (10).
    pub family: u16,
    /// One of [`protocol`].
    pub protocol: u8,
    /// 1 when an unconnected datagram send named the destination, else 0.
    pub sendto: u8,
    /// Destination port, host byte order.
    pub port: u16,
    /// Source port, host byte order, 0 when none is bound yet.
    pub source_port: u16,
    /// Destination address: IPv4 in the first four bytes.
    pub address: [u8; 16],
}

/// A process was made (threads are not reported).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ForkRecord {
    /// Header, `kind` = [`kind::FORK`].
    pub header: Header,
    /// The child.
    pub task: Task,
    /// `start_boottime` of the parent's leader.
    pub parent_start_ns: u64,
}

/// A process ended (its last thread).
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct ExitRecord {
    /// Header, `kind` = [`kind::EXIT`].
    pub header: Header,
    /// The process.
    pub task: Task,
    /// `task_struct.exit_code`.
    pub exit_code: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Header>() == 16);
    assert!(size_of::<Task>() == 64);
    assert!(size_of::<FileInfo>() == 80);
    assert!(size_of::<OverlayLayout>() == 48);
    assert!(size_of::<Digest>() == 40);
    assert!(offset_of!(ExecRecord, exe) == 80);
    assert!(offset_of!(ExecRecord, exe_digest) == 240);
    assert!(size_of::<ExecRecord>() == 320);
    assert!(size_of::<LibraryRecord>() == 216);
    assert!(size_of::<FileRecord>() == 184);
    assert!(size_of::<ConnectRecord>() == 104);
    assert!(size_of::<ForkRecord>() == 88);
    assert!(size_of::<ExitRecord>() == 88);
};
