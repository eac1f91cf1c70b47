//! The command line: one file per subcommand, none of them holds logic.

// They panic where nobody reads; what commands say goes through `output` and `client::print`.
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub mod agent;
pub mod attest;
pub mod client;
pub mod events;
pub mod explain;
pub mod images;
mod input;
pub mod output;
pub mod probe;
pub mod replay;
mod save;
pub mod sbom;
pub mod status;
pub mod watch;

/// Runtime workload sensor: every program on your nodes runs only as the signed SBOM of its image says.
#[derive(Debug, Parser)]
#[command(name = "muster", version, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sensor.
    Agent(agent::Args),
    /// Show what this kernel offers, the hook flavour chosen, and what it cannot see.
    Probe(probe::Args),
    /// Show findings as they come, also after the agent was started anew. A `loss` is shown whatever the filters are.
    Watch(watch::Args),
    /// Show raw events as they come.
    Events(events::Args),
    /// Show how a running agent is: problems, losses, images, refused attestations.
    Status(status::Args),
    /// Show the images that a running agent knows, with the coverage of their SBOMs.
    Images(images::Args),
    /// Show what the attested SBOMs of a running agent say of a path or a digest. Exit status: 0 one has it, 1 none has.
    Explain(explain::Args),
    /// Put a recorded stream of events through the pipeline.
    Replay(replay::Args),
    /// Make and inspect SBOMs.
    #[command(subcommand)]
    Sbom(sbom::Command),
    /// Sign and verify attestations.
    #[command(subcommand)]
    Attest(attest::Command),
}

impl Cli {
    /// Runs the subcommand.
    ///
    /// # Errors
    /// Whatever stopped it, with what to do about it.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Agent(args) => client::unless_unread(args.run()),
            Command::Probe(args) => client::unless_unread(args.run()),
            Command::Watch(args) => args.run(),
            Command::Events(args) => args.run(),
            Command::Status(args) => args.run(),
            Command::Images(args) => args.run(),
            Command::Explain(args) => args.run(),
            Command::Replay(args) => client::unless_unread(args.run()),
            Command::Sbom(command) => command.run(),
            Command::Attest(command) => command.run(),
        }
    }
}
