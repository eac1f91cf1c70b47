//! Files of the directories, and what other sources hold → accepted and refused attestations.
//!
//! The index of each accepted document is kept. An image with one document shares that index, so it costs nothing more; only
//! an image with several has a union beside its parts.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;

use super::fetch::{Asked, Fetched};
use super::kept::{Kept, Shelf};
use super::library::{Accepted, Content, Indexes, Library, Loaded, Terms};
use super::scope::Scope;
use super::{Document, Image, ImagesError, Refused};
use crate::attestation::directory::{self, FileError, Rules, Shape, Stamp};
use crate::attestation::source::{Candidate, Found, Sources};
use crate::attestation::{
    self, AttestationError, Fault, Limits, Policy, PredicateType, Provenance, Remembered, Statement,
    Verified, Vex,
};
use crate::config::{self, Config};
use crate::event::FilePath;
use crate::finding::{Binding, Sha256};
use crate::metrics::Metrics;
use crate::sbom::{self, Format, ImageIndex};

/// Digests whose images must be made anew.
pub(super) type Changes = HashSet<Sha256>;

/// How often sources are asked at most.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// Attestations that one `.jsonl` file may have: each that is refused is kept for messages.
const MAX_LINES: usize = 4096;
/// Refused attestations that are logged one by one of those that come at once.
const TOLD: usize = 20;
/// What is kept of why an attestation is refused, in bytes: it may quote what stands in it.
const MAX_REASON: usize = 1024;

/// A directory of attestations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    /// Of the image itself: many have none.
    pub(super) may_be_absent: bool,
}

/// What decides whether an attestation is accepted, and reads it.
pub(super) struct Reader {
    policy: Policy,
    limits: Limits,
    sbom_limits: sbom::Limits,
    rules: Rules,
    indexes: Arc<Indexes>,
}

/// What the directories hold.
pub(super) struct Loader {
    directories: Vec<Directory>,
    reader: Reader,
    /// To read the keys and the trust root again.
    config: config::Attestation,
    /// The keys and the trust root as they could last be read.
    remembered: Remembered,
    /// Those that cannot be read any more.
    untrusted: Vec<Fault>,
    /// Who may sign for which image, and by what configuration.
    scopes: Vec<Scope>,
    whole: Config,
    /// What was verified last.
    kept: Kept,
    /// Where that is kept for the next run; `None`: it was not looked into yet.
    shelf: Option<Shelf>,
    /// Directories that cannot be listed.
    faults: BTreeMap<usize, Refused>,
    /// By the directory's place and the file's name.
    files: BTreeMap<(usize, OsString), LoadedFile>,
    sources: Arc<Sources>,
    /// For which images the sources are asked, and what they held.
    asked: BTreeMap<Asked, Fetched>,
    /// What they held was thrown away: they must be asked at once.
    ask_now: Arc<Notify>,
}

struct LoadedFile {
    /// When it was read; `None` when it could not be.
    stamp: Option<Stamp>,
    envelopes: Vec<Arc<Loaded>>,
}

impl Loader {
    /// `remembered`: keys and trust root as they could last be read, for those that cannot be read now.
    pub(super) fn new(config: &Config, mut remembered: Remembered) -> Result<Self, ImagesError> {
        let attestation = &config.attestation;
        let (reader, untrusted) = Reader::new(attestation, Arc::default(), &mut remembered)?;
        tell_untrusted(&[], &untrusted);
        for doubt in attestation.identities.iter().filter_map(config::Identity::doubt) {
            tracing::warn!("attestation.identities: {doubt}");
        }
        if reader.policy.is_empty() {
            tracing::warn!(
                "no key and no identity is configured: every attestation will be refused; set attestation.keys or \
                 attestation.identities"
            );
        }
        let mut directories = vec![Directory { path: attestation.directory.clone(), may_be_absent: false }];
        let host = &config.host.directory;
        if !host.as_os_str().is_empty() && *host != attestation.directory {
            directories.push(Directory { path: host.clone(), may_be_absent: true });
        }
        Ok(Self {
            directories,
            reader,
            config: attestation.clone(),
            scopes: Scope::all(config, &remembered),
            whole: config.clone(),
            remembered,
            untrusted,
            kept: Kept::default(),
            shelf: None,
            faults: BTreeMap::new(),
            files: BTreeMap::new(),
            sources: Arc::new(Sources::new(attestation)?),
            asked: Asked::all(config),
            ask_now: Arc::default(),
        })
    }

