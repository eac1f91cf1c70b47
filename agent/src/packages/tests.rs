use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};

use super::*;
use crate::event::PackageDigest;
use crate::sbom::Package;

const NOBODY: fn(&[u8]) -> Option<Sha256> = |_| None;

/// A root with these files; a content that starts with `->` is a link.
fn root(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a private directory");
    put(dir.path(), files);
    dir
}

fn put(root: &Path, files: &[(&str, &[u8])]) {
    for (path, content) in files {
        let path = root.join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a private directory");
        match content.strip_prefix(b"->") {
            Some(target) => {
                symlink(std::str::from_utf8(target).expect("text"), path).expect("a private directory");
            }
            None => fs::write(path, content).expect("a private directory"),
        }
    }
}

fn read_all(root: &Path) -> PackageFiles {
    let tree = Tree::directory(root).expect("a directory");
    read(&tree, &Wanted::everything(), &NOBODY, Limits::default())
}

fn owner(files: &PackageFiles, path: &str) -> Option<(String, Option<PackageDigest>)> {
    files.owner(path.as_bytes()).map(|o| (o.package.to_string(), o.digest))
}

fn md5(byte: u8) -> Option<PackageDigest> {
    Some(PackageDigest::Md5([byte; 16]))
}

fn problems(files: &PackageFiles) -> Vec<String> {
    files.problems().0.iter().map(ToString::to_string).collect()
}

const STATUS: &[u8] = b"Package: bash
Status: install ok installed
Architecture: amd64
Version: 5.2-1
Conffiles:
 /etc/bash.bashrc 33333333333333333333333333333333
 /etc/gone 33333333333333333333333333333333 obsolete
 /etc/new newconffile
Description: a shell
 Conffiles: not here

Package: libc6
Status: install ok half-configured
Multi-Arch: same
Architecture: amd64
Version: 2.36-9

Package: removed
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: diverter
Status: install ok installed
Architecture: all
Version: 1:3

Package: bare
Status: install ok installed
Architecture: all
Version: 7
";

fn debian() -> Vec<(&'static str, &'static [u8])> {
    vec![
        ("bin", b"->usr/bin"),
        ("lib", b"->usr/lib"),
        ("var/lib/dpkg/status", STATUS),
        (
            "var/lib/dpkg/info/bash.list",
            b"/.\n/bin\n/bin/bash\n/etc/bash.bashrc\n/usr/share/doc/bash\n/usr/share/doc/bash/x\n",
        ),
        ("var/lib/dpkg/info/bash.md5sums", b"11111111111111111111111111111111  bin/bash\n"),
        ("var/lib/dpkg/info/libc6:amd64.list", b"/lib/x86_64-linux-gnu/libc.so.6\n"),
        (
            "var/lib/dpkg/info/libc6:amd64.md5sums",
            b"22222222222222222222222222222222  ./lib/x86_64-linux-gnu/libc.so.6\n",
        ),
        ("var/lib/dpkg/info/removed.list", b"/usr/bin/removed\n"),
        ("var/lib/dpkg/info/diverter.list", b"/usr/bin/which\n"),
        ("var/lib/dpkg/info/bare.list", b"/usr/bin/which\n/opt/bare\n"),
        ("var/lib/dpkg/diversions", b"/usr/bin/which\n/usr/bin/which.bare\ndiverter\n"),
        ("var/lib/dpkg/info/a.list", b"/.\n"),
    ]
}

