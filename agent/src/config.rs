//! The configuration: one TOML file; every key has a default, no unknown key is accepted.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::attestation::source::Reference;
use crate::finding::Sha256;
use crate::glob;
use crate::guarded::{self, FileError, Rules};
use crate::identity::{self, Digests};

mod exception;

pub use exception::{Day, Exception, MAX_EXCEPTIONS};

/// The whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Kernel side.
    pub sensor: Sensor,
    /// The host as a workload.
    pub host: Host,
    /// Which image a container runs, by its id or cgroup path; the first entry that matches counts.
    #[serde(rename = "workload")]
    pub workloads: Vec<Workload>,
    /// Where attestations come from and who may sign them.
    pub attestation: Attestation,
    /// What is said less of, or not at all; the first that matches counts.
    #[serde(rename = "exception")]
    pub exceptions: Vec<Exception>,
    /// Where findings go.
    pub feed: Feed,
    /// Prometheus endpoint.
    pub metrics: Metrics,
}

/// `[sensor]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sensor {
    /// Hook flavour; `auto` takes the best that the kernel offers.
    pub flavour: FlavourChoice,
    /// Size of the ring for exec, fork and exit. Bytes, a power of two, at least a page.
    pub exec_ring_bytes: u32,
    /// Size of the ring for executable mappings.
    pub library_ring_bytes: u32,
    /// Size of the ring for file changes.
    pub file_ring_bytes: u32,
    /// Size of the ring for connects.
    pub network_ring_bytes: u32,
    /// Largest file that the kernel hashes while the task that runs or maps it waits, bytes; the agent reads what is larger. Of files in
    /// memory 64 MiB at most, for nothing can end such a task meanwhile. 0: the kernel hashes nothing.
    pub kernel_hash_bytes: u32,
}

impl Default for Sensor {
    fn default() -> Self {
        Self {
            flavour: FlavourChoice::Auto,
            exec_ring_bytes: 2 << 20,
            library_ring_bytes: 1 << 20,
            file_ring_bytes: 4 << 20,
            network_ring_bytes: 512 << 10,
            kernel_hash_bytes: 256 << 20,
        }
    }
}

/// `sensor.flavour`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlavourChoice {
    /// The best that the kernel offers.
    Auto,
    /// LSM programs, or fail.
    Lsm,
    /// Tracepoints, even if the kernel offers more.
    Tracepoint,
}

/// `[host]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Host {
    /// Digest that names the host's image in attestations (their subject), beside its dm-verity root hash and its os-release.
    pub image: Option<Sha256>,
    /// Directory that an image brings its own attestations in, read as `attestation.directory` is. It may be absent.
    pub directory: PathBuf,
    /// Who may sign for the host, of those who may sign at all: key files and identities as `[attestation]` names them; absent: all.
    pub signers: Option<Vec<String>>,
    /// Programs (or scripts) that install packages. What they change on the host is `updated`, if they are attested
    /// themselves. An empty list: nothing is.
    pub package_managers: Vec<PathBuf>,
}

impl Default for Host {
    fn default() -> Self {
        let managers = [
            "/usr/bin/dpkg",
            "/usr/bin/apt",
            "/usr/bin/apt-get",
            "/usr/bin/rpm",
            "/usr/bin/dnf",
            "/usr/bin/dnf-3",
            "/usr/bin/dnf5",
            "/usr/bin/microdnf",
            "/usr/bin/zypper",
            "/sbin/apk",
        ];
        Self {
            image: None,
            directory: "/usr/share/attested-sbom".into(),
            signers: None,
            package_managers: managers.map(PathBuf::from).to_vec(),
        }
    }
}

/// `[[workload]]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Container id, whole or its first characters (at least 12). One of `container` and `cgroup` is needed.
    pub container: Option<String>,
    /// Cgroup path, `*` stands for any characters but `/`, `**` for any.
    pub cgroup: Option<String>,
    /// Name for people.
    #[serde(default)]
    pub name: String,
    /// Image digest: of one of the kinds below. What is not said here of the image is learned from where it is fetched.
    pub image: Sha256,
    /// Digest of the image's index. An attestation about it must prove the platform.
    pub index: Option<Sha256>,
    /// Digest of the platform's manifest.
    pub manifest: Option<Sha256>,
    /// Digest of the image's configuration (the image id).
    pub config: Option<Sha256>,
    /// Digests of its uncompressed layers (`diff_ids`), lowest first.
    #[serde(default)]
    pub layers: Vec<Sha256>,
    /// Where a registry has it, `HOST/REPOSITORY@sha256:HEX`: that one is asked for its attestations.
    pub reference: Option<Reference>,
    /// Who may sign for this image, of those who may sign at all: key files and identities as `[attestation]` names them; absent: all.
    pub signers: Option<Vec<String>>,
}

