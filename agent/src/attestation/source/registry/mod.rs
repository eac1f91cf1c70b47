//! An OCI registry, read by digest over TLS (OCI distribution specification 1.1).
//!
//! A client of our own on hyper and rustls: it needs a dozen crates and one cryptographic provider, and limits what a registry can make
//! it do (bytes, redirects, time, numbers). There is no way to talk to a registry without TLS.

mod auth;
mod backoff;
mod credentials;
mod http;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{HeaderMap, LINK};
use tokio::sync::Semaphore;

use super::oci::{Descriptor, Document, MAX_DOCUMENT_BYTES};
use super::walk::{Store, walk};
use super::{Found, Reference, Scope, SourceError};
use crate::attestation::{Limits, sha256};
use crate::config;
use crate::finding::Sha256;
use crate::recent::Recent;
use auth::Authorization;
pub use auth::{Challenge, challenges};
pub use credentials::{Secret, secret};
use http::{Answer, Http};

/// Images that are asked for at the same time.
const CONCURRENT: usize = 4;
/// Images without an attestation that are remembered.
const REMEMBERED: usize = 4096;
/// What one image may take at most, in timeouts of one answer.
const DEADLINE: u32 = 10;
/// Pages of a list of referrers.
const MAX_PAGES: usize = 8;

/// Index and manifest, OCI's and Docker's.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v2+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// All registries: which one is asked says the reference.
pub struct Registry {
    http: Http,
    timeout: Duration,
    permits: Semaphore,
    /// Images for which nothing was found, until when that is believed.
    nothing: Mutex<Recent<Sha256, (Instant, Found)>>,
    believed: Duration,
}

impl Registry {
    /// Reads CA files and the proxy's environment variables.
    ///
    /// # Errors
    /// When a CA file cannot be used, or there is no CA certificate at all.
    pub fn new(config: &config::Registry) -> Result<Self, SourceError> {
        let timeout = Duration::from_secs(u64::from(config.timeout_seconds));
        Ok(Self {
            http: Http::new(&config.ca_files, timeout)?,
            timeout,
            permits: Semaphore::new(CONCURRENT),
            nothing: Mutex::new(Recent::new(REMEMBERED)),
            believed: Duration::from_secs(u64::from(config.cache_seconds)),
        })
    }

    /// As [`Sources::candidates`](super::Sources::candidates). That there is nothing, or that the registry cannot be reached, is
    /// believed for `cache_seconds`.
    pub(super) async fn candidates(
        &self,
        reference: &Reference,
        digests: &[Sha256],
        scope: Scope,
        limits: &Limits,
    ) -> Found {
        let key = sha256(format!("{reference} {digests:?} {scope:?}").as_bytes());
        if let Some(nothing) = self.remembered(&key) {
            return nothing;
        }
        let Ok(_permit) = self.permits.acquire().await else { return Found::default() };
        let repository =
            match Repository::new(&self.http, reference, Instant::now() + self.timeout * DEADLINE) {
                Ok(repository) => repository,
                Err(error) => return Found { unreachable: Some(error.to_string()), ..Found::default() },
            };
        let found = walk(Store::Registry(&repository), digests, scope, limits).await;
        if found.candidates.is_empty() && !self.believed.is_zero() {
            let mut nothing = self.nothing.lock().unwrap_or_else(PoisonError::into_inner);
            nothing.insert(key, (Instant::now() + self.believed, found.clone()));
        }
        found
    }

    fn remembered(&self, key: &Sha256) -> Option<Found> {
        let mut nothing = self.nothing.lock().unwrap_or_else(PoisonError::into_inner);
        match nothing.get(key) {
            Some((until, found)) if *until > Instant::now() => Some(found.clone()),
            Some(_) => {
                nothing.remove(key);
                None
            }
            None => None,
        }
    }
}

/// One repository, for one image.
pub(super) struct Repository<'a> {
    http: &'a Http,
    /// Host and port that are connected to.
    host: String,
    name: String,
    authorization: Authorization,
    deadline: Instant,
}

impl<'a> Repository<'a> {
    fn new(http: &'a Http, reference: &Reference, deadline: Instant) -> Result<Self, SourceError> {
        let host = match reference.host() {
            // Docker Hub's name is not the name of its registry.
            "docker.io" | "index.docker.io" => "registry-1.docker.io",
            host => host,
        };
        let credential = credentials::find(reference.host(), reference.repository())?;
        Ok(Self {
            http,
            host: host.to_owned(),
            name: reference.repository().to_owned(),
            authorization: Authorization::new(credential, reference.repository()),
            deadline,
        })
    }

