//! Files of a network file system: whoever runs one waits for its server, and for nobody who reads all of it.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use muster_proto::v1::{Flavour, Kind::*, Severity, Verdict::*};

use super::content::counted;
use super::file::by_suite;
use super::{Scenario, Stage, found};
use crate::agent::PATIENCE;
use crate::expect::Expect;
use crate::world::{self, run};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![Scenario {
        name: "content: files of a network file system are read by the agent and not by the kernel",
        run: left_to_agent,
        may_lose: &[],
    }]
}

/// A directory of this machine, mounted from a server on it. It is unmounted and the server is ended in every case.
struct Mounted {
    point: PathBuf,
    server: Child,
}

impl Mounted {
    fn make(stage: &Stage) -> anyhow::Result<Self> {
        let point = stage.world.disk.join("network");
        std::fs::create_dir_all(&point)?;
        let mut server = Command::new(&stage.world.tool);
        server.arg("nfs").arg(stage.world.exported()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut mounted = Self { point, server: server.spawn()? };
        let mut port = String::new();
        BufReader::new(mounted.server.stdout.as_mut().context("a pipe")?).read_line(&mut port)?;
        let port = port.trim();
        // nfs(5), but for what only its helper program knows: `-i` leaves that out, so the address is said as well. `soft`: what is not
        // answered fails after some time (`timeo` is in tenths of a second).
        let options = format!(
            "ro,vers=3,proto=tcp,nolock,noacl,soft,timeo=100,retrans=2,addr=127.0.0.1,port={port},\
             mountproto=tcp,mountaddr=127.0.0.1,mountport={port}"
        );
        let mut mount = Command::new("mount");
        run(mount.args(["-i", "-t", "nfs", "-o", &options, "127.0.0.1:/"]).arg(&mounted.point))?;
        Ok(mounted)
    }

    fn end(mut self) -> anyhow::Result<()> {
        run(Command::new("umount").arg("-i").arg(&self.point))?;
        drop(self.server.stdin.take());
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.server.try_wait()? {
                ensure!(status.success(), "the server ended with {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        anyhow::bail!("the server did not end within {PATIENCE:?}")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if matches!(self.server.try_wait(), Ok(Some(status)) if status.success()) {
            return;
        }
        let _unmounted = run(Command::new("umount").args(["-i", "-f", "-l"]).arg(&self.point));
        let _killed = self.server.kill();
        let _ended = self.server.wait();
    }
}

/// It makes no difference how small they are. What the agent keeps of one does not outlive its change on the server.
fn left_to_agent(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    const LEFT: &str = "muster_digest_left_to_agent_total{reason=\"remote\"}";
    let hashes = stage.agent.status()?.flavour() != Flavour::Tracepoint;
    let before = counted(LEFT)?;
    let mounted = Mounted::make(stage)?;
    let [(unknown, served), (copy, original), (library, other)] = ["unknown", "copied-true", "libunknown.so"]
        .map(|name| (mounted.point.join(name), stage.world.exported().join(name)));
    let run_unknown = || run(Command::new(&unknown).arg("exit"));
    // By what is served, and under the name where it is mounted.
    let ran = || -> anyhow::Result<Expect> {
        let told = found(Exec, Unauthorized, &served)?.at(unknown.display().to_string());
        Ok(told.severity(Severity::Critical).parent("suite"))
    };
    run_unknown()?;
    run(&mut Command::new(&copy))?;
    run(Command::new("/usr/bin/true").env("LD_PRELOAD", &library))?;
    // The server itself is on a disk of this machine.
    let by_kernel: &[&str] = if hashes { &["kernel", "kernel_cache"] } else { &["agent", "agent_cache"] };
    let copied = found(Exec, Relocated, &original)?.at(copy.display().to_string());
    let mapped = found(Library, Unauthorized, &other)?.at(library.display().to_string());
    stage.must_tell(&[
        found(Exec, Unauthorized, &stage.world.tool)?.digest_from(by_kernel),
        ran()?.digest_from(&["agent"]),
        copied.severity(Severity::Low).parent("suite").digest_from(&["agent"]),
        mapped.severity(Severity::Critical).parent("suite").digest_from(&["agent"]),
    ])?;
    run_unknown()?;
    stage.must_tell(&[ran()?.digest_from(&["agent_cache"])])?;
    world::append(&served)?;
    let changed = found(File, Unauthorized, &served)?.operation("close_write");
    run_unknown()?;
    stage.must_tell(&[by_suite(changed, Severity::Low)?, vec![ran()?.digest_from(&["agent"])]].concat())?;
    let (left, must) = (counted(LEFT)? - before, if hashes { 5 } else { 0 });
    ensure!(left == must, "{left} files were left to the agent because of their file system, not {must}");
    mounted.end()?;
    Ok(Vec::new())
}
