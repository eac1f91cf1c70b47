//! Writes the same small image in every format, as the tools of each do. For tests and for the bench, which includes this file.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What an SBOM can say in every format.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) packages: Vec<Part>,
    pub(crate) files: Vec<Listed>,
    /// `diff_id` of the one layer, 64 hexadecimal digits.
    pub(crate) layer: String,
    /// The document claims to list every file.
    pub(crate) complete: bool,
}

/// A package.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) purl: Option<String>,
}

/// A file.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) path: String,
    pub(crate) sha256: Option<String>,
    pub(crate) sha1: Option<String>,
    /// Place of its package in `packages`.
    pub(crate) owner: Option<usize>,
}

/// A document.
pub(crate) type Writer = fn(&Content) -> String;

/// Every writer, with the name of its format.
pub(crate) const WRITERS: [(&str, Writer); 5] = [
    ("spdx-2-json", spdx2),
    ("spdx-2-tag-value", tag_value),
    ("spdx-3-json", spdx3),
    ("cyclonedx-json", cyclonedx),
    ("syft-json", syft),
];

const TIME: &str = "2026-01-01T00:00:00Z";

fn digests(file: &Listed, algorithm: &str, value: &str, names: [&str; 2]) -> Vec<Value> {
    let known = [&file.sha1, &file.sha256].into_iter().zip(names);
    known.filter_map(|(digest, name)| Some(json!({ algorithm: name, value: digest.as_ref()? }))).collect()
}

fn contained(content: &Content) -> impl Iterator<Item = (usize, usize)> + '_ {
    content.files.iter().enumerate().filter_map(|(file, listed)| Some((listed.owner?, file)))
}

/// As syft writes it.
fn spdx2(content: &Content) -> String {
    let comment = if content.complete { "muster: complete" } else { "" };
    let root = json!({
        "SPDXID": "SPDXRef-DocumentRoot-Image", "name": "image", "versionInfo": "1", "primaryPackagePurpose": "CONTAINER",
        "externalRefs": [{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
            "referenceLocator": "pkg:oci/image@sha256%3A00?arch=amd64" }],
    });
    let packages = content.packages.iter().enumerate().map(|(number, package)| {
        let references: Vec<_> = package
            .purl
            .iter()
            .map(|purl| json!({ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl }))
            .collect();
        json!({ "name": package.name, "SPDXID": format!("SPDXRef-Package-{number}"), "versionInfo": package.version,
            "supplier": "NOASSERTION", "downloadLocation": "NOASSERTION", "filesAnalyzed": false, "externalRefs": references })
    });
    let files = content.files.iter().enumerate().map(|(number, file)| {
        json!({ "fileName": file.path, "SPDXID": format!("SPDXRef-File-{number}"), "fileTypes": ["APPLICATION", "BINARY"],
            "checksums": digests(file, "algorithm", "checksumValue", ["SHA1", "SHA256"]), "licenseConcluded": "NOASSERTION",
            "licenseInfoInFiles": ["NOASSERTION"], "copyrightText": "NOASSERTION",
            "comment": format!("layerID: sha256:{}", content.layer) })
    });
    let relationships = contained(content).map(|(package, file)| {
        json!({ "spdxElementId": format!("SPDXRef-Package-{package}"), "relatedSpdxElement": format!("SPDXRef-File-{file}"),
            "relationshipType": "CONTAINS" })
    });
    json!({
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": "image",
        "creationInfo": { "creators": ["Organization: nobody", "Tool: writer-1"], "created": TIME, "comment": comment },
        "packages": packages.chain([root]).collect::<Vec<_>>(), "files": files.collect::<Vec<_>>(),
        "relationships": relationships.collect::<Vec<_>>(),
    })
    .to_string()
}

