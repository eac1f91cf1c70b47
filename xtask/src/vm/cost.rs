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
pub(crate) fn measure(series: &Series) -> anyhow::Result<Vec<Cost>> {
    let script = paths::root().join("tests/cost.py");
    let line = "python3 /muster/cost.py".to_owned();
    let job = Job { name: "cost", line, files: &[script], count_instructions: true };
    let outcome = job.run(series, &Image::get()?, &mut |_| {})?;
    ensure!(outcome.status == 0, "tests/cost.py ended with {}; {}", outcome.status, tail(&outcome.console)?);
    let mut costs = Vec::new();
    for line in &outcome.lines {
        let value: serde_json::Value =
            serde_json::from_str(line).with_context(|| format!("not JSON: {line:?}"))?;
        match value.get("program") {
            Some(program) => println!("  kernel program {program}"),
            None => {
                costs.push(serde_json::from_value(value).with_context(|| format!("not a cost: {line:?}"))?);
            }
        }
    }
    Ok(costs)
}
