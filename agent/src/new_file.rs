//! Files that appear whole or not at all, and never in another's place.
//!
//! A new file is made under a name that nobody can foresee, in the directory where it belongs, and takes its own name when it is
//! whole. So whoever may write to the directory too (`/tmp`) cannot lead the writing elsewhere by a link that is there already. What
//! is no file (a device, a pipe) is written into: a file that took its name would destroy it.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

/// Where a new file is, and where it shall be.
#[derive(Debug)]
struct Place {
    directory: OwnedFd,
    partial: OsString,
    name: OsString,
}

impl Place {
    /// Removes what is not whole. Once it has its own name, there is nothing to remove: nobody else has a file of this name.
    fn remove(&self) {
        let _gone_already = unlinkat(&self.directory, &*self.partial, UnlinkatFlags::NoRemoveDir);
    }
}

/// Removes a file that is not whole yet, from another thread; later it does nothing.
#[derive(Clone, Debug)]
pub(crate) struct Remover(Option<Arc<Place>>);

impl Remover {
    /// Removes it.
    pub(crate) fn remove(&self) {
        if let Some(place) = &self.0 {
            place.remove();
        }
    }
}

/// A file that is being written. Dropping it removes it.
#[derive(Debug)]
pub(crate) struct NewFile {
    file: File,
    /// `None`: a device or a pipe, which is written as it is.
    place: Option<Arc<Place>>,
}

impl NewFile {
    /// Begins one that shall be at `path`, with this mode (less what the process's mask takes away), or with that of the file that it
    /// replaces. A symbolic link to a file means that file, which is replaced where it is.
    ///
    /// # Errors
    /// The system refuses, or `path` is a link to nothing or one that another user has put there.
    pub(crate) fn create(path: &Path, mode: u32) -> io::Result<Self> {
        let there = match path.metadata() {
            Ok(metadata) if !metadata.is_file() || is_descriptor(path) => return Self::open(path),
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let target = target(path, there.is_some())?;
        let name = target.file_name().ok_or(ErrorKind::IsADirectory)?.to_owned();
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let directory = OwnedFd::from(
            File::options().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(directory)?,
        );
        let partial = unforeseeable()?;
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let opened = openat(&directory, &*partial, flags, Mode::from_bits_truncate(mode))?;
        let new = Self { file: opened.into(), place: Some(Arc::new(Place { directory, partial, name })) };
        if let Some(before) = there {
            let mode = before.permissions().mode() & 0o777;
            new.file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        }
        Ok(new)
    }

    fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(path)?;
        // Whoever may write to the directory could have put a link to a file there meanwhile.
        if file.metadata()?.is_file() && !is_descriptor(path) {
            return Err(io::Error::other("it was a device or a pipe, and is a file now"));
        }
        Ok(Self { file, place: None })
    }

    /// The file, to write to.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// What removes it from another thread, for a signal.
    pub(crate) fn remover(&self) -> Remover {
        Remover(self.place.clone())
    }

    /// Gives it its name, in the place of what is there.
    ///
    /// # Errors
    /// The system refuses; it is removed then.
    pub(crate) fn replace(self) -> io::Result<File> {
        if let Some(place) = &self.place {
            renameat(&place.directory, &*place.partial, &place.directory, &*place.name)?;
        }
        self.file.try_clone()
    }

    /// Gives it its name, if nothing else has it.
    ///
    /// # Errors
    /// The name is taken, or the system refuses; it is removed then.
    pub(crate) fn keep(self) -> io::Result<File> {
        if let Some(place) = &self.place {
            linkat(&place.directory, &*place.partial, &place.directory, &*place.name, AtFlags::empty())?;
        }
        self.file.try_clone()
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        self.remover().remove();
    }
}

/// The process's own descriptors by name: a file behind one was opened by the caller, who wants it written there.
fn is_descriptor(path: &Path) -> bool {
    let names = ["/dev/stdout", "/dev/stderr"];
    names.iter().any(|name| path == Path::new(name))
        || path.starts_with("/dev/fd")
        || path.starts_with("/proc")
}

