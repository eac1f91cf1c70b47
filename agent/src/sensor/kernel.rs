//! What can be read of the running kernel and of this process's privilege, without loading anything.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use tracing::info;

use super::btf::{Btf, KERNEL_BTF};
use crate::host_root::HostRoot;
use crate::proc::{Proc, effective_capabilities};

/// Where the list of active security modules is.
const SECURITYFS: &str = "/sys/kernel/security";
/// Where tracefs belongs (since 4.1).
pub(super) const TRACEFS: &str = "/sys/kernel/tracing";

/// `PROC_PID_INIT_INO` of `include/linux/proc_ns.h`.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";
/// `PROC_CGROUP_INIT_INO` there.
const INITIAL_CGROUP_NAMESPACE: &str = "cgroup:[4026531835]";

/// A kernel's version. Distributions backport: use it for what cannot be seen otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// First number.
    pub major: u16,
    /// Second number.
    pub minor: u16,
}

impl Version {
    /// `6.12.90+deb12-cloud-amd64` to 6.12. `None`: not of that form.
    pub fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit());
        Some(Self { major: numbers.next()?.parse().ok()?, minor: numbers.next()?.parse().ok()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// A capability that the agent uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Its name.
    pub name: &'static str,
    /// Its bit in `CapEff` (`include/uapi/linux/capability.h`).
    pub bit: u8,
    /// What the agent needs it for.
    pub purpose: &'static str,
}

/// Load programs, make maps.
pub const CAP_BPF: Capability =
    Capability { name: "CAP_BPF", bit: 39, purpose: "load kernel programs and make maps" };
/// Attach to tracing hooks and read kernel memory.
pub const CAP_PERFMON: Capability =
    Capability { name: "CAP_PERFMON", bit: 38, purpose: "attach to kernel hooks and read kernel fields" };
/// Stands in for both of the above, and mounts file systems.
pub const CAP_SYS_ADMIN: Capability = Capability {
    name: "CAP_SYS_ADMIN",
    bit: 21,
    purpose: "mount securityfs and tracefs where they are not; stands in for CAP_BPF, CAP_PERFMON and \
              CAP_CHECKPOINT_RESTORE",
};
/// Reach other processes' files through `/proc`.
pub const CAP_SYS_PTRACE: Capability = Capability {
    name: "CAP_SYS_PTRACE",
    bit: 19,
    purpose: "open files through /proc/<pid>/root and /proc/<pid>/exe",
};
/// Read files whatever their mode.
pub const CAP_DAC_READ_SEARCH: Capability =
    Capability { name: "CAP_DAC_READ_SEARCH", bit: 2, purpose: "hash files that others may not read" };
/// Reach mapped files that have no name (`proc_map_files_get_link()` in `fs/proc/base.c`).
pub const CAP_CHECKPOINT_RESTORE: Capability = Capability {
    name: "CAP_CHECKPOINT_RESTORE",
    bit: 40,
    purpose: "open mapped files that have no name, through /proc/<pid>/map_files",
};

/// Every capability that the agent uses.
pub const CAPABILITIES: [Capability; 6] =
    [CAP_BPF, CAP_PERFMON, CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_CHECKPOINT_RESTORE];

/// The running kernel, and what this process may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// Parsed from the release; 0.0 when it cannot be.
    pub version: Version,
    /// Active security modules in order; the error says why the list is not known.
    pub lsm: Result<Vec<String>, String>,
    /// Effective capabilities of this process, as in `/proc/self/status`.
    pub capabilities: u64,
    /// Bytes of the kernel's BTF; the error says why there are none.
    pub btf: Result<usize, String>,
    /// BTF knows the hook points of LSM programs (`CONFIG_BPF_LSM`).
    pub has_bpf_lsm: bool,
    /// `bpf_ima_file_hash` is there and `CONFIG_IMA` gives it something to call.
    pub has_ima_file_hash: bool,
    /// BTF describes the tracepoint `sched_process_exec`.
    pub has_btf_tracepoints: bool,
    /// BTF describes `security_file_open`, for fentry programs.
    pub has_security_functions: bool,
    /// tracefs is mounted; the error says why not.
    pub tracefs: Result<(), String>,
    /// This process is in the initial pid namespace, whose process ids the records hold.
    pub initial_pid_namespace: bool,
    /// This process is in the initial cgroup namespace, so that it sees every cgroup.
    pub initial_cgroup_namespace: bool,
    /// Where the host's root directory is seen; the error says why it is not.
    pub host_root: Result<String, String>,
    /// The kernel is locked down to confidentiality: programs may not read kernel memory.
    pub confidential: bool,
}

