//! What ran before the agent: each program and each mapped library of the processes that were there when it started, judged once.
//!
//! It is work of low priority, done in steps between the events. First every process is looked at, one a step; then every file, once
//! for all processes of a workload that have it. A process that runs another program by then, or has ended, is left out: the first
//! came as an event, and the second runs nothing any more.

use std::collections::{HashMap, VecDeque};
use std::io;

use smallvec::SmallVec;

use crate::digest::Digests;
use crate::event::{Body, Event, FilePath, FileRef, Flavour, ProcessId, Task};
use crate::proc::Proc;
use crate::workload::{UNKNOWN, Workloads};

/// Processes that are looked at, at most: what is told of one file fits into a frame of a recording.
const PROCESSES: usize = 65_536;
/// Most bytes taken of one `/proc/<pid>/maps`: some 150,000 mappings.
const MAPS: u64 = 16 << 20;

/// Files that differ in none of these are one: workload, mount namespace, device and inode as `maps` or `stat` give them, path.
type Key = (String, u32, bool, Vec<u8>, u64, FilePath);

#[derive(Debug)]
struct Group {
    file: FileRef,
    library: bool,
    /// Positions among the tasks.
    processes: Vec<u32>,
}

/// What is left to be looked at.
#[derive(Debug)]
pub struct Running {
    flavour: Flavour,
    pids: Vec<u32>,
    tasks: Vec<Task>,
    known: HashMap<Key, usize>,
    groups: VecDeque<Group>,
    counts: Counts,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    processes: usize,
    programs: usize,
    libraries: usize,
    /// Programs, mapped files and lists of mappings that could not be looked at while their process lived.
    unread: usize,
    /// Files whose processes had all ended before their turn came.
    gone: usize,
}

/// One mapped file of a process: where it is mapped, its device as text, its inode, and its path.
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    range: &'a str,
    device: &'a str,
    inode: u64,
    path: &'a str,
}

impl Running {
    /// Takes the numbers of the processes that are there now. Call it after the hooks are attached.
    pub(super) fn new(flavour: Flavour, proc: &Proc) -> Self {
        let own = std::process::id();
        let pids = proc.pids().map(|pids| pids.filter(|pid| *pid != own).take(PROCESSES).collect());
        let pids = pids.unwrap_or_else(|error: io::Error| {
            tracing::warn!(%error, "the processes that run now cannot be listed: what they run is not judged");
            Vec::new()
        });
        let (tasks, known, groups) = (Vec::new(), HashMap::new(), VecDeque::new());
        Self { flavour, pids, tasks, known, groups, counts: Counts::default() }
    }

    /// Nothing is left.
    pub(super) fn is_done(&self) -> bool {
        self.pids.is_empty() && self.groups.is_empty()
    }

    /// Looks at one process, or gives the next file to judge.
    pub(super) fn step(
        &mut self,
        now_ns: u64,
        proc: &Proc,
        workloads: &mut Workloads,
        digests: &mut Digests,
    ) -> Option<Event> {
        let event = match self.pids.pop() {
            Some(pid) => {
                if let Err(error) = self.look_at(pid, proc, workloads, digests) {
                    // A kernel thread has no program; and whatever has ended is past.
                    if error.kind() != io::ErrorKind::NotFound && proc.stat(pid).is_ok() {
                        tracing::debug!(pid, %error, "what this process runs cannot be looked at");
                        self.counts.unread += 1;
                    }
                }
                if self.pids.is_empty() {
                    self.known = HashMap::new();
                    // A process is known to run its program before its libraries are held against it.
                    self.groups.make_contiguous().sort_by_key(|group| group.library);
                }
                None
            }
            None => self.next(now_ns, proc),
        };
        if self.is_done() {
            self.end();
        }
        event
    }

    fn next(&mut self, now_ns: u64, proc: &Proc) -> Option<Event> {
        let Group { file, library, processes } = self.groups.pop_front()?;
        let tasks: Vec<&Task> =
            processes.iter().filter_map(|at| self.tasks.get(usize::try_from(*at).ok()?)).collect();
        let living = || tasks.iter().filter(|task| proc.is_alive(task.process));
        // What root runs is worse.
        let Some(task) = living().find(|task| task.euid == 0).or_else(|| living().next()) else {
            self.counts.gone += 1;
            return None;
        };
        *(if library { &mut self.counts.libraries } else { &mut self.counts.programs }) += 1;
        let processes = tasks.iter().map(|task| task.process).collect();
        let body = Body::Running { file, library, processes };
        Some(Event { time_ns: now_ns, flavour: self.flavour, task: Task::clone(task), body })
    }

