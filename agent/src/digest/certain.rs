//! Whether a name means now what it meant when the event was made.
//!
//! The name is walked again, one component after the other, as the kernel does. What replaces a component by another one (a link
//! made anew, a rename) sets the ctime of what is there now, which no user can set back. So a walk of which everything is older than
//! the event is the event's own, as far as nothing was mounted or unmounted on the way.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::SystemTime;

use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag};

use super::SETTLED;
use super::open::{Found, ctime_ns, mtime_ns};

/// Symbolic links on one way, as in the kernel (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// Components on one way; more than fit into the longest path.
const MAX_STEPS: usize = 4096;

/// What was met on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A directory.
    Directory { ctime_ns: u64, mtime_ns: u64 },
    /// A symbolic link.
    Link { ctime_ns: u64, of_system: bool },
    /// What is at the end.
    End { ctime_ns: u64 },
}

/// Why it is not certain that the absolute `name`, below `root`, meant `found` at that time. `None`: it is.
pub(super) fn doubt(
    root: &OwnedFd,
    name: &[u8],
    found: &FileStat,
    at: SystemTime,
) -> io::Result<Option<&'static str>> {
    let (steps, end) = walk(root, name)?;
    if (end.st_dev, end.st_ino) != (found.st_dev, found.st_ino) {
        return Ok(Some("it was changed while it was looked at"));
    }
    Ok(judge(&steps, since_1970(at), since_1970(SystemTime::now())))
}

fn since_1970(at: SystemTime) -> u64 {
    let passed = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX)
}

/// Without links the name is the file's own path: another file there was renamed or linked to it since, and its ctime says so.
/// That it changed just before is no sign of that: dpkg sets the mode of its scripts right before it runs them.
/// A link lets any user name any file, so there the ticks of the kernel's clock count as well, and directories on the way in which
/// anything changed.
///
/// What changes between the event and now has a time between the two. A time in the future is that of an earlier clock (a machine that
/// began with a wrong one): it says that nothing changed since the clock was set.
fn judge(steps: &[Step], at_ns: u64, now_ns: u64) -> Option<&'static str> {
    let settled = u64::try_from(SETTLED.as_nanos()).unwrap_or(u64::MAX);
    let safe_ns = at_ns.saturating_sub(settled);
    let last_ns = now_ns.saturating_add(settled);
    // Those of a merged `/usr` are as good as directories.
    let linked = steps.iter().any(|step| match step {
        Step::Link { ctime_ns, of_system } => !of_system || (safe_ns..=last_ns).contains(ctime_ns),
        _ => false,
    });
    let limit_ns = if linked { safe_ns } else { at_ns };
    let is_late = |ctime_ns: u64| (limit_ns..=last_ns).contains(&ctime_ns);
    steps.iter().find_map(|step| match *step {
        Step::Link { ctime_ns, .. } if is_late(ctime_ns) => {
            Some("a symbolic link on the way was changed since, or just before")
        }
        // What changes in a directory sets both times, a rename of it only one.
        Step::Directory { ctime_ns, mtime_ns } if is_late(ctime_ns) && (linked || mtime_ns != ctime_ns) => {
            Some("a directory on the way was changed since, or just before")
        }
        Step::End { ctime_ns } if is_late(ctime_ns) => {
            Some("what is there now was changed, or put there, since or just before")
        }
        _ => None,
    })
}

