//! Who ran it: cgroup → container → image digest; and the table of processes.
//!
//! The host is a workload too: a process whose cgroup names no container (and matches no `[[workload]]`) is the
//! host's. That is said only of a process whose cgroup is known. When a process was gone before it could be asked
//! and nothing else proves where it was, its workload is [`UNKNOWN`]: neither the host nor a container is blamed
//! for it, and [`Stats::unresolved`] counts it. So it is with a cgroup that the agent cannot see, or of which two hierarchies
//! say different things.
//!
//! A cgroup's name counts only if root gave it ([`belief`]). Who may make cgroups and calls one like a container stays on the
//! host, is judged by the host's SBOM, and findings name the claim.

mod allowance;
mod belief;
mod cgroup;
mod hierarchy;
mod host;
mod processes;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::time::{ClockId, clock_gettime};
use tracing::{debug, warn};

use self::allowance::Allowance;
use self::belief::Belief;
pub use self::cgroup::{CgroupTextError, Container, Line, Runtime, TooLong, container, lines, pod_uid};
use self::hierarchy::Hierarchies;
pub use self::host::{Host, Release, Verity};
pub use self::processes::{MAX_EXITED, MAX_PROCESSES, Processes, ProcessesStats};
use crate::config::{self, Config};
use crate::event::{ProcessId, Task};
use crate::finding::WorkloadInfo;
use crate::identity::Digests;
use crate::proc::Proc;
use crate::recent::Recent;

/// Id of the workload of processes that could not be asked in time.
pub const UNKNOWN: &str = "unknown";
/// Id of the host's workload.
pub const HOST: &str = "host";

/// Beginning of the id of a workload that the configuration has a cgroup's pattern for.
const BY_PATTERN: &str = "cgroup://";

/// Shortest beginning of a container id that the configuration may give; what `docker ps` shows.
const MIN_CONTAINER_PREFIX: usize = 12;
/// Cgroups, containers and processes remembered.
const MAX_CGROUPS: usize = 65_536;
const MAX_CONTAINERS: usize = 16_384;
const MAX_BY_PROCESS: usize = 32_768;

/// A container, the host, or [`UNKNOWN`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// As findings show it.
    pub info: Arc<WorkloadInfo>,
    /// Digests under which its SBOM is looked up.
    pub image: Option<Arc<Digests>>,
    /// The host itself.
    pub is_host: bool,
    /// Containers: start of the oldest process that was in it when it was first seen.
    pub started: Option<SystemTime>,
    /// Containers: that process. Its start is rounded down to a clock tick.
    pub root: Option<ProcessId>,
    /// The host, at work in a container's cgroup: what a runtime runs to make a container.
    pub helps: bool,
}

impl Workload {
    /// A container whose cgroup has a runtime's name for it.
    pub fn is_of_a_runtime(&self) -> bool {
        !self.is_host && !self.is_unknown() && !self.info.id.starts_with(BY_PATTERN)
    }

    /// The process could not be asked in time; see [`UNKNOWN`].
    pub fn is_unknown(&self) -> bool {
        self.info.id == UNKNOWN
    }
}

/// A `[[workload]]` that cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("[[workload]] number {number}{}: {what}", if name.is_empty() { String::new() } else { format!(" ({name})") })]
pub struct EntryError {
    /// Position among the `[[workload]]` entries, from 1.
    pub number: usize,
    /// Its `name`.
    pub name: String,
    /// What was expected, what was found, what to do.
    pub what: String,
}

/// What happened to look-ups, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events whose workload is [`UNKNOWN`].
    pub unresolved: u64,
    /// Processes (not asked in time) that were given their parent's workload.
    pub inherited: u64,
    /// Searches of the cgroup tree for the cgroup of a process that was gone.
    pub scans: u64,
    /// Searches that ended at the limit of directories.
    pub scans_cut: u64,
    /// Searches that were not made, because others had taken too much time.
    pub scans_put_off: u64,
}

/// What was learned of one process on hosts where the cgroup id alone does not tell.
#[derive(Clone, Debug)]
struct Known {
    start_ns: u64,
    mnt_ns: u32,
    pid_ns: u32,
    /// It may have moved since.
    stale: bool,
    /// Its number may be another's.
    ended: bool,
    workload: Arc<Workload>,
}

/// What a cgroup of a process claims.
#[derive(Debug)]
struct Claim<'a> {
    controllers: &'a str,
    path: &'a str,
    /// The container that it names; `None`: the configuration has a pattern for it.
    own: Option<Container<'a>>,
    belief: Belief,
}

