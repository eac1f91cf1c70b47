//! Between the agent's vocabulary and `muster.v1`, both ways where clients need it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_proto::v1;
use prost_types::Timestamp;

use crate::event::{Connect, DigestOrigin, FileOp, FilePath, Flavour, Kind, ProcessId, Protocol};
use crate::finding::{
    Basis, Binding, Coverage, Finding, ProcessInfo, Severity, Sha256, Verdict, WorkloadInfo,
};
use crate::origin::Origin;

use super::filter::{After, Filter};
use super::json::protocol_name;

/// A message that says what this version does not understand.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("field `{field}`: expected {expected}, found {found}; is the other side another version of muster?")]
pub struct ConvertError {
    field: &'static str,
    expected: &'static str,
    found: String,
}

fn error(field: &'static str, expected: &'static str, found: impl Into<String>) -> ConvertError {
    ConvertError { field, expected, found: found.into() }
}

/// An enumeration and its message form; 0 is "unspecified" in each.
macro_rules! both_ways {
    ($type:ident, $field:literal, $to:ident, $from:ident, [$($name:ident),*]) => {
        #[doc = concat!("The message form of a [`", stringify!($type), "`].")]
        pub fn $to(value: $type) -> v1::$type {
            match value {
                $($type::$name => v1::$type::$name),*
            }
        }
        /// `None`: unspecified.
        fn $from(number: i32) -> Result<Option<$type>, ConvertError> {
            match v1::$type::try_from(number) {
                $(Ok(v1::$type::$name) => Ok(Some($type::$name)),)*
                Ok(v1::$type::Unspecified) => Ok(None),
                Err(_) => Err(error($field, "a number that the interface names", number.to_string())),
            }
        }
    };
}

both_ways!(
    Verdict,
    "verdict",
    verdict,
    verdict_from,
    [
        Attested,
        Relocated,
        AttestedWeak,
        PathOnly,
        PackageDerived,
        Modified,
        Unlisted,
        Updated,
        Undetermined,
        Unauthorized,
        NoSbom,
        Unverified,
        PlatformUnproven,
        StaleTrustRoot,
        Loss
    ]
);
both_ways!(Severity, "severity", severity, severity_from, [Info, Low, Medium, High, Critical]);
both_ways!(Kind, "kind", kind, kind_from, [Exec, Library, File, Connect, Fork, Exit, Lost]);
both_ways!(Flavour, "flavour", flavour, flavour_from, [Lsm, Fentry, Tracepoint]);
both_ways!(Coverage, "coverage", coverage, coverage_from, [Packages, Owned, Full]);
both_ways!(
    Binding,
    "binding",
    binding,
    binding_from,
    [Unproven, Key, OsRelease, ImageDigest, IndexDigest, ManifestDigest, ConfigDigest, VerityRoot]
);

const OPERATIONS: [FileOp; 12] = [
    FileOp::OpenWrite,
    FileOp::Create,
    FileOp::Rename,
    FileOp::Exchange,
    FileOp::Link,
    FileOp::Unlink,
    FileOp::Chmod,
    FileOp::Truncate,
    FileOp::CloseWrite,
    FileOp::MapWrite,
    FileOp::Capability,
    FileOp::BlockWrite,
];
const ORIGINS: [DigestOrigin; 4] =
    [DigestOrigin::Kernel, DigestOrigin::KernelCache, DigestOrigin::Agent, DigestOrigin::AgentCache];

/// A wall clock time; before 1970 becomes 1970.
pub fn timestamp(time: SystemTime) -> Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).expect("below 10^9"),
    }
}

/// The wall clock time of a [`timestamp`].
///
/// # Errors
/// It is missing, before 1970 or out of range.
pub fn time_from(stamp: Option<&Timestamp>) -> Result<SystemTime, ConvertError> {
    let bad = |found: String| error("time", "a time since 1970", found);
    let stamp = stamp.ok_or_else(|| bad("none".into()))?;
    let parts = (u64::try_from(stamp.seconds), u32::try_from(stamp.nanos));
    let (Ok(seconds), Ok(nanos @ ..1_000_000_000)) = parts else {
        return Err(bad(format!("{} s {} ns", stamp.seconds, stamp.nanos)));
    };
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanos)).ok_or_else(|| bad(format!("{seconds} s")))
}

