//! Completing what syft says of an image.

use super::*;

fn base(name: &str) -> ImageIndex {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/sbom").join(name);
    let bytes = fs::read(&file).unwrap_or_else(|error| {
        panic!("test data {} is needed beside the checkout: {error}", file.display())
    });
    parse(&bytes, &Limits::default()).expect("a real document")
}

#[test]
fn what_syft_lists_and_the_program_that_a_dockerfile_copied_in() {
    let mut layout = Layout::new();
    let lower = layer(&[
        Directory("usr/bin/"),
        Link("bin", "usr/bin"),
        // Not listed, and cannot run: it stays out, although all files are looked at for the base's sake.
        File("etc/unlisted", b"data", 0o644),
    ]);
    let upper = layer(&[File("usr/local/bin/main", b"\x7fELFmain", 0o755)]);
    layout.image("linux/amd64", &[(lower.clone(), gzip), (upper.clone(), zstd)]);
    for (name, files) in [("web.syft.json", 6069), ("web.spdx.json", 6067), ("web.cdx.json", 0)] {
        let base = base(name);
        assert_eq!(base.len(), files, "{name}");
        for output in [Output::Spdx, Output::CycloneDx] {
            let options = Options { output, ..options(layout.path(), "linux/amd64") };
            let mut out = Vec::new();
            let report = generate(&options, Some(&base), &Progress::default(), &mut out).expect(name);
            let index = parse(&out, &Limits::default()).expect("what is made can be read");
            // Of what syft has a digest of, nothing is there.
            let has_digest =
                |entry: &crate::sbom::Entry<'_>| entry.sha256().is_some() || entry.weak().is_some();
            let gone = base.entries().filter(has_digest).count();
            assert_eq!(report.gone.len(), gone, "{name} {output:?}");
            let kept = files + 1 - gone;
            assert_eq!((report.files, index.len()), (kept, kept), "{name} {output:?}");
            assert_eq!(report.packages, base.packages().count(), "{name} {output:?}");
            let main = index.by_path(b"/usr/local/bin/main").expect("the program");
            assert_eq!((main.sha256(), main.package()), (Some(sha256(b"\x7fELFmain")), None));
            for entry in base.entries() {
                let path = entry.path();
                let found = index.by_path(path.as_bytes()).map(|found| (found.sha256(), found.package()));
                let expected = (!has_digest(&entry)).then(|| (None, entry.package()));
                assert_eq!(found, expected, "{name} {path}");
            }
            for package in base.packages() {
                let same = |p: &crate::sbom::Package<'_>| {
                    p.name == package.name && p.version == package.version && p.purl == package.purl
                };
                assert!(index.packages().any(|found| same(&found)), "{name} {output:?}: {package:?}");
            }
            // It is of the image that was read.
            assert_eq!(index.origin().layers, [sha256(&lower), sha256(&upper)], "{name} {output:?}");
            assert_eq!(index.coverage(), crate::finding::Coverage::Full, "{name} {output:?}");
        }
    }
}

#[test]
fn another_image_than_syft_saw() {
    let mut layout = Layout::new();
    // A file that cannot run is compared, too; `bin` is a link, as in the image that syft saw.
    let files = [
        Link("bin", "usr/bin"),
        File("etc/adduser.conf", b"another", 0o644),
        File("bin/bash", b"\x7fELFx", 0o755),
    ];
    layout.image("linux/amd64", &[(layer(&files), gzip)]);
    for name in ["web.syft.json", "web.spdx.json"] {
        let options = options(layout.path(), "linux/amd64");
        let mut out = Vec::new();
        let error = generate(&options, Some(&base(name)), &Progress::default(), &mut out)
            .expect_err(name)
            .to_string();
        for part in ["another digest for 2 file(s)", "/etc/adduser.conf", "/usr/bin/bash"] {
            assert!(error.contains(part), "{name}: {error}");
        }
        assert!(out.is_empty(), "{name}: nothing is made");
    }
}
