//! What holds for every image, found by trying many.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// A change that a layer makes. No file has the name of a directory.
#[derive(Clone, Debug)]
enum Change {
    File { path: String, content: Vec<u8> },
    Hide(String),
    HideAllIn(String),
}

const DIRECTORIES: [&str; 5] = ["usr/bin", "usr/lib", "usr", "opt/app", "opt/app/deep"];
const FILES: [&str; 4] = ["one", "two.so", "ö \"x\"\\", "a line\nbreak"];

fn path() -> impl Strategy<Value = String> {
    let parts = (proptest::sample::select(&DIRECTORIES[..]), proptest::sample::select(&FILES[..]));
    parts.prop_map(|(directory, file)| format!("{directory}/{file}"))
}

fn change() -> impl Strategy<Value = Change> {
    let directory = proptest::sample::select(&DIRECTORIES[..]).prop_map(str::to_owned);
    prop_oneof![
        6 => (path(), "[a-c]{0,2}").prop_map(|(path, content)| Change::File { path, content: format!("#!{content}").into() }),
        1 => path().prop_map(Change::Hide),
        1 => directory.clone().prop_map(Change::Hide),
        1 => directory.prop_map(Change::HideAllIn),
    ]
}

/// The layer in an archive.
fn archived(changes: &[Change]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for change in changes {
        let (path, content) = match change {
            Change::File { path, content } => (path.clone(), content.as_slice()),
            Change::Hide(path) => {
                let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
                (format!("{above}/.wh.{name}").trim_start_matches('/').to_owned(), b"".as_slice())
            }
            Change::HideAllIn(directory) => (format!("{directory}/.wh..wh..opq"), b"".as_slice()),
        };
        let mut header = Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, content).expect("into memory");
    }
    builder.into_inner().expect("into memory")
}

/// What a container sees: first all that a layer hides, then what it brings.
fn model(layers: &[Vec<Change>]) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for layer in layers {
        for change in layer {
            let (Change::Hide(gone) | Change::HideAllIn(gone)) = change else { continue };
            files.retain(|path, _| path != gone && !path.starts_with(&format!("{gone}/")));
        }
        for change in layer {
            if let Change::File { path, content } = change {
                files.insert(path.clone(), content.clone());
            }
        }
    }
    files
}

/// Packages with the files that they own; names are made different.
type Packages = Vec<(String, String, Vec<String>)>;

fn packages() -> impl Strategy<Value = Packages> {
    let one = ("[a-z]{1,5}", "[0-9]:?[0-9.+~]{0,4}[0-9]", proptest::collection::vec(path(), 0..4));
    proptest::collection::vec(one, 0..4).prop_map(|packages| {
        let numbered = packages.into_iter().enumerate();
        numbered.map(|(number, (name, version, files))| (format!("{name}{number}"), version, files)).collect()
    })
}

