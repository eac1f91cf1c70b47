//! The judge's thread.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, select_biased};

use super::running::Running;
use super::{Judge, Live, since_boot};
use crate::config::Config;
use crate::exceptions::Exceptions;
use crate::feed::Feed;
use crate::finding::{Finding, WorkloadInfo};
use crate::images::Images;
use crate::metrics::{Metrics, Queue, Stage as Measured};
use crate::part::Part;
use crate::record::{Recorder, Recording};
use crate::sensor::Batch;

/// Batches that wait for the judge. When they are full the sensor waits, and the rings take what comes.
pub const QUEUE: usize = 256;
/// How often the judge looks at the clock when no events come.
const TICK: Duration = Duration::from_millis(500);
/// How long what ran before the agent waits at most for a time without events.
const WAIT_AT_MOST: Duration = Duration::from_millis(200);
/// Workloads whose events are counted; more than a node has.
const WORKLOADS: usize = 16_384;

/// What the rest of the agent may know of the judge.
#[derive(Debug, Default)]
pub struct Seen {
    workloads: Mutex<BTreeMap<String, (Arc<WorkloadInfo>, u64)>>,
    processes: AtomicU64,
}

impl Seen {
    /// Every workload with its events so far, ordered by id.
    pub fn workloads(&self) -> Vec<(Arc<WorkloadInfo>, u64)> {
        let workloads = self.workloads.lock().unwrap_or_else(PoisonError::into_inner);
        workloads.values().cloned().collect()
    }

    /// Living processes.
    pub fn processes(&self) -> u64 {
        self.processes.load(Ordering::Relaxed)
    }

    fn update(&self, live: &mut Live, metrics: &Metrics) {
        let mut workloads = self.workloads.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, (info, count)) in live.take_events() {
            if workloads.len() >= WORKLOADS && !workloads.contains_key(&id) {
                tracing::warn!(workloads = WORKLOADS, "too many workloads: counting their events anew");
                workloads.clear();
            }
            let entry = workloads.entry(id).or_insert((info, 0));
            entry.1 += count;
        }
        drop(workloads);
        self.processes.store(u64::try_from(live.publish(metrics)).unwrap_or_default(), Ordering::Relaxed);
    }
}

/// The running judge.
#[derive(Debug)]
pub struct Stage {
    thread: JoinHandle<()>,
    reload: Sender<Box<Config>>,
    /// Only to see how many wait.
    batches: Receiver<Batch>,
    seen: Arc<Seen>,
}

/// Where the judge takes a new configuration from.
#[derive(Clone, Debug)]
pub struct Handover(Sender<Box<Config>>);

impl Handover {
    /// The one before is taken, so that one can be handed over.
    pub fn is_free(&self) -> bool {
        !self.0.is_full()
    }

    /// Hands it over; `false` when the one before is not taken yet.
    pub fn give(&self, config: Config) -> bool {
        self.0.try_send(Box::new(config)).is_ok()
    }
}

/// What the judge works with.
#[derive(Debug)]
pub struct Rooms {
    /// The register of images.
    pub images: Arc<Images>,
    /// Where findings go.
    pub feed: Arc<Feed>,
    /// What is not to be said as it was found.
    pub exceptions: Arc<Exceptions>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
}

impl Stage {
    /// Starts the thread. It ends when all senders of `batches` are gone and everything is judged.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        live: Live,
        running: Running,
        recording: Option<Recording>,
        rooms: Rooms,
        batches: Receiver<Batch>,
    ) -> io::Result<Self> {
        let (reload, configs) = crossbeam_channel::bounded(1);
        let seen = Arc::new(Seen::default());
        let facts = Recorder::new(Part::new(live), recording);
        let thread = {
            let (seen, incoming) = (Arc::clone(&seen), batches.clone());
            std::thread::Builder::new()
                .name("muster-judge".to_owned())
                .spawn(move || run(facts, running, rooms, &seen, &incoming, &configs))?
        };
        Ok(Self { thread, reload, batches, seen })
    }

    /// Batches wait to be judged.
    pub fn is_behind(&self) -> bool {
        !self.batches.is_empty()
    }

    /// What the judge has seen so far.
    pub fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen)
    }

    /// Where to hand over a new configuration.
    pub fn handover(&self) -> Handover {
        Handover(self.reload.clone())
    }

    /// Judges what is queued and ends, in at most `deadline` if the sensor has stopped. `false`: it did not, and what
    /// it had not judged by then is lost.
    pub fn finish(self, deadline: Duration) -> bool {
        let Self { thread, reload, batches, seen: _ } = self;
        drop((reload, batches));
        let step = Duration::from_millis(5);
        let mut waited = Duration::ZERO;
        while !thread.is_finished() && waited < deadline {
            std::thread::sleep(step);
            waited += step;
        }
        thread.is_finished() && thread.join().is_ok()
    }
}

