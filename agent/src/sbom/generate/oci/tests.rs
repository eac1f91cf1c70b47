//! Images made by hand: every kind of entry, and what no image may have.

use std::fs;
use std::io::Write as _;

use serde_json::json;
use tar::{Builder, EntryType, Header};

use super::*;
use crate::sbom::generate::{Options, Output, Report, Source, generate};
use crate::sbom::{ImageIndex, Limits, parse};

/// One entry of a layer.
#[derive(Clone, Copy)]
enum Entry<'a> {
    Directory(&'a str),
    File(&'a str, &'a [u8], u32),
    Link(&'a str, &'a str),
    Hard(&'a str, &'a str),
    Device(&'a str),
}
use Entry::{Device, Directory, File, Hard, Link};

fn layer(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_gnu();
        let (path, kind, mode, content, target): (_, _, _, &[u8], _) = match entry {
            Directory(path) => (path, EntryType::Directory, 0o755, b"", ""),
            File(path, content, mode) => (path, EntryType::Regular, *mode, content, ""),
            Link(path, to) => (path, EntryType::Symlink, 0o777, b"", *to),
            Hard(path, to) => (path, EntryType::Link, 0o644, b"", *to),
            Device(path) => (path, EntryType::Block, 0o600, b"", ""),
        };
        // By hand: the library refuses to write some of the names that must be refused when they are read.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content).expect("into memory");
    }
    builder.into_inner().expect("into memory")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

/// How a layer is packed.
type Pack = fn(&[u8]) -> Vec<u8>;

/// A layout in the making.
struct Layout {
    directory: tempfile::TempDir,
    manifests: Vec<serde_json::Value>,
}

impl Layout {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(directory.path().join("blobs/sha256")).expect("a directory");
        fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
        Self { directory, manifests: Vec::new() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn blob(&self, bytes: &[u8]) -> String {
        let digest = sha256(bytes);
        fs::write(self.path().join(format!("blobs/sha256/{digest}")), bytes).expect("a blob");
        format!("sha256:{digest}")
    }

    fn image(&mut self, platform: &str, layers: &[(Vec<u8>, Pack)]) {
        let (os, architecture) = platform.split_once('/').expect("OS/ARCH");
        let blobs: Vec<_> = layers.iter().map(|(layer, pack)| self.blob(&pack(layer))).collect();
        let diff_ids: Vec<_> = layers.iter().map(|(layer, _)| format!("sha256:{}", sha256(layer))).collect();
        let config = json!({ "os": os, "architecture": architecture, "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        let layers: Vec<_> = blobs
            .iter()
            .map(|digest| json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": 0 }))
            .collect();
        let config = self.blob(config.to_string().as_bytes());
        let manifest =
            json!({ "schemaVersion": 2, "config": { "digest": config, "size": 0 }, "layers": layers });
        let digest = self.blob(manifest.to_string().as_bytes());
        self.manifests.push(json!({ "mediaType": MANIFEST, "digest": digest, "size": 0 }));
        self.index();
    }

    fn index(&self) {
        let index = json!({ "schemaVersion": 2, "manifests": self.manifests });
        fs::write(self.path().join("index.json"), index.to_string()).expect("an index");
    }

    fn made(&self) -> (ImageIndex, Report, String) {
        made(self.path(), "linux/amd64").unwrap_or_else(|error| panic!("{error}"))
    }

    fn refused(&self) -> String {
        match made(self.path(), "linux/amd64") {
            Ok(_) => panic!("an image that must be refused was taken"),
            Err(error) => error,
        }
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn sha256(bytes: &[u8]) -> Sha256 {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    Sha256(digest.as_ref().try_into().expect("32 bytes"))
}

fn options(path: &Path, platform: &str) -> Options {
    Options {
        source: Source::Image { path: path.to_owned(), platform: platform.parse().expect("a platform") },
        output: Output::Spdx,
        all: false,
        exclude: Vec::new(),
        name: "image".to_owned(),
        created: std::time::SystemTime::UNIX_EPOCH,
    }
}

fn made(path: &Path, platform: &str) -> Result<(ImageIndex, Report, String), String> {
    let mut out = Vec::new();
    let report = generate(&options(path, platform), None, &Progress::default(), &mut out)
        .map_err(|e| e.to_string())?;
    let index = parse(&out, &Limits::default()).expect("what is made can be read");
    Ok((index, report, String::from_utf8(out).expect("UTF-8")))
}

fn listed(index: &ImageIndex) -> Vec<(String, Option<Sha256>)> {
    index.entries().map(|entry| (entry.path().to_string(), entry.sha256())).collect()
}

fn row(path: &str, content: &[u8]) -> (String, Option<Sha256>) {
    (path.to_owned(), Some(sha256(content)))
}

#[test]
fn layers_one_over_the_other() {
    let lower = layer(&[
        Directory("./"),
        Directory("usr/"),
        Directory("usr/bin/"),
        Link("bin", "usr/bin"),
        File("./usr/bin/kept", b"#!kept", 0o755),
        File("usr/bin/hidden", b"#!hidden", 0o755),
        File("usr/bin/replaced", b"#!old", 0o755),
        File("usr/bin/data", b"data", 0o644),
        Directory("opt/"),
        Directory("opt/app/"),
        File("opt/app/one", b"#!one", 0o644),
        File("opt/app/two", b"#!two", 0o644),
        Directory("gone/"),
        File("gone/deep/three", b"#!three", 0o755),
        Device("dev-sda"),
    ]);
    let upper = layer(&[
        // Through the link of the lower layer.
        File("bin/new", b"\x7fELFnew", 0o755),
        File("usr/bin/.wh.hidden", b"", 0o644),
        File("usr/bin/replaced", b"#!new", 0o755),
        // An opaque directory keeps what its own layer puts in, before the mark and after it.
        File("opt/app/mine", b"#!mine", 0o755),
        File("opt/app/.wh..wh..opq", b"", 0o644),
        File("opt/app/also", b"#!also", 0o755),
        File(".wh.gone", b"", 0o644),
        File("gone2", b"#!a file now", 0o755),
        Hard("usr/bin/hard", "usr/bin/kept"),
        File(".wh..wh.plnk", b"", 0o644),
    ]);
    let mut layout = Layout::new();
    layout.image("linux/amd64", &[(lower.clone(), gzip), (upper.clone(), zstd)]);
    let (index, report, text) = layout.made();
    assert_eq!(
        listed(&index),
        [
            row("/gone2", b"#!a file now"),
            row("/opt/app/also", b"#!also"),
            row("/opt/app/mine", b"#!mine"),
            row("/usr/bin/hard", b"#!kept"),
            row("/usr/bin/kept", b"#!kept"),
            row("/usr/bin/new", b"\x7fELFnew"),
            row("/usr/bin/replaced", b"#!new"),
        ]
    );
    assert_eq!((report.files, report.unread.len()), (7, 0));
    assert_eq!(index.coverage(), crate::finding::Coverage::Full);
    // What proves the platform.
    let config = fs::read_dir(layout.path().join("blobs/sha256")).expect("blobs").find_map(|entry| {
        let bytes = fs::read(entry.expect("an entry").path()).expect("a blob");
        bytes.starts_with(b"{\"architecture\"").then(|| sha256(&bytes))
    });
    assert_eq!(index.origin().config, config);
    assert_eq!(index.origin().layers, [sha256(&lower), sha256(&upper)]);
    let one = r#""./usr/bin/kept","SPDXID":"SPDXRef-File-4","fileTypes":["SOURCE"],"checksums":"#;
    let line = text.lines().find(|line| line.contains(one)).expect("its line");
    assert!(line.contains(&format!("layerID: sha256:{}", sha256(&lower))), "{line}");
    assert_eq!(layout.made().2, text, "the same image gives the same bytes");

    // The same as an archive.
    let archive = layout.path().join("archive.tar");
    let mut builder = Builder::new(fs::File::create(&archive).expect("a file"));
    for name in ["oci-layout", "index.json", "blobs"] {
        let path = layout.path().join(name);
        if path.is_dir() {
            builder.append_dir_all(name, &path).expect("written");
        } else {
            builder.append_path_with_name(&path, format!("./{name}")).expect("written");
        }
    }
    builder.finish().expect("written");
    assert_eq!(made(&archive, "linux/amd64").expect("an archive").2, text);
}

#[test]
fn who_owns_what() {
    let status = b"Package: tool\nStatus: install ok installed\nVersion: 1\nArchitecture: amd64\n";
    let files = layer(&[
        Link("bin", "usr/bin"),
        File("usr/bin/tool", b"#!tool", 0o755),
        File("usr/bin/copied-in", b"#!main", 0o755),
        File("var/lib/dpkg/status", status, 0o644),
        File("var/lib/dpkg/info/tool.list", b"/bin/tool\n", 0o644),
        File("etc/os-release", b"ID=debian\nVERSION_ID=12\n", 0o644),
    ]);
    let mut layout = Layout::new();
    layout.image("linux/amd64", &[(files, plain)]);
    let (index, ..) = layout.made();
    let owner = |path: &str| index.by_path(path.as_bytes()).expect(path).package().map(str::to_owned);
    assert_eq!((owner("/usr/bin/tool"), owner("/usr/bin/copied-in")), (Some("tool 1".to_owned()), None));
    let purl = index.packages().find_map(|package| package.purl);
    assert_eq!(purl, Some("pkg:deb/debian/tool@1?arch=amd64&distro=debian-12"));
}

#[test]
fn platforms() {
    let one = |content: &'static [u8]| [(layer(&[File("main", content, 0o755)]), gzip as Pack)];
    let mut layout = Layout::new();
    fs::write(layout.path().join("index.json"), r#"{"manifests":[]}"#).expect("an index");
    assert!(layout.refused().contains("no image at all"), "{}", layout.refused());
    layout.image("linux/arm64", &one(b"#!arm"));
    assert_eq!(listed(&layout.made().0), [row("/main", b"#!arm")], "alone, it is taken");
    layout.image("linux/amd64", &one(b"#!amd"));
    layout.manifests.push(json!({ "mediaType": MANIFEST, "digest": format!("sha256:{}", "1".repeat(64)),
        "platform": { "os": "unknown", "architecture": "unknown" } }));
    layout.index();
    assert_eq!(listed(&layout.made().0), [row("/main", b"#!amd")]);
    let error = made(layout.path(), "linux/s390x").expect_err("none is there");
    assert!(error.contains("no image for linux/s390x; expected one of: linux/amd64, linux/arm64"), "{error}");
    layout.manifests.pop();
    layout.image("linux/amd64", &one(b"#!another"));
    assert!(layout.refused().contains("2 images for linux/amd64"), "{}", layout.refused());
    // Behind an index of its own.
    let nested = json!({ "manifests": layout.manifests[..2].to_vec() });
    let digest = layout.blob(nested.to_string().as_bytes());
    layout.manifests =
        vec![json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest })];
    layout.index();
    assert_eq!(listed(&layout.made().0), [row("/main", b"#!amd")]);
    for bad in ["linux", "/amd64", "linux/"] {
        bad.parse::<Platform>().expect_err(bad);
    }
}

#[test]
fn entries_that_no_image_has() {
    for (what, entries, reason) in [
        ("a path that climbs", vec![File("a/../../etc/passwd", b"#!", 0o755)], r#"".." component"#),
        ("a hard link to nothing", vec![Hard("a", "b")], "hard link to \"/b\", which is no file"),
        ("a hard link that climbs", vec![Hard("a", "../b")], r#"".." component"#),
        ("a hard link to a directory", vec![Directory("b/"), Hard("a", "b")], "which is no file"),
        (
            "links in a circle",
            vec![Link("a", "b"), Link("b", "a"), File("a/x", b"#!", 0o755)],
            "more than 40 symbolic links",
        ),
    ] {
        let mut layout = Layout::new();
        layout.image("linux/amd64", &[(layer(&entries), gzip)]);
        let error = layout.refused();
        assert!(error.contains("entry ") && error.contains(reason), "{what}: {error}");
    }
    // A link that leads out of the root leads to the root, as in a container.
    let mut layout = Layout::new();
    let entries = [
        Link("out", "../../.."),
        File("out/x", b"#!x", 0o755),
        Link("abs", "/opt"),
        File("abs/y", b"#!y", 0o755),
    ];
    layout.image("linux/amd64", &[(layer(&entries), gzip)]);
    assert_eq!(listed(&layout.made().0), [row("/x", b"#!x"), row("/opt/y", b"#!y")]);
}

#[test]
fn damaged_images() {
    let good = layer(&[File("main", &[b'#'; 3000], 0o755)]);
    let layout_with = |pack: Pack| {
        let mut layout = Layout::new();
        layout.image("linux/amd64", &[(good.clone(), pack)]);
        layout
    };
    let blob_of =
        |layout: &Layout, bytes: &[u8]| layout.path().join(format!("blobs/sha256/{}", sha256(bytes)));
    // A byte of the layer: found at its end, whatever it packs.
    for (pack, name) in [(gzip as Pack, "gzip"), (zstd, "zstd"), (plain, "plain")] {
        let packed = pack(&good);
        for at in [packed.len() / 2, packed.len() - 1] {
            let layout = layout_with(pack);
            let mut changed = packed.clone();
            changed[at] ^= 1;
            fs::write(blob_of(&layout, &packed), &changed).expect("written");
            let error = layout.refused();
            assert!(
                error.contains("layer sha256:") || error.contains("has SHA-256"),
                "{name} at {at}: {error}"
            );
        }
        let layout = layout_with(pack);
        fs::write(blob_of(&layout, &packed), &packed[..packed.len() / 2]).expect("written");
        let error = layout.refused();
        assert!(error.contains("layer sha256:") || error.contains("has SHA-256"), "{name} cut: {error}");
        // Something behind its end.
        let layout = layout_with(pack);
        fs::write(blob_of(&layout, &packed), [packed.as_slice(), b"more"].concat()).expect("written");
        layout.refused();
        let layout = layout_with(pack);
        fs::remove_file(blob_of(&layout, &packed)).expect("removed");
        assert!(layout.refused().contains("cannot be read"), "{name}");
    }
    // A size that no disk has.
    let mut header = Header::new_gnu();
    header.set_path("huge").expect("a path");
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o755);
    header.set_size(u64::MAX / 2);
    header.set_cksum();
    let mut layout = Layout::new();
    layout.image("linux/amd64", &[(header.as_bytes().to_vec(), gzip)]);
    assert!(layout.refused().contains("layer sha256:"), "{}", layout.refused());
    // A layer that is not the configuration's.
    let mut layout = Layout::new();
    layout.image("linux/amd64", &[(good.clone(), plain)]);
    let other = layer(&[File("other", b"#!", 0o755)]);
    let manifest = layout.manifests[0]["digest"].as_str().expect("a digest").replace(':', "/");
    let manifest = fs::read_to_string(layout.path().join("blobs").join(manifest)).expect("the manifest");
    let manifest = manifest.replace(&sha256(&good).to_string(), &layout.blob(&other)[7..]);
    layout.manifests = vec![json!({ "mediaType": MANIFEST, "digest": layout.blob(manifest.as_bytes()) })];
    layout.index();
    assert!(layout.refused().contains("has SHA-256"), "{}", layout.refused());
    // Documents.
    for (manifest, reason) in [
        ("{", "EOF"),
        ("[]", "manifest sha256:"),
        (r#"{"config":{"digest":"sha256:12"},"layers":[]}"#, "64 hexadecimal digits"),
        (r#"{"config":{"digest":"sha256:12","digest":""},"layers":[]}"#, "duplicate field"),
    ] {
        let mut layout = Layout::new();
        layout.manifests = vec![json!({ "mediaType": MANIFEST, "digest": layout.blob(manifest.as_bytes()) })];
        layout.index();
        assert!(layout.refused().contains(reason), "{manifest}: {}", layout.refused());
    }
    let empty = tempfile::tempdir().expect("a directory");
    let error = made(empty.path(), "linux/amd64").expect_err("nothing is there");
    assert!(error.contains("oci-layout"), "{error}");
    let file = empty.path().join("no-archive");
    fs::write(&file, vec![7; 5000]).expect("a file");
    made(&file, "linux/amd64").expect_err("no archive");
}
