//! Accepted and refused documents by what they are about → the state of an image.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::SystemTime;

use super::binding::{Bound, bind};
use super::kept::Kept;
use super::loader::subjects;
use super::lost::{Loss, is_older, untrusted};
use super::scope::{self, Scope};
use super::{Document, Facts, Image, ImageState, Refused};
use crate::attestation::{Fault, Provenance, Verified, Vex};
use crate::finding::{Binding, Sha256};
use crate::identity::Digests;
use crate::sbom::{DigestPool, ImageIndex, SbomError};

/// One attestation. Of a refused one the subjects are what it claims.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) subjects: Vec<Sha256>,
    pub(super) outcome: Result<Accepted, Refused>,
}

impl Loaded {
    /// It was accepted, and verifying it again has given the same.
    pub(super) fn is(&self, verified: &Verified) -> bool {
        self.outcome.as_ref().is_ok_and(|Accepted { document, .. }| {
            (&document.envelope_sha256, &document.signers, &document.time)
                == (&verified.sha256, &verified.signers, &verified.time)
        }) && subjects(&verified.statement).eq(self.subjects.iter().copied())
    }
}

/// A document whose signatures and content are good. Its binding is decided for each image.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) document: Document,
    pub(super) content: Content,
}

/// What an accepted document says.
#[derive(Debug)]
pub(super) enum Content {
    Sbom(Arc<ImageIndex>),
    Provenance(Arc<Provenance>),
    Vex(Arc<Vex>),
}

impl Content {
    pub(super) fn index(&self) -> Option<&Arc<ImageIndex>> {
        match self {
            Self::Sbom(index) => Some(index),
            Self::Provenance(_) | Self::Vex(_) => None,
        }
    }
}

/// What is known of one image.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) state: ImageState,
    /// Good documents that do not count for this image, and why.
    pub(super) aside: Vec<Refused>,
    /// What other documents say of it.
    pub(super) facts: Facts,
    /// When the trust root that decides about it becomes stale.
    pub(super) trusted_until: Option<SystemTime>,
    /// What it is judged by is not there any more, or not what decides about it.
    pub(super) loss: Option<Loss>,
}

impl From<ImageState> for Answer {
    fn from(state: ImageState) -> Self {
        Self { state, aside: Vec::new(), facts: Facts::default(), trusted_until: None, loss: None }
    }
}

impl Answer {
    /// All of these documents count.
    fn rests_on(&self, last: &[&Arc<Loaded>]) -> bool {
        let ImageState::Verified { documents, .. } = &self.state else { return false };
        last.iter().filter_map(|loaded| loaded.outcome.as_ref().ok()).all(|Accepted { document, .. }| {
            documents.iter().any(|here| here.envelope_sha256 == document.envelope_sha256)
        })
    }

    /// It says less than what was verified last: nothing, or what is older.
    fn is_less(&self, before: &Self) -> bool {
        match (&self.state, &before.state) {
            (ImageState::Verified { documents, .. }, ImageState::Verified { documents: last, .. }) => {
                is_older(documents, last)
            }
            _ => true,
        }
    }

    /// Nothing that a finding or a person could be told has changed.
    pub(super) fn is(&self, image: &Image) -> bool {
        let Self { state, aside, facts, trusted_until, loss } = self;
        (aside, facts, trusted_until) == (&image.aside, &image.facts, &image.trusted_until)
            && loss.as_ref() == image.lost.as_ref().map(|lost| &lost.loss)
            && match (state, &image.state) {
                (ImageState::Verified { documents: a, .. }, ImageState::Verified { documents: b, .. }) => {
                    a == b
                }
                (
                    ImageState::PlatformUnproven { documents: a, reason: x, .. },
                    ImageState::PlatformUnproven { documents: b, reason: y, .. },
                ) => a == b && x == y,
                (ImageState::Unverified { reason: a }, ImageState::Unverified { reason: b }) => a == b,
                (ImageState::NoSbom, ImageState::NoSbom) => true,
                _ => false,
            }
    }
}

/// Every attestation that was read, by what it is about.
#[derive(Debug, Default)]
pub(super) struct Library {
    /// With its place in the order of the files.
    about: HashMap<Sha256, Vec<(u32, Arc<Loaded>)>>,
    /// The digests of an image by what the configuration says of them.
    complete: HashMap<Digests, Digests>,
    indexes: Arc<Indexes>,
    /// When the trust root becomes stale, if it decides about attestations.
    until: Option<SystemTime>,
    /// What was verified last.
    kept: Kept,
    /// Documents that count no longer, by their digest or their envelope's.
    retired: BTreeSet<Sha256>,
    /// What decides about attestations and cannot be read any more.
    faults: Vec<Fault>,
    /// Who may sign for which image.
    scopes: Vec<Scope>,
}

