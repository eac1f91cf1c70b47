//! What `muster agent --check` says beyond what the configuration's own reading refuses.

use std::path::Path;

use crate::config::{Config, TrustRoot};

/// Why no attestation can ever be verified, if that is so.
pub fn verifies_nothing(config: &Config) -> Option<&'static str> {
    let attestation = &config.attestation;
    (attestation.keys.is_empty() && attestation.identities.is_empty()).then_some(
        "attestation.keys and attestation.identities are both empty, so no attestation can ever be verified and nothing is judged: name \
         the public key of a signer, or an identity",
    )
}

/// What is probably not meant.
pub fn warnings(config: &Config) -> Vec<String> {
    let attestation = &config.attestation;
    let mut out = Vec::new();
    let directories = std::iter::once(("attestation.directory", &attestation.directory))
        .chain(attestation.layouts.iter().map(|layout| ("attestation.layouts", layout)));
    for (key, directory) in directories {
        if !directory.is_dir() {
            out.push(format!("{key}: {} is not there, or is no directory", directory.display()));
        }
    }
    let trust_root = match &attestation.trust_root {
        TrustRoot::Path(path) => Some(path),
        TrustRoot::Embedded | TrustRoot::EmbeddedGithub => None,
    };
    let named = std::iter::once(("attestation.directory", &attestation.directory))
        .chain(attestation.layouts.iter().map(|path| ("attestation.layouts", path)))
        .chain(attestation.keys.iter().map(|path| ("attestation.keys", path)))
        .chain(attestation.registry.ca_files.iter().map(|path| ("attestation.registry.ca_files", path)))
        .chain(trust_root.map(|path| ("attestation.trust_root", path)))
        .chain(
            config
                .feed
                .json_lines
                .iter()
                .filter(|path| *path != Path::new("-"))
                .map(|path| ("feed.json_lines", path)),
        );
    for (key, path) in named {
        if path.is_relative() {
            out.push(format!(
                "{key}: {} depends on where the agent is started, which is / for a service; name it from the root",
                path.display()
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_verify_nothing_is_told_from_what_can() {
        let config = |text: &str| Config::parse(text, Path::new("test")).expect("good");
        assert!(verifies_nothing(&Config::default()).is_some());
        assert_eq!(verifies_nothing(&config("[attestation]\nkeys = [\"/k.pub\"]\n")), None);
        let identity =
            "[attestation]\nidentities = [{ identity = \"a@b.example\", issuer = \"https://i.example\" }]\n";
        assert_eq!(verifies_nothing(&config(identity)), None);
    }

    #[test]
    fn what_is_not_there_or_depends_on_the_place_is_warned_of() {
        let directory = tempfile::tempdir().expect("a directory");
        let text = format!("[attestation]\ndirectory = {:?}\nkeys = [\"/k.pub\"]\n", directory.path());
        let good = Config::parse(&text, Path::new("test")).expect("good");
        assert_eq!(warnings(&good), [""; 0]);
        let mut bad = good.clone();
        bad.attestation.layouts = vec![directory.path().join("none")];
        bad.attestation.keys.push("k.pub".into());
        bad.attestation.trust_root = TrustRoot::Path("root.json".into());
        let said = warnings(&bad);
        assert_eq!(said.len(), 3, "{said:?}");
        for (line, starts) in said.iter().zip([
            "attestation.layouts: ",
            "attestation.keys: k.pub ",
            "attestation.trust_root: root.json ",
        ]) {
            assert!(line.starts_with(starts), "{said:?}");
        }
    }
}
