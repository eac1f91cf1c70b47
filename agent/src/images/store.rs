//! The directory in which the agent keeps what it has verified, so that a restart does not forget it.
//!
//! `HEX.json` is an envelope with this SHA-256, `subjects` says which of them were verified last for which digest, and `trust/` has
//! the keys and the trust root as they were last read. Nothing here is believed: an envelope is verified again when it is loaded,
//! by the keys and the trust root of then. Who can write here is root or the agent, as for the drop directory.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::attestation::{self, Remembered};
use crate::config;
use crate::finding::Sha256;
use crate::guarded::{self, FileError, Rules, check};

/// Envelopes kept; more than a node has images.
pub(super) const MAX_ENVELOPES: usize = 1024;
/// Bytes of them all.
pub(super) const MAX_BYTES: u64 = 4 << 30;
/// Bytes of the list: some hundred digests for each envelope would fit.
const MAX_LIST: u64 = 64 << 20;
/// Bytes of a key or a trust root.
const MAX_TRUST: u64 = 4 << 20;
const LIST: &str = "subjects";
const TRUST: &str = "trust";

/// Which envelopes were verified last for which digest.
pub(super) type Pairs = BTreeSet<(Sha256, Sha256)>;

#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
}

impl Store {
    /// The directory; it is made if it is not there.
    pub(super) fn open(directory: &Path) -> Result<Self, FileError> {
        for path in [directory, &directory.join(TRUST)] {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            check(&std::fs::metadata(path)?, Rules::default())?;
        }
        Ok(Self { directory: directory.to_owned() })
    }

