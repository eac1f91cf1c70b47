//! Trust roots from all three places, and what is wrong with them.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::*;
use crate::attestation::envelope::Payload;

const PUBLIC: &str = sigstore_trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT;

fn load(path: &Path) -> Result<TrustRoot, String> {
    TrustRoot::load(&config::TrustRoot::Path(path.to_owned())).map_err(|error| error.to_string())
}

#[test]
fn embedded_and_files() {
    let now = SystemTime::now();
    for embedded in [config::TrustRoot::Embedded, config::TrustRoot::EmbeddedGithub] {
        let root = TrustRoot::load(&embedded).unwrap();
        let newest = root.validity().newest.expect("it says since when");
        assert!(newest < now, "{root:?}");
        assert!(root.validity().until.is_none_or(|until| until > newest), "{root:?}");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("trusted_root.json");
    std::fs::write(&file, PUBLIC).unwrap();
    let root = load(&file).unwrap();
    assert_eq!(root.sha256(), sha256(PUBLIC.as_bytes()));
    assert_eq!(root.name(), file.to_str().unwrap());
    let embedded = TrustRoot::load(&config::TrustRoot::Embedded).unwrap();
    assert_eq!(root.validity(), embedded.validity());
    let of = |root| Policy::new(Keys::default(), 1, Vec::new(), root).unwrap().sha256();
    let github = TrustRoot::load(&config::TrustRoot::EmbeddedGithub).unwrap();
    assert_eq!(of(embedded), of(root));
    assert_ne!(of(github), of(load(&file).unwrap()), "another root is another policy");

    let text = load(&directory.path().join("none.json")).unwrap_err();
    assert!(text.contains("none.json") && text.contains("embedded:github"), "{text}");
    std::fs::write(&file, vec![b' '; (4 << 20) + 1]).unwrap();
    assert!(load(&file).unwrap_err().contains("larger than"));
}

#[test]
fn ends() {
    let whole: Value = serde_json::from_str(PUBLIC).unwrap();
    let end = |root: &mut Value, kind: &str, end: Option<&str>| {
        for service in root[kind].as_array_mut().unwrap() {
            let of = if service.get("publicKey").is_some() { &mut service["publicKey"] } else { service };
            of["validFor"] = match end {
                Some(end) => json!({"start": "2021-01-01T00:00:00Z", "end": end}),
                None => json!({"start": "2021-01-01T00:00:00Z"}),
            };
        }
    };
    let kinds = ["certificateAuthorities", "tlogs", "ctlogs", "timestampAuthorities"];
    let at = |text: &str| {
        SystemTime::from(
            time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap(),
        )
    };
    for ended in kinds {
        let mut root = whole.clone();
        kinds.iter().for_each(|kind| end(&mut root, kind, None));
        let validity = TrustRoot::parse("x", root.to_string().as_bytes()).unwrap().validity();
        assert_eq!((validity.newest, validity.until), (Some(at("2021-01-01T00:00:00Z")), None));
        end(&mut root, ended, Some("2024-05-06T00:00:00Z"));
        let validity = TrustRoot::parse("x", root.to_string().as_bytes()).unwrap().validity();
        assert_eq!(validity.until, Some(at("2024-05-06T00:00:00Z")), "{ended}");
        assert!(
            validity.is_stale(at("2024-05-06T00:00:01Z")) && !validity.is_stale(at("2024-05-05T00:00:00Z"))
        );
    }
}

#[test]
fn what_is_refused() {
    let whole: Value = serde_json::from_str(PUBLIC).unwrap();
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut root = whole.clone();
        change(&mut root);
        root.to_string()
    };
    let deep = format!("{{\"x\":{}", "[".repeat(40));
    for (bad, reason) in [
        (String::new(), "byte 0: EOF"),
        ("[]".into(), "not a Sigstore trust root"),
        ("{}".into(), "missing field `mediaType`"),
        (deep, "nested too deeply"),
        (PUBLIC.replacen('{', "{\"mediaType\":\"\",", 1), "duplicate key \"mediaType\""),
        (changed(&|root| root["mediaType"] = json!("application/json")), "mediaType is \"application/json\""),
        (
            changed(&|root| {
                root["certificateAuthorities"] = json!([]);
                root["tlogs"] = json!([]);
            }),
            "neither a certificate authority nor a transparency log",
        ),
        (changed(&|root| root["tlogs"][0]["publicKey"]["rawBytes"] = json!("AAAA")), "Invalid"),
        (
            changed(&|root| {
                let certificates = &mut root["certificateAuthorities"][0]["certChain"]["certificates"];
                certificates[0]["rawBytes"] = json!("AAAA");
            }),
            "certificate",
        ),
        (
            changed(&|root| {
                let first = root["tlogs"][0].clone();
                root["tlogs"].as_array_mut().unwrap().push(first);
            }),
            "duplicate trusted log ID",
        ),
        (
            changed(&|root| {
                root["tlogs"][0]["publicKey"]["validFor"] =
                    json!({"start": "2024-01-01T00:00:00Z", "end": "2023-01-01T00:00:00Z"});
            }),
            "ends before it starts",
        ),
    ] {
        let text = TrustRoot::parse("bad.json", bad.as_bytes()).unwrap_err().to_string();
        assert!(text.starts_with("trust root bad.json: ") && text.contains(reason), "{reason}: {text}");
    }
}

