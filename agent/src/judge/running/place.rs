//! Where files are in their file systems that are open for write in another root directory than the host's.
//!
//! The path of such a file says nothing of the host's file of that name. So it gets its place, as the kernel programs give it with a
//! change, and the judge finds its names by that.

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::event::{FileRef, Origin};
use crate::host_root::HostRoot;
use crate::mounts::Table;
use crate::proc::Proc;

/// The table of mounts that was read last, and of which process it is.
#[derive(Debug, Default)]
pub(super) struct LastTable(Option<(u32, Table)>);

impl LastTable {
    /// Mounts come and go, and their numbers are given away again.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }

    fn of(&mut self, proc: &Proc, process: u32) -> io::Result<&Table> {
        if self.0.as_ref().is_none_or(|(of, _)| *of != process) {
            self.0 = Some((process, Table::of_process(proc.root(), process)?));
        }
        self.0.as_ref().map(|(_, table)| table).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A file to which a link below the `/proc` of a process leads: with its place, if that process has not the host's root directory and
/// mounts. Without one it is unreachable then.
///
/// # Errors
/// The process is gone.
pub(super) fn placed(
    file: FileRef,
    link: &str,
    process: u32,
    host: Option<&HostRoot>,
    proc: &Proc,
    last: &mut LastTable,
) -> io::Result<FileRef> {
    let root = fs::read_link(proc.root().join(format!("{process}/root")))?;
    let root = root.as_os_str().as_bytes();
    let mounts = proc.namespace(process, "mnt")?;
    let host = host.filter(|host| host.mounts() == mounts);
    if host.is_some() && root == b"/" {
        return Ok(file);
    }
    let own = file.path.as_bytes();
    // The mount of a root directory that is not the root of a mount is not in the process's own table (show_mountinfo()).
    let (of, path) = match host {
        Some(host) if file.unreachable => (host.process(), Cow::Borrowed(own)),
        Some(host) => (host.process(), Cow::Owned([root, own].concat())),
        None => (process, Cow::Borrowed(own)),
    };
    let is_below = host.is_some() || !file.unreachable;
    let place = match mount_of(proc, link, file.identity.ino).ok().filter(|_| is_below) {
        Some(mount) => last.of(proc, of).ok().and_then(|table| table.place(mount, &path)),
        None => None,
    };
    let Some((dev, path)) = place else {
        return Ok(FileRef { unreachable: true, ..file });
    };
    let mut file = FileRef { origin: Some(Box::new(Origin { path, ..Origin::default() })), ..file };
    // On overlayfs, and where subvolumes have devices of their own, `stat` gives another one, which no table of mounts has.
    (file.identity.dev, file.own_device) = (dev, false);
    Ok(file)
}

/// The number of the mount through which a link below `/proc` leads to a file with this number (proc_pid_fdinfo(5)).
fn mount_of(proc: &Proc, link: &str, ino: u64) -> io::Result<u32> {
    // A mapping has no `fdinfo`, but what its link leads to has, once it is opened.
    let file = open(&proc.root().join(link), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
    let own = file.as_raw_fd();
    if fs::metadata(format!("/proc/self/fd/{own}"))?.ino() != ino {
        return Err(io::ErrorKind::NotFound.into());
    }
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{own}"))?;
    let mount = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    mount.and_then(|mount| mount.trim().parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const DEVICE: u32 = 8 << 20 | 1;

    /// What becomes of a file of process 7, which has this root directory and mount namespace; the host's is 5. `mount`: of whose table
    /// and what is mounted where.
    fn placed_in(
        (root, mounts): (&str, u32),
        mount: (u32, &str, &str),
        (path, unreachable): (&str, bool),
    ) -> (Option<String>, bool, u32) {
        let dir = tempfile::tempdir().expect("a directory");
        let proc = Proc::new(dir.path());
        for (process, root, mounts) in [(1, "/", 5), (7, root, mounts)] {
            let own = dir.path().join(process.to_string());
            fs::create_dir_all(own.join("ns")).expect("a directory");
            fs::create_dir(own.join("fd")).expect("a directory");
            symlink(root, own.join("root")).expect("a link");
            symlink(format!("mnt:[{mounts}]"), own.join("ns/mnt")).expect("a link");
            fs::write(own.join("mountinfo"), "").expect("a file");
        }
        let (open, link) = (dir.path().join("open"), "7/fd/3");
        fs::write(&open, "").expect("a file");
        symlink(&open, dir.path().join(link)).expect("a link");
        let mut file = FileRef { path: path.into(), unreachable, ..FileRef::default() };
        file.identity.ino = fs::metadata(&open).expect("there").ino();
        let (of, part, at) = mount;
        let id = mount_of(&proc, link, file.identity.ino).expect("it is mounted");
        let table = format!("{id} 1 8:1 {part} {at} rw - ext4 /dev/sda1 rw\n");
        fs::write(dir.path().join(format!("{of}/mountinfo")), table).expect("a file");
        let host = HostRoot::find(&proc).expect("process 1 can be looked at");
        let placed = placed(file, link, 7, Some(&host), &proc, &mut LastTable::default()).expect("it lives");
        let origin = placed.origin.map(|origin| origin.path.to_string());
        (origin, placed.unreachable, placed.identity.dev)
    }

    #[test]
    fn a_file_of_another_root_directory_has_a_place() {
        let at = |place: &str| (Some(place.to_owned()), false, DEVICE);
        for (what, process, mount, file, expected) in [
            ("the host's", ("/", 5), (1, "/", "/"), ("/etc/x", false), (None, false, 0)),
            ("a directory of the host's", ("/jail", 5), (1, "/", "/"), ("/etc/x", false), at("/jail/etc/x")),
            ("a mount there", ("/jail", 5), (1, "/a", "/jail/etc"), ("/etc/x", false), at("/a/x")),
            ("mounts of its own", ("/", 6), (7, "/a", "/etc"), ("/etc/x", false), at("/a/x")),
            ("not below its mount", ("/", 6), (7, "/a", "/mnt"), ("/etc/x", false), (None, true, 0)),
            ("a mount of somebody else", ("/", 6), (1, "/a", "/etc"), ("/etc/x", false), (None, true, 0)),
            ("outside its root directory", ("/jail", 6), (7, "/", "/"), ("/etc/x", true), (None, true, 0)),
        ] {
            assert_eq!(placed_in(process, mount, file), expected, "{what}");
        }
        // Its path is that of the host then.
        let outside = placed_in(("/jail", 5), (1, "/", "/"), ("/etc/x", true));
        assert_eq!(outside, (Some("/etc/x".to_owned()), true, DEVICE));
    }

    #[test]
    fn a_link_that_leads_to_another_file_by_now_says_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let proc = Proc::new(dir.path());
        fs::write(dir.path().join("open"), "").expect("a file");
        let ino = fs::metadata(dir.path().join("open")).expect("there").ino();
        let found = |link, ino| mount_of(&proc, link, ino).map_err(|error| error.kind());
        found("open", ino).expect("it is mounted");
        assert_eq!(found("open", ino + 1), Err(io::ErrorKind::NotFound));
        assert_eq!(found("gone", ino), Err(io::ErrorKind::NotFound));
    }
}
