use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::event::{FileIdentity, Flavour, Protocol};
use crate::finding::ProcessInfo;
use crate::images::Document;
use crate::sbom;

const IMAGE: Sha256 = Sha256([9; 32]);
const ATTESTED: u8 = 1;
const OTHER: u8 = 2;
const WALL: u64 = 1_700_000_000;

/// A world in which files hold what the test says.
#[derive(Debug, Default)]
struct World {
    /// Path → content; a path that is not here is gone.
    files: FxHashMap<&'static str, u8>,
    /// Files that start like a program.
    programs: Vec<&'static str>,
    /// Program of processes that began before.
    program: Option<FileRef>,
    workload: Option<Arc<Workload>>,
    asked: usize,
    now: Duration,
}

#[derive(Clone, Debug, Default)]
struct Shared(Rc<RefCell<World>>);

impl Facts for Shared {
    fn begin(&mut self, event: &Event) {
        self.0.borrow_mut().now = Duration::from_nanos(event.time_ns);
    }
    fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(WALL) + self.0.borrow().now
    }
    fn workload(&mut self) -> Arc<Workload> {
        self.0.borrow().workload.clone().unwrap_or_else(|| host(Some(IMAGE)))
    }
    fn content(&mut self, _: &Task, file: &FileRef, _: Action, _: bool) -> Content {
        let mut world = self.0.borrow_mut();
        world.asked += 1;
        let former = file.former.as_ref().map(|path| path.to_string()).unwrap_or_default();
        match world.files.get(file.path.to_string().as_str()).or_else(|| world.files.get(former.as_str())) {
            Some(byte) => {
                Content::Known { sha256: Sha256([*byte; 32]), origin: DigestOrigin::Agent, weak: None }
            }
            None => Content::Undetermined("gone".into()),
        }
    }
    fn resolve(&mut self, _: &Task, file: &FileRef) -> Result<FileRef, Arc<str>> {
        match file.path.as_bytes().strip_prefix(b"./") {
            Some(name) => {
                let path = FilePath::from([b"/srv/", name].concat().as_slice());
                Ok(FileRef { path, by_name: false, ..file.clone() })
            }
            None => Err("no such name".into()),
        }
    }
    fn starts_like_program(&mut self, _: &Task, file: &FileRef) -> Option<bool> {
        let world = self.0.borrow();
        let path = file.path.to_string();
        world.files.contains_key(path.as_str()).then(|| world.programs.contains(&path.as_str()))
    }
    fn program(&mut self, _: &Task) -> Result<FileRef, Arc<str>> {
        self.0.borrow().program.clone().ok_or_else(|| "no such process".into())
    }
    fn ancestry(&mut self, task: &Task) -> Ancestry {
        let parent = ProcessInfo { comm: "parent".into(), ..ProcessInfo::default() };
        (ProcessInfo { id: task.process, ..ProcessInfo::default() }, vec![parent])
    }
}

fn host(image: Option<Sha256>) -> Arc<Workload> {
    let info = WorkloadInfo {
        id: "host".into(),
        image_digest: image.map(|i| format!("sha256:{i}")).unwrap_or_default(),
        ..WorkloadInfo::default()
    };
    Arc::new(Workload { info: Arc::new(info), image, is_host: true, started: None, root: None })
}

fn container(started: u64) -> Arc<Workload> {
    let started = SystemTime::UNIX_EPOCH + Duration::from_secs(started);
    let info = WorkloadInfo { id: "docker://1".into(), ..WorkloadInfo::default() };
    Arc::new(Workload {
        info: Arc::new(info),
        image: Some(IMAGE),
        is_host: false,
        started: Some(started),
        root: None,
    })
}

fn image(state: ImageState) -> Arc<Image> {
    Arc::new(Image::new(IMAGE, state))
}

fn verified() -> Arc<Image> {
    let hex = format!("{ATTESTED:02x}").repeat(32);
    let file = |name: &str| {
        serde_json::json!({
            "SPDXID": format!("SPDXRef{}", name.replace('/', "-")), "fileName": name,
            "checksums": [{ "algorithm": "SHA256", "checksumValue": hex }],
        })
    };
    let document = serde_json::json!({
        "spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "test",
        "creationInfo": { "created": "2026-01-01T00:00:00Z", "creators": ["Tool: test"] },
        "packages": [],
        "files": [file("/bin/true"), file("/bin/sh"), { "SPDXID": "SPDXRef-2", "fileName": "/bin/none", "checksums": [] }],
        "relationships": [],
    });
    let index =
        sbom::parse(document.to_string().as_bytes(), &sbom::Limits::default()).expect("a good document");
    let document = Document {
        sha256: Sha256([5; 32]),
        envelope_sha256: Sha256([6; 32]),
        format: "SPDX-2.3".into(),
        file: "a.json".into(),
        signers: crate::attestation::Signers::default(),
    };
    image(ImageState::Verified { index: Arc::new(index), documents: vec![document] })
}

