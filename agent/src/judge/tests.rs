use std::cell::RefCell;
use std::rc::Rc;

use super::image::REPEATED_NS;
use super::updates::{AT_MOST_NS, GRACE_NS, HELD};
use super::*;
use crate::attestation::PredicateType;
use crate::devices::{Again, Opened};
use crate::event::{DigestOrigin, FileIdentity, FileOp, FilePath, Flavour, Kind, LossCause, Protocol, Start};
use crate::event::{Origin, Owner, PackageDigest, WeakDigests};
use crate::finding::{Binding, ProcessInfo, WorkloadInfo};
use crate::images::{Document, ImageState, Loss, Lost};
use crate::sbom::{self, ImageIndex};

mod roots;
mod start;

const IMAGE: Sha256 = Sha256([9; 32]);
const ATTESTED: u8 = 1;
const OTHER: u8 = 2;
const WALL: u64 = 1_700_000_000;

/// A world in which files hold what the test says.
#[derive(Debug, Default)]
struct World {
    /// Path → content; a path that is not here is gone.
    files: HashMap<&'static str, u8>,
    /// Files that start like a program.
    programs: Vec<&'static str>,
    /// Files that are ELF and no program.
    objects: Vec<&'static str>,
    /// The mode says nothing of how a file starts.
    data: bool,
    /// Mode of what is looked at again, and how often that was.
    mode: Option<u32>,
    looked: usize,
    /// Program of processes that began before.
    program: Option<FileRef>,
    workload: Option<Arc<Workload>>,
    /// Path → package and MD5 in the package database.
    owners: HashMap<&'static str, (&'static str, u8)>,
    /// What every other path holds.
    rest: Option<u8>,
    /// Files without content.
    empty: Vec<&'static str>,
    elsewhere: bool,
    /// The events' tasks have mounts of their own.
    own_mounts: bool,
    /// And their files have other names, which nobody knows.
    unknown_names: bool,
    /// Names that each place in a file system has, in the host's root or the container's.
    places: Vec<(bool, &'static str, &'static str)>,
    /// Name of the SBOM of each file that had several before.
    listed: HashMap<&'static str, &'static str>,
    /// A device whose files are in no workload's root.
    own_root: Option<u32>,
    settled: usize,
    asked: usize,
    /// What is found when devices are looked at again, and what was asked then.
    devices: Option<Again>,
    devices_asked: Vec<Vec<Opened>>,
    now: Duration,
}

impl World {
    fn holds(&self, path: &str, weak: bool) -> Content {
        if self.empty.contains(&path) {
            let sha256 = Sha256::EMPTY;
            return Content::Known { sha256, origin: DigestOrigin::Agent, weak: None, doubt: None };
        }
        match self.files.get(path).or(self.rest.as_ref()) {
            Some(byte) => Content::Known {
                sha256: Sha256([*byte; 32]),
                origin: DigestOrigin::Agent,
                weak: weak.then(|| Arc::new(WeakDigests { sha1: [*byte; 20], md5: [*byte; 16] })),
                doubt: None,
            },
            None => Content::Undetermined(Unread::Gone),
        }
    }

    fn owner(&self, path: &FilePath) -> Option<Owner> {
        let (package, md5) = self.owners.get(path.to_string().as_str())?;
        Some(Owner { package: (*package).into(), digest: Some(PackageDigest::Md5([*md5; 16])) })
    }
}

#[derive(Clone, Debug, Default)]
struct Shared(Rc<RefCell<World>>);

impl Facts for Shared {
    type Case = ();
    fn begin(&self, event: &Event) {
        self.0.borrow_mut().now = Duration::from_nanos(event.time_ns);
    }
    fn time(&self, (): &()) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(WALL) + self.0.borrow().now
    }
    fn workload(&self, (): &()) -> Arc<Workload> {
        self.0.borrow().workload.clone().unwrap_or_else(|| host(Some(IMAGE)))
    }
    async fn content(&self, (): &(), _: &Task, file: &FileRef, _: Action, weak: bool) -> Content {
        let mut world = self.0.borrow_mut();
        world.asked += 1;
        world.holds(&file.path.to_string(), weak)
    }
    async fn owner(&self, (): &(), _: &Workload, _: &Arc<ImageIndex>, file: &FileRef) -> Option<Owner> {
        self.0.borrow().owner(&file.path)
    }
    fn in_host_root(&self, (): &(), _: &Task) -> bool {
        !self.0.borrow().elsewhere
    }
    async fn device_written(&self, (): &(), device: u32) -> Option<Vec<FilePath>> {
        Some(if device == 0 { Vec::new() } else { vec!["/".into()] })
    }
    async fn devices_again(&self, (): &(), opened: &[Opened]) -> Vec<Again> {
        let mut world = self.0.borrow_mut();
        world.devices_asked.push(opened.to_vec());
        let again = world.devices.clone().unwrap_or(Again::Open);
        vec![again; opened.len()]
    }
    async fn settle(&self, (): &(), files: &[Unsettled]) -> Vec<Settled> {
        let mut world = self.0.borrow_mut();
        world.settled += 1;
        let settled = files.iter().map(|file| {
            let content = world.holds(&file.path.to_string(), true);
            let exists = matches!(content, Content::Known { .. });
            Settled { exists, content: file.unread.then_some(content), owner: world.owner(&file.path) }
        });
        settled.collect()
    }
    async fn resolve(&self, (): &(), _: &Task, file: &FileRef) -> Result<FileRef, Arc<str>> {
        match file.path.as_bytes().strip_prefix(b"./") {
            Some(name) => {
                let path = FilePath::from([b"/srv/", name].concat().as_slice());
                Ok(FileRef { path, by_name: false, ..file.clone() })
            }
            None => Err("no such name".into()),
        }
    }
    async fn start(&self, (): &(), _: &Task, file: &FileRef) -> Option<Start> {
        let world = self.0.borrow();
        let path = file.path.to_string();
        world.files.get(path.as_str()).or(world.rest.as_ref())?;
        Some(match path.as_str() {
            path if world.objects.contains(&path) => Start::Object,
            path if world.programs.contains(&path) => Start::Program,
            _ if world.data => Start::Data,
            _ if file.mode & EXECUTABLE != 0 => Start::Program,
            _ => Start::Data,
        })
    }
    async fn again(&self, (): &(), _: &Task, file: &FileRef) -> Option<FileRef> {
        let mut world = self.0.borrow_mut();
        let content = *world.files.get(file.path.to_string().as_str())?;
        world.looked += 1;
        let identity = FileIdentity { size: content.into(), ..file.identity };
        Some(FileRef { identity, mode: world.mode.unwrap_or(file.mode), ..file.clone() })
    }
    async fn program(&self, (): &(), _: &Task) -> Result<FileRef, Arc<str>> {
        self.0.borrow().program.clone().ok_or_else(|| "no such process".into())
    }
    fn host(&self, (): &()) -> Option<Arc<Workload>> {
        Some(host(Some(IMAGE)))
    }
    fn names(&self, (): &(), workload: &Workload, _: u32, path: &FilePath) -> Vec<FilePath> {
        let world = self.0.borrow();
        let names = world.places.iter().filter(|(is_host, place, _)| {
            *is_host == workload.is_host && place.as_bytes() == path.as_bytes()
        });
        names.map(|(_, _, name)| (*name).into()).collect()
    }
    fn host_name(&self, (): &(), _: &Task, _: u32, place: Option<&FilePath>, used: &FilePath) -> HostName {
        let world = self.0.borrow();
        let place = place.or(world.own_mounts.then_some(used));
        let names = world.places.iter().filter(|(is_host, at, _)| {
            *is_host && place.is_some_and(|place| at.as_bytes() == place.as_bytes())
        });
        let names: Vec<FilePath> = names.map(|(_, _, name)| (*name).into()).collect();
        match names.first() {
            _ if world.unknown_names => HostName::Unknown,
            None if world.own_mounts => HostName::Nowhere,
            Some(name) if !names.contains(used) => HostName::Other(name.clone()),
            _ => HostName::Used,
        }
    }
    fn is_private(&self, (): &(), _: &Task, _: u32) -> bool {
        let world = self.0.borrow();
        world.own_mounts && world.places.is_empty()
    }
    async fn is_at(&self, (): &(), _: &Workload, name: &FilePath, file: &FileRef) -> bool {
        let world = self.0.borrow();
        world.own_root != Some(file.identity.dev) && world.files.contains_key(name.to_string().as_str())
    }
    async fn listed_name(
        &self,
        (): &(),
        _: &Workload,
        _: &Arc<ImageIndex>,
        file: &FileRef,
    ) -> Option<FilePath> {
        self.0.borrow().listed.get(file.path.to_string().as_str()).map(|name| (*name).into())
    }
    fn ancestry(&self, (): &(), task: &Task) -> Ancestry {
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
    let image = image.map(|image| Arc::new(Digests::named(image)));
    Arc::new(Workload { info: Arc::new(info), image, helps: false, is_host: true, started: None, root: None })
}

fn container(started: u64) -> Arc<Workload> {
    let started = SystemTime::UNIX_EPOCH + Duration::from_secs(started);
    let info = WorkloadInfo { id: "docker://1".into(), ..WorkloadInfo::default() };
    Arc::new(Workload {
        info: Arc::new(info),
        image: Some(Arc::new(Digests::named(IMAGE))),
        helps: false,
        is_host: false,
        started: Some(started),
        root: None,
    })
}

fn image(state: ImageState) -> Arc<Image> {
    Arc::new(Image::new(IMAGE, state))
}

fn verified() -> Arc<Image> {
    verified_at("2026-01-01T00:00:00Z")
}

fn verified_at(created: &str) -> Arc<Image> {
    let (index, document) = sbom_of(&["/bin/true", "/bin/sh", "/usr/bin/dpkg"], Some(created));
    image(ImageState::Verified { index, documents: vec![document] })
}

