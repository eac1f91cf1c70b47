//! One request: TLS, proxy, redirects, time, size, and asking again.

use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::backoff;
use crate::attestation::source::SourceError;

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// What is read of an answer that is not 200.
const MAX_ERROR_BYTES: u64 = 64 << 10;
/// How long an unused connection is kept.
const IDLE: Duration = Duration::from_secs(15);

type Direct = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;
type Proxied = Client<HttpsConnector<Tunnel<HttpConnector>>, Full<Bytes>>;

/// The client of all registries.
pub(super) struct Http {
    direct: Direct,
    proxies: Matcher,
    /// Made when it is first needed: a proxy for TLS is one for all hosts that are not excepted.
    proxied: OnceLock<Proxied>,
    tls: ClientConfig,
    timeout: Duration,
}

/// An answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Of an answer that is not 200, the beginning.
    pub(super) body: Vec<u8>,
    /// Who says it, where redirects have led to another host than the one that was asked.
    pub(super) elsewhere: Option<String>,
}

/// A request that may be sent more than once.
struct Ask<'a> {
    url: Uri,
    accept: &'a str,
    authorization: Option<&'a HeaderValue>,
    /// A form to post; otherwise it is a GET.
    form: Option<&'a str>,
    limit: u64,
    deadline: Instant,
}

/// An attempt that failed.
enum Failed {
    /// Another attempt may succeed.
    Passing(SourceError),
    /// It would fail again.
    Lasting(SourceError),
}

impl Http {
    pub(super) fn new(ca_files: &[PathBuf], timeout: Duration) -> Result<Self, SourceError> {
        let tls = tls(ca_files)?;
        Ok(Self {
            direct: client(&tls, connector(timeout)),
            proxies: Matcher::from_env(),
            proxied: OnceLock::new(),
            tls,
            timeout,
        })
    }

    /// Gets at most `limit` bytes.
    pub(super) async fn get(
        &self,
        url: &str,
        accept: &str,
        authorization: Option<&HeaderValue>,
        limit: u64,
        deadline: Instant,
    ) -> Result<Answer, SourceError> {
        let url = parse(url)?;
        self.ask(&mut Ask { url, accept, authorization, form: None, limit, deadline }).await
    }

    /// Posts a form; for tokens only.
    pub(super) async fn post(
        &self,
        url: &str,
        form: &str,
        limit: u64,
        deadline: Instant,
    ) -> Result<Answer, SourceError> {
        let url = parse(url)?;
        let accept = "application/json";
        self.ask(&mut Ask { url, accept, authorization: None, form: Some(form), limit, deadline }).await
    }

