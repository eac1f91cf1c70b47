//! Changes of files: which of them are judged, and under which name.

use std::sync::Arc;

use super::interest::Interest;
use super::names::{at_name, way};
use super::report::About;
use super::updates::Of;
use super::{EXECUTABLE, FILE_TYPE, Facts, Judge, Known, Now};
use crate::event::{Action, FileOp, FilePath, FileRef, Flavour, Place};
use crate::finding::Finding;
use crate::verdict::{self, Judgement};
use crate::workload::Workload;

/// By what, and against what, a file is changed.
pub(super) struct By<'a, C> {
    pub(super) now: Now<'a, C>,
    /// Who did it.
    pub(super) workload: &'a Workload,
    /// Whose files are looked at: those of who did it, or the host's.
    pub(super) of: &'a Workload,
    /// What the SBOM of these is.
    pub(super) image: &'a Arc<Known>,
    pub(super) op: FileOp,
}

impl<C> By<'_, C> {
    /// A container changed a file of the host: its own names of it say nothing.
    pub(super) fn is_foreign(&self) -> bool {
        self.of.is_host && !self.workload.is_host
    }
}

/// A memfd, or a file whose last name is gone.
fn is_nameless(file: &FileRef) -> bool {
    file.nlink == 0 && (file.deleted || file.place == Place::Memfd)
}

impl<F: Facts, S: FnMut(Finding)> Judge<F, S> {
    /// Judges a change, if it is one that can be judged yet.
    pub(super) async fn file(
        &self,
        now: Now<'_, F::Case>,
        op: FileOp,
        file: &FileRef,
        target: Option<&FilePath>,
        mode: Option<u32>,
    ) {
        if op == FileOp::BlockWrite {
            return self.device_written(now, file).await;
        }
        self.silent.with(|silent| silent.forget(file));
        if now.event.flavour == Flavour::Tracepoint {
            self.note_writer(now, op, file).await;
        }
        self.noted(now, op, file, target, mode).await;
    }

    /// Judges a change of which the writer is noted already.
    pub(super) async fn noted(
        &self,
        now: Now<'_, F::Case>,
        op: FileOp,
        file: &FileRef,
        target: Option<&FilePath>,
        mode: Option<u32>,
    ) {
        let workload = self.facts.workload(now.case);
        let on_host = self.as_host_names(now, &workload, file, target);
        let (file, target) = match &on_host {
            Some((file, target)) => (file, target.as_ref()),
            None => (file, target),
        };
        self.note_held(now, op, file).await;
        let judged = match op {
            // The content is there when the writer closes it; a new name of its own has none.
            FileOp::OpenWrite | FileOp::Create | FileOp::MapWrite | FileOp::BlockWrite => false,
            FileOp::Chmod | FileOp::Truncate | FileOp::CloseWrite => !file.has_writers,
            FileOp::Rename | FileOp::Exchange | FileOp::Link | FileOp::Unlink | FileOp::Capability => true,
        };
        if !judged {
            return;
        }
        if let Some(image) = self.image_of(now, &workload) {
            let by = By { now, workload: &workload, of: &workload, image: &image, op };
            self.changed(&by, file, target, mode).await;
            // A caller's names stand for both sides of an exchange.
            if op == FileOp::Exchange
                && file.by_name
                && let Some(target) = target
            {
                let other = FileRef { path: target.clone(), ..file.clone() };
                self.changed(&by, &other, Some(&file.path), mode).await;
            }
        }
        // Directories of the host that a container sees.
        if !workload.is_host
            && !workload.is_unknown()
            && file.origin.is_some()
            && let Some(host) = self.facts.host(now.case)
            && let Some(image) = self.image_of(now, &host)
        {
            let by = By { now, workload: &workload, of: &host, image: &image, op };
            self.changed(&by, file, target, mode).await;
        }
    }

