use std::fs;
use std::path::Path;

use super::*;
use crate::devices::{Again, Opened};
use crate::event::{
    Action, Body, Connect, DigestOrigin, FileIdentity, FileOp, FilePath, Flavour, KernelDigest, Kind,
    LossCause, PackageDigest, Place, Protocol, Role, Start, Task, Unread,
};
use crate::finding::Sha256;
use crate::finding::{Finding, ProcessInfo, Verdict};
use crate::images::{Image, ImageState};
use crate::judge::{Facts, Judge, Unsettled};
use crate::metrics::Metrics;
use crate::sbom::{self, ImageIndex};

type Spoil = Box<dyn Fn(&mut Vec<u8>)>;

const IMAGE: Sha256 = Sha256([9; 32]);

/// A world in which files whose name ends in `true` hold what the SBOM lists.
#[derive(Debug, Default)]
struct World;

impl Facts for World {
    type Case = ();
    fn begin(&self, _: &Event) {}
    fn time(&self, (): &()) -> SystemTime {
        SystemTime::UNIX_EPOCH + std::time::Duration::new(1_700_000_000, 123)
    }
    fn workload(&self, (): &()) -> Arc<Workload> {
        let info = WorkloadInfo {
            id: "host".into(),
            image_digest: format!("sha256:{IMAGE}"),
            ..WorkloadInfo::default()
        };
        let root = Some(ProcessId { tgid: 1, start_ns: 2 });
        let started = Some(SystemTime::UNIX_EPOCH);
        Arc::new(Workload {
            info: Arc::new(info),
            image: Some(Arc::new(Digests::named(IMAGE))),
            helps: false,
            is_host: true,
            started,
            root,
        })
    }
    async fn content(&self, (): &(), _: &Task, file: &FileRef, _: Action, _: bool) -> Content {
        match file.path.as_bytes() {
            path if path.ends_with(b"true") || path == b"/usr/bin/dpkg" => Content::Known {
                sha256: Sha256([1; 32]),
                origin: DigestOrigin::Agent,
                weak: None,
                doubt: None,
            },
            path if path.ends_with(b"gone") => Content::Undetermined(Unread::Gone),
            _ => Content::Known {
                sha256: Sha256([2; 32]),
                origin: DigestOrigin::AgentCache,
                weak: None,
                doubt: None,
            },
        }
    }
    async fn resolve(&self, (): &(), _: &Task, file: &FileRef) -> Result<FileRef, Arc<str>> {
        Ok(FileRef { path: "/srv/s.sh".into(), by_name: false, ..file.clone() })
    }
    async fn start(&self, (): &(), _: &Task, file: &FileRef) -> Option<Start> {
        Some(if file.path.as_bytes().ends_with(b".so") { Start::Program } else { Start::Data })
    }
    async fn again(&self, (): &(), _: &Task, file: &FileRef) -> Option<FileRef> {
        Some(file.clone())
    }
    async fn program(&self, (): &(), _: &Task) -> Result<FileRef, Arc<str>> {
        Ok(file("/opt/before"))
    }
    async fn owner(&self, (): &(), _: &Workload, _: &Arc<ImageIndex>, _: &FileRef) -> Option<Owner> {
        None
    }
    fn in_host_root(&self, (): &(), _: &Task) -> bool {
        true
    }
    async fn device_written(&self, (): &(), device: u32) -> Option<Vec<FilePath>> {
        Some(if device == 0 { Vec::new() } else { vec!["/".into()] })
    }
    async fn devices_again(&self, (): &(), opened: &[Opened]) -> Vec<Again> {
        vec![Again::Mounted(vec!["/".into()]); opened.len()]
    }
    async fn settle(&self, (): &(), files: &[Unsettled]) -> Vec<Settled> {
        let digest = Some(PackageDigest::Sha256(Sha256([2; 32])));
        let owner = Some(Owner { package: "new 1".into(), digest });
        vec![Settled { exists: true, content: None, owner }; files.len()]
    }
    fn ancestry(&self, (): &(), task: &Task) -> Ancestry {
        let parent =
            ProcessInfo { comm: "sh".into(), exe: Arc::new("/bin/sh".into()), ..ProcessInfo::default() };
        (ProcessInfo { id: task.process, comm: "x".into(), ..ProcessInfo::default() }, vec![parent])
    }
}

