//! Files that have nothing of a program but the execute bit: they are judged when they still have it after a while. Some programs try
//! out a file system by setting it and taking it away again.

use std::collections::VecDeque;
use std::sync::Arc;

use super::change::By;
use super::{EXECUTABLE, Facts, Judge, Now};
use crate::event::{Event, FileOp, FileRef};
use crate::finding::Finding;
use crate::workload::Workload;

/// How long a file must have kept its execute bit, nanoseconds.
pub(super) const SETTLED_NS: u64 = 1_000_000_000;
/// Files that are waited for; of more the first are judged at once.
pub(super) const FILES: usize = 4096;

struct Waiting {
    due_ns: u64,
    event: Event,
    op: FileOp,
    file: FileRef,
    workload: Arc<Workload>,
}

/// Files that are judged later, the first to be judged first.
#[derive(Default)]
pub(super) struct Settling(VecDeque<Waiting>);

impl Settling {
    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        self.0.front().is_some_and(|first| first.due_ns <= now_ns)
    }

    /// Nothing is waited for any longer. True: something was.
    pub(super) fn end(&mut self) -> bool {
        self.0.iter_mut().for_each(|waiting| waiting.due_ns = 0);
        !self.0.is_empty()
    }

    fn take_due(&mut self, now_ns: u64) -> Option<Waiting> {
        if self.is_due(now_ns) { self.0.pop_front() } else { None }
    }
}

impl<F: Facts, S: FnMut(Finding)> Judge<F, S> {
    /// Judges the file in a while.
    pub(super) async fn settle_later(&self, by: &By<'_, F::Case>, file: FileRef) {
        let now = by.now;
        let first = self.settling.with(|settling| match settling.0.len() >= FILES {
            true => settling.0.pop_front(),
            false => None,
        });
        if let Some(first) = first {
            self.settled(now, first).await;
        }
        let inode = file.identity.inode();
        let waiting = Waiting {
            due_ns: now.event.time_ns.saturating_add(SETTLED_NS),
            event: now.event.clone(),
            op: by.op,
            file,
            workload: self.facts.workload(now.case),
        };
        self.settling.with(|settling| {
            let is_known = |other: &Waiting| other.file.identity.inode() == inode;
            if inode.ino == 0 || !settling.0.iter().any(is_known) {
                settling.0.push_back(waiting);
            }
        });
    }

    /// Judges what has waited long enough; all, at the end.
    pub(super) async fn settle_files(&self, now: Now<'_, F::Case>, now_ns: u64) {
        while let Some(first) = self.settling.with(|settling| settling.take_due(now_ns)) {
            self.settled(now, first).await;
        }
    }

    async fn settled(&self, now: Now<'_, F::Case>, waiting: Waiting) {
        let Waiting { event, op, file, workload, .. } = waiting;
        // What is gone again was no program when it was there.
        let Some(file) = self.facts.again(now.case, &event.task, &file).await else { return };
        if file.mode & EXECUTABLE == 0 {
            return;
        }
        let now = Now { event: &event, ..now };
        let Some(image) = self.image_of(now, &workload) else { return };
        let by = By { now, workload: &workload, of: &workload, image: &image, op };
        self.judge_change(&by, &file, None).await;
    }
}
