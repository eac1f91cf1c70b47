//! `[[exception]]`.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer};
use time::Date;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::finding::{Severity, Sha256, Verdict};

/// Exceptions at most: each is compared with each finding, and each is a label of a metric.
pub const MAX_EXCEPTIONS: usize = 256;
/// Longest name, owner, reason and pattern, bytes.
const MAX_TEXT: usize = 1024;
/// Longest name, bytes.
const MAX_NAME: usize = 64;

/// What an operator has decided to hear less of, or nothing of. Everything that is given must fit.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// Names it in findings, status and metrics.
    pub name: String,
    /// Who has decided it.
    pub owner: String,
    /// Why.
    pub reason: String,
    /// The last day on which it counts.
    pub expires: Day,
    /// Pattern for the file's path.
    pub path: Option<String>,
    /// The content.
    pub sha256: Option<Sha256>,
    /// Pattern for the package: its name, or its name and version.
    pub package: Option<String>,
    /// Pattern for the attested program of the process that did it.
    pub program: Option<String>,
    /// Real and effective user id of that process, in the initial user namespace.
    pub user: Option<u32>,
    /// Pattern for the workload's id or name.
    pub workload: Option<String>,
    /// The verdict.
    #[serde(default, deserialize_with = "named")]
    pub verdict: Option<Verdict>,
    /// The severity that such findings have instead.
    #[serde(default, deserialize_with = "named")]
    pub severity: Option<Severity>,
    /// Such findings are reported; else they are only counted.
    #[serde(default = "yes")]
    pub report: bool,
}

fn yes() -> bool {
    true
}

/// One of a fixed set of names.
fn named<'de, D: Deserializer<'de>, T: std::str::FromStr<Err: fmt::Display>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    let text = <std::borrow::Cow<'_, str>>::deserialize(from)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

impl Exception {
    /// What is wrong with it: which key, and why.
    pub(super) fn fault(&self) -> Option<(&'static str, String)> {
        let is_good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if self.name.is_empty() || self.name.len() > MAX_NAME || !self.name.chars().all(is_good) {
            let reason = format!(
                "expected up to {MAX_NAME} of the characters a-z, 0-9, - and _, found {:?}",
                self.name.chars().take(100).collect::<String>()
            );
            return Some(("name", reason));
        }
        for (key, text) in [("owner", &self.owner), ("reason", &self.reason)] {
            let is_said = text.chars().any(char::is_alphanumeric) && !text.chars().any(char::is_control);
            if !is_said || text.len() > MAX_TEXT {
                let reason = format!("expected a line of at most {MAX_TEXT} bytes, found {text:?}");
                return Some((key, reason));
            }
        }
        let patterns = [
            ("path", &self.path, true),
            ("program", &self.program, true),
            ("package", &self.package, false),
            ("workload", &self.workload, false),
        ];
        for (key, pattern, is_path) in patterns {
            let Some(pattern) = pattern else { continue };
            if is_path && !pattern.starts_with('/') || pattern.len() > MAX_TEXT {
                let reason = format!("expected an absolute path or a pattern for one, found {pattern:?}");
                return Some((key, reason));
            }
            if !pattern.chars().any(char::is_alphanumeric) {
                let reason = format!(
                    "expected a pattern that leaves part of it fixed, found {pattern:?}: it fits all"
                );
                return Some((key, reason));
            }
        }
        let narrows = patterns.iter().any(|(_, pattern, _)| pattern.is_some())
            || self.sha256.is_some()
            || self.user.is_some();
        if !narrows {
            let reason = "expected at least one of `path`, `sha256`, `package`, `program`, `user` and `workload`, found none: \
                          it would except everything of the kind";
            return Some(("", reason.to_owned()));
        }
        if matches!(self.verdict, Some(Verdict::Loss | Verdict::Attested)) {
            let reason = "expected a verdict of a file or an image: what is lost is always told".to_owned();
            return Some(("verdict", reason));
        }
        if self.report == self.severity.is_none() {
            let reason = "expected either `severity` or `report = false`".to_owned();
            return Some(("", reason));
        }
        None
    }
}

const FORMAT: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// A day in UTC, as RFC 3339 writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Day(Date);

impl Day {
    /// The day is over at that time.
    pub fn is_past(self, at: SystemTime) -> bool {
        let seconds = self.0.midnight().assume_utc().unix_timestamp();
        // A day before 1970 is past.
        let Ok(seconds) = u64::try_from(seconds) else { return true };
        at >= SystemTime::UNIX_EPOCH + Duration::from_secs(seconds + 86_400)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.0.year(), u8::from(self.0.month()), self.0.day())
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(from)?;
        let bad = |_| {
            let found: String = text.chars().take(100).collect();
            serde::de::Error::custom(format!("expected a date as \"2027-01-31\", found {found:?}"))
        };
        Date::parse(&text, FORMAT).map(Self).map_err(bad)
    }
}
