//! The kernel side of the agent: probe, offsets, load, attach, drain, decode, count.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use aya::maps::{Array, MapData};
use crossbeam_channel::Sender;
use muster_common::hook;
use tracing::{error, info, warn};

use crate::config;
use crate::devices;
use crate::event::{Class, Event, Flavour, Kind};
use crate::metrics::{KindCounts, Metrics};
use crate::order::Order;
use btf::{Btf, KERNEL_BTF};
use counters::{Counters, KINDS, Losers};
use kernel::Kernel;
use losses::Losses;
use offsets::Offsets;

pub mod btf;
mod changes;
mod counters;
pub mod decode;
mod drain;
mod error;
pub mod kernel;
mod load;
mod losses;
mod merge;
pub mod offsets;
mod overlay;
pub mod probe;

pub use error::SensorError;

/// Events in order of time, whatever ring they came through: nothing comes later that led to one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The events.
    pub events: Vec<Event>,
}

/// The running sensor: attached programs and the thread that reads their rings. Dropped without [`Sensor::stop`], it
/// stops as well. A killed process leaves nothing behind: nothing is pinned, so the kernel detaches the programs when
/// it closes the process's descriptors.
pub struct Sensor {
    /// Gone once the sensor has stopped.
    programs: Option<Attached>,
    closed: Array<MapData, u32>,
    thread: Option<JoinHandle<()>>,
    stopping: Arc<AtomicBool>,
    counters: Arc<Counters>,
    metrics: Arc<Metrics>,
    status: SensorStatus,
    overlay: overlay::Watch,
    order: Option<Order>,
    devices: Option<changes::Devices>,
}

/// Programs that are attached and submit nothing any more. Dropped, they are detached, for which the kernel takes seconds: it waits for
/// whatever may run in each of them (`synchronize_rcu_tasks()` in `ftrace_shutdown()`, `perf_trace_destroy()`).
#[must_use = "detaching takes seconds, in which the rest of the end can go on"]
pub struct Attached(Option<aya::Ebpf>);

impl Drop for Attached {
    fn drop(&mut self) {
        if let Some(programs) = self.0.take() {
            let begun = Instant::now();
            load::detach(programs);
            info!(seconds = begun.elapsed().as_secs_f64(), "programs detached");
        }
    }
}

/// What the sensor runs on and what it has counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SensorStatus {
    /// `uname -r`.
    pub kernel_release: String,
    /// The hooks in use.
    pub flavour: Flavour,
    /// What they cannot see on this kernel, in words.
    pub blind_spots: Vec<String>,
    /// Size of each ring in bytes.
    pub rings: [(Class, u32); Class::ALL.len()],
    /// Counts since the start for each kind that comes from the kernel.
    pub kinds: Vec<(Kind, KindCounts)>,
    /// Refused records of which not even the kind could be told.
    pub malformed_unknown: u64,
}

