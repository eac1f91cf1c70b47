//! Files that decide what is believed: configuration, keys, trust roots, attestations. Nobody but root and the agent's user may be able
//! to change them, and none of them may hold the agent up.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc;

/// Others cannot remove or replace what is not their own in a directory with this bit (`S_ISVTX`).
const STICKY: u32 = 0o1000;

/// Why a file, or its directory, is refused.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A symbolic link could lead anywhere.
    #[error(
        "is a symbolic link; put the file itself here, or allow links that stay in this directory: attestation.allow = \
         [\"symlinks\"]"
    )]
    Symlink,
    /// A symbolic link that leads out of the directory.
    #[error("is a symbolic link that leads out of this directory; put the file itself here")]
    Escape,
    /// A directory on the way to where a link leads is open to others.
    #[error("leads through {}, which {reason}", directory.display())]
    Way {
        /// The directory.
        directory: PathBuf,
        /// What is wrong with it.
        reason: Box<FileError>,
    },
    /// Not a regular file.
    #[error("is not a regular file")]
    NotRegular,
    /// Others than root and the agent's user own it.
    #[error("belongs to uid {found}; expected 0 or {own}: chown it")]
    Owner {
        /// Its owner.
        found: u32,
        /// The agent's user.
        own: u32,
    },
    /// Others may write it.
    #[error(
        "has mode {0:04o}: others may write it; chmod go-w, or allow that: attestation.allow = [\"writable\"]"
    )]
    Writable(u32),
    /// Too large, by its size: not read.
    #[error("has {bytes} bytes, but at most {limit} are read{advice}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
        /// What to do.
        advice: &'static str,
    },
    /// The directory that it lies in is open to others.
    #[error("lies in {}, which {reason}", directory.display())]
    Lies {
        /// The directory.
        directory: PathBuf,
        /// What is wrong with it.
        reason: Box<FileError>,
    },
    /// It cannot be read.
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
}

impl FileError {
    /// The file is not there (any more).
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// What is allowed of the directory and its files beside the usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Symbolic links that stay in the directory.
    pub symlinks: bool,
    /// Others may write it.
    pub writable: bool,
}

/// Nobody but root and the agent's user can change it.
///
/// # Errors
/// Who can.
pub fn check(meta: &std::fs::Metadata, rules: Rules) -> Result<(), FileError> {
    let own = nix::unistd::geteuid().as_raw();
    if meta.uid() != 0 && meta.uid() != own {
        return Err(FileError::Owner { found: meta.uid(), own });
    }
    if meta.mode() & 0o022 != 0 && !rules.writable {
        return Err(FileError::Writable(meta.mode() & 0o7777));
    }
    Ok(())
}

/// Reads a regular file of at most `limit` bytes that nobody else can change. Links to it are followed: what is checked is the file
/// that they lead to, and the directory that it lies in.
///
/// # Errors
/// Why it is refused.
pub fn read(path: &Path, limit: u64, rules: Rules) -> Result<Vec<u8>, FileError> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        // A pipe must not hold the reader up.
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(FileError::NotRegular);
    }
    check(&meta, rules)?;
    // The opened file's own, not that of a link.
    let real = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    if let Some(directory) = real.parent().filter(|directory| directory.is_absolute()) {
        check_directory(directory, rules).map_err(|reason| FileError::Lies {
            directory: directory.to_owned(),
            reason: Box::new(reason),
        })?;
    }
    bounded(file, meta.len(), limit)
}

fn check_directory(directory: &Path, rules: Rules) -> Result<(), FileError> {
    let meta = std::fs::metadata(directory)?;
    check(&meta, Rules { writable: rules.writable || meta.mode() & STICKY != 0, ..rules })
}

/// All of a file that has `bytes`, at most `limit`.
///
/// # Errors
/// It is larger, or cannot be read.
pub fn bounded(file: File, bytes: u64, limit: u64) -> Result<Vec<u8>, FileError> {
    let too_large = |bytes| FileError::TooLarge { bytes, limit, advice: "" };
    if bytes > limit {
        return Err(too_large(bytes));
    }
    let mut content = Vec::with_capacity(usize::try_from(bytes).unwrap_or(0) + 1);
    file.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    match u64::try_from(content.len()) {
        Ok(read) if read <= limit => Ok(content),
        _ => Err(too_large(limit.saturating_add(1))),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const STRICT: Rules = Rules { symlinks: false, writable: false };

    #[test]
    fn what_others_can_change_or_what_may_hold_the_reader_up_is_refused() {
        assert!(
            nix::unistd::geteuid().is_root(),
            "root is needed to give a file away: run the tests as root"
        );
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        let mode =
            |name: &str, mode| fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        let get = |name: &str| read(&at(name), 4, STRICT).map_err(|error| error.to_string());
        fs::write(at("good"), "good").unwrap();
        symlink("good", at("link")).unwrap();
        assert_eq!((get("good").unwrap(), get("link").unwrap()), (b"good".to_vec(), b"good".to_vec()));

        // Nobody writes into it: whoever waited for that would wait for ever.
        nix::unistd::mkfifo(&at("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(get("pipe").unwrap_err().contains("not a regular file"));
        assert!(get(".").unwrap_err().contains("not a regular file"));
        fs::write(at("large"), "large").unwrap();
        assert!(get("large").unwrap_err().starts_with("has 5 bytes, but at most 4"));
        assert!(read(&at("none"), 4, STRICT).unwrap_err().is_gone());

        mode("good", 0o664);
        assert!(get("link").unwrap_err().contains("mode 0664"));
        read(&at("good"), 4, Rules { writable: true, ..STRICT }).unwrap();
        mode("good", 0o644);
        nix::unistd::chown(&at("good"), Some(12345.into()), None).unwrap();
        assert!(get("good").unwrap_err().contains("belongs to uid 12345"));
        nix::unistd::chown(&at("good"), Some(0.into()), None).unwrap();

        // Whoever may write the directory can put another file in its place, but for those that have the sticky bit.
        mode(".", 0o777);
        assert!(get("good").unwrap_err().contains("lies in"));
        mode(".", 0o1777);
        get("good").unwrap();
    }
}
