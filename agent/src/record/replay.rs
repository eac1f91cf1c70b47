//! Answers from a recording.

use std::cell::Cell;
use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Answer, Frame, Reader, Recorded, RecordingError};
use crate::devices::{Again, Opened};
use crate::event::{Action, Content, Event, FilePath, FileRef, Owner, Start, Task, Unread};
use crate::finding::{Finding, ProcessInfo, WorkloadInfo};
use crate::judge::{Ancestry, Facts, HostName, ImageSource, Judge, Settled, Unsettled};
use crate::metrics::Metrics;
use crate::part::Part;
use crate::sbom::ImageIndex;
use crate::workload::{UNKNOWN, Workload};

/// Answers about recorded events.
#[derive(Debug, Default)]
pub struct Replayed {
    now: Part<Option<Rc<Recorded>>>,
    /// Workloads repeat; the last is kept, so that findings share it.
    workload: Part<Option<(super::WorkloadSeed, Arc<Workload>)>>,
}

/// What was recorded of an event.
#[derive(Debug)]
pub struct Case {
    recorded: Option<Rc<Recorded>>,
    /// Answers about updates that were given for this event.
    settled: Cell<usize>,
}

impl Replayed {
    /// The event that is judged next, with its answers.
    pub fn set(&self, recorded: Box<Recorded>) {
        self.now.with(|now| *now = Some(Rc::from(recorded)));
    }
}

impl Case {
    fn answers(&self) -> &[Answer] {
        self.recorded.as_ref().map(|recorded| recorded.answers.as_slice()).unwrap_or_default()
    }

    fn find<T>(&self, pick: impl Fn(&Answer) -> Option<T>) -> Option<T> {
        self.answers().iter().find_map(pick)
    }
}

impl Facts for Replayed {
    type Case = Case;

    fn begin(&self, _: &Event) -> Case {
        Case { recorded: self.now.with(|now| now.clone()), settled: Cell::new(0) }
    }

    fn time(&self, case: &Case) -> SystemTime {
        case.recorded.as_ref().map_or(SystemTime::UNIX_EPOCH, |recorded| recorded.time)
    }

    fn workload(&self, case: &Case) -> Arc<Workload> {
        let seed = case.answers().iter().find_map(|a| match a {
            Answer::Workload(seed) => Some(seed),
            _ => None,
        });
        let Some(seed) = seed else {
            return Arc::new(Workload {
                info: Arc::new(WorkloadInfo { id: UNKNOWN.to_owned(), ..WorkloadInfo::default() }),
                image: None,
                helps: false,
                is_host: false,
                started: None,
                root: None,
            });
        };
        self.workload.with(|last| match last {
            Some((last, workload)) if seed == last => Arc::clone(workload),
            _ => {
                let workload = Arc::new(Workload::from(seed.clone()));
                *last = Some((seed.clone(), Arc::clone(&workload)));
                workload
            }
        })
    }

    async fn content(&self, case: &Case, _: &Task, file: &FileRef, _: Action, _: bool) -> Content {
        case.find(|a| match a {
            Answer::Content(path, content) if *path == file.path => Some(content.clone()),
            _ => None,
        })
        .unwrap_or(Content::Undetermined(Unread::NotAsked))
    }

    async fn resolve(&self, case: &Case, _: &Task, file: &FileRef) -> Result<FileRef, Arc<str>> {
        case.find(|a| match a {
            Answer::Resolved(path, resolved) if *path == file.path => Some(resolved.clone()),
            _ => None,
        })
        .unwrap_or_else(|| Err(Unread::NotAsked.to_string().into()))
    }

    async fn start(&self, case: &Case, _: &Task, file: &FileRef) -> Option<Start> {
        case.find(|a| match a {
            Answer::Start(path, start) if *path == file.path => Some(*start),
            _ => None,
        })
        .flatten()
    }

    async fn again(&self, case: &Case, _: &Task, file: &FileRef) -> Option<FileRef> {
        case.find(|a| match a {
            Answer::Again(path, again) if *path == file.path => Some(again.clone()),
            _ => None,
        })
        .flatten()
    }