/// What is done, how, to which file, its new name, and what is found.
type Change = (&'static str, FileOp, FileRef, Option<&'static str>, &'static [(Verdict, &'static str)]);
type Found = Rc<RefCell<Vec<Finding>>>;

/// A judge of one image, which a test may exchange.
struct Bench {
    judge: Judge<Shared, Box<dyn FnMut(Finding)>>,
    world: Shared,
    found: Found,
    image: Arc<std::sync::Mutex<Arc<Image>>>,
    clock: u64,
    flavour: Flavour,
}

impl Bench {
    fn new() -> Self {
        let world = Shared::default();
        world.0.borrow_mut().files =
            [("/bin/true", ATTESTED), ("/bin/sh", ATTESTED), ("/bin/none", OTHER), ("/opt/x", OTHER)]
                .into_iter()
                .collect();
        let found = Found::default();
        let image = Arc::new(std::sync::Mutex::new(verified()));
        let source = {
            let image = Arc::clone(&image);
            Box::new(move |_: &Sha256| Arc::clone(&image.lock().expect("no test panics with it")))
        };
        let sink: Box<dyn FnMut(Finding)> = {
            let found = Rc::clone(&found);
            Box::new(move |finding| found.borrow_mut().push(finding))
        };
        let judge = Judge::new(world.clone(), source, Metrics::new(), sink);
        Self { judge, world, found, image, clock: 0, flavour: Flavour::Tracepoint }
    }

    fn event(&mut self, pid: u32, body: Body) -> Vec<Finding> {
        self.clock += 1000;
        let process = ProcessId { tgid: pid, start_ns: 1 };
        let task = Task { process, pid, uid: 1000, euid: 1000, ..Task::default() };
        let event = Event { time_ns: self.clock, flavour: self.flavour, task, body };
        self.judge.event(&event);
        self.found.take()
    }

    fn exec(&mut self, pid: u32, exe: FileRef) -> Vec<Finding> {
        self.event(pid, Body::Exec { exe, script: None })
    }

    fn file(&mut self, op: FileOp, file: FileRef) -> Vec<Finding> {
        self.event(1, Body::File { op, file, target: None, mode: None })
    }

    fn connect(&mut self, pid: u32) -> Vec<Finding> {
        let connect = Connect {
            protocol: Protocol::Tcp,
            destination: ([127, 0, 0, 1], 80).into(),
            source_port: 0,
            sendto: false,
        };
        self.event(pid, Body::Connect(connect))
    }
}

/// An executable file that is newer than the SBOM.
fn at(path: &str) -> FileRef {
    let ino = path.bytes().map(u64::from).sum();
    let identity =
        FileIdentity { dev: 1, ino, size: 9, ctime_ns: 1_800_000_000_000_000_000, ..FileIdentity::default() };
    FileRef { path: path.into(), identity, mode: 0o100_755, ..FileRef::default() }
}

fn verdicts(found: &[Finding]) -> Vec<(Kind, Verdict, String)> {
    found.iter().map(|f| (f.kind, f.verdict, f.path.to_string())).collect()
}

fn one(kind: Kind, verdict: Verdict, path: &str) -> Vec<(Kind, Verdict, String)> {
    vec![(kind, verdict, path.to_owned())]
}

#[test]
fn an_attested_program_is_silent_in_use_and_asked_for_once() {
    let mut b = Bench::new();
    for pid in 1..10 {
        assert_eq!(verdicts(&b.exec(pid, at("/bin/true"))), []);
    }
    assert_eq!(b.world.0.borrow().asked, 1);
    assert_eq!(b.image.lock().expect("whole").used_count(), 1);
    assert_eq!(b.judge.metrics.verdict_count(Verdict::Attested), 9);
    // A writer has it open: what is known of its content is worth nothing.
    let writing = FileRef { has_writers: true, ..at("/bin/true") };
    b.exec(20, writing);
    assert_eq!(b.world.0.borrow().asked, 2);
    // It was changed: judged anew, though its identity looks the same.
    b.world.0.borrow_mut().files.insert("/bin/true", OTHER);
    b.file(FileOp::OpenWrite, at("/bin/true"));
    assert_eq!(verdicts(&b.exec(21, at("/bin/true"))), one(Kind::Exec, Verdict::Modified, "/bin/true"));
}

