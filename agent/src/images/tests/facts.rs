//! Documents that are no SBOMs: accepted, kept, and no files of an image.

use serde_json::{Value, json};

use super::*;
use crate::attestation::tests::envelope_of;

fn statement(kind: &str, predicate: &Value) -> String {
    json!({
        "_type": "https://in-toto.io/Statement/v1", "subject": [{"digest": {"sha256": A.to_string()}}],
        "predicateType": kind, "predicate": predicate,
    })
    .to_string()
}

#[test]
fn provenance_and_vex_are_facts_of_an_image() {
    let drop = Drop::new();
    let provenance = json!({"builder": {"id": "https://ci.example"}, "materials": [
        {"uri": "git+https://git.example/web.git@main", "digest": {"sha1": "ab".repeat(20)}}]});
    let vex = json!({"@context": "https://openvex.dev/ns/v0.2.0", "statements": [
        {"vulnerability": {"name": "CVE-2026-1"}, "status": "fixed", "products": [{"@id": "pkg:deb/debian/bash@5"}]}]});
    let put = |name: &str, kind: &str, predicate: &Value| {
        drop.put(name, envelope_of(&statement(kind, predicate), &[&drop.key]));
    };
    put("provenance.json", "https://slsa.dev/provenance/v0.2", &provenance);
    put("vex.json", "https://openvex.dev/ns/v0.2.0", &vex);
    let images = drop.images();
    assert!(images.refused().is_empty(), "{:?}", images.refused());
    let image = images.get(&named(A));
    assert!(matches!(image.state, ImageState::NoSbom), "they list no files: {image:?}");
    assert_eq!(image.facts.provenance[0].source.as_deref(), Some("https://git.example/web"));
    assert_eq!(image.facts.vex[0].about("pkg:deb/debian/bash@5", &[]).count(), 1);

    drop.put("sbom.json", envelope(&drop.key, &[A], &sbom(&["/usr/bin/a"])));
    images.load_now();
    let image = images.get(&named(A));
    assert_eq!(documents(&image), ["sbom.json"]);
    assert_eq!((image.facts.provenance.len(), image.facts.vex.len()), (1, 1));

    let before = images.generation();
    fs::remove_file(drop.path("vex.json")).unwrap();
    images.load_now();
    assert!(images.generation() > before && images.get(&named(A)).facts.vex.is_empty());

    put("provenance.json", "https://slsa.dev/provenance/v1", &provenance);
    put("vex.json", "https://openvex.dev/ns", &json!({"@context": "https://openvex.dev/ns/v0.0.1"}));
    images.load_now();
    let reasons: Vec<_> = images.refused().iter().map(|refused| refused.reason.clone()).collect();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(
        reasons[0].starts_with("its signature is good, but the VEX document is refused: "),
        "{reasons:?}"
    );
    assert_eq!(documents(&images.get(&named(A))), ["sbom.json"], "a bad document beside takes nothing away");
    for name in ["sbom.json", "vex.json", "provenance.json"] {
        fs::remove_file(drop.path(name)).unwrap();
    }
    images.load_now();
    let image = images.get(&named(A));
    assert!(image.lost.is_some(), "{image:?}");
    assert!(image.facts.provenance.is_empty() && image.facts.vex.is_empty());
}

/// A keyless bundle in the drop directory, and who may sign.
#[test]
fn bundles_by_certificate() {
    let data = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../shared/data/attestation/sigstore-conformance/happy-path-intoto-in-dsse-v3/bundle.sigstore.json"
    ));
    let bundle = fs::read(&data)
        .unwrap_or_else(|error| panic!("{}: {error}; the tests need the shared test data", data.display()));
    let subject: Sha256 = "a0cfc71271d6e278e57cd332ff957c3f7043fdda354c4cbb190a30d56efa01bf".parse().unwrap();
    let mut drop = Drop::new();
    drop.put("a.sigstore.json", &bundle);
    assert!(unverified(&drop.images(), &subject).contains("no identity may sign"));
    let who = |identity: &str| config::Identity {
        identity: identity.into(),
        issuer: "https://token.actions.githubusercontent.com".into(),
    };
    drop.config.attestation.identities = vec![who("https://github.com/acme/**")];
    assert!(unverified(&drop.images(), &subject).contains("which may not sign"));
    drop.config.attestation.identities.push(who("https://github.com/sigstore-conformance/**"));
    let images = drop.images();
    assert!(images.refused().is_empty(), "{:?}", images.refused());
    assert_eq!(images.get(&named(subject)).facts.provenance.len(), 1);
    drop.config.attestation.trust_root = config::TrustRoot::EmbeddedGithub;
    assert!(unverified(&drop.images(), &subject).contains("name their trust root"));
    drop.config.attestation.trust_root = config::TrustRoot::Path(drop.path("none.json"));
    let error = Images::new(&drop.config, Metrics::new()).unwrap_err().to_string();
    assert!(error.contains("none.json"), "{error}");
}
