//! Where attestations come from besides the drop directory: OCI registries and OCI layout directories, always by digest.
//!
//! A source finds and hands over; whether a signature counts is [`verify`](super::verify)'s to say. Nothing of what a source says is
//! believed: every document and every blob is hashed again, a referrer's own `subject` must name the image, and sizes, numbers and
//! times are limited. What is looked at, in this order, for the index and for each platform manifest:
//!
//! 1. referrers (OCI 1.1), else the tag `sha256-<hex>`: Sigstore bundles and DSSE envelopes;
//! 2. the tag `sha256-<hex>.att`: cosign's DSSE envelopes, with the certificate and the log entry as annotations;
//! 3. BuildKit's attestation manifests in the index. They are not signed: they count only through a signature over the index
//!    ([`Form::Statement`], [`Found::verify`]);
//! 4. the tag `sha256-<hex>.sbom` (`cosign attach sbom`) is looked for to be able to say that it is never evidence: nobody signed it.

mod complete;
mod layout;
pub mod oci;
mod reference;
#[cfg(feature = "registry")]
pub mod registry;
mod signed_index;
mod walk;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;

pub use complete::Complete;
pub use layout::Layout;
pub use reference::{NotReference, Reference};

use super::{
    AttestationError, Limits, Part, Policy, Statement, Subject, Verified, cosign, statement, verify,
};
use crate::config;
use crate::finding::Sha256;
use oci::{Malformed, Platform};

/// Why a source did not give what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Content that is not what its digest says.
    #[error(
        "refused: the content has sha256:{found}, but sha256:{asked} was asked for; the source is damaged or lies"
    )]
    Digest {
        /// What was asked for.
        asked: Sha256,
        /// What came.
        found: Sha256,
    },
    /// Content that is not as long as its descriptor says.
    #[error("refused: {found} bytes came, but its descriptor says {said}")]
    Size {
        /// What the descriptor says.
        said: u64,
        /// What came.
        found: u64,
    },
    /// Too large.
    #[error(
        "refused: more than {limit} bytes; what an image's attestations may have together is attestation.max_envelope_bytes"
    )]
    TooLarge {
        /// What may be read.
        limit: u64,
    },
    /// Not a document of this form.
    #[error("refused: {0}")]
    Malformed(#[from] Malformed),
    /// The registry does not answer.
    #[error("{host} cannot be reached: {reason}")]
    Unreachable {
        /// The registry, or the proxy.
        host: String,
        /// What failed.
        reason: String,
    },
    /// The registry does not let us in.
    #[error("{host} refuses access: {reason}")]
    Denied {
        /// The registry.
        host: String,
        /// What it said, and which credentials it was given.
        reason: String,
    },
    /// An answer that is not one.
    #[error("{host} answers {what}")]
    Answer {
        /// The registry.
        host: String,
        /// What it answered, and what was expected.
        what: String,
    },
    /// A credential file that cannot be used.
    #[error("{}: {reason}", file.display())]
    Credentials {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },
    /// A file that cannot be read.
    #[error("{}: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// The system refuses something.
    #[error("{0}")]
    System(#[from] io::Error),
    /// The registry is wanted, but this program was built without it.
    #[error(
        "this muster was built without registries: build it with `--features registry`, or set attestation.registry.enabled = false"
    )]
    NotBuilt,
}

impl SourceError {
    /// Asking for anything else now would end the same way.
    fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// What a candidate is, and what else it takes to verify it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// A Sigstore bundle.
    Bundle,
    /// A DSSE envelope. The annotations of its layer have what its signer got beside it: `dev.sigstore.cosign/certificate`, `…/chain`,
    /// `…/bundle` (the log entry), `…/rfc3161timestamp`; none of them is signed.
    Envelope {
        /// Annotations of the layer.
        annotations: BTreeMap<String, String>,
    },
    /// An in-toto statement that nobody signed: authentic only if a signature over this index is.
    Statement {
        /// The index through which it was reached, by digests all the way.
        needs_signed_index: Sha256,
    },
    /// cosign's signature over an image of before bundles: the payload ("simple signing").
    SimpleSigning {
        /// The signature over the payload, base64.
        signature: String,
        /// Annotations of the layer, as those of an envelope.
        annotations: BTreeMap<String, String>,
    },
    /// cosign's signature over an image since bundles: a Sigstore bundle whose statement says no more than that.
    ImageBundle,
}

