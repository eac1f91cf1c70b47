//! Debian's archive, through apt, with lists and a cache of our own: the machine's own lists stay as they are, no root is needed,
//! and each package is checked against the archive's signature.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::{paths, shell};

/// Keys of Debian's archive.
pub(super) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A private view of the archive.
pub(crate) struct Archive {
    directory: PathBuf,
}

/// Where the machine's own apt sources take Debian from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mirror {
    /// The main archive.
    pub(crate) main: String,
    /// The security archive.
    pub(crate) security: String,
}

impl Archive {
    /// Reads the package lists of `suites`; a suite whose name ends with `-security` comes from the security archive.
    pub(crate) fn open(suites: &[&str]) -> anyhow::Result<Self> {
        let directory = paths::cache().join("apt");
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let mirror = mirror()?;
        let sources: String = suites
            .iter()
            .map(|suite| {
                let uri = if suite.ends_with("-security") { &mirror.security } else { &mirror.main };
                format!("deb [signed-by={KEYRING}] {uri} {suite} main\n")
            })
            .collect();
        fs::write(directory.join("sources.list"), sources)?;
        let archive = Self { directory };
        shell::run(archive.apt("apt-get").args(["-q", "update"]))?;
        Ok(archive)
    }

    /// Every package name of these suites that matches an extended regular expression.
    pub(crate) fn names(&self, pattern: &str) -> anyhow::Result<Vec<String>> {
        let text = shell::output(self.apt("apt-cache").args(["search", "--names-only", pattern]))?;
        Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }

    /// Fetches packages, with their signatures checked, and unpacks them in `to`.
    pub(crate) fn unpack(&self, packages: &[String], to: &Path) -> anyhow::Result<()> {
        let fetched = self.directory.join("fetched");
        if fetched.exists() {
            fs::remove_dir_all(&fetched)?;
        }
        fs::create_dir_all(&fetched)?;
        shell::run(self.apt("apt-get").args(["-q", "download"]).args(packages).current_dir(&fetched))?;
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(&fetched)? {
            shell::quiet(shell::command("dpkg", ["-x"]).arg(entry?.path()).arg(to))?;
        }
        fs::remove_dir_all(&fetched)?;
        Ok(())
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (key, value) in [
            ("Dir::Etc::sourcelist", self.directory.join("sources.list")),
            ("Dir::Etc::sourceparts", "-".into()),
            ("Dir::State::Lists", self.directory.join("lists")),
            ("Dir::Cache", self.directory.join("cache")),
        ] {
            command.arg("-o").arg(format!("{key}={}", value.display()));
        }
        // The cache belongs to whoever runs this; apt's own user could not write to it.
        command.args(["-o", "APT::Sandbox::User=", "-o", "Acquire::Languages=none"]);
        command.args([
            "-o",
            "Acquire::Retries=3",
            "-o",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false",
            // A mirror may lag: what is fetched here are kernels to test on, and their signatures are checked all the same.
            "-o",
            "Acquire::Check-Valid-Until=false",
        ]);
        command
    }
}

/// The Debian mirror of this machine's apt sources.
pub(crate) fn mirror() -> anyhow::Result<Mirror> {
    let lists = paths::cache().join("apt/none");
    fs::create_dir_all(lists.join("partial"))?;
    // Empty lists: apt then names the release files of each source.
    let state = format!("Dir::State::Lists={}", lists.display());
    let text = shell::output(Command::new("apt-get").args(["-o", &state, "--print-uris", "update"]))
        .context("asking apt for this machine's package sources")?;
    let Some(mirror) = mirror_in(&text) else {
        bail!(
            "expected a Debian archive among this machine's apt sources (URI ending in /debian), found none in:\n{text}\
             add one, or fetch the kernels of `xtask/src/setup/kernels.rs` to .cache/kernels by hand"
        )
    };
    Ok(mirror)
}

/// Reads `'URI/dists/SUITE/InRelease' …` lines.
fn mirror_in(text: &str) -> Option<Mirror> {
    let uris: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix('\'')?.split_once("/dists/"))
        .map(|(uri, _)| uri.trim_end_matches('/'))
        .collect();
    let main = uris.iter().find(|uri| uri.ends_with("/debian"))?;
    let security = uris.iter().find(|uri| uri.ends_with("/debian-security"));
    Some(Mirror {
        main: (*main).to_owned(),
        security: security.map_or_else(|| format!("{main}-security"), |uri| (*uri).to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_read_from_apt() {
        let text = "'https://x.example/node/dists/nodistro/InRelease' a 0 \n\
                    'http://m.example/debian/dists/bookworm/InRelease' b 0 \n\
                    'http://s.example/debian-security/dists/bookworm-security/InRelease' c 0 \n";
        let expected = Mirror {
            main: "http://m.example/debian".into(),
            security: "http://s.example/debian-security".into(),
        };
        assert_eq!(mirror_in(text), Some(expected));
        let only_main = "'http://m.example/debian/dists/sid/InRelease' b 0 \n";
        assert_eq!(mirror_in(only_main).unwrap().security, "http://m.example/debian-security");
        assert_eq!(mirror_in("'http://m.example/ubuntu/dists/noble/InRelease' b 0 \n"), None);
    }
}
