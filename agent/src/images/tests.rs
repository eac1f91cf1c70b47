//! The register over real directories, keys and envelopes.

mod facts;
mod fetched;
mod kept;
mod platforms;
mod sharing;
mod sources;
mod trust;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::attestation::key::Algorithm;
use crate::attestation::sign::sign;
use crate::attestation::{Limits, PrivateKey, Subject};
use crate::config;

const A: Sha256 = Sha256([0xaa; 32]);
const B: Sha256 = Sha256([0xbb; 32]);

fn named(image: Sha256) -> Digests {
    Digests::named(image)
}

/// A drop directory with one key that counts.
struct Drop {
    directory: TempDir,
    key: PrivateKey,
    config: Config,
}

impl Drop {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate(Algorithm::P256).unwrap();
        let public = directory.path().join("key.pub");
        fs::write(&public, key.public_pem()).unwrap();
        let attestation = config::Attestation {
            directory: directory.path().to_owned(),
            keys: vec![public],
            verified_directory: PathBuf::new(),
            ..config::Attestation::default()
        };
        let host = config::Host {
            directory: PathBuf::new(),
            image: None,
            signers: None,
            package_managers: Vec::new(),
        };
        let config = Config { attestation, host, ..Config::default() };
        Self { directory, key, config }
    }

    /// Its key lies in another directory from now on.
    fn with_key_elsewhere(&mut self) -> TempDir {
        let elsewhere = tempfile::tempdir().unwrap();
        let public = elsewhere.path().join("key.pub");
        fs::write(&public, self.key.public_pem()).unwrap();
        self.config.attestation.keys = vec![public];
        elsewhere
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Its configuration with something else in `[attestation]`.
    fn with(&self, change: impl FnOnce(&mut config::Attestation)) -> Config {
        let mut config = self.config.clone();
        change(&mut config.attestation);
        config
    }

    fn images(&self) -> Arc<Images> {
        let images = Images::new(&self.config, Metrics::new()).unwrap();
        images.load_now();
        images
    }
}

fn sbom(paths: &[&str]) -> String {
    let files = paths.iter().enumerate().map(|(at, path)| {
        serde_json::json!({
            "SPDXID": format!("SPDXRef-{at}"), "fileName": path,
            "checksums": [{"algorithm": "SHA256", "checksumValue": crate::attestation::sha256(path.as_bytes()).to_string()}],
        })
    });
    serde_json::json!({
        "spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "test", "packages": [], "relationships": [],
        "files": files.collect::<Vec<_>>(),
    })
    .to_string()
}

fn envelope(key: &PrivateKey, images: &[Sha256], sbom: &str) -> Vec<u8> {
    let subjects: Vec<_> =
        images.iter().map(|image| Subject { name: String::new(), sha256: Some(*image) }).collect();
    let mut out = Vec::new();
    sign(sbom.as_bytes(), &subjects, None, key, &Limits::default(), &mut out).unwrap();
    out
}

fn documents(image: &Image) -> Vec<&str> {
    match &image.state {
        ImageState::Verified { documents, .. } => documents.iter().map(|d| d.file.as_str()).collect(),
        other => panic!("not verified: {other:?}"),
    }
}

fn unverified(images: &Images, digest: &Sha256) -> String {
    match &images.get(&named(*digest)).state {
        ImageState::Unverified { reason } => reason.clone(),
        other => panic!("not unverified: {other:?}"),
    }
}