#[test]
fn a_dpkg_database() {
    let root = root(&debian());
    let files = read_all(root.path());
    assert_eq!(problems(&files), [""; 0]);
    let some = |package: &str, digest| Some((package.to_owned(), digest));
    for (path, expected) in [
        ("/usr/bin/bash", some("bash 5.2-1", md5(0x11))),
        ("/bin/bash", some("bash 5.2-1", md5(0x11))),
        ("/etc/bash.bashrc", some("bash 5.2-1", md5(0x33))),
        ("/usr/lib/x86_64-linux-gnu/libc.so.6", some("libc6 2.36-9", md5(0x22))),
        ("/usr/bin/which", some("diverter 1:3", None)),
        ("/usr/bin/which.bare", some("bare 7", None)),
        ("/opt/bare", some("bare 7", None)),
        ("/usr/bin/removed", None),
        ("/etc/new", None),
        ("/usr/share/doc/bash", None),
        ("/usr/bin", None),
        ("/usr/share/doc/bash/x", some("bash 5.2-1", None)),
        ("/nowhere", None),
        ("/a/../b", None),
    ] {
        assert_eq!(owner(&files, path), expected, "{path}");
    }
    assert!(files.heap_bytes() > 100);
}

#[test]
fn only_packages_that_the_sbom_names_count() {
    let root = root(&debian());
    let tree = Tree::directory(root.path()).expect("a directory");
    let wanted = Wanted::named([
        Package { name: "libc6", version: "2.36-9", purl: None },
        Package { name: "bash", version: "5.2-2", purl: None },
    ]);
    let files = read(&tree, &wanted, &NOBODY, Limits::default());
    assert!(files.owner(b"/usr/lib/x86_64-linux-gnu/libc.so.6").is_some());
    assert_eq!(owner(&files, "/usr/bin/bash"), None);
    assert_eq!(files.packages().len(), 1);
}

#[test]
fn distroless_images_have_a_directory_of_paragraphs() {
    let root = root(&[
        ("var/lib/dpkg/status.d/tzdata", b"Package: tzdata\nVersion: 2024a\nArchitecture: all\n"),
        (
            "var/lib/dpkg/status.d/tzdata.md5sums",
            b"11111111111111111111111111111111  usr/share/zoneinfo/UTC\n",
        ),
        ("var/lib/dpkg/status.d/base", b"Package: base-files\nVersion: 12\nArchitecture: amd64\n"),
    ]);
    let files = read_all(root.path());
    assert_eq!(owner(&files, "/usr/share/zoneinfo/UTC"), Some(("tzdata 2024a".to_owned(), md5(0x11))));
    assert_eq!(problems(&files), [""; 0]);
}

#[test]
fn what_is_wrong_is_left_out_with_its_place() {
    const INFO: &str = "var/lib/dpkg/info/bash.md5sums";
    let apk = "usr/lib/apk/db/installed";
    for (path, content, expected) in [
        (
            INFO,
            &b"11111111111111111111111111111111  a\nxx  bin/bash\n"[..],
            "/var/lib/dpkg/info/bash.md5sums, line 2: expected an MD5",
        ),
        (INFO, b"11111111111111111111111111111111  a/../b\n", "line 1: the path has a \"..\""),
        ("var/lib/dpkg/info/bash.list", b"/a\nb\n", "bash.list, line 2: expected an absolute path"),
        (
            "var/lib/dpkg/status",
            b"Package: a\nno colon\n",
            "/var/lib/dpkg/status, line 2: expected `Field: value`",
        ),
        ("var/lib/dpkg/status", b"Package: a\nPackage: b\n", "line 2: the field \"Package\" twice"),
        (
            "var/lib/dpkg/status",
            b"Package: b\nVersion: 1\nStatus: install ok installed\n",
            "line 1: b is installed, but without a list of its files",
        ),
        (
            "var/lib/dpkg/status",
            b"Package: ../x\nVersion: 1\nStatus: install ok installed\n",
            "line 1: a package name",
        ),
        (
            "var/lib/dpkg/status",
            b"Package: a\nVersion: 1\nConffiles:\n /etc/x zz\n",
            "line 4: expected a path and an MD5",
        ),
        ("var/lib/dpkg/diversions", b"/a\n/b\n", "/var/lib/dpkg/diversions, line 2: expected three lines"),
        (apk, b"P:a\nV:1\nF:bin\nR:a\nZ:Q1zz\n", "/usr/lib/apk/db/installed, line 5: expected Q1"),
        (apk, b"P:a\nrubbish\n", "line 2: expected a letter and a colon"),
        (apk, b"F:bin\n", "line 1: a file of a package without name"),
        (
            "var/lib/rpm/rpmdb.sqlite",
            b"no database",
            "/var/lib/rpm/rpmdb.sqlite, byte 0: expected a database of SQLite 3",
        ),
        ("var/lib/rpm/Packages", b"bdb", "/var/lib/rpm/Packages: an rpm database in its old format"),
        (
            "usr/lib/python3.11/site-packages/a-1.dist-info/RECORD",
            b"a.py,sha256=xx,1\n",
            "RECORD, line 1: expected a SHA-256",
        ),
        (
            "usr/lib/python3.11/site-packages/a-1.dist-info/RECORD",
            b"\"a.py,,\n",
            "line 1: expected a closing quote",
        ),
        (
            "usr/lib/python3.11/site-packages/a-1.dist-info/RECORD",
            b"../../../../../x,,\n",
            "climbs above the root",
        ),
    ] {
        let mut tree = debian();
        tree.retain(|(name, _)| *name != path);
        let root = root(&tree);
        put(root.path(), &[(path, content)]);
        let found = problems(&read_all(root.path()));
        assert!(found.len() == 1 && found[0].contains(expected), "{path}: {found:?}");
    }
}

