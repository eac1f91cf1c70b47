//! Who may sign, as the commands' options say it.

use std::path::PathBuf;

use crate::attestation::{Keys, Policy, TrustRoot};
use crate::config::{self, Identity};

/// Options that name who may sign.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("signer").args(["keys", "identity"]).required(true).multiple(true))]
pub(super) struct Options {
    /// Public key of a signer, PEM (BEGIN PUBLIC KEY): P-256, P-384, Ed25519 or RSA.
    #[arg(long = "key", value_name = "PEM")]
    keys: Vec<PathBuf>,
    /// Different keys that must have signed.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threshold: usize,
    /// Trust root: a trusted_root.json, the directory of a TUF cache, `embedded` (Sigstore's public services) or
    /// `embedded:github`.
    #[arg(long, value_name = "FILE", default_value = "embedded")]
    trust_root: String,
    /// Signer whom the certificate must name: email address or URI, `*` for any characters but `/`, `**` for any.
    #[arg(long, value_name = "ID", requires = "issuer")]
    identity: Option<String>,
    /// Issuer who vouches for the identity.
    #[arg(long, value_name = "URL", requires = "identity")]
    issuer: Option<String>,
}

impl Options {
    /// Loads the keys and the trust root.
    pub(super) fn policy(&self) -> anyhow::Result<Policy> {
        let keys = Keys::load(&self.keys)?;
        let count = keys.len();
        if !keys.is_empty() && !(1..=count).contains(&self.threshold) {
            anyhow::bail!(
                "--threshold {}: expected 1 to {count}, the number of different keys",
                self.threshold
            );
        }
        let identity = self.identity.clone().zip(self.issuer.clone());
        let identities: Vec<_> =
            identity.into_iter().map(|(identity, issuer)| Identity { identity, issuer }).collect();
        if let Some((member, reason)) = identities.iter().find_map(Identity::fault) {
            anyhow::bail!("--{member}: {reason}");
        }
        let trust_root = TrustRoot::load(&config::TrustRoot::from(self.trust_root.clone()))?;
        Ok(Policy::new(keys, self.threshold, identities, trust_root)?)
    }
}
