//! What an operator should look at.

use muster_proto::v1;

use super::text::kind_name;
use crate::counted::counted;

/// Records that may wait before the judge counts as behind.
const WAITING: u64 = 10_000;
/// How late an event may be judged, nanoseconds.
const LATE: u64 = 10_000_000_000;

/// Problems of this state, in words, worst first.
pub(super) fn problems(status: &v1::Status) -> Vec<String> {
    let mut out = status.degraded.clone();
    losses(status, &mut out);
    images(status, &mut out);
    if let Some(first) = status.refused_attestations.first() {
        let others = match status.refused_attestations.len() - 1 {
            0 => String::new(),
            more => format!(", and {} more", counted(more, "attestation")),
        };
        out.push(format!("refused: {}: {}{others}", first.file, first.reason));
    }
    out
}

fn losses(status: &v1::Status, out: &mut Vec<String>) {
    for kind in &status.kinds {
        let name = kind_name(kind.kind);
        if kind.lost > 0 {
            let records = counted(kind.lost, &format!("{name} record"));
            out.push(format!("{records} lost since the start: findings of verdict `loss` say why and whose"));
        }
        if kind.malformed > 0 {
            let records = counted(kind.malformed, &format!("{name} record"));
            out.push(format!("{records} could not be decoded since the start"));
        }
    }
    let unwritten = status.dropped.get("json_lines").copied().unwrap_or_default();
    if unwritten > 0 {
        let findings = counted(unwritten, "finding");
        out.push(format!("{findings} could not be written to the JSON lines file since the start"));
    }
    let waiting = waiting(status);
    if waiting > WAITING || status.lag_ns > LATE && waiting > 0 {
        let late = status.lag_ns / 1_000_000;
        out.push(format!(
            "the judge is behind: {} wait, and the last one was judged {late} ms late",
            counted(waiting, "record")
        ));
    }
}

fn images(status: &v1::Status, out: &mut Vec<String>) {
    if status.images.is_empty() {
        out.push(
            "no image is known, so nothing is judged: name the host's image (`host.image`) or a workload's"
                .to_owned(),
        );
    }
    let states = [
        ("lost", "judged by what was verified before: that attestation is gone"),
        ("unverified", "without a verified SBOM: its attestation was refused"),
        ("platform_unproven", "with an SBOM that may be of another platform"),
        ("no_sbom", "without an SBOM: what runs of it is not judged"),
    ];
    let known = |state: &str| state == "verified" || states.iter().any(|(known, _)| *known == state);
    for (state, what) in states {
        let count = status.images.iter().filter(|image| image.state == state).count();
        if count > 0 {
            out.push(format!("{} {what} (`muster images`)", counted(count, "image")));
        }
    }
    let others = status.images.iter().filter(|image| !known(&image.state)).count();
    if others > 0 {
        out.push(format!("{} in another state (`muster images`)", counted(others, "image")));
    }
}

/// Records that are not judged yet.
pub(super) fn waiting(status: &v1::Status) -> u64 {
    status
        .kinds
        .iter()
        .map(|k| k.submitted.saturating_sub(k.malformed).max(k.received).saturating_sub(k.judged))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_is_said_and_no_other() {
        let image = |state: &str| v1::Image { state: state.into(), ..v1::Image::default() };
        let well = || v1::Status { images: vec![image("verified")], ..v1::Status::default() };
        assert_eq!(problems(&well()), [""; 0]);
        let kind = |lost, malformed, submitted| v1::KindCounters {
            kind: v1::Kind::Exec.into(),
            lost,
            malformed,
            submitted,
            ..v1::KindCounters::default()
        };
        let refused = |file: &str| v1::RefusedAttestation { file: file.into(), reason: "no key".into() };
        for (status, says) in [
            (v1::Status::default(), "no image is known, so nothing is judged"),
            (
                v1::Status { images: vec![image("no_sbom"), image("no_sbom")], ..well() },
                "2 images without an SBOM",
            ),
            (v1::Status { images: vec![image("unverified")], ..well() }, "1 image without a verified SBOM"),
            (
                v1::Status { images: vec![image("lost")], ..well() },
                "1 image judged by what was verified before",
            ),
            (v1::Status { images: vec![image("new")], ..well() }, "1 image in another state"),
            (v1::Status { degraded: vec!["a key is gone".into()], ..well() }, "a key is gone"),
            (v1::Status { kinds: vec![kind(1, 0, 0)], ..well() }, "1 exec record lost since the start"),
            (v1::Status { kinds: vec![kind(0, 2, 0)], ..well() }, "2 exec records could not be decoded"),
            (
                v1::Status { kinds: vec![kind(0, 0, 10_001)], ..well() },
                "the judge is behind: 10001 records wait",
            ),
            (
                v1::Status { kinds: vec![kind(0, 0, 1)], lag_ns: 12_000_000_000, ..well() },
                "the judge is behind: 1 record wait, and the last one was judged 12000 ms late",
            ),
            (
                v1::Status { dropped: [("json_lines".into(), 3)].into(), ..well() },
                "3 findings could not be written",
            ),
            (
                v1::Status { refused_attestations: vec![refused("a"), refused("b")], ..well() },
                "refused: a: no key, and 1 attestation more",
            ),
        ] {
            let said = problems(&status);
            assert!(said.len() == 1 && said[0].starts_with(says), "{says:?} is not {said:?}");
        }
        // A client that is slow is told so itself.
        let slow = v1::Status { dropped: [("watch".into(), 3)].into(), ..well() };
        assert_eq!(problems(&slow), [""; 0]);
    }
}
