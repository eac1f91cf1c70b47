//! What belongs together: findings about one file with one content name the first of them, so that drop, run and connect read as one
//! story.

use std::hash::{BuildHasher as _, RandomState};

use crate::finding::Finding;
use crate::recent::Recent;

/// Files remembered; some 32 bytes each. A story of which nothing came for long begins anew.
const STORIES: usize = 16_384;

/// The first finding of each file and content.
#[derive(Debug)]
pub(super) struct Stories {
    /// By a seeded hash of the file and its content.
    first: Recent<u64, u64>,
    hash: RandomState,
}

impl Default for Stories {
    fn default() -> Self {
        Self { first: Recent::new(STORIES), hash: RandomState::new() }
    }
}

impl Stories {
    /// The first finding about the same file and content, by its sequence; `None` if this is it.
    pub(super) fn since(&mut self, finding: &Finding) -> Option<u64> {
        let (inode, sha256) = (finding.basis.inode?, finding.sha256?);
        let key = self.hash.hash_one((inode, sha256));
        if let Some(first) = self.first.get(&key) {
            return Some(*first);
        }
        self.first.insert(key, finding.sequence);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Flavour;
    use crate::finding::{Basis, Sha256};

    #[test]
    fn a_story_is_of_one_file_and_one_content() {
        let mut stories = Stories::default();
        let mut sequence = 0;
        let mut since = |ino: u64, generation: u32, content: Option<u8>| {
            sequence += 1;
            let basis = Basis { inode: Some((1, generation, ino)), ..Basis::default() };
            let sha256 = content.map(|byte| Sha256([byte; 32]));
            let loss = Finding::loss(Flavour::Lsm, String::new());
            stories.since(&Finding { sequence, basis, sha256, ..loss })
        };
        assert_eq!(since(7, 0, Some(1)), None);
        assert_eq!(since(7, 0, Some(1)), Some(1));
        assert_eq!(since(7, 0, Some(2)), None, "other content");
        assert_eq!(since(7, 0, Some(2)), Some(3));
        assert_eq!(since(7, 1, Some(1)), None, "another file with the number");
        assert_eq!(since(8, 0, Some(1)), None, "another file");
        assert_eq!(since(7, 0, None), None, "not known");
        assert_eq!(since(7, 0, Some(1)), Some(1));
        for other in 0..100_000 {
            since(1000 + other, 0, Some(3));
        }
        assert!(stories.first.len() <= STORIES);
    }
}
