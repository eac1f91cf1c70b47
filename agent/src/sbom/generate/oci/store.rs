//! Where the blobs are: a directory, or the members of a tar archive.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use nix::fcntl::OFlag;

use super::bounded::{Bounded, MAX_HEADERS};
use super::{ImageError, said};
use crate::finding::Sha256;

/// Members that an archive may have: a blob for each layer, manifest and configuration.
const MAX_MEMBERS: usize = 65_536;
/// Bytes of a member's name: that of a blob.
const MAX_NAME: usize = "blobs/sha256/".len() + 64;

/// An archive.
pub(in crate::sbom::generate) trait Seekable: Read + Seek {}
impl<R: Read + Seek> Seekable for R {}

/// The blobs of a layout.
pub(in crate::sbom::generate) enum Store {
    /// A layout directory.
    Directory(PathBuf),
    /// A layout as an archive, and where each member is: first byte and length.
    Archive { file: Box<dyn Seekable>, members: HashMap<String, (u64, u64)> },
}

impl Store {
    /// # Errors
    /// It cannot be read, or is not an OCI layout.
    pub(super) fn open(path: &Path) -> Result<Self, ImageError> {
        let name = path.display().to_string();
        let unreadable = |error| ImageError::Read { what: name.clone(), error };
        if !path.metadata().map_err(unreadable)?.is_dir() {
            return Self::archive(&name, open(path).map_err(unreadable)?);
        }
        Self::Directory(path.to_owned()).marked(&name)
    }

    /// # Errors
    /// As for [`open`](Self::open).
    pub(super) fn archive(name: &str, archive: impl Seekable + 'static) -> Result<Self, ImageError> {
        let mut file: Box<dyn Seekable> = Box::new(archive);
        let unreadable = |error: io::Error| match error.raw_os_error() {
            Some(_) => ImageError::Read { what: name.to_owned(), error },
            None => {
                let reason = format!("expected an archive (tar) of an OCI image layout: {}", said(&error));
                ImageError::document(name, reason)
            }
        };
        let members = members(&mut *file).map_err(unreadable)?;
        Self::Archive { file, members }.marked(name)
    }

    /// `oci-layout` marks a layout (image-layout.md); `docker save` has none before engine 25.
    fn marked(mut self, name: &str) -> Result<Self, ImageError> {
        let mark = self.file("oci-layout").map(drop);
        if let Err(error) = mark {
            let expected = "expected an OCI image layout, or an archive of one, with a file oci-layout";
            return Err(ImageError::document(name, format!("{expected} ({error})")));
        }
        Ok(self)
    }

    /// The bytes of a file of the layout, at most `limit`, with how many there are.
    fn file(&mut self, name: &str) -> io::Result<(Box<dyn Read + '_>, u64)> {
        match self {
            Self::Directory(directory) => {
                let file = open(&directory.join(name))?;
                let length = file.metadata()?.len();
                Ok((Box::new(file), length))
            }
            Self::Archive { file, members } => {
                let Some((start, length)) = members.get(name) else {
                    return Err(io::Error::new(io::ErrorKind::NotFound, "no such member of the archive"));
                };
                file.seek(SeekFrom::Start(*start))?;
                Ok((Box::new(file.take(*length)), *length))
            }
        }
    }

    /// A small file of the layout.
    pub(super) fn small(&mut self, name: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let unreadable = |error| ImageError::Read { what: name.to_owned(), error };
        let (reader, length) = self.file(name).map_err(unreadable)?;
        if length > limit {
            let reason = format!("has {length} bytes; at most {limit} are read");
            return Err(ImageError::document(name, reason));
        }
        let mut bytes = Vec::new();
        reader.take(limit).read_to_end(&mut bytes).map_err(unreadable)?;
        Ok(bytes)
    }

    /// A small blob, checked against its digest.
    pub(super) fn blob(&mut self, digest: &Sha256, limit: u64) -> Result<Vec<u8>, ImageError> {
        let bytes = self.small(&format!("blobs/sha256/{digest}"), limit)?;
        let mut hash = Context::new(&SHA256);
        hash.update(&bytes);
        check(*digest, hash)?;
        Ok(bytes)
    }

    /// A large blob. Whoever reads it to its end calls [`Hashed::finish`].
    pub(super) fn stream(&mut self, digest: &Sha256) -> Result<Hashed<Box<dyn Read + '_>>, ImageError> {
        let name = format!("blobs/sha256/{digest}");
        let (reader, _) = self.file(&name).map_err(|error| ImageError::Read { what: name.clone(), error })?;
        Ok(Hashed::new(reader))
    }
}

/// Opens a regular file; never waits for a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("expected a regular file"));
    }
    Ok(file)
}

/// Names and places of an archive's members.
fn members(file: &mut dyn Seekable) -> io::Result<HashMap<String, (u64, u64)>> {
    let mut members = HashMap::new();
    let (left, position) = (Cell::new(MAX_HEADERS), Cell::new(0));
    // Content is passed over, not read: what is read are headers.
    let mut archive =
        tar::Archive::new(Bounded { inner: BufReader::new(file), left: &left, position: &position });
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        left.set(MAX_HEADERS);
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path()?;
        let name = path.to_string_lossy();
        let name = name.strip_prefix("./").unwrap_or(&name);
        // Others are of older layouts that are in the same archive.
        if !matches!(name, "oci-layout" | "index.json") && !name.starts_with("blobs/sha256/")
            || name.len() > MAX_NAME
        {
            continue;
        }
        if members.len() == MAX_MEMBERS {
            return Err(io::Error::other(format!("more than {MAX_MEMBERS} members, which no image has")));
        }
        members.insert(name.to_owned(), (entry.raw_file_position(), entry.size()));
    }
    Ok(members)
}

fn check(expected: Sha256, hash: Context) -> Result<(), ImageError> {
    let found = finish(hash);
    if found == expected { Ok(()) } else { Err(ImageError::Digest { expected, found }) }
}

fn finish(hash: Context) -> Sha256 {
    let mut found = Sha256::default();
    found.0.copy_from_slice(hash.finish().as_ref());
    found
}

/// A reader that hashes what goes through it.
pub(super) struct Hashed<R> {
    inner: R,
    hash: Context,
    /// Bytes so far.
    pub(super) read: u64,
    /// Bytes that may be read in all.
    pub(super) limit: u64,
}

impl<R: Read> Hashed<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, hash: Context::new(&SHA256), read: 0, limit: u64::MAX }
    }

    /// Reads what is left, and gives the digest of all.
    pub(super) fn finish(mut self) -> io::Result<Sha256> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(finish(self.hash))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.read += u64::try_from(read).unwrap_or(u64::MAX);
        if self.read > self.limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("more than {} bytes", self.limit),
            ));
        }
        Ok(read)
    }
}
