//! Round trips, refusals, and what signers that are not ours have made.

mod bundles;
mod keys;
mod predicates;
mod private_ca;
mod trust_roots;

use std::path::PathBuf;
use std::process::Command;

use super::envelope::{Envelope, Payload};
use super::key::Algorithm;
use super::sign::{SignError, sign, write_envelope};
use super::*;

const SBOM: &str = "{\"spdxVersion\":\"SPDX-2.3\",\"files\":[]}";
const IMAGE: Sha256 = Sha256([0x5a; 32]);

fn key(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::generate(algorithm).expect("the system has random numbers")
}

fn keys(of: &[&PrivateKey]) -> Keys {
    let mut keys = Keys::default();
    for key in of {
        keys.add_pem(key.public_pem().as_bytes()).unwrap();
    }
    keys
}

fn policy(keys: &Keys, threshold: usize) -> Policy {
    let root = TrustRoot::load(&config::TrustRoot::Embedded).expect("the embedded trust root is good");
    Policy::new(keys.clone(), threshold, Vec::new(), root).expect("the threshold fits")
}

fn subjects() -> Vec<Subject> {
    vec![Subject { name: "host \"a\"".into(), sha256: Some(IMAGE) }]
}

fn signed(sbom: &str, key: &PrivateKey) -> Vec<u8> {
    let mut out = Vec::new();
    sign(sbom.as_bytes(), &subjects(), None, key, &Limits::default(), &mut out).unwrap();
    out
}

/// An envelope over any payload, signed by several.
pub(crate) fn envelope_of(payload: &str, by: &[&PrivateKey]) -> Vec<u8> {
    let mut pae = envelope::pae_header(payload.len());
    let start = pae.len();
    pae.extend_from_slice(payload.as_bytes());
    let whole = Payload::new(pae, start);
    let signatures: Vec<_> = by.iter().map(|key| (key.id(), key.sign(&whole).unwrap())).collect();
    let mut out = Vec::new();
    write_envelope(payload.as_bytes(), &signatures, &mut out).unwrap();
    out
}

fn refusal(envelope: &[u8], keys: &Keys) -> String {
    verify(envelope, &policy(keys, 1), &Limits::default()).expect_err("must be refused").to_string()
}

fn data(name: &str) -> Vec<u8> {
    let path =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/attestation")).join(name);
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; the tests need the shared test data beside the workspace", path.display())
    })
}

#[test]
fn round_trip() {
    for algorithm in [Algorithm::P256, Algorithm::P384, Algorithm::Ed25519] {
        let key = key(algorithm);
        let envelope = signed(&format!("{SBOM}\n"), &key);
        let verified = verify(&envelope, &policy(&keys(&[&key]), 1), &Limits::default()).unwrap();
        assert_eq!(verified.statement.predicate(), SBOM.as_bytes());
        assert_eq!(verified.statement.subjects, subjects());
        assert_eq!(verified.statement.predicate_type, PredicateType::Spdx);
        assert_eq!(verified.signers.keys, [key.id()]);
        assert_eq!(verified.sha256, sha256(&envelope));
        assert!(verified.statement.names(&IMAGE));
        assert!(!verified.statement.names(&Sha256([1; 32])), "another image");
        assert_eq!(claimed_subjects(&envelope, &Limits::default()), [IMAGE]);
    }
}

#[test]
fn private_keys_round_trip() {
    for algorithm in [Algorithm::P256, Algorithm::P384, Algorithm::Ed25519] {
        let key = key(algorithm);
        let again = PrivateKey::from_pem(key.to_pem().unwrap().as_bytes(), "key.pem").unwrap();
        assert_eq!(again.id(), key.id());
    }
}

