//! Trust roots: no input stops the reader, and what it takes has an end only after a beginning.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::attestation::TrustRoot;

fuzz_target!(|data: &[u8]| {
    if let Ok(root) = TrustRoot::parse("fuzz", data) {
        assert_eq!(root.sha256(), muster::attestation::sha256(data));
        if root.validity().until.is_some() {
            assert!(root.validity().newest.is_some());
        }
    }
});
