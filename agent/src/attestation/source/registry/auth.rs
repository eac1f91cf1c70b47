//! Telling a registry who asks: `Basic`, or a token that its token server gives (Docker registry v2 authentication; an identity token
//! is exchanged by OAuth 2).

use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::credentials::{Credential, Secret};
use super::http::Http;
use crate::attestation::source::{SourceError, oci};

/// Largest answer of a token server.
const MAX_TOKEN_BYTES: u64 = 256 << 10;

/// Who asks, for one repository.
pub(super) struct Authorization {
    credential: Option<Credential>,
    repository: String,
    header: Mutex<Option<HeaderValue>>,
}

/// What the registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Challenge {
    /// The password.
    Basic,
    /// A token.
    Bearer {
        /// Who gives it.
        realm: String,
        /// For which service.
        service: Option<String>,
        /// For what.
        scope: Option<String>,
    },
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Authorization {
    pub(super) fn new(credential: Option<Credential>, repository: &str) -> Self {
        Self { credential, repository: repository.to_owned(), header: Mutex::new(None) }
    }

    /// The header as the registry last accepted it.
    pub(super) async fn header(&self) -> Option<HeaderValue> {
        self.header.lock().await.clone()
    }

    /// What it was told, for messages.
    pub(super) fn told(&self) -> String {
        match &self.credential {
            None => "without credentials: none of the credential files (docker's config.json, containers' auth.json) names it".to_owned(),
            Some(credential) => format!("with the credentials of {}", credential.file.display()),
        }
    }

    /// Makes the header that the registry's challenge asks for. `before` is the one that it has just refused.
    pub(super) async fn answer(
        &self,
        http: &Http,
        host: &str,
        headers: &HeaderMap,
        before: Option<&HeaderValue>,
        deadline: Instant,
    ) -> Result<HeaderValue, SourceError> {
        let denied = |reason: String| SourceError::Denied { host: host.to_owned(), reason };
        let mut held = self.header.lock().await;
        let challenges: Vec<Challenge> = headers
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenges)
            .collect();
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let header = match bearer.or_else(|| challenges.first()) {
            None => {
                return Err(denied(
                    "401 Unauthorized, without a challenge of a kind that is known".to_owned(),
                ));
            }
            Some(Challenge::Basic) => match &self.credential {
                Some(Credential { secret: Secret::Password { user, password }, .. }) if before.is_none() => {
                    basic(user, password)
                }
                Some(Credential { secret: Secret::Identity(_), .. }) => {
                    return Err(denied(
                        "it wants a password, but there is only an identity token; log in again".to_owned(),
                    ));
                }
                _ => return Err(denied(format!("401 Unauthorized {}", self.told()))),
            },
            Some(Challenge::Bearer { realm, service, scope }) => {
                let fallback = format!("repository:{}:pull", self.repository);
                let scope = scope.as_deref().unwrap_or(&fallback);
                let token = self.token(http, host, realm, service.as_deref(), scope, deadline).await?;
                format!("Bearer {token}")
            }
        };
        let mut header = HeaderValue::try_from(header)
            .map_err(|_| denied("its token has characters that no header can have".to_owned()))?;
        header.set_sensitive(true);
        *held = Some(header.clone());
        Ok(header)
    }

    async fn token(
        &self,
        http: &Http,
        host: &str,
        realm: &str,
        service: Option<&str>,
        scope: &str,
        deadline: Instant,
    ) -> Result<String, SourceError> {
        let denied = |reason: String| SourceError::Denied { host: host.to_owned(), reason };
        let service = service.map(|service| ("service", service));
        let fields = service.into_iter().chain([("scope", scope)]);
        let answer = match self.credential.as_ref().map(|credential| &credential.secret) {
            Some(Secret::Identity(identity)) => {
                let more =
                    [("grant_type", "refresh_token"), ("client_id", "muster"), ("refresh_token", identity)];
                http.post(realm, &form(fields.chain(more)), MAX_TOKEN_BYTES, deadline).await?
            }
            other => {
                let separator = if realm.contains('?') { '&' } else { '?' };
                let url = format!("{realm}{separator}{}", form(fields));
                let auth = match other {
                    Some(Secret::Password { user, password }) => {
                        let header = HeaderValue::try_from(basic(user, password));
                        Some(header.map_err(|_| denied("the password cannot be sent".to_owned()))?)
                    }
                    _ => None,
                };
                http.get(&url, "application/json", auth.as_ref(), MAX_TOKEN_BYTES, deadline).await?
            }
        };
        if answer.status != StatusCode::OK {
            let reason = format!("its token server answers {} {}", answer.status, self.told());
            return Err(denied(reason));
        }
        let token: Token =
            oci::read(&answer.body).map_err(|error| denied(format!("its token server's answer: {error}")))?;
        let token = token.token.or(token.access_token).filter(|token| !token.is_empty());
        token.ok_or_else(|| denied("its token server gave no token".to_owned()))
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn form<'a>(fields: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let fields: Vec<_> = fields.map(|(key, value)| format!("{key}={}", encoded(value))).collect();
    fields.join("&")
}

