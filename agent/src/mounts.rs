//! What is mounted where, by `/proc/<pid>/mountinfo`: the names that a place in a file system has in a process's root.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::event::{FilePath, ProcessId};
use crate::recent::Recent;

/// Bytes of one table that are read; a node with a thousand containers has some hundred KiB.
const MAX_TABLE: u64 = 8 << 20;
/// Tables that are kept.
const TABLES: usize = 256;
/// How long a table is used.
const HOLDS: Duration = Duration::from_secs(5);
/// How long a table is used in which a device is missing.
const HOLDS_WITHOUT: Duration = Duration::from_secs(1);

/// How the root of a mount ends that is unlinked (`seq_dentry()` of the kernel).
const DELETED: &[u8] = b"//deleted";

/// One mount.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// Its number.
    id: u32,
    /// What of its file system is mounted.
    root: Vec<u8>,
    /// Where, in the process's root.
    at: Vec<u8>,
}

/// What a process sees mounted.
#[derive(Debug, Default)]
pub struct Table {
    /// By device, kernel encoding (`major << 20 | minor`).
    mounts: BTreeMap<u32, Vec<Mount>>,
    /// There may be more.
    is_cut: bool,
}

impl Table {
    /// The names of a file, by its device and its path in its file system.
    pub fn names(&self, dev: u32, path: &[u8]) -> impl Iterator<Item = FilePath> {
        self.of(dev).filter_map(move |mount| name(mount, path))
    }

    /// The file has this name.
    pub fn has_name(&self, dev: u32, path: &[u8], name: &[u8]) -> bool {
        self.of(dev).any(|mount| {
            let at = mount.at.strip_suffix(b"/").unwrap_or(&mount.at);
            below(path, &mount.root).is_some_and(|below| match below {
                b"" if at.is_empty() => name == b"/",
                _ => name.strip_prefix(at) == Some(below),
            })
        })
    }

    /// Where a file is, by the number of the mount through which it is seen and its path in the process's root: its file system's device,
    /// and its path there. None if the mount is not here, or the path is not below it.
    pub(crate) fn place(&self, id: u32, path: &[u8]) -> Option<(u32, FilePath)> {
        let mut all = self.mounts.iter().flat_map(|(dev, mounts)| mounts.iter().map(|mount| (*dev, mount)));
        let (dev, mount) = all.find(|(_, mount)| mount.id == id && !mount.root.ends_with(DELETED))?;
        Some((dev, join(&mount.root, below(path, &mount.at)?)))
    }

    /// Something of the device is mounted.
    pub fn has_device(&self, dev: u32) -> bool {
        self.mounts.contains_key(&dev)
    }

    /// All mounts are in it.
    pub fn is_whole(&self) -> bool {
        !self.is_cut && !self.mounts.is_empty()
    }

    fn of(&self, dev: u32) -> impl Iterator<Item = &Mount> {
        self.mounts.get(&dev).into_iter().flatten()
    }

    /// Reads the table of a process.
    ///
    /// # Errors
    /// It is gone, or may not be looked at.
    pub(crate) fn of_process(proc: &Path, process: u32) -> io::Result<Self> {
        Self::read(process, &mut open(proc, process)?)
    }

    fn read(process: u32, file: &mut File) -> io::Result<Self> {
        let mut text = Vec::new();
        let read = file.take(MAX_TABLE).read_to_end(&mut text)?;
        let is_cut = u64::try_from(read).is_ok_and(|read| read >= MAX_TABLE);
        if is_cut {
            tracing::warn!(
                process,
                limit = MAX_TABLE,
                "the table of mounts is too long: changes through the last of them are judged by the name used alone"
            );
        }
        let mut table = Self { mounts: BTreeMap::new(), is_cut };
        for (dev, mount) in text.split(|b| *b == b'\n').filter_map(mount) {
            table.mounts.entry(dev).or_default().push(mount);
        }
        Ok(table)
    }
}

/// A table of what is mounted now. Only renamed directories of mounts show as late as in any other. It keeps the mount namespace alive, so
/// only the host's is one.
#[derive(Debug)]
struct Watched {
    process: u32,
    /// Opened `mountinfo`; `None`: it is opened at the next look.
    file: Option<File>,
    table: Table,
    read: Instant,
    /// It could not be read, and that was said.
    is_lost: bool,
}

