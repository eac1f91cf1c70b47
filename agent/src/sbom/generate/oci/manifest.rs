//! Index, manifest and configuration (image-spec 1.1): which image of a layout, and its layers.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{ImageError, Store};
use crate::finding::Sha256;

/// Largest index, manifest or configuration; registries refuse manifests above 4 MiB.
const MAX_BYTES: u64 = 4 << 20;
/// Layers of an image; overlayfs takes no more.
const MAX_LAYERS: usize = 500;
/// Indexes within each other.
const MAX_DEPTH: u32 = 4;

const INDEX: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFEST: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

/// Operating system and architecture, as an image's configuration spells them (GOOS, GOARCH).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`.
    pub architecture: String,
}

impl Platform {
    /// This machine's.
    pub fn this() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self { os: std::env::consts::OS.to_owned(), architecture: architecture.to_owned() }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

impl std::str::FromStr for Platform {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((os, architecture)) if !os.is_empty() && !architecture.is_empty() => {
                Ok(Self { os: os.to_owned(), architecture: architecture.to_owned() })
            }
            _ => Err(format!("expected OS/ARCHITECTURE, such as linux/amd64, found {text:?}")),
        }
    }
}

/// An image of a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sbom::generate) struct Image {
    pub(in crate::sbom::generate) manifest: Sha256,
    pub(in crate::sbom::generate) config: Sha256,
    pub(in crate::sbom::generate) platform: Platform,
    /// Blobs of the layers, lowest first.
    pub(in crate::sbom::generate) layers: Vec<Sha256>,
    /// Digests of the unpacked layers.
    pub(in crate::sbom::generate) diff_ids: Vec<Sha256>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    platform: Option<RawPlatform>,
}

#[derive(Deserialize)]
struct RawPlatform {
    os: String,
    architecture: String,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Config {
    os: String,
    architecture: String,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

/// The one image of the layout for a platform. An image that is alone is taken whatever its platform.
pub(super) fn choose(store: &mut Store, platform: &Platform) -> Result<Image, ImageError> {
    let mut found = Vec::new();
    let bytes = store.small("index.json", MAX_BYTES)?;
    collect(store, "index.json", &bytes, 0, &mut found)?;
    let mut images = Vec::new();
    for manifest in found {
        images.push(image(store, manifest)?);
    }
    let alone = images.len() == 1;
    let there: BTreeSet<_> = images.iter().map(|image| image.platform.to_string()).collect();
    let there: Vec<_> = there.into_iter().collect();
    images.retain(|image| alone || image.platform == *platform);
    match (images.pop(), images.len()) {
        (Some(image), 0) => Ok(image),
        (None, _) => Err(ImageError::Choice(format!(
            "no image for {platform}; expected one of: {}",
            if there.is_empty() { "(the layout has no image at all)".to_owned() } else { there.join(", ") }
        ))),
        (Some(_), more) => Err(ImageError::Choice(format!(
            "{} images for {platform}; expected a layout with one: copy the one that is meant (skopeo copy oci:DIR:TAG oci:NEW)",
            more + 1
        ))),
    }
}

fn collect(
    store: &mut Store,
    what: &str,
    bytes: &[u8],
    depth: u32,
    found: &mut Vec<Sha256>,
) -> Result<(), ImageError> {
    let index: Index = read(what, bytes)?;
    for descriptor in index.manifests {
        // Attestation manifests of BuildKit are for no platform.
        if descriptor.platform.is_some_and(|p| p.os == "unknown" && p.architecture == "unknown") {
            continue;
        }
        let digest = digest(what, &descriptor.digest)?;
        if MANIFEST.contains(&&*descriptor.media_type) {
            if !found.contains(&digest) {
                found.push(digest);
            }
        } else if INDEX.contains(&&*descriptor.media_type) {
            if depth == MAX_DEPTH {
                return Err(ImageError::document(what, "indexes within indexes, too deep"));
            }
            let bytes = store.blob(&digest, MAX_BYTES)?;
            collect(store, &format!("index sha256:{digest}"), &bytes, depth + 1, found)?;
        }
        if found.len() > 256 {
            return Err(ImageError::document(what, "more than 256 images"));
        }
    }
    Ok(())
}

fn image(store: &mut Store, manifest: Sha256) -> Result<Image, ImageError> {
    let what = format!("manifest sha256:{manifest}");
    let parsed: Manifest = read(&what, &store.blob(&manifest, MAX_BYTES)?)?;
    let config = digest(&what, &parsed.config.digest)?;
    let layers: Vec<_> =
        parsed.layers.iter().map(|layer| digest(&what, &layer.digest)).collect::<Result<_, _>>()?;
    let what = format!("configuration sha256:{config}");
    let parsed: Config = read(&what, &store.blob(&config, MAX_BYTES)?)?;
    let diff_ids: Vec<_> =
        parsed.rootfs.diff_ids.iter().map(|id| digest(&what, id)).collect::<Result<_, _>>()?;
    if diff_ids.len() != layers.len() || layers.len() > MAX_LAYERS {
        let (ids, blobs) = (diff_ids.len(), layers.len());
        let reason = format!("{ids} diff_ids for {blobs} layers; expected one each, at most {MAX_LAYERS}");
        return Err(ImageError::document(what, reason));
    }
    let platform = Platform { os: parsed.os, architecture: parsed.architecture };
    Ok(Image { manifest, config, platform, layers, diff_ids })
}

fn read<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::document(what, error.to_string()))
}

fn digest(what: &str, text: &str) -> Result<Sha256, ImageError> {
    let digest = text.strip_prefix("sha256:").and_then(|hex| hex.parse::<Sha256>().ok());
    digest.ok_or_else(|| {
        let text: String = text.chars().take(80).collect();
        ImageError::document(what, format!("digest {text:?}; expected sha256: and 64 hexadecimal digits"))
    })
}
