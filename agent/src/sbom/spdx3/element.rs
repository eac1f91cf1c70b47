//! Reading elements. One that stands in place is taken as soon as it is read; what is left of it is its id.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Document;
use super::context::{Context, Contexts};
use crate::sbom::checksum::{Checksums, One, Spdx3};
use crate::sbom::json::{IdList, Loose, Text};

/// The members of all types that are read.
#[derive(Default)]
pub(super) struct Element<'a> {
    pub(super) kind: Loose<'a>,
    pub(super) id: Loose<'a>,
    pub(super) name: Loose<'a>,
    pub(super) comment: Loose<'a>,
    pub(super) file_kind: Loose<'a>,
    pub(super) purpose: Loose<'a>,
    pub(super) version: Loose<'a>,
    pub(super) purl: Loose<'a>,
    pub(super) relationship: Loose<'a>,
    pub(super) completeness: Loose<'a>,
    /// Of `CreationInfo`.
    pub(super) created: Loose<'a>,
    /// Of `Hash`.
    pub(super) algorithm: Loose<'a>,
    /// Of `Hash`.
    pub(super) value: Loose<'a>,
    /// Of `ExternalIdentifier`.
    pub(super) identifier_kind: Loose<'a>,
    /// Of `ExternalIdentifier`.
    pub(super) identifier: Loose<'a>,
    pub(super) verified: Verified<'a>,
    pub(super) identifiers: Identifiers<'a>,
    pub(super) from: Option<Text<'a>>,
    pub(super) to: IdList<'a>,
    pub(super) roots: IdList<'a>,
    /// Of `CreationInfo`: `createdUsing`.
    pub(super) used: IdList<'a>,
}

/// The keys that an element had, by bit, so that none is read twice.
#[derive(Default)]
struct Seen(u32);

impl Seen {
    fn first<E: Error>(&mut self, bit: u32, name: &'static str) -> Result<(), E> {
        if self.0 >> bit & 1 != 0 {
            return Err(E::duplicate_field(name));
        }
        self.0 |= 1 << bit;
        Ok(())
    }
}

impl<'a> Element<'a> {
    /// Reads the value of a key.
    fn member<A: MapAccess<'a>>(
        &mut self,
        key: &str,
        map: &mut A,
        seen: &mut Seen,
        document: &mut Document<'a>,
    ) -> Result<(), A::Error> {
        let (bit, name, text) = match key {
            "type" | "@type" => (0, "type", &mut self.kind),
            "spdxId" | "@id" => (1, "spdxId", &mut self.id),
            "name" => (2, "name", &mut self.name),
            "comment" => (3, "comment", &mut self.comment),
            "software_fileKind" => (4, "software_fileKind", &mut self.file_kind),
            "software_primaryPurpose" => (5, "software_primaryPurpose", &mut self.purpose),
            "software_packageVersion" => (6, "software_packageVersion", &mut self.version),
            "software_packageUrl" => (7, "software_packageUrl", &mut self.purl),
            "relationshipType" => (8, "relationshipType", &mut self.relationship),
            "completeness" => (9, "completeness", &mut self.completeness),
            "created" => (10, "created", &mut self.created),
            "algorithm" => (11, "algorithm", &mut self.algorithm),
            "hashValue" => (12, "hashValue", &mut self.value),
            "externalIdentifierType" => (13, "externalIdentifierType", &mut self.identifier_kind),
            "identifier" => (14, "identifier", &mut self.identifier),
            _ => return self.nested(key, map, seen, document),
        };
        seen.first(bit, name)?;
        *text = map.next_value()?;
        Ok(())
    }

    fn nested<A: MapAccess<'a>>(
        &mut self,
        key: &str,
        map: &mut A,
        seen: &mut Seen,
        document: &mut Document<'a>,
    ) -> Result<(), A::Error> {
        match key {
            "verifiedUsing" => {
                seen.first(15, "verifiedUsing")?;
                self.verified = map.next_value()?;
            }
            "externalIdentifier" => {
                seen.first(16, "externalIdentifier")?;
                self.identifiers = map.next_value()?;
            }
            "from" => {
                seen.first(17, "from")?;
                self.from = Some(map.next_value_seed(Place(document))?.unwrap_or_default());
            }
            "to" => {
                seen.first(18, "to")?;
                map.next_value_seed(Places(document, Some(&mut self.to)))?;
            }
            "rootElement" => {
                seen.first(19, "rootElement")?;
                map.next_value_seed(Places(document, Some(&mut self.roots)))?;
            }
            "createdUsing" => {
                seen.first(20, "createdUsing")?;
                map.next_value_seed(Places(document, Some(&mut self.used)))?;
            }
            "element" | "creationInfo" => map.next_value_seed(Places(document, None))?,
            _ => drop(map.next_value::<IgnoredAny>()?),
        }
        Ok(())
    }
}

