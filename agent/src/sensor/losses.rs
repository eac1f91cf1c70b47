//! Turns rising loss counters into events, each loss once.

use tracing::warn;

use super::counters::{CAUSES, KINDS, OfWorkload, Totals};
use crate::event::{Body, Event, Flavour, Kind, LossCause, ProcessId, Task};
use crate::metrics::Metrics;

/// What was told so far.
pub(super) struct Losses {
    flavour: Flavour,
    told: [Totals; CAUSES.len()],
    told_malformed: [u64; Kind::ALL.len()],
    told_unknown: u64,
    since_ns: u64,
}

impl Losses {
    pub(super) fn new(flavour: Flavour, now_ns: u64) -> Self {
        Self {
            flavour,
            told: [Totals::default(); CAUSES.len()],
            told_malformed: [0; Kind::ALL.len()],
            told_unknown: 0,
            since_ns: now_ns,
        }
    }

    /// One event for each workload, kind and cause, and one for the rest of each kind and cause, of which no workload is known.
    ///
    /// `lost` must have been read before `workloads` was asked, which is so only when there is something new: the kernel programs
    /// count in the other order. So nothing is told twice, and what is missing in `lost` now is not told again when it is there.
    pub(super) fn update(
        &mut self,
        lost: &[Totals; CAUSES.len()],
        workloads: impl FnOnce() -> Vec<OfWorkload>,
        now_ns: u64,
        out: &mut Vec<Event>,
    ) {
        if lost.iter().flatten().zip(self.told.iter().flatten()).any(|(lost, told)| lost > told) {
            for of in workloads() {
                let Some(told) = self.told_of(of.kind, of.cause) else { continue };
                *told = told.saturating_add(of.count);
                let task = Task { process: of.process, cgroup_id: of.cgroup_id, ..Task::default() };
                self.tell(of.kind, of.cause, of.count, task, now_ns, out);
            }
            for (row, (cause, _)) in CAUSES.into_iter().enumerate() {
                for (at, (kind, _)) in KINDS.into_iter().enumerate() {
                    let rest = lost[row][at].saturating_sub(self.told[row][at]);
                    self.told[row][at] += rest;
                    self.tell(kind, cause, rest, Task::default(), now_ns, out);
                }
            }
        }
        self.since_ns = now_ns;
    }

