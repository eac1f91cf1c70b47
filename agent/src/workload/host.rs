//! What names the image of this host, strongest first:
//!
//! 1. the dm-verity root hash of what is mounted at `/` or `/usr`: the kernel checks every block against it. The hash comes
//!    from the kernel command line (`roothash=`, `usrhash=`; systemd-veritysetup-generator(8)), which the boot loader or a signed
//!    unified kernel image gives. It counts only if the mount table and sysfs say that the file system lies on a verity device;
//! 2. `IMAGE_ID` and `IMAGE_VERSION` of os-release(5), which whoever is root can change: the digest of [`Release::text`].
//!
//! Files are taken from the host's own root ([`host_root`](crate::host_root)), so that an agent in a container does not name its own image.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::attestation::sha256;
use crate::finding::Sha256;
use crate::host_root::HostRoot;
use crate::identity::Digests;
use crate::proc::Proc;

/// Longest command line, mount table, os-release and name of a device that are read.
const MAX_CMDLINE: u64 = 64 << 10;
const MAX_MOUNTS: u64 = 4 << 20;
const MAX_RELEASE: u64 = 64 << 10;
const MAX_UUID: u64 = 4096;
/// Longest `IMAGE_ID` or `IMAGE_VERSION`.
const MAX_VALUE: usize = 128;

/// What names the image of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// dm-verity root hashes of what is mounted.
    pub verity: Vec<(Verity, Sha256)>,
    /// What os-release says.
    pub release: Option<Release>,
}

/// A file system that dm-verity protects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verity {
    /// `/`
    Root,
    /// `/usr`
    Usr,
}

impl Verity {
    /// Name of the subject. Like every subject's name it proves nothing.
    pub fn subject(self) -> &'static str {
        match self {
            Self::Root => "verity-root",
            Self::Usr => "verity-usr",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::Root => "roothash",
            Self::Usr => "usrhash",
        }
    }

    fn mount_point(self) -> &'static str {
        match self {
            Self::Root => "/",
            Self::Usr => "/usr",
        }
    }
}

/// `IMAGE_ID` and `IMAGE_VERSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// `IMAGE_ID`
    pub id: String,
    /// `IMAGE_VERSION`
    pub version: String,
}

impl Release {
    /// The text whose SHA-256 is the subject's digest: two lines, each ended by a line feed. Of every image it can be made
    /// with `printf 'IMAGE_ID=%s\nIMAGE_VERSION=%s\n'`.
    pub fn text(&self) -> String {
        format!("IMAGE_ID={}\nIMAGE_VERSION={}\n", self.id, self.version)
    }

    /// The subject's digest.
    pub fn sha256(&self) -> Sha256 {
        sha256(self.text().as_bytes())
    }
}

impl Host {
    /// This host.
    pub fn read() -> Self {
        let proc = Proc::new(Path::new("/proc"));
        // That it cannot be seen is told with what follows from it where the judge's facts are made.
        let root =
            HostRoot::find(&proc).map(|host| host.directory()).unwrap_or_else(|_| "/proc/1/root".into());
        Self::at(Path::new("/"), &root)
    }

    /// The host whose `/proc` and `/sys` are below `kernel`, and whose files are below `root`.
    fn at(kernel: &Path, root: &Path) -> Self {
        let read = |name: &str, limit| match text(&kernel.join(name), limit) {
            Ok(text) => text,
            Err(error) => {
                tracing::debug!(%error, "{name} cannot be read");
                String::new()
            }
        };
        let (cmdline, mounts) = (read("proc/cmdline", MAX_CMDLINE), read("proc/1/mountinfo", MAX_MOUNTS));
        // As libcryptsetup names the devices that it makes.
        let protects = |device: &str| {
            read(&format!("sys/dev/block/{device}/dm/uuid"), MAX_UUID).starts_with("CRYPT-VERITY-")
        };
        Self { verity: mounted(&cmdline, &mounts, protects), release: Self::of_root(root).release }
    }

    /// What these texts say: the kernel command line, a mount table, an os-release file. `protects` says whether a device
    /// (`MAJOR:MINOR`) is one of dm-verity.
    pub fn parse(cmdline: &str, mounts: &str, release_text: &str, protects: impl Fn(&str) -> bool) -> Self {
        Self { verity: mounted(cmdline, mounts, protects), release: release(release_text) }
    }

