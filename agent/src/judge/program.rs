//! What a process was found to run, and what of it is held against it.

use std::sync::Arc;

use super::{Facts, Judge, Known, Now, unobserved};
use crate::event::{Action, Content, FilePath, FileRef, Observation, Place};
use crate::finding::{Finding, Severity, Verdict};
use crate::verdict::Judgement;
use crate::workload::Workload;

/// What a process runs that is not attested: the worst of its binary, its script and its libraries.
pub(super) struct Culprit {
    pub(super) observation: Observation,
    pub(super) severity: Severity,
}

/// What a process was found to run.
#[derive(Clone)]
pub(super) struct Program {
    /// How often the images had changed by then.
    pub(super) epoch: u64,
    pub(super) culprit: Option<Arc<Culprit>>,
}

/// What came of judging a file that runs.
#[derive(Default)]
pub(super) struct Ran {
    /// What is to be held against its process.
    pub(super) culprit: Option<Arc<Culprit>>,
    /// Where it was found attested by SHA-256, or as an attested package manager wrote it.
    pub(super) attested: Option<FilePath>,
}

impl<F: Facts, S: FnMut(Finding)> Judge<F, S> {
    /// Judges the program of a process whose exec was not seen; it is not reported by itself.
    pub(super) async fn program_before(
        &self,
        now: Now<'_, F::Case>,
        workload: &Workload,
        image: &Known,
    ) -> Option<Arc<Culprit>> {
        let mut observation = match self.facts.program(now.case, &now.event.task).await {
            Ok(file) => {
                if self.silent.with(|silent| silent.has(image.number, &file)) {
                    return None;
                }
                self.observe(now, workload, image, file, Action::Exec).await
            }
            Err(why) => unobserved(Action::Exec, FileRef::default(), why, &now.event.task, workload, image),
        };
        let (judgement, held) = self.consider(now, workload, image, &mut observation).await;
        if held.is_some() {
            return None;
        }
        culprit(observation, &judgement)
    }
}

/// Programs that run a copy of themselves from a sealed memfd when they make a container, so that the container cannot write to the
/// host's file (runc's `libcontainer/dmz`, crun's and youki's `cloned_binary`).
const COPY_THEMSELVES: [&[u8]; 3] = [b"runc", b"crun", b"youki"];

/// What a runtime's helper runs from memory is as attested if the host's SBOM has that very content for a runtime. Whatever else the
/// memfd is called, or holds, is judged as anything in a memfd is.
pub(super) fn of_helper(judgement: Judgement, observation: &Observation) -> Judgement {
    let is_sure = matches!(observation.content, Content::Known { doubt: None, .. });
    let is_runtime = judgement.attested_path.as_ref().is_some_and(|path| {
        let name = path.as_bytes().rsplit(|byte| *byte == b'/').next();
        name.is_some_and(|name| COPY_THEMSELVES.contains(&name))
    });
    let is_copy = observation.file.place == Place::Memfd && judgement.verdict == Verdict::Relocated;
    match is_copy && is_sure && is_runtime && observation.action == Action::Exec {
        true => Judgement {
            verdict: Verdict::Attested,
            severity: Severity::Info,
            reason: String::new(),
            ..judgement
        },
        false => judgement,
    }
}

/// Nothing that is held against a process that runs it.
pub(super) fn is_harmless(judgement: &Judgement) -> bool {
    match judgement.verdict {
        Verdict::Attested | Verdict::AttestedWeak | Verdict::PathOnly | Verdict::PackageDerived => true,
        Verdict::Updated => judgement.severity < Severity::Medium,
        _ => judgement.quiet,
    }
}

pub(super) fn culprit(observation: Observation, judgement: &Judgement) -> Option<Arc<Culprit>> {
    let severity = judgement.severity;
    (!is_harmless(judgement)).then(|| Arc::new(Culprit { observation, severity }))
}

/// The worse of the two; of equals the first.
pub(super) fn worse(one: Option<Arc<Culprit>>, other: Option<Arc<Culprit>>) -> Option<Arc<Culprit>> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if other.severity > one.severity { other } else { one }),
        (one, other) => one.or(other),
    }
}
