//! The Unix socket that the server listens on.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use tokio::net::UnixListener;

/// How long an agent that is ending may take to let go of the lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// Why there is no socket to listen on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent has it.
    #[error(
        "an agent is running{} with the socket {}; stop it (systemctl stop muster), or set feed.socket to another path",
        .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(), .path.display()
    )]
    InUse {
        /// The socket.
        path: PathBuf,
        /// The agent's process, where it is known.
        pid: Option<u32>,
    },
    /// Somebody else made the lock file.
    #[error("{} belongs to another user, who could keep this agent from starting; remove it", .0.display())]
    ForeignLock(PathBuf),
    /// Something else has the name.
    #[error("{} is there and is no socket; remove it, or set feed.socket to another path", .0.display())]
    NotASocket(PathBuf),
    /// The operating system refused.
    #[error("cannot {what} {}: {source}; the agent must be able to write there, see feed.socket", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What came of it.
        source: io::Error,
    },
}

/// A socket that this process listens on. Clients that connect wait until it is served.
#[derive(Debug)]
pub struct Socket {
    pub(super) name: Name,
    pub(super) listener: UnixListener,
}

/// The name of a socket. Dropping it removes it, unless another process has taken it over.
#[derive(Debug)]
pub(super) struct Name {
    path: PathBuf,
    identity: (u64, u64),
    /// Held as long as the agent runs: whoever has it is the one agent with this socket.
    _lock: Flock<File>,
}

impl Socket {
    /// Makes the socket, mode 0600, and its directory if that is missing, mode 0755. A socket that nobody answers at
    /// is replaced. Needs a runtime.
    ///
    /// # Errors
    /// Another agent answers there, or the socket cannot be made.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |what, at: &Path| {
            let path = at.to_owned();
            move |source: io::Error| SocketError::Io { what, path, source }
        };
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(failed("make the directory", directory))?;
        let lock = lock(path)?;
        make_room(path)?;
        let listener = listen_privately(path).map_err(failed("listen on", path))?;
        let metadata = path.symlink_metadata().map_err(failed("look at", path))?;
        let name = Name { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()), _lock: lock };
        Ok(Self { name, listener })
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let ours = self.path.symlink_metadata().is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(socket = %self.path.display(), %error, "the socket could not be removed");
        }
    }
}

/// Takes the lock file beside the socket: two agents must not replace each other's. Nobody else may open it, so nobody else can keep
/// an agent from starting by a lock of his own.
fn lock(socket: &Path) -> Result<Flock<File>, SocketError> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let io = |what| {
        let path = &path;
        move |source| SocketError::Io { what, path: path.clone(), source }
    };
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags.bits());
    let mut file = options.open(&path).map_err(io("open the lock file"))?;
    let metadata = file.metadata().map_err(io("look at the lock file"))?;
    if metadata.uid() != nix::unistd::geteuid().as_raw() || !metadata.is_file() {
        return Err(SocketError::ForeignLock(path));
    }
    fchmod(&file, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|errno| io("close to others")(errno.into()))?;
    let begun = Instant::now();
    let mut locked = loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(locked) => break locked,
            // One that was killed a moment ago has it until the kernel has taken its descriptors apart.
            Err((again, Errno::EWOULDBLOCK)) if begun.elapsed() < LOCK_PATIENCE => {
                file = again;
                std::thread::sleep(Duration::from_millis(50));
            }
            Err((held, Errno::EWOULDBLOCK)) => {
                let mut pid = String::new();
                drop(held.take(20).read_to_string(&mut pid));
                return Err(SocketError::InUse { path: socket.to_owned(), pid: pid.trim().parse().ok() });
            }
            Err((_, errno)) => return Err(io("lock")(errno.into())),
        }
    };
    let written = locked.set_len(0).and_then(|()| writeln!(locked, "{}", std::process::id()));
    written.map_err(io("write to the lock file"))?;
    Ok(locked)
}

/// Removes a socket that nobody answers at.
fn make_room(path: &Path) -> Result<(), SocketError> {
    let io = |what| move |source| SocketError::Io { what, path: path.to_owned(), source };
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io("look at")(error)),
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::InUse { path: path.to_owned(), pid: None }),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            tracing::info!(socket = %path.display(), "replacing the socket of an agent that has ended");
            std::fs::remove_file(path).map_err(io("remove the old socket"))
        }
        Err(error) => Err(io("find out whether an agent answers at")(error)),
    }
}

fn listen_privately(path: &Path) -> io::Result<UnixListener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    // The name gets the mode of the socket (`unix_mknod` in the kernel takes it from `SOCK_INODE(sock)->i_mode`), so
    // that at no moment anybody else can connect.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    listen(&fd, Backlog::new(128)?)?;
    UnixListener::from_std(fd.into())
}
