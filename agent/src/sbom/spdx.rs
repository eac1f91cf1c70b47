//! SPDX 2.2 and 2.3, JSON (spdx.github.io/spdx-spec/v2.3).

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};

use super::checksum::{Checksums, Spdx2};
use super::graph::Graph;
use super::json::{self, Few, IdList, Loose, Maybe, Object, Seen, Text, each};
use super::{Builder, Format, ImageIndex, Package as Named, SbomError, created, shown, tool};

pub(super) fn parse(bytes: &[u8]) -> Result<ImageIndex, SbomError> {
    let Document { mut builder, graph } = json::document(bytes, Format::Spdx2, Document::of(bytes))?;
    graph.own(&mut builder);
    builder.formats.push(Format::Spdx2);
    builder.finish()
}

struct Document<'a> {
    builder: Builder,
    graph: Graph<Text<'a>>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(rename = "SPDXID", borrow)]
    id: Text<'a>,
    #[serde(rename = "fileName", borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    checksums: Checksums<Spdx2>,
    #[serde(borrow, default)]
    comment: Loose<'a>,
}

#[derive(Deserialize)]
struct Package<'a> {
    #[serde(rename = "SPDXID", borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(rename = "versionInfo", borrow, default)]
    version: Loose<'a>,
    /// SPDX 2.2.
    #[serde(rename = "hasFiles", borrow, default)]
    has_files: IdList<'a>,
    #[serde(rename = "externalRefs", borrow, default)]
    references: Few<Object<Reference<'a>>>,
    /// trivy's, until 0.50.
    #[serde(rename = "attributionTexts", borrow, default)]
    attributions: Few<Loose<'a>>,
    /// trivy's, since.
    #[serde(borrow, default)]
    annotations: Few<Object<Annotation<'a>>>,
    #[serde(rename = "primaryPackagePurpose", borrow, default)]
    purpose: Loose<'a>,
}

#[derive(Deserialize)]
struct Reference<'a> {
    #[serde(rename = "referenceType", borrow, default)]
    kind: Loose<'a>,
    #[serde(rename = "referenceLocator", borrow, default)]
    locator: Loose<'a>,
}

#[derive(Deserialize)]
struct Annotation<'a> {
    #[serde(borrow, default)]
    comment: Loose<'a>,
}

#[derive(Deserialize)]
struct Relationship<'a> {
    #[serde(rename = "spdxElementId", borrow, default)]
    from: Loose<'a>,
    #[serde(rename = "relationshipType", borrow, default)]
    kind: Loose<'a>,
    #[serde(rename = "relatedSpdxElement", borrow, default)]
    to: Loose<'a>,
}

#[derive(Deserialize)]
struct CreationInfo<'a> {
    #[serde(borrow, default)]
    creators: Few<Loose<'a>>,
    #[serde(borrow, default)]
    created: Loose<'a>,
    #[serde(borrow, default)]
    comment: Loose<'a>,
}

/// What `muster sbom generate` writes into `creationInfo.comment` when every file that can run is listed.
pub(super) const COMPLETE: &str = "muster: complete";

/// What stands for the image itself, or for its distribution, and is nothing that is installed in it. Of a directory, which is
/// how BuildKit has images scanned, syft says so in the identifier only.
pub(super) fn is_root(id: &str, purpose: &str) -> bool {
    matches!(purpose, "CONTAINER" | "OPERATING-SYSTEM" | "OPERATING_SYSTEM")
        || id.starts_with("SPDXRef-DocumentRoot-")
}

impl<'a> Document<'a> {
    fn of(bytes: &[u8]) -> Self {
        Self { builder: Builder::default(), graph: Graph::of_document(bytes) }
    }

    fn file(&mut self, file: File<'a>) -> Result<(), String> {
        self.builder.origin.add_comment(&file.comment);
        self.graph.file(&mut self.builder, file.id, &file.name, file.checksums.usable()?).map(|_| ())
    }

    fn package(&mut self, package: Package<'a>) {
        let comments = package.annotations.0.iter().map(|Object(annotation)| &*annotation.comment);
        for text in package.attributions.0.iter().map(|text| &**text).chain(comments) {
            self.builder.origin.add_attribution(text);
        }
        self.builder.kinds.count(match &*package.purpose {
            "DEVICE" => "device",
            "FIRMWARE" => "firmware",
            _ => "",
        });
        let purl = package.references.0.iter().find(|Object(reference)| &*reference.kind == "purl");
        let purl = purl.and_then(|Object(reference)| reference.locator.0.as_deref());
        let named = if is_root(&package.id, &package.purpose) {
            self.builder.origin.add_purl(purl.unwrap_or_default());
            None
        } else {
            Some(Named { name: &package.name, version: &package.version, purl })
        };
        self.graph.contains_all(package.id.clone(), package.has_files.all);
        self.graph.package(&mut self.builder, package.id, named.as_ref());
    }

    fn relationship(&mut self, Relationship { from, kind, to }: Relationship<'a>) {
        let contained = match &*kind {
            "CONTAINS" => (from, to),
            "CONTAINED_BY" => (to, from),
            _ => return,
        };
        if let (Loose(Some(package)), Loose(Some(file))) = contained {
            self.graph.contains(package, file);
        }
    }

    fn creation(&mut self, info: &CreationInfo<'a>) {
        self.builder.created = created(&info.created);
        self.builder.tool = info.creators.0.iter().find_map(|creator| tool::of_creator(creator));
        self.builder.complete = &*info.comment == COMPLETE;
    }
}

impl<'de> Visitor<'de> for Document<'de> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an SPDX document")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = Seen::default();
        let mut version = false;
        while let Some(key) = map.next_key::<Text<'de>>()? {
            match &*key {
                "spdxVersion" => {
                    seen.first("spdxVersion")?;
                    let found: Text<'de> = map.next_value()?;
                    if !matches!(&*found, "SPDX-2.2" | "SPDX-2.3") {
                        return Err(A::Error::custom(format_args!(
                            "spdxVersion {:?}; expected SPDX-2.2 or SPDX-2.3",
                            shown(&found)
                        )));
                    }
                    version = true;
                }
                "files" => {
                    seen.first("files")?;
                    map.next_value_seed(each(|Object(file)| self.file(file)))?;
                }
                "packages" => {
                    seen.first("packages")?;
                    map.next_value_seed(each(|Object(package)| {
                        self.package(package);
                        Ok::<(), A::Error>(())
                    }))?;
                }
                "relationships" => {
                    seen.first("relationships")?;
                    map.next_value_seed(each(|Object(relationship)| {
                        self.relationship(relationship);
                        Ok::<(), A::Error>(())
                    }))?;
                }
                "creationInfo" => {
                    seen.first("creationInfo")?;
                    if let Maybe(Some(info)) = map.next_value()? {
                        self.creation(&info);
                    }
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if version { Ok(self) } else { Err(A::Error::missing_field("spdxVersion")) }
    }
}
