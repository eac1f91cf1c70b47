use super::*;
use crate::event::{DigestOrigin, FileIdentity, FileOp, Unread};
use crate::sbom;

mod elsewhere;

type Spoil = fn(&mut FileRef);

const A: u8 = 0xaa;
const B: u8 = 0xbb;
const UNKNOWN: u8 = 0x77;

fn hex(byte: u8, len: usize) -> String {
    format!("{byte:02x}").repeat(len)
}

/// `/usr/bin/a`, `/usr/bin/bb` and the empty `/usr/empty` by SHA-256, `/opt/sha1` and `/opt/md5` by no more than that, `/opt/none` without digest.
fn index() -> ImageIndex {
    let file = |name: &str, sums: serde_json::Value| serde_json::json!({ "SPDXID": format!("SPDXRef-{}", name.replace('/', "-")), "fileName": name, "checksums": sums });
    let sum = |algorithm: &str, value: String| serde_json::json!([{ "algorithm": algorithm, "checksumValue": value }]);
    let document = serde_json::json!({
        "spdxVersion": "SPDX-2.3",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": "test",
        "creationInfo": { "created": "2026-01-01T00:00:00Z", "creators": ["Tool: test"] },
        "packages": [],
        "files": [
            file("/usr/bin/a", sum("SHA256", hex(A, 32))),
            file("usr/bin/bb", sum("SHA256", hex(B, 32))),
            file("/opt/sha1", sum("SHA1", hex(A, 20))),
            file("/opt/md5", sum("MD5", hex(A, 16))),
            file("/opt/none", serde_json::json!([])),
            file("/usr/empty", sum("SHA256", Sha256::EMPTY.to_string())),
        ],
        "relationships": [],
    });
    sbom::parse(document.to_string().as_bytes(), &sbom::Limits::default()).expect("a good document")
}

fn at(path: &str) -> FileRef {
    FileRef { path: path.into(), mode: 0o100_755, ..FileRef::default() }
}

fn holds(byte: u8) -> Content {
    Content::Known { sha256: Sha256([byte; 32]), origin: DigestOrigin::Agent, weak: None, doubt: None }
}

fn holds_weak(byte: u8, weak: u8) -> Content {
    let weak = Arc::new(WeakDigests { sha1: [weak; 20], md5: [weak; 16] });
    Content::Known { sha256: Sha256([byte; 32]), origin: DigestOrigin::Agent, weak: Some(weak), doubt: None }
}

/// Of an empty file.
fn nothing() -> Content {
    Content::Known { sha256: Sha256::EMPTY, origin: DigestOrigin::Agent, weak: None, doubt: None }
}

fn unread() -> Content {
    Content::Undetermined(Unread::Gone)
}

fn seen(action: Action, file: FileRef, content: Content) -> Observation {
    Observation { action, file, content, fresh: false, root: false, on_host: true, owner: None, update: None }
}

fn fresh(observation: Observation) -> Observation {
    Observation { fresh: true, ..observation }
}

fn contained(observation: Observation) -> Observation {
    Observation { on_host: false, ..observation }
}

fn root(observation: Observation) -> Observation {
    Observation { root: true, ..observation }
}

