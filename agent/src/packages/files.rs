//! Path → package and digest: compact, immutable, searched by path.
//!
//! Files are sorted by directory and name, directories are stored once, and digests of each kind lie in an array of their
//! own: a file costs its name, its digest and 12 bytes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{Installed, Kind, Position, Problem};
use crate::event::{Owner, PackageDigest};
use crate::finding::Sha256;
use crate::sbom::{canonical, merges_into_usr, search};

/// Problems that are kept word by word.
const PROBLEMS: usize = 32;
/// The upper bits of a digest's number say of which kind it is.
const KIND_SHIFT: u32 = 30;
const NUMBER: u32 = (1 << KIND_SHIFT) - 1;

/// The files that packages own.
#[derive(Debug, Default)]
pub struct PackageFiles {
    /// Directory paths, one after the other; `/` is the empty text.
    dir_bytes: Box<[u8]>,
    dir_ends: Box<[u32]>,
    /// First file of each directory, and at the end the number of files.
    dir_files: Box<[u32]>,
    name_bytes: Box<[u8]>,
    name_ends: Box<[u32]>,
    packages: Box<[Arc<str>]>,
    /// Package of each file.
    owners: Box<[u32]>,
    /// Kind and number of each file's digest; zero when there is none.
    digests: Box<[u32]>,
    md5: Box<[[u8; 16]]>,
    sha1: Box<[[u8; 20]]>,
    sha256: Box<[Sha256]>,
    links: Vec<&'static str>,
    problems: Vec<Problem>,
    more_problems: u64,
}

impl PackageFiles {
    /// Who owns the file at a path, in any spelling.
    pub fn owner(&self, path: &[u8]) -> Option<Owner> {
        let path = canonical(path).ok()?;
        let path = merged(&path, &self.links);
        let (dir, name) = split(&path);
        let dir = search(self.dir_ends.len(), |n| slice(&self.dir_bytes, &self.dir_ends, n).cmp(dir))?;
        let (first, end) = (at(self.dir_files[dir]), at(self.dir_files[dir + 1]));
        let found =
            first + search(end - first, |n| slice(&self.name_bytes, &self.name_ends, first + n).cmp(name))?;
        let package = self.packages.get(at(self.owners[found]))?;
        Some(Owner { package: Arc::clone(package), digest: self.digest(self.digests[found]) })
    }

    fn digest(&self, packed: u32) -> Option<PackageDigest> {
        let number = at(packed & NUMBER);
        match packed >> KIND_SHIFT {
            1 => self.md5.get(number).map(|d| PackageDigest::Md5(*d)),
            2 => self.sha1.get(number).map(|d| PackageDigest::Sha1(*d)),
            3 => self.sha256.get(number).map(|d| PackageDigest::Sha256(*d)),
            _ => None,
        }
    }

    /// Files.
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// No package owns anything.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Packages that own something.
    pub fn packages(&self) -> &[Arc<str>] {
        &self.packages
    }

    /// Parts of the databases that do not count: the first ones, and how many more there are.
    pub fn problems(&self) -> (&[Problem], u64) {
        (&self.problems, self.more_problems)
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        let text = |texts: &[Arc<str>]| texts.iter().map(|t| t.len() + 16).sum::<usize>();
        size_of_val::<[u8]>(&self.dir_bytes)
            + size_of_val::<[u32]>(&self.dir_ends)
            + size_of_val::<[u32]>(&self.dir_files)
            + size_of_val::<[u8]>(&self.name_bytes)
            + size_of_val::<[u32]>(&self.name_ends)
            + size_of_val::<[Arc<str>]>(&self.packages)
            + text(&self.packages)
            + size_of_val::<[u32]>(&self.owners)
            + size_of_val::<[u32]>(&self.digests)
            + size_of_val::<[[u8; 16]]>(&self.md5)
            + size_of_val::<[[u8; 20]]>(&self.sha1)
            + size_of_val::<[Sha256]>(&self.sha256)
    }
}

fn at(number: u32) -> usize {
    usize::try_from(number).expect("a target with at least 32-bit addresses")
}

fn slice<'a>(bytes: &'a [u8], ends: &[u32], n: usize) -> &'a [u8] {
    let start = n.checked_sub(1).map_or(0, |before| at(ends[before]));
    &bytes[start..at(ends[n])]
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let slash = memchr::memrchr(b'/', path).unwrap_or(0);
    (&path[..slash], &path[(slash + 1).min(path.len())..])
}

/// `/bin/sh` is `/usr/bin/sh` where `/bin` is a link.
fn merged<'a>(path: &'a [u8], links: &[&str]) -> std::borrow::Cow<'a, [u8]> {
    let is_link = |top: &&str| path[1..].strip_prefix(top.as_bytes()).is_some_and(|r| r.starts_with(b"/"));
    if merges_into_usr(path) && links.iter().any(is_link) {
        [b"/usr", path].concat().into()
    } else {
        path.into()
    }
}

