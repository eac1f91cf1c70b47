//! One small image in every format, and what each format's reader refuses.

use super::*;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const LAYER: &str = "sha256:1111111111111111111111111111111111111111111111111111111111111111";

/// `/bin/a` with a SHA-256 and `/bin/b` with a SHA-1, both of package `p 1`; `/c` of none, with a zero digest.
fn documents() -> Vec<(Format, String)> {
    let sha1 = "b".repeat(40);
    let zero = "0".repeat(40);
    let cyclonedx = format!(
        r#"{{"bomFormat":"CycloneDX","specVersion":"1.6","metadata":{{"timestamp":"2026-01-01T00:00:00Z",
            "component":{{"type":"container","name":"x","bom-ref":"root",
              "properties":[{{"name":"aquasecurity:trivy:DiffID","value":"{LAYER}"}}]}}}},
          "components":[
            {{"type":"operating-system","name":"debian","version":"12"}},
            {{"type":"library","name":"p","version":"1","purl":"pkg:deb/debian/p@1","components":[
              {{"type":"file","name":"/bin/a","hashes":[{{"alg":"SHA-256","content":"{A}"}},{{"alg":"SHA-512","content":"-"}}]}},
              {{"type":"file","name":"/bin/b","hashes":[{{"alg":"SHA-1","content":"{sha1}"}}]}}]}},
            {{"type":"file","name":"./c","hashes":[{{"alg":"SHA-1","content":"{zero}"}}]}}],
          "compositions":[{{"aggregate":"complete","assemblies":["root"]}}]}}"#
    );
    let spdx3 = format!(
        r#"{{"@graph":[
            {{"type":"Relationship","spdxId":"r1","from":"p","to":["a","b"],"relationshipType":"contains"}},
            {{"type":"Relationship","spdxId":"r2","from":"root","to":"p","relationshipType":"contains","completeness":"complete"}},
            {{"type":"software_File","spdxId":"a","name":"./bin/a","comment":"layerID: {LAYER}",
              "verifiedUsing":[{{"algorithm":"sha256","hashValue":"{A}","type":"Hash"}}]}},
            {{"spdxId":"b","name":"/bin/b","verifiedUsing":[{{"type":"Hash","algorithm":"sha1","hashValue":"{sha1}"}}],"type":"software_File"}},
            {{"type":"software_File","spdxId":"c","name":"c","verifiedUsing":[{{"type":"Hash","algorithm":"sha1","hashValue":"{zero}"}}]}},
            {{"type":"software_File","spdxId":"d","name":"bin","software_fileKind":"directory"}},
            {{"type":"software_Package","spdxId":"p","name":"p","software_packageVersion":"1","software_packageUrl":"pkg:deb/debian/p@1",
              "verifiedUsing":[{{"type":"PackageVerificationCode","algorithm":"sha1","hashValue":"x"}}]}},
            {{"type":"software_Sbom","spdxId":"sbom","rootElement":["root"]}},
            {{"type":"SpdxDocument","spdxId":"doc","rootElement":"sbom"}},
            {{"type":"CreationInfo","@id":"_:c","created":"2026-01-01T00:00:00Z","specVersion":"3.0.1"}}],
          "@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld"}}"#
    );
    let tag_value = format!(
        "# made by hand\r\nSPDXVersion: SPDX-2.3\r\nSPDXID: SPDXRef-DOCUMENT\nCreated: 2026-01-01T00:00:00Z\n\
         CreatorComment: <text>muster: complete</text>\n\nFileName: ./c\nSPDXID: SPDXRef-c\nFileChecksum: SHA1: {zero}\n\
         PackageName: p\nSPDXID: SPDXRef-p\nPackageVersion: 1\nExternalRef: PACKAGE-MANAGER purl pkg:deb/debian/p@1\n\
         PackageComment: <text>several\nlines: with colons\nFileName: /not/this\n</text>\n\
         FileName: /bin/a\nSPDXID: SPDXRef-a\nFileChecksum: SHA256: {A}\nFileComment: <text>layerID: {LAYER}</text>\n\
         FileName: bin//b\nSPDXID: SPDXRef-b\nFileChecksum: SHA1: {sha1}\n\
         Relationship: SPDXRef-p CONTAINS SPDXRef-b\nSnippetSPDXID: SPDXRef-s\n"
    );
    let spdx = format!(
        r#"{{"spdxVersion":"SPDX-2.3","creationInfo":{{"created":"2026-01-01T00:00:00Z","comment":"muster: complete"}},
          "packages":[{{"SPDXID":"p","name":"p","versionInfo":"1","externalRefs":[
              {{"referenceCategory":"PACKAGE_MANAGER","referenceType":"purl","referenceLocator":"pkg:deb/debian/p@1"}}]}}],
          "files":[{{"SPDXID":"a","fileName":"/bin/a","comment":"layerID: {LAYER}","checksums":[{{"algorithm":"SHA256","checksumValue":"{A}"}}]}},
            {{"SPDXID":"b","fileName":"./bin/b","checksums":[{{"algorithm":"SHA1","checksumValue":"{sha1}"}}]}},
            {{"SPDXID":"c","fileName":"c","checksums":[{{"algorithm":"SHA1","checksumValue":"{zero}"}}]}}],
          "relationships":[{{"spdxElementId":"p","relationshipType":"CONTAINS","relatedSpdxElement":"a"}},
            {{"spdxElementId":"p","relationshipType":"CONTAINS","relatedSpdxElement":"b"}}]}}"#
    );
    let syft = format!(
        r#"{{"schema":{{"version":"16.0.0"}},"source":{{"type":"image","metadata":{{"imageID":"none","layers":[{{"digest":"{LAYER}"}}]}}}},
          "artifacts":[{{"id":"p","name":"p","version":"1","purl":"pkg:deb/debian/p@1"}}],
          "files":[{{"id":"a","location":{{"path":"/bin/a"}},"digests":[{{"algorithm":"sha256","value":"{A}"}}]}},
            {{"id":"b","location":{{"path":"/bin/b"}},"digests":[{{"algorithm":"sha1","value":"{sha1}"}}]}},
            {{"id":"c","location":{{"path":"/c"}}}}],
          "artifactRelationships":[{{"parent":"p","child":"a","type":"contains"}},{{"parent":"p","child":"b","type":"contains"}}],
          "descriptor":{{"configuration":{{"files":{{"selection":"all"}}}}}}}}"#
    );
    vec![
        (Format::Spdx2, spdx),
        (Format::SpdxTagValue, tag_value),
        (Format::Spdx3, spdx3),
        (Format::CycloneDx, cyclonedx),
        (Format::Syft, syft),
    ]
}

