//! What the host's package manager changes, so that patch day is no storm of alerts.
//!
//! A *session* begins when a configured package manager is run on the host by root, if its program is attested by SHA-256 (or was
//! itself written in an earlier session, and the database agrees). Its *lineage* is that process and all that descends from
//! it. It ends with that process, or when that runs another program.
//!
//! What a lineage changes is not reported at once, for the digests of a package come into its database only when it is unpacked:
//! the finding is *held* until the session has ended (and for [`GRACE_NS`], since records of two rings come in their own
//! time), and then all of them are *settled* together: once with the database as it is then. A use of a file that was
//! written in this session, by whomever, is held as well. What was found is remembered by path and SHA-256, so that an updated
//! program is `updated` wherever it runs, and a use of it is reported once.
//!
//! Nothing is held for longer than [`AT_MOST_NS`], nor more than [`HELD`] findings; then they are settled early, and those
//! on which the database does not agree yet get one more chance. A name that is gone by then and never ran (`x.dpkg-new`) is
//! counted and not reported.
//!
//! What this does not cover, since lineage says who wrote, not what:
//!
//! * a package that is itself bad: whoever may run `dpkg -i` as root gets `updated`, with the name of the package;
//! * a package manager that is made to do another's work without an executable mapping of its own: by `ptrace`,
//!   `/proc/<pid>/mem`, its configuration (hooks of apt), or a maintainer script. A library in it that is unattested or could
//!   not be read (`LD_PRELOAD`) ends the session, and what was held is reported as if there were none;
//! * a package manager in a mount namespace or root directory of its own: its lineage counts for nothing, and what it changes
//!   is drift as ever;
//! * a package manager that began before the agent: its exec was not seen, so its lineage counts for nothing.
//!
//! After a restart of the agent what earlier sessions wrote is not remembered. A file that was changed before the agent
//! started, and whose digest the host's package database has, is `updated` all the same, but `low`, and says that nobody
//! saw who wrote it; and a package manager that is known only so is not trusted.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use smallvec::SmallVec;

use super::settling::Settling;
use super::{About, EXECUTABLE, Facts, Judge, Known, Now, Unsettled, bookkeeping};
use crate::event::{
    Action, Body, Content, Event, FilePath, FileRef, Flavour, Kind, LossCause, Observation, Owner, ProcessId,
    Proof, Start, Task, Update,
};
use crate::finding::{Finding, Severity, Sha256, Verdict};
use crate::metrics;
use crate::recent::Recent;
use crate::verdict::{self, Judgement};
use crate::workload::Workload;

/// Processes of lineages that are remembered.
const PROCESSES: usize = 32_768;
/// Sessions at a time; a package manager that is run more often than that does no work in most of them.
const SESSIONS: usize = 1024;
/// Findings held, some two KiB each. A kernel package has five thousand files that count.
pub(super) const HELD: usize = 16_384;
/// Contents that were written in sessions, and paths of one content.
const WRITTEN: usize = 65_536;
const PATHS: usize = 16;
/// Time after the end of a session before it is settled.
pub(super) const GRACE_NS: u64 = 2_000_000_000;
/// Longest time that findings are held.
pub(super) const AT_MOST_NS: u64 = 600_000_000_000;

#[derive(Debug)]
struct Session {
    root: ProcessId,
    mnt_ns: u32,
    ended_ns: Option<u64>,
    /// When what is held is settled at the latest.
    latest_ns: u64,
}

impl Session {
    fn due_ns(&self) -> u64 {
        self.ended_ns.map_or(self.latest_ns, |ended| ended.saturating_add(GRACE_NS))
    }
}

/// What is held: a change of a path, or a use of it.
type Key = (FilePath, bool);

struct Held {
    session: u64,
    /// In the order of the events.
    order: u64,
    /// It would have been this.
    finding: Finding,
    judgement: Judgement,
    image: Arc<Known>,
    /// `None`: the name was taken away.
    observation: Option<Observation>,
    /// It is the package manager's own, so that no digest can be there.
    is_bookkeeping: bool,
    had_a_chance: bool,
}

/// What a finding that is held is about.
pub(super) enum Of<'a> {
    /// A name that was taken away.
    Removed(&'a FileRef),
    /// A file that was looked at.
    Observed(Box<Observation>),
}