#[test]
fn a_verified_document_gives_its_image_an_index() {
    let drop = Drop::new();
    let text = sbom(&["/usr/bin/a", "/usr/bin/b"]);
    drop.put("a.json", envelope(&drop.key, &[A, B], &text));
    let images = drop.images();
    let image = images.get(&named(A));
    let ImageState::Verified { index, documents } = &image.state else { panic!("{image:?}") };
    assert_eq!(documents.len(), 1);
    assert_eq!(documents[0].sha256, crate::attestation::sha256(text.as_bytes()));
    assert_eq!(documents[0].signers.keys, [drop.key.id()]);
    assert_eq!(documents[0].file, "a.json");
    assert!(Arc::ptr_eq(index, images.get(&named(B)).index().unwrap()), "one document, one index");
    assert!(matches!(images.get(&named(Sha256([1; 32]))).state, ImageState::NoSbom));
    assert_eq!(images.snapshot().iter().map(|i| i.digest).collect::<Vec<_>>(), [Sha256([1; 32]), A, B]);

    let entry = index.by_path(b"/usr/bin/b").unwrap();
    assert!(!image.is_used(entry.id()));
    image.mark_used(entry.id());
    image.mark_used(entry.id());
    image.mark_used(u32::MAX);
    assert!(image.is_used(entry.id()));
    assert_eq!(image.used_count(), 1);
    let shown = &images.status()[1..];
    assert_eq!((shown[0].state.as_str(), shown[0].files, shown[0].files_in_use), ("verified", 2, 1));
    assert_eq!(shown[0].documents[0].keys, [drop.key.id().to_string()]);
}

#[test]
fn what_is_refused_is_never_attested() {
    let drop = Drop::new();
    let foreign = PrivateKey::generate(Algorithm::P256).unwrap();
    drop.put("foreign.json", envelope(&foreign, &[A], &sbom(&["/usr/bin/a"])));
    drop.put("garbage.json", "{\"payloadType\":");
    drop.put("broken-sbom.json", envelope(&drop.key, &[B], "{\"spdxVersion\":\"SPDX-2.3\",\"files\":7}"));
    drop.put("world.json", envelope(&drop.key, &[A], &sbom(&["/usr/bin/a"])));
    fs::set_permissions(drop.path("world.json"), fs::Permissions::from_mode(0o666)).unwrap();
    let images = drop.images();
    assert!(unverified(&images, &A).starts_with("foreign.json: signed by 0 of the configured keys"));
    assert!(
        unverified(&images, &B)
            .starts_with("broken-sbom.json: its signature is good, but the SBOM is refused: ")
    );
    let refused = images.refused();
    let files: Vec<_> = refused.iter().map(|r| r.file.as_str()).collect();
    assert_eq!(files, ["broken-sbom.json", "foreign.json", "garbage.json", "world.json"]);
    assert!(refused[2].reason.starts_with("envelope, byte 15: "), "{}", refused[2].reason);
    assert!(refused[3].reason.contains("others may write it"));
    assert_eq!(images.status()[0].state, "unverified");
    assert_eq!(images.refused_status()[2].file, "garbage.json");

    // A good one beside them counts.
    drop.put("good.json", envelope(&drop.key, &[A], &sbom(&["/usr/bin/a"])));
    images.load_now();
    assert_eq!(documents(&images.get(&named(A))), ["good.json"]);
}

