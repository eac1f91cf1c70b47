//! Answers from the running system.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::time::{ClockId, clock_gettime};

use super::facts::{Ancestry, Facts, HostName, Settled, Unsettled};
use super::mounts::Mounts;
use super::running::Running;
use crate::config::Config;
use crate::devices::{self, Again, Devices, Opened};
use crate::digest::Digests;
use crate::event::{
    Action, Body, Content, Doubt, Event, FileOp, FilePath, FileRef, Flavour, Owner, ProcessId, Start, Task,
};
use crate::finding::WorkloadInfo;
use crate::host_root::{self, HostRoot};
use crate::metrics::{Lookups, Metrics};
use crate::order::Order;
use crate::packages::Databases;
use crate::part::Part;
use crate::proc::Proc;
use crate::record::process_of;
use crate::sbom::ImageIndex;
use crate::workload::{EntryError, Processes, Workload, Workloads};

/// A path with fewer names and bytes has a place that fits into a record: `ORIGIN_STEPS` and `PATH_CAP` of the kernel programs.
const ORIGIN_NAMES: usize = 32;
const ORIGIN_BYTES: usize = muster_common::PATH_CAP;
/// Ancestors in a finding at most.
const ANCESTORS: usize = 32;
/// How long a reading of the two clocks is used.
const CLOCKS_HOLD: Duration = Duration::from_secs(1);

/// Answers from `/proc`, the cgroups and the files themselves.
#[derive(Debug)]
pub struct Live {
    workloads: Workloads,
    processes: Processes,
    digests: Digests,
    places: crate::mounts::Mounts,
    databases: Databases,
    proc: Proc,
    host: Option<HostRoot>,
    mounts: Mounts,
    devices: Devices,
    package_managers: Vec<PathBuf>,
    clock: Clock,
    events: HashMap<String, (Arc<WorkloadInfo>, u64)>,
}

/// What is known of an event when it comes.
#[derive(Debug)]
pub struct Case {
    time: SystemTime,
    /// When it was, nanoseconds since boot.
    time_ns: u64,
    /// The event is an exec: what its names mean must be what they meant then.
    is_exec: bool,
    /// The event is of a name itself: a symbolic link is not followed.
    is_of_name: bool,
    workload: Arc<Workload>,
    /// A process whose root is the workload's.
    stand_in: Option<u32>,
}

impl Live {
    /// Knows no process yet.
    ///
    /// # Errors
    /// A `[[workload]]` entry cannot be used.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Result<Self, EntryError> {
        let workloads = Workloads::new(config)?;
        let proc = Proc::new(Path::new("/proc"));
        let host = HostRoot::find(&proc)
            .inspect_err(|error| {
                let consequence = host_root::CONSEQUENCE;
                tracing::warn!(%error, consequence, "the host's root directory cannot be seen");
            })
            .ok();
        Ok(Self {
            workloads,
            processes: Processes::new(),
            digests: Digests::new(Arc::clone(&metrics)),
            databases: Databases::new(metrics, host.as_ref().map(HostRoot::directory)),
            proc,
            places: crate::mounts::Mounts::new(Path::new("/proc"), host.as_ref().map(HostRoot::process)),
            mounts: Mounts::new(host.as_ref().map(HostRoot::mounts)),
            host,
            devices: Devices::default(),
            package_managers: config.host.package_managers.clone(),
            clock: Clock::default(),
            events: HashMap::new(),
        })
    }

    /// Asks the kernel programs for the order of changes from now on.
    pub fn ask(&mut self, order: Order) {
        self.digests.ask(order);
    }

    /// Tells the kernel programs which devices lie below file systems, and asks them who writes to devices.
    pub fn tell(&mut self, kernel: impl devices::Kernel + 'static) {
        self.devices.tell(kernel);
    }

    /// Takes in every process that runs now. Call it when the hooks are attached and before the first event. What they run is left to be
    /// judged.
    pub fn seed(&mut self, flavour: Flavour) -> Running {
        if let Err(error) = self.processes.seed(&mut self.workloads) {
            tracing::warn!(%error, "the processes that run now cannot be listed: findings about them lack ancestors");
        }
        Running::new(flavour, &self.proc, self.host.clone())
    }

    /// The next of what ran before; `None`: there is more to be looked at, or nothing left.
    pub(super) fn running(&mut self, running: &mut Running) -> Option<Event> {
        let now_ns = u64::try_from(since_boot().as_nanos()).unwrap_or(u64::MAX);
        running.step(now_ns, &self.proc, &mut self.workloads, &mut self.digests)
    }

    /// Takes a new configuration.
    ///
    /// # Errors
    /// A `[[workload]]` entry cannot be used; nothing is changed then.
    pub fn reload(&mut self, config: &Config) -> Result<(), EntryError> {
        self.workloads.reload(config)?;
        self.mounts.forget();
        self.package_managers.clone_from(&config.host.package_managers);
        Ok(())
    }

    /// The programs that install packages on the host.
    pub fn package_managers(&self) -> Vec<PathBuf> {
        self.package_managers.clone()
    }

    /// Events of each workload since this was last asked.
    pub fn take_events(&mut self) -> impl Iterator<Item = (String, (Arc<WorkloadInfo>, u64))> + '_ {
        self.events.drain()
    }

    /// Puts its counters where they are read, and gives the number of living processes.
    pub fn publish(&self, metrics: &Metrics) -> usize {
        let (workloads, processes) = (self.workloads.stats(), self.processes.stats());
        metrics.set_lookups(Lookups {
            unresolved: workloads.unresolved,
            inherited: workloads.inherited,
            searched: workloads.scans,
            cut: workloads.scans_cut,
            put_off: workloads.scans_put_off,
            healed: processes.healed,
            refused: processes.refused,
        });
        metrics.processes(processes.living, processes.exited);
        processes.living
    }
}

