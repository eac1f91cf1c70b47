//! Files of the SBOM that are open for write for long. The close of the last writer, by which a file is judged, may never come: so they
//! are looked at meanwhile, and again when they have changed since, each time after twice as long. What was open before the agent
//! started is looked at for the first time then.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::before::in_ticks;
use super::change::By;
use super::report::About;
use super::{FILE_TYPE, Facts, Judge, Known, Now, REGULAR};
use crate::event::{Content, Event, FileOp, FilePath, FileRef, Flavour, Inode, Place, ProcessId};
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
    /// It was open before the agent started.
    before: bool,
}

/// Files of the SBOM that are open for write.
#[derive(Default)]
pub(super) struct Held {
    open: BTreeMap<Inode, Open>,
    /// Those that were open before the agent, by path, if they were what their workload had there. Nobody told their generation, nor on
    /// overlayfs their device.
    before: HashMap<FilePath, Vec<(Arc<Workload>, Inode)>>,
    due_ns: Option<u64>,
}

impl Held {
    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        self.due_ns.is_some_and(|due| due <= now_ns)
    }

    /// As what it is known. Nobody told the generation of what was open before the agent.
    fn key(&self, file: &FileRef) -> Option<Inode> {
        let inode = file.identity.inode();
        let unsure = Inode { generation: 0, ..inode };
        if self.open.contains_key(&inode) {
            return Some(inode);
        }
        self.open.get(&unsure).is_some_and(|open| open.before).then_some(unsure)
    }

    /// Of what was open before the agent: files that have this one's path, number and kind of file system in some workload. Whether they
    /// are it their devices do not say.
    fn alike(&self, file: &FileRef) -> Vec<(Arc<Workload>, Inode)> {
        let numbers = [file.identity.ino, file.identity.real.ino];
        let is_alike = |inode: &Inode| {
            numbers.contains(&inode.ino)
                && self.open.get(inode).is_some_and(|open| {
                    let other = &open.file;
                    let is_memory = |file: &FileRef| file.place == Place::Tmpfs;
                    !other.served && !file.served && is_memory(other) == is_memory(file)
                })
        };
        let named = self.before.get(&file.path).map(Vec::as_slice).unwrap_or_default();
        named.iter().filter(|(_, inode)| is_alike(inode)).cloned().collect()
    }

    /// The last writer has closed it.
    fn close(&mut self, inode: Inode) {
        if let Some(open) = self.open.remove(&inode)
            && open.before
            && let Some(named) = self.before.get_mut(&open.file.path)
        {
            named.retain(|(_, other)| *other != inode);
            if named.is_empty() {
                self.before.remove(&open.file.path);
            }
        }
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

    /// Of what is watched.
    #[cfg(test)]
    pub(super) fn devices(&self) -> Vec<u32> {
        self.open.keys().map(|inode| inode.dev).collect()
    }

    /// What is looked at by then.
    fn due(&self, now_ns: u64) -> Vec<Inode> {
        self.open.iter().filter(|(_, open)| open.due_ns <= now_ns).map(|(inode, _)| *inode).collect()
    }

    fn set_due(&mut self) {
        self.due_ns = self.open.values().map(|open| open.due_ns).min();
    }
}

impl<F: Facts, S: FnMut(Finding)> Judge<F, S> {
    /// A file was opened for write, or closed by a writer.
    pub(super) async fn note_held(&self, now: Now<'_, F::Case>, op: FileOp, file: &FileRef) {
        let (known, now_ns) = (self.held_as(now, file).await, now.event.time_ns);
        match (op, known) {
            (FileOp::OpenWrite | FileOp::Create | FileOp::MapWrite, None) => {
                self.hold_open(now, op, file, false).await;
            }
            (FileOp::CloseWrite, Some(inode)) if file.has_writers => {
                self.held.with(|held| held.changed(inode, now_ns));
                self.look_at_held(now, now_ns).await;
            }
            (FileOp::CloseWrite, None) if file.has_writers => {
                self.hold_open(now, op, file, false).await;
                self.held.with(|held| held.changed(file.identity.inode(), now_ns));
                self.look_at_held(now, now_ns).await;
            }
            (FileOp::CloseWrite, Some(inode)) => self.held.with(|held| held.close(inode)),
            _ => {}
        }
    }

    /// As what an event's file is known. By a path nobody's watch is taken: who has a root directory of his own has each path in it. Where
    /// `stat` does not give the kernel's device (overlayfs, file systems with subvolumes) both must be what the workload has at the path.
    async fn held_as(&self, now: Now<'_, F::Case>, file: &FileRef) -> Option<Inode> {
        let (key, alike) = self.held.with(|held| match held.key(file) {
            Some(key) => (Some(key), Vec::new()),
            None if held.before.is_empty() => (None, Vec::new()),
            None => (None, held.alike(file)),
        });
        if key.is_some() || alike.is_empty() {
            return key;
        }
        let workload = self.facts.workload(now.case);
        let (_, inode) = alike.into_iter().find(|(of, _)| of.info.id == workload.info.id)?;
        self.facts.is_at(now.case, &workload, &file.path, file).await.then_some(inode)
    }

