//! Documents of registries and OCI layouts: no index, manifest, configuration or signature over an image stops the readers, and none
//! vouches for what nobody signed.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use muster::attestation::source::oci::{Document, ImageConfig};
use muster::attestation::source::{Candidate, Form, Found};
use muster::attestation::{Keys, Limits, Policy, TrustRoot, sha256};
use muster::config::{self, Identity};
use muster::finding::Sha256;

const INDEX: Sha256 = Sha256([0x5a; 32]);

static POLICY: LazyLock<Policy> = LazyLock::new(|| {
    let root = TrustRoot::load(&config::TrustRoot::Embedded).expect("the embedded trust root is right");
    let who = Identity { identity: "nobody@example.org".into(), issuer: "https://example.org".into() };
    Policy::new(Keys::default(), 1, vec![who], root).expect("no key, no threshold")
});

fuzz_target!(|data: &[u8]| {
    let descriptors = match Document::parse(data) {
        Ok(Document::Index(index)) => index.manifests,
        Ok(Document::Manifest(manifest)) => {
            assert!(manifest.subject.is_none_or(|subject| !subject.is_zero()));
            manifest.layers
        }
        Err(error) => {
            assert!(error.at <= data.len() && !error.reason.is_empty());
            Vec::new()
        }
    };
    for descriptor in descriptors {
        assert!(descriptor.digest.is_none_or(|digest| !digest.is_zero()));
        let marked = descriptor.annotation("vnd.docker.reference.type") == Some("attestation-manifest");
        assert!(marked || descriptor.attests().is_none());
    }
    if let Ok(config) = ImageConfig::parse(data) {
        assert!(config.diff_ids.iter().all(|digest| !digest.is_zero()));
    }

    let candidate =
        |form: Form| Candidate { from: "here".into(), sha256: sha256(data), form, bytes: data.to_vec() };
    let statement = candidate(Form::Statement { needs_signed_index: INDEX });
    let signature = Form::SimpleSigning { signature: "AA==".into(), annotations: BTreeMap::new() };
    let found =
        Found { candidates: vec![candidate(signature), candidate(Form::ImageBundle)], ..Found::default() };
    let verified = found.verify(&statement, &POLICY, &Limits::default()).expect("it is a statement");
    verified.expect_err("nobody signed the index");
    let claimed = Found::claimed(&statement, &Limits::default());
    assert!(claimed.len() <= data.len());
});
