//! bpf-linker: built once, into the cache. Its LLVM must not be older than the compiler's.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{paths, shell};

/// Version of bpf-linker.
pub(crate) const VERSION: &str = "0.13.0";
/// LLVM to build it with when no compiler asks for a newer one.
const LLVM: u32 = 22;

/// A bpf-linker that can link what a compiler with this LLVM makes: the one of the cache, else one on PATH.
pub(crate) fn find(llvm: u32) -> Option<PathBuf> {
    let own = root(major(llvm)).join("bin/bpf-linker");
    if own.is_file() {
        return Some(own);
    }
    let other = shell::find("bpf-linker")?;
    let version = shell::output(&mut shell::command(&other, ["--version"])).ok()?;
    let linked = shell::output(&mut shell::command("ldd", [&other])).ok()?;
    (version.trim() == format!("bpf-linker {VERSION}") && llvm_of(&linked)? >= llvm).then_some(other)
}

/// The LLVM to build it with for such a compiler.
pub(crate) fn major(llvm: u32) -> u32 {
    llvm.max(LLVM)
}

/// Packages that building it takes, with a file that tells that they are there.
pub(crate) fn packages(llvm: u32) -> Vec<(String, PathBuf)> {
    let major = major(llvm);
    let prefix = format!("/usr/lib/llvm-{major}");
    [
        (format!("llvm-{major}-dev"), format!("{prefix}/bin/llvm-config")),
        (format!("libpolly-{major}-dev"), format!("{prefix}/lib/libPolly.a")),
        ("libzstd-dev".into(), "/usr/include/zstd.h".into()),
        ("zlib1g-dev".into(), "/usr/include/zlib.h".into()),
        ("libxml2-dev".into(), "/usr/include/libxml2/libxml/parser.h".into()),
    ]
    .map(|(package, file): (String, String)| (package, PathBuf::from(file)))
    .into()
}

/// The command that builds it.
pub(crate) fn build(llvm: u32) -> Command {
    let major = major(llvm);
    let mut command = shell::command(
        "cargo",
        ["install", "bpf-linker", "--version", VERSION, "--locked", "--no-default-features", "--features"],
    );
    command.arg(format!("llvm-{major}")).arg("--root").arg(root(major));
    command.env("LLVM_PREFIX", format!("/usr/lib/llvm-{major}"));
    command
}

fn root(major: u32) -> PathBuf {
    paths::cache().join(Path::new(&format!("tools/bpf-linker-{VERSION}-llvm{major}")))
}

/// Major version of the libLLVM in `ldd`'s output.
fn llvm_of(ldd: &str) -> Option<u32> {
    let (_, rest) = ldd.split_once("libLLVM")?;
    let digits = rest.trim_start_matches(['.', 's', 'o', '-']);
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_of_a_linker() {
        assert_eq!(llvm_of("\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x7)"), Some(22));
        assert_eq!(llvm_of("\tlibLLVM-19.so => /usr/lib/libLLVM-19.so (0x7)"), Some(19));
        assert_eq!(llvm_of("\tlibc.so.6 => /lib/libc.so.6"), None);
    }

    #[test]
    fn never_older_than_the_compilers() {
        assert_eq!([major(21), major(22), major(23)], [22, 22, 23]);
    }
}