/// An SBOM of attested programs, and of `/bin/none` without a digest.
fn sbom_of(attested: &[&str], created: Option<&str>) -> (Arc<ImageIndex>, Document) {
    let hex = format!("{ATTESTED:02x}").repeat(32);
    let file = |name: &str| {
        serde_json::json!({
            "SPDXID": format!("SPDXRef{}", name.replace('/', "-")), "fileName": name,
            "checksums": [{ "algorithm": "SHA256", "checksumValue": hex }],
        })
    };
    let mut creation_info = serde_json::json!({ "creators": ["Tool: test"] });
    if let Some(created) = created {
        creation_info["created"] = created.into();
    }
    let none = serde_json::json!({ "SPDXID": "SPDXRef-2", "fileName": "/bin/none", "checksums": [] });
    let document = serde_json::json!({
        "spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "name": "test",
        "creationInfo": creation_info,
        "packages": [],
        "files": attested.iter().map(|name| file(name)).chain([none]).collect::<Vec<_>>(),
        "relationships": [],
    });
    let index =
        sbom::parse(document.to_string().as_bytes(), &sbom::Limits::default()).expect("a good document");
    let document = Document {
        sha256: Sha256([5; 32]),
        envelope_sha256: Sha256([6; 32]),
        format: "SPDX-2.3".into(),
        predicate: PredicateType::Spdx,
        tool: None,
        file: "a.json".into(),
        signers: crate::attestation::Signers::default(),
        time: None,
        binding: Binding::ManifestDigest,
    };
    (Arc::new(index), document)
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
    /// Effective user of who does something.
    euid: u32,
}

impl Bench {
    fn new() -> Self {
        let world = Shared::default();
        world.0.borrow_mut().files =
            [("/bin/true", ATTESTED), ("/bin/sh", ATTESTED), ("/bin/none", OTHER), ("/opt/x", OTHER)]
                .into_iter()
                .chain([("/usr/bin/dpkg", ATTESTED)])
                .collect();
        let found = Found::default();
        let image = Arc::new(std::sync::Mutex::new(verified()));
        let source = {
            let image = Arc::clone(&image);
            Box::new(move |_: &Digests| Arc::clone(&image.lock().expect("no test panics with it")))
        };
        let sink: Box<dyn FnMut(Finding)> = {
            let found = Rc::clone(&found);
            Box::new(move |finding| found.borrow_mut().push(finding))
        };
        let judge = Judge::new(world.clone(), source, Metrics::new(), sink);
        Self { judge, world, found, image, clock: 0, flavour: Flavour::Tracepoint, euid: 1000 }
    }

    /// The images change under what runs.
    fn now(&mut self, image: Arc<Image>) {
        *self.image.lock().expect("whole") = image;
        self.judge.images_changed();
    }

    /// A package manager that is attested is run.
    fn dpkg(&mut self, pid: u32) -> Vec<Finding> {
        self.as_root(|b| b.exec(pid, at("/usr/bin/dpkg")))
    }

    fn as_root<T>(&mut self, does: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::take(&mut self.euid);
        let done = does(self);
        self.euid = before;
        done
    }

    fn fork(&mut self, parent: u32, child: u32) {
        let parent = ProcessId { tgid: parent, start_ns: 1 };
        assert_eq!(self.event(child, Body::Fork { parent }).len(), 0);
    }

    fn writes(&mut self, pid: u32, path: &'static str, holds: u8) -> Vec<Finding> {
        self.world.0.borrow_mut().files.insert(path, holds);
        self.event(pid, Body::File { op: FileOp::CloseWrite, file: at(path), target: None, mode: None })
    }

    fn renames(&mut self, pid: u32, from: &'static str, to: &'static str) -> Vec<Finding> {
        {
            let files = &mut self.world.0.borrow_mut().files;
            let holds = files.remove(from).expect("it is there");
            files.insert(to, holds);
        }
        let target = Some(to.into());
        self.event(pid, Body::File { op: FileOp::Rename, file: at(from), target, mode: None })
    }

    fn removes(&mut self, pid: u32, path: &'static str) -> Vec<Finding> {
        self.world.0.borrow_mut().files.remove(path);
        self.event(pid, Body::File { op: FileOp::Unlink, file: at(path), target: None, mode: None })
    }

    /// The process ends, and its session is settled.
    fn ends(&mut self, pid: u32) -> Vec<Finding> {
        let mut found = self.event(pid, Body::Exit { status: 0 });
        self.clock += GRACE_NS;
        self.judge.tick(Duration::from_nanos(self.clock));
        found.extend(self.found.take());
        found
    }

