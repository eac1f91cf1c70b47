//! What the virtual machine holds: the image's programs, the fixtures made before the agent starts, a container.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use sha2::{Digest as _, Sha256};

/// Where the test's inputs lie: `muster`, `tool`, `attestations/`, `key.pub`, `image-digest`.
pub const INPUTS: &str = "/muster";
/// The agent's drop directory: a copy, for the inputs are read-only.
pub const ATTESTATIONS: &str = "/opt/fixtures/attestations";
/// Log of the agent under test.
pub const AGENT_LOG: &str = "/run/muster-test/agent.log";
/// Findings of the agents under test, a line each.
pub const FINDINGS: &str = "/run/muster-test/findings.jsonl";
/// Process id of the container's first process.
pub const CONTAINER_PID: &str = "/run/muster-test/container.pid";
/// Container id of the test container, as a runtime would make one.
pub const CONTAINER: &str = "5d41402abc4b2a76b9719d911017c5925d41402abc4b2a76b9719d911017c592";

/// Data files of the image's SBOM, by the hundred: tables of perl-base.
pub const DATA: &str = "/usr/lib/x86_64-linux-gnu/perl-base/unicore/lib";
/// One of them, which has another name before the agent starts.
pub const LINKED_BEFORE: &str = "Age/V90.pl";

/// The program of the test's package.
pub const PACKAGED: &str = "/usr/bin/muster-packaged";

/// Directories and files of the run.
pub struct World {
    /// Fixtures on disk, outside the image's SBOM.
    pub disk: PathBuf,
    /// Fixtures on tmpfs.
    pub tmpfs: PathBuf,
    /// The program that is in no SBOM.
    pub tool: PathBuf,
    /// Root of the test container, as the host sees it.
    pub container_root: PathBuf,
    /// Configuration of the agent.
    pub config: PathBuf,
    /// Socket of the agent.
    pub socket: PathBuf,
}

impl World {
    /// Makes every fixture. To be called before the agent starts, so that making them is not part of a scenario.
    ///
    /// # Errors
    /// Something of the machine is not as the suite needs it; the message says what.
    pub fn prepare() -> anyhow::Result<Self> {
        let world = Self {
            disk: "/opt/fixtures".into(),
            tmpfs: "/dev/shm/fixtures".into(),
            tool: "/opt/fixtures/tool".into(),
            container_root: "/run/container/root".into(),
            config: "/run/muster-test/muster.toml".into(),
            socket: "/run/muster-test/muster.sock".into(),
        };
        for dir in [&world.disk, &world.tmpfs] {
            fs::create_dir_all(dir)?;
        }
        fs::create_dir_all("/run/muster-test")?;
        copy(&Path::new(INPUTS).join("tool"), &world.tool)?;
        world.files()?;
        world.make_package()?;
        world.container()?;
        world.layers()?;
        world.make_exported()?;
        world.configure()?;
        Ok(world)
    }

