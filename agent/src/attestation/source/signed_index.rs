//! What BuildKit attests is authentic only if the index is: cosign's signature over the index ("simple signing") vouches for every
//! digest in it, and so for the attestation manifests and their statements.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::oci;
use super::{Candidate, Form, Found};
use crate::attestation::envelope::{Payload, Signature};
use crate::attestation::{KeyId, Keys};
use crate::finding::Sha256;

/// `critical.type` of a signature over an image.
const TYPE: &str = "cosign container image signature";

#[derive(Deserialize)]
struct Simple {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(rename = "type")]
    kind: String,
    image: Image,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// The keys that signed this index, if they are at least `threshold`.
///
/// # Errors
/// Why the index does not count as signed.
pub fn signers(found: &Found, index: &Sha256, keys: &Keys, threshold: usize) -> Result<Vec<KeyId>, String> {
    let (mut signers, mut reasons) = (Vec::new(), Vec::new());
    for candidate in &found.candidates {
        match about(candidate, index, keys) {
            None => {}
            Some(Ok(by)) => signers.extend(by),
            Some(Err(reason)) => reasons.push(format!("{}: {reason}", candidate.from)),
        }
    }
    signers.sort_unstable();
    signers.dedup();
    if signers.len() >= threshold.max(1) {
        return Ok(signers);
    }
    let why =
        if reasons.is_empty() { "there is no signature over it".to_owned() } else { reasons.join("; ") };
    Err(format!(
        "nobody signed this statement itself, and the index sha256:{index} through which it was reached is signed by {} of the \
         configured keys, not {}: {why}; sign the index (`cosign sign`), or attest the SBOM",
        signers.len(),
        threshold.max(1)
    ))
}

/// `None` when the candidate is not a signature over an image.
fn about(candidate: &Candidate, index: &Sha256, keys: &Keys) -> Option<Result<Vec<KeyId>, String>> {
    let Form::ImageSignature { signature } = &candidate.form else { return None };
    let signed = || {
        let bytes =
            STANDARD.decode(signature).map_err(|error| format!("the signature is not base64: {error}"))?;
        let payload = Payload::new(candidate.bytes.clone(), 0);
        let by = keys.signers(&payload, &[Signature { key_id: "".into(), bytes }]);
        if by.is_empty() {
            return Err("none of the configured keys made this signature".to_owned());
        }
        let simple: Simple = oci::read(&candidate.bytes).map_err(|error| error.to_string())?;
        if simple.critical.kind != TYPE {
            return Err(format!("critical.type is {:?}; expected {TYPE:?}", simple.critical.kind));
        }
        let about = simple.critical.image.digest;
        match about.parse::<Sha256>() {
            Ok(about) if about == *index => Ok(by),
            _ => Err(format!("the signature is about {about:?}")),
        }
    };
    Some(signed())
}
