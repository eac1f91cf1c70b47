//! `muster sbom inspect`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use super::{load_with_bytes, shown};
use crate::cli::output::{complain, tell};
use crate::finding::Sha256;
use crate::sbom::{ImageIndex, generate, tool};

/// `muster sbom inspect`.
#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// The SBOM.
    file: PathBuf,
    /// JSON instead of text.
    #[arg(long)]
    json: bool,
}

/// Exit status when the SBOM cannot be read, as of the other commands.
const UNREADABLE: u8 = 2;

impl Inspect {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let (index, bytes) = match load_with_bytes(&self.file) {
            Ok(loaded) => loaded,
            Err(error) => {
                complain(&error);
                return Ok(UNREADABLE.into());
            }
        };
        let missing = missing(&index, generate::excluded_in(&bytes));
        let tool = index.tool();
        let advice = tool::advice(tool, index.coverage(), index.formats());
        let origin = index.origin();
        let digest = |digest: &Sha256| format!("sha256:{digest}");
        let n = index.numbers();
        let without = n.files - n.with_sha256 - n.with_weak;
        let created = index.created().map(|time| {
            let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
            let time = time::OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).unwrap_or(0));
            time.map_or_else(
                |_| seconds.to_string(),
                |t| t.format(&time::format_description::well_known::Rfc3339).unwrap_or_default(),
            )
        });
        let mut out = Vec::new();
        if self.json {
            let value = serde_json::json!({
                "format": formats(&index),
                "tool": tool,
                "created": created,
                "image": {
                    "config": origin.config.as_ref().map(digest),
                    "layers": origin.layers.iter().map(digest).collect::<Vec<_>>(),
                    "architecture": origin.architecture,
                },
                "coverage": index.coverage().as_str(),
                "numbers": {
                    "files": n.files,
                    "with_sha256": n.with_sha256,
                    "with_weak": n.with_weak,
                    "without": without,
                    "recorded": n.recorded,
                    "unusable": n.unusable,
                    "owned": n.owned,
                    "packages": n.packages,
                    "contents": n.contents,
                    "components": n.kinds.iter().collect::<BTreeMap<_, _>>(),
                    "complete": n.complete,
                },
                "missing": missing,
                "advice": advice,
                "index_bytes": index.heap_bytes(),
            });
            tell(format!("{value:#}\n"))?;
            return Ok(ExitCode::SUCCESS);
        }
        writeln!(out, "format     {}", formats(&index))?;
        writeln!(out, "tool       {}", tool.unwrap_or("not stated"))?;
        writeln!(out, "image      {}", origin.config.as_ref().map_or("not stated".to_owned(), digest))?;
        for layer in &origin.layers {
            writeln!(out, "layer      {}", digest(layer))?;
        }
        if let Some(architecture) = &origin.architecture {
            writeln!(out, "platform   {}", shown(architecture))?;
        }
        writeln!(out, "created    {}", created.as_deref().unwrap_or("not stated"))?;
        writeln!(out, "packages   {}", n.packages)?;
        for (kind, count) in n.kinds.iter() {
            writeln!(out, "components {count} of type {kind}")?;
        }
        writeln!(out, "files      {} ({} owned by a package)", n.files, n.owned)?;
        if n.contents > 0 {
            writeln!(out, "contents   {} SHA-256 of files whose path is not stated", n.contents)?;
        }
        writeln!(
            out,
            "digests    {} SHA-256, {} only SHA-1 or MD5, {} none",
            n.with_sha256, n.with_weak, without
        )?;
        if n.recorded > 0 {
            writeln!(out, "recorded   {} of the digests are what package databases record", n.recorded)?;
        }
        if n.unusable > 0 {
            writeln!(
                out,
                "unusable   {} digests of package databases, malformed or contradicted",
                n.unusable
            )?;
        }
        writeln!(out, "coverage   {}", index.coverage())?;
        writeln!(out, "index      {} bytes", index.heap_bytes())?;
        for line in missing {
            writeln!(out, "missing    {line}")?;
        }
        if let Some(advice) = advice {
            writeln!(out, "\n{advice}")?;
        }
        tell(out)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn formats(index: &ImageIndex) -> String {
    index.formats().iter().map(|format| format.as_str()).collect::<Vec<_>>().join(", ")
}

/// What a stronger SBOM of the same image would have.
fn missing(index: &ImageIndex, excluded: Option<String>) -> Vec<String> {
    let n = index.numbers();
    let mut lines = Vec::new();
    if n.files == 0 {
        lines.push("every file: only packages are listed".to_owned());
    } else if !n.complete {
        lines.push("the claim that every file that can run is listed".to_owned());
    }
    if let Some(excluded) = excluded {
        lines.push(format!("what lies below {}, which its maker excluded", shown(&excluded)));
    }
    if index.created().is_none() {
        lines.push("a time of making that can be read".to_owned());
    }
    if n.contents > 0 {
        lines.push(format!("the path of {} files that have a digest", n.contents));
    }
    if n.with_weak > 0 {
        lines.push(format!("a SHA-256 for {} files that have SHA-1 or MD5 only", n.with_weak));
    }
    if n.recorded > n.with_weak {
        lines.push(format!("a digest of the file itself for {} files", n.recorded));
    }
    let without = n.files - n.with_sha256 - n.with_weak;
    if without > 0 {
        lines.push(format!("a digest for {without} files (links and directories among them)"));
    }
    lines
}
