//! One image's files and packages: compact, immutable, searched by path and by digest.
//!
//! Files are sorted by directory and name. A path is found by two binary searches (directory, then name within it), a digest by one
//! over a permutation of the files that have one. Directories are stored once, so a file costs its name, its digest and about
//! fifteen bytes.

use std::time::SystemTime;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::path::{canonical, merges_into_usr};
use super::{Digests, Format, Numbers, SbomError};
use crate::event::FilePath;
use crate::finding::{Coverage, Sha256};

const NO_PACKAGE: u32 = u32::MAX;

/// Everything that the accepted documents of one image say.
#[derive(Debug, Default)]
pub struct ImageIndex {
    /// Directory paths, one after the other; `/` is the empty text.
    dir_bytes: Box<[u8]>,
    /// End of each directory in `dir_bytes`, sorted by path.
    dir_ends: Box<[u32]>,
    /// First file of each directory, and at the end the number of files.
    dir_files: Box<[u32]>,
    name_bytes: Box<[u8]>,
    /// End of each file's name in `name_bytes`.
    name_ends: Box<[u32]>,
    /// SHA-256 of each file; zero when unknown.
    sha256: Box<[Sha256]>,
    /// Files that have a SHA-256, sorted by it.
    by_sha256: Box<[u32]>,
    /// Weak digests of files without a SHA-256, sorted by file.
    weak: Box<[(u32, Digests)]>,
    /// Package of each file.
    package: Box<[u32]>,
    packages: Box<[Box<str>]>,
    merged_usr: bool,
    created: Option<SystemTime>,
    formats: Vec<Format>,
    numbers: Numbers,
}

/// One file of the SBOM.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    index: &'a ImageIndex,
    id: u32,
}

impl<'a> Entry<'a> {
    /// Dense number of the file, below [`ImageIndex::len`].
    pub fn id(self) -> u32 {
        self.id
    }
    /// SHA-256 of its content.
    pub fn sha256(self) -> Option<Sha256> {
        Some(self.index.sha256[at(self.id)]).filter(|s| !s.is_zero())
    }
    /// Its weak digests; only kept for files without a SHA-256.
    pub fn weak(self) -> Option<Digests> {
        let weak = &self.index.weak;
        weak.binary_search_by_key(&self.id, |(id, _)| *id).ok().map(|found| weak[found].1)
    }
    /// Name and version of the package that owns it.
    pub fn package(self) -> Option<&'a str> {
        self.index.packages.get(at(self.index.package[at(self.id)])).map(|p| &**p)
    }
    /// Its canonical path.
    pub fn path(self) -> FilePath {
        let dir = self.index.dir_files.partition_point(|first| *first <= self.id) - 1;
        let mut path = SmallVec::from_slice(self.index.dir(dir));
        path.push(b'/');
        path.extend_from_slice(self.index.name(at(self.id)));
        FilePath(path)
    }
}

impl std::fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{} {} {:?}", self.id, self.path(), self.sha256())
    }
}

fn at(id: u32) -> usize {
    usize::try_from(id).expect("a target with at least 32-bit addresses")
}

fn start(ends: &[u32], n: usize) -> usize {
    n.checked_sub(1).map_or(0, |before| at(ends[before]))
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let slash = memchr::memrchr(b'/', path).unwrap_or(0);
    (&path[..slash], &path[(slash + 1).min(path.len())..])
}

impl ImageIndex {
    fn dir(&self, n: usize) -> &[u8] {
        &self.dir_bytes[start(&self.dir_ends, n)..at(self.dir_ends[n])]
    }

    fn name(&self, n: usize) -> &[u8] {
        &self.name_bytes[start(&self.name_ends, n)..at(self.name_ends[n])]
    }

    /// Number of files.
    pub fn len(&self) -> usize {
        self.sha256.len()
    }

    /// No file is listed.
    pub fn is_empty(&self) -> bool {
        self.sha256.is_empty()
    }

