//! Harmless misbehaviour in a private directory, and what each must give.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail};

use super::Place;
use super::agent::{Agent, Finding};
use crate::{paths, shell};

/// Longest wait for the findings of the whole demonstration.
const PATIENCE: Duration = Duration::from_secs(20);

/// The directory, ready to be misused. Made before the agent starts, so that making it is no finding.
pub(super) struct Demo {
    directory: PathBuf,
    in_memory: bool,
}

/// Severity, kind, verdict and file of a finding that must come.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Expected {
    severity: &'static str,
    kind: &'static str,
    verdict: &'static str,
    path: PathBuf,
}

struct Step {
    what: &'static str,
    program: PathBuf,
    args: Vec<String>,
    expected: Vec<Expected>,
}

impl Demo {
    /// Makes a fresh directory. One script of it is in an attested SBOM of its own; everything else came after the attestation.
    pub(super) fn prepare(place: &Place, image: &str) -> anyhow::Result<Self> {
        let demo = Self { directory: place.file("demo"), in_memory: is_in_memory(&place.directory)? };
        // The SBOM is made of a root in which the script has the path that it has on this host.
        let root = place.file("demo-root");
        for old in [&demo.directory, &root] {
            if old.exists() {
                fs::remove_dir_all(old)?;
            }
        }
        fs::create_dir_all(&demo.directory)?;
        let script = demo.file("listed.sh");
        let in_root =
            root.join(script.strip_prefix("/").context("the target directory has no absolute path")?);
        fs::create_dir_all(in_root.parent().context("a file has a parent")?)?;
        for file in [&script, &in_root] {
            write_script(file, "exit 0")?;
        }
        let sbom = place.file("demo.spdx.json");
        shell::run(place.muster(&["sbom", "generate"]).arg(&root).arg("--output").arg(&sbom))?;
        place.sign(&sbom, image, "demo.json")?;

        fs::copy("/bin/true", demo.file("copied-true"))?;
        fs::copy("/bin/true", demo.file("changed-true"))?;
        change_byte(&demo.file("changed-true"))?;
        for name in ["unknown", "end-of-demonstration"] {
            fs::copy(paths::release("tool"), demo.file(name))?;
            // Whatever this host's SBOM lists, it does not list this content.
            append(&demo.file(name))?;
        }
        write_script(&demo.file("unknown.sh"), &format!(": {}", now_ns()?))?;
        Ok(demo)
    }

    /// Misbehaves and compares. True: each finding came exactly as expected, and no other.
    pub(super) fn play(&self, agent: &mut Agent<'_>) -> anyhow::Result<bool> {
        let listener = TcpListener::bind("127.0.0.1:0").context("a port on loopback")?;
        let port = listener.local_addr()?.port();
        let steps = self.steps(port);
        for step in &steps {
            let done = shell::command(&step.program, &step.args).stdin(Stdio::null()).status();
            let status =
                done.with_context(|| format!("{}: running {}", step.what, step.program.display()))?;
            if !status.success() {
                bail!("{}: {} ended with {status}", step.what, step.program.display());
            }
        }
        let came = self.collect(agent)?;
        let (table, passed) = compare(&steps, &came);
        println!("\n{table}");
        Ok(passed)
    }

    fn steps(&self, port: u16) -> Vec<Step> {
        type Row<'a> = (&'static str, &'static str, &'static str, &'a str);
        let step = |what, program: &str, args: &[&str], expected: &[Row<'_>]| Step {
            what,
            program: self.file(program),
            args: args.iter().map(|a| (*a).to_owned()).collect(),
            expected: expected
                .iter()
                .map(|&(severity, kind, verdict, path)| Expected {
                    severity,
                    kind,
                    verdict,
                    path: self.file(path),
                })
                .collect(),
        };
        let unknown = ("critical", "exec", "unauthorized", "unknown");
        let copied = if self.in_memory { "high" } else { "low" };
        let listed = self.file("listed.sh");
        let change = format!("echo '# changed' >> '{}'", listed.display());
        vec![
            step("an attested program", "/bin/true", &[], &[]),
            step(
                "the same bytes copied elsewhere",
                "copied-true",
                &[],
                &[(copied, "exec", "relocated", "copied-true")],
            ),
            step(
                "a copy with one byte changed",
                "changed-true",
                &[],
                &[("critical", "exec", "unauthorized", "changed-true")],
            ),
            step("an unknown program", "unknown", &["exit"], &[unknown]),
            step(
                "a shebang script",
                "unknown.sh",
                &[],
                &[("critical", "exec", "unauthorized", "unknown.sh")],
            ),
            step(
                "a file of the SBOM changed",
                "/bin/sh",
                &["-c", &change],
                &[("high", "file", "modified", "listed.sh")],
            ),
            step(
                "a connect to loopback by the unknown program",
                "unknown",
                &["tcp", &format!("127.0.0.1:{port}")],
                &[unknown, ("critical", "connect", "unauthorized", "unknown")],
            ),
        ]
    }

