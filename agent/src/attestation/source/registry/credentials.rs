//! Passwords where `docker login`, `podman login` and the like have put them.
//!
//! Credential helpers (`credsStore`, `credHelpers`) are programs that a file in some user's home names: the agent runs with privileges
//! and does not run them. The refusal says what to do instead.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::unistd::{Uid, User};
use serde::Deserialize;

use crate::attestation::source::{SourceError, oci};

/// Where `podman login` puts them for a user without a session (containers-auth.json(5)).
const RUN: &str = "/run/containers";

/// What is sent to one registry.
#[derive(PartialEq, Eq)]
pub enum Secret {
    /// A user and its password.
    Password {
        /// The user.
        user: String,
        /// Its password.
        password: String,
    },
    /// A token that the token server exchanges for one that is valid for some minutes.
    Identity(String),
}

/// It must not get into a log.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password",
            Self::Identity(_) => "Identity",
        })
    }
}

/// A secret, and the file that it is from.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Credential {
    pub(super) secret: Secret,
    pub(super) file: PathBuf,
}

#[derive(Default, Deserialize)]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// The credentials for a repository, from the first file that has some.
pub(super) fn find(host: &str, repository: &str) -> Result<Option<Credential>, SourceError> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    find_in(&files(variable, Uid::effective(), home), host, repository)
}

/// The home directory in the user database.
fn home(user: Uid) -> Option<PathBuf> {
    match User::from_uid(user) {
        Ok(found) => found.map(|user| user.dir),
        Err(error) => {
            tracing::debug!(%user, %error, "the user database is not read");
            None
        }
    }
}

/// The files that are looked into: `$REGISTRY_AUTH_FILE` alone, if it is set; else containers' (containers-auth.json(5)) and docker's.
/// A system service has none of the variables that a session has, but its user may have logged in all the same.
fn files(
    variable: impl Fn(&str) -> Option<OsString>,
    user: Uid,
    home: impl Fn(Uid) -> Option<PathBuf>,
) -> Vec<PathBuf> {
    if let Some(file) = variable("REGISTRY_AUTH_FILE") {
        return vec![file.into()];
    }
    let run = match variable("XDG_RUNTIME_DIR") {
        Some(run) => Path::new(&run).join("containers/auth.json"),
        None => Path::new(RUN).join(format!("{user}/auth.json")),
    };
    let home = variable("HOME").map(PathBuf::from).or_else(|| home(user));
    let below_home = |path: &str| home.as_ref().map(|home| home.join(path));
    let docker = match variable("DOCKER_CONFIG") {
        Some(directory) => Some(Path::new(&directory).join("config.json")),
        None => below_home(".docker/config.json"),
    };
    [Some(run), below_home(".config/containers/auth.json"), docker].into_iter().flatten().collect()
}

fn find_in(files: &[PathBuf], host: &str, repository: &str) -> Result<Option<Credential>, SourceError> {
    for file in files {
        let fault = |reason: String| SourceError::Credentials { file: file.clone(), reason };
        let bytes = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // Nobody has said that something is there.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && file.starts_with(RUN) => {
                tracing::debug!(file = %file.display(), %error, "no credentials are read");
                continue;
            }
            Err(error) => return Err(fault(format!("cannot read the credentials: {error}"))),
        };
        if let Some(secret) = secret(&bytes, host, repository).map_err(fault)? {
            return Ok(Some(Credential { secret, file: file.clone() }));
        }
    }
    Ok(None)
}

/// What a credential file has for a repository.
///
/// # Errors
/// What is wrong with it, and what to do.
pub fn secret(file: &[u8], host: &str, repository: &str) -> Result<Option<Secret>, String> {
    let parsed: File = oci::read(file).map_err(|error| error.to_string())?;
    parsed.secret(host, repository)
}

impl File {
    fn secret(&self, host: &str, repository: &str) -> Result<Option<Secret>, String> {
        let names = names(host, repository);
        let helper = names.iter().find_map(|name| self.helpers.get(name));
        let entry = names
            .iter()
            .find_map(|name| self.auths.iter().find(|(key, _)| plain(key) == name).map(|(_, entry)| entry));
        if let Some(secret) = entry.map(|entry| entry.secret(host)).transpose()?.flatten() {
            return Ok(Some(secret));
        }
        // With a store, `docker login` leaves an empty entry.
        match helper.or(self.store.as_ref().filter(|_| entry.is_some())) {
            None => Ok(None),
            Some(helper) => Err(format!(
                "the password for {host} is with the credential helper {helper:?}, and Muster does not run programs for it; log in \
                 with a file instead (`podman login --authfile FILE {host}`) and set REGISTRY_AUTH_FILE=FILE"
            )),
        }
    }
}

impl Entry {
    fn secret(&self, host: &str) -> Result<Option<Secret>, String> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Secret::Identity(token)));
        }
        if let Some(auth) = given(&self.auth) {
            let expected = || format!("auth of {host}: expected base64 of USER:PASSWORD");
            let bytes = STANDARD.decode(auth.trim()).map_err(|_| expected())?;
            let text = String::from_utf8(bytes).map_err(|_| expected())?;
            let (user, password) = text.split_once(':').ok_or_else(expected)?;
            let password = password.trim_end_matches('\0').to_owned();
            return Ok(Some(Secret::Password { user: user.to_owned(), password }));
        }
        let pair = given(&self.username).zip(given(&self.password));
        Ok(pair.map(|(user, password)| Secret::Password { user, password }))
    }
}

