//! On a small tree of every kind of file.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use super::*;
use crate::finding::{Coverage, Sha256};
use crate::sbom::{ImageIndex, Limits, parse};

fn tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    let root = tree.path();
    for dir in ["usr/bin", "usr/lib", "etc", "var/lib/dpkg/info"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    symlink("usr/bin", root.join("bin")).unwrap();
    let file = |path: &str, content: &[u8], mode: u32| {
        fs::write(root.join(path), content).unwrap();
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    file("usr/bin/elf", b"\x7fELFabc", 0o755);
    file("usr/lib/lib.so", b"\x7fELFlib", 0o644);
    file("usr/bin/script", b"#!/bin/sh\n", 0o644);
    file("usr/bin/other \"quoted\"\\", b"", 0o700);
    file("etc/plain", b"plain", 0o644);
    file("etc/os-release", b"ID=debian\nVERSION_ID=\"12\"\n", 0o644);
    symlink("elf", root.join("usr/bin/link")).unwrap();
    nix::unistd::mkfifo(&root.join("usr/bin/pipe"), Mode::S_IRWXU).unwrap();
    let status = "Package: tool\nStatus: install ok installed\nVersion: 1:2+b1\nArchitecture: amd64\nDescription: x\n y\n\n\
                  Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n";
    file("var/lib/dpkg/status", status.as_bytes(), 0o644);
    file("var/lib/dpkg/info/tool:amd64.list", b"/.\n/bin\n/bin/elf\n/usr/lib/lib.so\n", 0o644);
    tree
}

fn options(root: &Path, all: bool) -> Options {
    Options {
        source: Source::Tree(root.to_owned()),
        output: Output::Spdx,
        all,
        exclude: Vec::new(),
        name: "a \"tree\"".to_owned(),
        created: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)),
    }
}

fn make(options: &Options) -> (Vec<u8>, Report) {
    let mut document = Vec::new();
    let report = generate(options, None, &Progress::default(), &mut document).unwrap();
    (document, report)
}

fn paths(index: &ImageIndex) -> Vec<String> {
    index.entries().map(|entry| entry.path().to_string()).collect()
}

#[test]
fn lists_what_can_run_and_reads_it_back() {
    let tree = tree();
    let options = options(tree.path(), false);
    let (document, report) = make(&options);
    assert_eq!((report.files, report.owned, report.packages), (4, 2, 1), "{report:?}");
    assert_eq!((report.unread, report.left_out), (Vec::new(), Vec::new()));
    let index = parse(&document, &Limits::default()).unwrap();
    assert_eq!(index.coverage(), Coverage::Full);
    assert_eq!(index.created(), options.created);
    assert_eq!(index.entries().count(), 4, "{:?}", paths(&index));
    for (path, content, owner) in [
        ("/usr/bin/elf", b"\x7fELFabc".as_slice(), Some("tool 1:2+b1")),
        ("/usr/lib/lib.so", b"\x7fELFlib", Some("tool 1:2+b1")),
        ("/usr/bin/script", b"#!/bin/sh\n", None),
        ("/usr/bin/other \"quoted\"\\", b"", None),
    ] {
        let entry =
            index.by_path(path.as_bytes()).unwrap_or_else(|| panic!("{path}: not in {:?}", paths(&index)));
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content);
        assert_eq!(entry.sha256(), Some(Sha256(digest.as_ref().try_into().unwrap())), "{path}");
        assert_eq!(entry.package(), owner, "{path}");
    }
    assert_eq!(make(&options).0, document, "the same tree gives the same bytes");
    let value: serde_json::Value = serde_json::from_slice(&document).unwrap();
    assert_eq!(value["files"][0]["fileName"], "./usr/bin/elf");
    assert_eq!(value["files"][0]["checksums"][0]["algorithm"], "SHA1");
    assert_eq!(
        value["packages"][1]["externalRefs"][0]["referenceLocator"],
        "pkg:deb/debian/tool@1:2%2Bb1?arch=amd64&distro=debian-12"
    );
    assert_eq!(value["creationInfo"]["created"], "2023-11-14T22:13:20Z");
}

#[test]
fn every_regular_file_on_request() {
    let tree = tree();
    let (document, report) = make(&options(tree.path(), true));
    assert_eq!(report.files, 8, "{report:?}");
    let index = parse(&document, &Limits::default()).unwrap();
    assert!(index.by_path(b"/etc/plain").is_some());
    assert!(index.by_path(b"/usr/bin/link").is_none() && index.by_path(b"/usr/bin/pipe").is_none());
}