struct Written {
    path: FilePath,
    update: Update,
    is_said: bool,
}

/// Sessions, what is held, what was written.
pub(super) struct Updates {
    managers: Vec<Box<[u8]>>,
    lineage: Recent<ProcessId, u64>,
    sessions: HashMap<u64, Session>,
    next_session: u64,
    held: HashMap<Key, Held>,
    order: u64,
    written: Recent<Sha256, SmallVec<[Written; 1]>>,
    /// When the first event came.
    began: Option<SystemTime>,
    /// When the next session is to be settled.
    due_ns: Option<u64>,
}

/// A merged system has one `/usr/sbin/apk` for `/sbin/apk`.
fn without_usr(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"/usr").filter(|rest| rest.starts_with(b"/")).unwrap_or(path)
}

impl Updates {
    pub(super) fn new(managers: &[PathBuf]) -> Self {
        let mut updates = Self {
            managers: Vec::new(),
            lineage: Recent::new(PROCESSES),
            sessions: HashMap::new(),
            next_session: 0,
            held: HashMap::new(),
            order: 0,
            written: Recent::new(WRITTEN),
            began: None,
            due_ns: None,
        };
        updates.set_managers(managers);
        updates
    }

    fn set_managers(&mut self, managers: &[PathBuf]) {
        let path = |manager: &PathBuf| without_usr(manager.as_os_str().as_encoded_bytes()).into();
        self.managers = managers.iter().map(path).collect();
    }

    /// The session to whose lineage a task belongs.
    pub(super) fn session(&mut self, task: &Task) -> Option<u64> {
        if self.sessions.is_empty() {
            return None;
        }
        let id = *self.lineage.get(&task.process)?;
        // What is mounted elsewhere is not the host's file, whatever its name. Who is exiting has left its namespaces.
        self.sessions.get(&id).filter(|session| [session.mnt_ns, 0].contains(&task.mnt_ns)).map(|_| id)
    }

    pub(super) fn fork(&mut self, parent: ProcessId, child: ProcessId) {
        if !self.sessions.is_empty()
            && let Some(session) = self.lineage.get(&parent).map(|session| *session)
        {
            self.lineage.insert(child, session);
        }
    }

    /// The process ended, or runs another program.
    pub(super) fn end(&mut self, process: ProcessId, now_ns: u64) {
        for session in self.sessions.values_mut().filter(|s| s.root == process && s.ended_ns.is_none()) {
            session.ended_ns = Some(now_ns);
        }
        self.set_due();
    }

    /// A program at this path installs packages.
    fn is_manager(&self, path: &FilePath) -> bool {
        let path = without_usr(path.as_bytes());
        self.managers.iter().any(|manager| **manager == *path)
    }

    /// The session that has to make room for another one: it ends.
    fn too_many(&mut self) -> Option<u64> {
        if self.sessions.len() < SESSIONS {
            return None;
        }
        let oldest = self.sessions.keys().min().copied()?;
        // Nothing of it may stay behind.
        self.sessions.get_mut(&oldest)?.ended_ns = Some(0);
        Some(oldest)
    }

    fn begin(&mut self, task: &Task, now_ns: u64) {
        let id = self.next_session;
        self.next_session += 1;
        self.lineage.insert(task.process, id);
        let session = Session {
            root: task.process,
            mnt_ns: task.mnt_ns,
            ended_ns: None,
            latest_ns: now_ns.saturating_add(AT_MOST_NS),
        };
        self.sessions.insert(id, session);
        self.set_due();
    }

    /// All sessions have ended. True: there were some.
    fn end_all(&mut self) -> bool {
        self.sessions.values_mut().for_each(|session| session.ended_ns = Some(0));
        self.set_due();
        !self.sessions.is_empty()
    }

    fn set_due(&mut self) {
        self.due_ns = self.sessions.values().map(Session::due_ns).min();
    }

    fn is_due(&self, now_ns: u64) -> bool {
        self.due_ns.is_some_and(|due| due <= now_ns)
    }

    /// A session has written this content to this path, and is not settled.
    fn pending(&self, path: &FilePath, sha256: &Sha256) -> Option<u64> {
        if self.held.is_empty() {
            return None;
        }
        let held = self.held.get(&(path.clone(), false))?;
        match &held.observation.as_ref()?.content {
            Content::Known { sha256: found, .. } if found == sha256 => Some(held.session),
            _ => None,
        }
    }

