//! Programs, scripts and libraries that run.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use muster_proto::v1::{Flavour, Kind::*, Severity, Verdict::*};

use super::{Scenario, Stage, found, in_usr_bin};
use crate::expect::{Difference, Expect};
use crate::world::{self, CONTAINER, run};

pub(super) fn scenarios() -> Vec<Scenario> {
    let seen = |name, run| Scenario { name, run, may_lose: &[] };
    vec![
        seen("attested program is silent and counted as in use", attested),
        seen("attested program copied on disk", relocated),
        seen("attested program copied to tmpfs", relocated_tmpfs),
        seen("program of the SBOM changed by one byte", modified),
        seen("unknown program on disk", unknown_disk),
        seen("unknown program on tmpfs", unknown_tmpfs),
        seen("programs of 3 GiB that are a hole start at once, and are told", giant),
        seen("unknown program in a memfd", memfd),
        seen("unknown code mapped from a memfd", mapped_memfd),
        seen("program that unlinks itself while it runs", unlinked),
        seen("unknown script under an attested interpreter", script),
        seen("unknown scripts that are interpreters of scripts", interpreters),
        seen("unknown program started by the dynamic linker", dynamic_linker),
        seen("unknown library by LD_PRELOAD", preload),
        seen("unknown file mapped executable after its exec failed", failed_exec),
        seen("failed execs of many threads leave others their digest", failed_execs),
        seen("attested file mapped executable while it is open for write", busy),
        seen("unknown library made executable by mprotect", mprotect),
        seen("hard link to an attested program", hard_link),
        seen("symlink and relative path to an attested program", other_spellings),
        seen("attested and unknown programs in a container", container),
        seen("program of a container run while a mapping of it outlives its descriptor", mapped_beneath),
        seen("program changed beneath a user's overlay", changed_beneath),
    ]
}

/// To read one takes an emulated machine more than half a minute, wherever that is done.
fn giant(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let mut expected = Vec::new();
    for directory in [stage.world.disk.clone(), stage.world.tmpfs.clone()] {
        let file = directory.join("giant");
        let begun = Instant::now();
        run(&mut Command::new(&file))?;
        let took = begun.elapsed();
        ensure!(took < Duration::from_secs(5), "{} took {took:?} to run", file.display());
        let told = Expect::new(Exec, Undetermined, file.display().to_string());
        expected.push(told.severity(Severity::Medium));
    }
    Ok(expected)
}

fn attested(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let used = |stage: &mut Stage| -> anyhow::Result<u64> {
        Ok(stage.agent.status()?.images.iter().map(|i| i.files_in_use).max().unwrap_or(0))
    };
    let before = used(stage)?;
    // `factor` is run by no other scenario.
    run(Command::new("/usr/bin/factor").arg("6"))?;
    let other = stage.settle()?;
    ensure!(
        other.is_empty(),
        "unexpected: {:?}",
        other.iter().map(crate::expect::describe).collect::<Vec<_>>()
    );
    let after = used(stage)?;
    ensure!(after > before, "files in use did not rise: {before} before, {after} after");
    Ok(Vec::new())
}

fn relocated(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let copy = stage.world.disk.join("copied-true");
    run(&mut Command::new(&copy))?;
    Ok(vec![found(Exec, Relocated, &copy)?.severity(Severity::Low).parent("suite")])
}

fn relocated_tmpfs(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let copy = stage.world.tmpfs.join("copied-true");
    run(&mut Command::new(&copy))?;
    Ok(vec![found(Exec, Relocated, &copy)?.severity(Severity::High).parent("suite")])
}

fn modified(_: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let wc = in_usr_bin("wc");
    run(Command::new(&wc).arg("--version"))?;
    Ok(vec![found(Exec, Modified, &wc)?.severity(Severity::High).parent("suite")])
}

fn unknown_disk(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    stage.world.run_tool(&["exit"])?;
    Ok(vec![found(Exec, Unauthorized, &stage.world.tool)?.severity(Severity::Critical).parent("suite")])
}

fn unknown_tmpfs(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let tool = stage.world.tmpfs.join("tool");
    run(Command::new(&tool).arg("exit"))?;
    Ok(vec![found(Exec, Unauthorized, &tool)?.severity(Severity::Critical).parent("suite")])
}

