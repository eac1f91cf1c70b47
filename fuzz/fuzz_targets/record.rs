//! Records of a ring: no bytes stop the decoder, and what it takes holds what the rest of the agent relies on.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::event::{Body, FilePath, FileRef};
use muster::sensor::decode::decode;

fn check(path: &FilePath, file: &FileRef) {
    let bytes = path.as_bytes();
    assert!(!bytes.contains(&0), "{path:?}");
    if !file.by_name && !file.truncated && !path.is_empty() {
        assert_eq!(bytes[0], b'/', "{path:?}");
        assert!(bytes.len() > 1 && !bytes.windows(2).any(|pair| pair == b"//"), "{path:?}");
    }
}

fuzz_target!(|data: &[u8]| {
    // Not aligned as a ring would be: the same bytes give the same event.
    let mut shifted = vec![0];
    shifted.extend_from_slice(data);
    let event = decode(data);
    assert_eq!(decode(&shifted[1..]), event);
    let Ok(event) = event else { return };
    match &event.body {
        Body::Exec { exe, script } => {
            check(&exe.path, exe);
            script.iter().for_each(|script| check(&script.path, script));
        }
        Body::Library { file, .. } | Body::File { file, .. } => check(&file.path, file),
        Body::Connect(_) | Body::Fork { .. } | Body::Exit { .. } => {}
        Body::Running { .. } => panic!("no record says what ran before"),
        Body::Lost { .. } => panic!("no record says that records were lost"),
    }
});
