//! Layers of images: no bytes stop their reader, fill the memory or keep it busy, and what it lists is as a container sees it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::sbom::canonical;
use muster::sbom::generate::{ImageLimits, files_of_layers};

const LIMITS: ImageLimits =
    ImageLimits { bytes: 4 << 20, entries: 1000, names: 256 << 10, kept: 64 << 10, steps: 100_000 };

fuzz_target!(|data: &[u8]| {
    // Twice, so that what it hides or leads elsewhere is there.
    for layers in [&[data][..], &[data, data]] {
        let Ok(files) = files_of_layers(layers.iter().copied(), LIMITS) else { return };
        assert!(files.len() <= LIMITS.entries);
        assert!(files.iter().map(|(path, _)| path.len()).sum::<usize>() <= LIMITS.names);
        assert!(files.is_sorted_by(|a, b| a.0 < b.0));
        for (path, _) in &files {
            assert_eq!(canonical(path).as_deref(), Ok(path.as_slice()));
            let base = path.rsplit(|b| *b == b'/').next().unwrap_or_default();
            assert!(!base.starts_with(b".wh."), "a whiteout is no file");
        }
    }
});
