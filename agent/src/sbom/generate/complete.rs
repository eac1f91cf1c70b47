//! Completing an SBOM: all that another one names and that is there, and what it lacks.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::document::{Document, Listed};
use super::owners::Package;
use crate::event::FilePath;
use crate::sbom::ImageIndex;

/// Named one by one at most.
const SHOWN: usize = 20;

/// The SBOM to complete is of another image, or the files were changed since.
#[derive(Debug, thiserror::Error)]
#[error(
    "the SBOM to complete has another digest for {} file(s): it is of another image, or they were changed since:{}",
    .0.len(),
    shown(.0)
)]
pub struct Contradiction(Vec<String>);

fn shown(paths: &[String]) -> String {
    let more = if paths.len() > SHOWN { "\n  …" } else { "" };
    paths.iter().take(SHOWN).map(|path| format!("\n  {}", FilePath::from(&**path))).collect::<String>() + more
}

/// Adds what `base` names. Its packages own what it says they own; other files keep the owner that was found for them. A file of which
/// it has a digest, and which was not found, would be attested for when it comes back: it is added only if it is `hidden`, so that
/// nobody has looked. Gives the others.
pub(super) fn complete(
    document: &mut Document,
    base: &ImageIndex,
    hidden: impl Fn(&Path) -> bool,
) -> Result<Vec<String>, Contradiction> {
    let wrong: Vec<_> = document
        .files
        .iter()
        .filter(|listed| {
            let (Some(file), Some(entry)) = (&listed.file, base.by_path(listed.path.as_bytes())) else {
                return false;
            };
            // What a package manager recorded may differ: a configuration file that was changed since.
            let sha1 = entry.weak().filter(|_| !entry.is_recorded()).and_then(|weak| weak.sha1);
            entry.sha256().is_some_and(|sha256| sha256 != file.sha256)
                || sha1.is_some_and(|sha1| sha1 != file.sha1)
        })
        .map(|listed| format!("/{}", listed.path))
        .collect();
    if !wrong.is_empty() {
        return Err(Contradiction(wrong));
    }
    let numbers = take_over(&mut document.packages, base);
    let mut listed_here = vec![false; base.len()];
    for listed in &mut document.files {
        if let Some(entry) = base.by_path(listed.path.as_bytes()) {
            if let Some(here) = usize::try_from(entry.id()).ok().and_then(|id| listed_here.get_mut(id)) {
                *here = true;
            }
            listed.owner = entry.package().and_then(|owner| numbers.get(owner)).copied().or(listed.owner);
        }
    }
    let mut gone = Vec::new();
    for (entry, _) in base.entries().zip(listed_here).filter(|(_, here)| !here) {
        // Paths of documents are text.
        let path = String::from_utf8_lossy(&entry.path().as_bytes()[1..]).into_owned();
        let has_digest = entry.sha256().is_some() || entry.weak().is_some();
        if has_digest && !hidden(Path::new(&path)) {
            gone.push(path);
            continue;
        }
        let owner = entry.package().and_then(|owner| numbers.get(owner)).copied();
        let stated = entry.sha256();
        document.files.push(Listed { path: path.into(), file: None, stated, owner, layer: None });
    }
    Ok(gone)
}

/// Adds the packages of `base`, and gives the number of each by its label. One that was found here, too, has its package URL as the
/// base has it, which may say more (`upstream`).
fn take_over(packages: &mut Vec<Package>, base: &ImageIndex) -> HashMap<String, u32> {
    let of = |package: &Package| label(&package.name, &package.version);
    let numbered = || (0_u32..).zip(packages.iter());
    let found: HashMap<_, _> =
        numbered().map(|(number, package)| ((of(package), same(&package.purl)), number)).collect();
    let mut numbers: HashMap<_, _> = numbered().map(|(number, package)| (of(package), number)).collect();
    let mut added = HashSet::new();
    for package in base.packages() {
        let (label, purl) = (label(package.name, package.version), package.purl.unwrap_or_default());
        if let Some(found) = found.get(&(label.clone(), same(purl))) {
            if let Some(found) = usize::try_from(*found).ok().and_then(|number| packages.get_mut(number)) {
                purl.clone_into(&mut found.purl);
            }
        } else if (!purl.is_empty() || !numbers.contains_key(&label)) && added.insert((label.clone(), purl)) {
            numbers.entry(label).or_insert(u32::try_from(packages.len()).unwrap_or(u32::MAX));
            let [name, version, purl] = [package.name, package.version, purl].map(str::to_owned);
            packages.push(Package { name, version, purl });
        }
    }
    numbers
}

/// What tells packages of one name and version apart: the type and the architecture of their package URLs.
fn same(purl: &str) -> (String, String) {
    let (path, qualifiers) = purl.split_once('?').unwrap_or((purl, ""));
    let architecture = qualifiers.split('&').find_map(|qualifier| qualifier.strip_prefix("arch="));
    (path.split('/').next().unwrap_or_default().to_owned(), architecture.unwrap_or_default().to_owned())
}

/// As [`Entry::package`](crate::sbom::Entry::package) names a package.
fn label(name: &str, version: &str) -> String {
    if version.is_empty() { name.to_owned() } else { format!("{name} {version}") }
}
