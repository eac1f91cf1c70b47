//! `muster attest fetch` on directories in the OCI image layout, as a person runs it.

#[path = "common/image.rs"]
mod image;
#[path = "common/layout.rs"]
mod layout;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use image::{Image, text};
use muster::attestation::PrivateKey;
use muster::attestation::key::Algorithm;
use muster::attestation::sha256;
use muster::finding::Sha256;
use serde_json::Value;

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
