use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_stream::StreamExt as _;

use super::*;
use crate::event::{Connect, DigestOrigin, FileOp, FilePath, Flavour, Kind, ProcessId, Protocol};
use crate::finding::{Basis, Binding, Coverage, ProcessInfo, Severity, Sha256, Verdict, WorkloadInfo};

mod grpc;
mod hub;
mod json_lines;

/// A finding with every field set.
pub(super) fn full() -> Finding {
    let process = |pid, comm: &str, exe: &str| ProcessInfo {
        id: ProcessId { tgid: pid, start_ns: 7_000_000_000 + u64::from(pid) },
        ppid: pid - 1,
        uid: 1000,
        euid: 0,
        comm: comm.into(),
        exe: Arc::new(exe.into()),
    };
    Finding {
        sequence: 17,
        origin: Some(Arc::new(Origin { run: "7a".repeat(16), node: "node-1".into() })),
        time: UNIX_EPOCH + Duration::new(1_795_475_415, 123_456_789),
        verdict: Verdict::Modified,
        severity: Severity::High,
        kind: Kind::Connect,
        flavour: Flavour::Lsm,
        workload: Arc::new(WorkloadInfo {
            id: "containerd://0123456789abcdef".into(),
            name: "web".into(),
            pod_uid: "8a1f0f5e-0c5b-4a9f-9f57-0d2f6f1f2a3b".into(),
            image_digest: format!("sha256:{}", Sha256([0xaa; 32])),
            claim: String::new(),
        }),
        process: Some(process(4242, "curl", "/usr/bin/curl")),
        ancestors: vec![process(4200, "sh", "/usr/bin/dash")],
        path: FilePath::from(&b"/usr/bin/cu\xffrl"[..]),
        path_truncated: true,
        sha256: Some(Sha256([0x11; 32])),
        digest_origin: Some(DigestOrigin::KernelCache),
        expected_sha256: Some(Sha256([0x22; 32])),
        attested_path: Some("/bin/curl".into()),
        package: Some("curl".into()),
        operation: Some(FileOp::CloseWrite),
        connect: Some(Connect {
            protocol: Protocol::Tcp,
            destination: "[2001:db8::1]:443".parse().expect("an address"),
            source_port: 40000,
            sendto: false,
        }),
        coverage: Some(Coverage::Full),
        binding: Some(Binding::ConfigDigest),
        documents: [Sha256([0x33; 32])].into(),
        reason: "expected 22… at /usr/bin/curl, found 11…".into(),
        since: Some(12),
        exception: Some("curl-test".into()),
        basis: Basis::default(),
    }
}

/// A finding with nothing that can be left out.
fn bare() -> Finding {
    Finding {
        verdict: Verdict::Unauthorized,
        severity: Severity::High,
        kind: Kind::Exec,
        ..Finding::loss(Flavour::Tracepoint, "a test".into())
    }
}

fn config() -> config::Feed {
    config::Feed { socket: "unused".into(), json_lines: None, history: 8, client_queue: 4 }
}

fn feed(config: &config::Feed) -> Feed {
    Feed::new(config, Metrics::new()).expect("a feed")
}

/// What is there now; a stream that never ends is fine.
async fn drain<T>(subscription: &mut Subscription<T>) -> Vec<Item<T>> {
    let mut items = Vec::new();
    while let Ok(Some(item)) = tokio::time::timeout(Duration::from_millis(20), subscription.next()).await {
        items.push(item);
    }
    items
}

/// `S` for subscribed, `m` for missed, `n` for a run that is not the one asked for, else the sequence.
fn shape(items: &[Item<Finding>]) -> String {
    let name = |item: &Item<Finding>| match item {
        Item::Subscribed(at) => format!("S{at}"),
        Item::One(finding) => finding.sequence.to_string(),
        Item::Missed(count) => format!("m{count}"),
        Item::AnotherRun(count) => format!("n{count}"),
    };
    items.iter().map(name).collect::<Vec<_>>().join(" ")
}
