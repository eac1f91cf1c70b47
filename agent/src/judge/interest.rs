//! Whether a changed file is one to judge: it is in the SBOM, or it is a program.

use memchr::memmem::find;

use super::change::By;
use super::{EXECUTABLE, FILE_TYPE, Facts, Judge, REGULAR};
use crate::event::{FilePath, FileRef, Start};
use crate::finding::Finding;
use crate::verdict;

/// Whether, and when, a changed file is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// It is data that the SBOM does not know.
    None,
    /// At once.
    Now,
    /// If its execute bit is still there in a while: nothing else says that it is a program.
    Later,
}

/// How code is called that nobody marks as executable.
const LIBRARY: &[u8] = b".so";
const MODULE: &[u8] = b".ko";

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|b| *b == b'/').next().unwrap_or_default()
}

/// `x.ko`, `x.ko.xz`.
fn is_module(path: &[u8]) -> bool {
    let name = file_name(path);
    let packed = [&b".xz"[..], b".gz", b".zst"].iter().find_map(|end| name.strip_suffix(*end));
    packed.unwrap_or(name).ends_with(MODULE)
}

/// What the dynamic linker reads: `ld.so.cache`, `ld.so.conf`, `ld.so.preload`, and what they are called while they are written.
const TOLD: [&[u8]; 3] = [b"cache", b"conf", b"preload"];

/// `x.so`, `x.so.1`. What the dynamic linker is told is data.
fn is_library(path: &[u8]) -> bool {
    let name = file_name(path);
    let told = |rest: &[u8]| TOLD.iter().any(|told| rest.starts_with(told)) && find(rest, b".so.").is_none();
    let is_linkers = name.strip_prefix(b"ld.so.").is_some_and(told);
    name.ends_with(LIBRARY) || !is_linkers && find(name, b".so.").is_some()
}

/// Below a directory from which kernel modules are loaded.
fn is_among_modules(path: &[u8]) -> bool {
    path.starts_with(b"/lib/modules/") || path.starts_with(b"/usr/lib/modules/")
}

impl<F: Facts, S: FnMut(Finding)> Judge<F, S> {
    /// `listed`: the name that the SBOM has for the file, if that is another one.
    pub(super) async fn interest(
        &self,
        by: &By<'_, F::Case>,
        file: &FileRef,
        listed: Option<&FilePath>,
    ) -> Interest {
        if file.mode & FILE_TYPE != REGULAR {
            return Interest::None;
        }
        if listed.is_some() {
            return Interest::Now;
        }
        if by.is_foreign() {
            return Interest::None;
        }
        if verdict::provable_path(file).is_some_and(|path| by.image.index.by_path(path).is_some()) {
            return Interest::Now;
        }
        let path = file.path.as_bytes();
        let is_executable = file.mode & EXECUTABLE != 0;
        match self.facts.start(by.now.case, &by.now.event.task, file).await {
            Some(Start::Program) => Interest::Now,
            // No loader takes it, but the kernel may.
            Some(Start::Object) if is_module(path) => Interest::Now,
            Some(Start::Object) => Interest::None,
            Some(Start::Data) if is_module(path) && is_among_modules(path) => Interest::Now,
            Some(Start::Data) if is_executable => Interest::Later,
            Some(Start::Data) => Interest::None,
            // It may have been loaded meanwhile.
            None if is_executable || is_library(path) || is_module(path) => Interest::Now,
            None => {
                self.metrics.file_unread();
                Interest::None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_by_its_name() {
        for (path, library, module) in [
            ("/usr/lib/libz.so", true, false),
            ("/usr/lib/libz.so.1.2.13", true, false),
            ("/usr/lib/x.so.d/readme", false, false),
            ("/lib/ld.so.1", true, false),
            ("/etc/ld.so.cache~", false, false),
            ("/tmp/ld.so.x.so.1", true, false),
            ("/tmp/ld.so.conf.so.1", true, false),
            ("/tmp/ld.so.cache.so", true, false),
            ("/tmp/resolv.so.conf", true, false),
            ("/usr/lib/modules/6.1/x.ko", false, true),
            ("/usr/lib/modules/6.1/x.ko.zst", false, true),
            ("/tmp/x.ko.txt", false, false),
            ("/tmp/x.xz", false, false),
            ("x.ko", false, true),
        ] {
            assert_eq!(
                (is_library(path.as_bytes()), is_module(path.as_bytes())),
                (library, module),
                "{path}"
            );
        }
    }
}