/// Reads the members of an element and takes it. Gives its id, and whether it has a type: without one it is nothing.
fn read<'de, A: MapAccess<'de>>(
    document: &mut Document<'de>,
    mut map: A,
) -> Result<(Option<Text<'de>>, bool), A::Error> {
    let (mut element, mut seen) = (Element::default(), Seen::default());
    while let Some(key) = map.next_key::<Text<'de>>()? {
        element.member(&key, &mut map, &mut seen, document)?;
    }
    let (id, has_type) = (element.id.0.clone(), element.kind.0.is_some());
    document.element(element).map_err(A::Error::custom)?;
    Ok((id, has_type))
}

/// Reads an element of the graph.
struct Member<'b, 'a>(&'b mut Document<'a>);

impl<'de> DeserializeSeed<'de> for Member<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Member<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an element")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        match read(self.0, map)? {
            (_, true) => Ok(()),
            (_, false) => Err(A::Error::missing_field("type")),
        }
    }
}

/// Reads an id, or an element in its place.
struct Place<'b, 'a>(&'b mut Document<'a>);

impl<'de> DeserializeSeed<'de> for Place<'_, 'de> {
    type Value = Option<Text<'de>>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_, 'de> {
    type Value = Option<Text<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an id or an element")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_borrowed_str<E>(self, id: &'de str) -> Result<Self::Value, E> {
        Ok(Some(Text(Cow::Borrowed(id))))
    }

    fn visit_str<E>(self, id: &str) -> Result<Self::Value, E> {
        Ok(Some(Text(Cow::Owned(id.to_owned()))))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        read(self.0, map).map(|(id, _)| id)
    }
}

/// Reads a list of such, or one without brackets, and keeps the ids if they are wanted.
struct Places<'b, 'a>(&'b mut Document<'a>, Option<&'b mut IdList<'a>>);

impl<'a> Places<'_, 'a> {
    fn keep<E: Error>(&mut self, id: Option<Text<'a>>) -> Result<(), E> {
        match (&mut self.1, id) {
            (Some(ids), Some(id)) => ids.push(id).map_err(E::custom),
            _ => Ok(()),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Places<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Places<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ids or elements")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_borrowed_str<E: Error>(mut self, id: &'de str) -> Result<(), E> {
        self.keep(Some(Text(Cow::Borrowed(id))))
    }

    fn visit_str<E: Error>(mut self, id: &str) -> Result<(), E> {
        self.keep(Some(Text(Cow::Owned(id.to_owned()))))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> Result<(), A::Error> {
        let (id, _) = read(self.0, map)?;
        self.keep(id)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(id) = list.next_element_seed(Place(self.0))? {
            self.keep(id)?;
        }
        Ok(())
    }
}

/// What stands in place, or is named, in a list of what is no element by itself.
enum InPlace<'a, T> {
    Here(T),
    Named(Text<'a>),
    Nothing,
}

/// What is read of it in place.
trait Members<'de>: Sized {
    fn members<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error>;
}

impl<'de, T: Members<'de>> Deserialize<'de> for InPlace<'de, T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Shape<T>(std::marker::PhantomData<T>);
        impl<'de, T: Members<'de>> Visitor<'de> for Shape<T> {
            type Value = InPlace<'de, T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an id or an object")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(InPlace::Nothing)
            }
            fn visit_borrowed_str<E>(self, id: &'de str) -> Result<Self::Value, E> {
                Ok(InPlace::Named(Text(Cow::Borrowed(id))))
            }
            fn visit_str<E>(self, id: &str) -> Result<Self::Value, E> {
                Ok(InPlace::Named(Text(Cow::Owned(id.to_owned()))))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::members(map).map(InPlace::Here)
            }
        }
        from.deserialize_any(Shape(std::marker::PhantomData))
    }
}

