//! Content that the SBOM has, at a path that it does not have.

use super::{Judgement, name, provable_path, severity};
use crate::event::{Action, Observation, Place};
use crate::finding::{Severity, Verdict};

/// It is another name of a file of the image: of several names of an inode, syft before 1.40 lists one.
///
/// In a read-only layer, untouched since the container started, and with several names, it is as it was built; a link that is made
/// later copies the file into the upper layer (`ovl_link()`, `ovl_copy_up()`). What may change beneath its inode is no such file.
/// Which names an inode has can only be found by walking the layer, so that a copy that has links of its own counts, too: its
/// content is signed for this image, and its place is as the image's.
pub(super) fn is_other_name(observation: &Observation) -> bool {
    let Observation { action, file, fresh, on_host, .. } = observation;
    file.nlink > 1
        && file.place == Place::ImageLayer
        && !fresh
        && !on_host
        && !file.changes_beneath
        && !matches!(action, Action::Change(_))
        && provable_path(file).is_some()
}

/// Of a content for which the SBOM has no path (see [`has_content`](crate::sbom::ImageIndex::has_content)).
pub(super) fn without_path(observation: &Observation) -> Judgement {
    let severity = severity::of_copy(observation);
    let file = name(&observation.file);
    let reason = format!("the SBOM has this content and says of no path that it is there, found at {file}");
    let mut judgement = Judgement::new(Verdict::Relocated, severity.unwrap_or(Severity::Info), reason);
    judgement.quiet = severity.is_none();
    judgement
}
