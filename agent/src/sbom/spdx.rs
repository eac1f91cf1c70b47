//! SPDX 2.2 and 2.3, JSON (spdx.github.io/spdx-spec/v2.3).

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};

use super::checksum::{Checksums, Spdx2};
use super::graph::Graph;
use super::json::{self, Few, Ids, Seen, Text, each};
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
    comment: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Package<'a> {
    #[serde(rename = "SPDXID", borrow)]
    id: Text<'a>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(rename = "versionInfo", borrow, default)]
    version: Option<Text<'a>>,
    /// SPDX 2.2.
    #[serde(rename = "hasFiles", borrow, default)]
    has_files: Ids<'a>,
    #[serde(rename = "externalRefs", borrow, default)]
    references: Few<Reference<'a>>,
    /// trivy's, until 0.50.
    #[serde(rename = "attributionTexts", borrow, default)]
    attributions: Few<Text<'a>>,
    /// trivy's, since.
    #[serde(borrow, default)]
    annotations: Few<Annotation<'a>>,
    #[serde(rename = "primaryPackagePurpose", borrow, default)]
    purpose: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct Reference<'a> {
    #[serde(rename = "referenceType", borrow)]
    kind: Cow<'a, str>,
    #[serde(rename = "referenceLocator", borrow)]
    locator: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Annotation<'a> {
    #[serde(borrow, default)]
    comment: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Relationship<'a> {
    #[serde(rename = "spdxElementId", borrow)]
    from: Text<'a>,
    #[serde(rename = "relationshipType", borrow)]
    kind: Cow<'a, str>,
    #[serde(rename = "relatedSpdxElement", borrow)]
    to: Text<'a>,
}

#[derive(Deserialize)]
struct CreationInfo<'a> {
    #[serde(borrow, default)]
    creators: Few<Text<'a>>,
    #[serde(borrow, default)]
    created: Option<Text<'a>>,
    #[serde(borrow, default)]
    comment: Option<Text<'a>>,
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
        if let Some(comment) = &file.comment {
            self.builder.origin.add_comment(comment);
        }
        self.graph.file(&mut self.builder, file.id, &file.name, file.checksums.0).map(|_| ())
    }

    fn package(&mut self, package: Package<'a>) -> Result<(), String> {
        let comments = package.annotations.0.iter().map(|annotation| &*annotation.comment);
        for text in package.attributions.0.iter().map(|text| &**text).chain(comments) {
            self.builder.origin.add_attribution(text);
        }
        let purl = package.references.0.iter().find(|r| r.kind == "purl").map(|r| &*r.locator);
        let version = package.version.as_deref().unwrap_or_default();
        let number = if is_root(&package.id, package.purpose.as_deref().unwrap_or_default()) {
            self.builder.origin.add_purl(purl.unwrap_or_default());
            None
        } else {
            Some(self.builder.package(&Named { name: &package.name, version, purl }))
        };
        self.graph.contains_all(package.id.clone(), package.has_files.0);
        self.graph.package(package.id, &package.name, number)
    }

    fn relationship(&mut self, relationship: Relationship<'a>) {
        if relationship.kind == "CONTAINS" {
            self.graph.contains(relationship.from, relationship.to);
        }
    }

    fn creation(&mut self, info: &CreationInfo<'a>) -> Result<(), String> {
        if let Some(time) = &info.created {
            self.builder.created = Some(created("creationInfo.created", time)?);
        }
        self.builder.tool = info.creators.0.iter().find_map(|creator| tool::of_creator(creator));
        self.builder.complete = info.comment.as_deref() == Some(COMPLETE);
        Ok(())
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
                    map.next_value_seed(each(|file| self.file(file)))?;
                }
                "packages" => {
                    seen.first("packages")?;
                    map.next_value_seed(each(|package| self.package(package)))?;
                }
                "relationships" => {
                    seen.first("relationships")?;
                    map.next_value_seed(each(|relationship| {
                        self.relationship(relationship);
                        Ok::<(), A::Error>(())
                    }))?;
                }
                "creationInfo" => {
                    seen.first("creationInfo")?;
                    self.creation(&map.next_value()?).map_err(A::Error::custom)?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if version { Ok(self) } else { Err(A::Error::missing_field("spdxVersion")) }
    }
}
