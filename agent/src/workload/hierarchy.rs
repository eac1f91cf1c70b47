//! Where the cgroup hierarchies are mounted, and looking for a cgroup by its id.
//!
//! A cgroup v2 id (`bpf_get_current_cgroup_id`, `cgroup_id()`) is the kernfs node's id; on 64-bit kernels since 5.5
//! the directory's inode number is the same number (`kernfs_ino`), in `stat` and in `getdents`.

use std::fs;
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::belief::{self, Belief};
use crate::proc::Proc;

/// Directories visited in one search.
const MAX_SCAN: usize = 65_536;
/// Directories of one container visited for its processes.
const MAX_CONTAINER_DIRS: usize = 256;

/// The cgroup file systems of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hierarchies {
    /// Mount point of cgroup v2.
    v2: Option<PathBuf>,
    /// Mount point by controllers, cgroup v1.
    v1: Vec<(String, PathBuf)>,
    /// Whose names are believed: root's.
    pub(super) root: u32,
}

impl Hierarchies {
    /// From the mount table; none can be found on a machine whose `/sys/fs/cgroup` is hidden from the agent.
    pub(super) fn find(proc: &Proc) -> io::Result<Self> {
        Ok(Self::parse(&proc.text("self/mountinfo")?))
    }

    fn parse(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            let Some((mount, fs)) = line.split_once(" - ") else { continue };
            let mut mount = mount.split(' ');
            // A mount of a part of the hierarchy (a container's own cgroup) is no place to look.
            let (Some(root), Some(point)) = (mount.nth(3), mount.next()) else { continue };
            if root != "/" && !root.starts_with("/..") {
                continue;
            }
            let mut fs = fs.split(' ');
            let (kind, options) = (fs.next(), fs.nth(1).unwrap_or_default());
            match kind {
                Some("cgroup2") if found.v2.is_none() => found.v2 = Some(unescape(point)),
                Some("cgroup") => {
                    let names = options
                        .split(',')
                        .filter(|o| !matches!(*o, "rw" | "ro" | "xattr" | "clone_children"));
                    let names: Vec<&str> = names.filter(|o| !o.starts_with("release_agent=")).collect();
                    found.v1.push((names.join(","), unescape(point)));
                }
                _ => {}
            }
        }
        found
    }

    /// Some controller is on cgroup v1, so that a v2 cgroup alone does not name the container.
    pub(super) fn has_v1(&self) -> bool {
        !self.v1.is_empty()
    }

    /// The directory of a cgroup. Paths that climb out of the agent's cgroup namespace have none that is known.
    pub(super) fn directory(&self, controllers: &str, path: &str) -> Option<PathBuf> {
        if path.split('/').any(|s| s == "..") {
            return None;
        }
        let mount = if controllers.is_empty() {
            self.v2.as_ref()?
        } else {
            let same = |have: &str| controllers.split(',').any(|c| have.split(',').any(|h| h == c));
            self.v1.iter().find_map(|(have, mount)| same(have).then_some(mount))?
        };
        Some(mount.join(path.trim_start_matches('/')))
    }

    /// Who named the cgroup at `path`, see [`belief`](super::belief).
    pub(super) fn belief(&self, controllers: &str, path: &str) -> Belief {
        belief::of(path, self.root, |ancestor| {
            let directory = self.directory(controllers, ancestor)?;
            fs::symlink_metadata(directory).ok().map(|metadata| metadata.uid())
        })
    }

    /// Id of the v2 cgroup at `path`.
    pub(super) fn id(&self, path: &str) -> Option<u64> {
        fs::symlink_metadata(self.directory("", path)?).ok().map(|m| m.ino())
    }

    /// Calls `each` with the id and the path of every v2 cgroup, at most [`MAX_SCAN`]. Returns whether that was all.
    pub(super) fn scan(&self, mut each: impl FnMut(u64, &str)) -> bool {
        let Some(mount) = &self.v2 else { return true };
        if let Ok(root) = fs::symlink_metadata(mount) {
            each(root.ino(), "/");
        }
        let mut left = MAX_SCAN;
        let mut todo = vec![String::new()];
        while let Some(path) = todo.pop() {
            // A cgroup that vanishes during the search has no processes left.
            let Ok(entries) = fs::read_dir(mount.join(path.trim_start_matches('/'))) else { continue };
            for entry in entries.flatten() {
                if !entry.file_type().is_ok_and(|t| t.is_dir()) {
                    continue;
                }
                let Some(name) = entry.file_name().to_str().map(|name| format!("{path}/{name}")) else {
                    continue;
                };
                each(entry.ino(), &name);
                left -= 1;
                if left == 0 {
                    return false;
                }
                todo.push(name);
            }
        }
        true
    }
}

/// The oldest process in a cgroup and those below it: its id and start (nanoseconds since boot, a whole tick).
pub(super) fn oldest_process(directory: &Path, proc: &Proc) -> Option<(u32, u64)> {
    let mut oldest: Option<(u32, u64)> = None;
    let mut todo = vec![directory.to_owned()];
    let mut left = MAX_CONTAINER_DIRS;
    while let Some(directory) = todo.pop() {
        // `cgroup.procs` of a threaded cgroup cannot be read; its processes are listed by the one above it.
        if let Ok(text) = fs::read_to_string(directory.join("cgroup.procs")) {
            for pid in text.lines().take(4096).filter_map(|l| l.parse().ok()) {
                if let Ok(stat) = proc.stat(pid)
                    && oldest.is_none_or(|(p, start)| (stat.start_ns, pid) < (start, p))
                {
                    oldest = Some((pid, stat.start_ns));
                }
            }
        }
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            if left > 0 && entry.file_type().is_ok_and(|t| t.is_dir()) {
                left -= 1;
                todo.push(entry.path());
            }
        }
    }
    oldest
}

/// `\040` and its like, as mountinfo writes space, tab, newline and backslash.
fn unescape(text: &str) -> PathBuf {
    let replaced =
        text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\");
    PathBuf::from(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_tables() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
            42 31 0:38 /docker/x /elsewhere rw - cgroup2 cgroup2 rw\n";
        let found = Hierarchies::parse(hybrid);
        assert!(found.has_v1());
        assert_eq!(found.directory("", "/a"), Some("/sys/fs/cgroup/unified/a".into()));
        assert_eq!(found.directory("cpu", "/a"), Some("/sys/fs/cgroup/cpu,cpuacct/a".into()));
        assert_eq!(found.directory("name=systemd", "/a"), Some("/sys/fs/cgroup/systemd/a".into()));
        assert_eq!(found.directory("memory", "/a"), None);
        assert_eq!(found.directory("", "/../a"), None);

        let unified =
            Hierarchies::parse("29 23 0:26 / /sys/fs/my\\040cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n");
        assert!(!unified.has_v1());
        assert_eq!(unified.directory("", "/"), Some("/sys/fs/my cgroup/".into()));
    }

    #[test]
    fn scans_a_tree() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("a/b")).expect("directories");
        fs::write(dir.path().join("a/file"), "").expect("a file");
        let found = Hierarchies { v2: Some(dir.path().to_owned()), ..Hierarchies::default() };
        let mut seen = Vec::new();
        assert!(found.scan(|id, path| seen.push((id, path.to_owned()))));
        seen.sort_by(|a, b| a.1.cmp(&b.1));
        let ids: Vec<_> =
            ["/", "/a", "/a/b"].iter().map(|p| (found.id(p).expect("an id"), (*p).to_owned())).collect();
        assert_eq!(seen, ids);
    }
}