impl Workload {
    /// A key whose digest cannot be, and why.
    fn bad_digest(&self) -> Option<(&'static str, String)> {
        let one = [
            ("image", Some(self.image)),
            ("index", self.index),
            ("manifest", self.manifest),
            ("config", self.config),
        ];
        if let Some((key, _)) = one.iter().find(|(_, digest)| digest.is_some_and(|d| d.is_zero())) {
            return Some((key, "expected the digest, found zeros".to_owned()));
        }
        for (at, (key, digest)) in one.iter().enumerate().skip(1) {
            let same = one[at + 1..].iter().find(|(_, other)| digest.is_some() && digest == other);
            if let Some((other, _)) = same {
                return Some((
                    key,
                    format!(
                        "expected another digest than `{other}`, found the same: one digest is of one kind"
                    ),
                ));
            }
        }
        if self.layers.len() > identity::MAX_LAYERS || self.layers.iter().any(Sha256::is_zero) {
            let reason = format!("expected at most {} diff_ids, none of them zero", identity::MAX_LAYERS);
            return Some(("layers", reason));
        }
        if let Some(digest) = self.reference.as_ref().map(Reference::digest)
            && ![Some(self.image), self.index, self.manifest].contains(&Some(digest))
        {
            let reason = "expected the digest of `image`, `index` or `manifest`, found another one: what is attested of it would \
                          count for no image; name it as one of them"
                .to_owned();
            return Some(("reference", reason));
        }
        None
    }

    /// The digests of its image.
    pub fn digests(&self) -> Digests {
        let Self {
            container: _,
            cgroup: _,
            name: _,
            image,
            index,
            manifest,
            config,
            layers,
            reference: _,
            signers: _,
        } = self;
        Digests {
            image: Some(*image),
            index: *index,
            manifest: *manifest,
            config: *config,
            layers: layers.clone(),
            architecture: Some(identity::architecture()),
            ..Digests::default()
        }
    }
}

/// `[attestation]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Attestation {
    /// Drop directory, watched: every `.json` file in it is an envelope, `.jsonl` one per line.
    pub directory: PathBuf,
    /// What is otherwise refused in the directories of attestations.
    pub allow: Vec<FileRule>,
    /// Public keys, PEM: P-256, P-384, Ed25519 or RSA.
    pub keys: Vec<PathBuf>,
    /// Different keys that must have signed an envelope.
    pub threshold: usize,
    /// Signers by certificate: each of them alone suffices.
    pub identities: Vec<Identity>,
    /// The Sigstore services whose certificates, log entries and timestamps are believed.
    pub trust_root: TrustRoot,
    /// Where the agent keeps what it has verified, so that an image stays judged when its attestation is gone; empty: nowhere, and
    /// a restart forgets it.
    pub verified_directory: PathBuf,
    /// Documents that count no longer, by their SHA-256 or their envelope's.
    pub retired: Vec<Sha256>,
    /// Largest envelope, bytes.
    pub max_envelope_bytes: u64,
    /// Largest SBOM, bytes.
    pub max_sbom_bytes: u64,
    /// Deepest nesting of JSON.
    pub max_json_depth: u32,
    /// Directories in the OCI image layout, with attestations beside the images that they are about.
    pub layouts: Vec<PathBuf>,
    /// Registries.
    pub registry: Registry,
}

impl Default for Attestation {
    fn default() -> Self {
        Self {
            directory: "/etc/muster/attestations".into(),
            allow: Vec::new(),
            keys: Vec::new(),
            threshold: 1,
            identities: Vec::new(),
            trust_root: TrustRoot::Embedded,
            verified_directory: "/var/lib/muster/verified".into(),
            retired: Vec::new(),
            max_envelope_bytes: 512 << 20,
            max_sbom_bytes: 384 << 20,
            max_json_depth: 64,
            layouts: Vec::new(),
            registry: Registry::default(),
        }
    }
}