    fn files(&self) -> anyhow::Result<()> {
        let attested = Path::new("/usr/bin/true");
        copy(attested, &self.disk.join("copied-true"))?;
        copy(attested, &self.tmpfs.join("copied-true"))?;
        copy(&self.tool, &self.tmpfs.join("tool"))?;
        copy(&self.tool, &self.disk.join("unlinks-itself"))?;
        copy(&self.tool, &self.disk.join("last"))?;
        fs::hard_link(attested, self.disk.join("linked-true"))?;
        symlink(attested, self.disk.join("symlinked-true"))?;
        fs::hard_link(Path::new(DATA).join(LINKED_BEFORE), self.disk.join("linked-before"))?;
        fs::write(self.disk.join("unknown.sh"), "#!/bin/sh\nexit 0\n")?;
        fs::set_permissions(self.disk.join("unknown.sh"), fs::Permissions::from_mode(0o755))?;
        // The kernel follows interpreters of interpreters; the last one runs the one before it.
        for (name, interpreter) in [("first.sh", "second.sh"), ("second.sh", "third.sh"), ("third.sh", "")] {
            let interpreter = match interpreter {
                "" => "/bin/sh".to_owned(),
                name => self.disk.join(name).display().to_string(),
            };
            fs::write(self.disk.join(name), format!("#!{interpreter}\nexit 0\n"))?;
            fs::set_permissions(self.disk.join(name), fs::Permissions::from_mode(0o755))?;
        }
        fs::write(self.disk.join("not-executable"), "#!/bin/sh\nexit 0\n")?;
        fs::set_permissions(self.disk.join("not-executable"), fs::Permissions::from_mode(0o644))?;
        // One byte after the end of an ELF file changes its digest and nothing else.
        let zlib = fs::canonicalize("/usr/lib/x86_64-linux-gnu/libz.so.1")?;
        copy(&zlib, &self.disk.join("libunknown.so"))?;
        append(&self.disk.join("libunknown.so"))?;
        append(Path::new("/usr/bin/wc"))?;
        copy(Path::new("/usr/bin/sum"), &self.disk.join("new-sum"))?;
        append(&self.disk.join("new-sum"))?;
        fs::create_dir_all(self.disk.join("flood"))?;
        copy(&self.disk.join("libunknown.so"), &self.disk.join("libprotected.so"))?;
        for (name, interpreter) in [("tiny", None), ("no-interpreter", Some("/no/such/interpreter"))] {
            let file = self.disk.join(name);
            fs::write(&file, tiny_program(interpreter))?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        }
        // A hole costs nobody a byte of disk.
        for directory in [&self.disk, &self.tmpfs] {
            let file = directory.join("giant");
            fs::write(&file, tiny_program(None))?;
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
            fs::OpenOptions::new().write(true).open(&file)?.set_len(3 << 30)?;
        }
        Ok(())
    }

    /// Layers of an overlay that a user mounts, with a copy of a program of the image.
    fn layers(&self) -> anyhow::Result<()> {
        for directory in ["lower", "empty"] {
            fs::create_dir_all(self.beneath().join(directory))?;
        }
        copy(Path::new("/usr/bin/sleep"), &self.beneath().join("lower/sleep"))?;
        Ok(())
    }

    /// Where the layers of a user's overlay are.
    pub fn beneath(&self) -> PathBuf {
        self.disk.join("beneath")
    }

    /// What a server exports: an unknown program, a copy of one of the image, and an unknown library.
    fn make_exported(&self) -> anyhow::Result<()> {
        let exported = self.exported();
        fs::create_dir_all(&exported)?;
        copy(&self.tool, &exported.join("unknown"))?;
        copy(Path::new("/usr/bin/true"), &exported.join("copied-true"))?;
        copy(&self.disk.join("libunknown.so"), &exported.join("libunknown.so"))
    }

    /// Where lies what a server exports.
    pub fn exported(&self) -> PathBuf {
        self.disk.join("exported")
    }

