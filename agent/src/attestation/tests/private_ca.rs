//! A certificate authority and a timestamp authority of our own, by openssl: what a company's Sigstore without logs makes.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::config::Identity;

const WHO: &str = "https://ci.example/acme/web/release@refs/tags/v1";
const ISSUER: &str = "https://ci.example";

const CONFIGURATION: &str = r"
[ca]
default_ca = fulcio
[fulcio]
database = DIR/index.txt
serial = DIR/serial
new_certs_dir = DIR
certificate = DIR/ca.crt
private_key = DIR/ca.key
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = any
[root]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash
[signer]
keyUsage = critical,digitalSignature
extendedKeyUsage = codeSigning
subjectAltName = critical,URI:https://ci.example/acme/web/release@refs/tags/v1
1.3.6.1.4.1.57264.1.8 = ASN1:UTF8String:https://ci.example
[server]
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = critical,URI:https://ci.example/acme/web/release@refs/tags/v1
1.3.6.1.4.1.57264.1.8 = ASN1:UTF8String:https://ci.example
[nobody]
keyUsage = critical,digitalSignature
extendedKeyUsage = codeSigning
subjectAltName = critical,URI:https://ci.example/acme/web/release@refs/tags/v1
[stamps]
keyUsage = critical,digitalSignature
extendedKeyUsage = critical,timeStamping
[tsa]
serial = DIR/tsa.serial
signer_digest = sha256
digests = sha256
default_policy = 1.2.3.4.1
ess_cert_id_alg = sha256
";

/// One company's authorities.
struct Company(TempDir);

impl Company {
    fn new() -> Self {
        let new = Self(tempfile::tempdir().unwrap());
        let directory = new.0.path().to_str().unwrap();
        new.write("openssl.cnf", CONFIGURATION.replace("DIR", directory).as_bytes());
        for (name, content) in [("index.txt", ""), ("serial", "01\n"), ("tsa.serial", "01\n")] {
            new.write(name, content.as_bytes());
        }
        new.key("ca");
        new.openssl(&[
            "req",
            "-new",
            "-x509",
            "-config",
            "openssl.cnf",
            "-extensions",
            "root",
            "-subj",
            "/CN=root",
            "-days",
            "3650",
            "-key",
            "ca.key",
            "-out",
            "ca.crt",
        ]);
        new.certificate("tsa", "stamps", -1, 1);
        new
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn openssl(&self, args: &[&str]) {
        let out = Command::new("openssl")
            .args(args)
            .current_dir(self.0.path())
            .output()
            .expect("openssl is needed: apt-get install openssl");
        assert!(out.status.success(), "openssl {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    fn key(&self, name: &str) {
        self.write(&format!("{name}.key"), key(Algorithm::P256).to_pem().unwrap().as_bytes());
    }

    /// A key with a certificate that is valid from and until so many days from now.
    fn certificate(&self, name: &str, extensions: &str, from: i64, until: i64) {
        self.key(name);
        let [request, key, certificate] = ["csr", "key", "crt"].map(|end| format!("{name}.{end}"));
        self.openssl(&[
            "req",
            "-new",
            "-config",
            "openssl.cnf",
            "-subj",
            "/CN=x",
            "-key",
            &key,
            "-out",
            &request,
        ]);
        let day = |days: i64| {
            let time = time::OffsetDateTime::now_utc() + time::Duration::days(days);
            let form = time::macros::format_description!("[year][month][day][hour][minute][second]Z");
            time.format(form).unwrap()
        };
        let (from, until) = (day(from), day(until));
        self.openssl(&[
            "ca",
            "-batch",
            "-notext",
            "-config",
            "openssl.cnf",
            "-extensions",
            extensions,
            "-startdate",
            &from,
            "-enddate",
            &until,
            "-in",
            &request,
            "-out",
            &certificate,
        ]);
    }

    fn der(&self, certificate: &str) -> String {
        let pem = String::from_utf8(self.read(&format!("{certificate}.crt"))).unwrap();
        STANDARD.encode(pem_rfc7468::decode_vec(pem.as_bytes()).unwrap().1)
    }

    /// A signature by `name`'s key.
    fn sign(&self, name: &str, what: &[u8]) -> Vec<u8> {
        self.write("message", what);
        self.openssl(&["dgst", "-sha256", "-sign", &format!("{name}.key"), "-out", "signature", "message"]);
        self.read("signature")
    }

    /// A timestamp of now.
    fn stamp(&self, what: &[u8]) -> String {
        self.write("stamped", what);
        self.openssl(&["ts", "-query", "-data", "stamped", "-sha256", "-cert", "-out", "query"]);
        self.openssl(&[
            "ts",
            "-reply",
            "-config",
            "openssl.cnf",
            "-section",
            "tsa",
            "-queryfile",
            "query",
            "-signer",
            "tsa.crt",
            "-inkey",
            "tsa.key",
            "-out",
            "reply",
        ]);
        STANDARD.encode(self.read("reply"))
    }

    fn envelope(&self, name: &str) -> (Value, Vec<u8>) {
        let payload = statement_with(SBOM);
        let signed = [envelope::pae_header(payload.len()).as_slice(), payload.as_bytes()].concat();
        let signature = self.sign(name, &signed);
        let envelope = json!({
            "payloadType": envelope::PAYLOAD_TYPE, "payload": STANDARD.encode(payload),
            "signatures": [{"keyid": "", "sig": STANDARD.encode(&signature)}],
        });
        (envelope, signature)
    }

    /// A bundle by `name` with a timestamp of now.
    fn bundle(&self, name: &str) -> Value {
        let (envelope, signature) = self.envelope(name);
        json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": {
                "certificate": {"rawBytes": self.der(name)},
                "timestampVerificationData": {"rfc3161Timestamps": [{"signedTimestamp": self.stamp(&signature)}]},
            },
            "dsseEnvelope": envelope,
        })
    }

    fn trust_root(&self) -> Value {
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "certificateAuthorities": [{
                "uri": "https://ca.example", "certChain": {"certificates": [{"rawBytes": self.der("ca")}]},
                "validFor": {"start": "2020-01-01T00:00:00Z"},
            }],
            "timestampAuthorities": [{
                "certChain": {"certificates": [{"rawBytes": self.der("tsa")}, {"rawBytes": self.der("ca")}]},
                "validFor": {"start": "2020-01-01T00:00:00Z"},
            }],
        })
    }
}

