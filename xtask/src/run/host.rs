//! The signed SBOM of this host. It is made again when what it depends on has changed: the package database, or `muster` itself.

use std::fs;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use super::Place;
use crate::{paths, shell};

/// Attests this host and gives the digest that names its image: SHA-256 of the machine's id and its release.
pub(super) fn attest(place: &Place) -> anyhow::Result<String> {
    let name = fs::read("/etc/machine-id").or_else(|_| fs::read("/etc/hostname"));
    let name = name.context("expected /etc/machine-id or /etc/hostname, which name this machine")?;
    let release = fs::read("/etc/os-release").context("/etc/os-release")?;
    let image = format!("sha256:{}", digest(&[&name, &release]));

    let packages = fs::read("/var/lib/dpkg/status").unwrap_or_default();
    let tool = fs::read(paths::release("muster"))?;
    let key = fs::read(place.file("key.pub"))?;
    let made_from = format!("{image} {}", digest(&[&packages, &tool, &key]));
    let (sbom, stamp) = (place.file("host.spdx.json"), place.file("host.made-from"));
    let envelope = place.attestations().join("host.json");
    if envelope.exists() && fs::read_to_string(&stamp).is_ok_and(|made| made == made_from) {
        eprintln!("the signed SBOM of this host is up to date");
        return Ok(image);
    }
    for old in [&stamp, &envelope] {
        if old.exists() {
            fs::remove_file(old)?;
        }
    }
    // What is built here is no part of the host; it changes with each build.
    let mut generate = place.muster(&["sbom", "generate", "--host", "--exclude"]);
    shell::run(generate.arg(fs::canonicalize(paths::target())?).arg("--output").arg(&sbom))?;
    place.sign(&sbom, &image, "host.json")?;
    fs::write(&stamp, made_from)?;
    Ok(image)
}

fn digest(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        // The length keeps parts apart.
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn parts_are_kept_apart() {
        assert_ne!(digest(&[b"ab", b"c"]), digest(&[b"a", b"bc"]));
        assert_eq!(digest(&[b"ab"]).len(), 64);
    }
}
