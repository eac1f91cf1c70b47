//! `muster sbom generate`.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;

use super::load;
use crate::cli::output::{complain, note};
use crate::cli::save::save;
use crate::counted::counted;
use crate::sbom::ImageIndex;
use crate::sbom::generate::{self, GenerateError, Options, Output, Platform, Progress, Report, Source};

/// `--format`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Format {
    /// SPDX 2.3, JSON.
    Spdx,
    /// CycloneDX 1.6, JSON.
    Cyclonedx,
}

/// What the command line names.
fn source(named: Option<OsString>, host: bool, platform: Option<Platform>) -> Source {
    let named = named.unwrap_or_default();
    let bytes = named.as_bytes();
    let image = bytes.strip_prefix(b"oci:").or_else(|| bytes.strip_prefix(b"oci-archive:"));
    match image {
        _ if host => Source::Host,
        Some(path) => Source::Image { path: OsStr::from_bytes(path).into(), platform },
        None => Source::Tree(named.into()),
    }
}

/// `muster sbom generate`.
#[derive(Debug, clap::Args)]
pub struct Generate {
    /// Root of the file tree (a directory, /proc/PID/root of a container, the rootfs of a bundle), oci:DIR for an OCI layout, or
    /// oci-archive:FILE for an archive of one.
    #[arg(required_unless_present = "host", conflicts_with = "host")]
    source: Option<OsString>,
    /// This host: every real disk, without /proc, /sys, /dev and /run.
    #[arg(long)]
    host: bool,
    /// Of an OCI layout with images for several platforms: which one. Default: this machine's, or the only one there is.
    #[arg(long, value_name = "OS/ARCH", conflicts_with = "host")]
    platform: Option<Platform>,
    /// An SBOM of the same files in any format that is read: what it names is taken over, and what it lacks is added. Files that it
    /// has a digest of, but that are not there, are left out and named on standard error. Refused where the two contradict each other.
    #[arg(long, value_name = "SBOM")]
    complete: Option<PathBuf>,
    /// Format of the document.
    #[arg(long, value_enum, default_value_t = Format::Spdx)]
    format: Format,
    /// Every regular file, not only what can run.
    #[arg(long)]
    all: bool,
    /// Directory to leave out, as the SBOM would write it; may be given more than once. The SBOM names it, and claims to be
    /// complete for everything else: what runs from there is in no SBOM.
    #[arg(long, value_name = "DIR")]
    exclude: Vec<PathBuf>,
    /// Where the document goes, whole or not at all; `-` is standard output [default: standard output].
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Generate {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let with_platform = self.platform.is_some();
        let source = source(self.source, self.host, self.platform);
        if with_platform && matches!(source, Source::Tree(_)) {
            note(
                "muster: --platform: a file tree is of no platform; expected an image (oci:DIR or oci-archive:FILE)",
            );
            return Ok(USAGE.into());
        }
        let inputs = self.complete.as_deref().map(load).transpose();
        let (base, created) = match inputs.and_then(|base| Ok((base, created()?))) {
            Ok(inputs) => inputs,
            Err(error) => {
                complain(&error);
                return Ok(USAGE.into());
            }
        };
        let options = Options {
            name: generate::default_name(&source),
            source,
            output: match self.format {
                Format::Spdx => Output::Spdx,
                Format::Cyclonedx => Output::CycloneDx,
            },
            all: self.all,
            exclude: self.exclude,
            created,
        };
        let start = Instant::now();
        let report = match save(self.output.as_deref(), |out| make(&options, base.as_ref(), out)) {
            Err(error) if matches!(error.downcast_ref(), Some(GenerateError::Exclude(_))) => {
                complain(&error);
                return Ok(USAGE.into());
            }
            report => report?,
        };
        // The document is made: nobody need read this.
        drop(summary(&report, start.elapsed()));
        Ok(if report.unread.is_empty() { ExitCode::SUCCESS } else { INCOMPLETE.into() })
    }
}

