//! One image's files and packages: compact, immutable, searched by path and by digest.
//!
//! Files are sorted by directory and name. A path is found by two binary searches (directory, then name within it), a digest by one
//! over the distinct digests and one over a permutation of the files that have one. Directories and digests are stored once, so a
//! file costs its name and sixteen bytes, and each distinct content 32.
//!
//! Digests are not shared between the indexes of different images. That was measured (`cargo run --release --example bench_sbom`
//! prints it): images of one node do share contents, but a store for all of them has to be searched, counted and locked, and
//! costs each distinct digest its slot and its count. What remains is in `docs/ARCHITECTURE.md`.

use std::time::SystemTime;

use smallvec::SmallVec;

use super::digests::{DigestPool, DigestTable};
use super::packages::Packages;
use super::path::{canonical, merges_into_usr};
use super::{Builder, Digests, Format, Numbers, Origin, Package, SbomError};
use crate::event::FilePath;
use crate::finding::{Coverage, Sha256};

/// The package of a file that none owns.
pub(super) const NO_PACKAGE: u32 = u32::MAX;
/// The digest of a file that has none.
pub(super) const NO_DIGEST: u32 = u32::MAX;

/// Everything that the accepted documents of one image say.
#[derive(Debug, Default)]
pub struct ImageIndex {
    /// Directory paths, one after the other; `/` is the empty text.
    pub(super) dir_bytes: Box<[u8]>,
    /// End of each directory in `dir_bytes`, sorted by path.
    pub(super) dir_ends: Box<[u32]>,
    /// First file of each directory, and at the end the number of files.
    pub(super) dir_files: Box<[u32]>,
    pub(super) name_bytes: Box<[u8]>,
    /// End of each file's name in `name_bytes`.
    pub(super) name_ends: Box<[u32]>,
    /// Every distinct SHA-256.
    pub(super) digests: DigestTable,
    /// Place of each file's SHA-256 in `digests`.
    pub(super) sha256: Box<[u32]>,
    /// Files that have a SHA-256, sorted by its place.
    pub(super) by_sha256: Box<[u32]>,
    /// SHA-1 of files without a SHA-256, sorted by file.
    pub(super) sha1: Box<[(u32, [u8; 20])]>,
    /// MD5 of files without a SHA-256, sorted by file.
    pub(super) md5: Box<[(u32, [u8; 16])]>,
    /// Files whose digests were repeated from package metadata, sorted.
    pub(super) recorded: Box<[u32]>,
    /// Package of each file.
    pub(super) package: Box<[u32]>,
    /// SHA-256 of contents for which the documents have no path, sorted.
    pub(super) contents: Box<[Sha256]>,
    pub(super) packages: Packages,
    pub(super) origin: Origin,
    pub(super) tool: Option<Box<str>>,
    pub(super) merged_usr: bool,
    pub(super) created: Option<SystemTime>,
    pub(super) formats: Vec<Format>,
    pub(super) numbers: Numbers,
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
        self.index.digests.get(self.index.sha256[at(self.id)])
    }
    /// Its weak digests; only kept for files without a SHA-256.
    pub fn weak(self) -> Option<Digests> {
        let (sha1, md5) = (of_file(&self.index.sha1, self.id), of_file(&self.index.md5, self.id));
        (sha1.is_some() || md5.is_some()).then_some(Digests { sha256: None, sha1, md5 })
    }
    /// Its digests were not computed from the file, but repeated from what its package's database records.
    pub fn is_recorded(self) -> bool {
        self.index.recorded.binary_search(&self.id).is_ok()
    }
    /// Name and version of the package that owns it.
    pub fn package(self) -> Option<&'a str> {
        self.index.packages.label(self.index.package[at(self.id)])
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

pub(super) fn at(id: u32) -> usize {
    usize::try_from(id).expect("a target with at least 32-bit addresses")
}

fn of_file<T: Copy>(sorted: &[(u32, T)], file: u32) -> Option<T> {
    sorted.binary_search_by_key(&file, |(id, _)| *id).ok().map(|found| sorted[found].1)
}

fn start(ends: &[u32], n: usize) -> usize {
    n.checked_sub(1).map_or(0, |before| at(ends[before]))
}

pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
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
        self.name_ends.len()
    }

    /// No file is listed.
    pub fn is_empty(&self) -> bool {
        self.name_ends.is_empty()
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

    /// A file is listed somewhere below this directory, in any spelling of it.
    pub fn has_below(&self, directory: &[u8]) -> bool {
        let Ok(directory) = canonical(directory) else { return false };
        let mut below: SmallVec<[u8; 256]> = SmallVec::new();
        below.extend_from_slice(&directory);
        below.push(b'/');
        // `/bin` itself may be the link.
        if self.merged_usr && merges_into_usr(&[&below, &b"x"[..]].concat()) {
            below.insert_from_slice(0, b"/usr");
        }
        let is_in = |wanted: &[u8], fits: fn(&[u8], &[u8]) -> bool| {
            let first = self.first_dir(wanted);
            first < self.dir_ends.len() && fits(self.dir(first), wanted)
        };
        is_in(&below[..below.len() - 1], |dir, wanted| dir == wanted)
            || is_in(&below, |dir, wanted| dir.starts_with(wanted))
    }

    /// The first directory that is not before `wanted`.
    fn first_dir(&self, wanted: &[u8]) -> usize {
        let (mut low, mut high) = (0, self.dir_ends.len());
        while low < high {
            let middle = low.midpoint(high);
            if self.dir(middle) < wanted {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Every file with this content: those that a package owns first, each by path. None for the content of empty files, which says
    /// nothing of where a file is from.
    pub fn by_sha256(&self, sha256: &Sha256) -> impl Iterator<Item = Entry<'_>> {
        // Of a digest that is nowhere, the list starts at its end.
        let wanted = Some(sha256).filter(|sha256| **sha256 != Sha256::EMPTY);
        let wanted = wanted.and_then(|sha256| self.digests.place(sha256));
        let place = |id: &u32| self.sha256[at(*id)];
        let first = wanted
            .map_or(self.by_sha256.len(), |wanted| self.by_sha256.partition_point(|id| place(id) < wanted));
        self.by_sha256[first..]
            .iter()
            .take_while(move |id| Some(self.sha256[at(**id)]) == wanted)
            .map(|id| Entry { index: self, id: *id })
    }

    /// The documents have this content, but say of no path that it is there.
    pub fn has_content(&self, sha256: &Sha256) -> bool {
        self.contents.binary_search(sha256).is_ok()
    }

    /// Every file, by path.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        (0..u32::try_from(self.len()).unwrap_or(u32::MAX)).map(|id| Entry { index: self, id })
    }

    /// How much of the image it can answer for.
    pub fn coverage(&self) -> Coverage {
        self.numbers.coverage()
    }

    /// The numbers behind the coverage.
    pub fn numbers(&self) -> Numbers {
        self.numbers
    }

    /// Every package that the documents name.
    pub fn packages(&self) -> impl Iterator<Item = Package<'_>> {
        self.packages.iter()
    }

    /// The image that the documents say they were made from.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The tool that made the (first) document, as it says.
    pub fn tool(&self) -> Option<&str> {
        self.tool.as_deref()
    }

    /// When the (newest) document says that it was made.
    pub fn created(&self) -> Option<SystemTime> {
        self.created
    }

    /// Of a document that says it was made later than this, this is when it was made.
    pub fn not_after(&mut self, latest: SystemTime) {
        self.created = self.created.map(|created| created.min(latest));
    }

    /// Formats of the documents.
    pub fn formats(&self) -> &[Format] {
        &self.formats
    }

    /// Takes the digests that other indexes have as well from them, and gives them the others.
    pub fn share(&mut self, pool: &DigestPool) {
        let Some(shared) = self.digests.shared(pool) else { return };
        for place in &mut self.sha256 {
            let digest = self.digests.get(*place);
            *place = digest.and_then(|digest| shared.place(&digest)).unwrap_or(NO_DIGEST);
        }
        self.by_sha256.sort_by_key(|id| self.sha256[at(*id)]);
        self.digests = shared;
    }

    /// Bytes on the heap; of digests that n indexes share, each has the n-th part.
    pub fn heap_bytes(&self) -> usize {
        // Exhaustive, so that a new field is counted, too.
        let Self {
            dir_bytes,
            dir_ends,
            dir_files,
            name_bytes,
            name_ends,
            digests,
            sha256,
            by_sha256,
            sha1,
            md5,
            recorded,
            package,
            contents,
            packages,
            origin,
            tool,
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
            + digests.heap_bytes()
            + size_of_val::<[u32]>(sha256)
            + size_of_val::<[u32]>(by_sha256)
            + size_of_val::<[(u32, [u8; 20])]>(sha1)
            + size_of_val::<[(u32, [u8; 16])]>(md5)
            + size_of_val::<[u32]>(recorded)
            + size_of_val::<[u32]>(package)
            + size_of_val::<[Sha256]>(contents)
            + packages.heap_bytes()
            + size_of_val::<[Sha256]>(&origin.layers)
            + tool.as_ref().map_or(0, |tool| tool.len())
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
            for package in part.packages() {
                all.package(&package);
            }
            all.origin.unite(&part.origin);
            all.tool = all.tool.or_else(|| part.tool.clone());
            for entry in part.entries() {
                all.entry(entry, part.package[at(entry.id)].checked_add(offset))?;
            }
            all.formats.extend(&part.formats);
            all.created = all.created.max(part.created);
            all.complete |= part.numbers.complete;
            all.unusable += part.numbers.unusable;
            all.contents.extend(&part.contents);
            all.kinds.add(&part.numbers.kinds);
        }
        all.finish()
    }
}

/// Binary search in a sorted list of `count` things that are compared by number.
pub(crate) fn search(count: usize, compare: impl Fn(usize) -> std::cmp::Ordering) -> Option<usize> {
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