#[test]
fn limits_are_kept() {
    let root = root(&debian());
    let tree = Tree::directory(root.path()).expect("a directory");
    let with = |limits| read(&tree, &Wanted::everything(), &NOBODY, limits);
    let small = with(Limits { file_bytes: 100, ..Limits::default() });
    assert!(problems(&small)[0].contains("expected at most 100 bytes"), "{:?}", problems(&small));
    assert!(small.is_empty());
    let few = with(Limits { paths: 2, ..Limits::default() });
    assert_eq!(few.len(), 2);
    assert!(problems(&few)[0].contains("more than 2 paths"), "{:?}", problems(&few));
    let total = with(Limits { all_bytes: 700, ..Limits::default() });
    assert!(problems(&total).iter().any(|p| p.contains("expected at most")), "{:?}", problems(&total));
}

#[test]
fn a_database_that_the_sbom_has_with_another_digest_does_not_count() {
    let root = root(&debian());
    let tree = Tree::directory(root.path()).expect("a directory");
    let forged = |path: &[u8]| (path == b"/var/lib/dpkg/info/bash.md5sums").then_some(Sha256([1; 32]));
    let files = read(&tree, &Wanted::everything(), &forged, Limits::default());
    assert!(problems(&files)[0].contains("the SBOM has this file with SHA-256"), "{:?}", problems(&files));
    assert_eq!(owner(&files, "/usr/bin/bash"), None, "not even without a digest");
    assert!(files.owner(b"/opt/bare").is_some());
}

#[test]
fn an_apk_database() {
    let q1 = format!("Q1{}", BASE64_STANDARD.encode([7; 20]));
    let text = format!(
        "C:Q1x\nP:busybox\nV:1.36-r2\nA:x86_64\nF:bin\nM:0:0:755\nR:busybox\na:0:0:755\nZ:{q1}\nR:sh\nF:\nR:top\n\n\
         P:musl\nV:1.2\nF:lib\nR:ld-musl.so.1\nZ:{q1}\n\n"
    );
    for place in ["lib/apk/db/installed", "usr/lib/apk/db/installed"] {
        let root = root(&[(place, text.as_bytes())]);
        let files = read_all(root.path());
        assert_eq!(problems(&files), [""; 0]);
        let sha1 = Some(PackageDigest::Sha1([7; 20]));
        for (path, expected) in [
            ("/bin/busybox", Some(("busybox 1.36-r2".to_owned(), sha1))),
            ("/bin/sh", Some(("busybox 1.36-r2".to_owned(), None))),
            ("/top", Some(("busybox 1.36-r2".to_owned(), None))),
            ("/lib/ld-musl.so.1", Some(("musl 1.2".to_owned(), sha1))),
        ] {
            assert_eq!(owner(&files, path), expected, "{path}");
        }
    }
}

