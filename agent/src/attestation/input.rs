//! What a file is: a DSSE envelope, or a Sigstore bundle (v0.1 to v0.3) around one or around a signature over an artifact.
//!
//! A bundle is read twice: here strictly, for what kind it is and what evidence it has, and by `sigstore-verify`, which checks
//! that evidence.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::envelope::{Envelope, EnvelopeSeed, Fields};
use super::json::{self, Members, Text, Unused, shown};
use super::{AttestationError, Limits, Part};
use crate::mark::without_mark;

/// Log entries, and timestamps, that one bundle may have: each costs checks of signatures.
const MAX_EVIDENCE: u32 = 32;

/// Media types of bundles (Sigstore protobuf-specs, `sigstore_bundle.proto`). v0.3 has two spellings.
const MEDIA_TYPES: [&str; 4] = [
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    "application/vnd.dev.sigstore.bundle.v0.3+json",
];

/// A file.
#[derive(Debug)]
pub(super) enum Input<'a> {
    /// A DSSE envelope.
    Envelope(Envelope<'a>),
    /// A Sigstore bundle.
    Bundle(Bundle<'a>),
}

/// A Sigstore bundle, not verified.
#[derive(Debug)]
pub(super) struct Bundle<'a> {
    /// What is signed: an envelope, or an artifact that is not in it.
    pub(super) envelope: Option<Envelope<'a>>,
    /// Who signed, and what proves when.
    pub(super) material: Material,
}

/// The verification material of a bundle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Material {
    /// A certificate names the signer; else a key that the bundle does not hold.
    pub(super) certificate: bool,
    /// Transparency log entries.
    pub(super) log_entries: u32,
    /// RFC 3161 timestamps.
    pub(super) timestamps: u32,
}

impl Material {
    /// Something proves when it was signed.
    pub(super) fn has_evidence(self) -> bool {
        self.log_entries > 0 || self.timestamps > 0
    }
}

impl<'a> Input<'a> {
    /// Reads a file. Nothing in it is verified yet.
    pub(super) fn parse(bytes: &'a [u8], limits: &Limits) -> Result<Self, AttestationError> {
        limits.check_envelope(bytes.len())?;
        json::read(without_mark(bytes), InputSeed { depth: limits.max_json_depth })
            .map_err(|fault| AttestationError::malformed(Part::Envelope, fault))
    }
}

struct InputSeed {
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for InputSeed {
    type Value = Input<'de>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for InputSeed {
    type Value = Input<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a DSSE envelope (payloadType, payload, signatures) or a Sigstore bundle")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let depth = self.depth.saturating_sub(1);
        let unused = Unused { depth };
        let (mut members, mut fields) = (Members::default(), Fields::new(self.depth));
        let (mut material, mut envelope, mut message) = (None, None, false);
        while let Some(key) = members.next(&mut map)? {
            if fields.take(&key, &mut map)? {
                continue;
            }
            match &*key {
                "mediaType" => {
                    let found = map.next_value_seed(Text)?;
                    if !MEDIA_TYPES.contains(&&*found) {
                        return Err(A::Error::custom(format_args!(
                            "mediaType is {:?}; expected a Sigstore bundle of version 0.1 to 0.3",
                            shown(&found)
                        )));
                    }
                }
                "verificationMaterial" => material = Some(map.next_value_seed(MaterialSeed { depth })?),
                "dsseEnvelope" => envelope = Some(map.next_value_seed(EnvelopeSeed { depth })?),
                "messageSignature" => {
                    map.next_value_seed(unused)?;
                    message = true;
                }
                _ => map.next_value_seed(unused)?,
            }
        }
        match (material, envelope, message) {
            (None, None, false) => fields.finish().map(Input::Envelope),
            (None, ..) => Err(A::Error::missing_field("verificationMaterial")),
            (Some(_), ..) if !fields.is_empty() => {
                Err(A::Error::custom("both a Sigstore bundle and a DSSE envelope; expected one of them"))
            }
            (Some(_), None, false) => {
                Err(A::Error::custom("a Sigstore bundle with neither dsseEnvelope nor messageSignature"))
            }
            (Some(_), Some(_), true) => Err(A::Error::custom(
                "a Sigstore bundle with both dsseEnvelope and messageSignature; expected one of them",
            )),
            (Some(material), envelope, _) => Ok(Input::Bundle(Bundle { envelope, material })),
        }
    }
}

struct MaterialSeed {
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for MaterialSeed {
    type Value = Material;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MaterialSeed {
    type Value = Material;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("verification material: an object with a certificate or a public key")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let depth = self.depth.saturating_sub(1);
        let mut members = Members::default();
        let (mut certificates, mut keys, mut log_entries, mut timestamps) = (0, 0, 0, 0);
        while let Some(key) = members.next(&mut map)? {
            match &*key {
                "certificate" | "x509CertificateChain" => {
                    map.next_value_seed(Unused { depth })?;
                    certificates += 1;
                }
                "publicKey" => {
                    map.next_value_seed(Unused { depth })?;
                    keys += 1;
                }
                "tlogEntries" => log_entries = map.next_value_seed(Count { depth })?,
                "timestampVerificationData" => timestamps = map.next_value_seed(Timestamps { depth })?,
                _ => map.next_value_seed(Unused { depth })?,
            }
        }
        if certificates + keys != 1 {
            return Err(A::Error::custom(format_args!(
                "{certificates} certificate(s) and {keys} public key(s); expected one of certificate, x509CertificateChain \
                 and publicKey"
            )));
        }
        Ok(Material { certificate: certificates == 1, log_entries, timestamps })
    }
}

/// An array whose values are checked and counted; `null` is an empty one, as in protobuf's JSON.
struct Count {
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for Count {
    type Value = u32;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<u32, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Count {
    type Value = u32;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }
    fn visit_unit<E>(self) -> Result<u32, E> {
        Ok(0)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<u32, A::Error> {
        let mut count = 0;
        while seq.next_element_seed(Unused { depth: self.depth.saturating_sub(1) })?.is_some() {
            count += 1;
            if count > MAX_EVIDENCE {
                return Err(A::Error::custom(format_args!(
                    "more than {MAX_EVIDENCE} log entries or timestamps"
                )));
            }
        }
        Ok(count)
    }
}

/// `timestampVerificationData`: how many timestamps it has.
struct Timestamps {
    depth: u32,
}

impl<'de> DeserializeSeed<'de> for Timestamps {
    type Value = u32;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<u32, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Timestamps {
    type Value = u32;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with rfc3161Timestamps")
    }
    fn visit_unit<E>(self) -> Result<u32, E> {
        Ok(0)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<u32, A::Error> {
        let (mut members, mut count) = (Members::default(), 0);
        while let Some(key) = members.next(&mut map)? {
            if key == "rfc3161Timestamps" {
                count = map.next_value_seed(Count { depth: self.depth.saturating_sub(1) })?;
            } else {
                map.next_value_seed(Unused { depth: self.depth.saturating_sub(1) })?;
            }
        }
        Ok(count)
    }
}
