//! The mount table: no text stops the reader, and the layers that it finds are absolute.
#![no_main]

use libfuzzer_sys::fuzz_target;
use muster::packages::overlay::{Layers, lower_directories};

fuzz_target!(|data: &[u8]| {
    if let Ok(Layers { directories: layers, .. }) = lower_directories(data) {
        assert!(layers.len() <= 500 && layers.iter().all(|layer| layer.is_absolute()));
    }
});
