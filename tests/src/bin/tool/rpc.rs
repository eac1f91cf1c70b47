//! Remote procedure calls over TCP, as much of them as a server needs: RFC 5531, and RFC 4506 for how data are written.

use std::io::{self, Read};

/// Longest record that is read. A call that is served has a file handle, a name and credentials.
const MAX_RECORD: usize = 64 << 10;
/// Bit of a fragment's header: the record ends with it.
const LAST: u32 = 1 << 31;
/// Longest body of credentials: section 8.2.
const MAX_CREDENTIALS: usize = 400;
/// `AUTH_NONE` and `AUTH_SYS`, which was `AUTH_UNIX`: section 8.2. Nobody looks at what they say.
const FLAVORS: [u32; 2] = [0, 1];
/// `RPC_VERS`: section 9.
const VERSION: u32 = 2;
/// `CALL` and `REPLY` of `msg_type`: section 9.
const CALL: u32 = 0;
const REPLY: u32 = 1;

/// Reads a record, in as many fragments as it comes: section 11. `None` at the end of the stream.
pub(crate) fn read_record(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut record = Vec::new();
    loop {
        let mut header = [0; 4];
        // The end is one between records alone.
        if record.is_empty() && from.read(&mut header[..1])? == 0 {
            return Ok(None);
        }
        let have = usize::from(record.is_empty());
        from.read_exact(&mut header[have..])?;
        let header = u32::from_be_bytes(header);
        let (length, last) = ((header & !LAST) as usize, header & LAST != 0);
        let begin = record.len();
        // Empty fragments could come for ever.
        if length > MAX_RECORD - begin || length == 0 && !last {
            let what =
                format!("a fragment of {length} bytes after {begin}; a record has at most {MAX_RECORD}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        record.resize(begin + length, 0);
        from.read_exact(&mut record[begin..])?;
        if last {
            return Ok(Some(record));
        }
    }
}

/// Data are not as the protocol has them.
#[derive(Debug)]
pub(crate) struct Garbled;

/// Takes XDR data apart.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// RFC 4506 section 4.2.
    pub(crate) fn u32(&mut self) -> Result<u32, Garbled> {
        let (value, rest) = self.0.split_first_chunk().ok_or(Garbled)?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*value))
    }

    /// RFC 4506 section 4.5.
    pub(crate) fn u64(&mut self) -> Result<u64, Garbled> {
        let (value, rest) = self.0.split_first_chunk().ok_or(Garbled)?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*value))
    }

    /// Bytes or text of variable length, filled up to a multiple of four: RFC 4506 sections 4.10 and 4.11.
    pub(crate) fn opaque(&mut self, most: usize) -> Result<&'a [u8], Garbled> {
        let length = self.u32()? as usize;
        if length > most {
            return Err(Garbled);
        }
        let (value, rest) = self.0.split_at_checked(length).ok_or(Garbled)?;
        self.0 = rest.get(length.next_multiple_of(4) - length..).ok_or(Garbled)?;
        Ok(value)
    }
}

/// Puts XDR data together.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// RFC 4506 section 4.2; an enumeration or a truth value, too (4.3, 4.4).
    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_be_bytes());
    }

    /// RFC 4506 section 4.5.
    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_be_bytes());
    }

    /// RFC 4506 section 4.10.
    pub(crate) fn opaque(&mut self, value: &[u8]) {
        self.u32(u32::try_from(value.len()).expect("no more than a record has"));
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// A call: `call_body` of section 9.
pub(crate) struct Call<'a> {
    xid: u32,
    pub(crate) program: u32,
    pub(crate) version: u32,
    pub(crate) procedure: u32,
    arguments: &'a [u8],
}

impl<'a> Call<'a> {
    /// What a record holds.
    pub(crate) fn of(record: &'a [u8]) -> Result<Self, Garbled> {
        let mut data = Reader(record);
        let xid = data.u32()?;
        if data.u32()? != CALL || data.u32()? != VERSION {
            return Err(Garbled);
        }
        let [program, version, procedure] = [data.u32()?, data.u32()?, data.u32()?];
        // Credentials and verifier.
        for _ in 0..2 {
            if !FLAVORS.contains(&data.u32()?) {
                return Err(Garbled);
            }
            data.opaque(MAX_CREDENTIALS)?;
        }
        Ok(Self { xid, program, version, procedure, arguments: data.0 })
    }

    /// The procedure's arguments.
    pub(crate) fn arguments(&self) -> Reader<'a> {
        Reader(self.arguments)
    }

    /// The reply as a record of one fragment: `accepted_reply` of section 9.
    pub(crate) fn reply(&self, answer: Answer) -> Vec<u8> {
        let mut out = Writer::default();
        // MSG_ACCEPTED, and a verifier of AUTH_NONE without a body.
        [self.xid, REPLY, 0, 0, 0].into_iter().for_each(|value| out.u32(value));
        match answer {
            Answer::Results(results) => {
                out.u32(0);
                out.0.extend(results.0);
            }
            Answer::NoProgram => out.u32(1),
            Answer::OnlyVersion(version) => {
                [2, version, version].into_iter().for_each(|value| out.u32(value));
            }
            Answer::NoProcedure => out.u32(3),
            Answer::Garbled => out.u32(4),
        }
        let length = u32::try_from(out.0.len()).expect("no more than a record has");
        let mut record = (length | LAST).to_be_bytes().to_vec();
        record.extend(out.0);
        record
    }
}

/// What is answered: `accept_stat` of section 9.
pub(crate) enum Answer {
    /// `SUCCESS`
    Results(Writer),
    /// `PROG_UNAVAIL`
    NoProgram,
    /// `PROG_MISMATCH`
    OnlyVersion(u32),
    /// `PROC_UNAVAIL`
    NoProcedure,
    /// `GARBAGE_ARGS`
    Garbled,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fragment(last: bool, data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap();
        [&(length | if last { LAST } else { 0 }).to_be_bytes()[..], data].concat()
    }

    #[test]
    fn fragments_make_a_record_and_no_more_than_a_record_is_read() {
        let read = |data: Vec<u8>| read_record(&mut data.as_slice());
        assert_eq!(read(Vec::new()).unwrap(), None);
        assert_eq!(read([fragment(false, b"ab"), fragment(true, b"c")].concat()).unwrap().unwrap(), b"abc");
        let half = vec![0; MAX_RECORD / 2 + 1];
        for (what, data) in [
            ("more than a record", fragment(true, &vec![0; MAX_RECORD + 1])),
            ("more than a record in two", [fragment(false, &half), fragment(true, &half)].concat()),
            ("an empty fragment", fragment(false, b"")),
            ("the end within a header", vec![0x80, 0]),
            ("the end within a fragment", fragment(true, b"abc")[..6].to_vec()),
            ("the end after a fragment", fragment(false, b"abc")),
        ] {
            assert!(read(data).is_err(), "{what}");
        }
    }

    #[test]
    fn what_is_written_is_read_and_what_is_cut_short_is_garbled() {
        let mut data = Writer::default();
        data.opaque(b"12345");
        data.u64(7);
        let mut reader = Reader(&data.0);
        assert_eq!(data.0.len(), 4 + 8 + 8);
        assert_eq!((reader.opaque(5).unwrap(), reader.u64().unwrap()), (&b"12345"[..], 7));
        reader.u32().unwrap_err();
        Reader(&data.0).opaque(4).unwrap_err();
        // Not filled up.
        Reader(&data.0[..9]).opaque(5).unwrap_err();
    }
}
