//! What was verified stays verified.

use super::*;
use crate::finding::Verdict;

/// A drop directory with a directory for what is verified.
fn kept() -> (Drop, TempDir) {
    let mut drop = Drop::new();
    let state = tempfile::tempdir().unwrap();
    drop.config.attestation.verified_directory = state.path().join("verified");
    (drop, state)
}

/// The image is judged by these files, and that is lost; what would be said of what is there.
fn lost(images: &Images, digest: &Sha256, paths: &[&str]) -> (Verdict, String) {
    let image = images.get(&named(*digest));
    let index = image.index().unwrap_or_else(|| panic!("not judged: {image:?}"));
    assert_eq!(index.numbers().files, paths.len() as u64);
    assert!(paths.iter().all(|path| index.by_path(path.as_bytes()).is_some()));
    let lost = image.lost.as_ref().unwrap_or_else(|| panic!("not lost: {image:?}"));
    (lost.loss.verdict, lost.loss.reason.clone())
}

fn is_well(images: &Images, digest: &Sha256) -> bool {
    let image = images.get(&named(*digest));
    is_verified(&image.state) && image.lost.is_none()
}

#[test]
fn an_attestation_that_goes_still_judges_and_its_loss_is_told() {
    let (drop, _state) = kept();
    let good = envelope(&drop.key, &[A], &sbom(&["/usr/bin/a"]));
    drop.put("a.json", &good);
    drop.put("b.json", envelope(&drop.key, &[B], &sbom(&["/usr/bin/b"])));
    let images = drop.images();
    assert!(is_well(&images, &A));
    images.apply(|_, _| Changes::default());
    assert_eq!(images.degraded(), [""; 0]);

    fs::remove_file(drop.path("a.json")).unwrap();
    fs::remove_file(drop.path("b.json")).unwrap();
    let generation = images.generation();
    images.load_now();
    assert!(images.generation() > generation);
    let (verdict, reason) = lost(&images, &A, &["/usr/bin/a"]);
    let document = images.get(&named(A)).documents()[0].sha256;
    assert_eq!(verdict, Verdict::NoSbom);
    assert!(
        reason.contains("a.json") && reason.contains(&format!("retired = [\"sha256:{document}\"]")),
        "{reason}"
    );
    assert!(images.degraded()[0].contains("put it back"), "{:?}", images.degraded());
    let shown = &images.status()[0];
    assert_eq!((shown.state.as_str(), shown.files), ("lost", 1));
    assert!(images.metrics.text().contains("muster_images{state=\"lost\"} 1"));
    // Nobody has run that one: its attestation may go.
    assert!(matches!(images.get(&named(B)).state, ImageState::NoSbom));

    // After a restart, too.
    std::mem::drop(images);
    let images = drop.images();
    assert_eq!(images.degraded(), [""; 0], "nobody runs it yet");
    assert_eq!(lost(&images, &A, &["/usr/bin/a"]).0, Verdict::NoSbom);
    assert_eq!(images.degraded().len(), 1);

    // Something else in its place is no better.
    let foreign = PrivateKey::generate(Algorithm::P256).unwrap();
    drop.put("a.json", envelope(&foreign, &[A], &sbom(&["/usr/bin/evil"])));
    images.load_now();
    let (verdict, reason) = lost(&images, &A, &["/usr/bin/a"]);
    assert!(
        verdict == Verdict::Unverified && reason.contains("signed by 0 of the configured keys"),
        "{reason}"
    );

    drop.put("a.json", &good);
    images.load_now();
    assert!(is_well(&images, &A));
    assert_eq!(images.degraded(), [""; 0]);
    assert_eq!(images.status()[0].state, "verified");

    // Signed by the same key, but what it says cannot be true together with the other: nobody is blinded by that either.
    let other = sbom(&["/usr/bin/a"])
        .replace(&crate::attestation::sha256(b"/usr/bin/a").to_string(), &"12".repeat(32));
    drop.put("c.json", envelope(&drop.key, &[A], &other));
    images.load_now();
    let (verdict, reason) = lost(&images, &A, &["/usr/bin/a"]);
    assert!(verdict == Verdict::Unverified && reason.contains("do not fit together"), "{reason}");
}

#[test]
fn a_newer_document_or_the_configuration_retires_what_was_verified() {
    let (drop, _state) = kept();
    let first = sbom(&["/usr/bin/a"]);
    drop.put("1.json", envelope(&drop.key, &[A], &first));
    let images = drop.images();
    assert!(is_well(&images, &A));
    let stored = || fs::read_dir(&drop.config.attestation.verified_directory).unwrap().count();
    images.apply(|_, _| Changes::default());
    assert_eq!(stored(), 3, "an envelope, the list, the keys");

    // In its place in one step.
    drop.put(".2", envelope(&drop.key, &[A], &sbom(&["/usr/bin/a", "/usr/bin/b"])));
    fs::rename(drop.path(".2"), drop.path("2.json")).unwrap();
    fs::remove_file(drop.path("1.json")).unwrap();
    images.load_now();
    assert!(is_well(&images, &A));
    assert_eq!(documents(&images.get(&named(A))), ["2.json"]);
    assert_eq!(stored(), 3, "the former one is forgotten");
    fs::remove_file(drop.path("2.json")).unwrap();
    images.load_now();
    lost(&images, &A, &["/usr/bin/a", "/usr/bin/b"]);

    // On purpose.
    let document = images.get(&named(A)).documents()[0].sha256;
    let mut retired = drop.config.clone();
    retired.attestation.retired = vec![document];
    images.reload(&retired).unwrap();
    assert!(matches!(images.get(&named(A)).state, ImageState::NoSbom));
    assert_eq!(images.degraded(), [""; 0]);
    assert_eq!(stored(), 2);

    // It counts no longer where it is there, either.
    drop.put("2.json", envelope(&drop.key, &[A], &sbom(&["/usr/bin/a", "/usr/bin/b"])));
    images.load_now();
    let image = images.get(&named(A));
    assert!(
        matches!(image.state, ImageState::NoSbom) && image.aside[0].reason.contains("retired"),
        "{image:?}"
    );
    drop.put("1.json", envelope(&drop.key, &[A], &first));
    images.load_now();
    assert_eq!(documents(&images.get(&named(A))), ["1.json"]);
}