/// The package database of dpkg, as a layer.
fn database(packages: &Packages) -> Vec<u8> {
    let paragraph = |(name, version, _): &(String, String, Vec<String>)| {
        format!("Package: {name}\nStatus: install ok installed\nVersion: {version}\nArchitecture: amd64\n\n")
    };
    let status: String = packages.iter().map(paragraph).collect();
    let lists: Vec<_> = packages
        .iter()
        .map(|(name, _, files)| {
            let lines: String = files.iter().map(|path| format!("/{path}\n")).collect();
            (format!("var/lib/dpkg/info/{name}.list"), lines)
        })
        .collect();
    let mut entries = vec![File("var/lib/dpkg/status", status.as_bytes(), 0o644)];
    entries.extend(lists.iter().map(|(path, lines)| File(path, lines.as_bytes(), 0o644)));
    layer(&entries)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_generated_is_read(
        layers in proptest::collection::vec(proptest::collection::vec(change(), 0..10), 1..4),
        packages in packages(),
        pack in proptest::sample::select(&[gzip as Pack, zstd, chunked, plain][..]),
    ) {
        let files = model(&layers);
        let mut archives = vec![database(&packages)];
        archives.extend(layers.iter().map(|changes| archived(changes)));
        let mut layout = Layout::new();
        let packed: Vec<_> = archives.iter().map(|archive| (archive.clone(), pack)).collect();
        layout.image("linux/amd64", &packed);
        for output in [Output::Spdx, Output::CycloneDx] {
            let options = Options { output, ..options(layout.path(), "linux/amd64") };
            let make = || {
                let mut out = Vec::new();
                generate(&options, None, &Progress::default(), &mut out).map(|report| (out, report))
            };
            let (document, report) = make().map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(&make().expect("as before").0, &document, "the same image gives the same bytes");
            let index = parse(&document, &Limits::default()).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!((report.files, report.unread.len()), (files.len(), 0));
            prop_assert_eq!(index.len(), files.len());
            // A list ends a name at a line break; what follows is no absolute path, and the rest does not count.
            let owner = |path: &str| packages.iter().find(|(.., files)| {
                let list: String = files.iter().map(|file| format!("/{file}\n")).collect();
                list.lines().take_while(|line| line.starts_with('/')).any(|line| line[1..] == *path)
            });
            for (path, content) in &files {
                let Some(entry) = index.by_path(format!("/{path}").as_bytes()) else {
                    return Err(TestCaseError::fail(format!("{path:?} is not listed")));
                };
                prop_assert_eq!(entry.sha256(), Some(sha256(content)), "{:?}", path);
                let owner = owner(path).map(|(name, version, _)| format!("{name} {version}"));
                prop_assert_eq!(entry.package(), owner.as_deref(), "{:?}", path);
            }
            let found: BTreeSet<_> = index.packages().filter(|p| p.purl.is_some()).map(|p| (p.name, p.version)).collect();
            let written: BTreeSet<_> = packages.iter().map(|(name, version, _)| (&**name, &**version)).collect();
            prop_assert_eq!(found, written);
            prop_assert!(index.numbers().complete);
            // Each once: an image may have a layer twice.
            let mut diff_ids: Vec<_> = Vec::new();
            for id in archives.iter().map(|archive| sha256(archive)) {
                if !diff_ids.contains(&id) {
                    diff_ids.push(id);
                }
            }
            prop_assert_eq!(&index.origin().layers, &diff_ids);
            prop_assert!(index.origin().config.is_some());
        }
    }
}

/// No byte of a layer that is another one stops the reader, or gives what no container could see.
#[test]
fn every_changed_byte_is_survived() {
    let good = layer(&[
        Directory("usr/"),
        File("usr/bin/one", b"#!one", 0o755),
        Link("bin", "usr/bin"),
        Hard("usr/bin/two", "bin/one"),
        File("opt/.wh.gone", b"", 0o644),
    ]);
    let long = extended(&[("path", b"usr/lib/".repeat(40))], b"#!long");
    let limits = ImageLimits { bytes: 1 << 20, entries: 100, names: 10_000, kept: 1000, steps: 10_000 };
    let (mut taken, mut refused) = (0, 0);
    for (content, pack) in [(&good, plain as Pack), (&long, plain), (&good, gzip), (&good, chunked)] {
        let packed = pack(content);
        for at in 0..packed.len() {
            for mask in [0x01, 0x10, 0x80] {
                let mut changed = packed.clone();
                changed[at] ^= mask;
                match files_of_layers([changed.as_slice(), &packed], limits) {
                    Ok(files) => {
                        taken += 1;
                        let is_canonical = |path: &[u8]| crate::sbom::canonical(path).as_deref() == Ok(path);
                        assert!(files.iter().all(|(path, _)| is_canonical(path)), "{at} {mask}");
                    }
                    Err(_) => refused += 1,
                }
            }
        }
    }
    assert!(taken > 100 && refused > 100, "{taken} taken, {refused} refused");
}
