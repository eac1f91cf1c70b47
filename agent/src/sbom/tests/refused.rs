//! Bytes that are wrong, in every format: refused with position and reason, and in no more time than a good document.

use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::write::{Content, Listed, Part, WRITERS};
use super::*;

fn content() -> Content {
    let file = |path: &str, sha256: Option<&str>, owner| Listed {
        path: path.to_owned(),
        sha256: sha256.map(str::to_owned),
        sha1: Some("b".repeat(40)),
        owner,
    };
    let a = "a".repeat(64);
    Content {
        packages: vec![Part {
            name: "p".into(),
            version: "1".into(),
            purl: Some("pkg:deb/debian/p@1".into()),
        }],
        files: vec![file("/opt/a", Some(&a), Some(0)), file("/opt/b", None, None)],
        layer: "1".repeat(64),
        complete: true,
    }
}

fn refused(format: &str, what: &str, text: &[u8]) -> String {
    match parse(text, &Limits::default()) {
        Ok(_) => panic!("{format} accepts {what}: {}", String::from_utf8_lossy(text)),
        Err(error) => error.to_string(),
    }
}

#[test]
fn in_every_format() {
    let digest = "a".repeat(64);
    for (format, write) in WRITERS {
        let good = write(&content());
        parse(good.as_bytes(), &Limits::default()).unwrap_or_else(|e| panic!("{format}: {e}"));
        // What is wrong, what stands there, what takes its place, what the message says.
        for (what, from, to, reason) in [
            ("a path that climbs", "/opt/a", "/opt/../a", r#"".." component"#),
            ("no path", "/opt/a", "/", "the path is empty"),
            ("another length", &*digest, &digest[1..], "SHA-256 must be 64 hexadecimal digits"),
            ("no digits", &digest, &"g".repeat(64), "SHA-256 must be 64 hexadecimal digits"),
            ("a digest of another length", &"b".repeat(40), &digest, "SHA-1 must be 40 hexadecimal digits"),
        ] {
            assert!(good.contains(from), "{format}: {what}");
            let error = refused(format, what, good.replacen(from, to, 1).as_bytes());
            assert!(error.contains(reason) && error.contains("line "), "{format}, {what}: {error}");
        }
        let nul = if format == "spdx-2-tag-value" { "/opt\0a" } else { "/opt\\u0000a" };
        let error = refused(format, "NUL", good.replacen("/opt/a", nul, 1).as_bytes());
        assert!(error.contains("NUL byte") && error.contains("line "), "{format}: {error}");
        let mut bytes = good.clone().into_bytes();
        let at = good.find("/opt/b").expect("its path") + 5;
        bytes[at] = 0xff;
        let error = refused(format, "a path that is not UTF-8", &bytes);
        assert!(error.contains("not UTF-8") && error.contains("line "), "{format}: {error}");
        // A zero digest is an unknown one, whatever the format.
        let zero = good.replace(&digest, &"0".repeat(64)).replace(&"b".repeat(40), &"0".repeat(40));
        let index = parse(zero.as_bytes(), &Limits::default()).unwrap_or_else(|e| panic!("{format}: {e}"));
        assert_eq!(
            (index.len(), index.numbers().with_sha256, index.numbers().with_weak),
            (2, 0, 0),
            "{format}"
        );
        assert_eq!(index.coverage(), Coverage::Packages, "{format}");
    }
}

#[test]
fn one_path_with_two_digests() {
    for (format, write) in WRITERS {
        let mut content = content();
        let other = Listed { path: "./opt//a".into(), sha256: Some("c".repeat(64)), sha1: None, owner: None };
        content.files.push(other);
        let error = refused(format, "two digests", write(&content).replace(",", ",\n").as_bytes());
        assert!(error.contains("file \"/opt/a\": listed twice with different digests"), "{format}: {error}");
        assert!(error.contains("line ") && error.contains("column "), "{format}: {error}");
    }
    let twice = "{\"spdxVersion\":\"SPDX-2.3\",\"files\":[\n  {\"SPDXID\":\"a\",\"fileName\":\"bin/x\",\"checksums\":[{\"algorithm\":\"MD5\",\"checksumValue\":\"00000000000000000000000000000001\"}]},\n  {\"SPDXID\":\"b\",\"fileName\":\"./bin/x\",\"checksums\":[{\"algorithm\":\"MD5\",\"checksumValue\":\"00000000000000000000000000000002\"}]}]}";
    let error = refused("spdx-2-json", "two digests", twice.as_bytes());
    assert!(error.starts_with("line 3, column 31: file \"/bin/x\": listed twice"), "{error}");
}

#[test]
fn every_flipped_bit_is_survived() {
    for (format, write) in WRITERS {
        let good = write(&content()).into_bytes();
        let index = parse(&good, &Limits::default()).expect("written right");
        let mut refused = 0;
        // Every byte: one bit that makes another character, and the one that makes it no character at all.
        for (at, bit) in (0..good.len()).flat_map(|at| [(at, at % 7), (at, 7)]) {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            match parse(&bad, &Limits::default()) {
                Ok(other) => {
                    assert!(other.len() <= index.len(), "{format}: byte {at}, bit {bit} makes files");
                }
                Err(error) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty());
                }
            }
        }
        assert!(refused > good.len(), "{format}: only {refused} of {} flips are refused", 2 * good.len());
    }
}