fn encoded(text: &str) -> String {
    let byte = |c: u8| match c {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(c).to_string(),
        _ => format!("%{c:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Reads the challenges of one header (RFC 9110, 11.6.1).
pub fn challenges(mut text: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut current: Option<(String, Vec<(String, String)>)> = None;
    loop {
        text = text.trim_start_matches([' ', '\t', ',']);
        let end = text.find([' ', '\t', ',', '=']).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        if word.is_empty() {
            break;
        }
        let rest = rest.trim_start_matches([' ', '\t']);
        if let Some(value) = rest.strip_prefix('=') {
            let (value, rest) = parameter(value.trim_start_matches([' ', '\t']));
            if let Some((_, parameters)) = &mut current {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            text = rest;
        } else {
            found.extend(current.replace((word.to_ascii_lowercase(), Vec::new())).and_then(challenge));
            text = rest;
        }
    }
    found.extend(current.and_then(challenge));
    found
}

fn challenge((scheme, parameters): (String, Vec<(String, String)>)) -> Option<Challenge> {
    let get = |key: &str| parameters.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone());
    match &*scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            Some(Challenge::Bearer { realm: get("realm")?, service: get("service"), scope: get("scope") })
        }
        _ => None,
    }
}

/// A token or a quoted text, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let (mut value, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                value.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (value, &quoted[at + 1..]),
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::{Challenge, challenges, encoded, form};

    #[test]
    fn challenges_of_registries() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        };
        for (text, expected) in [
            ("Basic realm=\"Registry\"", vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                "Bearer realm=\"https://a.example/token\",service=\"r.example\",scope=\"repository:a/b:pull\"",
                vec![bearer("https://a.example/token", Some("r.example"), Some("repository:a/b:pull"))],
            ),
            (
                "Bearer realm=https://a.example/t , service=x",
                vec![bearer("https://a.example/t", Some("x"), None)],
            ),
            (
                "Negotiate, Basic realm=\"a, b\", Bearer realm=\"x\\\"y\"",
                vec![Challenge::Basic, bearer("x\"y", None, None)],
            ),
            ("Bearer service=\"no realm\"", vec![]),
            ("Bearer realm=\"unfinished", vec![bearer("unfinished", None, None)]),
            ("", vec![]),
            (",, =x, \"", vec![]),
        ] {
            assert_eq!(challenges(text), expected, "{text}");
        }
    }

    #[test]
    fn forms() {
        assert_eq!(encoded("repository:a/b:pull&x=é"), "repository%3Aa%2Fb%3Apull%26x%3D%C3%A9");
        assert_eq!(form([("a", "1 2"), ("b", "~")].into_iter()), "a=1%202&b=~");
    }
}
