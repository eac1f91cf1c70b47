//! What this kernel offers the sensor, the hook flavour that follows from it, and what that flavour cannot see.

use std::fmt;
use std::path::Path;

use aya::maps::MapType;
use aya::programs::{LsmAttachType, ProgramError, ProgramType};
use aya::sys::{SyscallError, is_map_supported, is_program_supported};
use muster_common::programs::{Attach, PROGRAMS, Point};
use serde::Serialize;

use super::SensorError;
use super::btf::{Btf, KERNEL_BTF};
use super::hook_code;
use super::kernel::{
    CAP_CHECKPOINT_RESTORE, CAP_DAC_READ_SEARCH, CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAPABILITIES, Capability,
    Kernel, TRACEFS, Version,
};
use crate::config::FlavourChoice;
use crate::event::Flavour;
use crate::host_root;

/// What this kernel offers.
#[derive(Clone, Debug, Serialize)]
pub struct Probe {
    /// `uname -r`.
    pub kernel_release: String,
    /// The flavour that `auto` chooses; none when the sensor cannot run.
    pub flavour: Option<&'static str>,
    /// Why the flavour is not the best one, or why there is none, with what to do.
    pub reasons: Vec<String>,
    /// One line per hook, helper and privilege.
    pub checks: Vec<Check>,
    /// What the chosen flavour cannot see on this kernel.
    pub blind_spots: Vec<String>,
}

/// One line of the probe.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// `kernel`, `hook`, `helper`, `map`, `file system`, `host`, `privilege` or `program`.
    pub group: &'static str,
    /// What is checked.
    pub name: &'static str,
    /// The kernel offers it to this process.
    pub offered: bool,
    /// How that was found, or why not.
    pub detail: String,
}

/// Looks at everything. Loads a few programs of two instructions where the kernel's lists do not already say no; none
/// stays attached.
pub fn probe() -> Probe {
    let kernel = Kernel::read();
    let lsm = lsm_offered(&kernel);
    let (flavour, mut reasons) = match choose(FlavourChoice::Auto, &kernel, || lsm.clone()) {
        Ok(choice) => {
            (Some(choice), lsm.as_ref().err().map(|why| format!("not lsm: {why}")).into_iter().collect())
        }
        Err(error) => (None, vec![error.to_string()]),
    };
    if let (Some(_), Err(reason)) = (flavour, &kernel.tracefs) {
        reasons.push(reason.clone());
    }
    let checks = checks(&kernel, &lsm, flavour);
    let mut blind_spots = flavour.map(|flavour| blind_spots(flavour, &kernel)).unwrap_or_default();
    let lacking = checks.iter().filter(|check| check.group == "program" && !check.offered);
    blind_spots.extend(lacking.map(|check| format!("{}: this kernel lacks the hook", check.detail)));
    Probe {
        kernel_release: kernel.release.clone(),
        flavour: flavour.map(Flavour::as_str),
        reasons,
        checks,
        blind_spots,
    }
}

