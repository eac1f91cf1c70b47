//! Findings: what is said of an event and its judgement.

use std::sync::Arc;
use std::time::Duration;

use super::loss::Loss;
use super::{Facts, Judge, Known, Now};
use crate::event::{Body, Connect, Content, DigestOrigin, FileOp, FileRef, Kind, LossCause, Role, Task};
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
    pub(super) fn lost(
        &self,
        now: Now<'_, F::Case>,
        kind: Kind,
        cause: LossCause,
        count: u64,
        since_ns: u64,
    ) {
        let event = now.event;
        let until = self.facts.time(now.case);
        let since =
            until.checked_sub(Duration::from_nanos(event.time_ns.saturating_sub(since_ns))).unwrap_or(until);
        let of_workload = event.task != Task::default();
        let workload = match of_workload {
            true => Arc::clone(&self.facts.workload(now.case).info),
            false => Arc::new(WorkloadInfo::default()),
        };
        let reason = Loss { kind, cause, count, of_workload, since, until }.reason();
        let judgement = Judgement::new(Verdict::Loss, Severity::High, reason);
        self.report(now, &workload, judgement, &About::default());
    }

    pub(super) fn report(
        &self,
        now: Now<'_, F::Case>,
        workload: &Arc<WorkloadInfo>,
        judgement: Judgement,
        about: &About<'_>,
    ) {
        self.tell(self.complete(now, workload, judgement, about));
    }

    /// Hands a finding on.
    pub(super) fn tell(&self, finding: Finding) {
        self.sink.with(|sink| sink(finding));
    }

    /// A finding with the process that it is about.
    pub(super) fn complete(
        &self,
        now: Now<'_, F::Case>,
        workload: &Arc<WorkloadInfo>,
        judgement: Judgement,
        about: &About<'_>,
    ) -> Finding {
        let event = now.event;
        let mut finding = self.finding(now, workload, judgement, about);
        if finding.verdict != Verdict::Loss {
            let epoch = self.epoch.get();
            let is_attested = self.programs.with(|programs| {
                let program = programs.get(&event.task.process);
                program.is_some_and(|program| program.epoch == epoch && program.culprit.is_none())
            });
            // Of an exec what ran before is known here.
            finding.basis.program_is_attested = is_attested && event.kind() != Kind::Exec;
            let (process, ancestors) = self.facts.ancestry(now.case, &event.task);
            finding.process = Some(process);
            finding.ancestors = ancestors;
        }
        finding
    }

    pub(super) fn finding(
        &self,
        now: Now<'_, F::Case>,
        workload: &Arc<WorkloadInfo>,
        judgement: Judgement,
        about: &About<'_>,
    ) -> Finding {
        let event = now.event;
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
            time: self.facts.time(now.case),
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
