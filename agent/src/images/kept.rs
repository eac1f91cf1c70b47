//! What was verified last, by what it is about; held in memory, and in a directory for the next run ([`Store`]).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::library::{Accepted, Content, Loaded};
use super::store::{MAX_BYTES, MAX_ENVELOPES, Pairs, Store};
use super::{Image, ImageState, Refused};
use crate::attestation::Remembered;
use crate::finding::Sha256;
use crate::identity::Digests;

/// What no image was judged by for so long is forgotten: images come and go, and each one that is kept takes memory.
const UNUSED: Duration = Duration::from_secs(14 * 86_400);
/// How often it is noted that one is in use.
const REFRESHED: Duration = Duration::from_secs(86_400);

/// What was verified last.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    /// What it is about, and its envelope.
    pairs: Pairs,
    /// Those that the keys and the trust root of now accept, by their envelope.
    loaded: BTreeMap<Sha256, Arc<Loaded>>,
    /// Envelopes by which an image was judged in this run.
    used: BTreeSet<Sha256>,
}

impl Kept {
    /// What was verified last for an image.
    pub(super) fn about(&self, digests: &Digests) -> Vec<&Arc<Loaded>> {
        let of =
            |subject: Sha256| self.pairs.range((subject, Sha256([0; 32]))..=(subject, Sha256([0xff; 32])));
        let envelopes: BTreeSet<_> = digests.subjects().flat_map(of).map(|(_, envelope)| envelope).collect();
        let mut all: Vec<_> =
            envelopes.into_iter().filter_map(|envelope| self.loaded.get(envelope)).collect();
        // In the order of the files, as what is there is.
        all.sort_by_key(|loaded| loaded.outcome.as_ref().ok().map(|of| &of.document.file));
        all
    }

    /// Everything that some digest is kept for.
    pub(super) fn subjects(&self) -> impl Iterator<Item = Sha256> + '_ {
        self.pairs.iter().map(|(subject, _)| *subject)
    }

    fn envelopes(&self) -> BTreeSet<Sha256> {
        self.pairs.iter().map(|(_, envelope)| *envelope).collect()
    }

    /// Takes what images are verified by now in place of what was kept for them; `all` is what was read. Says whether that is new.
    pub(super) fn take<'a>(
        &mut self,
        images: &[Arc<Image>],
        all: impl Iterator<Item = &'a Arc<Loaded>>,
    ) -> bool {
        let (mut pairs, mut wanted) = (self.pairs.clone(), BTreeSet::new());
        for image in images {
            let ImageState::Verified { documents, .. } = &image.state else { continue };
            self.used.extend(documents.iter().map(|document| document.envelope_sha256));
            if image.lost.as_ref().is_some_and(|lost| lost.loss.is_kept) {
                continue;
            }
            for subject in image.digests.subjects() {
                pairs.retain(|(about, _)| *about != subject);
                pairs.extend(documents.iter().map(|document| (subject, document.envelope_sha256)));
            }
            wanted.extend(documents.iter().map(|document| document.envelope_sha256));
        }
        let mut is_new = pairs != self.pairs;
        self.pairs = pairs;
        if wanted.iter().any(|envelope| !self.loaded.contains_key(envelope)) {
            for loaded in all {
                if let Some(envelope) = envelope(loaded).filter(|envelope| wanted.contains(envelope)) {
                    is_new |= self.loaded.insert(envelope, Arc::clone(loaded)).is_none();
                }
            }
        }
        self.forget_unnamed();
        is_new
    }

    /// Loads what is kept anew, from what was read or else by `read`: what is not accepted any more does not count, but stays
    /// in the directory, for the keys may come back.
    pub(super) fn load<'a>(
        &mut self,
        all: impl Iterator<Item = &'a Arc<Loaded>>,
        mut read: impl FnMut(&Sha256) -> Option<Loaded>,
    ) {
        let known: BTreeMap<_, _> = all.filter_map(|loaded| Some((envelope(loaded)?, loaded))).collect();
        let load = |envelope: Sha256| {
            let loaded = match known.get(&envelope) {
                Some(loaded) => Arc::clone(loaded),
                None => Arc::new(read(&envelope)?),
            };
            match &loaded.outcome {
                Ok(Accepted { content: Content::Sbom(_), .. }) => Some((envelope, loaded)),
                Ok(_) => None,
                Err(Refused { file, reason }) => {
                    tracing::warn!(file, reason, "what was verified before is refused now");
                    None
                }
            }
        };
        self.loaded = self.envelopes().into_iter().filter_map(load).collect();
    }

    /// Forgets documents, by their digest or their envelope's.
    pub(super) fn retire(&mut self, retired: &BTreeSet<Sha256>) {
        let is_retired = |envelope: &Sha256| {
            retired.contains(envelope)
                || self.loaded.get(envelope).is_some_and(|loaded| {
                    loaded.outcome.as_ref().is_ok_and(|of| retired.contains(&of.document.sha256))
                })
        };
        let gone: BTreeSet<_> = self.envelopes().into_iter().filter(is_retired).collect();
        for envelope in &gone {
            tracing::info!(%envelope, "what was verified is retired");
        }
        self.forget(&gone);
    }

    fn forget_unnamed(&mut self) {
        let named = self.envelopes();
        self.loaded.retain(|envelope, _| named.contains(envelope));
        self.used.retain(|envelope| named.contains(envelope));
    }

    fn forget(&mut self, gone: &BTreeSet<Sha256>) {
        self.pairs.retain(|(_, envelope)| !gone.contains(envelope));
        self.forget_unnamed();
    }
}

