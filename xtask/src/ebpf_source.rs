//! Where the compiled kernel programs lie, and which sources they were built from. Shared by `xtask build-ebpf`, which
//! writes object and stamp, and by the agent's build script, which embeds the object and refuses a stale one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// The object, below cargo's target directory.
pub(crate) const OBJECT: &str = "ebpf/bpfel-unknown-none/bpf/muster-ebpf";
/// The stamp, below cargo's target directory: [`digest`] of the sources that the object was built from.
pub(crate) const STAMP: &str = "ebpf/source.sha256";
/// What the object is built from, below the workspace's root.
pub(crate) const SOURCES: [&str; 4] =
    ["agent-ebpf/src", "agent-ebpf/Cargo.toml", "agent-common/src", "agent-common/Cargo.toml"];

/// SHA-256, in hexadecimal, over the names and contents of [`SOURCES`].
///
/// # Errors
/// A source that cannot be read; the error names it.
pub(crate) fn digest(root: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    SOURCES.iter().try_for_each(|source| collect(&root.join(source), &mut files))?;
    files.sort();
    let mut hash = Sha256::new();
    for file in &files {
        let content = fs::read(file).map_err(|error| named(file, &error))?;
        let name = file.strip_prefix(root).unwrap_or(file).as_os_str().as_encoded_bytes();
        for part in [name, &content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(|error| named(path, &error))? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