#[test]
fn every_format_gives_the_same_index() {
    for (format, text) in documents() {
        let index = parse(text.as_bytes(), &Limits::default()).unwrap_or_else(|e| panic!("{format:?}: {e}"));
        assert_eq!(index.formats(), [format]);
        let files: Vec<_> = index
            .entries()
            .map(|e| {
                let weak = e.weak().and_then(|w| w.sha1).is_some();
                (
                    e.path().to_string(),
                    e.sha256().map(|s| s.to_string()),
                    weak,
                    e.package().map(str::to_owned),
                )
            })
            .collect();
        let owner = Some("p 1".to_owned());
        assert_eq!(
            files,
            [
                ("/c".to_owned(), None, false, None),
                ("/bin/a".to_owned(), Some(A.to_owned()), false, owner.clone()),
                ("/bin/b".to_owned(), None, true, owner),
            ],
            "{format:?}"
        );
        let packages: Vec<_> = index.packages().collect();
        let expected = Package { name: "p", version: "1", purl: Some("pkg:deb/debian/p@1") };
        assert_eq!(packages, [expected], "{format:?}");
        assert_eq!(index.origin().layers, [LAYER.parse::<Sha256>().expect("a digest")], "{format:?}");
        assert_eq!(index.origin().config, None, "{format:?}");
        assert_eq!(index.coverage(), Coverage::Full, "{format:?}");
        assert_eq!(index.created().is_some(), format != Format::Syft, "{format:?}");
    }
}

#[test]
fn every_format_is_cut_anywhere_without_harm() {
    for (format, text) in documents() {
        for end in 0..text.len() {
            // A text format has no end that would be missed.
            if let Ok(index) = parse(&text.as_bytes()[..end], &Limits::default()) {
                assert!(format == Format::SpdxTagValue && index.len() <= 3, "{format:?} cut at {end}");
            }
        }
    }
}

