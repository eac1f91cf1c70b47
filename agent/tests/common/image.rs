//! A small image with everything that build tools and signers put beside one. For unit tests and, by `#[path]`,
//! for the tests beside this folder.

use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster::attestation::key::Algorithm;
use muster::attestation::sign::sign;
use muster::attestation::{Limits, PrivateKey, Subject, sha256};
use muster::finding::Sha256;
use serde_json::{Value, json};

pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";

/// An index or a manifest.
pub(crate) struct Document {
    pub(crate) bytes: Vec<u8>,
    pub(crate) media_type: &'static str,
    pub(crate) tag: Option<String>,
    /// What it refers to.
    pub(crate) subject: Option<Sha256>,
}

/// The image, and who signed for it.
pub(crate) struct Image {
    pub(crate) key: PrivateKey,
    pub(crate) index: Sha256,
    pub(crate) manifest: Sha256,
    pub(crate) blobs: Vec<Vec<u8>>,
    /// In an order in which a registry takes them.
    pub(crate) documents: Vec<Document>,
}

/// The program, made to run by its package.
pub(crate) fn tool(name: &str, package: &str) -> Command {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(name).is_file()));
    assert!(found, "{name} is missing: run `cargo xtask setup --for test` (or `apt-get install {package}`)");
    Command::new(name)
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The only layer of the image, uncompressed.
pub(crate) const LAYER: Sha256 = Sha256([7; 32]);

/// An SBOM of one file, which says in which layer it lies.
pub(crate) fn of_layer(path: &str, layer: Sha256) -> String {
    let mut sbom: Value = serde_json::from_str(&spdx(path)).expect("JSON");
    sbom["files"][0]["comment"] = json!(format!("layerID: sha256:{layer}"));
    sbom.to_string()
}

fn spdx(path: &str) -> String {
    json!({
        "spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "test", "packages": [], "relationships": [],
        "files": [{
            "SPDXID": "SPDXRef-File", "fileName": path,
            "checksums": [{"algorithm": "SHA256", "checksumValue": sha256(path.as_bytes()).to_string()}],
        }],
    })
    .to_string()
}

pub(crate) fn envelope(key: &PrivateKey, about: Sha256, sbom: &str) -> Vec<u8> {
    let subject = Subject { name: "web".into(), sha256: Some(about) };
    let mut out = Vec::new();
    sign(sbom.as_bytes(), &[subject], None, key, &Limits::default(), &mut out).expect("signed");
    out
}

/// A signature by openssl, as cosign makes one.
pub(crate) fn signature(key: &PrivateKey, payload: &[u8]) -> String {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str| directory.path().join(name);
    fs::write(file("key"), key.to_pem().expect("PEM")).expect("written");
    fs::write(file("payload"), payload).expect("written");
    let output = tool("openssl", "openssl")
        .args(["dgst", "-sha256", "-sign"])
        .args([file("key"), file("payload")])
        .output()
        .expect("openssl runs");
    assert!(output.status.success(), "{}", text(&output.stderr));
    STANDARD.encode(output.stdout)
}

pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", sha256(bytes)), "size": bytes.len()})
}

pub(crate) fn with(mut descriptor: Value, key: &str, value: Value) -> Value {
    descriptor[key] = value;
    descriptor
}

