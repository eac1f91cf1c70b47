//! The vocabulary of what is reported: [`Verdict`], [`Severity`], [`Finding`].

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use crate::event::{Connect, DigestOrigin, FileOp, FilePath, Flavour, Kind, ProcessId};
use crate::origin::Origin;

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// Of nothing: what every empty file has.
    pub const EMPTY: Self = Self([
        0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27,
        0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
    ]);

    /// All zero: what generators write when they have no digest.
    pub fn is_zero(&self) -> bool {
        self.0 == [0; 32]
    }
}

/// 64 lower-case hexadecimal digits.
impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{self}")
    }
}

/// A text that is not a SHA-256.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a SHA-256: expected 64 hexadecimal digits, optionally after \"sha256:\", found {0:?}")]
pub struct NotSha256(String);

impl FromStr for Sha256 {
    type Err = NotSha256;
    fn from_str(text: &str) -> Result<Self, NotSha256> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        crate::sbom::hex(digits).map(Self).ok_or_else(|| NotSha256(text.chars().take(100).collect()))
    }
}

/// What the attested SBOM says of a file, or of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// SHA-256 in the image's SBOM, at this path. The only silent one.
    Attested,
    /// SHA-256 in the SBOM, at another path.
    Relocated,
    /// Path in the SBOM, only SHA-1 or MD5 there, and it is equal.
    AttestedWeak,
    /// Path in the SBOM, which has no usable digest for it.
    PathOnly,
    /// Not a file of the SBOM; owned, by the package database in a read-only image layer, by a package that is.
    PackageDerived,
    /// Path in the SBOM, digest differs.
    Modified,
    /// Not in the SBOM, but the file is part of an image layer (or older than the host's attestation).
    Unlisted,
    /// Host only: written by the host's configured package manager.
    Updated,
    /// The content could not be read in time.
    Undetermined,
    /// Not in the SBOM, and created after start.
    Unauthorized,
    /// The image has no SBOM. Once per image.
    NoSbom,
    /// The image has an SBOM whose attestation was refused. Once per image.
    Unverified,
    /// The attestation's subject is an index and nothing proves the platform. Once per image.
    PlatformUnproven,
    /// The trust root is too old. Once per image.
    StaleTrustRoot,
    /// Records or findings were lost; the finding says which.
    Loss,
}

impl Verdict {
    /// Every verdict.
    pub const ALL: [Self; 15] = [
        Self::Attested,
        Self::Relocated,
        Self::AttestedWeak,
        Self::PathOnly,
        Self::PackageDerived,
        Self::Modified,
        Self::Unlisted,
        Self::Updated,
        Self::Undetermined,
        Self::Unauthorized,
        Self::NoSbom,
        Self::Unverified,
        Self::PlatformUnproven,
        Self::StaleTrustRoot,
        Self::Loss,
    ];

    /// The verdict's name, as in findings, metrics and filters.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attested => "attested",
            Self::Relocated => "relocated",
            Self::AttestedWeak => "attested_weak",
            Self::PathOnly => "path_only",
            Self::PackageDerived => "package_derived",
            Self::Modified => "modified",
            Self::Unlisted => "unlisted",
            Self::Updated => "updated",
            Self::Undetermined => "undetermined",
            Self::Unauthorized => "unauthorized",
            Self::NoSbom => "no_sbom",
            Self::Unverified => "unverified",
            Self::PlatformUnproven => "platform_unproven",
            Self::StaleTrustRoot => "stale_trust_root",
            Self::Loss => "loss",
        }
    }
}

/// A text that is not one of a fixed set of names.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown {what} {found:?}; expected one of: {expected}")]
pub struct UnknownName {
    /// What kind of name it should have been.
    pub what: &'static str,
    /// The text.
    pub found: String,
    /// The names, comma separated.
    pub expected: String,
}

