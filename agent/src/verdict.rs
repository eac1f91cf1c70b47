//! What the attested SBOM says of one observed file: one pure function, one table of tests.
//!
//! The first row that fits counts:
//!
//! | when | verdict | severity |
//! | --- | --- | --- |
//! | the content is not known | `undetermined` | medium |
//! | path in the SBOM, SHA-256 equal | `attested` | silent |
//! | path in the SBOM, SHA-256 differs | `modified` | high |
//! | path in the SBOM, only SHA-1 or MD5 there, equal | `attested_weak` | info |
//! | path in the SBOM, only SHA-1 or MD5 there, differs | `modified` | high |
//! | path in the SBOM, only SHA-1 or MD5 there, which could not be computed | `undetermined` | medium |
//! | path in the SBOM, no usable digest there; made or changed after the start, or just now and executable; not empty | `modified` | high |
//! | path in the SBOM, no usable digest there | `path_only` | info |
//! | path in the SBOM, SHA-256 equal, but set-user-id, set-group-id or given capabilities by a change | `modified` | high |
//! | SHA-256 in the SBOM at another path; a file of an image layer that has several names, untouched since | `attested` | silent |
//! | SHA-256 in the SBOM at another path, or at none, and not that of nothing | `relocated` | by what happened ([`severity`]) |
//! | in a read-only layer, untouched since; a package that the SBOM names owns it by its database, which has the same digest or none | `package_derived` | info |
//! | made or changed after the start (see [`Observation::fresh`]), or just now | `unauthorized` | by what happened |
//! | else | `unlisted` | medium |
//! | `attested`, `attested_weak`, `path_only` or `package_derived` by these rows, but the content may not be what ran ([`Doubt`]) | `undetermined` | medium |
//! | `modified` or `unauthorized` by these rows, but written by the host's package manager (see [`Observation::update`]) | `updated` | info if its database agrees; low if nobody saw who wrote it; else medium |
//!
//! * The path's row comes before the digest's: `/bin/a` overwritten with the bytes of `/bin/b` is `modified`, not
//!   `relocated`, because the name that people and scripts call no longer gives what was signed for it.
//! * A content that may not be what ran is enough to accuse the file, and not to acquit it: `relocated` is at least medium then, and
//!   whatever is worse stays. So does `updated`: only a package manager's session can come to that.
//! * A path that is cut, outside the task's root, or only the caller's spelling is a label without proof: it matches no
//!   path of the SBOM, so the best it can be is `relocated`.
//! * Below coverage `full` the SBOM cannot say that a file of the image does not belong there: `unlisted` is info.
//!   Below `owned` (packages only) it cannot say it of any file: `unauthorized` falls by one step.
//! * An SBOM that may be of another platform ([`of_unproven`]) is for information: `modified` and `unlisted` are info,
//!   `unauthorized` is at most medium, for another platform's image has other content at the same paths.
//! * A package database is not signed, so it never makes a file `attested`, and what it contradicts is judged as if there
//!   were none.

use std::sync::Arc;

use crate::event::{
    Action, Content, Doubt, FilePath, FileRef, Observation, Owner, PackageDigest, Place, Proof, Update,
    WeakDigests,
};
use crate::finding::{Coverage, Severity, Sha256, Verdict};
use crate::sbom::{Entry, ImageIndex};

mod elsewhere;
mod granted;
mod replaced;
mod severity;
#[cfg(test)]
mod tests;

use granted::granted;
pub use replaced::replaced;

/// Any of the execute bits.
const EXECUTABLE: u32 = 0o111;

/// What is said of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// How bad it is. `attested` is reported nowhere.
    pub severity: Severity,
    /// So little that it is counted and not reported.
    pub quiet: bool,
    /// One sentence: what was expected, what was found. Empty for `attested`.
    pub reason: String,
    /// The digest that the SBOM has at this path (`modified`).
    pub expected_sha256: Option<Sha256>,
    /// The path at which the SBOM has this digest (`relocated`).
    pub attested_path: Option<FilePath>,
    /// Package that owns the file, by the SBOM.
    pub package: Option<Arc<str>>,
    /// The SBOM's file that is in use by this (`attested`, `attested_weak`, `relocated`): [`Entry::id`].
    pub used: Option<u32>,
}

