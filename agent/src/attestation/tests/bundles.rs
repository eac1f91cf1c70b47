//! Sigstore bundles: their shapes, and changed ones.

use serde_json::{Value, json};

use super::*;
use crate::config::Identity;

/// A bundle around an envelope that keys have signed, without evidence.
fn key_bundle(envelope: &[u8]) -> Value {
    json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": "x"}, "tlogEntries": [], "timestampVerificationData": null},
        "dsseEnvelope": serde_json::from_slice::<Value>(envelope).unwrap(),
    })
}

#[test]
fn key_signed_without_evidence() {
    let (a, b, c) = (key(Algorithm::P256), key(Algorithm::P384), key(Algorithm::Ed25519));
    let keys = keys(&[&a, &b, &c]);
    let envelope = envelope_of(&statement_with(SBOM), &[&a, &b]);
    let bundle = key_bundle(&envelope).to_string();
    for (threshold, accepted) in [(1, true), (2, true), (3, false)] {
        let result = verify(bundle.as_bytes(), &policy(&keys, threshold), &Limits::default());
        assert_eq!(result.is_ok(), accepted, "{threshold}: {result:?}");
    }
    let verified = verify(bundle.as_bytes(), &policy(&keys, 2), &Limits::default()).unwrap();
    assert_eq!(verified.time, None);
    assert_eq!(verified.signers.keys.len(), 2);
    assert_eq!(claimed_subjects(bundle.as_bytes(), &Limits::default()), [IMAGE]);
    // Evidence that is there must hold, though the key alone would do.
    let mut logged = key_bundle(&envelope_of(&statement_with(SBOM), &[&a]));
    logged["verificationMaterial"]["tlogEntries"] =
        conformance("managed-key-happy-path")["verificationMaterial"]["tlogEntries"].clone();
    let text = refusal(logged.to_string().as_bytes(), &keys);
    assert!(text.starts_with("the Sigstore bundle is refused: "), "{text}");
    logged["verificationMaterial"]["tlogEntries"] = json!([]);
    verify(logged.to_string().as_bytes(), &policy(&keys, 1), &Limits::default()).unwrap();
}

fn conformance(case: &str) -> Value {
    serde_json::from_slice(&data(&format!("sigstore-conformance/{case}/bundle.sigstore.json"))).unwrap()
}

#[test]
fn shapes_that_are_refused() {
    let key = key(Algorithm::P256);
    let keys = keys(&[&key]);
    let envelope = envelope_of(&statement_with(SBOM), &[&key]);
    let good = key_bundle(&envelope);
    verify(good.to_string().as_bytes(), &policy(&keys, 1), &Limits::default()).unwrap();
    let changed = |path: &str, value: Value| {
        let mut bundle = good.clone();
        match path.rsplit_once('/') {
            Some((parent, name)) if value.is_null() => {
                bundle.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(name);
            }
            Some((parent, name)) => bundle.pointer_mut(parent).unwrap()[name] = value,
            None => bundle = value,
        }
        bundle.to_string()
    };
    let nested = |levels: usize| (0..levels).fold(json!(0), |inner, _| json!([inner]));
    let text = good.to_string();
    for (bad, reason) in [
        (changed("/mediaType", json!("application/vnd.dev.sigstore.bundle.v0.4+json")), "mediaType is"),
        (changed("/mediaType", json!(3)), "expected a string"),
        (changed("/verificationMaterial", Value::Null), "missing field `verificationMaterial`"),
        (changed("/verificationMaterial/publicKey", Value::Null), "0 certificate(s) and 0 public key(s)"),
        (
            changed("/verificationMaterial/certificate", json!({"rawBytes": ""})),
            "1 certificate(s) and 1 public",
        ),
        (changed("/verificationMaterial/tlogEntries", json!(vec![0; 33])), "more than 32"),
        (changed("/verificationMaterial/tlogEntries", json!({})), "expected an array"),
        (changed("/verificationMaterial/tlogEntries", nested(70)), "nested too deeply"),
        (
            changed(
                "/verificationMaterial/timestampVerificationData",
                json!({"rfc3161Timestamps": vec![0; 33]}),
            ),
            "more than 32",
        ),
        (changed("/dsseEnvelope", Value::Null), "neither dsseEnvelope nor messageSignature"),
        (changed("/messageSignature", json!({})), "both dsseEnvelope and messageSignature"),
        (changed("/payload", json!("")), "both a Sigstore bundle and a DSSE envelope"),
        (
            changed("/dsseEnvelope/payloadType", json!("application/json")),
            "payloadType is \"application/json\"",
        ),
        (changed("/dsseEnvelope/signatures", json!([])), "no signature"),
        (changed("", json!([])), "expected a DSSE envelope"),
        (
            text.replacen("\"dsseEnvelope\":", "\"dsseEnvelope\":{},\"dsseEnvelope\":", 1),
            "not a DSSE envelope",
        ),
        (text.replacen("\"hint\":", "\"hint\":\"\",\"hint\":", 1), "duplicate key \"hint\""),
        (
            text.replacen("{\"publicKey\":", "{\"publicKey\":{},\"publicKey\":", 1),
            "duplicate key \"publicKey\"",
        ),
        (text[..text.len() - 1].to_owned(), "EOF"),
    ] {
        let text = refusal(bad.as_bytes(), &keys);
        assert!(text.starts_with("envelope, byte ") && text.contains(reason), "{bad}: {text}");
    }
    let signature = conformance("managed-key-happy-path").to_string();
    assert_eq!(refusal(signature.as_bytes(), &keys), AttestationError::NotAnAttestation.to_string());
    assert!(is_over_artifact(signature.as_bytes(), &Limits::default()).unwrap());
    for not in [text.as_bytes(), &envelope] {
        assert!(!is_over_artifact(not, &Limits::default()).unwrap());
        let artifact = Signed::Digest(IMAGE);
        let error = verify_artifact(not, artifact, &policy(&keys, 1), &Limits::default()).unwrap_err();
        assert_eq!(error, AttestationError::NotASignature);
    }
}

