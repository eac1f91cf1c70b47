//! Keys: no text and no DER stops the readers; a key that is taken has one id, however often it is given, and a private key is that of
//! its public key.
#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;
use muster::attestation::{Keys, PrivateKey};

/// The DER is reached without that base64 must be guessed.
fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

fn public(pem: &[u8]) {
    let mut keys = Keys::default();
    if keys.add_pem(pem).is_ok() {
        assert_eq!(keys.len(), 1);
        keys.add_pem(pem).expect("the same again");
        assert_eq!(keys.len(), 1);
    } else {
        assert!(keys.is_empty());
    }
}

fn private(pem: &[u8]) {
    let Ok(key) = PrivateKey::from_pem(pem, "fuzz") else { return };
    let mut keys = Keys::default();
    keys.add_pem(key.public_pem().as_bytes()).expect("its public key");
    assert!(keys.ids().eq([key.id()]));
    let again = PrivateKey::from_pem(key.to_pem().expect("it can be written").as_bytes(), "fuzz");
    assert_eq!(again.expect("what was written").id(), key.id());
}

fuzz_target!(|data: &[u8]| {
    public(data);
    private(data);
    public(pem("PUBLIC KEY", data).as_bytes());
    private(pem("PRIVATE KEY", data).as_bytes());
});