/// All packages, with and without files, and who owns what.
#[derive(Debug)]
pub struct Owners {
    /// The packages, in the order of their databases.
    pub packages: Vec<Installed>,
    owners: HashMap<Box<[u8]>, u32>,
    problems: Vec<Problem>,
    more_problems: u64,
}

impl Owners {
    /// Number of the package that owns the file at a canonical path.
    pub fn owner(&self, path: &[u8]) -> Option<u32> {
        self.owners.get(path).copied()
    }

    /// As [`PackageFiles::problems`].
    pub fn problems(&self) -> (&[Problem], u64) {
        (&self.problems, self.more_problems)
    }
}

#[derive(Clone, Copy)]
struct Raw {
    start: u32,
    len: u32,
    slash: u32,
    package: u32,
    digest: Option<PackageDigest>,
}

/// [`PackageFiles`] in the making.
#[derive(Default)]
pub struct Builder {
    bytes: Vec<u8>,
    files: Vec<Raw>,
    packages: Vec<Installed>,
    links: Vec<&'static str>,
    /// Set: who owns what is wanted, not what digests the databases have.
    owners: Option<HashMap<Box<[u8]>, u32>>,
    /// Only these paths are kept.
    only: Option<HashSet<Box<[u8]>>>,
    max_paths: usize,
    problems: Vec<Problem>,
    more_problems: u64,
}

impl Builder {
    /// For a root in which these top directories are links into `/usr`. `only`: other paths are not asked for.
    pub fn new(links: Vec<&'static str>, only: Option<HashSet<Box<[u8]>>>, max_paths: usize) -> Self {
        Self { links, only, max_paths, ..Self::default() }
    }

    /// For owners alone: of several packages the first owns a file, whatever the digests.
    pub fn of_owners(links: Vec<&'static str>, max_paths: usize) -> Self {
        Self { owners: Some(HashMap::new()), ..Self::new(links, None, max_paths) }
    }

    /// Adds a package.
    pub fn package(&mut self, kind: Kind, name: &str, version: &str, architecture: &str) -> u32 {
        let [name, version, architecture] = [name, version, architecture].map(Box::from);
        self.packages.push(Installed { kind, name, version, architecture });
        u32::try_from(self.packages.len() - 1).unwrap_or(u32::MAX)
    }

    /// Adds a file that a package owns.
    ///
    /// # Errors
    /// What is wrong with the path, or that there are too many.
    pub fn file(&mut self, package: u32, path: &[u8], digest: Option<PackageDigest>) -> Result<(), String> {
        if self.files.len().max(self.owners.as_ref().map_or(0, HashMap::len)) >= self.max_paths {
            return Err(format!("more than {} paths, which no real database has", self.max_paths));
        }
        let path = canonical(path).map_err(|e| format!("{e}: {}", super::shown(path)))?;
        let path = merged(&path, &self.links);
        if self.only.as_ref().is_some_and(|only| !only.contains(&*path)) {
            return Ok(());
        }
        if let Some(owners) = &mut self.owners {
            owners.entry(path.as_ref().into()).or_insert(package);
            return Ok(());
        }
        let (start, slash) = (self.bytes.len(), split(&path).0.len());
        let (Ok(start), Ok(len), Ok(slash), Ok(_)) = (
            u32::try_from(start),
            u32::try_from(path.len()),
            u32::try_from(slash),
            u32::try_from(start + path.len()),
        ) else {
            return Err("more than 4 GiB of paths".to_owned());
        };
        self.bytes.extend_from_slice(&path);
        self.files.push(Raw { start, len, slash, package, digest });
        Ok(())
    }

    /// Part of a database does not count.
    pub fn problem(&mut self, file: &str, position: Position, reason: String) {
        if self.problems.len() >= PROBLEMS {
            self.more_problems += 1;
            return;
        }
        self.problems.push(Problem { file: format!("/{file}"), position, reason });
    }

    fn path(&self, raw: &Raw) -> &[u8] {
        &self.bytes[at(raw.start)..at(raw.start) + at(raw.len)]
    }

    /// A package owns this file. Told only when it is owners that are asked for.
    pub(super) fn is_owned(&self, path: &str) -> bool {
        self.owners.as_ref().is_some_and(|owners| owners.contains_key(path.as_bytes()))
    }

    /// Who owns what, of one that was made [`of_owners`](Self::of_owners).
    pub fn owners(self) -> Owners {
        let Self { packages, owners, problems, more_problems, .. } = self;
        Owners { packages, owners: owners.unwrap_or_default(), problems, more_problems }
    }

