//! `cargo xtask fuzz`: a run of the fuzz targets of `fuzz/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};

use crate::setup::{self, Stage, tools};
use crate::{build, ebpf, paths, shell};

/// A run of so many seconds is worth the minutes that a build with all optimisations takes.
const OPTIMISED: u32 = 60;

/// Arguments of `cargo xtask fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Seconds for each target.
    #[arg(long, default_value_t = 60)]
    pub(crate) seconds: u32,
    /// Afterwards, keep the inputs that reach something new: `fuzz/corpus/TARGET.tar.gz`, from which each run begins.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Targets. Default: all of them.
    pub(crate) targets: Vec<String>,
}

impl Args {
    /// Runs each target in turn; libFuzzer shows what it does and keeps a crashing input in `fuzz/artifacts/`.
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        setup::ensure(Stage::Test)?;
        ebpf::Args::default().build()?;
        let fuzz = tools::FUZZ.find().context("cargo-fuzz is missing; `cargo xtask setup` installs it")?;
        let targets = if self.targets.is_empty() { all()? } else { self.targets.clone() };
        for target in &targets {
            println!("fuzzing {target} for {} s", self.seconds);
            let corpus = Corpus::of(target)?;
            let seconds = format!("-max_total_time={}", self.seconds);
            // What it finds step by step is thousands of lines.
            let options = [&*seconds, "-rss_limit_mb=4096", "-print_final_stats=1", "-verbosity=0"];
            self.run_target(&fuzz, target, &corpus.inputs(), &options)?;
            if self.keep {
                let kept = corpus.empty()?;
                let from = [vec![kept.clone()], corpus.inputs()].concat();
                self.run_target(&fuzz, target, &from, &["-merge=1", "-verbosity=0"])?;
                corpus.pack(&kept)?;
            }
        }
        println!("fuzz targets: {} passed, 0 failed", targets.len());
        Ok(ExitCode::SUCCESS)
    }

    /// Runs a target with the inputs of these directories; what it finds goes to the first.
    fn run_target(
        &self,
        fuzz: &Path,
        target: &str,
        inputs: &[PathBuf],
        options: &[&str],
    ) -> anyhow::Result<()> {
        // No sanitizer: the code under test forbids `unsafe`, and a build with one takes minutes more.
        let mut command = shell::command(fuzz, ["fuzz", "run", "--sanitizer", "none", target]);
        command.args(inputs).arg("--").args(options).current_dir(paths::root());
        // cargo-fuzz asks for sanitizer and coverage flags that only a nightly takes by itself.
        command.env("RUSTC_BOOTSTRAP", "1").env("CARGO", build::cargo().get_program());
        if self.seconds < OPTIMISED {
            command.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        }
        shell::run(&mut command).with_context(|| format!("fuzz target {target}"))
    }
}

/// The inputs of a target: those made by hand in `fuzz/seeds`; those that runs have found and that were kept, packed in
/// `fuzz/corpus`; and what later runs find, below the target directory.
struct Corpus {
    seeds: PathBuf,
    packed: PathBuf,
    found: PathBuf,
}

impl Corpus {
    /// Unpacks what was kept.
    fn of(target: &str) -> anyhow::Result<Self> {
        let corpus = Self {
            seeds: directory().join("seeds").join(target),
            packed: directory().join("corpus").join(format!("{target}.tar.gz")),
            found: paths::target().join("fuzz-corpus").join(target),
        };
        fs::create_dir_all(&corpus.found)?;
        if corpus.packed.exists() {
            let mut tar = shell::command("tar", ["--extract", "--gzip", "--file"]);
            shell::run(tar.arg(&corpus.packed).arg("--directory").arg(&corpus.found))?;
        }
        Ok(corpus)
    }

    /// Where a run finds them, and leaves new ones.
    fn inputs(&self) -> Vec<PathBuf> {
        [&self.found, &self.seeds].into_iter().filter(|directory| directory.exists()).cloned().collect()
    }

    /// An empty directory beside what was found.
    fn empty(&self) -> anyhow::Result<PathBuf> {
        let kept = self.found.with_extension("kept");
        if kept.exists() {
            fs::remove_dir_all(&kept)?;
        }
        fs::create_dir_all(&kept)?;
        Ok(kept)
    }

    /// Packs the inputs of a directory, the same ones always to the same bytes.
    fn pack(&self, kept: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(directory().join("corpus"))?;
        let count = fs::read_dir(kept)?.count();
        println!("{}: {count} inputs kept", self.packed.display());
        let same =
            ["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX"];
        let mut tar = shell::command("tar", ["--create", "--use-compress-program=gzip -9n", "--file"]);
        shell::run(tar.arg(&self.packed).args(same).arg("--directory").arg(kept).arg("."))
    }
}

fn directory() -> PathBuf {
    paths::root().join("fuzz")
}

fn all() -> anyhow::Result<Vec<String>> {
    let directory = directory().join("fuzz_targets");
    let mut targets = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "rs") {
            targets.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    targets.sort();
    ensure!(!targets.is_empty(), "{}: expected fuzz targets, found none", directory.display());
    Ok(targets)
}
