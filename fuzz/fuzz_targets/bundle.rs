//! Sigstore bundles: no input stops the readers, ours and the one of `sigstore-verify`; whatever is accepted is signed by the
//! one whose bundle is the seed.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use muster::attestation::{
    Keys, Limits, Policy, Signed, TrustRoot, is_over_artifact, verify, verify_artifact,
};
use muster::config::{self, Identity};
use muster::finding::Sha256;

const WHO: &str = "cody@soyland.com";

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let root = TrustRoot::load(&config::TrustRoot::Embedded).expect("the embedded trust root is right");
    let who = Identity { identity: WHO.into(), issuer: "https://github.com/login/oauth".into() };
    Policy::new(Keys::default(), 1, vec![who], root).expect("no key, no threshold")
});

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    if let Ok(verified) = verify(data, &POLICY, &limits) {
        assert_eq!(verified.signers.identity.expect("a certificate").identity, WHO);
        assert_eq!(
            verified.statement.predicate(),
            b"{\"foo\": \"bar\"}\n",
            "the one document that it has signed"
        );
        assert!(verified.time.is_some());
    }
    if is_over_artifact(data, &limits) == Ok(true) {
        verify_artifact(data, Signed::Digest(Sha256([1; 32])), &POLICY, &limits)
            .expect_err("nobody signed it");
    }
});