    fn has_ended(&self, session: u64) -> bool {
        self.sessions.get(&session).is_none_or(|session| session.ended_ns.is_some())
    }

    fn written(&mut self, path: &FilePath, sha256: &Sha256) -> Option<&mut Written> {
        self.written.get(sha256)?.iter_mut().find(|written| written.path == *path)
    }

    fn remember(&mut self, path: &FilePath, sha256: Sha256, update: &Update) {
        let new = Written { path: path.clone(), update: update.clone(), is_said: false };
        match self.written.get(&sha256) {
            Some(all) => {
                all.retain(|written| written.path != *path);
                if all.len() >= PATHS {
                    all.remove(0);
                }
                all.push(new);
            }
            None => self.written.insert(sha256, SmallVec::from_buf([new])),
        }
    }

    /// A use of an updated file was not reported before.
    pub(super) fn is_first_use(&mut self, path: &FilePath, sha256: &Sha256) -> bool {
        self.written(path, sha256).is_none_or(|written| !std::mem::replace(&mut written.is_said, true))
    }
}

fn proof(is_bookkeeping: bool, content: &Content, owner: Option<&Owner>, unseen: bool) -> Update {
    let agrees = match (owner.and_then(|o| o.digest), content) {
        (Some(digest), Content::Known { sha256, weak, .. }) => digest.agrees(sha256, weak.as_deref()),
        _ => None,
    };
    let proof = match (agrees, owner) {
        (Some(true), _) => Proof::Agrees,
        (Some(false), _) => Proof::Differs,
        (None, _) if is_bookkeeping => Proof::Bookkeeping,
        (None, Some(_)) => Proof::NoDigest,
        (None, None) => Proof::Unowned,
    };
    Update { proof, package: owner.map(|o| Arc::clone(&o.package)), unseen }
}

fn is_change(observation: &Observation) -> bool {
    matches!(observation.action, Action::Change(_))
}

impl<F: Facts, S: FnMut(Finding)> Judge<F, S> {
    /// The programs that install packages on the host, by the configuration.
    pub fn set_package_managers(&self, managers: &[PathBuf]) {
        self.updates.with(|updates| updates.set_managers(managers));
    }

    /// Time passes though no event comes: what is held too long is settled.
    pub fn tick(&self, now: Duration) {
        let now_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        if self.updates.with(|updates| updates.is_due(now_ns))
            || self.losses.with(|losses| losses.is_due(now_ns))
            || self.held.with(|held| held.is_due(now_ns))
            || self.written_devices.with(|devices| devices.is_due(now_ns))
            || self.settling.with(|settling| settling.is_due(now_ns))
        {
            self.pass(now_ns);
        }
    }

    /// No more events come: everything that is held is settled.
    pub fn finish(&self) {
        let waits = self.settling.with(Settling::end);
        if self.updates.with(Updates::end_all) || waits {
            self.pass(GRACE_NS);
        }
    }

    /// An event that says nothing, so that a recording has the answers that are asked for now.
    fn pass(&self, now_ns: u64) {
        let body = Body::Lost { kind: Kind::Lost, cause: LossCause::RingFull, count: 0, since_ns: now_ns };
        let event = Event { time_ns: now_ns, flavour: Flavour::Tracepoint, task: Task::default(), body };
        self.event(&event);
    }

    /// Called at each event.
    pub(super) async fn settle_sessions(&self, now: Now<'_, F::Case>) {
        let now_ns = now.event.time_ns;
        let is_due = self.updates.with(|updates| {
            updates.began.get_or_insert_with(|| self.facts.time(now.case));
            updates.is_due(now_ns)
        });
        if !is_due {
            return;
        }
        let due = self.updates.with(|updates| {
            let sessions = &mut updates.sessions;
            for session in sessions.values_mut().filter(|s| s.ended_ns.is_none() && s.latest_ns <= now_ns) {
                // Its exit may have been lost.
                let root = Task { process: session.root, ..Task::default() };
                if !self.facts.in_host_root(now.case, &root) {
                    session.ended_ns = Some(0);
                }
            }
            let due = sessions.iter().filter(|(_, s)| s.due_ns() <= now_ns);
            due.map(|(id, _)| *id).collect::<Vec<u64>>()
        });
        self.settle(now, &due).await;
        self.updates.with(|updates| {
            updates.sessions.retain(|id, session| session.ended_ns.is_none() || !due.contains(id));
            for session in updates.sessions.values_mut().filter(|s| s.latest_ns <= now_ns) {
                session.latest_ns = now_ns.saturating_add(AT_MOST_NS);
            }
            updates.set_due();
        });
    }

