//! Provenance and VEX: no input stops the readers.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::attestation::{Limits, Provenance, Vex};

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    if let Ok(Provenance { builder, source, commit }) = Provenance::parse(data, &limits) {
        for text in [builder, source, commit].into_iter().flatten() {
            assert!(text.len() <= 4096);
        }
    }
    if let Ok(vex) = Vex::parse(data, &limits) {
        for (purl, statements) in vex.packages() {
            assert!(vex.about(purl, &[]).all(|said| statements.contains(said)));
            assert!(!statements.is_empty());
        }
    }
});