/// `[attestation.registry]`. Which registry is asked says the image's reference.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Registry {
    /// Ask registries for attestations.
    pub enabled: bool,
    /// CA certificates, PEM, in addition to the system's.
    pub ca_files: Vec<PathBuf>,
    /// How long an answer, or a pause in one, may take; an image may take ten times as long.
    pub timeout_seconds: u32,
    /// How long it is believed that a registry has nothing for an image, or cannot be reached.
    pub cache_seconds: u32,
}

impl Default for Registry {
    fn default() -> Self {
        Self { enabled: false, ca_files: Vec::new(), timeout_seconds: 10, cache_seconds: 300 }
    }
}

/// One of `attestation.allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileRule {
    /// Symbolic links that stay in their directory.
    Symlinks,
    /// Files and directories that others may write.
    Writable,
}

/// A signer whom a certificate names.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The certificate's subject alternative name, whole: an email address or a URI; `*` stands for any characters but `/`,
    /// `**` for any.
    pub identity: String,
    /// The OpenID Connect issuer who vouched for it, exactly.
    pub issuer: String,
}

impl Identity {
    /// A certificate that names this identity and this issuer is one of it.
    pub fn covers(&self, identity: &str, issuer: &str) -> bool {
        self.issuer == issuer
            && if self.identity.contains('*') {
                glob::matches(&self.identity, identity)
            } else {
                self.identity == identity
            }
    }

    /// What is good and may be more than was meant: a pattern for workflows that leaves branch and tag open.
    pub fn doubt(&self) -> Option<String> {
        let (_, reference) = self.identity.rsplit_once('@').unwrap_or_default();
        let is_open = self.identity.starts_with("https://")
            && self.identity.contains('*')
            && !reference.chars().any(char::is_alphanumeric);
        is_open.then(|| {
            format!(
                "{:?} lets any branch and tag sign; name a reference, as in …@refs/tags/* or …@refs/heads/main",
                self.identity
            )
        })
    }

    /// What is wrong with it: which member, and why.
    pub fn fault(&self) -> Option<(&'static str, String)> {
        // What is left of `**`, `*@*` or `https://*/**` tells no signer from another.
        let literal = self.identity.strip_prefix("https://").unwrap_or(&self.identity);
        if !literal.chars().any(char::is_alphanumeric) {
            let reason = format!(
                "expected an email address or URI, or a pattern that leaves part of one fixed, found {:?}: anyone could sign",
                self.identity
            );
            return Some(("identity", reason));
        }
        if !self.issuer.starts_with("https://") || self.issuer.contains('*') {
            let reason = format!(
                "expected the issuer's URL, as https://token.actions.githubusercontent.com, found {:?}",
                self.issuer
            );
            return Some(("issuer", reason));
        }
        None
    }
}

/// `attestation.trust_root`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub enum TrustRoot {
    /// `embedded`: Sigstore's public services, as they were when this was built.
    Embedded,
    /// `embedded:github`: GitHub's own services, which sign for private repositories.
    EmbeddedGithub,
    /// A `trusted_root.json`, or the directory of a TUF client's cache that holds one.
    Path(PathBuf),
}

impl From<String> for TrustRoot {
    fn from(text: String) -> Self {
        match text.as_str() {
            "embedded" => Self::Embedded,
            "embedded:github" => Self::EmbeddedGithub,
            _ => Self::Path(text.into()),
        }
    }
}

/// `[feed]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Feed {
    /// Unix socket of the gRPC server, mode 0600.
    pub socket: PathBuf,
    /// JSON lines: a file, or `-` for standard output; absent: none.
    pub json_lines: Option<PathBuf>,
    /// Findings that the agent holds for clients that come later, as far as 8 MiB hold them.
    pub history: usize,
    /// Findings (or events) that wait for one client; more are counted and the client is told.
    pub client_queue: usize,
}

impl Default for Feed {
    fn default() -> Self {
        Self { socket: "/run/muster/muster.sock".into(), json_lines: None, history: 8192, client_queue: 4096 }
    }
}

