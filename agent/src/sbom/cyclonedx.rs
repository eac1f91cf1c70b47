//! CycloneDX 1.2 to 1.7, JSON (cyclonedx.org/docs/1.7/json).
//!
//! Files are the components of type `file`, and what trivy names in a property of a language package. Where cdxgen found a package
//! (`evidence.occurrences`) is a path of it without a digest: the component's own hashes are those of the package.
//!
//! The specification says nothing of what the name of a file is. One from the root is its path; so is one with directories, but not
//! within another component (cyclonedx-gomod: files of a module). Any other is only a name, and the path may stand elsewhere.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::checksum::{Checksums, CycloneDx};
use super::json::{self, Few, Loose, Maybe, Object, Seen, Text, each};
use super::{
    Builder, Digests, Format, ImageIndex, Package, PathError, SbomError, canonical, created, shown, tool,
};

/// Versions that are read. JSON there has been since 1.2.
const VERSIONS: [&str; 6] = ["1.2", "1.3", "1.4", "1.5", "1.6", "1.7"];
/// The property that holds the path of the file a language package was found in (trivy, `pkg/sbom/cyclonedx/marshal.go`).
const FILE_PATH: &str = "aquasecurity:trivy:FilePath";
/// The property that holds the path of a file, of which cdxgen writes only the base name as its name.
const SOURCE_FILE: &str = "SrcFile";

/// What one composition may be about, and all together that stand before the `metadata` in the document.
const ASSEMBLIES: usize = 1 << 16;

pub(super) fn parse(bytes: &[u8]) -> Result<ImageIndex, SbomError> {
    json::document(bytes, Format::CycloneDx, Document::default())?.index()
}

#[derive(Default)]
struct Document<'a> {
    builder: Builder,
    /// The component that the document is about.
    root: Option<Text<'a>>,
    claims: Claims<'a>,
    /// Components that the one which is read is within.
    depth: u32,
}

/// A component without those within it.
#[derive(Default)]
struct Component<'a> {
    kind: Cow<'a, str>,
    name: Cow<'a, str>,
    version: Option<Text<'a>>,
    purl: Option<Text<'a>>,
    reference: Option<Text<'a>>,
    hashes: Checksums<CycloneDx>,
    /// The first [`FILE_PATH`].
    file_path: Option<Text<'a>>,
    /// The first [`SOURCE_FILE`].
    source_file: Option<Text<'a>>,
    evidence: Evidence<'a>,
}

impl<'a> Component<'a> {
    /// Where the file is, if the document says so. A relative name is one from the root unless it is `within` another component.
    fn paths(&mut self, within: bool) -> Vec<Cow<'a, str>> {
        let name = &self.name;
        if name.starts_with('/') {
            return vec![std::mem::take(&mut self.name)];
        }
        let found = std::mem::take(&mut self.evidence.occurrences.0);
        if !found.is_empty() {
            return found;
        }
        let source = self.source_file.take().filter(|path| path.starts_with('/'));
        let relative = || (!within && name.contains('/')).then(|| name.clone());
        source.map(|path| path.0).or_else(relative).into_iter().collect()
    }
}

#[derive(Deserialize)]
struct Property<'a> {
    #[serde(borrow, default)]
    name: Loose<'a>,
    #[serde(borrow, default)]
    value: Loose<'a>,
}

#[derive(Default, Deserialize)]
struct Evidence<'a> {
    #[serde(borrow, default)]
    occurrences: Occurrences<'a>,
}

/// Paths where a component was found.
#[derive(Default)]
struct Occurrences<'a>(Vec<Cow<'a, str>>);

impl<'de: 'a, 'a> Deserialize<'de> for Occurrences<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut paths = Vec::new();
        each(|Object(occurrence): Object<Occurrence<'de>>| {
            paths.extend(occurrence.path());
            Ok::<(), D::Error>(())
        })
        .deserialize(from)?;
        Ok(Self(paths))
    }
}

#[derive(Deserialize)]
struct Occurrence<'a> {
    #[serde(borrow, default)]
    location: Loose<'a>,
    /// Of a place in a source file.
    #[serde(default)]
    line: Option<IgnoredAny>,
}

impl<'a> Occurrence<'a> {
    /// Where a file of the image is. cdxgen also gives `PATH#LINE`, and paths within the source tree.
    fn path(self) -> Option<Cow<'a, str>> {
        let is_file = self.location.starts_with('/') && self.line.is_none() && !self.location.contains('#');
        self.location.0.filter(|_| is_file).map(|location| location.0)
    }
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
                let first = list.next_element::<Maybe<Tool<'de>>>()?;
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Tools(first.and_then(|Maybe(first)| first)))
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
    name: Loose<'a>,
    #[serde(borrow, default)]
    version: Loose<'a>,
}

