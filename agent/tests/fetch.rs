//! `muster attest fetch` on directories in the OCI image layout, as a person runs it.

#[path = "common/image.rs"]
mod image;
#[path = "common/layout.rs"]
mod layout;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{Document, INDEX, Image, MANIFEST, descriptor, envelope, of_layer, signature, text, with};
use muster::attestation::PrivateKey;
use muster::attestation::key::Algorithm;
use muster::attestation::sha256;
use muster::finding::Sha256;
use serde_json::{Value, json};

fn fetch(layout: &Path, digest: &Sha256, more: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_muster"));
    let image = format!("oci:{}@sha256:{digest}", layout.display());
    program.args(["attest", "fetch", &image]).args(more).output().expect("muster runs")
}

/// A layout and the file of its key.
fn layout(image: &Image) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().expect("a directory");
    layout::write(image, directory.path());
    let key = directory.path().join("key.pub");
    fs::write(&key, image.key.public_pem()).expect("written");
    let key = key.to_str().expect("UTF-8").to_owned();
    (directory, key)
}

/// Each attestation: where it is, and why it is refused.
fn judged(output: &Output) -> Vec<(String, Option<String>)> {
    let said: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    let of = |attestation: &Value| {
        let text = |key: &str| attestation[key].as_str().map(str::to_owned);
        assert_eq!(attestation["verified"].as_bool(), Some(text("reason").is_none()));
        (text("from").expect("it says where"), text("reason"))
    };
    said["attestations"].as_array().expect("a list").iter().map(of).collect()
}

#[test]
fn a_layout_holds_what_passes_and_what_does_not() {
    for signed in [true, false] {
        let image = Image::new(signed);
        let (directory, key) = layout(&image);
        // By the index, and by the manifest: the layout says in which index it is.
        for digest in [&image.index, &image.manifest] {
            let output = fetch(directory.path(), digest, &["--key", &key, "--json"]);
            assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
            let judged = judged(&output);
            let [referrer, own, foreign, buildkit] = &judged[..] else { panic!("{judged:?}") };
            assert!(referrer.0.contains("referrer sha256:") && referrer.1.is_none(), "{referrer:?}");
            assert!(own.0.contains(&format!("sha256-{}.att", image.manifest)) && own.1.is_none(), "{own:?}");
            assert!(foreign.1.as_ref().is_some_and(|why| why.contains("signed by 0 of")), "{foreign:?}");
            assert!(buildkit.0.contains("BuildKit"), "{buildkit:?}");
            match &buildkit.1 {
                None => assert!(signed, "nobody signed the index"),
                Some(why) => assert!(!signed && why.contains("nobody signed"), "{why}"),
            }
            let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(said["index"], format!("sha256:{}", image.index));
            assert_eq!(said["platforms"][0]["manifest"], format!("sha256:{}", image.manifest));
            let not_counted = said["not_counted"].to_string();
            assert!(not_counted.contains("never evidence"), "{not_counted}");
            assert_eq!(not_counted.contains("only that the image is signed"), signed, "{not_counted}");
            assert_eq!(said["unread"].as_array().map(Vec::len), Some(0), "{}", said["unread"]);
        }
        let output = fetch(directory.path(), &image.index, &["--key", &key]);
        let said = text(&output.stdout);
        let passes = if signed { "3 of 4 attestations pass" } else { "2 of 4 attestations pass" };
        assert!(said.ends_with(&format!("{passes}\n")), "{said}");
    }
}

#[test]
fn nothing_that_passes_is_a_failure() {
    let image = Image::new(true);
    let (directory, key) = layout(&image);
    let other = directory.path().join("other.pub");
    let foreign = PrivateKey::generate(Algorithm::P384).expect("a key");
    fs::write(&other, foreign.public_pem()).expect("written");
    let other = other.to_str().expect("UTF-8");
    for (digest, key, code, says) in [
        (&image.index, other, 1, "0 of 4"),
        (&Sha256([0x5a; 32]), &*key, 1, "0 of 0"),
        (&image.index, "none.pub", 2, "none.pub: cannot open"),
    ] {
        let output = fetch(directory.path(), digest, &["--key", key]);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(said.contains(says), "{said}");
    }
    let output = fetch(&directory.path().join("none"), &image.index, &["--key", &key]);
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("expected an OCI layout"), "{said}");

    for bad in ["oci:x", "oci:x@sha256:00", "nginx:latest", "registry.example/a"] {
        let output = Command::new(env!("CARGO_BIN_EXE_muster"))
            .args(["attest", "fetch", bad, "--key", &key])
            .output()
            .expect("muster runs");
        assert_eq!(output.status.code(), Some(2), "{bad}: {}", text(&output.stderr));
    }
}