#[test]
fn a_python_record() {
    let digest = BASE64_URL_SAFE_NO_PAD.encode([0xfb; 32]);
    let text = format!(
        "../../../bin/tool,sha256={digest},10\r\na/__init__.py,sha256={digest},0\na/__pycache__/x.pyc,,\n\
         \"a/b,\"\"c.py\",sha256={digest},1\na/sha384.py,sha384=xyz,1\na/hex.py,sha256={},1\n",
        "fb".repeat(32)
    );
    let place = "usr/local/lib/python3.11/site-packages";
    let record = format!("{place}/some_tool-1.0.dist-info/RECORD");
    let root = root(&[(&record, text.as_bytes())]);
    let files = read_all(root.path());
    assert_eq!(problems(&files), [""; 0]);
    let sha256 = Some(PackageDigest::Sha256(Sha256([0xfb; 32])));
    for (path, expected) in [
        ("/usr/local/bin/tool".to_owned(), Some(sha256)),
        (format!("/{place}/a/__init__.py"), Some(sha256)),
        (format!("/{place}/a/__pycache__/x.pyc"), Some(None)),
        (format!("/{place}/a/hex.py"), Some(sha256)),
        (format!("/{place}/a/b,\"c.py"), Some(sha256)),
        (format!("/{place}/a/sha384.py"), Some(None)),
        ("/usr/local/bin/other".to_owned(), None),
    ] {
        let expected = expected.map(|digest| ("some_tool 1.0".to_owned(), digest));
        assert_eq!(owner(&files, &path), expected, "{path}");
    }
}

#[test]
fn two_databases_of_one_file() {
    let digest = BASE64_URL_SAFE_NO_PAD.encode([5; 32]);
    let record = "usr/lib/python3.11/dist-packages/bash-9.dist-info/RECORD";
    let line = format!("../../../bin/bash,sha256={digest},1\n");
    let mut tree = debian();
    tree.push((record, line.as_bytes()));
    let stronger = root(&tree);
    let sha256 = Some(PackageDigest::Sha256(Sha256([5; 32])));
    assert_eq!(owner(&read_all(stronger.path()), "/usr/bin/bash"), Some(("bash 9".to_owned(), sha256)));
    // As strong, and another one: nothing is known of it.
    put(
        stronger.path(),
        &[("var/lib/dpkg/info/diverter.md5sums", b"44444444444444444444444444444444  opt/bare\n")],
    );
    put(
        stronger.path(),
        &[("var/lib/dpkg/info/bare.md5sums", b"55555555555555555555555555555555  opt/bare\n")],
    );
    let files = read_all(stronger.path());
    assert_eq!(owner(&files, "/opt/bare"), None);
    assert!(problems(&files)[0].contains("/opt/bare: two packages own this file"), "{:?}", problems(&files));
}

