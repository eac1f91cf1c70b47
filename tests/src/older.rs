//! What is older than the agent, and hosts with hierarchies of cgroup v1. Each needs an agent of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use muster_proto::v1::{self, Kind::*, Severity, Verdict::*};

use crate::agent::{Agent, PATIENCE};
use crate::expect::{Difference, Expect};
use crate::life::Setting;
use crate::scenarios::identity::{Given, in_cgroup};
use crate::world::{self, CONTAINER, run};

/// Fixtures of the suite's world.
const DISK: &str = "/opt/fixtures";
/// What the agent logs when it has judged what ran before it.
const JUDGED: &str = "what ran before the agent started is judged";

/// The suite's own program: it is in no SBOM, and runs before every agent.
pub(crate) fn suite() -> Expect {
    let says = "it was running before the agent started";
    Expect::new(Exec, Unauthorized, "/muster/suite").severity(Severity::Critical).says(says)
}

/// A program that is in no SBOM and a library that is in none run before the agent starts. Each is told once by every agent, and what they
/// do later carries the verdict. Attested ones are silent.
pub(crate) fn told_once_per_start(setting: &Setting) -> anyhow::Result<()> {
    let (tool, library) = (fixture("tool"), fixture("libunknown.so"));
    let mut waits = waiting(Command::new(&tool).arg("wait"))?;
    let mut attested = waiting(Command::new("/bin/bash").args(["-c", "echo ready; read x"]))?;
    let mut connects = waiting(
        Command::new("/bin/bash")
            .args(["-c", "echo ready; read x; exec 3<>/dev/tcp/127.0.0.1/4099; read x"])
            .env("LD_PRELOAD", &library),
    )?;
    let before = [
        suite(),
        Expect::new(Exec, Unauthorized, tool.display().to_string())
            .sha256(world::sha256(&tool)?)
            .severity(Severity::Critical)
            .says("it was running before the agent started"),
        Expect::new(Library, Unauthorized, library.display().to_string())
            .sha256(world::sha256(&library)?)
            .severity(Severity::Critical)
            .says("it was running before the agent started"),
    ];
    Watched::start(setting, "older")?.judged(&before)?.agent.kill()?;
    let mut again = Watched::start(setting, "older-again")?.judged(&before)?;
    connects.stdin.as_mut().context("a pipe")?.write_all(b"go\n")?;
    std::thread::sleep(Duration::from_millis(500));
    let connect = Expect::new(Connect, Unauthorized, library.display().to_string())
        .severity(Severity::Critical)
        .connect("tcp", "127.0.0.1:4099");
    again.must_tell(&[connect])?;
    again.agent.stop()?;
    for child in [&mut waits, &mut attested, &mut connects] {
        drop(child.stdin.take());
        child.wait()?;
    }
    Ok(())
}

/// Files of the SBOM are open for write when the agent starts: by descriptors, by a mapping, and one is a library that runs meanwhile.
pub(crate) fn open_for_write(setting: &Setting) -> anyhow::Result<()> {
    let data = |name: &str| Path::new(world::DATA).join(name);
    let (changed, closed, by_exit, mapped) =
        (data("Age/V100.pl"), data("Age/V110.pl"), data("Age/V120.pl"), data("Age/V130.pl"));
    let library = fs::canonicalize("/usr/lib/x86_64-linux-gnu/libz.so.1")?;
    let append = |file: &Path| fs::OpenOptions::new().append(true).open(file);
    let (mut first, mut second, third) = (append(&changed)?, append(&closed)?, append(&library)?);
    first.write_all(b"#")?;
    let script = format!("exec 9>>{}; echo ready; read x; echo >&9", by_exit.display());
    let mut exits = waiting(Command::new("/bin/sh").args(["-c", &script]))?;
    // The descriptor is closed: only the mapping is left.
    let script = "import mmap, sys; f = open(sys.argv[1], 'r+b'); m = mmap.mmap(f.fileno(), 0); f.close(); \
                  print('ready', flush=True); sys.stdin.readline(); m[0] = 35 ^ m[0]";
    let mut maps = waiting(Command::new("/usr/bin/python3").args(["-ISc", script]).arg(&mapped))?;
    let mut loads =
        waiting(Command::new("/bin/bash").args(["-c", "echo ready; read x"]).env("LD_PRELOAD", &library))?;

    let busy = || {
        Expect::new(Library, Undetermined, library.display().to_string())
            .says("somebody had it open for write")
    };
    let modified = |file: &Path, operation| -> anyhow::Result<Expect> {
        let expect = Expect::new(File, Modified, file.display().to_string()).severity(Severity::High);
        Ok(expect.operation(operation).sha256(world::sha256(file)?))
    };
    let before = [
        suite(),
        busy().says("it was running before the agent started"),
        modified(&changed, "open_write")?.says("it has been open for write since before the agent started"),
    ];
    let mut watched = Watched::start(setting, "open")?.judged(&before)?;
    run(Command::new("/usr/bin/true").env("LD_PRELOAD", &library))?;
    watched.must_tell(&[busy()])?;
    second.write_all(b"#")?;
    drop((first, second, third));
    for child in [&mut exits, &mut maps, &mut loads] {
        child.stdin.take().context("a pipe")?.write_all(b"go\n")?;
        child.wait()?;
    }
    let by_children = [modified(&by_exit, "close_write")?, modified(&mapped, "close_write")?];
    let by_children = by_children.map(|expect| expect.parent("suite"));
    let by_suite = [modified(&changed, "close_write")?, modified(&closed, "close_write")?];
    watched.must_tell(&[by_children, by_suite].concat())?;
    // Opened again it is judged as anything is.
    world::append(&closed)?;
    watched.must_tell(&[modified(&closed, "close_write")?])?;
    watched.agent.stop()?;
    Ok(())
}

