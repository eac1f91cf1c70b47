//! The in-toto statement, v0.1 and v1: which images (subjects) a document (predicate) is about.

use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json::{self, Members, Text, Unused, shown};
use super::{AttestationError, Limits, Part};
use crate::finding::Sha256;

/// `_type` of the statements that are read. Both have the same members.
const TYPES: [&str; 2] = ["https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1"];

/// Subjects that one statement may name.
const MAX_SUBJECTS: usize = 1024;

/// The kinds of documents that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PredicateType {
    /// SPDX: `https://spdx.dev/Document`, also with a version (`/v2.3`). JSON as an object, tag-value as a string.
    Spdx,
    /// CycloneDX: `https://cyclonedx.org/bom`, also with a version (`/v1.6`).
    CycloneDx,
    /// syft-json: `https://syft.dev/bom`.
    Syft,
    /// cosign's own wrapper, in which its first versions put SBOMs: `{"Data": document, "Timestamp": …}`. What the document is
    /// only the document says.
    Custom,
    /// SLSA provenance v0.2 or v1: how the image was built.
    SlsaProvenance,
    /// OpenVEX 0.2: which vulnerabilities do not matter, and why.
    OpenVex,
}

/// URIs of the types that have no version, or several fixed ones; the first of a type is what Muster writes.
const URIS: [(&str, PredicateType); 8] = [
    ("https://spdx.dev/Document", PredicateType::Spdx),
    ("https://cyclonedx.org/bom", PredicateType::CycloneDx),
    ("https://syft.dev/bom", PredicateType::Syft),
    ("https://cosign.sigstore.dev/attestation/v1", PredicateType::Custom),
    ("cosign.sigstore.dev/attestation/v1", PredicateType::Custom),
    ("https://slsa.dev/provenance/v1", PredicateType::SlsaProvenance),
    ("https://slsa.dev/provenance/v0.2", PredicateType::SlsaProvenance),
    ("https://openvex.dev/ns", PredicateType::OpenVex),
];

impl PredicateType {
    /// The URI that Muster writes.
    pub fn uri(self) -> &'static str {
        URIS.iter().find(|(_, of)| *of == self).map_or("", |(uri, _)| uri)
    }

    /// The document can be an SBOM.
    pub fn is_sbom(self) -> bool {
        matches!(self, Self::Spdx | Self::CycloneDx | Self::Syft | Self::Custom)
    }

    /// Types whose URI may end in the version of the document.
    fn is_versioned(self) -> bool {
        matches!(self, Self::Spdx | Self::CycloneDx | Self::OpenVex)
    }
}

impl std::str::FromStr for PredicateType {
    type Err = String;
    fn from_str(uri: &str) -> Result<Self, String> {
        let is_version = |rest: &str| {
            rest.strip_prefix("/v").is_some_and(|version| {
                !version.is_empty() && version.bytes().all(|c| c.is_ascii_digit() || c == b'.')
            })
        };
        let fits = |(known, of): &&(&str, Self)| {
            uri.strip_prefix(known)
                .is_some_and(|rest| rest.is_empty() || of.is_versioned() && is_version(rest))
        };
        URIS.iter().find(fits).map(|(_, of)| *of).ok_or_else(|| {
            let known: Vec<_> = URIS.iter().map(|(uri, _)| *uri).collect();
            format!("predicate type {:?} is not read; expected one of {}", shown(uri), known.join(", "))
        })
    }
}

/// What a statement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its name; says nothing about identity.
    pub name: String,
    /// Its digest; subjects are matched by nothing else. `None` when the statement has other algorithms only.
    pub sha256: Option<Sha256>,
}

/// A statement with its document.
pub struct Statement {
    /// What it is about.
    pub subjects: Vec<Subject>,
    /// Kind of the document.
    pub predicate_type: PredicateType,
    /// The same as the statement writes it, with the version.
    pub predicate_uri: String,
    document: Document,
}

/// The bytes of the predicate's document.
enum Document {
    /// An object: as it stands in the statement.
    Object { buffer: Vec<u8>, range: Range<usize> },
    /// A string, or what cosign has wrapped in one: without its quotes and escapes.
    Text(String),
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement")
            .field("subjects", &self.subjects)
            .field("predicate_type", &self.predicate_type)
            .field("predicate_bytes", &self.predicate().len())
            .finish_non_exhaustive()
    }
}