/// As spdx-tools writes it: the files of a package after it.
fn tag_value(content: &Content) -> String {
    let mut text = format!(
        "SPDXVersion: SPDX-2.3\nDataLicense: CC0-1.0\nSPDXID: SPDXRef-DOCUMENT\nDocumentName: image\n\
         ## Creation Information\nCreator: Tool: writer-1\nCreated: {TIME}\n"
    );
    if content.complete {
        text.push_str("CreatorComment: <text>muster: complete</text>\n");
    }
    let files = |owner: Option<usize>, text: &mut String| {
        for (number, file) in content.files.iter().enumerate().filter(|(_, file)| file.owner == owner) {
            let _ = write!(text, "\nFileName: {}\nSPDXID: SPDXRef-File-{number}\n", file.path);
            for (name, digest) in [("SHA1", &file.sha1), ("SHA256", &file.sha256)] {
                if let Some(digest) = digest {
                    let _ = writeln!(text, "FileChecksum: {name}: {digest}");
                }
            }
            let _ = writeln!(text, "FileComment: <text>layerID: sha256:{}</text>", content.layer);
        }
    };
    files(None, &mut text);
    for (number, package) in content.packages.iter().enumerate() {
        let Part { name, version, purl } = package;
        let _ = write!(
            text,
            "\nPackageName: {name}\nSPDXID: SPDXRef-Package-{number}\nPackageVersion: {version}\n"
        );
        if let Some(purl) = purl {
            let _ = writeln!(text, "ExternalRef: PACKAGE-MANAGER purl {purl}");
        }
        files(Some(number), &mut text);
    }
    text.push_str(
        "\nPackageName: image\nSPDXID: SPDXRef-Image\nPrimaryPackagePurpose: CONTAINER\n\
         ExternalRef: PACKAGE-MANAGER purl pkg:oci/image@sha256%3A00?arch=amd64\n",
    );
    text
}

fn spdx3(content: &Content) -> String {
    let hashes = |file: &Listed| {
        let mut hashes = digests(file, "algorithm", "hashValue", ["sha1", "sha256"]);
        hashes.iter_mut().for_each(|hash| hash["type"] = "Hash".into());
        hashes
    };
    let mut graph = vec![
        json!({ "@id": "_:c", "created": TIME, "createdUsing": ["urn:t"], "specVersion": "3.0.1", "type": "CreationInfo" }),
    ];
    graph.push(json!({ "creationInfo": "_:c", "name": "writer-1", "spdxId": "urn:t", "type": "Tool" }));
    graph.push(json!({ "creationInfo": "_:c", "name": "image", "software_primaryPurpose": "container", "spdxId": "urn:image",
        "software_packageUrl": "pkg:oci/image@sha256%3A00?arch=amd64", "type": "software_Package" }));
    graph.extend(content.files.iter().enumerate().map(|(number, file)| {
        json!({ "comment": format!("layerID: sha256:{}", content.layer), "creationInfo": "_:c", "name": file.path,
            "software_primaryPurpose": "executable", "spdxId": format!("urn:file-{number}"), "type": "software_File",
            "verifiedUsing": hashes(file) })
    }));
    graph.extend(content.packages.iter().enumerate().map(|(number, package)| {
        let mut element = json!({ "creationInfo": "_:c", "name": package.name, "software_packageVersion": package.version,
            "spdxId": format!("urn:package-{number}"), "type": "software_Package" });
        if let Some(purl) = &package.purl {
            element["software_packageUrl"] = purl.as_str().into();
        }
        element
    }));
    let contains = |number, from: String, to: Vec<String>| {
        let complete = if content.complete { "complete" } else { "noAssertion" };
        json!({ "completeness": complete, "creationInfo": "_:c", "from": from, "relationshipType": "contains",
            "spdxId": format!("urn:contains-{number}"), "to": to, "type": "Relationship" })
    };
    for owner in [None].into_iter().chain((0..content.packages.len()).map(Some)) {
        let of_owner = content.files.iter().enumerate().filter(|(_, file)| file.owner == owner);
        let files = of_owner.map(|(number, _)| format!("urn:file-{number}")).collect();
        let from = owner.map_or("urn:image".to_owned(), |number| format!("urn:package-{number}"));
        graph.push(contains(graph.len(), from, files));
    }
    graph.push(json!({ "creationInfo": "_:c", "rootElement": ["urn:image"], "spdxId": "urn:sbom", "type": "software_Sbom" }));
    graph.push(json!({ "creationInfo": "_:c", "rootElement": ["urn:sbom"], "spdxId": "urn:document", "type": "SpdxDocument" }));
    json!({ "@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld", "@graph": graph }).to_string()
}

