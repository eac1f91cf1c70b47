//! A digest counts only for the content that it was read from, and reading it holds up nobody.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use muster_proto::v1::{Flavour, Kind::*, Severity, Verdict::*};

use super::file::by_suite;
use super::{Scenario, Stage, found, in_usr_bin};
use crate::expect::{Difference, Expect, describe};
use crate::world::{self, CONTAINER, run};

pub(super) fn scenarios() -> Vec<Scenario> {
    let seen = |name, run| Scenario { name, run, may_lose: &[] };
    vec![
        seen("content: giant files mapped executable, and their process killed", giant),
        seen("content: more mapped at once than the kernel hashes of one cgroup", budget),
        seen("content: code that is gone before its first bytes are read", gone),
        seen("content: pidfds closed", pidfds),
        seen("content: no digest is kept of what was mapped for writing", pinned),
        seen("content: program that a container uses changed in its layer", layer),
        seen("content: attested program changed and put back 20 times", put_back),
        seen("content: file system written through its block device", block_device),
        seen(
            "content: file system written through its block device while it is not mounted",
            while_unmounted,
        ),
        seen("content: block device of a file system that the host does not see mounted", mounted_elsewhere),
        seen("content: block device opened for write, then mounted, then written", mounted_while_open),
    ]
}

/// A hole costs nothing to make. No mapping may wait until it is read, nor may the end of its process: nothing looks for fatal signals
/// while a file in memory is read.
fn giant(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let file = stage.world.disk.join("giant").display().to_string();
    for args in [&["map-and-wait", &file][..], &["map-giant-memfd"]] {
        let mut command = Command::new(&stage.world.tool);
        let mut child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let begun = Instant::now();
        let mut line = [0];
        std::io::Read::read_exact(child.stdout.as_mut().context("a pipe")?, &mut line)?;
        let took = begun.elapsed();
        ensure!(took < Duration::from_secs(3), "{args:?}: the mapping took {took:?}");
        let begun = Instant::now();
        child.kill()?;
        child.wait()?;
        let took = begun.elapsed();
        ensure!(took < Duration::from_secs(2), "{args:?}: it was there for {took:?} after it was killed");
    }
    let mapped = |path: &str| Expect::new(Library, Undetermined, path).parent("suite");
    Ok(vec![
        found(Exec, Unauthorized, &stage.world.tool)?,
        mapped(&file).severity(Severity::Medium),
        found(Exec, Unauthorized, &stage.world.tool)?,
        mapped("/memfd:giant").severity(Severity::Medium),
    ])
}