#[test]
fn a_key_that_goes_takes_nothing_back_and_another_one_does() {
    let (drop, _state) = kept();
    drop.put("a.json", envelope(&drop.key, &[A], &sbom(&["/usr/bin/a"])));
    let images = drop.images();
    assert!(is_well(&images, &A));
    images.apply(|_, _| Changes::default());

    fs::remove_file(drop.path("key.pub")).unwrap();
    images.apply(Loader::refresh);
    let (verdict, reason) = lost(&images, &A, &["/usr/bin/a"]);
    assert!(
        verdict == Verdict::Unverified && reason.contains("key.pub") && reason.contains("attestation.keys"),
        "{reason}"
    );
    assert_eq!(images.degraded().len(), 1, "{:?}", images.degraded());
    // What comes now is still verified by it.
    drop.put("b.json", envelope(&drop.key, &[B], &sbom(&["/usr/bin/b"])));
    images.load_now();
    lost(&images, &B, &["/usr/bin/b"]);

    // A restart, with the attestation gone as well.
    fs::remove_file(drop.path("a.json")).unwrap();
    let images = drop.images();
    assert_eq!(lost(&images, &A, &["/usr/bin/a"]).0, Verdict::NoSbom);
    lost(&images, &B, &["/usr/bin/b"]);
    assert!(Images::check(&drop.config).unwrap_err().to_string().contains("key.pub"));

    // A pipe in its place holds nobody up.
    nix::unistd::mkfifo(&drop.path("key.pub"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    images.apply(Loader::refresh);
    assert!(
        images.degraded().iter().any(|what| what.contains("not a regular file")),
        "{:?}",
        images.degraded()
    );
    fs::remove_file(drop.path("key.pub")).unwrap();

    // Another key is another trust.
    drop.put("key.pub", PrivateKey::generate(Algorithm::P256).unwrap().public_pem());
    images.apply(Loader::refresh);
    assert!(matches!(images.get(&named(A)).state, ImageState::NoSbom));
    assert!(unverified(&images, &B).contains("signed by 0 of the configured keys"));
    // And back: what is kept was not thrown away for that.
    drop.put("key.pub", drop.key.public_pem());
    images.apply(Loader::refresh);
    lost(&images, &A, &["/usr/bin/a"]);
    assert!(is_well(&images, &B));
}

#[test]
fn what_cannot_be_kept_is_told_and_no_more() {
    let (drop, state) = kept();
    fs::write(state.path().join("verified"), "a file").unwrap();
    drop.put("a.json", envelope(&drop.key, &[A], &sbom(&["/usr/bin/a"])));
    let images = drop.images();
    assert!(is_well(&images, &A));
    let refused = images.refused();
    assert!(refused.len() == 1 && refused[0].reason.contains("not kept for a restart"), "{refused:?}");
    fs::remove_file(drop.path("a.json")).unwrap();
    images.load_now();
    lost(&images, &A, &["/usr/bin/a"]);
}

#[test]
fn what_is_kept_is_verified_again() {
    let (drop, _state) = kept();
    drop.put("a.json", envelope(&drop.key, &[A], &sbom(&["/usr/bin/a"])));
    let images = drop.images();
    images.get(&named(A));
    images.apply(|_, _| Changes::default());
    std::mem::drop(images);
    fs::remove_file(drop.path("a.json")).unwrap();
    // Whoever could write there has put another one under its name, and one of his own.
    let directory = &drop.config.attestation.verified_directory;
    let foreign = envelope(&PrivateKey::generate(Algorithm::P256).unwrap(), &[B], &sbom(&["/usr/bin/evil"]));
    let digest = crate::attestation::sha256(&foreign);
    fs::write(directory.join(format!("{digest}.json")), &foreign).unwrap();
    let list = fs::read_to_string(directory.join("subjects")).unwrap();
    fs::write(directory.join("subjects"), format!("{list}{B} {digest}\n")).unwrap();
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.extension().is_some_and(|of| of == "json") && !entry.ends_with(format!("{digest}.json")) {
            fs::write(entry, &foreign).unwrap();
        }
    }
    let images = drop.images();
    for image in [A, B] {
        assert!(matches!(images.get(&named(image)).state, ImageState::NoSbom));
    }
}

#[test]
fn who_asks_wakes_who_keeps() {
    let (drop, _state) = kept();
    drop.put("a.json", envelope(&drop.key, &[A], &sbom(&["/usr/bin/a"])));
    let images = drop.images();
    let watch = images.watch().unwrap();
    let list = drop.config.attestation.verified_directory.join("subjects");
    assert!(!list.exists());
    assert!(is_well(&images, &A));
    wait_until(|| fs::read_to_string(&list).is_ok_and(|text| text.starts_with(&A.to_string())));
    std::mem::drop(watch);
}