impl Image {
    /// For the index: a signed SBOM as referrer, which proves its platform by its layer; `signed`: cosign's signature too. For its one platform: two SBOMs under cosign's tag,
    /// one by a key that counts; a statement that BuildKit made, which nobody signed; an SBOM that nobody signed.
    pub(crate) fn new(signed: bool) -> Self {
        let key = PrivateKey::generate(Algorithm::P256).expect("a key");
        let foreign = PrivateKey::generate(Algorithm::P256).expect("a key");
        let mut image = Self {
            key,
            index: Sha256::default(),
            manifest: Sha256::default(),
            blobs: Vec::new(),
            documents: Vec::new(),
        };
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let layer = image.blob("application/vnd.oci.image.layer.v1.tar+gzip", b"is not read");
        let config = json!({
            "architecture": architecture, "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{LAYER}")]},
        });
        let config = image.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
        let empty = image.blob("application/vnd.oci.empty.v1+json", b"{}");
        let manifest =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
        let (manifest, digest) = image.document(MANIFEST, &manifest, None, None);
        image.manifest = digest;

        let statement = json!({
            "_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document",
            "subject": [{"name": "pkg:docker/web@1", "digest": {"sha256": digest.to_string()}}],
            "predicate": serde_json::from_str::<Value>(&spdx("/usr/bin/by-buildkit")).expect("JSON"),
        });
        let statement = image.blob("application/vnd.in-toto+json", statement.to_string().as_bytes());
        let statement =
            with(statement, "annotations", json!({"in-toto.io/predicate-type": "https://spdx.dev/Document"}));
        let buildkit =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [statement]});
        let (buildkit, _) = image.document(MANIFEST, &buildkit, None, None);
        let buildkit = with(buildkit, "platform", json!({"architecture": "unknown", "os": "unknown"}));
        let annotations = json!({
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": format!("sha256:{digest}"),
        });
        let platform =
            with(manifest.clone(), "platform", json!({"architecture": architecture, "os": "linux"}));
        let index = json!({
            "schemaVersion": 2, "mediaType": INDEX,
            "manifests": [platform, with(buildkit, "annotations", annotations)],
        });
        let (index, of_index) = image.document(INDEX, &index, Some("latest".into()), None);
        image.index = of_index;

        let bytes = envelope(&image.key, of_index, &of_layer("/usr/bin/by-referrer", LAYER));
        let layer = image.blob(ENVELOPE, &bytes);
        let referrer = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": ENVELOPE, "config": empty, "layers": [layer],
            "subject": index,
        });
        let (referrer, _) = image.document(MANIFEST, &referrer, None, Some(of_index));
        let referrer = with(referrer, "artifactType", json!(ENVELOPE));
        let fallback = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [referrer]});
        image.document(INDEX, &fallback, Some(format!("sha256-{of_index}")), None);

        let layers = [&image.key, &foreign].map(|key| envelope(key, digest, &spdx("/usr/bin/by-cosign")));
        let layers = layers.map(|bytes| image.blob(ENVELOPE, &bytes));
        let att = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": layers});
        image.document(MANIFEST, &att, Some(format!("sha256-{digest}.att")), None);
        let plain = image.blob("text/spdx+json", spdx("/usr/bin/by-nobody").as_bytes());
        let plain = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [plain]});
        image.document(MANIFEST, &plain, Some(format!("sha256-{digest}.sbom")), None);
        if signed {
            image.sign_index(&empty);
        }
        image
    }

    fn sign_index(&mut self, empty: &Value) {
        let payload = json!({
            "critical": {
                "identity": {"docker-reference": "registry.example/web"}, "type": "cosign container image signature",
                "image": {"docker-manifest-digest": format!("sha256:{}", self.index)},
            },
            "optional": null,
        });
        let payload = payload.to_string();
        let signature = signature(&self.key, payload.as_bytes());
        let layer = self.blob("application/vnd.dev.cosign.simplesigning.v1+json", payload.as_bytes());
        let layer = with(layer, "annotations", json!({"dev.cosignproject.cosign/signature": signature}));
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [layer]});
        self.document(MANIFEST, &manifest, Some(format!("sha256-{}.sig", self.index)), None);
    }

    fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        self.blobs.push(bytes.to_vec());
        descriptor(media_type, bytes)
    }

    fn document(
        &mut self,
        media_type: &'static str,
        content: &Value,
        tag: Option<String>,
        subject: Option<Sha256>,
    ) -> (Value, Sha256) {
        let bytes = content.to_string().into_bytes();
        let (descriptor, digest) = (descriptor(media_type, &bytes), sha256(&bytes));
        self.documents.push(Document { bytes, media_type, tag, subject });
        (descriptor, digest)
    }
}
