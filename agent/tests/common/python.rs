//! The tools of the tests that are not ours: the Python environment that `cargo xtask setup` makes from
//! `tests/requirements.txt`. For unit tests and, by `#[path]`, for the tests beside this folder.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A program of the environment. A missing one fails the test with the command that installs it.
pub(crate) fn program(name: &str) -> Command {
    let path = bin().join(name);
    assert!(
        path.exists(),
        "{name} is missing from the tests' Python environment: run `cargo xtask setup --for test`"
    );
    Command::new(path)
}

fn bin() -> PathBuf {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the agent is a folder of the workspace");
    root.join(".cache/venv/bin")
}
