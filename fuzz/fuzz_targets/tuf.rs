//! The cache of a TUF client, its files with a NUL byte between: no bytes stop the reader, and a trust root that it gives is the one in
//! the cache.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::attestation::{TrustRoot, TufFiles, sha256};

fuzz_target!(|data: &[u8]| {
    let mut files = data.splitn(5, |byte| *byte == 0).map(<[u8]>::to_vec);
    let mut next = || files.next().unwrap_or_default();
    let files =
        TufFiles { root: next(), timestamp: next(), snapshot: next(), targets: next(), trusted_root: next() };
    if let Ok(root) = TrustRoot::of_cache("fuzz", &files) {
        assert_eq!(root.sha256(), sha256(&files.trusted_root));
        assert!(root.validity().until.is_some(), "the metadata always expires");
    }
});
