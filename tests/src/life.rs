//! How the agent starts, says what is missing, reports to systemd, and ends.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use muster_proto::v1::Flavour;

use crate::agent::{Agent, PATIENCE};
use crate::older;
use crate::scenarios::{Differs, Stage};
use crate::world::{FINDINGS, run};

/// Longest time from SIGTERM to the agent's end: `TimeoutStopSec` of `deploy/systemd/muster.service`. Most of it is the kernel's, which
/// waits for each program that it detaches; an emulated one takes seconds.
const END: Duration = Duration::from_secs(10);

/// What each of these needs. No agent runs.
pub struct Setting {
    /// The agent's program.
    pub program: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// Its socket.
    pub socket: PathBuf,
    /// The flavour that it chooses on this kernel.
    pub flavour: Flavour,
}

/// One of these; an error says what was not as it must be.
pub type Run = fn(&Setting) -> anyhow::Result<()>;

/// All of them but [`ends`], in the order in which they run.
pub fn all() -> [(Differs, &'static str, Run); 9] {
    use Differs::{Flavour, Nowhere};
    [
        (Nowhere, "SIGKILL leaves nothing", killed),
        (Nowhere, "what was verified is known after a restart", crate::scenarios::attestation::restarted),
        (Nowhere, "systemd is told of start, reload and end", notifies),
        (Flavour, "missing privilege is explained", unprivileged),
        (Flavour, "missing BTF is explained", without_btf),
        (Nowhere, "the tracepoint flavour is chosen without LSM hooks, and why", without_lsm),
        (Flavour, "what is older than the agent is told once per start", older::told_once_per_start),
        (Flavour, "what was open for write before the agent started", older::open_for_write),
        (Flavour, "cgroups called like containers on a host with cgroup v1", older::cgroup_v1),
    ]
}

/// What happened just before SIGTERM is judged and written.
///
/// # Errors
/// It was not, or the end took too long.
pub fn ends(stage: Stage) -> anyhow::Result<()> {
    let last = stage.world.disk.join("last");
    run(Command::new(&last).arg("exit"))?;
    let took = stage.agent.stop()?;
    let mut found = 0;
    for line in fs::read_to_string(FINDINGS).context(FINDINGS)?.lines() {
        let finding: serde_json::Value =
            serde_json::from_str(line).with_context(|| format!("not a finding: {line}"))?;
        let is = |key: &str, value: &str| finding[key] == value;
        found += u32::from(
            is("path", &last.display().to_string()) && is("kind", "exec") && is("verdict", "unauthorized"),
        );
    }
    ensure!(found == 1, "{found} findings of the program that ran just before SIGTERM");
    ensure!(took < END, "the end took {took:?}");
    Ok(())
}

fn log(name: &str) -> PathBuf {
    Path::new("/run/muster-test").join(format!("agent-{name}.log"))
}

fn killed(setting: &Setting) -> anyhow::Result<()> {
    let Setting { program, config, socket, .. } = setting;
    let before = programs()?;
    let agent = Agent::start(program, config, socket, &log("killed"))?;
    ensure!(programs()? > before, "the agent loaded no kernel program");
    agent.kill()?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while programs()? > before {
        ensure!(Instant::now() < deadline, "kernel programs are left behind");
        std::thread::sleep(Duration::from_millis(100));
    }
    // The next agent starts over it.
    ensure!(socket.exists(), "SIGKILL left no socket behind, so the next start proves nothing");
    Ok(())
}

/// The protocol of sd_notify(3).
fn notifies(setting: &Setting) -> anyhow::Result<()> {
    let path = Path::new("/run/muster-test/notify.sock");
    let socket = UnixDatagram::bind(path).with_context(|| path.display().to_string())?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let next = |expected: &[&str]| -> anyhow::Result<()> {
        let mut buffer = [0; 4096];
        let length = socket.recv(&mut buffer).with_context(|| format!("waiting for {expected:?}"))?;
        let told = String::from_utf8_lossy(&buffer[..length]);
        let starts = |start: &&str| told.lines().any(|line| line.starts_with(start));
        ensure!(expected.iter().all(starts), "expected {expected:?}, found {told:?}");
        Ok(())
    };
    let mut command = Command::new(&setting.program);
    command.args(["agent", "--config"]).arg(&setting.config).env("NOTIFY_SOCKET", path);
    let agent = Agent::spawn(command, &setting.socket, &log("notifies"))?;
    next(&["READY=1", "STATUS=watching with "])?;
    agent.reload()?;
    next(&["RELOADING=1", "MONOTONIC_USEC="])?;
    next(&["READY=1"])?;
    agent.stop()?;
    next(&["STOPPING=1"])
}

/// Without privilege the agent ends at once and names what it needs.
fn unprivileged(setting: &Setting) -> anyhow::Result<()> {
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.arg(&setting.program).args(["agent", "--config"]).arg(&setting.config);
    refuses(&mut command, &["CAP_BPF", "setcap"])
}

/// Without the kernel's type information the agent ends at once and names what gives it.
fn without_btf(setting: &Setting) -> anyhow::Result<()> {
    let hide = "mount -t tmpfs tmpfs /sys/kernel/btf";
    refuses(&mut hidden(hide, setting), &["/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF"])
}

/// Where LSM programs would attach and never fire, or cannot be, the agent takes the tracepoint flavour and says why.
fn without_lsm(setting: &Setting) -> anyhow::Result<()> {
    let list = Path::new("/run/muster-test/lsm");
    fs::write(list, "lockdown,capability,apparmor\n")?;
    let (hide, reason) = if setting.flavour == Flavour::Lsm {
        (
            format!("mount --bind {} /sys/kernel/security/lsm", list.display()),
            "`bpf` is not among the active security modules (lockdown,capability,apparmor); boot with \
             `lsm=lockdown,apparmor,bpf`",
        )
    } else {
        ("true".to_owned(), "the lsm flavour needs 5.12 or newer")
    };
    let log = log("without-lsm");
    let mut agent = Agent::spawn(hidden(&hide, setting), &setting.socket, &log)?;
    let flavour = agent.status()?.flavour();
    agent.stop()?;
    ensure!(flavour == Flavour::Tracepoint, "the agent chose {flavour:?}");
    let said = fs::read_to_string(&log)?;
    ensure!(said.contains(reason), "it does not say {reason:?}: {said}");
    Ok(())
}

/// The agent in a mount namespace of its own, in which this was done.
fn hidden(by: &str, setting: &Setting) -> Command {
    let mut command = Command::new("/usr/bin/unshare");
    let script = format!("{by} && exec \"$@\"");
    command.args(["--mount", "/bin/sh", "-c", &script, "sh"]);
    command.arg(&setting.program).args(["agent", "--config"]).arg(&setting.config);
    command
}

/// The agent ends with an error that has these words.
fn refuses(command: &mut Command, words: &[&str]) -> anyhow::Result<()> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "it runs: {command:?}");
    for word in words {
        ensure!(said.contains(word), "it does not say {word:?}: {said}");
    }
    Ok(())
}

/// Number of kernel programs loaded on this machine.
fn programs() -> anyhow::Result<usize> {
    let mut count = 0;
    for program in aya::programs::loaded_programs() {
        program?;
        count += 1;
    }
    Ok(count)
}
