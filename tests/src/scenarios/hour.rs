//! A new user's first hour on a host with its SBOM: what people do all day is no storm. Of the tools that are not in the image under test
//! the suite does to files what they do.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use muster_proto::v1::{self, Kind::*, Severity, Verdict::*};

use super::{Scenario, Stage, found};
use crate::expect::{Difference, Expect, describe};
use crate::world::{self, run};

mod system;

/// Longer than what counts as just before an exec.
const LATER: Duration = Duration::from_millis(500);

pub(super) fn scenarios() -> Vec<Scenario> {
    let by_hand = Scenario {
        name: "a new user's hour: a build, a clone, a virtual environment, a tarball",
        run: hour,
        may_lose: &[],
    };
    [vec![by_hand], system::scenarios()].concat()
}

fn hour(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let home = stage.world.disk.join("hour");
    let program = fs::read(&stage.world.tool)?;
    let mut expected = Vec::new();
    expected.extend(build(&home.join("hello"), &program)?);
    expected.extend(clone(&home.join("cloned"))?);
    expected.extend(environment(&home.join("venv"), &stage.world.disk.join("libunknown.so"))?);
    expected.extend(tarball(&home.join("node_modules"))?);
    let came = stage.settle()?;
    check("by hand", &came, &expected, &[(Severity::Low, 9), (Severity::Critical, 4)])?;
    story(&came, &home.join("hello/target/debug/deps/hello-0123"))?;
    Ok(Vec::new())
}

/// These findings must have come, so many of each severity, and nothing above low but of programs that ran and of files of the SBOM that
/// changed.
fn check(
    what: &str,
    came: &[v1::Finding],
    expected: &[Expect],
    counts: &[(Severity, usize)],
) -> anyhow::Result<()> {
    let difference = Difference::of(expected, came);
    ensure!(difference.is_empty(), "{what}: the findings differ:{difference}");
    let is_loud = |f: &&v1::Finding| f.severity() > Severity::Low;
    let is_idle = |f: &&v1::Finding| f.kind() == File && f.verdict() != Modified;
    let idle: Vec<_> = came.iter().filter(is_loud).filter(is_idle).map(describe).collect();
    ensure!(idle.is_empty(), "{what}: above low without having run: {idle:#?}");
    let mut found = BTreeMap::new();
    for finding in came {
        *found.entry(finding.severity()).or_insert(0) += 1;
    }
    let found: Vec<_> = found.into_iter().collect();
    ensure!(found == counts, "{what}: by severity: {found:?}");
    Ok(())
}

/// The run of the built program names the finding that saw it made.
fn story(came: &[v1::Finding], built: &Path) -> anyhow::Result<()> {
    let of = |kind| {
        let is = |f: &&v1::Finding| f.kind() == kind && Path::new(&f.path) == built;
        came.iter().find(is).with_context(|| format!("no {kind:?} of {}", built.display()))
    };
    let (made, ran) = (of(File)?, of(Exec)?);
    ensure!(made.since == 0, "the first names {}", made.since);
    ensure!(ran.since == made.sequence, "the run names {}, not {}", ran.since, made.sequence);
    Ok(())
}

/// Writes a file as a compiler or an unpacker does: with its mode from the start.
fn write(file: &Path, content: &[u8], mode: u32) -> anyhow::Result<()> {
    fs::create_dir_all(file.parent().context("a file has a directory")?)?;
    let open = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(file);
    open?.write_all(content).with_context(|| file.display().to_string())
}

/// A new program that was made and has not run.
fn made(file: &Path) -> anyhow::Result<Expect> {
    Ok(found(File, Unauthorized, file)?.operation("close_write").severity(Severity::Low))
}

/// A new program that root ran.
fn ran(file: &Path) -> anyhow::Result<Expect> {
    Ok(found(Exec, Unauthorized, file)?.severity(Severity::Critical))
}

/// An ELF file of this type (elf(5)): 1 is relocatable, 4 a core.
fn elf(kind: u8) -> Vec<u8> {
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend([kind, 0, 62, 0, 1, 0, 0, 0]);
    file.resize(64, 0);
    file
}