/// What decides about an image beside what is about it.
#[derive(Debug, Default)]
pub(super) struct Terms {
    pub(super) until: Option<SystemTime>,
    pub(super) kept: Kept,
    pub(super) retired: BTreeSet<Sha256>,
    pub(super) faults: Vec<Fault>,
    pub(super) scopes: Vec<Scope>,
}

impl Library {
    /// Of everything that was read, in the order of the files.
    pub(super) fn new<'a>(
        all: impl Iterator<Item = &'a Arc<Loaded>>,
        complete: HashMap<Digests, Digests>,
        indexes: Arc<Indexes>,
        terms: Terms,
    ) -> Self {
        let mut about: HashMap<Sha256, Vec<(u32, Arc<Loaded>)>> = HashMap::new();
        for (place, loaded) in (0..).zip(all) {
            let mut seen = HashSet::new();
            for subject in loaded.subjects.iter().filter(|subject| seen.insert(**subject)) {
                about.entry(*subject).or_default().push((place, Arc::clone(loaded)));
            }
        }
        let Terms { until, kept, retired, faults, scopes } = terms;
        Self { about, complete, indexes, until, kept, retired, faults, scopes }
    }

    /// What is more is known of images of the configuration: what it says, and everything.
    pub(super) fn completed(&self) -> impl Iterator<Item = (&Digests, &Digests)> {
        self.complete.iter()
    }

    /// The digests of an image with what was learned of it.
    pub(super) fn complete(&self, said: &Digests) -> Digests {
        self.complete.get(said).unwrap_or(said).clone()
    }

    /// Some attestation is about it.
    pub(super) fn names(&self, subject: &Sha256) -> bool {
        self.about.contains_key(subject)
    }

    /// What is known of an image: by what is there, and if that does not do, by what was verified last.
    pub(super) fn answer(&self, digests: &Digests) -> Answer {
        let about: BTreeMap<u32, &Loaded> = digests
            .subjects()
            .filter_map(|subject| self.about.get(&subject))
            .flatten()
            .map(|(place, loaded)| (*place, &**loaded))
            .collect();
        let mut now = self.decide(digests, about.into_values());
        let last = self.kept.about(digests);
        if !last.is_empty() && !now.rests_on(&last) {
            let before = self.decide(digests, last.iter().map(|loaded| &***loaded));
            if let (ImageState::Verified { documents, .. }, is_less) = (&before.state, now.is_less(&before))
                && is_less
            {
                let loss = Loss::of(&now.state, documents);
                return Answer { loss: Some(loss), aside: now.aside, facts: now.facts, ..before };
            }
        }
        if let ImageState::Verified { documents, .. } = &now.state {
            now.loss = untrusted(&self.faults, documents);
        }
        now
    }

    /// What these attestations say of an image.
    fn decide<'a>(&'a self, digests: &Digests, about: impl Iterator<Item = &'a Loaded>) -> Answer {
        let (mut proven, mut unproven, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let (mut facts, mut aside, mut unpermitted) = (Facts::default(), Vec::new(), Vec::new());
        for loaded in about {
            let Accepted { document, content } = match &loaded.outcome {
                Ok(accepted) => accepted,
                Err(why) => {
                    refused.push(why);
                    continue;
                }
            };
            if [document.sha256, document.envelope_sha256].iter().any(|digest| self.retired.contains(digest))
            {
                let reason = "does not count: attestation.retired names it".to_owned();
                aside.push(Refused { file: document.file.clone(), reason });
                continue;
            }
            if !scope::permits(&self.scopes, digests, &document.signers) {
                let reason = format!(
                    "signed by {}, who may not sign for this image by its `signers`",
                    document.signers
                );
                unpermitted.push(Refused { file: document.file.clone(), reason });
                continue;
            }
            match content {
                // What is said of the index is said of each platform.
                Content::Provenance(provenance) => facts.provenance.push(Arc::clone(provenance)),
                Content::Vex(vex) => facts.vex.push(Arc::clone(vex)),
                Content::Sbom(index) => match bind(digests, &loaded.subjects, index.origin()) {
                    Some(Bound::To(binding)) => proven.push((document.bound(binding), index)),
                    Some(Bound::Unproven(why)) => {
                        unproven.push((document.bound(Binding::Unproven), index, why));
                    }
                    None => {}
                },
            }
        }
        let by_certificate = |document: &Document| document.signers.identity.is_some();
        let state = if proven.is_empty() && unproven.is_empty() {
            without(&refused.iter().copied().chain(&unpermitted).collect::<Vec<_>>())
        } else if proven.is_empty() {
            self.unproven(unproven)
        } else {
            let why = |(document, _, why): (Document, _, String)| Refused {
                file: document.file,
                reason: format!("does not count: {why}"),
            };
            aside.extend(unproven.into_iter().map(why));
            aside.extend(superseded(&mut proven));
            let (documents, indexes): (Vec<_>, Vec<_>) = proven.into_iter().unzip();
            match self.indexes.union(&documents, &indexes) {
                Ok(index) => ImageState::Verified { index, documents },
                Err(error) => contradiction(&documents, &error),
            }
        };
        let trusted_until = self.until.filter(|_| match &state {
            ImageState::Verified { documents, .. } | ImageState::PlatformUnproven { documents, .. } => {
                documents.iter().any(by_certificate)
            }
            // A newer trust root may know who signed it.
            ImageState::Unverified { .. } => true,
            ImageState::NoSbom => false,
        });
        aside.extend(unpermitted);
        Answer { state, aside, facts, trusted_until, loss: None }
    }

    fn unproven(&self, unproven: Vec<(Document, &Arc<ImageIndex>, String)>) -> ImageState {
        let more = unproven.len() - 1;
        let reason = unproven.first().map_or_else(String::new, |(document, _, why)| match more {
            0 => format!("{}: {why}", document.file),
            _ => format!("{}: {why} (and {more} more)", document.file),
        });
        let (documents, indexes): (Vec<_>, Vec<_>) =
            unproven.into_iter().map(|(document, index, _)| (document, index)).unzip();
        // One document for each platform: they contradict each other, and say nothing together.
        let index = self.indexes.union(&documents, &indexes).ok();
        ImageState::PlatformUnproven { index, documents, reason }
    }
}

