//! What ran before the agent: each program, each mapped library and each file open for write of the processes that were there when it
//! started, judged once.
//!
//! It is work of low priority, done in small steps between the events. First it is looked at what every process runs; then what each has
//! open for write, which is judged as it is found; then each program and library is judged, once for all processes of a workload that
//! have it. A process that runs another program by then, or has ended, is left out: the first came as an event, and the second runs
//! nothing any more. So is a file that a process has closed by then: the close came as an event, or will, if it was open when it was
//! looked at.

mod look;
mod maps;
mod place;
#[cfg(test)]
mod tests;
mod written;

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;

use self::look::{Look, Of};
use self::maps::open_maps;
use self::place::LastTable;
use self::written::Written;
use crate::digest::Digests;
use crate::event::{Body, Event, FilePath, FileRef, Flavour, Role, Task};
use crate::host_root::HostRoot;
use crate::proc::Proc;
use crate::workload::Workloads;

/// Processes that are looked at, at most: what is told of one file fits into a frame of a recording.
const PROCESSES: usize = 65_536;
/// How often the processes are listed again: one that is not looked at yet may fork, and end.
const ROUNDS: u8 = 3;

/// Files that differ in none of these are one: workload, mount namespace, role, device and inode as `maps` or `stat` give them, path.
type Key = (String, u32, Role, Vec<u8>, u64, FilePath);

#[derive(Debug)]
struct Group {
    file: FileRef,
    role: Role,
    /// Positions among the tasks.
    processes: Vec<u32>,
}

/// What is left to be looked at.
#[derive(Debug)]
pub struct Running {
    flavour: Flavour,
    /// Where the host's root directory is.
    host: Option<HostRoot>,
    pids: Vec<u32>,
    tasks: Vec<Task>,
    known: HashMap<Key, usize>,
    groups: VecDeque<Group>,
    /// The process that is looked at now.
    look: Option<Look>,
    /// Processes that were looked at, by number and start.
    seen: HashSet<(u32, u64)>,
    /// How often they are listed again, and whether one was new since they were.
    rounds: u8,
    is_new: bool,
    /// Of which processes it is to be looked at what they have open for write: their positions, and through which thread.
    writing: Vec<(u32, u32)>,
    /// What they have, next to be judged.
    written: VecDeque<Written>,
    mounts: LastTable,
    /// Device and number of what runs; and of that, what is open for write.
    ran: HashSet<(u32, u64)>,
    doubted: HashSet<(u32, u64)>,
    counts: Counts,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    processes: usize,
    programs: usize,
    libraries: usize,
    written: usize,
    /// Programs, files and lists of them that could not be looked at while their process lived.
    unread: usize,
    /// Processes of which not all was looked at, and processes that were not: there were too many.
    left_out: usize,
    /// Files whose processes had all ended before their turn came.
    gone: usize,
}

impl Running {
    /// Takes the numbers of the processes that are there now. Call it after the hooks are attached.
    pub(super) fn new(flavour: Flavour, proc: &Proc, host: Option<HostRoot>) -> Self {
        let mut running = Self {
            flavour,
            host,
            pids: Vec::new(),
            tasks: Vec::new(),
            known: HashMap::new(),
            groups: VecDeque::new(),
            look: None,
            seen: HashSet::new(),
            rounds: ROUNDS,
            is_new: false,
            writing: Vec::new(),
            written: VecDeque::new(),
            mounts: LastTable::default(),
            ran: HashSet::new(),
            doubted: HashSet::new(),
            counts: Counts::default(),
        };
        running.list(proc);
        running
    }

    fn list(&mut self, proc: &Proc) {
        let own = std::process::id();
        self.is_new = false;
        match proc.pids() {
            Ok(pids) => self.pids = pids.filter(|pid| *pid != own).collect(),
            Err(error) => {
                tracing::warn!(%error, "the processes that run now cannot be listed: what they run is not judged");
            }
        }
    }

    /// Nothing is left.
    pub(super) fn is_done(&self) -> bool {
        self.is_listed() && self.writing.is_empty() && self.written.is_empty() && self.groups.is_empty()
    }

    /// It is known what every process runs.
    fn is_listed(&self) -> bool {
        self.pids.is_empty() && self.rounds == 0 && self.look.is_none()
    }

    /// The flavour, and of how many processes not all was looked at.
    pub(super) fn left_out(&self) -> (Flavour, usize) {
        (self.flavour, self.counts.left_out)
    }