#[test]
fn each_row_and_each_precedence() {
    use Action::{Change, Connect, Exec, Library};
    use Severity::{Critical, High, Info, Low, Medium};
    use Verdict::{
        Attested, AttestedWeak, Modified, PathOnly, Relocated, Unauthorized, Undetermined, Unlisted,
    };
    // Of a document that does not claim to be complete: coverage `owned`.
    let index = index();
    assert_eq!(index.coverage(), Coverage::Owned);
    let in_place = |place, path| FileRef { place, ..at(path) };
    let table = [
        // Rows.
        ("attested", seen(Exec, at("/usr/bin/a"), holds(A)), Attested, Info),
        ("another spelling of the SBOM's path", seen(Exec, at("/usr/bin/bb"), holds(B)), Attested, Info),
        ("not read", seen(Exec, at("/home/x"), unread()), Undetermined, Medium),
        ("modified", seen(Exec, at("/usr/bin/a"), holds(UNKNOWN)), Modified, High),
        ("weak: SHA-1", seen(Exec, at("/opt/sha1"), holds_weak(A, A)), AttestedWeak, Info),
        ("weak: MD5", seen(Exec, at("/opt/md5"), holds_weak(A, A)), AttestedWeak, Info),
        ("weak differs: SHA-1", seen(Exec, at("/opt/sha1"), holds_weak(A, B)), Modified, High),
        ("weak differs: MD5", seen(Exec, at("/opt/md5"), holds_weak(A, B)), Modified, High),
        ("weak wanted, not computed: SHA-1", seen(Exec, at("/opt/sha1"), holds(A)), Undetermined, Medium),
        ("weak wanted, not computed: MD5", seen(Exec, at("/opt/md5"), holds(A)), Undetermined, Medium),
        (
            "weak wanted, not computed: a library",
            seen(Library, at("/opt/md5"), holds(A)),
            Undetermined,
            Medium,
        ),
        ("no digest", seen(Exec, at("/opt/none"), holds(UNKNOWN)), PathOnly, Info),
        ("relocated", seen(Exec, at("/home/a"), holds(A)), Relocated, Low),
        ("relocated to /tmp, which is a name", seen(Exec, at("/tmp/a"), holds(A)), Relocated, Low),
        ("relocated to tmpfs", seen(Exec, in_place(Place::Tmpfs, "/mnt/a"), holds(A)), Relocated, High),
        ("relocated to a memfd", seen(Exec, in_place(Place::Memfd, "/memfd:a"), holds(A)), Relocated, High),
        ("unlisted", seen(Exec, at("/opt/x"), holds(UNKNOWN)), Unlisted, Info),
        ("unlisted, as root", root(seen(Exec, at("/opt/x"), holds(UNKNOWN))), Unlisted, Info),
        ("unauthorized", fresh(seen(Exec, at("/opt/x"), holds(UNKNOWN))), Unauthorized, High),
        ("unauthorized library", fresh(seen(Library, at("/opt/x"), holds(UNKNOWN))), Unauthorized, High),
        (
            "unauthorized on tmpfs",
            fresh(seen(Exec, in_place(Place::Tmpfs, "/mnt/x"), holds(UNKNOWN))),
            Unauthorized,
            Critical,
        ),
        ("unauthorized, root", root(fresh(seen(Exec, at("/opt/x"), holds(UNKNOWN)))), Unauthorized, Critical),
        ("unauthorized connects", fresh(seen(Connect, at("/opt/x"), holds(UNKNOWN))), Unauthorized, Critical),
        // Precedence.
        ("not read, path in the SBOM", seen(Exec, at("/usr/bin/a"), unread()), Undetermined, Medium),
        ("not read, fresh, root", root(fresh(seen(Exec, at("/opt/x"), unread()))), Undetermined, Medium),
        ("attested though fresh", root(fresh(seen(Exec, at("/usr/bin/a"), holds(A)))), Attested, Info),
        ("attested on tmpfs", seen(Exec, in_place(Place::Tmpfs, "/usr/bin/a"), holds(A)), Attested, Info),
        ("the bytes of another file of the SBOM", seen(Exec, at("/usr/bin/a"), holds(B)), Modified, High),
        ("modified though fresh", fresh(seen(Exec, at("/usr/bin/a"), holds(UNKNOWN))), Modified, High),
        ("path before digest elsewhere", seen(Exec, at("/opt/none"), holds(A)), PathOnly, Info),
        ("weak path before digest elsewhere", seen(Exec, at("/opt/sha1"), holds_weak(A, B)), Modified, High),
        ("no digest, fresh", fresh(seen(Exec, at("/opt/none"), holds(UNKNOWN))), Modified, High),
        (
            "no digest, fresh, a library",
            fresh(seen(Library, at("/opt/none"), holds(UNKNOWN))),
            Modified,
            High,
        ),
        (
            "no digest, fresh, attested elsewhere",
            fresh(seen(Exec, at("/opt/none"), holds(A))),
            Modified,
            High,
        ),
        ("no digest, fresh, not read", fresh(seen(Exec, at("/opt/none"), unread())), Undetermined, Medium),
        (
            "no digest, in the upper layer",
            fresh(seen(Exec, in_place(Place::UpperLayer, "/opt/none"), holds(UNKNOWN))),
            Modified,
            High,
        ),
        ("no digest, connects", fresh(seen(Connect, at("/opt/none"), holds(UNKNOWN))), Modified, High),
        (
            "weak wanted, not computed, fresh",
            fresh(seen(Exec, at("/opt/sha1"), holds(A))),
            Undetermined,
            Medium,
        ),
        ("no digest, fresh, empty", fresh(seen(Exec, at("/opt/none"), nothing())), PathOnly, Info),
        ("empty where the SBOM has content", seen(Exec, at("/usr/bin/a"), nothing()), Modified, High),
        ("relocated though fresh", root(fresh(seen(Exec, at("/opt/x"), holds(A)))), Relocated, Low),
        // Changes.
        (
            "written back as it was",
            seen(Change(FileOp::CloseWrite), at("/usr/bin/a"), holds(A)),
            Attested,
            Info,
        ),
        ("overwritten", seen(Change(FileOp::CloseWrite), at("/usr/bin/a"), holds(B)), Modified, High),
        ("dropped", seen(Change(FileOp::CloseWrite), at("/opt/x"), holds(UNKNOWN)), Unauthorized, Low),
        (
            "dropped by root",
            root(seen(Change(FileOp::Chmod), at("/opt/x"), holds(UNKNOWN))),
            Unauthorized,
            Low,
        ),
        (
            "dropped where the system looks",
            seen(Change(FileOp::CloseWrite), at("/usr/bin/x"), holds(UNKNOWN)),
            Unauthorized,
            High,
        ),
        (
            "dropped in a container",
            contained(seen(Change(FileOp::CloseWrite), at("/opt/x"), holds(UNKNOWN))),
            Unauthorized,
            Medium,
        ),
        ("copied", seen(Change(FileOp::CloseWrite), at("/opt/x"), holds(A)), Relocated, Info),
        (
            "copied in a container",
            contained(seen(Change(FileOp::CloseWrite), at("/opt/x"), holds(A))),
            Relocated,
            Info,
        ),
        (
            "copied set-user-id",
            seen(Change(FileOp::Chmod), FileRef { mode: 0o104_755, ..at("/opt/x") }, holds(A)),
            Relocated,
            High,
        ),
        (
            "overwritten without a digest",
            seen(Change(FileOp::CloseWrite), at("/opt/none"), holds(UNKNOWN)),
            Modified,
            High,
        ),
        (
            "data without a digest written",
            fresh(seen(
                Change(FileOp::CloseWrite),
                FileRef { mode: 0o100_644, ..at("/opt/none") },
                holds(UNKNOWN),
            )),
            PathOnly,
            Info,
        ),
        (
            "a library without a digest, fresh, mapped",
            fresh(seen(Library, FileRef { mode: 0o100_644, ..at("/opt/none") }, holds(UNKNOWN))),
            Modified,
            High,
        ),
        (
            "emptied without a digest",
            seen(Change(FileOp::Truncate), at("/opt/none"), nothing()),
            PathOnly,
            Info,
        ),
        ("an empty file", seen(Change(FileOp::CloseWrite), at("/opt/empty"), nothing()), Unlisted, Info),
        (
            "an empty file of the SBOM",
            seen(Change(FileOp::Chmod), at("/usr/empty"), nothing()),
            Attested,
            Info,
        ),
        ("an empty file runs", fresh(seen(Exec, at("/opt/empty"), nothing())), Unlisted, Info),
        ("mode as before", seen(Change(FileOp::Chmod), at("/usr/bin/a"), holds(A)), Attested, Info),
    ];
    for (what, observation, verdict_expected, severity) in table {
        let found = verdict(&observation, &index);
        assert_eq!((found.verdict, found.severity), (verdict_expected, severity), "{what}: {}", found.reason);
        assert_eq!(found.reason.is_empty(), found.is_silent(), "{what}: {:?}", found.reason);
        let used = matches!(verdict_expected, Attested | AttestedWeak | Relocated);
        let changed = matches!(observation.action, Change(_));
        assert_eq!(found.used.is_some(), used && !changed, "{what}");
        let digest = matches!(&observation.content, Content::Known { .. }) && verdict_expected == Modified;
        let weak = observation.file.path.as_bytes().starts_with(b"/opt/");
        let is_copy = verdict_expected == Relocated && severity == Info && observation.on_host;
        let is_empty = verdict_expected == Unlisted && observation.file.path.as_bytes() == b"/opt/empty";
        assert_eq!(found.quiet, is_copy || is_empty, "{what}");
        assert_eq!(found.expected_sha256.is_some(), digest && !weak, "{what}");
        assert_eq!(found.attested_path.is_some(), verdict_expected == Relocated, "{what}");
    }
}

