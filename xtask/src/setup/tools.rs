//! Cargo's helpers, pinned, into the cache; one on PATH will do.

use std::path::PathBuf;
use std::process::Command;

use crate::{paths, shell};

/// A helper of cargo.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tool {
    /// Crate and program.
    pub(crate) name: &'static str,
    version: &'static str,
}

/// Checks licences, bans and sources.
pub(crate) const DENY: Tool = Tool { name: "cargo-deny", version: "0.20.2" };
/// Runs fuzz targets.
pub(crate) const FUZZ: Tool = Tool { name: "cargo-fuzz", version: "0.13.2" };

impl Tool {
    /// The program.
    pub(crate) fn find(self) -> Option<PathBuf> {
        let own = self.root().join("bin").join(self.name);
        if own.is_file() { Some(own) } else { shell::find(self.name) }
    }

    /// The command that installs it.
    pub(crate) fn install(self) -> Command {
        let mut command =
            shell::command("cargo", ["install", self.name, "--version", self.version, "--locked", "--root"]);
        command.arg(self.root());
        // They run for seconds, and with all optimisations their build takes minutes.
        command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1").env("CARGO_PROFILE_RELEASE_LTO", "off");
        command
    }

    fn root(self) -> PathBuf {
        paths::cache().join("tools").join(format!("{}-{}", self.name, self.version))
    }
}