impl Live {
    /// The process whose root is the workload's.
    fn first(&self, workload: &Workload) -> Option<ProcessId> {
        match workload.is_host {
            true => self.host.as_ref().map(|host| ProcessId { tgid: host.process(), start_ns: 0 }),
            false => workload.root,
        }
    }
}

impl Live {
    /// The digests, for what is asked about an event.
    fn digests(&mut self, case: &Case) -> &mut Digests {
        self.digests.begin(case.time, case.time_ns, &case.workload.info.id, case.stand_in);
        &mut self.digests
    }

    fn workload_of(&mut self, event: &Event) -> Arc<Workload> {
        let task = &event.task;
        let workload = match &event.body {
            Body::Lost { .. } if *task == Task::default() => return self.workloads.host(),
            Body::Lost { .. } => return self.workloads.resolve(task),
            // Its start is in ticks, which would not do for what is remembered of a process.
            Body::Running { .. } => {
                self.workloads.of_process(task.process.tgid).unwrap_or_else(|| self.workloads.unknown())
            }
            Body::Exec { .. } => {
                // A runtime moves a process into its container's cgroup between fork and exec.
                self.workloads.ask_again(task.process);
                self.workloads.resolve(task)
            }
            _ => self.workloads.resolve(task),
        };
        self.mounts.decide(task, workload, &self.workloads, &self.proc)
    }

    /// Takes in what an event says of processes and files.
    fn note(&mut self, event: &Event, workload: &Arc<Workload>) {
        let task = &event.task;
        match &event.body {
            Body::Exec { exe, .. } => self.processes.on_exec(task, &exe.path, workload),
            Body::Fork { parent } => self.processes.on_fork(task, *parent, workload),
            Body::Exit { .. } => {
                self.processes.on_exit(task.process);
                self.workloads.ended(task.process);
            }
            Body::File { file, .. } => {
                self.processes.note(task, workload);
                self.digests.changed(file);
            }
            Body::Library { .. } | Body::Connect(_) => self.processes.note(task, workload),
            // Nothing has happened.
            Body::Running { .. } | Body::Lost { .. } => return,
        }
        match self.events.get_mut(&workload.info.id) {
            Some((_, count)) => *count += 1,
            None => {
                self.events.insert(workload.info.id.clone(), (Arc::clone(&workload.info), 1));
            }
        }
    }

