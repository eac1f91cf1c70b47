//! Python's own database: `NAME-VERSION.dist-info/RECORD` beside the packages (PyPA "Recording installed projects"):
//! lines of `path,sha256=DIGEST,size`, the digest in URL-safe Base64 without padding.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::{Builder, Fault, Kind, Position, Reader, Wanted, lines, shown};
use crate::event::PackageDigest;
use crate::finding::Sha256;

/// Directories that hold `python3.N/{site,dist}-packages`. A virtual environment elsewhere is not looked for: that would
/// be a walk through the whole image.
const PLACES: [&str; 8] = [
    "usr/lib",
    "usr/lib64",
    "usr/local/lib",
    "usr/local/lib64",
    "opt/venv/lib",
    "opt/venv/lib64",
    "venv/lib",
    "app/.venv/lib",
];

pub(super) fn is_of_database(path: &str) -> bool {
    path.ends_with(".dist-info/RECORD") && PLACES.iter().any(|place| path.starts_with(place))
}

pub(super) fn read(from: &mut Reader<'_>, wanted: &Wanted, to: &mut Builder) {
    for place in PLACES {
        for version in from.list(place, to) {
            if !version.is_dir || !version.name.starts_with("python3") {
                continue;
            }
            for kind in ["site-packages", "dist-packages"] {
                packages(from, wanted, to, &format!("{place}/{}/{kind}", version.name));
            }
        }
    }
}

fn packages(from: &mut Reader<'_>, wanted: &Wanted, to: &mut Builder, directory: &str) {
    for entry in from.list(directory, to) {
        let Some(stem) = entry.name.strip_suffix(".dist-info").filter(|_| entry.is_dir) else { continue };
        // Hyphens of the name are written as underscores, so the first one ends it.
        let Some((name, version)) = stem.split_once('-') else { continue };
        if !wanted.has(Kind::Python, name, version) {
            continue;
        }
        let file = format!("{directory}/{}/RECORD", entry.name);
        if to.is_owned(&format!("/{file}")) {
            continue;
        }
        let Ok(Some(text)) = from.read(&file, to) else { continue };
        let package = to.package(Kind::Python, name, version, "");
        if let Err((position, reason)) =
            record(&text, directory, |path, digest| to.file(package, path, digest))
        {
            to.problem(&file, position, reason);
        }
    }
}

fn record(
    text: &[u8],
    directory: &str,
    mut add: impl FnMut(&[u8], Option<PackageDigest>) -> Result<(), String>,
) -> Result<(), Fault> {
    for (line, bytes) in lines(text) {
        let at = |reason| (Position::Line(line), reason);
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        if bytes.is_empty() {
            continue;
        }
        let (path, rest) = first_field(bytes).map_err(at)?;
        let digest = rest.split(|b| *b == b',').next().unwrap_or_default();
        let digest = digest_of(digest).map_err(at)?;
        let path = joined(directory.as_bytes(), &path).map_err(at)?;
        add(&path, digest).map_err(at)?;
    }
    Ok(())
}

/// The first field of a line of comma-separated values (RFC 4180), and what follows its comma.
fn first_field(line: &[u8]) -> Result<(Vec<u8>, &[u8]), String> {
    let Some(mut quoted) = line.strip_prefix(b"\"") else {
        let comma = memchr::memchr(b',', line)
            .ok_or_else(|| format!("expected a path, a digest and a size, found {}", shown(line)))?;
        return Ok((line[..comma].to_vec(), &line[comma + 1..]));
    };
    let mut field = Vec::new();
    loop {
        let quote = memchr::memchr(b'"', quoted)
            .ok_or_else(|| format!("expected a closing quote, found {}", shown(line)))?;
        field.extend_from_slice(&quoted[..quote]);
        quoted = &quoted[quote + 1..];
        match quoted.strip_prefix(b"\"") {
            Some(rest) => {
                field.push(b'"');
                quoted = rest;
            }
            None => {
                let rest = quoted
                    .strip_prefix(b",")
                    .ok_or_else(|| format!("expected a comma after the quote, found {}", shown(quoted)))?;
                return Ok((field, rest));
            }
        }
    }
}

/// Of several algorithms only SHA-256 counts; an empty field is a file without a digest. Some packages of Debian
/// 12 (`python3-blinker`, `python3-distro`) have it in hexadecimal.
fn digest_of(text: &[u8]) -> Result<Option<PackageDigest>, String> {
    let Some(text) = text.strip_prefix(b"sha256=") else { return Ok(None) };
    let hexadecimal = || std::str::from_utf8(text).ok().and_then(crate::sbom::hex);
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.strip_suffix(b"=").unwrap_or(text)).ok();
    match bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()).or_else(hexadecimal) {
        Some(digest) => Ok(Some(PackageDigest::Sha256(Sha256(digest)))),
        None => Err(format!("expected a SHA-256 in URL-safe Base64, found {}", shown(text))),
    }
}

/// A path of a record, which starts from the directory of the packages and may climb (`../../../bin/x`), not above the root.
fn joined(directory: &[u8], path: &[u8]) -> Result<Vec<u8>, String> {
    if path.starts_with(b"/") {
        return Ok(path.to_vec());
    }
    let mut names: Vec<&[u8]> = directory.split(|b| *b == b'/').collect();
    for name in path.split(|b| *b == b'/') {
        match name {
            b"" | b"." => {}
            b".." => {
                names.pop().ok_or_else(|| format!("a path that climbs above the root: {}", shown(path)))?;
            }
            name => names.push(name),
        }
    }
    Ok([b"/", names.join(&b'/').as_slice()].concat())
}
