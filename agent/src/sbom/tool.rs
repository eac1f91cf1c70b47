//! Which tool made a document, and how to make it say more.

use serde::Deserialize;

use super::Format;
use crate::finding::Coverage;

#[derive(Deserialize)]
struct Marks {
    #[serde(rename = "creationInfo")]
    creation: Option<Creation>,
    descriptor: Option<Descriptor>,
}

#[derive(Deserialize)]
struct Creation {
    #[serde(default)]
    creators: Vec<String>,
}

#[derive(Deserialize)]
struct Descriptor {
    name: Option<String>,
    version: Option<String>,
}

/// The tool that a document names as its maker, without control characters.
pub fn of(document: &[u8]) -> Option<String> {
    let Marks { creation, descriptor } = serde_json::from_slice(document).ok()?;
    let from_spdx = creation.and_then(|creation| {
        creation.creators.iter().find_map(|creator| Some(creator.strip_prefix("Tool:")?.trim().to_owned()))
    });
    let from_syft = || {
        let Descriptor { name, version } = descriptor?;
        let version = version.map(|version| format!("-{version}")).unwrap_or_default();
        Some(format!("{}{version}", name?))
    };
    let mut tool = from_spdx.or_else(from_syft)?;
    tool.retain(|c| !c.is_control());
    Some(tool)
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
