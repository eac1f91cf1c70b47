//! dpkg's database (deb-control(5), dpkg-query(1); `status.d` is what distroless images have in place of it).

use std::collections::{HashMap, HashSet};

use super::{Builder, Fault, Kind, Position, Reader, Refused, Wanted, lines, shown};
use crate::event::PackageDigest;
use crate::sbom::hex;

const STATUS: &str = "var/lib/dpkg/status";
const INFO: &str = "var/lib/dpkg/info/";
const PARTS: &str = "var/lib/dpkg/status.d";
const DIVERSIONS: &str = "var/lib/dpkg/diversions";

/// One paragraph of `status`, as far as it matters.
#[derive(Default)]
struct Paragraph<'a> {
    name: &'a str,
    version: &'a str,
    architecture: &'a str,
    status: Option<&'a str>,
    /// Lines of `Conffiles`: path, MD5, and sometimes a word.
    conffiles: Vec<(usize, &'a str)>,
    line: usize,
}

impl Paragraph<'_> {
    /// Every state but two has files in place, half-configured for one. `status.d` says nothing of it.
    fn is_installed(&self) -> bool {
        let state = self.status.map(|status| status.rsplit(' ').next().unwrap_or_default());
        !matches!(state, Some("not-installed" | "config-files"))
    }
}

pub(super) fn is_of_database(path: &str) -> bool {
    matches!(path, STATUS | DIVERSIONS)
        || path.strip_prefix(INFO).is_some_and(|name| name.ends_with(".list") || name.ends_with(".md5sums"))
        || path.strip_prefix(PARTS).is_some_and(|name| name.starts_with('/'))
}

pub(super) fn read(from: &mut Reader<'_>, wanted: &Wanted, to: &mut Builder) {
    // Without it, files would be given to the wrong packages.
    let Ok(diversions) = from.read(DIVERSIONS, to).map(Option::unwrap_or_default) else { return };
    let diversions = match diversions_of(&diversions) {
        Ok(diversions) => diversions,
        Err((position, reason)) => return to.problem(DIVERSIONS, position, reason),
    };
    if let Ok(Some(text)) = from.read(STATUS, to) {
        packages(
            from,
            wanted,
            to,
            STATUS,
            &text,
            |paragraph, architecture| {
                // Multi-Arch packages have their architecture in the file's name.
                let name = paragraph.name;
                let stem = format!("{INFO}{name}");
                if architecture { format!("{stem}:{}", paragraph.architecture) } else { stem }
            },
            &diversions,
        );
    }
    for part in from.list(PARTS, to) {
        if part.is_dir || part.name.ends_with(".md5sums") || part.name.ends_with(".list") {
            continue;
        }
        let file = format!("{PARTS}/{}", part.name);
        if let Ok(Some(text)) = from.read(&file, to) {
            packages(from, wanted, to, &file, &text, |_, _| file.clone(), &diversions);
        }
    }
}

type Diversions<'a> = HashMap<&'a [u8], (&'a [u8], &'a [u8])>;