#[derive(Deserialize)]
struct Composition<'a> {
    #[serde(borrow, default)]
    aggregate: Loose<'a>,
    #[serde(borrow, default)]
    assemblies: Few<Text<'a>, ASSEMBLIES>,
    #[serde(default)]
    dependencies: Few<IgnoredAny, ASSEMBLIES>,
}

/// What is claimed of the whole, or of the component that the document is about.
#[derive(Default)]
struct Claims<'a> {
    complete: bool,
    otherwise: bool,
    /// Of other components, or of that one if only a later part of the document names it.
    of: Vec<(Text<'a>, bool)>,
}

impl<'a> Claims<'a> {
    fn add(&mut self, composition: Composition<'a>, root: Option<&Text<'a>>) -> Result<(), String> {
        let Composition { aggregate, assemblies, dependencies } = composition;
        let complete = &*aggregate == "complete";
        if assemblies.0.is_empty() && dependencies.0.is_empty() {
            self.claim(complete);
        }
        for assembly in assemblies.0 {
            match root {
                None if self.of.len() == ASSEMBLIES => {
                    return Err(format!(
                        "more than {ASSEMBLIES} assemblies before the component that they belong to"
                    ));
                }
                None => self.of.push((assembly, complete)),
                Some(root) if assembly == *root => self.claim(complete),
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn claim(&mut self, complete: bool) {
        self.complete |= complete;
        self.otherwise |= !complete;
    }
}

impl<'a> Document<'a> {
    /// Takes a component whose inner ones, which have made the files from `first` on, are taken already.
    fn component(&mut self, component: Component<'a>, first: u32) -> Result<(), String> {
        self.builder.kinds.count(&component.kind);
        match &*component.kind {
            "file" => self.file_component(component),
            // What an image is made of, but nothing that is installed in it.
            "container" | "operating-system" | "device" | "device-driver" | "cryptographic-asset" => Ok(()),
            // What programs read. Its digests are those of a file if the document says where that is.
            "data" | "machine-learning-model" => self.data(component),
            _ => {
                let package = self.package(component)?;
                // Those that a package within it owns stay its own.
                for file in first..self.builder.next_file() {
                    self.builder.own(file, package);
                }
                Ok(())
            }
        }
    }

    /// Adds a file; not the root directory, which a tool names that has scanned a directory.
    fn file(&mut self, path: &str, digests: Digests) -> Result<(), String> {
        if digests == Digests::default() && canonical(path.as_bytes()) == Err(PathError::Empty) {
            return Ok(());
        }
        self.builder.file(path.as_bytes(), digests).map(drop).map_err(|error| error.to_string())
    }

    fn file_component(&mut self, mut component: Component<'a>) -> Result<(), String> {
        let digests = std::mem::take(&mut component.hashes).usable()?;
        if component.name.starts_with('/') {
            return self.file(&component.name, digests);
        }
        let paths = component.paths(self.depth > 0);
        if paths.is_empty() {
            self.builder.contents.extend(digests.sha256);
        }
        paths.iter().try_for_each(|path| self.file(path, digests))
    }

    fn data(&mut self, mut component: Component<'a>) -> Result<(), String> {
        let paths = component.paths(true);
        if paths.is_empty() {
            return Ok(());
        }
        match component.hashes.usable()? {
            digests if digests == Digests::default() => Ok(()),
            digests => paths.iter().try_for_each(|path| self.file(path, digests)),
        }
    }

    fn package(&mut self, component: Component<'a>) -> Result<u32, String> {
        let version = component.version.as_deref().unwrap_or_default();
        let purl = component.purl.as_deref().filter(|purl| !purl.is_empty());
        let package = self.builder.package(&Package { name: &component.name, version, purl });
        // trivy's hash is that of this file; the hashes of all others are those of the package as it was downloaded.
        if let Some(path) = component.file_path {
            self.file(&path, component.hashes.usable()?)?;
        }
        component.evidence.occurrences.0.iter().try_for_each(|path| self.file(path, Digests::default()))?;
        Ok(package)
    }

    fn index(mut self) -> Result<ImageIndex, SbomError> {
        // `aggregate: complete` of the whole, or of the component that the document is about (specification, `compositions`):
        // no further constituents are known to exist. Whoever also says otherwise claims nothing.
        for (of, complete) in std::mem::take(&mut self.claims.of) {
            if self.root.as_ref() == Some(&of) {
                self.claims.claim(complete);
            }
        }
        self.builder.complete = self.claims.complete && !self.claims.otherwise;
        self.builder.formats.push(Format::CycloneDx);
        self.builder.finish()
    }
}

/// Reads the `metadata`.
struct Metadata<'b, 'a>(&'b mut Document<'a>);

impl<'de> DeserializeSeed<'de> for Metadata<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Metadata<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the metadata of the document")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(document) = self;
        let mut seen = Seen::default();
        while let Some(key) = map.next_key::<Text<'de>>()? {
            match &*key {
                "timestamp" => {
                    seen.first("timestamp")?;
                    document.builder.created = created(&map.next_value::<Loose<'de>>()?);
                }
                "component" => {
                    seen.first("component")?;
                    // Its own parts, but not the image itself.
                    if let Some(component) = map.next_value_seed(Root(document))? {
                        document.builder.origin.add_purl(component.purl.as_deref().unwrap_or_default());
                        document.root = component.reference;
                    }
                }
                "tools" => {
                    seen.first("tools")?;
                    let Tools(found) = map.next_value()?;
                    let found = found.filter(|tool| !tool.name.is_empty());
                    document.builder.tool = found.map(|tool| tool::named(&tool.name, &tool.version));
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Reads the component that the document is about, which may be `null`.
struct Root<'b, 'a>(&'b mut Document<'a>);

impl<'de> DeserializeSeed<'de> for Root<'_, 'de> {
    type Value = Option<Component<'de>>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Root<'_, 'de> {
    type Value = Option<Component<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a component")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        One(self.0).deserialize(from).map(Some)
    }
}

/// Reads components and takes each as soon as it is read.
struct Components<'b, 'a>(&'b mut Document<'a>);

impl<'de> DeserializeSeed<'de> for Components<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Components<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of components")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self(document) = self;
        loop {
            let first = document.builder.next_file();
            let Some(component) = list.next_element_seed(One(document))? else { break };
            document.component(component, first).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

/// Reads a component. Those within it are taken, and its properties; not itself.
struct One<'b, 'a>(&'b mut Document<'a>);

impl<'de> DeserializeSeed<'de> for One<'_, 'de> {
    type Value = Component<'de>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for One<'_, 'de> {
    type Value = Component<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a component")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let Self(document) = self;
        let mut found = Component::default();
        let mut seen = Keys::default();
        while let Some(key) = map.next_key::<Text<'de>>()? {
            match &*key {
                "type" => {
                    seen.first(1, "type")?;
                    found.kind = map.next_value::<Text<'de>>()?.0;
                }
                "name" => {
                    seen.first(1 << 1, "name")?;
                    found.name = map.next_value::<Text<'de>>()?.0;
                }
                "version" => {
                    seen.first(1 << 2, "version")?;
                    found.version = map.next_value()?;
                }
                "purl" => {
                    seen.first(1 << 3, "purl")?;
                    found.purl = map.next_value()?;
                }
                "bom-ref" => {
                    seen.first(1 << 4, "bom-ref")?;
                    found.reference = map.next_value()?;
                }
                "hashes" => {
                    seen.first(1 << 5, "hashes")?;
                    found.hashes = map.next_value()?;
                }
                "properties" => {
                    seen.first(1 << 6, "properties")?;
                    map.next_value_seed(each(|Object(property): Object<Property<'de>>| {
                        document.builder.origin.add_property(&property.name, &property.value);
                        match &*property.name {
                            FILE_PATH if found.file_path.is_none() => found.file_path = property.value.0,
                            SOURCE_FILE if found.source_file.is_none() => {
                                found.source_file = property.value.0;
                            }
                            _ => {}
                        }
                        Ok::<(), A::Error>(())
                    }))?;
                }
                "evidence" => {
                    seen.first(1 << 7, "evidence")?;
                    found.evidence = map.next_value::<Maybe<Evidence<'de>>>()?.0.unwrap_or_default();
                }
                "components" => {
                    seen.first(1 << 8, "components")?;
                    document.depth += 1;
                    map.next_value_seed(Components(document))?;
                    document.depth -= 1;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match seen.0 & 3 {
            3 => Ok(found),
            2 => Err(A::Error::missing_field("type")),
            _ => Err(A::Error::missing_field("name")),
        }
    }
}

/// The keys of a component that are read. There are many components, so this is a number.
#[derive(Default)]
struct Keys(u16);

impl Keys {
    #[inline]
    fn first<E: Error>(&mut self, bit: u16, name: &'static str) -> Result<(), E> {
        if self.0 & bit != 0 {
            return Err(E::duplicate_field(name));
        }
        self.0 |= bit;
        Ok(())
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
                            "specVersion {:?}; expected 1.2 to 1.7",
                            shown(&found)
                        )));
                    }
                    version = true;
                }
                "metadata" => {
                    seen.first("metadata")?;
                    map.next_value_seed(Metadata(&mut self))?;
                }
                "components" => {
                    seen.first("components")?;
                    map.next_value_seed(Components(&mut self))?;
                }
                "compositions" => {
                    seen.first("compositions")?;
                    let Self { claims, root, .. } = &mut self;
                    map.next_value_seed(each(|Object(composition)| claims.add(composition, root.as_ref())))?;
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
