//! The gRPC server: `muster.v1.Sensor`, health and reflection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use muster_proto::v1;
use muster_proto::v1::sensor_server::{Sensor, SensorServer};
use nix::time::{ClockId, clock_gettime};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::event::{FilePath, Kind};
use crate::finding::{Severity, Sha256, Verdict};
use crate::memory;
use crate::metrics::{Metrics, Queue, Sink};
use crate::origin::Origin;

use super::hub::{Hub, NotSubscribed};
use super::problems::problems;
use super::queue::Item;
use super::socket::Socket;
use super::{convert, convert_event};

/// What `Explain` is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A path in an image.
    Path(FilePath),
    /// A digest.
    Sha256(Sha256),
}

/// What the server must know of the rest of the agent. The application implements it; tests do with a constant.
pub trait StatusSource: Send + Sync + 'static {
    /// Kernel release, flavour, blind spots, rings, images, workloads and processes; the server fills in the rest.
    /// May take locks, must not do I/O.
    fn status(&self) -> v1::Status;
    /// What the verified SBOMs say, of one image or of all. Called on a thread that may block.
    fn explain(&self, asked: &Asked, image: Option<Sha256>) -> Vec<v1::Explanation>;
}

/// The reflection service could not be built: the build has broken descriptors.
#[derive(Debug, thiserror::Error)]
#[error("the reflection service refuses the interface's descriptors: {0}")]
pub struct ServeError(#[from] tonic_reflection::server::Error);

/// A server that runs.
#[derive(Debug)]
pub(super) struct Server {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
    health: HealthReporter,
    /// Says whether all is well.
    well: JoinHandle<()>,
}

/// Name of the health service that says whether all is well; the others say that the agent serves.
const READY: &str = "ready";
/// How often that is looked at.
const WELL_EVERY: Duration = Duration::from_secs(1);

/// Keeps the health service up to date.
async fn follow_health(health: HealthReporter, metrics: Arc<Metrics>) {
    let mut every = tokio::time::interval(WELL_EVERY);
    loop {
        every.tick().await;
        let status =
            if metrics.degraded().is_empty() { ServingStatus::Serving } else { ServingStatus::NotServing };
        health.set_service_status(READY, status).await;
    }
}

impl Server {
    /// Serves, in a task of the current runtime.
    pub(super) async fn start(
        Socket { name, listener }: Socket,
        hub: Arc<Hub>,
        metrics: Arc<Metrics>,
        source: Arc<dyn StatusSource>,
    ) -> Result<Self, ServeError> {
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<SensorServer<Service>>().await;
        let well = tokio::spawn(follow_health(health.clone(), Arc::clone(&metrics)));
        let described = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(v1::FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        // Many clients know only the older one.
        let (reflection, older) = (described().build_v1()?, described().build_v1alpha()?);
        let service = Service { hub, metrics, source, started: SystemTime::now() };
        let router = tonic::transport::Server::builder()
            .max_concurrent_streams(Some(128))
            .add_service(SensorServer::new(service))
            .add_service(health_service)
            .add_service(reflection)
            .add_service(older);
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let stopped = async { drop(stopped.await) };
            let (to, incoming) = mpsc::channel(1);
            let accepting = tokio::spawn(accept(listener, to));
            let incoming = ReceiverStream::new(incoming);
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, stopped).await {
                tracing::error!(%error, "the gRPC server ended");
            }
            accepting.abort();
            drop(name);
        });
        Ok(Self { stop, task, health, well })
    }

    /// Takes no new clients and waits for the streams to end; what has not ended by then is cut off.
    pub(super) async fn stop(self, deadline: Duration) {
        let Self { stop, mut task, health, well } = self;
        well.abort();
        health.set_not_serving::<SensorServer<Service>>().await;
        let _already_ended = stop.send(());
        if tokio::time::timeout(deadline, &mut task).await.is_err() {
            tracing::warn!("cutting off clients that have not taken what was queued for them");
            task.abort();
            let _cancelled = task.await;
        }
    }
}

