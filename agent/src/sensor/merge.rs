//! One order over all rings: by time.
//!
//! The kernel programs read the clock before they take room for a record in its ring, and submit it before they end. So when one event comes
//! before another in any way that can be told (the same thread does both, or one waits for the other), its record was in its ring
//! before the other's time was read. Two things follow, for an event of time `t` in one ring and whatever came before it in another:
//!
//! * a ring that was empty at a time after `t` has given it;
//! * a ring that gave a record of a time after `t` has given it, for it lay before that one.
//!
//! So each ring has a mark: the newest time that it gave, or at which it was empty. Events older than the marks of all rings are
//! handed on, and nothing can come any more that belongs before them. A record that is reserved and not submitted holds up those
//! behind it in its ring; its ring is not empty, and its mark stays.

use crate::event::Event;

/// Events of one ring that wait for the other rings, at most.
const HELD_MAX: usize = 1024;
/// The kernel's fast clock (`ktime_get_boot_fast_ns()`) may run so far apart on two CPUs while its rate is set.
const CLOCK_ERROR_NS: u64 = 20_000;

/// What one ring gave that is not handed on yet.
#[derive(Debug, Default)]
struct Side {
    held: Vec<Event>,
    /// What the ring gives from now on came after nothing that is older.
    mark_ns: u64,
}

/// Merges `N` rings.
#[derive(Debug)]
pub(super) struct Merge<const N: usize> {
    sides: [Side; N],
}

impl<const N: usize> Merge<N> {
    pub(super) fn new() -> Self {
        Self { sides: std::array::from_fn(|_| Side::default()) }
    }

    /// How many events of this ring can be taken now.
    pub(super) fn room(&self, ring: usize) -> usize {
        HELD_MAX.saturating_sub(self.sides[ring].held.len())
    }

    /// The ring gave an event.
    pub(super) fn give(&mut self, ring: usize, event: Event) {
        let side = &mut self.sides[ring];
        side.mark_ns = side.mark_ns.max(event.time_ns.saturating_sub(CLOCK_ERROR_NS));
        side.held.push(event);
    }

    /// The ring was empty at some time after this.
    pub(super) fn empty(&mut self, ring: usize, since_ns: u64) {
        let side = &mut self.sides[ring];
        side.mark_ns = side.mark_ns.max(since_ns.saturating_sub(CLOCK_ERROR_NS));
    }

    /// Events wait.
    pub(super) fn holds(&self) -> bool {
        self.sides.iter().any(|side| !side.held.is_empty())
    }

    /// Adds to `out` what can be handed on, in order. `false`: there was nothing.
    pub(super) fn take(&mut self, out: &mut Vec<Event>) -> bool {
        let mark_ns = self.sides.iter().map(|side| side.mark_ns).min().unwrap_or(0);
        if self.take_before(mark_ns, out) {
            return true;
        }
        // A ring that is full of events of one moment would never come past it.
        let full = self.sides.iter().any(|side| side.held.len() >= HELD_MAX && side.mark_ns == mark_ns);
        full && self.take_before(mark_ns.saturating_add(CLOCK_ERROR_NS + 1), out)
    }

    /// Adds everything that is held, in order.
    pub(super) fn take_all(&mut self, out: &mut Vec<Event>) {
        self.take_before(u64::MAX, out);
    }

    fn take_before(&mut self, mark_ns: u64, out: &mut Vec<Event>) -> bool {
        let from = out.len();
        for side in &mut self.sides {
            // The events of one ring are nearly in order, not wholly.
            out.extend(side.held.extract_if(.., |event| event.time_ns < mark_ns));
        }
        // Stable: what one ring gave at one moment stays as it came.
        out[from..].sort_by_key(|event| event.time_ns);
        out.len() > from
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Body, Connect, Flavour, Protocol, Task};

    const EXEC: usize = 0;
    const NETWORK: usize = 1;

