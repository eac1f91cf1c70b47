//! The stage that joins the rooms: takes events, asks who did it and what the files hold, lets
//! [`verdict`](crate::verdict) say what the SBOM says, and hands findings on. It holds no rule about content.
//!
//! What is judged:
//!
//! * *exec*: the binary; of a script both script and interpreter. *library*: the mapped file.
//! * *file*: on the close of its last writer, a rename, link, truncate by name or `chmod`, the file, if the SBOM has its
//!   path or it is a program (executable mode, or it starts like one): a program that is in no SBOM is reported before
//!   it ever runs. The removal of a name of the SBOM. Data that the SBOM does not know stays silent. While a file has
//!   writers only its close is judged.
//! * of the host, what its package manager did is held back until that has ended ([`updates`]).
//! * *connect*: carries the worst verdict of what the process runs: its binary, its script, its libraries. What ran
//!   before the agent is judged once when it starts ([`running`]); before its turn comes, at its first connect.
//!
//! What is reported how often: every occurrence, with these exceptions. `path_only` and `package_derived` come once for an
//! image and path, the use of an `updated` file once for its path and content, copies of attested content once for a process and
//! directory of a container, and of a host not at all.
//! `no_sbom`, `unverified`, `platform_unproven` and `stale_trust_root` come once for an image (or a workload without a known image),
//! and again when the image's state has changed; `attested` without a path says that the image has a verified SBOM now, or another
//! one than before. That an image is judged by what was verified before and is lost now is repeated while it lasts. Without an SBOM nothing else is said of a workload's files. A connect by a program that is `attested`,
//! `attested_weak`, `path_only`, `package_derived` or `updated` as its package says is silent.
//!
//! What runs already when the images change is judged by the new state from then on: each connect looks at what its program
//! was found to be, and again at the program itself if that was before the change.
//!
//! Events are judged one by one in the order in which they come, by one thread, so their order within a workload is
//! kept.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::event::{
    Action, Body, Connect, Content, Event, FileOp, FilePath, FileRef, Flavour, Observation, Place, ProcessId,
    Task,
};
use crate::finding::{Finding, Severity, Sha256, Verdict};
use crate::identity::Digests;
use crate::images::Image;
use crate::metrics::Metrics;
use crate::recent::{Recent, Seeded};
use crate::verdict::{self, Judgement};
use crate::workload::Workload;

mod before;
mod bookkeeping;
mod facts;
mod image;
mod live;
mod loss;
mod mounts;
mod once;
mod program;
mod report;
mod running;
mod silent;
mod stage;
#[cfg(test)]
mod tests;
mod updates;

use before::Before;
pub use facts::{Ancestry, Facts, Settled, Unsettled};
use image::{Known, Losses, STATES, Said};
pub use live::{Live, since_boot};
use once::Once;
use program::{Program, Ran, culprit, is_harmless, worse};
use report::About;
pub use running::Running;
use silent::Silent;
pub use stage::{Handover, QUEUE, Rooms, Seen, Stage};
use updates::{Of, Updates};

/// Processes whose programs are remembered.
const PROCESSES: usize = 131_072;

/// Type bits of a mode (`S_IFMT`) and those of a regular file (`S_IFREG`).
const FILE_TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
/// Any of the execute bits.
const EXECUTABLE: u32 = 0o111;

/// Files open for write that are kept for one process.
const OPEN_FILES: usize = 256;

/// Files that were given further names, of which these are remembered; and how many of them for one file.
const LINKS: usize = 16_384;
const NAMES: usize = 4;

/// Finds an image by its digests.
pub type ImageSource = Box<dyn Fn(&Digests) -> Arc<Image> + Send>;

/// Judges events.
pub struct Judge<F, S> {
    facts: F,
    sink: S,
    source: ImageSource,
    metrics: Arc<Metrics>,
    /// What was made since is newer than an SBOM of which nothing else is known.
    started: Option<SystemTime>,
    /// How often the images have changed.
    epoch: u64,
    images: HashMap<Arc<Digests>, Option<Arc<Known>>>,
    /// By the digest under which the image is shown.
    numbers: HashMap<Sha256, u32>,
    /// What was last said of an image's state: by image, or by workload without one.
    states: Seeded<String, Said>,
    losses: Losses,
    silent: Silent,
    /// Pairs of image and path for which `path_only` or `package_derived` was reported.
    once: Once,
    programs: Recent<ProcessId, Program>,
    before: Before,
    /// Tracepoint flavour: files that a process opened for write and whose close was not seen.
    writers: Recent<ProcessId, Vec<FileRef>>,
    /// Device and inode → names of it that were made since the agent started, and those that it had then.
    links: Recent<(u32, u64), Vec<FilePath>>,
    updates: Updates,
}

