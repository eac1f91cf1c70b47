//! What file a name was, that a caller gave and the kernel side did not resolve (scripts of the tracepoint flavour).

use std::borrow::Cow;
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::time::SystemTime;

use nix::sys::statfs::{FUSE_SUPER_MAGIC, TMPFS_MAGIC};

use super::certain;
use super::open::{Found, Ways, ctime_ns, device, link, size};
use crate::event::{FileIdentity, FilePath, FileRef, Inode, Place, Task};

/// `file` with its absolute path as the workload sees it, identity, mode and place, all as they are now. `host`: the workload is the
/// host, and this process has its root directory.
pub(super) fn resolve(
    ways: &mut Ways,
    task: &Task,
    file: &FileRef,
    at: Option<SystemTime>,
    follow: bool,
    host: Option<u32>,
) -> io::Result<FileRef> {
    let pid = task.process.tgid;
    let name = file.path.as_bytes();
    if name.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the event has no name for the file"));
    }
    let (found, root) = match descriptor(name) {
        Some(number) => (link(&ways.proc.join(format!("{pid}/fd/{number}")))?, root(ways, pid)?),
        None => by_path(ways, task, name, at, follow)?,
    };
    // A process of the host may have another root directory than the host.
    let root = match host.filter(|_| ways.is_in_hosts_mounts(task)) {
        Some(host) => self::root(ways, host).unwrap_or(root),
        None => root,
    };
    let resolved = describe(&found, &root)?;
    // No trace is left of what a descriptor was before. That it is a memfd now speaks for nothing anyway.
    if at.is_some() && descriptor(name).is_some() && resolved.place != Place::Memfd {
        return Err(uncertain("the descriptor may have been another file's"));
    }
    Ok(FileRef {
        has_writers: file.has_writers,
        changes_beneath: file.changes_beneath,
        digest: file.digest,
        ..resolved
    })
}

/// The program of a process, as it is now.
pub(super) fn program(ways: &Ways, pid: u32) -> io::Result<FileRef> {
    describe(&ways.exe(pid)?, &root(ways, pid)?)
}

/// A file that a process has open.
pub(super) fn opened(ways: &Ways, pid: u32, fd: u32) -> io::Result<FileRef> {
    describe(&link(&ways.proc.join(format!("{pid}/fd/{fd}")))?, &root(ways, pid)?)
}

/// A mapped file, by the link of its mapping; where that may not be followed (CAP_CHECKPOINT_RESTORE), by its path.
pub(super) fn mapping(ways: &Ways, pid: u32, range: &str, path: &[u8]) -> io::Result<FileRef> {
    let root = root(ways, pid)?;
    let found = match link(&ways.proc.join(format!("{pid}/map_files/{range}"))) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let inside = below(path, &root).ok_or(io::ErrorKind::NotFound)?;
            ways.in_root(pid, inside, false)?
        }
        other => other?,
    };
    describe(&found, &root)
}

/// A file with its path as seen from `root`, its identity, mode and place.
fn describe(found: &Found, root: &[u8]) -> io::Result<FileRef> {
    let stat = &found.stat;
    let target = fs::read_link(format!("/proc/self/fd/{}", found.fd.as_raw_fd()))?;
    let mut path = target.as_os_str().as_bytes();
    let deleted = stat.st_nlink == 0;
    if deleted {
        path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    }
    let inside = below(path, root);
    let tmpfs = found.fs == Some(TMPFS_MAGIC);
    let place = match tmpfs {
        true if deleted && path.starts_with(b"/memfd:") => Place::Memfd,
        true => Place::Tmpfs,
        // Overlayfs does not tell user space which layer a file is of.
        false => Place::Disk,
    };
    Ok(FileRef {
        path: FilePath::from(inside.unwrap_or(path)),
        truncated: false,
        deleted,
        by_name: false,
        unreachable: inside.is_none(),
        origin: None,
        identity: FileIdentity {
            dev: device(stat),
            ino: stat.st_ino,
            size: size(stat),
            ctime_ns: ctime_ns(stat),
            generation: 0,
            i_version: 0,
            // Overlayfs shows the layer's number; the generation is not to be had.
            real: Inode { dev: device(stat), generation: 0, ino: stat.st_ino },
        },
        mode: stat.st_mode,
        nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
        uid: stat.st_uid,
        place,
        has_writers: false,
        altered: false,
        changes_beneath: false,
        foreign: false,
        private: false,
        own_device: found.has_own_device(),
        in_memory: tmpfs,
        served: found.fs == Some(FUSE_SUPER_MAGIC),
        digest: None,
        unhashed: None,
    })
}