/// On a host that has a v1 hierarchy, a user's cgroup is called like a container; and a real container is one by v1 alone.
pub(crate) fn cgroup_v1(setting: &Setting) -> anyhow::Result<()> {
    let hierarchy = Path::new("/run/muster-test/v1");
    fs::create_dir_all(hierarchy)?;
    run(Command::new("mount").args(["-t", "cgroup", "-o", "none,name=muster", "cgroup"]).arg(hierarchy))?;
    let mut watched = Watched::start(setting, "v1")?.judged(&[suite()])?;
    let tool = fixture("tool");
    for id in ["0123456789abcdef".repeat(4), CONTAINER.to_owned()] {
        let given = Given::new(hierarchy, &id)?;
        run(&mut given.command("/usr/bin/true", &[]))?;
        run(&mut given.command(&tool.display().to_string(), &["exit"]))?;
        watched.must_tell(&[given.expect(&tool)?])?;
    }
    let cgroup = hierarchy.join("docker").join(CONTAINER);
    fs::create_dir_all(cgroup.join("libpod-conmon-x"))?;
    let first = fs::read_to_string(world::CONTAINER_PID)?;
    let inside = ["/usr/bin/nsenter", "--target", &first, "--mount", "--root", "/opt/in-container", "exit"];
    for cgroup in [cgroup.clone(), cgroup.join("libpod-conmon-x")] {
        run(&mut in_cgroup(&cgroup, &inside))?;
        let ran =
            Expect::new(Exec, Unauthorized, "/opt/in-container").workload(format!("docker://{CONTAINER}"));
        watched.must_tell(&[ran])?;
    }
    watched.agent.stop()?;
    run(Command::new("umount").arg(hierarchy))?;
    Ok(())
}

fn fixture(name: &str) -> PathBuf {
    Path::new(DISK).join(name)
}

/// A process that has printed a line and waits.
fn waiting(command: &mut Command) -> anyhow::Result<Child> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    BufReader::new(child.stdout.take().context("a pipe")?).read_line(&mut String::new())?;
    Ok(child)
}

/// An agent, and the marks that separate what it tells.
struct Watched {
    agent: Agent,
    log: PathBuf,
    marks: u32,
}

impl Watched {
    fn start(setting: &Setting, name: &str) -> anyhow::Result<Self> {
        let log = Path::new("/run/muster-test").join(format!("agent-{name}.log"));
        let agent = Agent::from_first(&setting.program, &setting.config, &setting.socket, &log)?;
        Ok(Self { agent, log, marks: 0 })
    }

    /// Waits until what ran before the agent is judged; that must have given just this.
    fn judged(mut self, expected: &[Expect]) -> anyhow::Result<Self> {
        wait_until_judged(&self.log)?;
        self.must_tell(expected)?;
        Ok(self)
    }

    /// All that was told since the last time.
    fn must_tell(&mut self, expected: &[Expect]) -> anyhow::Result<()> {
        self.marks += 1;
        let mark = Path::new("/dev/shm/fixtures").join(format!("older-{}", self.marks));
        world::copy(&fixture("tool"), &mark)?;
        run(Command::new(&mark).arg("exit"))?;
        let path = mark.display().to_string();
        let mut came = self.agent.findings_until(|f: &v1::Finding| f.kind() == Exec && f.path == path)?;
        fs::remove_file(&mark)?;
        came.retain(|f| f.path != path);
        let difference = Difference::of(expected, &came);
        ensure!(difference.is_empty(), "the findings differ:{difference}");
        Ok(())
    }
}

/// Waits until the agent that writes this log has judged what ran before it.
///
/// # Errors
/// It has not within [`PATIENCE`].
pub fn wait_until_judged(log: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !fs::read_to_string(log)?.contains(JUDGED) {
        ensure!(Instant::now() < deadline, "the log does not say {JUDGED:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