impl Statement {
    /// Reads the statement that is `buffer` from `start` on. The document stays unread.
    ///
    /// # Errors
    /// When it is not JSON of this form, has a key twice, another type, no subject, a predicate type that is not read, or a
    /// document above the limit.
    pub fn parse(buffer: Vec<u8>, start: usize, limits: &Limits) -> Result<Self, AttestationError> {
        let payload = buffer.get(start..).unwrap_or_default();
        let parsed = json::read(payload, StatementSeed { depth: limits.max_json_depth, whole: true })
            .map_err(|fault| AttestationError::malformed(Part::Statement, fault))?;
        let (subjects, predicate_type, predicate_uri) =
            (parsed.subjects, parsed.predicate_type, parsed.predicate_uri);
        let malformed = |at: usize, reason: &str| AttestationError::Malformed {
            part: Part::Statement,
            at,
            reason: reason.to_owned(),
        };
        let mut predicate = parsed.predicate.map_or("", RawValue::get);
        let mut from = predicate.as_ptr().addr() - payload.as_ptr().addr();
        if predicate_type == PredicateType::Custom {
            let wrapper = json::read(predicate.as_bytes(), WrapperSeed { depth: limits.max_json_depth })
                .map_err(|fault| malformed(from + fault.at, &fault.reason))?;
            from += wrapper.get().as_ptr().addr() - predicate.as_ptr().addr();
            predicate = wrapper.get();
        }
        limits.check_sbom(predicate.len())?;
        let takes_text = matches!(predicate_type, PredicateType::Spdx | PredicateType::Custom);
        let document = match predicate.as_bytes().first() {
            Some(b'{') => {
                let from = start + from;
                let range = from..from + predicate.len();
                Document::Object { buffer, range }
            }
            Some(b'"') if takes_text => match json::read(predicate.as_bytes(), Text) {
                Ok(text) => Document::Text(text.into_owned()),
                Err(fault) => return Err(malformed(from + fault.at, &fault.reason)),
            },
            _ => {
                let reason = "predicate is not an object; expected a document in JSON (a string only for SPDX tag-value)";
                return Err(malformed(from, reason));
            }
        };
        Ok(Self { subjects, predicate_type, predicate_uri, document })
    }

    /// The document, as it was signed; without the string, or cosign's wrapper, that it stood in.
    pub fn predicate(&self) -> &[u8] {
        match &self.document {
            Document::Object { buffer, range } => &buffer[range.clone()],
            Document::Text(text) => text.as_bytes(),
        }
    }

    /// The statement is about the thing with this digest.
    pub fn names(&self, digest: &Sha256) -> bool {
        self.subjects.iter().any(|subject| subject.sha256.as_ref() == Some(digest))
    }
}

/// The digests that a statement names as its subjects, as far as they can be read. For messages about a statement that was
/// refused; they prove nothing.
pub(super) fn claimed(payload: &[u8], limits: &Limits) -> Vec<Sha256> {
    json::read(payload, StatementSeed { depth: limits.max_json_depth, whole: false })
        .map(|parsed| parsed.subjects.iter().filter_map(|subject| subject.sha256).collect())
        .unwrap_or_default()
}

/// The first digest that a statement names; the statement may be unverified.
pub(super) fn first_subject(payload: &[u8], limits: &Limits) -> Result<Sha256, AttestationError> {
    let parsed = json::read(payload, StatementSeed { depth: limits.max_json_depth, whole: false })
        .map_err(|fault| AttestationError::malformed(Part::Statement, fault))?;
    let first = parsed.subjects.iter().find_map(|subject| subject.sha256);
    first.ok_or_else(|| AttestationError::Malformed {
        part: Part::Statement,
        at: 0,
        reason: "no subject with a sha256 digest; expected at least one".into(),
    })
}

struct Parsed<'de> {
    subjects: Vec<Subject>,
    predicate_type: PredicateType,
    predicate_uri: String,
    predicate: Option<&'de RawValue>,
}

struct StatementSeed {
    depth: u32,
    /// Not only the subjects are wanted.
    whole: bool,
}

