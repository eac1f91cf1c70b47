//! Which packages count: those that the verified SBOM names.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use smallvec::SmallVec;

use crate::sbom::Package;

/// A kind of package database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// dpkg.
    Deb,
    /// apk.
    Apk,
    /// rpm.
    Rpm,
    /// Python's `dist-info`.
    Python,
}

impl Kind {
    /// The type of its package URLs (purl-spec, PURL-TYPES).
    fn of_purl(kind: &str) -> Option<Self> {
        let is = |name: &str| kind.eq_ignore_ascii_case(name);
        match () {
            () if is("deb") => Some(Self::Deb),
            () if is("apk") => Some(Self::Apk),
            () if is("rpm") => Some(Self::Rpm),
            () if is("pypi") => Some(Self::Python),
            () => None,
        }
    }
}

/// Versions of a name, each of one kind of database or of any.
type Versions = SmallVec<[(Option<Kind>, Box<str>); 1]>;

/// The packages that count.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    all: bool,
    versions: HashMap<Box<str>, Versions>,
    paths: Option<HashSet<Box<[u8]>>>,
}

impl Wanted {
    /// Every package of every database: the host's own.
    pub fn everything() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Every package, but only what owns these (canonical) paths: much quicker for few of them.
    pub fn owners_of<'a>(paths: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let paths = Some(paths.into_iter().map(Box::from).collect());
        Self { all: true, paths, ..Self::default() }
    }

    pub(super) fn paths(&self) -> Option<&HashSet<Box<[u8]>>> {
        self.paths.as_ref()
    }

    /// The packages that an SBOM names. Where it has a package URL, that says of which database the package is; a package
    /// without a version could be any, so it does not count.
    pub fn named<'a>(packages: impl IntoIterator<Item = Package<'a>>) -> Self {
        let mut wanted = Self::default();
        for Package { name, version, purl } in packages {
            match purl.map(Purl::parse) {
                None => wanted.add(None, name, version),
                Some(Some(purl)) => {
                    let Some(kind) = Kind::of_purl(purl.kind) else { continue };
                    wanted.add(Some(kind), &purl.name, version);
                    wanted.add(Some(kind), &purl.name, &purl.version);
                    wanted.add(Some(kind), name, version);
                }
                // Not a package URL: nothing says of which database it is.
                Some(None) => {}
            }
        }
        wanted
    }

    fn add(&mut self, kind: Option<Kind>, name: &str, version: &str) {
        if name.is_empty() || version.is_empty() {
            return;
        }
        let python = matches!(kind, None | Some(Kind::Python)).then(|| normal(name)).filter(|n| n != name);
        for name in std::iter::once(Cow::Borrowed(name)).chain(python.map(Cow::Owned)) {
            let have = self.versions.entry(name.into()).or_default();
            if !have.iter().any(|(k, v)| *k == kind && **v == *version) {
                have.push((kind, version.into()));
            }
        }
    }

    /// Nothing counts.
    pub fn is_empty(&self) -> bool {
        !self.all && self.versions.is_empty()
    }

    /// The SBOM names this package of a database.
    pub(super) fn has(&self, kind: Kind, name: &str, version: &str) -> bool {
        if self.all {
            return true;
        }
        let name = if kind == Kind::Python { normal(name).into() } else { Cow::Borrowed(name) };
        self.versions.get(&*name).is_some_and(|have| {
            have.iter().any(|(k, v)| k.is_none_or(|k| k == kind) && same_version(v, version))
        })
    }
}

/// A Python project's name as it is compared (PEP 503).
fn normal(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if out.ends_with('-') => {}
            '-' | '_' | '.' => out.push('-'),
            c => out.push(c.to_ascii_lowercase()),
        }
    }
    out
}

/// Equal, but for an epoch that only one of the two tells: tools put it into the version, beside it, or nowhere.
fn same_version(a: &str, b: &str) -> bool {
    let (epoch_a, a) = epoch(a);
    let (epoch_b, b) = epoch(b);
    a == b && (epoch_a.is_none() || epoch_b.is_none() || epoch_a == epoch_b)
}

fn epoch(version: &str) -> (Option<&str>, &str) {
    match version.split_once(':') {
        Some((epoch, rest)) if !epoch.is_empty() && epoch.bytes().all(|b| b.is_ascii_digit()) => {
            (Some(epoch), rest)
        }
        _ => (None, version),
    }
}

/// What of a package URL names the package (purl-spec): `pkg:TYPE/NAMESPACE/NAME@VERSION?QUALIFIERS#SUBPATH`.
struct Purl<'a> {
    kind: &'a str,
    name: String,
    version: String,
}

