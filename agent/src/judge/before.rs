//! What processes were found to run that ran before the agent, and the finding about it.

use std::sync::Arc;

use super::program::{Culprit, Program, worse};
use super::{Facts, Judge, Now, PROCESSES};
use crate::event::{Action, FileRef, Flavour, ProcessId, Role};
use crate::finding::Finding;
use crate::recent::Recent;

/// A tick of `/proc`: `USER_HZ` is 100 (`include/asm-generic/param.h`).
const TICK_NS: u64 = 10_000_000;

/// What is held against processes that ran before the agent. `/proc` has their starts in whole ticks, so that is how they are found.
pub(super) struct Before {
    culprits: Recent<ProcessId, Arc<Culprit>>,
    /// Processes that have run another program since: what they ran before is past. Kept until all that ran before is judged.
    ran_another: Option<Recent<ProcessId, ()>>,
}

/// With the start as `/proc` has it.
pub(super) fn in_ticks(process: ProcessId) -> ProcessId {
    ProcessId { start_ns: process.start_ns - process.start_ns % TICK_NS, ..process }
}

impl Before {
    pub(super) fn new() -> Self {
        Self { culprits: Recent::new(PROCESSES), ran_another: Some(Recent::new(PROCESSES)) }
    }

    /// What is held against a process.
    pub(super) fn culprit(&mut self, process: ProcessId) -> Option<Arc<Culprit>> {
        if self.culprits.is_empty() {
            return None;
        }
        self.culprits.get(&in_ticks(process)).map(|culprit| Arc::clone(culprit))
    }

    /// It runs another program.
    pub(super) fn ran(&mut self, process: ProcessId) {
        let process = in_ticks(process);
        self.culprits.remove(&process);
        if let Some(ran) = &mut self.ran_another {
            ran.insert(process, ());
        }
    }

    /// It has ended.
    pub(super) fn ended(&mut self, process: ProcessId) {
        if !self.culprits.is_empty() {
            self.culprits.remove(&in_ticks(process));
        }
    }

    fn is_past(&mut self, process: ProcessId) -> bool {
        self.ran_another.as_mut().is_some_and(|ran| ran.get(&in_ticks(process)).is_some())
    }
}

impl<F: Facts, S: FnMut(Finding)> Judge<F, S> {
    /// All that ran before the agent is judged, but for so many processes.
    pub(super) fn running_is_judged(&self, flavour: Flavour, left_out: usize) {
        self.before.with(|before| before.ran_another = None);
        if left_out > 0 {
            let reason = format!(
                "{left_out} of the processes that ran before the agent started were not looked at, or not all that they have mapped and \
                 open: there were too many"
            );
            self.tell(Finding::loss(flavour, reason));
        }
    }

    /// Judges a file that processes ran, or had mapped, before the agent started.
    pub(super) async fn running(
        &self,
        now: Now<'_, F::Case>,
        file: &FileRef,
        role: Role,
        processes: &[ProcessId],
    ) {
        if self.before.with(|before| before.is_past(now.event.task.process)) {
            return;
        }
        let workload = self.facts.workload(now.case);
        let Some(image) = self.image_of(now, &workload) else {
            if role == Role::Program {
                self.unjudged(now, &workload, file);
            }
            return;
        };
        let action = if role == Role::Program { Action::Exec } else { Action::Library };
        let Some(culprit) = self.run(now, &workload, &image, file, action).await.culprit else { return };
        self.before.with(|before| {
            for process in processes {
                if before.is_past(*process) {
                    continue;
                }
                // One that connected before its turn came is known under its exact start.
                let process = in_ticks(*process);
                let worst = worse(before.culprits.remove(&process), Some(Arc::clone(&culprit)));
                if let Some(worst) = worst {
                    before.culprits.insert(process, worst);
                }
            }
        });
    }

    /// What is known of a process: by its exec, or because it ran before.
    pub(super) fn program_of(&self, process: ProcessId) -> Option<Program> {
        let before = self.before.with(|before| before.culprit(process));
        match self.programs.with(|programs| programs.get(&process).map(|program| program.clone())) {
            Some(Program { epoch, culprit }) => Some(Program { epoch, culprit: worse(culprit, before) }),
            // The program itself may not have been judged yet.
            None => before.map(|culprit| Program { epoch: u64::MAX, culprit: Some(culprit) }),
        }
    }
}

/// What a finding says of a file that ran before.
pub(super) fn in_words(processes: &[ProcessId]) -> String {
    match processes.len() {
        0 | 1 => "it was running before the agent started".to_owned(),
        more => format!("it was running before the agent started, in {more} processes"),
    }
}
