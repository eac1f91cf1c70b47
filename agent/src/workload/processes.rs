//! The table of processes, for ancestry.
//!
//! Keyed by process id; a key whose number was given to a new process is replaced. At most [`MAX_PROCESSES`]
//! living and [`MAX_EXITED`] exited processes are held, some 200 bytes each: at most 16 MiB, and the paths of
//! programs, which are shared by the processes that fork from one.
//!
//! `/proc` has a start in clock ticks, the kernel's records have nanoseconds. Two starts of the same number are of
//! one process when the exact one lies within the tick of the other; the exact one then takes its place.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;
use tracing::warn;

use super::{Workload, Workloads};
use crate::event::{FilePath, ProcessId, Task};
use crate::finding::ProcessInfo;
use crate::proc::{Proc, same_start};
use crate::recent::ByNumber;

/// Living processes held at most.
pub const MAX_PROCESSES: usize = 65_536;
/// Exited processes held at most, for late events and for children that outlive them; the oldest goes first.
pub const MAX_EXITED: usize = 8192;
/// Refused processes after which the table is swept again.
const SWEEP_EVERY: u64 = 4096;

/// Counters of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessesStats {
    /// Living processes held now.
    pub living: usize,
    /// Exited processes held now.
    pub exited: usize,
    /// Processes that were not in the table when an event named them (their fork or exec was lost or came before the
    /// start).
    pub healed: u64,
    /// Processes not held, because the table was full.
    pub refused: u64,
}

#[derive(Clone, Debug)]
struct Entry {
    start_ns: u64,
    /// The parent's number; its start where it is known.
    parent: u32,
    parent_start_ns: Option<u64>,
    uid: u32,
    euid: u32,
    comm: SmallVec<[u8; 16]>,
    exe: Arc<FilePath>,
    workload: Arc<Workload>,
    exited: bool,
}

/// The table of processes.
#[derive(Debug)]
pub struct Processes {
    proc: Proc,
    table: ByNumber<u32, Entry>,
    /// In the order of their exits; may name some whose number was given on since.
    exited: VecDeque<ProcessId>,
    held_exited: usize,
    no_exe: Arc<FilePath>,
    stats: ProcessesStats,
}

impl Processes {
    /// An empty table.
    pub fn new() -> Self {
        Self::with_proc(Proc::new(std::path::Path::new("/proc")))
    }

    pub(super) fn with_proc(proc: Proc) -> Self {
        Self {
            proc,
            table: ByNumber::default(),
            exited: VecDeque::new(),
            held_exited: 0,
            no_exe: Arc::new(FilePath::default()),
            stats: ProcessesStats::default(),
        }
    }

    /// Takes in every process that runs now. Those that end while they are read are left out. Call it after the
    /// hooks are attached and before the first event is taken: what starts in between comes as an event.
    pub fn seed(&mut self, workloads: &mut Workloads) -> std::io::Result<()> {
        let pids: Vec<u32> = self.proc.pids()?.collect();
        for pid in pids {
            if let Some(workload) = workloads.of_process(pid)
                && let Some(entry) = self.read(pid, None, &workload)
            {
                self.put(pid, entry);
            }
        }
        Ok(())
    }

    /// A process was made.
    pub fn on_fork(&mut self, child: &Task, parent: ProcessId, workload: &Arc<Workload>) {
        let exe = match self.find(parent) {
            Some(parent) => Arc::clone(&parent.exe),
            None => {
                self.proc.exe(child.process.tgid).map(Arc::new).unwrap_or_else(|_| Arc::clone(&self.no_exe))
            }
        };
        let entry = Entry {
            start_ns: child.process.start_ns,
            parent: parent.tgid,
            parent_start_ns: Some(parent.start_ns),
            uid: child.uid,
            euid: child.euid,
            comm: child.comm.clone(),
            exe,
            workload: Arc::clone(workload),
            exited: false,
        };
        self.put(child.process.tgid, entry);
    }

