//! Which findings a client wants.

use std::str::FromStr;

use crate::event::Kind;
use crate::finding::{Finding, Severity, Verdict};

/// Findings that pass every part; the default passes all. A loss passes every filter: what is lost may be just what was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Workload ids or names; empty: all.
    pub workloads: Vec<String>,
    /// Empty: all.
    pub verdicts: Vec<Verdict>,
    /// Lowest severity.
    pub minimum_severity: Option<Severity>,
    /// Empty: all.
    pub kinds: Vec<Kind>,
}

/// After which finding a client wants to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct After {
    /// Its sequence; 0: from the first.
    pub sequence: u64,
    /// The run of the agent that it is of; `None`: not known.
    pub run: Option<String>,
}

impl From<u64> for After {
    fn from(sequence: u64) -> Self {
        Self { sequence, run: None }
    }
}

/// `SEQUENCE` or `RUN:SEQUENCE`.
impl FromStr for After {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("expected SEQUENCE or RUN:SEQUENCE as findings have them, found {text:?}");
        let (run, sequence) = match text.split_once(':') {
            Some(("", _)) => return Err(expected()),
            Some((run, sequence)) => (Some(run.to_owned()), sequence),
            None => (None, text),
        };
        Ok(Self { sequence: sequence.parse().map_err(|_| expected())?, run })
    }
}

impl Filter {
    /// The finding passes.
    pub fn matches(&self, finding: &Finding) -> bool {
        if finding.verdict == Verdict::Loss {
            return true;
        }
        let workload = &finding.workload;
        self.minimum_severity.is_none_or(|least| finding.severity >= least)
            && (self.verdicts.is_empty() || self.verdicts.contains(&finding.verdict))
            && (self.kinds.is_empty() || self.kinds.contains(&finding.kind))
            && (self.workloads.is_empty()
                || self.workloads.iter().any(|w| *w == workload.id || *w == workload.name))
    }
}
