//! Completing an SBOM: all that another one names, and what it lacks.

use rustc_hash::FxHashMap;

use super::document::{Document, Listed};
use super::dpkg::Package;
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
    paths.iter().take(SHOWN).map(|path| format!("\n  {path}")).collect::<String>() + more
}

/// Adds what `base` names. Its packages own what it says they own; other files keep the owner that was found for them.
pub(super) fn complete(document: &mut Document, base: &ImageIndex) -> Result<(), Contradiction> {
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
    let mut numbers = FxHashMap::default();
    for (number, package) in (0_u32..).zip(&document.packages) {
        numbers.insert(label(&package.name, &package.version), number);
    }
    for package in base.packages() {
        let next = u32::try_from(document.packages.len()).unwrap_or(u32::MAX);
        numbers.entry(label(package.name, package.version)).or_insert_with(|| {
            document.packages.push(Package {
                name: package.name.to_owned(),
                version: package.version.to_owned(),
                purl: package.purl.unwrap_or_default().to_owned(),
            });
            next
        });
    }
    let mut listed_here = vec![false; base.len()];
    for listed in &mut document.files {
        if let Some(entry) = base.by_path(listed.path.as_bytes()) {
            if let Some(here) = usize::try_from(entry.id()).ok().and_then(|id| listed_here.get_mut(id)) {
                *here = true;
            }
            listed.owner = entry.package().and_then(|owner| numbers.get(owner)).copied().or(listed.owner);
        }
    }
    for (entry, _) in base.entries().zip(listed_here).filter(|(_, here)| !here) {
        // Paths of documents are text.
        let path = String::from_utf8_lossy(&entry.path().as_bytes()[1..]).into_owned();
        let owner = entry.package().and_then(|owner| numbers.get(owner)).copied();
        let stated = entry.sha256();
        document.files.push(Listed { path: path.into(), file: None, stated, owner, layer: None });
    }
    Ok(())
}

/// As [`Entry::package`](crate::sbom::Entry::package) names a package.
fn label(name: &str, version: &str) -> String {
    if version.is_empty() { name.to_owned() } else { format!("{name} {version}") }
}
