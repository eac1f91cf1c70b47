//! SBOMs by syft, run here over a small root tree: what each format and file selection answers of the programs in the tree, and
//! that `muster sbom generate --complete` answers for the rest.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aws_lc_rs::digest;
use muster::finding::Coverage;
use muster::sbom::{self, ImageIndex, Limits};
use serde_json::{Value, json};

mod image;
#[path = "../common/python.rs"]
mod python;
mod tree;

use image::Image;
use tree::{PROGRAMS, SERVER, Tree, hex};

/// The version that `tests/requirements.txt` names.
const SYFT: &str = "syft-1.18.1";
/// As syft names its formats.
const FORMATS: [&str; 4] = ["spdx-json", "spdx-tag-value", "syft-json", "cyclonedx-json"];
/// What makes it list every file.
const EVERY_FILE: [(&str, &str); 2] =
    [("SYFT_FILE_METADATA_SELECTION", "all"), ("SYFT_FILE_METADATA_DIGESTS", "sha256")];

/// Runs syft once for all formats; gives the documents.
fn syft(source: &str, out: &Path, name: &str, variables: &[(&str, &str)]) -> [PathBuf; 4] {
    let files = FORMATS.map(|format| (format, out.join(format!("{name}.{format}"))));
    let mut syft = python::program("syft");
    syft.args(["scan", source]);
    for (format, file) in &files {
        syft.arg("-o").arg(format!("{format}={}", file.display()));
    }
    // Its caches, if any, and its configuration are not this machine's.
    syft.env_clear()
        .env("HOME", out)
        .env("TMPDIR", out)
        .env("SYFT_CHECK_FOR_APP_UPDATE", "false")
        .envs(variables.iter().copied());
    let output = syft.output().expect("syft runs");
    assert!(output.status.success(), "syft: {}", String::from_utf8_lossy(&output.stderr));
    files.map(|(_, file)| file)
}

fn muster(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(arguments)
        .output()
        .expect("the program that cargo has built")
}

