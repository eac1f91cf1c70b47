//! What holds for every document, found by trying many.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::write::{Content, Listed, Part, WRITERS};
use super::*;
use crate::event::FilePath;

fn hex(length: usize) -> impl Strategy<Value = String> {
    // Few contents, so that files share them; the first is the unknown one.
    (0..6_u8).prop_map(move |byte| format!("{byte:02x}").repeat(length))
}

fn path() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("bin"),
        Just("usr"),
        Just("lib64"),
        Just("a"),
        Just("b.so"),
        Just("ö \"x\"\\"),
        Just("...")
    ];
    proptest::collection::vec(name, 1..4).prop_map(|names| format!("/{}", names.join("/")))
}

prop_compose! {
    fn content()(
        packages in proptest::collection::vec(("[a-z]{1,6}", "[0-9.]{1,4}", proptest::option::of("pkg:deb/[a-z]{1,6}@[0-9]{1,3}")), 0..4),
        files in proptest::collection::btree_map(path(), (proptest::option::of(hex(32)), proptest::option::of(hex(20)), 0..8_usize), 0..12),
        layer in "[1-9a-f]{64}",
        complete in any::<bool>(),
    ) -> Content {
        let count = packages.len();
        let packages = packages.into_iter().map(|(name, version, purl)| Part { name, version, purl }).collect();
        let files = files.into_iter().map(|(path, (sha256, sha1, owner))| {
            Listed { path, sha256, sha1, owner: (owner < count).then_some(owner) }
        });
        Content { packages, files: files.collect(), layer, complete }
    }
}

/// What the index must say of each path: SHA-256, SHA-1, owner.
type Model = BTreeMap<String, (Option<String>, Option<String>, Option<usize>)>;

fn known(digest: Option<&String>) -> Option<String> {
    digest.filter(|digest| digest.bytes().any(|b| b != b'0')).cloned()
}

fn is_top(path: &str) -> bool {
    ["bin", "sbin", "lib", "lib32", "lib64", "libx32"].iter().any(|top| {
        path.strip_prefix('/').and_then(|p| p.strip_prefix(top)).is_some_and(|rest| rest.starts_with('/'))
    })
}

/// The index without cleverness, and whether `/bin` is a link in it.
fn model(content: &Content) -> (Model, bool) {
    let row = |file: &Listed| {
        let sha256 = known(file.sha256.as_ref());
        let sha1 = known(file.sha1.as_ref()).filter(|_| sha256.is_none());
        (sha256, sha1, file.owner)
    };
    let mut model: Model = content.files.iter().map(|file| (file.path.clone(), row(file))).collect();
    let agree = |a: &Option<String>, b: &Option<String>| a.is_none() || b.is_none() || a == b;
    let digests_of = |path: &str| {
        content
            .files
            .iter()
            .find(|f| f.path == path)
            .map(|f| (known(f.sha256.as_ref()), known(f.sha1.as_ref())))
    };
    let is_link = content.files.iter().filter(|f| is_top(&f.path)).all(|file| {
        let (sha256, sha1) = digests_of(&file.path).expect("it is listed");
        if sha256.is_none() && sha1.is_none() {
            return true;
        }
        digests_of(&format!("/usr{}", file.path)).is_some_and(|(other256, other1)| {
            agree(&sha256, &other256) && ((sha256.is_some() || other256.is_some()) || agree(&sha1, &other1))
        })
    });
    if is_link {
        for path in model.keys().filter(|path| is_top(path)).cloned().collect::<Vec<_>>() {
            let (sha256, sha1, owner) = model.remove(&path).expect("its key");
            let merged = model.entry(format!("/usr{path}")).or_insert((None, None, None));
            merged.0 = sha256.or(merged.0.take());
            merged.1 = sha1.or(merged.1.take()).filter(|_| merged.0.is_none());
            merged.2 = merged.2.or(owner);
        }
    }
    (model, is_link)
}

