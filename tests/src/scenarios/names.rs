//! Files of the SBOM that change without a write through their name.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use muster_proto::v1::{Kind::*, Severity, Verdict::*};
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2};
use nix::sys::stat::Mode;

use super::file::by_suite;
use super::{Scenario, Stage, found, in_usr_bin};
use crate::expect::{Difference, Expect};
use crate::world;

pub(super) fn scenarios() -> Vec<Scenario> {
    let seen = |name, run| Scenario { name, run, may_lose: &[] };
    vec![
        seen("no file renamed over a file of the SBOM", replaced),
        seen("names exchanged with a file of the SBOM", exchanged),
        seen("file of the SBOM emptied by an open for reading", emptied),
        seen("file of the SBOM changed through a hard link", linked),
        seen("file of the SBOM changed through a bind mount", bound),
        seen("file of the SBOM changed by who has its file system as root directory", rooted),
        seen("no file of the SBOM in a file system that a process has for itself", of_its_own),
        seen("file of the SBOM changed by who has moved its file system over his root", pivoted),
        seen("file of the SBOM changed by who has bound its file system over his root", stacked),
        seen("no file of the SBOM changed in the root directory of another process", in_root_of_another),
        seen("file of the SBOM changed by a container in the root directory of process 1", in_hosts_root),
        seen("inode number of a file of the SBOM given away again", given_away),
        seen("file of the SBOM held open for write", held),
        seen("execute bit that is gone again on no file of the SBOM", temporary),
        seen("rights given to a file of the SBOM", granted),
    ]
}

/// Longer than the agent waits for a close, and than its clock's ticks.
const HELD: Duration = Duration::from_millis(11_500);

/// Data of the image's SBOM that no scenario but one uses: tables of perl-base, no programs.
fn attested_data(name: &str) -> PathBuf {
    Path::new(world::DATA).join(name)
}

fn modified(file: &Path, operation: &'static str) -> anyhow::Result<Vec<Expect>> {
    let expect = Expect::new(File, Modified, file.display().to_string()).operation(operation);
    by_suite(expect, Severity::High)
}

/// `ln -sfT` does it so.
fn replaced(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let new = stage.world.disk.join("no-file");
    let (link, fifo) = (attested_data("Age/V11.pl"), attested_data("Age/V20.pl"));
    symlink("/opt/fixtures/data", &new)?;
    fs::rename(&new, &link)?;
    nix::unistd::mkfifo(&new, Mode::from_bits_truncate(0o644))?;
    fs::rename(&new, &fifo)?;
    // Over what the SBOM does not have.
    symlink("/opt/fixtures/data", &new)?;
    fs::rename(&new, stage.world.disk.join("no-file-either"))?;
    Ok([modified(&link, "rename")?, modified(&fifo, "rename")?].concat())
}

fn exchanged(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (link, copy) = (stage.world.disk.join("exchanged-link"), stage.world.disk.join("exchanged-copy"));
    let (taken, kept) = (attested_data("Age/V30.pl"), attested_data("Age/V31.pl"));
    symlink("/opt/fixtures/data", &link)?;
    world::copy(&kept, &copy)?;
    for (one, other) in [(&link, &taken), (&kept, &copy)] {
        renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)
            .with_context(|| one.display().to_string())?;
    }
    // The same content has the name that was exchanged last.
    modified(&taken, "exchange")
}

fn emptied(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (file, other) = (attested_data("Age/V32.pl"), stage.world.disk.join("emptied"));
    fs::write(&other, "no program")?;
    for file in [&file, &other] {
        fs::OpenOptions::new().read(true).custom_flags(OFlag::O_TRUNC.bits()).open(file)?;
    }
    by_suite(found(File, Modified, &file)?.operation("truncate"), Severity::High)
}

