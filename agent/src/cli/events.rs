//! `muster events`.

use std::process::ExitCode;

use muster_proto::v1::EventsRequest;
use muster_proto::v1::events_response::Item;
use muster_proto::v1::sensor_client::SensorClient;
use tonic::transport::Channel;

use super::client::{Agent, ended, gone, print};
use super::output::note;
use crate::event::Kind;
use crate::feed::{convert, status_text, text};

/// Arguments of `muster events`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    agent: Agent,
    /// Only events of this kind: exec, library, file, connect, fork, exit, lost; may be repeated.
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<Kind>,
    /// One JSON object per line.
    #[arg(long)]
    json: bool,
    /// End after so many events.
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

impl Args {
    /// Runs `muster events`.
    ///
    /// # Errors
    /// No agent answers, or it went away before `--count` events came.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { agent, kinds, json, count } = self;
        let request =
            EventsRequest { kinds: kinds.into_iter().map(|kind| convert::kind(kind).into()).collect() };
        agent.run(async |client| show(client, request, json, count).await)
    }
}

async fn show(
    mut client: SensorClient<Channel>,
    request: EventsRequest,
    json: bool,
    count: Option<u64>,
) -> anyhow::Result<ExitCode> {
    let mut answers = client.events(request).await.map_err(|status| gone(&status))?.into_inner();
    let mut left = count.unwrap_or(u64::MAX);
    while left > 0 {
        let answer = answers.message().await.map_err(|status| gone(&status))?.ok_or_else(ended)?;
        match answer.item {
            Some(Item::Event(event)) => {
                if json {
                    print(format!("{}\n", status_text::event_json(&event)))?;
                } else {
                    print(text::event_row(&event) + "\n")?;
                }
                left -= 1;
            }
            Some(Item::Missed(missed)) => {
                let events = if missed.count == 1 { "event is" } else { "events are" };
                note(format_args!("muster: {} {events} missing here", missed.count));
            }
            Some(Item::Subscribed(_)) if !json => print(format!("{}\n", text::event_header()))?,
            // Something that a newer agent may say, too.
            Some(Item::Subscribed(_)) | None => {}
        }
    }
    Ok(ExitCode::SUCCESS)
}
