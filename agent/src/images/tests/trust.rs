//! What decides about attestations changes.

use super::*;
use crate::config::{Identity, TrustRoot};

/// Of `d.txt`, by the Sigstore conformance suite.
const ARTIFACT: &str = "330a043220fa13e01d68a7db39c89e12b0c4c3b6a0346fe624b0903f1303b5b2";
const WORKFLOW: &str = "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/.github/workflows/\
                        extremely-dangerous-oidc-beacon.yml@refs/heads/main";

fn accepted(images: &Images) -> u64 {
    let text = images.metrics.text();
    let line =
        text.lines().find_map(|line| line.strip_prefix("muster_documents_total{outcome=\"accepted\"} "));
    line.and_then(|count| count.parse().ok()).unwrap()
}

#[test]
fn a_reload_that_decides_the_same_reads_nothing_anew() {
    let drop = Drop::new();
    drop.put("a.json", envelope(&drop.key, &[A], &sbom(&["/usr/bin/a"])));
    let images = drop.images();
    let (before, generation) = (images.get(&named(A)), images.generation());
    images.reload(&drop.config).unwrap();
    let other_limit = drop.with(|a| a.max_json_depth = 63);
    assert_eq!((accepted(&images), images.generation()), (1, generation));
    assert!(Arc::ptr_eq(&before, &images.get(&named(A))));

    // Another limit: read again, but nothing changed for the image.
    images.reload(&other_limit).unwrap();
    assert_eq!((accepted(&images), images.generation()), (2, generation));
    assert!(Arc::ptr_eq(&before, &images.get(&named(A))));

    // The same key under another name decides the same; another one in its place does not.
    let copy = drop.path("copy.pub");
    fs::copy(drop.path("key.pub"), &copy).unwrap();
    let renamed = drop.with(|a| (a.max_json_depth, a.keys) = (63, vec![copy.clone()]));
    images.reload(&renamed).unwrap();
    assert_eq!(accepted(&images), 2);
    fs::write(&copy, PrivateKey::generate(Algorithm::P256).unwrap().public_pem()).unwrap();
    images.reload(&renamed).unwrap();
    assert!(unverified(&images, &A).contains("signed by 0 of the configured keys"));
    assert!(images.generation() > generation);
}

#[test]
fn new_keys_are_noticed_without_a_reload() {
    let drop = Drop::new();
    drop.put("a.json", envelope(&drop.key, &[A], &sbom(&["/usr/bin/a"])));
    let images = drop.images();
    assert!(images.loader.lock().unwrap().has_signers(), "so that `watch` follows the keys");
    let (stop, theirs) = UnixStream::pair().unwrap();
    let follower = Arc::clone(&images);
    let thread = std::thread::spawn(move || follower.follow_policy(&theirs, 10));
    let put = |key: &str| {
        fs::write(drop.path("new"), key).unwrap();
        fs::rename(drop.path("new"), drop.path("key.pub")).unwrap();
    };
    let is_verified = || matches!(images.get(&named(A)).state, ImageState::Verified { .. });
    assert!(is_verified());
    put(&PrivateKey::generate(Algorithm::P256).unwrap().public_pem());
    wait_until(|| !is_verified());
    assert!(unverified(&images, &A).contains("signed by 0 of the configured keys"));
    // What is no key changes nothing; then the right one comes back.
    put("half a key");
    std::thread::sleep(Duration::from_millis(50));
    assert!(!is_verified());
    put(&drop.key.public_pem());
    wait_until(is_verified);
    let read = accepted(&images);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(accepted(&images), read, "keys that stay the same do not have anything read again");
    std::mem::drop(stop);
    thread.join().unwrap();
}