fn linked(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (file, before) = (attested_data("Age/V40.pl"), attested_data(world::LINKED_BEFORE));
    let disk = &stage.world.disk;
    fs::hard_link(&file, disk.join("linked-since"))?;
    // Data of nobody's, and what is opened and left as it is.
    fs::write(disk.join("own"), "no program")?;
    fs::hard_link(disk.join("own"), disk.join("own-too"))?;
    fs::hard_link(attested_data("Age/V41.pl"), disk.join("linked-and-left"))?;
    fs::OpenOptions::new().append(true).open(disk.join("linked-and-left"))?;
    for name in ["linked-since", "linked-before", "own-too"] {
        world::append(&disk.join(name))?;
    }
    let close = |file: &Path| by_suite(found(File, Modified, file)?.operation("close_write"), Severity::High);
    Ok([close(&file)?, close(&before)?].concat())
}

fn bound(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let at = stage.world.disk.join("bound");
    fs::create_dir_all(&at)?;
    world::run(Command::new("mount").arg("--bind").arg(attested_data("Age")).arg(&at))?;
    world::append(&at.join("V50.pl"))?;
    fs::OpenOptions::new().append(true).open(at.join("V51.pl"))?;
    fs::write(at.join("new"), "no program")?;
    fs::remove_file(at.join("V52.pl"))?;
    world::run(Command::new("umount").arg(&at))?;
    let (changed, removed) = (attested_data("Age/V50.pl"), attested_data("Age/V52.pl"));
    let changed = by_suite(found(File, Modified, &changed)?.operation("close_write"), Severity::High)?;
    let removed = modified(&removed, "unlink")?;
    Ok(changed.into_iter().chain(removed.into_iter().map(|e| e.blind("by another mount"))).collect())
}

/// As `/boot` or `/usr` may be a file system of its own.
fn rooted(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let script = "import os,sys\n\
                  os.chroot(sys.argv[1])\n\
                  open('/V61.pl','a').write('x')\n\
                  open('/new','w').write('no program')";
    changed_in_mounted(stage, "rooted.img", "V61.pl", Command::new("/usr/bin/python3").args(["-c", script]))
}

/// Mounts a file system over a directory of the SBOM's, and runs what changes a file there, with the directory as its last argument.
fn changed_in_mounted(
    stage: &mut Stage,
    image: &str,
    file: &str,
    change: &mut Command,
) -> anyhow::Result<Vec<Expect>> {
    let (image, directory) = (stage.world.disk.join(image), attested_data("Age"));
    let device = mounted_over(&image, &directory)?;
    stage.settle()?;
    world::run(change.arg(&directory))?;
    let changed = found(File, Modified, &directory.join(file))?;
    stage.must_tell(&[changed.operation("close_write").severity(Severity::High)])?;
    unmounted(&directory, &device)?;
    stage.settle()?;
    Ok(Vec::new())
}

/// Whoever may have namespaces of his own has a `/usr/bin` of his own, which is none of the host's.
fn of_its_own(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (own, tool) = (attested_data("Age/V80.pl"), &stage.world.tool);
    let script = "import os,sys,time\n\
                  own,tool=sys.argv[1:]\n\
                  program=open(tool,'rb').read()\n\
                  os.chroot('/mnt')\n\
                  os.makedirs(os.path.dirname(own))\n\
                  open(own,'wb').write(program)\n\
                  time.sleep(4)";
    let mounts = "mount -t tmpfs none /mnt && exec python3 -c \"$@\"";
    let arguments = [own.as_os_str(), tool.as_os_str()];
    let shell = ["--mount", "/bin/sh", "-c", mounts, "sh", script];
    world::run(Command::new("/usr/bin/unshare").args(shell).args(arguments))?;
    let made = Expect::new(File, Unauthorized, own.display().to_string()).operation("close_write");
    stage.must_tell(&[made.severity(Severity::Low).says("mounted for its process only")])?;
    Ok(Vec::new())
}

/// His root directory is the file system's then, and nothing in a path says where the host has it.
fn pivoted(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let script = "import ctypes,os,sys\n\
                  os.chdir(sys.argv[1])\n\
                  assert ctypes.CDLL(None).syscall(155,b'.',b'old')==0\n\
                  open('/V70.pl','a').write('x')";
    let pivots = ["--mount", "/usr/bin/python3", "-c", script];
    changed_in_mounted(stage, "pivoted.img", "V70.pl", Command::new("/usr/bin/unshare").args(pivots))
}

