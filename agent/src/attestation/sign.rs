//! Signing: SBOM → statement → DSSE envelope.

use std::borrow::Cow;
use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::envelope::{PAYLOAD_TYPE, Payload, pae_header};
use super::{KeyId, Limits, PredicateType, PrivateKey, Subject, sha256};
use crate::finding::Sha256;
use crate::mark::without_mark;

/// Why an SBOM was not signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// The envelope could not be written.
    #[error("cannot write the envelope: {0}")]
    Write(std::io::Error),
    /// Larger than the agent would read.
    #[error("the SBOM has {found} bytes, but at most {limit} are read (attestation.max_sbom_bytes)")]
    TooLarge {
        /// Its size.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// It is not JSON, nor SPDX tag-value.
    #[error("the SBOM is neither SPDX tag-value (with SPDXVersion), nor a JSON object: {0}")]
    NotJson(serde_json::Error),
    /// No format that is known.
    #[error(
        "the SBOM is JSON of an unknown form; expected SPDX (with spdxVersion, or @context and @graph), CycloneDX (with \
         bomFormat) or syft-json (with schema and artifacts)"
    )]
    Format,
    /// The predicate type names another format.
    #[error("the predicate type is {asked:?}, but the SBOM is {found:?}")]
    PredicateType {
        /// What was asked for.
        asked: String,
        /// What the document is.
        found: &'static str,
    },
    /// A statement is about something.
    #[error("no subject with a digest; expected at least one NAME@sha256:HEX")]
    NoSubject,
    /// The provider failed.
    #[error("the cryptographic provider refused to sign")]
    Provider,
}

/// What was signed.
#[derive(Clone, Copy, Debug)]
pub struct Signed {
    /// By whom.
    pub key: KeyId,
    /// Kind of the document.
    pub predicate_type: PredicateType,
    /// SHA-256 of the document, as findings name it (without white space around it).
    pub document: Sha256,
}

#[derive(Deserialize)]
struct Probe {
    #[serde(rename = "spdxVersion")]
    spdx: Option<IgnoredAny>,
    #[serde(rename = "bomFormat")]
    cyclonedx: Option<IgnoredAny>,
    #[serde(rename = "@context")]
    context: Option<IgnoredAny>,
    #[serde(rename = "@graph")]
    graph: Option<IgnoredAny>,
    /// Of a document that is one element.
    #[serde(rename = "spdxId")]
    element: Option<IgnoredAny>,
    schema: Option<IgnoredAny>,
    artifacts: Option<IgnoredAny>,
}

/// SPDX as tag-value, which stands in a statement as a string.
fn as_tag_value(sbom: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(sbom).ok().filter(|text| !text.trim_start().starts_with('{'))?;
    text.lines().any(|line| line.starts_with("SPDXVersion:")).then_some(text)
}

/// The type of an SBOM, by what it has.
///
/// # Errors
/// It is of no format that is known.
pub fn detect(sbom: &[u8]) -> Result<PredicateType, SignError> {
    let sbom = without_mark(sbom);
    if as_tag_value(sbom).is_some() {
        return Ok(PredicateType::Spdx);
    }
    match serde_json::from_slice(sbom).map_err(SignError::NotJson)? {
        Probe { spdx: Some(_), .. }
        | Probe { context: Some(_), graph: Some(_), .. }
        | Probe { context: Some(_), element: Some(_), .. } => Ok(PredicateType::Spdx),
        Probe { schema: Some(_), artifacts: Some(_), .. } => Ok(PredicateType::Syft),
        Probe { cyclonedx: Some(_), .. } => Ok(PredicateType::CycloneDx),
        _ => Err(SignError::Format),
    }
}

/// Signs an SBOM and writes the envelope to `out`, encoded as it is written. Of the SBOM only the format is looked at: whether the
/// agent would take it, a floor above says.
///
/// # Errors
/// It is larger than what is read, or of an unknown format, or the envelope cannot be written.
pub fn sign(
    sbom: &[u8],
    subjects: &[Subject],
    predicate_type: Option<&str>,
    key: &PrivateKey,
    limits: &Limits,
    out: impl Write,
) -> Result<Signed, SignError> {
    if limits.check_sbom(sbom.len()).is_err() {
        let found = u64::try_from(sbom.len()).unwrap_or(u64::MAX);
        return Err(SignError::TooLarge { found, limit: limits.max_sbom_bytes });
    }
    let head = head(subjects)?;
    // A statement is JSON, where the mark may stand nowhere.
    let sbom = without_mark(sbom);
    let found = detect(sbom)?;
    // JSON is the same without the white space around it; a text is not.
    let (document, predicate) = match as_tag_value(sbom) {
        Some(text) => (sbom, Cow::Owned(serde_json::to_vec(text).map_err(SignError::NotJson)?)),
        None => (sbom.trim_ascii(), Cow::Borrowed(sbom)),
    };
    let tail_space = 100;
    let around = head.len() + tail_space + pae_header(usize::MAX).len();
    let mut payload = Vec::with_capacity(predicate.len() + around);
    payload.extend_from_slice(&head);
    payload.extend_from_slice(&predicate);
    let uri = predicate_type.unwrap_or(found.uri());
    if uri.parse() != Ok(found) {
        return Err(SignError::PredicateType { asked: uri.to_owned(), found: found.uri() });
    }
    payload.extend_from_slice(format!(",\"predicateType\":{}}}", serde_json::Value::from(uri)).as_bytes());
    let header = pae_header(payload.len());
    let start = header.len();
    payload.splice(0..0, header);
    let payload = Payload::new(payload, start);
    let signature = key.sign(&payload).map_err(|_| SignError::Provider)?;
    write_envelope(&payload.signed_bytes()[start..], &[(key.id(), signature)], out)
        .map_err(SignError::Write)?;
    Ok(Signed { key: key.id(), predicate_type: found, document: sha256(document) })
}

fn head(subjects: &[Subject]) -> Result<Vec<u8>, SignError> {
    let mut list = Vec::new();
    for subject in subjects {
        let digest = subject.sha256.filter(|digest| !digest.is_zero()).ok_or(SignError::NoSubject)?;
        list.push(serde_json::json!({"name": subject.name, "digest": {"sha256": digest.to_string()}}));
    }
    if list.is_empty() {
        return Err(SignError::NoSubject);
    }
    let list = serde_json::Value::Array(list);
    Ok(format!("{{\"_type\":\"https://in-toto.io/Statement/v1\",\"subject\":{list},\"predicate\":")
        .into_bytes())
}

/// Writes an envelope, its payload encoded as it goes.
pub(super) fn write_envelope(
    payload: &[u8],
    signatures: &[(KeyId, Vec<u8>)],
    mut out: impl Write,
) -> std::io::Result<()> {
    write!(out, "{{\"payloadType\":\"{PAYLOAD_TYPE}\",\"payload\":\"")?;
    let mut encoder = base64::write::EncoderWriter::new(out, &STANDARD);
    encoder.write_all(payload)?;
    let mut out = encoder.finish()?;
    out.write_all(b"\",\"signatures\":[")?;
    for (at, (key, signature)) in signatures.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        write!(out, "{comma}{{\"keyid\":\"{key}\",\"sig\":\"{}\"}}", STANDARD.encode(signature))?;
    }
    out.write_all(b"]}\n")?;
    out.flush()
}
