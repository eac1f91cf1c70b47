//! Sigstore's verification, by the crate `sigstore-verify`, which no other file names.
//!
//! What it checks: the certificate's chain to Fulcio at every proven time, its use, the SCT, RFC 3161 times, Rekor's promise,
//! inclusion proof and checkpoint (v1 and v2), the signature, and that the log's entry is about this signature. What it does
//! not, is done here (that a log's key was valid when it signed a checkpoint) or by the callers: who may sign, the payload type, the
//! statement's type and kind, a key-signed bundle without any time.

use std::time::SystemTime;

use sigstore_crypto::{KeyAlgorithm, verify_signature, verify_signature_prehashed};
use sigstore_trust_root::{TransparencyLog, TrustedRoot};
use sigstore_types::{Artifact, Bundle, DerPublicKey, Sha256Hash, SignatureContent};
use sigstore_verify::{PublicKeyVerificationPolicy, VerificationPolicy, VerificationResult};

use super::AttestationError;
use crate::finding::Sha256;

/// Largest bundle whose certificate or log entry is checked. `sigstore-verify` holds it several times over, its statement as a
/// tree, before the signature is known to be good. GitHub writes documents of at most 16 MB.
const MAX_BUNDLE_BYTES: usize = 32 << 20;

/// A trust root that is ready to verify with.
pub(super) struct Verifier {
    inner: sigstore_verify::Verifier,
    root: TrustedRoot,
    /// The root has transparency logs: then each signature must be in one. GitHub's own instance has none.
    logs: bool,
    /// The root has certificate transparency logs: then each certificate must be in one.
    certificate_logs: bool,
}

/// What a bundle's evidence has proven.
#[derive(Debug)]
pub(super) struct Proven {
    /// The certificate's name for the signer, and who vouched for it; `None` of a key-signed bundle.
    pub(super) identity: Option<(String, String)>,
    /// The earliest proven time at which the signature existed.
    pub(super) time: Option<SystemTime>,
    /// The payload that was verified; empty of a signature over an artifact.
    pub(super) payload: Vec<u8>,
}

/// What a signature is over, when it is not a statement.
#[derive(Clone, Copy, Debug)]
pub enum Signed<'a> {
    /// The artifact itself.
    Bytes(&'a [u8]),
    /// Its digest, which is enough for all keys but Ed25519.
    Digest(Sha256),
}

impl<'a> Signed<'a> {
    fn artifact(self) -> Artifact<'a> {
        match self {
            Self::Bytes(bytes) => Artifact::from(bytes),
            Self::Digest(digest) => Artifact::from_digest(Sha256Hash::new(digest.0)),
        }
    }
}

impl Verifier {
    pub(super) fn new(root: TrustedRoot) -> Result<Self, String> {
        Ok(Self {
            inner: sigstore_verify::Verifier::new(&root).map_err(|error| error.to_string())?,
            logs: !root.tlogs.is_empty(),
            certificate_logs: !root.ctlogs.is_empty(),
            root,
        })
    }

    /// Verifies, and then again by those logs alone whose keys were valid at every proven time. For the checkpoint, which is all that
    /// Rekor v2 signs, `sigstore-verify` takes the key of a log that had ended long before: an old key that leaks could make
    /// entries for ever.
    fn verify(
        &self,
        bundle: &Bundle,
        signed: Signed<'_>,
        policy: &impl sigstore_verify::Policy,
    ) -> Result<VerificationResult, AttestationError> {
        let result = self.inner.verify(signed.artifact(), bundle, policy).map_err(|error| refused(&error))?;
        let was_valid = |log: &TransparencyLog| {
            let times = result.verified_timestamps();
            log.public_key.valid_for.is_none_or(|range| times.iter().all(|time| range.contains(*time)))
        };
        if !result.tlog_verified() || self.root.tlogs.iter().all(was_valid) {
            return Ok(result);
        }
        let mut root = self.root.clone();
        root.tlogs.retain(was_valid);
        sigstore_verify::Verifier::new(&root)
            .and_then(|verifier| verifier.verify(signed.artifact(), bundle, policy))
            .map_err(|error| reason(&format!("by the logs that were valid when it was signed: {error}")))
    }

