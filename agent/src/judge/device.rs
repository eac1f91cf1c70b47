//! A block device with a file system on it is opened for write.

use super::report::About;
use super::{Facts, Judge};
use crate::event::{Event, FileOp, FileRef};
use crate::finding::{Finding, Severity, Verdict};
use crate::verdict::Judgement;

impl<F: Facts, S: FnMut(Finding)> Judge<F, S> {
    /// Reports it if file systems lie on the device. Nothing that was known of their files is believed any more: the digests of the
    /// kernel and of the agent are forgotten when the facts are asked.
    pub(super) fn device_written(&mut self, event: &Event, file: &FileRef) {
        let on = match self.facts.device_written(file.identity.real.dev) {
            Some(points) if points.is_empty() => return,
            Some(points) => {
                let points: Vec<_> = points.iter().map(ToString::to_string).collect();
                format!("file systems lie on it, mounted at {}", points.join(", "))
            }
            None => "which file systems lie on it cannot be found out".to_owned(),
        };
        self.silent.clear();
        let workload = self.facts.workload();
        let Some(image) = self.image_of(event, &workload) else { return };
        let reason = format!(
            "the block device was opened for write, and {on}: what is written to it changes their files, and no file shows it"
        );
        let judgement = Judgement::new(Verdict::Modified, Severity::High, reason);
        let about = About {
            file: Some(file),
            operation: Some(FileOp::BlockWrite),
            image: Some(&image),
            ..About::default()
        };
        self.report(event, &workload.info, judgement, &about);
    }
}