#[test]
fn a_key_that_is_there_twice() {
    for (format, write) in WRITERS {
        let good = write(&content());
        // Of a file, of its digest, of the document.
        let keys: &[&str] = match format {
            "spdx-2-json" => &["fileName", "SPDXID", "checksumValue", "files", "spdxVersion", "creationInfo"],
            "spdx-3-json" => &["name", "spdxId", "hashValue", "verifiedUsing", "@graph", "@context"],
            "cyclonedx-json" => &[
                "name",
                "hashes",
                "content",
                "bom-ref",
                "components",
                "bomFormat",
                "specVersion",
                "metadata",
            ],
            "syft-json" => &[
                "path",
                "digests",
                "value",
                "imageID",
                "files",
                "artifacts",
                "source",
                "schema",
                "descriptor",
            ],
            _ => &[],
        };
        for key in keys {
            let key = format!("\"{key}\":");
            // The last one: those of the document's own stand behind what it holds, or there is only one.
            let at = good.rfind(&key).unwrap_or_else(|| panic!("{format} has no {key}"));
            // The same value again: nothing else is wrong.
            let value = serde_json::Deserializer::from_str(&good[at + key.len()..])
                .into_iter::<Box<RawValue>>()
                .next()
                .expect("a value follows")
                .expect("it is JSON");
            let bad = format!("{}{key}{value},{}", &good[..at], &good[at..]);
            let error = refused(format, &key, bad.as_bytes());
            assert!(
                error.contains("duplicate field") && error.contains("line 1 column"),
                "{format}, {key} twice: {error}"
            );
        }
    }
}

