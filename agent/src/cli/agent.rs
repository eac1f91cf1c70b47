//! `muster agent`.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use super::output::{note, tell};
use crate::app::{self, Options, load};
use crate::config::DEFAULT_FILE;

/// Arguments of `muster agent`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file [default: /etc/muster/muster.toml; without that file every key has its default].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only check the configuration, its keys and its workloads. Refused is also one with which nothing can be verified.
    #[arg(long)]
    check: bool,
    /// Write every event, and what was found out about it, to FILE; `muster replay` judges it again.
    #[arg(long, value_name = "FILE", conflicts_with = "check")]
    record: Option<PathBuf>,
    /// What to log: error, warn, info, debug, trace, or a filter like `info,muster::sensor=debug` [default: what the
    /// environment variable RUST_LOG says, else info].
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// How to log, to standard error.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Args {
    /// Runs `muster agent`.
    ///
    /// # Errors
    /// The configuration is refused, or the agent cannot run here.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let Self { config: file, check, record, log, log_format } = self;
        let (file, config) = load(file, Path::new(DEFAULT_FILE))?;
        if check {
            let name = match &file {
                Some(file) => file.display().to_string(),
                None => format!("{DEFAULT_FILE} is not there, so every key has its default"),
            };
            app::check(&config)?;
            for warning in app::warnings(&config) {
                note(format_args!("muster: {name}: warning: {warning}"));
            }
            if let Some(reason) = app::verifies_nothing(&config) {
                anyhow::bail!("{name}: {reason}");
            }
            tell(format!("{name}: the configuration is good\n"))?;
            return Ok(ExitCode::SUCCESS);
        }
        let log = log.or_else(|| std::env::var("RUST_LOG").ok()).unwrap_or_else(|| "info".to_owned());
        let filter = EnvFilter::try_new(&log)
            .map_err(|e| anyhow::anyhow!("--log {log:?}: {e}; expected a level like `info`"))?;
        let logs = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            // It would be told to standard error, which just failed; and that would be a panic.
            .log_internal_errors(false)
            .with_ansi(std::io::stderr().is_terminal());
        match log_format {
            LogFormat::Text => logs.init(),
            LogFormat::Json => logs.json().init(),
        }
        app::run(Options { config, file, record })?;
        Ok(ExitCode::SUCCESS)
    }
}
