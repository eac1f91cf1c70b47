//! Why the content of a file is not known.

use std::fmt;
use std::io;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why the content of a file is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unread {
    /// The file, or the process through which it is reached, was gone.
    Gone,
    /// Another file is there now, or the file changed since the event.
    Replaced,
    /// It changed while it was read.
    ChangedWhileRead,
    /// Larger than [`MAX_FILE_BYTES`](crate::digest::MAX_FILE_BYTES), or mostly hole.
    TooLarge,
    /// So much else changed, or was run by its workload, that there was no time to find or to read it.
    OverBudget,
    /// A program serves its content.
    Served,
    /// It may not be read.
    Permission,
    /// No regular file.
    NotRegular,
    /// It could not be read.
    Io,
    /// The agent that made the recording had no reason to look: it had another SBOM, or none.
    NotAsked,
    /// Which file it was cannot be said; the text says why.
    Unresolved(Arc<str>),
}

impl Unread {
    /// The name of each reason, in the order of [`Self::label`].
    pub const LABELS: [&str; 11] = [
        "gone",
        "replaced",
        "changed_while_read",
        "too_large",
        "over_budget",
        "served",
        "permission",
        "not_regular",
        "io",
        "not_asked",
        "unresolved",
    ];

    /// Its place in [`Self::LABELS`].
    pub fn label(&self) -> usize {
        match self {
            Self::Gone => 0,
            Self::Replaced => 1,
            Self::ChangedWhileRead => 2,
            Self::TooLarge => 3,
            Self::OverBudget => 4,
            Self::Served => 5,
            Self::Permission => 6,
            Self::NotRegular => 7,
            Self::Io => 8,
            Self::NotAsked => 9,
            Self::Unresolved(_) => 10,
        }
    }

    /// Its name, as metrics and logs have it.
    pub fn as_str(&self) -> &'static str {
        Self::LABELS[self.label()]
    }
}

/// For people.
impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "it was gone before it could be read",
            Self::Replaced => "another file had taken its place, or it had changed, before it could be read",
            Self::ChangedWhileRead => "it changed while it was read",
            Self::TooLarge => "it is larger than what the agent reads, or mostly hole",
            Self::OverBudget => {
                "so much else was changed, or run by its workload, that there was no time to read it"
            }
            Self::Served => "its content is served by a program, which may give each reader another",
            Self::Permission => "the agent may not read it",
            Self::NotRegular => "it is no regular file",
            Self::Io => "reading it failed",
            Self::NotAsked => "the recording does not say: the agent that made it had no reason to look",
            Self::Unresolved(why) => why,
        })
    }
}

impl From<&io::Error> for Unread {
    fn from(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Self::Gone,
            io::ErrorKind::PermissionDenied => Self::Permission,
            // Symbolic links in a circle where the event had a file.
            _ if error.raw_os_error() == Some(nix::libc::ELOOP) => Self::Replaced,
            _ if error.raw_os_error() == Some(nix::libc::ESRCH) => Self::Gone,
            io::ErrorKind::QuotaExceeded => Self::OverBudget,
            _ => Self::Io,
        }
    }
}
