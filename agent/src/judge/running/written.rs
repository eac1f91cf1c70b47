//! What processes have open for write.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use super::{Running, place};
use crate::event::{Body, Event, FileRef, Place, Role};
use crate::judge::{FILE_TYPE, REGULAR};
use crate::proc::Proc;

/// `S_IWUSR`: of a link below `/proc/<pid>/fd` or `map_files` it says that the file is open for write (`tid_fd_update_inode()`,
/// `proc_map_files_instantiate()`).
const WRITABLE: u32 = 0o200;

/// Device and number, as `stat` gives them.
pub(super) type Number = (u64, u64);

/// A file that a process has open for write, and the links below `/proc` that lead to it.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) file: FileRef,
    pub(super) at: u32,
    pub(super) number: Option<Number>,
    pub(super) links: Vec<Box<str>>,
}

impl Running {
    /// A file that was found open for write, if it still is.
    pub(super) fn is_written(&mut self, now_ns: u64, proc: &Proc, written: Written) -> Option<Event> {
        let Written { file, at, number, links } = written;
        let task = usize::try_from(at).ok().and_then(|at| self.tasks.get(at))?;
        let process = task.process;
        let link = links.iter().find(|link| leads_to(proc, link, &file)).filter(|_| proc.is_alive(process));
        let placed = link.and_then(|link| {
            place::placed(file, link, task.pid, self.host.as_ref(), proc, &mut self.mounts).ok()
        });
        let Some(file) = placed else {
            self.counts.gone += 1;
            // Another descriptor may lead to it.
            if let (Some(look), Some(number)) = (&mut self.look, number) {
                look.open.remove(&number);
            }
            return None;
        };
        self.counts.written += 1;
        let body = Body::Running { file, role: Role::Written, processes: vec![process] };
        Some(Event { time_ns: now_ns, flavour: self.flavour, task: task.clone(), body })
    }

    /// Adds a file that is open for write. What has no name, and what the kernel serves, is in no SBOM.
    pub(super) fn add_written(&mut self, at: u32, stat: Option<Number>, link: String, file: FileRef) {
        if file.mode & FILE_TYPE != REGULAR {
            return;
        }
        let number = (file.identity.dev, file.identity.ino);
        if self.ran.contains(&number) {
            self.doubted.insert(number);
        }
        let has_name = file.path.as_bytes().starts_with(b"/") && !file.deleted && file.place != Place::Memfd;
        if has_name {
            let file = FileRef { has_writers: true, ..file };
            self.written.push_back(Written { file, at, number: stat, links: vec![link.into_boxed_str()] });
        }
    }

    /// What runs and is open for write may be another content by now than the one that is read.
    pub(super) fn doubt_written(&mut self) {
        let doubted = std::mem::take(&mut self.doubted);
        for group in &mut self.groups {
            let identity = &group.file.identity;
            group.file.has_writers |= doubted.contains(&(identity.dev, identity.ino));
        }
    }
}

/// A link below `/proc` leads to a file that is open for write.
pub(super) fn is_writable(proc: &Proc, link: &str) -> bool {
    fs::symlink_metadata(proc.root().join(link)).is_ok_and(|link| link.mode() & WRITABLE != 0)
}

/// A link below `/proc` still leads to this file, open for write.
fn leads_to(proc: &Proc, link: &str, file: &FileRef) -> bool {
    is_writable(proc, link)
        && match fs::metadata(proc.root().join(link)) {
            Ok(found) => found.ino() == file.identity.ino,
            // Without CAP_CHECKPOINT_RESTORE no link of `map_files` can be followed.
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        }
}
