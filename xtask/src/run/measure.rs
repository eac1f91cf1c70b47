//! Numbers of a running agent with this host's SBOM: memory, and the time from an exec to its finding at a client.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::agent::Agent;
use super::{Place, configure, host};
use crate::bench::Number;
use crate::{paths, shell};

const EXECS: usize = 300;

/// Starts an agent on this host and measures.
pub(crate) fn measure() -> anyhow::Result<Vec<Number>> {
    let place = Place::make()?;
    let image = host::attest(&place)?;
    let config = configure(&place, &image)?;
    let program = place.file("latency");
    fs::copy(paths::release("tool"), &program)?;
    super::demo::append(&program)?;
    let mut agent = Agent::start(&place, &config)?;
    let resident = resident(agent.pid())?;
    let mut took = Vec::with_capacity(EXECS);
    for _ in 0..EXECS {
        let begin = Instant::now();
        shell::quiet(shell::command(&program, ["exit"]).stdin(Stdio::null()))?;
        loop {
            let finding = agent.next(Duration::from_secs(10))?;
            let finding = finding.context("the finding of an exec did not come within 10 s")?;
            if finding.kind == "exec" && Path::new(&finding.path) == program {
                break;
            }
        }
        took.push(begin.elapsed());
    }
    agent.stop()?;
    fs::remove_file(&program)?;
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    Ok(vec![
        Number { at_most: Some(60.0), ..Number::new("resident memory with the host's SBOM", resident, "MB") },
        Number::new("exec to client, run of the program included, p50", at(50), "ms"),
        Number::new("exec to client, run of the program included, p99", at(99), "ms"),
    ])
}

/// Resident memory, MB.
fn resident(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS in /proc/PID/status")?;
    let mut words = line.split_whitespace();
    let (number, unit) = (words.next().context("VmRSS has no number")?, words.next());
    ensure!(unit == Some("kB"), "expected VmRSS in kB, found {line:?}");
    Ok(number.parse::<f64>().with_context(|| format!("VmRSS: {number:?}"))? * 1024.0 / 1e6)
}
