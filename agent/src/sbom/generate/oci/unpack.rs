//! A layer's bytes, unpacked.

use std::io::{self, BufRead, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// Unpacks by the first bytes: media types are wrong often enough.
pub(super) fn unpack<'a>(packed: &'a mut dyn BufRead) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match packed.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        // A frame, or a skippable one (RFC 8878, sections 3.1.1 and 3.1.2).
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Box::new(Frames::new(packed)),
        _ => Box::new(packed),
    })
}

/// All frames of zstd data, one after the other: `zstd:chunked` has one for each chunk, and skippable ones with its table of contents.
struct Frames<R> {
    packed: R,
    decoder: FrameDecoder,
    is_within: bool,
}

impl<R: BufRead> Frames<R> {
    fn new(packed: R) -> Self {
        Self { packed, decoder: FrameDecoder::new(), is_within: false }
    }

    /// Goes to the next frame with content; `false` at the end of the data.
    fn next(&mut self) -> io::Result<bool> {
        while !self.packed.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.packed) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut (&mut self.packed).take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        Ok(false)
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.is_within {
                if !self.next()? {
                    return Ok(0);
                }
                self.is_within = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.packed, one).map_err(io::Error::other)?;
            }
            let read = self.decoder.read(buffer)?;
            if read > 0 {
                return Ok(read);
            }
            self.is_within = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(content: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(content, ruzstd::encoding::CompressionLevel::Fastest)
    }

    fn skippable(number: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).expect("small").to_le_bytes();
        [&[0x50 + number, 0x2a, 0x4d, 0x18], length.as_slice(), content].concat()
    }

    fn unpacked(mut packed: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        unpack(&mut packed)?.read_to_end(&mut bytes)?;
        assert!(packed.is_empty(), "all is used up");
        Ok(bytes)
    }

    #[test]
    fn frames_one_after_the_other() {
        let (one, two) = (vec![b'x'; 300_000], b"two".to_vec());
        for (what, packed) in [
            ("two frames", [frame(&one), frame(&two)].concat()),
            ("a skippable one first", [skippable(0, b"table"), frame(&one), frame(&two)].concat()),
            (
                "in between and last",
                [frame(&one), skippable(15, b""), frame(&two), skippable(7, &[0; 9])].concat(),
            ),
            ("an empty one", [frame(&one), frame(b""), frame(&two)].concat()),
        ] {
            assert!(unpacked(&packed).expect(what) == [one.as_slice(), &two].concat(), "{what}");
        }
        assert_eq!(unpacked(&skippable(3, b"nothing else")).expect("no content"), b"");
        for (what, packed) in [
            ("a skippable one that is cut", [frame(&two), skippable(0, b"abc")[..9].to_vec()].concat()),
            ("a frame that is cut", [frame(&two), frame(&one)[..20].to_vec()].concat()),
            ("something else behind", [frame(&two), b"more".to_vec()].concat()),
            ("a piece of a magic number", [frame(&two), vec![0x28, 0xb5]].concat()),
        ] {
            unpacked(&packed).expect_err(what);
        }
    }
}
