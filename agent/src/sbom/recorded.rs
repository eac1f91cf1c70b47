//! What package databases say of their files, as syft-json repeats it in the metadata of a package.
//!
//! Such a digest was not computed from the file that is in the image, so it counts only where the document has none that was
//! ([`Builder::recorded`]). MD5 (dpkg, old rpm) and SHA-1 (apk) stay weak. A SHA-256 (rpm, Python's `RECORD`) is a SHA-256: a file
//! that has it is what that version of the package brings, and that the image has this version is what the document's signature
//! says. How many files rest on it is among the numbers of the coverage.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::checksum::Algorithm;
use super::json::{Maybe, Text};
use super::{Builder, Digests};
use crate::finding::Sha256;

/// Metadata of a package, of whatever type.
#[derive(Deserialize)]
pub(super) struct Metadata<'a> {
    #[serde(borrow, default)]
    files: Files<'a>,
    /// Where the paths of Python's `RECORD` begin.
    #[serde(rename = "sitePackagesRootPath", borrow, default)]
    site_packages: Option<Text<'a>>,
}

/// `files`, as far as they are objects (ruby's are strings) with a digest: only what is of use is kept.
#[derive(Default)]
struct Files<'a>(Vec<Recorded<'a>>);

/// A file with what is recorded of it.
struct Recorded<'a> {
    path: Text<'a>,
    digests: Digests,
    unusable: bool,
}

impl<'de: 'a, 'a> Deserialize<'de> for Files<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Files<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("files of a package")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Files::default())
            }
            fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
                Ok(Files::default())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut files = Vec::new();
                while let Some(Maybe::<File<'de>>(file)) = list.next_element()? {
                    files.extend(file.and_then(File::recorded));
                }
                Ok(Files(files))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Files::default())
            }
        }
        from.deserialize_any(Shape)
    }
}

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow, default)]
    path: Option<Text<'a>>,
    #[serde(default)]
    digest: Recordings,
    /// rpm's.
    #[serde(borrow, default)]
    flags: Option<Text<'a>>,
}

impl<'a> File<'a> {
    fn recorded(self) -> Option<Recorded<'a>> {
        let Self { path, digest: Recordings { digests, unusable }, flags } = self;
        // A ghost is a name that the package owns, without content.
        let is_ghost = || flags.is_some_and(|flags| flags.contains('g'));
        if (digests == Digests::default() && !unusable) || is_ghost() {
            return None;
        }
        path.map(|path| Recorded { path, digests, unusable })
    }
}

#[derive(Deserialize)]
struct Digest<'a> {
    #[serde(borrow, default)]
    algorithm: Cow<'a, str>,
    #[serde(borrow, default)]
    value: Cow<'a, str>,
}

/// The digests of one file; a list in alpm's.
#[derive(Default)]
struct Recordings {
    digests: Digests,
    /// One of them is malformed.
    unusable: bool,
}

impl Recordings {
    fn add(&mut self, digest: &Digest<'_>) {
        self.unusable |= self.digests.record(digest).is_none();
    }
}

impl<'de> Deserialize<'de> for Recordings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Shape;
        impl<'de> Visitor<'de> for Shape {
            type Value = Recordings;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one digest or an array of them")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Recordings::default())
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let mut found = Recordings::default();
                found.add(&Digest::deserialize(MapAccessDeserializer::new(map))?);
                Ok(found)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut found = Recordings::default();
                while let Some(digest) = list.next_element()? {
                    found.add(&digest);
                }
                Ok(found)
            }
        }
        from.deserialize_any(Shape)
    }
}

/// Adds what the package's metadata says of its files. Digests that cannot be read are counted, not refused: package databases
/// are not the work of whoever made the document.
pub(super) fn add(index: &mut Builder, metadata: &Metadata<'_>, package: u32) {
    for Recorded { path, digests, unusable } in &metadata.files.0 {
        let placed = match &metadata.site_packages {
            _ if path.starts_with('/') => Some(Cow::Borrowed(&**path)),
            Some(root) => below(root, path).map(Cow::Owned),
            None => None,
        };
        // What cannot be placed was never of use: `RECORD` of a package outside the image's site-packages.
        let Some(placed) = placed else { continue };
        let added = *digests == Digests::default() || index.recorded(placed.as_bytes(), *digests, package);
        if *unusable || !added {
            index.unusable += 1;
        }
    }
}

/// A path of `RECORD` (PyPA, "Recording installed projects"): relative to site-packages, and up out of it for scripts.
fn below(root: &str, path: &str) -> Option<String> {
    let mut names: Vec<&str> = Vec::new();
    for name in root.split('/').chain(path.split('/')) {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()?),
            _ => names.push(name),
        }
    }
    Some(format!("/{}", names.join("/")))
}

impl Digests {
    /// Takes a digest in the spelling of its package manager; `None` when it is malformed.
    fn record(&mut self, digest: &Digest<'_>) -> Option<()> {
        let value = &*digest.value;
        if value.is_empty() {
            // Of a directory.
            return Some(());
        }
        // apk: `Z:` of the installed database.
        if digest.algorithm == "'Q1'+base64(sha1)" {
            let sha1 = STANDARD.decode(value.strip_prefix("Q1")?).ok()?;
            self.sha1 = Some(sha1.try_into().ok()?);
            return Some(());
        }
        let algorithm = Algorithm::named(&digest.algorithm);
        // Python: base64 for URLs, without padding. 43 characters, so never taken for hexadecimal ones.
        if algorithm == Algorithm::Sha256 && value.len() == 43 {
            let sha256 = URL_SAFE_NO_PAD.decode(value).ok()?;
            self.sha256 = Some(Sha256(sha256.try_into().ok()?)).filter(|sha256| !sha256.is_zero());
            return Some(());
        }
        self.add(algorithm, value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_package_managers() {
        let sha1 = Some([0xb6; 20]);
        for (algorithm, value, expected) in [
            ("md5", "d41d8cd98f00b204e9800998ecf8427e", Some("md5")),
            ("md5", "d41d8cd98f00b204e9800998ecf8427", None),
            ("'Q1'+base64(sha1)", "Q1tra2tra2tra2tra2tra2tra2trY=", Some("sha1")),
            ("'Q1'+base64(sha1)", "tra2tra2tra2tra2tra2tra2trY=", None),
            ("'Q1'+base64(sha1)", "Q1tra2", None),
            ("sha256", "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU", Some("sha256")),
            ("sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", Some("sha256")),
            ("sha256", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU", None),
            ("sha256", "", Some("")),
            ("sha512", "?", Some("")),
        ] {
            let mut digests = Digests::default();
            let digest = Digest { algorithm: algorithm.into(), value: value.into() };
            let read = digests.record(&digest).map(|()| {
                let found = [
                    ("sha256", digests.sha256.is_some()),
                    ("sha1", digests.sha1 == sha1),
                    ("md5", digests.md5.is_some()),
                ];
                found.into_iter().find(|(_, is)| *is).map_or("", |(name, _)| name)
            });
            assert_eq!(read, expected, "{algorithm} {value}");
        }
    }

    #[test]
    fn paths_of_record() {
        let root = "/usr/lib/python3/dist-packages";
        for (path, placed) in [
            ("flask/app.py", Some("/usr/lib/python3/dist-packages/flask/app.py")),
            ("../../../bin/flask", Some("/usr/bin/flask")),
            ("../../../../../etc/x", None),
        ] {
            assert_eq!(below(root, path).as_deref(), placed, "{path}");
        }
    }
}
