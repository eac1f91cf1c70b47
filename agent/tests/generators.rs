//! SBOMs by syft, run here over a small root tree: what each format and file selection answers of the programs in the tree, and
//! that `muster sbom generate --complete` answers for the rest.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use md5::{Digest as _, Md5};
use muster::finding::{Coverage, Sha256};
use muster::sbom::{self, ImageIndex, Limits};
use serde_json::{Value, json};

#[path = "common/python.rs"]
mod python;

/// What of the tree can run: paths without the first `/`.
const PROGRAMS: [&str; 7] = [
    "usr/bin/dash",
    "usr/bin/true",
    "usr/lib/x86_64-linux-gnu/libc.so.6",
    "usr/bin/demo",
    "usr/lib/python3/dist-packages/demo/run.py",
    SERVER,
    "opt/app/start",
];
/// Copied in by a Dockerfile: no package owns it.
const SERVER: &str = "opt/app/server";

/// A Debian root as small as syft still sees one: merged `/usr`, three packages, one of Python, and an application beside them.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().expect("a directory"));
        fs::create_dir_all(tree.path("usr/bin")).expect("a directory");
        for (link, target) in [("bin", "usr/bin"), ("lib", "usr/lib"), ("usr/bin/sh", "dash")] {
            symlink(target, tree.path(link)).expect("a link");
        }
        tree.write(
            "etc/os-release",
            0o644,
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n",
        );
        tree.copy("/bin/sh", "usr/bin/dash");
        tree.copy("/bin/true", "usr/bin/true");
        tree.copy(&libc(), "usr/lib/x86_64-linux-gnu/libc.so.6");
        tree.write("usr/share/doc/dash/copyright", 0o644, "BSD-3-Clause\n");
        // As Debian 12 writes them: paths from before /usr was merged.
        tree.package("dash", "0.5.12-2", "", &["bin/dash", "bin/sh", "usr/share/doc/dash/copyright"]);
        tree.package("coreutils", "9.1-1", "", &["bin/true"]);
        tree.package("libc6", "2.36-9+deb12u13", ":amd64", &["lib/x86_64-linux-gnu/libc.so.6"]);
        tree.python();
        // What a Dockerfile's COPY brings: a program that is like no other, a script that starts it, and its data.
        let mut server = fs::read("/bin/true").expect("a program of this host");
        server.extend_from_slice(b"the server");
        tree.write(SERVER, 0o755, &server);
        tree.write("opt/app/start", 0o755, "#!/bin/sh\nexec /opt/app/server\n");
        tree.write("opt/app/settings.json", 0o644, "{}\n");
        tree
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    fn write(&self, name: &str, mode: u32, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it is in a directory")).expect("a directory");
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
    }

    fn copy(&self, of_host: &str, name: &str) {
        self.write(name, 0o755, fs::read(of_host).expect("a file of this host"));
    }

    /// Adds a package to dpkg's database.
    fn package(&self, name: &str, version: &str, suffix: &str, files: &[&str]) {
        let status = self.path("var/lib/dpkg/status");
        let mut text = fs::read_to_string(&status).unwrap_or_default();
        write!(
            text,
            "Package: {name}\nStatus: install ok installed\nPriority: required\nSection: base\nInstalled-Size: 191\n\
             Maintainer: Nobody <nobody@example.org>\nArchitecture: amd64\n{}Version: {version}\nDescription: {name}\n\n",
            if suffix.is_empty() { "" } else { "Multi-Arch: same\n" }
        )
        .expect("text");
        self.write("var/lib/dpkg/status", 0o644, text);
        let mut list = "/.\n".to_owned();
        let mut sums = String::new();
        for file in files {
            writeln!(list, "/{file}").expect("text");
            // dpkg has no sum of a link.
            if !file.ends_with("/sh") {
                let content = fs::read(self.path(file)).expect("a file of the tree");
                writeln!(sums, "{}  {file}", hex(&Md5::digest(content))).expect("text");
            }
        }
        self.write(&format!("var/lib/dpkg/info/{name}{suffix}.list"), 0o644, list);
        self.write(&format!("var/lib/dpkg/info/{name}{suffix}.md5sums"), 0o644, sums);
    }

    /// Adds a package of Python, with the program that it installs.
    fn python(&self) {
        const SITE: &str = "usr/lib/python3/dist-packages";
        let files = [
            ("../../../bin/demo", 0o755, "#!/usr/bin/python3\nfrom demo.run import main\nmain()\n"),
            ("demo/__init__.py", 0o644, ""),
            ("demo/run.py", 0o755, "#!/usr/bin/python3\ndef main(): pass\n"),
            ("demo-1.0.dist-info/METADATA", 0o644, "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"),
            ("demo-1.0.dist-info/top_level.txt", 0o644, "demo\n"),
        ];
        let mut record = String::new();
        for (name, mode, content) in files {
            let path = name
                .strip_prefix("../../../")
                .map_or(format!("{SITE}/{name}"), |of_usr| format!("usr/{of_usr}"));
            self.write(&path, mode, content);
            let sum = URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, content.as_bytes()));
            writeln!(record, "{name},sha256={sum},{}", content.len()).expect("text");
        }
        record.push_str("demo-1.0.dist-info/RECORD,,\n");
        self.write(&format!("{SITE}/demo-1.0.dist-info/RECORD"), 0o644, record);
    }

    fn sha256(&self, name: &str) -> Sha256 {
        let content = fs::read(self.path(name)).expect("a file of the tree");
        let found = digest::digest(&digest::SHA256, &content);
        Sha256(found.as_ref().try_into().expect("32 bytes"))
    }

    /// Runs syft once for all formats; gives the documents.
    fn syft(&self, out: &Path, selection: &str, variables: &[(&str, &str)]) -> [PathBuf; 4] {
        let files = ["spdx-json", "spdx-tag-value", "syft-json", "cyclonedx-json"]
            .map(|format| (format, out.join(format!("{selection}.{format}"))));
        let mut syft = python::program("syft");
        syft.args(["scan", "-q", &format!("dir:{}", self.root().display())]);
        for (format, file) in &files {
            syft.arg("-o").arg(format!("{format}={}", file.display()));
        }
        // Its caches, if any, and its configuration are not this machine's.
        syft.env_clear()
            .env("HOME", out)
            .env("SYFT_CHECK_FOR_APP_UPDATE", "false")
            .envs(variables.iter().copied());
        let output = syft.output().expect("syft runs");
        assert!(output.status.success(), "syft: {}", String::from_utf8_lossy(&output.stderr));
        files.map(|(_, file)| file)
    }
}

