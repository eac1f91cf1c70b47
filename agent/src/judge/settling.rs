//! Files that have nothing of a program but the execute bit: they are judged when they still have it after a while. Some programs try
//! out a file system by setting it and taking it away again.

use std::collections::VecDeque;
use std::sync::Arc;

use super::change::By;
use super::{EXECUTABLE, Facts, Judge};
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
}

impl<F: Facts, S: FnMut(Finding)> Judge<F, S> {
    /// Judges the file in a while.
    pub(super) fn settle_later(&mut self, by: &By<'_>, file: FileRef) {
        if self.settling.0.len() >= FILES
            && let Some(first) = self.settling.0.pop_front()
        {
            self.settled(first);
        }
        let inode = file.identity.inode();
        if inode.ino != 0 && self.settling.0.iter().any(|other| other.file.identity.inode() == inode) {
            return;
        }
        self.settling.0.push_back(Waiting {
            due_ns: by.event.time_ns.saturating_add(SETTLED_NS),
            event: by.event.clone(),
            op: by.op,
            file,
            workload: self.facts.workload(),
        });
    }

    /// Judges what has waited long enough; all, at the end.
    pub(super) fn settle_files(&mut self, now_ns: u64) {
        while self.settling.is_due(now_ns)
            && let Some(first) = self.settling.0.pop_front()
        {
            self.settled(first);
        }
    }

    fn settled(&mut self, waiting: Waiting) {
        let Waiting { event, op, file, workload, .. } = waiting;
        // What is gone again was no program when it was there.
        let Some(file) = self.facts.again(&event.task, &file) else { return };
        if file.mode & EXECUTABLE == 0 {
            return;
        }
        let Some(image) = self.image_of(&event, &workload) else { return };
        let by = By { event: &event, workload: &workload, of: &workload, image: &image, op };
        self.judge_change(&by, &file, None);
    }
}
