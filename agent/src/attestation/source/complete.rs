//! What sources have proven of an image completes what the configuration says of it.
//!
//! Each digest was hashed again on the way from one that the configuration names, so nothing of this is a source's word: a manifest
//! has one configuration, and a configuration has all layers. Only of an index there is a choice, which is taken where just one of
//! its images fits this machine.

use super::{ImageDigests, PlatformDigests};
use crate::identity::Digests;

/// The digests of an image with what was learned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Complete {
    /// What is known now; `None`: nothing more than before.
    pub digests: Option<Digests>,
    /// Why what was found is not taken.
    pub doubt: Option<String>,
}

impl Complete {
    fn doubt(reason: String) -> Self {
        Self { digests: None, doubt: Some(reason) }
    }
}

impl ImageDigests {
    /// Completes what the configuration says of the image. It wins: where something that was found differs from it, nothing is taken.
    pub fn complete(&self, said: &Digests) -> Complete {
        let index = self.listed.iter().find(|listed| {
            said.index.map_or(said.image == Some(listed.index), |index| index == listed.index)
        });
        let named = |platform: &&PlatformDigests| match (said.manifest, said.config) {
            (Some(manifest), _) => manifest == platform.manifest,
            (None, Some(config)) => config == platform.config,
            (None, None) => {
                said.image.is_some_and(|image| [platform.manifest, platform.config].contains(&image))
            }
        };
        let mut platforms = self.platforms.iter().filter(named);
        // That it is an index is certain, whichever of its images this is.
        let kind = index.map(|listed| Digests { index: Some(listed.index), ..said.clone() });
        let kind = kind.filter(|kind| kind != said);
        let (platform, is_only) = match (platforms.next(), index) {
            (Some(platform), _) => (platform, platforms.next().is_none()),
            (None, Some(_)) if said.manifest.is_some() => return Complete::default(),
            (None, None) => return Complete::default(),
            (None, Some(listed)) => match &listed.here {
                Ok(here) => {
                    let found = self.platforms.iter().find(|platform| Some(platform.manifest) == *here);
                    let Some(platform) = found.filter(|found| found.platform.is_here()) else {
                        return Complete { digests: kind, doubt: None };
                    };
                    (platform, true)
                }
                Err(why) => {
                    let doubt = format!(
                        "{why}, and nobody can say which one runs; name `manifest` or `config` in [[workload]]"
                    );
                    return Complete { digests: kind, doubt: Some(doubt) };
                }
            },
        };
        let PlatformDigests { platform: of, manifest, config, layers } = platform;
        // The same configuration can be packed twice.
        let manifest = Some(*manifest).filter(|manifest| is_only || said.manifest == Some(*manifest));
        let mut listing = self.listed.iter().filter(|listed| listed.manifests.contains(&platform.manifest));
        let listed_in = match (index, listing.next(), listing.next()) {
            (Some(index), ..) => Some(index.index),
            (None, Some(only), None) if said.index.is_none() && is_only => Some(only.index),
            _ => None,
        };
        let learned = Digests {
            image: said.image,
            index: listed_in.or(said.index),
            manifest,
            config: Some(*config),
            layers: layers.clone(),
            architecture: Some(of.architecture.clone()),
            ..said.clone()
        };
        if let Some(index) = index.filter(|index| !index.manifests.contains(&platform.manifest)) {
            return Complete::doubt(format!(
                "the index sha256:{} does not list its manifest sha256:{}; what the configuration says stays",
                index.index, platform.manifest
            ));
        }
        let other = [
            ("manifest", said.manifest, learned.manifest),
            ("config", said.config, learned.config),
            ("index", said.index, learned.index),
        ];
        let differs = |(kind, said, found): &(&'static str, _, _)| match (said, found) {
            (Some(said), Some(found)) if said != found => {
                Some(format!("`{kind}` is sha256:{said} in [[workload]], but sha256:{found} was found"))
            }
            _ => None,
        };
        let kinds = [learned.index, learned.manifest, learned.config];
        let why = if let Some(why) = other.iter().find_map(differs) {
            why
        } else if !said.layers.is_empty() && said.layers != *layers {
            format!("`layers` in [[workload]] are not those of its configuration sha256:{config}")
        } else if let Some(image) = said.image.filter(|image| !kinds.contains(&Some(*image))) {
            format!(
                "`image` sha256:{image} in [[workload]] is neither its index, nor its manifest, nor its configuration"
            )
        } else {
            return Complete { digests: Some(learned).filter(|learned| learned != said), doubt: None };
        };
        Complete::doubt(format!("{why}; what the configuration says stays"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attestation::source::Listed;
    use crate::attestation::source::oci::Platform;
    use crate::finding::Sha256;

    fn s(byte: u8) -> Sha256 {
        Sha256([byte; 32])
    }

    fn platform(architecture: &str, manifest: u8, config: u8, layer: u8) -> PlatformDigests {
        PlatformDigests {
            platform: Platform { os: "linux".into(), architecture: architecture.into(), variant: None },
            manifest: s(manifest),
            config: s(config),
            layers: vec![s(layer)],
        }
    }

    #[test]
    fn the_configuration_is_completed_and_never_contradicted() {
        let here_is = crate::identity::architecture();
        let listed = |index, manifests: &[u8], here| Listed {
            index: s(index),
            manifests: manifests.iter().copied().map(s).collect(),
            here,
        };
        let here = |byte| Ok(Some(s(byte)));
        // Index 1 has one for this machine (11, 12, 13) and another one (21, 22, 23).
        let found = ImageDigests {
            index: Some(s(1)),
            platforms: vec![platform(&here_is, 11, 12, 13), platform("s390x", 21, 22, 23)],
            listed: vec![listed(1, &[11, 21], here(11))],
        };
        let unsure =
            ImageDigests { listed: vec![listed(1, &[11, 21], Err("two of them".into()))], ..found.clone() };
        let none_here = ImageDigests { listed: vec![listed(1, &[11, 21], Ok(None))], ..found.clone() };
        let no_index = ImageDigests { index: None, listed: Vec::new(), ..found.clone() };
        let packed_twice = ImageDigests {
            index: None,
            platforms: vec![platform(&here_is, 11, 12, 13), platform(&here_is, 31, 12, 13)],
            listed: Vec::new(),
        };
        let two_indexes = ImageDigests {
            listed: vec![listed(1, &[11], here(11)), listed(2, &[11], here(11))],
            ..found.clone()
        };
        let said = |image: u8| Digests { architecture: Some(here_is.clone()), ..Digests::named(s(image)) };
        let full = |image: u8, index: Option<u8>, manifest: Option<u8>, of: u8, architecture: &str| {
            Ok(Some(Digests {
                index: index.map(s),
                manifest: manifest.map(s),
                config: Some(s(of + 2)),
                layers: vec![s(of + 3)],
                architecture: Some(architecture.into()),
                ..Digests::named(s(image))
            }))
        };
        let an_index = Some(Digests { index: Some(s(1)), ..said(1) });
        for (what, found, said, expected) in [
            ("the index", &found, said(1), full(1, Some(1), Some(11), 10, &here_is)),
            ("a manifest", &found, said(11), full(11, Some(1), Some(11), 10, &here_is)),
            ("a manifest for another machine", &found, said(21), full(21, Some(1), Some(21), 20, "s390x")),
            ("a configuration", &found, said(12), full(12, Some(1), Some(11), 10, &here_is)),
            ("a manifest without an index", &no_index, said(11), full(11, None, Some(11), 10, &here_is)),
            ("in two indexes", &two_indexes, said(11), full(11, None, Some(11), 10, &here_is)),
            (
                "in two indexes, one is said",
                &two_indexes,
                Digests { index: Some(s(2)), ..said(11) },
                full(11, Some(2), Some(11), 10, &here_is),
            ),
            ("packed twice", &packed_twice, said(12), full(12, None, None, 10, &here_is)),
            (
                "the other platform is said",
                &found,
                Digests { manifest: Some(s(21)), ..said(1) },
                full(1, Some(1), Some(21), 20, "s390x"),
            ),
            ("a manifest that was not found", &found, Digests { manifest: Some(s(99)), ..said(1) }, Ok(None)),
            ("not to be chosen", &unsure, said(1), Err("two of them, and nobody can say")),
            ("not to be chosen, but said", &unsure, said(11), full(11, Some(1), Some(11), 10, &here_is)),
            ("nothing for this machine", &none_here, said(1), Ok(an_index.clone())),
            ("nothing found", &ImageDigests::default(), said(1), Ok(None)),
            ("another image", &found, said(99), Ok(None)),
            (
                "another configuration is said",
                &found,
                Digests { config: Some(s(99)), ..said(1) },
                Err("`config` is sha256:6363"),
            ),
            (
                "another configuration of the manifest",
                &found,
                Digests { config: Some(s(22)), ..said(11) },
                Err("neither its index"),
            ),
            (
                "other layers are said",
                &found,
                Digests { layers: vec![s(99)], ..said(1) },
                Err("`layers` in [[workload]]"),
            ),
            (
                "another index is said, which does not list it",
                &ImageDigests { listed: vec![listed(3, &[21], here(21))], ..found.clone() },
                Digests { index: Some(s(3)), ..said(11) },
                Err("does not list its manifest"),
            ),
            (
                "an image of which nobody knows what it is",
                &found,
                Digests { index: Some(s(1)), ..said(99) },
                Err("neither its index"),
            ),
            ("a host", &found, Digests { key: Some(s(1)), ..Digests::default() }, Ok(None)),
        ] {
            let Complete { digests, doubt } = found.complete(&said);
            match (doubt, expected) {
                (None, Ok(expected)) => assert_eq!(digests, expected, "{what}"),
                (Some(why), Err(part)) => {
                    assert!(why.contains(part), "{what}: {why}");
                    assert!(digests.is_none_or(|digests| digests.config == said.config), "{what}");
                }
                (doubt, expected) => panic!("{what}: expected {expected:?}, found {doubt:?} and {digests:?}"),
            }
        }
        assert_eq!(unsure.complete(&said(1)).digests, an_index, "so much is certain");
        // Everything is known: nothing is new.
        let all = found.complete(&said(1)).digests.expect("completed");
        assert_eq!(found.complete(&all), Complete::default());
    }
}
