//! Where things are.

use std::path::{Path, PathBuf};

/// The workspace.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

/// What set-up fetches and builds; git-ignored, survives `cargo clean`.
pub(crate) fn cache() -> PathBuf {
    root().join(".cache")
}

/// Real documents that tests and benchmarks take, beside the workspace.
pub(crate) fn test_data() -> PathBuf {
    root().parent().unwrap_or(Path::new("/")).join("shared/data")
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |set| root().join(set))
}

/// The release build of a program of this workspace.
pub(crate) fn release(program: &str) -> PathBuf {
    target().join("release").join(program)
}
