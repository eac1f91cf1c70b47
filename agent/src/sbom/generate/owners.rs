//! Which package owns a file, by the package databases of the tree or image, and how packages are named.

use std::io;

use super::oci;
use crate::packages::{self, Entry, Files, Installed, Kind, Limits, Owners};

/// Where a distribution says what it is. The second is a link to the first, which may lead out of the tree, or a file of its own.
const RELEASE: [&str; 2] = ["usr/lib/os-release", "etc/os-release"];
/// Largest of these, bytes.
const RELEASE_BYTES: u64 = 1 << 20;

/// A package of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) purl: String,
}

/// The packages, and what of the databases could not be used.
pub(super) struct Database {
    pub(super) packages: Vec<Package>,
    owners: Owners,
}

impl Database {
    pub(super) fn load(files: &dyn Files) -> Self {
        let release = RELEASE.iter().find_map(|path| files.read(path, RELEASE_BYTES).ok().flatten());
        let release = Release::parse(&String::from_utf8_lossy(&release.unwrap_or_default()));
        let owners = packages::owners(files, Limits::default());
        let package = |package: &Installed| Package {
            name: package.name.to_string(),
            version: package.version.to_string(),
            purl: purl(package, &release),
        };
        Self { packages: owners.packages.iter().map(package).collect(), owners }
    }

    /// Number of the package that owns a file; the path is relative to the root.
    pub(super) fn owner(&self, path: &str) -> Option<u32> {
        self.owners.owner(format!("/{path}").as_bytes())
    }

    /// What of the databases could not be used.
    pub(super) fn trouble(&self) -> Vec<String> {
        let (problems, more) = self.owners.problems();
        let more = (more > 0).then(|| format!("{more} more parts of it do not count"));
        problems.iter().map(ToString::to_string).chain(more).collect()
    }
}

impl Files for oci::Tree {
    fn read(&self, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        match self.kept(path) {
            Some(bytes) if bytes.len() as u64 > limit => {
                Err(io::Error::other(format!("expected at most {limit} bytes, found {}", bytes.len())))
            }
            kept => Ok(kept.map(<[u8]>::to_vec)),
        }
    }

    fn list(&self, path: &str) -> io::Result<Vec<Entry>> {
        Ok(self.children(path))
    }

    fn is_link(&self, path: &str) -> bool {
        self.is_link(path)
    }
}

/// Files of an image whose content is needed for this.
pub(super) fn is_needed(path: &[u8]) -> bool {
    let path = path.strip_prefix(b"/").and_then(|path| std::str::from_utf8(path).ok());
    path.is_some_and(|path| RELEASE.contains(&path) || packages::is_of_database(path))
}

/// What package URLs say of the distribution: `ID` and `VERSION_ID` of os-release(5).
struct Release {
    id: String,
    distro: String,
}

impl Release {
    fn parse(text: &str) -> Self {
        let of = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches(['"', '\''])
        };
        let (id, number) = (of("ID"), of("VERSION_ID"));
        let id = if id.is_empty() { "linux" } else { id };
        let distro = if number.is_empty() { id.to_owned() } else { format!("{id}-{number}") };
        Self { id: id.to_owned(), distro }
    }
}

/// `pkg:deb/debian/curl@7.88.1-10%2Bdeb12u5?arch=amd64&distro=debian-12` (purl-spec, types deb, apk, rpm, pypi).
fn purl(package: &Installed, release: &Release) -> String {
    let Installed { kind, name, version, architecture } = package;
    let (namespace, epoch, version) = match (kind, version.split_once(':')) {
        // Type pypi: in lower case, `_` is `-`; there is no namespace.
        (Kind::Python, _) => {
            let name = name.to_ascii_lowercase().replace('_', "-");
            return format!("pkg:pypi/{}@{}", escape(&name), escape(version));
        }
        // Type rpm: the vendor, and the epoch beside the version.
        (Kind::Rpm, epoch) => {
            let vendor = if release.id == "rhel" { "redhat" } else { &*release.id };
            let (epoch, version) =
                epoch.map_or((None, &**version), |(epoch, version)| (Some(epoch), version));
            (vendor, epoch, version)
        }
        (Kind::Deb | Kind::Apk, _) => (&*release.id, None, &**version),
    };
    let kind = match kind {
        Kind::Deb => "deb",
        Kind::Apk => "apk",
        Kind::Rpm => "rpm",
        Kind::Python => "pypi",
    };
    let [namespace, name, version] = [namespace, name, version].map(escape);
    let qualifiers = [("arch", Some(&**architecture)), ("distro", Some(&*release.distro)), ("epoch", epoch)];
    let qualifiers: Vec<_> = qualifiers
        .into_iter()
        .filter_map(|(key, value)| {
            value.filter(|value| !value.is_empty()).map(|value| format!("{key}={}", escape(value)))
        })
        .collect();
    format!("pkg:{kind}/{namespace}/{name}@{version}?{}", qualifiers.join("&"))
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
        let debian = "NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\n";
        let redhat = "ID=\"rhel\"\nVERSION_ID='9.3'\n";
        for (kind, name, version, architecture, release, expected) in [
            (
                Kind::Deb,
                "curl",
                "7.88.1-10+deb12u5",
                "amd64",
                debian,
                "pkg:deb/debian/curl@7.88.1-10%2Bdeb12u5?arch=amd64&distro=debian-12",
            ),
            (
                Kind::Deb,
                "g++",
                "4:12.2.0-3",
                "amd64",
                debian,
                "pkg:deb/debian/g%2B%2B@4:12.2.0-3?arch=amd64&distro=debian-12",
            ),
            (Kind::Deb, "x", "1", "amd64", "ID=sid\n", "pkg:deb/sid/x@1?arch=amd64&distro=sid"),
            (Kind::Deb, "x", "1", "", "", "pkg:deb/linux/x@1?distro=linux"),
            (
                Kind::Apk,
                "busybox",
                "1.36.1-r2",
                "x86_64",
                "ID=alpine\nVERSION_ID=3.19.0\n",
                "pkg:apk/alpine/busybox@1.36.1-r2?arch=x86_64&distro=alpine-3.19.0",
            ),
            (
                Kind::Rpm,
                "dbus",
                "1:1.12.20-8.el9",
                "x86_64",
                redhat,
                "pkg:rpm/redhat/dbus@1.12.20-8.el9?arch=x86_64&distro=rhel-9.3&epoch=1",
            ),
            (Kind::Python, "Some_Tool", "1.0", "", debian, "pkg:pypi/some-tool@1.0"),
        ] {
            let [name, version, architecture] = [name, version, architecture].map(Box::from);
            let package = Installed { kind, name, version, architecture };
            assert_eq!(purl(&package, &Release::parse(release)), expected);
        }
    }
}
