//! Files that are open for write.

use super::{FILE_TYPE, Facts, Judge, OPEN_FILES, REGULAR, same_inode};
use crate::event::{Body, Event, FileOp, FileRef};
use crate::finding::Finding;

impl<F: Facts, S: FnMut(Finding)> Judge<F, S> {
    /// The tracepoints see no close that an exit or an unmapping makes, so what a process opened for write is kept until its
    /// close is seen, or until it exits.
    pub(super) fn note_writer(&mut self, event: &Event, op: FileOp, file: &FileRef) {
        let process = event.task.process;
        match op {
            FileOp::OpenWrite | FileOp::Create | FileOp::MapWrite if file.mode & FILE_TYPE == REGULAR => {
                let open = match self.writers.get(&process) {
                    Some(open) => open,
                    None => {
                        self.writers.insert(process, Vec::new());
                        let Some(open) = self.writers.get(&process) else { return };
                        open
                    }
                };
                if open.iter().any(|f| same_inode(f, file)) {
                    return;
                }
                let first = (open.len() >= OPEN_FILES).then(|| open.remove(0));
                open.push(file.clone());
                if let Some(first) = first {
                    // Better judged too early than forgotten.
                    self.closed(event, &first);
                }
            }
            // Others have it open still, this process perhaps among them.
            FileOp::CloseWrite if file.has_writers => {}
            FileOp::CloseWrite => {
                if let Some(open) = self.writers.get(&process) {
                    // A mapping outlives the descriptor; only the last writer's close comes as an event.
                    open.retain(|f| !same_inode(f, file));
                }
            }
            _ => {}
        }
    }

    /// Judges what an exiting process had open for write.
    pub(super) fn close_all(&mut self, event: &Event) {
        for file in self.writers.remove(&event.task.process).unwrap_or_default() {
            self.closed(event, &file);
        }
    }

    /// Judges as if the close had been seen at `event`.
    fn closed(&mut self, event: &Event, file: &FileRef) {
        // It is known as it was when it was opened.
        let now = self.facts.again(&event.task, file).unwrap_or_else(|| file.clone());
        let file = &FileRef { has_writers: false, ..now };
        let body = Body::File { op: FileOp::CloseWrite, file: file.clone(), target: None, mode: None };
        let close = Event { time_ns: event.time_ns, flavour: event.flavour, task: event.task.clone(), body };
        self.file(&close, FileOp::CloseWrite, file, None, None);
    }
}
