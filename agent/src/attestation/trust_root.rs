//! Trust roots: the certificate authorities, logs and timestamp authorities that are believed, as Sigstore writes them
//! (protobuf-specs, `sigstore_trustroot.proto`).

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sigstore_trust_root::{
    SIGSTORE_GITHUB_TRUSTED_ROOT, SIGSTORE_PRODUCTION_TRUSTED_ROOT, TimeRange, TrustedRoot,
};

use super::json::{self, Unused, shown};
use super::sha256;
use super::sigstore::Verifier;
use super::tuf::{Cache, TufFiles};
use crate::config;
use crate::finding::Sha256;

/// A trust root, or a file of a TUF cache, is never larger.
pub(super) const MAX_BYTES: u64 = 4 << 20;
/// Levels of JSON in a trust root.
const MAX_DEPTH: u32 = 32;
/// Media types, up to the version.
const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.trustedroot";

/// Why a trust root is refused.
#[derive(Debug, thiserror::Error)]
#[error("trust root {name}: {reason}")]
pub struct TrustRootError {
    /// What was read.
    pub name: String,
    /// What was expected, what was found, what to do.
    pub reason: String,
}

/// A trust root.
pub struct TrustRoot {
    name: String,
    sha256: Sha256,
    validity: Validity,
    pub(super) verifier: Verifier,
}

impl fmt::Debug for TrustRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustRoot")
            .field("name", &self.name)
            .field("sha256", &self.sha256)
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

/// From when to when a trust root knows the services. Old signatures stay verifiable with a stale root; new ones may not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// When the newest service in it began: the root is at least as new. `None` when it does not say.
    pub newest: Option<SystemTime>,
    /// When it needs a newer one: the first kind of service has then ended altogether, or the TUF cache has expired. `None`
    /// when no end is known.
    pub until: Option<SystemTime>,
}

impl Validity {
    /// A newer trust root is needed.
    pub fn is_stale(&self, now: SystemTime) -> bool {
        self.until.is_some_and(|until| until < now)
    }
}

impl TrustRoot {
    /// Loads the trust root that the configuration names.
    ///
    /// # Errors
    /// When it cannot be read, or is not a trust root.
    pub fn load(from: &config::TrustRoot) -> Result<Self, TrustRootError> {
        match from {
            config::TrustRoot::Embedded => {
                Self::parse("embedded", SIGSTORE_PRODUCTION_TRUSTED_ROOT.as_bytes())
            }
            config::TrustRoot::EmbeddedGithub => {
                Self::parse("embedded:github", SIGSTORE_GITHUB_TRUSTED_ROOT.as_bytes())
            }
            config::TrustRoot::Path(path) => Self::of_path(path, &read).map(|(root, _)| root),
        }
    }

    /// Reads a trust root, or the cache of a TUF client, by what reads a file; and the bytes of the trust root itself.
    pub(super) fn of_path(
        path: &Path,
        read: &dyn Fn(&Path) -> Result<Vec<u8>, String>,
    ) -> Result<(Self, Vec<u8>), TrustRootError> {
        let name = path.display().to_string();
        let refuse = |reason| TrustRootError { name: name.clone(), reason };
        if path.is_dir() {
            let files = TufFiles::read(path, read).map_err(refuse)?;
            return Ok((Self::of_cache(&name, &files)?, files.trusted_root));
        }
        let bytes = read(path).map_err(refuse)?;
        Ok((Self::parse(&name, &bytes)?, bytes))
    }

    /// Reads the trust root in the cache of a TUF client; `name` is for messages.
    ///
    /// # Errors
    /// When its metadata does not say that it is one.
    pub fn of_cache(name: &str, files: &TufFiles) -> Result<Self, TrustRootError> {
        let refuse = |reason| TrustRootError { name: name.to_owned(), reason };
        let cache = Cache::of(files).map_err(refuse)?;
        let mut root = Self::parse(name, cache.trusted_root)?;
        root.validity.until = [root.validity.until, Some(cache.expires)].into_iter().flatten().min();
        Ok(root)
    }

    /// Reads a trust root; `name` is for messages.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, TrustRootError> {
        let refuse = |reason| TrustRootError { name: name.to_owned(), reason };
        json::read(bytes, Unused { depth: MAX_DEPTH })
            .map_err(|fault| refuse(format!("byte {}: {}", fault.at, fault.reason)))?;
        let root: TrustedRoot = serde_json::from_slice(bytes)
            .map_err(|error| refuse(format!("not a Sigstore trust root: {error}")))?;
        if !root.media_type.starts_with(MEDIA_TYPE) {
            let found = shown(&root.media_type);
            return Err(refuse(format!("mediaType is {found:?}; expected {MEDIA_TYPE:?} and a version")));
        }
        if root.certificate_authorities.is_empty() && root.tlogs.is_empty() {
            return Err(refuse("it has neither a certificate authority nor a transparency log".into()));
        }
        let validity = validity(&root);
        let verifier = Verifier::new(root).map_err(refuse)?;
        Ok(Self { name: name.to_owned(), sha256: sha256(bytes), validity, verifier })
    }

    /// What it was loaded from.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// SHA-256 of the file.
    pub fn sha256(&self) -> Sha256 {
        self.sha256
    }

    /// Whether it is still new enough.
    pub fn validity(&self) -> Validity {
        self.validity
    }
}

fn validity(root: &TrustedRoot) -> Validity {
    let kinds: [Vec<Option<TimeRange>>; 4] = [
        root.certificate_authorities.iter().map(|of| of.valid_for).collect(),
        root.tlogs.iter().map(|of| of.public_key.valid_for).collect(),
        root.ctlogs.iter().map(|of| of.public_key.valid_for).collect(),
        root.timestamp_authorities.iter().map(|of| of.valid_for).collect(),
    ];
    // A kind has ended when the last of its services has; one without an end does not end.
    let ends = kinds.iter().filter_map(|kind| {
        let ends: Option<Vec<_>> = kind.iter().map(|range| range.and_then(|range| range.end)).collect();
        ends.and_then(|ends| ends.into_iter().max())
    });
    let starts = kinds.iter().flatten().filter_map(|range| range.map(|range| range.start));
    Validity { newest: starts.max().map(SystemTime::from), until: ends.min().map(SystemTime::from) }
}

/// Reads a file of bounded size.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(|error| {
        let file = file.display();
        format!("cannot open {file}: {error}; expected \"embedded\", \"embedded:github\", a trusted_root.json or a TUF cache")
    })?;
    opened.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| format!("cannot read: {error}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("{}: larger than {MAX_BYTES} bytes", file.display()));
    }
    Ok(bytes)
}

/// The first of these files that exists.
pub(super) fn first_file(directory: &Path, names: &[&str]) -> Option<PathBuf> {
    names.iter().map(|name| directory.join(name)).find(|path| path.is_file())
}
