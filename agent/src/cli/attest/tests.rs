//! Every attestation of the shared test data, through the command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser as _;

use crate::attestation::key::Algorithm;
use crate::attestation::sign::sign;
use crate::attestation::{Limits, PrivateKey, Subject};
use crate::cli::Cli;
use crate::finding::Sha256;

const WORKFLOW: &str = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main";
const PATTERN: &str = "https://github.com/sigstore-conformance/*/.github/workflows/*@refs/heads/**";
const GITHUB: &str = "https://token.actions.githubusercontent.com";
const A_TXT: &str = "sha256:a0cfc71271d6e278e57cd332ff957c3f7043fdda354c4cbb190a30d56efa01bf";

fn data(name: &str) -> String {
    let path =
        PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/attestation")).join(name);
    assert!(path.exists(), "{}: the tests need the shared test data beside the workspace", path.display());
    path.to_str().expect("the path is UTF-8").to_owned()
}

fn verify(args: &[&str]) -> ExitCode {
    let line = ["muster", "attest", "verify"].iter().chain(args);
    Cli::try_parse_from(line).expect("the arguments are right").run().expect("verify says all by its status")
}

#[test]
fn sigstore_conformance() {
    let github = ["--identity", WORKFLOW, "--issuer", GITHUB];
    let (good, refused) = (ExitCode::SUCCESS, ExitCode::FAILURE);
    for (case, about, expected) in [
        ("happy-path-intoto-in-dsse-v3", &["--subject", A_TXT][..], good),
        ("rekor2-dsse-happy-path", &["--subject", A_TXT], good),
        ("intoto-with-custom-trust-root", &["--artifact", "artifact"], good),
        ("bundle-malformed-json_fail", &["--subject", A_TXT], refused),
        ("dsse-invalid-sig_fail", &["--subject", A_TXT], refused),
        ("dsse-mismatch-envelope_fail", &["--subject", A_TXT], refused),
        ("inclusion-proof-corrupted-hash_fail", &["--subject", A_TXT], refused),
        ("intoto-expired-certificate_fail", &["--artifact", "artifact"], refused),
        ("rekor2-dsse-invalid-sig_fail", &["--subject", A_TXT], refused),
    ] {
        let file = |name: &str| data(&format!("sigstore-conformance/{case}/{name}"));
        let bundle = file("bundle.sigstore.json");
        let artifact = about.contains(&"artifact").then(|| file("artifact"));
        let about = [about[0], artifact.as_deref().unwrap_or(about[1])];
        let root = PathBuf::from(&bundle).with_file_name("trusted_root.json");
        let root = root.exists().then(|| file("trusted_root.json"));
        let root: Vec<&str> = root.iter().flat_map(|root| ["--trust-root", root.as_str()]).collect();
        let run = |about: &[&str], who: &[&str]| verify(&[&[bundle.as_str()], about, &root, who].concat());
        assert_eq!(run(&about, &github), expected, "{case}");
        if expected != good {
            continue;
        }
        assert_eq!(run(&[], &github), good, "{case}, whatever it is about");
        assert_eq!(run(&[], &["--identity", PATTERN, "--issuer", GITHUB]), good, "{case}, by a pattern");
        let other = A_TXT.replace("a0", "a1");
        assert_eq!(run(&["--subject", &other], &github), refused, "{case}, about another");
        for (identity, issuer) in [
            (WORKFLOW.replace("main", "mai"), GITHUB),
            (
                WORKFLOW.replace("https://github.com/sigstore", "https://github.com/*"),
                "https://accounts.google.com",
            ),
            ("https://github.com/*".into(), GITHUB),
            ("https://github.com/other/**".into(), GITHUB),
        ] {
            let who = ["--identity", identity.as_str(), "--issuer", issuer];
            assert_eq!(run(&about, &who), refused, "{case}, signed by {identity} of {issuer}");
        }
        // A root without this signer's services, and a key where a certificate signed.
        let strange = ["--trust-root", "embedded:github"];
        assert_eq!(verify(&[&[bundle.as_str()], &strange[..], &github].concat()), refused, "{case}");
        assert_eq!(run(&about, &["--key", &data("key-signed/cosign.pub")]), refused, "{case}, by a key");
    }
}