#[test]
fn every_flipped_byte_is_refused() {
    let key = key(Algorithm::P256);
    let policy = policy(&keys(&[&key]), 1);
    let mut envelope = signed(SBOM, &key);
    let intact = verify(&envelope, &policy, &Limits::default()).unwrap();
    // The key id is a hint, and so is its name: a change there makes no difference and must make none.
    let hint_start = memchr::memmem::find(&envelope, b"\"keyid\"").unwrap();
    let hint = hint_start..memchr::memmem::find(&envelope, b",\"sig\"").unwrap();
    for at in 0..envelope.len() {
        for mask in [0x01, 0x02, 0x10, 0x20, 0x80] {
            envelope[at] ^= mask;
            match verify(&envelope, &policy, &Limits::default()) {
                Err(_) => {}
                Ok(verified) => {
                    let newline = at == envelope.len() - 1 && envelope[at].is_ascii_whitespace();
                    assert!(hint.contains(&at) || newline, "byte {at} ^ {mask:#x} was accepted");
                    assert_eq!(verified.statement.predicate(), intact.statement.predicate());
                    assert_eq!(verified.signers, intact.signers);
                }
            }
            envelope[at] ^= mask;
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    let key = key(Algorithm::Ed25519);
    let envelope = signed(SBOM, &key);
    let policy = policy(&keys(&[&key]), 1);
    for length in 0..envelope.len() - 1 {
        let error = verify(&envelope[..length], &policy, &Limits::default()).expect_err("truncated");
        assert!(matches!(error, AttestationError::Malformed { part: Part::Envelope, .. }), "{error}");
    }
}

#[test]
fn swapped_payload_and_wrong_key_are_refused() {
    let (ours, other) = (key(Algorithm::P256), key(Algorithm::P256));
    let (a, b) = (signed(SBOM, &ours), signed(&SBOM.replace("2.3", "2.2"), &ours));
    let (a, b) = (String::from_utf8(a).unwrap(), String::from_utf8(b).unwrap());
    let split = |text: &str| text.split_once("\",\"signatures\"").map(|(p, s)| (p.to_owned(), s.to_owned()));
    let ((payload, _), (_, signature)) = (split(&a).unwrap(), split(&b).unwrap());
    let swapped = format!("{payload}\",\"signatures\"{signature}");
    assert!(refusal(swapped.as_bytes(), &keys(&[&ours])).contains("signed by 0 of the configured keys"));
    let text = refusal(a.as_bytes(), &keys(&[&other]));
    assert!(text.contains(&other.id().to_string()[..16]) && text.contains(&ours.id().to_string()), "{text}");
    assert_eq!(refusal(a.as_bytes(), &Keys::default()), AttestationError::NoKeys.to_string());
}

#[test]
fn thresholds_count_keys_not_signatures() {
    let (a, b, c) = (key(Algorithm::P256), key(Algorithm::Ed25519), key(Algorithm::P256));
    let statement = statement_with(SBOM);
    let both = keys(&[&a, &b]);
    let cases: [(&str, &[&PrivateKey], usize, bool); 7] = [
        ("1 of 2", &[&a], 1, true),
        ("1 of 2, the other", &[&b], 1, true),
        ("2 of 2", &[&b, &a], 2, true),
        ("2 of 2, one foreign beside", &[&c, &a, &b], 2, true),
        ("2 of 2, one missing", &[&a], 2, false),
        ("2 of 2, the same twice", &[&a, &a], 2, false),
        ("2 of 2, one foreign", &[&a, &c], 2, false),
    ];
    for (name, by, threshold, good) in cases {
        let result = verify(&envelope_of(&statement, by), &policy(&both, threshold), &Limits::default());
        assert_eq!(result.is_ok(), good, "{name}: {result:?}");
    }
    let mut twice = keys(&[&a]);
    twice.add_pem(a.public_pem().as_bytes()).unwrap();
    assert_eq!(twice.len(), 1, "the same key from two files counts once");
    for threshold in [0, 3] {
        let root = TrustRoot::load(&config::TrustRoot::Embedded).unwrap();
        let error = Policy::new(both.clone(), threshold, Vec::new(), root).unwrap_err();
        assert_eq!(error, AttestationError::Threshold { threshold, keys: 2 });
    }
}

fn statement_with(predicate: &str) -> String {
    format!(
        "{{\"_type\":\"https://in-toto.io/Statement/v1\",\"subject\":[{{\"digest\":{{\"sha256\":\"{IMAGE}\"}}}}],\
         \"predicateType\":\"https://spdx.dev/Document\",\"predicate\":{predicate}}}"
    )
}

#[test]
fn statements() {
    let key = key(Algorithm::Ed25519);
    let keys = keys(&[&key]);
    let good = statement_with(SBOM);
    let subject = format!("{{\"digest\":{{\"sha256\":\"{IMAGE}\"}}}}");
    let change = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1)
    };
    for accepted in [
        good.clone(),
        change("Statement/v1", "Statement/v0.1"),
        change("spdx.dev/Document", "spdx.dev/Document/v2.3"),
        change("https://spdx.dev/Document", "https://syft.dev/bom"),
        change("https://spdx.dev/Document", "https://cyclonedx.org/bom"),
        change("https://spdx.dev/Document", "https://cyclonedx.org/bom/v1.6"),
        change("https://spdx.dev/Document", "https://slsa.dev/provenance/v0.2"),
        change("https://spdx.dev/Document", "https://openvex.dev/ns/v0.2.0"),
        change("\"predicate\":", "\"more\":[{\"x\":1}],\"predicate\":"),
        change("\"digest\":{", "\"uri\":\"x\",\"name\":null,\"digest\":{\"sha512\":\"00\","),
        change(&subject, &format!("{{\"digest\":{{\"gitCommit\":\"00\"}}}},{subject}")),
    ] {
        let envelope = envelope_of(&accepted, &[&key]);
        let verified = verify(&envelope, &policy(&keys, 1), &Limits::default()).expect(&accepted);
        assert!(verified.statement.names(&IMAGE));
        assert_eq!(verified.statement.predicate(), SBOM.as_bytes());
    }
    let deep = "[".repeat(70) + &"]".repeat(70);
    for (bad, reason) in [
        (change("Statement/v1", "Statement/v2"), "_type is"),
        (
            change("spdx.dev/Document", "spdx.dev/Document/latest"),
            "\"https://spdx.dev/Document/latest\" is not read",
        ),
        (change("spdx.dev/Document", "spdx.dev/Documents"), "\"https://spdx.dev/Documents\" is not read"),
        (change("https://spdx.dev/Document", "https://slsa.dev/provenance/v2"), "is not read"),
        (change("https://spdx.dev/Document", "https://syft.dev/bom/v1"), "is not read"),
        (change("https://spdx.dev/Document", "https://in-toto.io/attestation/vulns/v0.2"), "is not read"),
        (change("\"_type\":", "\"_typ\":"), "missing field `_type`"),
        (change("\"subject\":", "\"subjekt\":"), "missing field `subject`"),
        (change("\"predicate\":", "\"predikate\":"), "missing field `predicate`"),
        (change("\"predicateType\":", "\"predikateType\":"), "missing field `predicateType`"),
        (change("\"predicate\":", "\"predicate\":{},\"predicate\":"), "duplicate key \"predicate\""),
        (change("\"subject\":", "\"subject\":[],\"subject\":"), "no subject with a sha256"),
        (change("\"sha256\":", "\"sha256\":\"00\",\"sha256\":"), "expected 64 hexadecimal digits"),
        (change("\"sha256\":", "\"a\":\"\",\"a\":\"\",\"sha256\":"), "duplicate key \"a\""),
        (change("\"sha256\":", "\"sha512\":"), "no subject with a sha256"),
        (change(&IMAGE.to_string(), &"0".repeat(64)), "all zero"),
        (change(&IMAGE.to_string(), &format!("sha256:{IMAGE}")), "expected 64 hexadecimal digits"),
        (change(&IMAGE.to_string(), &"g".repeat(64)), "not a SHA-256"),
        (change(SBOM, "[]"), "predicate is not an object"),
        (change(SBOM, "\"\\ud800\""), "hex escape"),
        (change(SBOM, "null"), "predicate is not an object"),
        (change("\"predicate\":", &format!("\"x\":{deep},\"predicate\":")), "nested too deeply"),
        (format!("{good}{good}"), "trailing characters"),
        (good[..good.len() - 1].to_owned(), "EOF"),
        ("[]".into(), "expected an in-toto statement"),
        (String::new(), "EOF"),
        (change(&subject, &vec![subject.as_str(); 1025].join(",")), "more than 1024 subjects"),
    ] {
        let text = refusal(&envelope_of(&bad, &[&key]), &keys);
        assert!(
            text.starts_with("statement (decoded payload), byte ") && text.contains(reason),
            "{bad}: {text}"
        );
    }
    let small = Limits { max_sbom_bytes: 10, ..Limits::default() };
    let error = verify(&envelope_of(&good, &[&key]), &policy(&keys, 1), &small).unwrap_err();
    assert_eq!(error, AttestationError::SbomTooLarge { bytes: SBOM.len() as u64, limit: 10 });
}

