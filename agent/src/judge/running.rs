//! What ran before the agent: each program, each mapped library and each file open for write of the processes that were there when it
//! started, judged once.
//!
//! It is work of low priority, done in steps between the events. First every process is looked at, one a step; then every file, once
//! for all processes of a workload that have it. A process that runs another program by then, or has ended, is left out: the first
//! came as an event, and the second runs nothing any more. So is a file that a process has closed by then: the close came as an event,
//! or will, if it was open when it was looked at.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use smallvec::SmallVec;

use crate::digest::Digests;
use crate::event::{Body, Event, FilePath, FileRef, Flavour, Place, ProcessId, Role, Task};
use crate::proc::Proc;
use crate::workload::{UNKNOWN, Workloads};

/// Processes that are looked at, at most: what is told of one file fits into a frame of a recording.
const PROCESSES: usize = 65_536;
/// Most bytes taken of one `/proc/<pid>/maps`: some 150,000 mappings.
const MAPS: u64 = 16 << 20;

/// Files open for write that are looked at, at most; some 500 bytes each until all are judged.
const WRITTEN: usize = 16_384;
/// Descriptors and mappings that lead to one of them, at most.
const LINKS: usize = 64;
/// Descriptors of one process that are looked at, at most.
const DESCRIPTORS: usize = 65_536;
/// `S_IWUSR`: of a link below `/proc/<pid>/fd` or `map_files` it says that the file is open for write (`tid_fd_update_inode()`,
/// `proc_map_files_instantiate()`).
const WRITABLE: u32 = 0o200;

/// Files that differ in none of these are one: workload, mount namespace, role, device and inode as `maps` or `stat` give them, path.
type Key = (String, u32, Role, Vec<u8>, u64, FilePath);

#[derive(Debug)]
struct Group {
    file: FileRef,
    role: Role,
    /// Positions among the tasks.
    processes: Vec<u32>,
    /// Of a file open for write the links below `/proc` that lead to it, one for each of `processes`.
    links: Vec<Box<str>>,
}

/// What is left to be looked at.
#[derive(Debug)]
pub struct Running {
    flavour: Flavour,
    pids: Vec<u32>,
    tasks: Vec<Task>,
    known: HashMap<Key, usize>,
    groups: VecDeque<Group>,
    /// How many of the groups are open for write.
    written: usize,
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
    /// Descriptors and shared mappings that were not looked at, for there were too many.
    left_out: usize,
    /// Files whose processes had all ended before their turn came.
    gone: usize,
}

