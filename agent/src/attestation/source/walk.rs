//! From an image's digest to everything that may be its attestation. The same way for each kind of source.

use std::collections::{BTreeMap, HashSet};

use super::layout::Open;
use super::oci::{Descriptor, Document, ImageConfig, Index, MAX_DOCUMENT_BYTES, Manifest};
#[cfg(feature = "registry")]
use super::registry::Repository;
use super::{Candidate, Form, Found, Left, Listed, PlatformDigests, Scope, SourceError, signed_index};
use crate::attestation::json::shown;
use crate::attestation::{Limits, PredicateType, sha256};
use crate::finding::Sha256;

/// Manifests of an index that are looked at.
const MAX_PLATFORMS: usize = 64;
/// Referrers of one digest that are looked at.
const MAX_REFERRERS: usize = 128;
/// Layers of one manifest that are looked at.
const MAX_LAYERS: usize = 64;
/// Candidates of one image.
const MAX_CANDIDATES: usize = 256;

/// After `sha256-<hex>`: cosign's attestations.
pub(super) const ATTESTATION_TAG: &str = ".att";
/// After `sha256-<hex>`: cosign's signatures.
const SIGNATURE_TAG: &str = ".sig";
/// After `sha256-<hex>`: an SBOM that nobody signed.
const SBOM_TAG: &str = ".sbom";

/// Media type of a DSSE envelope.
const ENVELOPE: &str = "application/vnd.dsse.envelope.v1+json";
/// Media types of Sigstore bundles start so: `….v0.3+json`, `…+json;version=0.1`.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
/// Media type of an in-toto statement; in BuildKit's attestation manifests.
const STATEMENT: &str = "application/vnd.in-toto+json";
/// Media type of what cosign signs.
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Annotation of such a layer: the signature.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// Annotations with the predicate's type: of BuildKit, of cosign's layers, of bundles.
const PREDICATE_TYPE: [&str; 3] =
    ["in-toto.io/predicate-type", "predicateType", "dev.sigstore.bundle.predicateType"];

/// A kind of source.
#[derive(Clone, Copy)]
pub(super) enum Store<'a> {
    /// A directory.
    Layout(&'a Open),
    /// A repository of a registry.
    #[cfg(feature = "registry")]
    Registry(&'a Repository<'a>),
}

impl Store<'_> {
    fn name(self) -> String {
        match self {
            Self::Layout(layout) => layout.name(),
            #[cfg(feature = "registry")]
            Self::Registry(repository) => repository.name(),
        }
    }

    /// An index or manifest, hashed again; `None` when it is not there.
    async fn manifest(self, digest: &Sha256) -> Result<Option<Vec<u8>>, SourceError> {
        let bytes = match self {
            Self::Layout(layout) => layout.blob(digest, MAX_DOCUMENT_BYTES).await?,
            #[cfg(feature = "registry")]
            Self::Registry(repository) => repository.manifest(&format!("sha256:{digest}")).await?,
        };
        bytes.map(|bytes| checked(bytes, digest, None)).transpose()
    }

    /// A blob, hashed again; `None` when it is not there.
    async fn blob(self, digest: &Sha256, size: u64, limit: u64) -> Result<Option<Vec<u8>>, SourceError> {
        if size > limit {
            return Err(SourceError::TooLarge { limit });
        }
        let bytes = match self {
            Self::Layout(layout) => layout.blob(digest, limit).await?,
            #[cfg(feature = "registry")]
            Self::Registry(repository) => repository.blob(digest, size).await?,
        };
        bytes.map(|bytes| checked(bytes, digest, Some(size))).transpose()
    }

    /// The manifests under a tag: content that no digest vouches for.
    async fn tagged(self, tag: &str) -> Result<Vec<Vec<u8>>, SourceError> {
        match self {
            Self::Layout(layout) => {
                let mut found = Vec::new();
                for digest in
                    layout.tagged(tag).iter().filter_map(|descriptor| descriptor.digest).take(MAX_REFERRERS)
                {
                    found.extend(self.manifest(&digest).await?);
                }
                Ok(found)
            }
            #[cfg(feature = "registry")]
            Self::Registry(repository) => Ok(repository.manifest(tag).await?.into_iter().collect()),
        }
    }

    async fn referrers(self, subject: &Sha256) -> Result<Vec<Descriptor>, SourceError> {
        match self {
            Self::Layout(layout) => {
                let mut found = layout.referrers(subject);
                found.extend(referrers_tag(self, subject).await?);
                Ok(found)
            }
            #[cfg(feature = "registry")]
            Self::Registry(repository) => match repository.referrers(subject).await? {
                Some(found) => Ok(found),
                None => referrers_tag(self, subject).await,
            },
        }
    }
}

