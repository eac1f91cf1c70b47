//! What is mounted where, by `/proc/<pid>/mountinfo`: the names that a place in a file system has in a process's root.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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
    /// Device, kernel encoding (`major << 20 | minor`).
    dev: u32,
    /// What of its file system is mounted.
    root: Vec<u8>,
    /// Where, in the process's root.
    at: Vec<u8>,
}

/// The mounts that a process sees.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Mount>);

impl Table {
    /// Reads the table of a process.
    ///
    /// # Errors
    /// It is gone, or may not be looked at.
    pub(crate) fn read(proc: &Path, process: u32) -> io::Result<Self> {
        let mut text = Vec::new();
        let file = File::open(proc.join(format!("{process}/mountinfo")))?;
        let read = file.take(MAX_TABLE).read_to_end(&mut text)?;
        if u64::try_from(read).is_ok_and(|read| read >= MAX_TABLE) {
            tracing::warn!(
                process,
                limit = MAX_TABLE,
                "the table of mounts is too long: changes through the last of them are judged by the name used alone"
            );
        }
        Ok(Self(text.split(|b| *b == b'\n').filter_map(mount).collect()))
    }

    /// Where a file is, by the number of the mount through which it is seen and its path in the process's root: its file system's device,
    /// and its path there. None if the mount is not here, or the path is not below it.
    pub(crate) fn place(&self, id: u32, path: &[u8]) -> Option<(u32, FilePath)> {
        let mount = self.0.iter().find(|mount| mount.id == id && !mount.root.ends_with(DELETED))?;
        Some((mount.dev, join(&mount.root, below(path, &mount.at)?)))
    }
}

/// Tables of mounts by process.
#[derive(Debug)]
pub struct Mounts {
    proc: PathBuf,
    tables: Recent<ProcessId, (Instant, Table)>,
}

impl Mounts {
    /// Knows nothing yet.
    pub fn new(proc: &Path) -> Self {
        Self { proc: proc.to_owned(), tables: Recent::new(TABLES) }
    }

    /// The names that a file has in the root of a process, by its device and its path in its file system. None if the process is
    /// gone, or does not see it.
    pub fn names(&mut self, process: ProcessId, dev: u32, path: &[u8]) -> Vec<FilePath> {
        let now = Instant::now();
        let is_good = self.tables.get(&process).is_some_and(|(read, table)| {
            let age = now.duration_since(*read);
            age < HOLDS_WITHOUT || age < HOLDS && table.0.iter().any(|mount| mount.dev == dev)
        });
        if !is_good {
            let table = Table::read(&self.proc, process.tgid).unwrap_or_default();
            self.tables.insert(process, (now, table));
        }
        let table = self.tables.get(&process).map(|(_, table)| table.0.as_slice()).unwrap_or_default();
        table.iter().filter(|mount| mount.dev == dev).filter_map(|mount| name(mount, path)).collect()
    }
}

/// A line of `mountinfo`, proc(5): `36 35 98:0 /mnt1 /mnt2 rw,noatime …`.
fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let (id, _) = (fields.next()?, fields.next()?);
    let (device, root, at) = (fields.next()?, fields.next()?, fields.next()?);
    let id = std::str::from_utf8(id).ok()?.parse().ok()?;
    let (major, minor) = std::str::from_utf8(device).ok()?.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    // Twelve bits and twenty, as MKDEV() of the kernel.
    let dev = major.checked_mul(1 << 20)?.checked_add(minor)?;
    Some(Mount { id, dev, root: unescaped(root), at: unescaped(at) })
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
        let mut mounts = Mounts::new(dir.path());
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
            let found = mounts.names(process, 8 << 20 | minor, path.as_bytes());
            let expected: Vec<_> = expected.iter().map(|name| FilePath::from(*name)).collect();
            assert_eq!(found, expected, "{path} of 8:{minor}");
        }
        let gone = ProcessId { tgid: 8, start_ns: 1 };
        assert_eq!(mounts.names(gone, 8 << 20 | 1, b"/usr"), []);
    }

    #[test]
    fn a_file_has_a_place_by_the_mount_through_which_it_is_seen() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("7")).expect("a directory");
        let more = "29 22 8:1 /gone//deleted /tmp/x rw - ext4 /dev/sda1 rw\n";
        fs::write(dir.path().join("7/mountinfo"), [TABLE, more].concat()).expect("a file");
        let table = Table::read(dir.path(), 7).expect("a table");
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
        assert!(Table::read(dir.path(), 8).is_err());
    }
}