#[test]
fn a_doubtful_content_accuses_and_does_not_acquit() {
    use Severity::{Critical, High, Medium};
    use Verdict::{AttestedWeak, Modified, PackageDerived, PathOnly, Relocated, Unauthorized, Undetermined};
    let index = index();
    let on_tmpfs = FileRef { place: Place::Tmpfs, ..at("/mnt/a") };
    let mut owned = seen(Action::Exec, FileRef { place: Place::ImageLayer, ..at("/opt/x") }, holds(UNKNOWN));
    owned.owner = Some(Owner { package: "p 1".into(), digest: None });
    let table = [
        (seen(Action::Exec, at("/usr/bin/a"), holds(A)), Undetermined, Medium),
        (seen(Action::Library, at("/usr/bin/a"), holds(A)), Undetermined, Medium),
        (seen(Action::Exec, at("/opt/sha1"), holds_weak(A, A)), Undetermined, Medium),
        (owned, Undetermined, Medium),
        (seen(Action::Exec, at("/home/a"), holds(A)), Relocated, Medium),
        (seen(Action::Exec, on_tmpfs, holds(A)), Relocated, High),
        (seen(Action::Exec, at("/usr/bin/a"), holds(B)), Modified, High),
        (root(fresh(seen(Action::Exec, at("/opt/x"), holds(UNKNOWN)))), Unauthorized, Critical),
        (seen(Action::Exec, at("/opt/none"), holds(A)), Undetermined, Medium),
    ];
    for (observation, expected, severity) in table {
        let certain = verdict(&observation, &index);
        for doubt in [Doubt::Writers, Doubt::Fresh, Doubt::Touched, Doubt::InMemory] {
            let Content::Known { sha256, origin, weak, .. } = observation.content.clone() else { panic!() };
            let content = Content::Known { sha256, origin, weak, doubt: Some(doubt) };
            let found = verdict(&Observation { content, ..observation.clone() }, &index);
            assert_eq!((found.verdict, found.severity), (expected, severity), "{doubt:?}: {}", found.reason);
            let acquits = matches!(
                certain.verdict,
                Verdict::Attested | AttestedWeak | PackageDerived | PathOnly | Relocated
            );
            assert_eq!(found.reason.contains(doubt.as_str()), acquits, "{}", found.reason);
            assert_eq!(found.package, certain.package);
            assert!(found.used.is_none() || expected == Relocated);
        }
    }
}

