//! Parse → build → spawn → drain: the agent as a whole.
//!
//! The rooms are built from the feed backwards, so that nothing that comes finds no taker: metrics, images, the judge's
//! facts, the feed, the sensor; then the judge begins, and last the socket is served, so that a client that gets an
//! answer gets that of a complete agent. They end in the other order. The socket and the metrics endpoint are claimed before all of them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::Config;
use crate::event::{Flavour, Kind};
use crate::exceptions::Exceptions;
use crate::feed::{Feed, OpenError, ServeError, Socket, SocketError};
use crate::finding::{Finding, Severity};
use crate::images::{Images, ImagesError, Watch};
use crate::judge::{Live, Rooms, Stage};
use crate::metrics::{Metrics, http};
use crate::record::Recording;
use crate::sensor::{Sensor, SensorError};
use crate::workload::{EntryError, Workloads};

mod check;
mod reload;
mod status;
mod watchdog;

pub use check::{verifies_nothing, warnings};
pub use reload::load;
use reload::{Beside, Settings};
use status::Source;
use watchdog::{Progress, Watchdog};

/// From SIGTERM until everything is judged and delivered, at most. Detaching the programs may take the kernel longer.
const DRAIN: Duration = Duration::from_secs(5);
/// What of it reading the rings and judging may use, at most; the rest is the feed's. Detaching goes on beside it.
const JUDGE: Duration = Duration::from_millis(4300);

