//! The thread that empties the rings.
//!
//! Invariants:
//! * A batch holds every exec, fork and exit that is older than the newest file or network event in it: those rings are
//!   read first, then the exec ring until it is empty or newer. So an exec is never judged after what its program did.
//! * A batch is sorted by time; events of one ring keep their order.
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
use super::counters::{Counters, Losses, Totals, publish};
use super::decode::decode;
use crate::event::{Class, Event};
use crate::metrics::Metrics;

/// Records of one ring in one batch, at most; the exec ring goes on until it has caught up with the other two.
const BATCH_MAX: usize = 1024;
/// How often the loss counters are read, and how soon a stop is noticed.
const TICK: Duration = Duration::from_millis(250);
/// After the programs are detached, one that is still running on another CPU may submit a last record.
const SETTLE_MAX: Duration = Duration::from_millis(500);
/// Refused records that are logged one by one; the counters go on.
const MALFORMED_LOGGED: u64 = 20;

/// What the thread owns.
pub(super) struct Drain {
    pub(super) rings: [RingBuf<MapData>; 3],
    pub(super) counters: Arc<Counters>,
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
        let mut events = Vec::new();
        while !self.stopping.load(Ordering::Acquire) {
            let now = Instant::now();
            if now >= next_tick {
                self.tick(&mut events);
                next_tick = now + TICK;
            }
            let more = self.read(&mut events);
            self.send(&mut events)?;
            if !more {
                self.wait(next_tick.saturating_duration_since(Instant::now()));
            }
        }
        self.settle()
    }

    /// The programs are detached: reads what is left until everything that was submitted has been read.
    fn settle(&mut self) -> Result<(), Gone> {
        let deadline = Instant::now() + SETTLE_MAX;
        let mut events = Vec::new();
        loop {
            while self.read(&mut events) || !events.is_empty() {
                self.send(&mut events)?;
            }
            let sent = self.tick(&mut events);
            self.send(&mut events)?;
            let missing = sent.iter().sum::<u64>().saturating_sub(self.taken());
            if missing == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                warn!(missing, "the kernel counts more submitted records than were in the rings");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Records that were taken out of the rings.
    fn taken(&self) -> u64 {
        let received = crate::event::Kind::ALL.map(|kind| self.metrics.kind_counts(kind).received);
        received.iter().sum::<u64>() + self.malformed
    }

    fn wait(&self, timeout: Duration) {
        let mut fds = self.rings.each_ref().map(|ring| PollFd::new(ring.as_fd(), PollFlags::POLLIN));
        // Rounded up, so that a wait of less than a millisecond is not a busy loop.
        let millis = u16::try_from(timeout.as_millis() + 1).unwrap_or(u16::MAX);
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => {
                error!(%error, "waiting for the rings failed; they are read by the clock");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// One batch. True when a ring holds more.
    fn read(&mut self, events: &mut Vec<Event>) -> bool {
        let [exec, file, network] = &mut self.rings;
        let mut decoder = Decoder { metrics: &self.metrics, malformed: &mut self.malformed };
        let mut more = false;
        for (ring, class) in [(file, Class::File), (network, Class::Network)] {
            more |= decoder.take(ring, class, events, |_, taken| taken >= BATCH_MAX);
        }
        let newest = events.iter().map(|event| event.time_ns).max().unwrap_or(0);
        more |=
            decoder.take(exec, Class::Exec, events, |time_ns, taken| taken >= BATCH_MAX && time_ns > newest);
        more
    }

    fn send(&mut self, events: &mut Vec<Event>) -> Result<(), Gone> {
        if events.is_empty() {
            return Ok(());
        }
        events.sort_by_key(|event| event.time_ns);
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
        self.losses.update(&lost, now_ns(), events);
        sent
    }

    /// Reads the kernel's counters for the metrics: submitted and lost records.
    fn count(&self) -> Option<(Totals, Totals)> {
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
    /// Takes records until the ring is empty (false) or `enough(time of the last record, records taken)` (true).
    fn take(
        &mut self,
        ring: &mut RingBuf<MapData>,
        class: Class,
        events: &mut Vec<Event>,
        enough: impl Fn(u64, usize) -> bool,
    ) -> bool {
        let mut taken = 0;
        let mut time_ns = 0;
        while let Some(record) = ring.next() {
            taken += 1;
            match decode(&record) {
                Ok(event) => {
                    time_ns = event.time_ns;
                    self.metrics.received(event.kind(), 1);
                    events.push(event);
                }
                Err(malformed) => {
                    self.metrics.malformed(class, malformed.kind());
                    *self.malformed += 1;
                    if *self.malformed <= MALFORMED_LOGGED {
                        warn!(%malformed, "a record was refused; it is counted");
                    }
                }
            }
            if enough(time_ns, taken) {
                return true;
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
