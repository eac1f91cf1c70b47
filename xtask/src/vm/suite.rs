//! The scenario suite on each kernel: the program `suite` of `tests/` runs in the image under test and prints a line of JSON per
//! scenario.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

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

/// Machines at once. Software emulation keeps about one core busy with each.
const MACHINES: usize = 2;

/// What of the suite is run, and where.
pub(super) struct Selection<'a> {
    /// Only the scenarios whose name contains this.
    pub(super) only: Option<&'a str>,
    /// Each kind of scenario only on the kernels where it can come out differently.
    pub(super) each_kind: bool,
    /// Virtual processors.
    pub(super) cpus: u32,
}

/// Runs the suite on each kernel and prints a table. True: every scenario passed on every kernel.
pub(super) fn run(series: &[&'static Series], selection: &Selection<'_>) -> anyhow::Result<bool> {
    build::release(&["muster", "suite", "tool"])?;
    let image = Image::get()?;
    let answered = answers::print(&image);
    let mut runs = Vec::new();
    for result in on_each(series, |series| on(series, &image, selection)) {
        runs.push(result?);
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

/// Does it for each kernel, [`MACHINES`] at once, and returns what came of it in the order of the kernels.
fn on_each(
    series: &[&'static Series],
    run: impl Fn(&'static Series) -> anyhow::Result<Run> + Sync,
) -> Vec<anyhow::Result<Run>> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(one) = series.get(at) else { return };
            let result = run(one).with_context(|| format!("kernel {}", one.name));
            results.lock().unwrap_or_else(PoisonError::into_inner).insert(at, result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..MACHINES {
            scope.spawn(work);
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

fn on(series: &'static Series, image: &Image, selection: &Selection<'_>) -> anyhow::Result<Run> {
    let Selection { only, each_kind, cpus } = *selection;
    println!("kernel {} ({}), {cpus} processors", series.name, series.flavour);
    let mut line = format!("/muster/suite --flavour {}", series.flavour);
    if let Some(only) = only {
        line += &format!(" --only {}", quoted(only));
    }
    if each_kind {
        line += &format!(" --differs {}", series.differs);
    }
    // The kernel takes long to detach programs where there are more virtual processors than real ones.
    if cpus > super::CPUS {
        line += " --scenarios-only";
    }
    let job = Job { name: "suite", line, files: &[], count_instructions: false, cpus };
    let outcome = job.run(series, image, &mut |line| match serde_json::from_str::<Scenario>(line) {
        Ok(s) => println!(
            "  {:<5} {} {:6.1} s  {}{}",
            series.name,
            mark(s.passed),
            s.seconds,
            s.scenario,
            reason(&s)
        ),
        Err(_) => println!("  {:<5} {line}", series.name),
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
