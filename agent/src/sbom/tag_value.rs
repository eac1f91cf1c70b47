//! SPDX 2.2 and 2.3, tag-value: lines of `Tag: value`, where a value between `<text>` and `</text>` may have several lines
//! (specification 2.3, clause 6.1 and annex on tag-value). Files that follow a package are contained in it.

use super::checksum::Algorithm;
use super::graph::Graph;
use super::spdx::{COMPLETE, is_root};
use super::{Builder, Digests, Format, ImageIndex, Package, SbomError, created, shown, tool};

pub(super) fn parse(bytes: &[u8]) -> Result<ImageIndex, SbomError> {
    let refuse = |line: usize, reason: String| SbomError::Line { format: Format::SpdxTagValue, line, reason };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        refuse(memchr::memchr_iter(b'\n', before).count() + 1, "not UTF-8".to_owned())
    })?;
    let mut document = Document::default();
    let mut lines = Lines { text, at: 0, line: 0 };
    let result = loop {
        match lines.next() {
            Ok(Some((tag, value))) => {
                if let Err(reason) = document.tag(tag, value) {
                    break Err(reason);
                }
            }
            Ok(None) => break document.end_element(),
            Err(reason) => break Err(reason),
        }
    };
    result.map_err(|reason| refuse(lines.line, reason))?;
    document.index()
}

/// The document cut into tags.
struct Lines<'a> {
    text: &'a str,
    /// Bytes before what was not read yet.
    at: usize,
    /// Number of the line that was read last.
    line: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<Option<(&'a str, &'a str)>, String> {
        while self.at < self.text.len() {
            let line = self.rest_of_line().trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (tag, value) = line
                .split_once(':')
                .ok_or_else(|| format!("expected `Tag: value`, found {:?}", shown(line)))?;
            let value = value.trim_start();
            let Some(begun) = value.strip_prefix("<text>") else { return Ok(Some((tag.trim(), value))) };
            let start = begun.as_ptr().addr() - self.text.as_ptr().addr();
            let length = memchr::memmem::find(&self.text.as_bytes()[start..], b"</text>")
                .ok_or_else(|| format!("the <text> of {:?} has no </text>", shown(tag)))?;
            let value = &self.text[start..start + length];
            if start + length >= self.at {
                self.line +=
                    memchr::memchr_iter(b'\n', &self.text.as_bytes()[self.at..start + length]).count();
                self.at = start + length;
                self.rest_of_line();
            }
            return Ok(Some((tag.trim(), value)));
        }
        Ok(None)
    }

    fn rest_of_line(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let end = memchr::memchr(b'\n', rest.as_bytes()).unwrap_or(rest.len());
        self.at = (self.at + end + 1).min(self.text.len());
        self.line += 1;
        &rest[..end]
    }
}

/// The element whose tags are being read.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Section {
    #[default]
    Document,
    Package,
    File,
    /// Snippets, licences, annotations: nothing that is read.
    Other,
}

#[derive(Default)]
struct Document<'a> {
    builder: Builder,
    version: bool,
    section: Section,
    id: &'a str,
    name: &'a str,
    package_version: &'a str,
    purl: Option<&'a str>,
    digests: Digests,
    /// The package that files belong to which follow it.
    package: Option<u32>,
    purpose: &'a str,
    /// The package that a file of the list follows.
    followed: Vec<(u32, u32)>,
    graph: Graph<&'a str>,
}

impl<'a> Document<'a> {
    fn tag(&mut self, tag: &'a str, value: &'a str) -> Result<(), String> {
        match (tag, self.section) {
            ("SPDXVersion", _) => {
                if !matches!(value, "SPDX-2.2" | "SPDX-2.3") {
                    return Err(format!("SPDXVersion {:?}; expected SPDX-2.2 or SPDX-2.3", shown(value)));
                }
                if std::mem::replace(&mut self.version, true) {
                    return Err("SPDXVersion is given twice".to_owned());
                }
            }
            ("Created", _) => {
                self.builder.created = created(value);
            }
            ("Creator", _) if self.builder.tool.is_none() => self.builder.tool = tool::of_creator(value),
            ("CreatorComment", _) => self.builder.complete = value == COMPLETE,
            ("PackageName", _) => self.begin(Section::Package, value)?,
            ("FileName", _) => self.begin(Section::File, value)?,
            ("SnippetSPDXID" | "LicenseID" | "Annotator", _) => self.begin(Section::Other, "")?,
            ("SPDXID", Section::Package | Section::File) => {
                if !self.id.is_empty() {
                    return Err(format!("{:?} has two SPDXIDs", shown(self.name)));
                }
                self.id = value;
            }
            ("PackageVersion", Section::Package) => self.package_version = value,
            ("PrimaryPackagePurpose", Section::Package) => self.purpose = value,
            ("PackageAttributionText", Section::Package) => self.builder.origin.add_attribution(value),
            ("ExternalRef", Section::Package) => {
                let mut words = value.split_whitespace().skip(1);
                if words.next() == Some("purl") && self.purl.is_none() {
                    self.purl = words.next();
                }
            }
            ("FileChecksum", Section::File) => {
                let (algorithm, digest) = value.split_once(':').ok_or_else(|| {
                    format!("FileChecksum {:?}; expected `ALGORITHM: digits`", shown(value))
                })?;
                self.digests.add(Algorithm::named(algorithm.trim()), digest.trim())?;
            }
            ("FileComment", Section::File) => self.builder.origin.add_comment(value),
            ("Relationship", _) => {
                let mut words = value.split_whitespace();
                match (words.next(), words.next(), words.next()) {
                    (Some(package), Some("CONTAINS"), Some(file))
                    | (Some(file), Some("CONTAINED_BY"), Some(package)) => self.graph.contains(package, file),
                    _ => {}
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, section: Section, name: &'a str) -> Result<(), String> {
        self.end_element()?;
        self.section = section;
        self.name = name;
        Ok(())
    }

    /// Takes over the element that was read.
    fn end_element(&mut self) -> Result<(), String> {
        let (id, name) = (std::mem::take(&mut self.id), std::mem::take(&mut self.name));
        let digests = std::mem::take(&mut self.digests);
        match std::mem::take(&mut self.section) {
            Section::Package => {
                let version = std::mem::take(&mut self.package_version);
                let (purl, purpose) = (self.purl.take(), std::mem::take(&mut self.purpose));
                let package = Package { name, version, purl };
                let is_root = is_root(id, purpose);
                if is_root {
                    self.builder.origin.add_purl(purl.unwrap_or_default());
                }
                let package = (!is_root).then_some(&package);
                self.package = self.graph.package(&mut self.builder, id, package);
            }
            Section::File => {
                let number = self.graph.file(&mut self.builder, id, name, digests)?;
                self.followed.extend(number.zip(self.package));
            }
            Section::Document | Section::Other => {}
        }
        Ok(())
    }

    fn index(mut self) -> Result<ImageIndex, SbomError> {
        if !self.version {
            let reason = "no SPDXVersion".to_owned();
            return Err(SbomError::Line { format: Format::SpdxTagValue, line: 1, reason });
        }
        // What is said of a file counts before where it stands.
        self.graph.own(&mut self.builder);
        for (file, package) in self.followed {
            self.builder.own(file, package);
        }
        self.builder.formats.push(Format::SpdxTagValue);
        self.builder.finish()
    }
}