    /// A package for dpkg, with a program, a link to it, a data file, and a script that runs when it is installed.
    fn make_package(&self) -> anyhow::Result<()> {
        let tree = self.disk.join("package");
        let control = tree.join("DEBIAN");
        let program = tree.join(&PACKAGED[1..]);
        fs::create_dir_all(&control)?;
        fs::create_dir_all(tree.join("usr/bin"))?;
        fs::create_dir_all(tree.join("usr/share/muster-packaged"))?;
        copy(&self.tool, &program)?;
        append(&program)?;
        symlink("muster-packaged", tree.join("usr/bin/muster-packaged-link"))?;
        fs::write(tree.join("usr/share/muster-packaged/data"), "no program\n")?;
        fs::write(
            control.join("control"),
            "Package: muster-packaged\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\n\
             Description: a package of a test\n",
        )?;
        let sums = run(Command::new("md5sum").arg(&PACKAGED[1..]).current_dir(&tree))?;
        fs::write(control.join("md5sums"), sums.stdout)?;
        fs::write(control.join("postinst"), "#!/bin/sh\nexit 0\n")?;
        fs::set_permissions(control.join("postinst"), fs::Permissions::from_mode(0o755))?;
        run(Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&tree).arg(self.package()))?;
        fs::remove_dir_all(&tree)?;
        Ok(())
    }

    /// The test's package.
    pub fn package(&self) -> PathBuf {
        self.disk.join("package.deb")
    }

    /// A container as a runtime makes it: overlay root over the image, own cgroup; its mount namespace is made when a
    /// program is run in it.
    fn container(&self) -> anyhow::Result<()> {
        let base = Path::new("/run/container");
        for dir in ["upper", "work", "root"] {
            fs::create_dir_all(base.join(dir))?;
        }
        run(Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o"])
            .arg("lowerdir=/,upperdir=/run/container/upper,workdir=/run/container/work")
            .arg(&self.container_root))?;
        copy(&self.tool, &self.container_root.join("opt/in-container"))?;
        fs::create_dir_all(self.cgroup())?;
        // Its first process, which holds the namespace as long as the machine runs.
        let first = format!(
            "echo $$ > {}/cgroup.procs && exec unshare --mount --root={} /bin/sleep 1000000",
            self.cgroup().display(),
            self.container_root.display()
        );
        let child = Command::new("/bin/sh").args(["-c", &first]).spawn()?;
        fs::write(CONTAINER_PID, child.id().to_string())?;
        Ok(())
    }

    /// The test container's cgroup.
    pub fn cgroup(&self) -> PathBuf {
        Path::new("/sys/fs/cgroup/docker").join(CONTAINER)
    }

    fn configure(&self) -> anyhow::Result<()> {
        let image = image_digest()?;
        fs::create_dir_all(ATTESTATIONS)?;
        for entry in fs::read_dir(Path::new(INPUTS).join("attestations"))? {
            let entry = entry?;
            fs::copy(entry.path(), Path::new(ATTESTATIONS).join(entry.file_name()))?;
        }
        fs::write(
            &self.config,
            format!(
                "[host]\nimage = \"{image}\"\n\n\
                 [[workload]]\ncontainer = \"{CONTAINER}\"\nname = \"web\"\nimage = \"{image}\"\n\n\
                 [attestation]\ndirectory = \"{ATTESTATIONS}\"\nkeys = [\"{INPUTS}/key.pub\"]\n\n\
                 [feed]\nsocket = \"{}\"\njson_lines = \"{FINDINGS}\"\nclient_queue = 65536\n",
                self.socket.display()
            ),
        )?;
        Ok(())
    }

    /// Runs a program in the test container: in its cgroup, a mount namespace of its own and its root.
    ///
    /// # Errors
    /// It could not be run or did not end with status 0.
    pub fn in_container(&self, program: &str, args: &[&str]) -> anyhow::Result<Output> {
        run(&mut self.container_command(program, args)?)
    }

    /// The command that runs a program in the test container.
    ///
    /// # Errors
    /// The container's first process is not known.
    pub fn container_command(&self, program: &str, args: &[&str]) -> anyhow::Result<Command> {
        self.container_command_in(&self.cgroup(), program, args)
    }

    /// Like [`Self::container_command`], in another cgroup.
    ///
    /// # Errors
    /// As there.
    pub fn container_command_in(
        &self,
        cgroup: &Path,
        program: &str,
        args: &[&str],
    ) -> anyhow::Result<Command> {
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec nsenter --target {} --mount --root \"$@\"",
            cgroup.display(),
            fs::read_to_string(CONTAINER_PID)?
        );
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, "sh", program]).args(args);
        Ok(command)
    }

    /// Runs `tool` with these arguments.
    ///
    /// # Errors
    /// It could not be run or did not end with status 0.
    pub fn run_tool(&self, args: &[&str]) -> anyhow::Result<Output> {
        run(Command::new(&self.tool).args(args))
    }
}

