//! How much of what changed is read: any user can change big files faster than they are hashed, and events wait meanwhile.

use std::time::{Duration, Instant};

/// Bytes that are read at once, after a quiet time; also the largest changed file that is read. About a quarter of a second.
pub(super) const BURST: u64 = 256 << 20;
/// Bytes a second over a longer time: some eighth of the judge's.
pub(super) const PER_SECOND: u64 = 128 << 20;

/// A token bucket of bytes.
#[derive(Debug)]
pub(super) struct Budget {
    left: u64,
    filled: Instant,
}

impl Budget {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, filled: now }
    }

    /// Takes so many bytes; `false` when there are not as many left, and then takes none.
    pub(super) fn take(&mut self, bytes: u64, now: Instant) -> bool {
        self.fill(now.saturating_duration_since(self.filled), now);
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    fn fill(&mut self, passed: Duration, now: Instant) {
        let fresh = u128::from(PER_SECOND) * passed.as_nanos() / 1_000_000_000;
        let fresh = u64::try_from(fresh).unwrap_or(BURST);
        // What is less than a byte is kept for later.
        if fresh > 0 {
            self.left = self.left.saturating_add(fresh).min(BURST);
            self.filled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_and_refills() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        for (what, after_ms, bytes, expected) in [
            ("more than there ever is", 0, BURST + 1, false),
            ("a refusal takes nothing", 0, BURST, true),
            ("nothing is left", 0, 1, false),
            ("an empty file", 0, 0, true),
            ("half a second's", 500, PER_SECOND / 2, true),
            ("and no more", 500, 1, false),
            ("an hour's is no more than a burst", 3_600_500, BURST, true),
            ("and no more", 3_600_500, 1, false),
            ("a clock that stands back", 0, 1, false),
        ] {
            assert_eq!(budget.take(bytes, start + Duration::from_millis(after_ms)), expected, "{what}");
        }
    }
}