/// `N` of `/dev/fd/N`, `/proc/self/fd/N`: what the kernel's `execveat` and shells' substitutions name.
fn descriptor(name: &[u8]) -> Option<u32> {
    let rest = name.strip_prefix(b"/dev/fd/").or_else(|| name.strip_prefix(b"/proc/self/fd/"))?;
    std::str::from_utf8(rest).ok().filter(|n| n.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}

/// What a path is, and the root below which it was looked up; at that time, if one is given.
fn by_path(
    ways: &mut Ways,
    task: &Task,
    name: &[u8],
    at: Option<SystemTime>,
    follow: bool,
) -> io::Result<(Found, Vec<u8>)> {
    let (pid, found, root) = looked_up(ways, task, name, follow)?;
    let Some(at) = at else { return Ok((found, root)) };
    if name.first() != Some(&b'/') {
        return Err(uncertain("the process may have changed its working directory"));
    }
    match certain::doubt(&ways.root(pid)?, name, &found.stat, at)? {
        Some(doubt) => Err(uncertain(doubt)),
        None => Ok((found, root)),
    }
}

fn uncertain(why: &str) -> io::Error {
    let text = format!("whether its name meant the same file when it was run is not certain: {why}");
    io::Error::other(text)
}

/// The file, the process by whose root it was found, and that root.
fn looked_up(ways: &mut Ways, task: &Task, name: &[u8], follow: bool) -> io::Result<(u32, Found, Vec<u8>)> {
    let pid = task.process.tgid;
    let own = root(ways, pid).and_then(|root| {
        let path = if name.starts_with(b"/") {
            Cow::Borrowed(name)
        } else {
            let cwd = fs::read_link(ways.proc.join(format!("{pid}/cwd")))?;
            let cwd = below(cwd.as_os_str().as_bytes(), &root).ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, "the process's working directory is outside its root")
            })?;
            Cow::Owned([cwd, b"/", name].concat())
        };
        Ok((pid, ways.in_root(pid, &path, follow)?, root))
    });
    match own {
        Err(error) if is_gone(&error) && name.starts_with(b"/") => {
            let other = ways.peer(task.mnt_ns)?.filter(|other| *other != pid).ok_or(error)?;
            Ok((other, ways.in_root(other, name, follow)?, root(ways, other)?))
        }
        Err(error) if is_gone(&error) && !ways.proc.join(pid.to_string()).exists() => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "the process is gone, and with it the directory that the relative name starts from",
        )),
        other => other,
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

fn root(ways: &Ways, pid: u32) -> io::Result<Vec<u8>> {
    let link = fs::read_link(ways.proc.join(format!("{pid}/root")))?;
    Ok(link.as_os_str().as_bytes().to_vec())
}

/// `path` as seen from `root`; `None` when it is not below it.
fn below<'a>(path: &'a [u8], root: &[u8]) -> Option<&'a [u8]> {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let rest = path.strip_prefix(root)?;
    match rest.first() {
        None => Some(b"/"),
        Some(b'/') => Some(rest),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, expected) in [
            ("/dev/fd/63", Some(63)),
            ("/proc/self/fd/3", Some(3)),
            ("/dev/fd/", None),
            ("/dev/fd/3/x", None),
            ("/dev/fd/+3", None),
            ("/dev/fd/99999999999", None),
            ("dev/fd/3", None),
        ] {
            assert_eq!(descriptor(name.as_bytes()), expected, "{name}");
        }
    }

    #[test]
    fn roots() {
        for (path, root, expected) in [
            ("/a/b", "/", Some("/a/b")),
            ("/c/a/b", "/c", Some("/a/b")),
            ("/c", "/c", Some("/")),
            ("/cc/a", "/c", None),
            ("/x", "/c", None),
        ] {
            assert_eq!(
                below(path.as_bytes(), root.as_bytes()),
                expected.map(str::as_bytes),
                "{path} from {root}"
            );
        }
        assert!(!is_gone(&io::Error::from(io::ErrorKind::PermissionDenied)));
    }
}