    /// What the files of a root directory alone say: of an image that is being made.
    pub fn of_root(root: &Path) -> Self {
        // The first that is there counts alone (os-release(5)).
        for name in ["etc/os-release", "usr/lib/os-release"] {
            match beneath(root, Path::new(name)) {
                Ok(text) => return Self { verity: Vec::new(), release: release(&text) },
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%error, root = %root.display(), "{name} cannot be read");
                    break;
                }
            }
        }
        Self::default()
    }

    /// The subjects by which an attestation can name it, with a name for people, strongest first.
    pub fn subjects(&self) -> impl Iterator<Item = (String, Sha256)> + '_ {
        let verity = self.verity.iter().map(|(verity, hash)| (verity.subject().to_owned(), *hash));
        verity.chain(self.release.iter().map(|r| (format!("{}@{}", r.id, r.version), r.sha256())))
    }

    /// As an attestation may name it; `key` is what the configuration adds.
    pub fn digests(&self, key: Option<Sha256>) -> Digests {
        Digests {
            verity: self.verity.iter().map(|(_, hash)| *hash).collect(),
            os_release: self.release.as_ref().map(Release::sha256),
            key,
            ..Digests::default()
        }
    }
}

/// The root hashes of the command line that a mounted verity device stands behind.
fn mounted(cmdline: &str, mounts: &str, protects: impl Fn(&str) -> bool) -> Vec<(Verity, Sha256)> {
    let one = |verity: Verity| {
        let hash = root_hash(cmdline, verity.key())?;
        let device = device(mounts, verity.mount_point());
        if !device.is_some_and(&protects) {
            let (key, at) = (verity.key(), verity.mount_point());
            tracing::warn!(
                key,
                at,
                device,
                "the kernel command line has a root hash, but no dm-verity device is mounted: it does not count"
            );
            return None;
        }
        Some((verity, hash))
    };
    [Verity::Root, Verity::Usr].into_iter().filter_map(one).collect()
}

/// A file below `root`, whose links lead nowhere else.
fn beneath(root: &Path, name: &Path) -> io::Result<String> {
    let root = File::open(root)?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = File::from(openat2(root.as_fd(), name, how)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    limited(file, MAX_RELEASE)
}

fn text(path: &Path, limit: u64) -> io::Result<String> {
    limited(File::open(path)?, limit)
}

fn limited(file: File, limit: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    let read = file.take(limit + 1).read_to_end(&mut bytes)?;
    if u64::try_from(read).map_or(true, |read| read > limit) {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The SHA-256 that the kernel command line has under a key. Words are separated by white space outside of double quotes, as in
/// the kernel's `next_arg`. Two different values prove nothing.
fn root_hash(cmdline: &str, key: &str) -> Option<Sha256> {
    let mut quoted = false;
    let words = cmdline.split(|c: char| {
        quoted ^= c == '"';
        !quoted && c.is_ascii_whitespace()
    });
    let mut found = None;
    for word in words {
        let word = word.replace('"', "");
        let Some(value) = word.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')) else { continue };
        let hash = (value.len() == 64)
            .then(|| value.parse::<Sha256>().ok())
            .flatten()
            .filter(|hash| !hash.is_zero());
        match (hash, found) {
            (None, _) => {
                tracing::warn!(key, value, "not a SHA-256 root hash: expected 64 hexadecimal digits");
                return None;
            }
            (Some(hash), Some(before)) if hash != before => {
                tracing::warn!(key, "the kernel command line has two different values");
                return None;
            }
            (Some(_), _) => found = hash,
        }
    }
    found
}

/// `MAJOR:MINOR` of what is mounted last at a mount point, whole (proc_pid_mountinfo(5)).
fn device<'a>(mounts: &'a str, point: &str) -> Option<&'a str> {
    let fields = |line: &'a str| {
        let mut fields = line.split(' ').skip(2);
        Some((fields.next()?, fields.next()?, fields.next()?))
    };
    let (device, root, _) = mounts.lines().filter_map(fields).rfind(|(_, _, at)| *at == point)?;
    let is_number =
        |text: &str| !text.is_empty() && text.len() <= 10 && text.bytes().all(|c| c.is_ascii_digit());
    let (major, minor) = device.split_once(':')?;
    (root == "/" && is_number(major) && is_number(minor)).then_some(device)
}

