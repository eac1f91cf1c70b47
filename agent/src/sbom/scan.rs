//! One fast pass over the bytes before anything is parsed: nesting, and which format it is.

use serde::Deserialize;

use super::{Format, SbomError};

/// Refuses JSON that is nested deeper than `limit`. Strings are skipped; anything else wrong with the JSON is the parser's to find.
pub(super) fn depth(bytes: &[u8], limit: u32) -> Result<(), SbomError> {
    let mut depth = 0_u32;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at += 1;
                // To the closing quote, past escaped characters.
                while let Some(skip) = memchr::memchr2(b'"', b'\\', &bytes[at.min(bytes.len())..]) {
                    at += skip;
                    if bytes[at] == b'"' {
                        break;
                    }
                    at += 2;
                }
            }
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    let before = &bytes[..at];
                    let line = memchr::memchr_iter(b'\n', before).count() + 1;
                    let column = at - memchr::memrchr(b'\n', before).map_or(0, |n| n + 1) + 1;
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

/// Keys at the top of a document that tell the formats apart.
#[derive(Deserialize)]
struct Marks<'a> {
    #[serde(rename = "spdxVersion", borrow)]
    spdx: Option<std::borrow::Cow<'a, str>>,
    #[serde(rename = "bomFormat", borrow)]
    bom: Option<std::borrow::Cow<'a, str>>,
    #[serde(rename = "@context", borrow)]
    context: Option<&'a serde_json::value::RawValue>,
    #[serde(borrow)]
    schema: Option<Schema<'a>>,
    artifacts: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Schema<'a> {
    #[serde(borrow)]
    version: Option<std::borrow::Cow<'a, str>>,
}

pub(super) fn format(bytes: &[u8]) -> Result<Format, SbomError> {
    // The two marks that matter stand near the start or the end of real documents, so they are looked for as text first: a
    // full pass of the parser would cost as much as reading the document.
    let near = |key: &str| {
        let window = 4096.min(bytes.len());
        let find = |part: &[u8]| memchr::memmem::find(part, key.as_bytes()).is_some();
        find(&bytes[..window]) || find(&bytes[bytes.len() - window..])
    };
    let (spdx, syft) = (near("\"spdxVersion\""), near("\"artifactRelationships\"") || near("\"artifacts\""));
    match (spdx, syft) {
        // Sure enough: the format's own parser checks the version.
        (true, false) => return Ok(Format::Spdx2),
        (false, true) if !near("\"bomFormat\"") => return Ok(Format::Syft),
        _ => {}
    }
    let marks: Marks<'_> = serde_json::from_slice(bytes)
        .map_err(|e| SbomError::Format { found: format!("not a JSON object that can be read ({e})") })?;
    let found = if let Some(bom) = marks.bom {
        format!("{bom} JSON")
    } else if marks.spdx.is_some() {
        return Ok(Format::Spdx2);
    } else if marks.context.is_some_and(|c| c.get().contains("spdx.org/rdf/3")) {
        "SPDX 3 JSON-LD".to_owned()
    } else if marks.artifacts.is_some() && marks.schema.is_some_and(|s| s.version.is_some()) {
        return Ok(Format::Syft);
    } else {
        "JSON without the marks of an SBOM (spdxVersion; schema and artifacts)".to_owned()
    };
    Err(SbomError::Format { found })
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
}