fn file(path: &str) -> FileRef {
    let identity = FileIdentity {
        dev: 1,
        ino: 7,
        size: 3,
        ctime_ns: 1_800_000_000_000_000_000,
        ..FileIdentity::default()
    };
    FileRef { path: path.into(), identity, mode: 0o100_755, ..FileRef::default() }
}

fn events() -> Vec<Event> {
    let connect =
        Connect { protocol: Protocol::Udp, destination: ([0; 16], 53).into(), source_port: 1, sendto: true };
    let digest = Some(KernelDigest { sha256: Sha256([3; 32]), cached: true });
    let memfd = FileRef { place: Place::Memfd, deleted: true, digest, ..file("/memfd:x") };
    let change = |op, path, target: Option<&str>| Body::File {
        op,
        file: FileRef { mode: 0o100_644, ..file(path) },
        target: target.map(Into::into),
        mode: None,
    };
    [
        Body::Exec { exe: file("/bin/true"), script: None },
        Body::Exec { exe: file("/home/true"), script: None },
        Body::Exec { exe: file("/bin/sh"), script: Some(FileRef { by_name: true, ..file("s.sh") }) },
        Body::Exec { exe: memfd, script: None },
        Body::Exec { exe: file("/opt/gone"), script: None },
        Body::Library { file: file("/opt/x.so"), mprotect: true, address: 4096 },
        change(FileOp::CloseWrite, "/opt/y.so", None),
        change(FileOp::CloseWrite, "/opt/data", None),
        change(FileOp::Rename, "/bin/true", Some("/bin/other")),
        Body::Connect(connect.clone()),
        Body::Fork { parent: ProcessId { tgid: 1, start_ns: 1 } },
        Body::Exit { status: 9 },
        Body::Connect(connect),
        Body::Lost { kind: Kind::Exec, cause: LossCause::RingFull, count: 3, since_ns: 1 },
        Body::Exec { exe: file("/usr/bin/dpkg"), script: None },
        change(FileOp::CloseWrite, "/opt/new.so", None),
        Body::Running {
            file: FileRef { mode: 0o100_644, has_writers: true, ..file("/bin/true") },
            role: Role::Written,
            processes: vec![ProcessId { tgid: 5, start_ns: 0 }],
        },
    ]
    .into_iter()
    .zip(1..)
    .map(|(body, n)| {
        let process = ProcessId { tgid: 5, start_ns: 6 };
        let task = Task { process, pid: 5, comm: b"comm".as_slice().into(), ..Task::default() };
        Event { time_ns: n * 1000, flavour: Flavour::Tracepoint, task, body }
    })
    .collect()
}

fn image(_: &Digests) -> Arc<Image> {
    let hex = "01".repeat(32);
    let document = serde_json::json!({
        "spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "test",
        "creationInfo": { "created": "2026-01-01T00:00:00Z", "creators": ["Tool: test"] },
        "packages": [],
        "files": (["/bin/true", "/usr/bin/dpkg"].map(|name| serde_json::json!({
            "SPDXID": format!("SPDXRef{}", name.replace('/', "-")), "fileName": name,
            "checksums": [{ "algorithm": "SHA256", "checksumValue": hex }],
        }))),
        "relationships": [],
    });
    let index =
        sbom::parse(document.to_string().as_bytes(), &sbom::Limits::default()).expect("a good document");
    Arc::new(Image::new(IMAGE, ImageState::Verified { index: Arc::new(index), documents: Vec::new() }))
}

