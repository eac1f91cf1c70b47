//! Recorded streams of events (`muster agent --record FILE`) and their replay (`muster replay FILE`).
//!
//! A recording holds each event with every answer that the judge was given about it, so that the same SBOMs give the
//! same findings on any machine, without privilege.
//!
//! ```text
//! file   = magic, format: u32, frame*
//! frame  = length: u32, checksum: u32, body        length and checksum (CRC-32) are of the body
//! body   = Frame, in postcard's encoding           integers of the header are little-endian
//! ```
//!
//! A frame that does not fit, a checksum that is wrong or another format is refused with its position. The writer never
//! makes the agent wait: frames that its queue or the disk did not take are counted, and the recording says where how
//! many are missing. The last frame says that it is the last; without it the recording was cut.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::sync::Arc;
use std::time::SystemTime;

use crate::devices::Again;
use crate::event::{Content, Event, FilePath, FileRef, Owner, ProcessId, Start};
use crate::finding::WorkloadInfo;
use crate::identity::Digests;
use crate::judge::{Ancestry, HostName, Settled};
use crate::workload::Workload;

mod read;
mod replay;
#[cfg(test)]
mod tests;
mod write;

pub use read::{Reader, RecordingError};
pub use replay::{Done, Replayed, process_of, replay};
pub use write::{Recorder, Recording, Written};

/// First bytes of a recording.
pub const MAGIC: &[u8; 16] = b"muster recording";
/// Format of what follows, little-endian behind [`MAGIC`]. Raise it with every change of [`Frame`] or of what it holds.
pub const FORMAT: u32 = 8;
/// Largest body of a frame. An event with its answers needs a few KiB.
const MAX_FRAME: usize = 1 << 20;

/// One frame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Frame {
    /// An event and what was answered about it.
    Event(Box<Recorded>),
    /// So many frames are missing here: the disk was full or too slow.
    Lost(u64),
    /// The recording was closed; nothing follows.
    End,
}

/// An event and what was answered about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Recorded {
    /// The event.
    pub event: Event,
    /// Wall clock of the event.
    pub time: SystemTime,
    /// What was asked, with the answers.
    pub answers: SmallVec<[Answer; 4]>,
}

/// What was asked about an event, with the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// Its workload.
    Workload(WorkloadSeed),
    /// What the file at this path holds.
    Content(FilePath, Content),
    /// Which file a name means.
    Resolved(FilePath, Result<FileRef, Arc<str>>),
    /// How the file at this path starts.
    Start(FilePath, Option<Start>),
    /// The file at this path, as it was then.
    Again(FilePath, Option<FileRef>),
    /// The program of the process.
    Program(Result<FileRef, Arc<str>>),
    /// The process and its ancestors.
    Ancestry(Ancestry),
    /// Who owns the file at this path.
    Owner(FilePath, Option<Owner>),
    /// The task sees the host's own root directory.
    InHostRoot(bool),
    /// Where the file systems are mounted that lie on a block device.
    DeviceWritten(Option<Vec<FilePath>>),
    /// What was found of devices that were opened for write before.
    DevicesAgain(Vec<Again>),
    /// What became of files that the package manager wrote.
    Settled(Vec<Settled>),
    /// The host's own workload.
    Host(Option<WorkloadSeed>),
    /// The names that a place in a file system has, in the host's root or that of the event's workload.
    Names(bool, FilePath, Vec<FilePath>),
    /// What the host calls the file that its process calls so, if that is something else.
    HostName(FilePath, HostName),
    /// The host's processes see nothing of the file system, of this device.
    Private(u32),
    /// The file has this name.
    IsAt(FilePath, bool),
    /// The name that the SBOM has for the file at this path.
    Listed(FilePath, Option<FilePath>),
}

/// A workload as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkloadSeed {
    info: WorkloadInfo,
    image: Option<Digests>,
    is_host: bool,
    started: Option<SystemTime>,
    root: Option<ProcessId>,
    helps: bool,
}

impl From<&Workload> for WorkloadSeed {
    fn from(workload: &Workload) -> Self {
        let Workload { info, image, is_host, started, root, helps } = workload;
        Self {
            info: WorkloadInfo::clone(info),
            image: image.as_deref().cloned(),
            is_host: *is_host,
            started: *started,
            root: *root,
            helps: *helps,
        }
    }
}

impl From<WorkloadSeed> for Workload {
    fn from(seed: WorkloadSeed) -> Self {
        let WorkloadSeed { info, image, is_host, started, root, helps } = seed;
        Self { info: Arc::new(info), image: image.map(Arc::new), is_host, started, root, helps }
    }
}

/// CRC-32 (ISO 3309, reflected, polynomial `0xEDB88320`).
fn checksum(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut n = 0;
        let mut of = 0_u32;
        while n < 256 {
            let mut crc = of;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
                bit += 1;
            }
            table[n] = crc;
            n += 1;
            of += 1;
        }
        table
    };
    !bytes.iter().fold(u32::MAX, |crc, b| {
        let [low, ..] = crc.to_le_bytes();
        crc >> 8 ^ TABLE[usize::from(low ^ b)]
    })
}
