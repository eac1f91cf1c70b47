//! The metrics registry, passed down as `Arc<Metrics>`, never global; its HTTP endpoint is in [`http`].
//!
//! Each counter is made once for every value of its label, so that counting on the way of an event is one atomic
//! addition and no look-up. Names: `muster_<what>_<unit>`, counters end in `_total`.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::event::{Class, Flavour, Kind, Unhashed, Unread};
use crate::finding::{Finding, Severity, Verdict};
use family::{Labels, counter, counters, gauge, gauges, histogram, histograms};

mod classic;
mod family;
pub mod http;
mod process;
#[cfg(test)]
mod tests;

/// The queues between the stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    /// Batches from the sensor that wait for the judge.
    Judge,
    /// Findings that wait for the JSON lines file.
    JsonLines,
}

/// Where findings go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sink {
    /// Clients of `Watch`.
    Watch,
    /// Clients of `Events`.
    Events,
    /// The JSON lines file.
    JsonLines,
}

/// Stages whose duration is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the event in the kernel until it is judged.
    Judged,
    /// From the event in the kernel until its finding is offered to the sinks.
    Published,
    /// Reading and hashing one file.
    Digest,
}

/// What became of a finding about a file that the host's package manager wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// It was held until the package manager ended.
    Held,
    /// It was not reported: the name was gone by then and never ran, or something later was reported at this path.
    Folded,
    /// It was judged before the package manager ended, because too many were held or for too long.
    Early,
    /// It was reported as if there were no package manager, because that ran something that is not attested.
    Spoilt,
}

/// What became of asking the registries and layouts for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// They hold something for it.
    Found,
    /// They hold nothing for it.
    Nothing,
    /// One of them could not be reached, or not all of it could be read.
    Failed,
}

/// State of an image in the register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// It has a verified SBOM.
    Verified,
    /// Its attestation was refused.
    Unverified,
    /// It has no SBOM.
    NoSbom,
    /// Its SBOM may be of another platform.
    PlatformUnproven,
    /// It is judged by what was verified before, and that is not there any more.
    Lost,
}

/// Record counts of one kind since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindCounts {
    /// Submitted by the kernel programs.
    pub submitted: u64,
    /// Lost because the ring was full.
    pub lost: u64,
    /// Decoded.
    pub received: u64,
    /// Refused by the decoder.
    pub malformed: u64,
    /// Judged.
    pub judged: u64,
}

impl KindCounts {
    /// Decoded or still in a ring, and not judged.
    pub fn waiting(&self) -> u64 {
        let decodable = self.submitted.saturating_sub(self.malformed);
        decodable.max(self.received).saturating_sub(self.judged)
    }
}

/// What happened to look-ups of workloads and processes, totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lookups {
    /// Events of no known workload.
    pub unresolved: u64,
    /// Processes that were given their parent's workload.
    pub inherited: u64,
    /// Searches of the cgroup tree.
    pub searched: u64,
    /// Searches that ended at their limit.
    pub cut: u64,
    /// Searches that were not made, because others had taken too much time.
    pub put_off: u64,
    /// Processes whose start was not seen, taken in later.
    pub healed: u64,
    /// Processes not held, because the table was full.
    pub refused: u64,
}