#[test]
fn owners_are_told_whatever_the_digests() {
    let record = "usr/lib/python3.11/dist-packages/some_tool-9.dist-info/RECORD";
    let mut tree = debian();
    tree.extend([
        // The system has it: what else it lists is not Python's own either.
        (record, &b"../../../bin/bash,sha256=xx,1\nlost.py,,\n"[..]),
        ("usr/lib/python3.11/dist-packages/other-1.dist-info/RECORD", b"../../../bin/bash,,\nother.py,,\n"),
        ("var/lib/dpkg/info/diverter.md5sums", b"44444444444444444444444444444444  opt/bare\n"),
        ("var/lib/dpkg/info/bare.md5sums", b"55555555555555555555555555555555  opt/bare\n"),
    ]);
    let root = root(&tree);
    let list = format!("/usr/bin/which\n/opt/bare\n/{record}\n");
    put(root.path(), &[("var/lib/dpkg/info/bare.list", list.as_bytes())]);
    let files = Tree::directory(root.path()).expect("a directory");
    let found = owners(&files, Limits::default());
    assert_eq!(found.problems(), (&[][..], 0));
    let names: Vec<_> = found.packages.iter().map(|package| (package.kind, &*package.name)).collect();
    let debian = ["bash", "libc6", "diverter", "bare"].map(|name| (Kind::Deb, name));
    assert_eq!(names, [&debian[..], &[(Kind::Python, "other")]].concat());
    for (path, expected) in [
        ("/usr/bin/bash", Some("bash")),
        ("/opt/bare", Some("diverter")),
        ("/usr/bin/which.bare", Some("bare")),
        ("/usr/lib/python3.11/dist-packages/other.py", Some("other")),
        ("/usr/lib/python3.11/dist-packages/lost.py", None),
        ("/usr/bin/removed", None),
    ] {
        let number = found.owner(path.as_bytes()).and_then(|number| usize::try_from(number).ok());
        assert_eq!(number.map(|number| &*found.packages[number].name), expected, "{path}");
    }
    let few = owners(&files, Limits { paths: 2, ..Limits::default() });
    assert!(few.problems().0[0].reason.contains("more than 2 paths"), "{:?}", few.problems());
}

#[test]
fn layers_as_overlayfs_shows_them() {
    let dir = tempfile::tempdir().expect("a private directory");
    let list = |name| -> &[u8] { if name == 1 { b"/opt/old\n" } else { b"/opt/new\n" } };
    for layer in ["1", "2", "3"] {
        fs::create_dir(dir.path().join(layer)).expect("a private directory");
    }
    let base = dir.path().join("1");
    put(&base, &debian());
    put(
        &base,
        &[("var/lib/dpkg/info/bare.list", list(1)), ("var/lib/dpkg/status.d/x", b"Package: x\nVersion: 1\n")],
    );
    put(&base, &[("var/lib/dpkg/status.d/x.list", b"/opt/x\n")]);
    let above = dir.path().join("2");
    put(&above, &[("var/lib/dpkg/info/bare.list", list(2))]);
    let whiteout = |path: &Path| {
        fs::create_dir_all(path.parent().expect("below")).expect("a private directory");
        let mode = nix::sys::stat::Mode::empty();
        nix::sys::stat::mknod(path, nix::sys::stat::SFlag::S_IFCHR, mode, 0)
            .expect("a whiteout may be made by all");
    };
    let read = |layers: &[&str]| {
        let paths: Vec<_> = layers.iter().map(|l| dir.path().join(l)).collect();
        let tree =
            Tree::layers(Path::new("/"), paths.iter().map(|p| p.as_path())).expect("three directories");
        read(&tree, &Wanted::everything(), &NOBODY, Limits::default())
    };
    let files = read(&["2", "1"]);
    assert!(files.owner(b"/opt/new").is_some() && files.owner(b"/opt/old").is_none());
    assert!(files.owner(b"/bin/bash").is_some() && files.owner(b"/opt/x").is_some(), "from the layer below");
    whiteout(&above.join("var/lib/dpkg/info/bash.md5sums"));
    whiteout(&above.join("var/lib/dpkg/status.d/x"));
    let files = read(&["2", "1"]);
    assert_eq!(owner(&files, "/usr/bin/bash").map(|o| o.1), Some(None), "its digests were removed");
    assert!(files.owner(b"/opt/x").is_none(), "removed in the layer above");
    // A layer that replaces the directory.
    let top = dir.path().join("3");
    put(
        &top,
        &[("var/lib/dpkg/status", b"Package: y\nVersion: 1\n"), ("var/lib/dpkg/info/y.list", b"/opt/y\n")],
    );
    let opaque = top.join("var/lib/dpkg");
    rustix::fs::setxattr(&opaque, "trusted.overlay.opaque", b"y", rustix::fs::XattrFlags::empty())
        .expect("root may set trusted attributes; run the tests as root");
    let files = read(&["3", "2", "1"]);
    assert!(files.owner(b"/opt/y").is_some() && files.owner(b"/opt/new").is_none());
    // A link in the place of a directory leads nowhere.
    let fourth = dir.path().join("4");
    put(&fourth, &[("var", b"->/")]);
    assert!(read(&["4", "1"]).is_empty());
    let missing = Tree::layers(Path::new("/"), [Path::new("/nonexistent/layer")]).expect_err("not there");
    assert!(missing.to_string().contains("/nonexistent/layer"), "{missing}");
}

