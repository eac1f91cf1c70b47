//! Writing a recording: a thread of its own, so that a slow or full disk never makes the judge wait.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender};
use smallvec::SmallVec;

use super::{Answer, FORMAT, Frame, MAGIC, MAX_FRAME, Recorded, WorkloadSeed, checksum};
use crate::devices::{Again, Opened};
use crate::event::{Action, Content, Event, FilePath, FileRef, Owner, Start, Task};
use crate::judge::{Ancestry, Facts, HostName, Settled, Unsettled};
use crate::metrics::Metrics;
use crate::new_file::NewFile;
use crate::part::Part;
use crate::sbom::ImageIndex;
use crate::workload::Workload;

/// Frames that wait for the disk.
const QUEUE: usize = 16_384;
/// Bytes that are written at once.
const CHUNK: usize = 256 << 10;

/// What came of a recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Events that are in the file.
    pub events: u64,
    /// Events that are not: the disk was full or too slow.
    pub lost: u64,
}

/// A recording that is being written.
#[derive(Debug)]
pub struct Recording {
    file: PathBuf,
    frames: Option<Sender<Vec<u8>>>,
    /// Frames that the queue did not take and the file does not tell of yet.
    skipped: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
    thread: Option<JoinHandle<Written>>,
}

impl Recording {
    /// Makes the file (an old one is replaced; mode 0600) and begins it.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(file: &Path, metrics: Arc<Metrics>) -> io::Result<Self> {
        let mut to = NewFile::create(file, 0o600)?.replace()?;
        to.write_all(MAGIC)?;
        to.write_all(&FORMAT.to_le_bytes())?;
        let good = to.stream_position()?;
        let (frames, queue) = crossbeam_channel::bounded(QUEUE);
        let skipped = Arc::new(AtomicU64::new(0));
        let disk = Disk {
            name: file.to_owned(),
            to,
            good,
            chunk: Vec::with_capacity(CHUNK * 2),
            pending: 0,
            untold: 0,
            telling: 0,
            failing: false,
            written: Written::default(),
            skipped: Arc::clone(&skipped),
            metrics: Arc::clone(&metrics),
        };
        let thread =
            std::thread::Builder::new().name("muster-record".to_owned()).spawn(move || disk.run(&queue))?;
        Ok(Self { file: file.to_owned(), frames: Some(frames), skipped, metrics, thread: Some(thread) })
    }

    fn offer(&self, frame: &Frame) {
        let body = postcard::to_stdvec(frame).ok().filter(|b| b.len() <= MAX_FRAME);
        let taken = match (body, &self.frames) {
            (Some(body), Some(frames)) => frames.try_send(body).is_ok(),
            _ => false,
        };
        if !taken {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            self.metrics.recording_lost(1);
        }
    }

    /// Writes what is queued and closes the file.
    fn finish(&mut self) -> Written {
        self.frames = None;
        let Some(thread) = self.thread.take() else { return Written::default() };
        let written = thread.join().unwrap_or_default();
        let file = self.file.display();
        let Written { events, lost } = written;
        if lost == 0 {
            tracing::info!(%file, events, "recording closed");
        } else {
            tracing::warn!(%file, events, lost, "recording closed; events are missing in it");
        }
        written
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The file, and what is not in it yet.
struct Disk {
    name: PathBuf,
    to: File,
    /// Length of the file up to the last whole frame.
    good: u64,
    chunk: Vec<u8>,
    /// Events of `chunk`.
    pending: u64,
    /// Lost events that `chunk` does not tell of yet.
    untold: u64,
    /// Lost events that `chunk` tells of.
    telling: u64,
    failing: bool,
    written: Written,
    skipped: Arc<AtomicU64>,
    metrics: Arc<Metrics>,
}

impl Disk {
    fn run(mut self, queue: &Receiver<Vec<u8>>) -> Written {
        while let Ok(body) = queue.recv() {
            self.add(&body);
            // Written when there is enough of it, or nothing else to do.
            if self.chunk.len() >= CHUNK || queue.is_empty() {
                self.flush();
            }
        }
        self.end();
        self.written
    }

    /// A disk that has no room for the last events may still have some for saying that they are missing.
    fn end(&mut self) {
        for _ in 0..2 {
            self.tell();
            self.frame(&postcard::to_stdvec(&Frame::End).expect("a number can be encoded"));
            self.flush();
            if !self.failing {
                break;
            }
        }
    }

    fn add(&mut self, body: &[u8]) {
        self.tell();
        self.frame(body);
        self.pending += 1;
    }

    /// Notes lost events where they are missing.
    fn tell(&mut self) {
        let skipped = self.skipped.swap(0, Ordering::Relaxed);
        self.written.lost += skipped;
        self.untold += skipped;
        if self.untold > 0 {
            let lost = postcard::to_stdvec(&Frame::Lost(self.untold)).expect("a number can be encoded");
            self.frame(&lost);
            self.telling += std::mem::take(&mut self.untold);
        }
    }

    fn frame(&mut self, body: &[u8]) {
        let length = u32::try_from(body.len()).expect("a body is at most MAX_FRAME bytes");
        self.chunk.extend_from_slice(&length.to_le_bytes());
        self.chunk.extend_from_slice(&checksum(body).to_le_bytes());
        self.chunk.extend_from_slice(body);
    }

    fn flush(&mut self) {
        if self.chunk.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let telling = std::mem::take(&mut self.telling);
        match self.to.write_all(&self.chunk) {
            Ok(()) => {
                self.good += u64::try_from(self.chunk.len()).unwrap_or_default();
                self.written.events += pending;
                self.failing = false;
            }
            Err(error) => {
                // No half frame stays behind, or nothing after it could be read.
                let cut = self.to.set_len(self.good).and_then(|()| self.to.seek(SeekFrom::Start(self.good)));
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(
                        file = %self.name.display(), %error, ?cut,
                        "the recording cannot be written; events will be missing in it until that is possible again"
                    );
                }
                self.written.lost += pending;
                self.untold += telling + pending;
                self.metrics.recording_lost(pending);
            }
        }
        self.chunk.clear();
    }
}