/// A document that lacks something must not claim to be complete.
#[test]
fn a_name_that_json_cannot_hold_is_reported() {
    use std::os::unix::ffi::OsStrExt as _;
    let tree = tree();
    let name = std::ffi::OsStr::from_bytes(b"usr/bin/\xff");
    fs::write(tree.path().join(name), b"#!x").unwrap();
    let (document, report) = make(&options(tree.path(), false));
    assert_eq!(report.unread.len(), 1);
    assert_eq!(report.unread[0].0, Path::new(name));
    let index = parse(&document, &Limits::default()).unwrap();
    assert_eq!(index.coverage(), Coverage::Owned);
    assert_eq!(index.entries().count(), 4);
}

#[test]
fn a_root_that_is_not_there_is_named() {
    let error =
        generate(&options(Path::new("/nonexistent"), false), None, &Progress::default(), &mut Vec::new());
    assert!(error.is_err_and(|e| e.to_string().contains("/nonexistent")));
}

#[test]
fn excluded_directories() {
    let tree = tree();
    let exclude = ["/usr/lib/", "/typo"].map(PathBuf::from).to_vec();
    let (document, report) = make(&Options { exclude, ..options(tree.path(), false) });
    let index = parse(&document, &Limits::default()).unwrap();
    assert!(index.by_path(b"/usr/lib/lib.so").is_none() && index.by_path(b"/usr/bin/elf").is_some());
    let left_out: Vec<_> = report.left_out.iter().map(|(p, why)| (p.to_str().unwrap(), &**why)).collect();
    assert_eq!(left_out, [("typo", "excluded, but no such directory was met"), ("usr/lib", "excluded")]);
    // Left out on purpose: what runs from there is to be unlisted, not unknown. The document says so.
    assert_eq!(index.coverage(), Coverage::Full);
    assert_eq!(excluded_in(&document).as_deref(), Some("/usr/lib"));
    let whole = options(tree.path(), false);
    assert_eq!(excluded_in(&make(&whole).0), None);
    let odd = "/usr/bi\"n, x.";
    fs::create_dir(tree.path().join(&odd[1..])).unwrap();
    let exclude = vec![odd.into(), "/usr/lib".into()];
    for output in [Output::Spdx, Output::CycloneDx] {
        let (document, _) = make(&Options { exclude: exclude.clone(), output, ..whole.clone() });
        assert_eq!(excluded_in(&document), Some(format!("{odd}, /usr/lib")), "{output:?}");
    }
    for wrong in ["usr", "/", "/a/../b"] {
        let options = Options { exclude: vec![wrong.into()], ..options(tree.path(), false) };
        let error = generate(&options, None, &Progress::default(), &mut Vec::new());
        assert!(matches!(error, Err(GenerateError::Exclude(_))), "{wrong}: {error:?}");
    }
}

#[test]
fn names_of_every_kind() {
    let tree = tempfile::tempdir().unwrap();
    let names = ["sp ace", "quo\"te", "back\\slash", "new\nline", "ünï→", "tab\t", "'", "\u{1}"];
    for name in names {
        fs::write(tree.path().join(name), format!("#!{name}")).unwrap();
    }
    let index = parse(&make(&options(tree.path(), false)).0, &Limits::default()).unwrap();
    assert_eq!(index.len(), names.len());
    for name in names {
        let found = index.by_path(format!("/{name}").as_bytes()).unwrap_or_else(|| panic!("{name:?}"));
        let content = format!("#!{name}");
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content.as_bytes());
        assert_eq!(found.sha256(), Some(Sha256(digest.as_ref().try_into().unwrap())), "{name:?}");
    }
}

