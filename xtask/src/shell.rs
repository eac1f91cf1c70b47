//! Other programs: run them, show them, end them.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Starts the description of a program to run.
pub(crate) fn command<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// A command for [`Background`]. Should this task be killed, the kernel ends the program as well: `setpriv` (util-linux) sets
/// `PR_SET_PDEATHSIG` and becomes the program, so the process id is the program's. The signal comes when the *thread* that started
/// it ends: start from the main thread.
pub(crate) fn background<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = A>,
) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]).arg(program.as_ref()).args(args);
    command
}

/// The command as a person would type it.
pub(crate) fn typed(command: &Command) -> String {
    let quote = |text: &OsStr| {
        let text = text.to_string_lossy();
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:+,@%".contains(c);
        if !text.is_empty() && text.chars().all(plain) {
            text.into_owned()
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    };
    let set = command.get_envs().filter_map(|(k, v)| Some(format!("{}={}", k.to_string_lossy(), quote(v?))));
    set.chain([quote(command.get_program())])
        .chain(command.get_args().map(quote))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Runs it with this terminal, after showing it; fails if it fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    eprintln!("  $ {}", typed(command));
    quiet(command)
}

/// Runs it with this terminal; fails if it fails.
pub(crate) fn quiet(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    check(command, status)
}

/// Runs it and gives its standard output as text; fails, with its standard error, if it fails.
pub(crate) fn output(command: &mut Command) -> anyhow::Result<String> {
    let Output { status, stdout, stderr } =
        command.stdin(Stdio::null()).output().with_context(|| cannot_start(command))?;
    if !status.success() {
        bail!("`{}` ended with {status}:\n{}", typed(command), String::from_utf8_lossy(&stderr).trim_end());
    }
    String::from_utf8(stdout).with_context(|| format!("`{}` printed text that is not UTF-8", typed(command)))
}

fn check(command: &Command, status: ExitStatus) -> anyhow::Result<()> {
    if !status.success() {
        bail!("`{}` ended with {status}", typed(command));
    }
    Ok(())
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`; `cargo xtask setup` installs what this project needs", typed(command))
}

/// The program's file, if PATH (with the system's own directories added) has it.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// A program started in the background. It is ended by its own process id when this value goes away.
pub(crate) struct Background {
    name: String,
    child: Child,
}

impl Background {
    /// Starts it.
    pub(crate) fn start(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.spawn().with_context(|| cannot_start(command))?;
        Ok(Self { name: typed(command), child })
    }

    /// The process, for its pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its exit status, if it has ended.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        self.child.try_wait().with_context(|| format!("waiting for {}", self.name))
    }

    /// Waits for its end; `None` when it has not ended in time.
    pub(crate) fn wait(&mut self, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if start.elapsed() >= limit {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end, and ends it when it has not in time. True: it ended by itself.
    pub(crate) fn stop(&mut self, limit: Duration) -> anyhow::Result<bool> {
        if self.ended()?.is_some() {
            return Ok(true);
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id()).context("process id")?);
        kill(pid, Signal::SIGTERM).with_context(|| format!("stopping {}", self.name))?;
        if self.wait(limit)?.is_some() {
            return Ok(true);
        }
        self.child.kill().with_context(|| format!("killing {}", self.name))?;
        self.child.wait().with_context(|| format!("waiting for {}", self.name))?;
        Ok(false)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Err(error) = self.stop(Duration::from_secs(6)) {
            eprintln!("{error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_quotes_what_a_shell_would_split() {
        let mut command = command("env", ["A=1", "a b", "it's", ""]);
        command.env("LLVM_PREFIX", "/usr/lib/llvm-22");
        assert_eq!(typed(&command), r"LLVM_PREFIX=/usr/lib/llvm-22 env A=1 'a b' 'it'\''s' ''");
    }

    #[test]
    fn a_failing_program_is_an_error_with_its_words() {
        let error = output(&mut command("sh", ["-c", "echo no >&2; exit 3"])).unwrap_err().to_string();
        assert!(error.contains("exit status: 3") && error.ends_with("no"), "{error}");
    }

    #[test]
    fn a_background_program_that_ignores_sigterm_is_killed() {
        let mut program = Background::start(
            background("sh", ["-c", "trap '' TERM; echo; while :; do sleep 0.05; done"])
                .stdout(Stdio::piped()),
        )
        .unwrap();
        std::io::Read::read_exact(program.child().stdout.as_mut().unwrap(), &mut [0]).unwrap();
        assert!(!program.stop(Duration::from_millis(100)).unwrap());
        assert!(program.ended().unwrap().is_some());
    }
}
