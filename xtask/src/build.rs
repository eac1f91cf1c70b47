//! Builds for this machine: the kernel programs first, as the agent carries them.

use crate::{ebpf, shell};

/// Release builds of these programs, of the agent's package and that of the tests.
pub(crate) fn release(programs: &[&str]) -> anyhow::Result<()> {
    ebpf::Args::default().build()?;
    let mut build = cargo();
    build.args(["build", "--release", "--package", "muster", "--package", "muster-tests"]);
    for program in programs {
        build.args(["--bin", program]);
    }
    shell::quiet(&mut build)
}

/// Cargo, in the workspace.
pub(crate) fn cargo() -> std::process::Command {
    let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(crate::paths::root());
    cargo
}