/// The message form of a finding.
pub fn finding(finding: &Finding) -> v1::Finding {
    // Every field is named, so that a new one cannot be forgotten here.
    let Finding {
        sequence,
        origin,
        time,
        verdict: verdict_,
        severity: severity_,
        kind: kind_,
        flavour: flavour_,
        workload: workload_,
        process: process_,
        ancestors,
        path,
        path_truncated,
        sha256,
        digest_origin,
        expected_sha256,
        attested_path,
        package,
        operation,
        connect: connect_,
        coverage: coverage_,
        binding: binding_,
        documents,
        reason,
        since,
        exception,
        basis: _,
    } = finding;
    v1::Finding {
        sequence: *sequence,
        time: Some(timestamp(*time)),
        verdict: verdict(*verdict_).into(),
        severity: severity(*severity_).into(),
        kind: kind(*kind_).into(),
        flavour: flavour(*flavour_).into(),
        workload: Some(workload(workload_)),
        process: process_.as_ref().map(process),
        ancestors: ancestors.iter().map(process).collect(),
        path: path.to_string(),
        path_truncated: *path_truncated,
        sha256: text(sha256.as_ref()),
        digest_origin: digest_origin.map_or_else(String::new, |origin| origin.as_str().into()),
        expected_sha256: text(expected_sha256.as_ref()),
        attested_path: text(attested_path.as_ref()),
        package: text(package.as_ref()),
        operation: operation.map_or_else(String::new, |operation| operation.as_str().into()),
        connect: connect_.as_ref().map(connect),
        coverage: coverage_.map_or(v1::Coverage::Unspecified, coverage).into(),
        binding: binding_.map_or(v1::Binding::Unspecified, binding).into(),
        documents: documents.iter().map(Sha256::to_string).collect(),
        reason: reason.clone(),
        since: since.unwrap_or_default(),
        exception: exception.as_deref().unwrap_or_default().to_owned(),
        run: origin.as_ref().map_or_else(String::new, |origin| origin.run.clone()),
        node: origin.as_ref().map_or_else(String::new, |origin| origin.node.clone()),
    }
}

pub(super) fn text<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(String::new, T::to_string)
}

/// The message form of a workload.
pub fn workload(workload: &WorkloadInfo) -> v1::Workload {
    let WorkloadInfo { id, name, pod_uid, image_digest, claim } = workload;
    v1::Workload {
        id: id.clone(),
        name: name.clone(),
        pod_uid: pod_uid.clone(),
        image_digest: image_digest.clone(),
        claim: claim.clone(),
    }
}

fn process(process: &ProcessInfo) -> v1::Process {
    let ProcessInfo { id, ppid, uid, euid, comm, exe } = process;
    v1::Process {
        pid: id.tgid,
        start_ns: id.start_ns,
        ppid: *ppid,
        uid: *uid,
        euid: *euid,
        comm: comm.clone(),
        exe: exe.to_string(),
    }
}

pub(super) fn connect(connect: &Connect) -> v1::Connect {
    v1::Connect {
        protocol: protocol_name(connect.protocol).into(),
        address: connect.destination.ip().to_string(),
        port: connect.destination.port().into(),
        source_port: connect.source_port.into(),
        sendto: connect.sendto,
    }
}

/// The finding of a message.
///
/// # Errors
/// The first field that is missing or not understood.
pub fn finding_from(from: v1::Finding) -> Result<Finding, ConvertError> {
    let missing = |field| error(field, "a value", "none");
    let process = from.process.map(process_from).transpose()?;
    let ancestors = from.ancestors.into_iter().map(process_from).collect::<Result<_, _>>()?;
    let workload = from.workload.ok_or_else(|| missing("workload"))?;
    let documents = from.documents.iter().map(|text| sha256_from("documents", text));
    Ok(Finding {
        sequence: from.sequence,
        origin: (!from.run.is_empty()).then(|| Arc::new(Origin { run: from.run, node: from.node })),
        time: time_from(from.time.as_ref())?,
        verdict: verdict_from(from.verdict)?.ok_or_else(|| missing("verdict"))?,
        severity: severity_from(from.severity)?.ok_or_else(|| missing("severity"))?,
        kind: kind_from(from.kind)?.ok_or_else(|| missing("kind"))?,
        flavour: flavour_from(from.flavour)?.ok_or_else(|| missing("flavour"))?,
        workload: Arc::new(WorkloadInfo {
            id: workload.id,
            name: workload.name,
            pod_uid: workload.pod_uid,
            image_digest: workload.image_digest,
            claim: workload.claim,
        }),
        process,
        ancestors,
        path: path_from("path", &from.path)?,
        path_truncated: from.path_truncated,
        sha256: optional(&from.sha256, |text| sha256_from("sha256", text))?,
        digest_origin: optional(&from.digest_origin, |text| {
            named("digest_origin", text, &ORIGINS, |origin| origin.as_str())
        })?,
        expected_sha256: optional(&from.expected_sha256, |text| sha256_from("expected_sha256", text))?,
        attested_path: optional(&from.attested_path, |text| path_from("attested_path", text))?,
        package: (!from.package.is_empty()).then(|| from.package.into()),
        operation: optional(&from.operation, |text| {
            named("operation", text, &OPERATIONS, |operation| operation.as_str())
        })?,
        connect: from.connect.as_ref().map(connect_from).transpose()?,
        coverage: coverage_from(from.coverage)?,
        binding: binding_from(from.binding)?,
        documents: documents.collect::<Result<Vec<_>, _>>()?.into(),
        reason: from.reason,
        since: (from.since != 0).then_some(from.since),
        exception: (!from.exception.is_empty()).then(|| from.exception.into()),
        basis: Basis::default(),
    })
}

