//! The image of `image.rs` as a directory.

use std::fs;
use std::path::Path;

use muster::attestation::sha256;
use serde_json::json;

use super::image::{INDEX, Image, descriptor, with};

/// Writes the image with everything beside it as a directory in the OCI image layout.
pub(crate) fn write(image: &Image, directory: &Path) {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a directory");
    let documents = image.documents.iter().map(|document| &document.bytes);
    for bytes in image.blobs.iter().chain(documents) {
        fs::write(blobs.join(sha256(bytes).to_string()), bytes).expect("written");
    }
    // A layout has no referrers tag of its own: referrers are found by their subject.
    let named = image.documents.iter().filter(|document| {
        document.subject.is_some()
            || document.tag.as_ref().is_some_and(|tag| *tag != format!("sha256-{}", image.index))
    });
    let named = named.map(|document| {
        let descriptor = descriptor(document.media_type, &document.bytes);
        match &document.tag {
            Some(tag) => with(descriptor, "annotations", json!({"org.opencontainers.image.ref.name": tag})),
            None => descriptor,
        }
    });
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": named.collect::<Vec<_>>()});
    fs::write(directory.join("index.json"), index.to_string()).expect("written");
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
}
