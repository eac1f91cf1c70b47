//! What other sources than directories hold.

#[path = "../../../tests/common/image.rs"]
mod image;
#[path = "../../../tests/common/layout.rs"]
mod layout;

use tokio::sync::{Notify, oneshot};

use super::*;
use crate::images::fetch;

/// A layout with an image, for a workload of the configuration.
struct Source {
    drop: Drop,
    layout: TempDir,
    image: image::Image,
    config: Config,
}

impl Source {
    fn new() -> Self {
        let (drop, layout) = (Drop::new(), tempfile::tempdir().unwrap());
        let image = image::Image::new(true);
        layout::write(&image, layout.path());
        drop.put("key.pub", image.key.public_pem());
        let mut config = drop.with(|a| a.layouts = vec![layout.path().to_owned()]);
        config.workloads = workloads(&drop, &[("image", image.manifest), ("index", image.index)]);
        Self { drop, layout, image, config }
    }

    /// The workload is named by these digests.
    fn named(mut self, digests: &[(&str, Sha256)]) -> Self {
        self.config.workloads = workloads(&self.drop, digests);
        self
    }

    /// The digest of the image's configuration.
    fn image_id(&self) -> Sha256 {
        let manifest = &self.image.documents[0].bytes;
        let manifest: serde_json::Value = serde_json::from_slice(manifest).unwrap();
        manifest["config"]["digest"].as_str().unwrap().parse().unwrap()
    }

    /// An index of the image that lists the same and these; it is in the layout.
    fn index_with(&self, more: &[serde_json::Value]) -> Sha256 {
        let blobs = self.layout.path().join("blobs/sha256");
        let index = fs::read(blobs.join(self.image.index.to_string())).unwrap();
        let mut index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        index["manifests"].as_array_mut().unwrap().extend_from_slice(more);
        let bytes = index.to_string().into_bytes();
        let digest = crate::attestation::sha256(&bytes);
        fs::write(blobs.join(digest.to_string()), bytes).unwrap();
        digest
    }

    fn images(&self) -> Arc<Images> {
        let images = Images::new(&self.config, Metrics::new()).unwrap();
        images.load_now();
        images
    }

    fn digests(&self) -> Digests {
        self.config.workloads[0].digests()
    }

    fn is_verified(&self, images: &Images) -> bool {
        is_verified(&images.get(&self.digests()).state)
    }

    /// With or without what lies under cosign's tag, and under all others.
    fn index_json(&self, keep: impl Fn(&str) -> bool) {
        let file = self.layout.path().join("index.json");
        let mut index: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        let name =
            |of: &serde_json::Value| of["annotations"]["org.opencontainers.image.ref.name"].to_string();
        index["manifests"].as_array_mut().unwrap().retain(|of| keep(&name(of)));
        fs::write(file.with_extension("new"), index.to_string()).unwrap();
        fs::rename(file.with_extension("new"), file).unwrap();
    }
}

fn workloads(drop: &Drop, digests: &[(&str, Sha256)]) -> Vec<config::Workload> {
    let file = drop.path("workload.toml");
    let keys: String = digests.iter().map(|(key, digest)| format!("{key} = \"sha256:{digest}\"\n")).collect();
    fs::write(&file, format!("[[workload]]\ncgroup = \"/web/**\"\n{keys}")).unwrap();
    Config::load(&file).unwrap().workloads
}

/// Asks every few milliseconds, and for all images whenever `ask` says so.
fn follow(images: &Arc<Images>) -> (Arc<Notify>, impl FnOnce() + use<>) {
    let asking = images.loader.lock().unwrap().asking();
    let (sources, asked, now) = asking.expect("there is something to ask");
    let (end, ended) = oneshot::channel();
    let every = Duration::from_millis(5);
    let thread = fetch::start(Arc::clone(images), sources, asked, Arc::clone(&now), every, ended).unwrap();
    let stop = move || {
        drop(end);
        thread.join().unwrap();
    };
    (now, stop)
}

fn reasons(images: &Images) -> String {
    images.refused().iter().map(|refused| format!("{}: {}\n", refused.file, refused.reason)).collect()
}

#[test]
fn a_layout_is_asked_for_the_images_of_the_configuration() {
    let source = Source::new();
    let images = source.images();
    assert!(!source.is_verified(&images), "nobody was asked yet");
    let watch = images.watch().unwrap();
    wait_until(|| source.is_verified(&images));
    let image = images.get(&source.digests());
    // What BuildKit stated, through the signature over the index; cosign's; the referrer's, about the index.
    let mut paths: Vec<_> = image.index().unwrap().entries().map(|e| e.path().to_string()).collect();
    paths.sort();
    assert_eq!(paths, ["/usr/bin/by-buildkit", "/usr/bin/by-cosign", "/usr/bin/by-referrer"]);
    assert!(image.aside.is_empty(), "{:?}", image.aside);
    assert!(image.documents().iter().all(|of| of.file.starts_with("oci:")), "{:?}", image.documents());
    assert!(reasons(&images).contains("signed by 0 of the configured keys"), "{}", reasons(&images));
    assert!(images.metrics.text().contains("muster_source_askings_total{outcome=\"found\"} 1"));

    // The same again reads nothing anew; other keys throw all away at once.
    let generation = images.generation();
    images.reload(&source.config).unwrap();
    assert!(Arc::ptr_eq(&image, &images.get(&source.digests())));
    let mut other = source.config.clone();
    source.drop.put("other.pub", PrivateKey::generate(Algorithm::P256).unwrap().public_pem());
    other.attestation.keys = vec![source.drop.path("other.pub")];
    images.reload(&other).unwrap();
    assert!(images.generation() > generation && !source.is_verified(&images));
    drop(watch);
    let watch = images.watch().unwrap();
    wait_until(|| matches!(images.get(&source.digests()).state, ImageState::Unverified { .. }));
    drop(watch);
}

