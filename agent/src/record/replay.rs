//! Answers from a recording.

use std::io::Read;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Answer, Frame, Reader, Recorded, RecordingError};
use crate::devices::{Again, Opened};
use crate::event::{Action, Content, Event, FilePath, FileRef, Owner, Start, Task};
use crate::finding::{Finding, ProcessInfo, WorkloadInfo};
use crate::judge::{Ancestry, Facts, HostName, ImageSource, Judge, Settled, Unsettled};
use crate::metrics::Metrics;
use crate::sbom::ImageIndex;
use crate::workload::{UNKNOWN, Workload};

/// Why a replay cannot answer what the recording agent was not asked: it had another SBOM or none.
const NOT_ASKED: &str = "the recording does not say: the agent that made it had no reason to look";

/// Answers about the recorded event that was set last.
#[derive(Debug, Default)]
pub struct Replayed {
    now: Option<Box<Recorded>>,
    /// Answers about updates that were given for this event.
    settled: usize,
    /// Workloads repeat; the last is kept, so that findings share it.
    workload: Option<(super::WorkloadSeed, Arc<Workload>)>,
}

impl Replayed {
    /// The event that is judged next, with its answers.
    pub fn set(&mut self, recorded: Box<Recorded>) {
        self.now = Some(recorded);
        self.settled = 0;
    }

    fn find<T>(&self, pick: impl Fn(&Answer) -> Option<T>) -> Option<T> {
        self.now.as_ref()?.answers.iter().find_map(pick)
    }
}

impl Facts for Replayed {
    fn begin(&mut self, _: &Event) {}

    fn time(&self) -> SystemTime {
        self.now.as_ref().map_or(SystemTime::UNIX_EPOCH, |r| r.time)
    }

    fn workload(&mut self) -> Arc<Workload> {
        let seed = self.now.as_ref().and_then(|now| {
            now.answers.iter().find_map(|a| match a {
                Answer::Workload(seed) => Some(seed),
                _ => None,
            })
        });
        match (seed, &self.workload) {
            (Some(seed), Some((last, workload))) if seed == last => Arc::clone(workload),
            (Some(seed), _) => {
                let workload = Arc::new(Workload::from(seed.clone()));
                self.workload = Some((seed.clone(), Arc::clone(&workload)));
                workload
            }
            (None, _) => Arc::new(Workload {
                info: Arc::new(WorkloadInfo { id: UNKNOWN.to_owned(), ..WorkloadInfo::default() }),
                image: None,
                helps: false,
                is_host: false,
                started: None,
                root: None,
            }),
        }
    }

    fn content(&mut self, _: &Task, file: &FileRef, _: Action, _: bool) -> Content {
        self.find(|a| match a {
            Answer::Content(path, content) if *path == file.path => Some(content.clone()),
            _ => None,
        })
        .unwrap_or_else(|| Content::Undetermined(Arc::from(NOT_ASKED)))
    }

    fn resolve(&mut self, _: &Task, file: &FileRef) -> Result<FileRef, Arc<str>> {
        self.find(|a| match a {
            Answer::Resolved(path, resolved) if *path == file.path => Some(resolved.clone()),
            _ => None,
        })
        .unwrap_or_else(|| Err(Arc::from(NOT_ASKED)))
    }

    fn start(&mut self, _: &Task, file: &FileRef) -> Option<Start> {
        self.find(|a| match a {
            Answer::Start(path, start) if *path == file.path => Some(*start),
            _ => None,
        })
        .flatten()
    }

    fn again(&mut self, _: &Task, file: &FileRef) -> Option<FileRef> {
        self.find(|a| match a {
            Answer::Again(path, again) if *path == file.path => Some(again.clone()),
            _ => None,
        })
        .flatten()
    }

    fn program(&mut self, _: &Task) -> Result<FileRef, Arc<str>> {
        self.find(|a| match a {
            Answer::Program(program) => Some(program.clone()),
            _ => None,
        })
        .unwrap_or_else(|| Err(Arc::from(NOT_ASKED)))
    }

    fn owner(&mut self, _: &Workload, _: &Arc<ImageIndex>, file: &FileRef) -> Option<Owner> {
        self.find(|a| match a {
            Answer::Owner(path, owner) if *path == file.path => Some(owner.clone()),
            _ => None,
        })
        .flatten()
    }

    fn in_host_root(&mut self, _: &Task) -> bool {
        let found = self.find(|a| match a {
            Answer::InHostRoot(is) => Some(*is),
            _ => None,
        });
        found.unwrap_or(false)
    }

