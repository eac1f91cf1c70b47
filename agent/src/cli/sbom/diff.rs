//! `muster sbom diff`.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use super::{load, shown};
use crate::cli::output::{complain, tell};
use crate::sbom::Package;
use crate::sbom::diff::{Diff as Difference, diff};

/// `muster sbom diff`.
#[derive(Debug, clap::Args)]
pub struct Diff {
    /// The SBOM before.
    first: PathBuf,
    /// The SBOM after.
    second: PathBuf,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Exit statuses as those of diff(1).
const DIFFERENT: u8 = 1;
const TROUBLE: u8 = 2;

impl Diff {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (first, second) = match (load(&self.first), load(&self.second)) {
            (Ok(first), Ok(second)) => (first, second),
            (Err(error), _) | (_, Err(error)) => {
                complain(&error);
                return Ok(TROUBLE.into());
            }
        };
        let found = diff(&first, &second);
        let mut out = Vec::new();
        if self.json {
            json(&found, &mut out)?;
        } else {
            text(&found, &mut out)?;
        }
        if let Err(error) = tell(out) {
            complain(&error);
            return Ok(TROUBLE.into());
        }
        Ok(if found.is_empty() { ExitCode::SUCCESS } else { DIFFERENT.into() })
    }
}

fn text(diff: &Difference<'_>, out: &mut impl io::Write) -> io::Result<()> {
    let label = |package: &Package<'_>| format!("{} {}", shown(package.name), shown(package.version));
    for package in &diff.packages_removed {
        writeln!(out, "- package {}", label(package))?;
    }
    for package in &diff.packages_added {
        writeln!(out, "+ package {}", label(package))?;
    }
    for (before, after) in &diff.packages_changed {
        writeln!(out, "~ package {} -> {}", label(before), shown(after.version))?;
    }
    for path in &diff.files_removed {
        writeln!(out, "- {path}")?;
    }
    for path in &diff.files_added {
        writeln!(out, "+ {path}")?;
    }
    let digest = |digest: &str| if digest.is_empty() { "no digest".to_owned() } else { digest.to_owned() };
    for change in &diff.files_changed {
        writeln!(out, "~ {} {} -> {}", change.path, digest(&change.before), digest(&change.after))?;
    }
    Ok(())
}

fn json(diff: &Difference<'_>, out: &mut impl io::Write) -> anyhow::Result<()> {
    let package = |package: &Package<'_>| serde_json::json!({ "name": package.name, "version": package.version, "purl": package.purl });
    let packages = |list: &[Package<'_>]| list.iter().map(package).collect::<Vec<_>>();
    let value = serde_json::json!({
        "packages": {
            "added": packages(&diff.packages_added),
            "removed": packages(&diff.packages_removed),
            "changed": diff.packages_changed.iter()
                .map(|(before, after)| serde_json::json!({ "before": package(before), "after": package(after) }))
                .collect::<Vec<_>>(),
        },
        "files": {
            "added": diff.files_added.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "removed": diff.files_removed.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "changed": diff.files_changed.iter()
                .map(|c| serde_json::json!({ "path": c.path.to_string(), "before": c.before, "after": c.after }))
                .collect::<Vec<_>>(),
        },
    });
    writeln!(out, "{value:#}")?;
    Ok(())
}
