//! `muster sbom inspect` and `muster sbom diff` on real documents, as a person runs them.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

fn data(name: &str) -> PathBuf {
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/sbom").join(name);
    assert!(file.exists(), "test data {} is needed beside the checkout", file.display());
    file
}

fn muster(command: &str, arguments: &[PathBuf], json: bool) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_muster"));
    program.args(["sbom", command]).args(arguments);
    if json {
        program.arg("--json");
    }
    program.output().expect("the program that cargo has built")
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stdout)))
}

#[test]
fn inspect_tells_what_each_document_is() {
    // Name, format, tool, coverage, files, with SHA-256, with weak digests, packages.
    for (name, format, tool, coverage, numbers) in [
        ("web.spdx.json", "spdx-2-json", "syft-1.18.1", "owned", [6067, 6065, 0, 123]),
        ("web.syft.json", "syft-json", "syft-1.18.1", "owned", [6069, 6065, 4, 123]),
        ("web.cdx.json", "cyclonedx-json", "syft-1.18.1", "packages", [0, 0, 0, 123]),
        ("ubi9.spdx.json", "spdx-2-json", "syft-1.8.0", "owned", [8289, 8253, 0, 202]),
        ("kubectl-zero-sha1.spdx.json", "spdx-2-json", "syft-0.90.0", "packages", [1210, 0, 0, 88]),
        ("trivy-fluentd.cdx17.json", "cyclonedx-json", "trivy-dev", "packages", [55, 0, 55, 160]),
        ("perl-mojolicious.spdx3.json", "spdx-3-json", "Cavil", "packages", [396, 0, 0, 1]),
        ("kubescape-nginx.syft.json", "syft-json", "syft-0.85.0", "owned", [5805, 0, 5804, 150]),
        ("alpine-synthetic-manifest.syft.json", "syft-json", "syft-0.101.1", "owned", [106, 74, 31, 14]),
        ("docker-hub/alpine.spdx.json", "spdx-2-json", "syft-0.57.0", "owned", [515, 85, 0, 14]),
        ("docker-hub/busybox.spdx.json", "spdx-2-json", "syft-0.57.0", "owned", [423, 6, 0, 0]),
        ("docker-hub/caddy.spdx.json", "spdx-2-json", "syft-0.57.0", "owned", [957, 236, 0, 131]),
        ("docker-hub/debian.spdx.json", "spdx-2-json", "syft-0.57.0", "owned", [7246, 5509, 0, 96]),
        ("docker-hub/httpd.spdx.json", "spdx-2-json", "syft-0.57.0", "owned", [5996, 4361, 0, 117]),
        ("docker-hub/nginx.spdx.json", "spdx-2-json", "syft-0.57.0", "owned", [6099, 4276, 0, 143]),
        ("docker-hub/redis.spdx.json", "spdx-2-json", "syft-0.57.0", "owned", [4849, 3563, 0, 99]),
    ] {
        let output = muster("inspect", &[data(name)], true);
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let said = json(&output);
        assert_eq!((&said["format"], &said["tool"]), (&format.into(), &tool.into()), "{name}");
        assert_eq!(said["coverage"], coverage, "{name}");
        let found =
            ["files", "with_sha256", "with_weak", "packages"].map(|key| said["numbers"][key].as_u64());
        assert_eq!(found, numbers.map(Some), "{name}");
        assert!(said["advice"].as_str().is_some_and(|advice| advice.contains("--complete")), "{name}");
        assert!(!said["missing"].as_array().expect("a list").is_empty(), "{name}");
        let files = numbers[0].max(1);
        assert!(
            files < 1000 || said["index_bytes"].as_u64().is_some_and(|bytes| bytes / files <= 120),
            "{name}"
        );

        let text = String::from_utf8(muster("inspect", &[data(name)], false).stdout).expect("text");
        for line in
            [format!("format     {format}"), format!("tool       {tool}"), format!("coverage   {coverage}")]
        {
            assert!(text.lines().any(|found| found == line), "{name}: no {line:?} in\n{text}");
        }
    }
}

