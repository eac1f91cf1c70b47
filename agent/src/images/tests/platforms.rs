//! One subject for several platforms.

use super::*;

const INDEX: Sha256 = Sha256([0x11; 32]);
const CONFIG: Sha256 = Sha256([0x22; 32]);
const MANIFEST: Sha256 = Sha256([0x33; 32]);
const LAYER: Sha256 = Sha256([0x44; 32]);
const FOREIGN: Sha256 = Sha256([0x55; 32]);

fn digests() -> Digests {
    Digests {
        index: Some(INDEX),
        manifest: Some(MANIFEST),
        config: Some(CONFIG),
        layers: vec![LAYER],
        ..Digests::default()
    }
}

/// An SBOM of one file that lies in a layer.
fn of_layer(path: &str, layer: Sha256) -> String {
    let mut document: serde_json::Value = serde_json::from_str(&sbom(&[path])).unwrap();
    document["files"][0]["comment"] = format!("layerID: sha256:{layer}").into();
    document.to_string()
}

fn files(image: &Image) -> Vec<String> {
    image.index().map(|index| index.entries().map(|e| e.path().to_string()).collect()).unwrap_or_default()
}

#[test]
fn a_document_about_the_index_must_prove_the_platform() {
    let drop = Drop::new();
    let put = |name: &str, subject: Sha256, text: &str| drop.put(name, envelope(&drop.key, &[subject], text));
    put("other.json", INDEX, &of_layer("/bin/other", FOREIGN));
    let images = drop.images();
    let image = images.get(&digests());
    let ImageState::PlatformUnproven { index: Some(_), documents, reason } = &image.state else {
        panic!("{image:?}")
    };
    assert!(reason.starts_with("other.json: it was made from an image with layer sha256:5555"), "{reason}");
    assert_eq!((documents[0].binding, image.binding()), (Binding::Unproven, Some(Binding::Unproven)));
    assert_eq!(files(&image), ["/bin/other"]);
    let shown = images.status().into_iter().find(|i| i.state == "platform_unproven").unwrap();
    assert_eq!(shown.binding(), muster_proto::v1::Binding::Unproven);
    assert!(images.metrics.text().contains("muster_images{state=\"platform_unproven\"} 1"));

    // Another one that says nothing: still not proven; both are there for information.
    put("silent.json", INDEX, &sbom(&["/bin/silent"]));
    images.load_now();
    let image = images.get(&digests());
    assert!(
        matches!(&image.state, ImageState::PlatformUnproven { reason, .. } if reason.ends_with("(and 1 more)"))
    );
    assert_eq!(files(&image), ["/bin/other", "/bin/silent"]);

    // They contradict each other: nothing can be said, and nothing is refused for it.
    put(
        "third.json",
        INDEX,
        &sbom(&["/bin/other"]).replace("aa", "ab").replace("bb", "bc").replace("0", "1"),
    );
    images.load_now();
    assert!(matches!(images.get(&digests()).state, ImageState::PlatformUnproven { index: None, .. }));

    // The one that is of this platform counts alone.
    put("own.json", INDEX, &of_layer("/bin/own", LAYER));
    images.load_now();
    let image = images.get(&digests());
    assert_eq!(documents_of(&image), [("own.json", Binding::IndexDigest)]);
    assert_eq!(files(&image), ["/bin/own"]);
    let aside: Vec<_> = image.aside.iter().map(|aside| aside.file.as_str()).collect();
    assert_eq!(aside, ["other.json", "silent.json", "third.json"]);
    let shown = images.status().into_iter().find(|i| i.state == "verified").unwrap();
    assert_eq!(shown.not_counted.len(), 3);

    // Others that need no proof are united with it; the weakest binding is the image's.
    put("manifest.json", MANIFEST, &sbom(&["/bin/manifest"]));
    put("config.json", CONFIG, &of_layer("/bin/config", LAYER));
    images.load_now();
    let image = images.get(&digests());
    let expected = [
        ("config.json", Binding::ConfigDigest),
        ("manifest.json", Binding::ManifestDigest),
        ("own.json", Binding::IndexDigest),
    ];
    assert_eq!(documents_of(&image), expected);
    assert_eq!(image.binding(), Some(Binding::IndexDigest));
    assert_eq!(files(&image), ["/bin/config", "/bin/manifest", "/bin/own"]);
    // One that says itself that it is of another image does not count for this one, whatever its subjects.
    put("foreign.json", CONFIG, &of_layer("/bin/foreign", FOREIGN));
    images.load_now();
    let image = images.get(&digests());
    assert_eq!(files(&image), ["/bin/config", "/bin/manifest", "/bin/own"]);
    assert!(image.aside.iter().any(|aside| aside.file == "foreign.json"), "{:?}", image.aside);
}

pub(super) fn documents_of(image: &Image) -> Vec<(&str, Binding)> {
    image.documents().iter().map(|d| (d.file.as_str(), d.binding)).collect()
}

fn shared(name: &str) -> Vec<u8> {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")).join(name);
    fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; the tests need the shared test data beside the workspace", path.display())
    })
}

fn digest(hex: &str) -> Option<Sha256> {
    Some(hex.parse().unwrap())
}

