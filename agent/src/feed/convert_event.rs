//! Raw events as messages of `muster.v1`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use muster_proto::v1;

use crate::event::{Body, Event, FilePath, FileRef, Place};

use super::convert::{connect, flavour, kind, text, timestamp};

/// The message form of an event. `now` are the wall clock and the clock since boot at one moment.
pub(super) fn event(event: &Event, now: (SystemTime, Duration)) -> v1::Event {
    let task = &event.task;
    let ago = now.1.saturating_sub(Duration::from_nanos(event.time_ns));
    let mut out = v1::Event {
        time: Some(timestamp(now.0.checked_sub(ago).unwrap_or(UNIX_EPOCH))),
        kind: kind(event.kind()).into(),
        flavour: flavour(event.flavour).into(),
        process: Some(v1::Process {
            pid: task.process.tgid,
            start_ns: task.process.start_ns,
            ppid: task.ppid,
            uid: task.uid,
            euid: task.euid,
            comm: FilePath::from(task.comm.as_slice()).to_string(),
            exe: String::new(),
        }),
        cgroup_id: task.cgroup_id,
        mnt_ns: task.mnt_ns,
        pid_ns: task.pid_ns,
        ..v1::Event::default()
    };
    match &event.body {
        Body::Exec { exe, script } => {
            out.file = Some(file(exe));
            out.script = script.as_ref().map(file);
        }
        Body::Library { file: mapped, mprotect, address: _ } => {
            out.file = Some(file(mapped));
            out.operation = if *mprotect { "mprotect" } else { "mmap" }.into();
        }
        Body::File { op, file: changed, target, mode } => {
            let mut changed = file(changed);
            if let Some(mode) = mode {
                changed.mode = *mode;
            }
            out.file = Some(changed);
            out.operation = op.as_str().into();
            out.target = text(target.as_ref());
        }
        Body::Running { file: running, .. } => out.file = Some(file(running)),
        Body::Connect(to) => out.connect = Some(connect(to)),
        Body::Fork { parent: _ } => {}
        Body::Exit { status } => out.exit_status = *status,
        Body::Lost { kind: lost, cause: _, count, since_ns: _ } => {
            out.process = None;
            out.lost_kind = kind(*lost).into();
            out.lost_count = *count;
        }
    }
    out
}

fn file(file: &FileRef) -> v1::File {
    v1::File {
        path: file.path.to_string(),
        path_truncated: file.truncated,
        deleted: file.deleted,
        inode: file.identity.ino,
        device: file.identity.dev,
        mode: file.mode,
        size: file.identity.size,
        sha256: text(file.digest.map(|digest| digest.sha256).as_ref()),
        place: match file.place {
            Place::Disk => "disk",
            Place::ImageLayer => "image_layer",
            Place::UpperLayer => "upper_layer",
            Place::Tmpfs => "tmpfs",
            Place::Memfd => "memfd",
        }
        .into(),
    }
}
