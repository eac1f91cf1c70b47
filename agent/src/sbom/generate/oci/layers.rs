//! Layers one over the other (image-spec, layer.md): what a container of the image sees.

use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Read};
use std::sync::atomic::Ordering;

use tar::EntryType;

use super::store::Hashed;
use super::{ImageError, Store};
use crate::finding::Sha256;
use crate::sbom::generate::Progress;
use crate::sbom::generate::file::{self, Looked};
use crate::sbom::path::{PathError, canonical};

/// Bytes of an unpacked layer; the largest images have some ten GiB.
const MAX_LAYER_BYTES: u64 = 64 << 30;
/// Files, directories and links of an image.
const MAX_ENTRIES: usize = 4_000_000;
/// Bytes of package databases that are kept.
const MAX_KEPT_BYTES: usize = 256 << 20;
/// Symbolic links on the way to a file (the kernel's own limit).
const MAX_LINKS: u32 = 40;

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
    kept: Option<Vec<u8>>,
}

impl Node {
    fn layer(&self) -> usize {
        match self {
            Self::Directory { layer }
            | Self::File { layer, .. }
            | Self::Link { layer, .. }
            | Self::Other { layer } => *layer,
        }
    }
}

/// The image's files, by canonical path.
pub(in crate::sbom::generate) struct Tree {
    all: bool,
    nodes: BTreeMap<Vec<u8>, Node>,
    kept: usize,
}

