//! SBOM documents → one [`ImageIndex`] per image.
//!
//! Accepted: SPDX 2.2 and 2.3 as JSON and tag-value, SPDX 3.0 as JSON-LD, CycloneDX 1.2 to 1.7 as JSON, syft-json (schemas 6 to
//! 16). Documents are read lenient where no digest and no path rests on it, and real ones are sloppy (missing checksums, zero digests,
//! directories among the files, `null` for an empty list, times that are none, one id for two elements), and strict where one does:
//! digests by algorithm and length, paths, duplicate keys of every object that is read, one path with two digests.

mod builder;
mod checksum;
mod coverage;
mod cyclonedx;
pub mod diff;
mod digests;
pub mod generate;
mod graph;
mod index;
mod json;
mod kinds;
mod layers;
mod magic;
mod order;
mod origin;
mod packages;
mod path;
mod recorded;
mod scan;
mod spdx;
mod spdx3;
mod syft;
mod tag_value;
#[cfg(test)]
mod tests;
pub mod tool;

pub use builder::Builder;
pub use checksum::{Algorithm, hex};
pub use coverage::Numbers;
pub use digests::DigestPool;
pub(crate) use index::search;
pub use index::{Entry, ImageIndex};
pub use kinds::Kinds;
pub use origin::Origin;
pub use packages::Package;
pub(crate) use path::merges_into_usr;
pub use path::{PathError, canonical};

use std::time::SystemTime;

use crate::finding::Sha256;
use crate::mark::without_mark;

/// What a document may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest document, bytes.
    pub max_bytes: u64,
    /// Deepest nesting of arrays and objects.
    pub max_depth: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_bytes: 384 << 20, max_depth: 64 }
    }
}

impl Limits {
    /// Whether a document of `found` bytes is read.
    ///
    /// # Errors
    /// When it is not.
    pub(crate) fn check_size(&self, found: u64) -> Result<(), SbomError> {
        if found > self.max_bytes {
            return Err(SbomError::TooLarge { found, limit: self.max_bytes });
        }
        Ok(())
    }
}

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// SPDX 2.2 or 2.3, JSON.
    Spdx2,
    /// SPDX 2.2 or 2.3, tag-value.
    SpdxTagValue,
    /// SPDX 3.0, JSON-LD.
    Spdx3,
    /// CycloneDX 1.2 to 1.7, JSON.
    CycloneDx,
    /// syft-json.
    Syft,
}

impl Format {
    /// The format's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spdx2 => "spdx-2-json",
            Self::SpdxTagValue => "spdx-2-tag-value",
            Self::Spdx3 => "spdx-3-json",
            Self::CycloneDx => "cyclonedx-json",
            Self::Syft => "syft-json",
        }
    }
}

/// Why a document was refused.
#[derive(Debug, thiserror::Error)]
pub enum SbomError {
    /// Larger than the limit.
    #[error(
        "the SBOM has {found} bytes, more than the limit of {limit}; raise attestation.max_sbom_bytes if that is right"
    )]
    TooLarge {
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// Nested deeper than the limit.
    #[error("line {line}, column {column}: JSON nested deeper than the limit of {limit}")]
    TooDeep {
        /// Line, from 1.
        line: usize,
        /// Column in bytes, from 1.
        column: usize,
        /// The limit.
        limit: u32,
    },
    /// Not a format that is read.
    #[error(
        "this is {found}; accepted are SPDX 2.2 and 2.3 (JSON, tag-value), SPDX 3.0 (JSON-LD), CycloneDX 1.2 to 1.7 (JSON), \
         and syft-json"
    )]
    Format {
        /// What the document is.
        found: String,
    },
    /// Not what its format says it should be; the text has line and column.
    #[error("{format}: {error}", format = .format.as_str())]
    Content {
        /// The format.
        format: Format,
        /// What is wrong, where.
        error: serde_json::Error,
    },
    /// The same for a format of lines.
    #[error("{format}: line {line}: {reason}", format = .format.as_str())]
    Line {
        /// The format.
        format: Format,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// Well-formed, but wrong as an SBOM.
    #[error("{at}file {path:?}: {reason}", at = Position::words(*.position), path = shown(.path))]
    File {
        /// Its path as the document has it.
        path: String,
        /// What is wrong.
        reason: String,
        /// Where the document names it last.
        position: Option<Position>,
    },
}

/// A place in a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in bytes, from 1.
    pub column: usize,
}

impl Position {
    fn of(bytes: &[u8], at: usize) -> Self {
        let before = &bytes[..at];
        let line = memchr::memchr_iter(b'\n', before).count() + 1;
        Self { line, column: at - memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1) + 1 }
    }

    fn words(position: Option<Self>) -> String {
        position.map_or_else(String::new, |Self { line, column }| format!("line {line}, column {column}: "))
    }
}

/// Reads a document of any accepted format.
///
/// # Errors
/// The document is refused whole, with position and reason.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<ImageIndex, SbomError> {
    limits.check_size(bytes.len() as u64)?;
    let bytes = without_mark(bytes);
    if let Some(found) = magic::other(bytes) {
        return Err(SbomError::Format { found: found.to_owned() });
    }
    let format = if scan::is_tag_value(bytes) {
        Format::SpdxTagValue
    } else {
        scan::depth(bytes, limits.max_depth)?;
        scan::format(bytes)?
    };
    let parsed = match format {
        Format::Spdx2 => spdx::parse(bytes),
        Format::SpdxTagValue => tag_value::parse(bytes),
        Format::Spdx3 => spdx3::parse(bytes),
        Format::CycloneDx => cyclonedx::parse(bytes),
        Format::Syft => syft::parse(bytes),
    };
    parsed.map_err(|error| match error {
        SbomError::File { path, reason, position: None } => {
            let position = last_mention(bytes, &path).map(|at| Position::of(bytes, at));
            SbomError::File { path, reason, position }
        }
        error => error,
    })
}

/// How far before a path its string may begin: `./` and the like, but not so much that looking for it takes long.
const SPELLING: usize = 16;

/// Where a document has a path, in some spelling, for the last time; `None` when it is written with escapes.
fn last_mention(bytes: &[u8], path: &str) -> Option<usize> {
    let find = |name: &str| {
        memchr::memmem::rfind_iter(bytes, name.as_bytes()).find(|at| {
            let before = bytes[..*at].iter().rev().take(SPELLING).find(|b| !matches!(b, b'/' | b'.'));
            let after = bytes.get(at + name.len());
            before.is_some_and(|b| matches!(b, b'"' | b' ' | b':'))
                && after.is_none_or(|b| matches!(b, b'"' | b'\r' | b'\n'))
        })
    };
    let name = path.trim_start_matches('/');
    find(name).or_else(|| find(name.strip_prefix("usr/")?))
}

/// A time of a document (RFC 3339). One that cannot be read is not stated, and so is one before 1970: a document of that time is none
/// (Go writes the year 1 for no time at all).
fn created(text: &str) -> Option<SystemTime> {
    time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
        .ok()
        .map(SystemTime::from)
        .filter(|time| *time >= SystemTime::UNIX_EPOCH)
}

/// As much of a text from outside as a message may hold.
fn shown(text: &str) -> &str {
    match text.char_indices().nth(80) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// Digests that a document gives for one file. A zero digest is an unknown one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// SHA-256.
    pub sha256: Option<Sha256>,
    /// SHA-1.
    pub sha1: Option<[u8; 20]>,
    /// MD5.
    pub md5: Option<[u8; 16]>,
}
