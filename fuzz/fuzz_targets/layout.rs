//! OCI layouts: the bytes are taken as an archive of one, and as index, manifest and configuration of one, split by zero bytes. There
//! `MANIFEST` and `CONFIG` stand for the digests, which no chance finds.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use muster::attestation::sha256;
use muster::sbom::generate::{Platform, image_of_archive};

fuzz_target!(|data: &[u8]| {
    let platform = Platform { os: "linux".to_owned(), architecture: "amd64".to_owned() };
    // What is no layout is refused, and that is all.
    drop(image_of_archive(Cursor::new(data.to_vec()), Some(&platform)));
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.splitn(3, '\0');
    let mut part = || parts.next().unwrap_or_default();
    let (index, manifest, config) = (part(), part(), part());
    let config_digest = sha256(config.as_bytes());
    let manifest = manifest.replace("CONFIG", &format!("sha256:{config_digest}"));
    let manifest_digest = sha256(manifest.as_bytes());
    let index = index.replace("MANIFEST", &format!("sha256:{manifest_digest}"));
    let mut archive = tar::Builder::new(Vec::new());
    for (name, content) in [
        ("oci-layout".to_owned(), "{}"),
        ("index.json".to_owned(), &index),
        (format!("blobs/sha256/{manifest_digest}"), &manifest),
        (format!("blobs/sha256/{config_digest}"), config),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content.as_bytes()).expect("into memory");
    }
    let archive = archive.into_inner().expect("into memory");
    for platform in [None, Some(&platform)] {
        if let Ok(found) = image_of_archive(Cursor::new(archive.clone()), platform) {
            assert_eq!(found, [manifest_digest, config_digest]);
        }
    }
});
