//! What a new user does with the system's own tools, which are in the image under test: packages, an initramfs, npm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use muster_proto::v1::{Kind::*, Severity, Verdict::*};

use super::super::{Scenario, Stage, found};
use super::{LATER, check, made, ran, write};
use crate::expect::Expect;
use crate::world::{self, run};

pub(super) fn scenarios() -> Vec<Scenario> {
    let quiet = |name, run| Scenario { name, run, may_lose: &[] };
    vec![
        quiet("a new user's hour: apt install and upgrade from a local repository", packages),
        quiet("a new user's hour: update-initramfs", initramfs),
        quiet("a new user's hour: npm install of a local tarball", npm),
    ]
}

/// Longer than what a package manager did is held back after its end.
const HELD: Duration = Duration::from_millis(2500);

/// Name of the package, and of its program.
const PACKAGE: &str = "muster-hour";

/// Of empty files the SBOM has no digest. That is told once of each, perhaps in an earlier scenario.
const EMPTY: [&str; 4] = [
    "/var/cache/debconf/passwords.dat",
    "/var/lib/dpkg/lock",
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/triggers/Lock",
];

/// A package with a program, a library and data, whose programs differ by version.
fn package(stage: &Stage, repository: &Path, version: &str) -> anyhow::Result<()> {
    let tree = repository.join("tree");
    let file = |name: &str, content: &[u8], mode| write(&tree.join(name), content, mode);
    let program = [fs::read(&stage.world.tool)?, version.as_bytes().to_vec()].concat();
    let library = [fs::read(stage.world.disk.join("libunknown.so"))?, version.as_bytes().to_vec()].concat();
    let names = [format!("usr/bin/{PACKAGE}"), format!("usr/lib/lib{PACKAGE}.so.1")];
    file(&names[0], &program, 0o755)?;
    file(&names[1], &library, 0o644)?;
    file(&format!("usr/share/{PACKAGE}/data"), b"no program\n", 0o644)?;
    let control = format!(
        "Package: {PACKAGE}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\n\
         Description: a package of a test\n"
    );
    file("DEBIAN/control", control.as_bytes(), 0o644)?;
    let sums = run(Command::new("md5sum").args(&names).current_dir(&tree))?;
    file("DEBIAN/md5sums", &sums.stdout, 0o644)?;
    let script = format!("#!/bin/sh\n# {version}\nexit 0\n");
    file("DEBIAN/postinst", script.as_bytes(), 0o755)?;
    let archive = repository.join("package.deb");
    run(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(&archive))?;
    fs::remove_dir_all(&tree)?;
    // As `dpkg-scanpackages` of dpkg-dev writes it, which is not in the image.
    let index = format!(
        "{control}Filename: ./package.deb\nSize: {}\nSHA256: {}\n",
        fs::metadata(&archive)?.len(),
        world::sha256(&archive)?
    );
    Ok(fs::write(repository.join("Packages"), index)?)
}

/// apt with this repository and no other.
fn apt(repository: &Path, args: &[&str]) -> anyhow::Result<()> {
    let option = |name: &str, path: &Path| format!("{name}={}", path.display());
    let mut command = Command::new("/usr/bin/apt-get");
    command.args(["--yes", "--quiet", "-o"]).arg(option("Dir::Etc::SourceList", &repository.join("list")));
    command.arg("-o").arg(option("Dir::Etc::SourceParts", &repository.join("parts")));
    run(command.args(args).env("DEBIAN_FRONTEND", "noninteractive"))?;
    Ok(())
}

/// What apt and dpkg do to the files of the SBOM that are their own, whatever the package. A file that comes anew for each run is here with
/// no digest.
fn bookkeeping() -> anyhow::Result<Vec<Expect>> {
    let own = |name: &str| found(File, Updated, Path::new(name));
    Ok(vec![
        own("/var/lib/dpkg/status-old")?.operation("link"),
        own("/var/lib/dpkg/status")?.operation("rename"),
        own("/var/log/dpkg.log")?.operation("close_write"),
        own("/var/log/apt/term.log")?.operation("close_write"),
        own("/var/log/apt/history.log")?.operation("close_write"),
        own("/var/log/apt/eipp.log.xz")?.operation("close_write"),
        // `update` and `install` each.
        Expect::new(File, Updated, "/var/cache/apt/pkgcache.bin").operation("rename"),
        Expect::new(File, Updated, "/var/cache/apt/pkgcache.bin").operation("rename"),
        Expect::new(File, Updated, "/var/cache/apt/srcpkgcache.bin").operation("rename"),
    ])
}