#[test]
fn bombs() {
    let limits = Limits::default();
    let begin = Instant::now();
    for (format, write) in WRITERS.into_iter().filter(|(format, _)| *format != "spdx-2-tag-value") {
        let good = write(&content());
        let inner = &good[1..];
        let deep = format!("{{\"x\":{}{},{inner}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        let error = refused(format, "depth", deep.as_bytes());
        assert!(
            error.contains("line 1, column 69: JSON nested deeper than the limit of 64"),
            "{format}: {error}"
        );
        let objects = format!("{{\"x\":{}1{},{inner}", "{\"a\":".repeat(1 << 18), "}".repeat(1 << 18));
        assert!(refused(format, "depth", objects.as_bytes()).contains("deeper than the limit"), "{format}");
        // Wide and long is only large, and the size has its own limit.
        let wide = format!("{{\"x\":[{}0],{inner}", "{},".repeat(1 << 20));
        let long = format!("{{\"x\":\"{}\",{inner}", "\\u0041".repeat(1 << 20));
        let keys: String = (0..1 << 16).map(|n| format!("\"k{n}\":0,")).collect();
        for document in [wide, long, format!("{{{keys}{inner}")] {
            let index = parse(document.as_bytes(), &limits).unwrap_or_else(|e| panic!("{format}: {e}"));
            assert_eq!(index.len(), 2, "{format}");
            let small = Limits { max_bytes: document.len() as u64 - 1, ..limits };
            assert!(
                parse(document.as_bytes(), &small)
                    .is_err_and(|e| e.to_string().contains("more than the limit")),
                "{format}"
            );
        }
        // A name as long as a document is no message as long as a document.
        let long_name = good.replacen("/opt/a", &format!("/{}/..", "x".repeat(1 << 20)), 1);
        let error = refused(format, "a long name", long_name.as_bytes());
        assert!(error.len() < 1000, "{format}: a message of {} bytes", error.len());
    }
    assert!(begin.elapsed() < Duration::from_secs(120), "{:?}", begin.elapsed());
}

/// Lists that are read, of elements that are next to nothing: skipped, or refused where so many make no sense. What they take is in
/// `tests/sbom_memory.rs`.
#[test]
fn wide_where_it_is_read() {
    let cyclonedx = |member: &str| {
        format!(
            r#"{{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{{"type":"library","name":"a",{member}}}]}}"#
        )
    };
    let composition = |member: &str| {
        format!(
            r#"{{"bomFormat":"CycloneDX","specVersion":"1.6","compositions":[{{"aggregate":"a",{member}}}]}}"#
        )
    };
    let spdx = |member: &str| {
        format!(r#"{{"spdxVersion":"SPDX-2.3","packages":[{{"SPDXID":"a","name":"a",{member}}}]}}"#)
    };
    let spdx3 = |member: &str| {
        let kind = r#""type":"Relationship","relationshipType":"contains","from":"a""#;
        format!(r#"{{"@context":"https://spdx.org/rdf/3.0.1/x","@graph":[{{{kind},{member}}}]}}"#)
    };
    let syft = |member: &str| {
        format!(
            r#"{{"schema":{{"version":"16.0.0"}},"artifacts":[{{"id":"a","name":"a","metadata":{{{member}}}}}]}}"#
        )
    };
    let reference = r#"{"referenceType":"","referenceLocator":""}"#;
    let few = Some("more than 4096 elements");
    let short = Some("more than 256 ids of fewer than 3 characters");
    type Around<'a> = &'a dyn Fn(&str) -> String;
    let references = Some("more than 16 references");
    let cases: [(Around<'_>, &str, &str, Option<&str>); 21] = [
        (&cyclonedx, r#""properties":[LIST]"#, "{}", None),
        (&cyclonedx, r#""evidence":{"occurrences":[LIST]}"#, r#"{"location":"x"}"#, None),
        (&cyclonedx, r#""components":[LIST]"#, r#"{"type":"data","name":""}"#, None),
        (&composition, r#""assemblies":[LIST]"#, "\"a\"", Some("more than 65536 elements")),
        (&composition, r#""dependencies":[LIST]"#, "\"a\"", Some("more than 65536 elements")),
        (&spdx, r#""hasFiles":[LIST]"#, "\"a\"", short),
        (&spdx, r#""attributionTexts":[LIST]"#, "\"\"", few),
        (&spdx, r#""annotations":[LIST]"#, "{}", few),
        (&spdx, r#""externalRefs":[LIST]"#, reference, few),
        (&spdx3, r#""to":[LIST]"#, "{}", None),
        (&spdx3, r#""to":[LIST]"#, "\"a\"", short),
        (&spdx3, r#""rootElement":[LIST]"#, "\"a\"", short),
        (&spdx3, r#""externalIdentifier":[LIST]"#, "{}", None),
        (&spdx3, r#""externalIdentifier":[LIST]"#, "\"a\"", references),
        (&spdx3, r#""verifiedUsing":[LIST]"#, "\"a\"", references),
        (&spdx3, r#""element":[LIST]"#, "\"a\"", None),
        (&spdx3, r#""element":[LIST]"#, r#"{"type":"x"}"#, None),
        (&spdx3, r#""verifiedUsing":[LIST]"#, r#"{"algorithm":"x","hashValue":"x"}"#, None),
        (&syft, r#""files":[LIST]"#, "{}", None),
        (&syft, r#""files":[{"path":"/a","digest":[LIST]}]"#, "{}", None),
        (&syft, r#""files":[LIST]"#, "\"\"", None),
    ];
    for (around, member, element, expected) in cases {
        let list = format!("{element},").repeat(1 << 17);
        let document = around(&member.replace("LIST", list.trim_end_matches(',')));
        let found = parse(document.as_bytes(), &Limits::default());
        match (found, expected) {
            (Ok(index), None) => assert_eq!(index.len(), 0, "{member} of {element}"),
            (Err(error), Some(reason)) => {
                let error = error.to_string();
                assert!(error.contains(reason) && error.contains("line 1 column"), "{member}: {error}");
            }
            (found, _) => {
                panic!("{member} of {element}: {:?}, not {expected:?}", found.map(|index| index.len()))
            }
        }
    }
}

#[test]
fn what_is_no_sbom() {
    for (text, reason) in [
        ("", "this is empty"),
        ("<?xml version=\"1.0\"?><bom xmlns=\"http://cyclonedx.org/schema/bom/1.6\"/>", "this is XML"),
        ("\u{feff}{}", "without the marks of an SBOM"),
        ("{\"@context\":\"https://example.org\",\"@graph\":[]}", "expected https://spdx.org/rdf/3.0"),
        (
            "{\"bomFormat\":\"CycloneDX\",\"specVersion\":\"2.0\"}",
            "specVersion \"2.0\"; expected 1.2 to 1.7 at line 1",
        ),
        (
            "{\"schema\":{\"version\":\"17.0.0\"},\"artifacts\":[]}",
            "syft schema \"17.0.0\"; expected 6 to 16",
        ),
        ("{\"schema\":{\"version\":\"\"},\"artifacts\":[]}", "syft schema"),
        ("{\"spdxVersion\":\"SPDX-3.0\"}", "expected SPDX-2.2 or SPDX-2.3"),
        ("SPDXVersion: SPDX-3.0\n", "line 1: SPDXVersion \"SPDX-3.0\"; expected SPDX-2.2 or SPDX-2.3"),
        ("DocumentName: x\n", "not a JSON object"),
    ] {
        let error = refused(text, "it", text.as_bytes());
        assert!(error.contains(reason), "{text:?} gives {error:?}, not {reason:?}");
    }
}
