//! What BuildKit attests is authentic only if the index is: cosign's signature over the index vouches for every digest in it, and so for
//! the attestation manifests and their statements.

use std::collections::BTreeMap;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{Candidate, Form, Found, oci};
use crate::attestation::envelope::{Payload, Signature};
use crate::attestation::{
    AttestationError, Limits, Policy, Signed, Signers, cosign, sha256, statement, verify_artifact,
    verify_payload,
};
use crate::finding::Sha256;

/// The type of a statement that only says that the image is signed (cosign 3).
pub(super) const PREDICATE_TYPE: &str = "https://sigstore.dev/cosign/sign/v1";
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

/// The statement's members that matter here.
#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "predicateType")]
    predicate_type: String,
}

type By = (Signers, Option<SystemTime>);

/// Who signed this index, when they may.
pub(super) fn verify(
    found: &Found,
    index: &Sha256,
    policy: &Policy,
    limits: &Limits,
) -> Result<By, AttestationError> {
    let mut reasons = Vec::new();
    // Several keys over one payload, for the threshold.
    let mut payloads: BTreeMap<Sha256, Vec<&Candidate>> = BTreeMap::new();
    for candidate in &found.candidates {
        match &candidate.form {
            Form::SimpleSigning { .. } => payloads.entry(candidate.sha256).or_default().push(candidate),
            Form::ImageBundle => match by_bundle(candidate, index, policy, limits) {
                Ok(by) => return Ok(by),
                Err(reason) => reasons.push(format!("{}: {reason}", candidate.from)),
            },
            Form::Bundle | Form::Envelope { .. } | Form::Statement { .. } => {}
        }
    }
    for candidates in payloads.values() {
        match by_simple_signing(candidates, index, policy, limits) {
            Ok(by) => return Ok(by),
            Err(reason) => {
                reasons.extend(candidates.first().map(|first| format!("{}: {reason}", first.from)));
            }
        }
    }
    let reason = match &*reasons {
        [] => "there is no signature over it; sign the index (`cosign sign`), or attest the SBOM".to_owned(),
        reasons => reasons.join("; "),
    };
    Err(AttestationError::UnsignedIndex { index: *index, reason })
}

fn by_simple_signing(
    candidates: &[&Candidate],
    index: &Sha256,
    policy: &Policy,
    limits: &Limits,
) -> Result<By, String> {
    let payload = &candidates.first().ok_or("no signature")?.bytes;
    let simple: Simple = oci::read(payload).map_err(|error| error.to_string())?;
    if simple.critical.kind != TYPE {
        return Err(format!("critical.type is {:?}; expected {TYPE:?}", simple.critical.kind));
    }
    let about = simple.critical.image.digest;
    if about.parse() != Ok(*index) {
        return Err(format!("the signature is about {about:?}"));
    }
    let (mut signatures, mut reasons) = (Vec::new(), Vec::new());
    for candidate in candidates {
        let Form::SimpleSigning { signature, annotations } = &candidate.form else { continue };
        let get = |key: &str| annotations.get(key).map(String::as_str);
        if get("dev.sigstore.cosign/certificate").is_some_and(|certificate| !certificate.is_empty()) {
            let bundle = cosign::assemble_signature(&sha256(payload), signature, get);
            let verified = bundle.and_then(|bundle| {
                let bundle = bundle.ok_or(AttestationError::NotASignature)?;
                verify_artifact(&bundle, Signed::Bytes(payload), policy, limits)
            });
            match verified {
                Ok(verified) => return Ok((verified.signers, verified.time)),
                Err(error) => reasons.push(error.to_string()),
            }
        } else {
            match STANDARD.decode(signature) {
                Ok(bytes) => signatures.push(Signature { key_id: "".into(), bytes }),
                Err(error) => reasons.push(format!("the signature is not base64: {error}")),
            }
        }
    }
    if !signatures.is_empty() {
        match policy.signed_by_keys(&Payload::new(payload.clone(), 0), &signatures) {
            Ok(keys) => return Ok((Signers { keys, identity: None }, None)),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    Err(reasons.join("; "))
}

fn by_bundle(candidate: &Candidate, index: &Sha256, policy: &Policy, limits: &Limits) -> Result<By, String> {
    let signed = verify_payload(&candidate.bytes, policy, limits).map_err(|error| error.to_string())?;
    let payload = signed.buffer.get(signed.start..).unwrap_or_default();
    let kind: Kind = oci::read(payload).map_err(|error| error.to_string())?;
    if kind.predicate_type != PREDICATE_TYPE {
        return Err(format!("its predicate type is {:?}; expected {PREDICATE_TYPE:?}", kind.predicate_type));
    }
    if !statement::claimed(payload, limits).contains(index) {
        return Err("the signature is about another image".to_owned());
    }
    Ok((signed.signers, signed.time))
}
