//! Bundles that Sigstore's own Python client makes with a private Sigstore: `muster attest verify` accepts them with that
//! Sigstore's trust root, and nothing that differs from them by a bit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster::attestation::key::Algorithm;
use muster::attestation::{
    self, Keys, Limits, Policy, PrivateKey, Signed, TrustRoot, is_over_artifact, verify, verify_artifact,
};
use muster::config::{self, Config, Identity};
use muster::finding::{Binding, Sha256};
use muster::images::{Digests, ImageState, Images};
use muster::metrics::Metrics;
use serde_json::{Value, json};

#[path = "common/python.rs"]
mod python;

const IDENTITY: &str = "https://ci.example/acme/web/.ci/release.yml@refs/tags/v1";
const ISSUER: &str = "https://token.ci.example";
const IMAGE: &str = "sha256:5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
const ARTIFACT: &[u8] = b"an artifact that is no image\n";
const BUNDLES: [&str; 4] = [
    "attestation.rekor1.sigstore.json",
    "attestation.rekor2.sigstore.json",
    "artifact.rekor1.sigstore.json",
    "artifact.rekor2.sigstore.json",
];

/// What one company's Sigstore has signed.
struct Company(tempfile::TempDir);

impl Company {
    fn new() -> Self {
        let new = Self(tempfile::tempdir().expect("a directory"));
        fs::write(new.path("sbom.json"), sbom().to_string()).expect("a file");
        fs::write(new.path("artifact"), ARTIFACT).expect("a file");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/sigstore_sign.py");
        // Without the bytecode of the modules beside the script.
        let output = python::program("python")
            .arg("-B")
            .arg(script)
            .arg(new.0.path())
            .args([IDENTITY, ISSUER, IMAGE])
            .args([new.path("sbom.json"), new.path("artifact")])
            .output()
            .expect("Python runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        new
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("text").to_owned()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).expect("the script writes it")).expect("JSON")
    }
}

fn sbom() -> Value {
    json!({
        "spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "web", "packages": [], "relationships": [],
        "files": [{ "SPDXID": "SPDXRef-1", "fileName": "/usr/bin/web",
            "checksums": [{ "algorithm": "SHA256", "checksumValue": "c".repeat(64) }] }],
    })
}

fn policy(trust_root: &Value) -> Policy {
    let root = TrustRoot::parse("test", trust_root.to_string().as_bytes()).expect("a trust root");
    let identity = Identity { identity: IDENTITY.into(), issuer: ISSUER.into() };
    Policy::new(Keys::default(), 1, vec![identity], root).expect("a policy")
}

/// Verifies a bundle of either kind; gives the proven time.
fn go(bundle: &Value, policy: &Policy) -> Result<SystemTime, String> {
    let (bytes, limits) = (bundle.to_string().into_bytes(), Limits::default());
    let time = if is_over_artifact(&bytes, &limits).map_err(|error| error.to_string())? {
        verify_artifact(&bytes, Signed::Bytes(ARTIFACT), policy, &limits).map(|verified| verified.time)
    } else {
        verify(&bytes, policy, &limits).map(|verified| verified.time)
    };
    Ok(time.map_err(|error| error.to_string())?.expect("a proven time"))
}

fn muster(file: &Path, arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_muster"));
    program.args(["attest", "verify"]).arg(file).args(arguments);
    program.output().expect("the program that cargo has built")
}

/// `muster attest verify` of a bundle with whom and what it is to be by and about.
fn attest(company: &Company, bundle: &str, who: [&str; 2], about: [&str; 2]) -> Output {
    let root = company.text("trusted_root.json");
    let arguments =
        ["--trust-root", &root, "--identity", who[0], "--issuer", who[1], about[0], about[1], "--json"];
    muster(&company.path(bundle), &arguments)
}

fn refused(output: &Output, reason: &str) {
    let said: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    assert_eq!((output.status.code(), &said["verified"]), (Some(1), &false.into()), "{said}");
    assert!(said["reason"].as_str().is_some_and(|text| text.contains(reason)), "{reason}: {said}");
}