fn memfd(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let tool = stage.world.tool.clone();
    stage.world.run_tool(&["memfd", &tool.display().to_string(), "exit"])?;
    let digest = world::sha256(&tool)?;
    Ok(vec![
        found(Exec, Unauthorized, &tool)?.severity(Severity::Critical).parent("suite"),
        Expect::new(Exec, Unauthorized, "/memfd:unknown")
            .sha256(digest)
            .severity(Severity::Critical)
            .parent("suite"),
    ])
}

fn unlinked(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let program = stage.world.disk.join("unlinks-itself");
    let expected = [found(Exec, Unauthorized, &program)?.parent("suite")];
    while_it_runs(stage, Command::new(&program).arg("unlink-self"), &expected)?;
    Ok(Vec::new())
}

/// What must come while a program runs that prints one line and waits for its input to close: all of it must have been judged
/// before the program ends.
fn while_it_runs(stage: &mut Stage, command: &mut Command, expected: &[Expect]) -> anyhow::Result<()> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    let came = stage.settle();
    drop(child.stdin.take());
    let status = child.wait()?;
    let difference = Difference::of(expected, &came?);
    ensure!(difference.is_empty(), "while it ran:{difference}");
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

fn mapped_memfd(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (tool, copied) = (stage.world.tool.clone(), stage.world.disk.join("libunknown.so"));
    let expected = [
        found(Exec, Unauthorized, &tool)?.parent("suite"),
        Expect::new(Library, Unauthorized, "/memfd:unknown")
            .sha256(world::sha256(&copied)?)
            .severity(Severity::Critical)
            .parent("suite"),
    ];
    while_it_runs(stage, Command::new(&tool).arg("map-memfd").arg(&copied), &expected)?;
    Ok(Vec::new())
}

fn script(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let script = stage.world.disk.join("unknown.sh");
    run(&mut Command::new(&script))?;
    Ok(vec![found(Exec, Unauthorized, &script)?.parent("suite")])
}

/// The kernel runs the shell with the third, and it ends before it would run the others.
fn interpreters(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let [first, second, third] =
        ["first.sh", "second.sh", "third.sh"].map(|name| stage.world.disk.join(name));
    run(&mut Command::new(&first))?;
    let between = |file: &Path| -> anyhow::Result<Expect> {
        Ok(found(Library, Unauthorized, file)?.parent("suite").blind("itself a script"))
    };
    Ok(vec![found(Exec, Unauthorized, &first)?.parent("suite"), between(&second)?, between(&third)?])
}

fn dynamic_linker(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let tool = stage.world.tool.clone();
    run(Command::new("/lib64/ld-linux-x86-64.so.2").arg(&tool).arg("exit"))?;
    Ok(vec![found(Library, Unauthorized, &tool)?.parent("suite")])
}

fn preload(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let library = stage.world.disk.join("libunknown.so");
    run(Command::new("/usr/bin/true").env("LD_PRELOAD", &library))?;
    Ok(vec![found(Library, Unauthorized, &library)?.parent("suite")])
}

/// ovl_mmap() moves the mapping to the layer's file. While it is there, the overlay's inode has no writer, the kernel does not
/// refuse the exec, and stores into a page that is dirty leave no trace.
fn mapped_beneath(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let program = in_usr_bin("users");
    let in_container = |expect: Expect| expect.workload(format!("docker://{CONTAINER}"));
    let seen = world::sha256(&program)?;
    let expected = [
        in_container(Expect::new(Exec, Unauthorized, "/opt/in-container")),
        in_container(
            Expect::new(Exec, Undetermined, program.display().to_string())
                .parent("in-container")
                .says("somebody had it open for write"),
        ),
    ];
    let args = ["map-held", &program.display().to_string()];
    let mut command = stage.world.container_command("/opt/in-container", &args)?;
    while_it_runs(stage, &mut command, &expected)?;
    let changed = stage.world.container_root.join("usr/bin/users");
    let digest = world::sha256(&changed)?;
    ensure!(digest != seen, "{} did not change", changed.display());
    let closed = Expect::new(File, Modified, program.display().to_string())
        .operation("close_write")
        .sha256(digest)
        .severity(Severity::High);
    Ok(vec![in_container(closed)])
}