#[test]
fn what_comes_later_is_found_and_what_is_gone_is_forgotten() {
    let source = Source::new();
    let whole = fs::read(source.layout.path().join("index.json")).unwrap();
    // The image, and neither a signature over its index nor an attestation; the referrer has no name.
    source.index_json(|name| name != "null" && !name.contains(".att") && !name.contains(".sig"));
    let images = source.images();
    let (ask, stop) = follow(&images);
    wait_until(|| reasons(&images).contains("nobody signed this statement itself"));
    assert!(!source.is_verified(&images));
    fs::write(source.layout.path().join("index.json"), &whole).unwrap();
    wait_until(|| source.is_verified(&images) && images.get(&source.digests()).documents().len() == 3);

    // Asked again, it is the same again.
    let asked = || {
        let text = images.metrics.text();
        text.lines().find(|line| line.contains("askings_total{outcome=\"found\"}")).map(str::to_owned)
    };
    let (before, generation) = (asked(), images.generation());
    ask.notify_one();
    wait_until(|| asked() != before);
    assert_eq!(images.generation(), generation);

    // What BuildKit states counts no longer than the signature over its index is there.
    source.index_json(|name| !name.contains(".sig"));
    ask.notify_one();
    wait_until(|| images.get(&source.digests()).documents().len() == 2);
    let image = images.get(&source.digests());
    assert!(image.index().unwrap().by_path(b"/usr/bin/by-buildkit").is_none());
    assert!(reasons(&images).contains("nobody signed this statement itself"), "{}", reasons(&images));
    fs::write(source.layout.path().join("index.json"), &whole).unwrap();
    ask.notify_one();
    wait_until(|| images.get(&source.digests()).documents().len() == 3);

    // A layout that cannot be read takes nothing away.
    fs::write(source.layout.path().join("index.json"), "{").unwrap();
    ask.notify_one();
    wait_until(|| reasons(&images).contains("index.json: byte 1: "));
    assert!(source.is_verified(&images));
    assert!(images.metrics.text().contains("muster_source_askings_total{outcome=\"failed\"}"));

    fs::write(source.layout.path().join("index.json"), &whole).unwrap();
    source.index_json(|name| !name.contains(".att"));
    ask.notify_one();
    wait_until(|| images.get(&source.digests()).documents().len() == 2);
    assert!(!reasons(&images).contains("index.json"), "{}", reasons(&images));
    stop();
}

/// The index is all that is configured, and what the documents are about.
#[test]
fn what_a_source_has_proven_completes_the_digests_of_an_image() {
    for by in ["image", "index", "manifest", "config"] {
        let source = Source::new();
        let (index, manifest, config) = (source.image.index, source.image.manifest, source.image_id());
        let source = match by {
            "index" => source.named(&[("image", Sha256([9; 32])), ("index", index)]),
            "manifest" => source.named(&[("image", manifest)]),
            "config" => source.named(&[("image", config)]),
            _ => source.named(&[("image", index)]),
        };
        let said = source.digests();
        let put = |name: &str, layer| {
            let about =
                envelope(&source.drop.key, &[index], &image::of_layer(&format!("/bin/{name}"), layer));
            source.drop.put(&format!("{name}.json"), about);
        };
        source.drop.put("key.pub", source.drop.key.public_pem());
        put("own", image::LAYER);
        put("wrong", Sha256([8; 32]));
        let images = source.images();
        let before = images.get(&said);
        let (ask, stop) = follow(&images);
        if by == "index" {
            wait_until(|| reasons(&images).contains("`image` sha256:09090909"));
            assert_eq!(images.get(&said).digests, said);
            stop();
            continue;
        }
        // From a configuration no way leads to the manifest.
        if by == "config" {
            wait_until(|| {
                !images.metrics.text().contains("muster_source_askings_total{outcome=\"nothing\"} 0")
            });
            assert_eq!(reasons(&images), "");
            assert_eq!(images.get(&said).digests, said);
            stop();
            continue;
        }
        wait_until(|| images.get(&said).digests.layers == [image::LAYER]);
        let image = images.get(&said);
        let known = &image.digests;
        assert_eq!((known.index, known.manifest, known.config), (Some(index), Some(manifest), Some(config)));
        assert_eq!(image.digest, before.digest, "it is shown as before");
        assert_eq!(platforms::documents_of(&image), [("own.json", Binding::IndexDigest)], "{by}");
        assert!(
            image
                .aside
                .iter()
                .any(|aside| aside.file == "wrong.json" && aside.reason.contains("layer sha256:0808"))
        );

        // Other keys: what was learned stays, and nothing counts any more.
        let mut other = source.config.clone();
        source.drop.put("other.pub", PrivateKey::generate(Algorithm::P256).unwrap().public_pem());
        other.attestation.keys = vec![source.drop.path("other.pub")];
        images.reload(&other).unwrap();
        assert_eq!(images.get(&said).digests.config, Some(config));
        assert!(!source.is_verified(&images));
        ask.notify_one();
        stop();
    }
}