#[test]
fn a_new_trust_root_is_noticed_and_all_is_read_anew() {
    let suite = |name: &str| {
        let path = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../shared/data/attestation/sigstore-conformance"
        ));
        let path = path.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| {
            panic!("{}: {error}; the tests need the shared test data beside the workspace", path.display())
        })
    };
    let own = suite("intoto-with-custom-trust-root/trusted_root.json");
    let drop = Drop::new();
    let root = tempfile::tempdir().unwrap();
    let root = root.path().join("root");
    fs::write(&root, &own).unwrap();
    drop.put("a.json", suite("intoto-with-custom-trust-root/bundle.sigstore.json"));
    let config = drop.with(|a| {
        a.keys.clear();
        a.trust_root = TrustRoot::Path(root.clone());
        a.identities = vec![Identity {
            identity: WORKFLOW.to_owned(),
            issuer: "https://token.actions.githubusercontent.com".to_owned(),
        }];
    });
    let images = Images::new(&config, Metrics::new()).unwrap();
    images.load_now();
    let digest: Sha256 = ARTIFACT.parse().unwrap();
    let image = images.get(&named(digest));
    assert_eq!(image.facts.provenance.len(), 1, "{:?}", images.refused());
    assert!(matches!(image.state, ImageState::NoSbom), "provenance is no SBOM");
    let shown = &images.status()[0].provenance[0];
    assert!(shown.builder.contains("github.com"), "{shown:?}");

    // Unchanged.
    let generation = images.generation();
    images.apply(Loader::refresh);
    assert_eq!((accepted(&images), images.generation()), (1, generation));

    // Another program refreshes it: a root that does not know the signer, and that ended long ago.
    let other = suite("rekor2-dsse-happy-path/trusted_root.json");
    let mut other: serde_json::Value = serde_json::from_str(&other).unwrap();
    for authority in other["certificateAuthorities"].as_array_mut().unwrap() {
        authority["validFor"]["end"] = "2024-01-01T00:00:00Z".into();
    }
    let (stop, theirs) = UnixStream::pair().unwrap();
    let follower = Arc::clone(&images);
    let thread = std::thread::spawn(move || follower.follow_policy(&theirs, 10));
    fs::write(root.with_extension("new"), other.to_string()).unwrap();
    fs::rename(root.with_extension("new"), &root).unwrap();
    wait_until(|| !images.refused().is_empty());
    wait_until(|| images.get(&named(digest)).trusted_until.is_some());
    let image = images.get(&named(digest));
    assert!(matches!(image.state, ImageState::Unverified { .. }), "{image:?}");
    assert!(image.facts.provenance.is_empty());
    assert!(image.trusted_until.unwrap() < SystemTime::now());
    assert_eq!(images.status()[0].trusted_until, image.trusted_until.map(prost_types::Timestamp::from));

    // One that cannot be read changes nothing; then the good one comes back.
    fs::write(root.with_extension("new"), "{").unwrap();
    fs::rename(root.with_extension("new"), &root).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(images.refused().len(), 1);
    fs::write(root.with_extension("new"), &own).unwrap();
    fs::rename(root.with_extension("new"), &root).unwrap();
    wait_until(|| images.refused().is_empty());
    wait_until(|| images.get(&named(digest)).facts.provenance.len() == 1);
    std::mem::drop(stop);
    thread.join().unwrap();
}

#[test]
fn who_may_sign_for_one_image_may_not_for_another() {
    let mut drop = Drop::new();
    let other = PrivateKey::generate(Algorithm::P256).unwrap();
    drop.put("other.pub", other.public_pem());
    drop.config.attestation.keys.push(drop.path("other.pub"));
    let own = drop.path("key.pub").to_str().unwrap().to_owned();
    drop.config.workloads = vec![config::Workload {
        container: None,
        cgroup: Some("/a".into()),
        name: String::new(),
        image: A,
        index: None,
        manifest: None,
        config: None,
        layers: Vec::new(),
        reference: None,
        signers: Some(vec![own]),
    }];
    drop.put("a.json", envelope(&other, &[A, B], &sbom(&["/usr/bin/evil"])));
    let images = drop.images();
    assert!(unverified(&images, &A).contains("may not sign for this image"), "{}", unverified(&images, &A));
    assert_eq!(documents(&images.get(&named(B))), ["a.json"]);
    drop.put("b.json", envelope(&drop.key, &[A], &sbom(&["/usr/bin/a"])));
    images.load_now();
    let image = images.get(&named(A));
    assert_eq!(documents(&image), ["b.json"]);
    assert!(
        image.aside[0].file == "a.json" && image.aside[0].reason.contains("may not sign"),
        "{:?}",
        image.aside
    );
    // All of them, again.
    let mut all = drop.config.clone();
    all.workloads.clear();
    images.reload(&all).unwrap();
    assert_eq!(documents(&images.get(&named(A))), ["a.json", "b.json"]);
}
