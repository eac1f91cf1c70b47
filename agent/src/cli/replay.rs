//! `muster replay`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use super::client::print;
use super::output::note;
use crate::app;
use crate::config::Config;
use crate::feed::{append_line, text};
use crate::images::Images;
use crate::metrics::Metrics;
use crate::record::{Reader, replay};

/// Arguments of `muster replay`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The recording, made by `muster agent --record`.
    file: PathBuf,
    /// Configuration file; of it only `[attestation]` and `host.directory` count [default: /etc/muster/muster.toml].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Take the attestations from this directory alone.
    #[arg(long, value_name = "DIR")]
    attestations: Option<PathBuf>,
    /// One JSON object per line, as in the JSON lines file.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs `muster replay`. The exit status is 1 when the recording was cut, even if all that is there could be read.
    ///
    /// # Errors
    /// The configuration is refused, or the recording (or the rest of it) is.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { file, config, attestations, json } = self;
        let mut reader = Reader::open(&file)?;
        let mut config = match config {
            Some(file) => Config::load(&file)?,
            None => Config::load_default()?,
        };
        if let Some(directory) = attestations {
            config.attestation.directory = directory;
            // The recording may be another host's.
            config.host.directory.clear();
        }
        // Only what is there now says anything of a recording.
        config.attestation.verified_directory.clear();
        let metrics = Metrics::new();
        let images = Images::new(&config, metrics.clone())?;
        images.load_now();
        for refused in images.refused().iter() {
            note(format_args!("muster: {}: refused: {}", refused.file, refused.reason));
        }
        if let Some(reason) = app::verifies_nothing(&config).filter(|_| !images.refused().is_empty()) {
            note(format_args!("muster: {reason} in a configuration, and name that with --config"));
        }
        let colour =
            std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        if !json {
            print(text::finding_header() + "\n")?;
        }
        let mut line = Vec::new();
        let mut printed = Ok(());
        let source = Box::new(move |digest: &_| images.get(digest));
        let done = replay(&mut reader, source, metrics, |finding| {
            line.clear();
            if json {
                append_line(&finding, &mut line);
            } else {
                line.extend(text::finding_row(&finding, colour).bytes());
                line.push(b'\n');
            }
            if printed.is_ok() {
                printed = print(&line);
            }
        });
        printed?;
        let done = done?;
        note(format_args!("muster: {} events gave {} findings", done.events, done.findings));
        if done.lost > 0 {
            note(format_args!(
                "muster: {} events are missing in the recording: the disk was full or too slow",
                done.lost
            ));
        }
        if !done.ended {
            note(
                "muster: the recording has no end: the disk was full, or the agent was killed or still writes it; events that \
                 followed are missing",
            );
            return Ok(ExitCode::FAILURE);
        }
        Ok(ExitCode::SUCCESS)
    }
}