    fn event(&mut self, pid: u32, body: Body) -> Vec<Finding> {
        self.clock += 1000;
        let process = ProcessId { tgid: pid, start_ns: 1 };
        let task = Task { process, pid, uid: 1000, euid: self.euid, ..Task::default() };
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
    use FileOp::{Chmod, CloseWrite, Create, Exchange, Link, MapWrite, OpenWrite, Rename, Truncate, Unlink};
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
        ("moved away", Rename, at("/bin/true"), Some("/opt/true"), &[(Modified, "/bin/true")]),
        ("linked", Link, at("/bin/true"), Some("/opt/true"), &[]),
        (
            "a copy made set-user-id",
            CloseWrite,
            FileRef { mode: 0o104_755, ..at("/opt/true") },
            None,
            &[(Relocated, "/opt/true")],
        ),
        ("a file without a digest", CloseWrite, at("/bin/none"), None, &[(Modified, "/bin/none")]),
        (
            "a link to a directory of the SBOM moved away",
            Rename,
            FileRef { mode: 0o120_777, ..at("/usr") },
            Some("/u"),
            &[(Modified, "/usr")],
        ),
        (
            "a directory of the SBOM moved away",
            Rename,
            FileRef { mode: 0o040_755, ..at("/usr/bin") },
            Some("/opt/bin"),
            &[(Modified, "/usr/bin")],
        ),
        (
            "another directory put in its place",
            Rename,
            FileRef { mode: 0o040_755, ..at("/opt/bin") },
            Some("/usr/bin"),
            &[(Modified, "/usr/bin")],
        ),
        (
            "a directory that the SBOM does not know",
            Rename,
            FileRef { mode: 0o040_755, ..at("/opt/bin") },
            Some("/usr/bin2"),
            &[],
        ),
        (
            "a symbolic link put in a file's place",
            Rename,
            FileRef { mode: 0o120_777, ..at("/opt/link") },
            Some("/bin/true"),
            &[(Modified, "/bin/true")],
        ),
        (
            "a FIFO put in the place of a file without a digest",
            Rename,
            FileRef { mode: 0o010_644, ..at("/opt/fifo") },
            Some("/bin/none"),
            &[(Modified, "/bin/none")],
        ),
        (
            "a directory put where the SBOM may have one",
            Rename,
            FileRef { mode: 0o040_755, ..at("/opt/bin") },
            Some("/bin/none"),
            &[],
        ),
        (
            "a symbolic link put where the SBOM has nothing",
            Rename,
            FileRef { mode: 0o120_777, ..at("/opt/link") },
            Some("/opt/x"),
            &[],
        ),
        (
            "a symbolic link exchanged with a file",
            Exchange,
            FileRef { mode: 0o120_777, ..at("/opt/link") },
            Some("/bin/true"),
            &[(Modified, "/bin/true")],
        ),
        (
            "exchanged away, and copied content is not told of a host",
            Exchange,
            at("/bin/sh"),
            Some("/opt/true"),
            &[],
        ),
        ("exchanged with the same content", Exchange, at("/opt/true"), Some("/bin/sh"), &[]),
        (
            "a directory of the SBOM exchanged with another",
            Exchange,
            FileRef { mode: 0o040_755, ..at("/opt/bin") },
            Some("/usr/bin"),
            &[(Modified, "/usr/bin")],
        ),
        (
            "names exchanged, known by their spelling",
            Exchange,
            FileRef { by_name: true, identity: FileIdentity::default(), ..at("./true") },
            Some("./x"),
            &[(Unauthorized, "/srv/x")],
        ),
        ("linked over nothing", Link, data("/opt/data"), Some("/opt/other"), &[]),
        ("renamed to a relative name", Rename, at("/opt/x"), Some("./x"), &[(Unauthorized, "/srv/x")]),
    ];
    for (what, op, file, target, expected) in table {
        let mut b = Bench::new();
        {
            let mut world = b.world.0.borrow_mut();
            world.files.extend([("/opt/elf", OTHER), ("/opt/data", OTHER), ("/opt/other", OTHER)]);
            world.files.extend([("/opt/true", ATTESTED), ("/srv/x", OTHER), ("/srv/true", ATTESTED)]);
            world.programs.extend(["/opt/elf", "/srv/x", "/srv/true"]);
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

/// Who opened a file by a name that is gone when it is closed has changed it under its other names.
#[test]
fn a_close_by_a_name_that_is_gone_is_judged_by_another() {
    use FileOp::{CloseWrite, Link};
    let temporary = FileRef { deleted: true, mode: 0o100_644, ..at("/tmp/#7") };
    let same = |path: &str, of: &FileRef| FileRef { path: path.into(), nlink: 1, ..of.clone() };
    let link = |file: &FileRef, target: &str| Body::File {
        op: Link,
        file: file.clone(),
        target: Some(target.into()),
        mode: None,
    };
    let close = |file: FileRef| Body::File { op: CloseWrite, file, target: None, mode: None };
    // A file without a name is given one, and then its content.
    let mut b = Bench::new();
    assert_eq!(verdicts(&b.event(1, link(&temporary, "/opt/dropped"))), []);
    {
        let mut world = b.world.0.borrow_mut();
        world.files.insert("/opt/dropped", OTHER);
        world.programs.push("/opt/dropped");
    }
    let found = b.event(1, close(same("/tmp/#7", &temporary)));
    assert_eq!(verdicts(&found), one(Kind::File, Verdict::Unauthorized, "/opt/dropped"));
    // A file of the SBOM is changed by another name, which is removed before that.
    let mut b = Bench::new();
    let data = FileRef { mode: 0o100_644, ..at("/bin/true") };
    assert_eq!(verdicts(&b.event(1, link(&data, "/opt/link"))), []);
    b.world.0.borrow_mut().files.insert("/bin/true", OTHER);
    let by_link = FileRef { deleted: true, ..same("/opt/link", &data) };
    let found = b.event(1, close(by_link.clone()));
    assert_eq!(verdicts(&found), one(Kind::File, Verdict::Modified, "/bin/true"));
    // Made before the agent began: a program is not passed over because nobody knows its other names.
    let mut b = Bench::new();
    let program = FileRef { mode: 0o100_755, ..by_link };
    let found = b.event(1, close(program.clone()));
    assert_eq!(verdicts(&found), one(Kind::File, Verdict::Undetermined, "/opt/link"));
    // None is left.
    assert_eq!(verdicts(&b.event(1, close(FileRef { nlink: 0, ..program }))), []);
}

#[test]
fn path_only_is_said_once() {
    let mut b = Bench::new();
    let old = || {
        let mut file = at("/bin/none");
        file.identity.ctime_ns = 1;
        file
    };
    assert_eq!(verdicts(&b.exec(1, old())), one(Kind::Exec, Verdict::PathOnly, "/bin/none"));
    assert_eq!(verdicts(&b.exec(2, old())), []);
    assert_eq!(verdicts(&b.connect(2)), []);
    // That it was said of the image's own file is nothing in favour of another.
    assert_eq!(verdicts(&b.exec(3, at("/bin/none"))), one(Kind::Exec, Verdict::Modified, "/bin/none"));
    assert_eq!(verdicts(&b.connect(3)), one(Kind::Connect, Verdict::Modified, "/bin/none"));
}

#[test]
fn a_fresh_library_at_a_path_without_a_digest_spoils_a_package_manager() {
    let mut b = Bench::new();
    b.dpkg(10);
    assert_eq!(lines(&b.writes(10, "/bin/true", OTHER)), []);
    let found = b.event(10, Body::Library { file: at("/bin/none"), mprotect: false, address: 0 });
    let library = (Kind::Library, Verdict::Modified, "/bin/none".to_owned());
    assert_eq!(verdicts(&found), [library, (Kind::File, Verdict::Modified, "/bin/true".into())]);
    assert_eq!(b.writes(10, "/bin/true", OTHER)[0].verdict, Verdict::Modified);
}

#[test]
fn a_copy_that_has_not_run_is_silent_on_a_host_and_said_once_for_a_directory_of_a_container() {
    let mut b = Bench::new();
    let mut copied = |workload: Arc<Workload>, pid, path| {
        b.world.0.borrow_mut().workload = Some(workload);
        lines(&b.writes(pid, path, ATTESTED))
    };
    assert_eq!(copied(host(Some(IMAGE)), 1, "/opt/a/1"), []);
    let said = |path: &str| vec![(Verdict::Relocated, Severity::Info, Kind::File, path.to_owned(), None)];
    assert_eq!(copied(container(WALL), 1, "/opt/a/1"), said("/opt/a/1"));
    assert_eq!(copied(container(WALL), 1, "/opt/a/2"), []);
    assert_eq!(copied(container(WALL), 2, "/opt/a/3"), said("/opt/a/3"));
    assert_eq!(copied(container(WALL), 1, "/opt/b/4"), said("/opt/b/4"));
    // Those that were said are counted where they are published.
    assert_eq!(b.judge.metrics.verdict_count(Verdict::Relocated), 2);
    b.world.0.borrow_mut().workload = None;
    let found = b.exec(3, at("/opt/a/1"));
    assert_eq!((found[0].verdict, found[0].severity), (Verdict::Relocated, Severity::Low));
}

#[test]
fn an_empty_file_accuses_nobody() {
    let mut b = Bench::new();
    b.world.0.borrow_mut().empty.push("/opt/empty");
    assert_eq!(lines(&b.file(FileOp::CloseWrite, at("/opt/empty"))), []);
    assert_eq!(lines(&b.exec(1, at("/opt/empty"))), []);
    assert_eq!(lines(&b.connect(1)), []);
    assert_eq!(b.judge.metrics.verdict_count(Verdict::Unlisted), 2);
}

/// Root can make any package manager write anything where it keeps its records, and run it from there.
#[test]
fn what_a_package_manager_keeps_is_no_place_to_hide() {
    let mut b = Bench::new();
    let listed = ["/bin/true", "/bin/sh", "/usr/bin/dpkg", "/var/lib/dpkg/status"];
    let (index, document) = sbom_of(&listed, Some("2026-01-01T00:00:00Z"));
    b.now(image(ImageState::Verified { index, documents: vec![document] }));
    b.dpkg(10);
    b.fork(10, 11);
    let script = "/var/lib/dpkg/info/new.postinst";
    let mut found = b.writes(11, "/var/lib/dpkg/x", OTHER);
    found.extend(b.writes(11, script, OTHER));
    let data = FileRef { mode: 0o100_644, ..at("/var/lib/dpkg/status") };
    b.world.0.borrow_mut().files.insert("/var/lib/dpkg/status", OTHER);
    let close = Body::File { op: FileOp::CloseWrite, file: data, target: None, mode: None };
    found.extend(b.event(11, close));
    assert_eq!(lines(&found), []);
    // A maintainer script runs as one, and in the lineage; nothing else does.
    let run = |b: &mut Bench, pid, path: &str| {
        b.as_root(|b| b.event(pid, Body::Exec { exe: at("/bin/sh"), script: Some(at(path)) }))
    };
    assert_eq!(lines(&run(&mut b, 11, script)), []);
    for (what, found) in [
        ("by another", run(&mut b, 30, script)),
        ("another name", run(&mut b, 11, "/var/lib/dpkg/x")),
        ("as a program", b.as_root(|b| b.exec(11, at(script)))),
        ("by another, before the end", b.as_root(|b| b.exec(31, at("/var/lib/dpkg/x")))),
    ] {
        assert_eq!(found.len(), 1, "{what}");
        let found = (found[0].verdict, found[0].severity);
        assert_eq!(found, (Verdict::Unauthorized, Severity::Critical), "{what}");
    }
    assert_eq!(
        lines(&b.ends(10)),
        [
            updated(Severity::Medium, Kind::File, "/var/lib/dpkg/x", None),
            updated(Severity::Info, Kind::File, script, None),
            updated(Severity::Info, Kind::File, "/var/lib/dpkg/status", None),
            updated(Severity::Info, Kind::Exec, script, None),
        ]
    );
    for path in ["/var/lib/dpkg/x", script] {
        assert_eq!(b.exec(40, at(path))[0].severity, Severity::High, "{path}");
        let found = b.connect(40);
        assert_eq!(
            (found[0].verdict, found[0].severity),
            (Verdict::Unauthorized, Severity::Critical),
            "{path}"
        );
    }
    let found = run(&mut b, 41, script);
    assert_eq!((found[0].verdict, found[0].severity), (Verdict::Unauthorized, Severity::Critical));
}

#[test]
fn an_sbom_without_a_time_is_as_old_as_its_signature_or_the_agent() {
    let at_seconds = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let made = at("/opt/x").identity.ctime_ns / 1_000_000_000;
    let stated = "2026-01-01T00:00:00Z";
    let (before, after) = (Some(at_seconds(made - 1)), Some(at_seconds(made + 1)));
    for (created, signed, started, expected) in [
        (None, before, None, Verdict::Unauthorized),
        (None, after, before, Verdict::Unlisted),
        (None, before, after, Verdict::Unauthorized),
        (None, None, before, Verdict::Unauthorized),
        (None, None, after, Verdict::Unlisted),
        (None, None, None, Verdict::Unlisted),
        (Some(stated), after, after, Verdict::Unauthorized),
    ] {
        let mut b = Bench::new();
        b.judge.started = started;
        let (index, mut document) = sbom_of(&["/bin/true"], created);
        document.time = signed;
        b.now(image(ImageState::Verified { index, documents: vec![document] }));
        b.world.0.borrow_mut().workload = Some(host(Some(IMAGE)));
        let found = b.exec(1, at("/opt/x"));
        assert_eq!(found.len(), 1, "{created:?} {signed:?} {started:?}");
        assert_eq!(found[0].verdict, expected, "{created:?} {signed:?} {started:?}");
    }
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
    assert_eq!(now(&mut b, None), [vec![(Verdict::Attested, false)], judged.clone()].concat());
    assert_eq!(now(&mut b, None), judged, "the same documents");
    assert_eq!(now(&mut b, refused("another subject")), [(Verdict::Unverified, false)]);
    // A workload of which not even the image is known.
    b.world.0.borrow_mut().workload = Some(host(None));
    let found = b.exec(3, at("/opt/x"));
    assert_eq!(found.len(), 1);
    assert!(found[0].reason.contains("host.image"), "{}", found[0].reason);
    assert_eq!(verdicts(&b.exec(3, at("/opt/x"))), []);
}

#[test]
fn that_an_image_is_judged_by_what_is_lost_is_said_while_it_lasts() {
    let mut b = Bench::new();
    let lost = |reason: &str| {
        let mut image = Arc::into_inner(verified()).expect("new");
        let loss = Loss { verdict: Verdict::NoSbom, reason: reason.to_owned(), is_kept: true };
        image.lost = Some(Lost::new(loss, SystemTime::now()));
        Arc::new(image)
    };
    let now = |b: &mut Bench, image: Arc<Image>| {
        *b.image.lock().expect("whole") = image;
        b.judge.images_changed();
    };
    let at_ns = |b: &mut Bench, time_ns: u64, path: &'static str| {
        let process = ProcessId { tgid: 5, start_ns: 1 };
        let task = Task { process, pid: 5, ..Task::default() };
        let body = Body::Exec { exe: at(path), script: None };
        b.judge.event(&Event { time_ns, flavour: Flavour::Lsm, task, body });
        b.found.take().iter().map(|f| (f.verdict, f.severity, f.path.to_string())).collect::<Vec<_>>()
    };
    let unknown = (Verdict::Unauthorized, Severity::Critical, "/opt/x".to_owned());
    let gone = (Verdict::NoSbom, Severity::High, String::new());
    b.world.0.borrow_mut().workload = Some(container(WALL));
    assert_eq!(at_ns(&mut b, 1, "/opt/x"), std::slice::from_ref(&unknown));
    now(&mut b, lost("gone"));
    // At once, and an unknown program is still what it was.
    assert_eq!(at_ns(&mut b, 2, "/opt/x"), [gone.clone(), unknown.clone()]);
    assert_eq!(at_ns(&mut b, 3, "/bin/true"), []);
    // Others have changed, this one has not.
    now(&mut b, lost("gone"));
    assert_eq!(at_ns(&mut b, REPEATED_NS, "/bin/true"), []);
    assert_eq!(at_ns(&mut b, 2 + REPEATED_NS, "/bin/true"), std::slice::from_ref(&gone));
    assert_eq!(at_ns(&mut b, 3 + REPEATED_NS, "/bin/true"), []);
    // Though no event comes.
    b.judge.tick(Duration::from_nanos(2 + 2 * REPEATED_NS));
    assert_eq!(verdicts(&b.found.take()), one(Kind::Lost, Verdict::NoSbom, ""));
    // It does nothing any more: its attestation may go. As soon as it does something that is said at once.
    b.judge.tick(Duration::from_nanos(2 + 3 * REPEATED_NS));
    b.judge.tick(Duration::from_nanos(2 + 9 * REPEATED_NS));
    assert_eq!(verdicts(&b.found.take()), []);
    assert_eq!(at_ns(&mut b, 3 + 9 * REPEATED_NS, "/opt/x"), [gone.clone(), unknown.clone()]);
    // Something else is lost.
    now(&mut b, lost("replaced"));
    assert_eq!(at_ns(&mut b, 4 + 9 * REPEATED_NS, "/bin/true"), [gone]);
    // It is back, which is good to know.
    now(&mut b, verified());
    let back = (Verdict::Attested, Severity::Info, String::new());
    assert_eq!(at_ns(&mut b, 5 + 9 * REPEATED_NS, "/bin/true"), [back]);
    b.judge.tick(Duration::from_nanos(99 * REPEATED_NS));
    assert_eq!(verdicts(&b.found.take()), []);
    // Retired on purpose: it is not judged any more, and that is never a small thing.
    now(&mut b, image(ImageState::NoSbom));
    let none = (Verdict::NoSbom, Severity::High, String::new());
    assert_eq!(at_ns(&mut b, 100 * REPEATED_NS, "/bin/true"), [none]);
    // The host is never idle.
    b.world.0.borrow_mut().workload = Some(host(Some(IMAGE)));
    now(&mut b, lost("gone"));
    assert_eq!(at_ns(&mut b, 101 * REPEATED_NS, "/bin/true").len(), 1);
    for times in 102..105 {
        b.judge.tick(Duration::from_nanos(times * REPEATED_NS));
        assert_eq!(verdicts(&b.found.take()), one(Kind::Lost, Verdict::NoSbom, ""), "{times}");
    }
}

#[test]
fn what_runs_already_is_judged_by_an_attestation_that_comes_later() {
    let mut b = Bench::new();
    b.now(image(ImageState::NoSbom));
    b.world.0.borrow_mut().program = Some(at("/opt/x"));
    assert_eq!(verdicts(&b.exec(1, at("/opt/x"))), one(Kind::Exec, Verdict::NoSbom, ""));
    assert_eq!(verdicts(&b.connect(1)), []);

    b.now(verified());
    let found = b.connect(1);
    assert_eq!(
        verdicts(&found),
        [
            (Kind::Connect, Verdict::Attested, String::new()),
            (Kind::Connect, Verdict::Unauthorized, "/opt/x".into())
        ]
    );
    assert!(found[0].reason.contains("state of the image's SBOM has changed"), "{}", found[0].reason);
    assert!(found[0].reason.contains("a.json"), "{}", found[0].reason);
    assert_eq!((found[0].severity, found[0].binding), (Severity::Info, Some(Binding::ManifestDigest)));
    assert_eq!(&*found[0].documents, [Sha256([5; 32])]);
    assert_eq!(found[1].binding, Some(Binding::ManifestDigest));
    // Said once, but the program stays what it is.
    assert_eq!(verdicts(&b.connect(1)), one(Kind::Connect, Verdict::Unauthorized, "/opt/x"));
    assert_eq!(verdicts(&b.exec(2, at("/bin/true"))), []);
    assert_eq!(verdicts(&b.connect(2)), []);

    // Another document, in which a program that runs is not.
    b.world.0.borrow_mut().program = Some(at("/bin/true"));
    let (index, document) = sbom_of(&["/bin/sh"], Some("2026-01-01T00:00:00Z"));
    let document = Document { sha256: Sha256([7; 32]), ..document };
    b.now(image(ImageState::Verified { index, documents: vec![document] }));
    b.event(3, Body::Fork { parent: ProcessId { tgid: 2, start_ns: 1 } });
    let found = b.connect(3);
    assert_eq!(found.iter().map(|f| f.verdict).collect::<Vec<_>>(), [Verdict::Attested, Verdict::Relocated]);
    // And back: what was held against it is forgiven.
    b.now(verified());
    let found = b.connect(3);
    assert_eq!(verdicts(&found), one(Kind::Connect, Verdict::Attested, ""));
    assert_eq!(verdicts(&b.connect(2)), []);
}

#[test]
fn an_sbom_of_an_unproven_platform_is_for_information() {
    let mut b = Bench::new();
    let unproven = |index| {
        let (sbom, document) = sbom_of(&["/bin/true", "/bin/sh"], Some("2026-01-01T00:00:00Z"));
        let document = Document { binding: Binding::Unproven, ..document };
        let reason = "a.json: nothing in it proves the platform".to_owned();
        let index = Some(sbom).filter(|_| index);
        image(ImageState::PlatformUnproven { index, documents: vec![document], reason })
    };
    b.now(unproven(true));
    let found = b.exec(1, at("/bin/true"));
    assert_eq!(verdicts(&found), one(Kind::Exec, Verdict::PlatformUnproven, ""));
    assert_eq!((found[0].severity, found[0].binding), (Severity::Medium, Some(Binding::Unproven)));
    assert_eq!(found[0].process, None);
    assert!(found[0].reason.contains("for information only: a.json"), "{}", found[0].reason);
    assert_eq!(&*found[0].documents, [Sha256([5; 32])]);
    // Content that is in it was signed for this image, whatever the platform.
    assert_eq!(verdicts(&b.exec(2, at("/bin/true"))), []);
    assert_eq!(b.image.lock().expect("whole").used_count(), 1);

    b.world.0.borrow_mut().files.insert("/bin/sh", OTHER);
    let root = |b: &mut Bench, exe| {
        let process = ProcessId { tgid: 9, start_ns: 1 };
        let task = Task { process, pid: 9, ..Task::default() };
        let body = Body::Exec { exe, script: None };
        b.judge.event(&Event { time_ns: 9, flavour: Flavour::Tracepoint, task, body });
        b.found.take()
    };
    for (file, verdict, severity) in [
        ("/opt/x", Verdict::Unauthorized, Severity::Medium),
        ("/bin/sh", Verdict::Modified, Severity::Info),
        ("/bin/none", Verdict::Modified, Severity::Info),
        ("/opt/gone", Verdict::Undetermined, Severity::Medium),
    ] {
        let found = root(&mut b, at(file));
        assert_eq!(
            found.iter().map(|f| (f.verdict, f.severity)).collect::<Vec<_>>(),
            [(verdict, severity)],
            "{file}"
        );
        assert!(found[0].reason.ends_with("the SBOM may be of another platform"), "{}", found[0].reason);
    }
    let found = b.connect(9);
    assert!(found.iter().all(|f| f.severity <= Severity::Medium), "{found:?}");
    let removed = b.file(FileOp::Unlink, at("/bin/true"));
    assert_eq!((removed[0].verdict, removed[0].severity), (Verdict::Modified, Severity::Info));

    // Documents that contradict each other say nothing.
    b.now(unproven(false));
    assert_eq!(verdicts(&b.exec(3, at("/opt/x"))), []);
    // Proven at last.
    b.now(verified());
    let found = b.exec(4, at("/opt/x"));
    assert_eq!(
        found.iter().map(|f| f.verdict).collect::<Vec<_>>(),
        [Verdict::Attested, Verdict::Unauthorized]
    );
    assert_eq!(found[1].severity, Severity::High);
}

#[test]
fn a_trust_root_that_is_too_old_is_said_once_for_an_image() {
    let mut b = Bench::new();
    let until = |seconds| {
        let mut image = Arc::into_inner(verified()).expect("nobody else has it");
        image.trusted_until = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        Arc::new(image)
    };
    b.now(until(WALL + 1000));
    assert_eq!(verdicts(&b.exec(1, at("/bin/true"))), []);
    b.now(until(WALL - 1));
    let found = b.exec(1, at("/bin/true"));
    assert_eq!(verdicts(&found), one(Kind::Exec, Verdict::StaleTrustRoot, ""));
    assert_eq!(found[0].severity, Severity::Medium);
    assert!(found[0].reason.contains("until 2023-11-14T22:13:19"), "{}", found[0].reason);
    b.now(until(WALL - 1));
    assert_eq!(verdicts(&b.exec(1, at("/bin/true"))), [], "said already");
    b.now(until(WALL + 1000));
    assert_eq!(verdicts(&b.exec(1, at("/bin/true"))), []);
    b.now(until(WALL - 1));
    assert_eq!(b.exec(1, at("/bin/true")).len(), 1, "it was good in between");
}

#[test]
fn a_program_of_no_known_workload_is_never_silent() {
    let mut b = Bench::new();
    let info = WorkloadInfo { id: crate::workload::UNKNOWN.into(), ..WorkloadInfo::default() };
    let unknown = Workload {
        info: Arc::new(info),
        image: None,
        helps: false,
        is_host: false,
        started: None,
        root: None,
    };
    b.world.0.borrow_mut().workload = Some(Arc::new(unknown));
    assert_eq!(verdicts(&b.exec(1, at("/bin/true"))), one(Kind::Exec, Verdict::Undetermined, "/bin/true"));
    assert_eq!(verdicts(&b.file(FileOp::CloseWrite, at("/opt/x"))), []);
}

#[test]
fn a_loss_says_when_how_many_and_what_to_do() {
    let mut b = Bench::new();
    let found =
        b.event(0, Body::Lost { kind: Kind::File, cause: LossCause::RingFull, count: 7, since_ns: 0 });
    assert_eq!(verdicts(&found), one(Kind::Lost, Verdict::Loss, ""));
    assert!(found[0].reason.contains("7 file records of this workload were lost"), "{}", found[0].reason);
    assert!(found[0].reason.contains("sensor.file_ring_bytes"), "{}", found[0].reason);
    assert_eq!(found[0].process, None);
}

type Setup = fn(&mut Bench) -> Vec<Finding>;
/// Verdict, severity, kind, path and package.
type Line = (Verdict, Severity, Kind, String, Option<String>);

fn lines(found: &[Finding]) -> Vec<Line> {
    let line = |f: &Finding| {
        (f.verdict, f.severity, f.kind, f.path.to_string(), f.package.as_deref().map(str::to_owned))
    };
    found.iter().map(line).collect()
}

fn updated(severity: Severity, kind: Kind, path: &str, package: Option<&str>) -> Line {
    (Verdict::Updated, severity, kind, path.to_owned(), package.map(str::to_owned))
}

#[test]
fn patch_day_is_quiet_and_loses_nothing() {
    use Severity::{Info, Medium};
    let mut b = Bench::new();
    b.world
        .0
        .borrow_mut()
        .owners
        .extend([("/bin/true", ("coreutils 9.2", OTHER)), ("/bin/new", ("new 1", OTHER))]);
    let mut found = b.dpkg(10);
    b.fork(10, 11);
    // dpkg-deb unpacks beside the old file and renames over it.
    found.extend(b.writes(11, "/bin/true.dpkg-new", OTHER));
    found.extend(b.renames(11, "/bin/true.dpkg-new", "/bin/true"));
    found.extend(b.writes(11, "/bin/new", OTHER));
    // A maintainer script, and what it makes.
    found.extend(b.writes(11, "/var/lib/dpkg/info/new.postinst", OTHER));
    b.fork(10, 12);
    let script = Some(at("/var/lib/dpkg/info/new.postinst"));
    found.extend(b.event(12, Body::Exec { exe: at("/bin/sh"), script }));
    found.extend(b.writes(12, "/opt/made", OTHER));
    // Something else of the host already runs the new program, twice.
    found.extend(b.exec(50, at("/bin/true")));
    found.extend(b.exec(51, at("/bin/true")));
    found.extend(b.connect(50));
    // As it was before: no change.
    found.extend(b.writes(11, "/bin/sh", 3));
    found.extend(b.writes(11, "/bin/sh", ATTESTED));
    assert_eq!(lines(&found), []);
    let found = b.ends(10);
    assert_eq!(
        lines(&found),
        [
            updated(Info, Kind::File, "/bin/true", Some("coreutils 9.2")),
            updated(Info, Kind::File, "/bin/new", Some("new 1")),
            updated(Info, Kind::File, "/var/lib/dpkg/info/new.postinst", None),
            updated(Info, Kind::Exec, "/var/lib/dpkg/info/new.postinst", None),
            updated(Medium, Kind::File, "/opt/made", None),
            updated(Info, Kind::Exec, "/bin/true", Some("coreutils 9.2")),
        ]
    );
    // As they were when it happened.
    assert_eq!(found[0].process.as_ref().map(|p| p.id.tgid), Some(11));
    assert_eq!(found[0].operation, Some(FileOp::Rename));
    assert_eq!(found[0].expected_sha256, Some(Sha256([ATTESTED; 32])));
    assert_eq!(found[0].sha256, Some(Sha256([OTHER; 32])));
    assert!(found[0].time < found[5].time);
    assert!(found[0].reason.contains("the package coreutils 9.2 says so"), "{}", found[0].reason);
    let metrics = &b.judge.metrics;
    let count = |outcome| metrics.update_count(outcome);
    use crate::metrics::Update::{Early, Folded, Held, Spoilt};
    // What was held was reported or folded: `.dpkg-new`, the second exec, the shell.
    assert_eq!((count(Held), count(Folded), count(Early), count(Spoilt)), (9, 3, 0, 0));
    assert_eq!(b.world.0.borrow().settled, 1);
    // An updated program is no drift for ever, and said once.
    assert_eq!(lines(&b.exec(60, at("/bin/true"))), []);
    assert_eq!(lines(&b.connect(60)), []);
    assert_eq!(lines(&b.exec(60, at("/bin/new"))), [updated(Info, Kind::Exec, "/bin/new", Some("new 1"))]);
    assert_eq!(lines(&b.exec(61, at("/bin/new"))), []);
    assert_eq!(lines(&b.exec(62, at("/opt/made"))), [updated(Medium, Kind::Exec, "/opt/made", None)]);
    assert_eq!(lines(&b.connect(62)), [updated(Medium, Kind::Connect, "/opt/made", None)]);
    // The same content elsewhere, other content there, and what others do there, are not updates.
    b.world.0.borrow_mut().files.extend([("/home/true", OTHER), ("/bin/new", 3)]);
    assert_eq!(b.exec(70, at("/home/true"))[0].verdict, Verdict::Unauthorized);
    assert_eq!(b.exec(71, at("/bin/new"))[0].verdict, Verdict::Unauthorized);
    assert_eq!(b.writes(72, "/bin/true", OTHER)[0].verdict, Verdict::Modified);
}

#[test]
fn only_an_attested_package_manager_of_the_host_counts() {
    let setups: [(&str, Setup); 7] = [
        ("anybody else than root runs it", |b| b.exec(10, at("/usr/bin/dpkg"))),
        ("its program is not attested", |b| {
            b.world.0.borrow_mut().files.insert("/usr/bin/dpkg", OTHER);
            b.dpkg(10)
        }),
        ("it is only called so", |b| {
            b.world.0.borrow_mut().files.insert("/tmp/dpkg", ATTESTED);
            b.exec(10, at("/tmp/dpkg"))
        }),
        ("another root directory", |b| {
            b.world.0.borrow_mut().elsewhere = true;
            b.dpkg(10)
        }),
        ("none is configured", |b| {
            b.judge.set_package_managers(&[]);
            b.dpkg(10)
        }),
        ("it runs another program", |b| {
            b.dpkg(10);
            b.exec(10, at("/bin/sh"));
            b.clock += GRACE_NS;
            Vec::new()
        }),
        ("it has ended long ago", |b| {
            b.dpkg(9);
            b.fork(9, 10);
            b.ends(9)
        }),
    ];
    for (what, setup) in setups {
        let mut b = Bench::new();
        setup(&mut b);
        let found = b.writes(10, "/bin/true", OTHER);
        assert_eq!(found.len(), 1, "{what}");
        assert_eq!((found[0].verdict, found[0].severity), (Verdict::Modified, Severity::High), "{what}");
        assert_eq!(lines(&b.ends(10)), [], "{what}");
    }
    // Other mounts: the file is another one, whatever its name.
    let mut b = Bench::new();
    b.dpkg(10);
    b.clock += 1000;
    let process = ProcessId { tgid: 10, start_ns: 1 };
    let task = Task { process, pid: 10, mnt_ns: 77, ..Task::default() };
    let body = Body::File { op: FileOp::CloseWrite, file: at("/opt/x"), target: None, mode: None };
    b.judge.event(&Event { time_ns: b.clock, flavour: Flavour::Lsm, task, body });
    assert_eq!(b.found.take()[0].verdict, Verdict::Unauthorized);
}

#[test]
fn an_attested_script_is_a_package_manager_too() {
    let mut b = Bench::new();
    b.judge.set_package_managers(&["/bin/true".into()]);
    b.as_root(|b| b.event(10, Body::Exec { exe: at("/bin/sh"), script: Some(at("/bin/true")) }));
    assert_eq!(lines(&b.writes(10, "/opt/x", OTHER)), []);
    assert_eq!(b.ends(10)[0].verdict, Verdict::Updated);
    // Neither with another interpreter nor as the interpreter of another script.
    b.as_root(|b| b.event(11, Body::Exec { exe: at("/opt/x"), script: Some(at("/bin/true")) }));
    assert_eq!(b.writes(11, "/opt/y", OTHER)[0].verdict, Verdict::Unauthorized);
    b.as_root(|b| b.event(12, Body::Exec { exe: at("/bin/true"), script: Some(at("/bin/sh")) }));
    assert_eq!(b.writes(12, "/opt/y", OTHER)[0].verdict, Verdict::Unauthorized);
}

#[test]
fn a_package_manager_that_runs_foreign_code_counts_for_nothing() {
    let mut b = Bench::new();
    b.dpkg(10);
    assert_eq!(lines(&b.writes(10, "/bin/true", OTHER)), []);
    let found = b.event(10, Body::Library { file: at("/opt/x"), mprotect: false, address: 0 });
    let library = (Kind::Library, Verdict::Unauthorized, "/opt/x".to_owned());
    assert_eq!(verdicts(&found), [library, (Kind::File, Verdict::Modified, "/bin/true".into())]);
    assert_eq!(b.writes(10, "/bin/true", OTHER)[0].verdict, Verdict::Modified);
    assert_eq!(b.judge.metrics.update_count(crate::metrics::Update::Spoilt), 1);
    // A child of its does not spoil it: new programs run before they are settled.
    b.dpkg(20);
    b.fork(20, 21);
    b.event(21, Body::Library { file: at("/opt/x"), mprotect: false, address: 0 });
    assert_eq!(lines(&b.writes(20, "/bin/true", OTHER)), []);
}

#[test]
fn what_is_removed_is_asked_of_the_database_too() {
    use Severity::{Info, Medium};
    let mut b = Bench::new();
    b.world.0.borrow_mut().owners.insert("/bin/sh", ("dash 1", ATTESTED));
    b.dpkg(10);
    assert_eq!(lines(&b.removes(10, "/bin/true")), []);
    assert_eq!(lines(&b.removes(10, "/bin/sh")), []);
    // Removed, and put there again.
    assert_eq!(lines(&b.removes(10, "/bin/none")), []);
    b.world.0.borrow_mut().files.insert("/bin/none", OTHER);
    let expected = [
        updated(Info, Kind::File, "/bin/true", None),
        updated(Medium, Kind::File, "/bin/sh", Some("dash 1")),
    ];
    assert_eq!(lines(&b.ends(10)), expected);
    assert_eq!(b.removes(30, "/usr/bin/dpkg")[0].verdict, Verdict::Modified);
}

#[test]
fn a_file_that_could_not_be_read_in_time_is_read_when_it_is_settled() {
    let mut b = Bench::new();
    b.world.0.borrow_mut().owners.insert("/bin/true", ("coreutils 9.2", OTHER));
    b.dpkg(10);
    for path in ["/bin/true", "/opt/gone"] {
        b.world.0.borrow_mut().files.remove(path);
        let body = Body::File { op: FileOp::CloseWrite, file: at(path), target: None, mode: None };
        assert_eq!(lines(&b.event(10, body)), []);
    }
    b.world.0.borrow_mut().files.insert("/bin/true", OTHER);
    let found = b.ends(10);
    assert_eq!(lines(&found), [updated(Severity::Info, Kind::File, "/bin/true", Some("coreutils 9.2"))]);
    assert_eq!(found[0].sha256, Some(Sha256([OTHER; 32])));
}

#[test]
fn a_package_manager_that_updates_itself_goes_on() {
    let mut b = Bench::new();
    b.world.0.borrow_mut().owners.insert("/usr/bin/dpkg", ("dpkg 2", OTHER));
    b.dpkg(10);
    b.writes(10, "/usr/bin/dpkg", OTHER);
    b.event(10, Body::Exit { status: 0 });
    // The next one begins at once; it is judged by what the first one left.
    let found = b.dpkg(11);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|f| f.verdict == Verdict::Updated && f.severity == Severity::Info), "{found:?}");
    assert_eq!(lines(&b.writes(11, "/bin/true", OTHER)), []);
    assert_eq!(b.ends(11)[0].verdict, Verdict::Updated);
    // Not by a digest that the database does not have.
    b.dpkg(12);
    b.writes(12, "/usr/bin/dpkg", 3);
    assert_eq!(b.ends(12)[0].severity, Severity::Medium);
    b.dpkg(13);
    assert_eq!(b.writes(13, "/bin/sh", OTHER)[0].verdict, Verdict::Modified);
}