fn record(to: &Path) -> (Vec<Finding>, Written) {
    let mut findings = Vec::new();
    let recording = Recording::create(to, Metrics::new()).expect("a private directory");
    let facts = Recorder::new(World, Some(recording));
    let judge = Judge::new(facts, Box::new(image), Metrics::new(), |f| findings.push(f));
    events().iter().for_each(|e| judge.event(e));
    judge.finish();
    let written = judge.facts().finish().expect("a recording");
    drop(judge);
    (findings, written)
}

fn replayed(from: &Path) -> (Vec<Finding>, Result<Done, String>) {
    let mut findings = Vec::new();
    let mut reader = Reader::open(from).expect("a recording");
    let done = replay(&mut reader, Box::new(image), Metrics::new(), |f| findings.push(f));
    (findings, done.map_err(|e| e.to_string()))
}

#[test]
fn a_replay_gives_the_same_findings() {
    let dir = tempfile::tempdir().expect("a private directory");
    let path = dir.path().join("r");
    let (live, written) = record(&path);
    let (mut again, done) = replayed(&path);
    // One more, at which what the package manager did is settled.
    let count = u64::try_from(events().len()).expect("few") + 1;
    assert_eq!(written, Written { events: count, lost: 0 });
    let done = done.expect("whole");
    assert_eq!((done.events, done.lost, done.ended), (count, 0, true));
    // Without its last frame it is readable, and says that it was cut.
    let whole = fs::read(&path).expect("written");
    fs::write(&path, &whole[..whole.len() - 9]).expect("a private directory");
    assert_eq!(replayed(&path).1, Ok(Done { ended: false, ..done }));
    assert_eq!(done.findings, u64::try_from(live.len()).expect("few"));
    assert_eq!(again.iter().map(|f| f.sequence).collect::<Vec<_>>(), (1..=done.findings).collect::<Vec<_>>());
    again.iter_mut().for_each(|f| f.sequence = 0);
    assert_eq!(again, live);
    // The stream has something of everything.
    for verdict in [
        Verdict::Relocated,
        Verdict::Unauthorized,
        Verdict::Undetermined,
        Verdict::Modified,
        Verdict::Loss,
        Verdict::Updated,
    ] {
        assert!(live.iter().any(|f| f.verdict == verdict), "{verdict}");
    }
    assert!(live.iter().any(|f| f.kind == Kind::Connect && f.path == "/opt/before".into()), "{live:#?}");
}

#[test]
fn the_seed_of_the_fuzzer_is_a_recording_of_this_format() {
    let seed = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/seeds/recording/events"));
    let dir = tempfile::tempdir().expect("a private directory");
    let fresh = dir.path().join("r");
    record(&fresh);
    // How it is made anew when the format has changed.
    if std::env::var_os("MUSTER_NEW_SEED").is_some() {
        fs::copy(&fresh, seed).expect("the checkout can be written");
    }
    let (seed, fresh) = (replayed(seed).1, replayed(&fresh).1.expect("whole"));
    assert_eq!(
        seed,
        Ok(fresh),
        "fuzz/seeds/recording/events must be what `record` writes here: MUSTER_NEW_SEED=1 makes it"
    );
}

#[test]
fn another_sbom_makes_no_attested_file_of_one_that_was_not_looked_at() {
    let dir = tempfile::tempdir().expect("a private directory");
    let path = dir.path().join("r");
    let no_sbom = |_: &Digests| Arc::new(Image::new(IMAGE, ImageState::NoSbom));
    let facts =
        Recorder::new(World, Some(Recording::create(&path, Metrics::new()).expect("a private directory")));
    let judge = Judge::new(facts, Box::new(no_sbom), Metrics::new(), |_| {});
    events().iter().for_each(|e| judge.event(e));
    drop(judge);
    let (again, done) = replayed(&path);
    done.expect("whole");
    let attested = again.iter().find(|f| f.path == "/bin/true".into()).expect("its exec");
    assert_eq!(attested.verdict, Verdict::Undetermined);
    assert!(attested.reason.contains("the recording does not say"), "{}", attested.reason);
}

