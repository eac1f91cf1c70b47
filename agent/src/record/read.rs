//! Reading a recording: nothing in it is trusted.

use std::io::{self, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::{FORMAT, Frame, MAGIC, MAX_FRAME, checksum};

/// Why a recording, or the rest of it, is refused.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// It cannot be read.
    #[error("recording {}, byte {at}: cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Bytes before the place.
        at: u64,
        /// What the system said.
        source: io::Error,
    },
    /// Not what `muster agent --record` writes.
    #[error(
        "recording {}: expected the first bytes of a recording, found others; make one with `muster agent --record`",
        file.display()
    )]
    NotOne {
        /// The file.
        file: PathBuf,
    },
    /// Written by another version.
    #[error(
        "recording {}: expected format {FORMAT}, found {found}; replay it with the version of muster that made it",
        file.display()
    )]
    Format {
        /// The file.
        file: PathBuf,
        /// Its format.
        found: u32,
    },
    /// A frame is not as it was written.
    #[error("recording {}, byte {at}: {reason}; what comes before was replayed, the rest cannot be", file.display())]
    Corrupt {
        /// The file.
        file: PathBuf,
        /// Where the frame begins: bytes before it.
        at: u64,
        /// What was expected, what was found.
        reason: String,
    },
}

/// Reads the frames of a recording, one by one.
#[derive(Debug)]
pub struct Reader<R> {
    file: PathBuf,
    from: BufReader<R>,
    at: u64,
    body: Vec<u8>,
    ended: bool,
}

impl Reader<std::fs::File> {
    /// Opens a recording.
    ///
    /// # Errors
    /// It cannot be read, is none, or is of another format.
    pub fn open(file: &Path) -> Result<Self, RecordingError> {
        let opened = std::fs::File::open(file).map_err(|source| RecordingError::Read {
            file: file.to_owned(),
            at: 0,
            source,
        })?;
        Self::new(opened, file)
    }
}

impl<R: Read> Reader<R> {
    /// A recording from anywhere; `file` is for messages.
    ///
    /// # Errors
    /// It cannot be read, is none, or is of another format.
    pub fn new(from: R, file: &Path) -> Result<Self, RecordingError> {
        let mut reader = Self {
            file: file.to_owned(),
            from: BufReader::with_capacity(1 << 18, from),
            at: 0,
            body: Vec::new(),
            ended: false,
        };
        let mut head = [0; MAGIC.len() + 4];
        let not_one = || RecordingError::NotOne { file: file.to_owned() };
        if reader.fill(&mut head)? < head.len() || !head.starts_with(MAGIC) {
            return Err(not_one());
        }
        let format = head[MAGIC.len()..].try_into().map(u32::from_le_bytes).map_err(|_| not_one())?;
        if format != FORMAT {
            return Err(RecordingError::Format { file: file.to_owned(), found: format });
        }
        reader.at = u64::try_from(head.len()).unwrap_or_default();
        Ok(reader)
    }

    /// The recording was closed when it was made, and all of it has been read.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The next frame; `None` at the end, which [`Frame::End`] itself is.
    ///
    /// # Errors
    /// The frame cannot be read or is not as it was written. Nothing that follows can be read then.
    pub fn frame(&mut self) -> Result<Option<Frame>, RecordingError> {
        let mut head = [0; 8];
        match self.fill(&mut head)? {
            0 => return Ok(None),
            8 => {}
            n => {
                return Err(
                    self.corrupt(format!("expected the 8 bytes of a frame's head, found {n}: it was cut"))
                );
            }
        }
        let [a, b, c, d, e, f, g, h] = head;
        let (length, expected) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_FRAME {
            return Err(
                self.corrupt(format!("expected a frame of at most {MAX_FRAME} bytes, found {length}"))
            );
        }
        let mut body = std::mem::take(&mut self.body);
        body.resize(length, 0);
        let read = self.fill(&mut body)?;
        if read < length {
            return Err(self.corrupt(format!("expected a frame of {length} bytes, found {read}: it was cut")));
        }
        let found = checksum(&body);
        if found != expected {
            return Err(self.corrupt(format!("expected checksum {expected:08x}, found {found:08x}")));
        }
        let (frame, rest) = postcard::take_from_bytes(&body).map_err(|e| {
            self.corrupt(format!("expected an event with its answers, found something else ({e})"))
        })?;
        if !rest.is_empty() {
            return Err(self.corrupt(format!("{} bytes are left over at the end of the frame", rest.len())));
        }
        self.body = body;
        self.at += u64::try_from(length + head.len()).unwrap_or_default();
        if frame != Frame::End {
            return Ok(Some(frame));
        }
        if self.fill(&mut [0])? > 0 {
            return Err(
                self.corrupt("expected nothing behind the end of the recording, found more".to_owned())
            );
        }
        self.ended = true;
        Ok(None)
    }

    fn corrupt(&self, reason: String) -> RecordingError {
        RecordingError::Corrupt { file: self.file.clone(), at: self.at, reason }
    }

    /// Reads as much as there is; less than asked for only at the end.
    fn fill(&mut self, into: &mut [u8]) -> Result<usize, RecordingError> {
        let mut done = 0;
        while done < into.len() {
            match self.from.read(&mut into[done..]) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(RecordingError::Read { file: self.file.clone(), at: self.at, source });
                }
            }
        }
        Ok(done)
    }
}
