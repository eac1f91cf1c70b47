//! Events per second on one core: kernel records are decoded and judged, single-threaded, as the sensor's and the judge's
//! threads do it between them. Prints lines of JSON for `cargo xtask bench`.
//!
//! ```text
//! cargo run --release --example bench_pipeline [-- --recording FILE --attestations DIR --key FILE]
//! ```
//!
//! A recording (`muster agent --record FILE`) is read from its bytes again for each round, frame by frame, so that reading it
//! stands for decoding; the judge gets the answers that were recorded.
//!
//! Without a recording the stream is made here: the records of a busy node, 40 % executable mappings, 20 % execs, 15 %
//! forks, 15 % exits, 5 % file closes and 5 % connects, over 400 programs of an SBOM with 20,000 files; 2 % of the
//! execs are of an unknown program and give findings. Digests come with the records, as from the `lsm` flavour: reading
//! files is the disk's speed and not the pipeline's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use clap::Parser;
use muster::config::{self, Config};
use muster::devices::{Again, Opened};
use muster::event::{Action, Content, DigestOrigin, Event, FilePath, FileRef, Owner, Start, Task, Unread};
use muster::finding::{Sha256, WorkloadInfo};
use muster::images::{Digests, Image, ImageState, Images};
use muster::judge::{Ancestry, Facts, Judge, Settled, Unsettled};
use muster::metrics::Metrics;
use muster::record::{Frame, Reader, Recorded, Replayed, process_of};
use muster::sbom::{self, ImageIndex};
use muster::sensor::decode::decode;
use muster::workload::Workload;
use muster_common::{
    ConnectRecord, ExecRecord, ExitRecord, FileRecord, ForkRecord, Header, LibraryRecord, digest_origin,
    file_flag, file_op, hook, kind, protocol,
};
use nix::time::{ClockId, clock_gettime};
use zerocopy::{FromZeros as _, IntoBytes as _};

const IMAGE: Sha256 = Sha256([9; 32]);
const FILES: u32 = 20_000;
const PROGRAMS: u32 = 400;
/// Goal of the project.
const EVENTS_PER_SECOND: f64 = 200_000.0;

#[derive(Parser)]
struct Args {
    /// Judge this recording, over and over.
    #[arg(long, requires_all = ["attestations", "keys"])]
    recording: Option<PathBuf>,
    /// Drop directory for the recording.
    #[arg(long)]
    attestations: Option<PathBuf>,
    /// Public key for the recording.
    #[arg(long = "key")]
    keys: Vec<PathBuf>,
    /// Measure for so long.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
}

/// Answers in constant time: what is measured is the pipeline and not `/proc`.
struct World {
    workload: Arc<Workload>,
}

impl Facts for World {
    type Case = ();
    fn begin(&self, _: &Event) {}
    fn time(&self, (): &()) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }
    fn workload(&self, (): &()) -> Arc<Workload> {
        Arc::clone(&self.workload)
    }
    async fn content(&self, (): &(), _: &Task, file: &FileRef, _: Action, _: bool) -> Content {
        match file.digest {
            Some(digest) => Content::Known {
                sha256: digest.sha256,
                origin: DigestOrigin::KernelCache,
                weak: None,
                doubt: None,
            },
            None => Content::Undetermined(Unread::Gone),
        }
    }
    async fn resolve(&self, (): &(), _: &Task, file: &FileRef) -> Result<FileRef, Arc<str>> {
        Ok(file.clone())
    }
    async fn start(&self, (): &(), _: &Task, _: &FileRef) -> Option<Start> {
        Some(Start::Data)
    }
    async fn again(&self, (): &(), _: &Task, file: &FileRef) -> Option<FileRef> {
        Some(file.clone())
    }
    async fn program(&self, (): &(), _: &Task) -> Result<FileRef, Arc<str>> {
        Err("gone".into())
    }
    async fn owner(&self, (): &(), _: &Workload, _: &Arc<ImageIndex>, _: &FileRef) -> Option<Owner> {
        None
    }
    fn in_host_root(&self, (): &(), _: &Task) -> bool {
        true
    }
    async fn device_written(&self, (): &(), _: u32) -> Option<Vec<FilePath>> {
        None
    }
    async fn devices_again(&self, (): &(), opened: &[Opened]) -> Vec<Again> {
        vec![Again::Closed; opened.len()]
    }
    async fn settle(&self, (): &(), files: &[Unsettled]) -> Vec<Settled> {
        vec![Settled::default(); files.len()]
    }
    fn ancestry(&self, (): &(), task: &Task) -> Ancestry {
        (process_of(task), vec![process_of(task); 4])
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let limit = Duration::from_secs(args.seconds);
    match (&args.recording, &args.attestations) {
        (Some(recording), Some(attestations)) => recorded(recording, attestations, &args.keys, limit),
        _ => synthetic(limit),
    }
}