    /// For messages.
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.host, self.name)
    }

    /// A manifest by digest or tag; `None` when it is not there.
    pub(super) async fn manifest(&self, which: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let url = format!("https://{}/v2/{}/manifests/{which}", self.host, self.name);
        self.found(self.get(&url, MANIFESTS, MAX_DOCUMENT_BYTES).await?)
    }

    /// A blob of this size; `None` when it is not there.
    pub(super) async fn blob(&self, digest: &Sha256, size: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let url = format!("https://{}/v2/{}/blobs/sha256:{digest}", self.host, self.name);
        self.found(self.get(&url, "*/*", size).await?)
    }

    /// The referrers of a digest; `None` when the registry has no such API.
    pub(super) async fn referrers(&self, subject: &Sha256) -> Result<Option<Vec<Descriptor>>, SourceError> {
        let mut url = format!("https://{}/v2/{}/referrers/sha256:{subject}", self.host, self.name);
        let mut all = Vec::new();
        for page in 0..MAX_PAGES {
            let answer = self.get(&url, INDEX, MAX_DOCUMENT_BYTES).await?;
            let no_api = [
                StatusCode::NOT_FOUND,
                StatusCode::BAD_REQUEST,
                StatusCode::METHOD_NOT_ALLOWED,
                StatusCode::NOT_ACCEPTABLE,
                StatusCode::NOT_IMPLEMENTED,
            ];
            if page == 0 && no_api.contains(&answer.status) {
                return Ok(None);
            }
            let next = next_page(&answer.headers);
            let Some(bytes) = self.found(answer)? else { break };
            match Document::parse(&bytes)? {
                Document::Index(index) => all.extend(index.manifests),
                Document::Manifest(_) => {
                    return Err(self.answers("a manifest; expected an index of referrers"));
                }
            }
            match next {
                None => break,
                // Only a place in the same registry.
                Some(next) if next.starts_with('/') && !next.starts_with("//") => {
                    url = format!("https://{}{next}", self.host);
                }
                Some(next) if next.starts_with(&format!("https://{}/", self.host)) => url = next,
                Some(_) => return Err(self.answers("a next page of referrers at another place")),
            }
        }
        Ok(Some(all))
    }

    fn found(&self, answer: Answer) -> Result<Option<Vec<u8>>, SourceError> {
        match answer.status {
            StatusCode::OK => Ok(Some(answer.body)),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(self.answers(&format!("status {status}"))),
        }
    }

    fn answers(&self, what: &str) -> SourceError {
        SourceError::Answer { host: self.host.clone(), what: what.to_owned() }
    }

    /// Asks; when the registry wants to know who asks, tells it and asks again.
    async fn get(&self, url: &str, accept: &str, limit: u64) -> Result<Answer, SourceError> {
        let before = self.authorization.header().await;
        let answer = self.http.get(url, accept, before.as_ref(), limit, self.deadline).await?;
        // Another host, to which a redirect has led, is told nothing, and not where to get a token either.
        if answer.status != StatusCode::UNAUTHORIZED || answer.elsewhere.is_some() {
            return self.permitted(answer);
        }
        let again = self
            .authorization
            .answer(self.http, &self.host, &answer.headers, before.as_ref(), self.deadline)
            .await?;
        let answer = self.http.get(url, accept, Some(&again), limit, self.deadline).await?;
        self.permitted(answer)
    }

    fn permitted(&self, answer: Answer) -> Result<Answer, SourceError> {
        let what = match answer.status {
            StatusCode::UNAUTHORIZED => "401 Unauthorized",
            StatusCode::FORBIDDEN => "403 Forbidden",
            _ => return Ok(answer),
        };
        let reason = match answer.elsewhere {
            Some(host) => format!("{what} by {host}, where it redirects to: credentials are not sent there"),
            None => format!("{what} {}", self.authorization.told()),
        };
        Err(SourceError::Denied { host: self.host.clone(), reason })
    }
}

/// `Link: <…>; rel="next"`.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    let parts = links.flat_map(|value| value.split(','));
    parts.filter_map(|part| part.trim().strip_prefix('<')?.split_once('>')).find_map(|(url, rest)| {
        let is_next = rest.split(';').any(|p| matches!(p.trim(), "rel=next" | "rel=\"next\""));
        is_next.then(|| url.to_owned())
    })
}