/// Accepts for the server, which would try again at once, for ever, when file descriptors run out.
async fn accept(listener: UnixListener, to: mpsc::Sender<io::Result<UnixStream>>) {
    // A permit first: nobody is accepted who is not served.
    while let Ok(permit) = to.reserve().await {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = to.closed() => return,
        };
        match accepted {
            Ok((stream, _)) => permit.send(Ok(stream)),
            Err(error) => {
                tracing::warn!(%error, "a client could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

struct Service {
    hub: Arc<Hub>,
    metrics: Arc<Metrics>,
    source: Arc<dyn StatusSource>,
    started: SystemTime,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[expect(clippy::needless_pass_by_value, reason = "`map_err` hands the error over")]
fn invalid(error: impl ToString) -> Status {
    Status::invalid_argument(error.to_string())
}

impl From<NotSubscribed> for Status {
    fn from(error: NotSubscribed) -> Self {
        match error {
            NotSubscribed::TooMany => Self::resource_exhausted(error.to_string()),
            NotSubscribed::Closed => Self::unavailable(error.to_string()),
        }
    }
}

#[tonic::async_trait]
impl Sensor for Service {
    type WatchStream = Answers<v1::WatchResponse>;
    type EventsStream = Answers<v1::EventsResponse>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        use v1::watch_response::Item as Out;
        let (filter, after) = convert::filter_from(request.into_inner()).map_err(invalid)?;
        let origin = Arc::clone(self.hub.origin());
        let findings = self.hub.watch(filter, after)?.map(move |item| {
            let item = match item {
                Item::One(finding) => Out::Finding(convert::finding(&finding)),
                Item::Missed(count) => Out::Missed(v1::Missed { count, another_run: false }),
                Item::AnotherRun(count) => Out::Missed(v1::Missed { count, another_run: true }),
                Item::Subscribed(sequence) => Out::Subscribed(subscribed(sequence, &origin)),
            };
            Ok(v1::WatchResponse { item: Some(item) })
        });
        Ok(Response::new(Box::pin(findings)))
    }

    async fn events(
        &self,
        request: Request<v1::EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        use v1::events_response::Item as Out;
        let kinds = convert::kinds_from(request.into_inner().kinds).map_err(invalid)?;
        let origin = Arc::clone(self.hub.origin());
        let events = self.hub.events(kinds)?.map(move |item| {
            let item = match item {
                Item::One(event) => Out::Event(convert_event::event(&event, clocks())),
                Item::Missed(count) | Item::AnotherRun(count) => {
                    Out::Missed(v1::Missed { count, another_run: false })
                }
                Item::Subscribed(sequence) => Out::Subscribed(subscribed(sequence, &origin)),
            };
            Ok(v1::EventsResponse { item: Some(item) })
        });
        Ok(Response::new(Box::pin(events)))
    }

    async fn get_status(&self, _: Request<v1::GetStatusRequest>) -> Result<Response<v1::Status>, Status> {
        let mut status = self.source.status();
        status.version = env!("CARGO_PKG_VERSION").into();
        status.started = Some(convert::timestamp(self.started));
        status.sequence = self.hub.sequence();
        status.run.clone_from(&self.hub.origin().run);
        status.node.clone_from(&self.hub.origin().node);
        status.kinds = Kind::ALL.into_iter().map(|kind| kind_counters(&self.metrics, kind)).collect();
        status.queues = [(Queue::Judge, "judge"), (Queue::JsonLines, "json_lines")]
            .map(|(queue, name)| (name.to_owned(), self.metrics.queued(queue)))
            .into();
        status.dropped = [(Sink::Watch, "watch"), (Sink::Events, "events"), (Sink::JsonLines, "json_lines")]
            .map(|(sink, name)| (name.to_owned(), self.metrics.dropped_count(sink)))
            .into();
        status.severities = Severity::ALL
            .into_iter()
            .map(|severity| (severity.as_str().to_owned(), self.metrics.severity_count(severity)))
            .filter(|(_, count)| *count > 0)
            .collect();
        status.last_finding = self.metrics.last_finding().map(convert::timestamp);
        status.lag_ns = u64::try_from(self.metrics.lag().as_nanos()).unwrap_or(u64::MAX);
        status.resident_bytes = memory::resident();
        status.verdicts = Verdict::ALL
            .into_iter()
            .map(|verdict| (verdict.as_str().into(), self.metrics.verdict_count(verdict)))
            .filter(|(_, count)| *count > 0)
            .collect();
        status.problems = problems(&status);
        Ok(Response::new(status))
    }

    async fn explain(
        &self,
        request: Request<v1::ExplainRequest>,
    ) -> Result<Response<v1::ExplainResponse>, Status> {
        use v1::explain_request::What;
        let request = request.into_inner();
        let asked = match request.what {
            Some(What::Path(text)) if text.starts_with('/') => FilePath::unescape(&text)
                .map(Asked::Path)
                .ok_or_else(|| invalid(format!("path: a backslash must start \\xNN, found {text:?}")))?,
            Some(What::Path(text)) => {
                return Err(invalid(format!("path: expected an absolute one, found {text:?}")));
            }
            Some(What::Sha256(text)) => Asked::Sha256(text.parse().map_err(invalid)?),
            None => return Err(invalid("expected a path or a sha256, found neither")),
        };
        let image = match request.image_digest.as_str() {
            "" => None,
            text => Some(text.parse().map_err(invalid)?),
        };
        let source = Arc::clone(&self.source);
        let explanations = tokio::task::spawn_blocking(move || source.explain(&asked, image))
            .await
            .map_err(|error| Status::internal(format!("the look-up failed: {error}")))?;
        Ok(Response::new(v1::ExplainResponse { explanations }))
    }
}

fn subscribed(sequence: u64, origin: &Origin) -> v1::Subscribed {
    v1::Subscribed { sequence, run: origin.run.clone(), node: origin.node.clone() }
}

fn kind_counters(metrics: &Metrics, kind: Kind) -> v1::KindCounters {
    let counts = metrics.kind_counts(kind);
    v1::KindCounters {
        kind: convert::kind(kind).into(),
        submitted: counts.submitted,
        lost: counts.lost,
        received: counts.received,
        malformed: counts.malformed,
        judged: counts.judged,
    }
}

/// The wall clock and the clock that events carry, now.
fn clocks() -> (SystemTime, Duration) {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("every Linux since 2.6.39 has this clock");
    (SystemTime::now(), Duration::from(boot))
}
