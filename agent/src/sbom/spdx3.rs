//! SPDX 3.0, JSON-LD (spdx.github.io/spdx-spec/v3.0.1, serialization as `@context` and `@graph`).
//!
//! Elements stand in any order and name each other by id, so the graph is read once and put together at its end.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};

use super::checksum::{Checksums, Spdx3};
use super::graph::Graph;
use super::json::{self, Few, Ids, Seen, Text, each};
use super::{Builder, Format, ImageIndex, Package, SbomError, created, shown, tool};

pub(super) fn parse(bytes: &[u8]) -> Result<ImageIndex, SbomError> {
    json::document(
        bytes,
        Format::Spdx3,
        Document { graph: Graph::of_document(bytes), ..Document::default() },
    )?
    .index()
}

#[derive(Default)]
struct Document<'a> {
    builder: Builder,
    graph: Graph<Text<'a>>,
    contains: Vec<Contains<'a>>,
    /// What the document, and the SBOM in it, are about.
    roots: HashMap<Text<'a>, Vec<Text<'a>>>,
    documents: Vec<Text<'a>>,
}

struct Contains<'a> {
    from: Text<'a>,
    to: Vec<Text<'a>>,
    complete: bool,
}

/// The members of all types that are read.
#[derive(Deserialize)]
struct Element<'a> {
    #[serde(rename = "type", alias = "@type", borrow)]
    kind: Cow<'a, str>,
    #[serde(rename = "spdxId", alias = "@id", borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow, default)]
    name: Option<Text<'a>>,
    #[serde(borrow, default)]
    comment: Option<Text<'a>>,
    #[serde(rename = "verifiedUsing", default)]
    hashes: Checksums<Spdx3>,
    /// `Element/created` of CreationInfo.
    #[serde(borrow, default)]
    created: Option<Text<'a>>,
    #[serde(rename = "software_fileKind", borrow, default)]
    file_kind: Option<Text<'a>>,
    #[serde(rename = "software_primaryPurpose", borrow, default)]
    purpose: Option<Text<'a>>,
    #[serde(rename = "software_packageVersion", borrow, default)]
    version: Option<Text<'a>>,
    #[serde(rename = "software_packageUrl", borrow, default)]
    purl: Option<Text<'a>>,
    #[serde(rename = "externalIdentifier", borrow, default)]
    identifiers: Few<Identifier<'a>>,
    #[serde(borrow, default)]
    from: Option<Text<'a>>,
    #[serde(borrow, default)]
    to: Ids<'a, Id<'a>>,
    #[serde(rename = "relationshipType", borrow, default)]
    relationship: Option<Text<'a>>,
    #[serde(borrow, default)]
    completeness: Option<Text<'a>>,
    #[serde(rename = "rootElement", borrow, default)]
    roots: Ids<'a, Id<'a>>,
}

#[derive(Deserialize)]
struct Identifier<'a> {
    #[serde(rename = "externalIdentifierType", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    identifier: Cow<'a, str>,
}

/// An id, or an element written in place, which nothing else can name.
enum Id<'a> {
    Of(Text<'a>),
    InPlace,
}

impl<'de: 'a, 'a> Deserialize<'de> for Id<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Id<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id or an element")
            }
            fn visit_borrowed_str<E>(self, id: &'de str) -> Result<Self::Value, E> {
                Ok(Id::Of(Text(Cow::Borrowed(id))))
            }
            fn visit_str<E>(self, id: &str) -> Result<Self::Value, E> {
                Ok(Id::Of(Text(Cow::Owned(id.to_owned()))))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Id::InPlace)
            }
        }
        from.deserialize_any(Shape)
    }
}

impl<'a> From<Id<'a>> for Option<Text<'a>> {
    fn from(id: Id<'a>) -> Self {
        match id {
            Id::Of(text) => Some(text),
            Id::InPlace => None,
        }
    }
}

