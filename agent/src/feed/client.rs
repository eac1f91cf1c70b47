//! The other end of the socket: what the client subcommands share.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use hyper_util::rt::TokioIo;
use muster_proto::v1::sensor_client::SensorClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// Why there is no connection to an agent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No such socket.
    #[error(
        "no socket at {}: is the agent running? Look with `systemctl status muster`, try it out with `cargo xtask run`, \
         or name the socket with --socket",
        .0.display()
    )]
    Missing(PathBuf),
    /// The socket is not for this user.
    #[error("may not connect to {}: only the user that runs the agent may; are you root? Try sudo", .0.display())]
    Denied(PathBuf),
    /// The socket is stale.
    #[error(
        "nobody answers at {}: the agent that made the socket has ended; look with `systemctl status muster`",
        .0.display()
    )]
    Refused(PathBuf),
    /// Something else.
    #[error("cannot connect to {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// What came of it.
        source: std::io::Error,
    },
    /// It answers, but does not speak gRPC.
    #[error("expected a muster agent at {}, found something that does not speak gRPC: {source}", path.display())]
    NotAnAgent {
        /// The socket.
        path: PathBuf,
        /// What came of it.
        source: tonic::transport::Error,
    },
}

/// Connects to the agent at this socket. Once: when the agent goes away, calls fail.
///
/// # Errors
/// No agent answers there, or this user may not ask it.
pub async fn connect(path: &Path) -> Result<SensorClient<Channel>, ConnectError> {
    let owned = path.to_owned();
    let stream = UnixStream::connect(path).await.map_err(|source| match source.kind() {
        ErrorKind::NotFound => ConnectError::Missing(owned),
        ErrorKind::PermissionDenied => ConnectError::Denied(owned),
        ErrorKind::ConnectionRefused => ConnectError::Refused(owned),
        _ => ConnectError::Io { path: owned, source },
    })?;
    let once = Mutex::new(Some(TokioIo::new(stream)));
    let connector = tower::service_fn(move |_| {
        let stream = once.lock().ok().and_then(|mut stream| stream.take());
        std::future::ready(stream.ok_or_else(|| std::io::Error::other("the agent has gone away")))
    });
    // The address is never looked up: the connector has the connection.
    let channel = Endpoint::from_static("http://muster.invalid")
        .connect_with_connector(connector)
        .await
        .map_err(|source| ConnectError::NotAnAgent { path: path.to_owned(), source })?;
    // An SBOM-wide explanation or a long list of images is larger than tonic's default of 4 MiB.
    Ok(SensorClient::new(channel).max_decoding_message_size(64 << 20))
}
