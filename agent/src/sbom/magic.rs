//! What bytes are that are no SBOM, by how they begin.

/// Beginnings of files that are no text.
const BEGINNINGS: [(&[u8], &str); 12] = [
    (b"\x1f\x8b", "compressed with gzip; decompress it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; decompress it first"),
    (b"\xfd7zXZ\0", "compressed with xz; decompress it first"),
    (b"BZh", "compressed with bzip2; decompress it first"),
    (b"\x04\x22\x4d\x18", "compressed with lz4; decompress it first"),
    (b"PK\x03\x04", "a zip archive; unpack it first"),
    (b"\x7fELF", "an ELF file"),
    (b"\xff\xfe", "UTF-16 or UTF-32 text; expected UTF-8"),
    (b"\xfe\xff", "UTF-16 text; expected UTF-8"),
    (b"\0\0\xfe\xff", "UTF-32 text; expected UTF-8"),
    (b"{\0", "UTF-16 or UTF-32 text; expected UTF-8"),
    (b"\0{", "UTF-16 text; expected UTF-8"),
];
/// Where an archive of tar says what it is (POSIX, `ustar`).
const TAR: (usize, &[u8]) = (257, b"ustar");

/// What bytes are that are certainly neither JSON nor tag-value.
pub(super) fn other(bytes: &[u8]) -> Option<&'static str> {
    if let Some((_, what)) = BEGINNINGS.iter().find(|(beginning, _)| bytes.starts_with(beginning)) {
        return Some(what);
    }
    if bytes.get(TAR.0..).is_some_and(|rest| rest.starts_with(TAR.1)) {
        return Some("a tar archive; unpack it first");
    }
    let text = bytes.trim_ascii_start();
    let begins = |with: &[u8]| text.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with));
    match text.first() {
        None => Some("empty"),
        Some(b'<') if begins(b"<!doctype html") || begins(b"<html") => Some("a web page"),
        Some(b'<') => Some("XML"),
        Some(b'[') => Some("a JSON array; expected one object"),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginnings() {
        let tar = [&[0; 257][..], b"ustar\0"].concat();
        for (bytes, what) in [
            (&b""[..], "empty"),
            (b" \r\n", "empty"),
            (b"\x1f\x8b\x08", "compressed with gzip"),
            (b"\xfd7zXZ\0", "compressed with xz"),
            (b"\xff\xfe{\0", "UTF-16"),
            (b"{\0\"\0", "UTF-16"),
            (b"\x7fELF\x02", "an ELF file"),
            (b"\n<?xml", "XML"),
            (b"<!DOCTYPE HTML>", "a web page"),
            (b" [{}]", "a JSON array"),
            (&tar, "a tar archive"),
        ] {
            assert!(other(bytes).is_some_and(|found| found.starts_with(what)), "{bytes:?}");
        }
        assert_eq!(other(b" {}"), None);
        assert_eq!(other(b"SPDXVersion: SPDX-2.3"), None);
    }
}
