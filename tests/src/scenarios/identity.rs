//! Who a workload is: what cgroups are called, who called them so, and what a runtime does in its container's cgroup.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;
use muster_proto::v1::{Kind::*, Severity, Verdict::*};

use super::{Scenario, Stage, found};
use crate::expect::Expect;
use crate::world::{self, CONTAINER, run};

/// The id of a container that nobody knows.
const UNKNOWN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// A user who is not root.
const USER: u32 = 1000;

pub(super) fn scenarios() -> Vec<Scenario> {
    let seen = |name, run| Scenario { name, run, may_lose: &[] };
    vec![
        seen("cgroup of a user that is called like a container", |s| called_like(s, UNKNOWN)),
        seen("cgroup of a user that is called like a configured container", |s| called_like(s, CONTAINER)),
        seen("container with a cgroup that is called like its monitor's", monitor),
        seen("programs of the host at work in a container's cgroup", helper),
        seen("process of the host that enters a container's mounts", entered),
    ]
}

/// A user who was given a cgroup makes one in it.
fn called_like(stage: &mut Stage, id: &str) -> anyhow::Result<Vec<Expect>> {
    let given = Given::new(Path::new("/sys/fs/cgroup"), id)?;
    run(&mut given.command("/usr/bin/true", &[]))?;
    let tool = stage.world.tool.clone();
    run(&mut given.command(&tool.display().to_string(), &["exit"]))?;
    stage.must_tell(&[given.expect(&tool)?])?;
    Ok(Vec::new())
}

fn monitor(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let cgroup = stage.world.cgroup().join("libpod-conmon-x");
    fs::create_dir(&cgroup)?;
    let mut command = stage.world.container_command_in(&cgroup, "/opt/in-container", &["exit"])?;
    run(&mut command)?;
    run(&mut stage.world.container_command_in(&cgroup, "/usr/bin/true", &[])?)?;
    let expected = Expect::new(Exec, Unauthorized, "/opt/in-container")
        .sha256(world::sha256(&stage.world.tool)?)
        .severity(Severity::Critical)
        .workload(format!("docker://{CONTAINER}"));
    stage.must_tell(&[expected])?;
    fs::remove_dir(&cgroup)?;
    Ok(Vec::new())
}

/// A runtime's helper is in the container's cgroup before it is in its root.
fn helper(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let cgroup = stage.world.cgroup();
    run(&mut in_cgroup(&cgroup, &["/usr/bin/true"]))?;
    let tool = stage.world.tool.display().to_string();
    run(&mut in_cgroup(&cgroup, &[&tool, "memfd", &tool, "wait"]))?;
    let at_work = format!("it has the host's mounts and works in the cgroup of docker://{CONTAINER}");
    Ok(vec![
        found(Exec, Unauthorized, &stage.world.tool)?.severity(Severity::Critical).says(at_work.clone()),
        Expect::new(Exec, Unauthorized, "/memfd:unknown").severity(Severity::Critical).says(at_work),
    ])
}

fn entered(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let first = fs::read_to_string(world::CONTAINER_PID)?;
    let enter = |program: &str, args: &[&str]| {
        let mut command = Command::new("/usr/bin/nsenter");
        command.args(["--target", &first, "--mount", "--root", program]).args(args);
        command
    };
    // Whose mounts these are is known since the container did something.
    stage.world.in_container("/usr/bin/true", &[])?;
    run(&mut enter("/usr/bin/true", &[]))?;
    run(&mut enter("/opt/in-container", &["exit"]))?;
    let expected = Expect::new(Exec, Unauthorized, "/opt/in-container")
        .severity(Severity::Critical)
        .workload(format!("docker://{CONTAINER}"));
    Ok(vec![expected])
}

/// A cgroup that was given to a user, and one in it that the user made and called like a container.
pub(crate) struct Given {
    given: PathBuf,
    cgroup: PathBuf,
    id: String,
}

impl Given {
    /// In the hierarchy that is mounted there.
    ///
    /// # Errors
    /// It could not be made.
    pub(crate) fn new(hierarchy: &Path, id: &str) -> anyhow::Result<Self> {
        let given = hierarchy.join("given");
        let cgroup = given.join(format!("docker-{id}.scope"));
        fs::create_dir(&given).with_context(|| given.display().to_string())?;
        std::os::unix::fs::chown(&given, Some(USER), Some(USER))?;
        run(Command::new("/usr/bin/setpriv")
            .args([format!("--reuid={USER}"), format!("--regid={USER}")])
            .args(["--clear-groups", "/bin/mkdir"])
            .arg(&cgroup))?;
        Ok(Self { given, cgroup, id: id.to_owned() })
    }

    /// The command with which the user runs a program in it.
    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        let (user, group) = (format!("--reuid={USER}"), format!("--regid={USER}"));
        let become_user = ["/usr/bin/setpriv", &user, &group, "--clear-groups", program];
        in_cgroup(&self.cgroup, &[&become_user[..], args].concat())
    }

    /// What must be said of an unknown program that ran so.
    ///
    /// # Errors
    /// The program cannot be read.
    pub(crate) fn expect(&self, program: &Path) -> anyhow::Result<Expect> {
        let claim = format!("its cgroup is called like docker://{}, which is not believed: /given", self.id);
        Ok(found(Exec, Unauthorized, program)?.severity(Severity::High).says(claim))
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        for directory in [&self.cgroup, &self.given] {
            if let Err(error) = fs::remove_dir(directory) {
                eprintln!("{} stays: {error}", directory.display());
            }
        }
    }
}

/// The command that runs something in a cgroup.
pub(crate) fn in_cgroup(cgroup: &Path, what: &[&str]) -> Command {
    let mut command = Command::new("/bin/sh");
    let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", cgroup.display());
    command.args(["-c", &script, "sh"]).args(what).stdin(std::process::Stdio::null());
    command
}