macro_rules! from_names {
    ($type:ty, $what:literal) => {
        impl FromStr for $type {
            type Err = UnknownName;
            fn from_str(text: &str) -> Result<Self, UnknownName> {
                <$type>::ALL.into_iter().find(|v| v.as_str() == text).ok_or_else(|| UnknownName {
                    what: $what,
                    found: text.to_owned(),
                    expected: <$type>::ALL.map(<$type>::as_str).join(", "),
                })
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}
from_names!(Verdict, "verdict");
from_names!(Severity, "severity");
from_names!(Kind, "kind");
from_names!(Coverage, "coverage");
from_names!(Binding, "binding");

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// For the record.
    Info,
    /// Low.
    Low,
    /// Medium.
    Medium,
    /// High.
    High,
    /// Critical.
    Critical,
}

impl Severity {
    /// Every severity, lowest first.
    pub const ALL: [Self; 5] = [Self::Info, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// One step less, as long as there is one.
    #[must_use]
    pub fn below(self) -> Self {
        match self {
            Self::Critical => Self::High,
            Self::High => Self::Medium,
            Self::Medium => Self::Low,
            Self::Low | Self::Info => Self::Info,
        }
    }

    /// The severity's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// How much of an image its SBOM can answer for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Coverage {
    /// Packages only: no file can be answered for.
    Packages,
    /// Files owned by a package.
    Owned,
    /// Every file.
    Full,
}

impl Coverage {
    /// Every class, weakest first.
    pub const ALL: [Self; 3] = [Self::Packages, Self::Owned, Self::Full];

    /// The class's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Packages => "packages",
            Self::Owned => "owned",
            Self::Full => "full",
        }
    }
}

/// What ties the documents to just this image, weakest first. A verdict that rests on several documents has the binding of the
/// weakest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Binding {
    /// The subject is the image's index, which stands for several platforms, and nothing in the document proves the platform.
    Unproven,
    /// The digest that the configuration names for the host: only the signer's key says that the document is about it.
    Key,
    /// The host's `IMAGE_ID` and `IMAGE_VERSION`, as its os-release file has them.
    OsRelease,
    /// The digest that the configuration names for the image without saying of which kind it is.
    ImageDigest,
    /// The digest of the image's index; the document's own image id or layers prove the platform.
    IndexDigest,
    /// The digest of the platform's manifest.
    ManifestDigest,
    /// The digest of the image's configuration, which has the digests of its layers.
    ConfigDigest,
    /// The dm-verity root hash of the mounted file system.
    VerityRoot,
}

impl Binding {
    /// Every binding, weakest first.
    pub const ALL: [Self; 8] = [
        Self::Unproven,
        Self::Key,
        Self::OsRelease,
        Self::ImageDigest,
        Self::IndexDigest,
        Self::ManifestDigest,
        Self::ConfigDigest,
        Self::VerityRoot,
    ];

    /// The binding's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unproven => "unproven",
            Self::Key => "key",
            Self::OsRelease => "os_release",
            Self::ImageDigest => "image_digest",
            Self::IndexDigest => "index_digest",
            Self::ManifestDigest => "manifest_digest",
            Self::ConfigDigest => "config_digest",
            Self::VerityRoot => "verity_root",
        }
    }
}

/// Who is affected: a container or the host.
#[derive(Clone, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct WorkloadInfo {
    /// `host`, or `RUNTIME://CONTAINER_ID`.
    pub id: String,
    /// Container name, pod or host name where known, else empty.
    pub name: String,
    /// Kubernetes pod UID where the cgroup path tells it, else empty.
    pub pod_uid: String,
    /// Image digest by which its SBOM was looked up, `sha256:…`; empty when not known.
    pub image_digest: String,
    /// What its cgroup says of it that does not count, and why, in words; else empty.
    pub claim: String,
}

/// A process of the ancestry.
#[derive(Clone, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct ProcessInfo {
    /// The process.
    pub id: ProcessId,
    /// Parent's process id.
    pub ppid: u32,
    /// Real user id.
    pub uid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Command name, escaped as paths are.
    pub comm: String,
    /// Path of its program where known; shared with the table of processes, for it is as long as whoever made it wants.
    pub exe: Arc<FilePath>,
}

