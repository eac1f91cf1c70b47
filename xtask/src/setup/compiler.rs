//! The compiler of the kernel programs: any that has the source of its own standard library (`-Zbuild-std=core` needs it) and is
//! new enough. A rustup toolchain with `rust-src` comes first, the pinned one before others; else Debian's `rustc-web` with
//! `rust-web-src`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::shell;

/// The pinned toolchain, which builds everything else.
const PINNED: &str = include_str!("../../../rust-toolchain.toml");
/// Oldest compiler that builds the kernel crate: its minor version (`rust-version` in Cargo.toml).
const OLDEST: u32 = 95;
/// Newest LLVM that the pinned bpf-linker can be built against.
pub(crate) const NEWEST_LLVM: u32 = 23;

/// A compiler that can build the kernel programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compiler {
    /// The compiler.
    pub(crate) rustc: PathBuf,
    /// The cargo of the same toolchain, where it has one.
    pub(crate) cargo: Option<PathBuf>,
    /// Its LLVM's major version; bpf-linker's must not be older.
    pub(crate) llvm: u32,
    /// `rustc 1.96.0 (…)`.
    pub(crate) version: String,
}

impl Compiler {
    /// The first that fits.
    pub(crate) fn find() -> Option<Self> {
        candidates().iter().find_map(|rustc| Self::look(rustc))
    }

    /// The compiler at this path, if it has what is needed.
    fn look(rustc: &Path) -> Option<Self> {
        let sysroot = rustc.parent()?.parent()?;
        if !rustc.is_file() || !sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs").is_file() {
            return None;
        }
        // A compiler that does not run is as good as none.
        let text = shell::output(&mut shell::command(rustc, ["-vV"])).ok()?;
        let (version, minor, llvm) = versions(&text)?;
        let cargo =
            Some(rustc.with_file_name("cargo")).filter(|c| sysroot != Path::new("/usr") && c.is_file());
        (minor >= OLDEST && llvm <= NEWEST_LLVM).then(|| Self {
            rustc: rustc.to_owned(),
            cargo,
            llvm,
            version,
        })
    }
}

fn candidates() -> Vec<PathBuf> {
    let mut toolchains: Vec<PathBuf> = rustup_home()
        .and_then(|home| fs::read_dir(home.join("toolchains")).ok())
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().join("bin/rustc")))
        .collect();
    let pinned = format!("/{}-", channel());
    toolchains.sort_by_key(|path| (!path.to_string_lossy().contains(&pinned), path.clone()));
    toolchains.push("/usr/bin/rustc".into());
    toolchains
}

/// The version that `rust-toolchain.toml` pins.
pub(crate) fn channel() -> &'static str {
    let line = PINNED.lines().find_map(|line| line.strip_prefix("channel = \""));
    line.and_then(|rest| rest.strip_suffix('"')).expect("rust-toolchain.toml names a channel; a test says so")
}

fn rustup_home() -> Option<PathBuf> {
    std::env::var_os("RUSTUP_HOME").map(PathBuf::from).or_else(|| Some(std::env::home_dir()?.join(".rustup")))
}

/// From `rustc -vV`: first line, minor version, LLVM's major version.
fn versions(text: &str) -> Option<(String, u32, u32)> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
    let minor = field("release: 1.")?.split('.').next()?.parse().ok()?;
    let llvm = field("LLVM version: ")?.split('.').next()?.parse().ok()?;
    Some((text.lines().next()?.to_owned(), minor, llvm))
}

/// How to get a compiler on this machine.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Debian packages.
    Packages(&'static [&'static str]),
    /// The pinned toolchain's `rust-src`, by rustup.
    Rustup,
}

/// The command that installs it.
pub(crate) fn install() -> Command {
    shell::command(
        "rustup",
        ["toolchain", "install", channel(), "--profile", "minimal", "--component", "rust-src"],
    )
}

/// Rustup is there, to install a compiler with.
pub(crate) fn check_rustup() -> anyhow::Result<()> {
    if shell::find("rustup").is_some() {
        return Ok(());
    }
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    bail!(without_rustup(&release))
}

/// What to do without rustup: it manages the toolchain that runs this, so it cannot be installed beneath it.
fn without_rustup(release: &str) -> String {
    // Debian has it since 13.
    let how = match debian(release) {
        Some(version) if version >= 13 => {
            "on this Debian: `apt-get install rustup` (with sudo), then open a new shell"
        }
        _ => "as https://rustup.rs says, then open a new shell",
    };
    format!(
        "rustup is missing, by which the pinned Rust {} and its library's source are installed; install it {how} and run this again",
        channel()
    )
}

/// Debian 12 has the packages in its security archive; elsewhere rustup has the compiler.
pub(crate) fn source() -> anyhow::Result<Source> {
    let release = fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
    Ok(source_for(&release))
}

fn source_for(release: &str) -> Source {
    if debian(release) == Some(12) {
        Source::Packages(&["rustc-web", "rust-web-src"])
    } else {
        Source::Rustup
    }
}

/// The version of a Debian, by its os-release.
fn debian(release: &str) -> Option<u32> {
    let value =
        |key: &str| release.lines().find_map(|line| line.strip_prefix(key)).map(|v| v.trim_matches('"'));
    (value("ID=") == Some("debian")).then(|| value("VERSION_ID=")?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_a_compiler() {
        let text = "rustc 1.96.0 (ac6 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(versions(text), Some(("rustc 1.96.0 (ac6 2026-05-25)".into(), 96, 22)));
        let nightly = "rustc 1.97.0-nightly (e 2026)\nrelease: 1.97.0-nightly\nLLVM version: 23.0.0\n";
        assert_eq!(versions(nightly).map(|(_, minor, llvm)| (minor, llvm)), Some((97, 23)));
        assert_eq!(versions("rustc 1.96.0\n"), None);
    }

    #[test]
    fn where_a_compiler_comes_from() {
        assert!(matches!(source_for("ID=debian\nVERSION_ID=\"12\"\n"), Source::Packages(_)));
        assert_eq!(source_for("ID=debian\nVERSION_ID=\"13\"\n"), Source::Rustup);
        assert_eq!(source_for("ID=fedora\nVERSION_ID=44\n"), Source::Rustup);
    }

    #[test]
    fn the_pinned_toolchain_is_new_enough_for_the_kernel_programs() {
        let minor = channel().split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
        assert!(minor >= Some(OLDEST), "{}", channel());
    }

    #[test]
    fn without_rustup_the_command_that_gives_it_is_named() {
        for (release, how) in [
            ("ID=debian\nVERSION_ID=\"13\"\n", "`apt-get install rustup`"),
            ("ID=debian\nVERSION_ID=\"12\"\n", "https://rustup.rs"),
            ("ID=fedora\nVERSION_ID=44\n", "https://rustup.rs"),
            ("", "https://rustup.rs"),
        ] {
            let said = without_rustup(release);
            assert!(said.contains(how) && said.contains(channel()), "{release:?}: {said}");
        }
    }
}
