//! The thread that empties the rings.
//!
//! Invariants:
//! * Events are handed on in order of time over all rings ([`Merge`]), so a process's exec comes before what it did, and that before
//!   its end, however long the rings were not read.
//! * A record that is reserved and never submitted holds up the others for [`HOLD`] and no longer.
//! * The rings are read whenever the consumer takes batches. When it does not, the send waits, the rings fill, and the
//!   kernel counts what does not fit. The metrics follow its counters all the while.

use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};
use crossbeam_channel::{SendTimeoutError, Sender};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use tracing::{error, warn};

use super::Batch;
use super::counters::{CAUSES, Counters, Losers, Totals, publish};
use super::decode::decode;
use super::losses::Losses;
use super::merge::Merge;
use crate::event::{Class, Event};
use crate::metrics::Metrics;

/// How often the loss counters are read, and how soon a stop is noticed.
const TICK: Duration = Duration::from_millis(250);
/// After the programs were told to submit nothing more, one that is still running on another CPU may submit a last record.
const SETTLE_MAX: Duration = Duration::from_millis(500);
const SETTLE_MIN: Duration = Duration::from_millis(5);
/// How long events wait for a record that is reserved and not submitted. The kernel's programs run for microseconds, but the processor
/// may be taken from under them.
const HOLD: Duration = Duration::from_millis(500);
/// Between two looks at rings of which one holds up the others.
const PAUSE: Duration = Duration::from_micros(100);
/// Refused records that are logged one by one; the counters go on.
const MALFORMED_LOGGED: u64 = 20;

/// What the thread owns.
pub(super) struct Drain {
    pub(super) rings: [RingBuf<MapData>; Class::ALL.len()],
    pub(super) merge: Merge<{ Class::ALL.len() }>,
    pub(super) counters: Arc<Counters>,
    pub(super) losers: Losers,
    pub(super) losses: Losses,
    pub(super) metrics: Arc<Metrics>,
    pub(super) out: Sender<Batch>,
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) malformed: u64,
    #[cfg(feature = "ebpf-log")]
    pub(super) log: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
}

/// The consumer is gone.
#[derive(Debug, PartialEq, Eq)]
struct Gone;

impl Drain {
    /// Runs until the sensor stops or nobody takes batches any more.
    pub(super) fn run(mut self) {
        if self.work().is_err() {
            error!("the consumer of events is gone; the sensor stops reading and the rings will overflow");
        }
    }

    fn work(&mut self) -> Result<(), Gone> {
        let mut next_tick = Instant::now() + TICK;
        // Since when nothing was handed on although events wait.
        let mut held_since = None;
        let mut events = Vec::new();
        while !self.stopping.load(Ordering::Acquire) {
            let now = Instant::now();
            if now >= next_tick {
                self.tick(&mut events);
                next_tick = now + TICK;
            }
            let ready = self.read();
            let mut more = self.merge.take(&mut events);
            if more || !self.merge.holds() {
                held_since = None;
            } else if held_since.get_or_insert(now).elapsed() > HOLD {
                warn!("a record was reserved long ago and is not submitted; what waited for it goes on");
                self.merge.take_all(&mut events);
                more = true;
            }
            self.send(&mut events)?;
            if more {
                continue;
            }
            if ready || self.merge.holds() {
                std::thread::sleep(PAUSE);
            } else {
                self.wait(next_tick.saturating_duration_since(Instant::now()));
            }
        }
        self.settle()
    }