/// As syft writes it, but with the files of a package within it.
fn cyclonedx(content: &Content) -> String {
    let files = |owner: Option<usize>| {
        let of_owner = content.files.iter().enumerate().filter(move |(_, file)| file.owner == owner);
        of_owner
            .map(|(number, file)| {
                json!({ "bom-ref": format!("file-{number}"), "type": "file", "name": file.path,
                    "hashes": digests(file, "alg", "content", ["SHA-1", "SHA-256"]),
                    "properties": [{ "name": "syft:location:0:layerID", "value": format!("sha256:{}", content.layer) }] })
            })
            .collect::<Vec<_>>()
    };
    let packages = content.packages.iter().enumerate().map(|(number, package)| {
        let mut component = json!({ "bom-ref": format!("package-{number}"), "type": "library", "name": package.name,
            "version": package.version, "components": files(Some(number)) });
        if let Some(purl) = &package.purl {
            component["purl"] = purl.as_str().into();
        }
        component
    });
    let aggregate = if content.complete { "complete" } else { "incomplete_first_party_only" };
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1,
        "metadata": {
            "timestamp": TIME, "tools": { "components": [{ "type": "application", "name": "writer", "version": "1" }] },
            "component": { "bom-ref": "image", "type": "container", "name": "image", "purl": "pkg:oci/image@sha256%3A00?arch=amd64" },
        },
        "components": packages.chain(files(None)).collect::<Vec<_>>(),
        "compositions": [{ "aggregate": aggregate, "assemblies": ["image"] }],
    })
    .to_string()
}

fn syft(content: &Content) -> String {
    let artifacts = content.packages.iter().enumerate().map(|(number, package)| {
        json!({ "id": format!("package-{number}"), "name": package.name, "version": package.version, "type": "deb",
            "locations": [{ "path": "/var/lib/dpkg/status" }], "purl": package.purl.as_deref().unwrap_or_default(),
            "metadataType": "dpkg-db-entry", "metadata": { "package": package.name, "files": [] } })
    });
    let files = content.files.iter().enumerate().map(|(number, file)| {
        json!({ "id": format!("file-{number}"), "location": { "path": file.path, "layerID": format!("sha256:{}", content.layer) },
            "metadata": { "mode": 755, "type": "RegularFile", "userID": 0, "groupID": 0, "mimeType": "text/plain", "size": 1 },
            "digests": digests(file, "algorithm", "value", ["sha1", "sha256"]) })
    });
    let relationships = contained(content).map(|(package, file)| {
        json!({ "parent": format!("package-{package}"), "child": format!("file-{file}"), "type": "contains" })
    });
    let selection = if content.complete { "all" } else { "owned-by-package" };
    json!({
        "artifacts": artifacts.collect::<Vec<_>>(), "artifactRelationships": relationships.collect::<Vec<_>>(),
        "files": files.collect::<Vec<_>>(),
        "source": { "id": "x", "name": "image", "type": "image", "metadata": {
            "imageID": "", "manifestDigest": "sha256:00", "layers": [{ "digest": format!("sha256:{}", content.layer) }], "architecture": "amd64" } },
        "descriptor": { "name": "writer", "version": "1", "configuration": { "files": { "selection": selection } } },
        "schema": { "version": "16.0.18", "url": "" },
    })
    .to_string()
}