/// Takes in the packages of a text. `stem` names a package's files without their ending, with or without architecture.
fn packages(
    from: &mut Reader<'_>,
    wanted: &Wanted,
    to: &mut Builder,
    file: &str,
    text: &[u8],
    stem: impl Fn(&Paragraph<'_>, bool) -> String,
    diversions: &Diversions<'_>,
) {
    let paragraphs = match paragraphs(text) {
        Ok(paragraphs) => paragraphs,
        Err((position, reason)) => return to.problem(file, position, reason),
    };
    for paragraph in &paragraphs {
        if !paragraph.is_installed() || !wanted.has(Kind::Deb, paragraph.name, paragraph.version) {
            continue;
        }
        // It becomes part of a file's name.
        if [paragraph.name, paragraph.architecture].iter().any(|t| t.contains(['/', '\0'])) {
            let reason = format!("a package name or architecture with a slash: {:?}", paragraph.name);
            to.problem(file, Position::Line(paragraph.line), reason);
            continue;
        }
        let package = to.package(Kind::Deb, paragraph.name, paragraph.version, paragraph.architecture);
        let add = |to: &mut Builder, path: &[u8], digest| {
            let absolute = [b"/", path.strip_prefix(b"./").unwrap_or(path)].concat();
            let absolute = if path.starts_with(b"/") { path } else { &absolute };
            let path = match diversions.get(absolute) {
                Some((elsewhere, by)) if *by != paragraph.name.as_bytes() => elsewhere,
                _ => absolute,
            };
            to.file(package, path, digest)
        };
        let with_architecture = stem(paragraph, true);
        let mut named = |to: &mut Builder, ending: &str| {
            let stems = [with_architecture.as_str(), &stem(paragraph, false)];
            for name in stems.map(|stem| format!("{stem}.{ending}")) {
                if let Some(text) = from.read(&name, to)? {
                    return Ok(Some((name, text)));
                }
            }
            Ok(None)
        };
        // A list whose digests were refused would say less than it seems to.
        let Ok(digests): Result<_, Refused> = named(to, "md5sums") else { continue };
        let (name, text) = digests.unwrap_or_default();
        let mut known = HashSet::new();
        let result = md5sums(&text, |path, md5| {
            known.insert(path);
            add(to, path, Some(md5))
        });
        if let Err((position, reason)) = result {
            to.problem(&name, position, reason);
            continue;
        }
        let Ok(paths) = named(to, "list") else { continue };
        if paths.is_none() && known.is_empty() && file == STATUS {
            let reason =
                format!("{} is installed, but without a list of its files (dpkg --audit)", paragraph.name);
            to.problem(file, Position::Line(paragraph.line), reason);
        }
        let (name, text) = paths.unwrap_or_default();
        let result =
            list(&text, |path| if known.contains(&path[1..]) { Ok(()) } else { add(to, path, None) });
        if let Err((position, reason)) = result {
            to.problem(&name, position, reason);
            continue;
        }
        for (line, text) in &paragraph.conffiles {
            let result = conffile(text).and_then(|known| match known {
                Some((path, md5)) => add(to, path.as_bytes(), Some(md5)),
                None => Ok(()),
            });
            if let Err(reason) = result {
                to.problem(file, Position::Line(*line), reason);
            }
        }
    }
}

/// Paragraphs that name a package.
fn paragraphs(text: &[u8]) -> Result<Vec<Paragraph<'_>>, Fault> {
    let mut all = Vec::new();
    let mut now = Paragraph::default();
    let mut in_conffiles = false;
    for (line, bytes) in lines(text).chain([(usize::MAX, &b""[..])]) {
        if bytes.is_empty() {
            let done = std::mem::take(&mut now);
            if !done.name.is_empty() && !done.version.is_empty() {
                all.push(done);
            }
            in_conffiles = false;
            continue;
        }
        if bytes.starts_with(b" ") || bytes.starts_with(b"\t") {
            // Descriptions may be in any encoding; what is used of a conffile may not.
            if in_conffiles {
                match std::str::from_utf8(bytes) {
                    Ok(text) => now.conffiles.push((line, text.trim())),
                    Err(_) => return Err((Position::Line(line), "expected UTF-8".to_owned())),
                }
            }
            continue;
        }
        let Some(colon) = memchr::memchr(b':', bytes) else {
            return Err((Position::Line(line), format!("expected `Field: value`, found {}", shown(bytes))));
        };
        let (field, value) = (&bytes[..colon], &bytes[colon + 1..]);
        in_conffiles = field.eq_ignore_ascii_case(b"Conffiles");
        let slot = match () {
            () if field.eq_ignore_ascii_case(b"Package") => &mut now.name,
            () if field.eq_ignore_ascii_case(b"Version") => &mut now.version,
            () if field.eq_ignore_ascii_case(b"Architecture") => &mut now.architecture,
            () if field.eq_ignore_ascii_case(b"Status") => now.status.get_or_insert_default(),
            () => continue,
        };
        let Ok(value) = std::str::from_utf8(value) else {
            return Err((Position::Line(line), "expected UTF-8".to_owned()));
        };
        if !slot.is_empty() {
            return Err((Position::Line(line), format!("the field {} twice", shown(field))));
        }
        *slot = value.trim();
        if field.eq_ignore_ascii_case(b"Package") {
            now.line = line;
        }
    }
    Ok(all)
}

/// `<MD5>  usr/bin/x` lines.
fn md5sums<'a>(
    text: &'a [u8],
    mut add: impl FnMut(&'a [u8], PackageDigest) -> Result<(), String>,
) -> Result<(), Fault> {
    for (line, bytes) in lines(text).filter(|(_, bytes)| !bytes.is_empty()) {
        let at = |reason| (Position::Line(line), reason);
        let digest = bytes.get(..32).and_then(|d| hex::<16>(std::str::from_utf8(d).ok()?));
        let path = bytes.get(32..).and_then(|rest| rest.strip_prefix(b"  ").or(rest.strip_prefix(b" *")));
        let (Some(digest), Some(path)) = (digest, path) else {
            return Err(at(format!("expected an MD5, two blanks and a path, found {}", shown(bytes))));
        };
        add(path, PackageDigest::Md5(digest)).map_err(at)?;
    }
    Ok(())
}

/// One absolute path a line, directories included.
fn list<'a>(text: &'a [u8], mut add: impl FnMut(&'a [u8]) -> Result<(), String>) -> Result<(), Fault> {
    for (line, path) in lines(text).filter(|(_, path)| !matches!(*path, b"" | b"/." | b"/")) {
        if !path.starts_with(b"/") {
            return Err((Position::Line(line), format!("expected an absolute path, found {}", shown(path))));
        }
        add(path).map_err(|reason| (Position::Line(line), reason))?;
    }
    Ok(())
}

/// A conffile's path and the MD5 that the package gave it; `None` for one without (`newconffile`).
fn conffile(text: &str) -> Result<Option<(&str, PackageDigest)>, String> {
    // A path may hold blanks; what follows the digest is `obsolete` or `remove-on-upgrade`.
    let text =
        [" obsolete", " remove-on-upgrade"].iter().fold(text, |t, word| t.strip_suffix(word).unwrap_or(t));
    let (path, digest) =
        text.rsplit_once(' ').ok_or_else(|| format!("expected a path and an MD5, found {text:?}"))?;
    if digest == "newconffile" {
        return Ok(None);
    }
    match hex::<16>(digest) {
        Some(digest) => Ok(Some((path, PackageDigest::Md5(digest)))),
        None => Err(format!("expected a path and an MD5, found {text:?}")),
    }
}

/// Path → where it is for every package but the one that diverts it. Three lines each: from, to, package.
fn diversions_of(text: &[u8]) -> Result<Diversions<'_>, Fault> {
    let lines: Vec<&[u8]> =
        if text.is_empty() { Vec::new() } else { lines(text).map(|(_, line)| line).collect() };
    if !lines.len().is_multiple_of(3) {
        let reason = format!("expected three lines for each diversion, found {} lines", lines.len());
        return Err((Position::Line(lines.len()), reason));
    }
    Ok(lines.chunks_exact(3).map(|three| (three[0], (three[1], three[2]))).collect())
}
