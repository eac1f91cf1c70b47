//! `cargo xtask setup`: finds what is there, says what it will install and why, installs it by the ordinary package clients.
//!
//! Idempotent, and quick when nothing is missing. System packages come from apt with its signatures; everything else goes into
//! `.cache/`, pinned by version and checked by hash (crates by cargo, Python packages by `--require-hashes`) or by apt.

pub(crate) mod compiler;
pub(crate) mod debian;
pub(crate) mod kernels;
pub(crate) mod linker;
pub(crate) mod python;
mod steps;
pub(crate) mod tools;

use std::io::{IsTerminal as _, Write as _};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};

use crate::{ebpf, paths, shell};
use steps::{Action, Step};

/// Arguments of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Install without asking.
    #[arg(long)]
    yes: bool,
    /// Only say what would be installed.
    #[arg(long)]
    dry_run: bool,
    /// What to set up for.
    #[arg(long = "for", value_enum, default_value = "ci")]
    stage: Stage,
}

/// What set-up is for; each includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Stage {
    /// Building the kernel programs and the agent, and running it.
    Run,
    /// And the virtual machines.
    Vm,
    /// And everything else that `cargo xtask test` takes.
    Test,
    /// And the checks of licences and dependencies.
    Ci,
}

impl Args {
    /// Runs it.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let missing = steps::missing(self.stage)?;
        describe(&missing);
        if self.dry_run {
            return Ok(ExitCode::SUCCESS);
        }
        if !missing.is_empty() {
            install(self.stage, missing, self.yes)?;
        }
        // The agent carries the kernel programs: with them, `cargo build` works.
        ebpf::Args::default().build()?;
        println!("set-up: done");
        Ok(ExitCode::SUCCESS)
    }
}

/// Installs what is missing for `stage`.
pub(crate) fn ensure(stage: Stage) -> anyhow::Result<()> {
    let missing = steps::missing(stage)?;
    if missing.is_empty() {
        return Ok(());
    }
    describe(&missing);
    install(stage, missing, false)
}

fn describe(missing: &[Step]) {
    if missing.is_empty() {
        eprintln!("set-up: nothing is missing");
        return;
    }
    eprintln!("set-up: missing on this machine:");
    for step in missing {
        eprintln!("  {:<28} {}", step.what, step.why);
    }
}

fn install(stage: Stage, mut missing: Vec<Step>, yes: bool) -> anyhow::Result<()> {
    if missing.iter().any(|step| matches!(step.action, Action::ByHand)) {
        bail!(
            "the test data is missing, and set-up cannot fetch it: expected the directories sbom and attestation in {}; put \
             them there, then run this again (`cargo xtask setup --for run` and `cargo xtask run` do without)",
            paths::test_data().display()
        );
    }
    let packages: Vec<String> = missing
        .iter()
        .filter_map(|step| match &step.action {
            Action::Package(name) => Some(name.clone()),
            Action::Commands(_) | Action::Rustup(_) | Action::Kernels | Action::ByHand => None,
        })
        .collect();
    if missing.iter().any(|step| matches!(step.action, Action::Rustup(_))) {
        compiler::check_rustup()?;
    }
    ask(yes)?;
    if !packages.is_empty() {
        install_packages(&packages)?;
        // What packages bring decides what else is missing (a compiler, and so the linker for it).
        missing = steps::missing(stage)?;
        if let Some(step) = missing.iter().find(|s| matches!(s.action, Action::Package(_))) {
            bail!("{} is still missing after apt-get installed its package: {}", step.what, step.why);
        }
    }
    for mut step in missing {
        eprintln!("set-up: {} ({})", step.what, step.why);
        match &mut step.action {
            Action::Package(_) | Action::ByHand => {}
            Action::Commands(commands) => commands.iter_mut().try_for_each(shell::run)?,
            Action::Rustup(command) => shell::run(command)?,
            Action::Kernels => kernels::fetch_missing()?,
        }
    }
    let left = steps::missing(stage)?;
    if !left.is_empty() {
        describe(&left);
        bail!("still missing after set-up; the lines above say what");
    }
    Ok(())
}

/// On a terminal, asks; elsewhere a run is taken as meant.
fn ask(yes: bool) -> anyhow::Result<()> {
    if yes || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    eprint!("install them? [Y/n] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim() {
        "" | "y" | "Y" | "yes" => Ok(()),
        _ => bail!("nothing was installed; `cargo xtask setup --dry-run` shows what is missing"),
    }
}

fn install_packages(packages: &[String]) -> anyhow::Result<()> {
    let update = || shell::command("apt-get", ["-q", "update"]);
    let install = || {
        let mut command = shell::command("apt-get", ["-q", "install", "-y", "--no-install-recommends"]);
        command.args(packages);
        command
    };
    let by_hand = || format!("  sudo {}\n  sudo {}", shell::typed(&update()), shell::typed(&install()));
    if shell::find("apt-get").is_none() {
        bail!(
            "no apt-get on this machine: install what these Debian packages hold, then run this again: {}",
            packages.join(" ")
        );
    }
    if nix::unistd::geteuid().is_root() {
        shell::run(&mut update())?;
        return shell::run(install().env("DEBIAN_FRONTEND", "noninteractive"));
    }
    if shell::find("sudo").is_none() || !may_sudo()? {
        bail!(
            "may not install packages: not root, and no sudo without a password here. Run these, then this again:\n{}",
            by_hand()
        );
    }
    let sudo = |command: Command| {
        let mut with = shell::command("sudo", [command.get_program()]);
        with.args(command.get_args());
        with
    };
    shell::run(&mut sudo(update()))
        .and_then(|()| shell::run(&mut sudo(install())))
        .with_context(|| format!("by hand:\n{}", by_hand()))
}

/// On a terminal sudo may ask for the password; elsewhere it must not need one.
fn may_sudo() -> anyhow::Result<bool> {
    if std::io::stdin().is_terminal() {
        return Ok(true);
    }
    let mut probe = shell::command("sudo", ["-n", "true"]);
    Ok(probe.stderr(std::process::Stdio::null()).status().context("starting sudo")?.success())
}
