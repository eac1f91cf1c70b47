//! Layers one over the other (image-spec, layer.md): what a container of the image sees.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use tar::EntryType;

use super::bounded::{Bounded, MAX_HEADERS};
use super::store::Hashed;
use super::unpack::unpack;
use super::{ImageError, Store};
use crate::finding::Sha256;
use crate::packages::Entry;
use crate::sbom::generate::Progress;
use crate::sbom::generate::file::{self, Looked};
use crate::sbom::generate::owners::is_needed;
use crate::sbom::path::{PathError, canonical};

/// What reading an image's layers may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageLimits {
    /// Bytes of all layers, unpacked.
    pub bytes: u64,
    /// Files, directories and links at a time.
    pub entries: usize,
    /// Bytes of their names, and of what links lead to.
    pub names: usize,
    /// Bytes of package databases that are kept.
    pub kept: usize,
    /// Names looked up on the way to files, and entries that whiteouts look at: an image can make each cost many.
    pub steps: u64,
}

impl Default for ImageLimits {
    /// The largest images have some ten GiB and a million files.
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 4_000_000, names: 1 << 30, kept: 512 << 20, steps: 400_000_000 }
    }
}

/// Symbolic links on the way to a file (the kernel's own limit).
const MAX_LINKS: u32 = 40;
/// Bytes of a path (`PATH_MAX`).
const MAX_PATH: usize = 4096;

/// Something at a path.
enum Node {
    Directory {
        layer: usize,
    },
    File {
        layer: usize,
        content: Content,
    },
    Link {
        layer: usize,
        target: Vec<u8>,
    },
    /// Devices, pipes: nothing that could run.
    Other {
        layer: usize,
    },
    /// A file whose content cannot be told.
    Unread {
        layer: usize,
        reason: &'static str,
    },
}

/// A regular file.
#[derive(Clone)]
pub(in crate::sbom::generate) struct Content {
    /// The layer it came with.
    pub(in crate::sbom::generate) layer: usize,
    /// `None`: it cannot run, and not every file was asked for.
    pub(in crate::sbom::generate) looked: Option<Looked>,
    /// It has an execute bit.
    pub(in crate::sbom::generate) executable: bool,
    /// Its bytes, of files that tell which package owns what.
    kept: Option<Rc<Kept>>,
}

/// Bytes that count as long as any link to them is there.
struct Kept {
    bytes: Vec<u8>,
    /// Bytes that are kept in all.
    total: Rc<Cell<usize>>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.total.set(self.total.get().saturating_sub(self.bytes.len()));
    }
}

impl Node {
    fn layer(&self) -> usize {
        match self {
            Self::Directory { layer }
            | Self::File { layer, .. }
            | Self::Link { layer, .. }
            | Self::Other { layer }
            | Self::Unread { layer, .. } => *layer,
        }
    }

    /// Bytes of what a link leads to.
    fn target(&self) -> usize {
        if let Self::Link { target, .. } = self { target.len() } else { 0 }
    }
}

/// The image's files, by canonical path.
pub(in crate::sbom::generate) struct Tree {
    all: bool,
    limits: ImageLimits,
    nodes: BTreeMap<Vec<u8>, Node>,
    kept: Rc<Cell<usize>>,
    /// Bytes of names and targets.
    names: usize,
    /// Bytes of the layers so far.
    bytes: u64,
    steps: Cell<u64>,
}

impl Tree {
    pub(super) fn new(all: bool, limits: ImageLimits) -> Self {
        let (nodes, kept) = (BTreeMap::new(), Rc::default());
        Self { all, limits, nodes, kept, names: 0, bytes: 0, steps: Cell::new(0) }
    }

    /// Regular files, by path.
    pub(in crate::sbom::generate) fn files(&self) -> impl Iterator<Item = (&[u8], &Content)> {
        self.nodes.iter().filter_map(|(path, node)| match node {
            Node::File { content, .. } => Some((path.as_slice(), content)),
            _ => None,
        })
    }

    /// The bytes of a file of the package database.
    pub(in crate::sbom::generate) fn kept(&self, path: &str) -> Option<&[u8]> {
        match self.nodes.get(format!("/{path}").as_bytes())? {
            Node::File { content, .. } => content.kept.as_ref().map(|kept| kept.bytes.as_slice()),
            _ => None,
        }
    }

    /// Files whose content cannot be told, with the reason.
    pub(in crate::sbom::generate) fn unread(&self) -> impl Iterator<Item = (&[u8], &'static str)> {
        self.nodes.iter().filter_map(|(path, node)| match node {
            Node::Unread { reason, .. } => Some((path.as_slice(), *reason)),
            _ => None,
        })
    }

