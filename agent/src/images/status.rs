//! Images as the interface shows them.

use muster_proto::v1;

use super::{Document, Image, ImageState, Images, Refused};
use crate::finding::Coverage;

impl Images {
    /// Every image of the register, by digest.
    pub fn status(&self) -> Vec<v1::Image> {
        self.snapshot().iter().map(|image| v1::Image::from(&**image)).collect()
    }

    /// What was refused, by file name.
    pub fn refused_status(&self) -> Vec<v1::RefusedAttestation> {
        let refused = self.refused();
        let shown = |r: &Refused| v1::RefusedAttestation { file: r.file.clone(), reason: r.reason.clone() };
        refused.iter().map(shown).collect()
    }
}

impl From<&Image> for v1::Image {
    fn from(image: &Image) -> Self {
        let shown = Self {
            digest: format!("sha256:{}", image.digest),
            files_in_use: image.used_count(),
            ..Self::default()
        };
        match &image.state {
            ImageState::NoSbom => Self { state: "no_sbom".into(), ..shown },
            ImageState::Unverified { reason } => {
                Self { state: "unverified".into(), reason: reason.clone(), ..shown }
            }
            ImageState::Verified { index, documents } => {
                let numbers = index.numbers();
                Self {
                    state: "verified".into(),
                    coverage: match index.coverage() {
                        Coverage::Packages => v1::Coverage::Packages,
                        Coverage::Owned => v1::Coverage::Owned,
                        Coverage::Full => v1::Coverage::Full,
                    }
                    .into(),
                    files: numbers.files,
                    files_with_sha256: numbers.with_sha256,
                    files_with_weak_digest: numbers.with_weak,
                    packages: numbers.packages,
                    documents: documents.iter().map(v1::Document::from).collect(),
                    index_bytes: u64::try_from(index.heap_bytes()).unwrap_or(u64::MAX),
                    ..shown
                }
            }
        }
    }
}

impl From<&Document> for v1::Document {
    fn from(document: &Document) -> Self {
        let Document { sha256, envelope_sha256: _, format, file, signers } = document;
        Self { sha256: sha256.to_string(), format: format.clone(), file: file.clone(), keys: signers.names() }
    }
}