/// Facts that write down what they answer.
#[derive(Debug)]
pub struct Recorder<F> {
    facts: F,
    recording: Part<Option<Recording>>,
}

/// What is known of an event, and what was answered about it.
#[derive(Debug)]
pub struct Case<C> {
    of: C,
    recorded: Part<Option<Box<Recorded>>>,
}

impl<C> Case<C> {
    fn note(&self, answer: impl FnOnce() -> Answer) {
        self.recorded.with(|recorded| {
            if let Some(recorded) = recorded {
                recorded.answers.push(answer());
            }
        });
    }
}

impl<F: Facts> Recorder<F> {
    /// Answers as `facts` do and writes it down if there is a recording.
    pub fn new(facts: F, recording: Option<Recording>) -> Self {
        Self { facts, recording: Part::new(recording) }
    }

    /// Where the answers come from.
    pub fn inner(&self) -> &F {
        &self.facts
    }

    /// Closes the recording and says what came of it.
    pub fn finish(&self) -> Option<Written> {
        self.recording.with(Option::take).map(|mut recording| recording.finish())
    }
}

impl<F: Facts> Facts for Recorder<F> {
    type Case = Case<F::Case>;

    fn begin(&self, event: &Event) -> Self::Case {
        let of = self.facts.begin(event);
        let is_recorded = self.recording.with(|recording| recording.is_some());
        let recorded = is_recorded.then(|| {
            let time = self.facts.time(&of);
            Box::new(Recorded { event: event.clone(), time, answers: SmallVec::new() })
        });
        Case { of, recorded: Part::new(recorded) }
    }

    fn end(&self, case: &Self::Case) {
        self.facts.end(&case.of);
        if let Some(recorded) = case.recorded.with(Option::take) {
            self.recording.with(|recording| {
                if let Some(recording) = recording {
                    recording.offer(&Frame::Event(recorded));
                }
            });
        }
    }

