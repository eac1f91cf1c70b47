//! The drop directory: where attestations are put by hand, by configuration management, or by a mount.
//!
//! `.json` files are one envelope each, `.jsonl` files one per line; what a file is called before that says nothing. Hidden
//! files and other names are left alone, so that a file can be written under such a name and renamed. A file is taken when its
//! writer closes it or when it is renamed into place; half of a file that was there at the start is refused first and taken
//! when it is complete.
//!
//! Symbolic links, and what others may write, are refused unless [`Rules`] allow them. A link may only lead to a file of its own
//! directory or below: Kubernetes mounts a ConfigMap or a Secret as a directory of such links (`a.json` → `..data/a.json`, and
//! `..data` → the newest version, which is exchanged in one step).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags as Mask, InitFlags, Inotify, WatchDescriptor};

use crate::config::FileRule;
pub use crate::guarded::{FileError, Rules};
use crate::guarded::{bounded, check};

/// How often a directory that is not there is looked for.
const RETRY_MS: u16 = 1000;

/// What changes whenever a file's content or permissions do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp([i128; 4]);

impl Stamp {
    fn of(meta: &std::fs::Metadata) -> Self {
        let nanos = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Self([
            i128::from(meta.ino()),
            i128::from(meta.size()),
            nanos(meta.mtime(), meta.mtime_nsec()),
            nanos(meta.ctime(), meta.ctime_nsec()),
        ])
    }
}

impl From<&[FileRule]> for Rules {
    fn from(allow: &[FileRule]) -> Self {
        Self { symlinks: allow.contains(&FileRule::Symlinks), writable: allow.contains(&FileRule::Writable) }
    }
}

/// How many envelopes a file holds, by its name; `None` for files that are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `.json`: one.
    One,
    /// `.jsonl`: one per line.
    Lines,
}

impl Shape {
    /// The shape of the file of this name.
    pub fn of(name: &OsStr) -> Option<Self> {
        if name.as_bytes().starts_with(b".") {
            return None;
        }
        match Path::new(name).extension()?.as_bytes() {
            b"json" => Some(Self::One),
            b"jsonl" => Some(Self::Lines),
            _ => None,
        }
    }
}

/// The files of the directory that hold envelopes.
///
/// # Errors
/// When the directory cannot be listed, or others may write it.
pub fn scan(directory: &Path, rules: Rules) -> Result<BTreeMap<OsString, Option<Stamp>>, FileError> {
    check(&std::fs::metadata(directory)?, rules)?;
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if Shape::of(&name).is_none() {
            tracing::debug!(file = %entry.path().display(), "left alone: not a .json or .jsonl file");
            continue;
        }
        let meta = if rules.symlinks { std::fs::metadata(entry.path()) } else { entry.metadata() };
        // Gone in between: it is read, found missing, and forgotten.
        let stamp = meta.ok().map(|meta| Stamp::of(&meta));
        found.insert(name, stamp);
    }
    Ok(found)
}

/// Reads a file of the directory, at most `limit` bytes.
///
/// # Errors
/// Why it is refused.
pub fn read(directory: &Path, name: &OsStr, limit: u64, rules: Rules) -> Result<(Vec<u8>, Stamp), FileError> {
    let file = if rules.symlinks {
        linked(directory, name, rules)?
    } else {
        std::fs::OpenOptions::new()
            .read(true)
            // A pipe must not hold the reader up.
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(directory.join(name))
            .map_err(|error| match error.raw_os_error() {
                Some(libc::ELOOP) => FileError::Symlink,
                _ => FileError::Io(error),
            })?
    };
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(FileError::NotRegular);
    }
    check(&meta, rules)?;
    let bytes = bounded(file, meta.len(), limit).map_err(|error| match error {
        FileError::TooLarge { bytes, limit, .. } => {
            FileError::TooLarge { bytes, limit, advice: "; raise attestation.max_envelope_bytes" }
        }
        other => other,
    })?;
    Ok((bytes, Stamp::of(&meta)))
}

/// Opens what a name of the directory leads to, as long as that is in the directory or below it and nobody else can write any
/// directory on the way.
fn linked(directory: &Path, name: &OsStr, rules: Rules) -> Result<File, FileError> {
    let directory = File::open(directory)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = openat2(directory.as_fd(), Path::new(name), how).map_err(|error| match error {
        Errno::EXDEV | Errno::ELOOP => FileError::Escape,
        other => FileError::Io(other.into()),
    })?;
    let file = File::from(file);
    let real = |file: &File| std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let (top, mut way) = (real(&directory)?, real(&file)?);
    if !way.starts_with(&top) {
        return Err(FileError::Escape);
    }
    while way.pop() && way != top {
        let checked = std::fs::metadata(&way).map_err(FileError::Io).and_then(|meta| check(&meta, rules));
        checked.map_err(|reason| FileError::Way { directory: way.clone(), reason: Box::new(reason) })?;
    }
    Ok(file)
}

