//! `cargo xtask fuzz`: a run of the fuzz targets of `fuzz/`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};

use crate::setup::{self, Stage, tools};
use crate::{build, ebpf, paths, shell};

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u32,
    /// Targets. Default: all of them.
    pub(crate) targets: Vec<String>,
}

impl Args {
    /// Runs each target in turn; libFuzzer shows what it does and keeps a crashing input in `fuzz/artifacts/`.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        setup::ensure(Stage::Test)?;
        ebpf::Args::default().build()?;
        let fuzz = tools::FUZZ.find().context("cargo-fuzz is missing; `cargo xtask setup` installs it")?;
        let targets = if self.targets.is_empty() { all()? } else { self.targets.clone() };
        for target in &targets {
            // No sanitizer: the code under test forbids `unsafe`, and a build with one takes minutes more.
            println!("fuzzing {target} for {} s", self.seconds);
            let mut command = shell::command(&fuzz, ["fuzz", "run", "--sanitizer", "none", target.as_str()]);
            // Inputs that are worth keeping are in `fuzz/seeds`; what a run finds goes below the target directory.
            let found = paths::target().join("fuzz-corpus").join(target);
            fs::create_dir_all(&found)?;
            command.arg(&found);
            let seeds = directory().join("seeds").join(target);
            if seeds.exists() {
                command.arg(&seeds);
            }
            command.args([
                "--",
                &format!("-max_total_time={}", self.seconds),
                "-rss_limit_mb=4096",
                "-print_final_stats=1",
                // What it finds step by step is thousands of lines.
                "-verbosity=0",
            ]);
            command.current_dir(paths::root());
            // cargo-fuzz asks for sanitizer and coverage flags that only a nightly takes by itself.
            command.env("RUSTC_BOOTSTRAP", "1").env("CARGO", build::cargo().get_program());
            shell::run(&mut command).with_context(|| format!("fuzz target {target}"))?;
        }
        println!("fuzz targets: {} passed, 0 failed", targets.len());
        Ok(ExitCode::SUCCESS)
    }
}

fn directory() -> PathBuf {
    paths::root().join("fuzz")
}

fn all() -> anyhow::Result<Vec<String>> {
    let directory = directory().join("fuzz_targets");
    let mut targets = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "rs") {
            targets.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    targets.sort();
    ensure!(!targets.is_empty(), "{}: expected fuzz targets, found none", directory.display());
    Ok(targets)
}