impl Tree {
    pub(super) fn new(all: bool) -> Self {
        Self { all, nodes: BTreeMap::new(), kept: 0 }
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
            Node::File { content, .. } => content.kept.as_deref(),
            _ => None,
        }
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
        let unreadable = |source| ImageError::Read { what: format!("layer sha256:{blob}"), source };
        let mut compressed = BufReader::with_capacity(256 << 10, store.stream(blob)?);
        let magic = compressed.fill_buf().map_err(unreadable)?;
        // By its first bytes: media types are wrong often enough.
        let found = if magic.starts_with(&[0x1f, 0x8b]) {
            self.unpacked(flate2::bufread::MultiGzDecoder::new(&mut compressed), blob, number, progress)?
        } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let decoder = ruzstd::decoding::StreamingDecoder::new(&mut compressed)
                .map_err(|error| unreadable(io::Error::other(error.to_string())))?;
            self.unpacked(decoder, blob, number, progress)?
        } else {
            self.unpacked(&mut compressed, blob, number, progress)?
        };
        // Also what follows the end of the compressed data belongs to the blob.
        io::copy(&mut compressed, &mut io::sink()).map_err(unreadable)?;
        let whole = compressed.into_inner().finish().map_err(unreadable)?;
        if whole != *blob {
            return Err(ImageError::Digest { expected: *blob, found: whole });
        }
        if found != diff_id {
            return Err(ImageError::Digest { expected: diff_id, found });
        }
        Ok(())
    }

    /// Takes over an unpacked layer and gives its digest.
    fn unpacked(
        &mut self,
        reader: impl Read,
        blob: &Sha256,
        number: usize,
        progress: &Progress,
    ) -> Result<Sha256, ImageError> {
        let unreadable = |source| ImageError::Read { what: format!("layer sha256:{blob}"), source };
        let mut reader = Hashed::new(reader);
        reader.limit = MAX_LAYER_BYTES;
        let mut archive = tar::Archive::new(&mut reader);
        for entry in archive.entries().map_err(unreadable)? {
            let mut entry = entry.map_err(unreadable)?;
            let name = entry.path_bytes().into_owned();
            self.entry(&mut entry, &name, number, progress).map_err(|problem| match problem {
                Problem::Read(source) => unreadable(source),
                Problem::Refused(reason) => ImageError::Entry {
                    layer: *blob,
                    path: String::from_utf8_lossy(&name).chars().take(200).collect(),
                    reason,
                },
            })?;
        }
        reader.finish().map_err(unreadable)
    }

    fn entry<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        name: &[u8],
        layer: usize,
        progress: &Progress,
    ) -> Result<(), Problem> {
        let path = match canonical(name) {
            Ok(path) => path.into_owned(),
            // The root directory itself.
            Err(PathError::Empty) => return Ok(()),
            Err(error) => return Err(Problem::Refused(error.to_string())),
        };
        let path = self.resolve(&path)?;
        let slash = memchr::memrchr(b'/', &path).unwrap_or(0);
        let (directory, base) = (&path[..slash], &path[slash + 1..]);
        if base == b".wh..wh..opq" {
            self.remove(directory, layer, false);
            return Ok(());
        }
        if base.starts_with(b".wh..wh.") {
            // Bookkeeping of aufs.
            return Ok(());
        }
        if let Some(hidden) = base.strip_prefix(b".wh.") {
            self.remove(&[directory, b"/", hidden].concat(), layer, true);
            return Ok(());
        }
        let node = match entry.header().entry_type() {
            EntryType::Directory => {
                if matches!(self.nodes.get(&path), Some(Node::Directory { .. })) {
                    // Merged: what is in it stays. It is of this layer now, so that no whiteout of this layer takes it.
                    self.nodes.insert(path, Node::Directory { layer });
                    return Ok(());
                }
                Node::Directory { layer }
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let content = self.content(entry, &path, layer, progress)?;
                Node::File { layer, content }
            }
            EntryType::Link => {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = canonical(&target).map_err(|e| Problem::Refused(format!("hard link: {e}")))?;
                let target = self.resolve(&target)?;
                match self.nodes.get(&target) {
                    Some(Node::File { content, .. }) => {
                        Node::File { layer, content: Content { layer, ..content.clone() } }
                    }
                    Some(Node::Link { target, .. }) => Node::Link { layer, target: target.clone() },
                    Some(Node::Other { .. }) => Node::Other { layer },
                    Some(Node::Directory { .. }) | None => {
                        let target = String::from_utf8_lossy(&target).into_owned();
                        return Err(Problem::Refused(format!("hard link to {target:?}, which is no file")));
                    }
                }
            }
            EntryType::Symlink => {
                Node::Link { layer, target: entry.link_name_bytes().unwrap_or_default().into_owned() }
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => Node::Other { layer },
            // Headers that the reader has used up already.
            EntryType::XHeader
            | EntryType::XGlobalHeader
            | EntryType::GNULongName
            | EntryType::GNULongLink => {
                return Ok(());
            }
            other => {
                return Err(Problem::Refused(format!("entry of type {other:?}; expected those of POSIX")));
            }
        };
        if !matches!(node, Node::Directory { .. }) {
            // In place of a directory, all that was in it goes.
            self.remove(&path, usize::MAX, true);
        }
        if self.nodes.len() >= MAX_ENTRIES {
            return Err(Problem::Refused(format!("more than {MAX_ENTRIES} files and directories")));
        }
        self.nodes.insert(path, node);
        progress.found.fetch_add(1, Ordering::Relaxed);
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
        if is_of_database(path) {
            let size = usize::try_from(entry.size()).unwrap_or(usize::MAX);
            self.kept = self.kept.saturating_add(size);
            if self.kept > MAX_KEPT_BYTES {
                let reason = format!("the package database has more than {MAX_KEPT_BYTES} bytes");
                return Err(Problem::Refused(reason));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(Problem::Read)?;
            let looked = file::hash(bytes.as_slice(), mode, self.all, progress).map_err(Problem::Read)?;
            return Ok(Content { layer, looked, executable: mode & 0o111 != 0, kept: Some(bytes) });
        }
        let looked = file::hash(entry, mode, self.all, progress).map_err(Problem::Read)?;
        Ok(Content { layer, looked, executable: mode & 0o111 != 0, kept: None })
    }

    /// The path with the symbolic links of its directories followed, as the runtimes do when they unpack (`fs.RootPath` of
    /// containerd): `/bin/x` of an upper layer is `/usr/bin/x` where a lower one has `/bin -> usr/bin`.
    fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, Problem> {
        let mut left: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|n| !n.is_empty()).rev().collect();
        let mut done = Vec::with_capacity(path.len());
        let mut links = 0;
        while let Some(name) = left.pop() {
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
    fn remove(&mut self, path: &[u8], layer: usize, with_itself: bool) {
        let is_lower = |node: &Node| node.layer() < layer;
        if with_itself && self.nodes.get(path).is_some_and(is_lower) {
            self.nodes.remove(path);
        }
        let (first, end) = ([path, b"/"].concat(), [path, b"0"].concat());
        // `0` follows `/` in ASCII: the range is what begins with `path/`.
        let gone: Vec<_> = self
            .nodes
            .range(first..end)
            .filter(|(_, node)| is_lower(node))
            .map(|(path, _)| path.clone())
            .collect();
        for path in gone {
            self.nodes.remove(&path);
        }
    }
}

/// Why an entry was not taken.
enum Problem {
    Read(io::Error),
    Refused(String),
}

/// Files that [`dpkg::Database`](super::super::dpkg::Database) reads.
fn is_of_database(path: &[u8]) -> bool {
    matches!(
        path,
        b"/var/lib/dpkg/status" | b"/var/lib/dpkg/diversions" | b"/usr/lib/os-release" | b"/etc/os-release"
    ) || path.strip_prefix(b"/var/lib/dpkg/info/").is_some_and(|name| name.ends_with(b".list"))
}