#[test]
fn what_is_not_as_it_was_written_is_refused_with_its_place() {
    let dir = tempfile::tempdir().expect("a private directory");
    let path = dir.path().join("r");
    record(&path);
    let good = fs::read(&path).expect("written");
    let head = MAGIC.len() + 4;
    let first =
        8 + usize::try_from(u32::from_le_bytes([good[head], good[head + 1], good[head + 2], good[head + 3]]))
            .expect("small");
    let second = head + first;
    let all = u64::try_from(events().len()).expect("few") + 1;
    let spoilt: [(&str, Spoil, u64, String); 6] = [
        (
            "more behind the end",
            Box::new(|b| b.push(0)),
            all,
            format!("byte {}: expected nothing behind the end", good.len()),
        ),
        (
            "a bit of a body",
            Box::new(move |b| b[second + 20] ^= 1),
            1,
            format!("byte {second}: expected checksum"),
        ),
        ("a checksum", Box::new(move |b| b[second + 5] ^= 1), 1, format!("byte {second}: expected checksum")),
        (
            "a length",
            Box::new(move |b| b[head + 3] = 0xff),
            0,
            format!("byte {head}: expected a frame of at most"),
        ),
        (
            "cut in a body",
            Box::new(move |b| b.truncate(second + 30)),
            1,
            format!("byte {second}: expected a frame of"),
        ),
        (
            "cut in a head",
            Box::new(move |b| b.truncate(second + 3)),
            1,
            format!("byte {second}: expected the 8 bytes"),
        ),
    ];
    for (what, spoil, before, message) in spoilt {
        let mut bytes = good.clone();
        spoil(&mut bytes);
        fs::write(&path, &bytes).expect("a private directory");
        let mut reader = Reader::open(&path).expect("its head is good");
        let mut count = 0;
        let error = loop {
            match reader.frame() {
                Ok(Some(_)) => count += 1,
                Ok(None) => panic!("{what}: nothing was refused"),
                Err(error) => break error.to_string(),
            }
        };
        assert_eq!(count, before, "{what}");
        assert!(error.contains(&message), "{what}: {error}");
    }
    let mut other = good.clone();
    other[MAGIC.len()] += 1;
    fs::write(&path, &other).expect("a private directory");
    let error = Reader::open(&path).expect_err("another format").to_string();
    assert!(error.contains(&format!("expected format {FORMAT}, found {}", FORMAT + 1)), "{error}");
    for text in [&b""[..], b"muster", b"{\"sequence\":1,\"time\":\"2026\"}\n"] {
        fs::write(&path, text).expect("a private directory");
        let error = Reader::open(&path).expect_err("no recording").to_string();
        assert!(error.contains("--record"), "{error}");
    }
    // A valid frame of something else.
    let mut strange = good[..head].to_vec();
    let body = [7_u8; 3];
    strange.extend(3_u32.to_le_bytes());
    strange.extend(checksum(&body).to_le_bytes());
    strange.extend(body);
    fs::write(&path, &strange).expect("a private directory");
    let error = Reader::open(&path).expect("its head is good").frame().expect_err("no event").to_string();
    assert!(error.contains("expected an event"), "{error}");
}

#[test]
fn the_checksum_is_crc_32() {
    // The check value of the CRC catalogue.
    assert_eq!(checksum(b"123456789"), 0xCBF4_3926);
}

#[test]
fn a_full_disk_loses_events_and_says_so() {
    let dir = tempfile::tempdir().expect("a private directory");
    // `/dev/full` cannot be cut to length; a link to it is as good as a full disk for what is written.
    let path = dir.path().join("full");
    std::os::unix::fs::symlink("/dev/full", &path).expect("a private directory");
    let error = Recording::create(&path, Metrics::new()).expect_err("not even the head fits");
    assert_eq!(error.raw_os_error(), Some(nix::libc::ENOSPC));
}
