//! The DSSE envelope: `{"payloadType", "payload", "signatures": [{"keyid", "sig"}]}`.
//!
//! Signed is the pre-authentication encoding (PAE) of the decoded payload, byte for byte as it was sent:
//! `"DSSEv1" SP LEN(type) SP type SP LEN(payload) SP payload` (DSSE protocol 1.0.2).

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;

use aws_lc_rs::digest::{self, Digest};
use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::json::{self, Members, Text, Unused, shown};
use super::{AttestationError, Limits, Part};

/// The payload type of an in-toto statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// Signatures that one envelope may have: each costs a check against each key.
const MAX_SIGNATURES: usize = 32;

/// Padding is optional, as in DSSE; bits that no byte comes from must be zero, so that a payload has one spelling.
const BASE64: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, BASE64);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, BASE64);

/// An envelope, not verified.
#[derive(Debug)]
pub struct Envelope<'a> {
    payload: Cow<'a, str>,
    /// Its signatures, in the order of the envelope.
    pub signatures: Vec<Signature<'a>>,
}

/// One signature of an envelope.
#[derive(Debug, PartialEq, Eq)]
pub struct Signature<'a> {
    /// Which key the signer says it used. A hint: nothing proves it.
    pub key_id: Cow<'a, str>,
    /// The signature's bytes.
    pub bytes: Vec<u8>,
}

/// The decoded payload within what is signed.
#[derive(Debug)]
pub struct Payload {
    pae: Vec<u8>,
    start: usize,
    sha256: OnceCell<Digest>,
    sha384: OnceCell<Digest>,
}

/// The bytes before the payload in the pre-authentication encoding.
pub(super) fn pae_header(payload_bytes: usize) -> Vec<u8> {
    format!("DSSEv1 {} {PAYLOAD_TYPE} {payload_bytes} ", PAYLOAD_TYPE.len()).into_bytes()
}

impl Payload {
    /// `pae` is the whole pre-authentication encoding; the payload starts at `start`.
    pub(super) fn new(pae: Vec<u8>, start: usize) -> Self {
        Self { pae, start, sha256: OnceCell::new(), sha384: OnceCell::new() }
    }

    /// What is signed.
    pub fn signed_bytes(&self) -> &[u8] {
        &self.pae
    }

    /// SHA-256 of what is signed, computed once.
    pub fn signed_sha256(&self) -> &Digest {
        self.sha256.get_or_init(|| digest::digest(&digest::SHA256, &self.pae))
    }

    /// SHA-384 of what is signed, computed once.
    pub fn signed_sha384(&self) -> &Digest {
        self.sha384.get_or_init(|| digest::digest(&digest::SHA384, &self.pae))
    }

    /// The payload itself.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.pae[self.start..]
    }

    /// The buffer that holds the payload, and where the payload starts in it.
    pub(super) fn into_parts(self) -> (Vec<u8>, usize) {
        (self.pae, self.start)
    }
}

impl<'a> Envelope<'a> {
    /// Reads an envelope. Nothing in it is verified yet.
    ///
    /// # Errors
    /// When it is too large, not JSON of this form, has a key twice, another payload type, or no or too many signatures.
    pub fn parse(bytes: &'a [u8], limits: &Limits) -> Result<Self, AttestationError> {
        limits.check_envelope(bytes.len())?;
        json::read(bytes, EnvelopeSeed { depth: limits.max_json_depth })
            .map_err(|fault| AttestationError::malformed(Part::Envelope, fault))
    }

    /// Decodes the payload.
    ///
    /// # Errors
    /// When it is not base64 (either alphabet).
    pub fn payload(&self) -> Result<Payload, AttestationError> {
        let text = self.payload.as_bytes();
        let engine = engine(text);
        // The length is part of what precedes the payload, and known from the text without its padding.
        let symbols = text.len() - text.iter().rev().take_while(|c| **c == b'=').count();
        let length = symbols / 4 * 3 + (symbols % 4 * 3) / 4;
        let mut pae = pae_header(length);
        let start = pae.len();
        pae.reserve_exact(length + 3);
        pae.resize(start + base64::decoded_len_estimate(text.len()).max(length), 0);
        let decoded = engine
            .decode_slice(text, &mut pae[start..])
            .map_err(|error| AttestationError::Base64 { part: "payload", reason: error.to_string() })?;
        if decoded != length {
            return Err(AttestationError::Base64 {
                part: "payload",
                reason: format!("{} characters gave {decoded} bytes, not {length}", text.len()),
            });
        }
        pae.truncate(start + length);
        Ok(Payload::new(pae, start))
    }
}