    /// Verifies a bundle whose certificate names the signer. Any signer: who may sign is the caller's to check.
    pub(super) fn with_certificate(
        &self,
        bundle: &[u8],
        signed: Signed<'_>,
    ) -> Result<Proven, AttestationError> {
        let bundle = parse(bundle)?;
        let mut policy = VerificationPolicy::any_identity();
        if !self.logs {
            policy = policy.skip_tlog_unsafe();
        }
        if !self.certificate_logs {
            policy = policy.skip_sct();
        }
        let result = self.verify(&bundle, signed, &policy)?;
        let complete = result.certificate_verified()
            && result.tlog_verified() == self.logs
            && result.sct_verified() == self.certificate_logs;
        match (complete, result.identity(), result.issuer()) {
            (true, Some(identity), Some(issuer)) => {
                let identity = Some((identity.as_str().to_owned(), issuer.to_owned()));
                Ok(Proven { identity, time: earliest(&result), payload: payload(bundle) })
            }
            (true, ..) => Err(reason("the certificate names no identity and issuer")),
            (false, ..) => Err(reason("a part of the evidence was not checked")),
        }
    }

    /// Verifies a key-signed bundle together with its log entries and timestamps; `logged` says that it has entries.
    pub(super) fn with_key(
        &self,
        bundle: &[u8],
        spki: &[u8],
        logged: bool,
        signed: Signed<'_>,
    ) -> Result<Proven, AttestationError> {
        let bundle = parse(bundle)?;
        let mut policy = PublicKeyVerificationPolicy::new(DerPublicKey::from_bytes(spki));
        if !logged {
            policy = policy.skip_tlog_unsafe();
        }
        let result = self.verify(&bundle, signed, &policy)?;
        if result.tlog_verified() != logged {
            return Err(reason("the log entry was not checked"));
        }
        Ok(Proven { identity: None, time: earliest(&result), payload: payload(bundle) })
    }
}

/// The signature of a key-signed bundle without any evidence, over an artifact.
pub(super) fn message_signed_by(
    bundle: &[u8],
    spki: &[u8],
    signed: Signed<'_>,
) -> Result<(), AttestationError> {
    let bundle = parse(bundle)?;
    let SignatureContent::MessageSignature(message) = &bundle.content else {
        return Err(reason("it has no signature over an artifact"));
    };
    let key = DerPublicKey::from_bytes(spki);
    let algorithm = KeyAlgorithm::from_spki(&key).map_err(|error| reason(&error.to_string()))?;
    let digest = match signed {
        Signed::Bytes(bytes) => super::sha256(bytes),
        Signed::Digest(digest) => digest,
    };
    if let Some(stated) = &message.message_digest
        && stated.algorithm == sigstore_types::HashAlgorithm::Sha2256
        && stated.digest.as_bytes() != digest.0.as_slice()
    {
        return Err(reason("the bundle's message digest is not that of the artifact"));
    }
    let scheme = algorithm.default_signing_scheme();
    let result = match signed {
        Signed::Bytes(bytes) => verify_signature(&key, bytes, &message.signature, scheme),
        Signed::Digest(digest) => verify_signature_prehashed(&key, &digest.0, &message.signature, scheme),
    };
    result.map_err(|error| reason(&error.to_string()))
}

fn parse(bytes: &[u8]) -> Result<Bundle, AttestationError> {
    if bytes.len() > MAX_BUNDLE_BYTES {
        return Err(reason(&format!(
            "it has {} bytes, but of a bundle with a certificate or a log entry at most {MAX_BUNDLE_BYTES} are read; sign the \
             envelope with a key",
            bytes.len()
        )));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| reason(&error.to_string()))?;
    Bundle::from_json(text).map_err(|error| {
        let text = error.to_string();
        if text.contains("unsupported Rekor entry format: intoto/0.0.1") {
            return reason(
                "its log entry is of the kind intoto/0.0.1, which does not hold the signature; attest again with a newer \
                 cosign, which writes dsse/0.0.1",
            );
        }
        reason(&text)
    })
}

fn payload(bundle: Bundle) -> Vec<u8> {
    match bundle.content {
        SignatureContent::DsseEnvelope(envelope) => envelope.payload.into_bytes(),
        _ => Vec::new(),
    }
}

fn earliest(result: &VerificationResult) -> Option<SystemTime> {
    result.verified_timestamps().iter().min().map(|time| SystemTime::from(*time))
}

fn reason(text: &str) -> AttestationError {
    AttestationError::Bundle { reason: text.to_owned() }
}

fn refused(error: &sigstore_verify::Error) -> AttestationError {
    use sigstore_verify::{CertificateError, Error, TransparencyLogError};
    let text = error.to_string();
    let by_root = matches!(
        error,
        Error::TransparencyLog(TransparencyLogError::UnknownLog { .. })
            | Error::Certificate(CertificateError::NoValidAuthority { .. })
    ) || ["No log key", "No matching Rekor key", "chain is invalid"]
        .iter()
        .any(|part| text.contains(part));
    let advice = "; if the signer uses other Sigstore services, or newer ones, name their trust root";
    AttestationError::Bundle { reason: if by_root { text + advice } else { text } }
}
