//! CycloneDX 1.4 to 1.7, JSON (cyclonedx.org/docs/1.7/json).
//!
//! Files are the components of type `file`, and what trivy names in a property of a language package. Where cdxgen found a package
//! (`evidence.occurrences`) is a path of it without a digest: the component's own hashes are those of the package.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::checksum::{Checksums, CycloneDx};
use super::each::each;
use super::{Builder, Digests, Format, ImageIndex, Package, SbomError, tool};

/// Versions that are read.
const VERSIONS: [&str; 4] = ["1.4", "1.5", "1.6", "1.7"];
/// The property that holds the path of the file a language package was found in (trivy, `pkg/sbom/cyclonedx/marshal.go`).
const FILE_PATH: &str = "aquasecurity:trivy:FilePath";

pub(super) fn parse(bytes: &[u8]) -> Result<ImageIndex, SbomError> {
    let wrong = |error| SbomError::Content { format: Format::CycloneDx, error };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let document = json.deserialize_map(Document::default()).map_err(wrong)?;
    json.end().map_err(wrong)?;
    document.index()
}

#[derive(Default)]
struct Document<'a> {
    builder: Builder,
    /// The component that the document is about.
    root: Option<Cow<'a, str>>,
    compositions: Vec<Composition<'a>>,
}

#[derive(Deserialize)]
struct Component<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    purl: Option<Cow<'a, str>>,
    #[serde(rename = "bom-ref", borrow, default)]
    reference: Option<Cow<'a, str>>,
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
}

#[derive(Deserialize)]
struct Metadata<'a> {
    #[serde(borrow, default)]
    timestamp: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    component: Option<Component<'a>>,
    #[serde(borrow, default)]
    tools: Option<Tools<'a>>,
}

/// A list until 1.4, an object since; both are allowed to this day.
#[derive(Deserialize)]
#[serde(untagged)]
enum Tools<'a> {
    #[serde(borrow)]
    List(Vec<Tool<'a>>),
    #[serde(borrow)]
    Object(ToolComponents<'a>),
}

#[derive(Deserialize)]
struct ToolComponents<'a> {
    #[serde(borrow, default)]
    components: Vec<Tool<'a>>,
}

#[derive(Deserialize)]
struct Tool<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    version: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Composition<'a> {
    #[serde(borrow)]
    aggregate: Cow<'a, str>,
    #[serde(borrow, default)]
    assemblies: Vec<Cow<'a, str>>,
    #[serde(borrow, default)]
    dependencies: Vec<Cow<'a, str>>,
}

impl<'a> Document<'a> {
    fn component<E: Error>(&mut self, component: &Component<'a>, owner: Option<u32>) -> Result<(), E> {
        for property in &component.properties {
            self.builder.origin.add_property(&property.name, &property.value);
        }
        let mut file = |path: &str, digests, owner: Option<u32>| {
            let number = self.builder.file(path.as_bytes(), digests).map_err(E::custom)?;
            if let Some(owner) = owner {
                self.builder.own(number, owner);
            }
            Ok(())
        };
        let mut inner = owner;
        match &*component.kind {
            "file" => file(&component.name, component.hashes.0, owner)?,
            // What an image is made of, but nothing that is installed in it.
            "operating-system"
            | "data"
            | "device"
            | "device-driver"
            | "machine-learning-model"
            | "cryptographic-asset" => {}
            _ => {
                let version = component.version.as_deref().unwrap_or_default();
                let purl = component.purl.as_deref();
                let package = self.builder.package(&Package { name: &component.name, version, purl });
                inner = Some(package);
                let mut file = |path: &str, digests| {
                    let number = self.builder.file(path.as_bytes(), digests).map_err(E::custom)?;
                    self.builder.own(number, package);
                    Ok(())
                };
                if let Some(path) = component.properties.iter().find(|p| p.name == FILE_PATH) {
                    file(&path.value, component.hashes.0)?;
                }
                let occurrences = component.evidence.iter().flat_map(|evidence| &evidence.occurrences);
                for occurrence in occurrences.filter(|o| o.location.starts_with('/')) {
                    // `PATH#LINE` is a place in a source file.
                    let path = occurrence.location.split('#').next().unwrap_or_default();
                    file(path, Digests::default())?;
                }
            }
        }
        component.components.iter().try_for_each(|component| self.component(component, inner))
    }

    fn metadata<E: Error>(&mut self, metadata: Metadata<'a>) -> Result<(), E> {
        if let Some(timestamp) = &metadata.timestamp {
            let time = time::OffsetDateTime::parse(timestamp, &time::format_description::well_known::Rfc3339)
                .map_err(|e| E::custom(format_args!("metadata.timestamp {timestamp:?} is no time: {e}")))?;
            self.builder.created = Some(time.into());
        }
        let tools = match metadata.tools {
            Some(Tools::List(tools) | Tools::Object(ToolComponents { components: tools })) => tools,
            None => Vec::new(),
        };
        self.builder.tool = tools.first().map(|tool| tool::named(&tool.name, &tool.version));
        if let Some(component) = metadata.component {
            for property in &component.properties {
                self.builder.origin.add_property(&property.name, &property.value);
            }
            // Its own parts, but not the image itself.
            for part in &component.components {
                self.component(part, None)?;
            }
            self.root = component.reference;
        }
        Ok(())
    }

    fn index(mut self) -> Result<ImageIndex, SbomError> {
        // `aggregate: complete` of the whole, or of the component that the document is about (specification, `compositions`):
        // no further constituents are known to exist.
        self.builder.complete = self.compositions.iter().any(|composition| {
            let of_all = composition.assemblies.is_empty() && composition.dependencies.is_empty();
            let of_root = self.root.as_ref().is_some_and(|root| composition.assemblies.contains(root));
            composition.aggregate == "complete" && (of_all || of_root)
        });
        self.builder.formats.push(Format::CycloneDx);
        self.builder.finish()
    }
}

impl<'de> Visitor<'de> for Document<'de> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a CycloneDX document")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = 0_u8;
        let mut first = |bit: u8, name: &'static str| {
            let again = seen & 1 << bit != 0;
            seen |= 1 << bit;
            if again { Err(A::Error::duplicate_field(name)) } else { Ok(()) }
        };
        let (mut format, mut version) = (false, false);
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            match &*key {
                "bomFormat" => {
                    first(0, "bomFormat")?;
                    let found: Cow<'de, str> = map.next_value()?;
                    if found != "CycloneDX" {
                        return Err(A::Error::custom(format_args!(
                            "bomFormat {found:?}; expected CycloneDX"
                        )));
                    }
                    format = true;
                }
                "specVersion" => {
                    first(1, "specVersion")?;
                    let found: Cow<'de, str> = map.next_value()?;
                    if !VERSIONS.contains(&&*found) {
                        return Err(A::Error::custom(format_args!(
                            "specVersion {found:?}; expected 1.4 to 1.7"
                        )));
                    }
                    version = true;
                }
                "metadata" => {
                    first(2, "metadata")?;
                    self.metadata(map.next_value()?)?;
                }
                "components" => {
                    first(3, "components")?;
                    map.next_value_seed(each(|component| {
                        self.component::<serde_json::Error>(&component, None)
                    }))?;
                }
                "compositions" => {
                    first(4, "compositions")?;
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
