//! Numbers findings, keeps the last ones, and offers each to every client.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config;
use crate::event::{Event, Kind};
use crate::finding::Finding;
use crate::metrics::{Metrics, Sink};
use crate::origin::Origin;

use super::filter::{After, Filter};
use super::history::{self, History};
use super::json_lines::JsonLines;
use super::queue::{Before, Item, Queue, Subscription};
use super::story::Stories;
use super::weight;

/// Clients of each stream that are served at once.
const CLIENTS: usize = 64;

/// There are too many clients, or the feed is shutting down.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NotSubscribed {
    /// Too many clients.
    #[error("already {CLIENTS} clients on this stream, and no more are served; end one of them")]
    TooMany,
    /// The agent is ending.
    #[error("the agent is shutting down")]
    Closed,
}

#[derive(Debug)]
struct Findings {
    sequence: u64,
    stories: Stories,
    history: History,
    clients: Vec<(Filter, Arc<Queue<Finding>>)>,
    json_lines: Option<JsonLines>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Events {
    clients: Vec<(Vec<Kind>, Arc<Queue<Event>>)>,
    closed: bool,
}

#[derive(Debug)]
pub(super) struct Hub {
    origin: Arc<Origin>,
    findings: Mutex<Findings>,
    events: Mutex<Events>,
    /// Somebody listens to events: all that the way of an event looks at when nobody does.
    listening: AtomicBool,
    client_queue: usize,
    metrics: Arc<Metrics>,
}

impl Hub {
    pub(super) fn new(config: &config::Feed, metrics: Arc<Metrics>) -> Self {
        Self {
            origin: Origin::new(),
            findings: Mutex::new(Findings {
                sequence: 0,
                stories: Stories::default(),
                history: History::new(config.history, history::MAX_BYTES),
                clients: Vec::new(),
                json_lines: None,
                closed: false,
            }),
            events: Mutex::default(),
            listening: AtomicBool::new(false),
            client_queue: config.client_queue.max(1),
            metrics,
        }
    }

    pub(super) fn set_json_lines(&self, json_lines: JsonLines) {
        lock(&self.findings).json_lines = Some(json_lines);
    }

    /// Numbers the finding and hands it on. The lock is held while it is offered, so that every client gets findings
    /// in the order of their numbers; no one sleeps or writes under it.
    pub(super) fn publish(&self, mut finding: Finding) {
        let mut state = lock(&self.findings);
        state.sequence += 1;
        finding.sequence = state.sequence;
        if let Some(first) = state.stories.since(&finding) {
            finding.since = Some(first);
        }
        finding.origin = Some(Arc::clone(&self.origin));
        let finding = Arc::new(finding);
        let bytes = weight::finding(&finding);
        let evicted = state.history.push(&finding, bytes);
        self.metrics.history(state.history.bytes(), evicted);
        if let Some(json_lines) = &state.json_lines {
            json_lines.offer(&finding, bytes);
        } else if state.closed {
            tracing::warn!(sequence = finding.sequence, "a finding came after the end, and reaches nobody");
        }
        state.clients.retain(|(filter, queue)| {
            if filter.matches(&finding) {
                queue.offer(&finding, bytes).is_ok()
            } else {
                !queue.is_abandoned()
            }
        });
        drop(state);
        self.metrics.published(&finding);
    }

    pub(super) fn event(&self, event: &Event) {
        if !self.listening.load(Ordering::Relaxed) {
            return;
        }
        let kind = event.kind();
        let mut shared = None;
        let mut state = lock(&self.events);
        state.clients.retain(|(kinds, queue)| {
            if !kinds.is_empty() && !kinds.contains(&kind) {
                return !queue.is_abandoned();
            }
            let (event, bytes) =
                shared.get_or_insert_with(|| (Arc::new(event.clone()), weight::event(event)));
            queue.offer(event, *bytes).is_ok()
        });
        self.listening.store(!state.clients.is_empty(), Ordering::Relaxed);
    }