/// The mount over the root of his namespace hides nothing from the host.
fn stacked(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let script = "import os\nos.chroot('/..')\nopen('/V70.pl','a').write('x')";
    let binds = "mount --bind \"$2\" / && exec python3 -c \"$1\"";
    let shell = ["--mount", "/bin/sh", "-c", binds, "sh", script];
    changed_in_mounted(stage, "stacked.img", "V70.pl", Command::new("/usr/bin/unshare").args(shell))
}

/// His own mount namespace is the host's, and says nothing of his paths.
fn in_root_of_another(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (directory, ready) = (attested_data("Age"), stage.world.disk.join("other-root"));
    let mounts = "mount -t tmpfs none \"$1\" && : >\"$2\" && exec sleep 1000";
    let shell = ["--mount", "/bin/sh", "-c", mounts, "sh"];
    let mut other = Command::new("/usr/bin/unshare").args(shell).arg(&directory).arg(&ready).spawn()?;
    for _ in 0..200 {
        if ready.exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    ensure!(ready.exists(), "nothing is mounted");
    let script = "import os,sys\nos.chroot(sys.argv[1])\nopen(sys.argv[2],'w').write('no program')";
    let root = format!("/proc/{}/root", other.id());
    let written = world::run(
        Command::new("/usr/bin/python3").args(["-c", script, &root]).arg(directory.join("V70.pl")),
    );
    let came = stage.settle();
    other.kill()?;
    other.wait()?;
    written?;
    let difference = Difference::of(&[], &came?);
    ensure!(difference.is_empty(), "the findings differ:{difference}");
    Ok(Vec::new())
}

/// Its own paths are the host's then.
fn in_hosts_root(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let file = attested_data("Bc/AN.pl");
    let script = "cd / && mount -t proc none /mnt && exec python3 -c \"$1\" \"$2\"";
    let changes = "import os,sys\nos.chroot('/mnt/1/root')\nopen(sys.argv[1],'a').write('x')";
    let path = file.display().to_string();
    let arguments = ["--mount", "/bin/sh", "-c", script, "sh", changes, &path];
    stage.world.in_container("/usr/bin/unshare", &arguments)?;
    let changed = found(File, Modified, &file)?.operation("close_write").severity(Severity::High);
    let changed = changed.workload(format!("docker://{}", world::CONTAINER));
    stage.must_tell(&[changed.clone(), changed.says("a container changed this file of the host")])?;
    Ok(Vec::new())
}

/// Mounts a file system with the same files, and a directory `old`, over a directory of the SBOM's.
fn mounted_over(image: &Path, at: &Path) -> anyhow::Result<String> {
    let (image, at) = (image.display(), at.display());
    let script = format!(
        "set -e; truncate -s 16M {image}; mkfs.ext4 -q -F {image}; d=$(losetup --find --show {image}); mount $d /mnt; \
         cp -a {at}/. /mnt; mkdir /mnt/old; umount /mnt; mount $d {at}; echo $d"
    );
    let device = world::run(Command::new("/bin/sh").args(["-c", &script]))?;
    Ok(String::from_utf8(device.stdout)?.trim().to_owned())
}

/// The agent may be reading there.
fn unmounted(at: &Path, device: &str) -> anyhow::Result<()> {
    let script = format!("umount --lazy {} && losetup -d {device}", at.display());
    world::run(Command::new("/bin/sh").args(["-c", &script]))?;
    Ok(())
}

/// A new file with the number of one that had several names, one of them in the SBOM.
fn given_away(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let old = attested_data("Age/V60.pl");
    let (link, directory) = (old.with_extension("link"), attested_data("Age"));
    fs::hard_link(&old, &link)?;
    let number = fs::metadata(&old)?.ino();
    fs::remove_file(&link)?;
    fs::remove_file(&old)?;
    let difference = Difference::of(&modified(&old, "unlink")?, &stage.settle()?);
    ensure!(difference.is_empty(), "removed:{difference}");
    // The file system gives away the lowest number that is free.
    let mut made = Vec::new();
    let mut open = None;
    for n in 0..64 {
        let file = directory.join(format!("given-{n}"));
        let new = fs::File::create_new(&file)?;
        if new.metadata()?.ino() == number {
            open = Some((file, new));
            break;
        }
        made.push(file);
    }
    let (file, mut new) = open.context("no file got the number of the one that was removed")?;
    let named = stage.world.disk.join("given-away");
    fs::hard_link(&file, &named)?;
    fs::remove_file(&file)?;
    new.write_all(&fs::read(&stage.world.tool)?)?;
    new.set_permissions(fs::Permissions::from_mode(0o755))?;
    drop(new);
    made.iter().try_for_each(fs::remove_file)?;
    by_suite(found(File, Unauthorized, &named)?.operation("close_write"), Severity::Low)
}

fn held(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (by_others, by_itself, left) =
        (attested_data("Age/V61.pl"), attested_data("Age/V70.pl"), attested_data("Age/V80.pl"));
    let open = |file: &Path| fs::OpenOptions::new().append(true).open(file);
    let (first, mut second, third) = (open(&by_others)?, open(&by_itself)?, open(&left)?);
    // The last writer's close does not come. Another's does.
    world::append(&by_others)?;
    second.write_all(b"#")?;
    let told = |file: &Path| by_suite(found(File, Modified, file)?.operation("open_write"), Severity::High);
    let at_once = told(&by_others)?;
    let difference = Difference::of(&at_once, &stage.settle()?);
    ensure!(difference.is_empty(), "closed by another:{difference}");
    std::thread::sleep(HELD);
    let later = told(&by_itself)?;
    let difference = Difference::of(&later, &stage.settle()?);
    ensure!(difference.is_empty(), "held:{difference}");
    drop((first, second, third));
    let closed =
        |file: &Path| by_suite(found(File, Modified, file)?.operation("close_write"), Severity::High);
    Ok([closed(&by_others)?, closed(&by_itself)?].concat())
}

/// `git` tries out the file system by its configuration file's execute bit; compilers write relocatable objects.
fn temporary(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let disk = &stage.world.disk;
    let (gone, kept, object) = (disk.join("bit-gone"), disk.join("bit-kept"), disk.join("object"));
    let mode = |file: &Path, mode| fs::set_permissions(file, fs::Permissions::from_mode(mode));
    for file in [&gone, &kept] {
        fs::write(file, "no program")?;
        mode(file, 0o755)?;
    }
    mode(&gone, 0o644)?;
    // ELF-64, little endian, ET_REL.
    fs::write(&object, [b"\x7fELF\x02\x01\x01", [0; 9].as_slice(), &[1, 0, 62, 0]].concat())?;
    mode(&object, 0o755)?;
    std::thread::sleep(Duration::from_secs(2));
    by_suite(found(File, Unauthorized, &kept)?.operation("chmod"), Severity::Low)
}

/// `cp /bin/bash x; chmod u+s x`, `setcap cap_setuid+ep /usr/bin/python3`.
fn granted(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let (program, copy) = (in_usr_bin("uniq"), stage.world.disk.join("set-id"));
    world::copy(&program, &copy)?;
    // What a copy is before it has rights is another scenario's.
    stage.settle()?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o4755))?;
    // Version 2, effective; CAP_SETUID permitted.
    let set = |attribute: &str| {
        // Perl hands over no literals.
        let script = format!(
            "my($f,$a,$v)=($ARGV[0],'{attribute}',pack('V5',0x02000001,1<<7,0,0,0));\
             exit(syscall(188,$f,$a,$v,20,0)!=0)"
        );
        world::run(Command::new("/usr/bin/perl").args(["-e", &script]).arg(&program))
    };
    set("user.nothing")?;
    set("security.capability")?;
    let by_suite = by_suite(found(File, Relocated, &copy)?.operation("chmod"), Severity::High)?;
    let capability = found(File, Modified, &program)?.operation("capability").severity(Severity::High);
    Ok([by_suite, vec![capability.parent("suite")]].concat())
}
