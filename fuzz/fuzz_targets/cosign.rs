//! Layers of cosign: no annotation stops the reader, and what it puts together is read as an envelope or a bundle again. Lines
//! are the annotations, in order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::attestation::{Limits, cosign, is_over_artifact};

const ENVELOPE: &[u8] =
    b"{\"payloadType\":\"application/vnd.in-toto+json\",\"payload\":\"e30=\",\"signatures\":[{\"sig\":\"AA==\"}]}\n";
const NAMES: [&str; 4] = ["bundle", "rfc3161timestamp", "certificate", "chain"];

fuzz_target!(|data: &str| {
    let mut values = data.splitn(NAMES.len(), '\n');
    // PEM has lines of its own.
    let values: Vec<(String, String)> = NAMES
        .iter()
        .filter_map(|name| Some((format!("dev.sigstore.cosign/{name}"), values.next()?.replace('\t', "\n"))))
        .collect();
    let get = |name: &str| values.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    if let Ok(file) = cosign::assemble(ENVELOPE, get) {
        assert_eq!(is_over_artifact(&file, &Limits::default()), Ok(false));
    }
});
