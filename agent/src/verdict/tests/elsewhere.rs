//! Content of the SBOM at another path: names of hard links, and contents without a path.

use Action::{Change, Exec, Library};
use Verdict::{Attested, Relocated, Undetermined, Unlisted};

use super::*;

#[test]
fn another_name_of_a_file_of_the_image_is_attested() {
    let index = index();
    let link = |spoil: Spoil| {
        let mut file = FileRef { place: Place::ImageLayer, nlink: 2, ..at("/usr/bin/a5.36") };
        spoil(&mut file);
        file
    };
    let in_container = |action, file| contained(seen(action, file, holds(A)));
    for (what, observation, expected) in [
        ("run", in_container(Exec, link(|_| {})), Attested),
        ("mapped", in_container(Library, link(|_| {})), Attested),
        ("the only name", in_container(Exec, link(|file| file.nlink = 1)), Relocated),
        ("made since", in_container(Exec, link(|file| file.place = Place::UpperLayer)), Relocated),
        ("changed since", fresh(in_container(Exec, link(|_| {}))), Relocated),
        ("on the host", seen(Exec, link(|_| {}), holds(A)), Relocated),
        ("beneath a user's overlay", in_container(Exec, link(|file| file.changes_beneath = true)), Relocated),
        ("just made", in_container(Change(FileOp::Link), link(|_| {})), Relocated),
        ("a path that proves nothing", in_container(Exec, link(|file| file.truncated = true)), Relocated),
        ("of other content", contained(seen(Exec, link(|_| {}), holds(UNKNOWN))), Unlisted),
    ] {
        let judgement = verdict(&observation, &index);
        assert_eq!(judgement.verdict, expected, "{what}: {}", judgement.reason);
    }
    let doubt = Some(Doubt::Writers);
    let doubtful = Content::Known { sha256: Sha256([A; 32]), origin: DigestOrigin::Agent, weak: None, doubt };
    let judgement = verdict(&contained(seen(Exec, link(|_| {}), doubtful)), &index);
    assert_eq!(judgement.verdict, Undetermined);
}

#[test]
fn a_content_without_a_path_is_relocated_wherever_it_is() {
    let document = format!(
        r#"{{"bomFormat":"CycloneDX","specVersion":"1.6","components":[{{"type":"file","name":"main",
          "hashes":[{{"alg":"SHA-256","content":"{}"}}]}}]}}"#,
        hex(A, 32)
    );
    let index = sbom::parse(document.as_bytes(), &sbom::Limits::default()).expect("a good document");
    let judgement = verdict(&seen(Exec, at("/usr/bin/main"), holds(A)), &index);
    assert_eq!((judgement.verdict, judgement.severity), (Relocated, Severity::Low));
    assert_eq!((judgement.attested_path, judgement.used), (None, None));
    assert!(judgement.reason.contains("of no path"), "{}", judgement.reason);
    let other = verdict(&seen(Exec, at("/usr/bin/main"), holds(UNKNOWN)), &index);
    assert_eq!(other.verdict, Unlisted);
}
