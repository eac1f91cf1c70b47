//! SPDX 3.0, JSON-LD (spdx.github.io/spdx-spec/v3.0.1, serialization as `@context` and `@graph`; without `@graph` the document is one
//! element).
//!
//! Elements stand in any order and name each other by id, so the graph is read once and put together at its end. Where one is named, it may
//! also stand in place.

use std::collections::{HashMap, HashSet};

use super::checksum::Algorithm;
use super::graph::Graph;
use super::json::{self, Loose, Text};
use super::{Builder, Digests, Format, ImageIndex, Package, SbomError, created, shown, tool};
use context::Prefixes;
use element::{Element, Root};

mod context;
mod element;

pub(super) fn parse(bytes: &[u8]) -> Result<ImageIndex, SbomError> {
    let mut document = Document { graph: Graph::of_document(bytes), ..Document::default() };
    json::document(bytes, Format::Spdx3, Root(&mut document))?;
    document.index()
}

/// Names of tools that are kept.
const TOOLS: usize = 4096;

#[derive(Default)]
struct Document<'a> {
    builder: Builder,
    graph: Graph<Text<'a>>,
    contains: Vec<Contains<'a>>,
    /// What the document, and the SBOM in it, are about.
    roots: HashMap<Text<'a>, Vec<Text<'a>>>,
    documents: Vec<Text<'a>>,
    /// Tools by id.
    tools: Vec<(Text<'a>, Text<'a>)>,
    /// The tools that the first `CreationInfo` says were used.
    used: Vec<Text<'a>>,
    /// Digests that are elements of their own.
    hashes: HashMap<Text<'a>, (Algorithm, Text<'a>)>,
    /// Files that name such digests.
    hashed: Vec<(u32, Text<'a>)>,
    /// Package URLs that are elements of their own.
    purls: HashMap<Text<'a>, Text<'a>>,
    /// Packages that name their identifiers.
    identified: Vec<Identified<'a>>,
    prefixes: Prefixes<'a>,
}

struct Contains<'a> {
    from: Text<'a>,
    to: Vec<Text<'a>>,
    complete: bool,
}

/// A package whose package URL may be one of these identifiers.
struct Identified<'a> {
    package: PackageElement<'a>,
    by: Box<[Text<'a>]>,
}

/// What is read of a package.
struct PackageElement<'a> {
    id: Text<'a>,
    name: Text<'a>,
    version: Text<'a>,
    /// It stands for the image itself, or for its distribution, and is nothing that is installed in it.
    is_root: bool,
}

/// What is counted, by the class or the purpose of a package (specification, SoftwarePurpose).
fn kind(class: &str, purpose: &str) -> &'static str {
    match (class, purpose) {
        ("ai_AIPackage", _) | (_, "model") => "machine-learning-model",
        ("dataset_DatasetPackage", _) | (_, "data") => "data",
        (_, "device") => "device",
        (_, "deviceDriver") => "device-driver",
        (_, "firmware") => "firmware",
        _ => "",
    }
}