/// `SOURCE_DATE_EPOCH` (<https://reproducible-builds.org/specs/source-date-epoch/>).
fn created() -> anyhow::Result<Option<SystemTime>> {
    let Some(text) = std::env::var_os("SOURCE_DATE_EPOCH") else { return Ok(None) };
    let seconds = text.to_str().and_then(|text| text.parse().ok());
    let time = seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    time.map(Some).with_context(|| format!("SOURCE_DATE_EPOCH: expected seconds since 1970, found {text:?}"))
}

/// Makes the document while another thread shows how far it is.
fn make(options: &Options, base: Option<&ImageIndex>, out: &mut dyn io::Write) -> anyhow::Result<Report> {
    let progress = Progress::default();
    let (done, ended) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let seen = &progress;
        let shown = scope.spawn(move || show(seen, &ended));
        let report = generate::generate(options, base, &progress, out);
        drop(done);
        let _ = shown.join();
        Ok(report?)
    })
}

/// A bar on a terminal, a line every few seconds elsewhere.
fn show(progress: &Progress, ended: &mpsc::Receiver<()>) {
    let terminal = io::stderr().is_terminal();
    let bar = terminal.then(|| {
        let bar = indicatif::ProgressBar::new_spinner();
        let style =
            indicatif::ProgressStyle::with_template("{spinner} {bar:30} {pos}/{len} files  {msg}  {elapsed}");
        bar.set_style(style.expect("a valid template"));
        bar
    });
    let pause = if terminal { Duration::from_millis(100) } else { Duration::from_secs(5) };
    while ended.recv_timeout(pause) == Err(mpsc::RecvTimeoutError::Timeout) {
        let (found, done) = (progress.found.load(Ordering::Relaxed), progress.done.load(Ordering::Relaxed));
        let megabytes = progress.bytes.load(Ordering::Relaxed) >> 20;
        let walked = progress.walked.load(Ordering::Relaxed);
        match &bar {
            Some(bar) => {
                bar.set_length(found);
                bar.set_position(done);
                bar.set_message(if walked {
                    format!("{megabytes} MiB hashed")
                } else {
                    "looking".to_owned()
                });
            }
            None if walked => {
                note(format_args!("{done} of {}, {megabytes} MiB hashed", counted(found, "file")));
            }
            None => note(format_args!("{} found so far", counted(found, "file"))),
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// Exit status of wrong usage, as of clap.
const USAGE: u8 = 2;
/// Exit status when the document lacks files.
const INCOMPLETE: u8 = 3;
/// Listed one by one at most.
const SHOWN: usize = 20;

fn summary(report: &Report, took: Duration) -> io::Result<()> {
    let mut err = io::stderr().lock();
    let Report { files, owned, packages, unread, left_out, gone, database } = report;
    writeln!(
        err,
        "{}, {owned} of them owned by one of {}, in {:.1} s",
        counted(*files, "file"),
        counted(*packages, "package"),
        took.as_secs_f64()
    )?;
    for (path, why) in left_out {
        writeln!(err, "left out: {:?}: {why}", Path::new("/").join(path))?;
    }
    if !gone.is_empty() {
        writeln!(err, "not there, so not listed: {} of the SBOM to complete:", counted(gone.len(), "file"))?;
        for path in gone.iter().take(SHOWN) {
            writeln!(err, "  {:?}", Path::new("/").join(path))?;
        }
        if gone.len() > SHOWN {
            writeln!(err, "  … and {} more", gone.len() - SHOWN)?;
        }
    }
    for line in database.iter().take(SHOWN) {
        writeln!(err, "package database: {line}")?;
    }
    if database.len() > SHOWN {
        writeln!(err, "package database: … and {} more", database.len() - SHOWN)?;
    }
    if !unread.is_empty() {
        writeln!(err, "{} could not be read, so the document does not claim to be complete:", unread.len())?;
        for (path, why) in unread.iter().take(SHOWN) {
            writeln!(err, "  {:?}: {why}", Path::new("/").join(path))?;
        }
        if unread.len() > SHOWN {
            writeln!(err, "  … and {} more", unread.len() - SHOWN)?;
        }
    }
    Ok(())
}
