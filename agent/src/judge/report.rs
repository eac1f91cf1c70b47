//! Findings: what is said of an event and its judgement.

use std::sync::Arc;
use std::time::Duration;

use super::loss::Loss;
use super::{Facts, Judge, Known};
use crate::event::{
    Body, Connect, Content, DigestOrigin, Event, FileOp, FileRef, Kind, LossCause, Role, Task,
};
use crate::finding::{Basis, Finding, Severity, Verdict, WorkloadInfo};
use crate::verdict::{self, Judgement};

/// What a finding says beside its event and its judgement.
#[derive(Default)]
pub(super) struct About<'a> {
    pub(super) file: Option<&'a FileRef>,
    pub(super) content: Option<&'a Content>,
    pub(super) operation: Option<FileOp>,
    pub(super) connect: Option<&'a Connect>,
    pub(super) image: Option<&'a Known>,
}

impl<F: Facts, S: FnMut(Finding)> Judge<F, S> {
    pub(super) fn lost(&mut self, event: &Event, kind: Kind, cause: LossCause, count: u64, since_ns: u64) {
        let until = self.facts.time();
        let since =
            until.checked_sub(Duration::from_nanos(event.time_ns.saturating_sub(since_ns))).unwrap_or(until);
        let of_workload = event.task != Task::default();
        let workload = match of_workload {
            true => Arc::clone(&self.facts.workload().info),
            false => Arc::new(WorkloadInfo::default()),
        };
        let reason = Loss { kind, cause, count, of_workload, since, until }.reason();
        let judgement = Judgement::new(Verdict::Loss, Severity::High, reason);
        self.report(event, &workload, judgement, &About::default());
    }

    pub(super) fn report(
        &mut self,
        event: &Event,
        workload: &Arc<WorkloadInfo>,
        judgement: Judgement,
        about: &About<'_>,
    ) {
        let finding = self.complete(event, workload, judgement, about);
        (self.sink)(finding);
    }

    /// A finding with the process that it is about.
    pub(super) fn complete(
        &mut self,
        event: &Event,
        workload: &Arc<WorkloadInfo>,
        judgement: Judgement,
        about: &About<'_>,
    ) -> Finding {
        let mut finding = self.finding(event, workload, judgement, about);
        if finding.verdict != Verdict::Loss {
            // Of an exec what ran before is known here.
            let program = self.programs.get(&event.task.process).filter(|_| event.kind() != Kind::Exec);
            finding.basis.program_is_attested =
                program.is_some_and(|program| program.epoch == self.epoch && program.culprit.is_none());
            let (process, ancestors) = self.facts.ancestry(&event.task);
            finding.process = Some(process);
            finding.ancestors = ancestors;
        }
        finding
    }

    pub(super) fn finding(
        &self,
        event: &Event,
        workload: &Arc<WorkloadInfo>,
        judgement: Judgement,
        about: &About<'_>,
    ) -> Finding {
        let Judgement {
            verdict,
            severity,
            quiet: _,
            reason,
            expected_sha256,
            attested_path,
            package,
            used: _,
        } = judgement;
        let reason = match &event.body {
            Body::Running { role: Role::Program | Role::Library, processes, .. } if about.file.is_some() => {
                format!("{reason}; {}", super::before::in_words(processes))
            }
            _ => reason,
        };
        let reason = match workload.claim.as_str() {
            "" => reason,
            claim => format!("{reason}; {claim}"),
        };
        let (sha256, digest_origin): (_, Option<DigestOrigin>) = match about.content {
            Some(Content::Known { sha256, origin, .. }) => (Some(*sha256), Some(*origin)),
            Some(Content::Undetermined(_)) | None => (None, None),
        };
        Finding {
            sequence: 0,
            origin: None,
            time: self.facts.time(),
            verdict,
            severity,
            kind: event.kind(),
            flavour: event.flavour,
            workload: Arc::clone(workload),
            process: None,
            ancestors: Vec::new(),
            path: about.file.map(|f| f.path.clone()).unwrap_or_default(),
            path_truncated: about.file.is_some_and(|f| f.truncated),
            sha256,
            digest_origin,
            expected_sha256,
            attested_path,
            package,
            operation: about.operation,
            connect: about.connect.cloned(),
            coverage: about.image.map(|i| i.coverage),
            binding: about.image.and_then(|i| i.binding),
            documents: about.image.map(|i| Arc::clone(&i.documents)).unwrap_or_else(|| Arc::from([])),
            reason,
            since: None,
            exception: None,
            basis: Basis {
                inode: about
                    .file
                    .map(|f| f.identity)
                    .filter(|i| i.ino != 0)
                    .map(|i| (i.dev, i.generation, i.ino)),
                path_is_proven: about.file.is_some_and(|f| verdict::provable_path(f).is_some()),
                ..Basis::default()
            },
        }
    }
}