#[test]
fn nothing_is_held_for_ever() {
    use Severity::{Info, Medium};
    let mut b = Bench::new();
    b.world.0.borrow_mut().owners.insert("/bin/true", ("coreutils 9.2", OTHER));
    b.dpkg(10);
    b.writes(10, "/bin/true", OTHER);
    b.writes(10, "/bin/sh", OTHER);
    let settled_at = |b: &mut Bench, after: u64| {
        b.clock += after;
        b.judge.tick(Duration::from_nanos(b.clock));
        lines(&b.found.take())
    };
    assert_eq!(settled_at(&mut b, AT_MOST_NS / 2), []);
    assert_eq!(
        settled_at(&mut b, AT_MOST_NS),
        [updated(Info, Kind::File, "/bin/true", Some("coreutils 9.2"))]
    );
    // One more chance, while the package manager goes on.
    assert_eq!(settled_at(&mut b, AT_MOST_NS / 2), []);
    assert_eq!(settled_at(&mut b, AT_MOST_NS), [updated(Medium, Kind::File, "/bin/sh", None)]);
    assert_eq!(lines(&b.writes(10, "/bin/sh", 3)), [], "its session goes on");
    b.judge.finish();
    assert_eq!(lines(&b.found.take()), [updated(Medium, Kind::File, "/bin/sh", None)]);
    assert_eq!(lines(&b.ends(10)), []);
}

