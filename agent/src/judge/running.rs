//! What ran before the agent: each program, each mapped library and each file open for write of the processes that were there when it
//! started, judged once.
//!
//! It is work of low priority, done in small steps between the events. First it is looked at what every process runs; then what each has
//! open for write, which is judged as it is found; then each program and library is judged, once for all processes of a workload that
//! have it. A process that runs another program by then, or has ended, is left out: the first came as an event, and the second runs
//! nothing any more. So is a file that a process has closed by then: the close came as an event, or will, if it was open when it was
//! looked at.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::os::unix::fs::MetadataExt as _;

use smallvec::SmallVec;

use crate::digest::Digests;
use crate::event::{Body, Event, FilePath, FileRef, Flavour, Place, ProcessId, Role, Task};
use crate::proc::Proc;
use crate::workload::{UNKNOWN, Workloads};

/// Processes that are looked at, at most: what is told of one file fits into a frame of a recording.
const PROCESSES: usize = 65_536;
/// Descriptors, or lines of `/proc/<pid>/maps`, that are looked at in one step.
const STEP: usize = 256;
/// Of one process both are looked at so many times at most: it may go on to open and close while it is looked at.
const MOST: usize = 1 << 20;
/// Most bytes of a line of `maps`: a path has up to 4096, each of which may be four when escaped.
const LINE: u64 = 32 << 10;
/// How often the processes are listed again: one that is not looked at yet may fork, and end.
const ROUNDS: u8 = 3;
/// Threads among which one is searched that lives, of a process whose first one has ended.
const THREADS: usize = 256;
/// `PF_KTHREAD` (`include/linux/sched.h`).
const KERNEL_THREAD: u64 = 0x0020_0000;
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
}

/// Device and number, as `stat` gives them.
type Number = (u64, u64);

/// A file that a process has open for write, and the links below `/proc` that lead to it.
#[derive(Debug)]
struct Written {
    file: FileRef,
    at: u32,
    number: Option<Number>,
    links: Vec<Box<str>>,
}

/// A process that is looked at.
#[derive(Debug)]
struct Look {
    /// Its position among the tasks.
    at: u32,
    /// Its number, or that of a thread of it.
    through: u32,
    /// What is looked at: what it runs, or what it has open for write.
    of: Of,
    /// Lines of its maps, and then its descriptors.
    maps: Option<BufReader<fs::File>>,
    descriptors: Option<fs::ReadDir>,
    /// Mapped files that were looked at.
    mapped: HashSet<(String, u64)>,
    /// Files that it has open for write.
    open: HashSet<Number>,
    looked_at: usize,
}

#[derive(Debug)]
enum Of {
    /// Its workload; number and path of its program.
    Runs {
        workload: String,
        ino: u64,
        own: FilePath,
    },
    Writes,
}

/// What is left to be looked at.
#[derive(Debug)]
pub struct Running {
    flavour: Flavour,
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

/// One mapped file of a process: where it is mapped, its device as text, its inode, its path, and whether the mapping is executable
/// or shared.
#[derive(Debug, PartialEq, Eq)]
struct Mapping<'a> {
    range: &'a str,
    device: &'a str,
    inode: u64,
    path: &'a str,
    executable: bool,
    shared: bool,
}

