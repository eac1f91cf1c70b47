//! Images made by hand: every kind of entry, and what no image may have.

mod complete;
mod owners;
mod properties;

use std::fs;
use std::io::Write as _;

use serde_json::json;
use tar::{Builder, EntryType, Header};

use super::*;
use crate::sbom::generate::{GenerateError, Options, Output, Report, Source, generate};
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

/// As `zstd:chunked`: a frame for each chunk, and a table of contents in a skippable one.
fn chunked(bytes: &[u8]) -> Vec<u8> {
    let table = [&[0x50, 0x2a, 0x4d, 0x18, 5, 0, 0, 0], b"table".as_slice()].concat();
    bytes.chunks(1000).map(zstd).chain([table]).flatten().collect()
}

/// How a layer is packed.
type Pack = fn(&[u8]) -> Vec<u8>;

/// A layout in the making.
struct Layout {
    directory: tempfile::TempDir,
    manifests: Vec<serde_json::Value>,
    created: Option<&'static str>,
}

impl Layout {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(directory.path().join("blobs/sha256")).expect("a directory");
        fs::write(directory.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a file");
        Self { directory, manifests: Vec::new(), created: None }
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
        let mut config = json!({ "os": os, "architecture": architecture, "rootfs": { "type": "layers", "diff_ids": diff_ids } });
        if let Some(created) = self.created {
            config["created"] = created.into();
        }
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

    /// A manifest that may be no image's.
    fn manifest(&mut self, config: (&str, &serde_json::Value), layer: &str) {
        let digest = self.blob(config.1.to_string().as_bytes());
        let config = json!({ "mediaType": config.0, "digest": digest, "size": 0 });
        let layers = [json!({ "mediaType": layer, "digest": self.blob(b"something"), "size": 9 })];
        let manifest = json!({ "schemaVersion": 2, "config": config, "layers": layers });
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
        source: Source::Image {
            path: path.to_owned(),
            platform: Some(platform.parse().expect("a platform")),
        },
        output: Output::Spdx,
        all: false,
        exclude: Vec::new(),
        name: "image".to_owned(),
        created: Some(std::time::SystemTime::UNIX_EPOCH),
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
    layout.image("linux/amd64", &[(lower.clone(), gzip), (upper.clone(), chunked)]);
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
    assert!(layout.refused().contains("no image for linux/amd64; expected one of: linux/arm64"));
    let mut out = Vec::new();
    let any = Source::Image { path: layout.path().to_owned(), platform: None };
    let any = Options { source: any, ..options(layout.path(), "linux/amd64") };
    generate(&any, None, &Progress::default(), &mut out)
        .expect("alone, and no platform asked for: it is taken");
    let index = parse(&out, &Limits::default()).expect("what is made can be read");
    assert_eq!(listed(&index), [row("/main", b"#!arm")]);
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
        ("a whiteout that climbs", vec![File("a/.wh...", b"", 0o644)], "a whiteout of no name"),
    ] {
        let mut layout = Layout::new();
        layout.image("linux/amd64", &[(layer(&entries), gzip)]);
        let error = layout.refused();
        assert!(error.contains("entry ") && error.contains(reason), "{what}: {error}");
    }
    for (what, records, reason) in [
        ("a NUL", vec![("path", b"usr/bin/x\0y".to_vec())], "NUL byte"),
        ("a path that climbs", vec![("path", b"/usr/../../x".to_vec())], r#"".." component"#),
        (
            "a long path",
            vec![("path", b"deep/".repeat(1000))],
            "a path of 5000 bytes; Linux has at most 4096",
        ),
    ] {
        let mut layout = Layout::new();
        layout.image("linux/amd64", &[(extended(&records, b"#!x"), gzip)]);
        let error = layout.refused();
        assert!(error.contains("entry ") && error.contains(reason), "{what}: {error}");
    }
    // Absolute paths are of the image's root.
    let mut layout = Layout::new();
    layout.image("linux/amd64", &[(extended(&[("path", b"/usr/bin/x".to_vec())], b"#!x"), gzip)]);
    assert_eq!(listed(&layout.made().0), [row("/usr/bin/x", b"#!x")]);
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
    for (pack, name) in [(gzip as Pack, "gzip"), (zstd, "zstd"), (chunked, "chunked"), (plain, "plain")] {
        let packed = pack(&good);
        // Also of what is skipped.
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

/// A layer of one program with an extended header.
fn extended(records: &[(&str, Vec<u8>)], content: &[u8]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    let records = records.iter().map(|(key, value)| (*key, value.as_slice()));
    builder.append_pax_extensions(records).expect("into memory");
    let mut header = Header::new_ustar();
    header.set_path("short").expect("a path");
    header.set_mode(0o755);
    header.set_size(content.len() as u64);
    header.set_cksum();
    builder.append(&header, content).expect("into memory");
    builder.into_inner().expect("into memory")
}

/// The header of an entry that claims a size.
fn claims(kind: EntryType, size: u64) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.set_path("././@LongLink").expect("a path");
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn headers_that_would_fill_the_memory() {
    let first = layer(&[File("usr/bin/first", b"#!x", 0o755)]);
    let first = &first[..first.len() - 1024];
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let bomb = [first, &claims(kind, 1 << 40), &vec![0; 8 << 20]].concat();
        let mut layout = Layout::new();
        layout.image("linux/amd64", &[(bomb.clone(), gzip)]);
        let error = layout.refused();
        let expected = "after entry \"usr/bin/first\": the headers of an entry have more than 1048576 bytes";
        assert!(error.contains("layer sha256:") && error.contains(expected), "{kind:?}: {error}");
        let archive = layout.path().join("archive.tar");
        fs::write(&archive, &bomb).expect("written");
        let error = made(&archive, "linux/amd64").expect_err("no archive");
        assert!(
            error.contains("archive.tar") && error.contains("more than 1048576 bytes"),
            "{kind:?}: {error}"
        );
    }
    // As they are in images: a capability and a long name, and much content after them.
    let records = [("SCHILY.xattr.user.large", vec![b'x'; 60_000]), ("path", b"usr/lib/".repeat(100))];
    let content = [b"#!".as_slice(), &[b'x'; 3 << 20]].concat();
    let mut layout = Layout::new();
    layout.image("linux/amd64", &[(extended(&records, &content), gzip)]);
    let path = format!("/{}", "usr/lib/".repeat(100).trim_end_matches('/'));
    assert_eq!(listed(&layout.made().0), [row(&path, &content)]);
}

#[test]
fn files_whose_content_cannot_be_told_are_counted() {
    let sparse = |name: &str, size: u64| {
        let mut header = Header::new_gnu();
        header.set_path(name).expect("a path");
        header.set_entry_type(EntryType::GNUSparse);
        header.set_mode(0o755);
        header.set_size(512);
        let gnu = header.as_gnu_mut().expect("made so");
        gnu.set_real_size(size);
        gnu.sparse[0].set_offset(size - 512);
        gnu.sparse[0].set_length(512);
        header.set_cksum();
        [header.as_bytes().as_slice(), &[b'#'; 512]].concat()
    };
    let first = layer(&[File("usr/bin/first", b"#!x", 0o755)]);
    let last = layer(&[File("usr/bin/last", b"#!y", 0o755)]);
    let (huge, small) = (sparse("usr/bin/huge", 1 << 60), sparse("usr/bin/small", 4096));
    let posix = [("GNU.sparse.major", b"1".to_vec()), ("GNU.sparse.name", b"usr/bin/posix".to_vec())];
    let posix = extended(&posix, b"#!map");
    let broken = extended(&[("SCHILY.xattr.user.x", b"a\n22 path=usr/bin/other\n".to_vec())], b"#!z");
    let cut = |layer: &[u8]| layer[..layer.len() - 1024].to_vec();
    let lower = [cut(&first), huge, small, cut(&posix), cut(&broken), last].concat();
    let mut layout = Layout::new();
    layout.image("linux/amd64", &[(lower.clone(), gzip)]);
    let (index, report, _) = layout.made();
    assert_eq!(listed(&index), [row("/usr/bin/first", b"#!x"), row("/usr/bin/last", b"#!y")]);
    let unread: Vec<_> =
        report.unread.iter().map(|(path, why)| (path.to_str().expect("text"), &**why)).collect();
    let why = "a sparse file, which no image needs; its content is not read";
    let line_break = "a value of its extended header has a line break, which is not read";
    assert_eq!(
        unread,
        [
            ("usr/bin/huge", why),
            ("usr/bin/other", line_break),
            ("usr/bin/posix", why),
            ("usr/bin/small", why)
        ]
    );
    assert_ne!(index.coverage(), crate::finding::Coverage::Full, "it does not claim to be complete");
    // An upper layer has others in their place.
    let upper = layer(&[
        File("usr/bin/huge", b"#!huge", 0o755),
        File("usr/bin/.wh.posix", b"", 0o644),
        File("usr/bin/.wh.other", b"", 0o644),
        File("usr/bin/.wh.small", b"", 0o644),
    ]);
    let mut layout = Layout::new();
    layout.image("linux/amd64", &[(lower, gzip), (upper, gzip)]);
    let (index, report, _) = layout.made();
    assert_eq!((index.len(), report.unread), (3, Vec::new()));
}

#[test]
fn names_that_json_cannot_hold_are_counted() {
    let name = [("path", b"usr/bin/\xff".to_vec())];
    let mut layout = Layout::new();
    layout.image("linux/amd64", &[(extended(&name, b"#!x"), gzip)]);
    let (index, report, _) = layout.made();
    assert_eq!((index.len(), report.unread.len()), (0, 1));
    assert_ne!(index.coverage(), crate::finding::Coverage::Full);
}

#[test]
fn hard_links_share_what_is_kept() {
    let list = [b'x'; 100_000];
    let names: Vec<_> = (0..200).map(|number| format!("var/lib/dpkg/info/p{number}.list")).collect();
    let mut entries = vec![File("var/lib/dpkg/info/p.list", &list, 0o644)];
    entries.extend(names.iter().map(|name| Hard(name, "var/lib/dpkg/info/p.list")));
    let lower = layer(&entries);
    let mut tree = Tree::new(false, ImageLimits { kept: 150_000, ..ImageLimits::default() });
    let put = |tree: &mut Tree, layer: &[u8], number| {
        tree.put(&mut &*layer, &Sha256::default(), number, &Progress::default()).map_err(|e| e.to_string())
    };
    put(&mut tree, &lower, 0).expect("below the limit");
    let first = tree.kept("var/lib/dpkg/info/p.list").expect("kept");
    for name in &names {
        assert!(std::ptr::eq(tree.kept(name).expect("kept"), first), "{name}");
    }
    // What is replaced counts no more, but while a link to it is there.
    let again = layer(&entries[..1]);
    let error = put(&mut tree, &again, 1).expect_err("two of them");
    let expected =
        "entry \"var/lib/dpkg/info/p.list\": with it, the package database has more than 150000 bytes";
    assert!(error.contains("layer sha256:") && error.contains(expected), "{error}");
    put(&mut tree, &layer(&[File("var/lib/dpkg/.wh.info", b"", 0o644)]), 2).expect("a whiteout");
    put(&mut tree, &again, 3).expect("there is room again");
}

#[test]
fn limits_name_the_layer_and_the_limit() {
    let one = layer(&[File("usr/bin/one", &[b'#'; 3000], 0o755), File("usr/bin/two", b"#!two", 0o755)]);
    let deep = "d/".repeat(30) + "x";
    let steps = layer(&[File(&deep, b"", 0o755), File(&deep, b"", 0o755), File(&deep, b"", 0o755)]);
    let none = ImageLimits::default();
    for (what, layers, limits, expected) in [
        ("bytes of one", vec![&one], ImageLimits { bytes: 2000, ..none }, "entry \"usr/bin/one\""),
        ("bytes of both", vec![&one, &one], ImageLimits { bytes: 9000, ..none }, "more than 9000 bytes"),
        (
            "entries",
            vec![&one],
            ImageLimits { entries: 1, ..none },
            "more than 1 files, directories and links",
        ),
        ("names", vec![&one], ImageLimits { names: 20, ..none }, "have more than 20 bytes"),
        ("steps", vec![&steps], ImageLimits { steps: 70, ..none }, "more than 70 steps"),
    ] {
        let slices = layers.iter().map(|layer| layer.as_slice());
        let error = files_of_layers(slices, limits).expect_err(what).to_string();
        assert!(error.contains("layer sha256:0000"), "{what}: {error}");
        assert!(
            error.contains(expected) || what == "bytes of one" && error.contains("2000 bytes"),
            "{what}: {error}"
        );
    }
    files_of_layers([one.as_slice(), &one], ImageLimits { bytes: 20_000, entries: 2, names: 24, ..none })
        .expect("within");
}

/// Without a time of making the image's own counts, so that the document of an image is the same whenever it is made.
#[test]
fn an_image_says_when_it_was_made() {
    let in_2023 = "2023-11-14T22:13:20Z";
    for (stated, given, expected) in [
        (Some("2023-11-14T23:13:20.123456789+01:00"), None, Some(in_2023)),
        (Some("0001-01-01T00:00:00Z"), None, Some("0001-01-01T00:00:00Z")),
        (Some(in_2023), Some(std::time::SystemTime::UNIX_EPOCH), Some("1970-01-01T00:00:00Z")),
        (Some("yesterday"), None, None),
    ] {
        let mut layout = Layout::new();
        layout.created = stated;
        layout.image("linux/amd64", &[(layer(&[File("a", b"#!a", 0o755)]), gzip)]);
        for (output, pointer) in
            [(Output::Spdx, "/creationInfo/created"), (Output::CycloneDx, "/metadata/timestamp")]
        {
            let options = Options { created: given, output, ..options(layout.path(), "linux/amd64") };
            let mut out = Vec::new();
            let made = generate(&options, None, &Progress::default(), &mut out).map(|_| ());
            let Some(expected) = expected else {
                let error = made.expect_err("no time").to_string();
                assert!(error.contains("configuration sha256:") && error.contains("yesterday"), "{error}");
                continue;
            };
            made.expect("made");
            let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
            assert_eq!(value.pointer(pointer).and_then(|time| time.as_str()), Some(expected), "{stated:?}");
            parse(&out, &Limits::default()).expect("what is made can be read");
        }
    }
}

#[test]
fn excluded_directories_of_an_image() {
    let mut layout = Layout::new();
    let files = layer(&[
        File("opt/app/main", b"#!main", 0o755),
        File("opt/application", b"#!other", 0o755),
        Directory("srv/"),
        Link("app", "opt/app"),
    ]);
    layout.image("linux/amd64", &[(files, gzip)]);
    let options = options(layout.path(), "linux/amd64");
    let exclude = ["/opt/app/", "/srv", "/app", "/typo"].map(Into::into).to_vec();
    let mut out = Vec::new();
    let options = Options { exclude, ..options };
    let report = generate(&options, None, &Progress::default(), &mut out).expect("made");
    let index = parse(&out, &Limits::default()).expect("what is made can be read");
    assert_eq!(listed(&index), [row("/opt/application", b"#!other")]);
    let left_out: Vec<_> =
        report.left_out.iter().map(|(p, why)| (p.to_str().expect("text"), &**why)).collect();
    let not_met = "excluded, but no such directory was met";
    assert_eq!(left_out, [("app", not_met), ("opt/app", "excluded"), ("srv", "excluded"), ("typo", not_met)]);
    let options = Options { exclude: vec!["opt".into()], ..options };
    let error = generate(&options, None, &Progress::default(), &mut Vec::new()).expect_err("not absolute");
    assert!(error.to_string().contains("cannot exclude"), "{error}");
}

#[test]
fn what_is_no_archive_is_said_once_and_not_quoted_at_length() {
    let place = tempfile::tempdir().expect("a directory");
    for content in ["root:x:0:0:\u{1b}[31m\n".repeat(100), "x".repeat(4096), "\u{7f}ELF".repeat(512)] {
        let file = place.path().join("archive");
        fs::write(&file, &content).expect("a file");
        let error = Store::open(&file).err().expect("it is none");
        let text = format!("{:#}", anyhow::Error::from(GenerateError::from(error)));
        let name = file.to_str().expect("text");
        let reason = text.strip_prefix(name).expect("it names the file");
        assert!(reason.starts_with(": expected an archive (tar) of an OCI image layout: "), "{text}");
        assert!(reason.chars().count() < 300 && !reason.contains(char::is_control), "{text}");
    }
}

#[test]
fn what_is_no_image_is_passed_over() {
    const OCI: &str = "application/vnd.oci.image.config.v1+json";
    let mut layout = Layout::new();
    layout.image("linux/amd64", &[(layer(&[File("main", b"#!amd", 0o755)]), gzip)]);
    let ids = json!({ "type": "layers", "diff_ids": [] });
    let unknown = json!({ "os": "unknown", "architecture": "unknown", "rootfs": ids });
    let nothing = json!({ "os": "", "architecture": "", "rootfs": ids });
    // BuildKit's attestations, those of cosign and its signatures, an artifact of oras, a chart of helm.
    layout.manifest((OCI, &unknown), "application/vnd.in-toto+json");
    layout.manifest((OCI, &unknown), "");
    layout.manifest((OCI, &nothing), "application/vnd.dsse.envelope.v1+json");
    layout.manifest((OCI, &nothing), "application/vnd.dev.cosign.simplesigning.v1+json");
    layout.manifest(("application/vnd.oci.empty.v1+json", &json!({})), "application/spdx+json");
    layout.manifest(
        ("application/vnd.cncf.helm.config.v1+json", &json!({})),
        "application/vnd.oci.image.layer.v1.tar",
    );
    assert_eq!(listed(&layout.made().0), [row("/main", b"#!amd")]);
    layout.manifests.remove(0);
    layout.index();
    assert!(layout.refused().contains("no image at all"), "{}", layout.refused());
}

/// BuildKit writes `null` for the layers of an image from scratch that has none.
#[test]
fn an_image_from_scratch_without_layers() {
    let mut layout = Layout::new();
    let config =
        json!({ "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": null } });
    let config = layout.blob(config.to_string().as_bytes());
    let manifest = json!({ "schemaVersion": 2, "config": { "digest": config, "size": 0 }, "layers": null });
    let digest = layout.blob(manifest.to_string().as_bytes());
    layout.manifests.push(json!({ "mediaType": MANIFEST, "digest": digest, "size": 0 }));
    layout.index();
    let mut out = Vec::new();
    let options = options(layout.path(), "linux/amd64");
    let report = generate(&options, None, &Progress::default(), &mut out).expect("made");
    assert_eq!(report, Report::default());
    assert!(parse(&out, &Limits::default()).expect("what is made can be read").is_empty());
}

#[test]
fn layouts_with_some_of_their_images() {
    let mut layout = Layout::new();
    layout.image("linux/amd64", &[(layer(&[File("main", b"#!amd", 0o755)]), gzip)]);
    let absent = |platform: &str, digit: &str| {
        let (os, architecture) = platform.split_once('/').expect("OS/ARCH");
        json!({ "mediaType": MANIFEST, "digest": format!("sha256:{}", digit.repeat(64)),
            "platform": { "os": os, "architecture": architecture } })
    };
    let there = layout.manifests[0].clone();
    let index = json!({ "mediaType": "application/vnd.oci.image.index.v1+json", "digest": format!("sha256:{}", "3".repeat(64)) });
    for manifests in [
        vec![there.clone(), absent("linux/arm64", "1"), absent("linux/s390x", "2"), index.clone()],
        vec![absent("linux/arm64", "1"), index, there.clone()],
    ] {
        layout.manifests = manifests;
        layout.index();
        assert_eq!(listed(&layout.made().0), [row("/main", b"#!amd")]);
        let error = made(layout.path(), "linux/arm64").expect_err("it is not there");
        assert!(error.contains(&format!("blobs/sha256/{}: cannot be read", "1".repeat(64))), "{error}");
        let error = made(layout.path(), "linux/riscv64").expect_err("none of this name");
        assert!(error.contains("no image for linux/riscv64; expected one of: linux/amd64; "), "{error}");
    }
    // It is there, but damaged: that is no reason to take another.
    layout.manifests = vec![there, absent("linux/arm64", "1")];
    layout.index();
    fs::write(layout.path().join(format!("blobs/sha256/{}", "1".repeat(64))), "{}").expect("written");
    assert!(layout.refused().contains("has SHA-256"), "{}", layout.refused());
    // A configuration that is not there.
    let manifest = json!({ "config": { "digest": format!("sha256:{}", "4".repeat(64)) }, "layers": [] });
    layout.manifests =
        vec![json!({ "mediaType": MANIFEST, "digest": layout.blob(manifest.to_string().as_bytes()) })];
    layout.index();
    assert!(layout.refused().contains(&format!("blobs/sha256/{}: cannot be read", "4".repeat(64))));
}

#[test]
fn a_pipe_in_a_layout_stops_nothing() {
    let mut layout = Layout::new();
    layout.image("linux/amd64", &[(layer(&[File("main", b"#!amd", 0o755)]), gzip)]);
    let index = layout.path().join("index.json");
    fs::remove_file(&index).expect("removed");
    nix::unistd::mkfifo(&index, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    assert!(layout.refused().contains("expected a regular file"), "{}", layout.refused());
}
