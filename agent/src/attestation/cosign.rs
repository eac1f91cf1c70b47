//! cosign's attestations of before bundles: a DSSE envelope as a layer of `sha256-….att`, its evidence in annotations.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::AttestationError;
use super::json::{self, Unused, shown};
use crate::finding::Sha256;

/// Levels of JSON in an annotation.
const MAX_DEPTH: u32 = 8;

/// `dev.sigstore.cosign/bundle`: Rekor's promise (cosign `pkg/cosign/bundle`).
#[derive(Deserialize)]
struct Promise {
    #[serde(rename = "SignedEntryTimestamp")]
    timestamp: String,
    #[serde(rename = "Payload")]
    payload: Entry,
}

#[derive(Deserialize)]
struct Entry {
    body: String,
    #[serde(rename = "integratedTime")]
    integrated_time: i64,
    #[serde(rename = "logIndex")]
    log_index: i64,
    #[serde(rename = "logID")]
    log_id: String,
}

/// What a log entry is, of its body.
#[derive(Deserialize)]
struct Kind {
    kind: String,
    #[serde(rename = "apiVersion")]
    version: String,
}

/// `dev.sigstore.cosign/rfc3161timestamp`.
#[derive(Deserialize)]
struct Timestamp {
    #[serde(rename = "SignedRFC3161Timestamp")]
    token: String,
}

/// Puts a layer's envelope and annotations together as a Sigstore bundle, which [`verify`](super::verify) takes. A layer without
/// a certificate, a log entry and a timestamp stays the envelope that it is; so does one that a key has signed and whose log
/// entry is of the old kind `intoto/0.0.1`, which holds no signature: the key alone decides then.
///
/// # Errors
/// When an annotation is not what cosign writes.
pub fn assemble<'a>(
    envelope: &[u8],
    annotation: impl Fn(&str) -> Option<&'a str>,
) -> Result<Vec<u8>, AttestationError> {
    Ok(match material(annotation)? {
        None => envelope.to_vec(),
        Some(head) => [head.as_bytes(), b",\"dsseEnvelope\":", envelope.trim_ascii(), b"}"].concat(),
    })
}

/// Puts a signature over a payload (a layer of `sha256-….sig`) and its annotations together as a Sigstore bundle, which
/// [`verify_artifact`](super::verify_artifact) takes with the payload. `None` without a certificate, a log entry and a timestamp.
///
/// # Errors
/// When an annotation is not what cosign writes.
pub fn assemble_signature<'a>(
    payload: &Sha256,
    signature: &str,
    annotation: impl Fn(&str) -> Option<&'a str>,
) -> Result<Option<Vec<u8>>, AttestationError> {
    let Some(head) = material(annotation)? else { return Ok(None) };
    let message = serde_json::json!({
        "messageDigest": {"algorithm": "SHA2_256", "digest": STANDARD.encode(payload.0)},
        "signature": signature,
    });
    Ok(Some(format!("{head},\"messageSignature\":{message}}}").into_bytes()))
}

/// The beginning of a bundle: media type and verification material. `None` when the annotations have none of it.
fn material<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Result<Option<String>, AttestationError> {
    let get = |name: &str| {
        annotation(&format!("dev.sigstore.cosign/{name}")).map(str::trim).filter(|text| !text.is_empty())
    };
    let certificates = match get("certificate") {
        Some(leaf) => {
            let mut all = certificates("certificate", leaf)?;
            if let Some(chain) = get("chain") {
                all.extend(certificates("chain", chain)?);
            }
            Some(all)
        }
        None => None,
    };
    let mut entries = Vec::new();
    if let Some(text) = get("bundle") {
        let Promise { timestamp, payload } = read("bundle", text)?;
        let body = STANDARD.decode(&payload.body).map_err(|error| refused("bundle", &error))?;
        json::read(&body, Unused { depth: 32 }).map_err(|fault| refused("bundle", &fault.reason))?;
        let Kind { kind, version } =
            serde_json::from_slice(&body).map_err(|error| refused("bundle", &error))?;
        if certificates.is_none() && kind == "intoto" && version == "0.0.1" {
            return Ok(None);
        }
        entries.push(serde_json::json!({
            "logIndex": payload.log_index.to_string(),
            "logId": {"keyId": STANDARD.encode(hex(&payload.log_id).ok_or_else(|| {
                refused("bundle", &format!("logID {:?} is not hexadecimal", shown(&payload.log_id)))
            })?)},
            "kindVersion": {"kind": kind, "version": version},
            "integratedTime": payload.integrated_time.to_string(),
            "inclusionPromise": {"signedEntryTimestamp": timestamp},
            "canonicalizedBody": payload.body,
        }));
    }
    let timestamp = match get("rfc3161timestamp") {
        Some(text) => Some(read::<Timestamp>("rfc3161timestamp", text)?.token),
        None => None,
    };
    if certificates.is_none() && entries.is_empty() && timestamp.is_none() {
        return Ok(None);
    }
    // v0.1 asks for a promise; v0.2 for a proof, unless the trust root has no log.
    let version = if entries.is_empty() { "0.2" } else { "0.1" };
    let timestamps: Vec<_> =
        timestamp.iter().map(|token| serde_json::json!({"signedTimestamp": token})).collect();
    let mut material = serde_json::json!({
        "tlogEntries": entries,
        "timestampVerificationData": {"rfc3161Timestamps": timestamps},
    });
    match certificates {
        Some(certificates) => {
            let list: Vec<_> = certificates.iter().map(|der| serde_json::json!({"rawBytes": der})).collect();
            material["x509CertificateChain"] = serde_json::json!({"certificates": list});
        }
        None => material["publicKey"] = serde_json::json!({"hint": ""}),
    }
    Ok(Some(format!(
        "{{\"mediaType\":\"application/vnd.dev.sigstore.bundle+json;version={version}\",\"verificationMaterial\":{material}"
    )))
}

fn read<T: for<'de> Deserialize<'de>>(name: &str, text: &str) -> Result<T, AttestationError> {
    json::read(text.as_bytes(), Unused { depth: MAX_DEPTH }).map_err(|fault| refused(name, &fault.reason))?;
    serde_json::from_str(text).map_err(|error| refused(name, &error))
}

/// The certificates of a PEM text, each in base64 of its DER.
fn certificates(name: &str, pem: &str) -> Result<Vec<String>, AttestationError> {
    const BEGIN: &str = "-----BEGIN ";
    let starts: Vec<usize> = pem.match_indices(BEGIN).map(|(at, _)| at).collect();
    if starts.is_empty() {
        return Err(refused(name, &"not PEM: expected -----BEGIN CERTIFICATE-----"));
    }
    let ends = starts.iter().skip(1).copied().chain([pem.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| match pem_rfc7468::decode_vec(&pem.as_bytes()[*start..end]) {
            Ok(("CERTIFICATE", der)) => Ok(STANDARD.encode(der)),
            Ok((label, _)) => Err(refused(name, &format!("expected a certificate, found {label}"))),
            Err(error) => Err(refused(name, &format!("not valid PEM: {error}"))),
        })
        .collect()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

fn refused(name: &str, reason: &dyn std::fmt::Display) -> AttestationError {
    AttestationError::Bundle { reason: format!("annotation dev.sigstore.cosign/{name}: {reason}") }
}