fn packages(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let repository = stage.world.disk.join("repository");
    fs::create_dir_all(repository.join("parts"))?;
    fs::write(repository.join("list"), format!("deb [trusted=yes] file:{} ./\n", repository.display()))?;
    let program = PathBuf::from("/usr/bin").join(PACKAGE);
    let library = PathBuf::from(format!("/usr/lib/lib{PACKAGE}.so.1"));
    let script = PathBuf::from(format!("/var/lib/dpkg/info/{PACKAGE}.postinst"));
    for (version, verb) in [("1.0", &["install", PACKAGE][..]), ("2.0", &["upgrade"])] {
        package(stage, &repository, version)?;
        stage.settle()?;
        apt(&repository, &["update"])?;
        apt(&repository, verb)?;
        std::thread::sleep(HELD);
        for _ in 0..2 {
            run(Command::new(&program).arg("exit").env("LD_PRELOAD", &library))?;
        }
        let mut came = stage.settle()?;
        came.retain(|f| {
            f.verdict() != PathOnly || f.severity() > Severity::Info || !EMPTY.contains(&f.path.as_str())
        });
        let own = [
            found(File, Updated, &program)?.operation("rename"),
            found(File, Updated, &library)?.operation("rename"),
            found(File, Updated, &script)?.operation("rename"),
            found(Exec, Updated, &script)?.parent("dpkg"),
            // Once for its content.
            found(Exec, Updated, &program)?,
            found(Library, Updated, &library)?,
        ];
        let expected: Vec<_> = bookkeeping()?.into_iter().chain(own).collect();
        check(verb[0], &came, &expected, &[(Severity::Info, expected.len())])?;
    }
    Ok(Vec::new())
}

/// Drivers are in no directory of the image, so it makes one of the tools alone. A kernel's configuration says what may unpack it.
fn initramfs(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    const VERSION: &str = "6.0.0-muster";
    let modules = Path::new("/lib/modules").join(VERSION);
    for name in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        write(&modules.join(name), b"", 0o644)?;
    }
    fs::write(Path::new("/boot").join(format!("config-{VERSION}")), "CONFIG_RD_GZIP=y\n")?;
    let drop_in = Path::new("/etc/initramfs-tools/conf.d/muster");
    fs::write(drop_in, "MODULES=list\nCOMPRESS=gzip\n")?;
    stage.settle()?;
    for verb in ["-c", "-u"] {
        run(Command::new("/usr/sbin/update-initramfs").args([verb, "-k", VERSION]))?;
        let came = stage.settle()?;
        check("update-initramfs", &came, &[], &[])?;
    }
    Ok(Vec::new())
}

fn npm(stage: &mut Stage) -> anyhow::Result<Vec<Expect>> {
    let home = stage.world.disk.join("npm");
    let package = home.join("package");
    let manifest = br#"{"name":"left-pad-x","version":"1.0.0","bin":{"left-pad-x":"bin/cli.js"}}"#;
    write(&package.join("package.json"), manifest, 0o644)?;
    let native = [fs::read(stage.world.disk.join("libunknown.so"))?, b"npm".to_vec()].concat();
    write(&package.join("build/native.node"), &native, 0o644)?;
    let program = b"#!/usr/bin/env node\ntry { require('../build/native.node') } catch {}\n";
    write(&package.join("bin/cli.js"), program, 0o755)?;
    let tarball = home.join("left-pad-x.tgz");
    run(Command::new("tar").arg("-czf").arg(&tarball).arg("-C").arg(&home).arg("package"))?;
    write(&home.join("project/package.json"), b"{}\n", 0o644)?;
    stage.settle()?;
    let project = home.join("project");
    run(Command::new("/usr/bin/npm")
        .args(["install", "--offline", "--no-audit", "--no-fund"])
        .arg(&tarball)
        .env("HOME", &home)
        .current_dir(&project))?;
    std::thread::sleep(LATER);
    run(&mut Command::new(project.join("node_modules/.bin/left-pad-x")))?;
    let installed = project.join("node_modules/left-pad-x");
    let (program, native) = (installed.join("bin/cli.js"), installed.join("build/native.node"));
    let mapped = found(Library, Unauthorized, &native)?.severity(Severity::Critical);
    let mut expected =
        vec![made(&program)?, made(&program)?.operation("chmod"), made(&native)?, ran(&program)?, mapped];
    // It unpacks twice before, to see what is in there, each time into a directory with a name of its own.
    let unpacked = home.join(".npm/_cacache/tmp");
    for _ in 0..2 {
        for (file, name) in [(&program, "*/bin/cli.js"), (&native, "*/build/native.node")] {
            expected.push(made(file)?.at(unpacked.join(name).display().to_string()));
        }
    }
    let mut came = stage.settle()?;
    let start = format!("{}/", unpacked.display());
    for finding in &mut came {
        if let Some((_, name)) = finding.path.strip_prefix(&start).and_then(|rest| rest.split_once('/')) {
            finding.path = format!("{start}*/{name}");
        }
    }
    check("npm install", &came, &expected, &[(Severity::Low, 7), (Severity::Critical, 2)])?;
    Ok(Vec::new())
}
