//! SHA-256 of an observed file: from the kernel when it can, else from the opened file, cached and invalidated.
//!
//! What is read must be what the event saw: the opened file must have the event's inode, device, size and ctime, and
//! be unchanged by the time it has been read. Else the content is undetermined, with an [`Unread`]. Two cases differ:
//!
//! * A running program opened through `/proc/<pid>/exe` may have another ctime, if its size is the same and its mtime is not
//!   newer than the event: unlinking it or giving it a further name changes the ctime, and while it runs the
//!   kernel refuses writers. It may have run something else since, so that is a [`Doubt`].
//! * A changed file ([`Action::Change`]) is read later than it was changed, and may have been changed again. File times cannot tell,
//!   for two changes in one tick of the kernel's clock have the same, and whoever changes a file can set most of them. The kernel
//!   programs can ([`Order`]): they know when anything was last written under the inode's number. Unless that was after the event, the
//!   content is the event's, whatever became of its name, links and mode.
//!
//! Nothing is cached for a file that a writer has open (a shared mapping changes it without a sign), nor for one
//! that changed within the last [`SETTLED`] (time stamps move in ticks of the kernel's clock: a second change in the
//! same tick would not show), nor in file systems in memory, whose times stores through a mapping do not move.
//! What the agent reads of a file is doubted as well if the event was within [`TICKS`] of a change. A time that lies in the
//! clock's future is an earlier clock's: what changes now gets another one, so it says as much as one in the past.
//!
//! What a program serves (FUSE) is never read. NFS and other network file systems are: a server that does not answer
//! holds up the judge for as long as the mount lets it.
//!
//! No more is read and looked for than a [`budget`] allows: of changed files in all, of what runs or is mapped for each workload.

mod budget;
mod certain;
mod hash;
mod holes;
mod linked;
mod name;
mod open;
#[cfg(test)]
mod tests;

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::debug;

use self::budget::Budget;
pub use self::hash::MAX_FILE_BYTES;
use self::linked::Linked;
use self::open::{Found, Sameness, Ways, size};
use crate::event::{
    Action, Content, DigestOrigin, Doubt, FileIdentity, FileOp, FilePath, FileRef, Inode, Place, ProcessId,
    Start, Task, Unread, WeakDigests,
};
use crate::finding::Sha256;
use crate::metrics::Metrics;
use crate::order::Order;
use crate::proc::Proc;
use crate::recent::Recent;
use crate::sbom::ImageIndex;

/// Digests held at most, some 150 bytes each.
const MAX_CACHED: usize = 32_768;
/// How long a file must have been left alone for its digest to be cached: several ticks of the slowest kernel clock.
const SETTLED: Duration = Duration::from_millis(50);
/// How much later a change may come and still have the same time: two ticks of the slowest kernel clock (`HZ=100`).
const TICKS: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Cached {
    identity: FileIdentity,
    sha256: Sha256,
    weak: Option<Arc<WeakDigests>>,
}

/// Finds the content of files.
#[derive(Debug)]
pub struct Digests {
    ways: Ways,
    proc: Proc,
    /// By the inode that has the content: one entry for each, the newest.
    cache: Recent<Inode, Cached>,
    linked: Linked,
    buffer: Box<[u8]>,
    /// For changed files.
    budget: Budget,
    metrics: Arc<Metrics>,
    stand_in: Option<u32>,
    /// When the event was, by the wall clock and since boot.
    at: SystemTime,
    time_ns: u64,
    /// Absent in a replay and where no sensor runs.
    order: Option<Order>,
}

struct Hashed {
    sha256: Sha256,
    weak: Option<WeakDigests>,
    /// It was the event's file to the last bit of its identity.
    exact: bool,
}