/// Empty texts stand for nothing.
fn optional<T>(
    text: &str,
    parse: impl FnOnce(&str) -> Result<T, ConvertError>,
) -> Result<Option<T>, ConvertError> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

fn sha256_from(field: &'static str, text: &str) -> Result<Sha256, ConvertError> {
    text.parse().map_err(|_| error(field, "64 hexadecimal digits", text))
}

fn path_from(field: &'static str, text: &str) -> Result<FilePath, ConvertError> {
    FilePath::unescape(text).ok_or_else(|| error(field, "a path with backslashes only in \\xNN", text))
}

fn named<T: Copy>(
    field: &'static str,
    text: &str,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, ConvertError> {
    all.iter().copied().find(|v| name(*v) == text).ok_or_else(|| error(field, "a known name", text))
}

fn process_from(from: v1::Process) -> Result<ProcessInfo, ConvertError> {
    Ok(ProcessInfo {
        id: ProcessId { tgid: from.pid, start_ns: from.start_ns },
        ppid: from.ppid,
        uid: from.uid,
        euid: from.euid,
        comm: from.comm,
        exe: Arc::new(path_from("exe", &from.exe)?),
    })
}

fn connect_from(from: &v1::Connect) -> Result<Connect, ConvertError> {
    let port =
        |number: u32| u16::try_from(number).map_err(|_| error("port", "at most 65535", number.to_string()));
    let address: IpAddr =
        from.address.parse().map_err(|_| error("address", "an IP address", from.address.as_str()))?;
    Ok(Connect {
        protocol: match from.protocol.as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            other => return Err(error("protocol", "tcp or udp", other)),
        },
        destination: SocketAddr::new(address, port(from.port)?),
        source_port: port(from.source_port)?,
        sendto: from.sendto,
    })
}

/// The filter of a request, and after which finding of the history it wants to start.
///
/// # Errors
/// A verdict, severity or kind that this agent does not know, or a run without a sequence.
pub fn filter_from(from: v1::WatchRequest) -> Result<(Filter, Option<After>), ConvertError> {
    let verdicts = from.verdicts.into_iter().map(verdict_from);
    let filter = Filter {
        workloads: from.workloads,
        verdicts: verdicts.filter_map(Result::transpose).collect::<Result<_, _>>()?,
        minimum_severity: severity_from(from.minimum_severity)?,
        kinds: kinds_from(from.kinds)?,
    };
    let run = (!from.after_run.is_empty()).then_some(from.after_run);
    match (from.after_sequence, run) {
        (None, Some(run)) => Err(error("after_run", "after_sequence beside it", format!("{run:?} alone"))),
        (None, None) => Ok((filter, None)),
        (Some(sequence), run) => Ok((filter, Some(After { sequence, run }))),
    }
}

/// The message form of a filter.
pub fn watch_request(filter: &Filter, after: Option<&After>) -> v1::WatchRequest {
    let Filter { workloads, verdicts, minimum_severity, kinds } = filter;
    v1::WatchRequest {
        workloads: workloads.clone(),
        verdicts: verdicts.iter().map(|v| verdict(*v).into()).collect(),
        minimum_severity: minimum_severity.map_or(v1::Severity::Unspecified, severity).into(),
        kinds: kinds.iter().map(|k| kind(*k).into()).collect(),
        after_sequence: after.map(|after| after.sequence),
        after_run: after.and_then(|after| after.run.clone()).unwrap_or_default(),
    }
}

/// The kinds of a request.
///
/// # Errors
/// A kind that this agent does not know.
pub fn kinds_from(numbers: Vec<i32>) -> Result<Vec<Kind>, ConvertError> {
    numbers.into_iter().map(kind_from).filter_map(Result::transpose).collect()
}
