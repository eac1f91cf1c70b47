//! Findings to the outside: gRPC on a Unix socket, and JSON lines.
//!
//! ```text
//! judge ─► Feed::publish ─► hub: number, history ─┬─► bounded queue per client ─► gRPC stream
//!                                                 └─► bounded queue ─► JSON lines
//! ```
//!
//! `publish` never waits for a client or a disk. What a client misses because it is slow it is told, at its place in
//! the stream.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::config;
use crate::event::{Event, Kind};
use crate::finding::Finding;
use crate::metrics::Metrics;
use crate::origin::Origin;

pub mod client;
pub mod convert;
mod convert_event;
mod exceptions_text;
mod filter;
mod history;
mod hub;
mod json;
mod json_lines;
mod output;
mod overview;
mod problems;
mod queue;
mod server;
mod socket;
pub mod status_text;
mod story;
#[cfg(test)]
mod tests;
pub mod text;
mod weight;

pub use filter::{After, Filter};
pub use hub::NotSubscribed;
pub use json::{append_line, time_text};
pub use json_lines::OpenError;
pub use queue::{Item, Subscription};
pub use server::{Asked, ServeError, StatusSource};
pub use socket::{Socket, SocketError};

/// Where findings go.
#[derive(Debug)]
pub struct Feed {
    hub: Arc<hub::Hub>,
    metrics: Arc<Metrics>,
    server: Mutex<Option<server::Server>>,
}

impl Feed {
    /// A feed that keeps history and, if configured, writes JSON lines. It needs no runtime until it serves.
    ///
    /// # Errors
    /// The JSON lines file cannot be opened.
    pub fn new(config: &config::Feed, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let hub = Arc::new(hub::Hub::new(config, Arc::clone(&metrics)));
        if let Some(path) = &config.json_lines {
            hub.set_json_lines(json_lines::JsonLines::start(
                path,
                Arc::downgrade(&hub),
                Arc::clone(&metrics),
            )?);
        }
        Ok(Self { hub, metrics, server: Mutex::new(None) })
    }

    /// Numbers the finding (whatever its `sequence` says) and offers it to everyone. Never waits for a client or a disk.
    pub fn publish(&self, finding: Finding) {
        self.hub.publish(finding);
    }

    /// Offers an event to those who listen to raw events; one atomic load when nobody does.
    pub fn event(&self, event: &Event) {
        self.hub.event(event);
    }

    /// This run of the agent, and where: what each of its findings names.
    pub fn origin(&self) -> &Arc<Origin> {
        self.hub.origin()
    }

    /// Number of the last finding; 0 before the first.
    pub fn sequence(&self) -> u64 {
        self.hub.sequence()
    }

    /// Findings that pass the filter: with `after`, first those of the history with a higher number.
    ///
    /// # Errors
    /// Too many clients, or the feed is shutting down.
    pub fn watch(
        &self,
        filter: Filter,
        after: Option<After>,
    ) -> Result<Subscription<Finding>, NotSubscribed> {
        self.hub.watch(filter, after)
    }

    /// Raw events of these kinds from now on; no kinds: all.
    ///
    /// # Errors
    /// Too many clients, or the feed is shutting down.
    pub fn events(&self, kinds: Vec<Kind>) -> Result<Subscription<Event>, NotSubscribed> {
        self.hub.events(kinds)
    }

    /// Opens the JSON lines file again, after log rotation renamed it.
    pub fn reopen(&self) {
        self.hub.reopen();
    }

    /// Serves on the socket, in tasks of the current runtime.
    ///
    /// # Errors
    /// This build cannot describe its interface.
    pub async fn serve(&self, socket: Socket, source: Arc<dyn StatusSource>) -> Result<(), ServeError> {
        let hub = Arc::clone(&self.hub);
        let server = server::Server::start(socket, hub, Arc::clone(&self.metrics), source).await?;
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(())
    }

    /// Ends every stream behind what is queued for it and writes the queued JSON lines, for at most `deadline`. Call it
    /// when nothing more is published.
    pub async fn shutdown(&self, deadline: Duration) {
        let json_lines = self.hub.close();
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
        let streams = async {
            if let Some(server) = server {
                server.stop(deadline).await;
            }
        };
        let lines = async {
            let Some(json_lines) = json_lines else { return };
            let finished = tokio::task::spawn_blocking(move || json_lines.finish(deadline)).await;
            if !matches!(finished, Ok(true)) {
                tracing::error!("JSON lines were still being written at the deadline; the rest is lost");
            }
        };
        tokio::join!(streams, lines);
    }
}
