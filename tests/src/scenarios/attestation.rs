//! An attestation that goes and comes back: what was verified stays judged by it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use muster_proto::v1::{Severity, Verdict};

use super::{Scenario, Stage};
use crate::agent::{Agent, PATIENCE};
use crate::expect::{Expect, describe};
use crate::life::Setting;
use crate::world::{ATTESTATIONS, run};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario { name: "the attestation moved away and back", run: moved_away, may_lose: &[] }]
}

/// Where the attestations are while they are away.
const AWAY: &str = "/opt/fixtures/attestations-away";

/// Does something while the attestations are not there; they are back in any case.
fn while_away<T>(what: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    fs::rename(ATTESTATIONS, AWAY).context("moving the attestations away")?;
    let done = what();
    fs::rename(AWAY, ATTESTATIONS).context("moving the attestations back")?;
    done
}

/// Waits until some image is in this state.
fn wait_for(agent: &mut Agent, state: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = agent.status()?;
        if status.images.iter().any(|image| image.state == state) {
            ensure!(
                status.degraded.is_empty() == (state == "verified"),
                "{state}, but {:?}",
                status.degraded
            );
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no image is {state}: {:?}", status.images);
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn moved_away(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let tool = stage.world.tool.clone();
    while_away(|| {
        wait_for(&mut stage.agent, "lost")?;
        run(&mut Command::new("/usr/bin/true"))?;
        run(Command::new(&tool).arg("exit"))?;
        Ok(())
    })?;
    wait_for(&mut stage.agent, "verified")?;
    run(Command::new(&tool).arg("exit"))?;
    let came = stage.settle()?;
    let found: Vec<_> = came.iter().map(|f| (f.verdict(), f.severity(), f.path.as_str())).collect();
    let unknown = (Verdict::Unauthorized, Severity::Critical, tool.to_str().context("its path is text")?);
    let expected =
        [(Verdict::NoSbom, Severity::High, ""), unknown, (Verdict::Attested, Severity::Info, ""), unknown];
    ensure!(found == expected, "found:\n{}", came.iter().map(describe).collect::<Vec<_>>().join("\n"));
    ensure!(came[0].reason.contains("attestation.retired"), "it does not say what to do: {}", came[0].reason);
    Ok(Vec::new())
}

/// The attestation is away when the agent starts.
///
/// # Errors
/// What ran then was not judged, or the loss was not told.
pub fn restarted(setting: &Setting) -> anyhow::Result<()> {
    let Setting { program, config, socket, .. } = setting;
    let log = Path::new("/run/muster-test/agent-after-loss.log");
    // The suite's agent has verified them.
    let list = Path::new("/var/lib/muster/verified/subjects");
    ensure!(fs::metadata(list).is_ok_and(|meta| meta.len() > 0), "{} is not there", list.display());
    let tool = Path::new("/opt/fixtures/tool");
    while_away(|| {
        let mut agent = Agent::start(program, config, socket, log)?;
        run(Command::new(tool).arg("exit"))?;
        let path = tool.display().to_string();
        let came = agent.findings_until(|f| f.path == path && f.verdict() == Verdict::Unauthorized)?;
        let told =
            came.iter().filter(|f| f.verdict() == Verdict::NoSbom && f.severity() == Severity::High).count();
        ensure!(
            told == 1,
            "the loss was told {told} times:\n{}",
            came.iter().map(describe).collect::<Vec<_>>().join("\n")
        );
        wait_for(&mut agent, "lost")?;
        agent.stop()?;
        Ok(())
    })
}
