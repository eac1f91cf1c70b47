//! The register: image digest → verified SBOM index, shared by all containers of the image. The one place where attestation
//! and SBOM meet.
//!
//! A document counts only after its envelope was verified. What is refused makes an image that has nothing else
//! [`ImageState::Unverified`], which is a message and never an attestation.

mod loader;
mod status;
#[cfg(test)]
mod tests;

use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use rustc_hash::FxHashMap;

use crate::attestation::directory::{Change, Watcher};
use crate::attestation::{PolicyError, Provenance, Signers, Vex};
use crate::config;
use crate::finding::Sha256;
use crate::metrics::{ImageKind, Metrics};
use crate::sbom::ImageIndex;
use loader::Loader;

/// Why the register cannot be made from a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// A key or the trust root is refused, or the threshold does not fit the keys.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The drop directory cannot be watched.
    #[error("cannot watch for attestations: {0}; fs.inotify.max_user_instances may be too low")]
    Watch(#[from] std::io::Error),
}

/// What is known of an image.
#[derive(Debug)]
pub enum ImageState {
    /// It has a verified SBOM.
    Verified {
        /// The union of its documents.
        index: Arc<ImageIndex>,
        /// The documents, by file name.
        documents: Vec<Document>,
    },
    /// What claims to be about it was refused.
    Unverified {
        /// Which file, and why.
        reason: String,
    },
    /// Nothing is about it.
    NoSbom,
}

/// A document that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// SHA-256 of the document, as it was signed.
    pub sha256: Sha256,
    /// SHA-256 of its envelope.
    pub envelope_sha256: Sha256,
    /// Format and version.
    pub format: String,
    /// File in the drop directory, with the line for `.jsonl`.
    pub file: String,
    /// Who signed it.
    pub signers: Signers,
}

/// What verified documents other than SBOMs say of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// How it was built.
    pub provenance: Vec<Arc<Provenance>>,
    /// Which vulnerabilities of its packages matter.
    pub vex: Vec<Arc<Vex>>,
}

/// A file of the drop directory, or a line of one, that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The file, with the line for `.jsonl`.
    pub file: String,
    /// Why.
    pub reason: String,
}

/// An image.
#[derive(Debug)]
pub struct Image {
    /// Its digest, as attestations name it.
    pub digest: Sha256,
    /// What is known of it.
    pub state: ImageState,
    /// What else is known of it.
    pub facts: Facts,
    /// One bit per file of the index.
    used: Box<[AtomicU64]>,
}