#[test]
fn a_path_without_proof_matches_no_path() {
    let index = index();
    let cases: [(&str, Spoil); 5] = [
        ("cut", |f| f.truncated = true),
        ("outside the root", |f| f.unreachable = true),
        ("the caller's spelling", |f| f.by_name = true),
        ("a memfd of that name", |f| f.place = Place::Memfd),
        ("relative", |f| f.path = "usr/bin/a".into()),
    ];
    for (what, spoil) in cases {
        let mut file = at("/usr/bin/a");
        spoil(&mut file);
        let found = verdict(&seen(Action::Exec, file.clone(), holds(A)), &index);
        assert_eq!(found.verdict, Verdict::Relocated, "{what}");
        let found = verdict(&seen(Action::Exec, file.clone(), holds(UNKNOWN)), &index);
        assert_eq!(found.verdict, Verdict::Unlisted, "{what}");
        // What is gone has no other name than the one that the caller spelt.
        assert_eq!(removed(&file, None, &index).is_some(), file.by_name, "{what}");
        assert!(!wants_weak(&index, &FileRef { path: "opt/sha1".into(), ..file }, None), "{what}");
    }
}

#[test]
fn coverage_scales_what_the_sbom_can_say() {
    use Coverage::{Full, Owned, Packages};
    use Severity::{Critical, High, Info, Medium};
    let old = seen(Action::Exec, at("/opt/x"), holds(UNKNOWN));
    let new = fresh(old.clone());
    for (coverage, unlisted, unauthorized, by_root) in
        [(Full, Medium, High, Critical), (Owned, Info, High, Critical), (Packages, Info, Medium, High)]
    {
        assert_eq!(unknown(&old, coverage, &Sha256([UNKNOWN; 32]), None).severity, unlisted, "{coverage}");
        assert_eq!(
            unknown(&new, coverage, &Sha256([UNKNOWN; 32]), None).severity,
            unauthorized,
            "{coverage}"
        );
        assert_eq!(
            unknown(&root(new.clone()), coverage, &Sha256([UNKNOWN; 32]), None).severity,
            by_root,
            "{coverage}"
        );
        let says_packages =
            unknown(&old, coverage, &Sha256([UNKNOWN; 32]), None).reason.contains("packages and no files");
        assert_eq!(says_packages, coverage == Packages);
    }
}

