//! What the judge asks of the world: who ran it, what a file holds. Live answers come from `/proc` and the files
//! ([`Live`](super::Live)); replayed ones from a recording ([`record`](crate::record)).

use std::sync::Arc;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::devices::{Again, Opened};
use crate::event::{Action, Content, Event, FilePath, FileRef, Owner, Start, Task};
use crate::finding::ProcessInfo;
use crate::sbom::ImageIndex;
use crate::workload::Workload;

/// A process and its ancestors, parent first.
pub type Ancestry = (ProcessInfo, Vec<ProcessInfo>);

/// A file of the host whose update is to be settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsettled {
    /// Where it was written.
    pub path: FilePath,
    /// Its content could not be read when it was written.
    pub unread: bool,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// There is a file at this path now.
    pub exists: bool,
    /// Its content, if that was asked for.
    pub content: Option<Content>,
    /// Who owns the path, by the host's package database as it is now.
    pub owner: Option<Owner>,
}

/// What a file that a process of the host names is called in the host's own root directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostName {
    /// As the process calls it.
    Used,
    /// Otherwise: the process has another root directory or mounts of its own.
    Other(FilePath),
    /// It has no name there: its file system is mounted for the process only.
    Nowhere,
    /// It has another one, and nobody knows which.
    Unknown,
}

/// Answers about the event that was begun last.
pub trait Facts {
    /// The next event, in order. Everything asked until [`end`](Self::end) is about it.
    fn begin(&mut self, event: &Event);
    /// The event is judged.
    fn end(&mut self) {}
    /// Wall clock of the event.
    fn time(&self) -> SystemTime;
    /// Workload of the event's task.
    fn workload(&mut self) -> Arc<Workload>;
    /// What the file holds. `weak`: SHA-1 and MD5 are wanted, too.
    fn content(&mut self, task: &Task, file: &FileRef, action: Action, weak: bool) -> Content;
    /// The file that the caller's spelling of a name means.
    ///
    /// # Errors
    /// Why that cannot be said.
    fn resolve(&mut self, task: &Task, file: &FileRef) -> Result<FileRef, Arc<str>>;
    /// How the file starts. `None`: it could not be read any more.
    fn start(&mut self, task: &Task, file: &FileRef) -> Option<Start>;
    /// The file as it is now, if it can still be found.
    fn again(&mut self, task: &Task, file: &FileRef) -> Option<FileRef>;
    /// The program of a process of which no exec was seen.
    ///
    /// # Errors
    /// Why that cannot be said.
    fn program(&mut self, task: &Task) -> Result<FileRef, Arc<str>>;
    /// Who owns a file: of a container by the databases of its image's read-only layers, of the host by its own as it was
    /// when first asked for.
    fn owner(&mut self, workload: &Workload, index: &Arc<ImageIndex>, file: &FileRef) -> Option<Owner>;
    /// The task sees the host's own root directory.
    fn in_host_root(&mut self, task: &Task) -> bool;
    /// A block device (kernel encoding) was opened for write: where the file systems that lie on it are mounted. `None`: nobody knows.
    fn device_written(&mut self, device: u32) -> Option<Vec<FilePath>>;
    /// Looks again at devices that were opened for write, in their order.
    fn devices_again(&mut self, opened: &[Opened]) -> Vec<Again>;
    /// What became of files of the host, in their order.
    fn settle(&mut self, files: &[Unsettled]) -> Vec<Settled>;
    /// The host's own workload.
    fn host(&mut self) -> Option<Arc<Workload>> {
        None
    }
    /// The names that a place in a file system has in a workload's root, by device and path from the file system's root.
    fn names(&mut self, _: &Workload, _dev: u32, _path: &FilePath) -> Vec<FilePath> {
        Vec::new()
    }
    /// What the host calls a file of this device that a task of the host calls `used`. `place`: where it is in its file system, if that is
    /// not just the name used.
    fn host_name(&mut self, _: &Task, _dev: u32, _place: Option<&FilePath>, _used: &FilePath) -> HostName {
        HostName::Used
    }
    /// The task has mounts of its own, and the host's processes see no file system of this device.
    fn is_private(&mut self, _: &Task, _dev: u32) -> bool {
        false
    }
    /// The file has this name in a workload's root now.
    fn is_at(&mut self, _: &Workload, _name: &FilePath, _: &FileRef) -> bool {
        false
    }
    /// A name of the SBOM that a file with several names has in a workload's root.
    fn listed_name(&mut self, _: &Workload, _: &Arc<ImageIndex>, _: &FileRef) -> Option<FilePath> {
        None
    }
    /// The event's process and its ancestors.
    fn ancestry(&mut self, task: &Task) -> Ancestry;
}