/// Other ways to write a path.
fn spellings(path: &str) -> [String; 5] {
    let relative = path.trim_start_matches('/');
    [
        path.to_owned(),
        relative.to_owned(),
        format!("./{relative}"),
        path.replace('/', "//"),
        format!("{}/.", path.replace('/', "/./")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read(content in content()) {
        let (model, _) = model(&content);
        for (format, write) in WRITERS {
            let text = write(&content);
            let index = parse(text.as_bytes(), &Limits::default()).map_err(|e| TestCaseError::fail(format!("{format}: {e}\n{text}")))?;
            prop_assert_eq!(index.formats()[0].as_str(), format);
            prop_assert_eq!(index.len(), model.len(), "{}", format);
            for (path, (sha256, sha1, owner)) in &model {
                let Some(entry) = index.by_path(path.as_bytes()) else {
                    return Err(TestCaseError::fail(format!("{format}: {path:?} is not in {text}")));
                };
                prop_assert_eq!(&entry.path().to_string(), &FilePath::from(path.as_str()).to_string());
                prop_assert_eq!(&entry.sha256().map(|s| s.to_string()), sha256, "{} {}", format, path);
                let weak = entry.weak().and_then(|w| w.sha1).map(|s| s.iter().map(|b| format!("{b:02x}")).collect::<String>());
                prop_assert_eq!(&weak, sha1, "{} {}", format, path);
                prop_assert_eq!(entry.package().is_some(), owner.is_some(), "{} {}", format, path);
                for spelling in spellings(path) {
                    prop_assert_eq!(index.by_path(spelling.as_bytes()).map(Entry::id), Some(entry.id()), "{}", spelling);
                }
            }
            let packages: Vec<_> = index.packages().map(|p| (p.name, p.version, p.purl)).collect();
            let written: Vec<_> = content.packages.iter().map(|p| (&*p.name, &*p.version, p.purl.as_deref())).collect();
            prop_assert_eq!(packages, written, "{}", format);
            let numbers = index.numbers();
            let with_sha256 = model.values().filter(|row| row.0.is_some()).count() as u64;
            prop_assert_eq!((numbers.with_sha256, numbers.complete), (with_sha256, content.complete), "{}", format);
            prop_assert_eq!(index.origin().architecture.as_deref(), Some("amd64"), "{}", format);
            prop_assert_eq!(index.tool(), Some("writer-1"), "{}", format);
        }
    }

    #[test]
    fn look_ups_find_what_is_there_and_nothing_else(content in content(), paths in proptest::collection::vec(path(), 0..8)) {
        let (model, is_link) = model(&content);
        let index = parse(WRITERS[0].1(&content).as_bytes(), &Limits::default()).expect("written right");
        for path in &paths {
            let merged = format!("/usr{path}");
            let expected = model.contains_key(path) || is_link && is_top(path) && model.contains_key(&merged);
            prop_assert_eq!(index.by_path(path.as_bytes()).is_some(), expected, "{}", path);
            let climbing = format!("{path}/..");
            prop_assert!(index.by_path(climbing.as_bytes()).is_none());
        }
        for byte in 0..8_u8 {
            let wanted = Sha256([byte; 32]);
            let mut found: Vec<_> = index.by_sha256(&wanted).map(|e| e.path().to_string()).collect();
            found.sort_unstable();
            let text = wanted.to_string();
            let naive: Vec<_> = index.entries().filter(|e| e.sha256().is_some_and(|s| s.to_string() == text)).map(|e| e.path().to_string()).collect();
            let mut naive = naive;
            naive.sort_unstable();
            prop_assert_eq!(&found, &naive);
            let count = model.values().filter(|row| row.0.as_deref() == Some(&*text)).count();
            prop_assert_eq!(found.len(), count);
        }
    }

    #[test]
    fn a_union_says_what_its_parts_say(first in content(), second in content()) {
        let read = |content: &Content| parse(WRITERS[3].1(content).as_bytes(), &Limits::default()).expect("written right");
        let (first, second) = (read(&first), read(&second));
        let Ok(both) = ImageIndex::union(&[&first, &second]) else {
            // Only for a path on which they disagree.
            let disagree = |e: Entry<'_>| second.by_path(e.path().as_bytes()).is_some();
            let merged = |e: Entry<'_>| is_top(&e.path().to_string());
            prop_assert!(first.entries().any(disagree) || first.entries().chain(second.entries()).any(merged));
            return Ok(());
        };
        for entry in first.entries().chain(second.entries()) {
            let found = both.by_path(entry.path().as_bytes());
            prop_assert!(found.is_some(), "{:?}", entry);
            prop_assert!(entry.sha256().is_none() || found.is_some_and(|f| f.sha256() == entry.sha256()), "{:?}", entry);
        }
        prop_assert_eq!(both.packages().count(), first.packages().count() + second.packages().count());
    }
}