/// A TUF repository with one key, as a client has it in its cache.
struct Repository {
    directory: tempfile::TempDir,
    key: PrivateKey,
}

impl Repository {
    fn put(&self, name: &str, signed: &Value) -> Vec<u8> {
        // Canonical JSON has no escape for a line end; nothing else here differs from what serde_json writes.
        let canonical = signed.to_string().replace("\\n", "\n");
        let signature = self.key.sign(&Payload::new(canonical.into_bytes(), 0)).unwrap();
        let hex: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        let file =
            json!({"signed": signed, "signatures": [{"keyid": "k", "sig": hex}]}).to_string().into_bytes();
        std::fs::write(self.directory.path().join(name), &file).unwrap();
        file
    }

    /// All its files; the target's metadata is of `listed`.
    fn new(expires: &str, listed: &[u8]) -> Self {
        let new = Self { directory: tempfile::tempdir().unwrap(), key: key(Algorithm::P256) };
        let head =
            |kind: &str| json!({"_type": kind, "spec_version": "1.0.31", "version": 1, "expires": expires});
        let with = |kind: &str, member: &str, value: Value| {
            let mut signed = head(kind);
            signed[member] = value;
            signed
        };
        let meta = |bytes: &[u8]| json!({"version": 1, "length": bytes.len(), "hashes": {"sha256": sha256(bytes).to_string()}});
        let role = json!({"keyids": ["k"], "threshold": 1});
        let mut root = head("root");
        root["consistent_snapshot"] = json!(true);
        root["keys"] = json!({"k": {
            "keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256", "keyval": {"public": new.key.public_pem()},
        }});
        root["roles"] = json!({"root": role, "timestamp": role, "snapshot": role, "targets": role});
        new.put("root.json", &root);
        let target = json!({"length": listed.len(), "hashes": {"sha256": sha256(listed).to_string()}});
        let targets =
            new.put("targets.json", &with("targets", "targets", json!({"trusted_root.json": target})));
        let snapshot =
            new.put("snapshot.json", &with("snapshot", "meta", json!({"targets.json": meta(&targets)})));
        new.put("timestamp.json", &with("timestamp", "meta", json!({"snapshot.json": meta(&snapshot)})));
        new
    }
}

#[test]
fn caches_of_tuf_clients() {
    let expires = SystemTime::from(time::macros::datetime!(2031-02-03 04:05:06 UTC));
    for place in ["targets/trusted_root.json", "trusted_root.json"] {
        let cache = Repository::new("2031-02-03T04:05:06Z", PUBLIC.as_bytes());
        let path = cache.directory.path();
        std::fs::create_dir(path.join("targets")).unwrap();
        let text = load(path).unwrap_err();
        assert!(text.contains("neither targets/trusted_root.json nor"), "{text}");
        std::fs::write(path.join(place), PUBLIC).unwrap();
        let root = load(path).unwrap();
        assert_eq!(root.sha256(), sha256(PUBLIC.as_bytes()));
        assert!(root.validity().until.unwrap() <= expires);
        assert!(root.validity().is_stale(expires + Duration::from_secs(1)));
        std::fs::write(path.join(place), PUBLIC.replacen("rekor", "rokor", 1)).unwrap();
        let text = load(path).unwrap_err();
        assert!(text.contains("not the file that targets.json names"), "{text}");
    }
    // One that has expired is told by its end, and still good for what was signed before.
    let old = Repository::new("2022-02-03T04:05:06Z", PUBLIC.as_bytes());
    std::fs::write(old.directory.path().join("trusted_root.json"), PUBLIC).unwrap();
    assert!(load(old.directory.path()).unwrap().validity().is_stale(SystemTime::now()));
    for (name, reason) in [
        ("root.json", "TUF cache, root.json"),
        ("timestamp.json", "TUF cache, timestamp.json"),
        ("snapshot.json", "TUF cache, snapshot.json"),
        ("targets.json", "TUF cache, targets.json"),
    ] {
        let cache = Repository::new("2031-02-03T04:05:06Z", PUBLIC.as_bytes());
        let path = cache.directory.path().join(name);
        std::fs::write(cache.directory.path().join("trusted_root.json"), PUBLIC).unwrap();
        let file = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, file.replacen("2031", "2032", 1)).unwrap();
        let text = load(cache.directory.path()).unwrap_err();
        assert!(text.contains(reason), "{name}: {text}");
        std::fs::remove_file(&path).unwrap();
        let text = load(cache.directory.path()).unwrap_err();
        assert!(text.contains("cannot open") && text.contains(name), "{text}");
    }
}