/// Judges the next of what ran before the agent.
fn step<S: FnMut(Finding)>(
    judge: &Judge<Recorder<Part<Live>>, S>,
    left: &mut Option<Running>,
    last: &mut Instant,
) {
    let Some(running) = left else { return };
    if let Some(event) = judge.facts().inner().with(|live| live.running(running)) {
        judge.event(&event);
    }
    if running.is_done() {
        let (flavour, left_out) = running.left_out();
        judge.running_is_judged(flavour, left_out);
        *left = None;
    }
    *last = Instant::now();
}

fn run(
    facts: Recorder<Part<Live>>,
    running: Running,
    rooms: Rooms,
    seen: &Seen,
    batches: &Receiver<Batch>,
    configs: &Receiver<Box<Config>>,
) {
    let Rooms { images, feed, exceptions, metrics } = rooms;
    let source = {
        let images = Arc::clone(&images);
        Box::new(move |digest: &_| images.get(digest))
    };
    let sink = {
        let feed = Arc::clone(&feed);
        move |finding: Finding| {
            if let Some(finding) = exceptions.apply(finding) {
                feed.publish(finding);
            }
        }
    };
    let judge = Judge::new(facts, source, Arc::clone(&metrics), sink).started(SystemTime::now());
    let live = judge.facts().inner();
    let managers = live.with(|live| live.package_managers());
    judge.set_package_managers(&managers);
    let ticks = crossbeam_channel::tick(TICK);
    let mut generation = images.generation();
    let mut configs = configs.clone();
    let mut running = Some(running);
    let mut last_step = Instant::now();
    loop {
        // While something is left that ran before the agent, a time without events is used for it; and some time in any case.
        let idle = if running.is_some() { Duration::ZERO } else { TICK };
        select_biased! {
            recv(configs) -> config => match config {
                Ok(config) => match live.with(|live| live.reload(&config)) {
                    Ok(()) => {
                        let managers = live.with(|live| live.package_managers());
                        judge.set_package_managers(&managers);
                        judge.images_changed();
                    }
                    Err(error) => tracing::error!(%error, "the workloads keep their old configuration"),
                },
                // The agent is ending: what is queued is still judged.
                Err(_) => configs = crossbeam_channel::never(),
            },
            recv(batches) -> batch => {
                let Ok(batch) = batch else { break };
                metrics.queue_length(Queue::Judge, batches.len());
                let now = images.generation();
                if now != generation {
                    generation = now;
                    judge.images_changed();
                }
                for event in &batch.events {
                    feed.event(event);
                    judge.event(event);
                    let took = since_boot().saturating_sub(Duration::from_nanos(event.time_ns));
                    metrics.stage(Measured::Judged, took);
                    metrics.judged(event.kind());
                }
                live.with(|live| seen.update(live, &metrics));
                if last_step.elapsed() > WAIT_AT_MOST {
                    step(&judge, &mut running, &mut last_step);
                }
            }
            recv(ticks) -> _ => judge.tick(since_boot()),
            default(idle) => step(&judge, &mut running, &mut last_step),
        }
    }
    judge.finish();
    judge.facts().finish();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handover_is_free_until_one_waits_to_be_taken() {
        let (give, take) = crossbeam_channel::bounded(1);
        let handover = Handover(give);
        assert!(handover.is_free() && handover.give(Config::default()));
        assert!(!handover.is_free() && !handover.give(Config::default()));
        take.recv().expect("one waits");
        assert!(handover.is_free());
    }
}
