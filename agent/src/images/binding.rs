//! Which document is about which image: by its subjects, and, where the subject stands for several platforms, by what the
//! document itself says of the image that it was made from.
//!
//! What a document calls its own manifest digest is never looked at: syft makes one up when it reads an image from a Docker
//! daemon or an archive.

use crate::finding::{Binding, Sha256};
use crate::identity::Digests;
use crate::sbom::Origin;

/// How a document is tied to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    /// It is about just this image.
    To(Binding),
    /// It may be about another platform's; why.
    Unproven(String),
}

/// How a document with these subjects and this origin is tied to an image; `None`: it is about another one.
pub fn bind(digests: &Digests, subjects: &[Sha256], origin: &Origin) -> Option<Bound> {
    let is = |digest: Option<Sha256>| digest.is_some_and(|digest| subjects.contains(&digest));
    let Digests { image, index, manifest, config, verity, os_release, key, .. } = digests;
    if verity.iter().any(|hash| subjects.contains(hash)) {
        return Some(Bound::To(Binding::VerityRoot));
    }
    // What a host is made from is in no document of an image: what such a document says of an origin is of something else.
    for (digest, binding) in [(os_release, Binding::OsRelease), (key, Binding::Key)] {
        if is(*digest) {
            return Some(Bound::To(binding));
        }
    }
    let (is_index, is_image) = (is(*index), is(*image));
    let own = [(config, Binding::ConfigDigest), (manifest, Binding::ManifestDigest)];
    let own = own.into_iter().find(|(digest, _)| is(**digest)).map(|(_, binding)| binding);
    if !is_index && !is_image && own.is_none() {
        return None;
    }
    let platform = platform(digests, origin);
    if let Some(binding) = own {
        // A statement may have several subjects, and its document be of another one of them.
        return Some(match platform {
            Platform::Other(why) => Bound::Unproven(why),
            Platform::Proven | Platform::Unsaid => Bound::To(binding),
        });
    }
    Some(match (platform, is_index) {
        (Platform::Other(why), _) => Bound::Unproven(why),
        (Platform::Proven, true) => Bound::To(Binding::IndexDigest),
        (Platform::Unsaid, true) => Bound::Unproven(
            "its subject is the image's index, which stands for several platforms, and nothing in it proves the platform; sign \
             each platform's SBOM with that platform's manifest digest as the subject"
                .to_owned(),
        ),
        (Platform::Proven, false) if origin.config.is_some() && origin.config == *image => {
            Bound::To(Binding::ConfigDigest)
        }
        (Platform::Proven | Platform::Unsaid, false) => Bound::To(Binding::ImageDigest),
    })
}

enum Platform {
    Proven,
    /// The document says nothing that can be compared.
    Unsaid,
    Other(String),
}