/// Every counter, gauge and histogram of the agent.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    ready: AtomicBool,
    /// Why not all is well, though the sensor is attached.
    degraded: ArcSwap<Vec<String>>,
    /// Which hooks, and on which kernel.
    sensor: OnceLock<(Flavour, String)>,
    /// Published findings by severity.
    severities: [AtomicU64; 5],
    /// When the last finding was published, nanoseconds since 1970; 0: never.
    last_finding: AtomicU64,
    /// From the last judged event until it was judged, nanoseconds.
    lag: AtomicU64,
    submitted: [Counter; 7],
    lost: [Counter; 7],
    received: [Counter; 7],
    judged: [Counter; 7],
    /// By kind, then (kind not known) by class.
    malformed: [Counter; 11],
    batch: Histogram,
    queues: [Gauge; 2],
    verdicts: [[Counter; 5]; 15],
    digest_hits: [Counter; 2],
    digest_misses: Counter,
    digest_read: Counter,
    digest_undetermined: [Counter; Unread::LABELS.len()],
    digest_left: [Counter; 4],
    documents: [Counter; 2],
    askings: [Counter; 3],
    images: [Gauge; 5],
    published: Counter,
    dropped: [Counter; 3],
    sink_errors: [Counter; 3],
    clients: [Gauge; 2],
    history_bytes: Gauge,
    history_evicted: Counter,
    stages: [Histogram; 3],
    workload_lookups: [Counter; 5],
    missed_processes: [Counter; 2],
    processes: [Gauge; 2],
    updates: [Counter; 4],
    updates_waiting: Gauge,
    package_databases: [Counter; 2],
    package_database: Histogram,
    recording_lost: Counter,
    /// By the name of the exception; those of the configuration and no others.
    exception_hits: Family<[(&'static str, String); 1], Counter>,
    file_unread: Counter,
}

/// What `muster_verdicts_total` counts.
const HELP_VERDICTS: &str =
    "Findings by verdict and severity, and with attested and info what was judged and gave no finding";

impl Metrics {
    /// A registry with everything at zero.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::with_prefix("muster");
        let r = &mut registry;
        let kinds = Kind::ALL.map(|kind| [("ring", kind.class().as_str()), ("kind", kind.as_str())]);
        let unknown = Class::ALL.map(|class| [("ring", class.as_str()), ("kind", "unknown")]);
        let malformed: [Labels<2>; 11] =
            std::array::from_fn(|i| kinds.get(i).copied().unwrap_or_else(|| unknown[i - kinds.len()]));
        let judged: [Labels<2>; 75] = std::array::from_fn(|i| {
            [("verdict", Verdict::ALL[i / 5].as_str()), ("severity", Severity::ALL[i % 5].as_str())]
        });
        let mut judged = counters(r, "verdicts", HELP_VERDICTS, judged).into_iter();
        let verdicts = std::array::from_fn(|_| {
            std::array::from_fn(|_| judged.next().expect("15 verdicts of 5 severities are 75"))
        });
        let sinks = ["watch", "events", "json_lines"].map(|sink| [("sink", sink)]);
        let metrics = Self {
            submitted: counters(r, "records_submitted", "Records that the kernel programs submitted", kinds),
            lost: counters(r, "records_lost", "Records that never came into their ring", kinds),
            received: counters(r, "records_received", "Records decoded", kinds),
            judged: counters(r, "records_judged", "Records judged", kinds),
            malformed: counters(r, "records_malformed", "Records refused by the decoder", malformed),
            batch: histogram(
                r,
                "batch_events",
                "Events per batch of the sensor",
                [1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0],
            ),
            queues: gauges(
                r,
                "queue_length",
                "Items that wait for a stage",
                ["judge", "json_lines"].map(|queue| [("queue", queue)]),
            ),
            verdicts,
            digest_hits: counters(
                r,
                "digest_hits",
                "Digests that needed no reading, by who had them",
                ["kernel", "agent"].map(|origin| [("origin", origin)]),
            ),
            digest_misses: counter(r, "digest_misses", "Files that the agent read and hashed"),
            digest_read: counter(r, "digest_read_bytes", "Bytes that the agent read to hash them"),
            digest_undetermined: counters(
                r,
                "digest_undetermined",
                "Files whose content could not be determined",
                Unread::LABELS.map(|reason| [("reason", reason)]),
            ),
            digest_left: counters(
                r,
                "digest_left_to_agent",
                "Files that the kernel did not hash while their task waited, so that the agent had to",
                ["too_large", "remote", "over_budget", "failed"].map(|reason| [("reason", reason)]),
            ),
            documents: counters(
                r,
                "documents",
                "Attested documents by outcome",
                ["accepted", "refused"].map(|outcome| [("outcome", outcome)]),
            ),
            askings: counters(
                r,
                "source_askings",
                "Images whose attestations registries and layouts were asked for, by outcome",
                ["found", "nothing", "failed"].map(|outcome| [("outcome", outcome)]),
            ),
            images: gauges(
                r,
                "images",
                "Images of the register by state",
                ["verified", "unverified", "no_sbom", "platform_unproven", "lost"]
                    .map(|state| [("state", state)]),
            ),
            published: counter(r, "feed_published_findings", "Findings published"),
            dropped: counters(r, "feed_dropped_items", "Findings or events that a sink did not get", sinks),
            sink_errors: counters(r, "feed_errors", "Failed writes to a sink", sinks),
            clients: gauges(
                r,
                "feed_clients",
                "Connected clients by stream",
                ["watch", "events"].map(|stream| [("stream", stream)]),
            ),
            history_bytes: gauge(
                r,
                "feed_history_bytes",
                "Bytes of the findings that are held for clients that come later, compressed but for the newest",
            ),
            history_evicted: counter(
                r,
                "feed_history_evicted_findings",
                "Findings that were held no longer because of their bytes, and not of their number",
            ),
            stages: histograms(
                r,
                "stage_seconds",
                "From the event in the kernel until the stage was done (digest: the hashing alone)",
                ["judged", "published", "digest"].map(|stage| [("stage", stage)]),
                [1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
            ),
            workload_lookups: counters(
                r,
                "workload_lookups",
                "Look-ups of a process's workload that were not answered at once: of no known workload, taken from the parent, \
                 searches of the cgroup tree, those that ended at their limit, and those not made because others had taken too much time",
                ["unresolved", "inherited", "searched", "cut", "put_off"]
                    .map(|outcome| [("outcome", outcome)]),
            ),
            missed_processes: counters(
                r,
                "processes_missed",
                "Processes that were not in the table when an event named them, and those not held because it was full",
                ["healed", "refused"].map(|outcome| [("outcome", outcome)]),
            ),
            processes: gauges(
                r,
                "processes",
                "Processes in the table",
                ["living", "exited"].map(|state| [("state", state)]),
            ),
            updates: counters(
                r,
                "updates",
                "Findings about files that the host's package manager wrote, by what became of them",
                ["held", "folded", "early", "spoilt"].map(|outcome| [("outcome", outcome)]),
            ),
            updates_waiting: gauge(r, "updates_waiting", "Findings that wait for the package manager to end"),
            package_databases: counters(
                r,
                "package_databases",
                "Package databases read, and parts of them that do not count",
                ["read", "refused"].map(|outcome| [("outcome", outcome)]),
            ),
            package_database: histogram(
                r,
                "package_database_seconds",
                "Reading the package databases of an image or of the host",
                [1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0],
            ),
            recording_lost: counter(
                r,
                "recording_lost_events",
                "Events that are missing in the recording: the disk was full or too slow",
            ),
            exception_hits: {
                let family = Family::default();
                r.register(
                    "exception_hits",
                    "Findings that an exception of the configuration matched",
                    family.clone(),
                );
                family
            },
            file_unread: counter(
                r,
                "files_unread",
                "Changed files that were gone before their first bytes could be read: whether they were programs is not known",
            ),
            ready: AtomicBool::new(false),
            degraded: ArcSwap::default(),
            sensor: OnceLock::new(),
            severities: Default::default(),
            last_finding: AtomicU64::new(0),
            lag: AtomicU64::new(0),
            registry,
        };
        Arc::new(metrics)
    }

    /// Total of records of a kind that the kernel programs have submitted so far.
    pub fn set_submitted(&self, kind: Kind, total: u64) {
        self.submitted[kind as usize].inner().store(total, Ordering::Relaxed);
    }

    /// Total of records of a kind that were lost so far because the ring was full.
    pub fn set_lost(&self, kind: Kind, total: u64) {
        self.lost[kind as usize].inner().store(total, Ordering::Relaxed);
    }

    /// `count` records of a kind were decoded.
    pub fn received(&self, kind: Kind, count: u64) {
        self.received[kind as usize].inc_by(count);
    }

    /// A record, or a loss, was judged.
    pub fn judged(&self, kind: Kind) {
        self.judged[kind as usize].inc();
    }

    /// Records and losses judged so far.
    pub fn judged_count(&self) -> u64 {
        self.judged.iter().map(Counter::get).sum()
    }

    /// A record was refused by the decoder; its kind where the header told a known one.
    pub fn malformed(&self, class: Class, kind: Option<Kind>) {
        let at = kind.map_or(Kind::ALL.len() + class as usize, |kind| kind as usize);
        self.malformed[at].inc();
    }

    /// A batch of so many events was handed to the judge.
    pub fn batch(&self, events: usize) {
        self.batch.observe(f64::from(u32::try_from(events).unwrap_or(u32::MAX)));
    }

    /// So many items wait in a queue now.
    pub fn queue_length(&self, queue: Queue, items: usize) {
        self.queues[queue as usize].set(i64::try_from(items).unwrap_or(i64::MAX));
    }

    /// Items that wait in a queue now.
    pub fn queued(&self, queue: Queue) -> u64 {
        u64::try_from(self.queues[queue as usize].get()).unwrap_or_default()
    }

    /// An event was judged. [`Feed`](crate::feed::Feed) calls it for each finding; the judge calls it for what stays
    /// silent (`attested`, with [`Severity::Info`]).
    pub fn verdict(&self, verdict: Verdict, severity: Severity) {
        self.verdicts[verdict as usize][severity as usize].inc();
    }

    /// A digest came from the kernel.
    pub fn digest_from_kernel(&self) {
        self.digest_hits[0].inc();
    }

    /// The kernel did not hash a file.
    pub fn digest_left_to_agent(&self, why: Unhashed) {
        self.digest_left[match why {
            Unhashed::TooLarge => 0,
            Unhashed::Remote => 1,
            Unhashed::OverBudget => 2,
            Unhashed::Failed => 3,
        }]
        .inc();
    }

    /// A digest came from the agent's cache.
    pub fn digest_from_cache(&self) {
        self.digest_hits[1].inc();
    }

    /// The agent read and hashed a file, which took so long.
    pub fn digest_computed(&self, took: Duration) {
        self.digest_misses.inc();
        self.stage(Stage::Digest, took);
    }

    /// So many bytes of a file were read.
    pub fn digest_read(&self, bytes: usize) {
        self.digest_read.inc_by(u64::try_from(bytes).unwrap_or_default());
    }

    /// Bytes of files that were read so far.
    pub fn digest_read_bytes(&self) -> u64 {
        self.digest_read.get()
    }

    /// A file's content could not be determined.
    pub fn digest_undetermined(&self, reason: &Unread) {
        self.digest_undetermined[reason.label()].inc();
    }

    /// A document was verified, parsed and taken.
    pub fn document_accepted(&self) {
        self.documents[0].inc();
    }

    /// A document was refused.
    pub fn document_refused(&self) {
        self.documents[1].inc();
    }

    /// The registries and layouts were asked for an image.
    pub fn asked(&self, outcome: Asking) {
        self.askings[outcome as usize].inc();
    }

    /// So many images of the register are in this state.
    pub fn images(&self, state: ImageKind, count: usize) {
        self.images[state as usize].set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A stage was done so long after the event (digest: it took so long).
    pub fn stage(&self, stage: Stage, took: Duration) {
        self.stages[stage as usize].observe(took.as_secs_f64());
        if stage == Stage::Judged {
            self.lag.store(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// From the last judged event until it was judged.
    pub fn lag(&self) -> Duration {
        Duration::from_nanos(self.lag.load(Ordering::Relaxed))
    }

    /// A finding was published.
    pub fn published(&self, finding: &Finding) {
        self.published.inc();
        self.severities[finding.severity as usize].fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.last_finding.store(u64::try_from(now.as_nanos()).unwrap_or_default(), Ordering::Relaxed);
        self.verdict(finding.verdict, finding.basis.judged.unwrap_or(finding.severity));
        // A clock set back makes no duration; there is nothing to measure then.
        if let Ok(took) = finding.time.elapsed() {
            self.stage(Stage::Published, took);
        }
    }

    /// The exceptions of the configuration. The counts of others are forgotten.
    pub fn set_exceptions<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let counts: Vec<_> = names
            .map(|name| {
                let label = [("exception", name.to_owned())];
                let count = self.exception_hits.get_or_create(&label).get();
                (label, count)
            })
            .collect();
        self.exception_hits.clear();
        for (label, count) in counts {
            self.exception_hits.get_or_create(&label).inc_by(count);
        }
    }

    /// An exception matched a finding.
    pub fn exception_hit(&self, name: &str) {
        self.exception_hits.get_or_create(&[("exception", name.to_owned())]).inc();
    }

    /// When the last finding was published.
    pub fn last_finding(&self) -> Option<SystemTime> {
        let at = self.last_finding.load(Ordering::Relaxed);
        (at > 0).then(|| SystemTime::UNIX_EPOCH + Duration::from_nanos(at))
    }

    /// Findings of a severity that were published so far.
    pub fn severity_count(&self, severity: Severity) -> u64 {
        self.severities[severity as usize].load(Ordering::Relaxed)
    }

    /// These hooks watch, on this kernel. The first call counts.
    pub fn set_sensor(&self, flavour: Flavour, kernel: &str) {
        let _first_counts = self.sensor.set((flavour, kernel.to_owned()));
    }

    /// The history has so many bytes now, and so many findings had to go because of that.
    pub fn history(&self, bytes: usize, evicted: u64) {
        self.history_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.history_evicted.inc_by(evicted);
    }

    /// A sink did not get so many items.
    pub fn dropped(&self, sink: Sink, items: u64) {
        self.dropped[sink as usize].inc_by(items);
    }

    /// A write to a sink failed.
    pub fn sink_error(&self, sink: Sink) {
        self.sink_errors[sink as usize].inc();
    }

    /// A client of `Watch` or `Events` came (`1`) or went (`-1`). The JSON lines file is no client.
    pub fn clients(&self, sink: Sink, change: i64) {
        if let Some(gauge) = self.clients.get(sink as usize) {
            gauge.inc_by(change);
        }
    }

    /// Totals of what happened to look-ups so far.
    pub fn set_lookups(&self, totals: Lookups) {
        let Lookups { unresolved, inherited, searched, cut, put_off, healed, refused } = totals;
        let lookups = [unresolved, inherited, searched, cut, put_off];
        for (counter, total) in self.workload_lookups.iter().zip(lookups) {
            counter.inner().store(total, Ordering::Relaxed);
        }
        for (counter, total) in self.missed_processes.iter().zip([healed, refused]) {
            counter.inner().store(total, Ordering::Relaxed);
        }
    }

    /// So many processes are in the table now.
    pub fn processes(&self, living: usize, exited: usize) {
        for (gauge, count) in self.processes.iter().zip([living, exited]) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Something became of so many findings about updates.
    pub fn updates(&self, outcome: Update, count: usize) {
        self.updates[outcome as usize].inc_by(u64::try_from(count).unwrap_or_default());
    }

    /// How often that was the outcome so far.
    pub fn update_count(&self, outcome: Update) -> u64 {
        self.updates[outcome as usize].get()
    }

    /// So many findings wait for the package manager to end.
    pub fn updates_waiting(&self, count: usize) {
        self.updates_waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Findings that wait for the package manager to end.
    pub fn updates_waiting_count(&self) -> u64 {
        u64::try_from(self.updates_waiting.get()).unwrap_or_default()
    }

    /// The package databases of an image or of the host were read.
    pub fn package_database_read(&self, took: Duration) {
        self.package_databases[0].inc();
        self.package_database.observe(took.as_secs_f64());
    }

    /// Part of a package database does not count.
    pub fn package_database_refused(&self) {
        self.package_databases[1].inc();
    }

    /// `/healthz` says so from now on: the sensor is attached (`true`), or the agent is ending (`false`).
    pub fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// The sensor is attached.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// `/healthz`, `/readyz` and the gRPC health service say so from now on; each a sentence, none: all is well.
    pub fn set_degraded(&self, why: Vec<String>) {
        self.degraded.store(Arc::new(why));
    }

    /// Why not all is well, though the sensor may be attached.
    pub fn degraded(&self) -> Arc<Vec<String>> {
        self.degraded.load_full()
    }

    /// Record counts of a kind.
    pub fn kind_counts(&self, kind: Kind) -> KindCounts {
        let at = kind as usize;
        KindCounts {
            submitted: self.submitted[at].get(),
            lost: self.lost[at].get(),
            received: self.received[at].get(),
            malformed: self.malformed[at].get(),
            judged: self.judged[at].get(),
        }
    }

    /// Records refused by the decoder whose kind is not known, of all rings.
    pub fn malformed_unknown(&self) -> u64 {
        self.malformed[Kind::ALL.len()..].iter().map(Counter::get).sum()
    }

    /// Findings (and silent verdicts) so far with this verdict, of any severity.
    pub fn verdict_count(&self, verdict: Verdict) -> u64 {
        self.verdicts[verdict as usize].iter().map(Counter::get).sum()
    }

    /// Items that a sink did not get so far.
    pub fn dropped_count(&self, sink: Sink) -> u64 {
        self.dropped[sink as usize].get()
    }

    /// Clients of a stream now.
    pub fn client_count(&self, sink: Sink) -> i64 {
        self.clients.get(sink as usize).map_or(0, Gauge::get)
    }

    /// Events that the recording did not take.
    pub fn recording_lost(&self, events: u64) {
        self.recording_lost.inc_by(events);
    }

    /// What runs, as labels of series that are always 1.
    fn about(&self, out: &mut String) {
        let mut one = |name: &str, help: &str, labels: &[(&str, &str)]| {
            // Writing to a String cannot fail.
            let _ = write!(out, "# HELP {name} {help}.\n# TYPE {name} gauge\n{name}{{");
            for (at, (label, value)) in labels.iter().enumerate() {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
                let _ = write!(out, "{}{label}=\"{value}\"", if at > 0 { "," } else { "" });
            }
            out.push_str("} 1\n");
        };
        let version = ("version", env!("CARGO_PKG_VERSION"));
        one("muster_build_info", "The version of the agent", &[version]);
        if let Some((flavour, kernel)) = self.sensor.get() {
            let labels = [("flavour", flavour.as_str()), ("kernel", kernel.as_str())];
            one("muster_sensor_info", "The hooks that watch, and the kernel", &labels);
        }
    }

    /// A changed file was gone before its first bytes could be read.
    pub fn file_unread(&self) {
        self.file_unread.inc();
    }

    /// All of it in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::with_capacity(32 << 10);
        prometheus_client::encoding::text::encode(&mut text, &self.registry)
            .expect("writing to a String cannot fail");
        const END: &str = "# EOF\n";
        text.truncate(text.len() - END.len());
        self.about(&mut text);
        process::text(&mut text);
        text.push_str(END);
        text
    }
}
