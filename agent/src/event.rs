//! The vocabulary of what happened: [`Event`] (a decoded record) and [`Observation`] (an event with its workload and
//! digests).

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::finding::Sha256;
pub use crate::unread::Unread;

/// A path as the workload sees it: bytes, absolute unless said otherwise, never assumed to be UTF-8.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FilePath(pub SmallVec<[u8; 88]>);

impl FilePath {
    /// The path's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
    /// No path is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The path whose text form this is; `None` when a backslash does not start `\xNN`.
    pub fn unescape(text: &str) -> Option<Self> {
        let mut path = SmallVec::new();
        let mut rest = text.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            if byte == b'\\' {
                let hex = std::str::from_utf8(after.strip_prefix(b"x")?.get(..2)?).ok()?;
                // `from_str_radix` would take a sign.
                let digits = hex.bytes().all(|c| c.is_ascii_hexdigit());
                path.push(u8::from_str_radix(hex, 16).ok().filter(|_| digits)?);
                rest = &after[3..];
            } else {
                path.push(byte);
                rest = after;
            }
        }
        Some(Self(path))
    }
}

fn is_escaped(c: char) -> bool {
    c.is_control()
        || matches!(c, '\\' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl From<&[u8]> for FilePath {
    fn from(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }
}

impl From<&str> for FilePath {
    fn from(text: &str) -> Self {
        Self::from(text.as_bytes())
    }
}

/// Text form, from which [`FilePath::unescape`] makes the path again: valid UTF-8 as it is; every other byte, and the
/// bytes of control characters, of those that turn the direction of text, and of the backslash, as `\xNN`.
impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                if is_escaped(c) {
                    for b in c.encode_utf8(&mut [0; 4]).bytes() {
                        write!(f, "\\x{b:02x}")?;
                    }
                } else {
                    fmt::Write::write_char(f, c)?;
                }
            }
            for b in chunk.invalid() {
                write!(f, "\\x{b:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Which hooks carry the sensor on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Flavour {
    /// LSM programs: everything, at the point of decision.
    Lsm,
    /// fentry/fexit programs.
    Fentry,
    /// Tracepoints.
    Tracepoint,
}

impl Flavour {
    /// The flavour's name, as in findings, metrics and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lsm => "lsm",
            Self::Fentry => "fentry",
            Self::Tracepoint => "tracepoint",
        }
    }
}

/// Names a process for as long as the machine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct ProcessId {
    /// Process id in the initial pid namespace.
    pub tgid: u32,
    /// Start of its leader, nanoseconds since boot (suspend included).
    pub start_ns: u64,
}

/// The task that did it.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Task {
    /// The process.
    pub process: ProcessId,
    /// Thread id in the initial pid namespace.
    pub pid: u32,
    /// Parent's process id.
    pub ppid: u32,
    /// Id of the cgroup in the v2 hierarchy; the root's on hosts that use v1 controllers.
    pub cgroup_id: u64,
    /// Real user id.
    pub uid: u32,
    /// Real group id.
    pub gid: u32,
    /// Effective user id.
    pub euid: u32,
    /// Inode of the mount namespace; 0 where that says nothing of the task's paths: it is exiting, or has its root directory in another.
    pub mnt_ns: u32,
    /// Inode of the pid namespace.
    pub pid_ns: u32,
    /// Command name without padding.
    pub comm: SmallVec<[u8; 16]>,
}

/// Names a file for as long as it lives. A number that is given away again comes with another generation, where the file system
/// has generations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Inode {
    /// Device, kernel encoding (`major << 20 | minor`).
    pub dev: u32,
    /// Inode generation, as in [`FileIdentity::generation`].
    pub generation: u32,
    /// Inode number.
    pub ino: u64,
}

/// Identity of a file's content. Two equal identities, at different times, mean unchanged content, unless
/// [`FileRef::has_writers`] or [`FileRef::changes_beneath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Device, kernel encoding (`major << 20 | minor`).
    pub dev: u32,
    /// Inode generation; on file systems with subvolumes mixed with what tells these apart, so nothing that `stat` or `ioctl` give.
    pub generation: u32,
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Change time, nanoseconds since 1970.
    pub ctime_ns: u64,
    /// `i_version`.
    pub i_version: u64,
    /// The inode that has the content: on overlayfs one of a layer, else the file's own. Of a block device that was opened, the device.
    pub real: Inode,
}