    fn end(&mut self) {
        let Counts { processes, programs, libraries, unread, gone } = self.counts;
        tracing::info!(
            processes,
            programs,
            libraries,
            unread,
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

    fn look_at(
        &mut self,
        pid: u32,
        proc: &Proc,
        workloads: &mut Workloads,
        digests: &mut Digests,
    ) -> io::Result<()> {
        let stat = proc.stat(pid)?;
        let process = ProcessId { tgid: pid, start_ns: stat.start_ns };
        let (uid, euid) = proc.uids(pid)?;
        let mut task = Task { process, pid, ppid: stat.ppid, uid, euid, ..Task::default() };
        task.comm = SmallVec::from_slice(&stat.comm);
        let program = digests.program(&task)?;
        task.mnt_ns = proc.namespace(pid, "mnt")?;
        let workload = workloads.of_process(pid).map_or_else(|| UNKNOWN.to_owned(), |w| w.info.id.clone());
        let at = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
        let mnt_ns = task.mnt_ns;
        self.tasks.push(task);
        self.counts.processes += 1;
        let text = proc.read_up_to(&format!("{pid}/maps"), MAPS)?;
        let text = String::from_utf8_lossy(&text);
        let (dev, ino) = (program.identity.dev, program.identity.ino);
        let own = program.path.clone();
        let key = (workload.clone(), mnt_ns, false, dev.to_le_bytes().to_vec(), ino, own.clone());
        self.add(key, at, || Ok(program))?;
        for mapping in mappings(&text) {
            if mapping.inode == ino && mapping.path.as_bytes().ends_with(own.as_bytes()) {
                continue;
            }
            let device = mapping.device.as_bytes().to_vec();
            let key = (workload.clone(), mnt_ns, true, device, mapping.inode, mapping.path.into());
            let added = self.add(key, at, || digests.mapping(pid, mapping.range, mapping.path.as_bytes()));
            if let Err(error) = added
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(pid, path = mapping.path, %error, "a mapped file cannot be looked at");
                self.counts.unread += 1;
            }
        }
        Ok(())
    }

    fn add(&mut self, key: Key, process: u32, file: impl FnOnce() -> io::Result<FileRef>) -> io::Result<()> {
        if let Some(group) = self.known.get(&key).and_then(|at| self.groups.get_mut(*at)) {
            group.processes.push(process);
            return Ok(());
        }
        let group = Group { file: file()?, library: key.2, processes: vec![process] };
        self.known.insert(key, self.groups.len());
        self.groups.push_back(group);
        Ok(())
    }
}

/// The files that are mapped executable, each once (proc_pid_maps(5)).
fn mappings(maps: &str) -> Vec<Mapping<'_>> {
    let mut found: Vec<Mapping<'_>> = Vec::new();
    for line in maps.lines() {
        let mut fields = line.splitn(6, ' ');
        let (Some(range), Some(mode), Some(_), Some(device), Some(inode), Some(path)) =
            (fields.next(), fields.next(), fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let path = path.trim_start_matches(' ');
        let Ok(inode) = inode.parse::<u64>() else { continue };
        if mode.as_bytes().get(2) != Some(&b'x') || inode == 0 || !path.starts_with('/') {
            continue;
        }
        if !found.iter().any(|have| (have.device, have.inode) == (device, inode)) {
            found.push(Mapping { range, device, inode, path });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::metrics::Metrics;

    #[test]
    fn executable_mappings_of_files() {
        let maps = "\
            55d0-55d1 r--p 00000000 08:01 17   /usr/bin/a\n\
            55d1-55d2 r-xp 00001000 08:01 17   /usr/bin/a\n\
            7f00-7f01 r-xp 00000000 08:01 18   /usr/lib/with space.so (deleted)\n\
            7f01-7f02 r-xp 00001000 08:01 18   /usr/lib/with space.so (deleted)\n\
            7f02-7f03 rwxp 00000000 00:00 0 \n\
            7f03-7f04 r-xp 00000000 00:00 0    [vdso]\n\
            7f04-7f05 rwxs 00000000 00:01 19   /memfd:x (deleted)\n\
            nonsense\n";
        let mapping = |range, device, inode, path| Mapping { range, device, inode, path };
        assert_eq!(
            mappings(maps),
            [
                mapping("55d1-55d2", "08:01", 17, "/usr/bin/a"),
                mapping("7f00-7f01", "08:01", 18, "/usr/lib/with space.so (deleted)"),
                mapping("7f04-7f05", "00:01", 19, "/memfd:x (deleted)"),
            ]
        );
    }

    #[test]
    fn what_many_processes_run_is_judged_once() {
        let proc = Proc::new(Path::new("/proc"));
        let sleep = || std::process::Command::new("/bin/sleep").arg("60").spawn().expect("a process");
        let mut children = [sleep(), sleep()];
        // They have mapped their libraries.
        std::thread::sleep(std::time::Duration::from_millis(300));
        let mut running = Running::new(Flavour::Lsm, &proc);
        running.pids = children.iter().map(std::process::Child::id).collect();
        let mut workloads = Workloads::new(&Config::default()).expect("no entries");
        let mut digests = Digests::new(Metrics::new());
        let mut events = Vec::new();
        while !running.is_done() {
            events.extend(running.step(7, &proc, &mut workloads, &mut digests));
        }
        for child in &mut children {
            child.kill().and_then(|()| child.wait()).expect("it lived");
        }
        let told: Vec<_> = events
            .iter()
            .map(|event| match &event.body {
                Body::Running { file, library, processes } => {
                    (*library, file.path.to_string(), file.identity.ino != 0, processes.len())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let sleep = std::fs::canonicalize("/bin/sleep").expect("there").display().to_string();
        assert_eq!(told.first(), Some(&(false, sleep, true, 2)), "{told:?}");
        let libc: Vec<_> =
            told.iter().filter(|(library, path, ..)| *library && path.contains("libc")).collect();
        assert!(matches!(libc[..], [(true, _, true, 2)]), "{told:?}");
        assert!(told.iter().all(|(.., processes)| *processes == 2), "{told:?}");
    }
}