    fn begin(&mut self, event: &Event) -> Case {
        let workload = self.workload_of(event);
        self.note(event, &workload);
        let stand_in = match workload.is_host {
            true => self.host.as_ref().map(HostRoot::process),
            false => workload.root.map(|first| first.tgid),
        };
        Case {
            time: self.clock.wall(event.time_ns),
            time_ns: event.time_ns,
            is_exec: matches!(event.body, Body::Exec { .. }),
            is_of_name: matches!(
                event.body,
                Body::File { op: FileOp::Rename | FileOp::Exchange | FileOp::Link | FileOp::Unlink, .. }
            ),
            workload,
            stand_in,
        }
    }

    fn content(&mut self, case: &Case, task: &Task, file: &FileRef, action: Action, weak: bool) -> Content {
        match self.digests(case).content(task, file, action, weak) {
            Content::Known { sha256, origin, weak, doubt: None } if file.altered => {
                Content::Known { sha256, origin, weak, doubt: Some(Doubt::Altered) }
            }
            content => content,
        }
    }

    fn resolve(&mut self, case: &Case, task: &Task, file: &FileRef) -> Result<FileRef, Arc<str>> {
        // Of a changed file the content now is asked for.
        let at = case.is_exec.then_some(case.time);
        let host = self.host.as_ref().filter(|_| case.workload.is_host).map(HostRoot::process);
        self.digests(case)
            .resolve_by_name(task, file, at, !case.is_of_name, host)
            .map_err(|e| format!("what its name means cannot be found out any more: {e}").into())
    }

    fn owner(&mut self, workload: &Workload, index: &Arc<ImageIndex>, file: &FileRef) -> Option<Owner> {
        let files = match workload.is_host {
            true => self.databases.of_host(),
            false => self.databases.of_image(workload.image.as_ref()?.shown()?, workload.root, index)?,
        };
        files.owner(file.path.as_bytes())
    }

    fn in_host_root(&self, task: &Task) -> bool {
        let is_of = |host: &HostRoot| host.is_of(&self.proc, task.process.tgid);
        self.host.as_ref().is_some_and(is_of) && self.proc.is_alive(task.process)
    }

    fn device_written(&mut self, case: &Case, device: u32) -> Option<Vec<FilePath>> {
        if self.devices.drops(device) {
            self.digests.forget_all();
        }
        self.devices.written(device, case.time_ns)
    }

    fn devices_again(&mut self, opened: &[Opened]) -> Vec<Again> {
        let again = self.devices.again(opened);
        if again.iter().any(|again| matches!(again, Again::Mounted(_))) {
            self.digests.forget_all();
        }
        again
    }

    fn settle(&mut self, files: &[Unsettled]) -> Vec<Settled> {
        let database = self.databases.of_host_now(files.iter().map(|file| file.path.as_bytes()));
        let settled = files.iter().map(|Unsettled { path, unread }| {
            let owner = database.owner(path.as_bytes());
            // What cannot be looked at is not gone.
            let (exists, content) = match &self.host {
                Some(host) => self.digests.at(host.process(), path, *unread),
                None => (true, None),
            };
            Settled { exists, content, owner }
        });
        settled.collect()
    }

    fn names(&mut self, workload: &Workload, dev: u32, path: &FilePath) -> Vec<FilePath> {
        match (self.first(workload), path.is_empty()) {
            (Some(process), false) => self.places.look(process, dev).names(dev, path.as_bytes()).collect(),
            _ => Vec::new(),
        }
    }

    fn host_name(&mut self, task: &Task, dev: u32, place: Option<&FilePath>, used: &FilePath) -> HostName {
        let Some(host) = &self.host else { return HostName::Used };
        let has_hosts_mounts = task.mnt_ns == host.mounts();
        let place = match place {
            // It was too long for its record. A path is as long, but through a mount of a part of its file system.
            Some(place) if place.is_empty() => {
                let names = used.as_bytes().iter().filter(|byte| **byte == b'/').count();
                let is_short = names < ORIGIN_NAMES && used.as_bytes().len() < ORIGIN_BYTES;
                return if is_short && !has_hosts_mounts { HostName::Unknown } else { HostName::Used };
            }
            Some(place) => place,
            // Who is exiting has no namespace any more, and its record always has the place.
            None if has_hosts_mounts || task.mnt_ns == 0 => return HostName::Used,
            None => used,
        };
        let table = self.places.look(ProcessId { tgid: host.process(), start_ns: 0 }, dev);
        if table.has_name(dev, place.as_bytes(), used.as_bytes()) {
            return HostName::Used;
        }
        match table.names(dev, place.as_bytes()).next() {
            Some(name) => HostName::Other(name),
            // It may have been unmounted since.
            None if has_hosts_mounts || !may_be_private(dev) || !table.is_whole() => HostName::Used,
            None => HostName::Nowhere,
        }
    }

