//! syft-json, schemas 6 to 16 (github.com/anchore/syft, `schema/json`).

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::checksum::{Checksums, Syft};
use super::graph::Graph;
use super::json::{self, AnyShape, Few, Loose, Maybe, Object, Seen, Text, any, each};
use super::recorded::{self, Metadata};
use super::{Builder, Format, ImageIndex, Package, SbomError, shown, tool};
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
    #[serde(borrow)]
    location: Object<Location<'a>>,
    #[serde(borrow, default)]
    metadata: Maybe<FileMetadata<'a>>,
    #[serde(default)]
    digests: Checksums<Syft>,
}

#[derive(Deserialize)]
struct Location<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
    #[serde(rename = "layerID", borrow, default)]
    layer: Loose<'a>,
}

#[derive(Deserialize)]
struct FileMetadata<'a> {
    /// Before schema 3.0 it had a capital.
    #[serde(rename = "type", alias = "Type", borrow, default)]
    kind: Kind<'a>,
}

/// What kind of file it is.
#[derive(Default)]
enum Kind<'a> {
    #[default]
    Unknown,
    Named(Cow<'a, str>),
    /// Of stereoscope's enumeration, or that of tar (`'0'`).
    Number(u64),
}

impl<'de> AnyShape<'de> for Kind<'de> {
    fn text(text: Cow<'de, str>) -> Self {
        Self::Named(text)
    }
    fn number(number: u64) -> Self {
        Self::Number(number)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Kind<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        any::<Kind<'de>, D>(from)
    }
}

impl Kind<'_> {
    /// Only what has content can run. Symbolic links come with their target as a file of its own.
    fn has_content(&self) -> bool {
        match self {
            Self::Unknown => true,
            Self::Named(name) => matches!(&**name, "RegularFile" | "HardLink" | ""),
            // Regular and hard link, in either.
            Self::Number(number) => matches!(number, 0 | 1 | 48 | 49),
        }
    }
}

#[derive(Deserialize)]
struct Artifact<'a> {
    #[serde(borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Loose<'a>,
    #[serde(borrow, default)]
    purl: Loose<'a>,
    #[serde(borrow, default)]
    metadata: Maybe<Metadata<'a>>,
}

#[derive(Deserialize)]
struct Relationship<'a> {
    #[serde(borrow, default)]
    parent: Loose<'a>,
    #[serde(borrow, default)]
    child: Loose<'a>,
    #[serde(rename = "type", borrow, default)]
    kind: Loose<'a>,
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
    /// The base first.
    #[serde(borrow, default)]
    layers: Few<Object<Layer<'a>>>,
    /// The whole image configuration, base64.
    #[serde(borrow, default)]
    config: Loose<'a>,
    #[serde(borrow, default)]
    architecture: Loose<'a>,
}

#[derive(Deserialize)]
struct Layer<'a> {
    /// Of the unpacked layer (`diff_id`), whatever the media type says.
    #[serde(borrow, default)]
    digest: Loose<'a>,
}

#[derive(Deserialize)]
struct ImageConfig<'a> {
    #[serde(borrow, default)]
    architecture: Loose<'a>,
}

#[derive(Deserialize)]
struct Schema<'a> {
    #[serde(borrow)]
    version: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Descriptor<'a> {
    #[serde(borrow, default)]
    name: Loose<'a>,
    #[serde(borrow, default)]
    version: Loose<'a>,
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
    selection: Loose<'a>,
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
        let File { id, location: Object(location), metadata, digests } = file;
        if metadata.0.is_some_and(|metadata| !metadata.kind.has_content()) {
            return Ok(());
        }
        let digests = digests.usable()?;
        if let Some(number) = self.graph.file(&mut self.builder, id, &location.path, digests)? {
            self.builder.of_layer(number, &location.layer);
        }
        Ok(())
    }

    fn artifact(&mut self, artifact: Artifact<'a>) {
        let purl = artifact.purl.0.as_deref().filter(|purl| !purl.is_empty());
        let package = Package { name: &artifact.name, version: &artifact.version, purl };
        let number = self.graph.package(&mut self.builder, artifact.id, Some(&package));
        if let (Maybe(Some(metadata)), Some(number)) = (&artifact.metadata, number) {
            recorded::add(&mut self.builder, metadata, number);
        }
    }

    /// `manifestDigest` is left alone: see [`super::Origin`].
    fn source(&mut self, source: Source<'a>) {
        let Maybe(Some(Image { id: Some(id), layers, config, architecture })) = source.metadata else {
            return;
        };
        for Object(layer) in &layers.0 {
            self.builder.origin.add_layer(&layer.digest);
            self.builder.layers.push(&layer.digest);
        }
        let origin = &mut self.builder.origin;
        origin.architecture = architecture.0.filter(|name| !name.is_empty()).map(|name| name.to_string());
        let config = config.0.and_then(|config| STANDARD.decode(&*config).ok());
        if let Some(config) = config {
            // Where the document holds the configuration, its digest must be the image id.
            if *id != format!("sha256:{}", sha256(&config)) {
                return;
            }
            if let Ok(ImageConfig { architecture: Loose(Some(name)) }) = serde_json::from_slice(&config) {
                origin.architecture = Some(name.to_string());
            }
        }
        origin.add_config(&id);
    }

    fn descriptor(&mut self, descriptor: Descriptor<'a>) {
        self.builder.tool =
            (!descriptor.name.is_empty()).then(|| tool::named(&descriptor.name, &descriptor.version));
        let files = descriptor.configuration.0.and_then(|configuration| configuration.files.0);
        self.builder.complete = files.is_some_and(|files| &*files.selection == "all");
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
                    let Object(schema): Object<Schema<'de>> = map.next_value()?;
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
                    map.next_value_seed(each(|Object(file)| self.file(file)))?;
                }
                "artifacts" => {
                    seen.first("artifacts")?;
                    map.next_value_seed(each(|Object(artifact)| {
                        self.artifact(artifact);
                        Ok::<(), A::Error>(())
                    }))?;
                }
                "artifactRelationships" => {
                    seen.first("artifactRelationships")?;
                    map.next_value_seed(each(|Object(Relationship { parent, child, kind })| {
                        if let ("contains", Loose(Some(package)), Loose(Some(file))) = (&*kind, parent, child)
                        {
                            self.graph.contains(package, file);
                        }
                        Ok::<(), A::Error>(())
                    }))?;
                }
                "source" => {
                    seen.first("source")?;
                    if let Maybe(Some(source)) = map.next_value()? {
                        self.source(source);
                    }
                }
                "descriptor" => {
                    seen.first("descriptor")?;
                    if let Maybe(Some(descriptor)) = map.next_value()? {
                        self.descriptor(descriptor);
                    }
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if version { Ok(self) } else { Err(A::Error::missing_field("schema")) }
    }
}
