//! `muster watch`.

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use muster_proto::v1::Missed;
use muster_proto::v1::sensor_client::SensorClient;
use muster_proto::v1::watch_response::Item;
use tonic::transport::Channel;

use super::client::{Agent, gone, is_gone, print};
use super::output::note;
use crate::event::Kind;
use crate::feed::client::{ConnectError, connect};
use crate::feed::{After, Filter, append_line, convert, text};
use crate::finding::{Severity, Verdict};

/// Arguments of `muster watch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    agent: Agent,
    /// Only findings of this workload, by id or name; may be repeated.
    #[arg(long = "workload", value_name = "WORKLOAD")]
    workloads: Vec<String>,
    /// Only findings with this verdict; may be repeated.
    #[arg(long = "verdict", value_name = "VERDICT")]
    verdicts: Vec<Verdict>,
    /// Only findings at least as severe: info, low, medium, high, critical.
    #[arg(long, value_name = "SEVERITY")]
    severity: Option<Severity>,
    /// Only findings of this kind: exec, library, file, connect, lost; may be repeated.
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<Kind>,
    /// First show what the agent still holds after this finding; 0 for all of it. With its run, as RUN:SEQUENCE, all of a later run.
    #[arg(long, value_name = "[RUN:]SEQUENCE")]
    after: Option<After>,
    /// One JSON object per line, as in the JSON lines file.
    #[arg(long)]
    json: bool,
    /// End after so many findings.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

impl Args {
    /// Runs `muster watch`.
    ///
    /// # Errors
    /// No agent answers, or it refuses. One that answered and went away is waited for.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { agent, workloads, verdicts, severity, kinds, after, json, count } = self;
        let filter = Filter { workloads, verdicts, minimum_severity: severity, kinds };
        let socket = agent.socket.clone();
        let mut view = View {
            json,
            colour: std::io::stdout().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
            after,
            left: count.unwrap_or(u64::MAX),
            begun: false,
            line: Vec::new(),
        };
        agent.run(async |mut client| {
            while let Some(why) = view.follow(client, &filter).await? {
                note(format_args!("muster: {why}; waiting for it to come back"));
                client = connect_again(&socket).await?;
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// Tries until an agent answers.
async fn connect_again(socket: &Path) -> anyhow::Result<SensorClient<Channel>> {
    let mut pause = Duration::from_millis(100);
    loop {
        tokio::time::sleep(pause).await;
        match connect(socket).await {
            Err(ConnectError::Denied(path)) => return Err(ConnectError::Denied(path).into()),
            Err(_) => pause = (pause * 2).min(Duration::from_secs(2)),
            Ok(client) => return Ok(client),
        }
    }
}

/// What is shown, and how far.
struct View {
    json: bool,
    colour: bool,
    /// The last finding that was seen.
    after: Option<After>,
    /// Findings that are still wanted.
    left: u64,
    begun: bool,
    line: Vec<u8>,
}

impl View {
    /// Shows what comes. `None`: that was all that was wanted; else why no more comes.
    async fn follow(
        &mut self,
        mut client: SensorClient<Channel>,
        filter: &Filter,
    ) -> anyhow::Result<Option<&'static str>> {
        if self.left == 0 {
            return Ok(None);
        }
        let request = convert::watch_request(filter, self.after.as_ref());
        let mut answers = match client.watch(request).await {
            Ok(answers) => answers.into_inner(),
            Err(status) if self.begun && is_gone(&status) => return Ok(Some("the agent went away")),
            Err(status) => return Err(gone(&status)),
        };
        while self.left > 0 {
            match answers.message().await {
                Ok(Some(answer)) => self.show(answer.item)?,
                Ok(None) => return Ok(Some("the agent has shut down")),
                Err(status) if is_gone(&status) => return Ok(Some("the agent went away")),
                Err(status) => return Err(gone(&status)),
            }
        }
        Ok(None)
    }

    fn show(&mut self, item: Option<Item>) -> anyhow::Result<()> {
        match item {
            Some(Item::Finding(finding)) => {
                let finding = convert::finding_from(finding)?;
                self.seen(finding.sequence, finding.origin.as_ref().map(|origin| origin.run.clone()));
                self.line.clear();
                if self.json {
                    append_line(&finding, &mut self.line);
                } else {
                    self.line.extend(text::finding_row(&finding, self.colour).bytes());
                    self.line.push(b'\n');
                }
                print(&self.line)?;
                self.left -= 1;
            }
            Some(Item::Missed(missed)) => self.missed(missed),
            Some(Item::Subscribed(subscribed)) => {
                let run = (!subscribed.run.is_empty()).then_some(subscribed.run);
                // Of what was asked for, all up to here comes after this; without a wish, nothing before it.
                if self.after.is_none() {
                    self.seen(subscribed.sequence, run);
                }
                if std::mem::replace(&mut self.begun, true) {
                    note("muster: the agent answers again");
                } else if !self.json {
                    print(text::finding_header() + "\n")?;
                } else if subscribed.sequence > 0 {
                    note(format_args!(
                        "muster: connected; the last finding so far is number {}",
                        subscribed.sequence
                    ));
                } else {
                    note("muster: connected; there is no finding so far");
                }
            }
            // Something that a newer agent may say.
            None => {}
        }
        Ok(())
    }

    fn missed(&mut self, Missed { count, another_run }: Missed) {
        if another_run {
            self.after = self.after.take().map(|_| After::from(0));
            note(
                "muster: the agent was started anew, and its findings are numbered from 1 again; what it found last before may be \
                 missing here",
            );
        }
        if count > 0 {
            note(format_args!(
                "muster: {count} {} missing here",
                if count == 1 { "finding is" } else { "findings are" }
            ));
        }
    }

    fn seen(&mut self, sequence: u64, run: Option<String>) {
        self.after = Some(After { sequence, run });
    }
}