    async fn ask(&self, ask: &mut Ask<'_>) -> Result<Answer, SourceError> {
        let asked = ask.url.authority().cloned();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.patiently(ask).await?;
            let redirected = matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308);
            if !redirected || ask.form.is_some() {
                let elsewhere = (ask.url.authority() != asked.as_ref()).then(|| host(&ask.url));
                return Ok(Answer { elsewhere, ..answer });
            }
            let next = redirect(&ask.url, &answer.headers)?;
            if next.authority() != ask.url.authority() {
                // Another host has no business with it.
                ask.authorization = None;
            }
            ask.url = next;
        }
        Err(SourceError::Answer {
            host: host(&ask.url),
            what: format!("more than {MAX_REDIRECTS} redirects"),
        })
    }

    /// Asks again as long as that may help.
    async fn patiently(&self, ask: &Ask<'_>) -> Result<Answer, SourceError> {
        let mut attempt = 0;
        loop {
            let last = attempt + 1 == backoff::ATTEMPTS;
            let (fault, asked) = match self.once(ask).await {
                Ok(answer) if last || !is_passing(answer.status) => return Ok(answer),
                Ok(answer) => (None, retry_after(&answer.headers)),
                Err(Failed::Lasting(error)) => return Err(error),
                Err(Failed::Passing(error)) if last => return Err(error),
                Err(Failed::Passing(error)) => (Some(error), None),
            };
            let pause = backoff::pause(attempt, asked);
            if Instant::now() + pause >= ask.deadline {
                return Err(fault.unwrap_or_else(|| too_long(ask)));
            }
            tracing::debug!(host = host(&ask.url), ?pause, "asking the registry again");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn once(&self, ask: &Ask<'_>) -> Result<Answer, Failed> {
        let left = ask.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failed::Lasting(too_long(ask)));
        }
        let silent =
            || Failed::Passing(unreachable(ask, format!("no answer within {:?}", self.timeout.min(left))));
        let sent = tokio::time::timeout(self.timeout.min(left), self.send(ask)).await;
        let response = sent.map_err(|_| silent())??;
        let (parts, body) = response.into_parts();
        let limit = if parts.status == StatusCode::OK { ask.limit } else { MAX_ERROR_BYTES };
        let body = match self.body(ask, body, limit).await {
            // Of an error only the beginning matters, if at all.
            Err(Failed::Lasting(SourceError::TooLarge { .. })) if parts.status != StatusCode::OK => {
                Vec::new()
            }
            body => body?,
        };
        Ok(Answer { status: parts.status, headers: parts.headers, body, elsewhere: None })
    }

    async fn send(&self, ask: &Ask<'_>) -> Result<Response<Incoming>, Failed> {
        let method = if ask.form.is_some() { Method::POST } else { Method::GET };
        let mut request = Request::builder()
            .method(method)
            .uri(ask.url.clone())
            .header(ACCEPT, ask.accept)
            .header(USER_AGENT, concat!("muster/", env!("CARGO_PKG_VERSION")));
        if let Some(value) = ask.authorization {
            request = request.header(AUTHORIZATION, value);
        }
        if ask.form.is_some() {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let body = Full::new(Bytes::from(ask.form.unwrap_or_default().to_owned()));
        let request = request.body(body).map_err(|error| {
            Failed::Lasting(unreachable(ask, format!("the request cannot be made: {error}")))
        })?;
        let sent = match self.proxies.intercept(&ask.url) {
            None => self.direct.request(request).await,
            Some(proxy) => self.through(&proxy)?.request(request).await,
        };
        sent.map_err(|error| {
            let reason = reasons(&error);
            if has_certificate_fault(&error) {
                let reason =
                    format!("{reason}; name the CA's certificate in attestation.registry.ca_files (or --ca)");
                Failed::Lasting(unreachable(ask, reason))
            } else {
                Failed::Passing(unreachable(ask, reason))
            }
        })
    }

    fn through(&self, proxy: &Intercept) -> Result<&Proxied, Failed> {
        if proxy.uri().scheme_str() != Some("http") {
            return Err(Failed::Lasting(SourceError::Unreachable {
                host: host(proxy.uri()),
                reason: "expected a proxy of the form http://HOST:PORT in HTTPS_PROXY".to_owned(),
            }));
        }
        Ok(self.proxied.get_or_init(|| {
            let tunnel = Tunnel::new(proxy.uri().clone(), connector(self.timeout));
            let tunnel = match proxy.basic_auth() {
                Some(auth) => tunnel.with_auth(auth.clone()),
                None => tunnel,
            };
            client(&self.tls, tunnel)
        }))
    }

    async fn body(&self, ask: &Ask<'_>, mut body: Incoming, limit: u64) -> Result<Vec<u8>, Failed> {
        let mut bytes = Vec::new();
        loop {
            let left = ask.deadline.saturating_duration_since(Instant::now());
            let wait = self.timeout.min(left);
            let frame = match tokio::time::timeout(wait, body.frame()).await {
                Err(_) => {
                    let reason = format!("nothing came for {wait:?} after {} bytes", bytes.len());
                    return Err(Failed::Passing(unreachable(ask, reason)));
                }
                Ok(None) => return Ok(bytes),
                Ok(Some(Err(error))) => {
                    let reason = format!("broken off after {} bytes: {}", bytes.len(), reasons(&error));
                    return Err(Failed::Passing(unreachable(ask, reason)));
                }
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(data) = frame.into_data() else { continue };
            let size = u64::try_from(bytes.len() + data.len()).unwrap_or(u64::MAX);
            if size > limit {
                return Err(Failed::Lasting(SourceError::TooLarge { limit }));
            }
            bytes.extend_from_slice(&data);
        }
    }
}

fn parse(url: &str) -> Result<Uri, SourceError> {
    let refused = |reason: &str| SourceError::Answer {
        host: url.chars().take(200).collect(),
        what: format!("an address that is not used: {reason}"),
    };
    let uri: Uri = url.parse().map_err(|error| refused(&format!("{error}")))?;
    if uri.scheme_str() != Some("https") {
        return Err(refused("expected https"));
    }
    if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
        return Err(refused("expected a host, without a user"));
    }
    Ok(uri)
}

