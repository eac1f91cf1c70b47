//! Which tool made a document, and how to make it say more.

use super::Format;
use crate::finding::Coverage;

/// A tool with its version, as `NAME-VERSION`, without control characters.
pub(super) fn named(name: &str, version: &str) -> Box<str> {
    let separator = if version.is_empty() { "" } else { "-" };
    [name, separator, version].concat().chars().filter(|c| !c.is_control()).take(200).collect()
}

/// A `Creator` of SPDX 2 that is a tool.
pub(super) fn of_creator(creator: &str) -> Option<Box<str>> {
    creator.strip_prefix("Tool:").map(|name| named(name.trim(), ""))
}

/// What to do for a higher coverage.
pub fn advice(tool: Option<&str>, coverage: Coverage, formats: &[Format]) -> Option<String> {
    let tool = tool.unwrap_or_default();
    let is = |name: &str| tool.to_ascii_lowercase().starts_with(name);
    if coverage == Coverage::Full {
        return None;
    }
    let mean = match coverage {
        Coverage::Packages => {
            "Coverage `packages`: the SBOM has no digest of any file, so nothing that runs can be answered for."
        }
        Coverage::Owned | Coverage::Full => {
            "Coverage `owned`: the SBOM does not claim to list every file, so a program that it lacks may still be the image's own."
        }
    };
    let how = if is("muster") {
        "Files could not be read when it was made: run `muster sbom generate` again, as root, and see what it names on standard error."
    } else if is("syft") || formats.contains(&Format::Syft) {
        "Make it again with SYFT_FILE_METADATA_SELECTION=all and SYFT_FILE_METADATA_DIGESTS=sha256, as syft-json \
         (`syft -o syft-json IMAGE`): syft's SPDX does not say that all files were selected."
    } else if is("trivy") {
        "trivy lists packages, not files: make one with `muster sbom generate` on the unpacked image, or with syft and \
         SYFT_FILE_METADATA_SELECTION=all as syft-json."
    } else {
        "Make one with `muster sbom generate` on the unpacked image, or with syft and SYFT_FILE_METADATA_SELECTION=all as syft-json."
    };
    Some(format!("{mean}\n{how}"))
}
