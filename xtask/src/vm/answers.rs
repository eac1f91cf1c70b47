//! What SBOMs answer of the image's real root: how many of the files that can run each lists, and whether with their digests.
//!
//! Asked of Muster's own commands: `sbom generate` says what in the root can run, `sbom diff` compares a document with that, and
//! `sbom inspect` gives its coverage.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use super::image::Image;
use crate::{paths, shell};

/// `muster sbom inspect --json`.
#[derive(Debug, Deserialize)]
struct Said {
    coverage: String,
    numbers: Numbers,
}

#[derive(Debug, Deserialize)]
struct Numbers {
    files: u64,
    with_sha256: u64,
    with_weak: u64,
}

/// `muster sbom diff --json`, from the root to a document.
#[derive(Debug, Deserialize)]
struct Diff {
    files: Files,
}

#[derive(Debug, Deserialize)]
struct Files {
    removed: Vec<String>,
    changed: Vec<Change>,
}

/// A file that the document lists, and the strongest digest that it has of it; empty without one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Change {
    path: String,
    after: String,
}

/// Of the files that can run, those that a document lists.
#[derive(Debug, Default, PartialEq, Eq)]
struct Answers {
    listed: u64,
    /// … and their SHA-256 is the document's.
    sha256: u64,
    /// … and the SHA-1 or MD5 that it has in place of it is the file's.
    weak: u64,
    /// … without a digest.
    without: u64,
    /// … with another digest.
    different: Vec<Change>,
}

impl Answers {
    /// `digest` gives a file's digest by an algorithm.
    fn new(
        can_run: u64,
        diff: Diff,
        digest: impl Fn(&str, &str) -> anyhow::Result<String>,
    ) -> anyhow::Result<Self> {
        let Files { removed, changed } = diff.files;
        let mut answers = Self { listed: can_run - removed.len() as u64, ..Self::default() };
        answers.sha256 = answers.listed - changed.len() as u64;
        for change in changed {
            match change.after.split_once(':') {
                None => answers.without += 1,
                Some((algorithm @ ("sha1" | "md5"), hex)) if digest(&change.path, algorithm)? == hex => {
                    answers.weak += 1;
                }
                Some(_) => answers.different.push(change),
            }
        }
        Ok(answers)
    }

    fn row(&self, name: &str, said: &Said, can_run: u64) -> String {
        let Numbers { files, with_sha256, with_weak } = said.numbers;
        let matched = self.sha256 + self.weak;
        let percent = |part: u64| 100 * part / can_run.max(1);
        format!(
            "{name:<24} {:<8} {files:>6} {with_sha256:>8} {with_weak:>5}   {:>6} ({:>3} %) {matched:>6} ({:>3} %) {:>5} {:>7} {:>9}\n",
            said.coverage,
            self.listed,
            percent(self.listed),
            percent(matched),
            self.weak,
            self.without,
            self.different.len(),
        )
    }
}

/// Prints what the image's own SBOMs and those of another Debian 12 image answer of the root.
///
/// The image's own are of this very root: no digest may be another. The others are of packages that may be older or newer.
pub(super) fn print(image: &Image) -> anyhow::Result<()> {
    let root = super::directory().join("root");
    remove(&root)?;
    fs::create_dir_all(&root)?;
    let debugfs =
        shell::find("debugfs").context("debugfs is missing; `cargo xtask setup --for vm` installs it")?;
    // Without root it cannot give files to their owners, and says so for each.
    let dump = format!("rdump / {}", root.display());
    let said =
        shell::command(debugfs, ["-R", &dump]).arg(image.root()).output().context("running debugfs")?;
    ensure!(
        root.join("usr/bin").is_dir(),
        "debugfs unpacked no root: {}",
        String::from_utf8_lossy(&said.stderr)
    );
    let whole = root.with_extension("spdx.json");
    shell::quiet(muster("generate").arg(&root).arg("--output").arg(&whole))?;
    let can_run = inspect(&whole)?.numbers.files;

    println!("\n{can_run} files of the image's root can run; what SBOMs answer of them:");
    println!(
        "{:<24} {:<8} {:>6} {:>8} {:>5}   {:>14} {:>14} {:>5} {:>7} {:>9}",
        "SBOM", "coverage", "files", "SHA-256", "weak", "listed", "match", "weak", "without", "different"
    );
    let answers = |name: &str, file: &Path| -> anyhow::Result<Answers> {
        let said = inspect(file)?;
        let diff = diff(&whole, file)?;
        let answers = Answers::new(can_run, diff, |path, algorithm| digest(&root, path, algorithm))?;
        print!("{}", answers.row(name, &said, can_run));
        Ok(answers)
    };
    for format in ["spdx", "syft"] {
        let file = image.directory.join(format!("{format}-json.json"));
        let own = answers(&format!("the image's own, {format}"), &file)?;
        ensure!(
            own.different.is_empty() && own.sha256 > 0,
            "{}: made of this root, but it has another digest of {:?}",
            file.display(),
            own.different
        );
    }
    let [spdx, syft, cdx] = ["spdx", "syft", "cdx"].map(|format| {
        let name = format!("web.{format}.json");
        let file = paths::test_data().join("sbom").join(&name);
        answers(&name, &file).with_context(|| format!("{}: needed beside the checkout", file.display()))
    });
    agree(&spdx?, &syft?, &cdx?)?;
    remove(&root)
}

