//! How much is read, and looked for: any user can change big files faster than they are hashed, run ever new ones, or make a
//! process with so many mappings that finding one takes long. Other workloads' events wait meanwhile.

use std::hash::{BuildHasher as _, RandomState};
use std::time::{Duration, Instant};

use crate::recent::Recent;

/// Bytes of changed files that are read at once, after a quiet time; also the largest changed file that is read. About a quarter of a
/// second.
pub(super) const BURST: u64 = 256 << 20;
/// Bytes of changed files a second over a longer time: some eighth of the judge's.
pub(super) const PER_SECOND: u64 = 128 << 20;
/// Bytes of one workload that are read at once of what runs or is mapped: a container that starts maps some hundred MiB.
const RUN_BURST: u64 = 2 << 30;
/// The same over a longer time, a second.
const RUN_PER_SECOND: u64 = 256 << 20;
/// Time for walks of `/proc` that one workload's events may take at once, in nanoseconds.
const WALK_BURST: u64 = 200_000_000;
/// The same over a longer time, a second: a twentieth of the judge's.
const WALK_PER_SECOND: u64 = 50_000_000;
/// Workloads whose allowance is remembered.
const WORKLOADS: usize = 8192;

/// A token bucket: of bytes, or of nanoseconds.
#[derive(Debug)]
pub(super) struct Budget {
    /// Below zero: more was used than there was.
    left: i128,
    burst: u64,
    per_second: u64,
    filled: Instant,
}

impl Budget {
    /// For changed files.
    pub(super) fn new(now: Instant) -> Self {
        Self::of(BURST, PER_SECOND, now)
    }

    fn of(burst: u64, per_second: u64, now: Instant) -> Self {
        Self { left: burst.into(), burst, per_second, filled: now }
    }

    /// Takes so much; `false` when there is not as much left, and then takes nothing.
    pub(super) fn take(&mut self, much: u64, now: Instant) -> bool {
        self.fill(now);
        let enough = self.left >= i128::from(much);
        if enough {
            self.left -= i128::from(much);
        }
        enough
    }

    /// Something is left.
    fn has_some(&mut self, now: Instant) -> bool {
        self.fill(now);
        self.left > 0
    }

    /// So much was used, whether it was there or not.
    fn spend(&mut self, much: u64) {
        self.left -= i128::from(much);
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled);
        let fresh = u128::from(self.per_second) * passed.as_nanos() / 1_000_000_000;
        let fresh = i128::try_from(fresh).unwrap_or(i128::MAX);
        // What is less than a unit is kept for later.
        if fresh > 0 {
            self.left = self.left.saturating_add(fresh).min(self.burst.into());
            self.filled = now;
        }
    }
}

/// What one workload may still use.
#[derive(Debug)]
struct Allowance {
    reading: Budget,
    walking: Budget,
}

/// What each workload may still use of the judge's time.
#[derive(Debug)]
pub(super) struct Allowances {
    /// By a seeded hash of the workload's id: who names workloads must not find one that shares another's.
    of: Recent<u64, Allowance>,
    seed: RandomState,
    payer: u64,
}

impl Allowances {
    pub(super) fn new() -> Self {
        Self { of: Recent::new(WORKLOADS), seed: RandomState::new(), payer: 0 }
    }

    /// What follows is done for this workload.
    pub(super) fn charge(&mut self, workload: &str) {
        self.payer = self.seed.hash_one(workload);
    }

    /// Takes so many bytes of what runs or is mapped; `false` when the workload has had too much read.
    pub(super) fn read(&mut self, bytes: u64, now: Instant) -> bool {
        self.payers(now).is_none_or(|allowance| allowance.reading.take(bytes, now))
    }

    /// The workload may have something looked for in `/proc`.
    pub(super) fn may_walk(&mut self, now: Instant) -> bool {
        self.payers(now).is_none_or(|allowance| allowance.walking.has_some(now))
    }

    /// A walk took so long.
    pub(super) fn walked(&mut self, took: Duration, now: Instant) {
        if let Some(allowance) = self.payers(now) {
            allowance.walking.spend(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    fn payers(&mut self, now: Instant) -> Option<&mut Allowance> {
        if self.of.get(&self.payer).is_none() {
            let (reading, walking) =
                (Budget::of(RUN_BURST, RUN_PER_SECOND, now), Budget::of(WALK_BURST, WALK_PER_SECOND, now));
            self.of.insert(self.payer, Allowance { reading, walking });
        }
        self.of.get(&self.payer)
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

    #[test]
    fn one_workload_does_not_use_up_anothers_time() {
        let start = Instant::now();
        let mut all = Allowances::new();
        all.charge("greedy");
        assert!(all.may_walk(start) && all.read(RUN_BURST, start));
        // The last walk may take longer than what was left.
        all.walked(Duration::from_secs(1), start);
        assert!(!all.may_walk(start) && !all.read(1, start));
        all.charge("other");
        assert!(all.may_walk(start) && all.read(1, start));
        all.charge("greedy");
        // 800 ms of debt are paid off by a twentieth of the time.
        assert!(!all.may_walk(start + Duration::from_secs(16)));
        assert!(all.may_walk(start + Duration::from_secs(17)));
        assert!(all.read(RUN_PER_SECOND, start + Duration::from_secs(17)));
    }
}