/// What is reported.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Rises by one with each finding of this agent run; a gap is a loss.
    pub sequence: u64,
    /// Which run numbered it; `None`: it is not published.
    pub origin: Option<Arc<Origin>>,
    /// Wall clock of the event.
    pub time: SystemTime,
    /// What the SBOM says.
    pub verdict: Verdict,
    /// How bad it is.
    pub severity: Severity,
    /// Kind of the event it came from.
    pub kind: Kind,
    /// Which hooks saw it.
    pub flavour: Flavour,
    /// Who is affected.
    pub workload: Arc<WorkloadInfo>,
    /// The process; `None` for findings about an image or a loss.
    pub process: Option<ProcessInfo>,
    /// Its ancestors, parent first, up to the workload's first process.
    pub ancestors: Vec<ProcessInfo>,
    /// The judged file; empty for findings about an image or a loss.
    pub path: FilePath,
    /// The path is longer than what is here.
    pub path_truncated: bool,
    /// SHA-256 of its content.
    pub sha256: Option<Sha256>,
    /// Who computed it.
    pub digest_origin: Option<DigestOrigin>,
    /// The digest that the SBOM has at this path (`modified`).
    pub expected_sha256: Option<Sha256>,
    /// The path at which the SBOM has this digest (`relocated`).
    pub attested_path: Option<FilePath>,
    /// Package that owns the file, by the SBOM.
    pub package: Option<Arc<str>>,
    /// For `Kind::File`: what was done.
    pub operation: Option<FileOp>,
    /// For `Kind::Connect`: where to.
    pub connect: Option<Connect>,
    /// How much the image's SBOM can answer for; `None` without an SBOM.
    pub coverage: Option<Coverage>,
    /// What ties the SBOM to the image; `None` without an SBOM.
    pub binding: Option<Binding>,
    /// SHA-256 of each document that the verdict rests on.
    pub documents: Arc<[Sha256]>,
    /// One sentence for a person: what was expected, what was found.
    pub reason: String,
    /// The first finding of this run about the same file with the same content, by its `sequence`; `None`: this is it, or the content
    /// is not known.
    pub since: Option<u64>,
    /// The exception of the configuration that set the severity.
    pub exception: Option<Arc<str>>,
    /// For the agent itself; not part of what is reported.
    pub basis: Basis,
}

/// What the agent knows of a finding beyond what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Basis {
    /// Device, generation and number of the file's inode.
    pub inode: Option<(u32, u32, u64)>,
    /// The path is the kernel's, whole, and inside the process's root.
    pub path_is_proven: bool,
    /// The process was found to run nothing that is held against it.
    pub program_is_attested: bool,
    /// The severity before an exception.
    pub judged: Option<Severity>,
}

impl Finding {
    /// Something was lost in the agent itself.
    pub fn loss(flavour: Flavour, reason: String) -> Self {
        Self {
            sequence: 0,
            origin: None,
            time: SystemTime::now(),
            verdict: Verdict::Loss,
            severity: Severity::Medium,
            kind: Kind::Lost,
            flavour,
            workload: Arc::new(WorkloadInfo { id: "host".into(), ..WorkloadInfo::default() }),
            process: None,
            ancestors: Vec::new(),
            path: FilePath::default(),
            path_truncated: false,
            sha256: None,
            digest_origin: None,
            expected_sha256: None,
            attested_path: None,
            package: None,
            operation: None,
            connect: None,
            coverage: None,
            binding: None,
            documents: Arc::new([]),
            reason,
            since: None,
            exception: None,
            basis: Basis::default(),
        }
    }
}

/// Text in formats for people, 32 bytes in others (recordings).
impl serde::Serialize for Sha256 {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
    }
}

impl<'de> serde::Deserialize<'de> for Sha256 {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if !from.is_human_readable() {
            return <[u8; 32]>::deserialize(from).map(Self);
        }
        <std::borrow::Cow<'_, str>>::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}
