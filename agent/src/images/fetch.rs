//! Registries and OCI layouts: asked on a thread of their own, never on the way of an event.
//!
//! They are asked for the images that the configuration names. What they held stays while they cannot be reached, or while not
//! all of it can be read: an attestation does not cease to count because a registry is down.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};
use tokio::task::JoinSet;

use super::library::Loaded;
use super::loader::{Changes, Reader, Telling};
use super::{Image, ImageState, Images, Refused};
use crate::attestation::source::{Complete, Form, Found, Reference, Scope, Sources};
use crate::config::Config;
use crate::finding::Sha256;
use crate::identity::Digests;
use crate::metrics::{Asking, Metrics};

/// How often sources are asked again for an image that is verified: there may be a newer attestation.
const NEWER: Duration = Duration::from_secs(3600);

/// Images that are asked for at the same time.
const AT_ONCE: usize = 4;

/// An image for which the sources are asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asked {
    reference: Option<Reference>,
    digests: Digests,
}

/// As messages name it.
impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.reference, self.digests.shown()) {
            (Some(reference), _) => reference.fmt(f),
            (None, Some(digest)) => write!(f, "sha256:{digest}"),
            (None, None) => f.write_str("no image"),
        }
    }
}

impl Asked {
    /// What the configuration says of it.
    pub(super) fn digests(&self) -> &Digests {
        &self.digests
    }

    /// Every image of the configuration that some source can be asked for.
    pub(super) fn all(config: &Config) -> BTreeMap<Self, Fetched> {
        let (layouts, registry) =
            (!config.attestation.layouts.is_empty(), config.attestation.registry.enabled);
        let workloads = config.workloads.iter().map(|workload| Self {
            reference: workload.reference.clone().filter(|_| registry),
            digests: workload.digests(),
        });
        let host = config.host.image.map(|image| Self {
            reference: None,
            digests: Digests { key: Some(image), ..Digests::default() },
        });
        let all: BTreeMap<_, _> = workloads
            .chain(host)
            .filter(|asked| layouts || asked.reference.is_some())
            .map(|asked| (asked, Fetched::default()))
            .collect();
        if registry && all.keys().all(|asked| asked.reference.is_none()) {
            tracing::warn!(
                "attestation.registry is enabled, but no [[workload]] has a `reference`: no registry is asked"
            );
        }
        all
    }
}

/// What the sources held for an image.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    /// With the digest of what was fetched.
    envelopes: Vec<(Sha256, Arc<Loaded>)>,
    /// What could not be read, and what does not fit the configuration.
    pub(super) unread: Vec<Refused>,
    /// The image's digests, completed. What a digest leads to never changes, so this stays while the image is asked for.
    complete: Option<Digests>,
}

impl Fetched {
    pub(super) fn envelopes(&self) -> impl Iterator<Item = &Arc<Loaded>> {
        self.envelopes.iter().map(|(_, envelope)| envelope)
    }

    pub(super) fn subjects(&self) -> impl Iterator<Item = Sha256> + '_ {
        self.envelopes().flat_map(|envelope| envelope.subjects.iter().copied())
    }

    /// Forgets the attestations, which must be read anew.
    pub(super) fn forget(&mut self) -> Changes {
        let Self { envelopes, unread, complete: _ } = self;
        unread.clear();
        envelopes.drain(..).flat_map(|(_, envelope)| envelope.subjects.clone()).collect()
    }

    /// The image's digests with what the sources have proven of it.
    pub(super) fn complete(&self) -> Option<&Digests> {
        self.complete.as_ref()
    }

    /// Takes an answer in place of the one before.
    pub(super) fn take(
        &mut self,
        asked: &Asked,
        found: &Found,
        reader: &Reader,
        metrics: &Metrics,
    ) -> Changes {
        let before = std::mem::take(self);
        let (mut changes, mut telling) = (Changes::default(), Telling::default());
        for candidate in &found.candidates {
            let known = before.envelopes.iter().find(|(sha256, _)| *sha256 == candidate.sha256);
            let known = known.map(|(_, known)| known);
            let good = known.filter(|known| known.outcome.is_ok());
            // What is signed itself stays good. A statement is as good as the signature over its index, which may have come, gone, or
            // been replaced.
            let is_signed_itself = !matches!(candidate.form, Form::Statement { .. });
            if let Some(good) = good.filter(|_| is_signed_itself) {
                self.envelopes.push((candidate.sha256, Arc::clone(good)));
                continue;
            }
            let Some(loaded) = reader.candidate(found, candidate, good) else { continue };
            if loaded.outcome.is_err()
                && !found.is_whole()
                && let Some(good) = good
            {
                self.envelopes.push((candidate.sha256, Arc::clone(good)));
                continue;
            }
            let is_told = known.is_some_and(|known| match (&known.outcome, &loaded.outcome) {
                (Err(before), Err(now)) => before == now,
                _ => Arc::ptr_eq(known, &loaded),
            });
            if !is_told {
                telling.tell(&loaded, metrics);
                changes.extend(loaded.subjects.iter().chain(known.iter().flat_map(|of| &of.subjects)));
            }
            self.envelopes.push((candidate.sha256, loaded));
        }
        for (sha256, gone) in before.envelopes {
            if self.envelopes.iter().any(|(here, _)| *here == sha256) {
                continue;
            }
            if gone.outcome.is_ok() && !found.is_whole() {
                self.envelopes.push((sha256, gone));
            } else {
                tracing::info!(image = %asked, fetched = %sha256, "attestation removed");
                changes.extend(gone.subjects.iter().copied());
            }
        }
        let unreachable = found
            .unreachable
            .iter()
            .map(|reason| Refused { file: asked.to_string(), reason: reason.clone() });
        let refused =
            found.refused.iter().map(|left| Refused { file: left.from.clone(), reason: left.reason.clone() });
        let Complete { digests, doubt } = found.digests.complete(&asked.digests);
        let doubt = doubt.map(|reason| Refused { file: asked.to_string(), reason });
        self.unread = unreachable.chain(refused).chain(doubt).collect();
        for Refused { file, reason } in self.unread.iter().filter(|new| !before.unread.contains(new)) {
            tracing::warn!(file, reason, "not fetched");
        }
        // A source that cannot be reached, or has not all of it, takes nothing back.
        let is_more = |new: &Digests| {
            before.complete.as_ref().is_none_or(|old| old.config.is_none() || new.config.is_some())
        };
        let digests = digests.filter(is_more).or_else(|| before.complete.clone());
        if let Some(complete) = &digests
            && digests != before.complete
        {
            tracing::info!(image = %asked, ?complete, "the digests of an image are known");
            changes.extend(asked.digests.subjects());
        }
        self.complete = digests;
        changes
    }
}