/// Every document and blob is hashed again: a changed one is refused, and the rest still counts.
#[test]
fn a_damaged_layout_loses_only_what_is_damaged() {
    let image = Image::new(true);
    let (directory, key) = layout(&image);
    let blobs = directory.path().join("blobs/sha256");
    let att = image.documents.iter().find(|of| of.tag.as_ref().is_some_and(|tag| tag.ends_with(".att")));
    let att: Value = serde_json::from_slice(&att.expect("there is one").bytes).expect("JSON");
    let own = att["layers"][0]["digest"]
        .as_str()
        .and_then(|digest| digest.strip_prefix("sha256:"))
        .expect("a digest");
    let mut bytes = fs::read(blobs.join(own)).expect("the envelope");
    bytes[20] ^= 1;
    fs::write(blobs.join(own), &bytes).expect("written");
    let output = fetch(directory.path(), &image.index, &["--key", &key, "--json"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(judged(&output).len(), 3);
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let unread = said["unread"].to_string();
    assert!(unread.contains(&sha256(&bytes).to_string()) && unread.contains("damaged or lies"), "{unread}");

    bytes.push(b' ');
    fs::write(blobs.join(own), &bytes).expect("written");
    let said = text(&fetch(directory.path(), &image.index, &["--key", &key]).stdout);
    assert!(said.contains("but its descriptor says"), "{said}");
    fs::remove_file(blobs.join(own)).expect("removed");
    let said = text(&fetch(directory.path(), &image.index, &["--key", &key]).stdout);
    assert!(said.contains("it is not there") && said.ends_with("2 of 3 attestations pass\n"), "{said}");
}

/// A place proves nothing: what lies beside an image is about it only if its statement says so.
#[test]
fn a_good_attestation_of_another_image_does_not_pass() {
    let image = Image::new(false);
    let (directory, key) = layout(&image);
    let another = Sha256([0x5a; 32]);
    let index = directory.path().join("index.json");
    let content = fs::read_to_string(&index).expect("the index");
    let moved = content.replace(&format!("sha256-{}.att", image.manifest), &format!("sha256-{another}.att"));
    assert_ne!(content, moved);
    fs::write(&index, moved).expect("written");
    let output = fetch(directory.path(), &another, &["--key", &key, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let judged = judged(&output);
    assert!(judged[0].1.as_ref().is_some_and(|why| why.contains("not about this image")), "{judged:?}");
}

/// An image for two platforms; of each the manifest's digest and the layer's.
fn two_platforms() -> (Image, [(Sha256, Sha256); 2]) {
    let key = PrivateKey::generate(Algorithm::P256).expect("a key");
    let (blobs, documents) = (Vec::new(), Vec::new());
    let mut image = Image { key, index: Sha256::default(), manifest: Sha256::default(), blobs, documents };
    let mut listed = Vec::new();
    let platforms = [("amd64", Sha256([7; 32])), ("arm64", Sha256([8; 32]))].map(|(architecture, layer)| {
        let config = json!({
            "architecture": architecture, "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        });
        image.blobs.push(config);
        let (manifest, digest) = add(&mut image, MANIFEST, &manifest, None);
        listed.push(with(manifest, "platform", json!({"architecture": architecture, "os": "linux"})));
        (digest, layer)
    });
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed});
    image.index = add(&mut image, INDEX, &index, None).1;
    (image, platforms)
}

fn add(
    image: &mut Image,
    media_type: &'static str,
    content: &Value,
    subject: Option<Sha256>,
) -> (Value, Sha256) {
    let bytes = content.to_string().into_bytes();
    let added = (descriptor(media_type, &bytes), sha256(&bytes));
    // Only what has a tag is in the layout's own index.
    let tag = (media_type == INDEX).then(|| "latest".to_owned());
    image.documents.push(Document { bytes, media_type, tag, subject });
    added
}

/// Puts an envelope beside the index.
fn refer(image: &mut Image, envelope: Vec<u8>) {
    const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
    let empty = descriptor("application/vnd.oci.empty.v1+json", b"{}");
    let index = image.documents.iter().find(|of| sha256(&of.bytes) == image.index).expect("the index");
    let referrer = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ENVELOPE, "config": empty,
        "layers": [descriptor(ENVELOPE, &envelope)], "subject": descriptor(INDEX, &index.bytes),
    });
    image.blobs.push(envelope);
    add(image, MANIFEST, &referrer, Some(image.index));
}

/// An envelope over an OpenVEX document about the image with this digest.
fn vex(key: &PrivateKey, about: Sha256) -> Vec<u8> {
    let payload = json!({
        "_type": "https://in-toto.io/Statement/v1", "predicateType": "https://openvex.dev/ns/v0.2.0",
        "subject": [{"name": "web", "digest": {"sha256": about.to_string()}}],
        "predicate": {"@context": "https://openvex.dev/ns/v0.2.0", "statements": []},
    });
    let (payload, payload_type) = (payload.to_string(), "application/vnd.in-toto+json");
    let signed = format!("DSSEv1 {} {payload_type} {} {payload}", payload_type.len(), payload.len());
    let envelope = json!({
        "payloadType": payload_type, "payload": STANDARD.encode(&payload),
        "signatures": [{"sig": signature(key, signed.as_bytes())}],
    });
    envelope.to_string().into_bytes()
}

/// What is signed well and what the agent counts are two things: the subject may stand for another platform's image, too.
#[test]
fn what_the_agent_would_not_count_does_not_pass() {
    let foreign = of_layer("/usr/bin/a", Sha256([9; 32]));
    let unsaid = foreign.replace("layerID", "nothing");
    let unread = r#"{"schema":{"version":"99.0.0"},"artifacts":[],"source":{}}"#.to_owned();
    let (index, [amd64, arm64]) = {
        let (image, platforms) = two_platforms();
        (image.index, platforms)
    };
    let own = of_layer("/usr/bin/a", amd64.1);
    let [on_amd64, on_arm64] = ["linux/amd64", "linux/arm64"];
    let (by_index, by_manifest, unproven) = (Some("index_digest"), Some("manifest_digest"), Some("unproven"));
    // What it is about (VEX: `None`), and for each platform what binds it.
    for (name, sbom, about, expected) in [
        ("of amd64", Some(&own), index, &[(on_amd64, by_index), (on_arm64, unproven)][..]),
        ("of another image", Some(&foreign), index, &[(on_amd64, unproven), (on_arm64, unproven)]),
        ("of an unknown image", Some(&unsaid), index, &[(on_amd64, unproven), (on_arm64, unproven)]),
        ("whose subject is arm64", Some(&unsaid), arm64.0, &[(on_arm64, by_manifest)]),
        ("of a version that is not read", Some(&unread), index, &[]),
        ("VEX", None, index, &[(on_amd64, None), (on_arm64, None)]),
    ] {
        let (mut image, _) = two_platforms();
        let signed = match sbom {
            Some(sbom) => envelope(&image.key, about, sbom),
            None => vex(&image.key, about),
        };
        refer(&mut image, signed);
        let (directory, key) = layout(&image);
        let counts = expected.iter().any(|(_, binding)| *binding != unproven);
        let output = fetch(directory.path(), &image.index, &["--key", &key, "--json"]);
        assert_eq!(output.status.code(), Some(i32::from(!counts)), "{name}: {}", text(&output.stderr));
        let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let said = &said["attestations"][0];
        assert_eq!((&said["verified"], &said["counts"]), (&json!(true), &json!(counts)), "{name}: {said}");
        let platforms: Vec<_> = said["platforms"].as_array().expect("a list").iter().collect();
        let found: Vec<_> =
            platforms.iter().map(|of| (of["platform"].as_str(), of["binding"].as_str())).collect();
        let expected: Vec<_> = expected.iter().map(|(of, binding)| (Some(*of), *binding)).collect();
        assert_eq!(found, expected, "{name}");
        for of in platforms {
            let is_unproven = of["binding"] == "unproven";
            assert_eq!(
                (&of["counts"], of["reason"].is_string()),
                (&json!(!is_unproven), is_unproven),
                "{of}"
            );
        }

        let output = fetch(directory.path(), &image.index, &["--key", &key]);
        let said = text(&output.stdout);
        assert_eq!(output.status.code(), Some(i32::from(!counts)), "{name}: {said}");
        assert!(said.ends_with(&format!("{} of 1 attestations pass\n", i32::from(counts))), "{name}: {said}");
        assert_eq!(said.contains(": verified, but does not count\n"), !counts, "{name}: {said}");
        for (of, binding) in &expected {
            let of = of.unwrap_or_default();
            let line = match binding {
                Some("unproven") => format!("  unproven    for {of}: "),
                Some(binding) => format!("  counts for  {of}, bound by {binding}\n"),
                None => format!("  counts for  {of}\n"),
            };
            assert!(said.contains(&line), "{name}: {said}");
        }

        // Of one platform's manifest alone.
        let output = fetch(directory.path(), &amd64.0, &["--key", &key]);
        let said = text(&output.stdout);
        assert!(!said.contains(on_arm64), "{name}: {said}");
        let counts = expected.iter().any(|(of, binding)| *of == Some(on_amd64) && *binding != unproven);
        assert_eq!(output.status.code(), Some(i32::from(!counts)), "{name}: {said}");
    }
}

#[cfg(not(feature = "registry"))]
#[test]
fn a_registry_needs_a_program_that_is_built_for_it() {
    let (_directory, key) = layout(&Image::new(false));
    let image = format!("registry.example/web@sha256:{}", Sha256([1; 32]));
    let output = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["attest", "fetch", &image, "--key", &key])
        .output()
        .expect("muster runs");
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("--features registry"), "{said}");
}
