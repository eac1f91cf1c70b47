//! A server of files over NFS version 3 that can only be read from: RFC 1813. It serves what lies directly in one directory, to
//! everybody on this machine, and its MOUNT protocol (appendix I) is on the same port.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io::{self, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::bail;

use super::rpc::{Answer, Call, Garbled, Reader, Writer, read_record};

/// Program numbers: sections 2 and 5.1. Both have version 3.
const NFS: u32 = 100_003;
const MOUNT: u32 = 100_005;
const VERSION: u32 = 3;

/// `NFS3_FHSIZE`: section 2.4. `MNTPATHLEN`: section 5.1.
const MAX_HANDLE: usize = 64;
const MAX_PATH: usize = 1024;
/// Longest name on Linux.
const MAX_NAME: u32 = 255;
/// What one READ gives at most, bytes.
const MAX_READ: u32 = 64 << 10;

/// Procedures that are served: section 3.
const NULL: u32 = 0;
const GETATTR: u32 = 1;
const LOOKUP: u32 = 3;
const ACCESS: u32 = 4;
const READ: u32 = 6;
const FSSTAT: u32 = 18;
const FSINFO: u32 = 19;
const PATHCONF: u32 = 20;
const SERVED: [u32; 7] = [GETATTR, LOOKUP, ACCESS, READ, FSSTAT, FSINFO, PATHCONF];
/// Of the MOUNT protocol: section 5.2.
const MNT: u32 = 1;
const UMNT: u32 = 3;

/// `nfsstat3`: section 2.6.
const OK: u32 = 0;
const NOENT: u32 = 2;
const IO: u32 = 5;
const NOTDIR: u32 = 20;
const ISDIR: u32 = 21;
const STALE: u32 = 70;
const BADHANDLE: u32 = 10_001;

/// Handle of the directory. The others are numbered from 1 in the order in which they were looked up.
const ROOT: u32 = 0;

/// Serves until standard input closes.
pub(crate) fn serve(directory: PathBuf) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    println!("{}", listener.local_addr()?.port());
    io::stdout().flush()?;
    let server = Server { directory, names: Mutex::default(), hangs: AtomicBool::new(false) };
    let server = Arc::new(server);
    let accepts = Arc::clone(&server);
    // Its threads end with the process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let server = Arc::clone(&accepts);
            std::thread::spawn(move || {
                if let Err(error) = stream.and_then(|stream| server.talk(&stream)) {
                    eprintln!("a connection ends: {error}");
                }
            });
        }
    });
    for line in io::stdin().lines() {
        match line?.as_str() {
            "hang" => server.hangs.store(true, Ordering::Relaxed),
            other => bail!("{other:?} is no order; there is only `hang`"),
        }
    }
    Ok(())
}

struct Server {
    directory: PathBuf,
    /// Names that were looked up and found.
    names: Mutex<Vec<OsString>>,
    /// Calls are read and not answered.
    hangs: AtomicBool,
}

/// Why a procedure has no results.
enum Failed {
    Garbled,
    /// `nfsstat3`
    With(u32),
}

impl From<Garbled> for Failed {
    fn from(_: Garbled) -> Self {
        Self::Garbled
    }
}

/// What a handle stands for.
struct Found {
    path: PathBuf,
    state: Metadata,
}

impl Server {
    fn talk(&self, mut stream: &TcpStream) -> io::Result<()> {
        let mut calls = BufReader::new(stream);
        while let Some(record) = read_record(&mut calls)? {
            let garbled = |Garbled| io::Error::new(io::ErrorKind::InvalidData, "not a call");
            let call = Call::of(&record).map_err(garbled)?;
            if !self.hangs.load(Ordering::Relaxed) {
                let reply = call.reply(self.answer(&call));
                stream.write_all(&reply)?;
            }
        }
        Ok(())
    }

    fn answer(&self, call: &Call<'_>) -> Answer {
        match (call.program, call.version, call.procedure) {
            (NFS | MOUNT, VERSION, NULL) => Answer::Results(Writer::default()),
            (NFS, VERSION, procedure) if SERVED.contains(&procedure) => self.nfs(procedure, call.arguments()),
            (MOUNT, VERSION, MNT | UMNT) => mount(call.procedure, call.arguments()),
            (NFS | MOUNT, VERSION, _) => Answer::NoProcedure,
            (NFS | MOUNT, ..) => Answer::OnlyVersion(VERSION),
            _ => Answer::NoProgram,
        }
    }

    /// A failure comes without attributes: all but GETATTR could have some there.
    fn nfs(&self, procedure: u32, arguments: Reader<'_>) -> Answer {
        match self.results(procedure, arguments) {
            Ok(results) => Answer::Results(results),
            Err(Failed::Garbled) => Answer::Garbled,
            Err(Failed::With(status)) => {
                let mut out = Writer::default();
                out.u32(status);
                if procedure != GETATTR {
                    out.u32(0);
                }
                Answer::Results(out)
            }
        }
    }

    fn results(&self, procedure: u32, mut arguments: Reader<'_>) -> Result<Writer, Failed> {
        let found = self.find(arguments.opaque(MAX_HANDLE)?)?;
        let mut out = Writer::default();
        out.u32(OK);
        match procedure {
            GETATTR => attributes(&mut out, &found.state),
            LOOKUP => self.look_up(&found, arguments.opaque(MAX_PATH)?, &mut out)?,
            READ => {
                let (offset, count) = (arguments.u64()?, arguments.u32()?);
                read(&found, offset, count, &mut out)?;
            }
            // From here on all begin with the attributes of the file.
            _ => {
                there(&mut out, &found.state);
                match procedure {
                    ACCESS => out.u32(arguments.u32()? & MAY),
                    FSSTAT => {
                        // Nothing is said of space and numbers of files: section 3.3.18.
                        [0; 6].into_iter().for_each(|value| out.u64(value));
                        out.u32(0);
                    }
                    FSINFO => information(&mut out),
                    _ => limits(&mut out),
                }
            }
        }
        Ok(out)
    }

