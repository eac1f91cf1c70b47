//! The names of a changed file, of which the SBOM may know another one than that by which it was changed.
//!
//! * A *mount*: the same place of a file system has a name for each mount that shows it. The kernel side gives the place, the table of
//!   mounts the names.
//! * A *hard link*: links that are made are remembered by the inode; those that were there before are looked for, if the file has more
//!   names than are remembered.

use super::change::By;
use super::{FILE_TYPE, Facts, HostName, Judge, Now, REGULAR};
use crate::event::{Action, FileOp, FilePath, FileRef, Inode, Observation, Origin};
use crate::finding::Finding;
use crate::verdict;
use crate::workload::Workload;

/// The file, under a name of the SBOM.
pub(super) fn at_name(file: &FileRef, name: &FilePath) -> FileRef {
    FileRef {
        path: name.clone(),
        truncated: false,
        deleted: false,
        by_name: false,
        unreachable: false,
        private: false,
        ..file.clone()
    }
}

/// How the file was reached, in words.
pub(super) fn way<C>(by: &By<'_, C>, path: &FilePath) -> String {
    let who = if by.is_foreign() { "a container changed this file of the host" } else { "it was changed" };
    format!("{who} by another name, {path}")
}

impl<F: Facts, S: FnMut(Finding)> Judge<F, S> {
    /// A file that a process of the host changes, and its new name, by the names that they have in the host's own root directory, if that
    /// of the process is another one (`chroot`, mounts of its own): its `/etc/x` is none of the SBOM's then.
    pub(super) fn as_host_names(
        &self,
        now: Now<'_, F::Case>,
        workload: &Workload,
        file: &FileRef,
        target: Option<&FilePath>,
    ) -> Option<(FileRef, Option<FilePath>)> {
        let origin = file.origin.as_deref();
        // Without a place a path must say it all.
        let says_nothing = file.by_name || origin.is_none() && (file.truncated || file.unreachable);
        if !workload.is_host || says_nothing {
            return None;
        }
        let (task, dev) = (&now.event.task, file.identity.dev);
        let host_name = |place, used| self.facts.host_name(now.case, task, dev, place, used);
        let name = host_name(origin.map(|origin| &origin.path), &file.path);
        let other = target.map(|used| (used, host_name(origin.map(|origin| &origin.target), used)));
        let is_used = matches!(other, None | Some((_, HostName::Used)));
        // It is moved to where the host sees it: its new name counts, its old one is none of the host's.
        let becomes_seen = name == HostName::Nowhere && matches!(other, Some((_, HostName::Other(_))));
        let file = match name {
            HostName::Nowhere if becomes_seen => FileRef { unreachable: true, ..file.clone() },
            HostName::Used if is_used => return None,
            HostName::Used => file.clone(),
            HostName::Other(path) => {
                // It may have more than one name on the host.
                let place =
                    || Origin { path: file.path.clone(), target: target.cloned().unwrap_or_default() };
                let origin = file.origin.clone().unwrap_or_else(|| Box::new(place()));
                FileRef { path, truncated: false, unreachable: false, origin: Some(origin), ..file.clone() }
            }
            HostName::Nowhere => FileRef { private: true, ..file.clone() },
            HostName::Unknown => FileRef { unreachable: true, ..file.clone() },
        };
        let target = other.map(|(used, name)| match name {
            HostName::Other(name) => name,
            HostName::Used | HostName::Nowhere | HostName::Unknown => used.clone(),
        });
        Some((file, target))
    }

    /// The file under each of its names: its own, if that counts, and those by other mounts.
    pub(super) fn all_names(&self, by: &By<'_, F::Case>, file: &FileRef) -> Vec<FileRef> {
        let mut all: Vec<_> = (!by.is_foreign()).then(|| file.clone()).into_iter().collect();
        if let Some(origin) = &file.origin {
            let others = self.facts.names(by.now.case, by.of, file.identity.dev, &origin.path);
            all.extend(others.iter().filter(|name| **name != file.path).map(|name| at_name(file, name)));
        }
        all
    }

    /// The same of its new name.
    pub(super) fn all_targets(
        &self,
        by: &By<'_, F::Case>,
        file: &FileRef,
        target: &FilePath,
    ) -> Vec<FilePath> {
        let mut all: Vec<_> = (!by.is_foreign()).then(|| target.clone()).into_iter().collect();
        if let Some(origin) = &file.origin {
            let others = self.facts.names(by.now.case, by.of, file.identity.dev, &origin.target);
            all.extend(others.into_iter().filter(|name| name != target));
        }
        all
    }