impl Judgement {
    /// Nothing to report.
    pub fn is_silent(&self) -> bool {
        self.verdict == Verdict::Attested
    }

    /// It is reported.
    pub fn is_told(&self) -> bool {
        !self.is_silent() && !self.quiet
    }

    /// A judgement that says no more than its reason.
    pub fn new(verdict: Verdict, severity: Severity, reason: String) -> Self {
        Self {
            verdict,
            severity,
            quiet: false,
            reason,
            expected_sha256: None,
            attested_path: None,
            package: None,
            used: None,
        }
    }

    fn of(mut self, entry: Entry<'_>) -> Self {
        self.package = entry.package().map(Arc::from);
        self
    }
}

/// The path by which a file may be found in an SBOM; `None` when the path proves nothing.
pub fn provable_path(file: &FileRef) -> Option<&[u8]> {
    let doubtful = file.truncated || file.unreachable || file.by_name || file.private;
    let proven = !doubtful && file.place != Place::Memfd;
    (proven && file.path.as_bytes().first() == Some(&b'/')).then(|| file.path.as_bytes())
}

/// The SBOM, or the package that owns the file, has nothing better than SHA-1 or MD5 for it, so these must be computed
/// beside the SHA-256.
pub fn wants_weak(index: &ImageIndex, file: &FileRef, owner: Option<&Owner>) -> bool {
    let of_owner = owner.and_then(|owner| owner.digest);
    if matches!(of_owner, Some(PackageDigest::Md5(_) | PackageDigest::Sha1(_))) {
        return true;
    }
    provable_path(file).and_then(|path| index.by_path(path)).is_some_and(|e| {
        e.sha256().is_none() && e.weak().is_some_and(|w| w.sha1.is_some() || w.md5.is_some())
    })
}

/// A package database may say who owns the file: it lies in a read-only layer, as it was put there, and its path is at
/// none of the SBOM.
pub fn wants_owner(action: Action, file: &FileRef, fresh: bool, index: &ImageIndex) -> bool {
    file.place == Place::ImageLayer
        && !fresh
        && !matches!(action, Action::Change(_))
        && provable_path(file).is_some_and(|path| index.by_path(path).is_none())
}

/// What the image's SBOM says of an observed file.
pub fn verdict(observation: &Observation, index: &ImageIndex) -> Judgement {
    let judgement = by_sbom(observation, index);
    let judgement = match &observation.update {
        Some(update) => updated(judgement, update),
        None => judgement,
    };
    match observation.content {
        Content::Known { doubt: Some(doubt), .. } => doubted(judgement, doubt),
        _ => judgement,
    }
}

/// What is left of a judgement when the content may not be what ran.
fn doubted(mut judgement: Judgement, doubt: Doubt) -> Judgement {
    let doubt = doubt.as_str();
    match judgement.verdict {
        Verdict::Attested | Verdict::AttestedWeak | Verdict::PackageDerived | Verdict::PathOnly => {
            let found = match judgement.verdict {
                Verdict::PathOnly => "nothing speaks against the content that was found",
                _ => "the content that was found is as attested",
            };
            let reason = format!("{found}, but it may not be what ran: {doubt}");
            let package = judgement.package.take();
            Judgement { package, ..Judgement::new(Verdict::Undetermined, Severity::Medium, reason) }
        }
        Verdict::Relocated => {
            let reason = format!("{}; it may not be what ran: {doubt}", judgement.reason);
            Judgement {
                severity: judgement.severity.max(Severity::Medium),
                quiet: false,
                reason,
                ..judgement
            }
        }
        _ => judgement,
    }
}

