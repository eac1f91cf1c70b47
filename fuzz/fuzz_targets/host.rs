//! What names a host: kernel command line, mount table and os-release, split by zero bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::workload::Host;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.splitn(3, '\0');
    let mut part = || parts.next().unwrap_or_default();
    let (cmdline, mounts, release) = (part(), part(), part());
    let asked = std::cell::Cell::new(0);
    let host = Host::parse(cmdline, mounts, release, |device| {
        // It becomes part of a path.
        assert!(device.bytes().all(|c| c.is_ascii_digit() || c == b':'), "{device:?}");
        asked.set(asked.get() + 1);
        true
    });
    assert_eq!(host.verity.len(), asked.get());
    assert!(host.verity.iter().all(|(_, hash)| !hash.is_zero()));
    if let Some(found) = &host.release {
        let text = found.text();
        assert_eq!(text.matches('\n').count(), 2, "{text:?}");
        assert!(text.is_ascii() && !text.contains(' '), "{text:?}");
        // The text that is signed is an os-release that says the same.
        let again = Host::parse("", "", &text, |_| false);
        assert_eq!(again.release.as_ref(), Some(found));
    }
    assert!(Host::parse(cmdline, mounts, release, |_| false).verity.is_empty());
});
