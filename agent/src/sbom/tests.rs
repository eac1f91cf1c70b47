//! Real documents, and documents that are wrong.

use std::path::PathBuf;

use super::*;
use crate::finding::Coverage;

mod formats;
mod properties;
mod refused;
mod sharing;
mod sloppy;
mod write;

fn data(name: &str) -> Vec<u8> {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/sbom").join(name);
    std::fs::read(&file)
        .unwrap_or_else(|e| panic!("test data {} is needed beside the checkout: {e}", file.display()))
}

fn read(name: &str) -> ImageIndex {
    parse(&data(name), &Limits::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn real_documents() {
    // Name, files, with SHA-256, packages listed, coverage.
    for (name, files, with_sha256, coverage) in [
        ("web.spdx.json", 6067, 6065, Coverage::Owned),
        ("ubi9.spdx.json", 8289, 8253, Coverage::Owned),
        ("docker-hub/alpine.spdx.json", 515, 85, Coverage::Owned),
        ("docker-hub/debian.spdx.json", 7246, 5509, Coverage::Owned),
        ("docker-hub/nginx.spdx.json", 6099, 4276, Coverage::Owned),
        ("kubectl-zero-sha1.spdx.json", 1210, 0, Coverage::Packages),
    ] {
        let index = read(name);
        let numbers = index.numbers();
        assert_eq!(
            (numbers.files, numbers.with_sha256, index.coverage()),
            (files, with_sha256, coverage),
            "{name}"
        );
    }
    for name in ["docker-hub/busybox", "docker-hub/caddy", "docker-hub/httpd", "docker-hub/redis"] {
        assert!(read(&format!("{name}.spdx.json")).numbers().with_sha256 > 0, "{name}");
    }
}

#[test]
fn the_formats_of_one_image_agree() {
    let (spdx, syft, cyclonedx) = (read("web.spdx.json"), read("web.syft.json"), read("web.cdx.json"));
    // Packages: the same, whichever root element the format has for the image and its distribution.
    let packages = |index: &ImageIndex| {
        let own = |p: Package<'_>| (p.name.to_owned(), p.version.to_owned(), p.purl.map(str::to_owned));
        let mut all: Vec<_> = index.packages().map(own).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(packages(&syft).len(), 123);
    assert_eq!(packages(&cyclonedx), packages(&syft));
    assert_eq!(packages(&spdx), packages(&syft));
    // CycloneDX by this syft lists no files.
    assert_eq!((cyclonedx.len(), cyclonedx.coverage()), (0, Coverage::Packages));
    for entry in spdx.entries().filter(|e| e.sha256().is_some()) {
        let other = syft.by_path(entry.path().as_bytes()).unwrap_or_else(|| panic!("{entry:?} only in SPDX"));
        assert_eq!((other.sha256(), other.package()), (entry.sha256(), entry.package()), "{entry:?}");
    }
    // syft-json has a little more, from what dpkg recorded, with an MD5: two hard links (perl5.36.0, uncompress) that syft does not
    // list, and two empty files that it lists without a digest.
    let (mut only_recorded, mut filled) = (Vec::new(), Vec::new());
    for entry in syft.entries() {
        match spdx.by_path(entry.path().as_bytes()) {
            None => only_recorded.push(entry.path().to_string()),
            Some(other) if other.sha256() != entry.sha256() => panic!("{entry:?} is {other:?} in SPDX"),
            Some(other) if other.weak() != entry.weak() => filled.push(entry.path().to_string()),
            Some(_) => {}
        }
        assert_eq!(entry.is_recorded(), entry.sha256().is_none(), "{entry:?}");
    }
    assert_eq!(only_recorded, ["/usr/bin/perl5.36.0", "/usr/bin/uncompress"]);
    let empty = ["email/mime", "urllib"].map(|module| format!("/usr/lib/python3.11/{module}/__init__.py"));
    assert_eq!(filled, empty);
    assert_eq!((syft.numbers().recorded, syft.numbers().unusable), (4, 0));
}

#[test]
fn merged_usr_has_one_spelling() {
    let index = read("web.spdx.json");
    let shell = index.by_path(b"/usr/bin/dash").expect("the shell is listed");
    assert_eq!(index.by_path(b"/bin/dash").map(Entry::id), Some(shell.id()));
    assert_eq!(index.by_path(b"bin//./dash").map(Entry::id), Some(shell.id()));
    assert!(index.by_path(b"/usr/sbin/../bin/dash").is_none());
    let found = index.by_sha256(&shell.sha256().unwrap()).any(|e| e.id() == shell.id());
    assert!(found);
}

#[test]
fn weak_digests_where_there_is_nothing_stronger() {
    let index = read("kubescape-nginx.syft.json");
    // 5,804 MD5s by dpkg for 5,804 paths: /bin/x of the package database is /usr/bin/x of the file list.
    let numbers = index.numbers();
    assert_eq!((numbers.files, numbers.with_weak, numbers.recorded, numbers.unusable), (5805, 5804, 5804, 0));
    assert_eq!(index.by_path(b"/bin/bash").map(Entry::id), index.by_path(b"/usr/bin/bash").map(Entry::id));
    assert_eq!(index.entries().filter(|e| e.path().as_bytes().starts_with(b"/bin/")).count(), 0);
    let weak = index.entries().find(|e| e.weak().is_some()).unwrap();
    assert!(weak.sha256().is_none() && weak.weak().unwrap().md5.is_some());
}

#[test]
fn packages_only() {
    // Name, packages, layers, the image id is known.
    for (name, packages, layers, config) in
        [("web.cdx.json", 123, 1, false), ("trivy-fluentd.cdx17.json", 160, 6, true)]
    {
        let index = read(name);
        let numbers = index.numbers();
        assert_eq!((numbers.packages, index.coverage()), (packages, Coverage::Packages), "{name}");
        assert_eq!(
            (index.origin().layers.len(), index.origin().config.is_some()),
            (layers, config),
            "{name}"
        );
        assert!(index.packages().all(|p| !p.name.is_empty() && p.purl.is_some()), "{name}");
    }
    // 396 files, all with SHA-512 alone, which nothing can be compared with.
    let index = read("perl-mojolicious.spdx3.json");
    let numbers = index.numbers();
    assert_eq!((numbers.files, numbers.with_sha256, numbers.packages), (396, 0, 1));
    assert!(numbers.complete, "its one package contains all, and says so");
    assert_eq!(index.coverage(), Coverage::Packages);
    let package = index.packages().next().expect("one package");
    assert_eq!(package.purl, Some("pkg:generic/perl-Mojolicious@9.470.0"));
}

#[test]
fn origins() {
    let config = |index: &ImageIndex| index.origin().config.map(|id| id.to_string()[..8].to_owned());
    let (spdx, syft, cdx) = (read("web.spdx.json"), read("web.syft.json"), read("web.cdx.json"));
    assert_eq!(spdx.origin().layers, syft.origin().layers);
    assert_eq!(cdx.origin().layers, syft.origin().layers);
    // Only syft-json says which image configuration it saw.
    assert_eq!((config(&spdx), config(&cdx)), (None, None));
    assert_eq!(config(&syft).as_deref(), Some("8b96f66b"));
    // The manifest digest of this one was made up by the tool and is nowhere in what binds.
    let synthetic = read("alpine-synthetic-manifest.syft.json");
    assert_eq!(config(&synthetic).as_deref(), Some("cc604a62"));
    assert!(!format!("{:?}", synthetic.origin()).contains("8cb449c3"));
    assert_eq!(synthetic.origin().architecture.as_deref(), Some("arm64"));
    assert_eq!(read("kubescape-nginx.syft.json").origin().layers.len(), 7);
    assert_eq!(read("docker-hub/nginx.spdx.json").origin().layers.len(), 6);
}

fn document(files: &str) -> String {
    format!(r#"{{"spdxVersion":"SPDX-2.3","SPDXID":"SPDXRef-DOCUMENT","files":[{files}]}}"#)
}

fn file(id: u32, name: &str, sha256: char) -> String {
    let digest = sha256.to_string().repeat(64);
    format!(
        r#"{{"SPDXID":"SPDXRef-{id}","fileName":"{name}","checksums":[{{"algorithm":"SHA256","checksumValue":"{digest}"}}]}}"#
    )
}

#[test]
fn refused_with_position_and_reason() {
    let good = file(1, "/a", 'a');
    for (text, reason) in [
        (String::new(), "this is empty"),
        ("[]".to_owned(), "a JSON array; expected one object"),
        ("{}".to_owned(), "without the marks of an SBOM"),
        (document(&good)[..80].to_owned(), "line 1 column 80"),
        (document(&good).replace("SPDX-2.3", "SPDX-2.1"), "expected SPDX-2.2 or SPDX-2.3 at line 1 column"),
        (document(&file(1, "../a", 'a')), r#"".." component"#),
        (document(&file(1, "/a\\u0000b", 'a')), "NUL byte"),
        (document(&format!("{good},{}", file(2, "./a", 'b'))), "listed twice with different digests"),
        (
            document(&good.replace(r#""fileName""#, r#""fileName":"/x","fileName""#)),
            "duplicate field `fileName`",
        ),
        (document(&good.replace(r#"{"alg"#, r#"{"algorithm":"SHA1","alg"#)), "duplicate field `algorithm`"),
        (document(&good).replace(r#""files":"#, r#""files":[],"files":"#), "duplicate field `files`"),
        (document(&file(1, "/a", 'g')), "64 hexadecimal digits"),
        (document(&good.replace("SHA256", "SHA1")), "40 hexadecimal digits"),
        (document(&good).replace("[{", &"[".repeat(100)), "nested deeper than the limit of 64"),
        (format!("{} x", document(&good)), "trailing characters"),
    ] {
        match parse(text.as_bytes(), &Limits::default()) {
            Ok(_) => panic!("accepted: {text}"),
            Err(error) => {
                assert!(error.to_string().contains(reason), "{text}\n  gives {error}\n  not {reason}");
            }
        }
    }
    let not_utf8 = document(&good).replace("/a", "/?").into_bytes();
    let not_utf8: Vec<u8> = not_utf8.into_iter().map(|b| if b == b'?' { 0xff } else { b }).collect();
    assert!(parse(&not_utf8, &Limits::default()).is_err_and(|e| e.to_string().contains("line 1 column")));
    // Lenient: escapes in any string, and the root directory among the files.
    let lenient = [
        good.replace("SHA256", "SHA\\u0032\\u0035\\u0036"),
        r#"{"SPDXID":"SPDXRef-root","fileName":""}"#.to_owned(),
    ];
    assert_eq!(
        parse(document(&lenient.join(",")).as_bytes(), &Limits::default()).unwrap().numbers().with_sha256,
        1
    );
    let small = Limits { max_bytes: 10, ..Limits::default() };
    assert!(parse(document(&good).as_bytes(), &small).is_err_and(|e| e.to_string().contains("limit of 10")));
    parse(document(&good).as_bytes(), &Limits::default()).unwrap();
}

#[test]
fn union_of_documents() {
    let one = parse(document(&file(1, "/a", 'a')).as_bytes(), &Limits::default()).unwrap();
    let two = parse(document(&file(1, "/b", 'b')).as_bytes(), &Limits::default()).unwrap();
    let both = ImageIndex::union(&[&one, &two]).unwrap();
    assert_eq!(both.len(), 2);
    assert!(both.by_path(b"/a").is_some() && both.by_path(b"/b").is_some());
    let other = parse(document(&file(1, "/a", 'c')).as_bytes(), &Limits::default()).unwrap();
    ImageIndex::union(&[&one, &other]).unwrap_err();
}

#[test]
fn look_ups_equal_a_naive_model() {
    let index = read("ubi9.spdx.json");
    let model: Vec<(FilePathBytes, Option<Sha256>)> =
        index.entries().map(|e| (e.path().as_bytes().to_vec(), e.sha256())).collect();
    for (id, (path, sha256)) in model.iter().enumerate() {
        assert_eq!(index.by_path(path).map(|e| e.id() as usize), Some(id));
        let mut longer = path.clone();
        longer.push(b'~');
        assert_eq!(index.by_path(&longer).is_some(), model.iter().any(|(p, _)| *p == longer));
        if let (Some(sha256), true) = (sha256, id % 50 == 0) {
            let mut found: Vec<_> = index.by_sha256(sha256).map(|e| e.id() as usize).collect();
            found.sort_unstable();
            let naive: Vec<_> = model
                .iter()
                .enumerate()
                .filter(|(_, (_, s))| s.as_ref() == Some(sha256))
                .map(|(n, _)| n)
                .collect();
            assert_eq!(found, naive);
        }
    }
    assert_eq!(index.by_sha256(&Sha256([7; 32])).count(), 0);
    assert!(index.heap_bytes() / index.len() <= 120, "{} bytes per file", index.heap_bytes() / index.len());
}

#[test]
fn what_lies_below_a_directory() {
    let files: Vec<_> = ["/usr/bin/a", "/usr/lib-x/b", "/usr/lib/x/c", "/opt/d"]
        .iter()
        .zip(1..)
        .map(|(name, id)| file(id, name, 'a'))
        .collect();
    let index = parse(document(&files.join(",")).as_bytes(), &Limits::default()).unwrap();
    for (directory, expected) in [
        ("/usr", true),
        ("/usr/bin", true),
        ("usr//bin/./", true),
        ("/bin", true),
        ("/lib/x", true),
        ("/usr/lib", true),
        ("/usr/lib-x", true),
        ("/usr/lib-", false),
        ("/usr/lib/x/c", false),
        ("/usr/bin/a", false),
        ("/op", false),
        ("/opt/d/e", false),
        ("/usr/../opt", false),
        ("/zzz", false),
    ] {
        assert_eq!(index.has_below(directory.as_bytes()), expected, "{directory}");
    }
    assert!(!ImageIndex::default().has_below(b"/"));
}

type FilePathBytes = Vec<u8>;

#[test]
fn tools_as_documents_name_them() {
    for (name, tool) in [
        ("web.spdx.json", "syft-1.18.1"),
        ("web.syft.json", "syft-1.18.1"),
        ("web.cdx.json", "syft-1.18.1"),
        ("trivy-fluentd.cdx17.json", "trivy-dev"),
        ("perl-mojolicious.spdx3.json", "Cavil"),
        ("docker-hub/nginx.spdx.json", "syft-0.57.0"),
    ] {
        assert_eq!(read(name).tool(), Some(tool), "{name}");
    }
}
