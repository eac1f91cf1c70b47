//! Records that were lost, by kind: as counted, and as told by findings.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, ensure};
use muster_proto::v1::{self, Kind};

/// Number of records by kind; a kind without any is not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Losses(BTreeMap<Kind, u64>);

impl Losses {
    /// What the kernel programs counted as lost so far.
    pub fn counted(status: &v1::Status) -> Self {
        Self::of(status, |counters| counters.lost)
    }

    /// What the decoder refused so far.
    pub fn refused(status: &v1::Status) -> Self {
        Self::of(status, |counters| counters.malformed)
    }

    fn of(status: &v1::Status, number: impl Fn(&v1::KindCounters) -> u64) -> Self {
        let all = status.kinds.iter().map(|counters| (counters.kind(), number(counters)));
        Self(all.filter(|(_, count)| *count > 0).collect())
    }

    /// Adds what a finding about a loss says: `…, 7 file records were lost in the kernel …`.
    ///
    /// # Errors
    /// It says something else.
    pub fn tell(&mut self, finding: &v1::Finding) -> anyhow::Result<()> {
        let reason = &finding.reason;
        let strange = || format!("not a number of records that were lost in the kernel: {reason:?}");
        ensure!(finding.verdict() == v1::Verdict::Loss, strange());
        let (before, after) = reason.split_once(" record").with_context(strange)?;
        let mut words = before.rsplit(' ');
        let (kind, count) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let kind = Kind::from_str_name(&format!("KIND_{}", kind.to_uppercase())).with_context(strange)?;
        let count: u64 = count.parse().with_context(strange)?;
        ensure!(count > 0 && after.contains("lost in the kernel"), strange());
        *self.0.entry(kind).or_default() += count;
        Ok(())
    }

    /// What came on top of `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let rest = self
            .0
            .iter()
            .map(|(kind, now)| (*kind, now - earlier.0.get(kind).copied().unwrap_or(0).min(*now)));
        Self(rest.filter(|(_, count)| *count > 0).collect())
    }

    /// Those of other kinds.
    #[must_use]
    pub fn without(&self, kinds: &[Kind]) -> Self {
        Self(self.0.iter().filter(|(kind, _)| !kinds.contains(kind)).map(|(kind, n)| (*kind, *n)).collect())
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (n, (kind, count)) in self.0.iter().enumerate() {
            write!(f, "{}{count} {}", if n == 0 { "" } else { ", " }, kind.as_str_name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(reason: &str) -> v1::Finding {
        v1::Finding { verdict: v1::Verdict::Loss.into(), reason: reason.to_owned(), ..Default::default() }
    }

    #[test]
    fn several_findings_add_up_to_what_is_counted() {
        let mut told = Losses::default();
        for part in ["7 file records were", "1 file record was", "20 exec records were"] {
            let reason =
                format!("between A and B, {part} lost in the kernel because the ring buffer was full");
            told.tell(&finding(&reason)).unwrap();
        }
        let counters = |kind: Kind, lost| v1::KindCounters { kind: kind.into(), lost, ..Default::default() };
        let status = |file, exec| v1::Status {
            kinds: vec![counters(Kind::File, file), counters(Kind::Exec, exec), counters(Kind::Fork, 0)],
            ..Default::default()
        };
        let counted = Losses::counted(&status(10, 20)).since(&Losses::counted(&status(2, 0)));
        assert_eq!(told, counted);
        assert_ne!(told, Losses::counted(&status(9, 20)));
        assert_eq!(counted.without(&[Kind::File]), Losses::counted(&status(0, 20)));
        assert!(Losses::refused(&status(1, 1)).is_empty());
        for strange in
            ["nonsense", "3 lines were lost", "x file records were lost in the kernel", "1 none record lost"]
        {
            told.tell(&finding(strange)).unwrap_err();
        }
    }
}
