//! A digest counts only for the content that it was read from, and reading it holds up nobody.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use muster_proto::v1::{Kind::*, Severity, Verdict::*};

use super::{Scenario, Stage, found, in_usr_bin};
use crate::expect::{Expect, describe};
use crate::world::{self, CONTAINER, run};

pub(super) fn scenarios() -> Vec<Scenario> {
    let seen = |name, run| Scenario { name, run, may_lose: &[] };
    vec![
        seen("content: giant sparse program and mapping", giant),
        seen("content: giant memfd mapped executable, and its process killed", giant_memfd),
        seen("content: pidfds closed", pidfds),
        seen("content: program of a layer changed while a container uses it", layer),
        seen("content: attested program changed and put back 20 times", put_back),
        seen("content: file system written through its block device", block_device),
    ]
}

/// A hole costs nothing to make. Neither the exec nor the mapping may wait for it to be read, and the agent does not read it either.
fn giant(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let giant = stage.world.disk.join("giant");
    // Made before the agent looks at its close: a program that grows without being closed.
    world::copy(&stage.world.disk.join("tiny"), &giant)?;
    fs::OpenOptions::new().write(true).open(&giant)?.set_len(3 << 30)?;
    fs::set_permissions(&giant, fs::Permissions::from_mode(0o755))?;
    // The changes are findings of their own, which other scenarios are about.
    stage.settle()?;
    let begun = Instant::now();
    run(&mut Command::new(&giant))?;
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(1), "the exec took {took:?}");
    let begun = Instant::now();
    stage.world.run_tool(&["map", &giant.display().to_string()])?;
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(2), "the mapping took {took:?}");
    fs::remove_file(&giant)?;
    let path = giant.display().to_string();
    Ok(vec![
        Expect::new(Exec, Undetermined, &path).parent("suite"),
        found(Exec, Unauthorized, &stage.world.tool)?,
        Expect::new(Library, Undetermined, &path).parent("suite"),
    ])
}

/// Nothing looks for fatal signals while a file in memory is read.
fn giant_memfd(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let mut child = Command::new(&stage.world.tool)
        .arg("map-giant-memfd")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let begun = Instant::now();
    let mut line = [0];
    std::io::Read::read_exact(child.stdout.as_mut().context("a pipe")?, &mut line)?;
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(2), "the mapping took {took:?}");
    let begun = Instant::now();
    child.kill()?;
    child.wait()?;
    let took = begun.elapsed();
    ensure!(took < Duration::from_secs(2), "it was there for {took:?} after it was killed");
    Ok(vec![
        found(Exec, Unauthorized, &stage.world.tool)?,
        Expect::new(Library, Undetermined, "/memfd:giant").parent("suite"),
    ])
}

/// On kernels from 6.9 a pidfd is a regular file of a file system of its own.
fn pidfds(_: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    run(Command::new("/usr/bin/python3")
        .args(["-c", "import os\nfor _ in range(20): os.close(os.pidfd_open(os.getpid()))"]))?;
    Ok(Vec::new())
}

/// The overlay's inode stays as it was.
fn layer(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let program = in_usr_bin("tsort");
    let path = program.display().to_string();
    let version = ["--version"];
    for _ in 0..3 {
        stage.world.in_container(&path, &version)?;
        std::thread::sleep(Duration::from_millis(200));
    }
    let before = stage.settle()?;
    ensure!(before.is_empty(), "before: {:?}", before.iter().map(describe).collect::<Vec<_>>());
    let digest = flip(&program)?;
    stage.world.in_container(&path, &version)?;
    Ok(vec![
        Expect::new(File, Modified, &path).operation("close_write").sha256(&digest).severity(Severity::High),
        Expect::new(Exec, Modified, &path).sha256(&digest).workload(format!("docker://{CONTAINER}")),
    ])
}