    /// The sources, the images for which they are asked, and when to ask at once; `None`: there is nothing to ask.
    pub(super) fn asking(&self) -> Option<(Arc<Sources>, Vec<Asked>, Arc<Notify>)> {
        let asked: Vec<_> = self.asked.keys().cloned().collect();
        (!asked.is_empty()).then(|| (Arc::clone(&self.sources), asked, Arc::clone(&self.ask_now)))
    }

    /// How often they are asked for an image that is not verified: as often as what they said is forgotten.
    pub(super) fn ask_every(&self) -> Duration {
        Duration::from_secs(u64::from(self.config.registry.cache_seconds)).max(ASK_EVERY)
    }

    /// Takes what the sources hold for an image.
    pub(super) fn fetched(&mut self, asked: &Asked, found: &Found, metrics: &Metrics) -> Changes {
        // Another configuration may have come since they were asked.
        let Some(fetched) = self.asked.get_mut(asked) else { return Changes::default() };
        fetched.take(asked, found, &self.reader, metrics)
    }

    pub(super) fn directories(&self) -> &[Directory] {
        &self.directories
    }

    /// Layouts whose images are asked for.
    pub(super) fn layouts(&self) -> &[PathBuf] {
        if self.asked.is_empty() { &[] } else { &self.config.layouts }
    }

    pub(super) fn rules(&self) -> Rules {
        self.reader.rules
    }

    /// Attestations may be signed by certificates, so that the trust root decides about them.
    pub(super) fn needs_trust_root(&self) -> bool {
        self.reader.policy.has_identities()
    }

    /// When the trust root becomes stale, if it is needed and says so.
    pub(super) fn trust_root_until(&self) -> Option<SystemTime> {
        self.reader.policy.trust_root().validity().until.filter(|_| self.needs_trust_root())
    }

    /// Somebody may sign, so that key files or the trust root decide about attestations.
    pub(super) fn has_signers(&self) -> bool {
        !self.reader.policy.is_empty()
    }

    /// Reads the keys and the trust root again; if they decide otherwise, everything is read anew.
    pub(super) fn refresh(&mut self, metrics: &Metrics) -> Changes {
        let mut changes = Changes::default();
        match Reader::new(&self.config, Arc::clone(&self.reader.indexes), &mut self.remembered) {
            Ok((reader, untrusted)) => {
                if untrusted != self.untrusted {
                    tell_untrusted(&self.untrusted, &untrusted);
                    self.untrusted = untrusted;
                    changes.extend(self.subjects());
                }
                if reader.decides_as(&self.reader) {
                    return changes;
                }
                tracing::info!(
                    trust_root = reader.policy.trust_root().name(),
                    "the keys or the trust root have changed"
                );
                self.reader = reader;
                self.scopes = Scope::all(&self.whole, &self.remembered);
                changes.extend(self.subjects());
                self.files.clear();
                for fetched in self.asked.values_mut() {
                    changes.extend(fetched.forget());
                }
                self.ask_now.notify_one();
                changes.extend(self.everything(metrics));
                self.load_kept();
            }
            Err(error) => tracing::warn!(%error, "the keys and the trust root that are in use stay"),
        }
        changes
    }