    /// A program was run on the host. `attested`: the paths at which its files were found attested.
    pub(super) async fn program_was_run(&self, now: Now<'_, F::Case>, attested: Option<&FilePath>) {
        let (task, time_ns) = (&now.event.task, now.event.time_ns);
        let is_new = self.updates.with(|updates| {
            let is_manager = attested.is_some_and(|path| updates.is_manager(path));
            if !is_manager && !updates.sessions.is_empty() {
                updates.end(task.process, time_ns);
            }
            is_manager && updates.session(task).is_none()
        });
        // Anybody else can run it as well, with hooks of their own, but it can install nothing then.
        if !is_new || task.euid != 0 || !self.facts.in_host_root(now.case, task) {
            return;
        }
        if let Some(oldest) = self.updates.with(Updates::too_many) {
            self.settle(now, &[oldest]).await;
            self.updates.with(|updates| updates.sessions.remove(&oldest));
        }
        self.updates.with(|updates| updates.begin(task, time_ns));
    }

    /// A process runs code that is not attested: if it is a package manager, what it and its children do counts for nothing.
    pub(super) fn runs_unattested(&self, process: ProcessId, severity: Severity) {
        if severity < Severity::Medium {
            return;
        }
        let spoilt: Vec<u64> = self.updates.with(|updates| {
            updates.sessions.iter().filter(|(_, s)| s.root == process).map(|(id, _)| *id).collect()
        });
        if spoilt.is_empty() {
            return;
        }
        let mut all = self.take_held(&spoilt);
        self.metrics.updates(metrics::Update::Spoilt, all.len());
        self.updates.with(|updates| {
            updates.sessions.retain(|id, _| !spoilt.contains(id));
            updates.set_due();
        });
        all.sort_by_key(|(_, held)| held.order);
        for (_, held) in all {
            self.tell(held.finding);
        }
    }

    /// What the SBOM says, in the light of what the host's package manager did. The second: to be held for this session.
    pub(super) async fn consider(
        &self,
        now: Now<'_, F::Case>,
        workload: &Workload,
        image: &Known,
        observation: &mut Observation,
    ) -> (Judgement, Option<u64>) {
        let judgement = image.judge(observation);
        if !workload.is_host {
            return (judgement, None);
        }
        let path = verdict::provable_path(&observation.file).map(FilePath::from);
        let Some(path) = path else { return (judgement, None) };
        let change = is_change(observation);
        let lineage = self.updates.with(|updates| updates.session(&now.event.task));
        let session = lineage.filter(|_| change);
        if !judgement.is_told() {
            // It is as it was before: what was held of it is past.
            if change && self.updates.with(|updates| updates.held.remove(&(path, false))).is_some() {
                self.metrics.updates(metrics::Update::Folded, 1);
                self.count_held();
            }
            return (judgement, None);
        }
        match judgement.verdict {
            Verdict::Modified | Verdict::Unauthorized => {}
            Verdict::Relocated | Verdict::Undetermined if session.is_some() => {}
            _ => return (judgement, None),
        }
        if change {
            // Of others' changes none is excused.
            return (judgement, session);
        }
        let Content::Known { sha256, .. } = observation.content else { return (judgement, None) };
        // Where anything may be written, only scripts may be run, and by nobody else.
        let is_own = observation.action == Action::Script
            && lineage.is_some()
            && bookkeeping::is_script(path.as_bytes());
        let is_foreign = bookkeeping::is_place(path.as_bytes()) && !is_own;
        let pending = self.updates.with(|updates| {
            let session = updates.pending(&path, &sha256).filter(|_| !is_foreign);
            session.map(|session| (session, updates.has_ended(session)))
        });
        match pending {
            Some((session, false)) => return (judgement, Some(session)),
            // A new version of the package manager, for one: it must be known at once whether it may be trusted.
            Some((session, true)) => self.settle(now, &[session]).await,
            None => {}
        }
        let written = self
            .updates
            .with(|updates| updates.written(&path, &sha256).map(|written| written.update.clone()));
        observation.update = match written.filter(|w| !is_foreign || w.proof == Proof::Agrees) {
            Some(update) => Some(update),
            None => self.written_before(now, workload, image, observation, &path, sha256).await,
        };
        match observation.update {
            Some(_) => (image.judge(observation), None),
            None => (judgement, None),
        }
    }

