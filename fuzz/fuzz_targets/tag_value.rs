//! SPDX 2 documents, tag-value.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| muster_fuzz::sbom(data));