    /// Reads everything, and at first what was kept by an earlier run.
    pub(super) fn start(&mut self, metrics: &Metrics) -> Changes {
        let is_first = self.shelf.is_none();
        if is_first {
            let (shelf, kept) = Shelf::open(&self.config.verified_directory);
            (self.shelf, self.kept) = (Some(shelf), kept);
        }
        let mut changes = self.everything(metrics);
        if is_first {
            self.load_kept();
            self.kept.retire(&self.retired());
            changes.extend(self.kept.subjects());
        }
        changes
    }

    /// Verifies what is kept by the keys and the trust root of now.
    fn load_kept(&mut self) {
        let Self { kept, shelf, files, asked, reader, .. } = self;
        let store = shelf.as_ref().and_then(Shelf::store);
        kept.load(every(files, asked), |envelope| {
            let store = store?;
            let shown = store.path(envelope).display().to_string();
            match store.read(envelope, reader.limits.max_envelope_bytes) {
                Ok(bytes) => Some(reader.envelope(shown, bytes)),
                Err(error) => {
                    tracing::warn!(file = shown, %error, "what was verified before cannot be read any more");
                    None
                }
            }
        });
    }

    /// Notes by what the images are verified that workloads run.
    pub(super) fn note(&mut self, running: &[Arc<Image>]) -> bool {
        let Self { kept, files, asked, .. } = self;
        kept.take(running, every(files, asked))
    }

    /// Writes what is noted, for the next run. Says whether what is wrong with that has changed.
    pub(super) fn keep(&mut self) -> bool {
        let Self { kept, shelf, files, directories, reader, remembered, .. } = self;
        let Some(shelf) = shelf else { return false };
        let before = shelf.fault.clone();
        shelf.write(kept, remembered, |envelope| {
            let is_it = |loaded: &Arc<Loaded>| {
                loaded.outcome.as_ref().is_ok_and(|of| of.document.envelope_sha256 == *envelope)
            };
            let mut files = files.iter().filter(|(_, file)| file.envelopes.iter().any(is_it));
            files.find_map(|((at, name), _)| {
                let limit = reader.limits.max_envelope_bytes;
                let (bytes, _) = directory::read(&directories[*at].path, name, limit, reader.rules).ok()?;
                let is_it = |bytes: &[u8]| attestation::sha256(bytes) == *envelope;
                match Shape::of(name)? {
                    Shape::One => Some(bytes).filter(|bytes| is_it(bytes)),
                    Shape::Lines => {
                        bytes.split(|byte| *byte == b'\n').find(|line| is_it(line)).map(<[u8]>::to_vec)
                    }
                }
            })
        });
        shelf.fault != before
    }

    /// Digests that some attestation is about.
    fn subjects(&self) -> Changes {
        let all = every(&self.files, &self.asked).flat_map(|loaded| loaded.subjects.iter().copied());
        all.chain(self.kept.subjects()).collect()
    }

    fn retired(&self) -> BTreeSet<Sha256> {
        self.config.retired.iter().copied().collect()
    }

    /// Keys and trust root that cannot be read any more.
    pub(super) fn untrusted(&self) -> &[Fault] {
        &self.untrusted
    }

    /// The keys and the trust root as they could last be read.
    pub(super) fn remembered(&self) -> &Remembered {
        &self.remembered
    }

    /// Everything that was read, ready to be asked.
    pub(super) fn library(&self) -> Library {
        let all = every(&self.files, &self.asked);
        let complete = self.asked.iter();
        let complete =
            complete.filter_map(|(of, fetched)| Some((of.digests().clone(), fetched.complete()?.clone())));
        let terms = Terms {
            until: self.trust_root_until(),
            kept: self.kept.clone(),
            retired: self.retired(),
            faults: self.untrusted.clone(),
            scopes: self.scopes.clone(),
        };
        Library::new(all, complete.collect(), Arc::clone(&self.reader.indexes), terms)
    }

    /// Lists the directories; reads what is new or changed and forgets what is gone.
    pub(super) fn everything(&mut self, metrics: &Metrics) -> Changes {
        (0..self.directories.len()).flat_map(|at| self.directory(at, metrics)).collect()
    }

