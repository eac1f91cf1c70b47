//! The register: image digest → verified SBOM index, shared by all containers of the image. The one place where attestation
//! and SBOM meet.
//!
//! A document counts only after its envelope was verified. What is refused makes an image that has nothing else
//! [`ImageState::Unverified`], which is a message and never an attestation.
//!
//! An image has several digests ([`Digests`]), and an attestation is about it when its subject is one of them. What is known of
//! an image is kept until an attestation about one of its digests comes, changes or goes, or what decides about attestations
//! (keys, trust root) changes; then it is found anew, and what already runs is judged by it from then on.

mod binding;
mod fetch;
mod library;
mod loader;
mod register;
mod status;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{Notify, oneshot};

use crate::attestation::directory::{Change, Watched, Watcher};
use crate::attestation::source::SourceError;
use crate::attestation::{PolicyError, PredicateType, Provenance, Signers, Vex};
use crate::config::Config;
use crate::finding::{Binding, Sha256};
pub use crate::identity::Digests;
use crate::metrics::{ImageKind, Metrics};
use crate::sbom::ImageIndex;
pub use binding::{Bound, bind};
use library::{Answer, Library};
use loader::{Changes, Loader};
pub use loader::{read_sbom, sbom_of};
use register::Register;

/// How often the keys and the trust root are looked at, milliseconds.
const POLICY_MS: u16 = 60_000;

/// How long a layout must be unchanged before it is asked: tools write its index once for each image that they copy.
const LAYOUT_QUIET: Duration = Duration::from_millis(250);
/// How long that is waited for.
const LAYOUT_LONGEST: Duration = Duration::from_secs(5);

/// Why the register cannot be made from a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    /// A key or the trust root is refused, or the threshold does not fit the keys.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A registry or an OCI layout cannot be asked.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The drop directory cannot be watched.
    #[error("cannot watch for attestations: {0}; fs.inotify.max_user_instances may be too low")]
    Watch(#[from] io::Error),
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
    /// Its attestations are good, but may be about another platform of the same index.
    PlatformUnproven {
        /// The union of its documents, for information only; `None` when they contradict each other.
        index: Option<Arc<ImageIndex>>,
        /// The documents, by file name.
        documents: Vec<Document>,
        /// Which file, and why.
        reason: String,
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
    /// What the statement says that it is.
    pub predicate: PredicateType,
    /// The tool that it names as its maker.
    pub tool: Option<String>,
    /// File in the drop directory, or path in another one, with the line for `.jsonl`; or where a registry or a layout has it.
    pub file: String,
    /// Who signed it.
    pub signers: Signers,
    /// When it was signed, if that is verified.
    pub time: Option<SystemTime>,
    /// What ties it to the image.
    pub binding: Binding,
}

impl Document {
    fn bound(&self, binding: Binding) -> Self {
        Self { binding, ..self.clone() }
    }
}

/// What verified documents other than SBOMs say of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// How it was built.
    pub provenance: Vec<Arc<Provenance>>,
    /// Which vulnerabilities of its packages matter.
    pub vex: Vec<Arc<Vex>>,
}

/// A file of the drop directory, a line of one, or what another source holds, that was refused.
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
    /// The digest under which it is shown.
    pub digest: Sha256,
    /// Every digest that is known of it.
    pub digests: Digests,
    /// What is known of it.
    pub state: ImageState,
    /// Good documents that do not count for it, and why.
    pub aside: Vec<Refused>,
    /// What else is known of it.
    pub facts: Facts,
    /// When the trust root that decides about its attestations becomes stale.
    pub trusted_until: Option<SystemTime>,
    /// One bit per file of the index.
    used: Box<[AtomicU64]>,
}

impl Image {
    /// An image of which one digest is known, and none of whose files was seen in use.
    pub fn new(digest: Sha256, state: ImageState) -> Self {
        Self::of(digest, Digests::named(digest), Answer::from(state))
    }

    /// `digest`: under which it is shown.
    fn of(digest: Sha256, digests: Digests, answer: Answer) -> Self {
        let Answer { state, aside, facts, trusted_until } = answer;
        let mut image = Self { digest, digests, state, aside, facts, trusted_until, used: Box::default() };
        let words = image.index().map_or(0, |index| index.len()).div_ceil(64);
        image.used = (0..words).map(|_| AtomicU64::new(0)).collect();
        image
    }

    /// Its SBOM: verified, or (see [`binding`](Self::binding)) for information only.
    pub fn index(&self) -> Option<&Arc<ImageIndex>> {
        match &self.state {
            ImageState::Verified { index, .. } => Some(index),
            ImageState::PlatformUnproven { index, .. } => index.as_ref(),
            ImageState::Unverified { .. } | ImageState::NoSbom => None,
        }
    }

