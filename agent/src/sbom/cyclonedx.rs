//! CycloneDX 1.4 to 1.7, JSON (cyclonedx.org/docs/1.7/json).
//!
//! Files are the components of type `file`, and what trivy names in a property of a language package. Where cdxgen found a package
//! (`evidence.occurrences`) is a path of it without a digest: the component's own hashes are those of the package.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::checksum::{Checksums, CycloneDx};
use super::json::{self, Seen, Text, each};
use super::{Builder, Digests, Format, ImageIndex, Package, SbomError, created, shown, tool};

/// Versions that are read.
const VERSIONS: [&str; 4] = ["1.4", "1.5", "1.6", "1.7"];
/// The property that holds the path of the file a language package was found in (trivy, `pkg/sbom/cyclonedx/marshal.go`).
const FILE_PATH: &str = "aquasecurity:trivy:FilePath";

pub(super) fn parse(bytes: &[u8]) -> Result<ImageIndex, SbomError> {
    json::document(bytes, Format::CycloneDx, Document::default())?.index()
}

#[derive(Default)]
struct Document<'a> {
    builder: Builder,
    /// The component that the document is about.
    root: Option<Text<'a>>,
    compositions: Vec<Composition<'a>>,
}

#[derive(Deserialize)]
struct Component<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Option<Text<'a>>,
    #[serde(borrow, default)]
    purl: Option<Text<'a>>,
    #[serde(rename = "bom-ref", borrow, default)]
    reference: Option<Text<'a>>,
    #[serde(default)]
    hashes: Checksums<CycloneDx>,
    #[serde(borrow, default)]
    properties: Vec<Property<'a>>,
    #[serde(borrow, default)]
    evidence: Option<Evidence<'a>>,
    #[serde(borrow, default)]
    components: Vec<Component<'a>>,
}

#[derive(Deserialize)]
struct Property<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    value: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Evidence<'a> {
    #[serde(borrow, default)]
    occurrences: Vec<Occurrence<'a>>,
}

#[derive(Deserialize)]
struct Occurrence<'a> {
    #[serde(borrow)]
    location: Cow<'a, str>,
    /// Of a place in a source file.
    #[serde(default)]
    line: Option<IgnoredAny>,
}

impl Occurrence<'_> {
    /// Where a file of the image is. cdxgen also gives `PATH#LINE`, and paths within the source tree.
    fn path(&self) -> Option<&str> {
        let is_file = self.location.starts_with('/') && self.line.is_none() && !self.location.contains('#');
        is_file.then_some(&*self.location)
    }
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    timestamp: Option<Text<'a>>,
    #[serde(borrow, default)]
    component: Option<Component<'a>>,
    #[serde(borrow, default)]
    tools: Tools<'a>,
}

/// The first tool: of a list until 1.4, of an object's `components` since; both are allowed to this day.
#[derive(Default)]
struct Tools<'a>(Option<Tool<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Tools<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Tools<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of tools, or an object with components")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Tools(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let first = list.next_element()?;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Tools(first))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let (mut seen, mut found) = (Seen::default(), Tools(None));
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    match &*key {
                        "components" => {
                            seen.first("components")?;
                            found = map.next_value()?;
                        }
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(found)
            }
        }
        from.deserialize_any(Shape)
    }
}

#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Composition<'a> {
    #[serde(borrow)]
    aggregate: Cow<'a, str>,
    #[serde(borrow, default)]
    assemblies: Vec<Text<'a>>,
    #[serde(borrow, default)]
    dependencies: Vec<Text<'a>>,
}

impl<'a> Document<'a> {
    fn component(&mut self, component: &Component<'a>, owner: Option<u32>) -> Result<(), String> {
        self.properties(component);
        let inner = match &*component.kind {
            "file" => {
                self.file_component(component, owner)?;
                owner
            }
            // What an image is made of, but nothing that is installed in it.
            "container"
            | "operating-system"
            | "data"
            | "device"
            | "device-driver"
            | "machine-learning-model"
            | "cryptographic-asset" => owner,
            _ => Some(self.package(component)?),
        };
        component.components.iter().try_for_each(|component| self.component(component, inner))
    }

    fn properties(&mut self, component: &Component<'a>) {
        for property in &component.properties {
            self.builder.origin.add_property(&property.name, &property.value);
        }
    }

    fn file(&mut self, path: &str, digests: Digests, owner: Option<u32>) -> Result<(), String> {
        let number = self.builder.file(path.as_bytes(), digests).map_err(|error| error.to_string())?;
        if let Some(owner) = owner {
            self.builder.own(number, owner);
        }
        Ok(())
    }

