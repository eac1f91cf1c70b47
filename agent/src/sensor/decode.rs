//! Bytes of a ring buffer to [`Event`]. Nothing in the bytes is trusted: each length, code and size is checked, and
//! what does not fit is a [`Malformed`] that the caller counts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use muster_common::{
    ConnectRecord, Digest, ExecRecord, ExitRecord, FileInfo, FileRecord, ForkRecord, Header, LibraryRecord,
    ORIGIN_CUT, PATH_BUF, WithPaths, digest_error, digest_origin, file_flag, file_op, hook, kind, path_flag,
    protocol,
};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, FsType};
use smallvec::SmallVec;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::event::{
    Body, Connect, Event, FileIdentity, FileOp, FilePath, FileRef, Flavour, Inode, KernelDigest, Kind,
    Origin, Place, ProcessId, Protocol, Task, Unhashed,
};
use crate::finding::Sha256;

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// What keeps a file's identity from meaning its content.
const CHANGES_BENEATH: u32 =
    file_flag::BENEATH | file_flag::LAYER_UNKNOWN | file_flag::MAPPED | file_flag::DEVICE_WRITTEN;

/// Why a record was refused.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
pub enum Malformed {
    /// Not even a header.
    #[error("record: expected a header of 16 bytes, found {0} bytes")]
    Header(usize),
    /// A kind that this agent does not know.
    #[error("record: unknown kind {0}")]
    Kind(u16),
    /// Another size than the kind has.
    #[error("{} record: expected {expected} bytes, found {found}, and {stated} stated in its header", .kind.as_str())]
    Size {
        /// Its kind.
        kind: Kind,
        /// Size of such a record.
        expected: usize,
        /// Bytes in the ring.
        found: usize,
        /// Size that the header states.
        stated: u32,
    },
    /// A code that this agent does not know.
    #[error("{} record: unknown {field} {value}", .kind.as_str())]
    Code {
        /// Kind of the record.
        kind: Kind,
        /// Which field.
        field: &'static str,
        /// What it holds.
        value: u32,
    },
    /// A path that is not one.
    #[error("{} record: path of {len} bytes: {reason}", .kind.as_str())]
    Path {
        /// Kind of the record.
        kind: Kind,
        /// Stated length.
        len: u16,
        /// What is wrong with it.
        reason: &'static str,
    },
}

impl Malformed {
    /// Kind of the refused record, where that much could be read.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::Header(_) | Self::Kind(_) => None,
            Self::Size { kind, .. } | Self::Code { kind, .. } | Self::Path { kind, .. } => Some(kind),
        }
    }
}

/// Decodes one record.
///
/// # Errors
/// [`Malformed`] when anything in it is not as the kernel programs write it.
pub fn decode(bytes: &[u8]) -> Result<Event, Malformed> {
    let (header, _) = Header::read_from_prefix(bytes).map_err(|_| Malformed::Header(bytes.len()))?;
    match header.kind {
        kind::EXEC => with_paths(bytes, &header, Kind::Exec, exec),
        kind::LIBRARY => with_paths(bytes, &header, Kind::Library, library),
        kind::FILE => with_paths(bytes, &header, Kind::File, file),
        kind::CONNECT => whole(bytes, &header, Kind::Connect, connect),
        kind::FORK => whole(bytes, &header, Kind::Fork, |r: &ForkRecord| {
            // The child's `ppid` and the parent's start are read from the same task in the kernel.
            let parent = ProcessId { tgid: r.task.ppid, start_ns: r.parent_start_ns };
            event(&r.header, Kind::Fork, &r.task, Body::Fork { parent })
        }),
        kind::EXIT => whole(bytes, &header, Kind::Exit, |r: &ExitRecord| {
            event(&r.header, Kind::Exit, &r.task, Body::Exit { status: r.exit_code })
        }),
        unknown => Err(Malformed::Kind(unknown)),
    }
}