impl Digests {
    /// With an empty cache.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self::with_proc(metrics, Path::new("/proc"))
    }

    fn with_proc(metrics: Arc<Metrics>, proc: &Path) -> Self {
        Self {
            ways: Ways::new(proc),
            proc: Proc::new(proc),
            cache: Recent::new(MAX_CACHED),
            linked: Linked::new(),
            buffer: vec![0; hash::BUFFER].into(),
            budget: Budget::new(Instant::now()),
            metrics,
            stand_in: None,
            at: SystemTime::UNIX_EPOCH,
            time_ns: 0,
            order: None,
        }
    }

    /// Asks the kernel programs for the order of changes from now on.
    pub fn ask(&mut self, order: Order) {
        self.order = Some(order);
    }

    /// What is asked next is about an event at this time (wall clock, and nanoseconds since boot), of this workload. `stand_in`: a process of its
    /// workload, whose root is looked at when nothing is known of the event's own. What is found there counts only if it is the event's
    /// file.
    pub fn begin(&mut self, at: SystemTime, time_ns: u64, workload: &str, stand_in: Option<u32>) {
        self.at = at;
        self.time_ns = time_ns;
        self.ways.allowances.charge(workload);
        self.stand_in = stand_in;
    }

    /// The content of a file of an event. `weak` asks for SHA-1 and MD5 too, which are left out when the file cannot
    /// be read while its SHA-256 is known.
    pub fn content(&mut self, task: &Task, file: &FileRef, action: Action, weak: bool) -> Content {
        if let Some(known) = file.digest {
            self.metrics.digest_from_kernel();
            let origin = if known.cached { DigestOrigin::KernelCache } else { DigestOrigin::Kernel };
            let weak = weak.then(|| self.weak_of(task, file, action, known.sha256)).flatten();
            let doubt = has_writers(file, action).then_some(Doubt::Writers);
            return Content::Known { sha256: known.sha256, origin, weak, doubt };
        }
        if let Some(why) = file.unhashed {
            self.metrics.digest_left_to_agent(why);
        }
        if let Some((sha256, have)) = self.cached(file, weak) {
            self.metrics.digest_from_cache();
            return Content::Known { sha256, origin: DigestOrigin::AgentCache, weak: have, doubt: None };
        }
        match self.read(task, file, action, weak) {
            Ok((sha256, weak, exact)) => {
                let doubt = self.doubt(file, action, exact);
                Content::Known { sha256, origin: DigestOrigin::Agent, weak, doubt }
            }
            Err(reason) => {
                self.metrics.digest_undetermined(&reason);
                debug!(path = %file.path, tgid = task.process.tgid, reason = reason.as_str(), "content undetermined");
                Content::Undetermined(reason)
            }
        }
    }

    /// A file was changed: its digest is forgotten.
    pub fn changed(&mut self, file: &FileRef) {
        self.cache.remove(&file.identity.real);
    }

    /// Whatever is known of any file may be wrong.
    pub fn forget_all(&mut self) {
        self.cache.clear();
    }

    /// A file that the event has by its caller's spelling ([`FileRef::by_name`]): absolute path as the workload sees
    /// it, identity, mode and place as they are now.
    ///
    /// The name is taken relative to the process's working directory, inside its root; `/dev/fd/N` is its
    /// descriptor. When the process is gone, an absolute name is looked up by another process of the same mount
    /// namespace (which sees the same file unless one of the two changed its root); a relative one cannot be.
    ///
    /// With a time, it is an error if the name may not have meant the same file then. `follow`: if the name is a symbolic link's, what
    /// that leads to is meant. `host`: the workload is the host, and this process has its root directory, in which the path is.
    pub fn resolve_by_name(
        &mut self,
        task: &Task,
        file: &FileRef,
        at: Option<SystemTime>,
        follow: bool,
        host: Option<u32>,
    ) -> io::Result<FileRef> {
        name::resolve(&mut self.ways, task, file, at, follow, host)
    }

    /// The file has this name in a process's root now.
    pub fn is_at(&self, pid: u32, name: &FilePath, file: &FileRef) -> bool {
        let found = self.ways.in_root(pid, name.as_bytes(), false);
        found.is_ok_and(|found| found.compare(&file.identity) != Sameness::Other)
    }

    /// A name of the SBOM that a file with several names has in a process's root.
    pub fn listed_name(
        &mut self,
        process: ProcessId,
        index: &Arc<ImageIndex>,
        file: &FileRef,
    ) -> Option<FilePath> {
        let root = || self.ways.root(process.tgid).ok();
        let candidates = self.linked.candidates(process, index, file.identity.ino, root);
        let mut names = candidates.into_iter().filter_map(|id| Some(index.entry(id)?.path()));
        names.find(|name| self.is_at(process.tgid, name, file))
    }

    /// The program of a process of which no exec was seen: its path as the workload sees it, identity, mode and place.
    pub fn program(&mut self, task: &Task) -> io::Result<FileRef> {
        let program = name::program(&self.ways, task.process.tgid)?;
        if self.proc.is_alive(task.process) {
            Ok(program)
        } else {
            Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the process is gone, and another one has its number",
            ))
        }
    }

    /// A file that a process has mapped at `range` (`<start>-<end>`), which `/proc/<pid>/maps` shows as `path`.
    pub fn mapping(&self, process: u32, range: &str, path: &[u8]) -> io::Result<FileRef> {
        name::mapping(&self.ways, process, range, path)
    }

    /// A file that a process has open.
    pub fn descriptor(&self, process: u32, fd: u32) -> io::Result<FileRef> {
        name::opened(&self.ways, process, fd)
    }

    /// How the file begins. `None` when it cannot be read any more, or a program serves it: that says nothing of what the next reader
    /// gets.
    pub fn start(&mut self, task: &Task, file: &FileRef) -> Option<Start> {
        if file.served {
            return None;
        }
        let action = Action::Change(FileOp::CloseWrite);
        for way in ways(file, action) {
            let Some(Ok(found)) = self.follow(*way, task, file) else { continue };
            if found.compare(&file.identity) == Sameness::Other {
                continue;
            }
            let mut head = Vec::with_capacity(32);
            match found.read() {
                Ok(opened) => opened.take(Start::BYTES).read_to_end(&mut head).ok()?,
                Err(Unread::NotRegular) => return Some(Start::Data),
                Err(_) => continue,
            };
            return Some(Start::of(&head));
        }
        None
    }

    /// The file as it is now, if it can still be found.
    pub fn again(&mut self, task: &Task, file: &FileRef) -> Option<FileRef> {
        if file.served {
            return None;
        }
        for way in ways(file, Action::Change(FileOp::CloseWrite)) {
            let Some(Ok(found)) = self.follow(*way, task, file) else { continue };
            if found.compare(&file.identity) == Sameness::Other {
                continue;
            }
            let stat = &found.stat;
            let identity = FileIdentity { size: size(stat), ctime_ns: open::ctime_ns(stat), ..file.identity };
            return Some(FileRef {
                identity,
                mode: stat.st_mode,
                nlink: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
                ..file.clone()
            });
        }
        None
    }

    /// Whether there is a regular file at a path now, in the root directory of this process, and if it is to be read, what it holds.
    pub fn at(&mut self, process: u32, path: &FilePath, read: bool) -> (bool, Option<Content>) {
        let found = match self.ways.in_root(process, path.as_bytes(), false) {
            Ok(found) => found,
            // What cannot be looked at is not gone.
            Err(error) => return (Unread::from(&error) != Unread::Gone, None),
        };
        if !found.is_regular() {
            return (false, None);
        }
        let content = read.then(|| {
            let hashed = found.read().and_then(|file| {
                hash::hash(&file, &found.stat, &mut self.buffer, true, false, &self.metrics)
            });
            match hashed {
                Ok((sha256, weak)) => {
                    let weak = weak.map(Arc::new);
                    Content::Known { sha256, origin: DigestOrigin::Agent, weak, doubt: None }
                }
                Err(reason) => Content::Undetermined(reason),
            }
        });
        (true, content)
    }

    /// Why what the agent has read may not be what ran. `exact`: it has the event's identity to the last bit.
    fn doubt(&self, file: &FileRef, action: Action, exact: bool) -> Option<Doubt> {
        let changed = SystemTime::UNIX_EPOCH + Duration::from_nanos(file.identity.ctime_ns);
        if matches!(action, Action::Change(_)) {
            // Where only its name was known then, the identity is of now.
            return (!exact || changed > self.at).then_some(Doubt::Touched);
        }
        if has_writers(file, action) {
            Some(Doubt::Writers)
        } else if !exact {
            Some(Doubt::Touched)
        } else if distance(self.at, changed) <= TICKS {
            Some(Doubt::Fresh)
        } else {
            is_in_memory(file).then_some(Doubt::InMemory)
        }
    }

    fn cached(&mut self, file: &FileRef, weak: bool) -> Option<(Sha256, Option<Arc<WeakDigests>>)> {
        if !may_cache(file) {
            return None;
        }
        let have = self.cache.get(&file.identity.real)?;
        let fits = have.identity.has_content_of(&file.identity) && (!weak || have.weak.is_some());
        fits.then(|| (have.sha256, have.weak.clone()))
    }

    /// SHA-1 and MD5 of a file whose SHA-256 the kernel gave; only of that very content.
    fn weak_of(
        &mut self,
        task: &Task,
        file: &FileRef,
        action: Action,
        sha256: Sha256,
    ) -> Option<Arc<WeakDigests>> {
        let (found, weak) = match self.cached(file, true) {
            Some(have) => have,
            None => self.read(task, file, action, true).map(|(sha256, weak, _)| (sha256, weak)).ok()?,
        };
        weak.filter(|_| found == sha256)
    }

    fn read(
        &mut self,
        task: &Task,
        file: &FileRef,
        action: Action,
        weak: bool,
    ) -> Result<(Sha256, Option<Arc<WeakDigests>>, bool), Unread> {
        let start = Instant::now();
        // Before it is read: what changes after that has a later time then.
        let settled = is_settled(&file.identity);
        let hashed = self.open_and_hash(task, file, action, weak)?;
        self.metrics.digest_computed(start.elapsed());
        let weak = hashed.weak.map(Arc::new);
        if hashed.exact && may_cache(file) && settled {
            let cached = Cached { identity: file.identity, sha256: hashed.sha256, weak: weak.clone() };
            self.cache.insert(file.identity.real, cached);
        }
        Ok((hashed.sha256, weak, hashed.exact))
    }

    /// Tries the ways to the file until one leads to the event's; else the reason that says most.
    fn open_and_hash(
        &mut self,
        task: &Task,
        file: &FileRef,
        action: Action,
        weak: bool,
    ) -> Result<Hashed, Unread> {
        if file.served {
            // Even looking it up may wait for that program.
            return Err(Unread::Served);
        }
        let mut reason = Unread::Gone;
        for way in ways(file, action) {
            let Some(found) = self.follow(*way, task, file) else { continue };
            let result = found
                .map_err(|e| Unread::from(&e))
                .and_then(|found| self.hash(*way, &found, file, action, weak));
            match result {
                Ok(hashed) => return Ok(hashed),
                // That a file is gone says less than what was found on another way.
                Err(Unread::Gone) => {}
                Err(Unread::Replaced) if reason != Unread::Gone => {}
                Err(other) => reason = other,
            }
        }
        Err(reason)
    }

    /// `None` when the way is closed.
    fn follow(&mut self, way: Way, task: &Task, file: &FileRef) -> Option<io::Result<Found>> {
        let pid = task.process.tgid;
        match way {
            Way::Exe => Some(self.ways.exe(pid)),
            Way::Root => Some(self.ways.in_root(pid, file.path.as_bytes(), false)),
            Way::Mapped => Some(self.ways.mapped(pid, file)),
            Way::Opened => Some(self.ways.opened(pid, file)),
            Way::Peer => {
                let peer = match self.ways.peer(task.mnt_ns) {
                    Ok(peer) => peer.filter(|peer| *peer != pid)?,
                    Err(error) => return Some(Err(error)),
                };
                Some(self.ways.in_root(peer, file.path.as_bytes(), false))
            }
            // Tried as a peer.
            Way::StandIn if self.ways.is_in_hosts_mounts(task) => None,
            Way::StandIn => Some(self.ways.in_root(self.stand_in?, file.path.as_bytes(), false)),
        }
    }

    fn hash(
        &mut self,
        way: Way,
        found: &Found,
        file: &FileRef,
        action: Action,
        weak: bool,
    ) -> Result<Hashed, Unread> {
        let sameness = found.compare(&file.identity);
        let is_change = matches!(action, Action::Change(_));
        let unwritten = if is_change { self.unwritten(file) } else { None };
        let (accepted, exact) = match sameness {
            Sameness::Other => (false, false),
            Sameness::Unchanged => (true, true),
            // What was still being written when it was looked at has another size by now.
            _ if unwritten == Some(true) => {
                let fits = file.has_writers || size(&found.stat) == file.identity.size;
                (fits, fits)
            }
            Sameness::Renamed => (way == Way::Exe || is_change && unwritten.is_none(), false),
            Sameness::Changed => (false, false),
        };
        if !accepted {
            return Err(Unread::Replaced);
        }
        let opened = found.read()?;
        let (bytes, now) = (size(&found.stat), Instant::now());
        // What is not read costs nothing.
        let unread = bytes > MAX_FILE_BYTES || holes::is_hollow(&opened, &found.stat);
        let enough = match is_change {
            _ if unread => true,
            true => self.budget.take(bytes, now),
            false => self.ways.allowances.read(bytes, now),
        };
        if !enough {
            return Err(Unread::OverBudget);
        }
        let runs = way == Way::Exe;
        let (sha256, weak) = hash::hash(&opened, &found.stat, &mut self.buffer, weak, runs, &self.metrics)?;
        // Asked last: what was written until now is in there.
        if is_change && self.unwritten(file) == Some(false) {
            return Err(Unread::Replaced);
        }
        Ok(Hashed { sha256, weak, exact })
    }

    /// Nothing was written to the file since the event. `None`: nobody knows.
    fn unwritten(&self, file: &FileRef) -> Option<bool> {
        let order = self.order.as_ref()?;
        let identity = &file.identity;
        // A layer may be written to by another name than the overlay's.
        let last = order.last_written(identity.inode()).max(order.last_written(identity.real))?;
        Some(last <= self.time_ns)
    }
}