    /// A directory is at the path, or something below it.
    pub(in crate::sbom::generate) fn is_directory(&self, path: &[u8]) -> bool {
        let below = [path, b"/"].concat();
        matches!(self.nodes.get(path), Some(Node::Directory { .. }))
            || self.nodes.range(below.clone()..).next().is_some_and(|(path, _)| path.starts_with(&below))
    }

    /// Names in a directory.
    pub(in crate::sbom::generate) fn children(&self, path: &str) -> Vec<Entry> {
        let directory = format!("/{path}/").into_bytes();
        let mut children = BTreeMap::new();
        let mut from = directory.clone();
        while let Some((path, node)) = self.nodes.range(from.clone()..).next()
            && let Some(name) = path.strip_prefix(directory.as_slice())
        {
            let slash = memchr::memchr(b'/', name);
            let name = &name[..slash.unwrap_or(name.len())];
            // Past it, or past all that is below it: `0` follows `/` in ASCII.
            let past = if slash.is_some() { b"0" } else { b"\0" };
            from = [&directory, name, past.as_slice()].concat();
            let is_dir = slash.is_some() || matches!(node, Node::Directory { .. });
            // Names that are not UTF-8 are of no database.
            if let Ok(name) = std::str::from_utf8(name) {
                *children.entry(name).or_default() |= is_dir;
            }
        }
        children.into_iter().map(|(name, is_dir)| Entry { name: name.to_owned(), is_dir }).collect()
    }

    /// A symbolic link is at the path.
    pub(in crate::sbom::generate) fn is_link(&self, path: &str) -> bool {
        matches!(self.nodes.get(format!("/{path}").as_bytes()), Some(Node::Link { .. }))
    }

    /// Puts a layer on top.
    pub(super) fn apply(
        &mut self,
        store: &mut Store,
        blob: &Sha256,
        diff_id: Sha256,
        number: usize,
        progress: &Progress,
    ) -> Result<(), ImageError> {
        let unreadable = |error| ImageError::Read { what: format!("layer sha256:{blob}"), error };
        let mut packed = BufReader::with_capacity(256 << 10, store.stream(blob)?);
        let found = self.put(&mut packed, blob, number, progress)?;
        // Also what follows the end of the packed data belongs to the blob.
        io::copy(&mut packed, &mut io::sink()).map_err(unreadable)?;
        let whole = packed.into_inner().finish().map_err(unreadable)?;
        if whole != *blob {
            return Err(ImageError::Digest { expected: *blob, found: whole });
        }
        if found != diff_id {
            return Err(ImageError::Digest { expected: diff_id, found });
        }
        Ok(())
    }

    /// Puts a layer on top, whatever its digests, and gives that of its unpacked bytes.
    pub(super) fn put(
        &mut self,
        packed: &mut dyn BufRead,
        blob: &Sha256,
        number: usize,
        progress: &Progress,
    ) -> Result<Sha256, ImageError> {
        let unreadable = |error| ImageError::Read { what: format!("layer sha256:{blob}"), error };
        let mut unpacked = Hashed::new(unpack(packed).map_err(unreadable)?);
        unpacked.limit = self.limits.bytes.saturating_sub(self.bytes);
        let limit = self.limits.bytes;
        let too_large = move |source: io::Error| match source.kind() {
            io::ErrorKind::FileTooLarge => unreadable(io::Error::other(format!(
                "with it, the layers unpack to more than {limit} bytes, the most that is read of an image"
            ))),
            _ => unreadable(source),
        };
        let (left, position) = (Cell::new(MAX_HEADERS), Cell::new(0));
        let mut archive =
            tar::Archive::new(Bounded { inner: &mut unpacked, left: &left, position: &position });
        let mut name = Vec::new();
        for entry in archive.entries().map_err(too_large)? {
            let mut entry = entry.map_err(|source| match source.kind() {
                io::ErrorKind::FileTooLarge => too_large(source),
                _ => unreadable(io::Error::new(
                    source.kind(),
                    format!("after entry {:?}: {source}", shown(&name)),
                )),
            })?;
            left.set(u64::MAX);
            name = entry.path_bytes().into_owned();
            let header = entry.header();
            let end = match header.entry_type() {
                // Its size is that of the file, not that of what the archive has of it.
                EntryType::GNUSparse => {
                    position.get().saturating_add(header.entry_size().unwrap_or(u64::MAX))
                }
                _ => entry.raw_file_position().saturating_add(entry.size()),
            };
            self.entry(&mut entry, &name, number, progress).map_err(|problem| {
                let reason = match problem {
                    Problem::Read(source) if source.kind() == io::ErrorKind::FileTooLarge => {
                        return too_large(source);
                    }
                    Problem::Read(source) => format!("cannot be read ({source})"),
                    Problem::Refused(reason) => reason,
                };
                ImageError::Entry { layer: *blob, path: shown(&name), reason }
            })?;
            // What is left of this one, and the headers of the next.
            left.set(end.saturating_sub(position.get()).saturating_add(MAX_HEADERS));
        }
        io::copy(&mut unpacked, &mut io::sink()).map_err(too_large)?;
        self.bytes += unpacked.read;
        unpacked.finish().map_err(too_large)
    }

