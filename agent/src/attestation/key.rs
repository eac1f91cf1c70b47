//! Keys: P-256, P-384, Ed25519, and RSA to verify only; public in PEM SubjectPublicKeyInfo, private in PEM PKCS#8.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    ECDSA_P384_SHA384_ASN1_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, VerificationAlgorithm,
};
use pem_rfc7468::LineEnding;

use super::envelope::{Payload, Signature};
use super::sha256;
use crate::finding::Sha256;

/// SubjectPublicKeyInfo of an uncompressed P-256 point, up to the point (RFC 5480). A key is taken in this one spelling, so
/// that one key cannot have two ids.
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The same for P-384.
const P384_SPKI: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81,
    0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
];
/// AlgorithmIdentifier of an RSA key of either padding, within its SubjectPublicKeyInfo (RFC 3279).
const RSA_ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
/// SubjectPublicKeyInfo of an Ed25519 key, up to the key (RFC 8410).
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Object identifiers (DER, tag and length included) of the algorithms that are named when a key is refused, the more telling
/// ones first.
const NAMES: [(&[u8], &str); 11] = [
    (&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01], "RSA"),
    (&[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a], "RSA for PSS only"),
    (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22], "P-384 in another form"),
    (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23], "P-521"),
    (&[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a], "secp256k1"),
    (&[0x06, 0x03, 0x2b, 0x65, 0x71], "Ed448"),
    (&[0x06, 0x03, 0x2b, 0x65, 0x6e], "X25519"),
    (&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03], "ML-DSA"),
    (&[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07], "P-256 in another form"),
    (&[0x06, 0x03, 0x2b, 0x65, 0x70], "Ed25519 in another form"),
    (&[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01], "another elliptic curve"),
];

/// A key file is never larger.
pub(super) const MAX_KEY_FILE: u64 = 64 << 10;

/// Why a key file is refused.
#[derive(Debug, thiserror::Error)]
#[error("key {}: {reason}", .file.display())]
pub struct KeyError {
    /// The file.
    pub file: PathBuf,
    /// What was expected, what was found, what to do.
    pub reason: String,
}

/// Names a public key: SHA-256 of its SubjectPublicKeyInfo in DER.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub Sha256);

/// 64 lower-case hexadecimal digits.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "key:{self}")
    }
}

/// Algorithms to sign with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA over P-256 with SHA-256, signatures in ASN.1 DER.
    P256,
    /// ECDSA over P-384 with SHA-384, signatures in ASN.1 DER.
    P384,
    /// Ed25519.
    Ed25519,
}

/// A public key.
#[derive(Clone, Debug)]
struct PublicKey {
    id: KeyId,
    spki: Vec<u8>,
    scheme: Scheme,
}

/// How signatures by a key are checked.
#[derive(Clone, Debug)]
enum Scheme {
    P256(ParsedPublicKey),
    /// cosign 1 and 2 hash with SHA-256 whatever the curve; all others with SHA-384.
    P384 {
        sha384: ParsedPublicKey,
        sha256: ParsedPublicKey,
    },
    Ed25519(ParsedPublicKey),
    /// Of 2048 bits or more, with SHA-256.
    Rsa {
        pkcs1: ParsedPublicKey,
        pss: ParsedPublicKey,
    },
}

impl PublicKey {
    fn from_spki(der: &[u8]) -> Result<Self, String> {
        let parse = |name: &str, algorithm: &'static dyn VerificationAlgorithm, key: &[u8]| {
            ParsedPublicKey::new(algorithm, key)
                .map_err(|error| format!("the {name} public key is not valid: {error}"))
        };
        let scheme = if let Some(point) = der.strip_prefix(&P256_SPKI) {
            Scheme::P256(parse("P-256", &ECDSA_P256_SHA256_ASN1, point)?)
        } else if let Some(point) = der.strip_prefix(&P384_SPKI) {
            Scheme::P384 {
                sha384: parse("P-384", &ECDSA_P384_SHA384_ASN1, point)?,
                sha256: parse("P-384", &ECDSA_P384_SHA256_ASN1, point)?,
            }
        } else if let Some(key) = der.strip_prefix(&ED25519_SPKI) {
            Scheme::Ed25519(parse("Ed25519", &ED25519, key)?)
        } else if is_rsa(der) {
            let pkcs1 = parse("RSA", &RSA_PKCS1_2048_8192_SHA256, der)?;
            let bits = rsa_bits(der);
            if !(2048..=8192).contains(&bits) {
                return Err(format!("expected an RSA key of 2048 to 8192 bits, found {bits}"));
            }
            // Only the one spelling that the provider would write, so that one key cannot have two ids.
            if pkcs1.as_der().map_or(true, |canonical| canonical.as_ref() != der) {
                return Err("the RSA public key is not in its canonical form (DER)".into());
            }
            Scheme::Rsa { pkcs1, pss: parse("RSA", &RSA_PSS_2048_8192_SHA256, der)? }
        } else {
            return Err(unsupported(der));
        };
        Ok(Self { id: KeyId(sha256(der)), spki: der.to_vec(), scheme })
    }

    fn verifies(&self, payload: &Payload, signature: &[u8]) -> bool {
        let by_sha256 =
            |key: &ParsedPublicKey| key.verify_digest_sig(payload.signed_sha256(), signature).is_ok();
        match &self.scheme {
            Scheme::P256(key) => by_sha256(key),
            Scheme::P384 { sha384, sha256 } => {
                sha384.verify_digest_sig(payload.signed_sha384(), signature).is_ok() || by_sha256(sha256)
            }
            // Ed25519 hashes everything anew for each signature, so look at the length first.
            Scheme::Ed25519(key) => {
                signature.len() == 64 && key.verify_sig(payload.signed_bytes(), signature).is_ok()
            }
            Scheme::Rsa { pkcs1, pss } => by_sha256(pkcs1) || by_sha256(pss),
        }
    }
}