#[test]
fn a_package_manager_whose_exit_was_lost_does_not_live_for_ever() {
    let mut b = Bench::new();
    b.dpkg(10);
    b.writes(10, "/bin/sh", OTHER);
    b.world.0.borrow_mut().elsewhere = true;
    b.clock += AT_MOST_NS;
    b.judge.tick(Duration::from_nanos(b.clock));
    assert_eq!(lines(&b.found.take()), [updated(Severity::Medium, Kind::File, "/bin/sh", None)]);
    assert_eq!(b.writes(10, "/bin/sh", 3)[0].verdict, Verdict::Modified);
}

#[test]
fn many_package_managers_at_once_lose_nothing() {
    let mut b = Bench::new();
    b.world.0.borrow_mut().rest = Some(OTHER);
    let mut found = Vec::new();
    for pid in 10..2000 {
        found.extend(b.dpkg(pid));
        let file = at(&format!("/opt/{pid}"));
        found.extend(b.event(pid, Body::File { op: FileOp::CloseWrite, file, target: None, mode: None }));
    }
    assert_eq!(found.len(), 1990 - 1024, "the oldest are settled");
    b.judge.finish();
    found.extend(b.found.take());
    assert_eq!(found.len(), 1990);
}

#[test]
fn more_than_can_be_held_is_settled_early() {
    let mut b = Bench::new();
    b.world.0.borrow_mut().rest = Some(OTHER);
    b.dpkg(10);
    let mut found = Vec::new();
    for n in 0..HELD + 10 {
        let file = at(&format!("/opt/{n}"));
        found.extend(b.event(10, Body::File { op: FileOp::CloseWrite, file, target: None, mode: None }));
    }
    let early = found.len();
    assert!(early >= HELD, "{early}");
    found.extend(b.ends(10));
    assert_eq!(found.len(), HELD + 10, "nothing is lost");
    assert!(found.iter().all(|f| f.verdict == Verdict::Updated));
    assert_eq!(b.judge.metrics.update_count(crate::metrics::Update::Early), early as u64);
}

