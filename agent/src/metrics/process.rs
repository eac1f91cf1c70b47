//! What the agent itself costs, under the names that every Prometheus client library has for it.

use std::fmt::Write as _;

use procfs::process::{LimitValue, Process, Stat};

/// OpenMetrics text, as much of it as can be read.
pub(super) fn text(out: &mut String) {
    let Ok(process) = Process::myself() else { return };
    let mut family = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        let Some(value) = value else { return };
        let suffix = if kind == "counter" { "_total" } else { "" };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {name} {help}.\n# TYPE {name} {kind}\n{name}{suffix} {value}");
    };
    if let Ok(stat) = process.stat() {
        for (name, kind, help, value) in of(&stat) {
            family(name, kind, help, value);
        }
    }
    let open = process.fd_count().ok();
    family("process_open_fds", "gauge", "Number of open file descriptors", open.map(as_f64));
    let most = process.limits().ok().and_then(|limits| match limits.max_open_files.soft_limit {
        LimitValue::Value(most) => Some(as_f64(most)),
        LimitValue::Unlimited => None,
    });
    family("process_max_fds", "gauge", "Maximum number of open file descriptors", most);
}

type Family = (&'static str, &'static str, &'static str, Option<f64>);

fn of(stat: &Stat) -> [Family; 5] {
    let ticks = as_f64(procfs::ticks_per_second());
    let booted = procfs::boot_time_secs().ok();
    [
        (
            "process_cpu_seconds",
            "counter",
            "Total user and system CPU time spent in seconds",
            Some(as_f64(stat.utime + stat.stime) / ticks),
        ),
        (
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory size in bytes",
            Some(as_f64(stat.rss * procfs::page_size())),
        ),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes", Some(as_f64(stat.vsize))),
        (
            "process_threads",
            "gauge",
            "Number of OS threads in the process",
            u32::try_from(stat.num_threads).ok().map(f64::from),
        ),
        (
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds",
            booted.map(|booted| as_f64(booted) + as_f64(stat.starttime) / ticks),
        ),
    ]
}

/// Exact up to 2^53, which nothing here reaches.
#[expect(clippy::cast_precision_loss, reason = "a measure of bytes or ticks")]
fn as_f64(value: impl TryInto<u64>) -> f64 {
    value.try_into().unwrap_or_default() as f64
}