fn synthetic(limit: Duration) -> anyhow::Result<()> {
    let stream = stream();
    let info = WorkloadInfo {
        id: "host".into(),
        image_digest: format!("sha256:{IMAGE}"),
        ..WorkloadInfo::default()
    };
    let workload = Workload {
        info: Arc::new(info),
        image: Some(Arc::new(Digests::named(IMAGE))),
        helps: false,
        is_host: true,
        started: None,
        root: None,
    };
    let image = image()?;
    let mut findings = 0_u64;
    let source = Box::new(move |_: &Digests| Arc::clone(&image));
    let facts = World { workload: Arc::new(workload) };
    let judge = Judge::new(facts, source, Metrics::new(), |_| findings += 1);
    let bytes: usize = stream.iter().map(Vec::len).sum();
    let (mut events, mut rounds) = (0_u64, 0_u64);
    let mut decoding = Duration::ZERO;
    let mut batch = Vec::with_capacity(512);
    let (deadline, begun) = (Instant::now() + limit, processor_time()?);
    while Instant::now() < deadline {
        for records in stream.chunks(512) {
            let started = processor_time()?;
            for record in records {
                batch.push(decode(record)?);
            }
            decoding += processor_time()? - started;
            for event in batch.drain(..) {
                judge.event(&event);
                events += 1;
            }
        }
        rounds += 1;
    }
    let took = processor_time()? - begun;
    drop(judge);
    ensure!(findings > 0, "nothing was found in a stream with unknown programs: nothing was judged");
    report("synthetic", events, findings, took, Some((decoding, u64::try_from(bytes)? * rounds)))
}

fn recorded(
    recording: &std::path::Path,
    attestations: &std::path::Path,
    keys: &[PathBuf],
    limit: Duration,
) -> anyhow::Result<()> {
    let bytes = std::fs::read(recording).with_context(|| recording.display().to_string())?;
    let config = Config {
        attestation: config::Attestation {
            directory: attestations.to_owned(),
            keys: keys.to_owned(),
            verified_directory: PathBuf::new(),
            ..config::Attestation::default()
        },
        host: config::Host {
            directory: PathBuf::new(),
            image: None,
            signers: None,
            package_managers: Vec::new(),
        },
        ..Config::default()
    };
    let images = Images::new(&config, Metrics::new())?;
    images.load_now();
    let verified = images.snapshot().iter().any(|image| matches!(image.state, ImageState::Verified { .. }));
    ensure!(verified, "{}: no attestation is accepted", attestations.display());
    let mut findings = 0_u64;
    let source = Box::new(move |digest: &_| images.get(digest));
    let judge = Judge::new(Replayed::default(), source, Metrics::new(), |_| findings += 1);
    let (mut events, mut rounds) = (0_u64, 0_u64);
    let mut decoding = Duration::ZERO;
    let mut batch: Vec<Box<Recorded>> = Vec::with_capacity(512);
    let (deadline, begun) = (Instant::now() + limit, processor_time()?);
    while Instant::now() < deadline {
        let mut reader = Reader::new(bytes.as_slice(), recording)?;
        loop {
            let started = processor_time()?;
            while batch.len() < batch.capacity()
                && let Some(frame) = reader.frame()?
            {
                match frame {
                    Frame::Event(recorded) => batch.push(recorded),
                    Frame::End => {}
                    Frame::Lost(missing) => bail!("{}: {missing} events are missing", recording.display()),
                }
            }
            decoding += processor_time()? - started;
            if batch.is_empty() {
                break;
            }
            for recorded in batch.drain(..) {
                let event = recorded.event.clone();
                judge.facts().set(recorded);
                judge.event(&event);
                events += 1;
            }
        }
        rounds += 1;
    }
    let took = processor_time()? - begun;
    drop(judge);
    ensure!(findings > 0, "{}: nothing was found, so perhaps nothing was judged", recording.display());
    println!("{}", line("recorded", "events of the recording", events as f64 / rounds as f64, "events"));
    report("recorded", events, findings, took, Some((decoding, u64::try_from(bytes.len())? * rounds)))
}