/// Three documents of one image, by one syft, answer alike, but for two things.
///
/// * syft-json also has what package databases record of files, and so names files that syft did not look at: the second name of a
///   hard link (`uncompress`, `perl5.36.0`), which it takes for no file. SPDX does not have those.
/// * CycloneDX of this version lists no file.
fn agree(spdx: &Answers, syft: &Answers, cdx: &Answers) -> anyhow::Result<()> {
    let is_strong = |change: &&Change| change.after.starts_with("sha256:");
    let by_sha256 = |answers: &Answers| {
        (answers.sha256, answers.different.iter().filter(is_strong).cloned().collect::<Vec<_>>())
    };
    let recorded = |answers: &Answers| {
        answers.weak + answers.different.iter().filter(|change| !is_strong(change)).count() as u64
    };
    ensure!(
        by_sha256(spdx) == by_sha256(syft) && spdx.listed + recorded(syft) == syft.listed + recorded(spdx),
        "SPDX and syft-json of one image answer differently:\n{spdx:?}\n{syft:?}"
    );
    ensure!(*cdx == Answers::default(), "CycloneDX by syft lists files after all: {cdx:?}");
    Ok(())
}

fn muster(command: &str) -> Command {
    shell::command(paths::release("muster"), ["sbom", command])
}

fn inspect(document: &Path) -> anyhow::Result<Said> {
    let text = shell::output(muster("inspect").arg(document).arg("--json"))?;
    serde_json::from_str(&text).context("what `muster sbom inspect --json` printed")
}

fn diff(first: &Path, second: &Path) -> anyhow::Result<Diff> {
    let output = muster("diff").args([first, second]).arg("--json").output().context("running muster")?;
    // 1: they differ.
    if !matches!(output.status.code(), Some(0 | 1)) {
        bail!("muster sbom diff {}: {}", second.display(), String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("what `muster sbom diff --json` printed")
}

/// SHA-1 or MD5 of a file of the root, by coreutils.
fn digest(root: &Path, path: &str, algorithm: &str) -> anyhow::Result<String> {
    let file: PathBuf = root.join(path.trim_start_matches('/'));
    let text = shell::output(&mut shell::command(format!("{algorithm}sum"), [file]))?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}

fn remove(directory: &Path) -> anyhow::Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("removing {}", directory.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_file_is_counted_once() {
        let change = |path: &str, after: &str| Change { path: path.into(), after: after.into() };
        let diff = Diff {
            files: Files {
                removed: vec!["/not/listed".into()],
                changed: vec![
                    change("/md5", "md5:01"),
                    change("/sha1", "sha1:02"),
                    change("/none", ""),
                    change("/other", "sha256:03"),
                ],
            },
        };
        let answers = Answers::new(10, diff, |path, algorithm| {
            Ok(if (path, algorithm) == ("/md5", "md5") { "01".into() } else { "ff".into() })
        })
        .unwrap();
        let different = vec![change("/sha1", "sha1:02"), change("/other", "sha256:03")];
        let expected = Answers { listed: 9, sha256: 5, weak: 1, without: 1, different };
        assert_eq!(answers, expected);

        // The same by SPDX, which does not have what is recorded only.
        let different = vec![change("/other", "sha256:03")];
        let spdx = Answers { listed: 7, sha256: 5, weak: 0, without: 1, different };
        let none = Answers::default();
        agree(&spdx, &expected, &none).unwrap();
        assert!(agree(&Answers { listed: 8, ..spdx }, &expected, &none).is_err());
        assert!(agree(&none, &expected, &none).is_err() && agree(&expected, &expected, &expected).is_err());
    }
}
