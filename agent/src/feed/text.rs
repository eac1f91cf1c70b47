//! Findings, events, status and explanations for a person's eyes.

use std::fmt::Write as _;

use muster_proto::v1;

use crate::event::Kind;
use crate::finding::{Finding, Severity};

use super::convert;
use super::json::{protocol_name, time_text};

/// Rows in columns, each as wide as its widest cell; the last is not padded.
#[derive(Debug)]
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self(vec![headings.iter().map(|heading| (*heading).to_owned()).collect()])
    }

    /// It has no rows.
    pub fn is_empty(&self) -> bool {
        self.0.len() <= 1
    }

    /// Adds a row, one cell per heading.
    pub fn row(&mut self, cells: Vec<String>) {
        self.0.push(cells);
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.0[0].len();
        let widths: Vec<usize> = (0..columns)
            .map(|at| {
                self.0.iter().filter_map(|row| row.get(at)).map(|c| c.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in &self.0 {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:width$}  ")?;
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

const FINDING_COLUMNS: [(&str, usize); 6] =
    [("TIME", 13), ("SEVERITY", 8), ("VERDICT", 12), ("WORKLOAD", 12), ("PROCESS", 20), ("PATH", 36)];

/// Headings over [`finding_row`]s.
pub fn finding_header() -> String {
    let mut line = String::new();
    for (heading, width) in FINDING_COLUMNS {
        // Writing to a String cannot fail.
        let _ = write!(line, "{heading:width$}  ");
    }
    line + "REASON"
}

/// One line for a finding. Columns have a fixed width, since the next finding is not known yet; a longer cell pushes
/// the rest to the right.
pub fn finding_row(finding: &Finding, colour: bool) -> String {
    let time = time_text(finding.time);
    // Below the first finding about the same file and content, wherever that is.
    let mut path = if finding.since.is_some() { "└ ".to_owned() } else { String::new() };
    path.push_str(&finding.path.to_string());
    if finding.path_truncated {
        path.push('…');
    }
    if let Some(to) = &finding.connect {
        let _ = write!(path, " → {} {}", protocol_name(to.protocol), to.destination);
    }
    if let (Kind::File, Some(operation)) = (finding.kind, finding.operation) {
        let _ = write!(path, " ({})", operation.as_str());
    }
    let process = finding
        .process
        .as_ref()
        .map_or_else(|| "-".into(), |process| format!("{}[{}]", process.comm, process.id.tgid));
    let cells = [
        // Of 2026-11-23T23:10:15.123456789Z the time of day in milliseconds; --json has the rest.
        format!("{}Z", &time[11..23]),
        finding.severity.as_str().into(),
        finding.verdict.as_str().into(),
        workload_name(&finding.workload.id, &finding.workload.name),
        process,
        path,
    ];
    let mut line = String::new();
    for (at, (cell, (_, width))) in cells.iter().zip(FINDING_COLUMNS).enumerate() {
        let cell = printable(cell);
        let _ = match severity_colour(finding.severity).filter(|_| colour && at == 1) {
            Some(code) => write!(line, "\x1b[{code}m{cell:width$}\x1b[0m  "),
            None => write!(line, "{cell:width$}  "),
        };
    }
    line.push_str(&printable(&finding.reason));
    if let Some(first) = finding.since {
        let _ = write!(line, " (first: finding {first})");
    }
    line
}

fn severity_colour(severity: Severity) -> Option<&'static str> {
    match severity {
        Severity::Info => None,
        Severity::Low => Some("36"),
        Severity::Medium => Some("33"),
        Severity::High => Some("31"),
        Severity::Critical => Some("1;31"),
    }
}

/// The name, or the container id without its runtime and cut to what people use.
pub fn workload_name(id: &str, name: &str) -> String {
    if !name.is_empty() {
        return name.to_owned();
    }
    id.rsplit_once("://").map_or_else(|| id.to_owned(), |(_, container)| container.chars().take(12).collect())
}

/// Without the characters that drive a terminal.
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            let _ = write!(out, "\\x{:02x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// `sha256:` and the first twelve digits.
pub fn short_digest(digest: &str) -> String {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    if hex.is_empty() { "-".into() } else { format!("sha256:{}", hex.chars().take(12).collect::<String>()) }
}

/// Headings over [`event_row`]s.
pub fn event_header() -> &'static str {
    "TIME           KIND     PROCESS               WHAT"
}

/// One line for a raw event.
pub fn event_row(event: &v1::Event) -> String {
    let time = convert::time_from(event.time.as_ref()).map(time_text).unwrap_or_default();
    let process = event.process.as_ref().map_or_else(|| "-".into(), |p| format!("{}[{}]", p.comm, p.pid));
    let mut what = event.operation.clone();
    let mut add = |text: &str| {
        if !what.is_empty() && !text.is_empty() {
            what.push(' ');
        }
        what.push_str(text);
    };
    if let Some(file) = &event.file {
        add(&file.path);
        if file.deleted {
            add("(deleted)");
        }
    }
    if let Some(script) = &event.script {
        add("script");
        add(&script.path);
    }
    if !event.target.is_empty() {
        add("→");
        add(&event.target);
    }
    if let Some(to) = &event.connect {
        add(&format!("{} {} port {}", to.protocol, to.address, to.port));
    }
    match event.kind() {
        v1::Kind::Exit => add(&format!("wait status {}", event.exit_status)),
        v1::Kind::Fork => add(&format!("by process {}", event.process.as_ref().map_or(0, |p| p.ppid))),
        v1::Kind::Lost => add(&format!("{} {} records", event.lost_count, kind_name(event.lost_kind))),
        _ => {}
    }
    let time = time.get(11..23).unwrap_or("-");
    let kind = kind_name(event.kind);
    format!("{time}Z  {kind:7}  {:20}  {}", printable(&process), printable(&what))
}

/// A kind's name, from its number in a message.
pub(super) fn kind_name(number: i32) -> String {
    short_name(v1::Kind::try_from(number).ok().map(|kind| kind.as_str_name()), "KIND_")
}

/// A severity's name, from its number in a message.
pub(super) fn severity_name(number: i32) -> String {
    short_name(v1::Severity::try_from(number).ok().map(|severity| severity.as_str_name()), "SEVERITY_")
}

/// A flavour's name, from its number in a message.
pub(super) fn flavour_name(number: i32) -> String {
    short_name(v1::Flavour::try_from(number).ok().map(|flavour| flavour.as_str_name()), "FLAVOUR_")
}

/// A coverage class's name, from its number in a message.
pub(super) fn coverage_name(number: i32) -> String {
    short_name(v1::Coverage::try_from(number).ok().map(|coverage| coverage.as_str_name()), "COVERAGE_")
}

/// A binding's name, from its number in a message.
pub(super) fn binding_name(number: i32) -> String {
    short_name(v1::Binding::try_from(number).ok().map(|binding| binding.as_str_name()), "BINDING_")
}

/// The interface's names are the agent's own in capitals behind a prefix.
fn short_name(name: Option<&'static str>, prefix: &str) -> String {
    match name.and_then(|name| name.strip_prefix(prefix)) {
        None | Some("UNSPECIFIED") => "-".into(),
        Some(name) => name.to_ascii_lowercase(),
    }
}
