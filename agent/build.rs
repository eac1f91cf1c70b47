//! Finds the compiled kernel programs that `src/sensor/load.rs` embeds, and refuses a stale object.

use std::path::Path;

#[path = "../xtask/src/ebpf_source.rs"]
mod ebpf_source;

fn main() {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the agent is a folder of the workspace");
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir));
    let object = target.join(ebpf_source::OBJECT);
    let stamp = target.join(ebpf_source::STAMP);
    let sources = ebpf_source::SOURCES.map(|source| root.join(source));
    for path in sources.iter().chain([&object, &stamp]) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    match current(root, &object, &stamp) {
        Ok(()) => println!("cargo::rustc-env=MUSTER_EBPF_OBJECT={}", object.display()),
        Err(reason) => println!("cargo::error={reason}"),
    }
}

/// The object is there and was built from the sources as they are.
fn current(root: &Path, object: &Path, stamp: &Path) -> Result<(), String> {
    let build = "run `cargo xtask build-ebpf` (or, on a new machine, `cargo xtask setup`)";
    if !object.is_file() {
        return Err(format!("the kernel programs are not built ({} is missing): {build}", object.display()));
    }
    let expected = ebpf_source::digest(root).map_err(|error| error.to_string())?;
    let found = std::fs::read_to_string(stamp).unwrap_or_default();
    if found.trim() == expected {
        Ok(())
    } else {
        Err(format!("the kernel programs were built from other sources than these: {build}"))
    }
}
