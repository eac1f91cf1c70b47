//! SPDX 2.3: one file, package or relationship per line.

use std::io::{self, Write};

use aws_lc_rs::digest;
use serde::Serialize;

use super::Options;
use super::document::{Document, Listed, hex, tool};
use super::file::Class;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FileLine<'a> {
    file_name: &'a str,
    #[serde(rename = "SPDXID")]
    id: String,
    file_types: [&'static str; 1],
    checksums: [Checksum; 2],
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Checksum {
    algorithm: &'static str,
    checksum_value: String,
}

pub(super) fn write(options: &Options, document: &Document, out: &mut dyn Write) -> io::Result<()> {
    let Document { files, packages, .. } = document;
    let head = serde_json::json!({
        "created": document.created(options)?,
        "creators": [format!("Tool: {}", tool())],
        "comment": document.claim(),
    });
    let name = serde_json::to_string(&options.name)?;
    writeln!(
        out,
        "{{\"spdxVersion\":\"SPDX-2.3\",\"dataLicense\":\"CC0-1.0\",\"SPDXID\":\"SPDXRef-DOCUMENT\","
    )?;
    // The namespace must be unique to the content (SPDX 2.3, clause 6.5).
    let content = hex(&document.content());
    writeln!(out, "\"name\":{name},\"documentNamespace\":\"urn:muster:sbom:{content}\",")?;
    let comment = serde_json::to_string(&format!("Lists {}.", document.selection(options)))?;
    writeln!(out, "\"comment\":{comment},")?;
    writeln!(out, "\"creationInfo\":{head},")?;
    write!(out, "\"packages\":[")?;
    write!(out, "\n{}", root(options, document))?;
    for ((number, package), code) in
        packages.iter().enumerate().zip(verification_codes(files, packages.len()))
    {
        let mut line = serde_json::json!({
            "SPDXID": format!("SPDXRef-Package-{number}"),
            "name": package.name,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": code.is_some(),
        });
        if !package.version.is_empty() {
            line["versionInfo"] = package.version.as_str().into();
        }
        if !package.purl.is_empty() {
            line["externalRefs"] = serde_json::json!([{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": package.purl,
            }]);
        }
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
        let file = listed.file.as_ref();
        let line = FileLine {
            file_name: &name,
            id: format!("SPDXRef-File-{number}"),
            file_types: [match file.map(|file| file.class) {
                Some(Class::Elf) => "BINARY",
                Some(Class::Script) => "SOURCE",
                Some(Class::Other) | None => "OTHER",
            }],
            // Zeros are what generators write for a digest that they do not have: clause 8.4 wants one.
            checksums: [
                Checksum { algorithm: "SHA1", checksum_value: hex(&file.map_or([0; 20], |file| file.sha1)) },
                Checksum {
                    algorithm: "SHA256",
                    checksum_value: listed.sha256().unwrap_or_default().to_string(),
                },
            ],
            comment: document.layer(listed).map(|layer| format!("layerID: sha256:{layer}")),
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
            owned.push(listed.file.as_ref().map_or([0; 20], |file| file.sha1));
        }
    }
    owned.into_iter().map(|mut files| {
        files.sort_unstable();
        let mut all = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
        files.iter().for_each(|file| all.update(hex(file).as_bytes()));
        (!files.is_empty()).then(|| hex(all.finish().as_ref()))
    })
}

/// What the document describes.
fn root(options: &Options, document: &Document) -> serde_json::Value {
    let mut root = serde_json::json!({
        "SPDXID": "SPDXRef-Root",
        "name": options.name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
    });
    if let Some(image) = document.image() {
        root["primaryPackagePurpose"] = "CONTAINER".into();
        root["versionInfo"] = format!("sha256:{}", image.manifest).into();
        root["checksums"] =
            serde_json::json!([{ "algorithm": "SHA256", "checksumValue": image.manifest.to_string() }]);
        // As trivy writes them.
        let mut texts = vec![format!("ImageID: sha256:{}", image.config)];
        texts.extend(image.diff_ids.iter().map(|id| format!("DiffID: sha256:{id}")));
        root["attributionTexts"] = texts.into();
        root["comment"] = format!("platform: {}", image.platform).into();
    }
    root
}
