//! The documents of a registry: image index, image manifest, image configuration (OCI image specification 1.1; Docker's
//! schema 2 has the same members).
//!
//! What they say is data from outside: only digests in them are used, and whatever a digest leads to is hashed again.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::attestation::json::{self, Unused, shown};
use crate::finding::Sha256;
use crate::identity;

/// Largest index, manifest or configuration: registries refuse larger ones (the OCI distribution specification asks for 4 MiB).
pub(super) const MAX_DOCUMENT_BYTES: u64 = 4 << 20;
/// Levels that such a document may have; real ones have five, a configuration's history and labels not more.
const MAX_DEPTH: u32 = 16;

/// The annotation by which BuildKit marks an attestation manifest in an index.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// The platform manifest that it is about.
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// Why a document is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("byte {at}: {reason}")]
pub struct Malformed {
    /// Bytes before the place.
    pub at: usize,
    /// What was expected and found.
    pub reason: String,
}

impl Malformed {
    fn whole(reason: impl fmt::Display) -> Self {
        Self { at: 0, reason: reason.to_string() }
    }
}

/// What a digest of an image leads to.
#[derive(Debug)]
pub enum Document {
    /// An index: several platforms.
    Index(Index),
    /// A manifest: one image, or an artifact.
    Manifest(Box<Manifest>),
}

/// A list of manifests.
#[derive(Debug)]
pub struct Index {
    /// Its manifests.
    pub manifests: Vec<Descriptor>,
}

/// An image or an artifact.
#[derive(Debug)]
pub struct Manifest {
    /// What kind of artifact it is.
    pub artifact_type: Option<String>,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers; of an artifact, its files.
    pub layers: Vec<Descriptor>,
    /// What it is about.
    pub subject: Option<Sha256>,
}

/// A part of an index or a manifest.
#[derive(Clone, Debug)]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// Its digest; `None` for another algorithm than SHA-256.
    pub digest: Option<Sha256>,
    /// Its size in bytes.
    pub size: u64,
    /// What kind of artifact the manifest is.
    pub artifact_type: Option<String>,
    /// `os/architecture`, with the variant.
    pub platform: Option<Platform>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// The platform manifest that this descriptor's BuildKit attestations are about; `None` for any other descriptor.
    pub fn attests(&self) -> Option<Sha256> {
        let kind = self.annotations.get(REFERENCE_TYPE)?;
        let digest = self.annotations.get(REFERENCE_DIGEST)?;
        (kind == "attestation-manifest").then(|| digest.parse().ok()).flatten()
    }

    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str)
    }
}

/// The platform of an image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, …: Go's names.
    pub architecture: String,
    /// `v8`, …
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// Whether an image of this platform can run on this machine.
    pub fn is_here(&self) -> bool {
        self.os == "linux" && self.architecture == identity::architecture()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", shown(&self.os).escape_debug(), shown(&self.architecture).escape_debug())?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{}", shown(variant).escape_debug()))
    }
}

/// The configuration of an image.
#[derive(Debug)]
pub struct ImageConfig {
    /// Its platform.
    pub platform: Platform,
    /// Digests of its layers, uncompressed, the base first.
    pub diff_ids: Vec<Sha256>,
}

impl Document {
    /// Reads an index or a manifest. Which of the two it is says its content, not the registry.
    ///
    /// # Errors
    /// When it is not JSON of either form, has a key twice, or is both (one digest must not mean two things:
    /// CVE-2021-41190).
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let raw: RawDocument = read(bytes)?;
        if raw.schema_version != 2 {
            return Err(Malformed::whole(format_args!(
                "schemaVersion is {}; expected 2",
                raw.schema_version
            )));
        }
        let subject = raw.subject.and_then(|subject| subject.digest);
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) => Ok(Self::Index(Index { manifests })),
            (None, Some(config), layers) => Ok(Self::Manifest(Box::new(Manifest {
                artifact_type: raw.artifact_type,
                config,
                layers: layers.unwrap_or_default(),
                subject,
            }))),
            (Some(_), ..) => {
                Err(Malformed::whole("it has both manifests and config or layers; expected one of them"))
            }
            (None, None, _) => {
                Err(Malformed::whole("neither an index (manifests) nor a manifest (config, layers)"))
            }
        }
    }
}