impl FileIdentity {
    /// Which file it is, whatever it holds.
    pub fn inode(&self) -> Inode {
        Inode { dev: self.dev, generation: self.generation, ino: self.ino }
    }

    /// The content is the same, whichever overlay shows it.
    pub fn has_content_of(&self, other: &Self) -> bool {
        let content = |i: &Self| (i.real, i.size, i.ctime_ns, i.i_version);
        content(self) == content(other)
    }
}

/// How a file's content begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// A program or a library: ELF, or a script's `#!`.
    Program,
    /// ELF that nothing runs as it is: a relocatable object (a kernel module is one), a core file.
    Object,
    /// Anything else.
    Data,
}

impl Start {
    /// Bytes that are enough to tell.
    pub const BYTES: u64 = 18;

    /// Of the first bytes of a file.
    pub fn of(head: &[u8]) -> Self {
        if head.starts_with(b"#!") {
            return Self::Program;
        }
        if !head.starts_with(b"\x7fELF") {
            return Self::Data;
        }
        // elf(5): byte 5 of the identification is the byte order, the type follows the identification.
        let kind = match (head.get(5), head.get(16..18)) {
            (Some(2), Some(&[high, low])) | (_, Some(&[low, high])) => u16::from_le_bytes([low, high]),
            _ => 0,
        };
        // ET_REL, ET_CORE. The loader takes no others than ET_EXEC and ET_DYN, but what is not known is not passed over.
        if matches!(kind, 1 | 4) { Self::Object } else { Self::Program }
    }
}

/// Where a file is in its own file system, whatever is mounted where. A path that is empty was too long for its record.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Origin {
    /// Path from the root of the file system.
    pub path: FilePath,
    /// The same of the new name, if there is one.
    pub target: FilePath,
}

/// Where a file lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Place {
    /// A file system on disk, or one that says nothing of layers.
    #[default]
    Disk,
    /// Overlayfs, a lower (image) layer.
    ImageLayer,
    /// Overlayfs, the upper layer: changed or made since the container started.
    UpperLayer,
    /// tmpfs or ramfs.
    Tmpfs,
    /// A memfd.
    Memfd,
}

/// A digest that came with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelDigest {
    /// SHA-256 of the file's content.
    pub sha256: Sha256,
    /// From the kernel's cache and not computed for this event.
    pub cached: bool,
}

/// A file of an event.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FileRef {
    /// Path in the task's root. With [`by_name`](Self::by_name), as the caller passed it.
    pub path: FilePath,
    /// The path is longer than what is here.
    pub truncated: bool,
    /// The name was already unlinked.
    pub deleted: bool,
    /// The path is the caller's spelling (maybe relative), not the kernel's resolution of it.
    pub by_name: bool,
    /// The file lies outside the task's root.
    pub unreachable: bool,
    /// Where it is in its own file system, if `path` may not be its only name by what is mounted. Of changed files only.
    pub origin: Option<Box<Origin>>,
    /// Identity; all zero when `by_name`.
    pub identity: FileIdentity,
    /// `st_mode`.
    pub mode: u32,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Where it lies.
    pub place: Place,
    /// Some writer has it open, or mapped shared and writable.
    pub has_writers: bool,
    /// Of a mapping: its pages may be the process's own and not the file's, for it is or was private and writable.
    pub altered: bool,
    /// Its content may change without its identity: it lies on FUSE, on an overlay that was mounted from a user namespace or whose layers
    /// are not known, on a block device that somebody opened for write, or it was mapped shared and writable.
    pub changes_beneath: bool,
    /// It lies on an overlay that was mounted from a user namespace: its path says where that user wants it to be.
    #[serde(default)]
    pub foreign: bool,
    /// The device in its identity is what `stat` gives, which is not that of the file system (overlayfs, subvolumes).
    #[serde(default)]
    pub own_device: bool,
    /// Its file system is mounted for its process only: no process with the host's root directory has a name for it.
    #[serde(default)]
    pub private: bool,
    /// Its content lies in memory, whatever is mounted over it.
    #[serde(default)]
    pub in_memory: bool,
    /// Its content comes from a program (FUSE), which may give each reader another, and may never answer.
    #[serde(skip)]
    pub served: bool,
    /// Digest from the kernel.
    pub digest: Option<KernelDigest>,
    /// Why there is none, where the kernel could have made it.
    #[serde(skip)]
    pub unhashed: Option<Unhashed>,
}