    /// The documents of its SBOM.
    pub fn documents(&self) -> &[Document] {
        match &self.state {
            ImageState::Verified { documents, .. } | ImageState::PlatformUnproven { documents, .. } => {
                documents
            }
            ImageState::Unverified { .. } | ImageState::NoSbom => &[],
        }
    }

    /// What ties its SBOM to it: of the weakest of the documents.
    pub fn binding(&self) -> Option<Binding> {
        match &self.state {
            ImageState::PlatformUnproven { .. } => Some(Binding::Unproven),
            _ => self.documents().iter().map(|document| document.binding).min(),
        }
    }

    /// When the newest document of its SBOM was signed, of those whose time of signing is verified.
    pub fn signed(&self) -> Option<SystemTime> {
        self.documents().iter().filter_map(|document| document.time).max()
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

/// The register of images.
pub struct Images {
    library: ArcSwap<Library>,
    /// Held for look-ups and while images are made of documents that were read, never while files are.
    register: Mutex<Register>,
    refused: ArcSwap<Vec<Refused>>,
    generation: AtomicU64,
    loader: Mutex<Loader>,
    metrics: Arc<Metrics>,
}

impl fmt::Debug for Images {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Images").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Images {
    /// An empty register that takes its attestations from where `config` says; [`load_now`](Self::load_now) fills it.
    ///
    /// # Errors
    /// When a key cannot be read or the threshold does not fit the keys.
    pub fn new(config: &Config, metrics: Arc<Metrics>) -> Result<Arc<Self>, ImagesError> {
        Ok(Arc::new(Self {
            library: ArcSwap::default(),
            register: Mutex::default(),
            refused: ArcSwap::default(),
            generation: AtomicU64::new(0),
            loader: Mutex::new(Loader::new(config)?),
            metrics,
        }))
    }

    /// What is known of the image that has these digests. It is in the register from now on.
    pub fn get(&self, digests: &Digests) -> Arc<Image> {
        let mut register = self.register();
        if let Some(known) = register.known(digests) {
            return known;
        }
        let (image, merged) = register.ask(digests, &self.library.load());
        self.count(&register);
        if merged {
            self.generation.fetch_add(1, Ordering::Release);
        }
        image
    }

    /// Every image that a workload runs or that an attestation is about, refused ones included, by digest.
    pub fn snapshot(&self) -> Vec<Arc<Image>> {
        self.register().all()
    }

    /// What was refused, by file name.
    pub fn refused(&self) -> Arc<Vec<Refused>> {
        self.refused.load_full()
    }

    /// Rises whenever an image changed. Read it before asking for images, so that no change is missed.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Reads the directories. Files that are unchanged since the last time are not read again.
    pub fn load_now(&self) {
        self.apply(Loader::everything);
    }

    /// Takes over a new configuration: with keys that cannot be read, all stays as it was. A [`Watch`] that runs goes on
    /// watching the old directories; start a new one.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn reload(&self, config: &Config) -> Result<(), ImagesError> {
        let new = Loader::new(config)?;
        self.apply(|loader, metrics| {
            let old = std::mem::replace(loader, new);
            loader.everything_after(old, metrics)
        });
        Ok(())
    }

    /// Watches the directories, each on a thread of its own, and asks the other sources on another one, until the [`Watch`] is dropped.
    ///
    /// # Errors
    /// When the kernel gives no inotify instance or no thread.
    pub fn watch(self: &Arc<Self>) -> Result<Watch, ImagesError> {
        let loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
        let (directories, rules) = (loader.directories().to_vec(), loader.rules());
        let (has_signers, asking) = (loader.has_signers(), loader.asking());
        let (every, layouts) = (loader.ask_every(), loader.layouts().to_vec());
        drop(loader);
        let mut watch = Watch::default();
        for (at, directory) in directories.into_iter().enumerate() {
            let (stop, theirs) = UnixStream::pair()?;
            let mut watcher = Watcher::new(
                directory.path.clone(),
                theirs,
                Watched::Attestations(rules),
                directory.may_be_absent,
            )?;
            let images = Arc::clone(self);
            let thread = std::thread::Builder::new().name("attestations".into()).spawn(move || {
                loop {
                    match watcher.wait() {
                        Ok(Change::Everything) => {
                            images.changed(|l, metrics| l.directory(at, metrics), at, &directory);
                        }
                        Ok(Change::Files(files)) => {
                            images.changed(|l, metrics| l.files(at, files, metrics), at, &directory);
                        }
                        Ok(Change::Stop) => break,
                        Err(error) => {
                            let directory = directory.path.display();
                            tracing::error!(%error, %directory, "is no longer watched; reload to try again");
                            break;
                        }
                    }
                }
            })?;
            watch.stops.push(stop);
            watch.threads.push(thread);
        }
        if has_signers {
            let (stop, theirs) = UnixStream::pair()?;
            let images = Arc::clone(self);
            let thread = std::thread::Builder::new()
                .name("policy".into())
                .spawn(move || images.follow_policy(&theirs, POLICY_MS))?;
            watch.stops.push(stop);
            watch.threads.push(thread);
        }
        if let Some((sources, asked, now)) = asking {
            for layout in layouts {
                let (stop, theirs) = UnixStream::pair()?;
                // That it is not there is told by who asks it.
                let mut watcher = Watcher::new(layout.clone(), theirs, Watched::Layout, true)?;
                // Before the first asking, so that nothing is missed and nothing asked twice.
                watcher.begin();
                let now = Arc::clone(&now);
                let thread = std::thread::Builder::new().name("layout".into()).spawn(move || {
                    if let Err(error) = follow_layout(&mut watcher, &now) {
                        let layout = layout.display();
                        tracing::error!(%error, %layout, "is no longer watched; reload to try again");
                    }
                })?;
                watch.stops.push(stop);
                watch.threads.push(thread);
            }
            let (end, ended) = oneshot::channel();
            watch.threads.push(fetch::start(Arc::clone(self), sources, asked, now, every, ended)?);
            watch.ends.push(end);
        }
        Ok(watch)
    }

    /// Looks at the keys and the trust root now and then, until the other end of `stop` is closed: another program may exchange
    /// them, and the trust root becomes stale by itself.
    fn follow_policy(&self, stop: &UnixStream, every_ms: u16) {
        let is_stale = || {
            let loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
            loader.trust_root_until().is_some_and(|until| until < SystemTime::now())
        };
        let mut was_stale = is_stale();
        loop {
            match poll(&mut [PollFd::new(stop.as_fd(), PollFlags::POLLIN)], PollTimeout::from(every_ms)) {
                Ok(0) => {}
                Err(Errno::EINTR) => continue,
                Ok(_) => break,
                Err(error) => {
                    tracing::error!(%error, "keys and trust root are no longer watched; reload to try again");
                    break;
                }
            }
            self.apply(Loader::refresh);
            let now_stale = is_stale();
            if was_stale != now_stale {
                was_stale = now_stale;
                // Whoever holds an image must look at it again.
                self.generation.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// A watched directory has changed; one that is not of the configuration any more is of no interest.
    fn changed(
        &self,
        work: impl FnOnce(&mut Loader, &Metrics) -> Changes,
        at: usize,
        directory: &loader::Directory,
    ) {
        self.apply(|loader, metrics| match loader.directories().get(at) == Some(directory) {
            true => work(loader, metrics),
            false => Changes::default(),
        });
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, work: impl FnOnce(&mut Loader, &Metrics) -> Changes) {
        let mut loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
        let started = std::time::Instant::now();
        let changes = work(&mut loader, &self.metrics);
        crate::memory::give_back();
        self.refused.store(Arc::new(loader.refused()));
        if changes.is_empty() {
            return;
        }
        let library = Arc::new(loader.library());
        self.library.store(Arc::clone(&library));
        let mut register = self.register();
        if register.update(&changes, &library) {
            let [verified, unproven, unverified, without] = self.count(&register);
            // Before anybody sees what has changed: who then asks for the number has the one that stands for it.
            self.generation.fetch_add(1, Ordering::Release);
            drop(register);
            let took = format!("{:.1?}", started.elapsed());
            tracing::info!(verified, unproven, unverified, without, took, "attestations loaded");
        }
    }

    /// Images by state: verified, of an unproven platform, unverified, without an SBOM.
    fn count(&self, register: &Register) -> [usize; 4] {
        let mut counts = [0; 4];
        for image in register.all() {
            counts[match &image.state {
                ImageState::Verified { .. } => 0,
                ImageState::PlatformUnproven { .. } => 1,
                ImageState::Unverified { .. } => 2,
                ImageState::NoSbom => 3,
            }] += 1;
        }
        let kinds =
            [ImageKind::Verified, ImageKind::PlatformUnproven, ImageKind::Unverified, ImageKind::NoSbom];
        kinds.into_iter().zip(counts).for_each(|(kind, count)| self.metrics.images(kind, count));
        counts
    }
}

/// Has the sources asked whenever the index of a layout has changed.
fn follow_layout(watcher: &mut Watcher, now: &Notify) -> io::Result<()> {
    loop {
        if watcher.wait()? == Change::Stop || !watcher.settle(LAYOUT_QUIET, LAYOUT_LONGEST)? {
            return Ok(());
        }
        now.notify_one();
    }
}

/// The threads that watch the directories and ask the other sources; they end when this is dropped.
#[derive(Debug, Default)]
pub struct Watch {
    stops: Vec<UnixStream>,
    ends: Vec<oneshot::Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stops.clear();
        self.ends.clear();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that looks for attestations panicked");
            }
        }
    }
}