/// `[metrics]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Metrics {
    /// Address of the Prometheus endpoint; an empty text switches it off.
    #[serde(deserialize_with = "listen")]
    pub listen: Option<SocketAddr>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::from(([127, 0, 0, 1], 9464))) }
    }
}

fn listen<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = <std::borrow::Cow<'_, str>>::deserialize(from)?;
    if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(serde::de::Error::custom) }
}

/// Where the agent looks for its configuration when it is told nothing else. It may be absent: every key has a default.
pub const DEFAULT_FILE: &str = "/etc/muster/muster.toml";
/// Largest ring, bytes.
pub const MAX_RING_BYTES: u32 = 1 << 30;
/// Most that the kernel may be told to hash while a task waits.
const MAX_KERNEL_HASH_BYTES: u32 = 1 << 30;
/// Largest configuration file, bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// A configuration that was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("configuration {}: cannot be read ({source}); name another with --config", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Others could change the file, or it is none.
    #[error("configuration {}: {reason}", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: FileError,
    },
    /// The file is larger than any configuration.
    #[error("configuration {}: expected at most {MAX_FILE_BYTES} bytes, found more", file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
    },
    /// Something in it is not as it must be.
    #[error("configuration {}, line {line}, column {column}: {reason}", file.display())]
    Invalid {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
        /// What was expected, what was found.
        reason: String,
    },
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`]: it cannot be read, or something in it is not as it must be (with line and column).
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Read { file: file.to_owned(), source };
        let bytes = guarded::read(file, MAX_FILE_BYTES, Rules::default()).map_err(|error| match error {
            FileError::Io(source) => unreadable(source),
            FileError::TooLarge { .. } => ConfigError::TooLarge { file: file.to_owned() },
            reason => ConfigError::Refused { file: file.to_owned(), reason },
        })?;
        let text = String::from_utf8(bytes)
            .map_err(|error| unreadable(std::io::Error::new(std::io::ErrorKind::InvalidData, error)))?;
        Self::parse(&text, file)
    }

    /// As [`load`](Self::load); `None` if there is no such file.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_if_there(file: &Path) -> Result<Option<Self>, ConfigError> {
        match Self::load(file) {
            Err(ConfigError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(None)
            }
            other => other.map(Some),
        }
    }

    /// The configuration at [`DEFAULT_FILE`], or the defaults if there is no such file.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_default() -> Result<Self, ConfigError> {
        Ok(Self::load_if_there(Path::new(DEFAULT_FILE))?.unwrap_or_default())
    }

    /// Parses and checks a configuration; `file` is for messages.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`].
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let invalid = |at: usize, reason: String| {
            let before = text.get(..at).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            ConfigError::Invalid { file: file.to_owned(), line, column, reason }
        };
        let config: Self = toml::from_str(text)
            .map_err(|e| invalid(e.span().map_or(0, |s| s.start), e.message().trim().replace('\n', "; ")))?;
        match config.check() {
            None => Ok(config),
            Some((key, reason)) => Err(invalid(position(text, &key), reason)),
        }
    }

    /// The first thing that is well-formed but cannot be: its key, and what is wrong.
    fn check(&self) -> Option<(Vec<String>, String)> {
        let page =
            u32::try_from(nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten()?).ok()?;
        let rings = [
            ("exec_ring_bytes", self.sensor.exec_ring_bytes),
            ("library_ring_bytes", self.sensor.library_ring_bytes),
            ("file_ring_bytes", self.sensor.file_ring_bytes),
            ("network_ring_bytes", self.sensor.network_ring_bytes),
        ];
        let at = |keys: &[&str]| keys.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>();
        for (key, bytes) in rings {
            if !bytes.is_power_of_two() || !(page..=MAX_RING_BYTES).contains(&bytes) {
                let reason =
                    format!("expected a power of two from {page} to {MAX_RING_BYTES} bytes, found {bytes}");
                return Some((at(&["sensor", key]), reason));
            }
        }
        let bytes = self.sensor.kernel_hash_bytes;
        if bytes > MAX_KERNEL_HASH_BYTES {
            let reason = format!("expected at most {MAX_KERNEL_HASH_BYTES} bytes, found {bytes}");
            return Some((at(&["sensor", "kernel_hash_bytes"]), reason));
        }
        for (n, manager) in self.host.package_managers.iter().enumerate() {
            if !manager.is_absolute() {
                let reason = format!("expected an absolute path, found {manager:?}");
                return Some((at(&["host", "package_managers", &n.to_string()]), reason));
            }
        }
        let attestation = &self.attestation;
        if attestation.threshold == 0 {
            let reason = "expected at least 1 (an envelope without a signature proves nothing), found 0";
            return Some((at(&["attestation", "threshold"]), reason.to_owned()));
        }
        // Identities do not count: each alone suffices.
        if attestation.threshold > attestation.keys.len().max(1) {
            let reason = format!(
                "expected at most {}, the number of key files, found {}: so many can never have signed",
                attestation.keys.len(),
                attestation.threshold
            );
            return Some((at(&["attestation", "threshold"]), reason));
        }
        let limits = [
            (&["attestation", "max_envelope_bytes"][..], attestation.max_envelope_bytes),
            (&["attestation", "max_sbom_bytes"], attestation.max_sbom_bytes),
            (&["attestation", "max_json_depth"], attestation.max_json_depth.into()),
            (&["attestation", "registry", "timeout_seconds"], attestation.registry.timeout_seconds.into()),
        ];
        if let Some((key, _)) = limits.iter().find(|(_, limit)| *limit == 0) {
            return Some((at(key), "expected at least 1, found 0: everything would be refused".to_owned()));
        }
        if self.host.image.is_some_and(|image| image.is_zero()) {
            return Some((at(&["host", "image"]), "expected the image's digest, found zeros".to_owned()));
        }
        for (index, identity) in attestation.identities.iter().enumerate() {
            if let Some((key, reason)) = identity.fault() {
                return Some((at(&["attestation", "identities", &index.to_string(), key]), reason));
            }
        }
        if let Some((key, reason)) = self.bad_signers() {
            return Some((key, reason));
        }
        if attestation.trust_root == TrustRoot::Path(PathBuf::new()) {
            let reason = "expected \"embedded\", \"embedded:github\", or the path of a trust root, found an empty text";
            return Some((at(&["attestation", "trust_root"]), reason.to_owned()));
        }
        let verified = &attestation.verified_directory;
        if !verified.as_os_str().is_empty() && !verified.is_absolute() {
            let reason = format!("expected an absolute path, or \"\" for none, found {verified:?}");
            return Some((at(&["attestation", "verified_directory"]), reason));
        }
        if self.feed.client_queue == 0 {
            let reason = "expected at least 1, found 0: no client would get anything";
            return Some((at(&["feed", "client_queue"]), reason.to_owned()));
        }
        if self.feed.socket.as_os_str().is_empty() || !self.feed.socket.is_absolute() {
            let reason = format!("expected an absolute path, found {:?}", self.feed.socket);
            return Some((at(&["feed", "socket"]), reason));
        }
        if self.exceptions.len() > MAX_EXCEPTIONS {
            let reason = format!("expected at most {MAX_EXCEPTIONS}, found {}", self.exceptions.len());
            return Some((at(&["exception", &MAX_EXCEPTIONS.to_string()]), reason));
        }
        for (index, exception) in self.exceptions.iter().enumerate() {
            if let Some((key, reason)) = exception.fault() {
                return Some((at(&["exception", &index.to_string(), key]), reason));
            }
            if self.exceptions[..index].iter().any(|other| other.name == exception.name) {
                let reason =
                    format!("expected a name of its own, found that of another: {:?}", exception.name);
                return Some((at(&["exception", &index.to_string(), "name"]), reason));
            }
        }
        self.workloads.iter().enumerate().find_map(|(index, workload)| {
            let reason = match (&workload.container, &workload.cgroup) {
                (None, None) => "expected `container` or `cgroup`, found neither".to_owned(),
                (Some(_), Some(_)) => {
                    "expected one of `container` and `cgroup`, found both; make two entries of it".to_owned()
                }
                _ => {
                    return workload.bad_digest().map(|(key, reason)| {
                        (vec!["workload".to_owned(), index.to_string(), key.to_owned()], reason)
                    });
                }
            };
            Some((vec!["workload".to_owned(), index.to_string()], reason))
        })
    }
}