#[test]
fn documents_in_strings_and_wrappers() {
    let key = key(Algorithm::Ed25519);
    let keys = keys(&[&key]);
    let cosign = "https://cosign.sigstore.dev/attestation/v1";
    let with = |kind: &str, predicate: &str| {
        statement_with(predicate).replacen("https://spdx.dev/Document", kind, 1)
    };
    let text = "SPDXVersion: SPDX-2.3\nFileName: /a\"b\\c\n";
    let quoted = serde_json::to_string(text).unwrap();
    for (kind, predicate, document) in [
        ("https://spdx.dev/Document", quoted.clone(), text),
        (cosign, format!("{{\"Data\":{quoted},\"Timestamp\":\"2022-08-03T13:08:27Z\"}}"), text),
        ("cosign.sigstore.dev/attestation/v1", format!("{{\"Timestamp\":\"\", \"Data\": {SBOM}}}"), SBOM),
        (cosign, format!("{{\"Data\":{}}}", serde_json::to_string(SBOM).unwrap()), SBOM),
    ] {
        let envelope = envelope_of(&with(kind, &predicate), &[&key]);
        let verified = verify(&envelope, &policy(&keys, 1), &Limits::default()).expect(&predicate);
        assert_eq!(std::str::from_utf8(verified.statement.predicate()).unwrap(), document);
    }
    for (kind, predicate, reason) in [
        ("https://cyclonedx.org/bom", quoted.as_str(), "predicate is not an object"),
        (cosign, SBOM, "missing field `Data`"),
        (cosign, "{\"Data\":{},\"Data\":{}}", "duplicate key \"Data\""),
        (cosign, "{\"Data\":7}", "predicate is not an object"),
        (cosign, "\"x\"", "as cosign wraps"),
    ] {
        let text = refusal(&envelope_of(&with(kind, predicate), &[&key]), &keys);
        assert!(text.contains(reason), "{predicate}: {text}");
    }
}