#[test]
fn by_whom_and_about_what() {
    let (company, other) = (Company::new(), Company::new());
    let artifact = company.text("artifact");
    for name in BUNDLES {
        let over_artifact = name.starts_with("artifact");
        let about = if over_artifact { ["--artifact", artifact.as_str()] } else { ["--subject", IMAGE] };
        let output = attest(&company, name, [IDENTITY, ISSUER], about);
        assert!(output.status.success(), "{name}: {output:?}");
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((&said["identity"], &said["issuer"]), (&IDENTITY.into(), &ISSUER.into()), "{name}");
        assert_eq!((&said["verified"], &said["keys"]), (&true.into(), &json!([])), "{name}");
        if !over_artifact {
            let subject =
                json!([{ "name": "registry.example/web", "sha256": IMAGE.trim_start_matches("sha256:") }]);
            assert_eq!(
                (&said["subjects"], &said["predicate_type"]),
                (&subject, &"https://spdx.dev/Document/v2.3".into())
            );
        }
        let age = SystemTime::now()
            .duration_since(go(&company.json(name), &policy(&company.json("trusted_root.json"))).unwrap());
        assert!(age.is_ok_and(|age| age < Duration::from_mins(5)), "{name}: {}", said["signed_at"]);

        // Whole, or by a pattern; never by a part.
        for (who, accepted) in [
            (["https://ci.example/acme/*/.ci/release.yml@refs/tags/*", ISSUER], true),
            (["https://ci.example/**", ISSUER], true),
            ([&IDENTITY[..IDENTITY.len() - 1], ISSUER], false),
            (["https://ci.example/*", ISSUER], false),
            (["release@ci.example", ISSUER], false),
            ([IDENTITY, "https://token.ci.example/"], false),
            ([IDENTITY, "https://token.ci"], false),
        ] {
            let output = attest(&company, name, who, about);
            assert_eq!(output.status.success(), accepted, "{name} {who:?}: {output:?}");
            if !accepted {
                refused(&output, IDENTITY);
            }
        }
        let wrong = format!("sha256:{}", "6a".repeat(32));
        let reason = if over_artifact { "artifact" } else { "the statement is about sha256:5a5a" };
        refused(&attest(&company, name, [IDENTITY, ISSUER], ["--subject", &wrong]), reason);
        refused(
            &attest(&company, name, [IDENTITY, ISSUER], ["--artifact", &company.text("sbom.json")]),
            reason,
        );

        // The same names vouched for by another Sigstore: another company's, or the public one.
        for root in [other.text("trusted_root.json"), "embedded".to_owned()] {
            let arguments = [
                "--trust-root",
                &root,
                "--identity",
                IDENTITY,
                "--issuer",
                ISSUER,
                about[0],
                about[1],
                "--json",
            ];
            refused(&muster(&company.path(name), &arguments), "the Sigstore bundle is refused");
        }
        // Nobody's key made it.
        let key = PrivateKey::generate(Algorithm::P256).expect("a key");
        fs::write(company.path("key.pub"), key.public_pem()).expect("a file");
        let root = company.text("trusted_root.json");
        let output = muster(
            &company.path(name),
            &["--trust-root", &root, "--key", &company.text("key.pub"), about[0], about[1], "--json"],
        );
        refused(&output, "");
    }
}

const ENTRY: &str = "/verificationMaterial/tlogEntries/0";
const STAMP: &str = "/verificationMaterial/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp";

fn changed(bundle: &Value, field: &str, to: impl Into<Value>) -> Value {
    let mut changed = bundle.clone();
    *changed.pointer_mut(field).expect("the bundle has it") = to.into();
    changed
}

#[test]
fn a_flipped_bit_is_refused() {
    let company = Company::new();
    let policy = policy(&company.json("trusted_root.json"));
    for name in BUNDLES {
        let (bundle, second_log) = (company.json(name), name.contains("rekor2"));
        let time = go(&bundle, &policy).expect("it is good");
        let mut flips = 0;
        for field in [
            "/verificationMaterial/certificate/rawBytes",
            "/dsseEnvelope/payload",
            "/dsseEnvelope/signatures/0/sig",
            "/messageSignature/signature",
            "/messageSignature/messageDigest/digest",
            "canonicalizedBody",
            "inclusionPromise/signedEntryTimestamp",
            "inclusionProof/hashes/0",
            "inclusionProof/hashes/1",
            // These two are copies: of the second version of the log a verifier takes what the checkpoint's signature covers.
            "logId/keyId",
            "inclusionProof/rootHash",
            STAMP,
        ] {
            let pointer = if field.starts_with('/') { field.to_owned() } else { format!("{ENTRY}/{field}") };
            let Some(text) = bundle.pointer(&pointer).and_then(Value::as_str) else { continue };
            let bytes = STANDARD.decode(text).expect("base64");
            let is_copy = second_log && ["logId/keyId", "inclusionProof/rootHash"].contains(&field);
            // Of long fields one byte in so many, another bit each time.
            for at in (0..bytes.len()).step_by(bytes.len().div_ceil(100)) {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                let result = go(&changed(&bundle, &pointer, STANDARD.encode(flipped)), &policy);
                let accepted = result.as_ref().is_ok_and(|proven| *proven == time);
                // A timestamp comes with certificates that nothing signs, and which are not used: the trust root has them.
                assert!(
                    result.is_err() || accepted && (is_copy || field == STAMP),
                    "{name} {field} {at}: {result:?}"
                );
                flips += 1;
            }
        }
        println!("{name}: {flips} flipped bits");

        let checkpoint = format!("{ENTRY}/inclusionProof/checkpoint/envelope");
        let note = bundle.pointer(&checkpoint).and_then(Value::as_str).expect("a checkpoint").to_owned();
        let signature = note.rfind(' ').expect("a signature") + 1;
        let text = note.find("\n\n").expect("the end of the text");
        // Not the name before the signature, which nothing covers, nor the end, where base64 has bits to spare.
        for at in (0..text).chain(signature..note.len() - 4) {
            let mut flipped = note.clone().into_bytes();
            flipped[at] ^= 1;
            let Ok(flipped) = String::from_utf8(flipped) else { continue };
            let result = go(&changed(&bundle, &checkpoint, flipped), &policy);
            assert!(result.is_err(), "{name} checkpoint {at}: {result:?}");
        }
    }
}