impl Watched {
    fn look(&mut self, proc: &Path) -> &Table {
        let is_old = match &self.file {
            // mounts_poll() (`fs/proc_namespace.c`): an exceptional condition when something was mounted or unmounted since the last
            // poll, or since the file was opened.
            Some(_) if self.read.elapsed() >= HOLDS => true,
            Some(file) => {
                let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
                let changed = PollFlags::POLLPRI | PollFlags::POLLERR;
                poll(&mut fds, PollTimeout::ZERO).is_err()
                    || fds[0].revents().is_none_or(|now| now.intersects(changed))
            }
            None => true,
        };
        if is_old {
            self.read = Instant::now();
            let read = self.read(proc);
            if let Err(error) = &read
                && !self.is_lost
            {
                tracing::warn!(%error, "the host's mounts cannot be read: what is changed is judged by the name used alone");
            }
            self.is_lost = read.is_err();
            self.table = read.unwrap_or_else(|_| {
                self.file = None;
                Table::default()
            });
        }
        &self.table
    }

    fn read(&mut self, proc: &Path) -> io::Result<Table> {
        let file = match &mut self.file {
            Some(file) => {
                file.rewind()?;
                file
            }
            None => self.file.insert(open(proc, self.process)?),
        };
        Table::read(self.process, file)
    }
}

/// Tables of mounts by process.
#[derive(Debug)]
pub struct Mounts {
    proc: PathBuf,
    host: Option<Watched>,
    tables: Recent<ProcessId, (Instant, Table)>,
}

impl Mounts {
    /// Knows nothing yet. `host`: a process with the host's mounts, which lives as long as the host.
    pub fn new(proc: &Path, host: Option<u32>) -> Self {
        let host = host.map(|process| Watched {
            process,
            file: None,
            table: Table::default(),
            read: Instant::now(),
            is_lost: false,
        });
        Self { proc: proc.to_owned(), host, tables: Recent::new(TABLES) }
    }

    /// What a process sees mounted, of the file systems of a device above all. Empty if the process is gone.
    pub fn look(&mut self, process: ProcessId, dev: u32) -> &Table {
        if let Some(host) = self.host.as_mut().filter(|host| host.process == process.tgid) {
            return host.look(&self.proc);
        }
        let now = Instant::now();
        let is_good = self.tables.get(&process).is_some_and(|(read, table)| {
            let age = now.duration_since(*read);
            age < HOLDS_WITHOUT || age < HOLDS && table.mounts.contains_key(&dev)
        });
        if !is_good {
            let table = Table::of_process(&self.proc, process.tgid).unwrap_or_default();
            self.tables.insert(process, (now, table));
        }
        const NOTHING: &Table = &Table { mounts: BTreeMap::new(), is_cut: true };
        self.tables.get(&process).map_or(NOTHING, |(_, table)| table)
    }
}

fn open(proc: &Path, process: u32) -> io::Result<File> {
    File::open(proc.join(format!("{process}/mountinfo")))
}

/// A line of `mountinfo`, proc(5): `36 35 98:0 /mnt1 /mnt2 rw,noatime …`.
fn mount(line: &[u8]) -> Option<(u32, Mount)> {
    let mut fields = line.split(|b| *b == b' ');
    let (id, _) = (fields.next()?, fields.next()?);
    let (device, root, at) = (fields.next()?, fields.next()?, fields.next()?);
    let id = std::str::from_utf8(id).ok()?.parse().ok()?;
    let (major, minor) = std::str::from_utf8(device).ok()?.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    // Twelve bits and twenty, as MKDEV() of the kernel.
    let dev = major.checked_mul(1 << 20)?.checked_add(minor)?;
    Some((dev, Mount { id, root: unescaped(root), at: unescaped(at) }))
}

