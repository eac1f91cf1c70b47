//! The in-toto statement: no input stops the reader, and what it takes has a subject and an object as its document.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::attestation::{Limits, Statement};

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    if let Ok(statement) = Statement::parse(data.to_vec(), 0, &limits) {
        assert!(statement.subjects.iter().any(|subject| subject.sha256.is_some()));
        let document = statement.predicate();
        assert!(document.starts_with(b"{") && document.ends_with(b"}"));
        serde_json::from_slice::<serde::de::IgnoredAny>(document).expect("the document is JSON");
    }
});
