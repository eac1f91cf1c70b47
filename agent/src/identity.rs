//! What names an image on this node: every digest that an attestation may have as its subject, and what proves that a
//! document is about this platform's image and not about another one of the same index.

use std::hash::{Hash, Hasher};

use serde::{Deserialize, Serialize};

use crate::finding::Sha256;

/// Layers of one image at most; overlayfs takes 500.
pub const MAX_LAYERS: usize = 1024;

/// The digests of one image.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Digests {
    /// A digest that somebody named without saying of which kind it is.
    pub image: Option<Sha256>,
    /// The index: stands for several platforms.
    pub index: Option<Sha256>,
    /// The platform's manifest.
    pub manifest: Option<Sha256>,
    /// The image's configuration: the image id.
    pub config: Option<Sha256>,
    /// Its layers, uncompressed (`diff_ids`), lowest first.
    pub layers: Vec<Sha256>,
    /// Its architecture, as OCI names it (`amd64`, `arm64`).
    pub architecture: Option<String>,
    /// Hosts: dm-verity root hashes of what is mounted at `/` and `/usr`.
    pub verity: Vec<Sha256>,
    /// Hosts: digest of `IMAGE_ID` and `IMAGE_VERSION`.
    pub os_release: Option<Sha256>,
    /// Hosts: the digest that the configuration names.
    pub key: Option<Sha256>,
}

/// One digest tells images apart well enough, and this is asked for each event.
impl Hash for Digests {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.shown().hash(state);
    }
}

impl Digests {
    /// An image of which one digest is known, of whatever kind.
    pub fn named(image: Sha256) -> Self {
        Self { image: Some(image), ..Self::default() }
    }

    /// Everything that a subject may be, each once.
    pub fn subjects(&self) -> impl Iterator<Item = Sha256> + '_ {
        let one = [self.key, self.image, self.config, self.manifest, self.index, self.os_release];
        let all: smallvec::SmallVec<[Sha256; 8]> =
            one.into_iter().flatten().chain(self.verity.iter().copied()).collect();
        let mut seen = smallvec::SmallVec::<[Sha256; 8]>::new();
        for digest in all {
            if !seen.contains(&digest) {
                seen.push(digest);
            }
        }
        seen.into_iter()
    }

    /// The digest under which it is shown: the one that somebody named, else the most telling one. `None`: no digest is known.
    pub fn shown(&self) -> Option<Sha256> {
        let Self { image, index, manifest, config, layers: _, architecture: _, verity, os_release, key } =
            self;
        image.or(*key).or(*config).or(*manifest).or(verity.first().copied()).or(*os_release).or(*index)
    }

    /// No attestation can be about it.
    pub fn is_empty(&self) -> bool {
        self.subjects().next().is_none()
    }

    /// Both are about one image: a digest that only one image has is in both, and nothing in them differs.
    ///
    /// An index proves nothing here, for one node may run two of its platforms.
    pub fn united(&self, other: &Self) -> Option<Self> {
        let own =
            |d: &Self| [d.config, d.manifest, d.os_release, d.key].into_iter().flatten().collect::<Vec<_>>();
        let common = own(self).iter().any(|d| own(other).contains(d))
            || self.verity.iter().any(|d| other.verity.contains(d))
            || self.image.is_some_and(|d| other.subjects().any(|o| o == d))
            || other.image.is_some_and(|d| self.subjects().any(|o| o == d));
        if !common {
            return None;
        }
        fn one<T: PartialEq + Clone>(a: &Option<T>, b: &Option<T>) -> Option<Option<T>> {
            match (a, b) {
                (Some(a), Some(b)) if a != b => None,
                _ => Some(a.clone().or_else(|| b.clone())),
            }
        }
        fn list(a: &[Sha256], b: &[Sha256]) -> Option<Vec<Sha256>> {
            match (a, b) {
                ([], all) | (all, []) => Some(all.to_vec()),
                _ => (a == b).then(|| a.to_vec()),
            }
        }
        let mut united = Self {
            image: None,
            index: one(&self.index, &other.index)?,
            manifest: one(&self.manifest, &other.manifest)?,
            config: one(&self.config, &other.config)?,
            layers: list(&self.layers, &other.layers)?,
            architecture: one(&self.architecture, &other.architecture)?,
            verity: list(&self.verity, &other.verity)?,
            os_release: one(&self.os_release, &other.os_release)?,
            key: one(&self.key, &other.key)?,
        };
        // A digest whose kind the other one knows is not of unknown kind any more.
        let known: Vec<_> = united.subjects().collect();
        let image = |d: &Self| d.image.filter(|image| !known.contains(image));
        united.image = one(&image(self), &image(other))?;
        Some(united)
    }
}

/// The architecture of this machine, as OCI (Go) names it.
pub fn architecture() -> String {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(byte: u8) -> Option<Sha256> {
        Some(Sha256([byte; 32]))
    }

    #[test]
    fn one_image_or_two() {
        let none = Digests::default;
        let layers = |bytes: &[u8]| bytes.iter().map(|b| Sha256([*b; 32])).collect::<Vec<_>>();
        for (what, a, b, expected) in [
            (
                "nothing in common",
                Digests { config: d(1), ..none() },
                Digests { config: d(2), ..none() },
                None,
            ),
            (
                "one manifest",
                Digests { manifest: d(1), layers: layers(&[7]), ..none() },
                Digests { manifest: d(1), config: d(2), index: d(3), ..none() },
                Some(Digests { manifest: d(1), config: d(2), index: d(3), layers: layers(&[7]), ..none() }),
            ),
            (
                "a digest whose kind the other knows",
                Digests::named(Sha256([2; 32])),
                Digests { manifest: d(1), config: d(2), ..none() },
                Some(Digests { manifest: d(1), config: d(2), ..none() }),
            ),
            (
                "two platforms of an index",
                Digests { index: d(3), config: d(1), ..none() },
                Digests { index: d(3), config: d(2), ..none() },
                None,
            ),
            (
                "an index alone and a platform of it",
                Digests { index: d(3), ..none() },
                Digests { index: d(3), config: d(2), ..none() },
                None,
            ),
            (
                "one configuration with different layers cannot be",
                Digests { config: d(1), layers: layers(&[7]), ..none() },
                Digests { config: d(1), layers: layers(&[8]), ..none() },
                None,
            ),
            (
                "one configuration, packed twice",
                Digests { config: d(1), manifest: d(4), ..none() },
                Digests { config: d(1), manifest: d(5), ..none() },
                None,
            ),
            (
                "a host",
                Digests { key: d(1), os_release: d(2), ..none() },
                Digests::named(Sha256([2; 32])),
                Some(Digests { key: d(1), os_release: d(2), ..none() }),
            ),
        ] {
            assert_eq!(a.united(&b), expected, "{what}");
            assert_eq!(b.united(&a), expected, "{what}, the other way");
        }
    }

    #[test]
    fn subjects_are_named_once() {
        let digests = Digests {
            image: d(1),
            config: d(1),
            index: d(2),
            verity: vec![Sha256([2; 32])],
            ..Digests::default()
        };
        assert_eq!(digests.subjects().collect::<Vec<_>>(), [Sha256([1; 32]), Sha256([2; 32])]);
        assert_eq!(digests.shown(), d(1));
        assert!(Digests { layers: vec![Sha256([1; 32])], ..Digests::default() }.is_empty());
        assert_eq!(Digests::default().shown(), None);
    }
}