impl Claim<'_> {
    /// The part of the path that makes it the workload's own.
    fn named(&self) -> &str {
        &self.path[..self.own.map_or(self.path.len(), |own| own.end)]
    }

    fn id(&self) -> String {
        match &self.own {
            Some(own) => format!("{}://{}", own.runtime.as_str(), own.id),
            None => format!("{BY_PATTERN}{}", self.path),
        }
    }
}

/// Finds the workload of a task.
///
/// On a cgroup v2 host the id in the event decides; it is resolved once. Where v1 controllers are in use (v1 and
/// hybrid hosts) the v2 cgroup may be the root's, or a service's that holds containers, so `/proc/<pid>/cgroup` is read once
/// per process (and again after [`Workloads::ask_again`]); of a process that is gone an id decides when its path names a
/// container. A process that was gone by then is given its parent's workload if both have the same mount and pid namespace.
#[derive(Debug)]
pub struct Workloads {
    entries: Vec<config::Workload>,
    /// What names the host's image, apart from the configuration; it stays while the host runs.
    identity: Host,
    host: Arc<Workload>,
    unknown: Arc<Workload>,
    proc: Proc,
    hierarchies: Hierarchies,
    by_cgroup: Recent<u64, Arc<Workload>>,
    /// Cgroup ids that no directory has.
    missing: Recent<u64, ()>,
    /// Time for searches: whoever makes cgroups and ends in them causes one each.
    searching: Allowance,
    by_process: Recent<u32, Known>,
    by_id: HashMap<String, Arc<Workload>>,
    stats: Stats,
}

impl Workloads {
    /// Checks the configuration's entries and looks where the cgroups are mounted.
    pub fn new(config: &Config) -> Result<Self, EntryError> {
        Self::with_proc(config, Path::new("/proc"), Host::read())
    }

    fn with_proc(config: &Config, root: &Path, identity: Host) -> Result<Self, EntryError> {
        let entries = checked(config)?;
        let proc = Proc::new(root);
        let hierarchies = Hierarchies::find(&proc).unwrap_or_else(|error| {
            warn!(%error, "no mount table: containers of processes that end at once cannot be found");
            Hierarchies::default()
        });
        let unknown = WorkloadInfo { id: UNKNOWN.to_owned(), ..WorkloadInfo::default() };
        Ok(Self {
            entries,
            host: host(config, &identity),
            identity,
            unknown: Arc::new(Workload {
                info: Arc::new(unknown),
                image: None,
                is_host: false,
                started: None,
                root: None,
                helps: false,
            }),
            proc,
            hierarchies,
            by_cgroup: Recent::new(MAX_CGROUPS),
            missing: Recent::new(MAX_CGROUPS),
            searching: Allowance::new(Instant::now()),
            by_process: Recent::new(MAX_BY_PROCESS),
            by_id: HashMap::new(),
            stats: Stats::default(),
        })
    }

    /// Takes a new configuration; every workload is resolved anew. A bad one changes nothing.
    pub fn reload(&mut self, config: &Config) -> Result<(), EntryError> {
        self.entries = checked(config)?;
        self.host = host(config, &self.identity);
        self.by_cgroup.clear();
        self.missing.clear();
        self.by_process.clear();
        self.by_id.clear();
        Ok(())
    }

    /// The host's workload.
    pub fn host(&self) -> Arc<Workload> {
        Arc::clone(&self.host)
    }

    /// The workload of processes that could not be asked.
    pub fn unknown(&self) -> Arc<Workload> {
        Arc::clone(&self.unknown)
    }

    /// Counters since the start.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Asks anew for this process when its next event comes: call it at exec, for a runtime moves a process into its
    /// container's cgroup between fork and exec. What was known still counts if the process is gone by then and is in the
    /// same namespaces as before.
    pub fn ask_again(&mut self, process: ProcessId) {
        if let Some(known) = self.by_process.get(&process.tgid).filter(|k| k.start_ns == process.start_ns) {
            known.stale = true;
        }
    }

    /// A process ended: nothing is inherited from it any more. It is still known, for what its exit closes comes after it, when it has
    /// left its namespaces (exit_task_work() in do_exit()).
    pub fn ended(&mut self, process: ProcessId) {
        if let Some(known) = self.by_process.get(&process.tgid).filter(|k| k.start_ns == process.start_ns) {
            known.ended = true;
        }
    }