/// The names under which the credentials may be, the most exact first: containers' files can have one per repository.
fn names(host: &str, repository: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut path = repository;
    loop {
        names.push(format!("{host}/{path}"));
        match path.rsplit_once('/') {
            Some((parent, _)) => path = parent,
            None => break,
        }
    }
    names.push(host.to_owned());
    if host == "docker.io" {
        names.extend(["index.docker.io", "registry-1.docker.io"].map(str::to_owned));
    }
    names
}

/// A key of `auths` without what docker writes around some of them (`https://index.docker.io/v1/`).
fn plain(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use nix::unistd::Uid;

    use super::{Secret, files, find_in, home};

    #[test]
    fn where_they_are() {
        let [run, user, containers, docker] = [
            "/run/containers/7/auth.json",
            "/run/user/7/containers/auth.json",
            "/h/.config/containers/auth.json",
            "/h/.docker/config.json",
        ];
        let [of_user_containers, of_user_docker] =
            ["/of/7/.config/containers/auth.json", "/of/7/.docker/config.json"];
        type Set<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Set<'_>, &[&str]); 6] = [
            // As a system service.
            (&[], &[run, of_user_containers, of_user_docker]),
            (&[("HOME", "/h")], &[run, containers, docker]),
            (&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/user/7")], &[user, containers, docker]),
            (&[("HOME", "/h"), ("DOCKER_CONFIG", "/d")], &[run, containers, "/d/config.json"]),
            (&[("DOCKER_CONFIG", "/d")], &[run, of_user_containers, "/d/config.json"]),
            (&[("HOME", "/h"), ("REGISTRY_AUTH_FILE", "/a")], &["/a"]),
        ];
        for (set, expected) in cases {
            let variable =
                |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
            let found = files(variable, Uid::from_raw(7), |user| Some(format!("/of/{user}").into()));
            assert_eq!(found, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{set:?}");
        }
        let without_home = files(|_| None, Uid::from_raw(7), |_| None);
        assert_eq!(without_home, [PathBuf::from(run)], "a user that is in no database");
        assert!(home(Uid::from_raw(0)).is_some_and(|home| home.is_absolute()), "root is in every database");
    }

    #[test]
    fn what_they_say() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = ["a.json", "b.json"].map(|name| directory.path().join(name));
        let look = |host: &str, repository: &str| find_in(&[first.clone(), second.clone()], host, repository);
        assert_eq!(look("r.example", "a").unwrap(), None, "no file");
        // "user:pass:word", "other:secret", "deep:er", "hub:hub"
        std::fs::write(
            &first,
            r#"{"auths":{"r.example":{"auth":"dXNlcjpwYXNzOndvcmQ="},"r.example/deep":{"auth":"ZGVlcDplcg=="},
               "https://index.docker.io/v1/":{"auth":"aHViOmh1Yg=="},"id.example":{"identitytoken":"t","auth":"PHRva2VuPjo="},
               "plain.example":{"username":"u","password":"p"},"bad.example":{"auth":"%"},"nocolon.example":{"auth":"YWJj"}},
               "HttpHeaders":{"User-Agent":"x"}}"#,
        )
        .unwrap();
        std::fs::write(
            &second,
            r#"{"auths":{"r.example":{"auth":"b3RoZXI6c2VjcmV0"},"store.example":{}},
               "credsStore":"desktop","credHelpers":{"helped.example":"ecr-login"}}"#,
        )
        .unwrap();
        let password = |user: &str, password: &str| {
            Some(Secret::Password { user: user.to_owned(), password: password.to_owned() })
        };
        for (host, repository, expected) in [
            ("r.example", "web", password("user", "pass:word")),
            ("r.example", "deep/er/est", password("deep", "er")),
            ("r.example", "deeper", password("user", "pass:word")),
            ("docker.io", "library/nginx", password("hub", "hub")),
            ("id.example", "a", Some(Secret::Identity("t".to_owned()))),
            ("plain.example", "a", password("u", "p")),
            ("unknown.example", "a", None),
        ] {
            let found = look(host, repository).unwrap();
            assert_eq!(found.as_ref().map(|found| &found.secret), expected.as_ref(), "{host}/{repository}");
            assert!(found.is_none_or(|found| found.file == first && !format!("{found:?}").contains("pass")));
        }
        for (host, reason) in [
            ("bad.example", "expected base64"),
            ("nocolon.example", "USER:PASSWORD"),
            ("store.example", "does not run programs"),
            ("helped.example", "ecr-login"),
        ] {
            let found = look(host, "a").expect_err(host).to_string();
            assert!(found.contains(reason), "{host}: {found}");
        }
        std::fs::write(&first, "{\"auths\":").unwrap();
        let found = look("r.example", "a").expect_err("truncated").to_string();
        assert!(found.contains("a.json: byte 9: EOF"), "{found}");
        let found =
            find_in(&[Path::new("/").to_owned()], "r.example", "a").expect_err("a directory").to_string();
        assert!(found.contains("cannot read the credentials"), "{found}");
    }
}