/// The referrers under the tag that stands for the API where a registry has none (OCI distribution specification, "Referrers tag
/// schema").
async fn referrers_tag(store: Store<'_>, subject: &Sha256) -> Result<Vec<Descriptor>, SourceError> {
    let mut found = Vec::new();
    for bytes in store.tagged(&tag(subject, "")).await? {
        match Document::parse(&bytes)? {
            Document::Index(index) => found.extend(index.manifests),
            Document::Manifest(_) => {
                let reason =
                    format!("the tag {} is a manifest; expected an index of referrers", tag(subject, ""));
                return Err(SourceError::Answer { host: store.name(), what: reason });
            }
        }
    }
    Ok(found)
}

fn tag(digest: &Sha256, suffix: &str) -> String {
    format!("sha256-{digest}{suffix}")
}

fn checked(bytes: Vec<u8>, asked: &Sha256, size: Option<u64>) -> Result<Vec<u8>, SourceError> {
    let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if let Some(said) = size.filter(|said| *said != found) {
        return Err(SourceError::Size { said, found });
    }
    match sha256(&bytes) {
        found if found == *asked => Ok(bytes),
        found => Err(SourceError::Digest { asked: *asked, found }),
    }
}

/// Everything that `store` holds for the image with these digests.
pub(super) async fn walk(store: Store<'_>, digests: &[Sha256], scope: Scope, limits: &Limits) -> Found {
    let mut walk = Walk {
        store,
        scope,
        left: limits.max_envelope_bytes,
        seen: HashSet::new(),
        taken: HashSet::new(),
        found: Found::default(),
    };
    for digest in digests {
        if let Err(error) = walk.start(digest).await {
            walk.found.unreachable = Some(error.to_string());
            break;
        }
    }
    walk.found
}

struct Walk<'a> {
    store: Store<'a>,
    scope: Scope,
    /// Bytes of candidates that may still be read.
    left: u64,
    /// Digests whose evidence was looked for, and configurations.
    seen: HashSet<Sha256>,
    /// Layers that were taken.
    taken: HashSet<Sha256>,
    found: Found,
}

/// Only what ends the walk: the source cannot be reached, or does not let us in.
type Ended = Result<(), SourceError>;

