//! `muster watch`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use muster_proto::v1::sensor_client::SensorClient;
use muster_proto::v1::watch_response::Item;
use tonic::transport::Channel;

use super::client::{Agent, ended, gone, print};
use super::output::note;
use crate::event::Kind;
use crate::feed::{Filter, append_line, convert, text};
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
    /// First show what the agent still holds with a higher sequence; 0 for all of it.
    #[arg(long, value_name = "SEQUENCE")]
    after: Option<u64>,
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
    /// No agent answers, or it went away before `--count` findings came.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { agent, workloads, verdicts, severity, kinds, after, json, count } = self;
        let filter = Filter { workloads, verdicts, minimum_severity: severity, kinds };
        agent.run(async |client| show(client, &filter, after, json, count).await)
    }
}

async fn show(
    mut client: SensorClient<Channel>,
    filter: &Filter,
    after: Option<u64>,
    json: bool,
    count: Option<u64>,
) -> anyhow::Result<()> {
    let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let request = convert::watch_request(filter, after);
    let mut answers = client.watch(request).await.map_err(|status| gone(&status))?.into_inner();
    let mut left = count.unwrap_or(u64::MAX);
    let mut line = Vec::new();
    while left > 0 {
        let answer = answers.message().await.map_err(|status| gone(&status))?.ok_or_else(ended)?;
        match answer.item {
            Some(Item::Finding(finding)) => {
                let finding = convert::finding_from(finding)?;
                line.clear();
                if json {
                    append_line(&finding, &mut line);
                } else {
                    line.extend(text::finding_row(&finding, colour).bytes());
                    line.push(b'\n');
                }
                print(&line)?;
                left -= 1;
            }
            Some(Item::Missed(missed)) => {
                note(format_args!("muster: {} findings are missing here", missed.count));
            }
            Some(Item::Subscribed(_)) if !json => print(text::finding_header() + "\n")?,
            Some(Item::Subscribed(subscribed)) => {
                note(format_args!("muster: watching after {}", subscribed.sequence));
            }
            // Something that a newer agent may say.
            None => {}
        }
    }
    Ok(())
}