/// Bombs end quickly, and are refused by what is read first.
#[test]
fn bombs() {
    let keys = keys(&[&key(Algorithm::P256)]);
    let head = "{\"mediaType\":\"application/vnd.dev.sigstore.bundle.v0.3+json\",\"x\":";
    let wide: String = (0..4_000).map(|n| format!("\"k{n}\":0,")).collect();
    for (bomb, reason) in [
        (format!("{head}{}", "[".repeat(1_000_000)), "nested too deeply"),
        (format!("{head}{}", "{\"a\":".repeat(1_000_000)), "nested too deeply"),
        (format!("{head}{{{wide}\"k0\":0}}}}"), "duplicate key \"k0\""),
        (format!("{head}{{{}\"k0\":0}}}}", wide.replace("\"k", "\"l") + &wide), "more than 4096 members"),
        (format!("{head}\"{}\"}}", "\\u0041".repeat(1_000_000)), "not a DSSE envelope"),
        (format!("{head}\"{}", "a".repeat(4_000_000)), "EOF"),
        (format!("{head}1{}}}", "0".repeat(1_000_000)), "number out of range"),
    ] {
        let started = std::time::Instant::now();
        let text = refusal(bomb.as_bytes(), &keys);
        assert!(text.contains(reason), "{text}");
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{reason}: {:?}", started.elapsed());
    }
}

/// Each byte of a real keyless bundle, changed: refused, or it is one that says nothing.
#[test]
fn every_flipped_byte_of_a_real_bundle() {
    let mut bundle = data("keyless/oci-attestation.sigstore.json");
    let root = TrustRoot::load(&config::TrustRoot::Embedded).unwrap();
    let who =
        Identity { identity: "cody@soyland.com".into(), issuer: "https://github.com/login/oauth".into() };
    let policy = Policy::new(Keys::default(), 1, vec![who], root).unwrap();
    let intact = verify(&bundle, &policy, &Limits::default()).unwrap();
    let mut accepted = 0;
    for at in 0..bundle.len() {
        let mask = 1 << (at % 8);
        bundle[at] ^= mask;
        if let Ok(verified) = verify(&bundle, &policy, &Limits::default()) {
            accepted += 1;
            assert_eq!(verified.statement.predicate(), intact.statement.predicate(), "byte {at}");
            assert_eq!(verified.statement.subjects, intact.statement.subjects, "byte {at}");
            assert_eq!((verified.signers, verified.time), (intact.signers.clone(), intact.time), "byte {at}");
        }
        bundle[at] ^= mask;
    }
    assert!(accepted < bundle.len() / 100, "{accepted} changes were accepted");
}
