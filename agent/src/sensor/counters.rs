//! The kernel programs' own counters: how many records of each kind they submitted, and how many never came into a ring.

use aya::maps::{HashMap, MapData, MapError, PerCpuArray};
use muster_common::{LostKey, LostValue, cause, kind};

use super::SensorError;
use crate::event::{Kind, LossCause, ProcessId};
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
/// Causes that the kernel counts, with their row in its counters.
pub(super) const CAUSES: [(LossCause, u32); 3] = [
    (LossCause::RingFull, cause::RING),
    (LossCause::TableFull, cause::MAP),
    (LossCause::Unconfirmed, cause::UNCONFIRMED),
];

/// Totals since the start, in the order of [`KINDS`].
pub(super) type Totals = [u64; KINDS.len()];

/// Losses of one workload since they were last asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OfWorkload {
    pub(super) kind: Kind,
    pub(super) cause: LossCause,
    pub(super) cgroup_id: u64,
    /// The first of its processes that lost one.
    pub(super) process: ProcessId,
    pub(super) count: u64,
}

/// The counter maps.
pub(super) struct Counters {
    pub(super) sent: PerCpuArray<MapData, u64>,
    pub(super) lost: PerCpuArray<MapData, u64>,
}

impl Counters {
    /// Records submitted so far, and lost by each of [`CAUSES`], over all CPUs.
    pub(super) fn read(&self) -> Result<(Totals, [Totals; CAUSES.len()]), SensorError> {
        let named = |name| move |source| SensorError::Map { name, source };
        let sent = totals(&self.sent, 0).map_err(named(muster_common::map::SENT))?;
        let mut lost = [Totals::default(); CAUSES.len()];
        for (row, (_, cause)) in lost.iter_mut().zip(CAUSES) {
            *row = totals(&self.lost, cause).map_err(named(muster_common::map::LOST))?;
        }
        Ok((sent, lost))
    }
}

fn totals(map: &PerCpuArray<MapData, u64>, row: u32) -> Result<Totals, MapError> {
    let mut out = Totals::default();
    for (total, (_, index)) in out.iter_mut().zip(KINDS) {
        *total = map.get(&(row * kind::COUNT + u32::from(index)), 0)?.iter().sum();
    }
    Ok(out)
}

/// Which workloads lost records.
pub(super) struct Losers(pub(super) HashMap<MapData, LostKey, LostValue>);

impl Losers {
    /// What they lost since they were last asked for. What is lost between the look and the removal of an entry is in the totals
    /// alone.
    pub(super) fn take(&mut self) -> Vec<OfWorkload> {
        let keys: Vec<LostKey> = self.0.keys().filter_map(Result::ok).collect();
        let taken = keys.into_iter().filter_map(|key| {
            let value = self.0.get(&key, 0).ok()?;
            self.0.remove(&key).ok()?;
            of_workload(key, value)
        });
        taken.collect()
    }
}

fn of_workload([cgroup_id, what]: LostKey, [count, start_ns, tgid]: LostValue) -> Option<OfWorkload> {
    let of_kind = u16::try_from(what >> 32).ok()?;
    let (kind, _) = KINDS.into_iter().find(|(_, index)| *index == of_kind)?;
    let (cause, _) = CAUSES.into_iter().find(|(_, row)| u64::from(*row) == what & u64::from(u32::MAX))?;
    let process = ProcessId { tgid: u32::try_from(tgid).ok()?, start_ns };
    Some(OfWorkload { kind, cause, cgroup_id, process, count })
}

/// Puts the totals where metrics and status find them.
pub(super) fn publish(metrics: &Metrics, sent: &Totals, lost: &[Totals; CAUSES.len()]) {
    for (at, (kind, _)) in KINDS.into_iter().enumerate() {
        metrics.set_submitted(kind, sent[at]);
        metrics.set_lost(kind, lost.iter().map(|row| row[at]).sum());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workloads_losses_are_read_and_nothing_else_is_believed() {
        let key = |kind: u16, cause: u32| [77, u64::from(kind) << 32 | u64::from(cause)];
        let of = of_workload(key(kind::LIBRARY, cause::MAP), [5, 900, 12]);
        let process = ProcessId { tgid: 12, start_ns: 900 };
        let expected =
            OfWorkload { kind: Kind::Library, cause: LossCause::TableFull, cgroup_id: 77, process, count: 5 };
        assert_eq!(of, Some(expected));
        assert_eq!(of_workload(key(99, cause::RING), [5, 900, 12]), None);
        assert_eq!(of_workload(key(kind::EXEC, 9), [5, 900, 12]), None);
        assert_eq!(of_workload(key(kind::EXEC, cause::RING), [5, 900, u64::MAX]), None);
    }
}