impl Kernel {
    /// Reads everything; mounts securityfs and tracefs at their usual places when they are not mounted and this process
    /// may do so.
    pub fn read() -> Self {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned();
        let version = Version::parse(&release).unwrap_or(Version { major: 0, minor: 0 });
        let lsm = mounted("securityfs", SECURITYFS, "lsm").and_then(|()| {
            let path = format!("{SECURITYFS}/lsm");
            let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
            Ok(text.trim().split(',').map(str::to_owned).collect())
        });
        let lockdown = fs::read_to_string(format!("{SECURITYFS}/lockdown")).unwrap_or_default();
        let mut kernel = Self {
            release,
            version,
            lsm,
            capabilities: effective_capabilities(),
            btf: Err(String::new()),
            has_bpf_lsm: false,
            has_ima_file_hash: false,
            has_btf_tracepoints: false,
            has_security_functions: false,
            tracefs: mounted("tracefs", TRACEFS, "events"),
            initial_pid_namespace: fs::read_link("/proc/self/ns/pid")
                .is_ok_and(|at| at == Path::new(INITIAL_PID_NAMESPACE)),
            initial_cgroup_namespace: fs::read_link("/proc/self/ns/cgroup")
                .is_ok_and(|at| at == Path::new(INITIAL_CGROUP_NAMESPACE)),
            host_root: HostRoot::find(&Proc::new(Path::new("/proc")))
                .map(|root| root.to_string())
                .map_err(|error| error.to_string()),
            confidential: lockdown.contains("[confidentiality]"),
        };
        kernel.btf =
            fs::read(KERNEL_BTF).map_err(|error| format!("{KERNEL_BTF}: {error}")).and_then(|bytes| {
                let btf = Btf::parse(&bytes).map_err(|error| format!("{KERNEL_BTF}: {error}"))?;
                kernel.has_bpf_lsm = btf.has_function("bpf_lsm_bprm_check_security");
                // Without CONFIG_IMA the helper is there and calls an inline stub that only fails.
                kernel.has_ima_file_hash =
                    btf.has_function("bpf_ima_file_hash") && btf.has_function("ima_file_hash");
                kernel.has_btf_tracepoints = btf.has_typedef("btf_trace_sched_process_exec");
                kernel.has_security_functions = btf.has_function("security_file_open");
                Ok(bytes.len())
            });
        kernel
    }

    /// This process has the capability.
    pub fn has(&self, capability: Capability) -> bool {
        self.capabilities >> capability.bit & 1 == 1
    }

    /// Capabilities without which no program can be loaded and attached. `CAP_SYS_ADMIN` stands in for them.
    pub fn missing_privilege(&self) -> Vec<Capability> {
        let missing = |capability: &Capability| !self.has(*capability) && !self.has(CAP_SYS_ADMIN);
        [CAP_BPF, CAP_PERFMON].into_iter().filter(missing).collect()
    }

    /// Why LSM programs would not work here, as far as can be read without loading one. They would attach and never
    /// fire when `bpf` is not in the list of active modules.
    pub fn lsm_obstacle(&self) -> Option<String> {
        match &self.lsm {
            // Sleepable LSM programs are of 5.11; vfs_unlink() and its like have had their arguments since 5.12.
            _ if self.version < (Version { major: 5, minor: 12 }) => {
                Some(format!("the kernel is {}; the lsm flavour needs 5.12 or newer", self.version))
            }
            _ if !self.has_bpf_lsm => Some("the kernel is built without CONFIG_BPF_LSM".into()),
            Err(reason) => Some(format!("the list of security modules cannot be read ({reason})")),
            Ok(list) if !list.iter().any(|name| name == "bpf") => Some(format!(
                "`bpf` is not among the active security modules ({}); boot with `lsm={},bpf`",
                list.join(","),
                list.iter().filter(|name| *name != "capability").cloned().collect::<Vec<_>>().join(",")
            )),
            Ok(_) => None,
        }
    }
}

/// Makes sure that the file system is at its place, as seen by the entry that it always has.
fn mounted(kind: &str, at: &str, entry: &str) -> Result<(), String> {
    if Path::new(at).join(entry).exists() {
        return Ok(());
    }
    match mount(
        Some(kind),
        at,
        Some(kind),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        None::<&str>,
    ) {
        Ok(()) => info!("mounted {kind} at {at}: it was not mounted and the sensor reads it"),
        Err(error) => {
            let error = io::Error::from(error);
            return Err(format!("{kind} is not mounted at {at}, and mounting it failed: {error}"));
        }
    }
    if Path::new(at).join(entry).exists() { Ok(()) } else { Err(format!("{at}/{entry} is not there")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_and_the_unit_give_every_capability() {
        let unit = include_str!("../../../deploy/systemd/muster.service");
        let advice = crate::sensor::SensorError::Privilege { missing: Vec::new() }.to_string();
        let sets = ["CapabilityBoundingSet=", "AmbientCapabilities="];
        let sets = sets.map(|set| unit.lines().find_map(|line| line.strip_prefix(set)).expect(set));
        for Capability { name, .. } in CAPABILITIES.into_iter().filter(|c| *c != CAP_SYS_ADMIN) {
            for set in sets {
                assert!(set.split(' ').any(|given| given == name), "{name} is not in {set}");
            }
            let kubernetes = name.trim_start_matches("CAP_");
            for spelling in [name, &name.to_lowercase(), &format!("{kubernetes},")] {
                assert!(advice.replace(']', ",").contains(spelling), "{spelling} is not in {advice}");
            }
        }
    }

    #[test]
    fn versions() {
        #[rustfmt::skip]
        let rows = [
            ("6.12.90+deb12-cloud-amd64", Some((6, 12))), ("5.10.0-32-cloud-amd64", Some((5, 10))),
            ("7.2-rc1", Some((7, 2))), ("7.2", Some((7, 2))), ("linux", None), ("6", None), ("", None),
        ];
        for (release, expected) in rows {
            assert_eq!(Version::parse(release).map(|v| (v.major, v.minor)), expected, "{release}");
        }
        assert!(Version { major: 5, minor: 11 } < Version { major: 5, minor: 18 });
        assert!(Version { major: 5, minor: 18 } < Version { major: 6, minor: 1 });
    }
}