    /// Milliseconds, so that the clock's error is none.
    fn event(ms: u64, body: Body) -> Event {
        Event { time_ns: ms * 1_000_000, flavour: Flavour::Lsm, task: Task::default(), body }
    }

    fn exit(ms: u64) -> Event {
        event(ms, Body::Exit { status: 0 })
    }

    fn connect(ms: u64) -> Event {
        let destination = "127.0.0.1:80".parse().expect("an address");
        let connect = Connect { protocol: Protocol::Tcp, destination, source_port: 0, sendto: false };
        event(ms, Body::Connect(connect))
    }

    fn times(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.time_ns / 1_000_000).collect()
    }

    fn taken(merge: &mut Merge<2>) -> Vec<u64> {
        let mut out = Vec::new();
        assert_eq!(merge.take(&mut out), !out.is_empty());
        times(&out)
    }

    #[test]
    fn an_exit_waits_for_the_connects_before_it() {
        let mut merge = Merge::<2>::new();
        // The exit is read at once; its process's connect lies behind more than one batch holds.
        merge.give(EXEC, exit(2001));
        merge.empty(EXEC, 3_000_000_000);
        let mut came = Vec::new();
        for ms in 1..=2000 {
            if merge.room(NETWORK) == 0 {
                assert!(merge.take(&mut came));
                assert!(came.iter().all(|e| e.time_ns < ms * 1_000_000));
            }
            merge.give(NETWORK, connect(ms));
        }
        merge.take(&mut came);
        assert!(!times(&came).contains(&2001));
        merge.empty(NETWORK, 3_000_000_000);
        merge.take(&mut came);
        assert_eq!(times(&came), (1..=2001).collect::<Vec<_>>());
        assert!(!merge.holds());
    }

    #[test]
    fn a_ring_that_was_empty_before_says_nothing_of_what_came_since() {
        let mut merge = Merge::<2>::new();
        merge.empty(NETWORK, 5_000_000);
        merge.give(EXEC, exit(4));
        merge.give(EXEC, exit(6));
        merge.empty(EXEC, 9_000_000);
        assert_eq!(taken(&mut merge), [4]);
        merge.give(NETWORK, connect(5));
        assert!(taken(&mut merge).is_empty());
        merge.give(NETWORK, connect(7));
        assert_eq!(taken(&mut merge), [5, 6]);
        merge.empty(NETWORK, 9_000_000);
        assert_eq!(taken(&mut merge), [7]);
    }

    #[test]
    fn records_whose_room_was_reserved_out_of_order_are_sorted() {
        let mut merge = Merge::<2>::new();
        // The program of the first was interrupted between the clock and the ring.
        for ms in [3, 1, 2, 8] {
            merge.give(NETWORK, connect(ms));
        }
        merge.give(EXEC, exit(4));
        merge.give(EXEC, exit(2));
        merge.empty(EXEC, 9_000_000);
        assert_eq!(taken(&mut merge), [1, 2, 2, 3, 4]);
        merge.empty(NETWORK, 9_000_000);
        assert_eq!(taken(&mut merge), [8]);
    }

    #[test]
    fn a_full_ring_of_one_moment_goes_on() {
        let mut merge = Merge::<2>::new();
        merge.empty(EXEC, 9_000_000);
        for n in 0..HELD_MAX as u64 {
            let mut event = connect(5);
            event.time_ns += n;
            merge.give(NETWORK, event);
        }
        assert_eq!(merge.room(NETWORK), 0);
        let mut out = Vec::new();
        assert!(merge.take(&mut out));
        assert_eq!(out.len(), HELD_MAX);
    }

    #[test]
    fn at_the_end_everything_is_handed_on() {
        let mut merge = Merge::<2>::new();
        merge.give(EXEC, exit(4));
        merge.give(NETWORK, connect(3));
        let mut out = Vec::new();
        assert!(!merge.take(&mut out) && merge.holds());
        merge.take_all(&mut out);
        assert_eq!(times(&out), [3, 4]);
        assert!(!merge.holds());
    }
}