    fn device_written(&mut self, _: u32) -> Option<Vec<FilePath>> {
        let found = self.find(|a| match a {
            Answer::DeviceWritten(points) => Some(points.clone()),
            _ => None,
        });
        found.flatten()
    }

    fn devices_again(&mut self, opened: &[Opened]) -> Vec<Again> {
        let found = self.find(|a| match a {
            Answer::DevicesAgain(again) => Some(again.clone()),
            _ => None,
        });
        let mut again = found.unwrap_or_default();
        again.resize(opened.len(), Again::Open);
        again
    }

    fn settle(&mut self, files: &[Unsettled]) -> Vec<Settled> {
        let given = self.settled;
        self.settled += 1;
        let answers = self.now.iter().flat_map(|now| &now.answers);
        let mut settled = answers.filter_map(|a| match a {
            Answer::Settled(settled) => Some(settled.clone()),
            _ => None,
        });
        // What is not recorded counts as there and of no package: that hides nothing.
        let unknown = Settled { exists: true, ..Settled::default() };
        let mut settled = settled.nth(given).unwrap_or_default();
        settled.resize(files.len(), unknown);
        settled
    }

    fn host(&mut self) -> Option<Arc<Workload>> {
        let seed = self.find(|a| match a {
            Answer::Host(seed) => Some(seed.clone()),
            _ => None,
        });
        seed.flatten().map(|seed| Arc::new(Workload::from(seed)))
    }

    fn names(&mut self, workload: &Workload, _: u32, path: &FilePath) -> Vec<FilePath> {
        self.find(|a| match a {
            Answer::Names(is_host, of, names) if *is_host == workload.is_host && of == path => {
                Some(names.clone())
            }
            _ => None,
        })
        .unwrap_or_default()
    }

    fn host_name(&mut self, _: &Task, _: u32, _: Option<&FilePath>, used: &FilePath) -> HostName {
        let found = self.find(|a| match a {
            Answer::HostName(of, name) if of == used => Some(name.clone()),
            _ => None,
        });
        found.unwrap_or(HostName::Used)
    }

    fn is_private(&mut self, _: &Task, dev: u32) -> bool {
        self.find(|a| matches!(a, Answer::Private(of) if *of == dev).then_some(())).is_some()
    }

    fn is_at(&mut self, _: &Workload, name: &FilePath, _: &FileRef) -> bool {
        let found = self.find(|a| match a {
            Answer::IsAt(of, is) if of == name => Some(*is),
            _ => None,
        });
        found.unwrap_or(false)
    }

    fn listed_name(&mut self, _: &Workload, _: &Arc<ImageIndex>, file: &FileRef) -> Option<FilePath> {
        self.find(|a| match a {
            Answer::Listed(path, listed) if *path == file.path => Some(listed.clone()),
            _ => None,
        })
        .flatten()
    }

    fn ancestry(&mut self, task: &Task) -> Ancestry {
        self.find(|a| match a {
            Answer::Ancestry(ancestry) => Some(ancestry.clone()),
            _ => None,
        })
        .unwrap_or_else(|| (process_of(task), Vec::new()))
    }
}

/// What an event alone says of its process.
pub fn process_of(task: &Task) -> ProcessInfo {
    ProcessInfo {
        id: task.process,
        ppid: task.ppid,
        uid: task.uid,
        euid: task.euid,
        comm: FilePath::from(&task.comm[..]).to_string(),
        exe: Arc::default(),
    }
}

/// What a replay came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Events judged.
    pub events: u64,
    /// Findings they gave.
    pub findings: u64,
    /// Events that are missing in the recording, as it says.
    pub lost: u64,
    /// The recording has its end. Without it, events that followed may be missing.
    pub ended: bool,
}

/// Judges a recording. `sink` takes the findings, numbered from 1.
///
/// # Errors
/// The recording is not whole; what comes before the place was judged.
pub fn replay<R: Read>(
    reader: &mut Reader<R>,
    source: ImageSource,
    metrics: Arc<Metrics>,
    mut sink: impl FnMut(Finding),
) -> Result<Done, RecordingError> {
    let mut done = Done::default();
    let mut findings = 0;
    let mut judge = Judge::new(Replayed::default(), source, metrics, |mut finding| {
        findings += 1;
        finding.sequence = findings;
        sink(finding);
    });
    while let Some(frame) = reader.frame()? {
        match frame {
            Frame::End => {}
            Frame::Lost(count) => done.lost += count,
            Frame::Event(recorded) => {
                let event = recorded.event.clone();
                judge.facts().set(recorded);
                judge.event(&event);
                done.events += 1;
            }
        }
    }
    judge.finish();
    drop(judge);
    done.findings = findings;
    done.ended = reader.ended();
    Ok(done)
}
