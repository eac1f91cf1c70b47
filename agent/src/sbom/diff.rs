//! What two SBOMs say differently, whatever their formats.

use std::collections::BTreeMap;

use super::{Entry, ImageIndex, Package};
use crate::event::FilePath;

/// The difference between two SBOMs, everything in order of path or name.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Diff<'a> {
    /// Packages that only the second names.
    pub packages_added: Vec<Package<'a>>,
    /// Packages that only the first names.
    pub packages_removed: Vec<Package<'a>>,
    /// Packages that both name, each in one version.
    pub packages_changed: Vec<(Package<'a>, Package<'a>)>,
    /// Files that only the second lists.
    pub files_added: Vec<FilePath>,
    /// Files that only the first lists.
    pub files_removed: Vec<FilePath>,
    /// Files for which the two have different digests, or only one has any.
    pub files_changed: Vec<FileChange>,
}

/// A file whose digest differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// Its path.
    pub path: FilePath,
    /// Strongest digest of the first, `ALGORITHM:HEX`; empty without one.
    pub before: String,
    /// The same of the second.
    pub after: String,
}

impl Diff<'_> {
    /// Both say the same.
    pub fn is_empty(&self) -> bool {
        *self == Diff::default()
    }
}

/// Compares two SBOMs.
///
/// A package is known by its name and the type of its package URL (`deb`, `pypi`): a document may name several of one name.
pub fn diff<'a>(first: &'a ImageIndex, second: &'a ImageIndex) -> Diff<'a> {
    let mut diff = Diff::default();
    packages(first, second, &mut diff);
    for entry in first.entries() {
        let path = entry.path();
        match second.by_path(path.as_bytes()) {
            None => diff.files_removed.push(path),
            Some(other) => diff.files_changed.extend(changed(path, entry, other)),
        }
    }
    let is_new = |entry: &Entry<'_>| first.by_path(entry.path().as_bytes()).is_none();
    diff.files_added = second.entries().filter(is_new).map(Entry::path).collect();
    diff
}

fn changed(path: FilePath, first: Entry<'_>, second: Entry<'_>) -> Option<FileChange> {
    let weak = (first.weak().unwrap_or_default(), second.weak().unwrap_or_default());
    let differ = match (first.sha256(), second.sha256()) {
        (Some(a), Some(b)) => a != b,
        (None, None) => match (weak.0.sha1, weak.1.sha1, weak.0.md5, weak.1.md5) {
            (Some(a), Some(b), ..) => a != b,
            (.., Some(a), Some(b)) => a != b,
            _ => weak.0 != weak.1,
        },
        _ => true,
    };
    differ.then(|| FileChange { path, before: shown(first), after: shown(second) })
}

fn shown(entry: Entry<'_>) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let weak = entry.weak().unwrap_or_default();
    match (entry.sha256(), weak.sha1, weak.md5) {
        (Some(sha256), ..) => format!("sha256:{sha256}"),
        (None, Some(sha1), _) => format!("sha1:{}", hex(&sha1)),
        (None, None, Some(md5)) => format!("md5:{}", hex(&md5)),
        (None, None, None) => String::new(),
    }
}

fn packages<'a>(first: &'a ImageIndex, second: &'a ImageIndex, diff: &mut Diff<'a>) {
    type Named<'a> = BTreeMap<(&'a str, &'a str), [Vec<Package<'a>>; 2]>;
    let mut named: Named<'_> = BTreeMap::new();
    for (side, index) in [first, second].into_iter().enumerate() {
        for package in index.packages() {
            let kind = package.purl.and_then(|purl| purl.strip_prefix("pkg:")?.split('/').next());
            named.entry((package.name, kind.unwrap_or_default())).or_default()[side].push(package);
        }
    }
    for [mut before, mut after] in named.into_values() {
        // What both have in one version is the same, though the rest of its package URL may be spelled otherwise.
        before.retain(|package| {
            match after.iter().position(|other| other.version == package.version) {
                Some(same) => drop(after.swap_remove(same)),
                None => return true,
            }
            false
        });
        match (before.as_slice(), after.as_slice()) {
            ([old], [new]) => diff.packages_changed.push((*old, *new)),
            _ => {
                diff.packages_removed.append(&mut before);
                diff.packages_added.append(&mut after);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Builder, Digests};
    use super::*;
    use crate::finding::Sha256;

    fn index(packages: &[(&str, &str, &str)], files: &[(&str, u8)]) -> ImageIndex {
        let mut builder = Builder::default();
        for (name, version, purl) in packages {
            builder.package(&Package { name, version, purl: Some(purl) });
        }
        for (path, byte) in files {
            let sha256 = (*byte > 0).then_some(Sha256([*byte; 32]));
            builder.file(path.as_bytes(), Digests { sha256, ..Digests::default() }).expect("a good path");
        }
        builder.finish().expect("a good index")
    }

    #[test]
    fn added_removed_changed() {
        let first = index(
            &[
                ("a", "1", "pkg:deb/a@1"),
                ("b", "1", "pkg:deb/b@1"),
                ("c", "1", "pkg:deb/c"),
                ("k", "1", "pkg:rpm/k"),
            ],
            &[("/a", 1), ("/b", 1), ("/c", 1), ("/n", 0), ("/m", 0)],
        );
        let second = index(
            &[
                ("a", "2", "pkg:deb/a@2"),
                ("b", "1", "pkg:deb/b@1?arch=amd64"),
                ("b", "1", "pkg:pypi/b@1"),
                ("k", "2", "pkg:rpm/k"),
                ("k", "3", "pkg:rpm/k"),
            ],
            &[("./a", 2), ("/b", 1), ("/d", 1), ("/n", 0), ("/m", 1)],
        );
        let diff = diff(&first, &second);
        let names = |list: &[Package<'_>]| {
            list.iter().map(|p| format!("{} {}", p.name, p.version)).collect::<Vec<_>>()
        };
        assert_eq!(names(&diff.packages_added), ["b 1", "k 2", "k 3"]);
        assert_eq!(names(&diff.packages_removed), ["c 1", "k 1"]);
        let changed: Vec<_> = diff.packages_changed.iter().map(|(a, b)| (a.version, b.version)).collect();
        assert_eq!(changed, [("1", "2")]);
        assert_eq!(diff.files_added, [FilePath::from("/d")]);
        assert_eq!(diff.files_removed, [FilePath::from("/c")]);
        let changed: Vec<_> =
            diff.files_changed.iter().map(|c| (c.path.to_string(), &c.before[..], &c.after[..])).collect();
        let (one, two) = (format!("sha256:{}", "01".repeat(32)), format!("sha256:{}", "02".repeat(32)));
        assert_eq!(changed, [("/a".to_owned(), &one[..], &two[..]), ("/m".to_owned(), "", &one[..])]);
        assert!(!diff.is_empty() && super::diff(&first, &first).is_empty());
    }
}