    /// The workload of a task.
    pub fn resolve(&mut self, task: &Task) -> Arc<Workload> {
        if !self.hierarchies.has_v1()
            && let Some(workload) = self.by_cgroup.get(&task.cgroup_id)
        {
            return Arc::clone(workload);
        }
        if let Some(known) = self.by_process.get(&task.process.tgid)
            && known.start_ns == task.process.start_ns
            && !known.stale
        {
            return Arc::clone(&known.workload);
        }
        let found = if self.hierarchies.has_v1() || task.cgroup_id == 0 {
            self.by_asking(task)
        } else {
            self.by_cgroup_id(task)
        };
        found.unwrap_or_else(|| {
            self.stats.unresolved += 1;
            debug!(
                tgid = task.process.tgid,
                cgroup = task.cgroup_id,
                "the process was gone and its cgroup too: workload unknown"
            );
            Arc::clone(&self.unknown)
        })
    }

    /// The workload of a process that lives, by `/proc` alone.
    pub(crate) fn of_process(&mut self, pid: u32) -> Option<Arc<Workload>> {
        let text = self.proc.cgroup(pid).ok()?;
        self.of_text(&text)
    }

    /// cgroup v2: the process's cgroup now, if it is still the event's; else the directory with this id.
    fn by_cgroup_id(&mut self, task: &Task) -> Option<Arc<Workload>> {
        let text = self.proc.cgroup(task.process.tgid).unwrap_or_default();
        let path = lines(&text)
            .ok()
            .and_then(|lines| lines.iter().find(|l| l.hierarchy == 0).map(|l| l.path.to_owned()));
        if let Some(path) = path {
            let proven = match self.hierarchies.id(&path) {
                Some(id) => id == task.cgroup_id,
                // The directory is out of the agent's sight; then the process itself must be the event's.
                None => path.contains("/..") && self.proc.is_alive(task.process),
            };
            if proven {
                let workload = self.of_paths(&[("", &path)])?;
                self.by_cgroup.insert(task.cgroup_id, Arc::clone(&workload));
                return Some(workload);
            }
        }
        self.scan_for(task.cgroup_id);
        self.by_cgroup.get(&task.cgroup_id).map(|w| Arc::clone(w))
    }

    /// v1 and hybrid: all lines of `/proc/<pid>/cgroup`, else the v2 directory with this id, else the parent.
    fn by_asking(&mut self, task: &Task) -> Option<Arc<Workload>> {
        if let Ok(text) = self.proc.cgroup(task.process.tgid)
            && self.proc.is_alive(task.process)
        {
            let workload = self.of_text(&text)?;
            self.know(task, &workload);
            return Some(workload);
        }
        if task.cgroup_id > 1 && self.by_cgroup.get(&task.cgroup_id).is_none() {
            self.scan_for(task.cgroup_id);
        }
        if let Some(workload) = self.by_cgroup.get(&task.cgroup_id) {
            return Some(Arc::clone(workload));
        }
        let before = self.by_process.get(&task.process.tgid).filter(|k| {
            k.start_ns == task.process.start_ns && (k.mnt_ns, k.pid_ns) == (task.mnt_ns, task.pid_ns)
        });
        let workload = match before {
            Some(known) => Arc::clone(&known.workload),
            None => self.of_parent(task)?,
        };
        self.stats.inherited += 1;
        self.know(task, &workload);
        Some(workload)
    }

    fn of_parent(&mut self, task: &Task) -> Option<Arc<Workload>> {
        if let Some(parent) = self.by_process.get(&task.ppid)
            && !parent.ended
            && parent.start_ns <= task.process.start_ns
            && (parent.mnt_ns, parent.pid_ns) == (task.mnt_ns, task.pid_ns)
        {
            return Some(Arc::clone(&parent.workload));
        }
        let namespace = |name| self.proc.namespace(task.ppid, name).ok();
        if namespace("mnt") != Some(task.mnt_ns) || namespace("pid") != Some(task.pid_ns) {
            return None;
        }
        let text = self.proc.cgroup(task.ppid).ok()?;
        // The number may have been given to a younger process since.
        if self.proc.stat(task.ppid).ok()?.start_ns > task.process.start_ns {
            return None;
        }
        self.of_text(&text)
    }