fn walk(root: &OwnedFd, name: &[u8]) -> io::Result<(Vec<Step>, FileStat)> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut left: VecDeque<Vec<u8>> = components(name).collect();
    // Below the root, the innermost last.
    let mut directories: Vec<OwnedFd> = Vec::new();
    let mut steps = Vec::new();
    let mut links = 0;
    while let Some(component) = left.pop_front() {
        if component == b".." {
            directories.pop();
            continue;
        }
        if steps.len() >= MAX_STEPS {
            return Err(too_long());
        }
        let directory = directories.last().unwrap_or(root);
        let next = Found::of(openat(directory, OsStr::from_bytes(&component), flags, Mode::empty())?)?;
        let ctime_ns = ctime_ns(&next.stat);
        match SFlag::from_bits_truncate(next.stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFLNK => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(too_long());
                }
                let target = readlinkat(next.fd.as_fd(), "")?;
                let of_system = directories.is_empty() && next.stat.st_uid == 0;
                steps.push(Step::Link { ctime_ns, of_system });
                if target.as_bytes().first() == Some(&b'/') {
                    directories.clear();
                }
                for component in components(target.as_bytes()).rev() {
                    left.push_front(component);
                }
            }
            SFlag::S_IFDIR => {
                steps.push(Step::Directory { ctime_ns, mtime_ns: mtime_ns(&next.stat) });
                directories.push(next.fd);
            }
            _ if left.is_empty() => {
                steps.push(Step::End { ctime_ns });
                return Ok((steps, next.stat));
            }
            _ => return Err(io::ErrorKind::NotADirectory.into()),
        }
    }
    Err(io::ErrorKind::IsADirectory.into())
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    let parts = path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".");
    parts.map(<[u8]>::to_vec)
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "too many symbolic links or components on the way")
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: u64 = 1_000_000_000_000;
    const OLD: u64 = AT - 10_000_000_000;
    const JUST_BEFORE: u64 = AT - 1_000_000;
    const NOW: u64 = AT + 30_000_000;
    /// By a clock that was an hour ahead.
    const AHEAD: u64 = AT + 3_600_000_000_000;

    fn directory(ctime_ns: u64) -> Step {
        Step::Directory { ctime_ns, mtime_ns: ctime_ns }
    }

    #[test]
    fn what_was_changed_since_is_no_proof() {
        let renamed = |ctime_ns| Step::Directory { ctime_ns, mtime_ns: OLD };
        let link = |ctime_ns| Step::Link { ctime_ns, of_system: false };
        let usr = |ctime_ns| Step::Link { ctime_ns, of_system: true };
        let end = |ctime_ns| Step::End { ctime_ns };
        for (what, steps, expected) in [
            ("all old", vec![directory(OLD), end(OLD)], None),
            ("written, and run at once", vec![directory(JUST_BEFORE), end(JUST_BEFORE)], None),
            ("the script made a file beside it", vec![directory(AT), end(OLD)], None),
            ("renamed to it", vec![directory(AT), end(AT)], Some("what is there")),
            ("its directory was renamed", vec![renamed(AT + 1), end(OLD)], Some("a directory")),
            ("an old link", vec![directory(OLD), link(OLD), directory(OLD), end(OLD)], None),
            ("a new link", vec![directory(OLD), link(AT), end(OLD)], Some("a symbolic link")),
            ("in the same tick", vec![directory(OLD), link(JUST_BEFORE), end(OLD)], Some("a symbolic link")),
            ("behind a link", vec![link(OLD), directory(JUST_BEFORE), end(OLD)], Some("a directory")),
            ("at a link's end", vec![link(OLD), end(JUST_BEFORE)], Some("what is there")),
            ("merged /usr", vec![usr(OLD), directory(AT), end(JUST_BEFORE)], None),
            (
                "a clock behind the files",
                vec![directory(AHEAD), link(AHEAD), directory(AHEAD), end(AHEAD)],
                None,
            ),
            (
                "behind old files, a new link",
                vec![directory(AHEAD), link(AT + 1), end(AHEAD)],
                Some("a symbolic link"),
            ),
            ("behind old files, another one", vec![directory(AHEAD), end(NOW)], Some("what is there")),
            ("merged just now", vec![usr(JUST_BEFORE), directory(OLD), end(OLD)], Some("a symbolic link")),
        ] {
            let found = judge(&steps, AT, NOW);
            assert_eq!(found.is_some(), expected.is_some(), "{what}: {found:?}");
            assert!(found.unwrap_or_default().starts_with(expected.unwrap_or_default()), "{what}: {found:?}");
        }
    }
}