impl<'a> Purl<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let rest = text.strip_prefix("pkg:")?.trim_start_matches('/');
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let (rest, qualifiers) = rest.split_once('?').unwrap_or((rest, ""));
        let (kind, rest) = rest.split_once('/')?;
        let (path, version) = rest.rsplit_once('@').unwrap_or((rest, ""));
        let name = path.rsplit('/').next().unwrap_or_default();
        let mut version = decode(version)?;
        let epoch = qualifiers.split('&').find_map(|q| q.strip_prefix("epoch="));
        if let Some(epoch) = epoch.filter(|e| !e.is_empty() && !version.contains(':')) {
            version = format!("{epoch}:{version}");
        }
        Some(Self { kind, name: decode(name)?, version })
    }
}

fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let digit = |n: usize| char::from(*after.get(n)?).to_digit(16);
            out.push(u8::try_from(digit(0)? << 4 | digit(1)?).ok()?);
            rest = &after[2..];
        } else {
            out.push(byte);
            rest = after;
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_counts_if_the_sbom_names_it_with_its_version_and_kind() {
        let named = |name, version, purl| Package { name, version, purl };
        let wanted = Wanted::named([
            named("curl", "7.88.1-10+deb12u5", Some("pkg:deb/debian/curl@7.88.1-10%2Bdeb12u5?arch=amd64")),
            named("bash", "5.1.8-9.el9", Some("pkg:rpm/redhat/bash@5.1.8-9.el9?arch=x86_64&epoch=1")),
            named("busybox", "1.36.1-r2", None),
            named("left-pad", "1.0", Some("pkg:npm/left-pad@1.0")),
            named("Ruamel.Yaml", "0.18", Some("pkg:pypi/ruamel.yaml@0.18")),
            named("@scope", "1", Some("not a purl")),
            named("unversioned", "", None),
            named("github.com/x/y", "1", Some("pkg:deb/debian/libstdc%2B%2B6@12?arch=amd64")),
        ]);
        for (kind, name, version, expected) in [
            (Kind::Deb, "curl", "7.88.1-10+deb12u5", true),
            (Kind::Deb, "curl", "7.88.1-10+deb12u6", false),
            (Kind::Rpm, "curl", "7.88.1-10+deb12u5", false),
            (Kind::Rpm, "bash", "1:5.1.8-9.el9", true),
            (Kind::Rpm, "bash", "5.1.8-9.el9", true),
            (Kind::Apk, "busybox", "1.36.1-r2", true),
            (Kind::Deb, "busybox", "1.36.1-r2", true),
            (Kind::Python, "left-pad", "1.0", false),
            (Kind::Python, "ruamel_yaml", "0.18", true),
            (Kind::Python, "ruamel.yaml", "0.17", false),
            (Kind::Deb, "@scope", "1", false),
            (Kind::Deb, "unversioned", "", false),
            (Kind::Deb, "libstdc++6", "12", true),
        ] {
            assert_eq!(wanted.has(kind, name, version), expected, "{kind:?} {name} {version}");
        }
        assert!(Wanted::everything().has(Kind::Apk, "x", ""));
        assert!(Wanted::default().is_empty() && !Wanted::everything().is_empty());
    }

    #[test]
    fn packages_as_real_tools_name_them() {
        let ubi9 = [
            (Kind::Rpm, "acl", "2.3.1-4.el9"),
            (Kind::Rpm, "dbus", "1:1.12.20-8.el9"),
            (Kind::Python, "pysocks", "1.7.1"),
        ];
        for (file, packages) in [
            ("trivy-fluentd.cdx17.json", &[(Kind::Deb, "adduser", "3.118")][..]),
            ("ubi9.spdx.json", &ubi9),
            ("kubescape-nginx.syft.json", &[(Kind::Deb, "base-files", "12.4+deb12u1")]),
            ("web.cdx.json", &[(Kind::Deb, "adduser", "3.134")]),
        ] {
            let path = std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR"))
                .join("../../shared/data/sbom")
                .join(file);
            let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            let index = crate::sbom::parse(&bytes, &crate::sbom::Limits::default()).expect("a good document");
            let wanted = Wanted::named(index.packages());
            for (kind, name, version) in packages {
                assert!(wanted.has(*kind, name, version), "{file}: {name} {version}");
                assert!(!wanted.has(Kind::Apk, name, version), "{file}: {name} is of another kind");
                assert!(!wanted.has(*kind, name, "0"), "{file}: {name} 0");
            }
        }
    }

    #[test]
    fn epochs() {
        for (a, b, expected) in [
            ("1:2", "1:2", true),
            ("1:2", "2", true),
            ("1:2", "2:2", false),
            ("2", "2", true),
            ("a:2", "2", false),
        ] {
            assert_eq!(same_version(a, b), expected, "{a} {b}");
            assert_eq!(same_version(b, a), expected, "{b} {a}");
        }
    }
}