#[test]
fn every_run_of_an_unauthorized_program_is_reported_with_its_origin() {
    let mut b = Bench::new();
    for pid in 1..4 {
        let found = b.exec(pid, at("/opt/x"));
        assert_eq!(verdicts(&found), one(Kind::Exec, Verdict::Unauthorized, "/opt/x"));
        assert_eq!(found[0].process.as_ref().map(|p| p.id.tgid), Some(pid));
        assert_eq!(found[0].ancestors[0].comm, "parent");
        assert_eq!(found[0].sha256, Some(Sha256([OTHER; 32])));
        assert_eq!(&*found[0].documents, [Sha256([5; 32])]);
        assert!(found[0].coverage.is_some());
    }
}

#[test]
fn a_script_and_its_interpreter_are_judged_each() {
    let mut b = Bench::new();
    b.world.0.borrow_mut().files.insert("/srv/s.sh", OTHER);
    let by_name = FileRef { by_name: true, ..at("./s.sh") };
    let found = b.event(5, Body::Exec { exe: at("/bin/sh"), script: Some(by_name) });
    assert_eq!(verdicts(&found), one(Kind::Exec, Verdict::Unauthorized, "/srv/s.sh"));
    let lost = FileRef { by_name: true, ..at("s.sh") };
    let found = b.event(6, Body::Exec { exe: at("/bin/sh"), script: Some(lost) });
    assert_eq!(verdicts(&found), one(Kind::Exec, Verdict::Undetermined, "s.sh"));
    assert!(found[0].reason.contains("no such name"), "{}", found[0].reason);
    let both = b.event(7, Body::Exec { exe: at("/opt/x"), script: Some(at("/opt/gone")) });
    assert_eq!(both.len(), 2, "{both:?}");
}

#[test]
fn connects_carry_the_worst_of_what_the_process_runs() {
    let mut b = Bench::new();
    b.exec(1, at("/bin/true"));
    assert_eq!(verdicts(&b.connect(1)), []);
    // A library taints its process, and a fork inherits that.
    b.event(1, Body::Library { file: at("/opt/x"), mprotect: false, address: 0 });
    let parent = ProcessId { tgid: 1, start_ns: 1 };
    b.event(2, Body::Fork { parent });
    for pid in [1, 2] {
        let found = b.connect(pid);
        assert_eq!(verdicts(&found), one(Kind::Connect, Verdict::Unauthorized, "/opt/x"));
        assert_eq!(found[0].severity, Severity::Critical);
        assert!(found[0].connect.is_some());
    }
    // Another program: another verdict.
    b.exec(2, at("/bin/true"));
    assert_eq!(verdicts(&b.connect(2)), []);
    // It ended; its number means nothing now. No exec was seen: the program is looked for.
    b.event(1, Body::Exit { status: 0 });
    assert_eq!(verdicts(&b.connect(1)), one(Kind::Connect, Verdict::Undetermined, ""));
    b.world.0.borrow_mut().program = Some(at("/opt/x"));
    assert_eq!(verdicts(&b.connect(3)), one(Kind::Connect, Verdict::Unauthorized, "/opt/x"));
    b.world.0.borrow_mut().program = Some(at("/bin/true"));
    assert_eq!(verdicts(&b.connect(4)), []);
    assert_eq!(b.connect(3).len(), 1, "what was found is kept");
}

