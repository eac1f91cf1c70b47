//! The findings that the agent holds for clients that come later.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::finding::Finding;

/// Bytes of findings at most, however many may be held. Of usual ones some 6,000 fit.
pub(super) const MAX_BYTES: usize = 8 << 20;

/// The last findings, within two bounds.
#[derive(Debug)]
pub(super) struct History {
    findings: VecDeque<(Arc<Finding>, usize)>,
    bytes: usize,
    max_items: usize,
    max_bytes: usize,
}

impl History {
    pub(super) fn new(max_items: usize, max_bytes: usize) -> Self {
        Self { findings: VecDeque::new(), bytes: 0, max_items, max_bytes }
    }

    /// Takes a finding of so many bytes in; the oldest go. Gives back how many had to go although there was room for their number.
    pub(super) fn push(&mut self, finding: &Arc<Finding>, bytes: usize) -> u64 {
        if self.max_items == 0 {
            return 0;
        }
        if self.findings.len() >= self.max_items {
            self.evict();
        }
        self.findings.push_back((Arc::clone(finding), bytes));
        self.bytes += bytes;
        let mut evicted = 0;
        while self.bytes > self.max_bytes && self.evict() {
            evicted += 1;
        }
        evicted
    }

    fn evict(&mut self) -> bool {
        let Some((_, bytes)) = self.findings.pop_front() else { return false };
        self.bytes -= bytes;
        true
    }

    pub(super) fn len(&self) -> usize {
        self.findings.len()
    }

    /// Bytes of what is held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Finding>> {
        self.findings.iter().map(|(finding, _)| finding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Flavour;

    #[test]
    fn both_bounds_hold() {
        let mut history = History::new(3, 100);
        let mut push = |bytes| {
            let finding = Arc::new(Finding::loss(Flavour::Lsm, String::new()));
            let evicted = history.push(&finding, bytes);
            (evicted, history.len(), history.bytes())
        };
        assert_eq!(push(40), (0, 1, 40));
        assert_eq!(push(40), (0, 2, 80));
        assert_eq!(push(10), (0, 3, 90));
        assert_eq!(push(10), (0, 3, 60), "the number alone");
        assert_eq!(push(90), (1, 2, 100), "the number, and then the bytes");
        assert_eq!(push(500), (3, 0, 0), "one that is larger than everything");
        assert_eq!(push(7), (0, 1, 7));
        assert_eq!(History::new(0, 100).push(&Arc::new(Finding::loss(Flavour::Lsm, String::new())), 1), 0);
    }
}