impl ImageConfig {
    /// Reads the configuration of an image.
    ///
    /// # Errors
    /// When it is not JSON of this form, or has a key twice.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let raw: RawConfig = read(bytes)?;
        let platform = Platform { os: raw.os, architecture: raw.architecture, variant: raw.variant };
        let diff_ids = raw
            .rootfs
            .diff_ids
            .into_iter()
            .flatten()
            .map(|id| id.0.ok_or_else(|| Malformed::whole("a diff_id is not sha256")));
        Ok(Self { platform, diff_ids: diff_ids.collect::<Result<_, _>>()? })
    }
}

/// Reads JSON of a small document: strictly (a key twice, deep nesting), then into `T`.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if size > MAX_DOCUMENT_BYTES {
        return Err(Malformed::whole(format_args!(
            "{size} bytes, but at most {MAX_DOCUMENT_BYTES} are read"
        )));
    }
    let malformed = |fault: json::Fault| Malformed { at: fault.at, reason: fault.reason };
    json::read(bytes, Unused { depth: MAX_DEPTH }).map_err(malformed)?;
    json::read(bytes, std::marker::PhantomData).map_err(malformed)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: u32,
    #[serde(default, deserialize_with = "optional")]
    artifact_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
}

#[derive(Deserialize)]
struct RawConfig {
    os: String,
    architecture: String,
    #[serde(default, deserialize_with = "optional")]
    variant: Option<String>,
    rootfs: RawRootFs,
}

#[derive(Deserialize)]
struct RawRootFs {
    /// `null` from scratch (BuildKit), and never absent.
    #[serde(deserialize_with = "Option::deserialize")]
    diff_ids: Option<Vec<Digest>>,
}

/// An empty text is what Go writes for "nothing".
fn optional<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(from)?.filter(|text| !text.is_empty()))
}

/// A digest of a descriptor: `None` for algorithms other than SHA-256.
struct Digest(Option<Sha256>);

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let text = Cow::<'_, str>::deserialize(from)?;
        let Some((algorithm, hex)) = text.split_once(':') else {
            return Err(D::Error::custom(format_args!("digest {:?}: expected ALGORITHM:HEX", shown(&text))));
        };
        if algorithm != "sha256" {
            return Ok(Self(None));
        }
        if hex.bytes().any(|c| c.is_ascii_uppercase()) {
            return Err(D::Error::custom(format_args!(
                "digest {:?}: expected lower-case digits",
                shown(&text)
            )));
        }
        let digest: Sha256 = hex.parse().map_err(D::Error::custom)?;
        if digest.is_zero() {
            return Err(D::Error::custom("digest of zeros: nothing has it"));
        }
        Ok(Self(Some(digest)))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default, deserialize_with = "optional")]
    artifact_type: Option<String>,
    platform: Option<Platform>,
    annotations: Option<BTreeMap<String, String>>,
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let RawDescriptor { media_type, digest, size, artifact_type, platform, annotations } =
            RawDescriptor::deserialize(from)?;
        let annotations = annotations.unwrap_or_default();
        Ok(Self { media_type, digest: digest.0, size, artifact_type, platform, annotations })
    }
}

#[cfg(test)]
mod tests {
    use super::{Document, ImageConfig};