fn inspect(document: &Path) -> Value {
    let output = muster(&["sbom", "inspect", "--json", document.to_str().expect("text")]);
    assert!(output.status.success(), "{}: {}", document.display(), String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn index(document: &Path) -> ImageIndex {
    let bytes = fs::read(document).expect("a document");
    sbom::parse(&bytes, &Limits::default()).unwrap_or_else(|error| panic!("{}: {error}", document.display()))
}

/// Programs of the tree whose path the document has, and programs whose content it has there, too.
fn answered(tree: &Tree, index: &ImageIndex) -> (Vec<&'static str>, Vec<&'static str>) {
    let listed = |program: &&str| index.by_path(program.as_bytes()).is_some();
    let matched = |program: &&str| {
        index.by_path(program.as_bytes()).and_then(|entry| entry.sha256()) == Some(tree.sha256(program))
    };
    (PROGRAMS.into_iter().filter(listed).collect(), PROGRAMS.into_iter().filter(matched).collect())
}

/// What one document of the tree must be found to say.
struct Expected {
    format: &'static str,
    coverage: &'static str,
    /// Files listed, with SHA-256, with only weaker digests, with what package databases record; packages.
    numbers: [u64; 5],
    /// Programs of the tree that it lists, and those whose content it has.
    answered: (usize, usize),
}

/// File selection by default: files that packages own, and the databases of packages.
///
/// A server that was copied in is listed, since it is ELF, but without a digest; its start script is not, nor what Python's
/// `RECORD` lists, which only syft-json repeats. CycloneDX by syft has no files.
const DEFAULT: [Expected; 4] = [
    Expected { format: "spdx-2-json", coverage: "owned", numbers: [12, 11, 0, 0, 4], answered: (4, 3) },
    Expected { format: "spdx-2-tag-value", coverage: "owned", numbers: [12, 11, 0, 0, 4], answered: (4, 3) },
    // Recorded: the script of Python, and its two modules.
    Expected { format: "syft-json", coverage: "owned", numbers: [15, 14, 0, 3, 4], answered: (6, 5) },
    Expected { format: "cyclonedx-json", coverage: "packages", numbers: [0, 0, 0, 0, 4], answered: (0, 0) },
];
/// The same of an image. There syft also finds the program that Python's `RECORD` names (`../../../bin/demo`), and counts dpkg's
/// lists of files among the evidence.
const DEFAULT_OF_IMAGE: [Expected; 4] = [
    Expected { format: "spdx-2-json", coverage: "owned", numbers: [15, 14, 0, 0, 4], answered: (5, 4) },
    Expected { format: "spdx-2-tag-value", coverage: "owned", numbers: [15, 14, 0, 0, 4], answered: (5, 4) },
    Expected { format: "syft-json", coverage: "owned", numbers: [17, 16, 0, 2, 4], answered: (6, 5) },
    Expected { format: "cyclonedx-json", coverage: "packages", numbers: [0, 0, 0, 0, 4], answered: (0, 0) },
];
/// All files: only syft-json says that they are all. SPDX counts directories and links as files, and has no digest of them nor
/// of an empty file, for which syft-json has Python's.
const ALL: [Expected; 4] = [
    Expected { format: "spdx-2-json", coverage: "owned", numbers: [42, 20, 0, 0, 4], answered: (7, 7) },
    Expected { format: "spdx-2-tag-value", coverage: "owned", numbers: [42, 20, 0, 0, 4], answered: (7, 7) },
    Expected { format: "syft-json", coverage: "full", numbers: [21, 21, 0, 1, 4], answered: (7, 7) },
    Expected { format: "cyclonedx-json", coverage: "packages", numbers: [0, 0, 0, 0, 4], answered: (0, 0) },
];

fn check(tree: &Tree, document: &Path, tool: &str, expected: &Expected) {
    let said = inspect(document);
    let name = document.file_name().expect("a name").to_string_lossy();
    assert_eq!((&said["format"], &said["tool"]), (&expected.format.into(), &tool.into()), "{name}");
    let numbers = ["files", "with_sha256", "with_weak", "recorded", "packages"]
        .map(|number| said["numbers"][number].as_u64().unwrap_or_default());
    let index = index(document);
    let (listed, matched) = answered(tree, &index);
    println!(
        "{name:34} coverage {:8}  files {:2}, {:2} with SHA-256  packages {}  programs listed {} of {n}, matched {:3} %",
        said["coverage"].as_str().unwrap_or_default(),
        numbers[0],
        numbers[1],
        numbers[4],
        listed.len(),
        100 * matched.len() / PROGRAMS.len(),
        n = PROGRAMS.len(),
    );
    assert_eq!(said["coverage"], expected.coverage, "{name}");
    assert_eq!(numbers, expected.numbers, "{name}");
    assert_eq!((listed.len(), matched.len()), expected.answered, "{name}: {listed:?} {matched:?}");
    assert_eq!(index.coverage().as_str(), expected.coverage, "{name}");
    assert_eq!(said["advice"].is_null(), index.coverage() == Coverage::Full, "{name}");
}

/// `muster sbom generate SOURCE --complete BASE --format FORMAT`.
fn complete(source: &str, base: &Path, format: &str) -> Output {
    let base = base.to_str().expect("text");
    let output = Command::new(env!("CARGO_BIN_EXE_muster"))
        .args(["sbom", "generate", source, "--complete", base, "--format", format])
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .output();
    output.expect("the program that cargo has built")
}

/// Completes a document from what it was made of, in both formats: then it answers for all programs, and still says what it said.
/// Gives what was made.
fn check_completed(tree: &Tree, source: &str, document: &Path) -> [Vec<u8>; 2] {
    let name = document.file_name().expect("a name").to_string_lossy();
    let before = index(document);
    ["spdx", "cyclonedx"].map(|format| {
        let output = complete(source, document, format);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let after = sbom::parse(&output.stdout, &Limits::default()).expect("what is made can be read");
        assert_eq!(after.coverage(), Coverage::Full, "{name} {format}");
        let (listed, matched) = answered(tree, &after);
        assert_eq!(
            (listed.len(), matched.len()),
            (PROGRAMS.len(), PROGRAMS.len()),
            "{name} {format}: {matched:?}"
        );
        let server = tree.sha256(SERVER);
        let found: Vec<_> = after.by_sha256(&server).map(|entry| entry.path().to_string()).collect();
        assert_eq!(found, [format!("/{SERVER}")], "{name} {format}");
        for entry in before.entries() {
            let kept = after.by_path(entry.path().as_bytes());
            let kept = kept.unwrap_or_else(|| panic!("{name} {format}: {} is lost", entry.path()));
            assert!(
                entry.sha256().is_none() || kept.sha256() == entry.sha256(),
                "{name} {format}: {entry:?}"
            );
            assert!(
                entry.package().is_none() || kept.package() == entry.package(),
                "{name} {format}: {entry:?}"
            );
        }
        for package in before.packages() {
            assert!(after.packages().any(|kept| kept == package), "{name} {format}: {package:?} is lost");
        }
        assert!(
            complete(source, document, format).stdout == output.stdout,
            "{name} {format}: not the same again"
        );
        output.stdout
    })
}

/// A program that was changed since is not papered over where the base has its digest.
fn check_changed<'a>(source: &str, documents: impl IntoIterator<Item = &'a PathBuf>) {
    for document in documents {
        let refused =
            index(document).by_path(SERVER.as_bytes()).is_some_and(|entry| entry.sha256().is_some());
        let output = complete(source, document, "spdx");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(i32::from(refused)), "{}: {text}", document.display());
        assert_eq!(text.contains("another digest for 1 file(s)"), refused, "{text}");
        assert_eq!(text.contains("/opt/app/server"), refused, "{text}");
    }
}

