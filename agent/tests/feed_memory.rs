//! What findings cost the agent in memory: as much as it allows, whoever chooses their paths. One test, for the size is that of a whole
//! process.

use std::sync::Arc;

use muster::config;
use muster::event::{FilePath, Flavour, ProcessId};
use muster::feed::{Feed, Filter};
use muster::finding::{Finding, ProcessInfo, Severity, Verdict};
use muster::metrics::Metrics;

/// Of some 34 kB each.
const FINDINGS: u32 = 2000;

/// Bytes of this process in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("procfs");
    let pages: u64 = statm.split(' ').nth(1).expect("a field").parse().expect("a number");
    pages * 4096
}

/// A name like no other, of which packing makes little.
fn name(seed: u64) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let letters = (0..1000).map(|_| {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b' ' + u8::try_from((state >> 40) % 60).expect("below 60"))
    });
    letters.collect()
}

/// A finding by a process whose ancestors each run another program with the longest of paths.
fn large(number: u32) -> Finding {
    let process = |of: u32| ProcessInfo {
        id: ProcessId { tgid: of, start_ns: u64::from(number) },
        comm: "x".repeat(15),
        exe: Arc::new(FilePath::from(name(u64::from(number) << 32 | u64::from(of)).as_bytes())),
        ..ProcessInfo::default()
    };
    Finding {
        verdict: Verdict::Unauthorized,
        severity: Severity::High,
        process: Some(process(0)),
        ancestors: (1..=32).map(process).collect(),
        path: FilePath::from("q".repeat(1000).as_bytes()),
        ..Finding::loss(Flavour::Tracepoint, "r".repeat(300))
    }
}

#[test]
fn findings_take_no_more_memory_than_is_allowed() {
    let directory = tempfile::tempdir().expect("a directory");
    let pipe = directory.path().join("nobody-reads");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let config = config::Feed { json_lines: Some(pipe), ..config::Feed::default() };
    let metrics = Metrics::new();
    let feed = Feed::new(&config, Arc::clone(&metrics)).expect("a feed");
    let _stuck = feed.watch(Filter::default(), None).expect("subscribed");
    let before = resident();
    (0..FINDINGS).for_each(|number| feed.publish(large(number)));
    let grown = resident().saturating_sub(before);
    // 8 MiB of history, 4 of the client, 8 of the JSON lines, and what the allocator adds. Without bounds it is some 70 MB for each.
    assert!(grown < 40 << 20, "{grown} bytes more");
    let text = metrics.text();
    let value = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in:\n{text}")).parse().expect("a number")
    };
    // What is dropped for its size is counted as anything else that is dropped.
    assert!(value("muster_feed_history_evicted_findings_total") > 1000.0);
    assert!(value("muster_feed_history_bytes") < f64::from(8 << 20));
    for sink in ["watch", "json_lines"] {
        let dropped = value(&format!("muster_feed_dropped_items_total{{sink=\"{sink}\"}}"));
        assert!(dropped > 1000.0, "{sink}: {dropped}");
    }
}