#[test]
fn the_reason_says_where_it_comes_from() {
    let cases = [
        (Place::Memfd, Action::Exec, "in memory only"),
        (Place::Tmpfs, Action::Exec, "file system in memory"),
        (Place::UpperLayer, Action::Exec, "after the container started"),
        (Place::Disk, Action::Exec, "after the image was attested"),
        (Place::Disk, Action::Change(FileOp::CloseWrite), "just now"),
    ];
    for (place, action, words) in cases {
        let file = FileRef { place, ..at("/opt/x") };
        let observation = fresh(seen(action, file, holds(UNKNOWN)));
        let found = unknown(&observation, Coverage::Full, &Sha256([UNKNOWN; 32]), None);
        assert!(found.reason.contains(words), "{place:?} {action:?}: {}", found.reason);
    }
    let none = verdict(&fresh(seen(Action::Exec, at("/opt/none"), holds(UNKNOWN))), &index());
    assert!(none.reason.contains("no digest for it, and it was made or changed after"), "{}", none.reason);
    let moved = verdict(&seen(Action::Exec, at("/home/a"), holds(A)), &index());
    assert_eq!(moved.reason, "the SBOM has this content at /usr/bin/a, found at /home/a");
    assert_eq!(moved.attested_path, Some("/usr/bin/a".into()));
    let other = verdict(&seen(Action::Exec, at("/usr/bin/a"), holds(B)), &index());
    assert_eq!(other.reason, "the SBOM has SHA-256 aaaaaaaaaaaa… here, found bbbbbbbbbbbb…");
    assert_eq!(other.expected_sha256, Some(Sha256([A; 32])));
}

#[test]
fn removing_a_name_of_the_sbom_is_drift() {
    let index = index();
    let gone = removed(&at("/usr/bin/a"), None, &index).expect("in the SBOM");
    assert_eq!((gone.verdict, gone.severity), (Verdict::Modified, Severity::High));
    assert_eq!(gone.expected_sha256, Some(Sha256([A; 32])));
    let moved = removed(&at("/usr/bin/a"), Some(&"/tmp/a".into()), &index).expect("in the SBOM");
    assert!(moved.reason.ends_with("renamed to /tmp/a"), "{}", moved.reason);
    assert_eq!(removed(&at("/home/x"), None, &index), None);
}

#[test]
fn becoming_set_user_id_is_drift() {
    let index = index();
    for (mode, expected) in [
        (0o100_755, Verdict::Attested),
        (0o104_755, Verdict::Modified),
        (0o102_755, Verdict::Modified),
        (0o101_755, Verdict::Attested),
    ] {
        let file = FileRef { mode, ..at("/usr/bin/a") };
        let chmod = verdict(&seen(Action::Change(FileOp::Chmod), file.clone(), holds(A)), &index);
        assert_eq!(chmod.verdict, expected, "{mode:o}");
        assert_eq!(verdict(&seen(Action::Exec, file, holds(A)), &index).verdict, Verdict::Attested);
    }
}