/// Hands the bytes over as a `T` if they are exactly one.
fn whole<T: FromBytes + KnownLayout + Immutable>(
    bytes: &[u8],
    header: &Header,
    kind: Kind,
    read: impl FnOnce(&T) -> Result<Event, Malformed>,
) -> Result<Event, Malformed> {
    let expected = size_of::<T>();
    if bytes.len() != expected || usize::try_from(header.size) != Ok(expected) {
        return Err(Malformed::Size { kind, expected, found: bytes.len(), stated: header.size });
    }
    // Records in a ring are aligned to 8 bytes and read in place; bytes from elsewhere may have to be copied.
    match T::ref_from_bytes(bytes) {
        Ok(record) => read(record),
        Err(_) => read(&T::read_from_bytes(bytes).map_err(|_| Malformed::Header(bytes.len()))?),
    }
}

/// Hands over a `T`, and the bytes of the two paths that follow it, if they are exactly as long as it says.
fn with_paths<T: FromBytes + KnownLayout + Immutable + WithPaths>(
    bytes: &[u8],
    header: &Header,
    kind: Kind,
    read: impl FnOnce(&T, &[u8], &[u8]) -> Result<Event, Malformed>,
) -> Result<Event, Malformed> {
    let size = |expected| Malformed::Size { kind, expected, found: bytes.len(), stated: header.size };
    let Some((head, paths)) = bytes.split_at_checked(size_of::<T>()) else {
        return Err(size(size_of::<T>()));
    };
    let read = |head: &T| {
        let lens = head.path_lens();
        if let Some(len) = lens.into_iter().find(|len| usize::from(*len) > PATH_BUF) {
            return Err(Malformed::Path { kind, len, reason: "longer than the kernel programs' buffer" });
        }
        let [path, origin, target, target_origin] = lens.map(usize::from);
        let (first, second) = (path + origin, target + target_origin);
        let expected = size_of::<T>() + first + second;
        if bytes.len() != expected || usize::try_from(header.size) != Ok(expected) {
            return Err(size(expected));
        }
        let (first, second) = paths.split_at(first);
        read(head, first, second)
    };
    // As in `whole`.
    match T::ref_from_bytes(head) {
        Ok(head) => read(head),
        Err(_) => read(&T::read_from_bytes(head).map_err(|_| Malformed::Header(bytes.len()))?),
    }
}

fn exec(r: &ExecRecord, exe_path: &[u8], script_path: &[u8]) -> Result<Event, Malformed> {
    let exe = file_ref(Kind::Exec, &r.exe, exe_path, Some(&r.exe_digest))?;
    let script = match r.script.flags & file_flag::PRESENT {
        0 => None,
        _ => Some(file_ref(Kind::Exec, &r.script, script_path, Some(&r.script_digest))?),
    };
    event(&r.header, Kind::Exec, &r.task, Body::Exec { exe, script })
}

fn library(r: &LibraryRecord, path: &[u8], _none: &[u8]) -> Result<Event, Malformed> {
    let file = file_ref(Kind::Library, &r.file, path, Some(&r.digest))?;
    event(
        &r.header,
        Kind::Library,
        &r.task,
        Body::Library { file, mprotect: r.mprotect != 0, address: r.address },
    )
}

fn file(r: &FileRecord, names: &[u8], target_names: &[u8]) -> Result<Event, Malformed> {
    let op = match r.op {
        file_op::OPEN_WRITE => FileOp::OpenWrite,
        file_op::CREATE => FileOp::Create,
        file_op::RENAME => FileOp::Rename,
        file_op::LINK => FileOp::Link,
        file_op::UNLINK => FileOp::Unlink,
        file_op::CHMOD => FileOp::Chmod,
        file_op::TRUNCATE => FileOp::Truncate,
        file_op::CLOSE_WRITE => FileOp::CloseWrite,
        file_op::MAP_WRITE => FileOp::MapWrite,
        file_op::BLOCK_WRITE => FileOp::BlockWrite,
        file_op::EXCHANGE => FileOp::Exchange,
        file_op::CAPABILITY => FileOp::Capability,
        op => return Err(Malformed::Code { kind: Kind::File, field: "operation", value: op.into() }),
    };
    let mut file = file_ref(Kind::File, &r.file, names, None)?;
    if op == FileOp::BlockWrite {
        file.identity.real = Inode { dev: r.arg, ..Inode::default() };
    }
    let target = match op {
        FileOp::Rename | FileOp::Exchange | FileOp::Link => {
            Some(path(Kind::File, r.target_len, r.target_flags, target_names)?)
        }
        _ => None,
    };
    if r.origin_len > 0 {
        let path = origin(r.file.path_len, r.origin_len, names)?;
        let target = origin(r.target_len, r.target_origin_len, target_names)?;
        file.origin = Some(Box::new(Origin { path, target }));
    }
    let mode = (op == FileOp::Chmod).then_some(r.arg);
    event(&r.header, Kind::File, &r.task, Body::File { op, file, target, mode })
}