#[test]
fn after_a_restart_the_database_alone_is_believed_less() {
    let mut b = Bench::new();
    let old = |path| {
        let mut file = at(path);
        // After the SBOM was made, before the first event.
        file.identity.ctime_ns = 1_700_000_000_000_000_000 - 1;
        file
    };
    let image = Arc::new(std::sync::Mutex::new(verified_at("2020-01-01T00:00:00Z")));
    b.image = Arc::clone(&image);
    let source: ImageSource = Box::new(move |_: &Digests| Arc::clone(&image.lock().expect("whole")));
    b.judge.source = source;
    {
        let mut world = b.world.0.borrow_mut();
        world.files.extend([("/bin/true", OTHER), ("/bin/sh", OTHER), ("/usr/bin/dpkg", OTHER)]);
        world.owners.extend([("/bin/true", ("coreutils 9.2", OTHER)), ("/bin/sh", ("dash 1", 3))]);
        world.owners.extend([("/usr/bin/dpkg", ("dpkg 2", OTHER)), ("/opt/x", ("x 1", OTHER))]);
    }
    let low = |path: &str, package| updated(Severity::Low, Kind::Exec, path, Some(package));
    let found = b.exec(1, old("/bin/true"));
    assert_eq!(lines(&found), [low("/bin/true", "coreutils 9.2")]);
    assert!(found[0].reason.contains("before the agent started"), "{}", found[0].reason);
    assert_eq!(lines(&b.exec(2, old("/bin/true"))), [], "said once");
    assert_eq!(lines(&b.connect(2)), []);
    assert_eq!(lines(&b.exec(3, old("/opt/x"))), [low("/opt/x", "x 1")]);
    assert_eq!(b.exec(4, old("/bin/sh"))[0].verdict, Verdict::Modified, "the database has another digest");
    b.world.0.borrow_mut().files.insert("/opt/y", OTHER);
    assert_eq!(b.exec(5, at("/opt/y"))[0].verdict, Verdict::Unauthorized, "no package owns it");
    // Changed since: somebody would have been seen.
    b.world.0.borrow_mut().files.insert("/bin/true", 3);
    b.world.0.borrow_mut().owners.insert("/bin/true", ("coreutils 9.3", 3));
    assert_eq!(b.exec(6, at("/bin/true"))[0].verdict, Verdict::Modified);
    // A package manager that only its database vouches for is not trusted.
    assert_eq!(lines(&b.exec(7, old("/usr/bin/dpkg"))), [low("/usr/bin/dpkg", "dpkg 2")]);
    assert_eq!(b.writes(7, "/bin/sh", OTHER)[0].verdict, Verdict::Modified);
}

#[test]
fn package_derived_is_said_once_and_held_against_nobody() {
    let mut b = Bench::new();
    let layer = || {
        let mut file = FileRef { place: Place::ImageLayer, ..at("/opt/x") };
        file.identity.ctime_ns = 1;
        file
    };
    b.world.0.borrow_mut().workload = Some(container(WALL));
    assert_eq!(verdicts(&b.exec(1, layer())), one(Kind::Exec, Verdict::Unlisted, "/opt/x"));
    b.world.0.borrow_mut().owners.insert("/opt/x", ("x 1", OTHER));
    let found = b.exec(2, layer());
    assert_eq!(verdicts(&found), one(Kind::Exec, Verdict::PackageDerived, "/opt/x"));
    assert_eq!(found[0].package.as_deref(), Some("x 1"));
    assert_eq!(lines(&b.exec(3, layer())), []);
    assert_eq!(lines(&b.connect(3)), []);
    // In the upper layer, and on the host, the database says nothing.
    assert_eq!(b.exec(4, FileRef { place: Place::UpperLayer, ..layer() })[0].verdict, Verdict::Unauthorized);
    b.world.0.borrow_mut().workload = None;
    assert_eq!(b.exec(5, layer())[0].verdict, Verdict::Unlisted);
    // A package manager in a container is nobody's update.
    b.world.0.borrow_mut().workload = Some(container(WALL));
    b.dpkg(6);
    assert_eq!(b.writes(6, "/bin/true", OTHER)[0].verdict, Verdict::Modified);
}

/// A data file that was changed by a name that the SBOM does not have.
fn elsewhere(path: &str, place: &str) -> FileRef {
    let origin = Box::new(Origin { path: place.into(), ..Origin::default() });
    FileRef { mode: 0o100_644, origin: Some(origin), ..at(path) }
}

