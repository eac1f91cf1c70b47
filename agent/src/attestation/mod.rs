//! Envelopes, signatures, binding to the image digest; where attestations come from.
//!
//! The order is fixed: envelope, signatures, statement, and only then (in [`crate::images`]) the document. Nothing that
//! no configured key has signed reaches a parser behind the envelope's.

pub mod directory;
pub mod envelope;
mod json;
pub mod key;
pub mod sign;
pub mod source;
pub mod statement;
#[cfg(test)]
mod tests;

use std::fmt;

use aws_lc_rs::digest;

pub use envelope::Envelope;
pub use key::{KeyError, KeyId, Keys, PrivateKey};
pub use statement::{PredicateType, Statement, Subject};

use crate::config;
use crate::finding::Sha256;

/// What is read of an attestation at most.
#[derive(Clone, Copy, Debug)]
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
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Envelope => "envelope",
            Self::Statement => "statement (decoded payload)",
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
    #[error("no key to verify with; name the signers' public keys in attestation.keys (or --key)")]
    NoKeys,
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

/// A statement that enough keys have signed.
#[derive(Debug)]
pub struct Verified {
    /// The statement.
    pub statement: Statement,
    /// The keys whose signatures are valid, each once, ordered.
    pub keys: Vec<KeyId>,
    /// SHA-256 of the envelope.
    pub sha256: Sha256,
}

/// SHA-256 of some bytes.
pub fn sha256(bytes: &[u8]) -> Sha256 {
    let mut out = Sha256::default();
    out.0.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Verifies an envelope: at least `threshold` different `keys` must have signed it. Then its statement is read.
///
/// Whether the statement is about the image in question is the caller's to ask ([`Statement::names`]).
///
/// # Errors
/// Why it is refused.
pub fn verify(
    envelope: &[u8],
    keys: &Keys,
    threshold: usize,
    limits: &Limits,
) -> Result<Verified, AttestationError> {
    if keys.is_empty() {
        return Err(AttestationError::NoKeys);
    }
    if threshold == 0 || threshold > keys.len() {
        return Err(AttestationError::Threshold { threshold, keys: keys.len() });
    }
    let parsed = Envelope::parse(envelope, limits)?;
    let payload = parsed.payload()?;
    let signers = keys.signers(&payload, &parsed.signatures);
    if signers.len() < threshold {
        let ids: Vec<_> = parsed.signatures.iter().filter(|s| !s.key_id.is_empty()).collect();
        return Err(AttestationError::Signatures {
            valid: signers.len(),
            threshold,
            signatures: parsed.signatures.len(),
            claimed: match ids.first() {
                Some(first) => format!(" (key id {:?})", json::shown(&first.key_id)),
                None => String::new(),
            },
            keys: keys.short_ids(),
        });
    }
    let sha256 = sha256(envelope);
    let (buffer, start) = payload.into_parts();
    let statement = Statement::parse(buffer, start, limits)?;
    Ok(Verified { statement, keys: signers, sha256 })
}

/// The image digests that an envelope claims to be about, verified or not. Only to tell whose attestation was refused.
pub fn claimed_subjects(envelope: &[u8], limits: &Limits) -> Vec<Sha256> {
    let payload = Envelope::parse(envelope, limits).and_then(|envelope| envelope.payload());
    payload.map_or_else(
        |_| Vec::new(),
        |payload| {
            let (buffer, start) = payload.into_parts();
            statement::claimed(&buffer[start..], limits)
        },
    )
}