/// Why the kernel did not hash a file while its task waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unhashed {
    /// It is larger than `sensor.kernel_hash_bytes`, or than what is hashed in memory.
    TooLarge,
    /// It lies on a network file system.
    Remote,
    /// Its workload had too many bytes hashed in a second.
    OverBudget,
    /// The kernel could not.
    Failed,
}

/// What was done to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FileOp {
    /// Opened for write.
    OpenWrite,
    /// A name was made.
    Create,
    /// Renamed to the target.
    Rename,
    /// Renamed to the target, and what was there has its name now.
    Exchange,
    /// Got the target as a further name.
    Link,
    /// The name was removed.
    Unlink,
    /// The mode was changed.
    Chmod,
    /// The size was set.
    Truncate,
    /// A writer closed it, the last one unless [`FileRef::has_writers`].
    CloseWrite,
    /// Mapped shared and writable.
    MapWrite,
    /// Given capabilities (`security.capability`).
    Capability,
    /// The file is a block device, and was opened for write.
    BlockWrite,
}

impl FileOp {
    /// The operation's name, as in findings and raw events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenWrite => "open_write",
            Self::Create => "create",
            Self::Rename => "rename",
            Self::Exchange => "exchange",
            Self::Link => "link",
            Self::Unlink => "unlink",
            Self::Chmod => "chmod",
            Self::Truncate => "truncate",
            Self::CloseWrite => "close_write",
            Self::MapWrite => "map_write",
            Self::Capability => "capability",
            Self::BlockWrite => "block_write",
        }
    }
}

/// Network protocol of a connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// Protocol.
    pub protocol: Protocol,
    /// Destination.
    pub destination: std::net::SocketAddr,
    /// Source port; 0 when none was bound yet.
    pub source_port: u16,
    /// An unconnected datagram send named the destination.
    pub sendto: bool,
}

/// Ring classes, each with its own ring buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Exec, fork and exit.
    Exec,
    /// Executable mappings.
    Library,
    /// File changes.
    File,
    /// Connects.
    Network,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 4] = [Self::Exec, Self::Library, Self::File, Self::Network];

    /// The name of its ring, as in metrics, status and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Library => "library",
            Self::File => "file",
            Self::Network => "network",
        }
    }
}

/// Kinds of events, as in findings, counters and filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// Exec.
    Exec,
    /// Executable mapping.
    Library,
    /// File change.
    File,
    /// Connect.
    Connect,
    /// Fork.
    Fork,
    /// Exit.
    Exit,
    /// Records lost.
    Lost,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 7] =
        [Self::Exec, Self::Library, Self::File, Self::Connect, Self::Fork, Self::Exit, Self::Lost];

    /// The class whose ring carries it. Losses are told by the agent, not by a record, but belong somewhere.
    pub fn class(self) -> Class {
        match self {
            Self::Exec | Self::Fork | Self::Exit | Self::Lost => Class::Exec,
            Self::Library => Class::Library,
            Self::File => Class::File,
            Self::Connect => Class::Network,
        }
    }

    /// The kind's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Library => "library",
            Self::File => "file",
            Self::Connect => "connect",
            Self::Fork => "fork",
            Self::Exit => "exit",
            Self::Lost => "lost",
        }
    }
}

/// How records came to be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LossCause {
    /// Their ring was full.
    RingFull,
    /// A table in the kernel was full that keeps what a system call was given until it has succeeded.
    TableFull,
    /// The decoder refused them.
    Malformed,
    /// What was announced was not seen to end.
    Unconfirmed,
}

