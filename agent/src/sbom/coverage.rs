//! How much of an image its SBOM can answer for.

use super::Kinds;
use crate::finding::Coverage;

/// The numbers behind the coverage class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    /// Paths listed.
    pub files: u64,
    /// … with a SHA-256.
    pub with_sha256: u64,
    /// … with SHA-1 or MD5 only.
    pub with_weak: u64,
    /// … owned by a package.
    pub owned: u64,
    /// … with digests that were not computed from the file, but repeated from package metadata.
    pub recorded: u64,
    /// Files of package metadata whose digests could not be used: malformed, or contradicted by another package's.
    pub unusable: u64,
    /// Packages listed.
    pub packages: u64,
    /// Contents that the document has a SHA-256 of, but no path for.
    pub contents: u64,
    /// Components that are no programs, by type.
    pub kinds: Kinds,
    /// The document says of itself that it lists every file (syft's file selection `all`; SPDX 3 `completeness: complete` and
    /// CycloneDX `aggregate: complete` of what the document is about), or every file that can run (`muster sbom generate`).
    pub complete: bool,
}

impl Numbers {
    /// The class: `full` only when the document claims to be complete and has a SHA-256 for some file; `owned` when it has
    /// digests of files; else `packages`.
    ///
    /// Weak digests alone make `owned` only when there are at least as many as packages: a package manager records one for each
    /// file it installs, while trivy gives one for the manifest of a language package and none for anything else.
    ///
    /// Whether a document without the claim lists every file cannot be seen from it: most generators list what packages own,
    /// and the program that was copied in by hand is just what is missing then.
    pub fn coverage(&self) -> Coverage {
        if self.with_sha256 > 0 && self.complete {
            Coverage::Full
        } else if self.with_sha256 > 0 || self.with_weak > 0 && self.with_weak >= self.packages {
            Coverage::Owned
        } else {
            Coverage::Packages
        }
    }
}
