//! Bursts and floods: what is made equals what is delivered plus what is counted as lost. And a clean run.

use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use muster_proto::v1::{self, Kind, Severity};

use super::{Scenario, Stage, found};
use crate::agent::PATIENCE;
use crate::expect::{Expect, describe};
use crate::world::{AGENT_LOG, run};

pub(super) fn scenarios() -> Vec<Scenario> {
    let seen = |name, run| Scenario { name, run, may_lose: &[] };
    vec![
        seen("clean run of the image's programs", clean_run),
        Scenario { name: "write flood costs no exec", run: flood, may_lose: &[Kind::File] },
    ]
}

/// What the kernel has no part in.
pub(super) fn of_the_agent() -> Vec<Scenario> {
    vec![
        Scenario {
            name: "burst of 10,000 execs",
            run: burst,
            may_lose: &[Kind::Exec, Kind::Library, Kind::Fork, Kind::Exit],
        },
        Scenario {
            name: "reload keeps the old configuration if the new one is bad",
            run: reload,
            may_lose: &[],
        },
    ]
}

/// What all scenarios before it left in memory.
pub(super) fn memory() -> Scenario {
    Scenario { name: "resident memory after all of this", run: resident, may_lose: &[] }
}

/// Counters of one kind; `submitted` and `lost` are the kernel programs' own.
pub(super) fn counters(stage: &mut Stage, kind: Kind) -> anyhow::Result<v1::KindCounters> {
    let status = stage.agent.status()?;
    status.kinds.into_iter().find(|k| k.kind() == kind).with_context(|| format!("no counters for {kind:?}"))
}

fn burst(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    const COUNT: u64 = 10_000;
    let before = counters(stage, Kind::Exec)?;
    let tiny = stage.world.disk.join("tiny").display().to_string();
    stage.world.run_tool(&["execs", &COUNT.to_string(), &tiny])?;
    let after = settled(stage, Kind::Exec)?;
    let lost = after.lost - before.lost;
    let delivered = after.submitted - before.submitted;
    // And the tool itself.
    ensure!(delivered + lost == COUNT + 1, "{delivered} execs delivered and {lost} lost, {} made", COUNT + 1);
    // Each that was delivered is a finding of its own.
    let came = stage.settle()?;
    let found = |path: &str| came.iter().filter(|f| f.kind() == Kind::Exec && f.path == path).count() as u64;
    let tool = found(&stage.world.tool.display().to_string());
    let others: Vec<_> = came.iter().filter(|f| f.path != tiny).map(describe).collect();
    ensure!(found(&tiny) + tool == delivered, "{} findings of {delivered} execs", found(&tiny) + tool);
    ensure!(others.len() as u64 == tool, "other findings:\n{}", others.join("\n"));
    Ok(Vec::new())
}

fn flood(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    const EXECS: u64 = 200;
    let before = counters(stage, Kind::Exec)?;
    let flood = stage.world.disk.join("flood");
    let mut writer =
        Command::new(&stage.world.tool).args(["writes", "6000"]).arg(&flood).stdout(Stdio::null()).spawn()?;
    stage.world.run_tool(&["execs", &EXECS.to_string(), "/usr/bin/true"])?;
    ensure!(writer.wait()?.success(), "the writer failed");
    let after = settled(stage, Kind::Exec)?;
    ensure!(after.lost == before.lost, "{} execs lost in a flood of writes", after.lost - before.lost);
    let made = after.submitted - before.submitted;
    ensure!(made == EXECS + 2, "{made} execs delivered, {} made", EXECS + 2);
    let tool = stage.world.tool.clone();
    Ok(vec![
        found(Kind::Exec, v1::Verdict::Unauthorized, &tool)?,
        found(Kind::Exec, v1::Verdict::Unauthorized, &tool)?,
    ])
}