    /// The programs submit nothing more: reads what is left until everything that was submitted has been read.
    fn settle(&mut self) -> Result<(), Gone> {
        let deadline = Instant::now() + SETTLE_MAX;
        std::thread::sleep(SETTLE_MIN);
        let mut events = Vec::new();
        loop {
            self.read();
            while self.merge.take(&mut events) {
                self.send(&mut events)?;
                self.read();
            }
            let sent = self.tick(&mut events);
            let missing = sent.iter().sum::<u64>().saturating_sub(self.taken());
            if missing == 0 || Instant::now() > deadline {
                if missing > 0 {
                    warn!(missing, "the kernel counts more submitted records than were in the rings");
                }
                self.merge.take_all(&mut events);
                return self.send(&mut events);
            }
            self.send(&mut events)?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Records that were taken out of the rings.
    fn taken(&self) -> u64 {
        let received = crate::event::Kind::ALL.map(|kind| self.metrics.kind_counts(kind).received);
        received.iter().sum::<u64>() + self.malformed
    }

    fn wait(&self, timeout: Duration) {
        // Rounded up, so that a wait of less than a millisecond is not a busy loop.
        let millis = u16::try_from(timeout.as_millis() + 1).unwrap_or(u16::MAX);
        self.poll(PollTimeout::from(millis));
    }

    /// Which rings hold something, submitted or only reserved (`ringbuf_map_poll()` compares the two positions). All, when the kernel
    /// does not say.
    fn poll(&self, timeout: PollTimeout) -> [bool; Class::ALL.len()] {
        let mut fds = self.rings.each_ref().map(|ring| PollFd::new(ring.as_fd(), PollFlags::POLLIN));
        match poll(&mut fds, timeout) {
            Ok(_) => fds.map(|fd| fd.any() != Some(false)),
            Err(error) => {
                if error != nix::errno::Errno::EINTR {
                    error!(%error, "waiting for the rings failed; they are read by the clock");
                    std::thread::sleep(Duration::from_millis(10));
                }
                [true; Class::ALL.len()]
            }
        }
    }

    /// Reads each ring until it has nothing more to give, or has given as much as may wait for the others. True when one holds more.
    fn read(&mut self) -> bool {
        let asked_ns = now_ns();
        let mut drained = [false; Class::ALL.len()];
        let mut decoder = Decoder { metrics: &self.metrics, malformed: &mut self.malformed };
        for (at, (ring, class)) in self.rings.iter_mut().zip(Class::ALL).enumerate() {
            let merge = &mut self.merge;
            drained[at] = decoder.take(ring, class, merge.room(at), |event| merge.give(at, event));
        }
        let ready = self.poll(PollTimeout::ZERO);
        for (at, (drained, ready)) in drained.into_iter().zip(ready).enumerate() {
            if drained && !ready {
                self.merge.empty(at, asked_ns);
            }
        }
        ready.contains(&true)
    }

    fn send(&mut self, events: &mut Vec<Event>) -> Result<(), Gone> {
        if events.is_empty() {
            return Ok(());
        }
        self.metrics.batch(events.len());
        let batch = Batch { events: std::mem::take(events) };
        // Its losses become events when the consumer takes any again.
        send(&self.out, batch, TICK, || {
            self.count();
        })
    }

    /// Reads the kernel's counters; new losses become events. Returns the totals of submitted records.
    fn tick(&mut self, events: &mut Vec<Event>) -> Totals {
        #[cfg(feature = "ebpf-log")]
        if let Some(log) = &mut self.log {
            log.flush();
        }
        let Some((sent, lost)) = self.count() else { return Totals::default() };
        let now_ns = now_ns();
        self.losses.update(&lost, || self.losers.take(), now_ns, events);
        self.losses.refused(&self.metrics, now_ns, events);
        sent
    }

    /// Reads the kernel's counters for the metrics: submitted and lost records.
    fn count(&self) -> Option<(Totals, [Totals; CAUSES.len()])> {
        let counted =
            self.counters.read().inspect_err(|error| error!(%error, "the loss counters cannot be read"));
        let (sent, lost) = counted.ok()?;
        publish(&self.metrics, &sent, &lost);
        Some((sent, lost))
    }
}

/// Waits until there is room for the batch, and does something each time that `every` has gone by.
fn send(
    out: &Sender<Batch>,
    mut batch: Batch,
    every: Duration,
    mut meanwhile: impl FnMut(),
) -> Result<(), Gone> {
    loop {
        match out.send_timeout(batch, every) {
            Ok(()) => return Ok(()),
            Err(SendTimeoutError::Timeout(unsent)) => batch = unsent,
            Err(SendTimeoutError::Disconnected(_)) => return Err(Gone),
        }
        meanwhile();
    }
}

/// Counts while it decodes.
struct Decoder<'a> {
    metrics: &'a Metrics,
    malformed: &'a mut u64,
}

impl Decoder<'_> {
    /// Takes at most so many records. True when the ring had nothing more to give.
    fn take(
        &mut self,
        ring: &mut RingBuf<MapData>,
        class: Class,
        most: usize,
        mut give: impl FnMut(Event),
    ) -> bool {
        for _ in 0..most {
            let Some(record) = ring.next() else { return true };
            match decode(&record) {
                Ok(event) => {
                    self.metrics.received(event.kind(), 1);
                    give(event);
                }
                Err(malformed) => {
                    self.metrics.malformed(class, malformed.kind());
                    *self.malformed += 1;
                    if *self.malformed <= MALFORMED_LOGGED {
                        warn!(%malformed, "a record was refused; it is counted");
                    }
                }
            }
        }
        false
    }
}

/// Nanoseconds since boot, suspend included: the clock of the records.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Body, Flavour, Task};

    #[test]
    fn a_batch_that_nobody_takes_holds_up_no_counter() {
        let (out, queue) = crossbeam_channel::bounded(1);
        let batch = |time_ns| {
            let body = Body::Exit { status: 0 };
            Batch { events: vec![Event { time_ns, flavour: Flavour::Lsm, task: Task::default(), body }] }
        };
        let full = send(&out, batch(1), TICK, || panic!("there is room"));
        assert_eq!(full, Ok(()));
        let mut counted = 0;
        let mut taken = Vec::new();
        let sent = send(&out, batch(2), Duration::from_millis(1), || {
            counted += 1;
            if counted == 3 {
                taken.extend(queue.try_recv());
            }
        });
        assert_eq!((sent, counted), (Ok(()), 3));
        taken.extend(queue.try_recv());
        assert_eq!(taken, [batch(1), batch(2)]);
        drop(queue);
        assert_eq!(send(&out, batch(3), TICK, || panic!("nobody is there")), Err(Gone));
    }
}