impl Walk<'_> {
    async fn start(&mut self, digest: &Sha256) -> Ended {
        if self.seen.contains(digest) {
            return Ok(());
        }
        // A layout says in which index the manifest is; a registry does not.
        if let Store::Layout(layout) = self.store
            && let Some(index) = layout.parent(digest)
            && !self.seen.contains(&index)
        {
            self.image(&index, Some(digest)).await?;
        }
        if self.seen.contains(digest) { Ok(()) } else { self.image(digest, None).await }
    }

    /// `only`: of an index, this manifest and no other.
    async fn image(&mut self, digest: &Sha256, only: Option<&Sha256>) -> Ended {
        let from = format!("{} sha256:{digest}", self.store.name());
        let document = match self.store.manifest(digest).await {
            Ok(Some(bytes)) => match Document::parse(&bytes) {
                // A layout does not tell manifests from other blobs. From here no way leads to the manifest.
                Err(_) if ImageConfig::parse(&bytes).is_ok() => Ok(None),
                read => read.map(Some).map_err(SourceError::from),
            },
            Ok(None) => Ok(None),
            Err(error) => Err(error),
        };
        match document {
            Ok(Some(Document::Index(index))) => {
                self.found.digests.index = Some(*digest);
                self.evidence(digest).await?;
                self.index(digest, &index, only).await
            }
            Ok(Some(Document::Manifest(manifest))) => {
                self.platform(digest, &manifest).await?;
                self.evidence(digest).await
            }
            // Attestations can be there without the image: mirrors of them, and digests of configurations.
            Ok(None) => self.evidence(digest).await,
            Err(
                error @ (SourceError::Unreachable { .. }
                | SourceError::Denied { .. }
                | SourceError::Credentials { .. }),
            ) => Err(error),
            Err(error) => self.refuse(from, error),
        }
    }

    async fn index(&mut self, digest: &Sha256, index: &Index, only: Option<&Sha256>) -> Ended {
        let wanted: Vec<Sha256> = index
            .manifests
            .iter()
            .filter(|of| of.attests().is_none())
            .filter(|of| match (only, &of.platform) {
                (Some(only), _) => of.digest.as_ref() == Some(only),
                (None, Some(platform)) => self.scope == Scope::All || platform.is_here(),
                (None, None) => true,
            })
            .filter_map(|of| of.digest)
            .collect();
        if wanted.len() > MAX_PLATFORMS {
            let reason = format!("{} manifests; the first {MAX_PLATFORMS} are looked at", wanted.len());
            self.refused(format!("{} sha256:{digest}", self.store.name()), reason);
        }
        let mut statements = false;
        for child in wanted.iter().take(MAX_PLATFORMS) {
            if !self.seen.contains(child) {
                Box::pin(self.image(child, None)).await?;
            }
            let attested = index.manifests.iter().filter(|of| of.attests().as_ref() == Some(child));
            for descriptor in attested.take(MAX_LAYERS) {
                statements |= self.buildkit(digest, descriptor).await?;
            }
        }
        self.found.digests.listed.push(Listed {
            index: *digest,
            manifests: index.manifests.iter().filter_map(|of| of.digest).collect(),
            // Else the others were not looked at.
            here: if only.is_none() { self.here(index) } else { Ok(None) },
        });
        if statements { self.tagged(digest, SIGNATURE_TAG).await } else { Ok(()) }
    }

    /// The manifest of this index that a runtime takes on this machine: the only one whose platform fits. A descriptor need not say
    /// its platform; then the image's configuration does. Of several variants (`arm/v6` and `arm/v7`, `amd64` and `amd64/v3`) it
    /// takes the best one for the processor, which is not imitated here.
    fn here(&self, index: &Index) -> Result<Option<Sha256>, String> {
        let mut fitting: Vec<(Option<Sha256>, String)> = Vec::new();
        for of in index.manifests.iter().filter(|of| of.attests().is_none()) {
            let read = of.digest.and_then(|digest| {
                self.found.digests.platforms.iter().find(|platform| platform.manifest == digest)
            });
            let platform = match (&of.platform, read) {
                (Some(said), _) if !said.is_here() => continue,
                (None, Some(read)) if !read.platform.is_here() => continue,
                (None, None) => {
                    let digest =
                        of.digest.map_or_else(|| "another digest".to_owned(), |of| format!("sha256:{of}"));
                    return Err(format!(
                        "its index lists {digest} without a platform, and what that is could not be read"
                    ));
                }
                (Some(said), Some(read)) if !read.platform.is_here() => {
                    return Err(format!(
                        "its index lists sha256:{} for {said}, whose configuration says {}",
                        read.manifest, read.platform
                    ));
                }
                (Some(said), _) => said,
                (None, Some(read)) => &read.platform,
            };
            if !fitting.iter().any(|(digest, _)| digest.is_some() && *digest == of.digest) {
                fitting.push((of.digest, platform.to_string()));
            }
        }
        match &*fitting {
            [] => Ok(None),
            [(digest, _)] => Ok(*digest),
            several => {
                let names: Vec<_> = several.iter().map(|(_, platform)| platform.as_str()).collect();
                Err(format!("its index has {} images for this machine ({})", several.len(), names.join(", ")))
            }
        }
    }

    async fn platform(&mut self, digest: &Sha256, manifest: &Manifest) -> Ended {
        let from = format!("{} sha256:{digest}, its configuration", self.store.name());
        let Some(config) = manifest.config.digest else {
            self.refused(from, "its digest is not sha256".to_owned());
            return Ok(());
        };
        self.seen.insert(config);
        let parsed = match self.store.blob(&config, manifest.config.size, MAX_DOCUMENT_BYTES).await {
            Ok(Some(bytes)) => ImageConfig::parse(&bytes).map_err(SourceError::from),
            Ok(None) => {
                self.refused(from, "it is not there".to_owned());
                return Ok(());
            }
            Err(error) => Err(error),
        };
        match parsed {
            Ok(ImageConfig { platform, diff_ids }) => {
                self.found.digests.platforms.push(PlatformDigests {
                    platform,
                    manifest: *digest,
                    config,
                    layers: diff_ids,
                });
                Ok(())
            }
            Err(error) => self.refuse(from, error),
        }
    }

    /// Everything that is about this digest.
    async fn evidence(&mut self, target: &Sha256) -> Ended {
        if !self.seen.insert(*target) {
            return Ok(());
        }
        match self.store.referrers(target).await {
            Ok(referrers) => self.referrers(target, &referrers).await?,
            Err(error) => {
                self.refuse(format!("{} referrers of sha256:{target}", self.store.name()), error)?;
            }
        }
        self.tagged(target, ATTESTATION_TAG).await?;
        let sbom = tag(target, SBOM_TAG);
        let from = format!("{}:{sbom}", self.store.name());
        match self.store.tagged(&sbom).await {
            Ok(found) => {
                if !found.is_empty() {
                    let reason =
                        "an SBOM that nobody signed (`cosign attach sbom`): never evidence; attest it";
                    self.other(from, reason.to_owned());
                }
                Ok(())
            }
            Err(error) => self.refuse(from, error),
        }
    }

    async fn referrers(&mut self, target: &Sha256, referrers: &[Descriptor]) -> Ended {
        if referrers.len() > MAX_REFERRERS {
            let reason = format!("{} referrers; the first {MAX_REFERRERS} are looked at", referrers.len());
            self.refused(format!("{} referrers of sha256:{target}", self.store.name()), reason);
        }
        for descriptor in referrers.iter().take(MAX_REFERRERS) {
            let Some(digest) = descriptor.digest else { continue };
            let from = format!("{} referrer sha256:{digest}", self.store.name());
            if let Some(kind) = descriptor.artifact_type.as_deref().filter(|kind| !is_evidence(kind)) {
                self.other(from, not_evidence(kind));
                continue;
            }
            let manifest = match self.store.manifest(&digest).await {
                Ok(Some(bytes)) => Document::parse(&bytes).map_err(SourceError::from),
                Ok(None) => {
                    self.refused(from, "it is not there".to_owned());
                    continue;
                }
                Err(error) => Err(error),
            };
            match manifest {
                Ok(Document::Manifest(manifest)) if manifest.subject.as_ref() == Some(target) => {
                    self.layers(&from, &manifest, &descriptor.annotations).await?;
                }
                Ok(Document::Manifest(_)) => {
                    let reason = format!(
                        "its own subject is not sha256:{target}, though it is listed as its referrer"
                    );
                    self.refused(from, reason);
                }
                Ok(Document::Index(_)) => {
                    self.refused(from, "it is an index; expected a manifest".to_owned());
                }
                Err(error) => self.refuse(from, error)?,
            }
        }
        Ok(())
    }

    /// The layers under a tag of cosign.
    async fn tagged(&mut self, target: &Sha256, suffix: &str) -> Ended {
        let tag = tag(target, suffix);
        let from = format!("{}:{tag}", self.store.name());
        let manifests = match self.store.tagged(&tag).await {
            Ok(manifests) => manifests,
            Err(error) => return self.refuse(from, error),
        };
        for bytes in manifests {
            match Document::parse(&bytes) {
                Ok(Document::Manifest(manifest)) => self.layers(&from, &manifest, &BTreeMap::new()).await?,
                Ok(Document::Index(_)) => {
                    self.refused(from.clone(), "it is an index; expected a manifest".to_owned());
                }
                Err(error) => self.refuse(from.clone(), error.into())?,
            }
        }
        Ok(())
    }

    /// The statements of an attestation manifest; whether there were any.
    async fn buildkit(&mut self, index: &Sha256, descriptor: &Descriptor) -> Result<bool, SourceError> {
        let Some(digest) = descriptor.digest else { return Ok(false) };
        let from = format!("{} BuildKit attestation sha256:{digest}", self.store.name());
        let manifest = match self.store.manifest(&digest).await {
            Ok(Some(bytes)) => Document::parse(&bytes).map_err(SourceError::from),
            Ok(None) => {
                self.refused(from, "it is not there".to_owned());
                return Ok(false);
            }
            Err(error) => Err(error),
        };
        let manifest = match manifest {
            Ok(Document::Manifest(manifest)) => manifest,
            Ok(Document::Index(_)) => {
                self.refused(from, "it is an index; expected a manifest".to_owned());
                return Ok(false);
            }
            Err(error) => return self.refuse(from, error).map(|()| false),
        };
        let before = self.found.candidates.len();
        for layer in self.bounded(&from, &manifest.layers) {
            if layer.media_type != STATEMENT || !self.is_read(&from, predicate_type(layer)) {
                continue;
            }
            self.take(&from, layer, Form::Statement { needs_signed_index: *index }).await?;
        }
        Ok(self.found.candidates.len() > before)
    }

    /// The signed layers of a manifest. `annotations`: of the manifest's descriptor.
    async fn layers(
        &mut self,
        from: &str,
        manifest: &Manifest,
        annotations: &BTreeMap<String, String>,
    ) -> Ended {
        for layer in self.bounded(from, &manifest.layers) {
            let said = predicate_type(layer).or_else(|| predicate_type_of(annotations));
            let form = if layer.media_type == ENVELOPE {
                Form::Envelope { annotations: layer.annotations.clone() }
            } else if layer.media_type.starts_with(BUNDLE) {
                if said == Some(signed_index::PREDICATE_TYPE) { Form::ImageBundle } else { Form::Bundle }
            } else if let (SIMPLE_SIGNING, Some(signature)) =
                (&*layer.media_type, layer.annotation(SIGNATURE))
            {
                let (signature, annotations) = (signature.to_owned(), layer.annotations.clone());
                Form::SimpleSigning { signature, annotations }
            } else {
                self.other(from.to_owned(), not_evidence(&layer.media_type));
                continue;
            };
            if form == Form::ImageBundle || self.is_read(from, said) {
                self.take(from, layer, form).await?;
            }
        }
        Ok(())
    }

    fn bounded<'l>(
        &mut self,
        from: &str,
        layers: &'l [Descriptor],
    ) -> impl Iterator<Item = &'l Descriptor> + use<'l> {
        if layers.len() > MAX_LAYERS {
            let reason = format!("{} layers; the first {MAX_LAYERS} are looked at", layers.len());
            self.refused(from.to_owned(), reason);
        }
        layers.iter().take(MAX_LAYERS)
    }

    /// Whether a predicate of this type is read, if it is said: saves reading the rest, proves nothing.
    fn is_read(&mut self, from: &str, said: Option<&str>) -> bool {
        match said {
            Some(uri) if uri.parse::<PredicateType>().is_err() => {
                self.other(from.to_owned(), format!("predicate type {:?} is not read", shown(uri)));
                false
            }
            Some(_) | None => true,
        }
    }

    async fn take(&mut self, from: &str, layer: &Descriptor, form: Form) -> Ended {
        let Some(digest) = layer.digest else {
            self.refused(from.to_owned(), "the digest of a layer is not sha256".to_owned());
            return Ok(());
        };
        // Signatures of several keys over an image have the same payload.
        if !matches!(form, Form::SimpleSigning { .. }) && !self.taken.insert(digest) {
            return Ok(());
        }
        if self.found.candidates.len() == MAX_CANDIDATES {
            self.refused(from.to_owned(), format!("more than {MAX_CANDIDATES} attestations of one image"));
            return Ok(());
        }
        let from = format!("{from}, layer sha256:{digest}");
        match self.store.blob(&digest, layer.size, self.left).await {
            Ok(Some(bytes)) => {
                self.left = self.left.saturating_sub(layer.size);
                self.found.candidates.push(Candidate { from, sha256: digest, form, bytes });
                Ok(())
            }
            Ok(None) => {
                self.refused(from, "it is not there".to_owned());
                Ok(())
            }
            Err(error) => self.refuse(from, error),
        }
    }

    /// Notes the error and goes on, unless going on has no sense.
    fn refuse(&mut self, from: String, error: SourceError) -> Ended {
        if error.is_unreachable() {
            return Err(error);
        }
        self.refused(from, error.to_string());
        Ok(())
    }

    fn refused(&mut self, from: String, reason: String) {
        self.found.refused.push(Left { from, reason });
    }

    fn other(&mut self, from: String, reason: String) {
        self.found.others.push(Left { from, reason });
    }
}

fn predicate_type(layer: &Descriptor) -> Option<&str> {
    predicate_type_of(&layer.annotations)
}

fn predicate_type_of(annotations: &BTreeMap<String, String>) -> Option<&str> {
    PREDICATE_TYPE.iter().find_map(|key| annotations.get(*key)).map(String::as_str)
}

/// Whether artifacts of this type can be evidence.
fn is_evidence(kind: &str) -> bool {
    kind == ENVELOPE || kind.starts_with(BUNDLE)
}

fn not_evidence(kind: &str) -> String {
    let kind = shown(kind);
    if ["spdx", "cyclonedx", "syft", "sbom"].iter().any(|format| kind.contains(format)) {
        format!("type {kind:?}: an SBOM that nobody signed: never evidence; attest it")
    } else {
        format!("type {kind:?}: not an attestation")
    }
}