/// What the host's package manager changed is `updated` where it would be `modified` or `unauthorized`.
pub fn updated(judgement: Judgement, update: &Update) -> Judgement {
    if !matches!(judgement.verdict, Verdict::Modified | Verdict::Unauthorized) {
        return judgement;
    }
    let Update { proof, package, unseen } = update;
    let package = package.clone();
    let of = package.as_deref().map_or_else(|| "its package".to_owned(), |p| format!("the package {p}"));
    let (severity, says) = match proof {
        Proof::Agrees => (Severity::Info, format!("and {of} says so, too")),
        Proof::Bookkeeping => (Severity::Info, "and the file is part of its bookkeeping".to_owned()),
        Proof::Differs => (Severity::Medium, format!("but {of} should have another content here")),
        Proof::NoDigest => (Severity::Medium, format!("but {of} has no digest of it")),
        Proof::Unowned => (Severity::Medium, "but no package owns this file".to_owned()),
    };
    let (severity, whence) = match unseen {
        true => (
            severity.max(Severity::Low),
            "by its package database the host's package manager wrote it, before the agent started",
        ),
        false => (severity, "the host's package manager did it"),
    };
    Judgement {
        verdict: Verdict::Updated,
        severity,
        reason: format!("{}; {whence}, {says}", judgement.reason),
        package: package.or(judgement.package),
        ..judgement
    }
}

fn by_sbom(observation: &Observation, index: &ImageIndex) -> Judgement {
    let path = provable_path(&observation.file).and_then(|path| index.by_path(path));
    let (sha256, weak) = match &observation.content {
        Content::Known { sha256, weak, .. } => (sha256, weak.as_deref()),
        Content::Undetermined(why) => {
            let reason = match &path {
                Some(_) => {
                    format!("the SBOM has a file here, but what it holds could not be determined: {why}")
                }
                None => format!("the file's content could not be determined: {why}"),
            };
            let judgement = Judgement::new(Verdict::Undetermined, Severity::Medium, reason);
            return match path {
                Some(entry) => judgement.of(entry),
                None => judgement,
            };
        }
    };
    match path {
        Some(entry) => at_path(observation, entry, sha256, weak),
        None if *sha256 == Sha256::EMPTY => empty(),
        None => match index.by_sha256(sha256).next() {
            Some(entry) if elsewhere::is_other_name(observation) => attested(observation, entry),
            Some(entry) => relocated(observation, entry),
            None if index.has_content(sha256) => elsewhere::without_path(observation),
            None => unknown(observation, index.coverage(), sha256, weak),
        },
    }
}

/// A file change took a name away. `None` when the SBOM has no file there.
pub fn removed(file: &FileRef, to: Option<&FilePath>, index: &ImageIndex) -> Option<Judgement> {
    // The tracepoints have only the caller's spelling of what is gone; the SBOM's own spelling is proof enough.
    let path = match file.by_name {
        true => Some(file.path.as_bytes()).filter(|path| path.first() == Some(&b'/') && !file.truncated)?,
        false => provable_path(file)?,
    };
    let entry = index.by_path(path)?;
    let reason = match to {
        Some(to) => format!("the SBOM has a file here, which was renamed to {to}"),
        None => "the SBOM has a file here, which was removed".to_owned(),
    };
    let mut judgement = Judgement::new(Verdict::Modified, Severity::High, reason).of(entry);
    judgement.expected_sha256 = entry.sha256();
    Some(judgement)
}

/// A directory, or a link to one, was renamed. What the SBOM has below its name is not there any more, and what it has below `to`, if
/// anything, was replaced.
pub fn moved(from: &FileRef, to: &FilePath, index: &ImageIndex) -> [Option<Judgement>; 2] {
    let from_path = match from.by_name {
        true => Some(from.path.as_bytes()).filter(|path| path.first() == Some(&b'/') && !from.truncated),
        false => provable_path(from),
    };
    let judge = |path: &[u8], reason: String| {
        index.has_below(path).then(|| Judgement::new(Verdict::Modified, Severity::High, reason))
    };
    [
        from_path.and_then(|path| {
            judge(path, format!("the SBOM has files in this directory, which was renamed to {to}"))
        }),
        Some(to.as_bytes()).filter(|path| path.first() == Some(&b'/')).and_then(|path| {
            let reason = "the SBOM has files in this directory, and another one was put in its place";
            judge(path, reason.to_owned())
        }),
    ]
}