impl<'a> Document<'a> {
    fn element(&mut self, element: Element<'a>) -> Result<(), String> {
        match &*element.kind {
            "software_File" => self.file(element),
            "software_Package" => self.package(element),
            "Relationship" if element.relationship.as_deref() == Some("contains") => {
                let from = element.from.ok_or("missing field `from`")?;
                let complete = element.completeness.as_deref() == Some("complete");
                self.contains.push(Contains { from, to: element.to.0, complete });
                Ok(())
            }
            "SpdxDocument" | "software_Sbom" => {
                let id = element.id.ok_or("missing field `spdxId`")?;
                if element.kind == "SpdxDocument" {
                    self.documents.push(id.clone());
                }
                self.roots.entry(id).or_default().extend(element.roots.0);
                Ok(())
            }
            "Tool" if self.builder.tool.is_none() => {
                self.builder.tool = element.name.as_deref().map(|name| tool::named(name, ""));
                Ok(())
            }
            "CreationInfo" => {
                let Some(time) = element.created else { return Ok(()) };
                self.builder.created = self.builder.created.max(Some(created("created", &time)?));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn package(&mut self, element: Element<'a>) -> Result<(), String> {
        let purl = element.purl.as_deref().or_else(|| {
            let named = element.identifiers.0.iter().find(|i| i.kind == "packageUrl");
            named.map(|identifier| &*identifier.identifier)
        });
        let (name, version) = (element.name.unwrap_or_default(), element.version.unwrap_or_default());
        // What stands for the image itself, or for its distribution, is nothing that is installed in it.
        let number = if matches!(element.purpose.as_deref(), Some("container" | "operatingSystem")) {
            self.builder.origin.add_purl(purl.unwrap_or_default());
            None
        } else {
            Some(self.builder.package(&Package { name: &name, version: &version, purl }))
        };
        match element.id {
            Some(id) => self.graph.package(id, &name, number),
            None => Ok(()),
        }
    }

    fn file(&mut self, element: Element<'a>) -> Result<(), String> {
        let name = element.name.ok_or("missing field `name`")?;
        if element.file_kind.is_some_and(|kind| &*kind == "directory") {
            return Ok(());
        }
        if let Some(comment) = &element.comment {
            self.builder.origin.add_comment(comment);
        }
        let id = element.id.ok_or("missing field `spdxId`")?;
        self.graph.file(&mut self.builder, id, &name, element.hashes.0).map(|_| ())
    }

    /// Everything between the document and what it is about.
    fn root_elements(&self) -> HashSet<&Text<'a>> {
        let mut found = HashSet::new();
        let mut open: Vec<_> = self.documents.iter().collect();
        while let Some(id) = open.pop() {
            if found.insert(id) {
                open.extend(self.roots.get(id).into_iter().flatten());
            }
        }
        found
    }

    fn index(mut self) -> Result<ImageIndex, SbomError> {
        // `completeness: complete` of a `contains` (specification, RelationshipCompleteness): the list is exhaustive.
        let roots = self.root_elements();
        let mut of_root = self.contains.iter().filter(|contains| roots.contains(&contains.from)).peekable();
        self.builder.complete = of_root.peek().is_some() && of_root.all(|contains| contains.complete);
        for Contains { from, to, .. } in std::mem::take(&mut self.contains) {
            self.graph.contains_all(from, to);
        }
        self.graph.own(&mut self.builder);
        self.builder.formats.push(Format::Spdx3);
        self.builder.finish()
    }
}

impl<'de> Visitor<'de> for Document<'de> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an SPDX 3 document")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = Seen::default();
        let (mut context, mut graph) = (false, false);
        while let Some(key) = map.next_key::<Text<'de>>()? {
            match &*key {
                "@context" => {
                    seen.first("@context")?;
                    let found = map.next_value::<Ids<'de, Id<'de>>>()?;
                    let mut urls = found.0.iter();
                    if !urls.clone().any(|url| url.contains("//spdx.org/rdf/3.0")) {
                        return Err(A::Error::custom(format_args!(
                            "@context {:?}; expected https://spdx.org/rdf/3.0.…/spdx-context.jsonld",
                            urls.next().map_or("", |url| shown(url))
                        )));
                    }
                    context = true;
                }
                "@graph" => {
                    seen.first("@graph")?;
                    map.next_value_seed(each(|element| self.element(element)))?;
                    graph = true;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match (context, graph) {
            (true, true) => Ok(self),
            (false, _) => Err(A::Error::missing_field("@context")),
            (true, false) => Err(A::Error::missing_field("@graph")),
        }
    }
}
