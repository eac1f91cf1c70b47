//! Stock Debian kernels for the virtual machines.
//!
//! Pinned to a package where the archive still has it; Debian removes old builds of a series, and then the newest build of the
//! same series is taken. Either way apt checks it against the archive's signature.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::debian::Archive;
use crate::paths;

/// A series of kernels to test on.
#[derive(Debug)]
pub(crate) struct Series {
    /// `6.12`.
    pub(crate) name: &'static str,
    /// Hook flavour that the agent must choose there.
    pub(crate) flavour: &'static str,
    /// Where a scenario can come out differently that is run here if each kind is run where it can, as `suite` names it.
    /// `flavour`: this kernel stands for its flavour, `nowhere`: for all.
    pub(crate) differs: &'static str,
    suite: &'static str,
    /// Package names: before the version, pinned version, after it.
    packages: &'static [[&'static str; 3]],
}

/// All of them. 5.10 has no `bpf` in its LSM list.
pub(crate) const ALL: [Series; 4] = [
    Series {
        name: "5.10",
        flavour: "tracepoint",
        differs: "flavour",
        suite: "bullseye",
        packages: &[["linux-image-", "5.10.0-32", "-cloud-amd64"]],
    },
    Series {
        name: "6.1",
        flavour: "lsm",
        differs: "kernel",
        suite: "bookworm-security",
        packages: &[["linux-image-", "6.1.0-56", "-cloud-amd64"]],
    },
    Series {
        name: "6.12",
        flavour: "lsm",
        differs: "nowhere",
        suite: "bookworm-security",
        packages: &[["linux-image-", "6.12.117+deb12", "-cloud-amd64"]],
    },
    Series {
        name: "7.2",
        flavour: "lsm",
        differs: "kernel",
        suite: "sid",
        packages: &[
            ["linux-binary-", "7.2.13+deb14", "-cloud-amd64"],
            ["linux-modules-", "7.2.13+deb14", "-cloud-amd64"],
        ],
    },
];

impl Series {
    /// The series of this name.
    pub(crate) fn named(name: &str) -> anyhow::Result<&'static Self> {
        let names = ALL.map(|s| s.name).join(", ");
        ALL.iter()
            .find(|s| s.name == name)
            .with_context(|| format!("unknown kernel {name:?}; expected one of: {names}"))
    }

    /// Where it is unpacked.
    pub(crate) fn directory(&self) -> PathBuf {
        paths::cache().join("kernels").join(self.name)
    }

    /// The kernel image.
    pub(crate) fn image(&self) -> PathBuf {
        self.directory().join("vmlinuz")
    }

    /// Unpacked and complete.
    pub(crate) fn ready(&self) -> bool {
        self.image().exists()
    }

    /// The file of a module, if this kernel has it as a module.
    pub(crate) fn module(&self, name: &str) -> anyhow::Result<Option<PathBuf>> {
        let wanted = [format!("{name}.ko"), format!("{name}.ko.xz")];
        find(&self.directory(), &|file| wanted.iter().any(|w| file == w))
    }

    fn fetch(&self, archive: &Archive) -> anyhow::Result<()> {
        let directory = self.directory();
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        let mut packages = Vec::new();
        for part in self.packages {
            packages.push(choose(part, self.name, &archive.names(&format!("^{}{}", part[0], self.name))?)?);
        }
        archive.unpack(&packages, &directory)?;
        let image = find(&directory, &|file| file.starts_with("vmlinuz"))?
            .with_context(|| format!("no vmlinuz in {}", packages.join(", ")))?;
        fs::write(directory.join("packages"), packages.join("\n"))?;
        // Last: it says that the rest is complete.
        fs::rename(image, self.image())?;
        Ok(())
    }
}

/// Fetches what is missing.
pub(crate) fn fetch_missing() -> anyhow::Result<()> {
    let missing: Vec<_> = ALL.iter().filter(|s| !s.ready()).collect();
    let suites: Vec<_> =
        missing.iter().map(|s| s.suite).collect::<std::collections::BTreeSet<_>>().into_iter().collect();
    let archive = Archive::open(&suites)?;
    missing
        .iter()
        .try_for_each(|series| series.fetch(&archive).with_context(|| format!("kernel {}", series.name)))
}

/// The pinned package if the archive has it, else the newest of the series.
fn choose(part: &[&str; 3], series: &str, names: &[String]) -> anyhow::Result<String> {
    let [before, pinned, after] = part;
    let exact = format!("{before}{pinned}{after}");
    if names.contains(&exact) {
        return Ok(exact);
    }
    let version = |name: &str| -> Option<Vec<u32>> {
        let middle = name.strip_prefix(before)?.strip_suffix(after)?;
        middle.strip_prefix(series)?.strip_prefix('.')?;
        middle
            .split(|c: char| !c.is_ascii_digit())
            .filter(|p| !p.is_empty())
            .map(|p| p.parse().ok())
            .collect()
    };
    let newest = names.iter().filter_map(|name| Some((version(name)?, name))).max();
    let (_, name) = newest
        .with_context(|| format!("the archive has neither {exact} nor another {before}{series}.*{after}"))?;
    eprintln!("  the archive no longer has {exact}; taking {name}");
    Ok(name.clone())
}

fn find(directory: &Path, wanted: &dyn Fn(&str) -> bool) -> anyhow::Result<Option<PathBuf>> {
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if let Some(found) = find(&entry.path(), wanted)? {
                return Ok(Some(found));
            }
        } else if kind.is_file() && entry.file_name().to_str().is_some_and(wanted) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_build_else_the_newest() {
        let part = ["linux-image-", "6.1.0-56", "-cloud-amd64"];
        let names = |list: &[&str]| list.iter().map(|n| format!("linux-image-{n}")).collect::<Vec<_>>();
        let both = names(&["6.1.0-56-cloud-amd64", "6.1.0-60-cloud-amd64"]);
        assert_eq!(choose(&part, "6.1", &both).unwrap(), "linux-image-6.1.0-56-cloud-amd64");
        let later = names(&[
            "6.1.0-9-cloud-amd64",
            "6.1.0-60-cloud-amd64",
            "6.1.0-60-cloud-amd64-dbg",
            "6.1.0-60-cloud-amd64-unsigned",
            "6.12.1-cloud-amd64",
        ]);
        assert_eq!(choose(&part, "6.1", &later).unwrap(), "linux-image-6.1.0-60-cloud-amd64");
        choose(&part, "6.1", &names(&["6.12.1-cloud-amd64"])).unwrap_err();
    }
}
