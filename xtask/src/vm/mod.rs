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

use crate::setup::kernels::{self, Series};
use crate::setup::{self, Stage};

/// Arguments of `cargo xtask vm`.
#[derive(Debug, Default, clap::Args)]
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
    #[command(flatten)]
    exec: exec::Args,
}

impl Args {
    /// The suite on all kernels.
    pub(crate) fn all(each_kind: bool) -> Self {
        Self { each_kind, ..Self::default() }
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
            Some(program) => self.exec.run(program, &series)?,
            None => suite::run(&series, self.only.as_deref(), self.each_kind)?,
        };
        Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Where logs and disks of the machines go.
fn directory() -> PathBuf {
    crate::paths::target().join("vm")
}
