//! syft-json, schemas 6 to 16 (github.com/anchore/syft, `schema/json`).

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::checksum::{Algorithm, Checksums, Syft};
use super::each::each;
use super::{Builder, Digests, Format, ImageIndex, Package, SbomError, tool};
use crate::finding::Sha256;

pub(super) fn parse(bytes: &[u8]) -> Result<ImageIndex, SbomError> {
    let wrong = |error| SbomError::Content { format: Format::Syft, error };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let document = json.deserialize_map(Document::default()).map_err(wrong)?;
    json.end().map_err(wrong)?;
    document.index()
}

#[derive(Default)]
struct Document<'a> {
    builder: Builder,
    files: FxHashMap<Cow<'a, str>, u32>,
    packages: FxHashMap<Cow<'a, str>, u32>,
    contains: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    location: Location<'a>,
    #[serde(default)]
    metadata: Option<FileMetadata<'a>>,
    #[serde(default)]
    digests: Option<Checksums<Syft>>,
}

#[derive(Deserialize)]
struct Location<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
}

#[derive(Deserialize)]
struct FileMetadata<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Artifact<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    purl: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    metadata: Option<Metadata<'a>>,
}

/// Package metadata: only dpkg's and rpm's list their files as objects with digests; other shapes are of no use here.
#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    files: Option<Owned<'a>>,
}

/// `files` of package metadata: an array of objects with path and digest, or anything else.
struct Owned<'a>(Vec<OwnedFile<'a>>);

#[derive(Deserialize)]
struct OwnedFile<'a> {
    #[serde(borrow, default)]
    path: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    digest: Option<OwnedDigest<'a>>,
}

#[derive(Deserialize)]
struct OwnedDigest<'a> {
    #[serde(borrow)]
    algorithm: Cow<'a, str>,
    #[serde(borrow)]
    value: Cow<'a, str>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Owned<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Element<'a> {
            File(#[serde(borrow)] OwnedFile<'a>),
            Other(IgnoredAny),
        }
        let elements: Vec<Element<'a>> = Vec::deserialize(from)?;
        Ok(Self(
            elements
                .into_iter()
                .filter_map(|e| match e {
                    Element::File(file) => Some(file),
                    Element::Other(_) => None,
                })
                .collect(),
        ))
    }
}

#[derive(Deserialize)]
struct Relationship<'a> {
    #[serde(borrow)]
    parent: Cow<'a, str>,
    #[serde(borrow)]
    child: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

