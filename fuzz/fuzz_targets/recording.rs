//! Recordings: no bytes stop the reader, neither as a whole file nor as the one frame of a file that is otherwise right.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use muster::record::{FORMAT, Frame, MAGIC, Reader};

/// Magic number and format of a recording.
fn head() -> Vec<u8> {
    [&MAGIC[..], &FORMAT.to_le_bytes()].concat()
}

/// All frames, up to the first that is refused.
fn frames(file: &[u8]) -> usize {
    let Ok(mut reader) = Reader::new(file, Path::new("fuzz")) else {
        assert!(!file.starts_with(&head()), "the head of this format is taken");
        return 0;
    };
    let mut count = 0;
    while let Ok(Some(frame)) = reader.frame() {
        count += 1;
        if let Frame::Event(recorded) = frame {
            assert_eq!(recorded, recorded.clone());
        }
    }
    count
}

/// CRC-32, which no input would hit by chance.
fn checksum(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 },
        )
    })
}

fuzz_target!(|data: &[u8]| {
    // Each frame has a head of eight bytes.
    assert!(frames(data) <= data.len() / 8);
    let head = head();
    // Of a recording, what is in its first frame and behind it.
    let body = data.strip_prefix(&head[..]).and_then(|frames| frames.get(8..)).unwrap_or(data);
    let length = u32::try_from(body.len()).expect("no input is that long");
    let one = [&head[..], &length.to_le_bytes(), &checksum(body).to_le_bytes(), body].concat();
    assert!(frames(&one) <= 1);
});
