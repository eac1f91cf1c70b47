//! Attaches the tracepoint flavour to the running kernel and runs real programs. Needs root (or CAP_BPF and
//! CAP_PERFMON), a kernel with BTF, and tracefs.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, bounded};
use muster::config::{FlavourChoice, Sensor as Config};
use muster::event::{Body, Event, FileRef, Flavour, Kind, Place};
use muster::metrics::{KindCounts, Metrics};
use muster::sensor::{Batch, Sensor, SensorStatus};
use tempfile::TempDir;

/// One sensor at a time: two would count each other's test programs.
static ONE: Mutex<()> = Mutex::new(());

struct Running {
    sensor: Sensor,
    batches: Receiver<Batch>,
    _one: MutexGuard<'static, ()>,
}

fn start(config: &Config, queue: usize) -> Running {
    let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (out, batches) = bounded(queue);
    let config = Config { flavour: FlavourChoice::Tracepoint, ..config.clone() };
    let sensor = Sensor::start(&config, Metrics::new(), out).unwrap_or_else(|error| {
        // Debian's sudo sets a PATH of its own, in which rustup's cargo is not.
        panic!(
            "{error}\nrun this test as root on a kernel with BTF: \
             sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo test --test sensor_host"
        )
    });
    Running { sensor, batches, _one: one }
}

fn collect(batches: Receiver<Batch>) -> JoinHandle<Vec<Event>> {
    std::thread::spawn(move || batches.into_iter().flat_map(|batch| batch.events).collect())
}

impl Running {
    /// Runs `work` while events are collected, then stops the sensor.
    fn watch(self, work: impl FnOnce()) -> (Vec<Event>, SensorStatus) {
        let collector = collect(self.batches);
        work();
        let (status, _attached) = self.sensor.stop();
        (collector.join().unwrap(), status)
    }
}

/// A copy of `/bin/true` that no one else runs.
fn private_program() -> (TempDir, PathBuf) {
    let directory = tempfile::Builder::new().prefix("muster-sensor").tempdir().unwrap();
    let program = directory.path().canonicalize().unwrap().join("private-true");
    std::fs::copy("/bin/true", &program).unwrap();
    (directory, program)
}

fn run(program: &Path) -> u32 {
    let mut child = Command::new(program).stdin(Stdio::null()).spawn().unwrap();
    assert!(child.wait().unwrap().success());
    child.id()
}

fn execs<'a>(events: &'a [Event], path: &Path) -> Vec<(&'a Event, &'a FileRef)> {
    let path = path.as_os_str().as_encoded_bytes();
    let exe = |event: &'a Event| match &event.body {
        Body::Exec { exe, .. } if exe.path.as_bytes() == path => Some((event, exe)),
        _ => None,
    };
    events.iter().filter_map(exe).collect()
}

fn counts(status: &SensorStatus, kind: Kind) -> KindCounts {
    status.kinds.iter().find(|(of, _)| *of == kind).unwrap().1
}

/// Everything that was submitted was read, and nothing was refused.
fn assert_whole(status: &SensorStatus) {
    for (kind, counts) in &status.kinds {
        assert_eq!(counts.submitted, counts.received, "{kind:?}: {counts:?}");
        assert_eq!(counts.malformed, 0, "{kind:?}: {counts:?}");
    }
    assert_eq!(status.malformed_unknown, 0);
}

