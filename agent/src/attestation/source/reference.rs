//! `HOST/REPOSITORY@sha256:HEX`: where an image is, and which one it is.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::finding::Sha256;

/// An image in a registry, by digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Reference {
    host: String,
    repository: String,
    digest: Sha256,
}

impl Reference {
    /// The registry, with its port if it has one.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The repository, without the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The digest of the index or manifest.
    pub fn digest(&self) -> Sha256 {
        self.digest
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@sha256:{}", self.host, self.repository, self.digest)
    }
}

/// A text that is not a reference by digest.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "expected HOST/REPOSITORY@sha256:HEX (for Docker Hub docker.io/library/NAME@sha256:HEX), found {text:?}: {reason}"
)]
pub struct NotReference {
    text: String,
    reason: &'static str,
}

impl TryFrom<String> for Reference {
    type Error = NotReference;
    fn try_from(text: String) -> Result<Self, NotReference> {
        text.parse()
    }
}

impl FromStr for Reference {
    type Err = NotReference;
    fn from_str(text: &str) -> Result<Self, NotReference> {
        let refuse = |reason| NotReference { text: text.chars().take(300).collect(), reason };
        // Names are limited to 255 characters in practice (OCI distribution specification, "Pulling manifests").
        if text.len() > 512 {
            return Err(refuse("it is longer than 512 characters"));
        }
        let (name, digest) = text.rsplit_once('@').ok_or_else(|| {
            refuse("it has no digest, and a tag is never resolved: it can mean another image tomorrow")
        })?;
        if !digest.starts_with("sha256:") {
            return Err(refuse("the digest is not sha256:HEX"));
        }
        let digest: Sha256 = digest.parse().map_err(|_| refuse("the digest is not sha256: and 64 digits"))?;
        if digest.is_zero() {
            return Err(refuse("the digest is zeros"));
        }
        let (host, repository) = name.split_once('/').ok_or_else(|| refuse("it names no registry"))?;
        // A tag beside a digest says nothing: the digest counts.
        let repository = repository.rsplit_once(':').map_or(repository, |(repository, _)| repository);
        if !is_host(host) {
            return Err(refuse("its first part is not a registry's host name"));
        }
        if !repository.split('/').all(is_component) {
            return Err(refuse("the repository has characters that no repository has"));
        }
        Ok(Self { host: host.to_owned(), repository: repository.to_owned(), digest })
    }
}

/// As the container tools tell a registry from a repository: a dot, a port, or `localhost`.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
            match rest.strip_prefix(':') {
                Some(port) => return port.parse::<u16>().is_ok(),
                None => return rest.is_empty(),
            }
        }
        Some(_) => return false,
        None => text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port))),
    };
    let labels = name.split('.').all(|label| {
        !label.is_empty() && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
    });
    labels
        && (name.contains('.') || port.is_some() || name == "localhost")
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

/// A component of a repository's name (OCI distribution specification: `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`, told loosely: what
/// matters is that it cannot lead out of its place in a URL).
fn is_component(text: &str) -> bool {
    let alnum = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    alnum(text.bytes().next())
        && alnum(text.bytes().next_back())
        && text.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"._-".contains(&c))
        && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use super::Reference;

    #[test]
    fn what_is_a_reference() {
        let digest = format!("sha256:{}", "5a".repeat(32));
        for (text, host, repository) in [
            ("registry.example/a", "registry.example", "a"),
            ("localhost/a/b-c/d__e", "localhost", "a/b-c/d__e"),
            ("127.0.0.1:5000/a.b", "127.0.0.1:5000", "a.b"),
            ("[::1]:5000/a", "[::1]:5000", "a"),
            ("registry:443/web:1.2", "registry:443", "web"),
        ] {
            let reference: Reference = format!("{text}@{digest}").parse().expect(text);
            assert_eq!((reference.host(), reference.repository()), (host, repository), "{text}");
            assert_eq!(reference.to_string(), format!("{host}/{repository}@{digest}"));
        }
        for (text, reason) in [
            ("registry.example/a:latest".to_owned(), "never resolved"),
            (format!("nginx@{digest}"), "names no registry"),
            (format!("library/nginx@{digest}"), "host name"),
            (format!("registry.example:x/a@{digest}"), "host name"),
            (format!("user@registry.example/a@{digest}"), "host name"),
            (format!("registry.example/../a@{digest}"), "no repository has"),
            (format!("registry.example/a/@{digest}"), "no repository has"),
            (format!("registry.example/A@{digest}"), "no repository has"),
            (format!("registry.example/a?b@{digest}"), "no repository has"),
            (format!("https://registry.example/a@{digest}"), "host name"),
            ("registry.example/a@sha512:00".to_owned(), "not sha256"),
            ("registry.example/a@sha256:00".to_owned(), "64 digits"),
            (format!("registry.example/a@sha256:{}", "0".repeat(64)), "zeros"),
            (format!("registry.example/{}@{digest}", "a".repeat(600)), "512"),
        ] {
            let found = text.parse::<Reference>().expect_err(&text).to_string();
            assert!(found.contains(reason), "{text}: {found}");
        }
    }
}
