//! The DSSE envelope: no input stops the reader, and none is taken for signed.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use muster::attestation::{Envelope, Keys, Limits, Policy, TrustRoot, claimed_subjects, verify};
use muster::config;

/// Its private half was never kept.
const KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8aKKwqKy0USu9cwJ0vA+8mi9uZRr
NDOTAe6tQ08V39fHB3dC6+voWPasEW5+JBTifp3fRzO7urat1PhT2S/d1Q==
-----END PUBLIC KEY-----
";

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let mut keys = Keys::default();
    keys.add_pem(KEY.as_bytes()).expect("the key is right");
    let root = TrustRoot::load(&config::TrustRoot::Embedded).expect("the embedded trust root is right");
    Policy::new(keys, 1, Vec::new(), root).expect("one of one key")
});

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    if let Ok(envelope) = Envelope::parse(data, &limits)
        && let Ok(payload) = envelope.payload()
    {
        assert!(payload.signed_bytes().starts_with(b"DSSEv1 28 application/vnd.in-toto+json "));
    }
    verify(data, &POLICY, &limits).expect_err("nobody signed it");
    for digest in claimed_subjects(data, &limits) {
        assert!(!digest.is_zero());
    }
});