    /// The directory, if it is there.
    pub(super) fn existing(directory: &Path) -> Option<Self> {
        let is_good =
            |path: &Path| std::fs::metadata(path).is_ok_and(|meta| check(&meta, Rules::default()).is_ok());
        let whole =
            !directory.as_os_str().is_empty() && is_good(directory) && is_good(&directory.join(TRUST));
        whole.then(|| Self { directory: directory.to_owned() })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Which envelopes are for which digest. What is no such line is left out and told.
    pub(super) fn pairs(&self) -> Result<Pairs, FileError> {
        let text = match guarded::read(&self.directory.join(LIST), MAX_LIST, Rules::default()) {
            Err(error) if error.is_gone() => return Ok(Pairs::new()),
            read => read?,
        };
        Ok(pairs(&text))
    }

    pub(super) fn write_pairs(&self, pairs: &Pairs) -> io::Result<()> {
        let mut text = String::new();
        for (subject, envelope) in pairs {
            let _ = writeln!(text, "{subject} {envelope}");
        }
        write(&self.directory, LIST.as_ref(), text.as_bytes())
    }

    /// The envelopes that are here, with their sizes and when they were last in use. What else is here is left alone, but for what was not written to its end.
    pub(super) fn envelopes(&self) -> io::Result<Vec<(Sha256, (u64, SystemTime))>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.as_bytes().ends_with(PART.as_bytes()) {
                std::fs::remove_file(entry.path())?;
            }
            let digest = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok());
            if let Some(digest) = digest {
                let meta = entry.metadata()?;
                found.push((digest, (meta.len(), meta.modified()?)));
            }
        }
        Ok(found)
    }

    /// Where an envelope is.
    pub(super) fn path(&self, envelope: &Sha256) -> PathBuf {
        self.directory.join(format!("{envelope}.json"))
    }

    /// An envelope as it was kept.
    pub(super) fn read(&self, envelope: &Sha256, limit: u64) -> Result<Vec<u8>, FileError> {
        let bytes = guarded::read(&self.path(envelope), limit, Rules::default())?;
        if attestation::sha256(&bytes) != *envelope {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not the bytes that were kept").into());
        }
        Ok(bytes)
    }

    pub(super) fn put(&self, envelope: &Sha256, bytes: &[u8]) -> io::Result<()> {
        write(&self.directory, format!("{envelope}.json").as_ref(), bytes)
    }

    /// It is in use.
    pub(super) fn touch(&self, envelope: &Sha256) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path(envelope))?.set_modified(SystemTime::now())
    }

    pub(super) fn remove(&self, envelope: &Sha256) -> io::Result<()> {
        match std::fs::remove_file(self.path(envelope)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }

    /// A key file or a trust root as it was last read.
    pub(super) fn trust(&self, path: &Path) -> Option<Vec<u8>> {
        match guarded::read(&self.directory.join(TRUST).join(name_of(path)), MAX_TRUST, Rules::default()) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.is_gone() => None,
            Err(error) => {
                tracing::warn!(%error, file = %path.display(), "what is kept of it cannot be read");
                None
            }
        }
    }

    /// The keys and the trust root of a configuration as they were last read.
    pub(super) fn remembered(&self, config: &config::Attestation) -> Remembered {
        let one = |path: &PathBuf| Some((path.clone(), self.trust(path)?));
        let trust_root = match &config.trust_root {
            config::TrustRoot::Path(path) => one(path),
            config::TrustRoot::Embedded | config::TrustRoot::EmbeddedGithub => None,
        };
        Remembered { keys: config.keys.iter().filter_map(one).collect(), trust_root }
    }

    /// Keeps the keys and the trust root.
    pub(super) fn write_trust(&self, remembered: &Remembered) -> io::Result<()> {
        let files =
            remembered.keys.iter().chain(remembered.trust_root.iter().map(|(path, bytes)| (path, bytes)));
        let mut names = BTreeSet::new();
        for (path, bytes) in files {
            let name = name_of(path);
            if self.trust(path).as_ref() != Some(bytes) {
                write(&self.directory.join(TRUST), name.as_ref(), bytes)?;
            }
            names.insert(name);
        }
        for entry in std::fs::read_dir(self.directory.join(TRUST))? {
            let entry = entry?;
            if entry.file_name().to_str().is_none_or(|name| !names.contains(name)) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Lines of a subject and an envelope.
fn pairs(text: &[u8]) -> Pairs {
    let mut pairs = Pairs::new();
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')).filter(|(_, line)| !line.is_empty()) {
        let words = std::str::from_utf8(line).ok().and_then(|line| line.split_once(' '));
        match words.and_then(|(subject, envelope)| Some((subject.parse().ok()?, envelope.parse().ok()?))) {
            Some(pair) => drop(pairs.insert(pair)),
            None => tracing::warn!(line = number, "a line of what is kept is not one: left out"),
        }
    }
    pairs
}

/// A path as a name.
fn name_of(path: &Path) -> String {
    attestation::sha256(path.as_os_str().as_bytes()).to_string()
}

/// What is not written to its end is called so.
const PART: &str = ".part";

/// Writes a file whole or not at all.
fn write(directory: &Path, name: &OsStr, bytes: &[u8]) -> io::Result<()> {
    let mut part = name.to_owned();
    part.push(PART);
    let part = directory.join(part);
    // Left by a run that was killed. Nobody else may write here.
    match std::fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    let done = written.and_then(|()| std::fs::rename(&part, directory.join(name)));
    if done.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    done?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_what_was_exchanged_does_not() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("state/verified");
        let store = Store::open(&directory).unwrap();
        let digest = attestation::sha256(b"an envelope");
        store.put(&digest, b"an envelope").unwrap();
        store.put(&digest, b"an envelope").unwrap();
        assert_eq!(store.read(&digest, 100).unwrap(), b"an envelope");
        assert!(store.read(&digest, 3).unwrap_err().to_string().contains("at most 3"));
        assert_eq!(fs::metadata(store.path(&digest)).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(directory.join("half.json.part"), "half").unwrap();
        let envelopes = store.envelopes().unwrap();
        assert_eq!(envelopes.iter().map(|(of, (size, _))| (*of, *size)).collect::<Vec<_>>(), [(digest, 11)]);
        assert!(!directory.join("half.json.part").exists());

        let all = Pairs::from([(Sha256([1; 32]), digest), (Sha256([2; 32]), digest)]);
        assert_eq!(store.pairs().unwrap(), Pairs::new());
        store.write_pairs(&all).unwrap();
        fs::write(directory.join("other"), "left alone").unwrap();
        let store = Store::open(&directory).unwrap();
        assert_eq!(store.pairs().unwrap(), all);
        let line = fs::read_to_string(directory.join(LIST)).unwrap();
        fs::write(directory.join(LIST), format!("\n{line}nonsense\n12 34\n\u{fffd} x\n")).unwrap();
        assert_eq!(store.pairs().unwrap(), all);

        fs::write(store.path(&digest), "another one").unwrap();
        assert!(store.read(&digest, 100).unwrap_err().to_string().contains("not the bytes"));
        store.remove(&digest).unwrap();
        store.remove(&digest).unwrap();
        assert!(store.read(&digest, 100).unwrap_err().is_gone());

        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Store::open(&directory).unwrap_err().to_string().contains("others may write it"));
    }

    #[test]
    fn keys_that_are_not_configured_any_more_are_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let remembered = |keys: &[(&str, &str)], root: Option<(&str, &str)>| Remembered {
            keys: keys.iter().map(|(path, pem)| ((*path).into(), (*pem).into())).collect(),
            trust_root: root.map(|(path, bytes)| (path.into(), bytes.into())),
        };
        store.write_trust(&remembered(&[("/a", "1"), ("/b", "2")], Some(("/r", "3")))).unwrap();
        let kept = |path: &str| store.trust(path.as_ref());
        assert_eq!(
            (kept("/a"), kept("/b"), kept("/r")),
            (Some(b"1".into()), Some(b"2".into()), Some(b"3".into()))
        );
        store.write_trust(&remembered(&[("/b", "4")], None)).unwrap();
        assert_eq!((kept("/a"), kept("/b"), kept("/r")), (None, Some(b"4".into()), None));
    }
}