#[test]
fn a_change_through_another_mount_is_a_change_of_the_sboms_file() {
    use FileOp::{CloseWrite, Rename, Unlink};
    let moved = |target: &str| {
        let mut file = elsewhere("/mnt/bin/true", "/bin/true");
        file.origin.as_mut().expect("it has one").target = target.into();
        file
    };
    let data = |path: &str| FileRef { path: path.into(), ..moved("/bin/sh") };
    for (what, op, file, target, expected) in [
        ("written", CloseWrite, elsewhere("/mnt/bin/sh", "/bin/sh"), None, &["/bin/sh"][..]),
        ("written as it was", CloseWrite, elsewhere("/mnt/bin/true", "/bin/true"), None, &[]),
        ("what the SBOM does not have", CloseWrite, elsewhere("/mnt/data", "/srv/data"), None, &[]),
        ("a place that nothing shows", CloseWrite, elsewhere("/mnt/data", "/hidden"), None, &[]),
        ("removed", Unlink, elsewhere("/mnt/bin/true", "/bin/true"), None, &["/bin/true"]),
        ("moved away", Rename, moved("/bin/other"), Some("/mnt/bin/other"), &["/bin/true"]),
        ("moved over", Rename, data("/mnt/bin/x"), Some("/mnt/bin/sh"), &["/bin/true", "/bin/sh"]),
    ] {
        let mut b = Bench::new();
        {
            let mut world = b.world.0.borrow_mut();
            world.files.extend([("/mnt/bin/sh", OTHER), ("/mnt/bin/true", ATTESTED), ("/mnt/data", OTHER)]);
            world.files.insert("/mnt/bin/other", ATTESTED);
            for (place, other) in [
                ("/bin/true", "/mnt/bin/true"),
                ("/bin/sh", "/mnt/bin/sh"),
                ("/bin/other", "/mnt/bin/other"),
                ("/srv/data", "/mnt/data"),
            ] {
                world.places.extend([(true, place, place), (true, place, other)]);
            }
        }
        let body = Body::File { op, file, target: target.map(FilePath::from), mode: None };
        let found = b.event(1, body);
        let expected: Vec<_> =
            expected.iter().map(|path| (Kind::File, Verdict::Modified, (*path).to_owned())).collect();
        assert_eq!(verdicts(&found), expected, "{what}");
    }
}

#[test]
fn what_a_container_changes_of_the_host_is_judged_by_the_hosts_sbom() {
    let mut b = Bench::new();
    b.world.0.borrow_mut().places = vec![(true, "/bin/sh", "/bin/sh"), (false, "/bin/sh", "/host/bin/sh")];
    b.world.0.borrow_mut().files.insert("/host/bin/sh", OTHER);
    b.world.0.borrow_mut().workload = Some(container(WALL));
    let file = elsewhere("/host/bin/sh", "/bin/sh");
    let found = b.event(1, Body::File { op: FileOp::CloseWrite, file, target: None, mode: None });
    assert_eq!(verdicts(&found), one(Kind::File, Verdict::Modified, "/bin/sh"));
    assert_eq!(found[0].workload.id, "docker://1", "who did it");
    let reason = &found[0].reason;
    let expected = "a container changed this file of the host by another name, /host/bin/sh";
    assert!(reason.ends_with(expected), "{reason}");
}

#[test]
fn a_change_through_a_hard_link_is_a_change_of_the_sboms_file() {
    use FileOp::{CloseWrite, Link};
    let of = |path: &str, nlink| {
        let mut file = FileRef { path: path.into(), nlink, mode: 0o100_644, ..at("/bin/sh") };
        file.identity.generation = 5;
        file
    };
    let close = |file| Body::File { op: CloseWrite, file, target: None, mode: None };
    let link = |file, target: &str| Body::File { op: Link, file, target: Some(target.into()), mode: None };
    // Made since the agent started, by either name.
    for (from, to) in [("/bin/sh", "/opt/link"), ("/opt/link", "/bin/sh")] {
        let mut b = Bench::new();
        assert_eq!(verdicts(&b.event(1, link(of(from, 1), to))), []);
        b.world.0.borrow_mut().files.insert("/opt/link", OTHER);
        let found = b.event(1, close(of("/opt/link", 2)));
        assert_eq!(verdicts(&found), one(Kind::File, Verdict::Modified, "/bin/sh"));
        assert!(
            found[0].reason.ends_with("it was changed by another name, /opt/link"),
            "{}",
            found[0].reason
        );
        // The number was given away again.
        let mut again = of("/opt/link", 2);
        again.identity.generation = 6;
        assert_eq!(verdicts(&b.event(1, close(again))), []);
    }
    // Made before.
    let mut b = Bench::new();
    b.world.0.borrow_mut().files.insert("/opt/link", OTHER);
    b.world.0.borrow_mut().listed.insert("/opt/link", "/bin/sh");
    assert_eq!(verdicts(&b.event(1, close(of("/opt/link", 1)))), [], "it has no other name");
    let found = b.event(1, close(of("/opt/link", 2)));
    assert_eq!(verdicts(&found), one(Kind::File, Verdict::Modified, "/bin/sh"));
    // As it was.
    b.world.0.borrow_mut().files.insert("/opt/link", ATTESTED);
    assert_eq!(verdicts(&b.event(1, close(of("/opt/link", 2)))), []);
}

#[test]
fn a_file_with_a_number_of_another_is_reported_by_its_own_name() {
    let named = |path: &str, generation| {
        let mut file = FileRef { path: path.into(), nlink: 2, ..at("/bin/true") };
        file.identity.generation = generation;
        file
    };
    let link =
        |file, target: &str| Body::File { op: FileOp::Link, file, target: Some(target.into()), mode: None };
    let mut b = Bench::new();
    b.world.0.borrow_mut().files.extend([("/opt/link", ATTESTED), ("/opt/new", OTHER)]);
    b.event(1, link(named("/bin/true", 1), "/opt/link"));
    b.event(1, link(named("/opt/x", 2), "/opt/new"));
    let mut closed = FileRef { deleted: true, ..named("/opt/x", 2) };
    closed.nlink = 1;
    let found = b.event(1, Body::File { op: FileOp::CloseWrite, file: closed, target: None, mode: None });
    assert_eq!(verdicts(&found), one(Kind::File, Verdict::Unauthorized, "/opt/new"));
}

#[test]
fn a_file_of_the_sbom_that_is_open_for_long_is_looked_at() {
    use super::held::PATIENCE_NS;
    let mut b = Bench::new();
    b.flavour = Flavour::Lsm;
    let open = FileRef { has_writers: true, mode: 0o100_644, ..at("/bin/sh") };
    let unknown = FileRef { has_writers: true, ..at("/opt/x") };
    assert_eq!(verdicts(&b.file(FileOp::OpenWrite, open.clone())), []);
    assert_eq!(verdicts(&b.file(FileOp::OpenWrite, unknown.clone())), []);
    let wait = |b: &mut Bench, ns: u64| {
        b.clock += ns;
        b.judge.tick(Duration::from_nanos(b.clock));
        b.found.take()
    };
    b.world.0.borrow_mut().files.insert("/bin/sh", OTHER);
    assert_eq!(verdicts(&wait(&mut b, PATIENCE_NS / 2)), []);
    let found = wait(&mut b, PATIENCE_NS);
    assert_eq!(verdicts(&found), one(Kind::File, Verdict::Modified, "/bin/sh"));
    assert_eq!(found[0].operation, Some(FileOp::OpenWrite));
    assert!(
        found[0].reason.contains("open for write for 15 s, so this may not be all"),
        "{}",
        found[0].reason
    );
    assert_eq!(b.world.0.borrow().looked, 1, "what the SBOM does not have is not looked at");
    // Only what has changed since is read again, and not for each of many closes.
    let asked = b.world.0.borrow().asked;
    assert_eq!(verdicts(&wait(&mut b, 3 * PATIENCE_NS)), []);
    assert_eq!(b.world.0.borrow().asked, asked);
    b.world.0.borrow_mut().files.insert("/bin/sh", 7);
    for _ in 0..10 {
        assert_eq!(verdicts(&b.file(FileOp::CloseWrite, open.clone())), []);
    }
    assert_eq!(verdicts(&wait(&mut b, 2 * PATIENCE_NS)), one(Kind::File, Verdict::Modified, "/bin/sh"));
    // Others that close what nobody has in an SBOM wait for the last.
    assert_eq!(verdicts(&b.file(FileOp::CloseWrite, unknown)), []);
    let closed = FileRef { has_writers: false, ..open };
    let found = b.file(FileOp::CloseWrite, closed);
    assert_eq!(verdicts(&found), one(Kind::File, Verdict::Modified, "/bin/sh"));
    let looked = b.world.0.borrow().looked;
    assert_eq!(verdicts(&wait(&mut b, 100 * PATIENCE_NS)), []);
    assert_eq!(b.world.0.borrow().looked, looked, "it is closed");
}

/// A lock that a package manager holds, for one.
#[test]
fn of_what_is_open_and_has_no_digest_nothing_is_said_before_it_is_closed() {
    let mut b = Bench::new();
    b.flavour = Flavour::Lsm;
    b.world.0.borrow_mut().empty.push("/bin/none");
    let open = FileRef { has_writers: true, mode: 0o100_644, ..at("/bin/none") };
    assert_eq!(verdicts(&b.file(FileOp::OpenWrite, open.clone())), []);
    b.clock += 3 * held::PATIENCE_NS;
    b.judge.tick(Duration::from_nanos(b.clock));
    assert_eq!((verdicts(&b.found.take()), b.world.0.borrow().looked), (Vec::new(), 1));
    let found = b.file(FileOp::CloseWrite, FileRef { has_writers: false, ..open });
    assert_eq!(verdicts(&found), one(Kind::File, Verdict::PathOnly, "/bin/none"));
}