/// What is left of a judgement when nothing proves that the SBOM is of this platform. That content is in it still says that the
/// builder signed that content for this image; that content is not in it says little.
pub fn of_unproven(mut judgement: Judgement) -> Judgement {
    let most = match judgement.verdict {
        Verdict::Attested | Verdict::Relocated => return judgement,
        Verdict::Unauthorized | Verdict::Undetermined => Severity::Medium,
        _ => Severity::Info,
    };
    judgement.severity = judgement.severity.min(most);
    judgement.reason.push_str("; the SBOM may be of another platform");
    judgement
}

/// A change is no use.
fn in_use(observation: &Observation, entry: Entry<'_>) -> Option<u32> {
    (!matches!(observation.action, Action::Change(_))).then_some(entry.id())
}

fn at_path(
    observation: &Observation,
    entry: Entry<'_>,
    sha256: &Sha256,
    weak: Option<&WeakDigests>,
) -> Judgement {
    if let Some(expected) = entry.sha256() {
        if expected == *sha256 {
            return attested(observation, entry);
        }
        let reason = format!("the SBOM has SHA-256 {}… here, found {}…", short(&expected), short(sha256));
        let mut judgement = Judgement::new(Verdict::Modified, Severity::High, reason).of(entry);
        judgement.expected_sha256 = Some(expected);
        return judgement;
    }
    let listed = entry.weak().unwrap_or_default();
    let (name, equal) = match (weak, listed.sha1, listed.md5) {
        (_, None, None) => return without_digest(observation, entry, sha256),
        (Some(found), Some(expected), _) => ("SHA-1", found.sha1 == expected),
        (Some(found), None, Some(expected)) => ("MD5", found.md5 == expected),
        (None, _, _) => {
            let reason = "the SBOM has only a weak digest for this file, and that one could not be computed";
            return Judgement::new(Verdict::Undetermined, Severity::Medium, reason.to_owned()).of(entry);
        }
    };
    if equal {
        let reason = format!("the {name} is the SBOM's, which has no SHA-256 for this file");
        let mut judgement = Judgement::new(Verdict::AttestedWeak, Severity::Info, reason).of(entry);
        judgement.used = in_use(observation, entry);
        judgement
    } else {
        let reason = format!("the SBOM has another {name} here; found SHA-256 {}…", short(sha256));
        Judgement::new(Verdict::Modified, Severity::High, reason).of(entry)
    }
}

/// The SBOM has the path and no digest of it, so only the time speaks: what is as old as the image may be the image's. An empty file
/// holds nothing that could be held against it, nor does a change of what cannot be run as it is: logs are written all day.
fn without_digest(observation: &Observation, entry: Entry<'_>, sha256: &Sha256) -> Judgement {
    let is_data = matches!(observation.action, Action::Change(_)) && observation.file.mode & EXECUTABLE == 0;
    let judgement = match whence(observation).filter(|_| *sha256 != Sha256::EMPTY && !is_data) {
        Some(whence) => {
            let reason = format!("the SBOM has a file here but no digest for it, and {whence}");
            Judgement::new(Verdict::Modified, Severity::High, reason)
        }
        None => {
            let reason = "the SBOM has a file here but no digest for it, so its content cannot be judged";
            Judgement::new(Verdict::PathOnly, Severity::Info, reason.to_owned())
        }
    };
    judgement.of(entry)
}

/// The empty content is everybody's: that the SBOM has it somewhere says nothing of this file, and nothing can run of it.
fn empty() -> Judgement {
    let reason = "the file is empty, so there is nothing in it that could run".to_owned();
    Judgement { quiet: true, ..Judgement::new(Verdict::Unlisted, Severity::Info, reason) }
}

/// Why the file is not what the image brought, if that is so.
fn whence(observation: &Observation) -> Option<&'static str> {
    let changed = matches!(observation.action, Action::Change(_));
    match (observation.file.place, changed) {
        _ if !observation.fresh && !changed => None,
        (Place::Memfd, _) => Some("it exists in memory only"),
        (_, true) => Some("it was made or changed just now"),
        (Place::UpperLayer, false) => Some("it was made or changed after the container started"),
        (Place::Tmpfs, false) => Some("it lies on a file system in memory"),
        (Place::Disk | Place::ImageLayer, false) => {
            Some("it was made or changed after the image was attested")
        }
    }
}

