//! How every command writes the file that `--output` names.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal, raise};

use crate::new_file::{NewFile, Remover};

/// Bytes that are written at once.
const CHUNK: usize = 1 << 16;

/// Writes a file, whole or not at all: it takes the place of one that is there. Without a file, or with `-`, to standard output.
///
/// # Errors
/// As `make`, or it cannot be written.
pub(super) fn save<T>(
    output: Option<&Path>,
    make: impl FnOnce(&mut dyn Write) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let Some(path) = output.filter(|output| *output != Path::new("-")) else {
        return write(io::stdout().lock(), make);
    };
    let cannot = || format!("{}: cannot write", path.display());
    let new = NewFile::create(path, 0o644).with_context(cannot)?;
    let _guard = Guard::new(new.remover());
    let made = write(new.file(), make)?;
    finish(&new).and_then(|()| new.replace()).with_context(cannot)?;
    Ok(made)
}

/// Writes a file that must not be there yet, with this mode.
///
/// # Errors
/// It is there, or cannot be written.
pub(super) fn save_new(path: &Path, mode: u32, content: &[u8]) -> anyhow::Result<()> {
    let cannot = || format!("{}: cannot create (an existing file is not overwritten)", path.display());
    let new = NewFile::create(path, mode).with_context(cannot)?;
    let _guard = Guard::new(new.remover());
    new.file()
        .write_all(content)
        .and_then(|()| finish(&new))
        .and_then(|()| new.keep())
        .with_context(cannot)?;
    Ok(())
}

fn write<T>(out: impl Write, make: impl FnOnce(&mut dyn Write) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let mut out = BufWriter::with_capacity(CHUNK, out);
    let made = make(&mut out)?;
    out.flush()?;
    Ok(made)
}

/// The content is on the disk before the name is: after a power cut no empty file has it.
fn finish(new: &NewFile) -> io::Result<()> {
    match new.file().sync_all() {
        // A pipe or a terminal cannot be.
        Err(error) if error.raw_os_error() == Some(nix::libc::EINVAL) => Ok(()),
        done => done,
    }
}

/// While it lives, a signal that would end the process removes the file first.
struct Guard(SigSet);

impl Guard {
    fn new(remover: Remover) -> Self {
        let mut signals = SigSet::empty();
        let ignored = ignored();
        let deadly = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
        // One that is ignored (nohup) must not remove what goes on being written.
        deadly
            .into_iter()
            .filter(|signal| ignored >> (*signal as u32 - 1) & 1 == 0)
            .for_each(|s| signals.add(s));
        let before = SigSet::thread_get_mask().unwrap_or_else(|_| SigSet::empty());
        // Threads that are made from now on inherit it, so that the one that waits gets them.
        let blocked = signals.thread_block();
        let waiting = std::thread::Builder::new().name("signals".into()).spawn(move || {
            while let Ok(signal) = signals.wait() {
                remover.remove();
                // It ends the process, as if nobody had waited for it.
                let _ends = signals.thread_unblock().and_then(|()| raise(signal));
            }
        });
        if blocked.is_err() || waiting.is_err() {
            // Then a signal ends the process at once, and what is not whole stays.
            let _as_good_as_it_gets = before.thread_set_mask();
        }
        Self(before)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _as_good_as_it_gets = self.0.thread_set_mask();
    }
}

/// The signals that the process ignores, a bit each, the first lowest.
fn ignored() -> u64 {
    let process = procfs::process::Process::myself();
    process.and_then(|process| process.status()).map_or(0, |status| status.sigign)
}