#[test]
fn one_exec_is_one_event() {
    let (_directory, program) = private_program();
    let mut child = 0;
    let (events, status) = start(&Config::default(), 64).watch(|| child = run(&program));
    assert_eq!(status.flavour, Flavour::Tracepoint);
    assert_whole(&status);

    let found = execs(&events, &program);
    assert_eq!(found.len(), 1, "{found:?}");
    let (event, exe) = found[0];
    let metadata = program.metadata().unwrap();
    assert_eq!(event.flavour, Flavour::Tracepoint);
    assert_eq!(
        (event.task.process.tgid, event.task.pid, event.task.ppid),
        (child, child, std::process::id())
    );
    assert_eq!(
        (event.task.uid, event.task.euid),
        (nix::unistd::getuid().as_raw(), nix::unistd::geteuid().as_raw())
    );
    assert_eq!(&event.task.comm[..], b"private-true");
    assert_eq!((exe.identity.ino, exe.identity.size), (metadata.ino(), metadata.size()));
    let ctime = metadata.ctime() * 1_000_000_000 + metadata.ctime_nsec();
    assert_eq!(i128::from(exe.identity.ctime_ns), i128::from(ctime));
    assert_eq!((exe.mode, u64::from(exe.nlink)), (metadata.mode(), metadata.nlink()));
    assert!(
        !exe.truncated && !exe.deleted && !exe.by_name && !exe.unreachable && !exe.has_writers,
        "{exe:?}"
    );
    assert_ne!(exe.place, Place::Memfd);

    // The same process's life around it, in order.
    let life: Vec<&Event> = events.iter().filter(|e| e.task.process == event.task.process).collect();
    let of = |kind| life.iter().filter(|e| e.kind() == kind).map(|e| e.time_ns).collect::<Vec<_>>();
    let (fork, exec, exit) = (of(Kind::Fork), of(Kind::Exec), of(Kind::Exit));
    assert_eq!((fork.len(), exec.len(), exit.len()), (1, 1, 1), "{life:?}");
    assert!(fork[0] <= exec[0] && exec[0] <= exit[0]);
    assert!(life.iter().any(|event| event.body == Body::Exit { status: 0 }));
}

#[test]
fn nothing_is_reported_before_start_or_after_stop() {
    let (_directory, program) = private_program();
    run(&program);
    let (events, status) = start(&Config::default(), 64).watch(|| {});
    run(&program);
    assert_whole(&status);
    assert_eq!(execs(&events, &program), []);
    let (first, _) = start(&Config::default(), 64).watch(|| assert_ne!(run(&program), 0));
    assert_eq!(execs(&first, &program).len(), 1, "a stopped sensor can be started again");
}

#[test]
fn each_loss_of_a_full_ring_is_counted_and_told_once() {
    const MADE: usize = 60;
    let (_directory, program) = private_program();
    // Room for two execs, and nobody takes the batches while the programs run.
    let running = start(&Config { exec_ring_bytes: 8192, ..Config::default() }, 1);
    for _ in 0..MADE {
        run(&program);
    }
    let (events, status) = running.watch(|| {});
    assert_whole(&status);
    let mut told: Vec<(Kind, u64)> = status.kinds.iter().map(|(kind, _)| (*kind, 0)).collect();
    for event in &events {
        if let Body::Lost { kind, cause: _, count, since_ns } = event.body {
            assert!(since_ns < event.time_ns);
            told.iter_mut().find(|(of, _)| *of == kind).unwrap().1 += count;
        }
    }
    let lost: Vec<(Kind, u64)> = status.kinds.iter().map(|(kind, counts)| (*kind, counts.lost)).collect();
    assert_eq!(told, lost, "each loss is an event, once");
    // Not equal: what else runs on this host meanwhile is lost and counted, too.
    let delivered = execs(&events, &program).len();
    let lost = usize::try_from(counts(&status, Kind::Exec).lost).unwrap();
    assert!(
        lost > 0 && delivered < MADE && delivered + lost >= MADE,
        "{delivered} delivered, {lost} lost of {MADE}"
    );
}

#[test]
fn batches_are_in_order() {
    let (_directory, program) = private_program();
    let running = start(&Config::default(), 1024);
    for _ in 0..50 {
        run(&program);
    }
    let (status, _attached) = running.sensor.stop();
    assert_whole(&status);
    let batches: Vec<Batch> = running.batches.into_iter().collect();
    for batch in &batches {
        assert!(batch.events.is_sorted_by_key(|event| event.time_ns));
        assert!(!batch.events.is_empty());
    }
    let all: Vec<Event> = batches.into_iter().flat_map(|batch| batch.events).collect();
    assert_eq!(execs(&all, &program).len(), 50);
}