impl<F: fmt::Debug, S> fmt::Debug for Judge<F, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl<F: Facts, S: FnMut(Finding)> Judge<F, S> {
    /// A judge that knows nothing yet. `sink` takes the findings; their `sequence` is 0.
    pub fn new(facts: F, source: ImageSource, metrics: Arc<Metrics>, sink: S) -> Self {
        Self {
            facts,
            sink,
            source,
            metrics,
            started: None,
            epoch: 0,
            images: HashMap::new(),
            numbers: HashMap::new(),
            states: Seeded::seeded(STATES),
            losses: Losses::default(),
            silent: Silent::new(),
            once: Once::new(),
            programs: Recent::new(PROCESSES),
            before: Before::new(),
            writers: Recent::new(PROCESSES),
            links: Recent::new(LINKS),
            updates: Updates::new(&crate::config::Host::default().package_managers),
        }
    }

    /// The agent started then.
    #[must_use]
    pub fn started(self, at: SystemTime) -> Self {
        Self { started: Some(at), ..self }
    }

    /// The images may have changed: all are asked for again, and what was silent is judged anew.
    pub fn images_changed(&mut self) {
        self.epoch += 1;
        self.images.clear();
        self.silent.clear();
    }

    /// The facts.
    pub fn facts(&mut self) -> &mut F {
        &mut self.facts
    }

    /// Judges one event.
    pub fn event(&mut self, event: &Event) {
        self.facts.begin(event);
        self.at(event.time_ns);
        self.repeat_losses(event);
        match &event.body {
            Body::Exec { exe, script } => self.exec(event, exe, script.as_ref()),
            Body::Library { file, .. } => self.library(event, file),
            Body::File { op, file, target, mode } => {
                self.file(event, *op, file, target.as_ref(), *mode);
            }
            Body::Connect(connect) => self.connect(event, connect),
            Body::Fork { parent } => {
                if let Some(program) = self.program_of(*parent) {
                    self.programs.insert(event.task.process, program);
                }
                self.updates.fork(*parent, event.task.process);
            }
            Body::Exit { .. } => {
                self.close_all(event);
                self.programs.remove(&event.task.process);
                self.before.ended(event.task.process);
                self.updates.end(event.task.process, event.time_ns);
            }
            Body::Running { file, library, processes } => self.running(event, file, *library, processes),
            // Only time passes.
            Body::Lost { count: 0, .. } => {}
            Body::Lost { kind, cause, count, since_ns } => {
                self.lost(event, *kind, *cause, *count, *since_ns);
            }
        }
        self.facts.end();
    }

    fn exec(&mut self, event: &Event, exe: &FileRef, script: Option<&FileRef>) {
        self.before.ran(event.task.process);
        let workload = self.facts.workload();
        let Some(image) = self.image_of(event, &workload) else {
            self.programs.remove(&event.task.process);
            self.unjudged(event, &workload, script.unwrap_or(exe));
            return;
        };
        let action = if script.is_some() { Action::Interpreter } else { Action::Exec };
        let Ran { mut culprit, mut attested } = self.run(event, &workload, &image, exe, action);
        if let Some(script) = script {
            let other = self.run(event, &workload, &image, script, Action::Script);
            culprit = worse(culprit, other.culprit);
            attested = other.attested.filter(|_| attested.is_some());
        }
        self.programs.insert(event.task.process, Program { epoch: self.epoch, culprit });
        if workload.is_host {
            self.program_was_run(event, attested.as_ref());
        }
    }

    fn library(&mut self, event: &Event, file: &FileRef) {
        let workload = self.facts.workload();
        let Some(image) = self.image_of(event, &workload) else { return };
        let culprit = self.run(event, &workload, &image, file, Action::Library).culprit;
        if let Some(culprit) = &culprit {
            self.runs_unattested(event.task.process, culprit.severity);
        }
        if culprit.is_some()
            && let Some(program) = self.programs.get(&event.task.process)
        {
            program.culprit = worse(program.culprit.take(), culprit);
        }
    }

