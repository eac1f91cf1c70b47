//! apk's database (apk-package(5), the "installed" format): paragraphs of `K:value` lines, in which `F:` opens a
//! directory, `R:` names a file in it, and `Z:` is that file's checksum.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::{Builder, Fault, Kind, Position, Reader, Wanted, lines, shown};
use crate::event::PackageDigest;
use crate::finding::Sha256;

pub(super) const FILES: [&str; 2] = ["lib/apk/db/installed", "usr/lib/apk/db/installed"];

pub(super) fn read(from: &mut Reader<'_>, wanted: &Wanted, to: &mut Builder) {
    for file in FILES {
        if let Ok(Some(text)) = from.read(file, to)
            && let Err((position, reason)) = installed(&text, wanted, to)
        {
            to.problem(file, position, reason);
        }
    }
}

/// Takes in the packages up to the first line that is wrong.
fn installed(text: &[u8], wanted: &Wanted, to: &mut Builder) -> Result<(), Fault> {
    let (mut name, mut version, mut architecture, mut package) = ("", "", "", None);
    let (mut directory, mut file): (&[u8], Option<(usize, Vec<u8>)>) = (b"", None);
    for (line, bytes) in lines(text).chain([(usize::MAX, &b""[..])]) {
        let at = |reason| (Position::Line(line), reason);
        let (key, value) = match bytes {
            [] => (b'\n', &b""[..]),
            [key, b':', value @ ..] => (*key, value),
            _ => return Err(at(format!("expected a letter and a colon, found {}", shown(bytes)))),
        };
        // A file's checksum comes after its name, if it has one.
        if matches!(key, b'R' | b'F' | b'\n')
            && let (Some((line, path)), Some(package)) = (file.take(), package)
        {
            to.file(package, &path, None).map_err(|reason| (Position::Line(line), reason))?;
        }
        match key {
            b'\n' => (name, version, architecture, package, directory) = ("", "", "", None, b""),
            b'P' | b'V' | b'A' => {
                let value = std::str::from_utf8(value).map_err(|_| at("expected UTF-8".to_owned()))?;
                let slot = match key {
                    b'P' => &mut name,
                    b'V' => &mut version,
                    _ => &mut architecture,
                };
                *slot = value;
            }
            b'F' | b'R' if name.is_empty() || version.is_empty() => {
                return Err(at("a file of a package without name or version (P:, V:) before it".to_owned()));
            }
            b'F' => directory = value,
            b'R' => {
                if package.is_none() && wanted.has(Kind::Apk, name, version) {
                    package = Some(to.package(Kind::Apk, name, version, architecture));
                }
                let slash: &[u8] = if directory.is_empty() { b"" } else { b"/" };
                file = package.is_some().then(|| (line, [b"/", directory, slash, value].concat()));
            }
            b'Z' => {
                let digest = checksum(value).map_err(at)?;
                if let (Some((_, path)), Some(package)) = (file.take(), package) {
                    to.file(package, &path, digest).map_err(at)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// `Q1` and a SHA-1, or `Q2` and a SHA-256 (apk-tools 3), in Base64.
fn checksum(value: &[u8]) -> Result<Option<PackageDigest>, String> {
    let wrong = || format!("expected Q1 or Q2 and a digest in Base64, found {}", shown(value));
    let (kind, text) = value.split_at_checked(2).ok_or_else(wrong)?;
    let bytes = BASE64_STANDARD.decode(text).map_err(|_| wrong())?;
    let digest = match kind {
        b"Q1" => <[u8; 20]>::try_from(bytes).ok().map(PackageDigest::Sha1),
        b"Q2" => <[u8; 32]>::try_from(bytes).ok().map(|d| PackageDigest::Sha256(Sha256(d))),
        _ => None,
    };
    digest.map(Some).ok_or_else(wrong)
}