/// The content is as signed. An SBOM says nothing of modes, but a program that changes hands by becoming set-user-id is
/// a change that no signature covers.
fn attested(observation: &Observation, entry: Entry<'_>) -> Judgement {
    if let Some(granted) = granted(observation) {
        let reason = format!("the content is the SBOM's, but the file {granted}");
        return Judgement::new(Verdict::Modified, Severity::High, reason).of(entry);
    }
    let mut judgement = Judgement::new(Verdict::Attested, Severity::Info, String::new());
    judgement.used = in_use(observation, entry);
    judgement
}

fn relocated(observation: &Observation, entry: Entry<'_>) -> Judgement {
    let file = &observation.file;
    let severity = severity::of_copy(observation);
    let attested_path = entry.path();
    let mut reason = format!("the SBOM has this content at {attested_path}, found at {}", name(file));
    if let Some(granted) = granted(observation) {
        reason = format!("{reason}, and the file {granted}");
    }
    let mut judgement =
        Judgement::new(Verdict::Relocated, severity.unwrap_or(Severity::Info), reason).of(entry);
    judgement.quiet = severity.is_none();
    judgement.attested_path = Some(attested_path);
    judgement.used = in_use(observation, entry);
    judgement
}

/// What the package databases of the image's read-only layers say of a file that the SBOM does not have; else a part of
/// the reason, if there is something to say.
fn derived(
    observation: &Observation,
    sha256: &Sha256,
    weak: Option<&WeakDigests>,
) -> Result<Judgement, Option<String>> {
    let owner =
        observation.owner.as_ref().filter(|_| observation.file.place == Place::ImageLayer).ok_or(None)?;
    let package = &owner.package;
    let says = match owner.digest {
        None => "which has no digest of it".to_owned(),
        Some(digest) => match digest.agrees(sha256, weak) {
            Some(true) => format!("which has this {}", digest.name()),
            Some(false) => {
                return Err(Some(format!("{package} owns it, but has another {} of it", digest.name())));
            }
            None => {
                return Err(Some(format!("{package} owns it, but its {} was not computed", digest.name())));
            }
        },
    };
    let reason = format!(
        "the SBOM names the package {package} and not its files; by the package database of the image's read-only \
         layers this is one of them, {says}"
    );
    let mut judgement = Judgement::new(Verdict::PackageDerived, Severity::Info, reason);
    judgement.package = Some(Arc::clone(package));
    Ok(judgement)
}

fn unknown(
    observation: &Observation,
    coverage: Coverage,
    sha256: &Sha256,
    weak: Option<&WeakDigests>,
) -> Judgement {
    let Some(whence) = whence(observation) else {
        let contradiction = match derived(observation, sha256, weak) {
            Ok(judgement) => return judgement,
            Err(contradiction) => contradiction,
        };
        let (severity, reason) = match coverage {
            Coverage::Full => (
                Severity::Medium,
                "neither the path nor the content is in the SBOM, which says that it is complete",
            ),
            Coverage::Owned => (
                Severity::Info,
                "neither the path nor the content is in the SBOM, which lists only files that a package owns",
            ),
            Coverage::Packages => {
                (Severity::Info, "the SBOM lists packages and no files, so it cannot answer for this one")
            }
        };
        let reason = match contradiction {
            Some(contradiction) => format!("{reason}; {contradiction}"),
            None => reason.to_owned(),
        };
        return Judgement::new(Verdict::Unlisted, severity, reason);
    };
    let what = match coverage {
        Coverage::Full | Coverage::Owned => "neither the path nor the content is in the SBOM",
        Coverage::Packages => "the SBOM lists packages and no files",
    };
    let severity = severity::of_new(observation, coverage);
    Judgement::new(Verdict::Unauthorized, severity, format!("{what}, and {whence}"))
}

fn short(sha256: &Sha256) -> String {
    let mut text = sha256.to_string();
    text.truncate(12);
    text
}

fn name(file: &FileRef) -> String {
    match (file.path.is_empty(), file.truncated) {
        (true, _) => "a path that is not known".to_owned(),
        (false, true) => format!("…/{} (path too long)", file.path),
        (false, false) => file.path.to_string(),
    }
}
