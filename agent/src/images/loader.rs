//! Files of the drop directory → accepted and refused documents → images.
//!
//! The index of each accepted document is kept. An image with one document shares that index, so it costs nothing more; only
//! an image with several has a union beside its parts.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::{Document, Facts, Image, ImageState, ImagesError, Refused, Register};
use crate::attestation::directory::{self, FileError, Shape, Stamp};
use crate::attestation::{self, Limits, Policy, PredicateType, Provenance, Statement, Vex};
use crate::config;
use crate::event::FilePath;
use crate::finding::Sha256;
use crate::metrics::Metrics;
use crate::sbom::{self, Format, ImageIndex, SbomError};

/// Digests whose images must be made anew.
pub(super) type Changes = FxHashSet<Sha256>;

/// What the drop directory holds.
pub(super) struct Loader {
    directory: PathBuf,
    policy: Policy,
    limits: Limits,
    sbom_limits: sbom::Limits,
    /// The directory itself.
    fault: Option<Refused>,
    files: BTreeMap<OsString, LoadedFile>,
}

struct LoadedFile {
    /// When it was read; `None` when it could not be.
    stamp: Option<Stamp>,
    envelopes: Vec<Loaded>,
}

/// One envelope. Of a refused one the subjects are what it claims.
struct Loaded {
    subjects: Vec<Sha256>,
    outcome: Result<(Document, Content), Refused>,
}

/// What an accepted document says.
enum Content {
    Sbom(Arc<ImageIndex>),
    Provenance(Arc<Provenance>),
    Vex(Arc<Vex>),
}