fn checks(kernel: &Kernel, lsm: &Result<(), String>, flavour: Option<Flavour>) -> Vec<Check> {
    let mut out = Vec::new();
    let mut check = |group, name, found: Result<String, String>| {
        let offered = found.is_ok();
        let (Ok(detail) | Err(detail)) = found;
        out.push(Check { group, name, offered, detail });
    };
    let in_btf = |there: bool, what: &str| {
        if there {
            Ok(format!("{what} is in the kernel's BTF"))
        } else {
            Err(format!("{what} is not in the kernel's BTF"))
        }
    };
    let supported = |tried: Result<bool, ProgramError>| {
        program_supported(tried).map(|()| "a trivial program loads".into())
    };
    check("kernel", "BTF", kernel.btf.clone().map(|bytes| format!("{bytes} bytes")));
    let active = |list: Vec<String>| match list.iter().any(|name| name == "bpf") {
        true => Ok(list.join(",")),
        false => {
            Err(format!("{}: `bpf` is not in it, LSM programs would attach and never fire", list.join(",")))
        }
    };
    check("kernel", "active LSM list", kernel.lsm.clone().and_then(active));
    let lockdown = "locked down to confidentiality: programs may not read kernel memory";
    check(
        "kernel",
        "kernel memory readable",
        if kernel.confidential { Err(lockdown.into()) } else { Ok("yes".into()) },
    );
    check("hook", "LSM programs", lsm.clone().map(|()| "a trivial program loads and attaches".into()));
    let sleepable = kernel.version >= Version { major: 5, minor: 11 };
    let since = |is: bool, since: &str| match is {
        true => Ok(format!("since {since}; this is {}", kernel.version)),
        false => Err(format!("since {since}; this is {}", kernel.version)),
    };
    check("hook", "sleepable LSM programs", lsm.clone().and_then(|()| since(sleepable, "5.11")));
    let fentry = in_btf(kernel.has_security_functions, "security_file_open")
        .and_then(|_| supported(is_program_supported(ProgramType::Tracing)));
    check("hook", "fentry programs", fentry);
    check("hook", "BTF tracepoints", in_btf(kernel.has_btf_tracepoints, "btf_trace_sched_process_exec"));
    check("hook", "raw tracepoints", supported(is_program_supported(ProgramType::RawTracePoint)));
    check("hook", "tracepoints", supported(is_program_supported(ProgramType::TracePoint)));
    check(
        "helper",
        "bpf_ima_file_hash",
        match (kernel.has_ima_file_hash, lsm) {
            (true, Ok(())) => Ok("in the kernel's BTF, with CONFIG_IMA".into()),
            (true, Err(_)) => Err("in the kernel, but only sleepable LSM programs may call it".into()),
            (false, _) => Err("needs 5.18 or newer and CONFIG_IMA".into()),
        },
    );
    let ring = is_map_supported(MapType::RingBuf);
    check(
        "map",
        "ring buffer",
        match ring {
            Ok(true) => Ok("a map can be made".into()),
            Ok(false) => Err("needs 5.8 or newer".into()),
            Err(error) => Err(refused(&error)),
        },
    );
    check("file system", "tracefs", kernel.tracefs.clone().map(|()| "mounted at /sys/kernel/tracing".into()));
    check("host", "root directory", kernel.host_root.clone());
    let cgroups = "the agent's cgroup namespace";
    check(
        "host",
        "every cgroup",
        if kernel.initial_cgroup_namespace {
            Ok(format!("{cgroups} is the host's"))
        } else {
            Err(format!("{cgroups} is not the host's"))
        },
    );
    for capability in CAPABILITIES {
        let purpose = format!("to {}", capability.purpose);
        check("privilege", capability.name, if kernel.has(capability) { Ok(purpose) } else { Err(purpose) });
    }
    out.extend(flavour.map(programs).unwrap_or_default());
    out
}

/// The programs of a flavour, and whether this kernel has what each attaches to.
fn programs(flavour: Flavour) -> Vec<Check> {
    let bytes = std::fs::read(KERNEL_BTF).unwrap_or_default();
    let Ok(btf) = Btf::parse(&bytes) else { return Vec::new() };
    let mut out = Vec::new();
    for program in PROGRAMS.iter().filter(|program| program.is_of(hook_code(flavour))) {
        let (hook, offered) = match program.attach {
            Attach::Lsm { hook, sleepable } => (
                format!("{} {hook}", if sleepable { "lsm.s" } else { "lsm" }),
                btf.has_function(&format!("bpf_lsm_{hook}")),
            ),
            Attach::TpBtf { tracepoint } => {
                (format!("tp_btf {tracepoint}"), btf.has_typedef(&format!("btf_trace_{tracepoint}")))
            }
            Attach::Fentry { function } => (format!("fentry {function}"), btf.has_function(function)),
            Attach::Fexit { function } => (format!("fexit {function}"), btf.has_function(function)),
            Attach::Tracepoint { category, points } => {
                let there = |point: &Point| {
                    Path::new(TRACEFS).join("events").join(category).join(point.name).exists()
                };
                let missing: Vec<_> = points.iter().filter(|point| !there(point)).collect();
                let names: Vec<_> =
                    points.iter().filter(|point| there(point)).map(|point| point.name).collect();
                (format!("{category} {}", names.join(" ")), missing.iter().all(|point| point.optional))
            }
        };
        out.push(Check {
            group: "program",
            name: program.name,
            offered,
            detail: format!("{} ({hook})", program.sees),
        });
    }
    out
}

