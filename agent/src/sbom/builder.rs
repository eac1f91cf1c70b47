//! An index in the making.

use std::collections::HashMap;
use std::time::SystemTime;

use super::digests::DigestTable;
use super::index::{NO_DIGEST, NO_PACKAGE, at, split};
use super::kinds::Kinds;
use super::layers::Layers;
use super::order::{self, Keyed};
use super::packages::Packages;
use super::path::{append_canonical, merges_into_usr};
use super::{Digests, Entry, Format, ImageIndex, Numbers, Origin, Package, PathError, SbomError};
use crate::finding::Sha256;

/// Takes the files and packages of documents in any order.
#[derive(Default)]
pub struct Builder {
    paths: Vec<u8>,
    files: Vec<Raw>,
    pub(super) packages: Packages,
    /// The image that the document says it was made from.
    pub origin: Origin,
    /// The tool that made the document.
    pub tool: Option<Box<str>>,
    /// Formats of the documents.
    pub formats: Vec<Format>,
    /// When the document was made.
    pub created: Option<SystemTime>,
    /// The document claims to be complete.
    pub complete: bool,
    /// Files of package metadata whose digest is malformed, or contradicted by another package's.
    pub unusable: u64,
    /// Layers that files are of.
    pub(super) layers: Layers,
    /// Components that are neither files nor packages.
    pub(super) kinds: Kinds,
    /// Contents that have no path.
    pub(super) contents: Vec<Sha256>,
}

#[derive(Clone, Copy)]
struct Raw {
    start: u32,
    len: u32,
    slash: u32,
    package: u32,
    digests: Digests,
    /// The digests are not of the file, but what a package database records.
    recorded: bool,
    /// Its layer, by its number in [`Layers`]; 0 is none.
    layer: u16,
}

impl Builder {
    /// Adds a file and returns its number for [`own`](Self::own).
    ///
    /// # Errors
    /// The path cannot be canonical, or the document is too large for 32-bit offsets.
    pub fn file(&mut self, path: &[u8], digests: Digests) -> Result<u32, SbomError> {
        let refuse = |reason: String| SbomError::File {
            path: String::from_utf8_lossy(path).into_owned(),
            reason,
            position: None,
        };
        let pushed = self.push(path, digests, false).map_err(|error| refuse(error.to_string()))?;
        pushed.ok_or_else(|| refuse("more than 4 GiB of paths".to_owned()))
    }

    /// Adds what a package's metadata records of a file that it brings. This counts only where no document has a digest of the
    /// file itself, and not where packages contradict each other. False when the path cannot be canonical.
    pub fn recorded(&mut self, path: &[u8], digests: Digests, package: u32) -> bool {
        let Ok(Some(file)) = self.push(path, digests, true) else { return false };
        self.own(file, package);
        true
    }

    /// Adds a file of another index, with its owner among the packages of this one.
    pub(super) fn entry(&mut self, entry: Entry<'_>, package: Option<u32>) -> Result<(), SbomError> {
        let digests = Digests { sha256: entry.sha256(), ..entry.weak().unwrap_or_default() };
        let file = self.file(entry.path().as_bytes(), digests)?;
        self.files[at(file)].recorded = entry.is_recorded();
        if let Some(package) = package {
            self.own(file, package);
        }
        Ok(())
    }

    /// `None` when there is no more room.
    fn push(&mut self, path: &[u8], digests: Digests, recorded: bool) -> Result<Option<u32>, PathError> {
        let start = self.paths.len();
        append_canonical(path, &mut self.paths)?;
        let path = &self.paths[start..];
        let lengths = (path.len(), split(path).0.len());
        let place = |of: usize| u32::try_from(of).ok();
        let raw = place(self.paths.len()).and_then(|_| {
            let (start, len, slash) = (place(start)?, place(lengths.0)?, place(lengths.1)?);
            Some(Raw { start, len, slash, package: NO_PACKAGE, digests, recorded, layer: 0 })
        });
        let number = place(self.files.len());
        self.files.extend(raw);
        Ok(raw.and(number))
    }

    /// Says of which layer a file is.
    pub(super) fn of_layer(&mut self, file: u32, layer: &str) {
        if let Some(file) = self.files.get_mut(at(file)) {
            file.layer = self.layers.number(layer);
        }
    }