/// Three times what the kernel hashes at once for one cgroup, each of which takes an emulated machine many seconds.
fn budget(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let file = stage.world.disk.join("hollow");
    fs::File::create(&file)?.set_len(240 << 20)?;
    let before = counted("muster_digest_left_to_agent_total{reason=\"over_budget\"}")?;
    let begun = Instant::now();
    let (send, mapped) = std::sync::mpsc::channel();
    let mut children = Vec::new();
    for _ in 0..3 {
        let mut command = Command::new(&stage.world.tool);
        command.arg("map-and-wait").arg(&file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut out = child.stdout.take().context("a pipe")?;
        let send = send.clone();
        std::thread::spawn(move || {
            let _ = send.send(std::io::Read::read_exact(&mut out, &mut [0]).is_ok());
        });
        children.push(child);
    }
    // Where the kernel hashes nothing, no mapping waits.
    let hashes = stage.agent.status()?.flavour() != Flavour::Tracepoint;
    let made = (0..if hashes { 1 } else { 3 }).map(|_| mapped.recv_timeout(Duration::from_secs(5)));
    let made: Vec<_> = made.collect();
    let took = begun.elapsed();
    for mut child in children {
        child.kill()?;
        child.wait()?;
    }
    ensure!(
        made.iter().all(|made| *made == Ok(true)),
        "no mapping was made without its file being hashed: {made:?} after {took:?}"
    );
    let mapped = Expect::new(Library, Undetermined, file.display().to_string()).parent("suite").says("hole");
    let mut expected = Vec::new();
    for _ in 0..3 {
        expected.extend([found(Exec, Unauthorized, &stage.world.tool)?, mapped.clone()]);
    }
    stage.must_tell(&expected)?;
    let over = counted("muster_digest_left_to_agent_total{reason=\"over_budget\"}")? - before;
    ensure!((over > 0) == hashes, "{over} times over the budget");
    fs::remove_file(&file)?;
    Ok(Vec::new())
}

/// What a line of the agent's metrics says. An attested program asks for it: a connect of the suite's own would be a finding.
pub(super) fn counted(line: &str) -> anyhow::Result<u64> {
    let script = "import socket\n\
                  s=socket.create_connection(('127.0.0.1',9464))\n\
                  s.sendall(b'GET /metrics HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n')\n\
                  while b:=s.recv(65536): print(b.decode(),end='')";
    let text = String::from_utf8(run(Command::new("/usr/bin/python3").args(["-c", script]))?.stdout)?;
    let value = text.lines().find_map(|l| l.strip_prefix(line)).with_context(|| format!("no {line}"))?;
    Ok(value.trim().parse()?)
}

/// While the agent does not look. Neither can be run, but the kernel may have loaded one meanwhile, and a program the other.
fn gone(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (module, nameless) = (stage.world.disk.join("gone.ko"), stage.world.disk.join("gone.data"));
    let before = counted("muster_files_unread_total")?;
    stage.agent.paused(|| {
        [&module, &nameless].into_iter().try_for_each(|file| {
            // ELF-64, little endian, ET_REL.
            fs::write(file, [b"\x7fELF\x02\x01\x01", [0; 9].as_slice(), &[1, 0, 62, 0]].concat())?;
            Ok(fs::remove_file(file)?)
        })
    })?;
    let told = Expect::new(File, Undetermined, module.display().to_string()).operation("close_write");
    stage.must_tell(&by_suite(told, Severity::Medium)?)?;
    let unread = counted("muster_files_unread_total")? - before;
    ensure!(unread == 1, "{unread} files are counted as unread");
    Ok(Vec::new())
}

/// On kernels from 6.9 a pidfd is a regular file of a file system of its own.
fn pidfds(_: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    run(Command::new("/usr/bin/python3")
        .args(["-c", "import os\nfor _ in range(20): os.close(os.pidfd_open(os.getpid()))"]))?;
    Ok(Vec::new())
}

/// Pages that were pinned while it was mapped may be stored into after it is not: no sign of it would show.
fn pinned(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (mapped, other) = (stage.world.disk.join("was-mapped"), stage.world.disk.join("was-not-mapped"));
    for (file, last) in [(&mapped, 1), (&other, 2)] {
        fs::write(file, [fs::read(&stage.world.tool)?, vec![last]].concat())?;
        fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
    }
    let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\nm.close()";
    run(Command::new("/usr/bin/python3").args(["-c", script]).arg(&mapped))?;
    std::thread::sleep(Duration::from_millis(200));
    stage.settle()?;
    let run_both =
        || [&mapped, &other].into_iter().try_for_each(|file| run(Command::new(file).arg("exit")).map(drop));
    for _ in 0..3 {
        run_both()?;
    }
    // Of the other file it is, once it has run.
    let came = stage.settle()?;
    let path = other.display().to_string();
    let kept = came.iter().any(|f| f.path == path && f.digest_origin.ends_with("_cache"));
    ensure!(kept, "no digest was kept:\n{}", came.iter().map(describe).collect::<Vec<_>>().join("\n"));
    run_both()?;
    Ok(vec![
        found(Exec, Unauthorized, &mapped)?.digest_from(&["kernel", "agent"]),
        found(Exec, Unauthorized, &other)?.digest_from(&["kernel_cache", "agent_cache"]),
    ])
}

/// The overlay's inode stays as it was. Once with the digest of before known to whoever keeps any, and once without.
fn layer(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (warm, cold) = (in_usr_bin("csplit"), in_usr_bin("join"));
    let run_in = |stage: &mut Stage, program: &Path| {
        stage.world.in_container(&program.display().to_string(), &["--version"])
    };
    for _ in 0..3 {
        run_in(stage, &warm)?;
        // Longer than a tick of the kernel's clock, and than what was changed just now is taken for still changing.
        std::thread::sleep(Duration::from_millis(200));
    }
    nothing(stage, "before the change")?;
    let mut expected = Vec::new();
    for program in [&warm, &cold] {
        let digest = flip(program)?;
        expected.extend(by_suite(found(File, Modified, program)?.operation("close_write"), Severity::High)?);
        run_in(stage, program)?;
        let ran = Expect::new(Exec, Modified, program.display().to_string()).sha256(digest);
        expected.push(ran.severity(Severity::High).workload(format!("docker://{CONTAINER}")));
    }
    Ok(expected)
}

fn nothing(stage: &mut Stage, when: &str) -> anyhow::Result<()> {
    let difference = Difference::of(&[], &stage.settle()?);
    ensure!(difference.is_empty(), "{when}:{difference}");
    Ok(())
}

/// Changes the last byte, which is of no use to an ELF file, and says what its SHA-256 is then.
fn flip(file: &Path) -> anyhow::Result<String> {
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
    let (bad, good) = (stage.world.disk.join("unexpand.bad"), stage.world.disk.join("unexpand.good"));
    let mut bytes = fs::read(&file)?;
    fs::write(&good, &bytes)?;
    if let Some(last) = bytes.last_mut() {
        *last = !*last;
    }
    fs::write(&bad, &bytes)?;
    // What these two are is another scenario's.
    stage.settle()?;
    let script = format!(
        "for i in $(seq {TIMES}); do /usr/bin/dd if={0} of={2} conv=notrunc status=none; \
         /usr/bin/tee {2} <{1} >/dev/null; done",
        bad.display(),
        good.display(),
        file.display()
    );
    run(Command::new("/bin/sh").args(["-c", &script]))?;
    let came = stage.settle()?;
    let path = file.display().to_string();
    let of = |comm: &str| {
        let is_of = |f: &&muster_proto::v1::Finding| f.process.as_ref().is_some_and(|p| p.comm == comm);
        came.iter().filter(is_of).filter(|f| f.kind() == File && f.path == path).collect::<Vec<_>>()
    };
    let (changed, put_back) = (of("dd"), of("tee"));
    let all = || came.iter().map(describe).collect::<Vec<_>>().join("\n");
    ensure!(
        changed.len() == TIMES && changed.iter().all(|f| matches!(f.verdict(), Modified | Undetermined)),
        "not every change was told:\n{}",
        all()
    );
    // What was written may be gone before it is read, and then nobody can say what it was.
    ensure!(put_back.iter().all(|f| f.verdict() == Undetermined), "who put it back is accused:\n{}", all());
    ensure!(changed.len() + put_back.len() == came.len(), "others:\n{}", all());
    run(Command::new(&file).arg("--version"))?;
    Ok(Vec::new())
}

/// A file system on a loop device, with copies of two programs, which are bound to where the SBOM has them.
struct Mounted {
    point: PathBuf,
    device: String,
}

impl Mounted {
    const PROGRAMS: [&'static str; 2] = ["paste", "fold"];

    fn make(stage: &Stage) -> anyhow::Result<Self> {
        let (image, point) = (stage.world.disk.join("disk.img"), stage.world.disk.join("mounted"));
        fs::create_dir_all(&point)?;
        let [warm, cold] = Self::PROGRAMS;
        let script = format!(
            "set -e; truncate -s 16M {0}; mkfs.ext4 -q -F {0}; d=$(losetup --find --show {0}); mount $d {1}; \
             cp /usr/bin/{warm} /usr/bin/{cold} {1}; sync; echo $d",
            image.display(),
            point.display()
        );
        let device = run(Command::new("/bin/sh").args(["-c", &script]))?;
        let device = String::from_utf8(device.stdout)?.trim().to_owned();
        let mounted = Self { point, device };
        mounted.bind()?;
        Ok(mounted)
    }

    /// The first program has run, so that its digest is kept, and the second has not.
    fn warm(stage: &mut Stage) -> anyhow::Result<(Self, [PathBuf; 2])> {
        let mounted = Self::make(stage)?;
        // How it came about is not what this is about.
        stage.settle()?;
        let programs = Self::PROGRAMS.map(in_usr_bin);
        for _ in 0..3 {
            run(Command::new(&programs[0]).arg("--version"))?;
            std::thread::sleep(Duration::from_millis(200));
        }
        nothing(stage, "before the change")?;
        Ok((mounted, programs))
    }

    fn bind(&self) -> anyhow::Result<()> {
        let [warm, cold] = Self::PROGRAMS;
        let point = self.point.display();
        let script = format!("for p in {warm} {cold}; do mount --bind {point}/$p /usr/bin/$p || exit; done");
        run(Command::new("/bin/sh").args(["-c", &script])).map(drop)
    }

    /// Changes the programs through the device. They are found on it by what they hold; the last byte of an ELF file's identification is
    /// padding. A program with one thread writes: the tracepoint flavour does not see what others close.
    fn write(&self, programs: &[&[u8]]) -> anyhow::Result<()> {
        let script = "import os,sys\n\
                      d=open(sys.argv[1],'r+b',0)\n\
                      b=d.read()\n\
                      while p:=sys.stdin.buffer.read(int.from_bytes(sys.stdin.buffer.read(8),'little')):\n\
                      \x20at=b.find(p)\n\
                      \x20assert at>=0\n\
                      \x20d.seek(at+15)\n\
                      \x20d.write(b'\\x01')\n\
                      os.fsync(d.fileno())\n\
                      d.close()";
        let mut command = Command::new("/usr/bin/python3");
        let mut writer = command.args(["-c", script, &self.device]).stdin(Stdio::piped()).spawn()?;
        let mut input = writer.stdin.take().context("no pipe")?;
        for program in programs {
            input.write_all(&(program.len() as u64).to_le_bytes())?;
            input.write_all(program)?;
        }
        drop(input);
        ensure!(writer.wait()?.success(), "the device was not written to");
        Ok(())
    }

    fn unmount(&self) -> anyhow::Result<()> {
        let [warm, cold] = Self::PROGRAMS;
        // The agent may be reading there.
        let script = format!(
            "umount /usr/bin/{warm} && umount /usr/bin/{cold} && umount --lazy {} && losetup -d {}",
            self.point.display(),
            self.device
        );
        run(Command::new("/bin/sh").args(["-c", &script])).map(drop)
    }
}

/// No file shows it.
fn block_device(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (mounted, [warm, cold]) = Mounted::warm(stage)?;
    let good = [world::sha256(&warm)?, world::sha256(&cold)?];
    mounted.write(&[&fs::read(&warm)?, &fs::read(&cold)?])?;
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    let mut expected = vec![
        Expect::new(File, Modified, &mounted.device)
            .operation("block_write")
            .severity(Severity::High)
            .says(mounted.point.display().to_string()),
    ];
    for (program, good) in [(&warm, &good[0]), (&cold, &good[1])] {
        run(Command::new(program).arg("--version"))?;
        ensure!(world::sha256(program)? != *good, "{} did not change", program.display());
        expected.push(found(Exec, Modified, program)?.severity(Severity::High));
    }
    stage.must_tell(&expected)?;
    mounted.unmount()?;
    stage.settle()?;
    Ok(Vec::new())
}

/// Its inodes are those of before when it is mounted again.
fn while_unmounted(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (mounted, [warm, cold]) = Mounted::warm(stage)?;
    let (good, program) = (world::sha256(&warm)?, fs::read(&warm)?);
    // The agent may be reading there.
    let script = format!(
        "umount {} {} && for n in $(seq 50); do umount {} && exit; sleep 0.1; done; exit 1",
        warm.display(),
        cold.display(),
        mounted.point.display()
    );
    run(Command::new("/bin/sh").args(["-c", &script]))?;
    mounted.write(&[&program])?;
    run(Command::new("mount").arg(&mounted.device).arg(&mounted.point))?;
    mounted.bind()?;
    for program in [&warm, &cold] {
        run(Command::new(program).arg("--version"))?;
    }
    ensure!(world::sha256(&warm)? != good, "{} did not change", warm.display());
    stage.must_tell(&[found(Exec, Modified, &warm)?.severity(Severity::High)])?;
    mounted.unmount()?;
    stage.settle()?;
    Ok(Vec::new())
}

/// The first program has a mount namespace of its own. When it ends nothing has the file system mounted any more, but somebody still works
/// in it.
fn mounted_elsewhere(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (image, point) = (stage.world.disk.join("elsewhere.img"), stage.world.disk.join("elsewhere"));
    fs::create_dir_all(&point)?;
    let script = format!(
        "set -e; truncate -s 16M {0}; mkfs.ext4 -q -F {0}; losetup --find --show {0}",
        image.display()
    );
    let device = String::from_utf8(run(Command::new("/bin/sh").args(["-c", &script]))?.stdout)?;
    let device = device.trim();
    let script = format!("mount {device} {} && echo && exec sleep 1000", point.display());
    let mut elsewhere = Command::new("/usr/bin/unshare");
    let mut elsewhere =
        elsewhere.args(["--mount", "/bin/sh", "-c", &script]).stdout(Stdio::piped()).spawn()?;
    std::io::Read::read_exact(elsewhere.stdout.as_mut().context("a pipe")?, &mut [0])?;
    // How it came about is not what this is about.
    stage.settle()?;
    let write = || {
        run(Command::new("/bin/dd")
            .args(["if=/dev/null", "conv=notrunc", "status=none"])
            .arg(format!("of={device}")))
    };
    let told = |says: String| {
        Expect::new(File, Modified, device).operation("block_write").severity(Severity::High).says(says)
    };
    write()?;
    stage.must_tell(&[told(format!("/proc/{}/root{}", elsewhere.id(), point.display()))])?;
    // Who has a directory of it open holds the file system when its namespace is gone.
    let held = fs::File::open(format!("/proc/{}/root{}", elsewhere.id(), point.display()))?;
    elsewhere.kill()?;
    elsewhere.wait()?;
    write()?;
    stage.must_tell(&[told("no place that a process sees (/sys/fs/ext4/".to_owned())])?;
    drop(held);
    // Nothing lies on it now, and nothing is told.
    let free =
        format!("until ! test -e /sys/fs/ext4/{}; do sleep 0.1; done", device.trim_start_matches("/dev/"));
    run(Command::new("/bin/sh").args(["-c", &free]))?;
    write()?;
    nothing(stage, "when it is mounted no more")?;
    run(Command::new("losetup").args(["-d", device]))?;
    Ok(Vec::new())
}

/// The writer opens the device before there is a file system on it. The digest of before is known to whoever keeps any.
fn mounted_while_open(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (image, point) = (stage.world.disk.join("early.img"), stage.world.disk.join("early"));
    fs::create_dir_all(&point)?;
    let script = format!("set -e; truncate -s 16M {0}; losetup --find --show {0}", image.display());
    let device = String::from_utf8(run(Command::new("/bin/sh").args(["-c", &script]))?.stdout)?;
    let device = device.trim();
    // A program of the SBOM, bound to where that has it, and an unknown one, whose findings say who has its digest kept.
    let (program, unknown) = (in_usr_bin("expand"), point.join("unknown"));
    let mount = format!(
        "set -e; mount {device} {0}; cp /usr/bin/expand {0}; cp /usr/bin/expand {1}; echo >>{1}; sync; mount --bind {0}/expand {2}",
        point.display(),
        unknown.display(),
        program.display()
    );
    let unmount = format!("umount {} && umount --lazy {}", program.display(), point.display());
    let sh = |script: &str| run(Command::new("/bin/sh").args(["-c", script])).map(drop);
    let warm = |stage: &mut Stage, kept: &'static [&'static str]| {
        for _ in 0..3 {
            for program in [&program, &unknown] {
                run(Command::new(program).arg("--version"))?;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let ran = found(Exec, Unauthorized, &unknown)?;
        stage.must_tell(&[ran.clone(), ran.clone(), ran.digest_from(kept)])
    };

    // Closed before it is mounted: nothing is told, and digests are kept when the agent has looked again.
    sh(&format!("mkfs.ext4 -q -F {device}; {mount}"))?;
    std::thread::sleep(Duration::from_secs(3));
    let of_device = |came: Vec<muster_proto::v1::Finding>| {
        came.into_iter().filter(|f| f.path == device).collect::<Vec<_>>()
    };
    let difference = Difference::of(&[], &of_device(stage.settle()?));
    ensure!(difference.is_empty(), "when it was closed before it was mounted:{difference}");
    warm(stage, &["kernel_cache", "agent_cache"])?;
    sh(&unmount)?;
    let gone =
        format!("until ! test -e /sys/fs/ext4/{}; do sleep 0.1; done", device.trim_start_matches("/dev/"));
    sh(&gone)?;

    // Opened, and held.
    // The device may have several copies of what the program holds.
    let script = "import os,sys\n\
                  d=open(sys.argv[1],'r+b',0)\n\
                  print(flush=True)\n\
                  good=bytes.fromhex(sys.stdin.readline())\n\
                  b=d.read()\n\
                  at=b.find(good)\n\
                  assert at>=0\n\
                  while at>=0:\n\
                  \x20d.seek(at+15)\n\
                  \x20d.write(b'\\x01')\n\
                  \x20at=b.find(good,at+1)\n\
                  os.fsync(d.fileno())\n\
                  print(flush=True)\n\
                  sys.stdin.read()";
    let mut writer = Command::new("/usr/bin/python3");
    let mut writer =
        writer.args(["-c", script, device]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut line = [0];
    std::io::Read::read_exact(writer.stdout.as_mut().context("a pipe")?, &mut line)?;
    // It is looked at, and nothing lies on it.
    std::thread::sleep(Duration::from_secs(2));
    nothing(stage, "before it is mounted")?;
    sh(&mount)?;
    std::thread::sleep(Duration::from_secs(3));
    let told = Expect::new(File, Modified, device).operation("block_write").severity(Severity::High);
    let told = told.says(format!("before it was closed, at {}", point.display()));
    let difference = Difference::of(&[told], &of_device(stage.settle()?));
    ensure!(difference.is_empty(), "when it was mounted:{difference}");
    warm(stage, &["kernel", "agent"])?;
    let good = world::sha256(&program)?;
    let hex: String = fs::read(&program)?.iter().map(|b| format!("{b:02x}")).collect();
    let input = writer.stdin.as_mut().context("a pipe")?;
    std::io::Write::write_all(input, format!("{hex}\n").as_bytes())?;
    std::io::Read::read_exact(writer.stdout.as_mut().context("a pipe")?, &mut line)?;
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    run(Command::new(&program).arg("--version"))?;
    ensure!(world::sha256(&program)? != good, "{} did not change", program.display());
    stage.must_tell(&[found(Exec, Modified, &program)?.severity(Severity::High)])?;
    drop(writer.stdin.take());
    ensure!(writer.wait()?.success(), "the writer failed");
    sh(&unmount)?;
    run(Command::new("losetup").args(["-d", device]))?;
    Ok(Vec::new())
}
