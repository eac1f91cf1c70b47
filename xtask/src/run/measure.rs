//! Numbers of a running agent with this host's SBOM: memory, and the time from an exec to its finding at a client.

use std::ffi::OsString;
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

/// So often is the work done that is recorded.
const ROUNDS: usize = 50;
/// Shells, pipes, libraries and an interpreter, and a program that the SBOM does not have.
const WORK: &str = "ls /usr/bin | sort | head -n 3 | grep -c . >/dev/null; for n in 1 2 3 4 5; do cat /etc/os-release | sed -n 1p >/dev/null; \
    date >/dev/null; env true; done; python3 -c 'import json'; \"$1\" exit";

/// Starts an agent on this host and measures.
pub(crate) fn measure() -> anyhow::Result<Vec<Number>> {
    let place = Place::make()?;
    let image = host::attest(&place)?;
    let config = configure(&place, &image)?;
    let program = place.file("latency");
    fs::copy(paths::release("tool"), &program)?;
    super::demo::append(&program)?;
    let mut agent = Agent::start(&place, &config, None)?;
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

/// Records what an agent sees of this host at work: programs of the host, started by the hundred, and one that is not its.
/// Gives the arguments by which `bench_pipeline` judges the recording.
pub(crate) fn record() -> anyhow::Result<[OsString; 6]> {
    let place = Place::make()?;
    let image = host::attest(&place)?;
    let config = configure(&place, &image)?;
    let recording = place.file("bench.recording");
    if recording.exists() {
        fs::remove_file(&recording)?;
    }
    let unknown = place.file("unknown");
    fs::copy(paths::release("tool"), &unknown)?;
    super::demo::append(&unknown)?;
    let agent = Agent::start(&place, &config, Some(&recording))?;
    for _ in 0..ROUNDS {
        let mut work = shell::command("sh", ["-c", WORK, "sh"]);
        shell::quiet(work.arg(&unknown).stdin(Stdio::null()))?;
    }
    agent.stop()?;
    fs::remove_file(&unknown)?;
    let (attestations, key) = (place.attestations(), place.file("key.pub"));
    Ok([
        "--recording".into(),
        recording.into(),
        "--attestations".into(),
        attestations.into(),
        "--key".into(),
        key.into(),
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