#[test]
fn weak_digests_are_asked_for_where_nothing_better_is() {
    let index = index();
    for (path, expected) in
        [("/opt/sha1", true), ("/opt/md5", true), ("/opt/none", false), ("/usr/bin/a", false), ("/x", false)]
    {
        let file = FileRef { identity: FileIdentity { ino: 1, ..FileIdentity::default() }, ..at(path) };
        assert_eq!(wants_weak(&index, &file, None), expected, "{path}");
    }
}

/// Of an image's layer, and a package owns it by the database there.
fn owned(observation: Observation, digest: Option<PackageDigest>) -> Observation {
    let file = FileRef { place: Place::ImageLayer, ..observation.file };
    let owner = Some(Owner { package: "tool 1.2".into(), digest });
    Observation { file, owner, ..observation }
}

#[test]
fn what_a_package_database_says_of_a_file_that_the_sbom_does_not_have() {
    use Verdict::{Attested, Modified, PackageDerived, Relocated, Unauthorized, Undetermined, Unlisted};
    let index = index();
    let md5 = |byte| Some(PackageDigest::Md5([byte; 16]));
    let sha1 = |byte| Some(PackageDigest::Sha1([byte; 20]));
    let sha256 = |byte| Some(PackageDigest::Sha256(Sha256([byte; 32])));
    let exec = |path, content| seen(Action::Exec, at(path), content);
    let x = || exec("/opt/x", holds_weak(UNKNOWN, B));
    for (what, observation, expected, words) in [
        ("MD5", owned(x(), md5(B)), PackageDerived, "has this MD5"),
        ("SHA-1", owned(x(), sha1(B)), PackageDerived, "has this SHA-1"),
        ("SHA-256", owned(x(), sha256(UNKNOWN)), PackageDerived, "has this SHA-256"),
        ("no digest", owned(x(), None), PackageDerived, "has no digest of it"),
        (
            "a library",
            owned(seen(Action::Library, at("/opt/x"), holds(UNKNOWN)), None),
            PackageDerived,
            "tool 1.2",
        ),
        ("another MD5", owned(x(), md5(A)), Unlisted, "has another MD5"),
        ("another SHA-256", owned(x(), sha256(B)), Unlisted, "has another SHA-256"),
        ("not computed", owned(exec("/opt/x", holds(UNKNOWN)), md5(B)), Unlisted, "MD5 was not computed"),
        ("root changes nothing", root(owned(x(), md5(B))), PackageDerived, ""),
        ("newer than the start", fresh(owned(x(), md5(B))), Unauthorized, ""),
        ("not read", owned(exec("/opt/x", unread()), md5(B)), Undetermined, ""),
        ("in the SBOM", owned(exec("/usr/bin/a", holds(A)), md5(B)), Attested, ""),
        (
            "in the SBOM with another digest",
            owned(exec("/usr/bin/a", holds_weak(B, B)), md5(B)),
            Modified,
            "",
        ),
        ("its content is in the SBOM", owned(exec("/opt/x", holds_weak(A, B)), md5(B)), Relocated, ""),
        (
            "changed",
            owned(seen(Action::Change(FileOp::Chmod), at("/opt/x"), holds_weak(UNKNOWN, B)), md5(B)),
            Unauthorized,
            "",
        ),
    ] {
        let found = verdict(&observation, &index);
        assert_eq!(found.verdict, expected, "{what}: {}", found.reason);
        assert!(found.reason.contains(words), "{what}: {}", found.reason);
        if expected == PackageDerived {
            assert_eq!(
                (found.severity, found.package.as_deref()),
                (Severity::Info, Some("tool 1.2")),
                "{what}"
            );
        }
    }
    // Only a read-only layer counts.
    for place in [Place::Disk, Place::UpperLayer, Place::Tmpfs, Place::Memfd] {
        let observation = owned(x(), md5(B));
        let file = FileRef { place, ..observation.file.clone() };
        assert!(!wants_owner(Action::Exec, &file, false, &index), "{place:?}");
        let found = verdict(&Observation { file, ..observation }, &index);
        assert_ne!(found.verdict, PackageDerived, "{place:?}");
    }
    let layer = |path| FileRef { place: Place::ImageLayer, ..at(path) };
    assert!(wants_owner(Action::Exec, &layer("/opt/x"), false, &index));
    assert!(!wants_owner(Action::Exec, &layer("/opt/x"), true, &index));
    assert!(!wants_owner(Action::Exec, &layer("/usr/bin/a"), false, &index));
    assert!(!wants_owner(Action::Change(FileOp::Chmod), &layer("/opt/x"), false, &index));
    for (digest, expected) in [(md5(A), true), (sha1(A), true), (sha256(A), false), (None, false)] {
        let owner = Owner { package: "tool 1.2".into(), digest };
        assert_eq!(wants_weak(&index, &layer("/opt/x"), Some(&owner)), expected, "{digest:?}");
    }
}