impl Config {
    /// The first of `signers` that cannot be: its key, and what is wrong.
    fn bad_signers(&self) -> Option<(Vec<String>, String)> {
        let Attestation { keys, identities, threshold, .. } = &self.attestation;
        let is_key = |name: &String| keys.iter().any(|path| path.as_os_str() == name.as_str());
        let host = self.host.signers.as_ref().map(|names| (vec!["host".to_owned()], names));
        let workloads = self.workloads.iter().enumerate().filter_map(|(at, workload)| {
            Some((vec!["workload".to_owned(), at.to_string()], workload.signers.as_ref()?))
        });
        for (mut key, names) in host.into_iter().chain(workloads) {
            key.push("signers".to_owned());
            if names.is_empty() {
                return Some((
                    key,
                    "expected at least one, found none: leave it out if all may sign".to_owned(),
                ));
            }
            let known = |name: &String| is_key(name) || identities.iter().any(|of| of.identity == *name);
            if let Some((at, name)) = names.iter().enumerate().find(|(_, name)| !known(name)) {
                key.push(at.to_string());
                let reason = format!(
                    "expected one of attestation.keys, or `identity` of one of attestation.identities, found {name:?}"
                );
                return Some((key, reason));
            }
            let count = names.iter().filter(|name| is_key(name)).count();
            if (1..*threshold).contains(&count) {
                let reason = format!(
                    "expected at least {threshold} keys (attestation.threshold), found {count}: so many can never have signed"
                );
                return Some((key, reason));
            }
        }
        None
    }
}

