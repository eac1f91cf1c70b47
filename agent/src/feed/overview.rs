//! `muster status` for a person: what matters first.

use std::fmt::Write as _;
use std::time::Duration;

use muster_proto::v1;

use crate::counted::counted;

use super::convert;
use super::exceptions_text;
use super::problems::waiting;
use super::text::{
    Table, binding_name, coverage_name, flavour_name, kind_name, printable, short_digest, workload_name,
};

/// Workloads in the table at most; `--json` has all.
const WORKLOADS: usize = 20;
/// Refused attestations in the list at most.
const REFUSED: usize = 10;

/// `muster status`.
pub fn status(status: &v1::Status) -> String {
    let mut out = head(status);
    let mut section = |table: &Table| {
        if !table.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(out, "\n{table}");
        }
    };
    section(&images(&status.images));
    if !status.exceptions.is_empty() {
        section(&exceptions_text::table(&status.exceptions));
    }
    section(&workloads(status));
    section(&counts("SEVERITY", &status.severities));
    section(&counts("VERDICT", &status.verdicts));
    section(&kinds(status));
    let blind = status.blind_spots.len();
    if blind > 0 {
        let _ = writeln!(
            out,
            "\nWith this flavour on this kernel {} not seen: `muster probe` lists {}.",
            if blind == 1 {
                "1 kind of change is".to_owned()
            } else {
                format!("{blind} kinds of change are")
            },
            if blind == 1 { "it" } else { "them" }
        );
    }
    out
}

fn head(status: &v1::Status) -> String {
    let mut out = format!(
        "muster {} on {}, Linux {}, flavour {}, up {}\n",
        printable(&status.version),
        if status.node.is_empty() { "-".to_owned() } else { printable(&status.node) },
        printable(&status.kernel_release),
        flavour_name(status.flavour),
        ago(status.started.as_ref()).unwrap_or_default(),
    );
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(out, "{name:9} {}", printable(value));
    };
    let problems = u64::try_from(status.problems.len()).unwrap_or(u64::MAX);
    line("health", &if problems == 0 { "good".to_owned() } else { counted(problems, "problem") });
    for problem in &status.problems {
        line("", &format!("- {problem}"));
    }
    let last =
        ago(status.last_finding.as_ref()).map_or_else(String::new, |ago| format!(", the last one {ago} ago"));
    line("findings", &format!("{}{last}", status.sequence));
    let lost: u64 = status.kinds.iter().map(|kind| kind.lost).sum();
    let dropped = status.dropped.get("json_lines").copied().unwrap_or_default();
    line("lost", &format!("{}, {}", counted(lost, "record"), counted(dropped, "finding")));
    let wait = waiting(status);
    line(
        "lag",
        &format!(
            "{}.{:03} ms; {} to be judged",
            status.lag_ns / 1_000_000,
            status.lag_ns / 1000 % 1000,
            if wait == 1 { "1 record waits".to_owned() } else { format!("{wait} records wait") }
        ),
    );
    let verified = status.images.iter().filter(|image| image.state == "verified").count();
    line("images", &format!("{verified} of {} verified", status.images.len()));
    line("refused", &counted(status.refused_attestations.len(), "attestation"));
    for refused in status.refused_attestations.iter().take(REFUSED) {
        line("", &format!("- {}: {}", refused.file, refused.reason));
    }
    let more = status.refused_attestations.len().saturating_sub(REFUSED);
    if more > 0 {
        line("", &format!("- and {more} more: `muster status --json`"));
    }
    line("processes", &status.processes.to_string());
    line("memory", &format!("{} MiB", status.resident_bytes >> 20));
    line(
        "config",
        if status.config.is_empty() { "no file: every key has its default" } else { &status.config },
    );
    out
}

/// How long since then.
fn ago(time: Option<&prost_types::Timestamp>) -> Option<String> {
    let since = convert::time_from(time).ok()?.elapsed().unwrap_or_default();
    Some(duration(since))
}

fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// A row for each image.
fn images(images: &[v1::Image]) -> Table {
    let mut table =
        Table::new(&["IMAGE", "STATE", "BINDING", "COVERAGE", "FILES", "IN USE", "DOCUMENTS", "WHY"]);
    for image in images {
        table.row(vec![
            short_digest(&printable(&image.digest)),
            printable(&image.state),
            binding_name(image.binding),
            coverage_name(image.coverage),
            image.files.to_string(),
            image.files_in_use.to_string(),
            image.documents.len().to_string(),
            printable(&image.reason),
        ]);
    }
    table
}

/// The busiest workloads. Who has no image is told what to do.
fn workloads(status: &v1::Status) -> Table {
    let mut table = Table::new(&["WORKLOAD", "EVENTS", "IMAGE"]);
    let mut rows: Vec<_> = status.workloads.iter().collect();
    rows.sort_by_key(|row| std::cmp::Reverse(row.events));
    for row in rows.iter().take(WORKLOADS) {
        let workload = row.workload.clone().unwrap_or_default();
        let image = short_digest(&printable(&workload.image_digest));
        let image = match (image.as_str(), workload.id.as_str()) {
            ("-", "host") => "none: set host.image, or bring an attestation of what names it".to_owned(),
            ("-", _) => "none: add a [[workload]] entry".to_owned(),
            _ => image,
        };
        table.row(vec![
            printable(&workload_name(&workload.id, &workload.name)),
            row.events.to_string(),
            image,
        ]);
    }
    if rows.len() > WORKLOADS {
        let more = rows.len() - WORKLOADS;
        table.row(vec![
            format!("and {more} more"),
            String::new(),
            "`muster status --json` has all".to_owned(),
        ]);
    }
    table
}

/// Highest count first.
fn counts(heading: &str, counts: &std::collections::HashMap<String, u64>) -> Table {
    let mut sorted: Vec<_> = counts.iter().collect();
    sorted.sort_unstable_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
    let mut table = Table::new(&[heading, "COUNT"]);
    for (name, count) in sorted {
        table.row(vec![printable(name), count.to_string()]);
    }
    table
}

/// Kinds of records that came.
fn kinds(status: &v1::Status) -> Table {
    let mut kinds = Table::new(&["KIND", "SUBMITTED", "LOST", "RECEIVED", "MALFORMED", "JUDGED"]);
    for kind in &status.kinds {
        let counts = [kind.submitted, kind.lost, kind.received, kind.malformed, kind.judged];
        if counts.iter().any(|count| *count > 0) {
            kinds.row([kind_name(kind.kind)].into_iter().chain(counts.map(|n| n.to_string())).collect());
        }
    }
    kinds
}
