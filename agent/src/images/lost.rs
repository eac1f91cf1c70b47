//! An image that was verified stays judged by what was verified last, whatever becomes of the files: whoever has root would otherwise
//! blind the sensor by deleting one. That it is judged so is said, again and again, until the attestation is back or retired.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::{Document, ImageState};
use crate::attestation::Fault;
use crate::finding::Verdict;

/// For so long a loss that nobody noticed in a running workload counts as one of the node.
const CURRENT: Duration = Duration::from_secs(20 * 60);

/// What an image was judged by is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// What would be said of the image by what is there now.
    pub verdict: Verdict,
    /// What is lost, what counts, what to do.
    pub reason: String,
    /// It is judged by documents that are not there any more (else by keys or a trust root that are not).
    pub is_kept: bool,
}

impl Loss {
    /// By what is there now; the image is judged by `last`.
    pub(super) fn of(now: &ImageState, last: &[Document]) -> Self {
        let (verdict, what) = match now {
            ImageState::NoSbom => (Verdict::NoSbom, "it is gone".to_owned()),
            ImageState::Unverified { reason } => {
                (Verdict::Unverified, format!("what is there now is refused: {reason}"))
            }
            ImageState::PlatformUnproven { reason, .. } => {
                (Verdict::Unverified, format!("what is there now may be of another platform: {reason}"))
            }
            ImageState::Verified { documents, .. } => {
                let files: Vec<_> = documents.iter().map(|document| document.file.as_str()).collect();
                (Verdict::Unverified, format!("what is there now is older: {}", files.join(", ")))
            }
        };
        let names: Vec<_> = last.iter().map(|d| format!("{} (sha256:{})", d.file, d.sha256)).collect();
        let digests: Vec<_> = last.iter().map(|d| format!("\"sha256:{}\"", d.sha256)).collect();
        let reason = format!(
            "the image is judged by an attestation that was verified before, {}, but {what}; put it back, put a newer one there, or \
             say that it is retired: attestation.retired = [{}]",
            names.join(", "),
            digests.join(", ")
        );
        Self { verdict, reason, is_kept: true }
    }
}

/// A loss, and since when.
#[derive(Debug)]
pub struct Lost {
    /// What is lost.
    pub loss: Loss,
    /// When that was noticed.
    pub since: SystemTime,
    /// When it was last told of a workload that runs, seconds since 1970.
    told: AtomicU64,
}

impl Lost {
    /// A loss that was noticed then.
    pub fn new(loss: Loss, since: SystemTime) -> Self {
        Self { loss, since, told: AtomicU64::new(0) }
    }

    /// A workload of the image does something.
    pub fn is_told(&self, now: SystemTime) {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.told.store(now.as_secs(), Ordering::Relaxed);
    }

    /// A workload of the image runs, or ran just now. An attestation may be removed when its image is used no more.
    pub fn is_current(&self, now: SystemTime) -> bool {
        let told = SystemTime::UNIX_EPOCH + Duration::from_secs(self.told.load(Ordering::Relaxed));
        now.duration_since(self.since.max(told)).unwrap_or_default() < CURRENT
    }
}

/// What is there now is older than what was verified last, by the same signers and of the same kind; the times must be verified.
pub(super) fn is_older(now: &[Document], last: &[Document]) -> bool {
    let gone = last.iter().filter(|last| now.iter().all(|here| here.envelope_sha256 != last.envelope_sha256));
    gone.into_iter().any(|last| {
        now.iter().all(|here| {
            here.signers == last.signers
                && here.predicate == last.predicate
                && here.time.zip(last.time).is_some_and(|(here, last)| here < last)
        })
    })
}

/// The documents were verified by keys or a trust root that cannot be read any more.
pub(super) fn untrusted(faults: &[Fault], documents: &[Document]) -> Option<Loss> {
    let decided = |fault: &&Fault| {
        documents.iter().any(|document| match fault.key {
            Some(key) => document.signers.keys.contains(&key),
            None => document.signers.identity.is_some() || document.time.is_some(),
        })
    };
    let fault = faults.iter().find(decided)?;
    let (what, advice) = match fault.key {
        Some(_) => ("key", "take it out of attestation.keys"),
        None => ("trust root", "name another one in attestation.trust_root"),
    };
    let reason = format!(
        "the image is judged by an attestation that was verified by a {what} that cannot be read any more: {}; put it back, or {advice}",
        fault.reason
    );
    Some(Loss { verdict: Verdict::Unverified, reason, is_kept: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attestation::{PredicateType, Signers};
    use crate::finding::{Binding, Sha256};

    fn document(number: u8, time: Option<u64>) -> Document {
        Document {
            sha256: Sha256([number; 32]),
            envelope_sha256: Sha256([number; 32]),
            format: String::new(),
            predicate: PredicateType::Spdx,
            tool: None,
            file: number.to_string(),
            signers: Signers::default(),
            time: time.map(|time| SystemTime::UNIX_EPOCH + Duration::from_secs(time)),
            binding: Binding::ManifestDigest,
        }
    }

    #[test]
    fn an_older_document_retires_no_newer_one() {
        let now = [document(1, Some(10))];
        for (last, expected) in [
            (document(2, Some(11)), true),
            (document(2, Some(9)), false),
            (document(2, None), false),
            (document(1, Some(10)), false),
            (Document { predicate: PredicateType::CycloneDx, ..document(2, Some(11)) }, false),
        ] {
            assert_eq!(is_older(&now, std::slice::from_ref(&last)), expected, "{last:?}");
        }
    }

    #[test]
    fn what_nobody_runs_any_more_is_no_loss_of_the_node() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let loss = Loss { verdict: Verdict::NoSbom, reason: String::new(), is_kept: true };
        let lost = Lost::new(loss, at(1000));
        assert!(lost.is_current(at(2000)) && !lost.is_current(at(3000)));
        lost.is_told(at(2900));
        assert!(lost.is_current(at(3000)));
    }
}