    fn know(&mut self, task: &Task, workload: &Arc<Workload>) {
        let known = Known {
            start_ns: task.process.start_ns,
            mnt_ns: task.mnt_ns,
            pid_ns: task.pid_ns,
            stale: false,
            ended: false,
            workload: Arc::clone(workload),
        };
        self.by_process.insert(task.process.tgid, known);
    }

    /// Learns every cgroup id there is now, once for each id that is asked for.
    fn scan_for(&mut self, id: u64) {
        if self.missing.get(&id).is_some() {
            return;
        }
        let begun = Instant::now();
        if !self.searching.is_there(begun) {
            self.stats.scans_put_off += 1;
            return;
        }
        self.stats.scans += 1;
        let alone = !self.hierarchies.has_v1();
        let mut found = Vec::new();
        if !self.hierarchies.scan(|id, path| found.push((id, path.to_owned()))) {
            self.stats.scans_cut += 1;
            warn!(
                "more cgroups than one search covers: some short-lived processes will be of no known workload"
            );
        }
        let mut hit = false;
        for (found_id, path) in found {
            if self.by_cgroup.get(&found_id).is_none()
                && let Some(workload) = self.of_paths(&[("", &path)])
                && (alone || !workload.is_host)
            {
                self.by_cgroup.insert(found_id, workload);
            }
            hit |= found_id == id;
        }
        if !hit || !alone {
            self.missing.insert(id, ());
        }
        self.searching.spend(begun.elapsed(), Instant::now());
    }

    fn of_text(&mut self, text: &str) -> Option<Arc<Workload>> {
        match lines(text) {
            Ok(lines) if !lines.is_empty() => {
                let paths: Vec<_> = lines.iter().map(|l| (l.controllers, l.path)).collect();
                self.of_paths(&paths)
            }
            Ok(_) => None,
            Err(error) => {
                warn!(%error, "a cgroup text was refused");
                None
            }
        }
    }

    /// The workload whose processes have these cgroups, `(controllers, path)` each; `None` if that cannot be said.
    fn of_paths(&mut self, paths: &[(&str, &str)]) -> Option<Arc<Workload>> {
        let mut claims = Vec::new();
        for (controllers, path) in paths {
            claims.extend(self.claim(controllers, path).ok()?);
        }
        let believed = || claims.iter().filter(|claim| claim.belief == Belief::Believed);
        let refused = |claim: &Claim<'_>| match &claim.belief {
            Belief::Refused(why) => Some((claim.id(), why.clone())),
            _ => None,
        };
        let Some(claim) = believed().find(|claim| claim.own.is_some()).or_else(|| believed().next()) else {
            return match claims.iter().find_map(refused) {
                Some((id, why)) => Some(self.claiming(&id, &why)),
                None => claims.is_empty().then(|| Arc::clone(&self.host)),
            };
        };
        let id = claim.id();
        if claim.own.is_some() && believed().any(|other| other.own.is_some() && other.id() != id) {
            warn!(?paths, "cgroups of one process name different containers: its workload is unknown");
            return None;
        }
        let fits = |entry: &&config::Workload| match (&entry.container, &entry.cgroup) {
            (Some(prefix), _) => claim.own.is_some_and(|own| own.id.starts_with(prefix.as_str())),
            (None, Some(pattern)) => believed().any(|claim| {
                // Of a container's own cgroups only those count that root named as well.
                let whole = || self.hierarchies.belief(claim.controllers, claim.path) == Belief::Believed;
                crate::glob::matches(pattern, claim.named())
                    || (crate::glob::matches(pattern, claim.path) && whole())
            }),
            (None, None) => false,
        };
        let entry = self.entries.iter().find(fits);
        let (own, controllers, path) = (claim.own, claim.controllers, claim.named());
        if self.by_id.len() >= MAX_CONTAINERS {
            self.by_id.clear();
        }
        let slot = match self.by_id.entry(id) {
            Entry::Occupied(have) => return Some(Arc::clone(have.get())),
            Entry::Vacant(slot) => slot,
        };
        let oldest = self
            .hierarchies
            .directory(controllers, path)
            .and_then(|directory| hierarchy::oldest_process(&directory, &self.proc));
        let image = entry.map(|e| Arc::new(e.digests()));
        let info = WorkloadInfo {
            id: slot.key().clone(),
            name: entry.map(|e| e.name.clone()).unwrap_or_default(),
            pod_uid: own.and_then(|own| own.pod).map(pod_uid).unwrap_or_default(),
            image_digest: shown(image.as_deref()),
            claim: String::new(),
        };
        let workload = Workload {
            info: Arc::new(info),
            image,
            is_host: false,
            started: oldest.and_then(|(_, start_ns)| wall_clock(start_ns)),
            root: oldest.map(|(tgid, start_ns)| ProcessId { tgid, start_ns }),
            helps: false,
        };
        Some(Arc::clone(slot.insert(Arc::new(workload))))
    }

    /// What a cgroup says: a container's name, or one that the configuration has a pattern for.
    fn claim<'a>(&self, controllers: &'a str, path: &'a str) -> Result<Option<Claim<'a>>, TooLong> {
        let own = container(path)?;
        let patterns = || self.entries.iter().filter_map(|entry| entry.cgroup.as_deref());
        if own.is_none() && !patterns().any(|pattern| crate::glob::matches(pattern, path)) {
            return Ok(None);
        }
        let mut claim = Claim { controllers, path, own, belief: Belief::NotSeen };
        claim.belief = self.hierarchies.belief(controllers, claim.named());
        Ok(Some(claim))
    }

    /// The host's workload, of a process that works in this container's cgroup but has the host's mounts.
    pub fn at_work_in(&self, container: &Workload) -> Arc<Workload> {
        let claim = format!("it has the host's mounts and works in the cgroup of {}", container.info.id);
        let info = WorkloadInfo { claim, ..WorkloadInfo::clone(&self.host.info) };
        Arc::new(Workload { info: Arc::new(info), helps: true, ..Workload::clone(&self.host) })
    }

    /// The host's workload, of a process whose cgroup claims to be another one.
    fn claiming(&self, id: &str, why: &str) -> Arc<Workload> {
        let claim = format!("its cgroup is called like {id}, which is not believed: {why}");
        let info = WorkloadInfo { claim, ..WorkloadInfo::clone(&self.host.info) };
        Arc::new(Workload { info: Arc::new(info), ..Workload::clone(&self.host) })
    }
}

