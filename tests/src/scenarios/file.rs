//! Files of the SBOM that change, and new executables that are dropped.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use muster_proto::v1::{Kind::*, Severity, Verdict::*};

use super::{Scenario, Stage, found, in_usr_bin};
use crate::expect::{Difference, Expect};
use crate::world;

pub(super) fn scenarios() -> Vec<Scenario> {
    let seen = |name, run| Scenario { name, run, may_lose: &[] };
    vec![
        seen("file of the SBOM overwritten", overwritten),
        seen("file of the SBOM renamed over", renamed_over),
        seen("file of the SBOM truncated", truncated),
        seen("file of the SBOM changed through a writable mapping", mapped),
        seen("file of the SBOM changed, closed by an exit", closed_by_exit),
        seen("file of the SBOM unlinked", unlinked),
        seen("file of the SBOM that its user may not remove, move or change", denied),
        seen("directory of the SBOM renamed, and put back", directory),
        seen("unknown program written before its only name is made", nameless),
        seen("new executable dropped and never run", dropped),
        seen("chmod +x of an unknown file", made_executable),
        seen("unknown data file written", data_file),
    ]
}

/// What the suite itself did: its parent is whoever started it.
pub(super) fn by_suite(expect: Expect, severity: Severity) -> anyhow::Result<Vec<Expect>> {
    let parent = format!("/proc/{}/comm", std::os::unix::process::parent_id());
    let parent = fs::read_to_string(&parent).context(parent)?;
    Ok(vec![expect.severity(severity).parent(parent.trim_end())])
}

fn overwritten(_: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let file = in_usr_bin("tac");
    let mut out = fs::OpenOptions::new().append(true).open(&file)?;
    out.write_all(b"\0")?;
    drop(out);
    by_suite(found(File, Modified, &file)?.operation("close_write"), Severity::High)
}

fn renamed_over(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let file = in_usr_bin("sum");
    fs::rename(stage.world.disk.join("new-sum"), &file)?;
    by_suite(found(File, Modified, &file)?.operation("rename"), Severity::High)
}

fn truncated(_: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let file = in_usr_bin("tsort");
    nix::unistd::truncate(&file, 100)?;
    by_suite(found(File, Modified, &file)?.operation("truncate"), Severity::High)
}

fn mapped(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let file = in_usr_bin("pinky");
    stage.world.run_tool(&["map-write", &file.display().to_string()])?;
    Ok(vec![
        found(Exec, Unauthorized, &stage.world.tool)?,
        found(File, Modified, &file)?.operation("close_write").parent("suite"),
    ])
}

fn closed_by_exit(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let file = in_usr_bin("nl");
    let script = format!("exec 9>>{}; echo >&9; exit 0", file.display());
    let change = || -> anyhow::Result<Vec<Expect>> {
        world::run(Command::new("/bin/sh").args(["-c", &script]))?;
        Ok(vec![found(File, Modified, &file)?.operation("close_write").parent("suite")])
    };
    // Each time: what the first exit left behind must not hide the next.
    for _ in 0..2 {
        let difference = Difference::of(&change()?, &stage.settle()?);
        ensure!(difference.is_empty(), "changed and closed by an exit:{difference}");
    }
    change()
}

fn unlinked(_: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let file = in_usr_bin("shuf");
    fs::remove_file(&file)?;
    by_suite(Expect::new(File, Modified, file.display().to_string()).operation("unlink"), Severity::High)
}

/// The hooks of the LSM come before the kernel asks for permission.
fn denied(_: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    for deed in ["rm -f /usr/bin/ls", "mv -f /usr/bin/ls /usr/bin/ls.old", "chmod u+s /usr/bin/ls"] {
        let output = Command::new("/usr/bin/setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "/bin/sh", "-c", deed])
            .output()?;
        ensure!(!output.status.success(), "nobody may {deed}");
    }
    Ok(Vec::new())
}

fn directory(_: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let directory = Path::new("/usr/share/doc/coreutils");
    let elsewhere = directory.with_extension("elsewhere");
    fs::rename(directory, &elsewhere)?;
    fs::rename(&elsewhere, directory)?;
    let renamed = Expect::new(File, Modified, directory.display().to_string()).operation("rename");
    Ok([by_suite(renamed.clone(), Severity::High)?, by_suite(renamed, Severity::High)?].concat())
}

/// The name that it was opened by never was one; the one that it has was made while it was empty.
fn nameless(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let file = stage.world.disk.join("nameless");
    let program = fs::read(&stage.world.tool)?;
    let mut open = fs::OpenOptions::new()
        .write(true)
        .custom_flags(nix::libc::O_TMPFILE)
        .mode(0o644)
        .open(&stage.world.disk)?;
    let by_descriptor = format!("/proc/self/fd/{}", open.as_raw_fd());
    nix::unistd::linkat(
        nix::fcntl::AT_FDCWD,
        by_descriptor.as_str(),
        nix::fcntl::AT_FDCWD,
        &file,
        nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW,
    )?;
    // An agent that looks at the file after the link must find it empty.
    let difference = Difference::of(&[], &stage.settle()?);
    ensure!(difference.is_empty(), "a link to an empty file:{difference}");
    open.write_all(&program)?;
    open.set_permissions(fs::Permissions::from_mode(0o755))?;
    drop(open);
    by_suite(found(File, Unauthorized, &file)?.operation("close_write"), Severity::Low)
}

fn dropped(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let file = stage.world.disk.join("dropped");
    world::copy(&stage.world.tool, &file)?;
    by_suite(found(File, Unauthorized, &file)?.operation("close_write"), Severity::Low)
}

fn made_executable(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let file = stage.world.disk.join("not-executable");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    by_suite(found(File, Unauthorized, &file)?.operation("chmod"), Severity::Low)
}

fn data_file(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    fs::write(stage.world.disk.join("data"), "no program")?;
    Ok(Vec::new())
}
