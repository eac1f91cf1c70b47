//! The findings that the agent holds for clients that come later.
//!
//! Findings are much alike: the same ancestors, workload and words, over and over. So all but the newest are held as compressed messages,
//! some hundred bytes each instead of one or two thousand. They are unpacked only when a client asks for them, and then by a few at a time.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::sync::Arc;

use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use muster_proto::v1;
use prost::Message as _;

use super::convert;
use super::queue::Item;
use crate::finding::Finding;

/// Bytes of findings at most, however many may be held: of the packed ones as they are packed.
pub(super) const MAX_BYTES: usize = 8 << 20;
/// Findings that are packed together at most.
const TOGETHER: usize = 64;
/// Their bytes before, but for the last of them; so much is there again while a client reads them.
const TOGETHER_BYTES: usize = 256 << 10;

/// Findings that follow one another.
#[derive(Debug)]
struct Pack {
    bytes: Box<[u8]>,
    count: usize,
    /// Sequence of the last.
    last: u64,
}

impl Pack {
    fn of(findings: &VecDeque<(Arc<Finding>, usize)>) -> io::Result<Self> {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
        for (finding, _) in findings {
            encoder.write_all(&convert::finding(finding).encode_length_delimited_to_vec())?;
        }
        let last = findings.back().map_or(0, |(finding, _)| finding.sequence);
        Ok(Self { bytes: encoder.finish()?.into(), count: findings.len(), last })
    }

    fn open(&self) -> anyhow::Result<Vec<Arc<Finding>>> {
        let mut bytes = Vec::new();
        DeflateDecoder::new(&*self.bytes).read_to_end(&mut bytes)?;
        let (mut rest, mut findings) = (bytes.as_slice(), Vec::with_capacity(self.count));
        while !rest.is_empty() {
            let finding = v1::Finding::decode_length_delimited(&mut rest)?;
            findings.push(Arc::new(convert::finding_from(finding)?));
        }
        Ok(findings)
    }
}

/// The last findings, within two bounds.
#[derive(Debug)]
pub(super) struct History {
    packs: VecDeque<Arc<Pack>>,
    /// So many of the first pack are held no more.
    past: usize,
    /// Each with its bytes.
    newest: VecDeque<(Arc<Finding>, usize)>,
    newest_bytes: usize,
    len: usize,
    bytes: usize,
    max_items: usize,
    max_bytes: usize,
}

impl History {
    pub(super) fn new(max_items: usize, max_bytes: usize) -> Self {
        let (packs, newest) = (VecDeque::new(), VecDeque::new());
        Self { packs, past: 0, newest, newest_bytes: 0, len: 0, bytes: 0, max_items, max_bytes }
    }

    /// Takes a finding of so many bytes in; the oldest go. Gives back how many had to go although there was room for their number.
    pub(super) fn push(&mut self, finding: &Arc<Finding>, bytes: usize) -> u64 {
        if self.max_items == 0 {
            return 0;
        }
        if self.len >= self.max_items {
            self.evict_one();
        }
        self.newest.push_back((Arc::clone(finding), bytes));
        self.len += 1;
        self.newest_bytes += bytes;
        self.bytes += bytes;
        let mut evicted = 0;
        if self.newest.len() >= TOGETHER || self.newest_bytes >= TOGETHER_BYTES {
            evicted += self.pack();
        }
        while self.bytes > self.max_bytes && self.len > 0 {
            evicted += self.evict();
        }
        evicted
    }