fn envelope(loaded: &Arc<Loaded>) -> Option<Sha256> {
    Some(loaded.outcome.as_ref().ok()?.document.envelope_sha256)
}

/// The directory of what is kept, and what of it is written.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    store: Option<Store>,
    written: Pairs,
    /// With their sizes, and when an image was last judged by them.
    envelopes: BTreeMap<Sha256, (u64, SystemTime)>,
    trust: Option<Remembered>,
    /// Why it cannot be written or read, or is full.
    pub(super) fault: Option<Refused>,
}

impl Shelf {
    /// The directory; an empty path is none.
    pub(super) fn open(directory: &Path) -> (Self, Kept) {
        let mut shelf = Self::default();
        if directory.as_os_str().is_empty() {
            return (shelf, Kept::default());
        }
        let opened = Store::open(directory).and_then(|store| {
            let (pairs, envelopes) = (store.pairs()?, store.envelopes()?);
            Ok((store, pairs, envelopes.into_iter().collect()))
        });
        match opened {
            Ok((store, written, envelopes)) => {
                shelf = Self { store: Some(store), written, envelopes, trust: None, fault: None };
                let mut kept = Kept { pairs: shelf.written.clone(), ..Kept::default() };
                let old = SystemTime::now() - UNUSED;
                kept.forget(
                    &shelf.envelopes.iter().filter(|(_, (_, used))| *used < old).map(|(of, _)| *of).collect(),
                );
                (shelf, kept)
            }
            Err(error) => {
                shelf.say(directory, &error.to_string());
                (shelf, Kept::default())
            }
        }
    }

    /// Where it is.
    pub(super) fn store(&self) -> Option<&Store> {
        self.store.as_ref()
    }

    /// Writes what is new and removes what nothing is kept for. `read` gives an envelope's bytes.
    pub(super) fn write(
        &mut self,
        kept: &mut Kept,
        remembered: &Remembered,
        mut read: impl FnMut(&Sha256) -> Option<Vec<u8>>,
    ) {
        let Some(store) = &self.store else { return };
        let now = SystemTime::now();
        let is_old = |used: &SystemTime| now.duration_since(*used).unwrap_or_default() > REFRESHED;
        let mut fault = None;
        let mut done = || -> std::io::Result<()> {
            if self.trust.as_ref() != Some(remembered) {
                store.write_trust(remembered)?;
                self.trust = Some(remembered.clone());
            }
            let named = kept.envelopes();
            let gone: Vec<_> =
                self.envelopes.keys().filter(|envelope| !named.contains(envelope)).copied().collect();
            for envelope in gone {
                store.remove(&envelope)?;
                self.envelopes.remove(&envelope);
            }
            for envelope in &named {
                if let Some((_, used)) = self.envelopes.get_mut(envelope) {
                    if kept.used.contains(envelope) && is_old(used) {
                        store.touch(envelope)?;
                        *used = now;
                    }
                    continue;
                }
                // Of a registry or a layout, which keep it themselves.
                let Some(bytes) = read(envelope) else { continue };
                let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                if !make_room(&mut self.envelopes, kept, store, size)? {
                    fault = Some(format!(
                        "more than {MAX_ENVELOPES} attestations or {MAX_BYTES} bytes: not all of what is verified is known after a \
                         restart; remove what is of no use any more"
                    ));
                    continue;
                }
                store.put(envelope, &bytes)?;
                self.envelopes.insert(*envelope, (size, now));
            }
            let pairs: Pairs =
                kept.pairs.iter().filter(|(_, of)| self.envelopes.contains_key(of)).copied().collect();
            if pairs != self.written {
                store.write_pairs(&pairs)?;
                self.written = pairs;
            }
            Ok(())
        };
        let error = done().err().map(|error| format!("cannot be written: {error}"));
        let directory = store.directory().to_owned();
        match error.or(fault) {
            Some(reason) => self.say(&directory, &reason),
            None => self.fault = None,
        }
    }

    fn say(&mut self, directory: &Path, reason: &str) {
        let reason = format!("what is verified is not kept for a restart: {reason}");
        let fault = Refused { file: directory.display().to_string(), reason };
        if self.fault.as_ref() != Some(&fault) {
            tracing::warn!(
                directory = fault.file,
                reason = fault.reason,
                "what was verified is not all kept"
            );
        }
        self.fault = Some(fault);
    }
}

/// Makes room for one of `size` bytes: by those that no image was judged by in this run, the longest unused first. `false`: there
/// is none.
fn make_room(
    envelopes: &mut BTreeMap<Sha256, (u64, SystemTime)>,
    kept: &mut Kept,
    store: &Store,
    size: u64,
) -> std::io::Result<bool> {
    loop {
        let all = envelopes.values().fold(size, |sum, (size, _)| sum.saturating_add(*size));
        if envelopes.len() < MAX_ENVELOPES && all <= MAX_BYTES {
            return Ok(true);
        }
        let unused = envelopes.iter().filter(|(envelope, _)| !kept.used.contains(envelope));
        let Some(oldest) = unused.min_by_key(|(_, (_, used))| *used).map(|(envelope, _)| *envelope) else {
            return Ok(false);
        };
        tracing::warn!(envelope = %oldest, "forgotten: too much is kept of what was verified");
        store.remove(&oldest)?;
        envelopes.remove(&oldest);
        kept.forget(&BTreeSet::from([oldest]));
    }
}