impl Image {
    /// An image none of whose files was seen in use.
    pub fn new(digest: Sha256, state: ImageState) -> Self {
        let files = match &state {
            ImageState::Verified { index, .. } => index.len(),
            ImageState::Unverified { .. } | ImageState::NoSbom => 0,
        };
        let words = files.div_ceil(64);
        Self { digest, state, facts: Facts::default(), used: (0..words).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Its verified SBOM.
    pub fn index(&self) -> Option<&Arc<ImageIndex>> {
        match &self.state {
            ImageState::Verified { index, .. } => Some(index),
            ImageState::Unverified { .. } | ImageState::NoSbom => None,
        }
    }

    /// The file of this number ([`Entry::id`](crate::sbom::Entry::id)) was seen running or mapped.
    pub fn mark_used(&self, id: u32) {
        let Some((word, bit)) = self.bit(id) else { return };
        // Most marks are repeated: do not take the cache line from the readers for nothing.
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// The file of this number was seen running or mapped.
    pub fn is_used(&self, id: u32) -> bool {
        self.bit(id).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// How many files were seen running or mapped.
    pub fn used_count(&self) -> u64 {
        self.used.iter().map(|word| u64::from(word.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// Marks what an earlier register had marked, as far as it is still listed: numbers differ between indexes.
    fn carry_over(&self, earlier: &Self) {
        let (Some(index), Some(before)) = (self.index(), earlier.index()) else { return };
        for entry in before.entries().filter(|entry| earlier.is_used(entry.id())) {
            if let Some(here) = index.by_path(entry.path().as_bytes()) {
                self.mark_used(here.id());
            }
        }
    }

    fn bit(&self, id: u32) -> Option<(&AtomicU64, u64)> {
        let word = self.used.get(usize::try_from(id / 64).ok()?)?;
        Some((word, 1 << (id % 64)))
    }
}

type Register = FxHashMap<Sha256, Arc<Image>>;

/// The register of images.
pub struct Images {
    register: ArcSwap<Register>,
    refused: ArcSwap<Vec<Refused>>,
    generation: AtomicU64,
    loader: Mutex<Loader>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images").field("images", &self.register.load().len()).finish_non_exhaustive()
    }
}

impl Images {
    /// An empty register that takes its attestations from where `config` says; [`load_now`](Self::load_now) fills it.
    ///
    /// # Errors
    /// When a key cannot be read or the threshold does not fit the keys.
    pub fn new(config: &config::Attestation, metrics: Arc<Metrics>) -> Result<Arc<Self>, ImagesError> {
        Ok(Arc::new(Self {
            register: ArcSwap::default(),
            refused: ArcSwap::default(),
            generation: AtomicU64::new(0),
            loader: Mutex::new(Loader::new(config)?),
            metrics,
        }))
    }

    /// What is known of the image with this digest.
    pub fn get(&self, digest: &Sha256) -> Arc<Image> {
        let known = self.register.load().get(digest).cloned();
        known.unwrap_or_else(|| Arc::new(Image::new(*digest, ImageState::NoSbom)))
    }

    /// Every image that an attestation is about, refused ones included, by digest.
    pub fn snapshot(&self) -> Vec<Arc<Image>> {
        let mut images: Vec<_> = self.register.load().values().cloned().collect();
        images.sort_unstable_by_key(|image| image.digest);
        images
    }

    /// What was refused, by file name.
    pub fn refused(&self) -> Arc<Vec<Refused>> {
        self.refused.load_full()
    }

    /// Rises whenever an image changed. Read it before asking for images, so that no change is missed.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Reads the drop directory. Files that are unchanged since the last time are not read again.
    pub fn load_now(&self) {
        self.apply(Loader::everything);
    }

    /// Takes over a new configuration: with keys that cannot be read, all stays as it was. A [`Watch`] that runs goes on
    /// watching the old directory; start a new one.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn reload(&self, config: &config::Attestation) -> Result<(), ImagesError> {
        let new = Loader::new(config)?;
        self.apply(|loader, metrics| {
            let old = std::mem::replace(loader, new);
            loader.everything_after(old, metrics)
        });
        Ok(())
    }

    /// Watches the drop directory on a thread of its own until the [`Watch`] is dropped.
    ///
    /// # Errors
    /// When the kernel gives no inotify instance or no thread.
    pub fn watch(self: &Arc<Self>) -> Result<Watch, ImagesError> {
        let (stop, theirs) = UnixStream::pair()?;
        let directory = self.loader.lock().unwrap_or_else(PoisonError::into_inner).directory().to_owned();
        let mut watcher = Watcher::new(directory, theirs)?;
        let images = Arc::clone(self);
        let thread = std::thread::Builder::new().name("attestations".into()).spawn(move || {
            loop {
                match watcher.wait() {
                    Ok(Change::Everything) => images.load_now(),
                    Ok(Change::Files(files)) => images.apply(|loader, metrics| loader.files(files, metrics)),
                    Ok(Change::Stop) => break,
                    Err(error) => {
                        tracing::error!(%error, "the drop directory is no longer watched; reload to try again");
                        break;
                    }
                }
            }
        })?;
        Ok(Watch { stop: Some(stop), thread: Some(thread) })
    }

    fn apply(&self, work: impl FnOnce(&mut Loader, &Metrics) -> loader::Changes) {
        let mut loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
        let started = std::time::Instant::now();
        let changes = work(&mut loader, &self.metrics);
        crate::memory::give_back();
        let images = loader.resolve(&self.register.load(), changes);
        self.refused.store(Arc::new(loader.refused()));
        if let Some(images) = images {
            let count = |kind: fn(&ImageState) -> bool| images.values().filter(|i| kind(&i.state)).count();
            let verified = count(|state| matches!(state, ImageState::Verified { .. }));
            let unverified = count(|state| matches!(state, ImageState::Unverified { .. }));
            self.metrics.images(ImageKind::Verified, verified);
            self.metrics.images(ImageKind::Unverified, unverified);
            self.register.store(Arc::new(images));
            self.generation.fetch_add(1, Ordering::Release);
            let took = format!("{:.1?}", started.elapsed());
            tracing::info!(verified, unverified, took, "attestations loaded");
        }
    }
}

/// The thread that watches the drop directory; it ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that watches the drop directory panicked");
        }
    }
}