    /// A process runs another program.
    pub fn on_exec(&mut self, task: &Task, exe: &FilePath, workload: &Arc<Workload>) {
        self.note(task, workload);
        if let Some(entry) = self.find_mut(task.process) {
            entry.comm.clone_from(&task.comm);
            if *entry.exe != *exe {
                entry.exe = Arc::new(exe.clone());
            }
        }
    }

    /// A process ended. It is held for a while.
    pub fn on_exit(&mut self, process: ProcessId) {
        let Some(entry) = self.find_mut(process) else { return };
        if std::mem::replace(&mut entry.exited, true) {
            return;
        }
        let start_ns = entry.start_ns;
        self.held_exited += 1;
        self.exited.push_back(ProcessId { tgid: process.tgid, start_ns });
        if self.exited.len() > MAX_EXITED
            && let Some(old) = self.exited.pop_front()
            && self.table.get(&old.tgid).is_some_and(|e| e.exited && e.start_ns == old.start_ns)
        {
            self.table.remove(&old.tgid);
            self.held_exited -= 1;
        }
    }

    /// A process did something else: what the table has of it is brought up to date. Heals a table that missed its
    /// fork or exec: an unknown process, or a main thread with another name, is read from `/proc` while it lives.
    pub fn note(&mut self, task: &Task, workload: &Arc<Workload>) {
        let main_thread = task.pid == task.process.tgid;
        let mut renamed = false;
        if let Some(entry) = self.find_mut(task.process) {
            (entry.uid, entry.euid) = (task.uid, task.euid);
            if entry.parent != task.ppid {
                (entry.parent, entry.parent_start_ns) = (task.ppid, None);
            }
            if !Arc::ptr_eq(&entry.workload, workload) {
                entry.workload = Arc::clone(workload);
            }
            if !main_thread || entry.comm == task.comm {
                return;
            }
            entry.comm.clone_from(&task.comm);
            renamed = true;
        }
        if renamed {
            if let Ok(exe) = self.proc.exe(task.process.tgid)
                && self.proc.is_alive(task.process)
                && let Some(entry) = self.find_mut(task.process)
                && *entry.exe != exe
            {
                entry.exe = Arc::new(exe);
            }
            return;
        }
        self.stats.healed += 1;
        let entry =
            self.read(task.process.tgid, Some(task.process.start_ns), workload).unwrap_or_else(|| Entry {
                start_ns: task.process.start_ns,
                parent: task.ppid,
                parent_start_ns: None,
                uid: task.uid,
                euid: task.euid,
                comm: task.comm.clone(),
                exe: Arc::clone(&self.no_exe),
                workload: Arc::clone(workload),
                exited: false,
            });
        self.put(task.process.tgid, entry);
    }

    /// What is known of a process.
    pub fn get(&self, process: ProcessId) -> Option<ProcessInfo> {
        self.find(process).map(|entry| info(process.tgid, entry))
    }

    /// The ancestors of a process, parent first, at most `limit`: up to the first process of its container; for the
    /// host and for processes of no known workload up to process 1.
    pub fn ancestry(&self, process: ProcessId, limit: usize) -> Vec<ProcessInfo> {
        let mut out = Vec::new();
        let Some(mut entry) = self.find(process) else { return out };
        let bounded = !entry.workload.is_host && !entry.workload.is_unknown();
        while out.len() < limit {
            let Some(parent) = self.parent_of(entry) else { break };
            if bounded && parent.workload.info.id != entry.workload.info.id {
                break;
            }
            out.push(info(entry.parent, parent));
            entry = parent;
        }
        out
    }

    /// Counters.
    pub fn stats(&self) -> ProcessesStats {
        let exited = self.held_exited;
        ProcessesStats { living: self.table.len() - exited, exited, ..self.stats }
    }