    /// Adds digests of a file that was added before.
    ///
    /// # Errors
    /// It has others.
    pub(super) fn add_digests(&mut self, file: u32, digests: Digests) -> Result<(), String> {
        let Some(file) = self.files.get_mut(at(file)) else { return Ok(()) };
        file.digests = unite(file.digests, digests).ok_or("two different digests for one file")?;
        Ok(())
    }

    /// Refuses a file that was added before.
    pub(super) fn wrong(&self, file: u32, reason: String) -> SbomError {
        let path = self.files.get(at(file)).map_or(&[][..], |file| self.path(file));
        SbomError::File { path: String::from_utf8_lossy(path).into_owned(), reason, position: None }
    }

    /// Two files that were added have the same path and digests.
    pub(super) fn is_same_file(&self, a: u32, b: u32) -> bool {
        let (Some(a), Some(b)) = (self.files.get(at(a)), self.files.get(at(b))) else { return false };
        a.digests == b.digests && self.path(a) == self.path(b)
    }

    /// Adds a package and returns its number for [`own`](Self::own).
    pub fn package(&mut self, package: &Package<'_>) -> u32 {
        self.packages.push(package).unwrap_or(NO_PACKAGE)
    }

    /// The number that the next file will have.
    #[inline]
    pub(super) fn next_file(&self) -> u32 {
        u32::try_from(self.files.len()).unwrap_or(u32::MAX)
    }

    /// Says which package owns a file; the first one stays.
    pub fn own(&mut self, file: u32, package: u32) {
        if let Some(file) = self.files.get_mut(at(file)).filter(|f| f.package == NO_PACKAGE) {
            file.package = package;
        }
    }

    fn path(&self, file: &Raw) -> &[u8] {
        &self.paths[at(file.start)..at(file.start) + at(file.len)]
    }

    /// Directory and name of a file.
    fn parts(&self, file: &Raw) -> (&[u8], &[u8]) {
        let (dir, name) = self.path(file).split_at(at(file.slash));
        (dir, &name[1..])
    }

    /// `/bin` and its like are links to the directories below `/usr`, so that both spellings of a path are one file.
    ///
    /// The files themselves decide: one that has a digest in a top directory, and is not the same below `/usr`, is really there.
    /// (What has no digest there may be a link.) Package databases cannot tell, for dpkg records `/bin/bash` on either system; where
    /// only they name such paths, it counts at which of the two the files are listed, and that both being one contradicts nothing.
    fn merged_usr(&self) -> bool {
        type Paths<'a> = HashMap<&'a [u8], Digests>;
        let (mut there, mut recorded) = (Paths::default(), Paths::default());
        for file in self.files.iter().filter(|file| file.digests != Digests::default()) {
            let path = self.path(file);
            if merges_into_usr(path) {
                let paths = if file.recorded { &mut recorded } else { &mut there };
                paths.insert(path, file.digests);
            }
        }
        let (mut at_top, mut below_usr, mut contradicted) = (0, 0, false);
        for file in &self.files {
            let path = self.path(file);
            let Some(below) = path.strip_prefix(b"/usr") else {
                at_top += u64::from(!file.recorded && recorded.contains_key(path));
                continue;
            };
            if there.get(below).is_some_and(|top| file.recorded || unite(*top, file.digests).is_some()) {
                there.remove(below);
            }
            if let Some(top) = recorded.get(below) {
                below_usr += u64::from(!file.recorded);
                contradicted |= file.recorded && unite(*top, file.digests).is_none();
            }
        }
        there.is_empty() && (below_usr > at_top || at_top == 0 && !contradicted)
    }

