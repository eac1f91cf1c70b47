//! The tree as an OCI image, in a layout directory and in an archive of one (image-spec 1.1).

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use muster::attestation::sha256;
use muster::finding::Sha256;
use serde_json::{Value, json};

use crate::tree::{SERVER, Tree};

/// What the second layer brings.
const APPLICATION: &str = "opt";

/// An image whose files are those of the tree.
pub(crate) struct Image {
    directory: tempfile::TempDir,
    pub(crate) config: Sha256,
    /// Digests of the unpacked layers, lowest first.
    pub(crate) layers: [Sha256; 2],
}

impl Image {
    /// As a Dockerfile makes it: a base with the packages, and over it the application, whose server replaces one of the base and
    /// whose build leaves nothing behind.
    pub(crate) fn of(tree: &Tree) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let blobs = directory.path().join("layout/web/blobs/sha256");
        fs::create_dir_all(&blobs).expect("a directory");
        let blob = |bytes: &[u8]| {
            let digest = sha256(bytes);
            fs::write(blobs.join(digest.to_string()), bytes).expect("a blob");
            digest
        };
        let descriptor = |kind: &str, bytes: &[u8]| json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": format!("sha256:{}", blob(bytes)), "size": bytes.len() });

        let is_application = |path: &Path| path.starts_with(APPLICATION);
        let mut base = layer(tree, |path| !is_application(path));
        file(&mut base, SERVER, b"#!/bin/sh\necho an earlier server\n");
        file(&mut base, "opt/build/compiler", b"#!/bin/sh\necho left behind\n");
        let mut application = layer(tree, is_application);
        file(&mut application, "opt/.wh.build", b"");
        let layers = [base, application].map(|layer| layer.into_inner().expect("into memory"));
        let diff_ids = layers.each_ref().map(|layer| sha256(layer));
        let packed = layers.map(|layer| descriptor("layer.v1.tar+gzip", &gzip(&layer)));
        let config = json!({
            "architecture": "amd64", "os": "linux", "config": { "Cmd": [format!("/{SERVER}")] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids.map(|digest| format!("sha256:{digest}")) },
        });
        let config = config.to_string();
        let manifest = |config: Value| json!({ "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": packed });
        let manifest = manifest(descriptor("config.v1+json", config.as_bytes())).to_string();
        let index =
            json!({ "schemaVersion": 2, "manifests": [descriptor("manifest.v1+json", manifest.as_bytes())] });
        let image = Self { directory, config: sha256(config.as_bytes()), layers: diff_ids };
        let layout = image.layout();
        fs::write(layout.join("index.json"), index.to_string()).expect("a file");
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
        fs::create_dir(image.archive().with_file_name("")).expect("a directory");
        let archive = fs::File::create(image.archive()).expect("a file");
        tar::Builder::new(archive).append_dir_all("", layout).expect("an archive");
        image
    }

    /// The layout directory.
    pub(crate) fn layout(&self) -> PathBuf {
        self.directory.path().join("layout/web")
    }

    /// The archive. Its name is that of the layout, since documents are named after what they are of.
    pub(crate) fn archive(&self) -> PathBuf {
        self.directory.path().join("archive/web")
    }
}

type Layer = tar::Builder<Vec<u8>>;

/// What of the tree is wanted, in order of paths.
fn layer(tree: &Tree, wanted: impl Fn(&Path) -> bool) -> Layer {
    let mut layer = tar::Builder::new(Vec::new());
    layer.follow_symlinks(false);
    layer.mode(tar::HeaderMode::Deterministic);
    for entry in walkdir::WalkDir::new(tree.root()).min_depth(1).sort_by_file_name() {
        let entry = entry.expect("the tree can be read");
        let path = entry.path().strip_prefix(tree.root()).expect("it is below");
        if wanted(path) {
            layer.append_path_with_name(entry.path(), path).expect("into memory");
        }
    }
    layer
}

/// Adds what the tree does not have.
fn file(layer: &mut Layer, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(content.len() as u64);
    layer.append_data(&mut header, path, content).expect("into memory");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}
