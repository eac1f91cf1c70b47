//! The Unix socket that the server listens on.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::{Mode, fchmod};
use tokio::net::UnixListener;

/// Why there is no socket to listen on.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another agent answers.
    #[error(
        "another agent answers at {}; stop it (systemctl stop muster), or set feed.socket to another path",
        .0.display()
    )]
    InUse(PathBuf),
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
        // Two agents that start at once must not replace each other's socket.
        let handle = File::open(directory).map_err(failed("open the directory", directory))?;
        let _locked = Flock::lock(handle, FlockArg::LockExclusive)
            .map_err(|(_, errno)| failed("lock the directory", directory)(errno.into()))?;
        make_room(path)?;
        let listener = listen_privately(path).map_err(failed("listen on", path))?;
        let metadata = path.symlink_metadata().map_err(failed("look at", path))?;
        let name = Name { path: path.to_owned(), identity: (metadata.dev(), metadata.ino()) };
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
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
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
