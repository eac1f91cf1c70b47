//! Keys and trust root as the configuration names them, and as they were when they could last be read.
//!
//! A file that is gone, or that is no key any more, takes nothing back that was verified by it: whoever has root would otherwise
//! blind the sensor by deleting it. It is told for as long as it lasts. Another key in its place, or another configuration, is a
//! change on purpose and counts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::key::MAX_KEY_FILE;
use super::trust_root::MAX_BYTES;
use super::{KeyError, KeyId, Keys, Policy, PolicyError, TrustRoot};
use crate::config;
use crate::guarded::{self, Rules};

/// What was read last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Key files, by path.
    pub keys: BTreeMap<PathBuf, Vec<u8>>,
    /// The trust root, by the path of its file or cache.
    pub trust_root: Option<(PathBuf, Vec<u8>)>,
}

/// A file that decides about attestations and cannot be read any more; what it held last still counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key that it held; `None`: it is the trust root.
    pub key: Option<KeyId>,
    /// Which file, and why.
    pub reason: String,
}

impl Remembered {
    /// Reads the keys and the trust root that the configuration names; of what cannot be read any more, what was read last counts.
    ///
    /// # Errors
    /// When one of them is refused that was never read, or the threshold does not fit.
    pub fn policy(&mut self, config: &config::Attestation) -> Result<(Policy, Vec<Fault>), PolicyError> {
        let rules = Rules::from(config.allow.as_slice());
        let mut faults = Vec::new();
        let (keys, kept) = self.keys(&config.keys, rules, &mut faults)?;
        let (trust_root, root) = self.trust_root(&config.trust_root, rules, &mut faults)?;
        let policy = Policy::new(keys, config.threshold, config.identities.clone(), trust_root)
            .map_err(PolicyError::Threshold)?;
        // Only now, so that a configuration that is refused changes nothing; what it does not name is forgotten.
        *self = Self { keys: kept, trust_root: root };
        Ok((policy, faults))
    }

    fn keys(
        &self,
        files: &[PathBuf],
        rules: Rules,
        faults: &mut Vec<Fault>,
    ) -> Result<(Keys, BTreeMap<PathBuf, Vec<u8>>), PolicyError> {
        let (mut keys, mut kept) = (Keys::default(), BTreeMap::new());
        for file in files {
            let read = read(file, MAX_KEY_FILE, rules).and_then(|pem| keys.add_pem(&pem).map(|_| pem));
            let pem = match (read, self.keys.get(file)) {
                (Ok(pem), _) => pem,
                (Err(reason), Some(pem)) => {
                    let key = keys.add_pem(pem).map_err(|reason| KeyError { file: file.clone(), reason })?;
                    let reason = KeyError { file: file.clone(), reason }.to_string();
                    faults.push(Fault { key: Some(key), reason });
                    pem.clone()
                }
                (Err(reason), None) => return Err(KeyError { file: file.clone(), reason }.into()),
            };
            kept.insert(file.clone(), pem);
        }
        Ok((keys, kept))
    }

    #[expect(
        clippy::type_complexity,
        reason = "what is remembered of the trust root, as it is declared above"
    )]
    fn trust_root(
        &self,
        from: &config::TrustRoot,
        rules: Rules,
        faults: &mut Vec<Fault>,
    ) -> Result<(TrustRoot, Option<(PathBuf, Vec<u8>)>), PolicyError> {
        let config::TrustRoot::Path(path) = from else { return Ok((TrustRoot::load(from)?, None)) };
        let read = TrustRoot::of_path(path, &|file: &Path| {
            read(file, MAX_BYTES, rules).map_err(|reason| format!("{}: {reason}", file.display()))
        });
        match (read, &self.trust_root) {
            (Ok((root, bytes)), _) => Ok((root, Some((path.clone(), bytes)))),
            (Err(error), Some((known, bytes))) if known == path => {
                faults.push(Fault { key: None, reason: error.to_string() });
                let root = TrustRoot::parse(&path.display().to_string(), bytes)?;
                Ok((root, Some((path.clone(), bytes.clone()))))
            }
            (Err(error), _) => Err(error.into()),
        }
    }
}

fn read(file: &Path, limit: u64, rules: Rules) -> Result<Vec<u8>, String> {
    guarded::read(file, limit, rules).map_err(|error| error.to_string())
}