fn program_supported(tried: Result<bool, ProgramError>) -> Result<(), String> {
    match tried {
        Ok(true) => Ok(()),
        Ok(false) => Err("the kernel does not have this type of program".into()),
        Err(ProgramError::SyscallError(error)) => Err(refused(&error)),
        Err(error) => Err(error.to_string()),
    }
}

fn refused(error: &SyscallError) -> String {
    match error.io_error.kind() {
        std::io::ErrorKind::PermissionDenied => {
            format!("{} is refused: {} (privilege, or this machine's policy)", error.call, error.io_error)
        }
        _ => format!("{}: {}", error.call, error.io_error),
    }
}

/// LSM programs load, attach and fire. Tries one only when nothing that can be read speaks against it.
pub(super) fn lsm_offered(kernel: &Kernel) -> Result<(), String> {
    match kernel.lsm_obstacle() {
        Some(obstacle) => Err(obstacle),
        None => program_supported(is_program_supported(ProgramType::Lsm(LsmAttachType::Mac))),
    }
}

/// The flavour to use.
///
/// # Errors
/// [`SensorError`] naming what is missing and what gives it.
pub(super) fn choose(
    choice: FlavourChoice,
    kernel: &Kernel,
    lsm_offered: impl FnOnce() -> Result<(), String>,
) -> Result<Flavour, SensorError> {
    let missing = kernel.missing_privilege();
    if !missing.is_empty() {
        return Err(SensorError::Privilege { missing: missing.iter().map(|c| c.name).collect() });
    }
    if let Err(reason) = &kernel.btf {
        return Err(SensorError::NoBtf(reason.clone()));
    }
    if kernel.confidential {
        return Err(SensorError::Confidential);
    }
    match choice {
        FlavourChoice::Tracepoint => Ok(Flavour::Tracepoint),
        FlavourChoice::Lsm => lsm_offered().map(|()| Flavour::Lsm).map_err(SensorError::NoLsm),
        FlavourChoice::Auto => Ok(if lsm_offered().is_ok() { Flavour::Lsm } else { Flavour::Tracepoint }),
    }
}

