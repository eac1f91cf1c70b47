//! Documents as real tools write them, sloppy and yet right: what each kind says.

use super::*;

const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

fn spdx(members: &str) -> String {
    format!(r#"{{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT",{members}}}"#)
}

fn spdx3(graph: &str) -> String {
    format!(r#"{{"@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld","@graph":[{graph}]}}"#)
}

fn cyclonedx(members: &str) -> String {
    format!(r#"{{"bomFormat":"CycloneDX","specVersion":"1.6",{members}}}"#)
}

fn syft(members: &str) -> String {
    format!(r#"{{"schema":{{"version":"16.0.0"}},"artifacts":[],{members}}}"#)
}

fn good(document: impl AsRef<[u8]>) -> ImageIndex {
    let document = document.as_ref();
    parse(document, &Limits::default())
        .unwrap_or_else(|e| panic!("{e}\n{}", String::from_utf8_lossy(document)))
}

fn wrong(document: impl AsRef<[u8]>) -> String {
    let document = document.as_ref();
    match parse(document, &Limits::default()) {
        Ok(_) => panic!("accepted: {}", String::from_utf8_lossy(document)),
        Err(error) => error.to_string(),
    }
}

/// Every file with the first two digits of its digest and its package.
fn files(index: &ImageIndex) -> Vec<String> {
    let digest = |entry: Entry<'_>| {
        let weak = entry.weak().unwrap_or_default();
        match (entry.sha256(), weak.sha1, weak.md5) {
            (Some(sha256), ..) => sha256.to_string()[..2].to_owned(),
            (None, None, None) => "none".to_owned(),
            (None, ..) => "weak".to_owned(),
        }
    };
    let owner =
        |entry: Entry<'_>| entry.package().map_or_else(String::new, |package| format!(" of {package}"));
    index.entries().map(|entry| format!("{} {}{}", entry.path(), digest(entry), owner(entry))).collect()
}

fn packages(index: &ImageIndex) -> Vec<String> {
    index.packages().map(|p| format!("{} {} {}", p.name, p.version, p.purl.unwrap_or("-"))).collect()
}

fn spdx_file(id: &str, path: &str, sha256: &str) -> String {
    format!(
        r#"{{"SPDXID":"{id}","fileName":"{path}","checksums":[{{"algorithm":"SHA256","checksumValue":"{sha256}"}}]}}"#
    )
}

#[test]
fn one_id_for_two_elements() {
    let package = |version: &str| format!(r#"{{"SPDXID":"p","name":"p","versionInfo":"{version}"}}"#);
    let contains =
        r#""relationships":[{"spdxElementId":"p","relationshipType":"CONTAINS","relatedSpdxElement":"f"}]"#;
    let (a, a_again, b) = (spdx_file("f", "/a", A), spdx_file("f", "./a", A), spdx_file("f", "/b", B));
    for (packages, listed, expected) in [
        (vec![package("1")], vec![&a, &b], (1, &["/a aa", "/b bb"][..])),
        (vec![package("1")], vec![&a, &a_again], (1, &["/a aa of p 1"])),
        (vec![package("1"), package("1")], vec![&a], (1, &["/a aa of p 1"])),
        (vec![package("1"), package("2")], vec![&a], (2, &["/a aa"])),
    ] {
        let listed = listed.into_iter().map(|file| &**file).collect::<Vec<_>>().join(",");
        let packages = packages.join(",");
        let index = good(spdx(&format!(r#""packages":[{packages}],"files":[{listed}],{contains}"#)));
        assert_eq!(
            (index.packages().count(), &*files(&index)),
            (expected.0, &*expected.1.iter().map(|&row| row.to_owned()).collect::<Vec<_>>()),
            "{packages} {listed}"
        );
    }
    // The same in tag-value, where a file also belongs to the package that it follows.
    let text = format!(
        "SPDXVersion: SPDX-2.3\nPackageName: p\nSPDXID: SPDXRef-p\nPackageVersion: 1\n\
         FileName: /a\nSPDXID: SPDXRef-f\nFileChecksum: SHA256: {A}\n\
         PackageName: q\nSPDXID: SPDXRef-q\nFileName: /b\nSPDXID: SPDXRef-f\nFileChecksum: SHA256: {B}\n"
    );
    assert_eq!(files(&good(text)), ["/a aa of p 1", "/b bb of q"]);
}

#[test]
fn what_is_contained_by_a_package() {
    let (file, package) = (spdx_file("f", "/a", A), r#"{"SPDXID":"p","name":"p"}"#);
    let index = good(spdx(&format!(
        r#""packages":[{package}],"files":[{file}],"relationships":[{{"spdxElementId":"f","relationshipType":"CONTAINED_BY","relatedSpdxElement":"p"}}]"#
    )));
    assert_eq!(files(&index), ["/a aa of p"]);
    let text = format!(
        "SPDXVersion: SPDX-2.3\nFileName: /a\nSPDXID: SPDXRef-f\nFileChecksum: SHA256: {A}\nPackageName: p\nSPDXID: SPDXRef-p\n\
         Relationship: SPDXRef-f CONTAINED_BY SPDXRef-p\n"
    );
    assert_eq!(files(&good(text)), ["/a aa of p"]);
}

#[test]
fn null_where_nothing_need_be() {
    let (file, package) =
        (spdx_file("f", "/a", A), |more: &str| format!(r#"{{"SPDXID":"p","name":"p",{more}}}"#));
    let of_spdx = |more: &str| spdx(&format!(r#""files":[{file}],"packages":[{}]"#, package(more)));
    let component = |more: &str| {
        format!(
            r#"{{"type":"library","name":"p",{more}}},{{"type":"file","name":"/a","hashes":[{{"alg":"SHA-256","content":"{A}"}}]}}"#
        )
    };
    let of_cyclonedx = |more: &str| cyclonedx(&format!(r#""components":[{}]"#, component(more)));
    let beside =
        |more: &str| cyclonedx(&format!(r#""components":[{}],{more}"#, component(r#""version":null"#)));
    let element = |more: &str| {
        spdx3(&format!(
            r#"{{"type":"software_Package","spdxId":"urn:p","name":"p",{more}}},{{"type":"software_File","spdxId":"urn:f","name":"/a","verifiedUsing":[{{"type":"Hash","algorithm":"sha256","hashValue":"{A}"}}]}}"#
        ))
    };
    let of_syft = |more: &str| {
        format!(
            r#"{{"schema":{{"version":"16.0.0"}},"artifacts":[{{"id":"p","name":"p","purl":null,"version":null,"metadata":null}}],{more},
              "files":[{{"id":"f","location":{{"path":"/a","layerID":null}},"metadata":null,"digests":[{{"algorithm":"sha256","value":"{A}"}}]}}]}}"#
        )
    };
    for document in [
        of_spdx(r#""attributionTexts":null"#),
        of_spdx(r#""externalRefs":null"#),
        of_spdx(r#""annotations":null"#),
        of_spdx(r#""hasFiles":null"#),
        of_spdx(
            r#""externalRefs":[{"referenceType":null,"referenceLocator":null}],"annotations":[{"comment":null}]"#,
        ),
        of_spdx(r#""primaryPackagePurpose":null,"versionInfo":null"#),
        spdx(&format!(
            r#""creationInfo":null,"files":[{file}],"packages":[{}],"relationships":null"#,
            package(r#""checksums":null"#)
        )),
        spdx(&format!(
            r#""creationInfo":{{"creators":null,"created":null,"comment":null}},"files":[{file}],"packages":[{}]"#,
            package(r#""hasFiles":null"#)
        )),
        of_cyclonedx(r#""properties":[{"name":"x","value":null},{"name":null}]"#),
        of_cyclonedx(r#""properties":null,"hashes":null,"evidence":null,"components":null,"purl":null"#),
        of_cyclonedx(r#""evidence":{"occurrences":null}"#),
        beside(r#""metadata":null"#),
        beside(
            r#""metadata":{"tools":[{"vendor":"v","name":null,"version":null}],"component":null,"timestamp":null}"#,
        ),
        beside(r#""metadata":{"tools":{"components":null}}"#),
        beside(r#""compositions":null"#),
        beside(r#""compositions":[{"aggregate":"incomplete","assemblies":null,"dependencies":null}]"#),
        element(r#""externalIdentifier":null,"verifiedUsing":null,"software_packageVersion":null"#),
        element(r#""externalIdentifier":[null,{"type":"ExternalIdentifier","identifier":null}]"#),
        of_syft(r#""source":null,"descriptor":null,"artifactRelationships":null"#),
        of_syft(
            r#""source":{"metadata":{"imageID":"sha256:aa","layers":null,"config":null,"architecture":null}}"#,
        ),
        of_syft(r#""descriptor":{"name":null,"version":null,"configuration":null}"#),
    ] {
        let index = good(&document);
        assert_eq!(
            (files(&index), index.packages().count(), index.tool()),
            (vec!["/a aa".to_owned()], 1, None),
            "{document}"
        );
    }
    // A digest that is `null` is none that could be used.
    for document in [
        of_spdx("\"x\":1").replace(&format!("\"{A}\""), "null"),
        of_cyclonedx("\"x\":1").replace(&format!("\"{A}\""), "null"),
        element("\"x\":1").replace(&format!("\"{A}\""), "null"),
        of_syft("\"x\":1").replace(&format!("\"{A}\""), "null"),
    ] {
        assert!(wrong(&document).contains("a digest needs"), "{document}");
    }
    for (format, document) in [
        ("path", of_spdx("\"x\":1").replace("\"/a\"", "null")),
        ("path", of_syft("\"x\":1").replace("\"/a\"", "null")),
    ] {
        assert!(wrong(&document).contains("null"), "{format}: {document}");
    }
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_document() {
    for (format, write) in write::WRITERS {
        let content = write::Content {
            files: vec![write::Listed { path: "/a".into(), sha256: Some(A.into()), sha1: None, owner: None }],
            layer: "1".repeat(64),
            ..write::Content::default()
        };
        let index = good(format!("\u{feff}{}", write(&content)));
        assert_eq!((index.formats()[0].as_str(), &*files(&index)), (format, &["/a aa".to_owned()][..]));
    }
}

#[test]
fn what_is_no_text_is_named() {
    let document = cyclonedx(r#""components":[]"#);
    let utf16: Vec<u8> = document.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, says) in [
        ([b"\xff\xfe", &*utf16].concat(), "UTF-16"),
        (utf16, "UTF-16"),
        (b"\x1f\x8b\x08\0".to_vec(), "compressed with gzip"),
        (b"\x28\xb5\x2f\xfd\x04".to_vec(), "compressed with zstd"),
        (b"\xfd7zXZ\0\0".to_vec(), "compressed with xz"),
        (b"\x7fELF\x02\x01".to_vec(), "an ELF file"),
        (b"[]".to_vec(), "a JSON array; expected one object"),
        (br#"{"payloadType":"x","payload":"","signatures":[]}"#.to_vec(), "a signed attestation"),
        (br#"{"_type":"x","predicateType":"y","predicate":{}}"#.to_vec(), "an in-toto statement"),
    ] {
        let error = wrong(&bytes);
        assert!(error.starts_with(&format!("this is {says}")), "{error}");
        assert!(error.contains("accepted are SPDX"), "{error}");
    }
}

#[test]
fn no_message_has_the_name_of_a_structure() {
    let element = r#"{"type":"software_File","spdxId":"urn:f","name":"/a","verifiedUsing":[1]}"#;
    for document in [
        spdx(r#""packages":[[]]"#),
        spdx(r#""packages":["p"]"#),
        spdx(r#""files":[1]"#),
        spdx(r#""files":[["f","/a"]]"#),
        spdx(r#""relationships":[1]"#),
        spdx(r#""packages":[{"SPDXID":"p","name":"p","externalRefs":[[]]}]"#),
        spdx(r#""files":[{"SPDXID":"f","fileName":"/a","checksums":["x"]}]"#),
        cyclonedx(r#""components":[1]"#),
        cyclonedx(r#""metadata":1"#),
        cyclonedx(r#""compositions":[[]]"#),
        cyclonedx(r#""components":[{"type":"file","name":"/a","properties":[1]}]"#),
        spdx3("1"),
        spdx3(element),
        syft(r#""files":[[]]"#),
        syft(r#""files":[{"id":"f","location":["/a"]}]"#),
        syft(r#""artifactRelationships":[[]]"#),
        r#"{"schema":["16.0.0"],"artifacts":[],"artifactRelationships":[]}"#.to_owned(),
        "[[]]".to_owned(),
    ] {
        let error = wrong(&document);
        assert!(!error.contains("struct ") && !error.contains("tuple"), "{document}: {error}");
        assert!(error.contains("line 1 column") || error.starts_with("this is"), "{document}: {error}");
    }
}

#[test]
fn times() {
    for (text, stated) in [
        ("2026-01-01T00:00:00Z", true),
        ("2026-01-01T00:00:00.5+02:00", true),
        ("1970-01-01T00:00:00Z", true),
        ("2024-04-13T14:01:37.050912", false),
        ("2022-03-31T16:29:00+0000", false),
        ("yesterday", false),
        ("", false),
        // Go's zero time.
        ("0001-01-01T00:00:00Z", false),
        ("1969-12-31T23:59:59Z", false),
    ] {
        for document in [
            spdx(&format!(r#""creationInfo":{{"created":"{text}"}}"#)),
            cyclonedx(&format!(r#""metadata":{{"timestamp":"{text}"}}"#)),
            spdx3(&format!(r#"{{"type":"CreationInfo","@id":"_:c","created":"{text}"}}"#)),
            format!("SPDXVersion: SPDX-2.3\nCreated: {text}\n"),
        ] {
            assert_eq!(good(&document).created().is_some(), stated, "{document}");
        }
    }
    assert!(good(cyclonedx(r#""metadata":{"timestamp":1700000000}"#)).created().is_none());
}

#[test]
fn names_of_cyclonedx_files() {
    let file = |name: &str, sha256: &str, more: &str| {
        format!(
            r#"{{"type":"file","name":"{name}","hashes":[{{"alg":"SHA-256","content":"{sha256}"}}]{more}}}"#
        )
    };
    let within =
        |name: &str, inner: &str| format!(r#"{{"type":"library","name":"{name}","components":[{inner}]}}"#);
    let source = |path: &str| format!(r#","properties":[{{"name":"SrcFile","value":"{path}"}}]"#);
    let found = |path: &str| format!(r#","evidence":{{"occurrences":[{{"location":"{path}"}}]}}"#);
    for (components, listed, contents) in [
        // cdxgen: the base name, and the path in a property.
        (
            vec![file("busybox", A, &source("/bin/busybox")), file("ls", B, &source("/usr/bin/ls"))],
            &["/bin/busybox aa", "/usr/bin/ls bb"][..],
            0,
        ),
        (vec![file("busybox", A, &found("/bin/busybox"))], &["/bin/busybox aa"], 0),
        // A property of where a package was found in a source tree is no path of the image.
        (vec![file("main.go", A, &source("src/main.go"))], &[], 1),
        // cyclonedx-gomod: the same relative name in two modules.
        (
            vec![
                within("a", &file("main.go", A, "")),
                within("b", &file("main.go", B, "")),
                file("/x", A, ""),
            ],
            &["/x aa"],
            2,
        ),
        (vec![within("a", &file("cmd/main.go", A, ""))], &[], 1),
        (vec![within("a", &file("/opt/a", A, ""))], &["/opt/a aa of a"], 0),
        (vec![file("main", A, ""), file("opt/x", B, ""), file("./y", A, "")], &["/y aa", "/opt/x bb"], 1),
        // A scan of a directory that stands among the components after a merge.
        (
            vec![
                r#"{"type":"file","name":"."}"#.to_owned(),
                r#"{"type":"file","name":"/"}"#.to_owned(),
                r#"{"type":"file","name":"./"}"#.to_owned(),
            ],
            &[],
            0,
        ),
        (
            vec![
                format!(r#"{{"type":"file","name":".","components":[{}]}}"#, within("a", "")),
                file("/x", A, ""),
            ],
            &["/x aa"],
            0,
        ),
    ] {
        let index = good(cyclonedx(&format!(r#""components":[{}]"#, components.join(","))));
        assert_eq!(files(&index), listed, "{components:?}");
        assert_eq!(index.numbers().contents, contents, "{components:?}");
    }
    // The content counts, wherever it is; that of empty files does not.
    let empty = Sha256::EMPTY.to_string();
    let index = good(cyclonedx(&format!(
        r#""components":[{},{},{}]"#,
        file("main", A, ""),
        file("again", A, ""),
        file("empty", &empty, "")
    )));
    assert!(index.has_content(&A.parse().expect("a digest")) && !index.has_content(&Sha256::EMPTY));
    let both = ImageIndex::union(&[&index, &index]).expect("they agree");
    assert_eq!((index.numbers().contents, both.numbers().contents), (1, 1));
}

#[test]
fn digests_of_packages_are_not_read() {
    let short = r#"[{"alg":"SHA-256","content":"deadbeef"}]"#;
    let index = good(cyclonedx(&format!(
        r#""components":[{{"type":"library","name":"p","hashes":{short}}},{{"type":"file","name":"/a","hashes":[{{"alg":"SHA-256","content":"{A}"}}]}}]"#
    )));
    assert_eq!((files(&index), packages(&index)), (vec!["/a aa".to_owned()], vec!["p  -".to_owned()]));
    // A file's are, whether its type is known before or after them.
    for component in [
        format!(r#"{{"hashes":{short},"name":"/a","type":"file"}}"#),
        format!(
            r#"{{"type":"library","name":"p","hashes":{short},"properties":[{{"name":"aquasecurity:trivy:FilePath","value":"a.jar"}}]}}"#
        ),
    ] {
        let error = wrong(cyclonedx(&format!(r#""components":[{component}]"#)));
        assert!(error.contains("SHA-256 must be 64") && error.contains("line 1"), "{error}");
    }
    let hash = r#""verifiedUsing":[{"type":"Hash","algorithm":"sha256","hashValue":"deadbeef"}]"#;
    good(spdx3(&format!(r#"{{"type":"software_Package","spdxId":"urn:p","name":"p",{hash}}}"#)));
    let error = wrong(spdx3(&format!(r#"{{"type":"software_File","spdxId":"urn:f","name":"/a",{hash}}}"#)));
    assert!(error.contains("SHA-256 must be 64"), "{error}");
}

#[test]
fn cyclonedx_1_2_and_1_3() {
    for version in ["1.2", "1.3"] {
        let document = format!(
            r#"{{"bomFormat":"CycloneDX","specVersion":"{version}","serialNumber":"urn:uuid:0","version":1,
              "metadata":{{"timestamp":"2021-01-01T00:00:00Z","tools":[{{"vendor":"v","name":"maker","version":"1"}}],
                "component":{{"type":"application","name":"x","version":"1","bom-ref":"x"}}}},
              "components":[{{"type":"library","name":"p","version":"1","purl":"pkg:npm/p@1","hashes":[{{"alg":"SHA-512","content":"00"}}]}},
                {{"type":"file","name":"/a","version":"","hashes":[{{"alg":"SHA-256","content":"{A}"}}]}}],"dependencies":[]}}"#
        );
        let index = good(document);
        assert_eq!(
            (files(&index), packages(&index)),
            (vec!["/a aa".to_owned()], vec!["p 1 pkg:npm/p@1".to_owned()])
        );
        assert_eq!((index.tool(), index.created().is_some()), (Some("maker-1"), true));
    }
    assert!(
        wrong(r#"{"bomFormat":"CycloneDX","specVersion":"1.1","components":[]}"#)
            .contains("expected 1.2 to 1.7")
    );
}

#[test]
fn components_that_are_no_programs_are_counted() {
    let of = |kind: &str, more: &str| format!(r#"{{"type":"{kind}","name":"x"{more}}}"#);
    let hashes = format!(r#","hashes":[{{"alg":"SHA-256","content":"{A}"}}]"#);
    let at = |path: &str| format!(r#","evidence":{{"occurrences":[{{"location":"{path}"}}]}}"#);
    let components = [
        of("machine-learning-model", &format!("{hashes}{}", at("/models/bert.bin"))),
        of("machine-learning-model", &hashes),
        format!(r#"{{"type":"data","name":"/srv/data.csv"{hashes}}}"#),
        // Without a digest a path says nothing.
        of("data", &at("/srv/other")),
        of("device", &hashes),
        of("device-driver", ""),
        of("firmware", ""),
        of("cryptographic-asset", ""),
        of("cryptographic-asset", &at("/etc/key.pem")),
        of("operating-system", ""),
    ];
    let index = good(cyclonedx(&format!(r#""components":[{}]"#, components.join(","))));
    assert_eq!(files(&index), ["/models/bert.bin aa", "/srv/data.csv aa"]);
    let counts = [
        ("machine-learning-model", 2),
        ("data", 2),
        ("device", 1),
        ("device-driver", 1),
        ("firmware", 1),
        ("cryptographic-asset", 2),
    ];
    assert_eq!(index.numbers().kinds.iter().collect::<Vec<_>>(), counts);
    // Firmware is software that is installed.
    assert_eq!(packages(&index), ["x  -"]);
    let both = ImageIndex::union(&[&index, &index]).expect("they agree");
    assert_eq!(both.numbers().kinds.iter().map(|(_, count)| count).sum::<u64>(), 18);
    // SPDX 3 has classes and purposes for the same.
    let package = |class: &str, purpose: &str| {
        format!(
            r#"{{"type":"{class}","spdxId":"urn:{class}{purpose}","name":"x","software_primaryPurpose":"{purpose}"}}"#
        )
    };
    let index = good(spdx3(
        &[
            package("ai_AIPackage", ""),
            package("dataset_DatasetPackage", ""),
            package("software_Package", "firmware"),
        ]
        .join(","),
    ));
    assert_eq!(
        index.numbers().kinds.iter().collect::<Vec<_>>(),
        [("machine-learning-model", 1), ("data", 1), ("firmware", 1)]
    );
    assert_eq!(index.packages().count(), 3);
    let index = good(spdx(r#""packages":[{"SPDXID":"p","name":"x","primaryPackagePurpose":"DEVICE"}]"#));
    assert_eq!(index.numbers().kinds.iter().collect::<Vec<_>>(), [("device", 1)]);
}

#[test]
fn short_ids_of_spdx3() {
    let file = |number: usize| {
        format!(
            r#"{{"type":"software_File","spdxId":"s:{number}","name":"/f{number}","verifiedUsing":[{{"type":"Hash","algorithm":"sha256","hashValue":"{A}"}}]}}"#
        )
    };
    let graph: Vec<_> = (0..400).map(file).collect();
    // Named by the long form, too: it is the same id.
    let ids: Vec<_> =
        (0..400).map(|n| if n % 2 == 0 { format!("\"s:{n}\"") } else { format!("\"urn:x:{n}\"") }).collect();
    let context = r#"["https://spdx.org/rdf/3.0.1/spdx-context.jsonld",{"@vocab":"urn:v:","s":"urn:x:"}]"#;
    for context_first in [true, false] {
        let graph = format!(
            r#""@graph":[{},{{"type":"software_Package","spdxId":"urn:x:p","name":"p"}},
              {{"type":"Relationship","spdxId":"s:r","from":"s:p","relationshipType":"contains","to":[{}]}}]"#,
            graph.join(","),
            ids.join(",")
        );
        let document = if context_first {
            format!(r#"{{"@context":{context},{graph}}}"#)
        } else {
            format!(r#"{{{graph},"@context":{context}}}"#)
        };
        let numbers = good(document).numbers();
        assert_eq!((numbers.files, numbers.owned, numbers.packages), (400, 400, 1));
    }
}

/// `Hash` and `ExternalIdentifier` as elements that others name, before or after them.
#[test]
fn spdx3_by_reference() {
    let elements = [
        r#"{"type":"software_Package","spdxId":"urn:p","name":"p","externalIdentifier":["urn:cpe","urn:purl"]}"#.to_owned(),
        r#"{"type":"ExternalIdentifier","spdxId":"urn:cpe","externalIdentifierType":"cpe23","identifier":"cpe:x"}"#.to_owned(),
        r#"{"type":"ExternalIdentifier","spdxId":"urn:purl","externalIdentifierType":"packageUrl","identifier":"pkg:generic/p@1"}"#.to_owned(),
        r#"{"type":"software_File","spdxId":"urn:f","name":"./a","verifiedUsing":["_:h1","_:h2"]}"#.to_owned(),
        format!(r#"{{"type":"Hash","@id":"_:h1","algorithm":"sha256","hashValue":"{A}"}}"#),
        r#"{"type":"PackageVerificationCode","@id":"_:h2","algorithm":"sha1","hashValue":"x"}"#.to_owned(),
        r#"{"type":"Relationship","spdxId":"urn:r","from":"urn:p","relationshipType":"contains","to":["urn:f"]}"#.to_owned(),
    ];
    for reversed in [false, true] {
        let mut elements = elements.to_vec();
        if reversed {
            elements.reverse();
        }
        let index = good(spdx3(&elements.join(",")));
        assert_eq!(files(&index), ["/a aa of p"]);
        assert_eq!(packages(&index), ["p  pkg:generic/p@1"]);
    }
    let with = |place: usize, element: &str| {
        let mut elements = elements.to_vec();
        elements[place] = element.to_owned();
        spdx3(&elements.join(",\n"))
    };
    // On these a digest rests.
    for (element, reason) in [
        (r#"{"type":"Tool","spdxId":"urn:t"}"#.to_owned(), "is not in the document"),
        (
            r#"{"type":"Hash","@id":"_:h1","algorithm":"sha256","hashValue":"aa"}"#.to_owned(),
            "64 hexadecimal digits",
        ),
        (r#"{"type":"Hash","@id":"_:h1","algorithm":"sha256"}"#.to_owned(), "a digest needs"),
        (
            format!(
                r#"{{"type":"Hash","@id":"_:h1","algorithm":"sha256","hashValue":"{A}"}},{{"type":"Hash","@id":"_:h1","algorithm":"sha256","hashValue":"{B}"}}"#
            ),
            "one id",
        ),
    ] {
        let error = wrong(with(4, &element));
        assert!(error.contains(reason) && error.contains("line "), "{element}: {error}");
    }
    let twice = format!(
        r#"{{"type":"software_File","spdxId":"urn:f","name":"./a","verifiedUsing":["_:h1",{{"type":"Hash","algorithm":"sha256","hashValue":"{B}"}}]}}"#
    );
    assert!(wrong(with(3, &twice)).contains("two different"));
    let dangling =
        r#"{"type":"software_Package","spdxId":"urn:p","name":"p","externalIdentifier":["urn:nowhere"]}"#;
    assert_eq!(packages(&good(with(0, dangling))), ["p  -"]);
}

#[test]
fn spdx3_elements_in_place() {
    let package = r#"{"type":"software_Package","spdxId":"urn:p","name":"p"}"#;
    let file = format!(
        r#"{{"type":"software_File","spdxId":"urn:f","name":"./a","verifiedUsing":[{{"type":"Hash","algorithm":"sha256","hashValue":"{A}"}}]}}"#
    );
    let contains = r#"{"type":"Relationship","spdxId":"urn:r","from":"urn:p","relationshipType":"contains","to":["urn:f"],"completeness":"complete"}"#;
    for (graph, complete) in [
        (
            format!(
                r#"{{"type":"SpdxDocument","spdxId":"urn:d","element":[{package},{file},{contains}],"rootElement":["urn:p"]}}"#
            ),
            true,
        ),
        (
            format!(
                r#"{{"type":"SpdxDocument","spdxId":"urn:d","rootElement":[{package}]}},{file},{contains}"#
            ),
            true,
        ),
        (
            format!(
                r#"{{"type":"Relationship","spdxId":"urn:r","from":{package},"relationshipType":"contains","to":[{file}]}}"#
            ),
            false,
        ),
        (
            format!(
                r#"{{"type":"Relationship","spdxId":"urn:r","from":{package},"relationshipType":"contains","to":{file}}}"#
            ),
            false,
        ),
    ] {
        let index = good(spdx3(&graph));
        assert_eq!(files(&index), ["/a aa of p"], "{graph}");
        assert_eq!(index.numbers().complete, complete, "{graph}");
    }
    // What is wrong in place is wrong.
    let error = wrong(spdx3(&format!(
        r#"{{"type":"SpdxDocument","spdxId":"urn:d","element":[{}]}}"#,
        file.replace(A, "aa")
    )));
    assert!(error.contains("64 hexadecimal digits"), "{error}");
}

#[test]
fn spdx3_without_a_graph() {
    let file = format!(
        r#""type":"software_File","spdxId":"urn:f","name":"./a","verifiedUsing":[{{"type":"Hash","algorithm":"sha256","hashValue":"{A}"}}]"#
    );
    let context = r#""@context":"https://spdx.org/rdf/3.0.1/spdx-context.jsonld""#;
    let created =
        r#""creationInfo":{"type":"CreationInfo","specVersion":"3.0.1","created":"2024-01-01T00:00:00Z"}"#;
    for document in [format!("{{{context},{file},{created}}}"), format!("{{{created},{file},{context}}}")] {
        let index = good(&document);
        assert_eq!(files(&index), ["/a aa"], "{document}");
        assert!(index.created().is_some(), "{document}");
    }
    assert!(wrong(format!("{{{context}}}")).contains("missing field `@graph`"));
}

#[test]
fn the_tool_of_spdx3_is_what_was_used() {
    let tool = |id: &str, name: &str| format!(r#"{{"type":"Tool","spdxId":"urn:{id}","name":"{name}"}}"#);
    let creation = |using: &str| format!(r#"{{"type":"CreationInfo","@id":"_:c"{using}}}"#);
    let (ar, maker) = (tool("ar", "ar 2.43"), tool("maker", "maker 1.0"));
    for (graph, expected) in [
        ([creation(r#","createdUsing":["urn:maker"]"#), ar.clone(), maker.clone()], Some("maker 1.0")),
        ([ar.clone(), maker.clone(), creation(r#","createdUsing":"urn:maker""#)], Some("maker 1.0")),
        ([creation(""), ar.clone(), maker.clone()], None),
        ([creation(""), maker.clone(), creation("")], Some("maker 1.0")),
        ([creation(r#","createdUsing":["urn:other"]"#), ar, maker], None),
    ] {
        assert_eq!(good(spdx3(&graph.join(","))).tool(), expected, "{graph:?}");
    }
}

#[test]
fn one_path_in_several_layers_of_syft() {
    let layer = |n: u8| format!("sha256:{}", n.to_string().repeat(64));
    let file = |id: &str, layer: &str, digests: &str| {
        format!(r#"{{"id":"{id}","location":{{"path":"/bin/x","layerID":"{layer}"}},"digests":[{digests}]}}"#)
    };
    let sha256 = |value: &str| format!(r#"{{"algorithm":"sha256","value":"{value}"}}"#);
    let document = |files: &[String], layers: &[u8]| {
        let layers: Vec<_> = layers.iter().map(|n| format!(r#"{{"digest":"{}"}}"#, layer(*n))).collect();
        let source =
            format!(r#""source":{{"metadata":{{"imageID":"sha256:{A}","layers":[{}]}}}}"#, layers.join(","));
        syft(&format!(r#""files":[{}],{source}"#, files.join(",")))
    };
    let (lower, upper) = (file("1", &layer(1), &sha256(A)), file("2", &layer(2), &sha256(B)));
    for (files_of, layers, expected) in [
        (vec![lower.clone(), upper.clone()], &[1, 2][..], "/bin/x bb"),
        (vec![upper.clone(), lower.clone()], &[1, 2], "/bin/x bb"),
        (vec![lower.clone(), upper.clone()], &[2, 1], "/bin/x aa"),
        (vec![lower.clone(), upper.clone()], &[1, 2, 1], "/bin/x aa"),
        // What lies above hides what lies below, even if its digest is not known.
        (vec![lower.clone(), file("2", &layer(2), "")], &[1, 2], "/bin/x none"),
    ] {
        assert_eq!(files(&good(document(&files_of, layers))), [expected], "{files_of:?} {layers:?}");
    }
    // Which is above which is not known, or both are of one layer.
    let same = file("2", &layer(1), &sha256(B));
    for (files_of, layers) in [
        (vec![lower.clone(), upper], &[1][..]),
        (vec![lower.clone(), same], &[1, 2]),
        (vec![lower, file("2", "", &sha256(B))], &[1, 2]),
    ] {
        let error = wrong(document(&files_of, layers));
        assert!(error.contains("listed twice with different digests"), "{error}");
    }
}

#[test]
fn kinds_of_files_in_older_syft() {
    let file = |id: &str, metadata: &str| {
        format!(r#"{{"id":"{id}","location":{{"path":"/{id}"}},"metadata":{{{metadata}}}}}"#)
    };
    let all = [
        file("a", r#""Mode":511,"Type":"SymbolicLink","LinkDestination":"x""#),
        file("b", r#""Mode":511,"Type":2,"MIMEType":"""#),
        file("c", r#""Type":5"#),
        file("d", r#""Type":53"#),
        file("e", r#""type":"Directory""#),
        file("f", r#""Type":0"#),
        file("g", r#""Type":48"#),
        file("h", r#""Type":"RegularFile""#),
        file("i", r#""Mode":511"#),
    ];
    assert_eq!(
        files(&good(syft(&format!(r#""files":[{}]"#, all.join(","))))),
        ["/f none", "/g none", "/h none", "/i none"]
    );
}

#[test]
fn of_one_content_what_a_package_owns_comes_first() {
    let index = good(spdx(&format!(
        r#""packages":[{{"SPDXID":"p","name":"p"}}],"files":[{},{},{},{}],
          "relationships":[{{"spdxElementId":"p","relationshipType":"CONTAINS","relatedSpdxElement":"c"}}]"#,
        spdx_file("a", "/opt/build/usr/bin/date", A),
        spdx_file("b", "/aaa", A),
        spdx_file("c", "/usr/bin/date", A),
        spdx_file("d", "/etc/empty", &Sha256::EMPTY.to_string())
    )));
    let at =
        |sha256: &Sha256| index.by_sha256(sha256).map(|entry| entry.path().to_string()).collect::<Vec<_>>();
    assert_eq!(at(&A.parse().expect("a digest")), ["/usr/bin/date", "/aaa", "/opt/build/usr/bin/date"]);
    // The content of empty files is nowhere in particular; at its path it is what it should be.
    assert_eq!(at(&Sha256::EMPTY), [""; 0]);
    assert_eq!(index.by_path(b"/etc/empty").and_then(Entry::sha256), Some(Sha256::EMPTY));
}