/// Names that follow those of a path.
fn origin(start: u16, len: u16, buffer: &[u8]) -> Result<FilePath, Malformed> {
    if len == ORIGIN_CUT {
        return Ok(FilePath::default());
    }
    let malformed = |reason| Malformed::Path { kind: Kind::File, len, reason };
    let bytes =
        usize::from(start).checked_add(usize::from(len)).and_then(|end| buffer.get(start.into()..end));
    let mut out = SmallVec::new();
    names(bytes.ok_or(malformed("longer than what the record holds of it"))?, false, &mut out)
        .map_err(malformed)?;
    Ok(FilePath(out))
}

fn connect(r: &ConnectRecord) -> Result<Event, Malformed> {
    let unknown = |field, value| Malformed::Code { kind: Kind::Connect, field, value };
    let protocol = match r.protocol {
        protocol::TCP => Protocol::Tcp,
        protocol::UDP => Protocol::Udp,
        other => return Err(unknown("protocol", other.into())),
    };
    let ip = match (r.family, r.address) {
        (AF_INET, [a, b, c, d, ..]) => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        (AF_INET6, address) => IpAddr::V6(Ipv6Addr::from(address)),
        (other, _) => return Err(unknown("address family", other.into())),
    };
    let connect = Connect {
        protocol,
        destination: SocketAddr::new(ip, r.port),
        source_port: r.source_port,
        sendto: r.sendto != 0,
    };
    event(&r.header, Kind::Connect, &r.task, Body::Connect(connect))
}

fn event(header: &Header, kind: Kind, task: &muster_common::Task, body: Body) -> Result<Event, Malformed> {
    let flavour = match header.hook {
        hook::LSM => Flavour::Lsm,
        hook::FENTRY => Flavour::Fentry,
        hook::TRACEPOINT => Flavour::Tracepoint,
        hook => return Err(Malformed::Code { kind, field: "hook", value: hook.into() }),
    };
    let comm = task.comm.split(|b| *b == 0).next().unwrap_or_default();
    let task = Task {
        process: ProcessId { tgid: task.tgid, start_ns: task.start_ns },
        pid: task.pid,
        ppid: task.ppid,
        cgroup_id: task.cgroup_id,
        uid: task.uid,
        gid: task.gid,
        euid: task.euid,
        mnt_ns: task.mnt_ns,
        pid_ns: task.pid_ns,
        comm: SmallVec::from_slice(comm),
    };
    Ok(Event { time_ns: header.time_ns, flavour, task, body })
}

fn file_ref(
    kind: Kind,
    info: &FileInfo,
    buffer: &[u8],
    digest: Option<&Digest>,
) -> Result<FileRef, Malformed> {
    let flag = |bit: u16| info.path_flags & bit != 0;
    let has = |bit: u32| info.flags & bit != 0;
    let by_name = flag(path_flag::BY_NAME);
    let place = if has(file_flag::MEMFD) {
        Place::Memfd
    } else if has(file_flag::TMPFS) {
        Place::Tmpfs
    } else if has(file_flag::OVERLAY_UPPER) {
        Place::UpperLayer
    } else if has(file_flag::OVERLAY_LOWER) {
        Place::ImageLayer
    } else {
        Place::Disk
    };
    let served = FsType(info.fs_magic.into()) == FUSE_SUPER_MAGIC;
    let identity = FileIdentity {
        dev: info.dev,
        generation: info.generation,
        ino: info.ino,
        size: info.size,
        ctime_ns: info.ctime_ns,
        // Bit 0 says that somebody looked at the version (`I_VERSION_QUERIED`), not that the file changed.
        i_version: info.i_version >> 1,
        real: Inode { dev: info.real_dev, generation: info.real_generation, ino: info.real_ino },
    };
    Ok(FileRef {
        path: path(kind, info.path_len, info.path_flags, buffer)?,
        truncated: flag(path_flag::TRUNCATED),
        deleted: flag(path_flag::DELETED),
        by_name,
        unreachable: flag(path_flag::UNREACHABLE),
        origin: None,
        identity: if by_name { FileIdentity::default() } else { identity },
        mode: info.mode,
        nlink: info.nlink,
        uid: info.uid,
        place,
        has_writers: has(file_flag::WRITERS),
        altered: has(file_flag::ALTERED),
        changes_beneath: has(CHANGES_BENEATH),
        private: false,
        own_device: false,
        foreign: has(file_flag::BENEATH) && !served,
        in_memory: has(file_flag::IN_MEMORY),
        served,
        // The kernel was a reader of its own.
        digest: match digest {
            Some(digest) => kernel_digest(kind, digest)?.filter(|_| !served),
            None => None,
        },
        unhashed: digest.and_then(unhashed),
    })
}