#[test]
fn a_change_by_one_of_several_writers_is_judged_at_once() {
    let mut b = Bench::new();
    b.flavour = Flavour::Lsm;
    let open = FileRef { has_writers: true, mode: 0o100_644, ..at("/bin/sh") };
    // Who holds it opened it before the agent began.
    assert_eq!(verdicts(&b.file(FileOp::CloseWrite, open.clone())), []);
    b.world.0.borrow_mut().files.insert("/bin/sh", OTHER);
    b.clock += 2_000_000_000;
    let found = b.file(FileOp::CloseWrite, open);
    assert_eq!(verdicts(&found), one(Kind::File, Verdict::Modified, "/bin/sh"));
}

#[test]
fn more_files_than_are_watched_are_told() {
    use super::held::FILES;
    let mut b = Bench::new();
    b.flavour = Flavour::Lsm;
    let open = |ino| {
        let mut file = FileRef { has_writers: true, ..at("/bin/true") };
        file.identity.ino = ino;
        file
    };
    for ino in 1..=FILES as u64 {
        assert_eq!(verdicts(&b.file(FileOp::OpenWrite, open(ino))), []);
    }
    let found = b.file(FileOp::OpenWrite, open(u64::MAX));
    assert_eq!(verdicts(&found), one(Kind::File, Verdict::Undetermined, "/bin/true"));
}

#[test]
fn an_execute_bit_that_is_gone_again_makes_no_program() {
    use super::settling::{FILES, SETTLED_NS};
    for (what, mode, expected) in [("it is gone", 0o100_644, 0), ("it is still there", 0o100_755, 1)] {
        let mut b = Bench::new();
        b.world.0.borrow_mut().data = true;
        let chmod = Body::File { op: FileOp::Chmod, file: at("/opt/x"), target: None, mode: Some(0o755) };
        assert_eq!(verdicts(&b.event(1, chmod.clone())), []);
        assert_eq!(verdicts(&b.event(1, chmod)), [], "again");
        b.world.0.borrow_mut().mode = Some(mode);
        b.clock += SETTLED_NS;
        b.judge.tick(Duration::from_nanos(b.clock));
        let found = b.found.take();
        assert_eq!(found.len(), expected, "{what}");
        assert!(
            found.iter().all(|f| f.verdict == Verdict::Unauthorized && f.operation == Some(FileOp::Chmod))
        );
    }
    // At the end, and when there are too many, nothing is waited for.
    let mut b = Bench::new();
    b.world.0.borrow_mut().data = true;
    for ino in 0..=FILES as u64 {
        let mut file = at("/opt/x");
        file.identity.ino = ino + 1;
        let found = b.file(FileOp::CloseWrite, file);
        assert_eq!(found.len(), usize::from(ino == FILES as u64));
    }
    b.judge.finish();
    assert_eq!(b.found.take().len(), FILES);
}

#[test]
fn objects_and_core_files_are_no_programs_but_kernel_modules_are() {
    for (path, mode, expected) in [
        ("/opt/x.o", 0o100_644, &[][..]),
        ("/opt/x.o", 0o100_755, &[]),
        ("/opt/x.ko", 0o100_644, &[Verdict::Unauthorized]),
        ("/opt/gone.so", 0o100_644, &[Verdict::Undetermined]),
        ("/opt/gone.ko.xz", 0o100_644, &[Verdict::Undetermined]),
        ("/opt/gone", 0o100_644, &[]),
    ] {
        let mut b = Bench::new();
        {
            let mut world = b.world.0.borrow_mut();
            world.files.extend([("/opt/x.o", OTHER), ("/opt/x.ko", OTHER)]);
            world.objects = vec!["/opt/x.o", "/opt/x.ko"];
        }
        let found = b.file(FileOp::CloseWrite, FileRef { mode, ..at(path) });
        assert_eq!(found.iter().map(|f| f.verdict).collect::<Vec<_>>(), expected, "{path}");
        let unread = b.judge.metrics.text().contains("muster_files_unread_total 1\n");
        assert_eq!(unread, path == "/opt/gone", "{path}");
    }
}

/// Processes open more than there is room for, by long paths. What is judged early is judged, and nothing is kept for ever.
#[test]
fn what_processes_have_open_for_write_is_bounded_and_none_of_it_forgotten() {
    const PROCESSES: u32 = 512;
    const FILES: u64 = 20;
    let mut b = Bench::new();
    b.world.0.borrow_mut().rest = Some(OTHER);
    let long = "x".repeat(1000);
    let (mut found, mut most) = (0, 0);
    for pid in 1..=PROCESSES {
        for n in 0..FILES {
            let mut file = FileRef { has_writers: true, ..at(&format!("/opt/{long}/{pid}-{n}")) };
            file.identity.ino = 1_000_000 + u64::from(pid) * FILES + n;
            let body = Body::File { op: FileOp::OpenWrite, file, target: None, mode: None };
            found += b.event(pid, body).len();
            most = most.max(b.judge.writers.with(|writers| writers.bytes()));
        }
    }
    let one = 2 * size_of::<FileRef>() + long.len();
    assert!(most >= writers::BYTES && most <= writers::BYTES + one * PROCESSES as usize, "{most}");
    for pid in 1..=PROCESSES {
        found += b.event(pid, Body::Exit { status: 0 }).len();
    }
    assert_eq!(
        (found as u64, b.judge.writers.with(|writers| writers.bytes())),
        (u64::from(PROCESSES) * FILES, 0)
    );
}

/// The file system on it may have been unmounted, and its inodes are the same when it is mounted again.
#[test]
fn what_was_attested_before_a_device_was_written_is_looked_at_again() {
    let mut b = Bench::new();
    let run = |b: &mut Bench| b.event(1, Body::Exec { exe: at("/bin/true"), script: None });
    assert_eq!(verdicts(&run(&mut b)), []);
    b.world.0.borrow_mut().files.insert("/bin/true", OTHER);
    assert_eq!(verdicts(&run(&mut b)), [], "nothing says that it was changed");
    let mut device = at("/dev/loop0");
    device.identity.real.dev = 0;
    let open = Body::File { op: FileOp::BlockWrite, file: device, target: None, mode: None };
    assert_eq!(verdicts(&b.event(2, open)), []);
    assert_eq!(verdicts(&run(&mut b)), one(Kind::Exec, Verdict::Modified, "/bin/true"));
}

#[test]
fn a_device_that_a_container_without_an_sbom_writes_to_is_told_by_the_hosts() {
    let mut b = Bench::new();
    let bare = Workload { image: None, ..Workload::clone(&container(WALL)) };
    b.world.0.borrow_mut().workload = Some(Arc::new(bare));
    let mut device = at("/dev/sda");
    device.identity.real.dev = 8 << 20;
    let body = Body::File { op: FileOp::BlockWrite, file: device, target: None, mode: None };
    let found = b.event(1, body);
    let told: Vec<_> = found.iter().filter(|f| f.verdict == Verdict::Modified).collect();
    assert_eq!(told.len(), 1, "{found:?}");
    assert_eq!((told[0].severity, told[0].workload.id.as_str()), (Severity::High, "docker://1"));
}

#[test]
fn a_device_that_is_mounted_while_it_is_open_is_told_once() {
    use super::device::AGAIN_NS;
    let mut b = Bench::new();
    b.flavour = Flavour::Lsm;
    let wait = |b: &mut Bench| {
        b.clock += AGAIN_NS;
        b.judge.tick(Duration::from_nanos(b.clock));
        b.found.take()
    };
    let mut device = at("/dev/loop0");
    // The judge's facts have nothing on it when it is opened.
    device.identity.real.dev = 0;
    let open = |b: &mut Bench, pid: u32| {
        let body = Body::File { op: FileOp::BlockWrite, file: device.clone(), target: None, mode: None };
        b.event(pid, body)
    };
    let told = || one(Kind::File, Verdict::Modified, "/dev/loop0");
    assert_eq!(verdicts(&open(&mut b, 7)), []);
    let since_ns = b.clock;
    assert_eq!(verdicts(&wait(&mut b)), []);
    let mounted = Again::Mounted(vec!["/mnt".into()]);
    b.world.0.borrow_mut().devices = Some(mounted.clone());
    let found = wait(&mut b);
    assert_eq!(verdicts(&found), told());
    assert_eq!(found[0].operation, Some(FileOp::BlockWrite));
    assert!(found[0].reason.contains("before it was closed, at /mnt"), "{}", found[0].reason);
    assert_eq!(found[0].process.as_ref().map(|p| p.id.tgid), Some(7));
    assert_eq!(verdicts(&wait(&mut b)), []);
    let asked = |told| vec![Opened { device: 0, since_ns, told }];
    assert_eq!(
        std::mem::take(&mut b.world.0.borrow_mut().devices_asked),
        [asked(false), asked(false), asked(true)]
    );
    // Opened once more, by another.
    assert_eq!(verdicts(&open(&mut b, 8)), []);
    let found = wait(&mut b);
    assert_eq!(verdicts(&found), told());
    assert!(found[0].reason.contains("by others before"), "{}", found[0].reason);
    assert_eq!(found[0].process.as_ref().map(|p| p.id.tgid), Some(8));
    // It is closed, and nobody asks any more.
    b.world.0.borrow_mut().devices = Some(Again::Closed);
    assert_eq!(verdicts(&wait(&mut b)), []);
    let asked = b.world.0.borrow().devices_asked.len();
    assert_eq!(verdicts(&wait(&mut b)), []);
    assert_eq!(b.world.0.borrow().devices_asked.len(), asked);
    // Of who has ended the tracepoint flavour does not know that it is open still.
    b.flavour = Flavour::Tracepoint;
    b.world.0.borrow_mut().devices = Some(mounted);
    for (ends, expected) in [(9, told()), (7, Vec::new())] {
        assert_eq!(verdicts(&open(&mut b, 7)), []);
        assert_eq!(verdicts(&b.event(ends, Body::Exit { status: 0 })), []);
        assert_eq!(verdicts(&wait(&mut b)), expected, "{ends} has ended");
        let asked = b.world.0.borrow_mut().devices_asked.pop().expect("it was looked at");
        assert!(!asked[0].told, "closed, it need not be believed to be written any more");
    }
}