/// What was scanned: `metadata` since schema 7, `target` before. Of a directory it is a string.
#[derive(Deserialize)]
struct Source<'a> {
    #[serde(borrow, default, alias = "target")]
    metadata: Option<Target<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Target<'a> {
    #[serde(borrow)]
    Image(Image<'a>),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct Image<'a> {
    #[serde(rename = "imageID", borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    layers: Vec<Layer<'a>>,
    /// The whole image configuration, base64.
    #[serde(borrow, default)]
    config: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    architecture: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Layer<'a> {
    /// Of the unpacked layer (`diff_id`), whatever the media type says.
    #[serde(borrow)]
    digest: Cow<'a, str>,
}

#[derive(Deserialize)]
struct ImageConfig<'a> {
    #[serde(borrow, default)]
    architecture: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Schema<'a> {
    #[serde(borrow)]
    version: Cow<'a, str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Descriptor {
    name: Option<String>,
    version: Option<String>,
    configuration: Option<Configuration>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Configuration {
    files: Option<Selection>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Selection {
    selection: Option<String>,
}

fn sha256(bytes: &[u8]) -> Sha256 {
    let mut out = Sha256::default();
    out.0.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

impl<'a> Document<'a> {
    fn file<E: Error>(&mut self, file: File<'a>) -> Result<(), E> {
        // Only what has content can run. Symbolic links come with their target as a file of its own.
        let kind = file.metadata.and_then(|m| m.kind);
        if kind.is_some_and(|kind| !matches!(&*kind, "RegularFile" | "HardLink" | "")) {
            return Ok(());
        }
        let digests = file.digests.map_or_else(Digests::default, |d| d.0);
        let number = self.builder.file(file.location.path.as_bytes(), digests).map_err(E::custom)?;
        self.files.insert(file.id, number);
        Ok(())
    }

    fn artifact<E: Error>(&mut self, artifact: Artifact<'a>) -> Result<(), E> {
        let version = artifact.version.as_deref().unwrap_or_default();
        let purl = artifact.purl.as_deref().filter(|purl| !purl.is_empty());
        let package = self.builder.package(&Package { name: &artifact.name, version, purl });
        for owned in artifact.metadata.and_then(|m| m.files).map_or_else(Vec::new, |f| f.0) {
            let (Some(path), Some(digest)) = (owned.path, owned.digest) else { continue };
            let mut digests = Digests::default();
            // apk writes `'Q1'+base64(sha1)`, python base64: neither is hexadecimal, and neither is needed beside `files`.
            let algorithm = Algorithm::named(&digest.algorithm);
            if algorithm == Algorithm::Other || digest.value.is_empty() || !path.starts_with('/') {
                continue;
            }
            if digests.add(algorithm, &digest.value).is_ok() {
                // Kept only where `files` has no SHA-256 for the path: see `Builder::finish`.
                let digests = Digests { sha256: None, ..digests };
                let file = self.builder.file(path.as_bytes(), digests).map_err(E::custom)?;
                self.builder.own(file, package);
            }
        }
        self.packages.insert(artifact.id, package);
        Ok(())
    }

    /// `manifestDigest` is left alone: see [`super::Origin`].
    fn source(&mut self, source: Source<'a>) {
        let Some(Target::Image(image)) = source.metadata else { return };
        let origin = &mut self.builder.origin;
        for layer in &image.layers {
            origin.add_layer(&layer.digest);
        }
        origin.architecture = image.architecture.filter(|name| !name.is_empty()).map(Cow::into_owned);
        let config = image.config.and_then(|config| STANDARD.decode(&*config).ok());
        if let Some(config) = config {
            // Where the document holds the configuration, its digest must be the image id.
            if image.id != format!("sha256:{}", sha256(&config)) {
                return;
            }
            if let Ok(ImageConfig { architecture: Some(name) }) = serde_json::from_slice(&config) {
                origin.architecture = Some(name.into_owned());
            }
        }
        origin.add_config(&image.id);
    }

    fn index(mut self) -> Result<ImageIndex, SbomError> {
        for (package, file) in &self.contains {
            if let (Some(package), Some(file)) = (self.packages.get(package), self.files.get(file)) {
                self.builder.own(*file, *package);
            }
        }
        self.builder.formats.push(Format::Syft);
        self.builder.finish()
    }
}

impl<'de> Visitor<'de> for Document<'de> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a syft document")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = 0_u8;
        let mut first = |bit: u8, name: &'static str| {
            let again = seen & 1 << bit != 0;
            seen |= 1 << bit;
            if again { Err(A::Error::duplicate_field(name)) } else { Ok(()) }
        };
        let mut version = false;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "schema" => {
                    first(0, "schema")?;
                    let schema: Schema<'de> = map.next_value()?;
                    let major = schema.version.split('.').next().and_then(|m| m.parse::<u32>().ok());
                    if !major.is_some_and(|m| (6..=16).contains(&m)) {
                        return Err(A::Error::custom(format_args!(
                            "syft schema {:?}; expected 6 to 16",
                            schema.version
                        )));
                    }
                    version = true;
                }
                "files" => {
                    first(1, "files")?;
                    map.next_value_seed(each(|file| self.file::<serde_json::Error>(file)))?;
                }
                "artifacts" => {
                    first(2, "artifacts")?;
                    map.next_value_seed(each(|artifact| self.artifact::<serde_json::Error>(artifact)))?;
                }
                "artifactRelationships" => {
                    first(3, "artifactRelationships")?;
                    map.next_value_seed(each(|r: Relationship<'de>| {
                        if r.kind == "contains" {
                            self.contains.push((r.parent, r.child));
                        }
                        Ok::<(), A::Error>(())
                    }))?;
                }
                "source" => {
                    first(5, "source")?;
                    self.source(map.next_value()?);
                }
                "descriptor" => {
                    first(4, "descriptor")?;
                    let descriptor: Descriptor = map.next_value()?;
                    let version = descriptor.version.unwrap_or_default();
                    self.builder.tool = descriptor.name.map(|name| tool::named(&name, &version));
                    let configuration = descriptor.configuration.unwrap_or_default();
                    let selection = configuration.files.and_then(|f| f.selection);
                    self.builder.complete = selection.as_deref() == Some("all");
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if version { Ok(self) } else { Err(A::Error::missing_field("schema")) }
    }
}
