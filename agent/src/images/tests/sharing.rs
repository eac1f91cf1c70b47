//! Several names of one image.

use super::*;

const CONFIG: Sha256 = Sha256([0x22; 32]);
const MANIFEST: Sha256 = Sha256([0x33; 32]);

#[test]
fn names_of_one_image_become_one() {
    let drop = Drop::new();
    drop.put("config.json", envelope(&drop.key, &[CONFIG], &sbom(&["/bin/config"])));
    drop.put("manifest.json", envelope(&drop.key, &[MANIFEST], &sbom(&["/bin/manifest"])));
    let images = drop.images();
    let by_manifest = Digests { manifest: Some(MANIFEST), ..Digests::default() };
    let by_config = Digests { config: Some(CONFIG), ..Digests::default() };
    let both = Digests { manifest: Some(MANIFEST), config: Some(CONFIG), ..Digests::default() };
    let before = images.generation();
    let (one, other) = (images.get(&by_manifest), images.get(&by_config));
    assert_eq!((documents(&one), documents(&other)), (vec!["manifest.json"], vec!["config.json"]));
    one.mark_used(one.index().unwrap().by_path(b"/bin/manifest").unwrap().id());
    other.mark_used(other.index().unwrap().by_path(b"/bin/config").unwrap().id());
    assert_eq!(images.generation(), before);

    // A container of which both are known.
    let image = images.get(&both);
    assert!(images.generation() > before, "who holds one of the two must ask again");
    assert_eq!(documents(&image), ["config.json", "manifest.json"]);
    assert_eq!(image.used_count(), 2, "what was in use still is");
    for digests in [&by_manifest, &by_config, &both, &named(MANIFEST), &named(CONFIG)] {
        assert!(Arc::ptr_eq(&image, &images.get(digests)), "{digests:?}");
    }
    assert_eq!(images.snapshot().len(), 1);
    assert_eq!(images.status()[0].digests.len(), 2);

    // A change of an attestation about one of its digests is one of all.
    fs::remove_file(drop.path("config.json")).unwrap();
    images.load_now();
    for digests in [&by_manifest, &by_config, &both] {
        assert_eq!(documents(&images.get(digests)), ["manifest.json"]);
    }
}

#[test]
fn images_that_differ_stay_apart_and_share_an_index() {
    let drop = Drop::new();
    let index = Sha256([0x11; 32]);
    drop.put("1.json", envelope(&drop.key, &[CONFIG, MANIFEST, A], &sbom(&["/bin/a"])));
    drop.put("2.json", envelope(&drop.key, &[CONFIG, MANIFEST, A], &sbom(&["/bin/b"])));
    let images = drop.images();
    // Two platforms of an index are two images.
    let platform =
        |config| images.get(&Digests { index: Some(index), config: Some(config), ..Digests::default() });
    let (one, other) = (platform(CONFIG), platform(A));
    assert!(!Arc::ptr_eq(&one, &other));
    assert!(Arc::ptr_eq(one.index().unwrap(), other.index().unwrap()), "the same documents, one union");
    assert_eq!(one.index().unwrap().len(), 2);
    other.mark_used(0);
    assert_eq!((one.used_count(), other.used_count()), (0, 1));
}

#[test]
fn images_with_the_same_contents_have_the_digests_once() {
    let drop = Drop::new();
    let files: Vec<_> = (0..100).map(|file| format!("/usr/lib/{file}")).collect();
    let mut files: Vec<_> = files.iter().map(String::as_str).collect();
    drop.put("a.json", envelope(&drop.key, &[A], &sbom(&files)));
    let images = drop.images();
    let bytes = || images.status().iter().map(|image| image.index_bytes).sum::<u64>();
    let alone = bytes();
    files.push("/usr/bin/b");
    drop.put("config.json", envelope(&drop.key, &[CONFIG], &sbom(&files)));
    images.load_now();
    assert_eq!(images.status().len(), 2);
    assert!(bytes() < 2 * alone - 95 * 32, "{} bytes, {alone} for one", bytes());
    fs::remove_file(drop.path("a.json")).unwrap();
    images.load_now();
    let image = images.get(&named(CONFIG));
    let index = image.index().unwrap();
    for file in files {
        let digest = crate::attestation::sha256(file.as_bytes());
        let found: Vec<_> = index.by_sha256(&digest).map(|entry| entry.path().to_string()).collect();
        assert_eq!(found, [file]);
    }
}

#[test]
fn an_image_without_a_document_is_known_once_it_was_asked_for() {
    let drop = Drop::new();
    let images = drop.images();
    assert!(images.snapshot().is_empty());
    images.get(&Digests { config: Some(CONFIG), ..Digests::default() });
    assert_eq!(images.status()[0].state, "no_sbom");
    assert!(images.metrics.text().contains("muster_images{state=\"no_sbom\"} 1"));
    let generation = images.generation();
    drop.put("late.json", envelope(&drop.key, &[CONFIG], &sbom(&["/bin/a"])));
    images.load_now();
    assert!(images.generation() > generation);
    assert_eq!(images.status()[0].state, "verified");
    assert_eq!(images.status()[0].documents[0].binding(), muster_proto::v1::Binding::ConfigDigest);
    assert!(images.status()[0].advice.contains("Coverage `owned`"));
}