/// What a timestamp authority signs: the time and the digest of the signature that it is about.
#[test]
fn a_timestamp_is_believed_for_what_is_signed_in_it() {
    let company = Company::new();
    let policy = policy(&company.json("trusted_root.json"));
    let bundle = company.json("attestation.rekor2.sigstore.json");
    let bytes_of = |field| {
        STANDARD.decode(bundle.pointer(field).and_then(Value::as_str).expect("text")).expect("base64")
    };
    let stamp = bytes_of(STAMP);
    let imprint = attestation::sha256(&bytes_of("/dsseEnvelope/signatures/0/sig"));
    let begin = memchr::memmem::find(&stamp, &imprint.0).expect("the digest of the signature");
    // TSTInfo goes on with a serial number and the time (RFC 3161, 2.4.2).
    let time = begin
        + 32
        + memchr::memmem::find(&stamp[begin + 32..], b"\x18\x0f20").expect("a GeneralizedTime")
        + 2;
    for at in (begin..begin + 32).chain(time..time + 15).chain(stamp.len() - 64..stamp.len()) {
        let mut flipped = stamp.clone();
        flipped[at] ^= 1;
        let result = go(&changed(&bundle, STAMP, STANDARD.encode(flipped)), &policy);
        assert!(result.is_err(), "{at}: {result:?}");
    }
}

#[test]
fn parts_that_are_missing_or_of_another_bundle() {
    let company = Company::new();
    let policy = policy(&company.json("trusted_root.json"));
    let stamps = "/verificationMaterial/timestampVerificationData";
    for name in BUNDLES {
        let (bundle, second_log) = (company.json(name), name.contains("rekor2"));
        let another = if name.starts_with("artifact") {
            name.replace("artifact", "attestation")
        } else {
            name.replace("attestation", "artifact")
        };
        let another = company.json(&another);
        for (field, may_be_missing, may_be_swapped) in [
            // The certificate is the same: one signer signed both.
            ("/verificationMaterial/certificate".to_owned(), false, true),
            ("/verificationMaterial/tlogEntries".to_owned(), false, false),
            (format!("{ENTRY}/inclusionProof"), false, false),
            (format!("{ENTRY}/inclusionProof/checkpoint"), false, false),
            // The time is the log's promise in the first version, and a timestamp in the second.
            (format!("{ENTRY}/inclusionPromise"), second_log, second_log),
            (stamps.to_owned(), !second_log, !second_log),
        ] {
            let (parent, member) = field.rsplit_once('/').expect("a pointer");
            let mut without = bundle.clone();
            let parent = without.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
            parent.remove(member);
            let result = go(&without, &policy);
            assert_eq!(result.is_ok(), may_be_missing, "{name} without {field}: {result:?}");
            if let Some(other) = another.pointer(&field) {
                let result = go(&changed(&bundle, &field, other.clone()), &policy);
                assert_eq!(result.is_ok(), may_be_swapped, "{name} with another's {field}: {result:?}");
            }
        }
        for field in ["logIndex", "integratedTime"] {
            let field = format!("{ENTRY}/{field}");
            let Some(number) = bundle.pointer(&field).and_then(Value::as_str) else { continue };
            let number: u64 = number.parse().expect("a number");
            for other in [number - 1, number + 1] {
                let result = go(&changed(&bundle, &field, other.to_string()), &policy);
                assert!(result.is_err(), "{name} {field} {other}: {result:?}");
            }
        }
    }
}