fn report(
    stream: &str,
    events: u64,
    findings: u64,
    took: Duration,
    decoding: Option<(Duration, u64)>,
) -> anyhow::Result<()> {
    ensure!(events > 0, "no event was judged in {took:?}");
    let line = |what, value, unit| line(stream, what, value, unit);
    let mut speed = line("decoded and judged on one core", events as f64 / took.as_secs_f64(), "events/s");
    speed["at_least"] = EVENTS_PER_SECOND.into();
    println!("{speed}");
    println!("{}", line("findings", findings as f64 / events as f64 * 100.0, "% of events"));
    if let Some((decoding, bytes)) = decoding {
        let share = decoding.as_secs_f64() / took.as_secs_f64() * 100.0;
        println!("{}", line("decoding alone", bytes as f64 / 1e6 / decoding.as_secs_f64(), "MB/s"));
        println!("{}", line("decoding", share, "% of the time"));
    }
    Ok(())
}

fn line(stream: &str, what: &str, value: f64, unit: &str) -> serde_json::Value {
    serde_json::json!({ "name": format!("pipeline, {stream}: {what}"), "value": value, "unit": unit })
}

/// Processor time of this thread so far: what else the machine does is not measured.
fn processor_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

fn name(file: u32) -> String {
    format!("/usr/lib/package-{:03}/program-{file}", file % 200)
}

fn digest_of(file: u32) -> [u8; 32] {
    let mut digest = [0x5a; 32];
    digest[..4].copy_from_slice(&file.wrapping_mul(0x9e37_79b1).to_be_bytes());
    digest
}

fn image() -> anyhow::Result<Arc<Image>> {
    let files: Vec<_> = (0..FILES)
        .map(|n| {
            serde_json::json!({
                "SPDXID": format!("SPDXRef-{n}"),
                "fileName": name(n),
                "checksums": [{ "algorithm": "SHA256", "checksumValue": Sha256(digest_of(n)).to_string() }],
            })
        })
        .collect();
    let document = serde_json::json!({
        "spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "bench",
        "creationInfo": { "created": "2026-01-01T00:00:00Z", "creators": ["Tool: bench"] },
        "packages": [], "files": files, "relationships": [],
    });
    let index =
        sbom::parse(document.to_string().as_bytes(), &sbom::Limits::default()).context("the bench's SBOM")?;
    Ok(Arc::new(Image::new(IMAGE, ImageState::Verified { index: Arc::new(index), documents: Vec::new() })))
}

/// Records as the kernel programs write them.
fn stream() -> Vec<Vec<u8>> {
    // A fixed sequence that looks irregular (Knuth's multiplier).
    let mut state = 1_u64;
    let mut next = |below: u32| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(state >> 33).map_or(0, |n| n % below)
    };
    (0..20_000_u32)
        .map(|n| {
            let pid = 1000 + next(2000);
            let file = if next(50) == 0 { FILES + next(10) } else { next(PROGRAMS) };
            match next(100) {
                0..40 => library(n, pid, next(PROGRAMS)),
                40..60 => exec(n, pid, file),
                60..75 => fork(n, pid),
                75..90 => exit(n, pid),
                90..95 => close(n, pid, next(5000)),
                _ => connect(n, pid),
            }
        })
        .collect()
}

