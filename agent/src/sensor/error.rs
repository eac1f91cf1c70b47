//! What stops the sensor from starting.

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;

use super::offsets::OffsetsError;
use crate::causes::causes;

/// What stops the sensor from starting, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// Capabilities are missing.
    #[error(
        "loading kernel programs needs {}, which this process does not have; run as root, or give it by one of: \
         `setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_checkpoint_restore+ep` on the program; systemd: \
         `AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_SYS_PTRACE CAP_DAC_READ_SEARCH CAP_CHECKPOINT_RESTORE`; Kubernetes: \
         `securityContext.capabilities.add: [BPF, PERFMON, SYS_PTRACE, DAC_READ_SEARCH, CHECKPOINT_RESTORE]`",
        .missing.join(", ")
    )]
    Privilege {
        /// Their names.
        missing: Vec<&'static str>,
    },
    /// The kernel does not describe its types.
    #[error(
        "the kernel's type information (BTF) cannot be read: {0}; use a kernel built with CONFIG_DEBUG_INFO_BTF=y"
    )]
    NoBtf(String),
    /// Lockdown forbids reading kernel memory.
    #[error(
        "the kernel is in lockdown mode `confidentiality`, in which no program may read kernel memory; boot with `lockdown=integrity` or without"
    )]
    Confidential,
    /// `flavour = "lsm"` on a kernel that does not offer it.
    #[error("sensor.flavour is \"lsm\", but {0}; or set it to \"auto\"")]
    NoLsm(String),
    /// The BTF does not have what the programs need.
    #[error(transparent)]
    Offsets(#[from] OffsetsError),
    /// A ring of an impossible size.
    #[error("sensor.{key}: expected a power of two from 4096 to 1073741824 bytes, found {found}")]
    RingSize {
        /// Configuration key.
        key: &'static str,
        /// What it holds.
        found: u32,
    },
    /// The number of processors is not known.
    #[error("{file} cannot be read, which says how many processors there may be: {error}")]
    Cpus {
        /// Where it stands.
        file: &'static str,
        /// Why not.
        error: std::io::Error,
    },
    /// The object with the programs could not be loaded.
    #[error("the kernel programs cannot be loaded: {}; if this is a memory limit, raise it (`ulimit -l unlimited`, systemd `LimitMEMLOCK=infinity`)", chain(.0))]
    Object(EbpfError),
    /// The embedded object and this agent are not of one piece.
    #[error(
        "the embedded kernel programs lack the {what} {name}; build them again: `cargo xtask build-ebpf`"
    )]
    Incomplete {
        /// Program or map.
        what: &'static str,
        /// Its name.
        name: &'static str,
    },
    /// A program that the sensor cannot do without was refused.
    #[error("the kernel refused the program {name} on {hook}: {}; `muster probe` shows what this kernel offers", chain(.refusal))]
    Program {
        /// Name of the program.
        name: &'static str,
        /// What it attaches to.
        hook: &'static str,
        /// What the kernel said: no source of the error, which has it in its own text without most of the verifier's log.
        refusal: ProgramError,
    },
    /// A map cannot be read.
    #[error("the map {name} of the kernel programs cannot be used: {}", chain(.source))]
    Map {
        /// Its name.
        name: &'static str,
        /// Why.
        source: MapError,
    },
    /// aya cannot read the kernel's BTF.
    #[error("the kernel's BTF cannot be read for attaching: {0}")]
    Btf(#[from] aya::BtfError),
    /// A thread or descriptor could not be made.
    #[error("the sensor's thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// An error with the errors that caused it, the verifier's log included.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    shorten(causes(error))
}

/// A verifier's log can have a million lines; its reason is in the last ones.
fn shorten(text: String) -> String {
    const LINES: usize = 12;
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= 2 * LINES {
        return text;
    }
    let left_out = format!("… {} lines …", lines.len() - LINES - 1);
    [&[lines[0], &left_out][..], &lines[lines.len() - LINES..]].concat().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_keeps_its_ends() {
        let long: Vec<String> = (0..1000).map(|line| line.to_string()).collect();
        let short = shorten(long.join("\n"));
        assert_eq!(short.lines().count(), 14);
        assert!(short.starts_with("0\n… 987 lines …\n988\n") && short.ends_with("\n999"), "{short}");
        assert_eq!(shorten("a\nb".into()), "a\nb");
    }
}