/// A header with these file names, as rpm would store it.
pub(crate) fn header(name: &str, files: &[(&str, &str, &str, u32)], algorithm: Option<u32>) -> Vec<u8> {
    let (mut index, mut store) = (Vec::new(), Vec::new());
    let mut tag = |tag: u32, kind: u32, count: usize, data: &[u8], align: usize| {
        while !store.len().is_multiple_of(align) {
            store.push(0);
        }
        for number in
            [tag, kind, u32::try_from(store.len()).expect("small"), u32::try_from(count).expect("small")]
        {
            index.extend_from_slice(&number.to_be_bytes());
        }
        store.extend_from_slice(data);
    };
    let texts =
        |texts: Vec<&str>| texts.iter().flat_map(|t| [t.as_bytes(), b"\0"].concat()).collect::<Vec<u8>>();
    let numbers = |numbers: Vec<u32>| numbers.iter().flat_map(|n| n.to_be_bytes()).collect::<Vec<u8>>();
    tag(1000, 6, 1, &texts(vec![name]), 1);
    tag(1001, 6, 1, &texts(vec!["5.1"]), 1);
    tag(1002, 6, 1, &texts(vec!["9.el9"]), 1);
    tag(1003, 4, 1, &numbers(vec![1]), 4);
    tag(1022, 6, 1, &texts(vec!["x86_64"]), 1);
    let all = files.len();
    tag(1117, 8, all, &texts(files.iter().map(|f| f.1).collect()), 1);
    tag(1118, 8, all, &texts(files.iter().map(|f| f.0).collect()), 1);
    tag(1116, 4, all, &numbers((0..u32::try_from(all).expect("small")).collect()), 4);
    tag(1035, 8, all, &texts(files.iter().map(|f| f.2).collect()), 1);
    tag(1037, 4, all, &numbers(files.iter().map(|f| f.3).collect()), 4);
    if let Some(algorithm) = algorithm {
        tag(5011, 4, 1, &numbers(vec![algorithm]), 4);
    }
    let sizes = [index.len() / 16, store.len()].map(|n| u32::try_from(n).expect("small").to_be_bytes());
    [sizes[0].as_slice(), &sizes[1], &index, &store].concat()
}