fn engine(text: &[u8]) -> &'static GeneralPurpose {
    if memchr::memchr2(b'-', b'_', text).is_some() { &URL_SAFE } else { &STANDARD }
}

/// An envelope's members so far. A file may be an envelope, or a bundle that has one in it; both are read by this.
pub(super) struct Fields<'de> {
    depth: u32,
    payload_type: bool,
    payload: Option<Cow<'de, str>>,
    signatures: Option<Vec<Signature<'de>>>,
}

impl<'de> Fields<'de> {
    /// `depth`: the levels that the envelope itself may have.
    pub(super) fn new(depth: u32) -> Self {
        Self { depth, payload_type: false, payload: None, signatures: None }
    }

    /// Reads the value of `key`; false, and nothing is read, when it is not a member of an envelope.
    pub(super) fn take<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<bool, A::Error> {
        match key {
            "payloadType" => {
                let found = map.next_value_seed(Text)?;
                if found != PAYLOAD_TYPE {
                    return Err(A::Error::custom(format_args!(
                        "payloadType is {:?}; expected {PAYLOAD_TYPE:?}",
                        shown(&found)
                    )));
                }
                self.payload_type = true;
            }
            "payload" => self.payload = Some(map.next_value_seed(Text)?),
            "signatures" => {
                let unused = Unused { depth: self.depth.saturating_sub(1) };
                self.signatures = Some(map.next_value_seed(Signatures { unused })?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// No member of an envelope was there.
    pub(super) fn is_empty(&self) -> bool {
        !self.payload_type && self.payload.is_none() && self.signatures.is_none()
    }

    /// The envelope.
    pub(super) fn finish<E: serde::de::Error>(self) -> Result<Envelope<'de>, E> {
        if !self.payload_type {
            return Err(E::custom("not a DSSE envelope: it has no payloadType"));
        }
        Ok(Envelope {
            payload: self.payload.ok_or_else(|| E::missing_field("payload"))?,
            signatures: self.signatures.ok_or_else(|| E::missing_field("signatures"))?,
        })
    }
}

pub(super) struct EnvelopeSeed {
    pub(super) depth: u32,
}

impl<'de> DeserializeSeed<'de> for EnvelopeSeed {
    type Value = Envelope<'de>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EnvelopeSeed {
    type Value = Envelope<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a DSSE envelope: an object with payloadType, payload and signatures")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut members, mut fields) = (Members::default(), Fields::new(self.depth));
        let unused = Unused { depth: self.depth.saturating_sub(1) };
        while let Some(key) = members.next(&mut map)? {
            if !fields.take(&key, &mut map)? {
                map.next_value_seed(unused)?;
            }
        }
        fields.finish()
    }
}

struct Signatures {
    unused: Unused,
}

impl<'de> DeserializeSeed<'de> for Signatures {
    type Value = Vec<Signature<'de>>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Signatures {
    type Value = Vec<Signature<'de>>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of signatures")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(signature) = seq.next_element_seed(SignatureSeed { unused: self.unused })? {
            if found.len() == MAX_SIGNATURES {
                return Err(A::Error::custom(format_args!("more than {MAX_SIGNATURES} signatures")));
            }
            found.push(signature);
        }
        if found.is_empty() {
            return Err(A::Error::custom("no signature; expected at least one"));
        }
        Ok(found)
    }
}

struct SignatureSeed {
    unused: Unused,
}

impl<'de> DeserializeSeed<'de> for SignatureSeed {
    type Value = Signature<'de>;
    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for SignatureSeed {
    type Value = Signature<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a signature: an object with sig")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut members, mut key_id, mut bytes) = (Members::default(), None, None);
        while let Some(key) = members.next(&mut map)? {
            match &*key {
                "keyid" => key_id = map.next_value::<Option<Cow<'de, str>>>()?,
                "sig" => {
                    let text = map.next_value_seed(Text)?;
                    bytes = Some(
                        engine(text.as_bytes())
                            .decode(text.as_bytes())
                            .map_err(|error| A::Error::custom(format_args!("sig is not base64: {error}")))?,
                    );
                }
                _ => map.next_value_seed(self.unused)?,
            }
        }
        Ok(Signature {
            key_id: key_id.unwrap_or_default(),
            bytes: bytes.ok_or_else(|| A::Error::missing_field("sig"))?,
        })
    }
}