/// The SubjectPublicKeyInfo is of an RSA key.
fn is_rsa(der: &[u8]) -> bool {
    rsa_content(der).is_some_and(|content| content.starts_with(&RSA_ALGORITHM))
}

/// What is in the outermost SEQUENCE.
fn rsa_content(der: &[u8]) -> Option<&[u8]> {
    match der {
        [0x30, 0x81, _, rest @ ..] | [0x30, 0x82, _, _, rest @ ..] => Some(rest),
        _ => None,
    }
}

/// Bits of the modulus, the first INTEGER of an RSA key; 0 when there is none. The provider has parsed the key already.
fn rsa_bits(der: &[u8]) -> usize {
    aws_lc_rs::rsa::PublicKey::from_der(der).map_or(0, |key| {
        let modulus = key.modulus();
        let modulus = modulus.big_endian_without_leading_zero();
        modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize)
    })
}

fn unsupported(der: &[u8]) -> String {
    let name = NAMES.iter().find(|(oid, _)| memchr::memmem::find(der, oid).is_some());
    format!(
        "expected a P-256 or P-384 (uncompressed point, named curve) or Ed25519 key, or an RSA key to verify with, found {}; \
         sign with such a key: muster attest keygen --private key.pem --public key.pub",
        name.map_or("one of an unknown algorithm", |(_, name)| name)
    )
}

/// The public keys that may sign, each once.
#[derive(Clone, Debug, Default)]
pub struct Keys(Vec<PublicKey>);

impl Keys {
    /// Reads public keys, one per file.
    ///
    /// # Errors
    /// The first file that is not a key of a supported algorithm.
    pub fn load(files: &[PathBuf]) -> Result<Self, KeyError> {
        let mut keys = Self::default();
        for file in files {
            let refuse = |reason| KeyError { file: file.clone(), reason };
            keys.add_pem(&read(file).map_err(refuse)?).map_err(refuse)?;
        }
        Ok(keys)
    }

    /// Adds a public key in PEM (`BEGIN PUBLIC KEY`), and gives its id; one that is there already counts once.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn add_pem(&mut self, pem: &[u8]) -> Result<KeyId, String> {
        let (label, der) = decode(pem)?;
        if label != "PUBLIC KEY" {
            return Err(format!(
                "expected BEGIN PUBLIC KEY, found BEGIN {label}; of a private key or a certificate, `openssl pkey -pubout` \
                 or `openssl x509 -pubkey -noout` gives the public key"
            ));
        }
        let key = PublicKey::from_spki(&der)?;
        let id = key.id;
        if self.0.iter().all(|known| known.id != id) {
            self.0.push(key);
        }
        Ok(id)
    }

    /// How many different keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their ids.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> + '_ {
        self.0.iter().map(|key| key.id)
    }

    /// SubjectPublicKeyInfo of each key.
    pub(super) fn spkis(&self) -> impl Iterator<Item = (KeyId, &[u8])> + '_ {
        self.0.iter().map(|key| (key.id, key.spki.as_slice()))
    }

    pub(super) fn short_ids(&self) -> String {
        let ids: Vec<String> = self.ids().map(|id| id.to_string()[..16].to_owned()).collect();
        ids.join(", ")
    }

    /// The keys that have signed, each once, ordered. The key id of a signature only says which key to try first.
    pub(super) fn signers(&self, payload: &Payload, signatures: &[Signature<'_>]) -> Vec<KeyId> {
        let mut signers: Vec<KeyId> = Vec::new();
        for signature in signatures {
            let (hinted, others): (Vec<_>, Vec<_>) = self
                .0
                .iter()
                .filter(|key| !signers.contains(&key.id))
                .partition(|key| signature.key_id == key.id.to_string());
            let signer = hinted.into_iter().chain(others).find(|key| key.verifies(payload, &signature.bytes));
            signers.extend(signer.map(|key| key.id));
        }
        signers.sort_unstable();
        signers
    }
}

/// A private key.
pub struct PrivateKey(Pair);

enum Pair {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({:?})", self.id())
    }
}

impl PrivateKey {
    /// Reads a private key in PEM PKCS#8 (`BEGIN PRIVATE KEY`).
    ///
    /// # Errors
    /// When the file is not such a key, with the command that makes it one.
    pub fn load(file: &Path) -> Result<Self, KeyError> {
        let refuse = |reason| KeyError { file: file.to_owned(), reason };
        Self::from_pem(&read(file).map_err(refuse)?, &file.display().to_string()).map_err(refuse)
    }

