//! `cargo xtask test`: everything there is to test.

use std::process::{ExitCode, Stdio};
use std::time::Instant;

use anyhow::{bail, ensure};

use crate::setup::{self, Stage};
use crate::{build, fuzz, run, shell, vm};

/// Arguments of `cargo xtask test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds for each fuzz target.
    #[arg(long, default_value_t = 5)]
    fuzz_seconds: u32,
    /// Run every scenario on every kernel, not each kind of scenario on the kernels where it can come out differently.
    #[arg(long)]
    full: bool,
}

impl Args {
    /// Runs all parts, also after one has failed, and says which failed.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        setup::ensure(Stage::Test)?;
        let parts: [(&str, &dyn Fn() -> anyhow::Result<ExitCode>); 6] = [
            ("unit and end-to-end tests", &|| {
                build::release(&["muster", "suite", "tool"])?;
                let all =
                    ["test", "--workspace", "--exclude", "muster-ebpf", "--features", "muster/registry"];
                shell::run(build::cargo().args(all))?;
                Ok(ExitCode::SUCCESS)
            }),
            ("tests of a build without registries", &without_registries),
            ("fuzz targets", &|| {
                fuzz::Args { seconds: self.fuzz_seconds, keep: false, targets: Vec::new() }.run()
            }),
            ("demonstration on this host", &|| run::Args { once: true }.run()),
            ("scenarios in virtual machines", &|| vm::Args::all(!self.full).run()),
            ("a scenario on 16 processors", &|| vm::Args::many_processors().run()),
        ];
        let mut rows = Vec::new();
        for (name, part) in parts {
            println!("\n=== {name}");
            let begin = Instant::now();
            let result = part()
                .and_then(|code| if code == ExitCode::SUCCESS { Ok(()) } else { bail!("failed; see above") });
            if let Err(error) = &result {
                println!("{name}: {error:#}");
            }
            rows.push((name, begin.elapsed(), result.is_ok()));
        }
        println!();
        for (name, took, passed) in &rows {
            println!("{:<32} {:>6.0} s  {}", name, took.as_secs_f64(), if *passed { "ok" } else { "FAILED" });
        }
        let passed = rows.iter().filter(|row| row.2).count();
        println!("{passed} passed, {} failed", rows.len() - passed);
        Ok(if passed == rows.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Tests that are in a build without the feature `registry` only.
const WITHOUT_REGISTRIES: [&str; 2] = [
    "registries_are_refused_at_start_by_a_program_that_has_none",
    "a_registry_needs_a_program_that_is_built_for_it",
];

/// All others run with it, so only these are run once more.
fn without_registries() -> anyhow::Result<ExitCode> {
    let mut cargo = build::cargo();
    cargo.args(["test", "--package", "muster", "--lib", "--test", "fetch", "--"]).args(WITHOUT_REGISTRIES);
    let output = cargo.stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    ensure!(output.status.success(), "`{}` ended with {}", shell::typed(&cargo), output.status);
    // A filter that fits no test is no failure to cargo.
    for name in WITHOUT_REGISTRIES {
        let ran = text.lines().any(|line| line.ends_with(&format!("{name} ... ok")));
        ensure!(ran, "{name}: no such test was run; xtask/src/test.rs names it");
    }
    Ok(ExitCode::SUCCESS)
}