    fn entry<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        name: &[u8],
        layer: usize,
        progress: &Progress,
    ) -> Result<(), Problem> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            // Its name is of no file.
            return Ok(());
        }
        let (sparse, unread) = unreadable_content(entry).map_err(Problem::Read)?;
        let path = match canonical(sparse.as_deref().unwrap_or(name)) {
            Ok(path) => path.into_owned(),
            // The root directory itself.
            Err(PathError::Empty) => return Ok(()),
            Err(error) => return Err(Problem::Refused(error.to_string())),
        };
        let path = self.resolve(&path)?;
        let slash = memchr::memrchr(b'/', &path).unwrap_or(0);
        let (directory, base) = (&path[..slash], &path[slash + 1..]);
        if base == b".wh..wh..opq" {
            return self.remove(directory, layer, false);
        }
        if base.starts_with(b".wh..wh.") {
            // Bookkeeping of aufs.
            return Ok(());
        }
        if let Some(hidden) = base.strip_prefix(b".wh.") {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(Problem::Refused("a whiteout of no name".to_owned()));
            }
            return self.remove(&[directory, b"/", hidden].concat(), layer, true);
        }
        let node = match (kind, unread) {
            (EntryType::Directory, _) => {
                if matches!(self.nodes.get(&path), Some(Node::Directory { .. })) {
                    // Merged: what is in it stays. It is of this layer now, so that no whiteout of this layer takes it.
                    self.nodes.insert(path, Node::Directory { layer });
                    return Ok(());
                }
                Node::Directory { layer }
            }
            (_, Some(reason)) => Node::Unread { layer, reason },
            (EntryType::Regular | EntryType::Continuous, _) => {
                let content = self.content(entry, &path, layer, progress)?;
                Node::File { layer, content }
            }
            (EntryType::Link, _) => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = canonical(&target).map_err(|e| Problem::Refused(format!("hard link: {e}")))?;
                let target = self.resolve(&target)?;
                match self.nodes.get(&target) {
                    Some(Node::File { content, .. }) => {
                        Node::File { layer, content: Content { layer, ..content.clone() } }
                    }
                    Some(Node::Link { target, .. }) => Node::Link { layer, target: target.clone() },
                    Some(Node::Other { .. }) => Node::Other { layer },
                    Some(Node::Unread { reason, .. }) => Node::Unread { layer, reason },
                    Some(Node::Directory { .. }) | None => {
                        let target = String::from_utf8_lossy(&target).into_owned();
                        return Err(Problem::Refused(format!("hard link to {target:?}, which is no file")));
                    }
                }
            }
            (EntryType::Symlink, _) => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                if target.len() > MAX_PATH {
                    return Err(too_long("a symbolic link", target.len()));
                }
                Node::Link { layer, target }
            }
            (EntryType::Char | EntryType::Block | EntryType::Fifo, _) => Node::Other { layer },
            (other, _) => {
                return Err(Problem::Refused(format!("entry of type {other:?}; expected those of POSIX")));
            }
        };
        if !matches!(node, Node::Directory { .. }) {
            // In place of a directory, all that was in it goes.
            self.remove(&path, usize::MAX, true)?;
        }
        self.insert(path, node)?;
        progress.found.fetch_add(1, Ordering::Relaxed);
        progress.done.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn insert(&mut self, path: Vec<u8>, node: Node) -> Result<(), Problem> {
        let ImageLimits { entries, names, .. } = self.limits;
        self.names += path.len() + node.target();
        let before = path.len();
        if let Some(old) = self.nodes.insert(path, node) {
            self.names -= before + old.target();
        }
        if self.nodes.len() > entries {
            return Err(Problem::Refused(format!("more than {entries} files, directories and links")));
        }
        if self.names > names {
            return Err(Problem::Refused(format!(
                "the names of the image's files have more than {names} bytes"
            )));
        }
        Ok(())
    }

    fn forget(&mut self, path: &[u8]) {
        if let Some(node) = self.nodes.remove(path) {
            self.names -= path.len() + node.target();
        }
    }

    /// Counts names and entries that are looked at.
    fn step(&self, count: usize) -> Result<(), Problem> {
        let limit = self.limits.steps;
        self.steps.set(self.steps.get().saturating_add(u64::try_from(count).unwrap_or(u64::MAX)));
        if self.steps.get() > limit {
            return Err(Problem::Refused(format!(
                "the image's links and whiteouts took more than {limit} steps"
            )));
        }
        Ok(())
    }

    fn content<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        path: &[u8],
        layer: usize,
        progress: &Progress,
    ) -> Result<Content, Problem> {
        let mode = entry.header().mode().map_err(Problem::Read)?;
        if is_needed(path) {
            let size = usize::try_from(entry.size()).unwrap_or(usize::MAX);
            let limit = self.limits.kept;
            if self.kept.get().saturating_add(size) > limit {
                let reason = format!("with it, the package database has more than {limit} bytes");
                return Err(Problem::Refused(reason));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(Problem::Read)?;
            self.kept.set(self.kept.get() + bytes.len());
            let kept = Rc::new(Kept { bytes, total: Rc::clone(&self.kept) });
            let looked = file::hash(&*kept.bytes, mode, self.all, progress).map_err(Problem::Read)?;
            return Ok(Content { layer, looked, executable: mode & 0o111 != 0, kept: Some(kept) });
        }
        let looked = file::hash(entry, mode, self.all, progress).map_err(Problem::Read)?;
        Ok(Content { layer, looked, executable: mode & 0o111 != 0, kept: None })
    }

    /// The path with the symbolic links of its directories followed, as the runtimes do when they unpack (`fs.RootPath` of
    /// containerd): `/bin/x` of an upper layer is `/usr/bin/x` where a lower one has `/bin -> usr/bin`.
    fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, Problem> {
        if path.len() > MAX_PATH {
            return Err(too_long("a path", path.len()));
        }
        let mut left: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|n| !n.is_empty()).rev().collect();
        let mut done = Vec::with_capacity(path.len());
        let mut links = 0;
        while let Some(name) = left.pop() {
            self.step(1)?;
            match name {
                b"." | b"" => continue,
                b".." => {
                    // `..` of the root is the root.
                    done.truncate(memchr::memrchr(b'/', &done).unwrap_or(0));
                    continue;
                }
                _ => {}
            }
            let length = done.len();
            done.push(b'/');
            done.extend_from_slice(name);
            if done.len() > MAX_PATH {
                return Err(too_long("a path", done.len()));
            }
            // The last name is what the entry makes.
            if left.is_empty() {
                break;
            }
            if let Some(Node::Link { target, .. }) = self.nodes.get(&done) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Problem::Refused(format!("more than {MAX_LINKS} symbolic links on its way")));
                }
                done.truncate(if target.first() == Some(&b'/') { 0 } else { length });
                left.extend(target.split(|b| *b == b'/').rev());
            }
        }
        Ok(done)
    }

    /// Removes what lower layers have below `path`, and at it.
    fn remove(&mut self, path: &[u8], layer: usize, with_itself: bool) -> Result<(), Problem> {
        let is_lower = |node: &Node| node.layer() < layer;
        if with_itself && self.nodes.get(path).is_some_and(is_lower) {
            self.forget(path);
        }
        let (first, end) = ([path, b"/"].concat(), [path, b"0"].concat());
        let mut gone = Vec::new();
        let mut met = 0;
        // `0` follows `/` in ASCII: the range is what begins with `path/`.
        for (path, node) in self.nodes.range(first..end) {
            met += 1;
            if is_lower(node) {
                gone.push(path.clone());
            }
        }
        self.step(met)?;
        for path in gone {
            self.forget(&path);
        }
        Ok(())
    }
}