fn platform(digests: &Digests, origin: &Origin) -> Platform {
    if let Some(said) = origin.config {
        if said.is_zero() {
            return Platform::Other("it names two different images that it was made from".to_owned());
        }
        if Some(said) == digests.config || Some(said) == digests.image {
            return Platform::Proven;
        }
        if let Some(own) = digests.config {
            return Platform::Other(format!(
                "it was made from the image with config sha256:{said}, this one has sha256:{own}"
            ));
        }
    }
    if !origin.layers.is_empty() && !digests.layers.is_empty() {
        if let Some(other) = origin.layers.iter().find(|layer| !digests.layers.contains(layer)) {
            return Platform::Other(format!(
                "it was made from an image with layer sha256:{other}, which this one does not have"
            ));
        }
        // Images share their lower layers with others that are made from them.
        return match digests.layers.last().filter(|top| !origin.layers.contains(top)) {
            None => Platform::Proven,
            Some(top) => Platform::Other(format!(
                "it was made from an image without layer sha256:{top}, which is the uppermost one of this image"
            )),
        };
    }
    match (&origin.architecture, &digests.architecture) {
        (Some(said), Some(own)) if said != own => {
            Platform::Other(format!("it was made from an image for {said:?}, this one is for {own:?}"))
        }
        _ => Platform::Unsaid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(byte: u8) -> Sha256 {
        Sha256([byte; 32])
    }

    #[test]
    fn every_kind_of_subject() {
        let (image, index, manifest, config) = (s(1), s(2), s(3), s(4));
        let all = Digests {
            index: Some(index),
            manifest: Some(manifest),
            config: Some(config),
            layers: vec![s(10), s(11)],
            architecture: Some("amd64".into()),
            ..Digests::named(image)
        };
        let alone = Digests { architecture: Some("amd64".into()), ..Digests::named(image) };
        let no_layers = Digests { layers: Vec::new(), ..all.clone() };
        let index_only = Digests { index: Some(index), ..Digests::default() };
        let is_index = Digests { index: Some(image), ..alone.clone() };
        let host = Digests {
            verity: vec![s(20), s(21)],
            os_release: Some(s(22)),
            key: Some(s(23)),
            ..Digests::default()
        };
        let says = |config: Option<u8>, layers: &[u8], architecture: &str| Origin {
            config: config.map(s),
            layers: layers.iter().copied().map(s).collect(),
            architecture: (!architecture.is_empty()).then(|| architecture.to_owned()),
        };
        let nothing = says(None, &[], "");
        let to = |binding| Some(Ok(binding));
        let unproven = |why: &'static str| Some(Err(why));
        for (what, digests, subjects, origin, expected) in [
            ("another image", &all, &[9][..], &nothing, None),
            ("no subject", &all, &[], &nothing, None),
            ("config", &all, &[4], &nothing, to(Binding::ConfigDigest)),
            ("manifest", &all, &[9, 3], &nothing, to(Binding::ManifestDigest)),
            ("the stronger of two", &all, &[2, 3, 4], &nothing, to(Binding::ConfigDigest)),
            (
                "a manifest, but made from another image",
                &all,
                &[3],
                &says(Some(9), &[9], "arm64"),
                unproven("config sha256:0909"),
            ),
            (
                "a config, but made from other layers",
                &all,
                &[4],
                &says(None, &[10, 12], ""),
                unproven("layer sha256:0c0c"),
            ),
            (
                "a manifest, but for another architecture",
                &all,
                &[3],
                &says(None, &[], "arm64"),
                unproven("for \"arm64\""),
            ),
            ("a manifest, proven", &all, &[3], &says(Some(4), &[], ""), to(Binding::ManifestDigest)),
            ("a manifest needs no proof", &all, &[3], &nothing, to(Binding::ManifestDigest)),
            ("index, config equal", &all, &[2], &says(Some(4), &[], ""), to(Binding::IndexDigest)),
            (
                "index, config equal counts before the rest",
                &all,
                &[2],
                &says(Some(4), &[9], "arm"),
                to(Binding::IndexDigest),
            ),
            (
                "index, config differs",
                &all,
                &[2],
                &says(Some(9), &[10], "amd64"),
                unproven("config sha256:0909"),
            ),
            (
                "index, two configs said",
                &all,
                &[2],
                &says(Some(0), &[10], ""),
                unproven("two different images"),
            ),
            ("index, all layers", &all, &[2], &says(None, &[10, 11], ""), to(Binding::IndexDigest)),
            ("index, the uppermost layer", &all, &[2], &says(None, &[11], ""), to(Binding::IndexDigest)),
            (
                "index, only what others share",
                &all,
                &[2],
                &says(None, &[10], ""),
                unproven("without layer sha256:0b0b"),
            ),
            (
                "index, one layer too many",
                &all,
                &[2],
                &says(None, &[10, 12], ""),
                unproven("layer sha256:0c0c"),
            ),
            (
                "index, layers not known here",
                &no_layers,
                &[2],
                &says(None, &[10], ""),
                unproven("proves the platform"),
            ),
            (
                "index, config not known here",
                &index_only,
                &[2],
                &says(Some(4), &[], ""),
                unproven("proves the platform"),
            ),
            (
                "index, the same architecture is no proof",
                &all,
                &[2],
                &says(None, &[], "amd64"),
                unproven("proves the platform"),
            ),
            ("index, another architecture", &all, &[2], &says(None, &[], "arm64"), unproven("for \"arm64\"")),
            ("index, nothing said", &all, &[2], &nothing, unproven("proves the platform")),
            ("unknown kind", &alone, &[1], &nothing, to(Binding::ImageDigest)),
            (
                "unknown kind, which is the config",
                &alone,
                &[1],
                &says(Some(1), &[], ""),
                to(Binding::ConfigDigest),
            ),
            (
                "unknown kind, another architecture",
                &alone,
                &[1],
                &says(None, &[], "arm64"),
                unproven("for \"arm64\""),
            ),
            (
                "unknown kind, same architecture",
                &alone,
                &[1],
                &says(Some(9), &[9], "amd64"),
                to(Binding::ImageDigest),
            ),
            (
                "unknown kind, config differs",
                &all,
                &[1],
                &says(Some(9), &[], ""),
                unproven("config sha256:0909"),
            ),
            ("unknown kind, proven", &all, &[1], &says(Some(4), &[], ""), to(Binding::ImageDigest)),
            ("said to be the index", &is_index, &[1], &nothing, unproven("proves the platform")),
            ("verity", &host, &[21, 22, 23], &nothing, to(Binding::VerityRoot)),
            ("os-release", &host, &[22, 23], &nothing, to(Binding::OsRelease)),
            ("only the key", &host, &[23], &says(Some(9), &[9], "arm64"), to(Binding::Key)),
            ("another host", &host, &[24], &nothing, None),
        ] {
            let subjects: Vec<_> = subjects.iter().copied().map(s).collect();
            match (bind(digests, &subjects, origin), expected) {
                (None, None) => {}
                (Some(Bound::To(found)), Some(Ok(expected))) => assert_eq!(found, expected, "{what}"),
                (Some(Bound::Unproven(why)), Some(Err(part))) => assert!(why.contains(part), "{what}: {why}"),
                (found, expected) => panic!("{what}: expected {expected:?}, found {found:?}"),
            }
        }
    }
}