#[test]
fn envelopes() {
    let key = key(Algorithm::P256);
    let keys = keys(&[&key]);
    // A payload of every length modulo 3, and characters that differ between the alphabets.
    for more in ["", "?", "??", "???~~~>>>"] {
        let statement = statement_with(&format!("{{\"x\":\"{more}\"}}"));
        let good = String::from_utf8(envelope_of(&statement, &[&key])).unwrap();
        let unpadded = good.replace('=', "");
        let url = |text: &str| {
            let (payload, rest) = text.split_once("\",\"sig").unwrap();
            let (head, payload) = payload.split_once("\"payload\":\"").unwrap();
            let payload = payload.replace('+', "-").replace('/', "_");
            format!("{head}\"payload\":\"{payload}\",\"sig{rest}")
        };
        let escaped = good.replacen("\"payload\":\"e", "\"payload\":\"\\u0065", 1);
        let spaced = good.replace("\":", "\" : ").replace(",\"", "\n,\t\"");
        let extra = good.replacen('{', "{\"x\":{\"y\":[]},", 1);
        for accepted in [&good, &unpadded, &url(&good), &url(&unpadded), &escaped, &spaced, &extra] {
            verify(accepted.as_bytes(), &policy(&keys, 1), &Limits::default()).expect(accepted);
        }
    }
    let good = String::from_utf8(envelope_of(&statement_with(SBOM), &[&key])).unwrap();
    let signature = good.split_once("\"signatures\":[").unwrap().1.split_once(']').unwrap().0.to_owned();
    let change = |from: &str, to: &str| good.replacen(from, to, 1);
    let deep = "[".repeat(70) + &"]".repeat(70);
    for (bad, reason) in [
        (change("application/vnd.in-toto+json", "application/json"), "payloadType is \"application/json\""),
        (change("\"payloadType\"", "\"payloadtype\""), "not a DSSE envelope"),
        (change("\"payload\":", "\"pay\":"), "missing field `payload`"),
        (change("\"signatures\":", "\"signature\":"), "missing field `signatures`"),
        (change("\"payload\":", "\"payload\":\"\",\"payload\":"), "duplicate key \"payload\""),
        (change("\"payload\":", "\"pa\\u0079load\":\"\",\"payload\":"), "duplicate key \"payload\""),
        (change("\"sig\":", "\"sig\":\"\",\"sig\":"), "duplicate key \"sig\""),
        (change("\"sig\":\"", "\"sig\":\"!"), "sig is not base64"),
        (change("\"payload\":\"", "\"payload\":\"!"), "payload is not base64"),
        (change("\"payload\":\"", "\"payload\":\"+-"), "payload is not base64"),
        (change("\"payload\":\"", "\"payload\":\"===="), "payload is not base64"),
        (change(&signature, ""), "no signature"),
        (change(&signature, &vec![signature.as_str(); 33].join(",")), "more than 32 signatures"),
        (change("{\"payloadType", &format!("{{\"x\":{deep},\"payloadType")), "nested too deeply"),
        (change("\"signatures\":[", "\"signatures\":7,\"x\":["), "expected an array of signatures"),
    ] {
        let text = refusal(bad.as_bytes(), &keys);
        assert!(text.contains(reason), "{bad}: {text}");
    }
    let small = Limits { max_envelope_bytes: 10, ..Limits::default() };
    let error = verify(good.as_bytes(), &policy(&keys, 1), &small).unwrap_err();
    assert_eq!(error, AttestationError::EnvelopeTooLarge { bytes: good.len() as u64, limit: 10 });
    Envelope::parse(b"{\"payloadType\":\xff", &Limits::default()).expect_err("not UTF-8");
}

