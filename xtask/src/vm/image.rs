//! The image under test: a real Debian root, its SBOM by syft, attested by a signer that is not ours. Made once per recipe.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::setup::{debian, python};
use crate::{paths, shell};

/// Packages beyond a minimal Debian.
const PACKAGES: &str = "nginx,python3,initramfs-tools";
/// One more, by apt: debootstrap does not know which package provides what some of its dependencies name.
const MORE: &str = "npm";
/// Below `/usr/share/nodejs`, what Debian's npm depends on and never loads: compilers, and tables of theirs. It is 14,000 files, and each
/// agent that starts in a machine reads an SBOM of all files.
const LESS: [&str; 11] = [
    "@babel",
    "@types",
    "@webassemblyjs",
    "caniuse-lite",
    "core-js",
    "core-js-pure",
    "es-abstract",
    "eslint",
    "lodash-es",
    "regenerate-unicode-properties",
    "webpack",
];
/// Rises when the steps below change.
const RECIPE: u32 = 3;

/// A finished image.
pub(crate) struct Image {
    /// `root.ext4`, `attestations/`, `key.pub`, `image-digest`.
    pub(crate) directory: PathBuf,
}

impl Image {
    /// The image of the present recipe; made if it is not there.
    pub(crate) fn get() -> anyhow::Result<Self> {
        let suite = suite(&fs::read_to_string("/etc/os-release").context("/etc/os-release")?);
        let requirements = fs::read(python::requirements()).context("tests/requirements.txt")?;
        let signer = fs::read(signer()).context("tests/attest.py")?;
        let recipe = format!("{RECIPE} {suite} {PACKAGES} {MORE} {} {}", hex(&requirements), hex(&signer));
        let directory = paths::cache().join("image").join(&hex(recipe.as_bytes())[..16]);
        if !directory.exists() {
            make(&suite, &directory).context("making the image under test")?;
        }
        Ok(Self { directory })
    }

    /// The root file system.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.join("root.ext4")
    }
}

fn signer() -> PathBuf {
    paths::root().join("tests/attest.py")
}

/// The agent is built on this machine and runs in the image: on Debian the image is of the same release, so that the C library is
/// no older.
fn suite(release: &str) -> String {
    let field = |name: &str| release.lines().find_map(|l| l.strip_prefix(name)).map(|v| v.trim_matches('"'));
    match (field("ID="), field("VERSION_CODENAME=")) {
        (Some("debian"), Some(codename)) => codename.to_owned(),
        _ => "bookworm".to_owned(),
    }
}

fn make(suite: &str, directory: &Path) -> anyhow::Result<()> {
    eprintln!("image under test: Debian {suite} with {PACKAGES},{MORE}");
    let building = directory.with_extension("building");
    if building.exists() {
        shell::quiet(&mut as_root("rm", &["-rf", "--one-file-system"], &building)?)?;
    }
    fs::create_dir_all(&building)?;
    let root = building.join("root");
    let mirror = debian::mirror()?.main;
    let mut debootstrap =
        as_root("debootstrap", &["--variant=minbase", &format!("--include={PACKAGES}"), suite], &root)?;
    let log = building.join("debootstrap.log");
    let out = fs::File::create(&log)?;
    shell::run(debootstrap.arg(&mirror).stdout(out.try_clone()?).stderr(out.try_clone()?))
        .with_context(|| format!("see {}", log.display()))?;
    for args in [&["update"][..], &["install", "--yes", "--no-install-recommends", MORE]] {
        let mut apt = as_root("chroot", &[], &root)?;
        shell::run(apt.arg("apt-get").args(args).stdout(out.try_clone()?).stderr(out.try_clone()?))
            .with_context(|| format!("see {}", log.display()))?;
    }
    let less = LESS.map(|name| Path::new("usr/share/nodejs").join(name));
    for part in ["var/cache/apt/archives", "var/lib/apt/lists"].map(PathBuf::from).iter().chain(&less) {
        shell::quiet(&mut as_root("rm", &["-rf"], &root.join(part))?)?;
    }
    shell::quiet(&mut as_root("mkdir", &[], &root.join("muster"))?)?;

    eprintln!("image under test: SBOMs by syft, of all files");
    let documents = [("spdx-json", "https://spdx.dev/Document"), ("syft-json", "https://syft.dev/bom")];
    let mut syft = Command::new(python::program("syft"));
    syft.args(["scan", "-q", &format!("dir:{}", root.display())])
        .env("SYFT_CHECK_FOR_APP_UPDATE", "false")
        .env("SYFT_FILE_METADATA_SELECTION", "all")
        .env("SYFT_FILE_METADATA_DIGESTS", "sha256");
    let mut attest = Command::new(python::program("python3"));
    let image = building.join("root.ext4");
    let size = megabytes(&root)? * 5 / 4 + 300;
    shell::quiet(
        as_root("mke2fs", &["-q", "-F", "-t", "ext4", "-d"], &root)?.arg(&image).arg(format!("{size}M")),
    )?;
    attest.arg(signer()).arg(&building).arg(format!("sha256:{}", hex(&fs::read(&image)?)));
    for (format, predicate_type) in documents {
        let file = building.join(format!("{format}.json"));
        syft.arg("-o").arg(format!("{format}={}", file.display()));
        attest.arg(format!("{predicate_type}={}", file.display()));
    }
    shell::quiet(&mut syft)?;
    shell::quiet(&mut attest)?;
    shell::quiet(&mut as_root("rm", &["-rf", "--one-file-system"], &root)?)?;
    fs::rename(&building, directory)?;
    Ok(())
}

/// Owners of files are part of an image, so making one takes root.
fn as_root(program: &str, args: &[&str], path: &Path) -> anyhow::Result<Command> {
    let file = shell::find(program)
        .with_context(|| format!("{program} is missing; `cargo xtask setup --for vm` installs it"))?;
    let mut command =
        if nix::unistd::geteuid().is_root() { Command::new(file) } else { shell::command("sudo", [file]) };
    command.args(args).arg(path);
    Ok(command)
}

fn megabytes(directory: &Path) -> anyhow::Result<u64> {
    let text = shell::output(&mut as_root("du", &["-sm"], directory)?)?;
    let number = text.split_whitespace().next().context("du printed nothing")?;
    number.parse().with_context(|| format!("expected a number from du, found {text:?}"))
}

/// SHA-256, 64 hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_of_the_hosts_release() {
        assert_eq!(suite("ID=debian\nVERSION_CODENAME=trixie\n"), "trixie");
        assert_eq!(suite("ID=\"debian\"\nVERSION_CODENAME=\"bookworm\"\n"), "bookworm");
        assert_eq!(suite("ID=fedora\n"), "bookworm");
    }
}
