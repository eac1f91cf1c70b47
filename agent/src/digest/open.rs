//! Finding a file of an event and opening it, without being led elsewhere.
//!
//! A path is looked up in the process's root (`/proc/<pid>/root`) by `openat2` with `RESOLVE_IN_ROOT`, so that a
//! container's symbolic link never leads to a file of the host. Everything is opened with `O_PATH` first and for
//! reading only when it is a regular file: opening a device or a FIFO can have effects.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, major, minor};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, FUSE_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC, fstatfs};

use super::budget::Allowances;
use crate::event::Unread;
use crate::event::{FileIdentity, FileRef, Task};

/// Open files of a process, or its mappings, that are looked at.
const MAX_LINKS: usize = 65_536;
/// Highest bits of a number on overlayfs that may say in which layer it is (ovl_map_dev_ino()).
const XINO_BITS: u32 = 16;
/// How long a mount namespace without a living process is not looked for again.
const ABSENT_FOR: Duration = Duration::from_millis(200);
/// Mount namespaces remembered.
const MAX_NAMESPACES: usize = 4096;
/// `bcachefs`, `include/uapi/linux/magic.h`: it has a device number per subvolume, as btrfs.
const BCACHEFS_SUPER_MAGIC: FsType = FsType(0xca45_1a4e);

/// Opened with `O_PATH`, and its state.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) fd: OwnedFd,
    pub(super) stat: FileStat,
    /// The file system's magic number, where it could be asked for.
    pub(super) fs: Option<FsType>,
}

impl Found {
    pub(super) fn of(fd: OwnedFd) -> io::Result<Self> {
        let stat = fstat(&fd)?;
        let fs = fstatfs(fd.as_fd()).ok().map(|s| s.filesystem_type());
        Ok(Self { fd, stat, fs })
    }