/// Asks for each image now, and again: `every` so often until it is verified, and at once when `now` says so. Ends when the
/// other end of `ended` is gone.
pub(super) fn start(
    images: Arc<Images>,
    sources: Arc<Sources>,
    asked: Vec<Asked>,
    now: Arc<Notify>,
    every: Duration,
    ended: oneshot::Receiver<()>,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("sources".into()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "registries and layouts are not asked; reload to try again");
                return;
            }
        };
        runtime.block_on(async {
            tokio::select! {
                // Whether it was sent or dropped says the same.
                _ = ended => {}
                () = follow(&images, &sources, &asked, &now, every) => {}
            }
        });
        // A file that is being read is of no interest any more.
        runtime.shutdown_background();
    })
}

async fn follow(
    images: &Arc<Images>,
    sources: &Arc<Sources>,
    asked: &[Asked],
    now: &Notify,
    every: Duration,
) {
    let mut newer = Instant::now() + NEWER;
    let mut all = true;
    loop {
        let due = asked.iter().filter(|image| all || !images.is_verified(image)).cloned();
        let ask = |image: Asked| {
            let sources = Arc::clone(sources);
            async move {
                // What leads to others first.
                let mut digests: Vec<_> = image.digests.subjects().collect();
                digests.sort_by_key(|digest| Some(*digest) == image.digests.config);
                let found = sources.candidates(image.reference.as_ref(), &digests, Scope::Here).await;
                (image, found)
            }
        };
        a_few_at_once(due, ask, |(image, found)| images.fetched(&image, &found)).await;
        let woken = tokio::time::timeout(every, now.notified()).await.is_ok();
        all = woken || Instant::now() >= newer;
        if all {
            newer = Instant::now() + NEWER;
        }
    }
}

/// Asks for [`AT_ONCE`] of them at a time and takes each answer as it comes: one may hold as many bytes as an envelope may have.
async fn a_few_at_once<T, A, F>(of: impl Iterator<Item = T>, ask: impl Fn(T) -> F, mut take: impl FnMut(A))
where
    A: Send + 'static,
    F: Future<Output = A> + Send + 'static,
{
    let mut waiting = of.fuse();
    let mut asking = JoinSet::new();
    loop {
        let room = AT_ONCE.saturating_sub(asking.len());
        for next in waiting.by_ref().take(room) {
            asking.spawn(ask(next));
        }
        match asking.join_next().await {
            None => break,
            Some(Ok(answer)) => take(answer),
            Some(Err(error)) => tracing::error!(%error, "asking for attestations failed"),
        }
    }
}

impl Images {
    /// The image has what it needs, from wherever.
    fn is_verified(&self, asked: &Asked) -> bool {
        let named: Vec<_> = asked.digests.subjects().collect();
        let is_it = |image: &Image| image.digests.subjects().any(|digest| named.contains(&digest));
        let all = self.snapshot();
        let mut of_it = all.iter().filter(|image| is_it(image)).peekable();
        let is_good =
            |image: &Arc<Image>| matches!(image.state, ImageState::Verified { .. }) && image.lost.is_none();
        of_it.peek().is_some() && of_it.all(is_good)
    }

    fn fetched(&self, asked: &Asked, found: &Found) {
        self.metrics.asked(if !found.is_whole() {
            Asking::Failed
        } else if found.candidates.is_empty() {
            Asking::Nothing
        } else {
            Asking::Found
        });
        self.apply(|loader, metrics| loader.fetched(asked, found, metrics));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::{AT_ONCE, a_few_at_once};

    #[tokio::test]
    async fn answers_do_not_heap_up() {
        let held = Arc::new(AtomicUsize::new(0));
        let (mut most, mut taken) = (0, Vec::new());
        let ask = |number: usize| {
            let held = Arc::clone(&held);
            async move {
                held.fetch_add(1, Ordering::AcqRel);
                assert_ne!(number, 7, "one that fails ends no other");
                // The later ones answer first.
                for _ in number % AT_ONCE..AT_ONCE {
                    tokio::task::yield_now().await;
                }
                number
            }
        };
        let take = |number| {
            most = most.max(held.fetch_sub(1, Ordering::AcqRel));
            taken.push(number);
        };
        a_few_at_once(0..20, ask, take).await;
        // One more is for the one that failed.
        assert!(most == AT_ONCE || most == AT_ONCE + 1, "{most} at once");
        assert_ne!(taken, (0..20).filter(|n| *n != 7).collect::<Vec<_>>(), "each as it comes");
        taken.sort_unstable();
        assert_eq!(taken, (0..20).filter(|n| *n != 7).collect::<Vec<_>>());
    }
}
