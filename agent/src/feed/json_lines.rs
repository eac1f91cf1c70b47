//! The JSON lines sink: its own thread behind a bounded queue, so that a slow or full disk costs lines and never time.
//!
//! What it costs is counted, logged once per streak, and published as findings of verdict `loss`: one when writing
//! starts to fail, one with the number when it works again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, never, select};

use crate::counted::counted;
use crate::event::{FilePath, Flavour};
use crate::finding::Finding;
use crate::metrics::{Metrics, Queue, Sink};

use super::hub::Hub;
use super::json;
use super::output::Output;

/// Findings that wait for the disk.
const QUEUE: usize = 16 << 10;
/// Bytes of findings that wait for the disk at most, however many may.
const MAX_BYTES: usize = 8 << 20;
/// Losses are reported at most so often.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// The file cannot be opened at the start.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot append to {path} for findings as JSON lines: {source}; make its directory, or set feed.json_lines to \
     another file or to \"-\"",
    path = path.display()
)]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

/// The feed's end of the sink. Dropping it lets the thread write what is queued and end.
#[derive(Debug)]
pub(super) struct JsonLines {
    findings: Sender<(Arc<Finding>, usize)>,
    /// Bytes of the findings that wait.
    waiting: Arc<AtomicUsize>,
    reopen: Sender<()>,
    /// Findings that did not fit in the queue and that the thread has not seen yet.
    dropped: Arc<AtomicU64>,
    /// Disconnected when the thread has ended.
    ended: Receiver<()>,
    metrics: Arc<Metrics>,
}

impl JsonLines {
    /// Opens the file and starts the thread.
    pub(super) fn start(path: &Path, hub: Weak<Hub>, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        Self::with_queue(path, QUEUE, hub, metrics)
    }

    pub(super) fn with_queue(
        path: &Path,
        queue: usize,
        hub: Weak<Hub>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let open_error = |source| OpenError { path: path.to_owned(), source };
        let output = Output::open(path).map_err(open_error)?;
        let (findings, queued) = bounded(queue);
        let (reopen, reopens) = bounded(1);
        let (alive, ended) = bounded(0);
        let dropped = Arc::new(AtomicU64::new(0));
        let waiting = Arc::new(AtomicUsize::new(0));
        let writer = Writer {
            output,
            path: path.to_owned(),
            lost: 0,
            failing: false,
            flavour: Flavour::Lsm,
            reported: None,
            dropped: Arc::clone(&dropped),
            waiting: Arc::clone(&waiting),
            hub,
            metrics: Arc::clone(&metrics),
            line: Vec::with_capacity(4 << 10),
        };
        std::thread::Builder::new()
            .name("json-lines".into())
            .spawn(move || {
                writer.run(&queued, reopens);
                drop(alive);
            })
            .map_err(open_error)?;
        Ok(Self { findings, waiting, reopen, dropped, ended, metrics })
    }

    /// Queues a finding of so many bytes, or counts it as lost. One at a time: the hub's lock is held.
    pub(super) fn offer(&self, finding: &Arc<Finding>, bytes: usize) {
        // Before the thread can take it away again.
        let waiting = self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if waiting > MAX_BYTES || self.findings.try_send((Arc::clone(finding), bytes)).is_err() {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.metrics.dropped(Sink::JsonLines, 1);
        }
        self.metrics.queue_length(Queue::JsonLines, self.findings.len());
    }

    /// Opens the file again, after it was renamed by log rotation.
    pub(super) fn reopen(&self) {
        // Full: a reopening waits already.
        let _waits_already = self.reopen.try_send(());
    }

    /// Lets the thread write what is queued; `false` if it has not ended after `patience`.
    pub(super) fn finish(self, patience: Duration) -> bool {
        let Self { findings, waiting: _, reopen, dropped: _, ended, metrics: _ } = self;
        drop((findings, reopen));
        ended.recv_timeout(patience) == Err(RecvTimeoutError::Disconnected)
    }
}

struct Writer {
    output: Output,
    path: PathBuf,
    /// Findings lost and not yet reported.
    lost: u64,
    /// The last write failed.
    failing: bool,
    /// Of the last finding: a finding about a loss has to name one.
    flavour: Flavour,
    reported: Option<Instant>,
    dropped: Arc<AtomicU64>,
    waiting: Arc<AtomicUsize>,
    hub: Weak<Hub>,
    metrics: Arc<Metrics>,
    line: Vec<u8>,
}

impl Writer {
    fn run(mut self, findings: &Receiver<(Arc<Finding>, usize)>, mut reopens: Receiver<()>) {
        loop {
            let patience = if self.lost > 0 { REPORT_EVERY } else { Duration::from_secs(3600) };
            select! {
                recv(reopens) -> message => match message {
                    Ok(()) => self.reopen(),
                    Err(_) => reopens = never(),
                },
                recv(findings) -> finding => match finding {
                    Ok((finding, bytes)) => {
                        self.write(&finding);
                        self.waiting.fetch_sub(bytes, Ordering::Relaxed);
                    }
                    Err(_) => break,
                },
                default(patience) => {}
            }
            self.metrics.queue_length(Queue::JsonLines, findings.len());
            self.lost += self.dropped.swap(0, Ordering::Relaxed);
            self.report();
        }
        if self.lost > 0 {
            tracing::error!(file = %self.path.display(), findings = self.lost, "findings were lost at the end");
        }
    }

    fn write(&mut self, finding: &Finding) {
        self.flavour = finding.flavour;
        self.line.clear();
        json::append_line(finding, &mut self.line);
        match self.output.write_line(&self.line) {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.lost += 1;
                self.metrics.dropped(Sink::JsonLines, 1);
                self.metrics.sink_error(Sink::JsonLines);
                let failing = std::mem::replace(&mut self.failing, true);
                // On an almost full disk short lines fit and long ones do not: not each of those is a new streak.
                if !failing && self.is_due() {
                    self.reported = Some(Instant::now());
                    let file = FilePath::from(self.path.as_os_str().as_encoded_bytes());
                    tracing::error!(%file, %error, "findings cannot be written, and are lost until they can");
                    self.publish(format!(
                        "findings cannot be written to {file}: {error}; they are lost until it works again"
                    ));
                }
            }
        }
    }

    fn reopen(&mut self) {
        match self.output.reopen() {
            Ok(()) => tracing::info!(file = %self.path.display(), "JSON lines file opened again"),
            Err(error) => {
                self.metrics.sink_error(Sink::JsonLines);
                tracing::error!(
                    file = %self.path.display(), %error,
                    "the JSON lines file cannot be opened again; writing goes on into the old one"
                );
            }
        }
    }

    fn report(&mut self) {
        if self.lost == 0 || self.failing || !self.is_due() {
            return;
        }
        let lost = std::mem::take(&mut self.lost);
        self.reported = Some(Instant::now());
        let file = FilePath::from(self.path.as_os_str().as_encoded_bytes());
        tracing::warn!(%file, findings = lost, "findings were lost; they are written again");
        let findings = counted(lost, "finding");
        self.publish(format!("{findings} could not be written to {file}, which now works again"));
    }

    fn is_due(&self) -> bool {
        self.reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY)
    }

    fn publish(&self, reason: String) {
        if let Some(hub) = self.hub.upgrade() {
            hub.publish(Finding::loss(self.flavour, reason));
        }
    }
}
