//! The stage that joins the rooms: takes events, asks who did it and what the files hold, lets
//! [`verdict`](crate::verdict) say what the SBOM says, and hands findings on. It holds no rule about content.
//!
//! What is judged:
//!
//! * *exec*: the binary; of a script both script and interpreter. *library*: the mapped file.
//! * *file*: on the close of its last writer, a rename, link, truncate by name or `chmod`, the file, if the SBOM has its
//!   path or it is a program (executable mode, or it starts like one): a program that is in no SBOM is reported before
//!   it ever runs. The removal of a name of the SBOM, and what is no file in its place. Data that the SBOM does not know stays
//!   silent, as do relocatable objects and core files, and what has nothing of a program but an execute bit that is gone after a
//!   second ([`interest`], [`settling`]). While a file has writers only its close is judged, but one of the SBOM also while it is
//!   open for long ([`held`]). The SBOM may have the file by another name, a hard link's or another mount's ([`names`]); what a
//!   container changes of the host is judged by the host's SBOM as well.
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
//! Events are judged by one thread. One that needs a file read waits for that at an await, and others may be judged meanwhile: so all that
//! the judge remembers is in parts that nobody can have across an await ([`part`]). [`Judge::event`] judges one by one, for facts that are
//! there at once.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use crate::event::{
    Action, Body, Connect, Content, Event, FileRef, Observation, Place, ProcessId, Role, Task, Unread,
};
use crate::finding::{Finding, Severity, Sha256, Verdict};
use crate::identity::Digests;
use crate::images::Image;
use crate::metrics::Metrics;
use crate::part::Part;
use crate::recent::{Recent, Seeded};
use crate::verdict::{self, Judgement};
use crate::workload::Workload;

mod before;
mod bookkeeping;
mod change;
mod device;
mod facts;
mod held;
mod image;
mod interest;
mod links;
mod live;
mod loss;
mod mounts;
mod names;
mod once;
mod program;
mod report;
mod running;
mod settling;
mod silent;
mod stage;
#[cfg(test)]
mod tests;
mod updates;
mod writers;

use before::Before;
use device::WrittenDevices;
pub use facts::{Ancestry, Facts, HostName, Settled, Unsettled};
use held::Held;
use image::{Known, Losses, STATES, Said};
use links::Links;
pub use live::{Live, since_boot};
use once::Once;

use program::{Program, Ran, culprit, is_harmless, worse};
use report::About;
pub use running::Running;
use settling::Settling;
use silent::Silent;
pub use stage::{Handover, QUEUE, Rooms, Seen, Stage};
use updates::{Of, Updates};
use writers::Writers;

/// Processes whose programs are remembered.
const PROCESSES: usize = 131_072;

/// Type bits of a mode (`S_IFMT`) and those of a regular file (`S_IFREG`).
const FILE_TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
/// Any of the execute bits.
const EXECUTABLE: u32 = 0o111;

/// Finds an image by its digests.
pub type ImageSource = Box<dyn Fn(&Digests) -> Arc<Image> + Send>;

/// Judges events.
pub struct Judge<F, S> {
    facts: F,
    sink: Part<S>,
    source: ImageSource,
    metrics: Arc<Metrics>,
    /// What was made since is newer than an SBOM of which nothing else is known.
    started: Option<SystemTime>,
    /// How often the images have changed.
    epoch: Cell<u64>,
    images: Part<HashMap<Arc<Digests>, Option<Arc<Known>>>>,
    /// By the digest under which the image is shown.
    numbers: Part<HashMap<Sha256, u32>>,
    /// What was last said of an image's state: by image, or by workload without one.
    states: Part<Seeded<String, Said>>,
    losses: Part<Losses>,
    silent: Part<Silent>,
    /// Pairs of image and path for which `path_only` or `package_derived` was reported.
    once: Part<Once>,
    programs: Part<Recent<ProcessId, Program>>,
    before: Part<Before>,
    /// Of the tracepoint flavour alone.
    writers: Part<Writers>,
    links: Part<Links>,
    held: Part<Held>,
    written_devices: Part<WrittenDevices>,
    settling: Part<Settling>,
    updates: Part<Updates>,
}

