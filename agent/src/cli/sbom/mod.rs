//! `muster sbom …`.

mod diff;
mod generate;
mod inspect;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;

use super::input;
use crate::event::FilePath;
use crate::sbom::{ImageIndex, Limits, SbomError};

/// Subcommands of `muster sbom`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make an SBOM (SPDX or CycloneDX, JSON) of a file tree, an OCI image or this host: every executable, shared library and script. Exit status: 0
    /// every file was read, 1 nothing was made, 2 wrong usage (an SBOM to complete that cannot be read included), 3 the SBOM was made
    /// but lacks the files named on standard error.
    ///
    /// The same files and the same time of making give the same bytes. The time is `SOURCE_DATE_EPOCH` of the environment (seconds
    /// since 1970); without it, of an OCI image when its configuration says that it was made, and of anything else now.
    Generate(generate::Generate),
    /// Show what an SBOM can answer for, and what it lacks. Exit status: 0 it was read, 2 it cannot be read.
    Inspect(inspect::Inspect),
    /// Compare two SBOMs of any formats: packages and files added, removed and changed. Exit status: 0 they say the same, 1 they
    /// differ, 2 one cannot be read.
    Diff(diff::Diff),
}

impl Command {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// Whatever stopped it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Generate(args) => args.run(),
            Self::Inspect(args) => args.run(),
            Self::Diff(args) => args.run(),
        }
    }
}

/// A text of a document as it is printed: without control characters.
fn shown(text: &str) -> FilePath {
    FilePath::from(text)
}

/// Reads an SBOM of any format.
fn load(file: &Path) -> anyhow::Result<ImageIndex> {
    Ok(load_with_bytes(file)?.0)
}

/// Reads an SBOM of any format; and its bytes.
fn load_with_bytes(file: &Path) -> anyhow::Result<(ImageIndex, Vec<u8>)> {
    let limits = Limits::default();
    let too_large = |found| SbomError::TooLarge { found, limit: limits.max_bytes };
    let bytes = input::read(file, limits.max_bytes)?.map_err(too_large);
    let bytes = bytes.with_context(|| file.display().to_string())?;
    let index = crate::sbom::parse(&bytes, &limits).with_context(|| file.display().to_string())?;
    Ok((index, bytes))
}
