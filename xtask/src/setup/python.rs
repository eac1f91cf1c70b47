//! A Python environment in the cache with the tools of the tests that are not ours, pinned by hash.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::{paths, shell};

/// A program of the environment.
pub(crate) fn program(name: &str) -> PathBuf {
    directory().join("bin").join(name)
}

/// What is installed, with hashes.
pub(crate) fn requirements() -> PathBuf {
    paths::root().join("tests/requirements.txt")
}

/// The environment holds exactly these requirements.
pub(crate) fn ready() -> bool {
    let installed = fs::read(installed());
    matches!((installed, fs::read(requirements())), (Ok(have), Ok(want)) if have == want)
}

/// This machine's Python can make an environment.
pub(crate) fn can_make() -> bool {
    shell::output(&mut shell::command("python3", ["-c", "import ensurepip, venv"])).is_ok()
}

/// The commands that make it; the last one says that it is complete.
pub(crate) fn make() -> Vec<Command> {
    let mut create = shell::command("python3", ["-m", "venv", "--clear"]);
    create.arg(directory());
    let mut install =
        shell::command(program("pip"), ["install", "-q", "--require-hashes", "--only-binary", ":all:", "-r"]);
    install.arg(requirements());
    vec![create, install, shell::command("cp", [requirements(), installed()])]
}

fn directory() -> PathBuf {
    paths::cache().join("venv")
}

fn installed() -> PathBuf {
    directory().join("installed-requirements.txt")
}