impl Form {
    /// For messages.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Bundle => "Sigstore bundle",
            Self::Envelope { .. } => "DSSE envelope",
            Self::Statement { .. } => "unsigned in-toto statement",
            Self::SimpleSigning { .. } | Self::ImageBundle => "image signature",
        }
    }
}

/// Something that may be an attestation of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is, for messages.
    pub from: String,
    /// Its SHA-256, which was checked.
    pub sha256: Sha256,
    /// What it is.
    pub form: Form,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Candidate {
    /// As a file of the drop directory: the envelope or bundle, put together where the source has it in parts. `None` for what is not
    /// authentic by itself.
    pub fn to_file(&self) -> Option<Result<Vec<u8>, AttestationError>> {
        match &self.form {
            Form::Bundle => Some(Ok(self.bytes.clone())),
            Form::Envelope { annotations } => {
                Some(cosign::assemble(&self.bytes, |key| annotations.get(key).map(String::as_str)))
            }
            Form::Statement { .. } | Form::SimpleSigning { .. } | Form::ImageBundle => None,
        }
    }
}

/// Something that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Where it is.
    pub from: String,
    /// Why it was not taken.
    pub reason: String,
}

/// The digests of one platform's image, each of them hashed again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformDigests {
    /// The platform, as the configuration says.
    pub platform: Platform,
    /// The manifest.
    pub manifest: Sha256,
    /// The configuration: the image id.
    pub config: Sha256,
    /// The layers, uncompressed (`diff_ids`), the base first.
    pub layers: Vec<Sha256>,
}

/// The digests of an image that were learned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageDigests {
    /// The index.
    pub index: Option<Sha256>,
    /// Each platform.
    pub platforms: Vec<PlatformDigests>,
    /// What each index that was read lists.
    pub listed: Vec<Listed>,
}

/// What an index lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The index.
    pub index: Sha256,
    /// Its manifests.
    pub manifests: Vec<Sha256>,
    /// The one that a container runtime takes on this machine; `None`: there is none, or not all could be looked at. An error:
    /// nobody can say which.
    pub here: Result<Option<Sha256>, String>,
}

impl ImageDigests {
    /// Whether a statement about this digest is about the image: its index, a manifest or a configuration.
    pub fn has(&self, digest: &Sha256) -> bool {
        self.index.as_ref() == Some(digest)
            || self.platforms.iter().any(|of| of.manifest == *digest || of.config == *digest)
    }
}

/// What the sources hold for an image.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Its digests.
    pub digests: ImageDigests,
    /// What may be its attestations.
    pub candidates: Vec<Candidate>,
    /// What was refused or could not be read.
    pub refused: Vec<Left>,
    /// What is there and is not an attestation.
    pub others: Vec<Left>,
    /// The first source that could not be reached at all, and why.
    pub unreachable: Option<String>,
}

