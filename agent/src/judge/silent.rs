//! Files that were found attested: a file that is unchanged since costs one look-up.

use std::hash::{BuildHasher as _, RandomState};

use smallvec::SmallVec;

use crate::event::{FileIdentity, FileRef, Inode, Place};
use crate::finding::Sha256;
use crate::recent::Recent;

/// Inodes remembered; some 150 bytes each.
const INODES: usize = 65_536;
/// Hits of one inode: other names of it, other images.
const HITS: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hit {
    /// Number of the image among those the judge knows.
    image: u32,
    path: u64,
    identity: FileIdentity,
    sha256: Sha256,
}

/// The inode that has the content → what was found attested of it.
#[derive(Debug)]
pub(super) struct Silent {
    hits: Recent<Inode, SmallVec<[Hit; 1]>>,
    /// Seeded: who can bind an inode to any path must not find one that looks like another.
    paths: RandomState,
}

impl Silent {
    pub(super) fn new() -> Self {
        Self { hits: Recent::new(INODES), paths: RandomState::new() }
    }

    /// The file was found attested for this image at this path, and nothing says that it changed since.
    pub(super) fn has(&mut self, image: u32, file: &FileRef) -> bool {
        if !is_certain(file) {
            return false;
        }
        let Some(hits) = self.hits.get(&file.identity.real) else { return false };
        let path = self.paths.hash_one(file.path.as_bytes());
        hits.iter().any(|h| {
            (h.image, h.path) == (image, path)
                && h.identity.has_content_of(&file.identity)
                && file.digest.is_none_or(|d| d.sha256 == h.sha256)
        })
    }

    /// The file was found attested.
    pub(super) fn add(&mut self, image: u32, file: &FileRef, sha256: Sha256) {
        if !is_certain(file) {
            return;
        }
        let hit =
            Hit { image, path: self.paths.hash_one(file.path.as_bytes()), identity: file.identity, sha256 };
        let key = file.identity.real;
        match self.hits.get(&key) {
            Some(hits) => {
                // The inode has one content: what was known of an earlier one is of no use.
                hits.retain(|h| {
                    h.identity.has_content_of(&hit.identity) && (h.image, h.path) != (image, hit.path)
                });
                if hits.len() >= HITS {
                    hits.remove(0);
                }
                hits.push(hit);
            }
            None => self.hits.insert(key, SmallVec::from_slice(&[hit])),
        }
    }

    /// The inode was, or is about to be, changed.
    pub(super) fn forget(&mut self, file: &FileRef) {
        self.hits.remove(&file.identity.real);
    }

    pub(super) fn clear(&mut self) {
        self.hits.clear();
    }
}

/// Identity means content: it is the kernel's, and nobody writes; in a file system in memory only the kernel's digest does, for stores
/// through a mapping leave no sign there. A name that proves nothing is not worth an entry.
fn is_certain(file: &FileRef) -> bool {
    let has_times = !file.in_memory && file.place != Place::Tmpfs || file.digest.is_some();
    let steady = !file.has_writers && !file.changes_beneath && !file.altered;
    file.identity.ino != 0 && steady && has_times && crate::verdict::provable_path(file).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::KernelDigest;

    fn file() -> FileRef {
        let real = Inode { dev: 1, generation: 0, ino: 2 };
        let identity = FileIdentity { dev: 1, ino: 2, size: 3, ctime_ns: 4, real, ..FileIdentity::default() };
        FileRef { path: "/bin/a".into(), identity, ..FileRef::default() }
    }

    #[test]
    fn only_the_very_same_is_a_hit() {
        let one = Sha256([1; 32]);
        let mut silent = Silent::new();
        silent.add(0, &file(), one);
        assert!(silent.has(0, &file()));
        assert!(!silent.has(1, &file()), "another image");
        let changed = |change: fn(&mut FileRef)| {
            let mut f = file();
            change(&mut f);
            f
        };
        for (what, other) in [
            ("another name", changed(|f| f.path = "/bin/b".into())),
            ("another time", changed(|f| f.identity.ctime_ns = 5)),
            ("another version", changed(|f| f.identity.i_version = 5)),
            ("another size", changed(|f| f.identity.size = 5)),
            ("another inode", changed(|f| f.identity.real.ino = 5)),
            ("its number given away again", changed(|f| f.identity.real.generation = 5)),
            ("a writer", changed(|f| f.has_writers = true)),
            ("a mapping that was stored to", changed(|f| f.altered = true)),
            ("a layer beneath that anybody may change", changed(|f| f.changes_beneath = true)),
            ("a file system in memory", changed(|f| f.place = Place::Tmpfs)),
            ("a layer in memory", changed(|f| f.in_memory = true)),
            ("a path that is cut", changed(|f| f.truncated = true)),
            (
                "the kernel says otherwise",
                changed(|f| f.digest = Some(KernelDigest { sha256: Sha256([2; 32]), cached: false })),
            ),
        ] {
            assert!(!silent.has(0, &other), "{what}");
        }
        let elsewhere = changed(|f| (f.identity.dev, f.identity.ino) = (9, 9));
        assert!(silent.has(0, &elsewhere), "the same layer in another overlay");
        let agrees = changed(|f| f.digest = Some(KernelDigest { sha256: Sha256([1; 32]), cached: true }));
        assert!(silent.has(0, &agrees));
        silent.add(1, &file(), one);
        assert!(silent.has(0, &file()) && silent.has(1, &file()));
        silent.forget(&file());
        assert!(!silent.has(0, &file()) && !silent.has(1, &file()));
    }

    #[test]
    fn what_cannot_be_certain_is_not_kept() {
        let mut silent = Silent::new();
        let mut f = file();
        f.has_writers = true;
        silent.add(0, &f, Sha256([1; 32]));
        f.has_writers = false;
        assert!(!silent.has(0, &f));
    }
}