    /// Looks at a part of one process, or gives the next file to judge.
    pub(super) fn step(
        &mut self,
        now_ns: u64,
        proc: &Proc,
        workloads: &mut Workloads,
        digests: &mut Digests,
    ) -> Option<Event> {
        if self.is_done() {
            return None;
        }
        let mut event = None;
        if let Some(written) = self.written.pop_front() {
            event = self.is_written(now_ns, proc, written);
        } else if let Some(mut look) = self.look.take() {
            match self.go_on(&mut look, proc, digests) {
                Ok(true) => self.look = Some(look),
                Ok(false) => {}
                Err(error) => self.note(look.through, "a list", Err(error)),
            }
        } else if let Some(pid) = self.pids.pop() {
            let looked = self.look_at(pid, proc, workloads, digests);
            // What has ended is past.
            if looked.is_err() && proc.stat(pid).is_ok() {
                self.note(pid, "its program", looked.map_err(|error| io::Error::other(error.to_string())));
            }
        } else if self.rounds > 0 {
            self.rounds -= 1;
            if self.rounds > 0 && self.is_new {
                self.list(proc);
            } else {
                self.rounds = 0;
                self.known = HashMap::new();
                self.seen = HashSet::new();
                // A process is known to run its program before its libraries are held against it.
                self.groups.make_contiguous().sort_by_key(|group| group.role);
            }
        } else if let Some((at, through)) = self.writing.pop() {
            let process = usize::try_from(at).ok().and_then(|at| self.tasks.get(at)).map(|task| task.process);
            if process.is_some_and(|process| proc.is_alive(process)) {
                match open_maps(proc, through) {
                    Ok(maps) => self.look = Some(Look::new(at, through, Of::Writes, maps)),
                    Err(error) => self.note(through, "its mappings", Err(error)),
                }
            }
        } else {
            event = self.next(now_ns, proc);
        }
        let is_looked_at = self.is_listed() && self.writing.is_empty() && self.written.is_empty();
        if is_looked_at && !self.doubted.is_empty() {
            self.doubt_written();
        }
        if self.is_done() {
            self.end();
        }
        event
    }

    fn next(&mut self, now_ns: u64, proc: &Proc) -> Option<Event> {
        let Group { file, role, processes } = self.groups.pop_front()?;
        let tasks: Vec<&Task> =
            processes.iter().filter_map(|at| self.tasks.get(usize::try_from(*at).ok()?)).collect();
        let living = || tasks.iter().filter(|task| proc.is_alive(task.process));
        // What root runs is worse.
        let Some(task) = living().find(|task| task.euid == 0).or_else(|| living().next()) else {
            self.counts.gone += 1;
            return None;
        };
        *match role {
            Role::Program => &mut self.counts.programs,
            Role::Library => &mut self.counts.libraries,
            Role::Written => &mut self.counts.written,
        } += 1;
        let processes = tasks.iter().map(|task| task.process).collect();
        let body = Body::Running { file, role, processes };
        Some(Event { time_ns: now_ns, flavour: self.flavour, task: Task::clone(task), body })
    }

    fn end(&mut self) {
        let Counts { processes, programs, libraries, written, unread, left_out, gone } = self.counts;
        tracing::info!(
            processes,
            programs,
            libraries,
            written,
            unread,
            left_out,
            gone,
            "what ran before the agent started is judged"
        );
        if unread > 0 {
            tracing::warn!(
                unread,
                "of some processes that ran before the agent started it could not be read what they run: that is not judged"
            );
        }
        self.tasks = Vec::new();
    }

    /// Counts what could not be looked at, and is not gone.
    fn note(&mut self, pid: u32, path: &str, added: io::Result<()>) {
        if let Err(error) = added
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(pid, path, %error, "what this process has open or mapped cannot be looked at");
            self.counts.unread += 1;
        }
    }

    fn add(&mut self, key: Key, process: u32, file: impl FnOnce() -> io::Result<FileRef>) -> io::Result<()> {
        if let Some(group) = self.known.get(&key).and_then(|at| self.groups.get_mut(*at)) {
            group.processes.push(process);
            return Ok(());
        }
        let file = file()?;
        self.ran.insert((file.identity.dev, file.identity.ino));
        let group = Group { file, role: key.2, processes: vec![process] };
        self.known.insert(key, self.groups.len());
        self.groups.push_back(group);
        Ok(())
    }
}