/// Changes the last byte, which is of no use to an ELF file, and says what its SHA-256 is then.
fn flip(file: &Path) -> anyhow::Result<String> {
    use std::os::unix::fs::FileExt as _;
    let out = fs::OpenOptions::new().read(true).write(true).open(file)?;
    let end = out.metadata()?.len() - 1;
    let mut last = [0];
    out.read_exact_at(&mut last, end)?;
    out.write_all_at(&[!last[0]], end)?;
    drop(out);
    world::sha256(file)
}

/// By two programs, as fast as they can: each change is told, of the one who made it.
fn put_back(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    const TIMES: usize = 20;
    let file = in_usr_bin("unexpand");
    let (good, bad) = (fs::read(&file)?, stage.world.disk.join("unexpand.bad"));
    let mut changed = good.clone();
    if let Some(last) = changed.last_mut() {
        *last = !*last;
    }
    fs::write(&bad, &changed)?;
    let kept = stage.world.disk.join("unexpand.good");
    fs::write(&kept, &good)?;
    stage.settle()?;
    let script = format!(
        "for i in $(seq {TIMES}); do /usr/bin/dd if={0} of={2} conv=notrunc status=none; \
         /usr/bin/tee {2} <{1} >/dev/null; done",
        bad.display(),
        kept.display(),
        file.display()
    );
    run(Command::new("/bin/sh").args(["-c", &script]))?;
    let came = stage.settle()?;
    let of = |comm: &str| {
        let of = came.iter().filter(|f| f.process.as_ref().is_some_and(|p| p.comm == comm));
        of.filter(|f| f.kind() == File && f.path == file.display().to_string()).collect::<Vec<_>>()
    };
    let told = |f: &&&muster_proto::v1::Finding| matches!(f.verdict(), Modified | Undetermined);
    let all = || came.iter().map(describe).collect::<Vec<_>>().join("\n");
    ensure!(of("dd").iter().filter(told).count() == TIMES, "not every change was told:\n{}", all());
    // What was written may be gone before it is read, and then nobody can say what it was.
    ensure!(of("tee").iter().all(|f| f.verdict() == Undetermined), "who put it back is accused:\n{}", all());
    ensure!(of("dd").len() + of("tee").len() == came.len(), "others:\n{}", all());
    Ok(Vec::new())
}

/// Once with its digest known, and once more.
fn block_device(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (image, mount) = (stage.world.disk.join("disk.img"), stage.world.disk.join("mounted"));
    fs::create_dir_all(&mount)?;
    let script = format!(
        "set -e; truncate -s 8M {0}; mkfs.ext4 -q -F {0}; losetup /dev/loop0 {0}; mount /dev/loop0 {1}; \
         cp /usr/bin/true {1}/true; sync",
        image.display(),
        mount.display()
    );
    run(Command::new("/bin/sh").args(["-c", &script]))?;
    stage.settle()?;
    let program = mount.join("true");
    let digest = world::sha256(&program)?;
    for _ in 0..3 {
        run(&mut Command::new(&program))?;
        std::thread::sleep(Duration::from_millis(200));
    }
    let warm = stage.settle()?;
    ensure!(warm.len() == 3, "warm: {:?}", warm.iter().map(describe).collect::<Vec<_>>());
    // The last bytes of the file, found on the device: what comes after the end of the text is of no use to the program.
    let script = "import os,sys\nf=open(sys.argv[1],'rb').read()\nd=open('/dev/loop0','r+b',0)\nb=d.read()\n\
                  at=b.find(f[:4096])\nassert at>=0\nd.seek(at+9)\nd.write(b'\\x01')\nos.fsync(d.fileno())\nd.close()";
    run(Command::new("/usr/bin/python3").args(["-c", script]).arg(&program))?;
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    run(&mut Command::new(&program))?;
    let changed = world::sha256(&program)?;
    ensure!(changed != digest, "the file did not change");
    let path = program.display().to_string();
    Ok(vec![
        Expect::new(File, Modified, "/dev/loop0").operation("block_write").severity(Severity::High),
        Expect::new(Exec, Unauthorized, &path).sha256(changed),
    ])
}