impl<'de> DeserializeSeed<'de> for StatementSeed {
    type Value = Parsed<'de>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for StatementSeed {
    type Value = Parsed<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an in-toto statement: an object with _type, subject, predicateType and predicate")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let unused = Unused { depth: self.depth.saturating_sub(1) };
        let (mut members, mut of_type, mut subjects, mut predicate_type, mut predicate) =
            (Members::default(), false, None, None, None);
        while let Some(key) = members.next(&mut map)? {
            match &*key {
                "_type" => {
                    let found = map.next_value_seed(Text)?;
                    if !TYPES.contains(&&*found) {
                        return Err(A::Error::custom(format_args!(
                            "_type is {:?}; expected {:?} or {:?}",
                            shown(&found),
                            TYPES[0],
                            TYPES[1]
                        )));
                    }
                    of_type = true;
                }
                "subject" => subjects = Some(map.next_value_seed(Subjects { unused })?),
                "predicateType" if self.whole => {
                    let uri = map.next_value_seed(Text)?;
                    predicate_type = Some((uri.parse().map_err(A::Error::custom)?, uri.into_owned()));
                }
                "predicate" if self.whole => {
                    predicate = Some(map.next_value::<&RawValue>()?);
                }
                "predicate" => {
                    let _: &RawValue = map.next_value()?;
                }
                _ => map.next_value_seed(unused)?,
            }
        }
        let subjects = subjects.ok_or_else(|| A::Error::missing_field("subject"))?;
        if !self.whole {
            let (predicate_type, predicate_uri) = (PredicateType::Spdx, String::new());
            return Ok(Parsed { subjects, predicate_type, predicate_uri, predicate: None });
        }
        if !of_type {
            return Err(A::Error::missing_field("_type"));
        }
        let (predicate_type, predicate_uri) =
            predicate_type.ok_or_else(|| A::Error::missing_field("predicateType"))?;
        Ok(Parsed {
            subjects,
            predicate_type,
            predicate_uri,
            predicate: Some(predicate.ok_or_else(|| A::Error::missing_field("predicate"))?),
        })
    }
}

/// cosign's wrapper (`pkg/cosign/attestation`): its `Data`.
struct WrapperSeed {
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for WrapperSeed {
    type Value = &'de RawValue;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for WrapperSeed {
    type Value = &'de RawValue;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with Data and Timestamp, as cosign wraps a document")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let unused = Unused { depth: self.depth.saturating_sub(1) };
        let (mut members, mut data) = (Members::default(), None);
        while let Some(key) = members.next(&mut map)? {
            if key == "Data" { data = Some(map.next_value()?) } else { map.next_value_seed(unused)? }
        }
        data.ok_or_else(|| A::Error::missing_field("Data"))
    }
}

#[derive(Clone, Copy)]
struct Subjects {
    unused: Unused,
}

impl<'de> DeserializeSeed<'de> for Subjects {
    type Value = Vec<Subject>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Subjects {
    type Value = Vec<Subject>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of subjects")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(subject) = seq.next_element_seed(SubjectSeed { unused: self.unused })? {
            if found.len() == MAX_SUBJECTS {
                return Err(A::Error::custom(format_args!("more than {MAX_SUBJECTS} subjects")));
            }
            found.push(subject);
        }
        if found.iter().all(|subject: &Subject| subject.sha256.is_none()) {
            return Err(A::Error::custom("no subject with a sha256 digest; expected at least one"));
        }
        Ok(found)
    }
}

struct SubjectSeed {
    unused: Unused,
}

impl<'de> DeserializeSeed<'de> for SubjectSeed {
    type Value = Subject;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for SubjectSeed {
    type Value = Subject;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a subject: an object with digest")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut members, mut name, mut digest) = (Members::default(), String::new(), None);
        while let Some(key) = members.next(&mut map)? {
            match &*key {
                "name" => name = map.next_value::<Option<String>>()?.unwrap_or_default(),
                "digest" => digest = Some(map.next_value_seed(DigestSet)?),
                _ => map.next_value_seed(self.unused)?,
            }
        }
        Ok(Subject { name, sha256: digest.ok_or_else(|| A::Error::missing_field("digest"))? })
    }
}

struct DigestSet;

impl<'de> DeserializeSeed<'de> for DigestSet {
    type Value = Option<Sha256>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for DigestSet {
    type Value = Option<Sha256>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("digests by algorithm")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut members, mut sha256) = (Members::default(), None);
        while let Some(key) = members.next(&mut map)? {
            let value = map.next_value_seed(Text)?;
            if key == "sha256" {
                // Sha256's own reader would take a "sha256:" before the digits.
                let digest: Sha256 = match value.len() {
                    64 => value.parse().map_err(A::Error::custom)?,
                    _ => {
                        return Err(A::Error::custom(format_args!(
                            "sha256 of a subject is {:?}; expected 64 hexadecimal digits",
                            shown(&value)
                        )));
                    }
                };
                if digest.is_zero() {
                    return Err(A::Error::custom("sha256 of a subject is all zero"));
                }
                sha256 = Some(digest);
            }
        }
        Ok(sha256)
    }
}