/// One mapped file of a process: where it is mapped, its device as text, its inode, its path, and whether the mapping is shared (and not
/// executable).
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    range: &'a str,
    device: &'a str,
    inode: u64,
    path: &'a str,
    shared: bool,
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
        Self { flavour, pids, tasks, known, groups, written: 0, counts: Counts::default() }
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
                    self.doubt_written();
                    // A process is known to run its program before its libraries are held against it.
                    self.groups.make_contiguous().sort_by_key(|group| group.role);
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
        let Group { file, role, mut processes, links } = self.groups.pop_front()?;
        if role == Role::Written {
            let mut leads = links.iter().map(|link| leads_to(proc, link, &file));
            processes.retain(|_| leads.next() == Some(true));
            processes.dedup();
        }
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
        if left_out > 0 {
            tracing::warn!(
                left_out,
                "processes that ran before the agent started had so many files open for write that not all were looked at: a file of \
                 an SBOM among them is judged when it is closed, and not before"
            );
        }
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
        let key = (workload.clone(), mnt_ns, Role::Program, dev.to_le_bytes().to_vec(), ino, own.clone());
        self.add(key, at, || Ok(program))?;
        let whose = Whose { workload, mnt_ns, at };
        for mapping in mappings(&text) {
            let look = || digests.mapping(pid, mapping.range, mapping.path.as_bytes());
            let added = if mapping.shared {
                let link = format!("{pid}/map_files/{}", mapping.range);
                match is_writable(proc, &link) {
                    true => look().map(|file| self.add_written(&whose, link, file)),
                    false => Ok(()),
                }
            } else if mapping.inode == ino && mapping.path.as_bytes().ends_with(own.as_bytes()) {
                Ok(())
            } else {
                let device = mapping.device.as_bytes().to_vec();
                let workload = whose.workload.clone();
                self.add(
                    (workload, mnt_ns, Role::Library, device, mapping.inode, mapping.path.into()),
                    at,
                    look,
                )
            };
            self.note(pid, mapping.path, added);
        }
        let descriptors = fs::read_dir(proc.root().join(format!("{pid}/fd")));
        let mut looked_at = 0;
        for entry in descriptors? {
            let Some(fd) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            looked_at += 1;
            if looked_at > DESCRIPTORS {
                self.counts.left_out += 1;
                continue;
            }
            let link = format!("{pid}/fd/{fd}");
            if !is_writable(proc, &link) {
                continue;
            }
            let added = digests.descriptor(pid, fd).map(|file| self.add_written(&whose, link, file));
            self.note(pid, "a descriptor", added);
        }
        Ok(())
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
        let group = Group { file: file()?, role: key.2, processes: vec![process], links: Vec::new() };
        self.known.insert(key, self.groups.len());
        self.groups.push_back(group);
        Ok(())
    }

    /// Adds a file that is open for write. What has no name, and what the kernel serves, is in no SBOM.
    fn add_written(&mut self, whose: &Whose, link: String, file: FileRef) {
        let has_name = file.path.as_bytes().starts_with(b"/") && !file.deleted && file.place != Place::Memfd;
        if !has_name || file.mode & super::FILE_TYPE != super::REGULAR {
            return;
        }
        let (dev, ino) = (file.identity.dev.to_le_bytes().to_vec(), file.identity.ino);
        let key = (whose.workload.clone(), whose.mnt_ns, Role::Written, dev, ino, file.path.clone());
        let link = link.into_boxed_str();
        match self.known.get(&key).and_then(|at| self.groups.get_mut(*at)) {
            Some(group) if group.links.len() < LINKS => {
                group.processes.push(whose.at);
                group.links.push(link);
            }
            None if self.written < WRITTEN => {
                self.written += 1;
                let file = FileRef { has_writers: true, ..file };
                self.known.insert(key, self.groups.len());
                let (processes, links) = (vec![whose.at], vec![link]);
                self.groups.push_back(Group { file, role: Role::Written, processes, links });
            }
            _ => self.counts.left_out += 1,
        }
    }

    /// What runs and is open for write may be another content by now than the one that is read.
    fn doubt_written(&mut self) {
        let number = |group: &Group| (group.file.identity.dev, group.file.identity.ino);
        let written: HashSet<_> =
            self.groups.iter().filter(|g| g.role == Role::Written).map(number).collect();
        for group in self.groups.iter_mut().filter(|group| written.contains(&number(group))) {
            group.file.has_writers = true;
        }
    }
}

/// Whose file it is: workload, mount namespace, position among the tasks.
struct Whose {
    workload: String,
    mnt_ns: u32,
    at: u32,
}

/// A link below `/proc` leads to a file that is open for write.
fn is_writable(proc: &Proc, link: &str) -> bool {
    fs::symlink_metadata(proc.root().join(link)).is_ok_and(|link| link.mode() & WRITABLE != 0)
}

/// A link below `/proc` still leads to this file, open for write.
fn leads_to(proc: &Proc, link: &str, file: &FileRef) -> bool {
    is_writable(proc, link)
        && match fs::metadata(proc.root().join(link)) {
            Ok(found) => found.ino() == file.identity.ino,
            // Without CAP_CHECKPOINT_RESTORE no link of `map_files` can be followed.
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        }
}