impl Running {
    /// Takes the numbers of the processes that are there now. Call it after the hooks are attached.
    pub(super) fn new(flavour: Flavour, proc: &Proc) -> Self {
        let mut running = Self {
            flavour,
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

    /// A file that was found open for write, if it still is.
    fn is_written(&mut self, now_ns: u64, proc: &Proc, written: Written) -> Option<Event> {
        let Written { file, at, number, links } = written;
        let task = usize::try_from(at).ok().and_then(|at| self.tasks.get(at))?;
        if !proc.is_alive(task.process) || !links.iter().any(|link| leads_to(proc, link, &file)) {
            self.counts.gone += 1;
            // Another descriptor may lead to it.
            if let (Some(look), Some(number)) = (&mut self.look, number) {
                look.open.remove(&number);
            }
            return None;
        }
        self.counts.written += 1;
        let body = Body::Running { file, role: Role::Written, processes: vec![task.process] };
        Some(Event { time_ns: now_ns, flavour: self.flavour, task: task.clone(), body })
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

    /// Begins to look at what a process runs.
    fn look_at(
        &mut self,
        pid: u32,
        proc: &Proc,
        workloads: &mut Workloads,
        digests: &mut Digests,
    ) -> io::Result<()> {
        let stat = proc.stat(pid)?;
        if !self.seen.insert((pid, stat.start_ns)) {
            return Ok(());
        }
        self.is_new = true;
        let Some(through) = thread_of(proc, pid)? else { return Ok(()) };
        if self.tasks.len() >= PROCESSES {
            self.counts.left_out += 1;
            return Ok(());
        }
        let process = ProcessId { tgid: pid, start_ns: stat.start_ns };
        let (uid, euid) = proc.uids(through)?;
        let mut task = Task { process, pid: through, ppid: stat.ppid, uid, euid, ..Task::default() };
        task.comm = SmallVec::from_slice(&stat.comm);
        let thread = ProcessId { tgid: through, start_ns: proc.stat(through)?.start_ns };
        let program = digests.program(&Task { process: thread, ..task.clone() })?;
        task.mnt_ns = proc.namespace(through, "mnt")?;
        let workload = workloads.of_process(pid).map_or_else(|| UNKNOWN.to_owned(), |w| w.info.id.clone());
        let at = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
        let mnt_ns = task.mnt_ns;
        self.tasks.push(task);
        self.writing.push((at, through));
        self.counts.processes += 1;
        let (dev, ino) = (program.identity.dev, program.identity.ino);
        let own = program.path.clone();
        let key = (workload.clone(), mnt_ns, Role::Program, dev.to_le_bytes().to_vec(), ino, own.clone());
        self.add(key, at, || Ok(program))?;
        let of = Of::Runs { workload, ino, own };
        self.look = Some(Look::new(at, through, of, open_maps(proc, through)?));
        Ok(())
    }

    /// Looks at some more of a process. `false`: that was all.
    fn go_on(&mut self, look: &mut Look, proc: &Proc, digests: &mut Digests) -> io::Result<bool> {
        for _ in 0..STEP {
            look.looked_at += 1;
            if look.looked_at > MOST {
                self.counts.left_out += 1;
                return Ok(false);
            }
            if let Some(maps) = &mut look.maps {
                let mut line = Vec::new();
                if maps.by_ref().take(LINE).read_until(b'\n', &mut line)? > 0 {
                    let line = String::from_utf8_lossy(&line);
                    if let Some(mapping) = mapping(line.trim_end_matches('\n')) {
                        let added = self.mapped(look, &mapping, proc, digests);
                        self.note(look.through, mapping.path, added);
                    }
                    continue;
                }
                look.maps = None;
                look.looked_at = 0;
                if let Of::Runs { .. } = look.of {
                    return Ok(false);
                }
                look.descriptors = Some(fs::read_dir(proc.root().join(format!("{}/fd", look.through)))?);
            }
            let Some(entry) = look.descriptors.as_mut().and_then(Iterator::next) else { return Ok(false) };
            if let Some(fd) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) {
                let added = self.opened(look, fd, proc, digests);
                self.note(look.through, "a descriptor", added);
            }
        }
        Ok(true)
    }

    fn mapped(
        &mut self,
        look: &mut Look,
        mapping: &Mapping<'_>,
        proc: &Proc,
        digests: &Digests,
    ) -> io::Result<()> {
        let through = look.through;
        let key = (mapping.device.to_owned(), mapping.inode);
        let file = || digests.mapping(through, mapping.range, mapping.path.as_bytes());
        match &look.of {
            Of::Runs { workload, ino, own } => {
                let is_own = mapping.inode == *ino && mapping.path.as_bytes().ends_with(own.as_bytes());
                if !mapping.executable || is_own || !look.mapped.insert(key) {
                    return Ok(());
                }
                let at = usize::try_from(look.at).unwrap_or(usize::MAX);
                let mnt_ns = self.tasks.get(at).map_or(0, |task| task.mnt_ns);
                let device = mapping.device.as_bytes().to_vec();
                let path = mapping.path.into();
                self.add(
                    (workload.clone(), mnt_ns, Role::Library, device, mapping.inode, path),
                    look.at,
                    file,
                )
            }
            Of::Writes => {
                let link = format!("{through}/map_files/{}", mapping.range);
                // One mapping of a file may be writable, and another not.
                if !mapping.shared || look.mapped.contains(&key) || !is_writable(proc, &link) {
                    return Ok(());
                }
                self.add_written(look.at, None, link, file()?);
                look.mapped.insert(key);
                Ok(())
            }
        }
    }

    fn opened(&mut self, look: &mut Look, fd: u32, proc: &Proc, digests: &Digests) -> io::Result<()> {
        let link = format!("{}/fd/{fd}", look.through);
        if !is_writable(proc, &link) {
            return Ok(());
        }
        let found = fs::metadata(proc.root().join(&link))?;
        let number = (found.dev(), found.ino());
        if !look.open.insert(number) {
            // At most those of one step.
            let last = self.written.iter_mut().find(|written| written.number == Some(number));
            if let Some(written) = last {
                written.links.push(link.into_boxed_str());
            }
            return Ok(());
        }
        if found.is_file() {
            self.add_written(look.at, Some(number), link, digests.descriptor(look.through, fd)?);
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
        let file = file()?;
        self.ran.insert((file.identity.dev, file.identity.ino));
        let group = Group { file, role: key.2, processes: vec![process] };
        self.known.insert(key, self.groups.len());
        self.groups.push_back(group);
        Ok(())
    }

    /// Adds a file that is open for write. What has no name, and what the kernel serves, is in no SBOM.
    fn add_written(&mut self, at: u32, stat: Option<Number>, link: String, file: FileRef) {
        if file.mode & super::FILE_TYPE != super::REGULAR {
            return;
        }
        let number = (file.identity.dev, file.identity.ino);
        if self.ran.contains(&number) {
            self.doubted.insert(number);
        }
        let has_name = file.path.as_bytes().starts_with(b"/") && !file.deleted && file.place != Place::Memfd;
        if has_name {
            let file = FileRef { has_writers: true, ..file };
            self.written.push_back(Written { file, at, number: stat, links: vec![link.into_boxed_str()] });
        }
    }

    /// What runs and is open for write may be another content by now than the one that is read.
    fn doubt_written(&mut self) {
        let doubted = std::mem::take(&mut self.doubted);
        for group in &mut self.groups {
            let identity = &group.file.identity;
            group.file.has_writers |= doubted.contains(&(identity.dev, identity.ino));
        }
    }
}

impl Look {
    fn new(at: u32, through: u32, of: Of, maps: BufReader<fs::File>) -> Self {
        let (mapped, open) = (HashSet::new(), HashSet::new());
        Self { at, through, of, maps: Some(maps), descriptors: None, mapped, open, looked_at: 0 }
    }
}

fn open_maps(proc: &Proc, pid: u32) -> io::Result<BufReader<fs::File>> {
    Ok(BufReader::new(fs::File::open(proc.root().join(format!("{pid}/maps")))?))
}

/// State and flags of a task (proc_pid_stat(5)).
fn state(proc: &Proc, pid: u32) -> io::Result<(char, u64)> {
    let text = proc.text(&format!("{pid}/stat"))?;
    let rest = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next().and_then(|state| state.chars().next());
    let flags = fields.nth(5).and_then(|flags| flags.parse().ok());
    state.zip(flags).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The thread through which a process can be looked at: one that lives. A kernel thread has no program, nor has a zombie.
fn thread_of(proc: &Proc, pid: u32) -> io::Result<Option<u32>> {
    match proc.exe(pid) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other.map(|_| Some(pid)),
    }
    if state(proc, pid)?.1 & KERNEL_THREAD != 0 {
        return Ok(None);
    }
    let mut lives = false;
    for entry in fs::read_dir(proc.root().join(format!("{pid}/task")))?.take(THREADS) {
        let Some(tid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if proc.exe(tid).is_ok() {
            return Ok(Some(tid));
        }
        lives |= state(proc, tid).is_ok_and(|(state, _)| !matches!(state, 'Z' | 'X'));
    }
    match lives {
        true => Err(io::Error::other("none of its threads shows its program")),
        false => Ok(None),
    }
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

/// A line of `maps`, if it is of a file that is mapped executable or shared (proc_pid_maps(5)).
fn mapping(line: &str) -> Option<Mapping<'_>> {
    let mut fields = line.splitn(6, ' ');
    let (range, mode, _) = (fields.next()?, fields.next()?, fields.next()?);
    let (device, inode) = (fields.next()?, fields.next()?.parse::<u64>().ok()?);
    let path = fields.next()?.trim_start_matches(' ');
    let is = |at: usize, letter| mode.as_bytes().get(at) == Some(&letter);
    let (executable, shared) = (is(2, b'x'), is(3, b's'));
    let is_file = inode != 0 && path.starts_with('/') && (executable || shared);
    is_file.then_some(Mapping { range, device, inode, path, executable, shared })
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
        let one = |range, device, inode, path, how: &str| {
            let (executable, shared) = (how.contains('x'), how.contains('s'));
            Mapping { range, device, inode, path, executable, shared }
        };
        assert_eq!(
            maps.lines().filter_map(mapping).collect::<Vec<_>>(),
            [
                one("55d1-55d2", "08:01", 17, "/usr/bin/a", "x"),
                one("7f00-7f01", "08:01", 18, "/usr/lib/with space.so (deleted)", "x"),
                one("7f01-7f02", "08:01", 18, "/usr/lib/with space.so (deleted)", "x"),
                one("7f04-7f05", "00:01", 19, "/memfd:x (deleted)", "xs"),
                one("7f05-7f06", "08:01", 20, "/srv/data", "s"),
                one("7f06-7f07", "08:01", 20, "/srv/data", "s"),
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
        running.rounds = 1;
        let mut workloads = Workloads::new(&Config::default()).expect("no entries");
        let mut digests = Digests::new(Metrics::new());
        let mut events = Vec::new();
        while !running.is_done() {
            events.extend(running.step(7, &proc, &mut workloads, &mut digests));
        }
        for child in &mut children {
            child.kill().and_then(|()| child.wait()).expect("it lived");
        }
        // What a child writes to is the caller's.
        events.retain(|event| !matches!(event.body, Body::Running { role: Role::Written, .. }));
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

    fn looked_at(pids: Vec<u32>, found: &Path, meanwhile: impl FnOnce()) -> (Vec<Event>, Counts) {
        let proc = Proc::new(Path::new("/proc"));
        let mut running = Running::new(Flavour::Lsm, &proc);
        (running.pids, running.rounds) = (pids, 1);
        let mut workloads = Workloads::new(&Config::default()).expect("no entries");
        let mut digests = Digests::new(Metrics::new());
        let mut events = Vec::new();
        let is_found = |running: &Running| {
            running.written.iter().any(|written| Path::new(&written.file.path.to_string()) == found)
        };
        while !is_found(&running) && !running.is_done() {
            events.extend(running.step(7, &proc, &mut workloads, &mut digests));
        }
        meanwhile();
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
        let (events, counts) = looked_at(vec![std::process::id()], &left, || drop(closed));
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
        for (path, ino) in [("/lib/a", 5), ("/lib/b", 6)] {
            let key = ("host".to_owned(), 1, Role::Library, Vec::new(), ino, path.into());
            running.add(key, 0, || Ok(file(path, ino))).expect("no error");
        }
        running.add_written(0, None, "1/fd/1".to_owned(), file("/other/name", 5));
        running.doubt_written();
        let doubted: Vec<_> = running.groups.iter().map(|group| group.file.has_writers).collect();
        assert_eq!(doubted, [true, false]);
        assert!(running.written.iter().all(|written| written.file.has_writers));
    }

    /// A user has many descriptors of one file, and many files.
    #[test]
    fn a_step_looks_at_few_descriptors_and_no_file_is_left_out() {
        const FILES: usize = 300;
        let directory = tempfile::tempdir().expect("a directory");
        let path = |n: usize| directory.path().join(n.to_string());
        let open: Vec<_> = (0..FILES).map(|n| fs::File::create(path(n)).expect("a file")).collect();
        let copies: Vec<_> = (0..100).map(|_| open[0].try_clone().expect("a descriptor")).collect();
        let proc = Proc::new(Path::new("/proc"));
        let mut running = Running::new(Flavour::Lsm, &proc);
        (running.pids, running.rounds) = (vec![std::process::id()], 1);
        let mut workloads = Workloads::new(&Config::default()).expect("no entries");
        let mut digests = Digests::new(Metrics::new());
        let (mut told, mut most) = (Vec::new(), 0);
        while !running.is_done() {
            if let Some(Event { body: Body::Running { file, role: Role::Written, .. }, .. }) =
                running.step(7, &proc, &mut workloads, &mut digests)
                && file.path.to_string().starts_with(&directory.path().display().to_string())
            {
                told.push(file.path.to_string());
            }
            most = most.max(running.written.iter().map(|written| written.links.len()).sum());
        }
        drop((open, copies));
        told.sort();
        told.dedup();
        assert_eq!((told.len(), running.counts.left_out), (FILES, 0));
        assert!(most > 1 && most <= STEP, "{most}");
    }

    #[test]
    fn a_kernel_thread_is_none_by_its_flags() {
        let directory = tempfile::tempdir().expect("a directory");
        let proc = Proc::new(directory.path());
        let process = |pid: u32, state: char, flags: u64, threads: &[(u32, char, bool)]| {
            let stat =
                |state, flags| format!("{pid} (a) b) {state} 1 1 1 0 -1 {flags} 0 0 0 0 0 0 0 0 0 0 0 0 5");
            for (tid, state, has_exe) in [(pid, state, false)].iter().chain(threads) {
                let own = directory.path().join(tid.to_string());
                fs::create_dir_all(&own).expect("a directory");
                fs::write(own.join("stat"), stat(*state, flags)).expect("a file");
                if *has_exe {
                    std::os::unix::fs::symlink("/bin/x", own.join("exe")).expect("a link");
                }
                let thread = directory.path().join(format!("{pid}/task/{tid}"));
                fs::create_dir_all(thread).expect("a directory");
            }
            thread_of(&proc, pid).map_err(|error| error.kind())
        };
        assert_eq!(process(10, 'S', 0x0020_8040, &[]), Ok(None), "a kernel thread");
        assert_eq!(process(20, 'Z', 0x0040_0044, &[]), Ok(None), "a zombie");
        let living = process(30, 'Z', 0x0040_0044, &[(31, 'S', true)]);
        assert_eq!(living, Ok(Some(31)), "its leader has ended, and a thread lives");
        let hidden = process(40, 'Z', 0x0040_0044, &[(41, 'S', false)]);
        assert_eq!(hidden, Err(io::ErrorKind::Other), "it is not looked at, and counted");
    }

    /// One that is looked at has forked meanwhile.
    #[test]
    fn a_process_that_is_new_is_looked_at() {
        let proc = Proc::new(Path::new("/proc"));
        let mut running = Running::new(Flavour::Lsm, &proc);
        running.pids = vec![std::os::unix::process::parent_id()];
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().expect("a process");
        let mut workloads = Workloads::new(&Config::default()).expect("no entries");
        let mut digests = Digests::new(Metrics::new());
        while !running.is_listed() {
            running.step(7, &proc, &mut workloads, &mut digests);
        }
        let is_there = running.tasks.iter().any(|task| task.process.tgid == child.id());
        child.kill().and_then(|()| child.wait()).expect("it lived");
        assert!(is_there);
    }
}
