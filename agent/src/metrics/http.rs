//! `GET /metrics`, `GET /healthz` (for liveness: the sensor is attached) and `GET /readyz` (and all is well) over HTTP/1.1.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Metrics;

/// Connections served at once; further ones wait in the kernel's backlog.
const CONNECTIONS: usize = 16;
/// A client that has not sent its request by then is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection ends after this, whatever it does: scrapers open a new one.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);

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
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}

/// Serves the endpoint until the task is dropped.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>) -> Infallible {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
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
        tokio::spawn(async move {
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
            drop(permit);
        });
    }
}

fn respond(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    const PLAIN: &str = "text/plain; charset=utf-8";
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => (StatusCode::OK, OPEN_METRICS, metrics.text()),
        (&Method::GET, "/healthz" | "/readyz") if !metrics.is_ready() => {
            (StatusCode::SERVICE_UNAVAILABLE, PLAIN, "the sensor is not attached\n".into())
        }
        (&Method::GET, path @ ("/healthz" | "/readyz")) => {
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
        (&Method::GET, _) => {
            (StatusCode::NOT_FOUND, PLAIN, "expected /metrics or /healthz, or /readyz\n".into())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "expected GET\n".into()),
    };
    let mut response = Response::builder().status(status).header(CONTENT_TYPE, kind);
    if status == StatusCode::METHOD_NOT_ALLOWED {
        response = response.header(ALLOW, "GET");
    }
    response.body(Full::new(Bytes::from(body))).expect("every header here is valid")
}
