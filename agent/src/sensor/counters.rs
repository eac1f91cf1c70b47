//! The kernel programs' own counters: how many records of each kind they submitted, and how many did not fit.

use aya::maps::{MapData, MapError, PerCpuArray};
use muster_common::kind;
use tracing::warn;

use super::SensorError;
use crate::event::{Body, Event, Flavour, Kind, Task};
use crate::metrics::Metrics;

/// Kinds that the kernel counts, with their index in its counters.
pub(super) const KINDS: [(Kind, u16); 6] = [
    (Kind::Exec, kind::EXEC),
    (Kind::Library, kind::LIBRARY),
    (Kind::File, kind::FILE),
    (Kind::Connect, kind::CONNECT),
    (Kind::Fork, kind::FORK),
    (Kind::Exit, kind::EXIT),
];

/// Totals since the start, in the order of [`KINDS`].
pub(super) type Totals = [u64; KINDS.len()];

/// The two counter maps.
pub(super) struct Counters {
    pub(super) sent: PerCpuArray<MapData, u64>,
    pub(super) lost: PerCpuArray<MapData, u64>,
}

impl Counters {
    /// Records submitted and lost so far, over all CPUs.
    pub(super) fn read(&self) -> Result<(Totals, Totals), SensorError> {
        let named = |name| move |source| SensorError::Map { name, source };
        let sent = totals(&self.sent).map_err(named(muster_common::map::SENT))?;
        Ok((sent, totals(&self.lost).map_err(named(muster_common::map::LOST))?))
    }
}

fn totals(map: &PerCpuArray<MapData, u64>) -> Result<Totals, MapError> {
    let mut out = Totals::default();
    for (total, (_, index)) in out.iter_mut().zip(KINDS) {
        *total = map.get(&u32::from(index), 0)?.iter().sum();
    }
    Ok(out)
}

/// Turns rising loss counters into events.
pub(super) struct Losses {
    flavour: Flavour,
    last: Totals,
    since_ns: u64,
}

impl Losses {
    pub(super) fn new(flavour: Flavour, now_ns: u64) -> Self {
        Self { flavour, last: Totals::default(), since_ns: now_ns }
    }

    /// One event per kind whose counter rose since the last call.
    pub(super) fn update(&mut self, lost: &Totals, now_ns: u64, out: &mut Vec<Event>) {
        for ((last, total), (kind, _)) in self.last.iter_mut().zip(lost).zip(KINDS) {
            let count = total.saturating_sub(*last);
            if count > 0 {
                warn!(kind = kind.as_str(), count, "the ring was full: records are lost");
                let body = Body::Lost { kind, count, since_ns: self.since_ns };
                out.push(Event { time_ns: now_ns, flavour: self.flavour, task: Task::default(), body });
            }
            *last = *total;
        }
        self.since_ns = now_ns;
    }
}

/// Puts the totals where metrics and status find them.
pub(super) fn publish(metrics: &Metrics, sent: &Totals, lost: &Totals) {
    for (((kind, _), sent), lost) in KINDS.into_iter().zip(sent).zip(lost) {
        metrics.set_submitted(kind, *sent);
        metrics.set_lost(kind, *lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_told_once_with_its_interval() {
        let mut losses = Losses::new(Flavour::Tracepoint, 100);
        let mut tell = |lost: Totals, now| {
            let mut out = Vec::new();
            losses.update(&lost, now, &mut out);
            out.into_iter()
                .map(|event| match event.body {
                    Body::Lost { kind, count, since_ns } => (kind, count, since_ns, event.time_ns),
                    other => panic!("{other:?}"),
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(tell([0; 6], 200), []);
        assert_eq!(tell([0, 0, 5, 0, 0, 0], 300), [(Kind::File, 5, 200, 300)]);
        assert_eq!(tell([0, 0, 5, 0, 0, 0], 400), []);
        let both = [(Kind::Exec, 1, 400, 500), (Kind::File, 2, 400, 500)];
        assert_eq!(tell([1, 0, 7, 0, 0, 0], 500), both);
    }
}