#[test]
fn every_format_refuses_the_same_faults() {
    for (format, text) in documents() {
        let prefix = if format == Format::SpdxTagValue { "line " } else { "" };
        for (what, from, to, reason) in [
            ("a path that climbs", "/bin/a", "/../a", r#"".." component"#),
            ("a digest that is too short", A, "aa", "64 hexadecimal digits"),
            ("no digest", &A[..60], &"z".repeat(60), "64 hexadecimal digits"),
        ] {
            assert!(text.contains(from), "{format:?}: {what}");
            let error = parse(text.replacen(from, to, 1).as_bytes(), &Limits::default());
            let error = error.expect_err(what).to_string();
            assert!(error.contains(reason) && error.contains(prefix), "{format:?}, {what}: {error}");
            assert!(error.contains("line "), "{format:?}, {what}: {error}");
        }
        let other = text.replace("/bin/b", "/bin/a").replace("bin//b", "bin/a").replace(&"b".repeat(40), A);
        let other = other.replace("SHA-1", "SHA-256").replace("SHA1", "SHA256").replace("sha1", "sha256");
        let zero = "0".repeat(40);
        let other = other.replace(&zero, &"0".repeat(64)).replacen(A, &A.replace('a', "d"), 1);
        let error =
            parse(other.as_bytes(), &Limits::default()).expect_err("one path, two digests").to_string();
        assert!(error.contains("listed twice with different digests"), "{format:?}: {error}");
    }
}

#[test]
fn faults_of_one_format() {
    let text = |format| documents().into_iter().find(|(f, _)| *f == format).expect("it is there").1;
    let (cdx, spdx3, tags) = (text(Format::CycloneDx), text(Format::Spdx3), text(Format::SpdxTagValue));
    let bomb = format!("\"components\":[{}{}", "[".repeat(100), "]".repeat(100));
    for (document, reason) in [
        (cdx.replace("\"1.6\"", "\"1.1\""), "specVersion \"1.1\"; expected 1.2 to 1.7 at line 1"),
        (cdx.replace("\"CycloneDX\"", "\"Cyclone\""), "expected CycloneDX"),
        (cdx.replace("\"specVersion\"", "\"spec\""), "missing field `specVersion`"),
        (cdx.replace("\"components\":[\n", &bomb), "nested deeper than the limit of 64"),
        (
            cdx.replacen("\"components\":", "\"components\":[],\"components\":", 1),
            "duplicate field `components`",
        ),
        (cdx.replace("\"name\":\"./c\"", "\"name\":\"./c\",\"name\":\"d\""), "duplicate field `name`"),
        (cdx.replace("\"alg\":\"SHA-256\"", "\"al\":\"SHA-256\""), "a digest needs alg and content"),
        (spdx3.replace("/rdf/3.0.1/", "/rdf/4.0/"), "expected https://spdx.org/rdf/3.0"),
        (spdx3.replace("\"@context\"", "\"context\""), "missing field `@context`"),
        (spdx3.replacen("\"name\":\"c\",", "", 1), "missing field `name`"),
        (spdx3.replacen("\"from\":\"p\",", "", 1), "missing field `from`"),
        (spdx3.replace("\"type\":\"CreationInfo\"", "\"x\":1"), "missing field `type`"),
        (tags.replace("SPDX-2.3", "SPDX-2.1"), "line 2: SPDXVersion \"SPDX-2.1\"; expected"),
        (tags.replace("SHA256: a", "SHA256 a"), "line 20: FileChecksum"),
        (tags.replace("PackageVersion: 1", "PackageVersion 1"), "line 12: expected `Tag: value`"),
        (tags.replace("</text>", ""), "line 5: the <text> of \"CreatorComment\" has no </text>"),
        (tags.replace("SPDXID: SPDXRef-b", "SPDXID: SPDXRef-b\nSPDXID: x"), "has two SPDXIDs"),
        (format!("{tags}SPDXVersion: SPDX-2.3\n"), "given twice"),
        (tags.replace("/bin/a", "/bin\0a"), "NUL byte"),
    ] {
        let error = match parse(document.as_bytes(), &Limits::default()) {
            Ok(_) => panic!("accepted, not {reason}: {document}"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains(reason), "{document}\n  gives {error}\n  not {reason}");
    }
    let mut bytes = tags.into_bytes();
    let at = bytes.iter().position(|b| *b == b'/').expect("a path");
    bytes[at] = 0xff;
    let error = parse(&bytes, &Limits::default()).expect_err("not UTF-8").to_string();
    assert!(error.contains("line 5: not UTF-8"), "{error}");
}

#[test]
fn incomplete_claims_are_none() {
    for (format, text) in documents() {
        let weaker = text
            .replace("\"assemblies\":[\"root\"]", "\"assemblies\":[\"p\"]")
            .replace("\"completeness\":\"complete\"", "\"completeness\":\"incomplete\"")
            .replace("muster: complete", "muster: incomplete")
            .replace("\"selection\":\"all\"", "\"selection\":\"owned-by-package\"");
        let index =
            parse(weaker.as_bytes(), &Limits::default()).unwrap_or_else(|e| panic!("{format:?}: {e}"));
        assert_eq!(index.coverage(), Coverage::Owned, "{format:?}");
    }
}

/// syft-json with one package that has recorded `recorded`, and the document's own `files`.
fn syft(site_packages: &str, recorded: &[(&str, &str, &str)], files: &[(&str, &str)]) -> String {
    let recorded: Vec<_> = recorded
        .iter()
        .map(|(path, algorithm, value)| {
            serde_json::json!({ "path": path, "digest": { "algorithm": algorithm, "value": value } })
        })
        .collect();
    let files: Vec<_> = files
        .iter()
        .map(|(path, sha256)| {
            serde_json::json!({ "id": path, "location": { "path": path }, "digests": [{ "algorithm": "sha256", "value": sha256 }] })
        })
        .collect();
    serde_json::json!({
        "schema": { "version": "16.0.0" }, "files": files, "artifactRelationships": [],
        "artifacts": [{ "id": "p", "name": "p", "version": "1",
            "metadata": { "sitePackagesRootPath": site_packages, "files": recorded } }],
    })
    .to_string()
}

#[test]
fn what_package_managers_recorded() {
    let base64 = "qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqo";
    let (q1, md5) = ("Q1u7u7u7u7u7u7u7u7u7u7u7u7u7s=", "c".repeat(32));
    let own = "d".repeat(64);
    let text = syft(
        "/usr/lib/python3/site-packages",
        &[
            ("/rpm", "sha256", A),
            ("pip/x.py", "sha256", base64),
            ("../../../bin/pip", "sha256", base64),
            ("../../../../../bin/out", "sha256", base64),
            ("/apk", "'Q1'+base64(sha1)", q1),
            ("/dpkg", "md5", &md5),
            ("/twice", "sha256", A),
            ("/twice", "sha256", &own),
            ("/own", "sha256", A),
            ("/odd", "sha256", "not a digest"),
            ("/none", "crc", "00"),
        ],
        &[("/own", &own)],
    );
    let index = parse(text.as_bytes(), &Limits::default()).expect("a good document");
    let found: Vec<_> = index
        .entries()
        .map(|e| {
            let weak = e.weak().unwrap_or_default();
            (
                e.path().to_string(),
                e.sha256().map(|s| s.to_string()[..2].to_owned()),
                weak.sha1.is_some(),
                weak.md5.is_some(),
            )
        })
        .collect();
    let row =
        |path: &str, sha256: Option<&str>, sha1, md5| (path.to_owned(), sha256.map(str::to_owned), sha1, md5);
    assert_eq!(
        found,
        [
            row("/apk", None, true, false),
            row("/dpkg", None, false, true),
            row("/own", Some("dd"), false, false),
            row("/rpm", Some("aa"), false, false),
            row("/twice", None, false, false),
            row("/usr/bin/pip", Some("aa"), false, false),
            row("/usr/lib/python3/site-packages/pip/x.py", Some("aa"), false, false),
        ]
    );
    assert!(index.entries().all(|e| e.package() == Some("p 1")));
    assert!(
        index
            .entries()
            .all(|e| e.is_recorded() == (e.path().as_bytes() != b"/own" && e.path().as_bytes() != b"/twice"))
    );
    // `/twice` and `/odd`.
    assert_eq!((index.numbers().recorded, index.numbers().unusable), (5, 2));
}
