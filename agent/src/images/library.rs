//! Accepted and refused documents by what they are about → the state of an image.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rustc_hash::{FxHashMap, FxHashSet};

use super::binding::{Bound, bind};
use super::{Document, ImageState, Refused};
use crate::finding::{Binding, Sha256};
use crate::identity::Digests;
use crate::sbom::{ImageIndex, SbomError};

/// One attestation. Of a refused one the subjects are what it claims.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) subjects: Vec<Sha256>,
    pub(super) outcome: Result<Accepted, Refused>,
}

/// A document whose signatures and content are good. Its binding is decided for each image.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) document: Document,
    pub(super) index: Arc<ImageIndex>,
}

/// What is known of one image.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) state: ImageState,
    /// Good documents that do not count for this image, and why.
    pub(super) aside: Vec<Refused>,
}

impl Answer {
    /// Nothing that a finding or a person could be told has changed.
    pub(super) fn is(&self, state: &ImageState, aside: &[Refused]) -> bool {
        self.aside == aside
            && match (&self.state, state) {
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
    about: FxHashMap<Sha256, Vec<(u32, Arc<Loaded>)>>,
    unions: Arc<Unions>,
}

impl Library {
    /// Of everything that was read, in the order of the files.
    pub(super) fn new<'a>(all: impl Iterator<Item = &'a Arc<Loaded>>, unions: Arc<Unions>) -> Self {
        let mut about: FxHashMap<Sha256, Vec<(u32, Arc<Loaded>)>> = FxHashMap::default();
        for (place, loaded) in (0..).zip(all) {
            let mut seen = FxHashSet::default();
            for subject in loaded.subjects.iter().filter(|subject| seen.insert(**subject)) {
                about.entry(*subject).or_default().push((place, Arc::clone(loaded)));
            }
        }
        Self { about, unions }
    }

    /// Some attestation is about it.
    pub(super) fn names(&self, subject: &Sha256) -> bool {
        self.about.contains_key(subject)
    }

    /// What is known of an image.
    pub(super) fn answer(&self, digests: &Digests) -> Answer {
        let about: BTreeMap<u32, &Loaded> = digests
            .subjects()
            .filter_map(|subject| self.about.get(&subject))
            .flatten()
            .map(|(place, loaded)| (*place, &**loaded))
            .collect();
        let (mut proven, mut unproven, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for loaded in about.values() {
            match &loaded.outcome {
                Err(why) => refused.push(why),
                Ok(accepted) => match bind(digests, &loaded.subjects, accepted.index.origin()) {
                    Some(Bound::To(binding)) => {
                        proven.push((accepted.document.bound(binding), &accepted.index));
                    }
                    Some(Bound::Unproven(why)) => {
                        unproven.push((accepted.document.bound(Binding::Unproven), &accepted.index, why));
                    }
                    None => {}
                },
            }
        }
        if proven.is_empty() && !unproven.is_empty() {
            return self.unproven(unproven);
        }
        let mut aside: Vec<_> = unproven
            .into_iter()
            .map(|(document, _, why)| Refused {
                file: document.file,
                reason: format!("does not count: {why}"),
            })
            .collect();
        if proven.is_empty() {
            let state = match refused.as_slice() {
                [] => ImageState::NoSbom,
                [one] => ImageState::Unverified { reason: format!("{}: {}", one.file, one.reason) },
                [first, more @ ..] => ImageState::Unverified {
                    reason: format!("{}: {} (and {} more)", first.file, first.reason, more.len()),
                },
            };
            return Answer { state, aside };
        }
        aside.extend(superseded(&mut proven));
        let (documents, indexes): (Vec<_>, Vec<_>) = proven.into_iter().unzip();
        let state = match self.unions.of(&documents, &indexes) {
            Ok(index) => ImageState::Verified { index, documents },
            Err(error) => contradiction(&documents, &error),
        };
        Answer { state, aside }
    }

    fn unproven(&self, unproven: Vec<(Document, &Arc<ImageIndex>, String)>) -> Answer {
        let more = unproven.len() - 1;
        let reason = unproven.first().map_or_else(String::new, |(document, _, why)| match more {
            0 => format!("{}: {why}", document.file),
            _ => format!("{}: {why} (and {more} more)", document.file),
        });
        let (documents, indexes): (Vec<_>, Vec<_>) =
            unproven.into_iter().map(|(d, index, _)| (d, index)).unzip();
        // One document for each platform: they contradict each other, and say nothing together.
        let index = self.unions.of(&documents, &indexes).ok();
        Answer { state: ImageState::PlatformUnproven { index, documents, reason }, aside: Vec::new() }
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

/// Unions that somebody uses, by the documents they are made of, so that images with the same documents share one.
#[derive(Debug, Default)]
pub(super) struct Unions(Mutex<FxHashMap<Vec<Sha256>, Weak<ImageIndex>>>);

impl Unions {
    fn of(&self, documents: &[Document], indexes: &[&Arc<ImageIndex>]) -> Result<Arc<ImageIndex>, SbomError> {
        // The same document may have come twice, signed by others.
        let distinct: BTreeMap<Sha256, &Arc<ImageIndex>> =
            documents.iter().zip(indexes).map(|(document, index)| (document.sha256, *index)).collect();
        if distinct.len() == 1
            && let Some(one) = distinct.values().next()
        {
            return Ok(Arc::clone(one));
        }
        let key: Vec<_> = distinct.keys().copied().collect();
        let mut unions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = unions.get(&key).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let parts: Vec<&ImageIndex> = distinct.values().map(|index| &***index).collect();
        let union = Arc::new(ImageIndex::union(&parts)?);
        unions.retain(|_, union| union.strong_count() > 0);
        unions.insert(key, Arc::downgrade(&union));
        Ok(union)
    }
}