    /// Sorts and packs.
    ///
    /// # Errors
    /// One path has two different digests.
    pub fn finish(mut self) -> Result<ImageIndex, SbomError> {
        let merged_usr = self.merged_usr();
        if merged_usr {
            self.move_into_usr()?;
        }
        let order = order::by_path(self.files.iter().map(|file| self.parts(file)));
        let files = self.merge_equal_paths(&order)?;
        let mut index = ImageIndex {
            merged_usr,
            created: self.created,
            numbers: Numbers {
                files: files.len() as u64,
                packages: self.packages.len() as u64,
                complete: self.complete,
                unusable: self.unusable,
                kinds: self.kinds,
                ..Numbers::default()
            },
            ..ImageIndex::default()
        };
        self.pack_names(&files, &mut index);
        pack_digests(&files, &mut index);
        self.formats.dedup();
        index.numbers.owned = files.iter().filter(|file| file.package != NO_PACKAGE).count() as u64;
        index.package = files.iter().map(|f| f.package).collect();
        index.contents = contents(self.contents);
        index.numbers.contents = index.contents.len() as u64;
        index.packages = self.packages.packed();
        index.origin = self.origin;
        index.tool = self.tool;
        index.formats = self.formats;
        Ok(index)
    }

    fn pack_names(&self, files: &[Raw], index: &mut ImageIndex) {
        let (mut dir_bytes, mut dir_ends, mut dir_files) = (Vec::new(), Vec::new(), Vec::new());
        let (mut name_bytes, mut name_ends) = (Vec::new(), Vec::with_capacity(files.len()));
        // Paths have 32-bit offsets already, and there are no more files than bytes of paths.
        let end = |bytes: &Vec<u8>| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let mut last: Option<&[u8]> = None;
        for (id, file) in (0..).zip(files) {
            let (dir, name) = self.parts(file);
            if last != Some(dir) {
                dir_bytes.extend_from_slice(dir);
                dir_ends.push(end(&dir_bytes));
                dir_files.push(id);
                last = Some(dir);
            }
            name_bytes.extend_from_slice(name);
            name_ends.push(end(&name_bytes));
        }
        dir_files.push(u32::try_from(files.len()).unwrap_or(u32::MAX));
        index.dir_bytes = dir_bytes.into();
        index.dir_ends = dir_ends.into();
        index.dir_files = dir_files.into();
        index.name_bytes = name_bytes.into();
        index.name_ends = name_ends.into();
    }

    fn move_into_usr(&mut self) -> Result<(), SbomError> {
        for n in 0..self.files.len() {
            let path = self.path(&self.files[n]);
            if merges_into_usr(path) {
                let merged = [b"/usr", path].concat();
                let Raw { package, digests, recorded, layer, .. } = self.files[n];
                let moved = self.file(&merged, digests)?;
                let moved = self.files.swap_remove(at(moved));
                self.files[n] = Raw { package, recorded, layer, ..moved };
            }
        }
        Ok(())
    }

    /// The sorted files with one entry per path: what one listing leaves out, another may have.
    fn merge_equal_paths(&mut self, order: &[Keyed]) -> Result<Vec<Raw>, SbomError> {
        let mut out: Vec<Raw> = Vec::with_capacity(self.files.len());
        let mut unusable = 0;
        let file = |keyed: &Keyed| &self.files[at(keyed.file)];
        for same in order.chunk_by(|a, b| a.may_equal(b) && self.path(file(a)) == self.path(file(b))) {
            let group = same.iter().map(file);
            let Some(mut file) = group.clone().next().copied() else { continue };
            if same.len() == 1 {
                out.push(file);
                continue;
            }
            // Of a path that several layers have, the image shows the last.
            let last = self.layers.last(group.clone().filter(|f| !f.recorded).map(|f| f.layer));
            let shown = |f: &&Raw| !f.recorded && last.is_none_or(|last| f.layer == last);
            let computed = group.clone().filter(shown).map(|f| f.digests);
            let computed =
                computed.clone().try_fold(Digests::default(), unite).ok_or_else(|| SbomError::File {
                    path: String::from_utf8_lossy(self.path(&file)).into_owned(),
                    reason: "listed twice with different digests".to_owned(),
                    position: None,
                })?;
            file.recorded = computed == Digests::default();
            file.digests = computed;
            if file.recorded {
                let (agreed, contradicted) = agree(group.clone().filter(|f| f.recorded).map(|f| f.digests));
                file.digests = agreed;
                file.recorded = agreed != Digests::default();
                unusable += u64::from(contradicted);
            }
            // Who contains the file by the document itself counts before whose metadata names it.
            let owned = |recorded: bool| {
                group.clone().filter(move |f| f.recorded == recorded && f.package != NO_PACKAGE)
            };
            file.package = owned(false).chain(owned(true)).next().map_or(NO_PACKAGE, |f| f.package);
            out.push(file);
        }
        self.unusable += unusable;
        Ok(out)
    }
}