    /// Reads a private key in PEM; `name` is what to call it in the command of a message.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn from_pem(pem: &[u8], name: &str) -> Result<Self, String> {
        let convert = format!("openssl pkcs8 -topk8 -nocrypt -in {name} -out {name}.pkcs8");
        // `openssl ecparam -genkey` writes EC PARAMETERS before EC PRIVATE KEY.
        let label = first_label(pem);
        if ["EC PRIVATE KEY", "EC PARAMETERS", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY"].contains(&label) {
            return Err(format!(
                "expected PKCS#8 (BEGIN PRIVATE KEY), found BEGIN {label}; convert it: {convert}"
            ));
        }
        let (label, der) = decode(pem)?;
        if label != "PRIVATE KEY" {
            return Err(format!("expected BEGIN PRIVATE KEY, found BEGIN {label}"));
        }
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &der) {
            return Ok(Self(Pair::P256(pair)));
        }
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &der) {
            return Ok(Self(Pair::P384(pair)));
        }
        match Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der) {
            Ok(pair) => Ok(Self(Pair::Ed25519(pair))),
            Err(_) => Err(unsupported(&der)),
        }
    }

    /// Makes a new key.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate(algorithm: Algorithm) -> Result<Self, aws_lc_rs::error::Unspecified> {
        Ok(Self(match algorithm {
            Algorithm::P256 => Pair::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?),
            Algorithm::P384 => Pair::P384(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING)?),
            Algorithm::Ed25519 => Pair::Ed25519(Ed25519KeyPair::generate()?),
        }))
    }

    /// The private key in PEM PKCS#8, as openssl reads it.
    ///
    /// # Errors
    /// When the provider cannot write it.
    pub fn to_pem(&self) -> Result<String, aws_lc_rs::error::Unspecified> {
        let der = match &self.0 {
            Pair::P256(pair) | Pair::P384(pair) => pair.to_pkcs8v1()?,
            Pair::Ed25519(pair) => pair.to_pkcs8v1()?,
        };
        Ok(encode("PRIVATE KEY", der.as_ref()))
    }

    /// The public key in PEM.
    pub fn public_pem(&self) -> String {
        encode("PUBLIC KEY", &self.spki())
    }

    /// The public key's id.
    pub fn id(&self) -> KeyId {
        KeyId(sha256(&self.spki()))
    }

    fn spki(&self) -> Vec<u8> {
        match &self.0 {
            Pair::P256(pair) => [P256_SPKI.as_slice(), pair.public_key().as_ref()].concat(),
            Pair::P384(pair) => [P384_SPKI.as_slice(), pair.public_key().as_ref()].concat(),
            Pair::Ed25519(pair) => [ED25519_SPKI.as_slice(), pair.public_key().as_ref()].concat(),
        }
    }

    /// Signs a payload.
    pub(super) fn sign(&self, payload: &Payload) -> Result<Vec<u8>, aws_lc_rs::error::Unspecified> {
        Ok(match &self.0 {
            Pair::P256(pair) | Pair::P384(pair) => {
                pair.sign(&SystemRandom::new(), payload.signed_bytes())?.as_ref().to_vec()
            }
            Pair::Ed25519(pair) => pair.try_sign(payload.signed_bytes())?.as_ref().to_vec(),
        })
    }
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    let mut pem = Vec::new();
    let opened = std::fs::File::open(file).map_err(|error| format!("cannot open: {error}"))?;
    opened.take(MAX_KEY_FILE + 1).read_to_end(&mut pem).map_err(|error| format!("cannot read: {error}"))?;
    if pem.len() as u64 > MAX_KEY_FILE {
        return Err(format!("larger than {MAX_KEY_FILE} bytes; expected one key in PEM"));
    }
    Ok(pem)
}

/// Label of the first block of a PEM text; empty without one.
fn first_label(pem: &[u8]) -> &str {
    const BEGIN: &[u8] = b"-----BEGIN ";
    let label = memchr::memmem::find(pem, BEGIN).map(|at| &pem[at + BEGIN.len()..]).unwrap_or_default();
    let end = memchr::memmem::find(label, b"-----").unwrap_or(0);
    std::str::from_utf8(&label[..end]).unwrap_or_default()
}

/// Label and content of a PEM text that must have exactly one block.
fn decode(pem: &[u8]) -> Result<(&str, Vec<u8>), String> {
    match memchr::memmem::find_iter(pem, "-----BEGIN ").count() {
        0 => Err("not PEM: expected a line -----BEGIN …-----".into()),
        1 => pem_rfc7468::decode_vec(pem).map_err(|error| format!("not valid PEM: {error}")),
        blocks => Err(format!("expected one PEM block, found {blocks}; put each key in its own file")),
    }
}

fn encode(label: &str, der: &[u8]) -> String {
    pem_rfc7468::encode_string(label, LineEnding::LF, der).expect("a key of some 100 bytes fits")
}