    async fn program(&self, case: &Case, _: &Task) -> Result<FileRef, Arc<str>> {
        case.find(|a| match a {
            Answer::Program(program) => Some(program.clone()),
            _ => None,
        })
        .unwrap_or_else(|| Err(Unread::NotAsked.to_string().into()))
    }

    async fn owner(&self, case: &Case, _: &Workload, _: &Arc<ImageIndex>, file: &FileRef) -> Option<Owner> {
        case.find(|a| match a {
            Answer::Owner(path, owner) if *path == file.path => Some(owner.clone()),
            _ => None,
        })
        .flatten()
    }

    fn in_host_root(&self, case: &Case, _: &Task) -> bool {
        let found = case.find(|a| match a {
            Answer::InHostRoot(is) => Some(*is),
            _ => None,
        });
        found.unwrap_or(false)
    }

    async fn device_written(&self, case: &Case, _: u32) -> Option<Vec<FilePath>> {
        let found = case.find(|a| match a {
            Answer::DeviceWritten(points) => Some(points.clone()),
            _ => None,
        });
        found.flatten()
    }

    async fn devices_again(&self, case: &Case, opened: &[Opened]) -> Vec<Again> {
        let found = case.find(|a| match a {
            Answer::DevicesAgain(again) => Some(again.clone()),
            _ => None,
        });
        let mut again = found.unwrap_or_default();
        again.resize(opened.len(), Again::Open);
        again
    }

    async fn settle(&self, case: &Case, files: &[Unsettled]) -> Vec<Settled> {
        let given = case.settled.replace(case.settled.get() + 1);
        let mut settled = case.answers().iter().filter_map(|a| match a {
            Answer::Settled(settled) => Some(settled.clone()),
            _ => None,
        });
        // What is not recorded counts as there and of no package: that hides nothing.
        let unknown = Settled { exists: true, ..Settled::default() };
        let mut settled = settled.nth(given).unwrap_or_default();
        settled.resize(files.len(), unknown);
        settled
    }

    fn host(&self, case: &Case) -> Option<Arc<Workload>> {
        let seed = case.find(|a| match a {
            Answer::Host(seed) => Some(seed.clone()),
            _ => None,
        });
        seed.flatten().map(|seed| Arc::new(Workload::from(seed)))
    }

    fn names(&self, case: &Case, workload: &Workload, _: u32, path: &FilePath) -> Vec<FilePath> {
        case.find(|a| match a {
            Answer::Names(is_host, of, names) if *is_host == workload.is_host && of == path => {
                Some(names.clone())
            }
            _ => None,
        })
        .unwrap_or_default()
    }

    fn host_name(&self, case: &Case, _: &Task, _: u32, _: Option<&FilePath>, used: &FilePath) -> HostName {
        let found = case.find(|a| match a {
            Answer::HostName(of, name) if of == used => Some(name.clone()),
            _ => None,
        });
        found.unwrap_or(HostName::Used)
    }

    fn is_private(&self, case: &Case, _: &Task, dev: u32) -> bool {
        case.find(|a| matches!(a, Answer::Private(of) if *of == dev).then_some(())).is_some()
    }

    async fn is_at(&self, case: &Case, _: &Workload, name: &FilePath, _: &FileRef) -> bool {
        let found = case.find(|a| match a {
            Answer::IsAt(of, is) if of == name => Some(*is),
            _ => None,
        });
        found.unwrap_or(false)
    }

    async fn listed_name(
        &self,
        case: &Case,
        _: &Workload,
        _: &Arc<ImageIndex>,
        file: &FileRef,
    ) -> Option<FilePath> {
        case.find(|a| match a {
            Answer::Listed(path, listed) if *path == file.path => Some(listed.clone()),
            _ => None,
        })
        .flatten()
    }

    fn ancestry(&self, case: &Case, task: &Task) -> Ancestry {
        case.find(|a| match a {
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
    let judge = Judge::new(Replayed::default(), source, metrics, |mut finding| {
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