fn header(kind: u16, size: usize, n: u32) -> Header {
    let size = u32::try_from(size).unwrap_or_default();
    Header { size, kind, hook: hook::LSM, reserved: 0, time_ns: u64::from(n) * 1000 }
}

fn task(pid: u32) -> muster_common::Task {
    let mut task = muster_common::Task::new_zeroed();
    task.start_ns = u64::from(pid) * 1_000_000;
    (task.pid, task.tgid, task.ppid, task.cgroup_id) = (pid, pid, pid - 1, 77);
    task.comm[..6].copy_from_slice(b"worker");
    task
}

/// Leaf first, each name ended by NUL.
fn file_info(info: &mut muster_common::FileInfo, path: &str, ino: u32) -> Vec<u8> {
    let names: Vec<u8> =
        path.trim_start_matches('/').rsplit('/').flat_map(|name| name.bytes().chain([0])).collect();
    let length = u16::try_from(names.len()).unwrap_or(0);
    (info.ino, info.size, info.dev, info.mode) = (u64::from(ino) + 100, 4096, 8 << 20, 0o100_755);
    (info.real_ino, info.real_dev) = (info.ino, info.dev);
    (info.ctime_ns, info.nlink) = (1_700_000_000_000_000_000, 1);
    (info.flags, info.path_len) = (file_flag::PRESENT, length);
    names
}

fn exec(n: u32, pid: u32, file: u32) -> Vec<u8> {
    let mut r = ExecRecord::new_zeroed();
    r.task = task(pid);
    let path = file_info(&mut r.exe, &name(file), file);
    r.header = header(kind::EXEC, size_of::<ExecRecord>() + path.len(), n);
    (r.exe_digest.sha256, r.exe_digest.origin) = (digest_of(file), digest_origin::CACHE);
    [r.as_bytes(), &path].concat()
}

fn library(n: u32, pid: u32, file: u32) -> Vec<u8> {
    let mut r = LibraryRecord::new_zeroed();
    r.task = task(pid);
    let path = file_info(&mut r.file, &name(file), file);
    r.header = header(kind::LIBRARY, size_of::<LibraryRecord>() + path.len(), n);
    (r.digest.sha256, r.digest.origin) = (digest_of(file), digest_origin::CACHE);
    [r.as_bytes(), &path].concat()
}

fn close(n: u32, pid: u32, file: u32) -> Vec<u8> {
    let mut r = FileRecord::new_zeroed();
    r.task = task(pid);
    r.op = file_op::CLOSE_WRITE;
    let path = file_info(&mut r.file, &format!("/var/lib/service/data/{file}.json"), 1_000_000 + file);
    r.header = header(kind::FILE, size_of::<FileRecord>() + path.len(), n);
    r.file.mode = 0o100_644;
    [r.as_bytes(), &path].concat()
}

fn connect(n: u32, pid: u32) -> Vec<u8> {
    let mut r = ConnectRecord::new_zeroed();
    r.header = header(kind::CONNECT, size_of::<ConnectRecord>(), n);
    r.task = task(pid);
    (r.family, r.protocol, r.port) = (2, protocol::TCP, 443);
    r.address[..4].copy_from_slice(&[192, 0, 2, 1]);
    r.as_bytes().to_vec()
}

fn fork(n: u32, pid: u32) -> Vec<u8> {
    let mut r = ForkRecord::new_zeroed();
    r.header = header(kind::FORK, size_of::<ForkRecord>(), n);
    r.task = task(pid);
    r.parent_start_ns = u64::from(pid - 1) * 1_000_000;
    r.as_bytes().to_vec()
}

fn exit(n: u32, pid: u32) -> Vec<u8> {
    let mut r = ExitRecord::new_zeroed();
    r.header = header(kind::EXIT, size_of::<ExitRecord>(), n);
    r.task = task(pid);
    r.as_bytes().to_vec()
}
