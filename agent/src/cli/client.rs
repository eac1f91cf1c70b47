//! What the subcommands that talk to a running agent share.

use std::io::{self, ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use muster_proto::v1::sensor_client::SensorClient;
use tonic::transport::Channel;

use crate::config;
use crate::feed::client::connect;

/// Which agent.
#[derive(Debug, clap::Args)]
pub struct Agent {
    /// Unix socket of the agent. Without this option, what the environment variable MUSTER_SOCKET says.
    #[arg(long, value_name = "FILE", default_value_os_t = socket())]
    pub socket: PathBuf,
}

/// The agent's socket where no option names it.
fn socket() -> PathBuf {
    let said = std::env::var_os("MUSTER_SOCKET").filter(|said| !said.is_empty());
    said.map_or_else(|| config::Feed::default().socket, PathBuf::from)
}

impl Agent {
    /// Connects and runs `work`, on this thread.
    ///
    /// # Errors
    /// No agent answers, or whatever stopped the work. A reader of our output that went away is no error.
    pub fn run<F: Future<Output = anyhow::Result<ExitCode>>>(
        self,
        work: impl FnOnce(SensorClient<Channel>) -> F,
    ) -> anyhow::Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let done = runtime.block_on(async { work(connect(&self.socket).await?).await });
        unless_unread(done)
    }
}

/// What was done, where a reader of our output that went away (`| head`) is no error.
///
/// # Errors
/// Any other error.
pub fn unless_unread(done: anyhow::Result<ExitCode>) -> anyhow::Result<ExitCode> {
    match done {
        Err(error)
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) =>
        {
            Ok(ExitCode::SUCCESS)
        }
        done => done,
    }
}

/// Writes text to standard output and flushes it.
///
/// # Errors
/// As writing does; a reader that went away is told apart by [`unless_unread`].
pub fn print(text: impl AsRef<[u8]>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_ref())?;
    out.flush()
}

/// A call failed because the agent is there no more, and not because it refused.
pub fn is_gone(status: &tonic::Status) -> bool {
    use tonic::Code;
    !matches!(status.code(), Code::InvalidArgument | Code::ResourceExhausted | Code::Unimplemented)
}

/// What a call that failed means for a person.
pub fn gone(status: &tonic::Status) -> anyhow::Error {
    if is_gone(status) {
        anyhow::anyhow!("the agent ended before it had answered; look with `systemctl status muster`")
    } else {
        anyhow::anyhow!("the agent refused: {}", status.message())
    }
}

/// The stream ended although more was wanted.
pub fn ended() -> anyhow::Error {
    anyhow::anyhow!("the agent has shut down; look with `systemctl status muster`")
}