/// What a [`Watcher`] saw.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// These files were finished, changed or removed.
    Files(BTreeSet<OsString>),
    /// Anything may have changed: list the directory again.
    Everything,
    /// The other end of the stop socket was closed.
    Stop,
}

/// What of a directory is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// Files of attestations.
    Attestations(Rules),
    /// What makes a directory an OCI layout. Its blobs are there before its index names them.
    Layout,
}

impl Watched {
    fn takes(self, name: &OsStr) -> bool {
        match self {
            Self::Attestations(_) => Shape::of(name).is_some(),
            Self::Layout => name == "index.json" || name == "oci-layout",
        }
    }

    /// Where links lead through may have been exchanged: `..data`.
    fn leads(self, name: &OsStr) -> bool {
        matches!(self, Self::Attestations(rules) if rules.symlinks && name.as_bytes().starts_with(b".."))
    }
}

/// Watches a directory that may come and go.
#[derive(Debug)]
pub struct Watcher {
    directory: PathBuf,
    what: Watched,
    inotify: Inotify,
    watched: Option<WatchDescriptor>,
    stop: UnixStream,
    may_be_absent: bool,
    missing_told: bool,
}

impl Watcher {
    /// Watches `directory` until the other end of `stop` is closed. One that `may_be_absent` is waited for without a word.
    ///
    /// # Errors
    /// When the kernel gives no inotify instance (`fs.inotify.max_user_instances`).
    pub fn new(directory: PathBuf, stop: UnixStream, what: Watched, may_be_absent: bool) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        Ok(Self { directory, what, inotify, watched: None, stop, may_be_absent, missing_told: false })
    }

    /// Watches from now on: what changes later is noticed, and what is there already is not told.
    pub fn begin(&mut self) {
        if self.watched.is_none() {
            self.watch();
        }
    }

    /// Waits for the next change. The first one is [`Change::Everything`], as soon as the directory is watched.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub fn wait(&mut self) -> io::Result<Change> {
        loop {
            if let Some(change) = self.within(None)? {
                return Ok(change);
            }
        }
    }

    /// Waits until nothing has changed for `quiet`, but no longer than `longest`. `false`: the other end of the stop socket was
    /// closed.
    ///
    /// # Errors
    /// When the kernel refuses to wait.
    pub fn settle(&mut self, quiet: Duration, longest: Duration) -> io::Result<bool> {
        let end = Instant::now() + longest;
        loop {
            match self.within(Some(quiet.min(end.saturating_duration_since(Instant::now()))))? {
                None => return Ok(true),
                Some(Change::Stop) => return Ok(false),
                Some(_) if Instant::now() >= end => return Ok(true),
                Some(_) => {}
            }
        }
    }

    /// Waits for the next change; `None`: there was none for so long.
    fn within(&mut self, limit: Option<Duration>) -> io::Result<Option<Change>> {
        let end = limit.map(|limit| Instant::now() + limit);
        loop {
            if self.watched.is_none() && self.watch() {
                return Ok(Some(Change::Everything));
            }
            let retry = self.watched.is_none().then(|| Duration::from_millis(RETRY_MS.into()));
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            let timeout = match left.into_iter().chain(retry).min() {
                // In whole milliseconds, and not one too few.
                Some(time) => {
                    PollTimeout::try_from(time + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
                }
                None => PollTimeout::NONE,
            };
            let mut fds = [
                PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            if fds[0].any().unwrap_or(true) {
                return Ok(Some(Change::Stop));
            }
            match self.events()? {
                Change::Files(files) if files.is_empty() => {}
                change => return Ok(Some(change)),
            }
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
        }
    }

    fn watch(&mut self) -> bool {
        let mask = Mask::IN_CLOSE_WRITE
            | Mask::IN_MOVED_TO
            | Mask::IN_MOVED_FROM
            | Mask::IN_DELETE
            | Mask::IN_ATTRIB
            | Mask::IN_DELETE_SELF
            | Mask::IN_MOVE_SELF
            | Mask::IN_ONLYDIR;
        match self.inotify.add_watch(&self.directory, mask) {
            Ok(watched) => {
                self.watched = Some(watched);
                self.missing_told = false;
                true
            }
            Err(error) => {
                if !self.missing_told && !self.may_be_absent {
                    let directory = self.directory.display();
                    tracing::warn!(%directory, %error, "cannot watch the drop directory; create it (mode 0755)");
                    self.missing_told = true;
                }
                false
            }
        }
    }

    fn events(&mut self) -> io::Result<Change> {
        let mut files = BTreeSet::new();
        let mut everything = false;
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in events {
                if event.mask.contains(Mask::IN_Q_OVERFLOW) {
                    everything = true;
                }
                if Some(event.wd) != self.watched {
                    continue;
                }
                let lost = Mask::IN_DELETE_SELF | Mask::IN_MOVE_SELF | Mask::IN_UNMOUNT | Mask::IN_IGNORED;
                if event.mask.intersects(lost) {
                    if let Err(error) = self.inotify.rm_watch(event.wd) {
                        tracing::debug!(%error, "the watch ended with the directory");
                    }
                    self.watched = None;
                    everything = true;
                }
                match event.name {
                    Some(name) if self.what.takes(&name) => drop(files.insert(name)),
                    Some(name) => everything |= self.what.leads(&name),
                    // The directory's own mode or owner.
                    None => everything |= event.mask.contains(Mask::IN_ATTRIB),
                }
            }
        }
        Ok(if everything { Change::Everything } else { Change::Files(files) })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::sync::mpsc;

    use super::*;

    const STRICT: Rules = Rules { symlinks: false, writable: false };
    const LINKS: Rules = Rules { symlinks: true, writable: false };

    /// As Kubernetes mounts a ConfigMap.
    #[test]
    fn links_that_stay_in_the_directory_may_be_allowed() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("drop");
        let at = |name: &str| directory.join(name);
        fs::create_dir_all(at("..1")).unwrap();
        fs::write(at("..1/a.json"), "one").unwrap();
        fs::write(parent.path().join("outside.json"), "no").unwrap();
        for (to, link) in [
            ("..1", "..data"),
            ("..data/a.json", "a.json"),
            ("../outside.json", "b.json"),
            ("/etc/hostname", "c.json"),
            ("d.json", "d.json"),
            ("none", "e.json"),
            ("..1", "f.json"),
        ] {
            symlink(to, at(link)).unwrap();
        }
        let get = |name: &str, rules| {
            read(&directory, name.as_ref(), 10, rules)
                .map(|(bytes, _)| bytes)
                .map_err(|error| error.to_string())
        };
        assert_eq!(get("a.json", LINKS).unwrap(), b"one");
        assert!(get("a.json", STRICT).unwrap_err().contains("attestation.allow"));
        for (name, expected) in [
            ("b.json", "leads out of"),
            ("c.json", "leads out of"),
            ("d.json", "leads out of"),
            ("f.json", "not a regular file"),
        ] {
            let found = get(name, LINKS).unwrap_err();
            assert!(found.contains(expected), "{name}: {found}");
        }
        assert!(read(&directory, "e.json".as_ref(), 10, LINKS).unwrap_err().is_gone());

        // Others can exchange the file that the link leads to.
        fs::set_permissions(at("..1"), fs::Permissions::from_mode(0o777)).unwrap();
        let found = get("a.json", LINKS).unwrap_err();
        assert!(
            found.contains("leads through") && found.contains("..1") && found.contains("mode 0777"),
            "{found}"
        );
        assert_eq!(get("a.json", Rules { writable: true, ..LINKS }).unwrap(), b"one");
        fs::set_permissions(at("..1"), fs::Permissions::from_mode(0o755)).unwrap();

        // The next version, exchanged in one step: nothing that has a name of its own changes.
        let before = scan(&directory, LINKS).unwrap();
        let (stop, theirs) = UnixStream::pair().unwrap();
        let mut watcher =
            Watcher::new(directory.clone(), theirs, Watched::Attestations(LINKS), false).unwrap();
        assert_eq!(watcher.wait().unwrap(), Change::Everything);
        fs::create_dir(at("..2")).unwrap();
        fs::write(at("..2/a.json"), "two").unwrap();
        symlink("..2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert_eq!(watcher.wait().unwrap(), Change::Everything);
        let after = scan(&directory, LINKS).unwrap();
        assert_ne!(before[OsStr::new("a.json")], after[OsStr::new("a.json")]);
        assert_eq!(get("a.json", LINKS).unwrap(), b"two");
        drop(stop);
    }

    #[test]
    fn what_others_may_write_may_be_allowed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        fs::write(&path, "{}").unwrap();
        for it in [directory.path(), &path] {
            fs::set_permissions(it, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let rules = Rules { writable: true, ..STRICT };
        assert_eq!(scan(directory.path(), rules).unwrap().len(), 1);
        assert_eq!(read(directory.path(), "a.json".as_ref(), 10, rules).unwrap().0, b"{}");
    }

    #[test]
    fn shapes() {
        for (name, shape) in [
            ("a.json", Some(Shape::One)),
            ("a.sigstore.json", Some(Shape::One)),
            ("a.jsonl", Some(Shape::Lines)),
            (".a.json", None),
            ("a.json~", None),
            ("a.json.swp", None),
            ("json", None),
            ("a.JSON", None),
        ] {
            assert_eq!(Shape::of(name.as_ref()), shape, "{name}");
        }
    }

    #[test]
    fn refused_files() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let reason = |name: &str| read(directory.path(), name.as_ref(), 10, STRICT).unwrap_err().to_string();
        fs::write(at("good.json"), "0123456789").unwrap();
        assert_eq!(read(directory.path(), "good.json".as_ref(), 10, STRICT).unwrap().0, b"0123456789");
        fs::write(at("large.json"), "0123456789a").unwrap();
        assert!(reason("large.json").starts_with("has 11 bytes, but at most 10"));
        symlink(at("good.json"), at("link.json")).unwrap();
        assert!(reason("link.json").contains("symbolic link"));
        nix::unistd::mkfifo(&at("pipe.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(reason("pipe.json").contains("not a regular file"));
        fs::create_dir(at("dir.json")).unwrap();
        assert!(reason("dir.json").contains("not a regular file"));
        for mode in [0o664, 0o646] {
            fs::set_permissions(at("good.json"), fs::Permissions::from_mode(mode)).unwrap();
            assert!(reason("good.json").contains(&format!("mode {mode:04o}")));
        }
        assert!(read(directory.path(), "none.json".as_ref(), 10, STRICT).unwrap_err().is_gone());
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(scan(directory.path(), STRICT).unwrap_err().to_string().contains("mode 0777"));
    }

    #[test]
    fn another_owner_is_refused() {
        assert!(
            nix::unistd::geteuid().is_root(),
            "root is needed to give a file away: run the tests as root or with sudo"
        );
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.json");
        fs::write(&path, "{}").unwrap();
        nix::unistd::chown(&path, Some(12345.into()), None).unwrap();
        let text = read(directory.path(), "a.json".as_ref(), 10, STRICT).unwrap_err().to_string();
        assert!(text.contains("belongs to uid 12345; expected 0"), "{text}");
    }

    #[test]
    fn watches_what_comes_and_goes() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("drop");
        let at = |name: &str| directory.join(name);
        let (stop, theirs) = UnixStream::pair().unwrap();
        let mut watcher =
            Watcher::new(directory.clone(), theirs, Watched::Attestations(STRICT), false).unwrap();
        let (sender, changes) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            loop {
                let change = watcher.wait().unwrap();
                let done = change == Change::Stop;
                sender.send(change).unwrap();
                if done {
                    break;
                }
            }
        });
        let next = || changes.recv_timeout(Duration::from_secs(60)).expect("a change");
        let files = |names: &[&str]| Change::Files(names.iter().map(OsString::from).collect());

        // The directory is found when it comes, watched, and only then listed.
        changes.recv_timeout(Duration::from_millis(100)).expect_err("nothing happened");
        fs::create_dir(&directory).unwrap();
        assert_eq!(next(), Change::Everything);

        // Not before its writer closes it.
        let mut half = File::create(at("a.json")).unwrap();
        io::Write::write_all(&mut half, b"{").unwrap();
        changes.recv_timeout(Duration::from_millis(100)).expect_err("nothing happened");
        drop(half);
        assert_eq!(next(), files(&["a.json"]));

        fs::write(at(".b.json.partial"), "{}").unwrap();
        fs::rename(at(".b.json.partial"), at("b.json")).unwrap();
        assert_eq!(next(), files(&["b.json"]));
        fs::remove_file(at("a.json")).unwrap();
        assert_eq!(next(), files(&["a.json"]));
        fs::set_permissions(at("b.json"), fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(next(), files(&["b.json"]));

        // The directory goes and comes back.
        fs::rename(&directory, parent.path().join("old")).unwrap();
        assert_eq!(next(), Change::Everything);
        fs::create_dir(&directory).unwrap();
        assert_eq!(next(), Change::Everything);
        fs::write(at("c.jsonl"), "").unwrap();
        assert_eq!(next(), files(&["c.jsonl"]));

        drop(stop);
        assert_eq!(next(), Change::Stop);
        thread.join().unwrap();
    }
}
