//! A directory in the OCI image layout (`oci-layout`, `index.json`, `blobs/`), as `skopeo`, `oras`, BuildKit and `cosign save` write it.
//!
//! A layout has no referrers API: manifests with a `subject` are found by reading those that `index.json` names. Tags are the
//! annotation `org.opencontainers.image.ref.name`.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::libc;

use super::SourceError;
use super::oci::{self, Descriptor, Document, Index, MAX_DOCUMENT_BYTES};
use crate::attestation::sha256;
use crate::finding::Sha256;

/// Manifests of `index.json` that are read for their `subject`.
const MAX_MANIFESTS: usize = 4096;
/// The tag of a manifest.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// How `cosign save` marks what it writes instead of by tags.
const COSIGN_KIND: &str = "kind";
/// Its attestations.
const COSIGN_ATTESTATIONS: &str = "dev.cosignproject.cosign/atts";

/// A layout directory.
#[derive(Clone, Debug)]
pub struct Layout {
    directory: Arc<Path>,
}

/// A layout whose index was read.
#[derive(Debug)]
pub(super) struct Open {
    directory: Arc<Path>,
    index: Index,
    /// Manifests with a subject: the subject, and the descriptor of the manifest.
    referrers: Vec<(Sha256, Descriptor)>,
    /// Manifests of indexes that `index.json` names, and the index.
    parents: Vec<(Sha256, Sha256)>,
}

impl Layout {
    /// The layout in this directory. It is read each time it is asked.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory: directory.into() }
    }

    /// Reads its index.
    pub(super) async fn open(&self) -> Result<Open, SourceError> {
        let directory = Arc::clone(&self.directory);
        blocking(move || open(directory)).await
    }
}

impl Open {
    /// For messages.
    pub(super) fn name(&self) -> String {
        format!("oci:{}", self.directory.display())
    }

    /// The blob with this digest, whatever it is; the caller hashes it.
    pub(super) async fn blob(&self, digest: &Sha256, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        let file = blob_file(&self.directory, digest);
        blocking(move || read(&file, limit)).await
    }

    /// The manifests with this tag.
    pub(super) fn tagged(&self, tag: &str) -> Vec<&Descriptor> {
        let is_tagged = |descriptor: &&Descriptor| {
            let name = descriptor.annotation(REF_NAME);
            // Some write the whole name, HOST/REPOSITORY:TAG.
            name.is_some_and(|name| name == tag || name.rsplit_once(':').is_some_and(|(_, of)| of == tag))
                || tag.ends_with(super::walk::ATTESTATION_TAG)
                    && descriptor.annotation(COSIGN_KIND) == Some(COSIGN_ATTESTATIONS)
        };
        self.index.manifests.iter().filter(is_tagged).collect()
    }

    /// The manifests whose subject is this.
    pub(super) fn referrers(&self, subject: &Sha256) -> Vec<Descriptor> {
        self.referrers
            .iter()
            .filter(|(of, _)| of == subject)
            .map(|(_, descriptor)| descriptor.clone())
            .collect()
    }

    /// The index that has this manifest.
    pub(super) fn parent(&self, manifest: &Sha256) -> Option<Sha256> {
        self.parents.iter().find(|(child, _)| child == manifest).map(|(_, index)| *index)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn open(directory: Arc<Path>) -> Result<Open, SourceError> {
    let fault = |file: &Path, reason: String| SourceError::File { file: file.to_owned(), reason };
    let marker = directory.join("oci-layout");
    let whole = |file: &Path| match read(file, MAX_DOCUMENT_BYTES)? {
        Some(bytes) => Ok(bytes),
        None => {
            Err(fault(file, "is missing; expected an OCI layout (oci-layout, index.json, blobs/)".to_owned()))
        }
    };
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Marker {
        image_layout_version: String,
    }
    let version: Marker = oci::read(&whole(&marker)?).map_err(|error| fault(&marker, error.to_string()))?;
    if !version.image_layout_version.starts_with("1.") {
        let found = version.image_layout_version;
        return Err(fault(&marker, format!("imageLayoutVersion is {found:?}; expected \"1.0.0\"")));
    }
    let file = directory.join("index.json");
    let index = match Document::parse(&whole(&file)?) {
        Ok(Document::Index(index)) => index,
        Ok(Document::Manifest(_)) => return Err(fault(&file, "is a manifest; expected an index".to_owned())),
        Err(error) => return Err(fault(&file, error.to_string())),
    };
    if index.manifests.len() > MAX_MANIFESTS {
        let count = index.manifests.len();
        return Err(fault(
            &file,
            format!("names {count} manifests, but at most {MAX_MANIFESTS} are read; split the layout"),
        ));
    }
    let (mut referrers, mut parents) = (Vec::new(), Vec::new());
    for descriptor in &index.manifests {
        let Some(digest) = descriptor.digest else { continue };
        // What is missing or damaged is told when it is asked for.
        let Ok(Some(bytes)) = read(&blob_file(&directory, &digest), MAX_DOCUMENT_BYTES) else { continue };
        if sha256(&bytes) != digest {
            continue;
        }
        match Document::parse(&bytes) {
            Ok(Document::Manifest(manifest)) => {
                if let Some(subject) = manifest.subject {
                    let artifact_type = descriptor.artifact_type.clone().or(manifest.artifact_type);
                    referrers.push((subject, Descriptor { artifact_type, ..descriptor.clone() }));
                }
            }
            Ok(Document::Index(index)) => {
                parents.extend(index.manifests.iter().filter_map(|child| Some((child.digest?, digest))));
            }
            Err(_) => {}
        }
    }
    Ok(Open { directory, index, referrers, parents })
}

fn blob_file(directory: &Path, digest: &Sha256) -> PathBuf {
    directory.join("blobs/sha256").join(digest.to_string())
}

/// Reads a file of at most `limit` bytes; `None` when it is not there.
fn read(file: &Path, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
    let fault = |error: io::Error| SourceError::File {
        file: file.to_owned(),
        reason: format!("cannot read: {error}"),
    };
    // A pipe must not hold the reader up.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(file);
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(error)),
    };
    let meta = opened.metadata().map_err(fault)?;
    if !meta.is_file() {
        return Err(fault(io::Error::other("it is not a regular file")));
    }
    if meta.len() > limit {
        return Err(SourceError::TooLarge { limit });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0) + 1);
    opened.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(fault)?;
    if u64::try_from(bytes.len()).is_ok_and(|read| read <= limit) {
        Ok(Some(bytes))
    } else {
        Err(SourceError::TooLarge { limit })
    }
}