impl Sensor {
    /// Whether this process may load kernel programs at all: asked before anything else is set up.
    ///
    /// # Errors
    /// The missing capabilities, and how to give them.
    pub fn permitted() -> Result<(), SensorError> {
        let missing = Kernel::read().missing_privilege();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(SensorError::Privilege { missing: missing.iter().map(|c| c.name).collect() }),
        }
    }

    /// Chooses the flavour, loads and attaches its programs, and starts the thread that sends batches to `out`.
    ///
    /// The thread blocks while `out` is full; the kernel then counts what no longer fits into its rings.
    ///
    /// # Errors
    /// [`SensorError`], naming what is missing and what gives it.
    pub fn start(
        config: &config::Sensor,
        metrics: Arc<Metrics>,
        out: Sender<Batch>,
    ) -> Result<Self, SensorError> {
        let kernel = Kernel::read();
        let flavour = probe::choose(config.flavour, &kernel, || {
            let offered = probe::lsm_offered(&kernel);
            if let (Err(reason), config::FlavourChoice::Auto) = (&offered, config.flavour) {
                warn!(
                    reason,
                    "LSM hooks are not to be had here: the tracepoint flavour sees less (`muster probe`)"
                );
            }
            offered
        })?;
        let offsets = {
            let bytes = std::fs::read(KERNEL_BTF)
                .map_err(|error| SensorError::NoBtf(format!("{KERNEL_BTF}: {error}")))?;
            Offsets::resolve(&Btf::parse(&bytes).map_err(offsets::OffsetsError::from)?)?
        };
        let loaded = load::load(config, flavour, &kernel, &offsets)?;
        let overlay = overlay::Watch::start(loaded.overlay, kernel.version)?;
        let order = Some(changes::order(loaded.writers));
        let mut blind_spots = probe::blind_spots(flavour, &kernel);
        blind_spots.extend(loaded.blind_spots);
        let counters = Arc::new(Counters { sent: loaded.sent, lost: loaded.lost });
        let stopping = Arc::new(AtomicBool::new(false));
        let drain = drain::Drain {
            rings: loaded.rings,
            counters: Arc::clone(&counters),
            losers: Losers(loaded.losers),
            losses: Losses::new(flavour, drain::now_ns()),
            metrics: Arc::clone(&metrics),
            out,
            stopping: Arc::clone(&stopping),
            merge: merge::Merge::new(),
            malformed: 0,
            #[cfg(feature = "ebpf-log")]
            log: loaded.log,
        };
        let thread = std::thread::Builder::new().name("muster-sensor".into()).spawn(move || drain.run())?;
        let status = SensorStatus {
            kernel_release: kernel.release,
            flavour,
            blind_spots,
            rings: [
                (Class::Exec, config.exec_ring_bytes),
                (Class::Library, config.library_ring_bytes),
                (Class::File, config.file_ring_bytes),
                (Class::Network, config.network_ring_bytes),
            ],
            kinds: Vec::new(),
            malformed_unknown: 0,
        };
        Ok(Self {
            programs: Some(Attached(Some(loaded.ebpf))),
            closed: loaded.closed,
            thread: Some(thread),
            stopping,
            counters,
            metrics,
            status,
            overlay,
            order,
            devices: Some(loaded.devices),
        })
    }

    /// Flavour, blind spots, and the counters as they are now.
    pub fn status(&self) -> SensorStatus {
        match self.counters.read() {
            Ok((sent, lost)) => counters::publish(&self.metrics, &sent, &lost),
            Err(error) => error!(%error, "the kernel's counters cannot be read; the status has older ones"),
        }
        let kinds = KINDS.map(|(kind, _)| (kind, self.metrics.kind_counts(kind))).to_vec();
        SensorStatus { kinds, malformed_unknown: self.metrics.malformed_unknown(), ..self.status.clone() }
    }

    /// Lets the programs submit nothing more, sends everything that is left in the rings and the last losses, and ends the thread.
    /// Somebody must go on taking batches meanwhile. Returns the final counters: for each kind
    /// `submitted = received + malformed`, and `lost` is what never reached a ring. And the programs, still attached.
    pub fn stop(mut self) -> (SensorStatus, Attached) {
        self.shut_down();
        (self.status(), self.programs.take().unwrap_or(Attached(None)))
    }

    /// Who is to be asked when files were last written. Only the first caller gets it.
    pub fn order(&mut self) -> Option<Order> {
        self.order.take()
    }

    /// Who is to be told which devices with file systems are written to, and knows who writes. Only the first caller gets it.
    pub fn devices(&mut self) -> Option<impl devices::Kernel + 'static> {
        self.devices.take()
    }

    fn shut_down(&mut self) {
        self.overlay.stop();
        if let Err(error) = self.closed.set(0, 1, 0) {
            error!(%error, "the programs cannot be told to stop; they are detached first");
            self.programs = None;
        }
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!("the sensor's thread ended by a panic; events may be missing");
        }
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Value of the global `FLAVOUR` and of [`Header::hook`](muster_common::Header::hook).
fn hook_code(flavour: Flavour) -> u8 {
    match flavour {
        Flavour::Lsm => hook::LSM,
        Flavour::Fentry => hook::FENTRY,
        Flavour::Tracepoint => hook::TRACEPOINT,
    }
}