    fn time(&self, case: &Self::Case) -> SystemTime {
        self.facts.time(&case.of)
    }

    fn workload(&self, case: &Self::Case) -> Arc<Workload> {
        let workload = self.facts.workload(&case.of);
        case.note(|| Answer::Workload(WorkloadSeed::from(&*workload)));
        workload
    }

    async fn content(
        &self,
        case: &Self::Case,
        task: &Task,
        file: &FileRef,
        action: Action,
        weak: bool,
    ) -> Content {
        let content = self.facts.content(&case.of, task, file, action, weak).await;
        case.note(|| Answer::Content(file.path.clone(), content.clone()));
        content
    }

    async fn resolve(&self, case: &Self::Case, task: &Task, file: &FileRef) -> Result<FileRef, Arc<str>> {
        let resolved = self.facts.resolve(&case.of, task, file).await;
        case.note(|| Answer::Resolved(file.path.clone(), resolved.clone()));
        resolved
    }

    async fn start(&self, case: &Self::Case, task: &Task, file: &FileRef) -> Option<Start> {
        let start = self.facts.start(&case.of, task, file).await;
        case.note(|| Answer::Start(file.path.clone(), start));
        start
    }

    async fn again(&self, case: &Self::Case, task: &Task, file: &FileRef) -> Option<FileRef> {
        let again = self.facts.again(&case.of, task, file).await;
        case.note(|| Answer::Again(file.path.clone(), again.clone()));
        again
    }

    async fn program(&self, case: &Self::Case, task: &Task) -> Result<FileRef, Arc<str>> {
        let program = self.facts.program(&case.of, task).await;
        case.note(|| Answer::Program(program.clone()));
        program
    }

    async fn owner(
        &self,
        case: &Self::Case,
        workload: &Workload,
        index: &Arc<ImageIndex>,
        file: &FileRef,
    ) -> Option<Owner> {
        let owner = self.facts.owner(&case.of, workload, index, file).await;
        case.note(|| Answer::Owner(file.path.clone(), owner.clone()));
        owner
    }

    fn in_host_root(&self, case: &Self::Case, task: &Task) -> bool {
        let is = self.facts.in_host_root(&case.of, task);
        case.note(|| Answer::InHostRoot(is));
        is
    }

    async fn device_written(&self, case: &Self::Case, device: u32) -> Option<Vec<FilePath>> {
        let points = self.facts.device_written(&case.of, device).await;
        case.note(|| Answer::DeviceWritten(points.clone()));
        points
    }

    async fn devices_again(&self, case: &Self::Case, opened: &[Opened]) -> Vec<Again> {
        let again = self.facts.devices_again(&case.of, opened).await;
        case.note(|| Answer::DevicesAgain(again.clone()));
        again
    }

    async fn settle(&self, case: &Self::Case, files: &[Unsettled]) -> Vec<Settled> {
        let settled = self.facts.settle(&case.of, files).await;
        case.note(|| Answer::Settled(settled.clone()));
        settled
    }

    fn host(&self, case: &Self::Case) -> Option<Arc<Workload>> {
        let host = self.facts.host(&case.of);
        case.note(|| Answer::Host(host.as_deref().map(WorkloadSeed::from)));
        host
    }

    fn names(&self, case: &Self::Case, workload: &Workload, dev: u32, path: &FilePath) -> Vec<FilePath> {
        let names = self.facts.names(&case.of, workload, dev, path);
        case.note(|| Answer::Names(workload.is_host, path.clone(), names.clone()));
        names
    }

    fn host_name(
        &self,
        case: &Self::Case,
        task: &Task,
        dev: u32,
        place: Option<&FilePath>,
        used: &FilePath,
    ) -> HostName {
        let name = self.facts.host_name(&case.of, task, dev, place, used);
        if name != HostName::Used {
            case.note(|| Answer::HostName(used.clone(), name.clone()));
        }
        name
    }

    fn is_private(&self, case: &Self::Case, task: &Task, dev: u32) -> bool {
        let is = self.facts.is_private(&case.of, task, dev);
        if is {
            case.note(|| Answer::Private(dev));
        }
        is
    }

