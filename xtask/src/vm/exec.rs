//! One program on a kernel: for trying things.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::guest::{self, quoted};
use super::qemu::{EXIT, Machine};
use crate::setup::kernels::Series;

/// Arguments of `cargo xtask vm --exec`.
#[derive(Debug, Default, clap::Args)]
#[group(id = "one-program")]
pub(super) struct Args {
    /// Instead of the suite: run this program (shared objects come along) in an initramfs with busybox and nothing else.
    #[arg(long, value_name = "PROGRAM")]
    exec: Option<PathBuf>,
    /// With --exec: another file to put into `/files`, where the program starts; may be given several times.
    #[arg(long, value_name = "FILE", requires = "exec")]
    file: Vec<PathBuf>,
    /// With --exec: the guest's clock advances one nanosecond per instruction, on one processor.
    #[arg(long, requires = "exec")]
    count_instructions: bool,
    /// With --exec: arguments of the program, after `--`.
    #[arg(last = true, requires = "exec")]
    args: Vec<String>,
}

impl Args {
    /// The program, if one is given.
    pub(super) fn program(&self) -> Option<&Path> {
        self.exec.as_deref()
    }

    /// Runs the program on each kernel. True: it always ended with status 0.
    pub(super) fn run(&self, program: &Path, series: &[&Series], cpus: u32) -> anyhow::Result<bool> {
        let mut passed = true;
        for series in series {
            passed &= self.on(program, series, cpus)? == 0;
        }
        Ok(passed)
    }

    fn on(&self, program: &Path, series: &Series, cpus: u32) -> anyhow::Result<i32> {
        let words: Vec<_> = self.args.iter().map(|a| quoted(a)).collect();
        let line = format!(
            "cd /files\n/bin/program {} >/dev/ttyS1 2>&1\necho \"{EXIT}$?\" >/dev/ttyS1\n",
            words.join(" ")
        );
        let mut files = guest::initramfs(series, &line)?;
        files.directory("/files");
        files.program(program, "/bin/program")?;
        for file in &self.file {
            let name = file.file_name().with_context(|| format!("{} has no name", file.display()))?;
            files.program(file, &format!("/files/{}", name.to_string_lossy()))?;
        }
        println!("kernel {}", series.name);
        let machine = Machine {
            name: format!("exec-{}", series.name),
            kernel: series.image(),
            initramfs: files.finish(),
            disks: Vec::new(),
            directory: super::directory(),
            limit: Duration::from_secs(600),
            count_instructions: self.count_instructions,
            cpus,
            memory: 1024,
        };
        let outcome = machine.run(&mut |line| println!("  {line}"))?;
        println!(
            "kernel {}: exit status {}, {:.1} s; console: {}",
            series.name,
            outcome.status,
            outcome.took.as_secs_f64(),
            outcome.console.display()
        );
        Ok(outcome.status)
    }
}