#[test]
fn the_image_is_shown_and_no_manifest_digest() {
    let said = json(&muster("inspect", &[data("alpine-synthetic-manifest.syft.json")], true));
    assert_eq!(
        said["image"]["config"],
        "sha256:cc604a625da1289c5dd57f947318133161ff7f40fb03dc2a649300473b97e743"
    );
    assert_eq!(said["image"]["architecture"], "arm64");
    for name in ["alpine-synthetic-manifest.syft.json", "web.syft.json", "web.spdx.json", "web.cdx.json"] {
        let text = String::from_utf8(muster("inspect", &[data(name)], false).stdout).expect("text");
        assert!(!text.contains("8cb449c3") && !text.contains("13c4d092"), "{name}: {text}");
    }
}

/// One image, three documents by the same run of one tool: they name the same packages, and of the files only what each format
/// cannot say differs.
#[test]
fn one_image_in_three_formats() {
    // What dpkg's database records (`metadata.files` of the packages perl-base and gzip), which only syft-json repeats. Both are
    // second names of a file, `/usr/bin/perl` and `/usr/bin/gunzip`, of which dpkg has the same MD5: syft lists one name of a
    // hard link.
    const LINKS: [&str; 2] = ["/usr/bin/perl5.36.0", "/usr/bin/uncompress"];
    // Empty files: syft computes no digest of them (a zero SHA-1 in SPDX). dpkg has the MD5 of nothing.
    const EMPTY: [&str; 2] =
        ["/usr/lib/python3.11/email/mime/__init__.py", "/usr/lib/python3.11/urllib/__init__.py"];
    const MD5_OF_NOTHING: &str = "md5:d41d8cd98f00b204e9800998ecf8427e";
    let diff = |first: &str, second: &str| {
        let output = muster("diff", &[data(first), data(second)], true);
        assert_eq!(output.status.code(), Some(1), "{first} {second}");
        let said = json(&output);
        for kind in ["added", "removed", "changed"] {
            assert_eq!(said["packages"][kind], serde_json::json!([]), "{first} {second}");
        }
        said["files"].clone()
    };
    let changed = |from: &str, to: &str| {
        let change = |path| serde_json::json!({ "path": path, "before": from, "after": to });
        EMPTY.map(change).to_vec()
    };
    let (spdx, syft, cyclonedx) = ("web.spdx.json", "web.syft.json", "web.cdx.json");
    assert_eq!(
        diff(spdx, syft),
        serde_json::json!({ "added": LINKS, "removed": [], "changed": changed("", MD5_OF_NOTHING) })
    );
    assert_eq!(
        diff(syft, spdx),
        serde_json::json!({ "added": [], "removed": LINKS, "changed": changed(MD5_OF_NOTHING, "") })
    );
    // CycloneDX by syft lists no files: all that the others have are missing there.
    for (other, files) in [(spdx, 6067), (syft, 6069)] {
        for (first, second, missing, none) in
            [(other, cyclonedx, "removed", "added"), (cyclonedx, other, "added", "removed")]
        {
            let files_of = diff(first, second);
            assert_eq!(files_of[missing].as_array().map(Vec::len), Some(files), "{first} {second}");
            for part in [none, "changed"] {
                assert_eq!(files_of[part], serde_json::json!([]), "{first} {second} {part}");
            }
        }
    }
}