#[test]
fn what_the_package_manager_wrote_is_updated() {
    use Severity::{Info, Low, Medium};
    use Verdict::{Attested, AttestedWeak, Relocated, Undetermined, Unlisted, Updated};
    let index = index();
    let by = |proof, unseen, observation: Observation| {
        let package = (proof != Proof::Unowned).then(|| Arc::from("tool 2"));
        Observation { update: Some(Update { proof, package, unseen }), ..observation }
    };
    let exec = |path, content| seen(Action::Exec, at(path), content);
    let modified = || exec("/usr/bin/a", holds(UNKNOWN));
    let new = || root(fresh(exec("/opt/x", holds(UNKNOWN))));
    let dropped = || seen(Action::Change(FileOp::Rename), at("/usr/bin/a"), holds(UNKNOWN));
    for (what, observation, expected, severity) in [
        ("agrees", by(Proof::Agrees, false, modified()), Updated, Info),
        ("agrees: a new file, by root", by(Proof::Agrees, false, new()), Updated, Info),
        ("agrees: a change", by(Proof::Agrees, false, dropped()), Updated, Info),
        (
            "agrees: a weak digest differed",
            by(Proof::Agrees, false, exec("/opt/md5", holds_weak(A, B))),
            Updated,
            Info,
        ),
        ("bookkeeping", by(Proof::Bookkeeping, false, new()), Updated, Info),
        ("differs", by(Proof::Differs, false, modified()), Updated, Medium),
        ("no digest", by(Proof::NoDigest, false, modified()), Updated, Medium),
        ("unowned", by(Proof::Unowned, false, new()), Updated, Medium),
        ("nobody saw it", by(Proof::Agrees, true, modified()), Updated, Low),
        ("as attested", by(Proof::Differs, false, exec("/usr/bin/a", holds(A))), Attested, Info),
        ("weak and equal", by(Proof::Differs, false, exec("/opt/md5", holds_weak(A, A))), AttestedWeak, Info),
        ("moved", by(Proof::Agrees, false, exec("/tmp/a", holds(A))), Relocated, Low),
        ("not read", by(Proof::Agrees, false, exec("/usr/bin/a", unread())), Undetermined, Medium),
        ("old", by(Proof::Agrees, false, exec("/opt/x", holds(UNKNOWN))), Unlisted, Info),
    ] {
        let found = verdict(&observation, &index);
        assert_eq!((found.verdict, found.severity), (expected, severity), "{what}: {}", found.reason);
        if expected == Updated {
            let owned = observation.update.as_ref().is_some_and(|u| u.package.is_some());
            assert_eq!(found.package.is_some(), owned, "{what}");
            assert!(found.reason.contains("package manager"), "{what}: {}", found.reason);
        }
    }
    let gone = removed(&at("/usr/bin/a"), None, &index).expect("in the SBOM");
    let update = Update { proof: Proof::Differs, package: None, unseen: false };
    assert_eq!(updated(gone, &update).severity, Medium);
}
