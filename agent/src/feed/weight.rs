//! How much memory a finding or an event takes, at most.
//!
//! Paths and names are chosen by whoever is watched: bounds that count items would let him choose the memory, too. What several findings
//! share (the programs of processes) counts in full for each of them, so that the sum is never too low.

use std::mem::size_of;

use crate::event::{Body, Event, FilePath, FileRef};
use crate::finding::{Finding, ProcessInfo};

/// Behind each: the two counts of its `Arc`, and what the allocator adds.
const OVERHEAD: usize = 32;

/// Bytes of a finding.
pub(super) fn finding(finding: &Finding) -> usize {
    let process = |process: &ProcessInfo| {
        size_of::<ProcessInfo>()
            + process.comm.capacity()
            + size_of::<FilePath>()
            + heap(&process.exe)
            + OVERHEAD
    };
    OVERHEAD
        + size_of::<Finding>()
        + heap(&finding.path)
        + finding.attested_path.as_ref().map_or(0, heap)
        + finding.reason.capacity()
        + finding.process.as_ref().map_or(0, process)
        + finding.ancestors.iter().map(process).sum::<usize>()
}

/// Bytes of an event.
pub(super) fn event(event: &Event) -> usize {
    let file = |file: &FileRef| heap(&file.path);
    let body = match &event.body {
        Body::Exec { exe, script } => file(exe) + script.as_ref().map_or(0, file),
        Body::Library { file: mapped, .. } => file(mapped),
        Body::File { file: changed, target, .. } => file(changed) + target.as_ref().map_or(0, heap),
        _ => 0,
    };
    OVERHEAD + size_of::<Event>() + body
}

fn heap(path: &FilePath) -> usize {
    if path.0.spilled() { path.0.capacity() } else { 0 }
}
