//! Files of the SBOM that are open for write for long. The close of the last writer, by which a file is judged, may never come: so they
//! are looked at meanwhile, and again when they have changed since, each time after twice as long.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::change::By;
use super::report::About;
use super::{FILE_TYPE, Facts, Judge, Known, REGULAR};
use crate::event::{Content, Event, FileOp, FilePath, FileRef, Inode};
use crate::finding::{Finding, Severity, Sha256, Verdict};
use crate::verdict::{self, Judgement};
use crate::workload::Workload;

/// How long a file may be open for write before it is looked at, nanoseconds.
pub(super) const PATIENCE_NS: u64 = 10_000_000_000;
/// The longest time between two looks.
const AT_MOST_NS: u64 = 3_600_000_000_000;
/// Into how many parts the closes of others may cut the time between two looks.
const OFTEN: u64 = 16;
/// Files that are looked at.
pub(super) const FILES: usize = 8192;

struct Open {
    /// Who opened it.
    event: Event,
    file: FileRef,
    workload: Arc<Workload>,
    /// When it is looked at next, and how long after that again.
    due_ns: u64,
    wait_ns: u64,
    /// When it was looked at last.
    looked_ns: Option<u64>,
    /// Size and change time then.
    seen: Option<(u64, u64)>,
    /// What was reported last.
    told: Option<Sha256>,
}

/// Files of the SBOM that are open for write.
#[derive(Default)]
pub(super) struct Held {
    open: BTreeMap<Inode, Open>,
    due_ns: Option<u64>,
}

impl Held {
    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        self.due_ns.is_some_and(|due| due <= now_ns)
    }

    /// The last writer has closed it.
    fn close(&mut self, inode: Inode) {
        self.open.remove(&inode);
        if self.open.is_empty() {
            self.due_ns = None;
        }
    }

    /// One of several writers has closed it: it is looked at as soon as that may be.
    fn changed(&mut self, inode: Inode, now_ns: u64) {
        let Some(open) = self.open.get_mut(&inode) else { return };
        // What was looked at just now is not looked at for each of many closes.
        let soonest = open.looked_ns.map_or(now_ns, |looked| looked.saturating_add(open.wait_ns / OFTEN));
        open.due_ns = open.due_ns.min(soonest.max(now_ns));
        self.set_due();
    }

    fn set_due(&mut self) {
        self.due_ns = self.open.values().map(|open| open.due_ns).min();
    }
}

impl<F: Facts, S: FnMut(Finding)> Judge<F, S> {
    /// A file was opened for write, or closed by a writer.
    pub(super) fn note_held(&mut self, event: &Event, op: FileOp, file: &FileRef) {
        let inode = file.identity.inode();
        match op {
            FileOp::OpenWrite | FileOp::Create | FileOp::MapWrite => {}
            FileOp::CloseWrite if file.has_writers => {
                self.held.changed(inode, event.time_ns);
                if self.held.open.contains_key(&inode) {
                    return self.look_at_held(event.time_ns);
                }
            }
            FileOp::CloseWrite => return self.held.close(inode),
            _ => return,
        }
        if file.mode & FILE_TYPE != REGULAR || inode.ino == 0 || self.held.open.contains_key(&inode) {
            return;
        }
        let workload = self.facts.workload();
        let Some(image) = self.image_of(event, &workload) else { return };
        let by = By { event, workload: &workload, of: &workload, image: &image, op: FileOp::OpenWrite };
        let is_listed = verdict::provable_path(file).is_some_and(|path| image.index.by_path(path).is_some())
            || self.listed_as(&by, file).is_some();
        if !is_listed {
            return;
        }
        if self.held.open.len() >= FILES {
            let reason = "the SBOM has a file here, which was opened for write, and so many others were, too, that it is not \
                          known what it will hold until the last writer closes it";
            let judgement = Judgement::new(Verdict::Undetermined, Severity::Medium, reason.to_owned());
            let about = About {
                file: Some(file),
                operation: Some(op),
                image: Some(&image),
                content: None,
                connect: None,
            };
            return self.report(event, &workload.info, judgement, &about);
        }
        let due_ns = event.time_ns.saturating_add(PATIENCE_NS);
        let open = Open {
            event: event.clone(),
            file: file.clone(),
            workload,
            due_ns,
            wait_ns: PATIENCE_NS,
            looked_ns: None,
            seen: None,
            told: None,
        };
        self.held.open.insert(inode, open);
        self.held.due_ns = Some(self.held.due_ns.map_or(due_ns, |due| due.min(due_ns)));
        if op == FileOp::CloseWrite {
            self.held.changed(inode, event.time_ns);
            self.look_at_held(event.time_ns);
        }
    }

    /// Looks at what is open for too long.
    pub(super) fn look_at_held(&mut self, now_ns: u64) {
        if !self.held.is_due(now_ns) {
            return;
        }
        let due: Vec<Inode> = self
            .held
            .open
            .iter()
            .filter(|(_, open)| open.due_ns <= now_ns)
            .map(|(inode, _)| *inode)
            .collect();
        for inode in due {
            let Some(mut open) = self.held.open.remove(&inode) else { continue };
            self.look_at(&mut open, now_ns);
            open.looked_ns = Some(now_ns);
            open.wait_ns = open.wait_ns.saturating_mul(2).min(AT_MOST_NS);
            open.due_ns = now_ns.saturating_add(open.wait_ns);
            self.held.open.insert(inode, open);
        }
        self.held.set_due();
    }

    fn look_at(&mut self, open: &mut Open, now_ns: u64) {
        let Some(image) = self.image_of(&open.event, &open.workload) else { return };
        let Some(file) = self.facts.again(&open.event.task, &open.file) else { return };
        let seen = (file.identity.size, file.identity.ctime_ns);
        if open.seen.replace(seen) == Some(seen) {
            return;
        }
        let event = Event { time_ns: now_ns, ..open.event.clone() };
        let workload = Arc::clone(&open.workload);
        let by =
            By { event: &event, workload: &workload, of: &workload, image: &image, op: FileOp::OpenWrite };
        let since = std::time::Duration::from_nanos(now_ns.saturating_sub(open.event.time_ns));
        self.judge_held(&by, &file, since, &mut open.told);
    }

    fn judge_held(
        &mut self,
        by: &By<'_>,
        file: &FileRef,
        since: std::time::Duration,
        told: &mut Option<Sha256>,
    ) {
        let image: &Arc<Known> = by.image;
        let name: FilePath = self.listed_as(by, file).unwrap_or_else(|| file.path.clone());
        let mut observation = self.observe_as(by, file, &name);
        let (mut judgement, session) = self.consider(&by.event.task, by.workload, image, &mut observation);
        // What a package manager has open it will close.
        if session.is_some() || judgement.is_silent() {
            return;
        }
        if let Content::Known { sha256, .. } = observation.content
            && told.replace(sha256) == Some(sha256)
        {
            return;
        }
        judgement.reason = format!(
            "{}; it has been open for write for {} s, so this may not be all",
            judgement.reason,
            since.as_secs()
        );
        self.found(by.event, by.workload, image, &observation, &judgement);
    }
}
