//! `muster status`.

use std::process::ExitCode;

use muster_proto::v1::GetStatusRequest;

use super::client::{Agent, gone, print};
use crate::feed::status_text;

/// Arguments of `muster status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    agent: Agent,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs `muster status`.
    ///
    /// # Errors
    /// No agent answers.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { agent, json } = self;
        agent.run(async |mut client| {
            let answer = client.get_status(GetStatusRequest {}).await.map_err(|status| gone(&status))?;
            let status = answer.into_inner();
            if json {
                print(format!("{:#}\n", status_text::status_json(&status)))?;
            } else {
                print(status_text::status(&status))?;
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}
