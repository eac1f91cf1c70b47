//! Files of an SBOM that have several names.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Instant;

use nix::fcntl::AtFlags;
use nix::sys::stat::{SFlag, fstatat};

use crate::event::ProcessId;
use crate::recent::Recent;
use crate::sbom::ImageIndex;

/// Roots that are remembered.
const ROOTS: usize = 256;

/// Inode number and [`Entry::id`](crate::sbom::Entry::id), sorted.
type Table = Box<[(u64, u32)]>;

/// The files of an SBOM that had several names in a root when it was first looked at, by that root's process. Links that are made later
/// are seen when they are made.
pub(super) struct Linked {
    tables: Recent<ProcessId, (Arc<ImageIndex>, Table)>,
}

impl std::fmt::Debug for Linked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linked").finish_non_exhaustive()
    }
}

impl Linked {
    pub(super) fn new() -> Self {
        Self { tables: Recent::new(ROOTS) }
    }

    /// Entries that may be this inode. The number alone says little: look at each.
    pub(super) fn candidates(
        &mut self,
        process: ProcessId,
        index: &Arc<ImageIndex>,
        ino: u64,
        root: impl FnOnce() -> Option<OwnedFd>,
    ) -> Vec<u32> {
        let is_known = self.tables.get(&process).is_some_and(|(of, _)| Arc::ptr_eq(of, index));
        if !is_known {
            let Some(root) = root() else { return Vec::new() };
            self.tables.insert(process, (Arc::clone(index), look(&root, index)));
        }
        let table = self.tables.get(&process).map(|(_, table)| &**table).unwrap_or_default();
        let first = table.partition_point(|(found, _)| *found < ino);
        table[first..].iter().take_while(|(found, _)| *found == ino).map(|(_, id)| *id).collect()
    }
}

/// Asks for the state of each file. A name that leads out of the root is none that a candidate keeps.
fn look(root: &OwnedFd, index: &ImageIndex) -> Table {
    let began = Instant::now();
    let mut table: Vec<(u64, u32)> = Vec::new();
    for entry in index.entries() {
        let path = entry.path();
        let relative = path.as_bytes().strip_prefix(b"/").unwrap_or(path.as_bytes());
        let Ok(stat) = fstatat(root, OsStr::from_bytes(relative), AtFlags::AT_SYMLINK_NOFOLLOW) else {
            continue;
        };
        if stat.st_nlink > 1 && SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG {
            table.push((stat.st_ino, entry.id()));
        }
    }
    table.sort_unstable();
    tracing::debug!(took = ?began.elapsed(), files = index.len(), linked = table.len(), "looked for hard links");
    table.into()
}