impl Found {
    /// Verifies one of the candidates as [`verify`](super::verify) does; an unsigned statement by a signature over its index, whose
    /// signers are then the statement's. `None`: it is a signature over the image, which says nothing but that.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn verify(
        &self,
        candidate: &Candidate,
        policy: &Policy,
        limits: &Limits,
    ) -> Option<Result<Verified, AttestationError>> {
        Some(match &candidate.form {
            Form::SimpleSigning { .. } | Form::ImageBundle => return None,
            Form::Bundle => verify(&candidate.bytes, policy, limits),
            Form::Envelope { .. } => candidate
                .to_file()
                .unwrap_or(Err(AttestationError::NotAnAttestation))
                .and_then(|bytes| verify(&bytes, policy, limits)),
            Form::Statement { needs_signed_index } => {
                signed_index::verify(self, needs_signed_index, policy, limits).and_then(|(signers, time)| {
                    let mut statement = Statement::parse(candidate.bytes.clone(), 0, limits)?;
                    // Who signed an index has not said anything of other images.
                    let is_here = |subject: &Subject| subject.sha256.is_some_and(|of| self.digests.has(&of));
                    statement.subjects.retain(is_here);
                    if statement.subjects.is_empty() {
                        let reason =
                            "none of its subjects is of the index through which it was reached".to_owned();
                        return Err(AttestationError::Malformed { part: Part::Statement, at: 0, reason });
                    }
                    Ok(Verified { statement, signers, sha256: candidate.sha256, time })
                })
            }
        })
    }

    /// The digests that a candidate claims to be about, verified or not.
    pub fn claimed(candidate: &Candidate, limits: &Limits) -> Vec<Sha256> {
        match &candidate.form {
            Form::Statement { .. } => statement::claimed(&candidate.bytes, limits),
            _ => super::claimed_subjects(&candidate.bytes, limits),
        }
    }

    /// Nothing was left out because it could not be read.
    pub fn is_whole(&self) -> bool {
        self.unreachable.is_none() && self.refused.is_empty()
    }

    fn add(&mut self, other: Self) {
        let Self { digests, candidates, refused, others, unreachable } = other;
        self.digests.index = self.digests.index.or(digests.index);
        for platform in digests.platforms {
            if !self.digests.platforms.iter().any(|known| known.manifest == platform.manifest) {
                self.digests.platforms.push(platform);
            }
        }
        for listed in digests.listed {
            match self.digests.listed.iter_mut().find(|known| known.index == listed.index) {
                // One source may have more of it than the other.
                Some(known) if !matches!(known.here, Ok(Some(_))) && listed.here != Ok(None) => {
                    *known = listed;
                }
                Some(_) => {}
                None => self.digests.listed.push(listed),
            }
        }
        for candidate in candidates {
            if !self
                .candidates
                .iter()
                .any(|known| known.sha256 == candidate.sha256 && known.form == candidate.form)
            {
                self.candidates.push(candidate);
            }
        }
        self.refused.extend(refused);
        self.others.extend(others);
        self.unreachable = self.unreachable.take().or(unreachable);
    }
}

/// Which platforms of an index are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What can run on this machine.
    Here,
    /// All.
    All,
}

/// The sources of a configuration.
pub struct Sources {
    layouts: Vec<Layout>,
    #[cfg(feature = "registry")]
    registry: Option<registry::Registry>,
    limits: Limits,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("layouts", &self.layouts).finish_non_exhaustive()
    }
}

impl Sources {
    /// The sources that `config` names.
    ///
    /// # Errors
    /// When a CA file cannot be used, or registries are enabled in a program that was built without them.
    pub fn new(config: &config::Attestation) -> Result<Self, SourceError> {
        Ok(Self {
            layouts: config.layouts.iter().cloned().map(Layout::new).collect(),
            #[cfg(feature = "registry")]
            registry: if config.registry.enabled {
                Some(registry::Registry::new(&config.registry)?)
            } else {
                None
            },
            #[cfg(not(feature = "registry"))]
            limits: if config.registry.enabled {
                return Err(SourceError::NotBuilt);
            } else {
                Limits::from(config)
            },
            #[cfg(feature = "registry")]
            limits: Limits::from(config),
        })
    }

    /// There is no source to ask.
    pub fn is_empty(&self) -> bool {
        #[cfg(feature = "registry")]
        let no_registry = self.registry.is_none();
        #[cfg(not(feature = "registry"))]
        let no_registry = true;
        self.layouts.is_empty() && no_registry
    }

    /// Everything that the sources hold for the image with these digests (index, manifest or configuration; what is known). A registry
    /// is asked only if `reference` says which; its digest counts as one of `digests`.
    pub async fn candidates(&self, reference: Option<&Reference>, digests: &[Sha256], scope: Scope) -> Found {
        let mut all: Vec<Sha256> = reference.map(Reference::digest).into_iter().collect();
        for digest in digests {
            if !all.contains(digest) {
                all.push(*digest);
            }
        }
        let mut found = Found::default();
        for layout in &self.layouts {
            match layout.open().await {
                Ok(open) => {
                    found.add(walk::walk(walk::Store::Layout(&open), &all, scope, &self.limits).await);
                }
                Err(error) => {
                    found.unreachable.get_or_insert(error.to_string());
                }
            }
        }
        #[cfg(feature = "registry")]
        if let (Some(registry), Some(reference)) = (&self.registry, reference) {
            found.add(registry.candidates(reference, &all, scope, &self.limits).await);
        }
        found
    }
}