/// `IMAGE_ID` and `IMAGE_VERSION`, if both are there and only have the characters that os-release(5) allows.
fn release(text: &str) -> Option<Release> {
    let value = |key: &str| {
        // A later assignment counts, as in a shell.
        let line = text.lines().rev().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?.trim_end();
        let unquoted =
            ['"', '\''].into_iter().find_map(|q| line.strip_prefix(q)?.strip_suffix(q)).unwrap_or(line);
        let good = !unquoted.is_empty()
            && unquoted.len() <= MAX_VALUE
            && unquoted.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'z' | b'.' | b'_' | b'-'));
        if !good && !unquoted.is_empty() {
            tracing::warn!(
                key,
                value = line,
                "os-release: expected at most {MAX_VALUE} of 0-9, a-z, '.', '_' and '-': it does not count"
            );
        }
        good.then(|| unquoted.to_owned())
    };
    Some(Release { id: value("IMAGE_ID")?, version: value("IMAGE_VERSION")? })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    const HASH: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
    const OTHER: &str = "6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a6a";

    #[test]
    fn the_command_line() {
        let same = Some(HASH.parse().unwrap());
        for (cmdline, expected) in [
            (format!("quiet roothash={HASH} ro\n"), same),
            (format!("roothash={HASH}"), same),
            (format!("roothash=\"{HASH}\" x"), same),
            (format!("\"roothash={HASH}\""), same),
            (format!("roothash={} ", HASH.to_uppercase()), same),
            (format!("roothash={HASH} roothash={HASH}"), same),
            (format!("roothash={HASH} roothash={OTHER}"), None),
            (format!("init=\"/bin/sh roothash={HASH}\""), None),
            (format!("x.roothash={HASH} roothashsig=/a roothash.x={HASH}"), None),
            (format!("usrhash={HASH}"), None),
            ("roothash=".to_owned(), None),
            (format!("roothash=sha256:{HASH}"), None),
            (format!("roothash={}", &HASH[1..]), None),
            (format!("roothash={HASH}{HASH}"), None),
            (format!("roothash={}", "0".repeat(64)), None),
            (format!("roothash={}g", &HASH[1..]), None),
            (String::new(), None),
        ] {
            assert_eq!(root_hash(&cmdline, "roothash"), expected, "{cmdline}");
        }
    }

    #[test]
    fn the_mount_table() {
        let below = "22 1 0:2 / / rw - rootfs rootfs rw\n";
        for (mounts, point, expected) in [
            (
                format!("{below}30 22 254:0 / / ro,relatime shared:1 - erofs /dev/mapper/root ro\n"),
                "/",
                Some("254:0"),
            ),
            (format!("30 22 254:0 / / ro - erofs /dev/mapper/root ro\n{below}"), "/", Some("0:2")),
            ("30 22 254:1 / /usr ro - erofs /dev/mapper/usr ro".to_owned(), "/usr", Some("254:1")),
            ("30 22 254:1 / /usr ro - erofs /dev/mapper/usr ro".to_owned(), "/", None),
            ("30 22 254:1 /sub /usr ro - erofs /dev/mapper/usr ro".to_owned(), "/usr", None),
            ("30 22 ../../x:1 / / ro - erofs x ro".to_owned(), "/", None),
            ("30 22 1: / / ro".to_owned(), "/", None),
            ("30 22".to_owned(), "/", None),
        ] {
            assert_eq!(device(&mounts, point), expected, "{mounts}");
        }
    }

    #[test]
    fn os_release() {
        let both = |id: &str, version: &str| Some(Release { id: id.into(), version: version.into() });
        let long = "a".repeat(MAX_VALUE + 1);
        for (text, expected) in [
            ("NAME=x\nIMAGE_ID=edge\nIMAGE_VERSION=33\n", both("edge", "33")),
            ("IMAGE_VERSION='1.2_3-4'\r\nIMAGE_ID=\"edge\"", both("edge", "1.2_3-4")),
            ("IMAGE_ID=a\nIMAGE_ID=b\nIMAGE_VERSION=1\n", both("b", "1")),
            ("#IMAGE_ID=a\nIMAGE_VERSION=1\n", None),
            ("IMAGE_ID=a\n", None),
            ("IMAGE_ID=\nIMAGE_VERSION=1\n", None),
            ("IMAGE_ID=a b\nIMAGE_VERSION=1\n", None),
            ("IMAGE_ID=Edge\nIMAGE_VERSION=1\n", None),
            ("IMAGE_ID=$(id)\nIMAGE_VERSION=1\n", None),
            ("IMAGE_ID=\"a\nIMAGE_VERSION=1\n", None),
            (&format!("IMAGE_ID={long}\nIMAGE_VERSION=1\n"), None),
            ("", None),
        ] {
            assert_eq!(release(text), expected, "{text}");
        }
        let release = Release { id: "edge".into(), version: "33".into() };
        assert_eq!(release.text(), "IMAGE_ID=edge\nIMAGE_VERSION=33\n");
        assert_eq!(
            release.sha256().to_string(),
            "30198814eb49d57feb425dd30dd250da1a8a909f98c96ae8e3ebedcc4048ced6",
            "what `printf 'IMAGE_ID=edge\\nIMAGE_VERSION=33\\n' | sha256sum` prints"
        );
    }

    /// A machine of files.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn new(files: &[(&str, &str)]) -> Self {
            let machine = Self(tempfile::tempdir().unwrap());
            for (name, content) in files {
                let path = machine.0.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, content).unwrap();
            }
            machine
        }

        fn host(&self) -> Host {
            Host::at(self.0.path(), self.0.path())
        }
    }

    #[test]
    fn a_root_hash_counts_only_where_a_verity_device_is_mounted() {
        let cmdline = format!("roothash={HASH} usrhash={OTHER}\n");
        let mounts = "30 22 254:0 / / ro - erofs /dev/mapper/root ro\n31 30 254:1 / /usr ro - erofs /dev/mapper/usr ro\n";
        let files = |root: &'static str, usr: &'static str| {
            Machine::new(&[
                ("proc/cmdline", cmdline.as_str()),
                ("proc/1/mountinfo", mounts),
                ("sys/dev/block/254:0/dm/uuid", root),
                ("sys/dev/block/254:1/dm/uuid", usr),
            ])
        };
        let verity = "CRYPT-VERITY-0123456789abcdef0123456789abcdef-root\n";
        let (root, usr) = (HASH.parse().unwrap(), OTHER.parse().unwrap());
        for (machine, expected) in [
            (files(verity, verity), vec![(Verity::Root, root), (Verity::Usr, usr)]),
            (files("CRYPT-LUKS2-0123-root\n", verity), vec![(Verity::Usr, usr)]),
            (files("LVM-CRYPT-VERITY-\n", ""), vec![]),
            (Machine::new(&[("proc/cmdline", &cmdline), ("proc/1/mountinfo", mounts)]), vec![]),
            (Machine::new(&[("proc/cmdline", &cmdline)]), vec![]),
            (Machine::new(&[]), vec![]),
        ] {
            let host = machine.host();
            assert_eq!(host.verity, expected);
            assert_eq!(host.digests(None).verity, expected.iter().map(|(_, h)| *h).collect::<Vec<_>>());
            let subjects: Vec<_> = host.subjects().collect();
            let names = expected.iter().map(|(verity, hash)| (verity.subject().to_owned(), *hash));
            assert_eq!(subjects, names.collect::<Vec<_>>());
        }
    }

    #[test]
    fn links_of_a_root_stay_in_it() {
        let good = "IMAGE_ID=inside\nIMAGE_VERSION=1\n";
        let inside = Some(Release { id: "inside".into(), version: "1".into() });
        let link = |to: &str, files: &[(&str, &str)]| {
            let machine = Machine::new(files);
            fs::create_dir_all(machine.0.path().join("etc")).unwrap();
            symlink(to, machine.0.path().join("etc/os-release")).unwrap();
            machine.host().release
        };
        assert_eq!(link("../usr/lib/os-release", &[("usr/lib/os-release", good)]), inside);
        assert_eq!(link("/etc/static/os-release", &[("etc/static/os-release", good)]), inside);
        assert_eq!(link("../../../../../usr/lib/os-release", &[("usr/lib/os-release", good)]), inside);
        // A link that leads nowhere is not there: the other file counts.
        assert_eq!(link("/none", &[("usr/lib/os-release", good)]), inside);
        let outside = Machine::new(&[("os-release", good)]);
        assert_eq!(link(outside.0.path().join("os-release").to_str().unwrap(), &[]), None);
        // The first that is there counts alone.
        let both = [("etc/os-release", "ID=x\n"), ("usr/lib/os-release", good)];
        assert_eq!(Machine::new(&both).host().release, None);
        let large = format!("{good}#{}", "x".repeat(64 << 10));
        assert_eq!(Machine::new(&[("etc/os-release", &large)]).host().release, None);
    }
}
