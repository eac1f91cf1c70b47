//! Names of files that have several.

use smallvec::SmallVec;

use crate::event::{FilePath, Inode};
use crate::recent::Recent;

/// Files of which names are remembered.
const FILES: usize = 16_384;
/// The same of files that are in an SBOM. They are remembered apart, so that links to other files push none of them out.
const LISTED: usize = 65_536;
/// Names of one file.
const NAMES: usize = 8;

type Names = SmallVec<[FilePath; 2]>;

/// Names that were made since the agent started, and those that the file had then.
pub(super) struct Links {
    all: Recent<Inode, Names>,
    listed: Recent<Inode, FilePath>,
}

impl Links {
    pub(super) fn new() -> Self {
        Self { all: Recent::new(FILES), listed: Recent::new(LISTED) }
    }

    /// The file has these names.
    pub(super) fn add<'a>(&mut self, inode: Inode, names: impl Iterator<Item = &'a FilePath>) {
        if inode.ino == 0 {
            return;
        }
        let mut known = self.all.get(&inode).map(std::mem::take).unwrap_or_default();
        for name in names {
            if !known.contains(name) && known.len() < NAMES {
                known.push(name.clone());
            }
        }
        self.all.insert(inode, known);
    }

    /// The file, which has or gets several names, is in an SBOM by this one.
    pub(super) fn add_listed(&mut self, inode: Inode, name: FilePath) {
        if inode.ino != 0 {
            self.listed.insert(inode, name);
        }
    }

    /// One of its names was taken away; `left`: how many it has then.
    pub(super) fn remove(&mut self, inode: Inode, name: &FilePath, left: u32) {
        if left == 0 {
            self.all.remove(&inode);
            self.listed.remove(&inode);
        } else if let Some(known) = self.all.get(&inode) {
            known.retain(|known| known != name);
        }
    }

    /// One of its names is another one now.
    pub(super) fn rename(&mut self, inode: Inode, from: &FilePath, to: &FilePath) {
        if let Some(name) = self.all.get(&inode).and_then(|known| known.iter_mut().find(|name| *name == from))
        {
            name.clone_from(to);
        }
    }

    /// The names that are known beside this one, that of an SBOM first.
    pub(super) fn others(&mut self, inode: Inode, than: &FilePath) -> Vec<FilePath> {
        let listed = self.listed(inode);
        let all = self.all.get(&inode).into_iter().flat_map(|known| known.iter().cloned());
        listed.into_iter().chain(all).filter(|name| name != than).collect()
    }

    /// Its name in an SBOM.
    pub(super) fn listed(&mut self, inode: Inode) -> Option<FilePath> {
        self.listed.get(&inode).map(|name| name.clone())
    }

    /// So many of its names are known.
    pub(super) fn count(&mut self, inode: Inode) -> usize {
        self.all.get(&inode).map_or(0, |known| known.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_given_away_again_is_another_file() {
        let (a, b, c): (FilePath, FilePath, FilePath) = ("/bin/a".into(), "/tmp/b".into(), "/tmp/c".into());
        let first = Inode { dev: 1, ino: 7, generation: 1 };
        let again = Inode { generation: 2, ..first };
        let mut links = Links::new();
        links.add(first, [&a, &b].into_iter());
        links.add_listed(first, a.clone());
        assert_eq!((&links.others(first, &b)[0], links.listed(first)), (&a, Some(a.clone())));
        assert_eq!((links.others(again, &b), links.listed(again), links.count(again)), (vec![], None, 0));
        links.rename(first, &b, &c);
        assert_eq!(links.others(first, &a), std::slice::from_ref(&c));
        links.remove(first, &c, 1);
        assert_eq!((links.others(first, &a), links.count(first)), (vec![], 1));
        links.remove(first, &a, 0);
        assert_eq!((links.listed(first), links.count(first)), (None, 0));
        links.add(Inode::default(), [&a, &b].into_iter());
        assert_eq!(links.count(Inode::default()), 0, "of a name alone nothing is known");
    }

    #[test]
    fn links_to_other_files_push_none_of_the_sbom_out() {
        let mut links = Links::new();
        let inode = |ino| Inode { dev: 1, ino, generation: 0 };
        let name = FilePath::from("/bin/a");
        links.add_listed(inode(1), name.clone());
        for ino in 2..100_000 {
            links.add(inode(ino), [&name].into_iter());
        }
        assert_eq!(links.listed(inode(1)), Some(name));
        assert!(links.all.len() <= FILES);
    }
}