    /// Packs the newest. Gives back how many are lost by it: none.
    fn pack(&mut self) -> u64 {
        let packed = Pack::of(&self.newest);
        let count = self.newest.len();
        self.bytes -= std::mem::take(&mut self.newest_bytes);
        self.newest.clear();
        match packed {
            Ok(pack) => {
                self.bytes += pack.bytes.len();
                self.packs.push_back(Arc::new(pack));
                0
            }
            // Writing to memory does not fail; if it does they are gone, and that is counted.
            Err(error) => {
                tracing::error!(%error, count, "findings cannot be packed and are not held for later clients");
                self.len -= count;
                u64::try_from(count).unwrap_or(u64::MAX)
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes of what is held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is held now, oldest first, with some of those before `after` left out. What it holds of it goes as it is read.
    pub(super) fn held(&self, after: u64) -> Held {
        let old = self.packs.iter().take_while(|pack| pack.last <= after).count();
        Held {
            packs: self.packs.iter().skip(old).cloned().collect(),
            past: if old == 0 { self.past } else { 0 },
            open: self.newest.iter().map(|(finding, _)| Arc::clone(finding)).collect(),
            opened: VecDeque::new(),
        }
    }

    /// The oldest finding is held no more.
    fn evict_one(&mut self) {
        match self.packs.front() {
            Some(first) if self.past + 1 < first.count => {
                self.past += 1;
                self.len -= 1;
            }
            _ => {
                self.evict();
            }
        }
    }

    /// The oldest go: all of a pack, or one of the newest. Gives back how many.
    fn evict(&mut self) -> u64 {
        let gone = match self.packs.pop_front() {
            Some(pack) => {
                self.bytes -= pack.bytes.len();
                pack.count - std::mem::take(&mut self.past)
            }
            None => {
                let Some((_, bytes)) = self.newest.pop_front() else { return 0 };
                self.newest_bytes -= bytes;
                self.bytes -= bytes;
                1
            }
        };
        self.len -= gone;
        u64::try_from(gone).unwrap_or(u64::MAX)
    }
}

/// Findings that were held at one time, oldest first. What cannot be unpacked is missed.
#[derive(Debug)]
pub(super) struct Held {
    packs: VecDeque<Arc<Pack>>,
    /// Of the first pack.
    past: usize,
    /// Those that were not packed yet.
    open: VecDeque<Arc<Finding>>,
    /// The rest of a pack.
    opened: VecDeque<Arc<Finding>>,
}

impl Iterator for Held {
    type Item = Item<Finding>;

    fn next(&mut self) -> Option<Item<Finding>> {
        if let Some(finding) = self.opened.pop_front() {
            return Some(Item::One(finding));
        }
        let Some(pack) = self.packs.pop_front() else { return self.open.pop_front().map(Item::One) };
        let past = std::mem::take(&mut self.past);
        match pack.open() {
            Ok(findings) => {
                self.opened = findings.into_iter().skip(past).collect();
                self.next()
            }
            Err(error) => {
                tracing::error!(%error, "findings that were packed cannot be unpacked");
                Some(Item::Missed(u64::try_from(pack.count - past).unwrap_or(u64::MAX)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Flavour;

    fn finding(sequence: u64) -> Arc<Finding> {
        let loss = Finding::loss(Flavour::Lsm, format!("number {sequence}"));
        Arc::new(Finding { sequence, time: std::time::SystemTime::UNIX_EPOCH, ..loss })
    }

    fn sequences(history: &History) -> Vec<u64> {
        let one = |item: Item<Finding>| match item {
            Item::One(finding) => finding.sequence,
            other => panic!("expected a finding, found {other:?}"),
        };
        history.held(0).map(one).collect()
    }

    #[test]
    fn both_bounds_hold() {
        let mut history = History::new(3, 100);
        let mut push = |bytes| {
            let evicted = history.push(&finding(1), bytes);
            (evicted, history.len(), history.bytes())
        };
        assert_eq!(push(40), (0, 1, 40));
        assert_eq!(push(40), (0, 2, 80));
        assert_eq!(push(10), (0, 3, 90));
        assert_eq!(push(10), (0, 3, 60), "the number alone");
        assert_eq!(push(90), (1, 2, 100), "the number, and then the bytes");
        assert_eq!(push(500), (3, 0, 0), "one that is larger than everything");
        assert_eq!(push(7), (0, 1, 7));
        assert_eq!(History::new(0, 100).push(&finding(1), 1), 0);
    }

    #[test]
    fn what_is_packed_comes_out_as_it_went_in() {
        let mut history = History::new(1000, MAX_BYTES);
        let mut went_in = Vec::new();
        for sequence in 1..=200 {
            let mut full = crate::feed::tests::full();
            full.sequence = sequence;
            let full = Arc::new(full);
            history.push(&full, 1000);
            went_in.push(Item::One(full));
        }
        assert!(history.packs.len() > 1 && !history.newest.is_empty());
        assert!(history.bytes() < 40_000, "{} bytes", history.bytes());
        assert_eq!(history.held(0).collect::<Vec<_>>(), went_in);
    }

    #[test]
    fn packed_ones_go_one_by_one_for_their_number_and_together_for_their_bytes() {
        let mut history = History::new(150, MAX_BYTES);
        for sequence in 1..=1000 {
            assert_eq!(history.push(&finding(sequence), 500), 0);
            let oldest = sequence.saturating_sub(150) + 1;
            assert_eq!(sequences(&history), (oldest..=sequence).collect::<Vec<_>>());
        }
        let mut history = History::new(1_000_000, 10_000);
        let mut evicted = 0;
        for sequence in 1..=10_000 {
            evicted += history.push(&finding(sequence), 100);
            assert!(history.bytes() <= 10_000, "{} bytes", history.bytes());
        }
        let left = sequences(&history);
        assert_eq!(left, (evicted + 1..=10_000).collect::<Vec<_>>());
        assert!(history.len() == left.len() && left.len() > 100, "{} are left", left.len());
    }

    #[test]
    fn what_cannot_be_unpacked_is_missed() {
        let mut history = History::new(1000, MAX_BYTES);
        for sequence in 1..=130 {
            history.push(&finding(sequence), 100);
        }
        history.packs[0] = Arc::new(Pack { bytes: Box::from(*b"no stream"), count: TOGETHER, last: 64 });
        let mut held = history.held(0);
        assert_eq!(held.next(), Some(Item::Missed(64)));
        assert_eq!(held.next(), Some(Item::One(finding(65))));
        assert_eq!(held.count(), 65);
        assert_eq!(
            history.held(64).next(),
            Some(Item::One(finding(65))),
            "what is not wanted is not unpacked"
        );
        assert_eq!(history.held(63).next(), Some(Item::Missed(64)));
        assert_eq!(history.held(500).count(), 2, "those that are not packed");
    }
}