/// A time that lies ahead would make all that is run until then older than the document.
#[test]
fn no_document_is_made_after_now() {
    let drop = Drop::new();
    let stated = |time: &str| {
        sbom(&["/usr/bin/a"])
            .replace("\"packages\"", &format!(r#""creationInfo":{{"created":"{time}"}},"packages""#))
    };
    for (time, is_later) in [("2020-01-01T00:00:00Z", false), ("2999-01-01T00:00:00Z", true)] {
        drop.put("1.json", envelope(&drop.key, &[A], &stated(time)));
        let before = SystemTime::now();
        let images = drop.images();
        let created = images.get(&named(A)).index().and_then(|index| index.created()).expect("it is stated");
        assert_eq!(created >= before, is_later, "{time}");
        assert!(created <= SystemTime::now(), "{time}");
    }
}

#[test]
fn several_documents_are_united_and_marks_survive() {
    let drop = Drop::new();
    drop.put("1.json", envelope(&drop.key, &[A], &sbom(&["/usr/bin/b", "/usr/bin/c"])));
    let images = drop.images();
    let before = images.get(&named(A));
    before.mark_used(before.index().unwrap().by_path(b"/usr/bin/c").unwrap().id());

    let more = envelope(&drop.key, &[A], &sbom(&["/usr/bin/a"]));
    let again = envelope(&drop.key, &[A], &sbom(&["/usr/bin/a"]));
    drop.put("2.jsonl", [more.as_slice(), b"\n", &again, b"not an envelope\n"].concat());
    let generation = images.generation();
    images.load_now();
    assert_eq!(images.generation(), generation + 1);
    let after = images.get(&named(A));
    assert_eq!(documents(&after), ["1.json", "2.jsonl:1", "2.jsonl:3"]);
    assert_eq!(images.refused()[0].file, "2.jsonl:4");
    let index = after.index().unwrap();
    assert_eq!(index.numbers().files, 3);
    for path in ["/usr/bin/a", "/usr/bin/b", "/usr/bin/c"] {
        assert!(index.by_path(path.as_bytes()).is_some(), "{path}");
    }
    assert_eq!(after.used_count(), 1);
    assert!(after.is_used(index.by_path(b"/usr/bin/c").unwrap().id()));

    // Nothing changed: the same images.
    images.load_now();
    assert_eq!(images.generation(), generation + 1);
    assert!(Arc::ptr_eq(&after, &images.get(&named(A))));

    fs::remove_file(drop.path("1.json")).unwrap();
    images.load_now();
    assert_eq!(documents(&images.get(&named(A))), ["2.jsonl:1", "2.jsonl:3"]);
    assert!(images.get(&named(A)).index().unwrap().by_path(b"/usr/bin/b").is_none());
    fs::remove_file(drop.path("2.jsonl")).unwrap();
    images.load_now();
    assert!(images.get(&named(A)).lost.is_some());
    assert_eq!(documents(&images.get(&named(A))), ["2.jsonl:1", "2.jsonl:3"], "by what was there last");
    assert_eq!(images.snapshot().len(), 1, "it was asked for");
}

#[test]
fn a_file_with_too_many_lines_costs_one_message() {
    let drop = Drop::new();
    let good = envelope(&drop.key, &[A], &sbom(&["/usr/bin/a"]));
    let lines = |bad: usize| [b"\n".as_slice(), &good, "\n{}\n".repeat(bad).as_bytes()].concat();
    drop.put("a.jsonl", lines(4095));
    let images = drop.images();
    assert_eq!(documents(&images.get(&named(A))), ["a.jsonl:2"]);
    assert_eq!(images.refused().len(), 4095);

    drop.put("a.jsonl", lines(4096));
    images.load_now();
    assert!(images.get(&named(A)).lost.is_some());
    let refused = images.refused();
    assert_eq!((refused.len(), &*refused[0].file), (1, "a.jsonl:8194"), "{refused:?}");
    assert!(refused[0].reason.contains("more than 4096 attestations"), "{refused:?}");
    // It is not read again until it changes.
    let generation = images.generation();
    images.load_now();
    assert_eq!(images.generation(), generation);

    // What stands in it is not repeated at any length.
    let long = format!(r#"{{"payloadType":"{}","payload":"","signatures":[]}}"#, "x".repeat(1 << 16));
    drop.put("a.jsonl", long);
    images.load_now();
    let refused = images.refused();
    assert!(refused.len() == 1 && refused[0].reason.len() < 1100, "{}", refused[0].reason.len());
}

#[test]
fn reload_keeps_the_old_configuration_when_the_new_is_bad() {
    let drop = Drop::new();
    drop.put("a.json", envelope(&drop.key, &[A], &sbom(&["/usr/bin/a"])));
    let images = drop.images();
    let missing = drop.with(|a| a.keys = vec![drop.path("none.pub")]);
    assert!(images.reload(&missing).unwrap_err().to_string().contains("none.pub: cannot read"));
    let twice = drop.with(|a| a.threshold = 2);
    assert!(images.reload(&twice).unwrap_err().to_string().contains("threshold 2 with 1 different keys"));
    assert_eq!(documents(&images.get(&named(A))), ["a.json"]);

    let none = drop.with(|a| a.keys = Vec::new());
    images.reload(&none).unwrap();
    assert!(unverified(&images, &A).contains("no key to verify with"));
    images.reload(&drop.config).unwrap();
    assert_eq!(documents(&images.get(&named(A))), ["a.json"]);
    let elsewhere = tempfile::tempdir().unwrap();
    let moved = drop.with(|a| a.directory = elsewhere.path().to_owned());
    images.reload(&moved).unwrap();
    assert!(images.get(&named(A)).lost.is_some());
}

#[test]
fn a_directory_that_is_missing_or_open_to_others_gives_nothing() {
    let mut drop = Drop::new();
    let _keys = drop.with_key_elsewhere();
    drop.put("a.json", envelope(&drop.key, &[A], &sbom(&["/usr/bin/a"])));
    fs::set_permissions(drop.directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let images = drop.images();
    assert!(matches!(images.get(&named(A)).state, ImageState::NoSbom));
    assert!(images.refused()[0].reason.contains("others may write it"));
    fs::set_permissions(drop.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    images.load_now();
    assert_eq!(documents(&images.get(&named(A))), ["a.json"]);
    assert!(images.refused().is_empty());
    drop.config.attestation.directory = drop.path("none");
    assert!(drop.images().refused()[0].file.ends_with("/none"));
}

/// Waits until the image is in a state.
fn wait_for(images: &Images, digest: &Sha256, state: fn(&ImageState) -> bool) {
    let started = Instant::now();
    while !state(&images.get(&named(*digest)).state) {
        assert!(started.elapsed() < Duration::from_secs(10), "still {:?}", images.get(&named(*digest)).state);
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn is_verified(state: &ImageState) -> bool {
    matches!(state, ImageState::Verified { .. })
}

#[test]
fn the_watch_follows_the_directory() {
    let drop = Drop::new();
    let images = drop.images();
    let watch = images.watch().unwrap();
    let whole = envelope(&drop.key, &[A], &sbom(&["/usr/bin/a"]));

    // Half of it, closed, is refused; nobody can say for which image.
    let generation = images.generation();
    drop.put("a.json", &whole[..whole.len() / 2]);
    wait_until(|| !images.refused().is_empty());
    assert_eq!(images.generation(), generation);
    drop.put("a.json", &whole);
    wait_for(&images, &A, is_verified);
    assert!(images.generation() > generation);
    assert!(images.refused().is_empty());

    // Under another name in one step, then gone.
    fs::rename(drop.path("a.json"), drop.path("b.json")).unwrap();
    wait_until(
        || matches!(&images.get(&named(A)).state, ImageState::Verified { documents, .. } if documents[0].file == "b.json"),
    );
    fs::remove_file(drop.path("b.json")).unwrap();
    wait_until(|| images.get(&named(A)).lost.is_some());

    // Brought back once permissions are right.
    drop.put(".c", &whole);
    fs::set_permissions(drop.path(".c"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::rename(drop.path(".c"), drop.path("c.json")).unwrap();
    wait_until(|| !images.refused().is_empty());
    fs::set_permissions(drop.path("c.json"), fs::Permissions::from_mode(0o644)).unwrap();
    wait_until(|| images.get(&named(A)).lost.is_none());
    assert!(is_verified(&images.get(&named(A)).state));

    std::mem::drop(watch);
    drop.put("d.json", envelope(&drop.key, &[B], &sbom(&["/usr/bin/b"])));
    std::thread::sleep(Duration::from_millis(100));
    assert!(matches!(images.get(&named(B)).state, ImageState::NoSbom), "nobody watches any more");
}

fn wait_until(condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(10), "waited for 10 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_real_image() {
    let shared = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data/sbom"));
    let drop = Drop::new();
    for (name, image) in [("ubi9.spdx.json", A), ("web.syft.json", B)] {
        let path = shared.join(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| {
            panic!("{}: {error}; the tests need the shared test data beside the workspace", path.display())
        });
        drop.put(name, envelope(&drop.key, &[image], &text));
    }
    let images = drop.images();
    assert_eq!(images.refused().as_slice(), []);
    assert_eq!(images.get(&named(A)).index().unwrap().numbers().files, 8289);
    assert!(images.get(&named(B)).index().unwrap().by_path(b"/usr/sbin/nginx").is_some());
}