/// `cargo build`: objects, a build script that runs, a program and a second name of it, which runs.
fn build(project: &Path, program: &[u8]) -> anyhow::Result<Vec<Expect>> {
    write(&project.join("Cargo.toml"), b"[package]\nname = \"hello\"\n", 0o644)?;
    let debug = project.join("target/debug");
    for n in 0..8 {
        write(&debug.join(format!("deps/hello-0123.{n}.rcgu.o")), &[elf(1), vec![n]].concat(), 0o644)?;
    }
    write(&debug.join("deps/libhello.rmeta"), b"rust", 0o644)?;
    write(&project.join("core"), &elf(4), 0o600)?;
    let script = debug.join("build/hello-4567/build-script-build");
    write(&script, &[program, b"build"].concat(), 0o755)?;
    run(Command::new(&script).arg("exit"))?;
    let built = debug.join("deps/hello-0123");
    write(&built, &[program, b"hello"].concat(), 0o755)?;
    let linked = debug.join("hello");
    fs::hard_link(&built, &linked)?;
    run(Command::new(&built).arg("exit"))?;
    let link = found(File, Unauthorized, &linked)?.operation("link").severity(Severity::Low);
    Ok(vec![made(&script)?, ran(&script)?, made(&built)?, link, ran(&built)?])
}

/// `git clone`: it tries out whether the file system keeps the execute bit, copies sample hooks, and checks scripts out.
fn clone(repository: &Path) -> anyhow::Result<Vec<Expect>> {
    let config = repository.join(".git/config");
    write(&config, b"[core]\n\tfilemode = true\n", 0o644)?;
    for mode in [0o755, 0o644] {
        fs::set_permissions(&config, fs::Permissions::from_mode(mode))?;
    }
    let hooks = repository.join(".git/hooks");
    fs::create_dir_all(&hooks)?;
    for n in 0..14 {
        // The samples are the image's own.
        world::copy(Path::new("/usr/bin/true"), &hooks.join(format!("hook-{n}.sample")))?;
    }
    write(&repository.join(".git/packed-refs"), b"", 0o755)?;
    let configure = repository.join("configure");
    write(&configure, b"#!/bin/sh\n# of the repository\nexit 0\n", 0o755)?;
    Ok(vec![made(&configure)?])
}

/// `python3 -m venv --copies` and `pip install`: the image's interpreter under another name, scripts for it, a native module.
fn environment(venv: &Path, module: &Path) -> anyhow::Result<Vec<Expect>> {
    let python = venv.join("bin/python3");
    write(&venv.join("pyvenv.cfg"), b"home = /usr/bin\n", 0o644)?;
    write(&venv.join("bin/activate"), b"VIRTUAL_ENV=x\n", 0o644)?;
    world::copy(&fs::canonicalize("/usr/bin/python3")?, &python)?;
    // A copy that runs while it is made may not be what ran.
    std::thread::sleep(LATER);
    run(Command::new(&python).args(["-I", "-S", "-c", "pass"]))?;
    let pip = venv.join("bin/pip");
    let shebang = format!("#!{} -IS\n# pip\n", python.display());
    write(&pip, shebang.as_bytes(), 0o755)?;
    run(&mut Command::new(&pip))?;
    let native: PathBuf = venv.join("lib/python3/site-packages/_native.so");
    write(&native, &[fs::read(module)?, b"native".to_vec()].concat(), 0o644)?;
    let python = || Ok::<_, anyhow::Error>(found(Exec, Relocated, &python)?.severity(Severity::Low));
    Ok(vec![python()?, made(&pip)?, python()?, ran(&pip)?, made(&native)?])
}

/// `npm install` of a tarball: data, a program, and a link to it in `.bin`, by which it runs.
fn tarball(modules: &Path) -> anyhow::Result<Vec<Expect>> {
    let tool = modules.join("left-pad/bin/cli.js");
    write(&modules.join("left-pad/package.json"), b"{}\n", 0o644)?;
    write(&modules.join("left-pad/index.js"), b"exports = {}\n", 0o644)?;
    write(&tool, b"#!/bin/sh\n# of the tarball\nexit 0\n", 0o755)?;
    fs::create_dir_all(modules.join(".bin"))?;
    let link = modules.join(".bin/left-pad");
    symlink("../left-pad/bin/cli.js", &link)?;
    std::thread::sleep(LATER);
    run(&mut Command::new(&link))?;
    Ok(vec![made(&tool)?, ran(&tool)?])
}
