//! The `muster` program.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match muster::cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            muster::cli::output::complain(&error);
            ExitCode::FAILURE
        }
    }
}