    fn connect(&mut self, event: &Event, connect: &Connect) {
        let workload = self.facts.workload();
        let Some(image) = self.image_of(event, &workload) else { return };
        let task = &event.task;
        let known = self.program_of(task.process).map(|program| (program.epoch, program.culprit));
        let culprit = match known {
            Some((epoch, culprit)) if epoch == self.epoch => culprit,
            before => {
                // What was found then is judged by what the SBOM says now; and what was attested then may not be now.
                let found = before.and_then(|(_, found)| found).and_then(|c| {
                    let judgement = image.judge(&c.observation);
                    culprit(c.observation.clone(), &judgement)
                });
                let culprit = worse(found, self.program_before(task, &workload, &image));
                self.programs.insert(task.process, Program { epoch: self.epoch, culprit: culprit.clone() });
                culprit
            }
        };
        let Some(culprit) = culprit else { return };
        let mut observation = culprit.observation.clone();
        observation.action = Action::Connect;
        observation.root = task.euid == 0;
        let mut judgement = image.judge(&observation);
        if is_harmless(&judgement) {
            // The image's SBOM has come, or changed, since the program was started.
            return;
        }
        judgement.reason = format!("by a program of which: {}", judgement.reason);
        let about = About {
            file: Some(&observation.file),
            content: Some(&observation.content),
            connect: Some(connect),
            image: Some(&image),
            operation: None,
        };
        self.report(event, &workload.info, judgement, &about);
    }

    /// Looks at a file: what it holds, and where that may matter, which package owns it.
    fn observe(
        &mut self,
        task: &Task,
        workload: &Workload,
        image: &Known,
        file: FileRef,
        action: Action,
    ) -> Observation {
        let fresh = is_fresh(&file, workload, image);
        let asks = !workload.is_host && verdict::wants_owner(action, &file, fresh, &image.index);
        let owner = if asks { self.facts.owner(workload, &image.index, &file) } else { None };
        // What the package manager writes is compared with its database later.
        let is_update =
            matches!(action, Action::Change(_)) && workload.is_host && self.updates.session(task).is_some();
        let weak = is_update || verdict::wants_weak(&image.index, &file, owner.as_ref());
        let content = self.facts.content(task, &file, action, weak);
        Observation {
            action,
            file,
            content,
            fresh,
            root: task.euid == 0,
            on_host: workload.is_host,
            owner,
            update: None,
        }
    }

    fn file(
        &mut self,
        event: &Event,
        op: FileOp,
        file: &FileRef,
        target: Option<&FilePath>,
        mode: Option<u32>,
    ) {
        self.silent.forget(file);
        if event.flavour == Flavour::Tracepoint {
            self.note_writer(event, op, file);
        }
        let judged = match op {
            // The content is there when the writer closes it; a new name of its own has none.
            FileOp::OpenWrite | FileOp::Create | FileOp::MapWrite => false,
            FileOp::Chmod | FileOp::Truncate => !file.has_writers,
            FileOp::Rename | FileOp::Link | FileOp::Unlink | FileOp::CloseWrite => true,
        };
        if !judged {
            return;
        }
        let workload = self.facts.workload();
        let Some(image) = self.image_of(event, &workload) else { return };
        if matches!(op, FileOp::Rename | FileOp::Unlink) {
            let removed = verdict::removed(file, target, &image.index);
            let [away, replaced] = match (op, target) {
                (FileOp::Rename, Some(target)) => verdict::moved(file, target, &image.index),
                _ => [None, None],
            };
            // Some documents list directories as well.
            self.name_changed(event, &workload, &image, op, file, removed.or(away));
            if let (Some(replaced), Some(target)) = (replaced, target) {
                let file = FileRef { path: target.clone(), ..file.clone() };
                self.name_changed(event, &workload, &image, op, &file, Some(replaced));
            }
        }
        // As it was until now, if that says where it is.
        let former = (op == FileOp::Link && !file.deleted && !file.by_name).then(|| file.path.clone());
        let mut file = file.clone();
        match (op, target) {
            (FileOp::Unlink, _) => return,
            (FileOp::Rename | FileOp::Link, Some(target)) => {
                // A path that is cut or relative lacks its leading slash; a name alone (tracepoint flavour) says nothing of
                // the file that has it.
                file.by_name |= target.as_bytes().first() != Some(&b'/');
                file.path = target.clone();
                file.truncated = false;
            }
            // Under this name nobody can run it any more, but it may have others.
            (FileOp::CloseWrite, _) if file.deleted => match self.other_name(&file) {
                Some(name) => (file.path, file.deleted) = (name, false),
                None if file.nlink == 0 => return,
                None => {}
            },
            _ => {}
        }
        if let Some(mode) = mode {
            file.mode = file.mode & FILE_TYPE | mode & !FILE_TYPE;
        }
        if file.by_name {
            match self.facts.resolve(&event.task, &file) {
                Ok(resolved) => {
                    let permissions = mode.unwrap_or(resolved.mode);
                    file = FileRef { mode: resolved.mode & FILE_TYPE | permissions & !FILE_TYPE, ..resolved };
                }
                // The name is gone, or what has it now is not what had it.
                Err(_) if file.mode & EXECUTABLE == 0 => return,
                Err(_) => {}
            }
        }
        if op == FileOp::Link {
            self.note_link(&file, former.as_ref());
        }
        let task = &event.task;
        if !self.is_of_interest(task, &file, &image) {
            return;
        }
        let mut observation = self.observe(task, &workload, &image, file, Action::Change(op));
        let (judgement, session) = self.consider(task, &workload, &image, &mut observation);
        match session {
            Some(session) => {
                self.hold(event, &workload, &image, session, judgement, Of::Observed(Box::new(observation)));
            }
            None => self.found(event, &workload, &image, &observation, &judgement),
        }
    }