    /// The file was changed before the agent started, and the host's package database has its digest.
    async fn written_before(
        &self,
        now: Now<'_, F::Case>,
        workload: &Workload,
        image: &Known,
        observation: &mut Observation,
        path: &FilePath,
        sha256: Sha256,
    ) -> Option<Update> {
        let file = &observation.file;
        let changed = SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(file.identity.ctime_ns))?;
        let may_be = self.updates.with(|updates| {
            !updates.managers.is_empty() && updates.began.is_some_and(|began| changed < began)
        });
        if file.identity.ctime_ns == 0 || !may_be {
            return None;
        }
        let owner = self.facts.owner(now.case, workload, &image.index, file).await?;
        if let Content::Known { weak: None, .. } = observation.content
            && verdict::wants_weak(&image.index, file, Some(&owner))
        {
            let (task, action) = (&now.event.task, observation.action);
            observation.content = self.facts.content(now.case, task, file, action, true).await;
        }
        let update = proof(false, &observation.content, Some(&owner), true);
        if update.proof != Proof::Agrees {
            return None;
        }
        self.updates.with(|updates| updates.remember(path, sha256, &update));
        Some(update)
    }

    /// Holds a finding until its session is settled.
    pub(super) async fn hold(
        &self,
        now: Now<'_, F::Case>,
        workload: &Workload,
        image: &Arc<Known>,
        session: u64,
        judgement: Judgement,
        of: Of<'_>,
    ) {
        let (file, observation) = match of {
            Of::Removed(file) => (file.clone(), None),
            Of::Observed(observation) => (observation.file.clone(), Some(*observation)),
        };
        let operation = match &now.event.body {
            Body::File { op, .. } => Some(*op),
            _ => None,
        };
        let is_bookkeeping = match &observation {
            Some(observation) => self.is_bookkeeping(now, observation).await,
            None => false,
        };
        let about = About {
            file: Some(&file),
            content: observation.as_ref().map(|o| &o.content),
            operation,
            image: Some(image),
            connect: None,
        };
        let finding = self.complete(now, &workload.info, judgement.clone(), &about);
        let is_use = observation.as_ref().is_some_and(|o| !is_change(o));
        let key = (file.path.clone(), is_use);
        self.metrics.updates(metrics::Update::Held, 1);
        if is_use && self.updates.with(|updates| updates.held.contains_key(&key)) {
            // A use of an updated file is reported once.
            self.metrics.updates(metrics::Update::Folded, 1);
            return;
        }
        let order = self.updates.with(|updates| {
            updates.order += 1;
            updates.order
        });
        let held = Held {
            session,
            order,
            finding,
            judgement,
            image: Arc::clone(image),
            observation,
            is_bookkeeping,
            had_a_chance: false,
        };
        if self.updates.with(|updates| updates.held.insert(key, held)).is_some() {
            self.metrics.updates(metrics::Update::Folded, 1);
        }
        if self.count_held() >= HELD {
            let ids: Vec<u64> = self.updates.with(|updates| updates.sessions.keys().copied().collect());
            self.settle(now, &ids).await;
        }
    }

    /// Puts the number of held findings where it is read.
    fn count_held(&self) -> usize {
        let count = self.updates.with(|updates| updates.held.len());
        self.metrics.updates_waiting(count);
        count
    }

    /// The package manager's own: what cannot run, anywhere where it keeps its records; of what can run its scripts, when it writes
    /// them and when it or a child of its runs them as scripts. The kernel runs another kind of program as itself: that is none.
    async fn is_bookkeeping(&self, now: Now<'_, F::Case>, observation: &Observation) -> bool {
        let Observation { action, file, .. } = observation;
        let path = file.path.as_bytes();
        match action {
            Action::Script => bookkeeping::is_script(path),
            Action::Change(_) if bookkeeping::is_place(path) && bookkeeping::is_script(path) => true,
            Action::Change(_) if bookkeeping::is_place(path) && file.mode & EXECUTABLE == 0 => {
                let start = self.facts.start(now.case, &now.event.task, file).await;
                !matches!(start, Some(Start::Program | Start::Object))
            }
            _ => false,
        }
    }

    fn take_held(&self, sessions: &[u64]) -> Vec<(Key, Held)> {
        let all = self
            .updates
            .with(|updates| updates.held.extract_if(|_, held| sessions.contains(&held.session)).collect());
        self.count_held();
        all
    }

    /// Judges what is held for these sessions with the package database as it is now.
    async fn settle(&self, now: Now<'_, F::Case>, sessions: &[u64]) {
        let mut all = self.take_held(sessions);
        if all.is_empty() {
            return;
        }
        // Changes first, so that uses find what they came to.
        all.sort_by_key(|((_, is_use), held)| (*is_use, held.order));
        let unread = |held: &Held| {
            held.observation.as_ref().is_some_and(|o| matches!(o.content, Content::Undetermined(_)))
        };
        let files: Vec<_> = all
            .iter()
            .map(|((path, is_use), held)| Unsettled { path: path.clone(), unread: !is_use && unread(held) })
            .collect();
        let settled = self.facts.settle(now.case, &files).await;
        let mut out = Vec::new();
        for (((path, is_use), mut held), settled) in all.into_iter().zip(settled) {
            let early = !self.updates.with(|updates| updates.has_ended(held.session));
            let judgement = match (&mut held.observation, is_use) {
                (None, _) if settled.exists => None,
                (None, _) => {
                    let still_owned = settled.owner.is_some();
                    let proof = if still_owned { Proof::Differs } else { Proof::Agrees };
                    let update = Update { proof, package: settled.owner.map(|o| o.package), unseen: false };
                    Some(verdict::updated(held.judgement.clone(), &update))
                }
                (Some(observation), false) => {
                    if let (Content::Undetermined(_), Some(content)) = (&observation.content, settled.content)
                    {
                        observation.content = content;
                    }
                    let update =
                        proof(held.is_bookkeeping, &observation.content, settled.owner.as_ref(), false);
                    if let Content::Known { sha256, .. } = observation.content {
                        self.updates.with(|updates| updates.remember(&path, sha256, &update));
                    }
                    observation.update = Some(update);
                    settled.exists.then(|| held.image.judge(observation))
                }
                (Some(observation), true) => {
                    let update = match observation.content {
                        Content::Known { sha256, .. } => self.updates.with(|updates| {
                            updates.written(&path, &sha256).map(|written| {
                                written.is_said = true;
                                written.update.clone()
                            })
                        }),
                        Content::Undetermined(_) => None,
                    };
                    let update = update.unwrap_or_else(|| {
                        proof(held.is_bookkeeping, &observation.content, settled.owner.as_ref(), false)
                    });
                    observation.update = Some(update);
                    Some(held.image.judge(observation))
                }
            };
            let Some(judgement) = judgement else {
                self.metrics.updates(metrics::Update::Folded, 1);
                continue;
            };
            if !judgement.is_told() {
                self.metrics.verdict(judgement.verdict, judgement.severity);
                continue;
            }
            if early && judgement.severity > Severity::Info && !held.had_a_chance {
                held.had_a_chance = true;
                self.updates.with(|updates| updates.held.insert((path, is_use), held));
                continue;
            }
            if early {
                self.metrics.updates(metrics::Update::Early, 1);
            }
            out.push((held.order, amended(held, judgement)));
        }
        self.count_held();
        out.sort_by_key(|(order, _)| *order);
        for (_, finding) in out {
            self.tell(finding);
        }
    }
}

/// The finding with what was found in the end.
fn amended(held: Held, judgement: Judgement) -> Finding {
    let Judgement { verdict, severity, quiet: _, reason, expected_sha256, attested_path, package, used: _ } =
        judgement;
    let known = held.observation.and_then(|o| match o.content {
        Content::Known { sha256, origin, .. } => Some((sha256, origin)),
        Content::Undetermined(_) => None,
    });
    Finding {
        verdict,
        severity,
        reason,
        expected_sha256,
        attested_path,
        package,
        sha256: known.map(|k| k.0),
        digest_origin: known.map(|k| k.1),
        ..held.finding
    }
}