fn policy_of(root: &Value) -> Policy {
    let root = TrustRoot::parse("ours", root.to_string().as_bytes()).unwrap();
    let identity = Identity { identity: WHO.into(), issuer: ISSUER.into() };
    Policy::new(Keys::default(), 1, vec![identity], root).unwrap()
}

fn go(bundle: &Value, root: &Value) -> Result<Verified, String> {
    verify(bundle.to_string().as_bytes(), &policy_of(root), &Limits::default())
        .map_err(|error| error.to_string())
}

#[test]
fn certificates_and_timestamps_of_ones_own() {
    let (company, other) = (Company::new(), Company::new());
    for (name, extensions, from, until) in [
        ("good", "signer", -1, 1),
        ("late", "signer", -3, -1),
        ("early", "signer", 1, 3),
        ("server", "server", -1, 1),
        ("nobody", "nobody", -1, 1),
    ] {
        company.certificate(name, extensions, from, until);
    }
    other.certificate("good", "signer", -1, 1);
    let root = company.trust_root();
    let good = company.bundle("good");
    let verified = go(&good, &root).unwrap();
    assert!(verified.statement.names(&IMAGE));
    assert_eq!(verified.signers.to_string(), format!("{WHO} (issuer {ISSUER})"));
    let age = SystemTime::now().duration_since(verified.time.unwrap()).unwrap_or_default();
    assert!(age < Duration::from_secs(60), "{age:?}");

    let changed = |change: &dyn Fn(&mut Value)| {
        let mut bundle = good.clone();
        change(&mut bundle);
        bundle
    };
    let public: Value = serde_json::from_str(sigstore_trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT).unwrap();
    let with = |member: &str, value: &Value| {
        let mut root = root.clone();
        root[member] = value.clone();
        root
    };
    let ended = with(
        "certificateAuthorities",
        &json!([{
            "uri": "https://ca.example", "certChain": {"certificates": [{"rawBytes": company.der("ca")}]},
            "validFor": {"start": "2020-01-01T00:00:00Z", "end": "2020-12-31T00:00:00Z"},
        }]),
    );
    let unstamped = |bundle: &mut Value| {
        bundle["verificationMaterial"]["timestampVerificationData"] = json!({"rfc3161Timestamps": []});
    };
    let foreign_stamp = other.stamp(b"x");
    for (name, bundle, root, reason) in [
        ("expired certificate", company.bundle("late"), &root, "chain is invalid"),
        ("certificate not yet valid", company.bundle("early"), &root, "chain is invalid"),
        ("certificate for something else", company.bundle("server"), &root, "chain is invalid"),
        ("certificate without an issuer", company.bundle("nobody"), &root, "no identity and issuer"),
        ("another's certificate and timestamp", other.bundle("good"), &root, "timestamp"),
        (
            "another's certificate",
            changed(&|b| b["verificationMaterial"]["certificate"]["rawBytes"] = other.der("good").into()),
            &root,
            "chain is invalid",
        ),
        ("another's root", good.clone(), &other.trust_root(), "timestamp"),
        ("an authority that had ended", good.clone(), &ended, "no trusted certificate authority is valid"),
        ("no timestamp", changed(&unstamped), &root, "at least one tlog entry or timestamp"),
        (
            "a timestamp of something else",
            changed(&|b| {
                let stamp = company.stamp(b"x");
                b["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"][0]["signedTimestamp"] =
                    stamp.into();
            }),
            &root,
            "timestamp",
        ),
        (
            "another's timestamp beside",
            changed(&|b| {
                let list = &mut b["verificationMaterial"]["timestampVerificationData"]["rfc3161Timestamps"];
                list.as_array_mut().unwrap().push(json!({"signedTimestamp": foreign_stamp}));
            }),
            &root,
            "timestamp",
        ),
        (
            "another signature",
            changed(&|b| {
                let other = company.bundle("good");
                b["dsseEnvelope"]["signatures"] = other["dsseEnvelope"]["signatures"].clone();
            }),
            &root,
            "timestamp",
        ),
        (
            "another payload",
            changed(&|b| {
                let payload = statement_with("{\"spdxVersion\":\"SPDX-2.2\"}");
                b["dsseEnvelope"]["payload"] = STANDARD.encode(payload).into();
            }),
            &root,
            "signature",
        ),
        (
            "two signatures",
            changed(&|b| {
                let first = b["dsseEnvelope"]["signatures"][0].clone();
                b["dsseEnvelope"]["signatures"].as_array_mut().unwrap().push(first);
            }),
            &root,
            "exactly one signature",
        ),
        ("a root with certificate logs", good.clone(), &with("ctlogs", &public["ctlogs"]), "timestamp"),
        ("a root with logs", good.clone(), &with("tlogs", &public["tlogs"]), "inclusion proof"),
    ] {
        let text = go(&bundle, root).expect_err(name);
        assert!(
            text.starts_with("the Sigstore bundle is refused: ") && text.contains(reason),
            "{name}: {text}"
        );
    }
    // Who may sign.
    let strict = |identity: &str, issuer: &str| {
        let root = TrustRoot::parse("ours", root.to_string().as_bytes()).unwrap();
        let identity = Identity { identity: identity.into(), issuer: issuer.into() };
        Policy::new(Keys::default(), 1, vec![identity], root).unwrap()
    };
    for (identity, issuer, accepted) in [
        (WHO, ISSUER, true),
        ("https://ci.example/acme/*/release@refs/tags/*", ISSUER, true),
        ("https://ci.example/acme/**", ISSUER, true),
        ("https://ci.example/acme/*", ISSUER, false),
        ("ci.example/acme/web/**", ISSUER, false),
        ("https://ci.example/acme/web/release@refs/tags/v", ISSUER, false),
        (WHO, "https://ci.exampl", false),
    ] {
        let result = verify(good.to_string().as_bytes(), &strict(identity, issuer), &Limits::default());
        assert_eq!(result.is_ok(), accepted, "{identity} {issuer}: {result:?}");
    }
    let keys = policy(&keys(&[&key(Algorithm::P256)]), 1);
    let error = verify(good.to_string().as_bytes(), &keys, &Limits::default()).unwrap_err();
    assert_eq!(error, AttestationError::NoIdentities);
    let raw = envelope_of(&statement_with(SBOM), &[&key(Algorithm::P256)]);
    assert_eq!(verify(&raw, &policy_of(&root), &Limits::default()).unwrap_err(), AttestationError::NoKeys);
}