    async fn changed(
        &self,
        by: &By<'_, F::Case>,
        file: &FileRef,
        target: Option<&FilePath>,
        mode: Option<u32>,
    ) {
        let By { now, workload, image, op, .. } = *by;
        if !file.private {
            self.names_taken(by, file, target).await;
        }
        if op == FileOp::Unlink {
            let left = file.nlink.saturating_sub(1);
            self.links.with(|links| links.remove(file.identity.inode(), &file.path, left));
            return;
        }
        let before = file;
        let mut file = file.clone();
        match (op, target) {
            (FileOp::Rename | FileOp::Exchange | FileOp::Link, Some(target)) => {
                // A path that is cut or relative lacks its leading slash; a name alone (tracepoint flavour) says nothing of
                // the file that has it.
                file.by_name |= target.as_bytes().first() != Some(&b'/');
                file.path = target.clone();
                // Of the name that it had.
                (file.truncated, file.unreachable) = (false, false);
                if let Some(origin) = &mut file.origin {
                    origin.path = std::mem::take(&mut origin.target);
                }
            }
            // Under this name nobody can run it any more, but it may have others.
            (FileOp::CloseWrite, _) if file.deleted => match self.other_name(by, &file).await {
                Some(name) => (file.path, file.deleted) = (name, false),
                None if file.nlink == 0 => return,
                None => {}
            },
            // A descriptor is all that leads to it, and who runs it by that is told.
            (FileOp::Truncate | FileOp::Chmod, _) if is_nameless(&file) => return,
            _ => {}
        }
        if let Some(mode) = mode {
            file.mode = file.mode & FILE_TYPE | mode & !FILE_TYPE;
        }
        if op == FileOp::Capability && file.path.is_empty() {
            // The hook knows no mount. What an overlay does to its layers nobody sees by any name.
            let Some(name) = self.place_of(by, &file) else { return };
            file = at_name(&file, &name);
        }
        if file.by_name {
            match self.facts.resolve(now.case, &now.event.task, &file).await {
                Ok(mut resolved) => {
                    let permissions = mode.unwrap_or(resolved.mode);
                    resolved.private = workload.is_host && self.is_private(now, &resolved);
                    file = FileRef { mode: resolved.mode & FILE_TYPE | permissions & !FILE_TYPE, ..resolved };
                }
                // The name is gone, or what has it now is not what had it.
                Err(_) if file.mode & EXECUTABLE == 0 => return,
                Err(_) => {}
            }
        }
        match op {
            FileOp::Link => self.note_link(by, before, &file).await,
            FileOp::Rename | FileOp::Exchange => {
                self.links.with(|links| links.rename(file.identity.inode(), &before.path, &file.path));
            }
            _ => {}
        }
        let listed = self.listed_as(by, &file).await;
        if matches!(op, FileOp::Rename | FileOp::Exchange) {
            let file = listed.as_ref().map_or_else(|| file.clone(), |name| at_name(&file, name));
            let replaced = if by.is_foreign() && listed.is_none() {
                None
            } else {
                verdict::replaced(&file, &image.index)
            };
            self.name_changed(by, &file, replaced).await;
        }
        match self.interest(by, &file, listed.as_ref()).await {
            Interest::None => {}
            Interest::Now => self.judge_change(by, &file, listed.as_ref()).await,
            Interest::Later => self.settle_later(by, file).await,
        }
    }

    /// Judges what a changed file holds. `listed`: the name that the SBOM has for it, if that is another one.
    pub(super) async fn judge_change(&self, by: &By<'_, F::Case>, file: &FileRef, listed: Option<&FilePath>) {
        let By { now, workload, image, op, .. } = *by;
        let mut observation = match listed {
            Some(name) => self.observe_as(by, file, name).await,
            None => self.observe(now, workload, image, file.clone(), Action::Change(op)).await,
        };
        let (mut judgement, session) = self.consider(now, workload, image, &mut observation).await;
        if listed.is_some() && !judgement.is_silent() {
            judgement.reason = format!("{}; {}", judgement.reason, way(by, &file.path));
        }
        if file.private && !judgement.is_silent() {
            judgement.reason =
                format!("{}; its file system is mounted for its process only", judgement.reason);
        }
        match session {
            Some(session) => {
                let of = Of::Observed(Box::new(observation));
                self.hold(now, workload, image, session, judgement, of).await;
            }
            None => self.found(now, workload, image, &observation, &judgement),
        }
    }

    /// Names of the SBOM that a change took away, or gave to another directory.
    async fn names_taken(&self, by: &By<'_, F::Case>, file: &FileRef, target: Option<&FilePath>) {
        let By { image, op, .. } = *by;
        if !matches!(op, FileOp::Rename | FileOp::Exchange | FileOp::Unlink) {
            return;
        }
        let names = self.all_names(by, file);
        let targets = target.map(|target| self.all_targets(by, file, target)).unwrap_or_default();
        let index = &image.index;
        let to = targets.first();
        // Some documents list directories as well. After an exchange the name is there: what has it now is told.
        let gone = names.iter().filter(|_| op != FileOp::Exchange).find_map(|name| {
            let away = to.and_then(|to| verdict::moved(name, to, index)[0].take());
            verdict::removed(name, to, index).or(away).map(|judgement| (name, judgement))
        });
        let replaced = names.first().and_then(|name| {
            targets.iter().find_map(|to| Some((to, verdict::moved(name, to, index)[1].take()?)))
        });
        if let Some((name, judgement)) = gone {
            self.name_changed(by, name, Some(judgement)).await;
        }
        if let Some((to, judgement)) = replaced {
            let file = FileRef { path: to.clone(), ..file.clone() };
            self.name_changed(by, &file, Some(judgement)).await;
        }
    }

    /// A name that the SBOM has, or that has files of it below, was taken away or given to something else.
    async fn name_changed(&self, by: &By<'_, F::Case>, file: &FileRef, judgement: Option<Judgement>) {
        let By { now, workload, image, op, .. } = *by;
        let Some(judgement) = judgement else { return };
        let judgement = image.tempered(judgement);
        let session = match workload.is_host {
            true => self.updates.with(|updates| updates.session(&now.event.task)),
            false => None,
        };
        if let Some(session) = session {
            self.hold(now, workload, image, session, judgement, Of::Removed(file)).await;
            return;
        }
        let about =
            About { file: Some(file), operation: Some(op), image: Some(image), content: None, connect: None };
        self.report(now, &workload.info, judgement, &about);
    }
}
