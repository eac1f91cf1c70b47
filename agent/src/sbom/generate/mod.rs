//! Making an SBOM of a file tree, in one pass over the disk, or of an OCI image, in one pass over its layers: SPDX 2.3 or CycloneDX
//! 1.6, both JSON.
//!
//! Listed are regular files that can run: ELF files, files with an execute bit, and scripts (`#!`); with
//! [`Options::all`] every regular file. Symbolic links are not followed and not listed: the kernel reports what they
//! lead to. SPDX 2.3 (clause 8.4) wants a SHA-1 of each file; Muster itself uses the SHA-256 beside it.

use std::collections::HashSet;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rayon::prelude::*;

use super::spdx::COMPLETE;

mod complete;
mod cyclonedx;
mod document;
mod file;
mod filesystem;
mod oci;
mod owners;
mod spdx;
#[cfg(test)]
mod tests;
mod walk;

pub use complete::Contradiction;
pub use document::excluded_in;
pub use oci::{ImageError, ImageLimits, LayerFile, Platform, files_of_layers, image_of_archive};

use super::ImageIndex;
use crate::packages;
use document::{Document, Listed, Of};
use owners::Database;

/// Name of this generator in `creators`, before its version.
const TOOL: &str = "muster-";

/// What an SBOM is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file tree, by its root.
    Tree(PathBuf),
    /// The running host: `/` without `/proc`, `/sys`, `/dev` and `/run`.
    Host,
    /// An OCI layout directory, or an archive of one.
    Image {
        /// Where it is.
        path: PathBuf,
        /// Which of its images; `None`: this machine's, or the only one there is.
        platform: Option<Platform>,
    },
}

impl Source {
    fn root(&self) -> &Path {
        match self {
            Self::Tree(root) => root,
            Self::Host => Path::new("/"),
            Self::Image { path, .. } => path,
        }
    }
}

/// The format of the document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// SPDX 2.3, JSON.
    #[default]
    Spdx,
    /// CycloneDX 1.6, JSON.
    CycloneDx,
}

/// What to make.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of what.
    pub source: Source,
    /// In which format.
    pub output: Output,
    /// Every regular file, not only what can run.
    pub all: bool,
    /// Directories left out, as the document would write them (`/var/cache`).
    pub exclude: Vec<PathBuf>,
    /// Name of the document.
    pub name: String,
    /// Time of making. `None`: of an image, when its configuration says that it was made, so that the same image gives the same
    /// bytes; of anything else, now.
    pub created: Option<SystemTime>,
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
    /// Files that the base has a digest of, but that are not there: they are not listed.
    pub gone: Vec<String>,
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
    /// The image cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The SBOM to complete says otherwise.
    #[error(transparent)]
    Contradiction(#[from] Contradiction),
    /// An excluded directory is not absolute and plain.
    #[error(
        "cannot exclude {0:?}: expected an absolute path below the root, without \"..\", as the SBOM would write it"
    )]
    Exclude(PathBuf),
    /// The document could not be written.
    #[error("the SBOM could not be written: {0}")]
    Write(#[from] io::Error),
}

/// Makes an SBOM. Files come in the order of their paths: the same source and time give the same bytes. With a `base`, what it names is
/// in the document, too, but for files that are not there.
///
/// # Errors
/// [`GenerateError`]: the source cannot be read, the base contradicts it, or the document cannot be written. Files that cannot be
/// read are in the report.
pub fn generate(
    options: &Options,
    base: Option<&ImageIndex>,
    progress: &Progress,
    out: &mut dyn Write,
) -> Result<Report, GenerateError> {
    let (mut document, mut report) = match &options.source {
        Source::Tree(_) | Source::Host => of_tree(options, base, progress)?,
        Source::Image { path, platform } => of_image(options, path, platform.as_ref(), base, progress)?,
    };
    if let Some(base) = base {
        let left_out = report.left_out.iter().filter(|(_, why)| why != NOT_MET);
        let unseen = left_out.chain(&report.unread).map(|(path, _)| path.as_path());
        let unseen: HashSet<&Path> = unseen.collect();
        let hidden = |path: &Path| path.ancestors().any(|above| unseen.contains(above));
        report.gone = complete::complete(&mut document, base, hidden)?;
    }
    document.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    report.unread.sort();
    report.files = document.files.len();
    report.owned = document.files.iter().filter(|file| file.owner.is_some()).count();
    report.packages = document.packages.len();
    document.unread = report.unread.len();
    let excluded = report.left_out.iter().filter(|(_, why)| why == EXCLUDED);
    document.excluded = excluded.map(|(path, _)| format!("/{}", path.display())).collect();
    match options.output {
        Output::Spdx => spdx::write(options, &document, out)?,
        Output::CycloneDx => cyclonedx::write(options, &document, out)?,
    }
    Ok(report)
}

