//! Which image a document says it was made from.

use crate::finding::Sha256;

/// Layers that a document may name; an image has at most 127 (overlayfs).
const MAX_LAYERS: usize = 256;

/// What a document itself says of its image. A statement whose subject is an image *index* names several platforms: this tells
/// which of them the document is about.
///
/// A manifest digest is left out on purpose: that of syft-json is made up where the image came from an engine or an archive, and
/// exists in no registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The image id: digest of the image's configuration.
    pub config: Option<Sha256>,
    /// `diff_id`s: digests of the unpacked layers, in no particular order.
    pub layers: Vec<Sha256>,
    /// Architecture, as in the image's configuration (`amd64`).
    pub architecture: Option<String>,
}

impl Origin {
    /// Takes `sha256:HEX` as the image id. Two different ones are none.
    pub(super) fn add_config(&mut self, text: &str) {
        let Some(digest) = digest(text) else { return };
        match self.config {
            None => self.config = Some(digest),
            Some(known) if known == digest => {}
            // Never a digest, so nothing can be bound by it.
            Some(_) => self.config = Some(Sha256::default()),
        }
    }

    /// Takes `sha256:HEX` as a layer.
    pub(super) fn add_layer(&mut self, text: &str) {
        // Most files are of the layer of the file before.
        let is_known = |digest: &Sha256| self.layers.last() == Some(digest) || self.layers.contains(digest);
        if let Some(digest) = digest(text).filter(|digest| !is_known(digest))
            && self.layers.len() < MAX_LAYERS
        {
            self.layers.push(digest);
        }
    }

    /// `layerID: sha256:HEX`, as syft and BuildKit comment on a file.
    pub(super) fn add_comment(&mut self, comment: &str) {
        if let Some(layer) = comment.trim().strip_prefix("layerID:") {
            self.add_layer(layer.trim());
        }
    }

    /// `ImageID: sha256:HEX`, `DiffID: sha256:HEX`: trivy's attributions.
    pub(super) fn add_attribution(&mut self, text: &str) {
        match text.split_once(':').map(|(key, value)| (key.trim(), value.trim())) {
            Some(("ImageID", id)) => self.add_config(id),
            Some(("DiffID" | "LayerDiffID", id)) => self.add_layer(id),
            _ => {}
        }
    }

    /// A property of CycloneDX by trivy or syft.
    pub(super) fn add_property(&mut self, name: &str, value: &str) {
        match name {
            "aquasecurity:trivy:ImageID" => self.add_config(value),
            "aquasecurity:trivy:DiffID" | "aquasecurity:trivy:LayerDiffID" => self.add_layer(value),
            _ if name.starts_with("syft:location:") && name.ends_with(":layerID") => self.add_layer(value),
            _ => {}
        }
    }

    /// Takes the architecture of an image's package URL: `pkg:oci/NAME@DIGEST?arch=amd64&…`. The digest in it is left out: syft's
    /// is the manifest digest.
    pub(super) fn add_purl(&mut self, purl: &str) {
        if !purl.starts_with("pkg:oci/") || self.architecture.is_some() {
            return;
        }
        let qualifiers =
            purl.split_once('?').map_or("", |(_, rest)| rest.split('#').next().unwrap_or_default());
        let arch = qualifiers.split('&').find_map(|pair| pair.strip_prefix("arch="));
        self.architecture = arch.filter(|arch| !arch.is_empty()).map(str::to_owned);
    }

    /// Adds what another document of the same image says.
    pub(super) fn unite(&mut self, other: &Self) {
        if let Some(config) = other.config {
            self.add_config(&format!("sha256:{config}"));
        }
        for layer in &other.layers {
            self.add_layer(&format!("sha256:{layer}"));
        }
        if self.architecture.is_none() {
            self.architecture.clone_from(&other.architecture);
        }
    }
}

fn digest(text: &str) -> Option<Sha256> {
    text.starts_with("sha256:").then(|| text.parse::<Sha256>().ok())?.filter(|digest| !digest.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digests_count() {
        let one = format!("sha256:{}", "1".repeat(64));
        let two = format!("sha256:{}", "2".repeat(64));
        let mut origin = Origin::default();
        origin.add_comment(&format!("layerID: {one}"));
        origin.add_comment(&format!("layerID: {one}"));
        origin.add_comment("layerID: sha256:12");
        origin.add_comment(&one);
        origin.add_property("syft:location:12:layerID", &two);
        origin.add_property("syft:location:0:path", &two);
        origin.add_attribution(&format!("DiffID: {one}"));
        origin.add_layer(&format!("sha256:{}", "0".repeat(64)));
        assert_eq!(origin.layers.len(), 2);
        assert_eq!(origin.config, None);
        origin.add_attribution(&format!("ImageID: {one}"));
        assert_eq!(origin.config, one.parse().ok());
        origin.add_purl("pkg:deb/x@1?arch=arm64");
        origin.add_purl("pkg:oci/x@sha256:1?arch=");
        assert_eq!(origin.architecture, None);
        origin.add_purl("pkg:oci/x@sha256:1?tag=a&arch=amd64#p");
        assert_eq!(origin.architecture.as_deref(), Some("amd64"));
        origin.add_property("aquasecurity:trivy:ImageID", &two);
        assert_eq!(origin.config, Some(Sha256::default()), "two image ids prove none");
    }
}