/// Which image of an index runs here; it must be certain.
#[test]
fn one_image_of_an_index_is_chosen_or_none() {
    let here = crate::identity::architecture();
    let platform = |architecture: &str, variant: &str| {
        let mut platform = serde_json::json!({"os": "linux", "architecture": architecture});
        if !variant.is_empty() {
            platform["variant"] = variant.into();
        }
        platform
    };
    for (what, platforms, doubt) in [
        ("another architecture beside", vec![Some(platform("s390x", ""))], None),
        ("the same one twice", vec![], None),
        (
            "a variant beside",
            vec![Some(platform(&here, "v3"))],
            Some(format!("2 images for this machine (linux/{here}, linux/{here}/v3)")),
        ),
        (
            "several variants",
            vec![Some(platform(&here, "v2")), Some(platform(&here, "v3"))],
            Some("3 images for this machine".to_owned()),
        ),
        // It is not in the layout: which platform it is for is not known.
        ("one that says nothing and cannot be read", vec![None], Some("without a platform".to_owned())),
    ] {
        let source = Source::new();
        let listed = platforms.iter().enumerate().map(|(at, platform)| {
            let mut listed = image::descriptor(image::MANIFEST, format!("another image {at}").as_bytes());
            if let Some(platform) = platform {
                listed["platform"] = platform.clone();
            }
            listed
        });
        let mut listed: Vec<_> = listed.collect();
        if listed.is_empty() {
            let same = image::descriptor(image::MANIFEST, &source.image.documents[0].bytes);
            listed.push(image::with(same, "platform", platform(&here, "")));
        }
        let index = source.index_with(&listed);
        let source = source.named(&[("image", index)]);
        let images = source.images();
        let said = source.digests();
        images.get(&said);
        let (_, stop) = follow(&images);
        let manifest = match &doubt {
            Some(part) => {
                wait_until(|| reasons(&images).contains(part));
                None
            }
            None => {
                wait_until(|| images.get(&said).digests.manifest.is_some());
                Some(source.image.manifest)
            }
        };
        assert_eq!(images.get(&said).digests.manifest, manifest, "{what}: {}", reasons(&images));
        stop();
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to.join(entry.file_name())),
            false => drop(fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

/// Long before it is asked again, which is after five minutes.
#[test]
fn a_layout_that_comes_or_changes_is_asked_at_once() {
    let mut source = Source::new();
    let place = source.layout.path().join("of/images");
    source.config.attestation.layouts = vec![place.clone()];
    let images = source.images();
    let watch = images.watch().unwrap();
    wait_until(|| reasons(&images).contains("expected an OCI layout"));

    // As a tool copies images: the index at last.
    fs::create_dir_all(&place).unwrap();
    copy(&source.layout.path().join("blobs"), &place.join("blobs"));
    fs::write(place.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    fs::copy(source.layout.path().join("index.json"), place.join("index.json")).unwrap();
    wait_until(|| source.is_verified(&images));
    let count = |images: &Images| images.get(&source.digests()).documents().len();
    assert_eq!(count(&images), 3);

    // In place.
    source.index_json(|name| !name.contains(".att"));
    fs::copy(source.layout.path().join("index.json"), place.join("index.json")).unwrap();
    wait_until(|| count(&images) == 2);
    // Renamed over; some files change several times until all is there.
    source.index_json(|name| name != "null");
    for _ in 0..3 {
        fs::copy(source.layout.path().join("index.json"), place.join("index.new")).unwrap();
        fs::rename(place.join("index.new"), place.join("index.json")).unwrap();
    }
    wait_until(|| count(&images) == 1);

    // The directory goes and comes back, as another one.
    fs::rename(&place, source.layout.path().join("old")).unwrap();
    wait_until(|| reasons(&images).contains("expected an OCI layout"));
    assert_eq!(count(&images), 1, "what it held still counts");
    layout::write(&source.image, &place);
    wait_until(|| count(&images) == 3);
    drop(watch);
}

#[cfg(not(feature = "registry"))]
#[test]
fn registries_are_refused_at_start_by_a_program_that_has_none() {
    let drop = Drop::new();
    let config = drop.with(|a| a.registry.enabled = true);
    let error = Images::new(&config, Metrics::new()).unwrap_err().to_string();
    assert!(error.contains("--features registry"), "{error}");
}
