//! `cargo xtask vm`: the scenario suite, or one program, on stock kernels.

mod answers;
pub(crate) mod cost;
mod debian;
mod exec;
mod guest;
mod image;
mod initramfs;
mod qemu;
mod suite;

use std::path::PathBuf;
use std::process::ExitCode;

use suite::Selection;

use crate::setup::kernels::{self, Series};
use crate::setup::{self, Stage};

/// Arguments of `cargo xtask vm`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kernel series; may be given several times. Default: all of them.
    #[arg(long, value_name = "SERIES")]
    kernel: Vec<String>,
    /// Only the scenarios whose name contains this.
    #[arg(long, value_name = "TEXT", conflicts_with = "exec")]
    only: Option<String>,
    /// Each kind of scenario only on the kernels where it can come out differently.
    #[arg(long, conflicts_with = "exec")]
    each_kind: bool,
    /// Virtual processors. With more than two, the scenarios alone are run, without what follows them.
    #[arg(long, value_name = "N", default_value_t = CPUS)]
    cpus: u32,
    #[command(flatten)]
    exec: exec::Args,
}

/// Processors of a machine, unless a test wants another number.
const CPUS: u32 = 2;

impl Default for Args {
    fn default() -> Self {
        Self { kernel: Vec::new(), only: None, each_kind: false, cpus: CPUS, exec: exec::Args::default() }
    }
}

impl Args {
    /// The suite on all kernels.
    pub(crate) fn all(each_kind: bool) -> Self {
        Self { each_kind, ..Self::default() }
    }

    /// What goes wrong only where there are many processors, on a kernel whose maps have that fault (before 6.16).
    pub(crate) fn many_processors() -> Self {
        Self {
            kernel: vec!["6.1".to_owned()],
            only: Some("threads of one processor".to_owned()),
            cpus: 16,
            ..Self::default()
        }
    }

    /// Runs it.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        setup::ensure(Stage::Vm)?;
        let series: Vec<&Series> = if self.kernel.is_empty() {
            kernels::ALL.iter().collect()
        } else {
            self.kernel.iter().map(|k| Series::named(k)).collect::<Result<_, _>>()?
        };
        let passed = match self.exec.program() {
            Some(program) => self.exec.run(program, &series, self.cpus)?,
            None => {
                let selection =
                    Selection { only: self.only.as_deref(), each_kind: self.each_kind, cpus: self.cpus };
                suite::run(&series, &selection)?
            }
        };
        Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Where logs and disks of the machines go.
fn directory() -> PathBuf {
    crate::paths::target().join("vm")
}