#[test]
fn changes_are_judged_when_they_are_done() {
    use FileOp::{Chmod, CloseWrite, Create, Link, MapWrite, OpenWrite, Rename, Truncate, Unlink};
    use Verdict::{Modified, Relocated, Unauthorized, Undetermined};
    let busy = |path| FileRef { has_writers: true, ..at(path) };
    let data = |path| FileRef { mode: 0o100_644, ..at(path) };
    let table: &[Change] = &[
        ("opened", OpenWrite, at("/bin/none"), None, &[]),
        ("created", Create, at("/opt/x"), None, &[]),
        ("mapped", MapWrite, at("/bin/true"), None, &[]),
        ("closed as it was", CloseWrite, at("/bin/true"), None, &[]),
        ("dropped", CloseWrite, at("/opt/x"), None, &[(Unauthorized, "/opt/x")]),
        (
            "a library dropped: mode says nothing",
            CloseWrite,
            data("/opt/elf"),
            None,
            &[(Unauthorized, "/opt/elf")],
        ),
        ("data", CloseWrite, data("/opt/data"), None, &[]),
        ("data that is gone", CloseWrite, data("/opt/gone"), None, &[]),
        ("a program that is gone", CloseWrite, at("/opt/gone"), None, &[(Undetermined, "/opt/gone")]),
        ("no name left", CloseWrite, FileRef { deleted: true, ..at("/opt/x") }, None, &[]),
        ("a directory", CloseWrite, FileRef { mode: 0o040_755, ..at("/opt/x") }, None, &[]),
        ("made executable", Chmod, data("/opt/data"), None, &[(Unauthorized, "/opt/data")]),
        ("made executable while open", Chmod, busy("/opt/x"), None, &[]),
        ("cut by name", Truncate, at("/bin/sh"), None, &[(Modified, "/bin/sh")]),
        ("cut while open", Truncate, busy("/bin/sh"), None, &[]),
        ("removed", Unlink, at("/bin/true"), None, &[(Modified, "/bin/true")]),
        ("something else removed", Unlink, at("/opt/x"), None, &[]),
        ("renamed over", Rename, at("/opt/x"), Some("/bin/true"), &[(Modified, "/bin/true")]),
        ("renamed data", Rename, data("/opt/data"), Some("/opt/other"), &[]),
        (
            "moved away",
            Rename,
            at("/bin/true"),
            Some("/opt/true"),
            &[(Modified, "/bin/true"), (Relocated, "/opt/true")],
        ),
        ("linked", Link, at("/bin/true"), Some("/opt/true"), &[(Relocated, "/opt/true")]),
        ("linked over nothing", Link, data("/opt/data"), Some("/opt/other"), &[]),
        ("renamed to a relative name", Rename, at("/opt/x"), Some("./x"), &[(Unauthorized, "/srv/x")]),
    ];
    for (what, op, file, target, expected) in table {
        let mut b = Bench::new();
        {
            let mut world = b.world.0.borrow_mut();
            world.files.extend([("/opt/elf", OTHER), ("/opt/data", OTHER), ("/opt/other", OTHER)]);
            world.files.extend([("/opt/true", ATTESTED), ("/srv/x", OTHER)]);
            world.programs.push("/opt/elf");
            if matches!(op, Rename) && *target == Some("/bin/true") || *what == "cut by name" {
                world.files.extend([("/bin/true", OTHER), ("/bin/sh", OTHER)]);
            }
        }
        let mode = matches!(op, Chmod).then_some(0o755);
        let body = Body::File { op: *op, file: file.clone(), target: target.map(FilePath::from), mode };
        let found = b.event(1, body);
        let expected: Vec<_> = expected.iter().map(|(v, p)| (Kind::File, *v, (*p).to_owned())).collect();
        assert_eq!(verdicts(&found), expected, "{what}");
        assert!(found.iter().all(|f| f.operation == Some(*op)), "{what}");
    }
}

#[test]
fn a_rename_over_a_file_of_the_sbom_is_judged_before_it_is_done() {
    for (flavour, expected) in
        [(Flavour::Lsm, Verdict::Modified), (Flavour::Tracepoint, Verdict::Undetermined)]
    {
        let mut b = Bench { flavour, ..Bench::new() };
        b.world.0.borrow_mut().files.remove("/bin/true");
        let target = Some(FilePath::from("/bin/true"));
        let found = b.event(1, Body::File { op: FileOp::Rename, file: at("/opt/x"), target, mode: None });
        assert_eq!(verdicts(&found), one(Kind::File, expected, "/bin/true"), "{flavour:?}");
    }
}

#[test]
fn path_only_is_said_once() {
    let mut b = Bench::new();
    assert_eq!(verdicts(&b.exec(1, at("/bin/none"))), one(Kind::Exec, Verdict::PathOnly, "/bin/none"));
    assert_eq!(verdicts(&b.exec(2, at("/bin/none"))), []);
    assert_eq!(verdicts(&b.connect(2)), []);
}