/// The event that is judged, and what is known of it since it came.
pub(super) struct Now<'a, C> {
    pub(super) event: &'a Event,
    pub(super) case: &'a C,
}

impl<C> Clone for Now<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Now<'_, C> {}

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
            sink: Part::new(sink),
            source,
            metrics,
            started: None,
            epoch: Cell::new(0),
            images: Part::default(),
            numbers: Part::default(),
            states: Part::new(Seeded::seeded(STATES)),
            losses: Part::default(),
            silent: Part::new(Silent::new()),
            once: Part::new(Once::new()),
            programs: Part::new(Recent::new(PROCESSES)),
            before: Part::new(Before::new()),
            writers: Part::new(Writers::new()),
            links: Part::new(Links::new()),
            held: Part::default(),
            written_devices: Part::default(),
            settling: Part::default(),
            updates: Part::new(Updates::new(&crate::config::Host::default().package_managers)),
        }
    }

    /// The agent started then.
    #[must_use]
    pub fn started(self, at: SystemTime) -> Self {
        Self { started: Some(at), ..self }
    }

    /// The images may have changed: all are asked for again, and what was silent is judged anew.
    pub fn images_changed(&self) {
        self.epoch.update(|epoch| epoch + 1);
        self.images.with(HashMap::clear);
        self.silent.with(Silent::clear);
    }

    /// The facts.
    pub fn facts(&self) -> &F {
        &self.facts
    }

    /// Judges one event with facts that are there at once.
    ///
    /// # Panics
    /// An answer is not there.
    pub fn event(&self, event: &Event) {
        let judged = pin!(self.judge(event));
        match judged.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(()) => {}
            Poll::Pending => unreachable!("the facts of a judge that judges one by one are there at once"),
        }
    }

    async fn judge(&self, event: &Event) {
        let case = &self.facts.begin(event);
        let (now, time_ns) = (Now { event, case }, event.time_ns);
        self.settle_sessions(now).await;
        self.repeat_losses(now);
        self.look_at_held(now, time_ns).await;
        self.look_at_devices(now, time_ns).await;
        self.settle_files(now, time_ns).await;
        let process = event.task.process;
        match &event.body {
            Body::Exec { exe, script } => self.exec(now, exe, script.as_ref()).await,
            Body::Library { file, .. } => self.library(now, file).await,
            Body::File { op, file, target, mode } => {
                self.file(now, *op, file, target.as_ref(), *mode).await;
            }
            Body::Connect(connect) => self.connect(now, connect).await,
            Body::Fork { parent } => {
                if let Some(program) = self.program_of(*parent) {
                    self.programs.with(|programs| programs.insert(process, program));
                }
                self.updates.with(|updates| updates.fork(*parent, process));
            }
            Body::Exit { .. } => {
                self.close_all(now).await;
                self.opener_ended(event);
                self.programs.with(|programs| programs.remove(&process));
                self.before.with(|before| before.ended(process));
                self.updates.with(|updates| updates.end(process, time_ns));
            }
            Body::Running { file, role: Role::Written, processes } => {
                self.was_writing(now, file, processes).await;
            }
            Body::Running { file, role, processes } => self.running(now, file, *role, processes).await,
            // Only time passes.
            Body::Lost { count: 0, .. } => {}
            Body::Lost { kind, cause, count, since_ns } => {
                self.lost(now, *kind, *cause, *count, *since_ns);
            }
        }
        self.facts.end(case);
    }

    async fn exec(&self, now: Now<'_, F::Case>, exe: &FileRef, script: Option<&FileRef>) {
        let process = now.event.task.process;
        self.before.with(|before| before.ran(process));
        let workload = self.facts.workload(now.case);
        let Some(image) = self.image_of(now, &workload) else {
            self.programs.with(|programs| programs.remove(&process));
            self.unjudged(now, &workload, script.unwrap_or(exe));
            return;
        };
        let action = if script.is_some() { Action::Interpreter } else { Action::Exec };
        let Ran { mut culprit, mut attested } = self.run(now, &workload, &image, exe, action).await;
        if let Some(script) = script {
            let other = self.run(now, &workload, &image, script, Action::Script).await;
            culprit = worse(culprit, other.culprit);
            attested = other.attested.filter(|_| attested.is_some());
        }
        let program = Program { epoch: self.epoch.get(), culprit };
        self.programs.with(|programs| programs.insert(process, program));
        if workload.is_host {
            self.program_was_run(now, attested.as_ref()).await;
        }
    }

    async fn library(&self, now: Now<'_, F::Case>, file: &FileRef) {
        let workload = self.facts.workload(now.case);
        let Some(image) = self.image_of(now, &workload) else { return };
        let culprit = self.run(now, &workload, &image, file, Action::Library).await.culprit;
        let Some(culprit) = culprit else { return };
        let process = now.event.task.process;
        self.runs_unattested(process, culprit.severity);
        self.programs.with(|programs| {
            if let Some(program) = programs.get(&process) {
                program.culprit = worse(program.culprit.take(), Some(culprit));
            }
        });
    }

    async fn connect(&self, now: Now<'_, F::Case>, connect: &Connect) {
        let workload = self.facts.workload(now.case);
        let Some(image) = self.image_of(now, &workload) else { return };
        let task = &now.event.task;
        let known = self.program_of(task.process).map(|program| (program.epoch, program.culprit));
        let culprit = match known {
            Some((epoch, culprit)) if epoch == self.epoch.get() => culprit,
            before => {
                // What was found then is judged by what the SBOM says now; and what was attested then may not be now.
                let found = before.and_then(|(_, found)| found).and_then(|c| {
                    let judgement = image.judge(&c.observation);
                    culprit(c.observation.clone(), &judgement)
                });
                let culprit = worse(found, self.program_before(now, &workload, &image).await);
                let program = Program { epoch: self.epoch.get(), culprit: culprit.clone() };
                self.programs.with(|programs| programs.insert(task.process, program));
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
        self.report(now, &workload.info, judgement, &about);
    }

    /// Looks at a file: what it holds, and where that may matter, which package owns it.
    async fn observe(
        &self,
        now: Now<'_, F::Case>,
        workload: &Workload,
        image: &Known,
        file: FileRef,
        action: Action,
    ) -> Observation {
        let Now { event: Event { task, .. }, case } = now;
        let fresh = is_fresh(&file, workload, image);
        let asks = !workload.is_host && verdict::wants_owner(action, &file, fresh, &image.index);
        let owner = match asks {
            true => self.facts.owner(case, workload, &image.index, &file).await,
            false => None,
        };
        // What the package manager writes is compared with its database later.
        let is_update = matches!(action, Action::Change(_))
            && workload.is_host
            && self.updates.with(|updates| updates.session(task)).is_some();
        let weak = is_update || verdict::wants_weak(&image.index, &file, owner.as_ref());
        let content = self.facts.content(case, task, &file, action, weak).await;
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

    /// The file of a process of the host, if its path is none of the host's: whoever mounts a file system over a directory of the host in
    /// a namespace of his own says what is at its paths, and of an overlay he may change it beneath while it runs.
    fn unproven(&self, now: Now<'_, F::Case>, file: &FileRef) -> Option<FileRef> {
        if file.foreign {
            return Some(FileRef { unreachable: true, ..file.clone() });
        }
        let knows = !file.by_name && file.place != Place::Memfd && file.identity.dev != 0;
        let is_private = knows && self.is_private(now, file);
        is_private.then(|| FileRef { private: true, ..file.clone() })
    }

    /// No process with the host's root directory sees the file's file system. Where that cannot be said it counts as seen.
    fn is_private(&self, now: Now<'_, F::Case>, file: &FileRef) -> bool {
        !file.own_device && self.facts.is_private(now.case, &now.event.task, file.identity.dev)
    }

    /// Judges a file that runs or is mapped, and reports it.
    async fn run(
        &self,
        now: Now<'_, F::Case>,
        workload: &Workload,
        image: &Arc<Known>,
        file: &FileRef,
        action: Action,
    ) -> Ran {
        if self.silent.with(|silent| silent.has(image.number, file)) {
            self.metrics.verdict(Verdict::Attested, Severity::Info);
            return Ran { culprit: None, attested: Some(file.path.clone()) };
        }
        let task = &now.event.task;
        let unproven = if workload.is_host { self.unproven(now, file) } else { None };
        let file = unproven.as_ref().unwrap_or(file);
        let resolved = match file.by_name {
            true => self.facts.resolve(now.case, task, file).await,
            false => Ok(file.clone()),
        };
        let mut observation = match resolved {
            Ok(file) => self.observe(now, workload, image, file, action).await,
            Err(why) => unobserved(action, file.clone(), why, task, workload, image),
        };
        let (judgement, session) = self.consider(now, workload, image, &mut observation).await;
        if let Some(session) = session {
            let of = Of::Observed(Box::new(observation));
            self.hold(now, workload, image, session, judgement, of).await;
            return Ran::default();
        }
        let judgement = if workload.helps { program::of_helper(judgement, &observation) } else { judgement };
        if judgement.is_silent()
            && let Content::Known { sha256, .. } = observation.content
        {
            self.silent.with(|silent| silent.add(image.number, &observation.file, sha256));
        }
        let is_attested = judgement.is_silent()
            || (judgement.verdict, judgement.severity) == (Verdict::Updated, Severity::Info);
        let attested = is_attested.then(|| observation.file.path.clone());
        self.found(now, workload, image, &observation, &judgement);
        Ran { culprit: culprit(observation, &judgement), attested }
    }

    /// Counts, and reports what is not silent.
    fn found(
        &self,
        now: Now<'_, F::Case>,
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
            && !self.is_first((image.number, &observation.file.path))
        {
            return;
        }
        let mut judgement = judgement.clone();
        if once::is_copy(observation, &judgement) {
            let directory = once::directory(&observation.file.path);
            if !self.is_first((&workload.info.id, now.event.task.process, directory)) {
                self.metrics.verdict(judgement.verdict, judgement.severity);
                return;
            }
            judgement.reason.push_str("; others that this process makes in this directory are counted only");
        }
        if let (Verdict::Updated, Content::Known { sha256, .. }) = (judgement.verdict, &observation.content)
            && !self.updates.with(|updates| updates.is_first_use(&observation.file.path, sha256))
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
        self.report(now, &workload.info, judgement, &about);
    }

    /// Nothing with this key was said before.
    fn is_first(&self, key: impl Hash) -> bool {
        self.once.with(|once| once.is_first(key))
    }

    /// A program of a workload that could not be told: it is in no known image, and that is never the same as attested.
    /// Said at its exec; each of its libraries would only repeat it.
    fn unjudged(&self, now: Now<'_, F::Case>, workload: &Workload, file: &FileRef) {
        if !workload.is_unknown() {
            return;
        }
        let reason = "the process ended before it was known which workload it belongs to, so no SBOM applies";
        let judgement = Judgement::new(Verdict::Undetermined, Severity::Medium, reason.to_owned());
        self.report(now, &workload.info, judgement, &About { file: Some(file), ..About::default() });
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
    let content = Content::Undetermined(Unread::Unresolved(why));
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

/// As far as is known: of a file that was open before the agent the generation is not.
fn same_inode(a: &FileRef, b: &FileRef) -> bool {
    let (a, b) = (a.identity.inode(), b.identity.inode());
    a == b || (a.dev, a.ino) == (b.dev, b.ino) && (a.generation == 0 || b.generation == 0)
}
