//! Envelopes, signatures, binding to the image digest; where attestations come from.
//!
//! The order is fixed: envelope, signatures, statement, and only then (in [`crate::images`]) the document. Nothing that
//! no configured key has signed reaches a parser behind the envelope's; of what a certificate has signed, `sigstore-verify`
//! reads the statement first, in bundles of bounded size.

pub mod cosign;
pub mod directory;
pub mod envelope;
mod input;
mod json;
pub mod key;
pub mod policy;
pub mod provenance;
pub mod remembered;
pub mod sign;
mod sigstore;
pub mod source;
pub mod statement;
#[cfg(test)]
pub(crate) mod tests;
pub mod trust_root;
mod tuf;
pub mod vex;

use std::fmt;
use std::time::SystemTime;

use aws_lc_rs::digest;

pub use envelope::Envelope;
pub use key::{KeyError, KeyId, Keys, PrivateKey};
pub use policy::{Policy, PolicyError};
pub use provenance::Provenance;
pub use remembered::{Fault, Remembered};
pub use sigstore::Signed;
pub use statement::{PredicateType, Statement, Subject};
pub use trust_root::{TrustRoot, TrustRootError};
pub use tuf::TufFiles;
pub use vex::Vex;

use input::{Input, Material};

use crate::config;
use crate::finding::Sha256;
use crate::mark::without_mark;

/// What is read of an attestation at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an envelope.
    pub max_envelope_bytes: u64,
    /// Bytes of an SBOM.
    pub max_sbom_bytes: u64,
    /// Levels of objects and arrays.
    pub max_json_depth: u32,
}

impl From<&config::Attestation> for Limits {
    fn from(config: &config::Attestation) -> Self {
        Self {
            max_envelope_bytes: config.max_envelope_bytes,
            max_sbom_bytes: config.max_sbom_bytes,
            max_json_depth: config.max_json_depth,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::from(&config::Attestation::default())
    }
}

impl Limits {
    fn check_envelope(&self, bytes: usize) -> Result<(), AttestationError> {
        let (bytes, limit) = (u64::try_from(bytes).unwrap_or(u64::MAX), self.max_envelope_bytes);
        if bytes > limit { Err(AttestationError::EnvelopeTooLarge { bytes, limit }) } else { Ok(()) }
    }
    fn check_sbom(&self, bytes: usize) -> Result<(), AttestationError> {
        let (bytes, limit) = (u64::try_from(bytes).unwrap_or(u64::MAX), self.max_sbom_bytes);
        if bytes > limit { Err(AttestationError::SbomTooLarge { bytes, limit }) } else { Ok(()) }
    }
}

/// The part of an attestation in which a byte is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The envelope as it was read.
    Envelope,
    /// The payload after base64.
    Statement,
    /// The statement's document.
    Predicate,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Envelope => "envelope",
            Self::Statement => "statement (decoded payload)",
            Self::Predicate => "predicate",
        })
    }
}

