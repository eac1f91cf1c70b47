//! Files of the directories → accepted and refused attestations.
//!
//! The index of each accepted document is kept. An image with one document shares that index, so it costs nothing more; only
//! an image with several has a union beside its parts.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::library::{Accepted, Library, Loaded, Unions};
use super::{Document, ImagesError, Refused};
use crate::attestation::directory::{self, FileError, Rules, Shape, Stamp};
use crate::attestation::{self, AttestationError, Keys, Limits, PredicateType};
use crate::config::Config;
use crate::event::FilePath;
use crate::finding::{Binding, Sha256};
use crate::metrics::Metrics;
use crate::sbom::{self, Format, ImageIndex};

/// Digests whose images must be made anew.
pub(super) type Changes = FxHashSet<Sha256>;

/// A directory of attestations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    /// Of the image itself: many have none.
    pub(super) may_be_absent: bool,
}

/// What decides whether an attestation is accepted.
struct Policy {
    keys: Keys,
    threshold: usize,
    limits: Limits,
    sbom_limits: sbom::Limits,
}

/// What the directories hold.
pub(super) struct Loader {
    directories: Vec<Directory>,
    rules: Rules,
    policy: Policy,
    /// Directories that cannot be listed.
    faults: BTreeMap<usize, Refused>,
    /// By the directory's place and the file's name.
    files: BTreeMap<(usize, OsString), LoadedFile>,
    unions: Arc<Unions>,
}

struct LoadedFile {
    /// When it was read; `None` when it could not be.
    stamp: Option<Stamp>,
    envelopes: Vec<Arc<Loaded>>,
}

impl Loader {
    pub(super) fn new(config: &Config) -> Result<Self, ImagesError> {
        let attestation = &config.attestation;
        let keys = Keys::load(&attestation.keys)?;
        if keys.is_empty() {
            tracing::warn!("no key is configured: every attestation will be refused; set attestation.keys");
        } else if attestation.threshold == 0 || attestation.threshold > keys.len() {
            let error = AttestationError::Threshold { threshold: attestation.threshold, keys: keys.len() };
            return Err(ImagesError::Threshold(error));
        }
        let mut directories = vec![Directory { path: attestation.directory.clone(), may_be_absent: false }];
        let host = &config.host.directory;
        if !host.as_os_str().is_empty() && *host != attestation.directory {
            directories.push(Directory { path: host.clone(), may_be_absent: true });
        }
        Ok(Self {
            directories,
            rules: Rules::from(attestation.allow.as_slice()),
            policy: Policy {
                keys,
                threshold: attestation.threshold,
                limits: Limits::from(attestation),
                sbom_limits: sbom::Limits {
                    max_bytes: attestation.max_sbom_bytes,
                    max_depth: attestation.max_json_depth,
                },
            },
            faults: BTreeMap::new(),
            files: BTreeMap::new(),
            unions: Arc::default(),
        })
    }

    pub(super) fn directories(&self) -> &[Directory] {
        &self.directories
    }

    pub(super) fn rules(&self) -> Rules {
        self.rules
    }

    /// Everything that was read, ready to be asked.
    pub(super) fn library(&self) -> Library {
        Library::new(self.files.values().flat_map(|file| &file.envelopes), Arc::clone(&self.unions))
    }

    /// Lists the directories; reads what is new or changed and forgets what is gone.
    pub(super) fn everything(&mut self, metrics: &Metrics) -> Changes {
        (0..self.directories.len()).flat_map(|at| self.directory(at, metrics)).collect()
    }

    /// [`everything`](Self::everything) of one directory.
    pub(super) fn directory(&mut self, at: usize, metrics: &Metrics) -> Changes {
        let Directory { path, may_be_absent } = &self.directories[at];
        let present = match directory::scan(path, self.rules) {
            Ok(present) => {
                self.faults.remove(&at);
                present
            }
            Err(error) if error.is_gone() && *may_be_absent => {
                self.faults.remove(&at);
                BTreeMap::new()
            }
            Err(error) => {
                let fault = Refused { file: path.display().to_string(), reason: error.to_string() };
                tracing::warn!(directory = fault.file, reason = fault.reason, "no attestations are read");
                self.faults.insert(at, fault);
                BTreeMap::new()
            }
        };
        let known = self.files.keys().filter(|(of, _)| *of == at).map(|(_, name)| name);
        let changed: BTreeSet<OsString> = known
            .filter(|name| !present.contains_key(*name))
            .chain(
                present.iter().filter(|(name, stamp)| self.is_new(at, name, **stamp)).map(|(name, _)| name),
            )
            .cloned()
            .collect();
        self.files(at, changed, metrics)
    }

