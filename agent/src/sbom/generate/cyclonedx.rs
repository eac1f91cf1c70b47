//! CycloneDX 1.6, JSON: one component per line. The files of a package are components within it.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::Options;
use super::document::{Document, Listed, SELECTION, hex, tool};

pub(super) fn write(options: &Options, document: &Document, out: &mut dyn Write) -> io::Result<()> {
    let mut root = json!({ "type": "operating-system", "name": options.name, "bom-ref": "root" });
    if let Some(image) = document.image() {
        root["type"] = "container".into();
        root["version"] = format!("sha256:{}", image.manifest).into();
        // As trivy names them.
        let property = |name: &str, digest| json!({ "name": format!("aquasecurity:trivy:{name}"), "value": format!("sha256:{digest}") });
        let mut properties = vec![property("ImageID", &image.config)];
        properties.extend(image.diff_ids.iter().map(|id| property("DiffID", id)));
        properties.push(json!({ "name": "muster:platform", "value": image.platform.to_string() }));
        root["properties"] = properties.into();
    }
    let tool = tool();
    let (name, version) = tool.split_once('-').unwrap_or((&tool, ""));
    let metadata = json!({
        "timestamp": document.created(options)?,
        "tools": { "components": [{ "type": "application", "name": name, "version": version }] },
        "component": root,
        "properties": [{ "name": SELECTION, "value": document.selection(options) }],
    });
    writeln!(
        out,
        "{{\"$schema\":\"http://cyclonedx.org/schema/bom-1.6.schema.json\",\"bomFormat\":\"CycloneDX\","
    )?;
    writeln!(
        out,
        "\"specVersion\":\"1.6\",\"serialNumber\":\"{}\",\"version\":1,",
        serial(&document.content())
    )?;
    writeln!(out, "\"metadata\":{metadata},")?;
    write!(out, "\"components\":[")?;
    let mut owned: Vec<Vec<&Listed>> = vec![Vec::new(); document.packages.len()];
    let mut first = true;
    let mut line = |out: &mut dyn Write, component: &Value| {
        let comma = if std::mem::take(&mut first) { "" } else { "," };
        write!(out, "{comma}\n{component}")
    };
    for listed in &document.files {
        let package = listed.owner.and_then(|owner| usize::try_from(owner).ok());
        match package.and_then(|package| owned.get_mut(package)) {
            Some(owned) => owned.push(listed),
            None => line(out, &file(document, listed))?,
        }
    }
    for (number, (package, files)) in document.packages.iter().zip(owned).enumerate() {
        let mut component = json!({
            "type": "library", "name": package.name, "bom-ref": format!("package-{number}"),
        });
        if !package.version.is_empty() {
            component["version"] = package.version.as_str().into();
        }
        if !package.purl.is_empty() {
            component["purl"] = package.purl.as_str().into();
        }
        if !files.is_empty() {
            component["components"] = files.into_iter().map(|listed| file(document, listed)).collect();
        }
        line(out, &component)?;
    }
    let aggregate = if document.unread == 0 { "complete" } else { "incomplete" };
    let compositions = json!([{ "aggregate": aggregate, "assemblies": ["root"] }]);
    writeln!(out, "],\n\"compositions\":{compositions}}}")?;
    out.flush()
}

fn file(document: &Document, listed: &Listed) -> Value {
    let mut component = json!({ "type": "file", "name": format!("/{}", listed.path) });
    let sha1 = listed.file.as_ref().map(|file| json!({ "alg": "SHA-1", "content": hex(&file.sha1) }));
    let sha256 = listed.sha256().map(|sha256| json!({ "alg": "SHA-256", "content": sha256.to_string() }));
    let hashes: Vec<_> = sha1.into_iter().chain(sha256).collect();
    if !hashes.is_empty() {
        component["hashes"] = hashes.into();
    }
    if let Some(layer) = document.layer(listed) {
        component["properties"] =
            json!([{ "name": "aquasecurity:trivy:LayerDiffID", "value": format!("sha256:{layer}") }]);
    }
    component
}

/// A UUID made of the content (RFC 9562, version 8).
fn serial(content: &[u8; 32]) -> String {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&content[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex(&bytes);
    format!("urn:uuid:{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}
