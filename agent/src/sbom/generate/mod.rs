//! Making an SBOM of a file tree: SPDX 2.3 in JSON, in one pass over the disk.
//!
//! Listed are regular files that can run: ELF files, files with an execute bit, and scripts (`#!`); with
//! [`Options::all`] every regular file. Symbolic links are not followed and not listed: the kernel reports what they
//! lead to. SPDX 2.3 (clause 8.4) wants a SHA-1 of each file; Muster itself uses the SHA-256 beside it.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rayon::prelude::*;
use rustc_hash::FxHashSet;

use super::spdx::COMPLETE;

mod dpkg;
mod file;
#[cfg(test)]
mod tests;
mod walk;
mod write;

/// Name of this generator in `creators`, before its version.
const TOOL: &str = "muster-";

/// What to make.
#[derive(Clone, Debug)]
pub struct Options {
    /// Root of the tree.
    pub root: PathBuf,
    /// The tree is the running host: leave out `/proc`, `/sys`, `/dev` and `/run`.
    pub host: bool,
    /// Every regular file, not only what can run.
    pub all: bool,
    /// Directories left out, as the document would write them (`/work`).
    pub exclude: Vec<PathBuf>,
    /// Name of the document.
    pub name: String,
    /// Time of making.
    pub created: SystemTime,
}

/// How far it is, for a progress bar.
#[derive(Debug, Default)]
pub struct Progress {
    /// Regular files found so far.
    pub found: AtomicU64,
    /// No more will be found.
    pub walked: std::sync::atomic::AtomicBool,
    /// Files looked at.
    pub done: AtomicU64,
    /// Bytes hashed.
    pub bytes: AtomicU64,
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Files listed.
    pub files: usize,
    /// Of these, owned by a package.
    pub owned: usize,
    /// Packages listed.
    pub packages: usize,
    /// Files and directories that could not be read, with the reason. The document then does not claim to be complete.
    pub unread: Vec<(PathBuf, String)>,
    /// Mount points and directories that were left out, with the reason; paths relative to the root.
    pub left_out: Vec<(PathBuf, String)>,
    /// What of the package database could not be used; its files may lack their owner.
    pub database: Vec<String>,
}

/// Why no document was made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The tree's root cannot be read.
    #[error("{}: cannot be read ({source}); expected a directory", root.display())]
    Root {
        /// The root.
        root: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An excluded directory is not absolute and plain.
    #[error(
        "cannot exclude {0:?}: expected an absolute path below the root, without \"..\", as the SBOM would write it"
    )]
    Exclude(PathBuf),
    /// The document could not be written.
    #[error("the SBOM could not be written: {0}")]
    Write(#[from] io::Error),
}

/// Makes an SBOM of a tree. Files come in the order of their paths: the same tree gives the same bytes.
///
/// # Errors
/// [`GenerateError`]: the root cannot be read, or the document cannot be written. Files that cannot be read are in the
/// report.
pub fn generate(
    options: &Options,
    progress: &Progress,
    out: &mut dyn Write,
) -> Result<Report, GenerateError> {
    let excluded = excluded(options)?;
    let tree = walk::walk(options, &excluded, progress)
        .map_err(|source| GenerateError::Root { root: options.root.clone(), source })?;
    progress.walked.store(true, Ordering::Relaxed);
    let (database, trouble) = dpkg::Database::load(&options.root);
    let looked: Vec<_> = tree
        .files
        .into_par_iter()
        .map(|path| {
            let looked = file::look(&options.root.join(&path), options.all, progress);
            progress.done.fetch_add(1, Ordering::Relaxed);
            (path, looked)
        })
        .collect();
    let mut report = Report { left_out: tree.left_out, unread: tree.unread, ..Report::default() };
    report.database = trouble;
    let mut listed = Vec::new();
    for (path, looked) in looked {
        match (looked, path.to_str()) {
            (Ok(None), _) => {}
            (Ok(Some(file)), Some(name)) => {
                let owner = database.owner(name);
                report.owned += usize::from(owner.is_some());
                listed.push(write::Listed { path: name.into(), file, owner });
            }
            (Ok(Some(_)), None) => {
                report.unread.push((path, "its name is not UTF-8, which JSON cannot hold".to_owned()));
            }
            (Err(error), _) => report.unread.push((path, error.to_string())),
        }
    }
    listed.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    report.unread.sort();
    report.files = listed.len();
    report.packages = database.packages.len();
    write::document(options, &listed, &database.packages, report.unread.len(), out)?;
    Ok(report)
}

/// Excluded directories, relative to the root.
fn excluded(options: &Options) -> Result<FxHashSet<PathBuf>, GenerateError> {
    use std::path::Component;
    let relative = |path: &PathBuf| {
        let below = path.strip_prefix("/").ok()?;
        let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
        // Collected, for one spelling of doubled and trailing slashes.
        (plain && !below.as_os_str().is_empty()).then(|| below.components().collect())
    };
    options
        .exclude
        .iter()
        .map(|path| relative(path).ok_or_else(|| GenerateError::Exclude(path.clone())))
        .collect()
}

/// The name for a document about a tree: the host's name, or the directory's.
pub fn default_name(root: &Path, host: bool) -> String {
    if host {
        return nix::unistd::gethostname()
            .map_or_else(|_| "host".into(), |n| n.to_string_lossy().into_owned());
    }
    root.canonicalize()
        .ok()
        .and_then(|root| root.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "root".into())
}