    fn find(&self, handle: &[u8]) -> Result<Found, Failed> {
        let handle = u32::from_be_bytes(handle.try_into().map_err(|_| Failed::With(BADHANDLE))?);
        let stale = |_| Failed::With(STALE);
        if handle == ROOT {
            let path = self.directory.clone();
            let state = fs::metadata(&path).map_err(stale)?;
            return Ok(Found { path, state });
        }
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let name = names.get(handle as usize - 1).ok_or(Failed::With(BADHANDLE))?;
        let path = self.directory.join(name);
        let state = fs::symlink_metadata(&path).map_err(stale)?;
        if state.is_file() { Ok(Found { path, state }) } else { Err(Failed::With(STALE)) }
    }

    /// Section 3.3.3. Only what is there gets a number.
    fn look_up(&self, directory: &Found, name: &[u8], out: &mut Writer) -> Result<(), Failed> {
        if !directory.state.is_dir() {
            return Err(Failed::With(NOTDIR));
        }
        let is_name = !matches!(name, b"" | b"." | b"..") && name.len() <= MAX_NAME as usize;
        if !is_name || name.iter().any(|byte| matches!(byte, b'/' | 0)) {
            return Err(Failed::With(NOENT));
        }
        let name = OsStr::from_bytes(name);
        let state = fs::symlink_metadata(directory.path.join(name)).map_err(|_| Failed::With(NOENT))?;
        if !state.is_file() {
            return Err(Failed::With(NOENT));
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let at = names.iter().position(|known| known == name).unwrap_or_else(|| {
            names.push(name.to_owned());
            names.len() - 1
        });
        let handle = u32::try_from(at + 1).map_err(|_| Failed::With(IO))?;
        out.opaque(&handle.to_be_bytes());
        there(out, &state);
        there(out, &directory.state);
        Ok(())
    }
}

/// `ACCESS3_READ`, `ACCESS3_LOOKUP` and `ACCESS3_EXECUTE`: section 3.3.4.
const MAY: u32 = 0x01 | 0x02 | 0x20;

/// Section 5.2.1; UMNT (5.2.3) has no results.
fn mount(procedure: u32, mut arguments: Reader<'_>) -> Answer {
    let mut out = Writer::default();
    // Whatever its path, there is one directory.
    if arguments.opaque(MAX_PATH).is_err() {
        return Answer::Garbled;
    }
    if procedure == MNT {
        out.u32(OK);
        out.opaque(&ROOT.to_be_bytes());
        // One flavor: AUTH_UNIX.
        out.u32(1);
        out.u32(1);
    }
    Answer::Results(out)
}

/// Section 3.3.6.
fn read(found: &Found, offset: u64, count: u32, out: &mut Writer) -> Result<(), Failed> {
    if found.state.is_dir() {
        return Err(Failed::With(ISDIR));
    }
    let mut data = vec![0; count.min(MAX_READ) as usize];
    let mut filled = 0;
    let failed = |_| Failed::With(IO);
    let file = File::open(&found.path).map_err(failed)?;
    while filled < data.len() {
        match file.read_at(&mut data[filled..], offset + filled as u64).map_err(failed)? {
            0 => break,
            more => filled += more,
        }
    }
    data.truncate(filled);
    there(out, &found.state);
    out.u32(u32::try_from(filled).map_err(|_| Failed::With(IO))?);
    out.u32((offset + filled as u64 >= found.state.len()).into());
    out.opaque(&data);
    Ok(())
}

/// `post_op_attr` with attributes: section 2.5.
fn there(out: &mut Writer, state: &Metadata) {
    out.u32(1);
    attributes(out, state);
}

/// `fattr3`: section 2.5.
fn attributes(out: &mut Writer, state: &Metadata) {
    let link_count = u32::try_from(state.nlink()).unwrap_or(u32::MAX);
    // NF3DIR and NF3REG.
    let kind = if state.is_dir() { 2 } else { 1 };
    let words = [kind, state.mode() & 0o7777, link_count, state.uid(), state.gid()];
    words.into_iter().for_each(|value| out.u32(value));
    out.u64(state.len());
    out.u64(state.blocks() * 512);
    // No device.
    out.u64(0);
    out.u64(state.dev());
    out.u64(state.ino());
    for (seconds, nanoseconds) in [
        (state.atime(), state.atime_nsec()),
        (state.mtime(), state.mtime_nsec()),
        (state.ctime(), state.ctime_nsec()),
    ] {
        [seconds, nanoseconds].into_iter().for_each(|value| out.u32(u32::try_from(value).unwrap_or(0)));
    }
}

/// Section 3.3.19.
fn information(out: &mut Writer) {
    // Most, best and unit of READ, of WRITE, and the best of READDIR.
    let sizes = [MAX_READ, MAX_READ, 4096, MAX_READ, MAX_READ, 4096, 4096];
    sizes.into_iter().for_each(|value| out.u32(value));
    // Largest file.
    out.u64(i64::MAX.cast_unsigned());
    // Times are kept to the nanosecond; FSF3_HOMOGENEOUS.
    [0, 1, 8].into_iter().for_each(|value| out.u32(value));
}

/// Section 3.3.20: links, length of a name; longer ones are refused, only root gives files away, letters keep their case and it counts.
fn limits(out: &mut Writer) {
    [1, MAX_NAME, 1, 1, 0, 1].into_iter().for_each(|value| out.u32(value));
}