impl<'a> Document<'a> {
    fn element(&mut self, element: Element<'a>) -> Result<(), String> {
        match &*element.kind {
            "software_File" => self.file(element),
            // The latter two are packages, too.
            "software_Package" | "ai_AIPackage" | "dataset_DatasetPackage" => {
                self.package(element);
                Ok(())
            }
            "Relationship" if &*element.relationship == "contains" => {
                let complete = &*element.completeness == "complete";
                let from = element.from.ok_or("missing field `from`")?;
                self.contains.push(Contains { from, to: element.to.all, complete });
                Ok(())
            }
            "SpdxDocument" | "software_Sbom" => {
                let id = element.id.0.unwrap_or_default();
                if &*element.kind == "SpdxDocument" {
                    self.documents.push(id.clone());
                }
                self.roots.entry(id).or_default().extend(element.roots.all);
                Ok(())
            }
            "Tool" => {
                if let (Loose(Some(id)), Loose(Some(name))) = (element.id, element.name)
                    && self.tools.len() < TOOLS
                {
                    self.tools.push((id, name));
                }
                Ok(())
            }
            "CreationInfo" => {
                self.builder.created = self.builder.created.max(created(&element.created));
                if self.used.is_empty() {
                    self.used = element.used.all;
                }
                Ok(())
            }
            "ExternalIdentifier" => {
                if let ("packageUrl", Loose(Some(id)), Loose(Some(purl))) =
                    (&*element.identifier_kind, element.id, element.identifier)
                {
                    self.purls.insert(id, purl);
                }
                Ok(())
            }
            "Hash" => self.hash(element),
            // What else may verify an element (specification, IntegrityMethod), and is no digest of a content.
            "PackageVerificationCode" | "software_ContentIdentifier" => {
                if let Loose(Some(id)) = element.id {
                    self.hashes.insert(id, (Algorithm::Other, Text::default()));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn hash(&mut self, element: Element<'a>) -> Result<(), String> {
        let Loose(Some(id)) = element.id else { return Ok(()) };
        let (Loose(Some(algorithm)), Loose(Some(value))) = (element.algorithm, element.value) else {
            return Err("a digest needs algorithm and hashValue".to_owned());
        };
        let new = (Algorithm::named(&algorithm), value);
        match self.hashes.insert(id, new.clone()) {
            Some(known) if known != new => Err("two different digests have one id".to_owned()),
            _ => Ok(()),
        }
    }

    fn package(&mut self, element: Element<'a>) {
        self.builder.kinds.count(kind(&element.kind, &element.purpose));
        let package = PackageElement {
            id: element.id.0.unwrap_or_default(),
            name: element.name.0.unwrap_or_default(),
            version: element.version.0.unwrap_or_default(),
            is_root: matches!(&*element.purpose, "container" | "operatingSystem"),
        };
        match element.purl.0.or(element.identifiers.purl) {
            None if !element.identifiers.named.is_empty() => {
                let by = element.identifiers.named.into();
                self.identified.push(Identified { package, by });
            }
            purl => self.add_package(package, purl.as_deref()),
        }
    }

    fn add_package(&mut self, package: PackageElement<'a>, purl: Option<&str>) {
        let PackageElement { id, name, version, is_root } = package;
        if is_root {
            self.builder.origin.add_purl(purl.unwrap_or_default());
        }
        let package = Package { name: &name, version: &version, purl };
        self.graph.package(&mut self.builder, id, (!is_root).then_some(&package));
    }

    fn file(&mut self, element: Element<'a>) -> Result<(), String> {
        let name = element.name.0.ok_or("missing field `name`")?;
        if &*element.file_kind == "directory" {
            return Ok(());
        }
        self.builder.origin.add_comment(&element.comment);
        let id = element.id.0.unwrap_or_default();
        let digests = element.verified.digests.usable()?;
        let named = element.verified.named;
        if let Some(number) = self.graph.file(&mut self.builder, id, &name, digests)? {
            self.hashed.extend(named.into_iter().map(|hash| (number, hash)));
        }
        Ok(())
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

    /// The tool that made the document; of several of which it says nothing, none.
    fn tool(&self) -> Option<Box<str>> {
        let (_, name) = match (&*self.used, &*self.tools) {
            ([], [only]) => only,
            ([], _) => return None,
            (used, tools) => used.iter().find_map(|used| tools.iter().find(|(id, _)| id == used))?,
        };
        Some(tool::named(name, ""))
    }

    /// Takes the digests that files name.
    fn take_hashes(&mut self) -> Result<(), SbomError> {
        for (file, hash) in std::mem::take(&mut self.hashed) {
            let added = match self.hashes.get(&hash) {
                None => Err("is not in the document".to_owned()),
                Some((algorithm, value)) => {
                    let mut digests = Digests::default();
                    digests.add(*algorithm, value).and_then(|()| self.builder.add_digests(file, digests))
                }
            };
            added.map_err(|reason| {
                self.builder.wrong(file, format!("its digest {:?}: {reason}", shown(&hash)))
            })?;
        }
        Ok(())
    }

    /// Ids in their short form, where the context has one.
    fn shorten(&mut self) {
        let prefixes = std::mem::take(&mut self.prefixes);
        if prefixes.is_empty() {
            return;
        }
        let all = |ids: &mut Vec<Text<'a>>| ids.iter_mut().for_each(|id| prefixes.shorten(id));
        let short = |mut id: Text<'a>| {
            prefixes.shorten(&mut id);
            id
        };
        self.graph.rename(short);
        for Contains { from, to, .. } in &mut self.contains {
            prefixes.shorten(from);
            all(to);
        }
        all(&mut self.documents);
        all(&mut self.used);
        self.roots = std::mem::take(&mut self.roots)
            .into_iter()
            .map(|(id, mut roots)| {
                all(&mut roots);
                (short(id), roots)
            })
            .collect();
        self.tools.iter_mut().for_each(|(id, _)| prefixes.shorten(id));
        self.hashes =
            std::mem::take(&mut self.hashes).into_iter().map(|(id, hash)| (short(id), hash)).collect();
        self.purls =
            std::mem::take(&mut self.purls).into_iter().map(|(id, purl)| (short(id), purl)).collect();
        self.hashed.iter_mut().for_each(|(_, hash)| prefixes.shorten(hash));
        for Identified { package, by } in &mut self.identified {
            prefixes.shorten(&mut package.id);
            by.iter_mut().for_each(|id| prefixes.shorten(id));
        }
    }

    fn index(mut self) -> Result<ImageIndex, SbomError> {
        self.shorten();
        self.take_hashes()?;
        for Identified { package, by } in std::mem::take(&mut self.identified) {
            let purl = by.iter().find_map(|id| self.purls.get(id)).cloned();
            self.add_package(package, purl.as_deref());
        }
        self.builder.tool = self.tool();
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
