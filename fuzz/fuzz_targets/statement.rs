//! The in-toto statement: no input stops the reader, and what it takes has a subject and a document, which is an object in JSON
//! or was a string.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::attestation::{Limits, PredicateType, Statement};

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default();
    if let Ok(statement) = Statement::parse(data.to_vec(), 0, &limits) {
        assert!(statement.subjects.iter().any(|subject| subject.sha256.is_some()));
        assert_eq!(statement.predicate_uri.parse(), Ok(statement.predicate_type));
        let document = statement.predicate();
        if matches!(statement.predicate_type, PredicateType::Spdx | PredicateType::Custom) {
            std::str::from_utf8(document).expect("the document is text");
        } else {
            assert!(document.starts_with(b"{") && document.ends_with(b"}"));
            serde_json::from_slice::<serde::de::IgnoredAny>(document).expect("the document is JSON");
        }
    }
});
