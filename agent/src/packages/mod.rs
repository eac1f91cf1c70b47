//! Package databases: which package owns a file, and what digest the database has of it.
//!
//! They are the weak fallback for SBOMs that list packages and not their files. No database is signed, so what is read
//! here counts only in two places, and never as `attested`:
//!
//! * a container's, from the read-only layers of its image ([`overlay`], [`Tree`]) and only the packages that the verified
//!   SBOM names ([`Wanted`]): `package_derived`. Where the SBOM has a database's own file with its SHA-256, as syft's do,
//!   the file must have it;
//! * the host's, after its package manager wrote: `updated`.
//!
//! | database | where | digest |
//! | --- | --- | --- |
//! | dpkg | `/var/lib/dpkg/{status,info/*.list,info/*.md5sums,diversions}`, distroless `/var/lib/dpkg/status.d` | MD5 |
//! | apk | `/lib/apk/db/installed`, `/usr/lib/apk/db/installed` | SHA-1 |
//! | rpm | `rpmdb.sqlite` in `/var/lib/rpm`, `/usr/lib/sysimage/rpm`, `/usr/share/rpm` | SHA-256, of old packages MD5 |
//! | Python | `*.dist-info/RECORD` in the system's package directories and `/opt/venv`, `/venv` | SHA-256 |
//!
//! A file of a database that is not as it must be is left out, with its position and the reason; the others count.

mod apk;
mod databases;
mod dpkg;
mod files;
pub mod overlay;
mod python;
mod rpm;
#[cfg(test)]
pub(crate) mod tests;
mod tree;
mod wanted;

use std::fmt;
use std::io;

use aws_lc_rs::digest::{SHA256, digest};

pub use databases::Databases;
pub use files::{Builder, Owners, PackageFiles};
pub use tree::{Entry, Tree};
pub use wanted::{Kind, Wanted};

use crate::finding::Sha256;

/// What reading may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest file, bytes.
    pub file_bytes: u64,
    /// Bytes of all files.
    pub all_bytes: u64,
    /// Paths kept.
    pub paths: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file_bytes: 256 << 20, all_bytes: 512 << 20, paths: 2_000_000 }
    }
}

/// Where in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// The file as a whole.
    File,
    /// Line, from 1.
    Line(usize),
    /// Bytes before the place.
    Byte(usize),
    /// Row of the table, by its number.
    Row(i64),
}

/// A package of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    /// The kind of database.
    pub kind: Kind,
    /// Its name.
    pub name: Box<str>,
    /// Its version, with the epoch before a colon.
    pub version: Box<str>,
    /// Its architecture; empty where the database has none.
    pub architecture: Box<str>,
}

/// Part of a database that does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problem {
    /// The file, from the root.
    pub file: String,
    /// Where in it.
    pub position: Position,
    /// What was expected, what was found.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, position, reason } = self;
        match position {
            Position::File => write!(f, "{file}: {reason}"),
            Position::Line(line) => write!(f, "{file}, line {line}: {reason}"),
            Position::Byte(byte) => write!(f, "{file}, byte {byte}: {reason}"),
            Position::Row(row) => write!(f, "{file}, row {row} of Packages: {reason}"),
        }
    }
}

/// What is wrong where, before it is known in which file.
type Fault = (Position, String);

/// The files of a root, as far as databases need them.
pub trait Files {
    /// The content of a regular file; `None` when there is no such file. `path` is relative, without `.` and `..`.
    ///
    /// # Errors
    /// It cannot be read, or has more than `limit` bytes.
    fn read(&self, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>>;
    /// What a directory holds, in no order; nothing when it is not there.
    ///
    /// # Errors
    /// It cannot be read.
    fn list(&self, path: &str) -> io::Result<Vec<Entry>>;
    /// There is a symbolic link at this path.
    fn is_link(&self, path: &str) -> bool;
}

/// A file that is there and does not count.
struct Refused;

/// Reads the files of databases within the limits.
struct Reader<'a> {
    files: &'a dyn Files,
    attested: &'a dyn Fn(&[u8]) -> Option<Sha256>,
    limits: Limits,
    left: u64,
}

impl Reader<'_> {
    /// `None`: it is not there. What is refused, `to` is told.
    fn read(&mut self, path: &str, to: &mut Builder) -> Result<Option<Vec<u8>>, Refused> {
        let limit = self.limits.file_bytes.min(self.left);
        let bytes = match self.files.read(path, limit) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Ok(None),
            Err(error) => {
                to.problem(path, Position::File, error.to_string());
                return Err(Refused);
            }
        };
        self.left = self.left.saturating_sub(bytes.len() as u64);
        if let Some(expected) = (self.attested)(format!("/{path}").as_bytes()) {
            let mut found = Sha256::default();
            found.0.copy_from_slice(digest(&SHA256, &bytes).as_ref());
            if found != expected {
                let reason = format!("the SBOM has this file with SHA-256 {expected}, found {found}");
                to.problem(path, Position::File, reason);
                return Err(Refused);
            }
        }
        Ok(Some(bytes))
    }

    fn list(&self, path: &str, to: &mut Builder) -> Vec<Entry> {
        self.files.list(path).unwrap_or_else(|error| {
            to.problem(path, Position::File, error.to_string());
            Vec::new()
        })
    }
}

/// Reads every database of a root. `attested`: the SHA-256 that the verified SBOM has of a path.
pub fn read(
    files: &dyn Files,
    wanted: &Wanted,
    attested: &dyn Fn(&[u8]) -> Option<Sha256>,
    limits: Limits,
) -> PackageFiles {
    let mut to = Builder::new(links(files), wanted.paths().cloned(), limits.paths);
    collect(files, wanted, attested, limits, &mut to);
    to.finish()
}

/// Every package of a root, and which of them owns what: the system's before Python's. What of Python a package of the system
/// brought, is that package.
pub fn owners(files: &dyn Files, limits: Limits) -> Owners {
    let mut to = Builder::of_owners(links(files), limits.paths);
    collect(files, &Wanted::everything(), &|_| None, limits, &mut to);
    to.owners()
}

/// A file that the databases are made of, by its path from the root, without the first `/`.
pub fn is_of_database(path: &str) -> bool {
    dpkg::is_of_database(path)
        || apk::FILES.contains(&path)
        || rpm::is_of_database(path)
        || python::is_of_database(path)
}

fn collect(
    files: &dyn Files,
    wanted: &Wanted,
    attested: &dyn Fn(&[u8]) -> Option<Sha256>,
    limits: Limits,
    to: &mut Builder,
) {
    let mut reader = Reader { files, attested, limits, left: limits.all_bytes };
    dpkg::read(&mut reader, wanted, to);
    apk::read(&mut reader, wanted, to);
    rpm::read(&mut reader, wanted, to);
    python::read(&mut reader, wanted, to);
}

/// Top directories that are links into `/usr`: a database lists `/bin/sh` where a merged system has `/usr/bin/sh`.
fn links(files: &dyn Files) -> Vec<&'static str> {
    let tops = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
    tops.into_iter().filter(|top| files.is_link(top)).collect()
}

/// Lines with their numbers, from 1.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    text.split(|b| *b == b'\n').enumerate().map(|(n, line)| (n + 1, line))
}

/// Bytes for a message: short, and safe to print.
fn shown(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(80)];
    format!("{:?}", String::from_utf8_lossy(cut))
}