/// A way to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `/proc/<pid>/exe`.
    Exe,
    /// Its path in the process's root.
    Root,
    /// `/proc/<pid>/map_files`, by inode.
    Mapped,
    /// `/proc/<pid>/fd`, by inode.
    Opened,
    /// Its path in the root of another process of the mount namespace.
    Peer,
    /// Its path in the root of the workload's first process: what an exit closes is closed after the process has left its namespaces
    /// (exit_task_work() in do_exit()), and what a process of the host with another root directory changes has the host's name.
    StandIn,
}

fn ways(file: &FileRef, action: Action) -> &'static [Way] {
    let nameless = file.deleted
        || file.truncated
        || file.unreachable
        || file.path.is_empty()
        || file.place == Place::Memfd;
    match (action, nameless) {
        (Action::Exec | Action::Interpreter | Action::Connect, false) => {
            &[Way::Exe, Way::Root, Way::Peer, Way::StandIn]
        }
        (Action::Exec | Action::Interpreter | Action::Connect, true) => &[Way::Exe],
        (Action::Library, false) => &[Way::Root, Way::Mapped, Way::Opened, Way::Peer, Way::StandIn],
        (Action::Library, true) => &[Way::Mapped, Way::Opened],
        (Action::Script | Action::Change(_), false) => &[Way::Root, Way::Opened, Way::Peer, Way::StandIn],
        (Action::Script | Action::Change(_), true) => &[Way::Opened],
    }
}

fn may_cache(file: &FileRef) -> bool {
    let steady = !file.has_writers && !file.changes_beneath && !is_in_memory(file);
    steady && !file.by_name && file.identity.ino != 0
}

fn is_in_memory(file: &FileRef) -> bool {
    file.in_memory || file.place == Place::Tmpfs
}

fn distance(one: SystemTime, other: SystemTime) -> Duration {
    one.duration_since(other).unwrap_or_else(|error| error.duration())
}

/// Of a changed file its content now is asked for, whoever writes.
fn has_writers(file: &FileRef, action: Action) -> bool {
    file.has_writers && !matches!(action, Action::Change(_))
}

fn is_settled(identity: &FileIdentity) -> bool {
    let changed = SystemTime::UNIX_EPOCH + Duration::from_nanos(identity.ctime_ns);
    distance(SystemTime::now(), changed) > SETTLED
}