#[test]
fn diversions_states_and_verification_codes() {
    let tree = tree();
    let root = tree.path();
    fs::write(root.join("usr/bin/tool"), "#!lib's").unwrap();
    fs::write(root.join("usr/bin/tool.real"), "#!shell's").unwrap();
    let status = "Package: lib\nStatus: install ok half-configured\nVersion: 2\nArchitecture: all\n\n\
        Package: lost\nStatus: install ok installed\nVersion: 3\nArchitecture: all\n\n\
        Package: shell\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n";
    fs::write(root.join("var/lib/dpkg/status"), status).unwrap();
    fs::write(root.join("var/lib/dpkg/info/lib.list"), "/usr/bin/tool\n").unwrap();
    fs::write(root.join("var/lib/dpkg/info/shell.list"), "/usr/bin/tool\n/bin/elf\n").unwrap();
    fs::write(root.join("var/lib/dpkg/diversions"), "/usr/bin/tool\n/usr/bin/tool.real\nlib\n").unwrap();
    let (document, report) = make(&options(root, false));
    let expected =
        "/var/lib/dpkg/status, line 6: lost is installed, but without a list of its files (dpkg --audit)";
    assert_eq!(report.database, [expected]);
    let index = parse(&document, &Limits::default()).unwrap();
    for (path, package) in
        [("/usr/bin/tool", "lib 2"), ("/usr/bin/tool.real", "shell 1"), ("/usr/bin/elf", "shell 1")]
    {
        assert_eq!(index.by_path(path.as_bytes()).unwrap().package(), Some(package), "{path}");
    }
    let value: serde_json::Value = serde_json::from_slice(&document).unwrap();
    let codes: Vec<_> = value["packages"].as_array().unwrap()[1..]
        .iter()
        .map(|p| {
            (
                p["filesAnalyzed"].as_bool(),
                p["packageVerificationCode"]["packageVerificationCodeValue"].as_str(),
            )
        })
        .collect();
    // printf of each content | sha1sum; the hexadecimal texts sorted, joined without newlines | sha1sum.
    assert_eq!(
        codes,
        [
            (Some(true), Some("d713d77a8f37ce2d82acbb1768ecbcafe365ec3b")),
            (Some(false), None),
            (Some(true), Some("59ff59fea75d2a598c9bd7e7d53e87615f5e6191"))
        ]
    );
}

/// An unreadable file is named and takes the claim away; root reads everything, so a file that is too deep to be opened
/// by its path (PATH_MAX) stands for it.
#[test]
fn what_cannot_be_read_is_named() {
    let tree = tree();
    let home = nix::fcntl::open(tree.path(), OFlag::O_DIRECTORY | OFlag::O_RDONLY, Mode::empty()).unwrap();
    let name = "d".repeat(250);
    let mut at = home;
    for _ in 0..17 {
        nix::sys::stat::mkdirat(&at, &*name, Mode::S_IRWXU).unwrap();
        at = nix::fcntl::openat(&at, &*name, OFlag::O_DIRECTORY | OFlag::O_RDONLY, Mode::empty()).unwrap();
    }
    let (document, report) = make(&options(tree.path(), false));
    assert_eq!(report.unread.len(), 1, "{:?}", report.unread);
    let index = parse(&document, &Limits::default()).unwrap();
    assert_eq!((index.len(), index.coverage()), (4, Coverage::Owned));
}

fn written(options: &Options, base: Option<&ImageIndex>) -> Result<Vec<u8>, GenerateError> {
    let mut document = Vec::new();
    generate(options, base, &Progress::default(), &mut document).map(|_| document)
}

/// All that an index says.
fn said(index: &ImageIndex) -> Vec<String> {
    let file =
        |e: crate::sbom::Entry<'_>| format!("{} {:?} {:?} {:?}", e.path(), e.sha256(), e.weak(), e.package());
    let package = |p: crate::sbom::Package<'_>| format!("{p:?}");
    let mut packages: Vec<_> = index.packages().filter(|p| p.purl.is_some()).map(package).collect();
    packages.sort_unstable();
    index.entries().map(file).chain(packages).collect()
}

#[test]
fn both_formats_say_the_same() {
    let tree = tree();
    for all in [false, true] {
        let options = options(tree.path(), all);
        let spdx = parse(&written(&options, None).unwrap(), &Limits::default()).unwrap();
        let options = Options { output: Output::CycloneDx, ..options };
        let document = written(&options, None).unwrap();
        let cyclonedx = parse(&document, &Limits::default()).unwrap();
        assert_eq!(said(&cyclonedx), said(&spdx));
        assert_eq!((cyclonedx.coverage(), cyclonedx.tool()), (spdx.coverage(), spdx.tool()));
        assert_eq!(cyclonedx.created(), spdx.created());
        assert_eq!(written(&options, None).unwrap(), document, "the same tree gives the same bytes");
    }
}