#[test]
fn layers_of_cosign() {
    let company = Company::new();
    company.certificate("good", "signer", -1, 1);
    let (envelope, signature) = company.envelope("good");
    let envelope = format!("{envelope}\n");
    let pem = |name: &str| String::from_utf8(company.read(&format!("{name}.crt"))).unwrap();
    let stamp = json!({"SignedRFC3161Timestamp": company.stamp(&signature)}).to_string();
    let (leaf, chain) = (pem("good"), pem("ca"));
    let annotations = |pairs: &[(&str, &str)]| {
        let pairs: Vec<(String, String)> =
            pairs.iter().map(|(k, v)| (format!("dev.sigstore.cosign/{k}"), (*v).to_owned())).collect();
        cosign::assemble(envelope.as_bytes(), |name| {
            pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        })
    };
    let whole =
        annotations(&[("certificate", &leaf), ("chain", &chain), ("rfc3161timestamp", &stamp)]).unwrap();
    let verified = verify(&whole, &policy_of(&company.trust_root()), &Limits::default()).unwrap();
    assert_eq!(verified.signers.identity.unwrap().identity, WHO);
    // Without evidence a layer is an envelope; so it is with an entry that a key does not need.
    assert_eq!(annotations(&[]).unwrap(), envelope.as_bytes());
    let entry = |kind: &str, version: &str| {
        let body = json!({"apiVersion": version, "kind": kind, "spec": {}}).to_string();
        json!({
            "SignedEntryTimestamp": "AA==",
            "Payload": {"body": STANDARD.encode(body), "integratedTime": 1_700_000_000, "logIndex": 7, "logID": "c0".repeat(32)},
        })
        .to_string()
    };
    let old = entry("intoto", "0.0.1");
    assert_eq!(annotations(&[("bundle", &old)]).unwrap(), envelope.as_bytes());
    let old = annotations(&[("certificate", &leaf), ("bundle", &old)]).unwrap();
    let text = verify(&old, &policy_of(&company.trust_root()), &Limits::default()).unwrap_err().to_string();
    assert!(text.contains("attest again with a newer cosign"), "{text}");
    let new = annotations(&[("certificate", &leaf), ("bundle", &entry("dsse", "0.0.1"))]).unwrap();
    let text = verify(&new, &policy_of(&company.trust_root()), &Limits::default()).unwrap_err().to_string();
    assert!(text.contains("log") && text.contains("trust root"), "{text}");
    for (name, value, reason) in [
        ("certificate", "none", "not PEM"),
        ("certificate", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "not valid PEM"),
        ("certificate", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "found PUBLIC KEY"),
        ("bundle", "{", "EOF"),
        ("bundle", "{\"a\":1,\"a\":1}", "duplicate key"),
        ("bundle", &entry("dsse", "0.0.1").replace("c0", "x0"), "not hexadecimal"),
        ("bundle", &entry("dsse", "0.0.1").replace("\"body\":\"", "\"body\":\"!"), "Invalid"),
        ("rfc3161timestamp", "{}", "missing field"),
    ] {
        let text = annotations(&[(name, value)]).unwrap_err().to_string();
        assert!(text.contains(name) && text.contains(reason), "{name} {value}: {text}");
    }
}