    /// A file is at its name, unless that is none from the root and the document says where it was found.
    fn file_component(&mut self, component: &Component<'a>, owner: Option<u32>) -> Result<(), String> {
        let digests = component.hashes.0;
        let mut found = component.occurrences().filter_map(Occurrence::path).peekable();
        if component.name.starts_with('/') || found.peek().is_none() {
            self.file(&component.name, digests, owner)?;
        }
        found.try_for_each(|path| self.file(path, digests, owner))
    }

    fn package(&mut self, component: &Component<'a>) -> Result<u32, String> {
        let version = component.version.as_deref().unwrap_or_default();
        let purl = component.purl.as_deref().filter(|purl| !purl.is_empty());
        let package = self.builder.package(&Package { name: &component.name, version, purl });
        // trivy's hash is that of this file; the hashes of all others are those of the package as it was downloaded.
        if let Some(path) = component.properties.iter().find(|p| p.name == FILE_PATH) {
            self.file(&path.value, component.hashes.0, Some(package))?;
        }
        for path in component.occurrences().filter_map(Occurrence::path) {
            self.file(path, Digests::default(), Some(package))?;
        }
        Ok(package)
    }

    fn metadata(&mut self, metadata: Metadata<'a>) -> Result<(), String> {
        if let Some(time) = &metadata.timestamp {
            self.builder.created = Some(created("metadata.timestamp", time)?);
        }
        self.builder.tool = metadata.tools.0.map(|tool| tool::named(&tool.name, &tool.version));
        if let Some(component) = metadata.component {
            self.properties(&component);
            self.builder.origin.add_purl(component.purl.as_deref().unwrap_or_default());
            // Its own parts, but not the image itself.
            component.components.iter().try_for_each(|part| self.component(part, None))?;
            self.root = component.reference;
        }
        Ok(())
    }

    fn index(mut self) -> Result<ImageIndex, SbomError> {
        // `aggregate: complete` of the whole, or of the component that the document is about (specification, `compositions`):
        // no further constituents are known to exist. Whoever also says otherwise claims nothing.
        let mut claims = self
            .compositions
            .iter()
            .filter(|composition| composition.is_about(self.root.as_ref()))
            .peekable();
        self.builder.complete = claims.peek().is_some() && claims.all(|claim| claim.aggregate == "complete");
        self.builder.formats.push(Format::CycloneDx);
        self.builder.finish()
    }
}

impl Component<'_> {
    fn occurrences(&self) -> impl Iterator<Item = &Occurrence<'_>> {
        self.evidence.iter().flat_map(|evidence| &evidence.occurrences)
    }
}

impl Composition<'_> {
    fn is_about(&self, root: Option<&Text<'_>>) -> bool {
        let of_all = self.assemblies.is_empty() && self.dependencies.is_empty();
        of_all || root.is_some_and(|root| self.assemblies.iter().any(|assembly| **assembly == **root))
    }
}

impl<'de> Visitor<'de> for Document<'de> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a CycloneDX document")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = Seen::default();
        let (mut format, mut version) = (false, false);
        while let Some(key) = map.next_key::<Text<'de>>()? {
            match &*key {
                "bomFormat" => {
                    seen.first("bomFormat")?;
                    let found: Text<'de> = map.next_value()?;
                    if &*found != "CycloneDX" {
                        return Err(A::Error::custom(format_args!(
                            "bomFormat {:?}; expected CycloneDX",
                            shown(&found)
                        )));
                    }
                    format = true;
                }
                "specVersion" => {
                    seen.first("specVersion")?;
                    let found: Text<'de> = map.next_value()?;
                    if !VERSIONS.contains(&&*found) {
                        return Err(A::Error::custom(format_args!(
                            "specVersion {:?}; expected 1.4 to 1.7",
                            shown(&found)
                        )));
                    }
                    version = true;
                }
                "metadata" => {
                    seen.first("metadata")?;
                    self.metadata(map.next_value()?).map_err(A::Error::custom)?;
                }
                "components" => {
                    seen.first("components")?;
                    map.next_value_seed(each(|component| self.component(&component, None)))?;
                }
                "compositions" => {
                    seen.first("compositions")?;
                    self.compositions = map.next_value()?;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match (format, version) {
            (true, true) => Ok(self),
            (false, _) => Err(A::Error::missing_field("bomFormat")),
            (true, false) => Err(A::Error::missing_field("specVersion")),
        }
    }
}