#[test]
fn diff_has_the_exit_statuses_of_diff() {
    let spdx = data("web.spdx.json");
    let same = muster("diff", &[spdx.clone(), spdx.clone()], false);
    assert_eq!((same.status.code(), same.stdout.len()), (Some(0), 0));

    let other =
        muster("diff", &[data("docker-hub/debian.spdx.json"), data("docker-hub/nginx.spdx.json")], false);
    let text = String::from_utf8(other.stdout).expect("text");
    assert_eq!(other.status.code(), Some(1));
    assert!(text.lines().any(|line| line.starts_with("+ package nginx ")), "{text}");

    for arguments in
        [vec![spdx.clone(), data("../README.md")], vec![spdx.clone(), PathBuf::from("/nowhere")], vec![spdx]]
    {
        let output = muster("diff", &arguments, false);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn generate_refuses_a_platform_for_a_tree() {
    let tree = tempfile::tempdir().expect("a directory");
    let out = tree.path().join("out.json");
    let generate = |arguments: &[&std::ffi::OsStr]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_muster"));
        program.args(["sbom", "generate"]).args(arguments).output().expect("the program that cargo has built")
    };
    let (root, file) = (tree.path().as_os_str(), out.as_os_str());
    for (source, status) in [(root, 2), ("--host".as_ref(), 2), ("oci:/nonexistent".as_ref(), 1)] {
        let output = generate(&[source, "--platform".as_ref(), "linux/amd64".as_ref(), "-o".as_ref(), file]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(status), "{source:?}: {said}");
        assert!(!said.is_empty() && !out.exists(), "{source:?}: {said}");
    }
    let output = generate(&[root, "-o".as_ref(), file]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Names of a document may hold anything: what is printed holds no control characters.
#[test]
fn nothing_of_a_document_controls_the_terminal() {
    let directory = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let file = directory.path().join(name);
        std::fs::write(&file, text).expect("a file");
        file
    };
    let empty = write("empty.json", r#"{"bomFormat":"CycloneDX","specVersion":"1.6","components":[]}"#);
    let names = write(
        "names.json",
        r#"{"bomFormat":"CycloneDX","specVersion":"1.6","metadata":{"component":{"type":"container","name":"x","purl":"pkg:oci/x@1?arch=a\u001b[2J"}},
          "components":[{"type":"file","name":"/a\nfake\u001b[31m"},{"type":"library","name":"a\nb\u001b[2J","version":"1\n"},{"type":"data","name":"d"}]}"#,
    );
    let printed = |output: Output| {
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(!text.contains('\u{1b}') && !text.contains("\nfake") && !text.contains("\nb"), "{text:?}");
        text
    };
    let text = printed(muster("diff", &[empty, names.clone()], false));
    assert!(text.contains(r"+ package a\x0ab\x1b[2J 1\x0a"), "{text}");
    let text = printed(muster("inspect", std::slice::from_ref(&names), false));
    assert!(text.contains(r"platform   a\x1b[2J") && text.contains("components 1 of type data"), "{text}");
    assert!(text.contains("missing    a time of making that can be read"), "{text}");
    assert_eq!(json(&muster("inspect", &[names], true))["numbers"]["components"]["data"], 1);
    assert_eq!(muster("inspect", &[directory.path().join("none")], false).status.code(), Some(2));
}

#[test]
fn a_document_of_a_gibibyte_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let large = directory.path().join("large.json");
    // Sparse: it takes no space.
    File::create(&large).and_then(|file| file.set_len(1 << 30)).expect("a file");
    let refused = |output: Output, status| {
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        let text = String::from_utf8(output.stderr).expect("text");
        assert!(text.contains("large.json") && text.contains("raise attestation.max_"), "{text}");
    };
    refused(muster("inspect", std::slice::from_ref(&large), false), 2);
    refused(muster("diff", &[large.clone(), data("web.spdx.json")], false), 2);
    let key = data("../attestation/key-signed/cosign.pub");
    // In less memory than a document may have: it is refused by its size, and not read.
    let mut verify = Command::new("sh");
    verify.args(["-c", r#"ulimit -v 400000 && exec "$0" attest verify --key "$@""#]);
    let output = verify.arg(env!("CARGO_BIN_EXE_muster")).args([&key, &large]).output();
    refused(output.expect("the program that cargo has built"), 1);
}