/// The state of an image that no document is good for.
fn without(refused: &[&Refused]) -> ImageState {
    match refused {
        [] => ImageState::NoSbom,
        [one] => ImageState::Unverified { reason: format!("{}: {}", one.file, one.reason) },
        [first, more @ ..] => ImageState::Unverified {
            reason: format!("{}: {} (and {} more)", first.file, first.reason, more.len()),
        },
    }
}

/// Takes out what a newer document of the same signers and of the same kind stands for. Without a verified time nobody can say
/// which of two is newer, so both count.
pub(super) fn superseded(proven: &mut Vec<(Document, &Arc<ImageIndex>)>) -> Vec<Refused> {
    let newest: Vec<_> = proven.iter().map(|(document, _)| document.clone()).collect();
    let mut aside = Vec::new();
    proven.retain(|(document, _)| {
        let newer = newest.iter().find(|other| {
            other.signers == document.signers
                && other.predicate == document.predicate
                && document.time.zip(other.time).is_some_and(|(own, other)| other > own)
        });
        if let Some(newer) = newer {
            let reason =
                format!("does not count: {} is newer, by the same signer and of the same kind", newer.file);
            aside.push(Refused { file: document.file.clone(), reason });
        }
        newer.is_none()
    });
    aside
}

/// Signed documents that cannot both be true: none of them is taken.
fn contradiction(documents: &[Document], error: &SbomError) -> ImageState {
    let files: Vec<_> = documents.iter().map(|document| document.file.as_str()).collect();
    let reason = format!("{} do not fit together: {error}; remove the wrong one", files.join(", "));
    tracing::warn!(reason, "the SBOMs of an image contradict each other");
    ImageState::Unverified { reason }
}

/// The indexes in use: different ones share their digests, and images with the same documents share their union.
#[derive(Debug, Default)]
pub(super) struct Indexes {
    digests: DigestPool,
    /// By the documents they are made of.
    unions: Mutex<HashMap<Vec<Sha256>, Weak<ImageIndex>>>,
}

impl Indexes {
    /// One to be used.
    pub(super) fn take(&self, mut index: ImageIndex) -> Arc<ImageIndex> {
        index.share(&self.digests);
        Arc::new(index)
    }

    fn union(
        &self,
        documents: &[Document],
        indexes: &[&Arc<ImageIndex>],
    ) -> Result<Arc<ImageIndex>, SbomError> {
        // The same document may have come twice, signed by others.
        let distinct: BTreeMap<Sha256, &Arc<ImageIndex>> =
            documents.iter().zip(indexes).map(|(document, index)| (document.sha256, *index)).collect();
        if distinct.len() == 1
            && let Some(one) = distinct.values().next()
        {
            return Ok(Arc::clone(one));
        }
        let key: Vec<_> = distinct.keys().copied().collect();
        let mut unions = self.unions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = unions.get(&key).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let parts: Vec<&ImageIndex> = distinct.values().map(|index| &***index).collect();
        let union = self.take(ImageIndex::union(&parts)?);
        unions.retain(|_, union| union.strong_count() > 0);
        unions.insert(key, Arc::downgrade(&union));
        Ok(union)
    }
}