#[test]
fn signatures_over_artifacts_by_a_key() {
    let (good, refused, usage) = (ExitCode::SUCCESS, ExitCode::FAILURE, ExitCode::from(2));
    let file = |case: &str, name: &str| data(&format!("sigstore-conformance/{case}/{name}"));
    let (happy, wrong) = ("managed-key-happy-path", "managed-key-wrong-key_fail");
    let bundle = file(happy, "bundle.sigstore.json");
    let (key, other) = (file(happy, "key.pub"), data("key-signed/another_cosign.pub"));
    let (subject, another) = (["--subject", A_TXT], A_TXT.replace("a0", "a1"));
    for (args, about, expected) in [
        (&["--key", &key][..], &subject[..], good),
        (&["--key", &other, "--key", &key], &subject, good),
        (&["--key", &key], &["--subject", &another], refused),
        (&["--key", &key], &["--artifact", &key], refused),
        (&["--key", &other], &subject, refused),
        (&["--key", &key, "--key", &other, "--threshold", "2"], &subject, refused),
        (&["--key", &key, "--trust-root", "embedded:github"], &subject, refused),
        (&["--identity", WORKFLOW, "--issuer", GITHUB], &subject, refused),
        (&["--key", &key], &[], usage),
        // The suite's wrong key is not even a key.
        (&["--key", &file(wrong, "key.pub")], &subject, usage),
    ] {
        assert_eq!(verify(&[&[bundle.as_str()], args, about].concat()), expected, "{args:?} {about:?}");
    }
    let bundle = file(wrong, "bundle.sigstore.json");
    assert_eq!(verify(&[&bundle, "--key", &other, "--subject", A_TXT]), refused);
}

#[test]
fn key_signed_and_keyless() {
    let (good, refused) = (ExitCode::SUCCESS, ExitCode::FAILURE);
    let (right, other) = (data("key-signed/cosign.pub"), data("key-signed/another_cosign.pub"));
    let alpine = "sha256:6af1b11bbb17f4c311e269db6530e4da2738262af5fd9064ccdf109b765860fb";
    for (name, key, more, expected) in [
        ("key-signed/alpine.att.json", &right, &[][..], good),
        ("key-signed/alpine.att.json", &right, &["--subject", alpine], good),
        ("key-signed/alpine.att.json", &right, &["--subject", A_TXT], refused),
        ("key-signed/alpine.att.json", &other, &[], refused),
        ("key-signed/alpine.att.json", &right, &["--artifact", "Cargo.toml"], refused),
        ("key-signed/alpine.cdx.att.json", &right, &["--json"], good),
        ("key-signed/alpine.cdx.att.json", &other, &["--json"], refused),
        ("key-signed/alpine-tampered.att.json", &right, &[], refused),
        ("key-signed/alpine-tampered.cdx.att.json", &right, &[], refused),
        ("legacy-data-wrapper.json", &right, &[], refused),
        ("keyless/oci-attestation.sigstore.json", &right, &[], refused),
    ] {
        let file = data(name);
        assert_eq!(verify(&[&[&file, "--key", key], more].concat()), expected, "{name} {key} {more:?}");
    }
    let usage = ExitCode::from(2);
    let file = data("key-signed/alpine.att.json");
    assert_eq!(verify(&[&file, "--key", &data("key-signed/cosign_broken.pub")]), usage);
    assert_eq!(verify(&[&file, "--key", &right, "--trust-root", "none.json"]), usage);
    assert_eq!(verify(&[&file, "--key", &right, "--trust-root", &right]), usage, "not a trust root");
    assert_eq!(verify(&[&file, "--identity", "**", "--issuer", GITHUB]), usage, "anyone");
    for bad in [
        &["--identity", WORKFLOW][..],
        &["--issuer", GITHUB],
        &[],
        &["--key", &right, "--subject", alpine, "--artifact", "x"],
    ] {
        let args = [&["muster", "attest", "verify", &file], bad].concat();
        assert_eq!(Cli::try_parse_from(args).unwrap_err().exit_code(), 2, "{bad:?}");
    }
}