/// Whoever mounts an overlay over files of their own can change them beneath it, and nothing of the overlay's inode shows it.
fn changed_beneath(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (program, lower) = (in_usr_bin("sleep"), stage.world.beneath().join("lower/sleep"));
    let script = format!(
        "mount -t overlay -o lowerdir={0}/lower:{0}/empty overlay /usr/bin && /usr/bin/sleep 0.5 && echo ran && \
         read next && echo >>{0}/lower/sleep && /usr/bin/sleep 0.5",
        stage.world.beneath().display()
    );
    let mut child = Command::new("/usr/bin/unshare")
        .args(["--user", "--map-root-user", "--mount", "/bin/sh", "-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(out) = child.stdout.take() {
        BufReader::new(out).read_line(&mut line)?;
    }
    // What its paths say is that user's word, so only the content counts.
    let exec =
        |verdict| found(Exec, verdict, &lower).map(|e| e.at(program.display().to_string()).parent("sh"));
    let difference = Difference::of(&[exec(Relocated)?.severity(Severity::Low)], &stage.settle()?);
    child.stdin.take().context("a pipe")?.write_all(b"next\n")?;
    let status = child.wait()?;
    ensure!(status.success() && difference.is_empty(), "{status}; before the change:{difference}");
    let ran = exec(Unauthorized)?.severity(Severity::Critical);
    Ok(vec![found(File, Unauthorized, &lower)?.operation("close_write").parent("suite"), ran])
}

fn failed_exec(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let file = stage.world.disk.join("no-interpreter");
    stage.world.run_tool(&["failed-exec", &file.display().to_string()])?;
    Ok(vec![
        found(Exec, Unauthorized, &stage.world.tool)?,
        found(Library, Unauthorized, &file)?.parent("suite"),
    ])
}

/// More threads than the kernel programs keep execs under way.
fn failed_execs(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (file, copy) = (stage.world.disk.join("no-interpreter"), stage.world.disk.join("copied-true"));
    let [file, program] = [&file, &copy].map(|path| path.display().to_string());
    stage.world.run_tool(&["failed-execs", "1100", &file, &program])?;
    let ran = found(Exec, Relocated, &copy)?.parent("tool");
    let ran = match stage.agent.status()?.flavour() {
        Flavour::Tracepoint => ran,
        _ => ran.digest_from(&["kernel", "kernel_cache"]),
    };
    Ok(vec![found(Exec, Unauthorized, &stage.world.tool)?, ran])
}

/// What the mapping holds when it is used, nobody knows.
fn busy(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let file = in_usr_bin("ptx");
    stage.world.run_tool(&["map-busy", &file.display().to_string()])?;
    Ok(vec![
        found(Exec, Unauthorized, &stage.world.tool)?,
        found(Library, Undetermined, &file)?.parent("suite"),
    ])
}

fn mprotect(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let library = stage.world.disk.join("libprotected.so");
    stage.world.run_tool(&["mprotect", &library.display().to_string()])?;
    Ok(vec![
        found(Exec, Unauthorized, &stage.world.tool)?,
        found(Library, Unauthorized, &library)?.parent("suite").blind("mprotect"),
    ])
}

fn hard_link(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let link = stage.world.disk.join("linked-true");
    run(&mut Command::new(&link))?;
    Ok(vec![found(Exec, Relocated, &link)?.severity(Severity::Low).parent("suite")])
}

fn other_spellings(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    run(&mut Command::new(stage.world.disk.join("symlinked-true")))?;
    run(Command::new("/bin/sh").args(["-c", "cd /usr/bin && ./true && ../bin/true && /bin/true"]))?;
    Ok(Vec::new())
}

fn container(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    stage.world.in_container("/usr/bin/true", &[])?;
    stage.world.in_container("/opt/in-container", &["exit"])?;
    Ok(vec![
        Expect::new(Exec, Unauthorized, "/opt/in-container")
            .sha256(world::sha256(&stage.world.tool)?)
            .severity(Severity::Critical)
            .workload(format!("docker://{CONTAINER}"))
            .image(world::image_digest()?),
    ])
}