fn of_tree(
    options: &Options,
    base: Option<&ImageIndex>,
    progress: &Progress,
) -> Result<(Document, Report), GenerateError> {
    let root = options.source.root();
    let excluded = excluded(options)?;
    let tree = walk::walk(options, &excluded, progress)
        .map_err(|source| GenerateError::Root { root: root.to_owned(), source })?;
    progress.walked.store(true, Ordering::Relaxed);
    let database = packages::Tree::directory(root).map(|files| Database::load(&files));
    let database = database.map_err(|source| GenerateError::Root { root: root.to_owned(), source })?;
    let looked: Vec<_> = tree
        .files
        .into_par_iter()
        .map(|path| {
            // What the base lists is compared with it, whether it can run or not.
            let is_listed = |base: &ImageIndex| base.by_path(path.as_os_str().as_bytes()).is_some();
            let all = options.all || base.is_some_and(is_listed);
            let looked = file::look(&root.join(&path), all, progress);
            progress.done.fetch_add(1, Ordering::Relaxed);
            (path, looked)
        })
        .collect();
    let mut report = Report { left_out: tree.left_out, unread: tree.unread, ..Report::default() };
    report.database = database.trouble();
    let mut files = Vec::new();
    for (path, looked) in looked {
        match (looked, path.to_str()) {
            (Ok(None), _) => {}
            (Ok(Some(file)), Some(name)) => {
                let owner = database.owner(name);
                files.push(Listed { path: name.into(), file: Some(file), stated: None, owner, layer: None });
            }
            (Ok(Some(_)), None) => report.unread.push((path, NOT_UTF8.to_owned())),
            (Err(error), _) => report.unread.push((path, error.to_string())),
        }
    }
    Ok((Document::new(Of::Tree, files, database.packages), report))
}

const EXCLUDED: &str = "excluded";
const NOT_MET: &str = "excluded, but no such directory was met";
const NOT_UTF8: &str = "its name is not UTF-8, which JSON cannot hold";

fn of_image(
    options: &Options,
    path: &Path,
    platform: Option<&Platform>,
    base: Option<&ImageIndex>,
    progress: &Progress,
) -> Result<(Document, Report), GenerateError> {
    let excluded = excluded(options)?;
    let (mut store, image) = oci::open(path, platform)?;
    // A base may list any file: all are hashed then.
    let tree = oci::read(&mut store, &image, options.all || base.is_some(), progress)?;
    progress.walked.store(true, Ordering::Relaxed);
    let database = Database::load(&tree);
    let mut report = Report { database: database.trouble(), ..Report::default() };
    for directory in &excluded {
        let is_there = tree.is_directory(Path::new("/").join(directory).as_os_str().as_bytes());
        let reason = if is_there { EXCLUDED } else { NOT_MET };
        report.left_out.push((directory.clone(), reason.to_owned()));
    }
    report.left_out.sort();
    let is_excluded =
        |path: &Path| !excluded.is_empty() && path.ancestors().skip(1).any(|above| excluded.contains(above));
    for (path, reason) in tree.unread().map(|(path, reason)| (relative(path), reason)) {
        if !is_excluded(path) {
            report.unread.push((path.to_owned(), reason.to_owned()));
        }
    }
    let mut files = Vec::new();
    for (path, content) in tree.files() {
        let Some(looked) = &content.looked else { continue };
        let name = relative(path);
        if is_excluded(name) {
            continue;
        }
        let Some(name) = name.to_str() else {
            report.unread.push((name.to_owned(), NOT_UTF8.to_owned()));
            continue;
        };
        if base.is_some_and(|base| {
            !options.all && !can_run(looked, content.executable) && base.by_path(path).is_none()
        }) {
            continue;
        }
        let (owner, layer) = (database.owner(name), Some(content.layer));
        files.push(Listed { path: name.into(), file: Some(looked.clone()), stated: None, owner, layer });
    }
    Ok((Document::new(Of::Image(image), files, database.packages), report))
}

/// A path of an image, relative to its root.
fn relative(path: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
}

fn can_run(looked: &file::Looked, executable: bool) -> bool {
    executable || looked.class != file::Class::Other
}

/// Excluded directories, relative to the root.
fn excluded(options: &Options) -> Result<HashSet<PathBuf>, GenerateError> {
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

/// The name for a document: the host's name, or that of the directory or file.
pub fn default_name(source: &Source) -> String {
    if *source == Source::Host {
        return nix::unistd::gethostname()
            .map_or_else(|_| "host".into(), |n| n.to_string_lossy().into_owned());
    }
    source
        .root()
        .canonicalize()
        .ok()
        .and_then(|root| root.file_name().map(|name| name.to_string_lossy().into_owned()))
        .unwrap_or_else(|| "root".into())
}