    /// A name that the SBOM has, or that has files of it below, was taken away or given to something else.
    fn name_changed(
        &mut self,
        event: &Event,
        workload: &Workload,
        image: &Arc<Known>,
        op: FileOp,
        file: &FileRef,
        judgement: Option<Judgement>,
    ) {
        let Some(judgement) = judgement else { return };
        let judgement = image.tempered(judgement);
        let session = if workload.is_host { self.updates.session(&event.task) } else { None };
        if let Some(session) = session {
            self.hold(event, workload, image, session, judgement, Of::Removed(file));
            return;
        }
        let about =
            About { file: Some(file), operation: Some(op), image: Some(image), content: None, connect: None };
        self.report(event, &workload.info, judgement, &about);
    }

    /// Remembers the names of a file that has several: who closes it may have opened it by one that is gone by then.
    fn note_link(&mut self, file: &FileRef, former: Option<&FilePath>) {
        if file.identity.ino == 0 {
            return;
        }
        let key = (file.identity.dev, file.identity.ino);
        let mut names = self.links.get(&key).map(std::mem::take).unwrap_or_default();
        for name in former.into_iter().chain([&file.path]) {
            if !names.contains(name) && names.len() < NAMES {
                names.push(name.clone());
            }
        }
        self.links.insert(key, names);
    }

    /// Another name of a file whose own is gone.
    fn other_name(&mut self, file: &FileRef) -> Option<FilePath> {
        if file.nlink == 0 {
            return None;
        }
        let names = self.links.get(&(file.identity.dev, file.identity.ino))?;
        names.iter().find(|name| **name != file.path).cloned()
    }

