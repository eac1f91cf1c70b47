//! Who owns what by each kind of package database, in a tree and in an image of it.

use super::*;
use crate::packages::tests::{header, rpmdb};

const RECORD: &str = "usr/local/lib/python3.11/site-packages/some_tool-1.0.dist-info/RECORD";

#[test]
fn every_database_names_owners() {
    let rpm = header("bash", &[("/usr/bin/", "bash", &"ab".repeat(32), 0)], Some(8));
    let made = tempfile::tempdir().expect("a directory");
    rpmdb(made.path(), 4096, &[rpm]);
    let rpm = fs::read(made.path().join("rpmdb.sqlite")).expect("just made");
    let status = b"Package: tool\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n";
    // Each with a program, its owner, and the owner's package URL.
    for (database, content, program, owner, purl) in [
        (
            "var/lib/dpkg/status",
            &status[..],
            "usr/bin/tool",
            None,
            "pkg:deb/rhel/tool@1?arch=amd64&distro=rhel-9.3",
        ),
        (
            "var/lib/dpkg/status.d/base",
            b"Package: base\nVersion: 2\nArchitecture: amd64\n",
            "usr/bin/base",
            Some("base 2"),
            "pkg:deb/rhel/base@2?arch=amd64&distro=rhel-9.3",
        ),
        (
            "lib/apk/db/installed",
            b"P:busybox\nV:1.36-r2\nA:x86_64\nF:bin\nR:busybox\n",
            "bin/busybox",
            Some("busybox 1.36-r2"),
            "pkg:apk/rhel/busybox@1.36-r2?arch=x86_64&distro=rhel-9.3",
        ),
        (
            "var/lib/rpm/rpmdb.sqlite",
            &rpm,
            "usr/bin/bash",
            Some("bash 1:5.1-9.el9"),
            "pkg:rpm/redhat/bash@5.1-9.el9?arch=x86_64&distro=rhel-9.3&epoch=1",
        ),
        (
            RECORD,
            b"../../../bin/tool,,\n",
            "usr/local/bin/tool",
            Some("some_tool 1.0"),
            "pkg:pypi/some-tool@1.0",
        ),
    ] {
        let files = [
            ("etc/os-release", &b"ID=rhel\nVERSION_ID=9.3\n"[..]),
            ("var/lib/dpkg/status.d/base.md5sums", b"11111111111111111111111111111111  usr/bin/base\n"),
            (program, b"#!program"),
            (database, content),
        ];
        let entries: Vec<_> = files.iter().map(|(path, content)| File(path, content, 0o755)).collect();
        let mut layout = Layout::new();
        layout.image("linux/amd64", &[(layer(&entries), gzip)]);
        let tree = tempfile::tempdir().expect("a directory");
        for (path, content) in files {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().expect("below")).expect("a directory");
            fs::write(path, content).expect("a file");
        }
        let of_tree =
            Options { source: Source::Tree(tree.path().to_owned()), ..options(tree.path(), "linux/amd64") };
        for options in [of_tree, options(layout.path(), "linux/amd64")] {
            let mut out = Vec::new();
            let report = generate(&options, None, &Progress::default(), &mut out).expect(database);
            let index = parse(&out, &Limits::default()).expect("what is made can be read");
            let entry = index.by_path(program.as_bytes()).expect(program);
            assert_eq!(entry.package(), owner, "{database}: {report:?}");
            let purls: Vec<_> = index.packages().filter_map(|package| package.purl).collect();
            assert_eq!(purls, [purl], "{database}");
            let lacks = usize::from(owner.is_none());
            assert_eq!((report.packages, report.database.len()), (1, lacks), "{database}: {report:?}");
        }
    }
}
