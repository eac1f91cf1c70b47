//! The document: SPDX 2.3, one file, package or relationship per line.

use std::io::{self, Write};

use aws_lc_rs::digest;
use serde::Serialize;

use super::dpkg::Package;
use super::file::{Class, Looked};
use super::{COMPLETE, Options, TOOL};

/// One file of the document.
pub(super) struct Listed {
    /// Relative to the root.
    pub(super) path: Box<str>,
    pub(super) file: Looked,
    pub(super) owner: Option<u32>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FileLine<'a> {
    file_name: &'a str,
    #[serde(rename = "SPDXID")]
    id: String,
    file_types: [&'static str; 1],
    checksums: [Checksum; 2],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

pub(super) fn document(
    options: &Options,
    files: &[Listed],
    packages: &[Package],
    unread: usize,
    out: &mut dyn Write,
) -> io::Result<()> {
    let what = if options.all { "every regular file" } else { "every executable, shared library and script" };
    let claim = match unread {
        0 => COMPLETE.to_owned(),
        _ => format!("muster: incomplete, {unread} files or directories could not be read"),
    };
    // The namespace must be unique to the content (SPDX 2.3, clause 6.5).
    let mut content = digest::Context::new(&digest::SHA256);
    for listed in files {
        content.update(listed.path.as_bytes());
        content.update(&[0]);
        content.update(&listed.file.sha256.0);
    }
    let content = hex(content.finish().as_ref());
    let created = time::OffsetDateTime::from(options.created)
        .replace_nanosecond(0)
        .map_err(io::Error::other)?
        .format(&time::format_description::well_known::Rfc3339)
        .map_err(io::Error::other)?;
    let head = serde_json::json!({
        "created": created,
        "creators": [format!("Tool: {TOOL}{}", env!("CARGO_PKG_VERSION"))],
        "comment": claim,
    });
    let name = serde_json::to_string(&options.name)?;
    writeln!(
        out,
        "{{\"spdxVersion\":\"SPDX-2.3\",\"dataLicense\":\"CC0-1.0\",\"SPDXID\":\"SPDXRef-DOCUMENT\","
    )?;
    writeln!(out, "\"name\":{name},\"documentNamespace\":\"urn:muster:sbom:{content}\",")?;
    writeln!(out, "\"comment\":\"Lists {what}.\",")?;
    writeln!(out, "\"creationInfo\":{head},")?;
    write!(out, "\"packages\":[")?;
    let root = serde_json::json!({
        "SPDXID": "SPDXRef-Root",
        "name": options.name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
    });
    write!(out, "\n{root}")?;
    for ((number, package), code) in
        packages.iter().enumerate().zip(verification_codes(files, packages.len()))
    {
        let mut line = serde_json::json!({
            "SPDXID": format!("SPDXRef-Package-{number}"),
            "name": package.name,
            "versionInfo": package.version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": code.is_some(),
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": package.purl,
            }],
        });
        if let Some(code) = code {
            line["packageVerificationCode"] = serde_json::json!({ "packageVerificationCodeValue": code });
        }
        write!(out, ",\n{line}")?;
    }
    write!(out, "],\n\"files\":[")?;
    let mut name = String::new();
    for (number, listed) in files.iter().enumerate() {
        name.clear();
        name.push_str("./");
        name.push_str(&listed.path);
        let line = FileLine {
            file_name: &name,
            id: format!("SPDXRef-File-{number}"),
            file_types: [match listed.file.class {
                Class::Elf => "BINARY",
                Class::Script => "SOURCE",
                Class::Other => "OTHER",
            }],
            checksums: [
                Checksum { algorithm: "SHA1", checksum_value: hex(&listed.file.sha1) },
                Checksum { algorithm: "SHA256", checksum_value: listed.file.sha256.to_string() },
            ],
        };
        writeln!(out, "{}", if number == 0 { "" } else { "," })?;
        serde_json::to_writer(&mut *out, &line)?;
    }
    write!(out, "],\n\"relationships\":[\n")?;
    let relationship = |from: &str, kind: &str, to: &str| {
        format!(
            "{{\"spdxElementId\":\"{from}\",\"relationshipType\":\"{kind}\",\"relatedSpdxElement\":\"{to}\"}}"
        )
    };
    write!(out, "{}", relationship("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Root"))?;
    for (number, listed) in files.iter().enumerate() {
        if let Some(owner) = listed.owner {
            let line = relationship(
                &format!("SPDXRef-Package-{owner}"),
                "CONTAINS",
                &format!("SPDXRef-File-{number}"),
            );
            write!(out, ",\n{line}")?;
        }
    }
    writeln!(out, "]}}")?;
    out.flush()
}

/// Clause 7.9: SHA-1 over the sorted SHA-1 values of a package's files; `None` for a package without files here. Clause 7.8:
/// only a package that was analysed may contain files, and then the code is mandatory.
fn verification_codes(files: &[Listed], packages: usize) -> impl Iterator<Item = Option<String>> {
    let mut owned: Vec<Vec<[u8; 20]>> = vec![Vec::new(); packages];
    for listed in files {
        let owner = listed.owner.and_then(|owner| usize::try_from(owner).ok());
        if let Some(owned) = owner.and_then(|owner| owned.get_mut(owner)) {
            owned.push(listed.file.sha1);
        }
    }
    owned.into_iter().map(|mut files| {
        files.sort_unstable();
        let mut all = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        files.iter().for_each(|file| all.update(hex(file).as_bytes()));
        (!files.is_empty()).then(|| hex(all.finish().as_ref()))
    })
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
