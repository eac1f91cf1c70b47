//! syft-json, schemas 6 to 16 (github.com/anchore/syft, `schema/json`).

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};

use super::checksum::{Checksums, Syft};
use super::graph::Graph;
use super::json::{self, Maybe, Seen, Text, each};
use super::recorded::{self, Metadata};
use super::{Builder, Digests, Format, ImageIndex, Package, SbomError, shown, tool};
use crate::finding::Sha256;

pub(super) fn parse(bytes: &[u8]) -> Result<ImageIndex, SbomError> {
    let Document { mut builder, graph } = json::document(bytes, Format::Syft, Document::of(bytes))?;
    graph.own(&mut builder);
    builder.formats.push(Format::Syft);
    builder.finish()
}

struct Document<'a> {
    builder: Builder,
    graph: Graph<Text<'a>>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow)]
    id: Text<'a>,
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
    kind: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Artifact<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Option<Text<'a>>,
    #[serde(borrow, default)]
    purl: Option<Text<'a>>,
    #[serde(borrow, default)]
    metadata: Maybe<Metadata<'a>>,
}

#[derive(Deserialize)]
struct Relationship<'a> {
    #[serde(borrow)]
    parent: Text<'a>,
    #[serde(borrow)]
    child: Text<'a>,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

/// What was scanned: `metadata` since schema 7, `target` before. Of a directory it is a string.
#[derive(Deserialize)]
struct Source<'a> {
    #[serde(borrow, default, alias = "target")]
    metadata: Maybe<Image<'a>>,
}

#[derive(Deserialize)]
struct Image<'a> {
    /// Of an image alone.
    #[serde(rename = "imageID", borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    layers: Vec<Layer<'a>>,
    /// The whole image configuration, base64.
    #[serde(borrow, default)]
    config: Option<Text<'a>>,
    #[serde(borrow, default)]
    architecture: Option<Text<'a>>,
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
    architecture: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Schema<'a> {
    #[serde(borrow)]
    version: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Descriptor<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Option<Text<'a>>,
    #[serde(borrow, default)]
    configuration: Maybe<Configuration<'a>>,
}

#[derive(Deserialize)]
struct Configuration<'a> {
    #[serde(borrow, default)]
    files: Maybe<Selection<'a>>,
}

#[derive(Deserialize)]
struct Selection<'a> {
    #[serde(borrow, default)]
    selection: Option<Text<'a>>,
}

fn sha256(bytes: &[u8]) -> Sha256 {
    let mut out = Sha256::default();
    out.0.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

impl<'a> Document<'a> {
    fn of(bytes: &[u8]) -> Self {
        Self { builder: Builder::default(), graph: Graph::of_document(bytes) }
    }

    fn file(&mut self, file: File<'a>) -> Result<(), String> {
        // Only what has content can run. Symbolic links come with their target as a file of its own.
        let kind = file.metadata.and_then(|m| m.kind);
        if kind.is_some_and(|kind| !matches!(&*kind, "RegularFile" | "HardLink" | "")) {
            return Ok(());
        }
        let digests = file.digests.map_or_else(Digests::default, |d| d.0);
        self.graph.file(&mut self.builder, file.id, &file.location.path, digests).map(|_| ())
    }

    fn artifact(&mut self, artifact: Artifact<'a>) -> Result<(), String> {
        let version = artifact.version.as_deref().unwrap_or_default();
        let purl = artifact.purl.as_deref().filter(|purl| !purl.is_empty());
        let package = self.builder.package(&Package { name: &artifact.name, version, purl });
        if let Maybe(Some(metadata)) = &artifact.metadata {
            recorded::add(&mut self.builder, metadata, package);
        }
        self.graph.package(artifact.id, &artifact.name, Some(package))
    }

    /// `manifestDigest` is left alone: see [`super::Origin`].
    fn source(&mut self, source: Source<'a>) {
        let Maybe(Some(Image { id: Some(id), layers, config, architecture })) = source.metadata else {
            return;
        };
        let origin = &mut self.builder.origin;
        for layer in &layers {
            origin.add_layer(&layer.digest);
        }
        origin.architecture = architecture.filter(|name| !name.is_empty()).map(|name| name.to_string());
        let config = config.and_then(|config| STANDARD.decode(&*config).ok());
        if let Some(config) = config {
            // Where the document holds the configuration, its digest must be the image id.
            if *id != format!("sha256:{}", sha256(&config)) {
                return;
            }
            if let Ok(ImageConfig { architecture: Some(name) }) = serde_json::from_slice(&config) {
                origin.architecture = Some(name.to_string());
            }
        }
        origin.add_config(&id);
    }

    fn descriptor(&mut self, descriptor: Descriptor<'a>) {
        self.builder.tool = (!descriptor.name.is_empty())
            .then(|| tool::named(&descriptor.name, descriptor.version.as_deref().unwrap_or_default()));
        let files = descriptor.configuration.0.and_then(|configuration| configuration.files.0);
        let selection = files.and_then(|files| files.selection);
        self.builder.complete = selection.as_deref() == Some("all");
    }
}

impl<'de> Visitor<'de> for Document<'de> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a syft document")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = Seen::default();
        let mut version = false;
        while let Some(key) = map.next_key::<Text<'de>>()? {
            match &*key {
                "schema" => {
                    seen.first("schema")?;
                    let schema: Schema<'de> = map.next_value()?;
                    let major = schema.version.split('.').next().and_then(|m| m.parse::<u32>().ok());
                    if !major.is_some_and(|m| (6..=16).contains(&m)) {
                        return Err(A::Error::custom(format_args!(
                            "syft schema {:?}; expected 6 to 16",
                            shown(&schema.version)
                        )));
                    }
                    version = true;
                }
                "files" => {
                    seen.first("files")?;
                    map.next_value_seed(each(|file| self.file(file)))?;
                }
                "artifacts" => {
                    seen.first("artifacts")?;
                    map.next_value_seed(each(|artifact| self.artifact(artifact)))?;
                }
                "artifactRelationships" => {
                    seen.first("artifactRelationships")?;
                    map.next_value_seed(each(|r: Relationship<'de>| {
                        if r.kind == "contains" {
                            self.graph.contains(r.parent, r.child);
                        }
                        Ok::<(), A::Error>(())
                    }))?;
                }
                "source" => {
                    seen.first("source")?;
                    self.source(map.next_value()?);
                }
                "descriptor" => {
                    seen.first("descriptor")?;
                    self.descriptor(map.next_value()?);
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if version { Ok(self) } else { Err(A::Error::missing_field("schema")) }
    }
}