/// A database that SQLite itself wrote.
pub(crate) fn rpmdb(directory: &Path, page_size: u32, headers: &[Vec<u8>]) {
    use std::fmt::Write as _;
    fs::create_dir_all(directory).expect("a private directory");
    let mut sql = format!("PRAGMA page_size={page_size}; CREATE TABLE Other (x); BEGIN;");
    sql.push_str("CREATE TABLE 'Packages' (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL);");
    sql.push_str("CREATE TABLE 'Name' (key 'TEXT' NOT NULL, hnum INTEGER NOT NULL, idx INTEGER NOT NULL);");
    for header in headers {
        sql.push_str("INSERT INTO Packages(blob) VALUES (x'");
        header.iter().for_each(|b| write!(sql, "{b:02x}").expect("a String takes it"));
        sql.push_str("');");
    }
    sql.push_str("COMMIT;");
    let script = directory.join("script.sql");
    fs::write(&script, sql).expect("a private directory");
    let code = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.executescript(open(sys.argv[2]).read()); d.close()";
    let result =
        Command::new("python3").args(["-c", code]).arg(directory.join("rpmdb.sqlite")).arg(&script).output();
    let output = result.expect("python3 is needed: cargo xtask setup --for test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_rpm_database() {
    let sha256 = "ab".repeat(32);
    let bash = header(
        "bash",
        &[
            ("/usr/bin/", "bash", &sha256, 0),
            ("/usr/bin/", "sh", "", 0),
            ("/etc/", "ghost", &sha256, 1 << 6),
            ("/etc/skel/", ".bashrc", &sha256, 1),
        ],
        Some(8),
    );
    let old = header("old", &[("/opt/", "old", &"cd".repeat(16), 0)], None);
    let strong = header("strong", &[("/opt/", "strong", &"ef".repeat(64), 0)], Some(10));
    for (place, page_size) in
        [("usr/lib/sysimage/rpm", 4096), ("var/lib/rpm", 512), ("usr/share/rpm", 65_536)]
    {
        // Enough for interior pages and for rows that go over many pages.
        let names: Vec<String> = (0..400).map(|n| format!("file-{n:04}-{}", "x".repeat(40))).collect();
        let many: Vec<_> =
            names.iter().map(|n| ("/usr/share/many/", n.as_str(), sha256.as_str(), 0)).collect();
        let mut headers: Vec<_> = (0..200)
            .map(|n| header(&format!("p{n}"), &[("/p/", &format!("{n}"), &sha256, 0)], Some(8)))
            .collect();
        headers.extend([bash.clone(), old.clone(), strong.clone(), header("many", &many, Some(8))]);
        let root = root(&[]);
        rpmdb(&root.path().join(place), page_size, &headers);
        let files = read_all(root.path());
        assert_eq!(problems(&files), [""; 0], "{place}");
        assert_eq!(files.packages().len(), 204, "{place}");
        let digest = Some(PackageDigest::Sha256(Sha256([0xab; 32])));
        let many_first = format!("/usr/share/many/{}", names[0]);
        for (path, expected) in [
            ("/usr/bin/bash", Some(("bash 1:5.1-9.el9".to_owned(), digest))),
            ("/usr/bin/sh", Some(("bash 1:5.1-9.el9".to_owned(), None))),
            ("/etc/skel/.bashrc", Some(("bash 1:5.1-9.el9".to_owned(), digest))),
            ("/etc/ghost", None),
            ("/opt/old", Some(("old 1:5.1-9.el9".to_owned(), md5(0xcd)))),
            ("/opt/strong", Some(("strong 1:5.1-9.el9".to_owned(), None))),
            ("/p/199", Some(("p199 1:5.1-9.el9".to_owned(), digest))),
            (&many_first, Some(("many 1:5.1-9.el9".to_owned(), digest))),
        ] {
            assert_eq!(owner(&files, path), expected, "{place} {path}");
        }
    }
}

#[test]
fn no_spoilt_rpm_database_stops_the_reader() {
    let root = root(&[]);
    let place = root.path().join("var/lib/rpm");
    let name = "n".repeat(3000);
    let big = header("bash", &[("/usr/bin/", &name, &"ab".repeat(32), 0)], Some(8));
    rpmdb(&place, 512, &(0..4).map(|_| big.clone()).collect::<Vec<_>>());
    let good = fs::read(place.join("rpmdb.sqlite")).expect("just made");
    // Every byte of the first pages, which hold all structures, and every cut.
    let to = |bytes: &[u8]| {
        let mut to = Builder::new(Vec::new(), None, 1000);
        rpm::packages(bytes, "x", &Wanted::everything(), &mut to);
        to.finish()
    };
    assert_eq!(to(&good).len(), 1);
    for at in 0..good.len().min(3072) {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        to(&bad);
        to(&good[..at]);
    }
}

#[test]
fn this_machines_own_dpkg_database() {
    let begun = std::time::Instant::now();
    let files = read_all(Path::new("/"));
    let took = begun.elapsed();
    println!(
        "{} files of {} packages, {} bytes, {took:?}",
        files.len(),
        files.packages().len(),
        files.heap_bytes()
    );
    let begun = std::time::Instant::now();
    let tree = Tree::directory(Path::new("/")).expect("a directory");
    let wanted = Wanted::owners_of([&b"/usr/bin/dpkg"[..], b"/nowhere"]);
    let few = read(&tree, &wanted, &NOBODY, Limits::default());
    println!("the owners of two paths: {:?}", begun.elapsed());
    assert_eq!(few.len(), 1);
    assert_eq!(few.owner(b"/usr/bin/dpkg"), files.owner(b"/usr/bin/dpkg"));
    let list = Command::new("dpkg-query").args(["-L", "coreutils", "bash", "libc6"]).output();
    let list = list.expect("dpkg-query, which every Debian has").stdout;
    let mut agreeing = 0;
    for path in list.split(|b| *b == b'\n').filter(|l| l.starts_with(b"/")) {
        let path = Path::new(std::str::from_utf8(path).expect("text"));
        let Ok(content) = fs::canonicalize(path).and_then(fs::read) else { continue };
        // A container image may have left documentation out, and a link is owned under its own name.
        if path.symlink_metadata().map_or(true, |m| !m.is_file()) {
            continue;
        }
        let owner = files.owner(path.as_os_str().as_encoded_bytes()).expect("dpkg owns it");
        let Some(PackageDigest::Md5(expected)) = owner.digest else { continue };
        use md5::Digest as _;
        assert_eq!(<[u8; 16]>::from(md5::Md5::digest(&content)), expected, "{}", path.display());
        agreeing += 1;
    }
    assert!(agreeing > 100, "{agreeing}");
}

/// Runs a program that must do its work.
fn run(command: &mut Command) {
    let output = command.output().expect("dpkg and dpkg-deb, which every Debian has");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn real_dpkg_in_a_root_of_its_own() {
    let dir = tempfile::tempdir().expect("a private directory");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("root/var/lib/dpkg/info")).expect("a private directory");
    fs::create_dir_all(at("root/var/lib/dpkg/updates")).expect("a private directory");
    fs::write(at("root/var/lib/dpkg/status"), b"").expect("a private directory");
    fs::create_dir_all(at("root/usr/bin")).expect("a private directory");
    symlink("usr/bin", at("root/bin")).expect("a private directory");
    for version in ["1", "2"] {
        let tool = format!("#!/bin/sh\necho {version}\n");
        use md5::Digest as _;
        let digest: [u8; 16] = md5::Md5::digest(tool.as_bytes()).into();
        let hex: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        let control = format!(
            "Package: muster-test\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@example.invalid>\n\
             Description: test\n"
        );
        let package = at(&format!("package-{version}"));
        put(
            &package,
            &[
                ("DEBIAN/control", control.as_bytes()),
                ("DEBIAN/md5sums", format!("{hex}  bin/muster-test\n").as_bytes()),
                ("DEBIAN/conffiles", b"/etc/muster-test\n"),
                ("bin/muster-test", tool.as_bytes()),
                ("etc/muster-test", version.as_bytes()),
            ],
        );
        let deb = at(&format!("{version}.deb"));
        run(Command::new("dpkg-deb").args(["--root-owner-group", "-b"]).arg(&package).arg(&deb));
        let root = format!("--root={}", at("root").display());
        run(Command::new("dpkg")
            .args([&root, "--force-not-root", "--force-confnew", "--log=/dev/null", "-i"])
            .arg(&deb));
        let files = read_all(&at("root"));
        assert_eq!(problems(&files), [""; 0]);
        let name = format!("muster-test {version}");
        assert_eq!(
            owner(&files, "/usr/bin/muster-test"),
            Some((name.clone(), Some(PackageDigest::Md5(digest))))
        );
        let conffile = owner(&files, "/etc/muster-test").expect("owned");
        assert_eq!(conffile.1, Some(PackageDigest::Md5(md5::Md5::digest(version.as_bytes()).into())));
    }
}