/// Sorted and each once, without the content of empty files.
fn contents(mut all: Vec<Sha256>) -> Box<[Sha256]> {
    all.sort_unstable();
    all.dedup();
    all.retain(|sha256| *sha256 != Sha256::EMPTY);
    all.into()
}

fn pack_digests(files: &[Raw], index: &mut ImageIndex) {
    let known = (0..).zip(files).filter_map(|(id, file)| Some((id, file.digests.sha256?)));
    let by_sha256 = order::by_sha256(known, |id| files[at(id)].digests.sha256.unwrap_or_default());
    let mut distinct: Vec<Sha256> = Vec::with_capacity(by_sha256.len());
    let mut sha256 = vec![NO_DIGEST; files.len()];
    let mut next = 0;
    for Keyed { file, .. } in &by_sha256 {
        let Some(digest) = files[at(*file)].digests.sha256 else { continue };
        if distinct.last() != Some(&digest) {
            distinct.push(digest);
            next += 1;
        }
        sha256[at(*file)] = next - 1;
    }
    let weak = || (0..).zip(files).filter(|(_, file)| file.digests.sha256.is_none());
    index.numbers.with_sha256 = by_sha256.len() as u64;
    index.numbers.with_weak = weak().filter(|(_, file)| file.digests != Digests::default()).count() as u64;
    index.sha1 = weak().filter_map(|(id, file)| Some((id, file.digests.sha1?))).collect();
    index.md5 = weak().filter_map(|(id, file)| Some((id, file.digests.md5?))).collect();
    index.recorded = (0..).zip(files).filter(|(_, file)| file.recorded).map(|(id, _)| id).collect();
    index.numbers.recorded = index.recorded.len() as u64;
    index.digests = DigestTable::new(distinct);
    index.sha256 = sha256.into();
    index.by_sha256 = by_sha256.iter().map(|keyed| keyed.file).collect();
    // What is said of a content names the file that a package owns before a copy that somebody made of it.
    for same in index.by_sha256.chunk_by_mut(|a, b| index.sha256[at(*a)] == index.sha256[at(*b)]) {
        same.sort_unstable_by_key(|file| (files[at(*file)].package == NO_PACKAGE, *file));
    }
}

/// Two listings of one file; `None` when they cannot both be true.
fn unite(a: Digests, b: Digests) -> Option<Digests> {
    fn one<T: PartialEq + Copy>(a: Option<T>, b: Option<T>) -> Option<Option<T>> {
        match (a, b) {
            (Some(a), Some(b)) if a != b => None,
            _ => Some(a.or(b)),
        }
    }
    // A SHA-256 decides alone: weak digests come from package metadata, which may be of another time.
    let sha256 = one(a.sha256, b.sha256)?;
    if sha256.is_some() {
        return Some(Digests { sha256, ..Digests::default() });
    }
    Some(Digests { sha256, sha1: one(a.sha1, b.sha1)?, md5: one(a.md5, b.md5)? })
}

/// What several packages record of one file, without that on which they disagree (dpkg keeps the digest of a file that another
/// package has taken over); and whether they do.
fn agree(all: impl Iterator<Item = Digests> + Clone) -> (Digests, bool) {
    fn one<T: PartialEq>(values: impl Iterator<Item = Option<T>>, contradicted: &mut bool) -> Option<T> {
        let mut values = values.flatten();
        let first = values.next()?;
        let same = values.all(|value| value == first);
        *contradicted |= !same;
        same.then_some(first)
    }
    let mut contradicted = false;
    let sha256 = one(all.clone().map(|d| d.sha256), &mut contradicted);
    let sha1 = one(all.clone().map(|d| d.sha1), &mut contradicted);
    let md5 = one(all.map(|d| d.md5), &mut contradicted);
    let agreed = match (contradicted, sha256) {
        // The weaker ones are of the same files.
        (true, None) => Digests::default(),
        (_, Some(_)) => Digests { sha256, ..Digests::default() },
        (false, None) => Digests { sha256, sha1, md5 },
    };
    (agreed, contradicted)
}