/// What a file was to processes that ran before the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Their program.
    Program,
    /// Mapped executable.
    Library,
    /// Open for write, or mapped shared and writable.
    Written,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// A program replaced a process's image.
    Exec {
        /// The binary that runs; a script's interpreter.
        exe: FileRef,
        /// The script.
        script: Option<FileRef>,
    },
    /// A file was mapped executable.
    Library {
        /// The file.
        file: FileRef,
        /// By `mprotect`, not `mmap`.
        mprotect: bool,
        /// Start of the mapping, 0 when not known.
        address: u64,
    },
    /// A file was changed.
    File {
        /// What was done.
        op: FileOp,
        /// The file.
        file: FileRef,
        /// The new name of `Rename`, `Exchange` and `Link`.
        target: Option<FilePath>,
        /// New mode of `Chmod`.
        mode: Option<u32>,
    },
    /// A socket was connected.
    Connect(Connect),
    /// A process was made; the event's task is the child.
    Fork {
        /// The parent.
        parent: ProcessId,
    },
    /// A process ended.
    Exit {
        /// Exit status as in `wait(2)`.
        status: u32,
    },
    /// Processes ran a file, had it mapped executable or open for write before the agent started. The event's task is one of them; their
    /// starts are in whole ticks. The agent finds it by itself: no record says so.
    Running {
        /// The file.
        file: FileRef,
        /// What it was to them.
        role: Role,
        /// All of these processes.
        processes: Vec<ProcessId>,
    },
    /// Records were lost. The event's task has no more than a cgroup and a process of the workload that lost them, and is empty where
    /// it is not known which that was.
    Lost {
        /// Kind of the records; [`Kind::Lost`] where it is not known.
        kind: Kind,
        /// How.
        cause: LossCause,
        /// How many since the last such event.
        count: u64,
        /// From when, nanoseconds since boot; the event's time is the end.
        since_ns: u64,
    },
}

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Nanoseconds since boot (suspend included).
    pub time_ns: u64,
    /// Which hooks carried it.
    pub flavour: Flavour,
    /// Who did it.
    pub task: Task,
    /// What happened.
    pub body: Body,
}

impl Event {
    /// The event's kind.
    pub fn kind(&self) -> Kind {
        match self.body {
            Body::Exec { .. } | Body::Running { role: Role::Program, .. } => Kind::Exec,
            Body::Library { .. } | Body::Running { role: Role::Library, .. } => Kind::Library,
            Body::File { .. } | Body::Running { role: Role::Written, .. } => Kind::File,
            Body::Connect(_) => Kind::Connect,
            Body::Fork { .. } => Kind::Fork,
            Body::Exit { .. } => Kind::Exit,
            Body::Lost { .. } => Kind::Lost,
        }
    }
}

/// How the content of a file was found, or why it was not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// SHA-256 of the whole content.
    Known {
        /// The digest.
        sha256: Sha256,
        /// Who computed it.
        origin: DigestOrigin,
        /// SHA-1 and MD5, only when the image's SBOM has nothing stronger for this path and asked for them.
        weak: Option<Arc<WeakDigests>>,
        /// Why this may not be what ran, or was mapped.
        doubt: Option<Doubt>,
    },
    /// The content could not be read in time.
    Undetermined(Unread),
}

/// Why a content that was found may not be the one that ran. It is enough to accuse a file, and not to acquit it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Doubt {
    /// Somebody had it open for write.
    Writers,
    /// Its ctime is so near to the event that a change just after it would have the same one.
    Fresh,
    /// Its ctime is another one by now: its name, its links or its mode were changed, and perhaps its content.
    Touched,
    /// It lies on a file system in memory, where stores through a mapping leave no sign.
    InMemory,
    /// The mapping is or was private and writable: what is stored to it is not the file's.
    Altered,
}

impl Doubt {
    /// The doubt in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Writers => "somebody had it open for write",
            Self::Fresh => {
                "it was changed right before, and file times cannot tell whether right after as well"
            }
            Self::Touched => "it was changed since: its name, links or mode, and perhaps its content",
            Self::InMemory => {
                "the agent read it later, and in a file system in memory a change may leave no sign"
            }
            Self::Altered => {
                "the process could store into its mapping, which is not the file's any more then"
            }
        }
    }
}

/// Weak digests of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeakDigests {
    /// SHA-1.
    pub sha1: [u8; 20],
    /// MD5.
    pub md5: [u8; 16],
}

/// What a package database says of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Name and version of the package.
    pub package: Arc<str>,
    /// The digest that the database has of the file.
    pub digest: Option<PackageDigest>,
}