/// What to run.
#[derive(Debug)]
pub struct Options {
    /// The configuration.
    pub config: Config,
    /// Where it was read from, to read it again on SIGHUP; `None`: there was no file, so it is the defaults.
    pub file: Option<PathBuf>,
    /// Write every event, and what was asked about it, to this file.
    pub record: Option<PathBuf>,
}

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The sensor cannot run here.
    #[error(transparent)]
    Sensor(#[from] SensorError),
    /// A workload entry cannot be used.
    #[error(transparent)]
    Workload(#[from] EntryError),
    /// The images cannot be loaded.
    #[error(transparent)]
    Images(#[from] ImagesError),
    /// The JSON lines file cannot be opened.
    #[error(transparent)]
    JsonLines(#[from] OpenError),
    /// The socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// It cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The metrics endpoint cannot be opened.
    #[error(transparent)]
    Metrics(#[from] http::ListenError),
    /// The recording cannot be made.
    #[error("recording {}: cannot be made: {source}; name a file in a directory that can be written to", file.display())]
    Record {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system gives no thread, no runtime or no signals.
    #[error("the system refuses a thread or a signal handler: {0}")]
    System(#[from] std::io::Error),
}

/// Checks what can be checked of a configuration without running it.
///
/// # Errors
/// A workload entry or a key file cannot be used.
pub fn check(config: &Config) -> Result<(), AppError> {
    Workloads::new(config)?;
    Images::check(config)?;
    Ok(())
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// Why it did not start. What goes wrong later is logged and does not end it.
pub fn run(options: Options) -> Result<(), AppError> {
    crate::memory::thrift();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("muster-async")
        .enable_all()
        .build()?;
    let result = runtime.block_on(main(options));
    runtime.shutdown_timeout(Duration::from_millis(500));
    result
}

async fn main(options: Options) -> Result<(), AppError> {
    let Options { config, file, record } = options;
    let mut signals = Signals::new()?;
    Sensor::permitted()?;
    // Before anything that a second agent, started by mistake, would spoil for the first: the JSON lines file, the recording.
    let socket = Socket::bind(&config.feed.socket)?;
    let endpoint = match config.metrics.listen {
        Some(address) => Some(http::bind(address).await?),
        None => None,
    };
    for warning in warnings(&config).iter().map(String::as_str).chain(verifies_nothing(&config)) {
        tracing::warn!("{warning}");
    }
    let (agent, watch) = Agent::start(&config, file.clone(), record)?;
    // The kernel's type information was read to load the programs.
    crate::memory::give_back();
    let tending = tokio::spawn(crate::memory::tend());
    if let Err(error) = agent.feed.serve(socket, Arc::clone(&agent.source) as _).await {
        agent.stop().await;
        return Err(error.into());
    }
    let endpoint = endpoint.map(|listener| tokio::spawn(http::serve(listener, Arc::clone(&agent.metrics))));
    agent.metrics.set_ready(true);
    let flavour = agent.source.flavour().as_str();
    tracing::info!(flavour, socket = %config.feed.socket.display(), "watching");
    notify(&[NotifyState::Ready, NotifyState::Status(&format!("watching with {flavour} hooks"))]);
    let mut watchdog = Watchdog::new();
    let images = Arc::clone(&agent.images);
    let exceptions = agent.source.exceptions();
    let settings = Settings { file, config, images, exceptions, watch, judge: agent.stage.handover() };
    let mut reloading = Beside::new(settings, Settings::reload);
    loop {
        match signals.next(&mut watchdog, &mut reloading).await {
            Wake::End(name) => {
                tracing::info!(signal = name, "ending");
                break;
            }
            Wake::Reload => {
                // Log rotation, too, comes by SIGHUP.
                agent.feed.reopen();
                reload(&mut reloading);
            }
            Wake::Reloaded { again } => {
                notify(&[NotifyState::Ready]);
                if again {
                    reload(&mut reloading);
                }
            }
            Wake::Watchdog => {
                if watchdog.is_well(agent.progress(), agent.stage.is_behind()) {
                    notify(&[NotifyState::Watchdog]);
                } else {
                    tracing::error!(
                        "the judge makes no progress; the service manager is not told that all is well"
                    );
                }
            }
        }
    }
    notify(&[NotifyState::Stopping]);
    tending.abort();
    agent.metrics.set_ready(false);
    if let Some(endpoint) = endpoint {
        endpoint.abort();
    }
    agent.stop().await;
    Ok(())
}

fn reload(reloading: &mut Beside<Settings>) {
    if reloading.begin()
        && let Ok(NotifyState::MonotonicUsec(now)) = NotifyState::monotonic_usec_now()
    {
        notify(&[NotifyState::Reloading, NotifyState::MonotonicUsec(now)]);
    }
}

/// The running rooms.
struct Agent {
    metrics: Arc<Metrics>,
    images: Arc<Images>,
    feed: Arc<Feed>,
    source: Arc<Source>,
    stage: Stage,
}

impl Agent {
    fn start(
        config: &Config,
        file: Option<PathBuf>,
        record: Option<PathBuf>,
    ) -> Result<(Self, Watch), AppError> {
        let metrics = Metrics::new();
        let images = Images::new(config, Arc::clone(&metrics))?;
        let mut live = Live::new(config, Arc::clone(&metrics))?;
        let feed = Arc::new(Feed::new(&config.feed, Arc::clone(&metrics))?);
        let recording = match record {
            None => None,
            Some(file) => Some(
                Recording::create(&file, Arc::clone(&metrics))
                    .map_err(|source| AppError::Record { file, source })?,
            ),
        };
        let (batches, incoming) = crossbeam_channel::bounded(crate::judge::QUEUE);
        let mut sensor = Sensor::start(&config.sensor, Arc::clone(&metrics), batches)?;
        if let Some(order) = sensor.order() {
            live.ask(order);
        }
        if let Some(devices) = sensor.devices() {
            live.tell(devices);
        }
        // After the hooks are attached: what starts from now on comes as an event, and waits in the queue and the rings while the
        // documents are verified, which may take minutes.
        let running = live.seed(sensor.status().flavour);
        images.load_now();
        let watch = match images.watch() {
            Ok(watch) => watch,
            Err(error) => {
                // The sensor's thread waits for nobody then.
                drop(incoming);
                return Err(error.into());
            }
        };
        let exceptions = Arc::new(Exceptions::new(&config.exceptions, Arc::clone(&metrics)));
        let rooms = Rooms {
            images: Arc::clone(&images),
            feed: Arc::clone(&feed),
            exceptions: Arc::clone(&exceptions),
            metrics: Arc::clone(&metrics),
        };
        let stage = Stage::start(live, running, recording, rooms, incoming)?;
        let source = Arc::new(Source::new(sensor, Arc::clone(&images), stage.seen(), exceptions, file));
        metrics.set_sensor(source.flavour(), source.kernel());
        Ok((Self { metrics, images, feed, source, stage }, watch))
    }

    fn progress(&self) -> Progress {
        Progress { events: self.metrics.judged_count(), bytes: self.metrics.digest_read_bytes() }
    }

    async fn stop(self) {
        let begun = Instant::now();
        let Self { metrics, images: _, feed, source, stage } = self;
        let flavour = source.flavour();
        let drained = tokio::task::spawn_blocking(move || {
            let detaching = source.stop().and_then(|(status, attached)| {
                for (kind, counts) in status.kinds {
                    tracing::info!(%kind, submitted = counts.submitted, lost = counts.lost, received = counts.received, "records");
                }
                // It takes the kernel seconds, in which this thread has other things to do.
                std::thread::Builder::new().name("detach".to_owned()).spawn(move || drop(attached)).ok()
            });
            (stage.finish(JUDGE.saturating_sub(begun.elapsed())), detaching)
        });
        let (all_judged, detaching) = match tokio::time::timeout(JUDGE, drained).await {
            Ok(Ok(drained)) => drained,
            _ => (false, None),
        };
        if !all_judged {
            for finding in unjudged(&metrics, flavour) {
                tracing::error!(reason = finding.reason, "events are lost");
                feed.publish(finding);
            }
        }
        feed.shutdown(DRAIN.saturating_sub(begun.elapsed() + Duration::from_millis(300))).await;
        tracing::info!(seconds = begun.elapsed().as_secs_f64(), "everything is judged and delivered");
        if detaching.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!(
                "the thread that detaches the programs has failed; the kernel detaches them when the agent ends"
            );
        }
        tracing::info!(seconds = begun.elapsed().as_secs_f64(), "ended");
    }
}

/// What is left to judge when the agent has to end, as losses.
fn unjudged(metrics: &Metrics, flavour: Flavour) -> Vec<Finding> {
    let losses = Kind::ALL.into_iter().filter_map(|kind| {
        let count = metrics.kind_counts(kind).waiting();
        let reason = format!(
            "{count} {kind} {} not judged: the agent was told to end, and had {} s for what was left",
            if count == 1 { "record was" } else { "records were" },
            JUDGE.as_secs_f64()
        );
        (count > 0).then(|| Finding { severity: Severity::High, ..Finding::loss(flavour, reason) })
    });
    let held = metrics.updates_waiting_count();
    let reason = format!(
        "{held} {} lost that waited for the host's package manager: the agent was told to end, and had {} s for what was left",
        if held == 1 { "finding is" } else { "findings are" },
        JUDGE.as_secs_f64()
    );
    let held = (held > 0).then(|| Finding { severity: Severity::High, ..Finding::loss(flavour, reason) });
    losses.chain(held).collect()
}

/// Tells the service manager, if there is one.
fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager was not told");
    }
}

enum Wake {
    End(&'static str),
    Reload,
    Reloaded {
        /// SIGHUP came again meanwhile.
        again: bool,
    },
    Watchdog,
}

struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self, watchdog: &mut Watchdog, reloading: &mut Beside<Settings>) -> Wake {
        tokio::select! {
            _ = self.term.recv() => Wake::End("SIGTERM"),
            _ = self.int.recv() => Wake::End("SIGINT"),
            _ = self.hup.recv() => Wake::Reload,
            again = reloading.ended() => Wake::Reloaded { again },
            () = watchdog.due() => Wake::Watchdog,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Verdict;

    #[tokio::test]
    async fn a_second_agent_leaves_the_first_ones_files_alone() {
        let dir = tempfile::tempdir().expect("a private directory");
        let at = |name: &str| dir.path().join(name);
        let _first = Socket::bind(&at("socket")).expect("a socket");
        let mut config = Config::default();
        config.feed.socket = at("socket");
        config.feed.json_lines = Some(at("findings"));
        std::fs::write(at("recording"), "of the first").expect("a private directory");
        // Nor does the first one's metrics endpoint come before it.
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        config.metrics.listen = Some(taken.local_addr().expect("an address"));
        let options = Options { config, file: None, record: Some(at("recording")) };
        let refused = main(options).await.expect_err("the socket is in use");
        assert!(
            matches!(refused, AppError::Socket(SocketError::InUse { .. })),
            "root runs this test: {refused}"
        );
        assert!(!at("findings").exists());
        assert_eq!(std::fs::read(at("recording")).expect("there"), b"of the first");
    }

    #[test]
    fn an_agent_that_panics_ends_and_its_unit_starts_it_again() {
        let build = include_str!("../../../Cargo.toml");
        let release =
            build.split("\n[").find(|section| section.starts_with("profile.release]")).expect("there");
        assert!(release.lines().any(|line| line == r#"panic = "abort""#), "{release}");
        let unit = include_str!("../../../deploy/systemd/muster.service");
        for line in [
            "Restart=always",
            "StartLimitIntervalSec=0",
            // What notify-reload and the default dependencies would do, where systemd is older than 253 or they are switched off.
            "Type=notify",
            "ExecReload=/bin/kill -HUP $MAINPID",
            "Conflicts=shutdown.target",
            "Before=shutdown.target",
            // Who fills the memory, or reads directories that are open to all, gains nothing by it.
            "OOMScoreAdjust=-900",
            "LimitNOFILE=65536",
            "UMask=0077",
            "LogsDirectoryMode=0700",
            "StateDirectory=muster",
            "RestrictNamespaces=yes",
            "SystemCallFilter=@system-service bpf perf_event_open",
        ] {
            assert!(unit.lines().any(|l| l == line), "{line} is not in the unit");
        }
    }

    #[test]
    fn what_is_not_judged_at_the_end_is_lost_by_kind() {
        let metrics = Metrics::new();
        assert_eq!(unjudged(&metrics, Flavour::Lsm), []);
        // Two are still in the ring, one in the queue.
        metrics.set_submitted(Kind::Exec, 5);
        metrics.received(Kind::Exec, 3);
        metrics.judged(Kind::Exec);
        metrics.judged(Kind::Exec);
        metrics.received(Kind::File, 1);
        // Told by the agent itself, and of no ring.
        metrics.judged(Kind::Lost);
        let found: Vec<_> = unjudged(&metrics, Flavour::Lsm)
            .into_iter()
            .map(|f| (f.verdict, f.severity, f.reason.split(':').next().unwrap_or_default().to_owned()))
            .collect();
        let lost = |what: &str| (Verdict::Loss, Severity::High, what.to_owned());
        assert_eq!(found, [lost("3 exec records were not judged"), lost("1 file record was not judged")]);
        metrics.updates_waiting(2);
        let held = unjudged(&metrics, Flavour::Lsm).pop().expect("what was held is lost as well");
        assert!(held.reason.starts_with("2 findings are lost"), "{}", held.reason);
    }
}