    async fn is_at(&self, case: &Self::Case, workload: &Workload, name: &FilePath, file: &FileRef) -> bool {
        let is = self.facts.is_at(&case.of, workload, name, file).await;
        case.note(|| Answer::IsAt(name.clone(), is));
        is
    }

    async fn listed_name(
        &self,
        case: &Self::Case,
        workload: &Workload,
        index: &Arc<ImageIndex>,
        file: &FileRef,
    ) -> Option<FilePath> {
        let listed = self.facts.listed_name(&case.of, workload, index, file).await;
        case.note(|| Answer::Listed(file.path.clone(), listed.clone()));
        listed
    }

    fn ancestry(&self, case: &Self::Case, task: &Task) -> Ancestry {
        let ancestry = self.facts.ancestry(&case.of, task);
        case.note(|| Answer::Ancestry(ancestry.clone()));
        ancestry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Reader;

    /// Begun at `path`, with nothing in it.
    fn begun(path: &Path) -> Disk {
        let mut to = File::create_new(path).expect("a private directory");
        to.write_all(&[&MAGIC[..], &FORMAT.to_le_bytes()].concat()).expect("written");
        Disk {
            name: path.to_owned(),
            good: to.stream_position().expect("a file"),
            to,
            chunk: Vec::new(),
            pending: 0,
            untold: 0,
            telling: 0,
            failing: false,
            written: Written::default(),
            skipped: Arc::default(),
            metrics: Metrics::new(),
        }
    }

    fn full() -> File {
        File::options().write(true).open("/dev/full").expect("every Linux has it")
    }

    fn frames(path: &Path) -> (Vec<Frame>, bool) {
        let mut reader = Reader::open(path).expect("a recording");
        let frames = std::iter::from_fn(|| reader.frame().expect("whole")).collect();
        (frames, reader.ended())
    }

    #[test]
    fn what_the_disk_did_not_take_is_counted_and_told_where_it_is_missing() {
        let dir = tempfile::tempdir().expect("a private directory");
        let path = dir.path().join("r");
        let mut disk = begun(&path);
        let event = postcard::to_stdvec(&Frame::Lost(77)).expect("a number");
        disk.add(&event);
        disk.flush();
        let good = std::mem::replace(&mut disk.to, full());
        disk.add(&event);
        disk.add(&event);
        disk.flush();
        disk.skipped.store(3, Ordering::Relaxed);
        // What tells of those before is lost with it.
        disk.add(&event);
        disk.flush();
        disk.to = good;
        disk.add(&event);
        disk.end();
        assert_eq!(disk.written, Written { events: 2, lost: 6 });
        assert_eq!(frames(&path), (vec![Frame::Lost(77), Frame::Lost(6), Frame::Lost(77)], true));
        // Those that were skipped are counted where that happens.
        let metrics = disk.metrics.text();
        assert!(metrics.contains("muster_recording_lost_events_total 3\n"), "{metrics}");
    }

    #[test]
    fn an_end_on_a_full_disk_tells_what_is_missing_or_is_missing_itself() {
        let dir = tempfile::tempdir().expect("a private directory");
        let event = postcard::to_stdvec(&Frame::Lost(77)).expect("a number");
        for (what, full_before, full_at_the_end, expected, lost) in [
            ("room for all", false, false, (vec![Frame::Lost(77)], true), 0),
            ("room for the end", true, false, (vec![Frame::Lost(1)], true), 1),
            ("no room", true, true, (vec![], false), 1),
            ("room for the event", false, true, (vec![Frame::Lost(77)], false), 0),
        ] {
            let path = dir.path().join(what);
            let mut disk = begun(&path);
            let good = disk.to.try_clone().expect("a file");
            let disks = |is_full| if is_full { full() } else { good.try_clone().expect("a file") };
            disk.add(&event);
            disk.to = disks(full_before);
            disk.flush();
            disk.to = disks(full_at_the_end);
            disk.end();
            assert_eq!((frames(&path), disk.written.lost), (expected, lost), "{what}");
        }
    }
}
