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

/// Answers about events. Several may be judged at a time: what is known of an event from its arrival on is in its [`Case`](Self::Case).
#[expect(async_fn_in_trait, reason = "the judge's futures stay on its thread")]
pub trait Facts {
    /// What is known of one event.
    type Case;
    /// The next event, in the order in which they come.
    fn begin(&self, event: &Event) -> Self::Case;
    /// The event is judged.
    fn end(&self, _: &Self::Case) {}
    /// Wall clock of the event.
    fn time(&self, case: &Self::Case) -> SystemTime;
    /// Workload of the event's task.
    fn workload(&self, case: &Self::Case) -> Arc<Workload>;
    /// What the file holds. `weak`: SHA-1 and MD5 are wanted, too.
    async fn content(
        &self,
        case: &Self::Case,
        task: &Task,
        file: &FileRef,
        action: Action,
        weak: bool,
    ) -> Content;
    /// The file that the caller's spelling of a name means.
    ///
    /// # Errors
    /// Why that cannot be said.
    async fn resolve(&self, case: &Self::Case, task: &Task, file: &FileRef) -> Result<FileRef, Arc<str>>;
    /// How the file starts. `None`: it could not be read any more.
    async fn start(&self, case: &Self::Case, task: &Task, file: &FileRef) -> Option<Start>;
    /// The file as it is now, if it can still be found.
    async fn again(&self, case: &Self::Case, task: &Task, file: &FileRef) -> Option<FileRef>;
    /// The program of a process of which no exec was seen.
    ///
    /// # Errors
    /// Why that cannot be said.
    async fn program(&self, case: &Self::Case, task: &Task) -> Result<FileRef, Arc<str>>;
    /// Who owns a file: of a container by the databases of its image's read-only layers, of the host by its own as it was
    /// when first asked for.
    async fn owner(
        &self,
        case: &Self::Case,
        workload: &Workload,
        index: &Arc<ImageIndex>,
        file: &FileRef,
    ) -> Option<Owner>;
    /// The task sees the host's own root directory.
    fn in_host_root(&self, case: &Self::Case, task: &Task) -> bool;
    /// A block device (kernel encoding) was opened for write: where the file systems that lie on it are mounted. `None`: nobody knows.
    async fn device_written(&self, case: &Self::Case, device: u32) -> Option<Vec<FilePath>>;
    /// Looks again at devices that were opened for write, in their order.
    async fn devices_again(&self, case: &Self::Case, opened: &[Opened]) -> Vec<Again>;
    /// What became of files of the host, in their order.
    async fn settle(&self, case: &Self::Case, files: &[Unsettled]) -> Vec<Settled>;
    /// The host's own workload.
    fn host(&self, _: &Self::Case) -> Option<Arc<Workload>> {
        None
    }
    /// The names that a place in a file system has in a workload's root, by device and path from the file system's root.
    fn names(&self, _: &Self::Case, _: &Workload, _dev: u32, _path: &FilePath) -> Vec<FilePath> {
        Vec::new()
    }
    /// What the host calls a file of this device that a task of the host calls `used`. `place`: where it is in its file system, if that is
    /// not just the name used.
    fn host_name(
        &self,
        _: &Self::Case,
        _: &Task,
        _dev: u32,
        _place: Option<&FilePath>,
        _used: &FilePath,
    ) -> HostName {
        HostName::Used
    }
    /// The task has mounts of its own, and the host's processes see no file system of this device.
    fn is_private(&self, _: &Self::Case, _: &Task, _dev: u32) -> bool {
        false
    }
    /// The file has this name in a workload's root now.
    async fn is_at(&self, _: &Self::Case, _: &Workload, _name: &FilePath, _: &FileRef) -> bool {
        false
    }
    /// A name of the SBOM that a file with several names has in a workload's root.
    async fn listed_name(
        &self,
        _: &Self::Case,
        _: &Workload,
        _: &Arc<ImageIndex>,
        _: &FileRef,
    ) -> Option<FilePath> {
        None
    }
    /// The event's process and its ancestors.
    fn ancestry(&self, case: &Self::Case, task: &Task) -> Ancestry;
}
