//! `muster probe`.

use std::io::Write;
use std::process::ExitCode;

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
        let mut out = std::io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, &probe)?;
            writeln!(out)?;
        } else {
            write!(out, "{probe}")?;
        }
        Ok(if probe.flavour.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