#[test]
fn fresh_is_what_came_after_the_start() {
    let mut b = Bench::new();
    let old = |place| {
        let mut file = FileRef { place, ..at("/opt/x") };
        file.identity.ctime_ns = 1_000_000_000;
        file
    };
    let young = |place| FileRef { place, ..at("/opt/x") };
    for (workload, file, expected) in [
        (host(Some(IMAGE)), old(Place::Disk), Verdict::Unlisted),
        (host(Some(IMAGE)), young(Place::Disk), Verdict::Unauthorized),
        (host(Some(IMAGE)), old(Place::Tmpfs), Verdict::Unauthorized),
        (host(Some(IMAGE)), old(Place::Memfd), Verdict::Unauthorized),
        (container(WALL), old(Place::ImageLayer), Verdict::Unlisted),
        (container(WALL), old(Place::UpperLayer), Verdict::Unauthorized),
        (container(WALL), young(Place::Disk), Verdict::Unauthorized),
        (container(1_900_000_000), young(Place::Disk), Verdict::Unlisted),
    ] {
        b.world.0.borrow_mut().workload = Some(workload.clone());
        let found = b.exec(1, file.clone());
        assert_eq!(found.len(), 1, "{workload:?} {file:?}");
        assert_eq!(found[0].verdict, expected, "{workload:?} {file:?}");
        b.file(FileOp::OpenWrite, file);
    }
}

#[test]
fn the_state_of_an_image_is_said_once_and_again_when_it_changes() {
    let mut b = Bench::new();
    let now = |b: &mut Bench, state: Option<ImageState>| {
        *b.image.lock().expect("whole") = state.map_or_else(verified, image);
        b.judge.images_changed();
        let mut found = b.exec(1, at("/opt/x"));
        found.extend(b.exec(2, at("/opt/x")));
        found.iter().map(|f| (f.verdict, f.process.is_some())).collect::<Vec<_>>()
    };
    let refused = |reason: &str| Some(ImageState::Unverified { reason: reason.into() });
    let judged = vec![(Verdict::Unauthorized, true), (Verdict::Unauthorized, true)];
    assert_eq!(now(&mut b, Some(ImageState::NoSbom)), [(Verdict::NoSbom, false)]);
    assert_eq!(now(&mut b, Some(ImageState::NoSbom)), []);
    assert_eq!(now(&mut b, refused("wrong key")), [(Verdict::Unverified, false)]);
    assert_eq!(now(&mut b, refused("wrong key")), []);
    assert_eq!(now(&mut b, refused("another subject")), [(Verdict::Unverified, false)]);
    assert_eq!(now(&mut b, None), judged);
    assert_eq!(now(&mut b, refused("another subject")), [(Verdict::Unverified, false)]);
    // A workload of which not even the image is known.
    b.world.0.borrow_mut().workload = Some(host(None));
    let found = b.exec(3, at("/opt/x"));
    assert_eq!(found.len(), 1);
    assert!(found[0].reason.contains("host.image"), "{}", found[0].reason);
    assert_eq!(verdicts(&b.exec(3, at("/opt/x"))), []);
}

#[test]
fn a_program_of_no_known_workload_is_never_silent() {
    let mut b = Bench::new();
    let info = WorkloadInfo { id: crate::workload::UNKNOWN.into(), ..WorkloadInfo::default() };
    let unknown = Workload { info: Arc::new(info), image: None, is_host: false, started: None, root: None };
    b.world.0.borrow_mut().workload = Some(Arc::new(unknown));
    assert_eq!(verdicts(&b.exec(1, at("/bin/true"))), one(Kind::Exec, Verdict::Undetermined, "/bin/true"));
    assert_eq!(verdicts(&b.file(FileOp::CloseWrite, at("/opt/x"))), []);
}

#[test]
fn a_loss_says_when_how_many_and_what_to_do() {
    let mut b = Bench::new();
    let found = b.event(0, Body::Lost { kind: Kind::File, count: 7, since_ns: 0 });
    assert_eq!(verdicts(&found), one(Kind::Lost, Verdict::Loss, ""));
    assert!(found[0].reason.contains("7 file records were lost"), "{}", found[0].reason);
    assert!(found[0].reason.contains("sensor.file_ring_bytes"), "{}", found[0].reason);
    assert_eq!(found[0].process, None);
}