    fn hex(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    #[test]
    fn index_and_manifest() {
        let (a, b) = (hex('a'), hex('b'));
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
            {{"mediaType":"m","digest":"sha256:{a}","size":7,"platform":{{"architecture":"arm64","os":"linux","variant":"v8"}}}},
            {{"mediaType":"m","digest":"sha256:{b}","size":8,"platform":{{"architecture":"unknown","os":"unknown"}},
              "annotations":{{"vnd.docker.reference.type":"attestation-manifest","vnd.docker.reference.digest":"sha256:{a}"}}}},
            {{"mediaType":"m","digest":"sha512:00","size":8}}]}}"#
        );
        let Document::Index(index) = Document::parse(index.as_bytes()).unwrap() else { panic!("an index") };
        let [image, attestation, other] = &index.manifests[..] else { panic!("three") };
        assert_eq!(image.platform.as_ref().unwrap().to_string(), "linux/arm64/v8");
        assert_eq!(image.attests(), None);
        assert_eq!(attestation.attests(), image.digest);
        assert_eq!(other.digest, None);
        let manifest = format!(
            r#"{{"schemaVersion":2,"artifactType":"","config":{{"mediaType":"c","digest":"sha256:{a}","size":2}},
            "subject":{{"mediaType":"m","digest":"sha256:{b}","size":1}}}}"#
        );
        let Document::Manifest(manifest) = Document::parse(manifest.as_bytes()).unwrap() else {
            panic!("a manifest")
        };
        assert_eq!(manifest.artifact_type, None);
        assert_eq!(manifest.subject, attestation.digest);
        assert!(manifest.layers.is_empty());
    }

    #[test]
    fn what_is_refused_is_refused_with_its_place() {
        let (a, zeros) = (hex('a'), hex('0'));
        let with = |digest: &str| {
            format!(r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"m","digest":"{digest}","size":1}}]}}"#)
        };
        let descriptor = format!(r#"{{"mediaType":"m","digest":"sha256:{a}","size":1}}"#);
        for (text, reason) in [
            (String::new(), "EOF"),
            ("[]".into(), "expected struct"),
            ("{".into(), "byte 1: EOF"),
            (r#"{"schemaVersion":1,"manifests":[]}"#.into(), "expected 2"),
            (r#"{"manifests":[]}"#.into(), "schemaVersion"),
            (r#"{"schemaVersion":2}"#.into(), "neither an index"),
            (r#"{"schemaVersion":2,"schemaVersion":2,"manifests":[]}"#.into(), "duplicate key"),
            (format!(r#"{{"schemaVersion":2,"manifests":[],"config":{descriptor}}}"#), "both manifests"),
            (r#"{"schemaVersion":2,"manifests":[],"layers":[]}"#.into(), "both manifests"),
            (with("sha256:12"), "64 hexadecimal"),
            (with(&a), "ALGORITHM:HEX"),
            (with(&format!("sha256:{zeros}")), "zeros"),
            (with(&format!("sha256:{}", a.to_uppercase())), "lower-case"),
            (with(&format!("sha256:{a}")).replace("\"size\":1", "\"size\":-1"), "invalid value"),
            (format!("{{\"x\":{}0{}}}", "[".repeat(30), "]".repeat(30)), "nested too deeply"),
            (format!("{{\"x\":\"{}\"}}", "y".repeat(5 << 20)), "at most 4194304"),
        ] {
            let found = Document::parse(text.as_bytes()).expect_err(&text).to_string();
            assert!(found.contains(reason), "{}: {found}", &text[..text.len().min(200)]);
        }
        let whole = with(&format!("sha256:{a}"));
        for end in 0..whole.len() {
            Document::parse(&whole.as_bytes()[..end]).expect_err("truncated");
        }
    }

    #[test]
    fn image_configuration() {
        let a = hex('a');
        let text = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Env":["A=b"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:{a}"]}}}}"#
        );
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.platform.to_string(), "linux/amd64");
        assert_eq!(config.diff_ids[0].to_string(), a);
        for (from, to, reason) in [
            (&*format!("sha256:{a}"), "sha512:00", "not sha256"),
            ("\"os\":\"linux\",", "", "missing field `os`"),
            ("diff_ids", "diffs", "missing field `diff_ids`"),
        ] {
            let found = ImageConfig::parse(text.replace(from, to).as_bytes()).expect_err(to).to_string();
            assert!(found.contains(reason), "{found}");
        }
    }
}