/// The C library that this test itself is linked to.
fn libc() -> String {
    let maps = fs::read_to_string("/proc/self/maps").expect("the maps of this process");
    let line = maps.lines().find(|line| line.ends_with("/libc.so.6")).expect("the C library is mapped");
    line[line.find('/').expect("a path")..].to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
        "{name:28} coverage {:8}  files {:2}, {:2} with SHA-256  packages {}  programs listed {} of {n}, matched {:3} %",
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

/// Completes a document from the tree, in both formats: then it answers for all programs, and still says what it said.
fn check_completed(tree: &Tree, document: &Path) {
    let name = document.file_name().expect("a name").to_string_lossy();
    let before = index(document);
    for format in ["spdx", "cyclonedx"] {
        let whole = document.with_added_extension(format!("whole.{format}"));
        let [tree_path, base, to] = [tree.root(), document, &whole].map(|path| path.to_str().expect("text"));
        let output =
            muster(&["sbom", "generate", tree_path, "--complete", base, "--format", format, "--output", to]);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let after = index(&whole);
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
    }
}

#[test]
fn syft_in_every_format_and_selection() {
    let (tree, out) = (Tree::new(), tempfile::tempdir().expect("a directory"));
    let all = [("SYFT_FILE_METADATA_SELECTION", "all"), ("SYFT_FILE_METADATA_DIGESTS", "sha256")];
    let runs = [("default", DEFAULT, &[][..]), ("all", ALL, &all[..])];
    let mut documents = Vec::new();
    for (selection, expected, variables) in runs {
        for (document, expected) in tree.syft(out.path(), selection, variables).into_iter().zip(&expected) {
            check(&tree, &document, "syft-1.18.1", expected);
            check_completed(&tree, &document);
            documents.push(document);
        }
    }
    // A program that was changed since is not papered over.
    tree.write(SERVER, 0o755, "#!/bin/sh\nexec another\n");
    for (document, refused) in documents.iter().zip([false, false, false, false, true, true, true, false]) {
        let output = muster(&[
            "sbom",
            "generate",
            tree.root().to_str().expect("text"),
            "--complete",
            document.to_str().expect("text"),
        ]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(i32::from(refused)), "{}: {text}", document.display());
        assert_eq!(text.contains("another digest for 1 file(s)"), refused, "{text}");
        assert_eq!(text.contains("/opt/app/server"), refused, "{text}");
    }
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
    check_completed(&tree, &file);
}
