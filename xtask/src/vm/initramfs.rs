//! An initramfs of our own: a cpio archive (format "newc", as the kernel's `usr/gen_init_cpio.c` writes it) with busybox,
//! modules, and a script.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::shell;

/// An archive in the making.
#[derive(Default)]
pub(crate) struct Initramfs {
    archive: Vec<u8>,
    directories: BTreeSet<PathBuf>,
    entries: u32,
}

const DIRECTORY: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_777;

impl Initramfs {
    /// Adds a file; its directories come by themselves.
    pub(crate) fn file(&mut self, at: &str, content: &[u8], mode: u32) {
        self.parents(Path::new(at));
        self.entry(at, FILE | mode, content);
    }

    /// Adds a copy of a file.
    pub(crate) fn copy(&mut self, from: &Path, at: &str) -> anyhow::Result<()> {
        let content = fs::read(from).with_context(|| from.display().to_string())?;
        let mode = fs::metadata(from)?.permissions().mode() & 0o777;
        self.file(at, &content, mode);
        Ok(())
    }

    /// Adds a symbolic link.
    pub(crate) fn symlink(&mut self, at: &str, to: &str) {
        self.parents(Path::new(at));
        self.entry(at, SYMLINK, to.as_bytes());
    }

    /// Adds an empty directory.
    pub(crate) fn directory(&mut self, at: &str) {
        self.parents(&Path::new(at).join("x"));
    }

    /// Adds a program with the shared objects that it needs.
    pub(crate) fn program(&mut self, from: &Path, at: &str) -> anyhow::Result<()> {
        self.copy(from, at)?;
        for library in libraries(from)? {
            self.copy(&library, &library.to_string_lossy())?;
        }
        Ok(())
    }

    /// The archive's bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, b"");
        self.archive
    }

    fn parents(&mut self, file: &Path) {
        let Some(parent) = file.parent().filter(|p| p.parent().is_some()) else { return };
        if !self.directories.contains(parent) {
            self.parents(parent);
            self.entry(&parent.to_string_lossy(), DIRECTORY, b"");
            self.directories.insert(parent.to_owned());
        }
    }

    fn entry(&mut self, at: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let name = at.trim_start_matches('/');
        let size = |bytes: usize| u32::try_from(bytes).expect("no file of an initramfs has 4 GiB");
        let links = 1;
        let fields =
            [self.entries, mode, 0, 0, links, 0, size(content.len()), 0, 0, 0, 0, size(name.len() + 1), 0];
        self.archive.extend(b"070701");
        for field in fields {
            self.archive.extend(format!("{field:08X}").into_bytes());
        }
        self.archive.extend(name.as_bytes());
        self.archive.push(0);
        self.pad();
        self.archive.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.archive.resize(self.archive.len().next_multiple_of(4), 0);
    }
}

/// The shared objects of a program, the dynamic linker included; none for a static one.
pub(crate) fn libraries(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let out = shell::command("ldd", [program]).output().context("starting ldd")?;
    Ok(ldd(&String::from_utf8_lossy(&out.stdout)))
}

fn ldd(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_has_each_directory_once_and_is_aligned() {
        let mut made = Initramfs::default();
        made.file("/a/b/one", b"12345", 0o755);
        made.file("/a/b/two", b"", 0o644);
        made.symlink("/a/link", "b/one");
        let bytes = made.finish();
        assert_eq!(bytes.len() % 4, 0);
        let names: Vec<_> = names(&bytes);
        assert_eq!(names, ["a", "a/b", "a/b/one", "a/b/two", "a/link", "TRAILER!!!"]);
    }

    fn names(mut archive: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        while !archive.is_empty() {
            let field = |n: usize| {
                let digits = &archive[6 + 8 * n..14 + 8 * n];
                usize::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
            };
            let (size, name) = (field(6), field(11));
            names.push(String::from_utf8(archive[110..110 + name - 1].to_vec()).unwrap());
            archive = &archive[(110 + name).next_multiple_of(4) + size.next_multiple_of(4)..];
        }
        names
    }

    #[test]
    fn ldd_output() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld.so (0x3)\n";
        assert_eq!(ldd(text), [PathBuf::from("/lib/x/libc.so.6"), PathBuf::from("/lib64/ld.so")]);
        assert!(ldd("\tnot a dynamic executable\n").is_empty());
    }
}