/// The files that are mapped executable, and those that are mapped shared, each once (proc_pid_maps(5)).
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
        if inode == 0 || !path.starts_with('/') {
            continue;
        }
        let is = |at: usize, letter| mode.as_bytes().get(at) == Some(&letter);
        for (is_one, shared) in [(is(2, b'x'), false), (is(3, b's'), true)] {
            let is_same =
                |have: &Mapping<'_>| (have.device, have.inode, have.shared) == (device, inode, shared);
            if is_one && !found.iter().any(is_same) {
                found.push(Mapping { range, device, inode, path, shared });
            }
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
            7f05-7f06 rw-s 00000000 08:01 20   /srv/data\n\
            7f06-7f07 r--s 00001000 08:01 20   /srv/data\n\
            7f07-7f08 rw-p 00000000 08:01 21   /srv/own\n\
            nonsense\n";
        let mapping = |range, device, inode, path| Mapping { range, device, inode, path, shared: false };
        let shared = |range, device, inode, path| Mapping { range, device, inode, path, shared: true };
        assert_eq!(
            mappings(maps),
            [
                mapping("55d1-55d2", "08:01", 17, "/usr/bin/a"),
                mapping("7f00-7f01", "08:01", 18, "/usr/lib/with space.so (deleted)"),
                mapping("7f04-7f05", "00:01", 19, "/memfd:x (deleted)"),
                shared("7f04-7f05", "00:01", 19, "/memfd:x (deleted)"),
                shared("7f05-7f06", "08:01", 20, "/srv/data"),
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
                Body::Running { file, role, processes } => {
                    (*role, file.path.to_string(), file.identity.ino != 0, processes.len())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        let sleep = fs::canonicalize("/bin/sleep").expect("there").display().to_string();
        assert_eq!(told.first(), Some(&(Role::Program, sleep, true, 2)), "{told:?}");
        let libc: Vec<_> = told.iter().filter(|(_, path, ..)| path.contains("libc")).collect();
        assert!(matches!(libc[..], [(Role::Library, _, true, 2)]), "{told:?}");
        assert!(told.iter().all(|(.., processes)| *processes == 2), "{told:?}");
    }

    fn looked_at(pids: Vec<u32>, meanwhile: impl FnOnce()) -> (Vec<Event>, Counts) {
        let proc = Proc::new(Path::new("/proc"));
        let mut running = Running::new(Flavour::Lsm, &proc);
        running.pids = pids;
        let mut workloads = Workloads::new(&Config::default()).expect("no entries");
        let mut digests = Digests::new(Metrics::new());
        while !running.pids.is_empty() {
            assert_eq!(running.step(7, &proc, &mut workloads, &mut digests), None);
        }
        meanwhile();
        let mut events = Vec::new();
        while !running.is_done() {
            events.extend(running.step(7, &proc, &mut workloads, &mut digests));
        }
        (events, running.counts)
    }

    #[test]
    fn what_is_open_for_write_is_judged_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let named = |name: &str| fs::canonicalize(&directory).expect("there").join(name);
        let (file, left, gone) = (named("file"), named("left"), named("gone"));
        for path in [&file, &left, &gone] {
            fs::write(path, "data").expect("a private directory");
        }
        let append =
            |path: &Path| fs::OpenOptions::new().append(true).open(path).expect("a private directory");
        let read = fs::File::open(&left).expect("a private directory");
        let (one, other, closed, unnamed) = (append(&file), append(&file), append(&left), append(&gone));
        fs::remove_file(&gone).expect("a private directory");
        let (events, counts) = looked_at(vec![std::process::id()], || drop(closed));
        drop((one, other, read, unnamed));
        let told: Vec<_> = events
            .iter()
            .filter_map(|event| match &event.body {
                Body::Running { file, role: Role::Written, processes } => {
                    Some((file.path.to_string(), file.has_writers, processes.len()))
                }
                _ => None,
            })
            .filter(|(path, ..)| Path::new(path).starts_with(named("")))
            .collect();
        assert_eq!(told, [(file.display().to_string(), true, 1)], "two descriptors of one process");
        assert!(counts.written >= 1 && counts.gone >= 1 && counts.left_out == 0, "{counts:?}");
    }

    #[test]
    fn a_library_that_is_open_for_write_is_doubted() {
        let file = |path: &str, ino| {
            let mut file = FileRef { path: path.into(), mode: super::super::REGULAR, ..FileRef::default() };
            (file.identity.dev, file.identity.ino) = (1, ino);
            file
        };
        let mut running = Running::new(Flavour::Lsm, &Proc::new(Path::new("/proc")));
        let whose = Whose { workload: "host".to_owned(), mnt_ns: 1, at: 0 };
        for (path, ino) in [("/lib/a", 5), ("/lib/b", 6)] {
            let key = ("host".to_owned(), 1, Role::Library, Vec::new(), ino, path.into());
            running.add(key, 0, || Ok(file(path, ino))).expect("no error");
        }
        running.add_written(&whose, "1/fd/1".to_owned(), file("/other/name", 5));
        running.doubt_written();
        let doubted: Vec<_> = running.groups.iter().map(|group| group.file.has_writers).collect();
        assert_eq!(doubted, [true, false, true]);
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let mut running = Running::new(Flavour::Lsm, &Proc::new(Path::new("/proc")));
        let whose = Whose { workload: "host".to_owned(), mnt_ns: 1, at: 0 };
        let file = |ino| {
            let mut file = FileRef { path: "/x".into(), mode: super::super::REGULAR, ..FileRef::default() };
            file.identity.ino = ino;
            file
        };
        for n in 0..LINKS + 2 {
            running.add_written(&whose, format!("1/fd/{n}"), file(1));
        }
        assert_eq!((running.groups.len(), running.counts.left_out), (1, 2));
        for ino in 2..=3 + WRITTEN as u64 {
            running.add_written(&whose, "1/fd/1".to_owned(), file(ino));
        }
        assert_eq!((running.groups.len(), running.counts.left_out), (WRITTEN, 5));
    }
}