    fn is_private(&mut self, task: &Task, dev: u32) -> bool {
        let Some(host) = self.host.as_ref().filter(|host| ![0, host.mounts()].contains(&task.mnt_ns)) else {
            return false;
        };
        let table = self.places.look(ProcessId { tgid: host.process(), start_ns: 0 }, dev);
        may_be_private(dev) && table.is_whole() && !table.has_device(dev)
    }

    fn listed_name(
        &mut self,
        workload: &Workload,
        index: &Arc<ImageIndex>,
        file: &FileRef,
    ) -> Option<FilePath> {
        self.digests.listed_name(self.first(workload)?, index, file)
    }
}

impl Facts for Part<Live> {
    type Case = Case;

    fn begin(&self, event: &Event) -> Case {
        self.with(|live| live.begin(event))
    }

    fn time(&self, case: &Case) -> SystemTime {
        case.time
    }

    fn workload(&self, case: &Case) -> Arc<Workload> {
        Arc::clone(&case.workload)
    }

    async fn content(&self, case: &Case, task: &Task, file: &FileRef, action: Action, weak: bool) -> Content {
        self.with(|live| live.content(case, task, file, action, weak))
    }

    async fn resolve(&self, case: &Case, task: &Task, file: &FileRef) -> Result<FileRef, Arc<str>> {
        self.with(|live| live.resolve(case, task, file))
    }

    async fn start(&self, case: &Case, task: &Task, file: &FileRef) -> Option<Start> {
        self.with(|live| live.digests(case).start(task, file))
    }

    async fn again(&self, case: &Case, task: &Task, file: &FileRef) -> Option<FileRef> {
        self.with(|live| live.digests(case).again(task, file))
    }

    async fn program(&self, case: &Case, task: &Task) -> Result<FileRef, Arc<str>> {
        let program = self.with(|live| live.digests(case).program(task));
        program.map_err(|e| format!("the process's program cannot be read: {e}").into())
    }

    async fn owner(
        &self,
        _: &Case,
        workload: &Workload,
        index: &Arc<ImageIndex>,
        file: &FileRef,
    ) -> Option<Owner> {
        self.with(|live| live.owner(workload, index, file))
    }

    fn in_host_root(&self, _: &Case, task: &Task) -> bool {
        self.with(|live| live.in_host_root(task))
    }

    async fn device_written(&self, case: &Case, device: u32) -> Option<Vec<FilePath>> {
        self.with(|live| live.device_written(case, device))
    }

    async fn devices_again(&self, _: &Case, opened: &[Opened]) -> Vec<Again> {
        self.with(|live| live.devices_again(opened))
    }

    async fn settle(&self, _: &Case, files: &[Unsettled]) -> Vec<Settled> {
        self.with(|live| live.settle(files))
    }

    fn host(&self, _: &Case) -> Option<Arc<Workload>> {
        Some(self.with(|live| live.workloads.host()))
    }

    fn names(&self, _: &Case, workload: &Workload, dev: u32, path: &FilePath) -> Vec<FilePath> {
        self.with(|live| live.names(workload, dev, path))
    }

    fn host_name(
        &self,
        _: &Case,
        task: &Task,
        dev: u32,
        place: Option<&FilePath>,
        used: &FilePath,
    ) -> HostName {
        self.with(|live| live.host_name(task, dev, place, used))
    }

    fn is_private(&self, _: &Case, task: &Task, dev: u32) -> bool {
        self.with(|live| live.is_private(task, dev))
    }

    async fn is_at(&self, case: &Case, workload: &Workload, name: &FilePath, file: &FileRef) -> bool {
        self.with(|live| {
            let first = live.first(workload);
            first.is_some_and(|process| live.digests(case).is_at(process.tgid, name, file))
        })
    }