/// A good signature is not all: the agent refuses what it cannot read, and so does this.
#[test]
fn what_the_agent_would_refuse_is_not_verified() {
    let place = tempfile::tempdir().expect("a directory");
    let key = PrivateKey::generate(Algorithm::P256).expect("a key");
    let public = place.path().join("key.pub");
    std::fs::write(&public, key.public_pem()).expect("a file");
    let checksum = |digits: usize| {
        let file = r#"{"SPDXID":"SPDXRef-1","fileName":"/bin/a","checksums":[{"algorithm":"SHA256","checksumValue":"#;
        format!(
            r#"{{"spdxVersion":"SPDX-2.3","name":"a","packages":[],"relationships":[],"files":[{file}"{}"}}]}}]}}"#,
            "a".repeat(digits)
        )
    };
    let cyclonedx = r#"{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{}]}"#;
    let syft = |version: &str, artifacts: &str| {
        format!(r#"{{"schema":{{"version":"{version}"}},"artifacts":{artifacts},"source":{{}}}}"#)
    };
    for (name, document, expected) in [
        ("good", checksum(64), ExitCode::SUCCESS),
        ("a digest that is too short", checksum(62), ExitCode::FAILURE),
        ("a component without a name", cyclonedx.to_owned(), ExitCode::FAILURE),
        ("artifacts that are none", syft("16.0.0", "[7]"), ExitCode::FAILURE),
        // It is said that the agent does not read these.
        ("a schema that is not known", syft("99.0.0", "[]"), ExitCode::SUCCESS),
        ("SPDX of a version that is not known", checksum(64).replace("2.3", "9.9"), ExitCode::SUCCESS),
    ] {
        let subject = Subject { name: String::new(), sha256: Some(Sha256([7; 32])) };
        let mut out = Vec::new();
        sign(document.as_bytes(), &[subject], None, &key, &Limits::default(), &mut out).expect(name);
        let file = place.path().join("a.json");
        std::fs::write(&file, out).expect("a file");
        let (file, public) = (file.to_str().expect("text"), public.to_str().expect("text"));
        assert_eq!(verify(&[file, "--key", public]), expected, "{name}");
        assert_eq!(verify(&[file, "--key", public, "--json"]), expected, "{name}");
    }
}

#[test]
fn keyless_over_an_image() {
    let file = data("keyless/oci-attestation.sigstore.json");
    let image = "sha256:732112270d7e59418a8c080b134b24cabd67d250d0d0147a97ed95ba5c280aa4";
    let (who, issuer) = ("cody@soyland.com", "https://github.com/login/oauth");
    let (good, refused) = (ExitCode::SUCCESS, ExitCode::FAILURE);
    for (identity, issuer, subject, expected) in [
        (who, issuer, image, good),
        ("*@soyland.com", issuer, image, good),
        (who, issuer, A_TXT, refused),
        ("*@soyland.co", issuer, image, refused),
        ("cody@soyland", issuer, image, refused),
        (who, GITHUB, image, refused),
        (who, "https://github.com/login/oauth/", image, refused),
    ] {
        let args = [&file, "--identity", identity, "--issuer", issuer, "--subject", subject];
        assert_eq!(verify(&args), expected, "{identity} {issuer} {subject}");
    }
}

/// A file that comes to the test data is put into a table: of attestations here, of SBOMs in `tests/sbom.rs`.
#[test]
fn every_file_of_the_test_data_is_in_a_table() {
    let tables = concat!(include_str!("tests.rs"), include_str!("../../../tests/sbom.rs"));
    let is_named = |name: &str| tables.contains(&format!("\"{name}\""));
    let root = PathBuf::from(data("")).join("..");
    let mut seen = 0;
    for entry in walkdir::WalkDir::new(&root).min_depth(1) {
        let entry = entry.expect("the test data can be read");
        if entry.file_type().is_dir() || entry.file_name() == "README.md" {
            continue;
        }
        let path = entry.path().strip_prefix(&root).expect("it is below").to_str().expect("text");
        let named = match path.split_once('/') {
            Some(("sbom", name)) => is_named(name),
            Some(("attestation", name)) => match name.strip_prefix("sigstore-conformance/") {
                Some(of_a_case) => of_a_case.split('/').all(is_named),
                None => is_named(name),
            },
            _ => false,
        };
        assert!(named, "{path} is in no table of a test");
        seen += 1;
    }
    assert!(seen > 0, "{}: no test data", root.display());
}