/// Why an attestation is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum AttestationError {
    /// Larger than the limit.
    #[error("envelope of {bytes} bytes, but at most {limit} are read; raise attestation.max_envelope_bytes")]
    EnvelopeTooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Larger than the limit.
    #[error("SBOM of {bytes} bytes, but at most {limit} are read; raise attestation.max_sbom_bytes")]
    SbomTooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Not JSON of the expected form.
    #[error("{part}, byte {at}: {reason}")]
    Malformed {
        /// In which part.
        part: Part,
        /// Bytes before the place.
        at: usize,
        /// What was expected and found.
        reason: String,
    },
    /// Not base64.
    #[error("{part} is not base64 (standard or URL alphabet): {reason}")]
    Base64 {
        /// The envelope's member.
        part: &'static str,
        /// What the decoder says.
        reason: String,
    },
    /// No key to verify with.
    #[error(
        "signed with a key, but there is no key to verify with; name the signers' public keys in attestation.keys (or --key)"
    )]
    NoKeys,
    /// No identity may sign.
    #[error(
        "signed with a certificate, but no identity may sign so; name the signer and its issuer in attestation.identities (or \
         --identity and --issuer)"
    )]
    NoIdentities,
    /// A signer who may not sign.
    #[error("signed by {identity:?} (issuer {issuer:?}), which may not sign; expected {allowed}")]
    Identity {
        /// Whom the certificate names.
        identity: String,
        /// Who vouched for it.
        issuer: String,
        /// Who may sign.
        allowed: String,
    },
    /// A certificate, log entry or timestamp is refused, or what they are about.
    #[error("the Sigstore bundle is refused: {reason}")]
    Bundle {
        /// Why.
        reason: String,
    },
    /// A statement that is signed only through its index, and that is not.
    #[error(
        "nobody signed this statement itself, nor the index sha256:{index} through which it was reached: {reason}"
    )]
    UnsignedIndex {
        /// The index.
        index: Sha256,
        /// Why it does not count as signed.
        reason: String,
    },
    /// A bundle whose signature is over an artifact.
    #[error(
        "a signature over an artifact, not an attestation; name the artifact: muster attest verify --artifact FILE"
    )]
    NotAnAttestation,
    /// An attestation where a signature over an artifact was expected.
    #[error("an attestation, not a signature over an artifact")]
    NotASignature,
    /// The threshold cannot be met by the configured keys.
    #[error("threshold {threshold} with {keys} different keys; expected a number from 1 to {keys}")]
    Threshold {
        /// The threshold.
        threshold: usize,
        /// Different keys.
        keys: usize,
    },
    /// Too few valid signatures.
    #[error(
        "signed by {valid} of the configured keys, but {threshold} must have signed: the envelope has {signatures} \
         signature(s){claimed}, the keys are {keys}; the content was changed, or another key signed it"
    )]
    Signatures {
        /// Different keys whose signatures are valid.
        valid: usize,
        /// How many are needed.
        threshold: usize,
        /// Signatures of the envelope.
        signatures: usize,
        /// The key ids that the envelope claims, as a part of the sentence.
        claimed: String,
        /// The configured keys, shortened.
        keys: String,
    },
}

impl AttestationError {
    fn malformed(part: Part, fault: json::Fault) -> Self {
        Self::Malformed { part, at: fault.at, reason: fault.reason }
    }
}

/// Who has signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signers {
    /// The keys whose signatures are valid, each once, ordered.
    pub keys: Vec<KeyId>,
    /// Whom the certificate names; then there is no key.
    pub identity: Option<SignerIdentity>,
}

/// A signer whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignerIdentity {
    /// Its email address or URI.
    pub identity: String,
    /// Who vouched for it.
    pub issuer: String,
}

impl Signers {
    /// Each signer by name: a key's id, or `https://… (issuer https://…)`.
    pub fn names(&self) -> Vec<String> {
        let identity = self.identity.iter().map(|of| format!("{} (issuer {})", of.identity, of.issuer));
        self.keys.iter().map(ToString::to_string).chain(identity).collect()
    }
}

/// As people read it: `key 12…, key 34…` or `https://… (issuer https://…)`.
impl fmt::Display for Signers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, key) in self.keys.iter().enumerate() {
            write!(f, "{}key {key}", if at == 0 { "" } else { ", " })?;
        }
        match &self.identity {
            Some(SignerIdentity { identity, issuer }) => write!(f, "{identity} (issuer {issuer})"),
            None => Ok(()),
        }
    }
}

/// A statement that those who may sign have signed.
#[derive(Debug)]
pub struct Verified {
    /// The statement.
    pub statement: Statement,
    /// Who has signed.
    pub signers: Signers,
    /// SHA-256 of the envelope or bundle.
    pub sha256: Sha256,
    /// When, if a log or a timestamp authority has proven it.
    pub time: Option<SystemTime>,
}

