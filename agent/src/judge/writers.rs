//! Files that are open for write.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::before::in_ticks;
use super::{FILE_TYPE, Facts, Judge, Now, PROCESSES, REGULAR, same_inode};
use crate::event::{Body, Event, FileOp, FileRef, ProcessId};
use crate::finding::Finding;
use crate::recent::Recent;

/// What is kept takes about so many bytes at most, and one file of each process.
pub(super) const BYTES: usize = 8 << 20;
/// Files that are kept for one process: with room, with half of it used, and without.
const FILES: [usize; 3] = [256, 16, 1];

/// A file that a process has open, as it was when it was opened.
struct Open {
    file: FileRef,
    bytes: usize,
    all: Arc<AtomicUsize>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Files that processes opened for write and whose close was not seen.
pub(super) struct Writers {
    open: Recent<ProcessId, Vec<Open>>,
    bytes: Arc<AtomicUsize>,
}

impl Writers {
    pub(super) fn new() -> Self {
        Self { open: Recent::new(PROCESSES), bytes: Arc::default() }
    }

    /// About how many bytes are in use.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Adds a file, and gives those for which there is no room any more: the process's own oldest.
    fn add(&mut self, process: ProcessId, file: &FileRef) -> Vec<FileRef> {
        let [many, some, one] = FILES;
        let limit = match self.bytes() {
            bytes if bytes < BYTES / 2 => many,
            bytes if bytes < BYTES => some,
            _ => one,
        };
        if self.open.get(&process).is_none() {
            self.open.insert(process, Vec::new());
        }
        let Some(open) = self.open.get(&process) else { return vec![file.clone()] };
        if open.iter().any(|other| same_inode(&other.file, file)) {
            return Vec::new();
        }
        let first =
            open.drain(..(open.len() + 1).saturating_sub(limit)).map(|open| open.file.clone()).collect();
        let bytes = size_of::<Open>() + file.path.as_bytes().len();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        open.push(Open { file: file.clone(), bytes, all: Arc::clone(&self.bytes) });
        first
    }

    fn close(&mut self, process: ProcessId, file: &FileRef) {
        if let Some(open) = self.open.get(&process) {
            // A mapping outlives the descriptor; only the last writer's close comes as an event.
            open.retain(|other| !same_inode(&other.file, file));
        }
    }

    fn exit(&mut self, process: ProcessId) -> Vec<FileRef> {
        self.open.remove(&process).unwrap_or_default().iter().map(|open| open.file.clone()).collect()
    }
}

/// A process, and as it is known if it ran before the agent.
fn as_known(process: ProcessId) -> impl Iterator<Item = ProcessId> {
    let before = in_ticks(process);
    std::iter::once(process).chain((before != process).then_some(before))
}

impl<F: Facts, S: FnMut(Finding)> Judge<F, S> {
    /// The tracepoints see no close that an exit or an unmapping makes, so what a process opened for write is kept until its
    /// close is seen, or until it exits.
    pub(super) async fn note_writer(&self, now: Now<'_, F::Case>, op: FileOp, file: &FileRef) {
        let process = now.event.task.process;
        match op {
            FileOp::OpenWrite | FileOp::Create | FileOp::MapWrite if file.mode & FILE_TYPE == REGULAR => {
                self.writes(now, process, file).await;
            }
            // Others have it open still, this process perhaps among them.
            FileOp::CloseWrite if file.has_writers => {}
            FileOp::CloseWrite => {
                self.closes(process, file);
            }
            _ => {}
        }
    }

    /// A process has a file open for write.
    pub(super) async fn writes(&self, now: Now<'_, F::Case>, process: ProcessId, file: &FileRef) {
        for first in self.writers.with(|writers| writers.add(process, file)) {
            // Better judged too early than forgotten.
            self.closed(now, &first).await;
        }
    }

    fn closes(&self, process: ProcessId, file: &FileRef) {
        self.writers.with(|writers| as_known(process).for_each(|process| writers.close(process, file)));
    }

    /// Judges what an exiting process had open for write.
    pub(super) async fn close_all(&self, now: Now<'_, F::Case>) {
        for process in as_known(now.event.task.process) {
            for file in self.writers.with(|writers| writers.exit(process)) {
                self.closed(now, &file).await;
            }
        }
    }

    /// Judges as if the close had been seen at `event`.
    async fn closed(&self, now: Now<'_, F::Case>, file: &FileRef) {
        let event = now.event;
        // It is known as it was when it was opened.
        let again = self.facts.again(now.case, &event.task, file).await.unwrap_or_else(|| file.clone());
        let file = &FileRef { has_writers: false, ..again };
        let body = Body::File { op: FileOp::CloseWrite, file: file.clone(), target: None, mode: None };
        let close = Event { time_ns: event.time_ns, flavour: event.flavour, task: event.task.clone(), body };
        self.silent.with(|silent| silent.forget(file));
        self.closes(close.task.process, file);
        self.noted(Now { event: &close, ..now }, FileOp::CloseWrite, file, None, None).await;
    }
}
