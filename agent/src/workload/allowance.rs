//! How much of the judge's time goes into searches that others can cause.

use std::time::{Duration, Instant};

/// Time that may be spent at once, after a quiet time.
const BURST: Duration = Duration::from_millis(500);
/// One part in so many over a longer time.
const SHARE: u32 = 10;

/// Time that may be spent.
#[derive(Debug)]
pub(super) struct Allowance {
    /// When all that was spent has become the share of the time that passed.
    even: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self { even: now }
    }

    /// Something is left.
    pub(super) fn is_there(&self, now: Instant) -> bool {
        self.even.saturating_duration_since(now) < BURST * SHARE
    }

    /// So much was spent.
    pub(super) fn spend(&mut self, time: Duration, now: Instant) {
        self.even = self.even.max(now) + time * SHARE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_time_after_the_burst() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert!(allowance.is_there(start));
        allowance.spend(BURST, start);
        assert!(!allowance.is_there(start));
        let next = start + Duration::from_millis(10);
        assert!(allowance.is_there(next));
        allowance.spend(Duration::from_millis(1), next);
        assert!(!allowance.is_there(next));
        // A long rest gives no more than the burst.
        let later = start + Duration::from_secs(3600);
        assert!(allowance.is_there(later));
        allowance.spend(BURST, later);
        assert!(!allowance.is_there(later));
    }
}