/// What a flavour cannot see on this kernel, in words.
pub fn blind_spots(flavour: Flavour, kernel: &Kernel) -> Vec<String> {
    let mut out: Vec<&str> = vec![
        "a file mapped shared and writable: the mapping is seen, the single stores through it are not",
        "network protocols other than TCP and UDP; connections that others open to a workload, or that the kernel makes by itself (for a network \
         file system)",
        "a script that an interpreter is given as an argument or on its standard input (`sh x.sh`, `python3 x.py`): only the \
         interpreter is judged",
        "what an interpreter opens by itself: sourced scripts (`.`, BASH_ENV), modules (PYTHONPATH), byte code, configuration that is code",
        "kernel code: that a module, BPF program, firmware or kexec image is loaded is not seen, only that such a file is made or \
         changed",
        "changes of a file's mode or owner by which it can be run by nobody new: who may read or write a file of the SBOM",
        "anonymous executable memory: code that a program makes or loads without mapping a file",
        "code that is stored into a process from outside (ptrace, /proc/PID/mem, process_vm_writev)",
        "the content of files over 1 GiB where the agent reads them: these are `undetermined`",
        "changes made beneath an overlay, by whoever may write into its layers: they are of the layers' own file system, and \
         of the container only when the changed file runs there",
        "what the server of a FUSE or network file system changes, and that it may give each reader other bytes",
        "two last writers of a file that close it at the same moment: neither close is reported, and what was written is judged \
         when it is run, mapped or written again",
        "what is written to a block device under a file system: only that it was opened for write is told, not if that was before the \
         agent started",
        "which file of the host a program is that runs in a root directory or mounts of its own: it is judged by its path there, unless \
         the host does not see its file system at all",
        "renames that the kernel makes by itself, changes of ACLs",
        "what is mounted over a file of the SBOM; hard links of files of the host that a container makes and changes",
        "whether a file that was gone before its first bytes could be read was a program, where neither its mode nor its name says so: \
         these are counted (`muster_files_unread_total`)",
    ];
    if !kernel.initial_pid_namespace {
        out.push(
            "the agent's own events are not left out, and files are not found through /proc: it is not in the initial \
             pid namespace (Kubernetes: `hostPID: true`)",
        );
    }
    match flavour {
        Flavour::Lsm => {
            // `____sys_sendmsg` asks the security modules only when the address is another one than that of the message before.
            out.push("of several messages of one sendmmsg call to one address all but the first");
            // `bpf_prog_check_recur()`: a program at a function's entry or exit does not run twice at once on a processor.
            out.push(
                "the close of a file while another thread of the same processor is stopped in the kernel program that sees closes, on a \
                 kernel that stops its programs (`preempt=full`): what was written is judged when it is run, mapped or written again",
            );
            if !kernel.has_ima_file_hash {
                out.push("digests in the kernel: the agent hashes a file after the event, and says so when it changed");
            }
        }
        Flavour::Fentry | Flavour::Tracepoint => out.extend([
            "io_uring: opens, renames, links, unlinks and connects made through it",
            "that a file has another name on the host by another mount or root directory (bind mounts, chroot), when it is renamed, linked, \
             removed or cut by name: the name used counts; a write to it is seen",
            "files opened by handle (open_by_handle_at)",
            "a file that mprotect makes executable after it was mapped, and the mappings that the kernel's ELF loader makes \
             (the dynamic linker's own)",
            "messages of one sendmmsg call after the eighth",
            "that a block device is closed by an exit, an exec, or a program with several threads: it counts as open for write, and no \
             digests are kept of files on it",
            "the close of a descriptor that a child inherited, when the child writes after its parent has ended",
            "of more than 256 files that one process has open for write (16, or one, while all together have very many) the oldest are \
             judged before they are closed",
            "of more than some 8000 system calls under way at once those that began first",
            "names and addresses of a system call whose memory another thread changed before the look: what it says then \
             is what is reported",
            "a descriptor that another thread closed or replaced before the call that uses it came back",
            "scripts: known by the name that the caller passed, resolved after the exec; undetermined where it is \
             gone, or a link or a file on the way changed by then, but a mount that is gone again leaves no trace",
            "a script whose interpreter is itself a script: the first file and the last are judged, those between are not",
            "32-bit system calls of a 64-bit kernel: file changes and datagram destinations made through them",
            "digests in the kernel: the agent hashes a file after the event, and says so when it changed",
            "events are reported after the fact: the kernel cannot refuse anything",
        ]),
    }
    let mut out: Vec<String> = out.into_iter().map(str::to_owned).collect();
    out.extend(lacking(kernel));
    out
}

