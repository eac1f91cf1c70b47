//! What is no file, in the place of one.

use super::{Judgement, provable_path};
use crate::event::FileRef;
use crate::finding::{Severity, Verdict};
use crate::sbom::ImageIndex;

/// Type bits of a mode (`S_IFMT`), and what they can be.
const FILE_TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;

/// A name of the SBOM was given to something that holds no content of its own: a symbolic link, a directory, a FIFO, a device. `None`
/// for a regular file, whose content is judged, and where the SBOM has no file.
pub fn replaced(file: &FileRef, index: &ImageIndex) -> Option<Judgement> {
    let kind = match file.mode & FILE_TYPE {
        // By a name alone nothing is known of it.
        0 | REGULAR => return None,
        0o120_000 => "a symbolic link",
        DIRECTORY => "a directory",
        0o010_000 => "a FIFO",
        0o140_000 => "a socket",
        _ => "a device",
    };
    let entry = index.by_path(provable_path(file)?)?;
    // Some documents list directories, which have no digest.
    let has_digest =
        entry.sha256().is_some() || entry.weak().is_some_and(|w| w.sha1.is_some() || w.md5.is_some());
    if file.mode & FILE_TYPE == DIRECTORY && !has_digest {
        return None;
    }
    let reason = format!("the SBOM has a file here, and {kind} was put in its place");
    let mut judgement = Judgement::new(Verdict::Modified, Severity::High, reason).of(entry);
    judgement.expected_sha256 = entry.sha256();
    Some(judgement)
}