/// The digest that a package database has of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PackageDigest {
    /// dpkg.
    Md5([u8; 16]),
    /// apk.
    Sha1([u8; 20]),
    /// rpm, Python.
    Sha256(Sha256),
}

impl PackageDigest {
    /// The algorithm's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Md5(_) => "MD5",
            Self::Sha1(_) => "SHA-1",
            Self::Sha256(_) => "SHA-256",
        }
    }

    /// The content has this digest; `None` when the digest of this kind was not computed.
    pub fn agrees(&self, sha256: &Sha256, weak: Option<&WeakDigests>) -> Option<bool> {
        match self {
            Self::Sha256(expected) => Some(expected == sha256),
            Self::Sha1(expected) => weak.map(|found| found.sha1 == *expected),
            Self::Md5(expected) => weak.map(|found| found.md5 == *expected),
        }
    }
}

/// A file of the host that its package manager wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// What the package manager's database says of it.
    pub proof: Proof,
    /// Name and version of the package that owns it, by the database.
    pub package: Option<Arc<str>>,
    /// It was written before the agent started: only the database says that the package manager did it.
    pub unseen: bool,
}

/// What a package manager's database says of a file that the package manager wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Proof {
    /// The package that owns it has this digest. Of a file that was removed: no package owns it any more.
    Agrees,
    /// It is part of the database itself, or a package's script: no digest can be there.
    Bookkeeping,
    /// The package that owns it has another digest, or should still have what was removed.
    Differs,
    /// The package that owns it has no digest of it.
    NoDigest,
    /// No package owns it.
    Unowned,
}

/// Who computed a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DigestOrigin {
    /// The kernel, for this event.
    Kernel,
    /// The kernel, earlier; the file is unchanged.
    KernelCache,
    /// The agent read the file.
    Agent,
    /// The agent, earlier; the file is unchanged.
    AgentCache,
}

impl DigestOrigin {
    /// The origin's name, as in findings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::KernelCache => "kernel_cache",
            Self::Agent => "agent",
            Self::AgentCache => "agent_cache",
        }
    }
}

/// One judged file of an event with what is known of it. An exec of a script gives two: script and interpreter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Why the file is judged.
    pub action: Action,
    /// The file; `path` is absolute in the workload's root where it could be resolved.
    pub file: FileRef,
    /// Its content.
    pub content: Content,
    /// The file was made or changed after the workload's image was attested (containers: after the container started).
    pub fresh: bool,
    /// Effective user is root.
    pub root: bool,
    /// The workload is the host.
    pub on_host: bool,
    /// Containers: who owns the file by the package databases of the image's read-only layers. Asked only of a file that
    /// lies in one and is at no path of the SBOM.
    pub owner: Option<Owner>,
    /// Host: its package manager wrote the file.
    pub update: Option<Update>,
}

/// Why a file is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It runs.
    Exec,
    /// It runs as a script; its interpreter is judged beside it.
    Script,
    /// It is the interpreter of a script.
    Interpreter,
    /// It was mapped executable.
    Library,
    /// It was changed.
    Change(FileOp),
    /// The program made a connect.
    Connect,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_text_is_safe_to_print_and_reversible() {
        for (bytes, text) in [
            (&b"/usr/bin/true"[..], "/usr/bin/true"),
            ("/srv/gr\u{fc}n".as_bytes(), "/srv/gr\u{fc}n"),
            (b"/tmp/a\nb\x1b[0m", r"/tmp/a\x0ab\x1b[0m"),
            (b"/tmp/\xff\xfe", r"/tmp/\xff\xfe"),
            (br"/tmp/\x0a", r"/tmp/\x5cx0a"),
            ("/tmp/\u{85}".as_bytes(), r"/tmp/\xc2\x85"),
            ("/tmp/\u{202e}gpj".as_bytes(), r"/tmp/\xe2\x80\xaegpj"),
        ] {
            let path = FilePath::from(bytes);
            assert_eq!(path.to_string(), text);
            assert_eq!(FilePath::unescape(text), Some(path), "{text}");
        }
        for text in [r"\", r"a\n", r"\x0", r"\xg0", r"\x+1"] {
            assert_eq!(FilePath::unescape(text), None, "{text}");
        }
    }
}
