//! Reading `/proc`, with limits. The root is a parameter so that tests can use a tree of their own.

use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::event::{FilePath, ProcessId};

/// Most bytes taken of one file of `/proc`.
const MAX_TEXT: u64 = 1 << 20;

/// A `/proc`.
#[derive(Clone, Debug)]
pub(crate) struct Proc {
    root: PathBuf,
    tick_ns: u64,
}

/// Effective capabilities of this process; none when they cannot be read.
pub(crate) fn effective_capabilities() -> u64 {
    procfs::process::Process::myself().and_then(|me| me.status()).map_or(0, |status| status.capeff)
}

/// What `/proc/<pid>/stat` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Command name, as the kernel has it.
    pub(crate) comm: Vec<u8>,
    /// Parent's process id.
    pub(crate) ppid: u32,
    /// Start since boot, rounded down to a tick.
    pub(crate) start_ns: u64,
}

impl Proc {
    pub(crate) fn new(root: &Path) -> Self {
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
        let ticks = ticks.and_then(|t| u64::try_from(t).ok()).filter(|t| *t > 0).unwrap_or(100);
        Self { root: root.to_owned(), tick_ns: 1_000_000_000 / ticks }
    }

    /// Where it is mounted.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Length of a clock tick, the grain of [`Stat::start_ns`].
    pub(crate) fn tick_ns(&self) -> u64 {
        self.tick_ns
    }

    /// The process lives, and is not another one with its number.
    pub(crate) fn is_alive(&self, process: ProcessId) -> bool {
        self.stat(process.tgid).is_ok_and(|s| same_start(s.start_ns, process.start_ns, self.tick_ns))
    }

    /// Reads a file of `/proc`; an error names the file.
    pub(crate) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.read_up_to(name, MAX_TEXT)
    }

    /// Like [`Self::read`], at most so many bytes; what is longer is cut.
    pub(crate) fn read_up_to(&self, name: &str, bytes: u64) -> io::Result<Vec<u8>> {
        let path = self.root.join(name);
        let read = || {
            let mut text = Vec::with_capacity(512);
            fs::File::open(&path)?.take(bytes).read_to_end(&mut text)?;
            Ok(text)
        };
        read().map_err(|e: io::Error| io::Error::new(e.kind(), format!("reading {}: {e}", path.display())))
    }

    pub(crate) fn text(&self, name: &str) -> io::Result<String> {
        // A cgroup's name may be any bytes; what is not UTF-8 is no container's.
        self.read(name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(crate) fn cgroup(&self, pid: u32) -> io::Result<String> {
        self.text(&format!("{pid}/cgroup"))
    }

    pub(crate) fn stat(&self, pid: u32) -> io::Result<Stat> {
        let text = self.read(&format!("{pid}/stat"))?;
        parse_stat(&text, self.tick_ns).ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("/proc/{pid}/stat is not of the form of proc(5)"),
            )
        })
    }

    /// Real and effective user id, in the agent's user namespace.
    pub(crate) fn uids(&self, pid: u32) -> io::Result<(u32, u32)> {
        let text = self.text(&format!("{pid}/status"))?;
        let line = text.lines().find_map(|l| l.strip_prefix("Uid:"));
        let mut ids = line.unwrap_or_default().split_ascii_whitespace().map(str::parse);
        match (ids.next(), ids.next()) {
            (Some(Ok(real)), Some(Ok(effective))) => Ok((real, effective)),
            _ => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("/proc/{pid}/status has no line `Uid: <real> <effective> …`"),
            )),
        }
    }

    /// Path of the program as its process sees it. Kernel threads have none.
    pub(crate) fn exe(&self, pid: u32) -> io::Result<FilePath> {
        let target = fs::read_link(self.root.join(format!("{pid}/exe")))?;
        let bytes = target.as_os_str().as_bytes();
        Ok(FilePath::from(bytes.strip_suffix(b" (deleted)").unwrap_or(bytes)))
    }

    /// Inode of a namespace (`mnt`, `pid`).
    pub(crate) fn namespace(&self, pid: u32, name: &str) -> io::Result<u32> {
        let link = fs::read_link(self.root.join(format!("{pid}/ns/{name}")))?;
        let text = link.to_string_lossy();
        let inner = text.split_once(":[").and_then(|(_, rest)| rest.strip_suffix(']'));
        inner.and_then(|n| n.parse().ok()).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("expected `{name}:[<inode>]`, found {text:?}"))
        })
    }

    /// Processes that are there now, in no order.
    pub(crate) fn pids(&self) -> io::Result<impl Iterator<Item = u32>> {
        Ok(fs::read_dir(&self.root)?.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()))
    }
}

/// `/proc` has starts in whole ticks, the kernel's records in nanoseconds: they are of one process when the record's
/// lies in the tick of the other (or is the same number).
pub(crate) fn same_start(floor_ns: u64, exact_ns: u64, tick_ns: u64) -> bool {
    exact_ns.checked_sub(floor_ns).is_some_and(|rest| rest < tick_ns)
}

/// `pid (comm) state ppid … starttime(22)`; `comm` may hold any byte, parentheses and spaces included.
fn parse_stat(text: &[u8], tick_ns: u64) -> Option<Stat> {
    let open = memchr::memchr(b'(', text)?;
    let close = memchr::memrchr(b')', text)?;
    let comm = text.get(open + 1..close)?.to_vec();
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let ppid = fields.nth(1)?.parse().ok()?;
    let ticks: u64 = fields.nth(17)?.parse().ok()?;
    Some(Stat { comm, ppid, start_ns: ticks.checked_mul(tick_ns)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_hostile_name() {
        let text =
            b"12 (a) b (c) S 7 12 12 0 -1 4194560 0 0 0 0 1 2 3 4 20 0 1 0 4567 0 0 18446744073709551615\n";
        let stat = parse_stat(text, 10_000_000);
        assert_eq!(stat, Some(Stat { comm: b"a) b (c".to_vec(), ppid: 7, start_ns: 45_670_000_000 }));
        assert_eq!(parse_stat(b"12 (a) S 7", 10_000_000), None);
        assert_eq!(parse_stat(b")(", 1), None);
    }

    #[test]
    fn this_process() {
        let proc = Proc::new(Path::new("/proc"));
        let me = std::process::id();
        let stat = proc.stat(me).expect("stat of this process");
        assert_eq!(stat.ppid, std::os::unix::process::parent_id());
        let (uid, euid) = proc.uids(me).expect("status of this process");
        assert_eq!((uid, euid), (nix::unistd::getuid().as_raw(), nix::unistd::geteuid().as_raw()));
        let exe = std::env::current_exe().expect("own path");
        assert_eq!(proc.exe(me).expect("own exe").as_bytes(), exe.as_os_str().as_bytes());
        assert!(proc.namespace(me, "mnt").expect("own mount namespace") > 0);
        assert!(proc.pids().expect("a list").any(|p| p == me));
    }
}
