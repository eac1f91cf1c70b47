//! One fast pass over the bytes before anything is parsed: nesting, and which format it is.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::json::{Loose, Maybe, Object};
use super::{Format, Position, SbomError};

/// Refuses JSON that is nested deeper than `limit`. Strings are skipped; anything else wrong with the JSON is the parser's to find.
pub(super) fn depth(bytes: &[u8], limit: u32) -> Result<(), SbomError> {
    let mut depth = 0_u32;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += 1;
                // To the closing quote, past escaped characters.
                while let Some(special) = special(bytes, at) {
                    at = special;
                    if bytes[at] == b'"' {
                        break;
                    }
                    at += 2;
                }
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    let Position { line, column } = Position::of(bytes, at);
                    return Err(SbomError::TooDeep { line, column, limit });
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    Ok(())
}

/// The next quote or backslash.
fn special(bytes: &[u8], mut at: usize) -> Option<usize> {
    // Most strings are short: eight bytes at once, without the way to `memchr` and back.
    for _ in 0..4 {
        let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk()) else { break };
        let word = u64::from_le_bytes(*word);
        let found = zero_bytes(word ^ u64::from_le_bytes([b'"'; 8]))
            | zero_bytes(word ^ u64::from_le_bytes([b'\\'; 8]));
        if found != 0 {
            return Some(at + usize::try_from(found.trailing_zeros() / 8).unwrap_or(0));
        }
        at += 8;
    }
    memchr::memchr2(b'"', b'\\', bytes.get(at..)?).map(|skip| at + skip)
}

/// The top bit of each byte that is zero; above the first such byte also of others (Hacker's Delight, 6-1).
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(u64::from_le_bytes([0x01; 8])) & !word & u64::from_le_bytes([0x80; 8])
}

/// Keys at the top of a document that tell the formats apart, and what is often taken for an SBOM.
#[derive(Deserialize)]
struct Marks<'a> {
    #[serde(rename = "spdxVersion", borrow, default)]
    spdx: Loose<'a>,
    #[serde(rename = "bomFormat", borrow, default)]
    bom: Loose<'a>,
    #[serde(rename = "@context", borrow)]
    context: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow, default)]
    schema: Maybe<Schema<'a>>,
    artifacts: Option<IgnoredAny>,
    #[serde(rename = "payloadType", alias = "dsseEnvelope")]
    envelope: Option<IgnoredAny>,
    #[serde(rename = "predicateType")]
    statement: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Schema<'a> {
    #[serde(borrow, default)]
    version: Loose<'a>,
}

/// The formats' first marks, as the text of a key.
const MARKS: [(&str, Format); 4] = [
    ("\"spdxVersion\"", Format::Spdx2),
    ("\"bomFormat\"", Format::CycloneDx),
    ("\"@graph\"", Format::Spdx3),
    ("\"artifactRelationships\"", Format::Syft),
];

pub(super) fn format(bytes: &[u8]) -> Result<Format, SbomError> {
    // The marks stand near the start or the end of real documents, so they are looked for as text first: a full pass of the
    // parser would cost as much as reading the document. One alone is sure enough: the format's own parser checks it.
    let window = 4096.min(bytes.len());
    let ends = [&bytes[..window], &bytes[bytes.len() - window..]];
    let is_near = |key: &str| ends.iter().any(|part| memchr::memmem::find(part, key.as_bytes()).is_some());
    let mut near = MARKS.iter().filter(|(key, _)| is_near(key));
    if let (Some((_, format)), None) = (near.next(), near.next()) {
        return Ok(*format);
    }
    let Object(marks): Object<Marks<'_>> = serde_json::from_slice(bytes)
        .map_err(|e| SbomError::Format { found: format!("not a JSON object that can be read ({e})") })?;
    if marks.bom.0.is_some() {
        Ok(Format::CycloneDx)
    } else if marks.spdx.0.is_some() {
        Ok(Format::Spdx2)
    } else if marks.context.is_some_and(|c| c.get().contains("spdx.org/rdf/3")) {
        Ok(Format::Spdx3)
    } else if marks.artifacts.is_some() && marks.schema.0.is_some_and(|schema| schema.version.0.is_some()) {
        Ok(Format::Syft)
    } else {
        let found = if marks.envelope.is_some() {
            "a signed attestation, which `muster attest verify` reads"
        } else if marks.statement.is_some() {
            "an in-toto statement, whose predicate may be an SBOM"
        } else {
            "JSON without the marks of an SBOM (spdxVersion; bomFormat; @context of SPDX 3; schema and artifacts)"
        };
        Err(SbomError::Format { found: found.to_owned() })
    }
}

/// SPDX as tag-value: no JSON, and the version among the first lines.
pub(super) fn is_tag_value(bytes: &[u8]) -> bool {
    let start = &bytes[..4096.min(bytes.len())];
    let is_json = start.trim_ascii_start().first().is_some_and(|b| matches!(b, b'{' | b'['));
    !is_json && start.split(|b| *b == b'\n').any(|line| line.trim_ascii_start().starts_with(b"SPDXVersion:"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_outside_strings() {
        depth(br#"{"a":["{[{[\"{[",[1]]}"#, 3).unwrap();
        assert!(matches!(
            depth(b"{\n \"a\":[[1]]}", 2),
            Err(SbomError::TooDeep { line: 2, column: 7, limit: 2 })
        ));
        depth(b"\"unterminated \\", 1).unwrap();
        depth(b"\"", 1).unwrap();
    }

    #[test]
    fn strings_of_every_length_end_where_they_end() {
        for length in 0..80 {
            for (inside, deep) in [("[", false), ("\\\"[", false), ("\\\\[", false), ("\\\\\"[\"", true)] {
                let text = format!("{{\"{}{inside}\":1}}", "x".repeat(length));
                assert_eq!(depth(text.as_bytes(), 1).is_err(), deep, "{text}");
            }
        }
    }
}