/// Nor is one attested for that is not there any more.
fn check_gone(source: &str, documents: &[PathBuf]) {
    for document in documents {
        let had_digest =
            index(document).by_path(SERVER.as_bytes()).is_some_and(|entry| entry.sha256().is_some());
        let output = complete(source, document, "spdx");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{}: {text}", document.display());
        let named = text.contains("not there, so not listed: 1 file of the SBOM to complete")
            && text.contains(SERVER);
        assert_eq!(named, had_digest, "{}: {text}", document.display());
        let after = sbom::parse(&output.stdout, &Limits::default()).expect("what is made can be read");
        let digest = after.by_path(SERVER.as_bytes()).and_then(|entry| entry.sha256());
        assert_eq!(digest, None, "{}", document.display());
    }
}

#[test]
fn syft_in_every_format_and_selection() {
    let (tree, out) = (Tree::new(), tempfile::tempdir().expect("a directory"));
    let root = tree.root().to_str().expect("text");
    let runs = [("default", DEFAULT, &[][..]), ("all", ALL, &EVERY_FILE)];
    let mut documents = Vec::new();
    for (selection, expected, variables) in runs {
        let made = syft(&format!("dir:{root}"), out.path(), selection, variables);
        for (document, expected) in made.into_iter().zip(&expected) {
            check(&tree, &document, SYFT, expected);
            check_completed(&tree, root, &document);
            documents.push(document);
        }
    }
    tree.write(SERVER, 0o755, "#!/bin/sh\nexec another\n");
    check_changed(root, &documents);
    fs::remove_file(tree.root().join(SERVER)).expect("removed");
    check_gone(root, &documents);
}

/// The same tree as an image: what syft says of it, and what Muster adds from the image itself.
#[test]
fn syft_over_an_image() {
    let (tree, out) = (Tree::new(), tempfile::tempdir().expect("a directory"));
    let image = Image::of(&tree);
    let sources = [("oci-dir", "oci", image.layout()), ("oci-archive", "oci-archive", image.archive())];
    let mut documents = Vec::new();
    for (selection, expected, variables) in
        [("default", DEFAULT_OF_IMAGE, &[][..]), ("all", ALL, &EVERY_FILE)]
    {
        let [of_layout, of_archive] = sources.each_ref().map(|(of_syft, of_muster, path)| {
            let [of_syft_path, of_muster_path] =
                [of_syft, of_muster].map(|scheme| format!("{scheme}:{}", path.display()));
            let bases = syft(&of_syft_path, out.path(), &format!("{of_syft}.{selection}"), variables);
            let whole: Vec<_> = bases
                .iter()
                .zip(&expected)
                .map(|(base, expected)| {
                    check(&tree, base, SYFT, expected);
                    check_origin(&image, base);
                    check_completed(&tree, &of_muster_path, base)
                })
                .collect();
            documents.extend(bases);
            whole
        });
        for (format, (layout, archive)) in FORMATS.iter().zip(of_layout.iter().zip(&of_archive)) {
            assert!(layout == archive, "{selection} {format}: of the layout and of the archive differ");
            for whole in layout {
                let made = sbom::parse(whole, &Limits::default()).expect("what is made can be read");
                assert_eq!(made.origin().config, Some(image.config), "{selection} {format}");
                assert_eq!(made.origin().layers, image.layers, "{selection} {format}");
            }
        }
    }
    tree.write(SERVER, 0o755, "#!/bin/sh\nexec another\n");
    let changed = Image::of(&tree);
    check_changed(&format!("oci:{}", changed.layout().display()), &documents);
}

