//! The agent under test: started as a process, spoken to as any client would.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use hyper_util::rt::TokioIo;
use muster_proto::v1::{self, sensor_client::SensorClient, watch_response::Item};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;
use tonic::transport::{Channel, Endpoint};

/// Longest wait for something that must come. Emulated machines are slow; nothing here measures speed.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait for the agent's start: an emulated kernel takes seconds to verify each program.
const START: Duration = Duration::from_secs(300);

/// A running agent and a client that watches all its findings.
pub struct Agent {
    child: Child,
    runtime: Runtime,
    client: SensorClient<Channel>,
    findings: tokio::sync::mpsc::UnboundedReceiver<Item>,
    socket: PathBuf,
}

impl Agent {
    /// Starts `program` with `config` and waits until it watches.
    ///
    /// # Errors
    /// The agent ended, or did not answer within five minutes; the last lines of its log are part of the message.
    pub fn start(program: &Path, config: &Path, socket: &Path, log: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(["agent", "--config"]).arg(config);
        Self::spawn(command, socket, log)
    }

    /// Like [`Self::start`], and its findings are all from the first one on. Some are there before any client can be: what ran before the
    /// agent is judged as soon as it watches.
    ///
    /// # Errors
    /// As there.
    pub fn from_first(program: &Path, config: &Path, socket: &Path, log: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(["agent", "--config"]).arg(config);
        Self::run(command, socket, log, Some(0))
    }

    /// Like [`Self::start`], by a command that becomes the agent.
    ///
    /// # Errors
    /// As there.
    pub fn spawn(command: Command, socket: &Path, log: &Path) -> anyhow::Result<Self> {
        Self::run(command, socket, log, None)
    }

    /// `after`: the number of the finding after which its own are wanted; else from when it answers.
    fn run(mut command: Command, socket: &Path, log: &Path, after: Option<u64>) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let out = std::fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = child.try_wait()? {
                bail!("the agent ended at start with {status}; its log:\n{}", tail(log));
            }
            if let Ok((client, findings)) = runtime.block_on(subscribe(socket, after)) {
                return Ok(Self { child, runtime, client, findings, socket: socket.to_owned() });
            }
            if Instant::now() > deadline {
                let _killed = child.kill();
                bail!(
                    "the agent did not answer on {} within {START:?}; its log:\n{}",
                    socket.display(),
                    tail(log)
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The agent's socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The agent's own view of itself.
    ///
    /// # Errors
    /// The agent does not answer.
    pub fn status(&mut self) -> anyhow::Result<v1::Status> {
        let client = &mut self.client;
        Ok(self.runtime.block_on(client.get_status(v1::GetStatusRequest {}))?.into_inner())
    }

    /// Every finding up to the one that `last` accepts, that one not included.
    ///
    /// # Errors
    /// It did not come within [`PATIENCE`], the stream ended, or this client missed findings.
    pub fn findings_until(
        &mut self,
        last: impl Fn(&v1::Finding) -> bool,
    ) -> anyhow::Result<Vec<v1::Finding>> {
        let mut came = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let findings = &mut self.findings;
            let next = self.runtime.block_on(async { tokio::time::timeout(left, findings.recv()).await });
            match next {
                Ok(Some(Item::Finding(f))) if last(&f) => return Ok(came),
                Ok(Some(Item::Finding(f))) => came.push(f),
                Ok(Some(Item::Missed(m))) => bail!("the client missed {} findings", m.count),
                Ok(Some(Item::Subscribed(_))) => {}
                Ok(None) => bail!("the agent ended the stream"),
                Err(_) => bail!(
                    "the last finding did not come within {PATIENCE:?}; so far:\n{}",
                    came.iter().map(crate::expect::describe).collect::<Vec<_>>().join("\n")
                ),
            }
        }
    }

    /// Makes the agent read its configuration again (SIGHUP).
    ///
    /// # Errors
    /// It is not there.
    pub fn reload(&self) -> anyhow::Result<()> {
        self.signal(nix::sys::signal::Signal::SIGHUP)
    }

    /// A line of the agent's `/proc/PID/status` that counts memory (`VmRSS`, `RssAnon`), bytes.
    ///
    /// # Errors
    /// The agent is not there, or there is no such line.
    pub fn memory(&self, line: &str) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let value = status.lines().find_map(|l| l.strip_prefix(line)?.strip_prefix(':'));
        let kib = value
            .and_then(|v| v.trim().strip_suffix(" kB"))
            .with_context(|| format!("no {line} in:\n{status}"))?;
        Ok(kib.trim().parse::<u64>()? << 10)
    }

    /// Takes the agent off the processor (SIGSTOP) while something is done.
    ///
    /// # Errors
    /// It is not there, or the something went wrong.
    pub fn paused<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.signal(nix::sys::signal::Signal::SIGSTOP)?;
        let done = self.stands_still().and_then(|()| work());
        self.signal(nix::sys::signal::Signal::SIGCONT)?;
        done
    }

    /// Waits until the signal has stopped each thread.
    fn stands_still(&self) -> anyhow::Result<()> {
        let threads = format!("/proc/{}/task", self.child.id());
        let runs = |thread: &std::fs::DirEntry| {
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            // proc(5): the state comes behind the name, which is in parentheses.
            stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('T'))
        };
        while std::fs::read_dir(&threads)?.flatten().any(|thread| runs(&thread)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    fn signal(&self, signal: nix::sys::signal::Signal) -> anyhow::Result<()> {
        Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// Ends the agent in order (SIGTERM) and returns how long it took.
    ///
    /// # Errors
    /// It did not end within [`PATIENCE`], or not with status 0.
    pub fn stop(mut self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        self.signal(nix::sys::signal::Signal::SIGTERM)?;
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the agent ended with {status}");
                return Ok(begun.elapsed());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        self.child.kill()?;
        bail!("the agent did not end within {PATIENCE:?} of SIGTERM")
    }

    /// Ends the agent as the kernel would (SIGKILL).
    ///
    /// # Errors
    /// It could not be killed or waited for.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

async fn subscribe(
    socket: &Path,
    after_sequence: Option<u64>,
) -> anyhow::Result<(SensorClient<Channel>, tokio::sync::mpsc::UnboundedReceiver<Item>)> {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    // The address is not used: the connector goes to the socket.
    let channel = Endpoint::from_static("http://muster.invalid").connect_with_connector(connector).await?;
    let mut client = SensorClient::new(channel);
    let request = v1::WatchRequest { after_sequence, ..v1::WatchRequest::default() };
    let mut stream = client.watch(request).await?.into_inner();
    let (send, receive) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(response)) = stream.next().await {
            if let Some(item) = response.item
                && send.send(item).is_err()
            {
                break;
            }
        }
    });
    Ok((client, receive))
}

fn tail(log: &Path) -> String {
    let text =
        std::fs::read_to_string(log).unwrap_or_else(|e| format!("(cannot read {}: {e})", log.display()));
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
