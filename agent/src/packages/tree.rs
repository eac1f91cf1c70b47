//! The files of a root: of one directory, or of a stack of overlayfs layers as overlayfs would show them.
//!
//! Only real directories are gone into: a symbolic link of one layer may mean what another layer has, and databases are
//! where they are said to be.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::rc::Rc;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use super::Files;

/// Names taken of one directory.
const NAMES: usize = 200_000;

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name; those that are not UTF-8 are of no database.
    pub name: String,
    /// It is a directory.
    pub is_dir: bool,
}

/// Directories of one path, topmost layer first.
type Stack = Rc<Vec<OwnedFd>>;

/// The files below one or several roots.
#[derive(Debug)]
pub struct Tree {
    directories: RefCell<HashMap<String, Stack>>,
}

impl Tree {
    /// The files below a directory.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn directory(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self::of(vec![open(path, flags, Mode::empty())?]))
    }

    /// A stack of layers, topmost first, each a path from `root` (the host's, where the runtime mounted them).
    ///
    /// # Errors
    /// One cannot be opened; the text says which.
    pub fn layers<'a>(root: &Path, layers: impl IntoIterator<Item = &'a Path>) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let root = open(root, flags, Mode::empty())?;
        // Runtimes name layers by links of their own, which may not lead out of the host's root.
        let how = OpenHow::new()
            .flags(flags)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let open = |path: &Path| {
            openat2(&root, path, how)
                .map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("{}: {e}", path.display())))
        };
        Ok(Self::of(layers.into_iter().map(open).collect::<io::Result<_>>()?))
    }

    fn of(roots: Vec<OwnedFd>) -> Self {
        let directories = [(String::new(), Rc::new(roots))].into_iter().collect();
        Self { directories: RefCell::new(directories) }
    }

    /// The directory at a path, in every layer that has a part in it.
    fn stack(&self, path: &str) -> io::Result<Stack> {
        if let Some(have) = self.directories.borrow().get(path) {
            return Ok(Rc::clone(have));
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut found = Vec::new();
        for layer in self.stack(parent)?.iter() {
            let Some((fd, stat)) = look(layer, name)? else { continue };
            // A whiteout, or something that is no directory, hides what lies below.
            if kind(&stat) != SFlag::S_IFDIR {
                break;
            }
            let opaque = is_opaque(&fd);
            found.push(fd);
            if opaque {
                break;
            }
        }
        let found = Rc::new(found);
        self.directories.borrow_mut().insert(path.to_owned(), Rc::clone(&found));
        Ok(found)
    }

    fn find(&self, path: &str) -> io::Result<Option<(OwnedFd, FileStat)>> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        for layer in self.stack(parent)?.iter() {
            if let Some((fd, stat)) = look(layer, name)? {
                let whiteout = kind(&stat) == SFlag::S_IFCHR && stat.st_rdev == 0;
                return Ok((!whiteout).then_some((fd, stat)));
            }
        }
        Ok(None)
    }
}

impl Files for Tree {
    fn read(&self, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some((fd, stat)) = self.find(path)? else { return Ok(None) };
        if kind(&stat) != SFlag::S_IFREG {
            return Err(io::Error::other("expected a regular file"));
        }
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let file = File::from(open(by_descriptor(&fd).as_str(), flags, Mode::empty())?);
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        let mut bytes = Vec::with_capacity(usize::try_from(size.min(limit)).unwrap_or(0));
        let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        if read as u64 > limit {
            return Err(io::Error::other(format!(
                "expected at most {limit} bytes, found {}",
                size.max(limit + 1)
            )));
        }
        Ok(Some(bytes))
    }

    fn list(&self, path: &str) -> io::Result<Vec<Entry>> {
        let (mut seen, mut out) = (HashSet::new(), Vec::new());
        for layer in self.stack(path)?.iter() {
            for entry in fs::read_dir(by_descriptor(layer))? {
                let entry = entry?;
                if seen.len() >= NAMES {
                    return Err(io::Error::other(format!(
                        "more than {NAMES} names, which no real database has"
                    )));
                }
                let (kind, name) = (entry.file_type()?, entry.file_name().into_vec());
                if !seen.insert(name.clone()) || kind.is_char_device() {
                    continue;
                }
                if let Ok(name) = String::from_utf8(name) {
                    out.push(Entry { name, is_dir: kind.is_dir() });
                }
            }
        }
        Ok(out)
    }

    fn is_link(&self, path: &str) -> bool {
        self.find(path).ok().flatten().is_some_and(|(_, stat)| kind(&stat) == SFlag::S_IFLNK)
    }
}

/// One name of a directory, opened without effects; links are not followed.
fn look(directory: &OwnedFd, name: &str) -> io::Result<Option<(OwnedFd, FileStat)>> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).resolve(
        ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_SYMLINKS,
    );
    match openat2(directory.as_fd(), name, how) {
        Ok(fd) => {
            let stat = fstat(&fd)?;
            Ok(Some((fd, stat)))
        }
        Err(nix::errno::Errno::ENOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT
}

fn by_descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The directory hides those of the layers below (`ovl_is_opaquedir`; `user.` for mounts with `userxattr`).
fn is_opaque(directory: &OwnedFd) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"].into_iter().any(|name| {
        let mut value = [0; 1];
        rustix::fs::getxattr(by_descriptor(directory), name, &mut value).is_ok_and(|n| n == 1)
            && value == *b"y"
    })
}