/// The digest of the image, `sha256:…`.
///
/// # Errors
/// It is not among the inputs.
pub fn image_digest() -> anyhow::Result<String> {
    let image = fs::read_to_string(Path::new(INPUTS).join("image-digest"));
    Ok(image.context("no image digest among the inputs")?.trim().to_owned())
}

/// The smallest program that the kernel runs: one segment, `exit(0)`. Ten thousand of it are a burst even for an emulated
/// machine. With an interpreter that is not there the kernel refuses it. (ELF-64 header and program headers as in elf(5).)
fn tiny_program(interpreter: Option<&str>) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADER: u64 = 64;
    const SEGMENT: u64 = 56;
    // mov eax, 60; xor edi, edi; syscall
    let code = [0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];
    let name: Vec<u8> = interpreter.map(|i| [i.as_bytes(), b"\0"].concat()).unwrap_or_default();
    let segments: u16 = if interpreter.is_some() { 2 } else { 1 };
    let start = HEADER + SEGMENT * u64::from(segments);
    let (code_size, name_size) = (code.len() as u64, name.len() as u64);
    let size = start + code_size + name_size;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    let halves = |elf: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| elf.extend(v.to_le_bytes()));
    let words = |elf: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|v| elf.extend(v.to_le_bytes()));
    let longs = |elf: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| elf.extend(v.to_le_bytes()));
    // ET_EXEC, EM_X86_64; version; entry, program headers, section headers; flags; sizes and counts.
    halves(&mut elf, &[2, 62]);
    words(&mut elf, &[1]);
    longs(&mut elf, &[BASE + start, HEADER, 0]);
    words(&mut elf, &[0]);
    halves(&mut elf, &[64, 56, segments, 0, 0, 0]);
    if interpreter.is_some() {
        // PT_INTERP, readable.
        words(&mut elf, &[3, 4]);
        let at = start + code_size;
        longs(&mut elf, &[at, BASE + at, BASE + at, name_size, name_size, 1]);
    }
    // PT_LOAD, readable and executable; offset, addresses, sizes, alignment.
    words(&mut elf, &[1, 5]);
    longs(&mut elf, &[0, BASE, BASE, size, size, 0x1000]);
    elf.extend(code);
    elf.extend(name);
    elf
}

/// Runs a command to its end.
///
/// # Errors
/// It could not be run or did not end with status 0; its error output is part of the message.
pub fn run(command: &mut Command) -> anyhow::Result<Output> {
    let output = command.output().with_context(|| format!("running {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} ended with {}:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

/// Copies content and mode.
///
/// # Errors
/// Any of the two could not be read or written.
pub fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to).with_context(|| format!("copying {} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Adds one byte to a file.
///
/// # Errors
/// The file could not be written.
pub fn append(file: &Path) -> anyhow::Result<()> {
    use std::io::Write as _;
    fs::OpenOptions::new()
        .append(true)
        .open(file)?
        .write_all(b"\0")
        .with_context(|| file.display().to_string())
}

/// SHA-256 of a file, 64 hexadecimal digits.
///
/// # Errors
/// The file could not be read.
pub fn sha256(file: &Path) -> anyhow::Result<String> {
    let content = fs::read(file).with_context(|| file.display().to_string())?;
    Ok(Sha256::digest(content).iter().map(|b| format!("{b:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tiny_program_runs_unless_its_interpreter_is_missing() {
        let file = std::env::temp_dir().join(format!("muster-tiny-{}", std::process::id()));
        let run = |program: Vec<u8>| {
            fs::write(&file, program).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            let status = Command::new(&file).status();
            fs::remove_file(&file).unwrap();
            status
        };
        assert_eq!(run(tiny_program(None)).unwrap().code(), Some(0));
        let error = run(tiny_program(Some("/no/such/interpreter"))).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    }
}
