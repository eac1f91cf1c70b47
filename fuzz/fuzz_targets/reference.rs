//! References of images: none leads out of its place in a URL, and each reads as it is shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::attestation::source::Reference;

fuzz_target!(|text: &str| {
    let Ok(reference) = text.parse::<Reference>() else { return };
    assert_eq!(reference.to_string().parse().as_ref(), Ok(&reference));
    assert!(!reference.host().contains(['/', '@', '?', '#', '%', ' ']));
    let bad = |part: &str| {
        part.is_empty() || part.starts_with('.') || part.contains(['?', '#', '%', ' ', '@', ':'])
    };
    assert!(!reference.repository().split('/').any(bad));
    assert!(!reference.digest().is_zero());
});
