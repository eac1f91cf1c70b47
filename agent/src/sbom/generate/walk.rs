//! Every regular file of a tree, on real disks only.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use nix::sys::statfs::{self, FsType};

use super::{EXCLUDED, NOT_MET, Options, Progress, Source, filesystem};

/// What was found; paths are relative to the root.
pub(super) struct Tree {
    pub(super) files: Vec<PathBuf>,
    pub(super) unread: Vec<(PathBuf, String)>,
    pub(super) left_out: Vec<(PathBuf, String)>,
}

/// Not files of the host, whatever they are mounted from.
const HOST_SKIPS: [&str; 4] = ["proc", "sys", "dev", "run"];

pub(super) fn walk(options: &Options, excluded: &HashSet<PathBuf>, progress: &Progress) -> io::Result<Tree> {
    let root = options.source.root();
    let (home, home_kind) = (root.metadata()?.dev(), kind(root)?);
    let mut tree = Tree { files: Vec::new(), unread: Vec::new(), left_out: Vec::new() };
    // By device: why its files are left out, if they are.
    let mut devices: HashMap<u64, Option<String>> = HashMap::from_iter([(home, None)]);
    let mut met = HashSet::new();
    let relative = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_owned();
    let mut entries = walkdir::WalkDir::new(root).into_iter();
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if error.depth() == 0 => return Err(error.into()),
            // A directory of another process that ended is no directory of the tree.
            Err(error) if error.io_error().is_some_and(|e| e.kind() == io::ErrorKind::NotFound) => continue,
            Err(error) => {
                let path = error.path().map(relative).unwrap_or_default();
                let reason = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
                tree.unread.push((path, reason));
                continue;
            }
        };
        let file_type = entry.file_type();
        if file_type.is_file() {
            tree.files.push(relative(entry.path()));
            progress.found.fetch_add(1, Ordering::Relaxed);
        } else if file_type.is_dir() && entry.depth() > 0 {
            let path = relative(entry.path());
            if options.source == Source::Host && HOST_SKIPS.iter().any(|skip| path == Path::new(skip)) {
                entries.skip_current_dir();
                continue;
            }
            if excluded.contains(&path) {
                met.insert(path.clone());
                tree.left_out.push((path, EXCLUDED.to_owned()));
                entries.skip_current_dir();
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            let why = devices.entry(metadata.dev()).or_insert_with(|| match kind(entry.path()) {
                Ok(kind) if kind == home_kind || filesystem::is_disk(kind) => None,
                Ok(kind) => Some(format!("{}, which is no disk of this machine", filesystem::name(kind))),
                Err(error) => Some(error.to_string()),
            });
            if let Some(why) = why {
                tree.left_out.push((path, why.clone()));
                entries.skip_current_dir();
            }
        }
    }
    for path in excluded.difference(&met) {
        tree.left_out.push((path.clone(), NOT_MET.to_owned()));
    }
    tree.left_out.sort();
    Ok(tree)
}

fn kind(path: &Path) -> io::Result<FsType> {
    Ok(statfs::statfs(path)?.filesystem_type())
}
