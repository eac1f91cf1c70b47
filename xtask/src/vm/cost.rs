//! What the sensor costs, in a machine whose clock counts instructions: repeatable, whatever this host's load.

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use super::debian::Job;
use super::image::Image;
use super::qemu::tail;
use crate::paths;
use crate::setup::kernels::Series;

/// One operation, nanoseconds of processor time (one per instruction).
#[derive(Debug, Deserialize)]
pub(crate) struct Cost {
    /// `exec`, `write-open`, `connect`.
    pub(crate) operation: String,
    before: f64,
    during: f64,
    after: f64,
    /// In all kernel programs together, by the kernel's own statistics.
    pub(crate) kernel: f64,
}

/// One kernel program, by the kernel's own statistics.
#[derive(Debug, Deserialize)]
pub(crate) struct Program {
    /// Its name, cut at 15 bytes as the kernel keeps it.
    pub(crate) program: String,
    /// Nanoseconds.
    pub(crate) ns_per_run: f64,
}

/// What was measured on one kernel.
#[derive(Debug, Default)]
pub(crate) struct Costs {
    pub(crate) operations: Vec<Cost>,
    pub(crate) programs: Vec<Program>,
}

impl Cost {
    /// Without the sensor.
    pub(crate) fn bare(&self) -> f64 {
        f64::midpoint(self.before, self.after)
    }

    /// What the sensor adds.
    pub(crate) fn added(&self) -> f64 {
        self.during - self.bare()
    }
}

/// Measures on one kernel.
pub(crate) fn measure(series: &Series) -> anyhow::Result<Costs> {
    let script = paths::root().join("tests/cost.py");
    let line = "python3 /muster/cost.py".to_owned();
    let job = Job { name: "cost", line, files: &[script], count_instructions: true, cpus: 1 };
    let outcome = job.run(series, &Image::get()?, &mut |_| {})?;
    ensure!(outcome.status == 0, "tests/cost.py ended with {}; {}", outcome.status, tail(&outcome.console)?);
    let mut costs = Costs::default();
    for line in &outcome.lines {
        let what = || format!("not a cost: {line:?}");
        if line.contains("\"operation\"") {
            costs.operations.push(serde_json::from_str(line).with_context(what)?);
        } else {
            costs.programs.push(serde_json::from_str(line).with_context(what)?);
        }
    }
    ensure!(!costs.operations.is_empty() && !costs.programs.is_empty(), "tests/cost.py measured nothing");
    Ok(costs)
}