fn redirect(from: &Uri, headers: &HeaderMap) -> Result<Uri, SourceError> {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if location.starts_with('/') && !location.starts_with("//") {
        return parse(&format!("https://{}{location}", host(from)));
    }
    parse(location)
}

fn host(url: &Uri) -> String {
    url.authority().map_or_else(|| url.to_string(), ToString::to_string)
}

fn unreachable(ask: &Ask<'_>, reason: String) -> SourceError {
    SourceError::Unreachable { host: host(&ask.url), reason }
}

fn too_long(ask: &Ask<'_>) -> SourceError {
    unreachable(
        ask,
        "it took too long for this image (ten times attestation.registry.timeout_seconds)".to_owned(),
    )
}

/// The registry is overloaded or restarts.
fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// An error with its causes: hyper's own text names none of them.
fn reasons(error: &dyn StdError) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in causes(error) {
        let text = cause.to_string();
        if !texts.iter().any(|before| before.contains(&text)) {
            texts.push(text);
        }
    }
    texts.join(": ")
}

fn causes<'e>(error: &'e dyn StdError) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    // The first one's type is not needed, only its text, which the second mostly repeats; but it may be the only one.
    std::iter::successors(error.source(), |error| StdError::source(*error))
}

fn has_certificate_fault(error: &dyn StdError) -> bool {
    causes(error).any(is_certificate_fault)
}

/// The connector wraps errors of the system in each other, and none of them names what it holds as its source.
fn is_certificate_fault(cause: &(dyn StdError + 'static)) -> bool {
    if let Some(error) = cause.downcast_ref::<rustls::Error>() {
        return matches!(error, rustls::Error::InvalidCertificate(_));
    }
    let held = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    held.is_some_and(|held| is_certificate_fault(held))
}

fn connector(timeout: Duration) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(timeout));
    connector.set_nodelay(true);
    connector
}

fn client<C>(tls: &ClientConfig, connector: C) -> Client<HttpsConnector<C>, Full<Bytes>>
where
    HttpsConnector<C>: hyper_util::client::legacy::connect::Connect + Clone,
{
    let https = HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_only().enable_http1();
    Client::builder(TokioExecutor::new())
        .pool_idle_timeout(IDLE)
        .pool_timer(TokioTimer::new())
        .build(https.wrap_connector(connector))
}

/// The system's CA certificates and those of `ca_files`; aws-lc-rs does the cryptography.
fn tls(ca_files: &[PathBuf]) -> Result<ClientConfig, SourceError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "some of the system's CA certificates are not read");
    }
    roots.add_parsable_certificates(native.certs);
    for file in ca_files {
        add(&mut roots, file)?;
    }
    if roots.is_empty() {
        return Err(SourceError::File {
            file: "attestation.registry.ca_files".into(),
            reason: "no CA certificate at all, here or in the system; install ca-certificates or name a file"
                .to_owned(),
        });
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(std::io::Error::other)?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn add(roots: &mut RootCertStore, file: &Path) -> Result<(), SourceError> {
    let fault = |reason: String| SourceError::File { file: file.to_owned(), reason };
    let certificates =
        CertificateDer::pem_file_iter(file).map_err(|error| fault(format!("cannot read: {error}")))?;
    let mut found = 0;
    for certificate in certificates {
        let certificate =
            certificate.map_err(|error| fault(format!("expected PEM certificates: {error}")))?;
        roots.add(certificate).map_err(|error| fault(format!("certificate {}: {error}", found + 1)))?;
        found += 1;
    }
    if found == 0 {
        return Err(fault("has no certificate; expected PEM (BEGIN CERTIFICATE)".to_owned()));
    }
    Ok(())
}
