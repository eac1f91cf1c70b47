//! Index, manifest and configuration (image-spec 1.1): which image of a layout, and its layers.

use std::collections::BTreeSet;
use std::io;
use std::time::SystemTime;

use serde::Deserialize;

use super::{ImageError, Store};
use crate::finding::Sha256;
use crate::sbom::shown;

/// Largest index, manifest or configuration; registries refuse manifests above 4 MiB.
const MAX_BYTES: u64 = 4 << 20;
/// Layers of an image; overlayfs takes no more.
const MAX_LAYERS: usize = 500;
/// Indexes within each other.
const MAX_DEPTH: u32 = 4;
/// Manifests of a layout, and indexes.
const MAX_MANIFESTS: usize = 256;

const INDEX: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFEST: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const CONFIG: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// What media types of layers begin with.
const LAYER: [&str; 2] = ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."];

/// Operating system and architecture, as an image's configuration spells them (GOOS, GOARCH).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`.
    pub architecture: String,
}

impl Platform {
    /// What BuildKit writes for manifests that are no image's, such as attestations.
    fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }

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
    /// When its configuration says that it was made.
    pub(in crate::sbom::generate) created: Option<SystemTime>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    /// `null` from scratch, and never absent.
    #[serde(deserialize_with = "Option::deserialize")]
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct Config {
    os: String,
    architecture: String,
    #[serde(default)]
    created: Option<String>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    /// `null` from scratch, and never absent.
    #[serde(deserialize_with = "Option::deserialize")]
    diff_ids: Option<Vec<String>>,
}

/// What the indexes of a layout name.
#[derive(Default)]
struct Named {
    manifests: Vec<(Sha256, Option<Platform>)>,
    indexes: Vec<Sha256>,
    absent: Vec<Absent>,
}

/// What is named and not there: a layout may hold some platforms of an index only.
struct Absent {
    platform: Option<Platform>,
    error: ImageError,
}

/// The one image of the layout for a platform. Without one it is this machine's, or the only image that is named.
pub(super) fn choose(store: &mut Store, platform: Option<&Platform>) -> Result<Image, ImageError> {
    let mut named = Named::default();
    let bytes = store.small("index.json", MAX_BYTES)?;
    collect(store, "index.json", &bytes, 0, &mut named)?;
    let Named { manifests, mut absent, .. } = named;
    let mut images = Vec::new();
    for (manifest, stated) in manifests {
        match image(store, manifest) {
            Ok(image) => images.extend(image),
            Err(error) => absent.push(Absent { platform: stated, error: only_absent(error)? }),
        }
    }
    let wanted = platform.cloned().unwrap_or_else(Platform::this);
    if let Some(at) = absent.iter().position(|absent| absent.platform.as_ref() == Some(&wanted)) {
        return Err(absent.swap_remove(at).error);
    }
    let alone = platform.is_none() && images.len() == 1 && absent.is_empty();
    let there: BTreeSet<_> = images.iter().map(|image| image.platform.to_string()).collect();
    images.retain(|image| alone || image.platform == wanted);
    match (images.pop(), images.len()) {
        (Some(image), 0) => Ok(image),
        (None, _) if there.is_empty() && !absent.is_empty() => Err(absent.swap_remove(0).error),
        (None, _) => {
            let there: Vec<_> = there.into_iter().collect();
            let there = if there.is_empty() {
                "(the layout has no image at all)".to_owned()
            } else {
                there.join(", ")
            };
            let lacking = match absent.len() {
                0 => String::new(),
                lacking => format!("; {lacking} more that it names are not in it"),
            };
            Err(ImageError::Choice(format!("no image for {wanted}; expected one of: {there}{lacking}")))
        }
        (Some(_), more) => Err(ImageError::Choice(format!(
            "{} images for {wanted}; expected a layout with one: copy the one that is meant (skopeo copy oci:DIR:TAG oci:NEW)",
            more + 1
        ))),
    }
}

