//! The host's root directory: that of process 1, seen through whichever process lets itself be looked at.
//!
//! `/proc/1/root` cannot be read everywhere: a security module or a container of the agent's own may refuse it. Any other process does
//! if it has the same root: the agent's own, or the first kernel thread. That it has is proven by the mount table, which everybody may
//! read: the mount at `/` has the same number, and the kernel gives each mount of each namespace a number of its own
//! (`mnt_alloc_id()` in `fs/namespace.c`).

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::proc::Proc;

/// The first process, and the first kernel thread (`kthreadd`).
const FIRST: u32 = 1;
const KERNEL_THREAD: u32 = 2;

/// What does not work where the host's root is not known.
pub(crate) const CONSEQUENCE: &str = "what the host's package manager writes is reported as `unauthorized` or `modified` and never as \
                                      `updated`, the host's os-release and package database are not read, what a container's \
                                      runtime runs inside the container's cgroup is judged by the container's SBOM, and what a process \
                                      with a root directory or mounts of its own changes is judged by the name that it uses";

/// Where the host's root directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostRoot {
    proc: PathBuf,
    through: u32,
    mounts: u32,
    /// Device and inode.
    root: (u64, u64),
}

impl HostRoot {
    /// Looks at process 1, then at those that may have the same root.
    ///
    /// # Errors
    /// Why process 1 cannot be looked at, when no other does instead.
    pub(crate) fn find(proc: &Proc) -> io::Result<Self> {
        let first = Self::through(proc, FIRST);
        if first.is_ok() {
            return first;
        }
        let mount = mount_at_root(proc, FIRST);
        let others = [std::process::id(), KERNEL_THREAD];
        let mut same = others.into_iter().filter(|pid| mount.is_some() && mount_at_root(proc, *pid) == mount);
        same.find_map(|pid| Self::through(proc, pid).ok()).ok_or(()).or(first)
    }

    fn through(proc: &Proc, pid: u32) -> io::Result<Self> {
        let mounts = proc.namespace(pid, "mnt")?;
        Ok(Self { proc: proc.root().to_owned(), through: pid, mounts, root: root(proc, pid)? })
    }

    /// The process through which it is seen.
    pub(crate) fn process(&self) -> u32 {
        self.through
    }

    /// The directory, as a path of the agent's.
    pub(crate) fn directory(&self) -> PathBuf {
        self.proc.join(self.through.to_string()).join("root")
    }

    /// The inode of the host's mount namespace.
    pub(crate) fn mounts(&self) -> u32 {
        self.mounts
    }

    /// A process has the host's mounts and root directory; `false` when that cannot be said.
    pub(crate) fn is_of(&self, proc: &Proc, pid: u32) -> bool {
        root(proc, pid).is_ok_and(|root| root == self.root)
            && proc.namespace(pid, "mnt").is_ok_and(|mounts| mounts == self.mounts)
    }
}

/// For people: where it is seen.
impl fmt::Display for HostRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.directory().display())
    }
}

fn root(proc: &Proc, pid: u32) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(proc.root().join(pid.to_string()).join("root"))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The number of the mount at `/` and what of its file system is mounted there (proc_pid_mountinfo(5)).
fn mount_at_root(proc: &Proc, pid: u32) -> Option<(String, String)> {
    let text = proc.text(&format!("{pid}/mountinfo")).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (number, root, at) = (fields.next()?, fields.nth(2)?, fields.next()?);
        (at == "/").then(|| (number.to_owned(), root.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    /// A `/proc` of our own. Process 1 cannot be looked at unless `open`; `mounts` are the numbers of the mounts at `/` by process.
    fn machine(open: bool, mounts: &[(u32, &str)]) -> (tempfile::TempDir, Proc) {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("host")).expect("a directory");
        for (pid, number) in mounts {
            let process = dir.path().join(format!("proc/{pid}"));
            fs::create_dir_all(process.join("ns")).expect("a process");
            let table =
                format!("7 1 0:1 / /proc rw - proc proc rw\n{number} 1 0:2 / / rw - ext4 /dev/sda rw\n");
            fs::write(process.join("mountinfo"), table).expect("a mount table");
            if *pid != FIRST || open {
                symlink(dir.path().join("host"), process.join("root")).expect("a link");
                symlink("mnt:[5]", process.join("ns/mnt")).expect("a link");
            }
        }
        let proc = Proc::new(&dir.path().join("proc"));
        (dir, proc)
    }

    #[test]
    fn another_process_with_the_same_mount_at_its_root_stands_in() {
        let own = std::process::id();
        for (open, mounts, expected) in [
            (true, &[(1, "9"), (own, "9"), (2, "9")][..], Some(1)),
            (false, &[(1, "9"), (own, "9"), (2, "9")], Some(own)),
            (false, &[(1, "9"), (own, "8"), (2, "9")], Some(2)),
            (false, &[(1, "9"), (own, "8"), (2, "8")], None),
            (false, &[(own, "8"), (2, "8")], None),
        ] {
            let (_dir, proc) = machine(open, mounts);
            let found = HostRoot::find(&proc).ok();
            assert_eq!(found.as_ref().map(HostRoot::process), expected, "{open} {mounts:?}");
            let Some(found) = found else { continue };
            assert_eq!(found.mounts(), 5);
            assert!(found.is_of(&proc, 2), "the links are to the same directory");
            assert!(!found.is_of(&proc, 3), "it is not there");
        }
    }

    #[test]
    fn this_machine() {
        let proc = Proc::new(Path::new("/proc"));
        // Where neither can be seen there is nothing to compare.
        if let Ok(found) = HostRoot::find(&proc) {
            assert!(fs::metadata(found.directory()).expect("the host's root").is_dir());
        }
    }
}