/// What does not work for want of a privilege or a file, in words.
fn lacking(kernel: &Kernel) -> Vec<String> {
    let mut out = Vec::new();
    let given = |capability: Capability| {
        // `checkpoint_restore_ns_capable()` takes either.
        kernel.has(capability) || (capability == CAP_CHECKPOINT_RESTORE && kernel.has(CAP_SYS_ADMIN))
    };
    for capability in [CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH, CAP_CHECKPOINT_RESTORE] {
        if !given(capability) {
            let Capability { name, purpose, .. } = capability;
            out.push(format!(
                "without {name} the agent cannot {purpose}: what such files hold is `undetermined`, and what of them ran \
                 before the agent is not judged"
            ));
        }
    }
    if let Err(why) = &kernel.host_root {
        out.push(format!("the host's root directory cannot be seen ({why}): {}", host_root::CONSEQUENCE));
    }
    if !kernel.initial_cgroup_namespace {
        out.push(
            "who named a container's cgroup: the agent is not in the initial cgroup namespace, and what runs in cgroups outside of its \
             own is of an unknown workload"
                .into(),
        );
    }
    out
}

/// The table of `muster probe`.
impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "kernel   {}", self.kernel_release)?;
        writeln!(f, "flavour  {}", self.flavour.unwrap_or("none: the sensor cannot run here"))?;
        for reason in &self.reasons {
            writeln!(f, "         {reason}")?;
        }
        writeln!(f)?;
        for Check { group, name, offered, detail } in &self.checks {
            writeln!(f, "{group:<12} {name:<24} {:<4} {detail}", if *offered { "yes" } else { "no" })?;
        }
        if !self.blind_spots.is_empty() {
            writeln!(f, "\nnot seen:")?;
            self.blind_spots.iter().try_for_each(|spot| writeln!(f, "  * {spot}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sensor::kernel::{CAP_BPF, CAP_PERFMON};

    fn kernel() -> Kernel {
        Kernel {
            release: "6.1.0".into(),
            version: Version { major: 6, minor: 1 },
            lsm: Ok(vec!["capability".into(), "apparmor".into(), "bpf".into()]),
            capabilities: 1 << CAP_BPF.bit | 1 << CAP_PERFMON.bit,
            btf: Ok(1),
            has_bpf_lsm: true,
            has_ima_file_hash: true,
            has_btf_tracepoints: true,
            has_security_functions: true,
            tracefs: Ok(()),
            initial_pid_namespace: true,
            initial_cgroup_namespace: true,
            host_root: Ok("/proc/1/root".into()),
            confidential: false,
        }
    }

    fn without_bpf() -> Kernel {
        Kernel { lsm: Ok(vec!["capability".into(), "apparmor".into()]), ..kernel() }
    }

    #[test]
    fn choices() {
        use FlavourChoice::{Auto, Lsm, Tracepoint};
        let old = || Kernel { version: Version { major: 5, minor: 10 }, ..kernel() };
        #[rustfmt::skip]
        let rows = [
            (Auto, kernel(), Ok(()), Ok(Flavour::Lsm)),
            (Auto, kernel(), Err("refused"), Ok(Flavour::Tracepoint)),
            (Lsm, kernel(), Ok(()), Ok(Flavour::Lsm)),
            (Lsm, kernel(), Err("refused"), Err("refused")),
            (Tracepoint, kernel(), Ok(()), Ok(Flavour::Tracepoint)),
            (Auto, without_bpf(), Ok(()), Ok(Flavour::Tracepoint)),
            (Lsm, without_bpf(), Ok(()), Err("boot with `lsm=apparmor,bpf`")),
            (Auto, old(), Ok(()), Ok(Flavour::Tracepoint)),
            (Lsm, old(), Ok(()), Err("needs 5.12 or newer")),
            (Lsm, Kernel { has_bpf_lsm: false, ..kernel() }, Ok(()), Err("CONFIG_BPF_LSM")),
            (Lsm, Kernel { lsm: Err("no securityfs".into()), ..kernel() }, Ok(()), Err("no securityfs")),
            (Auto, Kernel { capabilities: 1 << CAP_SYS_ADMIN.bit, ..kernel() }, Ok(()), Ok(Flavour::Lsm)),
            (Auto, Kernel { capabilities: 1 << CAP_BPF.bit, ..kernel() }, Ok(()), Err("CAP_PERFMON")),
            (Auto, Kernel { capabilities: 0, ..kernel() }, Ok(()), Err("CAP_BPF, CAP_PERFMON")),
            (Auto, Kernel { btf: Err("gone".into()), ..kernel() }, Ok(()), Err("CONFIG_DEBUG_INFO_BTF")),
            (Auto, Kernel { confidential: true, ..kernel() }, Ok(()), Err("lockdown")),
        ];
        for (choice, kernel, load, expected) in rows {
            let attempt = || match kernel.lsm_obstacle() {
                Some(obstacle) => Err(obstacle),
                None => load.map_err(str::to_owned),
            };
            match (choose(choice, &kernel, attempt), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{choice:?} {kernel:?}"),
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{part:?} is not in {error}");
                }
                (found, expected) => panic!("{choice:?} {kernel:?}: {found:?}, expected {expected:?}"),
            }
        }
    }

    #[test]
    fn what_is_missing_is_said_with_its_consequence() {
        let all = CAPABILITIES.iter().fold(0, |all, capability| all | 1 << capability.bit);
        let whole = Kernel { capabilities: all, ..kernel() };
        assert_eq!(lacking(&whole), Vec::<String>::new());
        let without = |bit: u8| Kernel { capabilities: all & !(1 << bit), ..kernel() };
        for (kernel, words) in [
            (without(CAP_SYS_PTRACE.bit), &["CAP_SYS_PTRACE", "undetermined"][..]),
            (without(CAP_DAC_READ_SEARCH.bit), &["CAP_DAC_READ_SEARCH", "undetermined"]),
            (
                Kernel { host_root: Err("Permission denied".into()), ..whole.clone() },
                &["Permission denied", "never as `updated`"],
            ),
            (
                Kernel { initial_cgroup_namespace: false, ..whole.clone() },
                &["cgroup namespace", "unknown workload"],
            ),
        ] {
            let said = lacking(&kernel);
            assert_eq!(said.len(), 1, "{said:?}");
            assert!(words.iter().all(|word| said[0].contains(word)), "{said:?}");
            assert!(blind_spots(Flavour::Lsm, &kernel).contains(&said[0]));
        }
        assert_eq!(
            lacking(&without(CAP_CHECKPOINT_RESTORE.bit)),
            Vec::<String>::new(),
            "CAP_SYS_ADMIN stands in"
        );
    }

    #[test]
    fn weaker_flavours_say_what_they_miss() {
        let lsm = blind_spots(Flavour::Lsm, &kernel());
        let without_ima = blind_spots(Flavour::Lsm, &Kernel { has_ima_file_hash: false, ..kernel() });
        let tracepoint = blind_spots(Flavour::Tracepoint, &kernel());
        assert_eq!((lsm.len() + 1, lsm.len() + 14), (without_ima.len(), tracepoint.len()));
        for words in [
            "io_uring",
            "mprotect",
            "ELF loader",
            "after the eighth",
            "itself a script",
            "a block device is closed",
            "a child inherited",
            "256 files",
            "8000 system calls",
            "another thread changed",
            "another thread closed",
            "by another mount",
        ] {
            assert!(tracepoint.iter().any(|spot| spot.contains(words)), "{words}");
            assert!(!lsm.iter().any(|spot| spot.contains(words)), "{words}");
        }
        for words in [
            "`sh x.sh`",
            "1 GiB",
            "beneath an overlay",
            "FUSE",
            "block device",
            "anonymous",
            "an interpreter opens by itself",
            "kernel code",
            "mode or owner",
            "ptrace",
            "two last writers",
            "mounted over",
            "mounts of its own",
            "files_unread",
        ] {
            for spots in [&lsm, &tracepoint] {
                assert!(spots.iter().any(|spot| spot.contains(words)), "{words}");
            }
        }
    }
}
