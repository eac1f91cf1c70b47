//! A block device with a file system on it is opened for write, or is open for write when one is mounted.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::report::About;
use super::silent::Silent;
use super::{Facts, Judge, Now};
use crate::devices::{Again, Opened};
use crate::event::{Event, FileOp, FilePath, FileRef, Flavour, ProcessId};
use crate::finding::{Finding, Severity, Verdict};
use crate::verdict::Judgement;
use crate::workload::Workload;

/// Time between two looks at devices that are open for write, nanoseconds.
pub(super) const AGAIN_NS: u64 = 1_000_000_000;
/// Devices that are looked at.
const DEVICES: usize = 1024;

#[derive(Clone)]
struct Open {
    /// Who opened it last.
    event: Event,
    file: FileRef,
    workload: Arc<Workload>,
    since_ns: u64,
    told: bool,
    /// Whether it is open still is not known: see [`Judge::opener_ended`].
    ended: bool,
    /// Other processes opened it before.
    others: bool,
}

/// Block devices that may be open for write, by number.
#[derive(Default)]
pub(super) struct WrittenDevices {
    open: BTreeMap<u32, Open>,
    due_ns: u64,
}

impl WrittenDevices {
    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        !self.open.is_empty() && self.due_ns <= now_ns
    }

    /// What is looked at by then; it is looked at again after [`AGAIN_NS`].
    fn due(&mut self, now_ns: u64) -> Vec<Opened> {
        if !self.is_due(now_ns) {
            return Vec::new();
        }
        self.due_ns = now_ns.saturating_add(AGAIN_NS);
        let opened = |(device, open): (&u32, &Open)| Opened {
            device: *device,
            since_ns: open.since_ns,
            told: open.told,
        };
        self.open.iter().map(opened).collect()
    }

    /// It is told now, if it is to be told and was not.
    fn tell(&mut self, device: u32) -> Option<Open> {
        let open = self.open.get_mut(&device)?;
        let is_told = std::mem::replace(&mut open.told, true);
        (!is_told && !open.ended).then(|| open.clone())
    }

    fn ended(&mut self, process: ProcessId) {
        for open in self.open.values_mut() {
            open.ended |= open.event.task.process == process;
        }
    }

    /// One may be mounted on it before it is closed.
    fn watch(&mut self, event: &Event, file: &FileRef, workload: &Arc<Workload>, told: bool) {
        let device = file.identity.real.dev;
        let before = self.open.remove(&device);
        if before.is_none() && self.open.len() >= DEVICES {
            tracing::warn!(
                path = %file.path,
                "too many block devices are open for write: if a file system is mounted on this one it is not told; no digests of its \
                 files are kept"
            );
            return;
        }
        if self.open.is_empty() {
            self.due_ns = event.time_ns.saturating_add(AGAIN_NS);
        }
        let is_other = |before: &Open| before.others || before.event.task.process != event.task.process;
        let open = Open {
            event: event.clone(),
            file: file.clone(),
            workload: Arc::clone(workload),
            since_ns: before.as_ref().map_or(event.time_ns, |before| before.since_ns),
            told,
            ended: false,
            others: before.as_ref().is_some_and(is_other),
        };
        self.open.insert(device, open);
    }
}

fn places(points: &[FilePath]) -> String {
    points.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl<F: Facts, S: FnMut(Finding)> Judge<F, S> {
    /// Reports it if file systems lie on the device. Nothing that was known of their files is believed any more, nor of those that were
    /// mounted earlier and may be mounted again: the digests of the kernel and of the agent are forgotten when the facts are asked.
    pub(super) async fn device_written(&self, now: Now<'_, F::Case>, file: &FileRef) {
        self.silent.with(Silent::clear);
        let on = match self.facts.device_written(now.case, file.identity.real.dev).await {
            Some(points) if points.is_empty() => None,
            Some(points) => Some(format!("file systems lie on it, mounted at {}", places(&points))),
            None => Some("which file systems lie on it cannot be found out".to_owned()),
        };
        let workload = self.facts.workload(now.case);
        let is_told = on.is_some();
        self.written_devices.with(|devices| devices.watch(now.event, file, &workload, is_told));
        if let Some(on) = on {
            self.tell_device(now, file, &workload, &format!("was opened for write, and {on}"));
        }
    }

    /// Looks again at devices that were opened for write.
    pub(super) async fn look_at_devices(&self, now: Now<'_, F::Case>, now_ns: u64) {
        let opened = self.written_devices.with(|devices| devices.due(now_ns));
        if opened.is_empty() {
            return;
        }
        let again = self.facts.devices_again(now.case, &opened).await;
        for (Opened { device, .. }, again) in opened.into_iter().zip(again) {
            match again {
                Again::Open => {}
                Again::Closed => {
                    self.written_devices.with(|devices| devices.open.remove(&device));
                }
                Again::Mounted(points) => self.mounted_while_open(now, device, &points, now_ns),
            }
        }
    }

    fn mounted_while_open(&self, now: Now<'_, F::Case>, device: u32, points: &[FilePath], now_ns: u64) {
        self.silent.with(Silent::clear);
        let Some(open) = self.written_devices.with(|devices| devices.tell(device)) else { return };
        let others = if open.others { " (and by others before)" } else { "" };
        let reason = format!(
            "was opened for write{others}, and file systems on it were mounted before it was closed, at {}",
            places(points)
        );
        let event = Event { time_ns: now_ns, ..open.event.clone() };
        self.tell_device(Now { event: &event, ..now }, &open.file, &open.workload, &reason);
    }

    fn tell_device(&self, now: Now<'_, F::Case>, file: &FileRef, workload: &Arc<Workload>, what: &str) {
        self.silent.with(Silent::clear);
        // The files may be the host's, whoever writes.
        let image = self.image_of(now, workload).or_else(|| {
            let host = self.facts.host(now.case)?;
            self.image_of(now, &host)
        });
        let Some(image) = image else { return };
        let reason = format!(
            "the block device {what}: what is written to it changes their files, and no file shows it"
        );
        let judgement = Judgement::new(Verdict::Modified, Severity::High, reason);
        let about = About {
            file: Some(file),
            operation: Some(FileOp::BlockWrite),
            image: Some(&image),
            ..About::default()
        };
        self.report(now, &workload.info, judgement, &about);
    }

    /// The tracepoint flavour does not see what an exit closes: who has ended is not accused, though the kernel has the device counted as
    /// open still, and so keeps no digest.
    pub(super) fn opener_ended(&self, event: &Event) {
        if event.flavour == Flavour::Tracepoint {
            self.written_devices.with(|devices| devices.ended(event.task.process));
        }
    }
}
