//! The distinct SHA-256 of an index, in blocks that indexes share.
//!
//! Images of one node are often built on the same base, so most of their contents are the same. An index therefore takes whole
//! sorted blocks of indexes that were there before it, and has a block of its own for the rest. A block may have digests that an
//! index does not list; that costs nothing while the index that brought the block is in use, and once it is gone at most as much
//! again as is needed, for a block is only taken if at least half of it is. Blocks never change, so looking something up takes no
//! lock; a block goes with the last index that has it.

use std::cmp::{Ordering, Reverse};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::index::at;
use crate::finding::Sha256;

/// Fewer digests are not worth a block: what is saved is about what it costs.
const MIN_BLOCK: usize = 64;
/// Blocks that an index takes at most: each is one more search when a digest is looked up.
const MAX_TAKEN: usize = 7;

/// Sorted and distinct. Not `Arc<[Sha256]>`, of which a [`Weak`] would keep the memory.
#[derive(Debug)]
struct Block(Box<[Sha256]>);

/// The blocks of all indexes that share theirs.
#[derive(Debug, Default)]
pub struct DigestPool(Mutex<Vec<Weak<Block>>>);

/// Digests of one index, and possibly more. Each has its place: the number of those before it in the blocks.
#[derive(Debug, Default)]
pub(super) struct DigestTable(Box<[Arc<Block>]>);

impl DigestTable {
    /// Of sorted, distinct digests.
    pub(super) fn new(digests: Vec<Sha256>) -> Self {
        Self([Arc::new(Block(digests.into()))].into())
    }

    pub(super) fn get(&self, place: u32) -> Option<Sha256> {
        let mut place = at(place);
        for block in &self.0 {
            match block.0.get(place) {
                Some(digest) => return Some(*digest),
                None => place -= block.0.len(),
            }
        }
        None
    }

    /// The first place of a digest, which is the one that files have.
    pub(super) fn place(&self, digest: &Sha256) -> Option<u32> {
        let mut before = 0;
        for block in &self.0 {
            if let Ok(place) = block.0.binary_search(digest) {
                return u32::try_from(before + place).ok();
            }
            before += block.0.len();
        }
        None
    }

    /// Bytes on the heap; of a block that n indexes have, each has the n-th part.
    pub(super) fn heap_bytes(&self) -> usize {
        let of_block = |block: &Arc<Block>| size_of_val::<[Sha256]>(&block.0) / Arc::strong_count(block);
        size_of_val::<[Arc<Block>]>(&self.0) + self.0.iter().map(of_block).sum::<usize>()
    }

    /// The same digests with blocks of the pool, to which it gives the rest; `None` when there is nothing to take.
    pub(super) fn shared(&self, pool: &DigestPool) -> Option<Self> {
        let mut known = pool.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|block| block.strong_count() > 0);
        let mut rest: Vec<Sha256> = self.0.iter().flat_map(|block| block.0.iter().copied()).collect();
        let mut candidates: Vec<_> = known
            .iter()
            .filter_map(Weak::upgrade)
            .map(|block| (common(&rest, &block.0), block))
            .filter(|(common, block)| is_worth_it(*common, block))
            .collect();
        candidates.sort_by_key(|(common, _)| Reverse(*common));
        let mut taken = Vec::new();
        for (_, block) in candidates {
            if taken.len() < MAX_TAKEN && is_worth_it(common(&rest, &block.0), &block) {
                rest.retain(|digest| block.0.binary_search(digest).is_err());
                taken.push(block);
            }
        }
        if taken.is_empty() {
            known.extend(self.0.iter().filter(|block| block.0.len() >= MIN_BLOCK).map(Arc::downgrade));
            return None;
        }
        if !rest.is_empty() {
            let own = Arc::new(Block(rest.into()));
            if own.0.len() >= MIN_BLOCK {
                known.push(Arc::downgrade(&own));
            }
            taken.push(own);
        }
        Some(Self(taken.into()))
    }
}

fn is_worth_it(common: usize, block: &Block) -> bool {
    common >= MIN_BLOCK && common * 2 >= block.0.len()
}

/// How many digests two sorted lists have in common.
fn common(mut a: &[Sha256], mut b: &[Sha256]) -> usize {
    let mut count = 0;
    while let ([first, a_rest @ ..], [other, b_rest @ ..]) = (a, b) {
        match first.cmp(other) {
            Ordering::Less => a = a_rest,
            Ordering::Greater => b = b_rest,
            Ordering::Equal => {
                count += 1;
                (a, b) = (a_rest, b_rest);
            }
        }
    }
    count
}