/// Why the content of an entry cannot be told, and the name that only its extended header has.
fn unreadable_content<R: Read>(
    entry: &mut tar::Entry<'_, R>,
) -> io::Result<(Option<Vec<u8>>, Option<&'static str>)> {
    const SPARSE: &str = "a sparse file, which no image needs; its content is not read";
    let (mut name, mut reason) = (None, entry.header().entry_type().is_gnu_sparse().then_some(SPARSE));
    for record in entry.pax_extensions()?.into_iter().flatten() {
        match record {
            Ok(record) if record.key_bytes().starts_with(b"GNU.sparse.") => {
                reason = Some(SPARSE);
                if record.key_bytes() == b"GNU.sparse.name" {
                    name = Some(record.value_bytes().to_vec());
                }
            }
            Ok(_) => {}
            // The library reads such values as records of their own: what it takes for the name or the size may be none.
            Err(_) => reason = Some("a value of its extended header has a line break, which is not read"),
        }
    }
    Ok((name, reason))
}

fn too_long(what: &str, bytes: usize) -> Problem {
    Problem::Refused(format!("{what} of {bytes} bytes; Linux has at most {MAX_PATH}"))
}

/// A name in a message.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(200).collect()
}

/// Why an entry was not taken.
enum Problem {
    Read(io::Error),
    Refused(String),
}
