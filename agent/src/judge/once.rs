//! What is said once.

use std::hash::{BuildHasher as _, Hash, RandomState};

use crate::event::{Action, FilePath, Observation};
use crate::finding::{Severity, Verdict};
use crate::recent::Recent;
use crate::verdict::Judgement;

/// Things remembered; some 16 bytes each. What was not seen for long is forgotten, and said once more.
const SAID: usize = 262_144;

/// Remembers what was said by a seeded hash, so that nobody can make two things look the same.
#[derive(Debug)]
pub(super) struct Once {
    said: Recent<u64, ()>,
    hash: RandomState,
}

impl Once {
    pub(super) fn new() -> Self {
        Self { said: Recent::new(SAID), hash: RandomState::new() }
    }

    /// It was not said before, and is from now on.
    pub(super) fn is_first(&mut self, what: impl Hash) -> bool {
        let key = self.hash.hash_one(what);
        let is_first = self.said.get(&key).is_none();
        if is_first {
            self.said.insert(key, ());
        }
        is_first
    }
}

/// A copy of attested content that did not run, and of which nothing bad is to be said.
pub(super) fn is_copy(observation: &Observation, judgement: &Judgement) -> bool {
    let is_change = matches!(observation.action, Action::Change(_));
    is_change && (judgement.verdict, judgement.severity) == (Verdict::Relocated, Severity::Info)
}

/// The directory of an absolute path.
pub(super) fn directory(path: &FilePath) -> &[u8] {
    let path = path.as_bytes();
    &path[..path.iter().rposition(|b| *b == b'/').unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_forgets_what_was_not_seen_for_long_and_nothing_else() {
        let mut once = Once::new();
        assert!(once.is_first("kept"));
        for n in 0..2 * SAID {
            assert!(once.is_first(n), "{n}");
            assert!(!once.is_first("kept"), "after {n}");
        }
        assert!(once.said.len() <= SAID);
        assert!(once.is_first(0), "it was not seen for long");
    }
}
