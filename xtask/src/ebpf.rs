//! `cargo xtask build-ebpf`: the kernel programs, compiled for `bpfel-unknown-none`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::setup::compiler::Compiler;
use crate::setup::{self, Stage, linker};
use crate::{ebpf_source, paths, shell};

/// Arguments of `cargo xtask build-ebpf`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Features of the kernel crate, comma separated: `log` for logs from the kernel programs.
    #[arg(long, value_delimiter = ',')]
    features: Vec<String>,
}

impl Args {
    /// Builds the object.
    pub(crate) fn build(&self) -> anyhow::Result<PathBuf> {
        setup::ensure(Stage::Run)?;
        let compiler =
            Compiler::find().context("no compiler for the kernel programs; run `cargo xtask setup`")?;
        let linker = linker::find(compiler.llvm).context("no bpf-linker; run `cargo xtask setup`")?;
        let mut cargo = cargo(&compiler, &linker);
        cargo.args(["build", "--package", "muster-ebpf", "--profile", "bpf"]);
        if !self.features.is_empty() {
            cargo.arg("--features").arg(self.features.join(","));
        }
        // Taken before the build: a source that is edited meanwhile makes the object stale, not the stamp wrong.
        let sources = ebpf_source::digest(paths::root())?;
        shell::quiet(&mut cargo).context("building the kernel programs")?;
        let stamp = paths::target().join(ebpf_source::STAMP);
        // Written only when it differs: the agent is built again when this file changes.
        if std::fs::read_to_string(&stamp).is_ok_and(|old| old == sources) {
            return Ok(object());
        }
        std::fs::write(&stamp, sources).with_context(|| stamp.display().to_string())?;
        Ok(object())
    }
}

/// The object with the kernel programs.
pub(crate) fn object() -> PathBuf {
    paths::target().join(ebpf_source::OBJECT)
}

/// Cargo set up for the kernel crate: its target, its compiler, its linker.
pub(crate) fn cargo(compiler: &Compiler, linker: &Path) -> std::process::Command {
    let program = compiler
        .cargo
        .clone()
        .unwrap_or_else(|| std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from));
    let mut cargo = std::process::Command::new(program);
    cargo
        .current_dir(paths::root())
        .env("RUSTC", &compiler.rustc)
        // `-Zbuild-std` by a released compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_BUILD_TARGET", "bpfel-unknown-none")
        .env("CARGO_TARGET_DIR", paths::target().join("ebpf"))
        .env("CARGO_UNSTABLE_BUILD_STD", "core")
        // BTF, from which the agent's loader knows the types of maps and programs.
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", "-Cdebuginfo=2 -Clink-arg=--btf")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    // Flags meant for the host's compiler.
    for variable in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTUP_TOOLCHAIN",
    ] {
        cargo.env_remove(variable);
    }
    cargo
}