#[test]
fn trust_roots_that_do_not_know_the_services() {
    let (company, other) = (Company::new(), Company::new());
    let root = company.json("trusted_root.json");
    let foreign = other.json("trusted_root.json");
    let during = |kind: &str, range: Value| {
        let mut services = root[kind].clone();
        for service in services.as_array_mut().expect("a list") {
            let of = if service.get("publicKey").is_some() { &mut service["publicKey"] } else { service };
            of["validFor"] = range.clone();
        }
        services
    };
    for (kind, reasons) in [
        ("certificateAuthorities", ["certificate", "certificate"]),
        // Of the promise, or of the checkpoint.
        ("tlogs", ["No log key valid at integrated time", "No matching Rekor key"]),
        ("ctlogs", ["signed certificate timestamp", "signed certificate timestamp"]),
        ("timestampAuthorities", ["", "RFC 3161 timestamp"]),
    ] {
        for (what, services) in [
            ("another's", foreign[kind].clone()),
            (
                "ended",
                during(kind, json!({ "start": "2020-01-01T00:00:00Z", "end": "2021-01-01T00:00:00Z" })),
            ),
            ("not begun", during(kind, json!({ "start": "2100-01-01T00:00:00Z" }))),
        ] {
            let mut changed = root.clone();
            changed[kind] = services;
            let policy = policy(&changed);
            for name in BUNDLES {
                let result = go(&company.json(name), &policy);
                // The first version of the log proves the time itself.
                if kind == "timestampAuthorities" && name.contains("rekor1") {
                    assert!(result.is_ok(), "{name}, {kind} {what}: {result:?}");
                    continue;
                }
                let text = result.expect_err(&format!("{name}, {kind} {what}"));
                let reason = reasons[usize::from(name.contains("rekor2"))];
                assert!(text.contains(reason), "{name}, {kind} {what}: {text}");
            }
        }
    }
}

#[test]
fn in_the_drop_directory() {
    let (company, other) = (Company::new(), Company::new());
    for [attestation, artifact] in [[BUNDLES[0], BUNDLES[2]], [BUNDLES[1], BUNDLES[3]]] {
        let drop = tempfile::tempdir().expect("a directory");
        for name in [attestation, artifact] {
            fs::copy(company.path(name), drop.path().join(name)).expect("a file");
        }
        let mut config = Config {
            attestation: config::Attestation {
                directory: drop.path().to_owned(),
                identities: vec![Identity { identity: IDENTITY.into(), issuer: ISSUER.into() }],
                trust_root: config::TrustRoot::Path(company.path("trusted_root.json")),
                verified_directory: PathBuf::new(),
                ..config::Attestation::default()
            },
            host: config::Host {
                directory: PathBuf::new(),
                image: None,
                signers: None,
                package_managers: Vec::new(),
            },
            ..Config::default()
        };
        let images = Images::new(&config, Metrics::new()).expect("the policy is good");
        images.load_now();
        let image: Sha256 = IMAGE.parse().expect("a digest");
        let found = images.get(&Digests::named(image));
        let ImageState::Verified { index, documents } = &found.state else { panic!("{found:?}") };
        let entry = index.by_path(b"/usr/bin/web").expect("the SBOM lists it");
        assert_eq!(entry.sha256(), Some(Sha256([0xcc; 32])));
        let [document] = &documents[..] else { panic!("{documents:?}") };
        assert_eq!(document.file, attestation);
        assert_eq!(document.signers.to_string(), format!("{IDENTITY} (issuer {ISSUER})"));
        assert_eq!((document.binding, document.time.is_some()), (Binding::ImageDigest, true));
        let refused: Vec<_> = images.refused().iter().map(|refused| refused.file.clone()).collect();
        assert_eq!(refused, [artifact], "a signature over an artifact is about no image");
        let unknown = images.get(&Digests::named(Sha256([0xaa; 32])));
        assert!(matches!(unknown.state, ImageState::NoSbom), "{unknown:?}");

        // Of a Sigstore that is not believed any more, nothing counts.
        config.attestation.trust_root = config::TrustRoot::Path(other.path("trusted_root.json"));
        images.reload(&config).expect("the policy is good");
        let found = images.get(&Digests::named(image));
        let ImageState::Unverified { reason } = &found.state else { panic!("{found:?}") };
        assert!(reason.contains("the Sigstore bundle is refused"), "{reason}");
    }
}
