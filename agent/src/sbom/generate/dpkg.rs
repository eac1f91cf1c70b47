//! Which package owns a file, by dpkg's database (`/var/lib/dpkg`; formats: deb-control(5), dpkg-query(1)).

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::OFlag;
use rustc_hash::FxHashMap;

use super::super::path::merges_into_usr;

/// Largest file of the database that is read, bytes; that of a full desktop has about 10 MB.
const MAX_BYTES: u64 = 256 << 20;

/// An installed package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) purl: String,
}

/// The database; empty where there is none.
#[derive(Default)]
pub(super) struct Database {
    pub(super) packages: Vec<Package>,
    owners: FxHashMap<Box<[u8]>, u32>,
}

/// Where the database is.
pub(super) trait Root {
    /// A regular file, by its path relative to the root; `None` when it is not there.
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>>;
    /// A symbolic link is there.
    fn is_link(&self, path: &str) -> bool;
}

impl Root for Path {
    fn read(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        read(&self.join(path))
    }
    fn is_link(&self, path: &str) -> bool {
        self.join(path).symlink_metadata().is_ok_and(|metadata| metadata.is_symlink())
    }
}

impl Database {
    /// The database below a root, and what of it could not be used.
    pub(super) fn load(root: &(impl Root + ?Sized)) -> (Self, Vec<String>) {
        let mut trouble = Vec::new();
        let mut read = |path: &str| match root.read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                trouble.push(format!("/{path}: {error}"));
                None
            }
        };
        let Some(status) = read("var/lib/dpkg/status") else { return (Self::default(), trouble) };
        // The second is a link to the first, which may lead out of the tree, or a file of its own.
        let release = read("usr/lib/os-release").or_else(|| read("etc/os-release")).unwrap_or_default();
        let release = String::from_utf8_lossy(&release);
        let diversions = read("var/lib/dpkg/diversions").unwrap_or_default();
        let diversions = diversions_of(&diversions);
        let mut strange = Vec::new();
        let links = links(root);
        let mut database = Self::default();
        for fields in paragraphs(&String::from_utf8_lossy(&status)) {
            let [name, version, architecture] =
                ["Package", "Version", "Architecture"].map(|key| fields.get(key));
            let (Some(name), Some(version), Some(architecture)) = (name, version, architecture) else {
                if !fields.is_empty() {
                    strange.push(format!(
                        "{}: no Package, Version or Architecture",
                        name.unwrap_or(&"a package")
                    ));
                }
                continue;
            };
            // Every other state, half-configured for one, has files in place.
            let state = fields.get("Status").and_then(|status| status.rsplit(' ').next());
            if matches!(state, None | Some("not-installed" | "config-files")) {
                continue;
            }
            if name.contains('/') || architecture.contains('/') {
                strange.push(format!("{name}: a package name with a slash"));
                continue;
            }
            // Multi-Arch packages have their architecture in the file's name.
            let list = read(&format!("var/lib/dpkg/info/{name}:{architecture}.list"))
                .or_else(|| read(&format!("var/lib/dpkg/info/{name}.list")));
            if list.is_none() {
                strange.push(format!("{name}: installed, but without a list of its files (dpkg --audit)"));
            }
            let Ok(number) = u32::try_from(database.packages.len()) else { break };
            for line in list.unwrap_or_default().split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                let line = match diversions.get(line) {
                    Some((to, by)) if *by != name.as_bytes() => to,
                    _ => line,
                };
                let path = if links.iter().any(|link| merges_into_usr(line) && line.starts_with(link)) {
                    [b"/usr", line].concat()
                } else {
                    line.to_vec()
                };
                database.owners.entry(path.into()).or_insert(number);
            }
            database.packages.push(Package {
                name: (*name).to_owned(),
                version: (*version).to_owned(),
                purl: purl(name, version, architecture, &release),
            });
        }
        trouble.append(&mut strange);
        (database, trouble)
    }

    /// Number of the package that owns a file; the path is relative to the root.
    pub(super) fn owner(&self, path: &str) -> Option<u32> {
        self.owners.get([b"/", path.as_bytes()].concat().as_slice()).copied()
    }
}

/// Reads a regular file without following a link, which might lead out of the tree; `None` when it is not there.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) if e.raw_os_error() == Some(nix::libc::ELOOP) => return Ok(None),
        Err(e) => return Err(e),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("expected a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("more than {MAX_BYTES} bytes, which no package database has")));
    }
    Ok(Some(bytes))
}

/// Path → where it is for every package but the one that diverts it. Three lines each: from, to, package.
fn diversions_of(text: &[u8]) -> FxHashMap<&[u8], (&[u8], &[u8])> {
    let lines: Vec<&[u8]> = text.split(|b| *b == b'\n').collect();
    lines.chunks_exact(3).map(|three| (three[0], (three[1], three[2]))).collect()
}

/// Top directories that are symbolic links: dpkg lists `/bin/sh` where the image has `/usr/bin/sh`.
fn links(root: &(impl Root + ?Sized)) -> Vec<&'static [u8]> {
    let tops = ["bin/", "sbin/", "lib/", "lib32/", "lib64/", "libx32/"];
    let paths: [&[u8]; 6] = [b"/bin/", b"/sbin/", b"/lib/", b"/lib32/", b"/lib64/", b"/libx32/"];
    let is_link = |top: &str| root.is_link(top.trim_end_matches('/'));
    std::iter::zip(tops, paths).filter(|(top, _)| is_link(top)).map(|(_, path)| path).collect()
}

/// Fields of each paragraph; continuation lines are not kept.
fn paragraphs(text: &str) -> impl Iterator<Item = FxHashMap<&str, &str>> {
    text.split("\n\n").map(|paragraph| {
        paragraph
            .lines()
            .filter(|line| !line.starts_with([' ', '\t']))
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key, value.trim()))
            .collect()
    })
}

/// `pkg:deb/debian/curl@7.88.1-10%2Bdeb12u5?arch=amd64&distro=debian-12` (purl-spec, type deb).
fn purl(name: &str, version: &str, architecture: &str, release: &str) -> String {
    let of = |key: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches(['"', '\''])
    };
    let (id, number) = (of("ID"), of("VERSION_ID"));
    let id = if id.is_empty() { "linux" } else { id };
    let distro = if number.is_empty() { id.to_owned() } else { format!("{id}-{number}") };
    let [id, name, version, architecture, distro] = [id, name, version, architecture, &distro].map(escape);
    format!("pkg:deb/{id}/{name}@{version}?arch={architecture}&distro={distro}")
}

/// Percent-encoding of purl-spec.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_urls() {
        let release = "NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\n";
        for (name, version, release, expected) in [
            (
                "curl",
                "7.88.1-10+deb12u5",
                release,
                "pkg:deb/debian/curl@7.88.1-10%2Bdeb12u5?arch=amd64&distro=debian-12",
            ),
            ("g++", "4:12.2.0-3", release, "pkg:deb/debian/g%2B%2B@4:12.2.0-3?arch=amd64&distro=debian-12"),
            ("x", "1", "ID=sid\n", "pkg:deb/sid/x@1?arch=amd64&distro=sid"),
            ("x", "1", "", "pkg:deb/linux/x@1?arch=amd64&distro=linux"),
        ] {
            assert_eq!(purl(name, version, "amd64", release), expected);
        }
    }
}