    /// The tracepoints see no close that an exit or an unmapping makes, so what a process opened for write is kept until its
    /// close is seen, or until it exits.
    fn note_writer(&mut self, event: &Event, op: FileOp, file: &FileRef) {
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
    fn close_all(&mut self, event: &Event) {
        for file in self.writers.remove(&event.task.process).unwrap_or_default() {
            self.closed(event, &file);
        }
    }

    /// Judges as if the close had been seen at `event`.
    fn closed(&mut self, event: &Event, file: &FileRef) {
        let body = Body::File { op: FileOp::CloseWrite, file: file.clone(), target: None, mode: None };
        let close = Event { time_ns: event.time_ns, flavour: event.flavour, task: event.task.clone(), body };
        self.file(&close, FileOp::CloseWrite, file, None, None);
    }

    /// The SBOM has the path, or it is a program.
    fn is_of_interest(&mut self, task: &Task, file: &FileRef, image: &Known) -> bool {
        if file.mode & FILE_TYPE != REGULAR {
            return false;
        }
        if verdict::provable_path(file).is_some_and(|path| image.index.by_path(path).is_some()) {
            return true;
        }
        // A file that is gone before its first bytes are read can be run by no name any more.
        file.mode & EXECUTABLE != 0 || self.facts.starts_like_program(task, file) == Some(true)
    }

    /// Judges a file that runs or is mapped, and reports it.
    fn run(
        &mut self,
        event: &Event,
        workload: &Workload,
        image: &Arc<Known>,
        file: &FileRef,
        action: Action,
    ) -> Ran {
        if self.silent.has(image.number, file) {
            self.metrics.verdict(Verdict::Attested, Severity::Info);
            return Ran { culprit: None, attested: Some(file.path.clone()) };
        }
        let task = &event.task;
        let resolved = match file.by_name {
            true => self.facts.resolve(task, file),
            false => Ok(file.clone()),
        };
        let mut observation = match resolved {
            Ok(file) => self.observe(task, workload, image, file, action),
            Err(why) => unobserved(action, file.clone(), why, task, workload, image),
        };
        let (judgement, session) = self.consider(task, workload, image, &mut observation);
        if let Some(session) = session {
            self.hold(event, workload, image, session, judgement, Of::Observed(Box::new(observation)));
            return Ran::default();
        }
        let judgement = if workload.helps { program::of_helper(judgement, &observation) } else { judgement };
        if judgement.is_silent()
            && let Content::Known { sha256, .. } = observation.content
        {
            self.silent.add(image.number, &observation.file, sha256);
        }
        let is_attested = judgement.is_silent()
            || (judgement.verdict, judgement.severity) == (Verdict::Updated, Severity::Info);
        let attested = is_attested.then(|| observation.file.path.clone());
        self.found(event, workload, image, &observation, &judgement);
        Ran { culprit: culprit(observation, &judgement), attested }
    }

    /// Counts, and reports what is not silent.
    fn found(
        &mut self,
        event: &Event,
        workload: &Workload,
        image: &Known,
        observation: &Observation,
        judgement: &Judgement,
    ) {
        if let Some(used) = judgement.used {
            image.image.mark_used(used);
        }
        if judgement.is_silent() {
            self.metrics.verdict(Verdict::Attested, Severity::Info);
            return;
        }
        if judgement.quiet {
            self.metrics.verdict(judgement.verdict, judgement.severity);
            return;
        }
        if matches!(judgement.verdict, Verdict::PathOnly | Verdict::PackageDerived)
            && !self.once.is_first((image.number, &observation.file.path))
        {
            return;
        }
        let mut judgement = judgement.clone();
        if once::is_copy(observation, &judgement) {
            let key = (&workload.info.id, event.task.process, once::directory(&observation.file.path));
            if !self.once.is_first(key) {
                self.metrics.verdict(judgement.verdict, judgement.severity);
                return;
            }
            judgement.reason.push_str("; others that this process makes in this directory are counted only");
        }
        if let (Verdict::Updated, Content::Known { sha256, .. }) = (judgement.verdict, &observation.content)
            && !self.updates.is_first_use(&observation.file.path, sha256)
        {
            return;
        }
        let operation = match observation.action {
            Action::Change(op) => Some(op),
            _ => None,
        };
        let about = About {
            file: Some(&observation.file),
            content: Some(&observation.content),
            operation,
            image: Some(image),
            connect: None,
        };
        self.report(event, &workload.info, judgement, &about);
    }

    /// A program of a workload that could not be told: it is in no known image, and that is never the same as attested.
    /// Said at its exec; each of its libraries would only repeat it.
    fn unjudged(&mut self, event: &Event, workload: &Workload, file: &FileRef) {
        if !workload.is_unknown() {
            return;
        }
        let reason = "the process ended before it was known which workload it belongs to, so no SBOM applies";
        let judgement = Judgement::new(Verdict::Undetermined, Severity::Medium, reason.to_owned());
        self.report(event, &workload.info, judgement, &About { file: Some(file), ..About::default() });
    }
}

/// A file whose content cannot be looked at.
fn unobserved(
    action: Action,
    file: FileRef,
    why: Arc<str>,
    task: &Task,
    workload: &Workload,
    image: &Known,
) -> Observation {
    let fresh = is_fresh(&file, workload, image);
    let content = Content::Undetermined(why);
    Observation {
        action,
        file,
        content,
        fresh,
        root: task.euid == 0,
        on_host: workload.is_host,
        owner: None,
        update: None,
    }
}

fn is_fresh(file: &FileRef, workload: &Workload, image: &Known) -> bool {
    let since = if workload.is_host { image.created } else { workload.started };
    let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(file.identity.ctime_ns));
    let late = match (since, changed) {
        (Some(since), Some(changed)) => file.identity.ctime_ns != 0 && changed >= since,
        _ => false,
    };
    match file.place {
        Place::Tmpfs | Place::Memfd => true,
        Place::UpperLayer => !workload.is_host || late,
        Place::Disk | Place::ImageLayer => late,
    }
}

fn same_inode(a: &FileRef, b: &FileRef) -> bool {
    let inode = |f: &FileRef| (f.identity.dev, f.identity.ino, f.identity.generation);
    inode(a) == inode(b)
}