    /// A name of a file of which only its place in its file system is known: the SBOM's, if that has one.
    pub(super) fn place_of(&self, by: &By<'_, F::Case>, file: &FileRef) -> Option<FilePath> {
        let origin = file.origin.as_ref()?;
        let names = self.facts.names(by.now.case, by.of, file.identity.dev, &origin.path);
        let listed = names.iter().find(|name| by.image.index.by_path(name.as_bytes()).is_some());
        listed.or(names.first()).cloned()
    }

    /// The name by which the SBOM has the file, if that is another one than the file's own here.
    pub(super) async fn listed_as(&self, by: &By<'_, F::Case>, file: &FileRef) -> Option<FilePath> {
        let index = &by.image.index;
        let is_listed = |name: &FilePath| index.by_path(name.as_bytes()).is_some();
        if !by.is_foreign() && verdict::provable_path(file).is_some_and(|path| index.by_path(path).is_some())
        {
            return None;
        }
        if let Some(origin) = &file.origin
            && let Some(name) = self
                .facts
                .names(by.now.case, by.of, file.identity.dev, &origin.path)
                .into_iter()
                .find(is_listed)
        {
            return Some(name);
        }
        // A new name of a file changes nothing at its others.
        let is_new_name = matches!(by.op, FileOp::Rename | FileOp::Exchange | FileOp::Link);
        if by.is_foreign() || is_new_name || file.nlink < 2 || file.mode & FILE_TYPE != REGULAR {
            return None;
        }
        let inode = file.identity.inode();
        if let Some(name) = self.links.with(|links| links.listed(inode)).filter(is_listed) {
            return Some(name);
        }
        // Of a link that was known by its spelling only the generation is not known.
        let unsure = Inode { generation: 0, ..inode };
        if let Some(name) = self.links.with(|links| links.listed(unsure)).filter(is_listed)
            && self.facts.is_at(by.now.case, by.of, &name, file).await
        {
            return Some(name);
        }
        let known = self.links.with(|links| links.count(inode));
        let known = u32::try_from(known).unwrap_or(u32::MAX);
        if known >= file.nlink {
            return None;
        }
        self.facts.listed_name(by.now.case, by.of, index, file).await
    }

    /// Looks at a file that the SBOM has by another name.
    pub(super) async fn observe_as(
        &self,
        by: &By<'_, F::Case>,
        file: &FileRef,
        name: &FilePath,
    ) -> Observation {
        let Now { event, case } = by.now;
        let action = Action::Change(by.op);
        let listed = at_name(file, name);
        let weak = verdict::wants_weak(&by.image.index, &listed, None);
        let content = self.facts.content(case, &event.task, file, action, weak).await;
        let fresh = super::is_fresh(file, by.of, by.image);
        Observation {
            action,
            file: listed,
            content,
            fresh,
            root: event.task.euid == 0,
            on_host: by.of.is_host,
            owner: None,
            update: None,
        }
    }

    /// Remembers the names of a file that has several: who changes it later may do so by any of them. `before`: under its old name.
    pub(super) async fn note_link(&self, by: &By<'_, F::Case>, before: &FileRef, after: &FileRef) {
        if by.is_foreign() {
            return;
        }
        let former = match before.by_name {
            true => self.facts.resolve(by.now.case, &by.now.event.task, before).await.ok(),
            false => (!before.deleted).then(|| before.clone()),
        };
        let inode = after.identity.inode();
        let names = former.iter().map(|file| &file.path).chain([&after.path]);
        self.links.with(|links| links.add(inode, names));
        let index = &by.image.index;
        let mut names: Vec<_> = former.iter().flat_map(|file| self.all_names(by, file)).collect();
        names.extend(self.all_names(by, after));
        let listed = names
            .into_iter()
            .find(|file| verdict::provable_path(file).is_some_and(|path| index.by_path(path).is_some()));
        if let Some(listed) = listed {
            self.links.with(|links| links.add_listed(inode, listed.path));
        }
    }

    /// Another name of a file whose own is gone.
    pub(super) async fn other_name(&self, by: &By<'_, F::Case>, file: &FileRef) -> Option<FilePath> {
        if file.nlink == 0 {
            return None;
        }
        let inode = file.identity.inode();
        let names = self.links.with(|links| links.others(inode, &file.path));
        if let Some(name) = names.into_iter().next() {
            return Some(name);
        }
        let unsure = Inode { generation: 0, ..inode };
        for name in self.links.with(|links| links.others(unsure, &file.path)) {
            if self.facts.is_at(by.now.case, by.of, &name, file).await {
                return Some(name);
            }
        }
        None
    }
}