#[test]
fn keys_that_are_refused() {
    let openssl = |args: &[&str]| {
        let out =
            Command::new("openssl").args(args).output().expect("openssl is needed: apt-get install openssl");
        assert!(out.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.pem");
    let name = path.to_str().unwrap();
    for (args, reason) in [
        (&["genpkey", "-quiet", "-algorithm", "RSA-PSS", "-out", name][..], "found RSA for PSS only;"),
        (
            &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521", "-out", name],
            "found P-521;",
        ),
        (&["genpkey", "-algorithm", "ED448", "-out", name], "found Ed448;"),
    ] {
        openssl(args);
        let public = openssl(&["pkey", "-in", name, "-pubout"]);
        let text = Keys::default().add_pem(&public).unwrap_err();
        assert!(text.contains(reason), "{text}");
        let text = PrivateKey::load(&path).unwrap_err().to_string();
        assert!(text.contains(reason) && text.contains(name), "{text}");
        let text = Keys::load(std::slice::from_ref(&path)).unwrap_err().to_string();
        assert!(text.contains("expected BEGIN PUBLIC KEY, found BEGIN PRIVATE KEY"), "{text}");
    }
    openssl(&["genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", name]);
    let short = openssl(&["pkey", "-in", name, "-pubout"]);
    let text = Keys::default().add_pem(&short).unwrap_err();
    assert!(text.contains("RSA"), "{text}");
    let text = PrivateKey::load(&path).unwrap_err().to_string();
    assert!(text.contains("found RSA;"), "RSA keys do not sign: {text}");
    // The compressed spelling of a good key would give it a second id.
    openssl(&["ecparam", "-genkey", "-name", "prime256v1", "-out", name]);
    let compressed = openssl(&["ec", "-in", name, "-pubout", "-conv_form", "compressed"]);
    assert!(Keys::default().add_pem(&compressed).unwrap_err().contains("P-256 in another form"));
    let text = PrivateKey::load(&path).unwrap_err().to_string();
    assert!(text.contains("openssl pkcs8 -topk8 -nocrypt"), "{text}");
    // The command of the message does what it says.
    let converted = format!("{name}.pkcs8");
    openssl(&["pkcs8", "-topk8", "-nocrypt", "-in", name, "-out", &converted]);
    let key = PrivateKey::load(converted.as_ref()).unwrap();
    assert_eq!(openssl(&["pkey", "-in", name, "-pubout"]), key.public_pem().as_bytes());

    let pem = key.public_pem();
    let mut off_curve = P256_POINT_OFF_CURVE.to_vec();
    off_curve.extend([7; 64]);
    let off_curve =
        pem_rfc7468::encode_string("PUBLIC KEY", pem_rfc7468::LineEnding::LF, &off_curve).unwrap();
    for (bad, reason) in [
        (pem.repeat(2), "found 2"),
        (String::new(), "not PEM"),
        (pem.replace("BEGIN PUBLIC", "BEGIN PRIVATE"), "not valid PEM"),
        (off_curve, "public key is not valid"),
        (String::from_utf8(data("key-signed/cosign_broken.pub")).unwrap(), "not valid PEM"),
    ] {
        let text = Keys::default().add_pem(bad.as_bytes()).unwrap_err();
        assert!(text.contains(reason), "{text}");
    }
    let text = Keys::load(&[directory.path().join("none.pub")]).unwrap_err().to_string();
    assert!(text.contains("none.pub: cannot open"), "{text}");
}

/// SubjectPublicKeyInfo of a P-256 key up to its coordinates.
const P256_POINT_OFF_CURVE: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

#[test]
fn signing_refuses_what_the_agent_would_not_read() {
    let key = key(Algorithm::P256);
    let go = |sbom: &str, subjects: &[Subject], predicate_type: Option<&str>| {
        let limits = Limits { max_sbom_bytes: 1000, ..Limits::default() };
        sign(sbom.as_bytes(), subjects, predicate_type, &key, &limits, Vec::new())
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    let one = subjects();
    go(SBOM, &one, Some("https://spdx.dev/Document/v2.3")).unwrap();
    for good in [
        "{\"schema\":{},\"artifacts\":[]}",
        "{\"bomFormat\":\"CycloneDX\"}",
        "{\"@context\":\"\",\"@graph\":[]}",
        "# by hand\nSPDXVersion: SPDX-2.3\n",
    ] {
        go(good, &one, None).expect(good);
    }
    let large = format!("{SBOM:1001}");
    for (sbom, subjects, asked, reason) in [
        (large.as_str(), one.as_slice(), None, "has 1001 bytes, but at most 1000"),
        (SBOM, &[], None, "no subject"),
        (SBOM, &one, Some("https://syft.dev/bom"), "but the SBOM is"),
        (
            "{\"bomFormat\":\"CycloneDX\"}",
            &one,
            Some("https://spdx.dev/Document"),
            "https://cyclonedx.org/bom",
        ),
        ("{}", &one, None, "unknown form"),
        ("{", &one, None, "nor a JSON object"),
    ] {
        let text = go(sbom, subjects, asked).expect_err(sbom);
        assert!(text.contains(reason), "{sbom}: {text}");
    }
    assert!(matches!(
        sign(SBOM.as_bytes(), &one, None, &key, &Limits::default(), Full),
        Err(SignError::Write(_))
    ));
}

/// A disk without space.
struct Full;

impl std::io::Write for Full {
    fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
        Err(std::io::ErrorKind::StorageFull.into())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn envelopes_by_cosign() {
    let mut keys = Keys::default();
    keys.add_pem(&data("key-signed/cosign.pub")).unwrap();
    let image: Sha256 = "6af1b11bbb17f4c311e269db6530e4da2738262af5fd9064ccdf109b765860fb".parse().unwrap();
    let good = data("key-signed/alpine.att.json");
    let verified = verify(&good, &policy(&keys, 1), &Limits::default()).unwrap();
    assert!(verified.statement.names(&image));
    assert_eq!(verified.statement.predicate_type, PredicateType::Syft);
    assert!(verified.statement.predicate().ends_with(b"}"));

    let verified =
        verify(&data("key-signed/alpine.cdx.att.json"), &policy(&keys, 1), &Limits::default()).unwrap();
    assert_eq!(verified.statement.predicate_type, PredicateType::CycloneDx);

    for tampered in ["key-signed/alpine-tampered.att.json", "key-signed/alpine-tampered.cdx.att.json"] {
        let text = refusal(&data(tampered), &keys);
        assert!(text.contains("signed by 0 of the configured keys"), "{tampered}: {text}");
    }
    assert_eq!(claimed_subjects(&data("key-signed/alpine-tampered.att.json"), &Limits::default()), [image]);

    let mut other = Keys::default();
    other.add_pem(&data("key-signed/another_cosign.pub")).unwrap();
    assert!(refusal(&good, &other).contains("signed by 0 of the configured keys"));
    assert!(refusal(&data("legacy-data-wrapper.json"), &keys).contains("signed by 0 of the configured keys"));
}

/// Signs with python's securesystemslib, which is not ours, two kinds of keys over one envelope.
const FOREIGN_SIGNER: &str = r#"
import sys
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner
import json
keys = [load_pem_private_key(open(name, "rb").read(), None) for name in sys.argv[1:]]
envelope = Envelope(sys.stdin.buffer.read(), "application/vnd.in-toto+json", {})
for key in keys:
    envelope.sign(CryptoSigner(key))
print(json.dumps(envelope.to_dict(), indent=1))
"#;

#[test]
fn envelopes_by_securesystemslib() {
    use std::io::Write as _;
    let directory = tempfile::tempdir().unwrap();
    let (p256, ed25519) = (key(Algorithm::P256), key(Algorithm::Ed25519));
    let mut command = crate::python::program("python3");
    command.args(["-c", FOREIGN_SIGNER]);
    for (name, key) in [("p256", &p256), ("ed25519", &ed25519)] {
        let path = directory.path().join(name);
        std::fs::write(&path, key.to_pem().unwrap()).unwrap();
        command.arg(path);
    }
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("the environment's python3 runs");
    let statement = statement_with("{\"spdxVersion\":\"SPDX-2.3\",\"name\":\"gr\u{fc}n ~~~???\"}");
    child.stdin.take().unwrap().write_all(statement.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success(), "securesystemslib signs");
    let mut foreign = keys(&[&p256, &ed25519]);
    let verified = verify(&out.stdout, &policy(&foreign, 2), &Limits::default()).unwrap();
    assert!(verified.statement.names(&IMAGE));
    let mut expected = vec![p256.id(), ed25519.id()];
    expected.sort_unstable();
    assert_eq!(verified.signers.keys, expected);
    foreign = keys(&[&key(Algorithm::P256)]);
    assert!(refusal(&out.stdout, &foreign).contains("signed by 0 of the configured keys"));
}