    /// This run, whose findings these are.
    pub(super) fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    pub(super) fn sequence(&self) -> u64 {
        lock(&self.findings).sequence
    }

    /// Live findings, after those of the history with a higher sequence than `after`; if that is of another run, after all of them.
    pub(super) fn watch(
        &self,
        filter: Filter,
        after: Option<After>,
    ) -> Result<Subscription<Finding>, NotSubscribed> {
        let mut state = lock(&self.findings);
        if state.closed {
            return Err(NotSubscribed::Closed);
        }
        state.clients.retain(|(_, queue)| !queue.is_abandoned());
        if state.clients.len() >= CLIENTS {
            return Err(NotSubscribed::TooMany);
        }
        let mut first = vec![Item::Subscribed(state.sequence)];
        let before: Before<Finding>;
        if let Some(after) = after {
            // A number that was not reached yet is of another run, too.
            let other =
                after.run.is_some_and(|run| run != self.origin.run) || after.sequence > state.sequence;
            let after = if other { 0 } else { after.sequence };
            let held = u64::try_from(state.history.len()).expect("a length is below 2^64");
            let evicted = (state.sequence - held).saturating_sub(after);
            if other {
                first.push(Item::AnotherRun(evicted));
            } else if evicted > 0 {
                first.push(Item::Missed(evicted));
            }
            let (held, filter) = (state.history.held(after), filter.clone());
            let wanted = move |item: Item<Finding>| match item {
                Item::One(finding) if finding.sequence <= after || !filter.matches(&finding) => None,
                item => Some(item),
            };
            before = Box::new(first.into_iter().map(Some).chain(held.map(wanted)));
        } else {
            before = Box::new(first.into_iter().map(Some));
        }
        // The queue's room is for what comes; the history does not use it up.
        let queue = Arc::new(Queue::new(self.client_queue, Sink::Watch, Arc::clone(&self.metrics)));
        state.clients.push((filter, Arc::clone(&queue)));
        drop(state);
        self.metrics.clients(Sink::Watch, 1);
        Ok(Subscription::new(before, queue, |metrics| metrics.clients(Sink::Watch, -1)))
    }

    /// Live events of these kinds; no kinds: all.
    pub(super) fn events(&self, kinds: Vec<Kind>) -> Result<Subscription<Event>, NotSubscribed> {
        let mut state = lock(&self.events);
        if state.closed {
            return Err(NotSubscribed::Closed);
        }
        state.clients.retain(|(_, queue)| !queue.is_abandoned());
        if state.clients.len() >= CLIENTS {
            return Err(NotSubscribed::TooMany);
        }
        let first = Box::new(std::iter::once(Some(Item::Subscribed(0))));
        let queue = Arc::new(Queue::new(self.client_queue, Sink::Events, Arc::clone(&self.metrics)));
        state.clients.push((kinds, Arc::clone(&queue)));
        self.listening.store(true, Ordering::Relaxed);
        drop(state);
        self.metrics.clients(Sink::Events, 1);
        Ok(Subscription::new(first, queue, |metrics| metrics.clients(Sink::Events, -1)))
    }

    /// Asks the JSON lines file to be opened again.
    pub(super) fn reopen(&self) {
        if let Some(json_lines) = &lock(&self.findings).json_lines {
            json_lines.reopen();
        }
    }

    /// Ends every stream behind what is queued and gives back the JSON lines sink, which ends when it is dropped.
    pub(super) fn close(&self) -> Option<JsonLines> {
        let mut events = lock(&self.events);
        events.closed = true;
        events.clients.drain(..).for_each(|(_, queue)| queue.close());
        self.listening.store(false, Ordering::Relaxed);
        drop(events);
        let mut findings = lock(&self.findings);
        findings.closed = true;
        findings.clients.drain(..).for_each(|(_, queue)| queue.close());
        findings.json_lines.take()
    }
}

/// A panic under one of these locks leaves at worst a finding that not every client was offered.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
