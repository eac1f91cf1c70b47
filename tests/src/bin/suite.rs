//! Runs the scenarios in a virtual machine and prints a line of JSON for each; ends with 0 only if all passed.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Parser;
use muster_proto::v1::Flavour;
use muster_tests::agent::Agent;
use muster_tests::life::{self, Setting};
use muster_tests::scenarios::{self, Differs, Stage};
use muster_tests::world::{AGENT_LOG, INPUTS, World};

#[derive(Parser)]
struct Args {
    /// The flavour that the agent must choose on this kernel: `lsm` or `tracepoint`.
    #[arg(long)]
    flavour: String,
    /// Only the scenarios whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Only the scenarios that can come out differently there.
    #[arg(long, value_enum, default_value_t)]
    differs: Differs,
    /// Leave out what follows the scenarios: how the agent ends and starts, within times that a slow machine cannot keep.
    #[arg(long)]
    scenarios_only: bool,
}

impl Args {
    fn takes(&self, differs: Differs, name: &str) -> bool {
        differs >= self.differs && self.only.as_ref().is_none_or(|o| name.contains(o))
    }
}

fn main() -> ExitCode {
    match suite(&Args::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            report("the suite itself", Duration::ZERO, &Err(error));
            ExitCode::FAILURE
        }
    }
}

/// Returns how many scenarios failed.
fn suite(args: &Args) -> anyhow::Result<usize> {
    let world = World::prepare().context("preparing the machine")?;
    let program = Path::new(INPUTS).join("muster");
    let log = Path::new(AGENT_LOG);
    let (config, socket) = (world.config.clone(), world.socket.clone());
    let mut agent = Agent::start(&program, &config, &socket, log)?;
    let status = agent.status()?;
    let expected = match args.flavour.as_str() {
        "lsm" => Flavour::Lsm,
        _ => Flavour::Tracepoint,
    };
    ensure!(status.flavour() == expected, "the agent chose {:?}, not {expected:?}", status.flavour());
    ensure!(status.images.iter().any(|i| i.state == "verified"), "no image is verified: {:?}", status.images);
    let mut stage = Stage::new(world, agent);
    let mut failed = 0;
    let begun = Instant::now();
    let result = stage.begins();
    failed += usize::from(result.is_err());
    report("what ran before the agent is judged at its start", begun.elapsed(), &result);
    for (differs, scenario) in scenarios::all() {
        if !args.takes(differs, scenario.name) {
            continue;
        }
        let begun = Instant::now();
        let result = stage.play(&scenario, expected, &status.blind_spots);
        failed += usize::from(result.is_err());
        report(scenario.name, begun.elapsed(), &result);
    }
    if !args.scenarios_only {
        let begun = Instant::now();
        let result = life::ends(stage);
        failed += usize::from(result.is_err());
        report("SIGTERM drains", begun.elapsed(), &result);
        let setting = Setting { program, config, socket, flavour: expected };
        for (differs, name, run) in life::all() {
            if !args.takes(differs, name) {
                continue;
            }
            let begun = Instant::now();
            let result = run(&setting);
            failed += usize::from(result.is_err());
            report(name, begun.elapsed(), &result);
        }
    }
    if failed > 0 {
        eprintln!("--- agent log\n{}", std::fs::read_to_string(log).unwrap_or_default());
    }
    Ok(failed)
}

fn report(name: &str, took: Duration, result: &anyhow::Result<()>) {
    let line = serde_json::json!({
        "scenario": name,
        "passed": result.is_ok(),
        "seconds": took.as_secs_f64(),
        "error": result.as_ref().err().map(|e| format!("{e:#}")),
    });
    println!("{line}");
}