    /// Processes had a file open for write before the agent started. It is looked at now, and what becomes of it later is judged as if
    /// the open had been seen.
    pub(super) async fn was_writing(&self, now: Now<'_, F::Case>, file: &FileRef, processes: &[ProcessId]) {
        if now.event.flavour == Flavour::Tracepoint {
            for process in processes {
                self.writes(now, in_ticks(*process), file).await;
            }
        }
        if self.held.with(|held| held.key(file)).is_none() {
            let workload = self.facts.workload(now.case);
            let on_host = self.as_host_names(now, &workload, file, None);
            let file = on_host.as_ref().map_or(file, |(file, _)| file);
            self.hold_open(now, FileOp::OpenWrite, file, true).await;
            self.look_at_held(now, now.event.time_ns).await;
        }
    }

    /// From now on it is looked at, if the SBOM has it. `before`: it was open before the agent started.
    async fn hold_open(&self, now: Now<'_, F::Case>, op: FileOp, file: &FileRef, before: bool) {
        let inode = file.identity.inode();
        if file.mode & FILE_TYPE != REGULAR || inode.ino == 0 {
            return;
        }
        let workload = self.facts.workload(now.case);
        let Some(image) = self.image_of(now, &workload) else { return };
        let by = By { now, workload: &workload, of: &workload, image: &image, op: FileOp::OpenWrite };
        let is_listed = verdict::provable_path(file).is_some_and(|path| image.index.by_path(path).is_some())
            || self.listed_as(&by, file).await.is_some();
        if !is_listed {
            return;
        }
        if self.held.with(|held| held.open.len()) >= FILES {
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
            return self.report(now, &workload.info, judgement, &about);
        }
        let is_there = before && self.facts.is_at(now.case, &workload, &file.path, file).await;
        let event = now.event;
        let due_ns = if before { event.time_ns } else { event.time_ns.saturating_add(PATIENCE_NS) };
        let open = Open {
            event: event.clone(),
            file: file.clone(),
            workload: Arc::clone(&workload),
            due_ns,
            wait_ns: PATIENCE_NS,
            looked_ns: None,
            seen: None,
            told: None,
            before,
        };
        self.held.with(|held| {
            if is_there {
                held.before.entry(file.path.clone()).or_default().push((workload, inode));
            }
            held.open.insert(inode, open);
            held.due_ns = Some(held.due_ns.map_or(due_ns, |due| due.min(due_ns)));
        });
    }

    /// Looks at what is open for too long.
    pub(super) async fn look_at_held(&self, now: Now<'_, F::Case>, now_ns: u64) {
        if !self.held.with(|held| held.is_due(now_ns)) {
            return;
        }
        for inode in self.held.with(|held| held.due(now_ns)) {
            let Some(mut open) = self.held.with(|held| held.open.remove(&inode)) else { continue };
            self.look_at(now, &mut open, now_ns).await;
            // The first look at what was open before the agent is not one of those that follow.
            if !open.before || open.looked_ns.is_some() {
                open.wait_ns = open.wait_ns.saturating_mul(2).min(AT_MOST_NS);
            }
            open.looked_ns = Some(now_ns);
            open.due_ns = now_ns.saturating_add(open.wait_ns);
            self.held.with(|held| held.open.insert(inode, open));
        }
        self.held.with(Held::set_due);
    }

    async fn look_at(&self, now: Now<'_, F::Case>, open: &mut Open, now_ns: u64) {
        let Some(image) = self.image_of(Now { event: &open.event, ..now }, &open.workload) else { return };
        let Some(file) = self.facts.again(now.case, &open.event.task, &open.file).await else { return };
        let seen = (file.identity.size, file.identity.ctime_ns);
        if open.seen.replace(seen) == Some(seen) {
            return;
        }
        let event = Event { time_ns: now_ns, ..open.event.clone() };
        let now = Now { event: &event, ..now };
        let workload = Arc::clone(&open.workload);
        let by = By { now, workload: &workload, of: &workload, image: &image, op: FileOp::OpenWrite };
        let since = match open.before {
            true => "since before the agent started".to_owned(),
            false => {
                let since = Duration::from_nanos(now_ns.saturating_sub(open.event.time_ns));
                format!("for {} s", since.as_secs())
            }
        };
        self.judge_held(&by, &file, &since, &mut open.told).await;
    }

    async fn judge_held(&self, by: &By<'_, F::Case>, file: &FileRef, since: &str, told: &mut Option<Sha256>) {
        let image: &Arc<Known> = by.image;
        let name: FilePath = self.listed_as(by, file).await.unwrap_or_else(|| file.path.clone());
        let mut observation = self.observe_as(by, file, &name).await;
        let (mut judgement, session) = self.consider(by.now, by.workload, image, &mut observation).await;
        // What a package manager has open it will close; and that nothing can be said of it is said then.
        let says_nothing = judgement.is_silent() || judgement.verdict == Verdict::PathOnly;
        if session.is_some() || says_nothing {
            return;
        }
        if let Content::Known { sha256, .. } = observation.content
            && told.replace(sha256) == Some(sha256)
        {
            return;
        }
        judgement.reason =
            format!("{}; it has been open for write {since}, so this may not be all", judgement.reason);
        self.found(by.now, by.workload, image, &observation, &judgement);
    }
}