    pub(super) fn is_regular(&self) -> bool {
        SFlag::from_bits_truncate(self.stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
    }

    /// The same file, for reading. What a program serves is not opened: it may answer each reader differently, or never.
    pub(super) fn read(&self) -> Result<File, Unread> {
        if !self.is_regular() {
            return Err(Unread::NotRegular);
        }
        if self.fs == Some(FUSE_SUPER_MAGIC) {
            return Err(Unread::Served);
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        open(path.as_str(), flags, Mode::empty()).map(File::from).map_err(|e| Unread::from(&e.into()))
    }

    /// `stat` gives another device than that of the file system.
    pub(super) fn has_own_device(&self) -> bool {
        [OVERLAYFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, BCACHEFS_SUPER_MAGIC].map(Some).contains(&self.fs)
    }

    /// How the file compares with what the event had.
    pub(super) fn compare(&self, expected: &FileIdentity) -> Sameness {
        // The kernel side sees the inode's own number and the superblock's device. On overlayfs `stat` gives the number and
        // the device of the layer's file (`ovl_map_dev_ino`); btrfs and bcachefs give a device per subvolume.
        let overlay = self.fs == Some(OVERLAYFS_SUPER_MAGIC);
        let own_device = self.has_own_device();
        let numbers = [expected.ino, expected.real.ino];
        let same_number = match overlay {
            // With layers on several file systems the highest bits may say which (`xino`). Of a file that was copied up the number is the
            // lower layer's, as is that of overlayfs's own inode.
            true => numbers.iter().any(|ino| (self.stat.st_ino ^ ino) << XINO_BITS == 0),
            false => self.stat.st_ino == expected.ino,
        };
        if !same_number {
            return Sameness::Other;
        }
        if !own_device && device(&self.stat) != expected.dev {
            return Sameness::Other;
        }
        if size(&self.stat) == expected.size && ctime_ns(&self.stat) == expected.ctime_ns {
            Sameness::Unchanged
        } else if size(&self.stat) == expected.size && mtime_ns(&self.stat) <= expected.ctime_ns {
            Sameness::Renamed
        } else {
            Sameness::Changed
        }
    }
}

/// What became of a file since its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sameness {
    /// The same file, untouched.
    Unchanged,
    /// The same file; its name, links or mode changed, its content not, if its mtime can be believed.
    Renamed,
    /// The same file, with another content perhaps.
    Changed,
    /// Another file.
    Other,
}

/// Device in the kernel's encoding.
pub(super) fn device(stat: &FileStat) -> u32 {
    let number = major(stat.st_dev) << 20 | minor(stat.st_dev);
    u32::try_from(number).unwrap_or(0)
}

pub(super) fn size(stat: &FileStat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

pub(super) fn ctime_ns(stat: &FileStat) -> u64 {
    nanoseconds(stat.st_ctime, stat.st_ctime_nsec)
}

pub(super) fn mtime_ns(stat: &FileStat) -> u64 {
    nanoseconds(stat.st_mtime, stat.st_mtime_nsec)
}

fn nanoseconds(seconds: i64, rest: i64) -> u64 {
    let all = seconds.checked_mul(1_000_000_000).and_then(|s| s.checked_add(rest));
    all.and_then(|ns| u64::try_from(ns).ok()).unwrap_or(0)
}

/// Opens what a link of `/proc` leads to.
pub(super) fn link(path: &Path) -> io::Result<Found> {
    Found::of(open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// The ways to a file, by `/proc`.
#[derive(Debug)]
pub(super) struct Ways {
    pub(super) proc: PathBuf,
    host_ns: Option<u32>,
    /// A process that lived in a mount namespace, or when none was found.
    peers: HashMap<u32, Result<u32, Instant>>,
    /// What the event's workload may still have read and looked for.
    pub(super) allowances: Allowances,
}

impl Ways {
    pub(super) fn new(proc: &Path) -> Self {
        let mut ways = Self {
            proc: proc.to_owned(),
            host_ns: None,
            peers: HashMap::new(),
            allowances: Allowances::new(),
        };
        ways.host_ns = ways.mount_namespace(1);
        ways
    }

    /// The program that a process runs.
    pub(super) fn exe(&self, pid: u32) -> io::Result<Found> {
        link(&self.proc.join(format!("{pid}/exe")))
    }

    /// A process's root directory.
    pub(super) fn root(&self, pid: u32) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_DIRECTORY;
        Ok(open(&self.proc.join(format!("{pid}/root")), flags, Mode::empty())?)
    }

    /// A path in a process's root. The last name is not followed if it is a symbolic link: the kernel's own resolution never
    /// ends at one.
    pub(super) fn in_root(&self, pid: u32, path: &[u8], follow: bool) -> io::Result<Found> {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        let root = self.root(pid)?;
        let how = OpenHow::new()
            .flags(if follow { flags } else { flags | OFlag::O_NOFOLLOW })
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        Found::of(openat2(root, Path::new(OsStr::from_bytes(path)), how)?)
    }

    /// A mapped file, by inode; works for deleted files and memfds.
    pub(super) fn mapped(&mut self, pid: u32, file: &FileRef) -> io::Result<Found> {
        let numbers = [file.identity.ino, file.identity.real.ino];
        let same = |m: &fs::Metadata| numbers.contains(&m.ino()) && m.len() == file.identity.size;
        self.among(&format!("{pid}/map_files"), same)
    }

    /// A file that the process has open, by inode.
    pub(super) fn opened(&mut self, pid: u32, file: &FileRef) -> io::Result<Found> {
        let same = |m: &fs::Metadata| m.is_file() && m.ino() == file.identity.ino;
        self.among(&format!("{pid}/fd"), same)
    }

    fn among(&mut self, directory: &str, same: impl Fn(&fs::Metadata) -> bool) -> io::Result<Found> {
        self.walk(|ways| ways.search(directory, same))?
    }

    fn search(&self, directory: &str, same: impl Fn(&fs::Metadata) -> bool) -> io::Result<Found> {
        let mut missing = io::ErrorKind::NotFound;
        for entry in fs::read_dir(self.proc.join(directory))?.take(MAX_LINKS) {
            let path = entry?.path();
            // Following the link asks for the state and opens nothing.
            match fs::metadata(&path) {
                Ok(metadata) if same(&metadata) => return link(&path),
                // It may have been the file: without CAP_CHECKPOINT_RESTORE no link of map_files can be followed.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => missing = error.kind(),
                _ => {}
            }
        }
        Err(missing.into())
    }

    /// Looks for something that may take long; an error when the workload has had its time.
    fn walk<T>(&mut self, look: impl FnOnce(&Self) -> T) -> io::Result<T> {
        let begun = Instant::now();
        if !self.allowances.may_walk(begun) {
            let why = "too much time went into looking for files of this workload";
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, why));
        }
        let found = look(self);
        self.allowances.walked(begun.elapsed(), Instant::now());
        Ok(found)
    }

    /// A living process of a mount namespace, to look at files when the one of the event is gone.
    pub(super) fn peer(&mut self, mnt_ns: u32) -> io::Result<Option<u32>> {
        if mnt_ns == 0 {
            return Ok(None);
        }
        if self.host_ns == Some(mnt_ns) {
            return Ok(Some(1));
        }
        match self.peers.get(&mnt_ns) {
            Some(Ok(pid)) if self.mount_namespace(*pid) == Some(mnt_ns) => return Ok(Some(*pid)),
            Some(Err(when)) if when.elapsed() < ABSENT_FOR => return Ok(None),
            _ => {}
        }
        let found = self.walk(|ways| {
            let pids = fs::read_dir(&ways.proc).into_iter().flatten();
            let mut pids = pids.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
            pids.find(|pid| ways.mount_namespace(*pid) == Some(mnt_ns))
        })?;
        if self.peers.len() >= MAX_NAMESPACES {
            self.peers.clear();
        }
        self.peers.insert(mnt_ns, found.ok_or_else(Instant::now));
        Ok(found)
    }

    /// The task has the host's mounts.
    pub(super) fn is_in_hosts_mounts(&self, task: &Task) -> bool {
        task.mnt_ns != 0 && self.host_ns == Some(task.mnt_ns)
    }

    fn mount_namespace(&self, pid: u32) -> Option<u32> {
        let link = fs::read_link(self.proc.join(format!("{pid}/ns/mnt"))).ok()?;
        link.to_str()?.strip_prefix("mnt:[")?.strip_suffix(']')?.parse().ok()
    }
}