/// As many pipelines do it: what syft says of the arm64 image, signed for the index that it was pulled by.
#[test]
fn a_real_document_about_an_index() {
    let drop = Drop::new();
    let index = digest("c75ac27b49326926b803b9ed43bf088bc220d22556de1bc5f72d742c91398f69");
    let config = digest("cc604a625da1289c5dd57f947318133161ff7f40fb03dc2a649300473b97e743");
    let layers =
        || digest("d80e0208345a5c0e0e5575f11f35d99a179bcdfec9a075828e774145c0245eb6").into_iter().collect();
    // What syft calls the manifest's digest exists in no registry: nothing is bound by it.
    let made_up = digest("8cb449c3c0a4611deee6858f633eaa9378ee2eb00c2c2ae643e76e82d06b850b");
    let text = String::from_utf8(shared("sbom/alpine-synthetic-manifest.syft.json")).unwrap();
    drop.put("a.json", envelope(&drop.key, &[index.unwrap()], &text));
    let images = drop.images();
    assert_eq!(images.refused().as_slice(), []);
    let none = Digests::default;
    let (arm, amd) = (Some("arm64".to_owned()), Some("amd64".to_owned()));
    for (what, digests, expected) in [
        ("its config", Digests { index, config, ..none() }, Some(Binding::IndexDigest)),
        ("its layers", Digests { index, layers: layers(), ..none() }, Some(Binding::IndexDigest)),
        ("another config", Digests { index, config: Some(FOREIGN), ..none() }, Some(Binding::Unproven)),
        ("another layer", Digests { index, layers: vec![FOREIGN], ..none() }, Some(Binding::Unproven)),
        ("nothing known of the platform", Digests { index, ..none() }, Some(Binding::Unproven)),
        (
            "the digest alone, on arm64",
            Digests { image: index, architecture: arm, ..none() },
            Some(Binding::ImageDigest),
        ),
        (
            "the digest alone, on amd64",
            Digests { image: index, architecture: amd, ..none() },
            Some(Binding::Unproven),
        ),
        ("syft's manifest digest", Digests { manifest: made_up, ..none() }, None),
        ("the config is no subject", Digests { config, ..none() }, None),
    ] {
        // Each on its own, for some of these are of one image.
        let image = drop.images().get(&digests);
        assert_eq!(image.binding(), expected, "{what}: {:?}", image.state);
    }
}

/// A real envelope by cosign, whose document names a layer of its image and nothing else of it.
#[test]
fn a_real_envelope_about_an_index() {
    let mut drop = Drop::new();
    drop.put("cosign.pub", shared("attestation/key-signed/cosign.pub"));
    drop.put("alpine.json", shared("attestation/key-signed/alpine.cdx.att.json"));
    drop.config.attestation.keys = vec![drop.path("cosign.pub")];
    let index = digest("4edbd2beb5f78b1014028f4fbb99f3237d9561100b6881aabbf5acce2c4f9454");
    let layer = digest("4fc242d58285699eca05db3cc7c7122a2b8e014d9481f323bd9277baacfa0628");
    let images = drop.images();
    assert_eq!(images.refused().as_slice(), []);
    let of = |layers| images.get(&Digests { index, layers, ..Digests::default() });
    assert_eq!(of(layer.into_iter().collect()).binding(), Some(Binding::IndexDigest));
    for (layers, expected) in
        [(vec![FOREIGN], "made from an image with layer"), (Vec::new(), "nothing in it proves")]
    {
        let image = of(layers);
        let ImageState::PlatformUnproven { reason, .. } = &image.state else {
            panic!("{expected}: {:?}", image.binding())
        };
        assert!(reason.contains(expected), "{reason}");
    }
}

#[test]
fn the_newest_of_a_signer_counts() {
    let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let key = |byte| crate::attestation::KeyId(Sha256([byte; 32]));
    let document = |file: &str, signer, predicate, time| Document {
        sha256: crate::attestation::sha256(file.as_bytes()),
        envelope_sha256: Sha256::default(),
        format: String::new(),
        predicate,
        tool: None,
        file: file.to_owned(),
        signers: Signers { keys: vec![key(signer)], identity: None },
        time,
        binding: Binding::ConfigDigest,
    };
    let index = Arc::new(ImageIndex::default());
    let (spdx, syft) = (PredicateType::Spdx, PredicateType::Syft);
    let mut proven: Vec<_> = [
        document("old", 1, spdx, at(1)),
        document("new", 1, spdx, at(3)),
        document("as new", 1, spdx, at(3)),
        document("another kind", 1, syft, at(1)),
        document("another signer", 2, spdx, at(2)),
        document("no time", 1, spdx, None),
    ]
    .into_iter()
    .map(|document| (document, &index))
    .collect();
    let aside = library::superseded(&mut proven);
    let left: Vec<_> = proven.iter().map(|(document, _)| document.file.as_str()).collect();
    assert_eq!(left, ["new", "as new", "another kind", "another signer", "no time"]);
    assert_eq!(aside.len(), 1);
    assert!(aside[0].file == "old" && aside[0].reason.contains("new is newer"), "{aside:?}");
}