/// Lists of these, of which few name what they mean: an element has a digest of each algorithm, and an identifier of each kind.
const NAMED: usize = 16;

/// `verifiedUsing`.
#[derive(Default)]
pub(super) struct Verified<'a> {
    pub(super) digests: Checksums<Spdx3>,
    pub(super) named: Vec<Text<'a>>,
}

impl<'de> Members<'de> for One<'de, Spdx3> {
    fn members<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        Self::members(map)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Verified<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (mut digests, mut named) = (Checksums::default(), Vec::new());
        crate::sbom::json::each(|hash: InPlace<'de, One<'de, Spdx3>>| match hash {
            InPlace::Here(one) => digests.add(one),
            InPlace::Named(id) => add(&mut named, id),
            InPlace::Nothing => Ok(()),
        })
        .deserialize(from)?;
        Ok(Self { digests, named })
    }
}

/// `externalIdentifier`.
#[derive(Default)]
pub(super) struct Identifiers<'a> {
    /// The first package URL that stands in place.
    pub(super) purl: Option<Text<'a>>,
    pub(super) named: Vec<Text<'a>>,
}

#[derive(Deserialize)]
struct Identifier<'a> {
    #[serde(rename = "externalIdentifierType", borrow, default)]
    kind: Loose<'a>,
    #[serde(borrow, default)]
    identifier: Loose<'a>,
}

impl<'de> Members<'de> for Identifier<'de> {
    fn members<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        Self::deserialize(MapAccessDeserializer::new(map))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Identifiers<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (mut purl, mut named) = (None, Vec::new());
        crate::sbom::json::each(|identifier: InPlace<'de, Identifier<'de>>| match identifier {
            InPlace::Here(Identifier { kind, identifier }) if purl.is_none() && &*kind == "packageUrl" => {
                purl = identifier.0;
                Ok(())
            }
            InPlace::Named(id) => add(&mut named, id),
            InPlace::Here(_) | InPlace::Nothing => Ok(()),
        })
        .deserialize(from)?;
        Ok(Self { purl, named })
    }
}

fn add<'a>(named: &mut Vec<Text<'a>>, id: Text<'a>) -> Result<(), String> {
    if named.len() == NAMED {
        return Err(format!("more than {NAMED} references in this list"));
    }
    named.push(id);
    Ok(())
}

/// Reads the document: a context with a graph, or with one element.
pub(super) struct Root<'b, 'a>(pub(super) &'b mut Document<'a>);

impl<'de> Visitor<'de> for Root<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an SPDX 3 document")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(document) = self;
        let (mut element, mut seen) = (Element::default(), Seen::default());
        let (mut context, mut graph) = (None, false);
        while let Some(key) = map.next_key::<Text<'de>>()? {
            match &*key {
                "@context" => {
                    seen.first(30, "@context")?;
                    let mut found = Context::default();
                    map.next_value_seed(Contexts(&mut found))?;
                    if !found.known {
                        return Err(A::Error::custom(format_args!(
                            "@context {:?}; expected https://spdx.org/rdf/3.0.…/spdx-context.jsonld",
                            found.first.as_deref().unwrap_or_default()
                        )));
                    }
                    context = Some(found);
                }
                "@graph" => {
                    seen.first(31, "@graph")?;
                    map.next_value_seed(Graph(document))?;
                    graph = true;
                }
                key => element.member(key, &mut map, &mut seen, document)?,
            }
        }
        document.prefixes = context.ok_or_else(|| A::Error::missing_field("@context"))?.prefixes;
        match element.kind.0.is_some() {
            _ if graph => Ok(()),
            true => document.element(element).map_err(A::Error::custom),
            false => Err(A::Error::missing_field("@graph")),
        }
    }
}

/// Reads the graph.
struct Graph<'b, 'a>(&'b mut Document<'a>);

impl<'de> DeserializeSeed<'de> for Graph<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Graph<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of elements")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Member(self.0))?.is_some() {}
        Ok(())
    }
}