    /// Sorts it all. A path that two databases own keeps its strongest digest; if two of that strength differ, nothing is
    /// known of it.
    pub fn finish(mut self) -> PackageFiles {
        let mut files = std::mem::take(&mut self.files);
        let key = |raw: &Raw| {
            let path = &self.bytes[at(raw.start)..at(raw.start) + at(raw.len)];
            path.split_at(at(raw.slash))
        };
        // The strongest digest of a path first.
        files.sort_unstable_by(|a, b| {
            key(a).cmp(&key(b)).then(strength(b).cmp(&strength(a))).then(a.package.cmp(&b.package))
        });
        let dirs: HashSet<&[u8]> = files.iter().map(|raw| key(raw).0).collect();
        let mut kept: Vec<Raw> = Vec::with_capacity(files.len());
        let mut disputed = Vec::new();
        for raw in &files {
            // Lists name directories as well.
            if raw.digest.is_none() && dirs.contains(self.path(raw)) {
                continue;
            }
            match kept.last() {
                Some(last) if self.path(last) == self.path(raw) => {
                    if strength(last) == strength(raw) && last.digest != raw.digest {
                        disputed.push(kept.len() - 1);
                    }
                }
                _ => kept.push(*raw),
            }
        }
        drop(dirs);
        disputed.dedup();
        for n in disputed.iter().rev() {
            let raw = kept.remove(*n);
            let path = String::from_utf8_lossy(self.path(&raw)).into_owned();
            let reason = "two packages own this file and have different digests of it".to_owned();
            self.problem(path.trim_start_matches('/'), Position::File, reason);
        }
        self.pack(&kept)
    }

    fn pack(self, files: &[Raw]) -> PackageFiles {
        let mut out = Packing::default();
        let mut numbers: HashMap<u32, u32> = HashMap::new();
        let mut packages = Vec::new();
        for (n, raw) in files.iter().enumerate() {
            let path = self.path(raw);
            let (dir, name) = split(path);
            let last = out.dir_ends.len().checked_sub(1).map(|n| slice(&out.dir_bytes, &out.dir_ends, n));
            if last != Some(dir) {
                out.dir_bytes.extend_from_slice(dir);
                out.dir_ends.push(number(out.dir_bytes.len()));
                out.dir_files.push(number(n));
            }
            out.name_bytes.extend_from_slice(name);
            out.name_ends.push(number(out.name_bytes.len()));
            let next = number(packages.len());
            let package = *numbers.entry(raw.package).or_insert(next);
            if package == next
                && let Some(Installed { name, version, .. }) = self.packages.get(at(raw.package))
            {
                packages.push(format!("{name} {version}").into());
            }
            out.owners.push(package);
            out.digests.push(match raw.digest {
                None => 0,
                Some(PackageDigest::Md5(digest)) => put(&mut out.md5, digest, 1),
                Some(PackageDigest::Sha1(digest)) => put(&mut out.sha1, digest, 2),
                Some(PackageDigest::Sha256(digest)) => put(&mut out.sha256, digest, 3),
            });
        }
        out.dir_files.push(number(files.len()));
        PackageFiles {
            dir_bytes: out.dir_bytes.into(),
            dir_ends: out.dir_ends.into(),
            dir_files: out.dir_files.into(),
            name_bytes: out.name_bytes.into(),
            name_ends: out.name_ends.into(),
            packages: packages.into(),
            owners: out.owners.into(),
            digests: out.digests.into(),
            md5: out.md5.into(),
            sha1: out.sha1.into(),
            sha256: out.sha256.into(),
            links: self.links,
            problems: self.problems,
            more_problems: self.more_problems,
        }
    }
}

#[derive(Default)]
struct Packing {
    dir_bytes: Vec<u8>,
    dir_ends: Vec<u32>,
    dir_files: Vec<u32>,
    name_bytes: Vec<u8>,
    name_ends: Vec<u32>,
    owners: Vec<u32>,
    digests: Vec<u32>,
    md5: Vec<[u8; 16]>,
    sha1: Vec<[u8; 20]>,
    sha256: Vec<Sha256>,
}

fn put<T>(to: &mut Vec<T>, digest: T, kind: u32) -> u32 {
    to.push(digest);
    kind << KIND_SHIFT | number(to.len() - 1) & NUMBER
}

/// Offsets fit: [`Builder::file`] refuses more than 4 GiB, and each path adds no more than its own length.
fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn strength(raw: &Raw) -> u8 {
    match raw.digest {
        None => 0,
        Some(PackageDigest::Md5(_)) => 1,
        Some(PackageDigest::Sha1(_)) => 2,
        Some(PackageDigest::Sha256(_)) => 3,
    }
}
