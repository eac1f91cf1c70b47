//! SPDX 2.2 and 2.3, JSON (spdx.github.io/spdx-spec/v2.3).

use std::borrow::Cow;
use std::fmt;

use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::checksum::{Checksums, Spdx2};
use super::each::each;
use super::{Builder, Digests, Format, ImageIndex, Package as Named, PathError, SbomError, canonical, tool};

pub(super) fn parse(bytes: &[u8]) -> Result<ImageIndex, SbomError> {
    let wrong = |error| SbomError::Content { format: Format::Spdx2, error };
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
    /// Package contains file; both by SPDX id, for ids may be used before they are made.
    contains: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(rename = "SPDXID", borrow)]
    id: Cow<'a, str>,
    #[serde(rename = "fileName", borrow)]
    name: Cow<'a, str>,
    #[serde(default)]
    checksums: Checksums<Spdx2>,
    #[serde(borrow, default)]
    comment: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Package<'a> {
    #[serde(rename = "SPDXID", borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(rename = "versionInfo", borrow, default)]
    version: Option<Cow<'a, str>>,
    /// SPDX 2.2.
    #[serde(rename = "hasFiles", borrow, default)]
    has_files: Vec<Cow<'a, str>>,
    #[serde(rename = "externalRefs", borrow, default)]
    references: Vec<Reference<'a>>,
    /// trivy's, until 0.50.
    #[serde(rename = "attributionTexts", borrow, default)]
    attributions: Vec<Cow<'a, str>>,
    /// trivy's, since.
    #[serde(borrow, default)]
    annotations: Vec<Annotation<'a>>,
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
    from: Cow<'a, str>,
    #[serde(rename = "relationshipType", borrow)]
    kind: Cow<'a, str>,
    #[serde(rename = "relatedSpdxElement", borrow)]
    to: Cow<'a, str>,
}

#[derive(Deserialize)]
struct CreationInfo<'a> {
    #[serde(borrow, default)]
    creators: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    created: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    comment: Option<Cow<'a, str>>,
}

/// What `muster sbom generate` writes into `creationInfo.comment` when every file that can run is listed.
pub(super) const COMPLETE: &str = "muster: complete";

impl<'a> Document<'a> {
    fn file<E: Error>(&mut self, file: File<'a>) -> Result<(), E> {
        // syft lists the root directory as a file with an empty name.
        if file.checksums.0 == Digests::default() && canonical(file.name.as_bytes()) == Err(PathError::Empty)
        {
            return Ok(());
        }
        let number = self.builder.file(file.name.as_bytes(), file.checksums.0).map_err(E::custom)?;
        if let Some(comment) = &file.comment {
            self.builder.origin.add_comment(comment);
        }
        match self.files.insert(file.id, number) {
            None => Ok(()),
            Some(_) => Err(E::custom(format_args!("the SPDXID of {:?} is used twice", file.name))),
        }
    }

    fn package(&mut self, package: Package<'a>) {
        let comments = package.annotations.iter().map(|annotation| &annotation.comment);
        for text in package.attributions.iter().chain(comments) {
            self.builder.origin.add_attribution(text);
        }
        let purl = package.references.iter().find(|r| r.kind == "purl").map(|r| &*r.locator);
        let version = package.version.as_deref().unwrap_or_default();
        let number = self.builder.package(&Named { name: &package.name, version, purl });
        for file in package.has_files {
            self.contains.push((package.id.clone(), file));
        }
        self.packages.insert(package.id, number);
    }

    fn relationship(&mut self, relationship: Relationship<'a>) {
        if relationship.kind == "CONTAINS" {
            self.contains.push((relationship.from, relationship.to));
        }
    }

    fn creation<E: Error>(&mut self, info: &CreationInfo<'a>) -> Result<(), E> {
        if let Some(created) = &info.created {
            let time = time::OffsetDateTime::parse(created, &time::format_description::well_known::Rfc3339)
                .map_err(|e| {
                E::custom(format_args!("creationInfo.created {created:?} is no time: {e}"))
            })?;
            self.builder.created = Some(time.into());
        }
        self.builder.tool = info.creators.iter().find_map(|creator| tool::of_creator(creator));
        self.builder.complete = info.comment.as_deref() == Some(COMPLETE);
        Ok(())
    }

    fn index(mut self) -> Result<ImageIndex, SbomError> {
        for (package, file) in &self.contains {
            if let (Some(package), Some(file)) = (self.packages.get(package), self.files.get(file)) {
                self.builder.own(*file, *package);
            }
        }
        self.builder.formats.push(Format::Spdx2);
        self.builder.finish()
    }
}

impl<'de> Visitor<'de> for Document<'de> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an SPDX document")
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
                "spdxVersion" => {
                    first(0, "spdxVersion")?;
                    let found: Cow<'de, str> = map.next_value()?;
                    if !matches!(&*found, "SPDX-2.2" | "SPDX-2.3") {
                        return Err(A::Error::custom(format_args!(
                            "spdxVersion {found:?}; expected SPDX-2.2 or SPDX-2.3"
                        )));
                    }
                    version = true;
                }
                "files" => {
                    first(1, "files")?;
                    map.next_value_seed(each(|file| self.file::<serde_json::Error>(file)))?;
                }
                "packages" => {
                    first(2, "packages")?;
                    map.next_value_seed(each(|package| {
                        self.package(package);
                        Ok::<(), A::Error>(())
                    }))?;
                }
                "relationships" => {
                    first(3, "relationships")?;
                    map.next_value_seed(each(|relationship| {
                        self.relationship(relationship);
                        Ok::<(), A::Error>(())
                    }))?;
                }
                "creationInfo" => {
                    first(4, "creationInfo")?;
                    self.creation(&map.next_value()?)?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        if version { Ok(self) } else { Err(A::Error::missing_field("spdxVersion")) }
    }
}
