//! SPDX 3.0, JSON-LD (spdx.github.io/spdx-spec/v3.0.1, serialization as `@context` and `@graph`).
//!
//! Elements stand in any order and name each other by id, so the graph is read once and put together at its end.

use std::borrow::Cow;
use std::fmt;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::checksum::{Checksums, Spdx3};
use super::each::each;
use super::{Builder, Digests, Format, ImageIndex, Package, PathError, SbomError, canonical, tool};

pub(super) fn parse(bytes: &[u8]) -> Result<ImageIndex, SbomError> {
    let wrong = |error| SbomError::Content { format: Format::Spdx3, error };
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
    contains: Vec<Contains<'a>>,
    /// What the document, and the SBOM in it, are about.
    roots: FxHashMap<Cow<'a, str>, Vec<Cow<'a, str>>>,
    documents: Vec<Cow<'a, str>>,
}

struct Contains<'a> {
    from: Cow<'a, str>,
    to: Vec<Cow<'a, str>>,
    complete: bool,
}

/// The members of all types that are read.
#[derive(Deserialize)]
struct Element<'a> {
    #[serde(rename = "type", alias = "@type", borrow)]
    kind: Cow<'a, str>,
    #[serde(rename = "spdxId", alias = "@id", borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    comment: Option<Cow<'a, str>>,
    #[serde(rename = "verifiedUsing", default)]
    hashes: Checksums<Spdx3>,
    /// `Element/created` of CreationInfo.
    #[serde(borrow, default)]
    created: Option<Cow<'a, str>>,
    #[serde(rename = "software_fileKind", borrow, default)]
    file_kind: Option<Cow<'a, str>>,
    #[serde(rename = "software_packageVersion", borrow, default)]
    version: Option<Cow<'a, str>>,
    #[serde(rename = "software_packageUrl", borrow, default)]
    purl: Option<Cow<'a, str>>,
    #[serde(rename = "externalIdentifier", borrow, default)]
    identifiers: Vec<Identifier<'a>>,
    #[serde(borrow, default)]
    from: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    to: OneOrMore<'a>,
    #[serde(rename = "relationshipType", borrow, default)]
    relationship: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    completeness: Option<Cow<'a, str>>,
    #[serde(rename = "rootElement", borrow, default)]
    roots: OneOrMore<'a>,
}

#[derive(Deserialize)]
struct Identifier<'a> {
    #[serde(rename = "externalIdentifierType", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    identifier: Cow<'a, str>,
}

/// JSON-LD lets a list of one be written without brackets. What is no id (an element written in place) is left out.
#[derive(Default)]
struct OneOrMore<'a>(Vec<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for OneOrMore<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Ids;
        impl<'de> Visitor<'de> for Ids {
            type Value = OneOrMore<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id or an array of ids")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(OneOrMore::default())
            }
            fn visit_borrowed_str<E>(self, id: &'de str) -> Result<Self::Value, E> {
                Ok(OneOrMore(vec![Cow::Borrowed(id)]))
            }
            fn visit_str<E>(self, id: &str) -> Result<Self::Value, E> {
                Ok(OneOrMore(vec![Cow::Owned(id.to_owned())]))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(OneOrMore::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut ids = Vec::new();
                while let Some(OneOrMore(more)) = list.next_element()? {
                    ids.extend(more);
                }
                Ok(OneOrMore(ids))
            }
        }
        from.deserialize_any(Ids)
    }
}

impl<'a> Document<'a> {
    fn element<E: Error>(&mut self, element: Element<'a>) -> Result<(), E> {
        match &*element.kind {
            "software_File" => self.file(element),
            "software_Package" => {
                let purl = element.purl.as_deref().or_else(|| {
                    let named = element.identifiers.iter().find(|i| i.kind == "packageUrl");
                    named.map(|identifier| &*identifier.identifier)
                });
                let (name, version) = (element.name.unwrap_or_default(), element.version.unwrap_or_default());
                let number = self.builder.package(&Package { name: &name, version: &version, purl });
                if let Some(id) = element.id {
                    self.packages.insert(id, number);
                }
                Ok(())
            }
            "Relationship" if element.relationship.as_deref() == Some("contains") => {
                let from = element.from.ok_or_else(|| E::missing_field("from"))?;
                let complete = element.completeness.as_deref() == Some("complete");
                self.contains.push(Contains { from, to: element.to.0, complete });
                Ok(())
            }
            "SpdxDocument" | "software_Sbom" => {
                let id = element.id.ok_or_else(|| E::missing_field("spdxId"))?;
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
                let Some(created) = element.created else { return Ok(()) };
                let time =
                    time::OffsetDateTime::parse(&created, &time::format_description::well_known::Rfc3339)
                        .map_err(|e| E::custom(format_args!("created {created:?} is no time: {e}")))?;
                self.builder.created = self.builder.created.max(Some(time.into()));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn file<E: Error>(&mut self, element: Element<'a>) -> Result<(), E> {
        let name = element.name.ok_or_else(|| E::missing_field("name"))?;
        let digests = element.hashes.0;
        let is_root = digests == Digests::default() && canonical(name.as_bytes()) == Err(PathError::Empty);
        if is_root || element.file_kind.is_some_and(|kind| kind == "directory") {
            return Ok(());
        }
        if let Some(comment) = &element.comment {
            self.builder.origin.add_comment(comment);
        }
        let number = self.builder.file(name.as_bytes(), digests).map_err(E::custom)?;
        let id = element.id.ok_or_else(|| E::missing_field("spdxId"))?;
        match self.files.insert(id, number) {
            None => Ok(()),
            Some(_) => Err(E::custom(format_args!("the spdxId of {name:?} is used twice"))),
        }
    }

    /// Everything between the document and what it is about.
    fn root_elements(&self) -> FxHashSet<&Cow<'a, str>> {
        let mut found = FxHashSet::default();
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
        for Contains { from, to, .. } in &self.contains {
            let Some(package) = self.packages.get(from) else { continue };
            for file in to.iter().filter_map(|id| self.files.get(id)) {
                self.builder.own(*file, *package);
            }
        }
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
        let (mut context, mut graph) = (false, false);
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "@context" => {
                    if std::mem::replace(&mut context, true) {
                        return Err(A::Error::duplicate_field("@context"));
                    }
                    let OneOrMore(found) = map.next_value()?;
                    let is_known = |url: &Cow<'_, str>| url.contains("//spdx.org/rdf/3.0");
                    if !found.iter().any(is_known) {
                        return Err(A::Error::custom(format_args!(
                            "@context {:?}; expected https://spdx.org/rdf/3.0.…/spdx-context.jsonld",
                            found.first().map(|url| &**url).unwrap_or_default()
                        )));
                    }
                }
                "@graph" => {
                    if std::mem::replace(&mut graph, true) {
                        return Err(A::Error::duplicate_field("@graph"));
                    }
                    map.next_value_seed(each(|element| self.element::<serde_json::Error>(element)))?;
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