fn unhashed(digest: &Digest) -> Option<Unhashed> {
    match digest.error {
        0 => None,
        digest_error::TOO_LARGE => Some(Unhashed::TooLarge),
        digest_error::REMOTE => Some(Unhashed::Remote),
        digest_error::OVER_BUDGET => Some(Unhashed::OverBudget),
        _ => Some(Unhashed::Failed),
    }
}

fn kernel_digest(kind: Kind, digest: &Digest) -> Result<Option<KernelDigest>, Malformed> {
    let sha256 = Sha256(digest.sha256);
    let cached = match digest.origin {
        digest_origin::NONE => return Ok(None),
        digest_origin::IMA => false,
        digest_origin::CACHE => true,
        value => return Err(Malformed::Code { kind, field: "digest origin", value: value.into() }),
    };
    Ok((!sha256.is_zero()).then_some(KernelDigest { sha256, cached }))
}

/// `bash\0bin\0usr\0` to `/usr/bin/bash`; with [`path_flag::BY_NAME`] `./run.sh\0src\0home\0` to `/home/src/./run.sh`.
fn path(kind: Kind, len: u16, flags: u16, buffer: &[u8]) -> Result<FilePath, Malformed> {
    let malformed = |reason| Malformed::Path { kind, len, reason };
    let bytes = buffer.get(..usize::from(len)).ok_or(malformed("longer than what the record holds of it"))?;
    let mut out = SmallVec::new();
    if flags & path_flag::BY_NAME == 0 {
        names(bytes, flags & path_flag::TRUNCATED != 0, &mut out).map_err(malformed)?;
        return Ok(FilePath(out));
    }
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    let (spelling, base) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    // Without its first names the directory is of no use: the spelling alone is still right from where the task is.
    if !base.is_empty() && flags & (path_flag::TRUNCATED | path_flag::UNREACHABLE) == 0 {
        names(base, false, &mut out).map_err(malformed)?;
        out.push(b'/');
    }
    out.extend_from_slice(spelling);
    Ok(FilePath(out))
}

/// Names from the leaf to the root, each ended by NUL, to a path. A truncated one lacks its first names and so its
/// leading slash. A slash inside a name (a memfd may have one) is spelled `\x2f`: it must not look like a directory.
fn names(bytes: &[u8], truncated: bool, out: &mut SmallVec<[u8; 88]>) -> Result<(), &'static str> {
    if bytes.is_empty() {
        return Ok(());
    }
    let names = bytes.strip_suffix(b"\0").ok_or("the last name does not end with NUL")?;
    out.reserve(bytes.len());
    let mut end = names.len();
    // The first byte of each name, root-most first: after every NUL, and of the whole.
    for start in memchr::memrchr_iter(0, names).map(|nul| nul + 1).chain([0]) {
        let name = &names[start..end];
        if name.is_empty() {
            return Err("empty name");
        }
        if !out.is_empty() || !truncated {
            out.push(b'/');
        }
        if memchr::memchr(b'/', name).is_none() {
            out.extend_from_slice(name);
        } else {
            for b in name {
                match b {
                    b'/' => out.extend_from_slice(b"\\x2f"),
                    b => out.push(*b),
                }
            }
        }
        end = start.saturating_sub(1);
    }
    Ok(())
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