impl Loader {
    pub(super) fn new(config: &config::Attestation) -> Result<Self, ImagesError> {
        let policy = Policy::load(config)?;
        if policy.is_empty() {
            tracing::warn!(
                "no key and no identity is configured: every attestation will be refused; set attestation.keys or \
                 attestation.identities"
            );
        }
        Ok(Self {
            directory: config.directory.clone(),
            policy,
            limits: Limits::from(config),
            sbom_limits: sbom::Limits { max_bytes: config.max_sbom_bytes, max_depth: config.max_json_depth },
            fault: None,
            files: BTreeMap::new(),
        })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Lists the directory; reads what is new or changed and forgets what is gone.
    pub(super) fn everything(&mut self, metrics: &Metrics) -> Changes {
        let present = match directory::scan(&self.directory) {
            Ok(present) => {
                self.fault = None;
                present
            }
            Err(error) => {
                let fault = Refused { file: self.directory.display().to_string(), reason: error.to_string() };
                tracing::warn!(directory = fault.file, reason = fault.reason, "no attestations are read");
                self.fault = Some(fault);
                BTreeMap::new()
            }
        };
        let known = self.files.iter().map(|(name, file)| (name, file.stamp));
        let changed: BTreeSet<OsString> = known
            .filter(|(name, _)| !present.contains_key(*name))
            .map(|(name, _)| name.clone())
            .chain(present.iter().filter(|(name, stamp)| self.is_new(name, **stamp)).map(|(n, _)| n.clone()))
            .collect();
        self.files(changed, metrics)
    }

    fn is_new(&self, name: &OsStr, stamp: Option<Stamp>) -> bool {
        self.files.get(name).is_none_or(|file| file.stamp.is_none() || file.stamp != stamp)
    }

    /// Reads everything in place of an older loader with another configuration.
    pub(super) fn everything_after(&mut self, old: Self, metrics: &Metrics) -> Changes {
        let mut changes: Changes = old.files.values().flat_map(LoadedFile::subjects).collect();
        // Its indexes are not needed any more, and may be large.
        drop(old);
        changes.extend(self.everything(metrics));
        changes
    }

    /// Reads these files.
    pub(super) fn files(&mut self, names: BTreeSet<OsString>, metrics: &Metrics) -> Changes {
        let mut changes = Changes::default();
        for name in names {
            if let Some(old) = self.files.remove(&name) {
                changes.extend(old.subjects());
            }
            let Some(file) = self.read(&name) else {
                tracing::info!(file = shown(&name), "attestation removed");
                continue;
            };
            for envelope in &file.envelopes {
                match &envelope.outcome {
                    Ok((document, _)) => {
                        metrics.document_accepted();
                        tracing::info!(file = document.file, document = %document.sha256, "attestation accepted");
                    }
                    Err(refused) => {
                        metrics.document_refused();
                        tracing::warn!(file = refused.file, reason = refused.reason, "attestation refused");
                    }
                }
            }
            changes.extend(file.subjects());
            self.files.insert(name, file);
        }
        changes
    }

    /// `None` when the file is gone.
    fn read(&self, name: &OsStr) -> Option<LoadedFile> {
        let (bytes, stamp) = match directory::read(&self.directory, name, self.limits.max_envelope_bytes) {
            Ok(read) => read,
            Err(error) if error.is_gone() => return None,
            Err(error) => return Some(LoadedFile::refused(name, &error)),
        };
        let envelopes = match Shape::of(name)? {
            Shape::One => vec![self.envelope(shown(name), bytes)],
            Shape::Lines => {
                let lines = bytes.split(|byte| *byte == b'\n').enumerate();
                lines
                    .filter(|(_, line)| !line.trim_ascii().is_empty())
                    .map(|(number, line)| {
                        self.envelope(format!("{}:{}", shown(name), number + 1), line.to_vec())
                    })
                    .collect()
            }
        };
        Some(LoadedFile { stamp: Some(stamp), envelopes })
    }

    fn envelope(&self, file: String, bytes: Vec<u8>) -> Loaded {
        let verified = match attestation::verify(&bytes, &self.policy, &self.limits) {
            Ok(verified) => verified,
            Err(error) => {
                let subjects = attestation::claimed_subjects(&bytes, &self.limits);
                return Loaded { subjects, outcome: Err(Refused { file, reason: error.to_string() }) };
            }
        };
        // Up to some hundred megabytes that the parser could do with.
        drop(bytes);
        let statement = &verified.statement;
        let subjects = statement.subjects.iter().filter_map(|subject| subject.sha256).collect();
        let outcome = match self.content(statement) {
            Err(reason) => Err(Refused { file, reason: format!("its signature is good, but {reason}") }),
            Ok((format, content)) => {
                let document = Document {
                    sha256: attestation::sha256(statement.predicate()),
                    envelope_sha256: verified.sha256,
                    format,
                    file,
                    signers: verified.signers,
                };
                Ok((document, content))
            }
        };
        Loaded { subjects, outcome }
    }

    /// Reads a verified document; its format, and what it says.
    fn content(&self, statement: &Statement) -> Result<(String, Content), String> {
        let document = statement.predicate();
        match statement.predicate_type {
            PredicateType::SlsaProvenance => match Provenance::parse(document, &self.limits) {
                Ok(provenance) => Ok(("slsa-provenance".into(), Content::Provenance(Arc::new(provenance)))),
                Err(error) => Err(format!("the provenance is refused: {error}")),
            },
            PredicateType::OpenVex => match Vex::parse(document, &self.limits) {
                Ok(vex) => Ok(("openvex".into(), Content::Vex(Arc::new(vex)))),
                Err(error) => Err(format!("the VEX document is refused: {error}")),
            },
            said => match sbom::parse(document, &self.sbom_limits) {
                Err(error) => Err(format!("the SBOM is refused: {error}")),
                Ok(index) if !index.formats().iter().all(|format| fits(*format, said)) => Err(format!(
                    "the SBOM is refused: the predicate type is {:?}, but the document is {}",
                    statement.predicate_uri,
                    formats(&index)
                )),
                Ok(index) => Ok((formats(&index), Content::Sbom(Arc::new(index)))),
            },
        }
    }

    /// Everything that was refused.
    pub(super) fn refused(&self) -> Vec<Refused> {
        let envelopes = self.files.values().flat_map(|file| &file.envelopes);
        self.fault.iter().chain(envelopes.filter_map(|e| e.outcome.as_ref().err())).cloned().collect()
    }

    /// The register with the images of these digests made anew; `None` when that changes nothing.
    pub(super) fn resolve(&self, old: &Register, changes: Changes) -> Option<Register> {
        let mut register: Option<Register> = None;
        for digest in changes {
            let (state, facts) = (self.state(&digest), self.facts(&digest));
            let nothing = matches!(state, ImageState::NoSbom) && facts == Facts::default();
            let known = old.get(&digest);
            if known.map_or(nothing, |known| same(&known.state, &state) && known.facts == facts) {
                continue;
            }
            let register = register.get_or_insert_with(|| old.clone());
            if nothing {
                register.remove(&digest);
                continue;
            }
            let image = Image { facts, ..Image::new(digest, state) };
            if let Some(known) = known {
                image.carry_over(known);
            }
            register.insert(digest, Arc::new(image));
        }
        register
    }

    /// What was read about an image.
    fn about(&self, digest: &Sha256) -> impl Iterator<Item = &Result<(Document, Content), Refused>> {
        let envelopes = self.files.values().flat_map(|file| &file.envelopes);
        envelopes.filter(|envelope| envelope.subjects.contains(digest)).map(|envelope| &envelope.outcome)
    }

    /// What its provenance and VEX documents say.
    fn facts(&self, digest: &Sha256) -> Facts {
        let mut facts = Facts::default();
        for (_, content) in self.about(digest).filter_map(|outcome| outcome.as_ref().ok()) {
            match content {
                Content::Provenance(provenance) => facts.provenance.push(Arc::clone(provenance)),
                Content::Vex(vex) => facts.vex.push(Arc::clone(vex)),
                Content::Sbom(_) => {}
            }
        }
        facts
    }

    fn state(&self, digest: &Sha256) -> ImageState {
        let sbom = |accepted: &'_ (Document, Content)| match &accepted.1 {
            Content::Sbom(index) => Some((accepted.0.clone(), Arc::clone(index))),
            Content::Provenance(_) | Content::Vex(_) => None,
        };
        let accepted: Vec<_> =
            self.about(digest).filter_map(|outcome| outcome.as_ref().ok().and_then(sbom)).collect();
        if accepted.is_empty() {
            let mut refused = self.about(digest).filter_map(|outcome| outcome.as_ref().err());
            return match (refused.next(), refused.count()) {
                (None, _) => ImageState::NoSbom,
                (Some(first), more) => ImageState::Unverified {
                    reason: match more {
                        0 => format!("{}: {}", first.file, first.reason),
                        _ => format!("{}: {} (and {more} more)", first.file, first.reason),
                    },
                },
            };
        }
        let documents: Vec<_> = accepted.iter().map(|(document, _)| document.clone()).collect();
        // The same document may have come twice, signed by others.
        let mut seen = FxHashSet::default();
        let distinct: Vec<_> =
            accepted.iter().filter(|(d, _)| seen.insert(d.sha256)).map(|(_, index)| index).collect();
        let index = match distinct.as_slice() {
            [one] => Arc::clone(one),
            several => {
                let parts: Vec<&ImageIndex> = several.iter().map(|index| &***index).collect();
                match ImageIndex::union(&parts) {
                    Ok(index) => Arc::new(index),
                    Err(error) => return contradiction(documents, &error),
                }
            }
        };
        ImageState::Verified { index, documents }
    }
}