    fn is_new(&self, at: usize, name: &OsString, stamp: Option<Stamp>) -> bool {
        self.files.get(&(at, name.clone())).is_none_or(|file| file.stamp.is_none() || file.stamp != stamp)
    }

    /// Reads everything in place of an older loader with another configuration.
    pub(super) fn everything_after(&mut self, old: Self, metrics: &Metrics) -> Changes {
        let mut changes: Changes = old.files.values().flat_map(LoadedFile::subjects).collect();
        // Its indexes are not needed any more, and may be large.
        drop(old);
        changes.extend(self.everything(metrics));
        changes
    }

    /// Reads these files of a directory.
    pub(super) fn files(&mut self, at: usize, names: BTreeSet<OsString>, metrics: &Metrics) -> Changes {
        let mut changes = Changes::default();
        for name in names {
            let key = (at, name);
            if let Some(old) = self.files.remove(&key) {
                changes.extend(old.subjects());
            }
            let Some(file) = self.read(at, &key.1) else {
                tracing::info!(file = self.shown(at, &key.1), "attestation removed");
                continue;
            };
            for envelope in &file.envelopes {
                match &envelope.outcome {
                    Ok(Accepted { document, .. }) => {
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
            self.files.insert(key, file);
        }
        changes
    }

    /// `None` when the file is gone.
    fn read(&self, at: usize, name: &OsStr) -> Option<LoadedFile> {
        let shown = self.shown(at, name);
        let directory = &self.directories[at].path;
        let (bytes, stamp) =
            match directory::read(directory, name, self.policy.limits.max_envelope_bytes, self.rules) {
                Ok(read) => read,
                Err(error) if error.is_gone() => return None,
                Err(error) => return Some(LoadedFile::refused(shown, &error)),
            };
        let envelopes = match Shape::of(name)? {
            Shape::One => vec![self.policy.envelope(shown, bytes)],
            Shape::Lines => {
                let lines = bytes.split(|byte| *byte == b'\n').enumerate();
                lines
                    .filter(|(_, line)| !line.trim_ascii().is_empty())
                    .map(|(number, line)| {
                        self.policy.envelope(format!("{shown}:{}", number + 1), line.to_vec())
                    })
                    .collect()
            }
        };
        Some(LoadedFile { stamp: Some(stamp), envelopes: envelopes.into_iter().map(Arc::new).collect() })
    }

    /// The file as messages name it: of the drop directory by its name, of another one by its path.
    fn shown(&self, at: usize, name: &OsStr) -> String {
        match at {
            0 => FilePath::from(name.as_bytes()).to_string(),
            _ => FilePath::from(self.directories[at].path.join(name).as_os_str().as_bytes()).to_string(),
        }
    }

    /// Everything that was refused.
    pub(super) fn refused(&self) -> Vec<Refused> {
        let envelopes = self.files.values().flat_map(|file| &file.envelopes);
        self.faults.values().chain(envelopes.filter_map(|e| e.outcome.as_ref().err())).cloned().collect()
    }
}

impl Policy {
    fn envelope(&self, file: String, bytes: Vec<u8>) -> Loaded {
        let verified = match attestation::verify(&bytes, &self.keys, self.threshold, &self.limits) {
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
        let refused = |reason: String| Refused {
            file: file.clone(),
            reason: format!("its signature is good, but the SBOM is refused: {reason}"),
        };
        let outcome = match sbom::parse(statement.predicate(), &self.sbom_limits) {
            Err(error) => Err(refused(error.to_string())),
            Ok(index) if !index.formats().iter().all(|f| fits(*f, statement.predicate_type)) => {
                let (said, found) = (statement.predicate_type.uri(), formats(&index));
                Err(refused(format!("the predicate type is {said:?}, but the document is {found}")))
            }
            Ok(index) => {
                let document = Document {
                    sha256: attestation::sha256(statement.predicate()),
                    envelope_sha256: verified.sha256,
                    format: formats(&index),
                    predicate: statement.predicate_type,
                    tool: index.tool().map(str::to_owned),
                    file,
                    signers: verified.keys,
                    time: None,
                    binding: Binding::Unproven,
                };
                Ok(Accepted { document, index: Arc::new(index) })
            }
        };
        Loaded { subjects, outcome }
    }
}

impl LoadedFile {
    fn subjects(&self) -> impl Iterator<Item = Sha256> + '_ {
        self.envelopes.iter().flat_map(|envelope| envelope.subjects.iter().copied())
    }

    fn refused(file: String, error: &FileError) -> Self {
        let refused = Refused { file, reason: error.to_string() };
        Self {
            stamp: None,
            envelopes: vec![Arc::new(Loaded { subjects: Vec::new(), outcome: Err(refused) })],
        }
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
