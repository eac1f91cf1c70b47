//! Rings and their order: what one kind of event, one workload or a slow agent costs the others.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use muster_proto::v1::{Kind, Severity, Verdict};

use super::load::counters;
use super::{Scenario, Stage, found};
use crate::expect::Expect;
use crate::world::run;

/// Attested, and mapped by nearly every program.
const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";
/// Attested files, small ones, which no scenario changes.
const FILES: &str = "/usr/share/nodejs/npm";
/// Attested, and mapped by few.
const ZLIB: &str = "/usr/lib/x86_64-linux-gnu/libz.so.1";

pub(super) fn scenarios() -> Vec<Scenario> {
    let seen = |name, run| Scenario { name, run, may_lose: &[] };
    vec![
        seen("threads that map a library again and again cost no exec", map_loop),
        Scenario {
            name: "a full ring of libraries costs no exec",
            run: libraries,
            may_lose: &[Kind::Library],
        },
        seen("2,000 processes connect and end", |s| connects(s, false)),
        seen("2,000 processes connect and end while the agent stands still", |s| connects(s, true)),
        Scenario {
            name: "names changed by threads of one processor",
            run: renames,
            // On a kernel that takes the processor from its programs.
            may_lose: &[Kind::File],
        },
        seen("attested file stored into where it is mapped, and made executable", stored),
        seen("attested file mapped executable and writable", writable),
    ]
}

fn submitted(stage: &mut Stage, kind: Kind) -> anyhow::Result<u64> {
    Ok(counters(stage, kind)?.submitted)
}

/// Submitted or counted as lost.
fn reported(stage: &mut Stage, kind: Kind) -> anyhow::Result<u64> {
    let counters = counters(stage, kind)?;
    Ok(counters.submitted + counters.lost)
}

/// The kernel programs report each library of a process once.
fn map_loop(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    const EXECS: u64 = 300;
    let before = submitted(stage, Kind::Library)?;
    let mut flood = Command::new(&stage.world.tool)
        .args(["map-loop", LIBC, "4"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = BufReader::new(flood.stdout.take().context("piped")?);
    said.read_line(&mut String::new())?;
    let execs = stage.world.run_tool(&["execs", &EXECS.to_string(), "/usr/bin/true"]);
    drop(flood.stdin.take());
    let mut times = String::new();
    said.read_to_string(&mut times)?;
    ensure!(flood.wait()?.success(), "the mapping program failed");
    execs?;
    let times: u64 = times.trim().parse().with_context(|| format!("{times:?}"))?;
    stage.settle_records()?;
    let made = submitted(stage, Kind::Library)? - before;
    eprintln!("mapped {times} times, {made} records of libraries");
    // Each program has its dynamic linker and two libraries at most.
    ensure!(made < EXECS * 4 && times > 0, "mapped {times} times, {made} records of libraries");
    let tool = found(Kind::Exec, Verdict::Unauthorized, &stage.world.tool)?;
    Ok(vec![tool.clone(), tool])
}

fn libraries(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    // Each is told once of each file, some 400 of them; the ring has room for some 3,700 records.
    const PROCESSES: usize = 12;
    let before = counters(stage, Kind::Library)?.lost;
    stage
        .agent
        .paused(|| (0..PROCESSES).try_for_each(|_| stage.world.run_tool(&["map-each", FILES]).map(drop)))?;
    stage.settle_records()?;
    ensure!(counters(stage, Kind::Library)?.lost > before, "the ring did not fill");
    let tool = found(Kind::Exec, Verdict::Unauthorized, &stage.world.tool)?;
    Ok(vec![tool; PROCESSES])
}

/// By an attested program, so nothing is found; but a process that was forgotten by the time of its connect could not be told.
fn connects(stage: &mut Stage, while_paused: bool) -> anyhow::Result<Vec<Expect>> {
    let before = submitted(stage, Kind::Connect)?;
    let script = "i=0; while (( i++ < 2000 )); do ( : >/dev/udp/127.0.0.1/4010 ); done";
    let bash = || run(Command::new("/bin/bash").args(["-c", script])).map(drop);
    if while_paused {
        stage.agent.paused(bash)?;
    } else {
        bash()?;
    }
    stage.settle_records()?;
    let made = submitted(stage, Kind::Connect)? - before;
    ensure!(made == 2000, "{made} connects of 2,000");
    Ok(Vec::new())
}

/// Each waits for the disk while the kernel programs keep what it is about to do.
fn renames(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    const THREADS: u64 = 16;
    const TIMES: u64 = 40;
    let directories: Vec<String> =
        (0..=THREADS).map(|n| stage.world.disk.join(format!("renames-{n}")).display().to_string()).collect();
    for directory in &directories {
        std::fs::create_dir(directory)?;
        std::fs::write(format!("{directory}/f"), "no program")?;
    }
    // `chattr +D`: each change of a name is on the disk before the call comes back. FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_DIRSYNC_FL.
    let script = "for (@ARGV) { open(D, '<', $_) or die; my $flags = pack('L2'); ioctl(D, 0x80086601, $flags) or die; \
                  $flags = pack('L2', unpack('L', $flags) | 0x10000); ioctl(D, 0x40086602, $flags) or die }";
    run(Command::new("/usr/bin/perl").args(["-e", script]).args(&directories[1..]))?;
    stage.settle()?;
    let before = reported(stage, Kind::File)?;
    let mut arguments = vec!["renames".to_owned(), TIMES.to_string()];
    arguments.extend(directories);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = stage.world.run_tool(&arguments)?;
    let processors: u64 = String::from_utf8(said.stdout)?.trim().parse()?;
    stage.settle_records()?;
    let made = reported(stage, Kind::File)? - before;
    let expected = processors * 2 + THREADS * TIMES;
    ensure!(made == expected, "{made} records of {expected} renames on {processors} processors");
    Ok(vec![found(Kind::Exec, Verdict::Unauthorized, &stage.world.tool)?])
}

fn stored(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let zlib = std::fs::canonicalize(ZLIB)?;
    // As a dynamic linker does, which stores nothing: silent.
    stage.world.run_tool(&["mprotect", ZLIB])?;
    stage.world.run_tool(&["mprotect-stored", ZLIB])?;
    let tool = found(Kind::Exec, Verdict::Unauthorized, &stage.world.tool)?;
    Ok(vec![
        tool.clone(),
        tool,
        Expect::new(Kind::Library, Verdict::Undetermined, zlib.display().to_string())
            .severity(Severity::Medium)
            .blind("mprotect"),
    ])
}

fn writable(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let zlib = std::fs::canonicalize(ZLIB)?;
    stage.world.run_tool(&["map-writable", ZLIB])?;
    Ok(vec![
        found(Kind::Exec, Verdict::Unauthorized, &stage.world.tool)?,
        Expect::new(Kind::Library, Verdict::Undetermined, zlib.display().to_string())
            .severity(Severity::Medium),
    ])
}