/// Byte position of a key's value (of the table, for an entry of an array); of its nearest parent if it is not written.
fn position(text: &str, key: &[String]) -> usize {
    let Ok(root) = toml::de::DeTable::parse(text) else { return 0 };
    let (mut at, mut here) = (0, Some(toml::de::DeValue::Table(root.into_inner())));
    for part in key {
        let next = match here {
            Some(toml::de::DeValue::Table(mut table)) => table.remove(part.as_str()),
            Some(toml::de::DeValue::Array(array)) => {
                part.parse::<usize>().ok().and_then(|n| array.into_iter().nth(n))
            }
            _ => None,
        };
        let Some(next) = next else { break };
        at = next.span().start;
        here = Some(next.into_inner());
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(text, Path::new("m.toml")).expect_err(text).to_string()
    }

    #[test]
    fn nothing_is_everything_by_default() {
        assert_eq!(Config::parse("", Path::new("m.toml")).expect("empty"), Config::default());
    }

    #[test]
    fn the_file_that_is_shipped_shows_the_defaults() {
        let shipped = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/muster.toml"));
        let text = std::fs::read_to_string(shipped).expect("the shipped file");
        assert_eq!(Config::parse(&text, shipped).expect("the shipped file"), Config::default());
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_column() {
        for (text, place, reason) in [
            ("[sensor]\nflavor = \"lsm\"\n", "line 2, column 1: ", "unknown field `flavor`"),
            ("[sensors]\n", "line 1, column 2: ", "unknown field `sensors`"),
            ("[sensor]\nflavour = \"best\"\n", "line 2, column 11: ", "unknown variant `best`"),
            ("[sensor]\n\nexec_ring_bytes = 5000\n", "line 3, column 19: ", "a power of two"),
            ("[sensor]\nfile_ring_bytes = 64\n", "line 2, column 19: ", "a power of two from 4096"),
            ("[sensor]\nnetwork_ring_bytes = 2147483648\n", "line 2, column 22: ", "to 1073741824"),
            ("[sensor]\nkernel_hash_bytes = 1073741825\n", "line 2, column 21: ", "at most 1073741824"),
            ("[attestation]\nthreshold = 0\n", "line 2, column 13: ", "at least 1"),
            ("[attestation]\nkeys = [\"a\"]\nthreshold = 2\n", "line 3, column 13: ", "at most 1"),
            ("[attestation]\nthreshold = 2\n", "line 2, column 13: ", "at most 0"),
            (
                "[attestation]\nthreshold = 2\nidentities = [{ identity = \"a@b\", issuer = \"https://a\" }]\n",
                "line 2, column 13: ",
                "the number of key files",
            ),
            ("[attestation]\nmax_envelope_bytes = 0\n", "line 2, column 22: ", "everything would be refused"),
            ("[attestation]\nmax_sbom_bytes = 0\n", "line 2, column 18: ", "everything would be refused"),
            ("[attestation]\nmax_json_depth = 0\n", "line 2, column 18: ", "everything would be refused"),
            (
                "[attestation.registry]\ntimeout_seconds = 0\n",
                "line 2, column 19: ",
                "everything would be refused",
            ),
            ("[attestation]\ntrust_root = \"\"\n", "line 2, column 14: ", "embedded:github"),
            (
                "[attestation]\nidentities = [{ identity = \"https://**\", issuer = \"https://a\" }]\n",
                "line 2, column 28: ",
                "anyone could sign",
            ),
            (
                "[attestation]\nidentities = [\n  { identity = \"a@b\", issuer = \"b\" },\n]\n",
                "line 3, column 32: ",
                "the issuer's URL",
            ),
            ("[attestation]\nidentities = [{ identity = \"a@b\" }]\n", "line 2, column 15: ", "`issuer`"),
            ("[host]\nimage = \"sha256:12\"\n", "line 2, column 9: ", "64 hexadecimal digits"),
            ("[attestation]\nallow = [\"links\"]\n", "line 2, column 10: ", "unknown variant `links`"),
            ("[attestation]\nverified_directory = \"v\"\n", "line 2, column 22: ", "an absolute path"),
            ("[attestation]\nretired = [\"12\"]\n", "line 2, column 11: ", "64 hexadecimal digits"),
            ("[host]\npackage_managers = [\"dpkg\"]\n", "line 2, column 21: ", "an absolute path"),
            ("[feed]\nclient_queue = 0\n", "line 2, column 16: ", "at least 1"),
            ("[feed]\nsocket = \"s\"\n", "line 2, column 10: ", "an absolute path"),
            ("[metrics]\nlisten = \"9464\"\n", "line 2, column 10: ", "socket address"),
            ("[feed]\nhistory = -1\n", "line 2, column 11: ", "expected usize"),
            ("[feed\n", "line 1, column 6: ", "]"),
        ] {
            let found = error(text);
            assert!(found.contains(place) && found.contains(reason), "{text:?} gave {found:?}");
        }
        let image = "11".repeat(32);
        let two = format!(
            "[[workload]]\ncgroup = \"/a\"\nimage = \"{image}\"\n[[workload]]\nimage = \"{image}\"\n"
        );
        assert!(error(&two).contains("line 4"), "{}", error(&two));
        assert!(error(&two).contains("found neither"), "{}", error(&two));
        for (keys, line, reason) in [
            (format!("index = \"{}\"", "0".repeat(64)), "line 4, column 9: ", "found zeros"),
            (format!("config = \"{image}\"\nmanifest = \"{image}\""), "line 5, column 12: ", "than `config`"),
            (format!("layers = [\"{}\"]", "0".repeat(64)), "line 4, column 10: ", "diff_ids"),
            (
                format!("reference = \"registry.example/web@sha256:{}\"", "22".repeat(32)),
                "line 4, column 13: ",
                "digest of `image`, `index` or `manifest`",
            ),
            (
                "reference = \"registry.example/web:1\"".into(),
                "line 4, column 13: ",
                "a tag is never resolved",
            ),
            ("signers = []".to_owned(), "line 4, column 11: ", "at least one"),
            ("signers = [\"a.pub\"]".to_owned(), "line 4, column 12: ", "one of attestation.keys"),
            ("layer = []".to_owned(), "line 4, column 1: ", "unknown field `layer`"),
        ] {
            let found = error(&format!("[[workload]]\ncgroup = \"/a\"\nimage = \"{image}\"\n{keys}\n"));
            assert!(found.contains(line) && found.contains(reason), "{keys:?} gave {found:?}");
        }
    }

    #[test]
    fn an_exception_must_be_owned_and_narrow() {
        let head = "[[exception]]\nname = \"ci\"\nowner = \"team\"\nreason = \"builds\"\n";
        let dated = format!("{head}expires = \"2027-01-31\"\n");
        let good = format!("{dated}path = \"/opt/ci/**\"\nseverity = \"low\"\n");
        let config = Config::parse(&good, Path::new("m.toml")).expect("a good one");
        assert_eq!(config.exceptions[0].expires.to_string(), "2027-01-31");
        for (text, place, reason) in [
            (format!("{head}user = 1\nreport = false\n"), "line 1, ", "missing field `expires`"),
            (format!("{head}expires = \"soon\"\n"), "line 5, column 11: ", "a date as"),
            (format!("{head}expires = \"2027-02-30\"\n"), "line 5, column 11: ", "a date as"),
            (format!("{dated}report = false\n"), "line 1, ", "at least one of"),
            (format!("{dated}verdict = \"relocated\"\nreport = false\n"), "line 1, ", "at least one of"),
            (format!("{dated}path = \"/**\"\nreport = false\n"), "line 6, column 8: ", "it fits all"),
            (format!("{dated}path = \"opt\"\nreport = false\n"), "line 6, column 8: ", "an absolute path"),
            (format!("{dated}workload = \"*\"\nreport = false\n"), "line 6, column 12: ", "it fits all"),
            (format!("{dated}verdict = \"fine\"\n"), "line 6, column 11: ", "unknown verdict"),
            (
                format!("{dated}user = 1\nverdict = \"loss\"\nreport = false\n"),
                "line 7, column 11: ",
                "always told",
            ),
            (format!("{dated}severity = \"mild\"\n"), "line 6, column 12: ", "unknown severity"),
            (format!("{dated}user = 1\n"), "line 1, ", "either `severity` or"),
            (
                format!("{dated}user = 1\nseverity = \"low\"\nreport = false\n"),
                "line 1, ",
                "either `severity` or",
            ),
            (format!("{dated}user = \"root\"\n"), "line 6, column 8: ", "invalid type"),
            (format!("{dated}uid = 1\n"), "line 6, column 1: ", "unknown field `uid`"),
            (good.replace("\"team\"", "\" \""), "line 3, column 9: ", "expected a line"),
            (good.replace("\"ci\"", "\"C I\""), "line 2, column 8: ", "of the characters"),
            (format!("{good}{good}"), "line 9, column 8: ", "a name of its own"),
        ] {
            let found = error(&text);
            assert!(found.contains(place) && found.contains(reason), "{text:?} gave {found:?}");
        }
    }

    #[test]
    fn signers_are_those_of_the_attestations() {
        let with = |threshold: usize, signers: &str| {
            format!(
                "[host]\nsigners = {signers}\n[attestation]\nkeys = [\"/a.pub\", \"/b.pub\"]\nthreshold = {threshold}\n\
                 identities = [{{ identity = \"https://ci/**\", issuer = \"https://i\" }}]\n"
            )
        };
        for (threshold, good) in
            [(1, "[\"/a.pub\"]"), (2, "[\"/a.pub\", \"/b.pub\"]"), (2, "[\"https://ci/**\"]")]
        {
            Config::parse(&with(threshold, good), Path::new("m.toml")).expect(good);
        }
        let few = error(&with(2, "[\"/a.pub\"]"));
        assert!(few.contains("line 2, column 11: ") && few.contains("at least 2 keys"), "{few}");
        let unknown = error(&with(1, "[\"/a.pub\", \"/c.pub\"]"));
        assert!(unknown.contains("line 2, column 22: ") && unknown.contains("/c.pub"), "{unknown}");
    }

    #[test]
    fn a_pattern_that_leaves_the_reference_open_is_doubted() {
        for (identity, expected) in [
            ("https://github.com/acme/**", true),
            ("https://github.com/acme/web/.github/workflows/*.yml@**", true),
            ("https://github.com/acme/web/.github/workflows/*.yml@refs/heads/*", false),
            ("https://github.com/acme/web/.github/workflows/release.yml@refs/heads/main", false),
            ("https://ci.example/release", false),
            ("*@acme.example", false),
        ] {
            let of = Identity { identity: identity.into(), issuer: "https://i".into() };
            assert_eq!(of.doubt().is_some(), expected, "{identity}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let missing = Config::load(Path::new("/nonexistent/muster.toml")).expect_err("no such file");
        assert!(missing.to_string().contains("/nonexistent/muster.toml"), "{missing}");
    }
}
