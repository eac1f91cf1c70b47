//! Whose mounts a task has, whatever cgroup it is in.
//!
//! * A task in a container's cgroup with the host's mounts is the runtime's helper at its work, before it has become the container: a
//!   program of the host. A container that the configuration knows by a cgroup's pattern may have the host's mounts for good.
//! * A task in the host's cgroups with a container's mounts has entered the container (`nsenter`), or has left its cgroup: it runs the
//!   container's files, so the container's image judges it.

use std::sync::Arc;

use crate::event::Task;
use crate::proc::Proc;
use crate::recent::Recent;
use crate::workload::{Workload, Workloads};

/// Mount namespaces remembered.
const NAMESPACES: usize = 16_384;

/// Mount namespaces of containers.
#[derive(Debug)]
pub(super) struct Mounts {
    /// Process 1's; `None`: it is not known.
    host: Option<u32>,
    containers: Recent<u32, Arc<Workload>>,
}

impl Mounts {
    pub(super) fn new(host: Option<u32>) -> Self {
        Self { host, containers: Recent::new(NAMESPACES) }
    }

    /// The configuration has changed.
    pub(super) fn forget(&mut self) {
        self.containers.clear();
    }

    /// The workload of a task that its cgroup puts into this one. The mount namespace is what the kernel said of the task then.
    pub(super) fn decide(
        &mut self,
        task: &Task,
        workload: Arc<Workload>,
        workloads: &Workloads,
        proc: &Proc,
    ) -> Arc<Workload> {
        let Some(host) = self.host else { return workload };
        // Who is exiting has left its namespaces.
        if task.mnt_ns == 0 {
            return workload;
        }
        if workload.is_of_a_runtime() {
            if task.mnt_ns == host {
                return workloads.at_work_in(&workload);
            }
            if self.containers.get(&task.mnt_ns).is_none_or(|known| !Arc::ptr_eq(known, &workload)) {
                self.containers.insert(task.mnt_ns, Arc::clone(&workload));
            }
            return workload;
        }
        if !workload.is_host || task.mnt_ns == host {
            return workload;
        }
        let Some(container) = self.containers.get(&task.mnt_ns) else { return workload };
        // The number of a namespace that is gone is given to another one.
        let is_its = container.root.is_some_and(|first| {
            proc.namespace(first.tgid, "mnt").is_ok_and(|mounts| mounts == task.mnt_ns)
                && proc.is_alive(first)
        });
        if is_its { Arc::clone(container) } else { workload }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::event::ProcessId;
    use crate::finding::WorkloadInfo;

    #[test]
    fn mounts_say_more_than_cgroups() {
        let proc = Proc::new(Path::new("/proc"));
        let workloads = Workloads::new(&Config::default()).expect("no entries");
        let own = proc.namespace(std::process::id(), "mnt").expect("this process");
        let first = proc.stat(std::process::id()).expect("this process");
        let (other, gone) = (own - 1, own - 2);
        let container = |id: &str, root: Option<ProcessId>| {
            let info = WorkloadInfo { id: id.into(), ..WorkloadInfo::default() };
            let info = Arc::new(info);
            Arc::new(Workload { info, image: None, is_host: false, started: None, root, helps: false })
        };
        let web =
            container("docker://1", Some(ProcessId { tgid: std::process::id(), start_ns: first.start_ns }));
        let pattern = container("cgroup:///web", None);
        let dead = container("docker://2", Some(ProcessId { tgid: u32::MAX, start_ns: 1 }));
        let host_ns = own - 3;
        let mut mounts = Mounts::new(Some(host_ns));
        let mut decide = |workload: &Arc<Workload>, mnt_ns| {
            let task = Task { mnt_ns, ..Task::default() };
            let found = mounts.decide(&task, Arc::clone(workload), &workloads, &proc);
            (found.info.id.clone(), found.helps)
        };
        let host = workloads.host();
        let is = |id: &str, helps| (id.to_owned(), helps);
        assert_eq!(decide(&host, own), is("host", false), "nobody knows whose mounts these are");
        assert_eq!(decide(&web, own), is("docker://1", false));
        assert_eq!(decide(&dead, gone), is("docker://2", false));
        assert_eq!(decide(&web, host_ns), is("host", true), "the runtime's helper");
        assert_eq!(decide(&web, 0), is("docker://1", false), "it is exiting");
        assert_eq!(decide(&pattern, host_ns), is("cgroup:///web", false), "a service has the host's mounts");
        assert_eq!(decide(&host, own), is("docker://1", false), "it has entered the container");
        assert_eq!(decide(&host, host_ns), is("host", false));
        assert_eq!(decide(&host, other), is("host", false), "a service with mounts of its own");
        assert_eq!(decide(&host, gone), is("host", false), "the number may be another's by now");
    }
}
