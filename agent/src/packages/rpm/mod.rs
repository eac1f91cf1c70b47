//! rpm's database: one SQLite table, `Packages(hnum INTEGER PRIMARY KEY, blob BLOB)`, whose blobs are package headers.
//!
//! SQLite's own library is C, and the file comes from an image that nobody has proven anything of, into a process with the
//! right to read everything. One table without an index takes a reader of three hundred lines in safe Rust
//! ([`sqlite`]), so that is what reads it.
//!
//! The older formats (Berkeley DB `Packages`, SUSE's ndb `Packages.db`) are said to be there and are not read.

mod header;
mod sqlite;

use super::{Builder, Kind, Position, Reader, Wanted};
use header::{Header, tag};
use sqlite::{Database, Value};

/// Where distributions keep it: the classic place, the one of newer ones and of SUSE, that of rpm-ostree.
const DIRECTORIES: [&str; 3] = ["usr/lib/sysimage/rpm", "var/lib/rpm", "usr/share/rpm"];
/// `RPMFILE_GHOST`: the package owns the name, not what is there.
const GHOST: u32 = 1 << 6;
/// `PGPHASHALGO_*` of `FILEDIGESTALGO`.
const MD5: u32 = 1;
const SHA1: u32 = 2;
const SHA256: u32 = 8;

pub(super) fn is_of_database(path: &str) -> bool {
    path.rsplit_once('/').is_some_and(|(directory, name)| {
        DIRECTORIES.contains(&directory) && matches!(name, "rpmdb.sqlite" | "rpmdb.sqlite-wal")
    })
}

pub(super) fn read(from: &mut Reader<'_>, wanted: &Wanted, to: &mut Builder) {
    for directory in DIRECTORIES {
        let file = format!("{directory}/rpmdb.sqlite");
        if let Ok(Some(bytes)) = from.read(&file, to) {
            packages(&bytes, &file, wanted, to);
            // What a log that was not yet applied holds is newer than the table.
            let log = format!("{file}-wal");
            if from.read(&log, to).is_ok_and(|log| log.is_some_and(|log| !log.is_empty())) {
                let reason = "a write-ahead log with changes that are not in the database; they do not count";
                to.problem(&log, Position::File, reason.to_owned());
            }
            continue;
        }
        for old in ["Packages", "Packages.db"] {
            if from.list(directory, to).iter().any(|entry| entry.name == old) {
                let reason = "an rpm database in its old format, which is not read; `rpmdb --rebuilddb` makes a new one";
                to.problem(&format!("{directory}/{old}"), Position::File, reason.to_owned());
            }
        }
    }
}

pub(super) fn packages(bytes: &[u8], file: &str, wanted: &Wanted, to: &mut Builder) {
    let result = Database::open(bytes).and_then(|database| {
        let root = database.table("Packages")?;
        database.rows(root, |row, values| {
            let blob = match values.get(1) {
                Some(Value::Blob(blob)) => blob,
                _ => return to.problem(file, Position::Row(row), "expected a blob in column 2".to_owned()),
            };
            if let Err(reason) = package(blob, wanted, to) {
                to.problem(file, Position::Row(row), reason);
            }
        })
    });
    if let Err((position, reason)) = result {
        to.problem(file, position, reason);
    }
}

fn package(blob: &[u8], wanted: &Wanted, to: &mut Builder) -> Result<(), String> {
    let header = Header::parse(blob)?;
    let text = |tag| header.text(tag).map(Option::unwrap_or_default);
    let (name, version, release) = (text(tag::NAME)?, text(tag::VERSION)?, text(tag::RELEASE)?);
    if name.is_empty() || version.is_empty() {
        return Err("a package without name or version".to_owned());
    }
    let epoch = header.numbers(tag::EPOCH)?.first().map(|epoch| format!("{epoch}:")).unwrap_or_default();
    let version = format!("{epoch}{version}-{release}");
    if !wanted.has(Kind::Rpm, name, &version) {
        return Ok(());
    }
    let names = header.texts(tag::BASENAMES)?;
    let directories = header.texts(tag::DIRNAMES)?;
    let indexes = header.numbers(tag::DIRINDEXES)?;
    let digests = header.texts(tag::FILEDIGESTS)?;
    let flags = header.numbers(tag::FILEFLAGS)?;
    let states = header.numbers(tag::FILESTATES)?;
    let algorithm = header.numbers(tag::FILEDIGESTALGO)?.first().copied().unwrap_or(MD5);
    if names.len() != indexes.len() {
        return Err(format!("{} file names and {} of their directories", names.len(), indexes.len()));
    }
    for (what, count) in [("digests", digests.len()), ("flags", flags.len()), ("states", states.len())] {
        if count != 0 && count != names.len() {
            return Err(format!("{} file names and {count} {what}", names.len()));
        }
    }
    let package = to.package(Kind::Rpm, name, &version, text(tag::ARCH)?);
    for (n, (base, directory)) in std::iter::zip(&names, &indexes).enumerate() {
        let directory = usize::try_from(*directory).ok().and_then(|d| directories.get(d));
        let Some(directory) = directory else {
            return Err(format!("file {n} is in directory {}, of {}", indexes[n], directories.len()));
        };
        let is_ghost = flags.get(n).is_some_and(|flags| flags & GHOST != 0);
        // 0 is "normal": others are replaced by another package's file, or were left out at the installation.
        if is_ghost || states.get(n).is_some_and(|state| *state != 0) {
            continue;
        }
        let digest = match digests.get(n) {
            Some(text) if !text.is_empty() => digest_of(text, algorithm)?,
            _ => None,
        };
        to.file(package, &[*directory, *base].concat(), digest)?;
    }
    Ok(())
}

fn digest_of(text: &[u8], algorithm: u32) -> Result<Option<crate::event::PackageDigest>, String> {
    use crate::event::PackageDigest as Digest;
    let text = std::str::from_utf8(text).map_err(|_| "a digest that is no text".to_owned())?;
    let digest = match algorithm {
        MD5 => crate::sbom::hex(text).map(Digest::Md5),
        SHA1 => crate::sbom::hex(text).map(Digest::Sha1),
        SHA256 => crate::sbom::hex(text).map(|d| Digest::Sha256(crate::finding::Sha256(d))),
        // SHA-384, SHA-512: nothing that is computed here.
        _ => return Ok(None),
    };
    digest
        .map(Some)
        .ok_or_else(|| format!("algorithm {algorithm} with the digest {:?}", super::shown(text.as_bytes())))
}
