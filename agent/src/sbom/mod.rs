//! SBOM documents → one [`ImageIndex`] per image.
//!
//! Accepted: SPDX 2.2 and 2.3 as JSON, syft-json (schemas 6 to 16). Documents are read lenient where real ones are (missing
//! checksums, zero digests, directories among the files) and strict where it matters: digests by algorithm and length, paths,
//! duplicate keys of every object that is read, one path with two digests.

mod checksum;
mod coverage;
pub mod generate;
mod index;
mod path;
mod scan;
mod spdx;
mod syft;
#[cfg(test)]
mod tests;
pub mod tool;

pub use checksum::{Algorithm, hex};
pub use coverage::Numbers;
pub use index::{Builder, Entry, ImageIndex};
pub(crate) use path::merges_into_usr;
pub use path::{PathError, canonical};

use crate::finding::Sha256;

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

/// The formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// SPDX 2.2 or 2.3, JSON.
    Spdx2,
    /// syft-json.
    Syft,
}

impl Format {
    /// The format's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Spdx2 => "spdx-2-json",
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
    #[error("this is {found}; accepted are SPDX 2.2 and 2.3 as JSON, and syft-json")]
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
    /// Right as JSON, wrong as an SBOM.
    #[error("file {path:?}: {reason}")]
    File {
        /// Its path as the document has it.
        path: String,
        /// What is wrong.
        reason: String,
    },
}

/// Reads a document of any accepted format.
///
/// # Errors
/// The document is refused whole, with position and reason.
pub fn parse(bytes: &[u8], limits: &Limits) -> Result<ImageIndex, SbomError> {
    let found = bytes.len() as u64;
    if found > limits.max_bytes {
        return Err(SbomError::TooLarge { found, limit: limits.max_bytes });
    }
    scan::depth(bytes, limits.max_depth)?;
    match scan::format(bytes)? {
        Format::Spdx2 => spdx::parse(bytes),
        Format::Syft => syft::parse(bytes),
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