    /// The file of the given number.
    pub fn entry(&self, id: u32) -> Option<Entry<'_>> {
        (at(id) < self.len()).then_some(Entry { index: self, id })
    }

    /// The file at a path, in any spelling; a path that cannot be canonical is nowhere.
    pub fn by_path(&self, path: &[u8]) -> Option<Entry<'_>> {
        let path = canonical(path).ok()?;
        if self.merged_usr && merges_into_usr(&path) {
            let mut merged: SmallVec<[u8; 256]> = SmallVec::from_slice(b"/usr");
            merged.extend_from_slice(&path);
            self.exact(&merged)
        } else {
            self.exact(&path)
        }
    }

    fn exact(&self, path: &[u8]) -> Option<Entry<'_>> {
        let (dir, name) = split(path);
        let dir = search(self.dir_ends.len(), |n| self.dir(n).cmp(dir))?;
        let first = at(self.dir_files[dir]);
        let count = at(self.dir_files[dir + 1]) - first;
        let found = first + search(count, |n| self.name(first + n).cmp(name))?;
        Some(Entry { index: self, id: u32::try_from(found).ok()? })
    }

    /// Every file with this content, in no particular order.
    pub fn by_sha256(&self, sha256: &Sha256) -> impl Iterator<Item = Entry<'_>> {
        let first = self.by_sha256.partition_point(|id| self.sha256[at(*id)] < *sha256);
        let wanted = *sha256;
        self.by_sha256[first..]
            .iter()
            .take_while(move |id| self.sha256[at(**id)] == wanted)
            .map(|id| Entry { index: self, id: *id })
    }

    /// Every file, by path.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..u32::try_from(self.len()).unwrap_or(u32::MAX)).map(|id| Entry { index: self, id })
    }

    /// Name and version of every package that is named.
    pub(crate) fn named_packages(&self) -> impl Iterator<Item = (&str, &str)> {
        self.packages.iter().filter_map(|text| text.rsplit_once(' '))
    }

    /// How much of the image it can answer for.
    pub fn coverage(&self) -> Coverage {
        self.numbers.coverage()
    }

    /// The numbers behind the coverage.
    pub fn numbers(&self) -> Numbers {
        self.numbers
    }

    /// When the (newest) document says that it was made.
    pub fn created(&self) -> Option<SystemTime> {
        self.created
    }

    /// Formats of the documents.
    pub fn formats(&self) -> &[Format] {
        &self.formats
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        // Exhaustive, so that a new field is counted, too.
        let Self {
            dir_bytes,
            dir_ends,
            dir_files,
            name_bytes,
            name_ends,
            sha256,
            by_sha256,
            weak,
            package,
            packages,
            merged_usr: _,
            created: _,
            formats,
            numbers: _,
        } = self;
        size_of_val::<[u8]>(dir_bytes)
            + size_of_val::<[u32]>(dir_ends)
            + size_of_val::<[u32]>(dir_files)
            + size_of_val::<[u8]>(name_bytes)
            + size_of_val::<[u32]>(name_ends)
            + size_of_val::<[Sha256]>(sha256)
            + size_of_val::<[u32]>(by_sha256)
            + size_of_val::<[(u32, Digests)]>(weak)
            + size_of_val::<[u32]>(package)
            + size_of_val::<[Box<str>]>(packages)
            + packages.iter().map(|p| p.len()).sum::<usize>()
            + size_of_val::<[Format]>(formats)
    }

    /// All files of several documents of the same image.
    ///
    /// # Errors
    /// Two documents have different digests for one path.
    pub fn union(parts: &[&Self]) -> Result<Self, SbomError> {
        let mut all = Builder::default();
        for part in parts {
            let offset = u32::try_from(all.packages.len()).unwrap_or(NO_PACKAGE);
            all.packages.extend(part.packages.iter().cloned());
            for entry in part.entries() {
                let digests = Digests { sha256: entry.sha256(), ..entry.weak().unwrap_or_default() };
                let file = all.file(entry.path().as_bytes(), digests)?;
                if let Some(package) = part.package[at(entry.id)].checked_add(offset) {
                    all.own(file, package);
                }
            }
            all.formats.extend(&part.formats);
            all.created = all.created.max(part.created);
            all.complete |= part.numbers.complete;
        }
        all.finish()
    }
}

fn search(count: usize, compare: impl Fn(usize) -> std::cmp::Ordering) -> Option<usize> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        match compare(middle) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Some(middle),
        }
    }
    None
}

/// An index in the making.
#[derive(Default)]
pub struct Builder {
    paths: Vec<u8>,
    files: Vec<Raw>,
    packages: Vec<Box<str>>,
    /// Formats of the documents.
    pub formats: Vec<Format>,
    /// When the document was made.
    pub created: Option<SystemTime>,
    /// The document claims to be complete.
    pub complete: bool,
}

#[derive(Clone, Copy)]
struct Raw {
    start: u32,
    len: u32,
    slash: u32,
    package: u32,
    digests: Digests,
}

impl Builder {
    /// Adds a file and returns its number for [`own`](Self::own).
    ///
    /// # Errors
    /// The path cannot be canonical, or the document is too large for 32-bit offsets.
    pub fn file(&mut self, path: &[u8], digests: Digests) -> Result<u32, SbomError> {
        let refuse =
            |reason: String| SbomError::File { path: String::from_utf8_lossy(path).into_owned(), reason };
        let canonical = canonical(path).map_err(|e| refuse(e.to_string()))?;
        self.push(&canonical, digests).ok_or_else(|| refuse("more than 4 GiB of paths".to_owned()))
    }

    fn push(&mut self, path: &[u8], digests: Digests) -> Option<u32> {
        let start = u32::try_from(self.paths.len()).ok()?;
        let len = u32::try_from(path.len()).ok()?;
        u32::try_from(self.paths.len() + path.len()).ok()?;
        let slash = u32::try_from(split(path).0.len()).ok()?;
        self.paths.extend_from_slice(path);
        self.files.push(Raw { start, len, slash, package: NO_PACKAGE, digests });
        u32::try_from(self.files.len() - 1).ok()
    }

