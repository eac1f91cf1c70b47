//! `muster images`.

use std::process::ExitCode;

use muster_proto::v1::GetStatusRequest;

use super::client::{Agent, gone, print};
use crate::feed::status_text;

/// Arguments of `muster images`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    agent: Agent,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs `muster images`.
    ///
    /// # Errors
    /// No agent answers.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { agent, json } = self;
        agent.run(async |mut client| {
            let answer = client.get_status(GetStatusRequest {}).await.map_err(|status| gone(&status))?;
            let status = answer.into_inner();
            if json {
                print(format!("{:#}\n", status_text::images_json(&status.images)))?;
            } else {
                print(status_text::images(&status.images))?;
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}
