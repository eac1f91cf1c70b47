//! `muster probe`.

use std::process::ExitCode;

use super::client::print;
use crate::sensor::probe::probe;

/// Arguments of `muster probe`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// As JSON.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs `muster probe`. The exit status is 1 when the sensor cannot run here.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let probe = probe();
        let text = if self.json { serde_json::to_string_pretty(&probe)? + "\n" } else { probe.to_string() };
        print(text)?;
        Ok(if probe.flavour.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
