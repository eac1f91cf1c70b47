//! A finding as one line of JSON. `docs/FINDINGS.md` is the description of the fields; they are added to, never renamed.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::event::Connect;
use crate::event::Protocol;
use crate::finding::{Finding, ProcessInfo, WorkloadInfo};

/// UTC with nanoseconds, always of the same length, so that lines sort by time as text.
const TIME: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");
/// The last second of the year 9999: the format has four digits for the year.
const LAST_SECOND: u64 = 253_402_300_799;

/// RFC 3339 in UTC with nanoseconds. Times before 1970 or after 9999 become the nearest that is not.
pub fn time_text(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default().min(Duration::from_secs(LAST_SECOND));
    (OffsetDateTime::UNIX_EPOCH + since).format(TIME).expect("every part is there and in range")
}

/// Appends the finding as one line, line feed included.
pub fn append_line(finding: &Finding, to: &mut Vec<u8>) {
    serde_json::to_writer(&mut *to, &Line::from(finding)).expect("only texts and numbers, into memory");
    to.push(b'\n');
}

/// Serializes as the text form.
struct Text<T>(T);

impl<T: fmt::Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&self.0)
    }
}

#[derive(Serialize)]
struct Line<'a> {
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<&'a str>,
    time: String,
    verdict: &'static str,
    severity: &'static str,
    kind: &'static str,
    flavour: &'static str,
    workload: Workload<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    process: Option<Process<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ancestors: Vec<Process<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<Text<&'a crate::event::FilePath>>,
    #[serde(skip_serializing_if = "is_false")]
    path_truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<Text<crate::finding::Sha256>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest_origin: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_sha256: Option<Text<crate::finding::Sha256>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attested_path: Option<Text<&'a crate::event::FilePath>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<Destination>,
    #[serde(skip_serializing_if = "Option::is_none")]
    coverage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    binding: Option<&'static str>,
    documents: Vec<Text<crate::finding::Sha256>>,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exception: Option<&'a str>,
}

#[derive(Serialize)]
struct Workload<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pod_uid: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    image_digest: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    claim: &'a str,
}

#[derive(Serialize)]
struct Process<'a> {
    pid: u32,
    start_ns: u64,
    ppid: u32,
    uid: u32,
    euid: u32,
    comm: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exe: Option<Text<&'a crate::event::FilePath>>,
}

#[derive(Serialize)]
struct Destination {
    protocol: &'static str,
    address: Text<std::net::IpAddr>,
    port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_port: Option<u16>,
    sendto: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl<'a> From<&'a Finding> for Line<'a> {
    fn from(finding: &'a Finding) -> Self {
        // Every field is named, so that a new one cannot be forgotten here.
        let Finding {
            sequence,
            origin,
            time,
            verdict,
            severity,
            kind,
            flavour,
            workload,
            process,
            ancestors,
            path,
            path_truncated,
            sha256,
            digest_origin,
            expected_sha256,
            attested_path,
            package,
            operation,
            connect,
            coverage,
            binding,
            documents,
            reason,
            since,
            exception,
            basis: _,
        } = finding;
        Self {
            sequence: *sequence,
            run: origin.as_ref().map(|origin| &*origin.run),
            node: origin.as_ref().map(|origin| &*origin.node).filter(|node| !node.is_empty()),
            time: time_text(*time),
            verdict: verdict.as_str(),
            severity: severity.as_str(),
            kind: kind.as_str(),
            flavour: flavour.as_str(),
            workload: Workload::from(&**workload),
            process: process.as_ref().map(Process::from),
            ancestors: ancestors.iter().map(Process::from).collect(),
            path: (!path.is_empty()).then_some(Text(path)),
            path_truncated: *path_truncated,
            sha256: sha256.map(Text),
            digest_origin: digest_origin.map(|origin| origin.as_str()),
            expected_sha256: expected_sha256.map(Text),
            attested_path: attested_path.as_ref().map(Text),
            package: package.as_deref(),
            operation: operation.map(|operation| operation.as_str()),
            connect: connect.as_ref().map(Destination::from),
            coverage: coverage.map(|coverage| coverage.as_str()),
            binding: binding.map(|binding| binding.as_str()),
            documents: documents.iter().copied().map(Text).collect(),
            reason,
            since: *since,
            exception: exception.as_deref(),
        }
    }
}

impl<'a> From<&'a WorkloadInfo> for Workload<'a> {
    fn from(workload: &'a WorkloadInfo) -> Self {
        let WorkloadInfo { id, name, pod_uid, image_digest, claim } = workload;
        Self { id, name, pod_uid, image_digest, claim }
    }
}

impl<'a> From<&'a ProcessInfo> for Process<'a> {
    fn from(process: &'a ProcessInfo) -> Self {
        let ProcessInfo { id, ppid, uid, euid, comm, exe } = process;
        Self {
            pid: id.tgid,
            start_ns: id.start_ns,
            ppid: *ppid,
            uid: *uid,
            euid: *euid,
            comm,
            exe: (!exe.is_empty()).then_some(Text(&**exe)),
        }
    }
}

impl From<&Connect> for Destination {
    fn from(connect: &Connect) -> Self {
        Self {
            protocol: protocol_name(connect.protocol),
            address: Text(connect.destination.ip()),
            port: connect.destination.port(),
            source_port: (connect.source_port != 0).then_some(connect.source_port),
            sendto: connect.sendto,
        }
    }
}

/// `tcp` or `udp`.
pub(super) fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}