/// Wall clock of a moment since boot, as the clock stands now.
fn wall_clock(boot_ns: u64) -> Option<SystemTime> {
    let boot = Duration::from(clock_gettime(ClockId::CLOCK_BOOTTIME).ok()?);
    SystemTime::now().checked_sub(boot.saturating_sub(Duration::from_nanos(boot_ns)))
}

/// The digest of an image, as findings show it.
fn shown(image: Option<&Digests>) -> String {
    image.and_then(Digests::shown).map(|digest| format!("sha256:{digest}")).unwrap_or_default()
}

fn host(config: &Config, identity: &Host) -> Arc<Workload> {
    let name = nix::unistd::gethostname().map(|n| n.to_string_lossy().into_owned()).unwrap_or_else(|_| {
        fs::read_to_string("/etc/hostname").map(|n| n.trim().to_owned()).unwrap_or_default()
    });
    let image = Some(identity.digests(config.host.image)).filter(|digests| !digests.is_empty()).map(Arc::new);
    let info = WorkloadInfo {
        id: HOST.to_owned(),
        name,
        pod_uid: String::new(),
        image_digest: shown(image.as_deref()),
        claim: String::new(),
    };
    Arc::new(Workload { info: Arc::new(info), image, is_host: true, started: None, root: None, helps: false })
}

fn checked(config: &Config) -> Result<Vec<config::Workload>, EntryError> {
    for (index, entry) in config.workloads.iter().enumerate() {
        let what = match (&entry.container, &entry.cgroup) {
            (None, None) => {
                "expected `container` or `cgroup`, found neither; add the one that names the container"
                    .to_owned()
            }
            (Some(_), Some(_)) => {
                "expected one of `container` and `cgroup`, found both; make two entries of it".to_owned()
            }
            (Some(id), None) if id.len() < MIN_CONTAINER_PREFIX => format!(
                "expected at least {MIN_CONTAINER_PREFIX} characters of the container's id, found {id:?}; give more of it"
            ),
            (Some(id), None) if !id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') => format!(
                "expected the container's id (digits and a to f), found {id:?}; leave out the runtime's name and \
                 anything else"
            ),
            (None, Some(pattern)) if !pattern.starts_with('/') && !pattern.starts_with("**") => format!(
                "expected a cgroup path that begins with `/` (or with `**`), found {pattern:?}; take it from the \
                 last field of /proc/<pid>/cgroup"
            ),
            _ => continue,
        };
        return Err(EntryError { number: index + 1, name: entry.name.clone(), what });
    }
    Ok(config.workloads.clone())
}