    /// Every finding about this directory up to the one of a last program, which tells that all others have come.
    fn collect(&self, agent: &mut Agent<'_>) -> anyhow::Result<Vec<Finding>> {
        let mark = self.file("end-of-demonstration");
        shell::quiet(shell::command(&mark, ["exit"]).stdin(Stdio::null()))?;
        let deadline = Instant::now() + PATIENCE;
        let mut came = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match agent.next(left)? {
                Some(finding) if Path::new(&finding.path) == mark => return Ok(came),
                Some(finding) if Path::new(&finding.path).starts_with(&self.directory) => came.push(finding),
                Some(_) => {}
                None => bail!(
                    "the finding of {} did not come within {PATIENCE:?}; what came of this directory: {came:#?}",
                    mark.display()
                ),
            }
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Where a copy that runs is no accident, and so a graver finding than elsewhere.
fn is_in_memory(directory: &Path) -> anyhow::Result<bool> {
    use nix::sys::statfs::{TMPFS_MAGIC, statfs};
    let found = statfs(directory).with_context(|| directory.display().to_string())?;
    Ok(found.filesystem_type() == TMPFS_MAGIC)
}

fn write_script(file: &Path, line: &str) -> anyhow::Result<()> {
    fs::write(file, format!("#!/bin/sh\n{line}\n"))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Bytes after the end of an ELF file change its digest and nothing else. They are others each time: a demonstration that ran
/// elsewhere on this host may have left its files, and then they are in the host's SBOM.
pub(super) fn append(file: &Path) -> anyhow::Result<()> {
    fs::OpenOptions::new().append(true).open(file)?.write_all(&now_ns()?.to_le_bytes())?;
    Ok(())
}

/// Another byte each time, among the last of an ELF file: its section headers, which nothing needs to run it (elf(5)).
fn change_byte(file: &Path) -> anyhow::Result<()> {
    let mut bytes = fs::read(file)?;
    let some = now_ns()?;
    let last = bytes.len().min(1024);
    let at = bytes.len() - last + usize::try_from(some % last as u128)?;
    bytes[at] ^= u8::try_from(some / 1024 % 255)? + 1;
    fs::write(file, bytes)?;
    Ok(())
}

fn now_ns() -> anyhow::Result<u128> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos())
}

/// A table of what each step must give and gave, and whether they are the same. Findings keep the order in which the steps ran, so
/// each step takes the first that fits; what is left belongs to none.
fn compare(steps: &[Step], came: &[Finding]) -> (String, bool) {
    let mut left: Vec<&Finding> = came.iter().collect();
    let mut passed = true;
    let mut text = format!("{:<46} {:<30} {:<38} \n", "what was done", "expected", "found");
    for step in steps {
        let mut rows = Vec::new();
        for expected in &step.expected {
            let fits = |f: &&Finding| {
                f.severity == expected.severity
                    && f.kind == expected.kind
                    && f.verdict == expected.verdict
                    && Path::new(&f.path) == expected.path
            };
            let found = left.iter().position(fits).map(|at| left.remove(at));
            rows.push((format!("{} {} {}", expected.severity, expected.kind, expected.verdict), found));
        }
        if rows.is_empty() {
            text += &format!("{:<46} {:<30} {:<38} ok\n", step.what, "silence", "silence");
        }
        for (n, (expected, found)) in rows.into_iter().enumerate() {
            let what = if n == 0 { step.what } else { "" };
            let (found, mark) = match found {
                Some(f) => (describe(f), "ok"),
                None => ("nothing".to_owned(), "FAILED"),
            };
            passed &= mark == "ok";
            text += &format!("{what:<46} {expected:<30} {found:<38} {mark}\n");
        }
    }
    for finding in left {
        passed = false;
        text += &format!("{:<46} {:<30} {:<38} FAILED\n", "", "nothing", describe(finding));
    }
    (text, passed)
}

fn describe(finding: &Finding) -> String {
    let name = Path::new(&finding.path).file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    format!("{} {} {} {name}", finding.severity, finding.kind, finding.verdict)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(severity: &str, kind: &str, verdict: &str, path: &str) -> Finding {
        Finding {
            verdict: verdict.into(),
            severity: severity.into(),
            kind: kind.into(),
            path: path.into(),
            operation: String::new(),
            reason: String::new(),
        }
    }

    #[test]
    fn missing_wrong_and_unexpected_findings_fail() {
        let demo = Demo { directory: "/d".into(), in_memory: false };
        let steps = demo.steps(1);
        let good = [
            finding("low", "exec", "relocated", "/d/copied-true"),
            finding("critical", "exec", "unauthorized", "/d/changed-true"),
            finding("critical", "exec", "unauthorized", "/d/unknown"),
            finding("critical", "exec", "unauthorized", "/d/unknown.sh"),
            finding("high", "file", "modified", "/d/listed.sh"),
            finding("critical", "exec", "unauthorized", "/d/unknown"),
            finding("critical", "connect", "unauthorized", "/d/unknown"),
        ];
        let (table, passed) = compare(&steps, &good);
        assert!(passed, "{table}");
        assert!(!compare(&steps, &good[1..]).1);
        let extra: Vec<_> =
            good.iter().cloned().chain([finding("high", "file", "unauthorized", "/d/x")]).collect();
        assert!(!compare(&steps, &extra).1);
        let verdict = |f: &mut Finding| f.verdict = "unauthorized".into();
        let severity = |f: &mut Finding| f.severity = "high".into();
        for change in [&verdict as &dyn Fn(&mut Finding), &severity] {
            let mut wrong = good.clone();
            change(&mut wrong[0]);
            assert!(!compare(&steps, &wrong).1);
        }
    }
}