#[test]
fn a_base_is_completed() {
    let tree = tree();
    fs::write(tree.path().join("usr/bin/copied-in"), "#!the program that a Dockerfile copied in").unwrap();
    fs::create_dir(tree.path().join("excluded")).unwrap();
    let sha256 = |content: &str| {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, content.as_bytes());
        Sha256(digest.as_ref().try_into().unwrap()).to_string()
    };
    // printf '\177ELFlib' | sha1sum
    const LIBRARY: &str = "a337a1c2198169cf5d0bb62ae56a39dbb1631a6d";
    // As syft lists what packages own: a data file and a script, a file that is not there, and a link without a digest.
    let base = |plain: &str, library: &str| {
        let file = |id: &str, path: &str, sha256: &str| serde_json::json!({ "SPDXID": id, "fileName": path, "checksums": [{ "algorithm": "SHA256", "checksumValue": sha256 }] });
        let base = serde_json::json!({
            "spdxVersion": "SPDX-2.3",
            "packages": [
                { "SPDXID": "p", "name": "shells", "versionInfo": "7", "externalRefs":
                    [{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": "pkg:deb/debian/shells@7" }] },
                { "SPDXID": "q", "name": "tool", "versionInfo": "1:2+b1" },
            ],
            "files": [
                file("a", "/etc/plain", &sha256(plain)), file("b", "/usr/bin/script", &sha256("#!/bin/sh\n")),
                file("c", "/usr/share/doc/gone", &sha256("x")), file("f", "/excluded/file", &sha256("x")),
                file("g", "/typo/file", &sha256("x")), { "SPDXID": "e", "fileName": "/usr/lib/lib.so", "checksums":
                    [{ "algorithm": "SHA1", "checksumValue": library }] }, { "SPDXID": "d", "fileName": "/usr/bin/link" },
            ],
            "relationships": [{ "spdxElementId": "p", "relationshipType": "CONTAINS", "relatedSpdxElement": "b" }],
        });
        parse(base.to_string().as_bytes(), &Limits::default()).unwrap()
    };
    for output in [Output::Spdx, Output::CycloneDx] {
        let exclude = vec!["/excluded".into(), "/typo".into()];
        let options = Options { output, exclude, ..options(tree.path(), false) };
        let mut document = Vec::new();
        let report =
            generate(&options, Some(&base("plain", LIBRARY)), &Progress::default(), &mut document).unwrap();
        assert_eq!(report.gone, ["typo/file", "usr/share/doc/gone"]);
        let index = parse(&document, &Limits::default()).unwrap();
        let found: Vec<_> = index
            .entries()
            .map(|e| (e.path().to_string(), e.sha256().is_some(), e.package().map(str::to_owned)))
            .collect();
        let row =
            |path: &str, digest, owner: Option<&str>| (path.to_owned(), digest, owner.map(str::to_owned));
        assert_eq!(
            found,
            [
                row("/etc/plain", true, None),
                row("/excluded/file", true, None),
                row("/usr/bin/copied-in", true, None),
                row("/usr/bin/elf", true, Some("tool 1:2+b1")),
                row("/usr/bin/link", false, None),
                row("/usr/bin/other \"quoted\"\\x5c", true, None),
                row("/usr/bin/script", true, Some("shells 7")),
                row("/usr/lib/lib.so", true, Some("tool 1:2+b1")),
            ],
            "{output:?}"
        );
        assert_eq!(index.coverage(), Coverage::Full);
        assert!(index.packages().any(|p| p.purl == Some("pkg:deb/debian/shells@7")));
        for (base, path) in
            [(base("changed", LIBRARY), "/etc/plain"), (base("plain", &"1".repeat(40)), "/usr/lib/lib.so")]
        {
            let error = written(&options, Some(&base)).unwrap_err().to_string();
            assert!(error.contains("another digest for 1 file(s)") && error.contains(path), "{error}");
        }
    }
}

/// Reads documents with the public tools and prints what they object to.
const VALIDATE: &str = r#"
import sys
from spdx_tools.spdx.parser.parse_anything import parse_file
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
spdx, cyclonedx = sys.argv[1:]
for message in validate_full_spdx_document(parse_file(spdx), "SPDX-2.3"):
    print(spdx, message.validation_message)
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(cyclonedx).read())
if error:
    print(cyclonedx, error)
print("validated")
"#;

#[test]
fn the_public_validators_object_to_nothing() {
    let tree = tree();
    let made = tempfile::tempdir().unwrap();
    let [spdx, cyclonedx] = ["made.spdx.json", "made.cdx.json"].map(|name| made.path().join(name));
    for (output, file) in [(Output::Spdx, &spdx), (Output::CycloneDx, &cyclonedx)] {
        fs::write(file, written(&Options { output, ..options(tree.path(), true) }, None).unwrap()).unwrap();
    }
    let validate = |spdx: &Path, cyclonedx: &Path| {
        let mut command = crate::python::program("python3");
        let out = command.args(["-c", VALIDATE]).args([spdx, cyclonedx]).output().expect("python3 runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    assert_eq!(validate(&spdx, &cyclonedx), "validated\n");
    // They do object.
    let broken = made.path().join("broken.cdx.json");
    fs::write(&broken, fs::read_to_string(&cyclonedx).unwrap().replace("\"SHA-1\"", "\"SHA-2\"")).unwrap();
    assert!(validate(&spdx, &broken).contains("SHA-2"));
}