/// A signature over an artifact by someone who may sign.
#[derive(Debug)]
pub struct VerifiedArtifact {
    /// Who has signed.
    pub signers: Signers,
    /// SHA-256 of the bundle.
    pub sha256: Sha256,
    /// When, if a log or a timestamp authority has proven it.
    pub time: Option<SystemTime>,
}

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> Sha256 {
    let mut out = Sha256::default();
    out.0.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Verifies an attestation, a DSSE envelope or a Sigstore bundle: enough of the policy's keys, or one of its identities, must
/// have signed it. Then its statement is read.
///
/// Whether the statement is about the image in question is the caller's to ask ([`Statement::names`]).
///
/// # Errors
/// Why it is refused.
pub fn verify(bytes: &[u8], policy: &Policy, limits: &Limits) -> Result<Verified, AttestationError> {
    let SignedPayload { buffer, start, signers, time } = verify_payload(bytes, policy, limits)?;
    let statement = Statement::parse(buffer, start, limits)?;
    Ok(Verified { statement, signers, sha256: sha256(bytes), time })
}

/// A payload that those who may sign have signed: what follows `start` in the buffer.
struct SignedPayload {
    buffer: Vec<u8>,
    start: usize,
    signers: Signers,
    time: Option<SystemTime>,
}

fn verify_payload(bytes: &[u8], policy: &Policy, limits: &Limits) -> Result<SignedPayload, AttestationError> {
    let bytes = without_mark(bytes);
    let (envelope, material) = match Input::parse(bytes, limits)? {
        Input::Envelope(envelope) => (envelope, None),
        Input::Bundle(bundle) => {
            (bundle.envelope.ok_or(AttestationError::NotAnAttestation)?, Some(bundle.material))
        }
    };
    let payload = envelope.payload()?;
    if let Some(Material { certificate: true, .. }) = material {
        policy.check_may_certify()?;
        let subject = statement::first_subject(payload.bytes(), limits)?;
        // Not needed any more, and may be large.
        drop((payload, envelope));
        let proven = policy.trust_root.verifier.with_certificate(bytes, Signed::Digest(subject))?;
        let signers = policy.signer(&proven)?;
        return Ok(SignedPayload { buffer: proven.payload, start: 0, signers, time: proven.time });
    }
    let keys = policy.signed_by_keys(&payload, &envelope.signatures)?;
    let time = match material {
        Some(material) if material.has_evidence() => {
            let subject = statement::first_subject(payload.bytes(), limits)?;
            let proven = policy.evidence(bytes, material, &keys, Signed::Digest(subject))?;
            if proven.payload != payload.bytes() {
                return Err(AttestationError::Bundle { reason: "its payload has two readings".into() });
            }
            proven.time
        }
        _ => None,
    };
    let (buffer, start) = payload.into_parts();
    Ok(SignedPayload { buffer, start, signers: Signers { keys, identity: None }, time })
}

/// Verifies a Sigstore bundle whose signature is over an artifact, by one key or identity of the policy.
///
/// # Errors
/// Why it is refused.
pub fn verify_artifact(
    bytes: &[u8],
    artifact: Signed<'_>,
    policy: &Policy,
    limits: &Limits,
) -> Result<VerifiedArtifact, AttestationError> {
    let Input::Bundle(bundle) = Input::parse(bytes, limits)? else {
        return Err(AttestationError::NotASignature);
    };
    if bundle.envelope.is_some() {
        return Err(AttestationError::NotASignature);
    }
    let (sha256, bytes) = (sha256(bytes), without_mark(bytes));
    if bundle.material.certificate {
        policy.check_may_certify()?;
        let proven = policy.trust_root.verifier.with_certificate(bytes, artifact)?;
        return Ok(VerifiedArtifact { signers: policy.signer(&proven)?, sha256, time: proven.time });
    }
    let (key, time) = policy.artifact_key(bytes, bundle.material, artifact)?;
    Ok(VerifiedArtifact { signers: Signers { keys: vec![key], identity: None }, sha256, time })
}

/// The file is a bundle whose signature is over an artifact: for [`verify_artifact`], not for [`verify`].
///
/// # Errors
/// When it is neither an envelope nor a bundle.
pub fn is_over_artifact(bytes: &[u8], limits: &Limits) -> Result<bool, AttestationError> {
    Ok(matches!(Input::parse(bytes, limits)?, Input::Bundle(bundle) if bundle.envelope.is_none()))
}

/// The image digests that an envelope or bundle claims to be about, verified or not. Only to tell whose attestation was refused.
pub fn claimed_subjects(bytes: &[u8], limits: &Limits) -> Vec<Sha256> {
    let payload = Input::parse(bytes, limits).and_then(|input| {
        let envelope = match input {
            Input::Envelope(envelope) => Some(envelope),
            Input::Bundle(bundle) => bundle.envelope,
        };
        envelope.ok_or(AttestationError::NotAnAttestation)?.payload()
    });
    payload.map_or_else(|_| Vec::new(), |payload| statement::claimed(payload.bytes(), limits))
}
