//! The scenario suite on each kernel: the program `suite` of `tests/` runs in the image under test and prints a line of JSON per
//! scenario.

use std::fs;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::answers;
use super::debian::Job;
use super::guest::quoted;
use super::image::Image;
use super::qemu::tail;
use crate::build;
use crate::setup::kernels::Series;

/// A line of the suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Scenario {
    scenario: String,
    passed: bool,
    seconds: f64,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Run {
    kernel: &'static str,
    flavour: &'static str,
    seconds: f64,
    scenarios: Vec<Scenario>,
}

/// Runs the suite on each kernel and prints a table. True: every scenario passed on every kernel.
pub(super) fn run(series: &[&'static Series], only: Option<&str>, cpus: u32) -> anyhow::Result<bool> {
    build::release(&["muster", "suite", "tool"])?;
    let image = Image::get()?;
    let answered = answers::print(&image);
    let mut runs = Vec::new();
    for series in series {
        runs.push(on(series, &image, only, cpus).with_context(|| format!("kernel {}", series.name))?);
    }
    let results = super::directory().join("results.json");
    fs::write(&results, serde_json::to_vec_pretty(&runs)?)?;
    print!("\n{}", table(&runs));
    let (passed, failed) = count(&runs);
    println!("virtual machines: {passed} passed, {failed} failed; {}", results.display());
    if let Err(error) = &answered {
        println!("what SBOMs answer of the image's root: FAILED: {error:#}");
    }
    Ok(failed == 0 && answered.is_ok())
}

fn on(series: &'static Series, image: &Image, only: Option<&str>, cpus: u32) -> anyhow::Result<Run> {
    println!("kernel {} ({}), {cpus} processors", series.name, series.flavour);
    let only = only.map(|o| format!(" --only {}", quoted(o))).unwrap_or_default();
    // The kernel takes long to detach programs where there are more virtual processors than real ones.
    let part = if cpus > super::CPUS { " --scenarios-only" } else { "" };
    let job = Job {
        name: "suite",
        line: format!("/muster/suite --flavour {}{only}{part}", series.flavour),
        files: &[],
        count_instructions: false,
        cpus,
    };
    let outcome = job.run(series, image, &mut |line| match serde_json::from_str::<Scenario>(line) {
        Ok(s) => println!("  {} {:6.1} s  {}{}", mark(s.passed), s.seconds, s.scenario, reason(&s)),
        Err(_) => println!("  {line}"),
    })?;
    let scenarios: Vec<Scenario> = outcome
        .lines
        .iter()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not a line of the suite: {line:?}")))
        .collect::<Result<_, _>>()?;
    let failed = scenarios.iter().any(|s| !s.passed);
    if failed {
        println!("{}", tail(&outcome.console)?);
    }
    // The status and the lines must tell the same story, and there must be one.
    if scenarios.is_empty() || failed != (outcome.status != 0) {
        bail!(
            "the suite ended with status {} after {} scenarios; {}",
            outcome.status,
            scenarios.len(),
            tail(&outcome.console)?
        );
    }
    Ok(Run { kernel: series.name, flavour: series.flavour, seconds: outcome.took.as_secs_f64(), scenarios })
}

fn mark(passed: bool) -> &'static str {
    if passed { "ok    " } else { "FAILED" }
}

fn reason(scenario: &Scenario) -> String {
    scenario.error.as_ref().map(|e| format!("\n      {}", e.replace('\n', "\n      "))).unwrap_or_default()
}

fn count(runs: &[Run]) -> (usize, usize) {
    let all = || runs.iter().flat_map(|run| &run.scenarios);
    let passed = all().filter(|s| s.passed).count();
    (passed, all().count() - passed)
}

/// One row per scenario, one column per kernel.
fn table(runs: &[Run]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for scenario in runs.iter().flat_map(|run| &run.scenarios) {
        if !names.contains(&scenario.scenario.as_str()) {
            names.push(&scenario.scenario);
        }
    }
    let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0);
    let row = |name: &str, cells: Vec<String>| {
        let cells: String = cells.iter().map(|cell| format!("  {cell:<10}")).collect();
        format!("{name:<width$}{}\n", cells.trim_end())
    };
    let mut text = row("", runs.iter().map(|r| r.kernel.to_owned()).collect());
    text += &row("", runs.iter().map(|r| r.flavour.to_owned()).collect());
    for name in names {
        let cell = |run: &Run| match run.scenarios.iter().find(|s| s.scenario == name) {
            Some(s) if s.passed => "ok".to_owned(),
            Some(_) => "FAILED".to_owned(),
            None => "not run".to_owned(),
        };
        text += &row(name, runs.iter().map(cell).collect());
    }
    text += &row("seconds", runs.iter().map(|r| format!("{:.0}", r.seconds)).collect());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_what_was_not_run() {
        let scenario =
            |name: &str, passed| Scenario { scenario: name.into(), passed, seconds: 1.0, error: None };
        let runs = [
            Run { kernel: "5.10", flavour: "tracepoint", seconds: 9.6, scenarios: vec![scenario("a", true)] },
            Run {
                kernel: "6.12",
                flavour: "lsm",
                seconds: 20.0,
                scenarios: vec![scenario("a", false), scenario("long name", true)],
            },
        ];
        let expected = "           5.10        6.12\n           tracepoint  lsm\n\
                        a          ok          FAILED\nlong name  not run     ok\nseconds    10          20\n";
        assert_eq!(table(&runs), expected);
        assert_eq!(count(&runs), (2, 1));
    }
}