/// mangle() writes spaces, tabs, line feeds and backslashes as `\ooo`.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|d| byte == b'\\' && d.iter().all(|c| (b'0'..=b'7').contains(c)));
        match digits.map(|d| d.iter().fold(0_u32, |n, c| n * 8 + u32::from(c - b'0'))) {
            Some(value) => {
                out.push(u8::try_from(value).unwrap_or(b'?'));
                rest = &after[3..];
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

fn name(mount: &Mount, path: &[u8]) -> Option<FilePath> {
    Some(join(&mount.at, below(path, &mount.root)?))
}

/// What [`below`] has found, below another directory.
fn join(directory: &[u8], below: &[u8]) -> FilePath {
    let path = [directory.strip_suffix(b"/").unwrap_or(directory), below].concat();
    FilePath::from(if path.is_empty() { b"/" } else { path.as_slice() })
}

/// What of `path` is below `root`, with its leading slash.
fn below<'a>(path: &'a [u8], root: &[u8]) -> Option<&'a [u8]> {
    let rest = path.strip_prefix(root.strip_suffix(b"/").unwrap_or(root))?;
    (rest.is_empty() || rest.starts_with(b"/")).then_some(rest)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TABLE: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 8:1 /usr/lib/python3 /mnt/a\\040b rw - ext4 /dev/sda1 rw
24 22 8:2 /@/home /home rw - btrfs /dev/sda2 rw
25 22 0:21 / /proc rw - proc proc rw
26 22 8:3 /one /boot/grub rw - ext4 /dev/sda3 rw
nonsense
27 22 x:1 / /x rw
28 22 4294967295:1 / /y rw
";

    #[test]
    fn a_place_has_a_name_for_each_mount_that_shows_it() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("7")).expect("a directory");
        fs::write(dir.path().join("7/mountinfo"), TABLE).expect("a file");
        let mut mounts = Mounts::new(dir.path(), None);
        let process = ProcessId { tgid: 7, start_ns: 1 };
        for (minor, path, expected) in [
            (1, "/usr/lib/python3/os.py", &["/usr/lib/python3/os.py", "/mnt/a b/os.py"][..]),
            (1, "/usr/lib/python3", &["/usr/lib/python3", "/mnt/a b"]),
            (1, "/usr/lib/python30/os.py", &["/usr/lib/python30/os.py"]),
            (1, "/", &["/"]),
            (2, "/@/home/x", &["/home/x"]),
            (2, "/@/srv/x", &[]),
            (3, "/one/grub.cfg", &["/boot/grub/grub.cfg"]),
            (9, "/x", &[]),
        ] {
            let table = mounts.look(process, 8 << 20 | minor);
            let found: Vec<_> = table.names(8 << 20 | minor, path.as_bytes()).collect();
            let names: Vec<_> = expected.iter().map(|name| FilePath::from(*name)).collect();
            assert_eq!(found, names, "{path} of 8:{minor}");
            for name in [
                "/usr/lib/python3/os.py",
                "/mnt/a b/os.py",
                "/mnt/a b",
                "/",
                "/home/x",
                "/boot/grub/grub.cfg",
            ] {
                let has = table.has_name(8 << 20 | minor, path.as_bytes(), name.as_bytes());
                assert_eq!(has, expected.contains(&name), "{name} for {path} of 8:{minor}");
            }
            assert!(table.is_whole());
        }
        let gone = ProcessId { tgid: 8, start_ns: 1 };
        let table = mounts.look(gone, 8 << 20 | 1);
        assert!(table.names(8 << 20 | 1, b"/usr").next().is_none() && !table.is_whole());
    }

    #[test]
    fn the_hosts_table_is_kept_until_something_is_mounted() {
        let me = std::process::id();
        let mut mounts = Mounts::new(Path::new("/proc"), Some(me));
        let process = ProcessId { tgid: me, start_ns: 0 };
        assert!(mounts.look(process, 0).is_whole());
        // Nothing was mounted.
        let watched = mounts.host.as_mut().expect("it is watched");
        watched.table.mounts.clear();
        assert!(!mounts.look(process, 0).is_whole());
        // A file that is gone is opened anew.
        mounts.host.as_mut().expect("it is watched").file = None;
        assert!(mounts.look(process, 0).is_whole());
    }

    #[test]
    fn a_file_has_a_place_by_the_mount_through_which_it_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("7")).expect("a directory");
        let more = "29 22 8:1 /gone//deleted /tmp/x rw - ext4 /dev/sda1 rw\n";
        fs::write(dir.path().join("7/mountinfo"), [TABLE, more].concat()).expect("a file");
        let table = Table::of_process(dir.path(), 7).expect("a table");
        for (what, id, path, expected) in [
            ("the root", 22, "/usr/bin/x", Some((1, "/usr/bin/x"))),
            ("part of a file system", 23, "/mnt/a b/os.py", Some((1, "/usr/lib/python3/os.py"))),
            ("a mount of one file", 23, "/mnt/a b", Some((1, "/usr/lib/python3"))),
            ("a subvolume", 24, "/home/x", Some((2, "/@/home/x"))),
            ("not below it", 24, "/homes/x", None),
            ("a mount that is not seen", 99, "/usr/bin/x", None),
            ("a directory that is gone", 29, "/tmp/x/y", None),
        ] {
            let expected = expected.map(|(minor, place)| (8 << 20 | minor, FilePath::from(place)));
            assert_eq!(table.place(id, path.as_bytes()), expected, "{what}");
        }
        let gone = Table::of_process(dir.path(), 8).expect_err("there is no such process");
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }
}