/// Where the file itself is.
fn target(path: &Path, exists: bool) -> io::Result<PathBuf> {
    let Some(link) = path.symlink_metadata().ok().filter(Metadata::is_symlink) else {
        return Ok(path.to_owned());
    };
    if !exists {
        return Err(io::Error::new(ErrorKind::NotFound, "it is a symbolic link to nothing"));
    }
    // As the kernel does with `fs.protected_symlinks` (`may_follow_link`), whether it is on or not.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let owners = [nix::unistd::geteuid().as_raw(), parent.metadata()?.uid()];
    if !owners.contains(&link.uid()) {
        let reason = "it is a symbolic link that another user has put there";
        return Err(io::Error::new(ErrorKind::PermissionDenied, reason));
    }
    path.canonicalize()
}

fn unforeseeable() -> io::Result<OsString> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("the system has no random numbers"))?;
    Ok(OsStr::new(&format!(".{:032x}.partial", u128::from_be_bytes(random))).to_owned())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(path: &Path) -> io::Result<()> {
        let new = NewFile::create(path, 0o644)?;
        new.file().write_all(b"new")?;
        new.replace().map(drop)
    }

    fn names(directory: &Path) -> Vec<OsString> {
        let mut names: Vec<_> = directory.read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_appears_whole_with_its_mode() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let new = NewFile::create(&at("a"), 0o600).unwrap();
        new.file().write_all(b"half").unwrap();
        assert!(!at("a").exists());
        drop(new);
        assert_eq!(names(place.path()), [""; 0], "nothing is left of what was not finished");
        let new = NewFile::create(&at("a"), 0o600).unwrap();
        new.file().write_all(b"whole").unwrap();
        new.replace().unwrap();
        assert_eq!(std::fs::read(at("a")).unwrap(), b"whole");
        assert_eq!(at("a").metadata().unwrap().permissions().mode() & 0o777, 0o600);
        write(&at("a")).unwrap();
        assert_eq!(at("a").metadata().unwrap().permissions().mode() & 0o777, 0o600, "it keeps its mode");
        let error = NewFile::create(&at("a"), 0o600).unwrap().keep().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        NewFile::create(&at("b"), 0o600).unwrap().keep().unwrap();
        assert_eq!(names(place.path()), ["a", "b"]);
    }

    #[test]
    fn a_link_means_its_file_and_a_foreign_or_dangling_one_nothing() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        std::fs::create_dir(at("real")).unwrap();
        std::fs::write(at("real/file"), "old").unwrap();
        symlink(at("real/file"), at("link")).unwrap();
        write(&at("link")).unwrap();
        assert!(at("link").symlink_metadata().unwrap().is_symlink());
        assert_eq!(std::fs::read(at("real/file")).unwrap(), b"new");
        symlink(at("none"), at("dangling")).unwrap();
        let error = write(&at("dangling")).unwrap_err();
        assert!(error.to_string().contains("link to nothing"), "{error}");
        assert!(!at("none").exists());
        assert!(
            nix::unistd::geteuid().is_root(),
            "needs root to make another's link: sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo test"
        );
        symlink(at("real/file"), at("foreign")).unwrap();
        std::os::unix::fs::lchown(at("foreign"), Some(65534), Some(65534)).unwrap();
        let error = write(&at("foreign")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert_eq!(names(&at("real")), ["file"]);
    }

    #[test]
    fn a_pipe_is_written_into_and_stays_one() {
        use std::io::Read as _;
        let place = tempfile::tempdir().unwrap();
        let pipe = place.path().join("pipe");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        let reader = {
            let pipe = pipe.clone();
            std::thread::spawn(move || {
                let mut text = String::new();
                File::open(pipe).unwrap().read_to_string(&mut text).unwrap();
                text
            })
        };
        write(&pipe).unwrap();
        assert_eq!(reader.join().unwrap(), "new");
        assert!(!pipe.metadata().unwrap().is_file());
        write(place.path()).unwrap_err();
        assert_eq!(names(place.path()), ["pipe"]);
    }
}
