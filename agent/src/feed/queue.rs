//! A bounded queue to one client: offering never waits, and what did not fit is told to the client at its place in the
//! stream.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio_stream::Stream;

use crate::metrics::{Metrics, Sink};

/// Bytes that wait for one client at most, however many items may.
const MAX_BYTES: usize = 4 << 20;

/// What comes out of a [`Subscription`].
#[derive(Clone, Debug, PartialEq)]
pub enum Item<T> {
    /// The stream is in place: everything with a higher sequence follows. Comes first, once.
    Subscribed(u64),
    /// A finding or an event.
    One(Arc<T>),
    /// So many are missing at this place.
    Missed(u64),
    /// The run that the client knew has ended; of this run so many are held no more. All that is held follows.
    AnotherRun(u64),
}

#[derive(Debug)]
struct State<T> {
    /// Each with its bytes.
    items: VecDeque<(Item<T>, usize)>,
    bytes: usize,
    /// Offered after the last of `items` and not taken.
    missed: u64,
    /// Nothing more will be offered.
    closed: bool,
    /// The subscription is gone.
    abandoned: bool,
    waker: Option<Waker>,
}

/// The producer's end.
#[derive(Debug)]
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    capacity: usize,
    sink: Sink,
    metrics: Arc<Metrics>,
}

/// The client is gone; its queue can be dropped.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone;

impl<T> Queue<T> {
    /// An empty queue of `capacity` items.
    pub(super) fn new(capacity: usize, sink: Sink, metrics: Arc<Metrics>) -> Self {
        let items = VecDeque::new();
        let state = State { items, bytes: 0, missed: 0, closed: false, abandoned: false, waker: None };
        Self { state: Mutex::new(state), capacity, sink, metrics }
    }

    /// Takes an item of so many bytes, or counts it as missed. Waits for nothing but the few instructions of a consumer that takes one.
    pub(super) fn offer(&self, item: &Arc<T>, bytes: usize) -> Result<(), Gone> {
        let mut state = self.lock();
        if state.abandoned {
            return Err(Gone);
        }
        if state.items.len() >= self.capacity || state.bytes + bytes > MAX_BYTES {
            state.missed += 1;
            self.metrics.dropped(self.sink, 1);
            return Ok(());
        }
        let missed = std::mem::take(&mut state.missed);
        if missed > 0 {
            state.items.push_back((Item::Missed(missed), 0));
        }
        state.items.push_back((Item::One(Arc::clone(item)), bytes));
        state.bytes += bytes;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Ends the stream behind what is queued.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    /// No code path leaves the state half changed, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What comes before anything that is queued; `None`: something that this client does not want.
pub(super) type Before<T> = Box<dyn Iterator<Item = Option<Item<T>>> + Send>;
/// So much that a client does not want is passed over before others get their turn.
const PASSED_OVER: usize = 64;

/// The client's end: a stream that ends when the feed shuts down and everything queued was taken.
pub struct Subscription<T> {
    /// Only this client reads it, so that nobody waits while it makes up its next item.
    before: Option<Before<T>>,
    queue: Arc<Queue<T>>,
    /// Called when the client goes.
    on_drop: fn(&Metrics),
}

impl<T: fmt::Debug> fmt::Debug for Subscription<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { before: _, queue, on_drop: _ } = self;
        f.debug_struct("Subscription").field("queue", queue).finish_non_exhaustive()
    }
}

impl<T> Subscription<T> {
    pub(super) fn new(before: Before<T>, queue: Arc<Queue<T>>, on_drop: fn(&Metrics)) -> Self {
        Self { before: Some(before), queue, on_drop }
    }
}

impl<T> Stream for Subscription<T> {
    type Item = Item<T>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item<T>>> {
        let mut passed = 0;
        while let Some(before) = &mut self.before {
            match before.next() {
                Some(Some(item)) => return Poll::Ready(Some(item)),
                Some(None) if passed < PASSED_OVER => passed += 1,
                Some(None) => {
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
                None => self.before = None,
            }
        }
        let mut state = self.queue.lock();
        if let Some((item, bytes)) = state.items.pop_front() {
            state.bytes -= bytes;
            return Poll::Ready(Some(item));
        }
        let missed = std::mem::take(&mut state.missed);
        if missed > 0 {
            return Poll::Ready(Some(Item::Missed(missed)));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        state.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl<T> Drop for Subscription<T> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.abandoned = true;
        state.items = VecDeque::new();
        drop(state);
        (self.on_drop)(&self.queue.metrics);
    }
}