    /// What the decoder refused.
    pub(super) fn refused(&mut self, metrics: &Metrics, now_ns: u64, out: &mut Vec<Event>) {
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            let count = metrics.kind_counts(kind).malformed;
            let new = count.saturating_sub(std::mem::replace(&mut self.told_malformed[at], count));
            self.tell(kind, LossCause::Malformed, new, Task::default(), now_ns, out);
        }
        let count = metrics.malformed_unknown();
        let new = count.saturating_sub(std::mem::replace(&mut self.told_unknown, count));
        self.tell(Kind::Lost, LossCause::Malformed, new, Task::default(), now_ns, out);
    }

    fn told_of(&mut self, kind: Kind, cause: LossCause) -> Option<&mut u64> {
        let row = CAUSES.iter().position(|(of, _)| *of == cause)?;
        let at = KINDS.iter().position(|(of, _)| *of == kind)?;
        Some(&mut self.told[row][at])
    }

    fn tell(&self, kind: Kind, cause: LossCause, count: u64, task: Task, now_ns: u64, out: &mut Vec<Event>) {
        if count == 0 {
            return;
        }
        let Task { process: ProcessId { tgid, .. }, cgroup_id, .. } = task;
        warn!(kind = kind.as_str(), count, ?cause, cgroup_id, tgid, "records are lost");
        let body = Body::Lost { kind, cause, count, since_ns: self.since_ns };
        out.push(Event { time_ns: now_ns, flavour: self.flavour, task, body });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Class;

    const NONE: [Totals; 3] = [[0; 6]; 3];

    /// Kind, cause, number, since when, cgroup.
    type Line = (Kind, LossCause, u64, u64, u64);

    fn lines(events: Vec<Event>) -> Vec<Line> {
        let line = |event: Event| match event.body {
            Body::Lost { kind, cause, count, since_ns } => {
                (kind, cause, count, since_ns, event.task.cgroup_id)
            }
            other => panic!("{other:?}"),
        };
        events.into_iter().map(line).collect()
    }

    fn tell(losses: &mut Losses, lost: [Totals; 3], workloads: &[OfWorkload], now_ns: u64) -> Vec<Line> {
        let mut out = Vec::new();
        losses.update(&lost, || workloads.to_vec(), now_ns, &mut out);
        assert!(out.iter().all(|event| event.time_ns == now_ns));
        lines(out)
    }

    fn of(cgroup_id: u64, kind: Kind, count: u64) -> OfWorkload {
        let process = ProcessId { tgid: 5, start_ns: 6 };
        OfWorkload { kind, cause: LossCause::RingFull, cgroup_id, process, count }
    }

    #[test]
    fn a_loss_is_told_once_with_its_interval() {
        use LossCause::{RingFull, TableFull};
        let mut losses = Losses::new(Flavour::Tracepoint, 100);
        assert_eq!(tell(&mut losses, NONE, &[], 200), []);
        let lost = [[0, 0, 5, 0, 0, 0], [0; 6], [0; 6]];
        assert_eq!(tell(&mut losses, lost, &[], 300), [(Kind::File, RingFull, 5, 200, 0)]);
        assert_eq!(tell(&mut losses, lost, &[], 400), []);
        let lost = [[1, 0, 7, 0, 0, 0], [0, 0, 3, 0, 0, 0], [0; 6]];
        let both = [
            (Kind::Exec, RingFull, 1, 400, 0),
            (Kind::File, RingFull, 2, 400, 0),
            (Kind::File, TableFull, 3, 400, 0),
        ];
        assert_eq!(tell(&mut losses, lost, &[], 500), both);
    }

    #[test]
    fn a_loss_names_its_workload_and_the_sum_is_exact() {
        use LossCause::RingFull;
        let mut losses = Losses::new(Flavour::Lsm, 100);
        let lost = [[0, 9, 0, 0, 0, 0], [0; 6], [0; 6]];
        let flood = [of(7, Kind::Library, 6), of(8, Kind::Library, 1)];
        let told = tell(&mut losses, lost, &flood, 200);
        // Two are of workloads that found no room in the map.
        let expected = [
            (Kind::Library, RingFull, 6, 100, 7),
            (Kind::Library, RingFull, 1, 100, 8),
            (Kind::Library, RingFull, 2, 100, 0),
        ];
        assert_eq!(told, expected);
        // One more was counted for the workload between the two looks: the total has it at the next.
        let lost = [[0, 10, 0, 0, 0, 0], [0; 6], [0; 6]];
        let told = tell(&mut losses, lost, &[of(7, Kind::Library, 2)], 300);
        assert_eq!(told, [(Kind::Library, RingFull, 2, 200, 7)]);
        let lost = [[0, 11, 0, 0, 0, 0], [0; 6], [0; 6]];
        assert_eq!(tell(&mut losses, lost, &[], 400), []);
    }

    #[test]
    fn what_the_decoder_refused_is_told_once() {
        let metrics = Metrics::new();
        let mut losses = Losses::new(Flavour::Lsm, 100);
        let mut refused = |now_ns| {
            let mut out = Vec::new();
            losses.refused(&metrics, now_ns, &mut out);
            lines(out)
        };
        assert_eq!(refused(200), []);
        metrics.malformed(Class::Exec, Some(Kind::Exit));
        metrics.malformed(Class::File, None);
        metrics.malformed(Class::Network, None);
        let malformed = |kind, count| (kind, LossCause::Malformed, count, 100, 0);
        assert_eq!(refused(300), [malformed(Kind::Exit, 1), malformed(Kind::Lost, 2)]);
        assert_eq!(refused(400), []);
    }
}