    async fn listed_name(
        &self,
        _: &Case,
        workload: &Workload,
        index: &Arc<ImageIndex>,
        file: &FileRef,
    ) -> Option<FilePath> {
        self.with(|live| live.listed_name(workload, index, file))
    }

    fn ancestry(&self, _: &Case, task: &Task) -> Ancestry {
        self.with(|live| {
            let process = live.processes.get(task.process).unwrap_or_else(|| process_of(task));
            (process, live.processes.ancestry(task.process, ANCESTORS))
        })
    }
}

/// The file system is on no block device: only the host's root can mount one that is, and who has the host's files may mount them where
/// the host does not see them. Of others the host's processes see all that they have.
fn may_be_private(dev: u32) -> bool {
    dev >> 20 == 0
}

/// From time since boot to wall clock.
#[derive(Debug, Default)]
struct Clock {
    /// Wall clock at boot, as it was when last read, and when that was, since boot.
    read: Option<(SystemTime, Duration)>,
}

impl Clock {
    fn wall(&mut self, boot_ns: u64) -> SystemTime {
        let at = Duration::from_nanos(boot_ns);
        let zero = match self.read {
            Some((zero, when)) if at < when + CLOCKS_HOLD => zero,
            _ => {
                let boot = since_boot();
                let zero = SystemTime::now().checked_sub(boot).unwrap_or(SystemTime::UNIX_EPOCH);
                self.read = Some((zero, boot));
                zero
            }
        };
        zero + at
    }
}

/// Time since boot, suspend included: the clock of events.
pub fn since_boot() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::event::Flavour;

    #[test]
    fn counters_are_published() {
        let metrics = Metrics::new();
        let mut live = Live::new(&Config::default(), Arc::clone(&metrics)).expect("no entries");
        // A process that is gone, and whose cgroup is nowhere.
        let process = ProcessId { tgid: u32::MAX, start_ns: 1 };
        let task = Task { process, pid: u32::MAX, cgroup_id: u64::MAX, mnt_ns: 1, ..Task::default() };
        let body = Body::Exec { exe: FileRef::default(), script: None };
        live.begin(&Event { time_ns: 1, flavour: Flavour::Lsm, task, body });
        assert_eq!(live.publish(&metrics), 1);
        let text = metrics.text();
        for line in [
            r#"muster_workload_lookups_total{outcome="unresolved"} 1"#,
            r#"muster_processes_missed_total{outcome="healed"} 1"#,
            r#"muster_processes{state="living"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn a_script_is_what_its_name_meant_when_it_was_run() {
        let dir = tempfile::tempdir().expect("a directory");
        let link = dir.path().join("link");
        fs::write(dir.path().join("good.sh"), "#!/bin/true").expect("a file");
        fs::write(dir.path().join("evil.sh"), "#!/bin/false").expect("a file");
        symlink("evil.sh", &link).expect("a link");
        std::thread::sleep(Duration::from_millis(100));
        let time_ns = u64::try_from(since_boot().as_nanos()).expect("some centuries");
        fs::remove_file(&link).and_then(|()| symlink("good.sh", &link)).expect("another link");

        let mut live = Live::new(&Config::default(), Metrics::new()).expect("no entries");
        let me = std::process::id();
        let process = ProcessId { tgid: me, start_ns: 1 };
        let task = Task { process, pid: me, ..Task::default() };
        let name = link.to_str().expect("UTF-8");
        let script = FileRef { path: name.into(), by_name: true, ..FileRef::default() };
        let exec = Body::Exec { exe: FileRef::default(), script: Some(script.clone()) };
        let change = Body::File { op: FileOp::Chmod, file: script.clone(), target: None, mode: None };
        for (body, expected) in [(exec, false), (change, true)] {
            let event = Event { time_ns, flavour: Flavour::Tracepoint, task: task.clone(), body };
            let case = live.begin(&event);
            let resolved = live.resolve(&case, &task, &script);
            assert_eq!(resolved.is_ok(), expected, "{:?}: {resolved:?}", event.kind());
            if let Err(why) = resolved {
                assert!(why.contains("on the way was changed since"), "{why}");
            }
        }
    }
}
