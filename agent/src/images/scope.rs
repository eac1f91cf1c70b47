//! Who may sign for which image: `signers` of `[[workload]]` and `[host]`. Without them everybody may who may sign at all.

use std::collections::BTreeSet;

use crate::attestation::{KeyId, Keys, Remembered, Signers};
use crate::config::{Config, Identity};
use crate::finding::Sha256;
use crate::identity::Digests;

/// Who may sign for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scope {
    /// Of an image with one of these digests; `None`: of the host.
    subjects: Option<Vec<Sha256>>,
    keys: BTreeSet<KeyId>,
    threshold: usize,
    identities: Vec<Identity>,
}

impl Scope {
    /// Of a configuration, with the keys as they were read.
    pub(super) fn all(config: &Config, remembered: &Remembered) -> Vec<Self> {
        let scope = |subjects, names: &Vec<String>| {
            let keys = remembered
                .keys
                .iter()
                .filter(|(path, _)| names.iter().any(|name| path.as_os_str() == name.as_str()));
            Self {
                subjects,
                keys: keys.filter_map(|(_, pem)| Keys::default().add_pem(pem).ok()).collect(),
                threshold: config.attestation.threshold,
                identities: config
                    .attestation
                    .identities
                    .iter()
                    .filter(|identity| names.contains(&identity.identity))
                    .cloned()
                    .collect(),
            }
        };
        let workloads = config.workloads.iter().filter_map(|workload| {
            Some(scope(Some(workload.digests().subjects().collect()), workload.signers.as_ref()?))
        });
        workloads.chain(config.host.signers.iter().map(|names| scope(None, names))).collect()
    }

    fn is_of(&self, digests: &Digests) -> bool {
        match &self.subjects {
            Some(subjects) => digests.subjects().any(|digest| subjects.contains(&digest)),
            None => digests.key.is_some() || digests.os_release.is_some() || !digests.verity.is_empty(),
        }
    }

    fn permits(&self, signers: &Signers) -> bool {
        match &signers.identity {
            Some(of) => self.identities.iter().any(|allowed| allowed.covers(&of.identity, &of.issuer)),
            None => signers.keys.iter().filter(|key| self.keys.contains(key)).count() >= self.threshold,
        }
    }
}

/// Those who have signed may sign for this image.
pub(super) fn permits(scopes: &[Scope], digests: &Digests, signers: &Signers) -> bool {
    scopes.iter().filter(|scope| scope.is_of(digests)).all(|scope| scope.permits(signers))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attestation::SignerIdentity;

    #[test]
    fn each_image_has_its_own_signers() {
        let key = |byte: u8| KeyId(Sha256([byte; 32]));
        let who = |identity: &str| Identity { identity: identity.into(), issuer: "https://issuer".into() };
        let scope = |subjects, keys: &[u8], identities: &[&str]| Scope {
            subjects,
            keys: keys.iter().map(|byte| key(*byte)).collect(),
            threshold: 1,
            identities: identities.iter().map(|identity| who(identity)).collect(),
        };
        let image = Sha256([7; 32]);
        let scopes = [scope(Some(vec![image]), &[1], &["https://ci/a/**"]), scope(None, &[2], &[])];
        let by_key = |byte| Signers { keys: vec![key(byte)], identity: None };
        let by = |identity: &str| {
            let of = SignerIdentity { identity: identity.into(), issuer: "https://issuer".into() };
            Signers { keys: Vec::new(), identity: Some(of) }
        };
        let (web, other) = (Digests::named(image), Digests::named(Sha256([8; 32])));
        let host = Digests { os_release: Some(Sha256([9; 32])), ..Digests::default() };
        for (digests, signers, expected) in [
            (&web, by_key(1), true),
            (&web, by_key(2), false),
            (&web, by("https://ci/a/x@main"), true),
            (&web, by("https://ci/b/x@main"), false),
            (&host, by_key(2), true),
            (&host, by_key(1), false),
            (&host, by("https://ci/a/x@main"), false),
            (&other, by_key(1), true),
            (&other, by("https://ci/b/x@main"), true),
        ] {
            assert_eq!(permits(&scopes, digests, &signers), expected, "{digests:?} {signers:?}");
        }
        // k of n holds for those who may sign, too.
        let two = [Scope { threshold: 2, ..scope(Some(vec![image]), &[1, 2], &[]) }];
        let signed =
            |keys: &[u8]| Signers { keys: keys.iter().map(|byte| key(*byte)).collect(), identity: None };
        assert!(permits(&two, &web, &signed(&[1, 2])) && !permits(&two, &web, &signed(&[1, 3])));
    }
}
