//! The tree that syft and Muster look at.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use md5::{Digest as _, Md5};
use muster::attestation::sha256;
use muster::finding::Sha256;

/// What of the tree can run: paths without the first `/`.
pub(crate) const PROGRAMS: [&str; 7] = [
    "usr/bin/dash",
    "usr/bin/true",
    "usr/lib/x86_64-linux-gnu/libc.so.6",
    "usr/bin/demo",
    "usr/lib/python3/dist-packages/demo/run.py",
    SERVER,
    "opt/app/start",
];
/// Copied in by a Dockerfile: no package owns it.
pub(crate) const SERVER: &str = "opt/app/server";

/// A Debian root as small as syft still sees one: merged `/usr`, three packages, one of Python, and an application beside them.
pub(crate) struct Tree(tempfile::TempDir);

impl Tree {
    pub(crate) fn new() -> Self {
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
        tree.package("dash", "0.5.12-2", "", "", &["bin/dash", "bin/sh", "usr/share/doc/dash/copyright"]);
        tree.package("coreutils", "9.1-1", "", "", &["bin/true"]);
        let libc = &["lib/x86_64-linux-gnu/libc.so.6"];
        tree.package("libc6", "2.36-9+deb12u13", ":amd64", "Source: glibc\nMulti-Arch: same\n", libc);
        tree.python();
        // What a Dockerfile's COPY brings: a program that is like no other, a script that starts it, and its data.
        let mut server = fs::read("/bin/true").expect("a program of this host");
        server.extend_from_slice(b"the server");
        tree.write(SERVER, 0o755, &server);
        tree.write("opt/app/start", 0o755, "#!/bin/sh\nexec /opt/app/server\n");
        tree.write("opt/app/settings.json", 0o644, "{}\n");
        tree
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub(crate) fn write(&self, name: &str, mode: u32, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it is in a directory")).expect("a directory");
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode");
    }

    fn copy(&self, of_host: &str, name: &str) {
        self.write(name, 0o755, fs::read(of_host).expect("a file of this host"));
    }

    /// Adds a package to dpkg's database.
    fn package(&self, name: &str, version: &str, suffix: &str, fields: &str, files: &[&str]) {
        let status = self.path("var/lib/dpkg/status");
        let mut text = fs::read_to_string(&status).unwrap_or_default();
        write!(
            text,
            "Package: {name}\nStatus: install ok installed\nPriority: required\nSection: base\nInstalled-Size: 191\n\
             Maintainer: Nobody <nobody@example.org>\nArchitecture: amd64\n{fields}Version: {version}\nDescription: {name}\n\n",
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

    pub(crate) fn sha256(&self, name: &str) -> Sha256 {
        sha256(&fs::read(self.path(name)).expect("a file of the tree"))
    }
}

/// The C library that this test itself is linked to.
fn libc() -> String {
    let maps = fs::read_to_string("/proc/self/maps").expect("the maps of this process");
    let line = maps.lines().find(|line| line.ends_with("/libc.so.6")).expect("the C library is mapped");
    line[line.find('/').expect("a path")..].to_owned()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
