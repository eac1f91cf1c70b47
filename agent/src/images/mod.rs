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
mod kept;
mod library;
mod loader;
mod lost;
mod register;
mod scope;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod watching;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption};
use crossbeam_channel::Sender;
use tokio::sync::{Notify, oneshot};

use crate::attestation::directory::{Change, Watched, Watcher};
use crate::attestation::source::SourceError;
use crate::attestation::{Fault, PolicyError, PredicateType, Provenance, Remembered, Signers, Vex};
use crate::config::Config;
use crate::finding::{Binding, Sha256};
pub use crate::identity::Digests;
use crate::metrics::{ImageKind, Metrics};
use crate::sbom::ImageIndex;
pub use binding::{Bound, bind};
use library::{Answer, Library};
use loader::{Changes, Loader};
pub use loader::{read_sbom, sbom_of};
pub use lost::{Loss, Lost};
use register::Register;
use store::Store;
use watching::PAUSES;

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
    /// It is judged by what was verified before, and that is not there any more.
    pub lost: Option<Lost>,
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
        let Answer { state, aside, facts, trusted_until, loss } = answer;
        let lost = loss.map(|loss| Lost::new(loss, SystemTime::now()));
        let mut image =
            Self { digest, digests, state, aside, facts, trusted_until, lost, used: Box::default() };
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

    /// Marks what an earlier register had marked, as far as it is still listed: numbers differ between indexes. What is lost is so
    /// since then.
    fn carry_over(&mut self, earlier: &Self) {
        if let (Some(lost), Some(before)) = (&mut self.lost, &earlier.lost) {
            lost.since = before.since;
        }
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
    /// Keys and trust root that cannot be read any more.
    untrusted: ArcSwap<Vec<Fault>>,
    /// What is not watched for now, and why.
    unwatched: Mutex<BTreeMap<PathBuf, String>>,
    loader: Mutex<Loader>,
    /// Tells whoever keeps what is verified that there is something new; while somebody does.
    wake: ArcSwapOption<Sender<()>>,
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
        let store = Store::existing(&config.attestation.verified_directory);
        let remembered = store.map(|store| store.remembered(&config.attestation)).unwrap_or_default();
        Self::with(config, metrics, remembered)
    }

    /// A register could be made of this configuration as the files are now.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when a key cannot be read that was read once.
    pub fn check(config: &Config) -> Result<(), ImagesError> {
        Self::with(config, Metrics::new(), Remembered::default()).map(drop)
    }

    fn with(
        config: &Config,
        metrics: Arc<Metrics>,
        remembered: Remembered,
    ) -> Result<Arc<Self>, ImagesError> {
        Ok(Arc::new(Self {
            library: ArcSwap::default(),
            register: Mutex::default(),
            refused: ArcSwap::default(),
            generation: AtomicU64::new(0),
            untrusted: ArcSwap::default(),
            unwatched: Mutex::default(),
            loader: Mutex::new(Loader::new(config, remembered)?),
            wake: ArcSwapOption::default(),
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
        drop(register);
        if merged {
            self.generation.fetch_add(1, Ordering::Release);
        }
        // Asked for while it is lost: that makes the node degraded, which is told there, too.
        if let (Some(wake), ImageState::Verified { .. }) = (&*self.wake.load(), &image.state) {
            // Full: it is told already.
            let _ = wake.try_send(());
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
        self.apply(Loader::start);
    }

    /// Why not all is as it should be with what images are judged by; each a sentence. Empty: all is well.
    pub fn degraded(&self) -> Vec<String> {
        let now = SystemTime::now();
        let untrusted = self.untrusted.load();
        let untrusted =
            untrusted.iter().map(|fault| format!("{}; what it has verified stays judged", fault.reason));
        let unwatched = self.unwatched.lock().unwrap_or_else(PoisonError::into_inner);
        let unwatched =
            unwatched.iter().map(|(path, why)| format!("{} is not watched: {why}", path.display()));
        let running = self.register().running();
        let lost = running.iter().filter_map(|image| {
            let lost = image.lost.as_ref().filter(|lost| lost.loss.is_kept && lost.is_current(now))?;
            Some(format!("sha256:{}: {}", image.digest, lost.loss.reason))
        });
        untrusted.chain(unwatched).chain(lost).collect()
    }

    /// Takes over a new configuration: with keys that cannot be read, all stays as it was. A [`Watch`] that runs goes on
    /// watching the old directories; start a new one.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn reload(&self, config: &Config) -> Result<(), ImagesError> {
        let remembered = self.loader.lock().unwrap_or_else(PoisonError::into_inner).remembered().clone();
        let new = Loader::new(config, remembered)?;
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
            let path = directory.path.clone();
            let (what, may_be_absent) = (Watched::Attestations(rules), directory.may_be_absent);
            let first = Watcher::new(path.clone(), theirs.try_clone()?, what, may_be_absent)?;
            let images = Arc::clone(self);
            let step = move |images: &Self, watcher: &mut Watcher| {
                match watcher.wait()? {
                    Change::Everything => {
                        images.changed(|l, metrics| l.directory(at, metrics), at, &directory);
                    }
                    Change::Files(files) => {
                        images.changed(|l, metrics| l.files(at, files, metrics), at, &directory);
                    }
                    Change::Stop => return Ok(false),
                }
                Ok(true)
            };
            let thread = std::thread::Builder::new().name("attestations".into()).spawn(move || {
                let tell = |error| images.tell_unwatched(&path, error);
                let make = || Watcher::new(path.clone(), theirs.try_clone()?, what, may_be_absent);
                watching::follow(first, make, |watcher| step(&images, watcher), &theirs, PAUSES, tell);
            })?;
            watch.stops.push(stop);
            watch.threads.push(thread);
        }
        let (keeper, thread) = self.keep_on()?;
        watch.keeper = Some(keeper);
        watch.threads.push(thread);
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
                let watcher = |path: &Path, stop: &UnixStream| {
                    Watcher::new(path.to_owned(), stop.try_clone()?, Watched::Layout, true)
                };
                let mut first = watcher(&layout, &theirs)?;
                // Before the first asking, so that nothing is missed and nothing asked twice.
                first.begin();
                let (now, images) = (Arc::clone(&now), Arc::clone(self));
                let thread = std::thread::Builder::new().name("layout".into()).spawn(move || {
                    let tell = |what| images.tell_unwatched(&layout, what);
                    let make = || watcher(&layout, &theirs);
                    watching::follow(
                        first,
                        make,
                        |watcher| layout_changed(watcher, &now),
                        &theirs,
                        PAUSES,
                        tell,
                    );
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

    /// Keeps what images are verified by that somebody asks for, on a thread of its own, until what is given back is dropped: who asks
    /// must not wait for a disk.
    fn keep_on(self: &Arc<Self>) -> io::Result<(Sender<()>, JoinHandle<()>)> {
        let ((wake, woken), (stop, stopped)) = (crossbeam_channel::bounded(1), crossbeam_channel::bounded(0));
        self.wake.store(Some(Arc::new(wake)));
        let images = Arc::clone(self);
        let thread = std::thread::Builder::new().name("keeper".into()).spawn(move || {
            loop {
                crossbeam_channel::select! {
                    recv(woken) -> woken => match woken {
                        Ok(()) => images.apply(|_, _| Changes::default()),
                        // Another one does it.
                        Err(_) => break,
                    },
                    recv(stopped) -> _ => break,
                }
            }
        })?;
        Ok((stop, thread))
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
            if watching::stops_within(stop, Duration::from_millis(every_ms.into())) {
                break;
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

    /// What is not watched for now, or is again.
    fn tell_unwatched(&self, path: &Path, what: Option<String>) {
        let mut unwatched = self.unwatched.lock().unwrap_or_else(PoisonError::into_inner);
        let path = path.to_owned();
        match what {
            Some(error) => {
                tracing::error!(error, path = %path.display(), "is not watched");
                unwatched.insert(path, error);
            }
            None => {
                tracing::info!(path = %path.display(), "is watched again");
                unwatched.remove(&path);
            }
        }
        drop(unwatched);
        self.metrics.set_degraded(self.degraded());
    }

    fn register(&self) -> MutexGuard<'_, Register> {
        self.register.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn apply(&self, work: impl FnOnce(&mut Loader, &Metrics) -> Changes) {
        let mut loader = self.loader.lock().unwrap_or_else(PoisonError::into_inner);
        let started = std::time::Instant::now();
        // Before anything changes: this is what is verified.
        let running = self.register().running();
        loader.note(&running);
        let changes = work(&mut loader, &self.metrics);
        crate::memory::give_back();
        self.refused.store(Arc::new(loader.refused()));
        self.untrusted.store(Arc::new(loader.untrusted().to_vec()));
        if !changes.is_empty() {
            self.update(&changes, &loader, started);
            let running = self.register().running();
            loader.note(&running);
        }
        if loader.keep() {
            self.refused.store(Arc::new(loader.refused()));
        }
        drop(loader);
        self.metrics.set_degraded(self.degraded());
    }

    /// Makes the images anew that changes are about.
    fn update(&self, changes: &Changes, loader: &Loader, started: std::time::Instant) {
        let library = Arc::new(loader.library());
        self.library.store(Arc::clone(&library));
        let mut register = self.register();
        if register.update(changes, &library) {
            let [verified, unproven, unverified, without, lost] = self.count(&register);
            // Before anybody sees what has changed: who then asks for the number has the one that stands for it.
            self.generation.fetch_add(1, Ordering::Release);
            drop(register);
            let took = format!("{:.1?}", started.elapsed());
            tracing::info!(verified, unproven, unverified, without, lost, took, "attestations loaded");
        }
    }

    /// Images by state: verified, of an unproven platform, unverified, without an SBOM, verified by what is lost.
    fn count(&self, register: &Register) -> [usize; 5] {
        let mut counts = [0; 5];
        for image in register.all() {
            counts[match &image.state {
                _ if image.lost.is_some() => 4,
                ImageState::Verified { .. } => 0,
                ImageState::PlatformUnproven { .. } => 1,
                ImageState::Unverified { .. } => 2,
                ImageState::NoSbom => 3,
            }] += 1;
        }
        let kinds = [
            ImageKind::Verified,
            ImageKind::PlatformUnproven,
            ImageKind::Unverified,
            ImageKind::NoSbom,
            ImageKind::Lost,
        ];
        kinds.into_iter().zip(counts).for_each(|(kind, count)| self.metrics.images(kind, count));
        counts
    }
}

/// Has the sources asked when the index of a layout has changed; `false`: no more.
fn layout_changed(watcher: &mut Watcher, now: &Notify) -> io::Result<bool> {
    if watcher.wait()? == Change::Stop || !watcher.settle(LAYOUT_QUIET, LAYOUT_LONGEST)? {
        return Ok(false);
    }
    now.notify_one();
    Ok(true)
}

/// The threads that watch the directories and ask the other sources; they end when this is dropped.
#[derive(Debug, Default)]
pub struct Watch {
    stops: Vec<UnixStream>,
    ends: Vec<oneshot::Sender<()>>,
    /// Dropped to end the thread that keeps what is verified.
    keeper: Option<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stops.clear();
        self.ends.clear();
        self.keeper = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread that looks for attestations panicked");
            }
        }
    }
}