    /// Adds a package, by name and version.
    pub fn package(&mut self, name: &str, version: &str) -> u32 {
        let text = if version.is_empty() { name.into() } else { format!("{name} {version}").into() };
        self.packages.push(text);
        u32::try_from(self.packages.len() - 1).unwrap_or(NO_PACKAGE)
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

    /// Files below a top directory that merged-/usr systems have as a link, each of them listed below `/usr`, too, or none at
    /// all: then both spellings are one file.
    fn merged_usr(&self) -> bool {
        let listed = |file: &&Raw| file.digests != Digests::default();
        let mut top: FxHashMap<&[u8], ()> = FxHashMap::default();
        for file in self.files.iter().filter(listed) {
            let path = self.path(file);
            if merges_into_usr(path) {
                top.insert(path, ());
            }
        }
        if top.is_empty() {
            return true;
        }
        for file in self.files.iter().filter(listed) {
            if let Some(below) = self.path(file).strip_prefix(b"/usr") {
                top.remove(below);
            }
        }
        top.is_empty()
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
        let paths = &self.paths;
        let parts = |f: &Raw| {
            let path = &paths[at(f.start)..at(f.start) + at(f.len)];
            path.split_at(at(f.slash))
        };
        self.files.sort_by(|a, b| parts(a).cmp(&parts(b)));
        let files = self.merge_equal_paths()?;
        let count = u32::try_from(files.len()).unwrap_or(u32::MAX);

        let mut index = ImageIndex {
            merged_usr,
            created: self.created,
            numbers: Numbers {
                files: u64::from(count),
                packages: self.packages.len() as u64,
                complete: self.complete,
                ..Numbers::default()
            },
            ..ImageIndex::default()
        };
        let (mut dir_bytes, mut dir_ends, mut dir_files) = (Vec::new(), Vec::new(), Vec::new());
        let (mut name_bytes, mut name_ends) = (Vec::new(), Vec::with_capacity(files.len()));
        let mut weak = Vec::new();
        let end = |bytes: &Vec<u8>| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let mut last: Option<&[u8]> = None;
        for (id, file) in (0..count).zip(&files) {
            let (dir, name) = split(self.path(file));
            if last != Some(dir) {
                dir_bytes.extend_from_slice(dir);
                dir_ends.push(end(&dir_bytes));
                dir_files.push(id);
                last = Some(dir);
            }
            name_bytes.extend_from_slice(name);
            name_ends.push(end(&name_bytes));
            let numbers = &mut index.numbers;
            numbers.owned += u64::from(file.package != NO_PACKAGE);
            if file.digests.sha256.is_some() {
                numbers.with_sha256 += 1;
            } else if file.digests != Digests::default() {
                numbers.with_weak += 1;
                weak.push((id, file.digests));
            }
        }
        dir_files.push(count);
        let sha256: Box<[Sha256]> = files.iter().map(|f| f.digests.sha256.unwrap_or_default()).collect();
        let mut by_sha256: Vec<u32> = (0..count).filter(|id| !sha256[at(*id)].is_zero()).collect();
        by_sha256.sort_unstable_by_key(|id| sha256[at(*id)]);
        self.formats.dedup();
        index.package = files.iter().map(|f| f.package).collect();
        index.dir_bytes = dir_bytes.into();
        index.dir_ends = dir_ends.into();
        index.dir_files = dir_files.into();
        index.name_bytes = name_bytes.into();
        index.name_ends = name_ends.into();
        index.sha256 = sha256;
        index.by_sha256 = by_sha256.into();
        index.weak = weak.into();
        index.packages = self.packages.into();
        index.formats = self.formats;
        Ok(index)
    }

    fn move_into_usr(&mut self) -> Result<(), SbomError> {
        for n in 0..self.files.len() {
            let path = self.path(&self.files[n]);
            if merges_into_usr(path) {
                let merged = [b"/usr", path].concat();
                let Raw { package, digests, .. } = self.files[n];
                let moved = self.file(&merged, digests)?;
                let mut moved = self.files.swap_remove(at(moved));
                moved.package = package;
                self.files[n] = moved;
            }
        }
        Ok(())
    }

    /// The sorted files with one entry per path: what one listing leaves out, another may have.
    fn merge_equal_paths(&self) -> Result<Vec<Raw>, SbomError> {
        let mut out: Vec<Raw> = Vec::with_capacity(self.files.len());
        for file in &self.files {
            match out.last_mut().filter(|last| self.path(last) == self.path(file)) {
                None => out.push(*file),
                Some(last) => {
                    last.digests = unite(last.digests, file.digests).ok_or_else(|| SbomError::File {
                        path: String::from_utf8_lossy(self.path(file)).into_owned(),
                        reason: "listed twice with different digests".to_owned(),
                    })?;
                    if last.package == NO_PACKAGE {
                        last.package = file.package;
                    }
                }
            }
        }
        Ok(out)
    }
}

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