/// What syft itself says of the image: syft-json all, the others of each file or package the layer that it came with.
fn check_origin(image: &Image, document: &Path) {
    let said = index(document).origin().clone();
    let of = |format: &str| document.extension().is_some_and(|extension| extension == format);
    assert_eq!(said.config, of("syft-json").then_some(image.config), "{}", document.display());
    // Every package is of the first layer.
    let layers = if of("cyclonedx-json") { &image.layers[..1] } else { &image.layers };
    assert_eq!(said.layers.len(), layers.len(), "{}: {said:?}", document.display());
    assert!(layers.iter().all(|layer| said.layers.contains(layer)), "{}: {said:?}", document.display());
}

/// As trivy writes it: packages by package URL, of Python the SHA-1 of its `METADATA`.
#[test]
fn packages_only_as_trivy_writes_them() {
    let (tree, out) = (Tree::new(), tempfile::tempdir().expect("a directory"));
    let property =
        |name: &str, value: &str| json!({ "name": format!("aquasecurity:trivy:{name}"), "value": value });
    let debian = |name: &str, version: &str, encoded: &str| {
        let purl = format!("pkg:deb/debian/{name}@{encoded}?arch=amd64&distro=debian-12");
        json!({ "bom-ref": purl, "type": "library", "name": name, "version": version, "purl": purl,
            "properties": [property("PkgID", &format!("{name}@{version}")), property("PkgType", "debian")] })
    };
    let metadata = "usr/lib/python3/dist-packages/demo-1.0.dist-info/METADATA";
    let content = fs::read(tree.path(metadata)).expect("a file of the tree");
    let sha1 = hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &content).as_ref());
    let document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.7", "version": 1,
        "metadata": {
            "timestamp": "2026-01-01T00:00:00+00:00",
            "tools": { "components": [{ "type": "application", "manufacturer": { "name": "Aqua Security Software Ltd." },
                "group": "aquasecurity", "name": "trivy", "version": "0.70.0" }] },
            "component": { "bom-ref": "root", "type": "container", "name": "demo.tar",
                "properties": [property("SchemaVersion", "2")] },
        },
        "components": [
            { "bom-ref": "os", "type": "operating-system", "name": "debian", "version": "12",
                "properties": [property("Class", "os-pkgs"), property("Type", "debian")] },
            debian("coreutils", "9.1-1", "9.1-1"),
            debian("dash", "0.5.12-2", "0.5.12-2"),
            debian("libc6", "2.36-9+deb12u13", "2.36-9%2Bdeb12u13"),
            { "bom-ref": "pkg:pypi/demo@1.0", "type": "library", "name": "demo", "version": "1.0", "purl": "pkg:pypi/demo@1.0",
                "hashes": [{ "alg": "SHA-1", "content": sha1 }],
                "properties": [property("FilePath", metadata), property("PkgType", "python-pkg")] },
        ],
        "dependencies": [{ "ref": "root", "dependsOn": ["os", "pkg:pypi/demo@1.0"] }],
        "vulnerabilities": [],
    });
    let file = out.path().join("trivy.cyclonedx-json");
    fs::write(&file, document.to_string()).expect("a file");
    let expected = Expected {
        format: "cyclonedx-json",
        coverage: "packages",
        numbers: [1, 0, 1, 0, 4],
        answered: (0, 0),
    };
    check(&tree, &file, "trivy-0.70.0", &expected);
    check_completed(&tree, tree.root().to_str().expect("text"), &file);
}