/// Waits until the agent received what the kernel programs submitted.
fn settled(stage: &mut Stage, kind: Kind) -> anyhow::Result<v1::KindCounters> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let now = counters(stage, kind)?;
        if now.received == now.submitted {
            return Ok(now);
        }
        ensure!(
            std::time::Instant::now() < deadline,
            "received {} of {} records",
            now.received,
            now.submitted
        );
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

/// Shell, coreutils, python3, nginx serving a page: no finding above info.
fn clean_run(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    run(Command::new("/bin/sh").args([
        "-c",
        "ls -l / | sort | head -3 | cat; date; id; uname -a; cp /etc/passwd /tmp/p; rm /tmp/p",
    ]))?;
    run(Command::new("/bin/bash")
        .args(["-c", "for i in 1 2 3; do echo $i | grep -q $i; done; find /etc -name passwd"]))?;
    run(Command::new("/usr/bin/python3")
        .args(["-c", "import json,hashlib,ssl,sqlite3,socket; print(json.dumps([1]))"]))?;
    run(&mut Command::new("/usr/sbin/nginx"))?;
    let page = run(Command::new("/usr/bin/python3")
        .args(["-c", "import urllib.request as u; print(u.urlopen('http://127.0.0.1:80/').status)"]));
    let server = std::fs::read_to_string("/run/nginx.pid")?;
    run(Command::new("/usr/sbin/nginx").args(["-s", "stop"]))?;
    has_ended(server.trim())?;
    ensure!(page?.stdout.starts_with(b"200"), "nginx did not serve the page");
    let came = stage.settle()?;
    let loud: Vec<_> = came.iter().filter(|f| f.severity() > Severity::Info).map(describe).collect();
    ensure!(loud.is_empty(), "findings above info:\n{}", loud.join("\n"));
    Ok(Vec::new())
}

/// Waits until a process has closed all that it had open: the signal that ends it does not wait.
fn has_ended(pid: &str) -> anyhow::Result<()> {
    let deadline = std::time::Instant::now() + PATIENCE;
    // A zombie has closed its files (do_exit() calls exit_files() before exit_notify()).
    while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
        ensure!(std::time::Instant::now() < deadline, "process {pid} does not end");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}

/// SIGHUP with a bad file changes nothing and says where it is bad; with a good one again it is taken.
fn reload(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let config = stage.world.config.clone();
    let good = std::fs::read_to_string(&config)?;
    let logged = |text: &str| -> anyhow::Result<()> {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !std::fs::read_to_string(AGENT_LOG)?.contains(text) {
            ensure!(std::time::Instant::now() < deadline, "the agent's log does not say {text:?}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        Ok(())
    };
    std::fs::write(&config, format!("{good}\n[nonsense]\nkey = 1\n"))?;
    stage.agent.reload()?;
    let result = logged("unknown field `nonsense`");
    std::fs::write(&config, &good)?;
    result?;
    let status = stage.agent.status()?;
    ensure!(status.images.iter().any(|i| i.state == "verified"), "no image is verified after the bad reload");
    stage.agent.reload()?;
    logged("the new configuration is in use")?;
    stage.world.run_tool(&["exit"])?;
    Ok(vec![found(Kind::Exec, v1::Verdict::Unauthorized, &stage.world.tool)?])
}

/// Resident memory of the agent at most, bytes. `VmRSS` counts each page of a ring twice, for it is mapped twice: 15 MB of 7.5 MB.
const RESIDENT: u64 = 60_000_000;

/// Nothing of what the scenarios before this one did is kept for ever. What a burst took is given back within seconds.
fn resident(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let bytes = |line| stage.agent.memory(line);
        let (resident, own, files) = (bytes("VmRSS")?, bytes("RssAnon")?, bytes("RssFile")?);
        if resident <= RESIDENT {
            eprintln!("resident memory: {resident} bytes, of them {own} its own and {files} of files");
            return Ok(Vec::new());
        }
        ensure!(
            std::time::Instant::now() < deadline,
            "the agent has {resident} bytes resident, of them {own} its own and {files} of files; expected at most {RESIDENT}"
        );
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
}