/// The error, if it says that a blob is not there.
fn only_absent(error: ImageError) -> Result<ImageError, ImageError> {
    let is_absent =
        matches!(&error, ImageError::Read { error, .. } if error.kind() == io::ErrorKind::NotFound);
    if is_absent { Ok(error) } else { Err(error) }
}

fn collect(
    store: &mut Store,
    what: &str,
    bytes: &[u8],
    depth: u32,
    named: &mut Named,
) -> Result<(), ImageError> {
    let index: Index = read(what, bytes)?;
    for descriptor in index.manifests {
        if descriptor.platform.as_ref().is_some_and(Platform::is_unknown) {
            continue;
        }
        let digest = digest(what, &descriptor.digest)?;
        if MANIFEST.contains(&&*descriptor.media_type) {
            if !named.manifests.iter().any(|(known, _)| *known == digest) {
                named.manifests.push((digest, descriptor.platform));
            }
        } else if INDEX.contains(&&*descriptor.media_type) && !named.indexes.contains(&digest) {
            if depth == MAX_DEPTH {
                return Err(ImageError::document(what, "indexes within indexes, too deep"));
            }
            named.indexes.push(digest);
            match store.blob(&digest, MAX_BYTES) {
                Ok(bytes) => {
                    collect(store, &format!("index sha256:{digest}"), &bytes, depth + 1, named)?;
                }
                Err(error) => {
                    named.absent.push(Absent { platform: descriptor.platform, error: only_absent(error)? });
                }
            }
        }
        if named.manifests.len() + named.indexes.len() > MAX_MANIFESTS {
            return Err(ImageError::document(what, format!("more than {MAX_MANIFESTS} images and indexes")));
        }
    }
    Ok(())
}

/// `None`: it is of something else, such as an attestation or a signature of an image.
fn image(store: &mut Store, manifest: Sha256) -> Result<Option<Image>, ImageError> {
    let what = format!("manifest sha256:{manifest}");
    let parsed: Manifest = read(&what, &store.blob(&manifest, MAX_BYTES)?)?;
    // A type that is not stated may be any.
    let is_layer = |layer: &Descriptor| {
        layer.media_type.is_empty() || LAYER.iter().any(|start| layer.media_type.starts_with(start))
    };
    let is_config = parsed.config.media_type.is_empty() || CONFIG.contains(&&*parsed.config.media_type);
    let layers = parsed.layers.unwrap_or_default();
    if !is_config || !layers.is_empty() && !layers.iter().any(is_layer) {
        return Ok(None);
    }
    let config = digest(&what, &parsed.config.digest)?;
    let layers: Vec<_> = layers.iter().map(|layer| digest(&what, &layer.digest)).collect::<Result<_, _>>()?;
    let what = format!("configuration sha256:{config}");
    let parsed: Config = read(&what, &store.blob(&config, MAX_BYTES)?)?;
    let platform = Platform { os: parsed.os, architecture: parsed.architecture };
    if platform.is_unknown() {
        return Ok(None);
    }
    let diff_ids: Vec<_> =
        parsed.rootfs.diff_ids.iter().flatten().map(|id| digest(&what, id)).collect::<Result<_, _>>()?;
    if diff_ids.len() != layers.len() || layers.len() > MAX_LAYERS {
        let (ids, blobs) = (diff_ids.len(), layers.len());
        let reason = format!("{ids} diff_ids for {blobs} layers; expected one each, at most {MAX_LAYERS}");
        return Err(ImageError::document(what, reason));
    }
    let created = parsed.created.as_deref().map(made).transpose();
    let created = created.map_err(|reason| ImageError::document(what, reason))?;
    Ok(Some(Image { manifest, config, platform, layers, diff_ids, created }))
}

/// When an image was made (RFC 3339), as its configuration says. The document repeats it, whatever it is, so that the same image gives the
/// same bytes.
fn made(text: &str) -> Result<SystemTime, String> {
    time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
        .map(SystemTime::from)
        .map_err(|error| format!("created {:?} is no time: {error}", shown(text)))
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