    /// [`everything`](Self::everything) of one directory.
    pub(super) fn directory(&mut self, at: usize, metrics: &Metrics) -> Changes {
        let Directory { path, may_be_absent } = &self.directories[at];
        let present = match directory::scan(path, self.reader.rules) {
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

    /// Reads everything in place of an older loader with another configuration. What that one has read is kept where nothing
    /// has changed that decides about it.
    pub(super) fn everything_after(&mut self, old: Self, metrics: &Metrics) -> Changes {
        let mut changes = Changes::default();
        let same = self.reader.decides_as(&old.reader);
        if (self.retired(), &self.untrusted, &self.scopes) != (old.retired(), &old.untrusted, &old.scopes) {
            changes.extend(old.subjects());
        }
        self.reader.indexes = old.reader.indexes;
        self.kept = old.kept;
        self.shelf = match old.config.verified_directory == self.config.verified_directory {
            true => old.shelf,
            // What the other one holds was verified for another configuration.
            false => old.shelf.map(|_| Shelf::open(&self.config.verified_directory).0),
        };
        for ((at, name), file) in old.files {
            if same && self.directories.get(at) == old.directories.get(at) {
                self.files.insert((at, name), file);
            } else {
                changes.extend(file.subjects());
            }
        }
        // What is remembered of registries stays.
        if same
            && (&self.config.layouts, &self.config.registry) == (&old.config.layouts, &old.config.registry)
        {
            self.sources = old.sources;
        }
        for (asked, mut fetched) in old.asked {
            if !same {
                changes.extend(fetched.forget());
            }
            match self.asked.get_mut(&asked) {
                Some(here) => *here = fetched,
                None => changes.extend(fetched.subjects()),
            }
        }
        changes.extend(self.everything(metrics));
        if !same {
            self.load_kept();
            changes.extend(self.kept.subjects());
        }
        self.kept.retire(&self.retired());
        changes
    }

    /// Reads these files of a directory.
    pub(super) fn files(&mut self, at: usize, names: BTreeSet<OsString>, metrics: &Metrics) -> Changes {
        let (mut changes, mut telling) = (Changes::default(), Telling::default());
        for name in names {
            let key = (at, name);
            if let Some(old) = self.files.remove(&key) {
                changes.extend(old.subjects());
            }
            let Some(file) = self.read(at, &key.1) else {
                tracing::info!(file = self.shown(at, &key.1), "attestation removed");
                continue;
            };
            file.envelopes.iter().for_each(|envelope| telling.tell(envelope, metrics));
            changes.extend(file.subjects());
            self.files.insert(key, file);
        }
        changes
    }

    /// `None` when the file is gone.
    fn read(&self, at: usize, name: &OsStr) -> Option<LoadedFile> {
        let shown = self.shown(at, name);
        let directory = &self.directories[at].path;
        let (bytes, stamp) = match directory::read(
            directory,
            name,
            self.reader.limits.max_envelope_bytes,
            self.reader.rules,
        ) {
            Ok(read) => read,
            Err(error) if error.is_gone() => return None,
            Err(error) => return Some(LoadedFile::refused(shown, &error)),
        };
        let envelopes = match Shape::of(name)? {
            Shape::One => vec![self.reader.envelope(shown, bytes)],
            Shape::Lines => {
                let lines = bytes.split(|byte| *byte == b'\n').enumerate();
                let lines = lines.filter(|(_, line)| !line.trim_ascii().is_empty());
                if let Some((number, _)) = lines.clone().nth(MAX_LINES) {
                    let reason = format!(
                        "refused whole: more than {MAX_LINES} attestations in one file; split it into several"
                    );
                    let refused = Refused { file: format!("{shown}:{}", number + 1), reason };
                    let loaded = Loaded { subjects: Vec::new(), outcome: Err(refused) };
                    return Some(LoadedFile { stamp: Some(stamp), envelopes: vec![Arc::new(loaded)] });
                }
                lines
                    .map(|(number, line)| {
                        self.reader.envelope(format!("{shown}:{}", number + 1), line.to_vec())
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
        let envelopes = every(&self.files, &self.asked);
        let unread = self.asked.values().flat_map(|fetched| &fetched.unread);
        let refused = envelopes.filter_map(|e| e.outcome.as_ref().err());
        let unkept = self.shelf.iter().filter_map(|shelf| shelf.fault.as_ref());
        self.faults.values().chain(refused).chain(unread).chain(unkept).cloned().collect()
    }
}

impl Reader {
    fn new(
        config: &config::Attestation,
        indexes: Arc<Indexes>,
        remembered: &mut Remembered,
    ) -> Result<(Self, Vec<Fault>), ImagesError> {
        let (policy, faults) = remembered.policy(config)?;
        let reader = Self {
            policy,
            limits: Limits::from(config),
            sbom_limits: sbom::Limits { max_bytes: config.max_sbom_bytes, max_depth: config.max_json_depth },
            rules: Rules::from(config.allow.as_slice()),
            indexes,
        };
        Ok((reader, faults))
    }

    /// Accepts and refuses the same.
    fn decides_as(&self, other: &Self) -> bool {
        let Self { policy, limits, sbom_limits, rules, indexes: _ } = self;
        policy.sha256() == other.policy.sha256()
            && (limits, sbom_limits, rules) == (&other.limits, &other.sbom_limits, &other.rules)
    }

    fn envelope(&self, file: String, bytes: Vec<u8>) -> Loaded {
        match attestation::verify(&bytes, &self.policy, &self.limits) {
            Ok(verified) => {
                // Up to some hundred megabytes that the parser could do with.
                drop(bytes);
                self.verified(file, verified)
            }
            Err(error) => refused(file, &error, attestation::claimed_subjects(&bytes, &self.limits)),
        }
    }

    /// What a source holds, which is `known` if it still is what it was; `None`: it says nothing but that the image is signed.
    pub(super) fn candidate(
        &self,
        found: &Found,
        candidate: &Candidate,
        known: Option<&Arc<Loaded>>,
    ) -> Option<Arc<Loaded>> {
        let file = candidate.from.clone();
        Some(match found.verify(candidate, &self.policy, &self.limits)? {
            Ok(verified) => match known.filter(|known| known.is(&verified)) {
                Some(known) => Arc::clone(known),
                None => Arc::new(self.verified(file, verified)),
            },
            Err(error) => Arc::new(refused(file, &error, Found::claimed(candidate, &self.limits))),
        })
    }

    fn verified(&self, file: String, verified: Verified) -> Loaded {
        let statement = &verified.statement;
        let subjects = subjects(statement).collect();
        let outcome = match self.content(statement, verified.time) {
            Err(reason) => Err(Refused { file, reason: format!("its signature is good, but {reason}") }),
            Ok((format, content)) => {
                let document = Document {
                    sha256: attestation::sha256(statement.predicate()),
                    envelope_sha256: verified.sha256,
                    format,
                    predicate: statement.predicate_type,
                    tool: content.index().and_then(|index| index.tool()).map(str::to_owned),
                    file,
                    signers: verified.signers,
                    time: verified.time,
                    binding: Binding::Unproven,
                };
                Ok(Accepted { document, content })
            }
        };
        Loaded { subjects, outcome }
    }

    /// Reads a verified document; its format, and what it says.
    fn content(
        &self,
        statement: &Statement,
        signed: Option<SystemTime>,
    ) -> Result<(String, Content), String> {
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
            _ => {
                let mut index = sbom_of(statement, &self.sbom_limits)?;
                // It was made before it was signed, and before now, whatever it says of itself.
                let now = SystemTime::now();
                index.not_after(signed.map_or(now, |signed| signed.min(now)));
                Ok((formats(&index), Content::Sbom(self.indexes.take(index))))
            }
        }
    }
}

/// Everything that was read, in the order of the files.
fn every<'a>(
    files: &'a BTreeMap<(usize, OsString), LoadedFile>,
    asked: &'a BTreeMap<Asked, Fetched>,
) -> impl Iterator<Item = &'a Arc<Loaded>> {
    files.values().flat_map(|file| &file.envelopes).chain(asked.values().flat_map(Fetched::envelopes))
}

/// Logs what cannot be read any more, and what can be read again.
fn tell_untrusted(before: &[Fault], now: &[Fault]) {
    for Fault { reason, .. } in now.iter().filter(|fault| !before.contains(fault)) {
        tracing::error!(reason, "cannot be read any more; what it has verified stays judged");
    }
    for Fault { reason, .. } in before.iter().filter(|fault| !now.contains(fault)) {
        tracing::info!(was = reason, "is not so any more");
    }
}

/// Reads the SBOM of a statement.
///
/// # Errors
/// Why it is refused: it cannot be read, or it is not what the predicate type says.
pub fn sbom_of(statement: &Statement, limits: &sbom::Limits) -> Result<ImageIndex, String> {
    read_sbom(statement.predicate(), (statement.predicate_type, &statement.predicate_uri), limits)
}

/// Reads the document of a statement, of a predicate type, that need not be signed yet.
///
/// # Errors
/// As [`sbom_of`].
pub fn read_sbom(
    document: &[u8],
    (said, uri): (PredicateType, &str),
    limits: &sbom::Limits,
) -> Result<ImageIndex, String> {
    match sbom::parse(document, limits) {
        Err(error) => Err(format!("the SBOM is refused: {error}")),
        Ok(index) if !index.formats().iter().all(|format| fits(*format, said)) => Err(format!(
            "the SBOM is refused: the predicate type is {uri:?}, but the document is {}",
            formats(&index)
        )),
        Ok(index) => Ok(index),
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

/// What a statement is about.
pub(super) fn subjects(statement: &Statement) -> impl Iterator<Item = Sha256> + '_ {
    statement.subjects.iter().filter_map(|subject| subject.sha256)
}

fn refused(file: String, error: &AttestationError, subjects: Vec<Sha256>) -> Loaded {
    let mut reason = error.to_string();
    if reason.len() > MAX_REASON {
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        reason.push('…');
        reason.shrink_to_fit();
    }
    Loaded { subjects, outcome: Err(Refused { file, reason }) }
}

/// Counts attestations and logs them: of many that are refused at once the first ones, and how many more.
#[derive(Debug, Default)]
pub(super) struct Telling {
    refused: usize,
}

impl Telling {
    pub(super) fn tell(&mut self, loaded: &Loaded, metrics: &Metrics) {
        match &loaded.outcome {
            Ok(Accepted { document, .. }) => {
                metrics.document_accepted();
                tracing::info!(file = document.file, document = %document.sha256, "attestation accepted");
            }
            Err(refused) => {
                metrics.document_refused();
                self.refused += 1;
                if self.refused <= TOLD {
                    tracing::warn!(file = refused.file, reason = refused.reason, "attestation refused");
                }
            }
        }
    }

    /// Attestations that were refused and not logged one by one.
    fn folded(&self) -> usize {
        self.refused.saturating_sub(TOLD)
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        if self.folded() > 0 {
            tracing::warn!(more = self.folded(), "attestations refused; `muster status --json` has them all");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_refusals_at_once_are_a_few_lines_and_one_more() {
        let (mut telling, metrics) = (Telling::default(), Metrics::new());
        for number in 0..10_000 {
            let refused = Refused { file: format!("{number}.json"), reason: "no JSON".to_owned() };
            telling.tell(&Loaded { subjects: Vec::new(), outcome: Err(refused) }, &metrics);
        }
        assert_eq!(telling.folded(), 9_980);
        assert!(metrics.text().contains("muster_documents_total{outcome=\"refused\"} 10000"));
    }
}
