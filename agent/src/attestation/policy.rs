//! Who may sign: keys of which enough must have, or identities of which one must.

use std::time::SystemTime;

use super::envelope::{Payload, Signature};
use super::input::Material;
use super::key::{KeyError, KeyId, Keys};
use super::sigstore::{self, Proven, Signed};
use super::{AttestationError, SignerIdentity, Signers, TrustRoot, TrustRootError, sha256};
use crate::config::Identity;
use crate::finding::Sha256;

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A key is refused.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The trust root is refused.
    #[error(transparent)]
    TrustRoot(#[from] TrustRootError),
    /// The threshold does not fit the keys.
    #[error("attestation.threshold: {0}")]
    Threshold(AttestationError),
}

/// Who may sign, and whom to believe about it.
#[derive(Debug)]
pub struct Policy {
    keys: Keys,
    threshold: usize,
    identities: Vec<Identity>,
    pub(super) trust_root: TrustRoot,
}

impl Policy {
    /// At least `threshold` different `keys` must have signed, or one of the `identities`.
    ///
    /// # Errors
    /// When the threshold cannot be met by the keys.
    pub fn new(
        keys: Keys,
        threshold: usize,
        identities: Vec<Identity>,
        trust_root: TrustRoot,
    ) -> Result<Self, AttestationError> {
        if !keys.is_empty() && !(1..=keys.len()).contains(&threshold) {
            return Err(AttestationError::Threshold { threshold, keys: keys.len() });
        }
        Ok(Self { keys, threshold, identities, trust_root })
    }

    /// Nobody may sign.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.identities.is_empty()
    }

    /// Somebody may sign with a certificate, so that the trust root decides about attestations.
    pub fn has_identities(&self) -> bool {
        !self.identities.is_empty()
    }

    /// The trust root.
    pub fn trust_root(&self) -> &TrustRoot {
        &self.trust_root
    }

    /// Differs between policies that could decide differently.
    pub fn sha256(&self) -> Sha256 {
        let mut text = format!("{}\n{}\n", self.trust_root.sha256(), self.threshold);
        let mut keys: Vec<_> = self.keys.ids().map(|id| format!("{id}\n")).collect();
        keys.sort_unstable();
        text.extend(keys);
        for Identity { identity, issuer } in &self.identities {
            text += &format!("{identity:?} {issuer:?}\n");
        }
        sha256(text.as_bytes())
    }

    /// The keys that have signed, when they are enough.
    pub(super) fn signed_by_keys(
        &self,
        payload: &Payload,
        signatures: &[Signature<'_>],
    ) -> Result<Vec<KeyId>, AttestationError> {
        if self.keys.is_empty() {
            return Err(AttestationError::NoKeys);
        }
        let signers = self.keys.signers(payload, signatures);
        if signers.len() >= self.threshold {
            return Ok(signers);
        }
        let claimed = signatures.iter().find(|signature| !signature.key_id.is_empty());
        Err(AttestationError::Signatures {
            valid: signers.len(),
            threshold: self.threshold,
            signatures: signatures.len(),
            claimed: match claimed {
                Some(first) => format!(" (key id {:?})", super::json::shown(&first.key_id)),
                None => String::new(),
            },
            keys: self.keys.short_ids(),
        })
    }

    /// Checks the log entries and timestamps of a bundle that one of `signers` has signed.
    pub(super) fn evidence(
        &self,
        bundle: &[u8],
        material: Material,
        signers: &[KeyId],
        signed: Signed<'_>,
    ) -> Result<Proven, AttestationError> {
        let spki = self.keys.spkis().find(|(id, _)| signers.contains(id)).map(|(_, spki)| spki);
        let spki = spki.ok_or(AttestationError::NoKeys)?;
        self.trust_root.verifier.with_key(bundle, spki, material.log_entries > 0, signed)
    }

    /// The key whose signature over the artifact a bundle has, and when it was proven to exist.
    pub(super) fn artifact_key(
        &self,
        bundle: &[u8],
        material: Material,
        artifact: Signed<'_>,
    ) -> Result<(KeyId, Option<SystemTime>), AttestationError> {
        let mut refusal = AttestationError::NoKeys;
        if self.threshold > 1 {
            // A bundle has one signature.
            let reason = format!("it is signed by one key, but {} must have signed", self.threshold);
            return Err(AttestationError::Bundle { reason });
        }
        for (id, spki) in self.keys.spkis() {
            let result = if material.has_evidence() {
                let verifier = &self.trust_root.verifier;
                verifier.with_key(bundle, spki, material.log_entries > 0, artifact).map(|proven| proven.time)
            } else {
                sigstore::message_signed_by(bundle, spki, artifact).map(|()| None)
            };
            match result {
                Ok(time) => return Ok((id, time)),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// Somebody may sign with a certificate.
    pub(super) fn check_may_certify(&self) -> Result<(), AttestationError> {
        if self.identities.is_empty() { Err(AttestationError::NoIdentities) } else { Ok(()) }
    }

    /// The signer whom a verified certificate names, when it may sign.
    pub(super) fn signer(&self, proven: &Proven) -> Result<Signers, AttestationError> {
        let Some((identity, issuer)) = &proven.identity else { return Err(AttestationError::NoIdentities) };
        let (identity, issuer) = (identity.clone(), issuer.clone());
        if self.identities.iter().any(|allowed| allowed.covers(&identity, &issuer)) {
            return Ok(Signers { keys: Vec::new(), identity: Some(SignerIdentity { identity, issuer }) });
        }
        let allowed: Vec<_> =
            self.identities.iter().map(|of| format!("{:?} (issuer {:?})", of.identity, of.issuer)).collect();
        Err(AttestationError::Identity { identity, issuer, allowed: allowed.join(" or ") })
    }
}
