//! `GET /metrics`, `GET /healthz` (for liveness: the sensor is attached) and `GET /readyz` (and all is well) over HTTP/1.1.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderMap};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use super::Metrics;
use super::classic::classic;

/// Connections at once. The next one ends the oldest: whoever sends its request is answered long before so many others come, and who
/// sends none keeps nobody out.
const CONNECTIONS: usize = 64;
/// A client that has not sent its request by then is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection ends after this, whatever it does: scrapers open a new one.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// How long an agent that is ending may take to let go of the address.
const BIND_PATIENCE: Duration = Duration::from_secs(1);

/// The endpoint could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for metrics: {source}; set metrics.listen to a free address, or to \"\"")]
pub struct ListenError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Opens the endpoint.
///
/// # Errors
/// The address is taken or is none of this machine's.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    if !address.ip().is_loopback() {
        tracing::warn!(%address, "metrics are readable from other machines");
    }
    let begun = Instant::now();
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == ErrorKind::AddrInUse && begun.elapsed() < BIND_PATIENCE => {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            bound => return bound.map_err(|source| ListenError { address, source }),
        }
    }
}

/// Serves the endpoint until the task is dropped.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>) -> Infallible {
    let mut connections = Connections::default();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: a loop without a pause would burn a core.
                tracing::warn!(%error, "a metrics client could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let metrics = Arc::clone(&metrics);
        let task = tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = respond(&request, &metrics);
                async { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(16 << 10)
                .serve_connection(TokioIo::new(stream), service);
            match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a metrics client broke off"),
            }
        });
        connections.add(task.abort_handle());
    }
}

/// The connections that there are, oldest first. Dropping it ends them.
#[derive(Default)]
struct Connections(VecDeque<AbortHandle>);

impl Connections {
    fn add(&mut self, new: AbortHandle) {
        self.0.retain(|connection| !connection.is_finished());
        if self.0.len() >= CONNECTIONS
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(new);
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

fn respond(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
    const PLAIN: &str = "text/plain; charset=utf-8";
    let asks = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, kind, body) = match request.uri().path() {
        _ if !asks => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "expected GET or HEAD\n".into()),
        "/metrics" if wants_open_metrics(request.headers()) => (StatusCode::OK, OPEN_METRICS, metrics.text()),
        "/metrics" => (StatusCode::OK, CLASSIC, classic(&metrics.text())),
        "/healthz" | "/readyz" if !metrics.is_ready() => {
            (StatusCode::SERVICE_UNAVAILABLE, PLAIN, "the sensor is not attached\n".into())
        }
        path @ ("/healthz" | "/readyz") => {
            let why = metrics.degraded();
            match (why.is_empty(), path) {
                (true, _) => (StatusCode::OK, PLAIN, "ok\n".into()),
                // A liveness probe must not have an agent restarted that a restart does not mend.
                (false, "/healthz") => {
                    (StatusCode::OK, PLAIN, format!("degraded: {}\n", why.join("\ndegraded: ")))
                }
                (false, _) => {
                    let why = format!("degraded: {}\n", why.join("\ndegraded: "));
                    (StatusCode::SERVICE_UNAVAILABLE, PLAIN, why)
                }
            }
        }
        _ => (StatusCode::NOT_FOUND, PLAIN, "expected /metrics or /healthz, or /readyz\n".into()),
    };
    let mut response = Response::builder().status(status).header(CONTENT_TYPE, kind);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response = response.header(ALLOW, "GET, HEAD");
    }
    // To HEAD, hyper sends the headers alone.
    response.body(Full::new(Bytes::from(body))).expect("every header here is valid")
}

/// OpenMetrics is named, and nothing that is better liked (`q`, RFC 9110, section 12.4.2): a client that says nothing gets the format
/// that every tool reads.
fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let (mut open, mut plain) = (0.0, 0.0_f32);
    for range in accepted.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let liked: Option<f32> =
            parts.filter_map(|part| part.strip_prefix("q=")).find_map(|q| q.parse().ok());
        let liked = liked.unwrap_or(1.0);
        match kind {
            "application/openmetrics-text" => open = liked.max(open),
            "text/plain" => plain = liked.max(plain),
            _ => {}
        }
    }
    open > 0.0 && open >= plain
}
