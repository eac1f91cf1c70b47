//! `cargo xtask bench`: what the sensor costs, how fast and how large it is.
//!
//! Examples of the agent measure its rooms: each prints lines of JSON `{"name": …, "value": …, "unit": …}`, with `"at_least"` or
//! `"at_most"` where there is a goal.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::process::ExitCode;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::setup::kernels::Series;
use crate::setup::{self, Stage};
use crate::{build, paths, run, shell, vm};

/// Arguments of `cargo xtask bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Kernel series whose cost is measured; may be given several times.
    #[arg(long, value_name = "SERIES", default_values = ["5.10", "6.12"])]
    kernel: Vec<String>,
}

/// One number.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Number {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at_least: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) at_most: Option<f64>,
}

impl Number {
    /// A number without a goal.
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &str) -> Self {
        Self { name: name.into(), value, unit: unit.to_owned(), at_least: None, at_most: None }
    }

    fn reached(&self) -> bool {
        self.at_least.is_none_or(|goal| self.value >= goal)
            && self.at_most.is_none_or(|goal| self.value <= goal)
    }
}

impl Args {
    /// Measures all; exit status 0 only if each goal is reached.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        setup::ensure(Stage::Test)?;
        build::release(&["muster", "suite", "tool"])?;
        let mut numbers = Vec::new();
        for example in ["bench_sbom", "bench_attest", "bench_pipeline"] {
            numbers.extend(measured_by(example, &[])?);
        }
        numbers.extend(run::measure()?);
        numbers.extend(measured_by("bench_pipeline", &run::record()?)?);
        for name in &self.kernel {
            let series = Series::named(name)?;
            let costs = vm::cost::measure(series).with_context(|| format!("kernel {name}"))?;
            let number = |what: &str, value| {
                Number::new(format!("{what}, kernel {name} ({})", series.flavour), value, "ns")
            };
            for cost in costs.operations {
                let operation = &cost.operation;
                numbers.extend([
                    number(&format!("{operation} without the sensor"), cost.bare()),
                    number(&format!("{operation} added by the sensor"), cost.added()),
                    number(&format!("{operation} in kernel programs (bpf_stats)"), cost.kernel),
                ]);
            }
            for program in costs.programs {
                numbers
                    .push(number(&format!("one run of {} (bpf_stats)", program.program), program.ns_per_run));
            }
        }
        let file = paths::target().join("bench.json");
        fs::write(&file, serde_json::to_vec_pretty(&numbers)?)?;
        print!("\n{}", table(&numbers));
        println!("{}", file.display());
        Ok(if numbers.iter().all(Number::reached) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn measured_by(example: &str, args: &[OsString]) -> anyhow::Result<Vec<Number>> {
    let mut cargo = build::cargo();
    cargo.args(["run", "--quiet", "--release", "--package", "muster", "--example", example, "--"]).args(args);
    let text = shell::output(&mut cargo).with_context(|| format!("agent/examples/{example}.rs"))?;
    let numbers: Vec<Number> = text
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).with_context(|| format!("not a number: {line}")))
        .collect::<Result<_, _>>()?;
    anyhow::ensure!(!numbers.is_empty(), "expected lines of JSON, found: {text:?}");
    Ok(numbers)
}

fn table(numbers: &[Number]) -> String {
    let width = numbers.iter().map(|n| n.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for n in numbers {
        let goal = match (n.at_least, n.at_most) {
            (Some(goal), _) => format!("  at least {goal}"),
            (None, Some(goal)) => format!("  at most {goal}"),
            (None, None) => String::new(),
        };
        let mark = if n.reached() { "" } else { "  MISSED" };
        writeln!(text, "{:<width$}  {:>14.1} {}{goal}{mark}", n.name, n.value, n.unit).expect("into memory");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_goal_shows() {
        let line = r#"{"name":"load","value":250.0,"unit":"MB/s","at_least":300}"#;
        let number: Number = serde_json::from_str(line).unwrap();
        assert!(!number.reached());
        assert!(table(&[number]).ends_with("at least 300  MISSED\n"));
    }
}
