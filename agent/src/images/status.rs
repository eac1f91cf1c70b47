//! Images as the interface shows them.

use muster_proto::v1;

use super::{Digests, Document, Image, ImageState, Images, Refused};
use crate::attestation::Provenance;
use crate::finding::{Binding, Coverage};
use crate::sbom::tool;

impl Images {
    /// Every image of the register, by digest.
    pub fn status(&self) -> Vec<v1::Image> {
        self.snapshot().iter().map(|image| v1::Image::from(&**image)).collect()
    }

    /// What was refused, by file name.
    pub fn refused_status(&self) -> Vec<v1::RefusedAttestation> {
        self.refused().iter().map(v1::RefusedAttestation::from).collect()
    }
}

impl From<&Image> for v1::Image {
    fn from(image: &Image) -> Self {
        let shown = Self {
            digest: format!("sha256:{}", image.digest),
            files_in_use: image.used_count(),
            ..Self::default()
        };
        let (state, reason) = match &image.state {
            ImageState::NoSbom => ("no_sbom", ""),
            ImageState::Unverified { reason } => ("unverified", reason.as_str()),
            ImageState::PlatformUnproven { reason, .. } => ("platform_unproven", reason.as_str()),
            ImageState::Verified { .. } => ("verified", ""),
        };
        let (state, reason) = match &image.lost {
            Some(lost) => ("lost", lost.loss.reason.as_str()),
            None => (state, reason),
        };
        let documents = image.documents();
        let shown = Self {
            state: state.into(),
            reason: reason.into(),
            binding: image.binding().map_or(v1::Binding::Unspecified, binding).into(),
            digests: named(&image.digests),
            documents: documents.iter().map(v1::Document::from).collect(),
            provenance: image.facts.provenance.iter().map(|p| v1::Provenance::from(&**p)).collect(),
            vex_documents: u64::try_from(image.facts.vex.len()).unwrap_or(u64::MAX),
            trusted_until: image.trusted_until.map(prost_types::Timestamp::from),
            not_counted: image.aside.iter().map(v1::RefusedAttestation::from).collect(),
            ..shown
        };
        let Some(index) = image.index() else { return shown };
        let numbers = index.numbers();
        let tool = documents.iter().find_map(|document| document.tool.as_deref());
        Self {
            coverage: coverage(index.coverage()).into(),
            files: numbers.files,
            files_with_sha256: numbers.with_sha256,
            files_with_weak_digest: numbers.with_weak,
            files_owned: numbers.owned,
            complete: numbers.complete,
            packages: numbers.packages,
            index_bytes: u64::try_from(index.heap_bytes()).unwrap_or(u64::MAX),
            advice: tool::advice(tool, index.coverage(), index.formats()).unwrap_or_default(),
            ..shown
        }
    }
}

fn coverage(coverage: Coverage) -> v1::Coverage {
    match coverage {
        Coverage::Packages => v1::Coverage::Packages,
        Coverage::Owned => v1::Coverage::Owned,
        Coverage::Full => v1::Coverage::Full,
    }
}

fn binding(binding: Binding) -> v1::Binding {
    match binding {
        Binding::Unproven => v1::Binding::Unproven,
        Binding::Key => v1::Binding::Key,
        Binding::OsRelease => v1::Binding::OsRelease,
        Binding::ImageDigest => v1::Binding::ImageDigest,
        Binding::IndexDigest => v1::Binding::IndexDigest,
        Binding::ManifestDigest => v1::Binding::ManifestDigest,
        Binding::ConfigDigest => v1::Binding::ConfigDigest,
        Binding::VerityRoot => v1::Binding::VerityRoot,
    }
}

/// Every digest with its kind, layers apart.
fn named(digests: &Digests) -> Vec<v1::NamedDigest> {
    let Digests { image, index, manifest, config, layers: _, architecture: _, verity, os_release, key } =
        digests;
    let one = [
        ("image", image),
        ("index", index),
        ("manifest", manifest),
        ("config", config),
        ("os_release", os_release),
        ("key", key),
    ];
    let one = one.into_iter().filter_map(|(kind, digest)| Some((kind, digest.as_ref()?)));
    one.chain(verity.iter().map(|hash| ("verity", hash)))
        .map(|(kind, digest)| v1::NamedDigest { kind: kind.into(), digest: format!("sha256:{digest}") })
        .collect()
}

impl From<&Document> for v1::Document {
    fn from(document: &Document) -> Self {
        let Document {
            sha256,
            envelope_sha256: _,
            format,
            predicate: _,
            tool,
            file,
            signers,
            time,
            binding: bound,
        } = document;
        Self {
            sha256: sha256.to_string(),
            format: format.clone(),
            file: file.clone(),
            keys: signers.names(),
            binding: binding(*bound).into(),
            tool: tool.clone().unwrap_or_default(),
            signed: time.map(prost_types::Timestamp::from),
        }
    }
}

impl From<&Provenance> for v1::Provenance {
    fn from(provenance: &Provenance) -> Self {
        let Provenance { builder, source, commit } = provenance;
        Self {
            builder: builder.clone().unwrap_or_default(),
            source: source.clone().unwrap_or_default(),
            commit: commit.clone().unwrap_or_default(),
        }
    }
}

impl From<&Refused> for v1::RefusedAttestation {
    fn from(refused: &Refused) -> Self {
        Self { file: refused.file.clone(), reason: refused.reason.clone() }
    }
}
