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
    config: Config,
}

impl Source {
    fn new() -> Self {
        let (drop, layout) = (Drop::new(), tempfile::tempdir().unwrap());
        let image = image::Image::new(true);
        layout::write(&image, layout.path());
        drop.put("key.pub", image.key.public_pem());
        let mut config = drop.with(|a| a.layouts = vec![layout.path().to_owned()]);
        let text = format!(
            "[[workload]]\ncgroup = \"/web/**\"\nimage = \"{}\"\nindex = \"{}\"\n",
            image.manifest, image.index
        );
        let file = drop.path("workload.toml");
        fs::write(&file, text).unwrap();
        config.workloads = Config::load(&file).unwrap().workloads;
        Self { drop, layout, config }
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
    // What BuildKit stated, through the signature over the index; cosign's; the referrer is about the index, without proof.
    let mut paths: Vec<_> = image.index().unwrap().entries().map(|e| e.path().to_string()).collect();
    paths.sort();
    assert_eq!(paths, ["/usr/bin/by-buildkit", "/usr/bin/by-cosign"]);
    assert!(image.aside.iter().any(|of| of.file.contains("referrer")), "{:?}", image.aside);
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
    // The image, and neither a signature over its index nor an attestation.
    source.index_json(|name| !name.contains(".att") && !name.contains(".sig"));
    let images = source.images();
    let (ask, stop) = follow(&images);
    wait_until(|| reasons(&images).contains("nobody signed this statement itself"));
    assert!(!source.is_verified(&images));
    fs::write(source.layout.path().join("index.json"), &whole).unwrap();
    wait_until(|| source.is_verified(&images) && images.get(&source.digests()).documents().len() == 2);

    // A layout that cannot be read takes nothing away.
    fs::write(source.layout.path().join("index.json"), "{").unwrap();
    ask.notify_one();
    wait_until(|| reasons(&images).contains("index.json: byte 1: "));
    assert!(source.is_verified(&images));
    assert!(images.metrics.text().contains("muster_source_askings_total{outcome=\"failed\"}"));

    fs::write(source.layout.path().join("index.json"), &whole).unwrap();
    source.index_json(|name| !name.contains(".att"));
    ask.notify_one();
    wait_until(|| images.get(&source.digests()).documents().len() == 1);
    assert!(!reasons(&images).contains("index.json"), "{}", reasons(&images));
    stop();
}

#[cfg(not(feature = "registry"))]
#[test]
fn registries_are_refused_at_start_by_a_program_that_has_none() {
    let drop = Drop::new();
    let config = drop.with(|a| a.registry.enabled = true);
    let error = Images::new(&config, Metrics::new()).unwrap_err().to_string();
    assert!(error.contains("--features registry"), "{error}");
}
