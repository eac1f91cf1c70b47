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
    "the SBOM to complete has another SHA-256 for {} file(s): it is of another image, or they were changed since:{}",
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
            let expected = base.by_path(listed.path.as_bytes()).and_then(|entry| entry.sha256());
            let found = listed.file.as_ref().map(|file| file.sha256);
            expected.is_some() && expected != found
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
