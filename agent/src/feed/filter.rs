//! Which findings a client wants.

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