impl LoadedFile {
    fn subjects(&self) -> impl Iterator<Item = Sha256> + '_ {
        self.envelopes.iter().flat_map(|envelope| envelope.subjects.iter().copied())
    }

    fn refused(name: &OsStr, error: &FileError) -> Self {
        let refused = Refused { file: shown(name), reason: error.to_string() };
        Self { stamp: None, envelopes: vec![Loaded { subjects: Vec::new(), outcome: Err(refused) }] }
    }
}

/// Signed documents that cannot both be true: none of them is taken.
fn contradiction(documents: Vec<Document>, error: &SbomError) -> ImageState {
    let files: Vec<_> = documents.into_iter().map(|document| document.file).collect();
    let reason = format!("{} do not fit together: {error}; remove the wrong one", files.join(", "));
    tracing::warn!(reason, "the SBOMs of an image contradict each other");
    ImageState::Unverified { reason }
}

/// Nothing that a finding could tell has changed.
fn same(a: &ImageState, b: &ImageState) -> bool {
    match (a, b) {
        (ImageState::Verified { documents: a, .. }, ImageState::Verified { documents: b, .. }) => a == b,
        (ImageState::Unverified { reason: a }, ImageState::Unverified { reason: b }) => a == b,
        (ImageState::NoSbom, ImageState::NoSbom) => true,
        _ => false,
    }
}

fn formats(index: &ImageIndex) -> String {
    let names: Vec<_> = index.formats().iter().map(|format| format.as_str()).collect();
    names.join(", ")
}

/// cosign's wrapper does not say what is in it.
fn fits(format: Format, said: PredicateType) -> bool {
    said == PredicateType::Custom || said == predicate_type(format)
}

/// The predicate type that a document of this format has.
fn predicate_type(format: Format) -> PredicateType {
    match format {
        Format::Spdx2 | Format::SpdxTagValue | Format::Spdx3 => PredicateType::Spdx,
        Format::CycloneDx => PredicateType::CycloneDx,
        Format::Syft => PredicateType::Syft,
    }
}

fn shown(name: &OsStr) -> String {
    FilePath::from(name.as_bytes()).to_string()
}