    fn parent_of(&self, entry: &Entry) -> Option<&Entry> {
        match entry.parent_start_ns {
            Some(start_ns) => self.find(ProcessId { tgid: entry.parent, start_ns }),
            // Without its start: a parent is not younger than its child, or it is another process of that number.
            None => self.table.get(&entry.parent).filter(|p| p.start_ns <= entry.start_ns),
        }
    }

    fn find(&self, process: ProcessId) -> Option<&Entry> {
        let tick = self.proc.tick_ns();
        self.table.get(&process.tgid).filter(|e| is_same(e.start_ns, process.start_ns, tick))
    }

    fn find_mut(&mut self, process: ProcessId) -> Option<&mut Entry> {
        let tick = self.proc.tick_ns();
        let entry =
            self.table.get_mut(&process.tgid).filter(|e| is_same(e.start_ns, process.start_ns, tick))?;
        // An exact start takes the place of one in whole ticks, but not the place that its exit was noted under.
        if !entry.exited && entry.start_ns < process.start_ns {
            entry.start_ns = process.start_ns;
        }
        Some(entry)
    }

    /// A process as `/proc` has it; `None` when it is gone or another one has its number.
    fn read(&self, pid: u32, start_ns: Option<u64>, workload: &Arc<Workload>) -> Option<Entry> {
        let exe = self.proc.exe(pid).map(Arc::new).unwrap_or_else(|_| Arc::clone(&self.no_exe));
        let (uid, euid) = self.proc.uids(pid).ok()?;
        let stat = self.proc.stat(pid).ok()?;
        if start_ns.is_some_and(|exact| !same_start(stat.start_ns, exact, self.proc.tick_ns())) {
            return None;
        }
        Some(Entry {
            start_ns: start_ns.unwrap_or(stat.start_ns),
            parent: stat.ppid,
            parent_start_ns: None,
            uid,
            euid,
            comm: SmallVec::from_slice(&stat.comm),
            exe,
            workload: Arc::clone(workload),
            exited: false,
        })
    }

    fn put(&mut self, pid: u32, entry: Entry) {
        let living = self.table.len() - self.held_exited;
        if living >= MAX_PROCESSES && !self.table.contains_key(&pid) {
            if self.stats.refused.is_multiple_of(SWEEP_EVERY) {
                self.sweep();
            }
            if self.table.len() >= MAX_PROCESSES + self.held_exited {
                self.stats.refused += 1;
                return;
            }
        }
        if self.table.insert(pid, entry).is_some_and(|old| old.exited) {
            self.held_exited -= 1;
        }
    }

    /// Removes processes that are gone and whose exit was missed.
    fn sweep(&mut self) {
        let before = self.table.len();
        let (proc, tick) = (&self.proc, self.proc.tick_ns());
        self.table.retain(|pid, e| {
            e.exited
                || proc
                    .stat(*pid)
                    .is_ok_and(|s| s.start_ns == e.start_ns || same_start(s.start_ns, e.start_ns, tick))
        });
        let gone = before - self.table.len();
        warn!(
            gone,
            left = self.table.len(),
            "the table of processes was full; removed those whose exit was missed"
        );
    }
}

impl Default for Processes {
    fn default() -> Self {
        Self::new()
    }
}

/// Either may be in whole ticks.
fn is_same(have: u64, asked: u64, tick: u64) -> bool {
    have == asked
        || (have.is_multiple_of(tick) && same_start(have, asked, tick))
        || (asked.is_multiple_of(tick) && same_start(asked, have, tick))
}

fn info(tgid: u32, entry: &Entry) -> ProcessInfo {
    ProcessInfo {
        id: ProcessId { tgid, start_ns: entry.start_ns },
        ppid: entry.parent,
        uid: entry.uid,
        euid: entry.euid,
        comm: FilePath::from(entry.comm.as_slice()).to_string(),
        exe: Arc::clone(&entry.exe),
    }
}
