//! One virtual machine: boots a kernel under software emulation and collects what it says on its two serial ports.
//!
//! The first port is the console; the second carries results only, so that no kernel message ever falls between them. The machine
//! ends its results with a line `muster-exit N`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use crate::shell::{self, Background};

/// Line of the results that says that user space has started.
pub(crate) const STARTED: &str = "muster-started";
/// Begin of the last line of the results.
pub(crate) const EXIT: &str = "muster-exit ";
/// A boot that has not reached user space by then has failed.
const BOOT: Duration = Duration::from_secs(120);
/// One boot in some tens panics early under emulation. Only a boot is ever tried again.
const BOOTS: u32 = 4;

/// What to boot.
pub(crate) struct Machine {
    /// Name for messages and files.
    pub(crate) name: String,
    /// Kernel image.
    pub(crate) kernel: PathBuf,
    /// Initramfs, uncompressed.
    pub(crate) initramfs: Vec<u8>,
    /// Disks, `/dev/vda` first; what is written to them is thrown away.
    pub(crate) disks: Vec<PathBuf>,
    /// Where logs go.
    pub(crate) directory: PathBuf,
    /// Longest run after the boot.
    pub(crate) limit: Duration,
    /// The guest's clock advances one nanosecond per instruction: for measuring costs.
    pub(crate) count_instructions: bool,
    /// Processors, if instructions are not counted: then it has one.
    pub(crate) cpus: u32,
    /// Memory, MiB.
    pub(crate) memory: u32,
}

/// What came of it.
pub(crate) struct Outcome {
    /// Lines of the results, markers left out.
    pub(crate) lines: Vec<String>,
    /// Exit status that the machine reported.
    pub(crate) status: i32,
    /// From power-on to the end.
    pub(crate) took: Duration,
    /// Console log.
    pub(crate) console: PathBuf,
}

enum Attempt {
    Done(Outcome),
    BootFailed(String),
}

impl Machine {
    /// Boots and runs to the end; each line of the results is shown to `line` as it comes.
    pub(crate) fn run(&self, line: &mut dyn FnMut(&str)) -> anyhow::Result<Outcome> {
        fs::create_dir_all(&self.directory)?;
        let initramfs = self.directory.join(format!("{}.cpio", self.name));
        fs::write(&initramfs, &self.initramfs)?;
        for boot in 1..=BOOTS {
            match self.attempt(&initramfs, line)? {
                Attempt::Done(outcome) => return Ok(outcome),
                Attempt::BootFailed(why) if boot < BOOTS => {
                    eprintln!("  {}: boot {boot} of {BOOTS} failed ({why}); booting again", self.name);
                }
                Attempt::BootFailed(why) => bail!("{}: {BOOTS} boots failed, the last one: {why}", self.name),
            }
        }
        unreachable!("the loop returns at its last round")
    }

    fn attempt(&self, initramfs: &Path, line: &mut dyn FnMut(&str)) -> anyhow::Result<Attempt> {
        let file = |kind: &str| self.directory.join(format!("{}.{kind}", self.name));
        let (console, results, errors) = (file("console"), file("results"), file("qemu"));
        for old in [&console, &results] {
            fs::write(old, b"")?;
        }
        let mut command =
            shell::background("qemu-system-x86_64", ["-cpu", "max", "-nographic", "-no-reboot"]);
        if self.count_instructions {
            command.args(["-accel", "tcg", "-icount", "shift=0,sleep=off", "-smp", "1"]);
        } else {
            command.args(["-accel", "tcg,thread=multi", "-smp", &self.cpus.to_string()]);
        }
        command
            .args(["-nodefaults", "-m", &self.memory.to_string()])
            .args(["-append", "console=ttyS0 quiet panic=-1 net.ifnames=0"])
            .arg("-kernel")
            .arg(&self.kernel)
            .arg("-initrd")
            .arg(initramfs)
            .args(["-serial", &format!("file:{}", console.display())])
            .args(["-serial", &format!("file:{}", results.display())]);
        for disk in &self.disks {
            let of = format!("file={},format=raw,if=virtio,snapshot=on", disk.display());
            command.args(["-drive", &of]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&errors)?);
        let begin = Instant::now();
        let mut machine = Background::start(&mut command)?;
        let mut reader = Lines::open(&results)?;
        let mut outcome = None;
        let (mut started, mut lines) = (None, Vec::new());
        loop {
            let ended = machine.ended()?;
            for text in reader.read()? {
                if text == STARTED {
                    started = Some(Instant::now());
                } else if let Some(status) = text.strip_prefix(EXIT) {
                    outcome = Some(status.parse().with_context(|| format!("{}: {text:?}", self.name))?);
                } else if started.is_some() {
                    line(&text);
                    lines.push(text);
                }
            }
            if let Some(status) = outcome {
                // It powers itself off; an emulator that hangs in that is ended by `Background`.
                machine.wait(Duration::from_secs(10))?;
                return Ok(Attempt::Done(Outcome { lines, status, took: begin.elapsed(), console }));
            }
            match (started, ended) {
                (None, Some(status)) if !status.success() => bail!(
                    "{}: the emulator ended with {status}: {}",
                    self.name,
                    fs::read_to_string(&errors)?.trim_end()
                ),
                (None, Some(_)) => {
                    return Ok(Attempt::BootFailed(format!("it ended early; {}", tail(&console)?)));
                }
                (None, None) if begin.elapsed() > BOOT => {
                    return Ok(Attempt::BootFailed(format!("nothing within {BOOT:?}; {}", tail(&console)?)));
                }
                (Some(_), Some(_)) => {
                    bail!("{}: the machine ended in the middle of its run; {}", self.name, tail(&console)?)
                }
                (Some(since), None) if since.elapsed() > self.limit => {
                    bail!("{}: not done within {:?}; {}", self.name, self.limit, tail(&console)?)
                }
                _ => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }
}

/// The console's last lines, for a message.
pub(crate) fn tail(console: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(console).with_context(|| console.display().to_string())?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let last = lines[lines.len().saturating_sub(25)..].join("\n    ");
    Ok(format!("end of {}:\n    {last}", console.display()))
}

/// Lines of a file that another process is writing.
struct Lines {
    file: fs::File,
    rest: Vec<u8>,
}

impl Lines {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = fs::File::open(path).with_context(|| path.display().to_string())?;
        Ok(Self { file, rest: Vec::new() })
    }

    /// The lines that are complete by now.
    fn read(&mut self) -> anyhow::Result<Vec<String>> {
        std::io::Read::read_to_end(&mut self.file, &mut self.rest)?;
        let Some(end) = self.rest.iter().rposition(|&b| b == b'\n') else { return Ok(Vec::new()) };
        let complete: Vec<u8> = self.rest.drain(..=end).collect();
        Ok(String::from_utf8_lossy(&complete).lines().map(|l| l.trim_end_matches('\r').to_owned()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn lines_wait_for_their_end() {
        let path = std::env::temp_dir().join(format!("muster-lines-{}", std::process::id()));
        let mut writer = fs::File::create(&path).unwrap();
        let mut lines = Lines::open(&path).unwrap();
        writer.write_all(b"one\r\ntw").unwrap();
        assert_eq!(lines.read().unwrap(), ["one"]);
        writer.write_all(b"o\nthree\n").unwrap();
        assert_eq!(lines.read().unwrap(), ["two", "three"]);
        assert!(lines.read().unwrap().is_empty());
        fs::remove_file(path).unwrap();
    }
}
