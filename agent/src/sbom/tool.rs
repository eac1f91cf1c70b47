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

/// How to complete what any tool has made: the last way out for all of them.
const COMPLETE_IT: &str = "`muster sbom generate oci:DIR --complete FILE` (or oci-archive:FILE, or the unpacked image) takes over this SBOM and adds \
     every program, library and script that it lacks.";

/// What each tool can do about it, by the start of its name.
const TOOLS: [(&[&str], &str); 5] = [
    (
        &["muster"],
        "Files could not be read when it was made: run `muster sbom generate` again, as root, and see what it names on standard error.",
    ),
    (
        &["syft"],
        "Make it again with SYFT_FILE_METADATA_SELECTION=all and SYFT_FILE_METADATA_DIGESTS=sha256, as syft-json \
         (`syft -o syft-json IMAGE`): syft's SPDX and CycloneDX do not say that all files were selected.",
    ),
    (
        &["buildkit"],
        "BuildKit's scanner lists the files of packages only, and its file selection cannot be set from a build.",
    ),
    (
        &["trivy", "apko", "melange", "ko", "bom", "cdxgen", "grype", "tern", "docker"],
        "This tool lists packages, and files hardly or not at all; no option changes that.",
    ),
    (&["microsoft.sbomtool"], "This tool lists the files of the folder it is given (`-b`), not of an image."),
];

/// What to do for a higher coverage.
pub fn advice(tool: Option<&str>, coverage: Coverage, formats: &[Format]) -> Option<String> {
    let mean = match coverage {
        Coverage::Full => return None,
        Coverage::Packages => {
            "Coverage `packages`: the SBOM names packages and has a digest of hardly any file, so it cannot answer for what runs."
        }
        Coverage::Owned => {
            "Coverage `owned`: the SBOM does not claim to list every file, so a program that it lacks may still be the image's own."
        }
    };
    let unknown = if formats.contains(&Format::Syft) { "syft" } else { "" };
    let tool = tool.unwrap_or(unknown).to_ascii_lowercase();
    // `NAME`, `NAME-VERSION`, `NAME VERSION`.
    let is = |name: &str| {
        tool.strip_prefix(name).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
    };
    let how = TOOLS.iter().find(|(names, _)| names.iter().any(|name| is(name))).map_or("", |(_, how)| how);
    let lines = [mean, how, COMPLETE_IT].into_iter().filter(|line| !line.is_empty());
    Some(lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_by_tool() {
        for (tool, formats, says) in [
            (Some("syft-1.18.1"), [Format::Spdx2], "SYFT_FILE_METADATA_SELECTION=all"),
            (None, [Format::Syft], "SYFT_FILE_METADATA_SELECTION=all"),
            (Some("Trivy-0.50"), [Format::CycloneDx], "no option changes that"),
            (Some("ko v0.15"), [Format::Spdx2], "no option changes that"),
            (Some("muster-0.1.0"), [Format::Spdx2], "as root"),
            (Some("Microsoft.SBOMTool-2.2"), [Format::Spdx2], "not of an image"),
            (Some("kobold"), [Format::Spdx2], "--complete"),
            (None, [Format::Spdx3], "--complete"),
        ] {
            for coverage in [Coverage::Packages, Coverage::Owned] {
                let advice = advice(tool, coverage, &formats).expect("there is something to do");
                assert!(advice.contains(says) && advice.contains("--complete"), "{tool:?}: {advice}");
                assert!(advice.starts_with(&format!("Coverage `{coverage}`")), "{advice}");
            }
            assert_eq!(advice(tool, Coverage::Full, &formats), None);
        }
        assert!(
            !advice(Some("kobold"), Coverage::Owned, &[Format::Spdx2]).expect("advice").contains("no option")
        );
    }
}
