//! What registries and `docker login` write: no challenge and no credential file stops the readers. The first line is the header, the
//! rest the file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::attestation::source::registry::{Challenge, Secret, challenges, secret};

fuzz_target!(|data: &str| {
    let (header, file) = data.split_once('\n').unwrap_or((data, ""));
    let found = challenges(header);
    assert!(found.len() <= header.len());
    for challenge in &found {
        if let Challenge::Bearer { realm, .. } = challenge {
            assert!(realm.len() <= header.len());
        }
    }
    if let Ok(Some(found)) = secret(file.as_bytes(), "r.example", "team/web") {
        let (Secret::Password { password: hidden, .. } | Secret::Identity(hidden)) = &found;
        // Nothing of it gets into a log.
        assert!(
            !format!("{found:?}").contains(hidden.as_str())
                || ["Password", "Identity"].iter().any(|of| of.contains(hidden.as_str()))
        );
    }
});
